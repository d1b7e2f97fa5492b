package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu"
)

// nvmlHelper and simulatedVLLM are hidden verbs: this binary is its own helper.
const (
	nvmlHelper    = "nvml-helper"
	simulatedVLLM = "simulated-vllm"
)

// machineOptions say where this machine's instruments are.
func (w *world) machineOptions(sources []string) gpu.Options {
	return gpu.Options{Env: w.env, Helper: []string{w.self, nvmlHelper}, Sources: sources}
}

// checkSources refuses a --sampler that there is none of.
func checkSources(sources []string) error {
	if err := gpu.CheckSources(sources); err != nil {
		return usageError("vramsweep gpus says which of them work here.", "--sampler: %w", err)
	}
	return nil
}

// gpusVerb lists the GPUs and what can be read of them.
func (w *world) gpusVerb() *cobra.Command {
	return jsonVerb("gpus", "The GPUs, which source reads what, and why another does not", exactArgs(),
		func(cmd *cobra.Command, _ []string, asJSON bool) error {
			machine := gpu.Detect(cmd.Context(), w.machineOptions(nil), true)
			devices, err := machine.Devices(cmd.Context())
			if err != nil && len(devices) > 0 {
				return err
			}
			if asJSON {
				return errors.Join(err, printJSON(w.stdout, gpuListing{
					Devices: orEmpty(devices), Sources: orEmpty(machine.Sources()), Notes: machine.MemoryNotes(),
				}))
			}
			return errors.Join(err, printGPUs(w.stdout, devices, machine))
		})
}

// gpuListing is `gpus --json`.
type gpuListing struct {
	Devices []runner.Device    `json:"devices"`
	Sources []gpu.SourceStatus `json:"sources"`
	Notes   []string           `json:"notes,omitempty"` // memory that is not reported, or is not the GPU's own
}

// orEmpty makes nil an empty list, which JSON shows as [].
func orEmpty[T any](list []T) []T { return append([]T{}, list...) }

func printGPUs(out io.Writer, devices []runner.Device, machine *gpu.Machine) error {
	sources := machine.Sources()
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	switch {
	case machine.Unread() != nil:
		fmt.Fprintln(table, "No GPU can be read, which does not say that there is none.")
	case len(devices) == 0:
		fmt.Fprintln(table, "No GPU is to be seen from here.")
	default:
		fmt.Fprintln(table, "GPU\tNAME\tUSED\tRESERVED\tTOTAL\tDRIVER\tBUS\tUUID\tSOURCE")
	}
	for _, d := range devices {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.Index, d.Name, gibOf(d.UsedBytes),
			gibOf(d.ReservedBytes), gibOf(d.TotalBytes),
			orDash(d.DriverVersion), orDash(d.PCIBusID), orDash(d.UUID), d.Source)
	}
	for _, note := range machine.MemoryNotes() {
		fmt.Fprintln(table, note)
	}
	fmt.Fprintln(table, "\nSOURCE\tSERVES\tPOWER\tWHY NOT")
	for _, s := range sources {
		serves := "no"
		switch {
		case s.Used:
			serves = "used"
		case s.Works:
			serves = "yes"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", s.Name, serves, orDash(s.Power), orDash(s.Reason))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, s := range sources {
		if len(s.Reads) > 0 {
			fmt.Fprintf(out, "\n%s reads\n%s\n", s.Name, wrapped(s.Reads, 96))
		}
	}
	return nil
}

// wrapped prints words in lines of at most width, indented.
func wrapped(words []string, width int) string {
	text, column := " ", 1
	for i, word := range words {
		if i < len(words)-1 {
			word += ","
		}
		if column+1+len(word) > width {
			text, column = text+"\n ", 1
		}
		text, column = text+" "+word, column+1+len(word)
	}
	return text
}

// gibOf prints bytes as GiB, "-" where they are missing.
func gibOf(bytes *int64) string {
	if bytes == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f GiB", float64(*bytes)/runner.GiB)
}

func orDash(s string) string { return cmp.Or(s, "-") }

// versionVerb prints the version.
func (w *world) versionVerb() *cobra.Command {
	return verb("version", "The version of vramsweep and of what it writes", exactArgs(),
		func(*cobra.Command, []string) error {
			fmt.Fprintf(w.stdout, "vramsweep %s\nschema %s\n", version, runner.SchemaVersion)
			return nil
		})
}

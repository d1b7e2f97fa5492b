package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// modelsVerb shows the catalogue of architectures.
func (w *world) modelsVerb() *cobra.Command {
	cmd := verb("models", "The catalogue of architectures", exactArgs(),
		func(cmd *cobra.Command, _ []string) error { return cmd.Help() })
	cmd.AddCommand(w.modelsListVerb(), w.modelsShowVerb(), w.modelsAddVerb())
	return cmd
}

func (w *world) modelsListVerb() *cobra.Command {
	return jsonVerb("list", "All models", exactArgs(), func(_ *cobra.Command, _ []string, asJSON bool) error {
		catalogue, err := models.Builtin()
		if err != nil {
			return err
		}
		var all []*models.Architecture
		for _, name := range catalogue.Names() {
			a, _ := catalogue.Lookup(name)
			all = append(all, a)
		}
		if asJSON {
			return printJSON(w.stdout, all)
		}
		table := tabwriter.NewWriter(w.stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(table, "MODEL\tFAMILY\tPARAMETERS\tLAYERS\tHIDDEN\tHEADS\tKV HEADS\tVOCABULARY\tDTYPE")
		for _, a := range all {
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", a.ID, a.Family, paramsOf(a), a.NumLayers, a.HiddenSize,
				a.NumHeads, a.NumKVHeads, a.VocabSize, orDash(a.NativeDtype))
		}
		return table.Flush()
	})
}

// paramsOf prints a parameter count as people say it.
func paramsOf(a *models.Architecture) string {
	n, ok := models.Params(a)
	if !ok {
		return "-"
	}
	if n >= 1e9 {
		return fmt.Sprintf("%.2f B", float64(n)/1e9)
	}
	return fmt.Sprintf("%.1f M", float64(n)/1e6)
}

func (w *world) modelsShowVerb() *cobra.Command {
	return jsonVerb("show ID|FOLDER", "One model: its architecture, parameters and KV bytes per token", exactArgs("ID"),
		func(_ *cobra.Command, args []string, asJSON bool) error {
			a, err := w.architecture(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(w.stdout, a)
			}
			return printModel(w.stdout, a)
		})
}

// architecture finds a model by name, or reads a folder with config.json.
func (w *world) architecture(name string) (*models.Architecture, error) {
	catalogue, err := models.Builtin()
	if err != nil {
		return nil, err
	}
	if a, ok := catalogue.Lookup(name); ok {
		return a, nil
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return models.FromDir(name)
	}
	return nil, usageError("vramsweep models list names them all; vramsweep models add reads a config.json.",
		"the catalogue has no model %q, and it is no folder", name)
}

func printModel(out io.Writer, a *models.Architecture) error {
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(table, "model\t%s\n", a.ID)
	fmt.Fprintf(table, "architecture\t%s (%s)\n", a.Architecture, orDash(a.Family))
	if n, ok := models.Params(a); ok {
		fmt.Fprintf(table, "parameters\t%s (%d), counted from the architecture\n", paramsOf(a), n)
	} else {
		fmt.Fprintf(table, "parameters\tnot known: %s\n", a.NotKnown())
	}
	fmt.Fprintf(table, "layers\t%d\nhidden size\t%d\nheads\t%d, %d for keys and values, of %d\nvocabulary\t%d\n",
		a.NumLayers, a.HiddenSize, a.NumHeads, a.NumKVHeads, a.HeadDim, a.VocabSize)
	fmt.Fprintf(table, "longest context\t%d\ndtype\t%s\nknown from\t%s\n", a.MaxPosition, orDash(a.NativeDtype), a.Source)
	if err := printKV(table, a); err != nil {
		return err
	}
	return table.Flush()
}

func (w *world) modelsAddVerb() *cobra.Command {
	var id, into string
	cmd := verb("add PATH", "Make a catalogue entry from a Hugging Face config.json", exactArgs("PATH"),
		func(_ *cobra.Command, args []string) error {
			a, err := readConfig(args[0], id)
			if err != nil {
				return err
			}
			if into != "" {
				return addTo(into, a)
			}
			entry, err := a.MarshalEntry()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(w.stdout, "%s\n", entry)
			return err
		})
	cmd.Long = "Reads a config.json, or a folder with one, and prints the catalogue entry;\n" +
		"--into FILE adds it to a catalogue in the format of models.json."
	cmd.Flags().StringVar(&id, "id", "", "name of the entry; default: the folder's name")
	cmd.Flags().StringVar(&into, "into", "", "add the entry to this catalogue file")
	return cmd
}

func readConfig(path, id string) (*models.Architecture, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, usageError("", "%w", err)
	}
	if !info.IsDir() {
		if id == "" {
			id = strings.TrimSuffix(filepath.Base(path), ".json")
		}
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close() //nolint:errcheck // only read from
		return models.FromConfig(file, id)
	}
	a, err := models.FromDir(path)
	if err == nil && id != "" {
		a.ID = id
	}
	return a, err
}

// addTo adds an entry to a catalogue file.
func addTo(path string, a *models.Architecture) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return usageError("Start with a copy of models.json.", "%w", err)
	}
	catalogue, err := models.ParseCatalogue(data)
	if err != nil {
		return usageError("", "%s: %w", path, err)
	}
	out, err := catalogue.With(a).Marshal()
	if err != nil {
		return err
	}
	return replaceFile(path, out)
}

// printKV prints what a token costs in the KV cache.
func printKV(out io.Writer, a *models.Architecture) error {
	for _, dtype := range []string{"auto", "fp8"} {
		n, ok, reason := models.KVBytesPerToken(a, dtype, 1)
		if !ok {
			fmt.Fprintf(out, "KV bytes a token (%s)\tnot known: %s\n", dtype, reason)
			continue
		}
		fmt.Fprintf(out, "KV bytes a token (%s)\t%d, all layers at tensor_parallel_size 1\n", dtype, n)
	}
	return nil
}

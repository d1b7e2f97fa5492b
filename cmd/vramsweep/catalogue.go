package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/sweep"
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
		catalogue, err := w.catalogue()
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
	catalogue, err := w.catalogue()
	if err != nil {
		return nil, err
	}
	if a, ok := catalogue.Lookup(name); ok {
		return a, nil
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return models.FromDir(name)
	}
	hint := nearestOf(name, catalogue.Names(), "vramsweep models list names them all; "+
		"vramsweep models add reads a config.json.")
	if some := containing(catalogue.Names(), name); len(some) > 0 {
		hint = "Did you mean one of " + strings.Join(some[:min(len(some), 5)], ", ") + "? " + hint
	}
	return nil, usageError(hint, "the catalogue has no model %q, and it is no folder", name)
}

// containing are the names with a part in them, whatever its case.
func containing(names []string, part string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return !strings.Contains(strings.ToLower(name), strings.ToLower(part))
	})
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

// catalogue is the one that is built in, with the user's own models laid over it: those
// of --models, else of models.json in the folder of the user's configuration.
func (w *world) catalogue() (*models.Catalogue, error) {
	catalogue, err := models.Builtin()
	if err != nil {
		return nil, err
	}
	file := w.models
	if file == "" {
		file = filepath.Join(cmp.Or(w.getenv("XDG_CONFIG_HOME"), filepath.Join(w.getenv("HOME"), ".config")), "vramsweep",
			"models.json")
		if _, err := os.Stat(file); err != nil {
			return catalogue, nil
		}
	}
	own, err := readCatalogue(file)
	if err != nil {
		return nil, err
	}
	for _, name := range own.Names() {
		a, _ := own.Lookup(name)
		catalogue = catalogue.With(a)
	}
	return catalogue, nil
}

func readCatalogue(file string) (*models.Catalogue, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, usageError("vramsweep models add PATH --into FILE.json makes one.", "models of your own: %w", err)
	}
	catalogue, err := models.ParseCatalogue(data)
	if err != nil {
		return nil, usageError("docs/models.md describes the format.", "%s: %w", file, err)
	}
	return catalogue, nil
}

func (w *world) modelsAddVerb() *cobra.Command {
	var id, into string
	cmd := jsonVerb("add PATH", "Make a model block, or a catalogue entry, from a Hugging Face config.json", exactArgs("PATH"),
		func(_ *cobra.Command, args []string, asJSON bool) error {
			a, err := readConfig(args[0], id)
			if err != nil {
				return err
			}
			if strings.HasSuffix(into, ".json") {
				return addTo(into, a)
			}
			write := sweep.ModelBlock
			if asJSON {
				write = func(a *models.Architecture) ([]byte, error) {
					entry, err := a.MarshalEntry()
					return append(entry, '\n'), err
				}
			}
			text, err := write(a)
			if err != nil {
				return err
			}
			if into != "" {
				return appendTo(into, text)
			}
			_, err = w.stdout.Write(text)
			return err
		})
	cmd.Long = `Reads a config.json, or a folder with one, and prints a model block to paste into a
sweep file. --into FILE.hcl appends it to that file; --into FILE.json adds the model to
a catalogue of your own, which every verb reads with --models FILE.json, or without it
where it is ~/.config/vramsweep/models.json.`
	cmd.Example = `  vramsweep models add ~/models/my-finetune --into sweep.hcl
  vramsweep models add ~/models/my-finetune/config.json --id my-finetune --into ~/.config/vramsweep/models.json`
	cmd.Flags().StringVar(&id, "id", "", "name of the entry; default: the folder's name")
	cmd.Flags().StringVar(&into, "into", "", "write it into `FILE`: a sweep file (.hcl) or a catalogue (.json)")
	return cmd
}

// appendTo adds a block at the end of a sweep file, which is made if need be.
func appendTo(path string, block []byte) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return usageError("", "--into: %w", err)
	}
	if len(old) > 0 {
		block = slices.Concat(bytes.TrimRight(old, "\n"), []byte("\n\n"), block)
	}
	return replaceFile(path, block)
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

// addTo adds an entry to a catalogue file, which is made if need be.
func addTo(path string, a *models.Architecture) error {
	var catalogue *models.Catalogue
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		if catalogue, err = readCatalogue(path); err != nil {
			return err
		}
	}
	out, err := catalogue.With(a).Marshal()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return usageError("", "--into: %w", err)
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

package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// overheadVerb builds and asks the database of overheads.
func (w *world) overheadVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "overhead",
		Short: "A database of what architecture alone does not give",
		Args:  exactArgs(),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(w.overheadBuildVerb(), w.overheadPredictVerb())
	return cmd
}

func (w *world) overheadBuildVerb() *cobra.Command {
	var output string
	var merge []string
	var quietly bool
	cmd := &cobra.Command{
		Use:   "build DIR...",
		Short: "Build it from output folders; prints what it is worth for an unseen model",
		Args:  minArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			rows, err := w.runsOf(args, sinks.Predicate{})
			if err != nil {
				return err
			}
			db, err := analyze.BuildOverheads(rows)
			if err != nil {
				return usageError("", "%w", err)
			}
			for _, name := range merge {
				other, err := readOverheads(name)
				if err != nil {
					return err
				}
				if err := db.Merge(other); err != nil {
					return usageError("", "%s: %w", name, err)
				}
			}
			if err := w.writeTo(output, db.Write); err != nil {
				return err
			}
			out := w.stdout
			if output == "-" {
				out = w.stderr // standard output is the database
			}
			if !quietly {
				if err := db.Text(out); err != nil {
					return err
				}
			}
			return db.Validate().Text(out)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&output, "output", "o", "overheads.json", "FILE, - for standard output")
	flags.StringSliceVar(&merge, "merge", nil, "databases to add; runs that both have count once")
	flags.BoolVar(&quietly, "quiet", false, "print the validation alone")
	return cmd
}

func readOverheads(name string) (*analyze.Overheads, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, usageError("vramsweep overhead build makes one.", "%w", err)
	}
	defer file.Close() //nolint:errcheck // only read from
	db, err := analyze.ReadOverheads(file)
	if err != nil {
		return nil, usageError("", "%s: %w", name, err)
	}
	return db, nil
}

func (w *world) overheadPredictVerb() *cobra.Command {
	var q analyze.OverheadQuery
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "predict",
		Short: "What the database says of a profile, and what that rests on",
		Args:  exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			db, err := readOverheads(file)
			if err != nil {
				return err
			}
			if q.Model == "" {
				return usageError("", "overhead predict: --model is missing")
			}
			if err := w.shapeOf(db, &q); err != nil {
				return err
			}
			parts := db.Predict(q)
			if asJSON {
				return printJSON(w.stdout, parts)
			}
			return analyze.PredictionText(w.stdout, parts)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&file, "overheads", "overheads.json", "FILE")
	flags.StringVar(&q.Model, "model", "", "a name of the database or the catalogue, or a folder with config.json")
	flags.StringVar(&q.GPU, "gpu", "", "as in the catalogue or as the driver names it; default: any")
	flags.Int64Var(&q.TP, "tensor-parallel-size", 1, "ranks")
	flags.StringVar(&q.VLLM, "vllm-version", "", "default: any")
	flags.StringVar(&q.Runner, "model-runner", "", "v1 or v2; default: any")
	flags.StringVar(&q.Compile, "compile", "", "eager, cold or warm; default: any")
	flags.StringVar(&q.Dtype, "dtype", "", "default: any")
	flags.StringVar(&q.Quantization, "quantization", "", "none, fp8, ...; default: any")
	flags.Int64Var(&q.BatchedTokens, "max-num-batched-tokens", 0, "needed for activations")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// shapeOf completes a query: from the database where it knows the model, else
// from the catalogue or a config.json.
func (w *world) shapeOf(db *analyze.Overheads, q *analyze.OverheadQuery) error {
	if g, ok := models.LookupGPU(q.GPU); ok && q.GPU != "" {
		q.GPU = g.Product
	}
	for _, e := range db.Entries {
		if e.Model == q.Model {
			q.Shape, q.Family = e.Shape, e.Family
			return nil
		}
	}
	a, err := w.architecture(q.Model)
	if err != nil {
		return err
	}
	q.Family, q.Shape = a.Family, analyze.Shape{HiddenSize: a.HiddenSize, Layers: a.NumLayers, Vocabulary: a.VocabSize}
	return nil
}

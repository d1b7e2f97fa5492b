package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/compare"
	"github.com/vramsweep/vramsweep/sinks/analyze/correlate"
	htmlreport "github.com/vramsweep/vramsweep/sinks/analyze/report"
	"github.com/vramsweep/vramsweep/sinks/analyze/summary"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// reportVerb writes one HTML file about folders.
func (w *world) reportVerb() *cobra.Command {
	var output, title, baseline string
	var across []string
	var where sinks.Predicate
	var points int
	cmd := &cobra.Command{
		Use:   "report DIR[@EXECUTION]...",
		Short: "One HTML file that works offline: memory, timelines, scaling, failures",
		Long: `Draws the runs of output folders into one self-contained HTML file.

--baseline FOLDER, FOLDER@EXECUTION or a file of "compare save" adds what changed since.`,
		Args: minArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			options := htmlreport.Options{Title: title, Version: version, Now: time.Now(), Points: points, Where: where}
			if options.Title == "" {
				options.Title = "vramsweep: " + titleOf(args)
			}
			return w.report(args, output, baseline, across, options)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&output, "output", "o", "report.html", "FILE, - for standard output")
	flags.StringVar(&title, "title", "", "heading; default: the folders")
	flags.StringVar(&baseline, "baseline", "", "compare with FOLDER, FOLDER@EXECUTION or a baseline file")
	flags.StringSliceVar(&across, "across", nil, "settings in which --baseline is meant to differ, as in compare")
	addWhere(cmd, &where, "this execution alone; last, previous: of a single DIR")
	flags.IntVar(&points, "points", 0,
		"samples that stay of a GPU's timeline; default: as many as keep the file below 20 MB, 600 at most")
	return cmd
}

// addWhere adds the flags that choose runs.
func addWhere(cmd *cobra.Command, where *sinks.Predicate, execution string) {
	flags := cmd.Flags()
	flags.StringVar(&where.Execution, "execution", "", execution)
	flags.StringVar(&where.Sweep, "sweep", "", "this sweep alone")
	flags.StringVar(&where.Model, "model", "", "this model alone")
}

// titleOf names folders shortly.
func titleOf(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more folders", filepath.Base(names[0]), len(names)-1)
	}
	short := make([]string, len(names))
	for i, name := range names {
		short[i] = filepath.Base(name)
	}
	return strings.Join(short, ", ")
}

func (w *world) report(dirs []string, output, baseline string, across []string, o htmlreport.Options) error {
	dirs, err := w.reported(dirs, &o.Where)
	if err != nil {
		return err
	}
	if baseline != "" {
		options := compare.Options{Across: across}
		base, err := w.sideOf(baseline, &options)
		if err != nil {
			return err
		}
		fresh, err := w.runsOf(dirs, o.Where)
		if err != nil {
			return err
		}
		o.Baseline, err = compare.Run(baseline, base, strings.Join(dirs, ", "), fresh, options)
		if err != nil {
			return usageError(compareHint(err, len(across) > 0), "report --baseline: %w", err)
		}
	}
	if o.Summaries, err = w.summaries(dirs, o.Where); err != nil {
		return err
	}
	r, err := htmlreport.Load(dirs, o)
	if err != nil {
		return usageError("", "%w", err)
	}
	for _, problem := range r.Problems {
		fmt.Fprintf(w.stderr, "vramsweep: %s\n", problem)
	}
	if err := w.writeTo(output, r.HTML); err != nil {
		return err
	}
	if output != "-" {
		fmt.Fprintf(w.stdout, "%s: %s of %s\n", output, plural(len(r.Runs), "run"), plural(len(r.Executions), "execution"))
	}
	return nil
}

// reported resolves FOLDER@EXECUTION and --execution; one execution is of one folder.
func (w *world) reported(names []string, where *sinks.Predicate) (dirs []string, err error) {
	for _, name := range names {
		dir, of, err := w.sourceOf(name)
		if err != nil {
			return nil, err
		}
		if of.Execution != "" {
			where.Execution = of.Execution
		}
		dirs = append(dirs, dir)
	}
	if where.Execution != "" && len(dirs) != 1 {
		return nil, usageError("Name one folder, or leave the execution out.",
			"report: one execution, and %d folders", len(dirs))
	}
	where.Execution, err = w.executionOf(dirs[0], where.Execution)
	return dirs, err
}

// summaries are those of the execution that is reported, else of the last one of each
// folder. Where a sweep or a model is chosen there is none: it would be of all.
func (w *world) summaries(dirs []string, where sinks.Predicate) (all []*summary.Summary, err error) {
	if where.Sweep != "" || where.Model != "" {
		return nil, nil
	}
	for _, dir := range dirs {
		s, err := w.summaryOf(dir+"@"+cmp.Or(where.Execution, "last"), "")
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// runsOf reads the runs of several folders; FOLDER@EXECUTION is one execution.
func (w *world) runsOf(names []string, where sinks.Predicate) ([]sinks.RunRow, error) {
	var all []sinks.RunRow
	for _, name := range names {
		err := w.eachRun(name, func(r *sinks.RunRow) {
			if (where.Execution == "" || where.Execution == r.Execution) &&
				(where.Sweep == "" || where.Sweep == r.Sweep) && (where.Model == "" || where.Model == r.Model) {
				all = append(all, *r)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, usageError("", "%s: no run there is of this execution, sweep and model", strings.Join(names, ", "))
	}
	return all, nil
}

// printed prints a result for people or as JSON.
func printed(out io.Writer, asJSON bool, result interface{ Text(io.Writer) error }) error {
	if asJSON {
		return printJSON(out, result)
	}
	return result.Text(out)
}

// correlateVerb says which settings move which figure.
func (w *world) correlateVerb() *cobra.Command {
	var o correlate.Options
	var asJSON, timelines bool
	var table string
	cmd := &cobra.Command{
		Use:   "correlate DIR...",
		Short: "Which settings move which figure, with slopes, intervals and outliers",
		Long: `Pearson, Spearman and partial correlation of the settings that vary with the
figures, slopes with 95 % intervals, runs that lie off the line, and rows of
their own for the questions that are asked first. DIR may be FOLDER@EXECUTION.`,
		Args: minArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			var phases []correlate.Phase
			if timelines {
				reader, err := w.readTimelines(args)
				if err != nil {
					return err
				}
				phases, o.Temperatures = reader.Phases(), reader.Temperatures()
			}
			correlator := correlate.New(o)
			for _, name := range args {
				if err := w.eachRun(name, correlator.Add); err != nil {
					return err
				}
			}
			c, err := correlator.Report()
			if err != nil {
				return usageError("", "%w", err)
			}
			c.Timelines = phases
			if table != "" {
				if err := c.WriteParquet(table); err != nil {
					return err
				}
			}
			return printed(w.stdout, asJSON, c)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&o.X, "x", nil, "these settings alone")
	flags.StringSliceVar(&o.Y, "y", nil, "these figures alone")
	flags.BoolVar(&o.QuestionsOnly, "questions", false, "the questions alone, not every setting with every figure")
	flags.BoolVar(&timelines, "timelines", false, "read the timelines too: temperature, and gauges inside phases")
	flags.StringVar(&table, "parquet", "", "write all rows to FILE as well, as one Parquet table")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// readTimelines streams the samples of folders.
func (w *world) readTimelines(names []string) (*correlate.Timelines, error) {
	reader := correlate.NewTimelines()
	for _, name := range names {
		dir, where, err := w.sourceOf(name)
		if err != nil {
			return nil, err
		}
		for row, err := range sinks.Read[sinks.TimelineRow](where, dir) {
			if err != nil {
				return nil, usageError("vramsweep verify "+dir+" says what is wrong with it.", "%w", err)
			}
			reader.Add(&row)
		}
	}
	return reader, nil
}

// sourceOf resolves FOLDER or FOLDER@EXECUTION. What exists under the whole
// name is a folder, whatever characters it has.
func (w *world) sourceOf(name string) (dir string, where sinks.Predicate, err error) {
	at := strings.LastIndex(name, "@")
	if _, missing := os.Stat(name); missing == nil || at < 0 {
		return name, where, nil
	}
	where.Execution, err = w.executionOf(name[:at], name[at+1:])
	return name[:at], where, err
}

// architectures finds the architecture of a measured run: by name, in its
// folder, or as the catalogue's model of the very same shape and parameters,
// whatever it was called.
func (w *world) architectures() (func(*sinks.RunRow) *models.Architecture, error) {
	catalogue, err := w.catalogue()
	if err != nil {
		return nil, err
	}
	known := map[string]*models.Architecture{}
	return func(r *sinks.RunRow) *models.Architecture {
		a, seen := known[r.HFModelID]
		if !seen {
			a = findArchitecture(catalogue, r)
			known[r.HFModelID] = a
		}
		return a
	}, nil
}

func findArchitecture(catalogue *models.Catalogue, r *sinks.RunRow) *models.Architecture {
	for _, name := range []string{r.Model, r.HFModelID} {
		if a, ok := catalogue.Lookup(name); ok {
			return a
		}
		if a, err := models.FromDir(name); err == nil {
			return a
		}
	}
	if q := r.EffectiveQuantization; q != nil && *q != "" && *q != "None" {
		return nil // how a checkpoint is quantized cannot be seen in its shape
	}
	for _, name := range catalogue.Names() {
		if a, _ := catalogue.Lookup(name); a.Quantization == nil && sameShape(a, r) {
			return a
		}
	}
	return nil
}

// sameShape compares what the tables keep of an architecture.
func sameShape(a *models.Architecture, r *sinks.RunRow) bool {
	is := func(have *int64, want int64) bool { return have != nil && *have == want }
	n, ok := models.Params(a)
	return ok && is(r.Params, n) && is(r.NumLayers, a.NumLayers) && is(r.HiddenSize, a.HiddenSize) &&
		is(r.NumKVHeads, a.NumKVHeads) && is(r.VocabSize, a.VocabSize) &&
		r.Architecture != nil && *r.Architecture == a.Architecture
}

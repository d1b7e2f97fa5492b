package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/compare"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

type compareFlags struct {
	across, thresholds    []string
	json, markdown, junit bool
	all                   bool
	fdr                   float64
	output, table         string
}

// compareVerb says what changed between executions.
func (w *world) compareVerb() *cobra.Command {
	var f compareFlags
	cmd := &cobra.Command{
		Use:   "compare BASE NEW",
		Short: "What changed from one folder or execution to another; exit 4 on a regression",
		Long: `BASE and NEW are output folders, FOLDER@EXECUTION for one execution of a folder
(FOLDER@last, FOLDER@previous), or baseline files that "compare save" has written;
several make one side with commas between them: a@last,b@last.

A figure counts as changed beyond its threshold (docs/analysis.md lists them) and,
where repeats or executions tell the noise, when it is unlikely to be noise. Earlier
executions of FOLDER in FOLDER@EXECUTION say how far executions drift.
--threshold FIGURE=AMOUNT replaces one: peak_memory_bytes=128MiB, avg_latency_s=3%,
measure_energy_j=5se (standard errors of the difference), memory=1% (all that are bytes).

Exit 0: no regression; 4: a regression, a new failure or a vanished profile;
2: nothing could be matched, or both sides are the same runs. What an unfinished
execution lacks is named and not compared.`,
		Example: `  vramsweep compare results@previous results@last
  vramsweep compare vllm-0.26 vllm-0.29 --across vllm_version --markdown >> "$GITHUB_STEP_SUMMARY"
  vramsweep compare save results@last -o baseline.json
  vramsweep compare baseline.json results@last`,
		Args: exactArgs("BASE", "NEW"),
		RunE: func(_ *cobra.Command, args []string) error { return w.compare(args[0], args[1], &f) },
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.across, "across", nil,
		"settings in which the sides are meant to differ (vllm_version, dtype, ...)")
	flags.StringArrayVar(&f.thresholds, "threshold", nil, "FIGURE=AMOUNT, in place of the default (repeatable)")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	flags.BoolVar(&f.all, "all", false, "print every figure of every profile, called or not")
	flags.StringVar(&f.table, "table", "",
		"write every figure of every profile to FILE as well: Parquet, or CSV or JSON by its ending (.csv, .json)")
	flags.BoolVar(&f.markdown, "markdown", false, "print Markdown, for the summary of a CI job")
	flags.BoolVar(&f.junit, "junit", false, "print a JUnit report: a test a profile")
	flags.Float64Var(&f.fdr, "fdr", 0.001, "share of false alarms among the changes that are called")
	flags.StringVarP(&f.output, "output", "o", "-", "FILE, - for standard output")
	cmd.MarkFlagsMutuallyExclusive("json", "markdown", "junit")
	cmd.AddCommand(w.compareSaveVerb())
	return cmd
}

func (w *world) compare(baseName, newName string, f *compareFlags) error {
	thresholds, err := compare.ParseThresholds(f.thresholds)
	if err != nil {
		return usageError("docs/analysis.md lists figures and defaults.", "compare: %w", err)
	}
	if !(f.fdr > 0 && f.fdr < 1) {
		return usageError("", "compare --fdr %v: it is a share between 0 and 1", f.fdr)
	}
	c, err := w.comparison(baseName, newName,
		compare.Options{Across: f.across, FDR: f.fdr, Thresholds: thresholds, All: f.all || f.table != ""})
	if err != nil {
		return err
	}
	if f.table != "" {
		columns, rows := c.Table()
		if err := sinks.WriteRows(f.table, columns, rows); err != nil {
			return err
		}
	}
	if !f.all {
		c.All = nil // --table asked for them
	}
	write := c.Text
	switch {
	case f.json:
		write = func(out io.Writer) error { return printJSON(out, c) }
	case f.markdown:
		write = c.Markdown
	case f.junit:
		write = c.JUnit
	}
	if err := w.writeTo(f.output, write); err != nil {
		return err
	}
	if c.Regressed() {
		return quiet(exitFindings)
	}
	return nil
}

// comparison reads both sides and compares them.
func (w *world) comparison(baseName, newName string, o compare.Options) (*compare.Comparison, error) {
	base, err := w.sideOf(baseName, &o)
	if err != nil {
		return nil, err
	}
	fresh, err := w.sideOf(newName, &o)
	if err != nil {
		return nil, err
	}
	c, err := compare.Run(baseName, base, newName, fresh, o)
	if err != nil {
		return nil, usageError(compareHint(err, len(o.Across) > 0), "compare: %w", err)
	}
	return c, nil
}

func compareHint(err error, across bool) string {
	switch {
	case errors.Is(err, compare.ErrSame):
		return "Name two executions: FOLDER@previous FOLDER@last."
	case errors.Is(err, compare.ErrNothing) && !across:
		return "A profile's id is a hash over its sweep's name and settings. " +
			"--across NAME,... matches by all settings but those named."
	case errors.Is(err, compare.ErrNothing):
		return "Name in --across each setting in which the sides differ."
	}
	return ""
}

// compareSaveVerb keeps a side of a comparison as one small file.
func (w *world) compareSaveVerb() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "save DIR...",
		Short: "Keep what a comparison needs of folders as a baseline file",
		Long: `Writes the settings, outcomes and figures of the runs of output folders (or
FOLDER@EXECUTION) as one small JSON file, one run a line. compare takes it as BASE or
NEW, with the result that the folders would give; report --baseline takes it too.
A folder of the name "save" is compared as ./save.`,
		Args: minArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			rows, err := w.runsOf(args, sinks.Predicate{})
			if err != nil {
				return err
			}
			about := compare.BaselineInfo{Version: version, From: args, Now: time.Now()}
			err = w.writeTo(output, func(out io.Writer) error { return compare.WriteBaseline(out, rows, about) })
			if errors.Is(err, frame.ErrMixed) {
				return usageError("Save them as two baselines.", "%w", err)
			}
			rows, cover := frame.Covered(rows)
			if err == nil && output != "-" {
				profiles := map[string]bool{}
				for i := range rows {
					profiles[rows[i].ProfileID] = true
				}
				kind := ""
				if rows[0].Synthetic {
					kind = "synthetic "
				}
				fmt.Fprintf(w.stdout, "%s: %s of %s\n", output, plural(len(rows), kind+"run"), plural(len(profiles), "profile"))
				for _, note := range cover.Says() {
					fmt.Fprintf(w.stdout, "note: %s\n", note)
				}
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "baseline.json", "FILE, - for standard output")
	return cmd
}

// sideOf reads a side of a comparison: folders, executions or baseline files. What
// the folder says of other executions goes to the options.
func (w *world) sideOf(names string, o *compare.Options) (rows []sinks.RunRow, err error) {
	parts := strings.Split(names, ",")
	if _, err := os.Stat(names); err == nil {
		parts = []string{names} // the comma is its own
	}
	for _, name := range parts {
		more, err := w.partOf(name, o)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func (w *world) partOf(name string, o *compare.Options) ([]sinks.RunRow, error) {
	if isBaselineFile(name) {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, usageError("", "%w", err)
		}
		rows, err := compare.ReadBaseline(bytes.NewReader(data))
		if err != nil {
			return nil, usageError("vramsweep compare save DIR writes one.", "%s: %w", name, err)
		}
		return rows, nil
	}
	rows, err := w.rowsOf(name)
	if err != nil {
		return nil, err
	}
	dir, where, err := w.sourceOf(name)
	if err != nil {
		return nil, err
	}
	if err := w.unfinished(dir, o); err != nil {
		return nil, err
	}
	if where.Execution == "" { // all of the folder
		return rows, nil
	}
	names, err := w.executions(dir)
	if err != nil {
		return nil, err
	}
	earlier := names[:max(slices.Index(names, where.Execution), 0)]
	all, err := w.rowsOf(dir)
	for i := range all {
		if slices.Contains(earlier, all[i].Execution) {
			o.History = append(o.History, all[i])
		}
	}
	return rows, err
}

// unfinished notes the executions of a folder that have not come to their end.
func (w *world) unfinished(dir string, o *compare.Options) error {
	return viewStore(dir, func(store *sinks.Store) error {
		noted, err := store.Executions()
		for _, e := range noted {
			if e.State != sinks.StateComplete && !slices.Contains(o.Unfinished, e.ID) {
				o.Unfinished = append(o.Unfinished, e.ID)
			}
		}
		return err
	})
}

// isBaselineFile tells a baseline from a folder and from a run.json.
func isBaselineFile(name string) bool {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	file, err := os.Open(name)
	if err != nil {
		return false
	}
	defer file.Close() //nolint:errcheck // only read from
	head := make([]byte, 512)
	n, err := io.ReadFull(file, head)
	return (err == nil || errors.Is(err, io.ErrUnexpectedEOF)) && compare.IsBaseline(head[:n])
}

// rowsOf reads the runs of FOLDER or FOLDER@EXECUTION.
func (w *world) rowsOf(name string) ([]sinks.RunRow, error) {
	var rows []sinks.RunRow
	err := w.eachRun(name, func(row *sinks.RunRow) { rows = append(rows, *row) })
	return rows, err
}

// eachRun streams them: a year of nights does not fit into memory at ease.
func (w *world) eachRun(name string, add func(*sinks.RunRow)) error {
	if isBaselineFile(name) {
		return usageError("Name the output folder.", "%s is a baseline: it holds what compare needs, and no more", name)
	}
	dir, where, err := w.sourceOf(name)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err != nil {
		return usageError("Name an output folder, or FOLDER@EXECUTION.", "%w", err)
	}
	n := 0
	for row, err := range sinks.Read[sinks.RunRow](where, dir) {
		if err != nil {
			return usageError("vramsweep verify "+dir+" says what is wrong with it.", "%w", err)
		}
		add(&row)
		n++
	}
	switch {
	case n == 0 && where.Execution != "":
		return usageError(w.executionsHint(dir), "%s: there is no run of execution %s in it", dir, where.Execution)
	case n == 0:
		return usageError("An output folder has tables/ or runs/ in it.", "%s: no runs in it", name)
	}
	return nil
}

// executionsHint names what FOLDER@ could say.
func (w *world) executionsHint(dir string) string {
	all, err := w.executions(dir)
	if err != nil || len(all) == 0 {
		return ""
	}
	return "There are " + strings.Join(all[max(0, len(all)-5):], ", ") + "."
}

// executions are the ids of a folder's executions, oldest first: those it has
// notes of, and those that only its tables hold (a folder that was copied).
func (w *world) executions(dir string) ([]string, error) {
	var all []string
	err := viewStore(dir, func(store *sinks.Store) error {
		noted, err := store.Executions()
		for _, e := range noted {
			all = append(all, e.ID)
		}
		if len(all) == 0 && err == nil {
			all, err = store.TableExecutions()
		}
		if err != nil {
			return usageError("vramsweep verify "+dir+" says what is wrong with it.", "%w", err)
		}
		return nil
	})
	return all, err
}

// executionOf resolves "last" and "previous".
func (w *world) executionOf(dir, name string) (string, error) {
	back := map[string]int{"last": 1, "previous": 2}[name]
	if back == 0 {
		return name, nil
	}
	all, err := w.executions(dir)
	if err != nil {
		return "", err
	}
	if len(all) < back {
		return "", usageError("", "%s has %s: there is no %s one", dir, plural(len(all), "execution"), name)
	}
	return all[len(all)-back], nil
}

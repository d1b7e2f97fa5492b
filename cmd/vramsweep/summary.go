package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner/planner"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/compare"
	"github.com/vramsweep/vramsweep/sinks/analyze/summary"
)

// summaryVerb says what came of an execution.
func (w *world) summaryVerb() *cobra.Command {
	var asJSON, markdown bool
	var baseline, output string
	cmd := &cobra.Command{
		Use:   "summary DIR[@EXECUTION]",
		Short: "A night's result in one screen: failures by cause, changes, what to do next",
		Long: `Sums up an execution of an output folder, the last one by default, in at most 40
lines: counts, failures grouped by cause with vLLM's own line and its log, what was
skipped and why, rows not to be trusted (sparse or blind samples, throttled or dirty
GPUs), what changed since the execution before it and since --baseline, the highest
gpu_memory_utilization that is proved safe, and the next two commands.`,
		Example: `  vramsweep summary results
  vramsweep summary results@previous --json
  vramsweep summary results --baseline baseline.json --markdown >> "$GITHUB_STEP_SUMMARY"`,
		Args: exactArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := w.summaryOf(args[0], baseline)
			if err != nil {
				return err
			}
			return w.writeTo(output, func(out io.Writer) error {
				switch {
				case asJSON:
					return printJSON(out, s)
				case markdown:
					return s.Markdown(out)
				}
				return w.sumUp(out, s)
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&asJSON, "json", false, "print JSON: every group with its run ids")
	flags.BoolVar(&markdown, "markdown", false, "print Markdown, for the summary of a CI job")
	flags.StringVar(&baseline, "baseline", "", "compare with FOLDER, FOLDER@EXECUTION or a baseline file too")
	flags.StringVarP(&output, "output", "o", "-", "FILE, - for standard output")
	cmd.MarkFlagsMutuallyExclusive("json", "markdown")
	return cmd
}

// sumUp prints a summary as wide as the terminal.
func (w *world) sumUp(out io.Writer, s *summary.Summary) error {
	width, tty := terminal(w.stdout)
	if !tty {
		width = 0
	}
	return s.Text(out, width, planner.Fold)
}

// summaryOf reads an execution, the last one of a folder, and compares it with the
// one before and with a baseline, "" for none.
func (w *world) summaryOf(name, baseline string) (*summary.Summary, error) {
	dir, where, err := w.sourceOf(name)
	if err != nil {
		return nil, err
	}
	if where.Execution == "" {
		if where.Execution, err = w.executionOf(dir, "last"); err != nil {
			return nil, err
		}
	}
	var compared []summary.Compared
	if before := w.before(dir, where.Execution); before != nil {
		compared = append(compared, *before)
	}
	if baseline != "" {
		c, err := w.comparison(baseline, dir+"@"+where.Execution, compare.Options{})
		if err != nil {
			return nil, err
		}
		compared = append(compared, summary.Compared{Since: baseline, Of: c})
	}
	var s *summary.Summary
	err = viewStore(dir, func(store *sinks.Store) (err error) {
		if s, err = summary.Load(store, dir, where.Execution, compared); err != nil {
			return usageError(w.executionsHint(dir), "%w", err)
		}
		return nil
	})
	return s, err
}

// mostBefore is how many earlier executions are looked through for one of the same
// profiles, and for noise.
const mostBefore = 10

// before compares an execution with the last one before it that has profiles of it;
// nil where there is none.
func (w *world) before(dir, execution string) *summary.Compared {
	all, err := w.executions(dir)
	if err != nil {
		return nil // summary.Load says what is wrong
	}
	var o compare.Options
	if err := w.unfinished(dir, &o); err != nil {
		return nil
	}
	fresh, err := w.rowsOf(dir + "@" + execution)
	if err != nil {
		return nil
	}
	var earlier []string
	for _, id := range all {
		if id < execution { // ids begin with their start
			earlier = append(earlier, id)
		}
	}
	sides := map[string][]sinks.RunRow{}
	for _, id := range earlier[max(0, len(earlier)-mostBefore):] {
		if rows, err := w.rowsOf(dir + "@" + id); err == nil {
			sides[id] = rows
			o.History = append(o.History, rows...)
		}
	}
	for i := len(earlier) - 1; i >= 0 && sides[earlier[i]] != nil; i-- {
		name := fmt.Sprintf("%s@%s", dir, earlier[i])
		c, err := compare.Run(name, sides[earlier[i]], dir+"@"+execution, fresh, o)
		if errors.Is(err, compare.ErrNothing) {
			continue // of another sweep
		}
		return &summary.Compared{Since: name, Of: c, Err: err}
	}
	return nil
}

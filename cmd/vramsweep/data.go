package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/runner/gpu"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/views"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// verifyVerb checks a folder.
func (w *world) verifyVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Read everything in a folder and say what is damaged; exit 4 on a fault",
		Args:  exactArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			return viewStore(args[0], func(store *sinks.Store) error { return w.verify(store, args[0], asJSON) })
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (w *world) verify(store *sinks.Store, name string, asJSON bool) error {
	faults, err := store.Verify()
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(w.stdout, orEmpty(faults))
	} else {
		for _, f := range faults {
			fmt.Fprintln(w.stdout, f)
		}
		fmt.Fprintf(w.stdout, "%s: %s\n", name, plural(len(faults), "fault"))
		if len(faults) > 0 {
			fmt.Fprintf(w.stdout, "Next: vramsweep recover %[1]s (runs that were cut off, left-over files), "+
				"then vramsweep compact --rebuild %[1]s (tables from the run.json files).\n", name)
		}
	}
	if err == nil && len(faults) > 0 {
		return quiet(exitFindings)
	}
	return err
}

// exportVerb writes a table in another format.
func (w *world) exportVerb() *cobra.Command {
	var format, table, output string
	var where sinks.Predicate
	cmd := &cobra.Command{
		Use:   "export DIR",
		Short: "A table as CSV, JSON lines or an Arrow stream",
		Args:  exactArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			if !slices.Contains(sinks.ExportFormats(), format) {
				return usageError("", "--format %s: there are %s", format, strings.Join(sinks.ExportFormats(), ", "))
			}
			if !slices.Contains(sinks.Tables(), sinks.Table(table)) {
				return usageError(nearestOf(table, tableNames(), "The tables are "+strings.Join(tableNames(), ", ")+"."),
					"--table %s: there is no such table", table)
			}
			return viewStore(args[0], func(store *sinks.Store) error {
				return w.export(store, sinks.Table(table), format, output, where)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&format, "format", "csv", strings.Join(sinks.ExportFormats(), ", "))
	flags.StringVar(&table, "table", "runs", "runs, ranks, timelines, phases, breakdowns, steps, latencies")
	flags.StringVar(&output, "output", "-", "FILE, - for standard output")
	addWhere(cmd, &where, "this execution alone")
	return cmd
}

func (w *world) export(store *sinks.Store, table sinks.Table, format, output string, where sinks.Predicate) error {
	var n int64
	to := w.writeTo
	if format == "arrow" {
		to = w.writeBytes
	}
	err := to(output, func(out io.Writer) (err error) {
		n, err = store.Export(table, format, where, out)
		return err
	})
	if err == nil && output != "-" {
		fmt.Fprintf(w.stderr, "%d rows in %s\n", n, output)
	}
	return err
}

// schemaVerb describes the tables.
func (w *world) schemaVerb() *cobra.Command {
	var format string
	var dirs []string
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Tables and columns, for people, as JSON or as SQL for DuckDB",
		Long: `Describes the tables. --format views writes DuckDB views of output folders:
the tables, runs_main with what people ask for first, memory in GiB, joins ready.`,
		Example: `  vramsweep schema --format views --dir results > views.sql`,
		Args:    exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			if (format == "views") != (len(dirs) > 0) {
				return usageError("vramsweep schema --format views --dir results",
					"schema: --format views and --dir belong together: views read the files of a folder")
			}
			if format != "views" {
				if err := sinks.WriteSchema(w.stdout, format); err != nil {
					return usageError("--format views --dir DIR writes views.", "%w", err)
				}
				return nil
			}
			for _, dir := range dirs {
				if err := w.eachRun(dir, func(*sinks.RunRow) {}); err != nil {
					return err
				}
			}
			return views.Write(w.stdout, dirs...)
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text, json, sql, views")
	cmd.Flags().StringArrayVar(&dirs, "dir", nil, "output folder that the views read (repeatable)")
	return cmd
}

// doctorVerb says what would stop or falsify a sweep here.
func (w *world) doctorVerb() *cobra.Command {
	var asJSON bool
	var outputDir, command string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "What on this machine would stop or falsify a sweep, and the fix",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			machine := gpu.Detect(cmd.Context(), w.machineOptions(nil), true)
			findings := machine.Doctor(cmd.Context(), gpu.DoctorOptions{OutputDir: outputDir, VLLM: strings.Fields(command)})
			stops := slices.ContainsFunc(findings, func(f gpu.Finding) bool { return f.Status == gpu.StatusFail })
			if asJSON {
				if err := printJSON(w.stdout, orEmpty(findings)); err != nil {
					return err
				}
			} else if err := w.printFindings(findings); err != nil {
				return err
			}
			if stops {
				return quiet(exitFault)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	flags.StringVar(&outputDir, "output-dir", "", "the folder that results would go to")
	flags.StringVar(&command, "command", "", "stands for vllm")
	return cmd
}

func (w *world) printFindings(findings []gpu.Finding) error {
	table := tabwriter.NewWriter(w.stdout, 0, 4, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.Status, f.Name, f.Found)
		if f.Fix != "" && f.Status != gpu.StatusOK {
			fmt.Fprintf(table, "\t\t-> %s\n", f.Fix)
		}
	}
	return table.Flush()
}

// reparseVerb derives JSON and tables again from raw logs and samples.
func (w *world) reparseVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "reparse DIR",
		Short: "Derive JSON and tables again from the raw logs and samples of earlier runs",
		Args:  exactArgs("DIR"),
		RunE:  func(_ *cobra.Command, args []string) error { return w.openStore(args[0], "reparse", w.reparse) },
	}
}

func (w *world) reparse(store *sinks.Store) error {
	catalogue, err := w.catalogue()
	if err != nil {
		return err
	}
	runs, failed := w.finishedRuns(store)
	done := 0
	executions := map[string]bool{}
	// One Attributor for all, in the order of the runs: those that shared an
	// engine stand on the first of their group.
	again := &attribution.Attributor{}
	for _, run := range runs {
		if err := w.reparseRun(store, catalogue, again, run.dir, run.result); err != nil {
			failed++
			fmt.Fprintf(w.stderr, "vramsweep: %s: %v\n", run.dir, err)
			continue
		}
		executions[run.result.Run.Execution] = true
		done++
	}
	for execution := range executions {
		if err := store.Publish(execution); err != nil {
			return err
		}
	}
	fmt.Fprintf(w.stdout, "%s derived again, %d left as they were\n", plural(done, "run"), failed)
	if failed > 0 {
		return quiet(exitSomeFailed)
	}
	return nil
}

// A finishedRun is a run of an output folder.
type finishedRun struct {
	dir    string
	result *runner.Result
}

// finishedRuns lists the runs of a folder by their start; failed counts those
// whose run.json is damaged.
func (w *world) finishedRuns(store *sinks.Store) (runs []finishedRun, failed int) {
	for dir, result := range store.Results(sinks.Predicate{}) {
		if result == nil {
			failed++
			fmt.Fprintf(w.stderr, "vramsweep: %s: run.json is damaged and was left as it is (vramsweep verify says how)\n", dir)
			continue
		}
		runs = append(runs, finishedRun{dir, result})
	}
	slices.SortStableFunc(runs, func(a, b finishedRun) int {
		return a.result.Run.StartedAt.Compare(b.result.Run.StartedAt)
	})
	return runs, failed
}

// reparseRun reads a run's logs again and attributes its samples anew.
func (w *world) reparseRun(store *sinks.Store, catalogue *models.Catalogue, again runner.Attributor,
	dir string, result *runner.Result) error {
	measured, err := store.Measured(dir, result, catalogue)
	if err != nil || measured == nil {
		return err // nil: skipped, or never started; nothing to read again
	}
	again.Attribute(result, measured)
	result.ProfilerVersion = version
	return store.Replace(dir, result)
}

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/replay"
	vllmlog "github.com/vramsweep/vramsweep/runner/vllm/log"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/plot"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// openStore does something with an output folder that is there, to write in it.
func openStore(dir, what string, do func(*sinks.Store) error) error {
	if what != "import" {
		if err := needResults(dir); err != nil {
			return err
		}
	}
	store, err := openFolder(dir, what)
	if err != nil {
		return err
	}
	return errors.Join(do(store), store.Close())
}

// needResults refuses a folder that holds nothing of ours: a check of it would
// find no fault, and say nothing.
func needResults(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return usageError("", "%w", err)
	}
	parts := []string{"runs", "executions", "tables"}
	for _, part := range parts {
		if entries, err := os.ReadDir(filepath.Join(dir, part)); err == nil && len(entries) > 0 {
			return nil
		}
	}
	return usageError("Name the folder that `vramsweep run` wrote: the output block's dir, or --output-dir.",
		"no results of vramsweep in %s: looked for something in %s", dir, strings.Join(parts, ", "))
}

// openFolder opens an output folder for writing and makes it if need be.
func openFolder(dir, what string) (*sinks.Store, error) {
	host, _ := os.Hostname() // only words
	store, err := sinks.Open(dir, sinks.Options{Version: version, Host: host, What: what})
	if err != nil {
		return nil, folderError(err)
	}
	return store, nil
}

// publish makes an execution of results, so that the tables have them.
func (w *world) publish(store *sinks.Store, results ...*runner.Result) error {
	first := results[0]
	started := first.Run.StartedAt
	synthetic := false
	for _, r := range results {
		synthetic = synthetic || r.Run.Synthetic
		if r.Run.StartedAt.Before(started) {
			started = r.Run.StartedAt
		}
	}
	execution := &runner.Execution{
		ID: first.Run.Execution, State: runner.StateRunning, StartedAt: started, Version: version,
		Command: proc.NewMasker(w.env).Argv(append([]string{"vramsweep"}, w.args...)), Runs: len(results),
		Synthetic: synthetic,
	}
	if err := store.BeginExecution(execution); err != nil {
		return err
	}
	return store.FinishExecution(execution.ID, runner.StateComplete, nil)
}

// viewStore does something with an output folder that is only read.
func viewStore(dir string, do func(*sinks.Store) error) error {
	if err := needResults(dir); err != nil {
		return err
	}
	store, err := sinks.View(dir, sinks.Options{Version: version})
	if err != nil {
		return usageError("", "%w", err)
	}
	return errors.Join(do(store), store.Close())
}

// recoverVerb puts a folder in order after a crash.
func (w *world) recoverVerb() *cobra.Command {
	return jsonVerb("recover DIR", "Put a folder in order after a crash: samples of runs that were cut off, left-over files",
		exactArgs("DIR"), func(_ *cobra.Command, args []string, asJSON bool) error {
			return openStore(args[0], "recover", func(store *sinks.Store) error { return w.recover(store, asJSON) })
		})
}

func (w *world) recover(store *sinks.Store, asJSON bool) error {
	fixed, err := store.Recover()
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w.stdout, fixed)
	}
	for _, a := range fixed.Attempts {
		fmt.Fprintf(w.stdout, "interrupted  %s: kept in %s with %s; its run is due again\n", a.RunID, a.Dir,
			plural(int(a.Samples), "sample"))
		if a.Lost > 0 || a.Reason != "" {
			fmt.Fprintf(w.stdout, "             %d bytes of its journal are lost: %s\n", a.Lost, orDash(a.Reason))
		}
	}
	for _, file := range fixed.Removed {
		fmt.Fprintf(w.stdout, "removed      %s\n", file)
	}
	attempts, files := plural(len(fixed.Attempts), "attempt"), plural(len(fixed.Removed), "left-over file")
	if len(fixed.Attempts)+len(fixed.Removed) == 0 {
		fmt.Fprintln(w.stdout, "nothing to fix: no run was cut off, no file is left over")
		return nil
	}
	fmt.Fprintf(w.stdout, "%s kept as interrupted, %s removed\n", attempts, files)
	return nil
}

// compactVerb merges the tables of a folder.
func (w *world) compactVerb() *cobra.Command {
	var rebuild bool
	cmd := verb("compact DIR", "Bring tables up to date and merge the executions of each month", exactArgs("DIR"),
		func(_ *cobra.Command, args []string) error {
			return viewStore(args[0], func(store *sinks.Store) error { return w.compact(store, rebuild) })
		})
	cmd.Long = `Bring tables up to date and merge the executions of each month.

Merging is an offline step: it puts a new folder in the place of a month's, so no
reader should be listing tables/ meanwhile (no query, no glob). A running sweep
may go on; its execution stays in a file of its own.`
	cmd.Flags().BoolVar(&rebuild, "rebuild", false,
		"write the tables of all executions again from their runs; damaged files are set aside")
	return cmd
}

func (w *world) compact(store *sinks.Store, rebuild bool) error {
	compact := store.Compact
	if rebuild {
		compact = store.Rebuild
	}
	done, err := compact()
	if err != nil {
		return err
	}
	fmt.Fprintf(w.stdout, "%s written anew, %s merged; %s with %d rows\n",
		plural(len(done.Published), "execution"), plural(done.Merged, "file"), plural(done.Files, "file"), done.Rows)
	for _, file := range done.SetAside {
		fmt.Fprintf(w.stdout, "damaged, set aside: %s\n", file)
	}
	return nil
}

// importVerb brings logs of runs made elsewhere into an output folder.
func (w *world) importVerb() *cobra.Command {
	var outputDir, gpuName string
	cmd := verb("import LOG ...", "Take logs of runs made elsewhere into an output folder", minArgs("LOG"),
		func(_ *cobra.Command, args []string) error { return w.importAll(args, outputDir, gpuName) })
	cmd.Long = `A vLLM log that stands alone (plain, gzip or zstd), or a folder of such logs, is
taken in: what it says of memory, without samples and latencies.`
	cmd.Flags().StringVar(&outputDir, "output-dir", "results", "the output folder")
	cmd.Flags().StringVar(&gpuName, "gpu", "",
		"the GPU of the runs, as the catalogue or the driver names it: a log does not report it")
	return cmd
}

func (w *world) importAll(args []string, outputDir, gpuName string) error {
	if g, ok := models.LookupGPU(gpuName); ok && gpuName != "" {
		gpuName = g.Product
	}
	files, err := logFiles(args)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(outputDir, 0o755); err != nil {
		return err
	}
	return openStore(outputDir, "import", func(store *sinks.Store) error {
		return w.importInto(store, vllmlog.PairLogs(files), gpuName)
	})
}

func (w *world) importInto(store *sinks.Store, from [][]string, gpuName string) error {
	failed := 0
	var results []*runner.Result
	for _, logs := range from {
		result, err := w.importOne(store, logs, gpuName)
		if err != nil {
			failed++
			fmt.Fprintf(w.stderr, "vramsweep: %v\n", err)
			continue
		}
		results = append(results, result)
		fmt.Fprintf(w.stdout, "%s: %s: %s\n", result.Run.RunID, result.Run.Outcome, result.Run.OutcomeDetail)
	}
	byExecution := map[string][]*runner.Result{}
	for _, r := range results {
		byExecution[r.Run.Execution] = append(byExecution[r.Run.Execution], r)
	}
	for _, execution := range slices.Sorted(maps.Keys(byExecution)) {
		if err := w.publish(store, byExecution[execution]...); err != nil {
			return err
		}
	}
	if failed > 0 {
		return quiet(exitSomeFailed)
	}
	return nil
}

// importOne makes a run of the logs of one engine and keeps it, with the logs.
func (w *world) importOne(store *sinks.Store, logs []string, gpuName string) (*runner.Result, error) {
	log, err := w.readLogs(logs, vllmlog.ReadLogs)
	if err != nil {
		return nil, err
	}
	recording, err := replay.LoadLog(logs, log)
	if err != nil {
		return nil, err
	}
	if gpuName != "" {
		if err := recording.SetGPU(gpuName); err != nil {
			return nil, err
		}
	}
	recording.Job.Dir = store.RunDir(recording.Job)
	sink, err := store.Begin(recording.Job)
	if err != nil {
		return nil, err
	}
	result := recording.Attribute(&attribution.Attributor{})
	result.ProfilerVersion = version
	for i, name := range []string{"stdout.log", "stderr.log"}[:min(len(logs), 2)] {
		data, err := os.ReadFile(logs[i])
		if err == nil {
			err = copyLog(filepath.Join(recording.Job.Dir, name), data)
		}
		if err != nil {
			return nil, fmt.Errorf("copy the raw log: %w", err)
		}
	}
	return result, sink.Finish(result)
}

// copyLog writes a raw log into a run's folder.
func copyLog(path string, data []byte) error {
	file, err := runner.CreateFile(path)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// plotVerb draws one run.
func (w *world) plotVerb() *cobra.Command {
	var output string
	var width int
	cmd := verb("plot RUN_DIR", "Draw a run: memory over time, both accounts, power (SVG and PNG)", exactArgs("RUN_DIR"),
		func(_ *cobra.Command, args []string) error {
			picture, err := drawRun(args[0], width)
			if err != nil {
				return err
			}
			if output == "" {
				output = filepath.Join(args[0], "memory")
			}
			for _, file := range []struct {
				name string
				data []byte
			}{{output + ".svg", picture.SVG}, {output + ".png", picture.PNG}} {
				if err := replaceFile(file.name, file.data); err != nil {
					return err
				}
				fmt.Fprintln(w.stdout, file.name)
			}
			return nil
		})
	cmd.Flags().StringVar(&output, "output", "", "name of the files without ending; default: memory in the run's folder")
	cmd.Flags().IntVar(&width, "width", 1200, "pixels of the PNG")
	return cmd
}

// drawRun draws the run in a folder of an output folder.
func drawRun(dir string, width int) (*plot.Picture, error) {
	options := plot.Options{WidthPx: width}
	result, err := sinks.ReadResult(filepath.Join(dir, "run.json"))
	if err != nil {
		return nil, usageError("RUN_DIR is a folder of results/runs/<execution>/.", "%w", err)
	}
	full, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	// <folder>/runs/<execution>/<run>
	root := filepath.Dir(filepath.Dir(filepath.Dir(full)))
	rel, err := filepath.Rel(root, full)
	if err != nil {
		return nil, err
	}
	var picture *plot.Picture
	err = viewStore(root, func(store *sinks.Store) (err error) {
		picture, err = plot.Draw(result, store.Samples(filepath.ToSlash(rel)), options)
		return err
	})
	return picture, err
}

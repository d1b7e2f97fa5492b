package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/runner/replay"
	vllmlog "github.com/vramsweep/vramsweep/runner/vllm/log"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/plot"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// openStore does something with an output folder that is there, to write in it.
func (w *world) openStore(dir, what string, do func(*sinks.Store) error) error {
	if what != "import" {
		if err := needResults(dir); err != nil {
			return err
		}
	}
	store, err := w.openFolder(dir, what)
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
func (w *world) openFolder(dir, what string) (*sinks.Store, error) {
	return w.openPart(context.Background(), dir, what, &part{})
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
		Command: w.secrets().Argv(append([]string{"vramsweep"}, w.args...)), Runs: len(results),
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
			return w.openStore(args[0], "recover", func(store *sinks.Store) error { return w.recover(store, asJSON) })
		})
}

func (w *world) recover(store *sinks.Store, asJSON bool) error {
	fixed, err := store.Recover()
	if err == nil {
		err = store.Quarantine(fixed)
	}
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
	for _, d := range fixed.SetAside {
		fmt.Fprintf(w.stdout, "set aside    %s\n", d.To)
		for _, f := range d.Faults {
			fmt.Fprintf(w.stdout, "             %s\n", f)
		}
	}
	attempts, files := plural(len(fixed.Attempts), "attempt"), plural(len(fixed.Removed), "left-over file")
	if len(fixed.Attempts)+len(fixed.Removed)+len(fixed.SetAside) == 0 {
		fmt.Fprintln(w.stdout, "nothing to fix: no run was cut off, no file is left over, no run is damaged")
		return nil
	}
	fmt.Fprintf(w.stdout, "%s kept as interrupted, %s removed", attempts, files)
	if n := len(fixed.SetAside); n > 0 {
		fmt.Fprintf(w.stdout, ", %s set aside; `vramsweep run --resume` repeats the runs among them",
			plural(n, "damaged folder"))
	}
	fmt.Fprintln(w.stdout)
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
	for _, f := range done.Damaged {
		fmt.Fprintf(w.stderr, "vramsweep: damaged, left out: %s\n", f)
	}
	if len(done.Damaged) > 0 {
		fmt.Fprintln(w.stderr, "  `vramsweep recover` sets damaged runs aside; `vramsweep run --resume` repeats them.")
		return quiet(exitSomeFailed)
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
	return w.openStore(outputDir, "import", func(store *sinks.Store) error {
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
	for _, name := range logs { // a FIFO would be read once, and may never end
		if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() {
			return nil, errors.Join(err,
				fmt.Errorf("%s is no regular file: import keeps a copy of a log that is complete", name))
		}
	}
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
	copies := []string{"stdout", "stderr"}[:min(len(logs), 2)]
	for i, name := range copies {
		about, err := w.copyLog(logs[i], name, io.Discard)
		if err != nil {
			return nil, err
		}
		recording.Result.RawLogs = append(recording.Result.RawLogs, about)
	}
	// Logs of other runs have the same name: then the run gets one of its own.
	if there, err := sinks.ReadResult(filepath.Join(store.RunDir(recording.Job), "run.json")); err == nil &&
		!sameLogs(there.RawLogs, recording.Result.RawLogs) {
		recording.Rename(recording.Job.RunID + "-" + recording.Result.RawLogs[0].SHA256[:8])
	}
	recording.Job.Dir = store.RunDir(recording.Job)
	sink, err := store.Begin(recording.Job)
	if err != nil {
		return nil, err
	}
	result := recording.Attribute(&attribution.Attributor{})
	result.ProfilerVersion = version
	for i, name := range copies {
		file, err := runner.CreateFile(filepath.Join(recording.Job.Dir, name+".log"))
		if err != nil {
			return nil, fmt.Errorf("copy the raw log: %w", err)
		}
		_, err = w.copyLog(logs[i], name, file)
		if err = errors.Join(err, file.Close()); err != nil {
			return nil, err
		}
	}
	return result, sink.Finish(result)
}

// maxImport bounds a log that is copied: what is compressed may be a bomb.
const maxImport = 1 << 30

// copyLog copies a log, unpacked and without secrets, and says what the copy is.
func (w *world) copyLog(from, name string, to io.Writer) (runner.RawLog, error) {
	file, err := os.Open(from)
	if err != nil {
		return runner.RawLog{}, err
	}
	defer file.Close() //nolint:errcheck // only read from
	in, closeIn, err := vllmlog.Decompress(file)
	if err != nil {
		return runner.RawLog{}, fmt.Errorf("copy %s: %w", from, err)
	}
	defer closeIn()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(to, sum), io.LimitReader(w.secrets().Reader(in), maxImport))
	if err == nil && n == maxImport {
		err = fmt.Errorf("it has more than %d MiB; import the part that matters", maxImport>>20)
	}
	if err != nil {
		return runner.RawLog{}, fmt.Errorf("copy %s: %w", from, err)
	}
	return runner.RawLog{Name: name, Path: name + ".log", Bytes: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

func sameLogs(a, b []runner.RawLog) bool {
	return slices.EqualFunc(a, b, func(a, b runner.RawLog) bool { return a.SHA256 == b.SHA256 })
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

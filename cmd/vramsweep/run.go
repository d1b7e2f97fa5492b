package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/vllm"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep"
)

// runFlags are those of `run`, and of `profile` in part.
type runFlags struct {
	outputDir   string
	resume      string // "": a new execution; "only", "next"
	dryRun      bool
	brief       bool
	verbose     bool
	single      bool // of one profile from flags
	temporary   bool // the output folder goes again
	mode        string
	summary     string
	maxDuration time.Duration
	sources     []string
	lanes       string
	shard       string
	execution   string
	publish     string
	part        part
}

func (f *runFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.outputDir, "output-dir", "", "write here instead of the file's output.dir")
	flags.BoolVar(&f.brief, "brief", false, "one line for each run; the default above ten runs, or where output is no terminal")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "the full account of each run")
	cmd.MarkFlagsMutuallyExclusive("brief", "verbose")
	flags.DurationVar(&f.maxDuration, "max-duration", 0, "end the execution after this time; --resume goes on")
	flags.StringVar(&f.summary, "summary-json", "",
		"write the outcome as one line of JSON to FILE (- for standard output)")
	flags.StringSliceVar(&f.sources, "sampler", nil,
		"GPU sources that may be used, in order (nvidia-smi, nvml, amdgpu-sysfs, amd-smi, rocm-smi)")
	flags.StringVar(&f.lanes, "lanes", "", "runs side by side, each on GPUs of its own: a number, or auto for one a GPU")
	flags.StringVar(&f.mode, "mode", "", "latency: a process a profile; session: one engine for profiles that share it")
}

// runVerb executes the sweeps of a file.
func (w *world) runVerb() *cobra.Command {
	var inputs inputFlags
	var f runFlags
	cmd := verb("run FILE|FOLDER", "Execute the sweeps of a file", exactArgs("FILE"),
		func(cmd *cobra.Command, args []string) error {
			plan, err := w.load(args[0], &inputs, false)
			if err != nil {
				return err
			}
			if err := setMode(plan, f.mode); err != nil {
				return err
			}
			if f.resume != "" && f.resume != resumeNext && f.resume != resumeOnly {
				return usageError("Write --resume or --resume=only.", "run: --resume=%s: no such way to resume", f.resume)
			}
			if err := setLanes(plan, f.lanes); err != nil {
				return err
			}
			if plan, f.part, err = w.part(plan, &f); err != nil {
				return err
			}
			if f.dryRun {
				return w.printCommands(plan)
			}
			return w.execute(cmd.Context(), plan, &f, nil)
		})
	inputs.add(cmd)
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.shard, "shard", "", "run part I/N of the plan (see plan --shards); auto: as the scheduler's job says")
	flags.StringVar(&f.execution, "execution", "", "`NAME` of the execution; the same for all shards of a night")
	flags.StringVar(&f.publish, "publish", "", "`CMD` to call with the folder and the execution once it is complete")
	flags.StringVar(&f.resume, "resume", "",
		"finish the last execution if it is unfinished, else start a new one; `only`: start none")
	flags.Lookup("resume").NoOptDefVal = resumeNext
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the command and environment of each profile, ready to paste into a shell")
	return cmd
}

// What --resume may be.
const (
	resumeNext = "next" // without a value
	resumeOnly = "only"
)

// setMode lays --mode over the file's, and puts profiles side by side that share an
// engine, or else an entry of vLLM's compile cache.
func setMode(plan *sweep.Plan, mode string) error {
	if mode != "" && mode != "latency" && mode != "session" {
		return usageError("There are latency and session.", "--mode %s: no such mode", mode)
	}
	for _, s := range plan.Sweeps {
		shared := false
		for _, p := range s.Profiles {
			p.Engine.Mode = cmp.Or(mode, p.Engine.Mode)
			shared = shared || p.Engine.Mode == "session"
		}
		switch {
		case s.Order == "matrix":
		case shared:
			s.Profiles = sweep.ByEngine(s.Profiles)
		default:
			s.Profiles = sweep.ByCompile(s.Profiles)
		}
	}
	return nil
}

// setLanes lays --lanes over the file's.
func setLanes(plan *sweep.Plan, lanes string) error {
	if lanes == "" {
		return nil
	}
	n, err := sweep.ParseLanes(lanes)
	if err != nil {
		return usageError("", "--lanes %w", err)
	}
	for _, s := range plan.Sweeps {
		s.Lanes.Count = n
	}
	return nil
}

// printCommands prints what a run would execute.
func (w *world) printCommands(plan *sweep.Plan) error {
	for _, s := range plan.Sweeps {
		for _, p := range s.Profiles {
			argv, err := vllm.Command(p)
			if err != nil {
				return err
			}
			var env []string
			for _, e := range s.Env {
				env = append(env, fmt.Sprintf("%s=%v", e.Name, w.secrets().Value(e.Name, e.Value)))
			}
			if len(env) > 0 {
				env = append([]string{"env"}, env...)
			}
			fmt.Fprintf(w.stdout, "# %s %s\n%s\n", s.Name, p.ID, vllm.Paste(append(env, w.secrets().Argv(argv)...)))
		}
	}
	return nil
}

// An execution is how a plan is run, and where its results go.
type execution struct {
	dir, what string // the output folder, and the verb that writes it
	sources   []string
	part      part
	options   runner.Options
	display   runner.Display
	machine   *gpu.Machine  // nil: looked for when it is needed
	engine    runner.Engine // in place of those that the plan names
	sink      runner.Sink   // beside the output folder
}

// perform runs a plan.
func (w *world) perform(ctx context.Context, plan *sweep.Plan, e *execution) (*runner.Summary, error) {
	w.staySmall()
	store, err := w.openPart(ctx, e.dir, e.what, &e.part)
	if err != nil {
		return nil, err
	}
	rig, err := w.newRig(plan, store, e.sources, &e.part)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if e.machine != nil {
		rig.machineOnce.Do(func() { rig.machine = e.machine })
	}
	r := rig.runner(e.display)
	if e.engine != nil {
		r.Engines = func(*sweep.Profile, int) (runner.Engine, error) { return e.engine, nil }
	}
	if e.sink != nil {
		r.Sinks = append(r.Sinks, e.sink)
	}
	r.Shard, e.options.Execution, e.options.Digest = e.part.shard, e.part.execution, e.part.digest
	e.options.Kill = proc.KillContext(ctx)
	summary, err := r.Run(ctx, plan, e.options)
	return summary, errors.Join(err, rig.close(), store.Close())
}

// execute runs the plan of a file, or of flags, in its output folder and says
// what came of it; each is called with every result, nil if nobody asks.
func (w *world) execute(ctx context.Context, plan *sweep.Plan, f *runFlags, each func(*runner.Result)) error {
	dir := w.path(cmp.Or(f.outputDir, plan.OutputDir))
	if err := w.checkOutput("--summary-json", f.summary); err != nil {
		return err
	}
	how := detailAuto
	switch {
	case f.brief:
		how = detailLine
	case f.verbose:
		how = detailFull
	}
	show := w.newDisplay(plan, how)
	show.each = each
	lines := overLanes(show, plan)
	summary, err := w.perform(ctx, plan, &execution{
		dir: dir, what: "run", sources: f.sources, display: lines, part: f.part,
		options: runner.Options{Resume: f.resume != "", ResumeOnly: f.resume == resumeOnly, MaxDuration: f.maxDuration},
	})
	lines.finish()
	if summary != nil {
		err = errors.Join(err, w.outcome(plan, f, summary), w.writeSummary(f.summary, summary))
	}
	if err != nil {
		return runError(err)
	}
	if err := w.publishExecution(ctx, f.publish, dir, summary); err != nil {
		return err
	}
	return quiet(summary.ExitCode())
}

// runError gives what stopped an execution its exit code.
func runError(err error) error {
	switch {
	case errors.As(err, new(*runner.PlacementError)):
		return &exitError{code: exitPlacement, err: err}
	case errors.As(err, new(*runner.MismatchError)):
		return usageError("", "%w", err)
	}
	return err
}

// path makes a path of the command line or a file absolute.
func (w *world) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(w.dir, name)
}

// checkOutput refuses a place for a file before the night, not after.
func (w *world) checkOutput(flag, file string) error {
	if file == "" || file == "-" {
		return nil
	}
	file = w.path(file)
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return usageError("Name a file in it.", "%s %s: it is a folder", flag, file)
	}
	probe, err := os.CreateTemp(filepath.Dir(file), ".vramsweep-*")
	if err != nil {
		return usageError("Make that folder, or name another.", "%s %s cannot be written: %w", flag, file, err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// smallHeap keeps the program within 64 MiB resident beside its own code: it
// runs on a machine whose memory and caches belong to the engine. Only writing
// the tables at the end of a run would take more, and takes a little longer.
const smallHeap = 32 << 20

// staySmall bounds the heap, unless the environment (GOMEMLIMIT, GOGC) says
// otherwise.
func (w *world) staySmall() {
	if w.getenv("GOMEMLIMIT") == "" && w.getenv("GOGC") == "" {
		debug.SetMemoryLimit(smallHeap)
		debug.SetGCPercent(50)
	}
}

// folderError tells the user's mistakes from the machine's.
func folderError(err error) error {
	var locked *sinks.LockedError
	if errors.As(err, &locked) {
		return &exitError{code: exitFault, err: err, hint: "Wait for it, end it, or choose another folder with --output-dir."}
	}
	return &exitError{code: exitFault, err: err}
}

// outcome says what an execution came to: that of a sweep file in full, unless nothing
// was measured.
func (w *world) outcome(plan *sweep.Plan, f *runFlags, s *runner.Summary) error {
	dir := cmp.Or(f.outputDir, plan.OutputDir)
	fmt.Fprintln(w.stdout)
	if s.AlreadyDone {
		fmt.Fprintf(w.stdout, "execution %s is complete: nothing to resume\n", s.Execution)
	}
	if !f.single && s.OK+s.Failed+s.Skipped > 0 {
		if sum, err := w.summaryOf(dir+"@"+s.Execution, ""); err == nil {
			return w.sumUp(w.stdout, sum)
		} // a damaged folder: the counts are known all the same
	}
	fmt.Fprintf(w.stdout, "%d ok, %d failed, %d skipped of %s in %s", s.OK, s.Failed, s.Skipped, plural(s.Planned, "run"),
		time.Duration(s.WallS*float64(time.Second)).Round(time.Second))
	if s.StoppedBy != "" {
		fmt.Fprintf(w.stdout, "; ended early: %s", s.StoppedBy)
	}
	if s.Synthetic {
		fmt.Fprint(w.stdout, "; all figures are synthetic: the simulator made them")
	}
	fmt.Fprintln(w.stdout)
	if !f.temporary {
		fmt.Fprintf(w.stdout, "results   %s\n", filepath.Join(dir, "runs", s.Execution))
	}
	return nil
}

// writeSummary writes the summary as one line.
func (w *world) writeSummary(path string, s *runner.Summary) error {
	if path == "" {
		return nil
	}
	line, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("summary: %w", err)
	}
	err = w.writeTo(path, func(out io.Writer) error {
		_, err := out.Write(append(line, '\n'))
		return err
	})
	if err != nil {
		return fmt.Errorf("--summary-json: %w", err)
	}
	return nil
}

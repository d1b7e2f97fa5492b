package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu"
	"github.com/vramsweep/vramsweep/runner/planner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/simulate"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/calibrate"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// calibrateFlags are those of `calibrate`.
type calibrateFlags struct {
	budget    time.Duration
	outputDir string
	laws, by  string // where the laws go, and who measured them
	plan      calibrate.Plan
	command   string
	dryRun    bool

	from    string
	configs []string
	hold    []string
	json    bool
	sources []string
}

// calibrateVerb measures the laws of the vLLM and GPU at hand.
func (w *world) calibrateVerb() *cobra.Command {
	f := &calibrateFlags{}
	cmd := verb("calibrate", "Measure the laws of memory of this GPU and vLLM, for plan to use", exactArgs(),
		func(cmd *cobra.Command, _ []string) error {
			if f.from != "" {
				return w.fitLaws(w.path(f.from), f)
			}
			return w.calibrate(cmd.Context(), f)
		})
	cmd.Long = `Runs a chosen set of profiles within a budget, fits to them what the arithmetic of
plan cannot compute, checks that on profiles that were not fitted, and writes a laws
file, which plan and run find from then on. It needs one GPU and no download: models are
configurations with true widths, few layers and random weights.

It is an execution like any other: --output-dir DIR has its sweep file, runs and tables,
the same command goes on with one that was interrupted, and --from DIR fits the runs of a
folder again, without a GPU. docs/calibrate.md has an example.`
	cmd.Example = `  vramsweep calibrate --budget 25m
  vramsweep calibrate --from calibration -o laws.json`
	flags := cmd.Flags()
	flags.DurationVar(&f.budget, "budget", 25*time.Minute, "time for the runs; profiles that say less are left out for it")
	flags.StringVar(&f.outputDir, "output-dir", "calibration", "the folder of the execution")
	flags.StringVarP(&f.laws, "output", "o", "",
		"the laws FILE; default: in the user's configuration folder, where plan looks; a simulator's: in the output folder")
	flags.StringVar(&f.by, "by", "vramsweep calibrate", "who measured, for the laws file")
	flags.StringVar(&f.from, "from", "", "fit the finished runs of this output folder; nothing is run")
	flags.StringSliceVar(&f.configs, "configs", nil,
		"with --from: folders with MODEL.json or MODEL/config.json of its models")
	flags.StringSliceVar(&f.hold, "hold-out", []string{calibrate.CheckSweep},
		"sweeps that laws are not fitted to but checked on; without their runs each model is left out in turn")
	flags.StringVar(&f.plan.Engine, "engine", "vllm", "vllm or simulator")
	flags.StringVar(&f.plan.Mode, "mode", "", "session or latency; default: session where vLLM's Python is found")
	flags.StringVar(&f.command, "command", "", "stands for vllm (a path; blanks separate arguments)")
	flags.StringVar(&f.plan.GPU, "gpu", simulate.DefaultGPU, "with --engine simulator: the GPU to simulate")
	flags.StringVar(&f.plan.Version, "vllm-version", "", "with --engine simulator: the vLLM to simulate")
	flags.IntSliceVar(&f.plan.GPUs, "gpus", nil, "the GPU that may be used, e.g. 0")
	flags.StringSliceVar(&f.sources, "sampler", nil, "GPU sources that may be used, in order")
	flags.BoolVar(&f.dryRun, "dry-run", false, "write the sweep file and its models, say what would run, and stop")
	flags.BoolVar(&f.json, "json", false, "print what the laws are worth as JSON")
	return cmd
}

// calibrate runs the profiles, or goes on with them, and fits laws.
func (w *world) calibrate(ctx context.Context, f *calibrateFlags) error {
	f.plan.Command = strings.Fields(f.command)
	dir := w.path(f.outputDir)
	file := filepath.Join(dir, "calibrate.hcl")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if err := w.planCalibration(ctx, dir, file, f); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w.stderr, "%s is there: going on with its profiles\n", file)
	}
	if f.dryRun {
		fmt.Fprintf(w.stdout, "vramsweep run %s --output-dir %s would run them\n", file, f.outputDir)
		return nil
	}
	plan, err := w.load(file, &inputFlags{}, false)
	if err != nil {
		return err
	}
	show := w.newDisplay(plan, detailLine)
	summary, err := w.perform(ctx, plan, &execution{
		dir: dir, what: "calibrate", sources: f.sources, display: show,
		options: runner.Options{Resume: true, ResumeOnly: true, MaxDuration: f.budget + f.budget/5},
	})
	show.finish()
	if summary != nil {
		err = errors.Join(err, w.outcome(plan, &runFlags{outputDir: dir}, summary))
	}
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		fmt.Fprintf(w.stdout, "vramsweep calibrate --output-dir %s goes on; --from %s fits what is there\n",
			f.outputDir, f.outputDir)
		return quiet(exitInterrupted)
	}
	return w.fitLaws(dir, f)
}

// planCalibration chooses the profiles and writes their sweep file and models.
func (w *world) planCalibration(ctx context.Context, dir, file string, f *calibrateFlags) error {
	p := &f.plan
	device, err := w.calibrated(ctx, p, f.sources)
	if err != nil {
		return err
	}
	if err := w.chooseMode(p); err != nil {
		return err
	}
	p.Starts, p.Dir = calibrate.Starts(), dir
	for i := range p.Starts {
		s := &p.Starts[i]
		config, err := s.Config()
		if err == nil {
			folder := filepath.Join(dir, s.Folder())
			if err = os.MkdirAll(folder, 0o755); err == nil {
				err = replaceFile(filepath.Join(folder, "config.json"), config)
			}
		}
		if err != nil {
			return fmt.Errorf("models of the calibration: %w", err)
		}
	}
	if err := w.expect(p, file, &device); err != nil {
		return err
	}
	calibrate.Cut(p.Starts, f.budget)
	if err := p.Text(w.stdout, device.Product, f.budget); err != nil {
		return err
	}
	if p.Measured() == 0 {
		return errors.Join(os.Remove(file), usageError("A larger --budget has room for some.",
			"calibrate: no profile is left to measure within %v", f.budget))
	}
	return replaceFile(file, []byte(p.Sweeps()))
}

// chooseMode finds vLLM before anything is measured, and takes session mode where
// its Python is found too.
func (w *world) chooseMode(p *calibrate.Plan) error {
	chosen := cmp.Or(p.Mode, "session")
	if p.Engine == "vllm" {
		name := append(slices.Clone(p.Command), "vllm")[0]
		if _, err := proc.LookPath(name, w.env, w.dir); err != nil {
			return usageError("--command names it.", "calibrate: %w", err)
		}
		_, err := w.interpreter(&sweep.Profile{Engine: sweep.Engine{Command: p.Command}})
		if err != nil && p.Mode == "" {
			chosen = "latency"
			fmt.Fprintf(w.stderr, "latency mode, a process for each run: %v\n", err)
		}
	}
	p.Mode = chosen
	return nil
}

// calibrated is the GPU that will be measured.
func (w *world) calibrated(ctx context.Context, p *calibrate.Plan, sources []string) (models.GPU, error) {
	switch {
	case p.Engine == "simulator":
		g, err := simulate.FindGPU(p.GPU)
		if err != nil {
			return g, usageError("", "--gpu: %w", err)
		}
		return g, nil
	case p.Engine != "vllm":
		return models.GPU{}, usageError("There are vllm and simulator.", "--engine %s: no such engine", p.Engine)
	}
	machine := gpu.Detect(ctx, w.machineOptions(sources), false)
	defer machine.Close()
	found := machine.Found()
	if len(found) == 0 {
		return models.GPU{}, usageError("vramsweep gpus says what is looked for; --engine simulator needs none.",
			"calibrate: no GPU is to be seen here, and on a CPU vLLM keeps no budget of memory that laws could be fitted to")
	}
	if len(p.GPUs) == 0 {
		p.GPUs = []int{found[0].Index}
	}
	for _, d := range found {
		if d.Index == p.GPUs[0] {
			return planner.DeviceGPU(&d), nil
		}
	}
	return models.GPU{}, usageError("vramsweep gpus lists them.", "--gpus %v: there is no such GPU", p.GPUs)
}

// expect notes how long each start takes as far as anybody knows, and which the
// GPU has no memory for.
func (w *world) expect(p *calibrate.Plan, file string, device *models.GPU) error {
	if err := replaceFile(file, []byte(p.Sweeps())); err != nil {
		return err
	}
	plan, err := w.load(file, &inputFlags{}, false)
	if err != nil {
		return err
	}
	document, err := (&planner.Planner{Plan: plan, GPU: device}).Document()
	if err != nil {
		return err
	}
	for _, one := range document.Profiles {
		for i := range p.Starts {
			s := &p.Starts[i]
			if !s.Is(&one.Settings) {
				continue
			}
			if one.ExpectedSeconds != nil {
				s.Expected = max(s.Expected, time.Duration(*one.ExpectedSeconds*float64(time.Second)))
			}
			if fits := one.Estimate.Fits; fits != nil && !*fits {
				s.Left = "it does not fit: " + one.Estimate.Reason
			}
		}
	}
	return nil
}

// fitLaws fits laws to the runs of a folder, says what they are worth and keeps them.
func (w *world) fitLaws(dir string, f *calibrateFlags) error {
	var runs *calibrate.Runs
	err := viewStore(dir, func(s *sinks.Store) (err error) {
		runs, err = calibrate.Read(s, f.hold, w.calibratedModel(dir, f.configs))
		return err
	})
	if err != nil {
		return err
	}
	done, err := calibrate.Calibrate(runs, models.ShippedLaws(), f.by, filepath.Base(dir))
	if err != nil {
		return &exitError{code: exitFault, err: fmt.Errorf("%w\n%s", err, strings.Join(runs.LeftOut, "\n"))}
	}
	if err := printed(w.stdout, f.json, done); err != nil {
		return err
	}
	target := f.laws
	switch {
	case target != "":
		target = w.path(target)
	case runs.Synthetic:
		target = filepath.Join(dir, "laws.json")
	default:
		if target, err = w.lawsFolder(); err != nil {
			return err
		}
		target = filepath.Join(target, done.Name())
	}
	if err := keepLaws(target, done.Laws); err != nil {
		return err
	}
	out := w.stdout
	if f.json {
		out = w.stderr
	}
	fmt.Fprintf(out, "laws      %s\n", target)
	return nil
}

// calibratedModel finds the architecture of a run: by its config.json in the
// calibration's folder or the named one, else as every analysis does.
func (w *world) calibratedModel(dir string, configs []string) func(*runner.Result) *models.Architecture {
	catalogue, err := models.Builtin()
	return func(r *runner.Result) *models.Architecture {
		name := filepath.Base(r.ModelInfo.Model)
		for _, folder := range append(slices.Clone(configs), filepath.Join(dir, "models")) {
			for _, path := range []string{filepath.Join(folder, name), filepath.Join(folder, name+".json")} {
				if a, err := readConfig(path, name); err == nil {
					return a
				}
			}
		}
		if err != nil {
			return nil
		}
		return findArchitecture(catalogue, &sinks.RowsOf(r).Run)
	}
}

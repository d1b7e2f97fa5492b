package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/runner/gpu"
	"github.com/vramsweep/vramsweep/runner/planner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/simulate"
	"github.com/vramsweep/vramsweep/runner/vllm"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A rig is a Runner with all that it needs, wired for one plan.
type rig struct {
	w     *world
	plan  *sweep.Plan
	store *sinks.Store
	part  *part
	mark  string
	runs  map[string]int // by engine

	mu      sync.Mutex           // of the two below
	engines map[int]*laneEngines // by lane
	folders map[int]string       // for temporary files, by lane

	machineOnce sync.Once
	machine     *gpu.Machine
	sources     []string

	machines  *simulate.Machines // of the simulator's profiles; nil without any
	deviceDir string
	laws      *models.Laws
}

// newRig wires a plan to an output folder.
func (w *world) newRig(plan *sweep.Plan, store *sinks.Store, sources []string, p *part) (*rig, error) {
	if err := checkSources(sources); err != nil {
		return nil, err
	}
	mark, err := proc.FolderMark(store.Dir())
	if err != nil {
		return nil, err
	}
	laws, err := w.laws(plan, "")
	if err != nil {
		return nil, err
	}
	mark += p.suffix()
	r := &rig{w: w, plan: plan, part: p, store: store, mark: mark, sources: sources, runs: plan.RunsByEngine(), laws: laws,
		engines: map[int]*laneEngines{}, folders: map[int]string{}}
	if err := r.simulated(); err != nil {
		return nil, err
	}
	return r, nil
}

// simulated makes the device of the simulator's profiles, if there are any.
func (r *rig) simulated() error {
	if !simulate.Wanted(r.plan) {
		return nil
	}
	// Beside the results, so that a simulated engine that outlives a killed
	// runner still holds its memory when the next one looks.
	r.deviceDir = filepath.Join(r.store.Dir(), ".simulated-gpu"+r.part.suffix())
	if info, err := os.Lstat(r.deviceDir); err == nil && info.Mode()&os.ModeSymlink != 0 {
		link := r.deviceDir
		r.deviceDir = "" // it is not ours
		return fmt.Errorf("%s is a symbolic link, and links inside an output folder are not followed; remove it", link)
	}
	if err := os.MkdirAll(r.deviceDir, 0o755); err != nil {
		return fmt.Errorf("folder of the simulated GPU: %w", err)
	}
	machines, err := simulate.NewMachines(r.deviceDir, r.plan)
	if err != nil {
		return usageError("", "%w", err)
	}
	r.machines = machines
	return nil
}

// close takes away what only this process needs.
func (r *rig) close() error {
	for _, e := range r.engines {
		e.latency.Warm.Close()
	}
	if r.machine != nil {
		r.machine.Close()
	}
	err := r.dropTemporary()
	if r.deviceDir != "" {
		err = errors.Join(err, os.RemoveAll(r.deviceDir))
	}
	return err
}

// gpus looks at this machine's GPUs, once.
func (r *rig) gpus() *gpu.Machine {
	r.machineOnce.Do(func() {
		r.machine = gpu.Detect(context.Background(), r.w.machineOptions(r.sources), false)
	})
	return r.machine
}

// runner is the Runner of this rig.
func (r *rig) runner(display runner.Display) *runner.Runner {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &runner.Runner{
		Engines:    r.engine,
		Samplers:   r.samplers,
		Sinks:      []runner.Sink{r.store},
		Inspector:  r.inspector,
		Attributor: &attribution.Attributor{},
		History:    r.store,
		Estimate:   r.estimate,
		Clean:      r.clean,
		Recover:    r.recover,
		FreeBytes:  r.store.FreeBytes,
		Place:      r.place,
		HostTurn:   r.hostTurn,
		HostCPU:    hostCPU,
		Display:    display,
		Version:    version,
		Host:       host,
		OS:         runtime.GOOS + "/" + runtime.GOARCH,
		Command:    r.w.secrets().Argv(append([]string{"vramsweep"}, r.w.args...)),
		Masker:     r.w.secrets(),
		Mark:       r.mark,
	}
}

// engine picks what executes a profile in a lane.
func (r *rig) engine(p *sweep.Profile, lane int) (runner.Engine, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.engines[lane]
	if e == nil {
		base := r.w.env
		// Runs side by side are forked by a parent each.
		warm := &vllm.Warm{Mark: fmt.Sprintf("%s.warm.%d", r.mark, lane), Starts: vllm.Starts(r.plan)}
		e = &laneEngines{
			latency: &vllm.Latency{BaseEnv: base, Warm: warm},
			session: &vllm.Session{BaseEnv: base, Python: r.w.interpreter, Runs: r.runs, Warm: warm},
		}
		e.simulator = &simulate.SessionEngine{
			Engine: simulate.Engine{VLLM: &vllm.Latency{BaseEnv: base}, Self: []string{r.w.self, simulatedVLLM},
				Machines: r.machines},
			Session: &vllm.Session{BaseEnv: base, Python: r.w.interpreter}, Runs: r.runs,
		}
		r.engines[lane] = e
	}
	switch {
	case p.Engine.Kind == "simulator" && p.Engine.Mode == "session":
		return e.simulator, nil
	case p.Engine.Kind == "simulator":
		return &e.simulator.Engine, nil
	case p.Engine.Mode == "session":
		return e.session, nil
	default:
		return e.latency, nil
	}
}

// laneEngines are what executes the profiles of a lane.
type laneEngines struct {
	latency   *vllm.Latency
	session   *vllm.Session
	simulator *simulate.SessionEngine
}

// inspector picks what reads the GPUs of a profile in full.
func (r *rig) inspector(p *sweep.Profile) runner.Inspector {
	if p.Engine.Kind == "simulator" {
		device, err := r.machines.Of(p)
		if err != nil {
			return nil // the engine says why
		}
		return device
	}
	if len(r.gpus().Found()) == 0 && r.gpus().Unread() == nil && !r.namesGPUs(p) {
		return nil
	}
	return r.gpus().Inspector()
}

// namesGPUs reports whether the sweep of a profile says which GPUs it wants.
func (r *rig) namesGPUs(p *sweep.Profile) bool {
	return slices.ContainsFunc(r.plan.Sweeps, func(s *sweep.Sweep) bool { return s.Name == p.Sweep && len(s.GPUs) > 0 })
}

// samplers picks the instruments of a run.
func (r *rig) samplers(job *runner.Job) []runner.Sampler {
	if job.Profile.Engine.Kind == "simulator" {
		device, err := r.machines.Of(job.Profile)
		if err != nil {
			return []runner.Sampler{failedSampler{err}}
		}
		return []runner.Sampler{device.Sampler(job)}
	}
	run := gpu.Run{Interval: job.Sweep.Sample.Interval, Epoch: job.StartedAt, PIDs: job.Pulse.Tree}
	if !job.Sweep.Sample.AllGPUs {
		run.GPUs = []int{}
		for _, d := range job.Devices {
			run.GPUs = append(run.GPUs, d.Index)
		}
	}
	samplers, err := r.gpus().Samplers(run)
	if err != nil {
		return []runner.Sampler{failedSampler{err}}
	}
	return samplers
}

// failedSampler says why there are no samples.
type failedSampler struct{ err error }

func (f failedSampler) Sample(context.Context, func([]runner.Sample)) (*runner.SamplerReport, error) {
	return &runner.SamplerReport{Name: "none", Notes: []string{f.err.Error()}}, f.err
}

// estimate is what the arithmetic says of a profile on these GPUs; nil where
// the GPU is not known to it.
func (r *rig) estimate(p *sweep.Profile, devices []runner.Device) *models.Estimate {
	g, ok := planner.GPUOf(devices, r.plan.GPUs, p)
	if !ok {
		return nil
	}
	request := p.Request()
	request.Laws = r.laws
	e := models.NewEstimate(p.Model, request, g)
	return &e
}

// clean ends what the runs of a mark left alive, and nothing else.
func (r *rig) clean(ctx context.Context, mark string) ([]runner.Process, error) {
	left, err := proc.EndMarked(ctx, "", mark, 10*time.Second)
	var ended []runner.Process
	for _, l := range left {
		note := "ended"
		if l.Left {
			note = "could not be ended"
		}
		ended = append(ended, runner.Process{PID: l.PID, Name: l.Name, Ours: true, Note: "found by " + l.How + "; " + note})
	}
	return ended, err
}

// recover puts the output folder in order after a crash.
func (r *rig) recover() ([]string, error) {
	fixed, err := r.store.Recover()
	if fixed == nil {
		return nil, err
	}
	var notes []string
	for _, a := range fixed.Attempts {
		notes = append(notes, fmt.Sprintf("an attempt that was cut off is kept in %s with %d samples; its run is due again",
			a.Dir, a.Samples))
	}
	return notes, err
}

// interpreter finds vLLM's own Python: as the engine block says, else from the
// first line of the vllm executable, else beside it.
func (w *world) interpreter(p *sweep.Profile) ([]string, error) {
	if len(p.Engine.Python) > 0 {
		return p.Engine.Python, nil
	}
	name := "vllm"
	if len(p.Engine.Command) > 0 {
		name = p.Engine.Command[0]
	}
	path, err := proc.LookPath(name, w.env, w.dir)
	if err != nil {
		return nil, fmt.Errorf("session mode: %w", err)
	}
	if python, err := proc.Interpreter(path); err != nil || python != nil {
		return python, err
	}
	beside := filepath.Join(filepath.Dir(path), "python")
	if _, err := os.Stat(beside); err == nil {
		return []string{beside}, nil
	}
	return nil, usageError(`Name it: engine "vllm" { python = ["/opt/venv/bin/python"] }`,
		"session mode needs vLLM's own Python, and %s does not show which that is", path)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/runner/gpu"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep"
)

type monitorFlags struct {
	interval time.Duration
	output   string
	gpus     []int
	sources  []string
}

// monitorVerb samples the GPUs while any command runs.
func (w *world) monitorVerb() *cobra.Command {
	var f monitorFlags
	cmd := &cobra.Command{
		Use:   "monitor -- CMD ...",
		Short: "Sample the GPUs while any command runs",
		Long: `Samples from just before CMD starts to just after it ends, with the same samplers,
tables and summary as a sweep. CMD's output passes through; its exit code is
vramsweep's. On a terminal a line shows memory, load and power meanwhile.`,
		Args: minArgs("CMD"),
		RunE: func(cmd *cobra.Command, args []string) error { return w.monitor(cmd.Context(), args, &f) },
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.DurationVar(&f.interval, "interval", gpu.DefaultInterval, "time between samples, 10ms to 10s")
	flags.StringVar(&f.output, "output", "monitor-results", "the output folder")
	flags.StringVar(&f.output, "output-dir", "monitor-results", "the same, as other verbs call it")
	_ = flags.MarkHidden("output-dir") // it is there
	flags.IntSliceVar(&f.gpus, "gpus", nil, "the GPUs that count; default: all")
	flags.StringSliceVar(&f.sources, "sampler", nil, "GPU sources that may be used, in order")
	return cmd
}

func (w *world) monitor(ctx context.Context, argv []string, f *monitorFlags) error {
	if f.interval < gpu.MinInterval || f.interval > gpu.MaxInterval {
		return usageError("", "--interval %s: between %s and %s", f.interval, gpu.MinInterval, gpu.MaxInterval)
	}
	if err := gpu.CheckSources(f.sources); err != nil {
		return usageError("vramsweep gpus says which of them work here.", "--sampler: %w", err)
	}
	if _, err := proc.LookPath(argv[0], w.env, w.dir); err != nil { // before anything is made
		return usageError("", "%w", err)
	}
	m := &watch{w: w, f: f, machine: gpu.Detect(ctx, w.machineOptions(f.sources), false)}
	defer m.machine.Close()
	devices, err := m.chosen()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.output, 0o755); err != nil {
		return usageError("monitor writes a folder of tables and one JSON for the run.", "--output %s: %w", f.output, err)
	}
	if m.store, err = w.openStore(f.output, "monitor"); err != nil {
		return err
	}
	result, err := m.run(ctx, argv, devices)
	if result != nil {
		err = errors.Join(err, w.publish(m.store, result))
	}
	if err = errors.Join(err, m.store.Close()); err != nil {
		return err
	}
	if err := attribution.RenderSummary(w.stderr, result); err != nil {
		return err
	}
	if result.Run.OutcomeDetail != "" {
		fmt.Fprintf(w.stderr, "outcome   %s: %s\n", result.Run.Outcome, result.Run.OutcomeDetail)
	}
	fmt.Fprintf(w.stderr, "results   %s\n", filepath.Join(f.output, "runs", result.Run.Execution))
	switch {
	case result.Run.Outcome == runner.OutcomeInterrupted:
		return quiet(exitInterrupted)
	case result.Run.ExitCode == nil:
		return quiet(exitFault)
	}
	return quiet(*result.Run.ExitCode)
}

// publish makes an execution of one result, so that the tables have it.
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
	execution := &runner.Execution{ID: first.Run.Execution, State: runner.StateRunning, StartedAt: started, Version: version,
		Command: proc.NewMasker(w.env).Argv(append([]string{"vramsweep"}, w.args...)), Runs: len(results), Synthetic: synthetic}
	if err := store.BeginExecution(execution); err != nil {
		return err
	}
	return store.FinishExecution(execution.ID, runner.StateComplete, nil)
}

// A watch is one command that is being monitored.
type watch struct {
	w       *world
	f       *monitorFlags
	machine *gpu.Machine
	store   *sinks.Store
	live    *live
}

// job describes the command as the run of a profile of one setting: itself.
func (m *watch) job(argv []string, devices []runner.Device) *runner.Job {
	started := time.Now()
	name := filepath.Base(argv[0])
	profile := &sweep.Profile{ID: "monitor", Sweep: "monitor", Settings: sweep.Settings{Model: name, HFModelID: name}, Engine: sweep.Engine{Kind: runner.EngineCommand, Mode: "monitor"}}
	execution := started.UTC().Format("20060102T150405Z") + "-monitor"
	job := &runner.Job{
		RunID: execution + "-" + name, Execution: execution, Profile: profile,
		Sweep:  &sweep.Sweep{Name: "monitor", Sample: sweep.Sample{Interval: m.f.interval}},
		Repeat: 1, Attempt: 1, Devices: devices, StartedAt: started, Progress: func(runner.Progress) {}, Pulse: &runner.Pulse{},
	}
	job.Dir = m.store.RunDir(job)
	return job
}

// chosen are the devices that count.
func (m *watch) chosen() ([]runner.Device, error) {
	found := m.machine.InUse() // a GPU's parts are not GPUs
	if m.f.gpus == nil {
		return found, nil
	}
	var out []runner.Device
	for _, index := range m.f.gpus {
		hit := false
		for _, d := range found {
			if d.Index == index {
				out, hit = append(out, d), true
			}
		}
		if !hit {
			return nil, usageError("vramsweep gpus lists them.", "--gpus %d: there is no such GPU", index)
		}
	}
	return out, nil
}

func (m *watch) run(ctx context.Context, argv []string, devices []runner.Device) (*runner.Result, error) {
	job := m.job(argv, devices)
	indices := make([]int, len(job.Devices))
	for i, d := range job.Devices {
		indices[i] = d.Index
	}
	measured := &runner.Measured{Job: job, Measurement: &runner.Measurement{}}
	var notes []string
	measured.Baseline = m.inspect(ctx, indices, &notes)
	sink, err := m.store.Begin(job)
	if err != nil {
		return nil, err
	}
	measured.Reports, err = m.sampled(ctx, job, indices, sink, func() error { return m.command(ctx, job, argv, measured.Measurement) })
	if err != nil {
		return nil, err
	}
	measured.Final = m.inspect(background(ctx), indices, &notes)
	measured.Samples, _ = sink.(runner.SampleReader)
	result := m.result(job, measured)
	result.Run.Notes = append(result.Run.Notes, notes...)
	(&attribution.Attributor{}).Attribute(result, measured)
	return result, sink.Finish(result)
}

// inspect reads the GPUs in full. A tool that fails then is no reason to lose
// the samples: it is noted.
func (m *watch) inspect(ctx context.Context, indices []int, notes *[]string) *runner.DetailedGPUMetrics {
	if len(indices) == 0 {
		return nil
	}
	d, err := m.machine.Inspector().Inspect(ctx, indices)
	if err != nil {
		*notes = append(*notes, "reading the GPUs in full failed: "+err.Error())
		return nil
	}
	return d
}

// sampled runs do while the samplers run.
func (m *watch) sampled(ctx context.Context, job *runner.Job, indices []int, sink runner.RunSink, do func() error) ([]*runner.SamplerReport, error) {
	samplers, err := m.machine.Samplers(gpu.Run{Interval: m.f.interval, GPUs: indices, Epoch: job.StartedAt, PIDs: job.Pulse.Tree})
	if err != nil {
		return nil, err
	}
	sampling, stop := context.WithCancel(background(ctx))
	defer stop()
	var group sync.WaitGroup
	var mu sync.Mutex
	reports := make([]*runner.SamplerReport, len(samplers)) // GPUs first, the host last
	var failed error
	seen := newSeen(job.Devices)
	m.live = newLive(m.w.stderr)
	defer m.live.end()
	for i, sampler := range samplers {
		group.Go(func() {
			report, err := sampler.Sample(sampling, func(batch []runner.Sample) {
				m.live.take(batch)
				seen.take(batch)
				if err := sink.Samples(batch); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			})
			seen.give() // nothing more comes from this one
			mu.Lock()
			defer mu.Unlock()
			reports[i] = report
			if err != nil {
				fmt.Fprintf(m.live.over(m.w.stderr), "vramsweep: sampler: %v\n", err)
			}
		})
	}
	// A few samples before and after: what was there, and what is left.
	seen.wait(ctx, firstSample)
	time.Sleep(max(5*m.f.interval, 200*time.Millisecond))
	err = do()
	time.Sleep(max(5*m.f.interval, 500*time.Millisecond))
	stop()
	group.Wait()
	reports = slices.DeleteFunc(reports, func(r *runner.SamplerReport) bool { return r == nil })
	return reports, errors.Join(err, failed)
}

// firstSample is how long the command waits for the first sample of each GPU:
// on a busy machine a sampler's start can take seconds.
const firstSample = 5 * time.Second

// seen waits for the first sample of each GPU.
type seen struct {
	mu   sync.Mutex
	left map[int32]bool
	all  chan struct{}
}

func newSeen(devices []runner.Device) *seen {
	s := &seen{left: map[int32]bool{}, all: make(chan struct{})}
	for _, d := range devices {
		s.left[int32(d.Index)] = true
	}
	if len(s.left) == 0 {
		close(s.all)
	}
	return s
}

func (s *seen) take(batch []runner.Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range batch {
		if !s.left[batch[i].GPU] {
			continue
		}
		if delete(s.left, batch[i].GPU); len(s.left) == 0 {
			close(s.all)
		}
	}
}

// give ends the waiting: a sampler has ended.
func (s *seen) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.left) > 0 {
		clear(s.left)
		close(s.all)
	}
}

func (s *seen) wait(ctx context.Context, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.all:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// command runs CMD with its output passed through.
func (m *watch) command(ctx context.Context, job *runner.Job, argv []string, out *runner.Measurement) error {
	out.Command = proc.NewMasker(m.w.env).Argv(argv)
	p, err := proc.Start(ctx, proc.Spec{Argv: argv, Env: m.w.env, Stdin: m.w.stdin, Stdout: m.live.over(m.w.stdout), Stderr: m.live.over(m.w.stderr)})
	if err != nil {
		return usageError("", "%w", err)
	}
	job.Pulse.SetTree(p.Tree)
	exit, err := p.Wait()
	job.Pulse.SetTree(nil)
	if err != nil {
		return err
	}
	out.StartedAt, out.EndedAt, out.ExitCode, out.Signal, out.Outcome = exit.StartedAt, exit.EndedAt, exit.Code, exit.Signal, runner.OutcomeOK
	switch {
	case exit.Stopped != "":
		out.Outcome, out.Detail = runner.OutcomeInterrupted, exit.Stopped
	case exit.Code == nil || *exit.Code != 0:
		out.Outcome, out.Detail = runner.OutcomeEngineError, "the command failed: "+strings.TrimSpace(exit.Signal)
		if exit.Code != nil {
			out.Detail = fmt.Sprintf("the command ended with exit code %d", *exit.Code)
		}
	}
	return nil
}

func (m *watch) result(job *runner.Job, measured *runner.Measured) *runner.Result {
	r := runner.NewResult(job)
	x := measured.Measurement
	r.ProfilerVersion, r.Provenance.Vramsweep = version, version
	r.Run.Outcome, r.Run.OutcomeDetail, r.Run.ExitCode, r.Run.Command = x.Outcome, x.Detail, x.ExitCode, x.Command
	r.Run.EndedAt = time.Now().UTC()
	r.Run.WallS = time.Since(job.StartedAt).Seconds()
	r.DetailedGPUMetrics = measured.Final
	r.GPUInfo = job.Devices
	r.Missing["vllm_internal_metrics"] = "monitor runs any command and reads no log"
	r.Missing["latency_stats"] = "monitor runs any command and measures no latency"
	return r
}

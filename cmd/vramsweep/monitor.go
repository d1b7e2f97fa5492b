package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/runner/gpu"
	"github.com/vramsweep/vramsweep/runner/proc"
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
	cmd := verb("monitor -- CMD ...", "Sample the GPUs while any command runs", minArgs("CMD"),
		func(cmd *cobra.Command, args []string) error { return w.monitor(cmd.Context(), args, &f) })
	cmd.Long = `Samples from just before CMD starts to just after it ends, with the same samplers,
tables and summary as a sweep. CMD's output passes through; its exit code is
vramsweep's. On a terminal a line shows memory, load and power meanwhile.`
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

// monitor runs CMD as the only profile of a sweep, by an engine that starts it.
func (w *world) monitor(ctx context.Context, argv []string, f *monitorFlags) error {
	if f.interval < gpu.MinInterval || f.interval > gpu.MaxInterval {
		return usageError("", "--interval %s: between %s and %s", f.interval, gpu.MinInterval, gpu.MaxInterval)
	}
	if err := checkSources(f.sources); err != nil {
		return err
	}
	if _, err := proc.LookPath(argv[0], w.env, w.dir); err != nil { // before anything is made
		return usageError("", "%w", err)
	}
	machine := gpu.Detect(ctx, w.machineOptions(f.sources), false)
	if err := machine.Unread(); err != nil {
		return err
	}
	gpus, err := chosenGPUs(machine, f.gpus)
	if err != nil {
		return err
	}
	if len(machine.Found()) == 0 {
		fmt.Fprintln(w.stderr, "vramsweep: there is no GPU here: the memory of the host alone is sampled (vramsweep gpus says why)")
	}
	if err := os.MkdirAll(f.output, 0o755); err != nil {
		return usageError("monitor writes a folder of tables and one JSON for the run.", "--output %s: %w", f.output, err)
	}
	live := newLive(w.stderr)
	_, err = w.perform(ctx, commandPlan(argv, f.interval, gpus), &execution{
		dir: f.output, what: "monitor", sources: f.sources, machine: machine,
		engine: &command{w: w, argv: argv, live: live}, sink: live,
	})
	live.end()
	result := live.result
	if result == nil {
		return errors.Join(err, quiet(exitInterrupted))
	}
	if err = errors.Join(err, attribution.RenderSummary(w.stderr, result)); err != nil {
		return err
	}
	for _, note := range result.Run.Notes {
		fmt.Fprintf(w.stderr, "vramsweep: %s\n", note)
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

// chosenGPUs are the devices that count; a GPU's parts are not GPUs.
func chosenGPUs(machine *gpu.Machine, asked []int) ([]int, error) {
	var found []int
	for _, d := range machine.InUse() {
		found = append(found, d.Index)
	}
	for _, index := range asked {
		if !slices.Contains(found, index) {
			return nil, usageError("vramsweep gpus lists them.", "--gpus %d: there is no such GPU", index)
		}
	}
	if asked != nil {
		return asked, nil
	}
	return found, nil
}

// commandPlan describes a command as a sweep of one profile with one setting:
// itself.
func commandPlan(argv []string, interval time.Duration, gpus []int) *sweep.Plan {
	name := filepath.Base(argv[0])
	profile := &sweep.Profile{
		ID: name, Sweep: "monitor", Settings: sweep.Settings{Model: name, HFModelID: name},
		Engine: sweep.Engine{Kind: runner.EngineCommand, Mode: "monitor"},
	}
	return &sweep.Plan{Sweeps: []*sweep.Sweep{{
		Name: "monitor", Repeats: 1, GPUs: gpus, Sample: sweep.Sample{Interval: interval},
		Profiles: []*sweep.Profile{profile},
	}}}
}

// A command is a runner.PromptEngine that runs CMD with its output passed through.
type command struct {
	w    *world
	argv []string
	live *live
}

// Margin is a few samples: what was there before, and what is left.
func (c *command) Margin(job *runner.Job) time.Duration {
	return max(5*job.Sweep.Sample.Interval, 200*time.Millisecond)
}

func (c *command) Run(ctx context.Context, job *runner.Job) (*runner.Measurement, error) {
	w := c.w
	p, err := proc.Start(ctx, proc.Spec{
		Argv: c.argv, Env: w.env, Mark: job.Mark, Stdin: w.stdin, Stdout: c.live.over(rawOf(w.stdout)),
		Stderr: c.live.over(rawOf(w.stderr)),
	})
	if err != nil {
		return nil, usageError("", "%w", err)
	}
	job.Pulse.SetTree(p.Tree)
	exit, err := p.Wait()
	job.Pulse.SetTree(nil)
	if err != nil {
		return nil, err
	}
	m := &runner.Measurement{
		Command: w.secrets().Argv(c.argv), Outcome: runner.OutcomeOK, Decided: exit.Stopped == "",
		StartedAt: exit.StartedAt, EndedAt: exit.EndedAt, ExitCode: exit.Code,
		Missing: map[string]string{
			"vllm_internal_metrics":        "monitor runs any command and reads no log",
			"latency_stats":                "monitor runs any command and measures no latency",
			"model_info":                   "monitor runs any command and knows no model",
			"engine_metadata.vllm_version": "monitor runs any command",
		},
	}
	switch {
	case exit.Stopped != "":
		m.Outcome, m.Detail = runner.OutcomeInterrupted, exit.Stopped
	case exit.Code == nil:
		m.Outcome, m.Detail = runner.OutcomeEngineError, "the command failed: "+strings.TrimSpace(exit.Signal)
	case *exit.Code != 0:
		m.Outcome, m.Detail = runner.OutcomeEngineError, fmt.Sprintf("the command ended with exit code %d", *exit.Code)
	}
	return m, nil
}

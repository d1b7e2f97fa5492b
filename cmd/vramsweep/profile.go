package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep"
)

// profileFlags are those of `profile`.
type profileFlags struct {
	run     runFlags
	options sweep.SingleOptions
	output  string
	vllm    []string
	command string
	gpus    []int
	given   []func() // take over the settings that were given
}

// profileVerb runs one profile from flags.
func (w *world) profileVerb() *cobra.Command {
	f := &profileFlags{}
	cmd := verb("profile --model MODEL --input-len N --output-len N --batch-size N", "One profile from flags", exactArgs(),
		func(cmd *cobra.Command, _ []string) error {
			plan, err := sweep.Single(f.single(w))
			if err != nil {
				return w.sayDiagnostics(err, false)
			}
			return w.profile(cmd.Context(), plan, f)
		})
	f.add(cmd)
	return cmd
}

func (f *profileFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	o := &f.options
	flags.StringVar(&o.Model, "model", "", "catalogue name, folder with config.json, or Hugging Face id")
	flags.StringVar(&o.Model, "hf-model-id", "", "the same")
	const usage = "as in a sweep file"
	optional(f, flags, flags.Int64, usage, map[string]**int64{
		"input-len": &o.InputLen, "output-len": &o.OutputLen, "batch-size": &o.BatchSize,
		"tensor-parallel-size": &o.TensorParallelSize, "pipeline-parallel-size": &o.PipelineParallelSize,
		"max-model-len": &o.MaxModelLen, "max-num-seqs": &o.MaxNumSeqs, "max-num-batched-tokens": &o.MaxNumBatchedTokens,
		"num-iters": &o.NumIters, "num-iters-warmup": &o.NumItersWarmup, "model-params": &o.ModelParams,
		"num-layers": &o.NumLayers, "num-heads": &o.NumHeads, "hidden-size": &o.HiddenSize,
	})
	optional(f, flags, flags.String, usage, map[string]**string{
		"dtype": &o.Dtype, "kv-cache-dtype": &o.KVCacheDtype, "quantization": &o.Quantization, "load-format": &o.LoadFormat,
	})
	optional(f, flags, flags.Bool, usage, map[string]**bool{
		"enforce-eager": &o.EnforceEager, "trust-remote-code": &o.TrustRemoteCode,
	})
	optional(f, flags, flags.Float64, "share of the GPU's memory that vLLM may use", map[string]**float64{
		"gpu-memory-utilization": &o.GPUMemoryUtilization,
	})
	flags.StringVar(&o.Engine, "engine", "vllm", "vllm or simulator")
	flags.StringVar(&f.command, "command", "", "stands for vllm (a path; blanks separate arguments)")
	flags.StringArrayVar(&f.vllm, "vllm-flag", nil, "one of vLLM's own flags: NAME=VALUE (repeatable)")
	flags.IntSliceVar(&f.gpus, "gpus", nil, "the GPUs that may be used, e.g. 0,1")
	flags.StringVar(&f.output, "output", "", "write the result to FILE")
	flags.StringVar(&f.run.outputDir, "output-dir", "", "keep logs, samples and tables here; default: a temporary folder")
	flags.BoolVar(&f.run.brief, "brief", false, "one line instead of the full account")
	flags.StringSliceVar(&f.run.sources, "sampler", nil, "GPU sources that may be used, in order")
	flags.StringVar(&f.run.summary, "summary-json", "",
		"write the outcome as one line of JSON to FILE (- for standard output)")
}

// optional adds flags whose settings stay nil unless they are given.
func optional[T any](
	f *profileFlags, flags *pflag.FlagSet, add func(name string, value T, usage string) *T, usage string,
	settings map[string]**T,
) {
	for name, to := range settings {
		value := add(name, *new(T), usage)
		f.given = append(f.given, func() {
			if flags.Changed(name) {
				*to = value
			}
		})
	}
}

func (f *profileFlags) single(w *world) sweep.SingleOptions {
	for _, take := range f.given {
		take()
	}
	o := f.options
	o.WorkDir, o.GPUs = w.dir, f.gpus
	o.Command = strings.Fields(f.command)
	o.Flags = map[string]string{}
	for _, flag := range f.vllm {
		name, value, _ := strings.Cut(flag, "=")
		o.Flags[strings.ReplaceAll(strings.TrimLeft(name, "-"), "-", "_")] = value
	}
	return o
}

// profile executes the plan of one profile and writes its result.
func (w *world) profile(ctx context.Context, plan *sweep.Plan, f *profileFlags) error {
	if f.run.outputDir == "" {
		dir, err := os.MkdirTemp("", "vramsweep-profile-")
		if err != nil {
			return fmt.Errorf("temporary folder for the run: %w", err)
		}
		defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
		f.run.outputDir = dir
	}
	var result *runner.Result
	err := w.execute(ctx, plan, &f.run, func(r *runner.Result) { result = r })
	if f.output == "" || result == nil {
		return err
	}
	if writeErr := sinks.WriteResult(w.path(f.output), result); writeErr != nil {
		return errors.Join(err, writeErr)
	}
	fmt.Fprintf(w.stdout, "result    %s\n", f.output)
	return err
}

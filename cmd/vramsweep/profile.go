package main

import (
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

// profileFlags are those of `profile`: optional numbers are only set if given.
type profileFlags struct {
	run     runFlags
	options sweep.SingleOptions
	output  string
	keep    string
	vllm    []string
	command string
	gpus    []int
	numbers map[string]**int64
	texts   map[string]**string
	truths  map[string]**bool
}

// profileVerb runs one profile from flags.
func (w *world) profileVerb() *cobra.Command {
	f := &profileFlags{}
	cmd := verb("profile --model MODEL --input-len N --output-len N --batch-size N", "One profile from flags", exactArgs(),
		func(cmd *cobra.Command, _ []string) error {
			f.read(cmd.Flags())
			plan, err := sweep.Single(f.single(w))
			if err != nil {
				return w.sayDiagnostics(err, false)
			}
			return w.profile(cmd, plan, f)
		})
	f.add(cmd)
	return cmd
}

func (f *profileFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	o := &f.options
	flags.StringVar(&o.Model, "model", "", "catalogue name, folder with config.json, or Hugging Face id")
	flags.StringVar(&o.Model, "hf-model-id", "", "the same")
	f.numbers = map[string]**int64{
		"input-len": &o.InputLen, "output-len": &o.OutputLen, "batch-size": &o.BatchSize, "tensor-parallel-size": &o.TensorParallelSize,
		"pipeline-parallel-size": &o.PipelineParallelSize, "max-model-len": &o.MaxModelLen, "max-num-seqs": &o.MaxNumSeqs,
		"max-num-batched-tokens": &o.MaxNumBatchedTokens, "num-iters": &o.NumIters, "num-iters-warmup": &o.NumItersWarmup,
		"model-params": &o.ModelParams, "num-layers": &o.NumLayers, "num-heads": &o.NumHeads, "hidden-size": &o.HiddenSize,
	}
	f.texts = map[string]**string{"dtype": &o.Dtype, "kv-cache-dtype": &o.KVCacheDtype, "quantization": &o.Quantization, "load-format": &o.LoadFormat}
	f.truths = map[string]**bool{"enforce-eager": &o.EnforceEager, "trust-remote-code": &o.TrustRemoteCode}
	for name := range f.numbers {
		flags.Int64(name, 0, "as in a sweep file")
	}
	for name := range f.texts {
		flags.String(name, "", "as in a sweep file")
	}
	for name := range f.truths {
		flags.Bool(name, false, "as in a sweep file")
	}
	flags.Float64("gpu-memory-utilization", 0, "share of the GPU's memory that vLLM may use")
	flags.StringVar(&o.Engine, "engine", "vllm", "vllm or simulator")
	flags.StringVar(&f.command, "command", "", "stands for vllm (a path; blanks separate arguments)")
	flags.StringArrayVar(&f.vllm, "vllm-flag", nil, "one of vLLM's own flags: NAME=VALUE (repeatable)")
	flags.IntSliceVar(&f.gpus, "gpus", nil, "the GPUs that may be used, e.g. 0,1")
	flags.StringVar(&f.output, "output", "", "write the result to FILE")
	flags.StringVar(&f.keep, "output-dir", "", "keep logs, samples and tables here; default: a temporary folder")
	flags.BoolVar(&f.run.brief, "brief", false, "one line instead of the full account")
	flags.StringSliceVar(&f.run.sources, "sampler", nil, "GPU sources that may be used, in order")
	flags.StringVar(&f.run.summary, "summary-json", "", "write the outcome as one line of JSON to FILE (- for standard output)")
}

// read takes over the flags that were given.
func (f *profileFlags) read(flags *pflag.FlagSet) {
	flags.Visit(func(flag *pflag.Flag) {
		if to, ok := f.numbers[flag.Name]; ok {
			v, _ := flags.GetInt64(flag.Name)
			*to = &v
		}
		if to, ok := f.texts[flag.Name]; ok {
			v, _ := flags.GetString(flag.Name)
			*to = &v
		}
		if to, ok := f.truths[flag.Name]; ok {
			v, _ := flags.GetBool(flag.Name)
			*to = &v
		}
		if flag.Name == "gpu-memory-utilization" {
			v, _ := flags.GetFloat64(flag.Name)
			f.options.GPUMemoryUtilization = &v
		}
	})
}

func (f *profileFlags) single(w *world) sweep.SingleOptions {
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
func (w *world) profile(cmd *cobra.Command, plan *sweep.Plan, f *profileFlags) error {
	f.run.outputDir = f.keep
	if f.keep == "" {
		dir, err := os.MkdirTemp("", "vramsweep-profile-")
		if err != nil {
			return fmt.Errorf("temporary folder for the run: %w", err)
		}
		defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
		f.run.outputDir = dir
	}
	var result *runner.Result
	err := w.execute(cmd.Context(), plan, &f.run, func(r *runner.Result) { result = r })
	if f.output == "" || result == nil {
		return err
	}
	if writeErr := sinks.WriteResult(w.path(f.output), result); writeErr != nil {
		return errors.Join(err, writeErr)
	}
	fmt.Fprintf(w.stdout, "result    %s\n", f.output)
	return err
}

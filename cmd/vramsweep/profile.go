package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

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
	model   string
}

// profileVerb runs one profile from flags.
func (w *world) profileVerb() *cobra.Command {
	f := &profileFlags{}
	cmd := verb("profile --model MODEL --input-len N --output-len N --batch-size N", "One profile from flags", exactArgs(),
		func(cmd *cobra.Command, _ []string) error {
			f.read(cmd)
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
	flags.StringVar(&f.model, "hf-model-id", "", "the same as --model")
	for _, s := range sweep.SettingInfos() {
		name := flagOf(s.Name)
		switch s.Zero.(type) {
		case int64:
			flags.Int64(name, 0, s.Doc)
		case float64:
			flags.Float64(name, 0, s.Doc)
		case bool:
			flags.Bool(name, false, s.Doc)
		default:
			flags.String(name, "", s.Doc)
		}
	}
	for _, name := range modelFlags() {
		flags.Int64(flagOf(name), 0, "of the model, laid over what is known of it")
	}
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

// read takes over the flags that were given.
func (f *profileFlags) read(cmd *cobra.Command) {
	flags := cmd.Flags()
	f.options.Settings = map[string]any{}
	if f.model != "" {
		f.options.Settings["model"] = f.model
	}
	for _, s := range sweep.SettingInfos() {
		name := flagOf(s.Name)
		if !flags.Changed(name) {
			continue
		}
		var v any
		switch s.Zero.(type) {
		case int64:
			v, _ = flags.GetInt64(name)
		case float64:
			v, _ = flags.GetFloat64(name)
		case bool:
			v, _ = flags.GetBool(name)
		default:
			v, _ = flags.GetString(name)
		}
		f.options.Settings[s.Name] = v
	}
	f.options.Model = map[string]int64{}
	for _, name := range modelFlags() {
		if flags.Changed(flagOf(name)) {
			f.options.Model[name], _ = flags.GetInt64(flagOf(name))
		}
	}
}

// modelFlags are the settings of the model itself.
func modelFlags() []string { return []string{"model_params", "num_layers", "num_heads", "hidden_size"} }

// flagOf names the flag of a setting.
func flagOf(setting string) string { return strings.ReplaceAll(setting, "_", "-") }

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
func (w *world) profile(ctx context.Context, plan *sweep.Plan, f *profileFlags) error {
	if f.run.outputDir == "" {
		dir, err := os.MkdirTemp("", "vramsweep-profile-")
		if err != nil {
			return fmt.Errorf("temporary folder for the run: %w", err)
		}
		defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
		f.run.outputDir = dir
	}
	f.run.verbose, f.run.single = !f.run.brief, true
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

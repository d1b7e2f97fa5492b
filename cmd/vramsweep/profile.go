package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
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
	params  paramCount
}

// A paramCount is a flag: "7e9", "7B", "350M" or all digits.
type paramCount int64

func (n *paramCount) String() string { return strconv.FormatInt(int64(*n), 10) }
func (n *paramCount) Type() string   { return "count" }
func (n *paramCount) Set(text string) error {
	number, factor := text, 1.0
	switch {
	case strings.HasSuffix(strings.ToUpper(text), "B"):
		number, factor = text[:len(text)-1], 1e9
	case strings.HasSuffix(strings.ToUpper(text), "M"):
		number, factor = text[:len(text)-1], 1e6
	}
	v, err := strconv.ParseFloat(number, 64)
	if v *= factor; err != nil || v < 1 || v > 1e15 || v != math.Trunc(v) {
		return fmt.Errorf("%q is no number of parameters; write 7B, 7e9 or 7000000000", text)
	}
	*n = paramCount(v)
	return nil
}

// profileVerb runs one profile from flags.
func (w *world) profileVerb() *cobra.Command {
	f := &profileFlags{}
	cmd := verb("profile --model MODEL --input-len N --output-len N --batch-size N", "One profile from flags", exactArgs(),
		func(cmd *cobra.Command, _ []string) error {
			f.read(cmd)
			options, err := f.single(w)
			if err != nil {
				return err
			}
			plan, err := sweep.Single(options)
			if err != nil {
				return w.sayDiagnostics(err, false)
			}
			return w.profile(cmd.Context(), w.learn(plan), f)
		})
	f.add(cmd)
	return cmd
}

func (f *profileFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	o := &f.options
	flags.StringVar(&f.model, "hf-model-id", "", "the model as the Hugging Face Hub names it: OWNER/NAME; the same as --model")
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
	flags.Var(&f.params, "model-params", "parameters of the model (7B, 7e9), in place of what the catalogue knows")
	flags.Lookup("model-params").DefValue = ""
	flags.Int64("num-layers", 0, "transformer layers of the model, in place of what the catalogue knows")
	flags.Int64("num-heads", 0, "attention heads of the model, in place of what the catalogue knows")
	flags.Int64("hidden-size", 0, "width of the model, in place of what the catalogue knows")
	flags.DurationVar(&o.Sample, "interval", 0, "time between samples, 10ms to 10s (default 100ms)")
	cmd.MarkFlagsMutuallyExclusive("model", "hf-model-id")
	flags.StringVar(&o.Engine, "engine", "vllm", "vllm or simulator")
	flags.StringVar(&f.command, "command", "", "stands for vllm (a path; blanks separate arguments)")
	flags.StringArrayVar(&f.vllm, "vllm-flag", nil, "one of vLLM's own flags: NAME=VALUE (repeatable)")
	flags.IntSliceVar(&f.gpus, "gpus", nil, "the GPUs that may be used, e.g. 0,1")
	flags.StringVar(&f.output, "output", "", "write the result to FILE")
	flags.StringVar(&f.run.outputDir, "output-dir", "", "keep logs, samples and tables here; default: a temporary folder, which stays if the run fails")
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
	for _, name := range []string{"num_layers", "num_heads", "hidden_size"} {
		if flags.Changed(flagOf(name)) {
			f.options.Model[name], _ = flags.GetInt64(flagOf(name))
		}
	}
	if flags.Changed("model-params") {
		f.options.Model["model_params"] = int64(f.params)
	}
}

// flagOf names the flag of a setting.
func flagOf(setting string) string { return strings.ReplaceAll(setting, "_", "-") }

func (f *profileFlags) single(w *world) (o sweep.SingleOptions, err error) {
	o = f.options
	if o.Models, err = w.catalogue(); err != nil {
		return o, err
	}
	o.WorkDir, o.GPUs = w.dir, f.gpus
	o.Command = strings.Fields(f.command)
	o.Flags = map[string]string{}
	for _, flag := range f.vllm {
		name, value, _ := strings.Cut(flag, "=")
		o.Flags[strings.ReplaceAll(strings.TrimLeft(name, "-"), "-", "_")] = value
	}
	return o, nil
}

// profile executes the plan of one profile and writes its result. Without --output-dir
// the run's folder is taken away again, unless the run failed.
func (w *world) profile(ctx context.Context, plan *sweep.Plan, f *profileFlags) error {
	if f.output != "" {
		if err := w.checkOutput("--output", f.output); err != nil {
			return err
		}
	}
	f.run.temporary = f.run.outputDir == ""
	if f.run.temporary {
		dir, err := os.MkdirTemp("", "vramsweep-profile-")
		if err != nil {
			return fmt.Errorf("temporary folder for the run: %w", err)
		}
		f.run.outputDir = dir
	}
	f.run.verbose, f.run.single = !f.run.brief, true
	var result *runner.Result
	err := w.execute(ctx, plan, &f.run, func(r *runner.Result) { result = r })
	if f.output != "" && result != nil {
		if writeErr := sinks.WriteResult(w.path(f.output), result); writeErr != nil {
			return errors.Join(err, writeErr)
		}
		fmt.Fprintf(w.stdout, "result    %s\n", f.output)
	}
	switch {
	case !f.run.temporary:
	case err == nil || result == nil:
		err = errors.Join(err, os.RemoveAll(f.run.outputDir))
	default:
		fmt.Fprintf(w.stdout, "The run failed: its log is kept in %s\n", f.run.outputDir)
	}
	return err
}

package vllm

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// Paths is what a command line needs beyond its profile.
type Paths struct {
	OutputJSON string          // --output-json; "" leaves it away
	Devices    []runner.Device // where the run goes; only `defaults = "serve"` looks at them
}

// Args is the command line of `vllm bench latency` for a profile, of any
// version from 0.4.3 on.
//
// Settings become the flags of the same name. Engine.Command stands for `vllm`,
// Engine.Benchmark for `vllm bench latency` (versions before 0.8.5 have no such
// verb). All other engine attributes become vLLM's own flags by one rule:
// underscores turn to dashes; true is --flag and false --no-flag; a list is the
// flag followed by its values; an object is JSON text.
//
// What depends on the version is done only where vllm_version names it: a flag
// that this version lacks is an error, and 0.8.0 to 0.9.0 get
// --no-enable-prefix-caching, because they would serve the measured prompts
// from the cache of the warm-up.
func Args(p *sweep.Profile, paths Paths) ([]string, error) {
	b := &argBuilder{p: p, version: p.Engine.VLLMVersion}
	if err := b.program(); err != nil {
		return nil, err
	}
	b.flags(p.Settings.Flags(false), paths.Devices)
	if paths.OutputJSON != "" {
		b.add("output-json", paths.OutputJSON)
	}
	return b.argv, errors.Join(b.errs...)
}

// flags adds the settings and all that the engine is told besides.
func (b *argBuilder) flags(settings []sweep.Flag, devices []runner.Device) {
	for _, f := range settings {
		b.flag(f.Name, f.Value)
	}
	b.prefixCaching()
	b.withoutTokenizer()
	b.serveDefaults(devices)
	for _, f := range b.p.Engine.Flags {
		b.flag(f.Name, f.Value)
	}
}

type argBuilder struct {
	p       *sweep.Profile
	version string
	argv    []string
	errs    []error
}

func (b *argBuilder) fail(format string, args ...any) {
	b.errs = append(b.errs, fmt.Errorf(format, args...))
}

// older reports whether the version is known and older than major.minor.patch.
func (b *argBuilder) older(major, minor, patch int) bool {
	return models.Older(b.version, major, minor, patch)
}

// program is what stands before the flags.
func (b *argBuilder) program() error {
	e := b.p.Engine
	if len(e.Benchmark) > 0 {
		b.argv = append(b.argv, e.Benchmark...)
		return nil
	}
	if b.older(0, 8, 5) {
		return fmt.Errorf("vLLM %s has no `vllm bench latency` (it came with 0.8.5): name its script in the engine block, "+
			"benchmark = [\"python\", \".../benchmarks/benchmark_latency.py\"]", b.version)
	}
	if b.argv = append(b.argv, e.Command...); len(b.argv) == 0 {
		b.argv = []string{"vllm"}
	}
	b.argv = append(b.argv, "bench", "latency")
	return nil
}

// scriptFlags are the flags of benchmarks/benchmark_latency.py before 0.6.4,
// which took a list of its own, each with the version that brought it. From
// 0.6.4 on the benchmark takes every argument of the engine.
func scriptFlags() map[string][3]int {
	all := map[string][3]int{}
	for since, flags := range map[[3]int]string{
		{0, 4, 0}: "model speculative-model num-speculative-tokens tokenizer quantization tensor-parallel-size input-len " +
			"output-len batch-size n use-beam-search num-iters trust-remote-code dtype enforce-eager kv-cache-dtype " +
			"quantization-param-path profile profile-result-dir device block-size enable-chunked-prefill " +
			"use-v2-block-manager ray-workers-use-nsight download-dir",
		{0, 4, 1}: "num-iters-warmup",
		{0, 4, 3}: "output-json gpu-memory-utilization",
		{0, 5, 0}: "distributed-executor-backend otlp-traces-endpoint",
		{0, 5, 1}: "max-model-len enable-prefix-caching load-format",
	} {
		for _, flag := range strings.Fields(flags) {
			all[flag] = since
		}
	}
	return all
}

// sinceFlags came to later versions.
func sinceFlags() map[string][3]int {
	return map[string][3]int{
		"disable-detokenize": {0, 8, 0}, "kv-cache-memory-bytes": {0, 10, 2},
	}
}

// known refuses a flag that the named version lacks.
func (b *argBuilder) known(flag string) bool {
	if b.version == "" {
		return true
	}
	since, listed := sinceFlags()[flag]
	if b.older(0, 6, 4) {
		if since, listed = scriptFlags()[flag]; !listed {
			b.fail("benchmark_latency.py of vLLM %s has no flag --%s: before 0.6.4 it took a list of its own", b.version, flag)
			return false
		}
	}
	if listed && b.older(since[0], since[1], since[2]) {
		b.fail("vLLM %s has no flag --%s: it came with %d.%d.%d", b.version, flag, since[0], since[1], since[2])
		return false
	}
	return true
}

func (b *argBuilder) add(flag string, values ...string) {
	if !b.known(flag) {
		return
	}
	b.argv = append(b.argv, "--"+flag)
	b.argv = append(b.argv, values...)
}

// boolean adds --flag or --no-flag. Before 0.9 most flags know no "no" form;
// there false is the default and nothing is said.
func (b *argBuilder) boolean(flag string, on bool) {
	switch {
	case on:
		b.add(flag)
	case b.older(0, 9, 0) && (flag != "enable-prefix-caching" || b.older(0, 7, 0)):
	case b.known(flag):
		b.argv = append(b.argv, "--no-"+flag)
	}
}

// flag adds one of vLLM's own flags.
func (b *argBuilder) flag(name string, value any) {
	flag := strings.ReplaceAll(strings.TrimLeft(name, "-"), "_", "-")
	switch v := value.(type) {
	case nil:
		b.fail("engine attribute %s is null: leave it out to leave it to vLLM", name)
	case bool:
		b.boolean(flag, v)
	case []any:
		if len(v) == 0 {
			b.fail("engine attribute %s is an empty list: a flag of vLLM takes one value or more; "+
				"leave it out to leave it to vLLM", name)
			return
		}
		values := make([]string, len(v))
		for i, e := range v {
			values[i] = b.scalar(name, e)
		}
		b.add(flag, values...)
	default:
		b.add(flag, b.scalar(name, v))
	}
}

func (b *argBuilder) scalar(name string, value any) string {
	switch v := value.(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case int:
		return strconv.Itoa(v)
	case float64:
		return formatFloat(v)
	case map[string]any, []any:
		text, err := json.Marshal(v)
		if err != nil {
			b.fail("engine attribute %s cannot be written as JSON: %w", name, err)
		}
		return string(text)
	}
	b.fail("engine attribute %s is a %T: expected a string, a number, true, false, a list or an object", name, value)
	return ""
}

// formatFloat writes whole numbers without a point: argparse's int flags
// refuse "8192.0".
func formatFloat(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return strconv.FormatInt(int64(v), 10)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// asked reports whether the profile names one of vLLM's flags.
func (b *argBuilder) asked(name string) bool {
	for _, f := range b.p.Engine.Flags {
		if strings.ReplaceAll(strings.TrimLeft(f.Name, "-"), "-", "_") == name {
			return true
		}
	}
	return false
}

// prefixCaching: 0.8.0 to 0.9.0 leave it on in the benchmark (its warm-up
// prompts are the measured ones); other versions switch it off themselves or
// have it off.
func (b *argBuilder) prefixCaching() {
	if b.version == "" || b.asked("enable_prefix_caching") || b.asked("no_enable_prefix_caching") {
		return
	}
	if !b.older(0, 8, 0) && b.older(0, 9, 1) {
		b.argv = append(b.argv, "--no-enable-prefix-caching")
	}
}

// tokenizerFiles: a model folder with any of these has a tokenizer.
func tokenizerFiles() []string {
	return []string{
		"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json",
		"spiece.model",
	}
}

// withoutTokenizer lets a folder that holds a config.json and nothing else run
// with random weights: the benchmark's prompts are token ids and need no
// tokenizer.
func (b *argBuilder) withoutTokenizer() {
	s := &b.p.Settings
	if s.LoadFormat == nil || *s.LoadFormat != "dummy" || b.asked("tokenizer") || b.older(0, 6, 4) {
		return
	}
	if _, err := os.Stat(filepath.Join(s.HFModelID, "config.json")); err != nil {
		return
	}
	for _, f := range tokenizerFiles() {
		if _, err := os.Stat(filepath.Join(s.HFModelID, f)); err == nil {
			return
		}
	}
	if !b.asked("skip_tokenizer_init") {
		b.add("skip-tokenizer-init")
	}
	if !b.asked("disable_detokenize") && !b.older(0, 8, 0) {
		b.add("disable-detokenize")
	}
}

// serveDefaults pins the limits that the API server would choose on these
// devices (arg_utils.get_batch_defaults, 0.8 on): the benchmark runs the LLM
// class, whose own are higher. Devices that are not known are taken for large
// ones.
func (b *argBuilder) serveDefaults(devices []runner.Device) {
	if b.p.Engine.Defaults != "serve" {
		return
	}
	small := slices.ContainsFunc(devices, func(d runner.Device) bool {
		return d.TotalBytes != nil && *d.TotalBytes < 70*runner.GiB || strings.Contains(strings.ToLower(d.Name), "a100")
	})
	tokens, seqs := models.BatchDefaults(!small, true)
	s := &b.p.Settings
	if s.MaxNumBatchedTokens == nil {
		b.add("max-num-batched-tokens", strconv.FormatInt(tokens, 10))
	}
	if s.MaxNumSeqs == nil {
		b.add("max-num-seqs", strconv.FormatInt(seqs, 10))
	}
}

// Paste writes a command line so that a shell reads it back as it is.
func Paste(argv []string) string {
	quoted := make([]string, len(argv))
	for i, a := range argv {
		quoted[i] = quote(a)
	}
	return strings.Join(quoted, " ")
}

func quote(s string) string {
	if plainArg.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// plainArg is what a shell reads as it stands.
var plainArg = regexp.MustCompile(`^[A-Za-z0-9_./=:,@%+-]+$`)

package simulate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A request is what one start of the simulated vllm was asked for.
type request struct {
	model        string
	inputLen     int64
	outputLen    int64
	batchSize    int64
	numIters     int64
	numWarmup    int64
	outputJSON   string
	dtype        string
	kvDtype      string
	quantization string
	loadFormat   string
	tp, pp       int64
	maxLen       *int64
	maxSeqs      *int64
	maxTokens    *int64
	util         *float64
	kvBytes      *int64
	blockSize    *int64
	eager        bool
	skipTok      bool
	given        []givenFlag // in the order of the command line
}

// A givenFlag is one flag as it was given: dashes in the name, true and false
// for a bool.
type givenFlag struct {
	name, value string
}

// An argError is what argparse prints before it exits with 2.
type argError struct {
	prog, text string
}

func (e *argError) Error() string { return e.prog + ": error: " + e.text }

// parseArgs reads the arguments after `vllm bench latency` as argparse and
// vLLM's FlexibleArgumentParser do: "_" and "-" are the same, a unique
// beginning stands for the whole, `--flag=value` and `--flag value`.
func parseArgs(prog string, args []string) (*request, error) {
	r := &request{
		inputLen: 32, outputLen: 128, batchSize: 8, numIters: 30, numWarmup: 10,
		dtype: "auto", kvDtype: "auto", loadFormat: "auto", tp: 1, pp: 1,
	}
	table, unknown := flagTable(), []string(nil)
	for i := 0; i < len(args); i++ {
		name, value, hasValue := strings.Cut(args[i], "=")
		flag, ok := findFlag(table, name)
		if !ok {
			unknown = append(unknown, args[i])
			continue
		}
		kind := table[strings.TrimPrefix(flag, "no-")]
		if kind == 0 {
			kind = table[flag]
		}
		switch {
		case kind == flagBool && hasValue:
			return nil, &argError{prog, fmt.Sprintf("argument --%s: ignored explicit argument %s", flag, pyString(value))}
		case kind == flagBool:
			value = "True"
			if rest, negative := strings.CutPrefix(flag, "no-"); negative {
				flag, value = rest, "False"
			}
		case !hasValue:
			values := valuesAfter(args[i+1:], kind)
			if len(values) == 0 {
				least := map[bool]string{true: "at least one", false: "one"}[kind == flagMany]
				return nil, &argError{prog, fmt.Sprintf("argument --%s: expected %s argument", flag, least)}
			}
			i += len(values)
			value = strings.Join(values, " ")
		}
		if err := r.set(prog, flag, kind, value); err != nil {
			return nil, err
		}
	}
	if len(unknown) > 0 {
		return nil, &argError{strings.Fields(prog)[0], "unrecognized arguments: " + strings.Join(unknown, " ")}
	}
	return r, r.checkChoices(prog)
}

// valuesAfter are the values that follow a flag: none, one, or all up to the
// next flag. A negative number is a value.
func valuesAfter(rest []string, kind flagKind) []string {
	n := 0
	for n < len(rest) {
		_, notNumber := strconv.ParseFloat(rest[n], 64)
		if strings.HasPrefix(rest[n], "-") && notNumber != nil {
			break
		}
		n++
		if kind != flagMany {
			break
		}
	}
	return rest[:n]
}

// findFlag finds the flag that a word means, or reports that none does.
func findFlag(table map[string]flagKind, word string) (string, bool) {
	if name, ok := shortFlags()[word]; ok {
		return name, true
	}
	name, ok := strings.CutPrefix(word, "--")
	if !ok || name == "" {
		return "", false
	}
	name, _, _ = strings.Cut(strings.ReplaceAll(name, "_", "-"), ".") // --compilation-config.mode=3
	known := func(s string) bool { return table[s] != 0 }
	if known(name) {
		return name, true
	}
	if rest, negative := strings.CutPrefix(name, "no-"); negative && table[rest] == flagBool {
		return name, true
	}
	var found []string
	for flag := range table {
		if strings.HasPrefix(flag, name) {
			found = append(found, flag)
		}
	}
	if len(found) == 1 {
		return found[0], true
	}
	return "", false
}

// set takes one flag.
func (r *request) set(prog, flag string, kind flagKind, value string) error {
	var n int64
	var f float64
	var err error
	switch kind {
	case flagInt:
		if n, err = humanInt(value); err != nil {
			return &argError{prog, fmt.Sprintf("argument --%s: invalid int value: %s", flag, pyString(value))}
		}
		value = strconv.FormatInt(n, 10)
	case flagFloat:
		if f, err = strconv.ParseFloat(value, 64); err != nil {
			return &argError{prog, fmt.Sprintf("argument --%s: invalid float value: %s", flag, pyString(value))}
		}
	}
	r.given = append(slices.DeleteFunc(r.given, func(g givenFlag) bool { return g.name == flag }), givenFlag{flag, value})
	ints := map[string]*int64{
		"input-len": &r.inputLen, "output-len": &r.outputLen, "batch-size": &r.batchSize, "num-iters": &r.numIters,
		"num-iters-warmup": &r.numWarmup, "tensor-parallel-size": &r.tp, "pipeline-parallel-size": &r.pp,
	}
	optional := map[string]**int64{
		"max-model-len": &r.maxLen, "max-num-seqs": &r.maxSeqs, "max-num-batched-tokens": &r.maxTokens,
		"kv-cache-memory-bytes": &r.kvBytes, "block-size": &r.blockSize,
	}
	texts := map[string]*string{
		"model": &r.model, "output-json": &r.outputJSON, "dtype": &r.dtype, "kv-cache-dtype": &r.kvDtype,
		"quantization": &r.quantization, "load-format": &r.loadFormat,
	}
	bools := map[string]*bool{"enforce-eager": &r.eager, "skip-tokenizer-init": &r.skipTok}
	switch {
	case ints[flag] != nil:
		*ints[flag] = n
	case optional[flag] != nil:
		*optional[flag] = &n
	case texts[flag] != nil:
		*texts[flag] = value
	case bools[flag] != nil:
		*bools[flag] = value == "True"
	case flag == "gpu-memory-utilization":
		r.util = &f
	}
	return nil
}

// humanInt reads what vLLM reads for its integers: 8192, 8k (1,000), 8K (1,024).
func humanInt(s string) (int64, error) {
	factors := map[string]float64{"k": 1e3, "K": 1 << 10, "m": 1e6, "M": 1 << 20, "g": 1e9, "G": 1 << 30}
	for suffix, factor := range factors {
		if digits, ok := strings.CutSuffix(s, suffix); ok {
			f, err := strconv.ParseFloat(digits, 64)
			return int64(f * factor), err
		}
	}
	return strconv.ParseInt(s, 10, 64)
}

// checkChoices refuses values that argparse has a list for.
func (r *request) checkChoices(prog string) error {
	choices := []struct {
		flag, value string
		allowed     []string
	}{
		{"dtype", r.dtype, strings.Fields("auto half float16 bfloat16 float float32")},
		{"kv-cache-dtype", r.kvDtype, strings.Fields("auto bfloat16 float16 fp8 fp8_ds_mla fp8_e4m3 fp8_e5m2 fp8_inc nvfp4")},
	}
	for _, c := range choices {
		if !slices.Contains(c.allowed, c.value) {
			quoted := make([]string, len(c.allowed))
			for i, a := range c.allowed {
				quoted[i] = pyString(a)
			}
			return &argError{prog, fmt.Sprintf("argument --%s: invalid choice: %s (choose from %s)",
				c.flag, pyString(c.value), strings.Join(quoted, ", "))}
		}
	}
	return nil
}

// settings are the request's own, by the names that a profile gives them, for
// a plant's `when`.
func (r *request) settings(c *Config) map[string]string {
	out := map[string]string{
		"model": r.model, "hf_model_id": r.model, "dtype": r.dtype, "kv_cache_dtype": r.kvDtype,
		"input_len": fmt.Sprint(r.inputLen), "output_len": fmt.Sprint(r.outputLen), "batch_size": fmt.Sprint(r.batchSize),
		"num_iters": fmt.Sprint(r.numIters), "num_iters_warmup": fmt.Sprint(r.numWarmup),
		"tensor_parallel_size": fmt.Sprint(r.tp), "pipeline_parallel_size": fmt.Sprint(r.pp),
		"enforce_eager": fmt.Sprint(r.eager), "load_format": r.loadFormat, "quantization": r.quantization,
		"vllm_version": c.Version, "profile": c.Key, "profile_id": c.Key,
		"repeat": fmt.Sprint(c.Repeat),
	}
	if c.Model != nil {
		out["model"], out["family"] = c.Model.ID, c.Model.Family
	}
	for _, g := range r.given {
		name := strings.ReplaceAll(g.name, "-", "_")
		if _, ok := out[name]; !ok {
			out[name] = strings.ToLower(g.value)
		}
	}
	return out
}

// pyString writes a string as Python's repr does.
func pyString(s string) string {
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		return `"` + s + `"`
	}
	return "'" + strings.ReplaceAll(s, "'", `\'`) + "'"
}

// A flagKind says how argparse takes a flag's value.
type flagKind byte

const (
	flagText  flagKind = 's'
	flagInt   flagKind = 'i'
	flagFloat flagKind = 'f'
	flagBool  flagKind = 'b' // --x and --no-x, no value
	flagMany  flagKind = 'm' // one or more values
)

// flagTable are the flags of words/flags.txt, by kind.
func flagTable() map[string]flagKind {
	table := map[string]flagKind{}
	for _, line := range wordsFile("flags") {
		kind, names, _ := strings.Cut(line, " ")
		for _, name := range strings.Fields(names) {
			if len(kind) == 1 && kind != "#" {
				table[name] = flagKind(kind[0])
			}
		}
	}
	return table
}

// shortFlags are the short and the changed spellings.
func shortFlags() map[string]string {
	return map[string]string{
		"-tp": "tensor-parallel-size", "-pp": "pipeline-parallel-size", "-dp": "data-parallel-size",
		"-dcp": "decode-context-parallel-size", "-pcp": "prefill-context-parallel-size", "-q": "quantization",
		"-ep": "enable-expert-parallel", "-cc": "compilation-config", "-ac": "attention-config",
		"-O": "optimization-level", "-n": "nnodes", "-r": "node-rank",
	}
}

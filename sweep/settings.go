package sweep

import (
	"errors"
	"math"
	"strings"
)

// settingKind is what a setting takes.
type settingKind int

const (
	kindText settingKind = iota
	kindWhole
	kindShare // a number above 0, at most 1
	kindBool
	kindSize // a whole number of bytes, or a size with its unit
	kindModel
)

// A setting is one field of Settings as files name it.
type setting struct {
	name    string
	kind    settingKind
	low     int64    // of kindWhole
	choices []string // of kindText: what vLLM 0.29 takes; others are warned of
	doc     string
	set     func(*Settings, *cell)
}

// A cell is the value of a setting, a flag or an axis at a point, converted
// once and shared by every profile that has it: what it points to is never
// written again.
type cell struct {
	v     any // string, int64, float64, bool, []any, map[string]any; nil: left out
	text  *string
	whole *int64
	share *float64
	flag  *bool
	model *modelRef
	bad   bool
	folds []*fold // faults to count again at each use
}

// settings lists all settings in the order of docs/language.md.
func settings() []*setting {
	return []*setting{
		{name: "model", kind: kindModel, doc: "a model block, a name of the catalogue, a folder with config.json, or a Hugging Face id",
			set: func(s *Settings, c *cell) { s.Model, s.HFModelID = c.model.name, c.model.hfID }},
		{name: "input_len", kind: kindWhole, low: 1, doc: "prompt tokens of a sequence", set: func(s *Settings, c *cell) { s.InputLen = *c.whole }},
		{name: "output_len", kind: kindWhole, low: 1, doc: "tokens to generate for a sequence", set: func(s *Settings, c *cell) { s.OutputLen = *c.whole }},
		{name: "batch_size", kind: kindWhole, low: 1, doc: "sequences at once", set: func(s *Settings, c *cell) { s.BatchSize = *c.whole }},
		{name: "tensor_parallel_size", kind: kindWhole, low: 1, doc: "GPUs that share each layer", set: func(s *Settings, c *cell) { s.TensorParallelSize = *c.whole }},
		{name: "pipeline_parallel_size", kind: kindWhole, low: 1, doc: "groups of GPUs that share the layers out", set: func(s *Settings, c *cell) { s.PipelineParallelSize = *c.whole }},
		{name: "dtype", kind: kindText, choices: []string{"auto", "bfloat16", "float", "float16", "float32", "half"},
			doc: "of weights and activations", set: func(s *Settings, c *cell) { s.Dtype = c.text }},
		{name: "kv_cache_dtype", kind: kindText, choices: []string{"auto", "bfloat16", "float16", "fp8", "fp8_ds_mla", "fp8_e4m3", "fp8_e5m2", "fp8_inc", "fp8_per_token_head", "int4_per_token_head",
			"int8_per_token_head", "nvfp4", "nvfp4_4over6", "turboquant_3bit_nc", "turboquant_4bit_nc", "turboquant_k3v4_nc", "turboquant_k8v4"},
			doc: "of the KV cache", set: func(s *Settings, c *cell) { s.KVCacheDtype = c.text }},
		{name: "quantization", kind: kindText, doc: "vLLM's name of the method", set: func(s *Settings, c *cell) { s.Quantization = c.text }},
		{name: "max_model_len", kind: kindWhole, low: 1, doc: "longest sequence, prompt and output together", set: func(s *Settings, c *cell) { s.MaxModelLen = c.whole }},
		{name: "max_num_seqs", kind: kindWhole, low: 1, doc: "most sequences in a step", set: func(s *Settings, c *cell) { s.MaxNumSeqs = c.whole }},
		{name: "max_num_batched_tokens", kind: kindWhole, low: 1, doc: "most tokens in a step", set: func(s *Settings, c *cell) { s.MaxNumBatchedTokens = c.whole }},
		{name: "gpu_memory_utilization", kind: kindShare, doc: "vLLM's share of the GPU's memory, above 0 and at most 1", set: func(s *Settings, c *cell) { s.GPUMemoryUtilization = c.share }},
		{name: "kv_cache_memory_bytes", kind: kindSize, doc: "KV cache of a GPU: bytes, or a size as \"8GiB\"", set: func(s *Settings, c *cell) { s.KVCacheMemoryBytes = c.whole }},
		{name: "block_size", kind: kindWhole, low: 1, doc: "tokens of a block of the KV cache", set: func(s *Settings, c *cell) { s.BlockSize = c.whole }},
		{name: "enforce_eager", kind: kindBool, doc: "no CUDA graphs and no compiling", set: func(s *Settings, c *cell) { s.EnforceEager = c.flag }},
		{name: "load_format", kind: kindText, doc: "how weights are loaded; \"dummy\" needs no download", set: func(s *Settings, c *cell) { s.LoadFormat = c.text }},
		{name: "trust_remote_code", kind: kindBool, doc: "run the model's own code", set: func(s *Settings, c *cell) { s.TrustRemoteCode = c.flag }},
		{name: "num_iters", kind: kindWhole, low: 1, doc: "measured iterations", set: func(s *Settings, c *cell) { s.NumIters = c.whole }},
		{name: "num_iters_warmup", kind: kindWhole, low: 0, doc: "iterations before", set: func(s *Settings, c *cell) { s.NumItersWarmup = c.whole }},
	}
}

// defaultSettings are those that a profile always has: vLLM's own defaults of
// `vllm bench latency`. They are asked for explicitly, so that a later default
// of vLLM does not change what a profile is.
func defaultSettings() map[string]int64 {
	return map[string]int64{
		"input_len": 32, "output_len": 128, "batch_size": 8, "tensor_parallel_size": 1, "pipeline_parallel_size": 1,
	}
}

// SettingNames lists the settings of a profile as files name them.
func SettingNames() []string {
	var names []string
	for _, s := range settings() {
		names = append(names, s.name)
	}
	return names
}

// most is far above what any engine takes and far below what overflows the
// arithmetic.
func (s *setting) most() int64 {
	switch s.name {
	case "batch_size", "max_num_seqs", "tensor_parallel_size", "pipeline_parallel_size", "block_size":
		return 1 << 20
	}
	return 1 << 31
}

// misfit says why a value does not suit.
type misfit struct {
	code   code
	detail string
	words  []string // names or texts in the expression, one of which is at fault; nil: the whole
}

func misfitf(c code, parts ...string) *misfit {
	return &misfit{code: c, detail: strings.Join(parts, "")}
}

// convert checks a value against the setting. null leaves the setting to vLLM.
func (s *setting) convert(l *loader, v any) (*cell, *misfit) {
	c := &cell{v: v}
	if v == nil {
		return c, nil
	}
	switch s.kind {
	case kindText:
		return s.convertText(v)
	case kindWhole:
		n, f := asWhole(s.name, v, s.low, s.most())
		if f != nil {
			return nil, f
		}
		c.v, c.whole = n, &n
	case kindShare:
		x, ok := asFloat(v)
		if !ok || x <= 0 || x > 1 {
			return nil, misfitf(codeValue, s.name, " is a number above 0 and at most 1; this is ", describe(v), ".")
		}
		c.v, c.share = x, &x
	case kindBool:
		b, ok := v.(bool)
		if !ok {
			return nil, misfitf(codeValue, s.name, " is true or false; this is ", describe(v), ".")
		}
		c.flag = &b
	case kindSize:
		return s.convertSize(v)
	case kindModel:
		return l.convertModel(v)
	}
	return c, nil
}

func (s *setting) convertText(v any) (*cell, *misfit) {
	t, ok := v.(string)
	if !ok || t == "" || strings.ContainsRune(t, 0) {
		return nil, misfitf(codeValue, s.name, " is a string; this is ", describeEmpty(v), ".")
	}
	return &cell{v: t, text: &t}, nil
}

func describeEmpty(v any) string {
	if v == "" {
		return "an empty string"
	}
	return describe(v)
}

func (s *setting) convertSize(v any) (*cell, *misfit) {
	if t, ok := v.(string); ok {
		n, err := ParseSize(t)
		switch {
		case errors.Is(err, errNoUnit):
			return nil, misfitf(codeUnit, s.name, " is a number of bytes or a size with its unit, as in ", show(strings.TrimSpace(t)+"GiB"), ".")
		case err != nil:
			return nil, misfitf(codeValue, err.Error(), ".")
		}
		v = n
	}
	n, f := asWhole(s.name, v, 1, 1<<60)
	if f != nil {
		return nil, f
	}
	return &cell{v: n, whole: &n}, nil
}

// convertModel resolves the name of a model. A failure without a text was
// reported where the model block stands.
func (l *loader) convertModel(v any) (*cell, *misfit) {
	name, ok := v.(string)
	if !ok {
		return nil, misfitf(codeAxisValue, "A model is named by a string; this is ", describe(v), ".")
	}
	if strings.ContainsRune(name, 0) || name == "" {
		return nil, misfitf(codeUnknownModel, "A model has a name; this is ", show(name), ".")
	}
	ref, err := l.resolveModel(name)
	switch {
	case err == nil:
		return &cell{v: name, text: &name, model: ref}, nil
	case errors.Is(err, errBadModel):
		return nil, &misfit{}
	case errors.Is(err, errUnknownModel):
		return nil, misfitf(codeUnknownModel, capital(strings.TrimPrefix(err.Error(), errUnknownModel.Error()+": ")))
	}
	return nil, misfitf(codeModelFolder, sentence(capital(err.Error())))
}

// asWhole takes whole numbers between low and high.
func asWhole(name string, v any, low, high int64) (int64, *misfit) {
	switch x := v.(type) {
	case int64:
		if x < low || x > high {
			limit := "at least " + show(low)
			if x > high {
				limit = "at most " + show(high)
			}
			return 0, misfitf(codeValue, name, " is ", limit, "; this is ", show(x), ".")
		}
		return x, nil
	case float64:
		if math.Abs(x) > 1<<53 {
			return 0, misfitf(codeValue, name, " is at most ", show(high), "; this is ", show(x), ".")
		}
		return 0, misfitf(codeNotWhole, name, " must be a whole number; this is ", show(x), ". Use floor() or ceil().")
	case string:
		hint := ""
		if n := strings.TrimSpace(x); n != "" && strings.Trim(n, "0123456789") == "" {
			hint = " Write it without the quotes."
		}
		return 0, misfitf(codeValue, name, " is a number; this is ", describeEmpty(v), ".", hint)
	}
	return 0, misfitf(codeValue, name, " is a number; this is ", describe(v), ".")
}

func asFloat(v any) (float64, bool) {
	switch x := v.(type) {
	case int64:
		return float64(x), true
	case float64:
		return x, true
	}
	return 0, false
}

// asStrings takes a list of strings, none of them empty at its head.
func asStrings(name string, v any) ([]string, *misfit) {
	list, ok := v.([]any)
	if !ok {
		return nil, misfitf(codeValue, name, " is a list of strings; this is ", describe(v), ".")
	}
	out := make([]string, 0, len(list))
	for _, e := range list {
		s, ok := e.(string)
		if !ok || strings.ContainsRune(s, 0) {
			return nil, misfitf(codeValue, name, " is a list of strings; it holds ", describe(e), ".")
		}
		out = append(out, s)
	}
	return out, nil
}

// oddValue says what is unusual about a value that is passed on all the same.
func (s *setting) oddValue(c *cell) string {
	if c.text == nil || len(s.choices) == 0 || contains(s.choices, *c.text) {
		return ""
	}
	hint := didYouMean(*c.text, s.choices)
	if s.name == "dtype" {
		switch *c.text {
		case "fp16":
			hint = ` Did you mean "float16"?`
		case "bf16":
			hint = ` Did you mean "bfloat16"?`
		case "fp32":
			hint = ` Did you mean "float32"?`
		}
	}
	return "vLLM " + flagsVersion + " knows no " + s.name + " " + show(*c.text) + "." + hint + " It is passed on as it is."
}

package sweep

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"strconv"
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

// A setting is one field of Settings: this list alone says which there are.
// Sweep files, flags of `profile`, vLLM's command line, run.json, the columns of
// the table runs and the pages of docs/ follow from it and from the field's tags.
type setting struct {
	name    string // as files, JSON and tables have it; with dashes it is vLLM's flag
	kind    settingKind
	low     int64    // of kindWhole
	most    int64    // of kindWhole: far above what any engine takes; 0: mostLength
	preset  int64    // where it is not asked for; 0: it is left to vLLM
	choices []string // of kindText: what vLLM 0.29 takes; others are warned of
	request bool     // a request carries it: it is the benchmark's, not the engine's
	short   string   // its abbreviation in the field, on lines that name a point; "": its name
	slips   []string // what it is called elsewhere
	doc     string
	field   func(*Settings) any // a pointer to the field
}

// Bounds far below what overflows the arithmetic.
const (
	mostLength = 1 << 31
	mostCount  = 1 << 20
)

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

// settings lists all settings in the order of vLLM's command line as we write it
// and of docs/language.md. The presets are those that a profile always has, vLLM's own of
// `vllm bench latency`: they are asked for explicitly, so that a later default of
// vLLM does not change what a profile is.
func settings() []*setting {
	return []*setting{
		{name: "model", kind: kindModel, field: func(s *Settings) any { return &s.Model },
			doc: "a model block, a name of the catalogue, a folder with config.json, or a Hugging Face id"},
		{name: "input_len", short: "in", kind: kindWhole, low: 1, preset: 32, request: true,
			slips: []string{"input_length", "seq_len", "sequence_length", "prompt_len", "prompt_length"},
			doc:   "prompt tokens of a sequence", field: func(s *Settings) any { return &s.InputLen }},
		{name: "output_len", short: "out", kind: kindWhole, low: 1, preset: 128, request: true,
			slips: []string{"output_length", "max_new_tokens", "max_tokens"},
			doc:   "tokens to generate for a sequence", field: func(s *Settings) any { return &s.OutputLen }},
		{name: "batch_size", short: "bs", kind: kindWhole, low: 1, most: mostCount, preset: 8, request: true,
			slips: []string{"bs", "batch"},
			doc:   "sequences at once", field: func(s *Settings) any { return &s.BatchSize }},
		{name: "tensor_parallel_size", short: "tp", kind: kindWhole, low: 1, most: mostCount, preset: 1,
			slips: []string{"tp", "tp_size"},
			doc:   "GPUs that share each layer", field: func(s *Settings) any { return &s.TensorParallelSize }},
		{name: "pipeline_parallel_size", short: "pp", kind: kindWhole, low: 1, most: mostCount, preset: 1,
			slips: []string{"pp", "pp_size"},
			doc:   "groups of GPUs that share the layers out", field: func(s *Settings) any { return &s.PipelineParallelSize }},
		{name: "dtype", kind: kindText, choices: []string{"auto", "bfloat16", "float", "float16", "float32", "half"},
			doc: "of weights and activations", field: func(s *Settings) any { return &s.Dtype }},
		{name: "kv_cache_dtype", short: "kv", kind: kindText, choices: kvCacheDtypes(), slips: []string{"kv_dtype"},
			doc: "of the KV cache", field: func(s *Settings) any { return &s.KVCacheDtype }},
		{name: "quantization", short: "quant", kind: kindText, choices: quantizations(),
			doc: "vLLM's name of the method", field: func(s *Settings) any { return &s.Quantization }},
		{name: "load_format", kind: kindText,
			doc: "how weights are loaded; \"dummy\" needs no download", field: func(s *Settings) any { return &s.LoadFormat }},
		{name: "max_model_len", short: "len", kind: kindWhole, low: 1,
			doc: "longest sequence, prompt and output together", field: func(s *Settings) any { return &s.MaxModelLen }},
		{name: "max_num_seqs", short: "seqs", kind: kindWhole, low: 1, most: mostCount,
			doc: "most sequences in a step", field: func(s *Settings) any { return &s.MaxNumSeqs }},
		{name: "max_num_batched_tokens", short: "batched", kind: kindWhole, low: 1,
			doc: "most tokens in a step", field: func(s *Settings) any { return &s.MaxNumBatchedTokens }},
		{name: "block_size", kind: kindWhole, low: 1, most: mostCount,
			doc: "tokens of a block of the KV cache", field: func(s *Settings) any { return &s.BlockSize }},
		{name: "kv_cache_memory_bytes", kind: kindSize,
			doc:   "KV cache of a GPU: bytes, or a size as \"8GiB\"",
			field: func(s *Settings) any { return &s.KVCacheMemoryBytes }},
		{name: "num_iters_warmup", kind: kindWhole, low: 0, request: true,
			doc: "iterations before", field: func(s *Settings) any { return &s.NumItersWarmup }},
		{name: "num_iters", kind: kindWhole, low: 1, request: true,
			doc: "measured iterations", field: func(s *Settings) any { return &s.NumIters }},
		{name: "gpu_memory_utilization", short: "util", kind: kindShare,
			slips: []string{"gpu_memory_util", "gpu_mem_util", "utilization"},
			doc:   "vLLM's share of the GPU's memory, above 0 and at most 1",
			field: func(s *Settings) any { return &s.GPUMemoryUtilization }},
		{name: "enforce_eager", short: "eager", kind: kindBool,
			doc: "no CUDA graphs and no compiling", field: func(s *Settings) any { return &s.EnforceEager }},
		{name: "trust_remote_code", kind: kindBool,
			doc: "run the model's own code", field: func(s *Settings) any { return &s.TrustRemoteCode }},
	}
}

func kvCacheDtypes() []string {
	return []string{"auto", "bfloat16", "float16", "fp8", "fp8_ds_mla", "fp8_e4m3", "fp8_e5m2", "fp8_inc",
		"fp8_per_token_head", "int4_per_token_head", "int8_per_token_head", "nvfp4", "nvfp4_4over6",
		"turboquant_3bit_nc", "turboquant_4bit_nc", "turboquant_k3v4_nc", "turboquant_k8v4"}
}

// set puts a value in its field.
func (s *setting) set(to *Settings, c *cell) {
	if c.model != nil {
		to.Model, to.HFModelID = c.model.name, c.model.hfID
		return
	}
	switch f := s.field(to).(type) {
	case *int64:
		*f = *c.whole
	case **int64:
		*f = c.whole
	case **string:
		*f = c.text
	case **float64:
		*f = c.share
	case **bool:
		*f = c.flag
	}
}

// get is the value of the field; nil is left to vLLM.
func (s *setting) get(from *Settings) any {
	switch f := s.field(from).(type) {
	case *string:
		return *f
	case *int64:
		return *f
	case **int64:
		return deref(*f)
	case **string:
		return deref(*f)
	case **float64:
		return deref(*f)
	case **bool:
		return deref(*f)
	}
	return nil
}

// meantSetting is a sentence with the setting that a name may have been meant to
// be; "" if it is near none.
func meantSetting(name string) string {
	for _, s := range settings() {
		if slices.Contains(s.slips, strings.ToLower(name)) {
			return didYouMean(s.name, []string{s.name})
		}
	}
	return didYouMean(name, SettingNames())
}

// SettingNames lists the settings of a profile as files name them.
func SettingNames() []string {
	var names []string
	for _, s := range settings() {
		names = append(names, s.name)
	}
	return names
}

// A SettingInfo describes a setting to those who show it or take it as a flag.
type SettingInfo struct {
	Name string
	Doc  string
	Zero any // tells what values are given as: "", int64(0), 0.0, false
}

// SettingInfos describes all settings, in their order.
func SettingInfos() []SettingInfo {
	var list []SettingInfo
	for _, s := range settings() {
		zero := map[settingKind]any{kindWhole: int64(0), kindShare: 0.0, kindBool: false}[s.kind]
		if zero == nil {
			zero = ""
		}
		list = append(list, SettingInfo{Name: s.name, Doc: s.doc, Zero: zero})
	}
	return list
}

// Flags are what vLLM is told of the settings, each as one of its flags. engine
// leaves out what is the benchmark's: what one engine can vary from request to
// request.
func (s *Settings) Flags(engine bool) []Flag {
	var flags []Flag
	for _, st := range settings() {
		v := st.get(s)
		switch {
		case st.kind == kindModel:
			v = s.HFModelID
		case engine && st.request, v == nil, v == "":
			continue
		case st.name == "tensor_parallel_size" && s.TensorParallelSize < 1,
			st.name == "pipeline_parallel_size" && s.PipelineParallelSize <= 1:
			continue
		}
		flags = append(flags, Flag{st.name, v})
	}
	return flags
}

// Read takes over the settings that a command line has, by the names of vLLM's
// flags, and passes over a value that is none: what ran is only to be recorded.
func (s *Settings) Read(flags map[string]string) {
	for _, st := range settings() {
		text, given := flags[strings.ReplaceAll(st.name, "_", "-")]
		if !given {
			if _, no := flags["no-"+strings.ReplaceAll(st.name, "_", "-")]; no && st.kind == kindBool {
				st.set(s, &cell{flag: new(bool)})
			}
			continue
		}
		if c := st.parse(text); c != nil {
			st.set(s, c)
		}
	}
}

// parse is the value that a command line gives; nil where it is none.
func (s *setting) parse(text string) *cell {
	switch s.kind {
	case kindModel:
		return &cell{model: &modelRef{name: text, hfID: text}}
	case kindWhole, kindSize:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return &cell{whole: &n}
		}
	case kindShare:
		if x, err := strconv.ParseFloat(text, 64); err == nil {
			return &cell{share: &x}
		}
	case kindBool:
		yes := true
		return &cell{flag: &yes}
	case kindText:
		if text != "" {
			return &cell{text: &text}
		}
	}
	return nil
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
		n, f := asWhole(s.name, v, s.low, cmp.Or(s.most, mostLength))
		if f != nil {
			return nil, f
		}
		c.v, c.whole = n, &n
	case kindShare:
		x, ok := asFloat(v)
		if !ok || x <= 0 || x > 1 {
			hint := "."
			if x > 1 && x <= 100 {
				hint = ". Did you mean " + strconv.FormatFloat(x/100, 'g', -1, 64) + "?"
			}
			return nil, misfitf(codeValue, s.name, " is a number above 0 and at most 1; this is ", describe(v), hint)
		}
		c.v, c.share = x, &x
	case kindBool:
		b, f := asBool(s.name, v)
		if f != nil {
			return nil, f
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
			return nil, misfitf(codeUnit, s.name, " is a number of bytes or a size with its unit, as in ",
				show(strings.TrimSpace(t)+"GiB"), ".")
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
	if c.text == nil || len(s.choices) == 0 || slices.Contains(s.choices, *c.text) {
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

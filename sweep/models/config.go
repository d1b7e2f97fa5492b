package models

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxConfig bounds a config.json: the longest seen, with its lists of modules
// that stay unquantized, is under 1 MiB.
const maxConfig = 16 << 20

// FromDir reads the config.json of a model folder. A hf_quant_config.json
// beside it (ModelOptimizer's) adds the quantization. The architecture's id is
// the folder's name and its hf_model_id the folder as it was given.
func FromDir(dir string) (*Architecture, error) {
	path := filepath.Join(dir, "config.json")
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf(
			"model folder %s: %w; a model folder holds the config.json of its Hugging Face repository", dir, err)
	}
	defer f.Close() //nolint:errcheck // only read from
	a, err := FromConfig(f, filepath.Base(filepath.Clean(dir)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	a.HFModelID = dir
	if a.Quantization == nil {
		if a.Quantization, err = modelOptConfig(filepath.Join(dir, "hf_quant_config.json")); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// modelOptConfig reads ModelOptimizer's hf_quant_config.json; nil where there is none.
func modelOptConfig(path string) (*Quantization, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the caller's own folder
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("quantization of the model: %w", err)
	}
	var top map[string]any
	if err := json.Unmarshal(data, &top); err != nil {
		return nil, fmt.Errorf("%s is not JSON: %w", path, err)
	}
	return readQuantization(fields{m: sub(top, "quantization"), path: "quantization"}, "modelopt"), nil
}

// FromConfig reads a Hugging Face config.json. id names the result, which is
// also what its HFModelID says.
//
// Of a multimodal model the language part (text_config, llm_config, ...) is
// read as the architecture, and vision_config and audio_config become towers.
// A model type that the package does not know yields an architecture without
// Layout: its KV cache is computed where heads and layers are given, its
// weights are not. An error means that the text is no config.json at all or
// that a field has a value that cannot be.
func FromConfig(r io.Reader, id string) (*Architecture, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read config.json of %s: %w", id, err)
	}
	if len(data) > maxConfig {
		return nil, fmt.Errorf("config.json of %s is longer than %d MiB: not a model's configuration", id, maxConfig>>20)
	}
	var top map[string]any
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.UseNumber()
	if err := dec.Decode(&top); err != nil {
		return nil, fmt.Errorf("config.json of %s is not a JSON object: %w", id, err)
	}
	c := &config{top: fields{m: top}}
	c.text = c.top
	for _, name := range []string{"text_config", "llm_config", "language_config", "thinker_config"} {
		if inner := sub(top, name); inner != nil {
			c.text = fields{m: inner, path: name}
			if deeper := sub(inner, "text_config"); deeper != nil { // thinker_config.text_config
				c.text = fields{m: deeper, path: name + ".text_config"}
			}
			break
		}
	}
	a := &Architecture{ID: id, HFModelID: id, Source: "config.json"}
	c.read(a)
	if err := c.err(); err != nil {
		return nil, fmt.Errorf("config.json of %s: %w", id, err)
	}
	if err := a.Check(); err != nil {
		return nil, fmt.Errorf("config.json of %s: %w", id, err)
	}
	a.finish()
	return a, nil
}

// sub is the object m[name], nil where there is none.
func sub(m map[string]any, name string) map[string]any {
	inner, _ := m[name].(map[string]any)
	return inner
}

// A config is a config.json while it is read: the language model's object and
// the whole, which answers what the former leaves out.
type config struct {
	top, text fields
	problems  []error
}

func (c *config) err() error { return errors.Join(c.problems...) }

func (c *config) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf(format, args...))
}

// fields is one JSON object and where it stands.
type fields struct {
	m    map[string]any
	path string
}

func (f fields) at(name string) string {
	if f.path == "" {
		return name
	}
	return f.path + "." + name
}

// lookup finds the first of the names, in the language model's object first.
func (c *config) lookup(names []string) (any, string, bool) {
	for _, f := range []fields{c.text, c.top} {
		for _, name := range names {
			if v, ok := f.m[name]; ok && v != nil {
				return v, f.at(name), true
			}
		}
	}
	return nil, "", false
}

// largest is more than any field of a model's shape; it keeps every product in
// an int64.
const largest = 1 << 40

// int reads the first of the names as a whole number of at least 0, else def.
func (c *config) int(def int64, names ...string) int64 {
	v, where, ok := c.lookup(names)
	if !ok {
		return def
	}
	if list, isList := v.([]any); isList && len(list) > 0 { // one value a layer: all alike, or not for us
		v = list[0]
		for _, other := range list {
			if other != v {
				c.problem("%s differs from layer to layer; only equal layers are understood", where)
				return def
			}
		}
	}
	n, ok := v.(json.Number)
	if !ok {
		c.problem("%s is %T, expected a whole number", where, v)
		return def
	}
	i, err := n.Int64()
	if err != nil {
		f, ferr := n.Float64()
		if ferr != nil || f != float64(int64(f)) {
			c.problem("%s is %s, expected a whole number", where, n)
			return def
		}
		i = int64(f)
	}
	if i < 0 || i > largest {
		c.problem("%s is %d, expected 0 to %d", where, i, int64(largest))
		return def
	}
	return i
}

// float reads the first of the names as a number, else def.
func (c *config) float(def float64, names ...string) float64 {
	f, err := pick(c, json.Number(""), names).Float64()
	if err != nil {
		return def
	}
	return f
}

func (c *config) bool(def bool, names ...string) bool { return pick(c, def, names) }

func (c *config) string(def string, names ...string) string { return pick(c, def, names) }

// pick is the first of the names if it is a T, else def.
func pick[T any](c *config, def T, names []string) T {
	v, _, _ := c.lookup(names)
	if t, ok := v.(T); ok {
		return t
	}
	return def
}

func (c *config) strings(names ...string) []string {
	v, _, _ := c.lookup(names)
	return stringList(v)
}

func stringList(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, x := range list {
		if s, ok := x.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// read fills a from the config: what every model has, then what its family adds.
func (c *config) read(a *Architecture) {
	a.ModelType = c.string("", "model_type")
	for _, f := range []fields{c.text, c.top} {
		if names := stringList(f.m["architectures"]); len(names) > 0 {
			a.Architecture = names[0]
		}
	}
	d := defaultsOf(a.ModelType)
	a.HiddenSize = c.int(0, "hidden_size", "n_embd", "d_model")
	a.NumLayers = c.int(0, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
	a.NumHeads = c.int(d.heads, "num_attention_heads", "n_head", "n_heads", "num_heads")
	a.NumKVHeads = orElse(c.int(d.kvHeads,
		"num_key_value_heads", "num_kv_heads", "n_head_kv", "num_query_groups", "multi_query_group_num"), a.NumHeads)
	a.HeadDim = c.int(d.headDim, "head_dim", "attention_head_dim", "kv_channels")
	if a.HeadDim == 0 && a.NumHeads > 0 {
		a.HeadDim = a.HiddenSize / a.NumHeads
	}
	a.IntermediateSize = c.int(0, "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff")
	a.VocabSize = c.int(d.vocab, "vocab_size", "padded_vocab_size")
	a.MaxPosition = c.int(d.positions, "max_position_embeddings", "n_positions", "seq_length", "max_sequence_length")
	a.TiedEmbeddings = c.bool(d.tied, "tie_word_embeddings")
	a.NativeDtype = nativeDtype(c.string("", "dtype", "torch_dtype"))
	a.Family = familyName(a.ModelType)
	if c.known(a) {
		a.Layout = layoutDecoder
		c.rope(a)
	}
	c.window(a)
	c.towers(a)
	for _, f := range []fields{c.text, c.top} {
		if q := sub(f.m, "quantization_config"); q != nil {
			a.Quantization = readQuantization(fields{m: q, path: f.at("quantization_config")}, "")
		}
	}
}

func nativeDtype(s string) string {
	s = strings.TrimPrefix(s, "torch.")
	switch s {
	case "half":
		return "float16"
	case "float":
		return "float32"
	}
	return s
}

// rope sets what the rotary tables need: vLLM makes one table of max_position
// rows for each distinct rotary setting.
// Source: vllm/model_executor/layers/rotary_embedding/__init__.py (get_rope).
func (c *config) rope(a *Architecture) {
	if a.LearnedPositions > 0 || c.bool(false, "alibi") {
		return
	}
	r := &Rope{Dim: a.HeadDim, Length: a.MaxPosition}
	if f := c.float(1, "partial_rotary_factor", "rotary_pct", "rotary_emb_fraction"); f > 0 && f < 1 {
		r.Dim = int64(f * float64(a.HeadDim))
	}
	if a.MLA != nil {
		r.Dim = a.MLA.RopeDim
	}
	r.Dim = c.int(r.Dim, "rotary_dim")
	scaling := sub(c.text.m, "rope_scaling")
	if scaling == nil {
		scaling = sub(c.text.m, "rope_parameters")
	}
	f := config{text: fields{m: scaling, path: "rope_scaling"}}
	kind := f.string("", "rope_type", "type")
	if kind == "yarn" || kind == "dynamic" {
		if n := f.float(0, "original_max_position_embeddings"); n > 0 && kind == "yarn" {
			r.Length = int64(n * f.float(1, "factor"))
		}
		r.Float = kind == "yarn" && a.MLA != nil // the deepseek table is float32
	}
	switch a.ModelType {
	case "gemma3_text", "gemma3", "gemma4_text", "gemma4":
		r.Tables = 2 // one for the sliding, one for the full layers
	}
	a.Rope = r
}

// window sets the sliding window and the pattern of the layers.
func (c *config) window(a *Architecture) {
	if pattern := c.string("", "hybrid_override_pattern"); pattern != "" {
		a.LayerPattern = pattern
		return
	}
	if types := c.strings("layer_types"); len(types) > 0 {
		a.LayerPattern = patternOf(types)
	}
	switch n := c.int(0, "sliding_window", "attention_window_size"); {
	case n == 0 || !c.bool(true, "use_sliding_window"):
	case a.MaxPosition > 0 && n >= a.MaxPosition && a.LayerPattern == "":
		// wider than any sequence: inert
	default:
		a.SlidingWindow = n
	}
	if a.LayerPattern == "" {
		a.LayerPattern = c.defaultPattern(a)
	}
	if a.SlidingWindow == 0 {
		a.LayerPattern = strings.ReplaceAll(a.LayerPattern, "s", "f")
	}
	a.LayerPattern = shortest(a.LayerPattern)
	if a.LayerPattern == "f" {
		a.LayerPattern = ""
	}
	if !strings.Contains(a.LayerPattern, "s") {
		a.SlidingWindow = 0
	}
	a.ChunkSize = 0
	if strings.Contains(a.LayerPattern, "c") {
		a.ChunkSize = c.int(8192, "attention_chunk_size")
	}
}

// patternOf writes Hugging Face's layer_types as letters.
func patternOf(types []string) string {
	var b strings.Builder
	for _, t := range types {
		switch t {
		case "sliding_attention":
			b.WriteByte('s')
		case "chunked_attention":
			b.WriteByte('c')
		case "linear_attention":
			b.WriteByte('l')
		case "mamba", "mamba2":
			b.WriteByte('m')
		default:
			b.WriteByte('f')
		}
	}
	return b.String()
}

// shortest is the shortest text whose repetition, cut off at the end, is p.
func shortest(p string) string {
	for n := 1; n <= len(p)/2; n++ {
		ok := true
		for i := n; i < len(p) && ok; i++ {
			ok = p[i] == p[i-n]
		}
		if ok {
			return p[:n]
		}
	}
	return p
}

// readQuantization reads quantization_config (or ModelOptimizer's
// quantization). method is used where the object names none.
func readQuantization(f fields, method string) *Quantization {
	c := &config{text: f}
	q := &Quantization{
		Method:    c.string(method, "quant_method"),
		Format:    c.string("", "format", "quant_algo"),
		Bits:      c.int(0, "bits", "w_bit"),
		GroupSize: c.int(0, "group_size", "q_group_size"),
		ZeroPoint: c.bool(false, "zero_point"),
		Dynamic:   c.string("", "activation_scheme") == "dynamic",
		Block:     blockOf(f.m["weight_block_size"]),
		Keep:      c.strings("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers"),
		KVCache:   strings.ToLower(c.string("", "kv_cache_quant_algo")),
	}
	if c.bool(false, "load_in_4bit", "_load_in_4bit") {
		q.Method, q.Bits = "bitsandbytes", 4
	} else if c.bool(false, "load_in_8bit", "_load_in_8bit") {
		q.Method, q.Bits = "bitsandbytes", 8
	}
	q.compressedTensors(sub(f.m, "config_groups"))
	if q.Method == "" {
		return nil
	}
	return q
}

// blockOf reads the rows and columns that share a scale.
func blockOf(v any) []int64 {
	list, _ := v.([]any)
	var out []int64
	for _, x := range list {
		if n, ok := x.(json.Number); ok {
			i, _ := n.Int64()
			out = append(out, i)
		}
	}
	return out
}

// compressedTensors reads the first group of a compressed-tensors config: the
// scheme of its weights.
func (q *Quantization) compressedTensors(groups map[string]any) {
	for _, name := range []string{"group_0", "group_1", "FP8", "W4A16"} {
		g := sub(groups, name)
		if g == nil {
			continue
		}
		c := &config{text: fields{m: sub(g, "weights"), path: "config_groups." + name + ".weights"}}
		q.Bits = c.int(q.Bits, "num_bits")
		q.GroupSize = c.int(q.GroupSize, "group_size")
		q.ZeroPoint = !c.bool(true, "symmetric")
		if block := c.text.m["block_structure"]; block != nil {
			q.Block = blockOf(block)
		}
		if in := sub(g, "input_activations"); in != nil {
			q.Dynamic, _ = in["dynamic"].(bool)
		}
		if q.Format == "" {
			q.Format, _ = g["format"].(string)
		}
		return
	}
}

package models

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
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
// A model that the package does not understand yields an architecture without
// Layout, whose Unknown names what is not understood: its KV cache is computed
// where heads and layers are given, its weights are not. An error means that the text is no config.json at all or
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
	c := &config{top: fields{m: top}, read: map[string]bool{}}
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
	c.fill(a)
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
	read      map[string]bool // names that were asked for; nil: nobody wants to know
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
	if c.read != nil {
		for _, name := range names {
			c.read[name] = true
		}
	}
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

// numbers reads the first of the names as a list of whole numbers.
func (c *config) numbers(names ...string) []int64 {
	v, _, _ := c.lookup(names)
	return numberList(v)
}

func numberList(v any) []int64 {
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

// fill fills a from the config: what every model has, then what its family adds.
func (c *config) fill(a *Architecture) {
	a.ModelType = c.string("", "model_type")
	for _, f := range []fields{c.text, c.top} {
		if names := stringList(f.m["architectures"]); len(names) > 0 {
			a.Architecture = names[0]
		}
	}
	d := defaultsOf(a.ModelType)
	a.HiddenSize = c.int(0, "hidden_size", "n_embd", "d_model")
	a.NumLayers = c.int(c.listedLayers(), "num_hidden_layers", "n_layer", "n_layers", "num_layers")
	a.NumHeads = c.int(d.heads, "num_attention_heads", "n_head", "n_heads", "num_heads")
	a.NumKVHeads = orElse(c.int(d.kvHeads,
		"num_key_value_heads", "num_kv_heads", "n_head_kv", "num_query_groups", "multi_query_group_num"), a.NumHeads)
	a.HeadDim = c.int(d.headDim, "head_dim", "attention_head_dim", "kv_channels")
	if a.HeadDim == 0 && a.NumHeads > 0 {
		a.HeadDim = a.HiddenSize / a.NumHeads
	}
	a.IntermediateSize = c.int(0, "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff")
	a.VocabSize = c.int(d.vocab, "vocab_size", "padded_vocab_size")
	a.MaxPosition = c.int(d.positions, "max_position_embeddings", "n_positions", "seq_length", "max_sequence_length",
		"model_max_length")
	a.TiedEmbeddings = c.bool(d.tied, "tie_word_embeddings")
	a.NativeDtype = nativeDtype(c.string("", "dtype", "torch_dtype"))
	a.Family = familyName(a.ModelType)
	if a.Check() != nil {
		return // FromConfig reports it: what follows makes lists as long as the model is deep
	}
	a.Unknown = c.known(a)
	c.window(a)
	if a.Unknown == "" {
		a.Unknown = c.unread()
	}
	if a.Unknown == "" {
		a.Layout = layoutDecoder
		c.rope(a)
	}
	c.towers(a)
	for _, f := range []fields{c.text, c.top} {
		if q := sub(f.m, "quantization_config"); q != nil {
			a.Quantization = readQuantization(fields{m: q, path: f.at("quantization_config")}, "")
			if a.Quantization != nil {
				a.Quantization.Experts = c.string("", "expert_dtype")
			}
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

// structural are fields that give a model parts, in any type: one that is set
// and was not read for its type is a part that nothing counts.
func structural() []string {
	return []string{
		"hc_mult", "hc_count", "altup_num_inputs", "laurel_rank", "num_kv_shared_layers", "hidden_size_per_layer_input",
		"zero_expert_num", "moe_latent_size", "compress_rates", "compress_ratios", "index_n_heads", "index_kpool",
		"engram_layer_ids", "ple_layer_ids", "mamba_n_heads", "mamba_num_heads", "mamba_d_state", "linear_num_key_heads",
		"linear_num_heads", "linear_attn_config", "kv_lora_rank", "q_lora_rank", "o_lora_rank", "n_shared_experts",
		"num_shared_experts", "moe_num_shared_experts", "shared_intermediate_size", "shared_expert_intermediate_size",
		"n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts", "num_mem_blocks", "conv_L_cache",
		"num_attention_heads_per_layer", "gating", "attention_bias", "mlp_bias", "lm_head_bias", "swa_num_key_value_heads",
		"per_layer_config",
	}
}

// unread names the structural field that is set and was not read; "" where
// there is none.
func (c *config) unread() string {
	for _, name := range structural() {
		if c.read[name] {
			continue
		}
		switch v, where, ok := c.lookup([]string{name}); {
		case !ok || v == false || v == json.Number("0"):
		case strings.HasSuffix(name, "experts") && v == json.Number("1"): // an MLP
		default:
			if list, isList := v.([]any); !isList || len(list) > 0 {
				return fmt.Sprintf("%s of model type %q", where, c.string("", "model_type"))
			}
		}
	}
	return ""
}

// listedLayers is the number of layers of a config that names each instead of
// saying how many there are.
func (c *config) listedLayers() int64 {
	if n := len(c.strings("layers_block_type", "layer_types")); n > 0 {
		return int64(n)
	}
	return int64(len(c.string("", "hybrid_override_pattern")))
}

// rope sets what the rotary tables need: vLLM makes one table of max_position
// rows for each distinct rotary setting. A setting for each kind of layer is
// rope_parameters of sliding_attention and full_attention.
// Source: vllm/model_executor/layers/rotary_embedding/__init__.py (get_rope).
func (c *config) rope(a *Architecture) {
	if a.LearnedPositions > 0 || c.bool(false, "alibi") || c.noRope(a) {
		return
	}
	if x := a.Compressed; x != nil { // with and without compression: vllm/models/deepseek_v4/common/rope.py
		a.Rope = &Rope{Dim: x.RopeDim, Length: a.MaxPosition, Tables: 2, Float: true}
		return
	}
	sliding, full := c.ropeSettings(a)
	r := &Rope{}
	two := strings.ContainsAny(a.LayerPattern, "sS") && a.Family == "gemma" && a.ModelType != "gemma2"
	if !two && (a.SlidingWindow == 0 || reflect.DeepEqual(sliding, full)) {
		r.Dim, r.Length, r.Float = c.table(a, full, a.HeadDim)
		a.Rope = r
		return
	}
	r.Tables = 2
	r.Dim, r.Length, r.Float = c.table(a, sliding, a.HeadDim)
	_, head := a.heads('f')
	dim, length, _ := c.table(a, full, head)
	if dim != r.Dim {
		r.GlobalDim = dim
	}
	if length != r.Length {
		r.GlobalLength = length
	}
	a.Rope = r
}

// ropeSettings are those of the sliding and of the full layers.
func (c *config) ropeSettings(a *Architecture) (sliding, full map[string]any) {
	all := sub(c.text.m, "rope_parameters")
	sliding, full = sub(all, "sliding_attention"), sub(all, "full_attention")
	switch {
	case full == nil && sliding == nil:
		if all == nil {
			all = sub(c.text.m, "rope_scaling")
		}
		if strings.HasPrefix(a.ModelType, "gemma3") { // the factor is the full layers'
			return nil, all
		}
		return all, all
	case sliding == nil:
		return full, full
	case full == nil:
		return sliding, sliding
	}
	return sliding, full
}

// noRope says that a model's attention knows no positions.
func (c *config) noRope(a *Architecture) bool {
	switch a.ModelType {
	case "granitemoehybrid":
		return c.string("", "position_embedding_type") != "rope"
	case "kimi_linear", "glm5_next_text", "jamba", "nemotron_h", "mamba", "mamba2", "falcon_mamba":
		return true
	}
	return false
}

// table is the width and the rows of the rotary table of one setting, and
// whether it stays in float32.
func (c *config) table(a *Architecture, setting map[string]any, head int64) (dim, length int64, float bool) {
	f := config{text: fields{m: setting, path: "rope_parameters"}, top: c.text}
	kind := f.string("", "rope_type", "type")
	dim, length = head, a.MaxPosition
	part := f.float(1, "partial_rotary_factor", "rotary_pct", "rotary_emb_fraction")
	if part > 0 && part < 1 && kind != "proportional" {
		dim = int64(part * float64(head))
	}
	if a.MLA != nil {
		dim = a.MLA.RopeDim
	}
	dim = c.int(dim, "rotary_dim")
	switch factor := f.float(1, "factor"); kind {
	case "linear":
		length = int64(float64(length) * factor)
	case "yarn":
		if n := f.float(0, "original_max_position_embeddings"); n > 0 {
			length = int64(n * factor)
		}
		float = a.MLA != nil // the deepseek table is float32
	}
	if setting["mrope_section"] != nil { // videos count positions otherwise: mrope.py
		length *= 4
	}
	return dim, length, float
}

// window sets the sliding window and the pattern of the layers.
func (c *config) window(a *Architecture) {
	if pattern := c.string("", "hybrid_override_pattern"); pattern != "" {
		a.LayerPattern = pattern
		return
	}
	if types := c.strings("layers_block_type"); len(types) > 0 && a.ModelType == "nemotron_h" {
		a.LayerPattern = shortest(c.letters(a, types, map[string]byte{
			"mamba": 'M', "linear_attention": 'M', "attention": '*', "full_attention": '*', "moe": 'E', "mlp": '-',
		}))
		return
	}
	if types := c.strings("layer_types", "layers_block_type"); len(types) > 0 {
		a.LayerPattern = c.letters(a, types, a.layerLetters())
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
	a.LayerPattern = shortest(a.sharing(c.int(0, "num_kv_shared_layers")))
	if a.LayerPattern == "f" {
		a.LayerPattern = ""
	}
	if !strings.ContainsAny(a.LayerPattern, "sxyz") {
		a.SlidingWindow = 0
	}
	a.ChunkSize = 0
	if strings.Contains(a.LayerPattern, "c") {
		a.ChunkSize = c.int(8192, "attention_chunk_size")
	}
}

// sharing is the pattern of a whose last n layers read the cache of earlier ones.
func (a *Architecture) sharing(n int64) string {
	if n <= 0 || n >= a.NumLayers || a.LayerPattern == "" {
		return a.LayerPattern
	}
	all := strings.Repeat(a.LayerPattern, int(a.NumLayers)/len(a.LayerPattern)+1)[:a.NumLayers]
	return all[:a.NumLayers-n] + strings.ToUpper(all[a.NumLayers-n:])
}

// layerLetters is the letter of each of Hugging Face's layer types in a. The
// newest transformers call every state linear_attention.
func (a *Architecture) layerLetters() map[string]byte {
	state := byte('l')
	switch {
	case a.Mamba != nil:
		state = 'm'
	case a.ShortConv != nil:
		state = 'v'
	}
	indexed := byte('f')
	if a.Index != nil {
		indexed = 'i'
	}
	return map[string]byte{
		"full_attention": 'f', "attention": 'f', "indexed_attention": indexed, "minimax_m3_sparse": indexed,
		"compressed_sparse_attention": 'x', "heavily_compressed_attention": 'y',
		"sliding_attention": 's', "chunked_attention": 'c', "linear_attention": state,
		"mamba": 'm', "mamba2": 'm', "conv": 'v', "deepseek_sparse_attention": 'f',
	}
}

// letters writes a list of layer types as letters; one without a letter makes
// the model one that is not understood.
func (c *config) letters(a *Architecture, types []string, letter map[string]byte) string {
	var b strings.Builder
	for _, t := range types[:min(int64(len(types)), a.NumLayers)] {
		l, ok := letter[t]
		if !ok {
			l = 'f'
			a.Unknown = cmp.Or(a.Unknown, fmt.Sprintf("layers of type %q in model type %q", t, a.ModelType))
		}
		b.WriteByte(l)
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
		Block:     numberList(f.m["weight_block_size"]),
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
			q.Block = numberList(block)
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

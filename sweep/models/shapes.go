package models

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
)

// A shard says how tensor parallelism divides a module.
type shard uint8

const (
	replicated shard = iota // on every rank in full: norms, routers
	column                  // output dimension divided: up projections
	row                     // input dimension divided: down projections, bias in full
	vocabulary              // rows padded to 64, then divided: embedding, lm_head
	kvHeads                 // output divided by heads, at least one head a rank
)

// A part says which of a model's parts a module belongs to.
type part uint8

const (
	partEmbedding part = iota // first pipeline stage
	partLayer
	partHead // last pipeline stage: final norm and lm_head
	partTower
)

// A module is one weight matrix (or vector: In 1) of a layer, or of the model.
type module struct {
	name  string // as in vLLM, to match with what a checkpoint leaves unquantized
	out   int64
	in    int64
	bias  int64 // elements of a bias; divided as the output is
	count int64 // how many alike: experts
	split shard
	part  part
	// linear modules are what weight quantization converts.
	linear bool
	expert bool
	float  bool // float32 whatever the dtype (router corrections, A_log)
	units  int64
}

func (m module) params() int64 { return m.count * (m.out*m.in + m.bias) }

// derived is what finish computes once per architecture, so that estimates
// only add up.
type derived struct {
	kinds []byte // one letter a layer
	moe   []bool // one a layer: it has experts
	// classes are the distinct kinds of layers with their modules.
	classes []layerClass
	model   []module // embedding, final norm, lm_head, towers
	weights sync.Map // by weightKey: what load came to
}

// A layerClass is layers that are built alike.
type layerClass struct {
	kind    byte
	moe     bool
	count   int64
	modules []module
}

// kindsOfLayer are the letters of a layer pattern.
const kindsOfLayer = "fiscxyzFShlmvM*E-"

// hasAttention says that a layer of this kind has a KV cache.
func hasAttention(kind byte) bool { return strings.IndexByte("fisc*h", kind) >= 0 }

// attends says that a layer of this kind has attention, with a KV cache of its
// own or an earlier layer's.
func attends(kind byte) bool { return hasAttention(kind) || sharesCache(kind) || compresses(kind) }

// compresses says that a layer of this kind attends to compressed positions.
func compresses(kind byte) bool { return strings.IndexByte("xyz", kind) >= 0 }

// sharesCache says that a layer of this kind reads the cache of an earlier layer.
func sharesCache(kind byte) bool { return kind == 'F' || kind == 'S' }

// isGlobal says that a layer of this kind attends to all positions.
func isGlobal(kind byte) bool { return strings.IndexByte("fiF*hxy", kind) >= 0 }

// hasState says that a layer of this kind keeps one state a sequence.
func hasState(kind byte) bool { return strings.IndexByte("lmMvh", kind) >= 0 }

// heads is the number of KV heads of a layer's attention and their size.
func (a *Architecture) heads(kind byte) (kv, dim int64) {
	if a.GlobalHeadDim > 0 && isGlobal(kind) {
		return orElse(a.GlobalKVHeads, a.NumKVHeads), a.GlobalHeadDim
	}
	return a.NumKVHeads, a.HeadDim
}

// attentionOut is the width of the attention's output.
func (a *Architecture) attentionOut() int64 {
	if a.MLA != nil {
		return a.NumHeads * a.MLA.VHeadDim
	}
	return a.NumHeads * a.HeadDim
}

// stateLayers says that the model has layers with a state in place of a cache.
func (a *Architecture) stateLayers() bool { return strings.ContainsAny(a.LayerPattern, "lmMvh") }

// isMoE says whether layer i has experts.
func (a *Architecture) isMoE(i int64, kind byte) bool {
	if a.MoE == nil {
		return false
	}
	if kind == 'E' {
		return true
	}
	if kind == '-' || kind == 'M' || kind == '*' {
		return false
	}
	if p := a.MoE.Pattern; p != "" {
		return p[i%int64(len(p))] == 'e'
	}
	if i < a.MoE.FirstDense {
		return false
	}
	return a.MoE.Every <= 1 || (i+1)%a.MoE.Every == 0
}

// Check says what of an architecture cannot be, above all what would make the
// arithmetic on it take all memory or overflow. With and Lookup rest on it.
func (a *Architecture) Check() error {
	if strings.Trim(a.LayerPattern, kindsOfLayer) != "" {
		return fmt.Errorf("layer pattern %q has letters other than %s", a.LayerPattern,
			strings.Join(strings.Split(kindsOfLayer, ""), " "))
	}
	if a.MoE != nil && strings.Trim(a.MoE.Pattern, "de") != "" {
		return fmt.Errorf("moe.pattern %q has letters other than d e", a.MoE.Pattern)
	}
	if err := checkFields(reflect.ValueOf(*a), ""); err != nil {
		return err
	}
	if most := math.Exp2(50); a.volume() > most {
		return fmt.Errorf("its layers would have more than %.0f parameters, larger than any model's", most)
	}
	if a.Layout == "" {
		return nil
	}
	return a.checkParts()
}

// checkFields bounds every whole number of an architecture and of its parts.
func checkFields(v reflect.Value, path string) error {
	for i := range v.NumField() {
		field, name := v.Field(i), path+strings.Split(v.Type().Field(i).Tag.Get("json"), ",")[0]
		if field.Kind() == reflect.Pointer && !field.IsNil() {
			field = field.Elem()
		}
		switch {
		case !v.Type().Field(i).IsExported():
		case field.Kind() == reflect.Struct:
			if err := checkFields(field, name+"."); err != nil {
				return err
			}
		case field.Kind() == reflect.Int64:
			also, most := limitOf(name)
			switch n := field.Int(); {
			case n < 0:
				return fmt.Errorf("%s%s is %d, expected 0 or more", name, also, n)
			case n > most:
				return fmt.Errorf("%s%s is %d, expected at most %d", name, also, n, most)
			}
		}
	}
	return nil
}

// limitOf is what a config.json calls a field besides, and the largest value
// that any model could have.
func limitOf(name string) (also string, most int64) {
	switch name {
	case "num_layers":
		return " (num_hidden_layers)", 4096
	case "num_heads":
		return " (num_attention_heads)", 1 << 20
	case "num_kv_heads":
		return " (num_key_value_heads)", 1 << 20
	case "head_dim":
		return "", 1 << 20
	case "moe.experts":
		return "", 1 << 14
	case "vocab_size", "max_position_embeddings", "sliding_window", "chunk_size", "learned_positions", "rope.length",
		"rope.global_length":
		return "", 1 << 32
	case "intermediate_size":
		return "", 1 << 26
	}
	if strings.HasSuffix(name, "params") {
		return "", 1 << 50
	}
	return "", 1 << 24
}

// volume is about how many parameters the layers and embeddings have, from
// above and without overflow.
func (a *Architecture) volume() float64 {
	f := func(n int64) float64 { return float64(n) }
	wide := f(a.IntermediateSize) + 4*f(max(a.NumHeads, a.NumKVHeads, a.GlobalKVHeads))*f(max(a.HeadDim, a.GlobalHeadDim))
	square := 0.0
	if m := a.MoE; m != nil {
		wide += f(m.Experts)*f(m.IntermediateSize) + f(m.SharedIntermediate) + f(m.Experts)
	}
	if m := a.MLA; m != nil {
		wide += f(m.QLoraRank) + f(m.KVLoraRank) + f(m.RopeDim)
		dims := f(m.NopeDim) + f(m.RopeDim) + f(m.VHeadDim) + f(m.IndexDim)
		square += (f(m.QLoraRank) + f(m.KVLoraRank)) * f(max(a.NumHeads, m.IndexHeads)) * dims
	}
	if m := a.DeltaNet; m != nil {
		key, value := f(m.KeyHeads)*f(m.KeyDim), f(m.ValueHeads)*f(m.ValueDim)
		wide += 2*key + 3*value
		square += f(m.ConvKernel)*(2*key+value) + value*f(m.KeyDim)
	}
	if m := a.Mamba; m != nil {
		inner, group := f(m.Heads)*f(m.HeadDim), 2*f(m.Groups)*f(m.StateSize)
		wide += 3*inner + group
		square += f(m.ConvKernel)*(inner+group) + inner*(f(m.StateSize)+f(m.TimeStepRank))
	}
	if m := a.Compressed; m != nil {
		wide += f(m.QLoraRank) + f(m.OGroups)*f(m.OLoraRank) + 8*f(m.IndexDim) + f(m.IndexHeads)
		square += f(m.QLoraRank)*(f(m.IndexHeads)*f(m.IndexDim)+f(a.NumHeads)*f(a.HeadDim)) +
			f(m.OLoraRank)*f(a.NumHeads)*f(a.HeadDim) + (f(m.SparseRate)+f(m.HeavyRate))*4*f(a.HeadDim)
	}
	square += 2 * (2 + f(a.Streams)) * f(a.Streams) * f(a.Streams) * f(a.HiddenSize)
	if m := a.Index; m != nil {
		wide += f(m.Heads)*f(m.Dim) + f(m.Dim)
	}
	if m := a.ShortConv; m != nil {
		wide += 2*f(a.HiddenSize) + f(m.Kernel)
	}
	wide += f(a.PerLayerEmbedding)
	square += f(a.PerLayerEmbedding) * f(a.PerLayerVocab)
	rows := (f(a.VocabSize) + f(a.LearnedPositions)) * f(max(a.HiddenSize, a.EmbeddingSize))
	layers := f(max(a.NumLayers, 1)) + f(a.MTPLayers)
	return rows + layers*(3*wide*f(a.HiddenSize)+square)
}

// checkParts says which part a known architecture lacks.
func (a *Architecture) checkParts() error {
	switch {
	case a.NumKVHeads > a.NumHeads:
		return fmt.Errorf("num_key_value_heads is %d, more than num_attention_heads %d", a.NumKVHeads, a.NumHeads)
	case strings.ContainsAny(a.LayerPattern, "mMh") && a.Mamba == nil:
		return fmt.Errorf("layer pattern %q has Mamba layers, but no field describes them", a.LayerPattern)
	case strings.Contains(a.LayerPattern, "l") && a.DeltaNet == nil:
		return fmt.Errorf("layer pattern %q has linear-attention layers, but no field describes them", a.LayerPattern)
	case strings.Contains(a.LayerPattern, "v") && a.ShortConv == nil:
		return fmt.Errorf("layer pattern %q has short-convolution layers, but no field describes them", a.LayerPattern)
	case strings.ContainsAny(a.LayerPattern, "xyz") && (a.Compressed == nil || a.Compressed.OGroups == 0):
		return fmt.Errorf("layer pattern %q has layers of compressed attention, but no field describes them", a.LayerPattern)
	case strings.Contains(a.LayerPattern, "i") && a.Index == nil:
		return fmt.Errorf("layer pattern %q has layers with an index, but no field describes it", a.LayerPattern)
	case strings.Contains(a.LayerPattern, "E") && a.MoE == nil:
		return fmt.Errorf("layer pattern %q has layers of experts, but no field describes them", a.LayerPattern)
	}
	return nil
}

// finish derives modules and, where none is given, the parameter count.
func (a *Architecture) finish() {
	d := &derived{kinds: make([]byte, a.NumLayers), moe: make([]bool, a.NumLayers)}
	pattern := cmp.Or(a.LayerPattern, "f")
	for i := range d.kinds {
		kind := pattern[i%len(pattern)]
		d.kinds[i] = kind
		d.moe[i] = a.isMoE(int64(i), kind)
		c := d.class(kind, d.moe[i])
		if c == nil {
			d.classes = append(d.classes, layerClass{kind: kind, moe: d.moe[i]})
			c = &d.classes[len(d.classes)-1]
			if a.Layout != "" {
				c.modules = a.layerModules(kind, d.moe[i])
			}
		}
		c.count++
	}
	if a.Layout != "" {
		d.model = a.modelModules()
	}
	a.derived = d
	if a.Params == 0 && a.Layout != "" && a.towersKnown() && a.roughTowers() == 0 {
		a.Params = a.countParams()
	}
}

// towersKnown says that no encoder of unknown size hangs on the model.
func (a *Architecture) towersKnown() bool {
	return (a.Vision == nil || a.Vision.Params > 0) && (a.Audio == nil || a.Audio.Params > 0)
}

// roughTowers is the parameters of the encoders whose count is a rough one.
func (a *Architecture) roughTowers() (n int64) {
	for _, t := range []*Tower{a.Vision, a.Audio} {
		if t != nil && t.Rough {
			n += t.Params
		}
	}
	return n
}

// Params counts the parameters that a stays in memory with, module by module;
// ok is false where the model type is unknown or an encoder's size is.
//
// Formula: embedding V·e (once when tied) + per layer the projections, norms
// and experts + final norm + lm_head V·h + towers. Multi-token-prediction
// layers are not in it: vLLM loads them for speculative decoding only.
func Params(a *Architecture) (n int64, ok bool) {
	if a == nil {
		return 0, false
	}
	if a.Layout == "" || !a.towersKnown() || a.roughTowers() > 0 {
		return a.Params, a.Params > 0
	}
	return a.countParams(), true
}

func (a *Architecture) countParams() int64 {
	d := a.derived
	if d == nil {
		b := *a
		b.derived, b.Params = nil, 1
		b.finish()
		d = b.derived
	}
	var n int64
	for _, c := range d.classes {
		for _, m := range c.modules {
			n += c.count * m.params()
		}
	}
	for _, m := range d.model {
		n += m.params()
	}
	return n
}

// linear is a matrix that weight quantization converts, of out x in.
func linear(name string, out, in int64, split shard) module {
	return module{name: name, out: out, in: in, count: 1, split: split, linear: true}
}

// plain is a matrix, or with in 1 a vector, that stays in the model's dtype.
func plain(name string, out, in int64, split shard) module {
	return module{name: name, out: out, in: in, count: 1, split: split}
}

// biased is m with a bias, if it has one: an element for each row.
func (m module) biased(has bool) module {
	if has {
		m.bias = m.out
	}
	return m
}

func (m module) of(p part) module {
	m.part = p
	return m
}

// norm is one normalisation over n elements.
func (a *Architecture) norm(name string, n int64) module {
	return plain(name, n, 1, replicated).biased(a.Norm == "layer")
}

// modelModules are those outside the layers.
func (a *Architecture) modelModules() []module {
	embed := orElse(a.EmbeddingSize, a.HiddenSize)
	ms := []module{plain("embed_tokens", a.VocabSize, embed, vocabulary).of(partEmbedding)}
	if a.LearnedPositions > 0 {
		ms = append(ms, plain("embed_positions", a.LearnedPositions, a.HiddenSize, replicated).of(partEmbedding))
	}
	if n := a.PerLayerEmbedding; n > 0 { // vllm/model_executor/models/gemma4.py
		ms = append(ms, plain("embed_tokens_per_layer", a.PerLayerVocab, n*a.NumLayers, vocabulary).of(partEmbedding),
			plain("per_layer_model_projection", n*a.NumLayers, a.HiddenSize, column).of(partEmbedding),
			plain("per_layer_projection_norm", n, 1, replicated).of(partEmbedding))
	}
	if n := a.Streams; n > 0 {
		m := plain("hyper_connections", n*n*a.HiddenSize+n+1, 1, replicated).of(partHead)
		m.float = true
		ms = append(ms, m)
	}
	if a.EmbeddingSize > 0 {
		ms = append(ms, plain("project_in", a.HiddenSize, embed, replicated).of(partEmbedding),
			plain("project_out", embed, a.HiddenSize, replicated).of(partHead))
	}
	if !a.NoFinalNorm {
		ms = append(ms, a.norm("norm", a.HiddenSize).of(partHead))
	}
	if !a.TiedEmbeddings {
		ms = append(ms, plain("lm_head", a.VocabSize, embed, vocabulary).biased(a.LMHeadBias).of(partHead))
	}
	ms = append(ms, a.predictionModules()...)
	for name, t := range map[string]*Tower{"vision_tower": a.Vision, "audio_tower": a.Audio} {
		if t != nil && t.Params > 0 {
			m := plain(name, t.Params, 1, replicated).of(partTower)
			if t.Sharded {
				m.split = column
			}
			ms = append(ms, m)
		}
	}
	return ms
}

// layerModules are those of one layer, in the order in which vLLM loads them.
func (a *Architecture) layerModules(kind byte, moe bool) []module {
	ms := a.mixerModules(kind)
	inter := a.IntermediateSize
	if a.WideSharedMLP && sharesCache(kind) {
		inter *= 2
	}
	switch {
	case kind == 'M' || kind == '*':
	case moe:
		ms = append(ms, a.expertModules()...)
	default:
		ms = append(ms, a.mlpModules("mlp", a.HiddenSize, inter, a.MLPBias)...)
	}
	if n := a.Streams; n > 0 { // for attention and MLP each: vllm/models/deepseek_v4/nvidia/model.py
		m := plain("hyper_connections", 2*((2+n)*n*(n*a.HiddenSize+1)+3), 1, replicated)
		m.float = true
		ms = append(ms, m)
	}
	for i := range a.NormsPerLayer {
		ms = append(ms, a.norm(fmt.Sprintf("norm%d", i), a.HiddenSize))
	}
	if n := a.PerLayerEmbedding; n > 0 {
		ms = append(ms, linear("per_layer_input_gate", n, a.HiddenSize, replicated),
			linear("per_layer_projection", a.HiddenSize, n, replicated),
			a.norm("post_per_layer_input_norm", a.HiddenSize))
	}
	for i := range ms {
		ms[i].part = partLayer
	}
	return ms
}

// mixerModules are those that mix positions: attention, a state, or both.
func (a *Architecture) mixerModules(kind byte) []module {
	var ms []module
	switch {
	case compresses(kind):
		ms = a.compressedModules(kind)
	case attends(kind) && a.MLA != nil:
		ms = a.mlaModules()
	case attends(kind):
		ms = a.attentionModules(kind)
	}
	switch {
	case kind == 'l':
		ms = append(ms, a.deltaNetModules()...)
	case kind == 'v':
		ms = append(ms, a.shortConvModules()...)
	case hasState(kind):
		ms = append(ms, a.mambaModules()...)
	}
	return ms
}

// attentionModules: query H·d (twice with an output gate), key and value KV·d
// where the layer has a cache of its own, output H·d to hidden.
func (a *Architecture) attentionModules(kind byte) []module {
	heads, dim := a.heads(kind)
	out, kv := a.NumHeads*dim, heads*dim
	q := out
	if a.AttentionGate {
		q *= 2
	}
	ms := []module{linear("self_attn.q_proj", q, a.HiddenSize, column).biased(a.QKVBias)}
	normed := dim
	if !sharesCache(kind) {
		normed = 2 * dim
		ms = append(ms, linear("self_attn.k_proj", kv, a.HiddenSize, kvHeads).biased(a.QKVBias),
			linear("self_attn.v_proj", kv, a.HiddenSize, kvHeads).biased(a.QKVBias))
		ms[1].units, ms[2].units = heads, heads
	}
	ms = append(ms, linear("self_attn.o_proj", a.HiddenSize, out, row).biased(a.OutputBias))
	switch a.QKNorm {
	case "head":
		ms = append(ms, plain("self_attn.qk_norm", normed, 1, replicated))
	case "full":
		ms = append(ms, plain("self_attn.qk_norm", out+kv, 1, column))
	}
	if n := a.Index; kind == 'i' { // vllm/models/minimax_m3/nvidia/model.py
		ms = append(ms, linear("self_attn.index_q_proj", n.Heads*n.Dim, a.HiddenSize, kvHeads),
			linear("self_attn.index_k_proj", n.Dim, a.HiddenSize, replicated),
			plain("self_attn.index_norms", 2*n.Dim, 1, replicated))
		ms[len(ms)-3].units = n.Heads
	}
	if a.AttentionSinks {
		ms = append(ms, plain("self_attn.sinks", a.NumHeads, 1, column))
	}
	return ms
}

// mlaModules: the query through its low rank, the latent of keys and values
// (on every rank in full), the expansion of the latent, the output, and the
// sparse indexer where there is one.
// Source: vllm/model_executor/models/deepseek_v2.py.
func (a *Architecture) mlaModules() []module {
	x, h, hidden := a.MLA, a.NumHeads, a.HiddenSize
	qk := x.NopeDim + x.RopeDim
	ms := []module{linear("self_attn.q_proj", h*qk, hidden, column)}
	if x.QLoraRank > 0 {
		ms = []module{
			linear("self_attn.q_a_proj", x.QLoraRank, hidden, replicated),
			plain("self_attn.q_a_layernorm", x.QLoraRank, 1, replicated),
			linear("self_attn.q_b_proj", h*qk, x.QLoraRank, column),
		}
	}
	ms = append(ms,
		linear("self_attn.kv_a_proj_with_mqa", x.KVLoraRank+x.RopeDim, hidden, replicated),
		plain("self_attn.kv_a_layernorm", x.KVLoraRank, 1, replicated),
		linear("self_attn.kv_b_proj", h*(x.NopeDim+x.VHeadDim), x.KVLoraRank, column),
		linear("self_attn.o_proj", hidden, h*x.VHeadDim, row))
	if x.IndexHeads > 0 {
		ms = append(ms,
			linear("self_attn.indexer.wq_b", x.IndexHeads*x.IndexDim, x.QLoraRank, replicated),
			linear("self_attn.indexer.wk", x.IndexDim, hidden, replicated),
			plain("self_attn.indexer.k_norm", 2*x.IndexDim, 1, replicated),
			plain("self_attn.indexer.weights_proj", x.IndexHeads, hidden, replicated))
	}
	if x.IndexPool > 0 {
		ms = append(ms, plain("self_attn.indexer.index_kpool_compress", x.IndexDim, hidden+x.IndexPool, replicated))
	}
	return ms
}

// compressedModules: query through its low rank, one key and value, the output
// in groups through a low rank, the compressor of positions, and of a sparse
// layer the index with a compressor of its own.
// Source: vllm/models/deepseek_v4/{attention,compressor}.py.
func (a *Architecture) compressedModules(kind byte) []module {
	x, dim, wide := a.Compressed, a.HeadDim, a.NumHeads*a.HeadDim
	sinks := plain("attn.attn_sink", a.NumHeads, 1, column)
	sinks.float = true
	ms := []module{
		sinks,
		linear("attn.fused_wqa_wkv", x.QLoraRank+dim, a.HiddenSize, replicated),
		plain("attn.norms", x.QLoraRank+dim, 1, replicated),
		linear("attn.wq_b", wide, x.QLoraRank, column),
		linear("attn.wo_a", x.OGroups*x.OLoraRank, wide/x.OGroups, column),
		linear("attn.wo_b", a.HiddenSize, x.OGroups*x.OLoraRank, row),
	}
	switch kind {
	case 'x':
		ms = append(ms, a.compressor("attn.compressor", x.SparseRate, 2, dim)...)
		ms = append(ms, linear("attn.indexer.wq_b", x.IndexHeads*x.IndexDim, x.QLoraRank, replicated),
			plain("attn.indexer.weights_proj", x.IndexHeads, a.HiddenSize, replicated))
		ms = append(ms, a.compressor("attn.indexer.compressor", x.SparseRate, 2, x.IndexDim)...)
	case 'y':
		ms = append(ms, a.compressor("attn.compressor", x.HeavyRate, 1, dim)...)
	}
	return ms
}

// compressor makes one key of rate positions, where overlap is 2 of two
// neighbouring groups of them.
func (a *Architecture) compressor(name string, rate, overlap, dim int64) []module {
	positions := plain(name+".ape", rate, overlap*dim, replicated)
	positions.float = true
	return []module{
		positions,
		plain(name+".fused_wkv_wgate", 2*overlap*dim, a.HiddenSize, replicated),
		plain(name+".norm", dim, 1, replicated),
	}
}

// deltaNetModules: one projection to query, key, value and gate, one to the
// two scalars of each value head, the convolution, and the output.
// Source: vllm/model_executor/models/qwen3_next.py.
func (a *Architecture) deltaNetModules() []module {
	n := a.DeltaNet
	if n.Kind == "kda" {
		return a.kdaModules()
	}
	key, value := n.KeyHeads*n.KeyDim, n.ValueHeads*n.ValueDim
	return []module{
		linear("linear_attn.in_proj_qkvz", 2*key+2*value, a.HiddenSize, column),
		linear("linear_attn.in_proj_ba", 2*n.ValueHeads, a.HiddenSize, column),
		plain("linear_attn.conv1d", 2*key+value, n.ConvKernel, column),
		plain("linear_attn.a_log_dt_bias", 2*n.ValueHeads, 1, column),
		plain("linear_attn.norm", n.ValueDim, 1, replicated),
		linear("linear_attn.out_proj", a.HiddenSize, value, row),
	}
}

// kdaModules: Kimi Delta Attention has a decay a channel in place of one a
// head, through a projection of low rank, as its output gate is.
// Source: vllm/model_executor/layers/mamba/gdn/kimi_gdn_linear_attn.py.
func (a *Architecture) kdaModules() []module {
	n := a.DeltaNet
	wide := n.ValueHeads * n.ValueDim
	conv, scalars := plain("self_attn.conv1d", 3*wide, n.ConvKernel, column), plain("self_attn.a_log_dt_bias",
		wide+n.ValueHeads, 1, column)
	conv.float, scalars.float = true, true
	return []module{
		linear("self_attn.in_proj_qkvgfab", 3*wide+n.ValueHeads, a.HiddenSize, column),
		linear("self_attn.f_a_proj", n.ValueDim, a.HiddenSize, replicated),
		linear("self_attn.f_b_proj", wide, n.ValueDim, column),
		conv, scalars,
		linear("self_attn.g_a_proj", n.ValueDim, a.HiddenSize, replicated),
		linear("self_attn.g_b_proj", wide, n.ValueDim, column),
		plain("self_attn.o_norm", n.ValueDim, 1, replicated),
		linear("self_attn.o_proj", a.HiddenSize, wide, row),
	}
}

// shortConvModules: one projection to the convolution's input and two gates,
// the convolution, the output. Source: vllm/model_executor/layers/mamba/short_conv.py.
func (a *Architecture) shortConvModules() []module {
	n, h := a.ShortConv, a.HiddenSize
	return []module{
		plain("conv.conv1d", h, n.Kernel, column).biased(n.Bias),
		linear("conv.in_proj", 3*h, h, column).biased(n.Bias),
		linear("conv.out_proj", h, h, row).biased(n.Bias),
	}
}

// mambaModules: one projection to gate, input, B, C and time step, the
// convolution over input, B and C, three scalars a head, a gated norm, the output.
// Source: vllm/model_executor/layers/mamba/mamba_mixer2.py.
func (a *Architecture) mambaModules() []module {
	n := a.Mamba
	if n.TimeStepRank > 0 {
		return a.mamba1Modules()
	}
	inner, conv := n.Heads*n.HeadDim, n.Heads*n.HeadDim+2*n.Groups*n.StateSize
	ms := []module{
		linear("mixer.in_proj", inner+conv+n.Heads, a.HiddenSize, column).biased(n.ProjBias),
		plain("mixer.conv1d", conv, n.ConvKernel, column).biased(n.ConvBias),
		plain("mixer.scalars", 3*n.Heads, 1, column),
	}
	if !n.NoNorm {
		ms = append(ms, plain("mixer.norm", inner, 1, column))
	}
	return append(ms, linear("mixer.out_proj", a.HiddenSize, inner, row).biased(n.ProjBias))
}

// mamba1Modules: one projection to input and gate, the convolution, one to the
// time step's low rank, B and C, the time step's own, A in float32 and D, the
// output. None is quantized. Source: vllm/model_executor/layers/mamba/mamba_mixer.py.
func (a *Architecture) mamba1Modules() []module {
	n := a.Mamba
	inner, mixed := n.Heads*n.HeadDim, n.TimeStepRank+2*n.StateSize
	decay := plain("mixer.A", inner, n.StateSize, column)
	decay.float = true
	ms := []module{
		plain("mixer.conv1d", inner, n.ConvKernel, column).biased(n.ConvBias),
		plain("mixer.in_proj", 2*inner, a.HiddenSize, column).biased(n.ProjBias),
		plain("mixer.x_proj", mixed, inner, row),
		plain("mixer.dt_proj", inner, n.TimeStepRank, column).biased(true),
		decay,
		plain("mixer.D", inner, 1, column),
		plain("mixer.out_proj", a.HiddenSize, inner, row).biased(n.ProjBias),
	}
	if n.InnerNorms {
		ms = append(ms, plain("mixer.norms", mixed, 1, replicated))
	}
	return ms
}

// mlpModules: gate and up (or up alone) and down, of a hidden state of width hidden.
func (a *Architecture) mlpModules(name string, hidden, inter int64, bias bool) []module {
	ms := []module{
		linear(name+".gate_proj", inter, hidden, column).biased(bias),
		linear(name+".up_proj", inter, hidden, column).biased(bias),
		linear(name+".down_proj", hidden, inter, row).biased(bias),
	}
	if a.MLP != "gated" {
		return ms[1:]
	}
	return ms
}

// expertModules: the router, all experts (not only the active ones), the
// shared experts, and the dense MLP where the layer has it too.
func (a *Architecture) expertModules() []module {
	e := a.MoE
	rows, hidden := e.Experts+e.ZeroExperts, orElse(e.LatentSize, a.HiddenSize)
	ms := []module{plain("mlp.gate", rows, a.HiddenSize, replicated).biased(e.RouterBias)}
	if e.RouterCorrection {
		m := plain("mlp.gate.e_score_correction_bias", rows, 1, replicated)
		m.float = true
		ms = append(ms, m)
	}
	for _, m := range a.mlpModules("mlp.experts", hidden, e.IntermediateSize, e.ExpertBias) {
		m.expert, m.count = true, e.Experts
		ms = append(ms, m)
	}
	if e.LatentSize > 0 {
		ms = append(ms, linear("mlp.fc1_latent_proj", e.LatentSize, a.HiddenSize, replicated),
			linear("mlp.fc2_latent_proj", a.HiddenSize, e.LatentSize, replicated))
	}
	if e.SharedIntermediate > 0 {
		ms = append(ms, a.mlpModules("mlp.shared_experts", a.HiddenSize, e.SharedIntermediate, false)...)
	}
	if e.SharedGate {
		ms = append(ms, plain("mlp.shared_expert_gate", 1, a.HiddenSize, replicated))
	}
	if e.DenseToo {
		ms = append(ms, a.mlpModules("mlp", a.HiddenSize, a.IntermediateSize, a.MLPBias)...)
	}
	if e.RouterScale {
		ms = append(ms, plain("router.scale", a.HiddenSize+e.Experts, 1, replicated))
	}
	for i := range e.Norms {
		ms = append(ms, a.norm(fmt.Sprintf("mlp.norm%d", i), a.HiddenSize))
	}
	return ms
}

package models

import (
	"fmt"
	"math"
	"reflect"
	"strings"
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
	cache   *weightCache
}

// A layerClass is layers that are built alike.
type layerClass struct {
	kind    byte
	moe     bool
	count   int64
	modules []module
}

// hasAttention says that a layer of this kind has a KV cache.
func hasAttention(kind byte) bool { return kind == 'f' || kind == 's' || kind == 'c' || kind == '*' }

// hasState says that a layer of this kind keeps one state a sequence.
func hasState(kind byte) bool { return kind == 'l' || kind == 'm' || kind == 'M' }

// attentionOut is the width of the attention's output.
func (a *Architecture) attentionOut() int64 {
	if a.MLA != nil {
		return a.NumHeads * a.MLA.VHeadDim
	}
	return a.NumHeads * a.HeadDim
}

// stateLayers says that the model has layers with a state in place of a cache.
func (a *Architecture) stateLayers() bool { return strings.ContainsAny(a.LayerPattern, "lmM") }

// Layers expands LayerPattern: one letter a layer.
func (a *Architecture) Layers() []byte {
	p := a.LayerPattern
	if p == "" {
		p = "f"
	}
	kinds := make([]byte, a.NumLayers)
	for i := range kinds {
		kinds[i] = p[i%len(p)]
	}
	return kinds
}

// isMoE says whether layer i has experts.
func (a *Architecture) isMoE(i int64, kind byte) bool {
	if a.MoE == nil {
		return false
	}
	if kind == 'E' {
		return true
	}
	if kind == '-' || kind == 'M' || kind == '*' || i < a.MoE.FirstDense {
		return false
	}
	return a.MoE.Every <= 1 || (i+1)%a.MoE.Every == 0
}

// Check says what of an architecture cannot be, above all what would make the
// arithmetic on it take all memory or overflow. With and Lookup rest on it.
func (a *Architecture) Check() error {
	const (
		mostLayers = 4096
		mostWidth  = 1 << 24
		mostRows   = 1 << 32
	)
	for _, c := range []struct { // as config.json calls them as well
		name string
		n    int64
		most int64
	}{
		{"num_layers (num_hidden_layers)", a.NumLayers, mostLayers},
		{"hidden_size", a.HiddenSize, mostWidth},
		{"intermediate_size", a.IntermediateSize, 4 * mostWidth},
		{"vocab_size", a.VocabSize, mostRows},
		{"num_heads (num_attention_heads)", a.NumHeads, 1 << 20},
		{"num_kv_heads (num_key_value_heads)", a.NumKVHeads, 1 << 20},
		{"head_dim", a.HeadDim, 1 << 20},
	} {
		if c.n < 0 {
			return fmt.Errorf("%s is %d, expected 0 or more", c.name, c.n)
		}
		if c.n > c.most {
			return fmt.Errorf("%s is %d, expected at most %d", c.name, c.n, c.most)
		}
	}
	if strings.Trim(a.LayerPattern, "fsclmM*E-") != "" {
		return fmt.Errorf("layer pattern %q has letters other than f s c l m M * E -", a.LayerPattern)
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
			if n, most := field.Int(), mostOf(name); n < 0 || n > most {
				return fmt.Errorf("%s is %d, expected 0 to %d", name, n, most)
			}
		}
	}
	return nil
}

// mostOf is the largest value of a field that any model could have.
func mostOf(name string) int64 {
	switch name {
	case "moe.experts":
		return 1 << 14
	case "vocab_size", "max_position_embeddings", "sliding_window", "chunk_size", "learned_positions", "rope.length":
		return 1 << 32
	case "intermediate_size":
		return 1 << 26
	}
	if strings.HasSuffix(name, "params") {
		return 1 << 50
	}
	return 1 << 24
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
		square += (f(m.QLoraRank) + f(m.KVLoraRank)) * f(max(a.NumHeads, m.IndexHeads)) * (f(m.NopeDim) + f(m.RopeDim) + f(m.VHeadDim) + f(m.IndexDim))
	}
	if m := a.DeltaNet; m != nil {
		wide += 2*f(m.KeyHeads)*f(m.KeyDim) + 3*f(m.ValueHeads)*f(m.ValueDim)
		square += f(m.ConvKernel)*(2*f(m.KeyHeads)*f(m.KeyDim)+f(m.ValueHeads)*f(m.ValueDim)) + f(m.ValueHeads)*f(m.ValueDim)*f(m.KeyDim)
	}
	if m := a.Mamba; m != nil {
		wide += 3*f(m.Heads)*f(m.HeadDim) + 2*f(m.Groups)*f(m.StateSize)
		square += f(m.ConvKernel)*(f(m.Heads)*f(m.HeadDim)+2*f(m.Groups)*f(m.StateSize)) + f(m.Heads)*f(m.HeadDim)*f(m.StateSize)
	}
	rows := (f(a.VocabSize) + f(a.LearnedPositions)) * f(max(a.HiddenSize, a.EmbeddingSize))
	layers := f(max(a.NumLayers, 1)) + f(a.MTPLayers)
	return rows + layers*(3*wide*f(a.HiddenSize)+square)
}

// checkParts says which part a known architecture lacks.
func (a *Architecture) checkParts() error {
	switch {
	case a.NumKVHeads > a.NumHeads:
		return fmt.Errorf("num_key_value_heads is %d, more than num_attention_heads %d", a.NumKVHeads, a.NumHeads)
	case strings.ContainsAny(a.LayerPattern, "mM") && a.Mamba == nil:
		return fmt.Errorf("layer pattern %q has Mamba layers, but no field describes them", a.LayerPattern)
	case strings.Contains(a.LayerPattern, "l") && a.DeltaNet == nil:
		return fmt.Errorf("layer pattern %q has linear-attention layers, but no field describes them", a.LayerPattern)
	}
	return nil
}

// finish derives modules and, where none is given, the parameter count.
func (a *Architecture) finish() {
	d := &derived{kinds: a.Layers(), cache: &weightCache{}}
	d.moe = make([]bool, len(d.kinds))
	for i, kind := range d.kinds {
		d.moe[i] = a.isMoE(int64(i), kind)
		found := false
		for j := range d.classes {
			if d.classes[j].kind == kind && d.classes[j].moe == d.moe[i] {
				d.classes[j].count++
				found = true
			}
		}
		if !found {
			c := layerClass{kind: kind, moe: d.moe[i], count: 1}
			if a.Layout != "" {
				c.modules = a.layerModules(kind, d.moe[i])
			}
			d.classes = append(d.classes, c)
		}
	}
	if a.Layout != "" {
		d.model = a.modelModules()
	}
	a.derived = d
	if a.Params == 0 && a.Layout != "" && a.towersKnown() {
		a.Params = a.countParams()
	}
}

// towersKnown says that no encoder of unknown size hangs on the model.
func (a *Architecture) towersKnown() bool {
	return (a.Vision == nil || a.Vision.Params > 0) && (a.Audio == nil || a.Audio.Params > 0)
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
	if a.Layout == "" || !a.towersKnown() {
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

// norm is one normalisation over n elements.
func (a *Architecture) norm(name string, n int64) module {
	m := module{name: name, out: n, in: 1, count: 1}
	if a.Norm == "layer" {
		m.bias = n
	}
	return m
}

// modelModules are those outside the layers.
func (a *Architecture) modelModules() []module {
	embed := a.HiddenSize
	if a.EmbeddingSize > 0 {
		embed = a.EmbeddingSize
	}
	ms := []module{{name: "embed_tokens", out: a.VocabSize, in: embed, count: 1, split: vocabulary, part: partEmbedding}}
	if a.LearnedPositions > 0 {
		ms = append(ms, module{name: "embed_positions", out: a.LearnedPositions, in: a.HiddenSize, count: 1, part: partEmbedding})
	}
	if a.EmbeddingSize > 0 {
		ms = append(ms,
			module{name: "project_in", out: a.HiddenSize, in: embed, count: 1, part: partEmbedding},
			module{name: "project_out", out: embed, in: a.HiddenSize, count: 1, part: partHead})
	}
	if !a.NoFinalNorm {
		n := a.norm("norm", a.HiddenSize)
		n.part = partHead
		ms = append(ms, n)
	}
	if !a.TiedEmbeddings {
		head := module{name: "lm_head", out: a.VocabSize, in: embed, count: 1, split: vocabulary, part: partHead}
		if a.LMHeadBias {
			head.bias = a.VocabSize
		}
		ms = append(ms, head)
	}
	for name, t := range map[string]*Tower{"vision_tower": a.Vision, "audio_tower": a.Audio} {
		if t != nil && t.Params > 0 {
			m := module{name: name, out: t.Params, in: 1, count: 1, part: partTower}
			if t.Sharded {
				m.split = column
			}
			ms = append(ms, m)
		}
	}
	return ms
}

// layerModules are those of one layer.
func (a *Architecture) layerModules(kind byte, moe bool) []module {
	var ms []module
	for i := range a.NormsPerLayer {
		ms = append(ms, a.norm(fmt.Sprintf("norm%d", i), a.HiddenSize))
	}
	switch {
	case hasAttention(kind) && a.MLA != nil:
		ms = append(ms, a.mlaModules()...)
	case hasAttention(kind):
		ms = append(ms, a.attentionModules()...)
	case kind == 'l':
		ms = append(ms, a.deltaNetModules()...)
	case kind == 'm' || kind == 'M':
		ms = append(ms, a.mambaModules()...)
	}
	switch {
	case kind == 'M' || kind == '*':
	case moe:
		ms = append(ms, a.expertModules()...)
	default:
		ms = append(ms, a.mlpModules("mlp", a.IntermediateSize, 1, a.MLPBias)...)
	}
	for i := range ms {
		ms[i].part = partLayer
	}
	return ms
}

func biasOf(has bool, n int64) int64 {
	if has {
		return n
	}
	return 0
}

// attentionModules: query H·d (twice with an output gate), key and value KV·d,
// output H·d to hidden.
func (a *Architecture) attentionModules() []module {
	q, kv := a.NumHeads*a.HeadDim, a.NumKVHeads*a.HeadDim
	if a.AttentionGate {
		q *= 2
	}
	ms := []module{
		{name: "self_attn.q_proj", out: q, in: a.HiddenSize, bias: biasOf(a.QKVBias, q), count: 1, split: column, linear: true},
		{name: "self_attn.k_proj", out: kv, in: a.HiddenSize, bias: biasOf(a.QKVBias, kv), count: 1, split: kvHeads, units: a.NumKVHeads, linear: true},
		{name: "self_attn.v_proj", out: kv, in: a.HiddenSize, bias: biasOf(a.QKVBias, kv), count: 1, split: kvHeads, units: a.NumKVHeads, linear: true},
		{name: "self_attn.o_proj", out: a.HiddenSize, in: a.NumHeads * a.HeadDim, bias: biasOf(a.OutputBias, a.HiddenSize), count: 1, split: row, linear: true},
	}
	switch a.QKNorm {
	case "head":
		ms = append(ms, module{name: "self_attn.qk_norm", out: 2 * a.HeadDim, in: 1, count: 1})
	case "full":
		ms = append(ms, module{name: "self_attn.qk_norm", out: a.NumHeads*a.HeadDim + kv, in: 1, count: 1, split: column})
	}
	if a.AttentionSinks {
		ms = append(ms, module{name: "self_attn.sinks", out: a.NumHeads, in: 1, count: 1, split: column})
	}
	return ms
}

// mlaModules: the query through its low rank, the latent of keys and values
// (on every rank in full), the expansion of the latent, the output, and the
// sparse indexer where there is one.
// Source: vllm/model_executor/models/deepseek_v2.py.
func (a *Architecture) mlaModules() []module {
	x, h := a.MLA, a.NumHeads
	qk := x.NopeDim + x.RopeDim
	var ms []module
	if x.QLoraRank > 0 {
		ms = append(ms,
			module{name: "self_attn.q_a_proj", out: x.QLoraRank, in: a.HiddenSize, count: 1, linear: true},
			module{name: "self_attn.q_a_layernorm", out: x.QLoraRank, in: 1, count: 1},
			module{name: "self_attn.q_b_proj", out: h * qk, in: x.QLoraRank, count: 1, split: column, linear: true})
	} else {
		ms = append(ms, module{name: "self_attn.q_proj", out: h * qk, in: a.HiddenSize, count: 1, split: column, linear: true})
	}
	ms = append(ms,
		module{name: "self_attn.kv_a_proj_with_mqa", out: x.KVLoraRank + x.RopeDim, in: a.HiddenSize, count: 1, linear: true},
		module{name: "self_attn.kv_a_layernorm", out: x.KVLoraRank, in: 1, count: 1},
		module{name: "self_attn.kv_b_proj", out: h * (x.NopeDim + x.VHeadDim), in: x.KVLoraRank, count: 1, split: column, linear: true},
		module{name: "self_attn.o_proj", out: a.HiddenSize, in: h * x.VHeadDim, count: 1, split: row, linear: true})
	if x.IndexHeads > 0 {
		ms = append(ms,
			module{name: "self_attn.indexer.wq_b", out: x.IndexHeads * x.IndexDim, in: x.QLoraRank, count: 1, linear: true},
			module{name: "self_attn.indexer.wk", out: x.IndexDim, in: a.HiddenSize, count: 1, linear: true},
			module{name: "self_attn.indexer.k_norm", out: 2 * x.IndexDim, in: 1, count: 1},
			module{name: "self_attn.indexer.weights_proj", out: x.IndexHeads, in: a.HiddenSize, count: 1})
	}
	return ms
}

// deltaNetModules: one projection to query, key, value and gate, one to the
// two scalars of each value head, the convolution, and the output.
// Source: vllm/model_executor/models/qwen3_next.py.
func (a *Architecture) deltaNetModules() []module {
	n := a.DeltaNet
	key, value := n.KeyHeads*n.KeyDim, n.ValueHeads*n.ValueDim
	return []module{
		{name: "linear_attn.in_proj_qkvz", out: 2*key + 2*value, in: a.HiddenSize, count: 1, split: column, linear: true},
		{name: "linear_attn.in_proj_ba", out: 2 * n.ValueHeads, in: a.HiddenSize, count: 1, split: column, linear: true},
		{name: "linear_attn.conv1d", out: 2*key + value, in: n.ConvKernel, count: 1, split: column},
		{name: "linear_attn.a_log_dt_bias", out: 2 * n.ValueHeads, in: 1, count: 1, split: column},
		{name: "linear_attn.norm", out: n.ValueDim, in: 1, count: 1},
		{name: "linear_attn.out_proj", out: a.HiddenSize, in: value, count: 1, split: row, linear: true},
	}
}

// mambaModules: one projection to gate, input, B, C and time step, the
// convolution over input, B and C, three scalars a head, a gated norm, the output.
// Source: vllm/model_executor/layers/mamba/mamba_mixer2.py.
func (a *Architecture) mambaModules() []module {
	n := a.Mamba
	inner, conv := n.Heads*n.HeadDim, n.Heads*n.HeadDim+2*n.Groups*n.StateSize
	in := inner + conv + n.Heads
	return []module{
		{name: "mixer.in_proj", out: in, in: a.HiddenSize, bias: biasOf(n.ProjBias, in), count: 1, split: column, linear: true},
		{name: "mixer.conv1d", out: conv, in: n.ConvKernel, bias: biasOf(n.ConvBias, conv), count: 1, split: column},
		{name: "mixer.scalars", out: 3 * n.Heads, in: 1, count: 1, split: column},
		{name: "mixer.norm", out: inner, in: 1, count: 1, split: column},
		{name: "mixer.out_proj", out: a.HiddenSize, in: inner, bias: biasOf(n.ProjBias, a.HiddenSize), count: 1, split: row, linear: true},
	}
}

// mlpModules: gate and up (or up alone) and down.
func (a *Architecture) mlpModules(name string, inter, count int64, bias bool) []module {
	up := module{name: name + ".up_proj", out: inter, in: a.HiddenSize, bias: biasOf(bias, inter), count: count, split: column, linear: true}
	down := module{name: name + ".down_proj", out: a.HiddenSize, in: inter, bias: biasOf(bias, a.HiddenSize), count: count, split: row, linear: true}
	if a.MLP != "gated" {
		return []module{up, down}
	}
	gate := up
	gate.name = name + ".gate_proj"
	return []module{gate, up, down}
}

// expertModules: the router, all experts (not only the active ones), the
// shared experts, and the dense MLP where the layer has it too.
func (a *Architecture) expertModules() []module {
	e := a.MoE
	router := module{name: "mlp.gate", out: e.Experts, in: a.HiddenSize, bias: biasOf(e.RouterBias, e.Experts), count: 1}
	ms := []module{router}
	if e.RouterCorrection {
		ms = append(ms, module{name: "mlp.gate.e_score_correction_bias", out: e.Experts, in: 1, count: 1, float: true})
	}
	experts := a.mlpModules("mlp.experts", e.IntermediateSize, e.Experts, e.ExpertBias)
	for i := range experts {
		experts[i].expert = true
	}
	ms = append(ms, experts...)
	if e.SharedIntermediate > 0 {
		ms = append(ms, a.mlpModules("mlp.shared_experts", e.SharedIntermediate, 1, false)...)
	}
	if e.SharedGate {
		ms = append(ms, module{name: "mlp.shared_expert_gate", out: 1, in: a.HiddenSize, count: 1})
	}
	if e.DenseToo {
		ms = append(ms, a.mlpModules("mlp", a.IntermediateSize, 1, a.MLPBias)...)
	}
	return ms
}

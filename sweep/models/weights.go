package models

import (
	"fmt"
	"strings"
)

func ceilDiv(a, b int64) int64 {
	if b <= 0 {
		return 0
	}
	return (a + b - 1) / b
}

// keeps says that the checkpoint leaves module m in the model's dtype: one of
// the names that it lists is m's name or an ending or a part of its path.
func (q *Quantization) keeps(m module) bool {
	for _, k := range q.Keep {
		k = strings.TrimSuffix(strings.TrimPrefix(k, "re:"), "*")
		if i := strings.LastIndex(k, "layers."); i >= 0 { // model.layers.*.self_attn
			_, rest, ok := strings.Cut(k[i+len("layers."):], ".")
			if !ok {
				continue // whole layers: not a rule for all
			}
			k = rest
		}
		k = strings.TrimPrefix(k, "model.")
		if k != "" && (m.name == k || strings.HasPrefix(m.name, k+".") || strings.HasSuffix(m.name, "."+k)) {
			return true
		}
	}
	return false
}

// A scheme says what a converted matrix costs: bits of a weight, and what its
// scales and zero points add. The zero scheme converts nothing.
type scheme struct {
	method string
	bits   int64 // of a weight; 0: nothing is converted
	group  int64 // input dimensions that share a scale
	rows   int64 // rows that share one, in blocks; 0: one row
	scale  int64 // bytes of a scale
	zero   bool  // 4-bit zero point for each scale
	index  bool  // gptq: two int32 for each input dimension (g_idx and its sorting)
	perRow bool  // one scale a row
	only   bool  // experts alone (mxfp4)
	pad    bool  // the kernel pads the experts' width (mxfp4)
}

// schemeOf is the quantization that vLLM will use for a with the request's own
// quantization; reason says why it is not known.
//
// Sources: vllm/model_executor/layers/quantization (fp8.py, awq_marlin.py,
// gptq_marlin.py, compressed_tensors, mxfp4.py, bitsandbytes.py, modelopt.py).
func schemeOf(a *Architecture, requested string) (s scheme, reason string) {
	q := a.Quantization
	if q == nil {
		return onlineScheme(requested)
	}
	bits, group := orElse(q.Bits, 4), orElse(q.GroupSize, 128)
	switch q.Method {
	case "fp8", "fbgemm_fp8":
		if len(q.Block) == 2 {
			return scheme{method: "fp8", bits: 8, group: q.Block[1], rows: q.Block[0], scale: 4}, ""
		}
		return scheme{method: "fp8", bits: 8, perRow: true, scale: 4}, ""
	case "awq", "awq_marlin":
		return scheme{method: "awq", bits: bits, group: group, scale: 2, zero: q.ZeroPoint}, ""
	case "gptq", "gptq_marlin":
		return scheme{method: "gptq", bits: bits, group: group, scale: 2, zero: true, index: true}, ""
	case "compressed-tensors":
		return compressedScheme(q)
	case "mxfp4":
		return scheme{method: "mxfp4", bits: 4, group: 32, scale: 1, only: true, pad: true}, ""
	case "bitsandbytes":
		if q.Bits == 8 {
			return scheme{method: "bitsandbytes", bits: 8, perRow: true, scale: 4}, ""
		}
		return scheme{method: "bitsandbytes", bits: 4, group: 64, scale: 1}, ""
	case "modelopt", "modelopt_fp4":
		if strings.Contains(strings.ToUpper(q.Format), "FP4") {
			return scheme{method: "nvfp4", bits: 4, group: orElse(q.GroupSize, 16), scale: 1}, ""
		}
		return scheme{method: "fp8", bits: 8, scale: 4}, ""
	}
	return scheme{}, "the checkpoint's quantization method is not one that the arithmetic knows"
}

// onlineScheme is what vLLM converts an unquantized checkpoint to while it loads.
func onlineScheme(requested string) (s scheme, reason string) {
	switch requested {
	case "", "auto", "none", "None":
		return scheme{}, ""
	case "fp8", "fp8_per_tensor":
		return scheme{method: "fp8", bits: 8, scale: 4}, ""
	case "fp8_per_block":
		return scheme{method: "fp8", bits: 8, group: 128, rows: 128, scale: 4}, ""
	case "bitsandbytes":
		return scheme{method: "bitsandbytes", bits: 4, group: 64, scale: 4}, ""
	case "experts_int8":
		return scheme{method: requested, bits: 8, perRow: true, scale: 4, only: true}, ""
	}
	return scheme{}, "the checkpoint is not quantized, and vLLM cannot convert it to the asked quantization while loading"
}

func compressedScheme(q *Quantization) (scheme, string) {
	s := scheme{method: "compressed-tensors", bits: q.Bits, scale: 4}
	switch {
	case q.Bits == 8 && len(q.Block) == 2:
		s.rows, s.group = q.Block[0], q.Block[1]
	case q.Bits == 8:
		s.perRow = true
	case q.Bits > 0 && q.Bits < 8 && q.GroupSize > 0:
		s.group, s.scale, s.zero = q.GroupSize, 2, q.ZeroPoint
		if strings.Contains(q.Format, "nvfp4") {
			s.scale = 1
		}
	case q.Bits > 0 && q.Bits < 8:
		s.perRow, s.scale = true, 2
	default:
		return scheme{}, "the checkpoint's compressed-tensors scheme is not one that the arithmetic knows"
	}
	return s, ""
}

func orElse(n, def int64) int64 {
	if n > 0 {
		return n
	}
	return def
}

// bytesOf is what one rank keeps of a matrix of out x in, count times:
//
//	weights  count·out·in·bits/8
//	scales   one for each group of input dimensions and row (or block of rows)
//	zeros    4 bits for each scale
func (s scheme) bytesOf(out, in, count int64) (weight, scales int64) {
	weight = ceilDiv(count*out*in*s.bits, 8)
	switch {
	case s.perRow:
		scales = count * out * s.scale
	case s.group > 0:
		rows := out
		if s.rows > 0 {
			rows = ceilDiv(out, s.rows)
		}
		n := count * rows * ceilDiv(in, s.group)
		scales = n * s.scale
		if s.zero {
			scales += ceilDiv(n, 2)
		}
	default:
		scales = count * s.scale
	}
	if s.index {
		scales += 2 * 4 * in
	}
	return weight, scales
}

// dtypeSize is the width of a torch dtype in bytes; 0: unknown.
func dtypeSize(dtype string) int64 {
	switch dtype {
	case "bfloat16", "float16", "half":
		return 2
	case "float32", "float":
		return 4
	}
	return 0
}

// dtypeOf is the dtype that vLLM runs a with: float32 checkpoints become
// float16 or bfloat16 under "auto". Source: vllm/config/model.py, _get_and_verify_dtype.
func dtypeOf(a *Architecture, requested string) (string, bool) {
	switch requested {
	case "", "auto":
		if a == nil || a.NativeDtype == "" {
			return "", false
		}
		if a.NativeDtype == "float32" {
			return "bfloat16", true
		}
		return a.NativeDtype, dtypeSize(a.NativeDtype) > 0
	}
	return requested, dtypeSize(requested) > 0
}

// split divides a module over tp ranks: the rows and columns of one rank.
func (m module) shard(tp int64) (out, in, bias int64) {
	out, in, bias = m.out, m.in, m.bias
	switch m.split {
	case column:
		out, bias = ceilDiv(out, tp), ceilDiv(bias, tp)
	case row:
		in = ceilDiv(in, tp)
	case vocabulary:
		out = roundUp(out, 64) // vocab_parallel_embedding.py, DEFAULT_VOCAB_PADDING_SIZE
		out, bias = ceilDiv(out, tp), ceilDiv(bias, tp)
	case kvHeads: // fewer KV heads than ranks: each rank keeps a whole head
		heads := max(1, ceilDiv(m.units, tp))
		out = out / max(m.units, 1) * heads
		bias = bias / max(m.units, 1) * heads
	}
	return out, in, bias
}

// stage is the layers from first to last (exclusive) of one pipeline stage.
type stage struct {
	first, last     int64
	isFirst, isLast bool
}

// stageOf divides layers as vLLM does: evenly, the rest over the stages before
// the last, from the last but one backwards.
// Source: vllm/distributed/utils.py, get_pp_indices.
func stageOf(layers, pp, rank int64) stage {
	per, rest := layers/pp, layers%pp
	var first int64
	size := func(i int64) int64 {
		if i < pp-1 && i >= pp-1-rest {
			return per + 1
		}
		return per
	}
	for i := range rank {
		first += size(i)
	}
	return stage{first: first, last: first + size(rank), isFirst: rank == 0, isLast: rank == pp-1}
}

// weightKey names one result of load.
type weightKey struct {
	tp, pp, rank int64
	dtype        int64 // bytes
	split        int64
	oldMXFP4     bool
	quant        string
}

// WeightBytes is what the weights of a take on each rank of tensor-parallel
// size tp, as vLLM's "Model loading took" counts them: parameters, scales,
// rotary tables, and the rounding of torch's allocator, all in memory before
// the first request. With pipeline stages it is the first stage's.
//
// Per module: column-parallel (query, gate, up) out/tp, row-parallel (output, down)
// in/tp, keys and values max(1, KV/tp) heads, embedding and lm_head V padded to
// 64 over tp, norms, routers and MLA's latent projections on every rank in full.
// dtype and quantization are those of the request ("" or "auto": the
// checkpoint's). ok is false, and reason says why, where it cannot be known.
// Source: vllm/model_executor/layers/{linear,vocab_parallel_embedding}.py.
func WeightBytes(a *Architecture, dtype, quantization string, tp, pp int64) (n int64, ok bool, reason string) {
	return weightBytes(a, dtype, quantization, tp, pp, 0, newest)
}

func weightBytes(a *Architecture, dtype, quantization string, tp, pp, rank int64, v release) (int64, bool, string) {
	if a == nil {
		return 0, false, reasonNoModel
	}
	name, ok := dtypeOf(a, dtype)
	if !ok {
		return 0, false, "the dtype is not known: the model's configuration names none and the profile sets none"
	}
	if a.Layout == "" || a.derived == nil || !a.towersKnown() {
		return weightsFromCount(a, name, quantization, tp, pp)
	}
	s, reason := schemeOf(a, quantization)
	if reason != "" {
		return 0, false, reason
	}
	k := weightKey{
		tp: tp, pp: pp, rank: rank, dtype: dtypeSize(name), split: v.loadSplit(), oldMXFP4: v.Before(0, 32, 0),
		quant: quantization,
	}
	n, ok := a.derived.weights.Load(k)
	if !ok {
		n = a.load(s, k)
		a.derived.weights.Store(k, n)
	}
	return n.(int64), true, ""
}

// weightsFromCount is params·bytes/(tp·pp), for a model whose modules are not
// known but whose parameter count is given.
func weightsFromCount(a *Architecture, dtype, quantization string, tp, pp int64) (int64, bool, string) {
	if a.Params <= 0 {
		return 0, false, a.NotKnown() + ", and no parameter count is given"
	}
	s := scheme{}
	if a.Quantization != nil || quantization != "" {
		var reason string
		if s, reason = schemeOf(a, quantization); reason != "" {
			return 0, false, reason
		}
	}
	bits := 8 * dtypeSize(dtype)
	if s.bits > 0 {
		bits = s.bits
	}
	return a.Params * bits / 8 / (tp * pp), true, ""
}

// load plays the allocations of one rank in the order in which vLLM makes them.
func (a *Architecture) load(s scheme, k weightKey) int64 {
	p := &allocator{split: k.split}
	st := stageOf(a.NumLayers, k.pp, k.rank)
	for _, m := range a.derived.model {
		if m.part == partEmbedding && (st.isFirst || (st.isLast && a.TiedEmbeddings)) || m.part == partTower && st.isFirst {
			a.place(p, scheme{}, k, m)
		}
	}
	tables := 0
	for i := st.first; i < st.last; i++ {
		c := a.derived.class(a.derived.kinds[i], a.derived.moe[i])
		rope := a.Rope != nil && attends(c.kind) && tables < a.ropeTables(c.kind, tables)
		if rope {
			tables++
		}
		a.layer(p, s, k, c, rope, tables == 2)
	}
	if st.isLast {
		for _, m := range a.derived.model {
			if m.part == partHead {
				a.place(p, scheme{}, k, m)
			}
		}
	}
	return p.used
}

// ropeTables is how many tables exist once a layer of this kind was built: of
// two, the first comes with the first layer, the second with the first full one.
func (a *Architecture) ropeTables(kind byte, have int) int {
	if a.Rope.Tables > 1 && have == 1 && isGlobal(kind) {
		return 2
	}
	return 1
}

// NotKnown says why the parameters of a are not known exactly.
func (a *Architecture) NotKnown() string {
	switch {
	case a.Unknown != "":
		return "not understood: " + a.Unknown
	case a.Vision != nil && (a.Vision.Params == 0 || a.Vision.Rough):
		return fmt.Sprintf("the size of its vision tower, of type %q, is not known", a.Vision.Type)
	case a.Audio != nil && (a.Audio.Params == 0 || a.Audio.Rough):
		return fmt.Sprintf("the size of its audio tower, of type %q, is not known", a.Audio.Type)
	}
	return "the model type is not one whose modules are known"
}

// class finds the layers of a kind; nil if there are none yet.
func (d *derived) class(kind byte, moe bool) *layerClass {
	for i := range d.classes {
		if d.classes[i].kind == kind && d.classes[i].moe == moe {
			return &d.classes[i]
		}
	}
	return nil
}

// layer places the modules of one layer in their order, the rotary table, where
// it is made here, behind the attention. What vLLM fuses is one tensor: query, key
// and value; gate and up.
func (a *Architecture) layer(p *allocator, s scheme, k weightKey, c *layerClass, rope, second bool) {
	for i, n := 0, 0; i < len(c.modules); i += n {
		if rope && !strings.HasPrefix(c.modules[i].name, "self_attn.") {
			a.placeRope(p, k.dtype, second)
			rope = false
		}
		n = 1
		for i+n < len(c.modules) && fuses(c.modules[i+n-1], c.modules[i+n]) {
			n++
		}
		a.place(p, s, k, c.modules[i:i+n]...)
	}
	if rope {
		a.placeRope(p, k.dtype, second)
	}
}

// fuses says that next is stored in one tensor with m.
func fuses(m, next module) bool {
	i := strings.LastIndexByte(m.name, '.') + 1
	switch m.name[i:] {
	case "q_proj", "k_proj", "gate_proj":
		return strings.HasPrefix(next.name, m.name[:i])
	}
	return false
}

// place allocates modules that are one tensor.
func (a *Architecture) place(p *allocator, s scheme, k weightKey, ms ...module) {
	var weight, scales, bias int64
	for _, m := range ms {
		out, in, b := m.shard(k.tp)
		width := k.dtype
		if m.float {
			width = 4
		}
		if s.pad && m.expert && !k.oldMXFP4 {
			width = 4 // what the mxfp4 kernels add is float32
		}
		bias += m.count * b * width
		converted := s.bits > 0 && m.linear && (!s.only || m.expert) && (a.Quantization == nil || !a.Quantization.keeps(m))
		if !converted {
			weight += m.count * out * in * width
			continue
		}
		w, sc := a.converted(s, k, m, out, in)
		weight += w
		scales += sc
	}
	p.alloc(weight)
	p.alloc(scales)
	p.alloc(bias)
}

// converted is what a rank keeps of quantized module m, of out x in.
func (a *Architecture) converted(s scheme, k weightKey, m module, out, in int64) (weight, scales int64) {
	if m.expert && a.Quantization != nil && a.Quantization.Experts == "fp4" {
		s = scheme{bits: 4, group: 32, scale: 1}
	}
	if !s.pad || !m.expert {
		return s.bytesOf(out, in, m.count)
	}
	rows, columns, scaled := padExperts(m, out, in, k.oldMXFP4)
	weight, scales = s.bytesOf(rows, columns, m.count)
	return weight, scales + m.count*(scaled-rows)*ceilDiv(columns, s.group)*s.scale
}

// padExperts is the size that the mxfp4 kernels on Hopper store, and the rows
// that have scales: the experts' width is padded to 64, the rows of scales (of
// gate and up together) to 256. To 0.19, the hidden dimension of the packed
// weight was padded to 256 instead; between that and 0.32 it was not read.
// Source: vllm/model_executor/layers/fused_moe/oracle/mxfp4.py.
func padExperts(m module, out, in int64, old bool) (rows, columns, scaled int64) {
	step := int64(1)
	if old {
		step = 256
	}
	if m.split == row { // down: hidden x width
		rows = roundUp(out, step)
		return rows, roundUp(in, 64), roundUp(rows, 256)
	}
	rows, columns = roundUp(out, 64), roundUp(in, step)
	if old {
		return rows, columns, rows
	}
	return rows, columns, roundUp(2*rows, 256) / 2
}

// placeRope plays the making of a rotary table: angles, cosines, sines and both
// joined in float32, then the table in the model's dtype.
// Source: vllm/model_executor/layers/rotary_embedding/base.py.
func (a *Architecture) placeRope(p *allocator, dtype int64, second bool) {
	dim, length := a.Rope.Dim, a.Rope.Length
	if second {
		dim, length = orElse(a.Rope.GlobalDim, dim), orElse(a.Rope.GlobalLength, length)
	}
	half := length * dim / 2 * 4
	angles, cos, sin := p.alloc(half), p.alloc(half), p.alloc(half)
	joined := p.alloc(2 * half)
	p.release(angles)
	p.release(cos)
	p.release(sin)
	if dtype == 4 || a.Rope.Float {
		return // the joined table is the table
	}
	p.alloc(length * dim * dtype)
	p.release(joined)
}

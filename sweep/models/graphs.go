package models

// graphs is what the sizes of CUDA graphs of one pipeline stage are computed from.
type graphs struct {
	*setup
	layers int64 // of the stage
	law    found
}

// captured says how many graphs vLLM captures in each mode, and the largest of each.
type captured struct {
	piecewise, full int64
	tokens, seqs    int64
}

// captures counts the graphs of vLLM's two modes: piecewise for sizes up to
// min(2·S, 512) (1,024 for gpt-oss), full for those of at most S sequences: 1, 2, 4, multiples
// of 8 to 256, multiples of 16 beyond. Source: vllm/config/vllm.py, _set_cudagraph_sizes.
func (x graphs) captures() captured {
	limit := int64(512)
	if x.a.ModelType == "gpt_oss" {
		limit = 1024
	}
	most := min(2*x.seqs, limit, x.tokens)
	full := min(most, x.seqs)
	return captured{piecewise: sizesTo(most), full: sizesTo(full), tokens: most, seqs: full}
}

func sizesTo(most int64) int64 {
	var n int64
	for _, s := range []int64{1, 2, 4} {
		if s <= most {
			n++
		}
	}
	if most >= 8 {
		n += min(most, 255) / 8
	}
	if most >= 256 {
		n += (most-256)/16 + 1
	}
	return n
}

// inter is the width of one rank's MLP, of the experts that a token goes to.
func (x graphs) inter() int64 {
	if m := x.a.MoE; m != nil {
		return ceilDiv(m.TopK*m.IntermediateSize+m.SharedIntermediate, x.tp)
	}
	return ceilDiv(x.a.IntermediateSize, x.tp)
}

// piece is what is alive in a layer at the largest piecewise size: gate, up and
// their product, queries, keys and values, and two hidden states.
func (x graphs) piece(tokens int64) int64 {
	a := x.a
	widths := int64(3)
	if a.MLP == "plain" {
		widths = 2
	}
	qkv := ceilDiv(a.attentionOut(), x.tp) + 2*max(ceilDiv(a.NumKVHeads, x.tp), 1)*a.HeadDim
	return tokens * x.width * (widths*x.inter() + qkv + 2*a.HiddenSize)
}

// splitBuffer is what FlashAttention 3 takes for the partial sums of up to 32
// splits in full graphs: 32 · S' · H·d/tp · 4 bytes; with MLA, from 0.33 on, of the
// latent's width. Only on Hopper, only in 16-bit.
// Source: vllm/v1/attention/backends/flash_attn.py (max_num_splits).
func (x graphs) splitBuffer(largest int64) int64 {
	if x.g.Arch != "hopper" || x.width != 2 {
		return 0
	}
	n := 32 * largest * ceilDiv(x.splitWidth(), x.tp) * 4
	if x.a.MLA != nil || x.a.AttentionSinks { // FlashAttention takes them since 0.33
		return x.law.n("splits_sinks", n)
	}
	return n
}

// splitWidth is the width of what attention puts out for a token, of all heads.
func (x graphs) splitWidth() int64 {
	if m := x.a.MLA; m != nil {
		return x.a.NumHeads * m.KVLoraRank
	}
	return x.a.NumHeads * x.a.HeadDim
}

// splits is how often that buffer stands in the pool. With the V2 runner of
// 0.26 once more where something that lives across a layer was cut
// out of the first one, so that it does not fit the next layer. That is torch's
// allocator at work, whose large blocks begin at 10 MiB and come from segments of 20: seen
// where gate and up of the largest graph take 10 MiB or more and its hidden state more
// than 2, in 8 of 9 models and settings (not in phi-4), and once in all six others.
func (x graphs) splits(largest int64) Coefficient {
	n, cut := x.law.c("splits"), x.law.c("splits_cut")
	if x.runner != runnerV2 {
		return n
	}
	row := largest * x.width
	n.High += cut.High
	if row*2*x.inter() >= 10*mib && row*x.a.HiddenSize > 2*mib {
		n.Value += cut.Value
	}
	return n
}

// first is what the first graph takes in each mode, without FlashAttention's buffer.
func (x graphs) first(tokens int64) (piecewise, full int64) {
	work := x.law.n("cublas_workspaces", cublasWorkspace(x.g))
	piecewise = x.law.n("first_piecewise_bytes", 1) + work + x.law.n("piece", x.piece(tokens))
	if x.runner == runnerV2 {
		return piecewise, x.law.n("first_full_v2_bytes", 1) + work
	}
	return piecewise, x.law.n("first_full_v1_bytes", 1)
}

// further is what all graphs but the first of each mode take.
func (x graphs) further(c captured) int64 {
	return x.law.n("piecewise_layer_bytes", x.layers*max(c.piecewise-1, 0)) +
		x.law.n("full_layer_bytes", x.layers*max(c.full-1, 0))
}

// figure is the pool after capture: what the first graph of each mode takes, what
// each further one adds for each layer, and FlashAttention's buffers. Seen step by
// step in the driver's memory (each graph is a step of 2 to 8 MiB in samples of 10 and
// 20 ms): vLLM 0.26 on H100, 12 models and settings of 16 to 48 layers.
func (x graphs) figure() Figure {
	c := x.captures()
	pieces, full := x.first(c.tokens)
	first, further, split := pieces+full, x.further(c), x.splitBuffer(c.seqs)
	part := func(n int64, spread Coefficient) (value, low, high float64) {
		return float64(n), (1 + spread.Low) * float64(n), (1 + spread.High) * float64(n)
	}
	var n sum
	for _, p := range []struct {
		bytes  int64
		spread Coefficient
	}{{first, x.law.c("first_spread")}, {further, x.law.c("further_spread")}} {
		value, low, high := part(p.bytes, p.spread)
		n = sum{n.value + value, n.low + low, n.high + high}
	}
	n.add(x.splits(c.seqs), split)
	return x.law.figureOf(n, "first captures + graphs x layers + FlashAttention's partial sums")
}

// estimate is what vLLM itself takes off the budget. On the V1 runner the
// larger first capture of the two modes and, for each further graph, what the second one
// of its mode took. On the V2 runner all piecewise graphs, the first full one, and for
// each further full graph what the second took, which goes with the layers and
// the width of their attention.
// Source: vllm/v1/worker/gpu_model_runner.py and worker/gpu/cudagraph_utils.py, profile_cudagraph_memory.
func (x graphs) estimate(e *Estimate, pool Figure) Figure {
	c := x.captures()
	if x.runner == runnerV1 {
		pieces, full := x.first(c.tokens)
		n := max(pieces, full+x.splitBuffer(c.seqs)) + x.further(c)
		return figure(n, n-n*2/5, n+n*2/5, "first capture + further graphs, as vLLM extrapolates")
	}
	law, ok := x.setup.law(nil, termGraphEstimate)
	if !ok || law.file.from > x.v {
		n := *pool.Value
		return figure(n, n-n*2/5, n+n*13/10, "a capture of all graphs")
	}
	e.note(termGraphEstimate, law)
	var n sum
	n.add(law.c("base_bytes"), 1)
	n.add(law.c("width_bytes"), c.full*x.layers*ceilDiv(x.splitWidth(), x.tp))
	return law.figureOf(n, "base + full graphs x layers x attention's width")
}

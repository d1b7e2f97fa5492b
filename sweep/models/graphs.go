package models

// graphs is what the sizes of CUDA graphs of one pipeline stage are computed from.
type graphs struct {
	*setup
	layers int64 // of the stage
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

// What graphs take is the sum of what the first one of a mode takes and of what
// each further one adds, for each layer. Seen step by step in the driver's
// memory (each graph is a step of 2 to 8 MiB in samples of 10 and 20 ms): vLLM
// 0.26 on H100, 12 models and settings of 16 to 48 layers, tensor parallel size 1 and
// 2; and, for 0.19, in the lines "Estimated PIECEWISE CUDA graph memory" of other people's logs.
const (
	graphBase   = 48 * mib  // first piecewise capture, beside cuBLAS's workspace and activations
	fullBaseV1  = 4 * mib   // first full capture, beside FlashAttention's buffer
	fullBaseV2  = 28 * mib  // the V2 runner, beside that and a workspace of its own
	layerGraph  = 171 << 10 // one layer in one graph, before 0.26
	layerPieces = 140 << 10 // since 0.26, piecewise: 135 to 148 seen
	layerFull   = 48 << 10  // since 0.26, full: 43 to 57 seen
)

// perLayer is what one layer of one more graph takes. Between 0.19 and 0.26 nobody measured.
func (x graphs) perLayer() (piecewise, full int64) {
	if x.v < rel26 {
		return layerGraph, layerGraph
	}
	return layerPieces, layerFull
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
// splits in full graphs: 32 · S' · H·d/tp · 4 bytes. Only on Hopper, only in 16-bit, not with MLA.
// Source: vllm/v1/attention/backends/flash_attn.py (max_num_splits).
func (x graphs) splitBuffer(largest int64) int64 {
	if x.g.Arch != "hopper" || x.width != 2 || x.a.MLA != nil || x.a.AttentionSinks {
		return 0
	}
	return 32 * largest * ceilDiv(x.a.NumHeads*x.a.HeadDim, x.tp) * 4
}

// splitBuffers is how often that buffer stands in the pool: once with the V1 runner.
// With the V2 runner twice where something that lives across a layer was cut
// out of the first one, so that it does not fit the next layer. That is torch's
// allocator at work, whose large blocks begin at 10 MiB and come from segments of 20: seen
// where gate and up of the largest graph take 10 MiB or more and its hidden state more
// than 2, in 8 of 9 models and settings (not in phi-4), and once in all six others.
func (x graphs) splitBuffers(largest int64) int64 {
	row := largest * x.width
	if x.runner == runnerV2 && row*2*x.inter() >= 10*mib && row*x.a.HiddenSize > 2*mib {
		return 2
	}
	return 1
}

// first is what the first graph takes in each mode, without FlashAttention's buffer.
func (x graphs) first(tokens int64) (piecewise, full int64) {
	piecewise = graphBase + cublasWorkspace(x.g) + x.piece(tokens)
	if x.runner == runnerV2 {
		return piecewise, fullBaseV2 + cublasWorkspace(x.g)
	}
	return piecewise, fullBaseV1
}

// further is what all graphs but the first of each mode take.
func (x graphs) further(c captured) int64 {
	pieces, full := x.perLayer()
	return x.layers * (max(c.piecewise-1, 0)*pieces + max(c.full-1, 0)*full)
}

// bytes is the pool after capture. The interval has one and, with the V2
// runner, two of FlashAttention's buffers.
func (x graphs) bytes() (value, low, high int64) {
	c := x.captures()
	pieces, full := x.first(c.tokens)
	first, further, split := pieces+full, x.further(c), x.splitBuffer(c.seqs)
	most := split
	if x.runner == runnerV2 {
		most = 2 * split
	}
	value = first + further + x.splitBuffers(c.seqs)*split
	return value, first*6/10 + further*85/100 + split, first*12/10 + further*115/100 + most
}

// estimate is what vLLM itself takes off the budget: on the V1 runner the
// larger first capture of the two modes and, for each further graph, what the second one
// of its mode took. The V2 runner of 0.29 captures for real.
// Source: vllm/v1/worker/gpu_model_runner.py, profile_cudagraph_memory.
func (x graphs) estimate() int64 {
	if x.runner == runnerV2 {
		value, _, _ := x.bytes()
		return value
	}
	c := x.captures()
	pieces, full := x.first(c.tokens)
	return max(pieces, full+x.splitBuffer(c.seqs)) + x.further(c)
}

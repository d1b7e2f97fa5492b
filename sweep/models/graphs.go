package models

// graphs is what the sizes of CUDA graphs are computed from.
type graphs struct {
	a      *Architecture
	g      GPU
	tokens int64
	seqs   int64
	width  int64
	tp     int64
	layers int64 // of the stage
	runner string
}

// captures counts the graphs of vLLM's two modes: piecewise for sizes up to
// min(2·S, 512) (1,024 for gpt-oss), full for those of at most S sequences: 1, 2, 4, multiples
// of 8 to 256, multiples of 16 beyond. Source: vllm/config/vllm.py, _set_cudagraph_sizes.
func (x graphs) captures() (n, largest int64) {
	limit := int64(512)
	if x.a.ModelType == "gpt_oss" {
		limit = 1024
	}
	most := min(2*x.seqs, limit, x.tokens)
	full := min(most, x.seqs)
	return sizesTo(most) + sizesTo(full), full
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

// splitBuffer is what FlashAttention 3 takes for the partial sums of up to 32
// splits in full graphs: 32 · S' · H·d/tp · 4 bytes. Only on Hopper, only in 16-bit, not with MLA.
// Source: vllm/v1/attention/backends/flash_attn.py (max_num_splits).
func (x graphs) splitBuffer(largest int64) int64 {
	if x.g.Arch != "hopper" || x.width != 2 || x.a.MLA != nil || x.a.AttentionSinks {
		return 0
	}
	return 32 * largest * ceilDiv(x.a.NumHeads*x.a.HeadDim, x.tp) * 4
}

const (
	graphBase     = 50 * mib  // of the first captures
	graphPerLayer = 200 << 10 // of one layer in one graph: the driver's nodes
)

// bytes is the pool after capture: a base, 200 KiB for each layer of each graph
// (seen: 130 to 260 on H100 in 0.19 and 0.26, 8 to 80 layers), and
// FlashAttention's buffer.
func (x graphs) bytes() (value, low, high int64) {
	n, largest := x.captures()
	nodes := n * x.layers * graphPerLayer
	split := x.splitBuffer(largest)
	return graphBase + nodes + split, graphBase/2 + nodes/2 + split, graphBase*2 + nodes*13/10 + split*11/10
}

// estimate is what vLLM itself takes off the budget: on the V1 runner the
// larger first capture of the two modes and, for each further graph, the cost of the second,
// which the driver hands out in steps of 2 MiB: about 2.2 MiB and 60 KiB for
// each layer. The V2 runner of 0.29 captures for real.
// Source: vllm/v1/worker/gpu_model_runner.py, profile_cudagraph_memory.
func (x graphs) estimate() int64 {
	if x.runner == runnerV2 {
		value, _, _ := x.bytes()
		return value
	}
	n, largest := x.captures()
	first := max(x.splitBuffer(largest)+6*mib, 130*mib)
	return first + max(n-2, 0)*(2200<<10+x.layers*60<<10)
}

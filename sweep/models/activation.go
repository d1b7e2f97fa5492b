package models

// cublasWorkspace is what torch allocates for cuBLAS at the first product: 32
// MiB on Hopper and Blackwell, 8.125 MiB on others.
// Source: aten/src/ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize.
func cublasWorkspace(g GPU) int64 {
	switch {
	case g.Vendor == "amd", g.Arch == "ampere", g.Arch == "ada", g.Arch == "turing":
		return 8*mib + 128<<10
	}
	return 32 * mib
}

// peak is what the activations of one pipeline stage are computed from.
type peak struct {
	*setup
	last bool // the stage samples
}

// The peak of a profile run is the larger of two moments, above what stays
// allocated between them:
//
//	forward: the MLP of one layer at T tokens. Alive are the layer's input and the residual
//	         (2·h), the attention's output (H·d/tp), gate and up (2·I/tp) and their
//	         product (I/tp); torch's cuBLAS workspace; and while kernels are tuned in a
//	         first compilation a buffer of the size of the L2 cache that triton clears
//	sampler: S rows of the vocabulary, on the last pipeline stage
//
// With T 16,384 on the V2 runner of 0.26 the forward formula gives the printed
// figure to its last digit in ten of thirteen compiled runs of dense models
// (docs/accuracy.md has the others).
//
// moment names the larger one: "forward", "experts", "latent" (MLA's profile) or
// "sampler".
func (p peak) bytes() (value, low, high int64, moment string) {
	persistent := p.expertWorkspace() + p.stageBuffers() + cublasWorkspace(p.g)
	forward, slack := p.forward()
	tuned, other := forward, p.latentProfile()
	if !p.r.EnforceEager && p.r.CompileCache != "warm" {
		tuned += p.l2()
	}
	moment = "forward"
	if p.a.MoE != nil {
		moment = "experts"
	}
	if other > tuned {
		moment = "latent"
	}
	if p.last {
		n := p.sampler()
		if n >= max(tuned, other) {
			moment = "sampler"
		}
		other = max(other, n)
	}
	value = persistent + max(tuned, other)
	low = persistent + max(forward, other)
	high = persistent + max(tuned+slack, other)
	if p.a.NormsPerLayer > 2 && p.runner == runnerV2 { // Gemma 2 9B took 11 % more than this, Gemma 3 1B nothing
		high += value / 9
	}
	return value, low - low/40, high + high/30, moment
}

// l2 is the buffer that triton's tuner clears between runs.
// Source: torch/_inductor/runtime/benchmarking.py (L2_cache_size).
func (p peak) l2() int64 {
	return orElse(p.g.L2, 50*mib)
}

// forward is the larger of the dense and the expert layers; slack is what a
// fused or unfused kernel may add.
func (p peak) forward() (value, slack int64) {
	a := p.a
	inter := ceilDiv(a.IntermediateSize, p.tp)
	per := 2*a.HiddenSize + ceilDiv(p.a.attentionOut(), p.tp) + 3*inter
	switch {
	case p.r.EnforceEager:
		per = p.eagerLayer(inter)
	case a.MLP == "plain": // compiled, the activation works in place
		per -= 2 * inter
		slack = p.tokens * p.width * inter
	}
	dense := p.tokens * p.width * per
	if a.MoE == nil {
		return dense, slack
	}
	if a.MoE.FirstDense == 0 && a.MoE.Every <= 1 && !a.MoE.DenseToo {
		dense = 0
	} else {
		dense -= min(dense, p.expertWorkspace()) // it is not there yet in the first layers
	}
	experts := p.expertForward()
	return max(dense, experts), experts / 5
}

// eagerLayer is what a token has alive in a layer's MLP without compilation:
// hidden states of norms and sums that compilation would fuse (three, one more
// where queries and keys are normed or the MLP is plain), and the MLP's own, of which
// a plain one has two. Seen on 0.26: Llama 8B at TP 1 and 2, Qwen3 0.6B and 4B, OPT 1.3B.
func (p peak) eagerLayer(inter int64) int64 {
	hidden, widths := int64(3), int64(3)
	if p.a.QKNorm != "" || p.a.MLP == "plain" {
		hidden++
	}
	if p.a.MLP == "plain" {
		widths = 2
	}
	return hidden*p.a.HiddenSize + widths*inter
}

// expertWorkspace is what the experts' kernel keeps from the first layer on:
// T · top_k · (max(I, h) + max(2I, h)) elements. The mxfp4 kernels keep none.
// Source: vllm/model_executor/layers/fused_moe/experts/triton_moe.py,
// workspace_shapes; vllm/v1/worker/workspace.py.
func (p peak) expertWorkspace() int64 {
	e := p.a.MoE
	if e == nil || p.a.Quantization != nil && p.a.Quantization.Method == "mxfp4" {
		return 0
	}
	inter := ceilDiv(e.IntermediateSize, p.tp)
	return p.tokens * e.TopK * (max(inter, p.a.HiddenSize) + max(2*inter, p.a.HiddenSize)) * p.width
}

// expertForward is what is alive beside the workspace in a layer with experts:
// input, residual, output and the sum (4·h), router scores in float32, and the shared
// experts' gate, up and product.
func (p peak) expertForward() int64 {
	e := p.a.MoE
	per := (4*p.a.HiddenSize + 3*ceilDiv(e.SharedIntermediate, p.tp)) * p.width
	return p.tokens * (per + 4*e.Experts)
}

// latentProfile is the tensor that MLA allocates in a profile run in place of the
// longest context's keys and values: min(max(8·L, 4·S·block), 65536) tokens
// of H/tp · (nope + v), beside the layer's input, query, latent and output; without
// compilation the residual and a second latent are alive too.
// Source: vllm/model_executor/layers/attention/mla_attention.py.
func (p peak) latentProfile() int64 {
	m := p.a.MLA
	if m == nil {
		return 0
	}
	rows := max(min(max(8*p.maxLen, 4*p.seqs*p.block), 65536), p.seqs*p.block)
	heads := ceilDiv(p.a.NumHeads, p.tp)
	context := rows * heads * (m.NopeDim + m.VHeadDim) * p.width
	latent := m.KVLoraRank + m.RopeDim
	per := p.a.HiddenSize + heads*(m.NopeDim+m.RopeDim) + latent + heads*m.VHeadDim
	if p.r.EnforceEager {
		per += p.a.HiddenSize + latent
	}
	return context + p.tokens*per*p.width
}

// stageBuffers are hidden state and residual that a stage takes from the one
// before or hands to the next: 2·h·T.
func (p peak) stageBuffers() int64 {
	if p.pp <= 1 {
		return 0
	}
	return 2 * p.a.HiddenSize * p.tokens * p.width
}

// sampler is the moment of sampling for S rows. On the V1 runner, for each of
// S·V logits: the logits in the model's dtype, a float32 copy, probabilities and
// exponential noise (b + 12 bytes), one row a multiprocessor for the triton
// top-k/top-p kernel, and the hidden states of all tokens and twice of the sampled ones.
// Before 0.17 top-k/top-p sorted: values, indices and their double buffers
// (b + 36). The V2 runner samples with a kernel that keeps b bytes a logit.
// Not divided by tp: every rank gathers all logits.
// Source: vllm/v1/sample/{sampler,ops/topk_topp_sampler,ops/topk_topp_triton}.py,
// vllm/v1/worker/gpu/sample/gumbel.py.
func (p peak) sampler() int64 {
	a := p.a
	logits := p.seqs * a.VocabSize
	hidden := a.HiddenSize * p.width
	if p.runner == runnerV2 {
		each := p.width
		if a.LogitsSoftcap { // the capped logits are another tensor
			each *= 2
		}
		if p.tp > 1 { // a rank's part, all parts gathered, and those in order
			each = 2*p.width + ceilDiv(p.width, p.tp)
		}
		return logits*each + (p.tokens+p.seqs)*hidden + p.seqs*ceilDiv(a.VocabSize, 1024)*12
	}
	n := p.tokens*hidden + 2*p.seqs*hidden + p.images()
	if p.v < rel17 {
		return n + logits*(p.width+36)
	}
	return n + logits*(p.width+12) + min(orElse(p.g.SMs, 132), p.seqs)*a.VocabSize*4
}

// images is what the V1 runner keeps of its profiled images: pixels and
// embeddings of as many as a batch holds.
// Source: vllm/v1/worker/gpu_model_runner.py, profile_run.
func (p peak) images() int64 {
	t := p.a.Vision
	if t == nil || t.ImageTokens == 0 {
		return 0
	}
	n := max(1, max(p.tokens, t.ImageTokens)/t.ImageTokens)
	n = min(n, p.seqs)
	return n * (t.ImageTokens*p.a.HiddenSize + 3*t.ImageSize*t.ImageSize) * p.width
}

// BufferBytes is what the model runner keeps from loading on beside weights, in
// no line of vLLM's log: with the V2 runner the sampler's counts of each token of
// the vocabulary and two bit masks, S·V·4 + 2·S·ceil(V/32)·4; with the V1 runner
// block tables and input buffers alone, S·ceil(L/block)·4·2 + T·24.
// Source: vllm/v1/worker/gpu/sample/penalties.py, structured_outputs.py; 0.52 GiB
// measured for V 128,256 and S 1,024.
func BufferBytes(a *Architecture, runner string, seqs, tokens, maxLen, block int64) int64 {
	tables := seqs*ceilDiv(maxLen, max(block, 1))*8 + tokens*24
	if a == nil || runner != runnerV2 {
		return tables
	}
	return seqs*a.VocabSize*4 + 2*seqs*ceilDiv(a.VocabSize, 32)*4 + tables
}

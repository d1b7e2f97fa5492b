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
	last    bool  // the stage samples
	law     found // of the activations
	sampler found
}

// peakOf finds the laws of a stage's activations; ok is false where there are none.
func (s *setup) peakOf(e *Estimate, last bool) (peak, bool) {
	p := peak{setup: s, last: last}
	var ok, sampler bool
	term := termSamplerV1
	if s.runner == runnerV2 {
		term = termSamplerV2
	}
	p.law, ok = s.law(e, termActivations)
	p.sampler, sampler = s.law(e, term)
	return p, ok && sampler
}

// activations is the peak of a profile run: the larger of several moments,
// above what stays allocated between them.
//
//	forward: the MLP of one layer at T tokens. Alive are the layer's input and the residual
//	         (2·h), the attention's output (H·d/tp), gate and up (2·I/tp) and their
//	         product (I/tp); to 0.29 torch's cuBLAS workspace; and while kernels are tuned
//	         in a first compilation a buffer of the size of the L2 cache that triton
//	         clears. From 0.33 on S·V/2 less: sampling allocates that much, and it stays
//	state:   layers with a state: 2·h and three times their input projection
//	sampler: S rows of the vocabulary, on the last pipeline stage
//	head:    from 0.33 on the lm_head once more beside T·h (Llama 8B at T 4,096 and S 64,
//	         Gemma 2 9B); in the source nothing was found that says why
//
// With T 16,384 on the V2 runner of 0.26 the forward formula gives the printed
// figure to its last digit in ten of thirteen compiled runs of dense models
// (docs/accuracy.md has the others).
//
// ActivationsAt names the largest moment.
func (p peak) activations(e *Estimate) Figure {
	c := p.law.c
	persistent := p.stageBuffers() + p.law.n("cublas_workspaces", cublasWorkspace(p.g)) + p.law.n("base_bytes", 1)
	if !p.v.consumed() {
		persistent += p.expertWorkspace()
	}
	forward, slack, moment := p.forward(e)
	if p.last { // what sampling leaves allocated is not there yet
		forward += p.law.n("per_logit_bytes", p.seqs*p.a.VocabSize)
	}
	tuned := forward
	if !p.r.EnforceEager && p.r.CompileCache != "warm" {
		tuned += p.law.n("tuner_buffers", p.l2())
	}
	other, at := p.latentProfile(), "latent"
	if p.last {
		if n := p.sampled(); n >= other {
			other, at = n, "sampler"
		}
		if n := p.headCopy(e) - persistent; n > other {
			other, at = n, "head"
		}
	}
	if other >= tuned {
		moment = at
	}
	value := persistent + max(tuned, other)
	low := persistent + max(forward, other)
	high := persistent + max(tuned+slack, other)
	if p.a.NormsPerLayer > 2 && p.runner == runnerV2 {
		high += int64(c("four_norms").High * float64(value))
	}
	low += int64(c("spread").Low * float64(low))
	high += int64(c("spread").High * float64(high))
	if e != nil {
		e.ActivationsAt = moment
	}
	return p.law.figure(value, low, high, "larger of one layer's forward pass at T tokens and the sampler at S sequences")
}

// l2 is the buffer that triton's tuner clears between runs.
// Source: torch/_inductor/runtime/benchmarking.py (L2_cache_size).
func (p peak) l2() int64 {
	return orElse(p.g.L2, 50*mib)
}

// forward is the largest of the dense, the expert and the state layers; slack is
// what a fused or unfused kernel, or a kind of layer that few runs had, may add.
func (p peak) forward(e *Estimate) (value, slack int64, moment string) {
	a := p.a
	inter := ceilDiv(a.IntermediateSize, p.tp)
	value, moment = p.dense(inter), "forward"
	if a.MLP == "plain" && !p.r.EnforceEager { // compiled, the activation works in place
		slack = p.law.n("plain_unfused", p.tokens*p.width*inter)
	}
	if a.MoE != nil {
		dense := value - min(value, p.expertWorkspace()) // it is not there yet in the first layers
		if a.MoE.FirstDense == 0 && a.MoE.Every <= 1 && !a.MoE.DenseToo {
			dense = 0
		}
		moment = "experts"
		value = max(dense, p.expertForward())
		slack = p.law.n("experts_slack", p.expertForward())
	}
	if n, more := p.state(e); n > value {
		return n, more, "state"
	}
	return value, slack, moment
}

// dense is what T tokens have alive in a layer with an MLP.
func (p peak) dense(inter int64) int64 {
	of := func(name string, width int64) int64 { return p.law.n(name, p.tokens*p.width*width) }
	hidden := p.a.HiddenSize
	plain := p.a.MLP == "plain"
	if p.r.EnforceEager {
		return p.eagerLayer(inter, of)
	}
	width := "forward_width"
	if plain {
		width = "plain_width"
	}
	return of("forward_hidden", hidden) + of("forward_attention", ceilDiv(p.a.attentionOut(), p.tp)) + of(width, inter)
}

// eagerLayer is what a token has alive in a layer's MLP without compilation:
// hidden states of norms and sums that compilation would fuse (one more where
// queries and keys are normed or the MLP is plain), and the MLP's own.
func (p peak) eagerLayer(inter int64, of func(string, int64) int64) int64 {
	n := of("eager_hidden", p.a.HiddenSize)
	if p.a.QKNorm != "" || p.a.MLP == "plain" {
		n += of("eager_extra_hidden", p.a.HiddenSize)
	}
	if p.a.MLP == "plain" {
		return n + of("eager_plain_width", inter)
	}
	return n + of("eager_width", inter)
}

// state is what a layer with a state has alive: the hidden states and what its
// input projection becomes. 0: the model has none.
func (p peak) state(e *Estimate) (value, slack int64) {
	if !p.a.stateLayers() {
		return 0, 0
	}
	law, ok := p.setup.law(e, termState)
	if !ok {
		return 0, 0
	}
	rows := p.tokens * p.width
	value = law.n("hidden", rows*p.a.HiddenSize) + law.n("projection", rows*ceilDiv(p.a.stateProjection(), p.tp))
	return value, int64(law.c("spread").High * float64(value))
}

// stateProjection is the width of a state layer's input projection: queries,
// keys, values and gates of delta net; both inputs, both groups and steps of Mamba 2.
func (a *Architecture) stateProjection() int64 {
	switch {
	case a.DeltaNet != nil:
		n := a.DeltaNet
		return 2*n.KeyHeads*n.KeyDim + 2*n.ValueHeads*n.ValueDim + 2*n.ValueHeads
	case a.Mamba != nil:
		n := a.Mamba
		return 2*n.Heads*n.HeadDim + 2*n.Groups*n.StateSize + n.Heads
	}
	return 3 * a.HiddenSize
}

// headCopy is the lm_head once more, beside the hidden states of all tokens.
func (p peak) headCopy(e *Estimate) int64 {
	law, ok := p.laws.find(termHead, p.v, p.g)
	if !ok || law.file.from > p.v {
		return 0
	}
	rows := ceilDiv(p.a.VocabSize, p.tp) * p.a.HiddenSize * p.width
	return law.n("head", rows) + law.n("hidden", p.tokens*p.a.HiddenSize*p.width)
}

// expertWorkspace is what the experts' kernel keeps from the first layer on:
// T · top_k · (max(I, h) + max(2I, h)) elements. The mxfp4 kernels keep none.
// Source: vllm/model_executor/layers/fused_moe/experts/triton_moe.py,
// workspace_shapes; vllm/v1/worker/workspace.py.
func (p peak) expertWorkspace() int64 {
	if p.a == nil || p.a.MoE == nil || p.mxfp4() {
		return 0
	}
	e := p.a.MoE
	inter := ceilDiv(e.IntermediateSize, p.tp)
	return p.tokens * e.TopK * (max(inter, p.a.HiddenSize) + max(2*inter, p.a.HiddenSize)) * p.width
}

// expertForward is what is alive beside the workspace in a layer with experts:
// input, residual, output and the sum (4·h in 0.26), router scores in float32, and
// the shared experts' gate, up and product.
func (p peak) expertForward() int64 {
	e := p.a.MoE
	shared := 3 * ceilDiv(e.SharedIntermediate, p.tp) * p.width
	return p.law.n("experts_hidden", p.tokens*p.a.HiddenSize*p.width) + p.tokens*(shared+4*e.Experts)
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
	context := p.law.n("latent_context", rows*heads*(m.NopeDim+m.VHeadDim)*p.width)
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

// sampled is the moment of sampling for S rows. On the V1 runner, for each of
// S·V logits: the logits in the model's dtype, a float32 copy, probabilities and
// exponential noise (b + 12 bytes), one row a multiprocessor for the triton
// top-k/top-p kernel, and the hidden states of all tokens and twice of the sampled ones.
// Before 0.17 top-k/top-p sorted: values, indices and their double buffers
// (b + 36). The V2 runner samples with a kernel that keeps b bytes a logit, in 0.33 three
// times. Not divided by tp: every rank gathers all logits.
// Source: vllm/v1/sample/{sampler,ops/topk_topp_sampler,ops/topk_topp_triton}.py,
// vllm/v1/worker/gpu/sample/gumbel.py.
func (p peak) sampled() int64 {
	a, law := p.a, p.sampler
	logits := p.seqs * a.VocabSize
	hidden := a.HiddenSize * p.width
	if p.runner == runnerV2 {
		each := law.n("copies", logits*p.width)
		if a.LogitsSoftcap { // the capped logits are another tensor
			each += law.n("softcap_copies", logits*p.width)
		}
		if p.tp > 1 { // a rank's part and all parts gathered, beside those in order
			each += logits * (p.width + ceilDiv(p.width, p.tp))
		}
		return each + (p.tokens+p.seqs)*hidden + p.seqs*ceilDiv(a.VocabSize, 1024)*12 + law.n("base_bytes", 1)
	}
	n := p.tokens*hidden + 2*p.seqs*hidden + p.images() + logits*p.width + law.n("logit_bytes", logits)
	return n + law.n("rows", min(orElse(p.g.SMs, 132), p.seqs)*a.VocabSize*4)
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

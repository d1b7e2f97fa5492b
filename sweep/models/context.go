package models

// context is what a rank's process takes of its GPU before vLLM counts: the CUDA
// context, from 0.33 on with the handles of cuBLAS, and with more than one rank
// NCCL's buffers and the peers' contexts. It lies outside gpu_memory_utilization.
//
//	one + nccl + peer x (ranks - 2)
func (s *setup) context(e *Estimate) Figure {
	law, ok := s.law(e, termContext)
	if !ok {
		return unknown(reasonNoLaw)
	}
	var n sum
	if s.g.Context > 0 {
		n.add(Coefficient{1, 0.96, 1.05}, s.g.Context)
	} else {
		n.add(law.c("one_bytes"), 1)
	}
	if world := s.tp * s.pp; world > 1 {
		n.add(law.c("nccl_bytes"), 1)
		n.add(law.c("peer_bytes"), world-2)
	}
	return law.figureOf(n, "context of one process, NCCL with more ranks")
}

// nonTorch is what the profile run finds taken beside weights and buffers:
// kernels' code, with tensor parallelism the buffers of the all-reduce backends, and,
// where vLLM counts what is consumed as a difference of free memory, the
// experts' workspace and what else the run leaves allocated.
//
// Of it 2 GiB at TP are the fused all-reduce's workspace, which is made where
// FlashInfer is installed. A vocabulary that is no multiple of 16 adds to it on
// the V1 runner (both Granite 3.1 models of 0.19; of all models measured
// only theirs have one): triton then compiles the sampling kernel without alignment, and
// the driver reserves local memory for what spills.
func (s *setup) nonTorch(e *Estimate) Figure {
	law, ok := s.law(e, termNonTorch)
	if !ok {
		return unknown(reasonNoLaw)
	}
	var n sum
	switch {
	case s.tp > 1:
		n.add(law.c("tensor_parallel_bytes"), 1)
		n.add(law.c("further_rank_bytes"), s.tp-2)
	case s.pp > 1:
		n.add(law.c("pipeline_bytes"), 1)
	default:
		n.add(law.c("one_bytes"), 1)
		if s.oddVocab() {
			n.add(law.c("odd_vocabulary_bytes"), 1)
		}
	}
	if s.a == nil || !s.v.consumed() {
		return law.figureOf(n, "by ranks")
	}
	n.add(law.c("per_logit_bytes"), s.seqs*s.a.VocabSize)
	f := law.figureOf(n, "by ranks, S·V, and the experts' workspace")
	work := peak{setup: s}.expertWorkspace()
	*f.Value, *f.Low, *f.High = *f.Value+work, *f.Low+work, *f.High+work
	if s.mxfp4() { // what its kernels keep was seen in one model: 0.23 of T x h
		*f.High += s.tokens * s.a.MoE.TopK * s.a.HiddenSize * s.width
	}
	return f
}

// mxfp4 says that the experts are in a format whose kernels keep other workspaces.
func (s *setup) mxfp4() bool {
	return s.a.MoE != nil && s.a.Quantization != nil && s.a.Quantization.Method == "mxfp4"
}

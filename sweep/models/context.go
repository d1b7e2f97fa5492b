package models

const (
	// contextOneH100 is the CUDA context of one process with torch on an H100 at
	// TP 1: 79.18 - 78.66 GiB in each of the 0.26 runs (78.68 of 79.19 in those of 0.19).
	contextOneH100 = 52 * gib / 100
	// contextNCCL is what NCCL and the peers' contexts add before vLLM's first
	// snapshot: 77.71 (0.26, TP 2) and 77.66 (0.19, TP 2) in place of 78.66 free.
	contextNCCL = 97 * gib / 100
	// contextPeer is what each further rank adds: 77.64 free at TP 4.
	contextPeer = gib / 100
)

// contextBytes is what a rank's process takes of its GPU before vLLM counts:
// the CUDA context, and with more than one rank NCCL's buffers. It lies outside
// gpu_memory_utilization. ok is false on devices where nobody measured it.
func contextBytes(g GPU, world int64) (n int64, ok bool) {
	if g.Context == 0 {
		return 0, false
	}
	if world <= 1 {
		return g.Context, true
	}
	return g.Context + contextNCCL + (world-2)*contextPeer, true
}

// nonTorch is what the profile run finds taken beside torch's own memory:
// kernels' code, and with tensor parallelism the buffers of the all-reduce
// backends. By version and ranks, from H100 runs:
//
//	           one GPU      TP 2         TP 4    pipeline
//	0.11       0.13-0.14    0.54-0.55
//	0.19       0.24-0.25    2.06-2.10    2.13    0.07
//	0.26       0.22-0.24    0.06
//
// 2 GiB of it at TP are the fused all-reduce's workspace, which is made where
// FlashInfer is installed; the 0.26 runs had none. low and high say so.
//
// oddVocab adds 0.21 GiB: both Granite 3.1 models take it on the V1 runner of
// 0.19, and of all models measured only theirs have a vocabulary that is no multiple of
// 16. Triton then compiles the sampling kernel without alignment, and the driver
// reserves local memory for what spills.
func nonTorch(v release, oddVocab bool, tp, pp int64) (value, low, high int64) {
	const hundredth = gib / 100
	switch {
	case tp > 1 && v >= rel26:
		return 6 * hundredth, 5 * hundredth, 220 * hundredth
	case tp > 1 && v >= rel17:
		n := 207*hundredth + (tp-2)*3*hundredth
		return n, 6 * hundredth, n + n/20
	case tp > 1:
		return 55 * hundredth, 50 * hundredth, 220 * hundredth
	case pp > 1:
		return 7 * hundredth, 5 * hundredth, 25 * hundredth
	}
	value, low, high = 14*hundredth, 12*hundredth, 35*hundredth
	if v >= rel17 {
		value, low, high = 25*hundredth, 22*hundredth, 48*hundredth
	}
	if v >= rel26 {
		value, low = 22*hundredth, 21*hundredth
	}
	if oddVocab {
		value += 21 * hundredth
	}
	return value, low, high
}

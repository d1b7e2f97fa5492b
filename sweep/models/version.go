package models

// NewestVersion is the newest vLLM whose behaviour the arithmetic was written
// for: what an empty Request.Version means.
const NewestVersion = "0.33.0"

type release = Release

const (
	rel08   release = 8_000
	rel17   release = 17_000
	rel20   release = 20_000
	rel20p1 release = 20_001
	rel22   release = 22_000
	rel26   release = 26_000
	rel27   release = 27_000
	rel29   release = 29_000
	newest  release = 33_000
)

// parseVersion is ParseRelease, for which "" is the newest.
func parseVersion(s string) (v release, ok bool) {
	if s == "" {
		return newest, true
	}
	return ParseRelease(s)
}

// DefaultUtilization is gpu_memory_utilization where nobody sets it.
// Source: vllm/config/cache.py: 0.9 to 0.19, 0.92 from 0.20.0.
func (v release) utilization() float64 {
	if v >= rel20 {
		return 0.92
	}
	return 0.9
}

// runner is the model runner that vLLM chooses by itself. sure is false in the
// versions whose list of models was not read.
// Source: vllm/config/vllm.py, use_v2_model_runner. 0.26: V2 for models without
// experts and state layers, and for a short list with experts; from 0.29: V2.
func (v release) runner(a *Architecture) (name string, sure bool) {
	switch {
	case v >= rel29:
		return runnerV2, true
	case v >= rel26:
		if a == nil {
			return runnerV2, false
		}
		if a.stateLayers() {
			return runnerV1, v < rel26+1_000
		}
		if a.MoE == nil {
			return runnerV2, v < rel26+1_000
		}
		switch a.Architecture {
		case "DeepseekV2ForCausalLM", "GraniteMoeForCausalLM", "Qwen2MoeForCausalLM":
			return runnerV2, v < rel26+1_000
		}
		return runnerV1, v < rel26+1_000
	case v >= rel22:
		return runnerV1, false
	}
	return runnerV1, true
}

const (
	runnerV1 = "v1"
	runnerV2 = "v2"
)

// graphsInBudget says that vLLM takes an estimate of its CUDA graphs off the
// budget: from 0.20 with the V1 runner (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS),
// from 0.29 with the V2 runner too; before, its V2 estimate is 0.
// Source: vllm/v1/worker/gpu_worker.py and worker/gpu/model_runner.py.
func (v release) graphsInBudget(runner string) bool {
	return v >= rel29 || (v >= rel20 && runner == runnerV1)
}

// consumed says that vLLM counts weights and all else that stays as one difference
// of free memory, the runner's buffers and the experts' workspace included.
// Source: vllm/utils/mem_utils.py, memory_profiling; the wording "consumed memory" of 0.27 on.
func (v release) consumed() bool { return v >= rel27 }

// loadSplit is max_split_size while weights load: 20 MiB in 0.26, none in 0.19
// (gpu_worker.load_model). Between the two it was not read; the difference is
// under 0.5 % of the weights.
func (v release) loadSplit() int64 {
	if v >= rel26 {
		return 20 * mib
	}
	return 0
}

// maxNum is max_num_batched_tokens and max_num_seqs where nobody sets them.
func (release) maxNum(g GPU, serve bool) (tokens, seqs int64) {
	return BatchDefaults(g.TotalBytes >= 70*gib && g.Arch != "ampere", serve)
}

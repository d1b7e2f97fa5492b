package models

// A Request is what the arithmetic needs to know of a profile. nil or "" is
// left to vLLM, whose defaults for Version then apply.
type Request struct {
	Dtype                string // "auto", "bfloat16", ...
	KVCacheDtype         string // "auto", "fp8", ...
	Quantization         string
	TensorParallelSize   int64
	PipelineParallelSize int64
	InputLen             int64
	OutputLen            int64
	BatchSize            int64
	MaxModelLen          *int64
	MaxNumSeqs           *int64
	MaxNumBatchedTokens  *int64
	GPUMemoryUtilization *float64
	KVCacheMemoryBytes   *int64
	BlockSize            *int64
	EnforceEager         bool
	Version              string // of vLLM, "0.26.0"; "": the newest that the arithmetic knows
	ModelRunner          string // "v1", "v2", "auto" or ""
	Defaults             string // "serve": the API server's token and sequence limits; else those of the benchmark
	CompileCache         string // "warm": kernels come compiled and tuned from a cache; else they are made in the run
	Speculative          *Speculative
	PrefixCaching        bool     // asked for: states are kept for other prompts
	NotCounted           []string // flags that take memory that the arithmetic does not know: each is warned of
	Given                *Given   // figures that are known better; nil: none
	Laws                 *Laws    // what was measured; nil: what the package ships
}

// A Figure is one estimate. Value is nil where the arithmetic cannot tell, and
// Reason says why. Low and High hold the truth in at least nine runs of ten.
type Figure struct {
	Value  *int64 `json:"value"`
	Low    *int64 `json:"low"`
	High   *int64 `json:"high"`
	Source string `json:"source,omitempty"` // the formula's name
	Reason string `json:"reason,omitempty"`
}

// An Estimate is what one profile will need, in bytes per rank. Its JSON is the
// `estimate` of plan --json.
//
// Tensor-parallel ranks are alike. Of pipeline stages, which are not, Weights,
// Activations and KVCache are those of the first stage, which is the one whose
// figures vLLM prints at INFO, so that estimate and measurement are of the same
// rank; blocks, tokens, concurrency and Fits follow from the stage with the
// least room, as they do in vLLM. Stages has them all.
type Estimate struct {
	Weights     Figure `json:"weights_bytes"`
	Activations Figure `json:"activations_bytes"`
	NonTorch    Figure `json:"non_torch_bytes"`
	CUDAGraphs  Figure `json:"cuda_graphs_bytes"`
	Context     Figure `json:"context_bytes"`
	Buffers     Figure `json:"buffers_bytes"`
	Requested   Figure `json:"requested_bytes"`
	KVCache     Figure `json:"kv_cache_bytes"`

	KVCacheTokens       Figure   `json:"kv_cache_tokens"`
	MaxConcurrency      *float64 `json:"max_concurrency"` // at MaxModelLen
	MaxContext          *int64   `json:"max_context"`     // the longest that would fit
	MaxModelLen         *int64   `json:"max_model_len"`
	MaxNumBatchedTokens *int64   `json:"max_num_batched_tokens"` // effective
	MaxNumSeqs          *int64   `json:"max_num_seqs"`           // effective
	KVBytesPerToken     *int64   `json:"kv_bytes_per_token"`     // of one rank
	ModelRunner         string   `json:"model_runner"`           // the one assumed
	Version             string   `json:"vllm_version"`           // the one assumed

	// KVCacheBlocks is how many blocks vLLM will make, of the pool that all
	// groups of layers share.
	KVCacheBlocks *int64 `json:"kv_cache_blocks"`
	// KVUsed is what BatchSize sequences of InputLen + OutputLen tokens fill.
	KVUsed *int64 `json:"kv_used_bytes"`
	// GraphEstimate is what vLLM itself takes off the budget for CUDA graphs;
	// nil where it takes off nothing.
	GraphEstimate *int64 `json:"graph_estimate_bytes"`
	// BuffersInBudget says that vLLM's account has Buffers in it, as part of what it calls
	// consumed: from 0.27 on.
	BuffersInBudget bool `json:"buffers_in_budget"`
	// ActivationsAt is the moment of the arithmetic's activation peak: "forward", "experts",
	// "state", "latent" (MLA's profile), "head" or "sampler"; "" where it has none.
	ActivationsAt string `json:"activations_at,omitempty"`
	// Stages holds one entry a pipeline stage, where there is more than one.
	Stages []StageEstimate `json:"stages,omitempty"`

	// Growth is what serving takes beyond requested + context + graphs outside the
	// budget, at its highest. ServingShortBy is what is missing for it on the device,
	// negative what is to spare; MayRunOut says that it is within the interval that it does.
	Growth         Figure `json:"growth_bytes"`
	ServingShortBy *int64 `json:"serving_short_by_bytes"`
	MayRunOut      bool   `json:"may_run_out_while_serving"`

	// Laws says which measurements the terms rest on.
	Laws []LawSource `json:"laws"`

	Fits     *bool    `json:"fits"`
	ShortBy  *int64   `json:"short_by_bytes"` // how much is missing; negative: to spare
	Reason   string   `json:"reason,omitempty"`
	Warnings []string `json:"warnings,omitempty"` // e.g. batch x length exceeds the KV tokens
}

// A StageEstimate is what the ranks of one pipeline stage need.
type StageEstimate struct {
	Layers      int64 `json:"layers"`
	Weights     int64 `json:"weights_bytes"`
	Activations int64 `json:"activations_bytes"`
	KVCache     int64 `json:"kv_cache_bytes"`
}

// A GPU is a device of the catalogue, or a real one.
type GPU struct {
	Name        string `json:"name"`               // "h100-80gb"
	Product     string `json:"product"`            // as the driver names it
	Vendor      string `json:"vendor"`             // "nvidia", "amd"
	TotalBytes  int64  `json:"total_bytes"`        // as torch counts it (mem_get_info)
	DriverTotal int64  `json:"driver_total_bytes"` // as the driver counts it, reserve included
	Reserve     int64  `json:"reserve_bytes"`      // the driver's own
	Context     int64  `json:"context_bytes"`      // of one process with torch, before vLLM allocates; 0: as the laws have it
	Arch        string `json:"arch,omitempty"`     // "hopper", "ampere", "cdna3", ...
	SMs         int64  `json:"sms,omitempty"`      // streaming multiprocessors, or compute units; 0: not known
	L2          int64  `json:"l2_bytes,omitempty"` // second-level cache; 0: not known
	Nominal     bool   `json:"nominal,omitempty"`  // sizes from the data sheet, seen by nobody whom Source names
	Source      string `json:"source"`
}

package runner

// GiB is the unit of every "GB" and "GiB" that vLLM prints.
const GiB = 1 << 30

// An Account is what vLLM's own log says of its memory: vllm_internal_metrics
// of run.json. Figures are per GPU, as vLLM prints them: KV is the minimum over
// ranks; weights, activations, non-torch and graphs the maximum. GiB as printed.
// nil: not in the log.
type Account struct {
	// Label is what tells this engine from the others of its log; "" where it is
	// the only one.
	Label string `json:"label,omitempty"`

	VLLMVersion *string `json:"vllm_version"`
	Engine      *string `json:"engine"`       // "V0", "V1"
	ModelRunner *string `json:"model_runner"` // "v1", "v2"
	Platform    *string `json:"platform"`     // "cuda", "rocm", "cpu", "tpu", "xpu", "hpu", "npu"

	NumGPUBlocks          *int64   `json:"num_gpu_blocks"`
	NumCPUBlocks          *int64   `json:"num_cpu_blocks"`
	BlockSize             *int64   `json:"block_size"`
	TotalGPUKVCacheTokens *int64   `json:"total_gpu_kv_cache_tokens"`
	TotalGPUKVCacheGB     *float64 `json:"total_gpu_kv_cache_gb"`
	AvailableKVCacheGB    *float64 `json:"available_kv_cache_gb"`
	AttentionBackend      *string  `json:"attention_backend"`
	ModelWeightsGB        *float64 `json:"model_weights_gb"`
	ActivationsGB         *float64 `json:"activations_gb"`
	NonTorchGB            *float64 `json:"non_torch_gb"`
	GraphCaptureGB        *float64 `json:"graph_capture_gb"`
	GraphEstimateGB       *float64 `json:"graph_estimate_gb"`
	TotalAllocatedGB      *float64 `json:"total_allocated_gb"`
	RequestedMemoryGB     *float64 `json:"requested_memory_gb"`
	TotalGPUMemoryGB      *float64 `json:"total_gpu_memory_gb"`
	FreeMemoryGB          *float64 `json:"free_memory_gb"`
	GPUMemoryUtilization  *float64 `json:"gpu_memory_utilization"`
	MaxModelLen           *int64   `json:"max_model_len"`
	MaxConcurrency        *float64 `json:"max_concurrency"`
	MaxNumBatchedTokens   *int64   `json:"max_num_batched_tokens"`
	MaxNumSeqs            *int64   `json:"max_num_seqs"`
	KVCacheDtype          *string  `json:"kv_cache_dtype"`
	Dtype                 *string  `json:"dtype"` // without "torch."
	Quantization          *string  `json:"quantization"`
	LoadFormat            *string  `json:"load_format"`
	TensorParallelSize    *int64   `json:"tensor_parallel_size"`
	PipelineParallelSize  *int64   `json:"pipeline_parallel_size"`
	Architecture          *string  `json:"architecture"`
	Model                 *string  `json:"model"`
	CUDAGraphsEnabled     *bool    `json:"cuda_graphs_enabled"`
	CompileCache          *string  `json:"compile_cache"` // "cold", "warm", "off"
	LoadSeconds           *float64 `json:"load_seconds"`
	InitEngineSeconds     *float64 `json:"init_engine_seconds"`
	CompileSeconds        *float64 `json:"compile_seconds"`

	// What lies outside of the engine's own memory, where there is such: weights
	// that another process holds, KV cache in the host's memory.
	ExternalWeightsGB *float64 `json:"external_weights_gb,omitempty"`
	HostKVCacheGB     *float64 `json:"host_kv_cache_gb,omitempty"`

	Ranks   []AccountRank            `json:"ranks"`
	Budget  []RankBudget             `json:"budget"`
	Sources map[string]AccountSource `json:"sources"`           // field (ranks[1].model_weights_gb): where it was read
	Derived map[string]string        `json:"derived,omitempty"` // field: how it was worked out
	Missing map[string]string        `json:"missing,omitempty"` // field: why it is null
	Error   *AccountError            `json:"error"`

	// NoHigherShare is why no higher gpu_memory_utilization may be proposed,
	// whatever the figures: "" where they decide.
	NoHigherShare string `json:"no_higher_share,omitempty"`

	// UnreadLines look like memory figures but were not understood.
	UnreadLines []AccountSource `json:"unread_lines,omitempty"`
	UnreadCount int64           `json:"unread_count"`
}

// An AccountRank is one rank's share of the account; nil where that rank did
// not print it.
type AccountRank struct {
	Rank               int      `json:"rank"`
	PID                *int     `json:"pid"`
	ModelWeightsGB     *float64 `json:"model_weights_gb"`
	LoadSeconds        *float64 `json:"load_seconds"`
	AvailableKVCacheGB *float64 `json:"available_kv_cache_gb"`
	ActivationsGB      *float64 `json:"activations_gb"` // without the graph estimate, whatever the wording
	NonTorchGB         *float64 `json:"non_torch_gb"`
	GraphCaptureGB     *float64 `json:"graph_capture_gb"`
	GraphEstimateGB    *float64 `json:"graph_estimate_gb"`
	RequestedMemoryGB  *float64 `json:"requested_memory_gb"`
	TotalGPUMemoryGB   *float64 `json:"total_gpu_memory_gb"`
	FreeMemoryGB       *float64 `json:"free_memory_gb"`
	ConsumedGB         *float64 `json:"consumed_gb"` // weights + non-torch where the wording joins them
}

// A RankBudget checks requested = consumed + headroom + graph_estimate +
// available_kv on one rank, with the log's own rounding as tolerance. GiB.
type RankBudget struct {
	Rank          int      `json:"rank"`
	Requested     *float64 `json:"requested"`
	Consumed      *float64 `json:"consumed"`
	Headroom      *float64 `json:"headroom"`
	GraphEstimate *float64 `json:"graph_estimate"`
	AvailableKV   *float64 `json:"available_kv"`
	Difference    *float64 `json:"difference"`
	Closes        *bool    `json:"closes"` // nil: a term is missing
	Note          string   `json:"note,omitempty"`
}

// An AccountSource is the line that a figure was read from.
type AccountSource struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line"` // from 1
	Text string `json:"text"` // cut at 500 bytes
}

// An AccountError is the failure that the log tells.
type AccountError struct {
	Kind    string `json:"kind"` // as in schema.md
	Message string `json:"message"`
	Line    int    `json:"line"`
	File    string `json:"file,omitempty"`
	Advice  string `json:"advice,omitempty"` // one sentence that uses the figures

	NeededGB    *float64 `json:"needed_gb,omitempty"`
	AvailableGB *float64 `json:"available_gb,omitempty"`
	MaxLenFits  *int64   `json:"max_model_len_that_fits,omitempty"`
	TriedBytes  *int64   `json:"tried_to_allocate_bytes,omitempty"`
	FreeBytes   *int64   `json:"free_bytes,omitempty"`
	TotalBytes  *int64   `json:"total_bytes,omitempty"`
	GPUIndex    *int     `json:"gpu_index,omitempty"`

	// Stage is where the engine was when memory ran out: "load", "profiling",
	// "kv_alloc", "capture", "warmup", "serving", "wake_up"; "" where no line
	// shows it. RestsOn is the line that shows it, or that the advice rests on.
	Stage   string         `json:"stage,omitempty"`
	RestsOn *AccountSource `json:"rests_on,omitempty"`
	// OtherPID is a process that held the GPU's memory, OtherBytes what it held.
	OtherPID   *int64 `json:"other_pid,omitempty"`
	OtherBytes *int64 `json:"other_bytes,omitempty"`
	// HostBytes is what of the host's memory a process held that the kernel
	// killed, or its container; HostLimitBytes the container's limit.
	HostBytes      *int64 `json:"host_bytes,omitempty"`
	HostLimitBytes *int64 `json:"host_limit_bytes,omitempty"`
}

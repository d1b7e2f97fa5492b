package runner

import (
	"time"

	"github.com/vramsweep/vramsweep/sweep"
)

// SchemaVersion of run.json and of the tables.
const SchemaVersion = "3.1"

// A Result is the record of a run; run.json is its JSON. Fields that end in
// _gb are GiB (2^30 bytes), summed over the run's GPUs unless said otherwise.
// A missing figure is null, and Missing says why.
type Result struct {
	SchemaVersion   string    `json:"schema_version"`
	ProfilerVersion string    `json:"profiler_version"`
	Timestamp       time.Time `json:"timestamp"`

	Run                 RunInfo             `json:"run"`
	ModelInfo           ModelInfo           `json:"model_info"`
	BenchmarkParameters BenchmarkParameters `json:"benchmark_parameters"`
	DtypeMetadata       DtypeMetadata       `json:"dtype_metadata"`
	LatencyStats        *LatencyStats       `json:"latency_stats"`
	VLLMInternalMetrics *Account            `json:"vllm_internal_metrics"`
	MemoryTimeline      *MemoryTimeline     `json:"memory_timeline"`
	DetailedGPUMetrics  *DetailedGPUMetrics `json:"detailed_gpu_metrics"`
	MemoryMeasurements  []Snapshot          `json:"memory_measurements"`
	MemoryBreakdown     *Breakdown          `json:"memory_breakdown"`
	BeyondBudget        []BeyondBudget      `json:"beyond_budget"` // per GPU
	GPUInfo             []Device            `json:"gpu_info"`
	EngineMetadata      EngineMetadata      `json:"engine_metadata"`
	Provenance          Provenance          `json:"provenance"`
	Phases              []PhaseRow          `json:"phases"`
	Ranks               []RankRow           `json:"ranks"`
	Steps               []StepRow           `json:"steps"`
	Breakdowns          []BreakdownRow      `json:"breakdowns"`
	RawLogs             []RawLog            `json:"raw_logs"`
	LogEvents           []LogEvent          `json:"log_events"` // the moments that the phases were made from
	Session             *Session            `json:"session,omitempty"`
	Start               *Start              `json:"start,omitempty"`
	Files               []FileInfo          `json:"files,omitempty"` // beside run.json, but for the raw logs; the sink fills it

	Missing map[string]string `json:"missing,omitempty"` // path of the field: reason
}

// RunInfo says which run this is and how it ended.
type RunInfo struct {
	RunID          string            `json:"run_id"`
	ProfileID      string            `json:"profile_id"`
	Execution      string            `json:"execution"`
	Sweep          string            `json:"sweep"`
	Repeat         int               `json:"repeat"`
	Attempts       int               `json:"attempts"`
	StartedAt      time.Time         `json:"started_at"`
	EndedAt        time.Time         `json:"ended_at"`
	WallS          float64           `json:"wall_s"`
	OverheadS      float64           `json:"overhead_s"` // vramsweep's own share of wall_s: all but the engine and waiting for idle GPUs
	Outcome        Outcome           `json:"outcome"`
	OutcomeDetail  string            `json:"outcome_detail,omitempty"`
	ErrorLine      string            `json:"error_line,omitempty"`
	ExitCode       *int              `json:"exit_code"`
	Synthetic      bool              `json:"synthetic"`
	Command        []string          `json:"command"`
	Environment    map[string]string `json:"environment"`
	Axes           map[string]any    `json:"axes"` // every axis of the matrix at this point
	Notes          []string          `json:"notes,omitempty"`
	Leftovers      []Process         `json:"leftover_processes,omitempty"`
	Holders        []Process         `json:"gpu_holders,omitempty"`     // held GPU memory at the baseline or the end
	SkippedBecause string            `json:"skipped_because,omitempty"` // run_id of the run that explains it
	FailedIn       Phase             `json:"failed_in,omitempty"`       // the phase in which a failed run ended
	Quality        Quality           `json:"quality,omitempty"`         // what the samples cover
	QualityDetail  string            `json:"quality_detail,omitempty"`  // why it is not full
	Stages         []Stage           `json:"stages,omitempty"`          // what vramsweep did, when
	Shard          string            `json:"shard,omitempty"`           // part of the plan, as "3/6"
	Lane           *LaneInfo         `json:"lane,omitempty"`            // what went on beside; nil: it did not come to measuring
}

// LaneInfo says what else went on while a run measured.
type LaneInfo struct {
	Number     int      `json:"number"`         // of the lane, from 1
	Busy       int      `json:"lanes_busy"`     // lanes that had a run when it began to measure, its own included
	Alone      bool     `json:"measured_alone"` // no other run of the execution measured meanwhile
	HostCPUPct *float64 `json:"host_cpu_pct"`   // of all CPUs of the host, while it measured
	WaitedS    float64  `json:"waited_s"`       // for its turn to measure
}

// A Stage is a part of a run as vramsweep goes through it (0 baseline to 6
// final, runner.go; 7 is the arithmetic that follows). Offsets and durations are monotonic: a clock that is set
// moves StartedAt alone.
type Stage struct {
	Stage     int       `json:"stage"` // -1: waiting for idle GPUs, before the run's start
	Name      string    `json:"name"`  // "idle_wait", "baseline", "monitor", "engine", "stop", "read", "detail", "final", "attribute"
	StartedAt time.Time `json:"started_at"`
	OffsetS   float64   `json:"offset_s"` // since the run's start
	DurationS float64   `json:"duration_s"`
}

// ModelInfo is the model as the plan knew it.
type ModelInfo struct {
	Model        string  `json:"model"`
	HFModelID    string  `json:"hf_model_id"`
	Family       string  `json:"family,omitempty"`
	Architecture *string `json:"architecture"`
	Params       *int64  `json:"params"`
	NumLayers    *int64  `json:"num_layers"`
	NumHeads     *int64  `json:"num_heads"`
	NumKVHeads   *int64  `json:"num_kv_heads"`
	HeadDim      *int64  `json:"head_dim"`
	HiddenSize   *int64  `json:"hidden_size"`
	VocabSize    *int64  `json:"vocab_size"`
	Source       string  `json:"source"` // "catalogue", "config.json", "flags", "model block", "unknown"
}

// EngineCommand is BenchmarkParameters.Engine of a run of any command, where no
// engine was meant to run (`vramsweep monitor`): there is no account of vLLM's.
const EngineCommand = "command"

// BenchmarkParameters are what was asked (null: left to vLLM) and what vLLM
// said it used.
type BenchmarkParameters struct {
	Engine     string `json:"engine"` // "vllm", "simulator", "import", "command"
	EngineMode string `json:"engine_mode"`
	sweep.Asked
	Flags     map[string]any `json:"flags,omitempty"` // vLLM's own flags
	Effective Effective      `json:"effective"`
}

// Effective is what vLLM said it used.
type Effective struct {
	EffectiveDtype                *string  `json:"dtype" parquet:"effective_dtype,optional,dict" doc:"What vLLM said it used."`
	EffectiveKVCacheDtype         *string  `json:"kv_cache_dtype" parquet:"effective_kv_cache_dtype,optional,dict" doc:"What vLLM said it used."`
	EffectiveQuantization         *string  `json:"quantization" parquet:"effective_quantization,optional,dict" doc:"What vLLM said it used."`
	EffectiveMaxModelLen          *int64   `json:"max_model_len" parquet:"effective_max_model_len,optional,dict" unit:"tokens" doc:"What vLLM said it used."`
	EffectiveMaxNumSeqs           *int64   `json:"max_num_seqs" parquet:"effective_max_num_seqs,optional,dict" doc:"What vLLM said it used."`
	EffectiveMaxNumBatchedTokens  *int64   `json:"max_num_batched_tokens" parquet:"effective_max_num_batched_tokens,optional,dict" unit:"tokens" doc:"What vLLM said it used."`
	EffectiveGPUMemoryUtilization *float64 `json:"gpu_memory_utilization" parquet:"effective_gpu_memory_utilization,optional" unit:"ratio" doc:"What vLLM said it used."`
	EffectiveBlockSize            *int64   `json:"block_size" parquet:"effective_block_size,optional,dict" unit:"tokens" doc:"What vLLM said it used."`
}

// DtypeMetadata says what a parameter and a token cost.
type DtypeMetadata struct {
	Dtype               *string  `json:"dtype"`
	KVCacheDtype        *string  `json:"kv_cache_dtype"`
	Quantization        *string  `json:"quantization"`
	WeightBytesPerParam *float64 `json:"weight_bytes_per_param"`
	KVBytesPerToken     *int64   `json:"kv_bytes_per_token"` // all layers, all ranks
}

// LeastForP99 is the least number of iterations whose 99th percentile is more
// than another name of the slowest one.
const LeastForP99 = 100

// LatencyStats are vLLM's own: seconds of one iteration, which generates
// batch_size x output_len tokens.
type LatencyStats struct {
	AvgS             float64            `json:"avg_s"`
	Percentiles      map[string]float64 `json:"percentiles"` // "p10" ... "p99"; no p99 below LeastForP99 iterations
	NIters           int                `json:"n_iters"`
	LatenciesS       []float64          `json:"latencies_s"`
	OutputTokensPerS *float64           `json:"output_tokens_per_s"`
}

// A RawLog is a log file beside run.json.
type RawLog struct {
	Name   string `json:"name"` // "stdout", "stderr"
	Path   string `json:"path"` // relative to the run's folder
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	Tail   string `json:"tail"` // last 4 KiB
}

// A FileInfo is a file that the sink keeps beside run.json.
type FileInfo struct {
	Name   string `json:"name"` // relative to the run's folder
	Bytes  int64  `json:"bytes"`
	Rows   *int64 `json:"rows,omitempty"` // of a table
	SHA256 string `json:"sha256"`
}

// MemoryTimeline condenses the samples. All figures are about Window.
type MemoryTimeline struct {
	TimelineStats
	Window     TimeWindow       `json:"window"` // from engine ready to the end of measuring
	WholeRun   TimelineStats    `json:"whole_run"`
	IntervalMS IntervalMS       `json:"interval_ms"`
	Missed     int64            `json:"missed"`
	Samplers   []*SamplerReport `json:"samplers"`
	Sampler    *SamplerReport   `json:"sampler"`  // the one that the memory figures come from
	Timeline   []TimelinePoint  `json:"timeline"` // at most 2,000 points, peaks kept
	Extended   TimelineExtended `json:"extended"`
	PerGPU     []GPUTimeline    `json:"per_gpu"`
}

// TimelineStats are over the sums of the run's GPUs at the same tick, GiB.
type TimelineStats struct {
	MinGB      *float64 `json:"min_gb"`
	MaxGB      *float64 `json:"max_gb"`
	MeanGB     *float64 `json:"mean_gb"`
	MedianGB   *float64 `json:"median_gb"`
	P95GB      *float64 `json:"p95_gb"`
	NumSamples int64    `json:"num_samples"`
}

// TimeWindow is a stretch of a run and what it is.
type TimeWindow struct {
	From *time.Time `json:"from"`
	To   *time.Time `json:"to"`
	What string     `json:"what"` // "engine ready to end of measuring", "whole run: ..."
}

// A TimelinePoint is one thinned sample: sums over the run's GPUs.
type TimelinePoint struct {
	Timestamp time.Time `json:"timestamp"`
	MemoryGB  *float64  `json:"memory_gb"`
	PowerW    *float64  `json:"power_w"`
	TempC     *float64  `json:"temp_c"` // the hottest GPU
	Phase     Phase     `json:"phase"`
}

// TimelineExtended are power, temperature, utilization and energy of Window.
type TimelineExtended struct {
	Power       PowerStats       `json:"power"`
	Temperature TemperatureStats `json:"temperature"`
	Utilization UtilizationStats `json:"utilization"`
	EnergyJ     *float64         `json:"energy_j"`
	EnergyOffJ  *float64         `json:"energy_uncertainty_j"`
	EnergyFrom  string           `json:"energy_from,omitempty"` // "counter" or "power"
}

// PowerStats are sums over the run's GPUs, W.
type PowerStats struct {
	MinW  *float64 `json:"min_w"`
	MaxW  *float64 `json:"max_w"`
	MeanW *float64 `json:"mean_w"`
	Kind  string   `json:"kind,omitempty"` // "instant" or "averaged_1s"
}

// TemperatureStats are of the hottest GPU, °C.
type TemperatureStats struct {
	MinC  *float64 `json:"min_c"`
	MaxC  *float64 `json:"max_c"`
	MeanC *float64 `json:"mean_c"`
}

// UtilizationStats are means over the run's GPUs, per cent.
type UtilizationStats struct {
	MinPct  *float64 `json:"min_pct"`
	MaxPct  *float64 `json:"max_pct"`
	MeanPct *float64 `json:"mean_pct"`
}

// GPUTimeline are the figures of one GPU over Window.
type GPUTimeline struct {
	GPUIndex int `json:"gpu_index"`
	TimelineStats
	Extended TimelineExtended `json:"extended"`
}

// DetailedGPUMetrics is one full reading of the GPU tools. Names are those of
// schema 3.0 and serve NVIDIA as well; mb is MiB in both vendors' tools.
type DetailedGPUMetrics struct {
	Tool      string            `json:"tool"`
	Timestamp time.Time         `json:"timestamp"`
	GPUs      []GPUDetail       `json:"gpus"`
	Missing   map[string]string `json:"missing,omitempty"`
}

// GPUDetail is one GPU of a full reading.
type GPUDetail struct {
	GPUID             int          `json:"gpu_id"`
	VRAMUsedMB        *float64     `json:"vram_used_mb"`
	VRAMFreeMB        *float64     `json:"vram_free_mb"`
	VRAMTotalMB       *float64     `json:"vram_total_mb"`
	VRAMReservedMB    *float64     `json:"vram_reserved_mb"`
	VRAMPercent       *float64     `json:"vram_percent"`
	PowerWatts        *float64     `json:"power_watts"`
	HotspotTempC      *float64     `json:"hotspot_temp_c"`
	MemoryTempC       *float64     `json:"memory_temp_c"`
	GfxUtilizationPct *float64     `json:"gfx_utilization_pct"`
	MemUtilizationPct *float64     `json:"mem_utilization_pct"`
	ClockGfxMHz       *float64     `json:"clock_gfx_mhz"`
	ClockMemMHz       *float64     `json:"clock_mem_mhz"`
	ThrottleReasons   []string     `json:"throttle_reasons,omitempty"`
	ECCUncorrected    *int64       `json:"ecc_uncorrected,omitempty"`
	Processes         []GPUProcess `json:"processes"` // null: not known; empty: none
}

// GPUProcess is a process that a GPU tool lists.
type GPUProcess struct {
	ProcessInfo string     `json:"process_info"` // "python (PID: 12345)"
	PID         int        `json:"pid"`
	Name        string     `json:"name"`
	MemoryUsage *ValueUnit `json:"memory_usage"`
}

// ValueUnit is a figure with its unit.
type ValueUnit struct {
	Value float64 `json:"value"`
	Unit  string  `json:"unit"` // "MB" (MiB) or "B"
}

// A Snapshot is the memory at a phase boundary.
type Snapshot struct {
	Phase Phase         `json:"phase"` // the phase that begins here
	T     time.Time     `json:"t"`
	GPUs  []SnapshotGPU `json:"gpus"`
}

// SnapshotGPU is one GPU of a Snapshot.
type SnapshotGPU struct {
	GPUIndex  int   `json:"gpu_index"`
	UsedBytes int64 `json:"used_bytes"`
}

// Confidence of a figure, in falling order of trust.
type Confidence string

// The levels.
const (
	HighFromVLLMLogs   Confidence = "high_from_vllm_logs"
	HighMeasuredStep   Confidence = "high_measured_step"
	HighCalculated     Confidence = "high_calculated"
	LowEstimated       Confidence = "low_estimated"
	CalculatedResidual Confidence = "calculated_residual"
)

// A Breakdown divides the net increase into parts that add up to it exactly.
type Breakdown struct {
	TotalMeasuredGB     *float64   `json:"total_measured_gb"` // highest sample, all GPUs at the same tick
	BaselineGB          *float64   `json:"baseline_gb"`
	NetIncreaseGB       *float64   `json:"net_increase_gb"`
	PeakAt              *time.Time `json:"peak_at"`          // of total_measured_gb
	PeakLowerBound      bool       `json:"peak_lower_bound"` // what lies between two samples may be higher
	PeakPhase           Phase      `json:"peak_phase,omitempty"`
	ModelWeightsGB      *float64   `json:"model_weights_gb"`
	KVCacheGB           *float64   `json:"kv_cache_gb"`
	GraphCaptureGB      *float64   `json:"graph_capture_gb"`
	NonTorchGB          *float64   `json:"non_torch_gb"`
	ContextGB           *float64   `json:"context_gb"`
	BuffersGB           *float64   `json:"buffers_gb"`
	ActivationsGB       *float64   `json:"activations_gb"` // what of the reserved activation is in use at the highest sample
	GrowthExcessGB      *float64   `json:"growth_excess_gb"`
	FrameworkOverheadGB *float64   `json:"framework_overhead_gb"` // what is left; negative is kept and flagged

	ActivationsReservedGB *float64 `json:"activations_reserved_gb"`
	HeadroomUnusedGB      *float64 `json:"headroom_unused_gb"`
	KVCacheUsedGB         *float64 `json:"kv_cache_used_gb"`
	KVUsedSource          string   `json:"kv_used_source,omitempty"` // "calculated" or "engine"
	OverheadPercentage    *float64 `json:"overhead_percentage"`

	// ResidualAfterCaptureGB is what was left right after graph capture of the
	// driver's level, less context, weights, non-torch, graphs, KV and buffers.
	ResidualAfterCaptureGB *float64 `json:"residual_after_capture_gb"`
	// NCCLInContextGB is the driver's step of NCCL and custom all-reduce, a part
	// of ContextGB where there are several ranks.
	NCCLInContextGB *float64 `json:"nccl_in_context_gb,omitempty"`

	EstimationMethod       string                `json:"estimation_method"`
	ConfidenceLevels       map[string]Confidence `json:"confidence_levels"`
	VLLMReportedValuesUsed bool                  `json:"vllm_reported_values_used"`
	Flags                  []string              `json:"flags,omitempty"` // "negative framework_overhead: ..."
	// UncertaintyBytes is how far figures may be off, by field: for what the samples
	// do not show, and for what vLLM's log rounds.
	UncertaintyBytes map[string]int64 `json:"uncertainty_bytes,omitempty"`
}

// BeyondBudget explains, for one GPU, use above gpu_memory_utilization. Bytes.
type BeyondBudget struct {
	GPUIndex               int        `json:"gpu_index"`
	RequestedBytes         *int64     `json:"requested_bytes"`
	HighestBytes           *int64     `json:"highest_bytes"`
	HighestAt              *time.Time `json:"highest_at"`
	HighestPhase           Phase      `json:"highest_phase,omitempty"`
	GrossBytes             *int64     `json:"gross_bytes"` // highest - requested
	GrossUncertaintyBytes  *int64     `json:"gross_uncertainty_bytes"`
	NetBytes               *int64     `json:"net_bytes"` // gross - baseline - context
	ContextBytes           *int64     `json:"context_bytes"`
	GraphsOutsideBytes     *int64     `json:"graphs_outside_budget_bytes"`
	HeadroomRetakenBytes   *int64     `json:"headroom_retaken_bytes"`
	HeadroomUnusedBytes    *int64     `json:"headroom_unused_bytes"`
	GrowthExcessBytes      *int64     `json:"growth_excess_bytes"`
	SafeUtilization        *float64   `json:"safe_utilization"` // the highest that this run proves safe on this GPU
	SafeKVCacheMemoryBytes *int64     `json:"safe_kv_cache_memory_bytes"`
	KVTokensGained         *int64     `json:"kv_tokens_gained"` // against this run; negative is a cost
	Sentence               string     `json:"sentence"`
}

// EngineMetadata is what ran.
type EngineMetadata struct {
	Engine           string  `json:"engine"` // "vllm", "simulator", "command"
	VLLMVersion      *string `json:"vllm_version"`
	TorchVersion     *string `json:"torch_version"`
	EngineVersion    *string `json:"engine_version"` // "V0", "V1"
	ModelRunner      *string `json:"model_runner"`
	AttentionBackend *string `json:"attention_backend"`
	CompileCache     *string `json:"compile_cache"` // "cold", "warm", "off"
	LoadFormat       *string `json:"load_format"`
	PythonVersion    *string `json:"python_version,omitempty"`
}

// Provenance is what moves the figures and stands in no setting.
type Provenance struct {
	Host          string            `json:"host"`
	OS            string            `json:"os"`
	DriverVersion *string           `json:"driver_version"`
	VLLMEnv       map[string]string `json:"vllm_env"` // every VLLM_* variable
	Vramsweep     string            `json:"vramsweep_version"`
}

// The rows of the tables phases, ranks, steps and breakdowns, as run.json holds
// them: the tables put the run's key before them. The parquet tag names the
// column, unit and doc describe it.

// A PhaseRow is one phase on one GPU (nil: the host).
type PhaseRow struct {
	GPUIndex     *int32     `json:"gpu_index" parquet:"gpu_index,optional" doc:"The driver's index; null: the host."`
	Phase        Phase      `json:"phase" parquet:"phase,dict" doc:"Name of the phase."`
	StartedAt    *time.Time `json:"started_at" parquet:"started_at,optional,timestamp(microsecond)" doc:"Start of the phase."`
	EndedAt      *time.Time `json:"ended_at" parquet:"ended_at,optional,timestamp(microsecond)" doc:"End of the phase."`
	DurationS    *float64   `json:"duration_s" parquet:"duration_s,optional" unit:"s" doc:"Length of the phase."`
	UncertaintyS *float64   `json:"uncertainty_s" parquet:"uncertainty_s,optional" unit:"s" doc:"Of its start."`
	MinBytes     *int64     `json:"memory_min_bytes" parquet:"memory_min_bytes,optional" unit:"bytes" doc:"Lowest sample in the phase."`
	MaxBytes     *int64     `json:"memory_max_bytes" parquet:"memory_max_bytes,optional" unit:"bytes" doc:"Highest sample in the phase."`
	MeanBytes    *int64     `json:"memory_mean_bytes" parquet:"memory_mean_bytes,optional" unit:"bytes" doc:"Mean of the samples in the phase."`
	StartBytes   *int64     `json:"memory_start_bytes" parquet:"memory_start_bytes,optional" unit:"bytes" doc:"At its start."`
	EndBytes     *int64     `json:"memory_end_bytes" parquet:"memory_end_bytes,optional" unit:"bytes" doc:"At its end."`
	EnergyJ      *float64   `json:"energy_j" parquet:"energy_j,optional" unit:"J" doc:"Spent in the phase."`
	MeanPowerW   *float64   `json:"mean_power_w" parquet:"mean_power_w,optional" unit:"W" doc:"Mean power in the phase."`
	Samples      *int64     `json:"samples" parquet:"samples,optional" doc:"Samples of the memory that lie in the phase."`
	LongestGapS  *float64   `json:"longest_gap_s" parquet:"longest_gap_s,optional" unit:"s" doc:"Longest time in the phase without a sample, its bounds included."`
	EnergyMethod string     `json:"energy_method,omitempty" parquet:"energy_method,optional,dict" doc:"counter: the driver's, read at the bounds; power: the instantaneous power over the time."`
	EnergyOffJ   *float64   `json:"energy_uncertainty_j" parquet:"energy_uncertainty_j,optional" unit:"J" doc:"How far energy_j may be off, for the moments of its bounds and for what changed between two samples."`
}

// A RankRow is one rank: vLLM's account of it in bytes.
type RankRow struct {
	Rank                     int32   `json:"rank" parquet:"rank" doc:"From 0."`
	GPUIndex                 *int32  `json:"gpu_index" parquet:"gpu_index,optional" doc:"The driver's index; null on a machine without GPUs."`
	GPUUUID                  *string `json:"gpu_uuid" parquet:"gpu_uuid,optional,dict" doc:"The driver's name of the GPU."`
	ModelWeightsBytes        *int64  `json:"model_weights_bytes" parquet:"model_weights_bytes,optional" unit:"bytes" doc:"As the log says."`
	KVCacheBytes             *int64  `json:"kv_cache_bytes" parquet:"kv_cache_bytes,optional" unit:"bytes" doc:"KV cache of the rank."`
	ActivationsReservedBytes *int64  `json:"activations_reserved_bytes" parquet:"activations_reserved_bytes,optional" unit:"bytes" doc:"Peak of activations in profiling, set aside."`
	CUDAGraphsBytes          *int64  `json:"cuda_graphs_bytes" parquet:"cuda_graphs_bytes,optional" unit:"bytes" doc:"Captured graphs."`
	NonTorchBytes            *int64  `json:"non_torch_bytes" parquet:"non_torch_bytes,optional" unit:"bytes" doc:"Held outside torch."`
	ContextBytes             *int64  `json:"context_bytes" parquet:"context_bytes,optional" unit:"bytes" doc:"The driver's context."`
	BuffersBytes             *int64  `json:"buffers_bytes" parquet:"buffers_bytes,optional" unit:"bytes" doc:"The runner's persistent buffers, calculated."`
	RequestedBytes           *int64  `json:"requested_bytes" parquet:"requested_bytes,optional" unit:"bytes" doc:"The budget: total x utilization."`
	FreeAtStartBytes         *int64  `json:"free_at_start_bytes" parquet:"free_at_start_bytes,optional" unit:"bytes" doc:"Free memory as vLLM saw it at its start."`
	GraphEstimateBytes       *int64  `json:"graph_estimate_bytes" parquet:"graph_estimate_bytes,optional" unit:"bytes" doc:"vLLM's estimate of its graphs."`
	BudgetDifferenceBytes    *int64  `json:"budget_difference_bytes" parquet:"budget_difference_bytes,optional" unit:"bytes" doc:"requested - consumed - headroom - graph estimate - available KV: a check of the reading."`
	TorchAllocatedBytes      *int64  `json:"torch_allocated_bytes" parquet:"torch_allocated_bytes,optional" unit:"bytes" doc:"torch's own figure; session mode only."`
	TorchReservedBytes       *int64  `json:"torch_reserved_bytes" parquet:"torch_reserved_bytes,optional" unit:"bytes" doc:"torch's own figure; session mode only."`
	TorchPeakBytes           *int64  `json:"torch_peak_bytes" parquet:"torch_peak_bytes,optional" unit:"bytes" doc:"torch's own figure; session mode only."`
}

// A StepRow is one step of the driver's account on one GPU: what its memory did
// in a phase.
type StepRow struct {
	GPUIndex        int32      `json:"gpu_index" parquet:"gpu_index" doc:"The driver's index."`
	Step            string     `json:"step" parquet:"step,dict" doc:"context, nccl, load, buffers, profile_peak, estimate_capture, kv_alloc, kernel_warmup, capture, engine_warmup, bench_warmup, measure, left_after."`
	Bytes           *int64     `json:"bytes" parquet:"bytes,optional" unit:"bytes" doc:"Change of the driver's memory."`
	TFrom           *time.Time `json:"t_from" parquet:"t_from,optional,timestamp(microsecond)" doc:"Start of the step."`
	TTo             *time.Time `json:"t_to" parquet:"t_to,optional,timestamp(microsecond)" doc:"End of the step."`
	VLLMBytes       *int64     `json:"vllm_bytes" parquet:"vllm_bytes,optional" unit:"bytes" doc:"What vLLM says of the same."`
	DifferenceBytes *int64     `json:"difference_bytes" parquet:"difference_bytes,optional" unit:"bytes" doc:"bytes - vllm_bytes."`
	Reason          string     `json:"reason,omitempty" parquet:"reason,optional,dict" doc:"Why a figure is null, or what explains the difference."`
	UncertaintyB    *int64     `json:"uncertainty_bytes" parquet:"uncertainty_bytes,optional" unit:"bytes" doc:"How far bytes may be off for what the two samples do not show."`
	LowerBound      *bool      `json:"lower_bound" parquet:"lower_bound,optional" doc:"True: a peak that one sample alone shows; what lies between two samples may be higher."`
}

// A BreakdownRow is one part of the net increase on one rank; the parts of a run
// add up to its net increase.
type BreakdownRow struct {
	Rank       int32      `json:"rank" parquet:"rank" doc:"From 0."`
	Component  string     `json:"component" parquet:"component,dict" doc:"weights, kv_cache, activations, cuda_graphs, non_torch, context, buffers, growth_excess, framework_overhead."`
	Bytes      int64      `json:"bytes" parquet:"bytes" unit:"bytes" doc:"The part; negative is kept."`
	Share      *float64   `json:"share" parquet:"share,optional" unit:"ratio" doc:"Of the rank's net increase."`
	Source     string     `json:"source" parquet:"source,dict" doc:"Where the figure comes from."`
	Confidence Confidence `json:"confidence" parquet:"confidence,dict" doc:"high_from_vllm_logs, high_measured_step, high_calculated, low_estimated, calculated_residual."`
}

// A Start says how the run's engine was started.
type Start struct {
	Mode   string `json:"mode"`             // "cold": executed; "warm": forked from a Python that had vLLM imported
	Reason string `json:"reason,omitempty"` // why it started cold where it might have started warm
	// ImportS is from the start to the first line of the engine process: Python's
	// imports, twice where the engine process is spawned, and the configuration.
	ImportS *float64 `json:"import_s"`
	// EngineProcess says how a warm run's engine process was made.
	EngineProcess string      `json:"engine_process,omitempty"`
	Parent        *WarmParent `json:"parent,omitempty"`
	TryCold       bool        `json:"try_cold,omitempty"` // it failed, maybe for how it was started: a cold attempt follows
}

// A WarmParent is the process that a run was forked from. Its memory is no part
// of the run's.
type WarmParent struct {
	PID      int     `json:"pid"`
	ImportS  float64 `json:"import_s"`  // what its own imports took, once
	Threads  int     `json:"threads"`   // of which a fork takes one along
	RSSBytes *int64  `json:"rss_bytes"` // resident
	PSSBytes *int64  `json:"pss_bytes"` // its share of what it shares with its children
	Served   int     `json:"served"`    // the how manieth run it was, from 1
}

// A Session is what the engine itself told through the session driver.
type Session struct {
	EngineShared     bool           `json:"engine_shared"`
	Position         int            `json:"position"` // in the group, from 0
	GroupSize        int            `json:"group_size"`
	MemoryAtStart    map[int]int64  `json:"memory_at_start_bytes"` // per GPU index
	Growth           map[int]int64  `json:"growth_bytes"`          // per GPU index: the highest use of this profile less that
	KVUsedBlocksPeak *int64         `json:"kv_used_blocks_peak"`
	KVUsedTokensPeak *int64         `json:"kv_used_tokens_peak"`
	Preemptions      *int64         `json:"preemptions"`
	WaitingPeak      *int64         `json:"waiting_peak"`
	Torch            []TorchReading `json:"torch"`
}

// A TorchReading is what torch on one rank said at one moment.
type TorchReading struct {
	Rank           int       `json:"rank"`
	GPUUUID        *string   `json:"gpu_uuid,omitempty"` // the GPU that the rank itself names
	At             time.Time `json:"at"`
	Moment         string    `json:"moment"` // "engine_ready", "profile_start", "warmed_up", "measured"
	AllocatedBytes *int64    `json:"allocated_bytes"`
	ReservedBytes  *int64    `json:"reserved_bytes"`
	PeakBytes      *int64    `json:"peak_bytes"`
	FreeBytes      *int64    `json:"free_bytes"`
	TotalBytes     *int64    `json:"total_bytes"`
}

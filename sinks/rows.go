package sinks

import (
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
)

// The row structs are the schema: the parquet tag names the column and its
// encoding, the unit tag its unit, the doc tag what docs/tables.md and `schema`
// print (that of a setting is its entry in sweep/settings.go). Three rules keep
// the files readable everywhere: a nullable column is tagged optional and is a
// pointer, or a text or a number whose zero stands for null (so parquet-go writes
// it); split stands on no integer (DuckDB cannot read it); and a column is only ever
// added, nullable: readers select columns by name. A nullable whole number of
// timelines says enc:"delta": parquet-go takes that encoding on no pointer, so
// schemaOf puts it in.

// Micros is the instant of a sample: microseconds since 1970-01-01 UTC. Timelines
// have millions of them; the other tables have time.Time. In Parquet both are
// TIMESTAMP(MICROS, UTC).
type Micros int64

// MicrosOf cuts t to whole microseconds.
func MicrosOf(t time.Time) Micros { return Micros(t.UnixMicro()) }

// Time is the instant in UTC.
func (m Micros) Time() time.Time { return time.UnixMicro(int64(m)).UTC() }

// Key stands at the head of every table's row: which run, and what every query
// filters on.
type Key struct {
	RunID     string `parquet:"run_id,dict" doc:"The run: one profile, one repeat, one execution. Joins all tables."`
	Execution string `parquet:"execution,dict" doc:"One go of a sweep file: its start (UTC) and a short hash."`
	Sweep     string `parquet:"sweep,dict" doc:"The sweep block that the profile belongs to."`
	Model     string `parquet:"model,dict" doc:"The model as the sweep file names it."`
	Synthetic bool   `parquet:"synthetic" doc:"True: made by the simulator; never to be mixed with measurements."`
}

// A RunRow is one row of the table runs; its key is run_id. Memory columns are
// sums over the run's GPUs unless the name says max_gpu.
type RunRow struct {
	Key
	ProfileID     string     `parquet:"profile_id,dict" doc:"Hash of the sweep's name and the asked settings: the same on every machine and every night."`
	Repeat        int32      `parquet:"repeat" doc:"Which repeat of the profile, from 1."`
	Attempts      int32      `parquet:"attempts" doc:"Attempts that the run took; the row is about the last one."`
	StartedAt     *time.Time `parquet:"started_at,optional,timestamp(microsecond)" doc:"Start of the final attempt; null only where an imported run does not say."`
	EndedAt       *time.Time `parquet:"ended_at,optional,timestamp(microsecond)" doc:"End of the final attempt."`
	WallS         *float64   `parquet:"wall_s,optional" unit:"s" doc:"Duration of the final attempt."`
	OverheadS     *float64   `parquet:"overhead_s,optional" unit:"s" doc:"vramsweep's own share of wall_s."`
	Outcome       string     `parquet:"outcome,dict" doc:"How the run ended: ok, oom, no_kv_memory, kv_too_small, engine_error, bad_argument, no_result, timeout, startup_timeout, silence_timeout, interrupted, skipped, dirty_gpu."`
	OutcomeDetail *string    `parquet:"outcome_detail,optional,dict" doc:"One sentence on the outcome."`
	ErrorLine     *string    `parquet:"error_line,optional,dict" doc:"The log line that explains a failure."`
	SkippedFor    *string    `parquet:"skipped_because,optional,dict" doc:"run_id of the run that made this one pointless."`

	HFModelID    string   `parquet:"hf_model_id,dict" doc:"What vLLM was given: a Hugging Face id or a folder."`
	Architecture *string  `parquet:"architecture,optional,dict" doc:"Class name in config.json."`
	Family       *string  `parquet:"family,optional,dict" doc:"Family of the model: llama, qwen, ..."`
	Params       *int64   `parquet:"params,optional" doc:"Resident parameters."`
	NumLayers    *int64   `parquet:"num_layers,optional,dict" doc:"Transformer layers."`
	NumHeads     *int64   `parquet:"num_heads,optional,dict" doc:"Attention heads."`
	NumKVHeads   *int64   `parquet:"num_kv_heads,optional,dict" doc:"Heads of keys and values."`
	HeadDim      *int64   `parquet:"head_dim,optional,dict" doc:"Size of one head."`
	HiddenSize   *int64   `parquet:"hidden_size,optional,dict" doc:"Width of the model."`
	VocabSize    *int64   `parquet:"vocab_size,optional,dict" doc:"Size of the vocabulary."`
	WeightBytes  *float64 `parquet:"weight_bytes_per_param,optional" unit:"bytes" doc:"What one parameter takes at the run's dtype."`
	KVTokenBytes *int64   `parquet:"kv_bytes_per_token,optional" unit:"bytes" doc:"KV cache that one token takes: all layers, all ranks."`

	GPUName  *string `parquet:"gpu_name,optional,dict" doc:"Name of the first GPU of the run."`
	GPUCount *int32  `parquet:"gpu_count,optional" doc:"GPUs of the run; 0 on a machine without one, null where none were asked for because the run was skipped."`

	sweep.Asked
	Flags            *string    `parquet:"flags,optional,dict" doc:"Other flags of vLLM that were set: JSON text, keys sorted; null: none."`
	runner.Effective `json:"-"` // in JSON it has the names of sweep.Asked

	Engine           string  `parquet:"engine,dict" doc:"What executed the run: vllm, simulator, import."`
	EngineMode       string  `parquet:"engine_mode,dict" doc:"latency: a process a profile; session: one engine, many profiles."`
	VLLMVersion      *string `parquet:"vllm_version,optional,dict" doc:"As vLLM prints it."`
	TorchVersion     *string `parquet:"torch_version,optional,dict" doc:"Version of torch in the engine."`
	DriverVersion    *string `parquet:"driver_version,optional,dict" doc:"Version of the GPU driver."`
	ModelRunner      *string `parquet:"model_runner,optional,dict" doc:"v1 or v2."`
	AttentionBackend *string `parquet:"attention_backend,optional,dict" doc:"As vLLM names it."`
	CompileCache     *string `parquet:"compile_cache,optional,dict" doc:"cold, warm or off."`
	Host             *string `parquet:"host,optional,dict" doc:"Name of the machine."`
	ProfilerVersion  string  `parquet:"profiler_version,dict" doc:"Version of vramsweep."`

	LatencyIters     *int64   `parquet:"n_iters,optional" doc:"Iterations measured."`
	AvgLatencyS      *float64 `parquet:"avg_latency_s,optional" unit:"s" doc:"Mean of one iteration, which generates batch_size x output_len tokens."`
	P50LatencyS      *float64 `parquet:"p50_latency_s,optional" unit:"s" doc:"Median of one iteration."`
	P90LatencyS      *float64 `parquet:"p90_latency_s,optional" unit:"s" doc:"90th percentile of one iteration."`
	P99LatencyS      *float64 `parquet:"p99_latency_s,optional" unit:"s" doc:"99th percentile; null below 100 iterations, where it would be the maximum."`
	OutputTokensPerS *float64 `parquet:"output_tokens_per_s,optional" unit:"tokens/s" doc:"Generated tokens a second, all prompts."`

	KVCacheTokens    *int64   `parquet:"kv_cache_tokens,optional" unit:"tokens" doc:"Tokens that the KV cache holds, as vLLM prints it."`
	MaxConcurrency   *float64 `parquet:"max_concurrency,optional" doc:"Requests of max_model_len tokens that fit at once, as vLLM prints it."`
	KVCacheUsedBytes *int64   `parquet:"kv_cache_used_bytes,optional" unit:"bytes" doc:"KV cache that the run used at most, sum over GPUs."`
	KVUsedSource     *string  `parquet:"kv_used_source,optional,dict" doc:"calculated (from batch and lengths) or engine."`
	KVOversubscribed *bool    `parquet:"kv_oversubscribed,optional" doc:"True: batch and lengths need more tokens than the KV cache holds, so vLLM ran the batch in parts."`
	MeanPowerW       *float64 `parquet:"mean_power_w,optional" unit:"W" doc:"Mean from engine ready to the end of measuring, sum over GPUs."`
	EnergyJ          *float64 `parquet:"energy_j,optional" unit:"J" doc:"From engine ready to the end of measuring, sum over GPUs."`

	PeakMemoryBytes          *int64 `parquet:"peak_memory_bytes,optional" unit:"bytes" doc:"Highest sample: all GPUs of the run at the same tick."`
	BaselineMemoryBytes      *int64 `parquet:"baseline_memory_bytes,optional" unit:"bytes" doc:"In use before the engine started."`
	NetIncreaseBytes         *int64 `parquet:"net_increase_bytes,optional" unit:"bytes" doc:"peak_memory_bytes - baseline_memory_bytes; the nine parts add up to it exactly."`
	ModelWeightsBytes        *int64 `parquet:"model_weights_bytes,optional" unit:"bytes" doc:"Part: weights."`
	KVCacheBytes             *int64 `parquet:"kv_cache_bytes,optional" unit:"bytes" doc:"Part: KV cache as reserved."`
	ActivationsBytes         *int64 `parquet:"activations_bytes,optional" unit:"bytes" doc:"Part: what of the reserved activation is in use at the highest sample."`
	CUDAGraphsBytes          *int64 `parquet:"cuda_graphs_bytes,optional" unit:"bytes" doc:"Part: captured graphs."`
	NonTorchBytes            *int64 `parquet:"non_torch_bytes,optional" unit:"bytes" doc:"Part: held outside torch (NCCL, attention workspaces)."`
	ContextBytes             *int64 `parquet:"context_bytes,optional" unit:"bytes" doc:"Part: the driver's context of the process."`
	BuffersBytes             *int64 `parquet:"buffers_bytes,optional" unit:"bytes" doc:"Part: the runner's persistent buffers, calculated."`
	GrowthExcessBytes        *int64 `parquet:"growth_excess_bytes,optional" unit:"bytes" doc:"Part: use beyond all of the other parts."`
	FrameworkOverheadBytes   *int64 `parquet:"framework_overhead_bytes,optional" unit:"bytes" doc:"Part: what is left; negative is kept."`
	ActivationsReservedBytes *int64 `parquet:"activations_reserved_bytes,optional" unit:"bytes" doc:"Set aside for activations by vLLM's profiling; no part of the sum."`
	HeadroomUnusedBytes      *int64 `parquet:"headroom_unused_bytes,optional" unit:"bytes" doc:"Reserved activation that nothing used; no part of the sum."`
	PeakMemoryMaxGPUBytes    *int64 `parquet:"peak_memory_max_gpu_bytes,optional" unit:"bytes" doc:"Highest use of the GPU with the highest."`
	BeyondBudgetGrossBytes   *int64 `parquet:"beyond_budget_gross_bytes,optional" unit:"bytes" doc:"Highest use - torch total x utilization on the GPU where it is largest; null where the KV size was given instead of a share."`
	BeyondBudgetNetBytes     *int64 `parquet:"beyond_budget_net_bytes,optional" unit:"bytes" doc:"The same less baseline and context."`

	SchemaVersion string  `parquet:"schema_version,dict" doc:"Version of the schema that the row was written with."`
	JSONSHA256    *string `parquet:"json_sha256,optional" doc:"Checksum of the run.json that the row was made from."`

	EngineShared       *bool  `parquet:"engine_shared,optional" doc:"True: one engine served several profiles (session mode); null in latency mode."`
	GroupPosition      *int32 `parquet:"group_position,optional" doc:"Which profile of its engine this was, from 0; null in latency mode."`
	GroupSize          *int32 `parquet:"group_size,optional" doc:"Runs that were planned for the engine; null in latency mode."`
	SessionStartBytes  *int64 `parquet:"session_start_bytes,optional" unit:"bytes" doc:"In use when the profile began on its engine, sum over GPUs; null in latency mode."`
	SessionGrowthBytes *int64 `parquet:"session_growth_bytes,optional" unit:"bytes" doc:"Highest use of this profile less session_start_bytes, sum over GPUs; null in latency mode."`
	Preemptions        *int64 `parquet:"preemptions,optional" doc:"Requests that the engine put off for want of KV cache, as the engine says; null in latency mode."`
	WaitingPeak        *int64 `parquet:"waiting_peak,optional" doc:"Most requests that waited at once, as the engine says; null in latency mode."`

	Quality           *string    `parquet:"quality,optional,dict" doc:"What the samples cover: full; sparse: a window rests on too few, and its figures are null; blind: none where the memory is used. Null where no engine ran."`
	QualityDetail     *string    `parquet:"quality_detail,optional,dict" doc:"Why the quality is not full."`
	PeakAt            *time.Time `parquet:"peak_at,optional,timestamp(microsecond)" doc:"When the highest sample was taken."`
	PeakPhase         *string    `parquet:"peak_phase,optional,dict" doc:"The phase that the highest sample lies in."`
	PeakLowerBound    *bool      `parquet:"peak_lower_bound,optional" doc:"True: one sample alone shows the highest use, or the run failed: what lies between two samples may be higher."`
	MeasureEnergyJ    *float64   `parquet:"measure_energy_j,optional" unit:"J" doc:"Of the measured iterations alone, sum over GPUs."`
	MeasureMeanPowerW *float64   `parquet:"measure_mean_power_w,optional" unit:"W" doc:"Mean of the measured iterations alone, sum over GPUs."`
	EnergyMethod      *string    `parquet:"energy_method,optional,dict" doc:"Of energy_j. counter: the driver's, read at the bounds; power: the instantaneous power over the time."`
	WindowS           *float64   `parquet:"window_s,optional" unit:"s" doc:"From engine ready to the end of measuring: what mean_power_w and energy_j are of."`
	MaxPowerW         *float64   `parquet:"max_power_w,optional" unit:"W" doc:"Highest sample of that window, sum over GPUs at one tick."`
	MaxTemperatureC   *float64   `parquet:"max_temperature_c,optional" unit:"°C" doc:"Highest sample of that window, of the hottest GPU."`

	PeakOffBytes        *int64   `parquet:"peak_memory_uncertainty_bytes,optional" unit:"bytes" doc:"How far peak_memory_bytes may be off, to either side."`
	NetOffBytes         *int64   `parquet:"net_increase_uncertainty_bytes,optional" unit:"bytes" doc:"How far net_increase_bytes may be off."`
	ActivationsOffBytes *int64   `parquet:"activations_uncertainty_bytes,optional" unit:"bytes" doc:"How far activations_bytes may be off; framework_overhead_bytes then is, to the other side."`
	GrowthOffBytes      *int64   `parquet:"growth_excess_uncertainty_bytes,optional" unit:"bytes" doc:"How far growth_excess_bytes may be off."`
	FrameworkOffBytes   *int64   `parquet:"framework_overhead_uncertainty_bytes,optional" unit:"bytes" doc:"How far framework_overhead_bytes may be off."`
	GrossOffBytes       *int64   `parquet:"beyond_budget_gross_uncertainty_bytes,optional" unit:"bytes" doc:"How far beyond_budget_gross_bytes may be off."`
	MeasureEnergyOffJ   *float64 `parquet:"measure_energy_uncertainty_j,optional" unit:"J" doc:"How far measure_energy_j may be off."`
	EnergyOffJ          *float64 `parquet:"energy_uncertainty_j,optional" unit:"J" doc:"How far energy_j may be off, for the moments of its bounds and for what changed between two samples."`

	StartMode     *string  `parquet:"start_mode,optional,dict" doc:"How the engine was started. cold: executed; warm: forked from a Python that had vLLM imported. Null where none was."`
	StartReason   *string  `parquet:"start_reason,optional,dict" doc:"Why it started cold where it might have started warm."`
	ImportSeconds *float64 `parquet:"import_seconds,optional" unit:"s" doc:"From the start to the first line of the engine process: imports of Python, a second time where the engine process is spawned, and the configuration."`

	LanesBusy     *int32   `parquet:"lanes_busy,optional" doc:"Lanes that had a run when this one began to measure, its own included; null where it did not come to that."`
	HostCPUPct    *float64 `parquet:"host_cpu_pct,optional" unit:"%" doc:"Use of all CPUs of the host while the run measured, whoever used them."`
	MeasuredAlone *bool    `parquet:"measured_alone,optional" doc:"True: no other run of the execution measured meanwhile; their latencies are not to be compared with others."`
	Shard         *string  `parquet:"shard,optional,dict" doc:"Which part of the execution's plan the run belongs to, as 3/6; null: the execution has no parts."`

	// Axes are the free axes of the matrix at this point: in Parquet a column
	// axis_NAME each. Values are string, int64, float64 or bool; an axis of
	// objects is its JSON text.
	Axes map[string]any `parquet:"-"`
}

// A RankRow is one row of the table ranks: vLLM's own account of one rank. Its
// key is run_id, rank.
type RankRow struct {
	Key
	runner.RankRow
}

// A PhaseRow is one phase on one GPU: a row of the table phases. Its key is
// run_id, gpu_index, phase.
type PhaseRow struct {
	Key
	runner.PhaseRow
}

// A BreakdownRow is one part of the net increase on one rank: a row of the
// table breakdowns. Its key is run_id, rank, component; the parts of a run add
// up to its net_increase_bytes.
type BreakdownRow struct {
	Key
	runner.BreakdownRow
}

// A StepRow is what the driver's memory did in one phase on one GPU: a row of
// the table steps. Its key is run_id, gpu_index, step.
type StepRow struct {
	Key
	runner.StepRow
}

// A TimelineRow is one sample: a row of the table timelines. Its key is run_id,
// gpu_index, ts.
type TimelineRow struct {
	Key
	GPUIndex             *int32   `parquet:"gpu_index,optional,dict" doc:"The driver's index; null: about the host alone."`
	TS                   Micros   `parquet:"ts,timestamp(microsecond),delta" doc:"When the sample was taken; a wall clock that jumps does not move it."`
	TOffsetUS            int64    `parquet:"t_offset_us,delta" unit:"us" doc:"The same since the start of the attempt, monotonic."`
	GPUUUID              *string  `parquet:"gpu_uuid,optional,dict" doc:"The driver's name of the GPU."`
	Phase                *string  `parquet:"phase,optional,dict" doc:"baseline, engine_init, load, profile, estimate_capture, kv_alloc, kernel_warmup, capture, engine_warmup, bench_warmup, measure, teardown, final; null where the log marks no phases."`
	MemoryUsedBytes      *int64   `parquet:"memory_used_bytes,optional" enc:"delta" unit:"bytes" doc:"In use, without the driver's reserve."`
	MemoryReservedBytes  *int64   `parquet:"memory_reserved_bytes,optional" enc:"delta" unit:"bytes" doc:"Kept by the driver."`
	MemoryTotalBytes     *int64   `parquet:"memory_total_bytes,optional" enc:"delta" unit:"bytes" doc:"Of the GPU."`
	PowerW               *float64 `parquet:"power_w,optional" unit:"W" doc:"Power draw."`
	TemperatureC         *float64 `parquet:"temperature_c,optional,dict" unit:"°C" doc:"Temperature of the GPU."`
	MemoryTemperatureC   *float64 `parquet:"memory_temperature_c,optional,dict" unit:"°C" doc:"Temperature of its memory."`
	UtilizationPct       *int32   `parquet:"utilization_pct,optional" enc:"delta" unit:"%" doc:"Share of time with a kernel running."`
	MemoryUtilizationPct *int32   `parquet:"memory_utilization_pct,optional" enc:"delta" unit:"%" doc:"Share of time with memory being read or written."`
	ClockSMMHz           *int32   `parquet:"clock_sm_mhz,optional" enc:"delta" unit:"MHz" doc:"Clock of the compute units."`
	ClockMemMHz          *int32   `parquet:"clock_mem_mhz,optional" enc:"delta" unit:"MHz" doc:"Clock of the memory."`
	EnergyJ              *float64 `parquet:"energy_j,optional" unit:"J" doc:"The driver's counter: only differences mean something."`
	ThrottleReasons      *int64   `parquet:"throttle_reasons,optional" enc:"delta" doc:"NVML's bit mask of clock event reasons."`
	ProcessBytes         *int64   `parquet:"process_bytes,optional" enc:"delta" unit:"bytes" doc:"GPU memory of the run's own processes."`
	HostRSSBytes         *int64   `parquet:"host_rss_bytes,optional" enc:"delta" unit:"bytes" doc:"Resident memory of the engine's process tree."`
	HostCPUPct           *float64 `parquet:"host_cpu_pct,optional" unit:"%" doc:"CPU of the engine's process tree, per cent of one core."`
	Source               string   `parquet:"source,dict" doc:"The instrument: nvml, nvidia-smi, amdgpu-sysfs, proc, simulated, ..."`
	Gap                  bool     `parquet:"gap" doc:"True: ticks before this one are missing."`
	ReadUS               *int64   `parquet:"read_us,optional" enc:"delta" unit:"us" doc:"How long the reading took."`
	HostPSSBytes         *int64   `parquet:"host_pss_bytes,optional" enc:"delta" unit:"bytes" doc:"Proportional memory of the engine's process tree."`
}

// A LatencyRow is one measured iteration: a row of the table latencies. Its key
// is run_id, iteration.
type LatencyRow struct {
	Key
	Iteration int32   `parquet:"iteration" doc:"From 1, in the order of measuring."`
	LatencyS  float64 `parquet:"latency_s" unit:"s" doc:"Duration of the iteration."`
}

// Row is any of the seven rows.
type Row interface {
	RunRow | RankRow | TimelineRow | PhaseRow | BreakdownRow | StepRow | LatencyRow
}

// A Table is the name of a table, as it stands in paths.
type Table string

// The tables.
const (
	TableRuns       Table = "runs"
	TableRanks      Table = "ranks"
	TableTimelines  Table = "timelines"
	TablePhases     Table = "phases"
	TableBreakdowns Table = "breakdowns"
	TableSteps      Table = "steps"
	TableLatencies  Table = "latencies"
)

// Tables are all tables, in the order of the documentation.
func Tables() []Table {
	var names []Table
	for _, t := range registry() {
		names = append(names, t.def().name)
	}
	return names
}

-- Tables of vramsweep, schema 3.1. The files themselves are read without this:
--   CREATE VIEW runs AS SELECT * FROM read_parquet('results/tables/runs/**/*.parquet');
--   CREATE VIEW ranks AS SELECT * FROM read_parquet('results/tables/ranks/**/*.parquet');
--   CREATE VIEW timelines AS SELECT * FROM read_parquet('results/tables/timelines/**/*.parquet');
--   CREATE VIEW phases AS SELECT * FROM read_parquet('results/tables/phases/**/*.parquet');
--   CREATE VIEW breakdowns AS SELECT * FROM read_parquet('results/tables/breakdowns/**/*.parquet');
--   CREATE VIEW steps AS SELECT * FROM read_parquet('results/tables/steps/**/*.parquet');
--   CREATE VIEW latencies AS SELECT * FROM read_parquet('results/tables/latencies/**/*.parquet');

CREATE TABLE runs (
  run_id VARCHAR NOT NULL,
  execution VARCHAR NOT NULL,
  sweep VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  synthetic BOOLEAN NOT NULL,
  profile_id VARCHAR NOT NULL,
  repeat INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  started_at TIMESTAMP WITH TIME ZONE,
  ended_at TIMESTAMP WITH TIME ZONE,
  wall_s DOUBLE,
  overhead_s DOUBLE,
  outcome VARCHAR NOT NULL,
  outcome_detail VARCHAR,
  error_line VARCHAR,
  skipped_because VARCHAR,
  hf_model_id VARCHAR NOT NULL,
  architecture VARCHAR,
  family VARCHAR,
  params BIGINT,
  num_layers BIGINT,
  num_heads BIGINT,
  num_kv_heads BIGINT,
  head_dim BIGINT,
  hidden_size BIGINT,
  vocab_size BIGINT,
  weight_bytes_per_param DOUBLE,
  kv_bytes_per_token BIGINT,
  gpu_name VARCHAR,
  gpu_count INTEGER,
  dtype VARCHAR,
  kv_cache_dtype VARCHAR,
  quantization VARCHAR,
  tensor_parallel_size BIGINT,
  pipeline_parallel_size BIGINT,
  input_len BIGINT,
  output_len BIGINT,
  batch_size BIGINT,
  max_model_len BIGINT,
  max_num_seqs BIGINT,
  max_num_batched_tokens BIGINT,
  gpu_memory_utilization DOUBLE,
  kv_cache_memory_bytes BIGINT,
  block_size BIGINT,
  enforce_eager BOOLEAN,
  load_format VARCHAR,
  trust_remote_code BOOLEAN,
  num_iters BIGINT,
  num_iters_warmup BIGINT,
  flags VARCHAR,
  effective_dtype VARCHAR,
  effective_kv_cache_dtype VARCHAR,
  effective_quantization VARCHAR,
  effective_max_model_len BIGINT,
  effective_max_num_seqs BIGINT,
  effective_max_num_batched_tokens BIGINT,
  effective_gpu_memory_utilization DOUBLE,
  effective_block_size BIGINT,
  engine VARCHAR NOT NULL,
  engine_mode VARCHAR NOT NULL,
  vllm_version VARCHAR,
  torch_version VARCHAR,
  driver_version VARCHAR,
  model_runner VARCHAR,
  attention_backend VARCHAR,
  compile_cache VARCHAR,
  host VARCHAR,
  profiler_version VARCHAR NOT NULL,
  n_iters BIGINT,
  avg_latency_s DOUBLE,
  p50_latency_s DOUBLE,
  p90_latency_s DOUBLE,
  p99_latency_s DOUBLE,
  output_tokens_per_s DOUBLE,
  kv_cache_tokens BIGINT,
  max_concurrency DOUBLE,
  kv_cache_used_bytes BIGINT,
  kv_used_source VARCHAR,
  kv_oversubscribed BOOLEAN,
  mean_power_w DOUBLE,
  energy_j DOUBLE,
  peak_memory_bytes BIGINT,
  baseline_memory_bytes BIGINT,
  net_increase_bytes BIGINT,
  model_weights_bytes BIGINT,
  kv_cache_bytes BIGINT,
  activations_bytes BIGINT,
  cuda_graphs_bytes BIGINT,
  non_torch_bytes BIGINT,
  context_bytes BIGINT,
  buffers_bytes BIGINT,
  growth_excess_bytes BIGINT,
  framework_overhead_bytes BIGINT,
  activations_reserved_bytes BIGINT,
  headroom_unused_bytes BIGINT,
  peak_memory_max_gpu_bytes BIGINT,
  beyond_budget_gross_bytes BIGINT,
  beyond_budget_net_bytes BIGINT,
  schema_version VARCHAR NOT NULL,
  json_sha256 VARCHAR,
  engine_shared BOOLEAN,
  group_position INTEGER,
  group_size INTEGER,
  session_start_bytes BIGINT,
  session_growth_bytes BIGINT,
  preemptions BIGINT,
  waiting_peak BIGINT,
  quality VARCHAR,
  quality_detail VARCHAR,
  peak_at TIMESTAMP WITH TIME ZONE,
  peak_phase VARCHAR,
  peak_lower_bound BOOLEAN,
  measure_energy_j DOUBLE,
  measure_mean_power_w DOUBLE,
  energy_method VARCHAR,
  window_s DOUBLE,
  max_power_w DOUBLE,
  max_temperature_c DOUBLE,
  peak_memory_uncertainty_bytes BIGINT,
  net_increase_uncertainty_bytes BIGINT,
  activations_uncertainty_bytes BIGINT,
  growth_excess_uncertainty_bytes BIGINT,
  framework_overhead_uncertainty_bytes BIGINT,
  beyond_budget_gross_uncertainty_bytes BIGINT,
  measure_energy_uncertainty_j DOUBLE,
  energy_uncertainty_j DOUBLE,
  start_mode VARCHAR,
  start_reason VARCHAR,
  import_seconds DOUBLE,
  lanes_busy INTEGER,
  host_cpu_pct DOUBLE,
  measured_alone BOOLEAN,
  shard VARCHAR
);
COMMENT ON TABLE runs IS 'One row a run: one profile, one repeat, one execution. Memory columns are sums over the run''s GPUs unless the name says max_gpu. Key: run_id.';
COMMENT ON COLUMN runs.run_id IS 'The run: one profile, one repeat, one execution. Joins all tables.';
COMMENT ON COLUMN runs.execution IS 'One go of a sweep file: its start (UTC) and a short hash.';
COMMENT ON COLUMN runs.sweep IS 'The sweep block that the profile belongs to.';
COMMENT ON COLUMN runs.model IS 'The model as the sweep file names it.';
COMMENT ON COLUMN runs.synthetic IS 'True: made by the simulator; never to be mixed with measurements.';
COMMENT ON COLUMN runs.profile_id IS 'Hash of the sweep''s name and the asked settings: the same on every machine and every night.';
COMMENT ON COLUMN runs.repeat IS 'Which repeat of the profile, from 1.';
COMMENT ON COLUMN runs.attempts IS 'Attempts that the run took; the row is about the last one.';
COMMENT ON COLUMN runs.started_at IS 'Start of the final attempt; null only where an imported run does not say.';
COMMENT ON COLUMN runs.ended_at IS 'End of the final attempt.';
COMMENT ON COLUMN runs.wall_s IS '[s] Duration of the final attempt.';
COMMENT ON COLUMN runs.overhead_s IS '[s] vramsweep''s own share of wall_s.';
COMMENT ON COLUMN runs.outcome IS 'How the run ended: ok, oom, no_kv_memory, kv_too_small, engine_error, bad_argument, no_result, timeout, startup_timeout, silence_timeout, interrupted, skipped, dirty_gpu.';
COMMENT ON COLUMN runs.outcome_detail IS 'One sentence on the outcome.';
COMMENT ON COLUMN runs.error_line IS 'The log line that explains a failure.';
COMMENT ON COLUMN runs.skipped_because IS 'run_id of the run that made this one pointless.';
COMMENT ON COLUMN runs.hf_model_id IS 'What vLLM was given: a Hugging Face id or a folder.';
COMMENT ON COLUMN runs.architecture IS 'Class name in config.json.';
COMMENT ON COLUMN runs.family IS 'Family of the model: llama, qwen, ...';
COMMENT ON COLUMN runs.params IS 'Resident parameters.';
COMMENT ON COLUMN runs.num_layers IS 'Transformer layers.';
COMMENT ON COLUMN runs.num_heads IS 'Attention heads.';
COMMENT ON COLUMN runs.num_kv_heads IS 'Heads of keys and values.';
COMMENT ON COLUMN runs.head_dim IS 'Size of one head.';
COMMENT ON COLUMN runs.hidden_size IS 'Width of the model.';
COMMENT ON COLUMN runs.vocab_size IS 'Size of the vocabulary.';
COMMENT ON COLUMN runs.weight_bytes_per_param IS '[bytes] What one parameter takes at the run''s dtype.';
COMMENT ON COLUMN runs.kv_bytes_per_token IS '[bytes] KV cache that one token takes: all layers, all ranks.';
COMMENT ON COLUMN runs.gpu_name IS 'Name of the first GPU of the run.';
COMMENT ON COLUMN runs.gpu_count IS 'GPUs of the run; 0 on a machine without one, null where none were asked for because the run was skipped.';
COMMENT ON COLUMN runs.dtype IS 'Asked: of weights and activations; null: left to vLLM.';
COMMENT ON COLUMN runs.kv_cache_dtype IS 'Asked: of the KV cache; null: left to vLLM.';
COMMENT ON COLUMN runs.quantization IS 'Asked: vLLM''s name of the method; null: left to vLLM.';
COMMENT ON COLUMN runs.tensor_parallel_size IS 'Asked: GPUs that share each layer.';
COMMENT ON COLUMN runs.pipeline_parallel_size IS 'Asked: groups of GPUs that share the layers out.';
COMMENT ON COLUMN runs.input_len IS '[tokens] Asked: prompt tokens of a sequence.';
COMMENT ON COLUMN runs.output_len IS '[tokens] Asked: tokens to generate for a sequence.';
COMMENT ON COLUMN runs.batch_size IS 'Asked: sequences at once.';
COMMENT ON COLUMN runs.max_model_len IS '[tokens] Asked: longest sequence, prompt and output together; null: left to vLLM.';
COMMENT ON COLUMN runs.max_num_seqs IS 'Asked: most sequences in a step; null: left to vLLM.';
COMMENT ON COLUMN runs.max_num_batched_tokens IS '[tokens] Asked: most tokens in a step; null: left to vLLM.';
COMMENT ON COLUMN runs.gpu_memory_utilization IS '[ratio] Asked: vLLM''s share of the GPU''s memory, above 0 and at most 1; null: left to vLLM.';
COMMENT ON COLUMN runs.kv_cache_memory_bytes IS '[bytes] Asked per GPU instead of a share of the memory; null: not given.';
COMMENT ON COLUMN runs.block_size IS '[tokens] Asked: tokens of a block of the KV cache; null: left to vLLM.';
COMMENT ON COLUMN runs.enforce_eager IS 'Asked: no CUDA graphs and no compiling; null: left to vLLM.';
COMMENT ON COLUMN runs.load_format IS 'Asked: how weights are loaded; "dummy" needs no download; null: left to vLLM.';
COMMENT ON COLUMN runs.trust_remote_code IS 'Asked: run the model''s own code; null: left to vLLM.';
COMMENT ON COLUMN runs.num_iters IS 'Asked: measured iterations; null: left to vLLM.';
COMMENT ON COLUMN runs.num_iters_warmup IS 'Asked: iterations before; null: left to vLLM.';
COMMENT ON COLUMN runs.flags IS 'Other flags of vLLM that were set: JSON text, keys sorted; null: none.';
COMMENT ON COLUMN runs.effective_dtype IS 'What vLLM said it used.';
COMMENT ON COLUMN runs.effective_kv_cache_dtype IS 'What vLLM said it used.';
COMMENT ON COLUMN runs.effective_quantization IS 'What vLLM said it used.';
COMMENT ON COLUMN runs.effective_max_model_len IS '[tokens] What vLLM said it used.';
COMMENT ON COLUMN runs.effective_max_num_seqs IS 'What vLLM said it used.';
COMMENT ON COLUMN runs.effective_max_num_batched_tokens IS '[tokens] What vLLM said it used.';
COMMENT ON COLUMN runs.effective_gpu_memory_utilization IS '[ratio] What vLLM said it used.';
COMMENT ON COLUMN runs.effective_block_size IS '[tokens] What vLLM said it used.';
COMMENT ON COLUMN runs.engine IS 'What executed the run: vllm, simulator, import.';
COMMENT ON COLUMN runs.engine_mode IS 'latency: a process a profile; session: one engine, many profiles.';
COMMENT ON COLUMN runs.vllm_version IS 'As vLLM prints it.';
COMMENT ON COLUMN runs.torch_version IS 'Version of torch in the engine.';
COMMENT ON COLUMN runs.driver_version IS 'Version of the GPU driver.';
COMMENT ON COLUMN runs.model_runner IS 'v1 or v2.';
COMMENT ON COLUMN runs.attention_backend IS 'As vLLM names it.';
COMMENT ON COLUMN runs.compile_cache IS 'cold, warm or off.';
COMMENT ON COLUMN runs.host IS 'Name of the machine.';
COMMENT ON COLUMN runs.profiler_version IS 'Version of vramsweep.';
COMMENT ON COLUMN runs.n_iters IS 'Iterations measured.';
COMMENT ON COLUMN runs.avg_latency_s IS '[s] Mean of one iteration, which generates batch_size x output_len tokens.';
COMMENT ON COLUMN runs.p50_latency_s IS '[s] Median of one iteration.';
COMMENT ON COLUMN runs.p90_latency_s IS '[s] 90th percentile of one iteration.';
COMMENT ON COLUMN runs.p99_latency_s IS '[s] 99th percentile; null below 100 iterations, where it would be the maximum.';
COMMENT ON COLUMN runs.output_tokens_per_s IS '[tokens/s] Generated tokens a second, all prompts.';
COMMENT ON COLUMN runs.kv_cache_tokens IS '[tokens] Tokens that the KV cache holds, as vLLM prints it.';
COMMENT ON COLUMN runs.max_concurrency IS 'Requests of max_model_len tokens that fit at once, as vLLM prints it.';
COMMENT ON COLUMN runs.kv_cache_used_bytes IS '[bytes] KV cache that the run used at most, sum over GPUs.';
COMMENT ON COLUMN runs.kv_used_source IS 'calculated (from batch and lengths) or engine.';
COMMENT ON COLUMN runs.kv_oversubscribed IS 'True: batch and lengths need more tokens than the KV cache holds, so vLLM ran the batch in parts.';
COMMENT ON COLUMN runs.mean_power_w IS '[W] Mean from engine ready to the end of measuring, sum over GPUs.';
COMMENT ON COLUMN runs.energy_j IS '[J] From engine ready to the end of measuring, sum over GPUs.';
COMMENT ON COLUMN runs.peak_memory_bytes IS '[bytes] Highest sample: all GPUs of the run at the same tick.';
COMMENT ON COLUMN runs.baseline_memory_bytes IS '[bytes] In use before the engine started.';
COMMENT ON COLUMN runs.net_increase_bytes IS '[bytes] peak_memory_bytes - baseline_memory_bytes; the nine parts add up to it exactly.';
COMMENT ON COLUMN runs.model_weights_bytes IS '[bytes] Part: weights.';
COMMENT ON COLUMN runs.kv_cache_bytes IS '[bytes] Part: KV cache as reserved.';
COMMENT ON COLUMN runs.activations_bytes IS '[bytes] Part: what of the reserved activation is in use at the highest sample.';
COMMENT ON COLUMN runs.cuda_graphs_bytes IS '[bytes] Part: captured graphs.';
COMMENT ON COLUMN runs.non_torch_bytes IS '[bytes] Part: held outside torch (NCCL, attention workspaces).';
COMMENT ON COLUMN runs.context_bytes IS '[bytes] Part: the driver''s context of the process.';
COMMENT ON COLUMN runs.buffers_bytes IS '[bytes] Part: the runner''s persistent buffers, calculated.';
COMMENT ON COLUMN runs.growth_excess_bytes IS '[bytes] Part: use beyond all of the other parts.';
COMMENT ON COLUMN runs.framework_overhead_bytes IS '[bytes] Part: what is left; negative is kept.';
COMMENT ON COLUMN runs.activations_reserved_bytes IS '[bytes] Set aside for activations by vLLM''s profiling; no part of the sum.';
COMMENT ON COLUMN runs.headroom_unused_bytes IS '[bytes] Reserved activation that nothing used; no part of the sum.';
COMMENT ON COLUMN runs.peak_memory_max_gpu_bytes IS '[bytes] Highest use of the GPU with the highest.';
COMMENT ON COLUMN runs.beyond_budget_gross_bytes IS '[bytes] Highest use - torch total x utilization on the GPU where it is largest; null where the KV size was given instead of a share.';
COMMENT ON COLUMN runs.beyond_budget_net_bytes IS '[bytes] The same less baseline and context.';
COMMENT ON COLUMN runs.schema_version IS 'Version of the schema that the row was written with.';
COMMENT ON COLUMN runs.json_sha256 IS 'Checksum of the run.json that the row was made from.';
COMMENT ON COLUMN runs.engine_shared IS 'True: one engine served several profiles (session mode); null in latency mode.';
COMMENT ON COLUMN runs.group_position IS 'Which profile of its engine this was, from 0; null in latency mode.';
COMMENT ON COLUMN runs.group_size IS 'Runs that were planned for the engine; null in latency mode.';
COMMENT ON COLUMN runs.session_start_bytes IS '[bytes] In use when the profile began on its engine, sum over GPUs; null in latency mode.';
COMMENT ON COLUMN runs.session_growth_bytes IS '[bytes] Highest use of this profile less session_start_bytes, sum over GPUs; null in latency mode.';
COMMENT ON COLUMN runs.preemptions IS 'Requests that the engine put off for want of KV cache, as the engine says; null in latency mode.';
COMMENT ON COLUMN runs.waiting_peak IS 'Most requests that waited at once, as the engine says; null in latency mode.';
COMMENT ON COLUMN runs.quality IS 'What the samples cover: full; sparse: a window rests on too few, and its figures are null; blind: none where the memory is used. Null where no engine ran.';
COMMENT ON COLUMN runs.quality_detail IS 'Why the quality is not full.';
COMMENT ON COLUMN runs.peak_at IS 'When the highest sample was taken.';
COMMENT ON COLUMN runs.peak_phase IS 'The phase that the highest sample lies in.';
COMMENT ON COLUMN runs.peak_lower_bound IS 'True: one sample alone shows the highest use, or the run failed: what lies between two samples may be higher.';
COMMENT ON COLUMN runs.measure_energy_j IS '[J] Of the measured iterations alone, sum over GPUs.';
COMMENT ON COLUMN runs.measure_mean_power_w IS '[W] Mean of the measured iterations alone, sum over GPUs.';
COMMENT ON COLUMN runs.energy_method IS 'Of energy_j. counter: the driver''s, read at the bounds; power: the instantaneous power over the time.';
COMMENT ON COLUMN runs.window_s IS '[s] From engine ready to the end of measuring: what mean_power_w and energy_j are of.';
COMMENT ON COLUMN runs.max_power_w IS '[W] Highest sample of that window, sum over GPUs at one tick.';
COMMENT ON COLUMN runs.max_temperature_c IS '[°C] Highest sample of that window, of the hottest GPU.';
COMMENT ON COLUMN runs.peak_memory_uncertainty_bytes IS '[bytes] How far peak_memory_bytes may be off, to either side.';
COMMENT ON COLUMN runs.net_increase_uncertainty_bytes IS '[bytes] How far net_increase_bytes may be off.';
COMMENT ON COLUMN runs.activations_uncertainty_bytes IS '[bytes] How far activations_bytes may be off; framework_overhead_bytes then is, to the other side.';
COMMENT ON COLUMN runs.growth_excess_uncertainty_bytes IS '[bytes] How far growth_excess_bytes may be off.';
COMMENT ON COLUMN runs.framework_overhead_uncertainty_bytes IS '[bytes] How far framework_overhead_bytes may be off.';
COMMENT ON COLUMN runs.beyond_budget_gross_uncertainty_bytes IS '[bytes] How far beyond_budget_gross_bytes may be off.';
COMMENT ON COLUMN runs.measure_energy_uncertainty_j IS '[J] How far measure_energy_j may be off.';
COMMENT ON COLUMN runs.energy_uncertainty_j IS '[J] How far energy_j may be off, for the moments of its bounds and for what changed between two samples.';
COMMENT ON COLUMN runs.start_mode IS 'How the engine was started. cold: executed; warm: forked from a Python that had vLLM imported. Null where none was.';
COMMENT ON COLUMN runs.start_reason IS 'Why it started cold where it might have started warm.';
COMMENT ON COLUMN runs.import_seconds IS '[s] From the start to the first line of the engine process: imports of Python, a second time where the engine process is spawned, and the configuration.';
COMMENT ON COLUMN runs.lanes_busy IS 'Lanes that had a run when this one began to measure, its own included; null where it did not come to that.';
COMMENT ON COLUMN runs.host_cpu_pct IS '[%] Use of all CPUs of the host while the run measured, whoever used them.';
COMMENT ON COLUMN runs.measured_alone IS 'True: no other run of the execution measured meanwhile; their latencies are not to be compared with others.';
COMMENT ON COLUMN runs.shard IS 'Which part of the execution''s plan the run belongs to, as 3/6; null: the execution has no parts.';

CREATE TABLE ranks (
  run_id VARCHAR NOT NULL,
  execution VARCHAR NOT NULL,
  sweep VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  synthetic BOOLEAN NOT NULL,
  rank INTEGER NOT NULL,
  gpu_index INTEGER,
  gpu_uuid VARCHAR,
  model_weights_bytes BIGINT,
  kv_cache_bytes BIGINT,
  activations_reserved_bytes BIGINT,
  cuda_graphs_bytes BIGINT,
  non_torch_bytes BIGINT,
  context_bytes BIGINT,
  buffers_bytes BIGINT,
  requested_bytes BIGINT,
  free_at_start_bytes BIGINT,
  graph_estimate_bytes BIGINT,
  budget_difference_bytes BIGINT,
  torch_allocated_bytes BIGINT,
  torch_reserved_bytes BIGINT,
  torch_peak_bytes BIGINT
);
COMMENT ON TABLE ranks IS 'One row a rank of a run: vLLM''s own account of it. Key: run_id, rank.';
COMMENT ON COLUMN ranks.run_id IS 'The run: one profile, one repeat, one execution. Joins all tables.';
COMMENT ON COLUMN ranks.execution IS 'One go of a sweep file: its start (UTC) and a short hash.';
COMMENT ON COLUMN ranks.sweep IS 'The sweep block that the profile belongs to.';
COMMENT ON COLUMN ranks.model IS 'The model as the sweep file names it.';
COMMENT ON COLUMN ranks.synthetic IS 'True: made by the simulator; never to be mixed with measurements.';
COMMENT ON COLUMN ranks.rank IS 'From 0.';
COMMENT ON COLUMN ranks.gpu_index IS 'The driver''s index; null on a machine without GPUs.';
COMMENT ON COLUMN ranks.gpu_uuid IS 'The driver''s name of the GPU.';
COMMENT ON COLUMN ranks.model_weights_bytes IS '[bytes] As the log says.';
COMMENT ON COLUMN ranks.kv_cache_bytes IS '[bytes] KV cache of the rank.';
COMMENT ON COLUMN ranks.activations_reserved_bytes IS '[bytes] Peak of activations in profiling, set aside.';
COMMENT ON COLUMN ranks.cuda_graphs_bytes IS '[bytes] Captured graphs.';
COMMENT ON COLUMN ranks.non_torch_bytes IS '[bytes] Held outside torch.';
COMMENT ON COLUMN ranks.context_bytes IS '[bytes] The driver''s context.';
COMMENT ON COLUMN ranks.buffers_bytes IS '[bytes] The runner''s persistent buffers, calculated.';
COMMENT ON COLUMN ranks.requested_bytes IS '[bytes] The budget: total x utilization.';
COMMENT ON COLUMN ranks.free_at_start_bytes IS '[bytes] Free memory as vLLM saw it at its start.';
COMMENT ON COLUMN ranks.graph_estimate_bytes IS '[bytes] vLLM''s estimate of its graphs.';
COMMENT ON COLUMN ranks.budget_difference_bytes IS '[bytes] requested - consumed - headroom - graph estimate - available KV: a check of the reading.';
COMMENT ON COLUMN ranks.torch_allocated_bytes IS '[bytes] torch''s own figure; session mode only.';
COMMENT ON COLUMN ranks.torch_reserved_bytes IS '[bytes] torch''s own figure; session mode only.';
COMMENT ON COLUMN ranks.torch_peak_bytes IS '[bytes] torch''s own figure; session mode only.';

CREATE TABLE timelines (
  run_id VARCHAR NOT NULL,
  execution VARCHAR NOT NULL,
  sweep VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  synthetic BOOLEAN NOT NULL,
  gpu_index INTEGER,
  ts TIMESTAMP WITH TIME ZONE NOT NULL,
  t_offset_us BIGINT NOT NULL,
  gpu_uuid VARCHAR,
  phase VARCHAR,
  memory_used_bytes BIGINT,
  memory_reserved_bytes BIGINT,
  memory_total_bytes BIGINT,
  power_w DOUBLE,
  temperature_c DOUBLE,
  memory_temperature_c DOUBLE,
  utilization_pct INTEGER,
  memory_utilization_pct INTEGER,
  clock_sm_mhz INTEGER,
  clock_mem_mhz INTEGER,
  energy_j DOUBLE,
  throttle_reasons BIGINT,
  process_bytes BIGINT,
  host_rss_bytes BIGINT,
  host_cpu_pct DOUBLE,
  source VARCHAR NOT NULL,
  gap BOOLEAN NOT NULL,
  read_us BIGINT,
  host_pss_bytes BIGINT
);
COMMENT ON TABLE timelines IS 'One row a sample of a GPU, or of the host (gpu_index null). Key: run_id, gpu_index, ts.';
COMMENT ON COLUMN timelines.run_id IS 'The run: one profile, one repeat, one execution. Joins all tables.';
COMMENT ON COLUMN timelines.execution IS 'One go of a sweep file: its start (UTC) and a short hash.';
COMMENT ON COLUMN timelines.sweep IS 'The sweep block that the profile belongs to.';
COMMENT ON COLUMN timelines.model IS 'The model as the sweep file names it.';
COMMENT ON COLUMN timelines.synthetic IS 'True: made by the simulator; never to be mixed with measurements.';
COMMENT ON COLUMN timelines.gpu_index IS 'The driver''s index; null: about the host alone.';
COMMENT ON COLUMN timelines.ts IS 'When the sample was taken; a wall clock that jumps does not move it.';
COMMENT ON COLUMN timelines.t_offset_us IS '[us] The same since the start of the attempt, monotonic.';
COMMENT ON COLUMN timelines.gpu_uuid IS 'The driver''s name of the GPU.';
COMMENT ON COLUMN timelines.phase IS 'baseline, engine_init, load, profile, estimate_capture, kv_alloc, kernel_warmup, capture, engine_warmup, bench_warmup, measure, teardown, final; null where the log marks no phases.';
COMMENT ON COLUMN timelines.memory_used_bytes IS '[bytes] In use, without the driver''s reserve.';
COMMENT ON COLUMN timelines.memory_reserved_bytes IS '[bytes] Kept by the driver.';
COMMENT ON COLUMN timelines.memory_total_bytes IS '[bytes] Of the GPU.';
COMMENT ON COLUMN timelines.power_w IS '[W] Power draw.';
COMMENT ON COLUMN timelines.temperature_c IS '[°C] Temperature of the GPU.';
COMMENT ON COLUMN timelines.memory_temperature_c IS '[°C] Temperature of its memory.';
COMMENT ON COLUMN timelines.utilization_pct IS '[%] Share of time with a kernel running.';
COMMENT ON COLUMN timelines.memory_utilization_pct IS '[%] Share of time with memory being read or written.';
COMMENT ON COLUMN timelines.clock_sm_mhz IS '[MHz] Clock of the compute units.';
COMMENT ON COLUMN timelines.clock_mem_mhz IS '[MHz] Clock of the memory.';
COMMENT ON COLUMN timelines.energy_j IS '[J] The driver''s counter: only differences mean something.';
COMMENT ON COLUMN timelines.throttle_reasons IS 'NVML''s bit mask of clock event reasons.';
COMMENT ON COLUMN timelines.process_bytes IS '[bytes] GPU memory of the run''s own processes.';
COMMENT ON COLUMN timelines.host_rss_bytes IS '[bytes] Resident memory of the engine''s process tree.';
COMMENT ON COLUMN timelines.host_cpu_pct IS '[%] CPU of the engine''s process tree, per cent of one core.';
COMMENT ON COLUMN timelines.source IS 'The instrument: nvml, nvidia-smi, amdgpu-sysfs, proc, simulated, ...';
COMMENT ON COLUMN timelines.gap IS 'True: ticks before this one are missing.';
COMMENT ON COLUMN timelines.read_us IS '[us] How long the reading took.';
COMMENT ON COLUMN timelines.host_pss_bytes IS '[bytes] Proportional memory of the engine''s process tree.';

CREATE TABLE phases (
  run_id VARCHAR NOT NULL,
  execution VARCHAR NOT NULL,
  sweep VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  synthetic BOOLEAN NOT NULL,
  gpu_index INTEGER,
  phase VARCHAR NOT NULL,
  started_at TIMESTAMP WITH TIME ZONE,
  ended_at TIMESTAMP WITH TIME ZONE,
  duration_s DOUBLE,
  uncertainty_s DOUBLE,
  memory_min_bytes BIGINT,
  memory_max_bytes BIGINT,
  memory_mean_bytes BIGINT,
  memory_start_bytes BIGINT,
  memory_end_bytes BIGINT,
  energy_j DOUBLE,
  mean_power_w DOUBLE,
  samples BIGINT,
  longest_gap_s DOUBLE,
  energy_method VARCHAR,
  energy_uncertainty_j DOUBLE
);
COMMENT ON TABLE phases IS 'One row a phase of a run and GPU. Key: run_id, gpu_index, phase.';
COMMENT ON COLUMN phases.run_id IS 'The run: one profile, one repeat, one execution. Joins all tables.';
COMMENT ON COLUMN phases.execution IS 'One go of a sweep file: its start (UTC) and a short hash.';
COMMENT ON COLUMN phases.sweep IS 'The sweep block that the profile belongs to.';
COMMENT ON COLUMN phases.model IS 'The model as the sweep file names it.';
COMMENT ON COLUMN phases.synthetic IS 'True: made by the simulator; never to be mixed with measurements.';
COMMENT ON COLUMN phases.gpu_index IS 'The driver''s index; null: the host.';
COMMENT ON COLUMN phases.phase IS 'Name of the phase.';
COMMENT ON COLUMN phases.started_at IS 'Start of the phase.';
COMMENT ON COLUMN phases.ended_at IS 'End of the phase.';
COMMENT ON COLUMN phases.duration_s IS '[s] Length of the phase.';
COMMENT ON COLUMN phases.uncertainty_s IS '[s] Of its start.';
COMMENT ON COLUMN phases.memory_min_bytes IS '[bytes] Lowest sample in the phase.';
COMMENT ON COLUMN phases.memory_max_bytes IS '[bytes] Highest sample in the phase.';
COMMENT ON COLUMN phases.memory_mean_bytes IS '[bytes] Mean of the samples in the phase.';
COMMENT ON COLUMN phases.memory_start_bytes IS '[bytes] At its start.';
COMMENT ON COLUMN phases.memory_end_bytes IS '[bytes] At its end.';
COMMENT ON COLUMN phases.energy_j IS '[J] Spent in the phase.';
COMMENT ON COLUMN phases.mean_power_w IS '[W] Mean power in the phase.';
COMMENT ON COLUMN phases.samples IS 'Samples of the memory that lie in the phase.';
COMMENT ON COLUMN phases.longest_gap_s IS '[s] Longest time in the phase without a sample, its bounds included.';
COMMENT ON COLUMN phases.energy_method IS 'counter: the driver''s, read at the bounds; power: the instantaneous power over the time.';
COMMENT ON COLUMN phases.energy_uncertainty_j IS '[J] How far energy_j may be off, for the moments of its bounds and for what changed between two samples.';

CREATE TABLE breakdowns (
  run_id VARCHAR NOT NULL,
  execution VARCHAR NOT NULL,
  sweep VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  synthetic BOOLEAN NOT NULL,
  rank INTEGER NOT NULL,
  component VARCHAR NOT NULL,
  bytes BIGINT NOT NULL,
  share DOUBLE,
  source VARCHAR NOT NULL,
  confidence VARCHAR NOT NULL
);
COMMENT ON TABLE breakdowns IS 'One row a part of the net increase of a rank; the parts of a run add up to its net_increase_bytes, nothing twice. Key: run_id, rank, component.';
COMMENT ON COLUMN breakdowns.run_id IS 'The run: one profile, one repeat, one execution. Joins all tables.';
COMMENT ON COLUMN breakdowns.execution IS 'One go of a sweep file: its start (UTC) and a short hash.';
COMMENT ON COLUMN breakdowns.sweep IS 'The sweep block that the profile belongs to.';
COMMENT ON COLUMN breakdowns.model IS 'The model as the sweep file names it.';
COMMENT ON COLUMN breakdowns.synthetic IS 'True: made by the simulator; never to be mixed with measurements.';
COMMENT ON COLUMN breakdowns.rank IS 'From 0.';
COMMENT ON COLUMN breakdowns.component IS 'weights, kv_cache, activations, cuda_graphs, non_torch, context, buffers, growth_excess, framework_overhead.';
COMMENT ON COLUMN breakdowns.bytes IS '[bytes] The part; negative is kept.';
COMMENT ON COLUMN breakdowns.share IS '[ratio] Of the rank''s net increase.';
COMMENT ON COLUMN breakdowns.source IS 'Where the figure comes from.';
COMMENT ON COLUMN breakdowns.confidence IS 'high_from_vllm_logs, high_measured_step, high_calculated, low_estimated, calculated_residual.';

CREATE TABLE steps (
  run_id VARCHAR NOT NULL,
  execution VARCHAR NOT NULL,
  sweep VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  synthetic BOOLEAN NOT NULL,
  gpu_index INTEGER NOT NULL,
  step VARCHAR NOT NULL,
  bytes BIGINT,
  t_from TIMESTAMP WITH TIME ZONE,
  t_to TIMESTAMP WITH TIME ZONE,
  vllm_bytes BIGINT,
  difference_bytes BIGINT,
  reason VARCHAR,
  uncertainty_bytes BIGINT,
  lower_bound BOOLEAN
);
COMMENT ON TABLE steps IS 'One row a step of the driver''s account of a GPU: what its memory did in a phase. Key: run_id, gpu_index, step.';
COMMENT ON COLUMN steps.run_id IS 'The run: one profile, one repeat, one execution. Joins all tables.';
COMMENT ON COLUMN steps.execution IS 'One go of a sweep file: its start (UTC) and a short hash.';
COMMENT ON COLUMN steps.sweep IS 'The sweep block that the profile belongs to.';
COMMENT ON COLUMN steps.model IS 'The model as the sweep file names it.';
COMMENT ON COLUMN steps.synthetic IS 'True: made by the simulator; never to be mixed with measurements.';
COMMENT ON COLUMN steps.gpu_index IS 'The driver''s index.';
COMMENT ON COLUMN steps.step IS 'context, nccl, load, buffers, profile_peak, estimate_capture, kv_alloc, kernel_warmup, capture, engine_warmup, bench_warmup, measure, left_after.';
COMMENT ON COLUMN steps.bytes IS '[bytes] Change of the driver''s memory.';
COMMENT ON COLUMN steps.t_from IS 'Start of the step.';
COMMENT ON COLUMN steps.t_to IS 'End of the step.';
COMMENT ON COLUMN steps.vllm_bytes IS '[bytes] What vLLM says of the same.';
COMMENT ON COLUMN steps.difference_bytes IS '[bytes] bytes - vllm_bytes.';
COMMENT ON COLUMN steps.reason IS 'Why a figure is null, or what explains the difference.';
COMMENT ON COLUMN steps.uncertainty_bytes IS '[bytes] How far bytes may be off for what the two samples do not show.';
COMMENT ON COLUMN steps.lower_bound IS 'True: a peak that one sample alone shows; what lies between two samples may be higher.';

CREATE TABLE latencies (
  run_id VARCHAR NOT NULL,
  execution VARCHAR NOT NULL,
  sweep VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  synthetic BOOLEAN NOT NULL,
  iteration INTEGER NOT NULL,
  latency_s DOUBLE NOT NULL
);
COMMENT ON TABLE latencies IS 'One row a measured iteration. Key: run_id, iteration.';
COMMENT ON COLUMN latencies.run_id IS 'The run: one profile, one repeat, one execution. Joins all tables.';
COMMENT ON COLUMN latencies.execution IS 'One go of a sweep file: its start (UTC) and a short hash.';
COMMENT ON COLUMN latencies.sweep IS 'The sweep block that the profile belongs to.';
COMMENT ON COLUMN latencies.model IS 'The model as the sweep file names it.';
COMMENT ON COLUMN latencies.synthetic IS 'True: made by the simulator; never to be mixed with measurements.';
COMMENT ON COLUMN latencies.iteration IS 'From 1, in the order of measuring.';
COMMENT ON COLUMN latencies.latency_s IS '[s] Duration of the iteration.';

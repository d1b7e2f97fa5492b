-- Views of vramsweep's tables for people: memory in GiB (2^30 bytes), joins ready.
--   duckdb my.duckdb < views.sql      keeps them in a file; they read the folders anew each time
-- Synthetic runs (of the simulator) stand beside measured ones: filter "synthetic" or group by it.

CREATE OR REPLACE VIEW runs_main AS
SELECT run_id, execution, started_at, sweep, model, gpu_name, gpu_count, vllm_version, effective_dtype AS dtype,
       effective_quantization AS quantization, tensor_parallel_size AS tp, input_len, output_len, batch_size, outcome,
       peak_memory_bytes / 2**30 AS peak_gib, peak_memory_max_gpu_bytes / 2**30 AS peak_max_gpu_gib,
       model_weights_bytes / 2**30 AS weights_gib, kv_cache_bytes / 2**30 AS kv_cache_gib,
       kv_cache_used_bytes / 2**30 AS kv_used_gib, activations_reserved_bytes / 2**30 AS activations_reserved_gib,
       cuda_graphs_bytes / 2**30 AS cuda_graphs_gib, kv_cache_tokens, avg_latency_s, output_tokens_per_s,
       synthetic{{axes}}
FROM runs;
COMMENT ON VIEW runs_main IS 'One row a run: what people ask for first, of the columns of runs. Memory is summed over the GPUs of the run unless the name says max_gpu.';
COMMENT ON COLUMN runs_main.peak_gib IS '[GiB] Highest sample, all GPUs at the same tick.';
COMMENT ON COLUMN runs_main.peak_max_gpu_gib IS '[GiB] Highest use of the GPU with the highest.';
COMMENT ON COLUMN runs_main.kv_cache_gib IS '[GiB] KV cache as reserved.';
COMMENT ON COLUMN runs_main.kv_used_gib IS '[GiB] KV cache that the run used at most.';
COMMENT ON COLUMN runs_main.dtype IS 'As vLLM said; null: it did not.';
COMMENT ON COLUMN runs_main.avg_latency_s IS '[s] Mean of one iteration: batch_size x output_len tokens.';

CREATE OR REPLACE VIEW runs_power AS
SELECT m.*, r.measure_mean_power_w, r.measure_energy_j, r.max_power_w, r.max_temperature_c, r.mean_power_w, r.energy_j, r.window_s,
       r.energy_method, r.batch_size * r.output_len * r.n_iters / r.measure_energy_j AS tokens_per_joule
FROM runs_main AS m JOIN runs AS r USING (run_id);
COMMENT ON VIEW runs_power IS 'runs_main with power and energy of the measured iterations and of the window from engine ready to their end, summed over its GPUs, and generated tokens per joule of the measured iterations.';

CREATE OR REPLACE VIEW run_gpus AS
WITH seen AS (
  SELECT run_id, gpu_index, any_value(gpu_uuid) AS gpu_uuid, count(*) AS samples,
         max(memory_used_bytes) / 2**30 AS peak_gib, max(power_w) AS highest_power_w, max(temperature_c) AS highest_temperature_c,
         max(memory_temperature_c) AS highest_memory_temperature_c,
         -- NVML: software power cap 4, hardware slowdown 8, thermal 32 and 64, power brake 128
         avg(CASE WHEN throttle_reasons & 236 <> 0 THEN 1 WHEN throttle_reasons IS NOT NULL THEN 0 END)
           FILTER (phase = 'measure') AS throttled_share
  FROM timelines WHERE gpu_index IS NOT NULL GROUP BY run_id, gpu_index)
SELECT r.run_id, r.execution, r.model, r.outcome, r.synthetic, s.* EXCLUDE (run_id), p.mean_power_w, p.energy_j, p.duration_s AS measure_s
FROM seen AS s JOIN runs AS r USING (run_id)
LEFT JOIN phases AS p ON p.run_id = s.run_id AND p.gpu_index = s.gpu_index AND p.phase = 'measure';
COMMENT ON VIEW run_gpus IS 'One row a run and GPU: peak, highest power and temperature of its samples; mean power, energy and length of the measuring phase; and the share of the measuring samples in which power or heat held its clocks down. Reads the timelines: name a run or an execution.';

CREATE OR REPLACE VIEW parts AS
SELECT r.run_id, r.execution, r.model, r.tensor_parallel_size AS tp, r.input_len, r.output_len, r.batch_size, r.synthetic,
       b.component, sum(b.bytes) / 2**30 AS gib, any_value(b.confidence) AS confidence
FROM breakdowns AS b JOIN runs AS r USING (run_id)
GROUP BY ALL;
COMMENT ON VIEW parts IS 'One row a run and part of its net increase, in GiB, summed over ranks, with the settings of the run.';

CREATE OR REPLACE VIEW steps_main AS
SELECT r.model, r.batch_size, s.run_id, s.gpu_index, s.step, s.bytes / 2**30 AS gib, s.vllm_bytes / 2**30 AS vllm_gib,
       s.difference_bytes / 2**20 AS difference_mib, s.reason, s.synthetic
FROM steps AS s JOIN runs AS r USING (run_id);
COMMENT ON VIEW steps_main IS 'One row a step of the driver''s account: GiB beside what vLLM says, the difference in MiB.';

CREATE OR REPLACE VIEW samples AS
SELECT r.model, r.tensor_parallel_size AS tp, r.input_len, r.output_len, r.batch_size, t.run_id, t.gpu_index, t.ts,
       t.t_offset_us / 1e6 AS t_s, t.phase, t.memory_used_bytes / 2**30 AS used_gib, t.power_w, t.temperature_c,
       t.utilization_pct, t.clock_sm_mhz, t.host_rss_bytes / 2**30 AS host_rss_gib, t.host_cpu_pct, t.synthetic
FROM timelines AS t JOIN runs AS r USING (run_id);
COMMENT ON VIEW samples IS 'One row a sample, with the settings of its run; gpu_index null: of the host.';

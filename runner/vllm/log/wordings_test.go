package log

import (
	"fmt"
	"strings"
	"testing"
)

// rec is a record of one version: its prefix as that version prints it.
func rec(version, proc, file, msg string) string {
	prefix := "INFO 01-02 03:04:05 [" + file + ":12] "
	if before(version, 0, 8) {
		prefix = "INFO 01-02 03:04:05 " + file + ":12] "
	}
	return proc + prefix + msg + "\n"
}

// engineOf is a banner as a version words it, for kind "V0" or "V1".
func engineOf(version, kind string, pairs string) string {
	file, word, proc := "llm_engine.py", " an LLM", ""
	if kind == "V1" {
		file = "core.py"
		if !before(version, 0, 11) {
			proc = "(EngineCore pid=7) "
		}
	}
	if !before(version, 0, 8) || strings.HasPrefix(version, "0.7.1") || strings.HasPrefix(version, "0.7.2") || strings.HasPrefix(version, "0.7.3") {
		word = " a " + kind + " LLM"
	}
	return rec(version, proc, file, fmt.Sprintf("Initializing%s engine (v%s) with config: model='m', speculative_config=None, tokenizer='m', dtype=torch.bfloat16, max_seq_len=4096, tensor_parallel_size=1, quantization=None, enforce_eager=False, kv_cache_dtype=auto, device_config=cuda, %s", word, version, pairs))
}

// A wording is a text that vLLM prints, the versions that print it so, and what
// must be read from it.
type wording struct {
	name     string
	kind     string
	versions []string
	file     string
	msg      string
	want     map[string]any
}

func wordings() []wording {
	type fields = map[string]any
	v0s := []string{"0.4.0", "0.4.3", "0.5.5", "0.6.0", "0.6.4", "0.6.6.post1", "0.7.0", "0.7.3", "0.8.5", "0.9.2", "0.10.2"}
	v1s := []string{"0.6.5", "0.7.2", "0.8.0", "0.8.5.post1", "0.9.0.1", "0.10.1.1", "0.10.2", "0.11.0", "0.11.1", "0.12.0", "0.13.0", "0.14.1", "0.15.0rc2.dev46+gc4e744dbd", "0.16.0", "0.17.1", "0.18.0", "0.19.1", "0.20.2", "0.22.1rc1.dev368+g0afcebd46", "0.24.0", "0.26.1rc0+glm53", "0.28.1.dev202608260651", "0.29.0", "0.31.0"}
	return []wording{
		{"weights GB", "V0", v0s, "model_runner.py", "Loading model weights took 14.9595 GB", fields{"model_weights_gb": 14.9595, "load_seconds": nil}},
		{"weights GB, seconds", "V1", []string{"0.8.0", "0.8.2"}, "gpu_model_runner.py", "Model loading took 14.9596 GB and 3.211000 seconds", fields{"model_weights_gb": 14.9596, "load_seconds": 3.211, "model_runner": "v1"}},
		{"weights GiB", "V1", v1s, "gpu_model_runner.py", "Model loading took 14.9596 GiB and 3.211000 seconds", fields{"model_weights_gb": 14.9596, "load_seconds": 3.211, "model_runner": "v1"}},
		{"weights GiB memory", "V1", v1s, "gpu_model_runner.py", "Model loading took 15.0 GiB memory and 3.211000 seconds", fields{"model_weights_gb": 15.0}},
		{"weights of the V2 runner", "V1", []string{"0.28.0", "0.31.0"}, "model_runner.py", "Model loading took 7.8 GiB memory and 1.000000 seconds", fields{"model_weights_gb": 7.8}},
		{"weights on XPU", "V0", []string{"0.8.4", "0.9.2"}, "xpu_model_runner.py", "Loading model weights took 2.8000 GiB", fields{"model_weights_gb": 2.8}},
		{"weights of Ascend", "V1", []string{"0.9.1", "0.20.2"}, "model_runner_v1.py", "Loading model weights took 14.2500 GB", fields{"model_weights_gb": 14.25}},
		{"no weights: the disk's part", "V1", v1s, "default_loader.py", "Loading weights took 3.35 seconds", fields{"model_weights_gb": nil, "load_seconds": nil}},
		{"no weights: the checkpoint", "V1", []string{"0.20.2", "0.31.0"}, "weight_utils.py", "Filesystem type for checkpoints: EXT4. Checkpoint size: 14.96 GiB. Available RAM: 120.05 GiB.", fields{"model_weights_gb": nil}},
		{"no weights: the peak", "V1", []string{"0.17.0"}, "gpu_model_runner.py", "Peak GPU memory after loading weights: 15.02 GiB", fields{"model_weights_gb": nil}},

		{"KV", "V1", v1s, "gpu_worker.py", "Available KV cache memory: 54.30 GiB", fields{"available_kv_cache_gb": 54.3}},
		{"KV, short", "V1", v1s, "gpu_worker.py", "Available KV cache memory: 54.3 GiB", fields{"available_kv_cache_gb": 54.3}},
		{"KV, whole", "V1", v1s, "gpu_worker.py", "Available KV cache memory: 54 GiB", fields{"available_kv_cache_gb": 54.0}},
		{"KV, negative", "V1", v1s, "gpu_worker.py", "Available KV cache memory: -0.25 GiB", fields{"available_kv_cache_gb": -0.25}},
		{"tokens", "V1", v1s, "kv_cache_utils.py", "GPU KV cache size: 444,784 tokens", fields{"total_gpu_kv_cache_tokens": 444784.0, "num_gpu_blocks": nil}},
		{"tokens without commas", "V1", v1s, "kv_cache_utils.py", "GPU KV cache size: 444784 tokens", fields{"total_gpu_kv_cache_tokens": 444784.0}},
		{"concurrency", "V1", v1s, "kv_cache_utils.py", "Maximum concurrency for 40,960 tokens per request: 10.86x", fields{"max_concurrency": 10.86, "max_model_len": 40960.0}},
		{"concurrency of V0", "V0", v0s, "executor_base.py", "Maximum concurrency for 40960 tokens per request: 1.34x", fields{"max_concurrency": 1.34, "max_model_len": 40960.0}},
		{"tokens and concurrency", "V1", []string{"0.28.0", "0.31.0"}, "kv_cache_utils.py", "GPU KV cache size: 444,784 tokens, Maximum concurrency for 40,960 tokens per request: 10.86x", fields{"total_gpu_kv_cache_tokens": 444784.0, "max_concurrency": 10.86, "max_model_len": 40960.0}},
		{"context parallel tokens", "V1", []string{"0.10.2", "0.15.0"}, "kv_cache_utils.py", "Forcing kv cache block size to 64 for FlashMLA backend.\nINFO 01-02 03:04:05 [kv_cache_utils.py:13] Multiplying the GPU KV cache size by the dcp_world_size 8.\nINFO 01-02 03:04:05 [kv_cache_utils.py:14] GPU KV cache size: 65,536 tokens", fields{"total_gpu_kv_cache_tokens": 65536.0, "block_size": 64.0, "num_gpu_blocks": nil}},
		{"blocks of V0", "V0", []string{"0.4.0", "0.6.6.post1"}, "gpu_executor.py", "# GPU blocks: 27832, # CPU blocks: 2048", fields{"num_gpu_blocks": 27832.0, "num_cpu_blocks": 2048.0}},
		{"blocks of CUDA", "V0", []string{"0.7.0"}, "executor_base.py", "# CUDA blocks: 27832, # CPU blocks: 2048", fields{"num_gpu_blocks": 27832.0, "num_cpu_blocks": 2048.0}},
		{"blocks of ROCm", "V0", []string{"0.7.3", "0.10.2"}, "executor_base.py", "# rocm blocks: 46921, # CPU blocks: 4161", fields{"num_gpu_blocks": 46921.0, "num_cpu_blocks": 4161.0}},
		{"blocks of HPU", "V0", []string{"0.6.6"}, "hpu_executor.py", "# HPU blocks: 1519, # CPU blocks: 0", fields{"num_gpu_blocks": 1519.0, "num_cpu_blocks": 0.0}},
		{"blocks of a CPU", "V0", []string{"0.7.3", "0.9.0"}, "executor_base.py", "# cpu blocks: 9362, # CPU blocks: 0", fields{"num_gpu_blocks": 9362.0, "num_cpu_blocks": 0.0}},
		{"blocks of OpenVINO", "V0", []string{"0.5.0", "0.6.6"}, "openvino_executor.py", "# CPU blocks: 1024", fields{"num_gpu_blocks": nil, "num_cpu_blocks": 1024.0}},
		{"blocks of early V1", "V1", []string{"0.6.5", "0.7.3"}, "kv_cache_utils.py", "# GPU blocks: 27832", fields{"num_gpu_blocks": 27832.0, "num_cpu_blocks": nil}},
		{"blocks of 0.9.0", "V1", []string{"0.9.0"}, "core.py", "vllm cache_config_info with initialization after num_gpu_blocks is: 27832", fields{"num_gpu_blocks": 27832.0}},
		{"blocks of several engines", "V1", []string{"0.11.1"}, "loggers.py", "2 Engines: vllm cache_config_info with initialization after num_gpu_blocks is: 27832", fields{"num_gpu_blocks": 27832.0}},
		{"forced blocks", "V0", []string{"0.4.0"}, "llm_engine.py", "Replacing profiled num_gpu_blocks=27832 with forced_num_gpu_blocks=512", fields{"num_gpu_blocks": 512.0}},
		{"override of graph profiling", "V1", []string{"0.18.0", "0.31.0"}, "kv_cache_utils.py", "Overriding num_gpu_blocks=0 with num_gpu_blocks_override=1024", fields{"num_gpu_blocks": nil}},

		{"DEBUG, 0.10.1", "V1", []string{"0.10.1.1", "0.13.0"}, "gpu_worker.py", "Initial free memory: 78.68 GiB; Requested memory: 0.95 (util), 75.23 GiB\nDEBUG 01-02 03:04:05 [gpu_worker.py:2] Free memory after profiling: 61.51 GiB (total), 58.06 GiB (within requested)", fields{"free_memory_gb": 78.68, "requested_memory_gb": 75.23, "gpu_memory_utilization": 0.95}},
		{"DEBUG, 0.14", "V1", []string{"0.14.1", "0.26.0"}, "gpu_worker.py", "Initial free memory: 78.68 GiB; Requested memory: 0.950000 (util), 75.23 GiB", fields{"free_memory_gb": 78.68, "requested_memory_gb": 75.23, "gpu_memory_utilization": 0.95}},
		{"DEBUG profile, 0.27", "V1", []string{"0.27.0", "0.31.0"}, "gpu_worker.py", "Memory profiling takes 3.10 seconds. Total non KV cache memory: 17.04GiB; total consumed (from mem_get_info): 15.30GiB; torch peak memory increase: 1.74GiB; weights memory: 14.99GiB.", fields{"activations_gb": 1.74, "model_weights_gb": 14.99, "non_torch_gb": nil}},
		{"DEBUG profile, 0.27, other order", "V1", []string{"0.27.0"}, "gpu_worker.py", "Memory profiling takes 3.10 seconds. Total non KV cache memory: 17.04GiB; torch peak memory increase: 1.74GiB; total consumed (from mem_get_info): 15.30GiB; weights memory: 14.99GiB.", fields{"activations_gb": 1.74, "model_weights_gb": 14.99, "non_torch_gb": nil}},
		{"DEBUG snapshot", "V1", []string{"0.14.1", "0.31.0"}, "gpu_worker.py", "worker init memory snapshot: torch_peak=0.0GiB, free_memory=78.68GiB, total_memory=79.19GiB, cuda_memory=0.51GiB, torch_memory=0.0GiB, non_torch_memory=0.51GiB, timestamp=1776817406.2, auto_measure=True\nDEBUG 01-02 03:04:05 [gpu_worker.py:2] worker requested memory: 75.23GiB", fields{"free_memory_gb": 78.68, "total_gpu_memory_gb": 79.19, "requested_memory_gb": 75.23}},
		{"DEBUG terms of the estimate", "V1", []string{"0.18.0"}, "gpu_model_runner.py", "Estimated FULL CUDA graph memory: 36.00 MiB first-capture + (35-1) × 12.00 MiB per-graph", fields{"graph_estimate_gb": nil}},
		{"usage, 0.11", "V1", []string{"0.11.0", "0.24.0", "0.26.0"}, "gpu_worker.py", "Free memory on device (78.68/79.19 GiB) on startup. Desired GPU memory utilization is (0.95, 75.23 GiB). Actual usage is 14.99 GiB for weight, 1.89 GiB for peak activation, 0.25 GiB for non-torch memory, and 0.91 GiB for CUDAGraph memory. Replace gpu_memory_utilization config with `--kv-cache-memory=61414305382` (57.2 GiB) to fit into requested memory, or `--kv-cache-memory=65118691328` (60.65 GiB) to fully utilize gpu memory. Current kv cache memory in use is 58.11 GiB.", fields{"free_memory_gb": 78.68, "total_gpu_memory_gb": 79.19, "gpu_memory_utilization": 0.95, "requested_memory_gb": 75.23, "model_weights_gb": 14.99, "activations_gb": 1.89, "non_torch_gb": 0.25, "graph_capture_gb": 0.91, "available_kv_cache_gb": 58.11}},
		{"usage without the hints", "V1", []string{"0.31.0"}, "gpu_worker.py", "Free memory on device cuda:0 (31.0/31.36 GiB) on startup. Desired GPU memory utilization is (0.92, 28.85 GiB). Actual usage is 15.3 GiB for consumed memory (weights + non-torch), 1.74 GiB for peak activation, and 0.0 GiB for CUDAGraph memory.", fields{"free_memory_gb": 31.0, "total_gpu_memory_gb": 31.36, "requested_memory_gb": 28.85, "activations_gb": nil, "graph_capture_gb": 0.0, "available_kv_cache_gb": nil}},
		{"estimate", "V1", []string{"0.18.0", "0.28.0"}, "gpu_model_runner.py", "Estimated CUDA graph memory: 0.84 GiB total", fields{"graph_estimate_gb": 0.84}},
		{"profiling of graphs", "V1", []string{"0.18.0"}, "gpu_model_runner.py", "Profiling CUDA graph memory: PIECEWISE=51 (largest=512), FULL=35 (largest=256)", fields{"graph_estimate_gb": nil}},
		{"pool", "V1", []string{"0.19.1", "0.29.0"}, "gpu_model_runner.py", "CUDA graph pool memory: 0.91 GiB (actual), 0.84 GiB (estimated), difference: 0.07 GiB (7.7%).", fields{"graph_estimate_gb": 0.84, "graph_capture_gb": 0.91}},
		{"pool, negative difference", "V1", []string{"0.20.2"}, "gpu_model_runner.py", "CUDA graph pool memory: 0.4 GiB (actual), 0.63 GiB (estimated), difference: -0.23 GiB (-57.5%).", fields{"graph_estimate_gb": 0.63, "graph_capture_gb": 0.4}},
		{"notice of 0.18", "V1", []string{"0.19.1"}, "gpu_worker.py", "In v0.19, CUDA graph memory profiling will be enabled by default (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=1), which more accurately accounts for CUDA graph memory during KV cache allocation. To try it now, set VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=1 and increase --gpu-memory-utilization from 0.9500 to 0.9606 to maintain the same effective KV cache size.", fields{"gpu_memory_utilization": 0.95}},
		{"notice of 0.20, off", "V1", []string{"0.20.2", "0.29.0"}, "gpu_worker.py", "CUDA graph memory profiling is disabled (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0). Without it, CUDA graph memory is not accounted for during KV cache allocation, which may require lowering --gpu-memory-utilization to avoid OOM.", fields{"graph_estimate_gb": nil}},
		{"KV given", "V1", []string{"0.11.1", "0.31.0"}, "gpu_worker.py", "Initial free memory 78.68 GiB, reserved 20.0 GiB memory for KV Cache as specified by kv_cache_memory_bytes config and skipped memory profiling. This does not respect the gpu_memory_utilization config.", fields{"free_memory_gb": 78.68, "available_kv_cache_gb": 20.0}},

		{"graphs", "V1", []string{"0.7.2", "0.11.0", "0.31.0"}, "gpu_model_runner.py", "Graph capturing finished in 21 secs, took 0.55 GiB", fields{"graph_capture_gb": 0.55, "cuda_graphs_enabled": true}},
		{"graphs of V0", "V0", []string{"0.4.0", "0.6.0"}, "model_runner.py", "Graph capturing finished in 6 secs.", fields{"graph_capture_gb": nil, "cuda_graphs_enabled": true}},
		{"no graphs, 0.10", "V1", []string{"0.10.1.1", "0.19.1"}, "vllm.py", "Cudagraph is disabled under eager mode", fields{"cuda_graphs_enabled": false}},
		{"no graphs, 0.12", "V1", []string{"0.12.0"}, "vllm.py", "Enforce eager set, overriding optimization level to -O0", fields{"cuda_graphs_enabled": false, "compile_cache": "off"}},
		{"no graphs, 0.17", "V1", []string{"0.17.1", "0.31.0"}, "vllm.py", "Enforce eager set, disabling torch.compile and CUDAGraphs. This is equivalent to setting -cc.mode=none -cc.cudagraph_mode=none", fields{"cuda_graphs_enabled": false, "compile_cache": "off"}},
		{"no graphs on a CPU", "V1", []string{"0.9.1"}, "config.py", "CUDA graph is not supported on CPU, fallback to the eager mode.", fields{"cuda_graphs_enabled": false}},

		{"CPU not set, GB", "V0", []string{"0.4.1", "0.8.2"}, "cpu_executor.py", "Environment variable VLLM_CPU_KVCACHE_SPACE (GB) for CPU backend is not set, using 4 by default.", fields{"available_kv_cache_gb": 4.0}},
		{"CPU not set, GiB", "V1", []string{"0.8.5.post1", "0.12.0"}, "cpu.py", "Environment variable VLLM_CPU_KVCACHE_SPACE (GiB) for CPU backend is not set, using 4 by default.", fields{"available_kv_cache_gb": 4.0}},
		{"CPU not set, 0.13", "V1", []string{"0.13.0", "0.19.1"}, "cpu.py", "VLLM_CPU_KVCACHE_SPACE not set. Using 15.62 GiB for KV cache.", fields{"available_kv_cache_gb": 15.62}},
		{"OpenVINO not set", "V0", []string{"0.5.5"}, "openvino_executor.py", "Environment variable VLLM_OPENVINO_KVCACHE_SPACE (GB) for OpenVINO backend is not set, using 4 by default.", fields{"available_kv_cache_gb": 4.0}},
		{"CPU explicit", "V1", []string{"0.20.2", "0.31.0"}, "cpu_worker.py", "Explicitly set (1.0/11.09) GiB for KV cache on node 0.", fields{"available_kv_cache_gb": 1.0}},
		{"Gaudi, old words", "V0", []string{"0.6.4"}, "hpu_worker.py", "Free device memory: 79.16 GiB, 39.58 GiB usable (gpu_memory_utilization=0.5), 15.83 GiB reserved for HPUGraphs (VLLM_GRAPH_RESERVED_MEM=0.4), 23.75 GiB reserved for KV cache", fields{"available_kv_cache_gb": 23.75, "gpu_memory_utilization": 0.5, "free_memory_gb": 79.16}},
		{"Gaudi's other figures", "V0", []string{"0.6.4"}, "hpu_model_runner.py", "Pre-loading model weights on hpu:0 took 14.97 GiB of device memory (14.97 GiB/94.62 GiB used) and 2.95 GiB of host memory (475.2 GiB/1007 GiB used)\nINFO 01-02 03:04:05 hpu_model_runner.py:2] Loading model weights took in total 14.97 GiB of device memory (14.97 GiB/94.62 GiB used) and 2.95 GiB of host memory (475.2 GiB/1007 GiB used)\nINFO 01-02 03:04:05 hpu_worker.py:134] Model profiling run took 504 MiB of device memory (15.46 GiB/94.62 GiB used) and 180.9 MiB of host memory (475.4 GiB/1007 GiB used)\nINFO 01-02 03:04:05 hpu_worker.py:190] Initializing cache engine took 23.73 GiB of device memory (39.2 GiB/94.62 GiB used) and -1.238 MiB of host memory (475.4 GiB/1007 GiB used)\nINFO 01-02 03:04:05 hpu_model_runner.py:1159] Using 15.85 GiB/55.43 GiB of free device memory for HPUGraphs, 7.923 GiB for prompt and 7.923 GiB for decode (VLLM_GRAPH_PROMPT_RATIO=0.3)\nINFO 01-02 03:04:05 hpu_model_runner.py:1206] Warmup finished in 49 secs, allocated 14.19 GiB of device memory\nINFO 01-02 03:04:05 hpu_executor.py:91] init_cache_engine took 37.92 GiB of device memory (53.39 GiB/94.62 GiB used) and 57.86 MiB of host memory (475.4 GiB/1007 GiB used)", fields{"model_weights_gb": 14.97}},
		{"sleep mode", "V1", []string{"0.8.5.post1", "0.31.0"}, "gpu_worker.py", "Sleep mode freed 55.10 GiB memory, 1.20 GiB memory is still in use.", fields{"available_kv_cache_gb": nil}},

		{"init, seconds", "V1", []string{"0.7.2", "0.19.1"}, "core.py", "init engine (profile, create kv cache, warmup model) took 65.27 seconds", fields{"init_engine_seconds": 65.27}},
		{"init, s", "V1", []string{"0.20.2"}, "core.py", "init engine (profile, create kv cache, warmup model) took 65.27 s", fields{"init_engine_seconds": 65.27}},
		{"init, compilation", "V1", []string{"0.20.2", "0.31.0"}, "core.py", "init engine (profile, create kv cache, warmup model) took 65.27 s (compilation: 20.10 s)", fields{"init_engine_seconds": 65.27, "compile_seconds": 20.1}},
		{"compile, took", "V1", []string{"0.18.0", "0.31.0"}, "monitor.py", "torch.compile took 20.10 s in total", fields{"compile_seconds": 20.1}},
		{"using max len", "V1", []string{"0.9.2", "0.31.0"}, "model.py", "Using max model len 8192", fields{"max_model_len": 8192.0}},
		{"chunked prefill", "V1", []string{"0.8.0", "0.31.0"}, "scheduler.py", "Chunked prefill is enabled with max_num_batched_tokens=16384.", fields{"max_num_batched_tokens": 16384.0}},
		{"fp8 KV", "V0", []string{"0.4.1", "0.7.3"}, "config.py", "Using fp8 data type to store kv cache. It reduces the GPU memory footprint and boosts the performance. Meanwhile, it may cause accuracy drop without a proper scaling factor", fields{"kv_cache_dtype": "auto"}},
	}
}

// TestWordings holds each wording that a version gives a fact, as TestLines
// does those of one line, over the whole range of versions.
func TestWordings(t *testing.T) {
	for _, c := range wordings() {
		for _, version := range c.versions {
			t.Run(c.name+" "+version, func(t *testing.T) {
				proc := ""
				if c.kind == "V1" && !before(version, 0, 11) {
					proc = "(EngineCore pid=7) "
				}
				a := oneAccount(t, engineOf(version, c.kind, "seed=0")+rec(version, proc, c.file, c.msg))
				got := asJSON(t, a)
				for field, want := range c.want {
					if have := lookup(got, field); !same(have, want) {
						t.Errorf("%s = %v, want %v (source %q, missing %q)", field, have, want, a.Sources[field].Text, a.Missing[field])
					}
				}
				if str(a.VLLMVersion) != version || str(a.Engine) != c.kind || a.UnreadCount != 0 {
					t.Errorf("%s engine %s, unread %v", str(a.VLLMVersion), str(a.Engine), a.UnreadLines)
				}
				checkAccount(t, a)
			})
		}
	}
}

// TestBackends holds the lines that choose attention's backend, by version, and
// those that only look like one.
func TestBackends(t *testing.T) {
	for _, c := range []struct{ version, file, line, want string }{
		{"0.4.1", "selector.py", "Using FlashAttention backend.", "FlashAttention"},
		{"0.4.2", "selector.py", "Using FlashAttention-2 backend.", "FlashAttention-2"},
		{"0.5.5", "selector.py", "Using XFormers backend.", "XFormers"},
		{"0.5.5", "selector.py", "Using ROCmFlashAttention backend.", "ROCmFlashAttention"},
		{"0.4.1", "selector.py", "Using Torch SDPA backend.", "Torch SDPA"},
		{"0.6.6", "selector.py", "Using Flashinfer backend.", "Flashinfer"},
		{"0.6.4", "selector.py", "Using Flash Attention backend.", "Flash Attention"},
		{"0.6.6", "selector.py", "Using BlocksparseFlashAttention backend.", "BlocksparseFlashAttention"},
		{"0.6.6", "selector.py", "Using IPEX attention backend.", "IPEX"},
		{"0.6.6", "selector.py", "Using OpenVINO Attention backend.", "OpenVINO Attention"},
		{"0.6.6", "selector.py", "Using Pallas backend.", "Pallas"},
		{"0.6.6", "selector.py", "Using HPUAttention backend.", "HPUAttention"},
		{"0.7.3", "cuda.py", "Using FlashInfer backend.", "FlashInfer"},
		{"0.7.3", "cuda.py", "Using Triton MLA backend.", "Triton MLA"},
		{"0.8.0", "cuda.py", "Using FlashMLA backend.", "FlashMLA"},
		{"0.8.3", "cpu.py", "Using CPU MLA backend.", "CPU MLA"},
		{"0.8.5", "rocm.py", "Using AITER MLA backend.", "AITER MLA"},
		{"0.9.2", "cuda.py", "Using DualChunkFlashAttention backend.", "DualChunkFlashAttention"},
		{"0.8.2", "cuda.py", "Using Triton backend on V1 engine.", "Triton"},
		{"0.9.2", "cuda.py", "Using Cutlass MLA backend on V1 engine.", "Cutlass MLA"},
		{"0.10.2", "cuda.py", "Using FlashAttention MLA backend on V1 engine.", "FlashAttention MLA"},
		{"0.11.0", "cuda.py", "Using Sparse MLA backend on V1 engine.", "Sparse MLA"},
		{"0.10.2", "cuda.py", "Using FlexAttention backend on V1 engine.", "FlexAttention"},
		{"0.10.2", "rocm.py", "Using Triton Attention backend on V1 engine.", "Triton Attention"},
		{"0.10.2", "rocm.py", "Using Rocm/Aiter FlashAttention backend on V1 engine.", "Rocm/Aiter FlashAttention"},
		{"0.10.2", "tpu.py", "Using Pallas V1 backend.", "Pallas V1"},
		{"0.11.2", "cuda.py", "Using AttentionBackendEnum.FLASHINFER backend.", "AttentionBackendEnum.FLASHINFER"},
		{"0.13.0", "cuda.py", "Using FLASH_ATTN attention backend out of potential backends: ('FLASH_ATTN', 'FLASHINFER', 'TRITON_ATTN', 'FLEX_ATTENTION')", "FLASH_ATTN"},
		{"0.16.0", "cuda.py", "Using FLASHINFER attention backend out of potential backends: ['FLASHINFER', 'TRITON_ATTN'].", "FLASHINFER"},
		{"0.20.2", "cuda.py", "Using TRITON_MLA attention backend out of potential backends: ['TRITON_MLA'].", "TRITON_MLA"},
		{"0.15.0", "rocm.py", "Using Aiter Flash Attention backend.", "Aiter Flash Attention"},
		{"0.15.0", "rocm.py", "Using AITER TRITON MLA backend.", "AITER TRITON MLA"},
		{"0.19.0", "rocm.py", "Using ROCM_AITER_MLA backend out of potential backends: ['ROCM_AITER_MLA', 'TRITON_MLA'].", "ROCM_AITER_MLA"},
		{"0.21.0", "rocm.py", "Using ROCM_AITER_FA backend (selected via --attention-backend).", "ROCM_AITER_FA"},
		{"0.20.2", "xpu.py", "Using XPU MLA Sparse backend.", "XPU MLA Sparse"},
		{"0.28.0", "xpu.py", "Using TurboQuant attention backend.", "TurboQuant"},
		{"0.28.0", "cpu.py", "Using CPU_ATTN backend.", "CPU_ATTN"},
		{"0.20.2", "cuda.py", "Using AttentionBackendEnum.TRITON_ATTN backend.", "AttentionBackendEnum.TRITON_ATTN"},

		{"0.19.0", "selector.py", "Using HND KV cache layout for FLASHINFER backend.", ""},
		{"0.24.0", "selector.py", "Using fp8_ds_mla KV cache format for FLASHMLA_SPARSE backend.", ""},
		{"0.19.0", "cuda.py", "Using backend AttentionBackendEnum.FLASH_ATTN for vit attention", ""},
		{"0.19.0", "mm_encoder_attention.py", "Using AttentionBackendEnum.FLASH_ATTN for MMEncoderAttention.", ""},
		{"0.15.0", "rocm.py", "Using Flash Attention backend for ViT model.", ""},
		{"0.23.0", "selector.py", "Using FLASHINFER MLA prefill backend.", ""},
		{"0.23.0", "cuda.py", "Cannot use FLASH_ATTN backend because compute capability", ""},
		{"0.20.2", "mxfp4.py", "Using 'MARLIN' Mxfp4 MoE backend.", ""},
		{"0.20.2", "unquantized.py", "Using TRITON backend for Unquantized MoE", ""},
		{"0.20.2", "gdn.py", "Using FLASHINFER GDN prefill kernel", ""},
		{"0.26.0", "cuda_communicator.py", "Using ['PYNCCL'] all-reduce backends (in dispatch order) for group 'tp:0' out of potential backends: ['X'].", ""},
		{"0.9.2", "topk_topp_sampler.py", "Using FlashInfer for top-p & top-k sampling.", ""},
		{"0.12.0", "fp8.py", "Using Flashinfer backend for FP8 MoE", ""},
		{"0.12.0", "marlin.py", "Using MarlinLinearKernel for GPTQMarlinLinearMethod", ""},
		{"0.12.0", "parallel_state.py", "Using nccl backend.", ""},
		{"0.12.0", "structured_output.py", "Using xgrammar backend.", ""},
	} {
		t.Run(c.version+" "+c.line, func(t *testing.T) {
			a := oneAccount(t, engineOf(c.version, "V1", "seed=0")+rec(c.version, "", c.file, c.line))
			if got := str(a.AttentionBackend); got != c.want && (c.want != "" || got != "null") {
				t.Errorf("backend %q, want %q", got, c.want)
			}
		})
	}
}

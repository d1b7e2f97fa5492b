package log

import (
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
)

func readText(t *testing.T, text string) []*runner.Account {
	t.Helper()
	log, err := readAll(NamedReader{Name: "log", R: strings.NewReader(text)})
	if err != nil {
		t.Fatal(err)
	}
	return log.Accounts
}

const (
	bannerV0   = "INFO 01-01 00:00:00 llm_engine.py:161] Initializing an LLM engine (v0.5.4) with config: model='m', dtype=torch.float16, max_seq_len=2048, load_format=LoadFormat.AUTO, tensor_parallel_size=1, quantization=None, enforce_eager=False, kv_cache_dtype=auto, device_config=cuda)\n"
	bannerV1   = "(EngineCore pid=9) INFO 01-01 00:00:00 [core.py:1] Initializing a V1 LLM engine (v%s) with config: model='m', dtype=torch.bfloat16, max_seq_len=2048, load_format=auto, tensor_parallel_size=%d, pipeline_parallel_size=1, data_parallel_size=1, quantization=None, enforce_eager=False, kv_cache_dtype=auto, device_config=cuda, compilation_config={'mode': 3}\n"
	v1         = "INFO 01-01 00:00:00 [x.py:1] "
	v0         = "INFO 01-01 00:00:00 x.py:1] "
	newUsage   = "(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_worker.py:1] Free memory on device (78.66/79.18 GiB) on startup. Desired GPU memory utilization is (0.92, 72.84 GiB). Actual usage is 57.12 GiB for consumed memory (weights + non-torch), 3.85 GiB for peak activation, and 0.8 GiB for CUDAGraph memory. Current kv cache memory in use is 11.87 GiB.\n"
	loadV1     = "(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_model_runner.py:1] Model loading took 56.88 GiB memory and 0.767475 seconds\n"
	loadV2     = "(EngineCore pid=9) INFO 01-01 00:00:01 [model_runner.py:1] Model loading took 56.88 GiB memory and 0.767475 seconds\n"
	kvLine     = "(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_worker.py:1] Available KV cache memory: 11.87 GiB\n"
	captureOne = "(EngineCore pid=9) INFO 01-01 00:00:02 [model_runner.py:1] Graph capturing finished in 3 secs, took %s GiB\n"
)

func v1Banner(version string, tp int) string {
	s := strings.Replace(bannerV1, "%s", version, 1)
	return strings.Replace(s, "%d", string(rune('0'+tp)), 1)
}

// TestLines holds one line or a few of every kind, with what they must yield.
func TestLines(t *testing.T) {
	for _, c := range []struct {
		name, log string
		want      map[string]any
	}{
		// Section 2: versions and configuration.
		{"banner 0.4.0, unquoted", v0 + "Initializing an LLM engine (v0.4.0.post1) with config: model=facebook/opt-125m, tokenizer=facebook/opt-125m, tokenizer_mode=auto, dtype=torch.float16, max_seq_len=2048, download_dir=None, load_format=auto, tensor_parallel_size=2, quantization=None, enforce_eager=True, kv_cache_dtype=fp8_e5m2, device_config=cuda, seed=0)", map[string]any{
			"vllm_version": "0.4.0.post1", "engine": "V0", "model": "facebook/opt-125m", "dtype": "float16", "max_model_len": 2048.0, "load_format": "auto",
			"tensor_parallel_size": 2.0, "quantization": nil, "kv_cache_dtype": "fp8_e5m2", "cuda_graphs_enabled": false, "platform": nil,
		}},
		{"banner 0.6.3 without a comma", v0 + "Initializing an LLM engine (v0.6.3) with config: model='m', max_seq_len=16, chunked_prefill_enabled=False multi_step_stream_outputs=True, enable_prefix_caching=False, kv_cache_dtype=auto)", map[string]any{
			"max_model_len": 16.0, "kv_cache_dtype": "auto", "model_runner": nil,
		}},
		{"V1 without the word in 0.6.4", "INFO 01-01 00:00:00 core.py:45] Initializing an LLM engine (v0.6.6) with config: model='m'\n", map[string]any{"engine": "V1", "vllm_version": "0.6.6", "model_runner": "v1"}},
		{"fork's version", v1 + "Initializing a V1 LLM engine (v0.1.dev20058+g1a2b3c4) with config: model='a,b', dtype=torch.bfloat16", map[string]any{"vllm_version": "0.1.dev20058+g1a2b3c4", "model": "a,b", "model_runner": nil}},
		{"jax dtype", v1 + "Initializing a V1 LLM engine (v0.11.1) with config: model='m', dtype=<class 'jax.numpy.bfloat16'>, max_seq_len=5, device_config=None", map[string]any{"dtype": "bfloat16", "max_model_len": 5.0}},
		{"server version", v1 + "vLLM API server version 0.9.1", map[string]any{"vllm_version": "0.9.1", "engine": nil}},
		{"server version without logo", v1 + "vLLM server version 0.20.0, serving model m", map[string]any{"vllm_version": "0.20.0"}},
		{"logo", v1 + " ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.15.0", map[string]any{"vllm_version": "0.15.0"}},
		{"non-default args", v1 + "non-default args: {'model': 'm', 'max_model_len': 4096, 'gpu_memory_utilization': 0.85, 'max_num_seqs': 7, 'limit': {'max_num_batched_tokens': 3}, 'max_num_batched_tokens': 99}", map[string]any{
			"max_model_len": 4096.0, "gpu_memory_utilization": 0.85, "max_num_seqs": 7.0, "max_num_batched_tokens": 99.0, "model": nil,
		}},
		{"Namespace with a block size", v1 + "args: Namespace(model='m', block_size=16, gpu_memory_utilization=0.9, enforce_eager=True)\n" + v0 + "# GPU blocks: 100, # CPU blocks: 5", map[string]any{
			"block_size": nil, "num_gpu_blocks": 100.0, "num_cpu_blocks": 5.0, "total_gpu_kv_cache_tokens": nil, "gpu_memory_utilization": 0.9, "engine": "V0",
		}},
		{"platform and architecture", v1 + "Automatically detected platform rocm.\n" + v1 + "Resolved architecture: GptOssForCausalLM", map[string]any{"platform": "rocm", "architecture": "GptOssForCausalLM"}},

		// Section 3: weights.
		{"weights 0.4", v0 + "Loading model weights took 12.5523 GB", map[string]any{"model_weights_gb": 12.5523, "load_seconds": nil}},
		{"weights 0.8.0", v1 + "Model loading took 6.2472 GB and 2.406617 seconds", map[string]any{"model_weights_gb": 6.2472, "load_seconds": 2.406617}},
		{"weights 0.8.3", v1 + "Model loading took 6.2472 GiB and 2.406617 seconds", map[string]any{"model_weights_gb": 6.2472}},
		{"weights 0.11.1", v1 + "Model loading took 1.4721 GiB memory and 1.841706 seconds", map[string]any{"model_weights_gb": 1.4721, "load_seconds": 1.841706}},
		{"weights on HPU", v1 + "Loading model weights took in total 14.97 GiB of device memory (14.97 GiB/94.62 GiB used) and 1.2 GiB of host memory (9 GiB/1 TiB used)", map[string]any{"model_weights_gb": 14.97}},
		{"disk part of loading", v1 + "Model loading took 5 GiB and 4 seconds\n" + v1 + "Loading weights took 3.35 seconds", map[string]any{"model_weights_gb": 5.0, "load_seconds": 4.0}},

		// Section 4: profiling.
		{"V0 0.6.4", v0 + "Loading model weights took 5.0000 GB\n" + v0 + "Memory profiling results: total_gpu_memory=79.11GiB initial_memory_usage=0.62GiB peak_torch_memory=6.20GiB memory_usage_post_profile=5.91Gib non_torch_memory=0.87GiB kv_cache_size=64.13GiB gpu_memory_utilization=0.90", map[string]any{
			"total_gpu_memory_gb": 79.11, "activations_gb": 1.2, "non_torch_gb": 0.87, "available_kv_cache_gb": 64.13, "gpu_memory_utilization": 0.9, "engine": "V0", "requested_memory_gb": 71.199,
		}},
		{"KV given", v1 + "Initial free memory 78.66 GiB, reserved 20.00 GiB memory for KV Cache as specified by kv_cache_memory_bytes config and skipped memory profiling. This does not respect the gpu_memory_utilization config. Only use kv_cache_memory_bytes config when you want manual control of KV cache memory size. If OOM'ed, check the difference of initial free memory between the current run and the previous run where kv_cache_memory_bytes is suggested and update it correspondingly.\n" + v1 + "GPU KV cache size: 1,000 tokens", map[string]any{
			"available_kv_cache_gb": 20.0, "free_memory_gb": 78.66, "total_gpu_kv_cache_gb": 20.0, "total_gpu_kv_cache_tokens": 1000.0,
		}},
		{"KV given in 0.10.2, no blank", v1 + "Initial free memory 78.66 GiB, reserved 20.00GiB memory for KV Cache as specified by kv_cache_memory_bytes config and skipped memory profiling. This does does not respect", map[string]any{"available_kv_cache_gb": 20.0}},
		{"startup plan", v1 + "Applying persisted startup plan (fingerprint abc): kv_cache_memory_bytes=21474836480 (20.00 GiB), recorded free-memory baseline 78.00 GiB, current 78.50 GiB. Memory profiling will be skipped.", map[string]any{"available_kv_cache_gb": 20.0, "free_memory_gb": 78.5}},
		{"usage in 0.10.2", v1 + "Free memory on device (78.66/79.18 GiB) on startup. Desired GPU memory utilization is (0.9, 71.26 GiB). Actual usage is 14.99 GiB for weight, 5.64 GiB for peak activation, 0.14 GiB for non-torch memory, and 0.55 GiB for CUDAGraph memory. Replace gpu_memory_utilization config with `--kv-cache-memory=53691234567` to fit into requested memory, or `--kv-cache-memory=61691234567` to fully utilize gpu memory. Current kv cache memory in use is 54224000000 bytes.", map[string]any{
			"total_gpu_memory_gb": 79.18, "free_memory_gb": 78.66, "gpu_memory_utilization": 0.9, "requested_memory_gb": 71.26, "model_weights_gb": 14.99,
			"activations_gb": 5.64, "non_torch_gb": 0.14, "graph_capture_gb": 0.55,
		}},
		{"DEBUG of 0.9.1", "DEBUG 01-01 00:00:00 [gpu_worker.py:1] Initial free memory: 39.10 GiB, free memory: 33.10 GiB, requested GPU memory: 35.45 GiB\nDEBUG 01-01 00:00:00 [gpu_worker.py:1] Memory profiling takes 3.26 seconds. Total non KV cache memory: 8.00GiB; torch peak memory increase: 1.25GiB; non-torch forward increase memory: 0.25GiB; weights memory: 6.50GiB.\n" + v1 + "Available KV cache memory: 27.45 GiB", map[string]any{
			"free_memory_gb": 39.1, "requested_memory_gb": 35.45, "activations_gb": 1.25, "non_torch_gb": 0.25, "model_weights_gb": 6.5, "available_kv_cache_gb": 27.45,
		}},
		{"negative KV", v1 + "Available KV cache memory: -5.12 GiB", map[string]any{"available_kv_cache_gb": -5.12, "engine": "V1"}},
		{"good line that begins as the bad one", v1 + "Free memory on device (1.00/2.00 GiB) on startup. Desired GPU memory utilization is (0.5, 1.00 GiB). Actual usage is 0.5 GiB for weight.", map[string]any{"error": nil, "model_weights_gb": 0.5}},

		// The graph estimate, in the budget and out of it.
		{"0.27 wording, V1 runner", v1Banner("0.28.0", 1) + loadV1 + strings.ReplaceAll(v1, "INFO", "(EngineCore pid=9) INFO") + "Estimated CUDA graph memory: 0.64 GiB total\n" + kvLine + newUsage, map[string]any{
			"activations_gb": 3.21, "graph_estimate_gb": 0.64, "graph_capture_gb": 0.8, "non_torch_gb": nil, "model_weights_gb": 56.88,
		}},
		{"0.27 wording, estimate from utilization", v1Banner("0.28.0", 1) + loadV1 + kvLine + "(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_worker.py:575] CUDA graph memory profiling is enabled (default since v0.21.0). The current --gpu-memory-utilization=0.9200 is equivalent to --gpu-memory-utilization=0.9119 without CUDA graph memory profiling. To maintain, increase --gpu-memory-utilization to 0.9281.\n" + newUsage, map[string]any{
			"graph_estimate_gb": 0.6414, "activations_gb": 3.2086, "gpu_memory_utilization": 0.92,
		}},
		{"0.30, V2 runner captures twice", v1Banner("0.30.0", 1) + "(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_worker.py:1] Using V2 Model Runner\n" + loadV2 + strings.Replace(captureOne, "%s", "0.64", 1) + kvLine + strings.Replace(captureOne, "%s", "0.80", 1) + newUsage, map[string]any{
			"graph_estimate_gb": 0.64, "graph_capture_gb": 0.8, "activations_gb": 3.21, "model_runner": "v2",
		}},
		{"0.30, V2 runner, the log ends before the capture", v1Banner("0.30.0", 1) + "(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_worker.py:1] Using V2 Model Runner\n" + loadV2 + strings.Replace(captureOne, "%s", "0.64", 1) + kvLine, map[string]any{
			"graph_estimate_gb": 0.64, "graph_capture_gb": nil, "available_kv_cache_gb": 11.87,
		}},
		{"0.30, V2 runner, one capture behind the KV line", v1Banner("0.30.0", 1) + "(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_worker.py:1] Using V2 Model Runner\n" + loadV2 + kvLine + strings.Replace(captureOne, "%s", "0.80", 1), map[string]any{
			"graph_estimate_gb": nil, "graph_capture_gb": 0.8,
		}},
		{"0.29, V2 runner, eager by the banner alone", strings.Replace(v1Banner("0.29.0", 1), "enforce_eager=False", "enforce_eager=True", 1) + "(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_worker.py:1] Using V2 Model Runner\n" + loadV2 + kvLine + strings.Replace(newUsage, "0.8 GiB for CUDAGraph", "0.0 GiB for CUDAGraph", 1), map[string]any{
			"graph_estimate_gb": nil, "activations_gb": 3.85, "graph_capture_gb": 0.0, "cuda_graphs_enabled": false,
		}},
		{"0.27, V2 runner takes no estimate off", v1Banner("0.27.1", 1) + "(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_worker.py:1] Using V2 Model Runner\n" + loadV2 + kvLine + strings.Replace(captureOne, "%s", "0.80", 1) + newUsage, map[string]any{
			"graph_estimate_gb": nil, "activations_gb": 3.85,
		}},
		{"0.31 on ROCm, V2 runner captures once", v1Banner("0.31.0", 1) + "(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_worker.py:1] Using V2 Model Runner\n" + loadV2 + kvLine + strings.Replace(captureOne, "%s", "0.80", 1) + newUsage, map[string]any{
			"graph_estimate_gb": nil, "activations_gb": 3.85, "graph_capture_gb": 0.8,
		}},
		{"0.30, nothing tells the estimate", v1Banner("0.30.0", 1) + "(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_worker.py:1] Using V2 Model Runner\n" + loadV2 + newUsage, map[string]any{
			"graph_estimate_gb": nil, "activations_gb": nil,
		}},
		{"0.31 wording cut short", v1Banner("0.31.0", 1) + "(EngineCore pid=9) INFO 01-01 00:00:01 [x.py:1] Enforce eager set, disabling torch.compile and CUDAGraphs. x\n(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_worker.py:1] Free memory on device (191.00/191.98 GiB) on startup. Desired GPU memory utilization is (0.92, 176.62 GiB). Actual usage is 20.0 GiB for consumed memory (weights + non-torch), 1.0 GiB for peak activation, and 0.0 GiB for CUDAGraph memory.\n", map[string]any{
			"activations_gb": 1.0, "requested_memory_gb": 176.62, "graph_capture_gb": 0.0, "cuda_graphs_enabled": false, "compile_cache": "off",
		}},

		// Other platforms.
		{"CPU 0.20 auto", v1 + "Auto set (30.5/62.7) GiB for KV cache on node 0, with 32.0 GiB requested memory for the worker. 1.5 GiB memory was consumed by non-kv usages.", map[string]any{"available_kv_cache_gb": 30.5, "requested_memory_gb": 32.0}},
		{"CPU 0.4.1", "WARNING 01-01 00:00:00 cpu_executor.py:1] Environment variable VLLM_CPU_KVCACHE_SPACE (GB) for CPU backend is not set, using 4 by default.\n" + v0 + "# CPU blocks: 2048", map[string]any{"available_kv_cache_gb": 4.0, "num_cpu_blocks": 2048.0, "num_gpu_blocks": nil}},
		{"CPU 0.13", v1 + "VLLM_CPU_KVCACHE_SPACE not set. Using 16.0 GiB for KV cache.", map[string]any{"available_kv_cache_gb": 16.0}},
		{"XPU", v1 + "Before memory profiling run, total GPU memory: 15473.71 MB, model load takes 2859.42 MB, free gpu memory is 12614.29 MB.\n" + v1 + "After memory profiling run, peak memory usage is 3174.43 MB,torch mem is 2944.50 MB, non-torch mem is 512.00 MB, free gpu memory is 12000.00 MB.", map[string]any{"non_torch_gb": 0.5, "total_gpu_memory_gb": 15473.71 / 1024}},
		{"gaudi", v1 + "Free device memory: 83.24 GiB, 74.92 GiB usable (gpu_memory_utilization=0.9), 7.492 GiB reserved for HPUGraphs (VLLM_GRAPH_RESERVED_MEM=0.1), 67.43 GiB reserved for usable KV cache", map[string]any{"available_kv_cache_gb": 67.43, "free_memory_gb": 83.24, "gpu_memory_utilization": 0.9}},
		{"gaudi blocks", v1 + "Usable num_blocks: 6042, actual allocated num_blocks: 6043 (_PAD_BLOCK_ID=6042)", map[string]any{"num_gpu_blocks": 6042.0}},
		{"auto-fit supersedes", v1 + "Using max model len 131072\n" + v1 + "Auto-fit max_model_len: reduced from 131072 to 65536 to fit in available GPU memory (4.5 GiB available for KV cache)", map[string]any{"max_model_len": 65536.0}},
		{"auto-fit fits", v1 + "Auto-fit max_model_len: full model context length 40960 fits in available GPU memory", map[string]any{"max_model_len": 40960.0}},

		// Section 5: KV cache.
		{"V0 cuda blocks", v1 + "# cuda blocks: 13724, # CPU blocks: 3510\n" + v1 + "Maximum concurrency for 2048 tokens per request: 107.22x", map[string]any{"num_gpu_blocks": 13724.0, "num_cpu_blocks": 3510.0, "max_concurrency": 107.22, "max_model_len": 2048.0}},
		{"V1 blocks 0.6.4", v0 + "# GPU blocks: 500", map[string]any{"num_gpu_blocks": 500.0, "num_cpu_blocks": nil}},
		{"TPU blocks", v0 + "# TPU blocks: 77, # CPU blocks: 3", map[string]any{"num_gpu_blocks": 77.0}},
		{"tokens of two workers", v1 + "GPU KV cache size: 1,051,776 tokens\n" + v1 + "GPU KV cache size: 1,051,760 tokens", map[string]any{"total_gpu_kv_cache_tokens": 1051760.0}},
		{"merged line 0.28", v1 + "GPU KV cache size: 524,288 tokens, Maximum concurrency for 1,024 tokens per request: 512.00x", map[string]any{"total_gpu_kv_cache_tokens": 524288.0, "max_concurrency": 512.0, "max_model_len": 1024.0}},
		{"blocks of 0.9.1", v1 + "Engine 000: vllm cache_config_info with initialization after num_gpu_blocks is: 7891", map[string]any{"num_gpu_blocks": 7891.0}},
		{"override of the user's", v1 + "Overriding num_gpu_blocks=1000 with num_gpu_blocks_override=512", map[string]any{"num_gpu_blocks": 512.0}},
		{"override of the profile's", v1 + "GPU KV cache size: 10 tokens\n" + v1 + "Overriding num_gpu_blocks=0 with num_gpu_blocks_override=512", map[string]any{"num_gpu_blocks": nil}},
		{"block size", v1 + "Forcing kv cache block size to 64 for FlashMLA backend.\n" + v1 + "GPU KV cache size: 640 tokens", map[string]any{"block_size": 64.0, "num_gpu_blocks": 10.0, "attention_backend": nil}},
		{"page of a hybrid model", v1 + "Setting attention block size to 1056 tokens to ensure that attention page size is >= mamba page size.\n" + v1 + "GPU KV cache size: 640 tokens", map[string]any{"block_size": nil, "num_gpu_blocks": nil}},

		// Section 6: attention backends.
		{"0.4.0", v0 + "Using FlashAttention backend.", map[string]any{"attention_backend": nil}}, // from a file that chooses none
		{"0.4.0, selector", "INFO 01-01 00:00:00 selector.py:16] Using FlashAttention backend.\n" + v0 + "# GPU blocks: 1, # CPU blocks: 1", map[string]any{"attention_backend": "FlashAttention"}},
		{"0.8.5 V1", "INFO 01-01 00:00:00 [cuda.py:1] Using Flash Attention backend on V1 engine.\n" + v1 + "GPU KV cache size: 1 tokens", map[string]any{"attention_backend": "Flash Attention"}},
		{"Blackwell", "INFO 01-01 00:00:00 [cuda.py:1] Using FlashInfer backend on V1 engine by default for Blackwell (SM 10.0) GPUs.\n" + v1 + "GPU KV cache size: 1 tokens", map[string]any{"attention_backend": "FlashInfer"}},
		{"0.11.1 enum", "INFO 01-01 00:00:00 [cuda.py:1] Using AttentionBackendEnum.FLASH_ATTN backend.\n" + v1 + "GPU KV cache size: 1 tokens", map[string]any{"attention_backend": "AttentionBackendEnum.FLASH_ATTN"}},
		{"0.12 tuple", "INFO 01-01 00:00:00 [cuda.py:1] Using FLASH_ATTN attention backend out of potential backends: ('FLASH_ATTN', 'FLASHINFER')\n" + v1 + "GPU KV cache size: 1 tokens", map[string]any{"attention_backend": "FLASH_ATTN"}},
		{"ROCm by flag", "INFO 01-01 00:00:00 [rocm.py:1] Using ROCM_AITER_MLA backend (selected via --attention-backend).\n" + v1 + "GPU KV cache size: 1 tokens", map[string]any{"attention_backend": "ROCM_AITER_MLA", "platform": "rocm"}},
		{"not attention", "INFO 01-01 00:00:00 [mxfp4.py:1] Using Triton backend\nINFO 01-01 00:00:00 [cuda.py:1] Using backend AttentionBackendEnum.FLASH_ATTN for vit attention\nINFO 01-01 00:00:00 [oracle.py:1] Using 'TRITON' Unquantized MoE backend\nINFO 01-01 00:00:00 [oracle.py:1] Using FlashInfer TRTLLM Unquantized MoE backend out of potential backends: ['A'].\nINFO 01-01 00:00:00 [selector.py:1] Using HND KV cache layout for FLASHINFER backend.\nINFO 01-01 00:00:00 [mla.py:1] Using FLASHINFER MLA prefill backend.\nINFO 01-01 00:00:00 [c.py:1] Using ['CUSTOM', 'PYNCCL'] all-reduce backends (in dispatch order) for group 'tp:0' out of potential backends: ['X'].\n" + v1 + "GPU KV cache size: 1 tokens", map[string]any{"attention_backend": nil}},
		{"cannot use", "INFO 01-01 00:00:00 [cuda.py:1] Cannot use FlashAttention-2 backend for Volta and Turing GPUs.\nINFO 01-01 00:00:00 [cuda.py:1] Using XFormers backend.\n" + v1 + "GPU KV cache size: 1 tokens", map[string]any{"attention_backend": "XFormers"}},

		// Section 7: graphs, compilation, start-up.
		{"capture without size", v0 + "Capturing the model for CUDA graphs. This may lead to\n" + v0 + "CUDA graphs can take additional 1~3 GiB memory per GPU. If you\n" + v0 + "Graph capturing finished in 6 secs.\n" + v0 + "# GPU blocks: 1, # CPU blocks: 1", map[string]any{"graph_capture_gb": nil, "cuda_graphs_enabled": true, "unread_count": 0.0}},
		{"capture, negative", v1 + "Graph capturing finished in 20 secs, took -0.10 GiB", map[string]any{"graph_capture_gb": -0.1}},
		{"compile 0.7", v1 + "torch.compile takes 47.76 s in total\n" + v1 + "init engine (profile, create kv cache, warmup model) took 100.89 seconds", map[string]any{"compile_seconds": 47.76, "init_engine_seconds": 100.89}},
		{"compile without cache", v1 + "torch.compile and initial profiling/warmup run together took 12.50 s in total\n" + v1 + "init engine (profile, create kv cache, warmup model) took 20.00 s (compilation: 12.50 s — language_model: 12.00 s, encoder: 0.50 s)", map[string]any{"compile_seconds": 12.5, "compile_cache": "off", "init_engine_seconds": 20.0}},
		{"warm compile", v1 + "Directly load the compiled graph(s) for compile range (1, 8192) from the cache, took 0.913 s\n" + v1 + "torch.compile took 1.00 s in total", map[string]any{"compile_cache": "warm"}},
		{"cold compile", v1 + "Compiling a graph for general shape takes 36.18 s\n" + v1 + "torch.compile takes 47.76 s in total", map[string]any{"compile_cache": "cold"}},
		{"batched tokens", v1 + "Using max model len 9\n" + v1 + "Chunked prefill is enabled with max_num_batched_tokens=2048.", map[string]any{"max_num_batched_tokens": 2048.0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			accounts := readText(t, c.log)
			if len(accounts) == 0 {
				for field, want := range c.want {
					if want != nil {
						t.Fatalf("nothing read, want %s = %v", field, want)
					}
				}
				return
			}
			if len(accounts) != 1 {
				t.Fatalf("%d accounts", len(accounts))
			}
			a := accounts[0]
			got := asJSON(t, a)
			for field, want := range c.want {
				if have := lookup(got, field); !same(have, want) {
					t.Errorf("%s = %v, want %v (source %q, missing %q)", field, have, want, a.Sources[field].Text, a.Missing[field])
				}
			}
			checkAccount(t, a)
			if a.UnreadCount != 0 {
				t.Errorf("unread: %v", a.UnreadLines)
			}
		})
	}
}

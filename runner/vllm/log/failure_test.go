package log

import (
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
)

// engineTrace is a failure as the V1 engine reports it: a logged traceback, the
// same raw, and the front end's own that says nothing.
func engineTrace(last string) string {
	const p = "(EngineCore pid=9) ERROR 01-01 00:00:09 [core.py:1] "
	lines := []string{p + "EngineCore failed to start.", p + "Traceback (most recent call last):", p + `  File "/x/core.py", line 1, in f`, p + "    raise ValueError(", p + last}
	raw := "(EngineCore pid=9) "
	lines = append(lines, raw+"Process EngineCore:", raw+"Traceback (most recent call last):", raw+`  File "/x/core.py", line 1, in f`, raw+"    raise ValueError(", raw+last)
	front := "(APIServer pid=1) "
	lines = append(lines, front+"Traceback (most recent call last):", front+`  File "/x/api.py", line 1, in f`, front+"    raise RuntimeError(",
		front+"RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}")
	return strings.Join(lines, "\n") + "\n"
}

const torchOOM = "CUDA out of memory. Tried to allocate 786.00 MiB. GPU 3 has a total capacity of 79.19 GiB of which 552.50 MiB is free. Process 12 has 1.00 GiB memory in use. Including non-PyTorch memory, this process has 78.64 GiB memory in use. Of the allocated memory 74.91 GiB is allocated by PyTorch, with 626.00 MiB allocated in private pools (e.g., CUDA Graphs), and 1.05 GiB is reserved by PyTorch but unallocated."

func TestFailures(t *testing.T) {
	type want = map[string]any
	for _, c := range []struct {
		name, text string
		kind       string
		want       want
		advice     string
	}{
		{"no KV", "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.", KindNoKVMemory, nil, "raise gpu_memory_utilization"},
		{"no KV on CPU", "ValueError: No available memory for the cache blocks. Try increasing `VLLM_CPU_KVCACHE_SPACE` when initializing the engine.", KindNoKVMemory, nil, ""},
		{"KV too small V0", "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored in KV cache (21376). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.", KindKVTooSmall,
			want{"max_model_len_that_fits": 21376.0}, "21376"},
		{"KV too small 0.7", "ValueError: To serve at least one request with the models's max seq len (8192), (1.00 GB KV cache is needed, which is larger than the available KV cache memory (0.72 GB). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.", KindKVTooSmall,
			want{"needed_gb": 1.0, "available_gb": 0.72}, "find 0.28 GiB more"},
		{"KV too small 0.22", "ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is needed, which is larger than the available KV cache memory (2.8 GiB). Based on the available memory, the estimated maximum model length is 22928. Try increasing", KindKVTooSmall,
			want{"needed_gb": 16.0, "available_gb": 2.8, "max_model_len_that_fits": 22928.0}, "set max_model_len to 22928 or less, or find 13.20 GiB more"},
		{"free memory 0.9.1", "ValueError: Free memory on device (60.87/79.19 GiB) on startup is less than desired GPU memory utilization (0.95, 75.23 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.", KindFreeMemoryCheck,
			want{"needed_gb": 75.23, "available_gb": 60.87}, "18.32 GiB of the GPU were in use before vLLM started: end what holds them, or lower gpu_memory_utilization to 0.76 or less."},
		{"free memory 0.14", "ValueError: Free memory on device cuda:1 (60.87/79.19 GiB) on startup is less than desired GPU memory utilization (0.95, 75.23 GiB). Decrease", KindFreeMemoryCheck, want{"gpu_index": 1.0}, "GPU 1"},
		{"free memory CPU", "ValueError: Available memory on node 0 (5.5/11.09 GiB) on startup is less than desired CPU memory utilization (0.92, 10.2 GiB). Decrease", KindFreeMemoryCheck, nil, ""},
		{"memory changed", "AssertionError: Error in memory profiling. Initial free memory 78.0 GiB, current free memory 79.0 GiB. This happens when other processes sharing the same container release GPU memory while vLLM is profiling", KindFreeMemoryCheck, nil, "Another process"},
		{"OOM torch 2.5", "torch.OutOfMemoryError: " + torchOOM, KindOOM,
			want{"tried_to_allocate_bytes": 786.0 * (1 << 20), "free_bytes": 552.5 * (1 << 20), "gpu_index": 3.0}, "786 MiB more was asked for and 552 MiB was free of 79.19 GiB"},
		{"OOM torch 2.4", "torch.cuda.OutOfMemoryError: " + torchOOM, KindOOM, nil, ""},
		{"OOM torch 2.1", "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacty of 79.15 GiB of which 1.94 GiB is free. Including non-PyTorch memory", KindOOM, want{"tried_to_allocate_bytes": 2.0 * (1 << 30)}, ""},
		{"OOM torch 2.0", "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 1; 23.69 GiB total capacity; 22.99 GiB already allocated; 2.44 MiB free; 23.00 GiB reserved in total by PyTorch) If reserved memory is >> allocated", KindOOM,
			want{"tried_to_allocate_bytes": 20.0 * (1 << 20), "gpu_index": 1.0, "free_bytes": 2558525.0}, ""},
		{"OOM on ROCm", "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 512 bytes. GPU 0 has a total capacity of 191.98 GiB of which 100.00 KiB is free. Of the allocated memory", KindOOM, want{"tried_to_allocate_bytes": 512.0}, ""},
		{"OOM in autotuning", "torch._inductor.exc.InductorError: OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has", KindOOM, nil, ""},
		{"OOM in the sampler", "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests. Please try lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine.", KindOOM, nil, "lower max_num_seqs from 1024"},
		{"CUDA error", "RuntimeError: CUDA error: out of memory", KindOOM, nil, ""},
		{"triton", "RuntimeError: Triton Error [CUDA]: out of memory", KindOOM, nil, ""},
		{"NVML assert", `RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":838`, KindOOM, nil, ""},
		{"bfloat16", "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has compute capability 7.5. You can use float16 instead", KindDtypeUnsupported, nil, "float16"},
		{"dtype of quantization", "ValueError: torch.bfloat16 is not supported for quantization method awq. Supported dtypes: [torch.float16]", KindDtypeUnsupported, nil, ""},
		{"unknown quantization", "ValueError: Unknown quantization method: foo. Must be one of ['aqlm'].", KindBadArgument, nil, ""},
		{"custom code", "ValueError: The repository `a/b` contains custom code which must be executed to correctly load the model. You can inspect the repository content at https://hf.co/a/b. Please pass the argument `trust_remote_code=True` to allow custom code to be run.", KindBadArgument, nil, "trust_remote_code = true"},
		{"heads", "ValueError: Total number of attention heads (40) must be divisible by tensor parallel size (3).", KindTPDivisibility, nil, "40 is not a multiple of tensor_parallel_size 3"},
		{"vocabulary", "AssertionError: 151936 is not divisible by 5", KindTPDivisibility, nil, "151936"},
		{"world size", "ValueError: World size (8) is larger than the number of available GPUs (2) in this node. If this is intentional", "device_rank_out_of_bounds", nil, "8 GPUs were asked for and 2"},
		{"DP rank", "AssertionError: DP adjusted local rank 1 is out of bounds. ", "device_rank_out_of_bounds", nil, ""},
		{"max_model_len", "ValueError: User-specified max_model_len (100000) is greater than the derived max_model_len (max_position_embeddings=32768 or model_max_length=None in model's config.json). This may lead to incorrect model outputs or CUDA errors.", KindMaxModelLen,
			want{"max_model_len_that_fits": 32768.0}, "32768"},
		{"architecture", "ValueError: Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures: dict_keys(['A'])", "unsupported_architecture", nil, ""},
		{"gated", "OSError: You are trying to access a gated repo.\nMake sure to have access to it at https://huggingface.co/x.", KindHub, nil, "HF_TOKEN"},
		{"hub down", "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.", KindHub, nil, "network"},
		{"offline", "huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach https://huggingface.co/api/models/x: offline mode is enabled.", KindHub, nil, "HF_HUB_OFFLINE"},
		{"not a model", "OSError: foo/bar is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'", KindHub, nil, "No such model"},
		{"no weights", "RuntimeError: Cannot find any model weights with `/models/x`", KindHub, nil, ""},
		{"NCCL", "torch.distributed.DistBackendError: NCCL error in: /pytorch/x.cpp:94, unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5", KindNCCL, nil, "NCCL_DEBUG"},
		{"no GPU", "RuntimeError: No CUDA GPUs are available", "no_device", nil, "nvidia-smi"},
		{"no device type", "RuntimeError: Failed to infer device type", "no_device", nil, ""},
		{"no driver", "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory", "no_device", nil, ""},
		{"shm", "OSError: Insufficient space in /dev/shm: 100 MiB required, 64 MiB free. Increase it", KindUnknown, nil, "--ipc=host"},
		{"OOM on NPU", "RuntimeError: NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 60.97 GiB total capacity; 57.44 GiB already allocated; 1.10 GiB free; 58.00 GiB reserved in total by PyTorch)", KindOOM, want{"tried_to_allocate_bytes": 2.0 * (1 << 30)}, "more was asked for"},
		{"OOM on XPU", "torch.OutOfMemoryError: XPU out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.91 GiB. Of the allocated memory 13.90 GiB is allocated by PyTorch, and 1.20 GiB is reserved by PyTorch but unallocated.", KindOOM, want{"tried_to_allocate_bytes": 2.0 * (1 << 30), "free_bytes": nil}, ""},
		{"OOM of level zero", "RuntimeError: level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)", KindOOM, nil, ""},
		{"OOM on TPU", "jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.20G of 15.75G hbm. Exceeded hbm capacity by 1.45G.", KindOOM, nil, ""},
		{"OOM of the host", "RuntimeError: [enforce fail at alloc_cpu.cpp:116] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 17179869184 bytes. Error code 12 (Cannot allocate memory)", KindHostOOM, nil, "RAM"},
		{"OOM of pooling", "RuntimeError: CUDA out of memory occurred when warming up pooler with 256 dummy requests. Please try lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine.", KindOOM, nil, "lower max_num_seqs from 256"},
		{"no KV, long hint", "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine (this flag also controls CPU memory reservation on the CPU backend, despite its name). See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details.", KindNoKVMemory, nil, ""},
		{"free memory CPU, later", "ValueError: Available memory on node 0 (5.5/11.09 GiB) on kv cache allocation is less than requested memory for kv (8.0 GiB). Please", KindFreeMemoryCheck, nil, ""},
		{"memory changed V0", "AssertionError: Error in memory profiling. Initial used memory 2.5 GiB, currently used memory 2.1 GiB. This happens when the GPU memory was not properly cleaned up before initializing the vLLM instance.", KindFreeMemoryCheck, nil, "Another process"},
		{"share in old words", "ValueError: GPU memory utilization must be less than 1.0. Got 1.5.", KindBadArgument, nil, ""},
		{"quantization by capability", "ValueError: The quantization method fp8 is not supported for the current GPU. Minimum capability: 89. Current capability: 75.", KindDtypeUnsupported, nil, "compute capability 89/10 and this one has 75/10"},
		{"quantization mismatch", "ValueError: Quantization method specified in the model config (awq) does not match the quantization method specified in the `quantization` argument (gptq).", KindBadArgument, nil, ""},
		{"no quantization config", "ValueError: Cannot find the config file for awq", KindBadArgument, nil, ""},
		{"batched tokens and length", "ValueError: max_num_batched_tokens (2048) is smaller than max_model_len (8192). This effectively limits the maximum sequence length to max_num_batched_tokens and makes vLLM reject longer sequences. Please increase max_num_batched_tokens or decrease max_model_len.", KindBadArgument, nil, "from 2048 to 8192"},
		{"batched tokens and sequences", "ValueError: max_num_batched_tokens (256) must be greater than or equal to max_num_seqs (512).", KindBadArgument, nil, "from 256 to 512"},
		{"prompt too long", "ValueError: The decoder prompt (length 8001) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller than the number of text tokens.", KindBadArgument, nil, "8001 tokens and max_model_len is 4096"},
		{"backend", "ValueError: Selected backend AttentionBackendEnum.FLASHINFER is not valid for this configuration. Reason: ['head_size not supported']", KindBadArgument, nil, "attention backend"},
		{"old max local gpus", "AssertionError: please set tensor_parallel_size (4) to less than max local gpu count (2)", "device_rank_out_of_bounds", nil, ""},
		{"ray cluster", "ValueError: The number of required GPUs exceeds the total number of available GPUs in the placement group.", "device_rank_out_of_bounds", nil, ""},
		{"device ordinal", "torch.AcceleratorError: CUDA error: invalid device ordinal", "device_rank_out_of_bounds", nil, ""},
		{"weights and TP", "ValueError: Weight output_size_per_partition = 10944 is not divisible by min_thread_n = 64. Consider reducing tensor_parallel_size or running with --quantization gptq.", KindTPDivisibility, nil, ""},
		{"quantized shape and TP", "ValueError: The input size is not aligned with the quantized weight shape. This can be caused by too large tensor parallel size.", KindTPDivisibility, nil, ""},
		{"architecture inspected", "ValueError: Model architectures ['XForCausalLM'] failed to be inspected. Please check the logs for more details.", "unsupported_architecture", nil, ""},
		{"transformers", "ValueError: The checkpoint you are trying to load has model type `gemma4` but Transformers does not recognize this architecture.", "unsupported_architecture", nil, ""},
		{"model type", "ValueError: Unrecognized model in /m. Should have a `model_type` key in its config.json, or contain one of the following strings in its name: albert", "unsupported_architecture", nil, ""},
		{"401", "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-6)\n\nCannot access gated repo for url https://huggingface.co/meta-llama/x/resolve/main/config.json.", KindHub, nil, "HF_TOKEN"},
		{"404", "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error. (Request ID: Root=1-6)\n\nRepository Not Found for url: https://huggingface.co/api/models/x.", KindHub, nil, "No such model"},
		{"a file of the hub", "OSError: foo/bar does not appear to have a file named config.json. Checkout 'https://huggingface.co/foo/bar/tree/main' for available files.", KindHub, nil, "config.json"},
		{"time-out of the hub", "requests.exceptions.ReadTimeout: (ReadTimeoutError(\"HTTPSConnectionPool(host='huggingface.co', port=443): Read timed out. (read timeout=10)\"), '(Request ID: x)')", KindHub, nil, "network"},
		{"tokenizer of the hub", "OSError: Can't load tokenizer for 'foo/bar'. If you were trying to load it from 'https://huggingface.co/models', make sure you don't have a local directory with the same name.", KindHub, nil, ""},
		{"tokenizer", "ValueError: Couldn't instantiate the backend tokenizer from one of: (1) a `tokenizers` library serialization file,", KindUnknown, nil, "sentencepiece"},
		{"driver too old", "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading and installing a new version", "no_device", nil, "CUDA 11.4"},
		{"driver and runtime", "RuntimeError: CUDA driver version is insufficient for CUDA runtime version", "no_device", nil, "update the driver"},
		{"PTX", "torch.AcceleratorError: CUDA error: the provided PTX was compiled with an unsupported toolchain.", "no_device", nil, "update the driver"},
		{"803", "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() that might have already set an error? Error 803: system has unsupported display driver / cuda driver combination", "no_device", nil, "update the driver"},
		{"NVML", "pynvml.NVMLError_LibraryNotFound: NVML Shared Library Not Found", "no_device", nil, ""},
		{"no CUDA in torch", "AssertionError: Torch not compiled with CUDA enabled", "no_device", nil, "without CUDA"},
		{"kernel image", "RuntimeError: CUDA error: no kernel image is available for execution on the device", KindUnknown, nil, "compute capability"},
		{"illegal access", "torch.AcceleratorError: CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported at some other API call", KindUnknown, nil, "CUDA_LAUNCH_BLOCKING"},
		{"assert", "RuntimeError: CUDA error: device-side assert triggered", KindUnknown, nil, "CUDA_LAUNCH_BLOCKING"},
		{"ECC", "RuntimeError: CUDA error: uncorrectable ECC error encountered", KindUnknown, nil, "ECC"},
		{"fork", "RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use the 'spawn' start method", KindUnknown, nil, "spawn"},
		{"no compiler", "RuntimeError: Failed to find C compiler. Please specify via CC environment variable or set triton.knobs.build.impl.", KindBuildFailed, nil, "gcc"},
		{"cut weights", "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer", KindUnknown, nil, "fetch the model again"},
		{"disk", "OSError: [Errno 28] No space left on device: '/root/.cache/x'", KindUnknown, nil, "df"},
		{"port of the store", "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. port: 29500, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use", KindPortInUse, nil, "Port 29500 is in use"},
		{"port", "OSError: [Errno 98] Address already in use", KindPortInUse, nil, "in use: end the other server"},
		{"port of zmq", "zmq.error.ZMQError: Address already in use (addr='tcp://127.0.0.1:5557')", KindPortInUse, nil, "in use"},
		{"NCCL store", "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 clients joined.", KindNCCL, nil, ""},
		{"NCCL, short", "RuntimeError: NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)", KindNCCL, nil, ""},
		{"hangs", "TimeoutError: RPC call to execute_model timed out.", KindUnknown, nil, "did not answer in time"},
		{"module", "ModuleNotFoundError: No module named 'flashinfer'", KindModuleMissing, nil, "flashinfer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := oneAccount(t, v1Banner("0.20.0", 1)+engineTrace(c.text))
			if a.Error == nil || a.Error.Kind != c.kind {
				t.Fatalf("error %+v, want %s", a.Error, c.kind)
			}
			first, _, _ := strings.Cut(c.text, "\n")
			if !strings.HasPrefix(a.Error.Message, strings.TrimSpace(first)) || a.Error.Line != 6 {
				t.Errorf("line %d, message %q", a.Error.Line, a.Error.Message)
			}
			got := asJSON(t, a.Error)
			for field, want := range c.want {
				if !same(got[field], want) {
					t.Errorf("%s = %v, want %v", field, got[field], want)
				}
			}
			if !strings.Contains(a.Error.Advice, c.advice) {
				t.Errorf("advice %q, want %q in it", a.Error.Advice, c.advice)
			}
			if a.UnreadCount != 0 {
				t.Errorf("unread %v", a.UnreadLines)
			}
			// The same as the only line that is left of a log.
			b := oneAccount(t, "ERROR 07-11 06:23:05 [core.py:390] "+c.text+"\n")
			if b.Error == nil || b.Error.Kind != c.kind {
				t.Errorf("alone: %+v", b.Error)
			}
		})
	}
}

func oneAccount(t *testing.T, log string) *runner.Account {
	t.Helper()
	accounts := readText(t, log)
	if len(accounts) != 1 {
		t.Fatalf("%d accounts", len(accounts))
	}
	return accounts[0]
}

func TestFailuresOutsideOfTracebacks(t *testing.T) {
	for _, c := range []struct{ name, text, kind string }{
		{"argparse", "usage: vllm bench latency [options]\nvllm bench latency: error: argument --dtype: invalid choice: 'x'\n", KindBadArgument},
		{"unrecognized", "vllm: error: unrecognized arguments: --no-such-flag\n", KindBadArgument},
		{"worker died", v1Banner("0.26.0", 2) + "(EngineCore pid=9) ERROR 01-01 00:00:09 [multiproc_executor.py:1] Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down executor.\n", KindWorkerDied},
		{"worker died V0", "ERROR 01-01 00:00:09 multiproc_worker_utils.py:1] Worker VllmWorkerProcess pid 12 died, exit code: -15\n", KindWorkerDied},
		{"V0 worker's message", "ERROR 01-01 00:00:09 multiproc_worker_utils.py:1] Exception in worker VllmWorkerProcess while processing method determine_num_available_blocks: CUDA out of memory. Tried to allocate 1.00 GiB. GPU 1 has a total capacity of 10.00 GiB of which 0.50 GiB is free.\n", KindOOM},
		{"load failed", "(EngineCore pid=9) ERROR 01-01 00:00:09 [gpu_model_runner.py:1] Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization to free memory for weights\n", KindOOM},
		{"load failed, original error", "(EngineCore pid=9) ERROR 01-01 00:00:09 [gpu_model_runner.py:1] Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization to free memory for weights, increasing --tensor-parallel-size, or using --quantization. See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more tips. (original error: CUDA out of memory. Tried to allocate 160.00 MiB. GPU 0 has a total capacity of 79.18 GiB of which 16.19 MiB is free.)\n", KindOOM},
		{"port of uvicorn", v1Banner("0.26.0", 1) + "ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use\n", KindPortInUse},
		{"watchdog", v1Banner("0.26.0", 2) + "[rank1]:[E1123 19:00:09.123456789 ProcessGroupNCCL.cpp:685] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000) ran for 600010 milliseconds before timing out.\n", KindNCCL},
		{"core died", v1Banner("0.26.0", 1) + "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': -9}\n", KindWorkerDied},
		{"front alone", "(APIServer pid=1) Traceback (most recent call last):\n(APIServer pid=1)   File \"x\"\n(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n", KindUnknown},
		{"killed by the shell", v1Banner("0.26.0", 1) + "run.sh: line 12: 2594 Killed                  vllm serve m\n", KindWorkerDied},
		{"bus error", v1Banner("0.26.0", 1) + "Fatal Python error: Bus error\n", KindWorkerDied},
		{"argparse in a container", "2026-11-23T19:00:20.123456789Z usage: vllm serve\n2026-11-23T19:00:20.123456789Z vllm serve: error: unrecognized arguments: --no-such-flag\n", KindBadArgument},
		{"raw traceback in a container", "vllm-1  | Traceback (most recent call last):\nvllm-1  |   File \"x\", line 1\nvllm-1  |     raise ValueError(\nvllm-1  | ValueError: No available memory for the cache blocks. Try\n", KindNoKVMemory},
		{"exception group", "  + Exception Group Traceback (most recent call last):\n  |   File \"x\", line 1\n  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)\n  +-+---------------- 1 ----------------\n    | Traceback (most recent call last):\n    |   File \"x\", line 1\n    | torch.OutOfMemoryError: " + torchOOM + "\n    +------------------------------------\n", KindOOM},
		{"segmentation fault", v1Banner("0.26.0", 1) + "!!!!!!! Segmentation fault encountered !!!!!!!\n", KindWorkerDied},
		{"pydantic", "Traceback (most recent call last):\n  File \"x\", line 1\npydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, User-specified max_model_len (9999) is greater than the derived max_model_len (max_position_embeddings=2048 or model_max_length=None in model's config.json).\n", KindMaxModelLen},
		{"JSON exc_info", `{"level":"ERROR","message":"EngineCore failed to start.","exc_info":"Traceback (most recent call last):\n  File \"x\", line 1\nValueError: No available memory for the cache blocks. Try increasing"}` + "\n", KindNoKVMemory},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := oneAccount(t, c.text)
			if a.Error == nil || a.Error.Kind != c.kind {
				t.Errorf("error %+v, want %s", a.Error, c.kind)
			}
		})
	}
}

func TestNoFailureWhereAllWentWell(t *testing.T) {
	ready := v1 + "init engine (profile, create kv cache, warmup model) took 20.18 s\n"
	trace := "Traceback (most recent call last):\n  File \"x\", line 1\nRuntimeError: NCCL error: unhandled\n"
	for _, c := range []struct{ name, text string }{
		{"warning with a traceback", "WARNING 01-01 00:00:00 [base.py:1] Chat template warmup failed\nWARNING 01-01 00:00:00 [base.py:1] Traceback (most recent call last):\nWARNING 01-01 00:00:00 [base.py:1]   File \"x\"\nWARNING 01-01 00:00:00 [base.py:1] ValueError: CUDA out of memory\n" + ready},
		{"noise at the end", v1 + "GPU KV cache size: 10 tokens\n" + ready + "Warming up...\nAvg latency: 0.5 seconds\n" + trace},
		{"recovered before it was ready", v1 + "Using max model len 10\nERROR 01-01 00:00:00 [x.py:1] ValueError: No available memory for the cache blocks. x\n" + ready},
		{"a request's failure on a server", v1 + "GPU KV cache size: 10 tokens\n" + ready + "INFO:     Application startup complete.\nERROR:    Exception in ASGI application\n" + trace},
		{"a prompt about memory", v1 + "GPU KV cache size: 10 tokens\n" + ready + v1 + "Received request cmpl-1: prompt: 'torch.OutOfMemoryError: CUDA out of memory. Model loading took 99.0 GiB'\n"},
		{"interrupted", v1 + "GPU KV cache size: 10 tokens\nTraceback (most recent call last):\n  File \"x\"\nKeyboardInterrupt\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := oneAccount(t, c.text)
			if a.Error != nil {
				t.Errorf("error %+v", a.Error)
			}
			if a.ModelWeightsGB != nil {
				t.Errorf("weights %v", *a.ModelWeightsGB)
			}
		})
	}
}

func TestServerThatDiesLater(t *testing.T) {
	a := oneAccount(t, v1Banner("0.26.0", 1)+v1+"init engine (profile, create kv cache, warmup model) took 20.18 s\nINFO:     Application startup complete.\n"+
		"(EngineCore pid=9) ERROR 01-01 00:00:09 [core.py:1] EngineCore encountered a fatal error.\n(EngineCore pid=9) ERROR 01-01 00:00:09 [core.py:1] Traceback (most recent call last):\n(EngineCore pid=9) ERROR 01-01 00:00:09 [core.py:1]   File \"x\"\n"+
		"(EngineCore pid=9) ERROR 01-01 00:00:09 [core.py:1] torch.OutOfMemoryError: "+torchOOM+"\n")
	if a.Error == nil || a.Error.Kind != KindOOM || !strings.Contains(a.Error.Advice, "while serving") {
		t.Errorf("error %+v", a.Error)
	}
}

func TestOutcomeOf(t *testing.T) {
	for _, c := range []struct {
		e         *runner.AccountError
		outcome   runner.Outcome
		retriable bool
	}{
		{nil, runner.OutcomeEngineError, false},
		{&runner.AccountError{Kind: KindOOM}, runner.OutcomeOOM, false},
		{&runner.AccountError{Kind: KindNoKVMemory}, runner.OutcomeNoKVMemory, false},
		{&runner.AccountError{Kind: KindKVTooSmall}, runner.OutcomeKVTooSmall, false},
		{&runner.AccountError{Kind: KindMaxModelLen}, runner.OutcomeBadArgument, false},
		{&runner.AccountError{Kind: KindTPDivisibility}, runner.OutcomeBadArgument, false},
		{&runner.AccountError{Kind: KindFreeMemoryCheck}, runner.OutcomeEngineError, true},
		{&runner.AccountError{Kind: KindNCCL}, runner.OutcomeEngineError, true},
		{&runner.AccountError{Kind: KindHub, Message: "OSError: We couldn't connect to"}, runner.OutcomeEngineError, true},
		{&runner.AccountError{Kind: KindHub, Message: "GatedRepoError: 403 Client Error"}, runner.OutcomeEngineError, false},
		{&runner.AccountError{Kind: KindPortInUse, Message: "OSError: [Errno 98] Address already in use"}, runner.OutcomeEngineError, true},
		{&runner.AccountError{Kind: KindModuleMissing}, runner.OutcomeEngineError, false},
		{&runner.AccountError{Kind: KindBuildFailed}, runner.OutcomeEngineError, false},
		{&runner.AccountError{Kind: KindHostOOM}, runner.OutcomeOOM, false},
		{&runner.AccountError{Kind: KindUnknown}, runner.OutcomeEngineError, false},
	} {
		if o, r := OutcomeOf(c.e); o != c.outcome || r != c.retriable {
			t.Errorf("%+v: %s, %v; want %s, %v", c.e, o, r, c.outcome, c.retriable)
		}
	}
}

// TestAdviceWithoutKV: what is proposed can work. Where the share is high already,
// no higher one is told to be enough.
func TestAdviceWithoutKV(t *testing.T) {
	log := func(version, share string) string {
		return "INFO 01-01 00:00:01 [utils.py:1] non-default args: {'model': 'm', 'gpu_memory_utilization': " + share + "}\n" +
			v1Banner(version, 1) + "(EngineCore pid=9) INFO 01-01 00:00:02 [gpu_worker.py:1] Using V2 Model Runner\n" +
			"(EngineCore pid=9) INFO 01-01 00:00:03 [gpu_worker.py:1] Available KV cache memory: -1.98 GiB\n" +
			engineTrace("ValueError: No available memory for the cache blocks.")
	}
	for _, c := range []struct{ version, share, has, hasNot string }{
		{"0.33.0", "0.97", "enforce_eager", "raise gpu_memory_utilization"},
		{"0.33.0", "0.97", "a shorter one needs less", "raise"},
		{"0.33.0", "0.97", "above 0.97 is enough only on a GPU of more than 66.0 GiB", "raise"},
		{"0.33.0", "0.5", "raise gpu_memory_utilization above 0.5", "only on"},
		{"0.26.0", "0.97", "lower max_num_batched_tokens", "enforce_eager"}, // its V2 runner takes nothing off for graphs
	} {
		a := oneAccount(t, log(c.version, c.share))
		if a.Error == nil || !strings.Contains(a.Error.Advice, c.has) || strings.Contains(a.Error.Advice, c.hasNot) {
			t.Errorf("%s at %s: %+v, expected %q and not %q", c.version, c.share, a.Error, c.has, c.hasNot)
		}
	}
}

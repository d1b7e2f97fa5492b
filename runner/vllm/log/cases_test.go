package log

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	engineError = "(EngineCore pid=9) ERROR 10-10 10:06:02 [core.py:1150] "
	engineInfo  = "(EngineCore pid=9) INFO 10-10 10:05:02 [gpu_worker.py:560] "
	shortOOM    = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 40.00 GiB of which 1.00 GiB is free."
)

// apart reads a log as `explain` does.
func apart(t *testing.T, text string) *Log {
	t.Helper()
	log, err := readLogs(sharedReader.reader(ReaderOptions{NoEvents: true, Apart: true}), NamedReader{Name: "x", R: strings.NewReader(text)})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestOutOfMemory: the stage and the cause by what the log shows.
func TestOutOfMemory(t *testing.T) {
	frame := func(name string) string { return engineError + `  File "/v/x.py", line 1, in ` + name + "\n" }
	own := " Including non-PyTorch memory, this process has 10.50 GiB memory in use."
	for _, c := range []struct{ name, log, stage, advice string }{
		{"nothing shows it", engineError + shortOOM, "", "no line of this log shows"},
		{"serving by its statistics", engineInfo + "Engine 000: Avg prompt throughput: 5.7 tokens/s\n" + engineError + shortOOM, stageServing, "lower gpu_memory_utilization"},
		{"serving by the traceback", frame("execute_model") + engineError + shortOOM, stageServing, ""},
		{"V0's profile runs the model", frame("determine_num_available_blocks") + frame("execute_model") + engineError + shortOOM, stageProfiling, "max_num_batched_tokens"},
		{"loading by the traceback", frame("load_model") + engineError + shortOOM, stageLoad, "quantized"},
		{"loading by the line before", engineInfo + "Starting to load model m...\n" + engineError + shortOOM, stageLoad, ""},
		{"a box", "│ /v/x.py:436 in determine_available_memory        │\n│ " + shortOOM + " │", stageProfiling, ""},
		{"waking up", frame("wake_up") + engineError + "RuntimeError: CUDA Error: out of memory at /w/csrc/cumem_allocator.cpp:62", stageWakeUp, "asleep|sleep"},
		{"private pools", engineError + shortOOM + " Of the allocated memory 29.00 GiB is allocated by PyTorch, with 1.20 GiB allocated in private pools (e.g., CUDA Graphs), and 20.00 MiB is reserved by PyTorch but unallocated.", stageCapture, "fewer CUDA graphs"},
		{"another process", engineError + shortOOM + " Process 77 has 28.00 GiB memory in use." + own, "", "another process, 77, holds 28.00 GiB"},
		{"itself in a container", engineError + shortOOM + " Process 77 has 38.00 GiB memory in use. Of the allocated memory 37.00 GiB is allocated by PyTorch", "", "no line of this log shows"},
		{"two other processes, and a little in pieces", engineError + shortOOM + " Process 1201 has 20.20 GiB memory in use. Process 1202 has 8.10 GiB memory in use." + own + " Of the allocated memory 8.00 GiB is allocated by PyTorch, and 2.10 GiB is reserved by PyTorch but unallocated.", "", "2 other processes hold 28.30 GiB of the GPU, 1201 of them the most"},
		{"a little in pieces is no cause", frame("load_model") + engineError + strings.Replace(shortOOM, "2.00 GiB", "20.00 MiB", 1) + " Of the allocated memory 38.00 GiB is allocated by PyTorch, and 102.00 MiB is reserved by PyTorch but unallocated.", stageLoad, ""},
		{"loading by the record", engineError + "Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization (original error: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a total capacity of 15.77 GiB of which 66.12 MiB is free.)", stageLoad, "more GPUs"},
		{"Ray's record", engineError + "Error executing method 'determine_available_memory'. This might cause deadlock in distributed execution.\n" + engineError + shortOOM, stageProfiling, ""},
		{"a box that rich wrapped", "│ /opt/venv/lib/python3.12/site-packages/vllm/v1/worker/gpu_worker.py:275 in  │\n│ determine_available_memory                                                  │\nOutOfMemoryError: CUDA out of memory. Tried to allocate 594.00 MiB. GPU 0 has a total capacity of 14.74 GiB of which 510.12 MiB is free.", stageProfiling, ""},
		{"the sampler's try, cut before its own words", engineError + "Traceback (most recent call last):\n" + frame("_dummy_sampler_run") + engineError + shortOOM, stageWarmup, "lower max_num_seqs, or"},
		{"less than was free", engineError + strings.Replace(shortOOM, "2.00 GiB", "44.00 MiB", 1), "", "limit outside"},
		{"more than the card", engineError + strings.Replace(shortOOM, "2.00 GiB", "256.00 GiB", 1), "", "skip_mm_profiling"},
		{"fragments", engineError + shortOOM + " Of the allocated memory 30.00 GiB is allocated by PyTorch, and 6.00 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True", "", "PYTORCH_ALLOC_CONF=expandable_segments:True"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := apart(t, c.log+"\n")
			if len(log.Accounts) != 1 || log.Accounts[0].Error == nil {
				t.Fatalf("%d accounts", len(log.Accounts))
			}
			e := log.Accounts[0].Error
			if e.Kind != KindOOM || e.Stage != c.stage || !regexp.MustCompile(c.advice).MatchString(e.Advice) || e.RestsOn == nil {
				t.Errorf("kind %s, stage %q, advice %q, rests on %+v", e.Kind, e.Stage, e.Advice, e.RestsOn)
			}
		})
	}
}

// TestOutOfMemoryWordings: the allocators' words, and the figures in them.
func TestOutOfMemoryWordings(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		text               string
		tried, free, total int64
	}{
		{"RuntimeError: CUDA Error: out of memory at /w/csrc/cumem_allocator.cpp:62", 0, 0, 0},
		{"RuntimeError: CUDA driver error: out of memory", 0, 0, 0},
		{"torch.AcceleratorError: memory allocation failed with OOM on device 0 while trying to allocate 1073741824 bytes (free: 536870912, total: 42949672960)", gib, gib / 2, 40 * gib},
		{"torch.AcceleratorError: memory allocation failed with OOM on device 0 while trying to allocate 1.00 GiB (free: 0.50 GiB, total: 40.00 GiB)", gib, gib / 2, 40 * gib},
		{"RuntimeError: NPU out of memory. Tried to allocate 1.00 GiB (NPU 0; 40.00 GiB total capacity; 38.00 GiB already allocated; 0.50 GiB free; 39.00 GiB reserved in total by PyTorch)", gib, gib / 2, 40 * gib},
		{"RuntimeError: NPU out of memory. Tried to allocate 1.00 GiB. NPU 0 has a total capacity of 40.00 GiB of which 0.50 GiB is free.", gib, gib / 2, 40 * gib},
		{"torch.cuda.OutOfMemoryError: Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated     : 38.00 GiB\nRequested               : 1.00 GiB\nDevice limit            : 40.00 GiB\nFree (according to CUDA): 0.50 GiB", gib, gib / 2, 40 * gib},
		{"jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Error allocating device buffer: Attempting to allocate 1.00G. That was not possible. There are 0.50G free.", gib, gib / 2, 0},
		{"torch.distributed.DistBackendError: NCCL error in: /w/NCCLUtils.cpp:77, unhandled cuda error, NCCL version 2.27.5\nLast error:\nCuda failure 2 'out of memory'", 0, 0, 0},
		{"RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", 0, 0, 0},
		{"RuntimeError: Failed: Cuda error /w/csrc/custom_all_reduce.cuh:368 'out of memory'", 0, 0, 0},
		{"RuntimeError: Triton Error [CUDA]: out of memory", 0, 0, 0},
		{"RuntimeError: [Rank:0] FATAL ERROR :: MODULE:PT_DEVMEM Allocation failed for size::939524096 (896)MB", 939524096, 0, 0},
		{"RuntimeError: level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)", 0, 0, 0},
		{"torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacty of 40.00 GiB of which 512.00 MiB is free.", gib, gib / 2, 40 * gib},
		{"torch.OutOfMemoryError: HIP out of memory. Tried to allocate 1.00 GiB. GPU 3 has a total capacity of 40.00 GiB of which 0 bytes is free.", gib, 0, 40 * gib},
		{"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1073741824 bytes. GPU 0 has a total capacity of 42949672960 bytes of which 536870912 bytes is free.", gib, gib / 2, 40 * gib},
		{"RuntimeError: CUDA out of memory. Tried to allocate 1.00 GiB (GPU 0; 40.00 GiB total capacity; 38.00 GiB already allocated; 512.00 MiB free; 39.00 GiB reserved in total by PyTorch)", gib, gib / 2, 40 * gib},
		{"jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 18.62G of 40.00G hbm.", 0, 0, 40 * gib},
		{"RuntimeError: NPU function error: aclrtMallocPhysical, error code is 207001\nEL0004: Failed to allocate memory.", 0, 0, 0},
	} {
		var log strings.Builder
		for line := range strings.SplitSeq(c.text, "\n") {
			log.WriteString(engineError + line + "\n")
		}
		a := apart(t, log.String()).Accounts[0]
		if a.Error == nil || a.Error.Kind != KindOOM {
			t.Errorf("%s: %+v", c.text, a.Error)
			continue
		}
		for i, got := range []*int64{a.Error.TriedBytes, a.Error.FreeBytes, a.Error.TotalBytes} {
			want := []int64{c.tried, c.free, c.total}[i]
			if got == nil && want != 0 || got != nil && *got != want {
				t.Errorf("%s: figure %d is not %d", c.text, i, want)
			}
		}
	}
}

// TestKindsOfFailures: the failures that stand outside of vLLM's own records, and
// what is none.
func TestKindsOfFailures(t *testing.T) {
	start := "vllm-1  | " + engineInfo + "Starting to load model a/b...\n"
	for _, c := range []struct{ name, log, kind, advice string }{
		{"compose", start + "vllm-1 exited with code 137\n", KindWorkerDied, "signal 9"},
		{"compose, a bus error", start + "vllm-1 exited with code 135\n", KindWorkerDied, "shm-size"},
		{"kubectl", start + "    State:  Terminated\n      Reason:    OOMKilled\n      Exit Code: 137\n", KindWorkerDied, "memory"},
		{"docker inspect", start + "            \"OOMKilled\": true,\n", KindWorkerDied, "memory"},
		{"dmesg", engineInfo + "GPU KV cache size: 10 tokens\n[78478.861845] Memory cgroup out of memory: Killed process 22 (VLLM::Worker) total-vm:8483048kB, anon-rss:3145728kB\n", KindWorkerDied, "3.00 GiB"},
		{"the host's dmesg", engineInfo + "GPU KV cache size: 10 tokens\nNov 23 19:00:20 gpu-01 kernel: Out of memory: Killed process 22 (python3) total-vm:8483048kB, anon-rss:3145728kB\n", KindWorkerDied, "3.00 GiB"},
		{"a cgroup's usage", engineInfo + "GPU KV cache size: 10 tokens\nmemory: usage 4194304kB, limit 4194304kB, failcnt 12\n", KindWorkerDied, "4.00 GiB of the 4.00 GiB"},
		{"systemd", engineInfo + "GPU KV cache size: 10 tokens\nvllm.service: Main process exited, code=killed, status=9/KILL\n", KindWorkerDied, "signal 9"},
		{"slurm", engineInfo + "GPU KV cache size: 10 tokens\nslurmstepd: error: Detected 1 oom_kill event in StepId=12.0. Some of the step tasks have been OOM Killed.\n", KindWorkerDied, "memory"},
		{"signal 7", "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': -7}\n", KindWorkerDied, "shared memory"},
		{"signal 6", "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': -6}\n", KindWorkerDied, `crashed in native code \(signal 6\)`},
		{"port after the start", "INFO:     Application startup complete.\nERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use\n", KindPortInUse, "Port 8000"},
		{"802", engineError + "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized\n", "no_device", "fabricmanager"},
		{"804", engineError + "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 804: forward compatibility was attempted on non supported HW\n", "no_device", "forward-compatibility"},
		{"an image too new", "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update your driver to a newer version\n", "no_device", "CUDA 13.0"},
		{"forked", engineError + "RuntimeError: Cannot re-initialize CUDA in forked subprocess.\n", KindUnknown, "VLLM_WORKER_MULTIPROC_METHOD"},
		{"pipeline", engineError + "NotImplementedError: Pipeline parallelism is not supported for this model.\n", KindUnknown, "tensor_parallel_size"},
		{"python.h", engineError + "subprocess.CalledProcessError: Command '['/usr/bin/gcc', '/tmp/x.c']' returned non-zero exit status 1.\n", KindBuildFailed, "gcc"},
		{"a module, then torch's warning", engineError + "Traceback (most recent call last):\n" + engineError + "  File \"x\"\n" + engineError + "ModuleNotFoundError: No module named 'foo'\n[rank0]:[W1123 18:57:26.356320397 ProcessGroupNCCL.cpp:1575] Warning: WARNING: destroy_process_group() was not called before program exit, which can leak resources.\n", KindModuleMissing, "module foo"},
		{"indented, alone", "    " + shortOOM + "\n", KindOOM, ""},
		{"a true exception before others' words", engineError + "Traceback (most recent call last):\n" + engineError + "  File \"x\"\n" + engineError + "AssertionError: foo\n[rank1]:[E1123 19:00:09.1 ProcessGroupNCCL.cpp:685] [Rank 1] Watchdog caught collective operation timeout\n", KindUnknown, ""},
		{"a container that was restarted", start + "vllm-1 exited with code 137 (restarting)\n", KindWorkerDied, "signal 9"},
		{"a crash in a container", start + "vllm-1 exited with code 139\n", KindWorkerDied, "signal 11"},
		{"podman ps", start + "8f3c2a1b  docker.io/vllm/vllm-openai:v0.31.0  --model a/b  Exited (137) 2 minutes ago\n", KindWorkerDied, "signal 9"},
		{"docker inspect, no kill of its cgroup", start + "            \"OOMKilled\": false,\n            \"ExitCode\": 137,\n", KindWorkerDied, "signal 9"},
		{"kubectl get", start + "vllm-7d9c5f7b9-x2x4v    0/1     OOMKilled   2 (30s ago)   3m\n", KindWorkerDied, "memory"},
		{"an event", start + "Warning  OOMKilling  2m  kernel-monitor  Memory cgroup out of memory: Killed process 41235 (VLLM::EngineCor) total-vm:93121212kB, anon-rss:33554432kB\n", KindWorkerDied, "32.00 GiB"},
		{"dmesg -T", start + "[Mon May  2 23:42:01 2026] Out of memory: Killed process 3321 (python3) total-vm:61234567kB, anon-rss:29360128kB\n", KindWorkerDied, "28.00 GiB"},
		{"earlyoom", start + "May 02 23:42:01 gpu-01 earlyoom[811]: sending SIGTERM to process 2201 uid 1000 \"VLLM::EngineCor\": badness 1300, VmRSS 58113 MiB\n", KindWorkerDied, "earlyoom ended process 2201"},
		{"systemd-oomd", start + "May 02 23:42:01 gpu-01 systemd-oomd[900]: Killed /user.slice/vllm.service due to memory pressure for /user.slice being 71.20% > 50.00%\n", KindWorkerDied, "host's memory"},
		{"srun", start + "srun: error: gpu-07: task 0: Out Of Memory\n", KindWorkerDied, "host's memory"},
		{"another program's error", start + "srun: error: gpu-07: task 0: Exited with exit code 1\n" + engineError + "AssertionError: x\n", KindUnknown, ""},
		{"torchrun", start + "exitcode  : -9 (pid: 2012)\n", KindWorkerDied, "signal 9"},
		{"a worker of V1", engineError + "Worker proc VllmWorker-1 died unexpectedly (exit code: -11), shutting down executor.\n", KindWorkerDied, "signal 11"},
		{"an engine that was ended", "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': -15}\n", KindWorkerDied, "signal 15"},
		{"Ray's monitor", start + "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.\n", KindHostOOM, "host's memory"},
		{"no GPU runtime", "docker: Error response from daemon: could not select device driver \"\" with capabilities: [[gpu]].\n", "no_device", "container toolkit"},
		{"driver and library", engineError + "RuntimeError: Failed to initialize NVML: Driver/library version mismatch\n", "no_device", "reboot"},
		{"driver too old", engineError + "RuntimeError: The NVIDIA driver on your system is too old (found version 12040).\n", "no_device", "CUDA 12.4"},
		{"803", engineError + "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 803: system has unsupported display driver / cuda driver combination\n", "no_device", "803"},
		{"the server's port", "(APIServer pid=1200) OSError: [Errno 98] Address already in use\n", KindPortInUse, "A port that"},
		{"the port of a rendezvous", engineError + "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. port: 29500, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use\n", KindPortInUse, "Port 29500"},
		{"zmq's port", engineError + "zmq.error.ZMQError: Address already in use (addr='tcp://10.0.0.3:5571')\n", KindPortInUse, "Port 5571"},
		{"podman's port", "Error: rootlessport listen tcp 0.0.0.0:8000: bind: address already in use\n", KindPortInUse, "Port 8000"},
		{"docker's port", "docker: Error response from daemon: driver failed programming external connectivity: Bind for 0.0.0.0:8000 failed: port is already allocated\n", KindPortInUse, "Port 8000"},
		{"a library of CUDA", "ImportError: libcudart.so.13: cannot open shared object file: No such file or directory\n", KindModuleMissing, `libcudart\.so\.13`},
		{"another torch", "ImportError: /v/vllm/_C.abi3.so: undefined symbol: _ZN3c104cuda9SetDeviceEab\n", KindUnknown, "another torch"},
		{"ninja", engineError + "FileNotFoundError: [Errno 2] No such file or directory: 'ninja'\n", KindBuildFailed, "ninja is missing"},
		{"ptxas", engineError + "triton.runtime.errors.PTXASError: PTXAS error: Internal Triton PTX codegen error\n", KindBuildFailed, "TRITON_PTXAS_PATH"},
		{"nvcc", engineError + "RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist\n", KindBuildFailed, "CUDA toolkit"},
		{"weights outside", engineError + "ValueError: Externally held weights (75.01 GiB) exceed the desired GPU memory utilization (0.92, 72.84 GiB).\n", KindNoKVMemory, "raise gpu_memory_utilization"},
		{"too long for 0.33", engineError + "ValueError: To serve at least one request with the model's max seq len (131072), 16.00 GiB KV cache is needed, which is larger than the available KV cache memory (10.31 GiB). The estimated maximum model length is 84448.\n", KindKVTooSmall, "84448 or less"},
		{"too little free in 0.33", engineError + "ValueError: Free memory on device cuda:0 (3.90/15.99 GiB) on startup is less than desired GPU memory utilization (0.92, 14.71 GiB). The worker already uses 0.41 GiB.\n", KindFreeMemoryCheck, "0.24 or less"},
		{"NCCL itself", engineError + "torch.distributed.DistBackendError: NCCL error in: /p/NCCLUtils.cpp:94, unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.26.2\n" + engineError + "Error while creating shared memory segment /dev/shm/nccl-Qx2bPs (size 9637888), error: No space left on device (28)\n", KindNCCL, "/dev/shm"},
		{"a model that the hub keeps", "(APIServer pid=1) Traceback (most recent call last):\n(APIServer pid=1) requests.exceptions.HTTPError: 403 Client Error: Forbidden for url: https://huggingface.co/a/b\n(APIServer pid=1) \n(APIServer pid=1) The above exception was the direct cause of the following exception:\n(APIServer pid=1) \n(APIServer pid=1) Traceback (most recent call last):\n(APIServer pid=1) OSError: We couldn't connect to 'https://huggingface.co' to load the files. See how to run the library in offline mode.\n", KindHub, "gated or private"},
		{"the end of a chain, its cause cut off", "(APIServer pid=1)     raise LocalEntryNotFoundError(\n(APIServer pid=1) huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the file on the Hub.\n", KindHub, "^$"},
		{"heads, wrapped", "ValueError: Total number of attention heads (16) must be\ndivisible by tensor parallel size (3).\n", KindTPDivisibility, "16 is not a multiple of tensor_parallel_size 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := apart(t, c.log)
			if len(log.Accounts) != 1 || log.Accounts[0].Error == nil {
				t.Fatalf("%d accounts", len(log.Accounts))
			}
			if e := log.Accounts[0].Error; e.Kind != c.kind || !regexp.MustCompile(c.advice).MatchString(e.Advice) {
				t.Errorf("kind %s, want %s; advice %q", e.Kind, c.kind, e.Advice)
			}
		})
	}
	stopped := engineInfo + "GPU KV cache size: 10 tokens\nINFO:     Shutting down\nvllm-1 exited with code 137\n"
	if e := apart(t, stopped).Accounts[0].Error; e != nil {
		t.Errorf("a container that was stopped: %+v", e)
	}
}

// TestEnginesApart: figures of two engines never meet, and each says who it is.
func TestEnginesApart(t *testing.T) {
	kv := func(proc, gib string) string {
		return proc + "INFO 09-02 20:06:36 [gpu_worker.py:560] Available KV cache memory: " + gib + " GiB\n"
	}
	for _, c := range []struct {
		name, log string
		labels    []string
		kv        []float64
		ranks     []int
	}{
		{"two EngineCores", kv("(EngineCore pid=100) ", "60.00") + kv("(EngineCore pid=900) ", "20.00"), []string{"pid 100", "pid 900"}, []float64{60, 20}, []int{0, 0}},
		{"two servers at once", kv("(APIServer pid=1) (EngineCore pid=2) ", "6.00") + kv("(EngineCore pid=3) ", "2.00"), []string{"pid 2", "pid 3"}, []float64{6, 2}, []int{0, 0}},
		{"stages", kv("(EngineCore pid=18) [Stage-0] ", "10.00") + kv("(EngineCore pid=19) [Stage-1] ", "5.00"), []string{"Stage-0", "Stage-1"}, []float64{10, 5}, []int{0, 0}},
		{"data parallel, the second first", kv("(Worker_DP1_EP1 pid=3) ", "40.00") + kv("(Worker_DP0_EP0 pid=2) ", "50.00"), []string{"rank 0", "rank 1"}, []float64{50, 40}, []int{0, 1}},
		{"hosts", kv("gpu-01: (EngineCore pid=7) ", "3.00") + kv("gpu-02: (EngineCore pid=7) ", "4.00"), []string{"gpu-01", "gpu-02"}, []float64{3, 4}, []int{0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := apart(t, c.log).Accounts
			if len(all) != len(c.kv) {
				t.Fatalf("%d accounts", len(all))
			}
			for i, a := range all {
				if !strings.Contains(a.Label, c.labels[i]) || a.AvailableKVCacheGB == nil || *a.AvailableKVCacheGB != c.kv[i] || a.Ranks[0].Rank != c.ranks[i] {
					t.Errorf("%q: KV %v, ranks %+v", a.Label, a.AvailableKVCacheGB, a.Ranks)
				}
			}
		})
	}
	mixed := apart(t, v1+"Initial free memory: 40.00 GiB; Requested memory: 0.400000 (util), 32.00 GiB\n"+v1+"Available KV cache memory: 60.00 GiB\n")
	if a := mixed.Accounts[0]; a.AvailableKVCacheGB != nil || a.Ranks[0].AvailableKVCacheGB != nil || a.UnreadCount != 1 || a.Missing["available_kv_cache_gb"] == "" {
		t.Errorf("a KV cache larger than its budget: %v, unread %d", a.AvailableKVCacheGB, a.UnreadCount)
	}
}

// TestAdviceOnWhatWasRead: no hint where a line of the budget was missed, or the
// memory is not the GPU's alone.
func TestAdviceOnWhatWasRead(t *testing.T) {
	whole := v1Banner("0.28.0", 1) + kvLine + strings.Replace(captureOne, "%s", "0.80", 1) + newUsage
	for _, c := range []struct {
		name, log string
		hint      bool
	}{
		{"all of it", whole, true},
		{"the capture is missing", v1Banner("0.28.0", 1) + kvLine + strings.Replace(newUsage, ", and 0.8 GiB for CUDAGraph memory", "", 1), false},
		{"without the banner", kvLine + newUsage, false},
		{"a line that was not understood", whole + engineInfo + "KV pool: 3.50 GB, 20000 tokens\n", false},
		{"memory shared with the host", whole + engineInfo + "Using configuration for device_name=NVIDIA_GB10.json\n", false},
		{"multimodal input not profiled", whole + engineInfo + "Skipping memory profiling for multimodal encoder and encoder cache.\n", false},
	} {
		got := false
		for _, g := range Gains(apart(t, c.log).Accounts[0]) {
			got = got || strings.HasPrefix(g.Text, "gpu_memory_utilization")
		}
		if got != c.hint {
			t.Errorf("%s: a hint: %v", c.name, got)
		}
	}
	announced := apart(t, engineInfo+"Estimated CUDA graph memory: 0.30 GiB total\n"+kvLine+engineInfo+
		"In v0.19, CUDA graph memory profiling will be enabled by default (X=1), increase --gpu-memory-utilization from 0.7000 to 0.7038 to maintain\n").Accounts[0]
	if g := announced.Budget[0].GraphEstimate; g != nil && *g != 0 {
		t.Errorf("an estimate that is only announced is in the budget: %v", *g)
	}
}

// TestNamesInAdvice: advice names only settings and variables that exist.
func TestNamesInAdvice(t *testing.T) {
	flags, err := os.ReadFile(filepath.FromSlash("../../../sweep/vllmflags.txt"))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	settings := "gpu_memory_utilization tensor_parallel_size pipeline_parallel_size max_model_len max_num_batched_tokens max_num_seqs " +
		"kv_cache_dtype dtype quantization enforce_eager trust_remote_code skip_tokenizer_init input_len output_len max_cudagraph_capture_size"
	others := "port ipc shm_size help version_ git_lfs python3_dev nvidia_smi rocm_smi py_spy forward_compatibility data_centre out_of_memory"
	variables := "CUDA_VISIBLE_DEVICES CUDA_LAUNCH_BLOCKING CUDA_HOME LIBRARY_PATH LD_LIBRARY_PATH HF_TOKEN HF_HUB_OFFLINE NCCL_DEBUG MASTER_PORT " +
		"VLLM_PORT VLLM_WORKER_MULTIPROC_METHOD PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF PYTORCH_HIP_ALLOC_CONF TRITON_PTXAS_PATH"
	for _, name := range strings.Fields(string(flags) + " " + settings + " " + others + " " + variables) {
		known[name] = true
	}
	nameRE := regexp.MustCompile(`--[a-z][a-z-]+|\b[a-z]+(?:_[a-z0-9]+)+\b|\b[A-Z]+(?:_[A-Z]+)+\b`)
	var texts []string
	for _, k := range kindRules() {
		for _, a := range k.advices {
			texts = append(texts, a.text)
		}
	}
	for _, file := range []string{"advice.go", "oom.go", "render.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`"[^"\n]*[a-z]{3} [^"\n]*"`).FindAllString(string(source), -1) {
			if !strings.Contains(m, `\t`) {
				texts = append(texts, m)
			}
		}
	}
	for _, text := range texts {
		for _, name := range nameRE.FindAllString(text, -1) {
			if name = strings.ReplaceAll(strings.TrimPrefix(name, "--"), "-", "_"); !known[name] {
				t.Errorf("%q is neither a flag of vLLM nor a known variable: %s", name, text)
			}
		}
	}
}

// TestOtherEngines: a log of another engine is called so.
func TestOtherEngines(t *testing.T) {
	for name, text := range map[string]string{
		"SGLang":                    "[2026-01-02 03:04:05 TP0] Load weight begin. avail mem=78.50 GB\n[2026-01-02 03:04:09 TP0] Scheduler hit an exception: Traceback (most recent call last):\n  File \"/x/sglang/srt/model_runner.py\", line 1, in f\n" + shortOOM + "\n",
		"TensorRT-LLM":              "[TensorRT-LLM] TensorRT-LLM version: 1.0.0\n[TRT-LLM] [I] KV cache quota: 10.00 GiB\n",
		"llama.cpp":                 "llama_model_loader: loaded meta data\nggml_backend_cuda_buffer_type_alloc_buffer: allocating 8192.00 MiB on device 0: cudaMalloc failed: out of memory\n",
		"Text Generation Inference": "2026-01-01T00:00:00.000000Z ERROR text_generation_launcher: " + shortOOM + "\n",
	} {
		if log := apart(t, text); log.Other != name || len(log.Accounts) != 0 {
			t.Errorf("%s: %q, %d accounts", name, log.Other, len(log.Accounts))
		}
	}
	onlyFrames := "Scheduler hit an exception: Traceback (most recent call last):\n  File \"/sgl-workspace/sglang/python/sglang/srt/managers/scheduler.py\", line 1, in f\n" + shortOOM + "\n"
	if log := apart(t, onlyFrames); log.Other != "SGLang" {
		t.Errorf("SGLang by the frames of a traceback: %q", log.Other)
	}
	if log := apart(t, v1Banner("0.28.0", 1)+kvLine+engineInfo+"the recipe of sglang.srt is used\n"); log.Other != "" || len(log.Accounts) != 1 {
		t.Errorf("vLLM that names another engine: %q", log.Other)
	}
}

// TestHalfReadLines: what a paste broke or cut is joined or counted, in words that
// are known and in others; nothing is told of it that it does not say.
func TestHalfReadLines(t *testing.T) {
	usage := "Free memory on device (21.00/22.00 GiB) on startup. Desired GPU memory utilization is (0.6, 13.2 GiB). Actual usage is 9.00 GiB for consumed memory (weights + non-torch), 0.30 GiB for peak activation, and 0.80 GiB for CUDAGraph memory. Current kv cache memory in use is 3.1 GiB."
	npu := "Free memory on device (60.00/61.00 GiB) on startup. Desired GPU memory utilization is (0.9, 54.9 GiB). Actual usage: 10.0 GiB for weights, 1.0 GiB for peak activation, 0.5 GiB for non-torch memory, 0.7 GiB for NPU graph memory. Current KV cache memory: 43.4 GiB. After warmup: torch reserved memory 55.80 GiB, torch allocated memory 54.01 GiB."
	whole := map[string]any{"requested_memory_gb": 13.2, "graph_capture_gb": 0.8, "available_kv_cache_gb": 3.1}
	for _, c := range []struct {
		name, log string
		unread    int64
		want      map[string]any
	}{
		{"by hand, between words", engineInfo + strings.NewReplacer("Actual", "\nActual", "and 0.80", "\nand 0.80").Replace(usage), 0, whole},
		{"at a column", wrapAt(80, engineInfo+usage), 0, whole},
		{"with a margin", "    " + strings.ReplaceAll(wrapAt(90, engineInfo+usage+"\n"+engineInfo+usage), "\n", "\n    "), 0, whole},
		{"cut in the middle", engineInfo + usage[:150], 1, map[string]any{"requested_memory_gb": 13.2, "graph_capture_gb": nil, "available_kv_cache_gb": nil}},
		{"cut before its unit", engineInfo + "Available KV cache memory: 54.", 1, map[string]any{"available_kv_cache_gb": nil}},
		{"weights cut", engineInfo + "Model loading took 14", 1, map[string]any{"model_weights_gb": nil}},
		{"Ascend", strings.Replace(engineInfo, "gpu_worker.py", "worker.py", 1) + npu, 0, map[string]any{
			"platform": "npu", "engine": "V1", "model_weights_gb": 10.0, "graph_capture_gb": 0.7, "available_kv_cache_gb": 43.4, "activations_gb": 1.0, "non_torch_gb": 0.5}},
		{"Ascend, wrapped", wrapAt(100, strings.Replace(engineInfo, "gpu_worker.py", "worker.py", 1)+npu), 0, map[string]any{"platform": "npu", "available_kv_cache_gb": 43.4}},
		{"Ascend, bytes", "(Worker_TP0 pid=41) INFO 09-10 09:00:00 [worker_v1.py:234] Available memory: 29527900160, total memory: 46170898432", 0, map[string]any{
			"platform": "npu", "engine": "V1", "available_kv_cache_gb": 27.5, "total_gpu_memory_gb": 43.0}},
		{"words never seen", engineInfo + "KV arena holds 33.10 GiB in 2 pools\n" + engineInfo + "Reserved 512 MiB workspace\nINFO 08-22 09:12:53 [foo.py:500] pool grew to 70.2 GB", 3, map[string]any{"available_kv_cache_gb": nil}},
		{"another program's words", engineInfo + "GPU KV cache size: 10 tokens\nINFO 2026-10-22 11:12:03 my_app.py:12 - cache uses 33.10 GiB of memory", 0, nil},
	} {
		log := apart(t, c.log+"\n")
		if len(log.Accounts) != 1 {
			t.Errorf("%s: %d accounts", c.name, len(log.Accounts))
			continue
		}
		a := log.Accounts[0]
		checkAccount(t, a)
		got := asJSON(t, a)
		for field, want := range c.want {
			if !same(got[field], want) {
				t.Errorf("%s: %s = %v, want %v", c.name, field, got[field], want)
			}
		}
		if a.UnreadCount != c.unread || c.unread > 0 && len(Gains(a)) > 0 {
			t.Errorf("%s: %d lines unread, want %d; advice %v", c.name, a.UnreadCount, c.unread, Gains(a))
		}
	}
}

// TestLinesSince030 holds the lines that 0.30 to 0.33 brought.
func TestLinesSince030(t *testing.T) {
	for _, c := range []struct {
		text string
		want map[string]any
	}{
		{"Weights are held outside this process: of the 72.84 GiB utilization budget, 15.01 GiB is externally held and 57.83 GiB remains for the engine's own allocations.", map[string]any{"external_weights_gb": 15.01}},
		{"GPU + host KV cache size: 946,784 tokens, 54.54 GiB + 64.00 GiB host", map[string]any{"host_kv_cache_gb": 64.0, "total_gpu_kv_cache_tokens": nil}},
		{"Encoder graph capturing finished in 3 secs, took 0.35 GiB (12 graphs)", map[string]any{"graph_capture_gb": nil}},
		{"TokenSpeed MLA decode workspace: 0.50 GiB", nil},
		{"Allocated the KDA RecoverSSM verify records: 1.25 GiB in total for 256 requests (5.00 MiB per request).", nil},
		{"Engram table offloaded to pinned host memory: 12.00 GiB", nil},
		{"HiSparse HMA: 64.00 GiB host source (4096 blocks), 2.00 GiB shared device buffer", map[string]any{"host_kv_cache_gb": nil}},
		{"Weight cache tensor daemon rank 0 loaded model (15.01 GiB allocated, 15.22 GiB reserved)", map[string]any{"model_weights_gb": nil}},
		{"torch.compile took 12.31 s in total [backbone]", map[string]any{"compile_seconds": 12.31}},
		{"Applying persisted startup plan (fingerprint 8c1f2a): kv_cache_memory_bytes=58561234567 (54.54 GiB), recorded free-memory baseline 78.50 GiB, current 78.48 GiB. Memory profiling will be skipped.", map[string]any{"available_kv_cache_gb": 54.54, "free_memory_gb": 78.48}},
	} {
		a := apart(t, v1Banner("0.33.0", 1)+engineInfo+c.text+"\n").Accounts[0]
		got := asJSON(t, a)
		for field, want := range c.want {
			if !same(got[field], want) {
				t.Errorf("%s: %s = %v, want %v", c.text, field, got[field], want)
			}
		}
		if a.UnreadCount != 0 {
			t.Errorf("%s: counted as unread", c.text)
		}
	}
}

// TestAdviceTable: each group that an advice names is one of its condition.
func TestAdviceTable(t *testing.T) {
	groupRE := regexp.MustCompile(`%\[(\d+)\]s`)
	for _, k := range kindRules() {
		for i, a := range k.advices {
			for _, m := range groupRE.FindAllStringSubmatch(a.text, -1) {
				if atoi(m[1]) > a.re.NumSubexp() {
					t.Errorf("%s: %q names a group that %s has not", k.kind, a.text, a.re)
				}
			}
			if a.re.String() == "" && i != len(k.advices)-1 {
				t.Errorf("%s: what stands behind %q is never said", k.kind, a.text)
			}
		}
	}
}

// TestSharedCases reads the inputs of our own cases where they are beside the
// repository: each is read, and none ends as if nothing were in it.
func TestSharedCases(t *testing.T) {
	files, _ := filepath.Glob("../../../../shared/cases/explain/*.log")
	if len(files) == 0 {
		t.Skip("no cases beside the repository")
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		accounts := apart(t, string(b)).Accounts
		if len(accounts) == 0 {
			t.Errorf("%s: nothing read", filepath.Base(path))
		}
		for _, a := range accounts {
			checkAccount(t, a)
			if a.Error != nil && a.Error.Kind == KindUnknown && !strings.Contains(path, "forked") {
				t.Errorf("%s: %+v", filepath.Base(path), a.Error)
			}
		}
	}
}

package simulate

import (
	"fmt"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// A failure is a Python exception that ends the run.
type failure struct {
	class, text string
	worker      bool           // raised on a rank, not in the engine process
	running     bool           // raised after the engine was up
	kind        string         // as in Account.Error; "" is "unknown"
	outcome     runner.Outcome // "" is engine_error
}

// line is the last line of the traceback.
func (f *failure) line() string { return f.class + ": " + f.text }

// as gives a failure another kind.
func (f *failure) as(kind string) *failure {
	f.kind = kind
	return f
}

// validation is the message of a pydantic dataclass (vLLM 0.9.2 and later);
// before, the bare ValueError.
func validation(v version, config, text string) *failure {
	if !v.atLeast(0, 9, 2) {
		return &failure{class: "ValueError", text: text, kind: "bad_argument", outcome: runner.OutcomeBadArgument}
	}
	return &failure{class: "pydantic_core._pydantic_core.ValidationError", kind: "bad_argument", outcome: runner.OutcomeBadArgument, text: fmt.Sprintf("1 validation error for %s\n  Value error, %s "+
		"[type=value_error, input_value=ArgsKwargs((), {...}), input_type=ArgsKwargs]\n    For further information visit https://errors.pydantic.dev/2.14/v/value_error", config, text)}
}

// frontFailure is what the front end refuses before an engine starts.
func (c *Config) frontFailure(r *request) *failure {
	v, err := parseVersion(c.Version)
	if err != nil {
		return &failure{class: "ValueError", text: err.Error()}
	}
	switch {
	case c.Model == nil:
		return hubFailure(r.model)
	case c.does("fail_hub", "") != nil:
		return &failure{class: "OSError", kind: "hf_hub", text: "We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.\n" +
			"Check your internet connection or see how to run the library in offline mode at 'https://huggingface.co/docs/transformers/installation#offline-mode'."}
	case r.util != nil && (*r.util > 1 || *r.util <= 0):
		return utilFailure(v, *r.util)
	}
	return c.configFailure(v, r)
}

// configFailure is what vLLM's configuration refuses of a known model.
func (c *Config) configFailure(v version, r *request) *failure {
	a := c.Model
	switch {
	case r.maxLen != nil && a.MaxPosition > 0 && *r.maxLen > a.MaxPosition:
		return validation(v, "ModelConfig", fmt.Sprintf("User-specified max_model_len (%d) is greater than the derived max_model_len (max_position_embeddings=%d or model_max_length=None "+
			"in model's config.json). To allow overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1.", *r.maxLen, a.MaxPosition)).as("max_model_len_too_large")
	case a.NumHeads > 0 && r.tp > 0 && a.NumHeads%r.tp != 0:
		return validation(v, "VllmConfig", fmt.Sprintf("Total number of attention heads (%d) must be divisible by tensor parallel size (%d).", a.NumHeads, r.tp)).as("tp_divisibility")
	case r.tp < 1 || r.pp < 1 || r.batchSize < 1 || r.inputLen < 1 || r.outputLen < 1:
		return &failure{class: "ValueError", text: "tensor_parallel_size, pipeline_parallel_size, batch size and lengths must be at least 1"}
	case int(r.tp*r.pp) > c.gpuCount():
		return validation(v, "ParallelConfig", fmt.Sprintf("World size (%d) is larger than the number of available GPUs (%d) in this node. If this is intentional and you are using:\n"+
			"- ray, set '--distributed-executor-backend ray'.\n- multiprocessing, set '--nnodes' appropriately.", r.tp*r.pp, c.gpuCount())).as("device_rank_out_of_bounds")
	}
	return nil
}

// hubFailure is the text for a model that is neither a folder nor on the hub.
func hubFailure(model string) *failure {
	return &failure{class: "OSError", kind: "hf_hub", text: model + " is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'\n" +
		"If this is a private repository, make sure to pass a token having permission to this repo either by logging in with `hf auth login` or by passing `token=<your_token>`"}
}

// utilFailure is the text for a share of GPU memory outside (0, 1].
func utilFailure(v version, util float64) *failure {
	if !v.atLeast(0, 9, 2) {
		return &failure{class: "ValueError", kind: "bad_argument", outcome: runner.OutcomeBadArgument, text: fmt.Sprintf("GPU memory utilization must be less than 1.0. Got %s.", pyFloat(util))}
	}
	what, kind := "less than or equal to 1", "less_than_equal"
	if util <= 0 {
		what, kind = "greater than 0", "greater_than"
	}
	return &failure{class: "pydantic_core._pydantic_core.ValidationError", kind: "bad_argument", outcome: runner.OutcomeBadArgument, text: fmt.Sprintf("1 validation error for CacheConfig\ngpu_memory_utilization\n"+
		"  Input should be %s [type=%s, input_value=%s, input_type=float]\n    For further information visit https://errors.pydantic.dev/2.14/v/%s", what, kind, pyFloat(util), kind)}
}

// startFailure is what fails while the engine and its workers start.
func (b *builder) startFailure() *failure {
	f, r, c := b.figures, b.request, b.config
	planned := []struct{ do, kind, class, text string }{
		{"fail_port", "unknown", "torch.distributed.DistNetworkError", "The server socket has failed to listen on any local network address. port: 50483, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use"},
		{"fail_nccl", "nccl", "torch.distributed.DistBackendError", "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:94, unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.28.9"},
		{"fail_device", "no_device", "RuntimeError", "CUDA error: all CUDA-capable devices are busy or unavailable"},
		{"fail_assertion", "unknown", "AssertionError", "simulated failure of the engine"},
	}
	for _, p := range planned {
		if c.does(p.do, "") != nil {
			return &failure{class: p.class, text: p.text, kind: p.kind, worker: true}
		}
	}
	if padded := (f.arch.VocabSize + 63) / 64 * 64; padded%r.tp != 0 {
		return &failure{class: "AssertionError", text: fmt.Sprintf("%d is not divisible by %d", padded, r.tp), kind: "tp_divisibility", outcome: runner.OutcomeBadArgument, worker: true}
	}
	for rank := range f.memory {
		m := &f.memory[rank]
		free := f.gpu.TotalBytes - m.context - m.others
		if free >= f.requested || r.kvBytes != nil || !f.version.atLeast(0, 9, 1) {
			continue
		}
		device := "device"
		if f.version.atLeast(0, 14, 0) {
			device = "device cuda:" + itoa(rank)
		}
		return &failure{class: "ValueError", worker: true, kind: "free_memory_check", text: fmt.Sprintf("Free memory on %s (%s/%s GiB) on startup is less than desired GPU memory utilization (%s, %s GiB). "+
			"Decrease GPU memory utilization or reduce GPU memory used by other processes.", device, f.gibText(free), f.gibText(f.gpu.TotalBytes), pyFloat(f.util), f.gibText(f.requested))}
	}
	return nil
}

// oomWhile fails if a rank would come to hold more than its GPU has, or if
// chaos wants it in this phase. Each phase asks with try 0 first.
func (b *builder) oomWhile(phase runner.Phase, try int, want func(*rankMemory) int64) *failure {
	f := b.figures
	planned := b.config.does("fail_oom", phase)
	for rank := range f.memory {
		m := &f.memory[rank]
		capacity := f.gpu.TotalBytes - m.others
		if want(m) <= capacity && (planned == nil || try > 0) {
			continue
		}
		held := min(want(m), capacity)
		b.wait(0.2)
		b.hold(func(other *rankMemory) int64 { return min(want(other), f.gpu.TotalBytes-other.others) })
		b.wait(0.3)
		return f.outOfMemory(m, rank, held, max(want(m)-capacity, 160<<20))
	}
	return nil
}

// outOfMemory is torch's text.
func (f *figures) outOfMemory(m *rankMemory, rank int, held, tried int64) *failure {
	class, api, variable := "torch.OutOfMemoryError", "CUDA", "PYTORCH_CUDA_ALLOC_CONF"
	if f.gpu.Vendor == "amd" {
		api, variable = "HIP", "PYTORCH_HIP_ALLOC_CONF"
	}
	if !f.version.atLeast(0, 6, 4) { // torch 2.4
		class = "torch.cuda.OutOfMemoryError"
	}
	free := f.gpu.TotalBytes - m.others - held + 16973824 // a little is always left
	text := fmt.Sprintf("%s out of memory. Tried to allocate %s. GPU %d has a total capacity of %s of which %s is free. ", api, torchSize(tried), rank, torchSize(f.gpu.TotalBytes), torchSize(free))
	if m.others > 0 {
		text += fmt.Sprintf("Process %d has %s memory in use. ", 1, torchSize(m.others))
	}
	if api == "CUDA" {
		text += fmt.Sprintf("Including non-PyTorch memory, this process has %s memory in use. ", torchSize(held-16973824))
	}
	text += fmt.Sprintf("Of the allocated memory %s is allocated by PyTorch, and %s is reserved by PyTorch but unallocated. If reserved but unallocated memory is large "+
		"try setting %s=expandable_segments:True to avoid fragmentation.  See documentation for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)",
		torchSize(max(held-m.context-m.nonTorch, 0)), torchSize(56832), variable)
	return &failure{class: class, text: text, worker: true, kind: "oom", outcome: runner.OutcomeOOM}
}

// torchSize writes bytes as torch's allocator does.
func torchSize(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 1<<20:
		return fmt.Sprintf("%.2f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
}

// kvFailure is the check of the KV cache: none at all, or too small for one
// request of the longest length.
func (b *builder) kvFailure() *failure {
	f, v := b.figures, b.figures.version
	least := f.memory[0].available
	for i := range f.memory {
		least = min(least, f.memory[i].available)
	}
	if least <= 0 || f.blocks == 0 {
		text := "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine"
		switch {
		case v.atLeast(0, 22, 0):
			text += " (this flag also controls CPU memory reservation on the CPU backend, despite its name). See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
		case v.atLeast(0, 13, 0):
			text += ". See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
		default:
			text += "."
		}
		return &failure{class: "ValueError", text: text, kind: "no_kv_memory", outcome: runner.OutcomeNoKVMemory}
	}
	need := f.bytesOfTokens(f.maxLen)
	if need <= least {
		return nil
	}
	if f.v0 {
		return &failure{class: "ValueError", kind: "kv_too_small", outcome: runner.OutcomeKVTooSmall, text: fmt.Sprintf("The model's max seq len (%d) is larger than the maximum number of tokens that can be stored in KV cache (%d). "+
			"Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.", f.maxLen, f.kvTokens)}
	}
	return &failure{class: "ValueError", kind: "kv_too_small", outcome: runner.OutcomeKVTooSmall, text: f.kvTooSmall(need, least)}
}

// kvTooSmall is the text with what is needed, what there is and what would fit.
func (f *figures) kvTooSmall(need, least int64) string {
	v, whose, unit := f.version, "models's", "GiB"
	if v.atLeast(0, 22, 0) {
		whose = "model's"
	}
	if !v.atLeast(0, 8, 3) {
		unit = "GB"
	}
	text := fmt.Sprintf("To serve at least one request with the %s max seq len (%d), (%s %s KV cache is needed, which is larger than the available KV cache memory (%s %s). ",
		whose, f.maxLen, f.gibText(need), unit, f.gibText(least), unit)
	if v.atLeast(0, 8, 4) {
		text += fmt.Sprintf("Based on the available memory, the estimated maximum model length is %d. ", f.kvTokens)
	}
	control := ""
	if v.atLeast(0, 22, 0) {
		control = " (which also controls CPU memory on the CPU backend)"
	}
	text += "Try increasing `gpu_memory_utilization`" + control + " or decreasing `max_model_len` when initializing the engine."
	if v.atLeast(0, 13, 0) {
		text += " See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."
	}
	return text
}

// readyFailure is what the benchmark refuses once the engine is up.
func (b *builder) readyFailure() *failure {
	if r := b.request; r.inputLen+r.outputLen > b.figures.maxLen {
		return &failure{class: "AssertionError", text: "Please ensure that max_model_len is greater than the sum of input_len and output_len.", running: true, kind: "bad_argument", outcome: runner.OutcomeBadArgument}
	}
	return nil
}

// traceback is a Python traceback, short: the frames are nobody's business.
func traceback(frames []string, last string) string {
	var t strings.Builder
	t.WriteString("Traceback (most recent call last):\n")
	for _, frame := range frames {
		t.WriteString(frame + "\n")
	}
	return t.String() + last
}

// The frames of the front end and of the engine.
func frontFrames() []string {
	return []string{
		`  File "/opt/venv/lib/python3.12/site-packages/vllm/entrypoints/cli/main.py", line 95, in main`,
		`  File "/opt/venv/lib/python3.12/site-packages/vllm/benchmarks/latency.py", line 88, in main`,
	}
}

func engineFrames() []string {
	return []string{
		`  File "/opt/venv/lib/python3.12/site-packages/vllm/v1/engine/core.py", line 1299, in run_engine_core`,
		`  File "/opt/venv/lib/python3.12/site-packages/vllm/v1/engine/core.py", line 125, in __init__`,
	}
}

// failFront ends the script with an exception of the front end.
func (b *builder) failFront(fail *failure) *script {
	b.fail = fail
	if b.figures != nil {
		if fail.running {
			b.shutdown()
		} else {
			b.hold(func(*rankMemory) int64 { return 0 })
		}
	}
	b.add(step{who: front, stderr: true, text: traceback(frontFrames(), fail.line()) + "\n"})
	return b.finish(1, nil)
}

// failEngine ends the script with an exception of the engine or of a rank, and
// the general errors around it: the true error is never the last line.
func (b *builder) failEngine(fail *failure) *script {
	f := b.figures
	b.fail = fail
	if f.inProcess && f.ranks == 1 {
		return b.failFront(fail)
	}
	up := b.phase == runner.PhaseBenchWarmup || b.phase == runner.PhaseMeasure
	engineLine, envelope := fail.line(), "EngineCore failed to start."
	if up {
		envelope = "EngineCore encountered a fatal error."
	}
	if fail.worker && f.ranks > 1 {
		head := "WorkerProc failed to start."
		engineLine = "Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause."
		if b.phase != runner.PhaseEngineInit && b.phase != runner.PhaseLoad {
			head = "WorkerProc hit an exception."
			engineLine = "RuntimeError: Worker failed with error '" + fail.text + "', please check the stack trace above for the root cause"
		}
		b.log(0, "ERROR", "multiproc_executor.py:900", head+"\n"+traceback(engineFrames(), fail.line()))
	}
	b.log(engine, "ERROR", "core.py:1330", envelope+"\n"+traceback(engineFrames(), engineLine))
	b.wait(1)
	b.hold(func(*rankMemory) int64 { return 0 })
	b.stderrOf(engine, "Process EngineCore:\n"+traceback(engineFrames(), engineLine))
	last := "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
	switch {
	case up:
		last = "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause."
	case !f.version.atLeast(0, 8, 4):
		last = "RuntimeError: Engine process failed to start. See stack trace for the root cause."
	case !f.version.atLeast(0, 9, 0):
		last = "RuntimeError: Engine core initialization failed. See root cause above."
	}
	b.wait(0.5)
	b.add(step{who: front, stderr: true, text: traceback(frontFrames(), last) + "\n"})
	return b.finish(1, nil)
}

// stderrOf writes lines to stderr, each with the prefix of its process.
func (b *builder) stderrOf(who int, text string) {
	for line := range strings.Lines(text + "\n") {
		b.add(step{who: who, stderr: true, text: line})
	}
}

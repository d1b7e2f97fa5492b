package simulate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// A failure is a Python exception that ends the run.
type failure struct {
	class, text string
	worker      bool // raised on a rank, not in the engine process
}

// line is the last line of the traceback.
func (f *failure) line() string { return f.class + ": " + f.text }

// frontFailure is what the front end refuses before an engine starts.
func (c *Config) frontFailure(r *request) *failure {
	w := c.words
	switch {
	case c.Model == nil:
		return w.failure("hub", "{model}", r.model)
	case c.does("fail_hub", "") != nil:
		return w.failure("fail_hub")
	case r.util != nil && *r.util > 1:
		return w.failure("util", "{util}", pyFloat(*r.util),
			"{wanted}", "less than or equal to 1", "{kind}", "less_than_equal")
	case r.util != nil && *r.util <= 0:
		return w.failure("util", "{util}", pyFloat(*r.util), "{wanted}", "greater than 0", "{kind}", "greater_than")
	}
	return c.configFailure(r)
}

// configFailure is what vLLM's configuration refuses of a known model.
func (c *Config) configFailure(r *request) *failure {
	w, a, world := c.words, c.Model, r.tp*r.pp
	switch {
	case r.maxLen != nil && a.MaxPosition > 0 && *r.maxLen > a.MaxPosition:
		return w.failure("too_long", "{asked}", fmt.Sprint(*r.maxLen), "{most}", fmt.Sprint(a.MaxPosition))
	case a.NumHeads > 0 && r.tp > 0 && a.NumHeads%r.tp != 0:
		return w.failure("heads", "{heads}", fmt.Sprint(a.NumHeads), "{tp}", fmt.Sprint(r.tp))
	case r.tp < 1 || r.pp < 1 || r.batchSize < 1 || r.inputLen < 1 || r.outputLen < 1:
		return w.failure("least")
	case int(world) > c.gpuCount():
		return w.failure("world", "{ranks}", fmt.Sprint(world), "{gpus}", itoa(c.gpuCount()))
	}
	return nil
}

// startFailure is what fails while the engine and its workers start.
func (b *builder) startFailure() *failure {
	f, r, w := b.figures, b.request, b.figures.words
	for _, planned := range []string{"fail_port", "fail_nccl", "fail_device", "fail_assertion"} {
		if b.config.does(planned, "") != nil {
			return w.failure(planned)
		}
	}
	if padded := (f.arch.VocabSize + 63) / 64 * 64; padded%r.tp != 0 {
		return w.failure("vocabulary", "{padded}", fmt.Sprint(padded), "{tp}", fmt.Sprint(r.tp))
	}
	for rank := range f.memory {
		if f.free(&f.memory[rank]) < f.requested && r.kvBytes == nil {
			return w.failure("free", slices.Concat(f.engineValues(r), f.rankValues(rank))...)
		}
	}
	return nil
}

// oomWhile fails if a rank would come to hold more than its GPU has, or if
// chaos wants it in this phase, at the moment that asks with try 0.
func (b *builder) oomWhile(phase runner.Phase, try int, want func(*rankMemory) int64) *failure {
	f := b.figures
	planned := b.config.does("fail_oom", phase)
	for rank := range f.memory {
		m := &f.memory[rank]
		capacity := f.gpu.TotalBytes - m.others
		if want(m) <= capacity && (planned == nil || try != 0) {
			continue
		}
		held := min(want(m), capacity)
		b.wait(0.2)
		b.hold(func(other *rankMemory) int64 { return min(want(other), f.gpu.TotalBytes-other.others) })
		b.pace(0.5) // so that it is seen (budget)
		b.wait(0.3)
		return f.outOfMemory(m, rank, held, max(want(m)-capacity, 160<<20))
	}
	return nil
}

// outOfMemory is torch's text.
func (f *figures) outOfMemory(m *rankMemory, rank int, held, tried int64) *failure {
	const left = 16973824 // a little is always left
	api, others := "CUDA", ""
	including := fmt.Sprintf("Including non-PyTorch memory, this process has %s memory in use. ", torchSize(held-left))
	if f.gpu.Vendor == "amd" {
		api, including = "HIP", ""
	}
	if m.others > 0 {
		others = fmt.Sprintf("Process 1 has %s memory in use. ", torchSize(m.others))
	}
	return f.words.failure("oom", "{api}", api, "{rank}", itoa(rank), "{tried}", torchSize(tried),
		"{capacity}", torchSize(f.gpu.TotalBytes), "{left}", torchSize(f.gpu.TotalBytes-m.others-held+left),
		"{others}", others, "{including}", including, "{allocated}", torchSize(max(held-m.context-m.nonTorch, 0)))
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
	f := b.figures
	byRoom := func(a, b rankMemory) int { return cmp.Compare(a.available, b.available) }
	least := slices.MinFunc(f.memory, byRoom).available
	if least <= 0 || f.blocks == 0 {
		return f.words.failure("no_kv")
	}
	if need := f.bytesOfTokens(f.maxLen); need > least {
		return f.words.failure("small_kv", "{max_len}", fmt.Sprint(f.maxLen), "{need}", gibText(need),
			"{least}", gibText(least), "{longest}", fmt.Sprint(f.kvTokens))
	}
	return nil
}

// traceback is a Python traceback, short: the frames are nobody's business.
func traceback(frames, last string) string {
	return "Traceback (most recent call last):\n" + frames + last
}

// The frames of the front end and of the engine.
const (
	frontFrames = `  File "/opt/venv/lib/python3.12/site-packages/vllm/entrypoints/cli/main.py", line 95, in main
  File "/opt/venv/lib/python3.12/site-packages/vllm/benchmarks/latency.py", line 88, in main
`
	engineFrames = `  File "/opt/venv/lib/python3.12/site-packages/vllm/v1/engine/core.py", line 1299, in run_engine_core
  File "/opt/venv/lib/python3.12/site-packages/vllm/v1/engine/core.py", line 125, in __init__
`
)

// giveUp gives all memory back, not before what was held then has been seen: what a
// run that fails holds at its end must not hang on when it is sampled.
func (b *builder) giveUp() {
	b.hold(func(*rankMemory) int64 { return 0 })
	b.steps[len(b.steps)-1].stays = true
}

// failFront ends the script with an exception of the front end.
func (b *builder) failFront(fail *failure) *script {
	b.fail = fail
	if b.figures != nil {
		b.giveUp()
	}
	b.add(step{who: front, stderr: true, text: traceback(frontFrames, fail.line()) + "\n"})
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
	engineLine, envelope := fail.line(), "EngineCore failed to start."
	last := "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
	if b.phase == runner.PhaseBenchWarmup || b.phase == runner.PhaseMeasure {
		envelope, last = "EngineCore encountered a fatal error.", "vllm.v1.engine.exceptions."+engineDead
	}
	if fail.worker && f.ranks > 1 {
		head := "WorkerProc failed to start."
		engineLine = "Exception: WorkerProc initialization failed due to an exception in a background process. " +
			"See stack trace for root cause."
		if b.phase != runner.PhaseEngineInit && b.phase != runner.PhaseLoad {
			head = "WorkerProc hit an exception."
			engineLine = "RuntimeError: Worker failed with error '" + fail.text +
				"', please check the stack trace above for the root cause"
		}
		b.say("worker_failed", "{head}", head, "{traceback}", traceback(engineFrames, fail.line()))
	}
	b.say("engine_failed", "{head}", envelope, "{traceback}", traceback(engineFrames, engineLine))
	b.wait(1)
	b.pace(0.9)
	b.giveUp()
	for line := range strings.Lines("Process EngineCore:\n" + traceback(engineFrames, engineLine) + "\n") {
		b.add(step{who: engine, stderr: true, text: line})
	}
	b.wait(0.5)
	b.add(step{who: front, stderr: true, text: traceback(frontFrames, last) + "\n"})
	return b.finish(1, nil)
}

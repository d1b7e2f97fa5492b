package simulate

import (
	"fmt"

	"github.com/vramsweep/vramsweep/runner"
)

// v0 is a run on the V0 engine (0.6, 0.7): one process, and a worker process
// for each further rank.
func (b *builder) v0() *script {
	f, r, v := b.figures, b.request, b.figures.version
	b.frontLines()
	b.info(front, "llm_engine.py:232", f.banner(r))
	b.pace(0.4)
	b.wait(f.times.init * 0.3)
	b.do(1, 0, 0.02)
	b.hold(func(m *rankMemory) int64 { return m.context })
	if line := f.backendLine(); line != "" {
		b.everyRank("selector.py:120", func(int) string { return line })
	}
	b.wait(f.times.init * 0.7)
	if fail := b.startFailure(); fail != nil {
		return b.failFront(fail)
	}
	started := b.now
	for _, part := range []func() *failure{b.v0Load, b.v0Profile, b.v0Capture, b.kernels} {
		if fail := part(); fail != nil {
			return b.failFront(fail)
		}
	}
	if v.atLeast(0, 6, 5) {
		b.info(front, "llm_engine.py:429", f.readyLine(b.now-started))
	}
	if b.standBy {
		return b.finish(0, nil)
	}
	if r.inputLen+r.outputLen > f.maxLen {
		b.log(front, "WARNING", "scheduler.py:950", fmt.Sprintf("Input prompt (%d tokens) is too long and exceeds limit of %d", r.inputLen, f.maxLen))
	}
	return b.benchmark()
}

// v0Load loads the weights.
func (b *builder) v0Load() *failure {
	f, r := b.figures, b.request
	b.enter(runner.PhaseLoad)
	b.everyRank("model_runner.py:1111", func(int) string { return "Starting to load model " + r.model + "..." })
	b.do(1, 0, 0.08)
	if fail := b.fill(); fail != nil {
		return fail
	}
	b.hold((*rankMemory).loaded)
	b.everyRank("model_runner.py:1116", func(rank int) string { return f.weightsLine(f.memory[rank].weights, f.times.load) })
	return nil
}

// v0Profile profiles and makes the KV cache.
func (b *builder) v0Profile() *failure {
	f, v := b.figures, b.figures.version
	b.enter(runner.PhaseProfile)
	b.wait(f.times.profile * 2)
	if fail := b.oomWhile(runner.PhaseProfile, 0, func(m *rankMemory) int64 { return m.loaded() + m.activation }); fail != nil {
		return fail
	}
	b.pace(0.68)
	b.do(92, 40, 0.45)
	b.hold(func(m *rankMemory) int64 { return m.loaded() + m.activation })
	b.wait(f.times.profile * 0.5)
	b.hold((*rankMemory).loaded)
	b.do(0, 0, 0.08)
	b.pace(0.84)
	b.wait(f.times.profile * 0.5)
	if f.v0Profile(&f.memory[0]) != "" {
		b.everyRank("worker.py:266", func(rank int) string { return f.v0Profile(&f.memory[rank]) })
	}
	b.enter(runner.PhaseKVAlloc)
	file, device := "executor_base.py:108", "cuda"
	switch {
	case f.gpu.Vendor == "amd" && v.atLeast(0, 7, 3):
		device = "rocm"
	case !v.atLeast(0, 7, 0):
		file, device = "gpu_executor.py:76", "GPU"
	case !v.atLeast(0, 7, 3):
		device = "CUDA"
	}
	b.info(front, file, fmt.Sprintf("# %s blocks: %d, # CPU blocks: %d", device, f.blocks, int64(4<<30)/max(f.kvPerToken*f.blockSize, 1)))
	if v.atLeast(0, 6, 3) {
		b.info(front, file, fmt.Sprintf("Maximum concurrency for %d tokens per request: %.2fx", f.maxLen, f.concurrency))
	}
	if fail := b.kvFailure(); fail != nil {
		return fail
	}
	b.wait(f.times.kv * 0.1)
	if fail := b.oomWhile(runner.PhaseKVAlloc, 0, func(m *rankMemory) int64 { return m.loaded() + m.kv }); fail != nil {
		return fail
	}
	b.hold(func(m *rankMemory) int64 { return m.loaded() + m.kv })
	b.wait(f.times.kv * 0.9)
	return nil
}

// v0Capture captures the CUDA graphs of decoding.
func (b *builder) v0Capture() *failure {
	f, v := b.figures, b.figures.version
	if f.times.capture == 0 {
		return nil
	}
	b.enter(runner.PhaseCapture)
	notice := "Capturing cudagraphs for decoding. This may lead to unexpected consequences if the model is not static. To run the model in eager mode, " +
		"set 'enforce_eager=True' or use '--enforce-eager' in the CLI. If out-of-memory error occurs during cudagraph capture, consider decreasing " +
		"`gpu_memory_utilization` or switching to eager mode. You can also reduce the `max_num_seqs` as needed to decrease memory usage."
	finished := func(rank int) string { return f.captureLine(&f.memory[rank]) }
	if !v.atLeast(0, 6, 4) {
		notice = "Capturing the model for CUDA graphs. This may lead to unexpected consequences if the model is not static. " +
			"To run the model in eager mode, set 'enforce_eager=True' or use '--enforce-eager' in the CLI."
		finished = func(int) string { return fmt.Sprintf("Graph capturing finished in %.0f secs.", f.times.capture) }
	}
	b.everyRank("model_runner.py:1435", func(int) string { return notice })
	b.do(14, 6, 0.18)
	if fail := b.oomWhile(runner.PhaseCapture, 0, (*rankMemory).captured); fail != nil {
		return fail
	}
	if v.atLeast(0, 6, 4) {
		b.progress(0, "Capturing CUDA graph shapes", evenly(f.times.capture, len(f.captureSizes)), b.graphsUpTo(0, 1))
	} else {
		b.wait(f.times.capture)
	}
	b.hold((*rankMemory).captured)
	b.everyRank("model_runner.py:1563", finished)
	return nil
}

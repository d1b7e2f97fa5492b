package simulate

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// tp is the tensor-parallel size.
func (f *figures) tp() int { return max(f.tpSize, 1) }

// scriptOf writes the whole script of one start.
func scriptOf(c *Config, r *request, env map[string]string, others []int64) *script {
	b := &builder{script: script{phases: map[runner.Phase]span{}, paces: map[runner.Phase][]pace{}, request: r}, config: c, debug: env["VLLM_LOGGING_LEVEL"] == "DEBUG"}
	return b.write(env, others)
}

// muteScriptOf is scriptOf without the lines.
func muteScriptOf(c *Config, r *request) *script {
	b := &builder{script: script{phases: map[runner.Phase]span{}, paces: map[runner.Phase][]pace{}, request: r}, config: c, mute: true}
	return b.write(nil, nil)
}

// write writes the script.
func (b *builder) write(env map[string]string, others []int64) *script {
	c, r := b.config, b.request
	b.enter(runner.PhaseEngineInit)
	b.wait(25) // imports
	if fail := c.frontFailure(r); fail != nil {
		return b.failFront(fail)
	}
	f, err := figuresOf(c, r, others)
	if err != nil {
		return b.failFront(&failure{class: "NotImplementedError", text: "vramsweep simulator: " + err.Error()})
	}
	f.inProcess = f.v0 || env["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
	b.figures = f
	if f.v0 {
		return b.v0()
	}
	return b.v1()
}

// v1 is a run on the V1 engine.
func (b *builder) v1() *script {
	f, r := b.figures, b.request
	b.frontLines()
	b.wait(f.times.spawn)
	b.info(engine, "core.py:116", f.banner(r))
	b.pace(0.3)
	b.contexts()
	b.runnerLine()
	if fail := b.startFailure(); fail != nil {
		return b.failEngine(fail)
	}
	started := b.now
	for _, part := range []func() *failure{b.load, b.profile, b.allocate, b.capture, b.kernels} {
		if fail := part(); fail != nil {
			return b.failEngine(fail)
		}
	}
	b.info(engine, "core.py:340", f.readyLine(b.now-started))
	if b.standBy {
		return b.finish(0, nil)
	}
	if fail := b.readyFailure(); fail != nil {
		return b.failFront(fail)
	}
	return b.benchmark()
}

// contexts makes the CUDA contexts and, between several ranks, NCCL.
func (b *builder) contexts() {
	f := b.figures
	b.wait(f.times.init * 0.1)
	b.do(2, 0, 0.02)
	b.hold(func(m *rankMemory) int64 {
		if f.ranks > 1 {
			return min(f.gpu.Context, m.context)
		}
		return m.context / 2
	})
	b.wait(f.times.init * 0.3)
	b.ranksUp()
	b.wait(f.times.init * 0.35)
	b.hold(func(m *rankMemory) int64 { return m.context })
	b.wait(f.times.init * 0.25)
}

// frontLines are what the front end prints before the engine starts.
func (b *builder) frontLines() {
	f, r, v := b.figures, b.request, b.figures.version
	if b.mute {
		b.wait(f.times.front)
		return
	}
	if !v.atLeast(0, 11, 1) && v.atLeast(0, 7, 0) {
		platform := "cuda"
		if f.gpu.Vendor == "amd" {
			platform = "rocm"
		}
		b.info(front, "__init__.py:239", "Automatically detected platform "+platform+".")
	}
	if v.atLeast(0, 10, 1) {
		b.info(front, "api_utils.py:273", "non-default args: "+r.nonDefault())
		b.info(front, "model.py:623", "Resolved architecture: "+f.arch.Architecture)
	} else if v.atLeast(0, 7, 0) {
		b.info(front, "config.py:717", "This model supports multiple tasks: {'generate', 'embed', 'classify', 'reward', 'score'}. Defaulting to 'generate'.")
	}
	if v.atLeast(0, 9, 2) {
		b.info(front, "model.py:1788", fmt.Sprintf("Using max model len %d", f.maxLen))
	}
	if !f.v0 {
		b.info(front, "scheduler.py:252", fmt.Sprintf("Chunked prefill is enabled with max_num_batched_tokens=%d.", f.maxTokens))
	}
	if v.atLeast(0, 14, 0) {
		b.info(front, "vllm.py:1109", "Asynchronous scheduling is enabled.")
	}
	b.wait(f.times.front)
}

// ranksUp are the lines of the process groups.
func (b *builder) ranksUp() {
	f, v := b.figures, b.figures.version
	for rank := range f.ranks {
		if v.atLeast(0, 11, 1) {
			b.add(step{who: rank, early: true, level: "INFO", file: "parallel_state.py:1615", text: fmt.Sprintf(
				"world_size=%d rank=%d local_rank=%d distributed_init_method=tcp://127.0.0.1:50483 backend=nccl", f.ranks, rank, rank)})
		}
	}
	if f.ranks > 1 {
		b.add(step{who: 0, early: true, level: "INFO", file: "pynccl.py:113", text: "vLLM is using nccl==2.28.9"})
	}
	for rank := range f.ranks {
		if rank > 0 && v.atLeast(0, 17, 0) { // from then on of rank 0 alone
			break
		}
		text := fmt.Sprintf("rank %d in world size %d is assigned as DP rank 0, PP rank %d, TP rank %d", rank, f.ranks, rank/f.tp(), rank%f.tp())
		switch {
		case v.atLeast(0, 17, 0):
			text = fmt.Sprintf("rank %d in world size %d is assigned as DP rank 0, PP rank %d, PCP rank 0, TP rank %d, EP rank N/A, EPLB rank N/A", rank, f.ranks, rank/f.tp(), rank%f.tp())
		case v.atLeast(0, 9, 0):
			text += fmt.Sprintf(", EP rank %d", rank%f.tp())
		}
		b.add(step{who: rank, early: true, level: "INFO", file: "parallel_state.py:1946", text: text})
	}
}

// runnerLine tells of the V2 model runner.
func (b *builder) runnerLine() {
	if b.figures.runner == "v2" {
		b.add(step{who: 0, early: true, level: "INFO", file: "gpu_worker.py:378", text: "Using V2 Model Runner"})
	}
	if b.debug && b.figures.version.atLeast(0, 14, 0) {
		b.log(0, "DEBUG", "v1/worker/gpu_worker.py:285", fmt.Sprintf("worker requested memory: %sGiB", b.figures.gibText(b.figures.requested)))
	}
}

// load loads the weights.
func (b *builder) load() *failure {
	f, r := b.figures, b.request
	b.enter(runner.PhaseLoad)
	for rank := range f.ranks {
		text, file := "Starting to load model "+r.model+"...", "gpu_model_runner.py:5250"
		if f.runner == "v2" {
			text, file = "Loading model from scratch...", "model_runner.py:284"
		} else if rank > 0 && f.version.atLeast(0, 11, 1) {
			break // info_once
		}
		b.info(rank, file, text)
	}
	if line := f.backendLine(); line != "" {
		b.info(0, "cuda.py:482", line)
	}
	if f.version.atLeast(0, 17, 0) && f.gpu.Vendor != "amd" {
		b.info(0, "flash_attn.py:776", "Using FlashAttention version 3")
	}
	b.do(1, 0, 0.08)
	if fail := b.fill(); fail != nil {
		return fail
	}
	b.hold((*rankMemory).loaded)
	b.wait(f.times.load * 0.1)
	for rank := range f.ranks {
		if rank > 0 && f.runner == "v1" && f.version.atLeast(0, 11, 1) {
			break
		}
		file := "gpu_model_runner.py:5347"
		if f.runner == "v2" {
			file = "model_runner.py:305"
		}
		b.info(rank, file, f.weightsLine(f.memory[rank].weights, f.times.load))
	}
	return nil
}

// fill lets the weights come, with the bar of the checkpoint's shards where
// there is a checkpoint; it ends where they no longer fit.
func (b *builder) fill() *failure {
	f, r := b.figures, b.request
	const parts = 5
	name, shards := "Loading safetensors checkpoint shards", 4
	if r.loadFormat != "dummy" {
		b.bar(0, true, strings.Replace(tqdmBar(name, 0, shards, 0), "%|          |", "% Completed |", 1))
	}
	b.wait(f.times.load * 0.3)
	for i := range parts {
		if fail := b.oomWhile(runner.PhaseLoad, i, func(m *rankMemory) int64 { return m.loaded() }); fail != nil {
			return fail
		}
		b.hold(func(m *rankMemory) int64 { return m.context + m.weights*int64(i+1)/parts })
		b.wait(f.times.load * 0.6 / parts)
		if r.loadFormat != "dummy" && i < shards {
			line := tqdmBar(name, i+1, shards, f.times.load*float64(i+1)/parts)
			b.bar(0, false, line[:strings.Index(line, "%|")]+"% Completed "+line[strings.LastIndex(line, "| "):])
		}
	}
	if r.loadFormat != "dummy" {
		b.bar(0, false, "\n")
		if f.version.atLeast(0, 8, 0) {
			b.info(0, "default_loader.py:384", fmt.Sprintf("Loading weights took %.2f seconds", f.times.load*0.97))
		}
	}
	return nil
}

// profile compiles and runs the profiling pass.
func (b *builder) profile() *failure {
	f, r, v := b.figures, b.request, b.figures.version
	b.enter(runner.PhaseProfile)
	if r.kvBytes != nil {
		b.compile()
		b.wait(f.times.profile / 3)
		b.everyRank("gpu_worker.py:420", func(rank int) string { return f.kvGiven(&f.memory[rank]) })
		return nil
	}
	b.compile()
	if fail := b.oomWhile(runner.PhaseProfile, 0, func(m *rankMemory) int64 { return m.loaded() + m.activation }); fail != nil {
		return fail
	}
	b.pace(0.68)
	b.do(92, 40, 0.45)
	b.hold(func(m *rankMemory) int64 { return m.loaded() + m.activation })
	b.wait(f.times.profile * 0.3)
	b.hold((*rankMemory).loaded)
	b.do(0, 0, 0.08)
	b.pace(0.84)
	if v.atLeast(0, 18, 0) && !f.v0 {
		b.info(0, "monitor.py:81", fmt.Sprintf("Initial profiling/warmup run took %.2f s", f.times.profile*0.3))
	}
	b.estimateGraphs()
	b.wait(f.times.profile * 0.6)
	b.profiledLines()
	return nil
}

// compile is torch.compile, cold.
func (b *builder) compile() {
	f, v := b.figures, b.figures.version
	t := f.times.compile
	if t == 0 || f.v0 {
		b.wait(f.times.profile * 2)
		return
	}
	b.wait(t * 0.3)
	b.info(0, "backends.py:1094", "Using cache directory: /root/.cache/vllm/torch_compile_cache/5117ed0000/rank_0_0/backbone for vLLM's torch.compile")
	b.info(0, "backends.py:1155", fmt.Sprintf("Dynamo bytecode transform time: %.2f s", t*0.29))
	b.do(12, 2, 0.12)
	b.wait(t * 0.4)
	if v.atLeast(0, 14, 0) {
		b.info(0, "backends.py:393", fmt.Sprintf("Compiling a graph for compile range (1, %d) takes %.2f s", f.maxTokens, t*0.42))
	} else {
		b.info(0, "backends.py:215", fmt.Sprintf("Compiling a graph for dynamic shape takes %.2f s", t*0.42))
	}
	b.wait(t * 0.3)
	verb := "takes"
	if v.atLeast(0, 18, 0) {
		verb = "took"
	}
	b.info(0, "monitor.py:53", fmt.Sprintf("torch.compile %s %.2f s in total", verb, t))
}

// estimateGraphs is the estimate of the graphs' memory: the V1 runner
// extrapolates, the V2 runner (0.29) captures them once for real.
func (b *builder) estimateGraphs() {
	f := b.figures
	if !f.estimate {
		return
	}
	if f.runner == "v2" {
		b.hold(func(m *rankMemory) int64 { return m.loaded() + m.graphs })
		b.wait(f.times.capture * 0.4)
		b.hold((*rankMemory).loaded)
		b.everyRank("model_runner.py:747", func(rank int) string { return f.captureLine(&f.memory[rank]) })
		return
	}
	largest := f.captureSizes[len(f.captureSizes)-1]
	n := len(f.captureSizes)
	b.everyRank("gpu_model_runner.py:6612", func(int) string {
		return fmt.Sprintf("Profiling CUDA graph memory: PIECEWISE=%d (largest=%d), FULL=%d (largest=%d)", n, largest, n, largest)
	})
	b.wait(f.times.profile * 0.2)
	b.everyRank("gpu_model_runner.py:6737", func(rank int) string {
		return fmt.Sprintf("Estimated CUDA graph memory: %.2f GiB total", float64(f.memory[rank].graphEst)/(1<<30))
	})
}

// profiledLines end the profiling.
func (b *builder) profiledLines() {
	f, v := b.figures, b.figures.version
	if b.debug && v.atLeast(0, 9, 1) {
		b.debugProfile()
	}
	for rank := range f.ranks {
		m := &f.memory[rank]
		if v.atLeast(0, 9, 1) && (rank == 0 || !v.atLeast(0, 11, 1)) {
			b.info(rank, "gpu_worker.py:560", "Available KV cache memory: "+f.gibText(m.available)+" GiB")
		}
		if f.estimate && f.runner == "v1" {
			b.info(rank, "gpu_worker.py:575", f.graphNotice(m))
		}
	}
}

// debugProfile are the DEBUG lines of section 4.3.
func (b *builder) debugProfile() {
	f, v := b.figures, b.figures.version
	for rank := range f.ranks {
		m := &f.memory[rank]
		free := f.gpu.TotalBytes - m.context - m.others
		if v.atLeast(0, 10, 1) {
			b.log(rank, "DEBUG", "v1/worker/gpu_worker.py:530", fmt.Sprintf("Initial free memory: %s GiB; Requested memory: %s (util), %s GiB", f.gibText(free), pyFloat(f.util), f.gibText(f.requested)))
		}
		terms := fmt.Sprintf("non-torch forward increase memory: %sGiB", f.gibText(m.nonTorch))
		if v.atLeast(0, 27, 0) {
			terms = fmt.Sprintf("total consumed (from mem_get_info): %sGiB", f.gibText(m.weights+m.nonTorch))
		}
		b.log(rank, "DEBUG", "v1/worker/gpu_worker.py:541", fmt.Sprintf("Memory profiling takes %.2f seconds. Total non KV cache memory: %sGiB; torch peak memory increase: %sGiB; %s; weights memory: %sGiB.",
			f.times.profile, f.gibText(m.weights+m.activation+m.nonTorch), f.gibText(m.activation), terms, f.gibText(m.weights)))
	}
}

// allocate makes the KV cache.
func (b *builder) allocate() *failure {
	f, v := b.figures, b.figures.version
	b.enter(runner.PhaseKVAlloc)
	if fail := b.kvFailure(); fail != nil {
		return fail
	}
	times := 1
	if !v.atLeast(0, 11, 1) {
		times = f.ranks // once for each worker's configuration
	}
	for range times {
		for _, line := range f.kvLines() {
			b.info(engine, "kv_cache_utils.py:2177", line)
		}
	}
	if v.atLeast(0, 9, 0) && !v.atLeast(0, 11, 1) {
		b.info(engine, "loggers.py:141", fmt.Sprintf("%svllm cache_config_info with initialization after num_gpu_blocks is: %d",
			map[bool]string{true: "Engine 000: "}[v.atLeast(0, 9, 1)], f.blocks))
	}
	b.wait(f.times.kv * 0.1)
	if fail := b.oomWhile(runner.PhaseKVAlloc, 0, func(m *rankMemory) int64 { return m.loaded() + m.kv }); fail != nil {
		return fail
	}
	b.hold(func(m *rankMemory) int64 { return m.loaded() + m.kv/2 })
	b.wait(f.times.kv * 0.05)
	b.hold(func(m *rankMemory) int64 { return m.loaded() + m.kv })
	b.wait(f.times.kv * 0.85)
	return nil
}

// captureLine says what the graphs took.
func (f *figures) captureLine(m *rankMemory) string {
	return fmt.Sprintf("Graph capturing finished in %.0f secs, took %.2f GiB", f.times.capture, float64(m.graphs)/(1<<30))
}

// captureBars are the names of the bars, one a mode.
func (f *figures) captureBars() []string {
	switch v := f.version; {
	case f.runner == "v2":
		return []string{"Capturing CUDA graphs (PIECEWISE)", "Capturing CUDA graphs (FULL)"}
	case v.atLeast(0, 11, 0):
		return []string{"Capturing CUDA graphs (mixed prefill-decode, PIECEWISE)", "Capturing CUDA graphs (decode, FULL)"}
	}
	return []string{"Capturing CUDA graph shapes"}
}

// capture captures the CUDA graphs and says what everything took.
func (b *builder) capture() *failure {
	f := b.figures
	if f.times.capture > 0 {
		b.enter(runner.PhaseCapture)
		b.do(14, 6, 0.18)
		bars := f.captureBars()
		for i, name := range bars {
			if fail := b.oomWhile(runner.PhaseCapture, i, func(m *rankMemory) int64 { return m.captured() }); fail != nil {
				return fail
			}
			b.progress(0, name, evenly(f.times.capture/float64(len(bars)), len(f.captureSizes)), b.graphsUpTo(i, len(bars)))
		}
		b.hold((*rankMemory).captured)
		for rank := range f.ranks {
			if rank == 0 || f.runner == "v2" || !f.version.atLeast(0, 11, 1) {
				b.info(rank, "model_runner.py:747", f.captureLine(&f.memory[rank]))
			}
			if f.estimate {
				b.info(rank, "gpu_worker.py:793", f.poolLine(&f.memory[rank]))
			}
		}
	}
	level := f.usageLevel()
	if level == "" || level == "DEBUG" && !b.debug || b.request.kvBytes != nil {
		return nil
	}
	for rank := range f.ranks {
		b.log(rank, level, "gpu_worker.py:857", f.actualUsage(&f.memory[rank]))
	}
	return nil
}

// graphsUpTo lets the graphs' memory come in the second half of capture and be
// there when it ends. In real runs it comes evenly, over seconds; here the
// whole takes a quarter of one, and must not look like a part of the step of
// the KV cache before it.
func (b *builder) graphsUpTo(part, parts int) func(share float64) {
	return func(share float64) {
		done := min(max(((float64(part)+share)/float64(parts)-0.8)/0.1, 0), 1)
		b.hold(func(m *rankMemory) int64 { return m.loaded() + m.kv + int64(float64(m.graphs)*done) })
	}
}

// kernels is the warm-up of kernels, which takes back a part of the activation.
func (b *builder) kernels() *failure {
	f := b.figures
	b.enter(runner.PhaseEngineWarmup)
	b.do(5, 2, 0.1)
	b.wait(f.times.warmup * 0.7)
	if fail := b.oomWhile(runner.PhaseEngineWarmup, 0, func(m *rankMemory) int64 { return m.captured() + m.retaken }); fail != nil {
		return fail
	}
	b.hold(func(m *rankMemory) int64 { return m.captured() + m.retaken })
	b.wait(f.times.warmup * 0.3)
	if f.version.atLeast(0, 24, 0) {
		b.everyRank("jit_monitor.py:79", func(int) string {
			return "Kernel JIT monitor activated; monitored JIT compilations during inference will use mode=warn."
		})
	}
	return nil
}

// benchmark runs the iterations, prints the results and ends.
func (b *builder) benchmark() *script {
	f := b.figures
	b.wait(0.3)
	b.enter(runner.PhaseBenchWarmup)
	b.print("Warming up...\n")
	if fail := b.oomWhile(runner.PhaseBenchWarmup, 0, (*rankMemory).highest); fail != nil {
		return b.failEngine(fail)
	}
	load := 0.35 + 0.55*f.times.busy
	b.do(100, int32(30+50*f.times.busy), load)
	b.hold((*rankMemory).highest)
	name := "Bench iterations"
	if !f.version.atLeast(0, 10, 2) {
		name = "Profiling iterations"
	}
	if len(f.warmups) > 0 {
		b.progress(front, "Warmup iterations", f.warmups, nil)
	} else {
		b.wait(0.01)
	}
	b.enter(runner.PhaseMeasure)
	if fail := b.oomWhile(runner.PhaseMeasure, 0, (*rankMemory).highest); fail != nil {
		return b.failEngine(fail)
	}
	if len(f.latencies) > 0 {
		b.progress(front, name, f.latencies, nil)
	}
	result := b.results()
	b.enter(runner.PhaseTeardown)
	b.do(0, 0, 0.08)
	b.shutdown()
	return b.finish(0, result)
}

// results prints the latencies and returns the result file.
func (b *builder) results() []byte {
	all := slices.Sorted(slices.Values(b.figures.latencies))
	if len(all) == 0 {
		return nil
	}
	sum := 0.0
	for _, l := range all {
		sum += l
	}
	avg := sum / float64(len(all))
	b.print(fmt.Sprintf("Avg latency: %s seconds\n", pyFloat(avg)))
	percentiles := map[string]float64{}
	for _, p := range []int{10, 25, 50, 75, 90, 99} {
		v := percentile(all, float64(p)/100)
		percentiles[itoa(p)] = v
		b.print(fmt.Sprintf("%d%% percentile latency: %s seconds\n", p, pyFloat(v)))
	}
	data, err := json.MarshalIndent(map[string]any{"avg_latency": avg, "latencies": b.figures.latencies, "percentiles": percentiles}, "", "    ")
	if err != nil {
		return nil // numbers alone: cannot happen
	}
	return data
}

// percentile is numpy's, linear between the two nearest. sorted is not empty.
func percentile(sorted []float64, p float64) float64 {
	at := p * float64(len(sorted)-1)
	low := int(math.Floor(at))
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// shutdown ends the engine well: its memory is back before the process ends.
func (b *builder) shutdown() {
	f := b.figures
	if f.version.atLeast(0, 23, 0) && !f.inProcess {
		b.info(engine, "core.py:1313", "[shutdown] EngineCore: trigger received signal=SIGTERM")
		b.info(engine, "core.py:1432", "[shutdown] EngineCore: start mode=abort timeout=0s")
		b.wait(f.times.exit * 0.3)
		b.info(engine, "core.py:1463", "[shutdown] EngineCore: request processing complete; starting resource teardown")
		b.info(engine, "core.py:1326", "[shutdown] EngineCore: exiting busy loop")
	}
	b.wait(f.times.exit * 0.3)
	b.hold(func(*rankMemory) int64 { return 0 })
	b.wait(f.times.exit * 0.4)
}

package simulate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// newBuilder begins a script. f are the figures of an engine that is up.
func newBuilder(c *Config, r *request, env map[string]string, f *figures) *builder {
	return &builder{
		script: script{
			phases: map[runner.Phase]span{}, paces: map[runner.Phase][]pace{}, request: r, figures: f,
		},
		config: c, debug: env["VLLM_LOGGING_LEVEL"] == "DEBUG",
	}
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
	f.inProcess = env["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
	b.figures = f
	b.say("front")
	b.wait(f.times.front + f.times.spawn)
	b.say("banner")
	b.pace(0.3)
	b.contexts()
	b.say("runner")
	if fail := b.startFailure(); fail != nil {
		return b.failEngine(fail)
	}
	started := b.now
	parts := []func() *failure{b.load, b.profile, b.allocate, b.capture, b.kernels}
	if f.words.v33 {
		parts = []func() *failure{b.load, b.profile, b.allocate, b.kernels, b.capture}
	}
	for _, part := range parts {
		if fail := part(); fail != nil {
			return b.failEngine(fail)
		}
	}
	b.say("up")
	b.say("ready", "{start_s}", twoDigits(b.now-started))
	if b.standBy {
		return b.finish(0, nil)
	}
	if r.inputLen+r.outputLen > f.maxLen {
		b.shutdown()
		return b.failFront(f.words.failure("input"))
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
			return m.context / 3 // 0.52 of 1.49 GiB, the rest is NCCL's
		}
		return m.context / 2
	})
	b.wait(f.times.init * 0.3)
	b.say("groups")
	if f.ranks > 1 {
		b.say("nccl")
	}
	b.say("ranks")
	b.wait(f.times.init * 0.35)
	b.pace(0.6)
	b.hold(func(m *rankMemory) int64 { return m.context })
	b.wait(f.times.init * 0.25)
}

// load loads the weights.
func (b *builder) load() *failure {
	f := b.figures
	b.enter(runner.PhaseLoad)
	b.say("load")
	if f.gpu.Vendor != "amd" {
		b.say("flash")
	}
	b.do(1, 0, 0.08)
	if fail := b.read(); fail != nil {
		return fail
	}
	b.hold((*rankMemory).loaded)
	b.wait(f.times.load * 0.1)
	b.say("loaded")
	return nil
}

// read lets the weights come, with the bar of the checkpoint's shards where
// there is a checkpoint; it ends where they no longer fit.
func (b *builder) read() *failure {
	f, r := b.figures, b.request
	const parts = 10
	name, shards := "Loading safetensors checkpoint shards", 4
	if r.loadFormat != "dummy" {
		b.bar(0, true, strings.Replace(tqdmBar(name, 0, shards, 0), "%|          |", "% Completed |", 1))
	}
	b.wait(f.times.load * 0.3)
	for i := range parts {
		ramp := func(m *rankMemory) int64 { return m.context + m.weights*int64(i+1)/parts }
		if i == parts-1 {
			ramp = (*rankMemory).loaded
		}
		if fail := b.oomWhile(runner.PhaseLoad, parts/2-i, ramp); fail != nil { // planned: half-way
			return fail
		}
		b.hold(func(m *rankMemory) int64 { return m.context + m.weights*int64(i+1)/parts })
		b.wait(f.times.load * 0.6 / parts)
		if done := (i + 1) * shards / parts; r.loadFormat != "dummy" && done > i*shards/parts {
			line := tqdmBar(name, done, shards, f.times.load*float64(i+1)/parts)
			b.bar(0, false, line[:strings.Index(line, "%|")]+"% Completed "+line[strings.LastIndex(line, "| "):])
		}
	}
	if r.loadFormat != "dummy" {
		b.bar(0, false, "\n")
		b.say("read")
	}
	return nil
}

// profile compiles and runs the profiling pass.
func (b *builder) profile() *failure {
	f := b.figures
	b.enter(runner.PhaseProfile)
	b.compile()
	if b.request.kvBytes != nil {
		b.wait(f.times.profile / 3)
		b.say("given")
		return nil
	}
	peak := func(m *rankMemory) int64 { return m.loaded() + m.activation }
	if fail := b.oomWhile(runner.PhaseProfile, 0, peak); fail != nil {
		return fail
	}
	low, high := 0.68, 0.92
	if f.capturesTwice() {
		low, high = 0.38, 0.52
	}
	b.pace(low)
	b.do(92, 40, 0.45)
	b.hold(peak)
	b.wait(f.times.profile * 0.3)
	b.hold((*rankMemory).loaded)
	b.do(0, 0, 0.08)
	b.pace(high)
	b.say("profiled")
	b.estimateGraphs()
	b.wait(f.times.profile * 0.6)
	b.say("account")
	b.say("available")
	if f.estimate {
		b.say("notice")
	}
	return nil
}

// compile is torch.compile, cold.
func (b *builder) compile() {
	t := b.figures.times.compile
	if t == 0 {
		b.wait(b.figures.times.profile * 2)
		return
	}
	b.say("tracing")
	b.wait(t * 0.3)
	b.say("traced")
	b.do(12, 2, 0.12)
	b.wait(t * 0.4)
	b.say("ranged")
	b.wait(t * 0.3)
	b.say("compiled")
}

// estimateGraphs is the estimate of the graphs' memory: the V1 runner
// extrapolates, the V2 runner of 0.33 captures them once and drops them.
func (b *builder) estimateGraphs() {
	f := b.figures
	switch {
	case f.capturesTwice():
		b.wait(f.times.profile * 0.2)
		b.pace(0.66)
		b.do(14, 6, 0.18)
		b.hold(func(m *rankMemory) int64 { return m.loaded() + m.graphEst })
		for i, name := range f.captureBars() {
			graphs := len(f.captureSizes)
			if i > 0 {
				graphs = min(graphs, 2) // the estimate captures full graphs of two sizes
			}
			b.progress(0, name, evenly(f.times.capture*estimateTime/2, graphs), nil)
		}
		b.hold((*rankMemory).loaded)
		b.do(0, 0, 0.08)
		b.pace(0.82)
	case f.estimate:
		b.say("estimating")
		b.wait(f.times.profile * 0.2)
	default:
		return
	}
	b.say("estimated")
}

// allocate makes the KV cache.
func (b *builder) allocate() *failure {
	f := b.figures
	b.enter(runner.PhaseKVAlloc)
	if fail := b.kvFailure(); fail != nil {
		return fail
	}
	b.say("kv")
	b.wait(f.times.kv * 0.1)
	full := func(m *rankMemory) int64 { return m.loaded() + m.kv }
	if fail := b.oomWhile(runner.PhaseKVAlloc, 0, full); fail != nil {
		return fail
	}
	b.hold(func(m *rankMemory) int64 { return m.loaded() + m.kv/2 })
	b.wait(f.times.kv * 0.05)
	b.hold(full)
	b.wait(f.times.kv * 0.85)
	return nil
}

// captureBars are the names of the bars, one a mode.
func (f *figures) captureBars() []string {
	if f.runner == "v2" {
		return []string{"Capturing CUDA graphs (PIECEWISE)", "Capturing CUDA graphs (FULL)"}
	}
	return []string{"Capturing CUDA graphs (mixed prefill-decode, PIECEWISE)", "Capturing CUDA graphs (decode, FULL)"}
}

// capture captures the CUDA graphs and says what everything took.
func (b *builder) capture() *failure {
	f := b.figures
	if f.times.capture > 0 {
		b.enter(runner.PhaseCapture)
		b.do(14, 6, 0.18)
		bars := f.captureBars()
		for i, name := range bars {
			if fail := b.oomWhile(runner.PhaseCapture, i, (*rankMemory).captured); fail != nil {
				return fail
			}
			took := evenly(f.times.capture/float64(len(bars)), len(f.captureSizes))
			b.progress(0, name, took, b.graphsUpTo(i, len(bars)))
		}
		b.hold((*rankMemory).captured)
		b.say("captured")
		if f.estimate {
			b.say("pool")
		}
	}
	if b.request.kvBytes == nil {
		b.say("usage")
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

// kernels is the warm-up of kernels, which takes back a part of the activation:
// after the capture in 0.26, where it stays taken; before it in 0.33, where it
// is given back.
func (b *builder) kernels() *failure {
	f, warm := b.figures, (*rankMemory).ready
	b.enter(runner.PhaseEngineWarmup)
	if f.words.v33 {
		warm = (*rankMemory).warmed
		b.say("warming")
	}
	b.do(5, 2, 0.1)
	b.wait(f.times.warmup * 0.7)
	if fail := b.oomWhile(runner.PhaseEngineWarmup, 0, warm); fail != nil {
		return fail
	}
	b.pace(0.5)
	b.hold(warm)
	b.wait(f.times.warmup * 0.3)
	if f.words.v33 {
		b.say("warmed")
		b.hold(func(m *rankMemory) int64 { return m.loaded() + m.kv })
	}
	return nil
}

// benchmark runs the iterations, prints the results and ends.
func (b *builder) benchmark() *script {
	f := b.figures
	b.wait(0.3)
	b.enter(runner.PhaseBenchWarmup)
	b.print("Warming up...\n")
	if fail := b.oomWhile(runner.PhaseBenchWarmup, 0, (*rankMemory).serving); fail != nil {
		return b.failEngine(fail)
	}
	load := 0.35 + 0.55*f.times.busy
	b.do(100, int32(30+50*f.times.busy), load)
	b.hold((*rankMemory).serving)
	if len(f.warmups) > 0 {
		b.progress(front, "Warmup iterations", f.warmups, nil)
	} else {
		b.wait(0.01)
	}
	b.enter(runner.PhaseMeasure)
	if fail := b.oomWhile(runner.PhaseMeasure, 0, (*rankMemory).serving); fail != nil {
		return b.failEngine(fail)
	}
	if len(f.latencies) > 0 {
		b.progress(front, "Bench iterations", f.latencies, nil)
	}
	result := b.results()
	b.enter(runner.PhaseTeardown)
	b.do(0, 0, 0.08)
	b.shutdown()
	return b.finish(0, result)
}

// results prints the latencies and returns the result file.
func (b *builder) results() []byte {
	avg, percentiles, ok := summary(b.figures.latencies)
	if !ok {
		return nil
	}
	b.print(fmt.Sprintf("Avg latency: %s seconds\n", pyFloat(avg)))
	for _, p := range sortedKeys(percentiles) {
		b.print(fmt.Sprintf("%s%% percentile latency: %s seconds\n", p, pyFloat(percentiles[p])))
	}
	file := map[string]any{"avg_latency": avg, "latencies": b.figures.latencies, "percentiles": percentiles}
	data, err := json.MarshalIndent(file, "", "    ")
	if err != nil {
		return nil // numbers alone: cannot happen
	}
	return data
}

// summary is what the benchmark says of its iterations, if there are any.
func summary(latencies []float64) (avg float64, percentiles map[string]float64, ok bool) {
	percentiles = map[string]float64{}
	if len(latencies) == 0 {
		return 0, nil, false
	}
	sorted := slices.Sorted(slices.Values(latencies))
	for _, l := range sorted {
		avg += l
	}
	for _, p := range []int{10, 25, 50, 75, 90, 99} {
		percentiles[itoa(p)] = percentile(sorted, float64(p)/100)
	}
	return avg / float64(len(sorted)), percentiles, true
}

// percentile is numpy's, linear between the two nearest. sorted is not empty.
func percentile(sorted []float64, p float64) float64 {
	at := p * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// shutdown ends the engine well: its memory is back before the process ends.
func (b *builder) shutdown() {
	f := b.figures
	if !f.inProcess {
		b.say("stop")
		b.wait(f.times.exit * 0.3)
		b.say("stopped")
	}
	b.wait(f.times.exit * 0.3)
	b.hold(func(*rankMemory) int64 { return 0 })
	b.wait(f.times.exit * 0.4)
}

package simulate

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A Generator makes whole results without starting anything: what the
// simulated vllm would have done, read without the log's rounding and
// attributed from the truth. A result takes well under a millisecond, so that
// years of tables can be made.
type Generator struct {
	Execution string    // "" is "synthetic"
	StartedAt time.Time // of the first result; zero: 2026-01-01. Each further one starts when the last has ended.
	// Seed replaces the profile's own where it is not 0.
	Seed int64
	// Plant is added to the profile's own.
	Plant Plant
	// Interval of the samples; 0: no samples are made.
	Interval time.Duration
	// TimeScale as in Config; 0: a run takes about a second.
	TimeScale float64

	elapsed time.Duration
}

// Result makes the result of one repeat of a profile whose engine is the
// simulator, and its samples. With the same arguments it is always the same.
func Result(p *sweep.Profile, repeat int, seed int64) (*runner.Result, []runner.Sample, error) {
	g := &Generator{Seed: seed, Interval: 100 * time.Millisecond}
	return g.Result(p, repeat)
}

// Result makes the next result. The samples are ordered by time.
func (g *Generator) Result(p *sweep.Profile, repeat int) (*runner.Result, []runner.Sample, error) {
	gpu, err := FindGPU(gpuName(p))
	if err != nil {
		return nil, nil, err
	}
	c, err := settingsFor(p, repeat, gpu)
	if err != nil {
		return nil, nil, err
	}
	if g.Seed != 0 {
		c.Seed = g.Seed
	}
	if g.TimeScale != 0 {
		c.TimeScale = g.TimeScale
	}
	c.Plant.Changes = append(c.Plant.Changes, g.Plant.Changes...)
	if g.Plant.MemoryNoise != nil {
		c.Plant.MemoryNoise = g.Plant.MemoryNoise
	}
	if g.Plant.LatencyNoise != nil {
		c.Plant.LatencyNoise = g.Plant.LatencyNoise
	}
	r, err := requestFor(p)
	if err != nil {
		return nil, nil, fmt.Errorf("profile %s: %w", p.ID, err)
	}
	c.chooseChaos(r)
	w := &writer{p: p, c: c, r: r, s: muteScriptOf(c, r), start: g.start(), repeat: repeat, execution: g.Execution}
	if w.execution == "" {
		w.execution = "synthetic"
	}
	w.end = w.start.Add(w.s.wall(&w.s.steps[len(w.s.steps)-1], c.TimeScale))
	g.elapsed += w.end.Sub(w.start)
	var samples []runner.Sample
	if g.Interval > 0 {
		samples = w.samples(g.Interval)
	}
	return w.result(), samples, nil
}

// start is when the next result begins.
func (g *Generator) start() time.Time {
	start := g.StartedAt
	if start.IsZero() {
		start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return start.Add(g.elapsed).UTC()
}

// A writer turns one script into a Result.
type writer struct {
	p          *sweep.Profile
	c          *Config
	r          *request
	s          *script
	start, end time.Time
	repeat     int
	execution  string
	points     []curve // of curve, once asked
}

// at is the moment of a step.
func (w *writer) at(st *step) time.Time { return w.start.Add(w.s.wall(st, w.c.TimeScale)) }

// phaseSpan is when a phase begins and ends.
func (w *writer) phaseSpan(p runner.Phase) (from, to time.Time, ok bool) {
	sp, ok := w.s.phases[p]
	if !ok {
		return from, to, false
	}
	return w.at(&step{at: sp.from, phase: p}), w.at(&step{at: sp.to, phase: p}), true
}

// result assembles the parts.
func (w *writer) result() *runner.Result {
	res := &runner.Result{
		SchemaVersion: runner.SchemaVersion, ProfilerVersion: "simulator", Timestamp: w.end,
		Run: w.run(), ModelInfo: w.model(), BenchmarkParameters: w.parameters(),
		MemoryMeasurements: []runner.Snapshot{}, Missing: map[string]string{},
		EngineMetadata: runner.EngineMetadata{Engine: "simulator", VLLMVersion: &w.c.Version, LoadFormat: &w.r.loadFormat},
		Provenance:     runner.Provenance{Host: "simulated", OS: "simulated", VLLMEnv: map[string]string{}, Vramsweep: "simulator"},
	}
	res.VLLMInternalMetrics = w.account()
	res.LatencyStats = w.latency()
	if res.LatencyStats == nil {
		res.Missing["latency_stats"] = "the run did not get as far as its results"
	}
	if f := w.s.figures; f != nil {
		w.engineFacts(res)
		res.GPUInfo = w.devices()
		res.Phases = w.phaseRows()
		if w.s.fail == nil {
			w.attribute(res)
		} else {
			res.Missing["memory_breakdown"] = "the run failed"
		}
		w.timeline(res)
	}
	return res
}

// run says which run it is and how it ended.
func (w *writer) run() runner.RunInfo {
	code := 0
	info := runner.RunInfo{
		RunID:     runner.RunID(w.execution, w.p, w.repeat),
		ProfileID: w.p.ID, Execution: w.execution, Sweep: w.p.Sweep, Repeat: w.repeat, Attempts: 1,
		StartedAt: w.start, EndedAt: w.end, WallS: w.end.Sub(w.start).Seconds(), Outcome: runner.OutcomeOK, Synthetic: true,
		Command: []string{"vramsweep", "simulate-vllm"}, Environment: map[string]string{}, Axes: map[string]any{},
		Notes: []string{"synthetic: made by the simulator without running anything"},
	}
	for _, a := range w.p.Axes {
		info.Axes[a.Axis] = a.Value
	}
	if fail := w.s.fail; fail != nil {
		code = 1
		info.Outcome = fail.outcome
		if info.Outcome == "" {
			info.Outcome = runner.OutcomeEngineError
		}
		info.ErrorLine, _, _ = strings.Cut(fail.line(), "\n")
		info.OutcomeDetail = info.ErrorLine
	}
	info.ExitCode = &code
	return info
}

// model is the architecture as the plan knew it.
func (w *writer) model() runner.ModelInfo {
	info := runner.ModelInfo{Model: w.p.Settings.Model, HFModelID: w.p.Settings.HFModelID, Source: "unknown"}
	a := w.c.Model
	if a == nil {
		return info
	}
	info.Family, info.Source = a.Family, a.Source
	info.Architecture = &a.Architecture
	for dst, n := range map[**int64]int64{
		&info.Params: a.Params, &info.NumLayers: a.NumLayers, &info.NumHeads: a.NumHeads, &info.NumKVHeads: a.NumKVHeads,
		&info.HeadDim: a.HeadDim, &info.HiddenSize: a.HiddenSize, &info.VocabSize: a.VocabSize,
	} {
		if n != 0 {
			*dst = &n
		}
	}
	return info
}

// parameters are what was asked and, where the engine came so far, what it used.
func (w *writer) parameters() runner.BenchmarkParameters {
	s := &w.p.Settings
	params := runner.BenchmarkParameters{
		Engine: "simulator", EngineMode: w.p.Engine.Mode, Asked: s.Asked,
	}
	params.TensorParallelSize, params.PipelineParallelSize = w.r.tp, w.r.pp
	if len(w.p.Engine.Flags) > 0 {
		params.Flags = map[string]any{}
		for _, f := range w.p.Engine.Flags {
			params.Flags[f.Name] = f.Value
		}
	}
	if f := w.s.figures; f != nil {
		dtype := f.dtype(w.r)
		params.Effective = runner.Effective{
			EffectiveDtype: &dtype, EffectiveKVCacheDtype: &w.r.kvDtype, EffectiveMaxModelLen: &f.maxLen, EffectiveMaxNumSeqs: &f.maxSeqs,
			EffectiveMaxNumBatchedTokens: &f.maxTokens, EffectiveGPUMemoryUtilization: &f.util, EffectiveBlockSize: &f.blockSize,
		}
		if w.r.quantization != "" {
			params.Effective.EffectiveQuantization = &w.r.quantization
		}
	}
	return params
}

// latency is the result file, as statistics.
func (w *writer) latency() *runner.LatencyStats {
	if w.s.result == nil {
		return nil
	}
	var file struct {
		Avg         float64            `json:"avg_latency"`
		Latencies   []float64          `json:"latencies"`
		Percentiles map[string]float64 `json:"percentiles"`
	}
	if json.Unmarshal(w.s.result, &file) != nil {
		return nil
	}
	stats := &runner.LatencyStats{AvgS: file.Avg, NIters: len(file.Latencies), LatenciesS: file.Latencies, Percentiles: map[string]float64{}}
	for p, v := range file.Percentiles {
		stats.Percentiles["p"+p] = v
	}
	rate := float64(w.r.batchSize*w.r.outputLen) / file.Avg
	stats.OutputTokensPerS = &rate
	return stats
}

// engineFacts are what the engine says of itself.
func (w *writer) engineFacts(res *runner.Result) {
	f := w.s.figures
	name, backend, cache := "V1", "FLASH_ATTN", "cold"
	if f.v0 {
		name = "V0"
	}
	if w.r.eager {
		cache = "off"
	}
	meta := &res.EngineMetadata
	meta.EngineVersion, meta.AttentionBackend, meta.CompileCache = &name, &backend, &cache
	if f.runner != "" {
		meta.ModelRunner = &f.runner
	}
	dtype, kvDtype := f.dtype(w.r), w.r.kvDtype
	perToken := f.kvPerToken * int64(f.ranks)
	res.DtypeMetadata = runner.DtypeMetadata{Dtype: &dtype, KVCacheDtype: &kvDtype, KVBytesPerToken: &perToken}
	if w.r.quantization != "" {
		res.DtypeMetadata.Quantization = &w.r.quantization
	}
	if params, ok := models.Params(f.arch); ok && params > 0 {
		each := float64(f.memory[0].weights) * float64(f.ranks) / float64(params)
		res.DtypeMetadata.WeightBytesPerParam = &each
	}
}

// devices are the simulated GPUs of the run.
func (w *writer) devices() []runner.Device {
	d := &Device{GPU: *w.c.GPU, Count: w.s.figures.ranks}
	return d.list(make([]use, d.Count))
}

// gb is bytes as GiB.
func gb(bytes int64) *float64 {
	v := float64(bytes) / runner.GiB
	return &v
}

// account is what vLLM's log would say, without its rounding.
func (w *writer) account() *runner.Account {
	a := &runner.Account{VLLMVersion: &w.c.Version, Model: &w.r.model, Ranks: []runner.AccountRank{}, Budget: []runner.RankBudget{}, Sources: map[string]runner.AccountSource{}}
	if fail := w.s.fail; fail != nil {
		kind := fail.kind
		if kind == "" {
			kind = "unknown"
		}
		a.Error = &runner.AccountError{Kind: kind, Message: fail.line()}
	}
	f := w.s.figures
	if f == nil {
		return a
	}
	w.accountEngine(a)
	for rank := range f.memory {
		m := &f.memory[rank]
		free, zero, closes := f.gpu.TotalBytes-m.context-m.others, 0.0, true
		row := runner.AccountRank{
			Rank: rank, ModelWeightsGB: gb(m.weights), LoadSeconds: &f.times.load, AvailableKVCacheGB: gb(m.available), ActivationsGB: gb(m.activation),
			NonTorchGB: gb(m.nonTorch), GraphCaptureGB: gb(m.graphs), RequestedMemoryGB: gb(f.requested), TotalGPUMemoryGB: gb(f.gpu.TotalBytes), FreeMemoryGB: gb(free),
		}
		if f.estimate {
			row.GraphEstimateGB = gb(m.graphEst)
		}
		a.Ranks = append(a.Ranks, row)
		if w.r.kvBytes == nil {
			a.Budget = append(a.Budget, runner.RankBudget{
				Rank: rank, Requested: gb(f.requested), Consumed: gb(m.weights + m.nonTorch), Headroom: gb(m.activation),
				GraphEstimate: gb(m.graphEst), AvailableKV: gb(m.available), Difference: &zero, Closes: &closes,
			})
		}
	}
	return a
}

// accountEngine are the figures of the whole engine: KV the least of the ranks,
// everything else the most.
func (w *writer) accountEngine(a *runner.Account) {
	f := w.s.figures
	name, platform, backend, cache := "V1", "cuda", "FLASH_ATTN", "cold"
	if f.v0 {
		name = "V0"
	}
	if f.gpu.Vendor == "amd" {
		platform = "rocm"
	}
	if w.r.eager {
		cache = "off"
	}
	graphs, dtype, top := !w.r.eager, f.dtype(w.r), rankMemory{available: f.memory[0].available}
	for i := range f.memory {
		m := &f.memory[i]
		top.weights, top.activation, top.nonTorch, top.graphs = max(top.weights, m.weights), max(top.activation, m.activation), max(top.nonTorch, m.nonTorch), max(top.graphs, m.graphs)
		top.available, top.graphEst, top.context = min(top.available, m.available), max(top.graphEst, m.graphEst), max(top.context, m.context)
	}
	a.Engine, a.Platform, a.AttentionBackend, a.CompileCache = &name, &platform, &backend, &cache
	if f.runner != "" {
		a.ModelRunner = &f.runner
	}
	a.BlockSize, a.MaxModelLen, a.MaxNumBatchedTokens, a.MaxNumSeqs = &f.blockSize, &f.maxLen, &f.maxTokens, &f.maxSeqs
	a.ModelWeightsGB, a.ActivationsGB, a.NonTorchGB = gb(top.weights), gb(top.activation), gb(top.nonTorch)
	a.GraphCaptureGB, a.AvailableKVCacheGB = gb(top.graphs), gb(top.available)
	a.RequestedMemoryGB, a.TotalGPUMemoryGB, a.FreeMemoryGB = gb(f.requested), gb(f.gpu.TotalBytes), gb(f.gpu.TotalBytes-top.context)
	a.GPUMemoryUtilization, a.Dtype, a.KVCacheDtype, a.LoadFormat = &f.util, &dtype, &w.r.kvDtype, &w.r.loadFormat
	a.TensorParallelSize, a.PipelineParallelSize, a.Architecture, a.CUDAGraphsEnabled = &w.r.tp, &w.r.pp, &f.arch.Architecture, &graphs
	a.LoadSeconds, a.CompileSeconds = &f.times.load, &f.times.compile
	if f.estimate {
		a.GraphEstimateGB = gb(top.graphEst)
	}
	if w.r.quantization != "" {
		a.Quantization = &w.r.quantization
	}
	if w.s.fail == nil || w.s.fail.running {
		init := f.times.load + f.times.compile + f.times.profile + f.times.kv + f.times.capture + f.times.warmup
		total := top.weights + top.activation + top.nonTorch + top.graphs + f.memory[0].kv
		a.NumGPUBlocks, a.TotalGPUKVCacheTokens, a.TotalGPUKVCacheGB = &f.blocks, &f.kvTokens, gb(f.memory[0].kv)
		a.MaxConcurrency, a.InitEngineSeconds, a.TotalAllocatedGB = &f.concurrency, &init, gb(total)
	}
}

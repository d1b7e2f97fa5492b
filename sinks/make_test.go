package sinks

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
)

// The tests make their results themselves: a small model of a run whose
// figures add up as real ones do. All of it says synthetic.

func ptr[V any](v V) *V { return &v }

var testStart = time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC)

type testRun struct {
	execution string
	started   time.Time
	sweep     string
	model     string
	inputLen  int64
	batch     int64
	repeat    int
	gpus      int
	axes      map[string]any
	outcome   runner.Outcome
	seconds   int
	drift     int // per cent more latency, and 2 MiB each
}

func (r *testRun) profile() *sweep.Profile {
	p := &sweep.Profile{ID: fmt.Sprintf("%08x%08x", r.inputLen, r.batch), Sweep: r.sweep,
		Settings: sweep.Settings{Model: r.model, HFModelID: r.model, Asked: sweep.Asked{Dtype: ptr("bfloat16"),
			TensorParallelSize: int64(r.gpus), PipelineParallelSize: 1,
			InputLen: r.inputLen, OutputLen: 128, BatchSize: r.batch, GPUMemoryUtilization: ptr(0.9)}},
		Engine: sweep.Engine{Kind: "simulator", Mode: "latency"}}
	p.Axes = []sweep.AxisValue{{Axis: "input_len", Value: r.inputLen}, {Axis: "batch_size", Value: r.batch}}
	for name, v := range r.axes {
		p.Axes = append(p.Axes, sweep.AxisValue{Axis: name, Value: v, Free: true})
	}
	return p
}

func (r *testRun) job(attempt int) *runner.Job {
	p := r.profile()
	job := &runner.Job{Execution: r.execution, Profile: p, Sweep: &sweep.Sweep{Name: r.sweep}, Repeat: r.repeat, Attempt: attempt,
		Synthetic: true, StartedAt: r.started, Progress: func(runner.Progress) {}}
	job.RunID = fmt.Sprintf("%s-%s-%s-r%d", r.execution, r.sweep, p.ID, r.repeat)
	for i := range r.gpus {
		job.Devices = append(job.Devices, r.device(i))
	}
	return job
}

func (r *testRun) device(i int) runner.Device {
	return runner.Device{Index: i, Vendor: "simulated", Name: "Simulated H100", UUID: fmt.Sprintf("SIM-%d", i), DriverVersion: "580.1",
		TotalBytes: ptr(int64(80) << 30), ReservedBytes: ptr(int64(500) << 20), Source: "simulated"}
}

const mib = 1 << 20

// samples are 10 a second and GPU, and one of the host a second.
func (r *testRun) samples() []runner.Sample {
	rng := rand.New(rand.NewPCG(uint64(r.inputLen), uint64(r.batch)))
	var all []runner.Sample
	for tick := range r.seconds * 10 {
		offset := time.Duration(tick)*100*time.Millisecond + time.Duration(rng.IntN(1000))*time.Microsecond
		for gpu := range r.gpus {
			s := runner.Sample{TS: r.started.Add(offset), Offset: offset, Read: time.Duration(50+rng.IntN(50)) * time.Microsecond,
				GPU: int32(gpu), Source: "simulated", Gap: tick == 7,
				MemoryUsed: r.used(tick), MemoryReserved: 500 * mib, MemoryTotal: 80 << 30, Power: float64(70000+rng.IntN(500000)) / 1000,
				Temperature: float64(40 + rng.IntN(20)), Utilization: int32(rng.IntN(101)), ClockSM: 1980, ClockMem: 2619, Energy: float64(tick) * 12.345}
			s.Has = runner.HasMemoryUsed | runner.HasMemoryReserved | runner.HasMemoryTotal | runner.HasPower | runner.HasTemperature |
				runner.HasUtilization | runner.HasClockSM | runner.HasClockMem | runner.HasEnergy | runner.HasThrottleReasons
			if tick%50 == 49 {
				s.Has &^= runner.HasPower // missing, which is not 0
				s.Power = 0
			}
			all = append(all, s)
		}
		if tick%10 == 0 {
			all = append(all, runner.Sample{TS: r.started.Add(offset), Offset: offset, GPU: runner.HostGPU, Source: "proc",
				Has: runner.HasHostRSS | runner.HasHostCPU, HostRSS: 3<<30 + int64(rng.IntN(1<<20)), HostCPU: 100 * rng.Float64()})
		}
	}
	return all
}

func (r *testRun) used(tick int) int64 {
	full := r.weights() + r.kv() + r.activations() + 900*mib
	return min(full, int64(tick)*full/int64(max(1, r.seconds*5)))/(2*mib)*(2*mib) + 600*mib
}

func (r *testRun) weights() int64     { return 16 << 30 / int64(r.gpus) }
func (r *testRun) kv() int64          { return 40 << 30 }
func (r *testRun) activations() int64 { return r.inputLen * r.batch * 8192 }

func gib(bytes int64) *float64 { return ptr(float64(bytes) / runner.GiB) }

func (r *testRun) result() *runner.Result {
	p := r.profile()
	job := r.job(1)
	end := r.started.Add(time.Duration(r.seconds) * time.Second)
	res := &runner.Result{SchemaVersion: runner.SchemaVersion, ProfilerVersion: "test", Timestamp: end}
	axes := map[string]any{}
	for _, a := range p.Axes {
		axes[a.Axis] = a.Value
	}
	outcome := r.outcome
	if outcome == "" {
		outcome = runner.OutcomeOK
	}
	res.Run = runner.RunInfo{RunID: job.RunID, ProfileID: p.ID, Execution: r.execution, Sweep: r.sweep, Repeat: r.repeat, Attempts: 1,
		StartedAt: r.started, EndedAt: end, WallS: float64(r.seconds), OverheadS: 0.02, Outcome: outcome, Synthetic: true,
		Command: []string{"vllm", "bench", "latency"}, Axes: axes}
	res.ModelInfo = runner.ModelInfo{Model: r.model, HFModelID: r.model, Family: "llama", Architecture: ptr("LlamaForCausalLM"), Params: ptr(int64(8e9)),
		NumLayers: ptr(int64(32)), NumHeads: ptr(int64(32)), NumKVHeads: ptr(int64(8)), HeadDim: ptr(int64(128)), HiddenSize: ptr(int64(4096)), Source: "catalogue"}
	st := p.Settings
	res.BenchmarkParameters = runner.BenchmarkParameters{Engine: "simulator", EngineMode: "latency", Asked: st.Asked,
		Effective: runner.Effective{EffectiveDtype: ptr("bfloat16"), EffectiveMaxModelLen: ptr(int64(8192)), EffectiveGPUMemoryUtilization: ptr(0.9)}}
	res.DtypeMetadata = runner.DtypeMetadata{Dtype: ptr("bfloat16"), WeightBytesPerParam: ptr(2.0), KVBytesPerToken: ptr(int64(131072))}
	res.GPUInfo = job.Devices
	res.EngineMetadata = runner.EngineMetadata{Engine: "simulator", VLLMVersion: ptr("0.26.0"), ModelRunner: ptr("v1"), AttentionBackend: ptr("FLASH_ATTN"), CompileCache: ptr("warm")}
	res.Provenance = runner.Provenance{Host: "lab-1", DriverVersion: ptr("580.1"), Vramsweep: "test"}
	r.phases(res)
	if outcome == runner.OutcomeOK {
		r.measured(res)
	} else {
		res.Run.OutcomeDetail, res.Run.ErrorLine = "CUDA out of memory", "torch.OutOfMemoryError: CUDA out of memory."
	}
	return res
}

func (r *testRun) phases(res *runner.Result) {
	names := []runner.Phase{runner.PhaseBaseline, runner.PhaseEngineInit, runner.PhaseLoad, runner.PhaseProfile, runner.PhaseKVAlloc, runner.PhaseMeasure}
	each := time.Duration(r.seconds) * time.Second / time.Duration(len(names))
	for gpu := range r.gpus {
		for i, name := range names {
			from := r.started.Add(time.Duration(i) * each)
			to := from.Add(each)
			res.Phases = append(res.Phases, runner.PhaseRow{GPUIndex: ptr(int32(gpu)), Phase: name, StartedAt: &from, EndedAt: &to, DurationS: ptr(each.Seconds()),
				UncertaintyS: ptr(0.1), MinBytes: ptr(int64(600 * mib)), MaxBytes: ptr(r.used(r.seconds * 10)), EnergyJ: ptr(100.5), MeanPowerW: ptr(333.25)})
		}
		res.Steps = append(res.Steps, runner.StepRow{GPUIndex: int32(gpu), Step: "load", Bytes: ptr(r.weights()), VLLMBytes: ptr(r.weights() - 3*mib), DifferenceBytes: ptr(int64(3 * mib))},
			runner.StepRow{GPUIndex: int32(gpu), Step: "kv_alloc", Bytes: ptr(r.kv()), VLLMBytes: ptr(r.kv()), DifferenceBytes: ptr(int64(0))})
	}
}

func (r *testRun) measured(res *runner.Result) {
	n := int64(r.gpus)
	parts := map[string]int64{"weights": r.weights(), "kv_cache": r.kv(), "activations": r.activations(), "cuda_graphs": 500 * mib,
		"non_torch": 100 * mib, "context": 300 * mib, "buffers": 20 * mib, "growth_excess": 0, "framework_overhead": int64(2*r.drift-20) * mib}
	net := int64(0)
	for _, b := range parts {
		net += b
	}
	for rank := range r.gpus {
		for _, c := range []string{"weights", "kv_cache", "activations", "cuda_graphs", "non_torch", "context", "buffers", "growth_excess", "framework_overhead"} {
			res.Breakdowns = append(res.Breakdowns, runner.BreakdownRow{Rank: int32(rank), Component: c, Bytes: parts[c], Share: ptr(float64(parts[c]) / float64(net)),
				Source: "simulated", Confidence: runner.HighFromVLLMLogs})
		}
		res.Ranks = append(res.Ranks, runner.RankRow{Rank: int32(rank), GPUIndex: ptr(int32(rank)), GPUUUID: ptr(fmt.Sprintf("SIM-%d", rank)),
			ModelWeightsBytes: ptr(parts["weights"]), KVCacheBytes: ptr(parts["kv_cache"]), RequestedBytes: ptr(int64(72) << 30)})
		res.BeyondBudget = append(res.BeyondBudget, runner.BeyondBudget{GPUIndex: rank, RequestedBytes: ptr(int64(72) << 30),
			HighestBytes: ptr(net + 600*mib), GrossBytes: ptr(net + 600*mib - 72<<30), NetBytes: ptr(net - 300*mib - 72<<30)})
	}
	res.MemoryBreakdown = &runner.Breakdown{TotalMeasuredGB: gib(n * (net + 600*mib)), BaselineGB: gib(n * 600 * mib), NetIncreaseGB: gib(n * net),
		ModelWeightsGB: gib(n * parts["weights"]), KVCacheGB: gib(n * parts["kv_cache"]), ActivationsGB: gib(n * parts["activations"]), GraphCaptureGB: gib(n * parts["cuda_graphs"]),
		NonTorchGB: gib(n * parts["non_torch"]), ContextGB: gib(n * parts["context"]), BuffersGB: gib(n * parts["buffers"]), GrowthExcessGB: gib(0),
		FrameworkOverheadGB: gib(n * parts["framework_overhead"]), KVCacheUsedGB: gib(r.inputLen * r.batch * 131072), KVUsedSource: "calculated",
		ActivationsReservedGB: gib(n * 2 * parts["activations"]), HeadroomUnusedGB: gib(n * parts["activations"]), EstimationMethod: "simulated"}
	lat := (0.001*float64(r.inputLen) + 0.05*float64(r.batch)) * (1 + float64(r.drift)/100)
	res.LatencyStats = &runner.LatencyStats{AvgS: lat, NIters: 10, Percentiles: map[string]float64{"p50": lat, "p90": lat * 1.1, "p99": lat * 1.2}, OutputTokensPerS: ptr(float64(r.batch*128) / lat)}
	for i := range 10 {
		res.LatencyStats.LatenciesS = append(res.LatencyStats.LatenciesS, lat*(1+0.01*float64(i-5)))
	}
	res.VLLMInternalMetrics = &runner.Account{TotalGPUKVCacheTokens: ptr(int64(327680)), MaxConcurrency: ptr(40.0), ModelWeightsGB: gib(parts["weights"])}
	power := 300 + float64(r.batch)*2
	res.MemoryTimeline = &runner.MemoryTimeline{Extended: runner.TimelineExtended{Power: runner.PowerStats{MeanW: ptr(power * float64(n))}, EnergyJ: ptr(power * float64(n) * 5)}}
}

// night makes the runs of one execution: two models, two lengths, two batches.
func night(n int) []*testRun {
	start := testStart.AddDate(0, 0, n)
	execution := start.Format("20060102T150405Z") + fmt.Sprintf("-%06x", n)
	var runs []*testRun
	for _, model := range []string{"meta-llama/Llama-3.1-8B", "Qwen/Qwen3-8B"} {
		for _, in := range []int64{512, 2048} {
			for _, batch := range []int64{1, 8} {
				runs = append(runs, &testRun{execution: execution, started: start.Add(time.Duration(len(runs)) * time.Minute),
					sweep: "nightly", model: model, inputLen: in, batch: batch, repeat: 1 + len(runs)/4, gpus: 1, seconds: 6})
			}
		}
	}
	return runs
}

// write puts runs through a store as the runner does; the execution stays open.
func write(t testing.TB, s *Store, runs []*testRun) {
	t.Helper()
	if len(runs) == 0 {
		return
	}
	if err := s.BeginExecution(&Execution{ID: runs[0].execution, StartedAt: runs[0].started, Runs: len(runs), Synthetic: true}); err != nil {
		t.Fatal(err)
	}
	for _, r := range runs {
		writeRun(t, s, r, 1)
	}
}

func writeRun(t testing.TB, s *Store, r *testRun, attempt int) {
	t.Helper()
	sink, err := s.Begin(r.job(attempt))
	if err != nil {
		t.Fatal(err)
	}
	samples := r.samples()
	for len(samples) > 0 {
		n := min(len(samples), 64)
		if err := sink.Samples(samples[:n]); err != nil {
			t.Fatal(err)
		}
		samples = samples[n:]
	}
	if err := sink.Finish(r.result()); err != nil {
		t.Fatal(err)
	}
}

func finish(t testing.TB, s *Store, execution string) {
	t.Helper()
	if err := s.FinishExecution(execution, StateComplete, map[string]int{"ok": 8}); err != nil {
		t.Fatal(err)
	}
}

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Version: "test", Host: "lab-1", What: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() }) //nolint:errcheck // closed twice in some tests
	return s
}

func collect[T Row](t testing.TB, where Predicate, paths ...string) []T {
	t.Helper()
	var rows []T
	for row, err := range Read[T](where, paths...) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	return rows
}

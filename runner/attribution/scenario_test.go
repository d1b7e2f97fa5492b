package attribution_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/sweep"
)

const second = time.Second

// held are samples in memory, one tick a batch.
type held [][]runner.Sample

func (h held) ReadSamples(yield func([]runner.Sample) error) error {
	for _, tick := range h {
		if err := yield(tick); err != nil {
			return err
		}
	}
	return nil
}

// A mark is the memory, in GiB, that a GPU holds from a moment on.
type mark struct {
	at  float64
	gib float64
}

// A scene is a made-up live run: what memory did when, and what the log said.
type scene struct {
	gpus     int
	rate     float64 // samples a second
	length   float64
	memory   []mark
	baseline float64 // held by others
	events   map[runner.EventKind]float64
	account  runner.Account
	outcome  runner.Outcome
	latency  []float64
	power    bool // with a counter
	instant  bool
}

// run is a run of llama-3.1-8b at TP 1 as measured, shortened: imports of 10 s,
// and a give-back that a sample at 20 Hz sees.
func run() *scene {
	return &scene{
		gpus: 1, rate: 20, length: 60,
		memory: []mark{
			{0, 0}, {10.2, 0.52}, {10.4, 0.675}, {11.5, 8}, {12.2, 15.68}, {12.8, 16.22}, {20, 17.6}, {23.1, 18.56}, {26.9, 16.32},
			{27.2, 72.19}, {28.1, 72.4}, {31, 73.18}, {35, 73.97}, {45.3, 74.22}, {55, 0},
		},
		events: map[runner.EventKind]float64{
			runner.EventLoadStart: 10.9, runner.EventLoadEnd: 12.4, runner.EventProfileStart: 19, runner.EventProfileEnd: 27, runner.EventKVReady: 27.1,
			runner.EventCaptureStart: 28, runner.EventCaptureEnd: 33, runner.EventEngineReady: 45, runner.EventWarmupStart: 45.1, runner.EventMeasureStart: 47, runner.EventMeasureEnd: 52,
		},
		account: account(), outcome: runner.OutcomeOK, latency: []float64{1, 1, 1, 1, 1}, power: true,
	}
}

func account() runner.Account {
	v := func(f float64) *float64 { return &f }
	n := func(i int64) *int64 { return &i }
	s := func(t string) *string { return &t }
	return runner.Account{
		VLLMVersion: s("0.26.0"), Engine: s("V1"), ModelRunner: s("v2"), TotalGPUKVCacheTokens: n(457504), AvailableKVCacheGB: v(55.85), MaxNumSeqs: n(1024), MaxModelLen: n(8192),
		MaxNumBatchedTokens: n(16384), GPUMemoryUtilization: v(0.92),
		Ranks: []runner.AccountRank{{
			ModelWeightsGB: v(15), AvailableKVCacheGB: v(55.85), ActivationsGB: v(1.77), NonTorchGB: v(0.22), GraphCaptureGB: v(0.98),
			RequestedMemoryGB: v(72.84), TotalGPUMemoryGB: v(79.18), FreeMemoryGB: v(78.66),
		}},
	}
}

func (s *scene) samples(start time.Time) held {
	var h held
	ticks := int(s.length * s.rate)
	for i := range ticks {
		at := time.Duration(float64(i) / s.rate * 1e9)
		level := s.baseline
		for _, m := range s.memory {
			if at.Seconds() >= m.at {
				level = s.baseline + m.gib
			}
		}
		var tick []runner.Sample
		for g := range s.gpus {
			smp := runner.Sample{TS: start.Add(at), Offset: at, GPU: int32(g), MemoryUsed: int64(level * gib), Has: runner.HasMemoryUsed | runner.HasUtilization | runner.HasTemperature, Temperature: 40}
			if s.power {
				smp.Energy, smp.Has = 200*at.Seconds(), smp.Has|runner.HasEnergy
			}
			smp.Power, smp.Has = 200, smp.Has|runner.HasPower
			tick = append(tick, smp)
		}
		h = append(h, tick)
	}
	return h
}

func (s *scene) measured() (*runner.Result, *runner.Measured) {
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	job := &runner.Job{StartedAt: start, Execution: "e", Profile: &sweep.Profile{}}
	for g := range s.gpus {
		job.Devices = append(job.Devices, runner.Device{Index: g, Name: "NVIDIA H100 80GB HBM3"})
	}
	m := &runner.Measurement{StartedAt: start.Add(100 * time.Millisecond), EndedAt: start.Add(time.Duration((s.length - 1) * 1e9)), Account: &s.account, Outcome: s.outcome}
	if s.latency != nil {
		m.Latency = &runner.LatencyStats{LatenciesS: s.latency}
	}
	for k, at := range s.events {
		m.Events = append(m.Events, runner.LogEvent{Kind: k, Rank: -1, Arrived: start.Add(time.Duration(at * 1e9))})
	}
	kind := "averaged_1s"
	if s.instant {
		kind = "instant"
	}
	vocab, layers := int64(128256), int64(32)
	r := &runner.Result{VLLMInternalMetrics: m.Account, ModelInfo: runner.ModelInfo{VocabSize: &vocab, NumLayers: &layers}}
	r.BenchmarkParameters.BatchSize, r.BenchmarkParameters.InputLen, r.BenchmarkParameters.OutputLen, r.BenchmarkParameters.TensorParallelSize = 8, 512, 32, int64(s.gpus)
	return r, &runner.Measured{Job: job, Measurement: m, Samples: s.samples(start), Reports: []*runner.SamplerReport{{Name: "nvml", Ticks: 1, PowerKind: kind}}}
}

func (s *scene) attribute() *runner.Result {
	r, m := s.measured()
	(&attribution.Attributor{}).Attribute(r, m)
	return r
}

func step(t *testing.T, r *runner.Result, gpu int32, name string) runner.StepRow {
	t.Helper()
	for _, s := range r.Steps {
		if s.GPUIndex == gpu && s.Step == name {
			return s
		}
	}
	t.Fatalf("GPU %d has no step %s", gpu, name)
	return runner.StepRow{}
}

func wantStep(t *testing.T, r *runner.Result, name string, want float64) {
	t.Helper()
	s := step(t, r, 0, name)
	if s.Bytes == nil || math.Abs(float64(*s.Bytes)/gib-want) > 0.01 {
		t.Errorf("%s is %s GiB (%s), expected %.2f", name, size(s.Bytes), s.Reason, want)
	}
}

// TestLiveRun: lines that arrived; at 20 Hz the samples show what torch gives
// back, and the KV step starts there.
func TestLiveRun(t *testing.T) {
	r := run().attribute()
	for name, want := range map[string]float64{
		"context": 0.675, "load": 15.005, "buffers": 0.54, "profile_peak": 2.34, "kv_alloc": 55.87, "capture": 0.99, "engine_warmup": 0.79, "bench_warmup": 0.25, "measure": 0, "left_after": 0,
	} {
		wantStep(t, r, name, want)
	}
	bounds := map[runner.Phase]float64{"load": 10.9, "profile": 12.4, "kv_alloc": 27.1, "capture": 28, "engine_warmup": 33, "bench_warmup": 45.1, "measure": 47, "teardown": 52, "final": 59}
	for _, p := range r.Phases {
		want, ok := bounds[p.Phase]
		if !ok {
			continue
		}
		if got := p.StartedAt.Sub(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)).Seconds(); math.Abs(got-want) > 0.001 || *p.UncertaintyS > 0.03 {
			t.Errorf("%s starts at %.3f s (+- %.3f), the line arrived at %.3f", p.Phase, got, *p.UncertaintyS, want)
		}
		if p.EnergyJ == nil || math.Abs(*p.MeanPowerW-200) > 0.5 {
			t.Errorf("%s: energy %v, power %v, expected 200 W from the counter", p.Phase, p.EnergyJ, p.MeanPowerW)
		}
	}
	w := r.MemoryTimeline.Window
	if w.What != "engine ready to end of measuring" || math.Abs(w.To.Sub(*w.From).Seconds()-6.9) > 0.01 {
		t.Errorf("window %s, %v to %v", w.What, w.From, w.To)
	}
	if e := r.MemoryTimeline.Extended; e.EnergyJ == nil || math.Abs(*e.EnergyJ-6.9*200) > 1 || e.EnergyFrom != "counter" {
		t.Errorf("energy of the window %v from %q", e.EnergyJ, e.EnergyFrom)
	}
}

// TestOthersOnTheGPU: what others hold is in no part, and not beyond the budget.
func TestOthersOnTheGPU(t *testing.T) {
	s := run()
	s.baseline = 2
	free := 76.66
	s.account.Ranks[0].FreeMemoryGB = &free
	a, b := run().attribute(), s.attribute()
	for i, p := range a.Breakdowns {
		if q := b.Breakdowns[i]; math.Abs(float64(p.Bytes-q.Bytes)) > 4 {
			t.Errorf("%s is %d bytes, with 2 GiB of others %d", p.Component, p.Bytes, q.Bytes)
		}
	}
	if x, y := a.BeyondBudget[0], b.BeyondBudget[0]; math.Abs(float64(*x.NetBytes-*y.NetBytes)) > 4 || math.Abs(float64(*y.GrossBytes-*x.GrossBytes)-2*gib) > 4 {
		t.Errorf("gross %d and %d, net %d and %d: only gross holds others", *x.GrossBytes, *y.GrossBytes, *x.NetBytes, *y.NetBytes)
	}
}

// TestEnergyIsNeverFromAnAverage: without a counter the integral of an
// instantaneous power serves, that of an averaged one does not.
func TestEnergyIsNeverFromAnAverage(t *testing.T) {
	s := run()
	s.power = false
	r := s.attribute()
	for _, p := range r.Phases {
		if p.EnergyJ != nil {
			t.Errorf("%s has energy %v from an averaged power", p.Phase, *p.EnergyJ)
		}
	}
	if r.MemoryTimeline.Extended.EnergyJ != nil || r.Missing["memory_timeline.extended.energy_j"] == "" {
		t.Errorf("energy %v, reason %q", r.MemoryTimeline.Extended.EnergyJ, r.Missing["memory_timeline.extended.energy_j"])
	}
	s.instant = true
	r = s.attribute()
	if e := r.MemoryTimeline.Extended; e.EnergyJ == nil || math.Abs(*e.EnergyJ-6.9*200) > 1 || e.EnergyFrom != "power" {
		t.Errorf("energy %v from %q", e.EnergyJ, e.EnergyFrom)
	}
}

// TestSizeGiven: with --kv-cache-memory-bytes there is no budget, and the run
// still proves a size safe.
func TestSizeGiven(t *testing.T) {
	s := run()
	s.account.Ranks[0].RequestedMemoryGB = nil
	r, m := s.measured()
	given := int64(56) << 30
	r.BenchmarkParameters.KVCacheMemoryBytes = &given
	(&attribution.Attributor{}).Attribute(r, m)
	b := r.BeyondBudget[0]
	if b.GrossBytes != nil || b.NetBytes != nil || r.Missing["beyond_budget[0].requested_bytes"] == "" {
		t.Errorf("gross %v, net %v, reason %q: there is no budget", b.GrossBytes, b.NetBytes, r.Missing["beyond_budget[0].requested_bytes"])
	}
	if b.SafeUtilization != nil || b.SafeKVCacheMemoryBytes == nil || math.Abs(float64(*b.SafeKVCacheMemoryBytes)/gib-(55.85+79.18-74.22-0.25)) > 0.01 {
		t.Errorf("safe share %v, safe size %s", b.SafeUtilization, size(b.SafeKVCacheMemoryBytes))
	}
	if g := r.MemoryBreakdown.GrowthExcessGB; g == nil || *g != 0 {
		t.Errorf("growth_excess_gb %v, expected 0 from the parts", g)
	}
}

// TestSafeIsOnlyProvedBySuccess: a run that failed proves nothing safe.
func TestSafeIsOnlyProvedBySuccess(t *testing.T) {
	s := run()
	s.outcome = runner.OutcomeOOM
	if b := s.attribute().BeyondBudget[0]; b.SafeUtilization != nil || b.SafeKVCacheMemoryBytes != nil || b.KVTokensGained != nil || strings.Contains(b.Sentence, "safe") {
		t.Errorf("a run out of memory proves %+v safe", b)
	}
}

// TestSlowSamples: samples further apart than the run's phases give no steps,
// rather than wrong ones, and the parts still add up.
func TestSlowSamples(t *testing.T) {
	s := run()
	s.rate = 0.15
	r := s.attribute()
	for _, st := range r.Steps {
		for name, want := range map[string]float64{"context": 0.675, "load": 15.005, "buffers": 0.54, "kv_alloc": 55.87, "capture": 0.99} {
			if st.Step == name && st.Bytes != nil && math.Abs(float64(*st.Bytes)/gib-want) > 0.2 {
				t.Errorf("%s is %.2f GiB at one sample in %.0f s, the truth is %.2f", name, float64(*st.Bytes)/gib, 1/s.rate, want)
			}
		}
		if st.Bytes == nil && st.Reason == "" {
			t.Errorf("%s is missing without a reason", st.Step)
		}
	}
	addUp(t, r)
}

// TestNoAccount: without a log, and without samples, each figure is null with
// a reason.
func TestNoAccount(t *testing.T) {
	s := run()
	r, m := s.measured()
	m.Measurement.Account, r.VLLMInternalMetrics = nil, nil
	(&attribution.Attributor{}).Attribute(r, m)
	addUp(t, r)
	for _, f := range []string{"model_weights_gb", "kv_cache_gb", "buffers_gb", "activations_gb"} {
		if r.Missing["memory_breakdown."+f] == "" {
			t.Errorf("%s is missing without a reason", f)
		}
	}
	if r.MemoryBreakdown.VLLMReportedValuesUsed {
		t.Error("figures of a log that is not there were used")
	}

	r, m = run().measured()
	m.Samples = nil
	(&attribution.Attributor{}).Attribute(r, m)
	if r.MemoryBreakdown != nil || r.MemoryTimeline != nil || r.Missing["memory_timeline"] == "" || len(r.Ranks) != 1 {
		t.Errorf("without samples: breakdown %v, timeline %v (%q), %d ranks", r.MemoryBreakdown, r.MemoryTimeline, r.Missing["memory_timeline"], len(r.Ranks))
	}
	(&attribution.Attributor{}).Attribute(nil, nil)
	(&attribution.Attributor{}).Attribute(&runner.Result{}, &runner.Measured{Job: &runner.Job{}})
}

var errPage = errors.New("page CRC differs")

type failing struct{ held }

func (f failing) ReadSamples(yield func([]runner.Sample) error) error {
	_ = f.held.ReadSamples(yield) // the error comes after them
	return errPage
}

// TestBrokenSamples: what was read before the error is used, and the error said.
func TestBrokenSamples(t *testing.T) {
	r, m := run().measured()
	h, ok := m.Samples.(held)
	if !ok {
		t.Fatal("samples of another kind")
	}
	m.Samples = failing{h}
	(&attribution.Attributor{}).Attribute(r, m)
	if !strings.Contains(r.Missing["memory_timeline"], errPage.Error()) || r.MemoryBreakdown == nil {
		t.Errorf("reason %q, breakdown %v", r.Missing["memory_timeline"], r.MemoryBreakdown)
	}
	wantStep(t, r, "kv_alloc", 55.87)
}

// TestHost: a machine without a GPU counts the process tree.
func TestHost(t *testing.T) {
	r, m := run().measured()
	m.Job.Devices = nil
	var h held
	for i := range 600 {
		h = append(h, []runner.Sample{{
			Offset: time.Duration(i) * 100 * time.Millisecond, GPU: runner.HostGPU, HostRSS: int64(i) << 24, HostPSS: int64(i) << 23, Has: runner.HasHostRSS | runner.HasHostPSS,
		}})
	}
	m.Samples = h
	(&attribution.Attributor{}).Attribute(r, m)
	if r.MemoryBreakdown == nil || *r.MemoryBreakdown.TotalMeasuredGB != float64(int64(599)<<23)/gib {
		t.Fatalf("breakdown %+v, expected the proportional memory", r.MemoryBreakdown)
	}
	if len(r.Steps) != 0 || len(r.BeyondBudget) != 0 || len(r.Ranks) != 1 || r.Ranks[0].GPUIndex != nil || r.Ranks[0].ContextBytes != nil {
		t.Errorf("%d steps, %d budgets, ranks %+v: a host has no GPU", len(r.Steps), len(r.BeyondBudget), r.Ranks)
	}
	for _, p := range r.Phases {
		if p.GPUIndex != nil {
			t.Errorf("phase %s is of GPU %d", p.Phase, *p.GPUIndex)
		}
	}
	addUp(t, r)
}

// TestOtherGPUsDoNotCount: a GPU that is not the job's is in no figure.
func TestOtherGPUsDoNotCount(t *testing.T) {
	s := run()
	s.gpus = 2
	r, m := s.measured()
	m.Job.Devices = m.Job.Devices[:1]
	(&attribution.Attributor{}).Attribute(r, m)
	if got := *r.MemoryBreakdown.TotalMeasuredGB; math.Abs(got-74.22) > 0.001 {
		t.Errorf("total %.2f GiB, expected that of one GPU", got)
	}
	for _, p := range r.Phases {
		if *p.GPUIndex != 0 {
			t.Errorf("phase %s of GPU %d", p.Phase, *p.GPUIndex)
		}
	}
}

// TestSumsNeedEveryGPU: a tick that lacks a GPU is in no sum.
func TestSumsNeedEveryGPU(t *testing.T) {
	s := run()
	s.gpus = 2
	r, m := s.measured()
	h, ok := m.Samples.(held)
	if !ok {
		t.Fatal("samples of another kind")
	}
	for i := range h {
		if i%3 == 0 {
			h[i] = h[i][:1]
		}
	}
	(&attribution.Attributor{}).Attribute(r, m)
	if got, want := r.MemoryTimeline.WholeRun.NumSamples, int64(len(h)*2/3); got != want {
		t.Errorf("%d ticks count, expected %d", got, want)
	}
	if got := *r.MemoryTimeline.WholeRun.MaxGB; math.Abs(got-2*74.22) > 0.001 {
		t.Errorf("highest sum %.2f GiB, expected %.2f", got, 2*74.22)
	}
}

// TestSharedEngine: later runs of an engine stand on the levels of its first.
func TestSharedEngine(t *testing.T) {
	var at attribution.Attributor
	first, m := run().measured()
	m.Measurement.Session = &runner.Session{EngineShared: true, Position: 0, GroupSize: 2}
	m.Job.KeepEngine = true
	at.Attribute(first, m)

	later := run()
	later.memory = []mark{{0, 74.22}, {5, 74.72}}
	later.events = map[runner.EventKind]float64{runner.EventRequestStart: 1, runner.EventWarmupStart: 1, runner.EventMeasureStart: 10, runner.EventMeasureEnd: 20}
	second, m2 := later.measured()
	m2.Measurement.Session = &runner.Session{EngineShared: true, Position: 1, GroupSize: 2}
	at.Attribute(second, m2)
	addUp(t, second)
	if b := second.MemoryBreakdown; b == nil || *b.BaselineGB != 0 || math.Abs(*b.ActivationsGB+*b.GrowthExcessGB+*b.FrameworkOverheadGB+*b.BuffersGB-(74.72-72.57)) > 0.01 {
		t.Errorf("breakdown of the second run %+v", b)
	}
	for _, s := range second.Steps {
		if s.Step == "load" || s.Step == "kv_alloc" {
			t.Errorf("the second run has a step %s of the first", s.Step)
		}
	}
	wantStep(t, second, "bench_warmup", 0.5)

	alone, m3 := later.measured()
	m3.Measurement.Session = &runner.Session{EngineShared: true, Position: 1, GroupSize: 2}
	(&attribution.Attributor{}).Attribute(alone, m3)
	if alone.MemoryBreakdown != nil || alone.Missing["memory_breakdown"] == "" {
		t.Errorf("without the first run: breakdown %+v, reason %q", alone.MemoryBreakdown, alone.Missing["memory_breakdown"])
	}
}

// TestSessionGrowth: what a profile took on a shared engine counts from the last
// sample before it, else from what the rank saw itself; the first sample after its
// beginning can hold its first request already, and is no beginning.
func TestSessionGrowth(t *testing.T) {
	level := func(v float64) *int64 { n := int64(v * gib); return &n }
	told := runner.TorchReading{Rank: 0, Moment: "profile_start", TotalBytes: level(79.18), FreeBytes: level(79.18 - 74.03)}
	for _, x := range []struct {
		name          string
		begins        float64 // of the warm-up; the memory rises 10 ms after it, between two samples
		torch         []runner.TorchReading
		start, growth float64
		missing       bool
	}{
		{"a sample before", 1.02, nil, 74.03, 0.25, false},
		{"a sample before and the rank's word", 1.02, []runner.TorchReading{told}, 74.03, 0.25, false},
		{"the rank's word alone", 0.02, []runner.TorchReading{{Rank: 1, Moment: "profile_start"}, told}, 74.03, 0.25, false},
		{"neither", 0.02, nil, 0, 0, true},
	} {
		s := run()
		s.memory = []mark{{0, 74.03}, {x.begins + 0.01, 74.28}}
		s.events = map[runner.EventKind]float64{runner.EventRequestStart: x.begins, runner.EventWarmupStart: x.begins, runner.EventMeasureStart: 10, runner.EventMeasureEnd: 20}
		r, m := s.measured()
		m.Measurement.Session = &runner.Session{EngineShared: true, Position: 1, GroupSize: 2, Torch: x.torch}
		if x.begins < 1 { // the sampler took a while to start
			m.Samples, m.Measurement.StartedAt = m.Samples.(held)[1:], m.Job.StartedAt
		}
		(&attribution.Attributor{}).Attribute(r, m)
		start, known := m.Measurement.Session.MemoryAtStart[0]
		growth := m.Measurement.Session.Growth[0]
		if x.missing {
			if known || r.Missing["session.growth_bytes[gpu 0]"] == "" {
				t.Errorf("%s: start %d, growth %d, reason %q; expected a reason alone", x.name, start, growth, r.Missing["session.growth_bytes[gpu 0]"])
			}
			continue
		}
		if math.Abs(float64(start)/gib-x.start) > 0.001 || math.Abs(float64(growth)/gib-x.growth) > 0.001 {
			t.Errorf("%s: start %.3f GiB, growth %.3f GiB; expected %.3f and %.3f", x.name, float64(start)/gib, float64(growth)/gib, x.start, x.growth)
		}
	}
}

// TestGivenBackWithinATick: a rise that falls short of the KV cache by just one
// logits buffer, to the page, is the KV cache; one that falls short by
// something else is left as it was sampled.
func TestGivenBackWithinATick(t *testing.T) {
	logits := 1024.0 * 128256 * 4 / gib
	for short, want := range map[float64]float64{logits: 55.87, 1.3: 55.87 - 1.3} {
		s := run()
		for i := range s.memory {
			switch s.memory[i].at {
			case 26.9:
				s.memory[i].gib += short
			case 23.1:
				s.memory[i].gib += 3
			}
		}
		r := s.attribute()
		if st := step(t, r, 0, "kv_alloc"); st.Bytes == nil || math.Abs(float64(*st.Bytes)/gib-want) > 0.02 {
			t.Errorf("%.2f GiB short: kv_alloc is %s GiB (%s), expected %.2f", short, size(st.Bytes), st.Reason, want)
		}
	}
}

// addUp checks that the parts add up to the net increase exactly.
func addUp(t *testing.T, r *runner.Result) {
	t.Helper()
	b := r.MemoryBreakdown
	if b == nil {
		return
	}
	var sum float64
	for _, p := range []*float64{b.ModelWeightsGB, b.KVCacheGB, b.GraphCaptureGB, b.NonTorchGB, b.ContextGB, b.BuffersGB, b.ActivationsGB, b.GrowthExcessGB, b.FrameworkOverheadGB} {
		if p != nil {
			sum += *p
		}
	}
	if sum != *b.NetIncreaseGB {
		t.Errorf("the parts add up to %v GiB, the net increase is %v", sum, *b.NetIncreaseGB)
	}
	var rows int64
	for _, row := range r.Breakdowns {
		rows += row.Bytes
	}
	if float64(rows)/gib != *b.NetIncreaseGB {
		t.Errorf("the rows add up to %v GiB, the net increase is %v", float64(rows)/gib, *b.NetIncreaseGB)
	}
}

// FuzzAttribute: whatever samples and lines come, in whatever order, nothing
// panics and the parts add up.
func FuzzAttribute(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz"), uint8(1), true)
	f.Add(make([]byte, 400), uint8(2), false)
	kinds := []runner.EventKind{
		runner.EventFirstLine, runner.EventLoadStart, runner.EventLoadEnd, runner.EventProfileStart, runner.EventProfileEnd, runner.EventKVReady, runner.EventCaptureStart,
		runner.EventCaptureEnd, runner.EventEngineReady, runner.EventWarmupStart, runner.EventMeasureStart, runner.EventMeasureEnd, runner.EventShutdown, runner.EventError,
	}
	f.Fuzz(func(t *testing.T, data []byte, gpus uint8, placed bool) {
		s := run()
		s.gpus = int(gpus%3) + 1
		r, m := s.measured()
		if m.Measurement.Events = nil; len(data) > 4000 {
			data = data[:4000]
		}
		var h held
		at := time.Duration(0)
		for len(data) >= 4 {
			v := binary.LittleEndian.Uint32(data)
			data = data[4:]
			if v%5 == 0 {
				e := runner.LogEvent{Kind: kinds[int(v>>8)%len(kinds)], Rank: int(v>>16)%4 - 1, Took: time.Duration(v>>20) * time.Millisecond}
				e.Arrived = m.Job.StartedAt.Add(time.Duration(v>>9) * time.Microsecond)
				if placed {
					e.UncertaintyS = 0.8
				}
				m.Measurement.Events = append(m.Measurement.Events, e)
				continue
			}
			at += time.Duration(v&0xff) * time.Millisecond
			h = append(h, []runner.Sample{{
				Offset: at, GPU: int32(v>>8) % 4, MemoryUsed: int64(v>>4) << 8, Utilization: int32(v>>10) % 101, Power: float64(v % 700), Energy: float64(v >> 3), Has: runner.Fields(v>>5) | runner.HasMemoryUsed,
			}})
		}
		m.Samples = h
		(&attribution.Attributor{}).Attribute(r, m)
		addUp(t, r)
		for i := 1; i < len(r.Phases); i++ {
			a, b := r.Phases[i-1], r.Phases[i]
			if *a.GPUIndex == *b.GPUIndex && b.StartedAt.Before(*a.StartedAt) {
				t.Errorf("phase %s starts before %s", b.Phase, a.Phase)
			}
		}
		if r.MemoryTimeline != nil && len(r.MemoryTimeline.Timeline) > 2000 {
			t.Error("more than 2,000 points")
		}
	})
}

// long yields a run of an hour of 8 GPUs at 100 Hz without holding it.
type long struct {
	ticks int
	tick  []runner.Sample
}

func (l *long) ReadSamples(yield func([]runner.Sample) error) error {
	for i := range l.ticks {
		at := time.Duration(i) * 10 * time.Millisecond
		for g := range l.tick {
			l.tick[g] = runner.Sample{
				Offset: at, GPU: int32(g), MemoryUsed: 70<<30 + int64(i*7919%4096)<<21, Power: 500, Energy: 5 * float64(i), Utilization: int32(i % 100),
				Has: runner.HasMemoryUsed | runner.HasPower | runner.HasEnergy | runner.HasUtilization,
			}
		}
		if err := yield(l.tick); err != nil {
			return err
		}
	}
	return nil
}

// TestLongRunStaysSmall: memory that changes at every sample, 8 GPUs, 100 Hz.
func TestLongRunStaysSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 640,000 samples")
	}
	s := run()
	s.gpus, s.length = 8, 1
	r, m := s.measured()
	m.Samples = &long{ticks: 40_000, tick: make([]runner.Sample, 8)}
	m.Measurement.EndedAt = m.Job.StartedAt.Add(400 * second)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	(&attribution.Attributor{}).Attribute(r, m)
	runtime.ReadMemStats(&after)
	if got := float64(after.TotalAlloc-before.TotalAlloc) / (1 << 20); got > 64 {
		t.Errorf("%.0f MiB were allocated in all for 320,000 samples", got)
	}
	if got := r.MemoryTimeline.WholeRun.NumSamples; got != 40_000 {
		t.Errorf("%d ticks", got)
	}
}

func BenchmarkAttribute(b *testing.B) {
	for _, gpus := range []int{1, 8} {
		b.Run(fmt.Sprintf("%d GPUs, a minute at 20 Hz", gpus), func(b *testing.B) {
			s := run()
			s.gpus = gpus
			_, m := s.measured()
			b.ReportAllocs()
			for b.Loop() {
				(&attribution.Attributor{}).Attribute(&runner.Result{}, m)
			}
		})
	}
}

// TestRanksNameTheirGPUs: where the ranks say on which GPU they run, their
// word counts, not the order in which the GPUs were given.
func TestRanksNameTheirGPUs(t *testing.T) {
	s := run()
	s.gpus = 2
	s.account.Ranks = append(s.account.Ranks, s.account.Ranks[0])
	s.account.Ranks[1].Rank = 1
	for _, c := range []struct {
		name  string
		uuids []string
		want  []int32
	}{
		{"swapped", []string{"GPU-b", "GPU-a"}, []int32{1, 0}},
		{"as given", []string{"GPU-a", "GPU-b"}, []int32{0, 1}},
		{"one unknown", []string{"GPU-c", "GPU-a"}, []int32{0, 1}},
		{"twice the same", []string{"GPU-b", "GPU-b"}, []int32{0, 1}},
	} {
		r, m := s.measured()
		m.Job.Devices[0].UUID, m.Job.Devices[1].UUID = "GPU-a", "GPU-b"
		m.Measurement.Session = &runner.Session{}
		for rank, uuid := range c.uuids {
			m.Measurement.Session.Torch = append(m.Measurement.Session.Torch, runner.TorchReading{Rank: rank, Moment: "engine_ready", GPUUUID: &uuid})
		}
		(&attribution.Attributor{}).Attribute(r, m)
		for rank, row := range r.Ranks {
			if *row.GPUIndex != c.want[rank] {
				t.Errorf("%s: rank %d is on GPU %d, expected %d", c.name, rank, *row.GPUIndex, c.want[rank])
			}
		}
	}
}

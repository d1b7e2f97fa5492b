package simulate

import (
	"cmp"
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/runner/sinktest"
	"github.com/vramsweep/vramsweep/runner/vllm"
	"github.com/vramsweep/vramsweep/sweep"
)

// memory is a Sink that keeps everything.
type memory struct {
	mu      sync.Mutex
	dir     string
	results map[string]*runner.Result
}

type memoryRun struct {
	*memory
	job     *runner.Job
	samples []runner.Sample
}

func (m *memory) Begin(job *runner.Job) (runner.RunSink, error) {
	job.Dir = filepath.Join(m.dir, job.RunID)
	return &memoryRun{memory: m, job: job}, os.MkdirAll(job.Dir, 0o755)
}

func (r *memoryRun) Samples(s []runner.Sample) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples = append(r.samples, s...)
	return nil
}

func (r *memoryRun) ReadSamples(yield func([]runner.Sample) error) error {
	slices.SortStableFunc(r.samples, func(a, b runner.Sample) int { return cmp.Compare(a.Offset, b.Offset) })
	return yield(r.samples)
}

func (r *memoryRun) Finish(res *runner.Result) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results[r.job.Profile.ID] = res
	return nil
}

func (r *memoryRun) Close() error { return nil }

func TestMemoryIsASink(t *testing.T) {
	sinktest.Test(t, &memory{dir: t.TempDir(), results: map[string]*runner.Result{}})
}

// profile is one of the catalogue's.
func profile(t *testing.T, id string, change func(*sweep.Profile)) *sweep.Profile {
	t.Helper()
	warmup := int64(2)
	p := testProfile(t, change)
	p.ID, p.Settings.NumItersWarmup = id, &warmup
	return p
}

// TestEndToEnd runs profiles through the real loop, the real vLLM engine and the
// real attribution, with the simulated vllm as the program: what was simulated
// must come out. It runs alone: the supervision of a run takes every process
// that is re-parented to this one for the run's own.
func TestEndToEnd(t *testing.T) {
	util := 0.1
	profiles := []*sweep.Profile{
		profile(t, "one", nil),
		profile(t, "two", func(p *sweep.Profile) { p.Settings.TensorParallelSize = 2 }),
		profile(t, "new", func(p *sweep.Profile) { p.Engine.VLLMVersion = "0.33.0" }),
		profile(t, "no-kv", func(p *sweep.Profile) { p.Settings.GPUMemoryUtilization = &util }),
		profile(t, "oom", func(p *sweep.Profile) {
			p.Engine.Simulator.Plant = map[string]any{"chaos": map[string]any{"do": "fail_oom"}}
		}),
		profile(t, "unknown", func(p *sweep.Profile) { p.Model, p.Settings.HFModelID = nil, "nobody/nothing" }),
		profile(t, "no-result", func(p *sweep.Profile) {
			p.Engine.Simulator.Plant = map[string]any{"chaos": map[string]any{"do": "no_result"}}
		}),
	}
	dir := t.TempDir()
	plan := &sweep.Plan{Sweeps: []*sweep.Sweep{{
		Name: "e2e", Repeats: 1, Profiles: profiles, Sample: sweep.Sample{Interval: 10 * time.Millisecond},
	}}}
	machines, err := NewMachines(filepath.Join(dir, "state"), plan)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	engine := &Engine{
		VLLM: &vllm.Latency{BaseEnv: os.Environ()}, Self: []string{self, "simulate-vllm", "--"}, Machines: machines,
	}
	sink := &memory{dir: dir, results: map[string]*runner.Result{}}
	r := &runner.Runner{
		Engines: func(*sweep.Profile, int) (runner.Engine, error) { return engine, nil },
		Samplers: func(job *runner.Job) []runner.Sampler {
			device, err := machines.Of(job.Profile)
			if err != nil {
				t.Error(err)
			}
			return []runner.Sampler{device.Sampler(job)}
		},
		Inspector: func(p *sweep.Profile) runner.Inspector {
			device, err := machines.Of(p)
			if err != nil {
				t.Error(err)
			}
			return device
		},
		Sinks: []runner.Sink{sink}, Attributor: &attribution.Attributor{},
	}
	if _, err := r.Run(context.Background(), plan, runner.Options{}); err != nil {
		t.Fatal(err)
	}
	for _, p := range profiles {
		t.Run(p.ID, func(t *testing.T) {
			res := sink.results[p.ID]
			if res == nil {
				t.Fatal("no result")
			}
			compareWithTruth(t, res, played(t, p, 1))
		})
	}
}

// outcomes are what the runs of TestEndToEnd that end badly come to.
func outcomes() map[string]runner.Outcome {
	return map[string]runner.Outcome{
		"no-kv": runner.OutcomeNoKVMemory, "oom": runner.OutcomeOOM, "unknown": runner.OutcomeEngineError,
		"no-result": runner.OutcomeNoResult,
	}
}

// compareWithTruth holds a run's result against what was simulated.
func compareWithTruth(t *testing.T, got *runner.Result, truth *script) {
	want, bad := outcomes()[got.Run.ProfileID]
	if !bad {
		want = runner.OutcomeOK
	}
	if got.Run.Outcome != want || !got.Run.Synthetic {
		t.Fatalf("outcome %s (%s), want %s; synthetic %v", got.Run.Outcome, got.Run.OutcomeDetail, want, got.Run.Synthetic)
	}
	if len(got.Run.Leftovers) > 0 || len(got.Run.Holders) > 0 {
		t.Errorf("left: %+v %+v", got.Run.Leftovers, got.Run.Holders)
	}
	if bad {
		return
	}
	f := truth.figures
	if !slices.Equal(got.LatencyStats.LatenciesS, f.latencies) {
		t.Errorf("latencies %v, want %v", got.LatencyStats.LatenciesS, f.latencies)
	}
	if kv := got.VLLMInternalMetrics.TotalGPUKVCacheTokens; kv == nil || *kv != f.kvTokens {
		t.Errorf("KV tokens %v, want %d", deref(kv), f.kvTokens)
	}
	for _, p := range truth.order[:len(truth.order)-1] {
		found := func(row runner.PhaseRow) bool { return row.Phase == p && row.StartedAt != nil }
		if !slices.ContainsFunc(got.Phases, found) {
			t.Errorf("phase %s was not found", p)
		}
	}
	g, w := got.MemoryBreakdown, truth.breakdown()
	if g == nil {
		t.Fatal("no breakdown")
	}
	if ticks := got.MemoryTimeline; ticks.Missed > 5 {
		t.Logf("%d ticks were missed on a busy machine: phases of a tenth of a second cannot be told apart", ticks.Missed)
		return
	}
	if f.words.v33 && g.ActivationsGB != nil && g.GraphCaptureGB != nil {
		joined := *g
		// kernel warm-up and serving hold as much, the first without graphs
		use, none := *g.ActivationsGB+*g.GraphCaptureGB-*w.GraphCaptureGB, *w.GraphCaptureGB
		joined.ActivationsGB, joined.GraphCaptureGB = &use, &none
		g = &joined
	}
	if math.Abs(*g.TotalMeasuredGB-*w.TotalMeasuredGB) > 1e-6 || !closeParts(g, w, 0.15*float64(f.ranks)) {
		t.Errorf("attributed %s", describe(g))
		t.Errorf("simulated  %s", describe(w))
	}
}

// breakdown divides the highest use as package runner/attribution should.
func (s *script) breakdown() *runner.Breakdown {
	var sum, top rankMemory
	for i := range s.figures.memory {
		m := &s.figures.memory[i]
		top.kept += m.highest()
		sum.weights += m.weights
		sum.kv += m.kv
		sum.nonTorch += m.nonTorch
		sum.graphs += m.graphs
		room := m.highest() - m.captured() + m.buffers
		excess := max(room-m.activation, 0)
		sum.activation += max(room-m.buffers-excess, 0)
		sum.requests += excess
	}
	in := func(bytes int64) *float64 { v := gib(bytes); return &v }
	return &runner.Breakdown{
		TotalMeasuredGB: in(top.kept), ModelWeightsGB: in(sum.weights), KVCacheGB: in(sum.kv), GraphCaptureGB: in(sum.graphs),
		NonTorchGB: in(sum.nonTorch), ActivationsGB: in(sum.activation), GrowthExcessGB: in(sum.requests),
	}
}

// closeParts reports whether two breakdowns agree within GiB. What the log
// does not tell lies in the rest.
func closeParts(g, w *runner.Breakdown, tolerance float64) bool {
	for _, pair := range [][2]*float64{
		{g.ModelWeightsGB, w.ModelWeightsGB}, {g.KVCacheGB, w.KVCacheGB}, {g.GraphCaptureGB, w.GraphCaptureGB},
		{g.NonTorchGB, w.NonTorchGB}, {g.ActivationsGB, w.ActivationsGB}, {g.GrowthExcessGB, w.GrowthExcessGB},
	} {
		if pair[0] == nil || math.Abs(*pair[0]-*pair[1]) > tolerance {
			return false
		}
	}
	return true
}

// describe writes a breakdown in one line.
func describe(b *runner.Breakdown) string {
	text := ""
	for _, part := range []struct {
		name string
		v    *float64
	}{
		{"highest", b.TotalMeasuredGB}, {"weights", b.ModelWeightsGB}, {"kv", b.KVCacheGB}, {"graphs", b.GraphCaptureGB},
		{"non-torch", b.NonTorchGB}, {"context", b.ContextGB}, {"buffers", b.BuffersGB}, {"activations", b.ActivationsGB},
		{"growth", b.GrowthExcessGB}, {"rest", b.FrameworkOverheadGB},
	} {
		value := "null"
		if part.v != nil {
			value = strconv.FormatFloat(*part.v, 'f', 3, 64)
		}
		text += part.name + " " + value + " "
	}
	return text
}

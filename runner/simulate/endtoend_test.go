package simulate_test

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/runner/simulate"
	"github.com/vramsweep/vramsweep/runner/vllm"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// TestArguments: the command line that the vLLM engine makes for a profile comes
// to the same run as the profile itself does in the generator.
func TestArguments(t *testing.T) {
	util, tokens, seqs, block, fp8, kv := 0.85, int64(4096), int64(64), int64(32), "fp8", "fp8"
	yes := true
	for name, change := range map[string]func(*sweep.Profile){
		"plain": nil,
		"all": func(p *sweep.Profile) {
			s := &p.Settings
			s.GPUMemoryUtilization, s.MaxNumBatchedTokens, s.MaxNumSeqs, s.BlockSize, s.Quantization, s.KVCacheDtype = &util, &tokens, &seqs, &block, &fp8, &kv
			s.TensorParallelSize = 2
		},
		"eager": func(p *sweep.Profile) { p.Settings.EnforceEager = &yes },
		"flags": func(p *sweep.Profile) {
			p.Engine.Flags = []sweep.Flag{{Name: "disable_cascade_attn", Value: true}, {Name: "seed", Value: int64(3)}, {Name: "compilation_config", Value: map[string]any{"mode": int64(3)}}}
		},
		"old":     func(p *sweep.Profile) { p.Engine.VLLMVersion = "0.6.6" },
		"no verb": func(p *sweep.Profile) { p.Engine.VLLMVersion = "0.8.1" },
	} {
		t.Run(name, func(t *testing.T) {
			p := profile(t, "id", change)
			machines, err := simulate.NewMachines(t.TempDir(), &sweep.Plan{Sweeps: []*sweep.Sweep{{Profiles: []*sweep.Profile{p}}}})
			if err != nil {
				t.Fatal(err)
			}
			engine := &simulate.Engine{Self: []string{"/bin/self", "verb"}, Machines: machines}
			job, err := engine.Job(&runner.Job{Profile: p, Repeat: 1})
			if err != nil {
				t.Fatal(err)
			}
			argv, err := vllm.Args(job.Profile, vllm.Paths{OutputJSON: "/tmp/latency.json"})
			if err != nil {
				t.Fatal(err)
			}
			if argv[0] != "/bin/self" || argv[1] != "verb" {
				t.Fatalf("argv %q", argv)
			}
			if err := simulate.SameRun(argv[2:], p); err != nil {
				t.Errorf("argv %q: %v", argv, err)
			}
		})
	}
}

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

func (r *memoryRun) ReadSamples(yield func([]runner.Sample) error) error { return yield(r.samples) }

func (r *memoryRun) Finish(res *runner.Result) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results[r.job.Profile.ID] = res
	return nil
}

func (r *memoryRun) Close() error { return nil }

// profile is one of the catalogue's.
func profile(t *testing.T, id string, change func(*sweep.Profile)) *sweep.Profile {
	t.Helper()
	catalogue, err := models.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	const name = "Qwen/Qwen3-8B"
	a, ok := catalogue.Lookup(name)
	if !ok {
		t.Fatalf("the catalogue lacks %s", name)
	}
	maxLen, iters, warmup, dummy := int64(8192), int64(5), int64(2), "dummy"
	p := &sweep.Profile{
		ID: id, Sweep: "e2e", Model: a,
		Settings: sweep.Settings{
			Model: name, HFModelID: name, Asked: sweep.Asked{
				TensorParallelSize: 1, PipelineParallelSize: 1, InputLen: 512, OutputLen: 32, BatchSize: 8,
				MaxModelLen: &maxLen, NumIters: &iters, NumItersWarmup: &warmup, LoadFormat: &dummy,
			},
		},
		Engine: sweep.Engine{Kind: "simulator", Mode: "latency", Simulator: &sweep.Simulator{Seed: 3, Noise: 0.01}},
	}
	if change != nil {
		change(p)
	}
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
		profile(t, "merged", func(p *sweep.Profile) { p.Engine.VLLMVersion = "0.29.0" }),
		profile(t, "old", func(p *sweep.Profile) { p.Engine.VLLMVersion = "0.6.6" }),
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
	plan := &sweep.Plan{Sweeps: []*sweep.Sweep{{Name: "e2e", Repeats: 1, Profiles: profiles, Sample: sweep.Sample{Interval: 10 * time.Millisecond}}}}
	machines, err := simulate.NewMachines(filepath.Join(dir, "state"), plan)
	if err != nil {
		t.Fatal(err)
	}
	self, err := simulate.SelfCommand("simulate-vllm", "--")
	if err != nil {
		t.Fatal(err)
	}
	engine := &simulate.Engine{VLLM: &vllm.Latency{BaseEnv: os.Environ()}, Self: self, Machines: machines}
	sink := &memory{dir: dir, results: map[string]*runner.Result{}}
	r := &runner.Runner{
		Engines: func(*sweep.Profile) (runner.Engine, error) { return engine, nil },
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
			truth, _, err := simulate.Result(p, 1, 0)
			if err != nil {
				t.Fatal(err)
			}
			if p.ID == "no-result" {
				truth.Run.Outcome, truth.LatencyStats = runner.OutcomeNoResult, nil
			}
			compare(t, res, truth)
		})
	}
}

// compare holds a run's result against what was simulated.
func compare(t *testing.T, got, want *runner.Result) {
	if got.Run.Outcome != want.Run.Outcome || !got.Run.Synthetic {
		t.Fatalf("outcome %s (%s), want %s; synthetic %v", got.Run.Outcome, got.Run.OutcomeDetail, want.Run.Outcome, got.Run.Synthetic)
	}
	if len(got.Run.Leftovers) > 0 || len(got.Run.Holders) > 0 {
		t.Errorf("left: %+v %+v", got.Run.Leftovers, got.Run.Holders)
	}
	if want.Run.Outcome != runner.OutcomeOK {
		return
	}
	near := func(name string, got, want *float64, tolerance float64) {
		t.Helper()
		if got == nil || want == nil {
			t.Errorf("%s is missing", name)
			return
		}
		if math.Abs(*got-*want) > tolerance {
			t.Errorf("%s = %.4f, want %.4f", name, *got, *want)
		}
	}
	near("p50", ptr(got.LatencyStats.Percentiles["p50"]), ptr(want.LatencyStats.Percentiles["p50"]), 1e-9)
	ranks := float64(len(want.Ranks))
	g, w := got.MemoryBreakdown, want.MemoryBreakdown
	if g == nil {
		t.Fatal("no breakdown")
	}
	near("highest", g.TotalMeasuredGB, w.TotalMeasuredGB, 1e-6)
	near("weights", g.ModelWeightsGB, w.ModelWeightsGB, 0.01*ranks)
	if kv := got.VLLMInternalMetrics.TotalGPUKVCacheTokens; kv != nil && *kv != *want.VLLMInternalMetrics.TotalGPUKVCacheTokens {
		t.Errorf("KV tokens %d, want %d", *kv, *want.VLLMInternalMetrics.TotalGPUKVCacheTokens)
	}
	seen := map[runner.Phase]bool{}
	for _, row := range got.Phases {
		seen[row.Phase] = seen[row.Phase] || row.StartedAt != nil
	}
	for _, row := range want.Phases {
		if !seen[row.Phase] {
			t.Errorf("phase %s was not found", row.Phase)
		}
	}
	if timeline := got.MemoryTimeline; timeline.Missed > 5 {
		t.Logf("%d ticks were missed on a busy machine: phases of a tenth of a second cannot be told apart", timeline.Missed)
		return
	}
	if !closeParts(g, w, 0.15*ranks) {
		t.Errorf("attributed %s", describe(g))
		t.Errorf("simulated  %s", describe(w))
	}
}

func ptr(v float64) *float64 { return &v }

// closeParts reports whether two breakdowns agree within GiB. What the log of
// a version does not tell lies in the rest; so the old one's buffers and context.
func closeParts(g, w *runner.Breakdown, tolerance float64) bool {
	for _, pair := range [][2]*float64{
		{g.KVCacheGB, w.KVCacheGB}, {g.GraphCaptureGB, w.GraphCaptureGB}, {g.NonTorchGB, w.NonTorchGB}, {g.ActivationsGB, w.ActivationsGB},
		{g.GrowthExcessGB, w.GrowthExcessGB},
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
		{"highest", b.TotalMeasuredGB}, {"weights", b.ModelWeightsGB}, {"kv", b.KVCacheGB}, {"graphs", b.GraphCaptureGB}, {"non-torch", b.NonTorchGB},
		{"context", b.ContextGB}, {"buffers", b.BuffersGB}, {"activations", b.ActivationsGB}, {"growth", b.GrowthExcessGB}, {"rest", b.FrameworkOverheadGB},
	} {
		value := "null"
		if part.v != nil {
			value = strconv.FormatFloat(*part.v, 'f', 3, 64)
		}
		text += part.name + " " + value + " "
	}
	return text
}

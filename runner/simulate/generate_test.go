package simulate

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// testProfile is a profile of `engine "simulator"`.
func testProfile(t testing.TB, change func(*sweep.Profile)) *sweep.Profile {
	t.Helper()
	catalogue, err := models.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	const id = "meta-llama/Llama-3.1-8B-Instruct"
	a, ok := catalogue.Lookup(id)
	if !ok {
		t.Fatalf("the catalogue lacks %s", id)
	}
	maxLen, iters, dummy := int64(8192), int64(5), "dummy"
	p := &sweep.Profile{
		ID: "0123456789abcdef", Sweep: "test", Model: a,
		Settings: sweep.Settings{
			Model: id, HFModelID: id, Asked: sweep.Asked{
				TensorParallelSize: 1, PipelineParallelSize: 1, InputLen: 512, OutputLen: 32, BatchSize: 8,
				MaxModelLen: &maxLen, NumIters: &iters, LoadFormat: &dummy,
			},
		},
		Engine: sweep.Engine{Kind: "simulator", Mode: "latency", Simulator: &sweep.Simulator{Seed: 3, Noise: 0.01}},
	}
	if change != nil {
		change(p)
	}
	return p
}

// TestResult checks that a generated result holds together.
func TestResult(t *testing.T) {
	for name, change := range map[string]func(*sweep.Profile){
		"one GPU":  nil,
		"two GPUs": func(p *sweep.Profile) { p.Settings.TensorParallelSize = 2 },
		"eager":    func(p *sweep.Profile) { eager := true; p.Settings.EnforceEager = &eager },
		"V0":       func(p *sweep.Profile) { p.Engine.VLLMVersion = "0.6.6" },
		"long":     func(p *sweep.Profile) { p.Settings.InputLen, p.Settings.BatchSize = 8000, 4 },
	} {
		t.Run(name, func(t *testing.T) {
			p := testProfile(t, change)
			res, samples, err := Result(p, 1, 0)
			if err != nil {
				t.Fatal(err)
			}
			if !res.Run.Synthetic || res.Run.Outcome != runner.OutcomeOK || res.SchemaVersion != runner.SchemaVersion {
				t.Errorf("run %+v", res.Run)
			}
			checkParts(t, res)
			highest := int64(0)
			at := map[time.Time]int64{}
			for _, s := range samples {
				at[s.TS] += s.MemoryUsed
				highest = max(highest, at[s.TS])
			}
			if want := *res.MemoryBreakdown.TotalMeasuredGB; math.Abs(float64(highest)/runner.GiB-want) > 1e-9 || *res.MemoryTimeline.MaxGB != want {
				t.Errorf("the highest sample is %.4f GiB, the timeline's %.4f, the breakdown's %.4f", float64(highest)/runner.GiB, *res.MemoryTimeline.MaxGB, want)
			}
			if n := int(p.Settings.TensorParallelSize); len(res.Ranks) != n || len(res.GPUInfo) != n || len(res.BeyondBudget) != n {
				t.Errorf("%d ranks, %d GPUs, want %d", len(res.Ranks), len(res.GPUInfo), n)
			}
			if res.LatencyStats == nil || res.LatencyStats.NIters != 5 || res.LatencyStats.Percentiles["p50"] <= 0 {
				t.Errorf("latency %+v", res.LatencyStats)
			}
		})
	}
}

// checkParts checks that the parts add up exactly.
func checkParts(t *testing.T, res *runner.Result) {
	t.Helper()
	b := res.MemoryBreakdown
	sum := *b.ModelWeightsGB + *b.KVCacheGB + *b.GraphCaptureGB + *b.NonTorchGB + *b.ContextGB + *b.BuffersGB + *b.ActivationsGB + *b.GrowthExcessGB + *b.FrameworkOverheadGB
	if math.Abs(sum-*b.NetIncreaseGB) > 1e-9 {
		t.Errorf("the parts add up to %g, not %g", sum, *b.NetIncreaseGB)
	}
	var rows int64
	for _, row := range res.Breakdowns {
		rows += row.Bytes
	}
	if got := float64(rows) / runner.GiB; math.Abs(got-*b.NetIncreaseGB) > 1e-9 {
		t.Errorf("the rows add up to %g, not %g", got, *b.NetIncreaseGB)
	}
	var energy float64
	for _, row := range res.Phases {
		if row.EnergyJ != nil {
			energy += *row.EnergyJ
		}
	}
	if energy <= 0 {
		t.Error("the run used no energy")
	}
}

// TestResultEqualsProcess: the generator and the process tell the same run.
func TestResultEqualsProcess(t *testing.T) {
	p := testProfile(t, nil)
	res, _, err := Result(p, 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	machines, err := NewMachines(t.TempDir(), &sweep.Plan{Sweeps: []*sweep.Sweep{{Profiles: []*sweep.Profile{p}}}})
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{Self: []string{"self"}, Machines: machines}
	job, err := e.Job(&runner.Job{Profile: p, Repeat: 2, Sweep: &sweep.Sweep{}})
	if err != nil {
		t.Fatal(err)
	}
	var env []string
	for _, v := range job.Sweep.Env {
		env = append(env, v.Name+"="+v.Value)
	}
	c, err := configFrom(env)
	if err != nil {
		t.Fatal(err)
	}
	r, err := requestFor(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.resolve(r); err != nil {
		t.Fatal(err)
	}
	s := scriptOf(&c, r, nil, nil)
	if got, want := *res.LatencyStats, s.figures.latencies; !reflect.DeepEqual(got.LatenciesS, want) {
		t.Errorf("latencies %v and %v", got.LatenciesS, want)
	}
	if got, want := *res.Ranks[0].ActivationsReservedBytes, s.figures.memory[0].activation; got != want {
		t.Errorf("activations %d and %d", got, want)
	}
	if !job.Synthetic || job.Profile.Engine.Kind != "vllm" || job.Profile.Engine.Command[0] != "self" || p.Engine.Kind != "simulator" {
		t.Errorf("job %+v of %+v", job.Profile.Engine, p.Engine)
	}
}

// TestSameSeed: the same arguments give the same result, another seed, repeat
// or profile another one.
func TestSameSeed(t *testing.T) {
	figure := func(change func(*sweep.Profile), repeat int, seed int64) float64 {
		res, _, err := Result(testProfile(t, change), repeat, seed)
		if err != nil {
			t.Fatal(err)
		}
		return *res.MemoryBreakdown.TotalMeasuredGB + res.LatencyStats.AvgS
	}
	base := figure(nil, 1, 5)
	if figure(nil, 1, 5) != base {
		t.Error("the same twice differs")
	}
	if figure(nil, 2, 5) == base || figure(nil, 1, 6) == base || figure(func(p *sweep.Profile) { p.ID = "other" }, 1, 5) == base {
		t.Error("another repeat, seed or profile gives the same")
	}
}

// TestNoise: 1 % is 30 MiB on the highest use, and 1 % on the latency.
func TestNoise(t *testing.T) {
	g := &Generator{}
	var memory, latency []float64
	p := testProfile(t, nil)
	for seed := range 400 {
		g.Seed = int64(seed + 1)
		res, _, err := g.Result(p, 1)
		if err != nil {
			t.Fatal(err)
		}
		memory = append(memory, *res.MemoryBreakdown.TotalMeasuredGB*1024)
		latency = append(latency, math.Log(res.LatencyStats.LatenciesS[0]))
	}
	if s := deviation(memory); s < 26 || s > 34 {
		t.Errorf("memory varies with %g MiB, want 30", s)
	}
	if s := deviation(latency); s < 0.0085 || s > 0.0115 {
		t.Errorf("the latency varies with %g, want 0.01", s)
	}
}

func deviation(x []float64) float64 {
	sum, square := 0.0, 0.0
	for _, v := range x {
		sum += v
		square += v * v
	}
	n := float64(len(x))
	return math.Sqrt((square - sum*sum/n) / (n - 1))
}

// TestPlant: every component can be moved, by exactly as much as was asked, and
// only where the condition holds.
func TestPlant(t *testing.T) {
	const more = 200 << 20
	get := map[string]func(*runner.Result) float64{
		"weights":     func(r *runner.Result) float64 { return float64(*r.Ranks[0].ModelWeightsBytes) },
		"activations": func(r *runner.Result) float64 { return float64(*r.Ranks[0].ActivationsReservedBytes) },
		"non_torch":   func(r *runner.Result) float64 { return float64(*r.Ranks[0].NonTorchBytes) },
		"cuda_graphs": func(r *runner.Result) float64 { return float64(*r.Ranks[0].CUDAGraphsBytes) },
		"context":     func(r *runner.Result) float64 { return float64(*r.Ranks[0].ContextBytes) },
		"buffers":     func(r *runner.Result) float64 { return float64(*r.Ranks[0].BuffersBytes) },
		"growth":      func(r *runner.Result) float64 { return *r.MemoryBreakdown.TotalMeasuredGB * runner.GiB },
		"latency":     func(r *runner.Result) float64 { return r.LatencyStats.AvgS },
		"power":       func(r *runner.Result) float64 { return *r.MemoryTimeline.Extended.Power.MeanW },
		"load_time":   func(r *runner.Result) float64 { return *r.VLLMInternalMetrics.LoadSeconds },
	}
	run := func(plant map[string]any) *runner.Result {
		res, _, err := Result(testProfile(t, func(p *sweep.Profile) { p.Engine.Simulator.Plant = plant }), 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	base := run(nil)
	for component, figure := range get {
		plant := map[string]any{"component": component, "bytes": "200MiB", "when": map[string]any{"batch_size": []any{float64(1), float64(8)}}}
		want := figure(base) + more
		if !isMemory(component) {
			plant = map[string]any{"component": component, "factor": 1.1, "when": map[string]any{"model": "meta-llama/Llama-3.1-8B-Instruct"}}
			want = figure(base) * 1.1
		}
		if got := figure(run(plant)); math.Abs(got-want) > 0.002*want && math.Abs(got-want) > 1 {
			t.Errorf("%s: %g, want %g", component, got, want)
		}
		plant["when"] = map[string]any{"batch_size": float64(9)}
		if got := figure(run(plant)); got != figure(base) {
			t.Errorf("%s moved although its condition does not hold", component)
		}
	}
	if len(get) != len(Components())-1 { // compile_time is in the account alone
		t.Errorf("%d components are tested of %v", len(get), Components())
	}
}

func TestParsePlantErrors(t *testing.T) {
	for name, test := range map[string]struct {
		plant map[string]any
		want  string
	}{
		"unknown name":      {map[string]any{"componnt": "weights"}, "expected changes, chaos"},
		"unknown component": {map[string]any{"component": "weight", "bytes": 1}, `"weight" is unknown; expected one of weights`},
		"no change":         {map[string]any{"component": "weights"}, "neither bytes nor factor"},
		"bytes of latency":  {map[string]any{"component": "latency", "bytes": 1}, "latency is no memory"},
		"unknown chaos":     {map[string]any{"chaos": map[string]any{"do": "sing"}}, `"sing" is unknown; expected one of `},
		"unknown phase":     {map[string]any{"chaos": map[string]any{"do": "hang", "at": "lunch"}}, `at = "lunch" is no phase`},
		"bad size":          {map[string]any{"component": "weights", "bytes": "much"}, "is not a size such as"},
		"bad duration":      {map[string]any{"chaos": map[string]any{"do": "slow", "for": "long"}}, "is not a duration"},
		"bad share":         {map[string]any{"chaos": map[string]any{"do": "hang", "share": 2}}, "share = 2 lies outside"},
		"bad signal":        {map[string]any{"chaos": map[string]any{"do": "die", "signal": "SIGFOO"}}, `signal "SIGFOO" is unknown`},
	} {
		if _, err := ParsePlant(test.plant); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
}

// TestFailedResults: a failure is a result with its outcome.
func TestFailedResults(t *testing.T) {
	util, long := 0.1, int64(131072)
	for name, test := range map[string]struct {
		change func(*sweep.Profile)
		want   runner.Outcome
		kind   string
	}{
		"no KV": {func(p *sweep.Profile) { p.Settings.GPUMemoryUtilization = &util }, runner.OutcomeNoKVMemory, "no_kv_memory"},
		"small KV": {func(p *sweep.Profile) {
			u := 0.25
			p.Settings.GPUMemoryUtilization, p.Settings.MaxModelLen = &u, &long
		}, runner.OutcomeKVTooSmall, "kv_too_small"},
		"unknown model": {func(p *sweep.Profile) { p.Model, p.Settings.HFModelID = nil, "x/y" }, runner.OutcomeEngineError, "hf_hub"},
		"oom": {func(p *sweep.Profile) {
			p.Engine.Simulator.Plant = map[string]any{"component": "growth", "bytes": "20GiB"}
		}, runner.OutcomeOOM, "oom"},
	} {
		res, samples, err := Result(testProfile(t, test.change), 1, 0)
		if err != nil {
			t.Fatal(name, err)
		}
		if res.Run.Outcome != test.want || res.VLLMInternalMetrics.Error == nil || res.VLLMInternalMetrics.Error.Kind != test.kind || res.LatencyStats != nil || res.Run.ErrorLine == "" {
			t.Errorf("%s: %s, %+v, %q", name, res.Run.Outcome, res.VLLMInternalMetrics.Error, res.Run.ErrorLine)
		}
		if test.want == runner.OutcomeOOM && len(samples) == 0 {
			t.Errorf("%s: no samples", name)
		}
	}
}

func BenchmarkResult(b *testing.B) {
	p := testProfile(b, nil)
	g := &Generator{}
	for b.Loop() {
		if _, _, err := g.Result(p, 1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResultWithSamples(b *testing.B) {
	p := testProfile(b, nil)
	g := &Generator{Interval: 100 * time.Millisecond}
	for b.Loop() {
		if _, _, err := g.Result(p, 1); err != nil {
			b.Fatal(err)
		}
	}
}

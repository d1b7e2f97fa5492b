package simulate

import (
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/vllm"
	"github.com/vramsweep/vramsweep/sweep"
)

// testProfile is a profile of `engine "simulator"`.
func testProfile(t testing.TB, change func(*sweep.Profile)) *sweep.Profile {
	t.Helper()
	const id = "meta-llama/Llama-3.1-8B-Instruct"
	maxLen, iters, dummy := int64(8192), int64(5), "dummy"
	p := &sweep.Profile{
		ID: "0123456789abcdef", Sweep: "test", Model: llama(),
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

// jobOf is what the vLLM engine starts for a profile: the arguments after
// `vllm`, and the settings in the environment.
func jobOf(t testing.TB, p *sweep.Profile, repeat int) (args []string, c Config) {
	t.Helper()
	plan := &sweep.Plan{Sweeps: []*sweep.Sweep{{Profiles: []*sweep.Profile{p}}}}
	machines, err := NewMachines(t.TempDir(), plan)
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{Self: []string{"/bin/self", "verb"}, Machines: machines}
	job, err := e.Job(&runner.Job{Profile: p, Repeat: repeat, Sweep: &sweep.Sweep{}})
	if err != nil {
		t.Fatal(err)
	}
	if !job.Synthetic || job.Profile.Engine.Kind != "vllm" || p.Engine.Kind != "simulator" {
		t.Errorf("job %+v of %+v", job.Profile.Engine, p.Engine)
	}
	argv, err := vllm.Args(job.Profile, vllm.Paths{OutputJSON: "/tmp/latency.json"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(argv[:4], []string{"/bin/self", "verb", "bench", "latency"}) {
		t.Fatalf("argv %q", argv)
	}
	var env []string
	for _, v := range job.Sweep.Env {
		env = append(env, v.Name+"="+v.Value)
	}
	if c, err = configFrom(env); err != nil {
		t.Fatal(err)
	}
	return argv[4:], c
}

// played is the script that the simulated vllm follows for a repeat of a
// profile.
func played(t testing.TB, p *sweep.Profile, repeat int) *script {
	t.Helper()
	args, c := jobOf(t, p, repeat)
	r, err := parseArgs("vllm bench latency", args)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.resolve(r); err != nil {
		t.Fatal(err)
	}
	return scriptOf(&c, r, nil, nil)
}

// TestArguments: what a profile asks for reaches the simulated vllm.
func TestArguments(t *testing.T) {
	util, tokens, seqs, block, fp8, kv, yes := 0.85, int64(4096), int64(64), int64(32), "fp8", "fp8", true
	for name, test := range map[string]struct {
		change func(*sweep.Profile)
		want   func(f *figures, r *request) bool
	}{
		"plain": {nil, func(f *figures, r *request) bool {
			return f.ranks == 1 && f.maxLen == 8192 && r.batchSize == 8 && r.inputLen == 512 && r.outputLen == 32 &&
				r.numIters == 5
		}},
		"all": {func(p *sweep.Profile) {
			s := &p.Settings
			s.GPUMemoryUtilization, s.MaxNumBatchedTokens, s.MaxNumSeqs, s.BlockSize = &util, &tokens, &seqs, &block
			s.Quantization, s.KVCacheDtype, s.TensorParallelSize = &fp8, &kv, 2
		}, func(f *figures, r *request) bool {
			return f.ranks == 2 && f.util == util && f.maxTokens == tokens && f.maxSeqs == seqs && f.blockSize == block &&
				r.quantization == fp8 && r.kvDtype == kv
		}},
		"eager": {func(p *sweep.Profile) { p.Settings.EnforceEager = &yes },
			func(f *figures, r *request) bool { return r.eager && f.memory[0].graphs == 0 }},
		"flags": {func(p *sweep.Profile) {
			p.Engine.Flags = []sweep.Flag{{Name: "disable_cascade_attn", Value: true}, {Name: "seed", Value: int64(3)},
				{Name: "compilation_config", Value: map[string]any{"mode": int64(3)}}}
		}, func(_ *figures, r *request) bool {
			return r.flag("disable-cascade-attn") == "True" && r.flag("seed") == "3"
		}},
		"version": {func(p *sweep.Profile) { p.Engine.VLLMVersion = "0.33.0" },
			func(f *figures, _ *request) bool { return f.words.version == "0.33.0" && f.words.v33 }},
	} {
		s := played(t, testProfile(t, test.change), 1)
		if s.figures == nil || !test.want(s.figures, s.request) {
			t.Errorf("%s: %+v came to %+v", name, s.request, s.figures)
		}
	}
}

// TestSameSeed: the same arguments give the same run, also where it fails;
// another seed, repeat or profile another one.
func TestSameSeed(t *testing.T) {
	for name, change := range map[string]func(*sweep.Profile){
		"good": func(*sweep.Profile) {},
		"oom": func(p *sweep.Profile) {
			p.Engine.Simulator.Plant = map[string]any{"component": "growth", "bytes": "20GiB"}
		},
	} {
		of := func(repeat int, more func(*sweep.Profile)) []byte {
			s := played(t, testProfile(t, func(p *sweep.Profile) { change(p); more(p) }), repeat)
			stdout, stderr := rendered(s)
			for _, st := range s.steps {
				stderr = fmt.Appendf(stderr, "%v %v\n", s.wall(&st, 0), st.memory)
			}
			return slices.Concat(stdout, stderr)
		}
		same := func(*sweep.Profile) {}
		base := string(of(1, same))
		if string(of(1, same)) != base {
			t.Errorf("%s: the same twice differs", name)
		}
		for what, other := range map[string][]byte{
			"repeat": of(2, same), "seed": of(1, func(p *sweep.Profile) { p.Engine.Simulator.Seed = 6 }),
			"profile": of(1, func(p *sweep.Profile) { p.ID = "other" }),
		} {
			if string(other) == base {
				t.Errorf("%s: another %s gives the same", name, what)
			}
		}
	}
}

// TestNoise: 1 % is 30 MiB on the highest use, and 1 % on the latency.
func TestNoise(t *testing.T) {
	var memory, latency []float64
	args, c := jobOf(t, testProfile(t, nil), 1)
	r, err := parseArgs("vllm bench latency", args)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.resolve(r); err != nil {
		t.Fatal(err)
	}
	for seed := range 400 {
		c.Seed = int64(seed + 1)
		f, err := figuresOf(&c, r, nil)
		if err != nil {
			t.Fatal(err)
		}
		memory = append(memory, float64(f.memory[0].highest())/(1<<20))
		latency = append(latency, math.Log(f.latencies[0]))
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
	get := map[string]func(*figures) float64{
		"weights":      func(f *figures) float64 { return float64(f.memory[0].weights) },
		"activations":  func(f *figures) float64 { return float64(f.memory[0].activation) },
		"non_torch":    func(f *figures) float64 { return float64(f.memory[0].nonTorch) },
		"cuda_graphs":  func(f *figures) float64 { return float64(f.memory[0].graphs) },
		"context":      func(f *figures) float64 { return float64(f.memory[0].context) },
		"buffers":      func(f *figures) float64 { return float64(f.memory[0].buffers) },
		"growth":       func(f *figures) float64 { return float64(f.memory[0].serving()) },
		"latency":      func(f *figures) float64 { return f.times.latency },
		"power":        func(f *figures) float64 { return f.power },
		"load_time":    func(f *figures) float64 { return f.times.load },
		"compile_time": func(f *figures) float64 { return f.times.compile },
	}
	run := func(plant map[string]any) *figures {
		return played(t, testProfile(t, func(p *sweep.Profile) { p.Engine.Simulator.Plant = plant }), 1).figures
	}
	base := run(nil)
	for component, figure := range get {
		when := map[string]any{"batch_size": []any{float64(1), float64(8)}}
		plant := map[string]any{"component": component, "bytes": "200MiB", "when": when}
		want := figure(base) + more
		if !isMemory(component) {
			when = map[string]any{"model": "meta-llama/Llama-3.1-8B-Instruct"}
			plant = map[string]any{"component": component, "factor": 1.1, "when": when}
			want = figure(base) * 1.1
		}
		if got := figure(run(plant)); math.Abs(got-want) > 1e-9*want && math.Abs(got-want) > 1 {
			t.Errorf("%s: %g, want %g", component, got, want)
		}
		plant["when"] = map[string]any{"batch_size": float64(9)}
		if got := figure(run(plant)); got != figure(base) {
			t.Errorf("%s moved although its condition does not hold", component)
		}
	}
	if want := sortedKeys(get); !reflect.DeepEqual(want, slices.Sorted(slices.Values(Components()))) {
		t.Errorf("tested are %v of %v", want, Components())
	}
}

// TestOrder: memory rises and falls where it does in the recordings. In 0.33
// the graphs are captured before the KV cache and dropped, kernels are warmed
// up between KV cache and capture, and what that took is given back.
func TestOrder(t *testing.T) {
	for version, want := range map[string][]runner.Phase{
		"0.26.0": {runner.PhaseKVAlloc, runner.PhaseCapture, runner.PhaseEngineWarmup, runner.PhaseBenchWarmup},
		"0.33.0": {runner.PhaseKVAlloc, runner.PhaseEngineWarmup, runner.PhaseCapture, runner.PhaseBenchWarmup},
	} {
		s := played(t, testProfile(t, func(p *sweep.Profile) { p.Engine.VLLMVersion = version }), 1)
		at := slices.Index(s.order, runner.PhaseKVAlloc)
		if !slices.Equal(s.order[at:at+len(want)], want) {
			t.Errorf("%s: phases %v, want %v", version, s.order[at:], want)
		}
		m, held := &s.figures.memory[0], map[runner.Phase][]int64{}
		for _, st := range s.steps {
			if bytes, ok := st.memory[0]; ok {
				held[st.phase] = append(held[st.phase], bytes)
			}
		}
		profile := []int64{m.loaded() + m.activation, m.loaded()}
		warmup := []int64{m.ready()}
		if version == "0.33.0" {
			profile = append(profile, m.loaded()+m.graphEst, m.loaded())
			warmup = []int64{m.warmed(), m.loaded() + m.kv}
			if m.graphEst <= m.graphs || m.available != s.figures.requested-m.weights-m.beside()-m.activation-m.graphEst {
				t.Errorf("the account does not hold the estimate: %+v", m)
			}
		}
		if got := held[runner.PhaseProfile]; !slices.Equal(got, profile) {
			t.Errorf("%s: while profiling %v are held, want %v", version, got, profile)
		}
		if got := held[runner.PhaseEngineWarmup]; !slices.Equal(got, warmup) {
			t.Errorf("%s: while kernels warm up %v are held, want %v", version, got, warmup)
		}
		for i := 1; i < len(s.steps); i++ {
			if s.wall(&s.steps[i], 0) < s.wall(&s.steps[i-1], 0) {
				t.Fatalf("%s: step %d comes before the one before it", version, i)
			}
		}
	}
}

// TestMachines: what cannot be simulated is said before anything runs.
func TestMachines(t *testing.T) {
	for want, change := range map[string]func(*sweep.Profile){
		"speaks as vLLM 0.26 or 0.33": func(p *sweep.Profile) { p.Engine.VLLMVersion = "0.29.0" },
		`"h1000"`:                     func(p *sweep.Profile) { p.Engine.Simulator.GPU = "h1000" },
		`"weight" is unknown`: func(p *sweep.Profile) {
			p.Engine.Simulator.Plant = map[string]any{"component": "weight", "bytes": 1}
		},
	} {
		plan := &sweep.Plan{Sweeps: []*sweep.Sweep{{Name: "s", Profiles: []*sweep.Profile{testProfile(t, change)}}}}
		dir := t.TempDir()
		if _, err := NewMachines(dir, plan); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left (%v)", want, left, err)
		}
	}
}

func TestParsePlantErrors(t *testing.T) {
	type object = map[string]any
	for name, test := range map[string]struct {
		plant object
		want  string
	}{
		"unknown name":      {object{"componnt": "weights"}, "expected changes, chaos"},
		"unknown component": {object{"component": "weight", "bytes": 1}, `"weight" is unknown; expected one of weights`},
		"no change":         {object{"component": "weights"}, "neither bytes nor factor"},
		"bytes of latency":  {object{"component": "latency", "bytes": 1}, "latency is no memory"},
		"unknown chaos":     {object{"chaos": object{"do": "sing"}}, `"sing" is unknown; expected one of `},
		"unknown phase":     {object{"chaos": object{"do": "hang", "at": "lunch"}}, `at = "lunch" is no phase`},
		"bad size":          {object{"component": "weights", "bytes": "much"}, "is not a size such as"},
		"bad duration":      {object{"chaos": object{"do": "slow", "for": "long"}}, "is not a duration"},
		"bad share":         {object{"chaos": object{"do": "hang", "share": 2}}, "share = 2 lies outside"},
		"bad signal":        {object{"chaos": object{"do": "die", "signal": "SIGFOO"}}, `signal "SIGFOO" is unknown`},
	} {
		if _, err := ParsePlant(test.plant); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
}

// scriptOf writes the whole script of one start.
func scriptOf(c *Config, r *request, env map[string]string, others []int64) *script {
	return newBuilder(c, r, env, nil).write(env, others)
}

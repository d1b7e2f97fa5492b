package simulate

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	vllmlog "github.com/vramsweep/vramsweep/runner/vllm/log"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// testConfig is a quiet simulator of a version.
func testConfig(t testing.TB, version, runnerName string) *Config {
	t.Helper()
	c := &Config{Version: version, ModelRunner: runnerName, Seed: 1, Repeat: 1}
	return c
}

// testRequest is a run of a model of the catalogue.
func testRequest(t testing.TB, c *Config, args ...string) *request {
	t.Helper()
	r, err := parseArgs("vllm bench latency", append([]string{
		"--model", "meta-llama/Llama-3.1-8B-Instruct", "--load-format", "dummy",
		"--input-len", "512", "--output-len", "32", "--batch-size", "8",
		"--num-iters", "5", "--num-iters-warmup", "2", "--max-model-len", "8192", "--output-json", "latency.json"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	if c.Model == nil {
		c.Model = llama()
	}
	if err := c.resolve(r); err != nil {
		t.Fatal(err)
	}
	return r
}

// llama is the model of most tests; the catalogue is read once.
var llama = sync.OnceValue(func() *models.Architecture { return lookUp("meta-llama/Llama-3.1-8B-Instruct") })

// highest is the most that a rank comes to hold.
func (m *rankMemory) highest() int64 {
	return max(m.serving(), m.warmed(), m.loaded()+max(m.activation, m.graphEst))
}

// rendered is a script as its two streams, with made-up process ids and a
// clock that runs with the script.
func rendered(s *script) (stdout, stderr []byte) {
	start := time.Date(2026, 11, 23, 19, 0, 0, 0, time.UTC)
	pid := func(who int) int {
		if s.figures != nil && s.figures.ranks == 1 && who == 0 {
			who = engine
		}
		return 1000 + who + 10
	}
	var out, err bytes.Buffer
	for i := range s.steps {
		st := &s.steps[i]
		w := &out
		if st.stderr {
			w = &err
		}
		w.Write(s.render(st, start.Add(time.Duration(st.at*float64(time.Second))), pid))
	}
	return out.Bytes(), err.Bytes()
}

// readBack reads a script's log as that of a real vLLM.
func readBack(t testing.TB, s *script) (*runner.Account, *vllmlog.Log) {
	t.Helper()
	stdout, stderr := rendered(s)
	log, err := vllmlog.ReadLogs(vllmlog.NamedReader{Name: "stdout", R: bytes.NewReader(stdout)}, vllmlog.NamedReader{Name: "stderr", R: bytes.NewReader(stderr)})
	if err != nil {
		t.Fatal(err)
	}
	if len(log.Accounts) != 1 {
		t.Fatalf("%d engines in the log of one run:\n%s", len(log.Accounts), stdout)
	}
	return log.Accounts[0], log
}

// near compares what was read with the truth; nil is allowed where the version
// does not print it.
func near(t *testing.T, name string, got *float64, want int64, tolerance float64, printed bool) {
	t.Helper()
	gib := float64(want) / runner.GiB
	switch {
	case got == nil && printed:
		t.Errorf("%s was not read, want %.4f GiB", name, gib)
	case got != nil && math.Abs(*got-gib) > tolerance:
		t.Errorf("%s = %.4f GiB, want %.4f", name, *got, gib)
	}
}

// TestReadBack prints the log of every version and reads it with the reader of
// real logs: the figures that were simulated must come out.
func TestReadBack(t *testing.T) {
	for _, v := range []string{"0.26.0", "0.33.0"} {
		for _, kind := range []struct {
			name, runner string
			args         []string
		}{
			{"plain", "", nil}, {"v1 runner", "v1", nil}, {"eager", "", []string{"--enforce-eager"}},
			{"tp2", "", []string{"-tp", "2"}},
			{"kv given", "", []string{"--kv-cache-memory-bytes", "10737418240"}},
		} {
			t.Run(v+" "+kind.name, func(t *testing.T) {
				c := testConfig(t, v, kind.runner)
				c.Noise = 0.01
				s := scriptOf(c, testRequest(t, c, kind.args...), nil, nil)
				if s.fail != nil {
					t.Fatalf("it failed: %s", s.fail.line())
				}
				if kind.runner != "" && s.figures.runner != kind.runner {
					t.Errorf("the runner is %s", s.figures.runner)
				}
				checkAccount(t, s)
			})
		}
	}
}

func checkAccount(t *testing.T, s *script) {
	a, log := readBack(t, s)
	f, given, eager := s.figures, s.request.kvBytes != nil, s.request.eager
	if a.VLLMVersion == nil || *a.VLLMVersion != f.words.version {
		t.Errorf("version = %v, want %s", deref(a.VLLMVersion), f.words.version)
	}
	if a.Error != nil {
		t.Errorf("an error was read: %+v", a.Error)
	}
	if n := log.Unread(); n != 0 {
		t.Errorf("%d memory lines were not understood: %+v", n, a.UnreadLines)
	}
	if want := int64(f.ranks); a.TensorParallelSize == nil || *a.TensorParallelSize != want {
		t.Errorf("tensor_parallel_size = %v, want %d", deref(a.TensorParallelSize), want)
	}
	if a.Engine == nil || *a.Engine != "V1" || a.ModelRunner == nil || *a.ModelRunner != f.runner {
		t.Errorf("engine = %v, runner %v, want %s", deref(a.Engine), deref(a.ModelRunner), f.runner)
	}
	if tokens := a.TotalGPUKVCacheTokens; tokens == nil || *tokens != f.kvTokens {
		t.Errorf("KV tokens = %v, want %d", deref(tokens), f.kvTokens)
	}
	var top rankMemory
	for i := range f.memory {
		top.weights, top.activation = max(top.weights, f.memory[i].weights), max(top.activation, f.memory[i].activation)
	}
	m := &f.memory[0]
	near(t, "weights", a.ModelWeightsGB, top.weights, 0.006, true)
	near(t, "KV available", a.AvailableKVCacheGB, m.available, 0.006, !given)
	if !eager {
		near(t, "graphs", a.GraphCaptureGB, m.graphs, 0.12, true) // the most of the ranks
	}
	// Without a pool line the reader of 0.33 cannot know whether the peak holds
	// an estimate of the graphs.
	near(t, "activations", a.ActivationsGB, top.activation, 0.025, !given && !(f.words.v33 && eager))
	near(t, "non-torch", a.NonTorchGB, m.nonTorch, 0.05, !given && !f.words.v33)
	if given {
		return
	}
	near(t, "requested", a.RequestedMemoryGB, f.requested, 0.006, true)
	for _, b := range a.Budget {
		if b.Closes == nil || !*b.Closes {
			t.Errorf("the budget of rank %d does not close: %+v", b.Rank, b)
		}
	}
}

func deref[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

// TestFailuresReadBack prints every failure and reads it as a real one.
func TestFailuresReadBack(t *testing.T) {
	for _, test := range []struct {
		name, kind string
		plant      Plant
		others     int64
		args       string
	}{
		{"bad utilization", "bad_argument", Plant{}, 0, "--gpu-memory-utilization 1.5"},
		{"too long for the model", "max_model_len_too_large", Plant{}, 0, "--max-model-len 1000000"},
		{"heads", "tp_divisibility", Plant{}, 0, "-tp 3"},
		{"no KV", "no_kv_memory", Plant{}, 0, "--gpu-memory-utilization 0.15"},
		{"KV too small", "kv_too_small", Plant{}, 0,
			"--gpu-memory-utilization 0.3 --max-model-len 131072 --max-num-batched-tokens 8192"},
		{"KV too small on two", "kv_too_small", Plant{}, 0,
			"--gpu-memory-utilization 0.2 --max-model-len 131072 -tp 2 --max-num-batched-tokens 8192"},
		{"free memory", "free_memory_check", Plant{}, 20 << 30, ""},
		{"free memory on two", "free_memory_check", Plant{}, 20 << 30, "-tp 2"},
		{"load", "oom", Plant{}, 70 << 30, "--gpu-memory-utilization 0.05"},
		{"input too long", "bad_argument", Plant{}, 0, "--input-len 9000"},
		{"hub", "hf_hub", Plant{Chaos: []Chaos{{Do: "fail_hub"}}}, 0, ""},
		{"nccl", "nccl", Plant{Chaos: []Chaos{{Do: "fail_nccl"}}}, 0, "-tp 2"},
		{"oom while measuring", "oom", Plant{Chaos: []Chaos{{Do: "fail_oom"}}}, 0, ""},
		{"oom while profiling on two", "oom", Plant{Chaos: []Chaos{{Do: "fail_oom", At: "profile"}}}, 0, "-tp 2"},
		{"oom while capturing", "oom", Plant{Chaos: []Chaos{{Do: "fail_oom", At: "capture"}}}, 0, ""},
	} {
		for _, v := range []string{"0.26.0", "0.33.0"} {
			t.Run(fmt.Sprintf("%s %s", v, test.name), func(t *testing.T) {
				c := testConfig(t, v, "")
				c.Plant = test.plant
				r := testRequest(t, c, strings.Fields(test.args)...)
				s := scriptOf(c, r, nil, []int64{test.others, test.others})
				if s.fail == nil {
					t.Fatal("it went well")
				}
				a, _ := readBack(t, s)
				if a.Error == nil {
					out, err := rendered(s)
					t.Fatalf("no error was read in\n%s\n%s", out, err)
				}
				if a.Error.Kind != test.kind {
					t.Errorf("read as %q, want %q: %s", a.Error.Kind, test.kind, a.Error.Message)
				}
				if last := s.steps[len(s.steps)-1].outcome; last == nil || last.code != 1 {
					t.Errorf("the exit code is not 1: %+v", last)
				}
			})
		}
	}
}

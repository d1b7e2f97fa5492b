package planner

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// planOf plans the text of a sweep file for an H100.
func planOf(t *testing.T, text string) *Planner {
	t.Helper()
	file := filepath.Join(t.TempDir(), "s.hcl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	plan, err := sweep.Load(file, sweep.Inputs{})
	if err != nil {
		t.Fatal(err)
	}
	g, ok := models.LookupGPU("h100-80gb")
	if !ok {
		t.Fatal("the catalogue has no H100")
	}
	return &Planner{Plan: plan, GPU: &g, From: "a test"}
}

// expectedSeconds plans a file and returns what it says of the time.
func expectedSeconds(t *testing.T, text string) float64 {
	t.Helper()
	d, err := planOf(t, text).Document()
	if err != nil || d.Seconds == nil {
		t.Fatalf("%v: %+v", err, d)
	}
	return *d.Seconds
}

// TestSessionPaysOneStart compares what a start of the engine costs in the two
// modes: all but one of them are saved, whatever the engine needs to start.
func TestSessionPaysOneStart(t *testing.T) {
	file := func(mode, eager, lengths string) string {
		return `sweep "s" {
  matrix {
    model     = ["Qwen/Qwen3-0.6B"]
    input_len = [` + lengths + `]
  }
  engine "vllm" {
    mode             = "` + mode + `"
    start            = "cold"
    enforce_eager    = ` + eager + `
    load_format      = "dummy"
    num_iters        = 1
    num_iters_warmup = 1
  }
}`
	}
	for eager, start := range map[string]float64{"true": eagerStartup, "false": graphStartup} {
		latency := expectedSeconds(t, file("latency", eager, "64, 128, 256"))
		session := expectedSeconds(t, file("session", eager, "64, 128, 256"))
		if saved := latency - session; math.Abs(saved-2*start) > 1e-6 || session < start {
			t.Errorf("enforce_eager = %s: latency %g s, session %g s", eager, latency, session)
		}
	}
}

// TestEarlierRunsStandIn: a profile takes as long as it took, one that is new as
// long as the others of its engine, and what that rests on is said.
func TestEarlierRunsStandIn(t *testing.T) {
	p := planOf(t, `sweep "s" {
  matrix {
    model     = ["Qwen/Qwen3-0.6B"]
    input_len = [64, 128]
  }
}`)
	known := p.Plan.Sweeps[0].Profiles[0]
	p.Times.Dir = "results"
	for _, seconds := range []float64{90, 10, 30} {
		p.Times.Add(known.ID, "vllm", "latency", false, seconds, nil)
	}
	p.Times.Add("another", "vllm", "latency", false, 70, nil)
	p.Times.Add("another", "vllm", "latency", false, 80, nil)
	d, err := p.Document()
	if err != nil {
		t.Fatal(err)
	}
	const want = "5 earlier runs in results"
	if a, b := *d.Profiles[0].ExpectedSeconds, *d.Profiles[1].ExpectedSeconds; a != 30 || b != 70 || d.TimeFrom != want {
		t.Errorf("%g s and %g s, from %q; want 30 and 70, from %q", a, b, d.TimeFrom, want)
	}
	p.Plan.Sweeps[0].Profiles[1].Engine.Mode = "session"
	var out strings.Builder
	if err := p.Text(&out); err != nil || !strings.Contains(out.String(), want+"; for other engines a plain model") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

// TestWarmStartsSave: all starts but the first save what the imports take, and the
// plan says how much that is of what it would be.
func TestWarmStartsSave(t *testing.T) {
	file := func(start string) string {
		return `sweep "s" {
  matrix {
    model     = ["Qwen/Qwen3-0.6B"]
    input_len = [64, 128, 256]
  }
  engine "vllm" { start = "` + start + `" }
}`
	}
	cold, warm := planOf(t, file("cold")), planOf(t, file("auto"))
	c, err := cold.Document()
	if err != nil {
		t.Fatal(err)
	}
	w, err := warm.Document()
	if err != nil {
		t.Fatal(err)
	}
	const want = 2 * (coldImports - warmImports)
	if *c.WarmSaves != 0 || math.Abs(*w.WarmSaves-want) > 1e-6 || math.Abs(*c.Seconds-*w.Seconds-want) > 1e-6 {
		t.Errorf("cold %g s, warm %g s, which saves %g s; want %g", *c.Seconds, *w.Seconds, *w.WarmSaves, want)
	}
	var out strings.Builder
	if err := warm.Text(&out); err != nil || !strings.Contains(out.String(), "warm starts save 1m32s of ") {
		t.Errorf("%v:\n%s", err, out.String())
	}
	// Earlier executions: cold runs of 60 s, 20 of them imports, warm ones of 5.
	for range 3 {
		for _, p := range []*Planner{cold, warm} {
			p.Times.Add("a", "vllm", "latency", false, 60, new(20.0))
			p.Times.Add("a", "vllm", "latency", true, 45, new(5.0))
		}
	}
	c, _ = cold.Document()
	w, _ = warm.Document()
	if *c.Seconds != 180 || *w.Seconds != 3*45+15 || *w.WarmSaves != 30 {
		t.Errorf("as before: cold %g s, warm %g s, which saves %g s", *c.Seconds, *w.Seconds, *w.WarmSaves)
	}
}

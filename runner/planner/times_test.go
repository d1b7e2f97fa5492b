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
		p.Times.Add(known.ID, "vllm", "latency", seconds)
	}
	p.Times.Add("another", "vllm", "latency", 70)
	p.Times.Add("another", "vllm", "latency", 80)
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

package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// expectedSeconds plans a file and returns what it says of the time.
func expectedSeconds(t *testing.T, text string) float64 {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "s.hcl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if code := run(&world{args: []string{"plan", "s.hcl", "--json", "--gpu", "h100-80gb"}, stdout: &out, stderr: os.Stderr, dir: dir}); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	var plan struct {
		Seconds *float64 `json:"expected_seconds"`
	}
	if err := json.Unmarshal(out.Bytes(), &plan); err != nil || plan.Seconds == nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return *plan.Seconds
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
		latency, session := expectedSeconds(t, file("latency", eager, "64, 128, 256")), expectedSeconds(t, file("session", eager, "64, 128, 256"))
		if saved := latency - session; math.Abs(saved-2*start) > 1e-6 || session < start {
			t.Errorf("enforce_eager = %s: latency %g s, session %g s", eager, latency, session)
		}
	}
}

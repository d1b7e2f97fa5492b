package main

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/recorded"
	"github.com/vramsweep/vramsweep/sinks"
)

// TestMeasured holds docs/measured to what its page says: both accounts agree,
// and little is left that neither explains.
func TestMeasured(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(recorded.Folder(t, "h100x2-v0.26"), "*/runs/*/*/run.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no run.json in docs/measured: %v", err)
	}
	const limit = runner.GiB / 5
	// What the page tells of: OPT 1.3B's profiling left 0.34 GiB behind for good, which samples do not tell from its
	// KV cache.
	named := map[string]float64{"20261124T032402Z-b84481-graphs-967798eea062d70b-r1 kv_alloc": 359284081}
	var sum, worst float64
	n := 0
	for _, file := range files {
		r, err := sinks.ReadResult(file)
		if err != nil {
			t.Fatal(err)
		}
		if r.Run.Synthetic {
			t.Errorf("%s is synthetic", file)
		}
		if r.Run.Outcome != runner.OutcomeOK {
			continue
		}
		for _, s := range r.Steps {
			if (s.Step != "kv_alloc" && s.Step != "capture") || s.DifferenceBytes == nil {
				continue
			}
			off := float64(*s.DifferenceBytes)
			if known, ok := named[r.Run.RunID+" "+s.Step]; ok && off == known {
				continue
			}
			if math.Abs(off) > limit {
				t.Errorf("%s: %s on GPU %d is %d bytes off", r.Run.RunID, s.Step, s.GPUIndex, *s.DifferenceBytes)
			}
		}
		for _, b := range r.VLLMInternalMetrics.Budget {
			if b.Closes == nil || !*b.Closes {
				t.Errorf("%s: the budget of rank %d does not close", r.Run.RunID, b.Rank)
			}
		}
		m := r.MemoryBreakdown
		if m == nil || m.ResidualAfterCaptureGB == nil {
			t.Errorf("%s has no residual after capture", r.Run.RunID)
			continue
		}
		share := math.Abs(*m.ResidualAfterCaptureGB / *m.NetIncreaseGB)
		sum, worst, n = sum+share, max(worst, share), n+1
	}
	if n < 26 || sum/float64(n) > 0.005 || worst > 0.02 {
		t.Errorf("residual after capture over %d runs: mean %.2f %%, worst %.2f %%; at most 0.5 and 2 %%", n,
			100*sum/float64(n), 100*worst)
	}
}

package attribution_test

import (
	"math"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
)

// TestLaterOrder holds the runs of vLLM 0.33 on an H200, whose graphs are captured
// for an estimate before the KV cache and whose kernels warm up before the capture:
// steps within 0.2 GiB of vLLM's words or null with a reason, and every part once.
func TestLaterOrder(t *testing.T) {
	var sum, worst float64
	n, steps, bases := 0, 0, 0
	for name, r := range attributed(t, "h200-v0.33") {
		for _, s := range r.Steps {
			if s.Step != "load" && s.Step != "kv_alloc" && s.Step != "capture" {
				continue
			}
			if s.DifferenceBytes == nil {
				if s.Step != "kv_alloc" || !strings.Contains(s.Reason, "between ") {
					t.Errorf("%s: %s is null: %q", name, s.Step, s.Reason)
				}
				bases++
				continue
			}
			steps++
			limit := 0.2
			if s.Step == "load" && strings.Contains(r.ModelInfo.Model, "gpt-oss") {
				limit = 0.23 // torch still holds blocks of the weights' conversion to mxfp4
			}
			if d := float64(*s.DifferenceBytes) / gib; math.Abs(d) > limit {
				t.Errorf("%s: %s differs from vLLM's by %+.3f GiB: %s", name, s.Step, d, s.Reason)
			}
		}
		b := r.MemoryBreakdown
		if b == nil || b.ResidualAfterCaptureGB == nil {
			t.Errorf("%s: no residual: %v", name, r.Missing)
			continue
		}
		share := math.Abs(*b.ResidualAfterCaptureGB) / *b.NetIncreaseGB * 100
		sum, worst, n = sum+share, max(worst, share), n+1
		for i, k := range r.Ranks {
			if k.BudgetDifferenceBytes == nil || math.Abs(float64(*k.BudgetDifferenceBytes)) > 0.025*gib {
				t.Errorf("%s: the budget of rank %d does not close: %v", name, i, k.BudgetDifferenceBytes)
			}
		}
		for _, flag := range b.Flags {
			if strings.HasPrefix(flag, "negative framework_overhead") {
				t.Errorf("%s: %s", name, flag)
			}
		}
	}
	if n < 23 || steps < 40 || sum/float64(n) > 0.2 || worst > 0.5 {
		t.Errorf("residual of %d runs: mean %.3f %%, worst %.3f %%; %d steps; at most 0.2 and 0.5 %% of 23 runs and 40 steps", n, sum/float64(n), worst, steps)
	}
	t.Logf("%d steps agree, %d bases of a KV cache lie between two samples; residual mean %.3f %%, worst %.3f %%", steps, bases, sum/float64(n), worst)
}

// TestHighestInKernelWarmup: the run whose kernel warm-up holds its highest use by
// 10 GiB says so, with its time, its step, and no graphs at that moment.
func TestHighestInKernelWarmup(t *testing.T) {
	for name, r := range attributed(t, "h200-v0.33") {
		if !strings.HasSuffix(r.ModelInfo.Model, "nemotron-h-8b") {
			continue
		}
		b := r.MemoryBreakdown
		if b.PeakPhase != runner.PhaseKernelWarmup || b.PeakAt == nil || math.Abs(*b.TotalMeasuredGB-138.51) > 0.01 || *b.GraphCaptureGB != 0 {
			t.Errorf("%s: highest %.2f GiB in %s at %v with %.2f GiB of graphs", name, *b.TotalMeasuredGB, b.PeakPhase, b.PeakAt, *b.GraphCaptureGB)
		}
		for _, s := range r.Steps {
			if s.Step == "kernel_warmup" && (s.Bytes == nil || math.Abs(float64(*s.Bytes)/gib-11.88) > 0.01) {
				t.Errorf("%s: kernel_warmup %v, expected 11.88 GiB", name, s.Bytes)
			}
		}
		if g := r.BeyondBudget[0]; g.HighestPhase != runner.PhaseKernelWarmup || !strings.Contains(g.Sentence, "at most in kernel_warmup") {
			t.Errorf("%s: %s: %s", name, g.HighestPhase, g.Sentence)
		}
		return
	}
	t.Fatal("no run of nemotron-h-8b in the recording")
}

// TestEnergyWithinSamples: the energy of a phase whose power is instantaneous lies
// within the range of its own samples x its length.
func TestEnergyWithinSamples(t *testing.T) {
	phases := 0
	for _, run := range openRecording(t, "h200-v0.33") {
		r := attributed(t, "h200-v0.33")[run.name]
		least, most := make([]float64, len(r.Phases)), make([]float64, len(r.Phases))
		for i := range r.Phases {
			least[i], most[i] = math.Inf(1), math.Inf(-1)
		}
		_ = run.store.Samples(run.dir).ReadSamples(func(batch []runner.Sample) error {
			for _, s := range batch {
				for i, p := range r.Phases {
					if s.Has&runner.HasPower != 0 && !s.TS.Before(*p.StartedAt) && s.TS.Before(*p.EndedAt) {
						least[i], most[i] = min(least[i], s.Power), max(most[i], s.Power)
					}
				}
			}
			return nil
		})
		for i, p := range r.Phases {
			if p.EnergyJ == nil {
				continue
			}
			phases++
			if mean := *p.EnergyJ / *p.DurationS; mean < least[i]*0.99 || mean > most[i]*1.01 {
				t.Errorf("%s: %s: %.1f W on average (%s), its samples lie between %.1f and %.1f", run.name, p.Phase, mean, p.EnergyMethod, least[i], most[i])
			}
		}
	}
	if phases < 100 {
		t.Errorf("%d phases with an energy, expected at least 100", phases)
	}
}

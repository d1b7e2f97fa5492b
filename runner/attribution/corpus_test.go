package attribution_test

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/runner/recorded"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A recordedRun is a run of a recording, as it was stored.
type recordedRun struct {
	name   string // of the run: that of its profile in the recordings of 0.26
	store  *sinks.Store
	dir    string
	stored *runner.Result
}

// again reads the run anew, as reparse does: its log, and a result that an
// Attributor has not filled.
func (r *recordedRun) again(t testing.TB) (*runner.Result, *runner.Measured) {
	t.Helper()
	catalogue, err := builtin()
	if err != nil {
		t.Fatal(err)
	}
	result, err := sinks.ReadResult(filepath.Join(r.store.Dir(), filepath.FromSlash(r.dir), "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	measured, err := r.store.Measured(r.dir, result, catalogue)
	if err != nil || measured == nil {
		t.Fatalf("%s: %v, expected the logs of the run", r.dir, err)
	}
	return result, measured
}

// openRecording lists the runs of a recording by their start.
func openRecording(t testing.TB, name string) []*recordedRun {
	t.Helper()
	store, err := sinks.View(recorded.Folder(t, name), sinks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	var runs []*recordedRun
	for dir, r := range store.Results(sinks.Predicate{}) {
		if r == nil {
			t.Fatalf("%s: damaged", dir)
		}
		runs = append(runs, &recordedRun{r.Run.RunID, store, dir, r})
	}
	slices.SortStableFunc(runs, func(a, b *recordedRun) int {
		return cmp.Or(a.stored.Run.StartedAt.Compare(b.stored.Run.StartedAt), cmp.Compare(a.name, b.name))
	})
	return runs
}

var (
	builtin = sync.OnceValues(models.Builtin)
	known   = map[string]map[string]*runner.Result{} // what attributed has done
)

// attributed attributes every run of a recording anew, by name. It does so once:
// tests change nothing in the results.
func attributed(t testing.TB, name string) map[string]*runner.Result {
	t.Helper()
	if done := known[name]; done != nil {
		return done
	}
	out := map[string]*runner.Result{}
	known[name] = out
	one := &attribution.Attributor{}
	for _, run := range openRecording(t, name) {
		result, measured := run.again(t)
		one.Attribute(result, measured)
		out[run.name] = result
	}
	return out
}

// recordings are the runs of vLLM 0.26 on H100s.
func recordings(t testing.TB) map[string]*runner.Result { return attributed(t, "h100-v0.26") }

const gib = float64(runner.GiB)

// TestDriverAgreesWithVLLM holds the driver's steps of the KV cache and of
// graph capture against vLLM's figures, in every run that ended well and on
// every GPU of it.
func TestDriverAgreesWithVLLM(t *testing.T) {
	steps := 0
	for name, r := range recordings(t) {
		if r.Run.Outcome != runner.OutcomeOK {
			continue
		}
		eager := r.BenchmarkParameters.EnforceEager != nil && *r.BenchmarkParameters.EnforceEager
		want := map[string]bool{"kv_alloc": true, "capture": !eager}
		for _, s := range r.Steps {
			if !want[s.Step] {
				continue
			}
			if s.Bytes == nil || s.VLLMBytes == nil || s.DifferenceBytes == nil {
				t.Errorf("%s: GPU %d: %s has driver %v and vLLM %v: %s", name, s.GPUIndex, s.Step, s.Bytes, s.VLLMBytes, s.Reason)
				continue
			}
			if d := float64(*s.DifferenceBytes) / gib; math.Abs(d) > 0.2 {
				t.Errorf("%s: GPU %d: %s differs from vLLM's by %+.3f GiB, at most 0.2 is allowed: %s", name, s.GPUIndex, s.Step, d, s.Reason)
			}
			if s.TFrom == nil || s.TTo == nil || !s.TTo.After(*s.TFrom) {
				t.Errorf("%s: GPU %d: %s does not name two samples in order", name, s.GPUIndex, s.Step)
			}
			steps++
		}
	}
	if steps < 28 {
		t.Errorf("%d steps were compared, at least 28 stand in the corpus", steps)
	}
}

// every yields every nth tick of a recording.
type every struct {
	all       runner.SampleReader
	n, offset int
}

func (e every) ReadSamples(yield func([]runner.Sample) error) error {
	i, last := e.offset, time.Duration(-1)
	return e.all.ReadSamples(func(batch []runner.Sample) error {
		for k := range batch {
			if batch[k].Offset != last {
				i, last = i+1, batch[k].Offset
			}
			if i%e.n != 0 {
				continue
			}
			if err := yield(batch[k : k+1]); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestFewerSamples thins the recordings to 5, 3 and 2 Hz: a step may then be
// missing, but none is wrong, and the residual stays where it is.
func TestFewerSamples(t *testing.T) {
	if testing.Short() {
		t.Skip("attributes each recording ten times")
	}
	for _, run := range openRecording(t, "h100-v0.26") {
		if run.stored.Run.Outcome != runner.OutcomeOK {
			continue
		}
		for _, n := range []int{2, 3, 5} {
			for offset := range n {
				thin(t, run, n, offset)
			}
		}
	}
}

func thin(t *testing.T, run *recordedRun, n, offset int) {
	r, measured := run.again(t)
	measured.Samples = every{measured.Samples, n, offset}
	(&attribution.Attributor{}).Attribute(r, measured)
	for _, s := range r.Steps {
		if s.Step != "kv_alloc" && s.Step != "capture" || s.DifferenceBytes == nil {
			continue
		}
		if d := float64(*s.DifferenceBytes) / gib; math.Abs(d) > 0.2 {
			t.Errorf("%s, every %dth sample from %d on: GPU %d: %s differs by %+.2f GiB: %s", run.name, n, offset, s.GPUIndex, s.Step, d, s.Reason)
		}
	}
	if b := r.MemoryBreakdown; b != nil && b.ResidualAfterCaptureGB != nil && math.Abs(*b.ResidualAfterCaptureGB) > 0.02**b.NetIncreaseGB {
		t.Errorf("%s, every %dth sample from %d on: residual %.2f GiB", run.name, n, offset, *b.ResidualAfterCaptureGB)
	}
}

// TestResidualAfterCapture holds what is left right after capture (after the
// KV allocation without graphs), with no term fitted to a run.
func TestResidualAfterCapture(t *testing.T) {
	var sum, worst float64
	n, worstOf := 0, ""
	for name, r := range recordings(t) {
		if r.Run.Outcome != runner.OutcomeOK {
			continue
		}
		b := r.MemoryBreakdown
		if b == nil || b.ResidualAfterCaptureGB == nil {
			t.Errorf("%s: no residual: %q", name, r.Missing["memory_breakdown.residual_after_capture_gb"])
			continue
		}
		share := math.Abs(*b.ResidualAfterCaptureGB) / *b.NetIncreaseGB * 100
		if share > worst {
			worst, worstOf = share, name
		}
		sum += share
		n++
	}
	if n < 14 {
		t.Fatalf("%d runs ended well, expected at least 14", n)
	}
	t.Logf("residual right after capture: mean %.2f %%, worst %.2f %% (%s) of %d runs", sum/float64(n), worst, worstOf, n)
	if mean := sum / float64(n); mean > 0.5 || worst > 2 {
		t.Errorf("residual right after capture: mean %.2f %% (at most 0.5), worst %.2f %% in %s (at most 2)", mean, worst, worstOf)
	}
}

// TestGrowthExcess reproduces the table of measured runs: use beyond
// requested + context + graphs outside the budget.
func TestGrowthExcess(t *testing.T) {
	all := recordings(t)
	for name, want := range map[string]struct{ gross, growth, unused float64 }{
		"llama-3.1-8b":           {1.38, 0, 0.12},
		"qwen3-32b":              {1.73, 0, 0.67},
		"llama8b-tok32768":       {-0.56, 0, 2.06},
		"llama8b-seqs16":         {-0.43, 0, 1.10},
		"gemma-3-1b":             {2.57, 1.59, 0},
		"llama8b-in8000":         {3.25, 1.75, 0},
		"smoke-qwen3-0.6b-eager": {1.59, 1.07, 0},
		"tp2-llama-3.1-8b":       {3.03, 0.83, 0},
	} {
		r := all[name]
		if r == nil {
			t.Errorf("%s is not in the corpus", name)
			continue
		}
		for _, b := range r.BeyondBudget {
			if b.GrossBytes == nil || b.GrowthExcessBytes == nil || b.HeadroomUnusedBytes == nil || b.HeadroomRetakenBytes == nil {
				t.Errorf("%s: GPU %d: a figure is missing: %+v", name, b.GPUIndex, b)
				continue
			}
			for what, pair := range map[string][2]float64{
				"gross": {float64(*b.GrossBytes) / gib, want.gross}, "growth_excess": {float64(*b.GrowthExcessBytes) / gib, want.growth},
				"headroom_unused": {float64(*b.HeadroomUnusedBytes) / gib, want.unused},
			} {
				if math.Abs(pair[0]-pair[1]) > 0.1 {
					t.Errorf("%s: GPU %d: %s is %.3f GiB, measured %.2f", name, b.GPUIndex, what, pair[0], pair[1])
				}
			}
		}
		growth := *r.MemoryBreakdown.GrowthExcessGB / float64(len(r.BeyondBudget))
		if math.Abs(growth-want.growth) > 0.1 {
			t.Errorf("%s: memory_breakdown.growth_excess_gb is %.3f a GPU, measured %.2f", name, growth, want.growth)
		}
	}
}

// TestPartsAddUp: the parts add up to the net increase exactly, in bytes per
// rank and in the GiB of the JSON, in every run that has a breakdown.
func TestPartsAddUp(t *testing.T) {
	for name, r := range recordings(t) {
		b := r.MemoryBreakdown
		if b == nil {
			if r.Missing["memory_breakdown"] == "" {
				t.Errorf("%s: no breakdown, and no reason", name)
			}
			continue
		}
		var sum float64
		for _, p := range []*float64{b.ModelWeightsGB, b.KVCacheGB, b.GraphCaptureGB, b.NonTorchGB, b.ContextGB, b.BuffersGB, b.ActivationsGB, b.GrowthExcessGB, b.FrameworkOverheadGB} {
			if p != nil {
				sum += *p
			}
		}
		if sum != *b.NetIncreaseGB || *b.TotalMeasuredGB-*b.BaselineGB != *b.NetIncreaseGB {
			t.Errorf("%s: the parts add up to %v GiB, the net increase is %v", name, sum, *b.NetIncreaseGB)
		}
		var bytes int64
		for _, row := range r.Breakdowns {
			bytes += row.Bytes
			if row.Confidence == "" || row.Source == "" {
				t.Errorf("%s: rank %d: %s has no confidence or no source", name, row.Rank, row.Component)
			}
		}
		if float64(bytes)/gib != *b.NetIncreaseGB {
			t.Errorf("%s: the rows add up to %d bytes, the net increase is %v GiB", name, bytes, *b.NetIncreaseGB)
		}
		if *b.FrameworkOverheadGB < 0 && len(b.Flags) == 0 {
			t.Errorf("%s: a negative framework_overhead is not flagged", name)
		}
		peak := 0.0
		for _, g := range r.BeyondBudget {
			peak += float64(*g.HighestBytes) / gib
		}
		if peak < *b.TotalMeasuredGB {
			t.Errorf("%s: total_measured_gb %.2f is above the sum of the GPUs' own peaks %.2f", name, *b.TotalMeasuredGB, peak)
		}
	}
}

// TestBudgetCloses checks the reading: requested = consumed + headroom + graph
// estimate + available KV on every rank that printed the terms.
func TestBudgetCloses(t *testing.T) {
	closed := 0
	for name, r := range recordings(t) {
		for i, row := range r.Ranks {
			full := row.RequestedBytes != nil && row.ModelWeightsBytes != nil && row.NonTorchBytes != nil && row.ActivationsReservedBytes != nil && row.KVCacheBytes != nil
			if !full {
				continue
			}
			if row.BudgetDifferenceBytes == nil {
				t.Errorf("%s: rank %d printed every term of its budget, but the difference is missing: %q", name, i, r.Missing["ranks[0].budget_difference_bytes"])
				continue
			}
			if d := float64(*row.BudgetDifferenceBytes) / gib; math.Abs(d) > 0.025+1e-9 { // half of 0.01 for each of five terms
				t.Errorf("%s: rank %d: the budget does not close: %+.4f GiB", name, i, d)
			}
			closed++
		}
	}
	if closed < 16 {
		t.Errorf("%d budgets were checked, at least 16 stand in the corpus", closed)
	}
}

// TestTwoGPUs: each rank on its GPU, NCCL as a step of its own, one KV size.
func TestTwoGPUs(t *testing.T) {
	all := recordings(t)
	r := all["tp2-llama-3.1-8b"]
	if r == nil {
		t.Fatal("tp2-llama-3.1-8b is not in the corpus")
	}
	if len(r.Ranks) != 2 || len(r.BeyondBudget) != 2 {
		t.Fatalf("%d ranks, %d GPUs", len(r.Ranks), len(r.BeyondBudget))
	}
	for i, row := range r.Ranks {
		if int(row.Rank) != i || row.GPUIndex == nil || int(*row.GPUIndex) != i {
			t.Errorf("rank %d: row %+v: GPU order is not rank order", i, row)
		}
		if row.ModelWeightsBytes == nil || math.Abs(float64(*row.ModelWeightsBytes)/gib-7.54) > 0.005 {
			t.Errorf("rank %d: weights %v", i, row.ModelWeightsBytes)
		}
		if row.KVCacheBytes == nil || math.Abs(float64(*row.KVCacheBytes)/gib-64.2) > 0.005 {
			t.Errorf("rank %d: KV cache %v, every rank allocates what the least of them has", i, row.KVCacheBytes)
		}
	}
	nccl := 0
	for _, s := range r.Steps {
		if s.Step != "nccl" {
			continue
		}
		nccl++
		if s.Bytes == nil || float64(*s.Bytes)/gib < 0.9 || float64(*s.Bytes)/gib > 1.0 {
			t.Errorf("GPU %d: NCCL and custom all-reduce take %v bytes, measured 0.95 GiB", s.GPUIndex, s.Bytes)
		}
		if s.DifferenceBytes == nil || math.Abs(float64(*s.DifferenceBytes)/gib) > 0.05 {
			t.Errorf("GPU %d: NCCL differs from total less free at start less context by %v", s.GPUIndex, s.DifferenceBytes)
		}
	}
	if nccl != 2 {
		t.Errorf("%d steps of NCCL, expected one a GPU", nccl)
	}
	for name, one := range all {
		if one.BenchmarkParameters.TensorParallelSize == 1 {
			for _, s := range one.Steps {
				if s.Step == "nccl" {
					t.Errorf("%s runs on one GPU and has a step of NCCL", name)
				}
			}
		}
	}
}

// TestInTheBox holds the run that docs/attribution.md is about to its figures.
func TestInTheBox(t *testing.T) {
	r := recordings(t)["llama-3.1-8b"]
	if r.Run.Outcome != runner.OutcomeOK || r.MemoryBreakdown == nil || len(r.Steps) == 0 {
		t.Fatalf("outcome %s, breakdown %v", r.Run.Outcome, r.MemoryBreakdown)
	}
	want := map[string]float64{"kv_alloc": 55.85, "capture": 0.98, "load": 15.0 + 0.49, "engine_warmup": 0.79, "bench_warmup": 0.25, "left_after": 0}
	for _, s := range r.Steps {
		if w, ok := want[s.Step]; ok {
			if s.Bytes == nil || math.Abs(float64(*s.Bytes)/gib-w) > 0.2 {
				t.Errorf("%s is %v bytes, expected %.2f GiB", s.Step, s.Bytes, w)
			}
			delete(want, s.Step)
		}
	}
	if len(want) > 0 {
		t.Errorf("steps are missing: %v", want)
	}
	var order []runner.Phase
	for _, p := range r.Phases {
		order = append(order, p.Phase)
	}
	expected := []runner.Phase{"baseline", "engine_init", "load", "profile", "kv_alloc", "capture", "engine_warmup", "bench_warmup", "measure", "teardown"}
	if len(order) < len(expected) {
		t.Fatalf("phases %v, expected %v", order, expected)
	}
	for i, p := range expected {
		if order[i] != p {
			t.Errorf("phase %d is %s, expected %s", i, order[i], p)
		}
	}
}

// TestSameFigures: the figures of the recordings are those that they were stored
// with.
func TestSameFigures(t *testing.T) {
	for _, run := range openRecording(t, "h100-v0.26") {
		r, measured := run.again(t)
		(&attribution.Attributor{}).Attribute(r, measured)
		now := map[string]int64{}
		for _, s := range r.Steps {
			if s.Bytes != nil {
				now[fmt.Sprint(s.GPUIndex, s.Step)] = *s.Bytes
			}
		}
		for _, b := range r.Breakdowns {
			now[fmt.Sprint("part", b.Rank, b.Component)] = b.Bytes
		}
		for _, s := range run.stored.Steps {
			if got, ok := now[fmt.Sprint(s.GPUIndex, s.Step)]; s.Bytes != nil && (!ok || got != *s.Bytes) {
				t.Errorf("%s: GPU %d: step %s is %d bytes, was %d", run.name, s.GPUIndex, s.Step, got, *s.Bytes)
			}
		}
		for _, b := range run.stored.Breakdowns {
			if got := now[fmt.Sprint("part", b.Rank, b.Component)]; got != b.Bytes {
				t.Errorf("%s: rank %d: %s is %d bytes, was %d", run.name, b.Rank, b.Component, got, b.Bytes)
			}
		}
	}
}

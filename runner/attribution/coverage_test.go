package attribution_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
)

// without leaves out the samples of a stretch.
type without struct {
	all      runner.SampleReader
	from, to time.Duration
}

func (w without) ReadSamples(yield func([]runner.Sample) error) error {
	return w.all.ReadSamples(func(batch []runner.Sample) error {
		for i := range batch {
			if batch[i].Offset >= w.from && batch[i].Offset < w.to {
				continue
			}
			if err := yield(batch[i : i+1]); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestUncovered: a run whose measuring phase (47 to 52 s) was not sampled where it
// counts proves nothing, and says what to change.
func TestUncovered(t *testing.T) {
	for _, c := range []struct {
		from, to time.Duration
		want     runner.Quality
	}{
		{0, 0, runner.QualityFull}, {47 * time.Second, 49 * time.Second, runner.QualityFull},
		{49 * time.Second, 53 * time.Second, runner.QualitySparse}, {46 * time.Second, 53 * time.Second, runner.QualityBlind},
	} {
		r, m := run().measured()
		m.Samples = without{m.Samples, c.from, c.to}
		(&attribution.Attributor{}).Attribute(r, m)
		if r.Run.Quality != c.want {
			t.Errorf("without %v to %v: %s (%s), want %s", c.from, c.to, r.Run.Quality, r.Run.QualityDetail, c.want)
		}
		b, full := r.BeyondBudget[0], c.want == runner.QualityFull
		if given := b.HighestBytes != nil && b.SafeUtilization != nil && b.GrowthExcessBytes != nil && r.MemoryBreakdown != nil; given != full {
			t.Errorf("without %v to %v: highest %v, safe %v", c.from, c.to, b.HighestBytes, b.SafeUtilization)
		}
		if !full && !strings.Contains(b.Sentence, "interval") {
			t.Errorf("%q does not say what to change", b.Sentence)
		}
	}
}

// TestBroken: what cannot be is named.
func TestBroken(t *testing.T) {
	r := run().attribute()
	if broken := r.Broken(); len(broken) > 0 {
		t.Fatalf("%v", broken)
	}
	for i := range r.Breakdowns {
		if r.Breakdowns[i].Component == "kv_cache" {
			r.Breakdowns[i].Bytes += 1 << 40
		}
	}
	if broken := strings.Join(r.Broken(), "; "); !strings.Contains(broken, "add up") {
		t.Errorf("%q", broken)
	}
}

// smaller are samples as of a card of 32 GiB, on which half as much is notable.
type smaller struct{ all runner.SampleReader }

func (s smaller) ReadSamples(yield func([]runner.Sample) error) error {
	return s.all.ReadSamples(func(batch []runner.Sample) error {
		batch = slices.Clone(batch)
		for i := range batch {
			batch[i].MemoryTotal, batch[i].Has = 32<<30, batch[i].Has|runner.HasMemoryTotal
		}
		return yield(batch)
	})
}

// TestHalfAsNotable: what the recordings say does not hang on the size from which a rise
// counts as an allocation.
func TestHalfAsNotable(t *testing.T) {
	figures, steps, other := 0, 0, 0
	for _, name := range []string{"h100-v0.26", "h200-v0.33"} {
		one := &attribution.Attributor{}
		for _, run := range openRecording(t, name) {
			want := attributed(t, name)[run.name]
			r, m := run.again(t)
			m.Samples = smaller{m.Samples}
			one.Attribute(r, m)
			if a, b := r.MemoryBreakdown, want.MemoryBreakdown; a != nil && b != nil {
				for field, of := range map[string]func(*runner.Breakdown) *float64{
					"total_measured_gb":     func(b *runner.Breakdown) *float64 { return b.TotalMeasuredGB },
					"growth_excess_gb":      func(b *runner.Breakdown) *float64 { return b.GrowthExcessGB },
					"framework_overhead_gb": func(b *runner.Breakdown) *float64 { return b.FrameworkOverheadGB },
				} {
					x, y := of(a), of(b)
					if x == nil || y == nil {
						continue
					}
					figures++
					if off := float64(a.UncertaintyBytes[field]+b.UncertaintyBytes[field]) / gib; math.Abs(*x-*y) > off {
						t.Errorf("%s: %s is %.3f GiB, and %.3f with half as notable; both together may be off by %.3f", run.name, field, *y, *x, off)
					}
				}
			}
			for i := range min(len(r.Steps), len(want.Steps)) {
				a, b := &r.Steps[i], &want.Steps[i]
				if a.Step != b.Step || a.Bytes == nil || b.Bytes == nil {
					continue
				}
				steps++
				if d := *a.Bytes - *b.Bytes; max(d, -d) > *a.UncertaintyB+*b.UncertaintyB {
					other++
					t.Logf("%s: %s is %d MiB, and %d with half as notable", run.name, b.Step, *b.Bytes>>20, *a.Bytes>>20)
				}
			}
		}
	}
	t.Logf("%d figures are the same; of %d steps %d are not", figures, steps, other)
	if figures < 90 || steps < 300 || other > steps/100 {
		t.Errorf("%d figures and %d steps were compared, %d of the steps are others", figures, steps, other)
	}
}

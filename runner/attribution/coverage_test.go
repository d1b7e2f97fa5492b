package attribution_test

import (
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

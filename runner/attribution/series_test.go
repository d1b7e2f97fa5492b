package attribution

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

const second = time.Second

func TestSeriesKeepsPeakWhenFull(t *testing.T) {
	var s series
	rng := rand.New(rand.NewPCG(1, 2))
	peak, peakAt := int64(0), time.Duration(0)
	for i := range 5 * maxSpans { // a noisy series: every sample differs
		v := rng.Int64N(64 << 20)
		if i == 3*maxSpans {
			v = 80 << 30
		}
		at := time.Duration(i) * time.Millisecond
		if v > peak {
			peak, peakAt = v, at
		}
		s.add(at, v)
	}
	if len(s.spans) > maxSpans {
		t.Errorf("%d spans, at most %d are kept", len(s.spans), maxSpans)
	}
	if s.peak != peak || s.peakAt != peakAt {
		t.Errorf("peak %d at %v, expected %d at %v", s.peak, s.peakAt, peak, peakAt)
	}
	if got, ok := s.highest(0, time.Hour); !ok || abs(got.level-peak) > s.tolerance {
		t.Errorf("highest %v, expected %d to a tolerance of %d", got, peak, s.tolerance)
	}
	var n int64
	for i, sp := range s.spans {
		n += int64(sp.n)
		if i > 0 && sp.from <= s.spans[i-1].to {
			t.Fatalf("span %d starts at %v, the one before ends at %v", i, sp.from, s.spans[i-1].to)
		}
	}
	if n != 5*maxSpans {
		t.Errorf("the spans hold %d samples of %d", n, 5*maxSpans)
	}
}

// TestSeriesIsExactBelowItsSize compares look-ups with the samples themselves.
func TestSeriesIsExactBelowItsSize(t *testing.T) {
	var s series
	rng := rand.New(rand.NewPCG(3, 4))
	var at []time.Duration
	var level []int64
	for i := range 2000 {
		v := int64(rng.IntN(5)) << 30
		at, level = append(at, time.Duration(i)*10*time.Millisecond), append(level, v)
		s.add(at[i], v)
	}
	for range 500 {
		q := time.Duration(rng.Int64N(int64(21 * second)))
		k := min(int(q/(10*time.Millisecond)), len(at)-1)
		if got, ok := s.at(q); !ok || got.level != level[k] || got.at > q {
			t.Fatalf("at %v: %v, expected level %d", q, got, level[k])
		}
		from := time.Duration(rng.Int64N(int64(19 * second)))
		to := from + time.Duration(rng.Int64N(int64(second))) + 10*time.Millisecond
		i, j := int((from+10*time.Millisecond-1)/(10*time.Millisecond)), int(to/(10*time.Millisecond))
		want := slices.Max(level[i:min(j+1, len(level))])
		if got, ok := s.highest(from, to); !ok || got.level != want && s.spans[s.index(from)].level != got.level {
			t.Fatalf("highest in [%v, %v] is %v, expected %d", from, to, got, want)
		}
	}
	if _, ok := s.at(-1); ok {
		t.Error("a level before the first sample")
	}
}

func TestRises(t *testing.T) {
	var s series
	for i, v := range []int64{0, 0, 100, 300, 300, 300, 200, 700, 700} {
		s.add(time.Duration(i)*100*time.Millisecond, v)
	}
	got := s.rises(0, second, 100, 150*time.Millisecond)
	if len(got) != 2 || got[0].bytes() != 300 || got[1].bytes() != 500 {
		t.Fatalf("rises %+v, expected 300 (two samples) and 500", got)
	}
	if got[0].before.at != 100*time.Millisecond || got[0].after.at != 300*time.Millisecond {
		t.Errorf("the first rise lies between %v and %v", got[0].before.at, got[0].after.at)
	}
	if p, ok := s.plateau(0, second, 250*time.Millisecond, 250); !ok || p.level != 300 {
		t.Errorf("plateau %+v, expected 300", p)
	}
	if _, ok := s.plateau(0, second, 900*time.Millisecond, 0); ok {
		t.Error("a plateau that is longer than the series")
	}
}

// TestQuantiles compares with sorting all samples and interpolating, as numpy
// does.
func TestQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{1, 2, 3, 10, 999} {
		var h histogram
		var all []float64
		for range n {
			v := int64(rng.IntN(50)) << 21
			h.add(v)
			all = append(all, float64(v))
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.5, 0.95, 1} {
			pos := q * float64(n-1)
			lo, hi := all[int(math.Floor(pos))], all[int(math.Ceil(pos))]
			want := lo + (hi-lo)*(pos-math.Floor(pos))
			if got := h.quantiles(q)[0]; math.Abs(got-want) > 1e-6 {
				t.Errorf("%d samples: quantile %v is %v, expected %v", n, q, got, want)
			}
		}
		s := h.stats()
		if *s.MinGB*runner.GiB != all[0] || *s.MaxGB*runner.GiB != all[n-1] || s.NumSamples != int64(n) {
			t.Errorf("%d samples: %+v, expected %v to %v", n, s, all[0], all[n-1])
		}
	}
	if s := (&histogram{}).stats(); s.MinGB != nil || s.MedianGB != nil {
		t.Errorf("no samples have statistics: %+v", s)
	}
}

func TestHistogramStaysSmall(t *testing.T) {
	var h histogram
	for i := range int64(4 * maxDistinct) {
		h.add(i * 4096)
	}
	if len(h.counts) > maxDistinct {
		t.Errorf("%d levels are kept apart, at most %d", len(h.counts), maxDistinct)
	}
	want := float64(2*maxDistinct) * 4096
	if got := h.quantiles(0.5)[0]; math.Abs(got-want) > 2*float64(h.quantum) {
		t.Errorf("median %v, expected %v to a quantum of %d", got, want, h.quantum)
	}
	if h.min != 0 || h.max != (4*maxDistinct-1)*4096 {
		t.Errorf("least and most are %d and %d: they stay exact", h.min, h.max)
	}
}

// TestMeter: a counter that moves every 100 ms, read every 10 ms, gives the
// energy between two moments to the straight line.
func TestMeter(t *testing.T) {
	marks := []time.Duration{0, 950 * time.Millisecond, 2050 * time.Millisecond, 3 * second, 10 * second}
	m := newMeter(marks)
	for at := time.Duration(0); at <= 3*second; at += 10 * time.Millisecond {
		step := at / (100 * time.Millisecond)
		m.reach(at, 50+20*float64(step)) // 200 W
	}
	m.finish(3 * second)
	if got, _, ok := m.between(marks[1], marks[2]); !ok || math.Abs(got-220) > 1e-6 {
		t.Errorf("energy %v (%v), expected 220 J", got, ok)
	}
	if got, _, ok := m.between(marks[0], marks[3]); !ok || math.Abs(got-600) > 1e-6 {
		t.Errorf("energy %v (%v), expected 600 J", got, ok)
	}
	if got, _, ok := m.between(marks[3], marks[4]); ok {
		t.Errorf("energy %v after the last reading", got)
	}
	m.gap(1*second, 2*second)
	if got, _, ok := m.between(marks[0], marks[3]); ok {
		t.Errorf("energy %v over a gap", got)
	}
}

// TestThinning: at most 2,000 points, and the highest and the lowest are among
// them.
func TestThinning(t *testing.T) {
	for _, n := range []int{1, 5, 1999, 500_000} {
		last := time.Duration(n-1) * 10 * time.Millisecond
		th := thinning{width: max(1, last/thinBuckets+1)}
		for i := range n {
			v := int64(1000)
			if i == n/3 {
				v = 9999
			}
			if i == n/2 {
				v = 1
			}
			th.add(thinPoint{at: time.Duration(i) * 10 * time.Millisecond, mem: v})
		}
		th.flush()
		if len(th.points) > 2000 {
			t.Errorf("%d ticks thin to %d points", n, len(th.points))
		}
		has := func(v int64) bool {
			return slices.ContainsFunc(th.points, func(p thinPoint) bool { return p.mem == v })
		}
		if n > 4 && (!has(9999) || !has(1)) {
			t.Errorf("%d ticks: the highest or the lowest is lost", n)
		}
		if !slices.IsSortedFunc(th.points, func(a, b thinPoint) int { return int(a.at - b.at) }) {
			t.Errorf("%d ticks: points are not in order", n)
		}
	}
}

// TestMomentsOfRanks: a rank's own line counts before one that nobody signed,
// and that before another rank's.
func TestMomentsOfRanks(t *testing.T) {
	start := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	at := func(rank int, s int) runner.LogEvent {
		return runner.LogEvent{Kind: runner.EventLoadEnd, Rank: rank, Arrived: start.Add(time.Duration(s) * second)}
	}
	events := []runner.LogEvent{at(0, 1), at(-1, 2), at(1, 3), at(1, 4), {Kind: runner.EventLoadEnd, Rank: 1}}
	m := &moments{events: events, start: start}
	for rank, want := range map[int]time.Duration{0: 1 * second, 1: 3 * second, 2: 2 * second} {
		if got := m.first(runner.EventLoadEnd, rank); got.hi != want {
			t.Errorf("rank %d: %v, expected %v", rank, got.hi, want)
		}
	}
	if got := m.final(runner.EventLoadEnd, 1); got.hi != 4*second {
		t.Errorf("the last of rank 1 is %v, expected 4 s", got.hi)
	}
	if m.first(runner.EventCaptureEnd, 0).present {
		t.Error("a moment that no line marks")
	}
}

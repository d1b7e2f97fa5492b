package gpu

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

func TestHistogram(t *testing.T) {
	var h histogram
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * 100 * time.Microsecond)
	}
	for q, want := range map[float64]float64{0.5: 50, 0.99: 99} {
		got := *h.quantile(q)
		if math.Abs(got-want)/want > 0.005 {
			t.Errorf("quantile %v is %v ms, want %v", q, got, want)
		}
	}
	for _, v := range []uint64{0, 1, 511, 512, 1e7, 1e10, 1 << 40, math.MaxUint64} {
		i := histIndex(v)
		if i < 0 || i >= 32*histSub {
			t.Errorf("%d falls outside", v)
		}
		if v > 1024 && v < 1<<40 && math.Abs(histValue(i)-float64(v))/float64(v) > 0.002 {
			t.Errorf("%d is kept as %v", v, histValue(i))
		}
	}
}

func TestMeterCountsMissedTicks(t *testing.T) {
	epoch := time.Now()
	var got []runner.Sample
	m := newMeter(10*time.Millisecond, epoch, func(s []runner.Sample) { got = append(got, s...) })
	for _, at := range []int{0, 10, 21, 29, 60, 70, 770} {
		m.tick([]runner.Sample{{GPU: 1, Offset: time.Duration(at) * time.Millisecond, Has: runner.HasMemoryUsed}})
	}
	r := m.report("x", epoch.Add(780*time.Millisecond))
	if r.Ticks != 7 || r.Missed != 2+69 {
		t.Errorf("%d ticks, %d missed; want 7 and 71", r.Ticks, r.Missed)
	}
	for i, want := range []bool{false, false, false, false, true, false, true} {
		if got[i].Gap != want {
			t.Errorf("sample %d: gap %v", i, got[i].Gap)
		}
	}
	if len(r.Gaps) != 1 || r.Gaps[0].GPU != 1 || r.Gaps[0].To.Sub(r.Gaps[0].From) != 700*time.Millisecond {
		t.Errorf("gaps %+v", r.Gaps)
	}
	if !got[6].TS.Equal(epoch.Add(770*time.Millisecond)) || got[6].TS.Location() != time.UTC {
		t.Errorf("time %v", got[6].TS)
	}
}

// TestScheduleLeavesMissedTicksOut holds a tick up: what was missed is not
// caught up with.
func TestScheduleLeavesMissedTicksOut(t *testing.T) {
	s := newSchedule(10 * time.Millisecond)
	defer s.stop()
	s.wait(context.Background())
	first := s.next.Add(-10 * time.Millisecond)
	time.Sleep(55 * time.Millisecond)
	s.wait(context.Background())
	if late := time.Now(); !s.next.After(late.Add(-time.Millisecond)) {
		t.Errorf("the next deadline %v lies in the past", s.next.Sub(late))
	}
	if off := s.next.Sub(first) % (10 * time.Millisecond); off != 0 {
		t.Errorf("deadlines moved by %v", off)
	}
}

func TestRunInterval(t *testing.T) {
	for _, d := range []time.Duration{time.Millisecond, 11 * time.Second} {
		if _, err := (Run{Interval: d}).check(); err == nil || !strings.Contains(err.Error(), "10ms to 10s") {
			t.Errorf("%v: %v", d, err)
		}
	}
	if r, err := (Run{}).check(); err != nil || r.Interval != DefaultInterval {
		t.Errorf("%v %v", r.Interval, err)
	}
}

func TestUnits(t *testing.T) {
	for _, tt := range []struct {
		d    dimension
		unit string
		want float64
		ok   bool
	}{
		{dimBytes, "MiB", 1 << 20, true}, {dimBytes, "MB", 1 << 20, true}, {dimBytes, "GB", 1 << 30, true}, {dimBytes, "W", 0, false}, {dimPower, "uW", 1e-6, true},
		{dimPower, "mW", 1e-3, true}, {dimTemp, "°C", 1, true}, {dimTemp, "F", 0, false}, {dimClock, "Mhz", 1, true}, {dimPercent, "%", 1, true}, {dimPercent, "", 0, false},
	} {
		if got, ok := unitFactor(tt.d, []byte(tt.unit)); ok != tt.ok || ok && got != tt.want {
			t.Errorf("%q: %v %v", tt.unit, got, ok)
		}
	}
}

func TestParseDecimal(t *testing.T) {
	for text, want := range map[string]float64{"71.24 W": 71.24, "0": 0, " -3 C": -3, "81559 MiB": 81559, "0.1": 0.1, "344949.59": 344949.59} {
		if got, _, ok := parseDecimal([]byte(text)); !ok || got != want {
			t.Errorf("%q: %v %v", text, got, ok)
		}
	}
	for _, bad := range []string{"", "N/A", "[N/A]", ".", "-", "1234567890123456789012"} {
		if _, _, ok := parseDecimal([]byte(bad)); ok {
			t.Errorf("%q was read", bad)
		}
	}
}

package sampling

import (
	"bytes"
	"math"
	"slices"
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
	for _, d := range []time.Duration{0, 1, time.Second, math.MaxInt64} {
		one := histogram{}
		one.add(d)
		if got := *one.quantile(0.5) * 1e6; math.Abs(got-float64(d)) > max(1.01, 0.002*float64(d)) {
			t.Errorf("%d ns is kept as %v", d, got)
		}
	}
	if (&histogram{}).quantile(0.5) != nil {
		t.Error("a quantile of nothing")
	}
}

func TestMeterCountsMissedTicks(t *testing.T) {
	epoch := time.Now()
	var got []runner.Sample
	m := NewMeter(10*time.Millisecond, epoch, func(s []runner.Sample) { got = append(got, s...) })
	for _, at := range []int{0, 10, 21, 29, 60, 70, 770} {
		m.Tick([]runner.Sample{{GPU: 1, Offset: time.Duration(at) * time.Millisecond, Has: runner.HasMemoryUsed}})
	}
	r := m.Report("x", epoch.Add(780*time.Millisecond))
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

// TestScheduleLeavesMissedTicksOut holds ticks up: what was missed is not caught
// up with, and deadlines stay in their row.
func TestScheduleLeavesMissedTicksOut(t *testing.T) {
	s := NewSchedule(10 * time.Millisecond)
	defer s.Stop()
	first := s.next
	for _, tt := range []struct{ now, next time.Duration }{
		{0, 10 * time.Millisecond}, {12 * time.Millisecond, 20 * time.Millisecond},
		{75 * time.Millisecond, 80 * time.Millisecond}, {90 * time.Millisecond, 100 * time.Millisecond},
	} {
		s.advance(first.Add(tt.now))
		if got := s.next.Sub(first); got != tt.next {
			t.Errorf("at %v the next deadline is %v, want %v", tt.now, got, tt.next)
		}
	}
}

func TestRunInterval(t *testing.T) {
	for _, d := range []time.Duration{time.Millisecond, 11 * time.Second} {
		if _, err := (Run{Interval: d}).Check(); err == nil || !strings.Contains(err.Error(), "10ms to 10s") {
			t.Errorf("%v: %v", d, err)
		}
	}
	if r, err := (Run{}).Check(); err != nil || r.Interval != DefaultInterval {
		t.Errorf("%v %v", r.Interval, err)
	}
}

// TestPutRefusesTheImpossible has what tools and drivers print when an account
// underflows, a sensor is not there or a unit is not what it seems.
func TestPutRefusesTheImpossible(t *testing.T) {
	for _, tt := range []struct {
		f runner.Fields
		v float64
	}{
		{runner.HasMemoryUsed, -8589934592 * (1 << 30)}, {runner.HasMemoryUsed, 17592186044415 * (1 << 20)},
		{runner.HasMemoryTotal, math.MaxUint64}, {runner.HasPower, -1}, {runner.HasPower, math.NaN()},
		{runner.HasClockSM, -500}, {runner.HasClockMem, math.MaxUint32}, {runner.HasUtilization, 65535},
		{runner.HasTemperature, 65535}, {runner.HasEnergy, -1}, {runner.HasHostRSS, 1},
	} {
		var s runner.Sample
		if Put(&s, tt.f, tt.v) || s != (runner.Sample{}) {
			t.Errorf("%s took %v: %+v", FieldName(tt.f), tt.v, s)
		}
	}
	s := runner.Sample{Has: runner.HasMemoryUsed | runner.HasMemoryTotal, MemoryUsed: 2 << 30, MemoryTotal: 1 << 30}
	if MemoryFits(&s) {
		t.Error("2 GiB in use of 1 GiB were believed")
	}
	if s.MemoryUsed = 1 << 29; !MemoryFits(&s) || !MemoryFits(&runner.Sample{}) {
		t.Error("half of the memory in use, or nothing told, was refused")
	}
}

func TestUnits(t *testing.T) {
	for _, tt := range []struct {
		d    Dimension
		unit string
		want float64
		ok   bool
	}{
		{Bytes, "MiB", 1 << 20, true}, {Bytes, "MB", 1 << 20, true}, {Bytes, "GB", 1 << 30, true}, {Bytes, "W", 0, false},
		{Power, "uW", 1e-6, true}, {Power, "mW", 1e-3, true}, {Temp, "°C", 1, true}, {Temp, "F", 0, false},
		{Clock, "Mhz", 1, true}, {Percent, "%", 1, true}, {Percent, "", 0, false},
	} {
		if got, ok := UnitFactor(tt.d, []byte(tt.unit)); ok != tt.ok || ok && got != tt.want {
			t.Errorf("%q: %v %v", tt.unit, got, ok)
		}
	}
}

func TestParseDecimal(t *testing.T) {
	for text, want := range map[string]float64{"71.24 W": 71.24, "0": 0, " -3 C": -3, "81559 MiB": 81559, "0.1": 0.1, "344949.59": 344949.59} {
		if got, _, ok := ParseDecimal([]byte(text)); !ok || got != want {
			t.Errorf("%q: %v %v", text, got, ok)
		}
	}
	for _, bad := range []string{"", "N/A", "[N/A]", ".", "-", "1.2.3"} {
		if _, _, ok := ParseDecimal([]byte(bad)); ok {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestParseHex(t *testing.T) {
	for text, want := range map[string]int64{"0x0000000000000004": 4, " 0xAf ": 0xaf, "0x7fffffffffffffff": math.MaxInt64} {
		if got, ok := ParseHex([]byte(text)); !ok || got != want {
			t.Errorf("%q: %v %v", text, got, ok)
		}
	}
	for _, bad := range []string{"", "4", "0x", "0xg", "[N/A]", "0xffffffffffffffff"} {
		if _, ok := ParseHex([]byte(bad)); ok {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestWire(t *testing.T) {
	want := runner.Sample{
		GPU: 3, Has: MemoryFields | runner.HasEnergy, Offset: 5, Read: 7, MemoryUsed: 1, MemoryReserved: 2, MemoryTotal: 3,
		ThrottleReasons: 4, Power: 1.5, Energy: 2.5, Temperature: 3.5, MemoryTemp: 4.5, Utilization: 5, MemoryUtil: 6,
		ClockSM: 7, ClockMem: 8,
	}
	b := AppendSample(nil, &want)
	if len(b) != sampleSize {
		t.Fatalf("%d bytes, want %d", len(b), sampleSize)
	}
	var got runner.Sample
	decodeSample(b, &got)
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestFrames sends frames through in pieces of several sizes.
func TestFrames(t *testing.T) {
	var stream bytes.Buffer
	w := NewWire(&stream)
	for _, text := range []string{"", "a", "some more"} {
		w.Frame('X', []byte(text))
	}
	for _, piece := range []int{1, 3, 100} {
		var f frames
		var got []string
		for b := stream.Bytes(); len(b) > 0; {
			n := min(piece, len(b))
			if !f.take(b[:n], func(_ byte, body []byte) { got = append(got, string(body)) }) {
				t.Fatal("garbled")
			}
			b = b[n:]
		}
		if !slices.Equal(got, []string{"", "a", "some more"}) {
			t.Errorf("pieces of %d: %q", piece, got)
		}
	}
	var f frames
	if f.take([]byte("Traceback (most recent call last)"), func(byte, []byte) {}) {
		t.Error("text was read as frames")
	}
}

package gpu

import (
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// How an Energy was found.
const (
	EnergyCounter  = "counter"
	EnergyIntegral = "integral of power.instant"
)

// An EnergyMeter finds the energy of one GPU over a window of time, from the
// samples of that GPU in order: the difference of the counter where there is
// one, else the integral of instantaneous power. Averaged power makes no
// energy: over a short phase it is that of the second before.
type EnergyMeter struct {
	from, to time.Duration // the window, as offsets
	instant  bool

	counter  [2]point // the counter at or before from, and at or after to
	inside   [2]point // first and last reading inside the window
	hasIn    bool
	hasCount [2]bool

	last     point // power
	hasPower bool
	joules   float64
	covered  time.Duration
}

type point struct {
	at time.Duration
	v  float64
}

// maxPowerStep bounds how far apart two power readings may be that are joined
// by a line.
const maxPowerStep = 2 * time.Second

// NewEnergyMeter begins a window. kind is the sampler's PowerKind.
func NewEnergyMeter(from, to time.Duration, kind string) *EnergyMeter {
	return &EnergyMeter{from: from, to: to, instant: kind == PowerInstant}
}

// Add takes the next sample of the GPU.
func (e *EnergyMeter) Add(s *runner.Sample) {
	if s.Has&runner.HasEnergy != 0 {
		e.count(point{s.Offset, s.Energy})
	}
	if s.Has&runner.HasPower != 0 && e.instant {
		e.power(point{s.Offset, s.Power})
	}
}

func (e *EnergyMeter) count(p point) {
	switch {
	case p.at <= e.from:
		e.counter[0], e.hasCount[0] = p, true
	case p.at >= e.to:
		if !e.hasCount[1] {
			e.counter[1], e.hasCount[1] = p, true
		}
	default:
		if !e.hasIn {
			e.inside[0], e.hasIn = p, true
		}
		e.inside[1] = p
	}
}

// power adds the trapezoid between two readings, cut at the window's edges.
func (e *EnergyMeter) power(p point) {
	last := e.last
	had := e.hasPower
	e.last, e.hasPower = p, true
	if !had || p.at <= last.at || p.at-last.at > maxPowerStep {
		return
	}
	a, b := max(last.at, e.from), min(p.at, e.to)
	if a >= b {
		return
	}
	va, vb := between(last, p, a), between(last, p, b)
	e.joules += (va + vb) / 2 * (b - a).Seconds()
	e.covered += b - a
}

// between is the value at a time on the line through two points.
func between(a, b point, at time.Duration) float64 {
	if b.at == a.at {
		return b.v
	}
	return a.v + (b.v-a.v)*float64(at-a.at)/float64(b.at-a.at)
}

// Energy is the energy of the window in J and how it was found. Counter readings
// on both sides of an edge are joined by a line; a counter that went back was
// reset and does not count. nil, with the reason, where neither way holds.
func (e *EnergyMeter) Energy() (joules *float64, how string) {
	if v, ok := e.byCounter(); ok {
		return &v, EnergyCounter
	}
	if !e.instant {
		return nil, "no energy counter, and power is an average over a second: no energy of a window is made from it"
	}
	if window := e.to - e.from; window <= 0 || e.covered < window*9/10 {
		return nil, "power readings cover less than nine tenths of the window"
	}
	v := e.joules
	return &v, EnergyIntegral
}

func (e *EnergyMeter) byCounter() (float64, bool) {
	if !e.hasCount[0] || !e.hasCount[1] || e.counter[1].v < e.counter[0].v {
		return 0, false
	}
	next, before := e.counter[1], e.counter[0]
	if e.hasIn {
		next, before = e.inside[0], e.inside[1]
	}
	start := between(e.counter[0], next, e.from)
	end := between(before, e.counter[1], e.to)
	return end - start, end >= start
}

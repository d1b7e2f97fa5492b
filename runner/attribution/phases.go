package attribution

import (
	"fmt"
	"math"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// powerKind says what the power of the samples is: "instant", or "averaged_1s"
// where the driver gives nothing sharper; "" where no sampler told.
func powerKind(reports []*runner.SamplerReport) string {
	for _, r := range reports {
		if r != nil && r.PowerKind != "" {
			return r.PowerKind
		}
	}
	return ""
}

const (
	powerInstant  = "instant"
	powerAveraged = "averaged_1s"
)

// energy of one GPU between two marks, of which power are the samples: from the
// driver's counter where it was read near both, and agrees with them; else, in a
// short stretch, the mean of the instantaneous power x length; in a long one without
// a counter its integral.
// An averaged power is never taken.
func (l *lane) energy(from, to time.Duration, power *gauge, kind string) (joules float64, how string, ok bool) {
	length, instant := to-from, kind == powerInstant && power.n >= enough
	if l.counter.seen && (length >= shortStretch || !instant) {
		v, apart, ok := l.counter.between(from, to)
		slack := 0.01 * length.Seconds() * power.max
		outside := instant && (v < power.min*length.Seconds()-slack || v > power.max*length.Seconds()+slack)
		if ok && !outside &&
			(float64(apart) <= farReading*float64(length) || length >= shortStretch && apart < longestUnread) {
			return v, "counter", true
		}
	}
	v, _, whole := l.integral.between(from, to)
	if length < shortStretch { // what straddles its ends is not its own
		v = power.sum / float64(max(power.n, 1)) * length.Seconds()
	}
	return v, "power", instant && (whole || length < longestUnread)
}

// energyOff is how far the energy between two marks may be off: for their moments, at
// the highest power, and for what changed between two samples.
func (l *lane) energyOff(from, to bound, end time.Duration) float64 {
	at := to.at
	if !to.ok {
		at = end
	}
	each := (at - from.at).Seconds() / float64(max(l.power.n, 1))
	return l.power.max*2*(from.uncertainty+to.uncertainty).Seconds() + (l.power.max-l.power.min)*each
}

// rows are the phases of one GPU.
func (w *work) phaseRows(l *lane) []runner.PhaseRow {
	var out []runner.PhaseRow
	for i := range l.phases {
		ph := &l.phases[i]
		length := ph.to - ph.from
		r := runner.PhaseRow{Phase: ph.phase, StartedAt: w.c.time(ph.from), EndedAt: w.c.time(ph.to)}
		seconds, unsure := length.Seconds(), ph.uncertainty.Seconds()
		r.DurationS, r.UncertaintyS = &seconds, &unsure
		if !w.c.host {
			g := l.t.gpu
			r.GPUIndex = &g
		}
		n, gap := ph.mem.n, l.t.mem.unseen(ph.from, ph.to).Seconds()
		r.Samples, r.LongestGapS = &n, &gap
		if ph.mem.n > 0 {
			least, most, mean := int64(ph.mem.min), int64(ph.mem.max), int64(math.Round(ph.mem.sum/float64(ph.mem.n)))
			first, last := ph.first, ph.last
			r.MinBytes, r.MaxBytes, r.MeanBytes, r.StartBytes, r.EndBytes = &least, &most, &mean, &first, &last
		} else {
			w.miss(w.phaseField(l, ph.phase, "memory_min_bytes"), "no sample fell into the phase")
		}
		w.phasePower(l, ph, &r)
		out = append(out, r)
	}
	return out
}

func (w *work) phasePower(l *lane, ph *phaseSum, r *runner.PhaseRow) {
	if w.c.host {
		return
	}
	length := ph.to - ph.from
	field := w.phaseField(l, ph.phase, "energy_j")
	if length < shortestEnergy {
		w.miss(field, "the phase is shorter than 200 ms; energy counters move every 100 ms")
		return
	}
	if joules, how, ok := l.energy(ph.from, ph.to, &ph.power, w.kind); ok {
		watts := joules / length.Seconds()
		r.EnergyJ, r.MeanPowerW, r.EnergyMethod = &joules, &watts, how
		return
	}
	switch {
	case w.kind == powerAveraged:
		w.miss(field, "no energy counter, and the power is an average over a second: it is never integrated")
	case !l.hasP && !l.counter.seen:
		w.miss(field, "no sampler reads energy or power")
	default:
		w.miss(field, "energy or power was not read all through the phase")
	}
	if ph.power.n > 0 && (w.kind == powerInstant || length >= shortestAverage) {
		_, _, r.MeanPowerW = ph.power.get()
	}
}

func (w *work) phaseField(l *lane, ph runner.Phase, field string) string {
	if w.c.host {
		return fmt.Sprintf("phases[host,%s].%s", ph, field)
	}
	return fmt.Sprintf("phases[gpu %d,%s].%s", l.t.gpu, ph, field)
}

// snapshots are the memory at each phase boundary, all GPUs at that moment.
func (w *work) snapshots(g *gathering) []runner.Snapshot {
	var out []runner.Snapshot
	if len(g.lanes) == 0 || w.c.host {
		return nil
	}
	for _, ph := range g.lanes[0].phases {
		s := runner.Snapshot{Phase: ph.phase, T: *w.c.time(ph.from)}
		for _, l := range g.lanes {
			at := ph.from
			if b := l.p.bounds[ph.phase]; b.ok {
				at = b.at
			}
			if p, ok := l.t.mem.at(at); ok {
				s.GPUs = append(s.GPUs, runner.SnapshotGPU{GPUIndex: int(l.t.gpu), UsedBytes: p.level})
			}
		}
		if len(s.GPUs) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// timeline condenses the samples.
func (w *work) timeline(g *gathering, what string) *runner.MemoryTimeline {
	t := &runner.MemoryTimeline{WholeRun: g.whole.stats(), Samplers: w.m.Reports}
	t.TimelineStats = g.window.stats()
	t.Window = runner.TimeWindow{From: w.c.time(g.from), To: w.c.time(g.to), What: what}
	for _, r := range w.m.Reports {
		if r != nil && r.Ticks > 0 && t.Sampler == nil {
			t.Sampler, t.IntervalMS, t.Missed = r, r.IntervalMS, r.Missed
		}
	}
	for _, p := range g.thin.points {
		memory := float64(p.mem) / runner.GiB
		tp := runner.TimelinePoint{Timestamp: *w.c.time(p.at), MemoryGB: &memory}
		if len(g.lanes) > 0 {
			tp.Phase = g.lanes[0].phaseAt(p.at)
		}
		if p.hasPower {
			v := p.power
			tp.PowerW = &v
		}
		if !math.IsInf(p.temp, -1) {
			v := p.temp
			tp.TempC = &v
		}
		t.Timeline = append(t.Timeline, tp)
	}
	t.Extended = w.extended(&g.power, &g.temp, &g.util)
	total, off, how, all := 0.0, 0.0, "", len(g.lanes) > 0 && !w.c.host
	for _, l := range g.lanes {
		x := w.extended(&l.power, &l.temp, &l.util)
		joules, from, ok := l.energy(g.from, g.to, &l.power, w.kind)
		if ok {
			doubt := l.energyOff(l.p.bounds[runner.PhaseBenchWarmup], l.p.bounds[runner.PhaseTeardown], g.to)
			x.EnergyJ, x.EnergyFrom, x.EnergyOffJ = &joules, from, &doubt
			off += doubt
		}
		total, how, all = total+joules, from, all && ok
		if !w.c.host {
			t.PerGPU = append(t.PerGPU, runner.GPUTimeline{GPUIndex: int(l.t.gpu), TimelineStats: l.window.stats(), Extended: x})
		}
	}
	if all {
		t.Extended.EnergyJ, t.Extended.EnergyFrom, t.Extended.EnergyOffJ = &total, how, &off
	} else {
		w.miss("memory_timeline.extended.energy_j", "no energy counter, and no instantaneous power, was read all through the window on every GPU")
	}
	return t
}

func (w *work) extended(power, temp, util *gauge) runner.TimelineExtended {
	var x runner.TimelineExtended
	x.Power.MinW, x.Power.MaxW, x.Power.MeanW = power.get()
	if power.n > 0 {
		x.Power.Kind = w.kind
	}
	x.Temperature.MinC, x.Temperature.MaxC, x.Temperature.MeanC = temp.get()
	x.Utilization.MinPct, x.Utilization.MaxPct, x.Utilization.MeanPct = util.get()
	return x
}

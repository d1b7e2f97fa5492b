package attribution

import (
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// tell works out how far each level of a course may be off, and drops those that the
// samples cannot tell. A level belongs to the moment of a line; what is known of it is
// the samples around. Memory only grows from one sample to the next, but for phases
// that give back what they took (passing): the level then lies between the two samples,
// or, where such a phase ended between them, between the level on which it stood and the
// higher of the two. After the end of the engine nothing can be told of before.
func (p *course) tell() {
	if p.context != nil && p.nccl != nil && abs(p.context.level-p.nccl.level) < notable {
		p.context = nil // both came between two samples
	}
	if p.nccl != nil {
		p.nccl = p.told(p.nccl, runner.PhaseLoad, nil)
	} else {
		p.context = p.told(p.context, runner.PhaseLoad, nil)
	}
	p.weights = p.told(p.weights, runner.PhaseProfile, nil)
	p.tellLoaded()
	if p.profiled != nil {
		p.profiled.off = p.track.mem.unsure(p.profiled.at)
		if p.loaded != nil { // profiling gives back to there at most
			p.profiled.off = max(allocatorPage, p.profiled.level-p.loaded.level+p.loaded.off)
		}
	}
	p.tellKV()
	p.captured = p.told(p.captured, runner.PhaseEngineWarmup, p.kv)
	settled := p.captured
	if !p.graphs {
		settled = p.kv
	}
	p.ready = p.told(p.ready, runner.PhaseBenchWarmup, settled)
	p.warmed = p.told(p.warmed, runner.PhaseMeasure, settled)
	p.tellMeasured()
}

// passing are phases that may give back what they took.
func (p *course) passing(ph runner.Phase) bool {
	switch ph {
	case runner.PhaseProfile, runner.PhaseEstimateCapture, runner.PhaseKernelWarmup:
		return true
	case runner.PhaseKVAlloc: // kernels may warm up in it unseen
		return p.estimated
	case runner.PhaseEngineWarmup:
		return !p.graphs
	}
	return false
}

// live says that a bound comes from a line that was seen to arrive; others were placed
// by the samples themselves.
func (b bound) live() bool { return b.ok && b.uncertainty <= lineLag }

// told is a level at the bound at which a phase begins, with how far it may be off; nil
// where it cannot be told. least is a level that it cannot lie below.
func (p *course) told(pt *point, at runner.Phase, least *point) *point {
	b, mem := p.bounds[at], &p.track.mem
	if pt == nil {
		return nil
	}
	out := *pt
	if out.off = mem.moved(pt.at); !b.live() || p.shared {
		return &out
	}
	first, last, most, ok := mem.around(b.at-2*b.uncertainty, b.at)
	if !ok {
		return nil
	}
	out.off = max(allocatorPage, most.level-out.level)
	low := min(first.level, last.level)
	begun, ended := p.phaseAt(first.at), p.phaseAt(last.at)
	if ended.Order() >= runner.PhaseTeardown.Order() {
		return nil
	}
	for _, ph := range runner.Phases()[begun.Order():ended.Order()] {
		if !p.bounds[ph].ok || !p.passing(ph) {
			continue
		}
		if least == nil {
			return nil
		}
		low = min(low, least.level-least.off)
	}
	out.off = max(out.off, out.level-low)
	return &out
}

// around are the last sample before lo, the first after hi, and the highest of all from
// the one to the other.
func (s *series) around(lo, hi time.Duration) (first, last, most point, ok bool) {
	i := s.index(lo)
	if i < 0 {
		return first, last, most, false
	}
	first = point{at: s.spans[i].to, level: s.spans[i].level}
	if lo < first.at { // somewhere in the span: no later than this
		first.at = max(s.spans[i].from, lo-s.spans[i].longest())
	}
	for k := i; k < len(s.spans); k++ {
		sp := s.spans[k]
		if k == i || sp.level > most.level {
			most = point{at: sp.from, level: sp.level}
		}
		if sp.to >= hi {
			return first, point{at: max(sp.from, min(hi+sp.longest(), sp.to)), level: sp.level}, most, true
		}
	}
	return first, last, most, false
}

// tellLoaded: what rose after the line that ends loading is the runner's buffers, or
// the beginning of profiling.
func (p *course) tellLoaded() {
	if p.loaded == nil {
		return
	}
	p.loaded.off = p.track.mem.unsure(p.loaded.at)
	b, line := p.bounds[runner.PhaseProfile], p.weights
	if !b.live() || p.shared {
		return
	}
	if line == nil {
		if at, ok := p.track.mem.at(b.at); ok {
			line = p.told(&at, runner.PhaseProfile, nil)
		}
	}
	if line == nil {
		p.loaded = nil
		return
	}
	p.loaded.off = max(p.loaded.off, line.off, abs(p.loaded.level-line.level))
}

// tellKV: the level after the KV cache is the one that stands until the capture begins.
// Where kernels warm up between the two it is the lower one, which stands before that
// or after.
func (p *course) tellKV() {
	if p.kv == nil {
		return
	}
	mem := &p.track.mem
	p.kv.off = mem.unsure(p.kv.at)
	next := p.bounds[runner.PhaseCapture]
	if !next.ok {
		next = p.bounds[runner.PhaseBenchWarmup]
	}
	if !next.live() || p.shared {
		return
	}
	end := next.at - 2*next.uncertainty
	if p.kv.at > end {
		p.kv, p.kvBase = nil, nil
		return
	}
	low, high := p.kv.level, p.kv.level
	mem.within(p.kv.at, end, func(_ int, sp span) bool {
		low, high = min(low, sp.level), max(high, sp.level)
		return true
	})
	i := mem.index(p.kv.at)
	switch {
	case low < p.kv.level-allocatorPage: // what stood there was kernels too
		p.kernels = &point{at: p.kv.at, level: high}
		p.kv.level = low
	case high-low >= notable:
	case (p.estimated || !p.graphs) && mem.spans[i].n < plain:
		p.kv, p.kvBase = nil, nil
	}
}

// plain is how many samples at one level, and at no other, tell that nothing comes
// and goes beside the KV cache until the capture.
const plain = 5

// tellMeasured: the level at the end of measuring is that of the last sample in it.
func (p *course) tellMeasured() {
	if p.measured == nil {
		return
	}
	p.measured.off = p.track.mem.unsure(p.measured.at)
	from, end := p.bounds[runner.PhaseMeasure], p.bounds[runner.PhaseTeardown]
	if !end.live() || !from.ok || p.shared {
		return
	}
	if first, _, _, ok := p.track.mem.around(end.at-2*end.uncertainty, end.at); !ok || first.at < from.at {
		p.measured = nil
	} else {
		p.measured.off = max(p.measured.off, abs(first.level-p.measured.level))
	}
}

package attribution

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

const (
	// enough samples of a power, to take their mean for that of a stretch.
	enough = 3
	// fine is a stretch that is too short to ask a sample of.
	fine = 150 * time.Millisecond
)

// unseen is the longest time without a sample in [from, to], the ends included.
func (s *series) unseen(from, to time.Duration) time.Duration {
	var longest time.Duration
	last := from
	s.within(from, to, func(_ int, sp span) bool {
		longest = max(longest, min(sp.longest(), to-from), sp.from-last)
		last = max(last, min(sp.to, to))
		return true
	})
	return max(longest, to-last)
}

// seen reports whether a sample lies in the second half of a stretch, at least late
// before its end.
func (s *series) seen(from, to, late time.Duration) bool {
	half := from + (to-from)/2
	to -= late
	i := s.index(to)
	if i < 0 || to < half {
		return false
	}
	last := s.spans[i].to
	if last > to {
		last = max(s.spans[i].from, to-s.spans[i].longest())
	}
	return last >= half
}

// kept reports whether the last sample before a moment is the highest since another:
// nothing was given back in between, by an engine that ended before its line came.
func (s *series) kept(from, to time.Duration) bool {
	last, ok := s.at(to)
	most, known := s.highest(from, to)
	return ok && known && most.level-last.level < notable
}

// coverage says what the samples cover. The highest use is known where, on every
// GPU, a sample lies in the second half of the measuring phase, and in the second
// half of what lies between the KV cache and the capture where graphs were captured
// for an estimate before (kernel warm-up, which is given back). torch keeps what it
// has taken, so that what the first iterations reached stands to the end: in all 38
// recorded runs each sample of the second half is the highest since readiness, to
// 4 MiB.
func (w *work) coverage(g *gathering) {
	if w.r.BenchmarkParameters.Engine == runner.EngineCommand {
		return
	}
	var sparse []string
	for _, l := range g.lanes {
		p := l.p
		if !w.failed {
			sparse = append(sparse, w.covered(l)...)
		}
		for i := range l.phases {
			ph := &l.phases[i]
			if length := ph.to - ph.from; ph.mem.n == 0 && length >= fine && ph.phase != runner.PhaseBaseline {
				sparse = append(sparse, fmt.Sprintf("no sample in %s (%.2f s)", ph.phase, length.Seconds()))
			}
		}
		if p.track.mem.empty() {
			w.quality(runner.QualityBlind, fmt.Sprintf("no sample of the memory of GPU %d", p.track.gpu))
		}
	}
	if len(sparse) > 0 {
		slices.Sort(sparse) // GPUs often lack the same
		w.quality(runner.QualitySparse, strings.Join(slices.Compact(sparse), "; "))
	}
	w.quality(runner.QualityFull, "")
}

// covered lists what of one GPU's use is not seen, and notes in w.uncovered what
// takes the highest use away.
func (w *work) covered(l *lane) []string {
	p := l.p
	ready, measure, end := p.bounds[runner.PhaseBenchWarmup], p.bounds[runner.PhaseMeasure], p.bounds[runner.PhaseTeardown]
	if !ready.ok || !end.ok {
		return nil // no window: the run did not get there, or its log marks none
	}
	if !measure.ok {
		measure = ready
	}
	const advice = "set a shorter sample interval, or more num_iters"
	var out []string
	// the lines at both ends may be late by their lag: no sample near the end counts
	mem := &p.track.mem
	if !mem.seen(measure.at, end.at, lineLag) || !mem.kept(ready.at, end.at-lineLag) {
		longest, n := mem.unseen(measure.at, end.at), int64(0)
		for i := range l.phases {
			if l.phases[i].phase == runner.PhaseMeasure {
				n = l.phases[i].mem.n
			}
		}
		w.uncovered = fmt.Sprintf("%d samples of the measuring phase (%.2f s), none in its second half "+
			"(%.2f s between two): the highest use is not known; %s",
			n, (end.at - measure.at).Seconds(), longest.Seconds(), advice)
		if n == 0 {
			w.quality(runner.QualityBlind, w.uncovered)
		}
		out = append(out, w.uncovered)
	}
	kv, capture := p.bounds[runner.PhaseKVAlloc], p.bounds[runner.PhaseCapture]
	if p.estimated && !p.shared && kv.ok && capture.ok && !p.track.mem.seen(kv.at, capture.at, 0) {
		w.uncovered = fmt.Sprintf("no sample in the second half of the %.2f s between the KV cache and the capture, "+
			"where kernels warm up: the highest use is not known; %s",
			(capture.at - kv.at).Seconds(), advice)
		out = append(out, w.uncovered)
	}
	return out
}

// quality sets the quality of the run, if it is not yet set to a worse one.
func (w *work) quality(q runner.Quality, why string) {
	if w.r.Run.Quality == "" || w.r.Run.Quality.Worse(q) {
		w.r.Run.Quality, w.r.Run.QualityDetail = q, why
	}
}

// hold takes away the figures that break what must hold for any result.
func (w *work) hold() {
	broken := w.r.Broken()
	if len(broken) == 0 {
		return
	}
	why := strings.Join(broken, "; ")
	w.quality(runner.QualitySparse, why)
	w.r.MemoryBreakdown, w.r.Breakdowns = nil, nil
	w.miss("memory_breakdown", why)
	for i := range w.r.BeyondBudget {
		b := &w.r.BeyondBudget[i]
		b.HeadroomRetakenBytes, b.HeadroomUnusedBytes, b.GrowthExcessBytes = nil, nil, nil
		b.SafeUtilization, b.SafeKVCacheMemoryBytes, b.KVTokensGained = nil, nil, nil
		b.Sentence = "The use cannot be held against the budget: " + why + "."
	}
}

package attribution

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

const (
	// enough samples of the measuring phase: one may lie before the first iteration
	// has allocated, one may be cut off with the end.
	enough = 3
	// mostUnseen is the largest share of a stretch that may lie between two samples.
	// torch keeps what it has taken until something empties its cache, so that a
	// level that was reached stands until the stretch ends; a third leaves one
	// sample inside wherever the rise lies in the first half.
	mostUnseen = 1.0 / 3
	// fine is a gap that is never too long: what stands shorter than this was not
	// seen in any recording (kernel warm-up stands 0.6 s at least).
	fine = 150 * time.Millisecond
)

// gap is the longest time without a sample in [from, to], the ends included, and
// the number of samples there.
func (s *series) unseen(from, to time.Duration) (longest time.Duration, n int64) {
	last := from
	s.within(from, to, func(_ int, sp span) bool {
		begin, end, count := sp.from, sp.to, sp.n
		spacing := time.Duration(0)
		if sp.n > 1 {
			spacing = max((sp.to-sp.from)/time.Duration(sp.n-1), 0)
			longest = max(longest, min(sp.longest, to-from))
		}
		if begin < from && spacing > 0 { // it began before: count what lies inside
			skip := int64((from - begin + spacing - 1) / spacing)
			begin, count = begin+time.Duration(skip)*spacing, count-skip
		}
		if end > to && spacing > 0 {
			cut := int64((end - to + spacing - 1) / spacing)
			end, count = end-time.Duration(cut)*spacing, count-cut
		}
		if count <= 0 || begin > to {
			return true
		}
		longest, last, n = max(longest, begin-last), max(last, end), n+count
		return true
	})
	return max(longest, to-last), n
}

// coverage says what the samples cover: on every GPU, from the allocation of the
// KV cache to the end of measuring, no third of a stretch lies between two samples
// and the measuring phase holds enough of them. Only then the highest use is known.
func (w *work) coverage(g *gathering) {
	if w.r.BenchmarkParameters.Engine == runner.EngineCommand {
		return
	}
	var sparse []string
	for _, l := range g.lanes {
		p := l.p
		if !w.failed {
			sparse = append(sparse, w.covered(p)...)
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
func (w *work) covered(p *course) []string {
	ready, measure, end := p.bounds[runner.PhaseBenchWarmup], p.bounds[runner.PhaseMeasure], p.bounds[runner.PhaseTeardown]
	if !ready.ok || !end.ok || end.at <= ready.at {
		return nil // no window: the run did not get there, or its log marks none
	}
	if !measure.ok {
		measure = ready
	}
	const advice = "set a shorter sample interval, or more num_iters"
	var out []string
	longest, n := p.track.mem.unseen(measure.at, end.at)
	length := end.at - measure.at
	switch {
	case n == 0:
		w.uncovered = fmt.Sprintf("no sample was taken in the measuring phase (%.2f s): the highest use is not known; %s", length.Seconds(), advice)
		w.quality(runner.QualityBlind, w.uncovered)
	case n < enough || longest > fine && float64(longest) > mostUnseen*float64(length):
		w.uncovered = fmt.Sprintf("%d samples of the measuring phase (%.2f s), %.2f s of it between two of them: the highest use is not known; %s",
			n, length.Seconds(), longest.Seconds(), advice)
		out = append(out, w.uncovered)
	}
	kv := p.bounds[runner.PhaseKVAlloc]
	if !kv.ok || kv.at >= ready.at || p.shared {
		return out
	}
	if longest, _ := p.track.mem.unseen(kv.at, ready.at); longest > fine && float64(longest) > mostUnseen*float64(ready.at-kv.at) {
		w.uncovered = fmt.Sprintf("%.2f of the %.2f s from the KV cache to readiness lie between two samples: the highest use is not known; %s",
			longest.Seconds(), (ready.at - kv.at).Seconds(), advice)
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

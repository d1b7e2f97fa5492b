package attribution

import (
	"math"
	"sort"
	"time"
)

// maxSpans bounds the spans that a series keeps. vLLM's memory changes a few
// hundred times in a run; only a noisy series (resident memory of a process
// tree, say) ever comes near it.
const maxSpans = 40_000

// firstTolerance is what a full series begins to merge by: the granularity of
// the driver.
const firstTolerance = 2 << 20

// A span is a stretch of samples at one level. Times are offsets from the
// start of the job, of the first and the last sample at the level.
type span struct {
	from, to time.Duration
	level    int64
	n        int32
	gapMS    int32 // the longest between two of its samples, rounded up
}

// A series is the memory of one GPU as spans of equal level. It is exact until
// it holds maxSpans spans; from then on it merges levels that lie within
// tolerance of each other, doubling the tolerance whenever it is full again.
// The highest sample stays exact.
type series struct {
	spans     []span
	tolerance int64
	peak      int64
	peakAt    time.Duration
	n         int64
}

// longest is the longest time between two samples of the span.
func (sp *span) longest() time.Duration { return time.Duration(sp.gapMS) * time.Millisecond }

// gapOf is a gap as a span keeps it, 24 days at most.
func gapOf(d time.Duration) int32 {
	return int32(min((d+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
}

// add takes the next sample; samples come in the order of time.
func (s *series) add(t time.Duration, level int64) {
	if s.n == 0 || level > s.peak {
		s.peak, s.peakAt = level, t
	}
	s.n++
	if k := len(s.spans); k > 0 && abs(level-s.spans[k-1].level) <= s.tolerance {
		s.spans[k-1].gapMS = max(s.spans[k-1].gapMS, gapOf(t-s.spans[k-1].to))
		s.spans[k-1].to = t
		s.spans[k-1].n++
		return
	}
	if len(s.spans) >= maxSpans {
		s.coarsen()
	}
	s.spans = append(s.spans, span{from: t, to: t, level: level, n: 1})
}

func (s *series) coarsen() {
	for len(s.spans) > maxSpans/2 {
		s.tolerance = max(firstTolerance, 2*s.tolerance)
		kept := s.spans[:1]
		for _, next := range s.spans[1:] {
			last := &kept[len(kept)-1]
			if abs(next.level-last.level) <= s.tolerance {
				last.gapMS = max(last.gapMS, next.gapMS, gapOf(next.from-last.to))
				last.to, last.n = next.to, last.n+next.n
				continue
			}
			kept = append(kept, next)
		}
		s.spans = kept
		if s.tolerance > 1<<40 {
			return
		}
	}
}

func (s *series) empty() bool { return len(s.spans) == 0 }

// index returns the span that holds the last sample at or before t, or -1.
func (s *series) index(t time.Duration) int {
	return sort.Search(len(s.spans), func(i int) bool { return s.spans[i].from > t }) - 1
}

// A point is a level and the sample that it comes from.
type point struct {
	at    time.Duration
	level int64
	off   int64 // how far the level may be from that of the moment that it stands for (tell)
}

// at returns the last sample at or before t; ok is false before the first.
func (s *series) at(t time.Duration) (point, bool) {
	i := s.index(t)
	if i < 0 {
		return point{}, false
	}
	return point{at: min(t, s.spans[i].to), level: s.spans[i].level}, true
}

// within calls f with the spans that overlap [from, to], in order, until f
// returns false.
func (s *series) within(from, to time.Duration, f func(i int, sp span) bool) {
	i := max(0, s.index(from))
	for ; i < len(s.spans) && s.spans[i].from <= to; i++ {
		if s.spans[i].to < from {
			continue
		}
		if !f(i, s.spans[i]) {
			return
		}
	}
}

// highest returns the highest sample in [from, to].
func (s *series) highest(from, to time.Duration) (point, bool) {
	return s.extreme(from, to, func(a, b int64) bool { return a > b })
}

func (s *series) extreme(from, to time.Duration, better func(a, b int64) bool) (point, bool) {
	var best point
	found := false
	s.within(from, to, func(_ int, sp span) bool {
		if !found || better(sp.level, best.level) {
			best, found = point{at: max(sp.from, from), level: sp.level}, true
		}
		return true
	})
	return best, found
}

// A rise is a growth of the memory over one or more neighbouring samples.
type rise struct {
	before point // the last sample before it
	after  point // the first sample at its end
}

func (r rise) bytes() int64 { return r.after.level - r.before.level }

// rises lists the growths of at least least bytes between two neighbouring
// samples whose later one lies in (from, to]; growths that follow each other
// within merge become one.
func (s *series) rises(from, to time.Duration, least int64, merge time.Duration) []rise {
	var found []rise
	for i := max(1, s.index(from)); i < len(s.spans) && s.spans[i].from <= to; i++ {
		a, b := s.spans[i-1], s.spans[i]
		if b.from <= from || b.level-a.level < least {
			continue
		}
		after := point{at: b.from, level: b.level}
		if k := len(found); k > 0 && b.from-found[k-1].after.at <= merge {
			found[k-1].after = after
			continue
		}
		found = append(found, rise{point{at: a.to, level: a.level}, after})
	}
	return found
}

// plateau returns the first stretch of at least d within [from, to] whose
// level is at least floor.
func (s *series) plateau(from, to, d time.Duration, floor int64) (span, bool) {
	var found span
	ok := false
	s.within(from, to, func(i int, sp span) bool {
		end := sp.to
		if i+1 < len(s.spans) { // it lasted until the next sample told otherwise
			end = s.spans[i+1].from
		}
		if sp.level >= floor && min(end, to)-max(sp.from, from) >= d {
			found, ok = sp, true
		}
		return !ok
	})
	return found, ok
}

func abs(v int64) int64 {
	if v < 0 {
		return -v
	}
	return v
}

// gap is how far apart rises may follow each other and still be one allocation:
// three samples, within bounds. In an eager run kernel warm-up follows the KV
// cache within a tenth of a second, with a level between them that only close
// samples show.
func (s *series) gap() time.Duration {
	n := 0
	for _, sp := range s.spans {
		n += int(sp.n)
	}
	if n < 2 {
		return together
	}
	spacing := (s.spans[len(s.spans)-1].to - s.spans[0].from) / time.Duration(n-1)
	return min(max(3*spacing, closest), together)
}

// stood is the highest level that two samples on end show, and when: how high a run
// went that failed at any moment, without what one sample shows by chance.
func (s *series) stood() (level int64, at time.Duration) {
	for i, sp := range s.spans {
		two := sp.level
		if sp.n < 2 && i > 0 {
			two = min(two, s.spans[i-1].level)
		}
		if i == 0 && sp.n < 2 {
			continue
		}
		if two > level {
			level, at = two, sp.from
		}
	}
	return level, at
}

// alone reports whether one sample alone shows the level at a moment.
func (s *series) alone(at time.Duration) bool {
	i := s.index(at)
	return i >= 0 && s.spans[i].n < 2
}

// unsure is how far the level at a moment may be off: the driver's page where it
// stood still; where one sample alone shows it, what it lies from the nearer of
// its neighbours.
func (s *series) unsure(at time.Duration) int64 {
	i := s.index(at)
	if i < 0 || s.spans[i].n > 1 {
		return allocatorPage
	}
	off := int64(-1)
	for _, k := range []int{i - 1, i + 1} {
		if k < 0 || k >= len(s.spans) {
			continue
		}
		if d := abs(s.spans[k].level - s.spans[i].level); off < 0 || d < off {
			off = d
		}
	}
	return max(allocatorPage, off)
}

// moved is unsure for a level at the moment of a line: where it changed between the
// samples around the moment, the line may lie on either side of the change.
func (s *series) moved(at time.Duration) int64 {
	off := s.unsure(at)
	if i := s.index(at); i >= 0 && i+1 < len(s.spans) && at >= s.spans[i].to {
		off = max(off, abs(s.spans[i+1].level-s.spans[i].level))
	}
	return off
}

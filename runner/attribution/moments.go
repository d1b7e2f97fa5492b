package attribution

import (
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

const (
	// lineLag is how long a line may be under way from the engine's print to
	// our read (measured through a pipe: 0.7 ms, p99 1.8 ms; the rest is the
	// engine's own buffering between two prints).
	lineLag = 20 * time.Millisecond
	// stampSlop widens a whole-second stamp: recordings tell their start only
	// to a fraction of a second.
	stampSlop = 300 * time.Millisecond
)

// A moment is when a line of the log was printed: somewhere in [lo, hi].
type moment struct {
	lo, hi  time.Duration
	exact   bool // from the line's arrival, not from a stamp
	took    time.Duration
	present bool
}

// at is the best single guess: the arrival, or the middle of the stamp.
func (m moment) at() time.Duration {
	if m.exact {
		return m.hi
	}
	return (m.lo + m.hi) / 2
}

func (m moment) uncertainty() time.Duration { return (m.hi - m.lo) / 2 }

// moments are the log's events, on the clock of the samples.
type moments struct {
	events []runner.LogEvent
	start  time.Time
	zone   time.Duration // what a stamp's clock is ahead of UTC
	year   int
}

// newMoments sets the clock of stamps that have neither year nor zone: the
// first stamp lies within minutes of the start, so that the year and the zone
// (a multiple of 15 minutes) follow.
func newMoments(events []runner.LogEvent, start time.Time) *moments {
	m := &moments{events: events, start: start, year: start.UTC().Year()}
	for i := range events {
		if events[i].Stamp.IsZero() {
			continue
		}
		best := time.Duration(1<<63 - 1)
		for _, year := range []int{start.UTC().Year() - 1, start.UTC().Year(), start.UTC().Year() + 1} {
			ahead := wall(events[i].Stamp, year).Sub(start)
			if ahead.Abs() < best.Abs() {
				best, m.year = ahead, year
			}
		}
		m.zone = best.Round(15 * time.Minute)
		break
	}
	return m
}

func wall(stamp time.Time, year int) time.Time {
	return time.Date(year, stamp.Month(), stamp.Day(), stamp.Hour(), stamp.Minute(), stamp.Second(), 0, time.UTC)
}

// stamped turns a stamp into an offset from the start of the job. A stamp of
// the first of January in a run of December's last day is of the next year.
func (m *moments) stamped(stamp time.Time) time.Duration {
	d := wall(stamp, m.year).Sub(m.start) - m.zone
	if d < -180*24*time.Hour {
		d = wall(stamp, m.year+1).Sub(m.start) - m.zone
	}
	return d
}

func (m *moments) of(e *runner.LogEvent) (moment, bool) {
	switch {
	case !e.Arrived.IsZero():
		at := e.Arrived.Sub(m.start)
		return moment{lo: at - lineLag, hi: at, exact: true, took: e.Took, present: true}, true
	case !e.Stamp.IsZero():
		at := m.stamped(e.Stamp)
		return moment{lo: at - stampSlop, hi: at + time.Second + stampSlop, took: e.Took, present: true}, true
	}
	return moment{}, false
}

// first returns the first event of a kind as one rank printed it; lines that
// no rank signs, and those of other ranks, serve where it printed none.
func (m *moments) first(kind runner.EventKind, rank int) moment { return m.find(kind, rank, false) }

// final returns the last event of a kind, in the same way.
func (m *moments) final(kind runner.EventKind, rank int) moment { return m.find(kind, rank, true) }

func (m *moments) find(kind runner.EventKind, rank int, latest bool) moment {
	var best moment
	trust := 0
	for i := range m.events {
		e := &m.events[i]
		if e.Kind != kind {
			continue
		}
		t := 1
		switch e.Rank {
		case rank:
			t = 3
		case -1:
			t = 2
		}
		if t < trust || t == trust && !latest {
			continue
		}
		if at, ok := m.of(e); ok {
			best, trust = at, t
		}
	}
	return best
}

// has reports whether the log holds an event of a kind, timed or not.
func (m *moments) has(kind runner.EventKind) bool {
	for i := range m.events {
		if m.events[i].Kind == kind {
			return true
		}
	}
	return false
}

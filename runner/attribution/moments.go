package attribution

import (
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// lineLag is how long a line may be under way from the engine's print to
// our read (measured through a pipe: 0.7 ms, p99 1.8 ms; the rest is the
// engine's own buffering between two prints).
const lineLag = 20 * time.Millisecond

// A moment is when a line of the log was printed: somewhere in [lo, hi], at
// is the best single guess.
type moment struct {
	lo, at, hi time.Duration
	took       time.Duration
	placed     bool // by the samples and the line's stamp: nobody noted its arrival
	present    bool
}

func (m moment) uncertainty() time.Duration { return (m.hi - m.lo) / 2 }

// moments are the log's events, on the clock of the samples.
type moments struct {
	events []runner.LogEvent
	start  time.Time
}

// of places an event; a line whose arrival nobody noted says nothing of when.
func (m *moments) of(e *runner.LogEvent) (moment, bool) {
	if e.Arrived.IsZero() {
		return moment{}, false
	}
	at := e.Arrived.Sub(m.start)
	if u := time.Duration(e.UncertaintyS * float64(time.Second)); u > 0 {
		return moment{lo: at - u, at: at, hi: at + u, took: e.Took, placed: true, present: true}, true
	}
	return moment{lo: at - lineLag, at: at, hi: at, took: e.Took, present: true}, true
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

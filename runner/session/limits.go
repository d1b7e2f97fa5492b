package session

import (
	"fmt"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
)

// An overrun is a limit that was exceeded.
type overrun struct {
	outcome runner.Outcome
	detail  string
}

// limits watch one run: the whole attempt, the start of the engine, and
// silence. They are charged to the profile that runs.
type limits struct {
	over    chan overrun
	heardAt chan *reply
	quit    chan struct{}
}

func newLimits(job *runner.Job, active func() time.Time, p *process) *limits {
	l := &limits{over: make(chan overrun, 1), heardAt: make(chan *reply, 16), quit: make(chan struct{})}
	go l.watch(job, active, p)
	return l
}

func (l *limits) stop() { close(l.quit) }

// heard tells that the driver said something.
func (l *limits) heard(r *reply) {
	select {
	case l.heardAt <- r:
	case <-l.quit:
	}
}

func (l *limits) watch(job *runner.Job, active func() time.Time, p *process) {
	const look = 200 * time.Millisecond
	bounds := job.Sweep.Limits
	begun := time.Now()
	last := begun
	ready := p.isReady()
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		select {
		case <-l.quit:
			return
		case r := <-l.heardAt:
			last = time.Now()
			ready = ready || r != nil && r.Event == "ready"
		case now := <-ticker.C:
			last = latest(last, p.lastOutput(), activity(active))
			if over, ok := exceeded(bounds, now, begun, last, ready); ok {
				l.over <- over // has room for one, and this is the only one
				return
			}
		}
	}
}

func activity(active func() time.Time) time.Time {
	if active == nil {
		return time.Time{}
	}
	return active()
}

func latest(times ...time.Time) time.Time {
	out := times[0]
	for _, t := range times[1:] {
		if t.After(out) {
			out = t
		}
	}
	return out
}

// exceeded tells which limit of a sweep is over; a limit of 0 is none.
func exceeded(bounds sweep.Limits, now, begun, last time.Time, ready bool) (overrun, bool) {
	switch {
	case bounds.Timeout > 0 && now.Sub(begun) > bounds.Timeout:
		return overrun{runner.OutcomeTimeout, fmt.Sprintf("not done after %s (limits.timeout)", bounds.Timeout)}, true
	case !ready && bounds.StartupTimeout > 0 && now.Sub(begun) > bounds.StartupTimeout:
		return overrun{runner.OutcomeStartupTimeout, fmt.Sprintf("the engine was not ready after %s (limits.startup_timeout)", bounds.StartupTimeout)}, true
	case bounds.SilenceTimeout > 0 && now.Sub(last) > bounds.SilenceTimeout:
		return overrun{runner.OutcomeSilenceTimeout, fmt.Sprintf("no output and no GPU activity for %s (limits.silence_timeout)", bounds.SilenceTimeout)}, true
	}
	return overrun{}, false
}

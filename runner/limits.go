package runner

import (
	"context"
	"fmt"
	"time"

	"github.com/vramsweep/vramsweep/sweep"
)

// A LimitError is the cause of the engine's context when a limit of the sweep
// ended the run.
type LimitError struct {
	Outcome Outcome // OutcomeTimeout, OutcomeStartupTimeout or OutcomeSilenceTimeout
	Limit   time.Duration
}

func (e *LimitError) Error() string {
	switch e.Outcome {
	case OutcomeStartupTimeout:
		return fmt.Sprintf("the engine was not ready after %v (startup_timeout)", e.Limit)
	case OutcomeSilenceTimeout:
		return fmt.Sprintf("no output and no GPU activity for %v (silence_timeout)", e.Limit)
	}
	return fmt.Sprintf("the run was not finished after %v (timeout)", e.Limit)
}

// watch keeps the limits of a run and refreshes the display until done closes.
func (a *attempt) watch(done <-chan struct{}, end context.CancelCauseFunc) {
	var lim sweep.Limits
	if a.sweep != nil {
		lim = a.sweep.Limits
	}
	begun := time.Now()
	tick := time.NewTicker(watchEvery(lim))
	defer tick.Stop()
	shown := begun
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		now := time.Now()
		if a.job.Pulse.IsReady() {
			a.compiled()
		}
		held, waits := a.job.Turn.held()
		if waits {
			a.job.Pulse.Output(now) // it is kept waiting: neither slow nor silent
		} else if broken := brokenLimit(lim, now, begun.Add(held), a.job.Pulse, a.tap.lastActive()); broken != nil {
			end(broken)
			return
		}
		if now.Sub(shown) >= 500*time.Millisecond {
			shown = now
			a.tap.show()
		}
	}
}

// watchEvery is a tenth of the shortest limit, between 5 ms and 500 ms.
func watchEvery(lim sweep.Limits) time.Duration {
	every := 500 * time.Millisecond
	for _, d := range []time.Duration{lim.Timeout, lim.StartupTimeout, lim.SilenceTimeout} {
		if d > 0 {
			every = min(every, max(d/10, 5*time.Millisecond))
		}
	}
	return every
}

// brokenLimit says which limit is broken, nil if none. All times have their
// monotonic reading.
func brokenLimit(lim sweep.Limits, now, begun time.Time, pulse *Pulse, active time.Time) *LimitError {
	if lim.Timeout > 0 && now.Sub(begun) >= lim.Timeout {
		return &LimitError{OutcomeTimeout, lim.Timeout}
	}
	if lim.StartupTimeout > 0 && !pulse.IsReady() && now.Sub(begun) >= lim.StartupTimeout {
		return &LimitError{OutcomeStartupTimeout, lim.StartupTimeout}
	}
	if lim.SilenceTimeout > 0 {
		quiet := begun
		for _, t := range []time.Time{pulse.LastOutput(), active} {
			if t.After(quiet) {
				quiet = t
			}
		}
		if now.Sub(quiet) >= lim.SilenceTimeout {
			return &LimitError{OutcomeSilenceTimeout, lim.SilenceTimeout}
		}
	}
	return nil
}

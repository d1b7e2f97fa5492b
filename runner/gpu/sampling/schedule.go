package sampling

import (
	"context"
	"time"
)

// Sleep waits and reports whether ctx is still alive.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// A Schedule is a row of absolute deadlines on the Monotonic clock. A deadline
// that has passed is left out, never caught up with.
type Schedule struct {
	next     time.Time
	interval time.Duration
	timer    *time.Timer
	precise  bool // see NewPreciseSchedule
}

// NewSchedule begins at once, aligned to nothing: the first tick is due now.
func NewSchedule(interval time.Duration) *Schedule {
	now := time.Now()
	return &Schedule{next: now, interval: interval, timer: time.NewTimer(0)}
}

// NewPreciseSchedule sleeps in the kernel until each deadline: Go's timers are
// late by anything up to a millisecond, in a sawtooth. The thread is blocked
// meanwhile, so only a helper has it, and only for short intervals.
func NewPreciseSchedule(interval time.Duration) *Schedule {
	s := NewSchedule(interval)
	s.precise = interval <= BatchEvery
	return s
}

// Wait returns at the next deadline, or false when ctx ends.
func (s *Schedule) Wait(ctx context.Context) bool {
	if s.precise {
		sleepUntil(s.next)
		if ctx.Err() != nil {
			return false
		}
	} else {
		select {
		case <-ctx.Done():
			return false
		case <-s.timer.C:
		}
	}
	now := time.Now()
	s.advance(now)
	if !s.precise {
		s.timer.Reset(s.next.Sub(now))
	}
	return true
}

// advance moves on to the first deadline of the row after now.
func (s *Schedule) advance(now time.Time) {
	s.next = s.next.Add(s.interval)
	if late := now.Sub(s.next); late >= 0 {
		s.next = s.next.Add((late/s.interval + 1) * s.interval)
	}
}

// Stop frees the timer.
func (s *Schedule) Stop() { s.timer.Stop() }

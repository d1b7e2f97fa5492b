package gpu

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// A source reads one instrument. run returns nil when ctx has ended, else why
// the instrument fails; it may be run again. finish adds to the report what
// only the source knows.
type source interface {
	name() string
	run(ctx context.Context, m *meter) error
	finish(r *runner.SamplerReport)
}

// errUnusable says that another try of the same source is of no use.
var errUnusable = errors.New("unusable")

// A sampler keeps sources going: it restarts one that fails, with growing
// pauses, and goes over to the next one when that does not help. It implements
// runner.Sampler.
type sampler struct {
	run     Run
	sources []source
	// pauses before the second, third, ... try of a source; after the last the
	// next source has its turn. Where there is no other, the last one repeats.
	pauses []time.Duration
}

// A source that has worked for this long has earned its full number of tries
// again.
const provenAfter = 10 * time.Second

func newSampler(run Run, sources []source) *sampler {
	return &sampler{run: run, sources: sources, pauses: []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}}
}

// Sample implements runner.Sampler.
func (s *sampler) Sample(ctx context.Context, emit func([]runner.Sample)) (*runner.SamplerReport, error) {
	m := newMeter(s.run.Interval, s.run.Epoch, emit)
	var failures []error
	cur, tries := 0, 0
	used := map[int]bool{0: true}
	for {
		src := s.sources[cur]
		before, began := m.tickCount(), time.Now()
		err := src.run(ctx, m)
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		err = fmt.Errorf("%s: %w", src.name(), err)
		if len(failures) < maxNotes {
			failures = append(failures, err)
		}
		if m.tickCount() > before && time.Since(began) >= provenAfter {
			tries = 0
		}
		m.because(err.Error())
		next := s.next(cur, tries, err)
		m.note("%s at %s: %s", err, m.at(m.offset(time.Now())).Format(time.RFC3339Nano), s.plan(cur, next))
		if next != cur {
			cur, tries = next, 0
			used[cur] = true
		}
		if !sleep(ctx, s.pauses[min(tries, len(s.pauses)-1)]) {
			break
		}
		tries++
	}
	return s.close(m, used, failures)
}

// next is the source to try now: the same one until its tries are used up.
func (s *sampler) next(cur, tries int, err error) int {
	if tries < len(s.pauses) && !errors.Is(err, errUnusable) {
		return cur
	}
	return (cur + 1) % len(s.sources)
}

func (s *sampler) plan(cur, next int) string {
	if next == cur {
		return "started again"
	}
	return s.sources[next].name() + " replaces it"
}

func (s *sampler) close(m *meter, used map[int]bool, failures []error) (*runner.SamplerReport, error) {
	var names []string
	for i, src := range s.sources {
		if used[i] {
			names = append(names, src.name())
		}
	}
	r := m.report(strings.Join(names, ", then "), time.Now())
	for i, src := range s.sources {
		if used[i] {
			src.finish(r)
		}
	}
	if r.Ticks == 0 && len(failures) > 0 {
		return r, fmt.Errorf("no sample of the GPUs: %w", errors.Join(failures...))
	}
	return r, nil
}

// sleep waits and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// A schedule is a row of absolute deadlines on the monotonic clock. A deadline
// that has passed is left out, never caught up with.
type schedule struct {
	next     time.Time
	interval time.Duration
	timer    *time.Timer
	precise  bool // see newPreciseSchedule
}

// newSchedule begins at once, aligned to nothing: the first tick is due now.
func newSchedule(interval time.Duration) *schedule {
	now := time.Now()
	return &schedule{next: now, interval: interval, timer: time.NewTimer(0)}
}

// newPreciseSchedule sleeps in the kernel until each deadline: Go's timers are
// late by anything up to a millisecond, in a sawtooth. The thread is blocked
// meanwhile, so only a helper has it, and only for short intervals.
func newPreciseSchedule(interval time.Duration) *schedule {
	s := newSchedule(interval)
	s.precise = interval <= batchEvery
	return s
}

// wait returns at the next deadline, or false when ctx ends.
func (s *schedule) wait(ctx context.Context) bool {
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
	s.next = s.next.Add(s.interval)
	if late := now.Sub(s.next); late >= 0 {
		s.next = s.next.Add((late/s.interval + 1) * s.interval)
	}
	if !s.precise {
		s.timer.Reset(s.next.Sub(now))
	}
	return true
}

func (s *schedule) stop() { s.timer.Stop() }

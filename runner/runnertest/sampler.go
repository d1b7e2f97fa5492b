// Package runnertest holds what implementations of the runner's interfaces must
// pass. Only tests import it.
package runnertest

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// patience is for how long what must come about may take on a busy machine.
const patience = 30 * time.Second

// A Collector keeps the samples of a sampler until a condition holds. It is
// written to under a lock, and read once Collect has returned.
type Collector struct {
	Samples []runner.Sample
	Ticks   int

	mu    sync.Mutex
	until func(*Collector) bool
	done  chan struct{}
	once  sync.Once
}

// Emit takes a tick.
func (c *Collector) Emit(s []runner.Sample) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Samples = append(c.Samples, s...)
	c.Ticks++
	if c.until(c) {
		c.once.Do(func() { close(c.done) })
	}
}

// Ticks is the condition that a number of ticks has come.
func Ticks(n int) func(*Collector) bool { return func(c *Collector) bool { return c.Ticks >= n } }

// Collect lets a sampler sample until a condition holds.
func Collect(
	t testing.TB, s runner.Sampler, until func(*Collector) bool,
) (*Collector, *runner.SamplerReport, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := &Collector{until: until, done: make(chan struct{})}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-c.done:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Errorf("the condition did not come about in %v", patience)
			}
		}
		cancel()
	}()
	rep, err := s.Sample(ctx, c.Emit)
	cancel()
	<-watched
	return c, rep, err
}

// Sampler checks what runner.Sampler promises of a sampler whose instrument
// works. It must not run beside parallel tests: it counts goroutines.
func Sampler(t *testing.T, make func(t *testing.T) runner.Sampler) {
	t.Run("ticks", func(t *testing.T) { ticks(t, make(t)) })
	t.Run("reused slices", func(t *testing.T) { reused(t, make(t)) })
	t.Run("ended before it began", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		rep, err := make(t).Sample(ctx, func([]runner.Sample) {})
		if rep == nil {
			t.Fatal("no report")
		}
		if err != nil && rep.Ticks > 0 {
			t.Errorf("an error after %d ticks: %v", rep.Ticks, err)
		}
	})
}

// ticks checks the order of ticks, the report and the end.
func ticks(t *testing.T, s runner.Sampler) {
	before := runtime.NumGoroutine()
	var inside, after atomic.Bool
	ordered := guard{t: t, last: map[int32]time.Duration{}}
	c := &Collector{until: Ticks(8), done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { <-c.done; cancel() }()
	rep, err := s.Sample(ctx, func(tick []runner.Sample) {
		if !inside.CompareAndSwap(false, true) {
			t.Error("two ticks at once")
		}
		if after.Load() {
			t.Error("a tick after the end")
		}
		ordered.check(tick)
		c.Emit(tick)
		inside.Store(false)
	})
	after.Store(true)
	c.once.Do(func() { close(c.done) })
	if err != nil {
		t.Fatalf("an instrument that works: %v", err)
	}
	if c.Ticks < 8 {
		t.Errorf("%d ticks in %v", c.Ticks, patience)
	}
	if rep.Name == "" || rep.IntervalMS.Asked <= 0 || rep.Ticks != int64(c.Ticks) || rep.IntervalMS.P50 == nil {
		t.Errorf("%d ticks came, the report is %+v", c.Ticks, rep)
	}
	for name, why := range rep.Missing {
		if name == "" || why == "" {
			t.Errorf("missing %q: %q", name, why)
		}
	}
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := string(stack())
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks)
		}
	}
}

func stack() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}

// A guard checks each tick against those before it.
type guard struct {
	t    *testing.T
	last map[int32]time.Duration
}

func (g *guard) check(tick []runner.Sample) {
	if len(tick) == 0 {
		g.t.Error("an empty tick")
	}
	var seen []int32
	for i := range tick {
		s := &tick[i]
		if slices.Contains(seen, s.GPU) {
			g.t.Errorf("GPU %d twice in a tick", s.GPU)
		}
		seen = append(seen, s.GPU)
		if last, ok := g.last[s.GPU]; ok && s.Offset <= last {
			g.t.Errorf("GPU %d: %v after %v", s.GPU, s.Offset, last)
		}
		g.last[s.GPU] = s.Offset
		if s.Source == "" || s.TS.IsZero() || s.TS.Location() != time.UTC || s.Has == 0 || s.Read < 0 {
			g.t.Errorf("sample %+v", *s)
		}
	}
}

// reused spoils each slice when it has been read: a sampler that reuses them
// must not read from them again.
func reused(t *testing.T, s runner.Sampler) {
	ordered := guard{t: t, last: map[int32]time.Duration{}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n := 0
	_, err := s.Sample(ctx, func(tick []runner.Sample) {
		ordered.check(tick)
		for i := range tick {
			tick[i] = runner.Sample{GPU: 99, Offset: -1, MemoryUsed: -1, Source: "spoilt"}
		}
		if n++; n == 8 {
			cancel()
		}
	})
	if err != nil || n < 8 {
		t.Errorf("%d ticks, %v", n, err)
	}
}

// Broken checks what runner.Sampler promises of a sampler whose instrument never
// works: it goes on until it is stopped, and has an error and a report then.
func Broken(t *testing.T, s runner.Sampler) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	rep, err := s.Sample(ctx, func([]runner.Sample) { t.Error("a tick of a broken instrument") })
	if err == nil || rep == nil {
		t.Fatalf("error %v, report %+v", err, rep)
	}
	if ctx.Err() == nil {
		t.Error("it gave up before it was stopped")
	}
}

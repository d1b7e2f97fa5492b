package runner

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/sweep"
)

// shared is a SharedEngine: profiles of one input length share a process.
type shared struct {
	m     *machine
	alive int64 // input length of the process; 0: none
	log   []string
	fail  bool
}

func (e *shared) Shares(a, b *sweep.Profile) bool { return a.Settings.InputLen == b.Settings.InputLen }

func (e *shared) Alive(p *sweep.Profile) bool { return e.alive == p.Settings.InputLen }

func (e *shared) hold(held []GPUProcess) {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	e.m.held = held
}

func (e *shared) Close(context.Context) ([]Process, error) {
	e.log = append(e.log, "close")
	e.alive = 0
	e.hold(nil)
	return nil, nil
}

func (e *shared) Run(ctx context.Context, job *Job) (*Measurement, error) {
	if !e.Alive(job.Profile) {
		e.log = append(e.log, "start")
		e.alive = job.Profile.Settings.InputLen
		e.hold([]GPUProcess{holds(1, "VLLM::EngineCore", 70000)})
	}
	e.log = append(e.log, "run")
	if e.fail || !job.KeepEngine {
		e.log = append(e.log, "end")
		e.alive, e.fail = 0, false
		e.hold(nil)
	}
	return ok(ctx, job)
}

// TestSharedEngine: one process serves a group; between its runs the GPUs are
// not idle and nobody waits for them.
func TestSharedEngine(t *testing.T) {
	m := &machine{gpus: 1}
	e := &shared{m: m}
	k := newKeeper()
	r := newRunner(k, e)
	r.Inspector = func(*sweep.Profile) Inspector { return m }
	p := plan(sweep.Limits{OnDirtyGPU: "stop"}, 1, 2, 3, 4)
	p.Sweeps[0].Profiles[3].Settings.InputLen = 99
	sum := runImpatient(t, r, p)
	want := []string{"start", "run", "run", "run", "end", "start", "run", "end"}
	if !slices.Equal(e.log, want) || sum.OK != 4 {
		t.Errorf("went %v, want %v; %+v", e.log, want, sum)
	}
	for _, id := range k.order {
		if run := k.results[id].Run; len(run.Notes) != 0 || len(run.Holders) != 0 {
			t.Errorf("%s: notes %q, holders %+v", id, run.Notes, run.Holders)
		}
	}
}

// late is a sampler whose first sample takes its time.
type late struct {
	ticker
	after time.Duration
	first atomic.Int64 // when it came, in Unix nanoseconds
}

func (l *late) Sample(ctx context.Context, emit func([]Sample)) (*SamplerReport, error) {
	select {
	case <-ctx.Done():
	case <-time.After(l.after):
	}
	return l.ticker.Sample(ctx, func(s []Sample) {
		l.first.CompareAndSwap(0, time.Now().UnixNano())
		emit(s)
	})
}

// TestWarmEngineWaitsForItsSamplers: an engine that is up begins at once, so that
// the first sample must have come before it is asked.
func TestWarmEngineWaitsForItsSamplers(t *testing.T) {
	m := &machine{gpus: 1}
	e := &shared{m: m}
	k := newKeeper()
	var at *late
	asked := 0
	r := newRunner(k, &engineOver{e, func(ctx context.Context, job *Job) (*Measurement, error) {
		warm := e.Alive(job.Profile)
		if came := at.first.Load(); warm && came == 0 {
			t.Error("a warm engine was asked before the first sample")
		}
		if warm {
			asked++
		}
		return e.Run(ctx, job)
	}})
	r.Inspector = func(*sweep.Profile) Inspector { return m }
	r.Samplers = func(job *Job) []Sampler {
		at = &late{ticker: ticker{job: job, every: 2 * time.Millisecond, used: func() int64 { return 1 << 30 }},
			after: 60 * time.Millisecond}
		return []Sampler{at}
	}
	sum := runImpatient(t, r, plan(sweep.Limits{}, 1, 2, 3))
	if sum.OK != 3 || asked != 2 {
		t.Errorf("%d went well, a warm engine was asked %d times; want 3 and 2", sum.OK, asked)
	}
}

// engineOver is a SharedEngine with another Run.
type engineOver struct {
	*shared
	run func(ctx context.Context, job *Job) (*Measurement, error)
}

func (e *engineOver) Run(ctx context.Context, job *Job) (*Measurement, error) { return e.run(ctx, job) }

// TestSharedEngineIsClosedAtTheEnd: an engine that was kept for a run that does
// not come is ended.
func TestSharedEngineIsClosedAtTheEnd(t *testing.T) {
	m := &machine{gpus: 1}
	e := &shared{m: m}
	k := newKeeper()
	r := newRunner(k, e)
	r.Inspector = func(*sweep.Profile) Inspector { return m }
	ctx, cancel := context.WithCancelCause(context.Background())
	at := &cancelAfter{cancel: cancel}
	r.Attributor = at
	if _, err := r.Run(ctx, plan(sweep.Limits{}, 1, 2, 3), Options{}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"start", "run", "close"}; !slices.Equal(e.log, want) {
		t.Errorf("went %v, want %v", e.log, want)
	}
}

type cancelAfter struct{ cancel context.CancelCauseFunc }

func (c *cancelAfter) Attribute(*Result, *Measured) { c.cancel(ErrInterrupted) }

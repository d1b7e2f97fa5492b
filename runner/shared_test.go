package runner

import (
	"context"
	"slices"
	"testing"

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

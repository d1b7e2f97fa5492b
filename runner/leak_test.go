package runner

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/sweep"
)

// goroutines are the stacks of all of them, by their number.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	stacks := map[string]string{}
	for _, stack := range strings.Split(string(buf), "\n\n") {
		name, _, _ := strings.Cut(stack, " [")
		stacks[name] = stack
	}
	return stacks
}

// nothingGoesOn returns a check that no goroutine is left that came after the
// call. One that is about to return has 10 s to.
func nothingGoesOn(t *testing.T) func() {
	before := goroutines()
	return func() {
		t.Helper()
		left := ""
		for range 2000 {
			left = ""
			for name, stack := range goroutines() {
				if before[name] == "" && strings.Contains(stack, "vramsweep") {
					left = stack
				}
			}
			if left == "" {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Errorf("this goes on after the run:\n%s", left)
	}
}

// TestNothingGoesOn: whichever way a run ends, none of its goroutines is left.
func TestNothingGoesOn(t *testing.T) {
	hang := engineFunc(func(ctx context.Context, _ *Job) (*Measurement, error) {
		<-ctx.Done()
		return &Measurement{Outcome: OutcomeEngineError}, nil
	})
	for name, c := range map[string]struct {
		engine Engine
		refuse error
		limits sweep.Limits
		end    bool
	}{
		"all well": {engine: engineFunc(ok)},
		"machine fault": {engine: engineFunc(func(context.Context, *Job) (*Measurement, error) {
			return nil,
				errors.New("no vllm")
		})},
		"limit":              {engine: hang, limits: sweep.Limits{Timeout: 20 * time.Millisecond}},
		"interrupted":        {engine: hang, end: true},
		"samples not wanted": {engine: hang, refuse: errors.New("no space left on device")},
		"shared":             {engine: &shared{m: &machine{}}},
	} {
		t.Run(name, func(t *testing.T) {
			check := nothingGoesOn(t)
			k := newKeeper()
			k.refuse = c.refuse
			r := newRunner(k, c.engine)
			m := &machine{gpus: 2}
			r.Inspector = func(*sweep.Profile) Inspector { return m }
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			if c.end {
				time.AfterFunc(20*time.Millisecond, func() { cancel(ErrInterrupted) })
			}
			sum, err := r.Run(ctx, plan(c.limits, 1, 2), Options{})
			if failed := name == "machine fault" || c.refuse != nil; (err != nil) != failed || len(k.execs) != 1 {
				t.Errorf("error %v, %+v", err, sum)
			}
			check()
		})
	}
}

package gpu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vramsweep/vramsweep/runner/proc"
)

// A helperRun says how a helper child is to be watched.
type helperRun struct {
	cfg          nvmlConfig
	out          *frameSink
	first, stale time.Duration             // how long rows may keep one waiting
	lastWord     bool                      // at the end of ctx it may say what it has left
	beside       func(ctx context.Context) // what runs as long as the child; nil: nothing
}

// watchHelper starts the helper and watches it until ctx ends or it fails. It returns
// the CPU time of the child and why it failed.
func watchHelper(ctx context.Context, m *meter, o Options, r helperRun) (cpu time.Duration, cause error) {
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	h, err := startHelper(child, o, r.cfg, r.out, time.Duration(r.cfg.Interval), ended)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errUnusable, err)
	}
	var exit *proc.Exit
	var waitErr error
	go func() {
		exit, waitErr = waitBounded(child, h.p)
		close(ended)
	}()
	if r.beside != nil {
		go r.beside(child)
	}
	cause = watchRows(ctx, m, &r.out.last, r.first, r.stale, ended)
	h.stdin.Close() //nolint:errcheck // the child is told by the close alone
	if r.lastWord && cause == nil && ctx.Err() != nil {
		await(ended, toolGrace)
	}
	if r.lastWord || cause != nil || ctx.Err() != nil {
		cancel()
	}
	<-ended
	h.rest()
	r.out.close()
	if waitErr != nil {
		m.note("%s: %v", r.cfg.Source, waitErr)
	} else if exit != nil {
		cpu = exit.CPU
	}
	if cause == nil && ctx.Err() == nil {
		cause = exitCause(exit, waitErr, r.out.said())
	}
	return cpu, cause
}

func await(done <-chan struct{}, limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// watchRows waits for the end of a child (nil), the end of ctx (nil) or the
// reason for which the child is to be given up: rows that do not come.
func watchRows(ctx context.Context, m *meter, last *atomic.Int64, first, stale time.Duration, ended <-chan struct{}) error {
	began := time.Now()
	tick := time.NewTicker(min(stale/8, 250*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			return nil
		case <-tick.C:
		}
		switch at := last.Load(); {
		case at == 0 && time.Since(began) > first:
			return fmt.Errorf("no row within %v", first.Round(time.Millisecond))
		case at != 0 && m.offset(time.Now())-time.Duration(at) > stale:
			return fmt.Errorf("hangs: no row for %v", stale)
		}
	}
}

// A helper is a running helper child. It ends when stdin is closed.
type helper struct {
	p     proc.Process
	stdin *os.File
	rest  func() // waits for the rest of its output
}

// startHelper starts the helper and gives it its orders. The caller closes ended
// when the process has been waited for.
func startHelper(ctx context.Context, o Options, cfg nvmlConfig, out *frameSink, interval time.Duration, ended <-chan struct{}) (*helper, error) {
	if len(o.Helper) == 0 {
		return nil, errNoHelper
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe to the NVML helper: %w", err)
	}
	defer r.Close() //nolint:errcheck // nothing was written to it, or the child is told by the close alone
	spec := proc.Spec{Argv: o.Helper, Env: append(toolEnv(o.Env), helperThreads(cfg.Source)), Grace: toolGrace, Stdin: r, Stderr: &out.errs}
	begin, err := connect(&spec, out, interval)
	if err != nil {
		w.Close() //nolint:errcheck // nothing was written to it, or the child is told by the close alone
		return nil, err
	}
	p, err := o.start(ctx, spec)
	if err != nil {
		begin(nil)
		w.Close() //nolint:errcheck // nothing was written to it, or the child is told by the close alone
		return nil, err
	}
	rest := begin(ended)
	line, err := json.Marshal(cfg)
	if err == nil {
		_, err = w.Write(append(line, '\n'))
	}
	if err != nil {
		w.Close() //nolint:errcheck // nothing was written to it, or the child is told by the close alone
		p.Stop("its orders could not be written")
		return nil, fmt.Errorf("orders to the NVML helper: %w", err)
	}
	return &helper{p: p, stdin: w, rest: rest}, nil
}

// helperThreads bounds the threads of Go code: NVML's energy counter and process
// lists are read beside the loop; sysfs is read by one goroutine, and a second
// thread would be woken at each tick to find that out.
func helperThreads(source string) string {
	if source == SourceAMDGPU {
		return "GOMAXPROCS=1"
	}
	return "GOMAXPROCS=2"
}

var errNoHelper = errors.New("the NVML helper is not configured (Options.Helper)")

// A frameSink takes what a helper writes apart into frames and hands them on, one at a
// time. What embeds it calls takes first.
type frameSink struct {
	errs limited
	last atomic.Int64 // offset of the last sign of life

	mu      sync.Mutex
	frames  frames
	onFrame func(kind byte, body []byte) // kept, since making it allocates
	failure string                       // set by onFrame: what the helper gave as the reason of its end
	closed  bool
}

func (st *frameSink) takes(onFrame func(kind byte, body []byte)) {
	st.frames, st.onFrame = frames{make([]byte, 0, 64<<10)}, onFrame
}

// Write takes what the helper wrote.
func (st *frameSink) Write(p []byte) (int, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.closed && !st.frames.take(p, st.onFrame) {
		st.failure, st.closed = "the helper's output is garbled", true
	}
	return len(p), nil
}

// drained and patient implement batched: frames carry their own times.
func (st *frameSink) drained(time.Time) {}
func (st *frameSink) patient() bool     { return true }

func (st *frameSink) close() {
	st.mu.Lock()
	st.closed = true
	st.mu.Unlock()
}

// refusal is what the helper gave as the reason for ending by itself.
func (st *frameSink) refusal() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.failure
}

// said is why the helper ended, in its own words.
func (st *frameSink) said() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	text := strings.Join(strings.Fields(st.failure+" "+string(st.errs.bytes())), " ")
	if text == "" {
		return ""
	}
	return ": " + clip(text, 300)
}

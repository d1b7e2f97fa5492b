package sampling

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vramsweep/vramsweep/runner/proc"
)

// maxToolOutput bounds what one call of a tool may say; amd-smi's JSON of eight
// GPUs is about 250 KiB.
const maxToolOutput = 16 << 20

// ToolGrace is how long a tool may take to end when it is asked to. None of
// them has anything to save.
const ToolGrace = 300 * time.Millisecond

// AbandonAfter is how long the end of a stopped tool is waited for. One that
// sits in an uninterruptible call of a hung driver does not die from SIGKILL;
// it is left behind and said.
const AbandonAfter = 2 * time.Second

// ErrHung says that a tool neither answered nor ended.
var ErrHung = errors.New("did not answer")

// ToolEnv is the environment of a tool: UTC, so that its local time stamps
// mean something, plain messages, and Python without block buffering.
func ToolEnv(env []string) []string {
	out := make([]string, 0, len(env)+4)
	for _, kv := range env {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "TZ", "LC_ALL", "LANG", "PYTHONUNBUFFERED":
		default:
			out = append(out, kv)
		}
	}
	return append(out, "TZ=UTC", "LC_ALL=C", "PYTHONUNBUFFERED=1")
}

// EnvValue is the last value of a variable, as a process would see it.
func EnvValue(env []string, name string) (string, bool) {
	value, found := "", false
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			value, found = v, true
		}
	}
	return value, found
}

// An Output is what a tool printed.
type Output struct {
	Stdout, Stderr []byte
	Code           int // -1: ended by a signal
	Took           time.Duration
	CPU            time.Duration
}

// Text is everything that the tool said, for messages.
func (o *Output) Text() string {
	all := strings.TrimSpace(string(o.Stdout))
	if e := strings.TrimSpace(string(o.Stderr)); e != "" && e != all {
		all = strings.TrimSpace(all + "\n" + e)
	}
	return Clip(strings.Join(strings.Fields(all), " "), 300)
}

// RunTool runs a program to its end, for at most o.ToolTimeout. It returns an error
// where the program could not be started or hangs; its exit status is for the
// caller to judge.
func (o Options) RunTool(ctx context.Context, argv ...string) (*Output, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.ToolTimeout, ErrHung)
	defer cancel()
	var out, errs Limited
	began := time.Now()
	p, err := o.launch(ctx, proc.Spec{Argv: argv, Env: ToolEnv(o.Env), Grace: ToolGrace, Stdout: &out, Stderr: &errs})
	if err != nil {
		return nil, err
	}
	exit, err := waitBounded(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w within %v", Clip(strings.Join(argv, " "), 60), err, o.ToolTimeout)
	}
	res := &Output{Stdout: out.Bytes(), Stderr: errs.Bytes(), Code: -1, Took: time.Since(began), CPU: exit.CPU}
	if exit.Code != nil {
		res.Code = *exit.Code
	}
	return res, nil
}

func (o Options) launch(ctx context.Context, spec proc.Spec) (proc.Process, error) {
	spec.NoCgroup, spec.Alone = true, true // an instrument starts nothing of its own
	if o.Start == nil {
		return proc.Start(ctx, spec)
	}
	return o.Start(ctx, spec)
}

// waitBounded waits for a process while ctx lives and a little longer; then it
// leaves the process behind.
func waitBounded(ctx context.Context, p proc.Process) (*proc.Exit, error) {
	type result struct {
		exit *proc.Exit
		err  error
	}
	done := make(chan result, 1)
	go func() {
		exit, err := p.Wait()
		done <- result{exit, err}
	}()
	select {
	case r := <-done:
		return r.exit, r.err
	case <-ctx.Done():
	}
	p.Stop("the reading is over")
	t := time.NewTimer(ToolGrace + AbandonAfter)
	defer t.Stop()
	select {
	case r := <-done:
		if r.err == nil && errors.Is(context.Cause(ctx), ErrHung) {
			return nil, ErrHung
		}
		return r.exit, r.err
	case <-t.C:
		return nil, fmt.Errorf("%w and could not be ended (process %d is left behind)", ErrHung, p.PID())
	}
}

// A Limited is a buffer that forgets what is beyond maxToolOutput. A tool that
// was left behind may still write to it.
type Limited struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write keeps what there is room for.
func (l *Limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := maxToolOutput - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// Bytes is what it kept.
func (l *Limited) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.buf.Bytes())
}

// A Running is a program that was started and is being waited for.
type Running struct {
	Ended  chan struct{} // closed when it has been waited for
	exit   *proc.Exit    // then, as is
	err    error
	cancel context.CancelFunc
	pump   *pump // nil: its output comes without one
}

// Begin starts an instrument whose stdout goes to out: as it comes, or in batches
// where ticks follow each other faster than BatchEvery. It runs until Leave or
// End, also beyond the end of ctx.
func (o Options) Begin(ctx context.Context, spec proc.Spec, out Batched, every time.Duration) (*Running, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &Running{Ended: make(chan struct{}), cancel: cancel}
	spec.Env, spec.Grace, spec.Stdout = append(ToolEnv(o.Env), spec.Env...), ToolGrace, out
	if every < BatchEvery {
		var err error
		if r.pump, err = newPump(out); err != nil {
			cancel()
			return nil, err
		}
		spec.Stdout, spec.StdoutFile = nil, r.pump.w
	}
	p, err := o.launch(ctx, spec)
	ended := r.Ended
	if err != nil {
		cancel()
		ended = nil
	}
	if r.pump != nil {
		r.pump.start(ended)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	go func() {
		r.exit, r.err = waitBounded(ctx, p)
		close(r.Ended)
	}()
	return r, nil
}

// Leave asks the program to end and does not wait.
func (r *Running) Leave() { r.cancel() }

// End ends the program and waits until its output has been read.
func (r *Running) End() {
	r.cancel()
	<-r.Ended
	if r.pump != nil {
		<-r.pump.done
	}
}

// Cause says how a program ended that should not have, and what it said.
func (r *Running) Cause(said string) error {
	switch {
	case r.err != nil:
		return fmt.Errorf("ended: %w%s", r.err, said)
	case r.exit.Code != nil:
		return fmt.Errorf("ended with exit code %d%s", *r.exit.Code, said)
	}
	return fmt.Errorf("ended by signal %s%s", r.exit.Signal, said)
}

// An Instrument is a long-lived program whose output is samples.
type Instrument struct {
	Name         string
	Running      *Running
	Last         *atomic.Int64         // offset of the last sign of life; 0: none yet
	First, Stale time.Duration         // how long rows may keep one waiting
	Said         func() string         // what it said beside rows
	Beside       func(context.Context) // goes on as long as the program; nil: nothing
	Finish       func(stopped bool)    // lets it end by itself; nil: it is ended at once
}

// Watch waits until ctx ends or the instrument fails, and ends it. It returns
// why it failed.
func (i *Instrument) Watch(ctx context.Context, m *Meter) (cause error) {
	r := i.Running
	side, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if i.Beside != nil {
			i.Beside(side)
		}
	}()
	if cause = watchRows(ctx, m, i.Last, i.First, i.Stale, r.Ended); cause != nil {
		cause = fmt.Errorf("%w%s", cause, i.Said())
	}
	if i.Finish != nil {
		i.Finish(cause == nil && ctx.Err() != nil)
	}
	r.End()
	cancel()
	await(done, AbandonAfter) // what hangs in the kernel is left behind
	if r.err != nil {
		m.Note("%s: %v", i.Name, r.err)
	} else if r.exit != nil {
		m.ToolCPU(r.exit.CPU)
	}
	if cause == nil && ctx.Err() == nil {
		cause = r.Cause(i.Said())
	}
	return cause
}

func await(done <-chan struct{}, limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// watchRows waits for the end of a program (nil), the end of ctx (nil) or the
// reason for which the program is to be given up: rows that do not come.
func watchRows(
	ctx context.Context, m *Meter, last *atomic.Int64, first, stale time.Duration, ended <-chan struct{},
) error {
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
		case at != 0 && m.Offset(time.Now())-time.Duration(at) > stale:
			return fmt.Errorf("hangs: no row for %v", stale)
		}
	}
}

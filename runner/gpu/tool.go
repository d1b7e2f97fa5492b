package gpu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner/proc"
)

// maxToolOutput bounds what one call of a tool may say; `nvidia-smi -q -x` of
// eight GPUs is about 250 KiB.
const maxToolOutput = 16 << 20

// toolGrace is how long a tool may take to end when it is asked to. None of
// them has anything to save.
const toolGrace = 300 * time.Millisecond

// abandonAfter is how long the end of a stopped tool is waited for. One that
// sits in an uninterruptible call of a hung driver does not die from SIGKILL;
// it is left behind and said.
const abandonAfter = 2 * time.Second

// errHung says that a tool neither answered nor ended.
var errHung = errors.New("did not answer")

// toolEnv is the environment of a tool: UTC, so that its local time stamps
// mean something, plain messages, and Python without block buffering.
func toolEnv(env []string) []string {
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

// envValue is the last value of a variable, as a process would see it.
func envValue(env []string, name string) (string, bool) {
	value, found := "", false
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			value, found = v, true
		}
	}
	return value, found
}

// output is what a tool printed.
type output struct {
	stdout, stderr []byte
	code           int // -1: ended by a signal
	took           time.Duration
	cpu            time.Duration
}

// text is everything that the tool said, for messages.
func (o *output) text() string {
	all := strings.TrimSpace(string(o.stdout))
	if e := strings.TrimSpace(string(o.stderr)); e != "" && e != all {
		all = strings.TrimSpace(all + "\n" + e)
	}
	return clip(strings.Join(strings.Fields(all), " "), 300)
}

// runTool runs a program to its end, for at most timeout. It returns an error
// where the program could not be started or hangs; its exit status is for the
// caller to judge.
func runTool(ctx context.Context, o Options, timeout time.Duration, argv ...string) (*output, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errHung)
	defer cancel()
	var out, errs limited
	began := time.Now()
	p, err := o.start(ctx, proc.Spec{Argv: argv, Env: toolEnv(o.Env), Grace: toolGrace, Stdout: &out, Stderr: &errs})
	if err != nil {
		return nil, err
	}
	exit, err := waitBounded(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w within %v", strings.Join(argv, " "), err, timeout)
	}
	res := &output{stdout: out.bytes(), stderr: errs.bytes(), code: -1, took: time.Since(began), cpu: exit.CPU}
	if exit.Code != nil {
		res.code = *exit.Code
	}
	return res, nil
}

func (o Options) start(ctx context.Context, spec proc.Spec) (proc.Process, error) {
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
	t := time.NewTimer(toolGrace + abandonAfter)
	defer t.Stop()
	select {
	case r := <-done:
		if r.err == nil && errors.Is(context.Cause(ctx), errHung) {
			return nil, errHung
		}
		return r.exit, r.err
	case <-t.C:
		return nil, fmt.Errorf("%w and could not be ended (process %d is left behind)", errHung, p.PID())
	}
}

// limited is a buffer that forgets what is beyond maxToolOutput. A tool that
// was left behind may still write to it.
type limited struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := maxToolOutput - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (l *limited) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.buf.Bytes())
}

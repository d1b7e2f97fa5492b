package gpu

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner/proc"
)

// An nvmlReader gives full readings through a helper child that stays: a reading
// takes milliseconds then, where starting `nvidia-smi` takes 50 to 300 ms for
// each of the three readings of a run. It is safe for use by several goroutines.
type nvmlReader struct {
	o Options

	mu    sync.Mutex
	child *readerChild // nil: none is running
	hung  time.Time    // when it last did not answer
}

// A readerChild is one life of the helper.
type readerChild struct {
	h      *helper
	st     *nvmlStream
	cancel context.CancelFunc
	ended  chan struct{}
	exit   *proc.Exit
	err    error
}

// read asks for a full reading. A helper that has ended, or that fails, is
// started once more; one that does not answer in time is left behind.
func (r *nvmlReader) read(ctx context.Context) (*Reading, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.child; c != nil {
		if _, err := c.h.stdin.WriteString("\n"); err == nil {
			reading, err := c.answer(ctx, r.o)
			if err == nil || ctx.Err() != nil || errors.Is(err, errHung) {
				return reading, r.judge(err)
			}
		}
		r.end()
	}
	c, err := startReader(r.o)
	if err != nil {
		return nil, err
	}
	r.child = c
	reading, err := c.answer(ctx, r.o)
	return reading, r.judge(err)
}

// judge gives a helper up that failed.
func (r *nvmlReader) judge(err error) error {
	if errors.Is(err, errHung) {
		r.hung = time.Now()
	}
	if err != nil {
		r.end()
	}
	return err
}

// distrust is for how long a helper that did not answer is asked last.
const distrust = 5 * time.Minute

// distrusted reports whether another source should be asked first: waiting for
// a hung driver takes the whole time-out each time.
func (r *nvmlReader) distrusted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.hung.IsZero() && time.Since(r.hung) < distrust
}

// close ends the helper; a later reading starts another one.
func (r *nvmlReader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.child != nil {
		r.end()
	}
}

func (r *nvmlReader) end() {
	r.child.h.stdin.Close() //nolint:errcheck // the helper is told by the close alone
	r.child.cancel()
	r.child = nil
}

// startReader starts a helper whose life is its own: it ends with its stdin, and
// so with this process.
func startReader(o Options) (*readerChild, error) {
	ctx, cancel := context.WithCancel(context.Background())
	c := &readerChild{st: newNVMLStream(nil, nil), cancel: cancel, ended: make(chan struct{})}
	c.st.answers = make(chan *nvmlHello, 1)
	h, err := startHelper(ctx, o, nvmlConfig{Source: SourceNVML, Library: o.NVMLLibrary, Serve: true}, &c.st.frameSink, MaxInterval, c.ended)
	if err != nil {
		cancel()
		return nil, err
	}
	c.h = h
	go func() {
		defer close(c.ended)
		c.exit, c.err = waitBounded(ctx, h.p)
	}()
	return c, nil
}

// answer waits for a reading.
func (c *readerChild) answer(ctx context.Context, o Options) (*Reading, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.ToolTimeout, errHung)
	defer cancel()
	select {
	case hello := <-c.st.answers:
		return hello.reading(), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("NVML helper: %w within %v", context.Cause(ctx), o.ToolTimeout)
	case <-c.ended:
	}
	select {
	case hello := <-c.st.answers: // it answered and ended
		return hello.reading(), nil
	default:
	}
	if why := c.st.refusal(); why != "" {
		return nil, errors.New(why)
	}
	return nil, fmt.Errorf("NVML helper %w", exitCause(c.exit, c.err, c.st.said()))
}

package gpu

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// remote samples through the helper child and watches it until ctx ends or it
// fails.
func (s *amdSource) remote(ctx context.Context, m *meter) error {
	st := newAMDStream(s, m)
	cfg := nvmlConfig{Source: SourceAMDGPU, Interval: int64(s.r.Interval), Sys: s.o.Sys, Dev: s.o.Dev}
	for _, c := range s.cards {
		cfg.Cards = append(cfg.Cards, nvmlConfigAMD{c.bdf, c.index})
	}
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	h, err := startHelper(child, s.o, cfg, st, s.r.Interval, ended)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	var exit *proc.Exit
	var waitErr error
	go func() {
		exit, waitErr = waitBounded(child, h.p)
		close(ended)
	}()
	go st.readProcesses(child)
	cause := watchRows(ctx, m, &st.last, 5*time.Second, 5*time.Second, ended)
	h.stdin.Close() //nolint:errcheck // the child is told by the close alone
	if cause == nil && ctx.Err() != nil {
		await(ended, toolGrace) // it says its last word
	}
	cancel()
	<-ended
	h.rest()
	st.close()
	if waitErr != nil {
		m.note("%s: %v", SourceAMDGPU, waitErr)
	} else if exit != nil {
		s.mu.Lock()
		s.toolCPU += exit.CPU
		s.mu.Unlock()
	}
	if cause == nil && ctx.Err() == nil {
		cause = exitCause(exit, waitErr, st.said())
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

// An amdStream turns the helper's frames into ticks.
type amdStream struct {
	s     *amdSource
	m     *meter
	errs  limited
	last  atomic.Int64 // offset of the last sign of life
	shift time.Duration

	mu      sync.Mutex
	frames  frames
	onFrame func(kind byte, body []byte)
	samples []runner.Sample
	fresh   []amdOwn // by card: what no sample has carried yet
	failure string
	closed  bool
}

// amdOwn is the memory of the run's own processes on a card.
type amdOwn struct {
	index int32
	bytes int64
	ok    bool
}

func newAMDStream(s *amdSource, m *meter) *amdStream {
	st := &amdStream{s: s, m: m, shift: m.offset(time.Now()) - monotonic(), samples: make([]runner.Sample, 0, 16), frames: frames{make([]byte, 0, 64<<10)}}
	for _, c := range s.cards {
		st.fresh = append(st.fresh, amdOwn{index: int32(c.index)})
	}
	st.onFrame = st.frame
	return st
}

// Write takes what the helper wrote.
func (st *amdStream) Write(p []byte) (int, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.closed && !st.frames.take(p, st.onFrame) {
		st.failure, st.closed = "the helper's output is garbled", true
	}
	return len(p), nil
}

// drained and patient implement batched: frames carry their own times.
func (st *amdStream) drained(time.Time)     {}
func (st *amdStream) patient() bool         { return true }
func (st *amdStream) complaints() io.Writer { return &st.errs }

func (st *amdStream) frame(kind byte, body []byte) {
	st.last.Store(int64(st.m.offset(time.Now())))
	switch kind {
	case frameTick:
		st.tick(body)
	case frameState:
		if len(body) == 0 {
			return // nothing new
		}
		var s helperState
		if json.Unmarshal(body, &s) == nil {
			st.m.adopt(&s)
			st.s.mu.Lock()
			st.s.kind = worstKind(st.s.kind, s.PowerKind)
			st.s.mu.Unlock()
		}
	case frameError:
		st.failure = string(body)
	}
}

func (st *amdStream) tick(body []byte) {
	st.samples = st.samples[:0]
	for ; len(body) >= sampleSize; body = body[sampleSize:] {
		st.samples = append(st.samples, runner.Sample{})
		s := &st.samples[len(st.samples)-1]
		decodeSample(body, s)
		s.Source = SourceAMDGPU
		s.Offset += st.shift
		for i := range st.fresh {
			if f := &st.fresh[i]; f.ok && f.index == s.GPU {
				s.ProcessMemory = f.bytes
				s.Has |= runner.HasProcessMemory
				f.ok = false
			}
		}
	}
	st.m.tick(st.samples)
}

// readProcesses keeps asking KFD for the memory of the run's own processes:
// which these are is known here only.
func (st *amdStream) readProcesses(ctx context.Context) {
	if st.s.r.PIDs == nil {
		return
	}
	for {
		for i, c := range st.s.cards {
			sum, ok := st.s.kfdOwn(c, st.m)
			st.mu.Lock()
			if ok {
				st.fresh[i].bytes, st.fresh[i].ok = sum, true
			}
			st.mu.Unlock()
		}
		if !sleep(ctx, processInterval) {
			return
		}
	}
}

func (st *amdStream) close() {
	st.mu.Lock()
	st.closed = true
	st.mu.Unlock()
}

// said is why the helper ended, in its own words.
func (st *amdStream) said() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	text := strings.Join(strings.Fields(st.failure+" "+string(st.errs.bytes())), " ")
	if text == "" {
		return ""
	}
	return ": " + clip(text, 300)
}

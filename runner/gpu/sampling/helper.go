package sampling

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

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// A Helper is the parent's end of a helper child: it gives the child its
// orders, takes apart what it writes and turns it into ticks. What stands here
// is the same for NVML and amdgpu; OnFrame takes the frames of one of them.
type Helper struct {
	Source       string
	Orders       any // as one line of JSON
	Threads      int // of Go code in the child
	Interval     time.Duration
	First, Stale time.Duration // how long rows may keep one waiting
	LastWord     bool          // at the end it may say what it has left
	OnFrame      func(kind byte, body []byte)
	Index        map[int32]int32 // of the run's GPUs, by the child's; what is not in it is the same

	errs Limited
	last atomic.Int64 // offset of the last sign of life

	meter *Meter // nil: single readings
	run   *Running
	stdin *os.File
	shift time.Duration // from the monotonic clock to the meter's offsets

	mu      sync.Mutex
	frames  frames
	onFrame func(kind byte, body []byte) // kept, since making it allocates
	failure string                       // what the child gave as the reason of its end
	closed  bool
	samples []runner.Sample

	own ProcessMemory
}

// ErrNoHelper says that the binary was given no helper.
var ErrNoHelper = errors.New("the NVML helper is not configured (Options.Helper)")

// Sample samples through the child and watches it until ctx ends or it fails;
// beside (nil: nothing) runs meanwhile. It returns why it failed.
func (h *Helper) Sample(ctx context.Context, m *Meter, o Options, beside func(ctx context.Context)) error {
	h.meter, h.shift = m, m.Offset(time.Now())-Monotonic()
	if err := h.Begin(ctx, o); err != nil {
		return fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	i := Instrument{
		Name: h.Source, Running: h.run, Last: &h.last, First: h.First, Stale: h.Stale, Said: h.said, Beside: beside,
	}
	i.Finish = func(stopped bool) {
		h.Release()
		if stopped && h.LastWord {
			await(h.run.Ended, ToolGrace)
		}
	}
	cause := i.Watch(ctx, m)
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	return cause
}

// Begin starts the child and gives it its orders. It ends with Release or End.
func (h *Helper) Begin(ctx context.Context, o Options) error {
	if len(o.Helper) == 0 {
		return ErrNoHelper
	}
	h.frames, h.onFrame = frames{make([]byte, 0, 64<<10)}, h.frame
	orders, err := json.Marshal(h.Orders)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe to the NVML helper: %w", err)
	}
	defer r.Close() //nolint:errcheck // nothing was written to it
	spec := proc.Spec{
		Argv: o.Helper, Env: []string{fmt.Sprintf("GOMAXPROCS=%d", h.Threads)}, Stdin: r, Stderr: &h.errs,
	}
	h.stdin = w
	if h.run, err = o.Begin(ctx, spec, h, h.Interval); err != nil {
		h.Release()
		return err
	}
	if _, err := w.Write(append(orders, '\n')); err != nil {
		h.End()
		return fmt.Errorf("orders to the NVML helper: %w", err)
	}
	return nil
}

// Ask gives the child a further order: an empty line.
func (h *Helper) Ask() error {
	_, err := h.stdin.WriteString("\n")
	return err
}

// Ended is closed when the child has ended.
func (h *Helper) Ended() <-chan struct{} { return h.run.Ended }

// Release closes the child's stdin: it ends by itself.
func (h *Helper) Release() {
	h.stdin.Close() //nolint:errcheck // the child is told by the close alone
}

// End makes the child end and does not wait for it.
func (h *Helper) End() {
	h.Release()
	h.run.Leave()
}

// Write takes what the helper wrote.
func (h *Helper) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed && !h.frames.take(p, h.onFrame) {
		h.failure, h.closed = "the helper's output is garbled", true
	}
	return len(p), nil
}

// Drained and Patient implement Batched: frames carry their own times.
func (h *Helper) Drained(time.Time) {}

// Patient implements Batched.
func (h *Helper) Patient() bool { return true }

func (h *Helper) frame(kind byte, body []byte) {
	switch kind {
	case FrameError:
		h.failure = string(body)
	case FrameTick:
		h.tick(body)
	case FrameState:
		h.alive()
		var s State
		if len(body) > 0 && json.Unmarshal(body, &s) == nil && h.meter != nil {
			h.meter.Adopt(&s)
		}
	default:
		if h.OnFrame != nil {
			h.OnFrame(kind, body)
		}
	}
}

func (h *Helper) alive() {
	if h.meter != nil {
		h.last.Store(int64(h.meter.Offset(time.Now())))
	}
}

func (h *Helper) tick(body []byte) {
	if h.meter == nil {
		return
	}
	h.samples = h.samples[:0]
	for ; len(body) >= sampleSize; body = body[sampleSize:] {
		h.samples = append(h.samples, runner.Sample{})
		s := &h.samples[len(h.samples)-1]
		decodeSample(body, s)
		s.Source, s.GPU = h.Source, h.GPU(s.GPU)
		s.Offset += h.shift
		h.own.Attach(s)
	}
	h.alive()
	h.meter.Tick(h.samples)
}

// GPU is the run's index of one of the child's GPUs.
func (h *Helper) GPU(index int32) int32 {
	if to, ok := h.Index[index]; ok {
		return to
	}
	return index
}

// Carry has the next sample of a GPU carry what the run's own processes hold.
func (h *Helper) Carry(gpu int32, bytes int64) { h.own.Set(gpu, bytes) }

// Why says why the child has ended.
func (h *Helper) Why() error {
	h.mu.Lock()
	failure := h.failure
	h.mu.Unlock()
	if failure != "" {
		return errors.New(failure)
	}
	return fmt.Errorf("NVML helper %w", h.run.Cause(h.said()))
}

// said is why the helper ended, in its own words.
func (h *Helper) said() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Said(h.failure, &h.errs)
}

// Said is what a program said beside rows, as the end of a message; "" if it
// said nothing.
func Said(text string, errs *Limited) string {
	text = strings.Join(strings.Fields(text+" "+string(errs.Bytes())), " ")
	if text == "" {
		return ""
	}
	return ": " + Clip(text, 300)
}

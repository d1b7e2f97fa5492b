package sampling

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// What parent and helper say to each other. Both are the same binary, so that
// the layout needs no version. Parent to helper: one line of JSON. Helper to
// parent: frames of a length (uint32, little endian, without itself), a kind
// (one byte) and a body.
const (
	FrameTick  = 'T' // samples of sampleSize bytes
	FrameState = 'S' // State as JSON: what a sampler in the helper says of itself; empty: it lives
	FrameError = 'E' // text; the helper ends
)

// maxFrame bounds a frame; a full reading of 16 GPUs with 512 processes each is
// 400 KiB.
const maxFrame = 4 << 20

// frames cuts a stream of bytes into frames.
type frames struct{ buf []byte }

// take gives each complete frame to yield; false where the bytes are none.
func (f *frames) take(p []byte, yield func(kind byte, body []byte)) bool {
	if len(f.buf) > 0 {
		f.buf = append(f.buf, p...)
		p = f.buf
	}
	for len(p) >= 5 {
		size := int(binary.LittleEndian.Uint32(p))
		if size < 1 || size > maxFrame {
			return false
		}
		if len(p) < 4+size {
			break
		}
		yield(p[4], p[5:4+size])
		p = p[4+size:]
	}
	f.buf = append(f.buf[:0], p...)
	return true
}

// A Wire is the helper's end: it writes frames, from any goroutine.
type Wire struct {
	mu  sync.Mutex
	out io.Writer
	buf []byte
}

// NewWire writes frames to out.
func NewWire(out io.Writer) *Wire { return &Wire{out: out} }

// Frame writes one frame, at once; false: the parent has gone.
func (w *Wire) Frame(kind byte, body []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = binary.LittleEndian.AppendUint32(w.buf[:0], uint32(len(body)+1))
	w.buf = append(append(w.buf, kind), body...)
	_, err := w.out.Write(w.buf)
	return err == nil
}

// JSON writes a value as one frame.
func (w *Wire) JSON(kind byte, v any) bool {
	body, err := json.Marshal(v)
	return err == nil && w.Frame(kind, body)
}

// Fail gives the reason for which the helper ends, and its exit code.
func (w *Wire) Fail(err error) int {
	w.Frame(FrameError, []byte(err.Error()))
	return 1
}

// UntilEOF is a context that ends with in: the parent has gone then.
func UntilEOF(in io.Reader) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return ctx
}

// A State is what a sampler in the helper says of itself, several times a
// second: that it lives, too.
type State struct {
	Notes     []string          `json:"notes,omitempty"`
	Missing   map[string]string `json:"missing,omitempty"` // of figures that were never read
	Misses    map[string]int64  `json:"misses,omitempty"`  // readings that failed since the last state
	Reason    string            `json:"reason,omitempty"`  // of a stretch without samples
	PowerKind string            `json:"power_kind,omitempty"`
}

// sampleSize is a sample's length on the wire.
const sampleSize = 104

// AppendSample appends a sample as a tick holds it: without source, and with
// the monotonic clock in the place of its offset.
func AppendSample(b []byte, s *runner.Sample) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(s.GPU))
	b = le.AppendUint32(b, uint32(s.Has))
	for _, v := range [...]int64{
		int64(s.Offset), int64(s.Read), s.MemoryUsed, s.MemoryReserved, s.MemoryTotal, s.ThrottleReasons,
	} {
		b = le.AppendUint64(b, uint64(v))
	}
	for _, v := range [...]float64{s.Power, s.Energy, s.Temperature, s.MemoryTemp} {
		b = le.AppendUint64(b, math.Float64bits(v))
	}
	for _, v := range [...]int32{s.Utilization, s.MemoryUtil, s.ClockSM, s.ClockMem} {
		b = le.AppendUint32(b, uint32(v))
	}
	return b
}

func decodeSample(b []byte, s *runner.Sample) {
	le := binary.LittleEndian
	i64 := func(at int) int64 { return int64(le.Uint64(b[at:])) }
	f64 := func(at int) float64 { return math.Float64frombits(le.Uint64(b[at:])) }
	i32 := func(at int) int32 { return int32(le.Uint32(b[at:])) }
	*s = runner.Sample{
		GPU: i32(0), Has: runner.Fields(le.Uint32(b[4:])), Offset: time.Duration(i64(8)), Read: time.Duration(i64(16)),
		MemoryUsed: i64(24), MemoryReserved: i64(32), MemoryTotal: i64(40), ThrottleReasons: i64(48),
		Power: f64(56), Energy: f64(64), Temperature: f64(72), MemoryTemp: f64(80),
		Utilization: i32(88), MemoryUtil: i32(92), ClockSM: i32(96), ClockMem: i32(100),
	}
}

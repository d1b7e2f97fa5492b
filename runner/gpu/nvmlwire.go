package gpu

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// What parent and helper say to each other. Both are the same binary, so that
// the layout needs no version. Parent to helper: one line of JSON. Helper to
// parent: frames of a length (uint32, little endian, without itself), a kind
// (one byte) and a body.
const (
	frameHello     = 'H' // nvmlHello as JSON: at the start, and for each order
	frameTick      = 'T' // samples of sampleSize bytes
	frameProcesses = 'P' // GPU (uint32), then pid (uint32) and bytes (uint64) of each process
	frameTrouble   = 'W' // nvmlTrouble as JSON: a GPU is lost, the others go on
	frameError     = 'E' // text; the helper ends
	frameState     = 'S' // helperState as JSON: what a sampler in the helper says of itself
)

// maxFrame bounds a frame; hello of 16 GPUs with 512 processes is 400 KiB.
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

// appendFrame appends one frame.
func appendFrame(b []byte, kind byte, body []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)+1))
	return append(append(b, kind), body...)
}

type nvmlConfig struct {
	Source    string   `json:"source"` // SourceNVML or SourceAMDGPU
	Library   string   `json:"library"`
	Interval  int64    `json:"interval_ns"`
	Energy    int64    `json:"energy_ns"`    // 0: not read
	Processes int64    `json:"processes_ns"` // 0: not read
	BusIDs    []string `json:"bus_ids"`      // nil: all
	Parts     []string `json:"parts"`        // UUIDs of the MIG instances whose memory counts instead of their GPU's
	Serve     bool     `json:"serve"`        // no samples: a full reading for each further line on stdin

	Sys   string          `json:"sys"`   // of AMD GPUs
	Dev   string          `json:"dev"`   // likewise
	Cards []nvmlConfigAMD `json:"cards"` // likewise: those that are sampled
}

// An nvmlConfigAMD is a card and the index that its samples carry.
type nvmlConfigAMD struct {
	BDF   string `json:"bdf"`
	Index int    `json:"index"`
}

// A helperState is what a sampler in the helper says of itself, several times a
// second: that it lives, too.
type helperState struct {
	Notes     []string          `json:"notes,omitempty"`
	Missing   map[string]string `json:"missing,omitempty"` // of figures that were never read
	Misses    map[string]int64  `json:"misses,omitempty"`  // readings that failed since the last state
	Reason    string            `json:"reason,omitempty"`  // of a stretch without samples
	PowerKind string            `json:"power_kind,omitempty"`
}

type nvmlHello struct {
	Driver         string           `json:"driver"`
	MissingSymbols []string         `json:"missing_symbols"`
	Devices        []nvmlDeviceInfo `json:"devices"`
}

type nvmlDeviceInfo struct {
	Index      int               `json:"index"`
	UUID       string            `json:"uuid"`
	Name       string            `json:"name"`
	BusID      string            `json:"bus_id"`
	MemoryV1   bool              `json:"memory_v1"`
	PowerKind  string            `json:"power_kind"`
	ComputeCap float64           `json:"compute_cap"` // 9.0; 0: not told
	Error      string            `json:"error,omitempty"`
	First      runner.Sample     `json:"first"`
	Processes  []nvmlProcessInfo `json:"processes"` // nil: not told
	ECC        *uint64           `json:"ecc"`       // uncorrected, since the driver was loaded
	Texts      map[string]string `json:"texts"`     // "persistence_mode", "compute_mode", "mig_mode"
	Parts      []nvmlPartInfo    `json:"parts"`     // MIG instances
}

// An nvmlPartInfo is a MIG instance: its own memory and processes.
type nvmlPartInfo struct {
	UUID      string            `json:"uuid"`
	Name      string            `json:"name"`
	First     runner.Sample     `json:"first"`
	Processes []nvmlProcessInfo `json:"processes"`
}

type nvmlProcessInfo struct {
	PID   int    `json:"pid"`
	Name  string `json:"name"`
	Bytes *int64 `json:"bytes"`
}

type nvmlTrouble struct {
	Index int    `json:"index"`
	Text  string `json:"text"`
}

// sampleSize is a sample's length on the wire.
const sampleSize = 104

func appendSample(b []byte, s *runner.Sample) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(s.GPU))
	b = le.AppendUint32(b, uint32(s.Has))
	for _, v := range [...]int64{int64(s.Offset), int64(s.Read), s.MemoryUsed, s.MemoryReserved, s.MemoryTotal, s.ThrottleReasons} {
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
		Source: SourceNVML,
	}
}

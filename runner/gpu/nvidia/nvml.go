package nvidia

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// nvmlEnergyEvery is how often the energy counters are read: a call takes 3 ms
// and the counter changes every 100 ms (H100), so that more often would cost
// more than all other figures together.
const nvmlEnergyEvery = 500 * time.Millisecond

// What the helper writes beside samples.
const (
	frameHello     = 'H' // nvmlHello as JSON: at the start, and for each order
	frameProcesses = 'P' // GPU (uint32), then pid (uint32) and bytes (uint64) of each process
	frameTrouble   = 'W' // nvmlTrouble as JSON: a GPU is lost, the others go on
)

// nvmlOrders are what the helper is to do.
type nvmlOrders struct {
	Source    string   `json:"source"`
	Library   string   `json:"library"`
	Interval  int64    `json:"interval_ns"`
	Energy    int64    `json:"energy_ns"`    // 0: not read
	Processes int64    `json:"processes_ns"` // 0: not read
	BusIDs    []string `json:"bus_ids"`      // nil: all
	Parts     []string `json:"parts"`        // UUIDs of the MIG instances whose memory counts instead of their GPU's
	Serve     bool     `json:"serve"`        // no samples: a full reading for each further line on stdin
}

// An nvmlHello is a full reading.
type nvmlHello struct {
	sampling.Reading
	MissingSymbols []string `json:"missing_symbols"`
}

type nvmlTrouble struct {
	Index int    `json:"index"`
	Text  string `json:"text"`
}

func newNVMLHelper(orders nvmlOrders, interval time.Duration) *sampling.Helper {
	orders.Source = sampling.SourceNVML
	return &sampling.Helper{
		Source: sampling.SourceNVML, Orders: orders, Interval: interval,
		Threads: 2, // the energy counter and process lists are read beside the loop
	}
}

const notAsked = "the run's own processes were not asked for"

// nvmlSource samples through the helper child.
type nvmlSource struct {
	o     sampling.Options
	r     sampling.Run
	tree  *sampling.Tree
	known []smiDevice // the run's view of the devices; empty: the helper's own

	told bool // the helper has said what it can
}

func newNVMLSource(o sampling.Options, r sampling.Run, t *sampling.Tree, known []smiDevice) *nvmlSource {
	return &nvmlSource{o: o, r: r, tree: t, known: known}
}

// Name implements sampling.Source.
func (s *nvmlSource) Name() string { return sampling.SourceNVML }

// Run starts the helper and watches it until ctx ends or it fails.
func (s *nvmlSource) Run(ctx context.Context, m *sampling.Meter) error {
	orders := nvmlOrders{
		Library: s.o.NVMLLibrary, Interval: int64(s.r.Interval), Energy: int64(nvmlEnergyEvery), Parts: s.r.Parts,
	}
	if s.r.GPUs != nil {
		for _, d := range s.known {
			if s.r.Wants(int(d.index)) {
				orders.BusIDs = append(orders.BusIDs, sampling.BusKey(d.busID))
			}
		}
	}
	if s.r.PIDs != nil {
		orders.Processes = int64(sampling.ProcessInterval)
	} else {
		m.Never(runner.HasProcessMemory, notAsked)
	}
	h := newNVMLHelper(orders, s.r.Interval)
	h.First, h.Stale = 5*time.Second+s.r.Interval, max(smiStale, 5*s.r.Interval)
	h.Index = map[int32]int32{}
	h.OnFrame = func(kind byte, body []byte) { s.frame(h, m, kind, body) }
	return h.Sample(ctx, m, s.o, nil)
}

func (s *nvmlSource) frame(h *sampling.Helper, m *sampling.Meter, kind byte, body []byte) {
	switch kind {
	case frameProcesses:
		s.processes(h, m, body)
	case frameHello:
		hello := &nvmlHello{}
		if json.Unmarshal(body, hello) == nil {
			s.greet(h, m, hello)
		}
	case frameTrouble:
		var t nvmlTrouble
		if json.Unmarshal(body, &t) == nil {
			m.Because(t.Text)
			m.Note("GPU %d: %s at %s: left out from then on", h.GPU(int32(t.Index)), t.Text, m.Now())
		}
	}
}

// greet takes what the helper found: how its devices map to the run's, and what
// they cannot tell.
func (s *nvmlSource) greet(h *sampling.Helper, m *sampling.Meter, hello *nvmlHello) {
	for i := range hello.GPUs {
		g := &hello.GPUs[i]
		for _, known := range s.known {
			if sampling.BusKey(known.busID) == sampling.BusKey(g.BusID) {
				h.Index[int32(g.Index)] = known.index
			}
		}
		if g.Lost != "" {
			m.Note("GPU %d: %s", g.Index, g.Lost)
			continue
		}
		m.PowerKind(g.PowerKind)
		if g.Reserve && g.Has(runner.HasMemoryUsed) {
			m.Note("this driver has only NVML's first memory call: the driver's reserve counts as used")
		}
		s.lacks(m, g)
	}
	if len(hello.MissingSymbols) > 0 && !s.told {
		m.Note("libnvidia-ml of driver %s lacks %s", hello.Driver, strings.Join(hello.MissingSymbols, ", "))
	}
	s.told = true
}

func (s *nvmlSource) lacks(m *sampling.Meter, g *sampling.GPU) {
	all := sampling.MemoryFields | runner.HasPower | runner.HasTemperature | runner.HasMemoryTemp |
		runner.HasUtilization | runner.HasMemoryUtil | runner.HasClockSM | runner.HasClockMem | runner.HasThrottleReasons
	if len(s.r.Parts) > 0 && !g.Has(runner.HasPower) {
		m.Never(runner.HasPower, sampling.MIGPower)
		m.Never(runner.HasEnergy, sampling.MIGPower)
	}
	for f := all &^ g.Sample.Has; f != 0; f &= f - 1 {
		m.Never(f&-f, cmp.Or(g.Missing[sampling.FieldName(f&-f)], "NVML does not report it for this GPU or driver"))
	}
	m.Never(runner.HasEnergy, "this GPU or driver has no energy counter, or the run was too short for a reading")
	m.Never(runner.HasProcessMemory,
		"NVML listed none of the run's processes: they use no GPU, or a PID namespace (container) hides them")
}

// processes sums what the run's own processes hold on a GPU.
func (s *nvmlSource) processes(h *sampling.Helper, m *sampling.Meter, body []byte) {
	if len(body) < 4 {
		return
	}
	gpu := h.GPU(int32(binary.LittleEndian.Uint32(body)))
	own, _ := s.tree.PIDs()
	var sum int64
	found := false
	for body = body[4:]; len(body) >= 12; body = body[12:] {
		pid, used := int(binary.LittleEndian.Uint32(body)), binary.LittleEndian.Uint64(body[4:])
		if !slices.Contains(own, pid) {
			continue
		}
		if used == 1<<64-1 {
			m.Never(runner.HasProcessMemory, "the driver does not report the memory of single processes here")
			return
		}
		sum += int64(used)
		found = true
	}
	if found {
		h.Carry(gpu, sum)
	}
}

// An nvmlReader gives full readings through a helper child that stays: a reading
// takes milliseconds then, where starting `nvidia-smi` takes 50 to 300 ms for
// each of the three readings of a run. It is safe for use by several goroutines.
type nvmlReader struct {
	o sampling.Options

	mu      sync.Mutex
	child   *sampling.Helper // nil: none is running
	answers chan *nvmlHello  // of the child
	hung    time.Time        // when it last did not answer
}

// read asks for a full reading. A helper that has ended, or that fails, is
// started once more; one that does not answer in time is left behind.
func (r *nvmlReader) read(ctx context.Context) (*sampling.Reading, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.child != nil {
		if r.child.Ask() == nil {
			reading, err := r.answer(ctx)
			if err == nil || ctx.Err() != nil || errors.Is(err, sampling.ErrHung) {
				return reading, r.judge(err)
			}
		}
		r.end()
	}
	if err := r.start(); err != nil {
		return nil, err
	}
	reading, err := r.answer(ctx)
	return reading, r.judge(err)
}

// judge gives a helper up that failed.
func (r *nvmlReader) judge(err error) error {
	if errors.Is(err, sampling.ErrHung) {
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
	r.child.End()
	r.child = nil
}

// start starts a helper whose life is its own: it ends with its stdin, and so
// with this process.
func (r *nvmlReader) start() error {
	answers := make(chan *nvmlHello, 1)
	h := newNVMLHelper(nvmlOrders{Library: r.o.NVMLLibrary, Serve: true}, sampling.MaxInterval)
	h.OnFrame = func(kind byte, body []byte) {
		hello := &nvmlHello{}
		if kind != frameHello || json.Unmarshal(body, hello) != nil {
			return
		}
		select {
		case answers <- hello:
		default: // nobody asked
		}
	}
	if err := h.Begin(context.Background(), r.o); err != nil {
		return err
	}
	r.child, r.answers = h, answers
	return nil
}

// answer waits for a reading.
func (r *nvmlReader) answer(ctx context.Context) (*sampling.Reading, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.o.ToolTimeout, sampling.ErrHung)
	defer cancel()
	select {
	case hello := <-r.answers:
		return &hello.Reading, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("NVML helper: %w within %v", context.Cause(ctx), r.o.ToolTimeout)
	case <-r.child.Ended():
	}
	select {
	case hello := <-r.answers: // it answered and ended
		return &hello.Reading, nil
	default:
		return nil, r.child.Why()
	}
}

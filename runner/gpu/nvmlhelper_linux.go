package gpu

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// NVMLHelperMain is the helper child: it reads its orders from stdin, one line
// of JSON, and writes frames to stdout until stdin ends. It returns the exit
// code. It runs in a process of its own because a driver that hangs or a
// library that crashes takes its process along.
func NVMLHelperMain(stdin io.Reader, stdout io.Writer) int {
	in := bufio.NewReader(stdin)
	line, err := in.ReadBytes('\n')
	if err != nil && len(line) == 0 {
		return 2
	}
	h := &nvmlHelper{out: stdout}
	if err := json.Unmarshal(line, &h.cfg); err != nil {
		return h.fail(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !h.cfg.Serve {
		go func() { // the parent has gone when stdin ends
			_, _ = io.Copy(io.Discard, in)
			cancel()
		}()
	}
	if h.cfg.Source == SourceAMDGPU {
		return h.sampleAMD(ctx)
	}
	lib, err := openNVML(h.cfg.Library)
	if err != nil {
		return h.fail(err)
	}
	if err := lib.init(); err != nil {
		return h.fail(err)
	}
	defer lib.shutdown()
	if h.cfg.Serve {
		return h.answer(in, lib)
	}
	return h.serve(ctx, lib)
}

type nvmlHelper struct {
	cfg  nvmlConfig
	gpus []*nvmlGPU // those that are sampled

	mu  sync.Mutex // of out
	out io.Writer
	buf []byte

	emu    sync.Mutex
	energy []float64 // fresh readings by place in gpus; NaN: none
}

func (h *nvmlHelper) fail(err error) int {
	h.frame(frameError, []byte(err.Error()))
	return 1
}

// frame writes one record: its length, its kind, its body.
func (h *nvmlHelper) frame(kind byte, body []byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf = appendFrame(h.buf[:0], kind, body)
	_, err := h.out.Write(h.buf)
	return err == nil
}

// answer gives a full reading, and another one for each line that comes, until
// stdin ends. The devices are looked up anew each time: one may have been lost.
func (h *nvmlHelper) answer(in *bufio.Reader, lib *nvmlLibrary) int {
	for first := true; ; first = false {
		gpus, driver, err := lib.open()
		if err != nil {
			return h.fail(err)
		}
		for _, g := range gpus {
			if !g.lost {
				g.readFirst()
				g.full(first)
			}
		}
		if err := h.hello(gpus, driver, lib.missing); err != nil {
			return h.fail(err)
		}
		if _, err := in.ReadBytes('\n'); err != nil {
			return 0
		}
	}
}

func (h *nvmlHelper) hello(gpus []*nvmlGPU, driver string, missing []string) error {
	hello := nvmlHello{Driver: driver, MissingSymbols: missing}
	for _, g := range gpus {
		hello.Devices = append(hello.Devices, g.info)
	}
	body, err := json.Marshal(hello)
	if err != nil {
		return err
	}
	if !h.frame(frameHello, body) {
		return errors.New("the parent has gone")
	}
	return nil
}

func (h *nvmlHelper) serve(ctx context.Context, lib *nvmlLibrary) int {
	gpus, driver, err := lib.open()
	if err != nil {
		return h.fail(err)
	}
	for _, g := range gpus {
		if g.lost {
			continue
		}
		g.restrict(h.cfg.Parts)
		g.readFirst()
		if h.cfg.BusIDs == nil || slices.Contains(h.cfg.BusIDs, busKey(g.info.BusID)) {
			h.gpus = append(h.gpus, g)
			h.energy = append(h.energy, math.NaN())
		}
	}
	if err := h.hello(gpus, driver, lib.missing); err != nil {
		return h.fail(err)
	}
	if len(h.gpus) == 0 {
		return h.fail(errors.New("none of the GPUs asked for is there"))
	}
	go h.readEnergy(ctx)
	go h.listProcesses(ctx)
	return h.loop(ctx)
}

// readFirst notes what a first reading gives: what this GPU can tell.
func (g *nvmlGPU) readFirst() {
	var s runner.Sample
	g.read(&s)
	g.info.First = s
}

// loop is the sampling loop: one frame, written at once, a tick.
func (h *nvmlHelper) loop(ctx context.Context) int {
	sched := newPreciseSchedule(time.Duration(h.cfg.Interval))
	defer sched.stop()
	body := make([]byte, 0, len(h.gpus)*sampleSize)
	bad := 0
	for sched.wait(ctx) {
		body = body[:0]
		fatal := nvmlSuccess
		for i, g := range h.gpus {
			if g.lost {
				continue
			}
			var rc int
			if body, rc = h.sample(body, i, g); rc == nvmlGPUIsLost || rc == nvmlResetRequired {
				g.lost = true
				h.tell(nvmlTrouble{Index: g.index, Text: nvmlError(rc)})
			} else if rc != nvmlSuccess && rc != nvmlNotSupported {
				fatal = rc
			}
		}
		if len(body) > 0 && !h.frame(frameTick, body) {
			return 0 // the parent has gone
		}
		if fatal == nvmlSuccess {
			bad = 0
		} else if bad++; bad >= 3 {
			return h.fail(errors.New("reading the memory fails: " + nvmlError(fatal)))
		}
		if !slices.ContainsFunc(h.gpus, func(g *nvmlGPU) bool { return !g.lost }) {
			return h.fail(errors.New("all GPUs are lost"))
		}
	}
	return 0
}

func (h *nvmlHelper) tell(t nvmlTrouble) {
	if b, err := json.Marshal(t); err == nil {
		h.frame(frameTrouble, b)
	}
}

// sample appends one GPU's reading.
func (h *nvmlHelper) sample(body []byte, i int, g *nvmlGPU) ([]byte, int) {
	s := runner.Sample{GPU: int32(g.index)}
	began := monotonic()
	rc := g.read(&s)
	if rc != nvmlSuccess {
		return body, rc
	}
	s.Offset, s.Read = began, monotonic()-began
	h.emu.Lock()
	if v := h.energy[i]; !math.IsNaN(v) {
		s.Energy = v
		s.Has |= runner.HasEnergy
		h.energy[i] = math.NaN()
	}
	h.emu.Unlock()
	return appendSample(body, &s), rc
}

// readEnergy keeps reading the counters beside the loop: a call takes
// milliseconds.
func (h *nvmlHelper) readEnergy(ctx context.Context) {
	if h.cfg.Energy <= 0 {
		return
	}
	sched := newSchedule(time.Duration(h.cfg.Energy))
	defer sched.stop()
	for sched.wait(ctx) {
		any := false
		for i, g := range h.gpus {
			if len(g.counts) > 0 && len(g.parts) > 1 {
				continue // other instances share it
			}
			v, ok := g.readEnergy()
			if !ok {
				continue
			}
			any = true
			h.emu.Lock()
			h.energy[i] = v
			h.emu.Unlock()
		}
		if !any {
			return // no counter
		}
	}
}

// listProcesses sends who holds memory, beside the loop.
func (h *nvmlHelper) listProcesses(ctx context.Context) {
	if h.cfg.Processes <= 0 {
		return
	}
	sched := newSchedule(time.Duration(h.cfg.Processes))
	defer sched.stop()
	var body []byte
	for sched.wait(ctx) {
		for _, g := range h.gpus {
			body = binary.LittleEndian.AppendUint32(body[:0], uint32(g.index))
			told := true
			for _, handle := range g.holders() {
				list, ok := g.processes(handle)
				told = told && ok
				for _, p := range list {
					body = binary.LittleEndian.AppendUint32(body, p.pid)
					body = binary.LittleEndian.AppendUint64(body, p.used)
				}
			}
			if !told {
				continue
			}
			if !h.frame(frameProcesses, body) {
				return
			}
		}
	}
}

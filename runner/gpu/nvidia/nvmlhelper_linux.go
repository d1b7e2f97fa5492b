package nvidia

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// Help is the helper child: it follows orders and writes frames until stdin
// ends. It returns the exit code.
func Help(orders []byte, in *bufio.Reader, out *sampling.Wire) int {
	h := &nvmlHelper{out: out}
	if err := json.Unmarshal(orders, &h.orders); err != nil {
		return out.Fail(err)
	}
	ctx := context.Background()
	if !h.orders.Serve {
		ctx = sampling.UntilEOF(in)
	}
	lib, err := openNVML(h.orders.Library)
	if err != nil {
		return out.Fail(err)
	}
	if err := lib.init(); err != nil {
		return out.Fail(err)
	}
	defer lib.shutdown()
	if h.orders.Serve {
		return h.answer(in, lib)
	}
	return h.serve(ctx, lib)
}

type nvmlHelper struct {
	orders nvmlOrders
	out    *sampling.Wire
	gpus   []*nvmlGPU // those that are sampled

	emu    sync.Mutex
	energy []float64 // fresh readings by place in gpus; NaN: none
}

// answer gives a full reading, and another one for each line that comes, until
// stdin ends. The devices are looked up anew each time: one may have been lost.
func (h *nvmlHelper) answer(in *bufio.Reader, lib *nvmlLibrary) int {
	for first := true; ; first = false {
		gpus, driver, err := lib.open()
		if err != nil {
			return h.out.Fail(err)
		}
		for _, g := range gpus {
			if !g.lost {
				g.readFirst()
				g.full(first)
			}
		}
		if err := h.hello(gpus, driver, lib.missing); err != nil {
			return h.out.Fail(err)
		}
		if _, err := in.ReadBytes('\n'); err != nil {
			return 0
		}
	}
}

func (h *nvmlHelper) hello(gpus []*nvmlGPU, driver string, missing []string) error {
	hello := nvmlHello{MissingSymbols: missing}
	hello.Tool, hello.Driver = sampling.SourceNVML, driver
	for _, g := range gpus {
		hello.GPUs = append(hello.GPUs, g.info)
	}
	if !h.out.JSON(frameHello, hello) {
		return errors.New("the parent has gone")
	}
	return nil
}

func (h *nvmlHelper) serve(ctx context.Context, lib *nvmlLibrary) int {
	gpus, driver, err := lib.open()
	if err != nil {
		return h.out.Fail(err)
	}
	for _, g := range gpus {
		if g.lost {
			continue
		}
		g.restrict(h.orders.Parts)
		g.readFirst()
		if h.orders.BusIDs == nil || slices.Contains(h.orders.BusIDs, sampling.BusKey(g.info.BusID)) {
			h.gpus = append(h.gpus, g)
			h.energy = append(h.energy, math.NaN())
		}
	}
	if err := h.hello(gpus, driver, lib.missing); err != nil {
		return h.out.Fail(err)
	}
	if len(h.gpus) == 0 {
		return h.out.Fail(errors.New("none of the GPUs asked for is there"))
	}
	go h.readEnergy(ctx)
	go h.listProcesses(ctx)
	return h.loop(ctx)
}

// readFirst notes what a first reading gives: what this GPU can tell.
func (g *nvmlGPU) readFirst() {
	var s runner.Sample
	rc := g.read(&s)
	if g.info.Sample = s; s.Has&runner.HasMemoryUsed == 0 {
		if rc == nvmlSuccess {
			rc = g.readMemory(&s)
		}
		why := "the driver's figures cannot be: more in use than there is"
		if rc != nvmlSuccess {
			why = nvmlError(rc)
		}
		g.info.Lacks(runner.HasMemoryUsed, why)
	}
}

// loop is the sampling loop: one frame, written at once, a tick.
func (h *nvmlHelper) loop(ctx context.Context) int {
	sched := sampling.NewPreciseSchedule(time.Duration(h.orders.Interval))
	defer sched.Stop()
	body := []byte{}
	bad := 0
	for sched.Wait(ctx) {
		body = body[:0]
		fatal := nvmlSuccess
		for i, g := range h.gpus {
			if g.lost {
				continue
			}
			var rc int
			if body, rc = h.sample(body, i, g); rc == nvmlGPUIsLost || rc == nvmlResetRequired {
				g.lost = true
				h.out.JSON(frameTrouble, nvmlTrouble{Index: g.index, Text: nvmlError(rc)})
			} else if rc != nvmlSuccess {
				fatal = rc
			}
		}
		if len(body) > 0 && !h.out.Frame(sampling.FrameTick, body) {
			return 0 // the parent has gone
		}
		if fatal == nvmlSuccess {
			bad = 0
		} else if bad++; bad >= 3 {
			return h.out.Fail(errors.New("reading the memory fails: " + nvmlError(fatal)))
		}
		if !slices.ContainsFunc(h.gpus, func(g *nvmlGPU) bool { return !g.lost }) {
			return h.out.Fail(errors.New("all GPUs are lost"))
		}
	}
	return 0
}

// sample appends one GPU's reading.
func (h *nvmlHelper) sample(body []byte, i int, g *nvmlGPU) ([]byte, int) {
	s := runner.Sample{GPU: int32(g.index)}
	began := sampling.Monotonic()
	rc := g.read(&s)
	if rc != nvmlSuccess {
		return body, rc
	}
	s.Offset, s.Read = began, sampling.Monotonic()-began
	h.emu.Lock()
	if v := h.energy[i]; !math.IsNaN(v) {
		s.Energy = v
		s.Has |= runner.HasEnergy
		h.energy[i] = math.NaN()
	}
	h.emu.Unlock()
	return sampling.AppendSample(body, &s), rc
}

// readEnergy keeps reading the counters beside the loop: a call takes
// milliseconds.
func (h *nvmlHelper) readEnergy(ctx context.Context) {
	if h.orders.Energy <= 0 {
		return
	}
	sched := sampling.NewSchedule(time.Duration(h.orders.Energy))
	defer sched.Stop()
	for sched.Wait(ctx) {
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
	if h.orders.Processes <= 0 {
		return
	}
	sched := sampling.NewSchedule(time.Duration(h.orders.Processes))
	defer sched.Stop()
	var body []byte
	for sched.Wait(ctx) {
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
			if !h.out.Frame(frameProcesses, body) {
				return
			}
		}
	}
}

package gpu

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// nvmlEnergyEvery is how often the energy counters are read: a call takes 3 ms
// and the counter changes every 100 ms (H100), so that more often would cost
// more than all other figures together.
const nvmlEnergyEvery = 500 * time.Millisecond

// nvmlSource samples through the helper child.
type nvmlSource struct {
	o    Options
	r    Run
	tree *tree
	smi  []smiDevice // the run's view of the devices; empty: the helper's own

	firstRow, stale time.Duration

	mu      sync.Mutex
	kind    string
	toolCPU time.Duration
	v1      bool
	told    bool // the helper has said what it can
}

func newNVMLSource(o Options, r Run, t *tree, smi []smiDevice) *nvmlSource {
	return &nvmlSource{o: o, r: r, tree: t, smi: smi, firstRow: 5 * time.Second, stale: smiStale}
}

func (s *nvmlSource) name() string { return SourceNVML }

// run starts the helper and watches it until ctx ends or it fails.
func (s *nvmlSource) run(ctx context.Context, m *meter) error {
	st := newNVMLStream(s, m)
	cfg := nvmlConfig{Source: SourceNVML, Library: s.o.NVMLLibrary, Interval: int64(s.r.Interval), Energy: int64(nvmlEnergyEvery), BusIDs: s.busIDs(), Parts: s.r.Parts}
	if s.r.PIDs != nil {
		cfg.Processes = int64(processInterval)
	}
	cpu, err := watchHelper(ctx, m, s.o, helperRun{cfg: cfg, out: &st.frameSink, first: s.firstRow + s.r.Interval, stale: max(s.stale, 5*s.r.Interval)})
	s.mu.Lock()
	s.toolCPU += cpu
	s.mu.Unlock()
	return err
}

// busIDs are the GPUs of the run; nil: all.
func (s *nvmlSource) busIDs() []string {
	if s.r.GPUs == nil {
		return nil
	}
	var ids []string
	for _, d := range s.smi {
		if slices.Contains(s.r.GPUs, int(d.index)) {
			ids = append(ids, busKey(d.busID))
		}
	}
	return ids
}

func (s *nvmlSource) finish(r *runner.SamplerReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.toolCPU.Seconds()
	if r.ToolCPU != nil {
		v += *r.ToolCPU
	}
	r.ToolCPU = &v
	r.PowerKind = worstKind(r.PowerKind, s.kind)
	if s.v1 {
		r.Notes = append(r.Notes, "this driver has only NVML's first memory call: the driver's reserve counts as used")
	}
	if s.r.PIDs == nil {
		r.Missing[FieldName(runner.HasProcessMemory)] = "the run's own processes were not asked for"
	}
}

// An nvmlStream turns the helper's frames into ticks.
type nvmlStream struct {
	frameSink
	s *nvmlSource // nil: a single reading
	m *meter

	samples []runner.Sample
	shift   time.Duration // from the monotonic clock to the meter's offsets
	index   map[int32]int32
	fresh   map[int32]int64 // process memory that no sample has carried yet
	answers chan *nvmlHello // of a reader; nil: samples are wanted
}

func newNVMLStream(s *nvmlSource, m *meter) *nvmlStream {
	st := &nvmlStream{s: s, m: m, samples: make([]runner.Sample, 0, 16), index: map[int32]int32{}, fresh: map[int32]int64{}}
	st.takes(st.frame)
	if m != nil {
		st.shift = m.offset(time.Now()) - monotonic()
	}
	return st
}

func (st *nvmlStream) frame(kind byte, body []byte) {
	switch kind {
	case frameTick:
		st.tick(body)
	case frameProcesses:
		st.processes(body)
	case frameHello:
		hello := &nvmlHello{}
		if json.Unmarshal(body, hello) == nil {
			st.greet(hello)
		}
	case frameTrouble:
		var t nvmlTrouble
		if json.Unmarshal(body, &t) == nil && st.m != nil {
			st.m.because(t.Text)
			st.m.note("GPU %d: %s at %s: left out from then on", st.index[int32(t.Index)], t.Text, st.m.at(st.m.offset(time.Now())).Format(time.RFC3339Nano))
		}
	case frameError:
		st.failure = string(body)
	}
}

// greet takes what the helper found: how its devices map to the run's, and what
// they cannot tell.
func (st *nvmlStream) greet(h *nvmlHello) {
	if st.s == nil {
		select {
		case st.answers <- h:
		default: // nobody asked
		}
		return
	}
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	for _, d := range h.Devices {
		st.index[int32(d.Index)] = int32(d.Index)
		for _, known := range st.s.smi {
			if busKey(known.busID) == busKey(d.BusID) {
				st.index[int32(d.Index)] = known.index
			}
		}
		if d.Error != "" {
			st.m.note("GPU %d: %s", d.Index, d.Error)
			continue
		}
		st.s.kind = worstKind(st.s.kind, d.PowerKind)
		st.s.v1 = st.s.v1 || d.MemoryV1
		st.lacks(d)
	}
	if len(h.MissingSymbols) > 0 && !st.s.told {
		st.m.note("libnvidia-ml of driver %s lacks %s", h.Driver, strings.Join(h.MissingSymbols, ", "))
	}
	st.s.told = true
}

func (st *nvmlStream) lacks(d nvmlDeviceInfo) {
	all := memoryFields | runner.HasPower | runner.HasTemperature | runner.HasMemoryTemp | runner.HasUtilization | runner.HasMemoryUtil |
		runner.HasClockSM | runner.HasClockMem | runner.HasThrottleReasons
	if len(st.s.r.Parts) > 0 && d.First.Has&runner.HasPower == 0 {
		st.m.never(runner.HasPower, migPower)
		st.m.never(runner.HasEnergy, migPower)
	}
	for f := all &^ d.First.Has; f != 0; f &= f - 1 {
		st.m.never(f&-f, "NVML does not tell it for this GPU or driver")
	}
	st.m.never(runner.HasEnergy, "this GPU or driver has no energy counter, or the run was too short for a reading")
	st.m.never(runner.HasProcessMemory, "NVML listed none of the run's processes: they use no GPU, or a PID namespace (container) hides them")
}

func (st *nvmlStream) tick(body []byte) {
	if st.m == nil {
		return
	}
	st.samples = st.samples[:0]
	for len(body) >= sampleSize {
		st.samples = append(st.samples, runner.Sample{})
		s := &st.samples[len(st.samples)-1]
		decodeSample(body, s)
		body = body[sampleSize:]
		s.Offset += st.shift
		if to, ok := st.index[s.GPU]; ok {
			s.GPU = to
		}
		if v, ok := st.fresh[s.GPU]; ok {
			s.ProcessMemory = v
			s.Has |= runner.HasProcessMemory
			delete(st.fresh, s.GPU)
		}
	}
	st.last.Store(int64(st.m.offset(time.Now())))
	st.m.tick(st.samples)
}

// processes sums what the run's own processes hold on a GPU.
func (st *nvmlStream) processes(body []byte) {
	if len(body) < 4 || st.s == nil {
		return
	}
	gpu := int32(binary.LittleEndian.Uint32(body))
	if to, ok := st.index[gpu]; ok {
		gpu = to
	}
	own, _ := st.s.tree.pids()
	var sum int64
	found := false
	for body = body[4:]; len(body) >= 12; body = body[12:] {
		pid, used := int(binary.LittleEndian.Uint32(body)), binary.LittleEndian.Uint64(body[4:])
		if !slices.Contains(own, pid) {
			continue
		}
		if used == 1<<64-1 {
			st.m.never(runner.HasProcessMemory, "the driver does not tell the memory of single processes here")
			return
		}
		sum += int64(used)
		found = true
	}
	if found {
		st.fresh[gpu] = sum
	}
}

// reading is a hello as a Reading.
func (h *nvmlHello) reading() *Reading {
	r := &Reading{Tool: SourceNVML, Format: "helper", Driver: h.Driver}
	for _, d := range h.Devices {
		g := newDeviceReading(d.Index)
		g.Name, g.UUID, g.BusID = d.Name, d.UUID, d.BusID
		g.fromSample(&d.First, d.PowerKind)
		if d.Error != "" {
			g.Missing[QMemoryUsed] = d.Error
		}
		maps.Copy(g.Texts, d.Texts)
		if d.ECC != nil {
			g.Values[QECCUncorrected] = float64(*d.ECC)
		}
		if d.ComputeCap > 0 {
			g.Texts["compute_cap"] = strconv.FormatFloat(d.ComputeCap, 'f', 1, 64)
		}
		if g.Processes = processReadings(&d, d.Processes); g.Processes == nil {
			g.Missing["processes"] = "NVML does not list the compute processes of this GPU"
		}
		for _, p := range d.Parts {
			g.MIG = append(g.MIG, p.reading(&d))
		}
		r.Processes = append(r.Processes, g.Processes...)
		r.GPUs = append(r.GPUs, g)
	}
	return r
}

// processReadings is nil where the processes are not told.
func processReadings(d *nvmlDeviceInfo, list []nvmlProcessInfo) []ProcessReading {
	if list == nil {
		return nil
	}
	out := []ProcessReading{}
	for _, p := range list {
		out = append(out, ProcessReading{GPU: d.Index, BusID: d.BusID, UUID: d.UUID, PID: p.PID, Name: p.Name, Bytes: p.Bytes})
	}
	return out
}

func (p *nvmlPartInfo) reading(d *nvmlDeviceInfo) MIGReading {
	m := MIGReading{UUID: p.UUID, Profile: strings.TrimPrefix(strings.TrimPrefix(p.Name, d.Name), " MIG "), Processes: processReadings(d, p.Processes)}
	if p.First.Has&runner.HasMemoryUsed != 0 {
		used, total := p.First.MemoryUsed, p.First.MemoryTotal
		m.Used, m.Total = &used, &total
	}
	if p.First.Has&runner.HasMemoryReserved != 0 {
		reserve := p.First.MemoryReserved
		m.Reserve = &reserve
	}
	return m
}

// fromSample takes the figures of a sample.
func (g *DeviceReading) fromSample(s *runner.Sample, kind string) {
	power := QPowerInstant
	if kind == PowerAveraged {
		power = QPower
	}
	for _, v := range []struct {
		f runner.Fields
		q Quantity
		v float64
	}{
		{runner.HasMemoryUsed, QMemoryUsed, float64(s.MemoryUsed)}, {runner.HasMemoryTotal, QMemoryTotal, float64(s.MemoryTotal)},
		{runner.HasMemoryReserved, QMemoryReserved, float64(s.MemoryReserved)}, {runner.HasPower, power, s.Power}, {runner.HasEnergy, QEnergy, s.Energy},
		{runner.HasTemperature, QTempHotspot, s.Temperature}, {runner.HasMemoryTemp, QTempMemory, s.MemoryTemp},
		{runner.HasUtilization, QUtilGPU, float64(s.Utilization)}, {runner.HasMemoryUtil, QUtilMemory, float64(s.MemoryUtil)},
		{runner.HasClockSM, QClockSM, float64(s.ClockSM)}, {runner.HasClockMem, QClockMemory, float64(s.ClockMem)},
	} {
		if s.Has&v.f != 0 {
			g.Values[v.q] = v.v
		}
	}
	if s.Has&runner.HasThrottleReasons != 0 {
		g.Values[QThrottleMask] = float64(s.ThrottleReasons)
		g.Throttle = throttleNames(s.ThrottleReasons)
	}
	if s.Has&(runner.HasMemoryUsed|runner.HasMemoryReserved|runner.HasMemoryTotal) == memoryFields {
		g.Values[QMemoryFree] = float64(s.MemoryTotal - s.MemoryUsed - s.MemoryReserved)
	}
}

// tryNVML starts the helper, which stays for further readings, unless another
// source serves and none asks.
func (m *Machine) tryNVML(ctx context.Context, all bool) SourceStatus {
	if len(m.o.Helper) == 0 {
		return SourceStatus{Reason: errNoHelper.Error()}
	}
	if runtime.GOOS != "linux" {
		return SourceStatus{Reason: "NVML is read on Linux only"}
	}
	if len(m.smi) > 0 && !all {
		return SourceStatus{standby: true, Reason: "not tried: nvidia-smi serves; this one stands in where that fails"}
	}
	r, err := m.nvml.read(ctx)
	if err != nil {
		return SourceStatus{Reason: err.Error()}
	}
	if len(r.GPUs) == 0 {
		return SourceStatus{Reason: "NVML lists no GPU", Tool: r.Driver}
	}
	g := &r.GPUs[0]
	for i := range r.GPUs { // a GPU that is lost says nothing of what NVML can tell
		if r.GPUs[i].value(QMemoryUsed) != nil {
			g = &r.GPUs[i]
			break
		}
	}
	st := SourceStatus{Works: g.value(QMemoryUsed) != nil, Tool: r.Driver, Power: PowerInstant, Reason: g.Missing[QMemoryUsed]}
	reads := readableOf(g)
	if _, ok := g.Values[QEnergy]; ok {
		reads |= runner.HasEnergy
	}
	if g.Processes != nil {
		reads |= runner.HasProcessMemory
	}
	st.Reads = FieldNames(reads)
	if g.value(QPowerInstant) == nil {
		st.Power = PowerAveraged
	}
	if st.Works {
		m.takeNVIDIA(r, SourceNVML)
	}
	return st
}

// takeNVIDIA takes the devices from the first source that tells them.
func (m *Machine) takeNVIDIA(r *Reading, source string) {
	if len(m.smi) > 0 {
		return
	}
	m.first = r.GPUs
	for i := range r.GPUs {
		g := &r.GPUs[i]
		capability, _ := strconv.ParseFloat(g.Texts["compute_cap"], 64)
		m.smi = append(m.smi, smiDevice{index: int32(g.Index), busID: g.BusID, computeCap: capability})
		d := nvidiaDevice(g, r.Driver)
		d.Source = source
		m.devices = append(m.devices, d)
	}
	for i := range r.GPUs {
		m.takeParts(&r.GPUs[i], r.Driver, source)
	}
}

// takeParts appends the MIG instances of a GPU as devices of their own: they are
// what CUDA_VISIBLE_DEVICES names. Their index is that of the GPU.
func (m *Machine) takeParts(g *DeviceReading, driver, source string) {
	for _, p := range g.MIG {
		m.devices = append(m.devices, runner.Device{
			Index: g.Index, Vendor: "nvidia", Name: g.Name + " MIG " + p.Profile, UUID: p.UUID, PCIBusID: g.BusID, DriverVersion: driver,
			TotalBytes: p.Total, ReservedBytes: p.Reserve, UsedBytes: p.Used, Parent: g.UUID, MIG: true, Source: source,
		})
	}
}

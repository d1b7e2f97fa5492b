package gpu

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// amdCommand is the call of a tool that yields the figures of a sample.
// Explicit sections: the default of newer versions rounds memory to 0.1 GiB.
func amdCommand(o Options, tool string) []string {
	if tool == SourceROCmSMI {
		return []string{o.ROCmSMI, "--showmeminfo", "vram", "--showuse", "--showmemuse", "--showtemp", "--showpower", "--showclocks", "--showbus", "--showuniqueid", "--json"}
	}
	return []string{o.AMDSMI, "metric", "-m", "-u", "-p", "-c", "-t", "-e", "--json"}
}

// runAMD calls a tool once and reads what it printed.
func runAMD(ctx context.Context, o Options, argv ...string) (*Reading, time.Duration, time.Duration, error) {
	out, err := runTool(ctx, o, o.ToolTimeout, argv...)
	if err != nil {
		return nil, 0, 0, err
	}
	r, err := Read(out.stdout)
	var said *ToolError
	switch {
	case errors.As(err, &said):
		return nil, out.took, out.cpu, err
	case err != nil || len(r.GPUs) == 0:
		return nil, out.took, out.cpu, fmt.Errorf("%s (exit code %d): %s", strings.Join(argv, " "), out.code, out.text())
	}
	return r, out.took, out.cpu, nil
}

// trySlow tries amd-smi or rocm-smi. Each call starts a Python program and
// takes a second: they are tried only where sysfs does not serve, or on request.
func (m *Machine) trySlow(ctx context.Context, name string, all bool) SourceStatus {
	prog := m.o.AMDSMI
	if name == SourceROCmSMI {
		prog = m.o.ROCmSMI
	}
	if _, err := proc.LookPath(prog, m.o.Env, ""); err != nil {
		return SourceStatus{Reason: prog + " is not on the PATH"}
	}
	serves := slices.ContainsFunc(m.sources, func(s SourceStatus) bool { return s.Works && vendorOf(s.Name) == "amd" })
	if serves && !all {
		return SourceStatus{standby: true, Reason: "not tried: another source serves; this one stands in where that fails"}
	}
	r, took, _, err := runAMD(ctx, m.o, amdCommand(m.o, name)...)
	if err != nil {
		return SourceStatus{Reason: err.Error()}
	}
	g := &r.GPUs[0]
	st := SourceStatus{Works: g.value(QMemoryUsed) != nil, Tool: r.Version, Reads: FieldNames(readableOf(g)), Power: PowerAveraged, Reason: g.Missing[QMemoryUsed]}
	if st.Works {
		st.Reason = fmt.Sprintf("a call takes %v: samples are that far apart at best", took.Round(10*time.Millisecond))
	}
	if !serves && st.Works {
		m.takeAMD(r, name)
	}
	return st
}

// takeAMD takes the devices from a tool where sysfs told none.
func (m *Machine) takeAMD(r *Reading, name string) {
	first := len(m.devices)
	for i := range r.GPUs {
		g := &r.GPUs[i]
		m.devices = append(m.devices, runner.Device{
			Index: first + i, Vendor: "amd", Name: g.Name, UUID: g.UUID, PCIBusID: g.BusID, DriverVersion: r.Driver,
			TotalBytes: g.bytesOf(QMemoryTotal), UsedBytes: g.bytesOf(QMemoryUsed), Source: name,
		})
	}
}

// slowSource samples by calling a tool again and again: only where nothing else
// works. The interval is what the tool makes possible.
type slowSource struct {
	o       Options
	r       Run
	tool    string
	devices []runner.Device
	cpu     time.Duration
}

func newSlowSource(o Options, r Run, tool string, devices []runner.Device) *slowSource {
	s := &slowSource{o: o, r: r, tool: tool}
	for _, d := range devices {
		if d.Vendor == "amd" && d.Parent == "" {
			s.devices = append(s.devices, d)
		}
	}
	return s
}

func (s *slowSource) name() string { return s.tool }

func (s *slowSource) finish(r *runner.SamplerReport) {
	v := s.cpu.Seconds()
	if r.ToolCPU != nil {
		v += *r.ToolCPU
	}
	r.ToolCPU = &v
	r.PowerKind = worstKind(r.PowerKind, PowerAveraged)
	for _, f := range []runner.Fields{runner.HasThrottleReasons, runner.HasMemoryReserved, runner.HasProcessMemory} {
		r.Missing[FieldName(f)] = s.tool + " is called once a sample and is not asked for it"
	}
}

// slowPause between two calls: a tool that takes a second shall not take a core.
const slowPause = time.Second

func (s *slowSource) run(ctx context.Context, m *meter) error {
	m.note("%s is started anew for every sample: they are about as far apart as a call takes", s.tool)
	sched := newSchedule(max(s.r.Interval, slowPause))
	defer sched.stop()
	bad := 0
	for sched.wait(ctx) {
		began := time.Now()
		r, took, cpu, err := runAMD(ctx, s.o, amdCommand(s.o, s.tool)...)
		s.cpu += cpu
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if bad++; bad >= 3 {
				return err
			}
			m.because(err.Error())
			continue
		}
		bad = 0
		m.tick(s.samples(r, m.offset(began)+took/2, took))
	}
	return nil
}

// samples dates a reading to the middle of the call that brought it.
func (s *slowSource) samples(r *Reading, at, took time.Duration) []runner.Sample {
	var out []runner.Sample
	for i := range r.GPUs {
		g := &r.GPUs[i]
		d := s.device(g, i)
		if d == nil || s.r.GPUs != nil && !slices.Contains(s.r.GPUs, d.Index) {
			continue
		}
		smp := runner.Sample{GPU: int32(d.Index), Source: s.tool, Offset: at, Read: took}
		g.intoSample(&smp)
		out = append(out, smp)
	}
	return out
}

// device finds the GPU of a reading by its bus id, else by its place.
func (s *slowSource) device(g *DeviceReading, i int) *runner.Device {
	for j := range s.devices {
		if g.BusID != "" && busKey(s.devices[j].PCIBusID) == busKey(g.BusID) {
			return &s.devices[j]
		}
	}
	if i < len(s.devices) {
		return &s.devices[i]
	}
	return nil
}

// intoSample gives a sample the figures of a reading.
func (g *DeviceReading) intoSample(s *runner.Sample) {
	set := func(q Quantity, f runner.Fields, put func(float64)) {
		if v, ok := g.Values[q]; ok {
			put(v)
			s.Has |= f
		}
	}
	set(QMemoryUsed, runner.HasMemoryUsed, func(v float64) { s.MemoryUsed = int64(v) })
	set(QMemoryTotal, runner.HasMemoryTotal, func(v float64) { s.MemoryTotal = int64(v) })
	set(QPower, runner.HasPower, func(v float64) { s.Power = v })
	set(QTempEdge, runner.HasTemperature, func(v float64) { s.Temperature = v })
	set(QTempHotspot, runner.HasTemperature, func(v float64) { s.Temperature = v })
	set(QTempMemory, runner.HasMemoryTemp, func(v float64) { s.MemoryTemp = v })
	set(QUtilGPU, runner.HasUtilization, func(v float64) { s.Utilization = int32(math.Round(v)) })
	set(QUtilMemory, runner.HasMemoryUtil, func(v float64) { s.MemoryUtil = int32(math.Round(v)) })
	set(QClockSM, runner.HasClockSM, func(v float64) { s.ClockSM = int32(math.Round(v)) })
	set(QClockMemory, runner.HasClockMem, func(v float64) { s.ClockMem = int32(math.Round(v)) })
	set(QEnergy, runner.HasEnergy, func(v float64) { s.Energy = v })
}

// amdExtraEvery bounds how often a full reading waits for amd-smi, which takes
// a second: in between sysfs alone answers.
const amdExtraEvery = 20 * time.Second

// fullAMD reads the AMD GPUs in full: sysfs and KFD, which cost nothing, and
// amd-smi for what they lack.
func (m *Machine) fullAMD(ctx context.Context, want []int) (*Reading, error) {
	if len(m.amd) == 0 {
		return m.fullTool(ctx)
	}
	r := &Reading{Tool: SourceAMDGPU, Format: "sysfs"}
	procs := kfdProcesses(m.o)
	for _, c := range m.amd {
		if !slices.Contains(want, c.index) {
			continue
		}
		g := c.reading()
		if procs != nil {
			g.Processes = []ProcessReading{}
			for _, p := range procs {
				if c.owns(p.gpuID) {
					bytes := p.bytes
					g.Processes = append(g.Processes, ProcessReading{GPU: c.index, BusID: c.bdf, PID: p.pid, Name: processName(m.o.Proc, p.pid), Bytes: &bytes})
				}
			}
		}
		r.GPUs = append(r.GPUs, g)
	}
	if extra := m.amdExtra(ctx); extra != nil {
		r.Tool += " and amd-smi"
		r.join(extra)
	}
	return r, nil
}

// fullTool reads through whichever slow tool served at the start.
func (m *Machine) fullTool(ctx context.Context) (*Reading, error) {
	for _, st := range m.sources {
		if !st.Works || st.Name != SourceAMDSMI && st.Name != SourceROCmSMI {
			continue
		}
		r, _, _, err := runAMD(ctx, m.o, amdCommand(m.o, st.Name)...)
		if err != nil {
			return nil, err
		}
		s := newSlowSource(m.o, Run{}, st.Name, m.devices)
		for i := range r.GPUs {
			if d := s.device(&r.GPUs[i], i); d != nil {
				r.GPUs[i].Index = d.Index
			}
		}
		return r, nil
	}
	return nil, errors.New("no source reads the AMD GPUs")
}

// extra is the last answer of amd-smi.
type extra struct {
	mu      sync.Mutex
	at      time.Time
	reading *Reading
}

func (m *Machine) amdExtra(ctx context.Context) *Reading {
	if !slices.Contains(m.o.Sources, SourceAMDSMI) {
		return nil
	}
	if _, err := proc.LookPath(m.o.AMDSMI, m.o.Env, ""); err != nil {
		return nil
	}
	m.extra.mu.Lock()
	defer m.extra.mu.Unlock()
	if !m.extra.at.IsZero() && time.Since(m.extra.at) < amdExtraEvery {
		return m.extra.reading
	}
	var procs *Reading
	var wg sync.WaitGroup
	wg.Go(func() { procs, _, _, _ = runAMD(ctx, m.o, m.o.AMDSMI, "process", "--json") })
	r, _, _, err := runAMD(ctx, m.o, amdCommand(m.o, SourceAMDSMI)...)
	wg.Wait()
	m.extra.at = time.Now()
	m.extra.reading = nil
	if err == nil {
		if procs != nil {
			r.Processes = procs.Processes
		}
		m.extra.reading = r
	}
	return m.extra.reading
}

// join takes what amd-smi tells and sysfs does not: by bus id, else by place.
// amd-smi 7 lists a process under every GPU with its total: its lists are taken
// only for names.
func (r *Reading) join(extra *Reading) {
	for i := range r.GPUs {
		g := &r.GPUs[i]
		var e *DeviceReading
		for j := range extra.GPUs {
			if x := &extra.GPUs[j]; x.BusID != "" && busKey(x.BusID) == busKey(g.BusID) || x.BusID == "" && x.Index == i {
				e = x
			}
		}
		if e == nil {
			continue
		}
		for q, v := range e.Values {
			if _, have := g.Values[q]; !have {
				g.Values[q] = v
				delete(g.Missing, q)
			}
		}
		for k := range g.Processes {
			for _, p := range extra.Processes {
				if g.Processes[k].PID == p.PID && g.Processes[k].Name == "" {
					g.Processes[k].Name = p.Name
				}
			}
		}
	}
}

// reading reads a card's files once.
func (c *amdCard) reading() DeviceReading {
	g := newDeviceReading(c.index)
	g.Name, g.UUID, g.BusID, g.Card = c.name, c.uuid, c.bdf, c.card
	g.Values[QMemoryTotal] = float64(c.total)
	f := openAMD(c)
	defer f.close()
	if v, err := f.read(f.used); err == nil && v > 0 {
		g.Values[QMemoryUsed] = v
		g.Values[QMemoryFree] = float64(c.total) - v
	} else {
		g.Missing[QMemoryUsed] = "mem_info_vram_used cannot be read"
	}
	if st := readText(c.dir, "power", "runtime_status"); st != "" && st != "active" && st != "unsupported" {
		g.Missing[QPower] = "the card is " + st + ": reading its sensors would wake it"
		return g
	}
	names := map[runner.Fields]Quantity{
		runner.HasPower: QPower, runner.HasTemperature: QTempHotspot, runner.HasMemoryTemp: QTempMemory, runner.HasUtilization: QUtilGPU,
		runner.HasMemoryUtil: QUtilMemory, runner.HasClockSM: QClockSM, runner.HasClockMem: QClockMemory,
	}
	for _, s := range f.slow {
		if v, err := f.read(s); err == nil {
			g.Values[names[s.field]] = v
		} else {
			g.Missing[names[s.field]] = err.Error()
		}
	}
	if f.metrics >= 0 {
		if v, ok := f.energy(); ok {
			g.Values[QEnergy] = v
		}
	}
	return g
}

func (c *amdCard) owns(gpuID int64) bool {
	return slices.ContainsFunc(c.parts, func(n kfdNode) bool { return n.gpuID == gpuID })
}

type kfdProcess struct {
	pid   int
	gpuID int64
	bytes int64
}

// kfdProcesses lists what KFD keeps of every process; nil where there is no KFD.
func kfdProcesses(o Options) []kfdProcess {
	base := filepath.Join(o.Sys, "class", "kfd", "kfd", "proc")
	entries, err := os.ReadDir(base)
	if err != nil {
		return nil
	}
	out := []kfdProcess{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		files, _ := filepath.Glob(filepath.Join(base, e.Name(), "vram_*"))
		for _, f := range files {
			id, err1 := strconv.ParseInt(strings.TrimPrefix(filepath.Base(f), "vram_"), 10, 64)
			n, err2 := strconv.ParseInt(readText(f), 10, 64)
			if err1 == nil && err2 == nil && n > 0 {
				out = append(out, kfdProcess{pid, id, n})
			}
		}
	}
	return out
}

// processName is a process's own name; "" where it cannot be told.
func processName(procRoot string, pid int) string {
	return readText(procRoot, strconv.Itoa(pid), "comm")
}

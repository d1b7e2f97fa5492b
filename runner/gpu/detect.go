package gpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// A SourceStatus says what a source can do on this machine.
type SourceStatus struct {
	Name   string   `json:"name"`
	Works  bool     `json:"works"`
	Used   bool     `json:"used"`             // samples come from it
	Reads  []string `json:"reads,omitempty"`  // columns of the timelines table
	Power  string   `json:"power,omitempty"`  // "instant" or "averaged_1s"
	Reason string   `json:"reason,omitempty"` // why it does not serve, or is not used
	Tool   string   `json:"tool,omitempty"`   // version
	TookMS float64  `json:"took_ms"`          // how long finding out took

	standby bool // not tried, but worth a try where the source in use fails
}

// A Machine is what Detect found. It makes the samplers of each run and is the
// runner.Inspector. It is safe for use by several goroutines.
type Machine struct {
	o       Options
	devices []runner.Device
	sources []SourceStatus
	smi     []smiDevice
	first   []DeviceReading // the full reading of the start, for Doctor
	amd     []*amdCard
	nvml    nvmlReader

	masked masked
	extra  extra // amd-smi's last answer

	mu      sync.Mutex
	refused map[string]bool // fields that this nvidia-smi does not know
}

// Detect finds the GPUs and tries the sources in the order of o.Sources. It
// never fails: a machine without a GPU is a Machine without Devices, and
// Sources says why. With all, sources are tried that would not be used.
func Detect(ctx context.Context, o Options, all bool) *Machine {
	m := &Machine{o: o.withDefaults(), refused: map[string]bool{}}
	m.nvml.o = m.o
	for _, name := range m.o.Sources {
		began := time.Now()
		st := m.try(ctx, name, all)
		st.Name, st.TookMS = name, ms(time.Since(began))
		m.sources = append(m.sources, st)
	}
	m.choose()
	m.masked.Machine = m
	return m
}

func (m *Machine) try(ctx context.Context, name string, all bool) SourceStatus {
	switch name {
	case SourceNvidiaSMI:
		return m.trySMI(ctx, all)
	case SourceNVML:
		return m.tryNVML(ctx, all)
	case SourceAMDGPU:
		return m.tryAMDGPU()
	case SourceAMDSMI, SourceROCmSMI:
		return m.trySlow(ctx, name, all)
	}
	return SourceStatus{Reason: fmt.Sprintf("there is no source of this name; known: %s", strings.Join(DefaultSources(), ", "))}
}

// choose marks the first source of each vendor that works.
func (m *Machine) choose() {
	used := map[string]string{}
	for i := range m.sources {
		st := &m.sources[i]
		vendor := vendorOf(st.Name)
		switch {
		case !st.Works:
		case used[vendor] == "":
			st.Used, used[vendor] = true, st.Name
		default:
			st.Reason = used[vendor] + " serves; this one stands in where that fails"
		}
	}
}

func vendorOf(source string) string {
	if source == SourceNvidiaSMI || source == SourceNVML {
		return "nvidia"
	}
	return "amd"
}

// Close ends the helper child that full readings go through. The machine may be
// used on: the next reading starts another one.
func (m *Machine) Close() { m.nvml.close() }

// Sources says of every source whether it serves, and why not.
func (m *Machine) Sources() []SourceStatus { return slices.Clone(m.sources) }

// Found lists the devices as Detect found them, without reading anew.
func (m *Machine) Found() []runner.Device { return slices.Clone(m.devices) }

// Samplers makes the samplers of a run: one for the GPUs, where there are any,
// and one for the host's side of the run's processes.
func (m *Machine) Samplers(r Run) ([]runner.Sampler, error) {
	r, err := r.check()
	if err != nil {
		return nil, err
	}
	if r.Parts == nil {
		r.Parts = m.partsInUse(r.GPUs)
	}
	t := newTree(m.o.Proc, r.PIDs)
	var out []runner.Sampler
	for _, vendor := range []string{"nvidia", "amd"} {
		if sources := m.sourcesOf(vendor, r, t); len(sources) > 0 {
			out = append(out, newSampler(r, sources))
		}
	}
	if r.PIDs != nil {
		if len(out) > 0 { // the host's side is of less interest than the GPUs
			r.Interval = max(r.Interval, hostEvery)
		}
		out = append(out, newSampler(r, []source{newProcSource(r, t)}))
	}
	return out, nil
}

// hostEvery is how often the run's processes are read beside GPUs; on a machine
// without one they are what is sampled, at the interval asked.
const hostEvery = 100 * time.Millisecond

// sourcesOf lists the sources of a vendor whose GPUs the run uses, the first
// choice first.
func (m *Machine) sourcesOf(vendor string, r Run, t *tree) []source {
	if !slices.ContainsFunc(m.devices, func(d runner.Device) bool {
		return d.Vendor == vendor && (r.GPUs == nil || slices.Contains(r.GPUs, d.Index))
	}) {
		return nil
	}
	var out []source
	for _, st := range m.sources {
		if !(st.Works || st.standby) || vendorOf(st.Name) != vendor {
			continue
		}
		if s := m.newSource(st.Name, r, t); s != nil {
			out = append(out, s)
		}
	}
	return out
}

func (m *Machine) newSource(name string, r Run, t *tree) source {
	switch name {
	case SourceNvidiaSMI:
		s := newSMISource(m.o, r, m.smi)
		s.parted = m.parted(r.Parts)
		if r.PIDs != nil {
			s.apps = newProcessTable(t)
		}
		return s
	case SourceNVML:
		return newNVMLSource(m.o, r, t, m.smi)
	case SourceAMDGPU:
		return newAMDSource(m.o, r, m.amd, t)
	case SourceAMDSMI, SourceROCmSMI:
		return newSlowSource(m.o, r, name, m.devices)
	}
	return nil
}

// Devices implements runner.Inspector: the GPUs with their memory as it is now.
func (m *Machine) Devices(ctx context.Context) ([]runner.Device, error) {
	out := slices.Clone(m.devices)
	if len(out) == 0 {
		return out, nil
	}
	readings, _, err := m.readings(ctx, nil)
	if err != nil {
		return out, err
	}
	for i := range out {
		out[i].UsedBytes = usedNow(&out[i], readings)
	}
	return out, nil
}

// usedNow is what is in use of a device; nil where that is not told.
func usedNow(d *runner.Device, readings []DeviceReading) *int64 {
	for i := range readings {
		g := &readings[i]
		switch {
		case g.Index != d.Index:
		case d.Parent == "":
			return g.bytesOf(QMemoryUsed)
		default:
			for _, p := range g.MIG {
				if p.UUID == d.UUID {
					return p.Used
				}
			}
		}
	}
	return nil
}

// trySMI calls nvidia-smi once and takes the devices from it, where no other
// source has told them.
func (m *Machine) trySMI(ctx context.Context, all bool) SourceStatus {
	if _, err := proc.LookPath(m.o.NvidiaSMI, m.o.Env, ""); err != nil {
		return SourceStatus{Reason: m.o.NvidiaSMI + " is not on the PATH"}
	}
	if len(m.smi) > 0 && !all {
		return SourceStatus{standby: true, Reason: "not tried: NVML serves; this one stands in where that fails"}
	}
	r, err := m.querySMI(ctx, smiDetailFields(), nil)
	if err != nil {
		return SourceStatus{Reason: err.Error()}
	}
	if len(r.GPUs) == 0 {
		return SourceStatus{Reason: "nvidia-smi lists no GPU", Tool: r.Driver}
	}
	st := SourceStatus{Works: true, Tool: r.Driver}
	if len(m.smi) == 0 {
		m.listMIG(ctx, r.GPUs)
		m.takeNVIDIA(r, SourceNvidiaSMI)
	} else { // it tells more of a GPU's health
		m.first = r.GPUs
	}
	st.Reads = FieldNames(readableOf(&r.GPUs[0]) | runner.HasProcessMemory)
	st.Power = PowerAveraged
	if _, ok := r.GPUs[0].Values[QPowerInstant]; ok {
		st.Power = PowerInstant
	}
	if r.GPUs[0].value(QMemoryUsed) == nil {
		st.Works = false
		st.Reason = "nvidia-smi does not tell memory.used here: " + r.GPUs[0].Missing[QMemoryUsed]
	}
	return st
}

func nvidiaDevice(g *DeviceReading, driver string) runner.Device {
	return runner.Device{
		Index: g.Index, Vendor: "nvidia", Name: g.Name, UUID: g.UUID, PCIBusID: g.BusID, DriverVersion: driver,
		TotalBytes: g.bytesOf(QMemoryTotal), ReservedBytes: g.bytesOf(QMemoryReserved), UsedBytes: g.bytesOf(QMemoryUsed),
		MIG: g.Texts["mig_mode"] == "Enabled",
	}
}

// readableOf is what a full reading shows that the sampler can read.
func readableOf(g *DeviceReading) runner.Fields {
	var f runner.Fields
	for _, q := range []struct {
		q Quantity
		f runner.Fields
	}{
		{QMemoryUsed, runner.HasMemoryUsed}, {QMemoryReserved, runner.HasMemoryReserved}, {QMemoryTotal, runner.HasMemoryTotal},
		{QPower, runner.HasPower}, {QPowerInstant, runner.HasPower}, {QTempHotspot, runner.HasTemperature}, {QTempMemory, runner.HasMemoryTemp},
		{QUtilGPU, runner.HasUtilization}, {QUtilMemory, runner.HasMemoryUtil}, {QClockSM, runner.HasClockSM},
		{QClockMemory, runner.HasClockMem}, {QThrottleMask, runner.HasThrottleReasons},
	} {
		if _, ok := g.Values[q.q]; ok {
			f |= q.f
		}
	}
	return f
}

// listMIG adds to a reading the parts of GPUs in MIG mode, as `nvidia-smi -L`
// lists them: it does not tell their memory.
func (m *Machine) listMIG(ctx context.Context, gpus []DeviceReading) {
	if !slices.ContainsFunc(gpus, func(g DeviceReading) bool { return g.Texts["mig_mode"] == "Enabled" }) {
		return
	}
	out, err := runTool(ctx, m.o, m.o.ToolTimeout, m.o.NvidiaSMI, "-L")
	if err != nil || out.code != 0 {
		return
	}
	r, err := readSMIList(out.stdout)
	if err != nil {
		return
	}
	for i := range gpus {
		for _, g := range r.GPUs {
			if g.UUID == gpus[i].UUID {
				gpus[i].MIG = g.MIG
			}
		}
	}
}

// smiDetailFields is what a full reading asks for.
func smiDetailFields() []string {
	return []string{
		"index", "uuid", "pci.bus_id", "name", "driver_version", "memory.total", "memory.reserved", "memory.used", "memory.free",
		"utilization.gpu", "utilization.memory", "temperature.gpu", "temperature.memory", "power.draw", "power.draw.instant",
		"enforced.power.limit", "clocks.current.sm", "clocks.current.memory", "clocks_event_reasons.active", "pstate",
		"persistence_mode", "compute_mode", "mig.mode.current", "compute_cap", "gpu_recovery_action", "ecc.errors.uncorrected.volatile.total",
	}
}

// querySMI asks nvidia-smi once. Fields that it refuses are left out, now and
// later; ids restricts the GPUs.
func (m *Machine) querySMI(ctx context.Context, fields, ids []string) (*Reading, error) {
	alias := map[string]string{"clocks_event_reasons.active": "clocks_throttle_reasons.active"}
	for range len(fields) + 1 {
		argv := []string{m.o.NvidiaSMI, "--query-gpu=" + strings.Join(m.accepted(fields, alias), ","), "--format=csv"}
		if len(ids) > 0 {
			argv = append(argv, "-i", strings.Join(ids, ","))
		}
		out, err := runTool(ctx, m.o, m.o.ToolTimeout, argv...)
		if err != nil {
			return nil, err
		}
		if name := refusedField(out); name != "" {
			m.mu.Lock()
			again := !m.refused[name]
			m.refused[name] = true
			m.mu.Unlock()
			if again {
				continue
			}
		}
		return judgeQuery(out)
	}
	return nil, errors.New("nvidia-smi refuses its fields one after another")
}

func judgeQuery(out *output) (*Reading, error) {
	if !isSMICSV(out.stdout) {
		if out.code == 0 && strings.TrimSpace(string(out.stdout)) == "" {
			return nil, errors.New("nvidia-smi printed nothing, with exit code 0")
		}
		return nil, fmt.Errorf("nvidia-smi (exit code %d): %s", out.code, out.text())
	}
	return readSMICSV(out.stdout)
}

func (m *Machine) accepted(fields []string, alias map[string]string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, f := range fields {
		switch {
		case !m.refused[f]:
			out = append(out, f)
		case alias[f] != "" && !m.refused[alias[f]]:
			out = append(out, alias[f])
		}
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

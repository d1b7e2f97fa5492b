package gpu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// Inspect implements runner.Inspector: one full reading of the given GPUs (nil:
// all), with their processes, by the first tool that answers. Tool names it.
func (m *Machine) Inspect(ctx context.Context, gpus []int) (*runner.DetailedGPUMetrics, error) {
	return m.inspect(ctx, gpus, nil)
}

// inspect reads GPUs in full; of those whose MIG instances are in use, these
// count.
func (m *Machine) inspect(ctx context.Context, gpus []int, parts []string) (*runner.DetailedGPUMetrics, error) {
	d := &runner.DetailedGPUMetrics{Timestamp: time.Now().UTC(), GPUs: []runner.GPUDetail{}, Missing: map[string]string{}}
	readings, tool, err := m.readings(ctx, gpus)
	d.Tool = tool
	for i := range readings {
		g := &readings[i]
		g.countParts(parts, m.devices)
		d.GPUs = append(d.GPUs, detailOf(g, d.Missing))
	}
	if len(d.GPUs) == 0 {
		if len(m.devices) == 0 {
			d.Missing["gpus"] = "no GPU was found"
			return d, nil
		}
		return d, fmt.Errorf("no tool could read the GPUs: %w", err)
	}
	return d, nil
}

// readings are full readings of the given GPUs (nil: all), and by which tools.
// An error is of a vendor whose GPUs could not be read.
func (m *Machine) readings(ctx context.Context, gpus []int) (out []DeviceReading, tools string, err error) {
	var errs []error
	var names []string
	for _, vendor := range []string{"nvidia", "amd"} {
		want := m.indices(vendor, gpus)
		if len(want) == 0 {
			continue
		}
		r, err := m.full(ctx, vendor, want)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		names = append(names, r.Tool)
		for i := range r.GPUs {
			if slices.Contains(want, r.GPUs[i].Index) {
				out = append(out, r.GPUs[i])
			}
		}
	}
	return out, strings.Join(names, ", "), errors.Join(errs...)
}

// partsInUse are the MIG instances, among the parts of the given GPUs (nil: all),
// that the environment's mask leaves to a run.
func (m *Machine) partsInUse(gpus []int) []string {
	if !slices.ContainsFunc(m.devices, func(d runner.Device) bool { return d.Parent != "" && d.Vendor == "nvidia" }) {
		return nil
	}
	visible, _, err := Visible(m.devices, m.o.Env)
	if err != nil {
		return nil // told where the devices are chosen
	}
	var out []string
	for _, d := range visible {
		if d.Parent != "" && d.Vendor == "nvidia" && (gpus == nil || slices.Contains(gpus, d.Index)) {
			out = append(out, d.UUID)
		}
	}
	return out
}

// InUse lists the whole GPUs without reading anew; in the place of a GPU of
// which the environment's mask leaves a MIG instance stands that instance.
func (m *Machine) InUse() []runner.Device {
	out := whole(m.devices)
	parts := m.partsInUse(nil)
	for i := range out {
		for _, d := range m.devices {
			if d.Parent != "" && d.Parent == out[i].UUID && slices.Contains(parts, d.UUID) {
				out[i] = d
				break
			}
		}
	}
	return out
}

// parted are the GPUs of which MIG instances are in use.
func (m *Machine) parted(parts []string) []int32 {
	var out []int32
	for _, d := range m.devices {
		if d.Parent != "" && slices.Contains(parts, d.UUID) {
			out = append(out, int32(d.Index))
		}
	}
	return out
}

// countParts puts the figures of the MIG instances in use in the place of their
// GPU's. What belongs to the whole GPU, which other instances share, goes.
func (g *DeviceReading) countParts(parts []string, devices []runner.Device) {
	if len(parts) == 0 || !slices.ContainsFunc(devices, func(d runner.Device) bool {
		return d.Index == g.Index && d.Parent != "" && slices.Contains(parts, d.UUID)
	}) {
		return
	}
	sum, processes, told := g.sumParts(parts)
	for _, q := range []Quantity{QMemoryUsed, QMemoryTotal, QMemoryReserved, QMemoryFree, QMemoryPercent} {
		delete(g.Values, q)
		if !told {
			g.Missing[q] = migMemory
		}
	}
	for q, v := range sum {
		g.Values[q] = v
	}
	if told {
		g.Values[QMemoryFree] = sum[QMemoryTotal] - sum[QMemoryUsed] - sum[QMemoryReserved]
	}
	g.Processes = processes
	if len(g.MIG) == 1 {
		return // all of the GPU is its
	}
	for _, q := range []Quantity{QPower, QPowerInstant, QPowerAverage, QEnergy} {
		delete(g.Values, q)
		g.Missing[q] = migPower
	}
}

// sumParts adds up the memory and the processes of the MIG instances in use.
// told is false where none told its memory; processes is nil then, and where
// one does not tell its own.
func (g *DeviceReading) sumParts(parts []string) (sum map[Quantity]float64, processes []ProcessReading, told bool) {
	sum, processes = map[Quantity]float64{}, []ProcessReading{}
	for _, p := range g.MIG {
		if !slices.Contains(parts, p.UUID) || p.Used == nil || p.Total == nil {
			continue
		}
		told = true
		sum[QMemoryUsed] += float64(*p.Used)
		sum[QMemoryTotal] += float64(*p.Total)
		if p.Reserve != nil {
			sum[QMemoryReserved] += float64(*p.Reserve)
		}
		if p.Processes == nil {
			processes = nil
		} else if processes != nil {
			processes = append(processes, p.Processes...)
		}
	}
	if !told {
		return sum, nil, false
	}
	return sum, processes, true
}

// Why figures of a MIG instance are missing.
const (
	migPower  = "power is that of the whole GPU, which other MIG instances share"
	migMemory = "a MIG instance is in use: its memory is told by NVML only"
)

// Inspector is the machine as runs may use it: its Devices are those that the
// environment's masks leave, in the order in which an engine would count them.
func (m *Machine) Inspector() runner.Inspector { return &m.masked }

// masked shows the visible devices only.
type masked struct{ *Machine }

// Devices implements runner.Inspector. An error names the mask that cannot be
// followed.
func (m *masked) Devices(ctx context.Context) ([]runner.Device, error) {
	all, err := m.Machine.Devices(ctx)
	if err != nil {
		return nil, err
	}
	visible, _, err := Visible(all, m.o.Env)
	return visible, err
}

// Inspect implements runner.Inspector. Where the mask leaves MIG instances, their
// figures stand for those of their GPU.
func (m *masked) Inspect(ctx context.Context, gpus []int) (*runner.DetailedGPUMetrics, error) {
	return m.inspect(ctx, gpus, m.partsInUse(gpus))
}

// indices lists the GPUs of a vendor among the wanted ones.
func (m *Machine) indices(vendor string, gpus []int) []int {
	var out []int
	for _, d := range m.devices {
		if d.Vendor == vendor && d.Parent == "" && (gpus == nil || slices.Contains(gpus, d.Index)) {
			out = append(out, d.Index)
		}
	}
	return out
}

// full reads the GPUs of one vendor.
func (m *Machine) full(ctx context.Context, vendor string, want []int) (*Reading, error) {
	if vendor == "amd" {
		return m.fullAMD(ctx, want)
	}
	var errs []error
	for _, name := range m.readers() {
		r, err := m.fullNVIDIA(ctx, name, want)
		if err == nil {
			return r, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// readers are NVIDIA's sources for full readings: those that work, then those
// that were not tried.
func (m *Machine) readers() []string {
	var works, others []string
	for _, st := range m.sources {
		switch {
		case vendorOf(st.Name) != "nvidia":
		case st.Works && !(st.Name == SourceNVML && m.nvml.distrusted()):
			works = append(works, st.Name)
		case st.standby || st.Name == SourceNVML && m.nvml.distrusted():
			others = append(others, st.Name)
		}
	}
	return append(works, others...)
}

func (m *Machine) fullNVIDIA(ctx context.Context, source string, want []int) (*Reading, error) {
	if source == SourceNvidiaSMI {
		return m.fullSMI(ctx, want)
	}
	r, err := m.nvml.read(ctx)
	if err != nil {
		return nil, err
	}
	for i := range r.GPUs {
		r.GPUs[i].Index = int(m.smiIndex(r.GPUs[i].BusID, r.GPUs[i].Index))
	}
	return r, nil
}

// fullSMI calls nvidia-smi twice at once, for the figures and for the
// processes: one after the other would double the time a run waits.
func (m *Machine) fullSMI(ctx context.Context, want []int) (*Reading, error) {
	var wg sync.WaitGroup
	var apps *Reading
	var appsErr error
	wg.Go(func() { apps, appsErr = m.compute(ctx) })
	r, err := m.querySMI(ctx, smiDetailFields(), m.busIDs(want))
	wg.Wait()
	if err != nil {
		return nil, err
	}
	for i := range r.GPUs {
		g := &r.GPUs[i]
		g.Index = int(m.smiIndex(g.BusID, g.Index))
		if appsErr != nil {
			g.Missing["processes"] = appsErr.Error()
			continue
		}
		g.Processes = []ProcessReading{}
		for _, p := range apps.Processes {
			if busKey(p.BusID) == busKey(g.BusID) || p.UUID != "" && p.UUID == g.UUID {
				g.Processes = append(g.Processes, p)
			}
		}
	}
	return r, nil
}

// smiIndex is a GPU's index at the start, by its bus id.
func (m *Machine) smiIndex(busID string, told int) int32 {
	for _, d := range m.smi {
		if d.busID != "" && busKey(d.busID) == busKey(busID) {
			return d.index
		}
	}
	return int32(told)
}

func (m *Machine) busIDs(want []int) []string {
	var ids []string
	for _, d := range m.smi {
		if slices.Contains(want, int(d.index)) && d.busID != "" {
			ids = append(ids, d.busID)
		}
	}
	if len(ids) == len(m.smi) {
		return nil // all: no restriction
	}
	return ids
}

// compute lists the compute processes.
func (m *Machine) compute(ctx context.Context) (*Reading, error) {
	out, err := runTool(ctx, m.o, m.o.ToolTimeout, m.o.NvidiaSMI,
		"--query-compute-apps=gpu_bus_id,gpu_uuid,pid,process_name,used_gpu_memory", "--format=csv")
	if err != nil {
		return nil, err
	}
	if !isSMIApps(out.stdout) {
		return nil, fmt.Errorf("nvidia-smi --query-compute-apps (exit code %d): %s", out.code, out.text())
	}
	return readSMIApps(out.stdout)
}

// detailOf is a GPU in the names of schema 3.0. mb is MiB. Power is the
// instantaneous figure where there is one.
func detailOf(g *DeviceReading, missing map[string]string) runner.GPUDetail {
	mib := func(q Quantity) *float64 {
		if v, ok := g.Values[q]; ok {
			v /= 1 << 20
			return &v
		}
		return nil
	}
	d := runner.GPUDetail{
		GPUID:      g.Index,
		VRAMUsedMB: mib(QMemoryUsed), VRAMFreeMB: mib(QMemoryFree), VRAMTotalMB: mib(QMemoryTotal), VRAMReservedMB: mib(QMemoryReserved),
		VRAMPercent:  g.value(QMemoryPercent),
		HotspotTempC: g.value(QTempHotspot), MemoryTempC: g.value(QTempMemory),
		GfxUtilizationPct: g.value(QUtilGPU), MemUtilizationPct: g.value(QUtilMemory),
		ClockGfxMHz: g.value(QClockSM), ClockMemMHz: g.value(QClockMemory),
		ThrottleReasons: g.Throttle,
		ECCUncorrected:  g.bytesOf(QECCUncorrected),
	}
	if d.PowerWatts = g.value(QPowerInstant); d.PowerWatts == nil {
		d.PowerWatts = g.value(QPower)
	}
	if d.VRAMPercent == nil && d.VRAMUsedMB != nil && d.VRAMTotalMB != nil && *d.VRAMTotalMB > 0 {
		v := 100 * *d.VRAMUsedMB / *d.VRAMTotalMB
		d.VRAMPercent = &v
	}
	if g.Processes != nil {
		d.Processes = []runner.GPUProcess{}
		for _, p := range g.Processes {
			d.Processes = append(d.Processes, processOf(p))
		}
	}
	for q, why := range g.Missing {
		missing[fmt.Sprintf("gpus[%d].%s", g.Index, q)] = why
	}
	return d
}

func processOf(p ProcessReading) runner.GPUProcess {
	name := p.Name
	if name == "" {
		name = "unnamed"
	}
	out := runner.GPUProcess{ProcessInfo: fmt.Sprintf("%s (PID: %d)", name, p.PID), PID: p.PID, Name: p.Name}
	if p.Bytes != nil {
		out.MemoryUsage = &runner.ValueUnit{Value: float64(*p.Bytes) / (1 << 20), Unit: "MB"}
	}
	return out
}

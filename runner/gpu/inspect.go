package gpu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// Inspect implements runner.Inspector: one full reading of the given GPUs (nil:
// all), with their processes, by the first tool that answers. Tool names it.
func (m *Machine) Inspect(ctx context.Context, gpus []int) (*runner.DetailedGPUMetrics, error) {
	d := &runner.DetailedGPUMetrics{Timestamp: time.Now().UTC(), GPUs: []runner.GPUDetail{}, Missing: map[string]string{}}
	var errs []error
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
		if d.Tool != "" {
			d.Tool += ", "
		}
		d.Tool += r.Tool
		for i := range r.GPUs {
			if slices.Contains(want, r.GPUs[i].Index) {
				d.GPUs = append(d.GPUs, detailOf(&r.GPUs[i], d.Missing))
			}
		}
	}
	if len(d.GPUs) == 0 {
		if len(m.devices) == 0 {
			d.Missing["gpus"] = "no GPU was found"
			return d, nil
		}
		return d, fmt.Errorf("no tool could read the GPUs: %w", errors.Join(errs...))
	}
	return d, nil
}

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
	if m.smiText != nil {
		r, err := m.fullSMI(ctx, want)
		if err == nil {
			return r, nil
		}
		errs = append(errs, err)
	}
	if len(m.o.Helper) > 0 {
		r, err := nvmlOnce(ctx, m.o)
		if err == nil {
			return r, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
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
			if p.BusID == g.BusID || p.UUID != "" && p.UUID == g.UUID {
				g.Processes = append(g.Processes, p)
			}
		}
	}
	return r, nil
}

// smiIndex is a GPU's index at the start, by its bus id.
func (m *Machine) smiIndex(busID string, told int) int32 {
	for _, d := range m.smi {
		if d.busID != "" && d.busID == busID {
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
	out := runner.GPUProcess{ProcessInfo: fmt.Sprintf("%s (PID: %d)", p.Name, p.PID), PID: p.PID, Name: p.Name}
	if p.Bytes != nil {
		out.MemoryUsage = &runner.ValueUnit{Value: float64(*p.Bytes) / (1 << 20), Unit: "MB"}
	}
	return out
}

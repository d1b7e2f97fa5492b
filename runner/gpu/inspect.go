package gpu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// Inspect implements runner.Inspector: one full reading of the given GPUs (nil:
// all), with their processes, by the first tool that answers. Tool names it.
func (m *Machine) Inspect(ctx context.Context, gpus []int) (*runner.DetailedGPUMetrics, error) {
	return m.inspect(ctx, gpus, nil)
}

// inspect reads GPUs in full; of those whose MIG instances are in use, these
// count.
func (m *Machine) inspect(ctx context.Context, gpus []int, parts []string) (*runner.DetailedGPUMetrics, error) {
	d := &runner.DetailedGPUMetrics{
		Timestamp: time.Now().UTC(), GPUs: []runner.GPUDetail{}, Missing: map[string]string{},
	}
	readings, tool, err := m.readings(ctx, gpus)
	d.Tool = tool
	for i := range readings {
		g := &readings[i]
		countParts(g, parts, m.devices)
		if slices.Contains(m.shared, g.Index) {
			g.Lacks(runner.HasMemoryUsed, "the GPU shares the host's memory: its timeline is sampled from /proc/meminfo")
		}
		d.GPUs = append(d.GPUs, detailOf(g))
		for name, why := range g.Missing {
			d.Missing[fmt.Sprintf("gpus[%d].%s", g.Index, name)] = why
		}
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
func (m *Machine) readings(ctx context.Context, gpus []int) (out []sampling.GPU, tools string, err error) {
	var errs []error
	var names []string
	for _, vendor := range vendors() {
		want := m.indices(vendor, Run{GPUs: gpus})
		if len(want) == 0 {
			continue
		}
		r, err := m.vendors[vendor].Read(ctx, want)
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

// countParts puts the figures of the MIG instances in use in the place of their
// GPU's. What belongs to the whole GPU, which other instances share, goes.
func countParts(g *sampling.GPU, parts []string, devices []runner.Device) {
	if len(parts) == 0 || !slices.ContainsFunc(devices, func(d runner.Device) bool {
		return d.Index == g.Index && d.Parent != "" && slices.Contains(parts, d.UUID)
	}) {
		return
	}
	sum, processes := sumParts(g, parts)
	for f := sampling.MemoryFields; f != 0 && sum.Sample.Has == 0; f &= f - 1 {
		g.Lacks(f&-f, sampling.MIGMemory)
	}
	g.Sample.Has &^= sampling.MemoryFields
	g.Fill(&sum)
	g.Processes = processes
	if len(g.Parts) == 1 {
		return // all of the GPU is its
	}
	g.Sample.Has &^= runner.HasPower | runner.HasEnergy
	g.Lacks(runner.HasPower, sampling.MIGPower)
	g.Lacks(runner.HasEnergy, sampling.MIGPower)
}

// sumParts adds up the memory and the processes of the MIG instances in use.
// processes is nil where one of them, or all, do not tell theirs.
func sumParts(g *sampling.GPU, parts []string) (sum sampling.GPU, processes []sampling.Process) {
	s := &sum.Sample
	for i := range g.Parts {
		p := &g.Parts[i]
		if !slices.Contains(parts, p.UUID) || !p.Has(runner.HasMemoryUsed|runner.HasMemoryTotal) {
			continue
		}
		if s.Has == 0 {
			s.Has, processes = sampling.MemoryFields, []sampling.Process{}
		}
		s.MemoryUsed += p.Sample.MemoryUsed
		s.MemoryTotal += p.Sample.MemoryTotal
		s.MemoryReserved += p.Sample.MemoryReserved
		s.Has &= p.Sample.Has
		if p.Processes == nil || processes == nil {
			processes = nil
		} else {
			processes = append(processes, p.Processes...)
		}
	}
	return sum, processes
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

// Inspect implements runner.Inspector. Where the mask leaves MIG instances, their
// figures stand for those of their GPU.
func (m *masked) Inspect(ctx context.Context, gpus []int) (*runner.DetailedGPUMetrics, error) {
	return m.inspect(ctx, gpus, m.partsInUse(gpus))
}

// detailOf is a GPU in the names of schema 3.0. mb is MiB. Power is the
// instantaneous figure where there is one.
func detailOf(g *sampling.GPU) runner.GPUDetail {
	s := &g.Sample
	tell := func(f runner.Fields, v float64) *float64 {
		if !g.Has(f) {
			return nil
		}
		return &v
	}
	const miB = 1 << 20
	const inUse = runner.HasMemoryUsed | runner.HasMemoryTotal
	free := s.MemoryTotal - s.MemoryUsed
	if g.Has(runner.HasMemoryReserved) {
		free -= s.MemoryReserved
	}
	d := runner.GPUDetail{
		GPUID:             g.Index,
		VRAMUsedMB:        tell(runner.HasMemoryUsed, float64(s.MemoryUsed)/miB),
		VRAMFreeMB:        tell(inUse, float64(free)/miB),
		VRAMTotalMB:       tell(runner.HasMemoryTotal, float64(s.MemoryTotal)/miB),
		VRAMReservedMB:    tell(runner.HasMemoryReserved, float64(s.MemoryReserved)/miB),
		HotspotTempC:      tell(runner.HasTemperature, s.Temperature),
		MemoryTempC:       tell(runner.HasMemoryTemp, s.MemoryTemp),
		GfxUtilizationPct: tell(runner.HasUtilization, float64(s.Utilization)),
		MemUtilizationPct: tell(runner.HasMemoryUtil, float64(s.MemoryUtil)),
		ClockGfxMHz:       tell(runner.HasClockSM, float64(s.ClockSM)),
		ClockMemMHz:       tell(runner.HasClockMem, float64(s.ClockMem)),
		PowerWatts:        tell(runner.HasPower, s.Power),
		ECCUncorrected:    g.ECC,
	}
	if g.Has(runner.HasThrottleReasons) {
		d.ThrottleReasons = sampling.ThrottleNames(s.ThrottleReasons)
	}
	if s.MemoryTotal > 0 {
		d.VRAMPercent = tell(inUse, 100*float64(s.MemoryUsed)/float64(s.MemoryTotal))
	}
	if g.Processes != nil {
		d.Processes = []runner.GPUProcess{}
		for _, p := range g.Processes {
			d.Processes = append(d.Processes, processOf(p))
		}
	}
	return d
}

func processOf(p sampling.Process) runner.GPUProcess {
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

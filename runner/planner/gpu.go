package planner

import (
	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/simulate"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// GPUOf is the arithmetic's GPU for real devices: their catalogue entry. A
// simulated profile has its own.
func GPUOf(devices []runner.Device, blocks []sweep.GPU, p *sweep.Profile) (models.GPU, bool) {
	if p != nil && p.Engine.Kind == "simulator" {
		name := simulate.DefaultGPU
		if own := p.Engine.Simulator; own != nil && own.GPU != "" {
			name = own.GPU
		}
		return NamedGPU(name, blocks)
	}
	if len(devices) == 0 {
		return models.GPU{}, false
	}
	g := DeviceGPU(&devices[0])
	return g, g.TotalBytes > 0
}

// DeviceGPU is a real device: its catalogue entry, else what the driver says of
// its size.
func DeviceGPU(d *runner.Device) models.GPU {
	if g, ok := models.LookupGPU(d.Name); ok || d.TotalBytes == nil {
		return g
	}
	reserve := or(d.ReservedBytes, 0)
	return models.GPU{Name: d.Name, Product: d.Name, DriverTotal: *d.TotalBytes, Reserve: reserve,
		TotalBytes: *d.TotalBytes - reserve, Source: "the driver"}
}

// gpu is the plan's GPU and how it is known, else that of its first simulated profile.
func (p *Planner) gpu() (*models.GPU, string) {
	if p.GPU != nil {
		return p.GPU, p.From
	}
	for _, s := range p.Plan.Sweeps {
		for _, profile := range s.Profiles {
			if g, ok := GPUOf(nil, p.Plan.GPUs, profile); ok {
				return &g, "the simulator"
			}
		}
	}
	return nil, ""
}

// NamedGPU finds a GPU in the file's blocks, then in the catalogue.
func NamedGPU(name string, blocks []sweep.GPU) (models.GPU, bool) {
	for _, b := range blocks {
		if b.Name != name {
			continue
		}
		g, ok := models.LookupGPU(b.Like)
		if !ok && b.TotalMemory == nil {
			return models.GPU{}, false
		}
		g.Name, g.Source = b.Name, "gpu block"
		g.TotalBytes, g.Reserve = or(b.TotalMemory, g.TotalBytes), or(b.Reserve, g.Reserve)
		g.Context = or(b.Context, g.Context)
		return g, true
	}
	return models.LookupGPU(name)
}

// GPUNames are all that NamedGPU finds.
func GPUNames(blocks []sweep.GPU) []string {
	var names []string
	for _, b := range blocks {
		names = append(names, b.Name)
	}
	for _, g := range models.GPUs() {
		names = append(names, g.Name)
	}
	return names
}

package planner

import (
	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// GPUOf is the arithmetic's GPU for real devices: their catalogue entry. A
// simulated profile has its own.
func GPUOf(devices []runner.Device, blocks []sweep.GPU, p *sweep.Profile) (models.GPU, bool) {
	if p != nil && p.Engine.Simulator != nil && p.Engine.Simulator.GPU != "" {
		return NamedGPU(p.Engine.Simulator.GPU, blocks)
	}
	if len(devices) == 0 {
		return models.GPU{}, false
	}
	return models.LookupGPU(devices[0].Name)
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

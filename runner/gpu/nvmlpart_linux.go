package gpu

import (
	"slices"

	"github.com/vramsweep/vramsweep/runner"
)

// An nvmlPart is a MIG instance. NVML tells its memory and its processes; power,
// clocks and temperatures belong to the whole GPU.
type nvmlPart struct {
	handle uintptr
	info   nvmlPartInfo
}

// findParts lists the MIG instances of a GPU in MIG mode.
func (g *nvmlGPU) findParts() {
	l := g.l
	pending := heap[uint32](l)
	if l.call(l.fn["nvmlDeviceGetMigMode"], g.handle, addr(g.u32), addr(pending)) != nvmlSuccess {
		return // a GPU that cannot do it
	}
	g.text("mig_mode", []string{"Disabled", "Enabled"}, *g.u32)
	if *g.u32 != 1 || l.call(l.fn["nvmlDeviceGetMaxMigDeviceCount"], g.handle, addr(g.u32)) != nvmlSuccess {
		return
	}
	for i := range int(*g.u32) {
		h := heap[uintptr](l)
		if l.call(l.fn["nvmlDeviceGetMigDeviceHandleByIndex"], g.handle, uintptr(i), addr(h)) != nvmlSuccess {
			continue // a place without an instance
		}
		g.parts = append(g.parts, &nvmlPart{handle: *h, info: nvmlPartInfo{
			UUID: l.text(func(b, n uintptr) int { return l.call(l.fn["nvmlDeviceGetUUID"], *h, b, n) }),
			Name: l.text(func(b, n uintptr) int { return l.call(l.fn["nvmlDeviceGetName"], *h, b, n) }),
		}})
	}
}

// text keeps a fact that NVML tells as a number.
func (g *nvmlGPU) text(name string, words []string, n uint32) {
	if g.info.Texts == nil {
		g.info.Texts = map[string]string{}
	}
	if int(n) < len(words) {
		g.info.Texts[name] = words[n]
	}
}

// restrict lets the memory of the named instances count instead of the GPU's.
func (g *nvmlGPU) restrict(uuids []string) {
	g.counts = nil
	for _, p := range g.parts {
		if slices.Contains(uuids, p.info.UUID) {
			g.counts = append(g.counts, p)
		}
	}
}

// memoryOfParts sums the memory of the instances that count.
func (g *nvmlGPU) memoryOfParts(s *runner.Sample) int {
	var sum runner.Sample
	sum.Has = memoryFields
	for _, p := range g.counts {
		var one runner.Sample
		if rc := g.memoryOf(p.handle, &one); rc != nvmlSuccess {
			return rc
		}
		sum.Has &= one.Has
		sum.MemoryUsed += one.MemoryUsed
		sum.MemoryReserved += one.MemoryReserved
		sum.MemoryTotal += one.MemoryTotal
	}
	s.MemoryUsed, s.MemoryReserved, s.MemoryTotal = sum.MemoryUsed, sum.MemoryReserved, sum.MemoryTotal
	s.Has |= sum.Has
	return nvmlSuccess
}

// holders are the handles whose processes count.
func (g *nvmlGPU) holders() []uintptr {
	if len(g.counts) == 0 {
		return []uintptr{g.handle}
	}
	var out []uintptr
	for _, p := range g.counts {
		out = append(out, p.handle)
	}
	return out
}

// full adds to what is said of a device all that costs more than a sample:
// processes with their names, errors, modes, the memory of its instances.
func (g *nvmlGPU) full(energy bool) {
	if energy {
		if v, ok := g.readEnergy(); ok {
			g.info.First.Energy = v
			g.info.First.Has |= runner.HasEnergy
		}
	}
	g.info.Processes = g.processInfos(g.handle)
	const uncorrected, volatile = 1, 0
	if g.l.call(g.l.fn["nvmlDeviceGetTotalEccErrors"], g.handle, uncorrected, volatile, addr(g.u64)) == nvmlSuccess {
		n := *g.u64
		g.info.ECC = &n
	}
	if g.l.call(g.l.fn["nvmlDeviceGetPersistenceMode"], g.handle, addr(g.u32)) == nvmlSuccess {
		g.text("persistence_mode", []string{"Disabled", "Enabled"}, *g.u32)
	}
	if g.l.call(g.l.fn["nvmlDeviceGetComputeMode"], g.handle, addr(g.u32)) == nvmlSuccess {
		g.text("compute_mode", []string{"Default", "Exclusive_Thread", "Prohibited", "Exclusive_Process"}, *g.u32)
	}
	minor := heap[uint32](g.l)
	if g.l.call(g.l.fn["nvmlDeviceGetCudaComputeCapability"], g.handle, addr(g.u32), addr(minor)) == nvmlSuccess {
		g.info.ComputeCap = float64(*g.u32) + float64(*minor)/10
	}
	for _, p := range g.parts {
		g.memoryOf(p.handle, &p.info.First)
		p.info.Processes = g.processInfos(p.handle)
		g.info.Parts = append(g.info.Parts, p.info)
	}
}

// processInfos lists who holds memory; nil where NVML does not tell.
func (g *nvmlGPU) processInfos(handle uintptr) []nvmlProcessInfo {
	list, ok := g.processes(handle)
	if !ok {
		return nil
	}
	out := make([]nvmlProcessInfo, 0, len(list))
	for _, p := range list {
		info := nvmlProcessInfo{PID: int(p.pid)}
		if p.used != nvmlNoValue {
			n := int64(p.used)
			info.Bytes = &n
		}
		info.Name = g.l.text(func(b, n uintptr) int { return g.l.call(g.l.fn["nvmlSystemGetProcessName"], uintptr(p.pid), b, n) })
		out = append(out, info)
	}
	return out
}

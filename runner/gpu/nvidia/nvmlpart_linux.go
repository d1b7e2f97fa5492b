package nvidia

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// An nvmlPart is a MIG instance. NVML tells its memory and its processes; power,
// clocks and temperatures belong to the whole GPU.
type nvmlPart struct {
	handle uintptr
	info   sampling.GPU
}

// findParts lists the MIG instances of a GPU in MIG mode.
func (g *nvmlGPU) findParts() {
	l := g.l
	pending := heap[uint32](l)
	if l.call("nvmlDeviceGetMigMode", g.handle, addr(g.u32), addr(pending)) != nvmlSuccess {
		return // a GPU that cannot do it
	}
	g.word("mig_mode", []string{"Disabled", "Enabled"}, *g.u32)
	if *g.u32 != 1 || l.call("nvmlDeviceGetMaxMigDeviceCount", g.handle, addr(g.u32)) != nvmlSuccess {
		return
	}
	for i := range int(*g.u32) {
		h := heap[uintptr](l)
		if l.call("nvmlDeviceGetMigDeviceHandleByIndex", g.handle, uintptr(i), addr(h)) != nvmlSuccess {
			continue // a place without an instance
		}
		name := l.text("nvmlDeviceGetName", *h)
		g.parts = append(g.parts, &nvmlPart{handle: *h, info: sampling.GPU{
			UUID: l.text("nvmlDeviceGetUUID", *h),
			Name: strings.TrimPrefix(strings.TrimPrefix(name, g.info.Name), " MIG "),
		}})
	}
}

// word keeps a fact that NVML tells as a number.
func (g *nvmlGPU) word(name string, words []string, n uint32) {
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
	sum.Has = sampling.MemoryFields
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
			sampling.Put(&g.info.Sample, runner.HasEnergy, v)
		}
	}
	if g.info.Processes = g.processInfos(g.handle); g.info.Processes == nil {
		g.info.Missing["processes"] = "NVML does not list the compute processes of this GPU"
	}
	const uncorrected, volatile = 1, 0
	if g.l.call("nvmlDeviceGetTotalEccErrors", g.handle, uncorrected, volatile, addr(g.u64)) == nvmlSuccess {
		n := int64(*g.u64)
		g.info.ECC = &n
	}
	if g.l.call("nvmlDeviceGetPersistenceMode", g.handle, addr(g.u32)) == nvmlSuccess {
		g.word("persistence_mode", []string{"Disabled", "Enabled"}, *g.u32)
	}
	if g.l.call("nvmlDeviceGetComputeMode", g.handle, addr(g.u32)) == nvmlSuccess {
		g.word("compute_mode", []string{"Default", "Exclusive_Thread", "Prohibited", "Exclusive_Process"}, *g.u32)
	}
	minor := heap[uint32](g.l)
	if g.l.call("nvmlDeviceGetCudaComputeCapability", g.handle, addr(g.u32), addr(minor)) == nvmlSuccess {
		g.info.Texts["compute_cap"] = fmt.Sprintf("%d.%d", *g.u32, *minor)
	}
	for _, p := range g.parts {
		g.memoryOf(p.handle, &p.info.Sample)
		p.info.Processes = g.processInfos(p.handle)
		g.info.Parts = append(g.info.Parts, p.info)
	}
}

// processInfos lists who holds memory; nil where NVML does not tell.
func (g *nvmlGPU) processInfos(handle uintptr) []sampling.Process {
	list, ok := g.processes(handle)
	if !ok {
		return nil
	}
	out := make([]sampling.Process, 0, len(list))
	for _, p := range list {
		info := sampling.Process{PID: int(p.pid)}
		if p.used != nvmlNoValue {
			n := int64(p.used)
			info.Bytes = &n
		}
		info.Name = g.l.text("nvmlSystemGetProcessName", uintptr(p.pid))
		out = append(out, info)
	}
	return out
}

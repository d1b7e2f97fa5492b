package nvidia

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// Return codes of NVML that are told apart (nvml.h, nvmlReturn_t).
const (
	nvmlSuccess          = 0
	nvmlUninitialized    = 1
	nvmlNotSupported     = 3
	nvmlNoPermission     = 4
	nvmlInsufficientSize = 7
	nvmlDriverNotLoaded  = 9
	nvmlGPUIsLost        = 15
	nvmlResetRequired    = 16
	nvmlVersionMismatch  = 18
	nvmlNoSymbol         = -1 // ours: the library lacks the function
)

// Field ids of nvmlDeviceGetFieldValues (nvml.h).
const (
	nvmlFieldMemoryTemp   = 82
	nvmlFieldPowerInstant = 186
)

// nvmlLibrary is libnvidia-ml, bound at run time without cgo. Every function
// was looked up before it is called: a driver that lacks one costs a figure,
// not the process.
type nvmlLibrary struct {
	fn      map[string]uintptr
	missing []string
	kept    any // see heap
}

// heap allocates what a call fills. An address that is passed as a number would
// not follow a variable of the stack, which moves when it grows; what is stored
// here lives on the heap. Only for the goroutine that opens the devices.
func heap[T any](l *nvmlLibrary) *T {
	p := new(T)
	l.kept = p
	return p
}

// nvmlSymbols are the functions that are used, the newest variant first. The
// variant decides the layout of what it fills.
func nvmlSymbols() [][]string {
	return [][]string{
		{"nvmlInit_v2"}, {"nvmlShutdown"}, {"nvmlSystemGetDriverVersion"}, {"nvmlDeviceGetCount_v2"},
		{"nvmlDeviceGetHandleByIndex_v2"}, {"nvmlDeviceGetUUID"}, {"nvmlDeviceGetName"}, {"nvmlDeviceGetPciInfo_v3"},
		{"nvmlDeviceGetMemoryInfo_v2"}, {"nvmlDeviceGetMemoryInfo"}, {"nvmlDeviceGetUtilizationRates"},
		{"nvmlDeviceGetTemperature"}, {"nvmlDeviceGetPowerUsage"}, {"nvmlDeviceGetClockInfo"},
		{"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"},
		{"nvmlDeviceGetFieldValues"}, {"nvmlDeviceGetTotalEnergyConsumption"}, {"nvmlDeviceGetArchitecture"},
		// one layout; the first variant has another
		{"nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"},
	}
}

// nvmlExtras are used for full readings only; that one is missing is no news.
func nvmlExtras() []string {
	return []string{
		"nvmlSystemGetProcessName", "nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetPersistenceMode",
		"nvmlDeviceGetComputeMode", "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetMigMode",
		"nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex",
	}
}

// openNVML loads the library and looks all functions up.
func openNVML(path string) (*nvmlLibrary, error) {
	runtime.LockOSThread() // the reason of a failure is kept by thread
	defer runtime.UnlockOSThread()
	h, err := purego.Dlopen(path, purego.RTLD_LAZY|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("NVIDIA's library cannot be loaded: %w", err)
	}
	l := &nvmlLibrary{fn: map[string]uintptr{}}
	for _, names := range nvmlSymbols() {
		for _, name := range names {
			if p, err := purego.Dlsym(h, name); err == nil && p != 0 {
				l.fn[names[0]] = p
				break
			}
		}
		if l.fn[names[0]] == 0 {
			l.missing = append(l.missing, names[0])
		}
	}
	for _, name := range nvmlExtras() {
		if p, err := purego.Dlsym(h, name); err == nil {
			l.fn[name] = p
		}
	}
	for _, must := range []string{"nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2"} {
		if l.fn[must] == 0 {
			return nil, fmt.Errorf("%s lacks %s: no NVML, or one older than driver 319", path, must)
		}
	}
	return l, nil
}

// init begins a session with the driver.
func (l *nvmlLibrary) init() error {
	if rc := l.call("nvmlInit_v2"); rc != nvmlSuccess {
		return fmt.Errorf("nvmlInit_v2: %s", nvmlError(rc))
	}
	return nil
}

func (l *nvmlLibrary) shutdown() { l.call("nvmlShutdown") }

// call calls a function by its name. It returns its code.
func (l *nvmlLibrary) call(name string, args ...uintptr) int {
	fn := l.fn[name]
	if fn == 0 {
		return nvmlNoSymbol
	}
	r, _, _ := purego.SyscallN(fn, args...)
	return int(int32(r))
}

// nvmlError names a return code.
func nvmlError(rc int) string {
	names := map[int]string{
		nvmlNoSymbol: "this driver's library lacks the function", nvmlUninitialized: "uninitialized",
		2: "invalid argument", nvmlNotSupported: "not supported", nvmlNoPermission: "no permission", 6: "not found",
		nvmlInsufficientSize: "insufficient size", nvmlDriverNotLoaded: "driver not loaded", 10: "time-out",
		12: "library not found", 13: "function not found", nvmlGPUIsLost: "GPU is lost",
		nvmlResetRequired: "GPU requires reset", 17: "operating system blocks it",
		nvmlVersionMismatch: "driver and library versions differ", 25: "argument version mismatch", 27: "not ready",
		28: "GPU not found", 999: "unknown error",
	}
	if n := names[rc]; n != "" {
		return fmt.Sprintf("%s (NVML %d)", n, rc)
	}
	return fmt.Sprintf("NVML error %d", rc)
}

// An nvmlGPU is a device handle and the memory that calls fill: allocated once,
// so that a tick allocates nothing.
type nvmlGPU struct {
	l      *nvmlLibrary
	handle uintptr
	index  int
	info   sampling.GPU
	lost   bool
	parts  []*nvmlPart // MIG instances
	counts []*nvmlPart // of them, those whose memory counts instead of the GPU's

	mem2     *nvmlMemory2
	mem1     *nvmlMemory1
	util     *[2]uint32
	u32      *uint32
	u64      *uint64
	energy   *uint64 // its own: read by another goroutine
	fields   *[2]nvmlFieldValue
	procs    *[nvmlMaxProcesses]nvmlProcess
	count    *uint32
	v2       bool
	instant  bool
	averaged bool
}

// Layouts of nvml.h; the sizes are checked in a test.
type nvmlMemory2 struct {
	version                     uint32
	_                           uint32
	total, reserved, free, used uint64
}

type nvmlMemory1 struct{ total, free, used uint64 }

type nvmlFieldValue struct {
	fieldID, scopeID uint32
	timestamp        int64
	latency          int64
	valueType, rc    uint32
	value            [8]byte
}

type nvmlProcess struct {
	pid                          uint32
	_                            uint32
	used                         uint64
	gpuInstance, computeInstance uint32
}

type nvmlPCI struct {
	legacy                                     [16]byte
	domain, bus, device, deviceID, subsystemID uint32
	busID                                      [32]byte
}

const (
	nvmlMemory2Version = 2<<24 | 40
	nvmlMaxProcesses   = 512
	nvmlNoValue        = math.MaxUint64
)

// open finds the devices.
func (l *nvmlLibrary) open() ([]*nvmlGPU, string, error) {
	n := heap[uint32](l)
	if rc := l.call("nvmlDeviceGetCount_v2", addr(n)); rc != nvmlSuccess {
		return nil, "", fmt.Errorf("nvmlDeviceGetCount_v2: %s", nvmlError(rc))
	}
	driver := l.text("nvmlSystemGetDriverVersion")
	var gpus []*nvmlGPU
	for i := range int(*n) {
		h := heap[uintptr](l)
		if rc := l.call("nvmlDeviceGetHandleByIndex_v2", uintptr(i), addr(h)); rc != nvmlSuccess {
			g := &nvmlGPU{l: l, index: i, lost: true}
			g.info = sampling.NewGPU(i)
			g.info.Lost = nvmlError(rc)
			g.info.Lacks(runner.HasMemoryUsed, g.info.Lost)
			gpus = append(gpus, g)
			continue
		}
		gpus = append(gpus, l.device(i, *h))
	}
	return gpus, driver, nil
}

func addr[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

// text calls a function whose last arguments are a buffer that it fills, and its
// size.
func (l *nvmlLibrary) text(name string, args ...uintptr) string {
	buf := heap[[96]byte](l)
	if l.call(name, append(args, addr(buf), uintptr(len(buf)))...) != nvmlSuccess {
		return ""
	}
	s, _, _ := strings.Cut(string(buf[:]), "\x00")
	return s
}

func (l *nvmlLibrary) device(i int, h uintptr) *nvmlGPU {
	g := &nvmlGPU{
		l: l, handle: h, index: i, mem2: new(nvmlMemory2), mem1: new(nvmlMemory1), util: new([2]uint32),
		u32: new(uint32), u64: new(uint64), energy: new(uint64),
		fields: new([2]nvmlFieldValue), procs: new([nvmlMaxProcesses]nvmlProcess), count: new(uint32),
	}
	g.info = sampling.NewGPU(i)
	g.info.UUID = l.text("nvmlDeviceGetUUID", h)
	g.info.Name = l.text("nvmlDeviceGetName", h)
	pci := heap[nvmlPCI](l)
	if l.call("nvmlDeviceGetPciInfo_v3", h, addr(pci)) == nvmlSuccess {
		id, _, _ := strings.Cut(string(pci.busID[:]), "\x00")
		g.info.BusID = id
	}
	g.chooseMemory()
	g.choosePower()
	g.findParts()
	return g
}

// chooseMemory prefers the second memory call, which tells the driver's reserve
// apart; the first counts it as used.
func (g *nvmlGPU) chooseMemory() {
	g.mem2.version = nvmlMemory2Version
	g.v2 = g.l.call("nvmlDeviceGetMemoryInfo_v2", g.handle, addr(g.mem2)) == nvmlSuccess
	g.info.Reserve = !g.v2
}

// choosePower prefers the instantaneous figure. nvmlDeviceGetPowerUsage is an
// average over a second from Ampere (architecture 7) on.
func (g *nvmlGPU) choosePower() {
	g.readFields()
	f := &g.fields[0]
	g.instant = g.l.fn["nvmlDeviceGetFieldValues"] != 0 && f.rc == nvmlSuccess && f.number() > 0
	if !g.instant {
		g.averaged = g.l.call("nvmlDeviceGetArchitecture", g.handle, addr(g.u32)) != nvmlSuccess || *g.u32 >= 7
	}
	g.info.PowerKind = sampling.PowerInstant
	if g.averaged {
		g.info.PowerKind = sampling.PowerAveraged
	}
}

// readFields asks for instantaneous power and memory temperature in one call.
func (g *nvmlGPU) readFields() bool {
	g.fields[0] = nvmlFieldValue{fieldID: nvmlFieldPowerInstant, rc: nvmlNotSupported}
	g.fields[1] = nvmlFieldValue{fieldID: nvmlFieldMemoryTemp, rc: nvmlNotSupported}
	return g.l.call("nvmlDeviceGetFieldValues", g.handle, 2, addr(g.fields)) == nvmlSuccess
}

// number is the value of a field as its type says (nvmlValueType_t).
func (f *nvmlFieldValue) number() float64 {
	p := unsafe.Pointer(&f.value)
	switch f.valueType {
	case 0:
		return *(*float64)(p)
	case 1:
		return float64(*(*uint32)(p))
	case 2, 3:
		return float64(*(*uint64)(p))
	case 4:
		return float64(*(*int64)(p))
	case 5:
		return float64(*(*int32)(p))
	case 6:
		return float64(*(*uint16)(p))
	}
	return math.NaN()
}

// read fills a sample. The code is that of the memory call, by which a lost GPU
// shows; success where this GPU has no memory of its own to tell.
func (g *nvmlGPU) read(s *runner.Sample) int {
	rc := g.readMemory(s)
	switch rc {
	case nvmlNotSupported, nvmlNoPermission, nvmlNoSymbol:
		rc = nvmlSuccess
	case nvmlGPUIsLost, nvmlResetRequired, nvmlUninitialized, nvmlDriverNotLoaded, nvmlVersionMismatch:
		return rc
	}
	if g.l.call("nvmlDeviceGetUtilizationRates", g.handle, addr(g.util)) == nvmlSuccess {
		sampling.Put(s, runner.HasUtilization, float64(g.util[0]))
		sampling.Put(s, runner.HasMemoryUtil, float64(g.util[1]))
	}
	g.figure(s, runner.HasTemperature, "nvmlDeviceGetTemperature", 0)
	g.figure(s, runner.HasClockSM, "nvmlDeviceGetClockInfo", 1)
	g.figure(s, runner.HasClockMem, "nvmlDeviceGetClockInfo", 2)
	reasons := g.l.call("nvmlDeviceGetCurrentClocksEventReasons", g.handle, addr(g.u64))
	if reasons == nvmlSuccess && *g.u64 <= math.MaxInt64 {
		s.ThrottleReasons = int64(*g.u64)
		s.Has |= runner.HasThrottleReasons
	}
	g.readPower(s)
	if len(g.counts) > 0 && len(g.parts) > 1 {
		s.Has &^= runner.HasPower // other instances share it
		s.Power = 0
	}
	return rc
}

// figure reads what a function tells of one of its kinds.
func (g *nvmlGPU) figure(s *runner.Sample, f runner.Fields, fn string, kind uintptr) {
	if g.l.call(fn, g.handle, kind, addr(g.u32)) == nvmlSuccess {
		sampling.Put(s, f, float64(*g.u32))
	}
}

func (g *nvmlGPU) readMemory(s *runner.Sample) int {
	if len(g.counts) == 0 {
		return g.memoryOf(g.handle, s)
	}
	return g.memoryOfParts(s)
}

// memoryOf reads the memory of a GPU or of a MIG instance.
func (g *nvmlGPU) memoryOf(handle uintptr, s *runner.Sample) int {
	if g.v2 {
		g.mem2.version = nvmlMemory2Version
		rc := g.l.call("nvmlDeviceGetMemoryInfo_v2", handle, addr(g.mem2))
		if rc == nvmlSuccess {
			putMemory(s, g.mem2.used, g.mem2.total)
			sampling.Put(s, runner.HasMemoryReserved, float64(g.mem2.reserved))
		}
		return rc
	}
	rc := g.l.call("nvmlDeviceGetMemoryInfo", handle, addr(g.mem1))
	if rc == nvmlSuccess {
		putMemory(s, g.mem1.used, g.mem1.total)
	}
	return rc
}

// putMemory leaves out what cannot be: more in use than there is.
func putMemory(s *runner.Sample, used, total uint64) {
	sampling.Put(s, runner.HasMemoryUsed, float64(used))
	sampling.Put(s, runner.HasMemoryTotal, float64(total))
	if !sampling.MemoryFits(s) {
		s.Has &^= runner.HasMemoryUsed
	}
}

func (g *nvmlGPU) readPower(s *runner.Sample) {
	if g.readFields() {
		if f := &g.fields[1]; f.rc == nvmlSuccess && f.number() > 0 {
			sampling.Put(s, runner.HasMemoryTemp, f.number())
		}
		if f := &g.fields[0]; g.instant && f.rc == nvmlSuccess {
			sampling.Put(s, runner.HasPower, f.number()/1000)
		}
	}
	if !g.instant && g.l.call("nvmlDeviceGetPowerUsage", g.handle, addr(g.u32)) == nvmlSuccess {
		sampling.Put(s, runner.HasPower, float64(*g.u32)/1000)
	}
}

// readEnergy is the counter in J; it costs milliseconds and changes every
// 100 ms (measured on H100).
func (g *nvmlGPU) readEnergy() (float64, bool) {
	if g.l.call("nvmlDeviceGetTotalEnergyConsumption", g.handle, addr(g.energy)) != nvmlSuccess {
		return 0, false
	}
	return float64(*g.energy) / 1000, true
}

// processes lists the compute processes of a GPU or of a MIG instance. The list
// is good until the next call.
func (g *nvmlGPU) processes(handle uintptr) ([]nvmlProcess, bool) {
	*g.count = nvmlMaxProcesses
	if g.l.call("nvmlDeviceGetComputeRunningProcesses_v3", handle, addr(g.count), addr(g.procs)) != nvmlSuccess {
		return nil, false
	}
	return g.procs[:min(*g.count, nvmlMaxProcesses)], true
}

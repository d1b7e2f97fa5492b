package runner

import "time"

// HostGPU is the GPU index of a sample that is about the host alone.
const HostGPU = -1

// A Sample is one reading of one GPU (or of the host, GPU == HostGPU) at one
// tick. A figure counts only if Has holds its Field: missing is never 0. It has
// no pointers, so that a tick allocates nothing.
type Sample struct {
	TS     time.Time     // UTC, from the wall clock at the start plus Offset: a clock that jumps does not move it
	Offset time.Duration // since Job.StartedAt, monotonic
	Read   time.Duration // how long the reading took
	GPU    int32
	Has    Fields
	Gap    bool   // one or more ticks before this one are missing
	Source string // "nvidia-smi", "nvml", "amdgpu-sysfs", "proc", "simulated", ...

	MemoryUsed      int64   // bytes in use, without the driver's reserve
	MemoryReserved  int64   // bytes that the driver keeps
	MemoryTotal     int64   // bytes
	ProcessMemory   int64   // bytes, sum over the run's own processes on this GPU
	HostRSS         int64   // bytes, resident, process tree
	HostPSS         int64   // bytes, proportional, process tree
	Power           float64 // W
	Temperature     float64 // °C
	MemoryTemp      float64 // °C
	Energy          float64 // J, a counter
	HostCPU         float64 // per cent of one core
	Utilization     int32   // per cent
	MemoryUtil      int32   // per cent
	ClockSM         int32   // MHz
	ClockMem        int32   // MHz
	ThrottleReasons int64   // NVML's bit mask (clocks_event_reasons.active)
}

// Fields is a set of figures of a Sample.
type Fields uint32

// The figures.
const (
	HasMemoryUsed Fields = 1 << iota
	HasMemoryReserved
	HasMemoryTotal
	HasProcessMemory
	HasHostRSS
	HasHostPSS
	HasPower
	HasTemperature
	HasMemoryTemp
	HasEnergy
	HasHostCPU
	HasUtilization
	HasMemoryUtil
	HasClockSM
	HasClockMem
	HasThrottleReasons
)

// A SamplerReport is what a sampler says of itself.
type SamplerReport struct {
	Name       string            `json:"name"`
	IntervalMS IntervalMS        `json:"interval_ms"`
	Ticks      int64             `json:"ticks"`
	Missed     int64             `json:"missed"`
	CPUSeconds *float64          `json:"cpu_s"`                // vramsweep's own cost of sampling
	ToolCPU    *float64          `json:"tool_cpu_s"`           // the cost of the tool that it started
	PowerKind  string            `json:"power_kind,omitempty"` // "instant" or "averaged_1s"
	Missing    map[string]string `json:"missing,omitempty"`    // figure: why it is null
	Gaps       []Gap             `json:"gaps,omitempty"`
	Notes      []string          `json:"notes,omitempty"` // which source failed, what replaced it
}

// IntervalMS compares the interval that was asked for with the real one.
type IntervalMS struct {
	Asked float64  `json:"asked"`
	P50   *float64 `json:"p50"`
	P99   *float64 `json:"p99"`
}

// A Gap is a stretch without samples.
type Gap struct {
	GPU    int       `json:"gpu_index"`
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Reason string    `json:"reason"`
}

// A Device is a GPU as the driver tells it.
type Device struct {
	Index         int    `json:"index"`  // the driver's own (PCI bus order)
	Vendor        string `json:"vendor"` // "nvidia", "amd", "simulated"
	Name          string `json:"name"`
	UUID          string `json:"uuid,omitempty"`
	PCIBusID      string `json:"pci_bus_id,omitempty"`
	DriverVersion string `json:"driver_version,omitempty"`
	TotalBytes    *int64 `json:"total_bytes"`
	ReservedBytes *int64 `json:"reserved_bytes"`
	UsedBytes     *int64 `json:"used_bytes"`
	MIG           bool   `json:"mig,omitempty"`    // a GPU in MIG mode, or a part of one
	Parent        string `json:"parent,omitempty"` // of a part: UUID, else bus id, of its GPU, whose Index it shares
	ComputeIndex  *int   `json:"compute_index"`    // AMD: the place in HIP's order, which is KFD's; nil: not reported
	Source        string `json:"source"`           // the tool that reported it
}

// A Process holds GPU memory, or was started by a run.
type Process struct {
	PID         int    `json:"pid"`
	Name        string `json:"name"`
	GPUIndex    *int   `json:"gpu_index"`
	MemoryBytes *int64 `json:"memory_bytes"`
	Ours        bool   `json:"ours"`
	Note        string `json:"note,omitempty"` // e.g. "left the process group; ended with SIGKILL"
}

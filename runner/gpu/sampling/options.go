package sampling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// The names of the sources, as they stand in samples, reports and Options.
const (
	SourceNvidiaSMI = "nvidia-smi"
	SourceNVML      = "nvml"
	SourceAMDGPU    = "amdgpu-sysfs"
	SourceAMDSMI    = "amd-smi"
	SourceROCmSMI   = "rocm-smi"
	SourceProc      = "proc"
	SourceMeminfo   = "meminfo" // of GPUs that share the host's memory
)

// The bounds of an interval: what a sweep may ask for.
const (
	MinInterval     = 10 * time.Millisecond
	MaxInterval     = 10 * time.Second
	DefaultInterval = 100 * time.Millisecond
)

// A StartFunc starts a program; proc.Start is the one of the product.
type StartFunc func(ctx context.Context, spec proc.Spec) (proc.Process, error)

// Options say where a machine's instruments are. The zero value of a field
// means the usual place, except Env and Helper.
type Options struct {
	Env   []string  // environment of the tools, and where PATH is looked up
	Start StartFunc // nil: proc.Start

	Proc string // "/proc"
	Sys  string // "/sys"
	Dev  string // "/dev"

	NvidiaSMI string // "nvidia-smi"
	AMDSMI    string // "amd-smi"
	ROCmSMI   string // "rocm-smi"

	// Helper is the command line that ends in NVMLHelperMain: the same binary
	// with a hidden argument. Empty: NVML is not used.
	Helper      []string
	NVMLLibrary string // "libnvidia-ml.so.1"

	// Sources names the sources that may be used, the first choice first. nil:
	// DefaultSources. A source that is not named is not used.
	Sources []string

	// ToolTimeout bounds one call of a tool; default 30 s, as a tool that
	// initialises eight GPUs without persistence mode takes its time.
	ToolTimeout time.Duration
}

// DefaultSources is the order in which sources are tried. NVML stands before
// nvidia-smi because of a side-by-side measurement on an H100 at 10 ms
// (docs/measured): interval p50 10.2 and p99 10.5 ms against 11.1 and 20.0, 2 %
// of the ticks missed against 4 %, 2.5 % of a core for the helper against 11 %
// for the tool, the same memory to the byte, and an energy counter.
func DefaultSources() []string {
	return []string{SourceNVML, SourceNvidiaSMI, SourceAMDGPU, SourceAMDSMI, SourceROCmSMI}
}

// WithDefaults fills in the usual places.
func (o Options) WithDefaults() Options {
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	set(&o.Proc, "/proc")
	set(&o.Sys, "/sys")
	set(&o.Dev, "/dev")
	set(&o.NvidiaSMI, "nvidia-smi")
	set(&o.AMDSMI, "amd-smi")
	set(&o.ROCmSMI, "rocm-smi")
	set(&o.NVMLLibrary, "libnvidia-ml.so.1")
	if o.Sources == nil {
		o.Sources = DefaultSources()
	}
	if o.ToolTimeout <= 0 {
		o.ToolTimeout = 30 * time.Second
	}
	return o
}

// Kinds of power figures, as SamplerReport.PowerKind says them.
const (
	PowerInstant  = "instant"
	PowerAveraged = "averaged_1s"
)

// WorstKind joins the kinds of several sources: averaged wins, since what is
// worked out from instantaneous power must not be from averaged.
func WorstKind(a, b string) string {
	if a == PowerAveraged || b == "" {
		return a
	}
	return b
}

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

	Err     error `json:"-"` // the reason of one that does not work; nil: it answered
	Standby bool  `json:"-"` // not tried, but worth a try where the source in use fails
}

// ErrAbsent says that a tool is not installed.
var ErrAbsent = errors.New("is not on the PATH")

// Failed is the status of a source that does not work.
func Failed(err error) SourceStatus { return SourceStatus{Reason: err.Error(), Err: err} }

// TellsMemory reports whether the memory in use of a GPU comes from the source.
func (s *SourceStatus) TellsMemory() bool {
	return s.Works && slices.Contains(s.Reads, FieldName(runner.HasMemoryUsed))
}

// Why figures of a MIG instance are missing.
const (
	MIGPower  = "power is that of the whole GPU, which other MIG instances share"
	MIGMemory = "a MIG instance is in use: its memory is reported by NVML only"
)

// A Run is what the samplers of one run need to know.
type Run struct {
	Interval time.Duration // MinInterval to MaxInterval; 0: DefaultInterval
	GPUs     []int         // driver's indices to sample; nil: all
	Epoch    time.Time     // offsets count from here, with its monotonic reading (Job.StartedAt)

	// Parts are the UUIDs of MIG instances whose figures count instead of their
	// GPU's; nil: those that the environment's mask leaves.
	Parts []string

	// PIDs lists the root processes of the run; it may be empty until the
	// engine has started. nil: the run's own processes are not told apart.
	PIDs func() []int
}

// Check fills in the defaults and refuses an interval that cannot be kept.
func (r Run) Check() (Run, error) {
	if r.Interval == 0 {
		r.Interval = DefaultInterval
	}
	if r.Interval < MinInterval || r.Interval > MaxInterval {
		return r, fmt.Errorf("sampling interval %v: want %v to %v", r.Interval, MinInterval, MaxInterval)
	}
	if r.Epoch.IsZero() {
		r.Epoch = time.Now()
	}
	return r, nil
}

// Wants reports whether the run uses a GPU.
func (r Run) Wants(gpu int) bool { return r.GPUs == nil || slices.Contains(r.GPUs, gpu) }

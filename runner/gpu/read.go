package gpu

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// A Reading is what one output of a vendor's tool says, whatever its format.
type Reading struct {
	Tool      string // "nvidia-smi", "amd-smi", "rocm-smi", "kfd", "amdgpu-sysfs"
	Format    string // "query-gpu csv", "xml", "json", ...
	Version   string // of the tool
	Driver    string
	GPUs      []DeviceReading
	Processes []ProcessReading
	Fields    []string // a field list: what can be asked for
	Documents int      // watch mode: how many readings the output held; GPUs are the last one's
}

// A DeviceReading is one GPU of a Reading. A figure that the tool does not tell is
// not in Values; Missing has the reason in the tool's own words.
type DeviceReading struct {
	Index    int // as the tool counts; -1: not told
	Name     string
	UUID     string
	BusID    string
	Card     string // rocm-smi's and sysfs's name, "card0"
	Values   map[Quantity]float64
	Missing  map[Quantity]string
	Texts    map[string]string // further facts: "pstate", "mig_mode", "gfx", "partition"
	Throttle []string          // active throttle reasons, where they are told by name
	MIG      []MIGReading

	// Processes is nil where the output does not tell processes, empty where it
	// says that there are none.
	Processes []ProcessReading
}

// A MIGReading is one part of a GPU in MIG mode.
type MIGReading struct {
	UUID    string
	Profile string // "1g.18gb"
	Device  int
	GI, CI  int
	Total   *int64 // bytes
	Used    *int64
	Reserve *int64
	Free    *int64

	Processes []ProcessReading // nil: not told
}

// A ProcessReading is a process that holds GPU memory.
type ProcessReading struct {
	GPU   int // index; -1: only BusID is told
	BusID string
	UUID  string
	PID   int
	Name  string
	Bytes *int64 // nil: not told
}

// A Quantity is a figure in its base unit: bytes, W, °C, %, MHz, J.
type Quantity string

// The quantities.
const (
	QMemoryUsed     Quantity = "memory_used_bytes"
	QMemoryFree     Quantity = "memory_free_bytes"
	QMemoryTotal    Quantity = "memory_total_bytes"
	QMemoryReserved Quantity = "memory_reserved_bytes"
	QMemoryPercent  Quantity = "memory_used_pct"
	QGTTUsed        Quantity = "gtt_used_bytes"
	QPower          Quantity = "power_w"         // the tool's one figure; what it means depends on the tool
	QPowerInstant   Quantity = "power_instant_w" // told as instantaneous
	QPowerAverage   Quantity = "power_average_w" // told as averaged
	QPowerCap       Quantity = "power_cap_w"
	QPowerMax       Quantity = "power_max_w"
	QTempEdge       Quantity = "temp_edge_c"
	QTempHotspot    Quantity = "temp_hotspot_c" // NVIDIA: temperature.gpu
	QTempMemory     Quantity = "temp_memory_c"
	QTempLimit      Quantity = "temp_margin_c" // T.Limit: how far below the limit
	QUtilGPU        Quantity = "utilization_pct"
	QUtilMemory     Quantity = "memory_utilization_pct"
	QClockSM        Quantity = "clock_sm_mhz"
	QClockMemory    Quantity = "clock_mem_mhz"
	QThrottleMask   Quantity = "throttle_mask"
	QECCCorrected   Quantity = "ecc_corrected"
	QECCUncorrected Quantity = "ecc_uncorrected"
	QEnergy         Quantity = "energy_j"
	QPowerViolation Quantity = "power_violation_pct"
	QTempViolation  Quantity = "temp_violation_pct"
	QComputeUnits   Quantity = "compute_units"
	QPCIeBandwidth  Quantity = "pcie_mbit_s"
)

// ErrNoReading is for text in which no known output is found.
var ErrNoReading = errors.New("no output of nvidia-smi, amd-smi or rocm-smi is in it")

// A ToolError is an error that a tool printed where a reading was expected,
// maybe with exit code 0.
type ToolError struct {
	Tool    string
	Message string
	Code    int
}

func (e *ToolError) Error() string {
	if e.Code != 0 {
		return fmt.Sprintf("%s says: %s (code %d)", e.Tool, e.Message, e.Code)
	}
	return fmt.Sprintf("%s says: %s", e.Tool, e.Message)
}

func newDeviceReading(index int) DeviceReading {
	return DeviceReading{Index: index, Values: map[Quantity]float64{}, Missing: map[Quantity]string{}, Texts: map[string]string{}}
}

// value is a figure or nil.
func (g *DeviceReading) value(q Quantity) *float64 {
	if v, ok := g.Values[q]; ok {
		return &v
	}
	return nil
}

// bytesOf is a memory figure or nil.
func (g *DeviceReading) bytesOf(q Quantity) *int64 {
	if v, ok := g.Values[q]; ok {
		n := int64(v)
		return &n
	}
	return nil
}

// setText parses a cell "71.24 W", "0 %", "[N/A]" and keeps the figure or the
// reason. unit is used where the cell has none.
func (g *DeviceReading) setText(q Quantity, d dimension, cell, unit string) {
	v, own, ok := parseDecimal([]byte(cell))
	if !ok {
		g.Missing[q] = reasonOf(cell)
		return
	}
	if len(own) > 0 {
		unit = string(own)
	}
	f := 1.0
	if unit != "" || d == dimNone && len(own) > 0 {
		if f, ok = unitFactor(d, []byte(unit)); !ok {
			g.Missing[q] = fmt.Sprintf("unknown unit in %q", cell)
			return
		}
	}
	g.Values[q] = v * f
	delete(g.Missing, q)
}

// reasonOf is the tool's own word for a missing value.
func reasonOf(cell string) string {
	cell = strings.TrimSpace(cell)
	if cell == "" {
		return "empty"
	}
	return clip(cell, 100)
}

// Read recognises an output of nvidia-smi (csv, xml, -q, -L, dmon, pmon, the
// table, field help), amd-smi (JSON, CSV and tables of ROCm 6.0 to 10) or
// rocm-smi (JSON, text, concise table), or a dump of sysfs files, and reads it.
// An error that the tool printed instead is a *ToolError.
func Read(data []byte) (*Reading, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for _, f := range readers() {
		if f.is(data) {
			return f.read(data)
		}
	}
	if err := smiError(data); err != nil {
		return nil, err
	}
	if t := strings.TrimSpace(string(data)); t != "" && len(t) < 2000 {
		return nil, fmt.Errorf("%w: %q", ErrNoReading, clip(t, 200))
	}
	return nil, ErrNoReading
}

// A reader knows one format.
type reader struct {
	is   func([]byte) bool
	read func([]byte) (*Reading, error)
}

// readers are tried in order: the ones with an unmistakable mark first.
func readers() []reader {
	has := func(marks ...string) func([]byte) bool {
		return func(b []byte) bool {
			for _, m := range marks {
				if bytes.Contains(b, []byte(m)) {
					return true
				}
			}
			return false
		}
	}
	starts := func(mark string) func([]byte) bool {
		return func(b []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(b), []byte(mark)) }
	}
	return []reader{
		{has("<nvidia_smi_log>"), readSMIXML},
		{has("==NVSMI LOG=="), readSMIText},
		{has("| NVIDIA-SMI "), readSMITable},
		{starts("NVIDIA-SMI version"), readSMIVersion},
		{has("List of valid properties to query"), readSMIHelp},
		{isSMIPmon, readSMIPmon},
		{isSMIDmon, readSMIDmon},
		{isSMIList, readSMIList},
		{isSMIApps, readSMIApps},
		{isSMICSV, readSMICSV},
		{has("ROCm System Management Interface"), readROCmText},
		{isROCmJSON, readROCmJSON},
		{has("AMDSMI Tool:"), readAMDVersion},
		{has("==> nodes/"), readKFDDump},
		{has("==> mem_info_vram_used <=="), readSysfsDump},
		{isAMDTable, readAMDTable},
		{isAMDCSV, readAMDCSV},
		{isAMDJSON, readAMDJSON},
	}
}

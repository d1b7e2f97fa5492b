package sampling

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// A Reading is what one full look at the GPUs found.
type Reading struct {
	Tool   string `json:"tool"` // by which source
	Driver string `json:"driver"`
	GPUs   []GPU  `json:"gpus"`
}

// A GPU is one GPU of a Reading, or a part of one (a MIG instance). Sample holds
// its figures; for one that is not in Sample.Has, Missing may have the reason in
// the tool's own words.
type GPU struct {
	Index     int               `json:"index"`
	Name      string            `json:"name"` // of a part: its profile, "1g.18gb"
	UUID      string            `json:"uuid"`
	BusID     string            `json:"bus_id"`
	Sample    runner.Sample     `json:"sample"`
	PowerKind string            `json:"power_kind"`
	Reserve   bool              `json:"reserve"` // the driver's reserve counts as used
	ECC       *int64            `json:"ecc"`     // uncorrected errors since the driver was loaded
	Texts     map[string]string `json:"texts"`   // "mig_mode", "persistence_mode", "compute_mode", ...
	Missing   map[string]string `json:"missing"` // by FieldName, or "processes"
	Lost      string            `json:"lost,omitempty"`
	Parts     []GPU             `json:"parts"`
	// Processes is nil where they are not told, empty where there are none.
	Processes []Process `json:"processes"`
}

// TextMemory is the text of a GPU that says what its memory figures are, where
// they are not those of a memory of its own.
const TextMemory = "memory"

// A Process holds GPU memory.
type Process struct {
	PID   int    `json:"pid"`
	Name  string `json:"name"`
	Bytes *int64 `json:"bytes"` // nil: not reported
}

// NewGPU is a GPU of which nothing is known yet.
func NewGPU(index int) GPU {
	return GPU{Index: index, Texts: map[string]string{}, Missing: map[string]string{}}
}

// Has reports whether all of the figures are told.
func (g *GPU) Has(f runner.Fields) bool { return g.Sample.Has&f == f }

// Lacks keeps why a figure is not reported.
func (g *GPU) Lacks(f runner.Fields, why string) { g.Missing[FieldName(f)] = Clip(why, 100) }

// Memory is what is in use of a GPU, all of it, and the driver's reserve; nil
// where it is not reported.
func (g *GPU) Memory() (used, total, reserved *int64) {
	tell := func(f runner.Fields, v int64) *int64 {
		if !g.Has(f) {
			return nil
		}
		return &v
	}
	return tell(runner.HasMemoryUsed, g.Sample.MemoryUsed), tell(runner.HasMemoryTotal, g.Sample.MemoryTotal),
		tell(runner.HasMemoryReserved, g.Sample.MemoryReserved)
}

// Status is what the source of a reading can do: what any of the GPUs tells, and
// also. One that is lost, or does not report its memory, says nothing of the others.
func (r *Reading) Status(also runner.Fields) SourceStatus {
	var told runner.Fields
	kind, why := "", ""
	for i := range r.GPUs {
		g := &r.GPUs[i]
		told |= g.Sample.Has
		if g.Processes != nil {
			also |= runner.HasProcessMemory
		}
		kind = WorstKind(kind, g.PowerKind)
		if reason := g.MemoryMissing(); reason != "" && why == "" {
			why = fmt.Sprintf("GPU %d does not report its memory in use: %s", g.Index, reason)
		}
	}
	if kind == "" {
		kind = PowerAveraged
	}
	return SourceStatus{
		Works: told != 0, Tool: r.Driver, Reads: FieldNames(told | also), Power: kind, Reason: why,
	}
}

// MemoryMissing is why the memory in use is not reported; "" where it is.
func (g *GPU) MemoryMissing() string {
	if g.Has(runner.HasMemoryUsed) {
		return ""
	}
	return cmp.Or(g.Missing[FieldName(runner.HasMemoryUsed)], g.Lost, "no reason is given")
}

// Absent reports a token that stands for a missing value.
func Absent(cell string) bool {
	return cell == "" || cell == "N/A" || cell == "-" || strings.HasPrefix(cell, "[") || strings.HasPrefix(cell, "ERR!") ||
		cell == "Requested functionality has been deprecated" || strings.HasPrefix(cell, "Unknown Error")
}

// BusKey is a PCI bus id in the short form of the kernel, in lower case: tools
// print the domain with four or eight digits.
func BusKey(id string) string {
	id = strings.ToLower(id)
	if at := strings.IndexByte(id, ':'); at > 4 {
		id = id[at-4:]
	}
	return id
}

// DeviceKey identifies a device: its UUID, or its bus id where it has none.
func DeviceKey(d runner.Device) string {
	if d.UUID != "" {
		return d.UUID
	}
	return d.PCIBusID
}

// ReadText is what a small file holds; "" where it cannot be read.
func ReadText(elem ...string) string {
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Exists reports whether a file is there.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

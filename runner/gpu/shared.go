package gpu

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/host"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// sharedRE matches NVIDIA's GPUs that have no memory of their own: DGX Spark and
// the Jetsons. Their driver tells none.
var sharedRE = regexp.MustCompile(`(?i)\b(GB10|Tegra|Jetson|Xavier|Orin|Thor|nvgpu)\b`)

// findShared gives GPUs that share the host's memory, and whose driver tells
// none, the host's.
func (m *Machine) findShared() {
	for i := range m.devices {
		d := &m.devices[i]
		if d.Vendor != "nvidia" || d.TotalBytes != nil || !sharedRE.MatchString(d.Name) {
			continue
		}
		total, _, err := host.Memory(m.o.Proc)
		if err != nil {
			continue // the driver's own reason stands
		}
		d.TotalBytes = &total
		d.Source += " and /proc/meminfo"
		m.shared = append(m.shared, d.Index)
	}
}

// hostMemory gives a device that shares the host's memory what is in use of it.
func (m *Machine) hostMemory(d *runner.Device) {
	if total, available, err := host.Memory(m.o.Proc); err == nil {
		used := total - available
		d.UsedBytes = &used
	}
}

// MemoryNotes says of which GPUs the memory is not reported, and why, and of which it
// is not that of a memory of their own.
func (m *Machine) MemoryNotes() []string {
	var notes []string
	for _, d := range whole(m.devices) {
		g := m.firstOf(d.Index)
		switch {
		case slices.Contains(m.shared, d.Index):
			notes = append(notes, fmt.Sprintf("GPU %d: memory is %s", d.Index, host.SharedText))
		case g == nil:
		case g.MemoryMissing() != "":
			notes = append(notes, fmt.Sprintf("GPU %d: the memory in use is not reported: %s", d.Index, g.MemoryMissing()))
		}
		if g != nil && g.Texts[sampling.TextMemory] != "" {
			notes = append(notes, fmt.Sprintf("GPU %d: memory is %s", d.Index, g.Texts[sampling.TextMemory]))
		}
	}
	return notes
}

// firstOf is the full reading of a GPU at the start; nil where there is none.
func (m *Machine) firstOf(index int) *sampling.GPU {
	for _, vendor := range vendors() {
		list := m.vendors[vendor].First()
		for i := range list {
			if list[i].Index == index && slices.Contains(m.indices(vendor, Run{}), index) {
				return &list[i]
			}
		}
	}
	return nil
}

// Unread is why it cannot be said that this machine has no GPU, although none can
// be read: a tool that neither answers nor ends, a driver or device files with no
// source that works. nil where GPUs were found, where nothing speaks for one, and
// where CUDA_VISIBLE_DEVICES hides all.
func (m *Machine) Unread() error {
	mask, set := sampling.EnvValue(m.o.Env, "CUDA_VISIBLE_DEVICES")
	if len(m.devices) > 0 || set && (mask == "" || mask == "-1") {
		return nil
	}
	var reasons []string
	hung, there := false, m.nvidiaThere()
	for _, st := range m.sources {
		hangs := errors.Is(st.Err, sampling.ErrHung)
		hung = hung || hangs
		if vendorOf(st.Name) == "nvidia" || hangs {
			reasons = append(reasons, st.Name+": "+st.Reason)
		}
	}
	if !hung && (there == "" || len(reasons) == 0) {
		return nil
	}
	return fmt.Errorf("a GPU is expected (%s), and no source reads it: %s; expected one that answers. "+
		"Run vramsweep doctor; for a machine that shall count as one without a GPU set CUDA_VISIBLE_DEVICES to nothing",
		cmp.Or(there, "a GPU tool is installed and hangs"), strings.Join(reasons, "; "))
}

// nvidiaThere is what speaks for an NVIDIA GPU: device files, or a driver whose
// tool is installed (in a container without GPUs the host's driver can be seen as
// well).
func (m *Machine) nvidiaThere() string {
	for _, pattern := range []string{"nvidia[0-9]*", "nvhost-gpu", "nvgpu"} {
		if files, _ := filepath.Glob(filepath.Join(m.o.Dev, pattern)); len(files) > 0 {
			return "the device file " + files[0]
		}
	}
	version := filepath.Join(m.o.Proc, "driver", "nvidia", "version")
	installed := slices.ContainsFunc(m.sources, func(st SourceStatus) bool {
		return vendorOf(st.Name) == "nvidia" &&
			!errors.Is(st.Err, sampling.ErrAbsent) && !errors.Is(st.Err, sampling.ErrNoHelper) &&
			!strings.Contains(st.Reason, "cannot be loaded")
	})
	if sampling.Exists(version) && installed {
		return "the driver in " + version
	}
	return ""
}

package gpu

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/amd"
	"github.com/vramsweep/vramsweep/runner/gpu/host"
	"github.com/vramsweep/vramsweep/runner/gpu/nvidia"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// A vendor is what a Machine knows of the GPUs of one vendor.
type vendor interface {
	// Try finds out what a source can do; with all also where another one serves.
	// The devices are those that it is the first to tell; first is the number of
	// the devices before them.
	Try(ctx context.Context, source string, all bool, first int) (SourceStatus, []runner.Device)
	// Source makes a source of samples of a run.
	Source(name string, r Run, t *sampling.Tree) sampling.Source
	// Read reads the wanted GPUs, or more, in full.
	Read(ctx context.Context, want []int) (*sampling.Reading, error)
	// First is the full reading of the start.
	First() []sampling.GPU
	Close()
}

// A Machine is what Detect found. It makes the samplers of each run and is the
// runner.Inspector. It is safe for use by several goroutines.
type Machine struct {
	o       Options
	devices []runner.Device
	sources []SourceStatus
	vendors map[string]vendor
	masked  masked
	shared  []int // GPUs whose memory is the host's
}

// vendors are in the order of samplers and readings.
func vendors() []string { return []string{"nvidia", "amd"} }

func vendorOf(source string) string {
	if source == sampling.SourceNvidiaSMI || source == sampling.SourceNVML {
		return "nvidia"
	}
	return "amd"
}

// Detect finds the GPUs and tries the sources in the order of o.Sources. It
// never fails: a machine without a GPU is a Machine without Devices, Sources says
// why, and Unread whether that can be believed. With all, sources are tried that would not be used.
func Detect(ctx context.Context, o Options, all bool) *Machine {
	o = o.WithDefaults()
	m := &Machine{o: o, vendors: map[string]vendor{"nvidia": nvidia.New(o), "amd": amd.New(o)}}
	for _, name := range o.Sources {
		began := time.Now()
		st := SourceStatus{Reason: "there is no source of this name; known: " + strings.Join(sampling.DefaultSources(), ", ")}
		if slices.Contains(sampling.DefaultSources(), name) {
			var found []runner.Device
			st, found = m.vendors[vendorOf(name)].Try(ctx, name, all, len(m.devices))
			m.devices = append(m.devices, found...)
		}
		st.Name, st.TookMS = name, sampling.MS(time.Since(began))
		m.sources = append(m.sources, st)
	}
	m.choose()
	m.findShared()
	m.masked.Machine = m
	return m
}

// choose marks the source of each vendor that is used: the first that tells
// memory, else the first that works.
func (m *Machine) choose() {
	for _, vendor := range vendors() {
		used := -1
		for i := range m.sources {
			st := &m.sources[i]
			if vendorOf(st.Name) == vendor && st.Works && (used < 0 || st.TellsMemory() && !m.sources[used].TellsMemory()) {
				used = i
			}
		}
		for i := range m.sources {
			if st := &m.sources[i]; i == used {
				st.Used = true
			} else if vendorOf(st.Name) == vendor && st.Works {
				st.Reason = m.sources[used].Name + " serves; this one stands in where that fails"
			}
		}
	}
}

// Close ends the helper child that full readings go through. The machine may be
// used on: the next reading starts another one.
func (m *Machine) Close() {
	for _, v := range m.vendors {
		v.Close()
	}
}

// Sources says of every source whether it serves, and why not.
func (m *Machine) Sources() []SourceStatus { return slices.Clone(m.sources) }

// Found lists the devices as Detect found them, without reading anew.
func (m *Machine) Found() []runner.Device { return slices.Clone(m.devices) }

// hostEvery is how often the run's processes are read beside GPUs; on a machine
// without one they are what is sampled, at the interval asked.
const hostEvery = 100 * time.Millisecond

// Samplers makes the samplers of a run: one for the GPUs, where there are any,
// and one for the host's side of the run's processes.
func (m *Machine) Samplers(r Run) ([]runner.Sampler, error) {
	r, err := r.Check()
	if err != nil {
		return nil, err
	}
	if r.Parts == nil {
		r.Parts = m.partsInUse(r.GPUs)
	}
	t := sampling.NewTree(r.PIDs)
	var out []runner.Sampler
	for _, vendor := range vendors() {
		if sources := m.sourcesOf(vendor, r, t); len(sources) > 0 {
			out = append(out, sampling.NewSampler(r, sources))
		}
	}
	var shared []int
	for _, index := range m.shared {
		if r.Wants(index) {
			shared = append(shared, index)
		}
	}
	if len(shared) > 0 {
		out = append(out, sampling.NewSampler(r, []sampling.Source{host.NewMeminfo(m.o.Proc, r, shared)}))
	}
	if r.PIDs != nil {
		if len(out) > 0 { // the host's side is of less interest than the GPUs
			r.Interval = max(r.Interval, hostEvery)
		}
		out = append(out, sampling.NewSampler(r, []sampling.Source{host.New(m.o.Proc, r, t)}))
	}
	return out, nil
}

// sourcesOf lists the sources of a vendor whose GPUs the run uses, the first
// choice first.
func (m *Machine) sourcesOf(vendor string, r Run, t *sampling.Tree) []sampling.Source {
	if len(m.indices(vendor, r)) == 0 {
		return nil
	}
	var out []sampling.Source
	for _, st := range m.sources {
		if (st.Works || st.Standby) && vendorOf(st.Name) == vendor {
			source := m.vendors[vendor].Source(st.Name, r, t)
			if st.Used {
				out = append([]sampling.Source{source}, out...)
			} else {
				out = append(out, source)
			}
		}
	}
	return out
}

// indices lists the GPUs of a vendor that a run uses.
func (m *Machine) indices(vendor string, r Run) []int {
	var out []int
	for _, d := range m.devices {
		if d.Vendor == vendor && d.Parent == "" && r.Wants(d.Index) {
			out = append(out, d.Index)
		}
	}
	return out
}

// Devices implements runner.Inspector: the GPUs with their memory as it is now. An
// error says that they cannot be read, or that it cannot be said that there is none.
func (m *Machine) Devices(ctx context.Context) ([]runner.Device, error) {
	out := slices.Clone(m.devices)
	if len(out) == 0 {
		return out, m.Unread()
	}
	readings, _, err := m.readings(ctx, nil)
	if err != nil {
		return out, err
	}
	for i := range out {
		if out[i].UsedBytes = usedNow(&out[i], readings); slices.Contains(m.shared, out[i].Index) {
			m.hostMemory(&out[i])
		}
	}
	return out, nil
}

// usedNow is what is in use of a device; nil where that is not reported.
func usedNow(d *runner.Device, readings []sampling.GPU) *int64 {
	for i := range readings {
		if readings[i].Index != d.Index {
			continue
		}
		if d.Parent == "" {
			used, _, _ := readings[i].Memory()
			return used
		}
		for _, part := range readings[i].Parts {
			if part.UUID == d.UUID {
				used, _, _ := part.Memory()
				return used
			}
		}
	}
	return nil
}

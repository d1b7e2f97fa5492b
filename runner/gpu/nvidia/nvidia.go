// Package nvidia reads NVIDIA GPUs: through NVML in a helper child process, and
// through one long-lived nvidia-smi.
package nvidia

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// GPUs are the NVIDIA GPUs of a machine and the ways to read them. It is safe
// for use by several goroutines once all sources were tried.
type GPUs struct {
	o       sampling.Options
	known   []smiDevice     // as the first source that answered tells them
	listed  []runner.Device // the same, with their MIG instances
	first   []sampling.GPU  // the full reading of the start
	answers []string        // sources that gave a full reading
	standby []string        // sources that were not tried
	serves  bool            // a source tells memory
	nvml    nvmlReader

	mu    sync.Mutex
	query smiQuery  // of full readings
	hung  time.Time // when listing processes last did not end
}

// New knows no GPU yet.
func New(o sampling.Options) *GPUs {
	v := &GPUs{o: o, query: smiQuery{o: o, cols: smiFullColumns()}}
	v.nvml.o = o
	return v
}

// Try finds out what a source can do. The first one that answers tells the
// devices. Unless all are to be tried, a further one stands by.
func (v *GPUs) Try(ctx context.Context, source string, all bool, _ int) (sampling.SourceStatus, []runner.Device) {
	var r *sampling.Reading
	var err error
	switch {
	case source == sampling.SourceNVML && len(v.o.Helper) == 0:
		err = sampling.ErrNoHelper
	case source == sampling.SourceNVML && runtime.GOOS != "linux":
		err = errors.New("NVML is read on Linux only")
	case source == sampling.SourceNvidiaSMI && !found(v.o):
		err = fmt.Errorf("%s %w", v.o.NvidiaSMI, sampling.ErrAbsent)
	case v.serves && !all:
		v.standby = append(v.standby, source)
		other := map[string]string{sampling.SourceNVML: "nvidia-smi", sampling.SourceNvidiaSMI: "NVML"}[source]
		return sampling.SourceStatus{
			Standby: true, Reason: "not tried: " + other + " serves; this one stands in where that fails",
		}, nil
	case source == sampling.SourceNVML:
		r, err = v.nvml.read(ctx)
	default:
		if r, err = v.readSMI(ctx, nil); err == nil && len(v.known) == 0 {
			v.listMIG(ctx, r.GPUs)
		}
	}
	if err != nil {
		return sampling.Failed(err), nil
	}
	if len(r.GPUs) == 0 {
		name := map[string]string{sampling.SourceNVML: "NVML", sampling.SourceNvidiaSMI: "nvidia-smi"}[source]
		return sampling.SourceStatus{Reason: name + " lists no GPU", Tool: r.Driver}, nil
	}
	return v.take(r, source)
}

func found(o sampling.Options) bool {
	_, err := proc.LookPath(o.NvidiaSMI, o.Env, "")
	return err == nil
}

// take judges a reading and takes the devices from the first one.
func (v *GPUs) take(r *sampling.Reading, source string) (sampling.SourceStatus, []runner.Device) {
	v.answers = append(v.answers, source)
	if source == sampling.SourceNvidiaSMI || v.first == nil { // nvidia-smi tells more of a GPU's health
		v.first = r.GPUs
	}
	var also runner.Fields
	if source == sampling.SourceNvidiaSMI {
		also = runner.HasProcessMemory
	}
	st := r.Status(also)
	v.serves = v.serves || st.TellsMemory()
	if len(v.known) > 0 {
		return st, nil
	}
	for i := range r.GPUs {
		g := &r.GPUs[i]
		capability, _ := strconv.ParseFloat(g.Texts["compute_cap"], 64)
		v.known = append(v.known, smiDevice{index: int32(g.Index), busID: g.BusID, computeCap: capability})
		d := deviceOf(g, r.Driver, source)
		d.MIG = g.Texts["mig_mode"] == "Enabled"
		v.listed = append(v.listed, d)
	}
	for i := range r.GPUs {
		g := &r.GPUs[i]
		// MIG instances are devices of their own: they are what
		// CUDA_VISIBLE_DEVICES names. Their index is that of the GPU.
		for j := range g.Parts {
			d := deviceOf(&g.Parts[j], r.Driver, source)
			d.Index, d.Name, d.PCIBusID, d.Parent, d.MIG = g.Index, g.Name+" MIG "+d.Name, g.BusID, g.UUID, true
			v.listed = append(v.listed, d)
		}
	}
	return st, v.listed
}

func deviceOf(g *sampling.GPU, driver, source string) runner.Device {
	d := runner.Device{
		Index: g.Index, Vendor: "nvidia", Name: g.Name, UUID: g.UUID, PCIBusID: g.BusID, DriverVersion: driver,
		Source: source,
	}
	d.UsedBytes, d.TotalBytes, d.ReservedBytes = g.Memory()
	return d
}

// Source makes a source of samples of a run.
func (v *GPUs) Source(name string, r sampling.Run, t *sampling.Tree) sampling.Source {
	if name == sampling.SourceNVML {
		return newNVMLSource(v.o, r, t, v.known)
	}
	s := newSMISource(v.o, r, v.known)
	for _, d := range v.listed {
		if d.Parent != "" && slices.Contains(r.Parts, d.UUID) {
			s.parted = append(s.parted, int32(d.Index))
		}
	}
	if r.PIDs != nil {
		s.apps = newProcessTable(t)
	}
	return s
}

// Read gives a full reading by the first source that answers: those that
// answered at the start, then those that were not tried. NVML comes last while
// it is distrusted.
func (v *GPUs) Read(ctx context.Context, want []int) (*sampling.Reading, error) {
	names := slices.Concat(v.answers, v.standby)
	if v.nvml.distrusted() {
		names = append(slices.DeleteFunc(names, func(n string) bool { return n == sampling.SourceNVML }),
			sampling.SourceNVML)
	}
	errs := []error{}
	for _, name := range names {
		read := v.nvml.read
		if name == sampling.SourceNvidiaSMI {
			read = func(ctx context.Context) (*sampling.Reading, error) { return v.readFull(ctx, v.busIDs(want)) }
		}
		r, err := read(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for i := range r.GPUs { // by bus id: an index is not what it was when a GPU is gone
			for _, d := range v.known {
				if d.busID != "" && sampling.BusKey(d.busID) == sampling.BusKey(r.GPUs[i].BusID) {
					r.GPUs[i].Index = int(d.index)
				}
			}
		}
		return r, nil
	}
	return nil, errors.Join(append(errs, errors.New("no source reads the NVIDIA GPUs"))...)
}

// busIDs restricts a call to GPUs; nil: to none.
func (v *GPUs) busIDs(want []int) []string {
	var ids []string
	for _, d := range v.known {
		if slices.Contains(want, int(d.index)) && d.busID != "" {
			ids = append(ids, d.busID)
		}
	}
	if len(ids) == len(v.known) {
		return nil
	}
	return ids
}

// First is the full reading of the start.
func (v *GPUs) First() []sampling.GPU { return v.first }

// Close ends the helper child of full readings; a further one starts another.
func (v *GPUs) Close() { v.nvml.close() }

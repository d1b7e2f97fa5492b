// Package amd reads AMD GPUs: from the sysfs files of amdgpu, in a helper child
// process, and through amd-smi and rocm-smi as slow stand-ins.
package amd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// GPUs are the AMD GPUs of a machine and the ways to read them. It is safe for
// use by several goroutines once all sources were tried.
type GPUs struct {
	o       sampling.Options
	cards   []*amdCard
	devices []runner.Device // without partitions
	serves  bool            // a source works
	first   []sampling.GPU  // the full reading of the start
	tool    string          // a slow tool that works: the first

	mu      sync.Mutex // of what follows: amd-smi's last answer
	extraAt time.Time
	extra   []sampling.GPU
}

// New knows no GPU yet.
func New(o sampling.Options) *GPUs { return &GPUs{o: o} }

// Try finds out what a source can do. The first one that works tells the
// devices, which are numbered from first on.
func (v *GPUs) Try(ctx context.Context, source string, all bool, first int) (sampling.SourceStatus, []runner.Device) {
	if source == sampling.SourceAMDGPU {
		return v.trySysfs(first)
	}
	return v.tryTool(ctx, source, all, first)
}

func (v *GPUs) trySysfs(first int) (sampling.SourceStatus, []runner.Device) {
	drm := filepath.Join(v.o.Sys, "class", "drm")
	cards, hidden := findAMD(v.o)
	if len(cards) == 0 {
		reason := "no AMD GPU in " + drm
		if hidden > 0 {
			reason = fmt.Sprintf("%d AMD GPUs are in %s, but none has its render node in %s: "+
				"they were not given to this container", hidden, v.o.Sys, filepath.Join(v.o.Dev, "dri"))
		}
		return sampling.SourceStatus{Reason: reason}, nil
	}
	v.cards, v.serves = cards, true
	var listed []runner.Device
	for _, c := range cards {
		c.index += first
		v.devices, v.first = append(v.devices, c.device()), append(v.first, c.reading())
		listed = append(listed, c.device())
		for i, p := range c.parts {
			if len(c.parts) > 1 {
				d := c.device()
				hip := c.hip + i
				d.Parent = sampling.DeviceKey(d)
				d.Name, d.UUID, d.PCIBusID = fmt.Sprintf("%s partition %d", c.name, i), "", p.bdf
				d.TotalBytes, d.ComputeIndex = nil, &hip
				listed = append(listed, d)
			}
		}
	}
	return (&sampling.Reading{GPUs: v.first, Driver: cards[0].driver}).Status(runner.HasProcessMemory), listed
}

// tryTool tries amd-smi or rocm-smi. Each call starts a Python program and takes
// a second: they are tried only where sysfs does not serve, or on request.
func (v *GPUs) tryTool(
	ctx context.Context, name string, all bool, first int,
) (sampling.SourceStatus, []runner.Device) {
	prog := toolCommand(v.o, name)[0]
	if _, err := proc.LookPath(prog, v.o.Env, ""); err != nil {
		return sampling.Failed(fmt.Errorf("%s %w", prog, sampling.ErrAbsent)), nil
	}
	if v.serves && !all {
		return sampling.SourceStatus{
			Standby: true, Reason: "not tried: another source serves; this one stands in where that fails",
		}, nil
	}
	gpus, out, err := callTool(ctx, v.o, name)
	if err != nil {
		return sampling.Failed(err), nil
	}
	st := (&sampling.Reading{GPUs: gpus}).Status(0)
	if !st.Works {
		return st, nil
	}
	st.Reason = fmt.Sprintf("a call takes %v: samples are that far apart at best", out.Took.Round(10*time.Millisecond))
	if v.tool == "" {
		v.tool = name
	}
	if v.serves {
		return st, nil
	}
	v.serves = true
	if name == sampling.SourceAMDSMI {
		v.identify(ctx, gpus)
	}
	for i := range gpus {
		g := &gpus[i]
		d := runner.Device{Index: first + i, Vendor: "amd", UUID: g.UUID, Name: g.Name, PCIBusID: g.BusID, Source: name}
		d.UsedBytes, d.TotalBytes, _ = g.Memory()
		v.devices = append(v.devices, d)
		v.first = append(v.first, *g)
	}
	return st, v.devices
}

// identify adds names, bus ids and UUIDs, which metric does not tell: from static
// (ROCm 7: in gpu_data, by section), and from list what that lacks.
func (v *GPUs) identify(ctx context.Context, gpus []sampling.GPU) {
	for _, args := range [][]string{{"static", "--asic", "--bus", "--json"}, {"list", "--json"}} {
		out, err := v.o.RunTool(ctx, append([]string{v.o.AMDSMI}, args...)...)
		if err != nil {
			continue // what is not reported stays empty
		}
		told, _ := readAMDSMI(out.Stdout)
		for i := range gpus {
			g := &gpus[i]
			if x := slices.IndexFunc(told, func(t sampling.GPU) bool { return t.Index == g.Index }); x >= 0 {
				t := &told[x]
				g.Name, g.BusID, g.UUID = cmp.Or(g.Name, t.Name), cmp.Or(g.BusID, t.BusID), cmp.Or(g.UUID, t.UUID)
			}
		}
	}
}

// Source makes a source of samples of a run.
func (v *GPUs) Source(name string, r sampling.Run, t *sampling.Tree) sampling.Source {
	if name == sampling.SourceAMDGPU {
		return newAMDSource(v.o, r, v.cards, t)
	}
	return &slowSource{o: v.o, r: r, tool: name, devices: v.devices, first: v.first}
}

// Read gives a full reading: sysfs and KFD, which cost nothing, and amd-smi for
// what they lack; else whichever slow tool served at the start.
func (v *GPUs) Read(ctx context.Context, want []int) (*sampling.Reading, error) {
	switch {
	case len(v.cards) > 0:
		return v.readSysfs(ctx, want), nil
	case v.tool == "":
		return nil, errors.New("no source reads the AMD GPUs")
	}
	gpus, _, err := callTool(ctx, v.o, v.tool)
	if err != nil {
		return nil, err
	}
	for i := range gpus {
		if d := place(v.devices, &gpus[i], i); d != nil {
			gpus[i].Index = d.Index
		}
	}
	return &sampling.Reading{Tool: v.tool, GPUs: gpus}, nil
}

func (v *GPUs) readSysfs(ctx context.Context, want []int) *sampling.Reading {
	r := &sampling.Reading{Tool: sampling.SourceAMDGPU}
	procs := kfdProcesses(v.o)
	for _, c := range v.cards {
		if !slices.Contains(want, c.index) {
			continue
		}
		g := c.reading()
		if procs != nil {
			g.Processes = []sampling.Process{}
			for _, p := range procs {
				if slices.ContainsFunc(c.parts, func(n kfdNode) bool { return n.gpuID == p.gpuID }) {
					name := sampling.ReadText(v.o.Proc, strconv.Itoa(p.pid), "comm")
					g.Processes = append(g.Processes, sampling.Process{PID: p.pid, Name: name, Bytes: &p.bytes})
				}
			}
		}
		r.GPUs = append(r.GPUs, g)
	}
	if extra := v.more(ctx); extra != nil {
		r.Tool += " and amd-smi"
		join(r.GPUs, extra)
	}
	return r
}

// amdExtraEvery bounds how often a full reading waits for amd-smi, which takes
// a second: in between sysfs alone answers.
const amdExtraEvery = 20 * time.Second

// more is what amd-smi tells, figures and processes; nil where it does not.
func (v *GPUs) more(ctx context.Context) []sampling.GPU {
	if !slices.Contains(v.o.Sources, sampling.SourceAMDSMI) {
		return nil
	}
	if _, err := proc.LookPath(v.o.AMDSMI, v.o.Env, ""); err != nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.extraAt.IsZero() && time.Since(v.extraAt) < amdExtraEvery {
		return v.extra
	}
	var procs []sampling.GPU
	var wg sync.WaitGroup
	wg.Go(func() {
		if out, err := v.o.RunTool(ctx, v.o.AMDSMI, "process", "--json"); err == nil {
			procs, _ = readAMDSMI(out.Stdout) // names alone come from it
		}
	})
	v.extra, _, _ = callTool(ctx, v.o, sampling.SourceAMDSMI)
	wg.Wait()
	v.extraAt = time.Now()
	if len(v.extra) > 0 {
		for i := range procs {
			v.extra[0].Processes = append(v.extra[0].Processes, procs[i].Processes...)
		}
	}
	return v.extra
}

// join takes what amd-smi tells and sysfs does not: by bus id, else by place.
// amd-smi 7 lists a process under every GPU with its total: its lists are taken
// only for names.
func join(gpus, extra []sampling.GPU) {
	names := map[int]string{}
	for i := range extra {
		for _, p := range extra[i].Processes {
			names[p.PID] = p.Name
		}
	}
	for i := range gpus {
		g := &gpus[i]
		for j := range g.Processes {
			if p := &g.Processes[j]; p.Name == "" {
				p.Name = names[p.PID]
			}
		}
		if x := slices.IndexFunc(extra, func(e sampling.GPU) bool { return e.Index == i }); x >= 0 {
			g.Fill(&extra[x])
		}
	}
}

// First is the full reading of the start.
func (v *GPUs) First() []sampling.GPU { return v.first }

// Close has nothing to end.
func (v *GPUs) Close() {}

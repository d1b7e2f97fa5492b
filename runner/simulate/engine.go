package simulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// An Engine runs profiles of `engine "simulator"`: it hands the vLLM engine a
// job whose command is the simulated vllm. It implements runner.Engine.
type Engine struct {
	// VLLM is the engine that runs the real thing.
	VLLM runner.Engine
	// Self starts this program as the simulated vllm: the path of the
	// executable, the hidden verb, "--". Arguments of vllm are appended.
	Self []string
	// Machines are where the profiles run.
	Machines *Machines
}

// Run runs one attempt. The result is the simulated vllm's, read as a real one.
func (e *Engine) Run(ctx context.Context, job *runner.Job) (*runner.Measurement, error) {
	simulated, err := e.Job(job)
	if err != nil {
		return nil, err
	}
	measurement, err := e.VLLM.Run(ctx, simulated)
	if err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	return measurement, nil
}

// Job is the job that the vLLM engine gets: the same, but for its command and
// environment.
func (e *Engine) Job(job *runner.Job) (*runner.Job, error) {
	return e.job(job, func(*Config, *sweep.Profile) {})
}

// samplesOfFailure is for how many sampling intervals a run that fails holds what it
// held, so that at least two samples show it.
const samplesOfFailure = 3

// job is Job with a last word on the settings and the wrapped profile.
func (e *Engine) job(job *runner.Job, last func(*Config, *sweep.Profile)) (*runner.Job, error) {
	device, err := e.Machines.Of(job.Profile)
	if err != nil {
		return nil, err
	}
	c, err := configFor(job.Profile, job.Repeat, device.GPU)
	if err != nil {
		return nil, err
	}
	c.Reexec, c.StateDir, c.GPUCount = e.Self, device.Dir, device.Count
	for _, d := range job.Devices {
		c.GPUs = append(c.GPUs, d.Index)
	}
	wrapped := wrap(job.Profile, e.Self, c)
	if job.Sweep != nil {
		c.Stay = samplesOfFailure * job.Sweep.Sample.Interval
	}
	last(c, wrapped)
	entry, err := c.environment()
	if err != nil {
		return nil, err
	}
	name, value, _ := strings.Cut(entry, "=")
	out := *job
	out.Synthetic = true
	out.Profile = wrapped
	s := sweep.Sweep{}
	if job.Sweep != nil {
		s = *job.Sweep
	}
	s.Env = slices.DeleteFunc(slices.Clone(s.Env), func(v sweep.EnvVar) bool { return v.Name == name })
	s.Env = append(s.Env, sweep.EnvVar{Name: name, Value: value})
	slices.SortFunc(s.Env, func(a, b sweep.EnvVar) int { return strings.Compare(a.Name, b.Name) })
	out.Sweep = &s
	return &out, nil
}

// wrap is the profile as the vLLM engine runs it.
func wrap(p *sweep.Profile, self []string, c *Config) *sweep.Profile {
	out := *p
	out.Engine.Kind = "vllm"
	out.Engine.Command = slices.Clone(self)
	out.Engine.VLLMVersion = c.Version
	return &out
}

// configFor are the simulator's settings of one run of a profile, as they
// travel to the simulated vllm.
func configFor(p *sweep.Profile, repeat int, gpu models.GPU) (*Config, error) {
	s := p.Engine.Simulator
	if s == nil {
		s = &sweep.Simulator{}
	}
	plant, err := ParsePlant(s.Plant)
	if err != nil {
		return nil, err
	}
	c := &Config{
		Key: p.ID, Repeat: repeat, Seed: s.Seed, Noise: s.Noise, TimeScale: s.TimeScale,
		Version: cmp.Or(p.Engine.VLLMVersion, DefaultVersion), ModelRunner: p.Engine.ModelRunner, Defaults: p.Engine.Defaults,
		Model: p.Model, HubModel: p.Settings.HFModelID, GPU: &gpu, Plant: plant,
	}
	if c.Entry, err = entryOf(p.Model); err != nil {
		return nil, err
	}
	return c, c.check()
}

// Machines are the simulated machines of a plan: one for each kind of GPU that
// its simulator profiles name.
type Machines struct {
	devices map[string]*Device // by the name that profiles give
}

// Wanted reports whether a plan has profiles for the simulator.
func Wanted(plan *sweep.Plan) bool {
	return slices.ContainsFunc(plan.Sweeps, func(s *sweep.Sweep) bool {
		return slices.ContainsFunc(s.Profiles, func(p *sweep.Profile) bool { return p.Engine.Kind == "simulator" })
	})
}

// NewMachines makes them, each with enough GPUs for the largest profile, for
// each lane and for the indexes that sweeps name. Their processes publish below dir. A GPU is
// one of the catalogue or a gpu block of the plan. It fails where a GPU is
// unknown or a setting cannot be simulated, before anything runs.
func NewMachines(dir string, plan *sweep.Plan) (*Machines, error) {
	m := &Machines{devices: map[string]*Device{}}
	counts := map[string]int{}
	for _, s := range plan.Sweeps {
		for _, p := range s.Profiles {
			if p.Engine.Kind != "simulator" {
				continue
			}
			if _, err := configFor(p, 1, models.GPU{}); err != nil {
				return nil, fmt.Errorf("sweep %q: %w", s.Name, err)
			}
			name := gpuName(p)
			ranks := max(p.Settings.TensorParallelSize, 1) * max(p.Settings.PipelineParallelSize, 1)
			counts[name] = max(counts[name], int(ranks), min(s.Lanes.Count, 64), slices.Max(append([]int{0}, s.GPUs...))+1)
		}
	}
	for _, name := range sortedKeys(counts) {
		gpu, err := planGPU(plan, name)
		if err != nil {
			return nil, err
		}
		if m.devices[name], err = NewDevice(filepath.Join(dir, fileName(name)), gpu, counts[name]); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// gpuName is the GPU that a profile asks the simulator for.
func gpuName(p *sweep.Profile) string {
	if p.Engine.Simulator != nil && p.Engine.Simulator.GPU != "" {
		return p.Engine.Simulator.GPU
	}
	return DefaultGPU
}

// planGPU is a GPU of the plan's own blocks, or of the catalogue.
func planGPU(plan *sweep.Plan, name string) (models.GPU, error) {
	for _, block := range plan.GPUs {
		if block.Name != name {
			continue
		}
		gpu, err := FindGPU(block.Like)
		if err != nil {
			return models.GPU{}, fmt.Errorf("gpu block %q: %w", name, err)
		}
		gpu.Name = name
		if block.Reserve != nil {
			gpu.Reserve = *block.Reserve
		}
		if block.Context != nil {
			gpu.Context = *block.Context
		}
		if block.TotalMemory != nil {
			gpu.TotalBytes, gpu.DriverTotal = *block.TotalMemory, *block.TotalMemory+gpu.Reserve
		}
		return gpu, nil
	}
	return FindGPU(name)
}

// fileName makes a folder's name of a GPU's.
func fileName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, name)
}

// Of is the machine that a profile runs on.
func (m *Machines) Of(p *sweep.Profile) (*Device, error) {
	if m == nil {
		return nil, errors.New("no simulated machine was made")
	}
	if d := m.devices[gpuName(p)]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("no simulated machine with GPU %q was made for profile %s", gpuName(p), p.ID)
}

// With lists the GPUs of the machine that a device is of; nil if it is of none.
func (m *Machines) With(device runner.Device) []runner.Device {
	for _, name := range sortedKeys(m.devices) {
		d := m.devices[name]
		if all := d.list(make([]use, d.Count)); device.Index < len(all) && all[device.Index].UUID == device.UUID &&
			all[device.Index].Name == device.Name {
			return all
		}
	}
	return nil
}

// Sampler makes the sampler of one attempt.
func (d *Device) Sampler(job *runner.Job) *Sampler {
	s := &Sampler{Device: d, StartedAt: job.StartedAt}
	if job.Sweep != nil {
		s.Interval = job.Sweep.Sample.Interval
	}
	for _, dev := range job.Devices {
		s.GPUs = append(s.GPUs, dev.Index)
	}
	if job.Sweep != nil && job.Sweep.Sample.AllGPUs {
		s.GPUs = nil
	}
	if job.Pulse != nil {
		s.Ours = func(pid int) bool { return slices.Contains(job.Pulse.Tree(), pid) }
	}
	return s
}

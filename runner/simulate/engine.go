package simulate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
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
	// Device is the simulated machine. Its GPU gives way to that of the profile.
	Device *Device
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
	c, err := ConfigFor(job.Profile, job.Repeat)
	if err != nil {
		return nil, err
	}
	c.Reexec = e.Self
	if e.Device != nil {
		c.StateDir, c.GPUCount = e.Device.Dir, e.Device.Count
	}
	for _, d := range job.Devices {
		c.GPUs = append(c.GPUs, d.Index)
	}
	entry, err := c.environment()
	if err != nil {
		return nil, err
	}
	name, value, _ := strings.Cut(entry, "=")
	out := *job
	out.Synthetic = true
	out.Profile = wrap(job.Profile, e.Self, c)
	s := sweep.Sweep{}
	if job.Sweep != nil {
		s = *job.Sweep
	}
	s.Env = append(slices.DeleteFunc(slices.Clone(s.Env), func(v sweep.EnvVar) bool { return v.Name == name }), sweep.EnvVar{Name: name, Value: value})
	slices.SortFunc(s.Env, func(a, b sweep.EnvVar) int { return strings.Compare(a.Name, b.Name) })
	out.Sweep = &s
	return &out, nil
}

// Command is what stands for `vllm` in the runs of a profile with
// `engine "simulator"`, and the variables to add to its environment. self
// starts this program as the simulated vllm. The first repeat is meant; Engine
// tells the repeats apart.
func Command(self []string, p *sweep.Profile) (command, env []string, err error) {
	if len(self) == 0 {
		return nil, nil, errors.New("the simulator does not know how to start this program")
	}
	c, err := ConfigFor(p, 1)
	if err != nil {
		return nil, nil, err
	}
	c.Reexec = self
	entry, err := c.environment()
	return slices.Clone(self), []string{entry}, err
}

// wrap is the profile as the vLLM engine runs it.
func wrap(p *sweep.Profile, self []string, c *Config) *sweep.Profile {
	out := *p
	out.Engine.Kind = "vllm"
	out.Engine.Command = slices.Clone(self)
	out.Engine.VLLMVersion = c.Version
	if v, err := parseVersion(c.Version); err == nil && !v.atLeast(0, 8, 5) {
		out.Engine.Benchmark = append(slices.Clone(self), "benchmark_latency.py") // that vLLM has no `bench latency`
	}
	return &out
}

// ConfigFor are the simulator's settings of one run of a profile, as they
// travel to the simulated vllm.
func ConfigFor(p *sweep.Profile, repeat int) (*Config, error) {
	c, err := settingsFor(p, repeat)
	if err != nil {
		return nil, err
	}
	c.Entry, err = entryOf(p.Model)
	return c, err
}

// settingsFor is ConfigFor without the model's text.
func settingsFor(p *sweep.Profile, repeat int) (*Config, error) {
	s := p.Engine.Simulator
	if s == nil {
		s = &sweep.Simulator{}
	}
	gpu, err := FindGPU(s.GPU)
	if err != nil {
		return nil, err
	}
	plant, err := ParsePlant(s.Plant)
	if err != nil {
		return nil, err
	}
	c := &Config{
		Key: p.ID, Repeat: repeat, Seed: s.Seed, Noise: s.Noise, TimeScale: s.TimeScale,
		Version: p.Engine.VLLMVersion, ModelRunner: p.Engine.ModelRunner, Defaults: p.Engine.Defaults,
		Model: p.Model, HubModel: p.Settings.HFModelID, GPU: &gpu, Plant: plant,
	}
	if c.Version == "" {
		c.Version = DefaultVersion
	}
	return c, c.check()
}

// requestFor is the request that the vLLM engine's command line for a profile
// comes to: it must be the same as what parseArgs reads there.
func requestFor(p *sweep.Profile) (*request, error) {
	s := &p.Settings
	args := []string{"--model", s.HFModelID}
	addInt := func(flag string, n int64) { args = append(args, "--"+flag, fmt.Sprint(n)) }
	addText := func(flag string, v *string) {
		if v != nil {
			args = append(args, "--"+flag, *v)
		}
	}
	addInt("input-len", s.InputLen)
	addInt("output-len", s.OutputLen)
	addInt("batch-size", s.BatchSize)
	addInt("tensor-parallel-size", max(s.TensorParallelSize, 1))
	addInt("pipeline-parallel-size", max(s.PipelineParallelSize, 1))
	addText("dtype", s.Dtype)
	addText("kv-cache-dtype", s.KVCacheDtype)
	addText("quantization", s.Quantization)
	addText("load-format", s.LoadFormat)
	for flag, v := range map[string]*int64{
		"max-model-len": s.MaxModelLen, "max-num-seqs": s.MaxNumSeqs, "max-num-batched-tokens": s.MaxNumBatchedTokens,
		"kv-cache-memory-bytes": s.KVCacheMemoryBytes, "block-size": s.BlockSize, "num-iters": s.NumIters, "num-iters-warmup": s.NumItersWarmup,
	} {
		if v != nil {
			addInt(flag, *v)
		}
	}
	if s.GPUMemoryUtilization != nil {
		args = append(args, "--gpu-memory-utilization", trimFloat(*s.GPUMemoryUtilization))
	}
	if s.EnforceEager != nil && *s.EnforceEager {
		args = append(args, "--enforce-eager")
	}
	for _, f := range p.Engine.Flags {
		flag := "--" + strings.ReplaceAll(f.Name, "_", "-")
		switch v := f.Value.(type) {
		case bool:
			if !v {
				flag = "--no-" + strings.TrimPrefix(flag, "--")
			}
			args = append(args, flag)
		case []any:
			args = append(args, flag)
			for _, one := range v {
				args = append(args, scalarText(one))
			}
		case map[string]any:
			args = append(args, flag, "{}") // no figure depends on it
		default:
			args = append(args, flag, scalarText(v))
		}
	}
	return parseArgs("vllm bench latency", args)
}

// Machine makes the simulated machine for a plan's simulator profiles, with
// enough GPUs for the largest of them. dir is where its processes publish.
// Profiles that name different GPUs share it: the machine has the first
// profile's, and an error says so if they differ.
func Machine(dir string, profiles []*sweep.Profile) (*Device, error) {
	count, gpu, named := 1, models.GPU{}, map[string]bool{}
	for _, p := range profiles {
		name := ""
		if p.Engine.Simulator != nil {
			name = p.Engine.Simulator.GPU
		}
		found, err := FindGPU(name)
		if err != nil {
			return nil, err
		}
		if len(named) == 0 {
			gpu = found
		}
		named[found.Name] = true
		count = max(count, int(max(p.Settings.TensorParallelSize, 1)*max(p.Settings.PipelineParallelSize, 1)))
	}
	if len(named) > 1 {
		return nil, fmt.Errorf("the profiles simulate different GPUs (%s); one execution has one kind: split them into files", strings.Join(slices.Sorted(maps.Keys(named)), ", "))
	}
	if len(profiles) == 0 {
		var err error
		if gpu, err = FindGPU(""); err != nil {
			return nil, err
		}
	}
	return NewDevice(dir, gpu, count)
}

// SelfCommand is the command that starts this program again with the hidden
// verb: what Engine.Self needs.
func SelfCommand(verb ...string) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program to start it as the simulated vllm: %w", err)
	}
	return append([]string{self}, verb...), nil
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

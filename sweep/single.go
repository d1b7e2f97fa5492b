package sweep

import (
	"cmp"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// SingleSweep is the name of the sweep of a plan that Single makes.
const SingleSweep = "profile"

// SingleOptions are the flags of `vramsweep profile`. What is zero or nil was
// not given.
type SingleOptions struct {
	Model string // --model or --hf-model-id: a catalogue name, a folder, or owner/name

	InputLen             *int64
	OutputLen            *int64
	BatchSize            *int64
	TensorParallelSize   *int64
	PipelineParallelSize *int64
	Dtype                *string
	KVCacheDtype         *string
	Quantization         *string
	MaxModelLen          *int64
	MaxNumSeqs           *int64
	MaxNumBatchedTokens  *int64
	GPUMemoryUtilization *float64
	EnforceEager         *bool
	LoadFormat           *string
	TrustRemoteCode      *bool
	NumIters             *int64
	NumItersWarmup       *int64

	// What is known of the model, laid over what the catalogue says.
	ModelParams *int64 // --model-params
	NumLayers   *int64 // --num-layers
	NumHeads    *int64 // --num-heads
	HiddenSize  *int64 // --hidden-size

	Engine      string   // "vllm" (default) or "simulator"
	Command     []string // stands for `vllm`
	Benchmark   []string // stands for `vllm bench latency`
	Mode        string   // "latency" (default) or "session"
	VLLMVersion string
	ModelRunner string
	Simulator   *Simulator        // of engine "simulator"; nil: its defaults
	Flags       map[string]string // vLLM's own flags, name with underscores; values are read as HCL where they are, else as text

	GPUs    []int
	Repeats int // 0: 1
	Env     []EnvVar
	Sample  *Sample
	Limits  *Limits

	OutputDir string // "": the default
	WorkDir   string // relative model folders are relative to it
}

// Single makes the plan of one profile from flags. Its error is an *Error where
// a flag is at fault; such a message has no range, it names the flag.
func Single(o SingleOptions) (*Plan, error) {
	catalogue, err := models.Builtin()
	if err != nil {
		return nil, err
	}
	l := newLoader(Inputs{WorkDir: o.WorkDir}, catalogue)
	plan := l.single(&o)
	warnings, err := l.diags.result()
	if err != nil {
		return nil, err
	}
	plan.Warnings = warnings
	return plan, nil
}

func (l *loader) single(o *SingleOptions) *Plan {
	sw := &Sweep{Name: SingleSweep, Repeats: max(o.Repeats, 1), GPUs: o.GPUs, Env: o.Env, Sample: defaultSample(), Limits: defaultLimits(), Axes: []Axis{}}
	if o.Sample != nil {
		sw.Sample = *o.Sample
	}
	if o.Limits != nil {
		sw.Limits = *o.Limits
	}
	p := &Profile{Sweep: sw.Name, Origins: map[string]string{}, Engine: newEngine(cmp.Or(o.Engine, "vllm"))}
	fields := l.singleSettings(o, p)
	fields = append(fields, l.singleEngine(o, p)...)
	l.singleModel(o, p, fields)
	if !l.diags.failed() {
		p.ID = singleID(sw.Name, fields)
		s := &sweepBuild{l: l, block: &block{label: sw.Name}, out: sw, folds: map[foldKey]*fold{}, byName: map[string]*field{}}
		s.checkProfile(p, nil)
		s.flush()
	}
	sw.Profiles = []*Profile{p}
	return &Plan{
		Files: []string{}, Variables: []VariableValue{}, GPUs: []GPU{}, Sweeps: []*Sweep{sw},
		OutputDir: cmp.Or(o.OutputDir, defaultOutputDir), Models: l.catalogue,
	}
}

// A given is one field of a single profile.
type given struct {
	field *field
	cell  *cell
}

// singleSettings converts the settings that were given and fills in the
// defaults.
func (l *loader) singleSettings(o *SingleOptions, p *Profile) []given {
	values := map[string]any{
		"input_len": deref(o.InputLen), "output_len": deref(o.OutputLen), "batch_size": deref(o.BatchSize),
		"tensor_parallel_size": deref(o.TensorParallelSize), "pipeline_parallel_size": deref(o.PipelineParallelSize),
		"dtype": deref(o.Dtype), "kv_cache_dtype": deref(o.KVCacheDtype), "quantization": deref(o.Quantization),
		"max_model_len": deref(o.MaxModelLen), "max_num_seqs": deref(o.MaxNumSeqs), "max_num_batched_tokens": deref(o.MaxNumBatchedTokens),
		"gpu_memory_utilization": deref(o.GPUMemoryUtilization), "enforce_eager": deref(o.EnforceEager), "load_format": deref(o.LoadFormat),
		"trust_remote_code": deref(o.TrustRemoteCode), "num_iters": deref(o.NumIters), "num_iters_warmup": deref(o.NumItersWarmup),
	}
	if o.Model == "" {
		l.diags.errorAt(codeFlagMissing, hcl.Range{}, "The profile needs a model: --model NAME or --hf-model-id OWNER/NAME.")
	} else {
		values["model"] = o.Model
	}
	var out []given
	defaults := defaultSettings()
	for _, name := range sortedKeys(values) {
		v, origin := values[name], flagName(name)
		if v == nil {
			n, ok := defaults[name]
			if !ok {
				continue
			}
			v, origin = n, "default"
		}
		st := l.settings[name]
		c, f := st.convert(l, v)
		if f != nil {
			l.singleFault(f, flagName(name))
			continue
		}
		if odd := st.oddValue(c); odd != "" {
			l.diags.warnAt(codeOddValue, hcl.Range{}, "%s: %s", flagName(name), odd)
		}
		p.Origins[name] = origin
		st.set(&p.Settings, c)
		out = append(out, given{&field{name: name, role: roleSetting, setting: st}, c})
	}
	return out
}

func flagName(name string) string { return "--" + strings.ReplaceAll(name, "_", "-") }

func (l *loader) singleFault(f *misfit, flag string) {
	if f.code != "" {
		l.diags.errorAt(f.code, hcl.Range{}, "%s: %s", flag, f.detail)
	}
}

// singleEngine fills in the engine.
func (l *loader) singleEngine(o *SingleOptions, p *Profile) []given {
	if p.Engine.Kind != "vllm" && p.Engine.Kind != "simulator" {
		l.diags.errorAt(codeEngine, hcl.Range{}, "An engine is \"vllm\" or \"simulator\"; this is %s.%s", show(p.Engine.Kind), didYouMean(p.Engine.Kind, []string{"vllm", "simulator"}))
		return nil
	}
	p.Engine.Command, p.Engine.Benchmark = o.Command, o.Benchmark
	if o.Simulator != nil && p.Engine.Kind == "simulator" {
		p.Engine.Simulator = o.Simulator
	}
	texts := map[string]string{"mode": o.Mode, "vllm_version": o.VLLMVersion, "model_runner": o.ModelRunner}
	for _, own := range l.own {
		if texts[own.name] == "" {
			continue
		}
		c, f := own.convert(texts[own.name])
		if f != nil {
			l.singleFault(f, flagName(own.name))
			continue
		}
		own.set(&p.Engine, c)
	}
	var out []given
	for _, name := range sortedKeys(o.Flags) {
		if why, reserved := reservedFlags()[name]; reserved {
			l.diags.errorAt(codeReserved, hcl.Range{}, "%q cannot be set: %s.", name, why)
			continue
		}
		if !isIdentifier(name) || l.settings[name] != nil {
			l.diags.errorAt(codeName, hcl.Range{}, "%s is no flag of vLLM that can be passed on.", show(name))
			continue
		}
		v, _ := l.textExpr(&variable{name: name, value: unknown()}, l.textValue(name, o.Flags[name], "", flagName(name)))
		g, _ := toGo(v)
		c, f := flagValue(name)(g)
		if f != nil {
			l.singleFault(f, flagName(name))
			continue
		}
		p.Engine.Flags = append(p.Engine.Flags, Flag{name, c.v})
		p.Origins[name] = flagName(name)
		out = append(out, given{&field{name: name, role: roleFlag}, c})
	}
	return out
}

// singleModel lays what the flags say of the model over what is known of it.
func (l *loader) singleModel(o *SingleOptions, p *Profile, fields []given) {
	over := map[string]any{}
	for _, f := range []struct {
		name, flag string
		v          *int64
	}{{"params", "--model-params", o.ModelParams}, {"num_layers", "--num-layers", o.NumLayers}, {"num_heads", "--num-heads", o.NumHeads}, {"hidden_size", "--hidden-size", o.HiddenSize}} {
		if f.v == nil {
			continue
		}
		if *f.v < 1 {
			l.diags.errorAt(codeValue, hcl.Range{}, "%s is at least 1; this is %d.", f.flag, *f.v)
			continue
		}
		over[f.name] = *f.v
	}
	for _, g := range fields {
		ref := g.cell.model
		if ref == nil {
			continue
		}
		p.Model = ref.arch
		if len(over) == 0 {
			return
		}
		arch, err := overlay(ref.arch, over)
		if err != nil {
			l.diags.errorAt(codeModelFolder, hcl.Range{}, "%s: %s.", ref.name, err)
			return
		}
		if err := arch.Check(); err != nil {
			l.diags.errorAt(codeValue, hcl.Range{}, "%s: %s.", ref.name, err)
			return
		}
		arch.Source = "flags"
		if arch.ID == "" {
			arch.ID, arch.HFModelID = ref.name, ref.hfID
		}
		p.Model = l.addModel(arch)
	}
}

// singleID is computed as that of a profile of a file.
func singleID(sweep string, fields []given) string {
	slices.SortFunc(fields, func(a, b given) int {
		return cmp.Or(cmp.Compare(a.field.name, b.field.name), cmp.Compare(a.field.role, b.field.role))
	})
	h := newIdentity(sweep)
	h.reset()
	for _, g := range fields {
		if g.cell.model != nil {
			h.add(g.field, g.cell.model.id)
		} else {
			h.add(g.field, g.cell.v)
		}
	}
	sum := h.sum()
	return hex.EncodeToString(sum[:8])
}

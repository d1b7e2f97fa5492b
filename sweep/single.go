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
	Settings map[string]any // by name: a string, int64, float64 or bool

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
	if o.Settings["model"] == nil {
		l.diags.errorAt(codeFlagMissing, hcl.Range{}, "The profile needs a model: --model NAME or --hf-model-id OWNER/NAME.")
	}
	var out []given
	for _, name := range sortedKeys(l.settings) {
		st := l.settings[name]
		v, origin := o.Settings[name], flagName(name)
		switch {
		case v != nil:
		case st.preset != 0:
			v, origin = st.preset, "default"
		default:
			continue
		}
		if t, ok := v.(string); ok && st.kind == kindSize {
			if n := st.parse(t); n != nil { // a flag has no quotes that tell a text from a number
				v = *n.whole
			}
		}
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

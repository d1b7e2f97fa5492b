package sweep

import (
	"cmp"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// SingleSweep is the name of the sweep of a plan that Single makes.
const SingleSweep = "profile"

// SingleOptions are the flags of `vramsweep profile`. What is zero or nil was
// not given.
type SingleOptions struct {
	Settings map[string]any // by name: a string, int64, float64 or bool
	// Model is what is known of the model, laid over what the catalogue says:
	// model_params, num_layers, num_heads, hidden_size.
	Model   map[string]int64
	Engine  string            // "vllm" (default) or "simulator"
	Command []string          // stands for `vllm`
	Flags   map[string]string // vLLM's own, name with underscores; a value is read as HCL where it is that, else as text
	GPUs    []int
	Sample  time.Duration     // between samples; 0: the default
	Models  *models.Catalogue // nil: the one that is built in
	WorkDir string            // relative model folders are relative to it
}

// Single makes the plan of one profile from flags. Its error is an *Error where
// a flag is at fault; such a message has no range, it names the flag.
func Single(o SingleOptions) (*Plan, error) {
	catalogue, err := orBuiltin(o.Models)
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

// single is a sweep of one point whose fields are all fixed.
func (l *loader) single(o *SingleOptions) *Plan {
	s := l.newSweep(&block{label: SingleSweep})
	s.engineKind = cmp.Or(o.Engine, "vllm")
	s.out = &Sweep{Name: SingleSweep, Repeats: 1, GPUs: o.GPUs, Axes: []Axis{}, Sample: defaultSample(),
		Limits: defaultLimits(), Lanes: defaultLanes()}
	if o.Sample != 0 {
		s.out.Sample.Interval = o.Sample
	}
	if i := s.out.Sample.Interval; i < minInterval || i > maxInterval {
		l.diags.errorAt(codeValue, hcl.Range{}, "--interval lies between 10ms and 10s; this is %v.", i)
	}
	s.singleSettings(o)
	s.singleFlags(o)
	if !l.diags.failed() {
		sortFields(s.fields)
		s.profiles([][]int32{nil}, nil, newIdentity(s.out.Name), map[string][]int32{})
		s.out.Profiles[0].Engine.Command = o.Command
		s.flush()
	}
	return &Plan{
		Files: []string{}, Variables: []VariableValue{}, GPUs: []GPU{}, Sweeps: []*Sweep{s.out},
		OutputDir: defaultOutputDir, Models: l.catalogue,
	}
}

// singleSettings converts the settings that were given and fills in the
// defaults.
func (s *sweepBuild) singleSettings(o *SingleOptions) {
	l := s.l
	if o.Settings["model"] == nil {
		l.diags.errorAt(codeFlagMissing, hcl.Range{}, "The profile needs a model: --model NAME or --hf-model-id OWNER/NAME.")
	}
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
		if f == nil {
			if odd := st.oddValue(c); odd != "" {
				l.diags.warnAt(codeOddValue, hcl.Range{}, "%s: %s", flagName(name), odd)
			}
			if c.model != nil {
				c.model = l.overlaid(c.model, o)
			}
		}
		s.fix(&field{name: name, role: roleSetting, setting: st, origin: origin}, c, f)
	}
}

// fix adds a field of a single profile, or reports why it has none.
func (s *sweepBuild) fix(f *field, c *cell, wrong *misfit) {
	switch {
	case wrong == nil:
		f.axis, f.fixed = -1, c
		s.fields = append(s.fields, f)
	case wrong.code != "":
		s.l.diags.errorAt(wrong.code, hcl.Range{}, "%s: %s", flagName(f.name), wrong.detail)
	}
}

func flagName(name string) string { return "--" + strings.ReplaceAll(name, "_", "-") }

// singleFlags takes vLLM's own flags.
func (s *sweepBuild) singleFlags(o *SingleOptions) {
	l := s.l
	if !l.knownEngine(s.engineKind, hcl.Range{}) {
		return
	}
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
		s.fix(&field{name: name, role: roleFlag, origin: flagName(name)}, c, f)
	}
}

// overlaid lays what the flags say of the model over what is known of it.
func (l *loader) overlaid(ref *modelRef, o *SingleOptions) *modelRef {
	over := map[string]any{}
	for _, name := range sortedKeys(o.Model) {
		if n := o.Model[name]; n < 1 {
			l.diags.errorAt(codeValue, hcl.Range{}, "%s is at least 1; this is %d.", flagName(name), n)
		}
		over[strings.TrimPrefix(name, "model_")] = o.Model[name]
	}
	if len(over) == 0 || l.diags.failed() {
		return ref
	}
	arch, err := overlay(ref.arch, over)
	code := codeModelFolder
	if err == nil {
		code, err = codeValue, arch.Check()
	}
	if err != nil {
		l.diags.errorAt(code, hcl.Range{}, "%s: %s.", ref.name, err)
		return ref
	}
	arch.Source = "flags"
	if arch.ID == "" {
		arch.ID, arch.HFModelID = ref.name, ref.hfID
	}
	out := *ref
	out.arch = l.addModel(arch)
	return &out
}

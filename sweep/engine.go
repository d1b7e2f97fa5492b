package sweep

import (
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// An ownAttr is an attribute of the engine block that is neither a setting nor
// a flag of vLLM.
type ownAttr struct {
	name      string
	simulator bool // of engine "simulator" only
	convert   func(any) (*cell, *misfit)
	set       func(*Engine, *cell)
}

// ownAttrs lists them.
func (l *loader) ownAttrs() []ownAttr {
	serve := func(e *Engine, c *cell) {
		if *c.text == "serve" {
			e.Defaults = "serve"
		}
	}
	return []ownAttr{
		{"command", false, argv("command"), func(e *Engine, c *cell) { e.Command = texts(c.v) }},
		{"benchmark", false, argv("benchmark"), func(e *Engine, c *cell) { e.Benchmark = texts(c.v) }},
		{"python", false, argv("python"), func(e *Engine, c *cell) { e.Python = texts(c.v) }},
		{"mode", false, choice("mode", "latency", "session"), func(e *Engine, c *cell) { e.Mode = *c.text }},
		{"start", false, choice("start", "auto", "warm", "cold"), func(e *Engine, c *cell) {
			if e.Start = *c.text; e.Start == "auto" {
				e.Start = ""
			}
		}},
		{"vllm_version", false, versionText, func(e *Engine, c *cell) { e.VLLMVersion = *c.text }},
		{"model_runner", false, choice("model_runner", "auto", "v1", "v2"),
			func(e *Engine, c *cell) { e.ModelRunner = *c.text }},
		{"defaults", false, choice("defaults", "bench", "serve"), serve},
		{"gpu", true, l.gpuChoice, func(e *Engine, c *cell) { e.Simulator.GPU = *c.text }},
		{"seed", true, whole("seed", -1<<53, 1<<53), func(e *Engine, c *cell) { e.Simulator.Seed = *c.whole }},
		{"noise", true, number("noise", 0, 1), func(e *Engine, c *cell) { e.Simulator.Noise = *c.share }},
		{"time_scale", true, number("time_scale", 1e-6, 1e9), func(e *Engine, c *cell) { e.Simulator.TimeScale = *c.share }},
		{"plant", true, l.plant, func(e *Engine, c *cell) { e.Simulator.Plant, _ = c.v.(map[string]any) }},
	}
}

func texts(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, e := range list {
		s, _ := e.(string)
		out = append(out, s)
	}
	return out
}

func argv(name string) func(any) (*cell, *misfit) {
	return func(v any) (*cell, *misfit) {
		list, f := asStrings(name, v)
		switch {
		case f != nil:
			if s, ok := v.(string); ok {
				f.detail += " Write [" + show(s) + "]; nothing is split at spaces."
			}
			return nil, f
		case len(list) == 0 || list[0] == "":
			return nil, misfitf(codeValue, name, " is a list of strings whose first names a program; this is empty.")
		}
		return &cell{v: v}, nil
	}
}

func choice(name string, choices ...string) func(any) (*cell, *misfit) {
	return func(v any) (*cell, *misfit) {
		s, f := oneOf(choices...)(name, v)
		return &cell{v: s, text: &s}, f
	}
}

// gpuChoice takes a GPU of the catalogue or of a gpu block.
func (l *loader) gpuChoice(v any) (*cell, *misfit) {
	s, ok := v.(string)
	if !ok {
		return nil, misfitf(codeValue,
			"gpu is the name of a GPU of the catalogue or of a gpu block; this is ", describe(v), ".")
	}
	if known := append(gpuNames(), l.gpuBlocks...); !slices.Contains(known, s) {
		return nil, misfitf(codeUnknownGPU,
			"There is no GPU ", show(s), " in the catalogue or in a gpu block.", suggestOrList(s, known))
	}
	return &cell{v: s, text: &s}, nil
}

var versionForm = regexp.MustCompile(`^v?\d+\.\d+(\.\d+)?([.+a-z0-9]*)$`)

func versionText(v any) (*cell, *misfit) {
	s, ok := v.(string)
	if !ok || !versionForm.MatchString(s) {
		return nil, misfitf(codeValue, "vllm_version is a string as \"0.26.0\"; this is ", describe(v), ".")
	}
	s = strings.TrimPrefix(s, "v")
	return &cell{v: s, text: &s}, nil
}

func whole(name string, low, high int64) func(any) (*cell, *misfit) {
	return func(v any) (*cell, *misfit) {
		n, f := asWhole(name, v, low, high)
		return &cell{v: n, whole: &n}, f
	}
}

func number(name string, low, high float64) func(any) (*cell, *misfit) {
	return func(v any) (*cell, *misfit) {
		x, ok := asFloat(v)
		if !ok || x < low || x > high {
			return nil, misfitf(codeValue,
				name, " is a number between ", show(low), " and ", show(high), "; this is ", describe(v), ".")
		}
		return &cell{v: x, share: &x}, nil
	}
}

// flagValue takes what can become a flag: a string, a number, a bool, a list of
// these, or an object, which becomes JSON. null leaves the flag out.
func flagValue(name string) func(any) (*cell, *misfit) {
	return func(v any) (*cell, *misfit) {
		list, _ := v.([]any)
		for _, e := range list {
			switch e.(type) {
			case string, bool, int64, float64:
			default:
				return nil, misfitf(codeFlagValue, "The values of a flag with several are strings, numbers or booleans; ", name,
					" holds ", kindOf(e), ".")
			}
		}
		if s, ok := v.(string); ok && strings.ContainsRune(s, 0) {
			return nil, misfitf(codeFlagValue, name, " holds a zero byte, which no command line can.")
		}
		return &cell{v: v}, nil
	}
}

// nullable lets null through as "left out".
func nullable(f func(any) (*cell, *misfit)) func(any) (*cell, *misfit) {
	return func(v any) (*cell, *misfit) {
		if v == nil {
			return &cell{}, nil
		}
		return f(v)
	}
}

// reservedFlags are those that vramsweep itself gives to vLLM, with the reason.
func reservedFlags() map[string]string {
	return map[string]string{
		"output_json":        "vramsweep reads the result from a file of its own",
		"help":               "vLLM would print its help and measure nothing",
		"version":            "vLLM would print its version and measure nothing",
		"profile":            "a profiled run is no measurement",
		"profile_result_dir": "a profiled run is no measurement",
		"hf_model_id":        "the model is the setting \"model\"",
	}
}

// readEngine reads the engine block, if there is one.
func (s *sweepBuild) readEngine(b *block) {
	s.engineKind = "vllm"
	if b == nil {
		return
	}
	if !s.l.knownEngine(b.label, b.labelRng) {
		s.broken = true
		return
	}
	s.engineKind = b.label
	sc := s.pointScope("an engine block", true)
	for _, at := range b.body.attrs {
		if !s.readEngineAttr(at, sc) {
			s.broken = true
		}
	}
}

// knownEngine reports a kind of engine that there is none of.
func (l *loader) knownEngine(kind string, rng hcl.Range) bool {
	kinds := []string{"vllm", "simulator"}
	if slices.Contains(kinds, kind) {
		return true
	}
	l.diags.errorAt(codeEngine, rng, "An engine is \"vllm\" or \"simulator\"; this is %s.%s", show(kind),
		didYouMean(kind, kinds))
	return false
}

func (s *sweepBuild) readEngineAttr(at *attr, sc *scope) bool {
	d := s.l.diags
	if i, key := s.findAxis(at.name); i >= 0 && s.l.settings[at.name] != nil {
		a := s.axes[i]
		where := "is an axis"
		if key >= 0 {
			where = "is a key of the axis " + show(a.name)
		}
		d.errorAt(codeSetTwice, at.nameRng, "%q %s at %s and set here. Keep one of them.", at.name, where, at2(a))
		return false
	}
	if why, ok := reservedFlags()[at.name]; ok {
		d.errorAt(codeReserved, at.nameRng, "%q cannot be set: %s.", at.name, why)
		return false
	}
	f := &field{name: at.name, axis: -1, rng: at.nameRng}
	var convert func(any) (*cell, *misfit)
	switch own, st := s.ownAttr(at.name), s.l.settings[at.name]; {
	case own != nil:
		f.role, f.own, convert = roleOwn, own, own.convert
	case st != nil:
		f.role, f.setting = roleSetting, st
		convert = func(v any) (*cell, *misfit) { return st.convert(s.l, v) }
	default:
		f.role, convert = roleFlag, flagValue(at.name)
		s.checkFlag(at)
	}
	f.expr = s.pointExpr(at, at.name, sc, nullable(convert))
	if f.expr == nil {
		return false
	}
	f.origin = "engine at " + at2attr(at)
	s.fields = append(s.fields, f)
	return true
}

func at2(a *axis) string { return at(a.attr.nameRng) }

func at2attr(a *attr) string { return at(a.nameRng) }

func (s *sweepBuild) ownAttr(name string) *ownAttr {
	for i := range s.l.own {
		o := &s.l.own[i]
		if o.name == name && (!o.simulator || s.engineKind == "simulator") {
			return o
		}
	}
	return nil
}

// checkFlag warns of a flag that vLLM is not known to have.
func (s *sweepBuild) checkFlag(at *attr) {
	name := strings.TrimPrefix(at.name, "no_")
	if s.l.flags[name] || s.l.flags[at.name] || s.l.diags.full() {
		return
	}
	for _, o := range s.l.own {
		if o.name == at.name && o.simulator {
			s.l.diags.warnAt(codeUnknownFlag, at.nameRng,
				"%q belongs to engine \"simulator\"; vLLM %s has no such flag. It is passed on as it is.", at.name, flagsVersion)
			return
		}
	}
	known := append(sortedKeys(s.l.flags), SettingNames()...)
	for _, o := range s.l.own {
		known = append(known, o.name)
	}
	hint := Nearest(at.name, known)
	for _, st := range s.l.settings {
		if slices.Contains(st.slips, at.name) {
			hint = st.name
		}
	}
	if hint != "" {
		hint = " Did you mean " + hint + "?"
	}
	s.l.diags.warnAt(codeUnknownFlag, at.nameRng,
		"vLLM %s has no flag --%s.%s It is passed on as it is.", flagsVersion, strings.ReplaceAll(at.name, "_", "-"), hint)
}

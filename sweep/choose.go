package sweep

import (
	"regexp"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// filterSource is the name that messages give the text of a filter.
const filterSource = "--filter"

// choose keeps the sweeps and profiles that the command line asks for. Indices
// and ids stay what they are in the whole.
func (l *loader) choose(plan *Plan) {
	if len(l.in.Only) > 0 {
		l.only(plan)
	}
	if l.in.Filter != "" && !l.diags.failed() {
		l.filter(plan)
	}
}

// loneEquals is an equals sign that compares nothing.
var loneEquals = regexp.MustCompile(`(^|[^=!<>])=($|[^=>])`)

func (l *loader) only(plan *Plan) {
	var names []string
	for _, s := range plan.Sweeps {
		names = append(names, s.Name)
	}
	for _, o := range l.in.Only {
		if !slices.Contains(names, o) {
			l.diags.errorAt(codeUnknownSweep, hcl.Range{}, "There is no sweep %s.%s", show(o), suggestOrList(o, names))
		}
	}
	plan.Sweeps = slices.DeleteFunc(plan.Sweeps, func(s *Sweep) bool { return !slices.Contains(l.in.Only, s.Name) })
}

// filter keeps the profiles for which the expression is true. A sweep that has
// no axis of a name that the expression uses keeps none.
func (l *loader) filter(plan *Plan) {
	src := []byte(l.in.Filter)
	l.diags.sources[filterSource] = src
	r := &reader{diags: l.diags, guard: l.guard}
	if !r.checkSize(filterSource, src) {
		return
	}
	e, hd := hclsyntax.ParseExpression(src, filterSource, hcl.InitialPos)
	if hd.HasErrors() {
		if loneEquals.MatchString(l.in.Filter) {
			hd[0].Detail = sentence(hd[0].Detail) + " Values are compared with ==, as in 'matrix.batch_size == 8'."
		}
		l.diags.syntax(hd)
		return
	}
	x := l.guard.protect(e)
	axes := map[string]bool{}
	for _, s := range plan.Sweeps {
		for _, a := range s.Axes {
			axes[a.Name] = true
		}
	}
	if !l.check(x, filterScope("a filter", sortedKeys(axes))) {
		return
	}
	total, left := 0, 0
	for _, s := range plan.Sweeps {
		total += len(s.Profiles)
		s.Profiles = l.filtered(x, s)
		left += len(s.Profiles)
		if l.diags.failed() {
			return
		}
	}
	plan.Sweeps = slices.DeleteFunc(plan.Sweeps, func(s *Sweep) bool { return len(s.Profiles) == 0 })
	if left == 0 {
		l.diags.errorAt(codeFilter, x.Range(), "None of the %d profiles matches.", total)
	}
}

func filterScope(where string, axes []string) *scope {
	return &scope{where: where, names: map[string][]string{
		"matrix": axes, "profile": SettingNames(), "model": architectureNames(), "sweep": {"name"},
	}}
}

func (l *loader) filtered(x *expression, s *Sweep) []*Profile {
	quiet := newDiags(l.diags.sources)
	var names []string
	for _, a := range s.Axes {
		names = append(names, a.Name)
	}
	outer := l.diags
	l.diags = quiet
	ok := l.check(x, filterScope("a filter", names))
	l.diags = outer
	if !ok {
		return nil
	}
	ctx := l.context(x, &scope{})
	uses := map[string]bool{}
	for _, t := range x.vars {
		uses[t.RootName()] = true
	}
	var out []*Profile
	for _, p := range s.Profiles {
		setFilterContext(ctx, p, uses)
		v, faults := l.evaluate(x, ctx)
		for _, f := range faults {
			l.diags.add(f.fault, "%s", f.detail)
			return nil
		}
		keep, isBool := toBool(v)
		if !isBool {
			l.diags.errorAt(codeValue, x.Range(), "A filter is true or false; this is %s.", l.describeSecretly(x, v))
			return nil
		}
		if keep {
			out = append(out, p)
		}
	}
	return out
}

// setFilterContext fills in what the expression sees of a profile.
func setFilterContext(ctx *hcl.EvalContext, p *Profile, uses map[string]bool) {
	if uses["matrix"] {
		m := make(map[string]any, len(p.Axes))
		for _, a := range p.Axes {
			m[a.Axis] = a.Value
		}
		ctx.Variables["matrix"] = fromGo(m)
	}
	if uses["profile"] {
		ctx.Variables["profile"] = fromGo(p.SettingValues())
	}
	if uses["model"] {
		ctx.Variables["model"] = (&modelRef{arch: p.Model}).object()
	}
	if uses["sweep"] {
		ctx.Variables["sweep"] = cty.ObjectVal(map[string]cty.Value{"name": cty.StringVal(p.Sweep)})
	}
}

// SettingValues is the profile's settings by the names that files use; nil is
// left to vLLM.
func (p *Profile) SettingValues() map[string]any {
	values := map[string]any{}
	for _, s := range settings() {
		values[s.name] = s.get(&p.Settings)
	}
	return values
}

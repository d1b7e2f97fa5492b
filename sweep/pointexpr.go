package sweep

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// A pointExpr is an expression that is evaluated at every point of a sweep. It
// is evaluated once for each combination of the axes that it really depends
// on, which for `matrix.input_len + matrix.output_len` are a handful in a
// sweep of 100,000 points.
type pointExpr struct {
	s       *sweepBuild
	name    string
	attr    *attr
	convert func(any) (*cell, *misfit)

	deps    []int            // axes, sorted
	memo    map[string]*cell // by the indices of the values of deps
	key     []byte           // of memo, reused
	ctx     *hcl.EvalContext
	matrix  []int    // axes that the matrix object needs
	profile []string // settings that the profile object needs
	model   bool
	state   visitState
}

// pointExpr makes one, or reports what is wrong with its names and returns nil.
func (s *sweepBuild) pointExpr(at *attr, name string, sc *scope, convert func(any) (*cell, *misfit)) *pointExpr {
	if !s.l.check(at.expr, sc) {
		return nil
	}
	p := &pointExpr{s: s, name: name, attr: at, convert: convert, memo: map[string]*cell{}}
	p.ctx = s.l.context(at.expr, &scope{})
	p.ctx.Variables["sweep"] = s.object()
	for _, t := range at.expr.vars {
		second, named := "", false
		if len(t) > 1 {
			second, named = stepName(t[1])
		}
		switch t.RootName() {
		case "matrix":
			for i, a := range s.axes {
				if (!named || a.name == second) && !slices.Contains(p.matrix, i) {
					p.matrix = append(p.matrix, i)
					a.used = true
				}
			}
		case "profile":
			if !slices.Contains(p.profile, second) {
				p.profile = append(p.profile, second)
			}
		case "model":
			p.model = true
		}
	}
	return p
}

// bind finds the axes that the expression depends on, through profile and
// model as well; false if settings refer to one another in a circle.
func (p *pointExpr) bind() bool {
	ok := true
	visited := p.s.l.visit(&p.state, "profile."+p.name, p.attr.nameRng, func() {
		p.deps = slices.Clone(p.matrix)
		names := p.profile
		if p.model {
			names = append(slices.Clone(names), "model")
		}
		for _, n := range names {
			f := p.s.byName[n]
			switch {
			case f == nil:
			case f.axis >= 0:
				p.deps = append(p.deps, f.axis)
			case f.expr != nil:
				ok = f.expr.bind() && ok
				p.deps = append(p.deps, f.expr.deps...)
			}
		}
		slices.Sort(p.deps)
		p.deps = slices.Compact(p.deps)
	})
	return visited && ok
}

// value is the value at a point. Who uses it counts its faults.
func (p *pointExpr) value(pt []int32) *cell {
	p.key = p.key[:0]
	for _, d := range p.deps {
		p.key = binary.AppendVarint(p.key, int64(pt[d]))
	}
	c := p.memo[string(p.key)]
	if c == nil {
		c = p.eval(pt)
		p.memo[string(p.key)] = c
	}
	return c
}

// count notes that one more point has the faults of the cell.
func (c *cell) count() {
	for _, f := range c.folds {
		f.count++
	}
}

func (p *pointExpr) eval(pt []int32) *cell {
	ok := p.setContext(pt)
	if !ok { // rests on something that failed and was reported
		return &cell{bad: true}
	}
	v, faults := p.s.l.evaluate(p.attr.expr, p.ctx)
	bad := &cell{bad: true}
	for _, f := range faults {
		bad.folds = append(bad.folds, p.fold(f.fault, f.detail))
	}
	if len(faults) > 0 {
		return bad
	}
	g, ok := toGo(v)
	if !ok {
		return bad
	}
	c, f := p.convert(g)
	if f == nil {
		return c
	}
	if f.code == "" {
		p.s.l.diags.errors++
		return bad
	}
	rng := p.attr.expr.rangeOf(f.words)
	bad.folds = append(bad.folds,
		p.fold(fault{code: f.code, rng: rng, values: p.s.l.valuesOf(p.attr.expr, p.ctx)}, f.detail))
	return bad
}

// fold notes a fault of the expression; one that is the same at all points
// says nothing of points.
func (p *pointExpr) fold(f fault, detail string) *fold {
	n := p.s.fold(f, detail)
	n.whole = len(p.deps) == 0
	return n
}

// setContext fills in what differs from point to point.
func (p *pointExpr) setContext(pt []int32) bool {
	if len(p.matrix) > 0 {
		m := make(map[string]cty.Value, len(p.matrix))
		for _, i := range p.matrix {
			a := p.s.axes[i]
			m[a.name] = a.vals[pt[i]].val
		}
		p.ctx.Variables["matrix"] = cty.ObjectVal(m)
	}
	if len(p.profile) > 0 {
		m := make(map[string]cty.Value, len(p.profile))
		for _, n := range p.profile {
			v := any(nil)
			if f := p.s.byName[n]; f != nil {
				c := f.at(pt)
				if c.bad {
					return false
				}
				v = c.v
			}
			m[n] = fromGo(v)
		}
		p.ctx.Variables["profile"] = cty.ObjectVal(m)
	}
	if p.model {
		f := p.s.byName["model"]
		if f == nil {
			return false
		}
		c := f.at(pt)
		if c.bad || c.model == nil {
			return false
		}
		p.ctx.Variables["model"] = c.model.object()
	}
	return true
}

// A fold is one fault that many points share: it is reported once.
type fold struct {
	fault  fault
	detail string
	count  int
	whole  bool // about the sweep, not about points
}

type foldKey struct {
	code code
	rng  hcl.Range
}

// fold finds or makes the fold of a fault; the first point's words stand.
func (s *sweepBuild) fold(f fault, detail string) *fold {
	key := foldKey{f.code, f.rng}
	if old, ok := s.folds[key]; ok {
		return old
	}
	n := &fold{fault: f, detail: detail}
	s.folds[key] = n
	s.foldOrder = append(s.foldOrder, n)
	return n
}

// flush reports the folds.
func (s *sweepBuild) flush() {
	for _, f := range s.foldOrder {
		switch others := f.count - 1; {
		case s.points <= 1 || others < 0 || f.whole:
		case others == 0:
			f.fault.values = append(f.fault.values, "at this point only")
		case others == 1:
			f.fault.values = append(f.fault.values, "at this point and one other")
		default:
			f.fault.values = append(f.fault.values, fmt.Sprintf("at this point and %d others", others))
		}
		s.l.diags.add(f.fault, "%s", f.detail)
	}
}

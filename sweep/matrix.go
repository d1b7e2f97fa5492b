package sweep

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// maxPoints bounds a matrix, before it is built.
const maxPoints = 100_000

// An axis is one attribute of the matrix.
type axis struct {
	name    string
	attr    *attr
	kind    string     // "string", "number", "bool", "object"
	keys    []string   // of an axis of objects, sorted
	set     []*setting // what the axis (one entry) or its keys set; nil where it is a free name
	vals    []axisVal  // those of the matrix, then those that only includes have
	n       int        // how many are of the matrix
	byValue map[string]int
	used    bool // by an expression
}

// An axisVal is one value of an axis.
type axisVal struct {
	val   cty.Value
	v     any // as results show it
	rng   hcl.Range
	cells []*cell // one, or one a key
}

// isObject says whether the axis is one of objects.
func (a *axis) isObject() bool { return a.kind == "object" }

// free says whether the axis sets nothing.
func (a *axis) free() bool {
	return !slices.ContainsFunc(a.set, func(s *setting) bool { return s != nil })
}

// freeKeys are the indices of the keys of an axis of objects that set nothing.
func (a *axis) freeKeys() []int {
	var out []int
	for i := range a.keys {
		if a.set[i] == nil {
			out = append(out, i)
		}
	}
	return out
}

// elements splits the value of an axis into its values with their ranges.
func elements(e *expression, v cty.Value) ([]cty.Value, []hcl.Range, bool) {
	t := v.Type()
	if v.IsNull() || !t.IsTupleType() && !t.IsListType() {
		return nil, nil, false
	}
	var vals []cty.Value
	for it := v.ElementIterator(); it.Next(); {
		_, x := it.Element()
		vals = append(vals, x)
	}
	rngs := make([]hcl.Range, len(vals))
	for i := range rngs {
		rngs[i] = elementRange(e, i, len(vals))
	}
	return vals, rngs, true
}

// elementRange is the range of element i of a list of n that e evaluates to:
// its own where e is written as a list, that of e where it is computed.
func elementRange(e *expression, i, n int) hcl.Range {
	x := e.Expression
	for {
		p, ok := x.(*hclsyntax.ParenthesesExpr)
		if !ok {
			break
		}
		x = p.Expression
	}
	if t, ok := x.(*hclsyntax.TupleConsExpr); ok && len(t.Exprs) == n {
		return t.Exprs[i].Range()
	}
	return e.Range()
}

// axes reads the matrix block.
func (s *sweepBuild) readAxes(b *body) {
	points := 1
	for _, at := range b.attrs {
		s.declared = append(s.declared, at.name)
		a := s.readAxis(at)
		if a == nil {
			s.broken = true
			continue
		}
		s.axes = append(s.axes, a)
		if points > maxPoints {
			continue
		}
		if points *= len(a.vals); points > maxPoints {
			s.l.diags.errorAt(codeTooMany, at.nameRng, "With the axis %q the matrix has %d points or more; a sweep has at "+
				"most %d. Split it into several sweeps.", a.name, points, maxPoints)
			s.broken = true
		}
	}
	if len(b.attrs) == 0 {
		s.l.diags.errorAt(codeNoAxes, b.rng, "A matrix has at least one axis, as in: model = [\"Qwen/Qwen3-0.6B\"]")
		s.broken = true
	}
}

// readAxis reads one attribute of the matrix; nil if it is at fault.
func (s *sweepBuild) readAxis(at *attr) *axis {
	d := s.l.diags
	v, ok := s.l.value(at.expr, s.scope("a matrix"))
	if !ok {
		return nil
	}
	vals, rngs, ok := elements(at.expr, v)
	if !ok {
		detail := fmt.Sprintf("An axis is a list of values, in their order; this is %s.", s.l.describeSecretly(at.expr, v))
		if v.Type().IsSetType() {
			detail = "An axis is a list of values; this is a set, whose order is not that of the file. Use sort() or tolist()."
		} else if v.Type().IsPrimitiveType() && !v.IsNull() {
			detail += " For a single value write it in brackets" + s.inBrackets(at.expr, v) + "."
		}
		d.errorAt(codeListNeeded, at.expr.Range(), "%s", detail)
		return nil
	}
	if len(vals) == 0 {
		d.errorAt(codeEmptyAxis, at.expr.Range(), "The axis %q is empty, so the sweep would have no points at all.", at.name)
		return nil
	}
	a := &axis{name: at.name, attr: at, byValue: map[string]int{}}
	before := d.errors
	for i := range vals {
		if i >= maxPoints {
			d.errorAt(codeTooMany, at.nameRng,
				"The axis %q has %d values; a sweep has at most %d points.", a.name, len(vals), maxPoints)
			return nil
		}
		s.addValue(a, vals[i], rngs[i])
	}
	if d.errors > before {
		return nil
	}
	a.n = len(a.vals)
	a.unifyNumbers()
	if a.isObject() && s.l.settings[a.name] != nil {
		d.errorAt(codeAxisValue, a.attr.nameRng,
			"%q is a setting, so its values are no objects. Give an axis of objects a name of its own.", a.name)
	}
	return a
}

// inBrackets shows how a single value is written, unless it is a secret.
func (s *sweepBuild) inBrackets(e *expression, v cty.Value) string {
	g, ok := toGo(v)
	if !ok || s.l.tainted(e) != "" {
		return ""
	}
	return ": [" + show(g) + "]"
}

// addValue appends one value of the matrix to its axis.
func (s *sweepBuild) addValue(a *axis, v cty.Value, rng hcl.Range) {
	if kind, ok := valueKind(v); ok && a.kind == "" {
		a.kind = kind
		s.bindAxis(a, v)
	}
	av, ok := s.axisValue(a, v, rng, fmt.Sprintf("The first value of %q is %s", a.name, article(a.kind)))
	if !ok {
		return
	}
	if _, isNew := a.index(av); !isNew {
		s.l.diags.errorAt(codeRepeatedVal, rng, "The axis %q lists %s twice.", a.name, show(av.v))
	}
}

// index finds the value among the axis' own, or adds it.
func (a *axis) index(av axisVal) (i int, isNew bool) {
	key := string(encode(nil, av.v))
	i, known := a.byValue[key]
	if !known {
		i = len(a.vals)
		a.byValue[key] = i
		a.vals = append(a.vals, av)
	}
	return i, !known
}

// bindAxis finds what the axis sets, from its name or the keys of its first
// object.
func (s *sweepBuild) bindAxis(a *axis, first cty.Value) {
	if !a.isObject() {
		a.set = []*setting{s.l.settings[a.name]}
		return
	}
	for it := first.ElementIterator(); it.Next(); {
		k, _ := it.Element()
		a.keys = append(a.keys, k.AsString())
	}
	slices.Sort(a.keys)
	for _, k := range a.keys {
		a.set = append(a.set, s.l.settings[k])
	}
}

// axisValue converts one value of an axis; others says what those before it are.
func (s *sweepBuild) axisValue(a *axis, v cty.Value, rng hcl.Range, others string) (axisVal, bool) {
	d := s.l.diags
	g, _ := toGo(v)
	out := axisVal{val: v, v: g, rng: rng}
	kind, ok := valueKind(v)
	switch {
	case !ok:
		d.errorAt(codeAxisValue, rng,
			"The values of an axis are strings, numbers, booleans or objects; this is %s.", kindOf(g))
		return out, false
	case kind != a.kind:
		d.errorAt(codeMixedAxis, rng,
			"%s and this is %s. An axis has one type, because it becomes one column of the results.", others, article(kind))
		return out, false
	case !a.isObject():
		c, ok := s.convert(a.set[0], g, rng)
		if ok {
			out.v, out.cells = c.v, []*cell{c}
		}
		return out, ok
	}
	m, _ := g.(map[string]any)
	if got := sortedKeys(m); !slices.Equal(got, a.keys) {
		d.errorAt(codeUnlikeKeys, rng, "The first object of %q has the keys %s; this one has %s. All objects of an axis need the same keys.",
			a.name, strings.Join(a.keys, ", "), strings.Join(got, ", "))
		return out, false
	}
	canon := make(map[string]any, len(m))
	for i, k := range a.keys {
		if !isIdentifier(k) {
			d.errorAt(codeName, rng, "The key %s of an object is no name: a name has letters, digits and underscores "+
				"and does not start with a digit.", show(k))
			return out, false
		}
		switch m[k].(type) {
		case string, bool, int64, float64:
		default:
			d.errorAt(codeAxisValue, rng,
				"The keys of an object hold strings, numbers or booleans; %q is %s.", k, kindOf(m[k]))
			return out, false
		}
		c, ok := s.convert(a.set[i], m[k], rng)
		if !ok {
			return out, false
		}
		canon[k] = c.v
		out.cells = append(out.cells, c)
	}
	out.v = canon
	return out, true
}

// convert checks a value against the setting that it is of, if it is of any.
func (s *sweepBuild) convert(st *setting, v any, rng hcl.Range) (*cell, bool) {
	if st == nil {
		return &cell{v: v}, true
	}
	c, f := st.convert(s.l, v)
	if f != nil {
		s.misfit(f, rng)
	}
	return c, f == nil
}

// misfit reports why a value does not suit. One without a code was reported
// where its cause stands.
func (s *sweepBuild) misfit(f *misfit, rng hcl.Range) {
	if f.code == "" {
		s.l.diags.errors++
		return
	}
	s.l.diags.errorAt(f.code, rng, "%s", f.detail)
}

// unifyNumbers makes all values of a free axis of numbers fractional if one
// is, because the axis becomes one column.
func (a *axis) unifyNumbers() {
	isFloat := func(v axisVal) bool { _, ok := v.v.(float64); return ok }
	if a.kind != "number" || !slices.ContainsFunc(a.vals, isFloat) {
		return
	}
	for i := range a.vals {
		if x, ok := a.vals[i].v.(int64); ok {
			a.vals[i].v = float64(x)
			a.vals[i].cells[0].v = float64(x)
		}
	}
}

func valueKind(v cty.Value) (string, bool) {
	t := v.Type()
	switch {
	case v.IsNull():
		return "", false
	case t == cty.String:
		return "string", true
	case t == cty.Number:
		return "number", true
	case t == cty.Bool:
		return "bool", true
	case (t.IsObjectType() || t.IsMapType()) && v.LengthInt() > 0:
		return "object", true
	}
	return "", false
}

// article puts "a" or "an" before a word.
func article(word string) string {
	if word != "" && strings.ContainsRune("aeiou", rune(word[0])) {
		return "an " + word
	}
	return "a " + word
}

// An exclude takes points out of the matrix.
type exclude struct {
	block *block
	match []axisMatch
	when  *pointExpr
	hits  int
}

// An axisMatch is one attribute of an exclude: the values of an axis that
// match. key is -1, or the index of a key of an axis of objects.
type axisMatch struct {
	axis int
	vals []bool
}

// matches says whether the point is to be taken away. A condition that fails
// matches nothing; it was reported.
func (x *exclude) matches(pt []int32) bool {
	for _, m := range x.match {
		if !m.vals[pt[m.axis]] {
			return false
		}
	}
	if x.when == nil {
		return true
	}
	c := x.when.value(pt)
	c.count()
	return !c.bad && c.v == true
}

func (s *sweepBuild) readExclude(b *block) {
	x := &exclude{block: b}
	ok := true
	if len(b.body.attrs) == 0 {
		s.l.diags.errorAt(codeEmptyExclude, b.rng, "An exclude without attributes would take every point away. Name axes "+
			"and their values, or give a condition: when = ...")
		ok = false
	}
	for _, at := range b.body.attrs {
		if at.name == "when" {
			x.when = s.condition(at)
			ok = ok && x.when != nil
			continue
		}
		m, good := s.readMatch(at)
		x.match = append(x.match, m)
		ok = ok && good
	}
	if !ok {
		s.broken = true
		return
	}
	s.excludes = append(s.excludes, x)
}

// condition makes an expression that is true or false at a point.
func (s *sweepBuild) condition(at *attr) *pointExpr {
	yes, no := &cell{v: true}, &cell{v: false}
	return s.pointExpr(at, "when", s.pointScope("the condition of an exclude", false), func(v any) (*cell, *misfit) {
		switch v {
		case true:
			return yes, nil
		case false:
			return no, nil
		}
		return nil, misfitf(codeValue, "A condition is true or false; this is ", describe(v), ".")
	})
}

// findAxis finds the axis of a name, or the axis of objects with such a key.
func (s *sweepBuild) findAxis(name string) (i, key int) {
	for i, a := range s.axes {
		if a.name == name {
			return i, -1
		}
		if k := slices.Index(a.keys, name); k >= 0 {
			return i, k
		}
	}
	return -1, -1
}

// unknownAxis reports a name that is no axis, unless the axis is there and at
// fault.
func (s *sweepBuild) unknownAxis(at *attr) {
	if !slices.Contains(s.declared, at.name) {
		s.l.diags.errorAt(codeUnknownAxis, at.nameRng,
			"The matrix has no axis %q.%s", at.name, suggestOrList(at.name, s.declared))
	}
}

func (s *sweepBuild) readMatch(at *attr) (axisMatch, bool) {
	i, key := s.findAxis(at.name)
	if i < 0 {
		s.unknownAxis(at)
		return axisMatch{}, false
	}
	a := s.axes[i]
	m := axisMatch{axis: i, vals: make([]bool, len(a.vals))}
	vals, rngs, ok := s.oneOrMore(at, "an exclude")
	if !ok {
		return m, false
	}
	if len(vals) == 0 {
		s.l.diags.errorAt(codeOutside, at.expr.Range(), "An empty list matches nothing.")
		return m, false
	}
	good := true
	for j := range vals {
		found := false
		for k := range a.vals {
			if a.vals[k].equals(vals[j], key) {
				m.vals[k], found = true, true
			}
		}
		if !found {
			s.outside(a, at.name, key, vals[j], rngs[j])
			good = false
		}
	}
	return m, good
}

// oneOrMore evaluates an attribute that is a value of an axis or a list of them.
func (s *sweepBuild) oneOrMore(at *attr, where string) ([]cty.Value, []hcl.Range, bool) {
	v, ok := s.l.value(at.expr, s.scope(where))
	if !ok {
		return nil, nil, false
	}
	if vals, rngs, isList := elements(at.expr, v); isList {
		return vals, rngs, true
	}
	return []cty.Value{v}, []hcl.Range{at.expr.Range()}, true
}

// equals says whether the value, or that of its key, is v, which may be
// written in another way: "8GiB" for the number of bytes.
func (av *axisVal) equals(v cty.Value, key int) bool {
	g, ok := toGo(v)
	if !ok {
		return false
	}
	want := string(encode(nil, g))
	own := av.v
	if key >= 0 {
		own = av.cells[key].v
	} else if raw, ok := toGo(av.val); ok && string(encode(nil, raw)) == want {
		return true
	}
	return string(encode(nil, own)) == want
}

func (s *sweepBuild) outside(a *axis, name string, key int, v cty.Value, rng hcl.Range) {
	g, _ := toGo(v)
	var have []string
	quotes := ""
	for _, av := range a.vals {
		own := av.v
		if key >= 0 {
			own = av.cells[key].v
		}
		have = append(have, show(own))
		if t, isText := g.(string); isText && t == strings.Trim(show(own), `"`) {
			quotes = " This is a string; write it without the quotes."
		} else if t, isText := own.(string); isText && t == show(g) {
			quotes = " This is a number; the axis has strings: write it in quotes."
		}
	}
	hint := quotes
	if t, isText := g.(string); isText && hint == "" && a.kind == "string" {
		var texts []string
		for _, av := range a.vals {
			if own, ok := av.v.(string); ok {
				texts = append(texts, own)
			}
		}
		hint = didYouMean(t, texts)
	}
	s.l.diags.errorAt(codeOutside, rng, "The axis %q has no value %s; it has %s.%s", name, show(g), listOf(have), hint)
}

// readInclude adds the points of an include block.
func (s *sweepBuild) readInclude(b *block) {
	choices := make([][]int32, len(s.axes))
	good := true
	var missing []string
	for i, a := range s.axes {
		at := b.body.attr(a.name)
		if at == nil {
			missing = append(missing, a.name)
			continue
		}
		choices[i] = s.includeValues(a, at)
		good = good && len(choices[i]) > 0
	}
	for _, at := range b.body.attrs {
		if i, key := s.findAxis(at.name); i < 0 || key >= 0 {
			s.unknownAxis(at)
			good = false
		}
	}
	if len(missing) > 0 {
		if !s.broken {
			s.l.diags.errorAt(codeIncomplete, b.rng, "An include names every axis of the matrix; missing: %s.", listOf(missing))
		}
		good = false
	}
	if !good || s.broken {
		s.broken = true
		return
	}
	s.addPoints(b, choices)
}

// addPoints multiplies the values of an include.
func (s *sweepBuild) addPoints(b *block, choices [][]int32) {
	n := 1
	for _, c := range choices {
		if n *= len(c); n+s.included() > maxPoints || n*len(s.axes) > maxCells {
			s.l.diags.errorAt(codeTooMany, b.rng, "The includes have more than %d points.", maxPoints)
			s.broken = true
			return
		}
	}
	s.includes = append(s.includes, include{block: b, points: product(choices)})
}

// product lists all combinations of the choices; the last varies fastest.
func product[T any](choices [][]T) [][]T {
	pts := [][]T{nil}
	for _, c := range choices {
		next := make([][]T, 0, len(pts)*len(c))
		for _, pt := range pts {
			for _, i := range c {
				next = append(next, append(pt[:len(pt):len(pt)], i))
			}
		}
		pts = next
	}
	return pts
}

// An include is one include block and the points that it adds.
type include struct {
	block  *block
	points [][]int32
}

func (s *sweepBuild) included() int {
	n := 0
	for _, i := range s.includes {
		n += len(i.points)
	}
	return n
}

// includeValues finds or adds the values of an axis that an include names.
func (s *sweepBuild) includeValues(a *axis, at *attr) []int32 {
	vals, rngs, ok := s.oneOrMore(at, "an include")
	if !ok {
		return nil
	}
	if len(vals) == 0 {
		s.l.diags.errorAt(codeEmptyAxis, at.expr.Range(), "%q is empty, so the include would add no points at all.", at.name)
		return nil
	}
	var out []int32
	before := s.l.diags.errors
	for i := range vals {
		av, ok := s.axisValue(a, vals[i], rngs[i], fmt.Sprintf("The values of %q are %ss", a.name, a.kind))
		if !ok {
			continue
		}
		k, _ := a.index(av)
		if slices.Contains(out, int32(k)) {
			s.l.diags.errorAt(codeRepeatedVal, rngs[i], "%q lists %s twice.", at.name, show(av.v))
			continue
		}
		out = append(out, int32(k)) //nolint:gosec // at most maxPoints values
	}
	if s.l.diags.errors > before {
		return nil
	}
	return out
}

package sweep

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// A scope says which names an expression may use beside var and local, and
// what they hold.
type scope struct {
	where     string                      // for messages: "a matrix"
	noVars    bool                        // neither var nor local: the expression stands alone
	noLocals  bool                        // var only
	secretsOK bool                        // sensitive variables may be used
	names     map[string][]string         // further roots and the attributes they have
	values    func() map[string]cty.Value // what the further roots hold; called at evaluation
}

func noScope(where string) *scope { return &scope{where: where, noVars: true} }

func plainScope(where string) *scope { return &scope{where: where} }

// at writes a position for a sentence.
func at(r hcl.Range) string {
	return fmt.Sprintf("%s:%d:%d", r.Filename, r.Start.Line, r.Start.Column)
}

// earlier is where something was declared first; in another file, it says why the
// two meet.
func earlier(first, again hcl.Range) string {
	if first.Filename == again.Filename {
		return at(first) + "."
	}
	return at(first) + ". The files of a folder are one configuration; to read one alone, name the file."
}

// stepName is the name that a step of a traversal goes to.
func stepName(s hcl.Traverser) (string, bool) {
	switch s := s.(type) {
	case hcl.TraverseAttr:
		return s.Name, true
	case hcl.TraverseIndex:
		return asString(s.Key)
	}
	return "", false
}

// check looks at every name that the expression uses, before it is evaluated:
// so a wrong name is reported once, with its position and a suggestion, and
// not once a point. It evaluates the locals that the expression needs.
func (l *loader) check(e *expression, sc *scope) bool {
	ok := true
	for _, c := range e.calls {
		if _, known := l.funcs[c.name]; !known {
			l.diags.errorAt(codeUnknownFunc, c.rng,
				"There is no function %q.%s", c.name,
				cmp.Or(functionSlip(c.name), didYouMean(c.name, sortedKeys(l.funcs))))
			ok = false
		}
	}
	for _, t := range e.vars {
		if !l.checkName(t, sc) {
			ok = false
		}
	}
	if ok && !sc.secretsOK {
		if name := l.tainted(e); name != "" {
			l.diags.errorAt(codeSensitive, e.Range(), "The variable %q is sensitive. Its value may only go into the env "+
				"block of a sweep, because everything else is written into results.", name)
			return false
		}
	}
	return ok
}

func (l *loader) checkName(t hcl.Traversal, sc *scope) bool {
	root := t.RootName()
	rng := t.SourceRange()
	known, here := sc.names[root]
	switch {
	case here:
	case sc.noVars:
		l.diags.errorAt(codeOutOfScope, rng,
			"An expression in %s stands alone: it cannot refer to %q.%s", sc.where, root, quoteHint(t))
		return false
	case root == "var":
		known = sortedKeys(l.vars)
	case root == "local" && !sc.noLocals:
		return l.checkLocal(t)
	default:
		return l.unknownRoot(t, sc)
	}
	name, named := "", false
	if len(t) > 1 {
		name, named = stepName(t[1])
	}
	if !named {
		if root == "matrix" || root == "model" || root == "sweep" {
			return true
		}
		l.diags.errorAt(codeUnknownAttr, rng, "%s is no value by itself; name what is meant, as in %s.NAME.", root, root)
		return false
	}
	if slices.Contains(known, name) {
		return true
	}
	rng = hcl.RangeBetween(t[0].SourceRange(), t[1].SourceRange())
	switch root {
	case "var":
		hint := fmt.Sprintf(" The file declares none: add variable %q {}.", name)
		if len(known) > 0 {
			hint = suggestOrList(name, known)
		}
		l.diags.errorAt(codeUnknownVar, rng, "There is no variable %q.%s", name, hint)
	case "matrix":
		l.diags.errorAt(codeUnknownAxis, rng, "The matrix has no axis %q.%s", name, suggestOrList(name, known))
	default:
		l.diags.errorAt(codeUnknownAttr, rng, "%s has no attribute %q.%s", root, name, suggestOrList(name, known))
	}
	return false
}

func suggestOrList(name string, known []string) string {
	if s := didYouMean(name, known); s != "" {
		return s
	}
	if len(known) == 0 {
		return " There are none."
	}
	if len(known) == 1 {
		return " There is only " + known[0] + "."
	}
	return " There are " + listOf(known) + "."
}

// quoteHint helps with the slip of a text without quotes.
func quoteHint(t hcl.Traversal) string {
	if len(t) == 1 {
		return fmt.Sprintf(" A text stands in quotes: %q.", t.RootName())
	}
	return ""
}

func (l *loader) unknownRoot(t hcl.Traversal, sc *scope) bool {
	root, rng := t.RootName(), t[0].SourceRange()
	there := []string{"var"}
	if !sc.noLocals {
		there = append(there, "local")
	}
	there = append(there, sortedKeys(sc.names)...)
	switch {
	case slices.Contains([]string{"matrix", "profile", "model", "sweep", "local"}, root):
		l.diags.errorAt(codeOutOfScope, rng,
			"%q cannot be used in %s, which sees %s.", root, sc.where, strings.Join(there, ", "))
	case slices.Contains(sc.names["matrix"], root):
		l.diags.errorAt(codeUnknownRoot, rng, "There is no name %q here. The axis is matrix.%s.", root, root)
	case l.vars[root] != nil:
		l.diags.errorAt(codeUnknownRoot, rng, "There is no name %q here. The variable is var.%s.", root, root)
	case l.locals[root] != nil:
		l.diags.errorAt(codeUnknownRoot, rng, "There is no name %q here. The local value is local.%s.", root, root)
	default:
		hint := cmp.Or(nameSlip(root), didYouMean(root, there), quoteHint(t))
		l.diags.errorAt(codeUnknownRoot, rng,
			"There is no name %q; %s sees %s.%s", root, sc.where, strings.Join(there, ", "), hint)
	}
	return false
}

// value checks and evaluates an expression and reports what is wrong with it.
// ok is false where it failed, or rests on something that did.
func (l *loader) value(e *expression, sc *scope) (cty.Value, bool) {
	if !l.check(e, sc) {
		return cty.DynamicVal, false
	}
	v, faults := l.evaluate(e, l.context(e, sc))
	for _, f := range faults {
		l.diags.add(f.fault, "%s", f.detail)
	}
	if len(faults) > 0 || !v.IsWhollyKnown() {
		return cty.DynamicVal, false
	}
	return v, true
}

// context holds what the expression may refer to, and only the locals that it
// does refer to: a file of many locals must not cost their square.
func (l *loader) context(e *expression, sc *scope) *hcl.EvalContext {
	ctx := &hcl.EvalContext{Functions: l.funcs, Variables: map[string]cty.Value{}}
	locals := map[string]cty.Value{}
	for _, t := range e.vars {
		switch t.RootName() {
		case "var":
			ctx.Variables["var"] = l.varObj
		case "local":
			if name, ok := stepName(t[min(1, len(t)-1)]); ok && l.locals[name] != nil {
				locals[name] = l.locals[name].value
			}
		}
	}
	ctx.Variables["local"] = cty.ObjectVal(locals)
	if sc.values != nil {
		for k, v := range sc.values() {
			ctx.Variables[k] = v
		}
	}
	return ctx
}

// A finding is a fault of an evaluation that is not reported yet, because it
// may be one of thousands.
type finding struct {
	fault  fault
	detail string
}

// evaluate runs an expression whose names were checked.
func (l *loader) evaluate(e *expression, ctx *hcl.EvalContext) (cty.Value, []finding) {
	if !l.guard.start(2 + e.nodes) {
		return cty.DynamicVal, nil
	}
	v, hd := e.Value(ctx)
	size := weight(v, maxWeight)
	l.guard.total += size / 16 // values are kept
	if l.guard.total > maxTotalWork {
		l.guard.over = true
		l.diags.errorAt(codeTooMuch, e.Range(), "All expressions together take more than %d steps. The last of them was "+
			"this one; simplify it, or the loops and functions that are evaluated at every point.", maxTotalWork)
		return cty.DynamicVal, nil
	}
	if l.guard.exhausted {
		return cty.DynamicVal, []finding{{fault{code: codeTooMuch, rng: e.Range()},
			"The loops of this expression take more than " + fmt.Sprint(maxWork) + " steps."}}
	}
	v, out := l.findings(e, ctx, v, hd)
	if len(out) == 0 && size > maxWeight {
		out = append(out, finding{fault{code: codeTooMuch, rng: e.Range()},
			"The value is too large: more than " + fmt.Sprint(maxWeight) + " elements and bytes, or a number beyond 1e300."})
	}
	if len(out) > 0 {
		return cty.DynamicVal, out
	}
	return v, nil
}

// findings are what is wrong with an evaluation that came to v, and what is left of v.
func (l *loader) findings(e *expression, ctx *hcl.EvalContext, v cty.Value, hd hcl.Diagnostics) (
	_ cty.Value, out []finding) {
	for i, h := range hd {
		if h.Severity != hcl.DiagError || i >= 5 {
			continue
		}
		x, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallDiagExtra](h)
		if ok && errors.Is(x.FunctionCallError(), errBadModel) {
			v = cty.DynamicVal // the model block says what is wrong
			continue
		}
		if h.Summary == "Unknown variable" && l.diags.failed() {
			v = cty.DynamicVal // names were checked: it lacks a value because of what was reported
			continue
		}
		f := findingOf(h, e)
		if h.Summary == "Invalid operand" {
			f.detail += operandSlip(l.diags.sources[f.fault.rng.Filename], f.fault.rng)
			if i > 0 && hd[i-1].Summary == h.Summary {
				continue // the other operand of the same
			}
		}
		if l.tainted(e) != "" {
			f.detail = "The expression uses a sensitive variable, so what it met is not shown."
		} else {
			f.fault.values = l.valuesOf(e, ctx)
		}
		out = append(out, f)
	}
	return v, out
}

// findingOf puts what the evaluation of e met into our words.
func findingOf(h *hcl.Diagnostic, e *expression) finding {
	f := finding{fault: fault{code: evalCode(h.Summary), rng: e.Range()}}
	if h.Subject != nil {
		f.fault.rng = *h.Subject
	}
	f.detail = sentence(h.Detail)
	switch {
	case f.fault.code == codeExprFailed && strings.Contains(h.Detail, "argument must not be null"):
		f.detail = "Null is no operand: what is left to vLLM has no value here. Give one for that case, as in " +
			"coalesce(profile.max_model_len, 0)."
	case f.fault.code == codeExprFailed:
		f.detail = h.Summary + ": " + f.detail
	}
	return f
}

func evalCode(summary string) code {
	switch summary {
	case "Call to unknown function":
		return codeUnknownFunc
	case "Error in function call", "Invalid function argument", "Not enough function arguments",
		"Too many function arguments", "Invalid expanding argument value":
		return codeFuncFailed
	}
	return codeExprFailed
}

// valuesOf shows the short values that an expression used.
func (l *loader) valuesOf(e *expression, ctx *hcl.EvalContext) []string {
	var out []string
	for _, t := range e.vars {
		v, hd := t.TraverseAbs(ctx)
		if hd.HasErrors() {
			continue
		}
		g, ok := toGo(v)
		if _, isMap := g.(map[string]any); !ok || isMap {
			continue
		}
		line := traversalText(t) + " is " + show(g)
		if len(out) < 6 && !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}

func traversalText(t hcl.Traversal) string {
	var b strings.Builder
	for i, s := range t {
		switch s := s.(type) {
		case hcl.TraverseRoot:
			b.WriteString(s.Name)
		case hcl.TraverseAttr:
			b.WriteString("." + s.Name)
		case hcl.TraverseIndex:
			g, _ := toGo(s.Key)
			b.WriteString("[" + show(g) + "]")
		default:
			if i > 0 {
				b.WriteString("[...]")
			}
		}
	}
	return b.String()
}

// tainted names a sensitive variable that the expression's value comes from.
func (l *loader) tainted(e *expression) string {
	for _, t := range e.vars {
		if len(t) < 2 {
			if t.RootName() == "var" {
				for _, n := range sortedKeys(l.vars) {
					if l.vars[n].sensitive {
						return n
					}
				}
			}
			continue
		}
		name, _ := stepName(t[1])
		switch t.RootName() {
		case "var":
			if v := l.vars[name]; v != nil && v.sensitive {
				return name
			}
		case "local":
			if lo := l.locals[name]; lo != nil && lo.taint != "" {
				return lo.taint
			}
		}
	}
	return ""
}

func (l *loader) describeSecretly(e *expression, v cty.Value) string {
	if l.tainted(e) != "" {
		return "a value that comes from a sensitive variable"
	}
	g, ok := toGo(v)
	if !ok {
		return "a value of another kind"
	}
	return describe(g)
}

// toBool accepts bools only, not "true".
func toBool(v cty.Value) (b, ok bool) {
	g, _ := toGo(v)
	b, ok = g.(bool)
	return b, ok
}

// toText accepts strings, numbers and bools.
func toText(v cty.Value) (string, bool) {
	if v.IsNull() || !v.IsKnown() || !v.Type().IsPrimitiveType() {
		return "", false
	}
	s, err := convert.Convert(v, cty.String)
	if err != nil {
		return "", false
	}
	return s.AsString(), true
}

package sweep

import (
	"errors"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// envPrefix starts the name of every environment variable that gives a value.
const envPrefix = "VRAMSWEEP_VAR_"

// A variable is a variable block and the value that won.
type variable struct {
	name      string
	block     *block
	typ       cty.Type
	typed     bool // the block says a type
	defaults  *typeexpr.Defaults
	sensitive bool
	def       cty.Value
	hasDef    bool

	value cty.Value // unknown if anything about it failed
	from  string
	rng   hcl.Range // of the value
}

// A given value waits for its variable's type.
type givenValue struct {
	from string
	rng  hcl.Range
	text *string     // of a flag or the environment: read as the type asks
	expr *expression // of a file
	src  string      // the name of the text in sources
}

// variables reads all variable blocks, then the values given from outside.
func (l *loader) variables() {
	l.vars = map[string]*variable{}
	for _, b := range l.blocksOf("variable") {
		if !isIdentifier(b.label) {
			l.diags.errorAt(codeName, b.labelRng, "%q is no name for a variable: a name has letters, digits and underscores "+
				"and does not start with a digit.", b.label)
			continue
		}
		l.vars[b.label] = l.variable(b)
	}
	given := l.givenValues()
	for _, name := range sortedKeys(l.vars) {
		v := l.vars[name]
		if g, ok := given[name]; ok {
			l.give(v, g)
		} else if v.hasDef {
			v.value, v.from = v.def, "default"
			v.rng = v.block.body.attr("default").expr.Range()
		} else {
			l.diags.errorAt(codeVarNoValue, v.block.rng, "The variable %q has no default, so it needs a value: --var %s=..., "+
				"--var-file, or %s%s in the environment.", name, name, envPrefix, name)
		}
		if weight(v.value, maxWeight) > maxWeight {
			l.diags.errorAt(codeTooMuch, v.block.rng, "The value of the variable %q is too large.", name)
			v.value = cty.DynamicVal
		}
	}
	obj := map[string]cty.Value{}
	for name, v := range l.vars {
		obj[name] = v.value
	}
	l.varObj = cty.ObjectVal(obj)
	for _, name := range sortedKeys(l.vars) {
		l.validate(l.vars[name])
	}
}

// variable reads one block, without its value from outside.
func (l *loader) variable(b *block) *variable {
	v := &variable{name: b.label, block: b, typ: cty.DynamicPseudoType, value: cty.DynamicVal}
	if a := b.body.attr("type"); a != nil {
		typ, defs, hd := typeexpr.TypeConstraintWithDefaults(typeExpr(a.expr))
		if hd.HasErrors() {
			l.diags.errorAt(codeVarConstraint, a.expr.Range(), "A type is string, number, bool, any, or list(...), set(...), "+
				"map(...), tuple([...]), object({...}) of these, without quotes.")
		} else {
			v.typ, v.defaults, v.typed = typ, defs, typ != cty.DynamicPseudoType
		}
	}
	v.sensitive = l.boolAttr(b.body, "sensitive", false, noScope("a variable block"))
	_ = l.stringAttr(b.body, "description", "", noScope("a variable block"))
	if a := b.body.attr("default"); a != nil {
		if v.sensitive {
			l.diags.redactions = append(l.diags.redactions, a.expr.Range())
		}
		v.hasDef, v.def = true, cty.DynamicVal
		if val, ok := l.value(a.expr, noScope("a default")); ok {
			v.def, _ = l.convertVar(v, val, a.expr.Range(), "default")
		}
	}
	return v
}

// typeExpr is the expression of a type; JSON syntax writes it as a string.
func typeExpr(e *expression) hcl.Expression {
	lit, ok := e.Expression.(*hclsyntax.LiteralValueExpr)
	if !ok || !isJSON(e.Range().Filename) {
		return e.Expression
	}
	text, _ := asString(lit.Val)
	if t, hd := hclsyntax.ParseExpression([]byte(text), e.Range().Filename, e.Range().Start); !hd.HasErrors() {
		return t
	}
	return e.Expression
}

// convertVar brings a value to the variable's type.
func (l *loader) convertVar(v *variable, val cty.Value, rng hcl.Range, what string) (cty.Value, bool) {
	if v.defaults != nil {
		val = v.defaults.Apply(val)
	}
	out, err := convert.Convert(val, v.typ)
	if err == nil {
		return out, true
	}
	if v.sensitive {
		l.diags.errorAt(codeVarType, rng, "The %s of the variable %q is not of its type, %s. The variable is sensitive, "+
			"so the value is not shown.", what, v.name, typeexpr.TypeString(v.typ))
		return cty.DynamicVal, false
	}
	found := ""
	if g, ok := toGo(val); ok {
		found = "; this is " + describe(g)
	}
	l.diags.errorAt(codeVarType, rng,
		"The variable %q is of type %s%s.%s", v.name, typeexpr.TypeString(v.typ), found, conversionDetail(err))
	return cty.DynamicVal, false
}

// conversionDetail says which element of a list or an object does not fit.
func conversionDetail(err error) string {
	var pe cty.PathError
	if !errors.As(err, &pe) || len(pe.Path) == 0 {
		return ""
	}
	var b strings.Builder
	for _, step := range pe.Path {
		switch s := step.(type) {
		case cty.GetAttrStep:
			b.WriteString("." + s.Name)
		case cty.IndexStep:
			g, _ := toGo(s.Key)
			b.WriteString("[" + show(g) + "]")
		}
	}
	return " At " + b.String() + ": " + sentence(pe.Error())
}

// givenValues collects the values from outside; the later wins.
func (l *loader) givenValues() map[string]givenValue {
	given := map[string]givenValue{}
	env := slices.Clone(l.in.Env)
	slices.Sort(env)
	for _, kv := range env {
		name, text, ok := strings.Cut(kv, "=")
		name, isVar := strings.CutPrefix(name, envPrefix)
		if _, declared := l.vars[name]; !ok || !isVar || !declared {
			continue // shells are shared: a name for another file is no mistake
		}
		given[name] = l.textValue(name, text, "environment", envPrefix+name)
	}
	for _, file := range l.in.VarFiles {
		l.varFile(file, given)
	}
	for i, kv := range l.in.Vars {
		name, text, ok := strings.Cut(kv, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			l.diags.errorAt(codeVarMalformed, hcl.Range{},
				"--var takes NAME=VALUE; number %d of the --var flags has no equals sign or no name.", i+1)
			continue
		}
		if _, declared := l.vars[name]; !declared {
			hint := didYouMean(name, sortedKeys(l.vars))
			l.diags.errorAt(codeVarUnknownCLI, hcl.Range{},
				"--var %s: the configuration declares no such variable.%s", name, hint)
			continue
		}
		given[name] = l.textValue(name, text, "--var", "--var "+name)
	}
	return given
}

// textValue registers a text as a source of its own, so that messages can
// quote it.
func (l *loader) textValue(name, text, from, src string) givenValue {
	line := name + " = " + text
	l.diags.sources[src] = []byte(line)
	start := hcl.Pos{Line: 1, Column: len(name) + 4, Byte: len(name) + 3}
	end := hcl.Pos{Line: 1, Column: start.Column + len(text), Byte: len(line)}
	return givenValue{from: from, text: &text, src: src, rng: hcl.Range{Filename: src, Start: start, End: end}}
}

// varFile reads a file of assignments.
func (l *loader) varFile(name string, given map[string]givenValue) {
	src, err := readSource(l.in.WorkDir, name)
	if err != nil {
		l.diags.errorAt(codeUnreadable, hcl.Range{}, "--var-file %s: %s.", name, plainError(err))
		return
	}
	l.diags.sources[name] = src
	for _, vname := range sortedKeys(l.vars) { // before anything can be quoted
		if l.vars[vname].sensitive {
			l.diags.redactions = append(l.diags.redactions, wholeFile(name, src))
			break
		}
	}
	r := &reader{diags: l.diags, guard: l.guard}
	b := r.parse(name, src, varFileSpec())
	if b == nil {
		return
	}
	for _, bl := range b.blocks {
		l.diags.errorAt(codeVarDeclared, bl.rng,
			"This file gives values to variables that the sweep file declares. To set %s, write: %s = ...", bl.label, bl.label)
	}
	for _, a := range b.attrs {
		if _, declared := l.vars[a.name]; !declared {
			l.diags.errorAt(codeVarUnknown, a.nameRng,
				"The configuration declares no variable %q.%s", a.name, didYouMean(a.name, sortedKeys(l.vars)))
			continue
		}
		given[a.name] = givenValue{from: "var-file " + name, expr: a.expr, rng: a.expr.Range(), src: name}
	}
}

func wholeFile(name string, src []byte) hcl.Range {
	return hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.Pos{Byte: len(src)}}
}

// varFileSpec accepts variable blocks only to say that they do not belong.
func varFileSpec() *blockSpec {
	return &blockSpec{
		free:   true,
		blocks: []*blockSpec{{name: "variable", label: "name", free: true}},
	}
}

// give sets a variable to a value from outside.
func (l *loader) give(v *variable, g givenValue) {
	v.from, v.rng = g.from, g.rng
	if v.sensitive {
		l.diags.redactions = append(l.diags.redactions, g.rng)
	}
	var val cty.Value
	ok := true
	switch {
	case g.expr != nil:
		val, ok = l.quietly(v, g, func() (cty.Value, bool) { return l.value(g.expr, noScope("a variable file")) })
	case v.typ == cty.String:
		val = cty.StringVal(*g.text)
	default:
		val, ok = l.quietly(v, g, func() (cty.Value, bool) { return l.textExpr(v, g) })
	}
	if ok {
		val, ok = l.convertVar(v, val, g.rng, "value")
	}
	if ok {
		v.value = val
	}
}

// quietly evaluates the value of a sensitive variable without passing on what
// its expression complains about, for that could quote the value.
func (l *loader) quietly(v *variable, g givenValue, f func() (cty.Value, bool)) (cty.Value, bool) {
	if !v.sensitive {
		return f()
	}
	outer := l.diags
	l.diags = newDiags(outer.sources)
	val, ok := f()
	l.diags = outer
	if !ok {
		l.diags.errorAt(codeVarType, g.rng, "The value of the variable %q cannot be read as %s. The variable is "+
			"sensitive, so the value is not shown.", v.name, typeexpr.TypeString(v.typ))
	}
	return val, ok
}

// textExpr reads a text as an expression. A variable without a type takes what
// is no expression as a string.
func (l *loader) textExpr(v *variable, g givenValue) (cty.Value, bool) {
	text := []byte(*g.text)
	r := &reader{diags: l.diags, guard: l.guard}
	if !v.typed {
		r.diags = newDiags(l.diags.sources)
	}
	if !r.checkSize(g.src, text) {
		return cty.StringVal(*g.text), !v.typed
	}
	e, hd := hclsyntax.ParseExpression(text, g.src, g.rng.Start)
	if hd.HasErrors() {
		if v.typed {
			l.diags.errorAt(codeVarType, g.rng, "The variable %q is of type %s; this text is no such value: %s", v.name,
				typeexpr.TypeString(v.typ), sentence(hd[0].Detail))
		}
		return cty.StringVal(*g.text), !v.typed
	}
	x := l.guard.protect(e)
	if !v.typed && (len(x.vars) > 0 || len(x.calls) > 0) {
		return cty.StringVal(*g.text), true
	}
	if len(x.vars) > 0 {
		l.diags.errorAt(codeVarType, g.rng, "The variable %q is of type %s; this is the text %s. (A text within a list or "+
			"an object stands in quotes.)", v.name, typeexpr.TypeString(v.typ), show(*g.text))
		return cty.DynamicVal, false
	}
	checked := &reader{diags: l.diags, guard: l.guard}
	return l.value(checked.expression(e), noScope("the value of a variable"))
}

// validate applies the variable's rules.
func (l *loader) validate(v *variable) {
	for _, b := range v.block.body.blocks {
		cond, msg := b.body.attr("condition"), b.body.attr("error_message")
		if cond == nil || msg == nil {
			continue
		}
		sc := &scope{where: "a validation rule", noLocals: true, secretsOK: true}
		if !slices.ContainsFunc(cond.expr.vars, func(t hcl.Traversal) bool { return refersTo(t, "var", v.name) }) {
			l.diags.errorAt(codeValidation, cond.expr.Range(),
				"The condition does not look at var.%s, the variable whose rule it is.", v.name)
			continue
		}
		val, ok := l.value(cond.expr, sc)
		if !ok {
			continue
		}
		good, isBool := toBool(val)
		if !isBool {
			l.diags.errorAt(codeValidation, cond.expr.Range(),
				"The condition of a rule is true or false; this is %s.", l.describeSecretly(cond.expr, val))
			continue
		}
		if good {
			continue
		}
		text := "The value breaks a rule whose message names a sensitive value."
		if l.tainted(msg.expr) == "" {
			mv, ok := l.value(msg.expr, sc)
			if !ok {
				continue
			}
			if s, isText := asString(mv); isText {
				text = s
			}
		}
		l.diags.errorAt(codeVarRule, v.rng, "%s\n\nThe rule is at %s.", sentence(text), at(cond.expr.Range()))
	}
}

func refersTo(t hcl.Traversal, root, name string) bool {
	if t.RootName() != root || len(t) < 2 {
		return false
	}
	n, ok := stepName(t[1])
	return ok && n == name
}

// variableValues is what the plan says of the variables.
func (l *loader) variableValues() []VariableValue {
	list := []VariableValue{}
	for _, name := range sortedKeys(l.vars) {
		v := l.vars[name]
		out := VariableValue{Name: name, From: v.from, Sensitive: v.sensitive}
		if !v.sensitive {
			out.Value, _ = toGo(v.value)
		}
		list = append(list, out)
	}
	return list
}

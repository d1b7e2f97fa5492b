package sweep

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// A local is one attribute of a locals block.
type local struct {
	name  string
	attr  *attr
	value cty.Value // unknown if it failed
	taint string    // the sensitive variable that it comes from
	state visitState
}

type visitState int

const (
	unvisited visitState = iota
	visiting
	visited
)

// declareLocals notes all locals; they are evaluated when first needed, so
// their order is free.
func (l *loader) declareLocals() {
	l.locals = map[string]*local{}
	for _, b := range l.root.blocks {
		if b.name != "locals" {
			continue
		}
		for _, a := range b.body.attrs {
			if first, ok := l.locals[a.name]; ok {
				l.diags.errorAt(codeDuplicate, a.nameRng,
					"A local value called %q is already declared at %s", a.name, earlier(first.attr.nameRng, a.nameRng))
				continue
			}
			l.locals[a.name] = &local{name: a.name, attr: a, value: cty.DynamicVal}
			l.localOrder = append(l.localOrder, a.name)
		}
	}
}

// evalLocals evaluates the locals that nothing has needed yet.
func (l *loader) evalLocals() {
	for _, name := range l.localOrder {
		l.evalLocal(l.locals[name])
	}
}

func (l *loader) checkLocal(t hcl.Traversal) bool {
	if len(t) < 2 {
		l.diags.errorAt(codeUnknownLocal, t.SourceRange(),
			"local is no value by itself; name what is meant, as in local.NAME.")
		return false
	}
	name, ok := stepName(t[1])
	lo := l.locals[name]
	if !ok || lo == nil {
		l.diags.errorAt(codeUnknownLocal, hcl.RangeBetween(t[0].SourceRange(), t[1].SourceRange()),
			"There is no local value %q.%s", name, suggestOrList(name, sortedKeys(l.locals)))
		return false
	}
	return l.evalLocal(lo)
}

// evalLocal evaluates a local and, before it, those that it refers to. It
// returns false if they refer to each other in a circle.
func (l *loader) evalLocal(lo *local) bool {
	return l.visit(&lo.state, "local."+lo.name, lo.attr.nameRng, func() {
		sc := plainScope("a local value")
		sc.secretsOK = true
		lo.value, _ = l.value(lo.attr.expr, sc)
		lo.taint = l.tainted(lo.attr.expr)
	})
}

// visit evaluates what has a name by f, once; false if names rest on one another
// in a circle or in too long a chain.
func (l *loader) visit(state *visitState, name string, rng hcl.Range, f func()) bool {
	switch {
	case *state == visited:
		return true
	case *state == visiting:
		l.circle(name, rng)
		return false
	case len(l.path) > maxChain:
		l.diags.errorAt(codeTooLarge, rng, "More than %d locals and models rest on one another here.", maxChain)
		*state = visited
		return false
	}
	*state = visiting
	l.path = append(l.path, name)
	f()
	l.path = l.path[:len(l.path)-1]
	*state = visited
	return true
}

// maxChain bounds how many names may rest on one another: each is a level of
// recursion.
const maxChain = 1000

// circle reports the path that closes a circle.
func (l *loader) circle(name string, rng hcl.Range) {
	from := 0
	for i, p := range l.path {
		if p == name {
			from = i
		}
	}
	l.diags.errorAt(codeCircular, rng, "%s → %s", strings.Join(l.path[from:], " → "), name)
}

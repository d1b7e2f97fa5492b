package sweep

import (
	"math/bits"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// A condition like `matrix.input_len * matrix.batch_size > 131072` over two
// long axes is evaluated at each of 100,000 points, and HCL takes microseconds
// for each. The few operations that such conditions are made of are therefore
// also compiled to plain Go. Whatever is outside of these (another operator, a
// fraction, a null, an overflow, values of unlike types) makes the compiled
// form give up, and HCL decides, so that there is one meaning.

// A fastVal is the value of a compiled expression: a whole number, a string or
// a bool.
type fastVal struct {
	kind byte // 'i', 's', 'b'; 0: HCL decides
	i    int64
	s    string
	b    bool
}

type fastFunc func(pt []int32) fastVal

// compile returns the compiled form, or nil if the expression has none.
func (s *sweepBuild) compile(e hclsyntax.Expression) fastFunc {
	switch e := e.(type) {
	case *hclsyntax.ParenthesesExpr:
		return s.compile(e.Expression)
	case *hclsyntax.LiteralValueExpr:
		v := toFast(e.Val)
		if v.kind == 0 {
			return nil
		}
		return func([]int32) fastVal { return v }
	case *hclsyntax.TemplateExpr:
		if !e.IsStringLiteral() {
			return nil
		}
		v, hd := e.Value(nil)
		if hd.HasErrors() {
			return nil
		}
		f := toFast(v)
		return func([]int32) fastVal { return f }
	case *hclsyntax.ScopeTraversalExpr:
		return s.compileName(e.Traversal)
	case *hclsyntax.UnaryOpExpr:
		return compileUnary(e.Op, s.compile(e.Val))
	case *hclsyntax.BinaryOpExpr:
		return compileBinary(e.Op, s.compile(e.LHS), s.compile(e.RHS))
	}
	return nil
}

func toFast(v cty.Value) fastVal {
	if !v.IsWhollyKnown() {
		return fastVal{}
	}
	g, _ := toGo(v)
	return fastOf(g)
}

// fastOf is a value in its compiled form; kind 0 where it has none.
func fastOf(g any) fastVal {
	switch x := g.(type) {
	case int64:
		return fastVal{kind: 'i', i: x}
	case string:
		return fastVal{kind: 's', s: x}
	case bool:
		return fastVal{kind: 'b', b: x}
	}
	return fastVal{}
}

// compileName compiles matrix.AXIS, var.NAME and local.NAME.
func (s *sweepBuild) compileName(t hcl.Traversal) fastFunc {
	if len(t) != 2 {
		return nil
	}
	name, ok := stepName(t[1])
	if !ok {
		return nil
	}
	var fixed cty.Value
	switch t.RootName() {
	case "matrix":
		for i, a := range s.axes {
			if a.name != name {
				continue
			}
			vals := make([]fastVal, len(a.vals))
			for j := range a.vals {
				vals[j] = toFast(a.vals[j].val)
			}
			return func(pt []int32) fastVal { return vals[pt[i]] }
		}
		return nil
	case "var":
		if s.l.vars[name] == nil {
			return nil
		}
		fixed = s.l.vars[name].value
	case "local":
		if s.l.locals[name] == nil {
			return nil
		}
		fixed = s.l.locals[name].value
	default:
		return nil
	}
	v := toFast(fixed)
	if v.kind == 0 {
		return nil
	}
	return func([]int32) fastVal { return v }
}

func compileUnary(op *hclsyntax.Operation, x fastFunc) fastFunc {
	if x == nil {
		return nil
	}
	switch op {
	case hclsyntax.OpLogicalNot:
		return func(pt []int32) fastVal {
			v := x(pt)
			if v.kind != 'b' {
				return fastVal{}
			}
			return fastVal{kind: 'b', b: !v.b}
		}
	case hclsyntax.OpNegate:
		return func(pt []int32) fastVal {
			v := x(pt)
			if v.kind != 'i' || v.i == -v.i && v.i != 0 {
				return fastVal{}
			}
			return fastVal{kind: 'i', i: -v.i}
		}
	}
	return nil
}

func compileBinary(op *hclsyntax.Operation, x, y fastFunc) fastFunc {
	f := fastOps()[op]
	if x == nil || y == nil || f == nil {
		return nil
	}
	return func(pt []int32) fastVal {
		a := x(pt)
		if a.kind == 0 {
			return a
		}
		b := y(pt)
		if b.kind != a.kind {
			return fastVal{}
		}
		return f(a, b)
	}
}

// fastOps are the compiled operations, of two values of the same kind.
func fastOps() map[*hclsyntax.Operation]func(a, b fastVal) fastVal {
	compare := func(test func(a, b int64) bool) func(a, b fastVal) fastVal {
		return func(a, b fastVal) fastVal {
			if a.kind != 'i' {
				return fastVal{}
			}
			return fastVal{kind: 'b', b: test(a.i, b.i)}
		}
	}
	logic := func(test func(a, b bool) bool) func(a, b fastVal) fastVal {
		return func(a, b fastVal) fastVal {
			if a.kind != 'b' {
				return fastVal{}
			}
			return fastVal{kind: 'b', b: test(a.b, b.b)}
		}
	}
	return map[*hclsyntax.Operation]func(a, b fastVal) fastVal{
		hclsyntax.OpAdd:                fastAdd,
		hclsyntax.OpSubtract:           func(a, b fastVal) fastVal { return fastAdd(a, fastVal{kind: b.kind, i: -b.i}) },
		hclsyntax.OpMultiply:           fastMultiply,
		hclsyntax.OpLessThan:           compare(func(a, b int64) bool { return a < b }),
		hclsyntax.OpLessThanOrEqual:    compare(func(a, b int64) bool { return a <= b }),
		hclsyntax.OpGreaterThan:        compare(func(a, b int64) bool { return a > b }),
		hclsyntax.OpGreaterThanOrEqual: compare(func(a, b int64) bool { return a >= b }),
		hclsyntax.OpLogicalAnd:         logic(func(a, b bool) bool { return a && b }),
		hclsyntax.OpLogicalOr:          logic(func(a, b bool) bool { return a || b }),
		hclsyntax.OpEqual:              func(a, b fastVal) fastVal { return fastVal{kind: 'b', b: a == b} },
		hclsyntax.OpNotEqual:           func(a, b fastVal) fastVal { return fastVal{kind: 'b', b: a != b} },
	}
}

// maxFast bounds the operands of sums: beyond it HCL decides.
const maxFast = 1 << 61

func fastAdd(a, b fastVal) fastVal {
	if a.kind != 'i' || a.i > maxFast || a.i < -maxFast || b.i > maxFast || b.i < -maxFast {
		return fastVal{}
	}
	return fastVal{kind: 'i', i: a.i + b.i}
}

func fastMultiply(a, b fastVal) fastVal {
	if a.kind != 'i' || a.i < 0 || b.i < 0 {
		return fastVal{}
	}
	hi, lo := bits.Mul64(uint64(a.i), uint64(b.i))
	if hi != 0 || lo > maxFast {
		return fastVal{}
	}
	return fastVal{kind: 'i', i: int64(lo)}
}

// toAny is the value as the rest of the package holds it; ok is false where
// HCL decides.
func (v fastVal) toAny() (any, bool) {
	switch v.kind {
	case 'i':
		return v.i, true
	case 's':
		return v.s, true
	case 'b':
		return v.b, true
	}
	return nil, false
}

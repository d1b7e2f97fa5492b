package sweep

import (
	"bytes"
	"math"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Bounds of what is parsed and evaluated. They are far above any sensible file
// and far below what hurts: parser and evaluator recurse, so depth is bounded
// before they see a file, and an expression may only produce so much.
const (
	maxDepth      = 64        // brackets within brackets
	maxExprTokens = 2000      // tokens of one expression between two commas, literals not counted
	maxNumberLen  = 48        // characters of a number literal
	maxWeight     = 1 << 18   // bytes and elements of one value
	maxWork       = 1 << 19   // steps that the loops of one expression may take
	maxTotalWork  = 1 << 23   // the same of all evaluations together; seconds, not minutes
	maxCells      = 4_000_000 // points of a sweep times what each of them decides
	maxProfiles   = 400_000   // of a configuration
	maxNumber     = 1e300     // magnitude of a number
)

// checkText reports a file that is no text, where the parser would stumble over
// every byte of it.
func (r *reader) checkText(name string, src []byte) bool {
	if utf8.Valid(src) {
		return true
	}
	if len(src) > 1 && (src[0] == 0xff && src[1] == 0xfe || src[0] == 0xfe && src[1] == 0xff) {
		r.diags.errorAt(codeSyntax, placeIn(name, 1, 0, 0), "The file is UTF-16. Save it as UTF-8.")
		return false
	}
	good := 0
	for good < len(src) {
		c, n := utf8.DecodeRune(src[good:])
		if c == utf8.RuneError && n <= 1 {
			break
		}
		good += n
	}
	line := bytes.Count(src[:good], []byte("\n")) + 1
	column := utf8.RuneCount(src[bytes.LastIndexByte(src[:good], '\n')+1 : good])
	r.diags.errorAt(codeSyntax, placeIn(name, line, column, good),
		"The byte %#x here is no UTF-8, which every file has to be.", src[good])
	return false
}

// checkSize reports a file that is too large or too deep to parse.
func (r *reader) checkSize(name string, src []byte) bool {
	if len(src) > maxFileBytes {
		r.diags.errorAt(codeTooLarge, hcl.Range{}, "%s has more than %d bytes; a sweep file is a few KiB. Generate long "+
			"lists with range() or for expressions.", name, maxFileBytes)
		return false
	}
	if isJSON(name) {
		return r.checkJSON(name, src)
	}
	toks, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos) // what the lexer dislikes the parser reports
	return r.checkTokens(toks)
}

// checkTemplate does the same for a string of JSON syntax.
func (r *reader) checkTemplate(rng hcl.Range, src []byte, start hcl.Pos) bool {
	toks, _ := hclsyntax.LexTemplate(src, rng.Filename, start)
	return r.checkTokens(toks)
}

// checkTokens bounds nesting and the length of expressions.
func (r *reader) checkTokens(toks hclsyntax.Tokens) bool {
	var open []hclsyntax.TokenType
	counts := []int{0}
	for i := range toks {
		t := &toks[i]
		top := len(counts) - 1
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen,
			hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			counts[top]++
			open = append(open, t.Type)
			counts = append(counts, 0)
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen,
			hclsyntax.TokenTemplateSeqEnd, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			if len(open) > 0 {
				open, counts = open[:len(open)-1], counts[:top]
			}
		case hclsyntax.TokenComma:
			counts[top] = 0
		case hclsyntax.TokenNewline:
			if len(open) == 0 || open[len(open)-1] == hclsyntax.TokenOBrace {
				counts[top] = 0
			}
		case hclsyntax.TokenNumberLit:
			if len(t.Bytes) > maxNumberLen {
				r.diags.errorAt(codeTooLarge, t.Range,
					"This number has %d characters; at most %d are read.", len(t.Bytes), maxNumberLen)
				return false
			}
			if wideExponent(t.Bytes) { // the digits of 1e999999999 alone would fill the memory
				r.diags.errorAt(codeTooLarge, t.Range, "The exponent of this number is too large.")
				return false
			}
		case hclsyntax.TokenStringLit, hclsyntax.TokenQuotedLit, hclsyntax.TokenComment:
		default:
			counts[top]++
		}
		if len(open) > maxDepth {
			r.diags.errorAt(codeTooLarge, t.Range, "Brackets are nested more than %d deep here.", maxDepth)
			return false
		}
		if counts[len(counts)-1] > maxExprTokens {
			r.diags.errorAt(codeTooLarge, t.Range,
				"This expression has more than %d parts. Split it with locals.", maxExprTokens)
			return false
		}
	}
	return true
}

// checkJSON bounds the nesting and the numbers of JSON syntax.
func (r *reader) checkJSON(name string, src []byte) bool {
	depth, line, lineStart, inString, number := 0, 1, 0, false, 0
	for i, skip := 0, false; i < len(src); i++ {
		c := src[i]
		if skip {
			skip = false
			continue
		}
		if c == '\n' {
			line, lineStart = line+1, i+1
		}
		number = numberRun(src, i, number, inString)
		if number > maxNumberLen || number > 6 && wideExponent(src[i-number+1:i+1]) {
			r.diags.errorAt(codeTooLarge, placeIn(name, line, i-lineStart, i), "This number is too long or too large.")
			return false
		}
		switch {
		case c == '"':
			inString = !inString
		case inString:
			skip = c == '\\'
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				r.diags.errorAt(codeTooLarge, placeIn(name, line, i-lineStart, i),
					"Brackets are nested more than %d deep here.", maxDepth)
				return false
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return true
}

func placeIn(name string, line, column, offset int) hcl.Range {
	p := hcl.Pos{Line: line, Column: column + 1, Byte: offset}
	return hcl.Range{Filename: name, Start: p, End: p}
}

// numberRun is how many characters of a number end at i.
func numberRun(src []byte, i, before int, inString bool) int {
	if inString || !bytes.ContainsRune([]byte("0123456789.eE+-"), rune(src[i])) {
		return 0
	}
	return before + 1
}

// wideExponent says whether a number's exponent has more than four characters.
func wideExponent(lit []byte) bool {
	i := bytes.IndexAny(lit, "eE")
	return i >= 0 && len(lit)-i > 5
}

// A budget bounds the work of one evaluation. HCL's for expressions can be
// nested, so a line of text can ask for 10^12 elements.
type budget struct {
	left      int  // of this evaluation
	total     int  // spent by all
	exhausted bool // this evaluation
	over      bool // all of them: nothing is evaluated any more
}

// start begins an evaluation that costs n before its loops; false if the
// configuration has used up what all evaluations together may cost.
func (b *budget) start(n int) bool {
	b.left, b.exhausted = maxWork, false
	b.total += n
	return !b.over
}

// spend takes n from the budget and says whether it held.
func (b *budget) spend(n int) bool {
	b.total += n
	if b.exhausted || n > b.left || b.total > maxTotalWork {
		b.exhausted = true
		return false
	}
	b.left -= n
	return true
}

// An expression is one expression of a file, with the names that it uses.
type expression struct {
	hclsyntax.Expression
	vars  []hcl.Traversal
	calls []call
	nodes int // how large it is
}

// A call is one call of a function.
type call struct {
	name string
	rng  hcl.Range
}

// protect notes what e refers to and puts the budget's guards around the parts
// of every loop in it, which it changes in place. The names come first: hcl
// does not see through a guard.
func (b *budget) protect(e hclsyntax.Expression) *expression {
	x := &expression{Expression: e, vars: e.Variables()}
	_ = hclsyntax.VisitAll(e, func(n hclsyntax.Node) hcl.Diagnostics {
		if g, ok := n.(*guardedExpr); ok {
			n = g.Expression
		}
		x.nodes += costOf(n)
		switch n := n.(type) {
		case *hclsyntax.FunctionCallExpr:
			x.calls = append(x.calls, call{n.Name, n.NameRange})
		case *hclsyntax.ForExpr:
			cond := 0
			if n.CondExpr != nil {
				cond = sizeOf(n.CondExpr)
			}
			n.CollExpr = &guardedExpr{Expression: n.CollExpr, budget: b, each: 1 + cond}
			n.ValExpr = &guardedExpr{Expression: n.ValExpr, budget: b, value: true, once: sizeOf(n.ValExpr)}
			if n.KeyExpr != nil {
				n.KeyExpr = &guardedExpr{Expression: n.KeyExpr, budget: b, value: true, once: sizeOf(n.KeyExpr)}
			}
		case *hclsyntax.SplatExpr:
			n.Source = &guardedExpr{Expression: n.Source, budget: b, each: sizeOf(n.Each)}
		}
		return nil
	})
	return x
}

// A guardedExpr is a part of a loop: it spends from the budget and becomes
// unknown when nothing is left, which ends every loop around it.
type guardedExpr struct {
	hclsyntax.Expression
	budget *budget
	value  bool // an element that is produced, not the collection gone through
	each   int  // what each element of the collection costs beside its value
	once   int  // what evaluating the expression costs
}

// sizeOf counts the nodes of an expression: what evaluating it once costs.
func sizeOf(e hclsyntax.Expression) int {
	n := 0
	_ = hclsyntax.VisitAll(e, func(node hclsyntax.Node) hcl.Diagnostics {
		n += costOf(node)
		return nil
	})
	return n
}

// costOf is what one node costs, without those below it.
func costOf(node hclsyntax.Node) int {
	if t, ok := node.(*hclsyntax.TemplateExpr); ok && !t.IsStringLiteral() {
		return 1 + writeCost*len(t.Parts)/2
	}
	return 1
}

// Value evaluates the expression, if the budget allows.
func (g *guardedExpr) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	if g.budget.exhausted {
		return cty.DynamicVal, nil
	}
	v, hd := g.Expression.Value(ctx)
	n := 1
	if g.value {
		n = weight(v, maxWeight)
	} else if known := v.IsKnown() && !v.IsNull() && v.CanIterateElements(); known {
		n = v.LengthInt() * max(g.each, 1)
	}
	if !g.budget.spend(n + g.once) {
		return cty.DynamicVal, nil
	}
	return v, hd
}

// weight counts the bytes of the strings and the elements of a value, up to
// limit.
func weight(v cty.Value, limit int) int {
	if v.IsNull() || !v.IsKnown() {
		return 1
	}
	t := v.Type()
	switch {
	case t == cty.String:
		return 1 + len(v.AsString())
	case t == cty.Number:
		if !sensibleNumber(v) {
			return limit + 1
		}
		return 1
	case !v.CanIterateElements():
		return 1
	}
	n := 1
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		n += weight(e, limit-n)
		if k.Type() == cty.String {
			n += len(k.AsString())
		}
		if n > limit {
			return limit + 1
		}
	}
	return n
}

// sensibleNumber is false for numbers whose digits would fill pages.
func sensibleNumber(v cty.Value) bool {
	f := v.AsBigFloat()
	if f.IsInf() {
		return false
	}
	x, _ := f.Float64()
	return math.Abs(x) <= maxNumber
}

package sweep

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	hcljson "github.com/hashicorp/hcl/v2/json"
)

// A body is what stands between braces, the same for HCL and JSON syntax, in
// source order and already checked against the schema.
type body struct {
	attrs  []*attr
	blocks []*block
	spec   *blockSpec
	rng    hcl.Range // the place to report what is missing
	bent   bool      // a block in it is at fault: what is missing may be that
}

type attr struct {
	name    string
	nameRng hcl.Range
	rng     hcl.Range
	expr    *expression
}

type block struct {
	name     string
	label    string
	labelRng hcl.Range
	rng      hcl.Range // the header
	body     *body
}

func (b *body) attr(name string) *attr {
	for _, a := range b.attrs {
		if a.name == name {
			return a
		}
	}
	return nil
}

func (b *body) block(name string) *block {
	for _, bl := range b.blocks {
		if bl.name == name {
			return bl
		}
	}
	return nil
}

// reader turns parsed files into bodies.
type reader struct {
	diags *diags
	guard *budget
}

// parse reads one file into a body; nil if its syntax is broken.
func (r *reader) parse(name string, src []byte, spec *blockSpec) *body {
	if !r.checkText(name, src) || !r.checkSize(name, src) {
		return nil
	}
	if isJSON(name) {
		f, hd := hcljson.Parse(src, name)
		if hd.HasErrors() {
			if first := bytes.TrimSpace(src); len(first) > 0 && first[0] != '{' && first[0] != '[' {
				hd[0].Detail = sentence(hd[0].Detail) + " A file whose name ends in .json is read as JSON; HCL syntax needs a " +
					"name that ends in .hcl."
			}
			r.diags.syntax(hd)
			return nil
		}
		return r.jsonBody(f.Body, spec, f.Body.MissingItemRange())
	}
	f, hd := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	if hd.HasErrors() {
		if detail, rng := syntaxSlip(src, hd); detail != "" {
			r.diags.errorAt(codeSyntax, rng, "%s", detail)
			return nil
		}
		if bytes.HasPrefix(bytes.TrimSpace(src), []byte("{")) {
			hd[0].Detail = sentence(hd[0].Detail) + " JSON syntax needs a name that ends in .hcl.json."
		}
		r.diags.syntax(hd)
		return nil
	}
	native, ok := f.Body.(*hclsyntax.Body)
	if !ok {
		r.diags.errorAt(codeSyntax, hcl.Range{Filename: name}, "The file has no body.")
		return nil
	}
	return r.nativeBody(native, spec, native.SrcRange)
}

func (r *reader) nativeBody(n *hclsyntax.Body, spec *blockSpec, header hcl.Range) *body {
	b := &body{spec: spec, rng: header}
	for _, a := range n.Attributes {
		b.attrs = append(b.attrs, &attr{name: a.Name, nameRng: a.NameRange, rng: a.SrcRange, expr: r.expression(a.Expr)})
	}
	slices.SortFunc(b.attrs, func(a, b *attr) int { return a.nameRng.Start.Byte - b.nameRng.Start.Byte })
	b.attrs = slices.DeleteFunc(b.attrs, func(a *attr) bool {
		b.bent = b.bent || spec.block(a.name) != nil
		return !r.knownAttr(a.name, a.nameRng, spec)
	})
	for _, nb := range n.Blocks {
		if spec.name == "" {
			r.diags.blocks = append(r.diags.blocks, enclosing{nb.Range(), headerText(nb)})
		}
		bs := spec.block(nb.Type)
		if bs == nil {
			r.unknownBlock(nb.Type, nb.TypeRange, spec)
			b.bent = true
			continue
		}
		bl := &block{name: nb.Type, rng: nb.DefRange()}
		if !r.nativeLabel(bl, nb, bs) {
			b.bent = true
			continue
		}
		bl.body = r.nativeBody(nb.Body, bs, bl.rng)
		b.blocks = append(b.blocks, bl)
	}
	r.checkBody(b)
	return b
}

// expression takes an expression in. HCL lets the last of two equal keys of an
// object win without a word; here it is a fault.
func (r *reader) expression(e hclsyntax.Expression) *expression {
	_ = hclsyntax.VisitAll(e, func(n hclsyntax.Node) hcl.Diagnostics {
		obj, ok := n.(*hclsyntax.ObjectConsExpr)
		if !ok || len(obj.Items) < 2 {
			return nil
		}
		seen := make(map[string]hcl.Range, len(obj.Items))
		for _, it := range obj.Items {
			key, isText := literalText(it.KeyExpr)
			if !isText {
				continue
			}
			if first, twice := seen[key]; twice {
				r.diags.errorAt(codeDuplicate, it.KeyExpr.Range(), "The object has the key %q already, at %s.", key, at(first))
			}
			seen[key] = it.KeyExpr.Range()
		}
		return nil
	})
	return r.guard.protect(e)
}

// literalText is the text of a key or a string that is written out.
func literalText(e hclsyntax.Expression) (string, bool) {
	switch x := e.(type) {
	case *hclsyntax.ObjectConsKeyExpr:
		if word := hcl.ExprAsKeyword(x); word != "" && !x.ForceNonLiteral {
			return word, true
		}
		return literalText(x.Wrapped)
	case *hclsyntax.LiteralValueExpr:
		return asString(x.Val)
	case *hclsyntax.TemplateExpr:
		if x.IsStringLiteral() {
			v, _ := x.Value(nil)
			return asString(v)
		}
	}
	return "", false
}

// headerText writes the first line of a block: `sweep "kv"`.
func headerText(nb *hclsyntax.Block) string {
	out := nb.Type
	for _, label := range nb.Labels {
		out += " " + strconv.Quote(label)
	}
	return out
}

func (r *reader) nativeLabel(bl *block, nb *hclsyntax.Block, bs *blockSpec) bool {
	switch {
	case bs.label == "" && len(nb.Labels) > 0:
		r.diags.errorAt(codeLabels, nb.LabelRanges[0],
			"%s block has no label. Write: %s {", capital(article(bs.name)), bs.name)
		return false
	case bs.label != "" && len(nb.Labels) == 0:
		r.diags.errorAt(codeLabels, nb.TypeRange,
			"%s block has one label, its %s. Write: %s %q {", capital(article(bs.name)), bs.label, bs.name,
			cmp.Or(bs.sample, "..."))
		return false
	case len(nb.Labels) > 1:
		r.diags.errorAt(codeLabels, nb.LabelRanges[1],
			"%s block has one label, its %s; this is a second.", capital(article(bs.name)), bs.label)
		return false
	case bs.label != "":
		bl.label, bl.labelRng = nb.Labels[0], nb.LabelRanges[0]
	}
	return true
}

func (r *reader) jsonBody(hb hcl.Body, spec *blockSpec, header hcl.Range) *body {
	b := &body{spec: spec, rng: header}
	hs := &hcl.BodySchema{}
	for _, bs := range spec.blocks {
		h := hcl.BlockHeaderSchema{Type: bs.name}
		if bs.label != "" {
			h.LabelNames = []string{bs.label}
		}
		hs.Blocks = append(hs.Blocks, h)
	}
	content, _, hd := hb.PartialContent(hs)
	attrs, ad := hb.JustAttributes()
	if hd.HasErrors() || ad.HasErrors() {
		r.diags.syntax(append(hd, ad...))
		return b
	}
	for _, a := range attrs {
		if spec.block(a.Name) == nil {
			b.attrs = append(b.attrs, &attr{name: a.Name, nameRng: a.NameRange, rng: a.Range})
		}
	}
	slices.SortFunc(b.attrs, func(a, b *attr) int { return a.nameRng.Start.Byte - b.nameRng.Start.Byte })
	given := len(b.attrs)
	b.attrs = slices.DeleteFunc(b.attrs, func(a *attr) bool { return !r.knownAttr(a.name, a.nameRng, spec) })
	b.bent = len(b.attrs) < given
	for _, a := range b.attrs {
		a.expr = r.expression(r.jsonExpr(attrs[a.name].Expr))
	}
	for _, hbl := range content.Blocks {
		bs := spec.block(hbl.Type)
		bl := &block{name: hbl.Type, rng: hbl.TypeRange}
		if bs.label != "" {
			bl.label, bl.labelRng = hbl.Labels[0], hbl.LabelRanges[0]
			bl.rng = bl.labelRng
		}
		bl.body = r.jsonBody(hbl.Body, bs, bl.rng)
		b.blocks = append(b.blocks, bl)
	}
	slices.SortStableFunc(b.blocks, func(a, b *block) int { return a.rng.Start.Byte - b.rng.Start.Byte })
	r.checkBody(b)
	return b
}

// knownAttr reports an attribute that may not stand in the block.
func (r *reader) knownAttr(name string, rng hcl.Range, spec *blockSpec) bool {
	if spec.attr(name) != nil {
		return true
	}
	if spec.free {
		if !isIdentifier(name) {
			hint := ""
			if plain := strings.ReplaceAll(name, "-", "_"); isIdentifier(plain) {
				hint = " Write " + plain + "."
			}
			r.diags.errorAt(codeName, rng,
				"%q is no name: a name has letters, digits and underscores and does not start with a digit.%s", name, hint)
			return false
		}
		return true
	}
	attrs, blocks := spec.names()
	where := spec.where()
	switch {
	case spec.block(name) != nil:
		r.diags.errorAt(codeUnknownArg, rng, "%q is a block: write it without the equals sign, %s {", name, name)
	case spec.name == "":
		r.diags.errorAt(codeUnknownArg, rng, "Outside of blocks a sweep file has no arguments.%s A file that gives values "+
			"to variables is named with --var-file.", didYouMean(name, blocks))
	case len(attrs) == 0:
		r.diags.errorAt(codeUnknownArg, rng,
			"In %s there are no arguments, only the blocks %s.%s", where, listOf(blocks), didYouMean(name, blocks))
	default:
		hint := cmp.Or(argumentSlip(name), didYouMean(name, append(attrs, blocks...)), " It may hold "+listOf(attrs)+".")
		r.diags.errorAt(codeUnknownArg, rng, "In %s there is no argument %q.%s", where, name, hint)
	}
	return false
}

func (r *reader) unknownBlock(name string, rng hcl.Range, spec *blockSpec) {
	attrs, blocks := spec.names()
	where := spec.where()
	switch {
	case spec.attr(name) != nil:
		r.diags.errorAt(codeUnknownBlock, rng, "%q is an argument: write it with an equals sign.", name)
	case len(spec.blocks) == 0:
		hint := ""
		if sw := schema().block("sweep"); sw.block(name) != nil && sw.block(spec.name) != nil {
			hint = fmt.Sprintf(" The block %q stands beside it, not in it.", name)
		}
		r.diags.errorAt(codeNoBlocksHere, rng, "In %s there are attributes only, no blocks.%s", where, hint)
	default:
		hint := cmp.Or(didYouMean(name, append(blocks, attrs...)), " It may hold "+listOf(blocks)+".")
		r.diags.errorAt(codeUnknownBlock, rng, "In %s there is no block %q.%s", where, name, hint)
	}
}

// checkBody reports what is missing and what stands too often.
func (r *reader) checkBody(b *body) {
	for _, as := range b.spec.attrs {
		if as.need != "" && b.attr(as.name) == nil {
			r.diags.errorAt(codeMissingArg, b.rng,
				"%s block needs the argument %q: %s.", capital(article(b.spec.name)), as.name, as.need)
		}
	}
	for _, bs := range b.spec.blocks {
		if bs.needed && b.block(bs.name) == nil && !b.bent {
			r.diags.errorAt(codeMissingBlock, b.rng, "%s block needs %s block.", capital(article(b.spec.name)), article(bs.name))
		}
	}
	if b.spec.name != "" { // that of all files together is checked once they are read
		r.checkRepeated(b)
	}
}

// checkRepeated reports blocks that stand once at most and do not.
func (r *reader) checkRepeated(b *body) {
	first := map[string]*block{}
	for _, bl := range b.blocks {
		if first[bl.name] == nil {
			first[bl.name] = bl
		} else if b.spec.block(bl.name).single {
			r.diags.errorAt(codeRepeatedBlk, bl.rng,
				"There is one %s block at most; the first is at %s", bl.name, earlier(first[bl.name].rng, bl.rng))
		}
	}
}

// jsonExpr turns an expression of JSON syntax into one of native syntax, so
// that both mean the same and cost the same. Strings are templates, as in
// HCL's JSON specification; they are parsed once, not at every evaluation.
func (r *reader) jsonExpr(e hcl.Expression) hclsyntax.Expression {
	if items, hd := hcl.ExprMap(e); !hd.HasErrors() {
		obj := &hclsyntax.ObjectConsExpr{SrcRange: e.Range(), OpenRange: e.StartRange()}
		for _, it := range items {
			obj.Items = append(obj.Items, hclsyntax.ObjectConsItem{KeyExpr: r.jsonExpr(it.Key), ValueExpr: r.jsonExpr(it.Value)})
		}
		return obj
	}
	if items, hd := hcl.ExprList(e); !hd.HasErrors() {
		tup := &hclsyntax.TupleConsExpr{SrcRange: e.Range(), OpenRange: e.StartRange()}
		for _, it := range items {
			tup.Exprs = append(tup.Exprs, r.jsonExpr(it))
		}
		return tup
	}
	v, _ := e.Value(nil) // without a context the parser returns the literal as it is
	lit := &hclsyntax.LiteralValueExpr{Val: v, SrcRange: e.Range()}
	s, ok := asString(v)
	if !ok || !strings.Contains(s, "${") && !strings.Contains(s, "%{") { // no more than its text
		return lit
	}
	start := e.Range().Start
	start.Column++
	start.Byte++
	lit.Val = unknown()
	if !r.checkTemplate(e.Range(), []byte(s), start) {
		return lit
	}
	t, hd := hclsyntax.ParseTemplate([]byte(s), e.Range().Filename, start)
	if hd.HasErrors() {
		r.diags.syntax(hd)
		return lit
	}
	return t
}

package sweep

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format brings a sweep file into its canonical layout. Comments stay, and what
// it has formatted it leaves alone. A file that cannot be parsed is an *Error:
// its tokens would be moved around blindly. JSON files are not formatted.
func Format(filename string, src []byte) ([]byte, error) {
	d := newDiags(sources{filename: src})
	r := &reader{diags: d, guard: &budget{}}
	if isJSON(filename) {
		d.errorAt(codeSyntax, hcl.Range{}, "%s is a JSON file, which fmt does not format.", filename)
	} else if r.checkSize(filename, src) {
		if _, hd := hclsyntax.ParseConfig(src, filename, hcl.InitialPos); hd.HasErrors() {
			d.syntax(hd)
		}
	}
	if _, err := d.result(); err != nil {
		return nil, err
	}
	out := hclwrite.Format(src)
	for range 3 { // a comment after a bracket can take a second round
		again := hclwrite.Format(out)
		if string(again) == string(out) {
			break
		}
		out = again
	}
	return out, nil
}

package sweep

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// How messages are written
//
// The summary is two to five words without a period and names the thing that
// is wrong; it belongs to the code. The detail is whole sentences: what was
// found, what is possible, what to do. The range is the smallest that holds
// the fault: the element, not the list. Names and strings are quoted, numbers
// are not. A list of alternatives has at most eight. A fault at many points of
// a matrix is one message that says at how many. No value that came from a
// sensitive variable is ever part of a message.

// maxDiagnostics bounds what one configuration can complain about.
const maxDiagnostics = 200

// diags collects what is wrong. Several parts of the loader share one.
type diags struct {
	list       []Diagnostic
	sources    sources
	blocks     []enclosing // the blocks at the top of the files
	redactions []hcl.Range // hold values of sensitive variables: never quoted
	dropped    int
	errors     int
}

func newDiags(src sources) *diags {
	return &diags{sources: src}
}

// enclosing is a block that messages name as the context of their place.
type enclosing struct {
	rng    hcl.Range
	header string // `sweep "kv"`
}

// contextOf names the block around a place.
func (d *diags) contextOf(r hcl.Range) string {
	for _, b := range d.blocks {
		if b.rng.Filename == r.Filename && b.rng.Start.Byte <= r.Start.Byte && r.Start.Byte < b.rng.End.Byte {
			return b.header
		}
	}
	return ""
}

// fault is one message on its way in.
type fault struct {
	code   code
	rng    hcl.Range // zero: nowhere in particular
	values []string
	warn   bool
}

// add takes a message in.
func (d *diags) add(f fault, format string, args ...any) {
	sev := SeverityError
	if f.warn {
		sev = SeverityWarning
	} else {
		d.errors++
	}
	if len(d.list) >= maxDiagnostics {
		d.dropped++
		return
	}
	dg := Diagnostic{
		Severity: sev, Code: f.code.id(), Summary: f.code.summary(),
		Detail: strings.TrimSpace(fmt.Sprintf(format, args...)),
	}
	if f.rng.Filename != "" {
		f.rng = d.clamp(f.rng)
		dg.Range = &Range{f.rng.Filename, Pos(f.rng.Start), Pos(f.rng.End)}
		dg.Snippet = d.snippet(f.rng, d.contextOf(f.rng), f.values)
	} else if len(f.values) > 0 {
		dg.Snippet = &Snippet{Values: f.values}
	}
	d.list = append(d.list, dg)
}

// errorAt is add for the usual case.
func (d *diags) errorAt(c code, rng hcl.Range, format string, args ...any) {
	d.add(fault{code: c, rng: rng}, format, args...)
}

// warnAt is add for a warning.
func (d *diags) warnAt(c code, rng hcl.Range, format string, args ...any) {
	d.add(fault{code: c, rng: rng, warn: true}, format, args...)
}

// full says that no further message is kept.
func (d *diags) full() bool { return len(d.list) >= maxDiagnostics }

func (d *diags) failed() bool { return d.errors > 0 }

// result sorts what was collected and splits off the warnings.
func (d *diags) result() (warnings []Diagnostic, err error) {
	sortDiagnostics(d.list)
	d.list = slices.CompactFunc(d.list, sameDiagnostic)
	if d.failed() {
		return nil, &Error{list: d.list, dropped: d.dropped}
	}
	return d.list, nil
}

func sameDiagnostic(a, b Diagnostic) bool {
	return a.Code == b.Code && a.Detail == b.Detail && a.Range != nil && b.Range != nil && *a.Range == *b.Range
}

func sortDiagnostics(list []Diagnostic) {
	slices.SortStableFunc(list, func(a, b Diagnostic) int {
		ra, rb := orZero(a.Range), orZero(b.Range)
		return cmp.Or(cmp.Compare(ra.Filename, rb.Filename), cmp.Compare(ra.Start.Byte, rb.Start.Byte),
			cmp.Compare(a.Code, b.Code), cmp.Compare(a.Detail, b.Detail))
	})
}

// clamp keeps a range within its source: hcl points behind the end of a file
// that ends too early.
func (d *diags) clamp(r hcl.Range) hcl.Range {
	src, ok := d.sources[r.Filename]
	if !ok {
		return r
	}
	r.Start.Line, r.Start.Column = max(r.Start.Line, 1), max(r.Start.Column, 1)
	r.Start.Byte = max(0, min(r.Start.Byte, len(src)))
	if r.End.Byte > len(src) || r.End.Byte < r.Start.Byte {
		r.End = r.Start
	}
	return r
}

// snippet cuts the first line of rng out of its source. A very long line is
// cut to the neighbourhood of the fault.
func (d *diags) snippet(rng hcl.Range, context string, values []string) *Snippet {
	s := &Snippet{Context: context, Values: values, StartLine: rng.Start.Line}
	src, ok := d.sources[rng.Filename]
	if !ok || rng.Start.Byte > len(src) {
		return s
	}
	from := bytes.LastIndexByte(src[:rng.Start.Byte], '\n') + 1
	to := len(src)
	if i := bytes.IndexByte(src[rng.Start.Byte:], '\n'); i >= 0 {
		to = rng.Start.Byte + i
	}
	start, end := rng.Start.Byte, min(max(rng.End.Byte, rng.Start.Byte), to)
	const around = 120
	if start-from > around {
		from = start - around
		for from < start && !utf8.RuneStart(src[from]) {
			from++
		}
	}
	if to-start > 2*around {
		to = start + 2*around
		for to > start && to < len(src) && !utf8.RuneStart(src[to]) {
			to--
		}
		end = min(end, to)
	}
	line := bytes.Clone(src[from:to])
	for _, r := range d.redactions {
		if r.Filename != rng.Filename {
			continue
		}
		for b := max(r.Start.Byte, from); b < min(r.End.Byte, to); b++ {
			line[b-from] = '*'
		}
	}
	blankSecrets(line)
	line = bytes.TrimRight(line, "\r")
	s.Code = strings.ToValidUTF8(string(line), "\uFFFD")
	if len(s.Code) != len(line) { // not UTF-8: offsets would lie
		start, end = from, from
	}
	s.HighlightStartOffset = min(start-from, len(s.Code))
	s.HighlightEndOffset = min(end-from, len(s.Code))
	return s
}

// syntax takes in what the parsers of HCL and JSON complain about. Their texts
// are good; only a second message at an overlapping range is dropped, because
// it follows from the first.
func (d *diags) syntax(hd hcl.Diagnostics) {
	slices.SortStableFunc(hd, func(a, b *hcl.Diagnostic) int {
		return cmp.Compare(subjectByte(a), subjectByte(b))
	})
	place := regexp.MustCompile(`(\S):(\d+),(\d+)-\d+(?:,\d+)?`) // as hcl's own sentences write it: x.hcl:3,5-10
	last := -1
	for i, h := range hd {
		if h.Severity != hcl.DiagError || subjectByte(h) == last {
			continue
		}
		if i >= 5 { // one slip makes the parser stumble over all that follows
			return
		}
		last = subjectByte(h)
		var rng hcl.Range
		if h.Subject != nil {
			rng = *h.Subject
		}
		d.errorAt(codeSyntax, rng, "%s: %s", h.Summary, place.ReplaceAllString(sentence(h.Detail), "$1:$2:$3"))
	}
}

func subjectByte(h *hcl.Diagnostic) int {
	if h.Subject == nil {
		return 0
	}
	return h.Subject.Start.Byte
}

// sentence ends a text with a period.
func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" || strings.HasSuffix(s, ".") || strings.HasSuffix(s, "?") || strings.HasSuffix(s, "!") {
		return s
	}
	return s + "."
}

// didYouMean returns a sentence with the candidate nearest to name, preceded by
// a space, or "". Candidates are compared in sorted order, so that the same
// slip gets the same answer every time.
func didYouMean(name string, candidates []string) string {
	if s := Nearest(name, candidates); s != "" {
		return fmt.Sprintf(" Did you mean %q?", s)
	}
	return ""
}

// Nearest is the candidate that was likely meant by a name; "": none is near.
func Nearest(name string, candidates []string) string {
	if len(name) > 200 || len(candidates) > 2000 {
		return "" // names by the thousand are generated, not typed
	}
	sorted := slices.Clone(candidates)
	slices.Sort(sorted)
	lower := strings.ToLower(name)
	for _, c := range sorted { // the start of a longer name, or a name without its owner
		l := strings.ToLower(c)
		_, tail, _ := strings.Cut(l, "/")
		rest, begins := strings.CutPrefix(l, lower)
		if len(name) > 2 && (tail == lower || begins && rest != "" && strings.ContainsRune("-_./", rune(rest[0]))) ||
			len(name) > 5 && begins {
			return c
		}
	}
	best, bestDist := "", 2+len(name)/3
	for _, c := range sorted {
		if max(len(c)-len(name), len(name)-len(c)) >= bestDist {
			continue
		}
		if dist := levenshtein(lower, strings.ToLower(c)); dist < bestDist && dist < len(name) {
			best, bestDist = c, dist
		}
	}
	return best
}

// levenshtein counts the edits between a and b, in bytes: names are ASCII.
func levenshtein(a, b string) int {
	if len(a)-len(b) > 64 || len(b)-len(a) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diag, row[j] = row[j], min(row[j]+1, row[j-1]+1, diag+cost)
		}
	}
	return row[len(b)]
}

// listOf writes at most eight names: `a, b, c and 4 more`.
func listOf(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + " and " + strconv.Itoa(len(names)-most) + " more"
}

// An Error is everything that is wrong with a configuration and its inputs.
type Error struct {
	list    []Diagnostic
	dropped int
}

// Diagnostics returns all messages, warnings among them, sorted by position.
func (e *Error) Diagnostics() []Diagnostic { return slices.Clone(e.list) }

// Error gives one line a message: file:line:col: summary [code]: detail.
func (e *Error) Error() string {
	var b strings.Builder
	for _, dg := range e.list {
		if dg.Severity != SeverityError {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		if dg.Range != nil {
			fmt.Fprintf(&b, "%s:%d:%d: ", dg.Range.Filename, dg.Range.Start.Line, dg.Range.Start.Column)
		}
		fmt.Fprintf(&b, "%s [%s]", dg.Summary, dg.Code)
		if dg.Detail != "" {
			b.WriteString(": " + strings.Join(strings.Fields(dg.Detail), " "))
		}
	}
	if e.dropped > 0 {
		fmt.Fprintf(&b, "\nand %d more", e.dropped)
	}
	return b.String()
}

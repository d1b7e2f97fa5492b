package sweep

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

// RenderOptions say how diagnostics are shown.
type RenderOptions struct {
	Color bool // ANSI colours; never needed to see the place
	Width int  // columns to wrap sentences at; 0: 80
}

// Render writes all messages with their source lines, for people.
func (e *Error) Render(w io.Writer, o RenderOptions) error {
	if err := RenderDiagnostics(w, e.list, o); err != nil {
		return err
	}
	if e.dropped > 0 {
		_, err := fmt.Fprintf(w, "\n%d further errors are not shown.\n", e.dropped)
		return err
	}
	return nil
}

// RenderDiagnostics writes messages with their source lines, for people, a
// blank line between two.
func RenderDiagnostics(w io.Writer, list []Diagnostic, o RenderOptions) error {
	if o.Width <= 0 {
		o.Width = 80
	}
	b := bufio.NewWriter(w)
	p := painter{on: o.Color}
	for i := range list {
		if i > 0 {
			_ = b.WriteByte('\n') // bufio keeps its first error for Flush
		}
		renderOne(b, &list[i], o, p)
	}
	return b.Flush()
}

func renderOne(b *bufio.Writer, dg *Diagnostic, o RenderOptions, p painter) {
	colour := ansiRed
	if dg.Severity == SeverityWarning {
		colour = ansiYellow
	}
	fmt.Fprintf(b, "%s: %s\n", p.paint(colour, fmt.Sprintf("%s[%s]", dg.Severity, dg.Code)), p.paint(ansiBold, dg.Summary))
	if dg.Range != nil {
		fmt.Fprintf(b, "  %s %s:%d:%d\n", p.paint(ansiBlue, "-->"), Printable(dg.Range.Filename), dg.Range.Start.Line,
			dg.Range.Start.Column)
	}
	indent := "  "
	if s := dg.Snippet; s != nil && s.StartLine > 0 && s.Code != "" {
		number := fmt.Sprintf("%4d", s.StartLine)
		indent = strings.Repeat(" ", len(number)+1)
		before, mark, after := cut(s)
		fmt.Fprintf(b, "%s %s %s\n", number, p.paint(ansiBlue, "|"), strings.TrimRight(before+mark+after, " \t"))
		fmt.Fprintf(b, "%s%s %s%s\n", indent, p.paint(ansiBlue, "|"), blank(before), p.paint(colour, carets(mark)))
	}
	if dg.Snippet != nil {
		for _, v := range dg.Snippet.Values {
			fmt.Fprintf(b, "%s%s %s\n", indent, p.paint(ansiBlue, "="), Printable(v))
		}
	}
	if dg.Detail == "" {
		return
	}
	_ = b.WriteByte('\n')
	for _, para := range strings.Split(dg.Detail, "\n") {
		for _, line := range wrap(Printable(para), o.Width-2) {
			fmt.Fprintf(b, "%s\n", strings.TrimRight("  "+line, " "))
		}
	}
}

func cut(s *Snippet) (before, mark, after string) {
	from, to := s.HighlightStartOffset, s.HighlightEndOffset
	return Printable(s.Code[:from]), Printable(s.Code[from:to]), Printable(s.Code[to:])
}

// Printable shows what could steer a terminal as text: controls (those of ISO 6429 from U+0080 on too), marks that
// change the direction of writing, and bytes that are no UTF-8.
func Printable(s string) string {
	if !strings.ContainsFunc(s, steers) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case !steers(r):
			b.WriteRune(r)
		case r == utf8.RuneError && strings.HasPrefix(s[i:], string(utf8.RuneError)):
			b.WriteRune(r)
		case r == utf8.RuneError:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func steers(r rune) bool {
	return r == utf8.RuneError || unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.In(r, unicode.Bidi_Control)
}

// blank is as wide as s: tabs stay, everything else becomes spaces.
func blank(s string) string {
	var b strings.Builder
	for i, part := range strings.Split(s, "\t") {
		if i > 0 {
			b.WriteByte('\t')
		}
		b.WriteString(strings.Repeat(" ", uniseg.StringWidth(part)))
	}
	return b.String()
}

func carets(mark string) string {
	return strings.Repeat("^", max(1, uniseg.StringWidth(strings.ReplaceAll(mark, "\t", " "))))
}

// wrap breaks a paragraph into lines of at most width columns. A paragraph
// that starts with a space is an example and is left alone.
func wrap(s string, width int) []string {
	if s == "" || strings.HasPrefix(s, " ") {
		return []string{s}
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && uniseg.StringWidth(line)+1+uniseg.StringWidth(word) > max(width, 20) {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// painter writes in colour, or not.
type painter struct{ on bool }

const (
	ansiRed    = "\x1b[1;31m"
	ansiYellow = "\x1b[1;33m"
	ansiBlue   = "\x1b[34m"
	ansiBold   = "\x1b[1m"
	ansiReset  = "\x1b[0m"
)

func (p painter) paint(colour, s string) string {
	if !p.on || s == "" {
		return s
	}
	return colour + s + ansiReset
}

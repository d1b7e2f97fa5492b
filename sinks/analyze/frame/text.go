package frame

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// A Text writes for people and keeps the first error.
type Text struct {
	out io.Writer
	Err error
}

// NewText writes to out.
func NewText(out io.Writer) *Text { return &Text{out: out} }

// Printf writes, if nothing failed before.
func (t *Text) Printf(format string, args ...any) {
	if t.Err == nil {
		_, t.Err = fmt.Fprintf(t.out, format, args...)
	}
}

// Table writes lines whose cells, which end with a tab, stand in columns.
func (t *Text) Table(write func(line *Text)) { t.table(0, write) }

// Right is a Table whose cells are flush right.
func (t *Text) Right(write func(line *Text)) { t.table(tabwriter.AlignRight, write) }

func (t *Text) table(flags uint, write func(line *Text)) {
	if t.Err != nil {
		return
	}
	cells := tabwriter.NewWriter(t.out, 2, 4, 2, ' ', flags)
	lines := &Text{out: cells}
	write(lines)
	if t.Err = lines.Err; t.Err == nil {
		t.Err = cells.Flush()
	}
}

// Kind is what runs are called by where they come from.
func Kind(synthetic bool) string {
	if synthetic {
		return "synthetic"
	}
	return "measured"
}

// Runs says how many runs an analysis rests on.
func (t *Text) Runs(n int, synthetic bool, leftOut int) {
	t.Printf("%d %s runs; %d that failed or were skipped are left out", n, Kind(synthetic), leftOut)
}

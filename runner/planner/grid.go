package planner

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/sweep"
)

// defaultWidth is how wide a table may be where no terminal says.
const defaultWidth = 100

// legend explains the headings of the table.
const legend = `requests: sequences of max_model_len that the KV cache holds at once
longest:  the longest max_model_len that fits, in tokens
fits:     "risky": it starts and may run out of memory; "no -1.23": 1.23 GiB are missing
`

// A grid is the table of one sweep: columns for what varies, the rest in its title.
type grid struct {
	title   string
	columns []column
	models  []string // of the profiles, unabbreviated, in order of appearance
}

// A column is dropped from the table where it does not fit, those with the highest
// drop first; 0: it stays.
type column struct {
	head  string
	left  bool // flush left
	drop  int
	cells []string
}

// newGrid lays out the profiles of a sweep.
func newGrid(s *sweep.Sweep, labels *sweep.Labels, shown []*Profile) *grid {
	g := &grid{title: fmt.Sprintf("sweep %s", s.Name)}
	for _, one := range shown {
		if !slices.Contains(g.models, one.Model) {
			g.models = append(g.models, one.Model)
		}
	}
	cells := func(of func(*Profile) string) (all []string) {
		for _, one := range shown {
			all = append(all, of(one))
		}
		return all
	}
	id := func(one *Profile) string { return one.ID[:min(8, len(one.ID))] }
	g.columns = []column{{head: "profile", left: true, cells: cells(id)}}
	model := func(one *Profile) string { return labels.Models[one.Model] }
	point := []column{
		{head: "model", left: true, cells: cells(model)},
		{head: "tp", cells: cells(func(one *Profile) string { return fmt.Sprint(one.Settings.TensorParallelSize) })},
		{head: "in", cells: cells(func(one *Profile) string { return fmt.Sprint(one.Settings.InputLen) })},
		{head: "out", cells: cells(func(one *Profile) string { return fmt.Sprint(one.Settings.OutputLen) })},
		{head: "bs", cells: cells(func(one *Profile) string { return fmt.Sprint(one.Settings.BatchSize) })},
	}
	for _, axis := range labels.Varies {
		c := column{cells: cells(func(one *Profile) string { _, v := labels.Axis(axis, one.profile); return v })}
		c.head, _ = labels.Axis(axis, shown[0].profile)
		if !slices.ContainsFunc(point, func(p column) bool { return p.head == c.head }) {
			point = append(point, c)
		}
	}
	var fixed []string
	for _, c := range point {
		if c.varies() {
			g.columns = append(g.columns, c)
			continue
		}
		fixed = append(fixed, strings.TrimPrefix(c.head+"="+c.cells[0], "model="))
	}
	if len(fixed) > 0 {
		g.title += ": " + strings.Join(fixed, " ")
	}
	g.columns = append(g.columns, figures(cells)...)
	return g
}

// figures are the columns of what is estimated.
func figures(cells func(of func(*Profile) string) []string) []column {
	all := []column{
		{head: "weights", cells: cells(func(one *Profile) string { return inGiB(one.Estimate.Weights) })},
		{head: "activ.", drop: 2, cells: cells(func(one *Profile) string { return inGiB(one.Estimate.Activations) })},
		{head: "graphs", drop: 3, cells: cells(func(one *Profile) string { return inGiB(one.Estimate.CUDAGraphs) })},
		{head: "KV", drop: 1, cells: cells(func(one *Profile) string { return inGiB(one.Estimate.KVCache) })},
		{head: "KV tokens", cells: cells(func(one *Profile) string { return count(one.Estimate.KVCacheTokens.Value) })},
		{head: "requests", cells: cells(func(one *Profile) string { return ratio(one.Estimate.MaxConcurrency) })},
		{head: "longest", drop: 4, cells: cells(func(one *Profile) string { return count(one.Estimate.MaxContext) })},
		{head: "highest use", cells: cells((*Profile).highest)},
		{head: "fits", cells: cells((*Profile).fits)},
	}
	return slices.DeleteFunc(all, func(c column) bool { return c.head == "highest use" && c.width() == len(c.head) })
}

func (c column) varies() bool {
	return slices.ContainsFunc(c.cells, func(cell string) bool { return cell != c.cells[0] })
}

func (c column) width() int {
	most := len(c.head)
	for _, cell := range c.cells {
		most = max(most, len(cell))
	}
	return most
}

// fits says whether a profile fits.
func (one *Profile) fits() string {
	switch e := one.Estimate; {
	case e.Fits == nil:
		return "?"
	case *e.Fits && e.MayRunOut:
		return "risky"
	case *e.Fits:
		return "yes"
	case e.ShortBy != nil && *e.ShortBy > 0:
		return fmt.Sprintf("no -%.2f", gib(*e.ShortBy))
	}
	return "no"
}

// highest is the highest use, where a database knows it.
func (one *Profile) highest() string {
	if one.Overheads == nil {
		return ""
	}
	switch f := one.Overheads.HighestUse(); {
	case f.Value == nil:
		return ""
	case f.Low == nil:
		return inGiB(f)
	default:
		return fmt.Sprintf("%s (%s)", inGiB(f), between(f))
	}
}

func (g *grid) width() int {
	sum := 0
	for _, c := range g.columns {
		sum += c.width() + 2
	}
	return sum
}

// fit makes the table as narrow as it has to be: models become m1, m2, ..., columns
// that matter least go.
func (g *grid) fit(width int) (notes []string) {
	at := slices.IndexFunc(g.columns, func(c column) bool { return c.head == "model" })
	if at >= 0 && g.width() > width {
		code := map[string]string{}
		for i, cell := range g.columns[at].cells {
			code[cell] = cmp.Or(code[cell], fmt.Sprintf("m%d", len(code)+1))
			g.columns[at].cells[i] = code[cell]
		}
		for i, name := range g.models {
			notes = append(notes, fmt.Sprintf("m%d = %s", i+1, name))
		}
	} else if at >= 0 {
		for _, name := range g.models { // those whose owner the column leaves out
			if !slices.Contains(g.columns[at].cells, name) {
				notes = append(notes, name)
			}
		}
	}
	var dropped []string
	for g.width() > width {
		last := slices.MaxFunc(g.columns, func(a, b column) int { return cmp.Compare(a.drop, b.drop) })
		if last.drop == 0 {
			break
		}
		dropped = append(dropped, last.head)
		g.columns = slices.DeleteFunc(g.columns, func(c column) bool { return c.head == last.head })
	}
	if len(dropped) > 0 {
		notes = append(notes, "no room for "+strings.Join(dropped, ", ")+": --json has all")
	}
	return notes
}

// render prints the table in at most width columns.
func (g *grid) render(out io.Writer, width int) {
	notes := g.fit(cmp.Or(width, defaultWidth))
	fmt.Fprintf(out, "\n%s\n", g.title)
	line := func(cell func(column) string) {
		var b strings.Builder
		for _, c := range g.columns {
			w := c.width()
			if c.left {
				w = -w
			}
			fmt.Fprintf(&b, "  %*s", w, cell(c))
		}
		fmt.Fprintln(out, strings.TrimRight(b.String(), " "))
	}
	line(func(c column) string { return c.head })
	for i := range g.columns[0].cells {
		line(func(c column) string { return c.cells[i] })
	}
	for _, note := range notes {
		fmt.Fprintf(out, "  %s\n", note)
	}
}

// A tally says once what differs in figures alone, and of which profiles.
type tally struct{ kinds []*kind }

// A kind is texts that differ in figures alone.
type kind struct {
	shape, first string
	others       map[string]bool
	of           []string // ids
}

// add takes a text of a profile.
func (t *tally) add(text, id string) {
	if text == "" {
		return
	}
	shape := regexp.MustCompile(`[0-9]+`).ReplaceAllString(text, "#")
	at := slices.IndexFunc(t.kinds, func(k *kind) bool { return k.shape == shape })
	if at < 0 {
		at, t.kinds = len(t.kinds), append(t.kinds, &kind{shape: shape, first: text, others: map[string]bool{}})
	}
	k := t.kinds[at]
	if text != k.first {
		k.others[text] = true
	}
	k.of = append(k.of, id[:min(8, len(id))])
}

func (t *tally) print(out io.Writer, what string, all int) {
	for _, k := range t.kinds {
		who := strings.Join(k.of[:min(len(k.of), 3)], ", ")
		switch {
		case len(k.of) == all:
			who = "all"
		case len(k.of) > 3:
			who += fmt.Sprintf(" and %d more", len(k.of)-3)
		}
		text := k.first
		if n := len(k.others); n > 0 {
			text += fmt.Sprintf(" (and %d more with other figures)", n)
		}
		fmt.Fprintf(out, "%s (%s): %s\n", what, who, text)
	}
}

package analyze

import (
	"math"

	"github.com/vramsweep/vramsweep/sinks"
)

// A frame holds runs column by column: a year of nightly sweeps is 146,000 runs,
// and their rows would take a gigabyte.
type frame struct {
	n        int
	ids      []string
	random   []bool    // the run had random weights
	settings []*column // what was asked, and what surrounds the run
	words    []*column // derived words
	series   []*series
	axes     map[string]bool
}

// A column is a setting of all runs: numbers, and for each run the place of its
// text in words.
type column struct {
	Setting
	numbers  []float64 // NaN: no number
	codes    []int32
	words    []string
	byWord   map[string]int32
	byNumber map[float64]int32 // of a number's text, which is made once
}

// A series is a quantity of all runs; NaN where a run lacks it.
type series struct {
	quantity
	values []float64
}

func newColumn(s Setting) *column {
	return &column{Setting: s, byWord: map[string]int32{}, byNumber: map[float64]int32{}}
}

// newFrame is an empty frame of these quantities and derived words.
func newFrame(quantities []quantity, words []Setting) *frame {
	f := &frame{axes: map[string]bool{}}
	for _, s := range fixedColumns() {
		f.settings = append(f.settings, newColumn(s))
	}
	for _, s := range words {
		f.words = append(f.words, newColumn(s))
	}
	for _, q := range quantities {
		f.series = append(f.series, &series{quantity: q})
	}
	return f
}

// add takes a run; nothing of the row is kept but its id and new words.
func (f *frame) add(r *sinks.RunRow) {
	for _, name := range sortedKeys(r.Axes) {
		if f.axes[name] {
			continue
		}
		f.axes[name] = true
		c := newColumn(axis(name))
		for range f.n { // the runs before did not have it
			c.put(&sinks.RunRow{})
		}
		f.settings = append(f.settings, c)
	}
	for _, c := range f.settings {
		c.put(r)
	}
	for _, c := range f.words {
		c.put(r)
	}
	for _, s := range f.series {
		v := math.NaN()
		if have := s.value(r); have != nil {
			v = *have
		}
		s.values = append(s.values, v)
	}
	f.ids = append(f.ids, r.RunID)
	f.random = append(f.random, deref(r.LoadFormat) == "dummy")
	f.n++
}

func (c *column) put(r *sinks.RunRow) {
	v := c.Number(r)
	if v == nil {
		c.numbers, c.codes = append(c.numbers, math.NaN()), append(c.codes, c.code(c.Text(r)))
		return
	}
	code, known := c.byNumber[*v]
	if !known {
		code = c.code(c.Text(r))
		c.byNumber[*v] = code
	}
	c.numbers, c.codes = append(c.numbers, *v), append(c.codes, code)
}

// code is the place of a text in words.
func (c *column) code(text string) int32 {
	code, known := c.byWord[text]
	if !known {
		code = int32(len(c.words))
		c.words, c.byWord[text] = append(c.words, text), code
	}
	return code
}

// all are the places of all runs.
func (f *frame) all() []int {
	rows := make([]int, f.n)
	for i := range rows {
		rows[i] = i
	}
	return rows
}

// find is a series by name; all that the questions ask for are there.
func (f *frame) find(name string) *series {
	for _, s := range f.series {
		if s.name == name {
			return s
		}
	}
	return &series{quantity: quantity{name: name}, values: nans(f.n)}
}

// word is a derived word by name.
func (f *frame) word(name string) *column {
	for _, c := range f.words {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func nans(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = math.NaN()
	}
	return out
}

// having are those of the runs that have a quantity; where some ran random
// weights and others real ones, a quantity that depends on them is taken of the
// real ones.
func (f *frame) having(rows []int, y *series) []int {
	var have, real []int
	for _, i := range rows {
		if math.IsNaN(y.values[i]) {
			continue
		}
		have = append(have, i)
		if y.real && !f.random[i] {
			real = append(real, i)
		}
	}
	if len(real) > 0 {
		return real
	}
	return have
}

// varies tells whether there are two different values.
func varies(values []float64) bool {
	first := math.NaN()
	for _, v := range values {
		switch {
		case math.IsNaN(v):
		case math.IsNaN(first):
			first = v
		case v != first:
			return true
		}
	}
	return false
}

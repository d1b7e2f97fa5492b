// Package frame reads the table of runs for the analyses: its columns by name,
// the settings and figures among them, the runs column by column, the
// statistics that the analyses share, and text for people.
//
// It never mixes synthetic with measured runs, and judges nothing.
package frame

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/vramsweep/vramsweep/sinks"
)

// ErrNoRuns says that there is nothing to analyse.
var ErrNoRuns = errors.New("no runs")

// ErrMixed says that synthetic and measured rows would be mixed.
var ErrMixed = errors.New("synthetic and measured runs are never mixed")

// Kinds are which of synthetic and measured runs were seen.
type Kinds struct{ Synthetic, Measured string } // a run of the kind

// Add takes a run.
func (k *Kinds) Add(r *sinks.RunRow) {
	if r.Synthetic {
		k.Synthetic = r.RunID
	} else {
		k.Measured = r.RunID
	}
}

// Err is ErrMixed where there are both.
func (k *Kinds) Err() error {
	if k.Synthetic == "" || k.Measured == "" {
		return nil
	}
	return fmt.Errorf("%w: %s is synthetic, %s is measured", ErrMixed, k.Synthetic, k.Measured)
}

// SameKind refuses synthetic beside measured rows.
func SameKind(sides ...[]sinks.RunRow) error {
	var k Kinds
	for _, rows := range sides {
		for i := range rows {
			k.Add(&rows[i])
		}
	}
	return k.Err()
}

// A Frame holds runs column by column: a year of nightly sweeps is 146,000 runs,
// and their rows would take a gigabyte.
type Frame struct {
	N        int
	IDs      []string
	Settings []*Values // what was asked, and what surrounds the run
	random   []bool    // the run had random weights
	points   map[string]int
	point    []int     // of each run: the profile and surroundings that it is one of
	words    []*Values // derived words
	series   []*Series
	axes     map[string]bool
}

// Values are those of a column of all runs: numbers, and for each run the place
// of its text in words.
type Values struct {
	Column
	Numbers  []float64 // NaN: no number
	Codes    []int32
	words    []string
	byWord   map[string]int32
	byNumber map[float64]int32 // of a number's text, which is made once
}

// A Quantity is something of a run that is a number.
type Quantity struct {
	Name, Unit string
	Real       bool // means nothing with random weights
	Value      func(*sinks.RunRow) *float64
}

// A Series is a quantity of all runs; NaN where a run lacks it.
type Series struct {
	Quantity
	Values []float64
}

func valuesOf(columns []Column) (all []*Values) {
	for _, c := range columns {
		all = append(all, &Values{Column: c, byWord: map[string]int32{}, byNumber: map[float64]int32{}})
	}
	return all
}

// New is an empty frame of these quantities and derived words.
func New(quantities []Quantity, words []Column) *Frame {
	f := &Frame{axes: map[string]bool{}, points: map[string]int{}, Settings: valuesOf(fixed()), words: valuesOf(words)}
	for _, q := range quantities {
		f.series = append(f.series, &Series{Quantity: q})
	}
	return f
}

// Add takes a run; nothing of the row is kept but its id and new words.
func (f *Frame) Add(r *sinks.RunRow) {
	for _, name := range SortedKeys(r.Axes) {
		if f.axes[name] {
			continue
		}
		f.axes[name] = true
		added := valuesOf(Of("axis_" + name))
		for range f.N { // the runs before did not have it
			added[0].put(&sinks.RunRow{})
		}
		f.Settings = append(f.Settings, added...)
	}
	for _, c := range f.Settings {
		c.put(r)
	}
	for _, c := range f.words {
		c.put(r)
	}
	for _, s := range f.series {
		v := math.NaN()
		if have := s.Value(r); have != nil {
			v = *have
		}
		s.Values = append(s.Values, v)
	}
	f.point = append(f.point, f.pointOf(r))
	f.IDs = append(f.IDs, r.RunID)
	f.random = append(f.random, RandomWeights(r))
	f.N++
}

// pointOf numbers profiles, apart for each that surrounds them but the execution.
func (f *Frame) pointOf(r *sinks.RunRow) int {
	if r.ProfileID == "" {
		return -1 - f.N // a run of its own
	}
	key := r.ProfileID
	for _, c := range f.Settings {
		if slices.Contains(Context(), c.Name) {
			key += "|" + c.Text(r)
		}
	}
	at, known := f.points[key]
	if !known {
		at = len(f.points)
		f.points[key] = at
	}
	return at
}

// Means is the frame of profiles: repeats and nights of one are one point, the
// mean of its figures, since they are no independent evidence of what a setting
// does. A point has the id of its first run.
func (f *Frame) Means() *Frame {
	first, rows := map[int]int{}, [][]int{}
	for i, at := range f.point {
		k, known := first[at]
		if !known {
			k, rows = len(rows), append(rows, nil)
			first[at] = k
		}
		rows[k] = append(rows[k], i)
	}
	out := &Frame{N: len(rows)}
	for _, of := range rows {
		out.IDs, out.random = append(out.IDs, f.IDs[of[0]]), append(out.random, f.random[of[0]])
	}
	pick := func(all []*Values) (picked []*Values) {
		for _, v := range all {
			c := *v
			c.Numbers, c.Codes = make([]float64, len(rows)), make([]int32, len(rows))
			for k, of := range rows {
				c.Numbers[k], c.Codes[k] = v.Numbers[of[0]], v.Codes[of[0]]
			}
			picked = append(picked, &c)
		}
		return picked
	}
	out.Settings, out.words = pick(f.Settings), pick(f.words)
	for _, s := range f.series {
		mean := &Series{Quantity: s.Quantity, Values: make([]float64, len(rows))}
		for k, of := range rows {
			sum, n := 0.0, 0.0
			for _, i := range of {
				if v := s.Values[i]; !math.IsNaN(v) {
					sum, n = sum+v, n+1
				}
			}
			mean.Values[k] = sum / n // NaN where no run has it
		}
		out.series = append(out.series, mean)
	}
	return out
}

func (v *Values) put(r *sinks.RunRow) {
	n := v.Number(r)
	if n == nil {
		v.Numbers, v.Codes = append(v.Numbers, math.NaN()), append(v.Codes, v.code(v.Text(r)))
		return
	}
	code, known := v.byNumber[*n]
	if !known {
		code = v.code(v.Text(r))
		v.byNumber[*n] = code
	}
	v.Numbers, v.Codes = append(v.Numbers, *n), append(v.Codes, code)
}

// code is the place of a text in words.
func (v *Values) code(text string) int32 {
	code, known := v.byWord[text]
	if !known {
		code = int32(len(v.words))
		v.words, v.byWord[text] = append(v.words, text), code
	}
	return code
}

// All are the places of all runs.
func (f *Frame) All() []int {
	rows := make([]int, f.N)
	for i := range rows {
		rows[i] = i
	}
	return rows
}

// Find is a series by name; nil: there is none.
func (f *Frame) Find(name string) *Series {
	for _, s := range f.series {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Word is a derived word by name; nil: there is none.
func (f *Frame) Word(name string) *Values {
	for _, c := range f.words {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Having are those of the runs that have a quantity; where some ran random
// weights and others real ones, a quantity that depends on them is taken of the
// real ones.
func (f *Frame) Having(rows []int, y *Series) []int {
	var have, real []int
	for _, i := range rows {
		if math.IsNaN(y.Values[i]) {
			continue
		}
		have = append(have, i)
		if y.Real && !f.random[i] {
			real = append(real, i)
		}
	}
	if len(real) > 0 {
		return real
	}
	return have
}

// SortedKeys are the keys of a map in order.
func SortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

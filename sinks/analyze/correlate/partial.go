package correlate

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// leastFreedom is how many runs more than columns a partial correlation asks
// for: with fewer it is near 1 whatever the runs say.
const leastFreedom = 5

// mostLevels is how many values a word may have to become indicators: more of
// them (flags, hosts of a large fleet) would take out everything.
const mostLevels = 40

// A design are the settings of some runs as standardized columns of numbers,
// words as indicators, and their correlations.
type design struct {
	rows []int
	cols [][]float64
	of   []string // the setting that a column belongs to
	corr *mat.SymDense
}

// design is that of runs.
func (r *relator) design(rows []int) *design {
	whole := len(rows) == r.f.N
	if whole && r.whole != nil {
		return r.whole
	}
	out := &design{rows: rows}
	for _, c := range r.f.Settings {
		for _, column := range numeric(c, rows) {
			out.cols, out.of = append(out.cols, standardized(column)), append(out.of, c.Name)
		}
	}
	k := len(out.cols)
	if k > 0 {
		out.corr = mat.NewSymDense(k, nil)
	}
	for i := range k {
		for j := i; j < k; j++ {
			out.corr.SetSym(i, j, floats.Dot(out.cols[i], out.cols[j]))
		}
	}
	if whole {
		r.whole = out
	}
	return out
}

// standardized has mean 0 and length 1: the product of two is their correlation.
func standardized(values []float64) []float64 {
	floats.AddConst(-stat.Mean(values, nil), values)
	floats.AddConst(-stat.Mean(values, nil), values) // what rounding left of the mean
	if length := floats.Norm(values, 2); length > 0 {
		floats.Scale(1/length, values)
	}
	return values
}

// numeric is a setting as numbers: itself, or an indicator for each of its
// words but one. Nothing where it does not vary.
func numeric(c *frame.Values, rows []int) [][]float64 {
	switch c.Name {
	case "execution", "sweep", "host": // when and where, not what was asked
		return nil
	}
	numbers := make([]float64, len(rows))
	whole := true
	for i, at := range rows {
		numbers[i] = c.Numbers[at]
		whole = whole && !math.IsNaN(numbers[i])
	}
	if whole {
		if frame.Constant(numbers) {
			return nil
		}
		return [][]float64{numbers}
	}
	var levels []int32
	for _, at := range rows {
		if !slices.Contains(levels, c.Codes[at]) {
			if levels = append(levels, c.Codes[at]); len(levels) > mostLevels {
				return nil
			}
		}
	}
	slices.Sort(levels)
	var out [][]float64
	for _, level := range levels[1:] {
		column := make([]float64, len(rows))
		for i, at := range rows {
			if c.Codes[at] == level {
				column[i] = 1
			}
		}
		out = append(out, column)
	}
	return out
}

// A gramMatrix is the correlation matrix of one figure and all varying
// settings; the figure is the first column.
type gramMatrix struct {
	n      int
	corr   *mat.SymDense
	of     []string // the setting that a column belongs to; "" for the figure
	failed string
}

// gram correlates the design with a figure and, where extra is not nil, with a
// quantity that stands in place of the setting of its name.
func (d *design) gram(y, extra *frame.Series) *gramMatrix {
	g := &gramMatrix{n: len(d.rows), of: []string{""}}
	pick := func(s *frame.Series) []float64 {
		out := make([]float64, len(d.rows))
		for i, at := range d.rows {
			out[i] = s.Values[at]
		}
		return out
	}
	figure := pick(y)
	if len(d.rows) < 4 || frame.Constant(figure) {
		g.failed = "too few runs, or a constant figure"
		return g
	}
	columns := [][]float64{standardized(figure)}
	from := []int{-1} // the place in the design; -1: none
	for i, name := range d.of {
		if extra == nil || name != extra.Name {
			columns, from, g.of = append(columns, d.cols[i]), append(from, i), append(g.of, name)
		}
	}
	if extra != nil {
		columns, from, g.of = append(columns, standardized(pick(extra))), append(from, -1), append(g.of, extra.Name)
	}
	g.corr = mat.NewSymDense(len(columns), nil)
	for i := range columns {
		for j := i; j < len(columns); j++ {
			if from[i] >= 0 && from[j] >= 0 {
				g.corr.SetSym(i, j, d.corr.At(from[i], from[j]))
			} else {
				g.corr.SetSym(i, j, floats.Dot(columns[i], columns[j]))
			}
		}
	}
	return g
}

// partial fills in the partial correlation of the row's figure and x: of what
// remains of both when all other columns have explained what they can. With the
// correlation matrix R in blocks this is R_ab - R_az R_zz+ R_zb, normed; the
// pseudo-inverse R_zz+ lets columns depend on each other.
func (c *Row) partial(g *gramMatrix, x string) {
	if c.Pearson == nil {
		return
	}
	if g.failed != "" {
		c.PartialWhy = g.failed
		return
	}
	at := -1
	var others []int
	for j, name := range g.of {
		switch {
		case name == x:
			at = j
		case j > 0:
			others = append(others, j)
		}
	}
	switch {
	case at < 0:
		c.PartialWhy = "not every run has " + x
		return
	case len(others) == 0:
		c.PartialWhy = "no other setting varies: it is Pearson's"
		v := *c.Pearson
		c.Partial, c.PartialLow, c.PartialHigh = &v, c.Low, c.High
		return
	}
	left, rank, ok := g.residual(at, others)
	switch {
	case !ok:
		c.PartialWhy = "the settings' correlation matrix could not be decomposed"
	case g.n-rank-2 < leastFreedom:
		c.PartialWhy = fmt.Sprintf("%d points are too few to take out %d other columns", g.n, rank)
	case left[0] < 1e-9:
		c.PartialWhy = "the other settings determine " + x
	case left[1] < 1e-9:
		c.PartialWhy = "the other settings determine " + c.Y
	default:
		v := min(max(left[2]/math.Sqrt(left[0]*left[1]), -1), 1)
		c.Partial = &v
		c.PartialLow, c.PartialHigh = fisher(v, float64(g.n-rank-3))
	}
}

// residual is what the other columns leave of the variance of x, of the
// figure, and of their covariance.
func (g *gramMatrix) residual(x int, others []int) (left [3]float64, rank int, ok bool) {
	k := len(others)
	z := mat.NewSymDense(k, nil)
	zx, zy := mat.NewVecDense(k, nil), mat.NewVecDense(k, nil)
	for i, a := range others {
		zx.SetVec(i, g.corr.At(a, x))
		zy.SetVec(i, g.corr.At(a, 0))
		for j := i; j < k; j++ {
			z.SetSym(i, j, g.corr.At(a, others[j]))
		}
	}
	var eigen mat.EigenSym
	if !eigen.Factorize(z, true) {
		return left, 0, false
	}
	values := eigen.Values(nil)
	var vectors mat.Dense
	eigen.VectorsTo(&vectors)
	var px, py mat.VecDense
	px.MulVec(vectors.T(), zx)
	py.MulVec(vectors.T(), zy)
	left = [3]float64{1, 1, g.corr.At(x, 0)}
	for i, value := range values {
		if value < 1e-10*float64(k) {
			continue
		}
		rank++
		left[0] -= px.AtVec(i) * px.AtVec(i) / value
		left[1] -= py.AtVec(i) * py.AtVec(i) / value
		left[2] -= px.AtVec(i) * py.AtVec(i) / value
	}
	return left, rank, true
}

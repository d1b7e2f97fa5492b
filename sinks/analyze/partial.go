package analyze

import (
	"fmt"
	"math"
	"sort"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"

	"github.com/vramsweep/vramsweep/sinks"
)

// A design makes columns of numbers from settings.
type design struct {
	settings []Setting
}

// leastFreedom is how many runs more than columns a partial correlation asks
// for: with fewer it is near 1 whatever the runs say.
const leastFreedom = 5

// mostLevels is how many values a word may have to become indicators: more of
// them (flags, hosts of a large fleet) would take out everything.
const mostLevels = 40

// A gramMatrix is the correlation matrix of one figure and all varying
// settings, words as indicators; the figure is the first column.
type gramMatrix struct {
	n      int
	corr   *mat.SymDense
	of     []string // the setting that a column belongs to; "" for the figure
	failed string
}

// gram correlates all settings that vary among rows, and y. The cost is once
// rows x columns^2; every partial correlation then follows from the matrix.
func (d *design) gram(rows []*sinks.RunRow, y quantity) *gramMatrix {
	g := &gramMatrix{n: len(rows), of: []string{""}}
	columns := [][]float64{make([]float64, len(rows))}
	for i, r := range rows {
		columns[0][i] = *y.value(r)
	}
	if len(rows) < 4 || constant(columns[0]) {
		g.failed = "too few runs, or a constant figure"
		return g
	}
	for _, s := range d.settings {
		for _, column := range d.columns(rows, s) {
			columns, g.of = append(columns, column), append(g.of, s.Name)
		}
	}
	data := mat.NewDense(len(rows), len(columns), nil)
	for j, column := range columns {
		data.SetCol(j, column)
	}
	g.corr = mat.NewSymDense(len(columns), nil)
	stat.CorrelationMatrix(g.corr, data, nil)
	return g
}

// columns are a setting as numbers: itself, or an indicator for each of its
// words but the first. Nothing where it does not vary.
func (d *design) columns(rows []*sinks.RunRow, s Setting) [][]float64 {
	switch s.Name {
	case "execution", "sweep", "host": // when and where, not what was asked
		return nil
	}
	numbers := make([]float64, len(rows))
	numeric := true
	for i, r := range rows {
		v := s.Number(r)
		if v == nil {
			numeric = false
			break
		}
		numbers[i] = *v
	}
	if numeric {
		if constant(numbers) {
			return nil
		}
		return [][]float64{numbers}
	}
	levels := map[string]bool{}
	for _, r := range rows {
		levels[s.Text(r)] = true
		if len(levels) > mostLevels {
			return nil
		}
	}
	names := make([]string, 0, len(levels))
	for name := range levels {
		names = append(names, name)
	}
	sort.Strings(names)
	var out [][]float64
	for _, name := range names[1:] {
		column := make([]float64, len(rows))
		for i, r := range rows {
			if s.Text(r) == name {
				column[i] = 1
			}
		}
		out = append(out, column)
	}
	return out
}

// partial fills in the partial correlation of the row's figure and x: of what
// remains of both when all other columns have explained what they can. With the
// correlation matrix R in blocks this is R_ab - R_az R_zz+ R_zb, normed; the
// pseudo-inverse R_zz+ lets columns depend on each other.
func (c *Correlation) partial(g *gramMatrix, x quantity) {
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
		case name == x.name:
			at = j
		case j > 0:
			others = append(others, j)
		}
	}
	switch {
	case at < 0:
		c.PartialWhy = "not every run has " + x.name
		return
	case len(others) == 0:
		c.PartialWhy = "no other setting varies: it is Pearson's"
		v := *c.Pearson
		c.Partial = &v
		return
	}
	left, rank, ok := g.residual(at, others)
	switch {
	case !ok:
		c.PartialWhy = "the settings' correlation matrix could not be decomposed"
	case g.n-rank-2 < leastFreedom:
		c.PartialWhy = fmt.Sprintf("%d runs are too few to take out %d other columns", g.n, rank)
	case left[0] < 1e-9:
		c.PartialWhy = "the other settings determine " + x.name
	case left[1] < 1e-9:
		c.PartialWhy = "the other settings determine " + c.Y
	default:
		v := min(max(left[2]/math.Sqrt(left[0]*left[1]), -1), 1)
		c.Partial = &v
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

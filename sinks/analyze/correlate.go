package analyze

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/vramsweep/vramsweep/sinks"
)

// CorrelateOptions say what is correlated.
type CorrelateOptions struct {
	X []string // settings; empty: all numeric ones that vary
	Y []string // figures; empty: all
	// QuestionsOnly leaves out the rows of every setting with every figure.
	QuestionsOnly bool
	// Temperatures are mean temperatures in °C by run id: they stand in the
	// timelines, which CorrelateTimelines reads. nil: that question is not answered.
	Temperatures map[string]float64
}

// Correlations are the rows of one report.
type Correlations struct {
	Runs      int             `json:"runs"` // measured ones; failed and skipped runs have no figures
	Failed    int             `json:"failed_or_skipped"`
	Synthetic bool            `json:"synthetic"`
	Rows      []Correlation   `json:"rows"`
	Groups    []Grouped       `json:"groups"`
	Timelines []TimelinePhase `json:"timelines,omitempty"`
	Notes     []string        `json:"notes,omitempty"`
}

// A Correlation is how one quantity moves with another. What is not defined is
// null, and Reason says why.
type Correlation struct {
	X        string   `json:"x"`
	Y        string   `json:"y"`
	Question string   `json:"question,omitempty"` // "" in the rows of everything with everything
	Within   string   `json:"within,omitempty"`   // e.g. "model=llama": only its runs
	N        int      `json:"n"`                  // runs that have both
	Pearson  *float64 `json:"pearson"`
	Spearman *float64 `json:"spearman"`
	// Partial is Pearson's with the linear influence of the other varying
	// settings (numbers as they are, words as one indicator a value) taken out of both.
	Partial    *float64  `json:"partial"`
	Slope      *float64  `json:"slope"`
	SlopeLow   *float64  `json:"slope_low"` // 95 %: least squares, runs as independent
	SlopeHigh  *float64  `json:"slope_high"`
	SlopeUnit  string    `json:"slope_unit"`
	Origin     bool      `json:"through_origin,omitempty"` // the slope is that of y proportional to x
	Expected   *float64  `json:"expected,omitempty"`       // what the architecture says of the slope
	Outliers   []Outlier `json:"outliers,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	PartialWhy string    `json:"partial_reason,omitempty"`
}

// An Outlier is a run that lies off the line of its row.
type Outlier struct {
	RunID    string  `json:"run_id"`
	Residual float64 `json:"residual"` // in the unit of y
	Scales   float64 `json:"scales"`   // in robust standard deviations of the residuals
}

// A Grouped is a figure by the values of a word.
type Grouped struct {
	Question string   `json:"question"`
	By       string   `json:"by"`
	Y        string   `json:"y"`
	Unit     string   `json:"unit"`
	N        int      `json:"n"`
	Groups   []Group  `json:"groups"`
	Eta2     *float64 `json:"eta_squared"` // share of the variance that the groups explain
	Reason   string   `json:"reason,omitempty"`
}

// A Group is one value of a word.
type Group struct {
	Name string   `json:"name"`
	N    int      `json:"n"`
	Mean float64  `json:"mean"`
	Low  *float64 `json:"low"` // 95 % interval of the mean; null with one run
	High *float64 `json:"high"`
}

// A quantity is something of a run that is a number.
type quantity struct {
	name, unit string
	real       bool // means nothing with random weights
	value      func(*sinks.RunRow) *float64
}

// Correlate relates settings and figures of runs. It fails with ErrNoRuns,
// with ErrMixed, and where a named column does not exist; a row that is not
// defined (one run, a constant) says so itself.
func Correlate(rows []sinks.RunRow, o CorrelateOptions) (*Correlations, error) {
	if len(rows) == 0 {
		return nil, fmt.Errorf("correlate: %w", ErrNoRuns)
	}
	if err := sameKind(rows); err != nil {
		return nil, err
	}
	c := &Correlations{Synthetic: rows[0].Synthetic}
	ok := make([]*sinks.RunRow, 0, len(rows))
	for i := range rows {
		if rows[i].Outcome == "ok" {
			ok = append(ok, &rows[i])
		} else {
			c.Failed++
		}
	}
	c.Runs = len(ok)
	if len(ok) == 0 {
		return nil, fmt.Errorf("correlate: %w ended well: %d failed or were skipped", ErrNoRuns, c.Failed)
	}
	xs, ys, err := chosen(rows, ok, o)
	if err != nil {
		return nil, err
	}
	d := &design{settings: columnsOf(rows)}
	c.questions(ok, d, o)
	c.grouped(ok)
	if !o.QuestionsOnly {
		for _, y := range ys {
			c.against(ok, d, xs, y)
		}
	}
	return c, nil
}

// chosen resolves the names of the options.
func chosen(rows []sinks.RunRow, ok []*sinks.RunRow, o CorrelateOptions) (xs, ys []quantity, err error) {
	for _, s := range columnsOf(rows) {
		wanted := len(o.X) == 0 && varies(ok, s.Number) || slices.Contains(o.X, s.Name)
		if wanted {
			xs = append(xs, quantity{name: s.Name, value: s.Number})
		}
	}
	for _, f := range Figures() {
		if len(o.Y) == 0 || slices.Contains(o.Y, f.Name) {
			ys = append(ys, figureQuantity(f))
		}
	}
	for _, want := range o.X {
		if !slices.ContainsFunc(xs, func(q quantity) bool { return q.name == want }) {
			return nil, nil, fmt.Errorf("correlate: %q is no setting of these runs; settings are the asked columns of the table runs and its axes", want)
		}
	}
	for _, want := range o.Y {
		if !slices.ContainsFunc(ys, func(q quantity) bool { return q.name == want }) {
			return nil, nil, fmt.Errorf("correlate: %q is no figure; docs/analysis.md lists them", want)
		}
	}
	return xs, ys, nil
}

func figureQuantity(f Figure) quantity {
	return quantity{name: f.Name, unit: string(f.Unit), real: f.RealWeights, value: f.Value}
}

// varies tells whether there are two different values.
func varies(rows []*sinks.RunRow, get func(*sinks.RunRow) *float64) bool {
	var first *float64
	for _, r := range rows {
		v := get(r)
		if v == nil {
			continue
		}
		if first == nil {
			first = v
		} else if *v != *first {
			return true
		}
	}
	return false
}

// against relates one figure with many settings.
func (c *Correlations) against(rows []*sinks.RunRow, d *design, xs []quantity, y quantity) {
	have := withValue(rows, y)
	if len(have) == 0 {
		return // no run has the figure: nothing to say
	}
	g := d.gram(have, y)
	for _, x := range xs {
		row := relate(have, x, y)
		row.partial(g, x)
		c.Rows = append(c.Rows, row)
	}
}

// withValue are the runs that have a figure; where some ran random weights and
// others real ones, a figure that depends on them is taken of the real ones.
func withValue(rows []*sinks.RunRow, y quantity) []*sinks.RunRow {
	var have, real []*sinks.RunRow
	for _, r := range rows {
		if y.value(r) == nil {
			continue
		}
		have = append(have, r)
		if r.LoadFormat == nil || *r.LoadFormat != "dummy" {
			real = append(real, r)
		}
	}
	if y.real && len(real) > 0 {
		return real
	}
	return have
}

// relate fits one row; rows lacking x or y are left out.
func relate(rows []*sinks.RunRow, x, y quantity) Correlation {
	c := Correlation{X: x.name, Y: y.name, SlopeUnit: per(y.unit, x)}
	var xs, ys []float64
	var ids []string
	for _, r := range rows {
		a, b := x.value(r), y.value(r)
		if a != nil && b != nil {
			xs, ys, ids = append(xs, *a), append(ys, *b), append(ids, r.RunID)
		}
	}
	c.N = len(xs)
	switch {
	case c.N == 0:
		c.Reason = fmt.Sprintf("no run has both %s and %s", x.name, y.name)
		return c
	case c.N < 3:
		c.Reason = fmt.Sprintf("%s: a correlation asks for 3 at least", runs(c.N))
		return c
	case constant(xs):
		c.Reason = fmt.Sprintf("%s is %v in all %d runs: nothing varies", x.name, xs[0], c.N)
		return c
	case constant(ys):
		c.Reason = fmt.Sprintf("%s is %v in all %d runs: nothing varies", y.name, ys[0], c.N)
		return c
	}
	pearson := stat.Correlation(xs, ys, nil)
	spearman := stat.Correlation(ranks(xs), ranks(ys), nil)
	c.Pearson, c.Spearman = &pearson, &spearman
	c.line(xs, ys, ids)
	return c
}

func runs(n int) string {
	if n == 1 {
		return "one run alone"
	}
	return fmt.Sprintf("%d runs", n)
}

func constant(v []float64) bool {
	return !slices.ContainsFunc(v, func(x float64) bool { return x != v[0] })
}

func per(unit string, x quantity) string {
	of := x.unit
	if of == "" {
		of = x.name
	}
	return unit + " per " + of
}

// ranks are the places in ascending order, from 1; equal values share the mean
// of their places.
func ranks(v []float64) []float64 {
	order := make([]int, len(v))
	for i := range order {
		order[i] = i
	}
	sort.Slice(order, func(a, b int) bool { return v[order[a]] < v[order[b]] })
	out := make([]float64, len(v))
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && v[order[j]] == v[order[i]] {
			j++
		}
		for k := i; k < j; k++ {
			out[order[k]] = float64(i+j+1) / 2
		}
		i = j
	}
	return out
}

// quantile is that of numpy and pandas (type 7 of Hyndman and Fan 1996): with it
// the median of an even number of values is the mean of the middle two. gonum has the
// step function and an interpolation whose median of 1, 2, 3 is 1.5. sorted has a value
// at least.
func quantile(sorted []float64, q float64) float64 {
	place := q * float64(len(sorted)-1)
	low := int(place)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (place-float64(low))*(sorted[high]-sorted[low])
}

// line is the least-squares line with the interval of its slope, and the runs
// that lie more than five robust standard deviations off it; at least 8 runs, or
// there is no saying what is off.
func (c *Correlation) line(xs, ys []float64, ids []string) {
	_, beta := stat.LinearRegression(xs, ys, nil, false)
	residuals, scale := residualsOf(xs, ys)
	n, sum := float64(len(xs)), 0.0
	for _, r := range residuals {
		sum += r * r
	}
	c.Slope = &beta
	spread := stat.Variance(xs, nil) * (n - 1)
	half := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: n - 2}.Quantile(0.975) * math.Sqrt(sum/(n-2)/spread)
	low, high := beta-half, beta+half
	c.SlopeLow, c.SlopeHigh = &low, &high
	if len(xs) < 8 || scale <= 1e-9*math.Sqrt(stat.Variance(ys, nil)) { // or more than half lie exactly on the line
		return
	}
	for i, r := range residuals {
		if math.Abs(r) > 5*scale {
			c.Outliers = append(c.Outliers, Outlier{RunID: ids[i], Residual: r, Scales: math.Abs(r) / scale})
		}
	}
	sort.SliceStable(c.Outliers, func(a, b int) bool { return c.Outliers[a].Scales > c.Outliers[b].Scales })
	c.Outliers = c.Outliers[:min(len(c.Outliers), 5)]
}

// residualsOf the least-squares line, and their robust standard deviation: the
// median absolute residual x 1.4826, which is that of normal noise.
func residualsOf(xs, ys []float64) (residuals []float64, scale float64) {
	alpha, beta := stat.LinearRegression(xs, ys, nil, false)
	residuals, absolute := make([]float64, len(xs)), make([]float64, len(xs))
	for i := range xs {
		residuals[i] = ys[i] - alpha - beta*xs[i]
		absolute[i] = math.Abs(residuals[i])
	}
	sort.Float64s(absolute)
	return residuals, quantile(absolute, 0.5) / distuv.UnitNormal.Quantile(0.75)
}

// throughOrigin replaces the slope by that of y proportional to x, for what has
// no constant part: no token, no cache. The log rounds the cache to 0.01 GiB, and
// a free line through nearly equal sizes would follow the rounding. One run is enough.
func (c *Correlation) throughOrigin(rows []*sinks.RunRow, x, y quantity) {
	var xs, ys []float64
	for _, r := range rows {
		if a, b := x.value(r), y.value(r); a != nil && b != nil && *a > 0 {
			xs, ys = append(xs, *a), append(ys, *b)
		}
	}
	if len(xs) == 0 {
		return
	}
	_, beta := stat.LinearRegression(xs, ys, nil, true)
	c.Origin, c.Slope, c.SlopeLow, c.SlopeHigh, c.Outliers = true, &beta, nil, nil, nil
	if len(xs) < 2 {
		return
	}
	n := float64(len(xs))
	off, spread := 0.0, 0.0
	for i := range xs {
		off += (ys[i] - beta*xs[i]) * (ys[i] - beta*xs[i])
		spread += xs[i] * xs[i]
	}
	half := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: n - 1}.Quantile(0.975) * math.Sqrt(off/(n-1)/spread)
	low, high := beta-half, beta+half
	c.SlopeLow, c.SlopeHigh = &low, &high
}

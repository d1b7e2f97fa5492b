// Package correlate says which settings move which figure: correlations, slopes
// with intervals, runs off the line, and the questions that are asked first.
package correlate

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// Options say what is correlated.
type Options struct {
	X []string // settings; empty: all numeric ones that vary
	Y []string // figures; empty: all
	// QuestionsOnly leaves out the rows of every setting with every figure.
	QuestionsOnly bool
	// Temperatures are mean temperatures in °C by run id: they stand in the
	// timelines, which Timelines reads. nil: that question is not answered.
	Temperatures map[string]float64
}

// A Report is all that was found.
type Report struct {
	Runs      int  `json:"runs"`     // measured ones; failed and skipped runs have no figures
	Profiles  int  `json:"profiles"` // what is related: the means of a profile's repeats and nights
	Failed    int  `json:"failed_or_skipped"`
	Synthetic bool `json:"synthetic"`
	frame.Cover
	Rows      []Row           `json:"rows"`
	Groups    []frame.Grouped `json:"groups"`
	Timelines []Phase         `json:"timelines,omitempty"`
	Notes     []string        `json:"notes,omitempty"`
}

// A Row is how one quantity moves with another. What is not defined is
// null, and Reason says why.
type Row struct {
	X        string   `json:"x"`
	Y        string   `json:"y"`
	Question string   `json:"question,omitempty"` // "" in the rows of everything with everything
	Within   string   `json:"within,omitempty"`   // e.g. "model=llama": only its runs
	N        int      `json:"n"`                  // profiles that have both
	Pearson  *float64 `json:"pearson"`
	Low      *float64 `json:"pearson_low"` // 95 %, Fisher's z
	High     *float64 `json:"pearson_high"`
	Spearman *float64 `json:"spearman"`
	// Inside is the same line through the profiles of each model and number of
	// GPUs, less their means: what models differ by is not in it.
	Inside *Inside `json:"within_models,omitempty"`
	// Partial is Pearson's with the linear influence of the other varying
	// settings (numbers as they are, words as one indicator a value) taken out of both.
	Partial     *float64  `json:"partial"`
	PartialLow  *float64  `json:"partial_low"` // 95 %, Fisher's z
	PartialHigh *float64  `json:"partial_high"`
	Slope       *float64  `json:"slope"`
	SlopeLow    *float64  `json:"slope_low"` // 95 %: least squares, profiles as independent
	SlopeHigh   *float64  `json:"slope_high"`
	SlopeUnit   string    `json:"slope_unit"`
	Origin      bool      `json:"through_origin,omitempty"` // the slope is that of y proportional to x
	Expected    *float64  `json:"expected,omitempty"`       // what the architecture says of the slope
	Outliers    []Outlier `json:"outliers,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	PartialWhy  string    `json:"partial_reason,omitempty"`
	Warning     string    `json:"warning,omitempty"` // the whole goes one way, its parts another
}

// An Inside is a relation within models.
type Inside struct {
	Models    int      `json:"models"`
	Pearson   float64  `json:"pearson"`
	Low       *float64 `json:"pearson_low"`
	High      *float64 `json:"pearson_high"`
	Slope     float64  `json:"slope"`
	SlopeLow  *float64 `json:"slope_low"`
	SlopeHigh *float64 `json:"slope_high"`
}

// An Outlier is a run that lies off the line of its row.
type Outlier struct {
	RunID    string  `json:"run_id"`
	Residual float64 `json:"residual"` // in the unit of y
	Scales   float64 `json:"scales"`   // in robust standard deviations of the residuals
}

// A Correlator takes runs one by one and keeps of each what is correlated: some
// 500 bytes.
type Correlator struct {
	o      Options
	f      *frame.Frame
	failed int
	cover  frame.Cover
	kinds  frame.Kinds
}

// New has no runs yet.
func New(o Options) *Correlator {
	quantities := questionQuantities(o)
	for _, f := range frame.Figures() {
		quantities = append(quantities, frame.Quantity{Name: f.Name, Unit: string(f.Unit), Real: f.Ratio, Value: f.Number})
	}
	return &Correlator{o: o, f: frame.New(quantities, questionWords())}
}

// Add takes a run. The row may be used again.
func (c *Correlator) Add(r *sinks.RunRow) {
	c.kinds.Add(r)
	switch {
	case r.Outcome != "ok":
		c.failed++
	case c.cover.Add(r):
		c.f.Add(r)
	}
}

// Report relates settings and figures of what was added. It fails with
// frame.ErrNoRuns, with frame.ErrMixed, and where a named column does not exist;
// a row that is not defined (one run, a constant) says so itself.
func (c *Correlator) Report() (*Report, error) {
	switch err := c.kinds.Err(); {
	case err != nil:
		return nil, err
	case c.f.N == 0 && c.failed+c.cover.Blind == 0:
		return nil, fmt.Errorf("correlate: %w", frame.ErrNoRuns)
	case c.f.N == 0 && c.cover.Blind > 0:
		return nil, fmt.Errorf("correlate: %w: %s", frame.ErrNoRuns, c.cover.Says()[0])
	case c.f.N == 0:
		return nil, fmt.Errorf("correlate: %w ended well: %d failed or were skipped", frame.ErrNoRuns, c.failed)
	}
	runs := c.f.N
	c.f = c.f.Means()
	xs, ys, err := c.chosen()
	if err != nil {
		return nil, err
	}
	r := &relator{f: c.f, ranked: map[*frame.Series][]float64{},
		out: &Report{Runs: runs, Profiles: c.f.N, Failed: c.failed, Synthetic: c.kinds.Synthetic != "", Cover: c.cover,
			Notes: c.cover.Says()}}
	r.questions(c.o)
	r.grouped()
	if !c.o.QuestionsOnly {
		for _, y := range ys {
			r.against(xs, y)
		}
	}
	return r.out, nil
}

// chosen resolves the names of the options.
func (c *Correlator) chosen() (xs, ys []*frame.Series, err error) {
	var settings []string
	for _, s := range c.f.Settings {
		settings = append(settings, s.Name)
		if len(c.o.X) == 0 && varies(s.Numbers) || slices.Contains(c.o.X, s.Name) {
			xs = append(xs, &frame.Series{Quantity: frame.Quantity{Name: s.Name}, Values: s.Numbers})
		}
	}
	figures := frame.FigureNames()
	for _, name := range figures {
		if len(c.o.Y) == 0 || slices.Contains(c.o.Y, name) {
			ys = append(ys, c.f.Find(name))
		}
	}
	for _, want := range c.o.X {
		if !slices.Contains(settings, want) {
			return nil, nil, fmt.Errorf("correlate: %q is no setting of these runs; there are %s",
				want, strings.Join(settings, ", "))
		}
	}
	for _, want := range c.o.Y {
		if !slices.Contains(figures, want) {
			return nil, nil, fmt.Errorf("correlate: %q is no figure; there are %s", want, strings.Join(figures, ", "))
		}
	}
	return xs, ys, nil
}

// varies tells whether there are two different values.
func varies(values []float64) bool {
	known := slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	return !frame.Constant(known)
}

// A relator makes the rows.
type relator struct {
	f      *frame.Frame
	whole  *design                     // of all runs: most figures ask for it
	ranked map[*frame.Series][]float64 // ranks of what all runs have
	out    *Report
}

// against relates one figure with many settings.
func (r *relator) against(xs []*frame.Series, y *frame.Series) {
	have := r.f.Having(r.f.All(), y)
	if len(have) == 0 {
		return // no run has the figure: nothing to say
	}
	g := r.design(have).gram(y, nil)
	for _, x := range xs {
		row := r.relate(have, x, y)
		row.partial(g, x.Name)
		r.inside(&row, have, x, y)
		r.out.Rows = append(r.out.Rows, row)
	}
}

// relate fits one row; runs lacking x or y are left out.
func (r *relator) relate(rows []int, x, y *frame.Series) Row {
	c := Row{X: x.Name, Y: y.Name, SlopeUnit: y.Unit + " per " + cmp.Or(x.Unit, x.Name)}
	xs, ys, ids := make([]float64, 0, len(rows)), make([]float64, 0, len(rows)), make([]string, 0, len(rows))
	for _, at := range rows {
		if a, b := x.Values[at], y.Values[at]; !math.IsNaN(a) && !math.IsNaN(b) {
			xs, ys, ids = append(xs, a), append(ys, b), append(ids, r.f.IDs[at])
		}
	}
	c.N = len(xs)
	switch {
	case c.N == 0:
		c.Reason = fmt.Sprintf("no run has both %s and %s", x.Name, y.Name)
		return c
	case c.N < 3:
		c.Reason = fmt.Sprintf("%s: a correlation asks for 3 at least", []string{1: "one point alone", 2: "2 points"}[c.N])
		return c
	case frame.Constant(xs):
		c.Reason = fmt.Sprintf("%s is %v at all %d points: nothing varies", x.Name, xs[0], c.N)
		return c
	case frame.Constant(ys):
		c.Reason = fmt.Sprintf("%s is %v at all %d points: nothing varies", y.Name, ys[0], c.N)
		return c
	}
	c.Pearson = new(stat.Correlation(xs, ys, nil))
	c.Low, c.High = fisher(*c.Pearson, float64(c.N-3))
	c.Spearman = new(stat.Correlation(r.ranks(x, xs), r.ranks(y, ys), nil))
	c.line(xs, ys, ids)
	return c
}

// fisher is the 95 % interval of a correlation whose z is worth so many degrees
// of freedom (Fisher 1921); nil without any.
func fisher(r, freedom float64) (low, high *float64) {
	if freedom <= 0 || math.Abs(r) >= 1 {
		return nil, nil
	}
	half := distuv.UnitNormal.Quantile(0.975) / math.Sqrt(freedom)
	return new(math.Tanh(math.Atanh(r) - half)), new(math.Tanh(math.Atanh(r) + half))
}

// inside relates x and y within each model and number of GPUs, and warns where
// that goes the other way than the whole: then the whole says how models differ.
func (r *relator) inside(c *Row, rows []int, x, y *frame.Series) {
	if c.Pearson == nil {
		return
	}
	xs, ys, models := r.centred(rows, x, y)
	xx, yy, xy := floats.Dot(xs, xs), floats.Dot(ys, ys), floats.Dot(xs, ys)
	if n := float64(len(xs) - models); n >= 2 && xx > 0 && yy > 0 {
		in := &Inside{Models: models, Pearson: max(-1, min(1, xy/math.Sqrt(xx*yy))), Slope: xy / xx}
		in.Low, in.High = fisher(in.Pearson, n-2)
		in.SlopeLow, in.SlopeHigh = frame.Around(in.Slope, frame.T95(n-1)*math.Sqrt(max(0, yy-xy*xy/xx)/(n-1)/xx))
		c.Inside = in
	}
	if in := c.Inside; in != nil && opposite(in.Pearson, *c.Pearson) {
		c.Warning = fmt.Sprintf("over all %+.3f, within models %+.3f: the slope over all separates models, it does not show what %s does",
			*c.Pearson, in.Pearson, c.X)
	} else if c.Partial != nil && opposite(*c.Partial, *c.Pearson) {
		c.Warning = fmt.Sprintf("over all %+.3f, with the other settings taken out %+.3f: "+
			"what is over all is not what %s does", *c.Pearson, *c.Partial, c.X)
	}
}

// centred are x and y less the mean of their model, of the models in which x varies.
func (r *relator) centred(rows []int, x, y *frame.Series) (xs, ys []float64, models int) {
	for _, part := range frame.Split(rows, r.f.Word("model"), nil) {
		var px, py []float64
		for _, at := range part.Rows {
			if a, b := x.Values[at], y.Values[at]; !math.IsNaN(a) && !math.IsNaN(b) {
				px, py = append(px, a), append(py, b)
			}
		}
		if len(px) < 2 || frame.Constant(px) {
			continue
		}
		models++
		floats.AddConst(-stat.Mean(px, nil), px)
		floats.AddConst(-stat.Mean(py, nil), py)
		xs, ys = append(xs, px...), append(ys, py...)
	}
	return xs, ys, models
}

// opposite says that two correlations have different signs, and that both are
// large enough to have one.
func opposite(a, b float64) bool { return a*b < 0 && min(math.Abs(a), math.Abs(b)) >= leastSign }

// leastSign is the correlation from which its sign is spoken of.
const leastSign = 0.1

func pearsonOf(in *Inside) *float64 {
	if in == nil {
		return nil
	}
	return &in.Pearson
}

// ranks remembers those of series that all runs have: ranking is most of the
// work.
func (r *relator) ranks(s *frame.Series, values []float64) []float64 {
	if len(values) < r.f.N {
		return ranks(values)
	}
	if r.ranked[s] == nil {
		r.ranked[s] = ranks(values)
	}
	return r.ranked[s]
}

// ranks are the places in ascending order, from 1; equal values share the mean
// of their places.
func ranks(v []float64) []float64 {
	order := make([]int, len(v))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(v[a], v[b]) })
	out := make([]float64, len(v))
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && v[order[j]] == v[order[i]] {
			j++
		}
		for _, at := range order[i:j] {
			out[at] = float64(i+j+1) / 2
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
func (c *Row) line(xs, ys []float64, ids []string) {
	_, beta := stat.LinearRegression(xs, ys, nil, false)
	residuals, scale := residualsOf(xs, ys)
	n, sum := float64(len(xs)), 0.0
	for _, r := range residuals {
		sum += r * r
	}
	c.Slope = &beta
	spread := stat.Variance(xs, nil) * (n - 1)
	c.SlopeLow, c.SlopeHigh = frame.Around(beta, frame.T95(n-2)*math.Sqrt(sum/(n-2)/spread))
	if len(xs) < 8 || scale <= 1e-9*math.Sqrt(stat.Variance(ys, nil)) { // or more than half lie exactly on the line
		return
	}
	for i, r := range residuals {
		if math.Abs(r) > 5*scale {
			c.Outliers = append(c.Outliers, Outlier{RunID: ids[i], Residual: r, Scales: math.Abs(r) / scale})
		}
	}
	slices.SortStableFunc(c.Outliers, func(a, b Outlier) int { return cmp.Compare(b.Scales, a.Scales) })
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
	slices.Sort(absolute)
	return residuals, quantile(absolute, 0.5) / distuv.UnitNormal.Quantile(0.75)
}

// throughOrigin replaces the slope by that of y proportional to x, for what has
// no constant part: no token, no cache. The log rounds the cache to 0.01 GiB, and
// a free line through nearly equal sizes would follow the rounding. One run is enough.
func (c *Row) throughOrigin(rows []int, x, y *frame.Series) {
	var xs, ys []float64
	for _, at := range rows {
		if a, b := x.Values[at], y.Values[at]; a > 0 && !math.IsNaN(b) {
			xs, ys = append(xs, a), append(ys, b)
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
	c.SlopeLow, c.SlopeHigh = frame.Around(beta, frame.T95(n-1)*math.Sqrt(off/(n-1)/spread))
}

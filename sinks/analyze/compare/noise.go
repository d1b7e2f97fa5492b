package compare

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// A prior is what the other profiles say of a figure's noise: a variance and
// how many degrees of freedom it is worth.
type prior struct {
	variance float64
	dof      float64 // +Inf: all profiles have one noise
}

// priorOf fits a scaled inverse chi-square prior to the variances of many
// profiles by the moments of their logarithms: Smyth 2004, "Linear models and
// empirical Bayes methods", equations for s0 and d0. A few repeats say little
// of a profile's own noise; hundreds of profiles say much of noise in general.
func priorOf(tests []*test) prior {
	type constants struct{ bias, spread float64 }
	of := map[float64]constants{}
	var logs, trigammas []float64
	for _, t := range tests {
		variance, dof := frame.Pooled(t.base, t.new)
		if dof == 0 || variance <= 0 {
			continue
		}
		c, known := of[dof] // most profiles have the same number of repeats
		if !known {
			c = constants{bias: math.Log(dof/2) - mathext.Digamma(dof/2), spread: trigamma(dof / 2)}
			of[dof] = c
		}
		logs, trigammas = append(logs, math.Log(variance)+c.bias), append(trigammas, c.spread)
	}
	if len(logs) < 3 {
		return prior{}
	}
	mean, variance := stat.MeanVariance(logs, nil)
	excess := variance - stat.Mean(trigammas, nil)
	if excess <= 0 {
		return prior{variance: math.Exp(mean), dof: math.Inf(1)}
	}
	half := inverseTrigamma(excess)
	return prior{variance: math.Exp(mean + mathext.Digamma(half) - math.Log(half)), dof: 2 * half}
}

// trigamma is the Hurwitz zeta function at 2.
func trigamma(x float64) float64 { return mathext.Zeta(2, x) }

// inverseTrigamma solves trigamma(x) = y by Newton's method (Smyth 2004,
// appendix).
func inverseTrigamma(y float64) float64 {
	switch {
	case y > 1e7:
		return 1 / math.Sqrt(y)
	case y < 1e-6:
		return 1 / y
	}
	x := 0.5 + 1/y
	for range 50 {
		tri := trigamma(x)
		step := tri * (1 - tri/y) / (-2 * mathext.Zeta(3, x)) // the derivative of trigamma
		x += step
		if -step/x < 1e-8 {
			break
		}
	}
	return x
}

// A difference is new minus base, and how sure it is.
type difference struct {
	mean     float64
	noise    float64 // standard error; NaN where unknown
	dof      float64 // of the noise; +Inf: known
	p        float64 // two-sided; NaN where noise is unknown
	assessed bool
}

// differ compares the sides by a moderated t test: the profile's own variance
// and the prior's, weighted by their degrees of freedom.
func (t *test) differ(before prior) difference {
	d := difference{mean: stat.Mean(t.new, nil) - stat.Mean(t.base, nil), p: math.NaN(), noise: math.NaN()}
	own, dof := frame.Pooled(t.base, t.new)
	if dof == 0 && before.dof == 0 {
		return d
	}
	d.dof, d.assessed = dof+before.dof, true
	variance := (dof*own + before.dof*before.variance) / d.dof
	switch {
	case math.IsInf(before.dof, 1):
		variance = before.variance
	case before.dof == 0:
		variance = own
	}
	d.noise = math.Sqrt(variance * (1/float64(len(t.base)) + 1/float64(len(t.new))))
	switch {
	case d.mean == 0:
		d.p = 1
	case d.noise == 0: // no repeat ever differed: any difference is real
		d.p = 0
	default:
		d.p = 2 * d.distribution().CDF(-math.Abs(d.mean)/d.noise)
	}
	return d
}

// distribution is that of the difference over its noise where nothing changed.
func (d difference) distribution() interface {
	CDF(float64) float64
	Quantile(float64) float64
} {
	if math.IsInf(d.dof, 1) {
		return distuv.UnitNormal
	}
	return distuv.StudentsT{Mu: 0, Sigma: 1, Nu: d.dof}
}

// interval is the 95 % confidence interval of the difference.
func (d difference) interval() (low, high float64) {
	half := d.distribution().Quantile(0.975) * d.noise
	return d.mean - half, d.mean + half
}

// adjust turns p values into false discovery rates (Benjamini and Hochberg
// 1995): where the adjusted value is below q, at most a share q of what is
// called a change is none. NaN stays NaN and does not count.
func adjust(p []float64) []float64 {
	order := make([]int, 0, len(p))
	for i, v := range p {
		if !math.IsNaN(v) {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(p[a], p[b]) })
	out := slices.Repeat([]float64{math.NaN()}, len(p))
	best := 1.0
	for k := len(order) - 1; k >= 0; k-- {
		best = min(best, p[order[k]]*float64(len(order))/float64(k+1))
		out[order[k]] = best
	}
	return out
}

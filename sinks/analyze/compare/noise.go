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

// A spread is a variance and how many degrees of freedom it is worth; none: it
// is not known.
type spread struct{ variance, dof float64 }

// A prior is what all profiles together say of a figure's noise.
type prior struct {
	spread         // dof +Inf: all profiles have one noise
	pooled float64 // degrees of freedom of all that it was learnt from
}

// priorOf fits a scaled inverse chi-square prior to the variances of many
// profiles by the moments of their logarithms: Smyth 2004, "Linear models and
// empirical Bayes methods", equations for s0 and d0. A few repeats say little
// of a profile's own noise; hundreds of profiles say much of noise in general.
// Where the variances differ by no more than chance, it is their pooled
// variance, as in limma since 2017.
func priorOf(all []spread) prior {
	type constants struct{ bias, spread float64 }
	of := map[float64]constants{}
	var logs, trigammas []float64
	pooled := spread{}
	for _, s := range all {
		pooled.variance, pooled.dof = pooled.variance+s.variance*s.dof, pooled.dof+s.dof
		if s.dof == 0 || s.variance <= 0 {
			continue
		}
		c, known := of[s.dof] // most profiles have the same number of repeats
		if !known {
			c = constants{bias: math.Log(s.dof/2) - mathext.Digamma(s.dof/2), spread: trigamma(s.dof / 2)}
			of[s.dof] = c
		}
		logs, trigammas = append(logs, math.Log(s.variance)+c.bias), append(trigammas, c.spread)
	}
	if len(logs) < 3 {
		return prior{}
	}
	before := prior{pooled: pooled.dof}
	mean, variance := stat.MeanVariance(logs, nil)
	excess := variance - stat.Mean(trigammas, nil)
	if excess <= 0 {
		before.spread = spread{pooled.variance / pooled.dof, math.Inf(1)}
		return before
	}
	half := inverseTrigamma(excess)
	before.spread = spread{math.Exp(mean + mathext.Digamma(half) - math.Log(half)), 2 * half}
	return before
}

// moderate weighs a profile's own variance and that of all profiles by their
// degrees of freedom. Both together are worth no more than all that was pooled:
// three profiles with two repeats do not know their noise exactly, however alike
// they look (limma, squeezeVar and eBayes: df.total is capped by df.pooled).
func (own spread) moderate(before prior) spread {
	switch {
	case before.dof == 0:
		return own
	case math.IsInf(before.dof, 1):
		return spread{before.variance, before.pooled}
	}
	dof := own.dof + before.dof
	return spread{(own.dof*own.variance + before.dof*before.variance) / dof, min(dof, before.pooled)}
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

// A noise is what is known of one figure's: between repeats, and between
// executions (nights) of the same profiles.
type noise struct {
	repeats prior
	nights  prior  // of one profile, beyond what all profiles shared
	common  spread // what all profiles of an execution shared; no dof: no side has two
	runs    float64
}

// A night is the mean of one profile in one execution.
type night struct {
	group, execution string // the executions of a group differ by noise alone
	mean             float64
	values           []float64
}

// nightsOf puts the values of a profile together by execution.
func nightsOf(values []value) (all []night) {
	for _, v := range values {
		at := slices.IndexFunc(all, func(n night) bool { return n.execution == v.execution && n.group == v.group })
		if at < 0 {
			at, all = len(all), append(all, night{group: v.group, execution: v.execution})
		}
		all[at].values = append(all[at].values, v.v)
	}
	for i := range all {
		all[i].mean = frame.Mean(all[i].values)
	}
	return all
}

// A deviation is how far a night of a test is from the mean of its group.
type deviation struct {
	of   int // place of the test
	from float64
}

// learn fills in what the profiles say of the noise of a figure, and of each its
// own part. Executions differ by what all profiles share (a warm room, a busy
// host) and by what each does by itself; both are learnt from sides with several
// executions and from history.
func learn(tests []*test) noise {
	n := noise{}
	shared, groups := map[string][]deviation{}, map[string]map[string]bool{}
	var repeats, nights []spread
	runs := []float64{}
	for i, t := range tests {
		var samples [][]float64
		byGroup := map[string][]night{}
		for _, at := range slices.Concat(t.base.nights, t.new.nights, t.past) {
			samples = append(samples, at.values)
			byGroup[at.group] = append(byGroup[at.group], at)
		}
		t.repeats.variance, t.repeats.dof = frame.Pooled(samples...)
		repeats = append(repeats, t.repeats)
		for _, group := range frame.SortedKeys(byGroup) {
			of := byGroup[group]
			if len(of) < 2 {
				continue
			}
			if t.own.dof += float64(len(of) - 1); groups[group] == nil {
				groups[group] = map[string]bool{}
			}
			mean := meanOf(of)
			for _, at := range of {
				groups[group][at.execution] = true
				key := group + " " + at.execution
				shared[key] = append(shared[key], deviation{i, at.mean - mean})
				runs = append(runs, float64(len(at.values)))
			}
		}
	}
	n.repeats = priorOf(repeats)
	for _, executions := range groups {
		n.common.dof += float64(len(executions) - 1)
	}
	if n.common.dof == 0 {
		return n
	}
	n.runs = frame.Mean(runs)
	n.share(tests, shared)
	for _, t := range tests {
		t.own.dof *= 1 - 1/float64(len(tests)) // the rest is in what they share
		nights = append(nights, t.own)
	}
	n.nights = priorOf(nights)
	return n
}

// share parts deviations of nights into what all profiles share and their own.
func (n *noise) share(tests []*test, shared map[string][]deviation) {
	for _, key := range frame.SortedKeys(shared) {
		of := shared[key]
		sum := 0.0
		for _, d := range of {
			sum += d.from
		}
		common := sum / float64(len(of))
		n.common.variance += common * common / n.common.dof
		for _, d := range of {
			if own := &tests[d.of].own; own.dof > 0 {
				own.variance += (d.from - common) * (d.from - common) / own.dof
			}
		}
	}
}

// A difference is new minus base, and how sure it is.
type difference struct {
	mean     float64
	noise    float64 // standard error; NaN where unknown
	dof      float64 // of the noise; +Inf: known
	p        float64 // two-sided; NaN where noise is unknown
	assessed bool
}

// differ compares the sides by a moderated t test. Its variance is a sum: of the
// noise between executions, or between repeats where no side has several; and of
// what each figure may be off by itself (rounding, sampling), even over its width.
// The degrees of freedom of the sum are Satterthwaite's (1946).
func (t *test) differ(n *noise, profiles int) difference {
	d := difference{mean: t.new.mean() - t.base.mean(), p: math.NaN(), noise: math.NaN()}
	each := t.base.each() + t.new.each()
	repeats := t.repeats.moderate(n.repeats)
	parts := []spread{{(t.base.off*t.base.off + t.new.off*t.new.off) / 3, math.Inf(1)}}
	if n.common.dof > 0 {
		sides := 1/float64(len(t.base.nights)) + 1/float64(len(t.new.nights))
		own := t.own.moderate(n.nights)
		if own.dof == 0 && profiles > 1 {
			return d
		}
		parts = append(parts, n.common.times(sides), own.times(sides))
		if fewer := each - sides/n.runs; fewer > 1e-9 { // than the executions that the noise was learnt from
			parts = append(parts, repeats.times(fewer))
		}
	} else if repeats.dof == 0 {
		return d
	} else {
		parts = append(parts, repeats.times(each))
	}
	d.assessed = true
	variance, freedom := 0.0, 0.0
	for _, p := range parts {
		if variance += p.variance; p.variance > 0 {
			freedom += p.variance * p.variance / p.dof
		}
	}
	d.noise, d.dof = math.Sqrt(variance), variance*variance/freedom
	switch {
	case d.mean == 0:
		d.p = 1
	case d.noise == 0: // no repeat ever differed: any difference is real
		d.p, d.dof = 0, math.Inf(1)
	default:
		d.p = 2 * d.distribution().CDF(-math.Abs(d.mean)/d.noise)
	}
	return d
}

func (own spread) times(by float64) spread { return spread{own.variance * by, own.dof} }

// distribution is that of the difference over its noise where nothing changed.
func (d difference) distribution() interface {
	CDF(float64) float64
	Quantile(float64) float64
} {
	if math.IsInf(d.dof, 1) || math.IsNaN(d.dof) {
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

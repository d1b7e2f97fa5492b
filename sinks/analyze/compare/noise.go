package compare

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext"
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
// profiles, so that each variance over its scale is F distributed (Smyth 2004,
// "Linear models and empirical Bayes methods"): a few repeats say little of a
// profile's own noise, many profiles say much of noise in general. The fit is of
// maximum likelihood over degrees of freedom up to all of them; by the moments of
// logarithms, as limma has it, 36 profiles of one noise too often look like several.
func priorOf(all []spread) prior {
	var known []spread
	for _, s := range all {
		if s.dof > 0 && s.variance > 0 {
			known = append(known, s)
		}
	}
	if len(known) < 3 {
		return prior{}
	}
	best, most := prior{}, math.Inf(-1)
	one := sumOfSquares(known)
	scale := one.variance
	for _, dof := range []float64{math.Inf(1), 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1} {
		var likely float64
		if scale, likely = fit(known, dof, scale); likely > most {
			best, most = prior{spread{scale, dof}, one.dof}, likely
		}
	}
	return best
}

// sumOfSquares pools variances.
func sumOfSquares(all []spread) (one spread) {
	for _, s := range all {
		one.dof += s.dof
		one.variance += s.variance * s.dof
	}
	one.variance /= one.dof
	return one
}

// fit finds the scale of the prior with these degrees of freedom (by expectation
// and maximization, from a first guess), and the logarithm of its likelihood
// less what no prior changes.
func fit(known []spread, dof, scale float64) (best, likely float64) {
	if math.IsInf(dof, 1) {
		for _, s := range known {
			x := s.dof / 2
			lgamma, _ := math.Lgamma(x)
			likely += x*math.Log(x/scale) - x*s.variance/scale - lgamma
		}
		return scale, likely
	}
	for range 20 {
		sum, total := 0.0, 0.0
		for _, s := range known {
			sum += s.dof * s.variance * (s.dof + dof) / (dof + s.dof*s.variance/scale)
			total += s.dof
		}
		before := scale
		if scale = sum / total; math.Abs(scale-before) < 1e-6*scale {
			break
		}
	}
	for _, s := range known {
		a, b := s.dof/2, dof/2
		likely += a*math.Log(s.dof/dof/scale) - (a+b)*math.Log1p(s.dof*s.variance/dof/scale) - mathext.Lbeta(a, b)
	}
	return scale, likely
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

// parts are what the variance of a test's difference is a sum of: of the noise
// between executions, or between repeats where no side has several. common is
// that of all profiles together. nil: the noise is not known.
func (t *test) parts(n *noise, profiles int) (own []spread, common spread) {
	each := t.base.each() + t.new.each()
	repeats := t.repeats.moderate(n.repeats)
	switch {
	case n.common.dof == 0 && repeats.dof == 0:
		return nil, common
	case n.common.dof == 0:
		return []spread{repeats.times(each)}, common
	}
	sides := 1/float64(len(t.base.nights)) + 1/float64(len(t.new.nights))
	night := t.own.moderate(n.nights)
	if night.dof == 0 && profiles > 1 {
		return nil, common
	}
	own = []spread{night.times(sides)}
	if fewer := each - sides/n.runs; fewer > 1e-9 { // repeats than the noise was learnt from
		own = append(own, repeats.times(fewer))
	}
	return own, n.common.times(sides)
}

func (own spread) times(by float64) spread { return spread{own.variance * by, own.dof} }

// sumOf independent parts; its degrees of freedom are Satterthwaite's (1946).
func sumOf(parts ...spread) (sum spread) {
	freedom := 0.0
	for _, p := range parts {
		if sum.variance += p.variance; p.variance > 0 {
			freedom += p.variance * p.variance / p.dof
		}
	}
	sum.dof = math.Inf(1)
	if dof := sum.variance * sum.variance / freedom; dof < 1e6 {
		sum.dof = dof
	}
	return sum
}

// differ compares the sides by a moderated t test. Beside its noise each figure
// may be off by itself (rounding, sampling), evenly over that width.
func (t *test) differ(n *noise, profiles int) {
	t.d = difference{mean: t.new.mean() - t.base.mean(), p: math.NaN(), noise: math.NaN()}
	if own, common := t.parts(n, profiles); own != nil {
		t.assess(append(own, common)...)
	}
}

func (t *test) assess(parts ...spread) {
	off := spread{(t.base.off*t.base.off + t.new.off*t.new.off) / 3, math.Inf(1)}
	sum := sumOf(append(parts, off)...)
	d := &t.d
	d.assessed, d.noise, d.dof = true, math.Sqrt(sum.variance), sum.dof
	switch {
	case d.mean == 0:
		d.p = 1
	case d.noise == 0: // no repeat ever differed: any difference is real
		d.p = 0
	default:
		d.p = 2 * d.distribution().CDF(-math.Abs(d.mean)/d.noise)
	}
}

// leastTogether are the profiles that a figure is also judged by as a whole.
const leastTogether = 3

// together is the test of the mean over all profiles: a few per cent on each of
// them are far from noise, and on none of them alone. nil: there are too few.
func together(tests []*test, n *noise) *test {
	all := &test{pair: &pair{}, of: tests}
	var own, common []spread
	k := 0.0
	for _, t := range tests {
		if parts, shared := t.parts(n, len(tests)); parts != nil {
			k++
			own, common = append(own, parts...), append(common, shared)
			all.figure = t.figure
			all.base.add(t.base)
			all.new.add(t.new)
			all.d.mean += t.d.mean
			all.pair.base, all.pair.new = append(all.pair.base, t.pair.base...), append(all.pair.new, t.pair.new...)
		}
	}
	if k < leastTogether {
		return nil
	}
	all.pair.label = fmt.Sprintf("all %.0f profiles", k)
	all.d.mean /= k
	all.base.off, all.new.off = all.base.off/k, all.new.off/k
	sum, shared := sumOf(own...).times(1/(k*k)), sumOf(common...).times(1/k)
	sum.dof, shared.dof = min(sum.dof, cmp.Or(n.nights.pooled, n.repeats.pooled, sum.dof)), n.common.dof
	all.assess(sum, shared)
	return all
}

// add takes the side of a further profile.
func (s *side) add(more side) {
	s.runs += more.runs
	s.off += more.off
	s.nights = append(s.nights, night{mean: more.mean()})
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

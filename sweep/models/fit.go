package models

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// A Sample is one run on one rank that laws are fitted to: what was asked, and
// what vLLM and the driver said, in bytes.
type Sample struct {
	RunID, Model string
	Architecture *Architecture
	Request      Request
	GPU          GPU
	Torch        string // version
	Attention    string // backend

	Context     float64 // total less free memory when vLLM starts to count
	Weights     float64
	Consumed    float64 // weights and all else that stays, as vLLM counts it from 0.27 on
	Activations float64
	KVCache     float64
	KVTokens    float64
	Graphs      float64 // 0: none were captured
	Estimate    float64 // vLLM's own of Graphs; 0: none
	// InUse is what of the reserved activation and beyond it was in use at the highest sample; nil: not known.
	InUse *float64
}

// A Fit is what laws are fitted to and beside.
type Fit struct {
	Samples []Sample
	// Prior has the formulas' structure, and every coefficient that no sample says anything of.
	Prior      *Laws
	By, Source string
	Synthetic  bool // the samples are a simulator's
}

// ErrFit says that laws cannot be fitted to some samples.
var ErrFit = errors.New("laws cannot be fitted")

// Laws fits the laws of one vLLM on one GPU. A term that no sample says
// anything of is left to the prior laws. It fails with ErrFit.
//
// Which moment a run's peak is of follows from the laws that are sought: they are fitted a
// few times over, at first by the prior ones. A version may sample with more or fewer copies
// of the logits, and so have its peak elsewhere; of several beginnings the one whose laws miss the
// activations least is kept.
func (o Fit) Laws() (*LawFile, error) {
	var best *LawFile
	least := math.Inf(1)
	for _, copies := range []float64{1, 3, 2, 1. / 2, 1. / 3} {
		file, off, err := o.from(copies)
		if err != nil {
			return nil, err
		}
		if off < 0.9*least {
			best, least = file, off
		}
	}
	if best == nil || len(best.Terms) == 0 {
		return nil, fmt.Errorf("%w: %d runs say nothing of any term", ErrFit, len(o.Samples))
	}
	return best, nil
}

// from fits, beginning with the prior laws and so many times their copies of
// the logits; off is the mean relative error of the activations.
func (o Fit) from(copies float64) (file *LawFile, off float64, err error) {
	base, old, err := o.file()
	if err != nil {
		return nil, 0, err
	}
	f := fitter{prior: o.Prior, all: slices.Clone(o.Samples), runs: Starts(o.Samples)}
	seed := *base
	if law := f.find(termSamplerV2); law.Law != nil {
		c := law.c("copies").Value * copies
		seed.Terms = map[string]Law{termSamplerV2: {Form: law.Form, Elsewhere: Range{1, 1},
			Coefficients: map[string]Coefficient{"copies": fixed(c), "base_bytes": law.c("base_bytes")}}}
	}
	file = &seed
	for range 3 {
		set, err := o.Prior.With(file)
		if err != nil {
			return nil, 0, err
		}
		for i := range f.all {
			f.all[i].Request.Laws = set
		}
		f.runs = Starts(f.all)
		next := *base
		next.Terms = map[string]Law{}
		if old != nil { // of the same vLLM and GPU: as good as measured here
			maps.Copy(next.Terms, old.Terms)
		}
		f.fit(&next)
		file = &next
	}
	return file, f.off(file), nil
}

// off is by how much a file's laws miss the activations, in the mean, as a share.
func (f fitter) off(file *LawFile) float64 {
	sum := 0.0
	all := f.misses(file)
	for _, miss := range all {
		sum += miss
	}
	return sum / max(float64(len(all)), 1)
}

// misses are the relative errors of a file's activations, run by run.
func (f fitter) misses(file *LawFile) (all []float64) {
	set, err := f.prior.With(file)
	if err != nil {
		return nil
	}
	for _, r := range f.runs {
		r.Request.Laws = set
		if v := NewEstimate(r.Architecture, r.Request, r.GPU).Activations.Value; v != nil && *v > 0 {
			all = append(all, math.Abs(r.Activations/float64(*v)-1))
		}
	}
	return all
}

// file is the file without its terms, and the one that it takes the place of.
func (o Fit) file() (base, old *LawFile, err error) {
	if len(o.Samples) == 0 {
		return nil, nil, fmt.Errorf("%w: there is no run of one rank with an account of its memory", ErrFit)
	}
	first := &o.Samples[0]
	v, ok := ParseRelease(first.Request.Version)
	if !ok || !v.consumed() {
		return nil, nil, fmt.Errorf("%w: the runs are of vLLM %q; expected 0.27 or newer, which says what it consumes",
			ErrFit, first.Request.Version)
	}
	base = &LawFile{
		Schema: LawSchema, VLLM: first.Request.Version, From: fmt.Sprintf("0.%d.0", v/1000%1000), GPU: first.GPU.Product,
		Arch: first.GPU.Arch, Torch: first.Torch, By: o.By, Source: o.Source, Synthetic: o.Synthetic,
		Runs: len(o.Samples), Ranks: 1,
	}
	for i := range o.Samples {
		s := &o.Samples[i]
		if s.Request.Version != base.VLLM || s.GPU.Product != base.GPU {
			return nil, nil, fmt.Errorf("%w: %s is of vLLM %s on %s, %s of %s on %s; a laws file is of one vLLM and one GPU",
				ErrFit, first.RunID, base.VLLM, base.GPU, s.RunID, s.Request.Version, s.GPU.Product)
		}
		base.RunList = append(base.RunList, s.RunID)
	}
	for _, f := range o.Prior.files {
		if f.release/1000 == v/1000 && f.Synthetic == o.Synthetic {
			base.From = f.From
			if f.GPU == base.GPU {
				old, base.Torch = f, cmp.Or(base.Torch, f.Torch)
			}
		}
	}
	return base, old, nil
}

// Starts are the runs whose engine starts in another way than that of each one
// before: those of one start say the same of all but what serving takes.
func Starts(runs []Sample) []Sample {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(runs), func(r Sample) bool {
		key := r.start()
		defer func() { seen[key] = true }()
		return seen[key]
	})
}

func (r *Sample) start() string {
	s, _ := r.shape()
	return fmt.Sprint(r.Model, s.a.NumLayers, s.tokens, s.seqs, s.maxLen, s.kvWidth, s.utilization, s.r.EnforceEager,
		s.r.CompileCache)
}

// shape is a run's defaults and what follows from its shape.
func (r *Sample) shape() (s setup, e Estimate) {
	v, _ := ParseRelease(r.Request.Version)
	s = newSetup(r.Architecture, r.Request, r.GPU, v, &e)
	s.limits(&e)
	return s, NewEstimate(r.Architecture, r.Request, r.GPU)
}

func (s *setup) logits() float64 { return float64(s.seqs * s.a.VocabSize) }

// equations collects linear equations of coefficients, for least squares.
type equations struct {
	prior []float64 // the coefficients as they are known otherwise; nil: they are not
	list  []equation
}

// An equation is y = sum of x times coefficients, within an error.
type equation struct {
	model     string
	y, within float64
	x         []float64
}

func (l *equations) add(r *Sample, y, within float64, x ...float64) {
	l.list = append(l.list, equation{r.Model, y, within, x})
}

// solve returns the coefficients, those of a model left out. Where the equations
// do not determine them all, the first one is solved for beside the prior others; nil: not even that.
func (l *equations) solve(without string) []float64 {
	used := slices.DeleteFunc(slices.Clone(l.list), func(e equation) bool { return e.model == without })
	if len(used) == 0 {
		return nil
	}
	out := append([]float64(nil), l.prior...)
	if out == nil {
		out = make([]float64, len(used[0].x))
	}
	var some []int // columns that stand in an equation
	for j := range out {
		if slices.ContainsFunc(used, func(e equation) bool { return e.x[j] != 0 }) {
			some = append(some, j)
		}
	}
	if leastSquares(used, some, out) || (l.prior != nil && leastSquares(used, []int{0}, out)) {
		return out
	}
	return nil
}

// alike is the condition number from which on equations are taken to say the
// same: figures are printed to two or three digits.
const alike = 200

// leastSquares solves for the coefficients of some columns, beside those that
// out has of the others. It is false where the equations, each column scaled to one, do
// not tell them apart.
func leastSquares(list []equation, columns []int, out []float64) bool {
	if len(list) < len(columns) || len(columns) == 0 {
		return false
	}
	a, y := mat.NewDense(len(list), len(columns), nil), mat.NewVecDense(len(list), nil)
	scale := make([]float64, len(columns))
	for i, e := range list {
		rest := e.y
		for j, c := range out {
			if at := slices.Index(columns, j); at < 0 {
				rest -= c * e.x[j]
			} else {
				a.Set(i, at, e.x[j]/e.within)
				scale[at] = max(scale[at], math.Abs(e.x[j]/e.within))
			}
		}
		y.SetVec(i, rest/e.within)
	}
	for at, s := range scale {
		if s == 0 {
			return false
		}
		for i := range list {
			a.Set(i, at, a.At(i, at)/s)
		}
	}
	var qr mat.QR
	qr.Factorize(a)
	var x mat.VecDense
	if qr.Cond() > alike || qr.SolveVecTo(&x, false, y) != nil {
		return false
	}
	for at, j := range columns {
		out[j] = x.AtVec(at) / scale[at]
	}
	return true
}

// missed is by how much, in units of the equations' error, nine of ten of them
// are missed at most when their model is left out; of a single model, when nothing is.
func (l *equations) missed() float64 {
	all := l.solve("")
	var off []float64
	for _, e := range l.list {
		c := l.solve(e.model)
		if c == nil {
			c = all
		}
		rest := e.y
		for i := range e.x {
			rest -= c[i] * e.x[i]
		}
		off = append(off, math.Abs(rest/e.within))
	}
	slices.Sort(off)
	return off[len(off)-1-len(off)/10]
}

// models is of how many models the equations are.
func (l *equations) models() int {
	seen := map[string]bool{}
	for _, e := range l.list {
		seen[e.model] = true
	}
	return len(seen)
}

// fixed is a coefficient that follows from a formula's structure.
func fixed(n float64) Coefficient { return Coefficient{n, n, n} }

// digits keeps so many significant digits: a fit has no more.
func digits(n float64, many int) float64 {
	if n == 0 {
		return 0
	}
	scale := math.Floor(math.Log10(math.Abs(n))) - float64(many-1)
	if scale > 0 {
		return math.Round(n/math.Pow(10, scale)) * math.Pow(10, scale)
	}
	return math.Round(n*math.Pow(10, -scale)) / math.Pow(10, -scale)
}

// around is a coefficient with what is off on either side.
func around(value, off float64) Coefficient {
	v, off := digits(value, 4), math.Abs(off)
	return Coefficient{v, digits(v-off, 4), digits(v+off, 4)}
}

const rounding = float64(gib) / 200 // of what vLLM prints

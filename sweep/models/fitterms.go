package models

import (
	"fmt"
	"maps"
	"slices"
)

// A fitter fits the terms of one vLLM on one GPU to runs of one rank. Of runs that
// start alike all but growth has one.
type fitter struct {
	prior     *Laws
	all, runs []Sample
}

// fit puts the laws that the runs give into the file.
func (f fitter) fit(file *LawFile) {
	for term, fit := range map[string]func(*Law) bool{
		termContext: f.context, termNonTorch: f.nonTorch, termSamplerV2: f.sampler, termState: f.state,
		termGraphs: f.graphs, termGraphEstimate: f.graphEstimate, termGrowth: f.growth,
	} {
		old := f.find(term)
		if old.Law == nil {
			continue
		}
		law := Law{Coefficients: maps.Clone(old.Coefficients), Form: old.Form, Elsewhere: old.Elsewhere,
			Attention: old.Attention}
		if fit(&law) {
			file.Terms[term] = law
		}
	}
	if law := f.find(termActivations); law.Law != nil {
		f.activations(file, law)
	}
	f.widen(file)
}

// find is the prior law of a term.
func (f fitter) find(term string) found {
	s, _ := f.runs[0].shape()
	law, ok := f.prior.find(term, s.v, s.g)
	if !ok {
		return found{}
	}
	return law
}

// unseen leaves coefficients that no run says anything of as they were, as wide
// as they are for another version or GPU.
func (f fitter) unseen(law *Law, term string, names ...string) {
	old := f.find(term)
	for _, name := range names {
		if c, ok := law.Coefficients[name]; ok && !old.measured {
			law.Coefficients[name] = Coefficient{c.Value,
				min(c.Low, c.Value*old.Elsewhere.Low), max(c.High, c.Value*old.Elsewhere.High)}
		}
	}
}

// priors are coefficients of a law in the order of equations' columns.
func priors(law *Law, names ...string) (c []float64) {
	for _, name := range names {
		c = append(c, law.Coefficients[name].Value)
	}
	return c
}

// fewModels is of how many models equations must be before leaving one out
// says how far off a coefficient is.
const fewModels = 3

// within is a coefficient as far as the equations miss it, and half of a third
// of that more; of few models no less than it was.
func (l *equations) within(value, unit float64, old Coefficient) Coefficient {
	off := 1.3 * l.missed() * unit
	if l.models() < fewModels {
		off = max(off, (old.High-old.Low)/2)
	}
	return around(value, off)
}

func (f fitter) context(law *Law) bool {
	var l equations
	for i := range f.runs {
		l.add(&f.runs[i], f.runs[i].Context, 2*rounding, 1)
	}
	c := l.solve("")
	if c == nil || c[0] <= 0 {
		return false
	}
	law.Coefficients["one_bytes"] = around(c[0], 4*rounding) // total and free are printed to 0.1 GiB here
	f.unseen(law, termContext, "nccl_bytes", "peer_bytes")
	law.Runs = len(l.list)
	law.Source = "total less free memory at start; NCCL and peers, which no run had, as they were, in a wide interval"
	return true
}

func (f fitter) nonTorch(law *Law) bool {
	l := equations{prior: priors(law, "one_bytes", "per_logit_bytes")}
	for i := range f.runs {
		r := &f.runs[i]
		s, e := r.shape()
		if s.mxfp4() || e.Buffers.Value == nil {
			continue
		}
		rest := r.Consumed - r.Weights - float64(*e.Buffers.Value) - float64(peak{setup: &s}.expertWorkspace())
		l.add(r, rest, rounding, 1, s.logits())
	}
	c := l.solve("")
	if c == nil {
		return false
	}
	law.Coefficients["one_bytes"] = l.within(c[0], rounding, law.Coefficients["one_bytes"])
	law.Coefficients["per_logit_bytes"] = fixed(digits(c[1], 3))
	f.unseen(law, termNonTorch, "tensor_parallel_bytes", "further_rank_bytes", "pipeline_bytes")
	law.Runs = len(l.list)
	law.Source = "consumed less weights, buffers and experts' workspace; with several ranks, which no run had, as it was"
	return true
}

// sampler fits the copies of the logits to runs whose peak is sampling: those
// of large vocabularies and small layers.
func (f fitter) sampler(law *Law) bool {
	l := equations{prior: priors(law, "copies", "base_bytes")}
	for i := range f.runs {
		r := &f.runs[i]
		s, e := r.shape()
		if e.ActivationsAt != "sampler" {
			continue
		}
		rest := r.Activations - float64((s.tokens+s.seqs)*s.a.HiddenSize*s.width+s.seqs*ceilDiv(s.a.VocabSize, 1024)*12)
		l.add(r, rest, rounding, s.logits()*float64(s.width), 1)
	}
	c := l.solve("")
	if c == nil {
		return false
	}
	law.Coefficients = map[string]Coefficient{"copies": fixed(digits(c[0], 3)), "base_bytes": fixed(digits(c[1], 3))}
	law.Runs, law.Source = len(l.list), "least squares over the runs whose peak is sampling"
	return true
}

// state fits what layers with a state have alive.
func (f fitter) state(law *Law) bool {
	var l equations
	for i := range f.runs {
		r := &f.runs[i]
		s, e := r.shape()
		if e.ActivationsAt != "state" {
			continue
		}
		rest := r.Activations - f.tuner(&s) + 0.5*s.logits() - float64(2*s.tokens*s.width*s.a.HiddenSize)
		l.add(r, rest, rest, float64(s.tokens*s.width*s.a.stateProjection()))
	}
	c := l.solve("")
	if c == nil {
		return false
	}
	law.Coefficients = map[string]Coefficient{
		"hidden": fixed(2), "projection": fixed(digits(c[0], 3)), "spread": {0, 0, 0.3},
	}
	law.Runs, law.Source = len(l.list), fmt.Sprintf("%d runs of models with Mamba 2 or delta net layers", len(l.list))
	return true
}

// tuner is the buffer that triton clears, where kernels are tuned.
func (f fitter) tuner(s *setup) float64 {
	if s.r.EnforceEager || s.r.CompileCache == "warm" {
		return 0
	}
	return float64(peak{setup: s}.l2())
}

// activations fits what of the structure's formula runs of dense models do not
// have, and the hidden states of a layer with experts.
func (f fitter) activations(file *LawFile, old found) {
	law := Law{Form: old.Form, Coefficients: maps.Clone(old.Coefficients), Elsewhere: old.Elsewhere, Runs: len(f.runs)}
	c := law.Coefficients
	dense := equations{prior: priors(&law, "per_logit_bytes")}
	experts := equations{prior: priors(&law, "experts_hidden")}
	for i := range f.runs {
		r := &f.runs[i]
		s, e := r.shape()
		p := peak{setup: &s, law: found{Law: &law}}
		switch e.ActivationsAt {
		case "forward":
			rest := r.Activations - f.tuner(&s) - float64(p.dense(s.a.IntermediateSize))
			dense.add(r, rest, rounding, s.logits())
		case "experts":
			shared := float64(s.tokens * (3*s.a.MoE.SharedIntermediate*s.width + 4*s.a.MoE.Experts))
			rest := r.Activations - f.tuner(&s) + 0.5*s.logits() - shared
			experts.add(r, rest, rounding, float64(s.tokens*s.a.HiddenSize*s.width))
		}
	}
	if x := dense.solve(""); x != nil {
		c["per_logit_bytes"] = fixed(digits(x[0], 3))
	}
	law.Source = fmt.Sprintf("structure as it was; S·V from %d runs of dense models", len(dense.list))
	if x := experts.solve(""); x != nil {
		c["experts_hidden"], c["experts_slack"] = fixed(digits(x[0], 3)), fixed(0.3)
		law.Source += fmt.Sprintf(", hidden states of layers with experts from %d", len(experts.list))
	}
	file.Terms[termActivations] = law
	c["spread"] = f.spread(file)
}

// spread is how far the runs lie from the law, and half of it more.
func (f fitter) spread(file *LawFile) Coefficient {
	return around(0, 1.5*slices.Max(append(f.misses(file), 0.02)))
}

// graphs fits the pool: what it takes at all, each layer of each further graph,
// and FlashAttention's partial sums.
func (f fitter) graphs(law *Law) bool {
	l := equations{prior: priors(law, "first_piecewise_bytes", "full_layer_bytes", "splits")}
	for i := range f.runs {
		if r := &f.runs[i]; r.Graphs > 0 {
			_, further, split := f.poolOf(r)
			l.add(r, r.Graphs, r.Graphs, 1, further, split)
		}
	}
	c := l.solve("")
	if c == nil {
		return false
	}
	spread := around(0, max(0.3, 1.5*l.missed())) // a dozen models say no less
	layer := fixed(digits(c[1], 3))
	law.Coefficients = map[string]Coefficient{
		"first_piecewise_bytes": fixed(digits(c[0], 3)), "piecewise_layer_bytes": layer, "full_layer_bytes": layer,
		"splits": around(c[2], c[2]*spread.High), "splits_sinks": fixed(1), "first_spread": spread, "further_spread": spread,
	}
	law.Runs = len(l.list)
	law.Source = "least squares of the relative error over the captures; piecewise and full graphs are not told apart"
	return true
}

// poolOf are the units of the pool's law.
func (f fitter) poolOf(r *Sample) (c captured, further, split float64) {
	s, _ := r.shape()
	law := found{Law: &Law{Coefficients: map[string]Coefficient{"splits_sinks": fixed(1)}}}
	x := graphs{setup: &s, layers: s.a.NumLayers, law: law}
	c = x.captures()
	return c, float64(s.a.NumLayers * (c.piecewise - 1 + c.full - 1)), float64(x.splitBuffer(c.seqs))
}

func (f fitter) graphEstimate(law *Law) bool {
	l := equations{prior: priors(law, "base_bytes", "width_bytes")}
	for i := range f.runs {
		if r := &f.runs[i]; r.Estimate > 0 {
			c, _, _ := f.poolOf(r)
			s, _ := r.shape()
			x := graphs{setup: &s}
			l.add(r, r.Estimate, rounding, 1, float64(c.full*s.a.NumLayers*x.splitWidth()))
		}
	}
	c := l.solve("")
	if c == nil {
		return false
	}
	law.Coefficients = map[string]Coefficient{
		"base_bytes":  l.within(c[0], rounding, law.Coefficients["base_bytes"]),
		"width_bytes": fixed(digits(c[1], 3)),
	}
	law.Runs, law.Source = len(l.list), "least squares over vLLM's own estimates"
	return true
}

// growth fits what comes into use of the reserved activation and beyond it, by
// the prompt tokens of a batch.
func (f fitter) growth(law *Law) bool {
	l := equations{prior: priors(law, "base_bytes", "token_bytes")}
	tokens := func(r *Sample) float64 {
		s, _ := r.shape()
		return float64(min(r.Request.InputLen*r.Request.BatchSize, s.tokens))
	}
	for i := range f.all {
		if r := &f.all[i]; r.InUse != nil && !r.Architecture.stateLayers() {
			l.add(r, *r.InUse, rounding, 1, tokens(r))
		}
	}
	c := l.solve("")
	if c == nil {
		return false
	}
	law.Coefficients["base_bytes"] = l.within(c[0], rounding, law.Coefficients["base_bytes"])
	law.Coefficients["token_bytes"] = fixed(digits(c[1], 3))
	law.Runs = len(l.list)
	law.Source = "the driver's highest use beyond requested + context + graphs outside the budget + what was reserved"
	var states equations
	most := 0.0
	for i := range f.all {
		if r := &f.all[i]; r.InUse != nil && r.Architecture.stateLayers() {
			states.add(r, *r.InUse-c[0]-c[1]*tokens(r), rounding, 1)
			most = max(most, *r.InUse)
		}
	}
	if x := states.solve(""); x != nil { // kinds of states lie far apart
		law.Coefficients["state_bytes"] = around(x[0], 1.3*(most-c[0]-x[0]))
	}
	return true
}

// widen lets what a term is elsewhere reach as far as the prior laws, where they
// are of another version or GPU, missed these runs.
func (f fitter) widen(file *LawFile) {
	reach := func(term string, predicted Figure, measured float64) {
		law, ok := file.Terms[term]
		if !ok || f.find(term).measured || predicted.Value == nil || *predicted.Value <= 0 || measured <= 0 {
			return
		}
		// The other way round: what these laws would say of the prior's runs.
		ratio := float64(*predicted.Value) / measured
		law.Elsewhere = Range{min(law.Elsewhere.Low, digits(ratio, 2)), max(law.Elsewhere.High, digits(ratio, 2))}
		file.Terms[term] = law
	}
	for _, r := range f.runs {
		r.Request.Laws = f.prior
		e := NewEstimate(r.Architecture, r.Request, r.GPU)
		reach(termContext, e.Context, r.Context)
		reach(termActivations, e.Activations, r.Activations)
		reach(termGraphs, e.CUDAGraphs, r.Graphs)
		reach(termGraphEstimate, Figure{Value: e.GraphEstimate}, r.Estimate)
		if e.NonTorch.Value != nil && e.Buffers.Value != nil {
			reach(termNonTorch, e.NonTorch, r.Consumed-r.Weights-float64(*e.Buffers.Value))
		}
	}
}

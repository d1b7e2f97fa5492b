package models

// Given are figures that somebody knows better than the arithmetic, such as a
// database of measurements. nil is left to the arithmetic. Low and High may be
// nil: then what follows from the figure has no interval either.
type Given struct {
	Weights       *Figure
	Activations   *Figure
	NonTorch      *Figure
	CUDAGraphs    *Figure
	GraphEstimate *Figure // what vLLM takes off the budget; only where it takes off anything
	Context       *Figure
	Buffers       *Figure
}

// apply lays the given figures over the arithmetic's.
func (g *Given) apply(e *Estimate) {
	if g == nil {
		return
	}
	for _, p := range []struct {
		from *Figure
		to   *Figure
	}{
		{g.Weights, &e.Weights}, {g.Activations, &e.Activations}, {g.NonTorch, &e.NonTorch},
		{g.CUDAGraphs, &e.CUDAGraphs}, {g.Context, &e.Context}, {g.Buffers, &e.Buffers},
	} {
		if p.from != nil && p.from.Value != nil {
			*p.to = *p.from
		}
	}
}

// graphEstimate is what vLLM takes off the budget for graphs: the given figure, else f.
func (g *Given) graphEstimate(e *Estimate, f Figure) Figure {
	if g == nil || g.GraphEstimate == nil || g.GraphEstimate.Value == nil || e.GraphEstimate == nil {
		return f
	}
	e.GraphEstimate = ptr(*g.GraphEstimate.Value)
	if n := *g.GraphEstimate; n.Low != nil && n.High != nil {
		return n
	}
	n := *g.GraphEstimate.Value
	return figure(n, n-n*2/5, n+n*2/5, g.GraphEstimate.Source)
}

// spread is how far the truth may lie below and above a figure; ok is false
// where it has no interval.
func spread(f Figure) (down, up int64, ok bool) {
	if f.Value == nil || f.Low == nil || f.High == nil {
		return 0, 0, false
	}
	return *f.Value - *f.Low, *f.High - *f.Value, true
}

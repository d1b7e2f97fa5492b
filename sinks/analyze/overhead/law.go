package overhead

import (
	"math"

	"gonum.org/v1/gonum/stat"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A Law carries a coefficient from one model to another: bytes = coefficient x
// units, or units + coefficient.
type Law string

func (l Law) coefficient(bytes, units float64) float64 {
	if l == lawBeyond {
		return bytes - units
	}
	return bytes / units
}

func (l Law) bytes(coefficient, units float64) float64 {
	if l == lawBeyond {
		return units + coefficient
	}
	return coefficient * units
}

// The laws. What the arithmetic of sweep/models computes comes first; where it
// cannot tell (layers with a state, an architecture that nobody described), a
// component goes with the size that it is known to grow with.
const (
	lawFactor Law = "x the arithmetic's estimate"
	lawBeyond Law = "+ the arithmetic's estimate"
	lawRank   Law = "a rank"
	lawWidth  Law = "a batched token and hidden dimension"
	lawLayer  Law = "a layer"
	lawVocab  Law = "a word of the vocabulary"
)

// A driver is a component and the laws that it may follow, the best first.
type driver struct {
	component string
	laws      []Law
	// machine: depends on GPU and ranks alone, so that a model's own runs say
	// no more than those of others.
	machine bool
	// own: follows from architecture; only a model's own runs say more.
	own bool
	// structure: what an unseen model is made of may matter more than how far
	// the seen ones differ (four norms a layer, an MLP that is not fused): the
	// interval is never narrower than the arithmetic's, which knows of it.
	structure bool
	// near: another version or runner works it out in another way.
	near bool
}

// drivers are the components. Weights and KV cache follow from architecture;
// weights are kept to check that, and because kernels repack some of them.
func drivers() []driver {
	return []driver{
		{component: "weights", laws: []Law{lawFactor}, own: true},
		{component: "activations_reserved", laws: []Law{lawFactor, lawWidth}, structure: true},
		{component: "cuda_graphs", laws: []Law{lawFactor, lawLayer}},
		{component: "graph_estimate", laws: []Law{lawFactor}, near: true},
		{component: "non_torch", laws: []Law{lawRank}, machine: true},
		{component: "context", laws: []Law{lawRank}, machine: true},
		{component: "buffers", laws: []Law{lawBeyond, lawVocab}},
		{component: "in_use", laws: []Law{lawFactor, lawRank}},
		{component: "growth_excess", laws: []Law{lawRank}},
	}
}

// Components are the names of the components in their order.
func Components() []string {
	var names []string
	for _, d := range drivers() {
		names = append(names, d.component)
	}
	return names
}

// units are what the laws compute for one run or query.
type units struct {
	shape    models.Estimate
	running  models.Estimate // at the tokens that the benchmark really batches
	tokens   int64
	shapeOf  Shape
	measured bool // a is known
}

// unitsOf asks the arithmetic. a may be nil.
func unitsOf(a *models.Architecture, r models.Request, g models.GPU, s Shape) units {
	u := units{shapeOf: s, measured: a != nil}
	r.Given = nil
	u.shape = models.NewEstimate(a, r, g)
	if r.MaxNumBatchedTokens != nil {
		u.tokens = *r.MaxNumBatchedTokens
	} else if u.shape.MaxNumBatchedTokens != nil {
		u.tokens = *u.shape.MaxNumBatchedTokens
	}
	batch := u.tokens
	if n := r.InputLen * r.BatchSize; n > 0 {
		batch = min(batch, n)
	}
	seqs := u.shape.MaxNumSeqs
	r.MaxNumBatchedTokens, r.MaxNumSeqs = &batch, seqs
	u.running = models.NewEstimate(a, r, g)
	return u
}

// law is the first law of a component that has units here.
func (u *units) law(d driver) (Law, float64, bool) {
	for _, says := range d.laws {
		if n, ok := u.of(d.component, says); ok {
			return says, n, true
		}
	}
	return "", 0, false
}

// of are the units of one law.
func (u *units) of(component string, says Law) (float64, bool) {
	n := 0.0
	switch says {
	case lawRank:
		n = 1
	case lawWidth:
		n = float64(u.tokens) * float64(u.shapeOf.HiddenSize)
	case lawLayer:
		n = float64(u.shapeOf.Layers)
	case lawVocab:
		n = float64(u.shapeOf.Vocabulary)
	default:
		if v := u.estimated(component); v != nil {
			n = float64(*v)
		}
	}
	return n, n > 0
}

// estimated is the arithmetic's figure for a component, as its law scales it.
func (u *units) estimated(component string) *int64 {
	if component == "in_use" { // a scale for it, not an estimate of it
		return u.running.Activations.Value
	}
	return u.figure(component).Value
}

// figure is the arithmetic's own figure with its interval, where a component
// has one.
func (u *units) figure(component string) models.Figure {
	return map[string]models.Figure{
		"weights": u.shape.Weights, "activations_reserved": u.shape.Activations, "cuda_graphs": u.shape.CUDAGraphs,
		"non_torch": u.shape.NonTorch, "context": u.shape.Context, "buffers": u.shape.Buffers,
		"graph_estimate": {Value: u.shape.GraphEstimate},
	}[component]
}

// at is the moment of the peak that a component is of.
func (u *units) at(d driver) string {
	if d.component == "activations_reserved" {
		return u.shape.ActivationsAt
	}
	return ""
}

// A spreadOf is a standard deviation and how many degrees of freedom it is worth.
type spreadOf struct {
	sd, dof float64
}

// sampleSpread is that of one sample.
func sampleSpread(values []float64) spreadOf {
	if len(values) < 2 {
		return spreadOf{}
	}
	return spreadOf{sd: stat.StdDev(values, nil), dof: float64(len(values) - 1)}
}

// halfWidth is half of the 95 % interval of one further value beside n of the
// same spread: t(0.975, dof) x sd x sqrt(1 + 1/n).
func halfWidth(s spreadOf, n int) (float64, bool) {
	if s.dof == 0 || n == 0 {
		return 0, false
	}
	return frame.T95(s.dof) * s.sd * math.Sqrt(1+1/float64(n)), true
}

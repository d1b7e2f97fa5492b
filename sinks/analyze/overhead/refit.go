package overhead

import (
	"fmt"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// refitted is the component of a check that owes the arithmetic's constants
// nothing: they were worked out from vLLM's source by people who had seen runs
// of the corpora, so that leaving a model out of the database does not make it
// unseen to them. Here only the terms of the law are kept, and every coefficient
// is fitted anew by least squares to the other models.
const refitted = "activations_refitted"

// terms are what the activation law is a sum of, without its constants:
//
//	forward   T b h, T b H d/tp, T b I/tp, 1     one layer at T tokens
//	sampler   S V b, S V, T b h, 1               logits and their copies, hidden states
//
// nil: the run's peak has no such law (experts, MLA) or its model is not known.
func (db *Database) terms(run *Run) (group string, x []float64) {
	a := db.arcs[run.Model]
	if a == nil {
		return "", nil
	}
	e := models.NewEstimate(a, run.request(), run.device())
	if e.MaxNumBatchedTokens == nil || e.MaxNumSeqs == nil {
		return "", nil
	}
	width := 2.0
	if run.Dtype == "float32" || run.Dtype == "float" {
		width = 4
	}
	tokens, seqs, tp := float64(*e.MaxNumBatchedTokens)*width, float64(*e.MaxNumSeqs), float64(run.TP)
	switch e.ActivationsAt {
	case "forward":
		x = []float64{tokens * float64(a.HiddenSize), tokens * float64(a.NumHeads*a.HeadDim) / tp,
			tokens * float64(a.IntermediateSize) / tp, frame.GiB}
	case "sampler":
		logits := seqs * float64(a.VocabSize)
		x = []float64{logits, tokens * float64(a.HiddenSize), frame.GiB}
		if width == 4 {
			return "", nil // one run: its term cannot be fitted
		}
	default:
		return "", nil
	}
	if run.PP > 1 {
		return "", nil
	}
	return fmt.Sprintf("%s %s %s %v %v", run.VLLM, run.Runner, e.ActivationsAt, run.Compile == "eager", a.MLP), x
}

// refit predicts the activations of each model by the law with coefficients
// fitted to the others.
func (db *Database) refit(folds [][]int) []RunError {
	type row struct {
		fold  int
		group string
		x     []float64
		y     float64
		run   *Run
	}
	var rows []row
	for f, runs := range folds {
		for _, i := range runs {
			run := &db.Runs[i]
			group, x := db.terms(run)
			if y, ok := run.Figures["activations_reserved"]; ok && x != nil {
				rows = append(rows, row{f, group, x, float64(y), run})
			}
		}
	}
	var out []RunError
	for _, r := range rows {
		var xs [][]float64
		var ys []float64
		var others []int
		for _, o := range rows {
			if o.group == r.group && o.fold != r.fold {
				xs, ys = append(xs, o.x), append(ys, o.y)
				if !slices.Contains(others, o.fold) {
					others = append(others, o.fold)
				}
			}
		}
		e := RunError{RunID: r.run.RunID, Model: r.run.Model, Component: refitted, At: r.group, Measured: r.y}
		if c := leastSquares(xs, ys); c != nil && len(others) >= len(r.x) {
			predicted := 0.0
			for k := range c {
				predicted += c[k] * r.x[k]
			}
			e.Predicted, e.Basis = &predicted, fmt.Sprintf("%d terms fitted to %s", len(c), counted(len(ys), len(others)))
		}
		out = append(out, e)
	}
	return out
}

// leastSquares solves x c = y; of terms that the rows do not tell apart it takes
// the shortest c. nil: it cannot be solved.
func leastSquares(xs [][]float64, ys []float64) []float64 {
	if len(xs) == 0 {
		return nil
	}
	cols := len(xs[0])
	scale := make([]float64, cols)
	for _, x := range xs {
		for k, v := range x {
			scale[k] = max(scale[k], v)
		}
	}
	a := mat.NewDense(len(xs), cols, nil)
	for i, x := range xs {
		for k, v := range x {
			if scale[k] > 0 {
				a.Set(i, k, v/scale[k])
			}
		}
	}
	var svd mat.SVD
	if !svd.Factorize(a, mat.SVDThin) {
		return nil
	}
	var c mat.Dense
	svd.SolveTo(&c, mat.NewDense(len(ys), 1, ys), max(svd.Rank(1e-6), 1))
	out := make([]float64, cols)
	for k := range out {
		if scale[k] > 0 {
			out[k] = c.At(k, 0) / scale[k]
		}
	}
	return out
}

package overhead

import (
	"fmt"
	"math"
	"slices"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A Validation is how well the database tells models that it has not seen:
// each architecture is left out once, with all of its runs whatever they are
// called, and predicted from the others.
type Validation struct {
	Synthetic  bool             `json:"synthetic"`
	Models     int              `json:"models"`
	Components []ComponentError `json:"components"`
	// Runs holds every prediction, so that outliers can be named.
	Runs   []RunError `json:"runs"`
	Reason string     `json:"reason,omitempty"`
}

// A RunError is one figure of one run whose model was left out.
type RunError struct {
	RunID        string   `json:"run_id"`
	Model        string   `json:"model"`
	Component    string   `json:"component"`
	At           string   `json:"at,omitempty"`
	Measured     float64  `json:"measured_bytes"`
	Predicted    *float64 `json:"predicted_bytes"` // null: nothing to predict it from
	Low          *float64 `json:"low"`
	High         *float64 `json:"high"`
	Basis        string   `json:"basis,omitempty"`
	ByArithmetic bool     `json:"by_arithmetic"` // the database had nothing: it is the arithmetic's
	// Alone is what the arithmetic says without the database.
	Alone *float64 `json:"arithmetic_bytes"`
}

// Off is predicted - measured, as a share of the measured; ok is false without
// a prediction, or where nothing was measured.
func (r *RunError) Off() (off float64, ok bool) {
	if r.Predicted == nil || r.Measured == 0 {
		return 0, false
	}
	return (*r.Predicted - r.Measured) / r.Measured, true
}

// held is 1 where the interval holds the truth, else 0; nothing without an interval.
func (r *RunError) held() []float64 {
	switch {
	case r.Low == nil || r.High == nil:
		return nil
	case *r.Low <= r.Measured && r.Measured <= *r.High:
		return []float64{1}
	}
	return []float64{0}
}

// A ComponentError is the error over all runs of models left out.
type ComponentError struct {
	Component string   `json:"component"`
	N         int      `json:"n"`             // runs predicted
	Models    int      `json:"models"`        // that they are of
	Fallback  int      `json:"by_arithmetic"` // of N: no other model had anything, and the arithmetic stands
	Untold    int      `json:"untold"`        // runs that nothing predicts
	MeanAbs   *float64 `json:"mean_abs"`      // bytes of one rank, over runs
	Relative  *float64 `json:"mean_abs_of"`   // of the measured, over runs; null where one measured 0
	ByModel   *float64 `json:"mean_abs_each"` // the same, each model with one vote
	Alone     *float64 `json:"arithmetic_of"` // of the same runs, by the arithmetic alone
	Worst     float64  `json:"worst"`         // bytes, with its sign: predicted - measured
	WorstOf   string   `json:"worst_of,omitempty"`
	Covered   *float64 `json:"covered"` // share of intervals that hold the truth; the aim is 0.95
	Intervals int      `json:"intervals"`
}

// checked are the figures of the whole, beside the components.
func checked() []string { return []string{"kv_cache", "highest", refitted} }

// Validate leaves one model out at a time.
func (db *Database) Validate() Validation {
	folds := db.folds()
	v := Validation{Synthetic: db.Synthetic, Models: len(folds)}
	if len(folds) < 2 {
		v.Reason = "the database has one model: no other to predict it from"
		return v
	}
	v.Runs = db.leaveOut(folds, db.chosen())
	v.Runs = append(v.Runs, db.refit(folds)...)
	for _, component := range append(Components(), checked()...) {
		if c := componentError(component, v.Runs); c != nil {
			v.Components = append(v.Components, *c)
		}
	}
	return v
}

// leaveOut predicts each fold from the others. nearer are the components that are
// left to the arithmetic.
func (db *Database) leaveOut(folds [][]int, nearer map[string]string) (all []RunError) {
	for _, out := range folds {
		rest := &Database{Version: db.Version, Synthetic: db.Synthetic, arcs: db.arcs, nearer: nearer}
		for i := range db.Runs {
			if !slices.Contains(out, i) {
				rest.Runs = append(rest.Runs, db.Runs[i])
			}
		}
		rest.settle()
		for _, i := range out {
			all = append(all, rest.check(&db.Runs[i])...)
		}
	}
	return all
}

// arithmeticIsNearer says why a component of an unseen model is left to the
// arithmetic; "": the database is nearer.
func (db *Database) arithmeticIsNearer(component string) string { return db.chosen()[component] }

// chosen are the components that the arithmetic alone tells better of models left
// out, each with one vote, and by how much. It is worked out once.
func (db *Database) chosen() map[string]string {
	db.choice.Do(func() {
		if db.nearer != nil {
			return
		}
		db.nearer = map[string]string{}
		folds := db.folds()
		if len(folds) < 2 {
			return
		}
		off := map[string]map[string][][2]float64{} // by component and model: of the database, of the arithmetic
		for _, r := range db.leaveOut(folds, map[string]string{}) {
			if r.Predicted == nil || r.Alone == nil || r.ByArithmetic || r.Measured == 0 {
				continue
			}
			if off[r.Component] == nil {
				off[r.Component] = map[string][][2]float64{}
			}
			off[r.Component][r.Model] = append(off[r.Component][r.Model],
				[2]float64{math.Abs(*r.Predicted/r.Measured - 1), math.Abs(*r.Alone/r.Measured - 1)})
		}
		for component, byModel := range off {
			var sum [2]float64
			for _, model := range frame.SortedKeys(byModel) {
				for _, one := range byModel[model] {
					for k := range sum {
						sum[k] += one[k] / float64(len(byModel[model])*len(byModel))
					}
				}
			}
			if sum[1] < sum[0] && len(byModel) >= enough {
				db.nearer[component] = fmt.Sprintf("for models left out it is nearer than the database (%.2f against %.2f %%)",
					100*sum[1], 100*sum[0])
			}
		}
	})
	return db.nearer
}

// folds are the runs of each architecture, in the order of its first run.
func (db *Database) folds() [][]int {
	var out [][]int
	at := map[any]int{}
	for i := range db.Runs {
		var key any = db.Runs[i].Shape
		if db.Runs[i].Shape == (Shape{}) {
			key = db.Runs[i].Model
		}
		n, ok := at[key]
		if !ok {
			n = len(out)
			at[key] = n
			out = append(out, nil)
		}
		out[n] = append(out[n], i)
	}
	return out
}

// Query is the run as it would have been asked for before it was made.
func (db *Database) query(run *Run) Query {
	return Query{Key: run.Key, Shape: run.Shape, Architecture: db.arcs[run.Model], Request: run.request(),
		Device: run.device()}
}

// check predicts one run from a database that lacks its model.
func (db *Database) check(run *Run) []RunError {
	q := db.query(run)
	p := db.Predict(q)
	alone := models.NewEstimate(q.Architecture, q.Request, q.Device)
	u := unitsOf(q.Architecture, q.Request, q.Device, q.Shape)
	var out []RunError
	add := func(e RunError, bytes int64) {
		e.RunID, e.Model, e.Measured = run.RunID, run.Model, float64(bytes)
		out = append(out, e)
	}
	for i := range p.Parts {
		part := &p.Parts[i]
		bytes, ok := run.Figures[part.Component]
		if !ok {
			continue
		}
		e := RunError{Component: part.Component, Predicted: part.Bytes, Low: part.Low, High: part.High, Basis: part.From(),
			Alone: floatOf(part.Arithmetic)}
		if part.Runs == 0 && part.Bytes != nil && db.nearer[part.Component] != "" {
			e.Basis, e.ByArithmetic = part.Basis, true
		} else if part.Runs == 0 { // what a plan falls back to
			e = ofFigure(part.Component, u.figure(part.Component), part.Arithmetic)
			e.Basis, e.ByArithmetic = "the arithmetic: "+part.Reason, true
		}
		if part.Component == "activations_reserved" {
			e.At = u.shape.ActivationsAt
		}
		add(e, bytes)
	}
	if bytes, ok := run.Check["kv_cache"]; ok {
		add(ofFigure("kv_cache", p.Estimate.KVCache, alone.KVCache.Value), bytes)
	}
	if bytes, ok := run.Check["highest"]; ok {
		add(ofFigure("highest", p.Highest, nil), bytes)
	}
	return out
}

// ofFigure is the prediction that a figure of an estimate makes.
func ofFigure(component string, f models.Figure, alone *int64) RunError {
	return RunError{Component: component, Predicted: floatOf(f.Value), Low: floatOf(f.Low), High: floatOf(f.High),
		Basis: f.Reason, Alone: floatOf(alone)}
}

func floatOf(n *int64) *float64 {
	if n == nil {
		return nil
	}
	return new(float64(*n))
}

// componentError sums up one component; nil where no run has it.
func componentError(component string, runs []RunError) *ComponentError {
	c := &ComponentError{Component: component}
	var abs, relative, alone, held []float64
	byModel := map[string][]float64{}
	seen := 0
	for i := range runs {
		r := &runs[i]
		if r.Component != component {
			continue
		}
		seen++
		if r.Predicted == nil {
			c.Untold++
			continue
		}
		c.N++
		if r.ByArithmetic {
			c.Fallback++
		}
		off := *r.Predicted - r.Measured
		abs = append(abs, math.Abs(off))
		if math.Abs(off) >= math.Abs(c.Worst) {
			c.Worst, c.WorstOf = off, r.Model
		}
		if share, ok := r.Off(); ok {
			relative = append(relative, math.Abs(share))
			byModel[r.Model] = append(byModel[r.Model], math.Abs(share))
			if r.Alone != nil {
				alone = append(alone, math.Abs((*r.Alone-r.Measured)/r.Measured))
			}
		}
		held = append(held, r.held()...)
	}
	if seen == 0 {
		return nil
	}
	c.Models, c.Intervals = len(byModel), len(held)
	c.MeanAbs, c.Covered = meanOrNil(abs), meanOrNil(held)
	if len(relative) == c.N {
		var each []float64
		for _, name := range frame.SortedKeys(byModel) {
			each = append(each, frame.Mean(byModel[name]))
		}
		c.Relative, c.ByModel = meanOrNil(relative), meanOrNil(each)
		if len(alone) == c.N {
			c.Alone = meanOrNil(alone)
		}
	}
	return c
}

func meanOrNil(values []float64) *float64 {
	if len(values) == 0 {
		return nil
	}
	return new(frame.Mean(values))
}

package analyze

import (
	"fmt"
	"io"
	"math"
	"sort"
	"text/tabwriter"
)

// A Validation is how well the database tells models that it has not seen:
// each model is left out once and predicted from the others.
type Validation struct {
	Models     int              `json:"models"`
	Components []ComponentError `json:"components"`
	Reason     string           `json:"reason,omitempty"`
}

// A ComponentError is the error over all entries of models left out.
type ComponentError struct {
	Component string   `json:"component"`
	N         int      `json:"n"`           // entries predicted
	Untold    int      `json:"untold"`      // entries for which no other model had anything
	MeanAbs   *float64 `json:"mean_abs"`    // bytes of one rank
	Relative  *float64 `json:"mean_abs_of"` // of the measured; null where one measured 0
	Worst     float64  `json:"worst"`       // bytes, with its sign: predicted - measured
	WorstOf   string   `json:"worst_of,omitempty"`
	Covered   *float64 `json:"covered"` // share of intervals that hold the truth; the aim is 0.95
	intervals int
}

// Validate leaves one model out at a time.
func (db *Overheads) Validate() Validation {
	models := map[string]bool{}
	for _, e := range db.Entries {
		models[e.Model] = true
	}
	v := Validation{Models: len(models)}
	if len(models) < 2 {
		v.Reason = "the database has one model: no other to predict it from"
		return v
	}
	errors := map[string]*ComponentError{}
	relative := map[string][]float64{}
	for model := range models {
		rest := &Overheads{Version: db.Version, Synthetic: db.Synthetic}
		for _, e := range db.Entries {
			if e.Model != model {
				rest.Entries = append(rest.Entries, e)
			}
		}
		for i := range db.Entries {
			if db.Entries[i].Model == model {
				rest.check(&db.Entries[i], errors, relative)
			}
		}
	}
	for _, d := range drivers() {
		e := errors[d.component]
		if e == nil {
			continue
		}
		e.finish(relative[d.component])
		v.Components = append(v.Components, *e)
	}
	return v
}

// check predicts one entry from a database that lacks its model.
func (db *Overheads) check(e *Overhead, errors map[string]*ComponentError, relative map[string][]float64) {
	sum := errors[e.Component]
	if sum == nil {
		sum = &ComponentError{Component: e.Component, MeanAbs: new(float64)}
		errors[e.Component] = sum
	}
	units := 0.0
	for _, o := range e.Observations {
		units += o.Units / float64(len(e.Observations))
	}
	measured := e.Coefficient * units
	var part PredictedPart
	for _, d := range drivers() {
		if d.component != e.Component {
			continue
		}
		for _, r := range rungs() {
			if db.climb(&part, d, r, OverheadQuery{OverheadKey: e.OverheadKey, Shape: e.Shape}, units) {
				break
			}
		}
	}
	if part.Bytes == nil {
		sum.Untold++
		return
	}
	off := *part.Bytes - measured
	sum.N++
	*sum.MeanAbs += math.Abs(off)
	if math.Abs(off) >= math.Abs(sum.Worst) {
		sum.Worst, sum.WorstOf = off, e.Model
	}
	if measured != 0 {
		relative[e.Component] = append(relative[e.Component], math.Abs(off/measured))
	}
	if part.Low != nil {
		sum.intervals++
		held := 0.0
		if *part.Low <= measured && measured <= *part.High {
			held = 1
		}
		if sum.Covered == nil {
			sum.Covered = new(float64)
		}
		*sum.Covered += held
	}
}

func (c *ComponentError) finish(relative []float64) {
	if c.N == 0 {
		c.MeanAbs = nil
		return
	}
	*c.MeanAbs /= float64(c.N)
	if len(relative) == c.N {
		mean := meanOf(relative)
		c.Relative = &mean
	}
	if c.Covered != nil {
		*c.Covered /= float64(c.intervals)
	}
}

// Text prints what a prediction for an unseen model is worth.
func (v Validation) Text(out io.Writer) error {
	w := &lines{out: out}
	if v.Reason != "" {
		w.printf("leave one model out: not possible: %s\n", v.Reason)
		return w.err
	}
	w.printf("leave one model out (%d models): what a prediction for an unseen model is worth\n", v.Models)
	table := tabwriter.NewWriter(out, 2, 4, 2, ' ', 0)
	fmt.Fprintln(table, "  component\tentries\tmean error\tof measured\tworst\tof\tintervals that hold\tuntold")
	for _, c := range v.Components {
		if c.MeanAbs == nil {
			fmt.Fprintf(table, "  %s\t0\t-\t-\t-\t-\t-\t%d\n", c.Component, c.Untold)
			continue
		}
		relative, covered := "-", "-"
		if c.Relative != nil {
			relative = fmt.Sprintf("%.1f %%", 100**c.Relative)
		}
		if c.Covered != nil {
			covered = fmt.Sprintf("%.0f %% of %d", 100**c.Covered, c.intervals)
		}
		fmt.Fprintf(table, "  %s\t%d\t%.0f MiB\t%s\t%s\t%s\t%s\t%d\n", c.Component, c.N, *c.MeanAbs/mib, relative, signed(c.Worst, UnitBytes), c.WorstOf, covered, c.Untold)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("printing the validation: %w", err)
	}
	return w.err
}

// Text prints the database.
func (db *Overheads) Text(out io.Writer) error {
	table := tabwriter.NewWriter(out, 2, 4, 2, ' ', 0)
	fmt.Fprintln(table, "model\tTP\tGPU\tvLLM\trunner\tcompile\tcomponent\tper rank\tcoefficient\truns\tlargest residual")
	for i := range db.Entries {
		e := &db.Entries[i]
		units, worst := 0.0, 0.0
		for _, o := range e.Observations {
			units += o.Units / float64(e.Runs)
			worst = max(worst, math.Abs(o.Residual))
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%.0f MiB\t%.4g B per %s\t%d\t%.0f MiB\n", e.Model, e.TP, e.GPU, e.VLLM, e.Runner, e.Compile, e.Component, e.Coefficient*units/mib, e.Coefficient, e.Per, e.Runs, worst/mib)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("printing the overhead database: %w", err)
	}
	w := &lines{out: out}
	for _, s := range db.Skipped {
		w.printf("left out: %s\n", s)
	}
	return w.err
}

// PredictionText prints a prediction.
func PredictionText(out io.Writer, parts []PredictedPart) error {
	table := tabwriter.NewWriter(out, 2, 4, 2, ' ', 0)
	fmt.Fprintln(table, "component\tper rank\t95 % of a further run\tfrom")
	for _, p := range parts {
		if p.Bytes == nil {
			fmt.Fprintf(table, "%s\t-\t-\t%s\n", p.Component, p.Reason)
			continue
		}
		interval := "-"
		if p.Low != nil {
			interval = fmt.Sprintf("%.0f .. %.0f MiB", *p.Low/mib, *p.High/mib)
		}
		fmt.Fprintf(table, "%s\t%.0f MiB\t%s\t%s (%d models, %d runs)\n", p.Component, *p.Bytes/mib, interval, p.Basis, p.Models, p.Runs)
	}
	return table.Flush()
}

// sortedKeys are the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

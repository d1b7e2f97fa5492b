package overhead

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// mebibytes are bytes for a cell; "-" where there are none.
func mebibytes[T int64 | float64](bytes *T) string {
	if bytes == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f MiB", float64(*bytes)/frame.MiB)
}

func between[T int64 | float64](low, high *T) string {
	if low == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f .. %.0f MiB", float64(*low)/frame.MiB, float64(*high)/frame.MiB)
}

func percent(share *float64) string {
	if share == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f %%", 100**share)
}

// summary is the mean of the measured bytes and the largest residual.
func (e *Entry) summary() (mean, worst float64) {
	for _, o := range e.Observed {
		mean += o.Bytes / float64(len(e.Observed))
		worst = max(worst, math.Abs(o.Residual))
	}
	return mean, worst
}

// Text prints the database.
func (db *Database) Text(out io.Writer) error {
	w := frame.NewText(out)
	w.Printf("%d %s runs\n", len(db.Runs), frame.Kind(db.Synthetic))
	w.Table(func(line *frame.Text) {
		line.Printf("model\tdtype\tTP\tPP\tGPU\tvLLM\trunner\tcompile\tcomponent\ta rank\tcoefficient\truns\t" +
			"largest residual\n")
		for i := range db.Entries {
			e := &db.Entries[i]
			dtype := e.Dtype
			if e.Quantization != "none" {
				dtype += "/" + e.Quantization
			}
			mean, worst := e.summary()
			line.Printf("%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", e.Model, dtype, e.TP, e.PP, e.GPU, e.VLLM,
				e.Runner, e.Compile, e.Component, mebibytes(&mean), coefficientText(e.Law, &e.Coefficient), e.Runs,
				mebibytes(&worst))
		}
	})
	for _, s := range db.Skipped {
		w.Printf("left out: %s\n", s)
	}
	return w.Err
}

// coefficientText is a coefficient in the words of its law.
func coefficientText(law Law, c *float64) string {
	if c == nil {
		return "-"
	}
	switch law {
	case lawFactor:
		return fmt.Sprintf("%.4f %s", *c, law)
	case lawBeyond:
		return fmt.Sprintf("%+.0f MiB %s", *c/frame.MiB, law)
	case lawRank:
		return fmt.Sprintf("%.0f MiB %s", *c/frame.MiB, law)
	}
	return fmt.Sprintf("%.4g B %s", *c, law)
}

// Text prints what a prediction for an unseen model is worth.
func (v Validation) Text(out io.Writer) error {
	w := frame.NewText(out)
	if v.Reason != "" {
		w.Printf("leave one model out: not possible: %s\n", v.Reason)
		return w.Err
	}
	w.Printf("leave one model out (%d models of %s runs): what a prediction for an unseen model is worth\n",
		v.Models, frame.Kind(v.Synthetic))
	w.Table(func(line *frame.Text) {
		line.Printf("  component\truns\tmodels\tmean error\tof measured\teach model one vote\tarithmetic alone\t" +
			"worst\tof\tintervals that hold\tby arithmetic\tuntold\n")
		for _, c := range v.Components {
			if c.MeanAbs == nil {
				line.Printf("  %s\t0\t-\t-\t-\t-\t-\t-\t-\t-\t0\t%d\n", c.Component, c.Untold)
				continue
			}
			covered := "-"
			if c.Covered != nil {
				covered = fmt.Sprintf("%.0f of %d", *c.Covered*float64(c.Intervals), c.Intervals)
			}
			line.Printf("  %s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", c.Component, c.N, c.Models,
				mebibytes(c.MeanAbs), percent(c.Relative), percent(c.ByModel), percent(c.Alone),
				frame.Signed(c.Worst, frame.UnitBytes), c.WorstOf, covered, c.Fallback, c.Untold)
		}
	})
	return w.Err
}

// ByModel prints the mean and the worst error of each model left out.
func (v Validation) ByModel(out io.Writer) error {
	if v.Reason != "" {
		return nil
	}
	columns := []string{"weights", "activations_reserved", refitted, "cuda_graphs", "kv_cache", "highest"}
	cells := map[string]map[string][]float64{}
	for i := range v.Runs {
		r := &v.Runs[i]
		if off, ok := r.Off(); ok {
			if cells[r.Model] == nil {
				cells[r.Model] = map[string][]float64{}
			}
			cells[r.Model][r.Component] = append(cells[r.Model][r.Component], 100*off)
		}
	}
	w := frame.NewText(out)
	w.Table(func(line *frame.Text) {
		line.Printf("  model left out: mean and worst, %%\truns\t%s\n", strings.Join(columns, "\t"))
		for _, model := range frame.SortedKeys(cells) {
			runs := 0
			for _, errs := range cells[model] {
				runs = max(runs, len(errs))
			}
			line.Printf("  %s\t%d", model, runs)
			for _, c := range columns {
				errs := cells[model][c]
				if len(errs) == 0 {
					line.Printf("\t-")
					continue
				}
				sum, worst := 0.0, 0.0
				for _, e := range errs {
					sum += math.Abs(e)
					if math.Abs(e) > math.Abs(worst) {
						worst = e
					}
				}
				line.Printf("\t%.2f %+.2f", sum/float64(len(errs)), worst)
			}
			line.Printf("\n")
		}
	})
	return w.Err
}

// Outliers prints the n worst predictions of each component that are off by
// more than share.
func (v Validation) Outliers(out io.Writer, n int, share float64) error {
	size := func(r RunError) float64 {
		off, _ := r.Off()
		return math.Abs(off)
	}
	var all []RunError
	for _, c := range v.Components {
		worst := slices.DeleteFunc(slices.Clone(v.Runs), func(r RunError) bool {
			return r.Component != c.Component || size(r) <= share
		})
		slices.SortStableFunc(worst, func(a, b RunError) int { return cmp.Compare(size(b), size(a)) })
		all = append(all, worst[:min(n, len(worst))]...)
	}
	if len(all) == 0 {
		return nil
	}
	w := frame.NewText(out)
	w.Table(func(line *frame.Text) {
		line.Printf("  outliers: component\tmodel\trun\tmeasured\tpredicted\toff\tfrom\n")
		for _, r := range all {
			off, _ := r.Off()
			line.Printf("  %s\t%s\t%s\t%s\t%s\t%+.1f %%\t%s\n", r.Component, r.Model, r.RunID,
				mebibytes(&r.Measured), mebibytes(r.Predicted), 100*off, r.Basis)
		}
	})
	return w.Err
}

// Text prints a prediction.
func (p Prediction) Text(out io.Writer) error {
	w := frame.NewText(out)
	if p.Synthetic {
		w.Printf("synthetic: predicted from runs of the simulator\n")
	}
	w.Table(func(line *frame.Text) {
		line.Printf("component\ta rank\t95 %% of a further run\tarithmetic alone\tfrom\n")
		for i := range p.Parts {
			part := &p.Parts[i]
			from := part.Reason
			if part.Bytes != nil {
				from = part.From()
				if part.Reason != "" {
					from += " (" + part.Reason + ")"
				}
			}
			line.Printf("%s\t%s\t%s\t%s\t%s\n", part.Component,
				mebibytes(part.Bytes), between(part.Low, part.High), mebibytes(part.Arithmetic), from)
		}
		h := p.Highest
		if h.Value == nil {
			h.Source = h.Reason
		}
		line.Printf("highest use\t%s\t%s\t-\t%s\n", mebibytes(h.Value), between(h.Low, h.High), h.Source)
	})
	return w.Err
}

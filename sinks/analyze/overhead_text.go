package analyze

import (
	"fmt"
	"io"
	"math"
	"sort"
	"strings"
	"text/tabwriter"
)

// summary is the mean of the measured bytes and the largest residual.
func (e *Overhead) summary() (mean, worst float64) {
	for _, o := range e.Observed {
		mean += o.Bytes / float64(len(e.Observed))
		worst = max(worst, math.Abs(o.Residual))
	}
	return mean, worst
}

// Text prints the database.
func (db *Overheads) Text(out io.Writer) error {
	table := tabwriter.NewWriter(out, 2, 4, 2, ' ', 0)
	fmt.Fprintln(table, "model\tdtype\tTP\tPP\tGPU\tvLLM\trunner\tcompile\tcomponent\ta rank\tcoefficient\truns\tlargest residual")
	for i := range db.Entries {
		e := &db.Entries[i]
		mean, worst := e.summary()
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%.0f MiB\t%s\t%d\t%.0f MiB\n", e.Model, e.dtype(), e.TP, e.PP, e.GPU, e.VLLM, e.Runner, e.Compile, e.Component, mean/mib, e.coefficientText(), e.Runs, worst/mib)
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

func (e *Overhead) dtype() string {
	if e.Quantization != "none" {
		return e.Dtype + "/" + e.Quantization
	}
	return e.Dtype
}

// coefficientText is the coefficient in the words of its law.
func (e *Overhead) coefficientText() string {
	switch e.Law {
	case lawFactor:
		return fmt.Sprintf("%.4f %s", e.Coefficient, e.Law)
	case lawBeyond:
		return fmt.Sprintf("%+.0f MiB %s", e.Coefficient/mib, e.Law)
	case lawRank:
		return fmt.Sprintf("%.0f MiB %s", e.Coefficient/mib, e.Law)
	}
	return fmt.Sprintf("%.4g B %s", e.Coefficient, e.Law)
}

func percentOfShare(f *float64) string {
	if f == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f %%", 100**f)
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
	fmt.Fprintln(table, "  component\truns\tmodels\tmean error\tof measured\teach model one vote\tarithmetic alone\tworst\tof\tintervals that hold\tby arithmetic\tuntold")
	for _, c := range v.Components {
		if c.MeanAbs == nil {
			fmt.Fprintf(table, "  %s\t0\t-\t-\t-\t-\t-\t-\t-\t-\t0\t%d\n", c.Component, c.Untold)
			continue
		}
		covered := "-"
		if c.Covered != nil {
			covered = fmt.Sprintf("%.0f of %d", *c.Covered*float64(c.Intervals), c.Intervals)
		}
		fmt.Fprintf(table, "  %s\t%d\t%d\t%.0f MiB\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", c.Component, c.N, c.Models, *c.MeanAbs/mib, percentOfShare(c.Relative), percentOfShare(c.ByModel), percentOfShare(c.Alone), signed(c.Worst, UnitBytes), c.WorstOf, covered, c.Fallback, c.Untold)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("printing the validation: %w", err)
	}
	return w.err
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
	table := tabwriter.NewWriter(out, 2, 4, 2, ' ', 0)
	fmt.Fprintf(table, "  model left out: mean and worst, %%\truns\t%s\n", strings.Join(columns, "\t"))
	for _, model := range sortedKeys(cells) {
		runs := 0
		for _, errs := range cells[model] {
			runs = max(runs, len(errs))
		}
		fmt.Fprintf(table, "  %s\t%d", model, runs)
		for _, c := range columns {
			errs := cells[model][c]
			if len(errs) == 0 {
				fmt.Fprint(table, "\t-")
				continue
			}
			sum, worst := 0.0, 0.0
			for _, e := range errs {
				sum += math.Abs(e)
				if math.Abs(e) > math.Abs(worst) {
					worst = e
				}
			}
			fmt.Fprintf(table, "\t%.2f %+.2f", sum/float64(len(errs)), worst)
		}
		fmt.Fprintln(table)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("printing the models: %w", err)
	}
	return nil
}

// Outliers prints the n worst predictions of each component that are off by
// more than share.
func (v Validation) Outliers(out io.Writer, n int, share float64) error {
	table := tabwriter.NewWriter(out, 2, 4, 2, ' ', 0)
	said := false
	for _, c := range v.Components {
		var worst []RunError
		for _, r := range v.Runs {
			if off, ok := r.Off(); ok && r.Component == c.Component && math.Abs(off) > share {
				worst = append(worst, r)
			}
		}
		sort.SliceStable(worst, func(i, j int) bool {
			a, _ := worst[i].Off()
			b, _ := worst[j].Off()
			return math.Abs(a) > math.Abs(b)
		})
		for i, r := range worst {
			if i == n {
				break
			}
			if !said {
				fmt.Fprintln(table, "  outliers: component\tmodel\trun\tmeasured\tpredicted\toff\tfrom")
				said = true
			}
			off, _ := r.Off()
			fmt.Fprintf(table, "  %s\t%s\t%s\t%.0f MiB\t%.0f MiB\t%+.1f %%\t%s\n", r.Component, r.Model, r.RunID, r.Measured/mib, *r.Predicted/mib, 100*off, r.Basis)
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("printing the outliers: %w", err)
	}
	return nil
}

// Text prints a prediction.
func (p Prediction) Text(out io.Writer) error {
	table := tabwriter.NewWriter(out, 2, 4, 2, ' ', 0)
	fmt.Fprintln(table, "component\ta rank\t95 % of a further run\tarithmetic alone\tfrom")
	for i := range p.Parts {
		part := &p.Parts[i]
		alone, interval := "-", "-"
		if part.Arithmetic != nil {
			alone = fmt.Sprintf("%.0f MiB", float64(*part.Arithmetic)/mib)
		}
		if part.Bytes == nil {
			fmt.Fprintf(table, "%s\t-\t-\t%s\t%s\n", part.Component, alone, part.Reason)
			continue
		}
		if part.Low != nil {
			interval = fmt.Sprintf("%.0f .. %.0f MiB", *part.Low/mib, *part.High/mib)
		}
		from := part.From()
		if part.Reason != "" {
			from += " (" + part.Reason + ")"
		}
		fmt.Fprintf(table, "%s\t%.0f MiB\t%s\t%s\t%s\n", part.Component, *part.Bytes/mib, interval, alone, from)
	}
	if p.Highest.Value == nil {
		fmt.Fprintf(table, "highest use\t-\t-\t-\t%s\n", p.Highest.Reason)
	} else {
		interval := "-"
		if p.Highest.Low != nil {
			interval = fmt.Sprintf("%.0f .. %.0f MiB", float64(*p.Highest.Low)/mib, float64(*p.Highest.High)/mib)
		}
		fmt.Fprintf(table, "highest use\t%.0f MiB\t%s\t-\t%s\n", float64(*p.Highest.Value)/mib, interval, p.Highest.Source)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("printing the prediction: %w", err)
	}
	return nil
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

package correlate

import (
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/sinks"
)

// Table is all that was found as one flat table, for pandas and DuckDB. kind is
// "setting" (every setting with every figure), "question", "group" (a figure by a
// word) or "timeline"; a cell that the kind does not have, or that is not defined, is
// null. Outliers are run ids, and their residuals, separated by blanks.
func (c *Report) Table() (columns []string, rows [][]any) {
	columns = []string{"kind", "question", "within", "x", "y", "unit", "n", "pearson", "pearson_low", "pearson_high",
		"spearman", "partial", "partial_low", "partial_high",
		"models_within", "pearson_within", "slope_within", "slope_within_low",
		"slope_within_high", "warning", "alike",
		"slope", "slope_low", "slope_high", "through_origin", "expected", "group", "mean", "low", "high", "eta_squared",
		"phase", "timelines", "reason", "partial_reason", "outliers", "outlier_residuals", "synthetic"}
	add := func(kind string, cells map[string]any) {
		cells["kind"], cells["synthetic"] = kind, c.Synthetic
		row := make([]any, len(columns))
		for i, name := range columns {
			row[i] = cellOf(cells[name])
		}
		rows = append(rows, row)
	}
	for i := range c.Rows {
		r := &c.Rows[i]
		kind := "setting"
		if r.Question != "" {
			kind = "question"
		}
		var runs, residuals []string
		for _, o := range r.Outliers {
			runs, residuals = append(runs, o.RunID), append(residuals, strconv.FormatFloat(o.Residual, 'g', 6, 64))
		}
		cells := map[string]any{"question": r.Question, "within": r.Within, "x": r.X, "y": r.Y, "unit": r.SlopeUnit,
			"n": int64(r.N), "pearson": r.Pearson, "spearman": r.Spearman, "partial": r.Partial,
			"slope": r.Slope, "slope_low": r.SlopeLow, "slope_high": r.SlopeHigh, "through_origin": r.Origin,
			"expected": r.Expected, "reason": r.Reason, "partial_reason": r.PartialWhy,
			"outliers": strings.Join(runs, " "), "outlier_residuals": strings.Join(residuals, " "),
			"pearson_low": r.Low, "pearson_high": r.High, "partial_low": r.PartialLow, "partial_high": r.PartialHigh,
			"warning": r.Warning}
		if in := r.Inside; in != nil {
			cells["models_within"], cells["pearson_within"], cells["slope_within"] = int64(in.Models), in.Pearson, in.Slope
			cells["slope_within_low"], cells["slope_within_high"] = in.SlopeLow, in.SlopeHigh
		}
		add(kind, cells)
	}
	for _, g := range c.Groups {
		base := map[string]any{"question": g.Question, "x": g.By, "y": g.Y, "unit": g.Unit, "n": int64(g.N),
			"alike": strings.Join(g.Alike, " "), "eta_squared": g.Eta2, "reason": g.Reason}
		if len(g.Groups) == 0 {
			add("group", base)
		}
		for _, one := range g.Groups {
			base["group"], base["n"], base["mean"] = one.Name, int64(one.N), one.Mean
			base["low"], base["high"] = one.Low, one.High
			add("group", base)
		}
	}
	for _, t := range c.Timelines {
		add("timeline", map[string]any{"phase": t.Phase, "x": t.X, "y": t.Y, "n": int64(t.Series),
			"timelines": int64(t.Of), "pearson": t.Median, "low": t.Low, "high": t.High, "reason": t.Reason})
	}
	return columns, rows
}

// WriteParquet writes Table as a Parquet file.
func (c *Report) WriteParquet(path string) error {
	columns, rows := c.Table()
	return sinks.WriteRows(path, columns, rows)
}

// cellOf turns what is missing into nil.
func cellOf(v any) any {
	switch v := v.(type) {
	case *float64:
		if v == nil {
			return nil
		}
		return *v
	case string:
		if v == "" {
			return nil
		}
	}
	return v
}

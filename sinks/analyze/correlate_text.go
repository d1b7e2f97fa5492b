package analyze

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
)

// Text prints correlations for people: the questions first.
func (c *Correlations) Text(out io.Writer) error {
	w := &lines{out: out}
	kind := "measured"
	if c.Synthetic {
		kind = "synthetic"
	}
	w.printf("%d %s runs; %d that failed or were skipped are left out\n", c.Runs, kind, c.Failed)
	last := ""
	for i := range c.Rows {
		row := &c.Rows[i]
		if row.Question == "" {
			continue
		}
		if row.Question != last {
			w.printf("\n%s\n", row.Question)
			last = row.Question
		}
		row.text(w)
	}
	for i := range c.Groups {
		c.Groups[i].text(w)
	}
	c.textTimelines(w)
	c.textAll(w)
	for _, note := range c.Notes {
		w.printf("\nnote: %s\n", note)
	}
	return w.err
}

func (c *Correlation) text(w *lines) {
	head := fmt.Sprintf("%s against %s", c.Y, c.X)
	if c.Within != "" {
		head += ", " + c.Within
	}
	if c.Reason != "" && c.Slope == nil {
		w.printf("  %s: not defined: %s\n", head, c.Reason)
		return
	}
	w.printf("  %s: n %d, Pearson %s, Spearman %s, partial %s; slope %s", head, c.N, coefficient(c.Pearson), coefficient(c.Spearman), coefficient(c.Partial), c.slope())
	if c.Expected != nil {
		w.printf(", the architecture says %.4g", *c.Expected)
	}
	w.printf("\n")
	if c.Reason != "" {
		w.printf("    correlation: %s\n", c.Reason)
	}
	if c.PartialWhy != "" {
		w.printf("    partial: %s\n", c.PartialWhy)
	}
	for _, o := range c.Outliers {
		w.printf("    off the line: %s by %+.4g (%.0f times the usual)\n", o.RunID, o.Residual, o.Scales)
	}
}

func (c *Correlation) slope() string {
	if c.Slope == nil {
		return "-"
	}
	if c.SlopeLow == nil {
		return fmt.Sprintf("%.4g %s (one run)", *c.Slope, c.SlopeUnit)
	}
	return fmt.Sprintf("%.4g [%.4g, %.4g] %s", *c.Slope, *c.SlopeLow, *c.SlopeHigh, c.SlopeUnit)
}

func coefficient(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%+.3f", *v)
}

func (g *Grouped) text(w *lines) {
	w.printf("\n%s: %s", g.Question, g.Y)
	if g.Reason != "" {
		w.printf(": not defined: %s\n", g.Reason)
		return
	}
	w.printf(" (%s), n %d", g.Unit, g.N)
	if g.Eta2 != nil {
		w.printf(", %s explains %.0f %% of its variance", g.By, 100**g.Eta2)
	}
	w.printf("\n")
	for _, group := range g.Groups {
		interval := "one run"
		if group.Low != nil {
			interval = fmt.Sprintf("[%.4g, %.4g]", *group.Low, *group.High)
		}
		w.printf("  %-16s n %d, mean %.4g %s\n", group.Name, group.N, group.Mean, interval)
	}
}

func (c *Correlations) textTimelines(w *lines) {
	if len(c.Timelines) == 0 || w.err != nil {
		return
	}
	w.printf("\nInside phases: median and quartiles of Pearson's within each timeline\n")
	for _, t := range c.Timelines {
		if t.Reason != "" {
			w.printf("  %s, %s with %s: not defined: %s\n", t.Phase, t.Y, t.X, t.Reason)
			continue
		}
		w.printf("  %s, %s with %s: %+.2f [%+.2f, %+.2f], %d of %d timelines\n", t.Phase, t.Y, t.X, *t.Median, *t.Low, *t.High, t.Series, t.Of)
	}
}

// textAll prints every setting with every figure as a table.
func (c *Correlations) textAll(w *lines) {
	if w.err != nil {
		return
	}
	table := tabwriter.NewWriter(w.out, 2, 4, 2, ' ', 0)
	any := false
	for i := range c.Rows {
		row := &c.Rows[i]
		if row.Question != "" {
			continue
		}
		if !any {
			w.printf("\nSettings with figures\n")
			fmt.Fprintln(table, "  figure\tsetting\tn\tPearson\tSpearman\tpartial\tslope [95 %]")
			any = true
		}
		if row.Reason != "" {
			fmt.Fprintf(table, "  %s\t%s\t%d\t-\t-\t-\t%s\n", row.Y, row.X, row.N, row.Reason)
			continue
		}
		fmt.Fprintf(table, "  %s\t%s\t%d\t%s\t%s\t%s\t%s\n", row.Y, row.X, row.N, coefficient(row.Pearson), coefficient(row.Spearman), coefficient(row.Partial), row.readableSlope())
	}
	if err := table.Flush(); err != nil && w.err == nil {
		w.err = err
	}
}

// readableSlope prints bytes as MiB.
func (c *Correlation) readableSlope() string {
	if c.Slope == nil {
		return "-"
	}
	if unit, ok := cutUnit(c.SlopeUnit, string(UnitBytes)); ok && math.Abs(*c.Slope) >= mib/1000 {
		return fmt.Sprintf("%.4g [%.4g, %.4g] MiB%s", *c.Slope/mib, *c.SlopeLow/mib, *c.SlopeHigh/mib, unit)
	}
	return c.slope()
}

func cutUnit(s, unit string) (rest string, ok bool) {
	if len(s) >= len(unit) && s[:len(unit)] == unit {
		return s[len(unit):], true
	}
	return s, false
}

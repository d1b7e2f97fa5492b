package correlate

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// Text prints correlations for people: the questions first.
func (c *Report) Text(out io.Writer) error {
	w := frame.NewText(out)
	w.Runs(c.Runs, c.Synthetic, c.Failed)
	w.Printf(". n counts profiles: %d, each the mean of its repeats and nights\n", c.Profiles)
	last := ""
	for i := range c.Rows {
		row := &c.Rows[i]
		if row.Question == "" {
			continue
		}
		if row.Question != last {
			w.Printf("\n%s\n", row.Question)
			last = row.Question
		}
		row.text(w)
	}
	for i := range c.Groups {
		textGroups(w, &c.Groups[i])
	}
	c.textTimelines(w)
	c.textAll(w)
	for _, note := range c.Notes {
		w.Printf("\nnote: %s\n", note)
	}
	return w.Err
}

func (c *Row) text(w *frame.Text) {
	head := fmt.Sprintf("%s against %s", c.Y, c.X)
	if c.Within != "" {
		head += ", " + c.Within
	}
	if c.Reason != "" && c.Slope == nil {
		w.Printf("  %s: not defined: %s\n", head, c.Reason)
		return
	}
	w.Printf(
		"  %s: n %d, Pearson %s%s, Spearman %s, partial %s%s; slope %s",
		head,
		c.N,
		coefficient(c.Pearson),
		interval(
			c.Low,
			c.High,
		),
		coefficient(c.Spearman),
		coefficient(c.Partial),
		interval(c.PartialLow, c.PartialHigh),
		c.slope(),
	)
	if c.Expected != nil {
		w.Printf(", the architecture says %.4g", *c.Expected)
	}
	w.Printf("\n")
	if in := c.Inside; in != nil && in.Models > 1 {
		inside := Row{Slope: &in.Slope, SlopeLow: in.SlopeLow, SlopeHigh: in.SlopeHigh, SlopeUnit: c.SlopeUnit}
		w.Printf(
			"    within %d models: Pearson %+.3f%s; slope %s\n",
			in.Models,
			in.Pearson,
			interval(in.Low, in.High),
			inside.slope(),
		)
	}
	if c.Warning != "" {
		w.Printf("    warning: %s\n", c.Warning)
	}
	if c.Reason != "" {
		w.Printf("    correlation: %s\n", c.Reason)
	}
	if c.PartialWhy != "" {
		w.Printf("    partial: %s\n", c.PartialWhy)
	}
	for _, o := range c.Outliers {
		w.Printf("    off the line: %s by %+.4g (%.0f robust standard deviations)\n", o.RunID, o.Residual, o.Scales)
	}
}

func (c *Row) slope() string {
	if c.Slope == nil {
		return "-"
	}
	if c.SlopeLow == nil {
		return fmt.Sprintf("%.4g %s (one point)", *c.Slope, c.SlopeUnit)
	}
	return fmt.Sprintf("%.4g [%.4g, %.4g] %s", *c.Slope, *c.SlopeLow, *c.SlopeHigh, c.SlopeUnit)
}

func coefficient(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%+.3f", *v)
}

func interval(low, high *float64) string {
	if low == nil || high == nil {
		return ""
	}
	return fmt.Sprintf(" [%+.2f, %+.2f]", *low, *high)
}

func textGroups(w *frame.Text, g *frame.Grouped) {
	w.Printf("\n%s: %s", g.Question, g.Y)
	if g.Reason != "" && len(g.Groups) < 2 {
		w.Printf(": not defined: %s\n", g.Reason)
		return
	}
	w.Printf(" (%s), n %d", g.Unit, g.N)
	if g.Reason != "" {
		w.Printf(", %s", g.Reason)
	}
	if g.Eta2 != nil {
		w.Printf(", %s explains %.0f %% of its variance", g.By, 100**g.Eta2)
		if len(g.Alike) > 0 {
			w.Printf(" (and so would %s, which part these runs alike)", strings.Join(g.Alike, ", "))
		}
	}
	w.Printf("\n")
	for _, group := range g.Groups {
		interval := "one run"
		if group.Low != nil {
			interval = fmt.Sprintf("[%.4g, %.4g]", *group.Low, *group.High)
		}
		w.Printf("  %-16s n %d, mean %.4g %s\n", group.Name, group.N, group.Mean, interval)
	}
}

func (c *Report) textTimelines(w *frame.Text) {
	if len(c.Timelines) == 0 {
		return
	}
	w.Printf("\nInside phases: median and quartiles of Pearson's within each timeline\n")
	for _, t := range c.Timelines {
		if t.Reason != "" {
			w.Printf("  %s, %s with %s: not defined: %s\n", t.Phase, t.Y, t.X, t.Reason)
			continue
		}
		w.Printf("  %s, %s with %s: %+.2f [%+.2f, %+.2f], %d of %d timelines\n",
			t.Phase, t.Y, t.X, *t.Median, *t.Low, *t.High, t.Series, t.Of)
	}
}

// textAll prints every setting with every figure as a table.
func (c *Report) textAll(w *frame.Text) {
	all := slices.DeleteFunc(slices.Clone(c.Rows), func(r Row) bool { return r.Question != "" })
	if len(all) == 0 {
		return
	}
	w.Printf("\nSettings with figures\n")
	w.Table(func(line *frame.Text) {
		line.Printf("  figure\tsetting\tn\tPearson\tSpearman\tpartial\twithin models\tslope [95 %%]\n")
		for i := range all {
			row, slope := &all[i], all[i].Reason
			if slope == "" {
				slope = row.readableSlope()
			}
			if row.Warning != "" {
				slope = row.Warning
			}
			line.Printf("  %s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", row.Y, row.X, row.N, coefficient(row.Pearson),
				coefficient(row.Spearman), coefficient(row.Partial), coefficient(pearsonOf(row.Inside)), slope)
		}
	})
}

// readableSlope prints bytes as MiB.
func (c *Row) readableSlope() string {
	if c.Slope == nil {
		return "-"
	}
	if unit, ok := strings.CutPrefix(c.SlopeUnit, string(frame.UnitBytes)); ok && math.Abs(*c.Slope) >= frame.MiB/1000 {
		return fmt.Sprintf("%.4g [%.4g, %.4g] MiB%s", *c.Slope/frame.MiB, *c.SlopeLow/frame.MiB, *c.SlopeHigh/frame.MiB, unit)
	}
	return c.slope()
}

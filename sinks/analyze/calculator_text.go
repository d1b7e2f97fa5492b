package analyze

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Text prints how calculators fared.
func (v *Verdict) Text(out io.Writer) error {
	w := &lines{out: out}
	kind := "measured"
	if v.Synthetic {
		kind = "synthetic"
	}
	w.printf("%d %s runs; %d that failed or were skipped are left out. Errors are predicted - measured.\n", v.Runs, kind, v.Failed)
	for i := range v.Calculators {
		v.Calculators[i].text(w)
	}
	return w.err
}

func (c *CalculatorVerdict) text(w *lines) {
	w.printf("\n%s: %s\n", c.Name, c.Says)
	for _, reason := range c.Unclaimed {
		w.printf("  no prediction: %s\n", reason)
	}
	for _, note := range c.Notes {
		w.printf("  note: %s\n", note)
	}
	if len(c.Components) == 0 || w.err != nil {
		w.printf("  nothing to hold against the runs\n")
		return
	}
	table := tabwriter.NewWriter(w.out, 2, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "  component\truns\tmean error\tmean absolute\t\tworst\t  run")
	for _, p := range c.Components {
		fmt.Fprintf(table, "  %s\t%d\t%+.1f %%\t%.1f %%\t%.2f GiB\t%+.1f %%\t  %s\n", p.Component, p.N, 100*p.Bias, 100*p.MeanAbs, p.MeanBytes/gib, 100*p.Worst, p.WorstRun)
	}
	if err := table.Flush(); err != nil {
		w.err = err
		return
	}
	for _, p := range c.Components {
		for _, b := range p.Bends {
			w.printf("  %s bends with %s (explains %.0f %% of the error's variance):%s\n", p.Component, b.Setting, 100*b.Share, groupsText(b.Groups))
		}
		if len(p.By) > 1 && p.MeanAbs >= leastBend {
			w.printf("  %s by model:%s\n", p.Component, groupsText(p.By))
		}
	}
}

// groupsText prints the mean errors of a few groups.
func groupsText(groups []Group) string {
	text := ""
	for i, g := range groups {
		if i == 8 {
			return text + fmt.Sprintf(" and %d more", len(groups)-i)
		}
		text += fmt.Sprintf(" %s %+.1f %% (n %d);", g.Name, 100*g.Mean, g.N)
	}
	return text
}

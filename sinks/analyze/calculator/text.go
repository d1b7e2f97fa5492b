package calculator

import (
	"fmt"
	"io"
	"strings"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// Text prints how calculators fared.
func (v *Verdict) Text(out io.Writer) error {
	w := frame.NewText(out)
	w.Runs(v.Runs, v.Synthetic, v.Failed)
	w.Printf(". Errors are predicted - measured.\n")
	for _, note := range v.Cover.Says() {
		w.Printf("note: %s\n", note)
	}
	for i := range v.Calculators {
		v.Calculators[i].text(w)
	}
	return w.Err
}

func (c *PredictorVerdict) text(w *frame.Text) {
	w.Printf("\n%s: %s\n", c.Name, c.Says)
	for _, reason := range c.Unclaimed {
		w.Printf("  no prediction: %s\n", reason)
	}
	for _, note := range c.Notes {
		w.Printf("  note: %s\n", note)
	}
	if len(c.Components) == 0 {
		w.Printf("  nothing to hold against the runs\n")
		return
	}
	w.Right(func(line *frame.Text) {
		line.Printf("  component\truns\tmean error\tmean absolute\t\tworst\t  run\n")
		for _, p := range c.Components {
			line.Printf("  %s\t%d\t%+.1f %%\t%.1f %%\t%.2f GiB\t%+.1f %%\t  %s\n", p.Component, p.N,
				100*p.Bias, 100*p.MeanAbs, p.MeanBytes/frame.GiB, 100*p.Worst, p.WorstRun)
		}
	})
	for _, p := range c.Components {
		for _, b := range p.Bends {
			alike := ""
			if len(b.Alike) > 0 {
				alike = ", which parts these runs as " + strings.Join(b.Alike, ", ") + " does"
			}
			w.Printf("  %s bends with %s (explains %.0f %% of the error's variance%s):%s\n",
				p.Component, b.Setting, 100*b.Share, alike, groupsText(b.Groups))
		}
		if len(p.By) > 1 && p.MeanAbs >= leastBend {
			w.Printf("  %s by model:%s\n", p.Component, groupsText(p.By))
		}
	}
}

// groupsText prints the mean errors of a few groups.
func groupsText(groups []frame.Group) string {
	text := ""
	for i, g := range groups {
		if i == 8 {
			return text + fmt.Sprintf(" and %d more", len(groups)-i)
		}
		text += fmt.Sprintf(" %s %+.1f %% (n %d);", g.Name, 100*g.Mean, g.N)
	}
	return text
}

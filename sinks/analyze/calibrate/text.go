package calibrate

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// Measured is how many starts are.
func (p *Plan) Measured() int {
	n := 0
	for i := range p.Starts {
		if p.Starts[i].Left == "" {
			n++
		}
	}
	return n
}

// Text says what will be measured, and what will not be.
func (p *Plan) Text(out io.Writer, gpu string, budget time.Duration) error {
	w := frame.NewText(out)
	var total time.Duration
	w.Printf("%s, %s: %d of %d engine starts\n", gpu, budget, p.Measured(), len(p.Starts))
	w.Table(func(line *frame.Text) {
		line.Printf("  USE\tMODEL\tLAYERS\tTOKENS\tSEQUENCES\tGRAPHS\tEXPECTED\n")
		for i := range p.Starts {
			s := &p.Starts[i]
			use, graphs, expected := FitSweep, "yes", s.Expected.Round(time.Second).String()
			if s.Check {
				use = CheckSweep
			}
			if s.Eager {
				graphs = "eager"
			}
			if s.Left != "" {
				use, expected = "-", "left out: "+s.Left
			} else {
				total += s.Expected
			}
			line.Printf("  %s\t%s\t%d\t%d\t%d\t%s\t%s\n", use, s.Model, s.Layers, s.Tokens, s.Seqs, graphs, expected)
		}
	})
	w.Printf("expected: %s\n", total.Round(time.Second))
	return w.Err
}

// Name is the laws' file name: "nvidia-h200-v0.33.0.json".
func (c *Calibration) Name() string {
	keep := func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.':
			return r
		}
		return '-'
	}
	return strings.Map(keep, strings.ToLower(c.Laws.GPU+"-v"+c.Laws.VLLM)) + ".json"
}

// Text says what the laws rest on and what they are worth.
func (c *Calibration) Text(out io.Writer) error {
	w := frame.NewText(out)
	kind := ""
	if c.Laws.Synthetic {
		kind = "synthetic "
	}
	w.Printf("\nLaws of vLLM %s on %s, fitted to %d %sruns\n", c.Laws.VLLM, c.Laws.GPU, c.Laws.Runs, kind)
	for _, left := range c.LeftOut {
		w.Printf("  left out: %s\n", left)
	}
	w.Table(func(line *frame.Text) {
		line.Printf("  TERM\tRUNS\tELSEWHERE x\tCOEFFICIENTS\n")
		for _, term := range frame.SortedKeys(c.Laws.Terms) {
			law := c.Laws.Terms[term]
			var parts []string
			for _, name := range frame.SortedKeys(law.Coefficients) {
				if k := law.Coefficients[name]; k.Value != 0 && (k.Low != k.High || len(law.Coefficients) < 4) {
					parts = append(parts, fmt.Sprintf("%s %.4g (%.4g .. %.4g)", name, k.Value, k.Low, k.High))
				}
			}
			line.Printf("  %s\t%d\t%.2g .. %.2g\t%s\n", term, law.Runs, law.Elsewhere.Low, law.Elsewhere.High,
				strings.Join(parts, ", "))
		}
	})
	table(w, "Checked on "+c.CheckedOn, c.Checked)
	table(w, "On the runs that they were fitted to", c.Fitted)
	return w.Err
}

func table(w *frame.Text, title string, scores []*Score) {
	if len(scores) == 0 {
		w.Printf("\nNot checked: no run was held out, and there is one model alone\n")
		return
	}
	w.Printf("\n%s: error in percent of what was measured\n", title)
	w.Table(func(line *frame.Text) {
		line.Printf("  COMPONENT\tSTARTS\tMEAN\tMEDIAN\tWORST\tINTERVAL HOLDS\tWORST RUN\n")
		for _, s := range scores {
			line.Printf("  %s\t%d\t%.2f\t%.2f\t%.2f\t%d of %d\t%s\n", s.Component, s.Runs, s.MeanPercent, s.Median,
				s.WorstPercent, s.Held, s.Runs, s.Worst)
		}
	})
}

package compare

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// A Threshold is what a change has to exceed to count. nil keeps the default.
type Threshold struct {
	Absolute *float64
	Relative *float64
	Noise    *float64 // in standard errors of the difference
}

// allMemory names all figures that are bytes, in a threshold.
const allMemory = "memory"

// ParseThresholds reads thresholds as they stand on a command line: FIGURE=AMOUNT,
// where FIGURE is a figure's name or "memory" for all that are bytes, and AMOUNT
// is a size (64MiB, 1.5GiB, 1000000), a number in the figure's unit, a share of
// the base (5%), or a number of standard errors of the difference (3se). Several of a
// figure hold together. The error names the faulty one.
func ParseThresholds(texts []string) (map[string]Threshold, error) {
	out := map[string]Threshold{}
	for _, text := range texts {
		name, amount, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("threshold %q: write FIGURE=AMOUNT, "+
				"such as peak_memory_bytes=64MiB or avg_latency_s=5%%", text)
		}
		found := false
		for _, f := range frame.Figures() {
			if f.Name != name && (name != allMemory || f.Unit != frame.UnitBytes) {
				continue
			}
			found = true
			t := out[f.Name]
			if err := t.set(strings.TrimSpace(amount), f.Unit); err != nil {
				return nil, fmt.Errorf("threshold %q: %w", text, err)
			}
			out[f.Name] = t
		}
		if !found {
			return nil, fmt.Errorf("threshold %q: there is no figure %q; there are %s, and memory for all bytes",
				text, name, strings.Join(frame.FigureNames(), ", "))
		}
	}
	return out, nil
}

// set adds one amount.
func (t *Threshold) set(amount string, unit frame.Unit) error {
	type suffix struct {
		text string
		by   float64
		of   **float64
	}
	suffixes, sizes := []suffix{{"%", 0.01, &t.Relative}, {"se", 1, &t.Noise}}, ""
	if unit == frame.UnitBytes {
		sizes = "a size such as 64MiB, "
		suffixes = append(suffixes, suffix{"KiB", 1 << 10, &t.Absolute}, suffix{"MiB", frame.MiB, &t.Absolute},
			suffix{"GiB", frame.GiB, &t.Absolute}, suffix{"B", 1, &t.Absolute})
	}
	number, by, of := amount, 1.0, &t.Absolute
	for _, s := range suffixes {
		if rest, ok := strings.CutSuffix(amount, s.text); ok {
			number, by, of = rest, s.by, s.of
			break
		}
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !(v >= 0 && v < 1e18) {
		return fmt.Errorf("%q is no amount: a number in %s, %s5%% of the base or 3se (standard errors)", amount, unit, sizes)
	}
	*of = new(v * by)
	return nil
}

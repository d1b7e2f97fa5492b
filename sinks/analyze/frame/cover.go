package frame

import (
	"fmt"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks"
)

// Cover counts the runs that ended well and whose samples do not cover all of them.
type Cover struct {
	Blind  int `json:"blind_left_out"`
	Sparse int `json:"sparse"` // they count where their figures are known
}

// Add takes a run, and reports whether its figures are evidence.
func (c *Cover) Add(r *sinks.RunRow) bool {
	switch {
	case Blind(r):
		c.Blind++
		return false
	case r.Outcome == string(runner.OutcomeOK) && Deref(r.Quality) == string(runner.QualitySparse):
		c.Sparse++
	}
	return true
}

// Blind says that a run ended well and no sample shows its memory where it is used.
// An imported log never had samples: its figures are the log's own.
func Blind(r *sinks.RunRow) bool {
	return r.Outcome == string(runner.OutcomeOK) && r.Engine != "import" &&
		Deref(r.Quality) == string(runner.QualityBlind)
}

// Covered leaves blind runs out.
func Covered(rows []sinks.RunRow) (kept []sinks.RunRow, c Cover) {
	for i := range rows {
		if c.Add(&rows[i]) {
			kept = append(kept, rows[i])
		}
	}
	return kept, c
}

// Says is a sentence for each of the counts; none where all is covered.
func (c Cover) Says() (out []string) {
	if c.Blind > 0 {
		out = append(out, fmt.Sprintf("%d blind runs are left out: no sample shows their memory where it is used; "+
			"set a shorter sample interval, or more num_iters", c.Blind))
	}
	if c.Sparse > 0 {
		out = append(out, fmt.Sprintf("%d sparse runs count where their figures are known", c.Sparse))
	}
	return out
}

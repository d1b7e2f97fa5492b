package calibrate

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A Score is what the predictions of one component missed by, in percent of
// what was measured, and how often their interval held it.
type Score struct {
	Component    string  `json:"component"`
	Runs         int     `json:"runs"`
	MeanPercent  float64 `json:"mean_percent"` // of the absolute errors
	Median       float64 `json:"median_percent"`
	WorstPercent float64 `json:"worst_percent"`
	Worst        string  `json:"worst_run"`
	Held         int     `json:"interval_holds"`

	errs []float64
}

// Add scores one prediction, and returns its error in percent. An interval holds
// what rounds to it.
func (s *Score) Add(run string, f models.Figure, truth, rounding float64) float64 {
	off := 100 * (float64(*f.Value) - truth) / truth
	if abs := math.Abs(off); abs > s.WorstPercent || s.Runs == 0 {
		s.WorstPercent, s.Worst = abs, run
	}
	s.errs = append(s.errs, math.Abs(off))
	slices.Sort(s.errs)
	sum := 0.0
	for _, e := range s.errs {
		sum += e
	}
	n := len(s.errs)
	s.Runs, s.MeanPercent, s.Median = n, sum/float64(n), (s.errs[(n-1)/2]+s.errs[n/2])/2
	if f.Low != nil && f.High != nil && truth >= float64(*f.Low)-rounding && truth <= float64(*f.High)+rounding {
		s.Held++
	}
	return off
}

// printed is half of the last digit that vLLM prints of a size.
const printed = 0.005 * (1 << 30)

// A Comparison is a figure of a run beside what was predicted.
type Comparison struct {
	Component       string
	Predicted       models.Figure
	Truth, Rounding float64 // bytes, or tokens; a truth of 0 was not measured
}

// Compare holds a run against what its laws predict.
func Compare(s *models.Sample) []Comparison {
	e := models.NewEstimate(s.Architecture, s.Request, s.GPU)
	stays := e.NonTorch // vLLM says weights, and all else that it consumed
	if e.BuffersInBudget && e.NonTorch.Value != nil && e.Buffers.Value != nil {
		a, b := &e.NonTorch, &e.Buffers
		stays = models.Figure{Value: new(*a.Value + *b.Value), Low: new(*a.Low + *b.Low), High: new(*a.High + *b.High)}
	}
	return []Comparison{
		{"weights", e.Weights, s.Weights, printed}, {"activations", e.Activations, s.Activations, printed},
		{"non-torch", stays, s.Consumed - s.Weights, printed}, {"graphs", e.CUDAGraphs, s.Graphs, printed},
		{"KV bytes", e.KVCache, s.KVCache, printed}, {"KV tokens", e.KVCacheTokens, s.KVTokens, 0.5},
	}
}

// score adds runs as some laws predict them, those of one start once.
func score(scores map[string]*Score, laws *models.Laws, samples []models.Sample) {
	for _, s := range models.Starts(samples) {
		s.Request.Laws = laws
		for _, c := range Compare(&s) {
			if c.Truth == 0 || c.Predicted.Value == nil {
				continue
			}
			if scores[c.Component] == nil {
				scores[c.Component] = &Score{Component: c.Component}
			}
			scores[c.Component].Add(s.RunID, c.Predicted, c.Truth, c.Rounding)
		}
	}
}

// A Calibration is a laws file and what it is worth.
type Calibration struct {
	Laws      *models.LawFile `json:"laws"`
	Checked   []*Score        `json:"checked"`    // on runs that were not fitted
	CheckedOn string          `json:"checked_on"` // how these were held out
	Fitted    []*Score        `json:"fitted"`     // on the runs that were
	LeftOut   []string        `json:"left_out"`
}

// Calibrate fits laws to the fitted runs and checks them on those held out; where
// none are, by leaving out each model in turn. It fails with models.ErrFit.
func Calibrate(runs *Runs, prior *models.Laws, by, source string) (*Calibration, error) {
	fit := models.Fit{Samples: runs.Fitted, Prior: prior, By: by, Source: source, Synthetic: runs.Synthetic}
	file, err := fit.Laws()
	if err != nil {
		return nil, err
	}
	laws, err := prior.With(file)
	if err != nil {
		return nil, err
	}
	out := &Calibration{Laws: file, LeftOut: runs.LeftOut}
	fitted, checked := map[string]*Score{}, map[string]*Score{}
	score(fitted, laws, runs.Fitted)
	if len(runs.Held) > 0 {
		out.CheckedOn = fmt.Sprintf("engine starts that were not fitted (%d)", len(models.Starts(runs.Held)))
		score(checked, laws, runs.Held)
	} else if err := leaveOut(checked, fit); err != nil {
		return nil, err
	} else if len(checked) > 0 {
		out.CheckedOn = "each model left out in turn"
	}
	out.Fitted, out.Checked = inOrder(fitted), inOrder(checked)
	return out, nil
}

// leaveOut scores each model by laws that were fitted without it.
func leaveOut(scores map[string]*Score, fit models.Fit) error {
	names := map[string]bool{}
	all := fit.Samples
	for i := range all {
		names[all[i].Model] = true
	}
	if len(names) < 2 {
		return nil
	}
	for _, name := range frame.SortedKeys(names) {
		is := func(s models.Sample) bool { return s.Model == name }
		fit.Samples = slices.DeleteFunc(slices.Clone(all), is)
		file, err := fit.Laws()
		if err != nil {
			if errors.Is(err, models.ErrFit) {
				continue
			}
			return err
		}
		laws, err := fit.Prior.With(file)
		if err != nil {
			return err
		}
		score(scores, laws, slices.DeleteFunc(slices.Clone(all), func(s models.Sample) bool { return !is(s) }))
	}
	return nil
}

func inOrder(scores map[string]*Score) (out []*Score) {
	for _, name := range []string{"weights", "activations", "non-torch", "graphs", "KV bytes", "KV tokens"} {
		if scores[name] != nil {
			out = append(out, scores[name])
		}
	}
	return out
}

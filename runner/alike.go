package runner

import (
	"fmt"

	"github.com/vramsweep/vramsweep/sweep"
)

// alike counts the first runs of a sweep while they fail in the same way: a flag
// that vLLM does not know, a module that is missing. Such a sweep would fail to
// its end.
type alike struct {
	over    bool // a run ended otherwise
	outcome Outcome
	detail  string
	runs    int
	engines map[string]bool // that failed so
}

func (x *executor) alikeOf(s *sweep.Sweep) *alike {
	if x.alike[s] == nil {
		x.alike[s] = &alike{engines: map[string]bool{}}
	}
	return x.alike[s]
}

// failsAlike ends a sweep whose first same_failure runs failed alike. A failure that
// may be due to one engine's settings (a length that the model lacks) must have met
// as many engines, or all that are due. It returns why the sweep ends, "" if it goes on.
func (x *executor) failsAlike(d due, r *Result) (why string) {
	a, limit := x.alikeOf(d.sweep), d.sweep.Limits.SameFailure
	switch r.Run.Outcome {
	case OutcomeBadArgument, OutcomeNoResult, OutcomeEngineError:
	default: // out of memory and time-outs are what a sweep looks for
		a.over = true
	}
	if a.runs > 0 && (a.outcome != r.Run.Outcome || a.detail != r.Run.OutcomeDetail) {
		a.over = true
	}
	if a.over || limit == 0 {
		return ""
	}
	a.outcome, a.detail = r.Run.Outcome, r.Run.OutcomeDetail
	a.runs++
	a.engines[d.profile.EngineKey()] = true
	if a.runs < limit || len(a.engines) < limit && x.othersDue(d.sweep, a.engines) {
		return ""
	}
	x.given[d.sweep], a.over = true, true
	return fmt.Sprintf("the first %d runs of sweep %q failed alike, so the others were not tried: %s Fix that and go on with run --resume, "+
		"or try them all with limits { same_failure = 0 }.", a.runs, d.sweep.Name, a.detail)
}

// othersDue reports whether a profile of the sweep has an engine of its own.
func (x *executor) othersDue(s *sweep.Sweep, engines map[string]bool) bool {
	for _, p := range s.Profiles {
		if !engines[p.EngineKey()] {
			return true
		}
	}
	return false
}

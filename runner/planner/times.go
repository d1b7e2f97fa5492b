package planner

import (
	"cmp"
	"slices"

	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// Times tell how long profiles take: as earlier executions in the output folder
// took, else by a plain model of what was measured on H100s. The zero value knows
// of no earlier execution.
type Times struct {
	Dir string // where the earlier runs lie

	seconds map[timeKey][]float64 // of earlier runs
	earlier map[timeKey]float64   // their medians
	runs    int                   // that these are of

	remembered, modelled bool // how what was asked for came about
}

// A timeKey is what runs have in common that take about as long. Without an id
// it stands for all runs of an engine.
type timeKey struct{ id, engine, mode string }

// Add notes how long an earlier run took, in seconds.
func (t *Times) Add(id, engine, mode string, seconds float64) {
	if t.seconds == nil {
		t.seconds = map[timeKey][]float64{}
	}
	for _, id := range []string{id, ""} {
		key := timeKey{id, engine, mode}
		t.seconds[key] = append(t.seconds[key], seconds)
	}
	t.runs++
	t.earlier = nil
}

// median is that of the earlier runs of a key.
func (t *Times) median(key timeKey) (seconds float64, ok bool) {
	if t.earlier == nil {
		t.earlier = make(map[timeKey]float64, len(t.seconds))
		for key, list := range t.seconds {
			slices.Sort(list)
			t.earlier[key] = list[len(list)/2]
		}
	}
	seconds, ok = t.earlier[key]
	return seconds, ok
}

// from says what the times rest on.
func (t *Times) from() string {
	earlier, model := Plural(t.runs, "earlier run")+" in "+t.Dir, "a plain model of start-up, prefill and decoding"
	switch {
	case t.remembered && t.modelled:
		return earlier + "; for other engines " + model
	case t.remembered:
		return earlier
	}
	return "no earlier execution: " + model
}

// A duration is how long one run of a profile takes, in seconds.
type duration struct {
	startup float64 // until the engine is ready; 0 where it is not told apart
	work    float64
}

func (d duration) total() float64 { return d.startup + d.work }

// What a run of vLLM 0.26 took on an H100 with random weights: 25 s of imports,
// 24 s until the engine process speaks, 26 s of compiling, 8 s of capture, 18 s
// of kernel warm-up, and 75 s in all with enforce_eager (docs/measured).
const (
	graphStartup = 118.0
	eagerStartup = 70.0
	loadRate     = 2.0e9 // bytes of weights a second from disk: assumed, not measured
	// A step of decoding reads the weights once; a prefill computes 2 operations
	// a parameter and token. Both are assumed, well below an H100's roof; nothing
	// is fitted to them, and earlier executions replace them.
	bandwidth = 2.0e12 // bytes/s
	compute   = 3.0e14 // operations/s
)

// Iterations of `vllm bench latency` where a profile does not ask for others.
const (
	benchIters  = 30
	benchWarmup = 10
)

// expect is how long one run of a profile will take: as it took before, else as
// runs of its engine took, else by the model.
func (t *Times) expect(profile *sweep.Profile, e *models.Estimate) (duration, bool) {
	for _, id := range []string{profile.ID, ""} {
		if seconds, ok := t.median(timeKey{id, profile.Engine.Kind, profile.Engine.Mode}); ok {
			t.remembered = true
			return duration{work: seconds}, true
		}
	}
	t.modelled = true
	if profile.Engine.Kind == "simulator" {
		return duration{work: 1}, true
	}
	if e.Weights.Value == nil || profile.Model == nil {
		return duration{}, false
	}
	s := &profile.Settings
	startup := graphStartup
	if s.EnforceEager != nil && *s.EnforceEager {
		startup = eagerStartup
	}
	weights := float64(*e.Weights.Value)
	if s.LoadFormat == nil || *s.LoadFormat != "dummy" {
		startup += weights / loadRate
	}
	iterations := or(s.NumIters, benchIters) + or(s.NumItersWarmup, benchWarmup)
	prefill := weights * float64(s.BatchSize*s.InputLen) / compute
	decode := weights / bandwidth * float64(s.OutputLen)
	return duration{startup, float64(iterations) * (prefill + float64(decode))}, true
}

func or(asked *int64, otherwise int64) int64 { return *cmp.Or(asked, &otherwise) }

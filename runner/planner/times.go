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
// it stands for all runs of an engine; in mode untilEngine for how long it took
// until the engine process spoke.
type timeKey struct {
	id, engine, mode string
	warm             bool // how it was started
}

const untilEngine = "until the engine process speaks"

// Add notes how long an earlier run took, in seconds, and how much of it went by
// until its engine process spoke (nil: not known).
func (t *Times) Add(id, engine, mode string, warm bool, seconds float64, imports *float64) {
	if t.seconds == nil {
		t.seconds = map[timeKey][]float64{}
	}
	add := func(id, mode string, seconds float64) {
		key := timeKey{id, engine, mode, warm}
		t.seconds[key] = append(t.seconds[key], seconds)
	}
	add(id, mode, seconds)
	add("", mode, seconds)
	if imports != nil {
		add("", untilEngine, *imports)
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
	saved   float64 // what a warm start has taken off
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

// Until the engine process speaks: cold the first two of the above; warm what is
// left of them where nothing is imported, which was not measured on a GPU yet.
// Earlier executions replace both.
const (
	coldImports = 49.0
	warmImports = 3.0
)

// saving is what a warm start takes off a cold one; measured says that earlier
// executions know how long cold ones took.
func (t *Times) saving(engine string) (seconds float64, measured bool) {
	cold, measured := t.median(timeKey{engine: engine, mode: untilEngine})
	if !measured {
		cold = coldImports
	}
	warm, ok := t.median(timeKey{engine: engine, mode: untilEngine, warm: true})
	if !ok {
		warm = warmImports
	}
	return max(cold-warm, 0), measured
}

// Iterations of `vllm bench latency` where a profile does not ask for others.
const (
	benchIters  = 30
	benchWarmup = 10
)

// expect is how long one run of a profile will take: as it took before, else as
// runs of its engine took, else by the model.
func (t *Times) expect(profile *sweep.Profile, e *models.Estimate, warm bool) (duration, bool) {
	if d, ok := t.before(profile, warm); ok {
		t.remembered = true
		return d, true
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
	d := duration{startup: startup, work: float64(iterations) * (prefill + float64(decode))}
	if warm {
		saving, _ := t.saving(profile.Engine.Kind)
		d.saved = min(saving, startup)
		d.startup -= d.saved
	}
	return d, true
}

// before is how long a run took before. One that was started the other way took
// longer or shorter by what a warm start saves, where that was measured; runs of
// session mode are not told apart, since few of them start an engine.
func (t *Times) before(profile *sweep.Profile, warm bool) (duration, bool) {
	kind, mode := profile.Engine.Kind, profile.Engine.Mode
	saving, measured := t.saving(kind)
	if !measured || mode == "session" {
		saving = 0
	}
	for _, id := range []string{profile.ID, ""} {
		for _, was := range []bool{warm, !warm} {
			seconds, ok := t.median(timeKey{id, kind, mode, was})
			if !ok {
				continue
			}
			switch {
			case was && !warm:
				return duration{work: seconds + saving}, true
			case was:
				return duration{work: seconds, saved: saving}, true
			case warm:
				saving = min(saving, seconds)
				return duration{work: seconds - saving, saved: saving}, true
			}
			return duration{work: seconds}, true
		}
	}
	return duration{}, false
}

func or(asked *int64, otherwise int64) int64 { return *cmp.Or(asked, &otherwise) }

package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"sort"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A pace tells how long profiles take: as earlier executions in the output
// folder took, else by a plain model of what was measured on H100s.
type pace struct {
	earlier map[paceKey]float64 // median wall seconds of runs that were measured
	runs    int                 // that these medians are of
	dir     string              // where they lie

	remembered, modelled bool // how what was asked for came about
}

// from says what the times rest on.
func (p *pace) from() string {
	earlier, model := plural(p.runs, "earlier run")+" in "+p.dir, "a plain model of start-up, prefill and decoding"
	switch {
	case p.remembered && p.modelled:
		return earlier + "; for other engines " + model
	case p.remembered:
		return earlier
	}
	return "no earlier execution: " + model
}

// A paceKey is what runs have in common that take about as long. Without an id
// it stands for all runs of an engine.
type paceKey struct {
	id, engine, mode string
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

// paceOf reads what earlier executions took.
func (w *world) paceOf(plan *sweep.Plan) pace {
	p := pace{earlier: map[paceKey]float64{}, dir: plan.OutputDir}
	dir := plan.OutputDir
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(w.dir, dir)
	}
	seconds := map[paceKey][]float64{}
	for row, err := range sinks.Read[sinks.RunRow](sinks.Predicate{}, dir) {
		if err != nil {
			break // no folder yet, or one that only `verify` can speak about
		}
		if row.WallS != nil && row.Outcome == "ok" {
			for _, id := range []string{row.ProfileID, ""} {
				key := paceKey{id, row.Engine, row.EngineMode}
				seconds[key] = append(seconds[key], *row.WallS)
			}
			p.runs++
		}
	}
	for key, list := range seconds {
		p.earlier[key] = median(list)
	}
	return p
}

func median(list []float64) float64 {
	sort.Float64s(list)
	return list[len(list)/2]
}

// expect is how long one run of a profile will take: as it took before, else as
// runs of its engine took, else by the model.
func (p *pace) expect(profile *sweep.Profile, e *models.Estimate) (duration, bool) {
	for _, id := range []string{profile.ID, ""} {
		if seconds, ok := p.earlier[paceKey{id, profile.Engine.Kind, profile.Engine.Mode}]; ok {
			p.remembered = true
			return duration{work: seconds}, true
		}
	}
	p.modelled = true
	if profile.Engine.Kind == "simulator" {
		return duration{work: 1}, true
	}
	if e.Weights.Value == nil || profile.Model == nil {
		return duration{}, false
	}
	s := profile.Settings
	startup := graphStartup
	if s.EnforceEager != nil && *s.EnforceEager {
		startup = eagerStartup
	}
	weights := float64(*e.Weights.Value)
	if s.LoadFormat == nil || *s.LoadFormat != "dummy" {
		startup += weights / loadRate
	}
	iterations := int64(0)
	for _, n := range []struct {
		asked    *int64
		fallback int64 // of the benchmark
	}{{s.NumIters, 30}, {s.NumItersWarmup, 10}} {
		if n.asked != nil {
			iterations += *n.asked
		} else {
			iterations += n.fallback
		}
	}
	prefill := weights * float64(s.BatchSize*s.InputLen) / compute
	decode := weights / bandwidth * float64(s.OutputLen)
	return duration{startup, float64(iterations) * (prefill + decode)}, true
}

// settingValues are the settings of a profile that are set, by name, and vLLM's
// own flags.
func settingValues(p *sweep.Profile) map[string]any {
	data, err := json.Marshal(p.Settings)
	if err != nil {
		return nil
	}
	values := map[string]any{}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber() // 8589934592, not 8.589934592e+09
	if dec.Decode(&values) != nil {
		return nil
	}
	for name, v := range values {
		if v == nil {
			delete(values, name)
		}
	}
	for _, flag := range p.Engine.Flags {
		values[flag.Name] = flag.Value
	}
	return values
}

package main

import (
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
	from    string
	earlier map[string]float64 // profile id: median wall seconds of runs that were measured
	typical float64            // median over all of them; 0: none
	startup float64            // seconds until an engine is ready
}

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
	p := pace{from: "no earlier execution: a plain model of start-up, prefill and decoding", earlier: map[string]float64{}, startup: graphStartup}
	dir := plan.OutputDir
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(w.dir, dir)
	}
	seconds := map[string][]float64{}
	var all []float64
	for row, err := range sinks.Read[sinks.RunRow](sinks.Predicate{}, dir) {
		if err != nil {
			break // no folder yet, or one that only `verify` can speak about
		}
		if row.WallS != nil && row.Outcome == "ok" {
			seconds[row.ProfileID] = append(seconds[row.ProfileID], *row.WallS)
			all = append(all, *row.WallS)
		}
	}
	for id, list := range seconds {
		p.earlier[id] = median(list)
	}
	if len(all) > 0 {
		p.typical = median(all)
		p.from = plural(len(all), "earlier run") + " in " + plan.OutputDir
	}
	return p
}

func median(list []float64) float64 {
	sort.Float64s(list)
	return list[len(list)/2]
}

// expect is how long one run of a profile will take, in seconds.
func (p *pace) expect(profile *sweep.Profile, e *models.Estimate) (float64, bool) {
	if seconds, ok := p.earlier[profile.ID]; ok {
		return seconds, true
	}
	if p.typical > 0 {
		return p.typical, true
	}
	if profile.Engine.Kind == "simulator" {
		return 1, true
	}
	if e.Weights.Value == nil || profile.Model == nil {
		return 0, false
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
	iterations := 40.0 // 10 + 30, the benchmark's defaults
	if s.NumIters != nil && s.NumItersWarmup != nil {
		iterations = float64(*s.NumIters + *s.NumItersWarmup)
	}
	prefill := weights * float64(s.BatchSize*s.InputLen) / compute
	decode := weights / bandwidth * float64(s.OutputLen)
	return startup + iterations*(prefill+decode), true
}

// settingValues are the settings of a profile that are set, by name, and vLLM's
// own flags.
func settingValues(p *sweep.Profile) map[string]any {
	data, err := json.Marshal(p.Settings)
	if err != nil {
		return nil
	}
	values := map[string]any{}
	if json.Unmarshal(data, &values) != nil {
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

// Package planner says what a plan will do and need before anything of it runs:
// the memory of each profile, what fits, how long it takes, and which profiles
// share an engine.
//
// It owns the arithmetic of time (times.go) and what `plan` prints. It reads
// nothing: what was measured earlier is given to it.
package planner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/vllm"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A Planner estimates the profiles of a plan for one kind of GPU.
type Planner struct {
	Plan  *sweep.Plan
	GPU   *models.GPU // nil: none is known
	From  string      // how the GPU is known
	Times Times
	Env   []string     // the secrets in it stand in no command line that is printed
	Limit int          // how many profiles are shown; 0: all
	Width int          // columns of the table; 0: defaultWidth
	Laws  *models.Laws // what was measured; nil: what the arithmetic ships

	// Estimate lays what was measured over the arithmetic's estimate; nil: the
	// arithmetic alone. Basis says in the head line what that rests on.
	Estimate func(*models.Architecture, models.Request, models.GPU) (models.Estimate, Overheads)
	Basis    string

	engines []sweep.EngineCounter // of each sweep, after count
	starts  int                   // of engines of vLLM; 0: not counted yet
}

// warm reports whether runs of a profile start warm where vLLM's command is a
// Python script at hand.
func (p *Planner) warm(profile *sweep.Profile) bool {
	e := &profile.Engine
	if p.starts == 0 {
		p.starts = vllm.Starts(p.Plan)
	}
	return e.Kind == "vllm" && len(e.Benchmark) == 0 && (e.Start == "warm" || e.Start == "" && p.starts > 1)
}

// Overheads are the figures of a profile that rest on a database of measurements.
type Overheads interface {
	HighestUse() models.Figure
	Notes() []string // which figures, and on how much of the database
}

// A Profile is a profile of `plan --json`.
type Profile struct {
	ID              string            `json:"id"`
	Sweep           string            `json:"sweep"`
	Model           string            `json:"model"`
	Settings        sweep.Settings    `json:"settings"`
	Axes            []sweep.AxisValue `json:"axes"`
	Argv            []string          `json:"argv"`
	GPU             *string           `json:"gpu"`
	Estimate        *models.Estimate  `json:"estimate"`
	Overheads       Overheads         `json:"overheads,omitempty"`
	ExpectedSeconds *float64          `json:"expected_seconds"`
	Repeats         int               `json:"repeats"`
	Group           string            `json:"group,omitempty"` // session mode: profiles of one group share an engine
	Origins         map[string]string `json:"origins,omitempty"`
	profile         *sweep.Profile
}

// A guess is what is expected of a profile.
type guess struct {
	gpu       models.GPU
	known     bool // the GPU is
	estimate  models.Estimate
	overheads Overheads
	time      duration
	timed     bool
}

// guess estimates a profile on its GPU: the simulator has its own.
func (p *Planner) guess(profile *sweep.Profile) guess {
	var g guess
	if g.gpu, g.known = GPUOf(nil, p.Plan.GPUs, profile); !g.known && p.GPU != nil {
		g.gpu, g.known = *p.GPU, true
	}
	request := profile.Request()
	request.Laws = p.Laws
	if p.Estimate == nil {
		g.estimate = models.NewEstimate(profile.Model, request, g.gpu)
	} else {
		g.estimate, g.overheads = p.Estimate(profile.Model, request, g.gpu)
	}
	g.time, g.timed = p.Times.expect(profile, &g.estimate, p.warm(profile))
	return g
}

// profile is a profile as it is shown. Of 100,000 few are: the others' guesses
// stay off the heap.
func (p *Planner) profile(s *sweep.Sweep, profile *sweep.Profile, g guess) (*Profile, error) {
	argv, err := vllm.Command(profile)
	if err != nil {
		return nil, fmt.Errorf("profile %s of sweep %q: %w", profile.ID, s.Name, err)
	}
	out := &Profile{
		ID: profile.ID, Sweep: s.Name, Model: profile.Settings.Model, Settings: profile.Settings, Axes: profile.Axes,
		Argv: proc.NewMasker(p.Env, s.Secrets()...).Argv(argv), Repeats: max(s.Repeats, 1), profile: profile,
		Estimate: &g.estimate, Overheads: g.overheads,
	}
	if profile.Engine.Mode == "session" {
		out.Group = profile.EngineKey()
	}
	if g.known {
		out.GPU = &g.gpu.Name
	}
	if g.timed {
		out.ExpectedSeconds = new(g.time.total())
	}
	return out, nil
}

// totals are of the whole plan, whatever Limit shows.
type totals struct {
	profiles, runs, never int
	seconds, gpuSeconds   float64
	latency, session      float64 // seconds, if all ran in that mode
	saved, parent         float64 // seconds: by warm starts, and for the imports of the process that serves them
	untimed               int
}

// count estimates every profile and keeps the first Limit ones.
func (p *Planner) count() ([]*Profile, *totals, error) {
	var shown []*Profile
	t := &totals{}
	p.engines = make([]sweep.EngineCounter, len(p.Plan.Sweeps))
	for i, s := range p.Plan.Sweeps {
		for _, profile := range s.Profiles {
			runs := max(s.Repeats, 1)
			t.profiles++
			t.runs += runs
			g := p.guess(profile)
			if fits := g.estimate.Fits; fits != nil && !*fits {
				t.never++
			}
			first := p.engines[i].Add(profile)
			t.time(profile, &g, runs, first)
			if p.Limit > 0 && len(shown) >= p.Limit {
				continue
			}
			one, err := p.profile(s, profile, g)
			if err != nil {
				return nil, nil, err
			}
			shown = append(shown, one)
		}
	}
	for _, sum := range []*float64{&t.seconds, &t.latency, &t.session} {
		*sum += t.parent // about what one start saves
	}
	t.saved -= t.parent
	return shown, t, nil
}

// time adds what a profile will take: in session mode the engine's start
// counts once a group.
func (t *totals) time(profile *sweep.Profile, g *guess, runs int, first bool) {
	if !g.timed {
		t.untimed++
		return
	}
	latency, session := g.time.total()*float64(runs), g.time.work*float64(runs)
	if first {
		session += g.time.startup
	}
	t.latency += latency
	t.session += session
	total, starts := latency, runs
	if profile.Engine.Mode == "session" {
		total, starts = session, 0
		if first {
			starts = 1
		}
	}
	t.saved += g.time.saved * float64(starts)
	t.parent = max(t.parent, g.time.saved)
	t.seconds += total
	s := &profile.Settings
	t.gpuSeconds += total * float64(s.TensorParallelSize*max(s.PipelineParallelSize, 1))
}

// A Document is `plan --json`.
type Document struct {
	Files        []string              `json:"files"`
	Variables    []sweep.VariableValue `json:"variables"`
	OutputDir    string                `json:"output_dir"`
	Sweeps       []Sweep               `json:"sweeps"`
	ProfileCount int                   `json:"profile_count"`
	RunCount     int                   `json:"run_count"`
	NeverFits    int                   `json:"never_fits"`
	GPU          *models.GPU           `json:"gpu"`
	Seconds      *float64              `json:"expected_seconds"`
	GPUHours     *float64              `json:"expected_gpu_hours"`
	WarmSaves    *float64              `json:"warm_starts_save_seconds"` // already taken off expected_seconds
	TimeFrom     string                `json:"expected_time_from"`
	Profiles     []*Profile            `json:"profiles"`
	Warnings     []sweep.Diagnostic    `json:"warnings,omitempty"`
}

// A Sweep is a sweep of `plan --json`.
type Sweep struct {
	Name        string       `json:"name"`
	Description string       `json:"description,omitempty"`
	Axes        []sweep.Axis `json:"axes"`
	Repeats     int          `json:"repeats"`
	Profiles    int          `json:"profiles"`
	Excluded    int          `json:"excluded"`
	Groups      int          `json:"groups,omitempty"`
}

// Document is the whole plan.
func (p *Planner) Document() (*Document, error) {
	shown, t, err := p.count()
	if err != nil {
		return nil, err
	}
	gpu, _ := p.gpu()
	d := &Document{
		Files: p.Plan.Files, Variables: append([]sweep.VariableValue{}, p.Plan.Variables...), OutputDir: p.Plan.OutputDir,
		ProfileCount: t.profiles, RunCount: t.runs, NeverFits: t.never, GPU: gpu, TimeFrom: p.Times.from(),
		Profiles: append([]*Profile{}, shown...), Warnings: p.Plan.Warnings,
	}
	if t.untimed == 0 {
		d.Seconds, d.GPUHours, d.WarmSaves = &t.seconds, new(t.gpuSeconds/3600), &t.saved
	}
	for i, s := range p.Plan.Sweeps {
		entry := Sweep{
			Name: s.Name, Description: s.Description, Axes: s.Axes, Repeats: max(s.Repeats, 1),
			Profiles: len(s.Profiles), Excluded: s.Excluded,
		}
		if usesSession(s) {
			entry.Groups = p.engines[i].Engines()
		}
		d.Sweeps = append(d.Sweeps, entry)
	}
	return d, nil
}

func usesSession(s *sweep.Sweep) bool {
	return slices.ContainsFunc(s.Profiles, func(p *sweep.Profile) bool { return p.Engine.Mode == "session" })
}

// Find is the first profile whose id begins so, with where each of its settings
// comes from; nil if there is none.
func (p *Planner) Find(id string) (*Profile, error) {
	for _, s := range p.Plan.Sweeps {
		for _, profile := range s.Profiles {
			if strings.HasPrefix(profile.ID, id) {
				one, err := p.profile(s, profile, p.guess(profile))
				if err == nil {
					one.Origins = profile.Origins
				}
				return one, err
			}
		}
	}
	return nil, nil
}

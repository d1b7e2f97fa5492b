// Package report draws the runs of output folders into one HTML file that needs
// no other.
package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/compare"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sinks/analyze/summary"
	"github.com/vramsweep/vramsweep/sweep"
)

// Options say what a report shows.
type Options struct {
	Title    string
	Baseline *compare.Comparison // nil: no comparison in the report
	Version  string              // of vramsweep
	Now      time.Time
	// Points are the samples that stay of one GPU's timeline; 0: as many as
	// keep all timelines of the report under 12 MB, 600 at most.
	Points int
	// Where chooses the runs that are shown: one execution, sweep or model.
	Where sinks.Predicate
	// Summaries are of executions that are shown; they stand on top.
	Summaries []*summary.Summary
}

// A Summary is one as the page shows it.
type Summary struct {
	Head     []string          `json:"head"`
	Sections []summary.Section `json:"sections"`
}

// A Report is what the HTML file shows; its JSON is embedded in that file.
// Memory is in MiB (2^20 bytes).
type Report struct {
	Title      string                `json:"title"`
	Written    string                `json:"written"` // UTC
	Version    string                `json:"version"`
	Folders    []string              `json:"folders"`
	Synthetic  bool                  `json:"synthetic"`
	Executions []string              `json:"executions"`
	Points     int                   `json:"points"`
	Settings   []string              `json:"settings"` // that vary, the model included
	Asked      []string              `json:"asked"`    // those of them that were asked for: they tell profiles apart
	Figures    []Figure              `json:"figures"`
	Parts      []string              `json:"parts"` // components in the order they are stacked
	Steps      []string              `json:"steps"`
	Passing    []string              `json:"passing"` // steps that are in no sum
	Runs       []Run                 `json:"runs"`
	Timelines  map[string][]*Series  `json:"timelines"` // by run id
	Phases     map[string][]PhaseBar `json:"phases"`    // by run id
	Comparison *compare.Comparison   `json:"comparison"`
	Summaries  []Summary             `json:"summaries"`
	Short      map[string]string     `json:"short"`    // abbreviations of settings
	Problems   []string              `json:"problems"` // what could not be read
	where      sinks.Predicate
}

// A Figure is a column that the report can draw.
type Figure struct {
	Name  string `json:"name"`
	Label string `json:"label"`
	Unit  string `json:"unit"`
}

// A Run is one run: what was asked, how it ended, what it measured.
type Run struct {
	ID        string             `json:"id"`
	Profile   string             `json:"profile"`
	Execution string             `json:"execution"`
	Sweep     string             `json:"sweep"`
	Label     string             `json:"label"`
	Repeat    int32              `json:"repeat"`
	Outcome   string             `json:"outcome"`
	Failed    bool               `json:"failed"`
	Cause     string             `json:"cause,omitempty"`   // its group of failures
	Quality   string             `json:"quality,omitempty"` // of what the samples cover
	Blind     bool               `json:"blind,omitempty"`   // its figures are in no chart
	Detail    string             `json:"detail,omitempty"`
	ErrorLine string             `json:"error_line,omitempty"`
	GPU       string             `json:"gpu,omitempty"`
	GPUs      int32              `json:"gpus"`
	VLLM      string             `json:"vllm,omitempty"`
	Settings  map[string]any     `json:"settings"` // numbers where they are numbers
	Figures   map[string]float64 `json:"figures"`  // bytes as MiB; what is missing is not there
	Baseline  *float64           `json:"baseline"`
	Budget    *float64           `json:"budget"`  // requested, all ranks; null: vLLM did not say
	Reserve   *float64           `json:"reserve"` // unused of what was reserved for activations
	Parts     map[string]float64 `json:"parts"`   // vLLM's account
	Steps     map[string]float64 `json:"steps"`   // the driver's account
}

// A PhaseBar is a phase on the time axis of its run, in seconds.
type PhaseBar struct {
	Phase string  `json:"phase"`
	From  float64 `json:"from"`
	To    float64 `json:"to"`
}

// Components are the parts of the net increase, in the order they are stacked.
func Components() []string {
	return []string{"weights", "kv_cache", "activations", "cuda_graphs", "non_torch", "context", "buffers",
		"growth_excess", "framework_overhead"}
}

// driverSteps are the steps that stay in memory, in order.
func driverSteps() []string {
	return []string{"context", "nccl", "load", "buffers", "kv_alloc", "capture", "engine_warmup", "bench_warmup",
		"measure"}
}

// passingSteps do not add up with the others: peaks that are given back, and
// left_after, which is after the end.
func passingSteps() []string {
	return []string{"profile_peak", "estimate_capture", "kernel_warmup", "left_after"}
}

// besideKV is the name of the figure that is drawn first: what a GPU holds beside
// its KV cache, which fills whatever is left, alike in runs of any number of GPUs.
const besideKV = "use_beside_kv_per_gpu"

// besideKVOf is the highest use of a run less its KV cache, mean of its GPUs.
func besideKVOf(row *sinks.RunRow) *int64 {
	if row.PeakMemoryBytes == nil || row.KVCacheBytes == nil || frame.Deref(row.GPUCount) == 0 {
		return nil
	}
	return new((*row.PeakMemoryBytes - *row.KVCacheBytes) / int64(*row.GPUCount))
}

// Load reads the tables of output folders. It fails with ErrNoRuns where
// there are none, and with ErrMixed where synthetic and measured runs meet. A
// damaged file is named in Problems and left out.
func Load(folders []string, o Options) (*Report, error) {
	r := &Report{Title: o.Title, Written: o.Now.UTC().Format(time.RFC3339), Version: o.Version, Folders: folders,
		Steps: driverSteps(), Passing: passingSteps(), Parts: Components(), Comparison: o.Baseline, where: o.Where,
		Timelines: map[string][]*Series{}, Phases: map[string][]PhaseBar{}}
	var rows []sinks.RunRow
	each(r, func(row *sinks.RunRow) { rows = append(rows, *row) })
	if len(rows) == 0 {
		because := append(r.Problems, "")[0]
		if because != "" {
			because = ": " + because
		}
		return nil, fmt.Errorf("report: %w in %v%s", frame.ErrNoRuns, folders, because)
	}
	if err := frame.SameKind(rows); err != nil {
		return nil, err
	}
	r.Synthetic = rows[0].Synthetic
	r.Executions = compare.SideOf("", rows).Executions
	r.Points = o.Points
	if r.Points == 0 {
		r.Points = pointsFor(rows)
	}
	slices.SortStableFunc(rows, func(a, b sinks.RunRow) int { // as the plan had them
		return cmp.Or(strings.Compare(a.Execution, b.Execution), frame.Deref(a.StartedAt).Compare(frame.Deref(b.StartedAt)))
	})
	index := r.addRuns(rows)
	for _, s := range o.Summaries {
		r.Summaries = append(r.Summaries, Summary{Head: s.Head(), Sections: s.Sections(mostItems)})
		for i := range r.Runs {
			r.Runs[i].Cause = cmp.Or(r.Runs[i].Cause, s.Cause(r.Runs[i].ID))
		}
	}
	r.addMemory(index)
	r.addTimelines(index)
	return r, nil
}

// mostItems are shown of each section of a summary.
const mostItems = 12

// each reads a table; what cannot be read is a problem of the report.
func each[T sinks.Row](r *Report, use func(*T)) {
	for row, err := range sinks.Read[T](r.where, r.Folders...) {
		if err != nil {
			r.Problems = append(r.Problems, err.Error())
			continue
		}
		use(&row)
	}
}

// pointsFor shares 12 MB among the timelines; a point takes about 24 bytes.
func pointsFor(rows []sinks.RunRow) int {
	series := 0
	for i := range rows {
		series += int(frame.Deref(rows[i].GPUCount))
	}
	return min(max(12_000_000/24/max(series, 1), 40), 600)
}

// addRuns fills in what the table runs says; the result finds a run by its id.
func (r *Report) addRuns(rows []sinks.RunRow) map[string]*Run {
	settings, figures := frame.ColumnsOf(rows), frame.Figures()
	r.Short = map[string]string{}
	varied := map[string]map[string]bool{}
	known := map[string]bool{}
	for i := range rows {
		run := runOf(&rows[i], settings, figures, known)
		for name, v := range run.Settings {
			if varied[name] == nil {
				varied[name] = map[string]bool{}
			}
			varied[name][fmt.Sprint(v)] = true
		}
		r.Runs = append(r.Runs, run)
	}
	for _, s := range settings {
		if len(varied[s.Name]) > 1 || s.Name == "model" {
			r.Settings = append(r.Settings, s.Name)
			r.Short[s.Name] = sweep.ShortName(strings.TrimPrefix(s.Name, "axis_"))
			if slices.Contains(frame.Settings(), s.Name) || strings.HasPrefix(s.Name, "axis_") {
				r.Asked = append(r.Asked, s.Name)
			}
		}
	}
	if known[besideKV] {
		r.Figures = append(r.Figures, Figure{Name: besideKV, Label: "use beside the KV cache, per GPU", Unit: "MiB"})
	}
	for _, f := range figures {
		if known[f.Name] {
			unit := string(f.Unit)
			if f.Unit == frame.UnitBytes {
				unit = "MiB"
			}
			r.Figures = append(r.Figures, Figure{Name: f.Name, Label: f.Label, Unit: unit})
		}
	}
	index := make(map[string]*Run, len(r.Runs))
	for i := range r.Runs {
		index[r.Runs[i].ID] = &r.Runs[i]
	}
	return index
}

// runOf is one row of the table; known collects the figures that it has.
func runOf(row *sinks.RunRow, settings []frame.Column, figures []frame.Figure, known map[string]bool) Run {
	run := Run{ID: row.RunID, Profile: row.ProfileID, Execution: row.Execution, Sweep: row.Sweep, Label: frame.Label(row),
		Repeat: row.Repeat, Outcome: row.Outcome, Failed: frame.Failed(row), Detail: frame.Deref(row.OutcomeDetail),
		Quality: frame.Deref(row.Quality), Blind: frame.Blind(row),
		ErrorLine: frame.Deref(row.ErrorLine), GPU: frame.Deref(row.GPUName), GPUs: frame.Deref(row.GPUCount),
		VLLM: frame.Deref(row.VLLMVersion), Baseline: inMiB(row.BaselineMemoryBytes), Reserve: inMiB(row.HeadroomUnusedBytes),
		Settings: map[string]any{}, Figures: map[string]float64{}, Parts: map[string]float64{}, Steps: map[string]float64{}}
	for _, s := range settings {
		if v := s.Number(row); v != nil && s.Name != "enforce_eager" {
			run.Settings[s.Name] = *v
		} else if text := s.Text(row); text != "" && !strings.HasPrefix(text, "{") { // an object: its members are settings
			run.Settings[s.Name] = text
		}
	}
	if v := inMiB(besideKVOf(row)); v != nil {
		known[besideKV], run.Figures[besideKV] = true, *v
	}
	for _, f := range figures {
		v := f.Number(row)
		if v == nil {
			continue
		}
		known[f.Name] = true
		if f.Unit == frame.UnitBytes {
			run.Figures[f.Name] = round(*v/frame.MiB, 100)
		} else {
			run.Figures[f.Name] = *v
		}
	}
	return run
}

// addMemory adds both accounts. What vLLM asked for is summed over the ranks; where
// one rank did not say it, the sum would be too low and stays null.
func (r *Report) addMemory(index map[string]*Run) {
	missing := map[string]bool{}
	each(r, func(row *sinks.RankRow) {
		run := index[row.RunID]
		missing[row.RunID] = missing[row.RunID] || row.RequestedBytes == nil
		switch {
		case run == nil:
		case missing[row.RunID]:
			run.Budget = nil
		default:
			run.Budget = new(frame.Deref(run.Budget) + *inMiB(row.RequestedBytes))
		}
	})
	each(r, func(row *sinks.BreakdownRow) {
		if run := index[row.RunID]; run != nil {
			run.Parts[row.Component] += *inMiB(&row.Bytes)
		}
	})
	each(r, func(row *sinks.StepRow) {
		run := index[row.RunID]
		if run == nil || row.Bytes == nil {
			return
		}
		run.Steps[row.Step] += *inMiB(row.Bytes)
		if !slices.Contains(slices.Concat(r.Steps, r.Passing), row.Step) {
			r.Steps = append(r.Steps, row.Step) // of a newer schema
		}
	})
}

// addTimelines streams the samples run by run, and thins them as they come.
func (r *Report) addTimelines(index map[string]*Run) {
	current := ""
	byGPU := map[int32]*gathering{}
	flush := func() {
		if index[current] == nil {
			return
		}
		var all []*Series
		for gpu, g := range byGPU {
			all = append(all, g.series(gpu))
		}
		slices.SortFunc(all, func(a, b *Series) int { return cmp.Compare(a.GPU, b.GPU) })
		if len(all) > 0 {
			r.Timelines[current] = append(r.Timelines[current], all...)
			r.Phases[current] = all[0].phases
		}
	}
	each(r, func(row *sinks.TimelineRow) {
		if row.GPUIndex == nil {
			return
		}
		if row.RunID != current {
			flush()
			current = row.RunID
			clear(byGPU)
		}
		if byGPU[*row.GPUIndex] == nil {
			byGPU[*row.GPUIndex] = &gathering{limit: r.Points}
		}
		byGPU[*row.GPUIndex].add(row)
	})
	flush()
}

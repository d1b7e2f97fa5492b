// Package summary says what came of an execution in one screen: what failed and
// why, what was skipped, which rows not to trust, what changed since the last one,
// what is proved safe, and what to do next.
//
// It reads one execution of an output folder; what it is compared with is given to
// it. It judges nothing by itself: outcomes, quality and changes are those of the
// rows and of package compare.
package summary

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/vllm"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/compare"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep"
)

// A Summary is what came of an execution.
type Summary struct {
	Folder     string     `json:"folder"`
	Execution  string     `json:"execution"`
	State      string     `json:"state"`                // complete, interrupted, running; "": the folder has no note of it
	StoppedBy  string     `json:"stopped_by,omitempty"` // why it ended before its time
	Synthetic  bool       `json:"synthetic"`
	StartedAt  *time.Time `json:"started_at"`
	EndedAt    *time.Time `json:"ended_at"`
	WallS      *float64   `json:"wall_s"`    // from the start of the first to the end of the last run
	GPUHours   *float64   `json:"gpu_hours"` // of the runs: wall time x GPUs
	Planned    int        `json:"planned"`   // 0: not known
	Runs       int        `json:"runs"`
	Profiles   int        `json:"profiles"`
	OK         int        `json:"ok"`
	Failed     int        `json:"failed"`
	Skipped    int        `json:"skipped"`
	Failures   []Group    `json:"failures"`
	Skips      []Group    `json:"skips"`
	Suspicious []Group    `json:"suspicious"`
	Changes    []Changes  `json:"changes"`
	Safe       []Safe     `json:"safe"`
	Next       []string   `json:"next"` // commands
	Problems   []string   `json:"problems,omitempty"`
	command    []string   // that began it
	space      *space
	models     map[string]string
	causes     map[string]string // run id: its group of failures
}

// A Group is runs that something has befallen, for one reason.
type Group struct {
	What   string   `json:"what"`           // "oom in load", "sparse samples"
	Points string   `json:"points"`         // "Qwen3-8B · bs 32, 128 · in ≥ 4096"
	Line   string   `json:"line,omitempty"` // vLLM's own, of the first run
	Log    string   `json:"log,omitempty"`  // where it stands, in the folder
	Runs   []string `json:"runs"`           // ids
	some   bool     // other repeats of a profile fared otherwise
	failed bool
}

// Changes are those since one baseline.
type Changes struct {
	Since   string   `json:"since"` // "the execution before, 2026..."
	Error   string   `json:"error,omitempty"`
	Matched int      `json:"matched_profiles"`
	Groups  []Group  `json:"groups"`
	Notes   []string `json:"notes,omitempty"`
}

// Safe is the highest gpu_memory_utilization that all runs of a model prove safe.
type Safe struct {
	Model       string   `json:"model"`
	Ranks       int64    `json:"tensor_parallel_size"`
	GPU         string   `json:"gpu"`
	Utilization float64  `json:"gpu_memory_utilization"`
	Asked       *float64 `json:"asked"` // the highest that the runs asked for; null: left to vLLM
	Runs        int      `json:"runs"`
	Unproved    int      `json:"unproved_runs"` // that ended well and prove nothing
}

// A Compared is what the execution is compared with.
type Compared struct {
	Since string
	Of    *compare.Comparison // nil: Err says why
	Err   error
}

// A run is what a summary keeps of one.
type run struct {
	*sinks.RunRow
	failedIn runner.Phase
	log      string
	safe     *float64
	slowed   float64 // share of the samples of measuring in which the clocks were held back
}

// Load sums up an execution of a folder. Without an error it has at least one run.
func Load(store *sinks.Store, folder, execution string, compared []Compared) (*Summary, error) {
	s := &Summary{Folder: folder, Execution: execution, Failures: []Group{}, Skips: []Group{}, Suspicious: []Group{},
		Changes: []Changes{}, Safe: []Safe{}, causes: map[string]string{}}
	runs := s.read(store)
	if len(runs) == 0 {
		because := append(s.Problems, "")[0]
		return nil, fmt.Errorf("summary: %w of execution %s in %s%s", frame.ErrNoRuns, execution, folder, because)
	}
	s.noted(store)
	s.of(runs, compared)
	return s, nil
}

// of sums up runs.
func (s *Summary) of(runs []*run, compared []Compared) {
	rows, names := make([]*sinks.RunRow, len(runs)), []string{}
	for i, r := range runs {
		rows[i], names = r.RunRow, append(names, r.Model)
	}
	s.space, s.models = newSpace(rows), sweep.ShortModels(names)
	s.count(runs)
	s.failures(runs)
	s.skips(runs)
	s.suspicious(runs)
	for _, c := range compared {
		s.Changes = append(s.Changes, s.changes(c))
	}
	s.safe(runs)
	s.next()
}

// read takes the runs in the order of the execution: from their folders, else, where
// these are gone, from the tables.
func (s *Summary) read(store *sinks.Store) (runs []*run) {
	where := sinks.Predicate{Execution: s.Execution}
	for dir, result := range store.Results(where) {
		if result == nil {
			s.Problems = append(s.Problems, dir+"/run.json is damaged")
			continue
		}
		r := &run{RunRow: &sinks.RowsOf(result).Run, failedIn: result.Run.FailedIn,
			log: logOf(dir, result), safe: safeOf(result)}
		if result.Run.Outcome == runner.OutcomeOK {
			r.slowed = slowed(store.Samples(dir), result)
		}
		runs = append(runs, r)
	}
	if len(runs) == 0 {
		sinks.ReadStore(store, where, func(row sinks.RunRow, err error) bool {
			if err != nil {
				s.Problems = append(s.Problems, err.Error())
				return true
			}
			runs = append(runs, &run{RunRow: &row})
			return true
		})
	}
	slices.SortStableFunc(runs, func(a, b *run) int {
		return frame.Deref(a.StartedAt).Compare(frame.Deref(b.StartedAt))
	})
	return runs
}

// logOf is where the line stands that explains a failure, else the log with the
// engine's last words.
func logOf(dir string, r *runner.Result) string {
	files := map[string]string{}
	for _, log := range r.RawLogs {
		files[log.Name] = path.Join(dir, log.Path)
	}
	for _, e := range r.LogEvents {
		if e.Kind == runner.EventError && files[e.File] != "" {
			return fmt.Sprintf("%s:%d", files[e.File], e.Line)
		}
	}
	return cmp.Or(files["stderr"], files["stdout"])
}

// safeOf is what a run proves safe on all of its GPUs; nil: nothing.
func safeOf(r *runner.Result) (least *float64) {
	for i := range r.BeyondBudget {
		share := r.BeyondBudget[i].SafeUtilization
		if share == nil {
			return nil
		}
		if least == nil || *share < *least {
			least = share
		}
	}
	return least
}

// NVML's clock event reasons that say that something is amiss: hardware slowdown,
// software and hardware thermal slowdown, power brake. A power cap under load is
// none: nvml.h, nvmlClocksEventReasons.
const amiss = 0x8 | 0x20 | 0x40 | 0x80

// slowed is the share of the samples of measuring in which clocks were held back.
func slowed(samples runner.SampleReader, r *runner.Result) float64 {
	var from, to time.Time
	for i := range r.Phases {
		p := &r.Phases[i]
		if p.Phase == runner.PhaseMeasure && p.StartedAt != nil && p.EndedAt != nil {
			from, to = *p.StartedAt, *p.EndedAt
		}
	}
	held, all := 0, 0
	_ = samples.ReadSamples(func(batch []runner.Sample) error { // verify speaks about damaged ones
		for i := range batch {
			b := &batch[i]
			if b.Has&runner.HasThrottleReasons == 0 || b.TS.Before(from) || b.TS.After(to) {
				continue
			}
			all++
			if b.ThrottleReasons&amiss != 0 {
				held++
			}
		}
		return nil
	})
	return float64(held) / float64(max(all, 1))
}

func (s *Summary) count(runs []*run) {
	s.Runs, s.Profiles, s.Synthetic = len(runs), len(s.space.of), runs[0].Synthetic
	gpuHours := 0.0
	for _, r := range runs {
		switch {
		case frame.Failed(r.RunRow):
			s.Failed++
		case r.Outcome == "skipped":
			s.Skipped++
		default:
			s.OK++
		}
		if r.StartedAt != nil && (s.StartedAt == nil || r.StartedAt.Before(*s.StartedAt)) {
			s.StartedAt = r.StartedAt
		}
		if r.EndedAt != nil && (s.EndedAt == nil || r.EndedAt.After(*s.EndedAt)) {
			s.EndedAt = r.EndedAt
		}
		gpuHours += frame.Deref(r.WallS) * float64(frame.Deref(r.GPUCount)) / 3600
	}
	if s.StartedAt != nil && s.EndedAt != nil {
		s.WallS, s.GPUHours = new(s.EndedAt.Sub(*s.StartedAt).Seconds()), &gpuHours
	}
}

// noted adds what the folder remembers of the execution.
func (s *Summary) noted(store *sinks.Store) {
	e, err := store.Execution(s.Execution)
	if err != nil {
		return // a folder of tables alone
	}
	s.State, s.Planned, s.command = string(e.State), e.Runs, e.Command
	var outcome runner.Summary
	if json.Unmarshal(e.Summary, &outcome) == nil && s.State != string(runner.StateComplete) {
		s.StoppedBy = outcome.StoppedBy
	}
}

// groups puts runs together by what has befallen them, the largest group first.
func (s *Summary) groups(runs []*run, of func(*run) (key, what, line string)) []Group {
	groups, order := map[string]*Group{}, []*Group{}
	profiles, others := map[*Group][]string{}, map[string]string{}
	for _, r := range runs {
		key, what, line := of(r)
		if key == "" {
			continue
		}
		g := groups[key]
		if g == nil {
			g = &Group{What: what, Line: line, Log: r.log, failed: frame.Failed(r.RunRow)}
			groups[key], order = g, append(order, g)
		}
		g.Runs = append(g.Runs, r.RunID)
		profiles[g] = append(profiles[g], r.ProfileID)
		others[r.RunID] = key
	}
	for _, r := range runs { // a profile that fared otherwise in another repeat
		for _, g := range order {
			g.some = g.some || slices.Contains(profiles[g], r.ProfileID) && groups[others[r.RunID]] != g
		}
	}
	out := []Group{}
	for _, g := range order {
		g.Points = s.space.describe(profiles[g], s.models)
		if g.some {
			g.Points += " (in some repeats)"
		}
		out = append(out, *g)
	}
	slices.SortStableFunc(out, func(a, b Group) int { return cmp.Compare(len(b.Runs), len(a.Runs)) })
	return out
}

// failures groups by outcome, phase and the shape of the line that explains it.
func (s *Summary) failures(runs []*run) {
	s.Failures = s.groups(runs, func(r *run) (key, what, line string) {
		if !frame.Failed(r.RunRow) {
			return "", "", ""
		}
		what = r.Outcome
		if r.failedIn != "" && r.Outcome != string(runner.OutcomeBadArgument) {
			what += " in " + string(r.failedIn)
		}
		line = cmp.Or(frame.Deref(r.ErrorLine), frame.Deref(r.OutcomeDetail))
		return what + shape(line), what, line
	})
	for _, g := range s.Failures {
		for _, id := range g.Runs {
			s.causes[id] = g.What + ": " + g.Points
		}
	}
}

// Cause names the group of failures that a run belongs to; "": none.
func (s *Summary) Cause(runID string) string { return s.causes[runID] }

// shape is a line without what differs from run to run: its head, numbers, and what
// follows the first sentence.
func shape(line string) string {
	first, _, _ := strings.Cut(line, ". ")
	return regexp.MustCompile(`[0-9]+([.][0-9]+)?`).ReplaceAllString(first, "#")
}

// skips groups by the reason in settings.
func (s *Summary) skips(runs []*run) {
	s.Skips = s.groups(runs, func(r *run) (key, what, line string) {
		if r.Outcome != "skipped" {
			return "", "", ""
		}
		rule, why, _ := strings.Cut(frame.Deref(r.OutcomeDetail), ":")
		_, check, dominated := strings.Cut(why, ", where ")
		if !dominated {
			check, _, _ = strings.Cut(strings.TrimSpace(why), " (")
		} else {
			check = "a smaller point failed: " + check
		}
		what = fmt.Sprintf("%s (%s)", rule, check)
		return what, what, ""
	})
}

// suspicious groups the rows whose figures are not to be taken as they are.
func (s *Summary) suspicious(runs []*run) {
	add := func(of func(*run) (what, line string)) {
		s.Suspicious = append(s.Suspicious, s.groups(runs, func(r *run) (key, what, line string) {
			what, line = of(r)
			return what, what, line
		})...)
	}
	add(func(r *run) (string, string) {
		if q := frame.Deref(r.Quality); q != "" && q != string(runner.QualityFull) && r.Outcome == "ok" {
			return q + " samples", frame.Deref(r.QualityDetail)
		}
		return "", ""
	})
	add(func(r *run) (string, string) {
		if r.slowed > 0 {
			return "throttled", fmt.Sprintf("heat, a power brake or a hardware slowdown held the clocks back in %.0f %% of the samples "+
				"of measuring", 100*r.slowed)
		}
		return "", ""
	})
	add(func(r *run) (string, string) {
		gpus := int64(max(frame.Deref(r.GPUCount), 1))
		if b := frame.Deref(r.BaselineMemoryBytes); r.Outcome == "ok" && b > gpus*frame.GiB {
			return "dirty GPU", fmt.Sprintf("%.2f GiB of the GPUs were in use before the start", float64(b)/frame.GiB)
		}
		return "", ""
	})
}

// safe is what all runs of a model on a GPU prove safe.
func (s *Summary) safe(runs []*run) {
	for _, r := range runs {
		if r.Outcome != "ok" || r.safe == nil && r.log == "" {
			continue
		}
		gpu := frame.Deref(r.GPUName)
		at := slices.IndexFunc(s.Safe, func(x Safe) bool {
			return x.Model == r.Model && x.Ranks == r.TensorParallelSize && x.GPU == gpu
		})
		if at < 0 {
			at = len(s.Safe)
			s.Safe = append(s.Safe, Safe{Model: r.Model, Ranks: r.TensorParallelSize, GPU: gpu, Utilization: 1})
		}
		x := &s.Safe[at]
		if r.safe == nil {
			x.Unproved++
			continue
		}
		x.Runs++
		x.Utilization = min(x.Utilization, *r.safe)
		if u := r.GPUMemoryUtilization; u != nil && *u > frame.Deref(x.Asked) {
			x.Asked = u
		}
	}
	s.Safe = slices.DeleteFunc(s.Safe, func(x Safe) bool { return x.Runs == 0 })
}

// next are the two commands that follow.
func (s *Summary) next() {
	add := func(format string, args ...any) { s.Next = append(s.Next, fmt.Sprintf(format, args...)) }
	name := s.Folder + "@" + s.Execution
	if s.State == string(runner.StateInterrupted) {
		again := slices.DeleteFunc(slices.Clone(s.command), func(word string) bool {
			return strings.HasPrefix(word, "--resume")
		})
		add("%s", vllm.Paste(append(again, "--resume")))
	}
	for _, c := range s.Changes {
		if len(c.Groups) > 0 {
			add("vramsweep compare %s %s", c.Since, name)
		}
	}
	for _, g := range s.Failures {
		if g.Log != "" {
			file, _, _ := strings.Cut(g.Log, ":")
			add("vramsweep explain %s", path.Join(s.Folder, file))
			break
		}
	}
	add("vramsweep report %s", name)
	add("vramsweep correlate %s", name)
	s.Next = s.Next[:2]
}

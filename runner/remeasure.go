package runner

import (
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// Remeasure prepares a finished result for another attribution: it clears what
// an Attributor fills, takes over an account that was read anew from the raw
// logs (nil: there is none), and gives the Measured that the Attributor needs.
// a is the model's architecture, nil where it is not known. The raw logs do not
// have the arrival times of lines: events get those that the result kept.
func Remeasure(r *Result, a *models.Architecture, account *Account, events []LogEvent, samples SampleReader) *Measured {
	job := &Job{
		RunID: r.Run.RunID, Execution: r.Run.Execution, Repeat: r.Run.Repeat, Attempt: r.Run.Attempts,
		Profile: profileOf(r, a), Sweep: &sweep.Sweep{Name: r.Run.Sweep}, Devices: r.GPUInfo, Synthetic: r.Run.Synthetic,
		StartedAt: r.Run.StartedAt, Progress: func(Progress) {}, Pulse: &Pulse{},
	}
	if s := r.Session; s != nil {
		job.KeepEngine = s.Position+1 < s.GroupSize
	}
	from, to := engineSpan(r)
	m := &Measurement{Account: account, Events: withArrivals(events, r.LogEvents), Latency: r.LatencyStats,
		Session: r.Session, Logs: r.RawLogs, Outcome: r.Run.Outcome, Detail: r.Run.OutcomeDetail,
		StartedAt: from, EndedAt: to, ExitCode: r.Run.ExitCode}
	measured := &Measured{Job: job, Measurement: m, Samples: samples, Detail: r.DetailedGPUMetrics}
	if r.MemoryTimeline != nil {
		measured.Reports = r.MemoryTimeline.Samplers
	}
	r.VLLMInternalMetrics, r.LogEvents = account, m.Events
	r.Phases, r.Ranks, r.Steps, r.Breakdowns, r.BeyondBudget = nil, nil, nil, nil, nil
	r.MemoryTimeline, r.MemoryBreakdown, r.MemoryMeasurements = nil, nil, nil
	r.Missing = keptReasons(r.Missing)
	r.Run.Quality, r.Run.QualityDetail = "", ""
	if account != nil {
		fillAccount(r, account)
		for field, reason := range account.Missing {
			r.Missing["vllm_internal_metrics."+field] = reason
		}
	}
	return measured
}

// keptReasons are those that an Attributor and the reader of the log do not give.
func keptReasons(before map[string]string) map[string]string {
	kept := map[string]string{}
	for field, reason := range before {
		section, _, _ := strings.Cut(field, ".")
		section, _, _ = strings.Cut(section, "[")
		switch section {
		case "latency_stats", "gpu_info", "detailed_gpu_metrics", "model_info", "engine_metadata", "provenance",
			"session", "start":
			kept[field] = reason
		}
	}
	return kept
}

// engineSpan is when the engine ran, by the phases that were found before.
func engineSpan(r *Result) (from, to time.Time) {
	for _, p := range r.Phases {
		if p.Phase == PhaseEngineInit && p.StartedAt != nil && (from.IsZero() || p.StartedAt.Before(from)) {
			from = *p.StartedAt
		}
		if p.Phase != PhaseFinal && p.EndedAt != nil && p.EndedAt.After(to) {
			to = *p.EndedAt
		}
	}
	if from.IsZero() {
		from = r.Run.StartedAt
	}
	if to.IsZero() {
		to = r.Run.EndedAt
	}
	return from, to
}

// withArrivals gives events the arrival times of the same lines in before, and
// keeps events that stand in no raw log.
func withArrivals(events, before []LogEvent) []LogEvent {
	type key struct {
		kind EventKind
		file string
		line int
		took time.Duration
	}
	placed := map[key]LogEvent{}
	var out []LogEvent
	for _, e := range before {
		if e.File == "session" {
			out = append(out, e)
			continue
		}
		placed[key{e.Kind, e.File, e.Line, e.Took}] = e
	}
	known := len(before) > 0
	for _, e := range events {
		file := e.File
		if was, ok := placed[key{e.Kind, trimLog(file), e.Line, e.Took}]; ok {
			e.File, e.Arrived, e.UncertaintyS = trimLog(file), was.Arrived, was.UncertaintyS
		} else if known {
			continue // a moment without a time between others with theirs says nothing
		}
		out = append(out, e)
	}
	return out
}

// trimLog names a stream by its file.
func trimLog(file string) string {
	if file == "stdout.log" || file == "stderr.log" {
		return strings.TrimSuffix(file, ".log")
	}
	return file
}

// profileOf is the profile of a result, as far as an Attributor looks at it.
func profileOf(r *Result, a *models.Architecture) *sweep.Profile {
	b := &r.BenchmarkParameters
	return &sweep.Profile{
		ID: r.Run.ProfileID, Sweep: r.Run.Sweep, Model: a,
		Settings: sweep.Settings{Model: r.ModelInfo.Model, HFModelID: r.ModelInfo.HFModelID, Asked: b.Asked},
		Engine:   sweep.Engine{Kind: b.Engine, Mode: b.EngineMode},
	}
}

package attribution

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// An Attributor fills the phases, snapshots, timeline, ranks, steps, breakdown
// and beyond_budget of a result. It implements runner.Attributor; the zero
// value is ready. Runs that share an engine must be attributed in order, by the
// same Attributor: only the first of them saw the engine start.
type Attributor struct {
	mu   sync.Mutex
	last *engine
}

// An engine is what an Attributor remembers of an engine that serves several
// runs: the levels of its start, which later runs do not see.
type engine struct {
	execution string
	position  int
	size      int
	courses   []*course
}

var _ runner.Attributor = (*Attributor)(nil)

// work is the attribution of one run.
type work struct {
	r *runner.Result
	m *runner.Measured
	a *runner.Account
	c *collection

	events  []runner.LogEvent
	courses []*course
	ledgers []*ledger
	kv      kvShape

	kind        string // of the power
	logits      int64  // max_num_seqs x vocabulary x 4 B, whatever runner
	layers      int64
	utilization float64
	kvGiven     bool // the KV cache's size was given, not a share
	failed      bool
	uncovered   string // why the window of the highest use is not covered; "": it is, or there is none
	lost        bool   // the engine was there before the run, and its start is not known
}

func (w *work) miss(field, reason string) {
	if w.r.Missing == nil {
		w.r.Missing = map[string]string{}
	}
	if _, there := w.r.Missing[field]; !there {
		w.r.Missing[field] = reason
	}
}

// Attribute fills what samples and account tell. It never fails: what cannot
// be told is nil and has a reason in result.Missing.
func (at *Attributor) Attribute(result *runner.Result, measured *runner.Measured) {
	if result == nil || measured == nil || measured.Job == nil {
		return
	}
	w := &work{r: result, m: measured, kind: powerKind(measured.Reports)}
	w.m = byRank(measured, w.session())
	if mm := measured.Measurement; mm != nil {
		w.a, w.events = mm.Account, mm.Events
		w.failed = mm.Outcome != runner.OutcomeOK
	}
	if w.a == nil {
		w.a = result.VLLMInternalMetrics
	}
	c, err := collect(w.m)
	w.c = c
	if err != nil {
		w.miss("memory_timeline", fmt.Sprintf("samples could not be read to the end: %v", err))
	}
	w.accounts()
	for _, l := range w.ledgers {
		l.splitBuffers()
	}
	w.follow(at.before(w))
	at.remember(w)
	if c.n == 0 {
		w.quality(runner.QualityBlind, "no sample was taken")
		w.miss(
			"memory_timeline",
			"no sample of the run's GPUs (or of its process tree) was taken; a run that is shorter than the sampling interval has none",
		)
		w.fillRanks()
		return
	}
	from, to, what := w.window()
	g := newGathering(c, w.courses, from, to, w.failed)
	if err := g.gather(w.m.Samples); err != nil {
		w.miss("memory_timeline", fmt.Sprintf("samples could not be read to the end: %v", err))
	}
	w.fill(g, what)
}

// byRank puts the run's GPUs in the order of its ranks, where the ranks
// themselves say on which GPU they run (session mode). Else the order in which
// the engine was given them stands, which is the order of its ranks.
func byRank(m *runner.Measured, s *runner.Session) *runner.Measured {
	if s == nil {
		return m
	}
	of := map[int]string{} // GPU of a rank
	for _, t := range s.Torch {
		if t.GPUUUID != nil {
			of[t.Rank] = *t.GPUUUID
		}
	}
	left := slices.Clone(m.Job.Devices)
	ordered := make([]runner.Device, 0, len(left))
	for rank := range m.Job.Devices {
		i := slices.IndexFunc(left, func(d runner.Device) bool { return d.UUID != "" && d.UUID == of[rank] })
		if i < 0 {
			return m
		}
		ordered, left = append(ordered, left[i]), slices.Delete(left, i, i+1)
	}
	job, out := *m.Job, *m
	job.Devices, out.Job = ordered, &job
	return &out
}

// follow finds the course of each GPU; before are those of the engine's first
// run, where the engine was there before this one.
func (w *work) follow(before []*course) {
	moments := &moments{events: w.events, start: w.m.Job.StartedAt}
	for i, t := range w.c.tracks {
		var from *course
		if i < len(before) {
			from = before[i]
		}
		p, l := follow(w.c, moments, t, w.facts(i), w.m, from), w.ledgers[i]
		if w.lost {
			p.baseline = nil
		}
		w.courses = append(w.courses, p)
		l.addContext(p)
		l.addLeft(p)
		if p.estimated && !p.graphs && !p.shared {
			l.graphs = missing("the run ended before its graphs were captured: what the log says of them was the estimate's")
		}
		if p.loaded == nil && !l.kv.ok && l.buffers.bytes > 0 {
			l.buffers = missing("the run ended before the runner had allocated its buffers, or no sample shows it")
		}
		if w.c.host {
			l.context = missing("a machine without a GPU has no CUDA context")
		}
	}
}

// before returns the courses of the engine's first run where this run's engine
// was there before it; else nil.
func (at *Attributor) before(w *work) []*course {
	s := w.session()
	if s == nil || s.Position == 0 {
		return nil
	}
	at.mu.Lock()
	defer at.mu.Unlock()
	if e := at.last; e != nil && e.execution == w.m.Job.Execution && e.size == s.GroupSize && e.position < s.Position &&
		len(e.courses) == len(w.c.tracks) {
		e.position = s.Position
		return e.courses
	}
	w.lost = true
	w.miss(
		"memory_breakdown",
		"the engine was there before this run, and the run that started it is not known here: there is no baseline",
	)
	w.miss("steps", "the engine was there before this run: its start lies in another one")
	return nil
}

// remember keeps the courses of an engine's first run.
func (at *Attributor) remember(w *work) {
	if s := w.session(); s != nil && s.Position == 0 && s.EngineShared {
		at.mu.Lock()
		at.last = &engine{execution: w.m.Job.Execution, size: s.GroupSize, courses: w.courses}
		at.mu.Unlock()
	}
}

// window is from engine ready to the end of measuring.
func (w *work) window() (from, to time.Duration, what string) {
	p := w.courses[0]
	begin, end := p.bounds[runner.PhaseBenchWarmup], p.bounds[runner.PhaseTeardown]
	switch {
	case begin.ok && end.ok && end.at > begin.at:
		return begin.at, end.at, "engine ready to end of measuring"
	case begin.ok:
		return begin.at, w.c.last, "engine ready to the last sample: measuring did not end"
	case w.r.BenchmarkParameters.Engine == runner.EngineCommand:
		return w.c.first, w.c.last, "whole run"
	}
	return w.c.first, w.c.last, "whole run: the engine was never ready for a benchmark"
}

func (w *work) fill(g *gathering, what string) {
	w.r.MemoryTimeline = w.timeline(g, what)
	w.coverage(g)
	w.r.Phases, w.r.Steps, w.r.BeyondBudget, w.r.Breakdowns = nil, nil, nil, nil
	for i, l := range g.lanes {
		w.r.Phases = append(w.r.Phases, w.phaseRows(l)...)
		if !w.c.host {
			w.r.Steps = append(w.r.Steps, w.steps(w.courses[i], w.ledgers[i])...)
			w.r.BeyondBudget = append(w.r.BeyondBudget, w.beyond(w.courses[i], w.ledgers[i]))
		}
	}
	w.r.MemoryMeasurements = w.snapshots(g)
	w.fillRanks()
	w.divideAll(g)
	w.sessionGrowth()
	w.hold()
}

// sessionGrowth is what a profile found on each GPU when it began on an engine
// that serves several, and what it added.
func (w *work) sessionGrowth() {
	s := w.session()
	if s == nil {
		return
	}
	s.MemoryAtStart, s.Growth = map[int]int64{}, map[int]int64{}
	if w.c.host {
		return
	}
	for rank, p := range w.courses {
		begin := p.bounds[runner.PhaseBenchWarmup]
		if !begin.ok {
			begin = p.bounds[runner.PhaseMeasure]
		}
		if !begin.ok {
			continue
		}
		gpu := int(p.track.gpu)
		found, ok := atStart(p, begin.at, s.Torch, rank)
		if !ok {
			w.miss(
				fmt.Sprintf("session.growth_bytes[gpu %d]", gpu),
				"no sample was taken just before the profile began, and the rank did not tell its GPU's free memory then",
			)
			continue
		}
		s.MemoryAtStart[gpu] = found
		to := w.c.last
		if end := p.bounds[runner.PhaseTeardown]; end.ok {
			to = end.at
		}
		if most, ok := p.track.mem.highest(begin.at, to); ok {
			s.Growth[gpu] = max(most.level-found, 0)
		}
	}
}

// atStart is the memory in use when a profile began: of the last sample before,
// never of the first one after, which can hold what the first request took. Where none
// lies within stale, it is what the rank itself saw of its GPU at that moment.
func atStart(p *course, begin time.Duration, readings []runner.TorchReading, rank int) (int64, bool) {
	if last, ok := p.track.mem.at(begin); ok && begin-last.at <= stale {
		return last.level, true
	}
	for i := range readings {
		t := &readings[i]
		if t.Rank == rank && t.Moment == "profile_start" && t.FreeBytes != nil && t.TotalBytes != nil {
			return *t.TotalBytes - *t.FreeBytes, true
		}
	}
	return 0, false
}

func (w *work) fillRanks() {
	w.r.Ranks = nil
	for i, l := range w.ledgers {
		var d *runner.Device
		if i < len(w.m.Job.Devices) {
			d = &w.m.Job.Devices[i]
		}
		row := l.row(d)
		session := w.r.Session
		if w.m.Measurement != nil && w.m.Measurement.Session != nil {
			session = w.m.Measurement.Session
		}
		torch(&row, session)
		w.r.Ranks = append(w.r.Ranks, row)
		for field, f := range map[string]figure{
			"model_weights_bytes": l.weights, "kv_cache_bytes": l.kv, "activations_reserved_bytes": l.activations,
			"cuda_graphs_bytes": l.graphs, "non_torch_bytes": l.nonTorch, "context_bytes": l.context, "buffers_bytes": l.buffers,
			"requested_bytes": l.requested, "free_at_start_bytes": l.free, "budget_difference_bytes": l.difference,
		} {
			if !f.ok {
				w.miss(fmt.Sprintf("ranks[%d].%s", i, field), f.reason)
			}
		}
	}
}

// divideAll fills the breakdown at the highest tick.
func (w *work) divideAll(g *gathering) {
	if w.uncovered != "" {
		w.miss("memory_breakdown", w.uncovered)
		return
	}
	if g.top.each == nil {
		why := "no tick at which the memory of every GPU was read"
		if w.failed {
			why = "no two ticks on end at which the memory of every GPU was read, and of a run that failed one alone is chance"
		}
		w.miss("memory_breakdown", why)
		return
	}
	var splits []*split
	var baseline int64
	for i, p := range w.courses {
		s := w.divide(w.ledgers[i], p, g.top.each[i], g.top.at)
		if s == nil {
			w.miss("memory_breakdown", fmt.Sprintf("the memory of GPU %d before the engine started is unknown", p.track.gpu))
			return
		}
		splits = append(splits, s)
		baseline += p.baseline.level
		w.r.Breakdowns = append(w.r.Breakdowns, s.rows(i)...)
	}
	w.r.MemoryBreakdown = w.breakdown(splits, g.top.sum, baseline, g.top.at)
}

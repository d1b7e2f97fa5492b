package attribution

import (
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// How fine the course of a run is read.
const (
	stillness  = 150 * time.Millisecond // a level that lasts this long is a level, not a moment on the way
	together   = 250 * time.Millisecond // rises that follow each other within this are one, where samples are far apart
	closest    = 60 * time.Millisecond  // the same at most, where samples are close
	notable    = 64 << 20               // bytes: a rise that is an allocation, not a library's own
	sustained  = 128 << 20              // bytes: a rise that starts another phase
	bigContext = 200 << 20              // bytes: the first rise of at least this is the CUDA context
	// beforeProfiling is the least that lies between the first line of compiling
	// and the end of profiling.
	beforeProfiling = 500 * time.Millisecond
	// stale is how long before a moment the last sample may lie that tells its
	// level.
	stale = 500 * time.Millisecond
	// beforeContext is the least that an engine imports before it touches a GPU (19 s
	// in the recordings).
	beforeContext = 2 * time.Second
	// utilizationWindow is what a driver's utilization is about: the last sixth of a
	// second to second (NVML's documentation of nvmlDeviceGetUtilizationRates).
	utilizationWindow = 170 * time.Millisecond
	// collecting is how long a capture collects Python's garbage before it gives back
	// what was reserved (0.1 to 0.9 s in vLLM 0.33 on an H200).
	collecting = time.Second
	// roundedSecond is how far a duration in whole seconds may be from the true one.
	roundedSecond = 500 * time.Millisecond
	nearLoaded    = 256 << 20 // bytes: a fall that ends so near the level after loading is a whole fall
)

// A bound is the start of a phase.
type bound struct {
	at          time.Duration
	uncertainty time.Duration
	ok          bool
}

// A course is what one GPU went through: where its phases start, and the level
// at the end of each step, with the sample that it comes from. nil: the run
// did not get there, or no sample tells.
type course struct {
	track  *track
	bounds map[runner.Phase]bound

	baseline *point
	context  *point // the bare CUDA context; all before loading on one GPU
	nccl     *point // before loading, on several GPUs
	weights  *point // at the line that ends loading, where it was seen to arrive
	loaded   *point // weights and the runner's persistent buffers
	peak     *point // of profiling
	profiled *point // profiling has given back what it reserved, graphs are not yet captured for the estimate
	estimate *point // highest of the capture for the estimate
	kvBase   *point // before the KV cache
	kv       *point
	kernels  *point // highest of kernel warm-up between the KV cache and the capture
	captured *point
	ready    *point // the engine is ready, the benchmark has not begun
	warmed   *point // the measured iterations begin
	measured *point // they end
	left     *point // after all has ended
	leftRead bool   // left comes from the full reading at the end, not from a sample

	fallSeen  bool  // kvBase is a sampled level; else it is the level after loading
	kvJump    int64 // the bare rise between the two samples around the KV allocation
	estimated bool  // graphs were captured for an estimate, before the KV cache
	graphs    bool  // graphs were captured for good
	shared    bool  // the engine was there before the run: levels up to captured are those of its first run
}

// facts are what the search for steps may know of vLLM's own account. They
// bound where to look; no level is taken from them.
type facts struct {
	weights int64 // per rank, as printed; 0: unknown
	buffers int64 // calculated; 0: none or unknown
	context int64 // total - free at start - baseline; 0: unknown
	kv      int64 // as printed; 0: unknown
	world   int   // ranks
	v2      bool  // the V2 model runner: after profiling, memory is back at the level after loading
	latency *runner.LatencyStats
}

type finder struct {
	c        *collection
	m        *moments
	t        *track
	f        facts
	from, to time.Duration // the engine's life
	p        *course
}

// follow finds the course of one GPU. from is that of the engine's first run
// where the engine was there before this one, else nil.
func follow(c *collection, m *moments, t *track, f facts, mm *runner.Measured, from *course) *course {
	fd := &finder{c: c, m: m, t: t, f: f, to: c.last, p: &course{track: t, bounds: map[runner.Phase]bound{}}}
	if mm.Measurement != nil {
		if !mm.Measurement.StartedAt.IsZero() {
			fd.from = c.offset(mm.Measurement.StartedAt)
		}
		if !mm.Measurement.EndedAt.IsZero() {
			fd.to = c.offset(mm.Measurement.EndedAt)
		}
	}
	if from != nil {
		fd.goOn(from)
	} else {
		fd.baseline(mm)
	}
	fd.beforeLoad()
	fd.load()
	fd.estimateCapture()
	fd.profileAndKV()
	fd.capture()
	fd.benchmark()
	fd.end(mm)
	fd.order()
	fd.p.tell()
	return fd.p
}

// goOn takes over the levels that the engine reached in its first run.
func (fd *finder) goOn(from *course) {
	fd.p.shared, fd.p.estimated, fd.p.graphs = true, from.estimated, from.graphs
	for _, l := range []struct{ to, from **point }{
		{&fd.p.baseline, &from.baseline}, {&fd.p.context, &from.context},
		{&fd.p.nccl, &from.nccl}, {&fd.p.loaded, &from.loaded},
		{&fd.p.profiled, &from.profiled},
		{&fd.p.kvBase, &from.kvBase}, {&fd.p.kv, &from.kv}, {&fd.p.captured, &from.captured},
	} {
		if *l.from != nil {
			*l.to = &point{at: fd.from, level: (*l.from).level}
		}
	}
}

func (fd *finder) start(p runner.Phase, at, uncertainty time.Duration) {
	fd.p.bounds[p] = bound{at: at, uncertainty: uncertainty, ok: true}
}

// step is how far the sample after a point lies: the uncertainty of what is
// read from two samples.
func (fd *finder) step(at time.Duration) time.Duration {
	i := fd.t.mem.index(at)
	if i < 0 || i+1 >= len(fd.t.mem.spans) {
		return 0
	}
	next := fd.t.mem.spans[i+1].from
	if sp := fd.t.mem.spans[i]; at < sp.to && sp.n > 1 {
		next = min(next, at+(sp.to-sp.from)/time.Duration(sp.n-1))
	}
	return next - at
}

func (fd *finder) level(at time.Duration) *point {
	if p, ok := fd.t.mem.at(at); ok {
		return &p
	}
	return nil
}

// steady returns the level at a moment if the memory stood still around it: a
// sample beside it agrees. Where samples lie further apart than what the run
// does between them, no level can be told, and none is.
func (fd *finder) steady(at time.Duration) *point {
	p := fd.level(at)
	if p == nil {
		return nil
	}
	spans, i := fd.t.mem.spans, fd.t.mem.index(at)
	next := i+1 < len(spans) && abs(spans[i].level-spans[i+1].level) < notable
	switch {
	case next:
		return p
	case at-p.at > stale:
		return nil
	case spans[i].n >= 2, i > 0 && abs(spans[i].level-spans[i-1].level) < notable:
		return p
	}
	return nil
}

func (fd *finder) baseline(mm *runner.Measured) {
	fd.start(runner.PhaseBaseline, min(fd.c.first, fd.from), 0)
	fd.start(runner.PhaseEngineInit, fd.from, lineLag)
	switch first, ok := fd.t.mem.at(fd.from); {
	case ok:
		fd.p.baseline = &first
	case fd.c.host:
		fd.p.baseline = &point{at: fd.from} // a process tree that is not there yet holds nothing
	default:
		if used, ok := reading(mm.Baseline, fd.t.gpu); ok {
			fd.p.baseline = &point{at: fd.from, level: used}
		} else if !fd.t.mem.empty() && fd.t.mem.spans[0].from <= fd.from+beforeContext {
			fd.p.baseline = &point{at: fd.t.mem.spans[0].from, level: fd.t.mem.spans[0].level}
		}
	}
}

// reading takes the memory in use from a full reading of the GPU tools.
func reading(d *runner.DetailedGPUMetrics, gpu int32) (int64, bool) {
	if d == nil {
		return 0, false
	}
	for i := range d.GPUs {
		if int32(d.GPUs[i].GPUID) == gpu && d.GPUs[i].VRAMUsedMB != nil {
			return int64(*d.GPUs[i].VRAMUsedMB * (1 << 20)), true
		}
	}
	return 0, false
}

// beforeLoad finds the level at which loading starts: the CUDA context, and
// with several GPUs NCCL and the custom all-reduce on top of it.
func (fd *finder) beforeLoad() {
	ls, le := fd.m.first(runner.EventLoadStart, fd.t.rank), fd.m.first(runner.EventLoadEnd, fd.t.rank)
	if !ls.present && !le.present {
		return
	}
	if !ls.present { // older logs: the end, less what loading took
		ls = moment{lo: le.lo - le.took, at: le.at - le.took, hi: le.hi - le.took, placed: le.placed, present: true}
	}
	before := fd.settled(ls, sustained)
	fd.start(runner.PhaseLoad, ls.at, ls.uncertainty())
	if before == nil || fd.c.host {
		return
	}
	fd.p.context = before
	if fd.f.world < 2 {
		return
	}
	fd.p.nccl, fd.p.context = before, nil
	for _, r := range fd.t.mem.rises(fd.from, before.at, 32<<20, 50*time.Millisecond) {
		if r.bytes() >= bigContext {
			fd.p.context = &r.after
			return
		}
	}
}

// load finds the level once the weights and what the runner allocates with
// them are there, before profiling.
func (fd *finder) load() {
	le := fd.m.first(runner.EventLoadEnd, fd.t.rank)
	if !le.present {
		return
	}
	fd.start(runner.PhaseProfile, le.at, le.uncertainty())
	if !le.placed && !fd.c.host { // the runner's buffers follow the line: 0.1 s after it they are there
		fd.p.weights = fd.steady(le.at)
	}
	pe, ps := fd.m.first(runner.EventProfileEnd, fd.t.rank), fd.m.first(runner.EventProfileStart, fd.t.rank)
	// the first line of compiling comes after tracing, which allocates nothing;
	// without compiling it comes after profiling, and tells nothing here
	if ps.present && ps.lo > le.hi && (!pe.present || ps.at+beforeProfiling < pe.at) {
		fd.p.loaded = fd.after(fd.steady(ps.lo), le.lo)
		return
	}
	before := fd.p.nccl
	if before == nil {
		before = fd.p.context
	}
	if before != nil && fd.f.weights > 0 {
		until := fd.profileLimit(le)
		floor := before.level + fd.f.weights + fd.f.buffers*8/10 - notable
		if sp, ok := fd.t.mem.plateau(le.lo, until, stillness, floor); ok {
			fd.p.loaded = &point{at: min(sp.to, until), level: sp.level}
			return
		}
	}
	fd.loadedAt(le)
}

// profileLimit is the first moment that profiling lies before for certain.
func (fd *finder) profileLimit(le moment) time.Duration {
	until := fd.to
	for _, k := range []runner.EventKind{runner.EventProfileEnd, runner.EventKVReady, runner.EventEngineReady,
		runner.EventError} {
		if e := fd.m.first(k, fd.t.rank); e.present && e.hi > le.lo {
			until = min(until, e.hi)
			break
		}
	}
	return until
}

// loadedAt takes the level at the line that ends loading, where no rise lies near it.
func (fd *finder) loadedAt(le moment) {
	fd.p.loaded = fd.after(fd.steady(le.at), le.lo)
	if most, ok := fd.t.mem.highest(le.at, le.hi); ok && fd.p.loaded != nil && most.level-fd.p.loaded.level >= notable {
		fd.p.loaded = nil // the line lies somewhere around a rise
	}
}

// after drops a level whose sample was taken before a moment that it must
// follow.
func (fd *finder) after(p *point, since time.Duration) *point {
	if p == nil || p.at < since {
		return nil
	}
	return p
}

// profileAndKV finds the peak of profiling and the allocation of the KV cache,
// the largest rise after vLLM has said how much there is.
func (fd *finder) profileAndKV() {
	pe, kr := fd.m.first(runner.EventProfileEnd, fd.t.rank), fd.m.first(runner.EventKVReady, fd.t.rank)
	if !kr.present {
		fd.profilePeak(pe)
		return
	}
	lo, hi := kr.lo, kr.hi+3*time.Second
	if pe.present {
		lo = min(lo, pe.lo)
	}
	if er := fd.m.first(runner.EventEngineReady, fd.t.rank); er.present {
		hi = min(hi, er.hi)
	}
	if cs := fd.m.first(runner.EventCaptureStart, fd.t.rank); cs.present && cs.hi > kr.hi {
		hi = min(hi, cs.hi)
	}
	if ce := fd.m.final(runner.EventCaptureEnd, fd.t.rank); ce.present && ce.hi > kr.hi {
		hi = min(hi, ce.lo)
	}
	least := int64(notable)
	if fd.f.kv > 0 { // a small cache may come in small steps
		least = max(allocatorPage, min(least, fd.f.kv/16))
	}
	jump, found := rise{}, false
	for _, r := range fd.t.mem.rises(lo, hi, least, fd.t.mem.gap()) {
		if !found || r.bytes() > jump.bytes() {
			jump, found = r, true
		}
	}
	if !found || fd.steady(jump.after.at) == nil {
		fd.profilePeak(pe)
		fd.start(runner.PhaseKVAlloc, kr.at, kr.uncertainty())
		return
	}
	fd.p.kv, fd.p.kvJump = &jump.after, jump.bytes()
	begin := kr.at
	if kr.placed { // by the sample at the allocation's end
		begin = min(begin, jump.before.at)
	}
	fd.start(runner.PhaseKVAlloc, begin, kr.uncertainty())
	fd.kvBase(jump)
}

// captures are the ends of graph captures on one rank, in their order: of one
// for an estimate, which comes before the KV cache, and of the real one.
func (fd *finder) captures() (estimate, real moment) {
	first, last := fd.m.first(runner.EventCaptureEnd, fd.t.rank), fd.m.final(runner.EventCaptureEnd, fd.t.rank)
	kr := fd.m.first(runner.EventKVReady, fd.t.rank)
	// lines arrive in the order in which they were printed
	if first.present && (!kr.present || first.at < kr.at) {
		estimate = first
	}
	if last.present && kr.present && last.at >= kr.at {
		real = last
	}
	return estimate, real
}

// estimateCapture finds where profiling ended and a capture for an estimate
// began: at the low between the two, when torch has given back what profiling
// reserved. The log says nothing there until the first graph is captured.
func (fd *finder) estimateCapture() {
	end, _ := fd.captures()
	if !end.present {
		return
	}
	fd.p.estimated = true
	begin := end
	begin.at, begin.lo = end.at-end.took, end.lo-end.took-roundedSecond
	if cs := fd.m.first(runner.EventCaptureStart, fd.t.rank); cs.present && cs.at < end.at {
		begin = cs
	}
	at, unsure := begin.at, begin.uncertainty()
	if low, ok := fd.lowBefore(begin.at); ok {
		at, unsure = low.at, fd.step(low.at)
		fd.p.profiled = fd.steady(low.at)
		if l := fd.p.loaded; l != nil && abs(low.level-l.level) < notable { // it cannot lie below
			fd.p.profiled = &low
		}
	}
	fd.start(runner.PhaseEstimateCapture, at, unsure)
	until := fd.to
	if kr := fd.m.first(runner.EventKVReady, fd.t.rank); kr.present {
		until = kr.lo
	}
	if p, ok := fd.t.mem.highest(at, until); ok {
		fd.p.estimate = &p
	}
}

// lowBefore goes back from a moment to the lowest level before the memory was
// higher by more than notable: the end of the last fall.
func (fd *finder) lowBefore(at time.Duration) (point, bool) {
	spans := fd.t.mem.spans
	i := fd.t.mem.index(at)
	if i < 0 {
		return point{}, false
	}
	low := i
	for ; i >= 0 && spans[i].to >= fd.p.bounds[runner.PhaseProfile].at; i-- {
		if spans[i].level < spans[low].level {
			low = i
		}
		if spans[i].level >= spans[low].level+notable && i < low {
			return point{at: min(spans[low].to, at), level: spans[low].level}, true
		}
	}
	return point{}, false
}

// profilePeak is the peak of a run that has no KV allocation to end profiling.
func (fd *finder) profilePeak(pe moment) {
	if fd.p.loaded == nil {
		return
	}
	to := fd.to
	if pe.present {
		to = pe.lo
	}
	if b := fd.p.bounds[runner.PhaseEstimateCapture]; b.ok {
		to = min(to, b.at)
	}
	if p, ok := fd.t.mem.highest(fd.p.loaded.at, to); ok {
		fd.p.peak = &p
	}
}

// kvBase decides which level the KV cache was put on. Between profiling and
// the allocation torch gives back what profiling reserved: where the samples
// show the whole fall, its end is the base; where they are too far apart, the
// level after loading is, with the V2 runner, the nearest one that was seen.
func (fd *finder) kvBase(jump rise) {
	before := jump.before
	if fd.p.loaded == nil || fd.p.loaded.at > before.at {
		return // what profiling still holds of before cannot be told
	}
	if fd.p.estimated {
		fd.profilePeak(moment{})
		fd.estimateBase(jump)
		return
	}
	fd.p.kvBase, fd.p.fallSeen = &before, true
	peak, ok := fd.t.mem.highest(fd.p.loaded.at, before.at)
	if !ok {
		return
	}
	fd.p.peak = &peak
	if peak.level-fd.p.loaded.level < notable {
		return
	}
	fell := peak.level-before.level >= notable
	near := before.level <= fd.p.loaded.level+nearLoaded
	if i := fd.t.mem.index(before.at); fell && !near && i >= 0 {
		sp := fd.t.mem.spans[i] // one sample at a level may be on the way down
		near = sp.n >= 3 || sp.n == 2 && jump.after.at-sp.from >= stillness
	}
	switch {
	case fell && near:
	case fd.f.v2:
		fd.p.kvBase, fd.p.fallSeen = fd.p.loaded, false
	default: // the V1 runner keeps part of what profiling allocated: no level that was seen is the base
		fd.p.kvBase, fd.p.fallSeen = nil, false
	}
}

// estimateBase decides which level the KV cache was put on after a capture for
// an estimate, which leaves some of its memory behind: the sample before it, if
// the graphs were seen to be given back. Else it lies somewhere between the level
// after profiling and that sample.
func (fd *finder) estimateBase(jump rise) {
	end, _ := fd.captures()
	before := jump.before
	most, ok := fd.t.mem.highest(end.at, before.at)
	back := ok && most.level-before.level >= notable
	if low := fd.p.profiled; low != nil && before.at > end.at && abs(before.level-low.level) < notable {
		back, before.off = true, abs(before.level-low.level)
	}
	if back {
		fd.p.kvBase, fd.p.fallSeen = &before, true
		return
	}
	fd.p.kvBase, fd.p.fallSeen = nil, false
}

// capture finds the start and the end of graph capture. Its phases follow from
// the log also where no sample tells the level of the KV cache.
func (fd *finder) capture() {
	kr := fd.m.first(runner.EventKVReady, fd.t.rank)
	if fd.p.shared || !kr.present && fd.p.kv == nil {
		return
	}
	since := kr.at
	if fd.p.kv != nil {
		since = fd.p.kv.at
	}
	_, ce := fd.captures()
	if !ce.present {
		fd.start(runner.PhaseEngineWarmup, since, fd.step(since))
		return
	}
	fd.p.graphs = true
	fd.p.captured = fd.after(fd.settled(ce, sustained), since)
	fd.start(runner.PhaseEngineWarmup, ce.at, ce.uncertainty())
	end := fd.p.bounds[runner.PhaseEngineWarmup].at
	begin, unsure := fd.captureStart(kr, ce, min(since, end), end)
	fd.start(runner.PhaseCapture, begin, unsure)
	most, ok := fd.t.mem.highest(since, begin)
	if ok && fd.p.kv != nil && most.level-fd.p.kv.level >= notable {
		fd.p.kernels = &most
		fd.start(runner.PhaseKernelWarmup, since, fd.step(since))
	}
}

// captureStart finds where a capture began whose start stands in no line: the line at
// its end says how long it took, in whole seconds. It begins by giving back what
// was reserved before it, so that the first large fall of a level that stood, else the
// first change of the level, is its start. Without a duration it is the first rise after the KV cache.
func (fd *finder) captureStart(kr, ce moment, since, end time.Duration) (begin, unsure time.Duration) {
	if cs := fd.m.final(runner.EventCaptureStart, fd.t.rank); cs.present && cs.at < end && cs.hi >= kr.lo {
		return cs.at, cs.uncertainty()
	}
	if ce.took <= 0 || ce.took >= end-since {
		if r := fd.t.mem.rises(since, end, 1, 0); len(r) > 0 {
			since = r[0].before.at
		}
		return since, fd.step(since)
	}
	begin, unsure = max(since, ce.at-ce.took), roundedSecond+ce.uncertainty()
	lo, hi := max(since, begin-unsure), begin+unsure+collecting
	change, fall := rise{}, rise{}
	fd.t.mem.within(lo, hi, func(i int, sp span) bool {
		if sp.from <= lo || i == 0 {
			return true
		}
		was := fd.t.mem.spans[i-1]
		r := rise{point{at: was.to, level: was.level}, point{at: sp.from, level: sp.level}}
		if change.after.at == 0 && abs(r.bytes()) >= notable {
			change = r
		}
		if r.bytes() <= -sustained && was.to-was.from >= stillness {
			fall = r
		}
		return fall.after.at == 0
	})
	for _, r := range []rise{change, fall} {
		if r.after.at > 0 {
			begin, unsure = r.before.at, r.after.at-r.before.at
		}
	}
	return begin, unsure
}

// settled is the level at a line that arrived. What the line tells of came
// before it, within the distance of two samples too: the sample after it
// counts, if the memory stands still there and has risen by less than most.
// It also counts where it is lower, because the sample before may stand on
// scratch memory that is already given back.
//
// A line that was placed by the samples lies at the one that tells its level.
func (fd *finder) settled(m moment, most int64) *point {
	at := m.at
	if m.placed {
		return fd.steady(at)
	}
	p := fd.level(at)
	spans, i := fd.t.mem.spans, fd.t.mem.index(at)
	if p == nil || i+1 >= len(spans) || spans[i].to > at {
		return fd.steady(at)
	}
	next := spans[i+1]
	if next.from-at <= together && next.level-p.level < most && fd.steady(next.from) != nil {
		return &point{at: next.from, level: next.level}
	}
	return fd.steady(at)
}

// benchmark finds engine ready, the warm-up of the benchmark, and the measured
// iterations.
func (fd *finder) benchmark() {
	er, ws := fd.m.first(runner.EventEngineReady, fd.t.rank), fd.m.first(runner.EventWarmupStart, fd.t.rank)
	if !er.present && !ws.present {
		return
	}
	begin := ws
	if !ws.present {
		begin = er
	}
	at := begin.at
	if fd.p.kv != nil {
		at = max(at, fd.p.kv.at)
	}
	fd.p.ready = fd.level(at)
	if begin.placed {
		fd.p.ready = fd.after(fd.p.ready, fd.p.bounds[runner.PhaseEngineWarmup].at)
	}
	if !fd.m.has(runner.EventWarmupStart) && fd.f.latency == nil && !fd.m.has(runner.EventMeasureStart) {
		return // ready, but no benchmark came
	}
	fd.start(runner.PhaseBenchWarmup, at, begin.uncertainty())
	fd.measure(at)
}

// iterations are what the measured iterations took.
func (fd *finder) iterations() time.Duration {
	if fd.f.latency == nil {
		return 0
	}
	var sum float64
	for _, s := range fd.f.latency.LatenciesS {
		sum += s
	}
	return time.Duration(sum * float64(time.Second))
}

func (fd *finder) measure(ready time.Duration) {
	ms, me := fd.m.first(runner.EventMeasureStart, fd.t.rank), fd.m.final(runner.EventMeasureEnd, fd.t.rank)
	end, unc, ok := me.at, me.uncertainty(), me.present
	if !ok && fd.f.latency != nil {
		end, unc, ok = fd.lastWork(ready)
	}
	start, sunc, known := ms.at, ms.uncertainty(), ms.present
	if total := fd.iterations(); !known && ok && total > 0 {
		start, sunc, known = end-total, unc, true
	}
	if known {
		start = max(start, ready)
		fd.start(runner.PhaseMeasure, start, sunc)
		fd.p.warmed = fd.level(start)
		if begun := fd.p.bounds[runner.PhaseMeasure]; !begun.live() {
			fd.p.warmed = fd.after(fd.p.warmed, ready)
		}
	}
	if ok {
		fd.start(runner.PhaseTeardown, end, unc)
		fd.p.measured = fd.after(fd.level(end), start)
	}
}

// lastWork is when the measured iterations ended, where no line arrived: the
// last sample at work, or the stamp of the shutdown.
func (fd *finder) lastWork(ready time.Duration) (time.Duration, time.Duration, bool) {
	limit := fd.to
	sd := fd.m.first(runner.EventShutdown, fd.t.rank)
	if sd.present {
		limit = min(limit, sd.hi)
	}
	for i := len(fd.t.busy) - 1; i >= 0; i-- {
		if b := fd.t.busy[i]; b.from > ready && b.from <= limit {
			return min(b.to, limit), utilizationWindow, true
		}
	}
	if sd.present {
		return sd.at, sd.uncertainty(), true
	}
	return fd.to, 2 * time.Second, !fd.c.host || fd.to > ready
}

// end finds what teardown leaves.
func (fd *finder) end(mm *runner.Measured) {
	if !fd.p.bounds[runner.PhaseTeardown].ok {
		for _, k := range []runner.EventKind{runner.EventError, runner.EventShutdown} {
			if e := fd.m.first(k, fd.t.rank); e.present {
				fd.start(runner.PhaseTeardown, min(e.at, fd.to), e.uncertainty())
				break
			}
		}
	}
	if fd.c.last > fd.to {
		fd.start(runner.PhaseFinal, fd.to, lineLag)
	}
	if used, ok := reading(mm.Final, fd.t.gpu); ok {
		fd.p.left, fd.p.leftRead = &point{at: fd.c.last, level: used}, true
	}
	last := fd.level(fd.c.last)
	if last == nil || fd.p.left != nil && fd.c.last <= fd.to {
		return
	}
	// a sample from before the engine's end tells only that the memory was gone by then
	if fd.c.last > fd.to || last.level <= fd.t.mem.peak/10 && fd.c.last >= fd.to-time.Second {
		fd.p.left, fd.p.leftRead = last, false
	}
}

// order keeps each phase from starting before the one before it.
func (fd *finder) order() {
	var last time.Duration
	first := true
	for _, ph := range runner.Phases() {
		b := fd.p.bounds[ph]
		if !b.ok {
			continue
		}
		if !first && b.at < last {
			b.uncertainty = max(b.uncertainty, last-b.at)
			b.at = last
			fd.p.bounds[ph] = b
		}
		last, first = b.at, false
	}
}

// phaseAt is the phase of a moment; baseline before the first.
func (p *course) phaseAt(at time.Duration) runner.Phase {
	phase := runner.PhaseBaseline
	for _, ph := range runner.Phases() {
		if b := p.bounds[ph]; b.ok && b.at <= at {
			phase = ph
		}
	}
	return phase
}

// before reports whether a moment lies before a phase that the run went through.
func (p *course) before(at time.Duration, ph runner.Phase) bool {
	b := p.bounds[ph]
	return b.ok && at < b.at
}

// stretches lists the phases that the run went through, with their ends.
func (p *course) stretches(end time.Duration) []phaseStretch {
	var out []phaseStretch
	for _, ph := range runner.Phases() {
		b := p.bounds[ph]
		if !b.ok {
			continue
		}
		if k := len(out); k > 0 {
			out[k-1].to = b.at
		}
		out = append(out, phaseStretch{phase: ph, from: b.at, to: max(end, b.at), uncertainty: b.uncertainty})
	}
	return out
}

// A phaseStretch is one phase of one GPU.
type phaseStretch struct {
	phase       runner.Phase
	from, to    time.Duration
	uncertainty time.Duration
}

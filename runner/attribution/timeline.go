package attribution

import (
	"math"
	"slices"
	"sort"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

const (
	thinBuckets = 499    // four points each: at most 2,000 with room to spare
	maxDistinct = 65_536 // levels that a histogram keeps apart

	shortestEnergy = 200 * time.Millisecond // energy counters move every 100 ms
	longestUnread  = 2 * time.Second        // power that was not read for longer is not integrated over
	// shortStretch is up to which the mean of the instantaneous power serves better
	// than a counter that is read every 0.5 s.
	shortStretch = 5 * time.Second
	// farReading is the largest share of a stretch that may lie between the two
	// readings of a counter around one of its ends.
	farReading      = 0.1
	shortestAverage = 5 * time.Second // a power that is an average over a second says nothing of less
)

// A histogram counts the samples at each level. It is exact while it holds at
// most maxDistinct levels (memory moves in steps of 2 MiB, so that 80 GiB have
// 40,960); beyond, levels are rounded to 1 MiB and so on, doubling.
type histogram struct {
	counts   map[int64]int64
	quantum  int64
	n        int64
	sum      float64
	min, max int64
}

func (h *histogram) add(v int64) {
	if h.counts == nil {
		h.counts, h.quantum, h.min, h.max = map[int64]int64{}, 1, v, v
	}
	h.n++
	h.sum += float64(v)
	h.min, h.max = min(h.min, v), max(h.max, v)
	h.counts[v/h.quantum*h.quantum]++
	for len(h.counts) > maxDistinct {
		h.quantum = max(1<<20, 2*h.quantum)
		coarse := make(map[int64]int64, maxDistinct/2)
		for level, n := range h.counts {
			coarse[level/h.quantum*h.quantum] += n
		}
		h.counts = coarse
	}
}

// quantiles are interpolated between the two nearest samples, as numpy, pandas
// and DuckDB's quantile_cont do.
func (h *histogram) quantiles(at ...float64) []float64 {
	levels := make([]int64, 0, len(h.counts))
	for l := range h.counts {
		levels = append(levels, l)
	}
	slices.Sort(levels)
	out := make([]float64, len(at))
	for k, q := range at {
		pos := q * float64(h.n-1)
		lo, hi := int64(math.Floor(pos)), int64(math.Ceil(pos))
		var seen int64
		var a, b float64
		gotA := false
		for _, l := range levels {
			seen += h.counts[l]
			if !gotA && seen > lo {
				a, gotA = float64(l), true
			}
			if seen > hi {
				b = float64(l)
				break
			}
		}
		out[k] = a + (b-a)*(pos-float64(lo))
	}
	return out
}

func (h *histogram) stats() runner.TimelineStats {
	s := runner.TimelineStats{NumSamples: h.n}
	if h.n == 0 {
		return s
	}
	in := func(v float64) *float64 { v /= runner.GiB; return &v }
	q := h.quantiles(0.5, 0.95)
	s.MinGB, s.MaxGB, s.MeanGB = in(float64(h.min)), in(float64(h.max)), in(h.sum/float64(h.n))
	s.MedianGB, s.P95GB = in(q[0]), in(q[1])
	return s
}

// A gauge is the least, the most and the mean of a figure.
type gauge struct {
	n             int64
	min, max, sum float64
}

func (g *gauge) add(v float64) {
	if g.n == 0 || v < g.min {
		g.min = v
	}
	if g.n == 0 || v > g.max {
		g.max = v
	}
	g.n++
	g.sum += v
}

func (g *gauge) get() (least, most, mean *float64) {
	if g.n == 0 {
		return nil, nil, nil
	}
	a, b, c := g.min, g.max, g.sum/float64(g.n)
	return &a, &b, &c
}

// A meter gives an accumulating figure (energy) at moments between samples, by
// a straight line between the two readings around each.
type meter struct {
	marks   []time.Duration // moments asked for, ascending
	values  []float64       // at the marks; NaN: unknown
	apart   []time.Duration // of the readings around each mark
	next    int
	seen    bool
	at      time.Duration
	value   float64
	gaps    []stretch // where nothing was read for too long
	limited bool
}

func newMeter(marks []time.Duration) *meter {
	m := &meter{marks: marks, values: make([]float64, len(marks)), apart: make([]time.Duration, len(marks))}
	for i := range m.values {
		m.values[i] = math.NaN()
	}
	return m
}

// reach takes the next reading; a counter that has not moved is no reading.
func (m *meter) reach(at time.Duration, value float64) {
	if !m.seen {
		m.seen = true
		for m.next < len(m.marks) && m.marks[m.next] <= at {
			if at-m.marks[m.next] <= time.Second {
				m.values[m.next] = value
			}
			m.next++
		}
		m.at, m.value = at, value
		return
	}
	if value == m.value {
		return
	}
	for m.next < len(m.marks) && m.marks[m.next] <= at {
		share := float64(m.marks[m.next]-m.at) / float64(at-m.at)
		m.values[m.next], m.apart[m.next] = m.value+share*(value-m.value), at-m.at
		m.next++
	}
	m.at, m.value = at, value
}

// finish sets the marks after the last reading, if it is near enough.
func (m *meter) finish(last time.Duration) {
	for ; m.seen && m.next < len(m.marks); m.next++ {
		if m.marks[m.next]-last <= time.Second {
			m.values[m.next] = m.value
		}
	}
}

func (m *meter) gap(from, to time.Duration) {
	if len(m.gaps) < maxSpans {
		m.gaps = append(m.gaps, stretch{from: from, to: to})
	} else {
		m.limited = true
	}
}

// between is the figure's growth from one mark to another, and how far apart the
// readings around a mark are.
func (m *meter) between(from, to time.Duration) (grown float64, apart time.Duration, ok bool) {
	a := sort.Search(len(m.marks), func(i int) bool { return m.marks[i] >= from })
	b := sort.Search(len(m.marks), func(i int) bool { return m.marks[i] >= to })
	if a >= len(m.marks) || b >= len(m.marks) || m.limited {
		return 0, 0, false
	}
	for _, g := range m.gaps {
		if g.from < to && g.to > from {
			return 0, 0, false
		}
	}
	v := m.values[b] - m.values[a]
	return v, max(m.apart[a], m.apart[b]), !math.IsNaN(v) && v >= 0
}

// A phaseSum gathers one phase of one GPU.
type phaseSum struct {
	phaseStretch
	mem         gauge
	first, last int64
	power       gauge
}

// A lane is the second pass over one GPU.
type lane struct {
	t        *track
	p        *course
	phases   []phaseSum
	k        int // current phase
	counter  *meter
	integral *meter
	lastAt   time.Duration // of the last power
	lastP    float64
	hasP     bool
	joules   float64

	window            histogram
	power, temp, util gauge // of the window
	tick              tickGPU
}

type tickGPU struct {
	filled bool
	s      runner.Sample
}

// A tickSum is the memory of all GPUs at one tick; each is nil where there is none.
type tickSum struct {
	at   time.Duration
	sum  int64
	each []int64
}

// A gathering is the second pass over the samples, with the phases known.
type gathering struct {
	c        *collection
	from, to time.Duration // the window
	lanes    []*lane

	window, whole     histogram
	power, temp, util gauge

	top          tickSum // the highest; of a failed run what two on end show
	stood        bool    // the run failed: what one tick alone shows, another run may not
	last, before tickSum
	thin         thinning
	complete     int64
}

func newGathering(c *collection, courses []*course, from, to time.Duration, stood bool) *gathering {
	g := &gathering{c: c, from: from, to: to, stood: stood}
	for _, p := range courses {
		l := &lane{t: p.track, p: p}
		marks := []time.Duration{from, to}
		for _, st := range p.stretches(c.last + time.Microsecond) {
			l.phases = append(l.phases, phaseSum{phaseStretch: st})
			marks = append(marks, st.from, st.to)
		}
		slices.Sort(marks)
		marks = slices.Compact(marks)
		l.counter, l.integral = newMeter(marks), newMeter(marks)
		g.lanes = append(g.lanes, l)
	}
	g.thin = thinning{from: c.first, width: max(1, (c.last-c.first)/thinBuckets+1)}
	return g
}

// gather reads the samples a second time.
func (g *gathering) gather(r runner.SampleReader) error {
	if r == nil {
		return nil
	}
	err := r.ReadSamples(func(batch []runner.Sample) error {
		for i := range batch {
			g.take(&batch[i])
		}
		return nil
	})
	g.flushTick()
	g.thin.flush()
	for _, l := range g.lanes {
		l.counter.finish(l.t.lastAt)
		l.integral.finish(l.t.lastAt)
	}
	return err
}

func (g *gathering) take(s *runner.Sample) {
	for _, l := range g.lanes {
		if l.t.gpu != s.GPU {
			continue
		}
		if l.tick.filled {
			g.flushTick()
		}
		l.tick = tickGPU{filled: true, s: *s}
		l.take(g, s)
		return
	}
}

func (l *lane) take(g *gathering, s *runner.Sample) {
	for l.k+1 < len(l.phases) && s.Offset >= l.phases[l.k+1].from {
		l.k++
	}
	inside := s.Offset >= g.from && s.Offset <= g.to
	var ph *phaseSum
	if l.k < len(l.phases) && s.Offset >= l.phases[l.k].from {
		ph = &l.phases[l.k]
	}
	if v, ok := g.c.memory(s); ok {
		if ph != nil {
			if ph.mem.n == 0 {
				ph.first = v
			}
			ph.last = v
			ph.mem.add(float64(v))
		}
		if inside {
			l.window.add(v)
		}
	}
	if s.Has&runner.HasEnergy != 0 {
		l.counter.reach(s.Offset, s.Energy)
	}
	if s.Has&runner.HasPower != 0 {
		l.takePower(s, ph, inside)
	}
	if inside {
		l.takeRest(s)
	}
}

func (l *lane) takeRest(s *runner.Sample) {
	if s.Has&runner.HasTemperature != 0 {
		l.temp.add(s.Temperature)
	}
	if s.Has&runner.HasUtilization != 0 {
		l.util.add(float64(s.Utilization))
	}
}

func (l *lane) takePower(s *runner.Sample, ph *phaseSum, inside bool) {
	if ph != nil {
		ph.power.add(s.Power)
	}
	if inside {
		l.power.add(s.Power)
	}
	if dt := s.Offset - l.lastAt; l.hasP {
		if dt > longestUnread {
			l.integral.gap(l.lastAt, s.Offset)
		}
		l.joules += (l.lastP + s.Power) / 2 * dt.Seconds()
	}
	l.integral.reach(s.Offset, l.joules)
	l.lastAt, l.lastP, l.hasP = s.Offset, s.Power, true
}

// flushTick closes a tick: sums over the GPUs count only where every GPU of
// the run was read in it.
func (g *gathering) flushTick() {
	var mem int64
	var power, util float64
	temp := math.Inf(-1)
	hasMem, hasPower, hasUtil, any := true, true, true, false
	var at time.Duration
	for _, l := range g.lanes {
		if !l.tick.filled {
			hasMem, hasPower, hasUtil = false, false, false
			continue
		}
		any = true
		s := &l.tick.s
		at = max(at, s.Offset)
		v, ok := g.c.memory(s)
		mem, hasMem = mem+v, hasMem && ok
		power, hasPower = power+s.Power, hasPower && s.Has&runner.HasPower != 0
		util, hasUtil = util+float64(s.Utilization), hasUtil && s.Has&runner.HasUtilization != 0
		if s.Has&runner.HasTemperature != 0 {
			temp = max(temp, s.Temperature)
		}
	}
	if !any {
		return
	}
	g.count(at, mem, hasMem)
	if at >= g.from && at <= g.to {
		if hasPower {
			g.power.add(power)
		}
		if hasUtil {
			g.util.add(util / float64(len(g.lanes)))
		}
		if !math.IsInf(temp, -1) {
			g.temp.add(temp)
		}
	}
	if hasMem {
		g.thin.add(thinPoint{at: at, mem: mem, power: power, hasPower: hasPower, temp: temp})
	}
	for _, l := range g.lanes {
		l.tick.filled = false
	}
}

func (g *gathering) count(at time.Duration, mem int64, ok bool) {
	if !ok {
		return
	}
	g.complete++
	g.whole.add(mem)
	if at >= g.from && at <= g.to {
		g.window.add(mem)
	}
	now := tickSum{at: at, sum: mem, each: g.before.each[:0]}
	for _, l := range g.lanes {
		v, _ := g.c.memory(&l.tick.s)
		now.each = append(now.each, v)
	}
	level := now
	if g.stood && g.last.sum < mem {
		level = g.last
	}
	if known := !g.stood || g.last.each != nil; known && (g.top.each == nil || level.sum > g.top.sum) {
		g.top.at, g.top.sum, g.top.each = level.at, level.sum, append(g.top.each[:0], level.each...)
	}
	g.before, g.last = g.last, now
}

// A thinning keeps the first, the lowest, the highest and the last tick of
// each stretch of equal length, so that no peak is lost.
type thinning struct {
	from   time.Duration
	width  time.Duration
	bucket int64
	held   []thinPoint // first, lowest, highest, last
	points []thinPoint
}

type thinPoint struct {
	at          time.Duration
	mem         int64
	power, temp float64
	hasPower    bool
}

func (t *thinning) add(p thinPoint) {
	if b := int64((p.at - t.from) / t.width); b != t.bucket {
		t.flush()
		t.bucket = b
	}
	if len(t.held) == 0 {
		t.held = append(t.held, p, p, p, p)
		return
	}
	if p.mem < t.held[1].mem {
		t.held[1] = p
	}
	if p.mem > t.held[2].mem {
		t.held[2] = p
	}
	t.held[3] = p
}

func (t *thinning) flush() {
	slices.SortFunc(t.held, func(a, b thinPoint) int { return int(a.at - b.at) })
	for i, p := range t.held {
		if i == 0 || p.at != t.held[i-1].at {
			t.points = append(t.points, p)
		}
	}
	t.held = t.held[:0]
}

// phaseAt is the phase of the first GPU at a moment.
func (l *lane) phaseAt(at time.Duration) runner.Phase {
	i := sort.Search(len(l.phases), func(i int) bool { return l.phases[i].from > at }) - 1
	if i < 0 {
		return runner.PhaseBaseline
	}
	return l.phases[i].phase
}

package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/sweep"
)

// A Lane is what a run has for itself while others go on beside it.
type Lane struct {
	Number int      // from 1
	Of     int      // lanes
	CPUs   []int    // that the engine may use; empty: all
	Env    []string // NAME=value of the engine: ports, threads, temporary files
}

// A lane takes units from the queue, one after another, each on GPUs that nobody
// else of the execution uses meanwhile.
type lane struct {
	*executor
	number  int
	place   *Lane // of the unit at hand; nil where there is one lane
	unit    *unit
	shared  SharedEngine
	reading reading
}

// A unit is what stays in one lane: a run, or the runs that one engine serves.
type unit struct {
	runs    []due
	insp    Inspector
	ranks   int      // GPUs that it needs
	devices []Device // that it has, while it runs
	kind    string   // engines of a kind compile the same; "": nothing is compiled
	passed  int      // how often a later one was preferred for want of GPUs
}

// A gpuKey names a GPU among those of all inspectors.
type gpuKey struct {
	insp  Inspector
	index int
}

// units cuts the queue. With several lanes the units that need the most GPUs come
// first: they would wait the longest for them later.
func (x *executor) units() []*unit {
	var all []*unit
	for i := range x.queue {
		d := &x.queue[i]
		if i > 0 && x.together(&x.queue[i-1], d) {
			last := all[len(all)-1]
			last.runs = append(last.runs, *d)
			continue
		}
		u := &unit{runs: x.queue[i : i+1 : i+1], insp: x.inspector(d.profile), ranks: d.profile.Ranks()}
		if e := d.profile.Settings.EnforceEager; x.lanes > 1 && !orZero(e) {
			u.kind = d.profile.EngineKey()
		}
		all = append(all, u)
	}
	if x.lanes > 1 {
		slices.SortStableFunc(all, func(a, b *unit) int { return cmp.Compare(b.ranks, a.ranks) })
	}
	return all
}

// together reports whether one engine can serve two runs.
func (x *executor) together(a, b *due) bool {
	if a.sweep != b.sweep {
		return false
	}
	e, err := x.Engines(a.profile, 1)
	shared, ok := e.(SharedEngine)
	return err == nil && ok && shared.Shares(a.profile, b.profile)
}

// countLanes finds out how many lanes each sweep admits.
func (x *executor) countLanes(ctx context.Context) error {
	x.lanes = 1
	for _, s := range x.plan.Sweeps {
		n := max(s.Lanes.Count, 1)
		if s.Lanes.Count == sweep.LanesAuto {
			for _, p := range s.Profiles {
				pool, err := x.pool(ctx, x.inspector(p), s)
				if err != nil {
					return err
				}
				n = max(n, len(pool))
			}
		}
		x.limit[s] = n
		x.lanes = max(x.lanes, n)
	}
	x.lanes = min(x.lanes, max(len(x.queue), 1))
	return nil
}

// runAll goes through the queue. It returns an error where the execution cannot
// go on: the other lanes end their runs then.
func (x *executor) runAll(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	if err := x.countLanes(ctx); err != nil {
		return err
	}
	x.pending, x.sum.Remaining, x.sum.Lanes = x.units(), len(x.queue), x.lanes
	stopWaking := context.AfterFunc(ctx, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.changed.Broadcast()
	})
	defer stopWaking()
	errs := make([]error, x.lanes)
	var working sync.WaitGroup
	for i := range errs {
		working.Go(func() {
			l := &lane{executor: x, number: i + 1}
			if errs[i] = l.work(ctx); errs[i] != nil {
				end(fmt.Errorf("lane %d ended the execution: %w", l.number, errs[i]))
			}
		})
	}
	working.Wait()
	return errors.Join(errs...)
}

// work runs units until none is left.
func (l *lane) work(ctx context.Context) error {
	for {
		u, err := l.take(ctx)
		if u == nil {
			return err
		}
		l.unit = u
		if l.lanes > 1 {
			l.place = &Lane{Number: l.number, Of: l.lanes}
			if l.Place != nil {
				l.place = l.Place(l.number, l.lanes, u.devices)
			}
		}
		err = l.runUnit(ctx)
		if l.shared != nil {
			err = errors.Join(err, l.closeShared(context.WithoutCancel(ctx)))
		}
		l.release(u)
		if err != nil {
			return err
		}
	}
}

// runUnit makes the rows of a unit.
func (l *lane) runUnit(ctx context.Context) error {
	for i := range l.unit.runs {
		d := &l.unit.runs[i]
		if ctx.Err() != nil || l.over(d.sweep) || l.leftOut(l.unit) {
			return nil
		}
		var next *due
		if i+1 < len(l.unit.runs) {
			next = &l.unit.runs[i+1]
		}
		stop, err := l.runOne(ctx, *d, next)
		if err != nil {
			return err
		}
		if stop {
			l.locked(func() { l.stopped = true })
			return nil
		}
	}
	return nil
}

// over reports whether a sweep has failed too often, or the execution has ended.
func (x *executor) over(s *sweep.Sweep) (over bool) {
	x.locked(func() { over = x.stopped || x.given[s] })
	return over
}

// leftOut reports whether a GPU of the unit is no longer used.
func (x *executor) leftOut(u *unit) (out bool) {
	x.locked(func() {
		out = slices.ContainsFunc(u.devices, func(d Device) bool { return x.dirty[gpuKey{u.insp, d.Index}] })
	})
	return out
}

func (x *executor) locked(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f()
}

// take waits for a unit that may run, and gives it its GPUs; nil where there is
// none any more.
func (l *lane) take(ctx context.Context) (*unit, error) {
	x := l.executor
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		x.pending = slices.DeleteFunc(x.pending, func(u *unit) bool {
			given := x.given[u.runs[0].sweep]
			if given {
				x.sum.Remaining -= len(u.runs)
			}
			return given
		})
		if ctx.Err() != nil || x.stopped || len(x.pending) == 0 {
			return nil, nil
		}
		u, err := x.choose(ctx)
		if u != nil || err != nil {
			x.changed.Broadcast() // what is eligible for the others has changed
			return u, err
		}
		if len(x.active) == 0 { // nothing will become free
			x.sum.StoppedBy = cmp.Or(x.sum.StoppedBy, "no GPUs are left for the rest")
			return nil, nil
		}
		x.changed.Wait()
	}
}

// choose takes the first unit that may run now. One that was passed over as often
// as there are lanes has its GPUs kept for it: nothing starves.
func (x *executor) choose(ctx context.Context) (*unit, error) {
	var waiting []*unit
	for i, u := range x.pending {
		if u.kind != "" && x.kinds[u.kind] == kindCompiling {
			continue // its like compiles: two that did at once could spoil the cache that they share
		}
		fits, err := x.fit(ctx, u)
		if err != nil {
			return nil, err
		}
		if !fits {
			if u.passed >= x.lanes {
				return nil, nil
			}
			waiting = append(waiting, u)
			continue
		}
		for _, w := range waiting {
			w.passed++
		}
		x.pending = slices.Delete(x.pending, i, i+1)
		x.active[u] = true
		for _, d := range u.devices {
			x.busy[gpuKey{u.insp, d.Index}] = true
		}
		if u.kind != "" && x.kinds[u.kind] == 0 {
			x.kinds[u.kind] = kindCompiling
		}
		return u, nil
	}
	return nil, nil
}

// The states of a kind of engine.
const (
	kindCompiling = 1
	kindCompiled  = 2
)

// fit finds GPUs for a unit: false where it has to wait.
func (x *executor) fit(ctx context.Context, u *unit) (bool, error) {
	d := &u.runs[0]
	limit := x.limit[d.sweep]
	for a := range x.active {
		limit = min(limit, x.limit[a.runs[0].sweep])
	}
	if len(x.active) >= limit {
		return false, nil
	}
	pool, err := x.pool(ctx, u.insp, d.sweep)
	if err != nil {
		return false, err
	}
	want := min(ranksIn(pool, d.profile), len(pool))
	u.devices = nil
	for _, dev := range pool {
		if key := (gpuKey{u.insp, dev.Index}); len(u.devices) < want && !x.busy[key] && !x.dirty[key] {
			u.devices = append(u.devices, dev)
		}
	}
	return len(u.devices) == want, nil
}

// release gives the GPUs of a unit back.
func (x *executor) release(u *unit) {
	x.locked(func() {
		delete(x.active, u)
		for _, d := range u.devices {
			delete(x.busy, gpuKey{u.insp, d.Index})
		}
		if x.kinds[u.kind] == kindCompiling {
			delete(x.kinds, u.kind) // it did not come to its end: the next one compiles
		}
		x.changed.Broadcast()
	})
}

// compiled notes that an engine of the unit's kind is up.
func (l *lane) compiled() {
	if l.unit.kind == "" {
		return
	}
	l.locked(func() {
		if l.kinds[l.unit.kind] == kindCompiling {
			l.kinds[l.unit.kind] = kindCompiled
			l.changed.Broadcast()
		}
	})
}

// leaveOut takes the GPUs of a run out of the pool: others hold them.
func (l *lane) leaveOut() {
	l.locked(func() {
		for _, d := range l.unit.devices {
			l.dirty[gpuKey{l.unit.insp, d.Index}] = true
		}
	})
}

// A Turn is the right of a run to measure. Engines Take it before they warm up;
// the Runner gives it back when measuring or the engine ends. Where a sweep says
// `latency = "alone"` one run of the host has it at a time. All methods may be
// called on a nil Turn.
type Turn struct {
	x         *executor
	exclusive bool

	mu      sync.Mutex
	taken   bool
	waiting time.Time // since when; zero: it does not
	waited  time.Duration
	release func()
	info    LaneInfo
	cpu     [2]float64 // busy and all CPU seconds of the host, at the start

	overlaps bool // another run began to measure meanwhile; under the executor's lock
}

// Exclusive reports whether Take may have to wait.
func (t *Turn) Exclusive() bool { return t != nil && t.exclusive }

// Take waits for the turn. It returns the cause where ctx ends first.
func (t *Turn) Take(ctx context.Context) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	taken := t.taken
	t.taken = true
	t.waiting = time.Now()
	t.mu.Unlock()
	if taken {
		return nil
	}
	release, err := t.wait(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waited, t.waiting = time.Since(t.waiting), time.Time{}
	if err != nil {
		return err
	}
	t.release = release
	t.x.opened(t)
	return nil
}

// wait queues up, first in this process, then with others of the host.
func (t *Turn) wait(ctx context.Context) (release func(), err error) {
	if !t.exclusive {
		return func() {}, nil
	}
	select {
	case t.x.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	others := func() {}
	if t.x.HostTurn != nil {
		if others, err = t.x.HostTurn(ctx); err != nil {
			<-t.x.turns
			return nil, err
		}
	}
	return func() { others(); <-t.x.turns }, nil
}

// Give ends the turn, if it was taken.
func (t *Turn) Give() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.release != nil {
		t.x.closed(t)
		t.release()
		t.release = nil
	}
}

// held is how long the run has waited for its turn, and whether it does now.
func (t *Turn) held() (waited time.Duration, waiting bool) {
	if t == nil {
		return 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waited, !t.waiting.IsZero()
}

// told is what results say of the turn; nil where it was not taken and nothing was
// measured. A benchmark that was over before it could be held up did not measure alone.
func (t *Turn) told(measured bool) *LaneInfo {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.info.Busy == 0 && !(measured && t.exclusive) {
		return nil
	}
	t.info.Busy = max(t.info.Busy, 1)
	t.info.WaitedS = t.waited.Seconds()
	return new(t.info)
}

// opened notes that a run begins to measure.
func (x *executor) opened(t *Turn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.info.Busy, t.info.Alone = len(x.active), len(x.measuring) == 0
	for other := range x.measuring {
		other.overlaps = true
	}
	x.measuring[t] = true
	if x.HostCPU != nil {
		t.cpu[0], t.cpu[1] = x.HostCPU()
	}
}

// closed notes that a run has measured.
func (x *executor) closed(t *Turn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.measuring, t)
	t.info.Alone = t.info.Alone && !t.overlaps
	if x.HostCPU == nil {
		return
	}
	if busy, all := x.HostCPU(); all > t.cpu[1] && busy >= t.cpu[0] {
		t.info.HostCPUPct = new(100 * (busy - t.cpu[0]) / (all - t.cpu[1]))
	}
}

// newTurn is that of a run.
func (l *lane) newTurn(s *sweep.Sweep) *Turn {
	t := &Turn{x: l.executor, exclusive: s.Lanes.Latency != "shared" && (l.lanes > 1 || l.Shard != "")}
	t.info.Number = l.number
	return t
}

// eta is how long the rest will take, seen from a run that has gone on for elapsed.
func (x *executor) eta(elapsed time.Duration) (eta time.Duration) {
	x.locked(func() { eta = x.pace.eta(x.sum.Remaining-len(x.active), x.lanes, elapsed) })
	return eta
}

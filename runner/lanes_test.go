package runner

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/sweep"
)

// A crowd is an Engine that looks at who runs beside it.
type crowd struct {
	t    *testing.T
	took time.Duration

	mu        sync.Mutex
	on        map[int]string // run by GPU
	most      int            // runs at once
	now       int
	order     []string
	measuring atomic.Int32
	together  atomic.Int32 // most that measured at once
	ready     bool         // engines say that they are ready
	starting  map[string]int
	compiled  map[string]bool
	outcome   func(*Job) Outcome
}

func newCrowd(t *testing.T) *crowd {
	return &crowd{t: t, took: 20 * time.Millisecond, on: map[int]string{}, starting: map[string]int{},
		compiled: map[string]bool{}}
}

func (c *crowd) Run(ctx context.Context, job *Job) (*Measurement, error) {
	key := job.Profile.EngineKey()
	c.mu.Lock()
	for _, d := range job.Devices {
		if other := c.on[d.Index]; other != "" {
			c.t.Errorf("GPU %d: %s runs beside %s", d.Index, job.RunID, other)
		}
		c.on[d.Index] = job.RunID
	}
	c.now++
	c.most = max(c.most, c.now)
	c.order = append(c.order, fmt.Sprintf("tp%d", job.Profile.Settings.TensorParallelSize))
	if c.ready && c.starting[key] > 0 && !c.compiled[key] {
		c.t.Errorf("%s starts while the first of its kind compiles", job.RunID)
	}
	c.starting[key]++
	c.mu.Unlock()
	time.Sleep(c.took)
	c.mu.Lock()
	c.compiled[key] = true
	c.mu.Unlock()
	job.Pulse.Ready()
	if err := job.Turn.Take(ctx); err != nil {
		return &Measurement{Outcome: OutcomeInterrupted}, nil
	}
	n := c.measuring.Add(1)
	for old := c.together.Load(); n > old && !c.together.CompareAndSwap(old, n); old = c.together.Load() {
	}
	time.Sleep(c.took)
	c.measuring.Add(-1)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range job.Devices {
		delete(c.on, d.Index)
	}
	c.now--
	m := &Measurement{Outcome: OutcomeOK, Latency: &LatencyStats{AvgS: 1, NIters: 1}}
	if c.outcome != nil {
		m.Outcome = c.outcome(job)
	}
	return m, nil
}

// lanesPlan is a sweep with a profile a number of GPUs, each an engine of its own.
func lanesPlan(lanes int, latency string, ranks ...int64) *sweep.Plan {
	var batches []int64
	for i := range ranks {
		batches = append(batches, int64(i+1))
	}
	p := plan(sweep.Limits{}, batches...)
	p.Sweeps[0].Lanes = sweep.Lanes{Count: lanes, Latency: latency}
	for i, tp := range ranks {
		p.Sweeps[0].Profiles[i].Settings.TensorParallelSize = tp
		p.Sweeps[0].Profiles[i].Settings.MaxModelLen = new(int64(1000 + i))
	}
	return p
}

func runLanes(t *testing.T, c *crowd, gpus int, p *sweep.Plan) (*keeper, *Summary) {
	t.Helper()
	k, m := newKeeper(), &machine{gpus: gpus}
	r := newRunner(k, c)
	r.Inspector = func(*sweep.Profile) Inspector { return m }
	return k, mustRun(t, r, p, Options{})
}

// TestLanes: runs go on side by side on disjoint GPUs, larger ones first, each once,
// and sampled on their own GPUs alone.
func TestLanes(t *testing.T) {
	for _, lanes := range []int{sweep.LanesAuto, 8, 3, 1} {
		c := newCrowd(t)
		k, sum := runLanes(t, c, 8, lanesPlan(lanes, "shared", 1, 1, 1, 1, 1, 1, 4, 1, 1, 8, 1, 1, 2, 1, 1, 1))
		want := map[int]int{sweep.LanesAuto: 8, 8: 8, 3: 3, 1: 1}[lanes]
		if sum.OK != 16 || sum.Lanes != want || c.most > want || want > 1 && c.most < 2 {
			t.Errorf("%d lanes: %+v, %d at once", lanes, sum, c.most)
		}
		if first := c.order[0]; (lanes == 1) != (first == "tp1") {
			t.Errorf("%d lanes: %s was first of %v", lanes, first, c.order)
		}
		for id, samples := range k.samples {
			own := k.results[id].GPUInfo
			for _, s := range samples {
				if !slices.ContainsFunc(own, func(d Device) bool { return d.Index == int(s.GPU) }) {
					t.Errorf("%s has samples of GPU %d", id, s.GPU)
				}
			}
		}
	}
}

// TestNothingStarves: a large run that has to wait is passed over as often as there
// are lanes; then GPUs are kept for it.
func TestNothingStarves(t *testing.T) {
	m := &machine{gpus: 4}
	p := lanesPlan(4, "shared", slices.Repeat([]int64{1}, 40)...)
	p.Sweeps[0].Profiles[1].Settings.TensorParallelSize = 4
	x := newRunner(newKeeper(), nil).executor(p, Options{})
	x.Inspector = func(*sweep.Profile) Inspector { return m }
	x.enqueue(nil)
	if err := x.countLanes(t.Context()); err != nil {
		t.Fatal(err)
	}
	choose := func() *unit {
		t.Helper()
		u, err := x.choose(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, d := range x.queue { // in the plan's order: a small one is there already when the large one comes
		x.pending = append(x.pending, &unit{runs: []due{d}, insp: m, ranks: d.profile.Ranks()})
	}
	running, passed := choose(), 0
	for {
		next := choose()
		if next == nil {
			break
		}
		passed++
		x.release(running)
		running = next
	}
	if passed != 4 {
		t.Errorf("the large run was passed over %d times, want 4", passed)
	}
	x.release(running)
	if next := choose(); next == nil || next.ranks != 4 {
		t.Errorf("all GPUs are free, and %+v runs", next)
	}
}

// TestCompilesAlone: while the first engine of a kind starts, its like wait.
func TestCompilesAlone(t *testing.T) {
	c := newCrowd(t)
	c.ready = true
	p := lanesPlan(4, "shared", 1, 1, 1, 1, 1, 1, 1, 1)
	for i, profile := range p.Sweeps[0].Profiles {
		profile.Settings.MaxModelLen = new(int64(i % 2))
	}
	if _, sum := runLanes(t, c, 4, p); sum.OK != 8 || c.most < 2 {
		t.Errorf("%+v, %d at once", sum, c.most)
	}
}

// TestTurns: alone means that one run at a time measures, and rows say how it was.
func TestTurns(t *testing.T) {
	for _, latency := range []string{"alone", "shared"} {
		c := newCrowd(t)
		k, _ := runLanes(t, c, 4, lanesPlan(4, latency, 1, 1, 1, 1, 1, 1, 1, 1))
		if n := c.together.Load(); (n == 1) != (latency == "alone") {
			t.Errorf("%s: %d measured at once", latency, n)
		}
		beside := 0
		for id, r := range k.results {
			l := r.Run.Lane
			if l == nil || l.Busy < 1 || l.Busy > 4 || l.Number < 1 || l.Number > 4 {
				t.Fatalf("%s: %+v", id, l)
			}
			if !l.Alone {
				beside++
			}
		}
		if (beside == 0) != (latency == "alone") {
			t.Errorf("%s: %d rows say that others measured beside them", latency, beside)
		}
	}
}

// TestWaitingIsNotSlow: the limits of a run do not count its wait for its turn.
func TestWaitingIsNotSlow(t *testing.T) {
	c := newCrowd(t)
	c.took = 100 * time.Millisecond
	p := lanesPlan(8, "alone", 1, 1, 1, 1, 1, 1, 1, 1)
	p.Sweeps[0].Limits = sweep.Limits{Timeout: 700 * time.Millisecond, SilenceTimeout: 700 * time.Millisecond}
	k, sum := runLanes(t, c, 8, p)
	waited := 0.0
	for _, r := range k.results {
		waited = max(waited, r.Run.Lane.WaitedS)
	}
	if sum.OK != 8 || waited < 0.6 {
		t.Errorf("%+v; the longest wait was %.2f s", sum.Outcomes, waited)
	}
}

// TestLimitsOfAllLanes: failures count over all lanes, and GPUs that others hold are
// left out while the other lanes go on.
func TestLimitsOfAllLanes(t *testing.T) {
	c := newCrowd(t)
	c.outcome = func(*Job) Outcome { return OutcomeEngineError }
	p := lanesPlan(4, "shared", slices.Repeat([]int64{1}, 40)...)
	p.Sweeps[0].Limits = sweep.Limits{MaxFailures: 5}
	if _, sum := runLanes(t, c, 4, p); sum.Failed < 5 || sum.Failed > 8 || !strings.Contains(sum.StoppedBy, "max_failures") {
		t.Errorf("max_failures = 5 in 4 lanes: %+v", sum)
	}

	c = newCrowd(t)
	k, m := newKeeper(), &machine{gpus: 3}
	r := newRunner(k, c)
	r.settle = time.Millisecond
	r.Inspector = func(*sweep.Profile) Inspector { return heldGPU{m} }
	p = lanesPlan(3, "shared", 1, 1, 1, 1, 1, 1, 1, 1, 1)
	p.Sweeps[0].Limits = sweep.Limits{OnDirtyGPU: "stop"}
	sum := mustRun(t, r, p, Options{})
	if sum.OK != 8 || sum.Outcomes[OutcomeDirtyGPU] != 1 || !strings.Contains(sum.StoppedBy, "GPU 1") {
		t.Errorf("GPU 1 is another's: %+v", sum)
	}
}

// heldGPU is a machine whose GPU 1 another holds.
type heldGPU struct{ *machine }

func (h heldGPU) Inspect(ctx context.Context, gpus []int) (*DetailedGPUMetrics, error) {
	d, err := h.machine.Inspect(ctx, gpus)
	for i := range d.GPUs {
		if d.GPUs[i].GPUID == 1 {
			d.GPUs[i].Processes = []GPUProcess{holds(7, "another", 30000)}
		}
	}
	return d, err
}

// TestLaneOfAGroup: the runs of one engine stay in one lane, each lane with an engine
// of its own.
func TestLaneOfAGroup(t *testing.T) {
	var mu sync.Mutex
	engines, lane := map[int]*group{}, map[int64]int{}
	k, m := newKeeper(), &machine{gpus: 4}
	r := newRunner(k, nil)
	r.Inspector = func(*sweep.Profile) Inspector { return m }
	r.Engines = func(_ *sweep.Profile, n int) (Engine, error) {
		mu.Lock()
		defer mu.Unlock()
		if engines[n] == nil {
			engines[n] = &group{t: t, lane: n, mu: &mu, of: lane}
		}
		return engines[n], nil
	}
	p := lanesPlan(4, "alone", slices.Repeat([]int64{1}, 12)...)
	for i, profile := range p.Sweeps[0].Profiles {
		profile.Settings.InputLen = int64(1 + i/3)
	}
	if sum := mustRun(t, r, p, Options{}); sum.OK != 12 || len(lane) != 4 {
		t.Errorf("%+v; groups in lanes %v", sum, lane)
	}
}

// A group is a SharedEngine of one lane: profiles of one input length share it.
type group struct {
	t     *testing.T
	lane  int
	alive int64
	mu    *sync.Mutex
	of    map[int64]int // lane by input length
}

func (g *group) Shares(a, b *sweep.Profile) bool { return a.Settings.InputLen == b.Settings.InputLen }

func (g *group) Alive(p *sweep.Profile) bool { return g.alive == p.Settings.InputLen }

func (g *group) Close(context.Context) ([]Process, error) { g.alive = 0; return nil, nil }

func (g *group) Run(ctx context.Context, job *Job) (*Measurement, error) {
	length := job.Profile.Settings.InputLen
	g.mu.Lock()
	if was := g.of[length]; was != 0 && was != g.lane {
		g.t.Errorf("the group of input length %d is in lanes %d and %d", length, was, g.lane)
	}
	g.of[length] = g.lane
	g.mu.Unlock()
	time.Sleep(5 * time.Millisecond)
	if g.alive = length; !job.KeepEngine {
		g.alive = 0
	}
	return ok(ctx, job)
}

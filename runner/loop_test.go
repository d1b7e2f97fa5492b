package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

func TestRunsInOrderOneAfterAnother(t *testing.T) {
	k := newKeeper()
	var seen []string
	running := false
	p := plan(sweep.Limits{}, 1, 2, 3)
	p.Sweeps[0].Repeats = 2
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		if running {
			t.Error("two at once")
		}
		running = true
		defer func() { running = false }()
		seen = append(seen, fmt.Sprintf("%d/%d", job.Profile.Settings.BatchSize, job.Repeat))
		return ok(ctx, job)
	}))
	sum := mustRun(t, r, p, Options{})
	if want := []string{"1/1", "1/2", "2/1", "2/2", "3/1", "3/2"}; !slices.Equal(seen, want) {
		t.Errorf("ran %v, want %v", seen, want)
	}
	if sum.State != StateComplete || sum.OK != 6 || sum.Planned != 6 || sum.Remaining != 0 || sum.ExitCode() != 0 {
		t.Errorf("summary %+v", sum)
	}
	for id, res := range k.results {
		if strings.Contains(id, "/") || !strings.HasPrefix(id, sum.Execution) {
			t.Errorf("run id %q", id)
		}
		if res.Run.WallS <= 0 || res.ProfilerVersion != "test" || res.Run.Axes["batch_size"] == nil {
			t.Errorf("result %+v", res.Run)
		}
	}
}

func TestStagesAreStamped(t *testing.T) {
	k := newKeeper()
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		time.Sleep(20 * time.Millisecond)
		return ok(ctx, job)
	}))
	m := &machine{gpus: 1}
	r.Inspector = func(*sweep.Profile) Inspector { return m }
	// A wall clock that is set while the run goes on moves no duration.
	clock := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r.Now = func() time.Time { clock = clock.Add(-time.Hour); return clock }
	mustRun(t, r, plan(sweep.Limits{}, 1), Options{})
	run := k.results[k.order[0]].Run
	var names []string
	for i, s := range run.Stages {
		names = append(names, fmt.Sprintf("%d %s", s.Stage, s.Name))
		if s.DurationS < 0 || s.DurationS > 1800 || (i > 1 && s.OffsetS < run.Stages[i-1].OffsetS) {
			t.Errorf("stage %+v", s)
		}
	}
	want := []string{"-1 idle_wait", "0 baseline", "1 monitor", "2 engine", "3 stop", "4 read", "5 detail", "6 final", "7 attribute"}
	if !slices.Equal(names, want) {
		t.Errorf("stages %v, want %v", names, want)
	}
	if d := k.results[k.order[0]].DetailedGPUMetrics; d == nil || len(d.GPUs) != 1 {
		t.Errorf("detailed_gpu_metrics holds %+v, want the reading of phase 5", d)
	}
	if run.WallS < 0.02 || run.WallS > 1800 || run.OverheadS > run.WallS-0.02 {
		t.Errorf("wall %v s, overhead %v s", run.WallS, run.OverheadS)
	}
}

func TestAFailedRunIsARow(t *testing.T) {
	k := newKeeper()
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		if job.Profile.Settings.BatchSize == 2 {
			return &Measurement{Outcome: OutcomeOOM, Detail: "tried to allocate 2 GiB",
				Events: []LogEvent{{Kind: EventLoadStart}}}, nil
		}
		return ok(ctx, job)
	}))
	sum := mustRun(t, r, plan(sweep.Limits{}, 1, 2, 3), Options{})
	if sum.OK != 2 || sum.Failed != 1 || sum.State != StateComplete || sum.ExitCode() != 3 {
		t.Errorf("summary %+v, exit %d", sum, sum.ExitCode())
	}
	bad := k.results[k.order[1]]
	if bad.Run.Outcome != OutcomeOOM || bad.Run.FailedIn != PhaseLoad || bad.Missing["latency_stats"] == "" {
		t.Errorf("row %+v, missing %v", bad.Run, bad.Missing)
	}
}

func TestMachineFaultStops(t *testing.T) {
	k := newKeeper()
	fault := errors.New("no vllm on PATH")
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		if job.Profile.Settings.BatchSize == 2 {
			return nil, fault
		}
		return ok(ctx, job)
	}))
	sum, err := r.Run(context.Background(), plan(sweep.Limits{}, 1, 2, 3), Options{})
	if !errors.Is(err, fault) || sum.OK != 1 || sum.ExitCode() != 1 || k.execs[0].State != StateInterrupted {
		t.Errorf("error %v, summary %+v, state %v", err, sum, k.execs[0].State)
	}
	if k.closed != 1 {
		t.Errorf("%d sinks closed without a result, want 1", k.closed)
	}
}

func TestRetriesOnlyWhatCanPass(t *testing.T) {
	for _, c := range []struct {
		retriable bool
		retries   int
		calls     int
		outcome   Outcome
	}{{true, 2, 3, OutcomeOK}, {true, 1, 2, OutcomeEngineError}, {false, 2, 1, OutcomeEngineError},
		{true, 0, 1, OutcomeEngineError}} {
		k := newKeeper()
		calls := 0
		r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
			if calls++; calls != job.Attempt {
				t.Errorf("attempt %d, call %d", job.Attempt, calls)
			}
			if calls < 3 {
				return &Measurement{Outcome: OutcomeEngineError, Retriable: c.retriable}, nil
			}
			return ok(ctx, job)
		}))
		var waits []time.Duration
		r.Sleep = func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil }
		sum := mustRun(t, r, plan(sweep.Limits{Retries: c.retries}, 1), Options{})
		run := k.results[k.order[len(k.order)-1]].Run
		if calls != c.calls || run.Outcome != c.outcome || run.Attempts != calls || len(k.attempts[run.RunID]) != calls-1 ||
			sum.Retried != calls-1 {
			t.Errorf("%+v: %d calls, %s after %d attempts, %d kept", c, calls, run.Outcome, run.Attempts,
				len(k.attempts[run.RunID]))
		}
		for i := 1; i < len(waits); i++ {
			if waits[i] <= waits[i-1] {
				t.Errorf("waits %v: want them to grow", waits)
			}
		}
	}
}

func TestMaxFailuresEndsTheSweepOnly(t *testing.T) {
	k := newKeeper()
	p := plan(sweep.Limits{MaxFailures: 2}, 1, 2, 3, 4)
	other := plan(sweep.Limits{}, 9).Sweeps[0]
	other.Name, other.Profiles[0].Sweep = "other", "other"
	p.Sweeps = append(p.Sweeps, other)
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		if job.Profile.Sweep == "s" {
			return &Measurement{Outcome: OutcomeEngineError}, nil
		}
		return ok(ctx, job)
	}))
	sum := mustRun(t, r, p, Options{})
	if sum.Failed != 2 || sum.OK != 1 || sum.Remaining != 2 || sum.State != StateInterrupted || sum.ExitCode() != 3 ||
		!strings.Contains(sum.StoppedBy, "max_failures = 2") {
		t.Errorf("summary %+v exit %d", sum, sum.ExitCode())
	}
}

func TestLimits(t *testing.T) {
	hang := func(ready, talk bool) Engine {
		return engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
			if ready {
				job.Progress(Progress{Phase: PhaseMeasure})
			}
			for ctx.Err() == nil {
				if talk {
					job.Pulse.Output(time.Now())
				}
				time.Sleep(time.Millisecond)
			}
			return &Measurement{Outcome: OutcomeEngineError, Detail: "killed"}, nil
		})
	}
	const limit = 60 * time.Millisecond
	for name, c := range map[string]struct {
		limits sweep.Limits
		engine Engine
		want   Outcome
	}{
		"whole":    {sweep.Limits{Timeout: limit}, hang(true, true), OutcomeTimeout},
		"start-up": {sweep.Limits{StartupTimeout: limit}, hang(false, true), OutcomeStartupTimeout},
		"silence":  {sweep.Limits{SilenceTimeout: limit}, hang(true, false), OutcomeSilenceTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper()
			mustRun(t, newRunner(k, c.engine), plan(c.limits, 1), Options{})
			run := k.results[k.order[0]].Run
			if run.Outcome != c.want || !strings.Contains(run.OutcomeDetail, "60ms") {
				t.Errorf("%s: %s (%s), want %s", name, run.Outcome, run.OutcomeDetail, c.want)
			}
		})
	}
}

func TestBrokenLimit(t *testing.T) {
	t0 := time.Now()
	ready, early := &Pulse{}, &Pulse{}
	ready.Ready()
	lim := sweep.Limits{Timeout: time.Hour, StartupTimeout: time.Minute}
	if e := brokenLimit(lim, t0.Add(59*time.Minute), t0, ready, t0); e != nil {
		t.Errorf("an engine that was ready in time: %v", e)
	}
	if e := brokenLimit(lim, t0.Add(time.Hour), t0, ready, t0); e == nil || e.Outcome != OutcomeTimeout {
		t.Errorf("after an hour: %v", e)
	}
	if e := brokenLimit(lim, t0.Add(time.Minute), t0, early, t0); e == nil || e.Outcome != OutcomeStartupTimeout {
		t.Errorf("an engine that was not ready in time: %v", e)
	}
	early.Output(t0.Add(10 * time.Minute))
	silence := sweep.Limits{SilenceTimeout: time.Minute}
	if e := brokenLimit(silence, t0.Add(10*time.Minute+30*time.Second), t0, early, t0); e != nil {
		t.Errorf("an engine that spoke 30 s ago: %v", e)
	}
}

func TestBrokenLimitCountsGPUActivity(t *testing.T) {
	t0 := time.Now()
	lim := sweep.Limits{SilenceTimeout: time.Minute}
	if e := brokenLimit(lim, t0.Add(90*time.Second), t0, &Pulse{}, t0.Add(40*time.Second)); e != nil {
		t.Errorf("a GPU that was active 50 s ago: %v", e)
	}
	if e := brokenLimit(lim, t0.Add(101*time.Second), t0, &Pulse{}, t0.Add(40*time.Second)); e == nil ||
		e.Outcome != OutcomeSilenceTimeout {
		t.Errorf("silent for 61 s: %v", e)
	}
}

func TestInterruptionWritesWhatWasMeasured(t *testing.T) {
	k := newKeeper()
	ctx, cancel := context.WithCancelCause(context.Background())
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		if job.Profile.Settings.BatchSize == 1 {
			return ok(ctx, job)
		}
		cancel(fmt.Errorf("%w by SIGINT", ErrInterrupted))
		<-ctx.Done()
		return &Measurement{Outcome: OutcomeEngineError, Detail: "terminated"}, nil
	}))
	sum, err := r.Run(ctx, plan(sweep.Limits{}, 1, 2, 3), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !sum.Interrupted || sum.ExitCode() != 130 || sum.Remaining != 2 || sum.OK != 1 ||
		k.execs[0].State != StateInterrupted || !strings.Contains(sum.StoppedBy, "SIGINT") {
		t.Errorf("summary %+v", sum)
	}
	if run := k.results[k.order[1]].Run; run.Outcome != OutcomeInterrupted ||
		!strings.Contains(run.OutcomeDetail, "SIGINT") {
		t.Errorf("row %+v", run)
	}

	// The same folder, resumed: the first run is kept, the interrupted attempt too.
	r.Engines = func(*sweep.Profile, int) (Engine, error) { return engineFunc(ok), nil }
	again := mustRun(t, r, plan(sweep.Limits{}, 1, 2, 3), Options{Resume: true})
	if again.Execution != sum.Execution || !again.Resumed || again.Kept != 1 || again.Ran != 2 || again.OK != 3 ||
		again.State != StateComplete {
		t.Errorf("resumed: %+v", again)
	}
	if id := k.order[1]; len(k.attempts[id]) != 1 || k.attempts[id][0].Run.Outcome != OutcomeInterrupted {
		t.Errorf("attempts of %s: %v", id, k.attempts[id])
	}
	done := mustRun(t, r, plan(sweep.Limits{}, 1, 2, 3), Options{Resume: true, ResumeOnly: true})
	if !done.AlreadyDone || done.Ran != 0 || done.ExitCode() != 0 {
		t.Errorf("resumed when complete: %+v", done)
	}
	next := mustRun(t, r, plan(sweep.Limits{}, 1, 2, 3), Options{Resume: true})
	if next.AlreadyDone || next.Resumed || next.Ran != 3 || next.Execution == sum.Execution {
		t.Errorf("the night after a complete one: %+v", next)
	}
}

func TestResumeWithoutAnExecutionStartsOne(t *testing.T) {
	k := newKeeper()
	d := &notes{}
	r := newRunner(k, engineFunc(ok))
	r.Display = d
	sum := mustRun(t, r, plan(sweep.Limits{}, 1), Options{Resume: true})
	if sum.Resumed || sum.OK != 1 || len(d.notes) != 1 || !strings.Contains(d.notes[0], "no earlier execution") {
		t.Errorf("summary %+v, notes %q", sum, d.notes)
	}
}

func TestResumeOfAnotherSweepInTheSameFolder(t *testing.T) {
	k := newKeeper()
	r := newRunner(k, engineFunc(ok))
	mustRun(t, r, plan(sweep.Limits{}, 1), Options{})
	other := plan(sweep.Limits{}, 1)
	other.Sweeps[0].Name, other.Sweeps[0].Profiles[0].Sweep = "other", "other"
	if sum := mustRun(t, r, other, Options{Resume: true}); sum.Resumed || sum.Ran != 1 {
		t.Errorf("a sweep of another name was taken for this one: %+v", sum)
	}
}

func TestResumeRunsDamagedResultsAgain(t *testing.T) {
	k := newKeeper()
	d := &notes{}
	r := newRunner(k, engineFunc(ok))
	mustRun(t, r, plan(sweep.Limits{}, 1, 2), Options{})
	k.damaged = errors.New("runs/e/r/run.json: line 3: unexpected end")
	delete(k.results, k.order[0])
	r.Display = d
	sum := mustRun(t, r, plan(sweep.Limits{}, 1, 2), Options{Resume: true, ResumeOnly: true})
	if sum.Ran != 1 || sum.Kept != 1 || len(d.notes) != 1 || !strings.Contains(d.notes[0], "line 3") {
		t.Errorf("summary %+v, notes %q", sum, d.notes)
	}
}

func TestResumeAfterTheFileChanged(t *testing.T) {
	k := newKeeper()
	r := newRunner(k, engineFunc(ok))
	first := mustRun(t, r, plan(sweep.Limits{}, 1, 2, 3), Options{})
	now := plan(sweep.Limits{}, 2, 3, 4)
	now.Sweeps[0].Profiles[0].Engine.Command = []string{"/opt/vllm"}
	now.Sweeps[0].Profiles[1].ID = "another" // the same point, another setting
	sum := mustRun(t, r, now, Options{Resume: true, ResumeOnly: true})
	var got []string
	for _, c := range sum.Changes {
		got = append(got, c.Change+" "+c.Point+" "+c.Was)
	}
	want := []string{"changed batch_size=2 ", "changed batch_size=3 0000000000000003", "added batch_size=4 ",
		"removed batch_size=1 "}
	if !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	if sum.Execution != first.Execution || sum.Kept != 1 || sum.Ran != 2 || sum.Planned != 3 {
		t.Errorf("summary %+v", sum)
	}
}

func TestKillWritesNothingAndLeavesTheAttempt(t *testing.T) {
	k := newKeeper()
	ctx, cancel := context.WithCancelCause(context.Background())
	kill, now := context.WithCancel(context.Background())
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		cancel(ErrInterrupted)
		now()
		return &Measurement{Outcome: OutcomeEngineError}, nil
	}))
	sum, err := r.Run(ctx, plan(sweep.Limits{}, 1), Options{Kill: kill})
	if err != nil || len(k.order) != 0 || k.closed != 1 || k.execs[0].State != StateRunning || sum.ExitCode() != 130 {
		t.Errorf("error %v, rows %v, closed %d, state %v, %+v", err, k.order, k.closed, k.execs[0].State, sum)
	}
}

func TestMaxDuration(t *testing.T) {
	k := newKeeper()
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		<-ctx.Done()
		return &Measurement{Outcome: OutcomeEngineError}, nil
	}))
	sum := mustRun(t, r, plan(sweep.Limits{}, 1, 2), Options{MaxDuration: 30 * time.Millisecond})
	if sum.ExitCode() != 130 || !strings.Contains(sum.StoppedBy, "--max-duration") || sum.Remaining != 2 {
		t.Errorf("summary %+v", sum)
	}
}

func TestDiskGuard(t *testing.T) {
	k := newKeeper()
	free := int64(1 << 40)
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		free = 10 << 20
		return ok(ctx, job)
	}))
	r.FreeBytes = func() (int64, error) { return free, nil }
	sum, err := r.Run(context.Background(), plan(sweep.Limits{}, 1, 2), Options{})
	if err == nil || !strings.Contains(err.Error(), "10 MiB free, a run must find 256 MiB") || sum.OK != 1 ||
		len(k.order) != 1 {
		t.Errorf("error %v, summary %+v", err, sum)
	}
}

func TestSinkThatRefusesSamplesEndsTheRun(t *testing.T) {
	k := newKeeper()
	k.refuse = errors.New("no space left on device")
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		<-ctx.Done()
		return &Measurement{Outcome: OutcomeEngineError}, nil
	}))
	_, err := r.Run(context.Background(), plan(sweep.Limits{}, 1), Options{})
	if !errors.Is(err, k.refuse) || len(k.order) != 1 {
		t.Errorf("error %v, rows %v: want the row to be tried all the same", err, k.order)
	}
}

func TestNeverFits(t *testing.T) {
	k := newKeeper()
	r := newRunner(k, engineFunc(ok))
	m := &machine{gpus: 1}
	r.Inspector = func(*sweep.Profile) Inspector { return m }
	no, short, near, kv, most := false, int64(3<<30), int64(100<<20), int64(0), int64(200<<20)
	r.Estimate = func(p *sweep.Profile, gpus []Device) *models.Estimate {
		if len(gpus) != 1 {
			t.Errorf("estimate for %d GPUs", len(gpus))
		}
		if p.Settings.BatchSize == 2 {
			return &models.Estimate{Fits: &no, ShortBy: &short}
		}
		// Too close to call: it is run.
		return &models.Estimate{Fits: &no, ShortBy: &near, KVCache: models.Figure{Value: &kv, High: &most}}
	}
	sum := mustRun(t, r, plan(sweep.Limits{SkipNeverFits: true}, 1, 2), Options{})
	row := k.results[k.order[1]]
	if sum.Skipped != 1 || sum.ExitCode() != 0 || row.Run.Outcome != OutcomeSkipped ||
		!strings.HasPrefix(row.Run.OutcomeDetail, "never_fits: it does not fit by the estimate (3.00 GiB short") {
		t.Errorf("summary %+v, row %+v", sum, row.Run)
	}
}

func TestWaitsForIdleGPUs(t *testing.T) {
	for name, c := range map[string]struct {
		policy  string
		leaves  bool
		want    []Outcome
		exit    int
		stopped bool
	}{
		"they leave":    {"wait", true, []Outcome{OutcomeOK, OutcomeOK}, 0, false},
		"wait, in vain": {"wait", false, []Outcome{OutcomeDirtyGPU, OutcomeDirtyGPU}, 3, false},
		"skip":          {"skip", false, []Outcome{OutcomeDirtyGPU, OutcomeDirtyGPU}, 3, false},
		"stop":          {"stop", false, []Outcome{OutcomeDirtyGPU}, 3, true},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper()
			m := &machine{gpus: 2, held: []GPUProcess{holds(77, "/usr/bin/python3", 4096), holds(5, "Xorg", 900)}}
			m.after = func(m *machine) {
				if c.leaves && m.reads == 3 {
					m.held = m.held[1:]
				}
			}
			d := &notes{}
			r := newRunner(k, engineFunc(ok))
			r.Display = d
			r.Inspector = func(*sweep.Profile) Inspector { return m }
			if c.policy != "wait" { // settleLimit passes at once
				r.Sleep = func(context.Context, time.Duration) error { time.Sleep(time.Millisecond); return nil }
			}
			limits := sweep.Limits{IdleTimeout: 400 * time.Millisecond, OnDirtyGPU: c.policy}
			if c.leaves {
				limits.IdleTimeout = time.Hour
			}
			sum := runImpatient(t, r, plan(limits, 1, 2))
			if !slices.Equal(d.rows, c.want) || sum.ExitCode() != c.exit || (sum.StoppedBy != "") != c.stopped {
				t.Errorf("rows %v, want %v; summary %+v", d.rows, c.want, sum)
			}
			run := k.results[k.order[0]].Run
			if len(run.Holders) != 1 && len(run.Holders) != 0 || len(run.Holders) > 0 && run.Holders[0].PID != 77 {
				t.Errorf("holders %+v", run.Holders)
			}
			if run.Outcome == OutcomeDirtyGPU && !strings.Contains(run.OutcomeDetail,
				"GPU 0: /usr/bin/python3 (PID 77) holds 4.00 GiB") {
				t.Errorf("detail %q", run.OutcomeDetail)
			}
		})
	}
}

// runImpatient runs with a settle limit that a test can wait for.
func runImpatient(t *testing.T, r *Runner, p *sweep.Plan) *Summary {
	t.Helper()
	r.settle = 100 * time.Millisecond
	return mustRun(t, r, p, Options{})
}

func TestMemoryMustComeBack(t *testing.T) {
	k := newKeeper()
	m := &machine{gpus: 1}
	cleaned := 0
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		m.mu.Lock()
		m.held = []GPUProcess{holds(99, "VLLM::Worker", 30000)}
		m.mu.Unlock()
		return ok(ctx, job)
	}))
	r.Inspector = func(*sweep.Profile) Inspector { return m }
	r.Clean = func(_ context.Context, mark string) ([]Process, error) {
		if cleaned++; mark == "mark" {
			return nil, nil // at the start
		}
		if mark != "mark.run.1" {
			t.Errorf("mark %q", mark)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.held = nil
		return []Process{{PID: 99, Name: "VLLM::Worker"}}, nil
	}
	sum := runImpatient(t, r, plan(sweep.Limits{}, 1))
	run := k.results[k.order[0]].Run
	if run.Outcome != OutcomeOK || len(sum.Ended) != 1 || sum.Ended[0].PID != 99 || !sum.Ended[0].Ours ||
		len(run.Leftovers) != 1 {
		t.Errorf("ended %+v, leftovers %+v, notes %q", sum.Ended, run.Leftovers, run.Notes)
	}
}

func TestMemoryThatStaysIsNamed(t *testing.T) {
	k := newKeeper()
	m := &machine{gpus: 1}
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		m.mu.Lock()
		m.used = 500
		m.mu.Unlock()
		return ok(ctx, job)
	}))
	r.Inspector = func(*sweep.Profile) Inspector { return m }
	runImpatient(t, r, plan(sweep.Limits{}, 1))
	run := k.results[k.order[0]].Run
	if len(run.Notes) != 1 || !strings.Contains(run.Notes[0], "GPU 0 holds 0.49 GiB more than before the run") {
		t.Errorf("notes %q", run.Notes)
	}
}

func TestAGPUThatIsNotThere(t *testing.T) {
	k := newKeeper()
	r := newRunner(k, engineFunc(ok))
	m := &machine{gpus: 2}
	r.Inspector = func(*sweep.Profile) Inspector { return m }
	p := plan(sweep.Limits{}, 1)
	p.Sweeps[0].GPUs = []int{3}
	if _, err := r.Run(context.Background(), p, Options{}); err == nil ||
		!strings.Contains(err.Error(), "asks for GPU 3: this machine has GPU 0, 1") {
		t.Errorf("error %v", err)
	}
	if len(k.execs) != 0 {
		t.Error("an execution was begun")
	}
}

func TestAttributorGetsEverything(t *testing.T) {
	k := newKeeper()
	m := &machine{gpus: 1}
	var ticks atomic.Int64
	r := newRunner(k, engineFunc(func(ctx context.Context, job *Job) (*Measurement, error) {
		job.Progress(Progress{Phase: PhaseLoad})
		for ticks.Load() < 6 { // the last may still be on its way
			time.Sleep(time.Millisecond)
		}
		return ok(ctx, job)
	}))
	r.Samplers = func(job *Job) []Sampler {
		return []Sampler{&ticker{job: job, every: time.Millisecond, used: func() int64 { ticks.Add(1); return 1 << 30 }}}
	}
	r.Inspector = func(*sweep.Profile) Inspector { return m }
	at := &spy{}
	r.Attributor = at
	d := &notes{}
	r.Display = d
	mustRun(t, r, plan(sweep.Limits{}, 1), Options{})
	g := at.got
	if g == nil || g.Baseline == nil || g.Detail == nil || g.Final == nil || len(g.Reports) != 1 ||
		g.Measurement == nil || at.samples < 5 {
		t.Errorf("measured %+v, %d samples", g, at.samples)
	}
	if len(d.shown) == 0 || d.shown[len(d.shown)-1].Phase != PhaseFinal ||
		d.shown[len(d.shown)-1].MemoryBytes != 1<<30 || d.shown[0].Phase != PhaseLoad {
		t.Errorf("progress %+v", d.shown)
	}
}

type spy struct {
	got     *Measured
	samples int
}

func (s *spy) Attribute(_ *Result, m *Measured) {
	s.got = m
	_ = m.Samples.ReadSamples(func(b []Sample) error { s.samples += len(b); return nil })
}

// BenchmarkRunOverhead is what a run costs beside its engine.
func BenchmarkRunOverhead(b *testing.B) {
	m := &machine{gpus: 8}
	k := newKeeper()
	r := newRunner(k, engineFunc(ok))
	r.Inspector = func(*sweep.Profile) Inspector { return m }
	p := plan(sweep.Limits{}, 1)
	for b.Loop() {
		sum, err := r.Run(context.Background(), p, Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(sum.OverheadS*1000, "overhead-ms")
	}
}

func TestSameFailureEndsASweep(t *testing.T) {
	detail := "unrecognized arguments: --nosuch"
	fails := func(_ context.Context, job *Job) (*Measurement, error) {
		return &Measurement{Outcome: OutcomeBadArgument, Detail: detail}, nil
	}
	for name, c := range map[string]struct {
		engine  engineFunc
		limit   int
		engines bool // each profile has its own
		ran     int
	}{
		"alike":              {fails, 3, false, 3},
		"alike, off":         {fails, 0, false, 6},
		"each with its own":  {fails, 3, true, 3},
		"more than one due":  {fails, 4, true, 4},
		"out of memory":      {outOfMemory, 3, false, 6},
		"one ends well":      {alternately(ok, fails), 3, false, 6},
		"for another reason": {alternately(fails, outOfMemory), 3, false, 6},
	} {
		p := plan(sweep.Limits{SameFailure: c.limit}, 1, 2, 3, 4, 5, 6)
		if c.engines {
			for i, profile := range p.Sweeps[0].Profiles {
				profile.Settings.MaxModelLen = new(int64(i + 1))
			}
		}
		sum := mustRun(t, newRunner(newKeeper(), c.engine), p, Options{})
		if sum.Ran != c.ran || (sum.StoppedBy == "") != (c.ran == 6) {
			t.Errorf("%s: %d runs, want %d; stopped by %q", name, sum.Ran, c.ran, sum.StoppedBy)
		}
		if c.ran < 6 && (!strings.Contains(sum.StoppedBy, detail) || sum.ExitCode() != 3 || sum.Remaining != 6-c.ran) {
			t.Errorf("%s: %+v", name, sum)
		}
	}
}

func outOfMemory(context.Context, *Job) (*Measurement, error) {
	return &Measurement{Outcome: OutcomeOOM, Detail: "out of memory"}, nil
}

// alternately is an engine that does one thing, then the other.
func alternately(a, b engineFunc) engineFunc {
	n := 0
	return func(ctx context.Context, job *Job) (*Measurement, error) {
		if n++; n%2 == 1 {
			return a(ctx, job)
		}
		return b(ctx, job)
	}
}

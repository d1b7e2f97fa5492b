package runner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// samplerPatience is how long samplers may take to end.
const samplerPatience = 10 * time.Second

// An attempt is one go through the phases of runner.go.
type attempt struct {
	*lane
	due
	job     *Job
	engine  Engine
	insp    Inspector
	sinks   []RunSink
	tap     *tap
	stages  []Stage
	clock   time.Time // start of the stage at hand, monotonic
	waited  time.Duration
	reports []*SamplerReport
	notes   []string
	holders []Process
	ours    []Process // ended by us

	measured              *Measurement
	baseline, detail, end *DetailedGPUMetrics
	stopSampling          func()
	samplersDone          <-chan struct{}
	samplerErrs           []error
	mu                    sync.Mutex // of reports, samplerErrs and sinkErr, which samplers write
	sinkErr               error
}

// attempt measures a run once. It returns nil without an error where the
// execution was ended before anything was measured.
func (l *lane) attempt(ctx context.Context, d due, next *due, number int) (r *Result, retriable bool, err error) {
	a := &attempt{lane: l, due: d, clock: time.Now()}
	if a.engine, err = l.Engines(d.profile, l.number); err != nil {
		return nil, false, fmt.Errorf("engine %q of profile %s (%s): %w", d.profile.Engine.Kind, d.profile.ID,
			point(d.profile), err)
	}
	if err := a.share(ctx); err != nil {
		return nil, false, err
	}
	a.insp = l.unit.insp
	a.job = l.newJob(d, l.unit.devices, number)
	a.job.Turn = l.newTurn(d.sweep)
	a.job.KeepEngine = a.keepEngine(next)
	if e, ok := a.engine.(PreparedEngine); ok && !a.warm() {
		e.Prepare(ctx, a.job)
		a.clock = time.Now()
	}
	dirty, err := a.waitIdle(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, false, nil // nothing was measured; the run is due again
		}
		return nil, false, err
	}
	a.setStart()
	if dirty != "" {
		r := a.newResult()
		r.Run.Outcome, r.Run.OutcomeDetail = OutcomeDirtyGPU, dirty
		return r, false, a.keepRow(a.job, r)
	}
	return a.measure(ctx)
}

// newJob makes the job of an attempt.
func (l *lane) newJob(d due, devices []Device, number int) *Job {
	return &Job{
		RunID: d.id, Execution: l.id, Profile: d.profile, Written: l.written(d.profile), Lane: l.place,
		Shard: l.Shard, Sweep: d.sweep, Repeat: d.repeat,
		Attempt: number,
		Devices: devices, Synthetic: synthetic(d.profile), Mark: l.runMark(), StartedAt: l.now(),
		Progress: func(Progress) {}, Pulse: &Pulse{},
	}
}

// setStart begins the run's own time: waiting for idle GPUs lies before it.
func (a *attempt) setStart() {
	a.job.StartedAt = a.now()
	begun := time.Now()
	if waited := begun.Sub(a.clock); a.insp != nil {
		a.stages = append(a.stages, Stage{Stage: -1, Name: "idle_wait", StartedAt: a.job.StartedAt.Add(-waited).UTC(),
			OffsetS: -waited.Seconds(), DurationS: waited.Seconds()})
	}
	a.clock = begun
}

// stage notes the end of a stage that began when the one before it ended.
func (a *attempt) stage(number int, name string, begun time.Time) time.Time {
	now := time.Now()
	offset := begun.Sub(a.clock)
	a.stages = append(a.stages, Stage{Stage: number, Name: name, StartedAt: a.job.StartedAt.Add(offset).UTC(),
		OffsetS: offset.Seconds(), DurationS: now.Sub(begun).Seconds()})
	return now
}

// measure goes through the phases from the baseline on.
func (a *attempt) measure(ctx context.Context) (*Result, bool, error) {
	var err error
	if a.sinks, err = a.beginSinks(a.job); err != nil {
		return nil, false, err
	}
	at := a.stage(0, "baseline", a.clock)
	engineCtx, end := context.WithCancelCause(ctx)
	defer end(nil)
	a.tap = newTap(a.job, a.eta, a.display)
	a.job.Progress = a.tap.progress
	a.display.RunBegins(a.n, a.job)
	a.startSamplers(ctx, end)
	a.head(ctx)
	at = a.stage(1, "monitor", at)

	var watch sync.WaitGroup
	done := make(chan struct{})
	watch.Go(func() { a.watch(done, end) })
	a.measured, err = a.engine.Run(engineCtx, a.job)
	a.job.Turn.Give()
	engineTook := time.Since(at)
	if !a.warm() {
		a.shared = nil // it ended its process by itself
	}
	cause := context.Cause(engineCtx)
	close(done)
	watch.Wait()
	at = a.stage(2, "engine", at)
	if err != nil && ctx.Err() == nil || a.killed() {
		a.stopSampling()
		return nil, false, errors.Join(err, closeSinks(a.sinks))
	}
	a.tap.progress(Progress{Phase: PhaseTeardown})
	a.tail(ctx)
	a.stopSampling()
	at = a.stage(3, "stop", at)
	return a.conclude(ctx, at, engineTook, cause)
}

// conclude reads what the attempt brought back and keeps it.
func (a *attempt) conclude(
	ctx context.Context, at time.Time, engineTook time.Duration, cause error,
) (r *Result, retriable bool, err error) {
	if a.measured == nil {
		a.measured = &Measurement{Outcome: OutcomeInterrupted, Detail: "the engine reported nothing"}
	}
	r = a.newResult()
	a.fill(r, cause)
	maps.Copy(r.Missing, a.measured.Missing)
	if a.shares() {
		r.Run.FailedIn = "" // a command has no phases to fail in
	}
	at = a.stage(4, "read", at)
	if a.insp != nil && len(a.job.Devices) > 0 {
		a.detail, _ = a.inspect(context.WithoutCancel(ctx), a.gpuIndices()) // noted
	}
	r.DetailedGPUMetrics = a.detail
	at = a.stage(5, "detail", at)
	a.tap.progress(Progress{Phase: PhaseFinal})
	a.final(ctx)
	at = a.stage(6, "final", at)
	if a.killed() {
		return nil, false, closeSinks(a.sinks)
	}
	a.attribute(r)
	a.stage(7, "attribute", at)
	wall := time.Since(a.clock)
	r.Run.EndedAt = a.job.StartedAt.Add(wall).UTC()
	r.Run.WallS = wall.Seconds()
	r.Run.OverheadS = max((wall - engineTook - a.waited).Seconds(), 0)
	r.Run.Stages, r.Run.Holders, r.Run.Notes = a.stages, a.holders, append(r.Run.Notes, a.notes...)
	r.Run.Leftovers = append(r.Run.Leftovers, a.ours...)
	a.mu.Lock()
	sinkErr := a.sinkErr
	a.mu.Unlock()
	// What was measured is offered to the sinks also where they refused samples.
	err = errors.Join(sinkErr, a.finishSinks(a.sinks, r))
	a.locked(func() {
		a.took = append(a.took, time.Since(a.clock)-engineTook-a.waited)
		a.pace.add(wall)
	})
	if err != nil {
		return nil, false, fmt.Errorf("keep the result of run %s: %w", a.job.RunID, err)
	}
	return r, a.measured.Retriable && r.Run.Outcome.Failed() && r.Run.Outcome != OutcomeInterrupted, nil
}

// startSamplers lets every sampler run until stopSampling. They outlive ctx:
// the end of a run that was interrupted is measured as well.
func (a *attempt) startSamplers(ctx context.Context, end context.CancelCauseFunc) {
	samplerCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	emit := func(samples []Sample) {
		a.tap.take(samples)
		for _, s := range a.sinks {
			if err := s.Samples(samples); err != nil {
				a.refused(err, end)
			}
		}
	}
	if a.Samplers != nil {
		samplers := a.Samplers(a.job)
		a.reports = make([]*SamplerReport, len(samplers)) // in the samplers' order, nil while they run
		for i, s := range samplers {
			running.Go(func() {
				report, err := s.Sample(samplerCtx, emit)
				a.mu.Lock()
				defer a.mu.Unlock()
				a.reports[i] = report
				if err != nil {
					a.samplerErrs = append(a.samplerErrs, err)
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	a.stopSampling = func() {
		stop()
		select {
		case <-done:
		case <-time.After(samplerPatience):
			a.notes = append(a.notes, fmt.Sprintf("a sampler did not end within %v and was left alone", samplerPatience))
		}
	}
	a.samplersDone = done
}

// refused ends the run where a sink does not take samples (the disk is full):
// what cannot be kept need not be measured.
func (a *attempt) refused(err error, end context.CancelCauseFunc) {
	a.mu.Lock()
	first := a.sinkErr == nil
	if first {
		a.sinkErr = err
	}
	a.mu.Unlock()
	if first {
		end(fmt.Errorf("samples cannot be kept: %w", err))
	}
}

// headPatience is how long a run that begins at once waits for its first samples:
// on a busy machine a sampler's start can take seconds.
const headPatience = 5 * time.Second

// head waits until each GPU was sampled once, where the engine is up or begins at
// once: what its first request takes would else lie before the first sample,
// and growth would be missed.
func (a *attempt) head(ctx context.Context) {
	margin := a.margin()
	if len(a.job.Devices) == 0 || margin == 0 && !a.warm() {
		return
	}
	a.sampled(ctx, a.job.StartedAt, headPatience)
	if margin > 0 {
		a.sampled(ctx, time.Now().Add(margin), 2*margin)
	}
}

// margin is how long samples are asked for on either side of the engine's run.
func (a *attempt) margin() time.Duration {
	if e, ok := a.engine.(PromptEngine); ok {
		return e.Margin(a.job)
	}
	return 0
}

// sampled waits until each GPU was sampled after since, at most for limit.
func (a *attempt) sampled(ctx context.Context, since time.Time, limit time.Duration) {
	for begun := time.Now(); time.Since(begun) < limit && !a.tap.sampledSince(since) && ctx.Err() == nil; {
		select {
		case <-a.samplersDone:
			return
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// tail waits until each GPU was sampled once after the engine's end, so that
// the samples show what it left; it counts as waiting for the GPUs.
func (a *attempt) tail(ctx context.Context) {
	if len(a.job.Devices) == 0 || a.job.Sweep == nil || a.killed() {
		return
	}
	begun := time.Now()
	limit := min(2*max(a.job.Sweep.Sample.Interval, 10*time.Millisecond), time.Second)
	a.sampled(ctx, begun.Add(a.margin()), a.margin()+limit)
	a.waited += time.Since(begun)
}

// attribute hands everything to the Attributor.
func (a *attempt) attribute(r *Result) {
	a.mu.Lock()
	reports := slices.DeleteFunc(slices.Clone(a.reports), func(r *SamplerReport) bool { return r == nil })
	errs := a.samplerErrs
	a.mu.Unlock()
	for _, err := range errs {
		r.Run.Notes = append(r.Run.Notes, "sampler: "+err.Error())
	}
	if a.Attributor == nil {
		return
	}
	a.Attributor.Attribute(r, &Measured{
		Job: a.job, Measurement: a.measured, Samples: a.samples(), Reports: reports,
		Baseline: a.baseline, Detail: a.detail, Final: a.end,
	})
}

// samples are those of the first sink that can give them back.
func (a *attempt) samples() SampleReader {
	for _, s := range a.sinks {
		if r, ok := s.(SampleReader); ok {
			return r
		}
	}
	return noSamples{}
}

// noSamples is the SampleReader where no sink keeps them.
type noSamples struct{}

func (noSamples) ReadSamples(func([]Sample) error) error { return nil }

// share makes the engine of this run the shared one, if it can be shared, and
// ends that of the runs before unless it serves this run too.
func (a *attempt) share(ctx context.Context) error {
	se, _ := a.engine.(SharedEngine)
	if a.shared != nil && !(se == a.shared && a.warm()) {
		if err := a.closeShared(ctx); err != nil {
			return err
		}
	}
	a.shared = se
	return nil
}

func (l *lane) closeShared(ctx context.Context) error {
	left, err := l.shared.Close(ctx)
	l.shared = nil
	l.addEnded(left, "outlived a session's engine")
	return err
}

// keepEngine reports whether the next run is to use this one's process.
func (a *attempt) keepEngine(next *due) bool {
	return a.shared != nil && next != nil && !a.over(next.sweep) && next.sweep == a.sweep &&
		a.shared.Shares(a.profile, next.profile)
}

// warm reports whether the shared engine of the runs before goes on: then the
// GPUs are not idle and need not be.
func (a *attempt) warm() bool { return a.shared != nil && a.shared.Alive(a.profile) }

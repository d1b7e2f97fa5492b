package runner

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// ErrInterrupted is a cause for the context of Run: the user, the system or a
// batch scheduler asked for the end.
var ErrInterrupted = errors.New("interrupted")

// ErrMaxDuration is the cause when Options.MaxDuration has passed.
var ErrMaxDuration = errors.New("the time of --max-duration is over")

// A Runner executes plans. Engines, Samplers and Sinks must be set; what else
// is nil is done without.
type Runner struct {
	// Engines gives what executes a profile in a lane (from 1): a lane's SharedEngine
	// serves no other lane.
	Engines  func(p *sweep.Profile, lane int) (Engine, error)
	Samplers func(job *Job) []Sampler
	Sinks    []Sink

	// Inspector gives the instrument that reads the GPUs of a profile (the
	// simulator has its own); nil for a machine without GPUs.
	Inspector  func(p *sweep.Profile) Inspector
	Attributor Attributor
	History    History
	// Estimate is what never_fits asks; nil: it cannot be told.
	Estimate func(p *sweep.Profile, gpus []Device) *models.Estimate
	// Clean ends the processes of a mark (proc.EndMarked) and nothing else. At the
	// start it is called with Mark: what a killed runner left. Between runs it is
	// called with the mark of a lane's engines, when none should live.
	Clean func(ctx context.Context, mark string) ([]Process, error)
	// Recover puts the output folder in order after a crash, once nothing of an
	// earlier runner lives, and says what it fixed. What it cannot fix is reported
	// and does not stop tonight's runs.
	Recover func() (fixed []string, err error)
	// Place is what a lane of so many gives an engine on these GPUs; nil: nothing.
	Place func(lane, lanes int, devices []Device) *Lane
	// HostTurn waits until no other runner of this host measures; nil: there is none.
	HostTurn func(ctx context.Context) (release func(), err error)
	// HostCPU is the time that the host's CPUs were busy, and all of their time, in
	// seconds since boot; nil: not known.
	HostCPU func() (busy, all float64)
	// FreeBytes is the room on the disk of the output folder.
	FreeBytes func() (int64, error)
	Display   Display

	Now   func() time.Time                                 // the wall clock; nil: time.Now
	Sleep func(ctx context.Context, d time.Duration) error // nil: a timer

	// Shard is which part of the plan this Runner has, as "3/6"; "": all of it.
	Shard   string
	Version string   // of vramsweep
	Host    string   // name of this machine
	OS      string   // "linux/amd64, kernel 6.8"
	Command []string // of this process, secrets masked
	// Masker takes the secrets out of a profile's flags where they are kept;
	// nil: nothing is taken out.
	Masker Masker
	// settle is how long memory may take to come back; 0: settleLimit.
	settle time.Duration

	// Mark is proc.FolderMark of the output folder. Engines run under
	// Mark.run.LANE; tools that live longer than a run may carry any other Mark.SOMETHING.
	Mark string
}

// A Masker takes secrets out of what is written down.
type Masker interface {
	Value(name string, v any) any
	Argv(argv []string) []string
}

// written is a profile without the secrets in its flags and commands.
func (r *Runner) written(p *sweep.Profile) *sweep.Profile {
	if r.Masker == nil {
		return nil
	}
	out := *p
	e := &out.Engine
	e.Command, e.Benchmark, e.Python = r.Masker.Argv(e.Command), r.Masker.Argv(e.Benchmark), r.Masker.Argv(e.Python)
	e.Flags = slices.Clone(e.Flags)
	for i := range e.Flags {
		e.Flags[i].Value = r.Masker.Value(e.Flags[i].Name, e.Flags[i].Value)
	}
	return &out
}

// Options of one Run.
type Options struct {
	Resume      bool            // goes on with the last execution, if it is unfinished
	ResumeOnly  bool            // with Resume: starts no new one after one that is complete, as with a named one
	MaxDuration time.Duration   // 0: none
	Execution   string          // its name; "": the last one, or a new one
	Digest      string          // of the whole plan, where a Shard of it runs
	Kill        context.Context // ends at once, without writing results: the second Ctrl-C; nil: never
}

// minFree is the room on the disk that a run must find: journal, raw
// logs and tables of a run take some MiB, a log gone wild 100.
const minFree = 256 << 20

// A due run is one that has no final result yet.
type due struct {
	sweep   *sweep.Sweep
	profile *sweep.Profile
	repeat  int
	id      string
	n       int // position in the execution, from 1
}

// An executor is one Run of a Runner.
type executor struct {
	*Runner
	opts    Options
	plan    *sweep.Plan
	id      string
	begun   time.Time // with monotonic reading
	sum     *Summary
	queue   []due
	display *lockedDisplay
	lanes   int
	limit   map[*sweep.Sweep]int // lanes that may work while a run of the sweep goes on
	turns   chan struct{}        // full: a run measures alone

	mu        sync.Mutex // of sum and all below
	changed   sync.Cond  // what could be taken has changed
	pending   []*unit
	active    map[*unit]bool
	busy      map[gpuKey]bool
	dirty     map[gpuKey]bool // left out: others hold them
	kinds     map[string]int  // of engines
	measuring map[*Turn]bool
	stopped   bool
	rules     rules
	pace      pace
	gpus      map[Inspector][]Device
	failed    map[*sweep.Sweep]int
	given     map[*sweep.Sweep]bool // up: max_failures, same_failure
	alike     map[*sweep.Sweep]*alike
	took      []time.Duration // vramsweep's own share of each run
}

// Run executes a plan and returns what came of it, also beside an error: the
// error says that the machine or vramsweep is at fault and that the execution
// could not go on. The end of ctx ends the current run cleanly; its cause is
// told. What was measured until then is with the sinks.
func (r *Runner) Run(ctx context.Context, plan *sweep.Plan, opts Options) (*Summary, error) {
	x := r.executor(plan, opts)
	x.sum.StartedAt = x.now()
	if opts.MaxDuration > 0 {
		limited, cancel := context.WithTimeoutCause(ctx, opts.MaxDuration, ErrMaxDuration)
		defer cancel()
		ctx = limited
	}
	if err := x.prepare(ctx); err != nil {
		x.sum.Error = err.Error()
		return x.sum, err
	}
	if x.sum.AlreadyDone {
		x.sum.EndedAt = x.now()
		return x.sum, nil
	}
	err := x.runAll(ctx)
	return x.sum, x.finish(ctx, err)
}

// executor is one Run before it begins.
func (r *Runner) executor(plan *sweep.Plan, opts Options) *executor {
	x := &executor{
		Runner: r, opts: opts, plan: plan, begun: time.Now(),
		sum:   &Summary{Outcomes: map[Outcome]int{}},
		limit: map[*sweep.Sweep]int{}, turns: make(chan struct{}, 1), active: map[*unit]bool{}, busy: map[gpuKey]bool{},
		dirty: map[gpuKey]bool{}, kinds: map[string]int{}, measuring: map[*Turn]bool{},
		gpus: map[Inspector][]Device{}, failed: map[*sweep.Sweep]int{}, given: map[*sweep.Sweep]bool{},
		alike:   map[*sweep.Sweep]*alike{},
		display: &lockedDisplay{to: r.Display},
	}
	x.changed.L = &x.mu
	return x
}

func (r *Runner) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}

func (r *Runner) settleTime() time.Duration {
	if r.settle > 0 {
		return r.settle
	}
	return settleLimit
}

// runMark is the mark of a lane's engines: what another lane started has another.
func (l *lane) runMark() string { return fmt.Sprintf("%s.run.%d", l.Mark, l.number) }

// sleep returns early, with the cause, when ctx ends.
func (r *Runner) sleep(ctx context.Context, d time.Duration) error {
	if r.Sleep != nil {
		return r.Sleep(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// prepare finds out what is due and notes that the execution begins.
func (x *executor) prepare(ctx context.Context) error {
	if x.Clean != nil {
		ended, err := x.Clean(ctx, x.Mark)
		if err != nil {
			return fmt.Errorf("end what an earlier runner left in this output folder: %w", err)
		}
		x.addEnded(ended, "left by an earlier runner of this output folder")
	}
	if x.Recover != nil {
		fixed, err := x.Recover()
		for _, m := range fixed {
			x.display.Note(m)
		}
		if err != nil {
			x.display.Note("putting the output folder in order: " + err.Error())
		}
	}
	plan, err := planned(x.plan)
	if err != nil {
		return err
	}
	old, finished, err := x.earlier(plan)
	if err != nil {
		return err
	}
	e := &Execution{StartedAt: x.sum.StartedAt}
	if old != nil {
		e = old
		x.sum.Resumed = true
		var before []PlannedProfile
		if json.Unmarshal(old.Plan, &before) == nil {
			x.sum.Changes = comparePlans(before, plan)
		}
	} else {
		e.ID = cmp.Or(x.opts.Execution,
			newExecutionID(x.sum.StartedAt, append(slices.Clone(x.plan.Files), x.Host, x.Mark)...))
		e.Shard, e.Digest = x.Shard, x.opts.Digest
	}
	x.id, x.sum.Execution = e.ID, e.ID
	x.enqueue(finished)
	if old != nil && old.State == StateComplete && len(x.queue) == 0 {
		x.sum.AlreadyDone, x.sum.State = true, StateComplete
		return nil
	}
	if err := errors.Join(x.checkGPUs(ctx), x.checkPlacement(ctx)); err != nil {
		return err
	}
	return x.begin(e, plan)
}

// begin notes the execution.
func (x *executor) begin(e *Execution, plan []PlannedProfile) error {
	x.sum.State = StateRunning
	if x.History != nil {
		var err error
		for i := range plan {
			if x.Masker != nil {
				plan[i].Point = x.Masker.Value("", plan[i].Point).(string)
			}
		}
		if e.Plan, err = json.Marshal(plan); err != nil {
			return fmt.Errorf("note the plan of execution %s: %w", x.id, err)
		}
		e.Version, e.Host, e.Command, e.Files = x.Version, x.Host, x.Command, x.plan.Files
		e.Runs, e.Synthetic, e.State = x.sum.Planned, x.sum.Synthetic, StateRunning
		if err := x.History.BeginExecution(e); err != nil {
			return err
		}
	}
	x.display.Begin(&Schedule{Execution: x.id, Runs: x.sum.Planned, Kept: x.sum.Kept, Resumed: x.sum.Resumed,
		Changes: x.sum.Changes})
	return nil
}

// earlier finds the execution to go on with and what is finished of it; nil for
// a new one.
func (x *executor) earlier(plan []PlannedProfile) (*Execution, map[string]*Result, error) {
	if x.History == nil || !x.opts.Resume && x.opts.Execution == "" {
		return nil, nil, nil
	}
	all, err := x.History.Executions()
	if err != nil && len(all) == 0 {
		return nil, nil, fmt.Errorf("find the execution to resume: %w", err)
	}
	if err != nil {
		x.display.Note("an execution cannot be read and is passed over: " + err.Error())
	}
	old, err := x.goesOn(all, plan)
	if old == nil {
		return nil, nil, err
	}
	finished, err := x.History.Finished(old.ID)
	if err != nil && finished == nil {
		return nil, nil, fmt.Errorf("find out what is finished of execution %s: %w", old.ID, err)
	}
	if err != nil { // the damaged ones are kept as attempts
		x.display.Note("a result cannot be read; its run is due again: " + err.Error())
	}
	return old, finished, nil
}

// goesOn is the execution that Options name, or the last one of the sweeps of a plan
// in one piece; nil where a new one begins.
func (x *executor) goesOn(all []*Execution, plan []PlannedProfile) (*Execution, error) {
	if x.opts.Execution != "" {
		return x.named(all)
	}
	old := lastOf(slices.DeleteFunc(slices.Clone(all), func(e *Execution) bool {
		return len(e.Shards) > 0 || !sameSweeps(e, x.plan.Files, plan)
	}))
	switch {
	case old == nil:
		x.display.Note("no earlier execution of these sweeps is in the output folder: starting one")
	case old.State == StateComplete && !x.opts.ResumeOnly:
		x.display.Note("execution " + old.ID + " is complete: starting a new one")
		return nil, nil
	}
	return old, nil
}

// named finds the execution, or the shard of it, that Options name; nil: it has not
// begun. It must be of the same plan, cut in the same way.
func (x *executor) named(all []*Execution) (*Execution, error) {
	i := slices.IndexFunc(all, func(e *Execution) bool { return e.ID == x.opts.Execution })
	if i < 0 {
		return nil, nil
	}
	parts := all[i].Shards
	if len(parts) == 0 {
		parts = all[i : i+1]
	}
	var own *Execution
	for _, part := range parts {
		if part.Digest != x.opts.Digest || (part.Shard == "") != (x.Shard == "") {
			return nil, &MismatchError{fmt.Sprintf("execution %s was begun with another plan, or another number of shards "+
				"(%s on %s): run the same file, with the same variables and shards, or name another execution",
				part.ID, cmp.Or(part.Shard, "without shards"), part.Host)}
		}
		if part.Shard == x.Shard {
			own = part
		}
	}
	if own != nil && !x.opts.Resume {
		return nil, &MismatchError{fmt.Sprintf("execution %s has begun already (%s): --resume goes on with it, "+
			"or name another execution", own.ID, own.State)}
	}
	return own, nil
}

// sameSweeps reports whether an execution was of one of the sweeps at hand:
// several files may share an output folder.
func sameSweeps(e *Execution, files []string, plan []PlannedProfile) bool {
	var before []PlannedProfile
	if json.Unmarshal(e.Plan, &before) != nil || len(before) == 0 {
		return slices.Equal(e.Files, files)
	}
	names := map[string]bool{}
	for _, p := range plan {
		names[p.Sweep] = true
	}
	return slices.ContainsFunc(before, func(p PlannedProfile) bool { return names[p.Sweep] })
}

// RunID names a run: unique over executions, without a slash.
func RunID(execution string, p *sweep.Profile, repeat int) string {
	return strings.ReplaceAll(fmt.Sprintf("%s-%s-%s-r%d", execution, p.Sweep, p.ID, repeat), "/", "-")
}

// enqueue puts what has no final result into the queue, in the order of the
// plan. A GPU that others held is no result: such a run is due again.
func (x *executor) enqueue(finished map[string]*Result) {
	n := 0
	for _, s := range x.plan.Sweeps {
		for _, p := range s.Profiles {
			x.sum.Synthetic = x.sum.Synthetic || synthetic(p)
			for repeat := 1; repeat <= repeats(s); repeat++ {
				n++
				d := due{sweep: s, profile: p, repeat: repeat, id: RunID(x.id, p, repeat), n: n}
				if old := finished[d.id]; old != nil && old.Run.Outcome != OutcomeDirtyGPU &&
					old.Run.Outcome != OutcomeInterrupted {
					x.sum.Kept++
					x.count(old.Run.Outcome)
					x.rules.learn(s, p, old)
					x.alikeOf(s).over = x.alikeOf(s).over || old.Run.Outcome == OutcomeOK
					continue
				}
				x.queue = append(x.queue, d)
			}
		}
	}
	x.sum.Planned = n
}

func synthetic(p *sweep.Profile) bool { return p.Engine.Kind == "simulator" }

func (x *executor) count(o Outcome) {
	x.sum.Outcomes[o]++
	switch o {
	case OutcomeOK:
		x.sum.OK++
	case OutcomeSkipped:
		x.sum.Skipped++
	default:
		x.sum.Failed++
	}
}

// runOne makes the row of one run. stop ends the execution without an error.
func (l *lane) runOne(ctx context.Context, d due, next *due) (stop bool, err error) {
	if err := l.checkDisk(); err != nil {
		return false, err
	}
	if skip := l.skip(d); skip != nil {
		if err := l.keepRow(l.newJob(d, nil, 1), skip); err != nil {
			return false, err
		}
		l.locked(func() { l.count(OutcomeSkipped); l.sum.Remaining-- })
		l.display.RunEnds(d.n, skip)
		return false, nil
	}
	for attempt := 1; ; attempt++ {
		r, retriable, err := l.attempt(ctx, d, next, attempt)
		if err != nil {
			return false, err
		}
		if r == nil { // interrupted before anything was measured
			return true, nil
		}
		if r.Run.Outcome == OutcomeInterrupted {
			l.locked(func() { l.sum.Ran++ })
			l.display.RunEnds(d.n, r)
			return true, nil
		}
		cold := r.Start != nil && r.Start.TryCold
		if cold || retriable && attempt <= d.sweep.Limits.Retries {
			l.locked(func() { l.sum.Retried++ })
			wait := backOff(attempt)
			then := fmt.Sprintf("this can pass: attempt %d follows in %v", attempt+1, wait)
			if cold {
				wait, then = 0, fmt.Sprintf("the warm start may be at fault: attempt %d starts cold", attempt+1)
			}
			l.display.Note(fmt.Sprintf("%s: %s; %s", r.Run.Outcome, r.Run.OutcomeDetail, then))
			if l.sleep(ctx, wait) != nil {
				// The attempt is written and final unless the run is resumed: it
				// stays as it is.
				l.account(d, r)
				return true, nil
			}
			continue
		}
		l.account(d, r)
		return stopsOn(r, d.sweep) && l.lanes == 1, nil
	}
}

// backOff is 5 s, 10 s, 20 s, ... at most 2 min.
func backOff(attempt int) time.Duration {
	return min(5*time.Second<<min(attempt-1, 10), 2*time.Minute)
}

// stopsOn reports whether a run found its GPUs held by others and its sweep is
// not to use them then.
func stopsOn(r *Result, s *sweep.Sweep) bool {
	return r.Run.Outcome == OutcomeDirtyGPU && s.Limits.OnDirtyGPU == "stop"
}

// account notes a final row. Of several lanes one whose GPUs others hold leaves
// them out, and the others go on.
func (l *lane) account(d due, r *Result) {
	why := ""
	l.locked(func() {
		l.sum.Ran++
		l.sum.Remaining--
		l.count(r.Run.Outcome)
		l.rules.learn(d.sweep, d.profile, r)
		if why = l.failsAlike(d, r); !r.Run.Outcome.Failed() {
			return
		}
		l.failed[d.sweep]++
		if limit := d.sweep.Limits.MaxFailures; limit > 0 && l.failed[d.sweep] >= limit && !l.given[d.sweep] {
			l.given[d.sweep] = true
			why = fmt.Sprintf("sweep %q: max_failures = %d was reached", d.sweep.Name, limit)
		}
	})
	l.display.RunEnds(d.n, r)
	if stopsOn(r, d.sweep) {
		l.stopBy("on_dirty_gpu = \"stop\": " + r.Run.OutcomeDetail)
		l.leaveOut()
	}
	if why != "" {
		l.stopBy(why)
	}
}

func (x *executor) stopBy(why string) {
	x.locked(func() { x.sum.StoppedBy = cmp.Or(x.sum.StoppedBy, why) })
}

// keepRow writes a row of a run that was not measured.
func (x *executor) keepRow(job *Job, r *Result) error {
	sinks, err := x.beginSinks(job)
	if err != nil {
		return err
	}
	r.Run.EndedAt = r.Run.StartedAt
	return x.finishSinks(sinks, r)
}

// checkDisk refuses to start a run that could not be written.
func (x *executor) checkDisk() error {
	if x.FreeBytes == nil {
		return nil
	}
	free, err := x.FreeBytes()
	if err != nil {
		return fmt.Errorf("see how much room the disk of the output folder has: %w", err)
	}
	if free < minFree {
		return fmt.Errorf("the disk of the output folder has %d MiB free, a run must find %d MiB; "+
			"make room, then go on with run --resume", free>>20, minFree>>20)
	}
	return nil
}

// finish closes what is open and notes how the execution ended.
func (x *executor) finish(ctx context.Context, err error) error {
	x.sum.Interrupted = ctx.Err() != nil && x.sum.Remaining > 0
	if x.sum.Interrupted && x.sum.StoppedBy == "" {
		x.sum.StoppedBy = context.Cause(ctx).Error()
	}
	x.sum.State = StateInterrupted
	if err == nil {
		x.recount()
	}
	x.sum.EndedAt = x.now()
	x.sum.WallS = time.Since(x.begun).Seconds()
	if err != nil {
		x.sum.Error = err.Error()
	}
	for _, d := range x.took {
		x.sum.OverheadS += d.Seconds() / float64(len(x.took))
	}
	if x.killed() || x.History == nil {
		return err
	}
	if ferr := x.History.FinishExecution(x.id, x.sum.State, x.sum); ferr != nil {
		x.sum.State = StateInterrupted
		err = errors.Join(err, fmt.Errorf("bring the tables of execution %s up to date: %w", x.id, ferr))
		x.sum.Error = err.Error()
	}
	return err
}

// recount says what is still due: runs that were not reached, and the one that
// was interrupted.
func (x *executor) recount() {
	rows := 0
	for _, n := range x.sum.Outcomes {
		rows += n
	}
	x.sum.Remaining = x.sum.Planned - rows
	if x.sum.Remaining <= 0 {
		x.sum.State = StateComplete
	}
}

// killed reports whether everything has to end at once.
func (x *executor) killed() bool { return x.opts.Kill != nil && x.opts.Kill.Err() != nil }

func (x *executor) addEnded(list []Process, why string) {
	for i := range list {
		list[i].Ours = true
		if list[i].Note == "" {
			list[i].Note = why
		}
		x.display.Note(fmt.Sprintf("ended %s (PID %d), %s", list[i].Name, list[i].PID, why))
	}
	x.locked(func() { x.sum.Ended = append(x.sum.Ended, list...) })
}

func (x *executor) beginSinks(job *Job) ([]RunSink, error) {
	var sinks []RunSink
	for _, s := range x.Sinks {
		rs, err := s.Begin(job)
		if err != nil {
			return nil, errors.Join(err, closeSinks(sinks))
		}
		sinks = append(sinks, rs)
	}
	return sinks, nil
}

// closeSinks leaves attempts without a result, recoverable.
func closeSinks(sinks []RunSink) error {
	var err error
	for _, s := range sinks {
		if c, ok := s.(io.Closer); ok {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}

// finishSinks makes the result durable. Every sink is tried.
func (x *executor) finishSinks(sinks []RunSink, r *Result) error {
	var err error
	for _, s := range sinks {
		err = errors.Join(err, s.Finish(r))
	}
	if err != nil {
		return errors.Join(err, closeSinks(sinks))
	}
	return nil
}

// lockedDisplay keeps the promise that a Display is called one at a time.
type lockedDisplay struct {
	mu sync.Mutex
	to Display
}

func (d *lockedDisplay) do(f func(Display)) {
	if d.to == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d.to)
}

func (d *lockedDisplay) Begin(s *Schedule)         { d.do(func(to Display) { to.Begin(s) }) }
func (d *lockedDisplay) RunBegins(n int, job *Job) { d.do(func(to Display) { to.RunBegins(n, job) }) }
func (d *lockedDisplay) Progress(p Progress)       { d.do(func(to Display) { to.Progress(p) }) }
func (d *lockedDisplay) RunEnds(n int, r *Result)  { d.do(func(to Display) { to.RunEnds(n, r) }) }
func (d *lockedDisplay) Note(text string)          { d.do(func(to Display) { to.Note(text) }) }

// A pace foretells how long the rest takes: what was measured takes as long as
// what was measured before.
type pace struct {
	runs int
	took time.Duration
}

func (p *pace) add(d time.Duration) { p.runs++; p.took += d }

func (p *pace) eta(rest, lanes int, elapsed time.Duration) time.Duration {
	if p.runs == 0 {
		return 0
	}
	each := p.took / time.Duration(p.runs)
	return max(each-elapsed, 0) + each*time.Duration(max(rest, 0))/time.Duration(max(lanes, 1))
}

package vllm

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/vllm/log"
	"github.com/vramsweep/vramsweep/sweep"
)

//go:embed driver.py
var driver []byte

// driverName is the driver's name in the run folder; vLLM's workers import
// MemoryExtension from it.
const driverName = "vramsweep_driver.py"

// A Session runs profiles in mode "session": many of them on one vLLM engine. A
// small Python driver, started with vLLM's own interpreter, serves them one after
// another and talks over a pipe in JSON lines. What it measures is what `vllm
// bench latency` measures; what it adds is the truth that no log has: torch's
// own bytes on every rank and the scheduler's KV blocks.
//
// It implements runner.SharedEngine and serves one run at a time.
type Session struct {
	// BaseEnv is the environment (NAME=value) that the engines inherit.
	BaseEnv []string
	// Python is the command of vLLM's own Python.
	Python func(*sweep.Profile) ([]string, error)
	// Runs is how many runs are planned for each engine, by the profiles'
	// EngineKey; none where that is not known.
	Runs map[string]int
	// Grace is how long the engine may take to end; default 10 s.
	Grace time.Duration
	// Patience is how long an engine that served a profile may take to begin the
	// next; default 30 s.
	Patience time.Duration
	// Warm forks the drivers from a process that has vLLM imported; nil: none does.
	Warm *Warm

	current *process
}

// Prepare has the warm parent ready for a run that starts an engine.
func (e *Session) Prepare(ctx context.Context, job *runner.Job) {
	if python, err := e.Python(job.Profile); err == nil { // Run says what is wrong
		env, _ := childEnv(e.BaseEnv, job)
		e.launch(ctx, job, python, nil, env)
	}
}

// launch says how a driver is started.
func (e *Session) launch(ctx context.Context, job *runner.Job, python, argv, env []string) *launch {
	script := append([]string{filepath.Join(job.Dir, driverName)}, argv...)
	why := ""
	if !isPython(python) {
		why = fmt.Sprintf("%s is no Python alone: what it does cannot be seen", strings.Join(python, " "))
	}
	return e.Warm.prepare(ctx, job, python, script, why, env)
}

// Shares reports whether one engine can serve both profiles.
func (e *Session) Shares(a, b *sweep.Profile) bool { return a.EngineKey() == b.EngineKey() }

// Alive reports whether an engine for the profile is up.
func (e *Session) Alive(p *sweep.Profile) bool {
	return e.current != nil && e.current.key == p.EngineKey() && !e.current.gone()
}

// Close ends the engine, if there is one. It returns what outlived it.
func (e *Session) Close(context.Context) ([]runner.Process, error) { return e.end(true) }

// end ends the engine; an idle one is asked to quit first.
func (e *Session) end(idle bool) ([]runner.Process, error) {
	if e.current == nil {
		return nil, nil
	}
	exit, err := e.current.close(idle)
	e.current = nil
	if exit == nil {
		return nil, err
	}
	return leftovers(exit, "found by %s", "; "), err
}

// Run serves one run, on the engine that is up if it fits, else on a new one.
// The engine goes on living after the run only if it went well and
// Job.KeepEngine asks for it.
func (e *Session) Run(ctx context.Context, job *runner.Job) (*runner.Measurement, error) {
	m := &runner.Measurement{StartedAt: time.Now()}
	s, err := e.attempt(ctx, job, m)
	if err == nil && s.lost(ctx) {
		// The engine ended between two profiles: that is neither's fault.
		m.Notes = append(m.Notes,
			"the engine of the profiles before did not begin this one ("+m.Detail+"); a fresh one was started")
		m.Outcome, m.Detail = "", ""
		e.endFor(m, false)
		if err = s.abandon(); err == nil {
			s, err = e.attempt(ctx, job, m)
		}
	}
	if err != nil {
		return nil, err
	}
	m.Decided = m.Outcome != runner.OutcomeInterrupted
	idle := m.Outcome == runner.OutcomeOK || m.Outcome == runner.OutcomeBadArgument
	if !job.KeepEngine || !idle {
		e.endFor(m, idle)
		if exit := s.p.exit; exit != nil {
			m.ExitCode, m.Signal = exit.Code, exit.Signal
		}
	}
	m.EndedAt = time.Now()
	if err := s.finish(); err != nil {
		return m, err
	}
	s.explain()
	s.p.launch.judge(m)
	return m, nil
}

// attempt serves a run on the engine that is up if it fits, else on a new one,
// until the run is measured or has failed.
func (e *Session) attempt(ctx context.Context, job *runner.Job, m *runner.Measurement) (*serving, error) {
	if !e.Alive(job.Profile) {
		e.endFor(m, true)
		if err := e.open(ctx, job); err != nil {
			return nil, err
		}
	}
	p := e.current
	_, masker := childEnv(e.BaseEnv, job)
	s, err := p.begin(job, m, masker)
	if err != nil {
		return nil, err
	}
	m.Command, m.Env = p.command, p.env
	m.Session.GroupSize = e.Runs[p.key]
	s.serve(ctx, e.Patience)
	return s, nil
}

// endFor ends the engine and notes for the run at hand what came of it.
func (e *Session) endFor(m *runner.Measurement, idle bool) {
	left, err := e.end(idle)
	m.Leftovers = append(m.Leftovers, left...)
	if err != nil {
		m.Notes = append(m.Notes, fmt.Sprintf("the engine did not end well: %v", err))
	}
}

// open starts the driver.
func (e *Session) open(ctx context.Context, job *runner.Job) error {
	python, err := e.Python(job.Profile)
	if err != nil {
		return err
	}
	flags, err := engineFlags(job.Profile, job.Devices)
	if err != nil {
		return err
	}
	env, masker := childEnv(e.BaseEnv, job)
	path := filepath.Join(job.Dir, driverName)
	if err := writeDriver(path); err != nil {
		return fmt.Errorf("write the session driver: %w", err)
	}
	argv := driverArgs(python, path, flags)
	start := e.launch(ctx, job, python, argv[len(python)+1:], env)
	at := job.Dir
	for _, e := range env {
		if others, ok := strings.CutPrefix(e, "PYTHONPATH="); ok && others != "" {
			at = job.Dir + string(os.PathListSeparator) + others
		}
	}
	env = setEnv(env, "PYTHONPATH", at)
	e.current, err = open(job.Profile.EngineKey(), start, inLane(
		proc.Spec{Argv: argv, Env: env, Mark: job.Mark, Grace: e.Grace}, job))
	if err != nil {
		return fmt.Errorf("start the session driver: %w", err)
	}
	e.current.command, e.current.env = masker.Argv(argv), knownEnv(start.env, masker)
	return nil
}

func writeDriver(path string) error {
	file, err := runner.CreateFile(path)
	if err != nil {
		return err
	}
	_, err = file.Write(driver)
	return errors.Join(err, file.Close())
}

// Command is what runs a profile, for people: in session mode the driver, which
// serves the other profiles of its engine as well.
func Command(p *sweep.Profile) ([]string, error) {
	if p.Engine.Mode != "session" {
		return Args(p, Paths{OutputJSON: resultName})
	}
	flags, err := engineFlags(p, nil)
	python := p.Engine.Python
	if len(python) == 0 {
		python = []string{"python"}
	}
	return driverArgs(python, driverName, flags), err
}

// driverArgs starts the driver, which inherits its ends of the pipes as
// descriptors 3 and 4.
func driverArgs(python []string, path string, flags []string) []string {
	return slices.Concat(python, []string{path, "3", "4", "--"}, flags)
}

// serve sends the request once the engine is ready and collects the answers
// until the profile is measured or has failed, or the run's context ends: its
// cause is the Runner's to read.
func (s *serving) serve(ctx context.Context, patience time.Duration) {
	m := s.m
	if s.p.isReady() {
		s.job.Pulse.Ready()
		s.ask(ctx)
	}
	over := s.patience(patience)
	for m.Outcome == "" {
		select {
		case <-over:
			if over = nil; !s.begun {
				m.Outcome, m.Detail = runner.OutcomeEngineError, "the session driver took the request and did not begin"
			}
		case <-ctx.Done():
			m.Outcome, m.Detail = runner.OutcomeInterrupted, context.Cause(ctx).Error()
		case item, ok := <-s.p.replies:
			if !ok {
				m.Outcome, m.Detail = runner.OutcomeEngineError, s.p.closed(ctx)
				return
			}
			s.job.Pulse.Output(time.Now())
			s.take(ctx, item)
		}
	}
}

// explain lets the log have the last word on a failure of the engine.
func (s *serving) explain() {
	m := s.m
	if m.Account == nil || m.Account.Error == nil {
		if m.Outcome.Failed() {
			m.ErrorLine = s.masker.Text(s.lastErr)
		}
		return
	}
	switch m.Outcome {
	case runner.OutcomeEngineError:
		m.Outcome, m.Retriable = log.OutcomeOf(m.Account.Error)
	case runner.OutcomeOOM:
	default:
		return
	}
	// What the driver sees is often only that the engine is dead: the log knows
	// why.
	m.ErrorLine, _, _ = strings.Cut(m.Account.Error.Message, "\n")
	switch advice := m.Account.Error.Advice; {
	case advice != "":
		m.Detail = m.Account.Error.Kind + ": " + advice
	default:
		m.Detail = m.ErrorLine
	}
}

// A serving is one run on an engine.
type serving struct {
	p       *process
	job     *runner.Job
	m       *runner.Measurement
	reader  *log.Reader
	logs    rawLogs
	masker  *proc.Masker
	asked   bool
	begun   bool // the driver has begun the profile
	lastErr string
	events  []runner.LogEvent
	garbage int
}

// lost reports whether an engine that had served other profiles failed before
// it began this one.
func (s *serving) lost(ctx context.Context) bool {
	return s.m.Session.Position > 0 && !s.begun && s.m.Outcome == runner.OutcomeEngineError && ctx.Err() == nil
}

// defaultPatience is that of Engine.Patience: a collective call to idle workers
// takes milliseconds.
const defaultPatience = 30 * time.Second

// patience ends where an engine that was idle should have begun; an engine that
// still starts has the sweep's own limit.
func (s *serving) patience(limit time.Duration) <-chan time.Time {
	if s.m.Session.Position == 0 {
		return nil
	}
	if limit <= 0 {
		limit = defaultPatience
	}
	return time.After(limit)
}

// abandon gives up a run's files, which its next engine begins again.
func (s *serving) abandon() error {
	_, wroteErr := s.p.end()
	_, err := s.logs.close()
	return errors.Join(wroteErr, err)
}

// ask sends the profile to the driver, when it is its turn to measure.
func (s *serving) ask(ctx context.Context) {
	if s.asked {
		return
	}
	s.asked = true
	if err := s.job.Turn.Take(ctx); err != nil {
		s.m.Outcome, s.m.Detail = runner.OutcomeInterrupted, err.Error()
		return
	}
	settings := s.job.Profile.Settings
	warmup, iters := int64(10), int64(30) // the defaults of `vllm bench latency`
	err := s.p.send(request{
		ID: s.p.served, Op: "profile", ProfileID: s.job.Profile.ID, Repeat: s.job.Repeat,
		InputLen: settings.InputLen, OutputLen: settings.OutputLen, BatchSize: settings.BatchSize,
		NumItersWarmup: *cmp.Or(settings.NumItersWarmup, &warmup), NumIters: *cmp.Or(settings.NumIters, &iters),
	})
	if err != nil {
		s.m.Outcome, s.m.Detail = runner.OutcomeEngineError, fmt.Sprintf("the session driver takes no request: %v", err)
	}
}

// take handles one line of the driver.
func (s *serving) take(ctx context.Context, item item) {
	m := s.m
	if item.err != nil {
		s.garbage++
		if s.garbage <= 3 {
			m.Notes = append(m.Notes, "on the session pipe: "+s.masker.Text(item.err.Error()))
		}
		return
	}
	r := item.reply
	if r.ID != 0 && r.ID != s.p.served {
		return // an answer to a profile that was given up
	}
	s.mark(r)
	switch r.Event {
	case "ready":
		s.p.setReady(r)
		s.job.Pulse.Ready()
		s.m.Session.Torch = append(s.m.Session.Torch, r.Torch.readings("engine_ready")...)
		s.ask(ctx)
	case "profile_start":
		s.begun = true
		s.m.Session.Torch = append(s.m.Session.Torch, r.Torch.readings("profile_start")...)
	case "warmed_up":
		s.m.Session.Torch = append(s.m.Session.Torch, r.Torch.readings("warmed_up")...)
	case "result":
		s.result(r)
	case "error":
		m.Detail = s.masker.Text(r.Message)
		m.Outcome = map[string]runner.Outcome{"oom": runner.OutcomeOOM, "bad_argument": runner.OutcomeBadArgument}[r.Kind]
		if m.Outcome == "" {
			m.Outcome = runner.OutcomeEngineError
		}
	case "failed":
		m.Detail, m.Outcome = s.masker.Text(r.Message), runner.OutcomeEngineError
	}
}

// result keeps what the profile measured.
func (s *serving) result(r *reply) {
	m := s.m
	s.m.Session.Torch = append(s.m.Session.Torch, r.Torch.readings("measured")...)
	if why := r.Torch.reason(); why != "" && len(s.m.Session.Torch) == 0 {
		m.Notes = append(m.Notes, "no figures from torch: "+s.masker.Text(why))
	}
	s.engineFigures(r.Engine)
	stats, err := r.stats(s.job.Profile.Settings.BatchSize, s.job.Profile.Settings.OutputLen)
	switch {
	case errors.Is(err, errNoLatency):
		m.Outcome, m.Detail = runner.OutcomeNoResult, "the session driver sent a result without latencies"
	case err != nil:
		m.Outcome, m.Detail = runner.OutcomeNoResult, "the session driver's result: "+err.Error()
	default:
		m.Latency, m.Outcome = stats, runner.OutcomeOK
	}
}

// engineFigures keeps what the scheduler said.
func (s *serving) engineFigures(r *engineReply) {
	if r == nil {
		return
	}
	s.m.Session.KVUsedBlocksPeak, s.m.Session.WaitingPeak = r.KVUsedBlocksPeak, r.WaitingPeak
	s.m.Session.Preemptions = r.Preemptions
	if r.KVUsedBlocksPeak != nil && r.BlockSize != nil {
		tokens := *r.KVUsedBlocksPeak * *r.BlockSize
		s.m.Session.KVUsedTokensPeak = &tokens
	}
	if r.Reason != "" {
		s.m.Notes = append(s.m.Notes, "no figures from the engine: "+s.masker.Text(r.Reason))
	}
}

// mark turns an answer into a moment of the run.
func (s *serving) mark(r *reply) {
	kinds := map[string][]runner.EventKind{
		"profile_start": {runner.EventRequestStart, runner.EventWarmupStart},
		"warmup_iter":   {runner.EventWarmupIter},
		"warmed_up":     {runner.EventMeasureStart},
		"iter":          {runner.EventMeasureIter},
		"result":        {runner.EventMeasureEnd, runner.EventRequestEnd},
		"error":         {runner.EventError},
	}
	for _, kind := range kinds[r.Event] {
		s.events = append(s.events, runner.LogEvent{Kind: kind, Arrived: wallClock(r.T), Rank: -1, File: "session",
			Took: time.Duration(r.LatencyS * float64(time.Second))})
	}
	phases := map[string]runner.Phase{
		"ready": runner.PhaseEngineWarmup, "profile_start": runner.PhaseBenchWarmup, "warmed_up": runner.PhaseMeasure,
	}
	if phase := phases[r.Event]; phase != "" {
		note := "profile " + strconv.Itoa(s.m.Session.Position+1) + " of this engine"
		s.job.Progress(runner.Progress{Phase: phase, Note: note})
	}
}

// finish closes the run's files and fills the measurement from its log.
func (s *serving) finish() error {
	m := s.m
	if !s.p.gone() {
		s.p.settle() // its last words may still be on their way
	}
	var wroteErr, err error
	s.lastErr, wroteErr = s.p.end() // first: from here on nothing writes to the run's files
	m.Logs, err = s.logs.close()
	m.Account = s.reader.Last()
	if s.m.Session.Position == 0 {
		m.Events = s.reader.Events() // later runs did not see the start of the engine
	}
	m.Events = append(m.Events, s.events...)
	if m.Outcome == "" {
		m.Outcome = runner.OutcomeEngineError
	}
	return errors.Join(wroteErr, err)
}

package vllm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/vllm/log"
)

// Latency runs profiles in mode "latency": one `vllm bench latency` a run. It
// implements runner.Engine.
//
// The limits of time are the Runner's: it ends the context of a run that takes
// too long or falls silent, as job.Pulse tells it.
type Latency struct {
	// BaseEnv is the environment (NAME=value) that the runs inherit.
	BaseEnv []string
	// Grace is how long vLLM may take to end after SIGTERM; 0: proc's default.
	Grace time.Duration
	// Warm forks the runs from a process that has vLLM imported; nil: none does.
	Warm *Warm
}

// resultName is the benchmark's result file in a run's folder.
const resultName = "latency.json"

// Prepare has the warm parent ready.
func (e *Latency) Prepare(ctx context.Context, job *runner.Job) {
	if argv, err := Args(job.Profile, Paths{}); err == nil { // Run says what is wrong
		env, _ := childEnv(e.BaseEnv, job)
		e.launch(ctx, job, argv, env)
	}
}

// launch says how a run is started.
func (e *Latency) launch(ctx context.Context, job *runner.Job, argv, env []string) *launch {
	python, script, why := scriptOf(job.Profile, argv, env)
	return e.Warm.prepare(ctx, job, python, script, why, env)
}

// Run runs one attempt.
func (e *Latency) Run(ctx context.Context, job *runner.Job) (*runner.Measurement, error) {
	dir, err := filepath.Abs(job.Dir)
	if err != nil {
		return nil, fmt.Errorf("folder of run %s: %w", job.RunID, err)
	}
	result := filepath.Join(dir, resultName)
	env, masker := childEnv(e.BaseEnv, job)
	m := &runner.Measurement{StartedAt: time.Now(), Env: knownEnv(env, masker)}
	argv, err := Args(job.Profile, Paths{OutputJSON: result, Devices: job.Devices})
	m.Command = masker.Argv(argv)
	if err != nil {
		m.Outcome, m.Detail, m.EndedAt = runner.OutcomeBadArgument, err.Error(), time.Now()
		return m, nil
	}
	if err := os.Remove(result); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the result file of an earlier attempt is in the way: %w", err)
	}
	a := &attempt{job: job, m: m, masker: masker, dir: dir, warmsUp: make(chan struct{})}
	a.reader = log.NewReader(log.ReaderOptions{Event: a.event, Mask: masker.Text})
	exit, err := a.run(ctx, e, argv, env)
	if err != nil {
		return nil, err
	}
	a.finish(exit, result)
	a.launch.judge(m)
	return m, nil
}

// An attempt is one run of the benchmark while it goes on.
type attempt struct {
	job     *runner.Job
	m       *runner.Measurement
	masker  *proc.Masker
	reader  *log.Reader
	dir     string
	launch  *launch
	phase   runner.Phase
	iters   int
	lastErr string // last line of stderr
	lines   int64

	measures sync.Once
	warmsUp  chan struct{} // closed when the benchmark is about to measure
}

// run starts the program and returns when nothing of it is left.
func (a *attempt) run(ctx context.Context, e *Latency, argv, env []string) (*proc.Exit, error) {
	logs, err := openRawLogs(a.dir, a.masker)
	if err != nil {
		return nil, err
	}
	a.enter(runner.PhaseEngineInit, "")
	a.launch = e.launch(ctx, a.job, argv, env)
	p, err := a.launch.begin(ctx, inLane(proc.Spec{
		Argv: argv, Env: env, Mark: a.job.Mark, Grace: e.Grace, Line: a.line, Stdout: logs[0], Stderr: logs[1],
	}, a.job))
	if err != nil {
		_, closeErr := logs.close()
		err = errors.Join(err, closeErr)
		if errors.Is(err, proc.ErrNotFound) {
			return nil, fmt.Errorf("%w; install vLLM, put its environment's bin on PATH, or name its path: "+
				"command = [\"/opt/venv/bin/vllm\"] in the engine block, --command with profile", err)
		}
		return nil, fmt.Errorf("run %s: %w", a.job.RunID, err)
	}
	a.m.Env = knownEnv(a.launch.env, a.masker)
	a.job.Pulse.SetTree(p.Tree)
	turn, end := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() { a.awaitTurn(turn, p) })
	exit, waitErr := p.Wait()
	end()
	waiting.Wait()
	a.job.Pulse.SetTree(nil)
	var closeErr error
	a.m.Logs, closeErr = logs.close()
	if exit == nil {
		return nil, fmt.Errorf("run %s: %w", a.job.RunID, errors.Join(waitErr, closeErr))
	}
	if err := errors.Join(waitErr, closeErr); err != nil {
		a.note(err.Error())
	}
	return exit, nil
}

// awaitTurn holds the benchmark up, once it is about to warm up, until it may
// measure: it knows no pause of its own. Its end, or that of ctx, ends the waiting.
func (a *attempt) awaitTurn(ctx context.Context, p proc.Process) {
	select {
	case <-a.warmsUp:
	case <-ctx.Done():
		return
	}
	if a.job.Turn.Exclusive() {
		p.Pause()
		defer p.Resume()
	}
	_ = a.job.Turn.Take(ctx) // whatever ended ctx ends the benchmark too
}

func (a *attempt) note(s string) {
	if a.m.Detail != "" {
		a.m.Detail += "; "
	}
	a.m.Detail += s
}

// line takes one line of the program's output.
func (a *attempt) line(l proc.Line) {
	a.lines++
	a.job.Pulse.Output(l.Arrived)
	give(a.reader, l)
	if l.Stream == "stderr" && !l.CR && len(l.Text) > 0 {
		a.lastErr = shorten(strings.ToValidUTF8(string(l.Text[:min(len(l.Text), 2*maxText)]), "�"))
	}
}

// give hands a line of a program to the reader of its log.
func give(reader *log.Reader, l proc.Line) {
	if l.CR || l.More {
		reader.Part(l.Stream, l.Text, l.Arrived)
	} else {
		reader.Line(l.Stream, l.Text, l.Arrived)
	}
}

// event follows the moments of the run.
func (a *attempt) event(e runner.LogEvent) {
	switch e.Kind {
	case runner.EventWarmupStart, runner.EventWarmupIter, runner.EventMeasureStart:
		a.measures.Do(func() { close(a.warmsUp) })
	}
	switch e.Kind {
	case runner.EventEngineReady, runner.EventWarmupStart, runner.EventMeasureStart:
		a.job.Pulse.Ready()
	case runner.EventMeasureIter:
		a.iters++
		a.enter(runner.PhaseMeasure, "iteration "+strconv.Itoa(a.iters))
		return
	}
	p := runner.ReachedBy(e.Kind)
	if e.Kind == runner.EventShutdown {
		p = runner.PhaseTeardown
	}
	// The ranks of an engine reach a phase a little apart, and the display does
	// not go back.
	if p.Order() > a.phase.Order() {
		a.enter(p, "")
	}
}

func (a *attempt) enter(p runner.Phase, note string) {
	a.phase = p
	if a.job.Progress != nil {
		a.job.Progress(runner.Progress{Phase: p, Note: note})
	}
}

// finish turns what was read and left into the measurement.
func (a *attempt) finish(exit *proc.Exit, result string) {
	m := a.m
	m.StartedAt, m.EndedAt, m.ExitCode, m.Signal = exit.StartedAt, exit.EndedAt, exit.Code, exit.Signal
	m.Leftovers = leftovers(exit, "outlived vLLM (%s)", " and ")
	m.Account, m.Events = a.reader.Last(), a.reader.Events()
	s := a.job.Profile.Settings
	latency, err := ReadLatency(result, s.BatchSize, s.OutputLen)
	m.Latency = latency
	a.outcome(exit, err)
}

// outcome says how the run ended. A result that was written counts, even if
// vLLM stumbled over its own end afterwards.
func (a *attempt) outcome(exit *proc.Exit, resultErr error) {
	m := a.m
	ended := strings.Replace(ending(exit), "signal ", "signal: ", 1)
	clean := exit.Code != nil && *exit.Code == 0
	m.Decided = exit.Stopped == ""
	switch {
	case exit.Stopped != "" && resultErr == nil:
		m.Outcome = runner.OutcomeInterrupted
		a.note("stopped after the result was written: " + exit.Stopped)
	case exit.Stopped != "":
		m.Outcome = runner.OutcomeInterrupted
		a.note("stopped: " + exit.Stopped)
		a.failed()
	case resultErr == nil:
		m.Outcome = runner.OutcomeOK
		if !clean {
			a.note("vLLM wrote its result and then ended with " + ended)
		}
	case clean && (m.Account == nil || m.Account.Error == nil):
		m.Outcome = runner.OutcomeNoResult
		a.note(resultErr.Error())
		if a.lines == 0 {
			a.note("vLLM printed nothing")
		}
	default:
		var e *runner.AccountError
		if m.Account != nil {
			e = m.Account.Error
		}
		if m.Outcome, m.Retriable = log.OutcomeOf(e); e == nil {
			m.Retriable = exit.Signal == "killed"
		}
		a.note("vLLM ended with " + ended)
		a.failed()
	}
}

// failed adds what the log says of the failure.
func (a *attempt) failed() {
	m := a.m
	if m.Account == nil || m.Account.Error == nil {
		m.ErrorLine = a.masker.Text(a.lastErr)
		return
	}
	e := m.Account.Error
	first, _, _ := strings.Cut(e.Message, "\n")
	m.ErrorLine = shorten(first)
	if e.Advice != "" {
		a.note(e.Kind + ": " + e.Advice)
	} else {
		a.note(e.Kind)
	}
}

// maxText bounds what is kept of a line.
const maxText = 500

// shorten cuts a line to maxText bytes, between two characters.
func shorten(s string) string {
	if n := maxText; len(s) > n {
		for s[n]&0xC0 == 0x80 {
			n--
		}
		s = s[:n]
	}
	return strings.TrimSpace(s)
}

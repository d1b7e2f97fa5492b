package vllm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// Latency runs profiles in mode "latency": one `vllm bench latency` a run. It
// implements runner.Engine.
//
// The limits of time are the Runner's: it ends the context of a run that takes
// too long or falls silent, as job.Pulse tells it.
type Latency struct {
	// BaseEnv is the environment (NAME=value) that the runs inherit.
	BaseEnv []string
	// Start starts programs; nil: proc.Start.
	Start func(context.Context, proc.Spec) (proc.Process, error)
	// Grace is how long vLLM may take to end after SIGTERM; 0: proc's default.
	Grace time.Duration
}

// resultName is the benchmark's result file in a run's folder.
const resultName = "latency.json"

// Run runs one attempt.
func (e *Latency) Run(ctx context.Context, job *runner.Job) (*runner.Measurement, error) {
	dir, err := filepath.Abs(job.Dir)
	if err != nil {
		return nil, fmt.Errorf("folder of run %s: %w", job.RunID, err)
	}
	result := filepath.Join(dir, resultName)
	env, sensitive := runEnv(e.BaseEnv, job)
	masker := proc.NewMasker(env, sensitive...)
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
	a := &attempt{job: job, m: m, masker: masker, dir: dir}
	a.reader = NewReader(ReaderOptions{Event: a.event, Mask: masker.Text})
	exit, err := a.run(ctx, e, argv, env)
	if err != nil {
		return nil, err
	}
	a.finish(exit, result)
	return m, nil
}

// An attempt is one run of the benchmark while it goes on.
type attempt struct {
	job     *runner.Job
	m       *runner.Measurement
	masker  *proc.Masker
	reader  *Reader
	dir     string
	phase   runner.Phase
	iters   int
	logs    []*rawLog
	lastErr string // last line of stderr
	lines   int64
}

// run starts the program and returns when nothing of it is left.
func (a *attempt) run(ctx context.Context, e *Latency, argv, env []string) (*proc.Exit, error) {
	stdout, err := newRawLog(a.dir, "stdout", a.masker)
	if err != nil {
		return nil, err
	}
	stderr, err := newRawLog(a.dir, "stderr", a.masker)
	if err != nil {
		return nil, errors.Join(err, stdout.close())
	}
	a.logs = []*rawLog{stdout, stderr}
	start := e.Start
	if start == nil {
		start = proc.Start
	}
	a.enter(runner.PhaseEngineInit, "")
	p, err := start(ctx, proc.Spec{Argv: argv, Env: env, Mark: a.job.Mark, Grace: e.Grace, Line: a.line, Stdout: stdout, Stderr: stderr})
	if err != nil {
		err = errors.Join(err, stdout.close(), stderr.close())
		if errors.Is(err, proc.ErrNotFound) {
			return nil, fmt.Errorf("%w: install vLLM, put its environment's bin on PATH, or name it in the engine block, command = [\"/opt/venv/bin/vllm\"]", err)
		}
		return nil, fmt.Errorf("run %s: %w", a.job.RunID, err)
	}
	a.job.Pulse.SetTree(p.Tree)
	exit, waitErr := p.Wait()
	a.job.Pulse.SetTree(nil)
	closeErr := errors.Join(stdout.close(), stderr.close())
	if exit == nil {
		return nil, fmt.Errorf("run %s: %w", a.job.RunID, errors.Join(waitErr, closeErr))
	}
	if err := errors.Join(waitErr, closeErr); err != nil {
		a.note(err.Error())
	}
	return exit, nil
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
	if l.CR || l.More {
		a.reader.Part(l.Stream, l.Text, l.Arrived)
	} else {
		a.reader.Line(l.Stream, l.Text, l.Arrived)
	}
	if l.Stream == "stderr" && !l.CR && len(l.Text) > 0 {
		a.lastErr = strings.TrimSpace(cut(strings.ToValidUTF8(head(string(l.Text), 2*maxText), "�"), maxText))
	}
}

// phaseOf is the phase that a moment begins.
func phaseOf(kind runner.EventKind) runner.Phase {
	switch kind {
	case runner.EventLoadStart:
		return runner.PhaseLoad
	case runner.EventLoadEnd, runner.EventProfileStart:
		return runner.PhaseProfile
	case runner.EventProfileEnd:
		return runner.PhaseKVAlloc
	case runner.EventCaptureStart:
		return runner.PhaseCapture
	case runner.EventCaptureEnd:
		return runner.PhaseEngineWarmup
	case runner.EventEngineReady, runner.EventWarmupStart:
		return runner.PhaseBenchWarmup
	case runner.EventMeasureStart:
		return runner.PhaseMeasure
	case runner.EventMeasureEnd, runner.EventShutdown:
		return runner.PhaseTeardown
	}
	return ""
}

// event follows the moments of the run.
func (a *attempt) event(e runner.LogEvent) {
	switch e.Kind {
	case runner.EventEngineReady, runner.EventWarmupStart, runner.EventMeasureStart:
		a.job.Pulse.Ready()
	case runner.EventMeasureIter:
		a.iters++
		a.enter(runner.PhaseMeasure, "iteration "+strconv.Itoa(a.iters))
		return
	}
	if p := phaseOf(e.Kind); phaseOrder(p) > phaseOrder(a.phase) {
		a.enter(p, "")
	}
}

// phaseOrder counts the phases: the ranks of an engine reach one a little
// apart, and the display does not go back.
func phaseOrder(p runner.Phase) int {
	return slices.Index([]runner.Phase{
		runner.PhaseBaseline, runner.PhaseEngineInit, runner.PhaseLoad, runner.PhaseProfile, runner.PhaseKVAlloc, runner.PhaseCapture,
		runner.PhaseEngineWarmup, runner.PhaseBenchWarmup, runner.PhaseMeasure, runner.PhaseTeardown, runner.PhaseFinal,
	}, p)
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
	for _, l := range a.logs {
		m.Logs = append(m.Logs, l.describe())
	}
	for _, l := range exit.Leftovers {
		note := "outlived vLLM (" + l.How + "); ended"
		if l.Left {
			note = "outlived vLLM (" + l.How + ") and could not be ended"
		}
		m.Leftovers = append(m.Leftovers, runner.Process{PID: l.PID, Name: l.Name, Ours: true, Note: note})
	}
	accounts := a.reader.Accounts()
	m.Events = a.reader.Events()
	if len(accounts) > 0 {
		m.Account = accounts[len(accounts)-1]
	}
	s := a.job.Profile.Settings
	latency, err := ReadLatency(result, s.BatchSize, s.OutputLen)
	m.Latency = latency
	a.outcome(exit, err)
}

// outcome says how the run ended. A result that was written counts, even if
// vLLM stumbled over its own end afterwards.
func (a *attempt) outcome(exit *proc.Exit, resultErr error) {
	m := a.m
	ended := "exit code unknown"
	switch {
	case exit.Code != nil:
		ended = "exit code " + strconv.Itoa(*exit.Code)
	case exit.Signal != "":
		ended = "signal: " + exit.Signal
	}
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
		m.Outcome, m.Retriable = OutcomeOf(e, exit)
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
	m.ErrorLine = cut(first, maxText)
	if e.Advice != "" {
		a.note(e.Kind + ": " + e.Advice)
	} else {
		a.note(e.Kind)
	}
}

// runEnv is the environment of a run: the inherited one, what vramsweep needs,
// the run's GPUs, then the sweep's own variables, which have the last word.
func runEnv(base []string, job *runner.Job) (env, sensitive []string) {
	env = append([]string(nil), base...)
	env = setEnv(env, "PYTHONUNBUFFERED", "1") // or lines arrive long after they were printed
	env = visibleDevices(env, job.Devices)
	if job.Sweep != nil {
		for _, v := range job.Sweep.Env {
			env = setEnv(env, v.Name, v.Value)
			if v.Sensitive {
				sensitive = append(sensitive, v.Value)
			}
		}
	}
	return env, sensitive
}

// visibleDevices lets the run see its own GPUs and no others, numbered as the
// driver numbers them.
func visibleDevices(env []string, devices []runner.Device) []string {
	if len(devices) == 0 {
		return env
	}
	ids := make([]string, len(devices))
	for i, d := range devices {
		ids[i] = strconv.Itoa(d.Index)
		if d.MIG && d.UUID != "" {
			ids[i] = d.UUID
		}
		if d.ComputeIndex != nil { // HIP counts in another order than the bus
			ids[i] = strconv.Itoa(*d.ComputeIndex)
		}
	}
	list := strings.Join(ids, ",")
	if devices[0].Vendor == "amd" {
		// HIP counts within what ROCR and CUDA_VISIBLE_DEVICES leave: one of the
		// three only.
		env = unsetEnv(unsetEnv(env, "ROCR_VISIBLE_DEVICES"), "CUDA_VISIBLE_DEVICES")
		return setEnv(env, "HIP_VISIBLE_DEVICES", list)
	}
	env = setEnv(env, "CUDA_DEVICE_ORDER", "PCI_BUS_ID")
	return setEnv(env, "CUDA_VISIBLE_DEVICES", list)
}

func setEnv(env []string, name, value string) []string {
	return append(unsetEnv(env, name), name+"="+value)
}

func unsetEnv(env []string, name string) []string {
	out := env[:0:0]
	for _, e := range env {
		if n, _, _ := strings.Cut(e, "="); n != name {
			out = append(out, e)
		}
	}
	return out
}

// knownEnv is what of an environment moves the figures, without secrets.
func knownEnv(env []string, masker *proc.Masker) map[string]string {
	all := masker.Env(env)
	for name := range all {
		keep := false
		for _, prefix := range []string{"VLLM_", "CUDA_", "HIP_", "ROCR_", "ROCM_", "NCCL_", "RCCL_", "PYTORCH_", "TORCH", "HF_", "TRANSFORMERS_", "PYTHON", "OMP_", "NVIDIA_", "TRITON_", "VRAMSWEEP_"} {
			keep = keep || strings.HasPrefix(name, prefix)
		}
		if !keep && name != "LD_PRELOAD" && name != "LD_LIBRARY_PATH" && name != "VIRTUAL_ENV" {
			delete(all, name)
		}
	}
	return all
}

// A rawLog keeps a stream whole, but for secrets.
type rawLog struct {
	name   string
	file   *os.File
	masked io.WriteCloser
	hash   hash.Hash
	bytes  int64
	tail   []byte
}

const tailBytes = 4 << 10

func newRawLog(dir, name string, masker *proc.Masker) (*rawLog, error) {
	f, err := runner.CreateFile(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("raw log: %w", err)
	}
	l := &rawLog{name: name, file: f, hash: sha256.New()}
	l.masked = masker.Writer(writerFunc(l.keep))
	return l, nil
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (l *rawLog) Write(b []byte) (int, error) { return l.masked.Write(b) }

// keep writes what is left of a line without its secrets.
func (l *rawLog) keep(b []byte) (int, error) {
	n, err := l.file.Write(b)
	l.hash.Write(b[:n])
	l.bytes += int64(n)
	if l.tail = append(l.tail, b[:n]...); len(l.tail) > 4*tailBytes {
		l.tail = append(l.tail[:0], l.tail[len(l.tail)-tailBytes:]...)
	}
	return n, err
}

func (l *rawLog) close() error {
	if err := errors.Join(l.masked.Close(), l.file.Close()); err != nil {
		return fmt.Errorf("raw log %s: %w", l.name, err)
	}
	return nil
}

func (l *rawLog) describe() runner.RawLog {
	if len(l.tail) > tailBytes {
		l.tail = l.tail[len(l.tail)-tailBytes:]
		for len(l.tail) > 0 && l.tail[0]&0xC0 == 0x80 {
			l.tail = l.tail[1:] // the rest of a character that was cut
		}
	}
	return runner.RawLog{
		Name: l.name, Path: l.name + ".log", Bytes: l.bytes,
		SHA256: hex.EncodeToString(l.hash.Sum(nil)), Tail: strings.ToValidUTF8(string(l.tail), "�"),
	}
}

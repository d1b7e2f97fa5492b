package vllm

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/vllm/log"
	"github.com/vramsweep/vramsweep/sweep"
)

//go:embed warm.py
var warmProgram []byte

// A Warm starts runs from a Python process that has vLLM imported already: the
// warm parent, which forks a child for each run and initialises no GPU. One Warm
// serves one run after another, of latency and of session mode; runs side by
// side need one each. It starts its parent when a run first wants one, and
// another when that has died or the next sweep's environment asks for it.
//
// A nil Warm starts everything cold.
type Warm struct {
	// Mark is the parent's: not that of the runs, which are ended apart.
	Mark string
	// Starts is how many engines are to be started; "auto" starts a single one cold.
	Starts int
	// Grace is how long the parent may take to end; default 10 s.
	Grace time.Duration

	parent *parent
	sweep  *sweep.Sweep      // whose environment the parent has
	off    map[string]string // the command of a Python: why no parent of it serves
	tried  map[string]string // a run: why its warm start failed
	wrong  int               // runs that failed warm and went well cold
}

// Starts counts the engines of vLLM that a plan starts, if none fails: one a run,
// in session mode one a group.
func Starts(plan *sweep.Plan) int {
	n, seen := 0, map[string]bool{}
	for _, s := range plan.Sweeps {
		for _, p := range s.Profiles {
			switch key := p.EngineKey(); {
			case p.Engine.Kind != "vllm":
			case p.Engine.Mode != "session":
				n += max(s.Repeats, 1)
			case !seen[key]:
				seen[key] = true
				n++
			}
		}
	}
	return n
}

// forkTime is how long the parent may take to fork: milliseconds, on a machine
// that is not starved.
const forkTime = time.Minute

// importTime is how long the parent's imports may take where the sweep has no
// startup_timeout.
const importTime = 15 * time.Minute

// errParent marks a parent that cannot fork.
var errParent = errors.New("the warm parent")

// A launch is how one run is to be started.
type launch struct {
	warm   *Warm
	parent *parent // nil: cold
	start  *runner.Start
	script []string // argv without the Python before it
	python []string
	job    *runner.Job
	env    []string // of the program, once it has begun
}

// prepare has the parent ready for a run that can start warm.
func (w *Warm) prepare(ctx context.Context, job *runner.Job, python, script []string, why string, env []string) *launch {
	l := &launch{warm: w, job: job, python: python, script: script, start: &runner.Start{Mode: "cold", Reason: why}}
	if w == nil || job.Profile.Engine.Start == "cold" {
		l.start.Reason = ""
		return l
	}
	if l.start.Reason = cmp.Or(why, w.whyCold(job, python, env)); l.start.Reason != "" {
		return l
	}
	if err := w.open(ctx, job, python, script[0], env); err != nil {
		l.start.Reason = err.Error()
		return l
	}
	l.parent = w.parent
	l.start.Mode = "warm"
	return l
}

// whyCold says what keeps a run from starting warm; "" if nothing does.
func (w *Warm) whyCold(job *runner.Job, python, env []string) string {
	switch {
	case runtime.GOOS != "linux":
		return "warm starts need Linux"
	case w.tried[job.RunID] != "":
		return w.tried[job.RunID]
	case w.Starts < 2 && job.Profile.Engine.Start != "warm":
		return "one start alone gains nothing"
	case w.off[strings.Join(python, " ")] != "":
		return w.off[strings.Join(python, " ")]
	case slices.ContainsFunc(env, func(e string) bool { return !utf8.ValidString(e) }):
		return "the environment holds a value that is not UTF-8"
	}
	if p := w.parent; p != nil && !p.gone() && w.sweep == job.Sweep && slices.Equal(p.python, python) {
		if name := p.conflict(env); name != "" {
			return name + " is read when vLLM is imported and differs from what the warm parent imported it with"
		}
	}
	return ""
}

// open makes sure that a parent is there which suits the run.
func (w *Warm) open(ctx context.Context, job *runner.Job, python []string, script string, env []string) error {
	if p := w.parent; p != nil {
		if !p.gone() && slices.Equal(p.python, python) && p.conflict(env) == "" {
			w.sweep = job.Sweep
			return nil
		}
		w.end()
	}
	limit := importTime
	if job.Sweep != nil && job.Sweep.Limits.StartupTimeout > 0 {
		limit = job.Sweep.Limits.StartupTimeout
	}
	p, err := openParent(ctx, proc.Spec{
		Argv: slices.Concat(python, []string{"-", "3", script}), Env: env, Mark: w.Mark, Grace: w.Grace,
		Stdin: bytes.NewReader(warmProgram), NoCgroup: true, Alone: true,
	}, limit)
	if err == nil && p.WhyNot != "" {
		err = fmt.Errorf("%w cannot be forked: %s", errParent, p.WhyNot)
		p.end()
	}
	if err != nil {
		if ctx.Err() == nil {
			w.switchOff(python, err.Error())
		}
		return err
	}
	p.python = python
	w.parent, w.sweep = p, job.Sweep
	return nil
}

func (w *Warm) switchOff(python []string, why string) {
	if w.off == nil {
		w.off = map[string]string{}
	}
	w.off[strings.Join(python, " ")] = why
}

// end ends the parent. The runs that it forked are not its own.
func (w *Warm) end() {
	if w.parent != nil {
		w.parent.end()
		w.parent = nil
	}
}

// Close ends the parent, if there is one.
func (w *Warm) Close() {
	if w != nil {
		w.end()
	}
}

// begin starts the program: forked by the parent, or executed. A parent that
// turns out to be dead is started again once.
func (l *launch) begin(ctx context.Context, spec proc.Spec) (proc.Process, error) {
	if l.env = spec.Env; l.parent == nil {
		return proc.Start(ctx, spec)
	}
	plain := spec.Env
	for range 2 {
		spec.Fork = l.fork
		spec.Env = plain
		if l.job.Profile.Engine.Mode != "session" && !hasEnv(plain, workerMethod) {
			spec.Env = setEnv(plain, workerMethod, "fork")
		}
		p, err := proc.Start(ctx, spec)
		if !errors.Is(err, errParent) || ctx.Err() != nil {
			l.env, l.start.EngineProcess = spec.Env, l.engineProcess(spec.Env)
			return p, err
		}
		l.start.Reason = err.Error()
		l.warm.end()
		if err := l.warm.open(ctx, l.job, l.python, l.script[0], plain); err != nil {
			l.start.Reason = err.Error()
			break
		}
		l.parent = l.warm.parent
	}
	l.parent, l.start.Mode, spec.Fork, spec.Env = nil, "cold", nil, plain
	return proc.Start(ctx, spec)
}

// workerMethod is how vLLM makes its engine process and its workers. The command
// asks for spawn unless this is set, and each of them imports vLLM again.
const workerMethod = "VLLM_WORKER_MULTIPROC_METHOD"

func hasEnv(env []string, name string) bool {
	return slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
}

// engineProcess says how vLLM will make its engine process, as far as that is
// known beforehand.
func (l *launch) engineProcess(env []string) string {
	switch {
	case slices.Contains(env, workerMethod+"=spawn"):
		return "spawn, as the environment asks: it imports vLLM again"
	case l.parent.Device == "cpu":
		return "spawn, which vLLM's CPU build forces for the engine and for its worker: each imports vLLM again"
	}
	return "fork"
}

// fork is the proc.Fork of this launch.
func (l *launch) fork(f *proc.Forked) (int, func() error, error) {
	pid, release, err := l.parent.fork(l.script, f)
	if err != nil {
		return 0, nil, err
	}
	p := l.parent
	l.start.Reason = ""
	l.start.Parent = &runner.WarmParent{
		PID: p.proc.PID(), ImportS: p.ImportS, RSSBytes: p.RSS, PSSBytes: p.PSS, Threads: p.Threads, Served: p.served,
	}
	return pid, release, nil
}

// judge looks at how a run that started warm ended: one that vLLM's own words
// do not explain is tried cold once.
func (l *launch) judge(m *runner.Measurement) {
	w := l.warm
	start := *l.start // a session's engine starts once for all of its runs
	m.Start = &start
	if m.Session != nil && m.Session.Position > 0 {
		m.Start.ImportS = nil
		miss(m, "start.import_s", "the engine was up already")
	} else if start.ImportS = untilEngine(m); start.ImportS == nil {
		miss(m, "start.import_s", "the log has no first line of the engine process")
	}
	switch {
	case w == nil:
	case l.parent == nil:
		if w.tried[l.job.RunID] != "" && m.Outcome == runner.OutcomeOK {
			if w.wrong++; w.wrong > 1 {
				w.switchOff(l.python, fmt.Sprintf("%d runs failed in a warm start and went well cold", w.wrong))
				w.end()
			}
		}
	case unexplained(m) && (m.Session == nil || m.Session.Position == 0):
		if w.tried == nil {
			w.tried = map[string]string{}
		}
		w.tried[l.job.RunID] = "its warm start failed: " + cmp.Or(m.ErrorLine, m.Detail)
		m.Start.TryCold = true
	}
}

func miss(m *runner.Measurement, field, why string) {
	if m.Missing == nil {
		m.Missing = map[string]string{}
	}
	m.Missing[field] = why
}

// untilEngine is from the start of a run to the first line of its engine process.
func untilEngine(m *runner.Measurement) *float64 {
	for _, e := range m.Events {
		if e.Kind == runner.EventEngineInit && !e.Arrived.IsZero() {
			return new(e.Arrived.Sub(m.StartedAt).Seconds())
		}
	}
	return nil
}

// unexplained reports whether a failure may be that of the way in which the run
// was started: no limit broke, and the log names none of vLLM's own failures.
func unexplained(m *runner.Measurement) bool {
	if m.Outcome != runner.OutcomeEngineError && m.Outcome != runner.OutcomeNoResult || m.Signal == "killed" {
		return false
	}
	if m.Account == nil || m.Account.Error == nil {
		return true
	}
	e := m.Account.Error
	return e.Kind == log.KindUnknown || e.Kind == log.KindWorkerDied || strings.Contains(e.Message, "forked subprocess")
}

// A parent is a warm parent that is up, or was.
type parent struct {
	readyReply
	python []string
	env    map[string]string
	asked  map[string]bool
	proc   proc.Process
	conn   *net.UnixConn
	lines  *bufio.Reader
	last   atomic.Pointer[string] // its last line of output
	done   chan struct{}
	served int
}

// readyReply is what the parent says of itself once vLLM is imported, and again
// after each fork.
type readyReply struct {
	Event   string   `json:"event"` // ready, forked, failed
	Message string   `json:"message"`
	PID     int      `json:"pid"`       // of a run
	ImportS float64  `json:"import_s"`  // what its imports took
	WhyNot  string   `json:"why_not"`   // it must not be forked
	Asked   []string `json:"asked"`     // variables that the imports read
	Device  string   `json:"device"`    // vLLM's name of the platform's device
	Threads int      `json:"threads"`   // of the parent
	RSS     *int64   `json:"rss_bytes"` // resident
	PSS     *int64   `json:"pss_bytes"` // its share of what it shares with its children
}

// openParent starts a parent and waits until vLLM is imported.
func openParent(ctx context.Context, spec proc.Spec, limit time.Duration) (*parent, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: socket: %w", errParent, err)
	}
	theirs, file := os.NewFile(uintptr(fds[0]), "warm parent"), os.NewFile(uintptr(fds[1]), "warm parent")
	ours, err := net.FileConn(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: socket: %w", errParent, err), theirs.Close())
	}
	p := &parent{conn: ours.(*net.UnixConn), done: make(chan struct{})} //nolint:forcetypeassert // of AF_UNIX
	p.lines = bufio.NewReader(p.conn)
	spec.ExtraFiles = []*os.File{theirs}
	spec.Line = func(l proc.Line) {
		if text := string(bytes.TrimSpace(l.Text)); text != "" {
			p.last.Store(&text)
		}
	}
	// It outlives the run for which it is started: Close ends it.
	p.proc, err = proc.Start(context.WithoutCancel(ctx), spec)
	if err = errors.Join(err, theirs.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errParent, err), p.conn.Close())
	}
	go func() {
		_, _ = p.proc.Wait() // how it ended is told by who talks to it
		close(p.done)
	}()
	ready, err := p.hear(ctx, limit)
	if err != nil {
		p.end()
		return nil, fmt.Errorf("%w did not import vLLM: %w", errParent, p.explain(err))
	}
	p.readyReply = *ready
	p.env, p.asked = envMap(spec.Env), map[string]bool{}
	for _, name := range p.Asked {
		p.asked[name] = true
	}
	return p, nil
}

func envMap(env []string) map[string]string {
	all := make(map[string]string, len(env))
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok {
			all[name] = value
		}
	}
	return all
}

// explain adds the parent's last words to an error.
func (p *parent) explain(err error) error {
	if last := p.last.Load(); last != nil {
		return fmt.Errorf("%w; it last said: %s", err, shorten(*last))
	}
	return err
}

// hear reads the next line of the parent.
func (p *parent) hear(ctx context.Context, limit time.Duration) (*readyReply, error) {
	if err := p.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = p.conn.SetDeadline(time.Unix(1, 0)) })()
	line, err := readLine(p.lines)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("no answer within %v", limit)
	case err != nil:
		return nil, fmt.Errorf("it ended: %w", err)
	}
	reply := new(readyReply)
	if err := json.Unmarshal(line, reply); err != nil {
		return nil, fmt.Errorf("its answer is no JSON: %w", err)
	}
	if reply.Event == "failed" {
		return nil, errors.New(reply.Message)
	}
	return reply, nil
}

// forkRequest asks for a run; its descriptors travel beside it.
type forkRequest struct {
	Argv   []string `json:"argv"` // the script and its arguments
	Env    []string `json:"env"`
	Mark   string   `json:"mark"`
	Dir    string   `json:"dir,omitempty"`
	Runner int      `json:"runner"` // the PID of this process, whose child the run becomes
}

// fork has the parent fork a run. The child waits at a gate until release.
func (p *parent) fork(script []string, f *proc.Forked) (pid int, release func() error, err error) {
	closed, gate, err := os.Pipe()
	if err != nil {
		return 0, nil, fmt.Errorf("gate of a forked run: %w", err)
	}
	defer closed.Close() //nolint:errcheck // only read from, by the child
	request, err := json.Marshal(forkRequest{Argv: script, Env: f.Env, Mark: f.Mark, Dir: f.Dir, Runner: os.Getpid()})
	if err == nil {
		pid, err = p.ask(append(request, '\n'), append([]*os.File{closed}, f.Files...))
	}
	if err != nil {
		return 0, nil, errors.Join(fmt.Errorf("%w did not fork: %w", errParent, p.explain(err)), gate.Close())
	}
	p.served++
	return pid, func() error {
		_, err := gate.Write([]byte("g"))
		return errors.Join(err, gate.Close())
	}, nil
}

// ask sends a request with its descriptors and reads the answer.
func (p *parent) ask(request []byte, files []*os.File) (pid int, err error) {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	if err := p.conn.SetDeadline(time.Now().Add(forkTime)); err != nil {
		return 0, err
	}
	n, _, err := p.conn.WriteMsgUnix(request, syscall.UnixRights(fds...), nil)
	if err == nil && n < len(request) {
		_, err = p.conn.Write(request[n:])
	}
	if err != nil {
		return 0, err
	}
	reply, err := p.hear(context.Background(), forkTime)
	if err != nil {
		return 0, err
	}
	p.RSS, p.PSS = reply.RSS, reply.PSS
	return reply.PID, nil
}

// gone reports whether the parent has ended.
func (p *parent) gone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// end ends the parent: it exits when its socket closes.
func (p *parent) end() {
	_ = p.conn.Close() // all that was asked has been answered
	select {
	case <-p.done:
	case <-time.After(time.Second):
		p.proc.Stop("no run needs it any more")
		<-p.done
	}
}

// conflict names a variable that a run has another way than the parent and that
// counts when vLLM is imported: the imports asked for it, or a library under
// Python reads it when it is loaded. "": there is none.
func (p *parent) conflict(env []string) string {
	theirs := envMap(env)
	names := slices.Sorted(maps.Keys(theirs))
	for name := range p.env {
		if _, ok := theirs[name]; !ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if a, had := p.env[name]; a == theirs[name] && had == hasEnv(env, name) {
			continue
		}
		if p.asked[name] || readByLibraries(name) {
			return name
		}
	}
	return ""
}

// readByLibraries reports whether a variable is of those that the loader, the C
// library, Python, torch's libraries and those of the vendors read by themselves,
// where no import statement shows it. Which GPUs are visible is read when a GPU
// is first used, which a parent never does.
func readByLibraries(name string) bool {
	switch name {
	case "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", proc.MarkVar:
		return false
	}
	return slices.ContainsFunc([]string{
		"LD_", "MALLOC_", "GLIBC_", "TCMALLOC", "MIMALLOC", "JEMALLOC", "PYTHON", "OMP_", "KMP_", "GOMP_", "MKL_",
		"OPENBLAS_", "PYTORCH_", "TORCH", "C10_", "CUDA_", "NVIDIA_", "HIP_", "HSA_", "ROCR_", "LC_", "LANG", "TZ",
	}, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// scriptOf finds the Python and the script behind the command of a profile, or
// says why a run of it cannot start warm.
func scriptOf(p *sweep.Profile, argv, env []string) (python, script []string, why string) {
	if len(p.Engine.Benchmark) > 0 {
		return nil, nil, "benchmark names a command of its own"
	}
	path, err := proc.LookPath(argv[0], env, "")
	if err != nil {
		return nil, nil, "" // the start says it
	}
	python, err = proc.Interpreter(path)
	if err != nil || !isPython(python) {
		return nil, nil, path + " is no Python script (its first line names no Python): what it does cannot be seen"
	}
	return python, append([]string{path}, argv[1:]...), ""
}

// isPython reports whether a command is a Python and options: no wrapper.
func isPython(command []string) bool {
	if len(command) > 1 && filepath.Base(command[0]) == "env" {
		command = command[1:]
	}
	return len(command) > 0 && strings.HasPrefix(filepath.Base(command[0]), "python") &&
		!slices.ContainsFunc(command[1:], func(arg string) bool { return !strings.HasPrefix(arg, "-") })
}

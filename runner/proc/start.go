package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	defaultGrace  = 10 * time.Second
	defaultSettle = 2 * time.Second
	killWait      = 30 * time.Second // a process that frees much pinned memory takes long to die
	drainWait     = time.Second      // for the end of output once the tree is gone
)

// killKey is the context key of WithKill.
type killKey struct{}

// WithKill gives a context whose programs end at once (SIGKILL, no grace) when
// kill ends: the second Ctrl-C. The context itself ends as ctx does.
func WithKill(ctx, kill context.Context) context.Context {
	return context.WithValue(ctx, killKey{}, kill)
}

// KillContext is the kill of WithKill; nil if there is none.
func KillContext(ctx context.Context) context.Context {
	kill, _ := ctx.Value(killKey{}).(context.Context)
	return kill
}

// process is the Process of Start.
type process struct {
	spec Spec
	cmd  *exec.Cmd
	mark string
	tree *tree
	out  [2]*reader

	release  func() error // lets a forked program begin; nil where it was executed
	started  time.Time
	stopOnce sync.Once
	killOnce sync.Once
	stop     chan struct{}
	kill     chan struct{}
	reason   atomic.Pointer[string]
	stopAt   atomic.Pointer[time.Time] // when the group was told to end

	exited chan struct{} // closed when the leader has exited; it is not reaped yet
	reap   chan struct{} // closed to have it reaped
	reaped chan struct{}
	ended  time.Time // of the leader; set before exited is closed

	// Of the supervisor alone.
	left   []Leftover
	killed bool // SIGKILL was sent to all

	done chan struct{}
	exit *Exit
	err  error
}

// Start runs a program. It fails if the program does not exist or cannot be
// executed (errors.Is(err, ErrNotFound) tells a missing one), and leaves
// nothing behind then. The end of ctx is a Stop with its cause; see WithKill.
//
// The caller must call Wait.
func Start(ctx context.Context, spec Spec) (Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start %v: %w", spec.Argv, context.Cause(ctx))
	}
	p, err := prepare(spec)
	if err != nil {
		return nil, err
	}
	pipes, err := p.openPipes()
	if err != nil {
		return nil, err
	}
	p.tree.prepare(p.mark, !spec.NoCgroup, spec.Beside)
	if err := p.launch(); err != nil {
		pipes.closeAll()
		p.tree.close()
		return nil, fmt.Errorf("start %s: %w", spec.Argv[0], err)
	}
	pipes.closeChildEnds()
	p.tree.begin(p.cmd.Process.Pid)
	if p.release != nil {
		_ = p.release() // a child that is dead already is seen to have exited
	}
	for _, r := range p.out {
		go r.run()
	}
	if pipes.feed != nil {
		go func() {
			defer func() { _ = pipes.feed.Close() }() // the program has what it read
			_, _ = io.Copy(pipes.feed, spec.Stdin)    // EPIPE: the program does not read on
		}()
	}
	go p.supervise(ctx)
	return p, nil
}

func prepare(spec Spec) (*process, error) {
	if len(spec.Argv) == 0 {
		return nil, errors.New("start: no program given (empty argv)")
	}
	if spec.Grace <= 0 {
		spec.Grace = defaultGrace
	}
	if spec.Settle <= 0 {
		spec.Settle = defaultSettle
	}
	cmd := &exec.Cmd{Args: spec.Argv, Dir: spec.Dir, ExtraFiles: spec.ExtraFiles}
	env := spec.Env
	if env == nil {
		env = cmd.Environ()
	}
	path, err := LookPath(spec.Argv[0], env, spec.Dir)
	if err != nil {
		return nil, err
	}
	cmd.Path = path
	mark := uniqueMark(spec.Mark)
	cmd.Env = childEnv(env, mark)
	t, err := newTree(spec.Root, mark)
	if err != nil {
		return nil, err
	}
	return &process{
		spec: spec, cmd: cmd, mark: mark, tree: t,
		stop: make(chan struct{}), kill: make(chan struct{}),
		exited: make(chan struct{}), reap: make(chan struct{}), reaped: make(chan struct{}),
		done: make(chan struct{}),
	}, nil
}

// childEnv adds the mark. SPT_NOENV keeps Python's setproctitle, which vLLM's
// workers call, from writing their title over the environment in
// /proc/PID/environ: the mark would be lost with it.
func childEnv(env []string, mark string) []string {
	env = setenv(env, MarkVar, mark)
	if lookup(env, "SPT_NOENV") == "" {
		env = setenv(env, "SPT_NOENV", "1")
	}
	return env
}

// pipeEnds are both ends of the output pipes.
type pipeEnds struct {
	read, write [2]*os.File
	stdin, feed *os.File
}

func (e *pipeEnds) closeChildEnds() {
	if e.stdin != nil {
		_ = e.stdin.Close() // nothing was written to it here
	}
	for _, f := range e.write {
		if f != nil {
			_ = f.Close() // nothing was written to it here
		}
	}
}

func (e *pipeEnds) closeAll() {
	e.closeChildEnds()
	if e.feed != nil {
		_ = e.feed.Close() // nothing was written to it yet
	}
	for _, f := range e.read {
		if f != nil {
			_ = f.Close() // only read from
		}
	}
}

func (p *process) openPipes() (*pipeEnds, error) {
	var e pipeEnds
	var lineMu sync.Mutex
	for i, name := range []string{"stdout", "stderr"} {
		r, w, err := os.Pipe()
		if err != nil {
			e.closeAll()
			return nil, fmt.Errorf("start %s: pipe for its %s: %w", p.spec.Argv[0], name, err)
		}
		e.read[i], e.write[i] = r, w
		raw := []io.Writer{p.spec.Stdout, p.spec.Stderr}[i]
		p.out[i] = newReader(name, r, raw, p.spec.Line, &lineMu)
	}
	p.cmd.Stdout, p.cmd.Stderr = e.write[0], e.write[1]
	if p.spec.StdoutFile != nil { // the pipe above ends as soon as the program has started
		p.cmd.Stdout = p.spec.StdoutFile
	}
	if err := p.openStdin(&e); err != nil {
		e.closeAll()
		return nil, fmt.Errorf("start %s: pipe for its stdin: %w", p.spec.Argv[0], err)
	}
	return &e, nil
}

// openStdin feeds the program's input from a goroutine that nobody waits for:
// a reader that never ends does not hold up a program that does.
func (p *process) openStdin(e *pipeEnds) error {
	if p.spec.Stdin == nil {
		return nil // os/exec opens /dev/null
	}
	if f, ok := p.spec.Stdin.(*os.File); ok {
		p.cmd.Stdin = f
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	p.cmd.Stdin = r
	e.stdin, e.feed = r, w
	return nil
}

// launch starts the program from a thread that stays for as long as the program
// runs: the kernel's parent-death signal is tied to the thread, and tells the
// program when vramsweep is killed.
func (p *process) launch() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		p.cmd.SysProcAttr = p.tree.sysProcAttr()
		p.started = time.Now()
		err := withCPUs(p.spec.CPUs, func() error {
			if p.spec.Fork != nil {
				return p.fork()
			}
			err := p.cmd.Start()
			if err != nil && p.tree.dropCgroup() {
				err = p.restart()
			}
			return err
		})
		result <- err
		if err != nil {
			return
		}
		waitExited(p.cmd.Process.Pid)
		p.ended = time.Now()
		close(p.exited)
		<-p.reap
		_ = p.cmd.Wait() // its state says how it ended
		close(p.reaped)
	}()
	return <-result
}

// restart tries once more without a cgroup: a kernel or a container that
// refuses to start a process in one is no reason to refuse the run.
func (p *process) restart() error {
	old := p.cmd
	p.cmd = &exec.Cmd{Path: old.Path, Args: old.Args, Env: old.Env, Dir: old.Dir, Stdin: old.Stdin,
		Stdout: old.Stdout, Stderr: old.Stderr, ExtraFiles: old.ExtraFiles, SysProcAttr: p.tree.sysProcAttr()}
	p.started = time.Now()
	return p.cmd.Start()
}

// fork has the program started by Spec.Fork. os/exec waits for it as for one
// that it started.
func (p *process) fork() error {
	files := []*os.File{p.cmd.Stdout.(*os.File), p.cmd.Stderr.(*os.File)} //nolint:forcetypeassert // openPipes set them
	pid, release, err := p.spec.Fork(&Forked{
		Path: p.cmd.Path, Argv: p.cmd.Args, Env: p.cmd.Env, Mark: p.mark, Dir: p.cmd.Dir, Files: append(files, p.cmd.ExtraFiles...),
	})
	if err != nil {
		return err
	}
	p.release = release
	p.tree.take(pid)
	if err := setCPUs(pid, p.spec.CPUs); err != nil {
		return err
	}
	p.cmd.Process, err = os.FindProcess(pid)
	return err
}

func (p *process) PID() int { return p.cmd.Process.Pid }

func (p *process) Tree() []int { return p.tree.pids() }

func (p *process) Pause() {
	p.tree.scan(true)
	p.tree.signalAll(syscall.SIGSTOP)
}

func (p *process) Resume() {
	p.tree.scan(true)
	p.tree.signalAll(syscall.SIGCONT)
}

func (p *process) Stop(reason string) {
	p.reason.CompareAndSwap(nil, &reason)
	p.stopOnce.Do(func() { close(p.stop) })
}

func (p *process) Kill(reason string) {
	p.reason.CompareAndSwap(nil, &reason)
	p.killOnce.Do(func() { close(p.kill) })
}

func (p *process) Wait() (*Exit, error) {
	<-p.done
	return p.exit, p.err
}

// supervise sees the program to its end, then its tree, then its output.
func (p *process) supervise(ctx context.Context) {
	defer close(p.done)
	exit := &Exit{StartedAt: p.started}
	finished := make(chan struct{})
	defer close(finished)
	go p.follow(ctx, finished)

	p.untilExit()
	exit.Leftovers = p.endTree()
	more, outErr := p.drain()
	exit.Leftovers = append(exit.Leftovers, more...)
	close(p.reap)
	exit.EndedAt = time.Now()
	select {
	case <-p.reaped:
		exit.EndedAt = p.ended
		p.describe(exit)
	case <-time.After(killWait):
		outErr = errors.Join(outErr, fmt.Errorf("%s (PID %d) does not die, not even of SIGKILL: it hangs in the kernel",
			p.spec.Argv[0], p.PID()))
	}
	if r := p.reason.Load(); r != nil {
		exit.Stopped = *r
	}
	p.tree.close()
	p.exit, p.err = exit, outErr
}

// follow turns the ends of the contexts into Stop and Kill.
func (p *process) follow(ctx context.Context, finished <-chan struct{}) {
	kill := KillContext(ctx)
	var killed <-chan struct{}
	if kill != nil {
		killed = kill.Done()
	}
	ended := ctx.Done()
	for {
		select {
		case <-ended:
			p.Stop(context.Cause(ctx).Error())
			ended = nil
		case <-killed:
			p.Kill(context.Cause(kill).Error())
			return
		case <-finished:
			return
		}
	}
}

// untilExit returns when the program has exited, by itself or by signal, or
// does not die.
func (p *process) untilExit() {
	wait := p.watchEvery()
	for {
		select {
		case <-p.exited:
			return
		case <-p.kill:
			p.untilKilled()
			return
		case <-p.stop:
			p.tree.scan(true) // who left the group can best be seen while its parents live
			now := time.Now()
			p.stopAt.Store(&now)
			p.tree.signalGroup(syscall.SIGTERM)
			select {
			case <-p.exited:
			case <-p.kill:
				p.untilKilled()
			case <-time.After(p.spec.Grace):
				p.untilKilled()
			}
			return
		case <-time.After(wait):
			p.tree.scan(false)
			wait = p.watchEvery()
		}
	}
}

// watchEvery is how long to wait between two looks at the tree.
func (p *process) watchEvery() time.Duration {
	if p.spec.Alone {
		return 24 * time.Hour
	}
	return p.tree.watchEvery()
}

func (p *process) untilKilled() {
	p.tree.scan(true)
	p.left = p.tree.leftovers(true)
	p.tree.killAll()
	p.killed = true
	select {
	case <-p.exited:
	case <-time.After(killWait):
	}
}

// endTree waits for what the program left, then ends it: SIGTERM, grace,
// SIGKILL. What outlives its time is a leftover.
func (p *process) endTree() []Leftover {
	if p.killed {
		p.killRest()
		return p.tree.stillThere(mergeLeftovers(p.left, p.tree.leftovers(false)))
	}
	p.tree.scan(true)
	patience := p.spec.Settle
	if at := p.stopAt.Load(); at != nil {
		// The group has heard of it; who left the group has not.
		p.tree.signalOutside(syscall.SIGTERM)
		patience = max(p.spec.Grace-time.Since(*at), 0)
	}
	if p.goneWithin(patience) {
		return nil
	}
	left := p.tree.leftovers(false)
	if p.stopAt.Load() == nil {
		p.tree.signalAll(syscall.SIGTERM)
		if p.goneWithin(p.spec.Grace) {
			return left
		}
		left = mergeLeftovers(left, p.tree.leftovers(false))
	}
	p.killRest()
	return p.tree.stillThere(left)
}

// goneWithin polls until nothing of the tree lives, for at most limit; a Kill
// ends the patience.
func (p *process) goneWithin(limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if p.tree.gone() {
			return true
		}
		if !time.Now().Before(deadline) {
			return false
		}
		select {
		case <-p.kill:
			return false
		case <-time.After(pause):
		}
	}
}

// killRest sends SIGKILL until nothing lives or killWait has passed: a member
// may start others while it is being killed.
func (p *process) killRest() {
	deadline := time.Now().Add(killWait)
	for pause := time.Millisecond; time.Now().Before(deadline); pause = min(2*pause, 100*time.Millisecond) {
		p.tree.killAll()
		time.Sleep(pause)
		if p.tree.gone() {
			return
		}
	}
}

// drain waits for the end of output. Who still holds the pipe although the tree
// is gone is of the tree as well, and hid from it.
func (p *process) drain() ([]Leftover, error) {
	var left []Leftover
	if !p.readersDone(drainWait) {
		if p.tree.adoptHolders(p.out[0].pipe, p.out[1].pipe) {
			left = p.tree.leftovers(false)
			p.killRest()
			left = p.tree.stillThere(left)
		}
	}
	var errs []error
	if !p.readersDone(drainWait) {
		for _, r := range p.out {
			_ = r.file.Close() // ends the pending read
		}
		errs = append(errs, fmt.Errorf("%s: a process that could not be found holds its output open; "+
			"what it writes from now on is lost", p.spec.Argv[0]))
		p.readersDone(drainWait)
	}
	for _, r := range p.out {
		if err := r.err.Load(); err != nil {
			errs = append(errs, *err)
		}
	}
	return left, errors.Join(errs...)
}

// readersDone waits for the readers for as long as they make progress, and for
// patience beyond that.
func (p *process) readersDone(patience time.Duration) bool {
	for _, r := range p.out {
		for last := int64(-1); ; {
			select {
			case <-r.done:
			case <-time.After(patience):
				if n := r.bytes.Load(); n != last || r.busy.Load() {
					last = n
					continue
				}
				return false
			}
			break
		}
	}
	return true
}

// describe reads how the leader ended.
func (p *process) describe(exit *Exit) {
	state := p.cmd.ProcessState
	if state == nil {
		return
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		exit.Signal = ws.Signal().String()
	} else {
		code := state.ExitCode()
		exit.Code = &code
	}
	if ru, ok := state.SysUsage().(*syscall.Rusage); ok && ru != nil {
		exit.CPU = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
		exit.MaxRSS = maxRSSBytes(ru)
	}
}

func mergeLeftovers(a, b []Leftover) []Leftover {
	seen := make(map[int]bool, len(a))
	for _, l := range a {
		seen[l.PID] = true
	}
	for _, l := range b {
		if !seen[l.PID] {
			a = append(a, l)
		}
	}
	return a
}

// A reader takes one stream of output.
type reader struct {
	name  string
	file  *os.File
	pipe  string // "pipe:[12345]", as /proc/PID/fd names it
	raw   io.Writer
	lines *splitter
	mu    *sync.Mutex // of both streams: one Line at a time
	bytes atomic.Int64
	busy  atomic.Bool // in a callback
	err   atomic.Pointer[error]
	done  chan struct{}
}

func newReader(name string, f *os.File, raw io.Writer, line func(Line), mu *sync.Mutex) *reader {
	r := &reader{name: name, file: f, pipe: pipeName(f), raw: raw, mu: mu, done: make(chan struct{})}
	if line != nil {
		r.lines = &splitter{stream: name, emit: line}
	}
	return r
}

// run reads to the end. An error of the raw writer (a full disk) does not stop
// it: the program must not block on its output.
func (r *reader) run() {
	defer close(r.done)
	defer func() { _ = r.file.Close() }() // only read from
	buf := make([]byte, 64<<10)
	for {
		n, err := r.file.Read(buf)
		if n > 0 {
			r.take(buf[:n], time.Now())
		}
		if err != nil {
			break
		}
	}
	if r.lines != nil {
		r.mu.Lock()
		r.lines.end(time.Now())
		r.mu.Unlock()
	}
}

func (r *reader) take(b []byte, now time.Time) {
	r.busy.Store(true)
	if r.raw != nil && r.err.Load() == nil {
		if _, failed := r.raw.Write(b); failed != nil {
			err := fmt.Errorf("keep %s: %w (the rest of it is not kept)", r.name, failed)
			r.err.Store(&err) // only here does it escape: a read allocates nothing
		}
	}
	if r.lines != nil {
		r.mu.Lock()
		r.lines.feed(b, now)
		r.mu.Unlock()
	}
	r.bytes.Add(int64(len(b)))
	r.busy.Store(false)
}

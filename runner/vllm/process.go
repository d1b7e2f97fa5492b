package vllm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/vllm/log"
)

// maxStartup bounds what is kept of the engine's start-up log for the runs that
// follow the first.
const maxStartup = 8 << 20

// A process is one engine that is up, or was.
type process struct {
	key     string
	launch  *launch
	command []string
	env     map[string]string
	proc    proc.Process
	feed    *os.File // our end of the pipe to the driver
	replies chan item
	done    chan struct{} // closed when nothing of the tree is left
	exit    *proc.Exit
	exitErr error
	served  int // the number of the request that is being served

	mu      sync.Mutex
	ready   *reply
	startup []proc.Line     // its lines
	raw     [2]bytes.Buffer // of start-up: stdout, stderr
	pending [2]bytes.Buffer // came between two runs
	current *rawLogs
	reader  *log.Reader
	pulse   *runner.Pulse
	wrote   time.Time // when output last came

	wroteErr error  // of the raw logs of the run at hand
	lastErr  string // the last line of stderr that holds more than blanks
}

// An item is one line of the driver, or why it is none.
type item struct {
	reply *reply
	err   error
}

// open starts the driver with its two pipes.
func open(key string, start *launch, spec proc.Spec) (*process, error) {
	driverIn, feed, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answers, driverOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, driverIn.Close(), feed.Close())
	}
	p := &process{key: key, launch: start, feed: feed, replies: make(chan item, 64), done: make(chan struct{})}
	spec.ExtraFiles = []*os.File{driverIn, driverOut}
	spec.Line = p.line
	spec.Stdout, spec.Stderr = stream{p, 0}, stream{p, 1}
	// The engine outlives the run that starts it, so it does not end with the
	// run's context: Run and Close end it.
	p.proc, err = start.begin(context.Background(), spec)
	closed := errors.Join(driverIn.Close(), driverOut.Close())
	if err = errors.Join(err, closed); err != nil {
		return nil, errors.Join(err, feed.Close(), answers.Close())
	}
	go func() {
		defer close(p.replies)
		defer answers.Close() //nolint:errcheck // only read from
		readReplies(answers, func(r *reply, err error) { p.replies <- item{r, err} })
	}()
	go func() {
		p.exit, p.exitErr = p.proc.Wait()
		close(p.done)
	}()
	return p, nil
}

// A stream takes the raw bytes of stdout or stderr.
type stream struct {
	p *process
	i int
}

func (s stream) Write(data []byte) (int, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.wrote = time.Now()
	s.p.pulse.Output(s.p.wrote)
	if s.p.ready == nil && s.p.raw[s.i].Len()+len(data) <= maxStartup {
		s.p.raw[s.i].Write(data)
	}
	if s.p.current != nil {
		s.p.write(s.i, data)
		return len(data), nil
	}
	if s.p.pending[s.i].Len()+len(data) <= maxStartup {
		s.p.pending[s.i].Write(data)
	}
	return len(data), nil
}

// write adds to a raw log of the run at hand. It never fails the engine: an
// error is kept for the run's end.
func (p *process) write(i int, data []byte) {
	if p.wroteErr == nil {
		_, p.wroteErr = p.current[i].Write(data)
	}
}

func (p *process) line(l proc.Line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if text := bytes.TrimSpace(l.Text); l.Stream == "stderr" && len(text) > 0 {
		p.lastErr = string(text[:min(len(text), maxText)])
	}
	if p.reader != nil {
		give(p.reader, l)
	}
	if p.ready == nil && len(p.startup) < 100_000 {
		l.Text = bytes.Clone(l.Text)
		p.startup = append(p.startup, l)
	}
}

// begin prepares a run: its files start with the engine's start-up log, and so
// does what its reader reads.
func (p *process) begin(job *runner.Job, m *runner.Measurement, masker *proc.Masker) (*serving, error) {
	logs, err := openRawLogs(job.Dir, masker)
	if err != nil {
		return nil, err
	}
	reader := log.NewReader(log.ReaderOptions{Mask: masker.Text})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reader, p.current, p.pulse, p.wroteErr = reader, &logs, job.Pulse, nil
	for _, l := range p.startup {
		give(reader, l)
	}
	for i := range p.raw {
		p.write(i, p.raw[i].Bytes())
		if p.ready != nil {
			p.write(i, p.pending[i].Bytes())
		}
		p.pending[i].Reset()
	}
	job.Pulse.SetTree(p.proc.Tree)
	position := p.served
	p.served++
	m.Session = &runner.Session{EngineShared: position > 0 || job.KeepEngine, Position: position}
	return &serving{p: p, job: job, m: m, reader: reader, logs: logs, masker: masker}, nil
}

// end stops giving output to the run, and returns its last line of stderr and
// what went wrong with its raw logs.
func (p *process) end() (lastErr string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	lastErr, p.lastErr = p.lastErr, ""
	p.pulse.SetTree(nil)
	p.reader, p.current, p.pulse = nil, nil, nil
	return lastErr, p.wroteErr
}

func (p *process) send(r request) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := p.feed.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		return err
	}
	_, err = p.feed.Write(append(data, '\n'))
	return err
}

// The word that the engine is ready and the end of its start-up log come
// through different pipes: the log is complete once it has been quiet for a
// moment.
const (
	quietFor   = 50 * time.Millisecond
	quietLimit = 500 * time.Millisecond
)

// settle waits for the end of the start-up log.
func (p *process) settle() {
	for begun := time.Now(); time.Since(begun) < quietLimit; time.Sleep(quietFor / 5) {
		p.mu.Lock()
		last := p.wrote
		p.mu.Unlock()
		if time.Since(last) >= quietFor && time.Since(begun) >= quietFor {
			return
		}
	}
}

func (p *process) setReady(r *reply) {
	p.settle()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = r
}

func (p *process) isReady() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready != nil
}

func (p *process) gone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// ending says how the driver ended, for people.
func (p *process) ending() string {
	switch {
	case p.exitErr != nil:
		return p.exitErr.Error()
	case p.exit == nil:
		return "not known how"
	}
	return ending(p.exit)
}

// closed ends a driver that closed its pipe, if it does not end by itself, and says what became of it.
func (p *process) closed(ctx context.Context) string {
	select {
	case <-p.done:
		return "the session driver ended without an answer: " + p.ending()
	case <-ctx.Done():
	case <-time.After(closedPatience):
	}
	p.proc.Stop("it closed its pipe")
	<-p.done // its remains are ended, too
	return "the session driver closed its pipe, lived on and was ended: " + p.ending()
}

// closedPatience is how long a driver may live that can answer no more.
const closedPatience = 5 * time.Second

// quitGrace is how long an idle driver may take to end when it is asked to.
const quitGrace = 20 * time.Second

// close asks an idle driver to quit, then ends its tree.
func (p *process) close(idle bool) (*proc.Exit, error) {
	if !p.gone() {
		asked := idle && p.isReady() && p.send(request{Op: "quit"}) == nil
		go func() {
			for range p.replies { // the driver must not block on a full pipe
			}
		}()
		if asked {
			select {
			case <-p.done:
			case <-time.After(quitGrace):
			}
		}
		p.proc.Stop("the session ended")
	}
	<-p.done
	return p.exit, errors.Join(p.exitErr, p.feed.Close())
}

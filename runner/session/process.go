package session

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// maxStartup bounds what is kept of the engine's start-up log for the runs that
// follow the first.
const maxStartup = 8 << 20

// maxLastErr bounds what is kept of a line.
const maxLastErr = 500

// A process is one engine that is up, or was.
type process struct {
	key     string
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
	startup []storedLine
	raw     [2]bytes.Buffer // of start-up: stdout, stderr
	pending [2]bytes.Buffer // came between two runs
	current *runFiles
	reader  LogReader
	pulse   *runner.Pulse
	wrote   time.Time // when output last came
	lastErr string    // the last line of stderr that holds more than blanks
}

// An item is one line of the driver, or why it is none.
type item struct {
	reply *reply
	err   error
}

// A storedLine is a line of the start-up log.
type storedLine struct {
	stream  string
	text    []byte
	arrived time.Time
	part    bool // a bar that ends in CR, or a piece of a long line
}

func (l storedLine) give(reader LogReader) {
	if l.part {
		reader.Part(l.stream, l.text, l.arrived)
	} else {
		reader.Line(l.stream, l.text, l.arrived)
	}
}

// launch starts the driver with its two pipes.
func launch(key string, spec proc.Spec) (*process, error) {
	driverIn, feed, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answers, driverOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, driverIn.Close(), feed.Close())
	}
	p := &process{key: key, feed: feed, replies: make(chan item, 64), done: make(chan struct{})}
	spec.ExtraFiles = []*os.File{driverIn, driverOut}
	spec.Line = p.line
	spec.Stdout, spec.Stderr = stream{p, 0}, stream{p, 1}
	// The engine outlives the run that starts it, so it does not end with the
	// run's context: Run and Close end it.
	p.proc, err = proc.Start(context.Background(), spec)
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
		s.p.current.write(s.i, data)
		return len(data), nil
	}
	if s.p.pending[s.i].Len()+len(data) <= maxStartup {
		s.p.pending[s.i].Write(data)
	}
	return len(data), nil
}

func (p *process) line(l proc.Line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if text := bytes.TrimSpace(l.Text); l.Stream == "stderr" && len(text) > 0 {
		p.lastErr = string(text[:min(len(text), maxLastErr)])
	}
	line := storedLine{l.Stream, l.Text, l.Arrived, l.CR || l.More}
	if p.reader != nil {
		line.give(p.reader)
	}
	if p.ready == nil && len(p.startup) < 100_000 {
		line.text = bytes.Clone(l.Text)
		p.startup = append(p.startup, line)
	}
}

// begin prepares a run: its files start with the engine's start-up log, and so
// does what its reader reads.
func (p *process) begin(job *runner.Job, reader LogReader, masker *proc.Masker) (*serving, error) {
	files, err := openRunFiles(job.Dir, masker)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.startup {
		l.give(reader)
	}
	for i := range p.raw {
		files.write(i, p.raw[i].Bytes())
		if p.ready != nil {
			files.write(i, p.pending[i].Bytes())
		}
		p.pending[i].Reset()
	}
	p.reader, p.current, p.pulse = reader, files, job.Pulse
	job.Pulse.SetTree(p.proc.Tree)
	position := p.served
	p.served++
	return &serving{p: p, job: job, reader: reader, files: files, masker: masker,
		session: &runner.Session{EngineShared: position > 0 || job.KeepEngine, Position: position}}, nil
}

// end stops giving output to the run, and returns its last line of stderr.
func (p *process) end() (lastErr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	lastErr, p.lastErr = p.lastErr, ""
	p.pulse.SetTree(nil)
	p.reader, p.current, p.pulse = nil, nil, nil
	return lastErr
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
	case p.exit.Code != nil:
		return fmt.Sprintf("exit code %d", *p.exit.Code)
	}
	return "signal " + p.exit.Signal
}

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

// runFiles are the raw logs of one run, without secrets.
type runFiles struct {
	logs [2]*rawLog
	out  [2]io.WriteCloser // masks what it writes to the log
	err  error
}

// A rawLog is one stream's log.
type rawLog struct {
	name string
	file *os.File
	sum  hash.Hash
	size int64
	tail []byte
}

// tailBytes of each log stand in run.json.
const tailBytes = 4 << 10

func (l *rawLog) Write(data []byte) (int, error) {
	l.sum.Write(data) // a hash does not fail
	l.size += int64(len(data))
	l.tail = append(l.tail, data...)
	if len(l.tail) > 16*tailBytes {
		l.tail = append([]byte(nil), l.tail[len(l.tail)-tailBytes:]...)
	}
	return l.file.Write(data)
}

func (l *rawLog) record() runner.RawLog {
	tail := l.tail
	if len(tail) > tailBytes {
		tail = tail[len(tail)-tailBytes:]
	}
	return runner.RawLog{Name: l.name, Path: l.name + ".log", Bytes: l.size, SHA256: hex.EncodeToString(l.sum.Sum(nil)), Tail: string(bytes.ToValidUTF8(tail, []byte("\uFFFD")))}
}

func openRunFiles(dir string, masker *proc.Masker) (*runFiles, error) {
	f := &runFiles{}
	for i, name := range []string{"stdout", "stderr"} {
		file, err := runner.CreateFile(filepath.Join(dir, name+".log"))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("raw log: %w", err), f.abandon())
		}
		f.logs[i] = &rawLog{name: name, file: file, sum: sha256.New()}
		f.out[i] = masker.Writer(f.logs[i])
	}
	return f, nil
}

// write never fails the engine: an error is kept and told by close.
func (f *runFiles) write(i int, data []byte) {
	if f.err == nil {
		_, f.err = f.out[i].Write(data)
	}
}

func (f *runFiles) abandon() error {
	var err error
	for _, l := range f.logs {
		if l != nil {
			err = errors.Join(err, l.file.Close())
		}
	}
	return err
}

func (f *runFiles) close() ([]runner.RawLog, error) {
	var logs []runner.RawLog
	err := f.err
	for i, l := range f.logs {
		err = errors.Join(err, f.out[i].Close(), l.file.Sync(), l.file.Close())
		logs = append(logs, l.record())
	}
	if err != nil {
		return logs, fmt.Errorf("write the raw logs: %w", err)
	}
	return logs, nil
}

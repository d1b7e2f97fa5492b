package sinks

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// Options of a Store. The zero value will do.
type Options struct {
	Version string // of vramsweep; stands in every file
	Host    string // name of this machine, for the lock
	What    string // what this process does, for the lock: "run", "recover"
	// Execution and Shard (as "3/6") are what this process writes, where others write
	// other shards beside it; "": it has the folder for itself.
	Execution, Shard string

	Now        func() time.Time // the clock; time.Now if nil
	BatchEvery time.Duration    // how long samples wait to be written; 250 ms if 0
	SyncEvery  time.Duration    // how long written samples wait for the disk; 3 s if 0
	Masker     *proc.Masker     // takes the secrets out of all that is written; nil: by names and forms alone
}

// A Store is an output folder. It implements runner.Sink and runner.History.
// All methods may be called from any goroutine.
type Store struct {
	f    *folder
	opts Options
	lock *held    // nil: opened to read
	own  *held    // of the shard
	self *os.File // the folder, locked as well; nil where its file system locks none

	mu   sync.Mutex
	open map[*RunSink]bool
}

var (
	_ runner.Sink         = (*Store)(nil)
	_ runner.History      = (*Store)(nil)
	_ runner.SampleReader = (*RunSink)(nil)
)

// Open creates the folder, if it is not there, and locks it: one process at a
// time runs sweeps in it, or one for each shard. The second is told who holds it
// (LockedError).
func Open(dir string, opts Options) (*Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		f := &folder{dir: dir}
		return nil, f.explain("creating the output folder", err)
	}
	s, err := View(dir, opts)
	if err != nil {
		return nil, err
	}
	s.lock, err = s.f.lock(lockRun, s.holder(), opts.Shard != "")
	if err == nil {
		s.self, err = s.f.lockSelf(lockKind(opts.Shard != ""))
	}
	if err == nil {
		err = errors.Join(s.f.mkdir(runsDir), s.f.mkdir(executionsDir), s.f.mkdir(tablesDir))
	}
	if err == nil && opts.Shard != "" {
		s.own, err = s.f.lock(shardLock(opts.Execution, opts.Shard), s.holder(), false)
		if locked := (*LockedError)(nil); errors.As(err, &locked) {
			locked.Copy = true
		}
	}
	if err == nil {
		err = s.f.explain("preparing the output folder", s.probe())
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// View opens a folder that exists, to read it, or to compact it beside a
// running sweep. It takes no lock.
func View(dir string, opts Options) (*Store, error) {
	f, err := openFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the output folder: %w", err)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.BatchEvery == 0 {
		opts.BatchEvery = 250 * time.Millisecond
	}
	if opts.SyncEvery == 0 {
		opts.SyncEvery = 3 * time.Second
	}
	return &Store{f: f, opts: opts, open: map[*RunSink]bool{}}, nil
}

// Close ends what is open and gives the lock back. A run that is not finished
// stays recoverable.
func (s *Store) Close() error {
	s.mu.Lock()
	open := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	var err error
	for _, sink := range open {
		err = errors.Join(err, sink.Close())
	}
	for _, lock := range []**held{&s.own, &s.lock} {
		if *lock != nil {
			err = errors.Join(err, (*lock).unlock())
			*lock = nil
		}
	}
	if s.self != nil {
		err = errors.Join(err, s.self.Close())
		s.self = nil
	}
	return errors.Join(err, s.f.close())
}

// Dir is the folder, as it was named.
func (s *Store) Dir() string { return s.f.dir }

// RunDir is where a run's files go: job.Dir.
func (s *Store) RunDir(job *runner.Job) string {
	return filepath.Join(s.f.dir, filepath.FromSlash(runPath(job)))
}

// FreeBytes is the room left on the folder's file system.
func (s *Store) FreeBytes() (int64, error) { return FreeBytes(s.f.dir) }

func runPath(job *runner.Job) string {
	return runsDir + "/" + safeName(job.Execution) + "/" + RunName(job)
}

func (s *Store) now() time.Time { return s.opts.Now() }

func (s *Store) holder() Holder {
	what := s.opts.What
	if what == "" {
		what = "vramsweep"
	}
	return Holder{PID: os.Getpid(), Host: s.opts.Host, Since: s.now().UTC(), What: what}
}

func (s *Store) writable() error {
	if s.lock == nil {
		return fmt.Errorf("%s was opened to read", s.f.dir)
	}
	return nil
}

// probe finds out at once, not after the first run, that nothing can be written.
func (s *Store) probe() error {
	name := tmpName(fileName("probe", s.opts.Shard))
	if err := s.f.remove(name); err != nil {
		return err
	}
	file, err := s.f.create(name)
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, 4096))
	return errors.Join(err, file.Sync(), file.Close(), s.f.remove(name))
}

// Begin makes the folder of an attempt and starts its journal. What an earlier
// attempt left there moves to attempts/. Where job.Dir is empty it is set.
func (s *Store) Begin(job *runner.Job) (runner.RunSink, error) {
	sink, err := s.begin(job)
	if err != nil {
		return nil, s.f.explain("beginning run "+job.RunID, err)
	}
	return sink, nil
}

func (s *Store) begin(job *runner.Job) (*RunSink, error) {
	if err := errors.Join(s.writable(), checkID(job.Execution)); err != nil {
		return nil, err
	}
	dir, rel := s.RunDir(job), runPath(job)
	if err := s.f.mkdir(rel); err != nil {
		return nil, err
	}
	if job.Dir == "" {
		job.Dir = dir
	} else if !sameFolder(job.Dir, dir) {
		return nil, fmt.Errorf("its folder is %s, expected %s", job.Dir, dir)
	}
	if _, err := s.archive(rel); err != nil {
		return nil, err
	}
	attempts, err := s.attempts(rel)
	if err != nil {
		return nil, err
	}
	if err := s.writeJob(rel, job); err != nil {
		return nil, err
	}
	sink := &RunSink{store: s, rel: rel, dir: job.Dir, earlier: len(attempts), stop: make(chan struct{})}
	if err := sink.start(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.open[sink] = true
	s.mu.Unlock()
	return sink, nil
}

// sameFolder knows a folder by another name, e.g. through a link to the output folder.
func sameFolder(a, b string) bool {
	x, xerr := os.Stat(a)
	y, yerr := os.Stat(b)
	return xerr == nil && yerr == nil && os.SameFile(x, y)
}

// attempts are the numbers under which earlier attempts of a run lie.
func (s *Store) attempts(rel string) ([]string, error) {
	names, err := s.f.dirs(rel + "/" + attemptsDir)
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
	return names, err
}

// Runs names the folders of an execution's runs, relative to the output folder.
func (s *Store) runs(execution string) ([]string, error) {
	base := runsDir + "/" + execution
	names, err := s.f.dirs(base)
	for i, name := range names {
		names[i] = base + "/" + name
	}
	return names, err
}

// Finished are the final results of an execution, or of this store's shard, by run id, without their long
// parts (timeline points, tails of logs, single latencies). Interrupted runs are not
// among them: they are due again. Damaged ones are named in the error; the
// others are returned.
func (s *Store) Finished(execution string) (map[string]*runner.Result, error) {
	finished := map[string]*runner.Result{}
	e := &Execution{ID: execution}
	if s.opts.Shard != "" {
		var err error
		if e, err = s.part(execution, s.opts.Shard); err != nil {
			return finished, err
		}
	}
	runs, err := s.runsOf(e)
	for _, rel := range runs {
		r, rerr := s.result(rel)
		switch {
		case errors.Is(rerr, fs.ErrNotExist):
		case rerr != nil:
			err = errors.Join(err, rerr)
		case r.Run.Outcome == runner.OutcomeInterrupted:
		case s.wornOut(rel):
			err = errors.Join(err, damaged(s.damage(rel)))
		default:
			shorten(r)
			finished[r.Run.RunID] = r
		}
	}
	return finished, err
}

func shorten(r *runner.Result) {
	if r.MemoryTimeline != nil {
		r.MemoryTimeline.Timeline = nil
	}
	for i := range r.RawLogs {
		r.RawLogs[i].Tail = ""
	}
	if r.LatencyStats != nil {
		r.LatencyStats.LatenciesS = nil
	}
}

// result reads the final result of a run's folder.
func (s *Store) result(rel string) (*runner.Result, error) {
	name := rel + "/" + resultName
	file, err := s.f.open(name)
	if err != nil {
		return nil, err
	}
	r, err := DecodeResult(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.f.path(name), err)
	}
	return r, nil
}

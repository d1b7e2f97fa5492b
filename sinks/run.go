package sinks

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks/table"
)

// The files of a run's folder.
const (
	resultName   = "run.json"
	timelineName = "timeline.parquet"
	jobName      = "attempt.json" // what runs here; gone when run.json is there
	attemptsDir  = "attempts"
)

// A RunSink keeps one attempt of a run. It implements runner.RunSink and, at
// any moment until Close, runner.SampleReader.
type RunSink struct {
	store   *Store
	rel     string
	earlier int // attempts before this one

	mu      sync.Mutex
	journal *journal // nil after Finish or Close
	samples int64
	stop    chan struct{}
	once    sync.Once
	running sync.WaitGroup
}

func (r *RunSink) start() error {
	f := r.store.f
	data, err := f.create(r.rel + "/" + journalName)
	if err != nil {
		return err
	}
	index, err := f.create(r.rel + "/" + journalIndex)
	if err != nil {
		return errors.Join(err, data.Close())
	}
	if r.journal, err = newJournal(data, index); err != nil {
		return errors.Join(err, r.journal.close())
	}
	j := r.journal
	r.running.Go(func() { r.write(j) })
	r.running.Go(func() { r.sync(j) })
	return nil
}

// write brings samples to their journal beside the samplers; sync, beside it,
// brings the journal to the disk: a sync may take seconds on a busy disk, and
// meanwhile samples must go on into the journal. Errors stay in the journal;
// the next Samples reports them.
func (r *RunSink) write(j *journal) {
	batch := time.NewTicker(r.store.opts.BatchEvery)
	defer batch.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-batch.C:
			_ = j.flush() // kept in the journal
		}
	}
}

func (r *RunSink) sync(j *journal) {
	sync := time.NewTicker(r.store.opts.SyncEvery)
	defer sync.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-sync.C:
			if err := j.sync(); err != nil {
				j.fail(err)
			}
		}
	}
}

func (r *RunSink) end() {
	r.once.Do(func() { close(r.stop) })
	r.running.Wait()
}

// Samples takes the samples of one tick. They are in the journal within
// BatchEvery, or when twice that has passed and the next tick comes.
// An error says that the disk refuses them; they are kept, and tried again.
func (r *RunSink) Samples(samples []runner.Sample) error {
	r.mu.Lock()
	j := r.journal
	r.samples += int64(len(samples))
	r.mu.Unlock()
	if j == nil {
		return errEnded
	}
	before := j.failure()
	if err := errors.Join(j.add(samples, 2*r.store.opts.BatchEvery), before); err != nil {
		return r.store.f.explain("writing samples of "+r.rel, err)
	}
	return nil
}

// ReadSamples yields all samples so far, ordered by time.
func (r *RunSink) ReadSamples(yield func([]runner.Sample) error) error {
	r.mu.Lock()
	finished := r.journal == nil
	r.mu.Unlock()
	if finished {
		return r.store.Samples(r.rel).ReadSamples(yield)
	}
	all := func(*runner.Sample) bool { return true }
	return inOrder(r.each, all, yield)
}

// each yields the samples in the order of writing.
func (r *RunSink) each(yield func([]runner.Sample) error) error {
	r.mu.Lock()
	j := r.journal
	if j == nil {
		r.mu.Unlock()
		return errors.New("the run was closed while its samples were read")
	}
	r.mu.Unlock()
	end, dropped, err := j.reach()
	if err != nil {
		return r.store.f.explain("writing samples of "+r.rel, err)
	}
	if dropped > 0 {
		return fmt.Errorf("%d batches of samples of %s found no room on the disk", dropped, r.rel)
	}
	index, err := r.store.f.readFile(r.rel + "/" + journalIndex)
	if err != nil {
		return err
	}
	report, err := readJournal(j.data, end, index, yield)
	if err == nil && report.Bytes < end {
		err = fmt.Errorf("reading back the journal of %s: %s", r.rel, report.Reason)
	}
	return err
}

// Finish makes the attempt durable: the samples become Parquet, run.json
// appears last. It fills result.Files. After an error it can be called again.
func (r *RunSink) Finish(result *runner.Result) error {
	r.end()
	if err := r.finish(result); err != nil {
		return r.store.f.explain("keeping the result of run "+result.Run.RunID, err)
	}
	r.mu.Lock()
	j := r.journal
	r.journal = nil
	r.mu.Unlock()
	err := errors.Join(j.close(), r.forget())
	r.store.forget(r)
	return r.store.f.explain("tidying up run "+result.Run.RunID, err)
}

func (r *RunSink) finish(result *runner.Result) error {
	r.mu.Lock()
	finished, samples := r.journal == nil, r.samples
	r.mu.Unlock()
	if finished {
		return errors.New("it is finished or was closed")
	}
	if err := r.store.f.mkdir(r.rel); err != nil {
		return err
	}
	result.Run.Attempts = max(result.Run.Attempts, r.earlier+1)
	if result.SchemaVersion == "" {
		result.SchemaVersion = runner.SchemaVersion
	}
	result.Files = nil
	if samples > 0 {
		info, err := r.store.writeTimelineFile(r.rel, result, r.each)
		if err != nil {
			return err
		}
		result.Files = append(result.Files, info)
	}
	return r.store.writeResult(r.rel, result)
}

// forget removes what only an unfinished attempt has.
func (r *RunSink) forget() error {
	f := r.store.f
	return errors.Join(f.remove(r.rel+"/"+journalName), f.remove(r.rel+"/"+journalIndex), f.remove(r.rel+"/"+jobName))
}

// Close ends an attempt without a result: its journal stays, and Recover or the
// next attempt turns it into attempts/N. After Finish it does nothing.
func (r *RunSink) Close() error {
	r.end()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.store.forget(r)
	if r.journal == nil {
		return nil
	}
	err := errors.Join(r.journal.flush(), r.journal.sync(), r.journal.close())
	r.journal = nil
	return err
}

func (s *Store) forget(r *RunSink) {
	s.mu.Lock()
	delete(s.open, r)
	s.mu.Unlock()
}

func (s *Store) writeResult(rel string, result *runner.Result) error {
	return s.f.replace(rel+"/"+resultName, func(w io.Writer) error { return EncodeResult(w, result) })
}

// writeTimelineFile writes timeline.parquet of a folder and says what it is.
func (s *Store) writeTimelineFile(rel string, result *runner.Result, each func(func([]runner.Sample) error) error) (
	runner.FileInfo, error,
) {
	info := runner.FileInfo{Name: timelineName}
	sum := sha256.New()
	// The folder is synced when run.json has followed.
	err := s.f.put(rel+"/"+timelineName, true, func(w io.Writer) error {
		counted := &countingWriter{w: io.MultiWriter(w, sum)}
		out := tableOf[TimelineRow]().writer(counted, s.opts.Version, nil, nil)
		if err := errors.Join(writeTimeline(result, each, out), out.Close()); err != nil {
			return err
		}
		rows := out.Rows()
		info.Bytes, info.Rows = counted.bytes, &rows
		return nil
	})
	info.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return info, err
}

type countingWriter struct {
	w     io.Writer
	bytes int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.bytes += int64(n)
	return n, err
}

// Replace writes a run.json again, e.g. after its raw logs were read anew, and
// its timeline, whose phases come from it. dir is relative to the output folder. Publish
// or Compact brings the tables after it.
func (s *Store) Replace(dir string, result *runner.Result) error {
	err := s.writable()
	if err == nil && !s.f.exists(dir+"/"+resultName) {
		err = fmt.Errorf("there is no %s", s.f.path(dir+"/"+resultName))
	}
	if err == nil && s.f.exists(dir+"/"+timelineName) {
		each := func(yield func([]runner.Sample) error) error { return s.timelineSamples(dir, yield) }
		var info runner.FileInfo
		info, err = s.writeTimelineFile(dir, result, each)
		result.Files = []runner.FileInfo{info}
	}
	if err == nil {
		err = s.writeResult(dir, result)
	}
	return s.f.explain("writing "+dir, err)
}

// timelineSamples yields the samples in a folder's timeline.parquet; none where
// there is no such file.
func (s *Store) timelineSamples(rel string, yield func([]runner.Sample) error) error {
	err := s.openTable(rel+"/"+timelineName, func(f *table.File) error { return samplesIn(f, 0, f.Rows(), yield) })
	if errors.Is(err, fs.ErrNotExist) && !s.f.exists(rel+"/"+timelineName) {
		return nil
	}
	return err
}

// samplesIn yields the samples of some rows of a timeline.
func samplesIn(f *table.File, first, end int64, yield func([]runner.Sample) error) error {
	var samples []runner.Sample
	all := figures()
	return table.ReadRange(f, first, end, func(rows []TimelineRow) error {
		samples = slices.Grow(samples[:0], len(rows))[:len(rows)]
		for i := range rows {
			sampleOf(&samples[i], &rows[i], all)
		}
		return yield(samples)
	})
}

// Samples reads the samples of a run's folder that is finished: for reparse.
// dir is relative to the output folder, as in runs/<execution>/<run>.
func (s *Store) Samples(dir string) runner.SampleReader { return folderSamples{s, dir} }

type folderSamples struct {
	store *Store
	rel   string
}

// ReadSamples yields the samples ordered by time. The file holds one GPU after
// another: each is read from its own place, side by side.
func (f folderSamples) ReadSamples(yield func([]runner.Sample) error) error {
	starts, total, err := f.starts()
	if err != nil || total == 0 {
		return err
	}
	return f.store.openTable(f.rel+"/"+timelineName, func(file *table.File) error {
		cursors := make([]*cursor, len(starts))
		for i, start := range starts {
			end := total
			if i+1 < len(starts) {
				end = starts[i+1]
			}
			c := newCursor(file, start, end)
			defer c.stop()
			cursors[i] = c
			if err := c.fill(); err != nil {
				return err
			}
		}
		return mergeCursors(cursors, yield)
	})
}

// starts are the rows at which a GPU's samples begin.
func (f folderSamples) starts() (starts []int64, total int64, err error) {
	last := int64(-1)
	err = f.store.timelineSamples(f.rel, func(batch []runner.Sample) error {
		for i := range batch {
			if gpu := int64(batch[i].GPU) + 2; gpu != last {
				starts, last = append(starts, total), gpu
			}
			total++
		}
		return nil
	})
	return starts, total, err
}

// A cursor goes through the samples of one GPU.
type cursor struct {
	next func() ([]runner.Sample, error, bool)
	stop func()
	held []runner.Sample
}

func newCursor(f *table.File, first, end int64) *cursor {
	next, stop := iter.Pull2(func(yield func([]runner.Sample, error) bool) {
		err := samplesIn(f, first, end, func(samples []runner.Sample) error {
			if !yield(samples, nil) {
				return errStopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStopped) {
			yield(nil, err)
		}
	})
	return &cursor{next: next, stop: stop}
}

// fill reads on if nothing is held; held stays empty at the end.
func (c *cursor) fill() (err error) {
	if len(c.held) == 0 {
		c.held, err, _ = c.next()
	}
	return err
}

func mergeCursors(cursors []*cursor, yield func([]runner.Sample) error) error {
	var batch []runner.Sample
	for {
		var next *cursor
		for _, c := range cursors {
			if len(c.held) > 0 && (next == nil || c.held[0].Offset < next.held[0].Offset) {
				next = c
			}
		}
		if next == nil || len(batch) == timelineChunk {
			if err := yield(batch); err != nil || next == nil {
				return err
			}
			batch = batch[:0]
		}
		batch = append(batch, next.held[0])
		next.held = next.held[1:]
		if err := next.fill(); err != nil {
			return err
		}
	}
}

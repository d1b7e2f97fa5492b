package sinks

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"path"
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
	dir     string // as its engine was told
	earlier int    // attempts before this one

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
	// Beside the samplers samples come to their journal, and beside that the journal
	// to the disk: a sync may take seconds on a busy one. Errors stay in the journal,
	// and the next Samples reports them.
	r.running.Go(func() { r.every(r.store.opts.BatchEvery, func() { _ = j.flush() }) })
	r.running.Go(func() {
		r.every(r.store.opts.SyncEvery, func() {
			if err := j.sync(); err != nil {
				j.fail(err)
			}
		})
	})
	return nil
}

func (r *RunSink) every(wait time.Duration, do func()) {
	ticker := time.NewTicker(wait)
	defer ticker.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-ticker.C:
			do()
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
	return r.store.f.explain("writing samples of "+r.rel, j.add(samples, 2*r.store.opts.BatchEvery))
}

// ReadSamples yields all samples so far, ordered by time.
func (r *RunSink) ReadSamples(yield func([]runner.Sample) error) error {
	r.mu.Lock()
	finished := r.journal == nil
	r.mu.Unlock()
	if finished {
		return r.store.Samples(r.rel).ReadSamples(yield)
	}
	return inOrder(r.each, func(*runner.Sample) bool { return true }, yield)
}

// each yields the samples in the order of writing.
func (r *RunSink) each(yield func([]runner.Sample) error) error {
	r.mu.Lock()
	j := r.journal
	r.mu.Unlock()
	if j == nil {
		return errors.New("the run was closed while its samples were read")
	}
	end, dropped, err := j.reach()
	if err != nil {
		return r.store.f.explain("writing samples of "+r.rel, err)
	}
	if dropped > 0 {
		return fmt.Errorf("%d batches of samples of %s found no room on the disk", dropped, r.rel)
	}
	// By its handle: an engine may have put something else in the place of its name.
	index, err := io.ReadAll(io.NewSectionReader(j.index, 0, math.MaxInt64))
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
	err := errors.Join(j.close(), r.store.dropJournal(r.rel))
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
	if err := r.store.clear(r.rel); err != nil {
		return err
	}
	if result.Run.Outcome.Failed() && !r.store.isAt(r.rel, r.dir) {
		result.Run.Outcome = runner.OutcomeInterrupted // it is no fault of the profile, and due again
		result.Run.OutcomeDetail = "the output folder was renamed or moved while it ran: its engine lost " + r.dir
	}
	result.Run.Attempts = max(result.Run.Attempts, r.earlier+1)
	if result.SchemaVersion == "" {
		result.SchemaVersion = runner.SchemaVersion
	}
	result.Files = nil
	*result = *masked(result, r.store.opts.Masker)
	if samples > 0 {
		info, err := r.store.stageTimeline(r.rel, result, r.each)
		if err == nil {
			err = r.store.f.rename(tmpName(r.rel+"/"+timelineName), r.rel+"/"+timelineName)
		}
		if err != nil {
			return err
		}
		result.Files = append(result.Files, info)
	}
	var err error
	if result.Files, err = r.store.files(r.rel, result); err != nil {
		return err
	}
	return r.store.writeResult(r.rel, result)
}

// isAt reports whether a folder of the output folder still is where its name says.
func (s *Store) isAt(rel, dir string) bool {
	ours, err := s.f.root.Stat(rel)
	named, nerr := os.Stat(dir)
	return err == nil && nerr == nil && os.SameFile(ours, named)
}

// clear sets aside what an engine put where the files of its run belong.
func (s *Store) clear(rel string) error {
	for _, name := range []string{resultName, timelineName, tmpName(resultName), tmpName(timelineName), attemptsDir} {
		info, err := s.f.root.Lstat(rel + "/" + name)
		if err == nil && info.IsDir() != (name == attemptsDir) || err == nil && info.Mode()&fs.ModeType&^fs.ModeDir != 0 {
			if _, err := s.setAside(rel + "/" + name); err != nil {
				return err
			}
		}
	}
	return nil
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

// stageTimeline writes timeline.parquet of a folder, under its temporary name, and says what it is.
func (s *Store) stageTimeline(rel string, result *runner.Result, each batches) (runner.FileInfo, error) {
	info := runner.FileInfo{Name: timelineName}
	sum, counted := sha256.New(), new(countingWriter)
	// The folder is synced when run.json has followed.
	err := s.f.stage(rel+"/"+timelineName, true, func(w io.Writer) error {
		out := tableOf[TimelineRow]().writer(io.MultiWriter(w, sum, counted), s.opts.Version, nil, nil)
		if err := errors.Join(writeTimeline(result, each, out), out.Close()); err != nil {
			return err
		}
		rows := out.Rows()
		info.Bytes, info.Rows = int64(*counted), &rows
		return nil
	})
	info.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return info, err
}

type countingWriter int64

func (c *countingWriter) Write(p []byte) (int, error) {
	*c += countingWriter(len(p))
	return len(p), nil
}

// Replace writes a run.json again, e.g. after its raw logs were read anew, and
// its timeline, whose phases come from it. dir is relative to the output folder. Publish
// or Compact brings the tables after it.
func (s *Store) Replace(dir string, result *runner.Result) error {
	err := s.writable()
	*result = *masked(result, s.opts.Masker)
	if err == nil && !s.f.exists(dir+"/"+resultName) {
		err = fmt.Errorf("there is no %s", s.f.path(dir+"/"+resultName))
	}
	timeline := dir + "/" + timelineName
	sampled := err == nil && s.f.exists(timeline)
	if sampled {
		var info runner.FileInfo
		info, err = s.stageTimeline(dir, result, func(yield func([]runner.Sample) error) error {
			return s.timelineSamples(dir, yield)
		})
		others := slices.DeleteFunc(result.Files, func(f runner.FileInfo) bool { return f.Name == timelineName })
		result.Files = append([]runner.FileInfo{info}, others...)
	}
	if err == nil {
		err = s.writeResult(dir, result)
	}
	if err == nil && sampled { // endReplace does it after a crash
		err = errors.Join(s.f.rename(tmpName(timeline), timeline), s.f.syncDir(dir))
	}
	return s.f.explain("writing "+dir, err)
}

// endReplace puts the timeline in place that run.json names already, if Replace was killed between the two.
func (s *Store) endReplace(rel string) error {
	tmp := tmpName(rel + "/" + timelineName)
	if !s.f.exists(tmp) || !s.f.exists(rel+"/"+resultName) {
		return nil
	}
	head, err := s.runHead(rel)
	if err != nil {
		return nil // a damaged one is not put right by it
	}
	for _, f := range head.files {
		if f.Name == timelineName && s.intact(rel, path.Base(tmp), f.Bytes, f.SHA256) == nil {
			return s.f.rename(tmp, rel+"/"+timelineName)
		}
	}
	return nil
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
	return table.ReadRange(f, first, end, func(rows []TimelineRow) error {
		samples = slices.Grow(samples[:0], len(rows))[:len(rows)]
		for i := range rows {
			sampleOf(&samples[i], &rows[i])
		}
		return yield(samples)
	})
}

// Samples reads the samples of a run's folder that is finished: for reparse.
// dir is relative to the output folder, as in runs/<execution>/<run>.
func (s *Store) Samples(dir string) runner.SampleReader { return &folderSamples{store: s, rel: dir} }

type folderSamples struct {
	store   *Store
	rel     string
	checked bool
}

// ReadSamples yields the samples ordered by time. The file holds one GPU after
// another: each is read from its own place, side by side.
func (f *folderSamples) ReadSamples(yield func([]runner.Sample) error) error {
	if !f.checked {
		head, err := f.store.runHead(f.rel)
		if err == nil {
			err = f.store.timelineOf(head)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f.checked = true
	}
	starts, err := f.starts()
	if err != nil || len(starts) == 1 {
		return err
	}
	return f.store.openTable(f.rel+"/"+timelineName, func(file *table.File) error {
		gpus := make([]gpuSamples, len(starts)-1)
		for i := range gpus {
			next, stop := iter.Pull2(samplesBetween(file, starts[i], starts[i+1]))
			defer stop()
			gpus[i].next = next
			gpus[i].sample, err, gpus[i].more = next()
			if err != nil {
				return err
			}
		}
		return mergeGPUs(gpus, yield)
	})
}

// starts are the rows at which a GPU's samples begin, and the number of rows.
func (f *folderSamples) starts() (starts []int64, err error) {
	total, last := int64(0), int32(0)
	err = f.store.timelineSamples(f.rel, func(batch []runner.Sample) error {
		for i := range batch {
			if total == 0 || batch[i].GPU != last {
				starts, last = append(starts, total), batch[i].GPU
			}
			total++
		}
		return nil
	})
	return append(starts, total), err
}

// samplesBetween are the samples of some rows of a timeline.
func samplesBetween(f *table.File, first, end int64) iter.Seq2[runner.Sample, error] {
	return func(yield func(runner.Sample, error) bool) {
		err := samplesIn(f, first, end, func(samples []runner.Sample) error {
			for i := range samples {
				if !yield(samples[i], nil) {
					return errStopped
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStopped) {
			yield(runner.Sample{}, err)
		}
	}
}

// gpuSamples goes through the samples of one GPU.
type gpuSamples struct {
	next   func() (runner.Sample, error, bool)
	sample runner.Sample
	more   bool
}

func mergeGPUs(gpus []gpuSamples, yield func([]runner.Sample) error) (err error) {
	var batch []runner.Sample
	for {
		var first *gpuSamples
		for i := range gpus {
			if g := &gpus[i]; g.more && (first == nil || g.sample.Offset < first.sample.Offset) {
				first = g
			}
		}
		if first == nil || len(batch) == timelineChunk {
			if err := yield(batch); err != nil || first == nil {
				return err
			}
			batch = batch[:0]
		}
		batch = append(batch, first.sample)
		if first.sample, err, first.more = first.next(); err != nil {
			return err
		}
	}
}

package sinks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// writeJob says what runs in a folder while it has no run.json: the result as it
// is before anything is measured, so that an attempt whose runner was killed
// still has a name, its settings and all else that was known.
func (s *Store) writeJob(rel string, job *runner.Job) error {
	r := masked(runner.NewResult(job), s.opts.Masker)
	r.ProfilerVersion, r.Provenance.Vramsweep, r.Provenance.Host = s.opts.Version, s.opts.Version, s.opts.Host
	// Not synced: after a power cut the run is merely due again without its name.
	return s.f.put(rel+"/"+jobName, false, func(w io.Writer) error { return EncodeResult(w, r) })
}

// stageName is where an attempt is gathered before it gets its number; one
// that is found there was being archived when somebody died.
const stageName = tmpMark + "attempt"

// archive moves an earlier attempt, if one was begun in the folder, whole to
// attempts/N. An unfinished one becomes a result of its own, outcome interrupted,
// and is returned. It can be killed at any moment and goes on when it is called again.
func (s *Store) archive(rel string) (cutOff *RecoveredAttempt, err error) {
	if s.wornOut(rel) {
		_, err := s.setAside(rel)
		return nil, errors.Join(err, s.f.mkdir(rel))
	}
	attempts := rel + "/" + attemptsDir
	stage := attempts + "/" + stageName
	begun := s.f.exists(rel+"/"+jobName) || s.f.exists(rel+"/"+resultName) || s.f.exists(rel+"/"+journalName)
	if !begun && !s.f.exists(stage) {
		return nil, nil
	}
	if err = s.f.mkdir(stage); err == nil {
		err = s.moveAttempt(rel, stage)
	}
	if err != nil {
		return nil, err
	}
	if !s.f.exists(stage + "/" + resultName) {
		if cutOff, err = s.conclude(stage); err != nil {
			return nil, err
		}
	}
	if err := s.dropJournal(stage); err != nil {
		return nil, err
	}
	earlier, err := s.attempts(rel)
	if err != nil {
		return nil, err
	}
	last := 0
	if n := len(earlier); n > 0 {
		if last, err = strconv.Atoi(earlier[n-1]); err != nil {
			return nil, fmt.Errorf("%s is no number of an attempt", s.f.path(attempts+"/"+earlier[n-1]))
		}
	}
	dir := attempts + "/" + strconv.Itoa(last+1)
	if cutOff != nil {
		cutOff.Dir = dir
	}
	if err := s.f.rename(stage, dir); err != nil {
		return nil, err
	}
	return cutOff, errors.Join(s.f.syncDir(attempts), s.f.syncDir(rel))
}

// moveAttempt moves run.json first (from then on the run is due again) and the
// record of the attempt last (until then the move goes on after a crash).
func (s *Store) moveAttempt(rel, stage string) error {
	if err := s.removeTemporary(rel, &Recovery{}); err != nil {
		return err
	}
	entries, err := s.f.list(rel)
	if err != nil {
		return err
	}
	names := []string{resultName}
	for _, e := range entries {
		if !slices.Contains([]string{attemptsDir, resultName, jobName}, e.Name()) {
			names = append(names, e.Name())
		}
	}
	for _, name := range append(names, jobName) {
		if !s.f.exists(rel + "/" + name) {
			continue
		}
		if err := s.f.rename(rel+"/"+name, stage+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) dropJournal(rel string) error {
	return errors.Join(s.f.removeAll(rel+"/"+journalName), s.f.removeAll(rel+"/"+journalIndex),
		s.f.removeAll(rel+"/"+jobName)) // an engine may have put folders there
}

// conclude gives an attempt that was cut off its timeline and its run.json.
func (s *Store) conclude(rel string) (*RecoveredAttempt, error) {
	result, err := s.interrupted(rel)
	if err != nil {
		return nil, err
	}
	found, err := s.convertJournal(rel, result)
	if err != nil {
		return nil, err
	}
	if found.Reason != "" {
		result.Run.Notes = append(result.Run.Notes, "batches of the journal of samples are lost: "+found.Reason)
	}
	if result.Files, err = s.files(rel, result); err != nil {
		return nil, err
	}
	return &RecoveredAttempt{RunID: result.Run.RunID, Samples: found.Samples, Lost: found.Lost, Reason: found.Reason},
		s.writeResult(rel, result)
}

// convertJournal turns the good part of a journal into timeline.parquet.
func (s *Store) convertJournal(rel string, result *runner.Result) (found JournalReport, err error) {
	data, err := s.f.open(rel + "/" + journalName)
	if errors.Is(err, fs.ErrNotExist) {
		return found, nil // it was killed before its journal stood
	}
	if err != nil {
		return found, err
	}
	defer data.Close() //nolint:errcheck // opened to read
	info, err := data.Stat()
	if err != nil {
		return found, err
	}
	index, err := s.f.readFile(rel + "/" + journalIndex)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // without an index nothing vouches for the journal
		return found, err
	}
	each := func(yield func([]runner.Sample) error) (err error) {
		found, err = readJournal(data, info.Size(), index, yield)
		return err
	}
	last := time.Duration(0)
	err = each(func(batch []runner.Sample) error {
		for i := range batch {
			last = max(last, batch[i].Offset)
		}
		return nil
	})
	if err != nil || found.Samples == 0 {
		return found, err
	}
	result.Run.EndedAt, result.Run.WallS = result.Run.StartedAt.Add(last), last.Seconds()
	file, err := s.stageTimeline(rel, result, each)
	if err == nil {
		err = s.f.rename(tmpName(rel+"/"+timelineName), rel+"/"+timelineName)
	}
	result.Files = append(result.Files, file)
	return found, err
}

// interrupted is the result of an attempt of which only its record is left.
func (s *Store) interrupted(rel string) (*runner.Result, error) {
	r, err := s.planned(rel)
	if r == nil {
		return nil, err
	}
	r.Timestamp = s.now().UTC()
	r.Run.EndedAt, r.Run.Outcome = r.Run.StartedAt, runner.OutcomeInterrupted
	r.Run.OutcomeDetail = "vramsweep was killed during this attempt; its samples were recovered from the journal"
	for _, section := range []string{"memory_breakdown", "latency_stats"} {
		r.Missing[section] = "the attempt was killed"
	}
	r.Missing["vllm_internal_metrics"] = "the attempt was killed; `vramsweep explain` reads its raw logs"
	if err != nil {
		r.Run.Notes = append(r.Run.Notes, "the record of the attempt cannot be read: "+err.Error())
	}
	return r, nil
}

// planned is what writeJob wrote; with an error, what the folder's name tells.
// There is no result where the disk is at fault.
func (s *Store) planned(rel string) (*runner.Result, error) {
	b, err := s.f.readFile(rel + "/" + jobName)
	var r *runner.Result
	switch {
	case err == nil:
		r, err = DecodeResult(bytes.NewReader(b))
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case errors.As(err, new(*fs.PathError)):
		return nil, err
	}
	if r == nil {
		r = &runner.Result{SchemaVersion: runner.SchemaVersion, ProfilerVersion: s.opts.Version}
		r.Run.Execution, r.Run.RunID = path.Base(path.Dir(rel)), path.Base(rel)
	}
	if r.Missing == nil {
		r.Missing = map[string]string{}
	}
	return r, err
}

// A Recovery says what Recover fixed.
type Recovery struct {
	Attempts []RecoveredAttempt `json:"attempts"` // were cut off; the runs are due again
	Removed  []string           `json:"removed"`  // leftovers: temporary files, journals of finished runs
	SetAside []Damaged          `json:"set_aside,omitempty"`
}

// A RecoveredAttempt is an attempt that was cut off.
type RecoveredAttempt struct {
	RunID   string `json:"run_id"`
	Dir     string `json:"dir"` // under attempts/, relative to the output folder
	Samples int64  `json:"samples"`
	Lost    int64  `json:"lost_bytes"` // of the journal, after its last good batch
	Reason  string `json:"reason,omitempty"`
}

// Recover puts a folder in order after its runner died: attempts that were cut
// off move to attempts/ with all samples that reached their journal, finished runs
// lose their journals, temporary files go, a half-done compaction is ended.
// It can itself be killed at any moment. `run` calls it before it begins.
func (s *Store) Recover() (*Recovery, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	report := &Recovery{}
	var err error
	if s.opts.Shard == "" {
		err = s.remakeExecutions(report)
	}
	runs, rerr := s.recoverable()
	err = errors.Join(err, rerr)
	for _, rel := range runs {
		if rerr := s.recoverRun(rel, report); rerr != nil {
			err = errors.Join(err, s.f.explain("recovering "+rel, rerr))
		}
	}
	if s.opts.Shard == "" {
		for _, dir := range []string{".", executionsDir} {
			err = errors.Join(err, s.removeTemporary(dir, report))
		}
	}
	if terr := s.withTables(report, s.endExecutions); terr != nil {
		err = errors.Join(err, s.f.explain("putting tables/ in order", terr))
	}
	return report, err
}

// recoverable are the folders of the runs that nobody else may be working on: all,
// or those of this store's shard.
func (s *Store) recoverable() (all []string, err error) {
	if s.opts.Shard != "" {
		e, err := s.part(s.opts.Execution, s.opts.Shard)
		if errors.Is(err, errNoExecution) {
			return nil, nil // it has not begun
		}
		if err != nil {
			return nil, err
		}
		return s.runsOf(e)
	}
	executions, err := s.f.dirs(runsDir)
	for _, execution := range executions {
		runs, rerr := s.runs(execution)
		all, err = append(all, runs...), errors.Join(err, rerr)
	}
	return all, err
}

func (s *Store) recoverRun(rel string, report *Recovery) error {
	if err := s.endReplace(rel); err != nil {
		return err
	}
	if err := s.removeTemporary(rel, report); err != nil {
		return err
	}
	if entries, err := s.f.list(rel); err == nil && len(entries) == 0 { // it was killed before it noted what it runs
		return s.f.remove(rel)
	}
	stage := s.f.exists(rel + "/" + attemptsDir + "/" + stageName)
	if s.f.exists(rel+"/"+resultName) && !stage { // it was finished, but not tidied up
		for _, name := range []string{journalName, journalIndex, jobName} {
			if s.f.exists(rel + "/" + name) {
				report.Removed = append(report.Removed, rel+"/"+name)
			}
		}
		return s.dropJournal(rel)
	}
	cutOff, err := s.archive(rel)
	if cutOff != nil {
		report.Attempts = append(report.Attempts, *cutOff)
	}
	return err
}

func (s *Store) removeTemporary(dir string, report *Recovery) error {
	entries, err := s.f.list(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tmpMark) {
			name := path.Join(dir, e.Name())
			report.Removed = append(report.Removed, name)
			err = errors.Join(err, s.f.removeAll(name))
		}
	}
	return err
}

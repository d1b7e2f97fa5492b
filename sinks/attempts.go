package sinks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// An attempt record says what runs in a folder while it has no run.json, so
// that an attempt whose runner was killed still has a name and its settings.
type attempt struct {
	RunID     string               `json:"run_id"`
	Execution string               `json:"execution"`
	Profile   *sweep.Profile       `json:"profile"`
	Model     *models.Architecture `json:"model,omitempty"`
	Repeat    int                  `json:"repeat"`
	Attempt   int                  `json:"attempt"`
	Devices   []runner.Device      `json:"devices"`
	Synthetic bool                 `json:"synthetic"`
	StartedAt time.Time            `json:"started_at"`
	Version   string               `json:"vramsweep_version"`
}

func (s *Store) writeJob(rel string, job *runner.Job) error {
	b, err := json.MarshalIndent(attempt{RunID: job.RunID, Execution: job.Execution, Profile: job.Record(), Model: job.Profile.Model,
		Repeat: job.Repeat, Attempt: job.Attempt, Devices: job.Devices, Synthetic: job.Synthetic,
		StartedAt: job.StartedAt, Version: s.opts.Version}, "", "  ")
	if err != nil {
		return err
	}
	// Not synced: after a power cut the run is merely due again without its name.
	return s.f.put(rel+"/"+jobName, false, func(w io.Writer) error {
		_, err := w.Write(append(b, '\n'))
		return err
	})
}

// stageName is where an attempt is gathered before it gets its number; one
// that is found there was being archived when somebody died.
const stageName = tmpMark + "attempt"

// archive moves an earlier attempt, if one was begun in the folder, whole to
// attempts/N. An unfinished one becomes a result of its own, outcome interrupted. It
// can be killed at any moment and goes on when it is called again.
func (s *Store) archive(rel string, report *Recovery) error {
	stage := rel + "/" + attemptsDir + "/" + stageName
	begun := s.f.exists(rel+"/"+jobName) || s.f.exists(rel+"/"+resultName) || s.f.exists(rel+"/"+journalName)
	if !begun && !s.f.exists(stage) {
		return nil
	}
	if err := s.f.mkdir(stage); err != nil {
		return err
	}
	if err := s.moveAttempt(rel, stage); err != nil {
		return err
	}
	if !s.f.exists(stage + "/" + resultName) {
		if err := s.conclude(stage, report); err != nil {
			return err
		}
	}
	if err := s.dropJournal(stage); err != nil {
		return err
	}
	earlier, err := s.attempts(rel)
	if err != nil {
		return err
	}
	number := 1
	if n := len(earlier); n > 0 {
		last, err := strconv.Atoi(earlier[n-1])
		if err != nil {
			return fmt.Errorf("%s is no number of an attempt", s.f.path(rel+"/"+attemptsDir+"/"+earlier[n-1]))
		}
		number = last + 1
	}
	if err := s.f.rename(stage, rel+"/"+attemptsDir+"/"+strconv.Itoa(number)); err != nil {
		return err
	}
	return errors.Join(s.f.syncDir(rel+"/"+attemptsDir), s.f.syncDir(rel))
}

// moveAttempt moves run.json first (from then on the run is due again) and the
// record of the attempt last (until then the move goes on after a crash).
func (s *Store) moveAttempt(rel, stage string) error {
	entries, err := s.f.list(rel)
	if err != nil {
		return err
	}
	names := []string{resultName}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == attemptsDir, name == resultName, name == jobName:
		case strings.HasPrefix(name, tmpMark):
			if err := s.f.removeAll(rel + "/" + name); err != nil {
				return err
			}
		default:
			names = append(names, name)
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
	return errors.Join(s.f.remove(rel+"/"+journalName), s.f.remove(rel+"/"+journalIndex), s.f.remove(rel+"/"+jobName))
}

// conclude gives an attempt that was cut off its timeline and its run.json.
func (s *Store) conclude(rel string, report *Recovery) error {
	result, err := s.interrupted(rel)
	if err != nil {
		return err
	}
	found, err := s.convertJournal(rel, result)
	if err != nil {
		return err
	}
	if found.Reason != "" {
		result.Run.Notes = append(result.Run.Notes, "the journal of samples was cut at its last good batch: "+found.Reason)
	}
	if err := s.writeResult(rel, result); err != nil {
		return err
	}
	if report != nil {
		report.add(result.Run.RunID, rel, found)
	}
	return nil
}

// convertJournal turns the good part of a journal into timeline.parquet.
func (s *Store) convertJournal(rel string, result *runner.Result) (JournalReport, error) {
	data, err := s.f.open(rel + "/" + journalName)
	if errors.Is(err, fs.ErrNotExist) {
		return JournalReport{}, nil // it was killed before its journal stood
	}
	if err != nil {
		return JournalReport{}, err
	}
	defer data.Close() //nolint:errcheck // opened to read
	index, size, err := s.journalParts(rel, data)
	if err != nil {
		return JournalReport{}, err
	}
	last := time.Duration(0)
	found, err := readJournal(data, size, index, func(batch []runner.Sample) error {
		for i := range batch {
			last = max(last, batch[i].Offset)
		}
		return nil
	})
	if err != nil || found.Samples == 0 {
		return found, err
	}
	result.Run.EndedAt, result.Run.WallS = result.Run.StartedAt.Add(last), last.Seconds()
	info, err := s.writeTimelineFile(rel, result, func(yield func([]runner.Sample) error) error {
		_, err := readJournal(data, size, index, yield)
		return err
	})
	result.Files = append(result.Files, info)
	return found, err
}

func (s *Store) journalParts(rel string, data *os.File) (index []byte, size int64, err error) {
	info, err := data.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is no regular file", s.f.path(rel+"/"+journalName))
	}
	index, err = s.f.readFile(rel + "/" + journalIndex)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // without an index nothing vouches for the journal
	}
	return index, info.Size(), err
}

// interrupted is the result of an attempt of which only its record is left.
func (s *Store) interrupted(rel string) (*runner.Result, error) {
	var a attempt
	b, err := s.f.readFile(rel + "/" + jobName)
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	r := &runner.Result{SchemaVersion: runner.SchemaVersion, ProfilerVersion: a.Version, Timestamp: s.now().UTC()}
	r.Run = runner.RunInfo{RunID: a.RunID, Execution: a.Execution, Repeat: a.Repeat, Attempts: a.Attempt, StartedAt: a.StartedAt, EndedAt: a.StartedAt,
		Outcome: runner.OutcomeInterrupted, OutcomeDetail: "vramsweep was killed during this attempt; its samples were recovered from the journal",
		Synthetic: a.Synthetic}
	r.GPUInfo = a.Devices
	r.Missing = map[string]string{"memory_breakdown": "the attempt was killed", "latency_stats": "the attempt was killed", "vllm_internal_metrics": "the attempt was killed; `vramsweep explain` reads its raw logs"}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if errors.As(err, new(*fs.PathError)) {
			return nil, err
		}
		r.Run.Notes = append(r.Run.Notes, "the record of the attempt cannot be read: "+err.Error())
	}
	if a.Profile == nil {
		r.Run.Execution, r.Run.RunID = path.Base(path.Dir(rel)), path.Base(rel)
		return r, nil
	}
	r.Run.ProfileID, r.Run.Sweep = a.Profile.ID, a.Profile.Sweep
	r.Run.Axes = map[string]any{}
	for _, axis := range a.Profile.Axes {
		r.Run.Axes[axis.Axis] = axis.Value
	}
	st := &a.Profile.Settings
	r.ModelInfo = modelInfo(st, a.Model)
	r.BenchmarkParameters = runner.BenchmarkParameters{
		Engine: a.Profile.Engine.Kind, EngineMode: a.Profile.Engine.Mode,
		Dtype: st.Dtype, KVCacheDtype: st.KVCacheDtype, Quantization: st.Quantization,
		TensorParallelSize: st.TensorParallelSize, PipelineParallelSize: st.PipelineParallelSize,
		InputLen: st.InputLen, OutputLen: st.OutputLen, BatchSize: st.BatchSize, MaxModelLen: st.MaxModelLen,
		MaxNumSeqs: st.MaxNumSeqs, MaxNumBatchedTokens: st.MaxNumBatchedTokens, GPUMemoryUtilization: st.GPUMemoryUtilization,
		KVCacheMemoryBytes: st.KVCacheMemoryBytes, BlockSize: st.BlockSize, EnforceEager: st.EnforceEager,
		LoadFormat: st.LoadFormat, NumIters: st.NumIters, NumItersWarmup: st.NumItersWarmup}
	return r, nil
}

func modelInfo(st *sweep.Settings, m *models.Architecture) runner.ModelInfo {
	info := runner.ModelInfo{Model: st.Model, HFModelID: st.HFModelID, Source: "unknown"}
	if m == nil {
		return info
	}
	info.Family, info.Source, info.Architecture = m.Family, m.Source, text(m.Architecture)
	info.Params, info.NumLayers, info.NumHeads = count(m.Params), count(m.NumLayers), count(m.NumHeads)
	info.NumKVHeads, info.HeadDim = count(m.NumKVHeads), count(m.HeadDim)
	info.HiddenSize, info.VocabSize = count(m.HiddenSize), count(m.VocabSize)
	return info
}

// A Recovery says what Recover mended.
type Recovery struct {
	Attempts []RecoveredAttempt `json:"attempts"` // were cut off; the runs are due again
	Removed  []string           `json:"removed"`  // leftovers: temporary files, journals of finished runs
}

// A RecoveredAttempt is an attempt that was cut off.
type RecoveredAttempt struct {
	RunID   string `json:"run_id"`
	Dir     string `json:"dir"` // under attempts/, relative to the output folder
	Samples int64  `json:"samples"`
	Lost    int64  `json:"lost_bytes"` // of the journal, after its last good batch
	Reason  string `json:"reason,omitempty"`
}

func (r *Recovery) add(run, rel string, found JournalReport) {
	dir := path.Dir(path.Dir(rel)) // the stage has no number yet
	r.Attempts = append(r.Attempts, RecoveredAttempt{RunID: run, Dir: dir, Samples: found.Samples, Lost: found.Lost, Reason: found.Reason})
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
	executions, err := s.f.dirs(runsDir)
	for _, execution := range executions {
		runs, rerr := s.runs(execution)
		err = errors.Join(err, rerr)
		for _, rel := range runs {
			if rerr := s.recoverRun(rel, report); rerr != nil {
				err = errors.Join(err, s.f.explain("recovering "+rel, rerr))
			}
		}
	}
	for _, dir := range []string{".", executionsDir} {
		err = errors.Join(err, s.removeTemporary(dir, report))
	}
	if terr := s.withTables(report, s.endExecutions); terr != nil {
		err = errors.Join(err, s.f.explain("putting tables/ in order", terr))
	}
	return report, err
}

func (s *Store) recoverRun(rel string, report *Recovery) error {
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
	before := len(report.Attempts)
	if err := s.archive(rel, report); err != nil {
		return err
	}
	if len(report.Attempts) > before {
		if n, err := s.attempts(rel); err == nil && len(n) > 0 {
			report.Attempts[before].Dir = rel + "/" + attemptsDir + "/" + n[len(n)-1]
		}
	}
	return nil
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

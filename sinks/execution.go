package sinks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// The runner owns what an execution is; a Store is its runner.History.
type (
	// Execution is what executions/<execution>.json holds.
	Execution = runner.Execution
	// ExecutionState says how far an execution got.
	ExecutionState = runner.ExecutionState
)

// The states. An execution whose runner died stays "running".
const (
	StateRunning     = runner.StateRunning
	StateInterrupted = runner.StateInterrupted
	StateComplete    = runner.StateComplete
)

const executionsDir, runsDir, tablesDir = "executions", "runs", "tables"

func executionFile(id string) string { return executionsDir + "/" + id + ".json" }

// checkID refuses an execution id that is no plain name: it becomes a path.
func checkID(id string) error {
	if id == "" || id != safeName(id) {
		return fmt.Errorf("%q is no execution id: expected letters, digits, dots, underscores and hyphens", id)
	}
	return nil
}

// BeginExecution notes that an execution starts or, where it is known already,
// goes on: then its start stays, and plan and runs are those of now.
func (s *Store) BeginExecution(e *Execution) error {
	if err := errors.Join(s.writable(), checkID(e.ID)); err != nil {
		return err
	}
	now := s.now().UTC()
	switch before, err := s.part(e.ID, e.Shard); {
	case err == nil:
		e.StartedAt, e.ResumedAt, e.Sequence = before.StartedAt, append(before.ResumedAt, now), before.Sequence
	case errors.Is(err, errNoExecution):
		all, _ := s.Executions() // a damaged one is told elsewhere
		for _, other := range all {
			e.Sequence = max(e.Sequence, other.Sequence)
		}
		e.Sequence++
	default:
		return err
	}
	if e.StartedAt.IsZero() {
		e.StartedAt = now
	}
	if e.Version == "" {
		e.Version = s.opts.Version
	}
	e.State, e.EndedAt, e.Command = StateRunning, nil, s.opts.Masker.Argv(e.Command)
	return s.writeExecution(e)
}

// FinishExecution brings tables/ up to date and then notes how the execution
// ended. It can be repeated.
func (s *Store) FinishExecution(id string, state ExecutionState, summary any) error {
	e, err := s.part(id, s.opts.Shard)
	if err := errors.Join(s.writable(), err); err != nil {
		return err
	}
	note, err := json.Marshal(summary)
	if err != nil {
		return fmt.Errorf("the summary of execution %s: %w", id, err)
	}
	now := s.now().UTC()
	e.State, e.EndedAt, e.Summary = state, &now, json.RawMessage(s.opts.Masker.Text(string(note)))
	perr := s.publishNow(e, state == StateComplete)
	if perr != nil && state == StateComplete {
		e.State = StateInterrupted // the tables are not complete: `run --resume` or `compact` finishes them
	}
	return errors.Join(perr, s.writeExecution(e))
}

// endExecutions brings tables/ up to date for executions whose runner died: only
// who holds the lock of the folder, or of the shard, knows that.
func (s *Store) endExecutions() error {
	executions, err := s.Executions()
	for _, whole := range executions {
		for _, e := range partsOf(whole) {
			if e.State != StateRunning || !s.mine(e.ID, e.Shard) {
				continue
			}
			e.State = StateInterrupted
			perr := s.publish(e, false)
			if onlyDamage(perr) {
				perr = errors.Join(perr, s.writeExecution(e))
			}
			err = errors.Join(err, perr)
		}
	}
	return err
}

// mine reports whether this store may write an execution, or a shard of it.
func (s *Store) mine(execution, shard string) bool {
	return s.opts.Shard == "" || s.opts.Shard == shard && s.opts.Execution == execution
}

func (s *Store) writeExecution(e *Execution) error {
	b, err := json.MarshalIndent(e, "", "  ")
	if err == nil {
		err = s.f.mkdir(executionsDir)
	}
	if err == nil {
		err = s.f.replace(executionFile(fileName(e.ID, e.Shard)), func(w io.Writer) error {
			_, err := w.Write(sealJSON(append(b, '\n')))
			return err
		})
	}
	return s.f.explain("writing execution "+e.ID, err)
}

var errNoExecution = errors.New("there is no such execution")

// Execution reads what is known of one execution.
func (s *Store) Execution(id string) (*Execution, error) {
	parts, err := s.parts(id)
	if err != nil {
		return nil, err
	}
	return union(parts), nil
}

// Executions are all executions of the folder, the oldest first. One whose
// file is damaged is left out and named in the error; the others are returned.
func (s *Store) Executions() ([]*Execution, error) {
	ids, err := s.executionIDs()
	var all []*Execution
	var faults []Fault
	for _, id := range ids {
		e, rerr := s.Execution(id)
		if rerr != nil {
			faults = append(faults, Fault{File: executionFile(id), What: rerr.Error()})
			continue
		}
		all = append(all, e)
	}
	slices.SortFunc(all, (*Execution).Compare)
	return all, errors.Join(err, damaged(faults))
}

// executionIDs are the executions that executions/ names.
func (s *Store) executionIDs() ([]string, error) {
	entries, err := s.f.list(executionsDir)
	var ids []string
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok || strings.HasPrefix(id, ".") {
			continue
		}
		if at := strings.LastIndexByte(id, '.'); at > 0 && strings.Contains(id[at:], "-of-") {
			id = id[:at] // of its shards one stands for all
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, err
}

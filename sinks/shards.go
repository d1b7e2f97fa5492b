package sinks

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// An execution of several shards is the union of their notes,
// executions/<execution>.<shard>.json: each has one writer, and so has each file of
// tables/. Who asks for the execution gets them as one.

// shardName is a shard as it stands in the names of files: "3/6" is "3-of-6".
func shardName(shard string) string { return strings.Replace(shard, "/", "-of-", 1) }

// fileName is the name of an execution's files, or of its shard's, without ending.
func fileName(execution, shard string) string {
	if shard == "" {
		return execution
	}
	return execution + "." + shardName(shard)
}

// parts are the notes of an execution: one, or one a shard that has begun, in order.
func (s *Store) parts(id string) (parts []*Execution, err error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if s.f.exists(executionFile(id)) {
		e, err := s.note(id, executionFile(id))
		return []*Execution{e}, err
	}
	entries, err := s.f.list(executionsDir)
	for _, entry := range entries {
		shard, ok := strings.CutSuffix(strings.TrimPrefix(entry.Name(), id+"."), ".json")
		if !ok || !strings.HasPrefix(entry.Name(), id+".") || !strings.Contains(shard, "-of-") ||
			strings.Contains(shard, ".") {
			continue
		}
		e, nerr := s.note(id, executionsDir+"/"+entry.Name())
		if nerr != nil {
			err = errors.Join(err, nerr)
			continue
		}
		parts = append(parts, e)
	}
	if len(parts) == 0 && err == nil {
		err = fmt.Errorf("execution %s in %s: %w", id, s.f.dir, errNoExecution)
	}
	slices.SortFunc(parts, func(a, b *Execution) int {
		x, _ := a.ShardOf()
		y, _ := b.ShardOf()
		return cmp.Compare(x, y)
	})
	return parts, err
}

// part is the note of one shard; "" of an execution that has none.
func (s *Store) part(id, shard string) (*Execution, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	name := executionFile(fileName(id, shard))
	if !s.f.exists(name) {
		return nil, fmt.Errorf("execution %s in %s: %w", fileName(id, shard), s.f.dir, errNoExecution)
	}
	return s.note(id, name)
}

// note reads what executions/ says.
func (s *Store) note(id, name string) (*Execution, error) {
	b, err := s.f.readFile(name)
	e := new(Execution)
	if err == nil {
		err = checkJSON(b)
	}
	if err == nil {
		err = json.Unmarshal(b, e)
	}
	if err == nil && e.ID != id {
		err = fmt.Errorf("it is about execution %q", e.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.f.path(name), err)
	}
	return e, nil
}

// union is an execution as its shards make it: complete when all of them are.
func union(parts []*Execution) *Execution {
	if len(parts) == 1 && parts[0].Shard == "" {
		return parts[0]
	}
	e := *parts[0]
	_, n := e.ShardOf()
	e.Shard, e.Shards, e.Summary, e.Command = "", parts, nil, nil
	e.Runs, e.ResumedAt, e.EndedAt, e.State = 0, nil, nil, StateComplete
	var plan []json.RawMessage
	for _, part := range parts {
		var own []json.RawMessage
		if json.Unmarshal(part.Plan, &own) == nil {
			plan = append(plan, own...)
		}
		e.Runs += part.Runs
		e.ResumedAt = append(e.ResumedAt, part.ResumedAt...)
		if part.StartedAt.Before(e.StartedAt) {
			e.StartedAt = part.StartedAt
		}
		if part.EndedAt != nil && (e.EndedAt == nil || part.EndedAt.After(*e.EndedAt)) {
			e.EndedAt = part.EndedAt
		}
		switch {
		case part.State == StateRunning:
			e.State = StateRunning
		case part.State != StateComplete && e.State == StateComplete:
			e.State = part.State
		}
	}
	if len(parts) < n && e.State == StateComplete {
		e.State = StateInterrupted // the others have not begun
	}
	if e.State != StateComplete {
		e.EndedAt = nil
	}
	if b, err := json.Marshal(plan); err == nil {
		e.Plan = b
	}
	return &e
}

// partsOf are what is published by itself of an execution: its shards, or it.
func partsOf(e *Execution) []*Execution {
	if len(e.Shards) > 0 {
		return e.Shards
	}
	return []*Execution{e}
}

// runsOf are the folders of an execution's runs; of a shard those of its plan.
func (s *Store) runsOf(e *Execution) ([]string, error) {
	all, err := s.runs(e.ID)
	if err != nil || e.Shard == "" {
		return all, err
	}
	var plan []runner.PlannedProfile
	if err := json.Unmarshal(e.Plan, &plan); err != nil {
		return nil, fmt.Errorf("the plan of %s: %w", executionFile(fileName(e.ID, e.Shard)), err)
	}
	own := map[string]bool{}
	for _, p := range plan {
		for repeat := 1; repeat <= p.Repeats; repeat++ {
			own[runsDir+"/"+e.ID+"/"+runName(p.Sweep, p.ID, repeat)] = true
		}
	}
	return slices.DeleteFunc(all, func(rel string) bool { return !own[rel] }), nil
}

// shardLock is the lock of who runs a shard.
func shardLock(execution, shard string) string {
	return executionsDir + "/." + fileName(execution, shard) + ".lock"
}

// Held reports whether a runner works on an execution, or on a shard of it: one that
// is noted as running while nobody does was killed.
func (s *Store) Held(e *Execution) bool {
	name := lockRun
	if e.Shard != "" {
		name = shardLock(e.ID, e.Shard)
	}
	if !s.f.exists(name) {
		return false
	}
	lock, err := s.f.lock(name, s.holder(), true)
	if err != nil {
		return errors.As(err, new(*LockedError))
	}
	return lock.unlock() != nil
}

package sinks

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/vramsweep/vramsweep/sinks/table"
)

// mergeBytes bounds a merged file: larger ones gain a reader nothing, and every
// later merge would have to write them again.
const mergeBytes = 256 << 20

// A Compaction says what Compact did.
type Compaction struct {
	Published []string `json:"published"` // executions whose files were written from their runs
	Merged    int      `json:"merged"`    // files that went into others
	Files     int      `json:"files"`     // Parquet files in tables/ now
	Rows      int64    `json:"rows"`      // in all tables
	SetAside  []string `json:"set_aside"` // damaged files that were moved out of tables/ (Rebuild)
	Damaged   []Fault  `json:"damaged"`   // runs and executions that were left out
}

// Compact brings tables/ up to date and merges the files of a month. It works
// beside a running sweep, whose finished runs it publishes but leaves in a file of
// their own. Merging exchanges a month's folder: a reader that lists it in just
// that moment misses the month, and none sees a row twice. Killed at any moment
// it leaves, after Recover or the next Compact, every row exactly once.
func (s *Store) Compact() (*Compaction, error) { return s.compact(false) }

// Rebuild is Compact for a folder with faults: it writes the tables of every
// execution that has run folders again. Files of tables/ that cannot be read to their end
// are moved to damaged/, not deleted.
func (s *Store) Rebuild() (*Compaction, error) { return s.compact(true) }

func (s *Store) compact(rebuild bool) (*Compaction, error) {
	report := &Compaction{}
	executions, err := s.Executions()
	bad := new(DamagedError)
	if errors.As(err, &bad) {
		report.Damaged = bad.Faults
	} else if err != nil {
		return nil, err
	}
	err = s.withTables(nil, func() error {
		if rebuild {
			if err := s.setTablesAside(report); err != nil {
				return err
			}
		}
		if err := s.publishStale(executions, rebuild, report); err != nil {
			return err
		}
		for _, t := range registry() {
			if err := s.mergeTable(t, report); err != nil {
				return err
			}
		}
		return s.count(report)
	})
	return report, s.f.explain("compacting", err)
}

// publishStale publishes the executions that can get more runs, or of which the
// table runs has not all for good.
func (s *Store) publishStale(executions []*Execution, rebuild bool, report *Compaction) error {
	live := s.lock == nil && s.lockedByOther()
	files, err := s.footers(TableRuns)
	if err != nil {
		return err
	}
	settled := map[string]bool{}
	for _, f := range files {
		for _, m := range f.marks {
			part := fileName(m.Execution, m.Shard)
			settled[part] = settled[part] || m.Final
		}
	}
	var parts []*Execution
	last := 0 // where the parts of the last execution begin
	for _, e := range executions {
		last = len(parts)
		parts = append(parts, partsOf(e)...)
	}
	for i, e := range parts {
		final, err := s.settleExecution(e, i >= last, live)
		if err != nil {
			return err
		}
		part := fileName(e.ID, e.Shard)
		runs, err := s.runsOf(e)
		if err != nil {
			return err
		}
		if len(runs) == 0 || !rebuild && final && settled[part] && e.State != StateRunning {
			continue // or nothing is left to publish it from
		}
		err = s.publish(e, final)
		bad := new(DamagedError)
		if errors.As(err, &bad) {
			report.Damaged = append(report.Damaged, bad.Faults...)
		}
		if !onlyDamage(err) {
			return fmt.Errorf("execution %s: %w", part, err)
		}
		report.Published = append(report.Published, part)
	}
	return nil
}

func (s *Store) setTablesAside(report *Compaction) error {
	for _, t := range Tables() {
		files, err := s.tableFiles(t)
		if err != nil {
			return err
		}
		for _, name := range files {
			if len(s.checkPages(tablesDir+"/"+name)) == 0 {
				continue
			}
			to, err := s.setAside(tablesDir + "/" + name)
			if err != nil {
				return err
			}
			report.SetAside = append(report.SetAside, to)
		}
	}
	return nil
}

// settleExecution says whether an execution gets no more runs. Only the last one
// is ever gone on with; an earlier one whose runner died is noted as interrupted.
func (s *Store) settleExecution(e *Execution, last, live bool) (bool, error) {
	if e.State == StateComplete {
		return true, nil
	}
	if last || live && e.State == StateRunning {
		return false, nil
	}
	if e.State == StateRunning {
		e.State = StateInterrupted
		return true, s.writeExecution(e)
	}
	return true, nil
}

// lockedByOther says whether somebody runs a sweep in the folder.
func (s *Store) lockedByOther() bool {
	lock, err := s.f.lock(lockRun, s.holder(), false)
	if err != nil {
		return errors.As(err, new(*LockedError))
	}
	return lock.unlock() != nil
}

func (s *Store) count(report *Compaction) error {
	for _, t := range Tables() {
		files, err := s.footers(t)
		if err != nil {
			return err
		}
		for _, f := range files {
			report.Files, report.Rows = report.Files+1, report.Rows+f.rows
		}
	}
	return nil
}

// mergeTable merges neighbours of a month into files of up to mergeBytes, and
// rewrites files of an older schema.
func (s *Store) mergeTable(t anyTable, report *Compaction) error {
	files, err := s.footers(t.def().name)
	if err != nil {
		return err
	}
	var axes []table.Axis
	for _, f := range files {
		axes = table.AddAxes(axes, f.Axes())
	}
	staged, gone := map[string][]string{}, map[string][]string{} // by month
	for _, g := range mergeGroups(t, files, axes) {
		name, dir := g.name(), path.Dir(g.files[0].name)
		if err := s.rewrite(t, g.files, name, axes); err != nil {
			return errors.Join(err, s.f.removeAll(stagingDir))
		}
		staged[dir] = append(staged[dir], name)
		report.Merged += len(g.files)
		for _, f := range g.files {
			if f.name != name {
				gone[dir] = append(gone[dir], f.name)
			}
		}
	}
	for dir, names := range staged {
		if len(names) == 1 && len(gone[dir]) == 0 {
			err = errors.Join(err, s.place(names[0]))
		} else {
			err = errors.Join(err, s.exchange(dir, names, gone[dir]))
		}
	}
	return errors.Join(err, s.f.removeAll(stagingDir))
}

// A mergeGroup becomes one file.
type mergeGroup struct {
	files []tableFile
	bytes int64
	old   bool // one of them is rewritten for its schema in any case
}

// name of the merged file: its first execution and how many more it holds.
func (g *mergeGroup) name() string {
	first, marks := g.files[0], 0
	if len(g.files) == 1 {
		return first.name
	}
	for _, f := range g.files {
		marks += len(f.marks)
	}
	return path.Join(path.Dir(first.name), fmt.Sprintf("%s+%d.parquet", first.marks[0].Execution, marks-1))
}

// mergeGroups leaves the files of shards apart: each has one writer, and the rows of
// one execution would have to be put in order anew.
func mergeGroups(t anyTable, files []tableFile, axes []table.Axis) []*mergeGroup {
	var groups []*mergeGroup
	var current *mergeGroup // takes more
	for _, f := range files {
		open := len(f.marks) == 0 || slices.ContainsFunc(f.marks, func(m Mark) bool { return !m.Final || m.Shard != "" })
		if current == nil || open || path.Dir(f.name) != path.Dir(current.files[0].name) ||
			current.bytes+f.Size() > mergeBytes {
			current = &mergeGroup{}
			groups = append(groups, current)
		}
		current.files, current.bytes = append(current.files, f), current.bytes+f.Size()
		current.old = current.old || !f.SameColumns(t.rowType(), axes)
		if open {
			current = nil
		}
	}
	return slices.DeleteFunc(groups, func(g *mergeGroup) bool { return len(g.files) < 2 && !g.old })
}

package sinks

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/parquet-go/parquet-go"
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
}

// Compact brings tables/ up to date and merges the files of a month. It works
// beside a running sweep, whose finished runs it publishes but leaves in a file of
// their own. Killed at any moment it leaves the tables as they were before or after
// a step; no row is lost or doubled.
func (s *Store) Compact() (*Compaction, error) { return s.compact(false) }

// Rebuild is Compact for a folder with faults: it writes the tables of every
// execution that has run folders again. Files of tables/ that cannot be read to their end
// are moved to damaged/, not deleted.
func (s *Store) Rebuild() (*Compaction, error) { return s.compact(true) }

func (s *Store) compact(rebuild bool) (*Compaction, error) {
	report := &Compaction{}
	executions, err := s.Executions()
	if err != nil {
		return nil, err
	}
	err = s.withTables(func() error {
		if err := s.settleTables(nil); err != nil {
			return err
		}
		if rebuild {
			if err := s.setAside(report); err != nil {
				return err
			}
		}
		live := s.lock == nil && s.lockedByOther()
		settled, err := s.settledExecutions()
		if err != nil {
			return err
		}
		for i, e := range executions {
			final, err := s.settleExecution(e, i == len(executions)-1, live)
			if err != nil {
				return err
			}
			stale := rebuild || !final || !settled[e.ID] || s.running(e.ID)
			published, err := s.publishIfStale(e, final, stale)
			if err != nil {
				return fmt.Errorf("execution %s: %w", e.ID, err)
			}
			if published {
				report.Published = append(report.Published, e.ID)
			}
		}
		for _, t := range Tables() {
			merged, err := s.mergeTable(t)
			if err != nil {
				return err
			}
			report.Merged += merged
		}
		return s.count(report)
	})
	return report, s.f.explain("compacting", err)
}

// damagedDir is where Rebuild moves files that cannot be read.
const damagedDir = "damaged"

func (s *Store) setAside(report *Compaction) error {
	files, err := s.tableFiles("")
	if err != nil {
		return err
	}
	for _, name := range files {
		if len(s.checkPages(tablesDir+"/"+name)) == 0 {
			continue
		}
		to := damagedDir + "/" + s.now().UTC().Format("20060102T150405Z") + "/" + name
		err := s.f.mkdir(path.Dir(to))
		if err == nil {
			err = s.f.rename(tablesDir+"/"+name, to)
		}
		if err != nil {
			return err
		}
		report.SetAside = append(report.SetAside, to)
	}
	m, err := s.readManifest()
	if err != nil {
		return err
	}
	if files, err = s.tableFiles(""); err != nil {
		return err
	}
	maps.DeleteFunc(m.Files, func(name string, _ *manifestEntry) bool { return !slices.Contains(files, name) })
	for _, name := range files { // what reads well is what it is
		sum, err := s.adopt(tablesDir + "/" + name)
		if err != nil {
			return err
		}
		m.Files[name] = &manifestEntry{Sums: []fileSum{sum}}
	}
	return s.writeManifest(m)
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
	lock, err := s.f.lock(lockRun, s.holder())
	if err != nil {
		return errors.As(err, new(*LockedError))
	}
	return unlock(lock) != nil
}

func (s *Store) count(report *Compaction) error {
	m, err := s.readManifest()
	if err != nil {
		return err
	}
	report.Files = len(m.Files)
	for _, entry := range m.Files {
		for _, sum := range entry.Sums {
			report.Rows += sum.Rows
		}
	}
	return nil
}

// settledExecutions are those of which the table of runs has all for good.
func (s *Store) settledExecutions() (map[string]bool, error) {
	files, err := s.tableFiles(TableRuns)
	settled := map[string]bool{}
	for _, name := range files {
		marks, merr := s.fileMarks(name)
		err = errors.Join(err, merr)
		for _, m := range marks {
			settled[m.Execution] = settled[m.Execution] || m.Final
		}
	}
	return settled, err
}

// publishIfStale publishes an execution unless it is settled, or nothing is left
// to publish it from.
func (s *Store) publishIfStale(e *Execution, final, stale bool) (bool, error) {
	if runs, err := s.runs(e.ID); err != nil || len(runs) == 0 || !stale {
		return false, err
	}
	return true, s.publish(e, final)
}

// mergeTable merges neighbours of a month into files of up to mergeBytes, and
// rewrites files of an older schema.
func (s *Store) mergeTable(t Table) (merged int, err error) {
	files, err := s.tableFiles(t)
	if err != nil {
		return 0, err
	}
	var axes []axisColumn
	if t == TableRuns {
		if axes, err = s.knownAxes(); err != nil {
			return 0, err
		}
	}
	groups, err := s.mergeGroups(t, files, axes)
	if err != nil {
		return 0, err
	}
	c := &change{table: t, staged: map[string]fileSum{}}
	for _, g := range groups {
		if err := rewriteTable(s, c, g.files, g.name(), axes, ""); err != nil {
			return 0, errors.Join(err, s.f.removeAll(stagingDir))
		}
		for _, name := range g.files {
			if name != g.name() {
				c.gone = append(c.gone, name)
			}
		}
		merged += len(g.files)
	}
	return merged, s.apply([]*change{c})
}

// A mergeGroup becomes one file.
type mergeGroup struct {
	files []string
	marks []Mark
	bytes int64
	old   bool // a single file that is rewritten for its schema
}

// name of the merged file: its first execution and how many more it holds.
func (g *mergeGroup) name() string {
	if len(g.files) == 1 {
		return g.files[0]
	}
	return mergedName(path.Dir(g.files[0]), g.marks)
}

// mergedName is the name of a file in dir that holds these executions.
func mergedName(dir string, marks []Mark) string {
	if len(marks) == 1 {
		return path.Join(dir, marks[0].Execution+".parquet")
	}
	return path.Join(dir, fmt.Sprintf("%s+%d.parquet", marks[0].Execution, len(marks)-1))
}

func (s *Store) mergeGroups(t Table, files []string, axes []axisColumn) ([]*mergeGroup, error) {
	schema := schemaOf(t, axes)
	var groups []*mergeGroup
	var current *mergeGroup
	month := ""
	for _, name := range files {
		marks, bytes, old, err := s.mergeFacts(name, schema)
		if err != nil {
			return nil, err
		}
		open := len(marks) == 0 || slices.ContainsFunc(marks, func(m Mark) bool { return !m.Final })
		if current == nil || open || path.Dir(name) != month || current.bytes+bytes > mergeBytes {
			current = &mergeGroup{}
			groups = append(groups, current)
		}
		month = path.Dir(name)
		current.files, current.marks = append(current.files, name), append(current.marks, marks...)
		current.bytes, current.old = current.bytes+bytes, current.old || old
		if open {
			current = nil
		}
	}
	return slices.DeleteFunc(groups, func(g *mergeGroup) bool { return len(g.files) < 2 && !g.old }), nil
}

func (s *Store) mergeFacts(name string, schema *parquet.Schema) (marks []Mark, bytes int64, old bool, err error) {
	pf, file, err := s.f.openTable(tablesDir + "/" + name)
	if err != nil {
		return nil, 0, false, fmt.Errorf("reading %s: %w; `vramsweep verify` says more", s.f.path(tablesDir+"/"+name), err)
	}
	return marksOf(pf), pf.Size(), !sameColumns(pf.Schema(), schema), file.Close()
}

func sameColumns(a, b *parquet.Schema) bool {
	return slices.EqualFunc(a.Columns(), b.Columns(), func(x, y []string) bool { return slices.Equal(x, y) })
}

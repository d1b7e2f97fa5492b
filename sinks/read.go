package sinks

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks/table"
)

// Read yields the rows of one table, of all folders one after another, in the
// order of their executions, shards and run ids. Each path is an output folder or a
// single run.json. Runs that are finished are seen although their execution
// goes on and tables/ knows nothing of them; no row is seen twice. A file
// that cannot be read yields its error, with the zero row, and the reading goes
// on with the next; the caller stops by leaving the loop. Memory does not
// depend on the number of rows.
func Read[T Row](where Predicate, paths ...string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, name := range paths {
			if !readPath(name, where, yield) {
				return
			}
		}
	}
}

// readPath reports whether the caller wants more.
func readPath[T Row](name string, where Predicate, yield func(T, error) bool) bool {
	var zero T
	info, err := os.Stat(name)
	if err != nil {
		return yield(zero, fmt.Errorf("reading results: %w", err))
	}
	if !info.IsDir() {
		return readSingle(name, where, yield)
	}
	s, err := View(name, Options{})
	if err != nil {
		return yield(zero, err)
	}
	defer s.Close() //nolint:errcheck // opened to read
	return ReadStore(s, where, yield)
}

// ReadStore is Read for a folder that is open; it reports whether the caller
// wants more.
func ReadStore[T Row](s *Store, where Predicate, yield func(T, error) bool) bool {
	r := &storeReader[T]{rowTable: tableOf[T](), s: s, where: where, yield: yield, more: true}
	plan, err := s.readPlan(r.name, where)
	r.fail(err)
	for _, part := range plan {
		if !r.more {
			break
		}
		if part.file != "" {
			r.parquet(tablesDir+"/"+part.file, part.skip)
		} else {
			r.folders(&Execution{ID: part.execution})
		}
	}
	return r.more
}

// A readPart is a file of tables/, or the run folders of an execution.
type readPart struct {
	file      string          // path in tables/; "" for folders
	execution string          // of the folders
	skip      map[string]bool // executions in the file that are read from their folders
	first     string          // for the order
}

// readPlan says where the rows of each execution are read: from tables/, but
// for executions that can still get runs, and those that tables/ lacks, whose
// folders are read.
func (s *Store) readPlan(t Table, where Predicate) ([]readPart, error) {
	folders, err := s.f.dirs(runsDir)
	if err != nil {
		return nil, err
	}
	files, err := s.footers(t)
	open := map[string]bool{} // executions that are read from their folders
	for _, f := range files {
		for _, m := range f.marks {
			if slices.Contains(folders, m.Execution) && (!m.Final || s.running(m.Execution)) {
				open[m.Execution] = true
			}
		}
	}
	var parts []readPart
	settled := map[string]bool{}
	for _, f := range files {
		if part, wanted := planFile(f.name, f.marks, open, settled, where); wanted {
			parts = append(parts, part)
		}
	}
	for _, execution := range folders {
		if !settled[execution] && (where.Execution == "" || where.Execution == execution) {
			parts = append(parts, readPart{execution: execution, first: execution})
		}
	}
	slices.SortStableFunc(parts, func(a, b readPart) int { return strings.Compare(a.first, b.first) })
	return parts, err
}

// planFile plans the reading of a file of tables/, and notes which executions it
// settles.
func planFile(name string, marks []Mark, open, settled map[string]bool, where Predicate) (part readPart, wanted bool) {
	part = readPart{file: name, skip: open}
	wanted = len(marks) == 0 // a file of others: its rows say what they are
	for _, m := range marks {
		if open[m.Execution] {
			continue
		}
		settled[m.Execution] = true
		wanted = wanted || where.Execution == "" || where.Execution == m.Execution
		if part.first == "" {
			part.first = m.Execution
		}
	}
	return part, wanted
}

// running says whether an execution can still get runs: one of shards until all
// are complete.
func (s *Store) running(execution string) bool {
	e, err := s.Execution(execution)
	return err == nil && (e.State == StateRunning || len(e.Shards) > 0 && e.State != StateComplete)
}

type storeReader[T Row] struct {
	*rowTable[T]
	s     *Store
	where Predicate
	yield func(T, error) bool
	more  bool
}

func (r *storeReader[T]) emit(rows []T, skip map[string]bool) error {
	for i := range rows {
		k := r.key(&rows[i])
		if skip[k.Execution] || !r.where.match(k) {
			continue
		}
		if !r.yield(rows[i], nil) {
			r.more = false
			return errStopped
		}
	}
	return nil
}

func (r *storeReader[T]) fail(err error) {
	var zero T
	if err != nil && !errors.Is(err, errStopped) && !r.yield(zero, err) {
		r.more = false
	}
}

func (r *storeReader[T]) parquet(name string, skip map[string]bool) {
	r.fail(r.s.openTable(name, func(f *table.File) error {
		return r.read(f, r.where, func(rows []T) error { return r.emit(rows, skip) })
	}))
}

// folders reads the finished runs of an execution.
func (r *storeReader[T]) folders(execution *Execution) {
	runs, err := r.s.orderedRuns(execution)
	r.fail(err)
	for _, run := range runs {
		if !r.more {
			return
		}
		if r.folder(run); !r.more {
			return
		}
	}
}

func (r *storeReader[T]) folder(run *runHead) {
	if r.of == nil {
		if err := r.s.timelineOf(run); errors.Is(err, fs.ErrNotExist) {
			return // it is just being retried
		} else if err != nil {
			r.fail(err)
		} else if name := run.rel + "/" + timelineName; r.s.f.exists(name) {
			r.parquet(name, nil)
		}
		return
	}
	rows, err := r.s.publishedRows(run)
	if errors.Is(err, fs.ErrNotExist) {
		return // it is just being retried
	}
	if err == nil {
		err = r.emit(r.of(rows), nil)
	}
	r.fail(err)
}

// readSingle reads one run.json that may lie anywhere, with the timeline beside it.
func readSingle[T Row](name string, where Predicate, yield func(T, error) bool) bool {
	var zero T
	result, err := ReadResult(name)
	if err != nil {
		return yield(zero, err)
	}
	dir, err := openFolder(filepath.Dir(name))
	if err != nil {
		return yield(zero, err)
	}
	defer dir.close() //nolint:errcheck // opened to read
	r := &storeReader[T]{rowTable: tableOf[T](), s: &Store{f: dir}, where: where, yield: yield, more: true}
	if r.of == nil {
		if hasFile(result, timelineName) && dir.exists(timelineName) {
			r.folder(&runHead{rel: ".", files: result.Files})
		}
		return r.more
	}
	r.fail(r.emit(r.of(RowsOf(result)), nil))
	return r.more
}

func hasFile(r *runner.Result, name string) bool {
	return slices.ContainsFunc(r.Files, func(f runner.FileInfo) bool { return f.Name == name })
}

// Results yields every finished run.json of the folder, with its folder
// (relative, as in runs/<execution>/<run>): for reparse and reports. The result
// of a damaged one is nil; Verify says what is wrong with it. A predicate on other
// than the execution leaves those out.
func (s *Store) Results(where Predicate) iter.Seq2[string, *runner.Result] {
	return func(yield func(string, *runner.Result) bool) {
		executions, err := s.f.dirs(runsDir)
		if err != nil {
			return
		}
		for _, execution := range executions {
			if where.Execution != "" && where.Execution != execution {
				continue
			}
			runs, err := s.runs(execution)
			if err != nil {
				return
			}
			for _, rel := range runs {
				r, err := s.result(rel)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				k := Key{Execution: execution}
				if err == nil {
					k = keyOf(r)
				}
				if where.match(&k) && !yield(rel, r) {
					return
				}
			}
		}
	}
}

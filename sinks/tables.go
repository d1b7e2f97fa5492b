package sinks

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/sinks/table"
)

// tables/ holds one file an execution and table, EXECUTION.parquet, or one a shard
// of it, EXECUTION.3-of-6.parquet: what stands in the name before the first dot
// names the execution. A file is made in
// stagingDir, which no reader's glob sees, and appears by one rename; it is
// replaced as a whole by another. While an execution goes on its finished runs
// stand in their folders alone, where our own readers find them.
const stagingDir = ".staging"

func stagedPath(name string) string { return stagingDir + "/new/" + name }

// Earlier versions left a manifest beside tables/, and live files in it: nobody
// reads them any more.
const (
	legacyManifest = "manifest.json"
	legacyLive     = ".live-"
)

// tablesWait is how long somebody else may work in tables/.
const tablesWait = 2 * time.Minute

// withTables runs f with the lock of the tables, after what somebody who died
// left half done.
func (s *Store) withTables(report *Recovery, f func() error) error {
	deadline := time.Now().Add(tablesWait)
	for {
		lock, err := s.f.lock(lockTables, s.holder(), false)
		if err == nil {
			if err = s.settleTables(report); err == nil {
				err = f()
			}
			return errors.Join(err, lock.unlock())
		}
		if !errors.As(err, new(*LockedError)) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// settleTables puts the month back that somebody who died in exchange had taken
// away, and removes what was staged.
func (s *Store) settleTables(report *Recovery) error {
	for _, t := range Tables() {
		old := stagingDir + "/old/" + string(t)
		months, err := s.f.dirs(old)
		if err != nil {
			return err
		}
		for _, month := range months {
			if live := path.Join(tablesDir, string(t), month); !s.f.exists(live) {
				if err := s.f.rename(old+"/"+month, live); err != nil {
					return err
				}
			}
		}
	}
	old, err := fs.Glob(s.f.root.FS(), tablesDir+"/*/month=*/*"+legacyLive+"*")
	if err != nil {
		return err
	}
	for _, name := range append(old, stagingDir, legacyManifest) {
		if !s.f.exists(name) {
			continue
		}
		if report != nil {
			report.Removed = append(report.Removed, name)
		}
		if err := s.f.removeAll(name); err != nil {
			return err
		}
	}
	return nil
}

// tableFiles are the Parquet files of a table, as paths in tables/, sorted.
func (s *Store) tableFiles(t Table) ([]string, error) {
	months, err := s.f.dirs(tablesDir + "/" + string(t))
	var files []string
	for _, month := range months {
		entries, lerr := s.f.list(path.Join(tablesDir, string(t), month))
		err = errors.Join(err, lerr)
		for _, e := range entries {
			if e.Type().IsRegular() && strings.HasSuffix(e.Name(), ".parquet") && !strings.HasPrefix(e.Name(), ".") &&
				!strings.Contains(e.Name(), legacyLive) {
				files = append(files, path.Join(string(t), month, e.Name()))
			}
		}
	}
	return files, err
}

// openTable opens a Parquet file of the folder for as long as f reads it.
func (s *Store) openTable(name string, read func(*table.File) error) error {
	err := func() error {
		file, err := s.f.open(name)
		if err != nil {
			return err
		}
		defer file.Close() //nolint:errcheck // opened to read
		info, err := file.Stat()
		if err != nil {
			return err
		}
		pf, err := table.Open(file, info.Size())
		if err != nil {
			return err
		}
		return read(pf)
	}()
	if err == nil || errors.Is(err, errStopped) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("reading %s: %w; `vramsweep verify` says more", s.f.path(name), err)
}

// A tableFile is what the footer of a file in tables/ says.
type tableFile struct {
	name        string // path in tables/
	marks       []Mark // the executions in it; none in a file of others
	rows        int64
	*table.File // closed: only what its footer says
}

// footers reads the footers of a table's files. One that cannot be read is left
// out and named in the error; the others are returned.
func (s *Store) footers(t Table) ([]tableFile, error) {
	names, err := s.tableFiles(t)
	var files []tableFile
	for _, name := range names {
		err = errors.Join(err, s.openTable(tablesDir+"/"+name, func(f *table.File) error {
			files = append(files, tableFile{name: name, marks: f.Marks(), rows: f.Rows(), File: f})
			return nil
		}))
	}
	return files, err
}

// has is where a mark of the same part of an execution stands, or -1.
func (f *tableFile) has(mark Mark) int { return slices.IndexFunc(f.marks, mark.Same) }

// names reports whether the file says that it has rows of an execution.
func (f *tableFile) names(execution string) bool {
	return slices.ContainsFunc(f.marks, func(m Mark) bool { return m.Execution == execution })
}

// TableExecutions are the executions that the table runs has, oldest first: also
// those of which executions/ has no note, in a folder that was copied without it.
func (s *Store) TableExecutions() ([]string, error) {
	files, err := s.footers(TableRuns)
	var executions []string
	for _, f := range files {
		for _, m := range f.marks {
			executions = append(executions, m.Execution)
		}
	}
	slices.Sort(executions)
	return slices.Compact(executions), err
}

// A stager makes one file of tables/ under stagedPath.
type stager interface {
	// fromFile copies the rows of an execution from a file of tables/, or all where it is "".
	fromFile(name, execution string) error
	// fromRun adds the rows of a run's folder.
	fromRun(rel string, rows *Rows) error
	// close ends the file and says how many rows it has; one without rows is removed.
	close() (int64, error)
}

type stagedFile[T Row] struct {
	*rowTable[T]
	s    *Store
	name string // path in tables/
	file *os.File
	sum  hash.Hash
	out  *table.Writer[T]
	last string // run
}

func (t *rowTable[T]) stage(s *Store, name string, marks []Mark, axes []table.Axis) (stager, error) {
	staged := stagedPath(name)
	if err := s.f.mkdir(path.Dir(staged)); err != nil {
		return nil, err
	}
	file, err := s.f.create(staged)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	return &stagedFile[T]{rowTable: t, s: s, name: name, file: file, sum: sum,
		out: t.writer(io.MultiWriter(file, sum), s.opts.Version, axes, marks)}, nil
}

func (f *stagedFile[T]) fromFile(name, execution string) error {
	return f.s.openTable(tablesDir+"/"+name, func(in *table.File) error {
		if err := in.Whole(); err != nil {
			return err
		}
		return f.read(in, Predicate{Execution: execution}, f.add)
	})
}

func (f *stagedFile[T]) fromRun(rel string, rows *Rows) error {
	if f.of != nil {
		return f.add(f.of(rows))
	}
	err := f.s.openTable(rel+"/"+timelineName, func(in *table.File) error { return f.read(in, Predicate{}, f.add) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it took no samples
	}
	return err
}

// add ends row groups between runs.
func (f *stagedFile[T]) add(rows []T) error {
	for len(rows) > 0 {
		run, n := f.key(&rows[0]).RunID, 1
		for n < len(rows) && f.key(&rows[n]).RunID == run {
			n++
		}
		if run != f.last {
			if err := f.out.EndRun(); err != nil {
				return err
			}
			f.last = run
		}
		if err := f.out.Write(rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

func (f *stagedFile[T]) close() (int64, error) {
	rows := f.out.Rows()
	err := f.out.Close()
	if info, serr := f.file.Stat(); err == nil {
		if err = serr; err == nil {
			err = table.Seal(f.file, info.Size(), f.sum)
		}
	}
	err = errors.Join(err, f.file.Sync(), f.file.Close())
	if err == nil && rows == 0 {
		err = f.s.f.remove(stagedPath(f.name))
	}
	return rows, err
}

// place makes a staged file visible.
func (s *Store) place(name string) error {
	dir := path.Dir(tablesDir + "/" + name)
	if err := s.f.mkdir(dir); err != nil {
		return err
	}
	if err := s.f.rename(stagedPath(name), tablesDir+"/"+name); err != nil {
		return err
	}
	return errors.Join(s.f.syncDir(dir), s.f.syncDir(path.Dir(dir)))
}

// placeFirst is place for a shard's file that is not there yet: it is linked, so
// that of two runners of one shard the first wins, whatever their locks are worth.
func (s *Store) placeFirst(name string) error {
	dir := path.Dir(tablesDir + "/" + name)
	if err := s.f.mkdir(dir); err != nil {
		return err
	}
	err := s.f.root.Link(stagedPath(name), tablesDir+"/"+name)
	if err != nil && !errors.Is(err, fs.ErrExist) { // some file systems have no links
		return s.place(name)
	}
	return errors.Join(s.f.remove(stagedPath(name)), s.f.syncDir(dir), s.f.syncDir(path.Dir(dir)))
}

// exchange puts another folder in the place of a month's: files that stay are
// linked into it, not copied. No reader sees a row twice; for the moment between
// two renames there is none, and settleTables ends what dies there.
func (s *Store) exchange(dir string, staged, gone []string) error {
	live, next, old := tablesDir+"/"+dir, stagingDir+"/next/"+dir, stagingDir+"/old/"+dir
	err := errors.Join(s.f.mkdir(next), s.f.mkdir(path.Dir(old)), s.f.mkdir(live))
	entries, lerr := s.f.list(live)
	if err := errors.Join(err, lerr); err != nil {
		return err
	}
	for _, e := range entries {
		name := dir + "/" + e.Name()
		if !e.Type().IsRegular() || slices.Contains(gone, name) || slices.Contains(staged, name) {
			continue
		}
		if err := s.f.root.Link(tablesDir+"/"+name, next+"/"+e.Name()); err != nil {
			return err
		}
	}
	for _, name := range staged {
		if err := s.f.rename(stagedPath(name), next+"/"+path.Base(name)); err != nil {
			return err
		}
	}
	for _, step := range []func() error{
		func() error { return s.f.syncDir(next) },
		func() error { return s.f.rename(live, old) },
		func() error { return s.f.rename(next, live) },
		func() error { return s.f.syncDir(path.Dir(live)) },
		func() error { return s.f.removeAll(old) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

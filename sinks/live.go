package sinks

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// While an execution goes on, tables/ shows its finished runs: their rows stand
// in files that carry liveMark and the number of a part, liveRuns runs each; only
// the last part is written again, by rename, when a run is added. A run's
// timeline is its own file, under a second name. Publish puts the execution's own file in
// their place in one step. Run folders are the truth all the while: our own
// reader takes those, the manifest knows nothing of live files, none is synced, and
// Recover ends what a killed runner has left of them.
const (
	liveMark = ".live-"
	liveRuns = 64
	liveWait = 2 * time.Second // for whoever works in tables/; the next run comes back to it
)

// liveExecution is the execution that a live file belongs to; "" for other files.
func liveExecution(name string) string {
	execution, _, found := strings.Cut(path.Base(name), liveMark)
	if !found {
		return ""
	}
	return execution
}

// liveTables is what this process has shown of the execution that goes on.
type liveTables struct {
	execution, month string
	part             int
	rows             []*Rows         // of the last part
	closed           map[string]bool // runs in the parts before it
	axes             []axisColumn
	settled          map[string]string // runs that stand in settled files: their json_sha256
	seen             string            // the settled files of the table runs when that was read
}

// showRun adds a finished run to the tables of its execution. What goes wrong is
// no fault of the run: the end of the execution writes its tables anew and
// reports what stands in the way.
func (s *Store) showRun(rel, execution string) error {
	rows, err := s.publishedRows(rel)
	if err != nil {
		return err
	}
	s.liveMu.Lock()
	defer s.liveMu.Unlock()
	return s.withTablesFor(liveWait, func() error {
		whole, err := s.beginLive(execution)
		if err != nil {
			return err
		}
		l := s.live
		id := rows.Run.RunID
		sum, settled := l.settled[id]
		if settled && rows.Run.JSONSHA256 != nil && sum == *rows.Run.JSONSHA256 {
			return nil // compact was here between run.json and now
		}
		axes := mergeAxes(l.axes, []RunRow{rows.Run})
		if whole || settled || l.closed[id] || len(axes) > len(l.axes) {
			return s.showAll(execution)
		}
		l.rows = append(slices.DeleteFunc(l.rows, func(r *Rows) bool { return r.Run.RunID == id }), rows)
		err = errors.Join(s.linkTimeline(l, rel), s.writePart(l), s.f.removeAll(stagingDir))
		if len(l.rows) >= liveRuns {
			for _, r := range l.rows {
				l.closed[r.Run.RunID] = true
			}
			l.rows, l.part = nil, l.part+1
		}
		return err
	})
}

// hideRun takes a run out of the tables again: it is being repeated.
func (s *Store) hideRun(rel, execution string) error {
	id, err := s.runID(rel)
	if err != nil {
		return err
	}
	s.liveMu.Lock()
	defer s.liveMu.Unlock()
	if s.live == nil || s.live.execution != execution {
		return nil
	}
	return s.withTablesFor(liveWait, func() error {
		if _, err := s.beginLive(execution); err != nil {
			return err
		}
		l := s.live
		before := len(l.rows)
		l.rows = slices.DeleteFunc(l.rows, func(r *Rows) bool { return r.Run.RunID == id })
		if len(l.rows) == before {
			return nil // it stands in another file; showRun puts that right when the run ends
		}
		return errors.Join(s.writePart(l), s.f.remove(tablesDir+"/"+l.timeline(rel)), s.f.removeAll(stagingDir))
	})
}

// showAll writes the execution's own file from all that is finished.
func (s *Store) showAll(execution string) error {
	e, err := s.Execution(execution)
	s.live = nil
	if err != nil {
		return err
	}
	return s.publish(e, false)
}

// beginLive brings s.live up to what stands in tables/, where others work, too.
// It reports whether live files are there that this process knows nothing of. It needs
// the lock of the tables.
func (s *Store) beginLive(execution string) (whole bool, err error) {
	if s.f.exists(stagingDir) {
		if err := s.settleTables(nil); err != nil {
			return false, err
		}
	}
	l := s.live
	if l == nil || l.execution != execution {
		e, err := s.Execution(execution)
		if err != nil {
			return false, err
		}
		l = &liveTables{execution: execution, month: monthOf(e), closed: map[string]bool{}}
		parts, err := s.liveFiles("", execution)
		if err != nil {
			return false, err
		}
		s.live, whole = l, len(parts) > 0
	}
	if len(l.rows) > 0 && !s.f.exists(tablesDir+"/"+l.name(TableRuns)) { // compact has put them elsewhere
		l.rows, l.closed, l.part = nil, map[string]bool{}, l.part+1
	}
	return whole, s.readSettled(l)
}

func monthOf(e *Execution) string { return "month=" + e.StartedAt.UTC().Format("2006-01") }

func (l *liveTables) name(t Table) string {
	return path.Join(string(t), l.month, fmt.Sprintf("%s%s%04d.parquet", l.execution, liveMark, l.part))
}

func (l *liveTables) timeline(rel string) string {
	return path.Join(string(TableTimelines), l.month, l.execution+liveMark+path.Base(rel)+".parquet")
}

// readSettled reads which runs of the execution settled files have, if those
// files are others than before.
func (s *Store) readSettled(l *liveTables) error {
	files, err := s.tableFiles(TableRuns)
	if err != nil {
		return err
	}
	var seen strings.Builder
	for _, name := range files {
		info, err := s.f.root.Lstat(tablesDir + "/" + name)
		if err != nil {
			return err
		}
		fmt.Fprintln(&seen, name, info.Size(), info.ModTime().UnixNano())
	}
	if l.settled != nil && l.seen == seen.String() {
		return nil
	}
	l.seen, l.settled = seen.String(), map[string]string{}
	if l.axes, err = s.knownAxes(); err != nil {
		return err
	}
	for _, name := range files {
		pf, file, err := s.f.openTable(tablesDir + "/" + name)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(marksOf(pf), func(m Mark) bool { return m.Execution == l.execution }) {
			err = readFile(pf, Predicate{Execution: l.execution}, func(rows []RunRow) error {
				for i := range rows {
					sum := ""
					if rows[i].JSONSHA256 != nil {
						sum = *rows[i].JSONSHA256
					}
					l.settled[rows[i].RunID] = sum
				}
				return nil
			})
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	return nil
}

// writePart writes the last part, the table runs last: a run that stands there
// stands in the others.
func (s *Store) writePart(l *liveTables) error {
	slices.SortFunc(l.rows, func(a, b *Rows) int { return cmp.Compare(a.Run.RunID, b.Run.RunID) })
	return errors.Join(writeLive[RankRow](s, l), writeLive[PhaseRow](s, l), writeLive[BreakdownRow](s, l),
		writeLive[StepRow](s, l), writeLive[LatencyRow](s, l), writeLive[RunRow](s, l))
}

func writeLive[T Row](s *Store, l *liveTables) error {
	name := l.name(tableOf[T]())
	var axes []axisColumn
	if tableOf[T]() == TableRuns {
		axes = l.axes
	}
	staged := stagedPath(name)
	if err := s.f.mkdir(path.Dir(staged)); err != nil {
		return err
	}
	count := int64(0)
	err := s.f.put(staged, false, func(w io.Writer) error {
		buffered := bufio.NewWriter(w)
		out := newRowWriter[T](buffered, s.opts.Version, axes, []Mark{{Execution: l.execution}})
		for _, rows := range l.rows {
			if err := out.write(pick[T](rows)); err != nil {
				return err
			}
		}
		count = out.total
		return errors.Join(out.close(), buffered.Flush())
	})
	if err != nil {
		return err
	}
	if count == 0 {
		return s.f.remove(tablesDir + "/" + name)
	}
	return s.intoTables(staged, name)
}

func (s *Store) intoTables(staged, name string) error {
	if err := s.f.mkdir(path.Dir(tablesDir + "/" + name)); err != nil {
		return err
	}
	return s.f.rename(staged, tablesDir+"/"+name)
}

// linkTimeline gives a run's timeline its name in tables/; where the file system
// has no second names it copies.
func (s *Store) linkTimeline(l *liveTables, rel string) error {
	from, name := rel+"/"+timelineName, l.timeline(rel)
	if !s.f.exists(from) {
		return s.f.remove(tablesDir + "/" + name)
	}
	staged := stagedPath(name)
	if err := errors.Join(s.f.mkdir(path.Dir(staged)), s.f.remove(tablesDir+"/"+name)); err != nil {
		return err
	}
	if s.f.root.Link(from, staged) == nil {
		return s.intoTables(staged, name)
	}
	in, err := s.f.open(from)
	if err != nil {
		return err
	}
	err = s.f.put(staged, false, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
	if err := errors.Join(err, in.Close()); err != nil {
		return err
	}
	return s.intoTables(staged, name)
}

// liveFiles are the live files of a table (of all where it is "") and an
// execution (of all where it is ""), as paths in tables/.
func (s *Store) liveFiles(t Table, execution string) ([]string, error) {
	files, err := s.allTableFiles(t)
	return slices.DeleteFunc(files, func(name string) bool {
		of := liveExecution(name)
		return of == "" || execution != "" && of != execution
	}), err
}

// endLive puts the own files of executions in the place of live files that a
// runner has left. Those of an execution of which nothing can be published now go: its
// runs are in their folders, and compact says what stands in the way. Only who holds
// the lock of the folder may.
func (s *Store) endLive() error {
	files, err := s.liveFiles("", "")
	if err != nil || len(files) == 0 {
		return err
	}
	ended := map[string]bool{}
	for _, name := range files {
		execution := liveExecution(name)
		if ended[execution] {
			continue
		}
		ended[execution] = true
		if e, err := s.Execution(execution); err == nil && s.publish(e, false) == nil {
			continue
		}
		left, err := s.liveFiles("", execution)
		for _, file := range left {
			err = errors.Join(err, s.f.remove(tablesDir+"/"+file))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

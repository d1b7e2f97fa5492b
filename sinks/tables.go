package sinks

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/parquet-go/parquet-go"
)

// stagingDir is where files of tables/ are made: a reader's glob over tables/
// never sees one that is not finished.
const stagingDir = ".staging"

// tablesWait is how long somebody else may work in tables/.
const tablesWait = 30 * time.Second

// withTables runs f with the lock of the tables.
func (s *Store) withTables(f func() error) error { return s.withTablesFor(tablesWait, f) }

func (s *Store) withTablesFor(wait time.Duration, f func() error) error {
	deadline := time.Now().Add(wait)
	for {
		lock, err := s.f.lock(lockTables, s.holder())
		if err == nil {
			return errors.Join(f(), unlock(lock))
		}
		if !errors.As(err, new(*LockedError)) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Publish brings tables/ up to date for one execution, complete or not: it
// writes its files from its run folders again. It works beside a running sweep.
func (s *Store) Publish(execution string) error {
	e, err := s.Execution(execution)
	if err != nil {
		return err
	}
	return s.publishNow(e, e.State == StateComplete)
}

func (s *Store) publishNow(e *Execution, final bool) error {
	err := s.withTables(func() error {
		if err := s.settleTables(nil); err != nil {
			return err
		}
		return s.publish(e, final)
	})
	return s.f.explain("writing the tables of execution "+e.ID, err)
}

// publish needs the lock of the tables.
func (s *Store) publish(e *Execution, final bool) error {
	p := &publication{s: s, execution: e.ID, final: final, month: monthOf(e)}
	if err := p.collect(); err != nil {
		return errors.Join(err, s.f.removeAll(stagingDir))
	}
	var all []*change
	for _, t := range Tables() {
		c := p.changes[t]
		if err := p.displace(c); err != nil {
			return errors.Join(err, s.f.removeAll(stagingDir))
		}
		all = append(all, c)
	}
	return s.apply(all)
}

// A change is what happens to one table: staged files take the places of files
// of their names, and some files go.
type change struct {
	table  Table
	staged map[string]fileSum // path in tables/, as under stagingDir/new
	gone   []string           // paths in tables/
}

func stagedPath(name string) string { return stagingDir + "/new/" + name }

// A publication writes the files of one execution.
type publication struct {
	s         *Store
	execution string
	month     string
	final     bool
	names     map[Table]string // of the files, as paths in tables/
	changes   map[Table]*change
	runs      []RunRow
	axes      []axisColumn
}

func (p *publication) marks() []Mark { return []Mark{{Execution: p.execution, Final: p.final}} }

// collect reads the folders of the execution's runs and stages its files.
func (p *publication) collect() error {
	folders, err := p.s.runs(p.execution)
	if err != nil {
		return err
	}
	p.changes = map[Table]*change{}
	for _, t := range Tables() {
		p.changes[t] = &change{table: t, staged: map[string]fileSum{}}
	}
	ids, err := p.order(folders)
	if err != nil {
		return err
	}
	if err := p.nameFiles(); err != nil {
		return err
	}
	ranks, timelines, phases := stage[RankRow](p), stage[TimelineRow](p), stage[PhaseRow](p)
	breakdowns, steps, latencies := stage[BreakdownRow](p), stage[StepRow](p), stage[LatencyRow](p)
	for _, rel := range ids {
		rows, err := p.s.publishedRows(rel)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			p.runs = append(p.runs, rows.Run)
			err = errors.Join(ranks.add(rows.Ranks), phases.add(rows.Phases), breakdowns.add(rows.Breakdowns),
				steps.add(rows.Steps), latencies.add(rows.Latencies), p.timeline(rel, timelines))
		}
		if err != nil {
			return errors.Join(err, ranks.close(), timelines.close(), phases.close(), breakdowns.close(), steps.close(), latencies.close())
		}
	}
	if err := errors.Join(ranks.close(), timelines.close(), phases.close(), breakdowns.close(), steps.close(), latencies.close()); err != nil {
		return err
	}
	return p.stageRuns()
}

// order sorts folders by run id, and leaves out those of runs not finished.
func (p *publication) order(folders []string) ([]string, error) {
	ids := make(map[string]string, len(folders))
	for _, rel := range folders {
		id, err := p.s.runID(rel)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		ids[rel] = id
	}
	finished := slices.Collect(maps.Keys(ids))
	slices.SortFunc(finished, func(a, b string) int { return cmp.Compare(ids[a], ids[b]) })
	return finished, nil
}

// runID reads a run.json as far as its run_id, which stands near the top.
func (s *Store) runID(rel string) (string, error) {
	file, err := s.f.open(rel + "/" + resultName)
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // opened to read
	var run struct {
		RunID string `json:"run_id"`
	}
	d := json.NewDecoder(file)
	if _, err := d.Token(); err != nil {
		return "", fmt.Errorf("reading %s: it is no run.json: %w", s.f.path(rel+"/"+resultName), err)
	}
	for d.More() {
		name, err := d.Token()
		if err == nil && name == "run" {
			err = d.Decode(&run)
			return run.RunID, err
		}
		if err == nil {
			err = d.Decode(new(json.RawMessage))
		}
		if err != nil {
			return "", fmt.Errorf("reading %s: it is no run.json: %w", s.f.path(rel+"/"+resultName), err)
		}
	}
	return "", fmt.Errorf("reading %s: it names no run", s.f.path(rel+"/"+resultName))
}

// publishedRows are the rows of a run's folder, with the checksum of its run.json.
func (s *Store) publishedRows(rel string) (*Rows, error) {
	b, err := s.f.readFile(rel + "/" + resultName)
	if err != nil {
		return nil, err
	}
	r, err := DecodeResult(strings.NewReader(string(b)))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.f.path(rel+"/"+resultName), err)
	}
	rows := RowsOf(r)
	sum := sha256.Sum256(b)
	rows.Run.JSONSHA256 = text(hex.EncodeToString(sum[:]))
	return rows, nil
}

func (p *publication) timeline(rel string, out *stagedFile[TimelineRow]) error {
	name := rel + "/" + timelineName
	pf, file, err := p.s.f.openTable(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w; `vramsweep verify` says more", p.s.f.path(name), err)
	}
	err = readFile(pf, Predicate{}, out.write)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("reading %s: %w; `vramsweep verify` says more", p.s.f.path(name), err)
	}
	return out.endRun()
}

// stageRuns stages the table of runs: its columns depend on all of its rows,
// and on what the folder has already.
func (p *publication) stageRuns() error {
	known, err := p.s.axesWithValues(p.execution)
	if err != nil {
		return err
	}
	p.axes = mergeAxes(known, p.runs)
	out := stage[RunRow](p)
	out.axes = p.axes
	slices.SortFunc(p.runs, func(a, b RunRow) int { return cmp.Compare(a.RunID, b.RunID) })
	if err := errors.Join(out.add(p.runs), out.close()); err != nil {
		return err
	}
	return p.s.widenRuns(p.changes[TableRuns], p.execution, p.axes)
}

// widenRuns stages the other files of the table again if they have other axis
// columns: plain readers want the same in every file.
func (s *Store) widenRuns(c *change, execution string, axes []axisColumn) error {
	return s.eachRunsFile(func(name string, pf *parquet.File) error {
		if _, ok := c.staged[name]; ok || onlyOf(pf, execution) || slices.Equal(axesOf(pf), axes) {
			return nil
		}
		return rewrite[RunRow](s, c, []string{name}, name, axes, "")
	})
}

func (s *Store) eachRunsFile(do func(name string, pf *parquet.File) error) error {
	files, err := s.tableFiles(TableRuns)
	if err != nil {
		return err
	}
	for _, name := range files {
		pf, file, err := s.f.openTable(tablesDir + "/" + name)
		if err != nil {
			return fmt.Errorf("reading %s: %w; `vramsweep verify` says more", s.f.path(tablesDir+"/"+name), err)
		}
		if err := errors.Join(do(name, pf), file.Close()); err != nil {
			return err
		}
	}
	return nil
}

// onlyOf says whether a file holds an execution and nothing else.
func onlyOf(pf *parquet.File, execution string) bool {
	marks := marksOf(pf)
	return len(marks) == 1 && marks[0].Execution == execution
}

// knownAxes are the axis columns that the table of runs has.
func (s *Store) knownAxes() ([]axisColumn, error) {
	var axes []axisColumn
	err := s.eachRunsFile(func(_ string, pf *parquet.File) error {
		axes = addColumns(axes, axesOf(pf))
		return nil
	})
	return axes, err
}

// axesWithValues are the axis columns that other executions have values in: an
// execution that goes on may yet change the type of one that came with it.
func (s *Store) axesWithValues(otherThan string) ([]axisColumn, error) {
	var axes []axisColumn
	err := s.eachRunsFile(func(_ string, pf *parquet.File) error {
		if onlyOf(pf, otherThan) {
			return nil
		}
		axes = addColumns(axes, slices.DeleteFunc(axesOf(pf), func(a axisColumn) bool {
			leaf, ok := pf.Schema().Lookup(a.Column)
			for _, group := range pf.Metadata().RowGroups {
				if m := group.Columns[leaf.ColumnIndex].MetaData; !ok || m.Statistics.NullCount < m.NumValues {
					return false
				}
			}
			return true
		}))
		return nil
	})
	return axes, err
}

func addColumns(axes, more []axisColumn) []axisColumn {
	for _, a := range more {
		if !slices.ContainsFunc(axes, func(b axisColumn) bool { return a.Column == b.Column }) {
			axes = append(axes, a)
		}
	}
	return axes
}

// mergeAxes adds the columns that the axes of runs need. A column never changes
// its type: an axis that comes with another one gets a further column.
func mergeAxes(known []axisColumn, runs []RunRow) []axisColumn {
	kinds := map[string]axisKind{}
	for i := range runs {
		for axis, v := range runs[i].Axes {
			kinds[axis] = widerKind(kinds[axis], kindOf(v))
		}
	}
	for i := range runs { // one execution, one column an axis
		for axis, v := range runs[i].Axes {
			runs[i].Axes[axis] = as(kinds[axis], v)
		}
	}
	names := make([]string, 0, len(kinds))
	for axis := range kinds {
		names = append(names, axis)
	}
	slices.Sort(names)
	axes := slices.Clone(known)
	taken := map[string]bool{}
	for _, a := range axes {
		taken[strings.ToLower(a.Column)] = true
	}
	for _, axis := range names {
		kind := kinds[axis]
		fits := func(a axisColumn) bool {
			return a.Axis == axis && (a.Kind == kind || a.Kind == kindDouble && kind == kindInt)
		}
		if slices.ContainsFunc(axes, fits) {
			continue
		}
		column := axisColumnName(axis)
		for taken[strings.ToLower(column)] { // SQL does not tell A from a
			column += "_" + string(kind)
		}
		taken[strings.ToLower(column)] = true
		axes = append(axes, axisColumn{Column: column, Axis: axis, Kind: kind})
	}
	return axes
}

// axisColumnName is axis_NAME; the language lets an axis be named by letters,
// digits, _ and - only, run.json of others may have anything.
func axisColumnName(axis string) string {
	return "axis_" + strings.Map(func(c rune) rune {
		if unicode.IsLetter(c) || unicode.IsDigit(c) || c == '_' || c == '-' {
			return c
		}
		return '_'
	}, axis)
}

// as is v in a kind that is as wide or wider.
func as(kind axisKind, v any) any {
	switch x := v.(type) {
	case int64:
		if kind == kindDouble {
			return float64(x)
		}
	case string:
		return v
	}
	if kind == kindString {
		return fmt.Sprint(v)
	}
	return v
}

func kindOf(v any) axisKind {
	switch v.(type) {
	case int64:
		return kindInt
	case float64:
		return kindDouble
	case bool:
		return kindBool
	default:
		return kindString
	}
}

func widerKind(a, b axisKind) axisKind {
	switch {
	case a == "" || a == b:
		return b
	case a == kindInt && b == kindDouble, a == kindDouble && b == kindInt:
		return kindDouble
	default:
		return kindString
	}
}

// A stagedFile is a file of tables/ in the making; it appears with its first row.
type stagedFile[T Row] struct {
	s      *Store
	change *change
	name   string // path in tables/
	marks  []Mark
	axes   []axisColumn

	file *os.File
	sum  *sumWriter
	out  *rowWriter[T]
}

func stage[T Row](p *publication) *stagedFile[T] {
	c := p.changes[tableOf[T]()]
	return &stagedFile[T]{s: p.s, change: c, marks: p.marks(),
		name: p.names[c.table]}
}

// nameFiles chooses the names of the files. A lone file of the execution is
// replaced under its name. Where several become one, that one has a name that no file had: a
// reader that has listed the folder and finds a file gone asks again, but one
// that met another file under a listed name would see rows twice, or not at all.
func (p *publication) nameFiles() error {
	p.names = map[Table]string{}
	for _, t := range Tables() {
		settled, err := p.s.tableFiles(t)
		if err != nil {
			return err
		}
		others, err := p.s.liveFiles(t, p.execution)
		if err != nil {
			return err
		}
		own, last := "", 0
		for _, name := range settled {
			number, ok := p.isOwn(name)
			if ok && number > last {
				own, last = name, number
			}
		}
		if own == "" || len(others) > 0 {
			own = path.Join(string(t), p.month, p.execution+".parquet")
			if last > 0 {
				own = path.Join(string(t), p.month, fmt.Sprintf("%s.%d.parquet", p.execution, last+1))
			}
		}
		p.names[t] = own
	}
	return nil
}

// isOwn says whether a file is the execution's own, EXECUTION.parquet or
// EXECUTION.2.parquet, and its number.
func (p *publication) isOwn(name string) (number int, ok bool) {
	number = 1
	rest, ok := strings.CutPrefix(strings.TrimSuffix(path.Base(name), ".parquet"), p.execution)
	if rest != "" {
		text, dotted := strings.CutPrefix(rest, ".")
		n, err := strconv.Atoi(text)
		number, ok = n, ok && dotted && err == nil
	}
	return number, ok
}

// add writes the rows of one run (or of several: they end a row group only together).
func (f *stagedFile[T]) add(rows []T) error {
	if err := f.write(rows); err != nil {
		return err
	}
	return f.endRun()
}

func (f *stagedFile[T]) write(rows []T) error {
	if len(rows) == 0 {
		return nil
	}
	if f.out == nil {
		name := stagedPath(f.name)
		if err := f.s.f.mkdir(path.Dir(name)); err != nil {
			return err
		}
		file, err := f.s.f.create(name)
		if err != nil {
			return err
		}
		f.file, f.sum = file, newSumWriter(file)
		f.out = newRowWriter[T](f.sum, f.s.opts.Version, f.axes, f.marks)
	}
	return f.out.write(rows)
}

func (f *stagedFile[T]) endRun() error {
	if f.out == nil {
		return nil
	}
	return f.out.endRun()
}

func (f *stagedFile[T]) close() error {
	if f.out == nil {
		return nil
	}
	err := errors.Join(f.out.close(), f.file.Sync(), f.file.Close())
	f.change.staged[f.name] = fileSum{Bytes: f.sum.bytes, Rows: f.out.total, CRC32C: f.sum.sum.Sum32()}
	f.out = nil
	return err
}

// displace lets go of the rows that the table has of the execution elsewhere:
// in its own file, if it has no rows any more, or in a merged one.
func (p *publication) displace(c *change) error {
	files, err := p.s.tableFiles(c.table)
	if err != nil {
		return err
	}
	if c.gone, err = p.s.liveFiles(c.table, p.execution); err != nil {
		return err
	}
	for _, name := range files {
		if _, ok := c.staged[name]; ok && name == p.names[c.table] {
			continue
		}
		marks, err := p.s.fileMarks(name)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(marks, func(m Mark) bool { return m.Execution == p.execution }) {
			continue
		}
		delete(c.staged, name)
		if err := p.s.f.remove(stagedPath(name)); err != nil {
			return err
		}
		c.gone = append(c.gone, name)
		if marks = slices.DeleteFunc(marks, func(m Mark) bool { return m.Execution == p.execution }); len(marks) == 0 {
			continue
		}
		if err := rewriteTable(p.s, c, []string{name}, mergedName(path.Dir(name), marks), p.axes, p.execution); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) fileMarks(name string) ([]Mark, error) {
	pf, file, err := s.f.openTable(tablesDir + "/" + name)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w; `vramsweep verify` says more", s.f.path(tablesDir+"/"+name), err)
	}
	return marksOf(pf), file.Close()
}

// apply makes changes visible. A table that gains or replaces one file does so
// by a rename; one that changes more is exchanged as a whole, so that no reader
// sees a row twice or not at all.
func (s *Store) apply(changes []*change) error {
	m, err := s.readManifest()
	if err != nil {
		return err
	}
	changes = slices.DeleteFunc(changes, func(c *change) bool { return len(c.staged)+len(c.gone) == 0 })
	for _, c := range changes {
		m.announce(c)
	}
	if err := s.writeManifest(m); err != nil {
		return err
	}
	for _, c := range changes {
		if err := s.applyOne(c); err != nil {
			return err
		}
		m.settle(c)
	}
	return errors.Join(s.writeManifest(m), s.f.removeAll(stagingDir))
}

func (m *manifest) announce(c *change) {
	for name, sum := range c.staged {
		entry := m.Files[name]
		if entry == nil {
			entry = &manifestEntry{}
			m.Files[name] = entry
		}
		entry.Sums, entry.Pending = append(entry.Sums, sum), true
	}
	for _, name := range c.gone {
		if entry := m.Files[name]; entry != nil {
			entry.Pending = true
		}
	}
}

func (m *manifest) settle(c *change) {
	for name, sum := range c.staged {
		m.Files[name] = &manifestEntry{Sums: []fileSum{sum}}
	}
	for _, name := range c.gone {
		delete(m.Files, name)
	}
}

func (s *Store) applyOne(c *change) error {
	if len(c.staged) == 1 && len(c.gone) == 0 {
		for name := range c.staged {
			dir := path.Dir(tablesDir + "/" + name)
			if err := s.f.mkdir(dir); err != nil {
				return err
			}
			if err := s.f.rename(stagedPath(name), tablesDir+"/"+name); err != nil {
				return err
			}
			return errors.Join(s.f.syncDir(dir), s.f.syncDir(path.Dir(dir)))
		}
	}
	live, next := tablesDir+"/"+string(c.table), stagingDir+"/next-"+string(c.table)
	if err := s.assemble(c, next); err != nil {
		return err
	}
	if !s.f.exists(live) {
		return errors.Join(s.f.rename(next, live), s.f.syncDir(tablesDir))
	}
	if err := s.f.noLinks(live + "/"); err != nil {
		return err
	}
	swapped, err := exchange(s.f.root, live, next)
	if err != nil {
		return err
	}
	if !swapped { // two steps: settleTables goes on where a crash comes between them
		if err := s.f.rename(live, stagingDir+"/old-"+string(c.table)); err != nil {
			return err
		}
		if err := s.f.rename(next, live); err != nil {
			return err
		}
	}
	return errors.Join(s.f.syncDir(tablesDir), s.f.syncDir(stagingDir))
}

// assemble makes the folder of a table as it is to be: files that stay are
// linked, not copied.
func (s *Store) assemble(c *change, next string) error {
	files, err := s.allTableFiles(c.table)
	if err != nil {
		return err
	}
	place := func(name string) (string, error) {
		to := next + "/" + strings.TrimPrefix(name, string(c.table)+"/")
		return to, s.f.mkdir(path.Dir(to))
	}
	if err := s.f.mkdir(next); err != nil {
		return err
	}
	for _, name := range files {
		if _, ok := c.staged[name]; ok || slices.Contains(c.gone, name) {
			continue
		}
		to, err := place(name)
		if err == nil {
			err = s.f.root.Link(tablesDir+"/"+name, to)
		}
		if err != nil {
			return err
		}
	}
	for name := range c.staged {
		to, err := place(name)
		if err == nil {
			err = s.f.rename(stagedPath(name), to)
		}
		if err != nil {
			return err
		}
	}
	months, err := s.f.dirs(next)
	for _, month := range months {
		err = errors.Join(err, s.f.syncDir(next+"/"+month))
	}
	return errors.Join(err, s.f.syncDir(next))
}

// rewrite stages one file from several, without the rows of one execution.
func rewrite[T Row](s *Store, c *change, from []string, to string, axes []axisColumn, without string) error {
	out := &stagedFile[T]{s: s, change: c, name: to, axes: axes}
	var expected int64
	type source struct {
		close func() error
		read  func() error
	}
	var sources []source
	defer func() {
		for _, src := range sources {
			src.close() //nolint:errcheck // opened to read
		}
	}()
	for _, name := range from {
		pf, file, err := s.f.openTable(tablesDir + "/" + name)
		if err != nil {
			return fmt.Errorf("reading %s: %w; `vramsweep verify` says more", s.f.path(tablesDir+"/"+name), err)
		}
		for _, m := range marksOf(pf) {
			if m.Execution != without {
				out.marks = append(out.marks, m)
			}
		}
		expected += pf.NumRows()
		sources = append(sources, source{close: file.Close, read: func() error {
			dropped, err := copyRows(pf, out, without)
			expected -= dropped
			return err
		}})
	}
	for i, src := range sources {
		if err := src.read(); err != nil {
			return errors.Join(fmt.Errorf("reading %s: %w; `vramsweep verify` says more", s.f.path(tablesDir+"/"+from[i]), err), out.close())
		}
	}
	if err := out.close(); err != nil {
		return err
	}
	if expected == 0 {
		c.gone = append(c.gone, to)
		return nil
	}
	if got := c.staged[to].Rows; got != expected {
		return fmt.Errorf("merging into %s gave %d rows of %d; nothing was changed", s.f.path(tablesDir+"/"+to), got, expected)
	}
	return nil
}

// copyRows copies a file into another and ends row groups between runs.
func copyRows[T Row](pf *parquet.File, out *stagedFile[T], without string) (dropped int64, err error) {
	last := ""
	err = readFile(pf, Predicate{}, func(rows []T) error {
		for len(rows) > 0 {
			run := any(&rows[0]).(keyed).key().RunID
			n := 1
			for n < len(rows) && any(&rows[n]).(keyed).key().RunID == run {
				n++
			}
			part := rows[:n]
			rows = rows[n:]
			if run != last {
				if err := out.endRun(); err != nil {
					return err
				}
				last = run
			}
			if without != "" && any(&part[0]).(keyed).key().Execution == without {
				dropped += int64(n)
				continue
			}
			if err := out.write(part); err != nil {
				return err
			}
		}
		return nil
	})
	return dropped, err
}

// rewriteTable is rewrite for a table that is known by name.
func rewriteTable(s *Store, c *change, from []string, to string, axes []axisColumn, without string) error {
	switch c.table {
	case TableRuns:
		return rewrite[RunRow](s, c, from, to, axes, without)
	case TableRanks:
		return rewrite[RankRow](s, c, from, to, nil, without)
	case TableTimelines:
		return rewrite[TimelineRow](s, c, from, to, nil, without)
	case TablePhases:
		return rewrite[PhaseRow](s, c, from, to, nil, without)
	case TableBreakdowns:
		return rewrite[BreakdownRow](s, c, from, to, nil, without)
	case TableSteps:
		return rewrite[StepRow](s, c, from, to, nil, without)
	default:
		return rewrite[LatencyRow](s, c, from, to, nil, without)
	}
}

func sortExecutions(all []*Execution) {
	slices.SortFunc(all, func(a, b *Execution) int {
		return cmp.Or(a.StartedAt.Compare(b.StartedAt), cmp.Compare(a.ID, b.ID))
	})
}

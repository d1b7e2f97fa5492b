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
	"path"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/sinks/table"
)

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
	err := s.withTables(nil, func() error { return s.publish(e, final) })
	return s.f.explain("writing the tables of execution "+e.ID, err)
}

// publish needs the lock of the tables.
func (s *Store) publish(e *Execution, final bool) error {
	p := &publication{s: s, mark: Mark{Execution: e.ID, Final: final},
		month: "month=" + e.StartedAt.UTC().Format("2006-01")}
	return errors.Join(p.run(), s.f.removeAll(stagingDir))
}

// A publication writes the files of one execution.
type publication struct {
	s     *Store
	mark  Mark
	month string
}

// An output is the file of one table that gets the rows of the execution: its
// own or, where it was merged with others, that of all of them.
type output struct {
	stager
	t      anyTable
	name   string   // path in tables/
	marks  []Mark   // of the file
	exists bool     // the file is there already
	gone   []string // other files with rows of the execution
}

func (p *publication) run() error {
	runs, err := p.s.orderedRuns(p.mark.Execution)
	if err != nil {
		return err
	}
	var outs []*output
	for _, t := range registry() {
		o, err := p.find(t)
		if err != nil {
			return err
		}
		outs = append(outs, o)
	}
	// The table runs comes last: its columns depend on all of its rows, and a run
	// that stands there stands in the others.
	runsOut, outs := outs[0], outs[1:]
	rows, err := p.stageRows(runs, outs)
	if err != nil {
		return err
	}
	axes, err := p.stageRuns(runsOut, rows)
	if err != nil {
		return err
	}
	for _, o := range append(outs, runsOut) {
		if err := p.apply(o); err != nil {
			return err
		}
	}
	return p.s.widenRuns(axes)
}

// find looks for the files that hold the execution.
func (p *publication) find(t anyTable) (*output, error) {
	name := t.def().name
	files, err := p.s.tableFiles(name)
	if err != nil {
		return nil, err
	}
	o := &output{t: t, name: path.Join(string(name), p.month, p.mark.Execution+".parquet"), marks: []Mark{p.mark}}
	var own []string
	for _, file := range files {
		marks, err := p.s.fileMarks(file)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(marks, func(m Mark) bool { return m.Execution == p.mark.Execution })
		switch {
		case at < 0:
		case len(marks) == 1:
			own = append(own, file)
		case len(o.marks) > 1:
			return nil, fmt.Errorf("execution %s stands in %s and in %s: remove one of them", p.mark.Execution, o.name, file)
		default:
			marks[at] = p.mark
			o.name, o.marks = file, marks
		}
	}
	o.exists = slices.Contains(files, o.name)
	o.gone = slices.DeleteFunc(own, func(file string) bool { return file == o.name })
	return o, nil
}

// open begins the file with what comes before the execution in it.
func (p *publication) open(o *output, axes []table.Axis) (err error) {
	if o.stager, err = o.t.stage(p.s, o.name, o.marks, axes); err != nil {
		return err
	}
	for _, m := range o.marks {
		if m.Execution == p.mark.Execution {
			break
		}
		err = errors.Join(err, o.fromFile(o.name, m.Execution))
	}
	return err
}

// end ends the file with what comes behind the execution in it.
func (p *publication) end(o *output) error {
	at := slices.IndexFunc(o.marks, func(m Mark) bool { return m.Execution == p.mark.Execution })
	var err error
	for _, m := range o.marks[at+1:] {
		err = errors.Join(err, o.fromFile(o.name, m.Execution))
	}
	rows, cerr := o.close()
	if rows == 0 {
		o.marks = nil
	}
	return errors.Join(err, cerr)
}

// stageRows reads each run's folder once, and returns the rows of the table runs.
func (p *publication) stageRows(runs []string, outs []*output) (rows []RunRow, err error) {
	defer func() {
		for _, o := range outs {
			if o.stager != nil {
				err = errors.Join(err, p.end(o))
			}
		}
	}()
	for _, o := range outs {
		if err := p.open(o, nil); err != nil {
			return nil, err
		}
	}
	for _, rel := range runs {
		r, err := p.s.publishedRows(rel)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		for _, o := range outs {
			if err == nil {
				err = o.fromRun(rel, r)
			}
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, r.Run)
	}
	return rows, nil
}

func (p *publication) stageRuns(o *output, rows []RunRow) ([]table.Axis, error) {
	known, err := p.s.axesWithValues(p.mark.Execution)
	if err != nil {
		return nil, err
	}
	axes := mergeAxes(known, rows)
	err = p.open(o, axes)
	for i := range rows {
		if err == nil {
			err = o.fromRun("", &Rows{Run: rows[i]})
		}
	}
	if o.stager != nil {
		err = errors.Join(err, p.end(o))
	}
	return axes, err
}

func (p *publication) apply(o *output) error {
	switch {
	case len(o.marks) > 0:
		return p.s.apply([]string{o.name}, o.gone)
	case o.exists:
		return p.s.apply(nil, append(o.gone, o.name))
	case len(o.gone) > 0:
		return p.s.apply(nil, o.gone)
	}
	return nil
}

// widenRuns writes the files of the table runs again that have other axis
// columns: plain readers want the same in every file.
func (s *Store) widenRuns(axes []table.Axis) error {
	t := tableOf[RunRow]()
	files, err := s.tableFiles(t.name)
	for _, name := range files {
		same := false
		err = errors.Join(err, s.openTable(tablesDir+"/"+name, func(f *table.File) error {
			same = slices.Equal(f.Axes(), axes)
			return nil
		}))
		if err == nil && !same {
			err = s.rewrite(t, []string{name}, name, axes)
			if err == nil {
				err = s.apply([]string{name}, nil)
			}
		}
	}
	return err
}

// rewrite stages one file from several.
func (s *Store) rewrite(t anyTable, from []string, to string, axes []table.Axis) error {
	var marks []Mark
	var expected int64
	for _, name := range from {
		err := s.openTable(tablesDir+"/"+name, func(f *table.File) error {
			marks, expected = append(marks, f.Marks()...), expected+f.Rows()
			return nil
		})
		if err != nil {
			return err
		}
	}
	out, err := t.stage(s, to, marks, axes)
	if err != nil {
		return err
	}
	for _, name := range from {
		err = errors.Join(err, out.fromFile(name, ""))
	}
	rows, cerr := out.close()
	if err = errors.Join(err, cerr); err == nil && rows != expected {
		err = fmt.Errorf("merging into %s gave %d rows of %d; nothing was changed",
			s.f.path(tablesDir+"/"+to), rows, expected)
	}
	return err
}

// knownAxes are the axis columns of the table runs; of those of a file with
// nothing but the execution otherThan none.
func (s *Store) axesOf(of func(*table.File) []table.Axis) ([]table.Axis, error) {
	var axes []table.Axis
	files, err := s.tableFiles(TableRuns)
	for _, name := range files {
		err = errors.Join(err, s.openTable(tablesDir+"/"+name, func(f *table.File) error {
			axes = table.AddAxes(axes, of(f))
			return nil
		}))
	}
	return axes, err
}

// axesWithValues are the axis columns that other executions have values in: an
// execution that goes on may yet change the type of one that came with it.
func (s *Store) axesWithValues(otherThan string) ([]table.Axis, error) {
	return s.axesOf(func(f *table.File) []table.Axis {
		if f.Has(otherThan) && len(f.Marks()) == 1 {
			return nil
		}
		return f.UsedAxes()
	})
}

// mergeAxes adds the columns that the axes of runs need.
func mergeAxes(known []table.Axis, runs []RunRow) []table.Axis {
	var axes []map[string]any
	for i := range runs {
		axes = append(axes, runs[i].Axes)
	}
	return table.MergeAxes(known, axes)
}

// orderedRuns are the folders of an execution's finished runs, sorted by run id.
func (s *Store) orderedRuns(execution string) ([]string, error) {
	folders, err := s.runs(execution)
	if err != nil {
		return nil, err
	}
	ids := make(map[string]string, len(folders))
	for _, rel := range folders {
		id, err := s.runID(rel)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		ids[rel] = id
	}
	return slices.SortedFunc(maps.Keys(ids), func(a, b string) int { return cmp.Compare(ids[a], ids[b]) }), nil
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

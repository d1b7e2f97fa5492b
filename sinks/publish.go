package sinks

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/vramsweep/vramsweep/sinks/table"
)

// Publish brings tables/ up to date for one execution, complete or not: it
// writes its files from its run folders again. It works beside a running sweep.
func (s *Store) Publish(execution string) error {
	e, err := s.Execution(execution)
	if err != nil {
		return err
	}
	for _, part := range partsOf(e) {
		err = errors.Join(err, s.publishNow(part, part.State == StateComplete))
	}
	return err
}

func (s *Store) publishNow(e *Execution, final bool) error {
	err := s.withTables(nil, func() error { return s.publish(e, final) })
	return s.f.explain("writing the tables of execution "+e.ID, err)
}

// publish needs the lock of the tables.
func (s *Store) publish(e *Execution, final bool) error {
	p := &publication{s: s, of: e, mark: Mark{Execution: e.ID, Shard: e.Shard, Final: final},
		month: "month=" + e.StartedAt.UTC().Format("2006-01")}
	return errors.Join(p.run(), s.f.removeAll(stagingDir))
}

// A publication writes the files of one execution, or of a shard of it.
type publication struct {
	s     *Store
	of    *Execution
	mark  Mark
	month string
}

// An output is the file of one table that gets the rows of the execution: its
// own or, where it was merged with others, that of all of them.
type output struct {
	stager
	t      anyTable
	name   string // path in tables/
	marks  []Mark // of the file
	at     int    // of them the execution's
	exists bool   // the file is there already
	rows   int64
}

func (p *publication) run() error {
	runs, err := p.s.orderedRuns(p.of)
	bad := new(DamagedError)
	if err != nil && !errors.As(err, &bad) {
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
	rows, err := p.stageRows(runs, outs, bad)
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
	return errors.Join(p.s.widenRuns(axes), damaged(bad.Faults))
}

// find looks for the file that holds the execution.
func (p *publication) find(t anyTable) (*output, error) {
	name := t.def().name
	o := &output{t: t, name: path.Join(string(name), p.month, fileName(p.of.ID, p.of.Shard)+".parquet"), marks: []Mark{p.mark}}
	files, err := p.s.footers(name)
	for _, f := range files {
		at := f.has(p.mark)
		switch {
		case at < 0:
		case o.exists:
			return nil, fmt.Errorf("execution %s stands in %s and in %s: remove one of them",
				fileName(p.of.ID, p.of.Shard), o.name, f.name)
		default:
			f.marks[at] = p.mark
			o.name, o.marks, o.at, o.exists = f.name, f.marks, at, true
		}
	}
	return o, err
}

// open begins the file with what comes before the execution in it.
func (p *publication) open(o *output, axes []table.Axis) (err error) {
	if o.stager, err = o.t.stage(p.s, o.name, o.marks, axes); err != nil {
		return err
	}
	return o.others(o.marks[:o.at])
}

// others copies what the file holds of other executions.
func (o *output) others(marks []Mark) (err error) {
	for _, m := range marks {
		err = errors.Join(err, o.fromFile(o.name, m.Execution))
	}
	return err
}

// end ends the file with what comes behind the execution in it.
func (o *output) end() error {
	err := o.others(o.marks[o.at+1:])
	rows, cerr := o.close()
	o.rows = rows
	return errors.Join(err, cerr)
}

// stageRows reads each run's folder once, and returns the rows of the table runs. A damaged run stands in no table.
func (p *publication) stageRows(runs []*runHead, outs []*output, bad *DamagedError) (rows []RunRow, err error) {
	defer func() {
		for _, o := range outs {
			if o.stager != nil {
				err = errors.Join(err, o.end())
			}
		}
	}()
	for _, o := range outs {
		if err := p.open(o, nil); err != nil {
			return nil, err
		}
	}
	for _, run := range runs {
		r, err := p.s.publishedRows(run)
		one := new(DamagedError)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.As(err, &one):
			bad.Faults = append(bad.Faults, one.Faults...)
			continue
		}
		for _, o := range outs {
			if err == nil {
				err = o.fromRun(run.rel, r)
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
	known, err := p.s.axesWithValues(p.mark)
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
		err = errors.Join(err, o.end())
	}
	return axes, err
}

// apply makes the file visible, or removes one that has no rows any more.
func (p *publication) apply(o *output) error {
	switch name := tablesDir + "/" + o.name; {
	case o.rows > 0 && p.mark.Shard != "" && !o.exists:
		return p.s.placeFirst(o.name)
	case o.rows > 0:
		return p.s.place(o.name)
	case o.exists:
		return errors.Join(p.s.f.remove(name), p.s.f.syncDir(path.Dir(name)))
	}
	return nil
}

// widenRuns writes the files of the table runs again that have other axis
// columns: plain readers want the same in every file.
func (s *Store) widenRuns(axes []table.Axis) error {
	t := tableOf[RunRow]()
	files, err := s.footers(t.name)
	for _, f := range files {
		if err == nil && !slices.Equal(f.Axes(), axes) {
			if err = s.rewrite(t, []tableFile{f}, f.name, axes); err == nil {
				err = s.place(f.name)
			}
		}
	}
	return err
}

// rewrite stages one file from several.
func (s *Store) rewrite(t anyTable, from []tableFile, to string, axes []table.Axis) error {
	var marks []Mark
	var expected int64
	for _, f := range from {
		marks, expected = append(marks, f.marks...), expected+f.rows
	}
	out, err := t.stage(s, to, marks, axes)
	if err != nil {
		return err
	}
	for _, f := range from {
		err = errors.Join(err, out.fromFile(f.name, ""))
	}
	rows, cerr := out.close()
	if err = errors.Join(err, cerr); err == nil && rows != expected {
		err = fmt.Errorf("merging into %s gave %d rows of %d; nothing was changed",
			s.f.path(tablesDir+"/"+to), rows, expected)
	}
	return err
}

// axesWithValues are the axis columns that other executions have values in: an
// execution that goes on may yet change the type of one that came with it.
func (s *Store) axesWithValues(otherThan Mark) ([]table.Axis, error) {
	var axes []table.Axis
	files, err := s.footers(TableRuns)
	for _, f := range files {
		if f.has(otherThan) < 0 || len(f.marks) > 1 {
			axes = table.AddAxes(axes, f.UsedAxes())
		}
	}
	return axes, err
}

// mergeAxes adds the columns that the axes of runs need.
func mergeAxes(known []table.Axis, runs []RunRow) []table.Axis {
	var axes []map[string]any
	for i := range runs {
		axes = append(axes, runs[i].Axes)
	}
	return table.MergeAxes(known, axes)
}

// publishedRows are the rows of a run's folder, with the checksum of its run.json. Its timeline was checked.
func (s *Store) publishedRows(run *runHead) (*Rows, error) {
	if err := s.timelineOf(run); err != nil {
		return nil, err
	}
	name := run.rel + "/" + resultName
	b, err := s.f.readFile(name)
	if err != nil {
		return nil, err
	}
	r, err := DecodeResult(bytes.NewReader(b))
	if err != nil {
		return nil, &DamagedError{Faults: []Fault{{File: name, What: err.Error()}}}
	}
	rows := RowsOf(r)
	rows.Run.JSONSHA256 = text(fmt.Sprintf("%x", sha256.Sum256(b)))
	return rows, nil
}

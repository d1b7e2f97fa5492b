package sinks

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"

	"github.com/parquet-go/parquet-go"
)

// A Predicate chooses rows. An empty field chooses all.
type Predicate struct {
	RunID     string
	Execution string
	Sweep     string
	Model     string
}

func (p *Predicate) match(k *Key) bool {
	return (p.RunID == "" || p.RunID == k.RunID) && (p.Execution == "" || p.Execution == k.Execution) &&
		(p.Sweep == "" || p.Sweep == k.Sweep) && (p.Model == "" || p.Model == k.Model)
}

func (k *Key) key() *Key { return k }

// keyed is implemented by a pointer to any row.
type keyed interface{ key() *Key }

const readChunk = 1024

// readFile yields the rows of a file of tables/ or of a run's timeline, in
// chunks that are reused. Damage of any kind is an error, never a panic.
func readFile[T Row](file *parquet.File, where Predicate, yield func([]T) error) (err error) {
	defer rescue(&err)
	axes := axesOf(file)
	meta := file.Metadata()
	for i := range file.RowGroups() {
		if i < len(meta.RowGroups) && !mayMatch(file, i, &where) {
			continue
		}
		if err := readGroup(file, i, axes, where, yield); err != nil {
			return err
		}
	}
	return nil
}

func readGroup[T Row](file *parquet.File, at int, axes []axisColumn, where Predicate, yield func([]T) error) error {
	first, end, err := rowRange(file, at, &where)
	if err != nil || first == end {
		return err
	}
	if err := soundRows(file, at, first, end); err != nil {
		return err
	}
	group := file.RowGroups()[at]
	reader := parquet.NewGenericRowGroupReader[T](group, rowSchema[T]())
	values, err := readAxes[T](file, at, axes)
	if err == nil && first > 0 {
		err = reader.SeekToRow(int64(first))
	}
	if err != nil {
		return errors.Join(err, reader.Close())
	}
	return errors.Join(readRows(reader, first, end, func(rows []T, at int) error {
		for a := range values {
			for i := range rows {
				setAxis(&rows[i], axes[a].Axis, values[a], at+i)
			}
		}
		kept := rows[:0]
		for i := range rows {
			if where.match(any(&rows[i]).(keyed).key()) {
				kept = append(kept, rows[i])
			}
		}
		if len(kept) == 0 {
			return nil
		}
		return yield(kept)
	}), reader.Close())
}

// readRows yields the rows from first to end in chunks, each with the place of
// its first row.
func readRows[T Row](reader *parquet.GenericReader[T], first, end int, yield func([]T, int) error) error {
	buf := make([]T, min(readChunk, end-first))
	for first < end {
		buf = buf[:min(len(buf), end-first)]
		clear(buf) // what was yielded is not written over through its pointers
		n, err := reader.Read(buf)
		if n > 0 {
			if yerr := yield(buf[:n], first); yerr != nil {
				return yerr
			}
			first += n
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case n == 0:
			return io.ErrNoProgress
		}
	}
	return nil
}

// rowRange narrows a row group to the rows between the first and the last that
// the predicate's most selective column matches: a run's rows stand together,
// and one column is read a good deal faster than thirty.
func rowRange(file *parquet.File, at int, where *Predicate) (first, end int, err error) {
	group := file.RowGroups()[at]
	end = int(group.NumRows())
	name, want := "", ""
	for _, c := range []struct{ name, want string }{{"model", where.Model}, {"sweep", where.Sweep}, {"execution", where.Execution}, {"run_id", where.RunID}} {
		if c.want != "" {
			name, want = c.name, c.want
		}
	}
	leaf, ok := group.Schema().Lookup(name)
	if want == "" || !ok || !leaf.Node.Required() {
		return 0, end, nil
	}
	if err := soundColumn(file, at, leaf.ColumnIndex, 0, end); err != nil {
		return 0, 0, err
	}
	pages := group.ColumnChunks()[leaf.ColumnIndex].Pages()
	defer func() { err = errors.Join(err, pages.Close()) }()
	m := &rangeMatcher{want: []byte(want), first: -1, values: make([]parquet.Value, readChunk)}
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, 0, err
		}
		err = m.page(page)
		parquet.Release(page)
		if err != nil {
			return 0, 0, err
		}
	}
	if m.first < 0 {
		return 0, 0, nil
	}
	return min(m.first, end), min(m.end, end), nil
}

// A rangeMatcher finds the first and the last row of a value.
type rangeMatcher struct {
	want            []byte
	row, first, end int
	values          []parquet.Value
}

func (m *rangeMatcher) page(page parquet.Page) error {
	// A page whose dictionary lacks the value cannot hold it.
	if low, high, ok := page.Bounds(); ok && (bytes.Compare(m.want, low.ByteArray()) < 0 || bytes.Compare(m.want, high.ByteArray()) > 0) {
		m.row += int(page.NumRows())
		return nil
	}
	in := page.Values()
	for {
		n, err := in.ReadValues(m.values)
		for _, v := range m.values[:n] {
			if bytes.Equal(v.ByteArray(), m.want) {
				if m.first < 0 {
					m.first = m.row
				}
				m.end = m.row + 1
			}
			m.row++
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrNoProgress
		}
	}
}

// mayMatch says by the statistics of a row group whether it can hold rows that
// the predicate chooses.
func mayMatch(file *parquet.File, group int, where *Predicate) bool {
	wanted := map[string]string{"run_id": where.RunID, "execution": where.Execution, "sweep": where.Sweep, "model": where.Model}
	for _, c := range file.Metadata().RowGroups[group].Columns {
		if len(c.MetaData.PathInSchema) != 1 {
			continue
		}
		want := wanted[c.MetaData.PathInSchema[0]]
		low, high := c.MetaData.Statistics.MinValue, c.MetaData.Statistics.MaxValue
		if want == "" || len(low) == 0 || len(high) == 0 {
			continue
		}
		// A long maximum may be cut: compare only as many bytes as it has.
		head := []byte(want)
		if bytes.Compare(head, low) < 0 || bytes.Compare(head[:min(len(head), len(high))], high) > 0 {
			return false
		}
	}
	return true
}

// readAxes reads the axis columns of a row group whole; there is one row a run.
func readAxes[T Row](file *parquet.File, at int, axes []axisColumn) ([][]parquet.Value, error) {
	if tableOf[T]() != TableRuns || len(axes) == 0 {
		return nil, nil
	}
	group := file.RowGroups()[at]
	schema := group.Schema()
	values := make([][]parquet.Value, len(axes))
	for i, a := range axes {
		leaf, ok := schema.Lookup(a.Column)
		if !ok {
			continue
		}
		if err := soundColumn(file, at, leaf.ColumnIndex, 0, int(group.NumRows())); err != nil {
			return nil, err
		}
		pages := group.ColumnChunks()[leaf.ColumnIndex].Pages()
		column, err := readValues(pages, nil)
		if err := errors.Join(err, pages.Close()); err != nil {
			return nil, err
		}
		values[i] = column
	}
	return values, nil
}

func readValues(pages parquet.Pages, values []parquet.Value) ([]parquet.Value, error) {
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			return values, nil
		}
		if err != nil {
			return values, err
		}
		n := page.NumValues()
		if n < 0 || n > math.MaxInt32 {
			return values, errors.New("it is damaged: a page claims an impossible number of values")
		}
		buf := make([]parquet.Value, n)
		read, err := page.Values().ReadValues(buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return values, err
		}
		for _, v := range buf[:read] {
			values = append(values, v.Clone())
		}
		parquet.Release(page)
	}
}

func setAxis[T Row](row *T, axis string, column []parquet.Value, i int) {
	run, ok := any(row).(*RunRow)
	if !ok || i >= len(column) || column[i].IsNull() {
		return
	}
	if run.Axes == nil {
		run.Axes = map[string]any{}
	}
	switch v := column[i]; v.Kind() {
	case parquet.Int64:
		run.Axes[axis] = v.Int64()
	case parquet.Double:
		run.Axes[axis] = v.Double()
	case parquet.Boolean:
		run.Axes[axis] = v.Boolean()
	default:
		run.Axes[axis] = string(v.ByteArray())
	}
}

// openTable opens a Parquet file of the folder; the caller closes the second result.
func (f *folder) openTable(name string) (*parquet.File, *os.File, error) {
	file, err := f.open(name)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	pf, err := openParquet(file, info.Size())
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return pf, file, nil
}

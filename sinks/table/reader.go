package table

import (
	"bytes"
	"errors"
	"io"
	"reflect"

	"github.com/parquet-go/parquet-go"
)

const readChunk = 1024

// A Filter chooses rows.
type Filter[T any] struct {
	// Equal names columns and the values that they must have, the most
	// selective last: what cannot hold such rows is not read.
	Equal []Equal
	// Match decides on each row that was read; nil takes all.
	Match func(*T) bool
}

// An Equal is a column of text and the value that it must have.
type Equal struct{ Column, Value string }

// Read yields the rows of a file, in chunks that are reused. setAxes takes the
// axes of a row; it is nil where the table has none.
func Read[T any](f *File, where Filter[T], setAxes func(*T, map[string]any), yield func([]T) error) (err error) {
	defer rescue(&err)
	var axes []Axis
	if setAxes != nil {
		axes = f.Axes()
	}
	for g, group := range f.pf.RowGroups() {
		if !f.mayMatch(g, where.Equal) {
			continue
		}
		if err := f.bounded(g); err != nil {
			return err
		}
		first, end, err := rowRange(group, where.Equal)
		if err != nil {
			return err
		}
		values, err := readAxes(group, axes)
		if err != nil {
			return err
		}
		err = readRows(group, first, end, func(rows []T, at int64) error {
			kept := rows[:0]
			for i := range rows {
				if len(values) > 0 {
					setAxes(&rows[i], axesAt(axes, values, int(at)+i))
				}
				if where.Match == nil || where.Match(&rows[i]) {
					kept = append(kept, rows[i])
				}
			}
			if len(kept) == 0 {
				return nil
			}
			return yield(kept)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ReadRange yields the rows of a file from first to end, counted over all row
// groups, in chunks that are not written over.
func ReadRange[T any](f *File, first, end int64, yield func([]T) error) (err error) {
	defer rescue(&err)
	before := int64(0)
	for g, group := range f.pf.RowGroups() {
		n := group.NumRows()
		from, to := max(first-before, 0), min(end-before, n)
		before += n
		if from >= to {
			continue
		}
		if err := f.bounded(g); err != nil {
			return err
		}
		if err := readRows(group, from, to, func(rows []T, _ int64) error { return yield(rows) }); err != nil {
			return err
		}
	}
	return nil
}

// readRows yields rows of a row group in chunks, each with the place of its
// first row.
func readRows[T any](group parquet.RowGroup, first, end int64, yield func([]T, int64) error) (err error) {
	if first >= end {
		return nil
	}
	if first > 0 { // by the offset index, where there is one
		for _, chunk := range group.ColumnChunks() {
			if _, err := chunk.OffsetIndex(); err != nil && !errors.Is(err, parquet.ErrMissingOffsetIndex) {
				return err
			}
		}
	}
	reader := parquet.NewGenericRowGroupReader[T](group, rowSchema(reflect.TypeFor[T]()))
	defer func() { err = errors.Join(err, reader.Close()) }()
	if first > 0 {
		if err := reader.SeekToRow(first); err != nil {
			return err
		}
	}
	buf := make([]T, min(readChunk, end-first))
	for first < end {
		buf = buf[:min(int64(len(buf)), end-first)]
		clear(buf) // what was yielded is not written over through its pointers
		n, err := reader.Read(buf)
		if n > 0 {
			if yerr := yield(buf[:n], first); yerr != nil {
				return yerr
			}
			first += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF) && first < end:
			return io.ErrUnexpectedEOF
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

// mayMatch says by the statistics of a row group whether it can hold the rows.
func (f *File) mayMatch(group int, equal []Equal) bool {
	for _, e := range equal {
		leaf, ok := f.pf.Schema().Lookup(e.Column)
		if !ok {
			continue
		}
		s := f.pf.Metadata().RowGroups[group].Columns[leaf.ColumnIndex].MetaData.Statistics
		if len(s.MinValue) == 0 || len(s.MaxValue) == 0 {
			continue
		}
		// A long maximum may be cut: compare only as many bytes as it has.
		want := []byte(e.Value)
		if bytes.Compare(want, s.MinValue) < 0 || bytes.Compare(want[:min(len(want), len(s.MaxValue))], s.MaxValue) > 0 {
			return false
		}
	}
	return true
}

// rowRange narrows a row group to the rows between the first and the last that
// match in the most selective column: a run's rows stand together, and one
// column is read a good deal faster than thirty.
func rowRange(group parquet.RowGroup, equal []Equal) (first, end int64, err error) {
	end = group.NumRows()
	if len(equal) == 0 {
		return 0, end, nil
	}
	last := equal[len(equal)-1]
	leaf, ok := group.Schema().Lookup(last.Column)
	if !ok || !leaf.Node.Required() {
		return 0, end, nil
	}
	want := []byte(last.Value)
	row, from, to := int64(0), int64(-1), int64(0)
	err = pagesOf(group.ColumnChunks()[leaf.ColumnIndex], func(page parquet.Page) error {
		// A page whose dictionary lacks the value cannot hold it.
		low, high, ok := page.Bounds()
		if ok && (bytes.Compare(want, low.ByteArray()) < 0 || bytes.Compare(want, high.ByteArray()) > 0) {
			row += page.NumRows()
			return nil
		}
		return valuesOf(page, func(values []parquet.Value) {
			for _, v := range values {
				if bytes.Equal(v.ByteArray(), want) {
					if from < 0 {
						from = row
					}
					to = row + 1
				}
				row++
			}
		})
	})
	if from < 0 {
		return 0, 0, err
	}
	return min(from, end), min(to, end), err
}

// readAxes reads the axis columns of a row group whole; there is one row a run.
func readAxes(group parquet.RowGroup, axes []Axis) ([][]parquet.Value, error) {
	columns := make([][]parquet.Value, len(axes))
	for i, a := range axes {
		leaf, ok := group.Schema().Lookup(a.Column)
		if !ok {
			continue
		}
		err := pagesOf(group.ColumnChunks()[leaf.ColumnIndex], func(page parquet.Page) error {
			return valuesOf(page, func(values []parquet.Value) {
				for _, v := range values {
					columns[i] = append(columns[i], v.Clone())
				}
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return columns, nil
}

// axesAt are the axes of one row; nil where it has none.
func axesAt(axes []Axis, columns [][]parquet.Value, i int) map[string]any {
	var row map[string]any
	for a, column := range columns {
		if i >= len(column) || column[i].IsNull() {
			continue
		}
		if row == nil {
			row = map[string]any{}
		}
		switch v := column[i]; v.Kind() {
		case parquet.Int64:
			row[axes[a].Axis] = v.Int64()
		case parquet.Double:
			row[axes[a].Axis] = v.Double()
		case parquet.Boolean:
			row[axes[a].Axis] = v.Boolean()
		default:
			row[axes[a].Axis] = string(v.ByteArray())
		}
	}
	return row
}

package table

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"

	"github.com/parquet-go/parquet-go"
)

// A File is a Parquet file that is read. It may be damaged: every way of reading
// it gives an error then, never a panic.
type File struct {
	pf     *parquet.File
	in     io.ReaderAt
	looked map[int]bool // row groups whose pages are within bounds
	seal   string       // "": it has none
	sealAt int          // in the footer
	footer int          // bytes
}

// Open reads the footer of a file, and nothing else.
func Open(r io.ReaderAt, size int64) (file *File, err error) {
	defer rescue(&err)
	footer, err := footerOf(r, size)
	if err != nil {
		return nil, err
	}
	seal, err := checkFooter(footer)
	if err == nil {
		_, err = skipStruct(footer, 0)
	}
	if err != nil {
		return nil, err
	}
	pf, err := parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, err
	}
	file = &File{pf: pf, in: r, looked: map[int]bool{}, seal: seal, sealAt: sealIn(footer), footer: len(footer)}
	return file, file.plausible()
}

// footerOf reads the footer of a file.
func footerOf(r io.ReaderAt, size int64) ([]byte, error) {
	const least = 12 // two magics and the length of the footer
	if size < least {
		return nil, fmt.Errorf("it has %d bytes and is no Parquet file", size)
	}
	var tail [8]byte
	if _, err := r.ReadAt(tail[:], size-8); err != nil {
		return nil, err
	}
	if string(tail[4:]) != "PAR1" {
		return nil, errors.New("its end is cut off: the closing PAR1 is missing")
	}
	n := int64(binary.LittleEndian.Uint32(tail[:4]))
	if n > min(size-least, maxFooter) {
		return nil, fmt.Errorf("its footer is damaged: it claims %d bytes of %d", n, size)
	}
	footer := make([]byte, n)
	_, err := r.ReadAt(footer, size-8-n)
	return footer, err
}

// plausible holds the figures of the footer to the size of the file.
func (f *File) plausible() error {
	rows, size := int64(0), f.pf.Size()
	for g, group := range f.pf.Metadata().RowGroups {
		if group.NumRows < 0 || len(group.Columns) != len(f.pf.Schema().Columns()) {
			return fmt.Errorf("its footer is damaged: row group %d has %d rows of %d columns",
				g, group.NumRows, len(group.Columns))
		}
		rows += group.NumRows
		for c := range group.Columns {
			m := &group.Columns[c].MetaData
			first, length := m.DataPageOffset, m.TotalCompressedSize
			if m.DictionaryPageOffset > 0 {
				first = m.DictionaryPageOffset
			}
			if first < 0 || length < 0 || first > size-length || m.DataPageOffset < first || m.DataPageOffset > first+length ||
				m.NumValues < 0 || m.TotalUncompressedSize < 0 {
				return fmt.Errorf("its footer is damaged: row group %d, column %s: %d bytes at byte %d of a file of %d",
					g, f.columnName(c), length, first, size)
			}
		}
	}
	if rows != f.pf.NumRows() {
		return fmt.Errorf("its footer is damaged: it claims %d rows, its row groups have %d", f.pf.NumRows(), rows)
	}
	return nil
}

func (f *File) columnName(c int) string {
	if paths := f.pf.Schema().Columns(); c < len(paths) && len(paths[c]) > 0 {
		return paths[c][0]
	}
	return fmt.Sprint(c)
}

// rescue turns a panic into an error: parquet-go panics on some damaged files.
func rescue(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("it is damaged: %v", p)
	}
}

// HasColumn reports whether the file has a column: older files lack those that
// came later.
func (f *File) HasColumn(name string) bool {
	_, ok := f.pf.Schema().Lookup(name)
	return ok
}

// Rows is how many rows the file has.
func (f *File) Rows() int64 { return f.pf.NumRows() }

// Size of the file in bytes.
func (f *File) Size() int64 { return f.pf.Size() }

// Marks are the executions in the file; none in a file of others.
func (f *File) Marks() []Mark {
	var marks []Mark
	if text, ok := f.pf.Lookup(metaExecutions); ok && json.Unmarshal([]byte(text), &marks) != nil {
		return nil
	}
	return marks
}

// SameColumns says whether the file has the columns that a writer of today
// would give it.
func (f *File) SameColumns(row reflect.Type, axes []Axis) bool {
	return slices.EqualFunc(f.pf.Schema().Columns(), SchemaOf(row, axes).Columns(), slices.Equal[[]string])
}

// A Flaw is what Check finds.
type Flaw struct {
	Place string
	What  string
}

// Check reads every page: parquet-go compares each with its checksum. What the
// footer says of a column is held to its values.
func (f *File) Check() []Flaw {
	var flaws []Flaw
	if err := f.Whole(); err != nil {
		flaws = append(flaws, Flaw{What: err.Error()})
	}
	for g, group := range f.pf.RowGroups() {
		for c := range group.ColumnChunks() {
			if err := f.checkChunk(g, c); err != nil {
				flaws = append(flaws, Flaw{Place: fmt.Sprintf("row group %d, column %s", g, f.columnName(c)), What: err.Error()})
			}
		}
	}
	return flaws
}

func (f *File) checkChunk(g, c int) (err error) {
	defer rescue(&err)
	chunk, meta := f.pf.RowGroups()[g].ColumnChunks()[c], &f.pf.Metadata().RowGroups[g]
	if err := f.boundedChunk(&meta.Columns[c].MetaData); err != nil {
		return err
	}
	s := &meta.Columns[c].MetaData.Statistics
	typ, kind := chunk.Type(), chunk.Type().Kind()
	var low, high parquet.Value
	bounded := len(s.MinValue) > 0 && len(s.MaxValue) > 0
	if bounded {
		low, high = kind.Value(s.MinValue), kind.Value(s.MaxValue)
	}
	nulls, rows := int64(0), int64(0)
	outside := error(nil)
	err = pagesOf(chunk, func(page parquet.Page) error {
		rows += page.NumRows()
		return valuesOf(page, func(values []parquet.Value) {
			for _, v := range values {
				switch {
				case v.IsNull():
					nulls++
				case bounded && outside == nil && (typ.Compare(v, low) < 0 || typ.Compare(v, high) > 0):
					outside = fmt.Errorf("it has the value %v, the footer says %v to %v", v, low, high)
				}
			}
		})
	})
	switch {
	case err != nil:
		return err
	case rows != meta.NumRows:
		return fmt.Errorf("its pages have %d rows of %d", rows, meta.NumRows)
	case nulls != s.NullCount:
		return fmt.Errorf("it has %d nulls, the footer says %d", nulls, s.NullCount)
	}
	return outside
}

// pagesOf yields the pages of a column chunk.
func pagesOf(chunk parquet.ColumnChunk, yield func(parquet.Page) error) (err error) {
	pages := chunk.Pages()
	defer func() { err = errors.Join(err, pages.Close()) }()
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = yield(page)
			parquet.Release(page)
		}
		if err != nil {
			return err
		}
	}
}

// valuesOf yields the values of a page, in chunks that are reused.
func valuesOf(page parquet.Page, yield func([]parquet.Value)) error {
	values, in := make([]parquet.Value, readChunk), page.Values()
	for {
		n, err := in.ReadValues(values)
		yield(values[:n])
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case n == 0:
			return io.ErrNoProgress
		}
	}
}

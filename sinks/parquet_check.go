package sinks

import (
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

const (
	headerGuess = 256      // bytes read for a page's header at first
	headerLimit = 64 << 10 // and at most
	// zipLimit is more than Zstandard, the closest of the codecs here, makes of a
	// byte: a block of 128 KiB that repeats one byte takes four.
	zipLimit = 40_000
)

// checkFooter looks at a footer before parquet-go decodes it.
func checkFooter(r io.ReaderAt, size, length int64) error {
	at := size - 8 - length
	b := make([]byte, length)
	if err := readFull(r, b, at); err != nil {
		return fmt.Errorf("reading its footer of %d bytes: %w", length, err)
	}
	if n, err := skimThrift(b); err != nil {
		return fmt.Errorf("its footer is damaged at byte %d: %w", at+int64(n), short(err))
	}
	return nil
}

// short says what the end of the input means inside of a structure.
func short(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("something claims to be longer than what holds it")
	}
	return err
}

// readFull fills b from the offset at; unlike ReadAt it knows no end of file
// beside the last byte.
func readFull(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// soundRows is soundChunk for every column of a row group, with an error that
// names the place.
func soundRows(file *parquet.File, group, first, end int) error {
	for c := range file.RowGroups()[group].ColumnChunks() {
		if err := soundColumn(file, group, c, first, end); err != nil {
			return err
		}
	}
	return nil
}

// soundColumn is soundChunk with an error that names the place.
func soundColumn(file *parquet.File, group, column, first, end int) error {
	if err := soundChunk(file, group, column, first, end); err != nil {
		name := fmt.Sprint(column)
		if paths := file.Schema().Columns(); column < len(paths) && len(paths[column]) > 0 {
			name = paths[column][0]
		}
		return fmt.Errorf("row group %d, column %s: %w", group, name, err)
	}
	return nil
}

// soundChunk goes through a column chunk's offset index and through the headers
// of the pages that parquet-go comes by when it reads the rows from first to end: it
// must not see them before. Its streaming decoder spins for minutes on a header that
// claims a set of 2^31 numbers, and it allocates what a header claims. All
// that reads pages comes through here first. The content of the pages is left to
// parquet-go, which compares it with its checksum.
func soundChunk(file *parquet.File, group, column, first, end int) error {
	chunk, ok := file.RowGroups()[group].ColumnChunks()[column].(*parquet.FileColumnChunk)
	meta := &file.Metadata().RowGroups[group]
	if !ok || int(meta.Ordinal) != group || chunk.Column() != column {
		return errors.New("the footer is damaged: it mixes up row groups or columns")
	}
	w, err := newPageWalk(file, meta, chunk, column)
	if err != nil {
		return err
	}
	m := &meta.Columns[column]
	if w.at == w.end {
		return nil // a group without rows, or what parquet-go finds too short
	}
	if m.OffsetIndexOffset != 0 {
		if err := w.skimIndex("offset", m.OffsetIndexOffset, m.OffsetIndexLength); err != nil {
			return err
		}
		if w.index, err = chunk.OffsetIndex(); err != nil {
			return err
		}
	}
	data := w.at
	if m.MetaData.DictionaryPageOffset != 0 {
		if err := w.next(); err != nil {
			return err
		}
		data = w.at
	}
	if m.MetaData.DataPageOffset != data {
		return fmt.Errorf("the footer is damaged: it places the first page of data at byte %d, expected at %d", m.MetaData.DataPageOffset, data)
	}
	if w.index == nil {
		for w.at < w.end && err == nil {
			err = w.next()
		}
		return err
	}
	return w.indexed(int64(first), int64(end))
}

// A pageWalk goes from page header to page header.
type pageWalk struct {
	file    *parquet.File
	at, end int64 // where the next header begins; where the chunk ends
	values  int64 // how many values the chunk may still have
	limit   int64 // how many values it has
	bytes   int64 // how many uncompressed bytes it may still have
	index   parquet.OffsetIndex
	buf     []byte
	reader  thrift.BytesReader
	decoder *thrift.Decoder
	header  format.PageHeader
}

func newPageWalk(file *parquet.File, group *format.RowGroup, chunk *parquet.FileColumnChunk, column int) (*pageWalk, error) {
	m := &group.Columns[column].MetaData
	first := m.DataPageOffset
	if m.DictionaryPageOffset != 0 {
		first = m.DictionaryPageOffset
	}
	if first < 0 || m.TotalCompressedSize < 0 || m.TotalCompressedSize > file.Size() || first > file.Size()-m.TotalCompressedSize {
		return nil, fmt.Errorf("the footer is damaged: it places the column's %d bytes at byte %d of a file of %d", m.TotalCompressedSize, first, file.Size())
	}
	limit := group.NumRows
	if leaf, ok := chunk.Node().(*parquet.Column); ok && leaf.MaxRepetitionLevel() > 0 {
		limit = m.NumValues
	}
	reader := new(thrift.CompactProtocol).NewReaderFromBytes(nil)
	return &pageWalk{file: file, at: first, end: first + m.TotalCompressedSize, values: limit, limit: limit, bytes: m.TotalUncompressedSize,
		buf: make([]byte, headerGuess), reader: reader, decoder: thrift.NewDecoder(reader)}, nil
}

// next checks one page and goes behind it.
func (w *pageWalk) next() error {
	if err := w.page(); err != nil {
		return fmt.Errorf("the page header at byte %d is damaged: %w", w.at, err)
	}
	return nil
}

func (w *pageWalk) page() error {
	n, err := w.readHeader(headerGuess)
	if errors.Is(err, io.ErrUnexpectedEOF) && w.end-w.at > headerGuess {
		n, err = w.readHeader(headerLimit)
	}
	if err != nil {
		return short(err)
	}
	h := &w.header
	*h = format.PageHeader{}
	w.reader.ResetBytes(w.buf[:n])
	if err := w.decoder.Decode(h); err != nil {
		return err
	}
	if used := w.reader.BytesRead(); used != n { // or parquet-go would read another page than this
		return fmt.Errorf("it has %d bytes, of which %d were understood", n, used)
	}
	left := w.end - w.at - int64(n)
	size, full := int64(h.CompressedPageSize), int64(h.UncompressedPageSize)
	switch {
	case size < 0 || size > left:
		return fmt.Errorf("it claims a page of %d bytes, %d are left of the column", size, left)
	case full < 0 || full > w.bytes:
		return fmt.Errorf("it claims %d bytes uncompressed, %d are left of the column", full, w.bytes)
	case full > headerLimit+size*zipLimit:
		return fmt.Errorf("it claims that %d bytes are %d uncompressed", size, full)
	}
	if err := w.count(h, size, full); err != nil {
		return err
	}
	w.at, w.bytes = w.at+int64(n)+size, w.bytes-full
	return nil
}

// readHeader fills the buffer with at most limit bytes from where the header
// begins, and returns how many of them are the header.
func (w *pageWalk) readHeader(limit int64) (int, error) {
	n := int(min(limit, w.end-w.at))
	if cap(w.buf) < n {
		w.buf = make([]byte, n)
	}
	w.buf = w.buf[:n]
	if err := readFull(w.file, w.buf, w.at); err != nil {
		return 0, err
	}
	return skimThrift(w.buf)
}

// count holds the values of a page to the rows of its row group.
func (w *pageWalk) count(h *format.PageHeader, size, full int64) error {
	if d := h.DictionaryPageHeader; d.Valid && (d.V.NumValues < 0 || int64(d.V.NumValues) > w.limit) {
		return fmt.Errorf("it claims a dictionary of %d values for %d", d.V.NumValues, w.limit)
	}
	values := int64(0)
	if d := h.DataPageHeader; d.Valid {
		values = int64(d.V.NumValues)
	}
	if d := h.DataPageHeaderV2; d.Valid {
		values = int64(d.V.NumValues)
		if d.V.NumNulls < 0 || int64(d.V.NumNulls) > values || d.V.NumRows < 0 || int64(d.V.NumRows) > values {
			return fmt.Errorf("it claims %d rows and %d nulls among %d values", d.V.NumRows, d.V.NumNulls, values)
		}
		r, l := int64(d.V.RepetitionLevelsByteLength), int64(d.V.DefinitionLevelsByteLength)
		if r < 0 || l < 0 || r+l > min(size, full) {
			return fmt.Errorf("it claims %d and %d bytes of levels in a page of %d", r, l, size)
		}
	}
	if values < 0 || values > w.values {
		return fmt.Errorf("it claims %d values, %d are left of the row group", values, w.values)
	}
	w.values -= values
	return nil
}

// indexed goes through the pages of some rows, and one behind them. parquet-go
// goes to where the offset index points, and from there from page to page.
func (w *pageWalk) indexed(first, end int64) error {
	n, row := w.index.NumPages(), int64(0)
	from := 0
	for i := range n {
		next := w.index.FirstRowIndex(i)
		if next < row || next > w.limit || i == 0 && (next != 0 || w.index.Offset(i) != w.at) {
			return fmt.Errorf("the offset index is damaged: it says that page %d of %d begins at byte %d with row %d", i, n, w.index.Offset(i), next)
		}
		if row = next; row <= first {
			from = i
		}
	}
	if from > 0 {
		w.at = w.index.Offset(from)
	}
	for i := from; i < n; i++ {
		if at := w.index.Offset(i); at != w.at || at < 0 || at >= w.end {
			return fmt.Errorf("the offset index is damaged: it says that page %d of %d begins at byte %d, expected at %d", i, n, at, w.at)
		}
		if err := w.next(); err != nil {
			return err
		}
		if w.index.FirstRowIndex(i) >= end {
			return nil
		}
	}
	if w.at != w.end {
		return fmt.Errorf("the offset index is damaged: it knows of %d pages, behind which %d bytes of the column are left", n, w.end-w.at)
	}
	return nil
}

func (w *pageWalk) skimIndex(name string, at int64, length int32) error {
	size := w.file.Size()
	if at < 0 || length < 0 || int64(length) > size || at > size-int64(length) {
		return fmt.Errorf("the footer is damaged: it places the %s index of %d bytes at byte %d of a file of %d", name, length, at, size)
	}
	if cap(w.buf) < int(length) {
		w.buf = make([]byte, length)
	}
	w.buf = w.buf[:length]
	err := readFull(w.file, w.buf, at)
	if err == nil {
		_, err = skimThrift(w.buf)
	}
	if err != nil {
		return fmt.Errorf("the %s index at byte %d is damaged: %w", name, at, short(err))
	}
	return nil
}

// soundColumnIndex decodes a chunk's column index: DuckDB and others believe it,
// vramsweep itself does not need it.
func soundColumnIndex(file *parquet.File, group, column int) error {
	meta := &file.Metadata().RowGroups[group].Columns[column]
	if meta.ColumnIndexOffset == 0 {
		return nil
	}
	w := &pageWalk{file: file}
	if err := w.skimIndex("column", meta.ColumnIndexOffset, meta.ColumnIndexLength); err != nil {
		return err
	}
	_, err := file.RowGroups()[group].ColumnChunks()[column].ColumnIndex()
	return err
}

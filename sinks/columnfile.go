package sinks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"reflect"
	"unsafe"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// fileLimits are those of every file: what is gathered of a page before it is
// encoded stays in the processor's cache, and a look-up reads little beside its
// run; a dictionary that pays no more ends: a gauge whose every reading differs is
// written plain.
func fileLimits() *columnLimits { return &columnLimits{pageRows: 16 << 10, dictionary: 1 << 20} }

type columnLimits struct {
	pageRows   int
	dictionary int // bytes
}

// A columnFile writes rows as a Parquet file, one column of a page after
// another. parquet-go's own writers take nullable values one at a time, which is
// half of the time that a table of nullable columns needs; so its schema, its
// encodings and its Thrift format are used here, and pages and footer are put
// together by us. Every page has a checksum, and so has every Zstandard frame:
// readers that pass over the first notice by the second that a page is damaged.
type columnFile struct {
	out     io.Writer
	limits  *columnLimits
	offset  int64
	started bool
	rowSize uintptr
	columns []columnData
	meta    format.FileMetaData
	sorting []format.SortingColumn
	indexes [][]pageIndex // of each row group and column, for the end of the file
	rows    int64         // in the row group
	inPage  int
}

// pageIndex is what the page index says of a column chunk.
type pageIndex struct {
	columns format.ColumnIndex
	offsets format.OffsetIndex
}

// columnData is one column while rows come in.
type columnData interface {
	// gather takes a value from each of n rows that lie rowSize bytes apart.
	gather(rows unsafe.Pointer, n int, rowSize uintptr)
	// endPage encodes what was gathered since the last page.
	endPage() error
	// endChunk ends the last page and hands over the chunk: dictionary page,
	// data pages, and what the metadata say, offsets from the chunk's start.
	endChunk() (*columnChunk, error)
}

func newColumnFile(out io.Writer, row reflect.Type, schema *parquet.Schema, axes []axisColumn, sorting []string, options []parquet.WriterOption) (*columnFile, error) {
	f := &columnFile{out: out, rowSize: row.Size(), limits: fileLimits()}
	// A file without rows, written by parquet-go, gives schema and metadata.
	empty := parquet.NewGenericWriter[any](io.Discard, options...)
	if err := empty.Close(); err != nil {
		return nil, err
	}
	f.meta = *empty.File().Metadata()
	z := &compressors{}
	fields := flatFields(row)
	for i, path := range schema.Columns() {
		leaf, ok := schema.Lookup(path...)
		if !ok || leaf.ColumnIndex != i {
			return nil, fmt.Errorf("the schema has no flat column %v", path)
		}
		spec := columnSpec{name: path[0], node: leaf.Node, zip: z, limits: f.limits}
		if i < len(fields) {
			spec.offset, spec.kind = fieldOffset(row, fields[i]), fields[i].Type
		} else {
			spec.axes, spec.axis, spec.kind = axes, i-len(fields), axes[i-len(fields)].Kind.goType()
		}
		column, err := newColumnData(spec)
		if err != nil {
			return nil, err
		}
		f.columns = append(f.columns, column)
	}
	for _, name := range sorting {
		leaf, ok := schema.Lookup(name)
		if !ok {
			return nil, fmt.Errorf("the schema has no column %s to be sorted by", name)
		}
		f.sorting = append(f.sorting, format.SortingColumn{ColumnIdx: int32(leaf.ColumnIndex)})
	}
	return f, nil
}

// fieldOffset is where a field lies in the row; embedded structs lie in place.
func fieldOffset(row reflect.Type, field reflect.StructField) uintptr {
	offset := uintptr(0)
	for _, i := range field.Index {
		offset += row.Field(i).Offset
		row = row.Field(i).Type
	}
	return offset
}

// write takes n rows that lie one after another in memory, of the type that the
// file was made for.
func (f *columnFile) write(rows unsafe.Pointer, n int) error {
	for n > 0 {
		take := min(n, f.limits.pageRows-f.inPage)
		for _, c := range f.columns {
			c.gather(rows, take, f.rowSize)
		}
		f.rows, f.inPage = f.rows+int64(take), f.inPage+take
		if n -= take; n > 0 {
			rows = unsafe.Add(rows, uintptr(take)*f.rowSize)
		}
		if f.inPage == f.limits.pageRows {
			f.inPage = 0
			for _, c := range f.columns {
				if err := c.endPage(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (f *columnFile) put(b []byte) error {
	if !f.started {
		f.started = true
		if err := f.put([]byte("PAR1")); err != nil {
			return err
		}
	}
	n, err := f.out.Write(b)
	f.offset += int64(n)
	return err
}

// flush ends the row group.
func (f *columnFile) flush() error {
	if f.rows == 0 {
		return nil
	}
	if err := f.put(nil); err != nil {
		return err
	}
	group := format.RowGroup{NumRows: f.rows, SortingColumns: f.sorting, FileOffset: f.offset, Ordinal: int16(len(f.meta.RowGroups))}
	indexes := make([]pageIndex, len(f.columns))
	for i, c := range f.columns {
		chunk, err := c.endChunk()
		if err != nil {
			return err
		}
		m := chunk.meta
		if len(chunk.dictionary) > 0 {
			m.DictionaryPageOffset = f.offset
		}
		m.DataPageOffset = f.offset + int64(len(chunk.dictionary))
		for j := range chunk.index.offsets.PageLocations {
			chunk.index.offsets.PageLocations[j].Offset += m.DataPageOffset
		}
		indexes[i] = chunk.index
		group.Columns = append(group.Columns, format.ColumnChunk{MetaData: m})
		group.TotalByteSize += m.TotalUncompressedSize
		group.TotalCompressedSize += m.TotalCompressedSize
		if err := errors.Join(f.put(chunk.dictionary), f.put(chunk.pages)); err != nil {
			return err
		}
	}
	f.meta.RowGroups, f.indexes = append(f.meta.RowGroups, group), append(f.indexes, indexes)
	f.meta.NumRows += f.rows
	f.rows, f.inPage = 0, 0
	return nil
}

// close ends the row group and writes page index and footer.
func (f *columnFile) close() error {
	if err := errors.Join(f.flush(), f.put(nil)); err != nil {
		return err
	}
	for g, group := range f.indexes {
		for i := range group {
			chunk := &f.meta.RowGroups[g].Columns[i]
			n, err := f.putThrift(&group[i].columns)
			if err != nil {
				return err
			}
			chunk.ColumnIndexOffset, chunk.ColumnIndexLength = f.offset-n, int32(n)
		}
	}
	for g, group := range f.indexes {
		for i := range group {
			chunk := &f.meta.RowGroups[g].Columns[i]
			n, err := f.putThrift(&group[i].offsets)
			if err != nil {
				return err
			}
			chunk.OffsetIndexOffset, chunk.OffsetIndexLength = f.offset-n, int32(n)
		}
	}
	n, err := f.putThrift(&f.meta)
	if err != nil {
		return err
	}
	return f.put(append(binary.LittleEndian.AppendUint32(nil, uint32(n)), "PAR1"...))
}

func (f *columnFile) putThrift(v any) (int64, error) {
	b, err := thrift.Marshal(new(thrift.CompactProtocol), v)
	if err != nil {
		return 0, err
	}
	return int64(len(b)), f.put(b)
}

// compressors are the Zstandard encoders of a file, made when they are needed.
type compressors struct {
	fast, normal *zstd.Encoder
	scratch      []byte
}

// compress appends to dst.
func (z *compressors) compress(dst, src []byte, better bool) ([]byte, error) {
	encoder, level := &z.fast, zstd.SpeedFastest
	if better {
		encoder, level = &z.normal, zstd.SpeedDefault
	}
	if *encoder == nil {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(level), zstd.WithZeroFrames(true),
			zstd.WithEncoderCRC(true), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return dst, err
		}
		*encoder = e
	}
	return (*encoder).EncodeAll(src, dst), nil
}

// A columnChunk is a column of a row group as it goes into the file.
type columnChunk struct {
	meta       format.ColumnMetaData
	index      pageIndex
	dictionary []byte // header and page; empty where there is none
	pages      []byte
}

// addPage appends a page with its header: what of it is compressed comes in
// data, what never is in levels.
func (c *columnChunk) addPage(to []byte, header *format.PageHeader, levels, data []byte, z *compressors, better bool) ([]byte, error) {
	var err error
	if z.scratch, err = z.compress(z.scratch[:0], data, better); err != nil {
		return to, err
	}
	header.UncompressedPageSize = int32(len(levels) + len(data))
	header.CompressedPageSize = int32(len(levels) + len(z.scratch))
	header.CRC = int32(crc32.Update(crc32.ChecksumIEEE(levels), crc32.IEEETable, z.scratch))
	var head bytes.Buffer
	if err := thrift.NewEncoder(new(thrift.CompactProtocol).NewWriter(&head)).Encode(header); err != nil {
		return to, err
	}
	c.meta.TotalUncompressedSize += int64(head.Len()) + int64(header.UncompressedPageSize)
	c.meta.TotalCompressedSize += int64(head.Len()) + int64(header.CompressedPageSize)
	return append(append(append(to, head.Bytes()...), levels...), z.scratch...), nil
}

// addStats counts a page of the chunk.
func (c *columnChunk) addStats(page format.PageType, encoding format.Encoding) {
	for i := range c.meta.EncodingStats {
		if s := &c.meta.EncodingStats[i]; s.PageType == page && s.Encoding == encoding {
			s.Count++
			return
		}
	}
	c.meta.EncodingStats = append(c.meta.EncodingStats, format.PageEncodingStats{PageType: page, Encoding: encoding, Count: 1})
	for _, e := range c.meta.Encoding {
		if e == encoding {
			return
		}
	}
	c.meta.Encoding = append(c.meta.Encoding, encoding)
}

// encodeLevels says which rows have a value. Mostly all have, or none has.
func encodeLevels(dst, levels []byte, nulls int) ([]byte, error) {
	if nulls > 0 && nulls < len(levels) {
		return (&rle.Encoding{BitWidth: 1}).EncodeLevels(dst, levels)
	}
	dst = binary.AppendUvarint(dst[:0], uint64(len(levels))<<1)
	return append(dst, levels[0]), nil
}

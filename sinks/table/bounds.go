package table

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// A file may be damaged or made to do harm, and parquet-go takes memory as the file asks for it. So the footer and
// the head of every page are looked at before it does. Pages of ours unpack to some 100 KiB, those of other writers to
// 1 MiB.
const (
	maxFooter     = 8 << 20
	maxHeader     = 64 << 10
	maxPage       = 32 << 20 // unpacked
	maxPageValues = 4 << 20
	maxDepth      = 16
)

var errBounds = errors.New("its metadata is damaged or made to do harm")

// skipStruct is how many bytes a struct of Thrift's compact protocol has: every length in it was held to the bytes
// that are there, so that decoding it takes memory in proportion to them.
func skipStruct(b []byte, depth int) (int, error) {
	for at := 0; at < len(b) && depth < maxDepth; {
		head := b[at]
		at++
		if head == 0 {
			return at, nil
		}
		if head>>4 == 0 { // the field's id stands by itself
			_, n := binary.Uvarint(b[at:])
			if n <= 0 {
				break
			}
			at += n
		}
		if kind := head & 15; kind > 2 { // a field that is true or false is in its head
			n, err := skipValue(b[at:], kind, depth)
			if err != nil {
				return 0, err
			}
			at += n
		}
	}
	return 0, errBounds
}

// skipValue is skipStruct for a value of any kind.
func skipValue(b []byte, kind byte, depth int) (int, error) {
	n, used := binary.Uvarint(b)
	switch {
	case kind == 12:
		return skipStruct(b, depth+1)
	case kind == 7 && len(b) >= 8:
		return 8, nil
	case kind <= 3 && len(b) > 0:
		return 1, nil
	case used <= 0:
	case kind <= 6:
		return used, nil
	case kind == 8 && n <= uint64(len(b)-used):
		return used + int(n), nil
	case kind == 9 || kind == 10:
		return skipList(b, depth)
	}
	return 0, errBounds
}

func skipList(b []byte, depth int) (int, error) {
	size, kind, at := uint64(b[0]>>4), b[0]&15, 1
	if size == 15 {
		n, used := binary.Uvarint(b[1:])
		if used <= 0 {
			return 0, errBounds
		}
		size, at = n, 1+used
	}
	if size > uint64(len(b)-at) || depth >= maxDepth {
		return 0, errBounds
	}
	for range size {
		n, err := skipValue(b[at:], kind, depth+1)
		if err != nil {
			return 0, err
		}
		at += n
	}
	return at, nil
}

// bounded looks at the pages of a row group, once, before the first of them is read.
func (f *File) bounded(group int) error {
	if f.looked[group] {
		return nil
	}
	for c := range f.pf.Metadata().RowGroups[group].Columns {
		if err := f.boundedChunk(&f.pf.Metadata().RowGroups[group].Columns[c].MetaData); err != nil {
			return fmt.Errorf("row group %d, column %s: %w", group, f.columnName(c), err)
		}
	}
	f.looked[group] = true
	return nil
}

func (f *File) boundedChunk(m *format.ColumnMetaData) error {
	switch m.Codec {
	case format.Uncompressed, format.Snappy, format.Zstd, format.Gzip:
	default:
		return fmt.Errorf("its pages are packed with %v; only Zstandard, Snappy, gzip and plain pages are read", m.Codec)
	}
	at, end := m.DataPageOffset, m.TotalCompressedSize
	if m.DictionaryPageOffset > 0 {
		at = m.DictionaryPageOffset
	}
	end += at
	for left := m.NumValues; at < end; {
		h, n, err := f.pageHeader(at, end)
		if err != nil {
			return err
		}
		values, encoding := int64(h.DataPageHeader.V.NumValues), h.DataPageHeader.V.Encoding
		if h.DataPageHeaderV2.Valid {
			values, encoding = int64(h.DataPageHeaderV2.V.NumValues), h.DataPageHeaderV2.V.Encoding
		}
		size := int64(h.CompressedPageSize)
		if size < 0 || size > end-at-n || h.UncompressedPageSize < 0 || h.UncompressedPageSize > maxPage ||
			values < 0 || values > min(left, maxPageValues) || int64(h.DictionaryPageHeader.V.NumValues) > maxPage {
			return fmt.Errorf("the page at byte %d claims %d values and %d bytes, %d unpacked: %w", at, values, size,
				h.UncompressedPageSize, errBounds)
		}
		if err := f.boundedPage(h, m.Codec, encoding, at+n); err != nil {
			return fmt.Errorf("the page at byte %d: %w", at, err)
		}
		at, left = at+n+size, left-values
	}
	return nil
}

// pageHeader reads the head of a page and says how long it is.
func (f *File) pageHeader(at, end int64) (*format.PageHeader, int64, error) {
	for room := int64(256); ; room = maxHeader {
		b := make([]byte, min(room, end-at))
		if _, err := f.in.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, err
		}
		n, err := skipStruct(b, 0)
		if err != nil && room < maxHeader {
			continue
		}
		h := new(format.PageHeader)
		if err == nil {
			err = thrift.Unmarshal(new(thrift.CompactProtocol), b[:n], h)
		}
		if err != nil {
			return nil, 0, fmt.Errorf("the head of the page at byte %d: %w", at, err)
		}
		return h, int64(n), nil
	}
}

// boundedPage looks into a page: what it unpacks to, and how many values a delta encoding claims.
func (f *File) boundedPage(h *format.PageHeader, codec format.CompressionCodec, e format.Encoding, at int64) error {
	delta := e == format.DeltaBinaryPacked || e == format.DeltaLengthByteArray
	if e == format.DeltaByteArray {
		return errors.New("its encoding DELTA_BYTE_ARRAY is not read")
	}
	if codec == format.Uncompressed && !delta {
		return nil
	}
	levels := int64(0)
	if v2 := &h.DataPageHeaderV2.V; h.DataPageHeaderV2.Valid {
		levels = int64(v2.DefinitionLevelsByteLength) + int64(v2.RepetitionLevelsByteLength)
		if levels < 0 || levels > int64(h.CompressedPageSize) {
			return errBounds
		}
		if v2.IsCompressed.Valid && !v2.IsCompressed.V {
			codec = format.Uncompressed
		}
	}
	b := make([]byte, int64(h.CompressedPageSize)-levels)
	if _, err := f.in.ReadAt(b, at+levels); err != nil {
		return err
	}
	if n := unpackedSize(b, codec); n > maxPage {
		return fmt.Errorf("it unpacks to %d bytes, at most %d are read: %w", n, maxPage, errBounds)
	}
	if !delta {
		return nil
	}
	return f.boundedDelta(b, codec, h)
}

// unpackedSize is what a page unpacks to, at most.
func unpackedSize(b []byte, codec format.CompressionCodec) int64 {
	switch codec {
	case format.Snappy:
		n, _ := binary.Uvarint(b)
		return int64(min(n, 1<<40))
	case format.Gzip:
		return int64(len(b)) * 1032 // RFC 1951 packs no tighter
	case format.Zstd:
		return zstdSize(b)
	}
	return int64(len(b))
}

// zstdSize adds up the blocks of Zstandard frames (RFC 8878): one holds 128 KiB at most.
func zstdSize(b []byte) (total int64) {
	const blockMax = 128 << 10
	for len(b) > 0 {
		var h zstd.Header
		rest, err := h.DecodeAndStrip(b)
		if err != nil || h.Skippable {
			return total // the decoder refuses it
		}
		for last := false; !last && len(rest) >= 3; {
			head := int(rest[0]) | int(rest[1])<<8 | int(rest[2])<<16
			size := head >> 3
			rest, last = rest[3:], head&1 == 1
			switch head >> 1 & 3 {
			case 1:
				total, size = total+int64(size), 1
			case 0:
				total += int64(size)
			default:
				total += blockMax
			}
			rest = rest[min(size, len(rest)):]
		}
		if h.HasCheckSum {
			rest = rest[min(4, len(rest)):]
		}
		if len(rest) >= len(b) {
			return total
		}
		b = rest
	}
	return total
}

// boundedDelta holds the number of values that a delta encoding claims to that of its page.
func (f *File) boundedDelta(b []byte, codec format.CompressionCodec, h *format.PageHeader) (err error) {
	if codec != format.Uncompressed {
		if b, err = parquet.LookupCompressionCodec(codec).Decode(nil, b); err != nil {
			return err
		}
	}
	limit := uint64(h.DataPageHeaderV2.V.NumValues)
	if h.DataPageHeader.Valid { // its levels stand before the values: any of the first numbers may be the count
		limit = uint64(h.DataPageHeader.V.NumValues)
		if len(b) >= 4 {
			if n := binary.LittleEndian.Uint32(b); uint64(n) < uint64(len(b)-4) {
				b = b[4+n:]
			}
		}
	}
	for range 2 { // size of a block, number of its parts
		_, n := binary.Uvarint(b)
		if n <= 0 {
			return errBounds
		}
		b = b[n:]
	}
	if count, n := binary.Uvarint(b); n <= 0 || count > limit {
		return fmt.Errorf("its encoding claims %d values of %d: %w", count, limit, errBounds)
	}
	return nil
}

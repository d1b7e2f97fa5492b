package sinks

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// hugeSet is a field, of a number that no header has, with a set of 2^31-1 doubles.
func hugeSet() []byte {
	return []byte{0x0a, 0xfe, 0x01, 0xf7, 0xff, 0xff, 0xff, 0xff, 0x07}
}

// twoPages is a file of timelines in which a column has a dictionary, pages of
// data and an offset index.
func twoPages(t *testing.T) []byte {
	t.Helper()
	return columnBytes(t, randomRows[TimelineRow](2*testPage+9, 3))
}

// refooted writes a file's footer anew.
func refooted(t *testing.T, b []byte, change func(*format.FileMetaData)) []byte {
	t.Helper()
	length := int(binary.LittleEndian.Uint32(b[len(b)-8:]))
	body := b[:len(b)-8-length]
	var meta format.FileMetaData
	if err := thrift.Unmarshal(new(thrift.CompactProtocol), b[len(body):len(b)-8], &meta); err != nil {
		t.Fatal(err)
	}
	change(&meta)
	footer, err := thrift.Marshal(new(thrift.CompactProtocol), &meta)
	if err != nil {
		t.Fatal(err)
	}
	return withFooter(body, footer)
}

func withFooter(body, footer []byte) []byte {
	out := slices.Concat(body, footer)
	return append(binary.LittleEndian.AppendUint32(out, uint32(len(footer))), "PAR1"...)
}

// column finds the metadata of a column of the first row group.
func columnOf(t *testing.T, m *format.FileMetaData, name string) *format.ColumnChunk {
	t.Helper()
	for i := range m.RowGroups[0].Columns {
		if c := &m.RowGroups[0].Columns[i]; c.MetaData.PathInSchema[0] == name {
			return c
		}
	}
	t.Fatalf("no column %s", name)
	return nil
}

func metaOf(t *testing.T, b []byte) *format.FileMetaData {
	t.Helper()
	pf, err := openParquet(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return pf.Metadata()
}

// TestDamagedStructureIsAnError puts what parquet-go must not see where the
// structure of a file lies. Without the check it spins for minutes on the first of them, or
// ends the process for want of memory.
func TestDamagedStructureIsAnError(t *testing.T) {
	sound := twoPages(t)
	power, end := columnOf(t, metaOf(t, sound), "power_w"), len(sound)
	length := int(binary.LittleEndian.Uint32(sound[end-8:]))
	body, footer := sound[:end-8-length], sound[end-8-length:end-8]
	over := func(at int64, with []byte) []byte {
		b := bytes.Clone(sound)
		copy(b[at:], with)
		return b
	}
	header := func(change func(*format.PageHeader)) []byte {
		return reheaded(t, sound, power.MetaData.DataPageOffset, change)
	}
	nested := append(bytes.Repeat([]byte{0x1c}, 1000), bytes.Repeat([]byte{0}, 1000)...)
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"a set of 2^31 numbers in a header":  {over(power.MetaData.DataPageOffset, hugeSet()), "row group 0, column power_w: the page header at byte"},
		"a header that nests":                {over(power.MetaData.DataPageOffset, nested[:200]), "the page header at byte"},
		"a page of 1 GiB":                    {header(func(h *format.PageHeader) { h.CompressedPageSize = 1 << 30 }), "it claims a page of 1073741824 bytes"},
		"a page of a negative size":          {header(func(h *format.PageHeader) { h.CompressedPageSize = -1 }), "it claims a page of -1 bytes"},
		"a page of 1 GiB uncompressed":       {header(func(h *format.PageHeader) { h.UncompressedPageSize = 1 << 30 }), "it claims 1073741824 bytes uncompressed"},
		"a page of 2^30 values":              {header(func(h *format.PageHeader) { h.DataPageHeaderV2.V.NumValues = 1 << 30 }), "it claims 1073741824 values"},
		"levels longer than their page":      {header(func(h *format.PageHeader) { h.DataPageHeaderV2.V.DefinitionLevelsByteLength = 1 << 30 }), "bytes of levels"},
		"an offset index of 2^31 pages":      {over(power.OffsetIndexOffset, []byte{0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07}), "the offset index at byte"},
		"a footer with a set of 2^31":        {withFooter(body, append(hugeSet(), footer...)), "its footer is damaged at byte"},
		"a footer with 2^31 row groups":      {withFooter(body, []byte{0x49, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0}), "its footer is damaged at byte"},
		"a footer that nests":                {withFooter(body, append(nested, footer...)), "its footer is damaged at byte"},
		"a chunk behind the end of the file": {refooted(t, sound, func(m *format.FileMetaData) { columnOf(t, m, "power_w").MetaData.TotalCompressedSize = 1 << 40 }), "the footer is damaged: it places"},
		"a page that does not begin there":   {refooted(t, sound, func(m *format.FileMetaData) { columnOf(t, m, "run_id").MetaData.DataPageOffset++ }), "row group 0, column run_id: the footer is damaged"},
		"an offset index of 2^30 bytes":      {refooted(t, sound, func(m *format.FileMetaData) { columnOf(t, m, "power_w").OffsetIndexLength = 1 << 30 }), "it places the offset index"},
		"the offset index of another column": {refooted(t, sound, func(m *format.FileMetaData) {
			power, other := columnOf(t, m, "power_w"), columnOf(t, m, "temperature_c")
			power.OffsetIndexOffset, power.OffsetIndexLength = other.OffsetIndexOffset, other.OffsetIndexLength
		}), "the offset index is damaged: it says that page 0"},
	} {
		t.Run(name, func(t *testing.T) {
			pf, err := openParquet(bytes.NewReader(c.file), int64(len(c.file)))
			if err == nil {
				err = readFile(pf, Predicate{}, func([]TimelineRow) error { return nil })
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, expected %q", err, c.want)
			}
		})
	}
}

// reheaded changes a page's header in its place. What is longer or shorter than
// it was runs into the page, or leaves a gap: the size claims come first.
func reheaded(t *testing.T, sound []byte, at int64, change func(*format.PageHeader)) []byte {
	t.Helper()
	r := new(thrift.CompactProtocol).NewReaderFromBytes(sound[at:])
	var h format.PageHeader
	if err := thrift.NewDecoder(r).Decode(&h); err != nil {
		t.Fatal(err)
	}
	change(&h)
	b, err := thrift.Marshal(new(thrift.CompactProtocol), &h)
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.Clone(sound)
	copy(out[at:], b)
	return out
}

// TestVerifyReadsColumnIndexes damages one that only other readers use.
func TestVerifyReadsColumnIndexes(t *testing.T) {
	b := twoPages(t)
	c := columnOf(t, metaOf(t, b), "power_w")
	copy(b[c.ColumnIndexOffset:], []byte{0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07})
	pf, err := openParquet(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := pf.Schema().Lookup("power_w")
	if err := readPages(pf, 0, leaf.ColumnIndex); err == nil || !strings.Contains(err.Error(), "the column index at byte") {
		t.Errorf("the error is %v", err)
	}
}

func TestSkimThrift(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		n    int
		want string
	}{
		"an empty struct":             {[]byte{0, 9}, 1, ""},
		"truths are their type":       {[]byte{0x11, 0x12, 0}, 3, ""},
		"a list of truths":            {[]byte{0x19, 0x32, 1, 2, 1, 0}, 6, ""},
		"numbers":                     {[]byte{0x13, 0xff, 0x14, 0x80, 0x01, 0x15, 1, 0x16, 1, 0}, 10, ""},
		"a double and a UUID":         {slices.Concat([]byte{0x17}, make([]byte, 8), []byte{0x1d}, make([]byte, 16), []byte{0}), 27, ""},
		"a text":                      {[]byte{0x18, 2, 'a', 'b', 0}, 5, ""},
		"an empty map has no types":   {[]byte{0x1b, 0, 0}, 3, ""},
		"a map":                       {[]byte{0x1b, 1, 0x85, 1, 'k', 4, 0}, 7, ""},
		"a field that names itself":   {[]byte{0x05, 0x80, 0x02, 7, 0}, 5, ""},
		"a list of structs":           {[]byte{0x19, 0x2c, 0x15, 1, 0, 0, 0}, 7, ""},
		"an unknown type":             {[]byte{0x1e, 0}, 1, "unknown type 14"},
		"a list of nothings":          {[]byte{0x19, 0x20, 0, 0, 0}, 2, "unknown type 0"},
		"a number of 11 bytes":        {append([]byte{0x16}, bytes.Repeat([]byte{0xff}, 11)...), 1, "more than 64 bits"},
		"a cut number":                {[]byte{0x16, 0xff}, 1, io.ErrUnexpectedEOF.Error()},
		"a cut double":                {[]byte{0x17, 0, 0}, 1, io.ErrUnexpectedEOF.Error()},
		"a cut UUID":                  {append([]byte{0x1d}, make([]byte, 15)...), 1, io.ErrUnexpectedEOF.Error()},
		"no end":                      {[]byte{0x11}, 1, io.ErrUnexpectedEOF.Error()},
		"a text of 2^63 bytes":        {[]byte{0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, 10, io.ErrUnexpectedEOF.Error()},
		"a list of 2^31 truths":       {[]byte{0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07, 1, 1}, 7, io.ErrUnexpectedEOF.Error()},
		"a map of 2^31 pairs":         {[]byte{0x1b, 0xff, 0xff, 0xff, 0xff, 0x07, 0x11, 1, 1}, 7, io.ErrUnexpectedEOF.Error()},
		"lists in lists in lists ...": {append([]byte{0x19}, bytes.Repeat([]byte{0x19}, 1<<20)...), 65, "nests deeper"},
	} {
		n, err := skimThrift(c.b)
		if n != c.n || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %d, %v; expected %d, %q", name, n, err, c.n, c.want)
		}
	}
}

// FuzzThrift holds the skimmer to parquet-go's decoder: what the one lets through
// and the other decodes ends at the same byte.
func FuzzThrift(f *testing.F) {
	f.Add(hugeSet())
	f.Add([]byte{0x15, 0, 0x15, 4, 0x15, 4, 0})
	f.Add([]byte{0x15, 6, 0x15, 4, 0x15, 4, 0x5c, 0x15, 2, 0x15, 0, 0x15, 2, 0x15, 0, 0x15, 0, 0x15, 0, 0x11, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := skimThrift(b)
		if err != nil {
			return
		}
		for _, v := range []any{new(format.PageHeader), new(format.OffsetIndex), new(format.FileMetaData)} {
			bounded := new(thrift.CompactProtocol).NewReaderFromBytes(bytes.Clone(b))
			if thrift.NewDecoder(bounded).Decode(v) == nil && bounded.BytesRead() != n {
				t.Errorf("%T: %d bytes, parquet-go reads %d", v, n, bounded.BytesRead())
			}
		}
	})
}

// TestOpenReadsTheFooterAlone opens a file whose page indexes are gone.
func TestOpenReadsTheFooterAlone(t *testing.T) {
	b := twoPages(t)
	m := metaOf(t, b)
	first, last := m.RowGroups[0].Columns[0].ColumnIndexOffset, len(b)-8-int(binary.LittleEndian.Uint32(b[len(b)-8:]))
	clear(b[first:last])
	pf, err := openParquet(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	err = readFile(pf, Predicate{}, func([]TimelineRow) error { return nil })
	if err == nil {
		t.Error("an offset index of zeros goes unnoticed")
	}
}

package sinks

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/vramsweep/vramsweep/sinks/table"
)

// TestHostileParquet: what would make parquet-go take memory without bounds is refused before it is asked.
func TestHostileParquet(t *testing.T) {
	for _, c := range []struct {
		name string
		file func(*testing.T) []byte
		want string
	}{
		{"another codec", func(t *testing.T) []byte {
			return changeFooter(t, timelineBytes(t), func(m *format.FileMetaData) {
				for i := range m.RowGroups[0].Columns {
					m.RowGroups[0].Columns[i].MetaData.Codec = format.Lz4Raw
				}
			})
		}, "packed with LZ4_RAW"},
		{"a string of 40 MB in 2 KB", func(t *testing.T) []byte {
			type row struct {
				RunID string `parquet:"run_id"`
			}
			var b bytes.Buffer
			w := parquet.NewGenericWriter[row](&b, parquet.Compression(&zstd.Codec{}))
			if _, err := w.Write([]row{{strings.Repeat("a", 40<<20)}}); err != nil || w.Close() != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}, "unpacked"},
		{"a list of 2^31 row groups", func(t *testing.T) []byte {
			footer := []byte{0x15, 2, 0x19, 0x2c, 0x48, 4, 'r', 'o', 'o', 't', 0x15, 2, 0, 0x25, 12, 0x18, 1, 'a', 0, 0x16, 0,
				0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 7}
			return withFooter([]byte("PAR1"), footer)
		}, "made to do harm"},
		{"more values than bytes", func(t *testing.T) []byte {
			return changeFooter(t, timelineBytes(t), func(m *format.FileMetaData) {
				for i := range m.RowGroups[0].Columns {
					m.RowGroups[0].Columns[i].MetaData.NumValues = 3
				}
			})
		}, "values"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.file(t)
			f, err := table.Open(bytes.NewReader(b), int64(len(b)))
			if err == nil {
				err = tableOf[TimelineRow]().read(f, Predicate{}, func([]TimelineRow) error { return nil })
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want an error with %q", err, c.want)
			}
		})
	}
}

// changeFooter writes the footer of a file again.
func changeFooter(t *testing.T, b []byte, change func(*format.FileMetaData)) []byte {
	t.Helper()
	pf, err := parquet.OpenFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	m := *pf.Metadata()
	change(&m)
	footer, err := thrift.Marshal(new(thrift.CompactProtocol), &m)
	if err != nil {
		t.Fatal(err)
	}
	n := int(binary.LittleEndian.Uint32(b[len(b)-8:]))
	return withFooter(b[:len(b)-8-n], footer)
}

func withFooter(data, footer []byte) []byte {
	out := append(bytes.Clone(data), footer...)
	return append(binary.LittleEndian.AppendUint32(out, uint32(len(footer))), "PAR1"...)
}

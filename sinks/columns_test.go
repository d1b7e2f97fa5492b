package sinks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/vramsweep/vramsweep/sinks/table"
)

// randomRows makes rows in which every column has a habit of its own: always,
// never or now and then null, in stretches or one at a time, few values or many,
// extremes, zeros of both signs, empty and long strings.
func randomRows[T Row](n int, seed uint64) []T {
	rng := rand.New(rand.NewPCG(seed, 1))
	rows := make([]T, n)
	for c, f := range table.Fields(reflect.TypeFor[T]()) {
		null, few, absent := []int{0, 100, 50, 3, 97}[c%5], c%3 > 0, 0
		for i := range rows {
			if absent--; absent < 0 && rng.IntN(100) < null {
				absent = rng.IntN(300) * (c % 2)
			}
			field := reflect.ValueOf(&rows[i]).Elem().FieldByIndex(f.Index)
			if field.Kind() == reflect.Pointer {
				if absent >= 0 || null == 100 {
					continue
				}
				field.Set(reflect.New(field.Type().Elem()))
				field = field.Elem()
			}
			randomValue(field, rng, few)
		}
	}
	return rows
}

func randomValue(v reflect.Value, rng *rand.Rand, few bool) {
	n := rng.Int64N(5) - 2
	if !few {
		n = rng.Int64() - rng.Int64()
	}
	if rng.IntN(100) == 0 {
		n = []int64{0, math.MinInt64, math.MaxInt64, -1}[rng.IntN(4)]
	}
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.UnixMicro(n % 1e15).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Int32:
		v.SetInt(int64(int32(n)))
	case reflect.Int64:
		v.SetInt(n)
	case reflect.Bool:
		v.SetBool(n%2 == 0)
	case reflect.Float64:
		v.SetFloat([]float64{float64(n) / 3, math.Copysign(0, -1), 0, math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1)}[max(0, rng.IntN(60)-54)])
	case reflect.String:
		s := fmt.Sprintf("é%d", n)
		if rng.IntN(50) == 0 {
			s = ""
		}
		if !few && rng.IntN(2) == 0 {
			s += strings.Repeat("x", rng.IntN(200))
		}
		v.SetString(s)
	}
}

func columnBytes[T Row](t testing.TB, rows []T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tableOf[T]().writer(&b, "test", nil, []Mark{{Execution: "e", Final: true}})
	for len(rows) > 0 { // in uneven parts
		n := min(len(rows), 1+len(rows)*3/7)
		if err := w.Write(rows[:n]); err != nil {
			t.Fatal(err)
		}
		rows = rows[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFilesSayWhatRowsSay(t *testing.T) {
	t.Run("timelines", testFile[TimelineRow])
	t.Run("runs", testFile[RunRow])
	t.Run("breakdowns", testFile[BreakdownRow])
	t.Run("steps", testFile[StepRow])
	t.Run("latencies", testFile[LatencyRow])
}

func testFile[T Row](t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 7, 8, 9, 64, 65, 2000} {
		rows := randomRows[T](n, uint64(n))
		b := columnBytes(t, rows)
		f, err := table.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(n, err)
		}
		var got []T
		if err := tableOf[T]().read(f, Predicate{}, func(part []T) error { got = append(got, part...); return nil }); err != nil {
			t.Fatal(n, err)
		}
		for i := range rows {
			if i >= len(got) || !reflect.DeepEqual(rows[i], got[i]) {
				t.Fatalf("%d rows, %d came back; row %d (-want +got):\n%s", n, len(got), i, cmp.Diff(rows[i], got[min(i, len(got)-1)]))
			}
		}
		if f.Rows() != int64(n) || len(got) != n {
			t.Errorf("the footer says %d rows of %d, %d came back", f.Rows(), n, len(got))
		}
		if flaws := f.Check(); len(flaws) > 0 {
			t.Errorf("%d rows: %v", n, flaws)
		}
	}
}

// TestFilesNoteDamage flips a bit in every last page: its checksum must say so.
func TestFilesNoteDamage(t *testing.T) {
	sound := columnBytes(t, randomRows[TimelineRow](300, 1))
	pf, err := parquet.OpenFile(bytes.NewReader(sound), int64(len(sound)))
	if err != nil {
		t.Fatal(err)
	}
	for _, column := range pf.Metadata().RowGroups[0].Columns {
		m := column.MetaData
		first := m.DataPageOffset
		if m.DictionaryPageOffset > 0 {
			first = m.DictionaryPageOffset
		}
		damaged := bytes.Clone(sound)
		damaged[first+m.TotalCompressedSize-1] ^= 0x10
		bad, err := table.Open(bytes.NewReader(damaged), int64(len(damaged)))
		if err != nil {
			t.Fatal(err)
		}
		if flaws := bad.Check(); len(flaws) != 1 || !strings.HasSuffix(flaws[0].Place, "column "+m.PathInSchema[0]) {
			t.Errorf("column %s: a flipped bit in its last page gives %v", m.PathInSchema[0], flaws)
		}
	}
}

// TestFooterIsHeldToTheFile: what a footer claims beyond its file is an error
// before anything is read by it.
func TestFooterIsHeldToTheFile(t *testing.T) {
	sound := columnBytes(t, randomRows[LatencyRow](300, 1))
	pf, err := parquet.OpenFile(bytes.NewReader(sound), int64(len(sound)))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*format.FileMetaData){
		"a column that is longer than the file": func(m *format.FileMetaData) { m.RowGroups[0].Columns[2].MetaData.TotalCompressedSize = 1 << 40 },
		"a column behind the file":              func(m *format.FileMetaData) { m.RowGroups[0].Columns[2].MetaData.DataPageOffset = 1 << 40 },
		"a negative column":                     func(m *format.FileMetaData) { m.RowGroups[0].Columns[2].MetaData.TotalUncompressedSize = -1 },
		"more rows than its groups":             func(m *format.FileMetaData) { m.NumRows = 1 << 40 },
		"negative rows":                         func(m *format.FileMetaData) { m.RowGroups[0].NumRows = -1 },
	} {
		var meta format.FileMetaData
		footer, err := thrift.Marshal(new(thrift.CompactProtocol), pf.Metadata())
		if err == nil {
			err = thrift.Unmarshal(new(thrift.CompactProtocol), footer, &meta)
		}
		if err != nil {
			t.Fatal(err)
		}
		change(&meta)
		if footer, err = thrift.Marshal(new(thrift.CompactProtocol), &meta); err != nil {
			t.Fatal(err)
		}
		n := binary.LittleEndian.Uint32(sound[len(sound)-8:])
		bad := append(bytes.Clone(sound[:len(sound)-8-int(n)]), footer...)
		bad = append(binary.LittleEndian.AppendUint32(bad, uint32(len(footer))), "PAR1"...)
		if _, err := table.Open(bytes.NewReader(bad), int64(len(bad))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestFilesInOtherReaders compares cell by cell, in DuckDB, polars and pyarrow,
// with a file of the same rows without our encodings and compression.
func TestFilesInOtherReaders(t *testing.T) {
	interpreter := python(t, "duckdb", "polars", "pyarrow")
	dir := t.TempDir()
	writeBoth[TimelineRow](t, dir, 1297)
	writeBoth[RunRow](t, dir, 500)
	writeBoth[StepRow](t, dir, 65)
	script, err := filepath.Abs("testdata/same_cells.py")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(interpreter, script, "timelines", "runs", "steps")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func writeBoth[T Row](t *testing.T, dir string, n int) {
	t.Helper()
	rows := randomRows[T](n, 42)
	var b bytes.Buffer
	w, err := parquet.NewGenericWriter[T](&b), error(nil)
	for i := 0; i < n && err == nil; i++ { // a batch of several rows loses nulls that are a zero
		_, err = w.Write(rows[i : i+1])
	}
	name := filepath.Join(dir, string(tableOf[T]().name))
	err = errors.Join(err, w.Close(), os.WriteFile(name+".ours.parquet", columnBytes(t, rows), 0o644),
		os.WriteFile(name+".theirs.parquet", b.Bytes(), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

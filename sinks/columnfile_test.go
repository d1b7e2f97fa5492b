package sinks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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
)

// randomRows makes rows in which every column has a habit of its own: always,
// never or now and then null, in stretches or one at a time, few values or many,
// extremes, zeros of both signs, empty and long strings.
func randomRows[T Row](n int, seed uint64) []T {
	rng := rand.New(rand.NewPCG(seed, 1))
	rows := make([]T, n)
	for c, f := range flatFields(reflect.TypeFor[T]()) {
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

// testPage are the rows of a page in most of these tests.
const testPage = 64

func columnBytes[T Row](t testing.TB, rows []T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := newRowWriter[T](&b, "test", nil, []Mark{{Execution: "e", Final: true}})
	*w.file.limits = columnLimits{pageRows: testPage, dictionary: 3000} // many pages, and dictionaries that end
	for len(rows) > 0 {                                                 // in uneven parts, and row groups
		n := min(len(rows), 1+len(rows)*3/7)
		err := w.write(rows[:n])
		if n > 90 {
			err = errors.Join(err, w.flush())
		}
		if err != nil {
			t.Fatal(err)
		}
		rows = rows[n:]
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestColumnFileSaysWhatRowsSay(t *testing.T) {
	t.Run("timelines", testColumnFile[TimelineRow])
	t.Run("runs", testColumnFile[RunRow])
	t.Run("breakdowns", testColumnFile[BreakdownRow])
	t.Run("steps", testColumnFile[StepRow])
	t.Run("latencies", testColumnFile[LatencyRow])
}

func testColumnFile[T Row](t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 7, 8, 9, testPage, testPage + 1, 5*testPage + 5} {
		rows := randomRows[T](n, uint64(n))
		b := columnBytes(t, rows)
		pf, err := openParquet(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(n, err)
		}
		var got []T
		if err := readFile(pf, Predicate{}, func(part []T) error { got = append(got, part...); return nil }); err != nil {
			t.Fatal(n, err)
		}
		for i := range rows {
			if i >= len(got) || !reflect.DeepEqual(rows[i], got[i]) {
				t.Fatalf("%d rows, %d came back; row %d (-want +got):\n%s", n, len(got), i, cmp.Diff(rows[i], got[min(i, len(got)-1)]))
			}
		}
		if pf.NumRows() != int64(n) {
			t.Errorf("the footer says %d rows of %d", pf.NumRows(), n)
		}
		for g, group := range pf.RowGroups() {
			for c, chunk := range group.ColumnChunks() {
				checkChunk(t, pf, g, c, chunk)
			}
		}
	}
}

// checkChunk holds what the file says of a column chunk to its pages.
func checkChunk(t *testing.T, pf *parquet.File, g, c int, chunk parquet.ColumnChunk) {
	t.Helper()
	name := fmt.Sprintf("group %d, column %s", g, pf.Schema().Columns()[c][0])
	columns, err := chunk.ColumnIndex()
	offsets, oerr := chunk.OffsetIndex()
	if err != nil || oerr != nil {
		t.Fatal(name, err, oerr)
	}
	typ, meta := chunk.Type(), pf.Metadata().RowGroups[g].Columns[c].MetaData
	pages := chunk.Pages()
	defer pages.Close()
	row, page, nulls := int64(0), 0, int64(0)
	for ; ; page++ {
		p, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(name, err)
		}
		if offsets.FirstRowIndex(page) != row {
			t.Errorf("%s: page %d begins at row %d, the index says %d", name, page, row, offsets.FirstRowIndex(page))
		}
		if columns.NullCount(page) != p.NumNulls() || columns.NullPage(page) != (p.NumNulls() == p.NumValues()) {
			t.Errorf("%s: page %d has %d nulls of %d, the index says %d", name, page, p.NumNulls(), p.NumValues(), columns.NullCount(page))
		}
		values := make([]parquet.Value, p.NumValues())
		if n, err := p.Values().ReadValues(values); n != len(values) {
			t.Fatal(name, err)
		}
		for _, v := range values {
			if v.IsNull() {
				continue
			}
			if typ.Compare(v, columns.MinValue(page)) < 0 || typ.Compare(v, columns.MaxValue(page)) > 0 {
				t.Fatalf("%s: %v on page %d lies outside of %v to %v", name, v, page, columns.MinValue(page), columns.MaxValue(page))
			}
			if typ.Compare(v, typ.Kind().Value(meta.Statistics.MinValue)) < 0 || typ.Compare(v, typ.Kind().Value(meta.Statistics.MaxValue)) > 0 {
				t.Fatalf("%s: %v lies outside of the statistics", name, v)
			}
		}
		row, nulls = row+p.NumRows(), nulls+p.NumNulls()
		parquet.Release(p)
	}
	if page != columns.NumPages() || page != offsets.NumPages() || nulls != meta.Statistics.NullCount || row != meta.NumValues {
		t.Errorf("%s: %d pages, %d rows, %d nulls; the footer says %d, %d, %d", name, page, row, nulls, offsets.NumPages(), meta.NumValues, meta.Statistics.NullCount)
	}
	for p := range page { // each page is found by its place
		if err := pages.SeekToRow(offsets.FirstRowIndex(p)); err != nil {
			t.Fatal(name, err)
		}
		got, err := pages.ReadPage()
		if err != nil {
			t.Fatal(name, err)
		}
		if want := columns.NullCount(p); got.NumNulls() != want {
			t.Errorf("%s: sought for page %d and found another", name, p)
		}
		parquet.Release(got)
	}
}

// TestColumnFileNotesDamage flips a bit in every page: its checksum must say so.
func TestColumnFileNotesDamage(t *testing.T) {
	sound := columnBytes(t, randomRows[TimelineRow](300, 1))
	pf, err := openParquet(bytes.NewReader(sound), int64(len(sound)))
	if err != nil {
		t.Fatal(err)
	}
	for c, column := range pf.Metadata().RowGroups[0].Columns {
		m := column.MetaData
		first := m.DataPageOffset
		if m.DictionaryPageOffset > 0 {
			first = m.DictionaryPageOffset
		}
		last := first + m.TotalCompressedSize - 1
		damaged := bytes.Clone(sound)
		damaged[last] ^= 0x10
		bad, err := openParquet(bytes.NewReader(damaged), int64(len(damaged)))
		if err != nil {
			t.Fatal(err)
		}
		if err := readPages(bad, 0, c); err == nil {
			t.Errorf("column %s: a flipped bit in its last page goes unnoticed", m.PathInSchema[0])
		}
	}
}

func TestNotANumberIsNoBound(t *testing.T) {
	nan := math.NaN()
	rows := make([]TimelineRow, 5)
	for i, v := range []float64{nan, 3, nan, -2, nan} {
		rows[i].PowerW, rows[i].TemperatureC, rows[i].HostCPUPct = &v, &v, &nan
	}
	b := columnBytes(t, rows)
	pf, err := openParquet(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]float64{"power_w": {-2, 3}, "temperature_c": {-2, 3}, "host_cpu_pct": {math.Inf(-1), math.Inf(1)}} {
		leaf, _ := pf.Schema().Lookup(name)
		s := pf.Metadata().RowGroups[0].Columns[leaf.ColumnIndex].MetaData.Statistics
		if got := [2]float64{parquet.Double.Value(s.MinValue).Double(), parquet.Double.Value(s.MaxValue).Double()}; got != want {
			t.Errorf("%s: the bounds are %v, expected %v", name, got, want)
		}
	}
}

// TestColumnFileInOtherReaders compares cell by cell, in DuckDB, polars and
// pyarrow, with the file that parquet-go's own writer makes of the same rows.
func TestColumnFileInOtherReaders(t *testing.T) {
	interpreter := python(t, "duckdb", "polars", "pyarrow")
	dir := t.TempDir()
	writeBoth[TimelineRow](t, dir, 20*testPage+17)
	writeBoth[RunRow](t, dir, 500)
	writeBoth[StepRow](t, dir, testPage+1)
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
	w := parquet.NewGenericWriter[T](&b, writerOptions(tableOf[T](), "test", nil, nil)...)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, string(tableOf[T]()))
	err := errors.Join(os.WriteFile(name+".ours.parquet", columnBytes(t, rows), 0o644), os.WriteFile(name+".theirs.parquet", b.Bytes(), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

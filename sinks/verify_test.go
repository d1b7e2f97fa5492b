package sinks

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/parquet-go/parquet-go"
)

func faultsOf(t *testing.T, s *Store) []string {
	t.Helper()
	faults, err := s.Verify()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range faults {
		all = append(all, f.String())
	}
	return all
}

// soundFolder is a folder of two compacted nights, checked before and after.
func soundFolder(t *testing.T) string {
	dir := t.TempDir()
	s := openStore(t, dir)
	for n := range 2 {
		runs := night(n)
		write(t, s, runs)
		finish(t, s, runs[0].execution)
	}
	if faults := faultsOf(t, s); len(faults) > 0 {
		t.Fatalf("faults in a sound folder:\n%s", strings.Join(faults, "\n"))
	}
	if _, err := s.Compact(); err != nil {
		t.Fatal(err)
	}
	if faults := faultsOf(t, s); len(faults) > 0 {
		t.Fatalf("faults in a compacted folder:\n%s", strings.Join(faults, "\n"))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestVerifyNamesDamage(t *testing.T) {
	one := func(t *testing.T, dir, pattern string) string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("no file %s", pattern)
		}
		return names[0]
	}
	change := func(pattern string, f func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			name := one(t, dir, pattern)
			b, err := os.ReadFile(name)
			if err == nil {
				err = os.WriteFile(name, f(b), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(pattern string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.RemoveAll(one(t, dir, pattern)); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(at func(int) int) func([]byte) []byte {
		return func(b []byte) []byte { b[at(len(b))] ^= 0x40; return b }
	}
	cases := []struct {
		name   string
		damage func(*testing.T, string)
		want   []string // each in one of the faults
	}{
		{"cut table", change("tables/timelines/*/*.parquet", func(b []byte) []byte { return b[:len(b)/2] }), []string{"tables/timelines/", "cut off"}},
		{"byte flipped in a page", change("tables/timelines/*/*.parquet", flipInColumn("power_w")), []string{"tables/timelines/", "row group 0, column power_w", "checksum"}},
		{"bound changed in a footer", change("tables/latencies/*/*.parquet", func(b []byte) []byte {
			return changeBound(t, b, "latency_s")
		}), []string{"tables/latencies/", "its footer is damaged: it does not match its checksum"}},
		{"cut timeline of a run", change("runs/*/*/timeline.parquet", func(b []byte) []byte { return b[:len(b)-1] }), []string{"timeline.parquet: it has", "cut off"}},
		{"byte flipped in the timeline of a run", change("runs/*/*/timeline.parquet", flip(func(n int) int { return n / 2 })), []string{"timeline.parquet: its SHA-256 is"}},
		{"missing table", remove("tables/ranks/*/*.parquet"), []string{"tables/ranks: it has no rows of execution 20261120T020000Z-000000"}},
		{"missing timeline", remove("runs/*/*/timeline.parquet"), []string{"timeline.parquet: it is missing, but run.json names it"}},
		{"missing run.json", remove("runs/*/*/run.json"), []string{"7 of 8 runs have a run.json", "run.json: it is missing"}},
		{"missing run", remove("runs/*/*"), []string{"7 of 8 runs have a run.json", "stands in the table but in no run folder"}},
		{"missing execution", remove("executions/*.json"), []string{"executions/20261120T020000Z-000000.json: it is missing"}},
		{"changed figure in run.json", change("runs/*/*/run.json", func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"avg_s": `, `"avg_s": 1`, 1))
		}), []string{"run.json: it was changed since it was written"}},
		{"more weights than the net increase", change("runs/*/*/run.json", func(b []byte) []byte {
			at := bytes.Index(b, []byte(`"breakdowns": [`))
			b = append(b[:at:at], bytes.Replace(b[at:], []byte(`"bytes": `), []byte(`"bytes": 9`), 1)...)
			return sealJSON(append([]byte("{\n"), b[len(sealHead)+2*sha256.Size+len(sealTail):]...))
		}), []string{"run.json: memory_breakdown: ", "the parts add up to", "vramsweep reparse"}},
		{"changed text in run.json", change("runs/*/*/run.json", func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"estimation_method": "simulated"`, `"estimation_method": "somulated"`, 1))
		}), []string{"run.json: it was changed since it was written"}},
		{"run.json written again by others", change("runs/*/*/run.json", func(b []byte) []byte {
			return []byte(strings.Replace(string(b[strings.Index(string(b), ",\n")+2:]), `  "schema_version"`, `{"schema_version"`, 1))
		}), []string{"its run.json was changed after the table was written"}},
		{"broken run.json", change("runs/*/*/run.json", func(b []byte) []byte { return b[:300] }), []string{"run.json: it was changed since it was written"}},
		{"row twice", duplicateRow, []string{"is there twice"}},
		{"left temporary file", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "executions", tmpMark+"x.json"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}, []string{"executions/.tmp-x.json: a temporary file that was left"}},
		{"FIFO as run.json", func(t *testing.T, dir string) { fifo(t, one(t, dir, "runs/*/*/run.json")) }, []string{"run.json", "is no regular file"}},
		{"FIFO as a timeline", func(t *testing.T, dir string) { fifo(t, one(t, dir, "runs/*/*/timeline.parquet")) }, []string{"timeline.parquet", "is no regular file"}},
		{"FIFO as an execution", func(t *testing.T, dir string) { fifo(t, one(t, dir, "executions/*.json")) }, []string{"executions/", "is no regular file"}},
		{"rows of another execution", otherExecution, []string{"tables/breakdowns/", "is of an execution that the file does not name"}},
		{"link", func(t *testing.T, dir string) {
			if err := os.Symlink("/etc", filepath.Join(dir, "tables", "etc")); err != nil {
				t.Fatal(err)
			}
		}, []string{"tables/etc: a symbolic link"}},
	}
	sound := soundFolder(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(sound)); err != nil {
				t.Fatal(err)
			}
			c.damage(t, dir)
			s, err := View(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			all := strings.Join(faultsOf(t, s), "\n")
			for _, want := range c.want {
				if !strings.Contains(all, want) {
					t.Errorf("no fault says %q:\n%s", want, all)
				}
			}
		})
	}
}

// fifo puts a FIFO in the place of a file: nobody may wait for it.
func fifo(t *testing.T, name string) {
	t.Helper()
	if err := errors.Join(os.Remove(name), syscall.Mkfifo(name, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// flipInColumn flips a byte at the end of the first page of a column.
func flipInColumn(name string) func([]byte) []byte {
	return func(b []byte) []byte {
		pf, err := parquet.OpenFile(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			panic(err)
		}
		for _, c := range pf.Metadata().RowGroups[0].Columns {
			if c.MetaData.PathInSchema[0] == name {
				b[c.MetaData.DataPageOffset+c.MetaData.TotalCompressedSize-9] ^= 0x40
			}
		}
		return b
	}
}

// changeBound makes the footer claim a lower maximum of a column.
func changeBound(t *testing.T, b []byte, name string) []byte {
	t.Helper()
	pf, err := parquet.OpenFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := pf.Schema().Lookup(name)
	high := pf.Metadata().RowGroups[0].Columns[leaf.ColumnIndex].MetaData.Statistics.MaxValue
	at := bytes.LastIndex(b, high)
	if len(high) != 8 || at < 0 {
		t.Fatalf("no maximum of %s in the footer", name)
	}
	b[at+7] = 0 // the exponent
	return b
}

func rewriteBreakdowns(t *testing.T, dir string, change func([]BreakdownRow, []Mark) ([]BreakdownRow, []Mark)) {
	t.Helper()
	s := openStore(t, dir)
	files, err := s.footers(TableBreakdowns)
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v", files, err)
	}
	rows, marks := change(collect[BreakdownRow](t, Predicate{}, dir), files[0].marks)
	out, err := os.Create(filepath.Join(dir, tablesDir, files[0].name))
	if err != nil {
		t.Fatal(err)
	}
	w := tableOf[BreakdownRow]().writer(out, "test", nil, marks)
	if err := errors.Join(w.Write(rows), w.Close(), out.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// duplicateRow writes the table of breakdowns again with its third row doubled.
func duplicateRow(t *testing.T, dir string) {
	rewriteBreakdowns(t, dir, func(rows []BreakdownRow, marks []Mark) ([]BreakdownRow, []Mark) {
		return append(rows[:3:3], rows[2:]...), marks
	})
}

// otherExecution makes the file name one of its two executions only.
func otherExecution(t *testing.T, dir string) {
	rewriteBreakdowns(t, dir, func(rows []BreakdownRow, marks []Mark) ([]BreakdownRow, []Mark) { return rows, marks[:1] })
}

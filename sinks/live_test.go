package sinks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
)

// globbed reads a table as an analyst's reader does: every Parquet file under
// its folder, nothing else known. It reports false where a file went while it read.
func globbed[T Row](t *testing.T, dir string) (rows []T, whole bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, tablesDir, string(tableOf[T]()), "month=*", "*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	columns := ""
	for _, name := range files {
		part, err := parquet.ReadFile[T](name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, false
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		rows = append(rows, part...)
		if file, err := os.Open(name); err == nil {
			info, _ := file.Stat()
			if pf, err := parquet.OpenFile(file, info.Size()); err == nil {
				if is := fmt.Sprint(pf.Schema().Columns()); columns != "" && is != columns {
					t.Errorf("%s has other columns than its neighbours: %s, expected %s", name, is, columns)
				} else {
					columns = is
				}
			}
			file.Close()
		}
	}
	return rows, true
}

// shows checks that plain readers see these runs, each once, in every table.
func shows(t *testing.T, dir, when string, runs []*testRun) {
	t.Helper()
	ids, samples, breakdowns := map[string]bool{}, 0, 0
	for _, r := range runs {
		ids[r.job(1).RunID] = true
		samples += len(r.samples())
		breakdowns += len(RowsOf(r.result()).Breakdowns)
	}
	got, _ := globbed[RunRow](t, dir)
	for _, row := range got {
		if !ids[row.RunID] {
			t.Errorf("%s: run %s should not be there, or not twice", when, row.RunID)
		}
		delete(ids, row.RunID)
	}
	for id := range ids {
		t.Errorf("%s: run %s is missing", when, id)
	}
	if lines, _ := globbed[TimelineRow](t, dir); len(lines) != samples {
		t.Errorf("%s: %d samples, expected %d", when, len(lines), samples)
	}
	if parts, _ := globbed[BreakdownRow](t, dir); len(parts) != breakdowns {
		t.Errorf("%s: %d parts of memory, expected %d", when, len(parts), breakdowns)
	}
	if rows := collect[RunRow](t, Predicate{}, dir); len(rows) != len(runs) { // our own reader has it from the folders
		t.Errorf("%s: our reader sees %d runs, expected %d", when, len(rows), len(runs))
	}
}

// TestTablesShowFinishedRuns opens the tables in the middle of an execution.
func TestTablesShowFinishedRuns(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	shown := night(0)
	write(t, s, shown)
	finish(t, s, shown[0].execution)
	if _, err := s.Compact(); err != nil {
		t.Fatal(err)
	}
	runs := night(1)
	begin := func() {
		t.Helper()
		if err := s.BeginExecution(&Execution{ID: runs[0].execution, StartedAt: runs[0].started, Runs: len(runs)}); err != nil {
			t.Fatal(err)
		}
	}
	begin()
	for i, r := range runs[:4] {
		if i == 2 { // an axis that is new: every file of the table gets its column
			r.axes = map[string]any{"alpha": int64(i)}
		}
		writeRun(t, s, r, 1)
		shown = append(shown, r)
		shows(t, dir, fmt.Sprint("run ", i), shown)
	}

	sink, err := s.Begin(runs[3].job(2))
	if err != nil {
		t.Fatal(err)
	}
	shows(t, dir, "while a run is repeated", shown[:len(shown)-1])
	if err := sink.Finish(runs[3].result()); err != nil {
		t.Fatal(err)
	}
	if files, err := s.liveFiles(TableRuns, ""); err != nil || len(files) == 0 {
		t.Errorf("there are no live files: %v %v", files, err)
	}
	runs[3].seconds = 0 // that attempt took no samples
	got, _ := globbed[RunRow](t, dir)
	if n := count1(got, runs[3].job(1).RunID); n != 1 {
		t.Errorf("the repeated run is there %d times", n)
	}

	other, err := View(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Compact(); err != nil {
		t.Fatal(err)
	}
	if files, err := s.liveFiles("", ""); err != nil || len(files) > 0 {
		t.Errorf("compact left live files: %v %v", files, err)
	}
	writeRun(t, s, runs[4], 1)
	shown = append(shown, runs[4])
	shows(t, dir, "after compact", shown)
	if faults, err := other.Verify(); err != nil || len(faults) > 0 {
		t.Errorf("verify in the middle: %v %v", faults, err)
	}

	if err := errors.Join(other.Close(), s.Close()); err != nil { // its runner dies
		t.Fatal(err)
	}
	s = openStore(t, dir)
	if _, err := s.Recover(); err != nil {
		t.Fatal(err)
	}
	if files, err := s.liveFiles("", ""); err != nil || len(files) > 0 {
		t.Errorf("recover left live files: %v %v", files, err)
	}
	shows(t, dir, "after recover", shown)
	begin()
	writeRun(t, s, runs[5], 1)
	shown = append(shown, runs[5])
	shows(t, dir, "resumed", shown)
	finish(t, s, runs[0].execution)
	if files, err := s.liveFiles("", ""); err != nil || len(files) > 0 {
		t.Errorf("the end left live files: %v %v", files, err)
	}
	shows(t, dir, "at the end", shown)
}

func count1(rows []RunRow, id string) (n int) {
	for i := range rows {
		if rows[i].RunID == id {
			n++
		}
	}
	return n
}

// TestTablesNeverShowARunTwice reads without a pause while runs end, parts fill
// up and another process compacts: no run is seen twice, none that was seen is lost.
func TestTablesNeverShowARunTwice(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	const execution = "20261120T020000Z-000000"
	if err := s.BeginExecution(&Execution{ID: execution, StartedAt: testStart}); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Add(1)
	go func() {
		defer readers.Done()
		most := 0
		for reads := 0; ; {
			select {
			case <-stop:
				if reads == 0 {
					t.Error("it was never read")
				}
				return
			default:
			}
			rows, whole := globbed[RunRow](t, dir)
			if !whole {
				continue // a merge came between: an analyst asks again
			}
			reads++
			time.Sleep(time.Millisecond)
			ids := map[string]bool{}
			for i := range rows {
				if ids[rows[i].RunID] {
					t.Errorf("%s is there twice", rows[i].RunID)
				}
				ids[rows[i].RunID] = true
			}
			if len(ids) < most {
				t.Errorf("%d runs after %d", len(ids), most)
			}
			most = len(ids)
		}
	}()
	const runs = liveRuns + 12
	for i := range runs {
		writeRun(t, s, &testRun{execution: execution, started: testStart, sweep: "s", model: "m", inputLen: int64(i + 1), batch: 1, gpus: 1, repeat: 1}, 1)
		if i == 8 {
			other, err := View(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := other.Compact(); err != nil {
				t.Fatal(err)
			}
			other.Close()
		}
	}
	if files, err := s.liveFiles(TableRuns, ""); err != nil || len(files) > 3 {
		t.Errorf("too many files: %v %v", files, err)
	}
	finish(t, s, execution)
	close(stop)
	readers.Wait()
	if rows, _ := globbed[RunRow](t, dir); len(rows) != runs {
		t.Errorf("%d runs at the end", len(rows))
	}
	if faults, err := s.Verify(); err != nil || len(faults) > 0 {
		t.Errorf("%v %v", faults, err)
	}
}

// TestReadersInTheMiddle asks DuckDB, pandas, polars and pyarrow while an
// execution goes on.
func TestReadersInTheMiddle(t *testing.T) {
	interpreter := python(t, "duckdb", "pandas", "polars", "pyarrow")
	work := t.TempDir()
	s := openStore(t, filepath.Join(work, "results"))
	for n := range 2 {
		runs := night(n)
		if err := s.BeginExecution(&Execution{ID: runs[0].execution, StartedAt: runs[0].started, Runs: len(runs)}); err != nil {
			t.Fatal(err)
		}
		for i, r := range runs[:len(runs)-2*n] {
			if r.axes = map[string]any{"alpha": int64(i)}; i > 4 {
				r.axes["beta"] = "x"
			}
			writeRun(t, s, r, 1)
		}
		if n == 0 {
			finish(t, s, runs[0].execution)
		}
	}
	script := `
import sys, duckdb, pandas, polars, pyarrow.dataset
for table in sys.argv[1:]:
    glob, folder = f"results/tables/{table}/**/*.parquet", f"results/tables/{table}"
    seen = [duckdb.execute(f"SELECT count(*), count(DISTINCT run_id) FROM read_parquet('{glob}')").fetchone()]
    frame = pandas.read_parquet(folder)
    seen.append((len(frame), frame.run_id.nunique()))
    frame = polars.scan_parquet(glob).collect()
    seen.append((frame.height, frame["run_id"].n_unique()))
    frame = pyarrow.dataset.dataset(folder, partitioning="hive").to_table()
    seen.append((frame.num_rows, len(frame["run_id"].unique())))
    print(table, *seen[0], len(set(seen)))
`
	cmd := exec.Command(interpreter, "-c", script, "runs", "timelines", "breakdowns")
	cmd.Dir = work
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := []string{fmt.Sprintf("runs %d %d 1", 2*len(night(0))-2, 2*len(night(0))-2)}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if !slices.Equal(lines[:1], want) || len(lines) != 3 {
		t.Errorf("the readers say %q, expected %q", lines, want)
	}
	for _, line := range lines {
		if f := strings.Fields(line); f[2] != fmt.Sprint(2*len(night(0))-2) || f[3] != "1" {
			t.Errorf("the readers see %q", line)
		}
	}
}

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
	files, err := filepath.Glob(filepath.Join(dir, tablesDir, string(tableOf[T]().name), "month=*", "*.parquet"))
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

// shows checks that plain readers see these runs, each once, in every table,
// and that our own reader sees those in run folders as well.
func shows(t *testing.T, dir, when string, runs []*testRun, own int) {
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
	if rows := collect[RunRow](t, Predicate{}, dir); len(rows) != own {
		t.Errorf("%s: our reader sees %d runs, expected %d", when, len(rows), own)
	}
}

// TestTablesAreOneFileAnExecution follows an execution from its first run to
// its end: compact, a crash and a resume on the way.
func TestTablesAreOneFileAnExecution(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	before := night(0)
	write(t, s, before)
	finish(t, s, before[0].execution)
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
		shows(t, dir, fmt.Sprint("run ", i), before, len(before)+i+1)
	}
	other, err := View(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Compact(); err != nil { // beside the runner
		t.Fatal(err)
	}
	shows(t, dir, "after compact", append(before, runs[:4]...), len(before)+4)
	if faults, err := other.Verify(); err != nil || len(faults) > 0 {
		t.Errorf("verify in the middle: %v %v", faults, err)
	}
	sink, err := s.Begin(runs[3].job(2))
	if err != nil {
		t.Fatal(err)
	}
	shows(t, dir, "while a run is repeated", append(before, runs[:4]...), len(before)+3)
	if err := sink.Finish(runs[3].result()); err != nil {
		t.Fatal(err)
	}
	writeRun(t, s, runs[4], 1)
	if err := s.Close(); err != nil { // its runner dies
		t.Fatal(err)
	}
	runs[3].seconds = 0 // its last attempt took no samples
	s = openStore(t, dir)
	if _, err := s.Recover(); err != nil {
		t.Fatal(err)
	}
	shows(t, dir, "after recover", append(before, runs[:5]...), len(before)+5)
	if e, err := s.Execution(runs[0].execution); err != nil || e.State != StateInterrupted {
		t.Errorf("after recover: %+v %v", e, err)
	}
	begin()
	for _, r := range runs[5:] {
		writeRun(t, s, r, 1)
	}
	finish(t, s, runs[0].execution)
	shows(t, dir, "at the end", append(before, runs...), len(before)+len(runs))
	for _, name := range Tables() {
		files, err := s.tableFiles(name)
		if err != nil || len(files) != 2 || filepath.Base(files[1]) != runs[0].execution+".parquet" {
			t.Errorf("files of %s: %v %v", name, files, err)
		}
	}
	if faults := faultsOf(t, s); len(faults) > 0 {
		t.Errorf("%v", faults)
	}
}

// TestMergedExecutionIsWrittenAgain publishes an execution whose rows lie in a
// merged file: they are replaced in it.
func TestMergedExecutionIsWrittenAgain(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	for n := range 3 {
		write(t, s, night(n))
		finish(t, s, night(n)[0].execution)
	}
	if _, err := s.Compact(); err != nil {
		t.Fatal(err)
	}
	middle := night(1)
	for rel, r := range s.Results(Predicate{Execution: middle[0].execution}) {
		r.Run.OutcomeDetail = "read again"
		if err := s.Replace(rel, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Publish(middle[0].execution); err != nil {
		t.Fatal(err)
	}
	rows, _ := globbed[RunRow](t, dir)
	again := 0
	for _, row := range rows {
		if row.OutcomeDetail != nil && *row.OutcomeDetail == "read again" {
			again++
		}
	}
	if len(rows) != 3*len(middle) || again != len(middle) {
		t.Errorf("%d rows, %d of them read again; expected %d and %d", len(rows), again, 3*len(middle), len(middle))
	}
	if files, err := s.tableFiles(TableRuns); err != nil || len(files) != 1 {
		t.Errorf("%v %v", files, err)
	}
	if faults := faultsOf(t, s); len(faults) > 0 {
		t.Errorf("%v", faults)
	}
}

// TestMergeThatDied leaves the folders as they are when a merge dies between its
// two renames, or before: the next one to work there puts everything back.
func TestMergeThatDied(t *testing.T) {
	sound := soundFolder(t)
	rows, _ := globbed[RunRow](t, sound)
	for name, die := range map[string]func(t *testing.T, dir, month string) error{
		"between": func(t *testing.T, dir, month string) error {
			old := filepath.Join(dir, stagingDir, "old", "runs")
			return errors.Join(os.MkdirAll(old, 0o755), os.Rename(month, filepath.Join(old, filepath.Base(month))))
		},
		"behind": func(t *testing.T, dir, month string) error {
			return os.CopyFS(filepath.Join(dir, stagingDir, "old", "runs", filepath.Base(month)), os.DirFS(month))
		},
		"before": func(t *testing.T, dir, month string) error {
			return os.CopyFS(filepath.Join(dir, stagingDir, "next", "runs", filepath.Base(month)), os.DirFS(month))
		},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(sound)); err != nil {
			t.Fatal(err)
		}
		months, err := filepath.Glob(filepath.Join(dir, "tables/runs/month=*"))
		if err != nil || len(months) != 1 {
			t.Fatal(months, err)
		}
		if err := die(t, dir, months[0]); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, dir)
		if _, err := s.Recover(); err != nil {
			t.Fatal(err)
		}
		if got, _ := globbed[RunRow](t, dir); len(got) != len(rows) {
			t.Errorf("%s: %d rows, expected %d", name, len(got), len(rows))
		}
		if faults := faultsOf(t, s); len(faults) > 0 {
			t.Errorf("%s: %v", name, faults)
		}
	}
}

// TestLeftoversOfEarlierVersions: a manifest and live files are no rows to our
// readers, and recover removes them.
func TestLeftoversOfEarlierVersions(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	runs := night(0)
	if err := s.BeginExecution(&Execution{ID: runs[0].execution, StartedAt: runs[0].started, Runs: len(runs)}); err != nil {
		t.Fatal(err)
	}
	write(t, s, runs)
	live := "tables/runs/month=2026-11/" + runs[0].execution + ".live-0000.parquet"
	err := s.f.mkdir(filepath.Dir(live))
	for _, name := range []string{legacyManifest, live} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := len(collect[RunRow](t, Predicate{}, dir)); got != len(runs) {
		t.Errorf("our reader sees %d runs, expected %d", got, len(runs))
	}
	report, err := s.Recover()
	if err != nil {
		t.Fatal(err)
	}
	shows(t, dir, "after recover", runs, len(runs))
	for _, name := range []string{legacyManifest, live} {
		if s.f.exists(name) || !slices.Contains(report.Removed, name) {
			t.Errorf("%s is still there, or is not reported: %v", name, report.Removed)
		}
	}
}

// TestTablesNeverShowARunTwice reads without a pause while runs end and another
// process publishes them: no run is seen twice, none that was seen is lost.
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
				t.Error("a file that was listed is gone")
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
	other, err := View(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const runs = 40
	for i := range runs {
		writeRun(t, s, &testRun{execution: execution, started: testStart, sweep: "s", model: "m", inputLen: int64(i + 1), batch: 1, gpus: 1, repeat: 1}, 1)
		if i%4 == 0 {
			if _, err := other.Compact(); err != nil {
				t.Fatal(err)
			}
		}
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
		} else if err := s.Publish(runs[0].execution); err != nil {
			t.Fatal(err)
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

package sinks

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks/table"
)

func TestRetriedRunKeepsItsAttempts(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	run := night(0)[0]
	if err := s.BeginExecution(&Execution{ID: run.execution, StartedAt: run.started, Runs: 1}); err != nil {
		t.Fatal(err)
	}
	run.outcome = runner.OutcomeEngineError
	writeRun(t, s, run, 1)
	if err := os.WriteFile(filepath.Join(s.RunDir(run.job(1)), "stdout.log"), []byte("first\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// The second attempt dies, the third one succeeds.
	sink, err := s.Begin(run.job(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Samples(run.samples()[:25]); err != nil {
		t.Fatal(err)
	}
	if err := sink.(*RunSink).Close(); err != nil {
		t.Fatal(err)
	}
	run.outcome = runner.OutcomeOK
	writeRun(t, s, run, 3)

	rows := collect[RunRow](t, Predicate{}, dir)
	if len(rows) != 1 || rows[0].Outcome != "ok" || rows[0].Attempts != 3 {
		t.Errorf("rows: %+v", rows)
	}
	for attempt, want := range map[string]runner.Outcome{"1": runner.OutcomeEngineError, "2": runner.OutcomeInterrupted} {
		r, err := ReadResult(filepath.Join(s.RunDir(run.job(1)), attemptsDir, attempt, resultName))
		if err != nil || r.Run.Outcome != want {
			t.Errorf("attempt %s: %v, %v", attempt, r, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(s.RunDir(run.job(1)), attemptsDir, "1", "stdout.log")); err != nil || string(b) != "first\n" {
		t.Errorf("the log of the first attempt: %q, %v", b, err)
	}
	lines := 0
	if err := s.Samples(strings.TrimPrefix(filepath.Join(s.RunDir(run.job(1)), attemptsDir, "2"), dir+"/")).ReadSamples(func(b []runner.Sample) error {
		lines += len(b)
		return nil
	}); err != nil || lines != 25 {
		t.Errorf("the second attempt has %d samples of 25, %v", lines, err)
	}
	finish(t, s, run.execution)
	if faults := faultsOf(t, s); len(faults) > 0 {
		t.Errorf("faults:\n%s", strings.Join(faults, "\n"))
	}
}

// TestSamplesComeByTime mixes samplers that deliver late and checks the order
// while a run goes on, and after.
func TestSamplesComeByTime(t *testing.T) {
	s := openStore(t, t.TempDir())
	run := &testRun{execution: "20261120T020000Z-000000", started: testStart, sweep: "s", model: "m", inputLen: 1, batch: 1, repeat: 1, gpus: 3, seconds: 60}
	job := run.job(1)
	sink, err := s.Begin(job)
	if err != nil {
		t.Fatal(err)
	}
	var late []runner.Sample
	for i, sample := range run.samples() {
		if sample.GPU == 2 { // two seconds late
			if late = append(late, sample); len(late) > 20 {
				if err := sink.Samples(late[:1]); err != nil {
					t.Fatal(err)
				}
				late = late[1:]
			}
			continue
		}
		if err := sink.Samples([]runner.Sample{sample}); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			if err := sink.(*RunSink).flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := sink.Samples(late); err != nil {
		t.Fatal(err)
	}
	want := run.samples()
	check := func(when string, reader runner.SampleReader) {
		t.Helper()
		for range 2 { // as often as it is asked
			var got []runner.Sample
			if err := reader.ReadSamples(func(b []runner.Sample) error {
				got = append(got, slices.Clone(b)...)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if !slices.IsSortedFunc(got, func(a, b runner.Sample) int { return int(a.Offset - b.Offset) }) {
				t.Errorf("%s: the samples are out of order", when)
			}
			if len(got) != len(want) {
				t.Errorf("%s: %d samples of %d", when, len(got), len(want))
			}
		}
	}
	check("while it runs", sink.(runner.SampleReader))
	if err := sink.Finish(run.result()); err != nil {
		t.Fatal(err)
	}
	check("finished", sink.(runner.SampleReader))
	rel, err := filepath.Rel(s.Dir(), job.Dir)
	if err != nil {
		t.Fatal(err)
	}
	check("later", s.Samples(rel))
	rows := collect[TimelineRow](t, Predicate{}, s.Dir())
	for i := 1; i < len(rows); i++ {
		if !tableOf[TimelineRow]().rowKey(&rows[i-1]).less(tableOf[TimelineRow]().rowKey(&rows[i])) {
			t.Fatalf("rows %d and %d of the timeline are out of order: %s, %s", i-1, i, tableOf[TimelineRow]().keyText(&rows[i-1]), tableOf[TimelineRow]().keyText(&rows[i]))
		}
	}
}

func TestTimelineSaysWhatSamplesSay(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	run := &testRun{execution: "20261120T020000Z-000000", started: testStart, sweep: "s", model: "m", inputLen: 1, batch: 1, repeat: 1, gpus: 1, seconds: 12}
	writeRun(t, s, run, 1)
	rows := collect[TimelineRow](t, Predicate{}, dir)
	i := 0
	for _, want := range run.samples() {
		if want.GPU == runner.HostGPU {
			continue
		}
		row := rows[i]
		i++
		var got runner.Sample
		sampleOf(&got, &row)
		want.TS, want.Offset, want.Read = want.TS.Truncate(time.Microsecond), want.Offset.Truncate(time.Microsecond), want.Read.Truncate(time.Microsecond)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("row %d (-sample +row):\n%s", i, diff)
		}
		phase := run.result().Phases[min(5, int(want.Offset/(2*time.Second)))].Phase
		if row.Phase == nil || *row.Phase != string(phase) {
			t.Fatalf("row %d at %v: phase %v, expected %s", i, want.Offset, row.Phase, phase)
		}
		if want.Has&runner.HasPower == 0 && row.PowerW != nil || want.Has&runner.HasUtilization != 0 && row.UtilizationPct == nil {
			t.Fatalf("row %d: missing is not null, or 0 is", i)
		}
	}
	last := rows[len(rows)-1]
	if last.GPUIndex != nil || last.HostRSSBytes == nil || last.MemoryUsedBytes != nil {
		t.Errorf("the host comes last, without a GPU: %+v", last)
	}
}

func TestFiguresThatAreNotFinite(t *testing.T) {
	r := night(0)[0].result()
	r.MemoryBreakdown.KVCacheGB = ptr(math.NaN())
	r.LatencyStats.AvgS = math.Inf(1)
	r.Run.Axes["alpha"] = math.NaN()
	var b bytes.Buffer
	if err := EncodeResult(&b, r); err != nil {
		t.Fatal(err)
	}
	again, err := DecodeResult(&b)
	if err != nil {
		t.Fatal(err)
	}
	if again.MemoryBreakdown.KVCacheGB != nil || again.MemoryBreakdown.ModelWeightsGB == nil || again.LatencyStats.AvgS != 0 {
		t.Errorf("%+v %+v", again.MemoryBreakdown, again.LatencyStats)
	}
	for _, name := range []string{"memory_breakdown.kv_cache_gb", "latency_stats.avg_s", "run.axes.alpha"} {
		if again.Missing[name] == "" {
			t.Errorf("%s has no reason: %v", name, again.Missing)
		}
	}
	if !math.IsNaN(*r.MemoryBreakdown.KVCacheGB) {
		t.Error("the caller's result was changed")
	}
}

func TestResultKeepsItsMeaning(t *testing.T) {
	r := night(0)[0].result()
	r.Run.OutcomeDetail = `a "quoted" {text}, with [marks]: \ and ü`
	r.Run.Axes["big"], r.Run.Axes["none"] = int64(9007199254740993), nil
	name := filepath.Join(t.TempDir(), "results.json")
	if err := WriteResult(name, r); err != nil {
		t.Fatal(err)
	}
	again, err := ReadResult(name)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	written = slices.Concat([]byte("{\n"), written[bytes.Index(written, []byte(sealTail))+len(sealTail):]) // without its checksum
	var squeezed bytes.Buffer
	if err := json.Compact(&squeezed, written); err != nil || squeezed.String() != string(compact) {
		t.Errorf("laying out changed the JSON: %v", err)
	}
	if again.Run.Axes["big"] != int64(9007199254740993) {
		t.Errorf("a large whole number lost digits: %v", again.Run.Axes["big"])
	}
	if rows := collect[RunRow](t, Predicate{}, name); len(rows) != 1 || rows[0].RunID != r.Run.RunID {
		t.Errorf("a single run.json reads as %v", rows)
	}
	if err := WriteResult(filepath.Join(t.TempDir(), "no", "results.json"), r); err == nil || !strings.Contains(err.Error(), "must exist") {
		t.Errorf("into a folder that is not there: %v", err)
	}
}

// oldLatency is the table latencies before a column was added and after one of
// another order: files of earlier versions stay readable.
type oldLatency struct {
	Sweep     string  `parquet:"sweep,dict"`
	RunID     string  `parquet:"run_id,dict"`
	Execution string  `parquet:"execution,dict"`
	LatencyS  float64 `parquet:"latency_s"`
	Iteration int32   `parquet:"iteration"`
}

func TestOldFilesStayReadable(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	write(t, s, night(1))
	finish(t, s, night(1)[0].execution)
	folder := filepath.Join(dir, "tables/latencies/month=2025-01")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := parquet.NewGenericWriter[oldLatency](&b, parquet.KeyValueMetadata("vramsweep.executions", `[{"execution":"20250101T000000Z-aaaaaa","final":true}]`))
	old := []oldLatency{{"nightly", "20250101T000000Z-aaaaaa-x", "20250101T000000Z-aaaaaa", 1.5, 1}, {"nightly", "20250101T000000Z-aaaaaa-x", "20250101T000000Z-aaaaaa", 2.5, 2}}
	if _, err := w.Write(old); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "20250101T000000Z-aaaaaa.parquet"), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		rows := collect[LatencyRow](t, Predicate{Execution: "20250101T000000Z-aaaaaa"}, dir)
		if len(rows) != 2 || rows[1].LatencyS != 2.5 || rows[1].Iteration != 2 || rows[0].Sweep != "nightly" {
			t.Errorf("%s: %+v", when, rows)
		}
	}
	check("as it was written")
	if _, err := s.Compact(); err != nil {
		t.Fatal(err)
	}
	check("after compact")
	err := s.openTable("tables/latencies/month=2025-01/20250101T000000Z-aaaaaa.parquet", func(f *table.File) error {
		if !f.SameColumns(reflect.TypeFor[LatencyRow](), nil) {
			t.Error("compact left the old columns")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPredicates(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	for n := range 2 {
		runs := night(n)
		for i, r := range runs {
			r.sweep = []string{"nightly", "other"}[i%2]
		}
		write(t, s, runs)
		finish(t, s, runs[0].execution)
	}
	for _, compacted := range []bool{false, true} {
		if compacted {
			if _, err := s.Compact(); err != nil {
				t.Fatal(err)
			}
		}
		for where, want := range map[Predicate]int{
			{}: 16, {Execution: night(1)[0].execution}: 8, {Sweep: "other"}: 8, {Model: "Qwen/Qwen3-8B"}: 8,
			{Model: "Qwen/Qwen3-8B", Sweep: "nightly", Execution: night(0)[0].execution}: 2,
			{Model: "Qwen/Qwen3-8"}: 0, {Sweep: "nightlyy"}: 0, {Execution: "2026"}: 0, {RunID: "x"}: 0,
		} {
			if got := len(collect[RunRow](t, where, dir)); got != want {
				t.Errorf("compacted %v: %+v gives %d runs, expected %d", compacted, where, got, want)
			}
			if got := len(collect[BreakdownRow](t, where, dir)); got != want*9 {
				t.Errorf("compacted %v: %+v gives %d parts, expected %d", compacted, where, got, want*9)
			}
		}
	}
}

func TestRebuildAndReplace(t *testing.T) {
	dir := soundFolder(t)
	s := openStore(t, dir)
	before := collect[RunRow](t, Predicate{}, dir)
	files, err := s.tableFiles(TableTimelines)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	name := filepath.Join(dir, tablesDir, files[0])
	if err := os.Truncate(name, 5000); err != nil {
		t.Fatal(err)
	}
	report, err := s.Rebuild()
	if err != nil {
		t.Fatal(err)
	}
	if len(report.SetAside) != 1 || len(report.Published) != 2 {
		t.Errorf("%+v", report)
	}
	if faults := faultsOf(t, s); len(faults) > 0 {
		t.Errorf("faults:\n%s", strings.Join(faults, "\n"))
	}
	if diff := cmp.Diff(before, collect[RunRow](t, Predicate{}, dir)); diff != "" {
		t.Errorf("rows (-before +after):\n%s", diff)
	}

	for rel, r := range s.Results(Predicate{RunID: before[5].RunID}) {
		r.Phases = r.Phases[:1]
		r.Run.OutcomeDetail = "read again"
		if err := s.Replace(rel, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Publish(before[5].Execution); err != nil {
		t.Fatal(err)
	}
	if faults := faultsOf(t, s); len(faults) > 0 {
		t.Errorf("faults after a replaced run:\n%s", strings.Join(faults, "\n"))
	}
	for _, row := range collect[RunRow](t, Predicate{}, dir) {
		if row.RunID == before[5].RunID && (row.OutcomeDetail == nil || *row.OutcomeDetail != "read again") {
			t.Errorf("the table does not say what was replaced: %v", row.OutcomeDetail)
		}
	}
	for _, row := range collect[TimelineRow](t, Predicate{RunID: before[5].RunID}, dir) {
		if row.Phase != nil && *row.Phase != string(runner.PhaseBaseline) {
			t.Fatalf("the timeline kept phase %s", *row.Phase)
		}
	}
}

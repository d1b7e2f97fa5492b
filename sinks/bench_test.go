package sinks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks/table"
)

// BenchmarkSample is the cost that keeping samples adds to a tick of 8 GPUs.
func BenchmarkSample(b *testing.B) {
	s := openStore(b, b.TempDir())
	run := &testRun{execution: "20261120T020000Z-000000", started: testStart, sweep: "s", model: "m", inputLen: 1, batch: 1, repeat: 1, gpus: 8, seconds: 1}
	sink, err := s.Begin(run.job(1))
	if err != nil {
		b.Fatal(err)
	}
	tick := run.samples()[:8]
	b.ReportAllocs()
	for b.Loop() {
		if err := sink.Samples(tick); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRun is all that a Store adds to a run of 30 s with one GPU, its place
// in tables/ included.
func BenchmarkRun(b *testing.B) {
	s := openStore(b, b.TempDir())
	run := &testRun{execution: "20261120T020000Z-000000", started: testStart, sweep: "s", model: "m", inputLen: 1, batch: 1, gpus: 1, seconds: 30}
	if err := s.BeginExecution(&Execution{ID: run.execution, StartedAt: run.started}); err != nil {
		b.Fatal(err)
	}
	samples := run.samples()
	for b.Loop() {
		run.repeat++
		sink, err := s.Begin(run.job(1))
		if err != nil {
			b.Fatal(err)
		}
		if err := sink.Samples(samples); err != nil {
			b.Fatal(err)
		}
		if err := sink.Finish(run.result()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(samples)), "samples/run")
}

// benchSource makes the timeline of columnar.md: runs of 16 GPUs, 625 ticks each.
func benchSource(rows int, yield func([]TimelineRow) error) error {
	const ticks, gpus = 625, 16
	rng := rand.New(rand.NewPCG(7, 7))
	result := (&testRun{execution: "20261120T020000Z-000000", started: testStart, sweep: "bench", model: "meta-llama/Llama-3.1-8B", gpus: gpus, seconds: 60}).result()
	w := newTimelineWriter(result, nil)
	for run := 0; rows > 0; run++ {
		result.Run.RunID = "20261120T020000Z-000000-bench-" + string(rune('a'+run/676%26)) + string(rune('a'+run/26%26)) + string(rune('a'+run%26)) + "-r1"
		w.key = keyOf(result)
		for gpu := range gpus {
			used, energy := int64(600*mib), 1e6*rng.Float64()
			w.phases, w.at, w.last = phasesOf(result, int32(gpu)), 0, 0
			for tick := range ticks {
				if rng.IntN(20) == 0 {
					used = min(79<<30, used+int64(rng.IntN(512))*2*mib)
				}
				power := 70 + 600*rng.Float64()
				energy += power / 10
				offset := time.Duration(tick)*100*time.Millisecond + time.Duration(rng.IntN(500))*time.Microsecond
				s := runner.Sample{TS: testStart.Add(offset), Offset: offset, Read: time.Duration(100+rng.IntN(200)) * time.Microsecond, GPU: int32(gpu), Source: "nvml",
					MemoryUsed: used, MemoryReserved: 500 * mib, MemoryTotal: 80 << 30, Power: float64(int(power*1000)) / 1000, Temperature: float64(40 + int(power/20)),
					MemoryTemp: float64(45 + int(power/20)), Energy: float64(int(energy*1000)) / 1000, Utilization: int32(rng.IntN(101)), MemoryUtil: int32(rng.IntN(60)),
					ClockSM: int32(1200 + 15*rng.IntN(52)), ClockMem: 2619, ProcessMemory: used - 500*mib,
					Has: ^runner.Fields(0) &^ (runner.HasHostRSS | runner.HasHostPSS | runner.HasHostCPU)}
				w.row(&s)
				if rows--; rows == 0 || len(w.rows) == timelineChunk {
					if err := yield(w.rows); err != nil || rows == 0 {
						return err
					}
					w.rows = w.rows[:0]
				}
			}
		}
		if err := yield(w.rows); err != nil {
			return err
		}
		w.rows = w.rows[:0]
	}
	return nil
}

// BenchmarkTimelineWrite writes 10 M rows and, where Python has duckdb, lets
// DuckDB copy the same rows (zstd 3, PARQUET_VERSION v1, one thread). Time is that of the
// writer alone, without making the rows. VRAMSWEEP_BENCH_ROWS changes the number.
func BenchmarkTimelineWrite(b *testing.B) {
	rows := 10_000_000
	if n, err := strconv.Atoi(os.Getenv("VRAMSWEEP_BENCH_ROWS")); err == nil {
		rows = n
	}
	name := filepath.Join(b.TempDir(), "timeline.parquet")
	var bytes int64
	var wall, cpu time.Duration
	for b.Loop() {
		file, err := os.Create(name)
		if err != nil {
			b.Fatal(err)
		}
		sum := new(countingWriter)
		w := tableOf[TimelineRow]().writer(io.MultiWriter(file, sum), "bench", nil, nil)
		wall, cpu = 0, 0
		err = benchSource(rows, func(r []TimelineRow) error {
			start, cpuStart := time.Now(), cpuTime(b)
			err := errors.Join(w.Write(r), w.EndRun())
			wall, cpu = wall+time.Since(start), cpu+cpuTime(b)-cpuStart
			return err
		})
		start, cpuStart := time.Now(), cpuTime(b)
		err = errors.Join(err, w.Close(), file.Close())
		wall, cpu = wall+time.Since(start), cpu+cpuTime(b)-cpuStart
		if err != nil {
			b.Fatal(err)
		}
		bytes = int64(*sum)
	}
	b.ReportMetric(float64(rows)/wall.Seconds(), "rows/s")
	b.ReportMetric(float64(rows)/cpu.Seconds(), "rows/cpu-s")
	b.ReportMetric(float64(bytes)/float64(rows), "B/row")
	b.ReportMetric(float64(peakRSS(b))/(1<<20), "peak-MiB")
	againstDuckDB(b, name, rows, bytes)
}

// BenchmarkTimelineRead opens a file of 1 M rows and reads it, all of it and one
// run of it. VRAMSWEEP_BENCH_ROWS changes the number.
func BenchmarkTimelineRead(b *testing.B) {
	rows := 1_000_000
	if n, err := strconv.Atoi(os.Getenv("VRAMSWEEP_BENCH_ROWS")); err == nil {
		rows = n
	}
	var file bytes.Buffer
	w := tableOf[TimelineRow]().writer(&file, "bench", nil, nil)
	run := ""
	err := benchSource(rows, func(r []TimelineRow) error {
		run = r[0].RunID
		return errors.Join(w.Write(r), w.EndRun())
	})
	if err := errors.Join(err, w.Close()); err != nil {
		b.Fatal(err)
	}
	name := filepath.Join(b.TempDir(), "timeline.parquet")
	if err := os.WriteFile(name, file.Bytes(), 0o644); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		where Predicate
	}{{"all", Predicate{}}, {"run", Predicate{RunID: run}}} {
		b.Run(c.name, func(b *testing.B) {
			start, read := cpuTime(b), 0
			for b.Loop() {
				read += readBench(b, name, c.where)
			}
			b.ReportMetric(float64((cpuTime(b)-start).Microseconds())/1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(read)/float64(b.N), "rows/op")
		})
	}
}

func readBench(b *testing.B, name string, where Predicate) (rows int) {
	in, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		b.Fatal(err)
	}
	f, err := table.Open(in, info.Size())
	if err == nil {
		err = tableOf[TimelineRow]().read(f, where, func(part []TimelineRow) error { rows += len(part); return nil })
	}
	if err != nil {
		b.Fatal(err)
	}
	return rows
}

func againstDuckDB(b *testing.B, name string, rows int, bytes int64) {
	interpreter := os.Getenv("VRAMSWEEP_TEST_PYTHON")
	if interpreter == "" {
		interpreter = "python3"
	}
	out, err := exec.Command(interpreter, "testdata/duckdb_copy.py", name, name+".duckdb").Output()
	if err != nil {
		b.Logf("without DuckDB beside it: %v", err)
		return
	}
	var duck struct {
		Wall  float64 `json:"wall_s"`
		CPU   float64 `json:"cpu_s"`
		Bytes int64   `json:"bytes"`
	}
	if err := json.Unmarshal(out, &duck); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(rows)/duck.Wall, "duckdb-rows/s")
	b.ReportMetric(float64(rows)/duck.CPU, "duckdb-rows/cpu-s")
	b.ReportMetric(float64(bytes)/float64(duck.Bytes), "size/duckdb-size")
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakRSS is the most memory that this process has had.
func peakRSS(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Maxrss << 10
}

// BenchmarkPublish is the end of an execution: its runs become tables.
func BenchmarkPublish(b *testing.B) {
	dir := b.TempDir()
	s := openStore(b, dir)
	var runs []*testRun
	for i := range 20 {
		runs = append(runs, &testRun{execution: "20261120T020000Z-000000", started: testStart, sweep: "s", model: "m", inputLen: int64(i + 1), batch: 1, repeat: 1, gpus: 8, seconds: 300})
	}
	write(b, s, runs)
	rows := 0
	for _, r := range runs {
		rows += len(r.samples())
	}
	for b.Loop() {
		if err := s.Publish(runs[0].execution); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "samples/s")
	b.ReportMetric(float64(peakRSS(b))/(1<<20), "peak-MiB")
}

// BenchmarkYear grows a folder night by night, as a year of nightly sweeps
// does, and says at each quarter what it has: files, bytes, and what CPU time the usual
// questions take, here and in DuckDB, before and after compact. VRAMSWEEP_BENCH_NIGHTS, _RUNS and
// _SECONDS change the size; the default is 1 % of 365 nights x 400 runs x 3,000 samples x
// 8 GPUs: 35 M rows of timelines, 1.5 GB on the disk.
func BenchmarkYear(b *testing.B) {
	env := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv("VRAMSWEEP_BENCH_" + name)); err == nil {
			return n
		}
		return otherwise
	}
	nights, perNight, seconds := env("NIGHTS", 365), env("RUNS", 4), env("SECONDS", 300)
	for b.Loop() {
		dir := b.TempDir()
		s := openStore(b, dir)
		for n := range nights {
			start := testStart.AddDate(0, 0, n-nights)
			var runs []*testRun
			for i := range perNight {
				runs = append(runs, &testRun{execution: start.Format("20060102T150405Z") + "-aaaaaa", started: start, sweep: "nightly",
					model: []string{"meta-llama/Llama-3.1-8B", "Qwen/Qwen3-8B"}[i%2], inputLen: int64(512 + n%7*perNight + i), batch: 8, repeat: 1, gpus: 8, seconds: seconds})
			}
			write(b, s, runs)
			finish(b, s, runs[0].execution)
			if (n+1)%max(1, nights/4) == 0 {
				quarter(b, s, n+1, runs[perNight/2].job(1).RunID)
			}
		}
		if faults, err := s.Verify(); err != nil || len(faults) > 0 {
			b.Fatal(err, faults)
		}
	}
}

// quarter reports what the folder has after some nights.
func quarter(b *testing.B, s *Store, nights int, run string) {
	dir := s.Dir()
	before, duckBefore := usualQuestion(b, dir), usualInDuckDB(b, dir, run)
	start := cpuTime(b)
	report, err := s.Compact()
	if err != nil {
		b.Fatal(err)
	}
	took := cpuTime(b) - start
	files, bytes := 0, int64(0)
	if err := filepath.Walk(filepath.Join(dir, tablesDir), func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			files, bytes = files+1, bytes+info.Size()
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.Logf("%4d nights: %3d files, %6.1f MiB, %9d rows, %4.1f B/row; compact %.1f CPU s; a model's peaks and one run %5.1f ms, before compact %5.1f; DuckDB %s, before compact %s",
		nights, files, float64(bytes)/(1<<20), report.Rows, float64(bytes)/float64(report.Rows), took.Seconds(), usualQuestion(b, dir), before, usualInDuckDB(b, dir, run), duckBefore)
}

// usualInDuckDB are its times in milliseconds, or why there are none.
func usualInDuckDB(b *testing.B, dir, run string) string {
	interpreter := os.Getenv("VRAMSWEEP_TEST_PYTHON")
	if interpreter == "" {
		interpreter = "python3"
	}
	cmd := exec.Command(interpreter, "testdata/usual_questions.py", dir, run)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var ms map[string]float64
	if err == nil {
		err = json.Unmarshal(out, &ms)
	}
	if err != nil {
		return err.Error() + lastLine([]byte(stderr.String()))
	}
	return fmt.Sprintf("peaks by model %.1f ms, one run %.1f, power by night %.1f", ms["peaks_by_model"], ms["one_run"], ms["power_by_night"])
}

// usualQuestion is: the peaks of a model over all nights, and one run's memory
// over time. Milliseconds of CPU, the best of three: other work on the machine does not
// change them.
func usualQuestion(b *testing.B, dir string) float64 {
	best := 1e18
	for range 3 {
		start := cpuTime(b)
		last := ""
		for row, err := range Read[RunRow](Predicate{Model: "Qwen/Qwen3-8B"}, dir) {
			if err != nil {
				b.Fatal(err)
			}
			last = row.RunID
		}
		rows := 0
		for _, err := range Read[TimelineRow](Predicate{RunID: last, Execution: last[:len("20060102T150405Z-aaaaaa")]}, dir) {
			if err != nil {
				b.Fatal(err)
			}
			rows++
		}
		if rows == 0 {
			b.Fatal("the run has no samples")
		}
		best = min(best, float64((cpuTime(b)-start).Microseconds())/1000)
	}
	return best
}

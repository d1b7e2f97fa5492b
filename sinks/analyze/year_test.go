package analyze_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner/recorded"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/compare"
	"github.com/vramsweep/vramsweep/sinks/analyze/correlate"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sinks/table"
)

// A year of nightly sweeps: 365 executions of 400 profiles. The rows are made
// after a measured one, all columns filled; memory has 30 MiB of noise, latency
// 1 %.
const yearProfiles = 400

var yearStart = time.Date(2026, 1, 1, 2, 0, 0, 0, time.UTC)

func yearExecution(night int) string {
	return fmt.Sprintf("%s-%06x", yearStart.AddDate(0, 0, night).Format("20060102T150405Z"), night)
}

// template is a measured run.
func template(tb testing.TB) sinks.RunRow {
	tb.Helper()
	for row, err := range sinks.Read[sinks.RunRow](sinks.Predicate{}, filepath.Join(recorded.Folder(tb, "h100x2-v0.26"), "tp1-llama-3.1-8b")) {
		if err != nil {
			tb.Fatal(err)
		}
		if row.Outcome == "ok" {
			return row
		}
	}
	tb.Fatal("no measured run")
	return sinks.RunRow{}
}

func yearNight(like sinks.RunRow, night int) []sinks.RunRow {
	random := rand.New(rand.NewPCG(uint64(night), 17))
	execution, started := yearExecution(night), yearStart.AddDate(0, 0, night)
	rows := make([]sinks.RunRow, yearProfiles)
	for p := range rows {
		row := like
		row.ProfileID = fmt.Sprintf("%016x", p*7919)
		row.Execution, row.Sweep, row.Model = execution, "nightly", fmt.Sprintf("org/model-%d", p%8)
		row.RunID = execution + "-nightly-" + row.ProfileID + "-r1"
		row.HFModelID, row.Axes = row.Model, nil
		at := started.Add(time.Duration(p) * time.Minute).UTC()
		row.StartedAt = &at
		batch, length := int64(1)<<(p/8%10), int64(256)<<(p/80)
		params := int64(p%8+1) * 1e9
		row.BatchSize, row.InputLen, row.Params = batch, length, &params
		noise := func(mean int64) *int64 { v := mean + int64(random.NormFloat64()*30*frame.MiB); return &v }
		weights := 2 * params
		row.ModelWeightsBytes, row.PeakMemoryBytes = noise(weights), noise(74*frame.GiB+batch*frame.MiB)
		row.NetIncreaseBytes, row.KVCacheBytes = noise(73*frame.GiB), noise(72*frame.GiB-weights)
		row.ActivationsReservedBytes, row.CUDAGraphsBytes, row.NonTorchBytes = noise(length*batch*4096), noise(frame.GiB), noise(frame.GiB/4)
		row.ContextBytes, row.GrowthExcessBytes, row.FrameworkOverheadBytes = noise(frame.GiB/2), noise(batch*frame.MiB), noise(0)
		row.BeyondBudgetGrossBytes = noise(frame.GiB)
		tokens := *row.KVCacheBytes / 131072
		row.KVCacheTokens = &tokens
		latency, power := 0.01*float64(batch)*(1+0.01*random.NormFloat64()), 600*(1+0.01*random.NormFloat64())
		rate, energy := float64(batch)*32/latency, power*latency*10
		row.AvgLatencyS, row.OutputTokensPerS, row.MeasureMeanPowerW, row.MeasureEnergyJ = &latency, &rate, &power, &energy
		rows[p] = row
	}
	return rows
}

// buildYear writes the tables of nights, a file a night or, compacted, a month.
func buildYear(tb testing.TB, dir string, nights int, compacted bool) {
	tb.Helper()
	like := template(tb)
	for night := 0; night < nights; {
		month := yearStart.AddDate(0, 0, night).Format("2006-01")
		first := night
		last := first + 1
		for compacted && last < nights && yearStart.AddDate(0, 0, last).Format("2006-01") == month {
			last++
		}
		var marks []sinks.Mark
		for n := first; n < last; n++ {
			marks = append(marks, sinks.Mark{Execution: yearExecution(n), Final: true})
		}
		folder := filepath.Join(dir, "tables/runs/month="+month)
		err := os.MkdirAll(folder, 0o755)
		file, ferr := os.Create(filepath.Join(folder, yearExecution(first)+".parquet"))
		if err := errors.Join(err, ferr); err != nil {
			tb.Fatal(err)
		}
		w := table.NewWriter[sinks.RunRow](file, table.Options{Table: "runs", Version: "bench", Sorted: []string{"run_id"}, Marks: marks}, nil)
		for n := first; n < last && err == nil; n++ {
			err = w.Write(yearNight(like, n))
		}
		if err := errors.Join(err, w.Close(), file.Close()); err != nil {
			tb.Fatal(err)
		}
		night = last
	}
}

func yearNights() int {
	if n, err := strconv.Atoi(os.Getenv("VRAMSWEEP_BENCH_NIGHTS")); err == nil {
		return n
	}
	return 365
}

// VRAMSWEEP_BENCH_YEAR keeps the tables in a folder, for the program itself.
func yearDir(b *testing.B, compacted bool) string {
	name := map[bool]string{true: "compacted", false: "nightly"}[compacted]
	if keep := os.Getenv("VRAMSWEEP_BENCH_YEAR"); keep != "" {
		dir := filepath.Join(keep, name)
		if _, err := os.Stat(dir); err != nil {
			buildYear(b, dir, yearNights(), compacted)
		}
		return dir
	}
	dir := filepath.Join(b.TempDir(), name)
	buildYear(b, dir, yearNights(), compacted)
	return dir
}

func readRuns(where sinks.Predicate, dir string) (rows []sinks.RunRow, err error) {
	for row, err := range sinks.Read[sinks.RunRow](where, dir) {
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// BenchmarkCompareYear compares the last two executions of a year of tables.
func BenchmarkCompareYear(b *testing.B) {
	for _, compacted := range []bool{true, false} {
		b.Run(fmt.Sprintf("compacted=%v", compacted), func(b *testing.B) {
			dir := yearDir(b, compacted)
			last := yearNights() - 1
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				base, err := readRuns(sinks.Predicate{Execution: yearExecution(last - 1)}, dir)
				if err != nil {
					b.Fatal(err)
				}
				fresh, err := readRuns(sinks.Predicate{Execution: yearExecution(last)}, dir)
				if err != nil {
					b.Fatal(err)
				}
				c, err := compare.Run("a", base, "b", fresh, compare.Options{})
				if err != nil {
					b.Fatal(err)
				}
				if c.Matched != yearProfiles {
					b.Fatalf("%d profiles matched", c.Matched)
				}
			}
		})
	}
}

// BenchmarkCorrelateYear relates all settings with all figures of a year.
func BenchmarkCorrelateYear(b *testing.B) {
	for _, compacted := range []bool{true, false} {
		b.Run(fmt.Sprintf("compacted=%v", compacted), func(b *testing.B) {
			dir := yearDir(b, compacted)
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				correlator := correlate.New(correlate.Options{})
				for row, err := range sinks.Read[sinks.RunRow](sinks.Predicate{}, dir) {
					if err != nil {
						b.Fatal(err)
					}
					correlator.Add(&row)
				}
				if _, err := correlator.Report(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

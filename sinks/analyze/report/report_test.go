package report

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner/recorded"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/compare"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

// night makes an execution of n profiles with repeats: 30 MiB of noise on
// memory, 1 % on latency. Profiles in plant use 200 MiB more.
func night(execution string, n, repeats int, seed uint64, plant ...int) []sinks.RunRow {
	random := rand.New(rand.NewPCG(seed, 1))
	var rows []sinks.RunRow
	for p := range n {
		for r := range repeats {
			noise := func(base int64) *int64 { v := base + int64(random.NormFloat64()*30*frame.MiB); return &v }
			extra := int64(0)
			for _, planted := range plant {
				if planted == p {
					extra = 200 * frame.MiB
				}
			}
			gib := int64(frame.GiB)
			latency := 0.3 * (1 + 0.01*random.NormFloat64())
			rate, power, energy := 8*32/latency, 600*(1+0.01*random.NormFloat64()), 180*(1+0.01*random.NormFloat64())
			tokens := int64(457504)
			batch := int64(p + 1)
			row := sinks.RunRow{ProfileID: fmt.Sprintf("p%03d", p), Repeat: int32(r + 1), Outcome: "ok",
				PeakMemoryBytes: noise(74*gib + extra), NetIncreaseBytes: noise(74*gib + extra),
				ModelWeightsBytes: noise(15 * gib), KVCacheBytes: noise(56 * gib), ActivationsReservedBytes: noise(2 * gib),
				CUDAGraphsBytes: noise(gib), NonTorchBytes: noise(gib / 4), ContextBytes: noise(gib / 2),
				GrowthExcessBytes: noise(0), FrameworkOverheadBytes: noise(gib / 10), BeyondBudgetGrossBytes: noise(gib + extra),
				KVCacheTokens: &tokens, AvgLatencyS: &latency, OutputTokensPerS: &rate, MeasureMeanPowerW: &power, MeasureEnergyJ: &energy}
			row.Key = sinks.Key{RunID: fmt.Sprintf("%s/p%03d-r%d", execution, p, r), Execution: execution, Sweep: "s", Model: "m",
				Synthetic: true}
			row.BatchSize = batch
			rows = append(rows, row)
		}
	}
	return rows
}

func gather(rows []sinks.TimelineRow, limit int) *gathering {
	g := &gathering{limit: limit}
	for i := range rows {
		g.add(&rows[i])
	}
	return g
}

func TestThinKeepsPeaks(t *testing.T) {
	rows := make([]sinks.TimelineRow, 30000)
	for i := range rows {
		used := int64(1000 + i%7)
		power := 100 + float64(i%5)
		phase := "load"
		if i >= 777 {
			phase = "measure"
		}
		rows[i] = sinks.TimelineRow{TOffsetUS: int64(i) * 10000, MemoryUsedBytes: &used, PowerW: &power, Phase: &phase}
	}
	*rows[12345].MemoryUsedBytes, *rows[12346].MemoryUsedBytes = 9999, 1
	*rows[4321].PowerW = 700
	g := gather(rows, 400)
	if len(g.points) > len(rows)/2+5000 || g.samples != len(rows) {
		t.Errorf("%d of %d samples are held while %d are read", len(g.points), g.samples, len(rows))
	}
	got := thin(g.points, 400)
	if len(got) > 410 {
		t.Errorf("%d samples are left of 20000, about 400 were asked", len(got))
	}
	high, low, power := 0.0, math.Inf(1), 0.0
	phaseStart := false
	for i := range got {
		high, low, power = max(high, got[i].memory), min(low, got[i].memory), max(power, got[i].power)
		phaseStart = phaseStart || got[i].at == 7770000
		if i > 0 && got[i].at <= got[i-1].at {
			t.Fatalf("sample %d is out of order", i)
		}
	}
	if high != 9999 || low != 1 || power != 700 || !phaseStart {
		t.Errorf("highest %g (9999), lowest %g (1), power %v (700), start of the phase kept: %v", high, low, power, phaseStart)
	}
	if got[0].at != 0 || got[len(got)-1].at != rows[len(rows)-1].TOffsetUS {
		t.Error("the first or the last sample is gone")
	}
}

// sample is a report without a folder: two runs, one of which failed with a
// log line that would end a script block if it were not escaped.
func sampleReport() *Report {
	rows := night("a", 3, 2, 1)
	line := `</script><img src=x onerror="alert(1)"> CUDA out of memory`
	rows[4].Outcome, rows[4].ErrorLine = "oom", &line
	r := &Report{Title: "nightly <b>", Steps: driverSteps(), Parts: Components(), Synthetic: true, Executions: []string{"a"}, Folders: []string{"x"},
		Timelines: map[string][]*Series{}, Phases: map[string][]PhaseBar{}}
	r.addRuns(rows)
	r.Runs[0].Parts = map[string]float64{"weights": 15360, "kv_cache": 50000, "framework_overhead": -12}
	r.Runs[0].Steps = map[string]float64{"load": 15400, "kv_alloc": 50050}
	budget := 70000.0
	r.Runs[0].Budget = &budget
	r.Timelines[r.Runs[0].ID] = []*Series{{T: []float64{0, 1, 2}, Memory: []*float64{&budget, nil, &budget}, Power: []*float64{nil, &budget, nil}, Samples: 3}}
	r.Phases[r.Runs[0].ID] = []PhaseBar{{Phase: "load", From: 0, To: 1}, {Phase: "measure", From: 1, To: 2}}
	return r
}

func TestReportHTML(t *testing.T) {
	r := sampleReport()
	var out bytes.Buffer
	if err := r.HTML(&out); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	if strings.Contains(page, "<img src=x") || strings.Contains(page, "<title>nightly <b>") {
		t.Error("text of a log stands in the page unescaped")
	}
	for _, request := range []string{`src="http`, `href="http`, "@import", "fetch("} {
		if strings.Contains(page, request) {
			t.Errorf("the page asks for something outside: %s", request)
		}
	}
	if !strings.Contains(page, "Leon Sorokin") {
		t.Error("the licence of the chart library is missing")
	}
	_, data, _ := strings.Cut(page, `type="application/json">`)
	data, _, _ = strings.Cut(data, "</script>")
	var back Report
	if err := json.Unmarshal([]byte(data), &back); err != nil {
		t.Fatalf("the data block: %v", err)
	}
	for i, run := range back.Runs {
		if run.Figures["peak_memory_bytes"] != r.Runs[i].Figures["peak_memory_bytes"] {
			t.Errorf("%s: peak %v, want %v", run.ID, run.Figures["peak_memory_bytes"], r.Runs[i].Figures["peak_memory_bytes"])
		}
	}
}

// inBrowser gives the page as a browser has built it, and fails on anything that
// its console says.
func inBrowser(t *testing.T, r *Report) func(hash string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a browser")
	}
	browser, err := exec.LookPath("chromium")
	if err != nil {
		testenv.Skip(t, "no chromium: %v", err)
	}
	page := filepath.Join(t.TempDir(), "report.html")
	file, err := os.Create(page)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.HTML(file), file.Close()); err != nil {
		t.Fatal(err)
	}
	return func(hash string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		var console bytes.Buffer
		cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--user-data-dir="+t.TempDir(), "--dump-dom", "file://"+page+hash)
		cmd.Stderr = &console
		out, err := cmd.Output()
		if err != nil {
			testenv.Skip(t, "chromium does not run here: %v", err)
		}
		for _, line := range strings.Split(console.String(), "\n") {
			if strings.Contains(line, "CONSOLE") {
				t.Errorf("the console says: %s", line)
			}
		}
		return string(out)
	}
}

// The script runs without an error, draws all sections, and a filter in the
// address works: in a real browser, where there is one.
func TestReportInBrowser(t *testing.T) {
	r := sampleReport()
	r.Comparison = &compare.Comparison{Base: compare.Side{Name: "before"}, New: compare.Side{Name: "after"},
		Regressions: []compare.Change{{Figure: "peak_memory_bytes", Unit: frame.UnitBytes, Base: 10 * frame.GiB, New: 12 * frame.GiB, Difference: 2 * frame.GiB, Label: "m bs=1", BaseRuns: []string{"x1"}, NewRuns: []string{"y1"}}}}
	dom := inBrowser(t, r)
	all := dom("")
	if !strings.Contains(all, `data-ready="1"`) || !strings.Contains(all, `<p id="errors" class="banner" hidden="">`) {
		t.Error("the script did not come to its end, or reported an error")
	}
	for _, want := range []string{`data-part="weights" data-gib="15"`, `data-part="kv_alloc" data-gib="48.876953125"`, "6 of 6 runs", "CUDA out of memory", "<canvas", "12.00 GiB", "x1"} {
		if !strings.Contains(all, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	if one := dom("#filter=outcome%3Doom"); !strings.Contains(one, "1 of 6 runs") || strings.Count(one, "<tr data-run=") != 1 {
		t.Error("the filter outcome=oom does not leave one run")
	}
}

// What a browser draws of measured tables are their numbers: each cell of the
// table of runs, each part and each step of the bars.
func TestReportDrawsTheTables(t *testing.T) {
	folder := filepath.Join(recorded.Folder(t, "h100x2-v0.26"), "tensor-parallel")
	r, err := Load([]string{folder}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	page := inBrowser(t, r)("")
	const rounding = 0.006 * 2 / 1024 // 0.01 MiB of each rank
	drawn := map[string]float64{}
	var run string
	for _, m := range regexp.MustCompile(`<tr data-run="([^"]*)"|data-figure="([^"]*)" data-v="([^"]*)"|aria-label="memory of ([^"]*)"|fill="url\(#p-([a-z_]+)\)" data-part="[a-z_]+" data-gib="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		name, value := m[2], m[3]
		switch {
		case m[1]+m[4] != "":
			run = m[1] + m[4]
			continue
		case m[5] != "":
			name, value = "bar "+m[5], m[6]
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s of %s: %v", name, run, err)
		}
		drawn[run+" "+name] += v
	}
	checked := 0
	same := func(key string, want float64) {
		t.Helper()
		checked++
		if got, ok := drawn[key]; !ok || math.Abs(got-want) > rounding*math.Max(1, math.Abs(want)*1e-6) {
			t.Errorf("%s: drawn %v, the table says %v", key, got, want)
		}
	}
	for row, err := range sinks.Read[sinks.RunRow](sinks.Predicate{}, folder) {
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frame.Figures() {
			if v := f.Number(&row); v != nil && f.Unit == frame.UnitBytes {
				same(row.RunID+" "+f.Name, *v/frame.GiB)
			} else if v != nil {
				same(row.RunID+" "+f.Name, *v)
			}
		}
	}
	// A part and a step of one name share the hatching, and are drawn in two bars.
	bars := map[string]float64{}
	for row, err := range sinks.Read[sinks.BreakdownRow](sinks.Predicate{}, folder) {
		if err == nil {
			bars[row.RunID+" part "+row.Component] += float64(row.Bytes) / frame.GiB
		}
	}
	for row, err := range sinks.Read[sinks.StepRow](sinks.Predicate{}, folder) {
		if err == nil && row.Bytes != nil && slices.Contains(driverSteps(), row.Step) {
			bars[row.RunID+" step "+row.Step] += float64(*row.Bytes) / frame.GiB
		}
	}
	want := map[string]float64{}
	for key, v := range bars {
		if v > 0 { // others are in the table behind the bars
			parts := strings.SplitN(key, " ", 3)
			want[parts[0]+" bar "+parts[2]] += v
		}
	}
	for key, v := range want {
		same(key, v)
	}
	if checked < 100 {
		t.Errorf("only %d numbers were compared", checked)
	}
}

func TestLoadReportRefusals(t *testing.T) {
	if _, err := Load([]string{filepath.Join(t.TempDir(), "none")}, Options{}); !errors.Is(err, frame.ErrNoRuns) {
		t.Errorf("a folder that is not there: %v, want frame.ErrNoRuns", err)
	}
}

// 400 profiles of 8 GPUs stay below 20 MB.
func TestReportSize(t *testing.T) {
	rows := night("a", 400, 1, 1)
	gpus := int32(8)
	for i := range rows {
		rows[i].GPUCount = &gpus
	}
	r := &Report{Title: "large", Steps: driverSteps(), Parts: Components(), Executions: []string{"a"}, Timelines: map[string][]*Series{}, Phases: map[string][]PhaseBar{}}
	r.addRuns(rows)
	samples := make([]sinks.TimelineRow, 600)
	for i := range samples {
		used, power := int64(70_000_000_000+i*7_654_321), 300+float64(i%97)*1.7
		samples[i] = sinks.TimelineRow{TOffsetUS: int64(i)*100_000 + int64(i%13)*777, MemoryUsedBytes: &used, PowerW: &power}
	}
	for i := range r.Runs {
		run := &r.Runs[i]
		for k, name := range append(Components(), driverSteps()...) {
			run.Parts[name], run.Steps[name] = float64(1000*k)+0.25, float64(1000*k)+0.75
		}
		for range gpus {
			r.Timelines[run.ID] = append(r.Timelines[run.ID], gather(samples, pointsFor(rows)).series(0))
		}
	}
	var out bytes.Buffer
	if err := r.HTML(&out); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 20_000_000 {
		t.Errorf("%d bytes with %d points a timeline; 20 MB is the most", out.Len(), pointsFor(rows))
	}
	if path := os.Getenv("LARGE_REPORT"); path != "" {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Runs on one GPU and on two are in no mean together, the first measure is of a GPU and
// without the KV cache, and a blind run is in no chart.
func TestMeansOfLikeRuns(t *testing.T) {
	rows := night("a", 2, 3, 1)
	for i := range rows {
		gpus := int32(1 + i%2)
		rows[i].TensorParallelSize, rows[i].GPUCount = int64(gpus), &gpus
		rows[i].BatchSize = int64(8 << (i / 3))
		rows[i].PeakMemoryBytes, rows[i].KVCacheBytes = new(int64(gpus)*70*frame.GiB), new(int64(gpus)*60*frame.GiB)
	}
	rows[5].Quality, rows[5].KVCacheBytes = new("blind"), new(int64(0))
	r := &Report{Title: "like", Steps: driverSteps(), Parts: Components(), Executions: []string{"a"}, Timelines: map[string][]*Series{}, Phases: map[string][]PhaseBar{}}
	r.addRuns(rows)
	page := inBrowser(t, r)("#filter=quality!%3Dnone")
	_, heat, _ := strings.Cut(page, `<table id="map">`)
	heat, _, _ = strings.Cut(heat, "</table>")
	for _, want := range []string{"m · tp 1", "m · tp 2", "use beside the KV cache, per GPU (GiB)"} {
		if !strings.Contains(heat, want) {
			t.Errorf("the heat map has no %q:\n%s", want, heat)
		}
	}
	if cells := strings.Count(heat, "10.00<small>"); cells != 4 || strings.Contains(heat, "±") {
		t.Errorf("%d cells of 10.00 GiB, expected 4 and no other:\n%s", cells, heat)
	}
	if !strings.Contains(page, `<option value="use_beside_kv_per_gpu">use beside`) {
		t.Error("the curve cannot draw the use beside the KV cache")
	}
}

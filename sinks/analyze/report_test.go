package analyze

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/sinks"
)

func TestThinKeepsPeaks(t *testing.T) {
	rows := make([]sinks.TimelineRow, 20000)
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
	got := thin(rows, 400)
	if len(got) > 410 {
		t.Errorf("%d samples are left of 20000, about 400 were asked", len(got))
	}
	high, low, power := int64(0), int64(math.MaxInt64), 0.0
	phaseStart := false
	for i := range got {
		high, low, power = max(high, *got[i].MemoryUsedBytes), min(low, *got[i].MemoryUsedBytes), max(power, *got[i].PowerW)
		phaseStart = phaseStart || got[i].TOffsetUS == 7770000
		if i > 0 && got[i].TOffsetUS <= got[i-1].TOffsetUS {
			t.Fatalf("sample %d is out of order", i)
		}
	}
	if high != 9999 || low != 1 || power != 700 || !phaseStart {
		t.Errorf("highest %d (9999), lowest %d (1), power %v (700), start of the phase kept: %v", high, low, power, phaseStart)
	}
	if got[0].TOffsetUS != 0 || got[len(got)-1].TOffsetUS != rows[len(rows)-1].TOffsetUS {
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

// The script runs without an error, draws all sections, and a filter in the
// address works: in a real browser, where there is one.
func TestReportInBrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil || testing.Short() {
		t.Skip("needs chromium, and not -short")
	}
	r := sampleReport()
	page := filepath.Join(t.TempDir(), "report.html")
	file, err := os.Create(page)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.HTML(file), file.Close()); err != nil {
		t.Fatal(err)
	}
	dom := func(hash string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(), "--dump-dom", "file://"+page+hash).Output()
		if err != nil {
			t.Skipf("chromium does not run here: %v", err)
		}
		return string(out)
	}
	all := dom("")
	if !strings.Contains(all, `data-ready="1"`) || !strings.Contains(all, `<p id="errors" class="banner" hidden="">`) {
		t.Error("the script did not come to its end, or reported an error")
	}
	for _, want := range []string{`data-part="weights" data-mib="15360"`, `data-part="kv_alloc" data-mib="50050"`, "6 of 6 runs", "CUDA out of memory", "<canvas"} {
		if !strings.Contains(all, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	if one := dom("#filter=outcome%3Doom"); !strings.Contains(one, "1 of 6 runs") {
		t.Error("the filter outcome=oom does not leave one run")
	}
}

func TestLoadReportRefusals(t *testing.T) {
	if _, err := LoadReport([]string{filepath.Join(t.TempDir(), "none")}, ReportOptions{}); !errors.Is(err, ErrNoRuns) {
		t.Errorf("a folder that is not there: %v, want ErrNoRuns", err)
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
	for _, run := range r.Runs {
		for range gpus {
			r.Timelines[run.ID] = append(r.Timelines[run.ID], seriesOf(samples, pointsFor(rows)))
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

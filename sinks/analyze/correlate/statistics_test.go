package correlate

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

var update = flag.Bool("update", false, "write golden files")

const statisticsGolden = "testdata/statistics.json"

// peculiar are 90 runs whose settings overlap: a number, a length and a word.
func peculiar() []sinks.RunRow {
	rows := grid(90)
	for i := range rows {
		dtype := []string{"bfloat16", "float16", "float32"}[(i*7+i/11)%3]
		more := *rows[i].PeakMemoryBytes + int64(len(dtype))*300*frame.MiB
		rows[i].Dtype, rows[i].PeakMemoryBytes = &dtype, &more
	}
	return rows
}

// statisticsInput is what Python gets.
type statisticsInput struct {
	Runs   []map[string]any `json:"runs"`
	Four   []float64        `json:"four"`
	Base   []float64        `json:"base"`
	New    []float64        `json:"new"`
	P      []float64        `json:"p"`
	Tokens []float64        `json:"tokens"`
	Cache  []float64        `json:"cache"`
	Models []map[string]any `json:"models"`
}

// opposed are two models whose peak falls with the batch; the one with the larger
// batches is the larger. Each profile ran three times.
func opposed() (rows []sinks.RunRow) {
	rng := rand.New(rand.NewPCG(4, 4))
	for i := range 12 {
		model := []string{"small", "large"}[i/6]
		batch := int64(8 + i%6 + 32*(i/6))
		for r := range 3 {
			peak := 10*frame.GiB + int64(i/6)*40*frame.GiB - batch*200*frame.MiB + rng.Int64N(50*frame.MiB)
			row := sinks.RunRow{ProfileID: fmt.Sprintf("p%d", i), Outcome: "ok", PeakMemoryBytes: &peak}
			row.Key, row.BatchSize = sinks.Key{RunID: fmt.Sprintf("r%d-%d", i, r), Sweep: "s", Model: model}, batch
			rows = append(rows, row)
		}
	}
	return rows
}

func statisticsOf(rows []sinks.RunRow) statisticsInput {
	in := statisticsInput{Four: []float64{1, 2.5, 7, 8}, Base: []float64{10, 11, 10.5}, New: []float64{12, 11.2, 13, 12.4},
		P: []float64{0.001, 0.2, 0.04, 0.03, 0.9, 0.041}, Tokens: []float64{100, 201, 305}, Cache: []float64{13.1, 26.2, 39.9}}
	each := opposed()
	for i := 0; i < len(each); i += 3 { // a profile is the mean of its runs
		mean := 0.0
		for _, r := range each[i : i+3] {
			mean += float64(*r.PeakMemoryBytes) / 3
		}
		in.Models = append(in.Models, map[string]any{"model": each[i].Model, "x": each[i].BatchSize, "y": mean})
	}
	for _, r := range rows {
		in.Runs = append(in.Runs, map[string]any{"x": r.BatchSize, "y": *r.PeakMemoryBytes, "length": r.InputLen, "dtype": *r.Dtype})
	}
	return in
}

// scipySays runs the script; nil where there is no such Python.
func scipySays(t *testing.T, in statisticsInput) map[string]float64 {
	t.Helper()
	python := os.Getenv("VRAMSWEEP_TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	if exec.CommandContext(t.Context(), python, "-c", "import scipy.stats, pandas, statsmodels.api; scipy.stats.false_discovery_control").Run() != nil {
		if os.Getenv("VRAMSWEEP_NO_SKIP") != "" {
			t.Fatalf("%s lacks scipy, pandas or statsmodels (VRAMSWEEP_TEST_PYTHON names another)", python)
		}
		return nil // the golden file decides
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/statistics.py")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(text), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(statisticsGolden, out, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var says map[string]float64
	if err := json.Unmarshal(out, &says); err != nil {
		t.Fatal(err)
	}
	return says
}

// Statistics equal those of scipy and pandas: of the golden file, which is held
// to them where Python has them.
func TestStatisticsEqualSciPy(t *testing.T) {
	rows := peculiar()
	in := statisticsOf(rows)
	says := scipySays(t, in)
	text, err := os.ReadFile(statisticsGolden)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]float64
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	for name, v := range says {
		if math.Abs(want[name]-v) > 1e-12*math.Max(1, math.Abs(v)) {
			t.Errorf("the golden file says %s = %v, scipy %v: run with -update", name, want[name], v)
		}
	}
	got := ours(t, rows, in)
	for name := range want { // those of package compare are held to the file there
		if slices.Contains(strings.Fields("t fdr"), strings.Fields(name)[0]) {
			delete(want, name)
		}
	}
	for name, v := range want {
		have, ok := got[name]
		if !ok || math.Abs(have-v) > 1e-9*math.Max(1, math.Abs(v)) {
			t.Errorf("%s: %v, scipy says %v", name, have, v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d figures, the golden file has %d", len(got), len(want))
	}
}

// ours are the same figures by this package.
func ours(t *testing.T, rows []sinks.RunRow, in statisticsInput) map[string]float64 {
	t.Helper()
	c, err := related(rows, Options{X: []string{"batch_size"}, Y: []string{"peak_memory_bytes"}})
	if err != nil {
		t.Fatal(err)
	}
	row := find(t, c, "batch_size", "peak_memory_bytes")
	got := map[string]float64{"pearson": *row.Pearson, "pearson pandas": *row.Pearson, "spearman": *row.Spearman, "spearman pandas": *row.Spearman,
		"slope": *row.Slope, "pearson low": *row.Low, "pearson high": *row.High, "partial statsmodels": *row.Partial,
		"slope low": *row.SlopeLow, "slope high": *row.SlopeHigh, "partial": *row.Partial, "outlier scales": farthest(in)}
	if c, err = related(opposed(), Options{X: []string{"batch_size"}, Y: []string{"peak_memory_bytes"}}); err != nil {
		t.Fatal(err)
	}
	row = find(t, c, "batch_size", "peak_memory_bytes")
	if row.N != 12 || row.Warning == "" || c.Runs != 36 {
		t.Errorf("two models that fall while the whole rises: n %d of 12 profiles, warning %q", row.N, row.Warning)
	}
	got["over all pearson"], got["within pearson"], got["within slope"] = *row.Pearson, row.Inside.Pearson, row.Inside.Slope
	got["within low"], got["within high"] = *row.Inside.SlopeLow, *row.Inside.SlopeHigh
	y := frame.Scaled("y", "", 1, "peak_memory_bytes")
	dtype := frame.Word("dtype", func(r *sinks.RunRow) string { return *r.Dtype })
	f := frame.New([]frame.Quantity{y}, []frame.Column{dtype})
	for i := range rows {
		f.Add(&rows[i])
	}
	groups := frame.GroupBy(f.All(), f.Word("dtype"), nil, f.Find("y"), nil)
	got["eta squared"] = *groups.Eta2
	for _, g := range groups.Groups {
		got["group "+g.Name+" mean"], got["group "+g.Name+" low"], got["group "+g.Name+" high"] = g.Mean, *g.Low, *g.High
	}
	for name, q := range map[string]float64{"quantile 0.25": 0.25, "quantile 0.5": 0.5, "quantile 0.75": 0.75} {
		got[name] = quantile(in.Four, q)
	}
	var origin Row
	origin.throughOrigin([]int{0, 1, 2}, &frame.Series{Values: in.Tokens}, &frame.Series{Values: in.Cache})
	got["origin slope"], got["origin low"], got["origin high"] = *origin.Slope, *origin.SlopeLow, *origin.SlopeHigh
	return got
}

// farthest makes one run an outlier by no change but a lower bar: it returns how
// far the farthest is from the line, in robust standard deviations.
func farthest(in statisticsInput) float64 {
	var xs, ys []float64
	var ids []string
	for _, r := range in.Runs {
		xs, ys, ids = append(xs, float64(r["x"].(int64))), append(ys, float64(r["y"].(int64))), append(ids, "")
	}
	residuals, scale := residualsOf(xs, ys)
	most := 0.0
	for i := range ids {
		most = math.Max(most, math.Abs(residuals[i]))
	}
	return most / scale
}

// Data that grow to 146,000 runs keep their figures: no sum of squares overflows
// or loses its digits.
func TestCorrelationOfLargeNumbers(t *testing.T) {
	rows := grid(3000)
	for i := range rows {
		v := int64(7e15) + 3*rows[i].BatchSize
		rows[i].PeakMemoryBytes = &v
	}
	c, err := related(rows, Options{X: []string{"batch_size"}, Y: []string{"peak_memory_bytes"}})
	if err != nil {
		t.Fatal(err)
	}
	if row := find(t, c, "batch_size", "peak_memory_bytes"); math.Abs(*row.Slope-3) > 1e-6 || math.Abs(*row.Pearson-1) > 1e-9 {
		t.Errorf("slope %v, Pearson %v of an exact line", *row.Slope, *row.Pearson)
	}
}

// Everything that was found stands in the flat table, with nulls for what is not.
func TestCorrelationTable(t *testing.T) {
	c, err := related(peculiar(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	median := 0.5
	c.Timelines = []Phase{{Phase: "load", X: "a", Y: "b", Median: &median}, {Phase: "measure", Reason: "nothing varies"}}
	columns, rows := c.Table()
	groups := 0
	for _, g := range c.Groups {
		groups += max(1, len(g.Groups))
	}
	if len(rows) != len(c.Rows)+groups+2 {
		t.Errorf("%d rows of %d correlations, %d groups and 2 timelines", len(rows), len(c.Rows), groups)
	}
	for _, row := range rows {
		if len(row) != len(columns) {
			t.Fatalf("%d cells, %d columns", len(row), len(columns))
		}
		for i, v := range row {
			if f, ok := v.(float64); ok && math.IsNaN(f) {
				t.Errorf("%s is NaN", columns[i])
			}
		}
	}
	path := t.TempDir() + "/c.parquet"
	if err := c.WriteParquet(path); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(text), "PAR1") {
		t.Errorf("no Parquet file: %v", err)
	}
}

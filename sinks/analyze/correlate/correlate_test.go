package correlate

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// grid makes runs whose activations follow batch and length by known slopes.
func grid(n int) []sinks.RunRow {
	rng := rand.New(rand.NewPCG(3, 9))
	rows := make([]sinks.RunRow, n)
	for i := range rows {
		batch, length := int64(1)<<rng.IntN(8), int64(128)<<rng.IntN(6)
		peak := 20*frame.GiB + 4*frame.MiB*batch + 8192*length + rng.Int64N(20*frame.MiB)
		tokens := 100000 + 1000*int64(i)
		kv := tokens * 131072
		per := int64(131072)
		used := batch * length * 131072
		params := int64(8e9)
		family := "llama"
		weights, net := int64(16e9), int64(16e9)+kv+2*frame.GiB
		r := &rows[i]
		r.Key = sinks.Key{RunID: "r" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)), Execution: "e", Sweep: "s", Model: "m"}
		r.Outcome, r.BatchSize, r.InputLen = "ok", batch, length
		r.PeakMemoryBytes, r.KVCacheTokens, r.KVCacheBytes, r.KVTokenBytes, r.KVCacheUsedBytes = &peak, &tokens, &kv, &per, &used
		r.Params, r.Family, r.ModelWeightsBytes, r.NetIncreaseBytes = &params, &family, &weights, &net
	}
	return rows
}

// related relates rows at once.
func related(rows []sinks.RunRow, o Options) (*Report, error) {
	c := New(o)
	for i := range rows {
		c.Add(&rows[i])
	}
	return c.Report()
}

func find(t *testing.T, c *Report, x, y string) Row {
	t.Helper()
	for _, row := range c.Rows {
		if row.X == x && row.Y == y {
			return row
		}
	}
	t.Fatalf("no row %s against %s", y, x)
	return Row{}
}

func TestCorrelateKnownSlopes(t *testing.T) {
	rows := grid(200)
	far := *rows[17].PeakMemoryBytes + 30*frame.GiB
	rows[17].PeakMemoryBytes = &far
	c, err := related(rows, Options{})
	if err != nil {
		t.Fatal(err)
	}
	row := find(t, c, "batch_size", "peak_memory_bytes")
	if len(row.Outliers) == 0 || row.Outliers[0].RunID != rows[17].RunID {
		t.Errorf("the run with 30 GiB more is not named: %+v", row.Outliers)
	}
	c, err = related(grid(200), Options{})
	if err != nil {
		t.Fatal(err)
	}
	row = find(t, c, "batch_size", "peak_memory_bytes")
	if *row.SlopeLow > 4*frame.MiB || *row.SlopeHigh < 4*frame.MiB {
		t.Errorf("slope %v [%v, %v] does not hold 4 MiB a prompt", *row.Slope, *row.SlopeLow, *row.SlopeHigh)
	}
	if row.Partial == nil || *row.Partial < *row.Pearson-1e-9 {
		t.Errorf("partial %v: with the length taken out the batch explains more than before (%v)", row.Partial, *row.Pearson)
	}
	tokens := find(t, c, "kv_tokens", "kv_cache")
	if tokens.Expected == nil || math.Abs(*tokens.Slope / *tokens.Expected - 1) > 1e-6 {
		t.Errorf("GiB per 1,000 tokens: slope %v, the architecture says %v", *tokens.Slope, tokens.Expected)
	}
}

func TestCorrelateReasons(t *testing.T) {
	c, err := related(grid(1), Options{X: []string{"batch_size"}})
	if err != nil {
		t.Fatal(err)
	}
	if row := find(t, c, "batch_size", "peak_memory_bytes"); row.Pearson != nil || !strings.Contains(row.Reason, "one point alone") {
		t.Errorf("one run: %+v", row)
	}
	rows := grid(20)
	for i := range rows {
		rows[i].BatchSize = rows[0].BatchSize
	}
	c, err = related(rows, Options{X: []string{"batch_size"}})
	if err != nil {
		t.Fatal(err)
	}
	if row := find(t, c, "batch_size", "peak_memory_bytes"); row.Pearson != nil || !strings.Contains(row.Reason, "nothing varies") {
		t.Errorf("a constant: %+v", row)
	}
	var out bytes.Buffer
	if err := c.Text(&out); err != nil || strings.Contains(out.String(), "NaN") {
		t.Errorf("text: %v\n%s", err, out.String())
	}
	if _, err := json.Marshal(c); err != nil {
		t.Errorf("JSON: %v", err)
	}
	if _, err := related(nil, Options{}); !errors.Is(err, frame.ErrNoRuns) {
		t.Errorf("no runs: %v", err)
	}
	rows[3].Synthetic = true
	if _, err := related(rows, Options{}); !errors.Is(err, frame.ErrMixed) {
		t.Errorf("synthetic among measured: %v", err)
	}
	if _, err := related(grid(9), Options{X: []string{"bach_size"}}); err == nil || !strings.Contains(err.Error(), "bach_size") {
		t.Errorf("an unknown setting: %v", err)
	}
}

func TestRanksShareTies(t *testing.T) {
	got := ranks([]float64{30, 10, 20, 10, 20, 20})
	want := []float64{6, 1.5, 4, 1.5, 4, 4}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("ranks %v, want %v", got, want)
		}
	}
}

// Blind runs are no evidence; the report says how many and why.
func TestCorrelateBlindRuns(t *testing.T) {
	rows := grid(50)
	rows[3].Quality, rows[4].Quality = new("blind"), new("sparse")
	c, err := related(rows, Options{})
	if err != nil || c.Runs != 49 || c.Blind != 1 || c.Sparse != 1 || len(c.Notes) < 2 {
		t.Errorf("%v: %+v", err, c)
	}
	rows = rows[3:4]
	if _, err := related(rows, Options{}); !errors.Is(err, frame.ErrNoRuns) || !strings.Contains(err.Error(), "sample interval") {
		t.Errorf("blind runs alone: %v", err)
	}
}

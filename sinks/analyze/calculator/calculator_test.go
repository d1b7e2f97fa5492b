package calculator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/models"
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

func TestCheckCalculators(t *testing.T) {
	rows := grid(64) // weights 16e9 of 8e9 parameters, 2 GiB beside weights and KV cache
	c, err := ReadPredictions("mine.csv", strings.NewReader("model,batch_size,weights_bytes,total_gib\nm,,16e9,\nm,8,17.6e9,\n"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := Check(rows, append(Builtin(func(*sinks.RunRow) *models.Architecture { return nil }), c))
	if err != nil {
		t.Fatal(err)
	}
	plain := v.Calculators[0].Components[0]
	if plain.Component != "weights" || plain.N != 64 || math.Abs(plain.MeanAbs) > 1e-9 {
		t.Errorf("params x bytes on weights of 2 bytes a parameter: %+v", plain)
	}
	if own := v.Calculators[2]; len(own.Components) != 0 || len(own.Unclaimed) != 1 {
		t.Errorf("an unknown architecture is predicted all the same: %+v", own)
	}
	mine := v.Calculators[3].Components[0]
	if len(mine.Bends) == 0 || mine.Bends[0].Setting != "batch_size" || math.Abs(mine.Bends[0].Share-1) > 1e-9 || math.Abs(mine.Worst-0.1) > 1e-9 {
		t.Errorf("10 %% too much at batch 8 alone is not found: %+v", mine)
	}
	var out bytes.Buffer
	if err := v.Text(&out); err != nil || !strings.Contains(out.String(), "weights bends with batch_size") || strings.Contains(out.String(), "NaN") {
		t.Errorf("text: %v\n%s", err, out.String())
	}
	rows[0].Synthetic = true
	if _, err := Check(rows, nil); !errors.Is(err, frame.ErrMixed) {
		t.Errorf("mixed rows: %v", err)
	}
}

func TestReadPredictionsRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "empty",
		"model,weights_bytes\n":          "no rows",
		"model,wieghts_bytes\nm,5\n":     "wieghts_bytes",
		"weights_bytes\n5\n":             "which runs",
		"model\nm\n":                     "predicts nothing",
		"model,weights_gib\nm,many\n":    "no amount",
		"model,weights_gib\nm,-1\n":      "no amount",
		"model,weights_gib\nm,NaN\n":     "no amount",
		`[{"model":"m","weights_bytes":`: "unexpected",
		`[{"model":"m"}]`:                "predicts nothing",
		"model,weights_bytes\nm,5,6\n":   "fields",
	} {
		_, err := ReadPredictions("x", strings.NewReader(text))
		if !errors.Is(err, ErrPredictions) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
	c, err := ReadPredictions("x", strings.NewReader(`[{"model":"m","batch_size":8,"weights_gib":2,"kv_cache_bytes":null}]`))
	if err != nil {
		t.Fatal(err)
	}
	eight := int64(8)
	var row sinks.RunRow
	row.Model, row.BatchSize = "m", eight
	parts, reason := c.Predict(&row)
	if reason != "" || parts["weights"] != 2*frame.GiB || len(parts) != 1 {
		t.Errorf("parts %v (%s)", parts, reason)
	}
}

func FuzzReadPredictions(f *testing.F) {
	f.Add("model,weights_bytes\nm,5\n")
	f.Add(`[{"model":"m","weights_gib":2}]`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ReadPredictions("x", strings.NewReader(text))
		if err == nil {
			c.Predict(&sinks.RunRow{})
		}
	})
}

// A program is asked once a profile, and its faults name the profile.
func TestAsk(t *testing.T) {
	rows := grid(16) // four runs of each of four profiles
	for i := range rows {
		rows[i].ProfileID, rows[i].BatchSize, rows[i].InputLen = fmt.Sprintf("p%03d", i/4), int64(i/4+1), int64(0)
	}
	rows[0].Outcome = "oom"
	asked := map[string]int{}
	c, faults, err := Ask("mine", rows, func(question []byte) ([]byte, error) {
		var q Question
		if err := json.Unmarshal(question, &q); err != nil {
			t.Fatal(err)
		}
		asked[q.ProfileID]++
		switch q.ProfileID {
		case "p001":
			return nil, errors.New("it ended with exit code 1")
		case "p002":
			return []byte(`{"reason": "no idea"}`), nil
		}
		return []byte(fmt.Sprintf(`{"weights_bytes": %v, "kv_cache_gib": 56, "total_gib": null}`, 2*q.Architecture["params"].(float64))), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for profile, n := range asked {
		if n != 1 {
			t.Errorf("%s was asked %d times", profile, n)
		}
	}
	if len(asked) != 4 || len(faults) != 1 || faults[0].Profile != "p001" || !strings.Contains(faults[0].Error(), "bs=2") || !strings.Contains(faults[0].Error(), "exit code 1") {
		t.Errorf("asked %v, faults %v", asked, faults)
	}
	v, err := Check(rows, []Predictor{c})
	if err != nil {
		t.Fatal(err)
	}
	got := v.Calculators[0]
	if len(got.Components) != 2 || got.Components[0].N != 7 || len(got.Unclaimed) != 2 {
		t.Errorf("two components of 7 runs, two reasons: %+v", got)
	}
	if _, _, err := Ask("mine", rows, func([]byte) ([]byte, error) { return nil, fmt.Errorf("%w: no such program", ErrStop) }); !errors.Is(err, ErrStop) {
		t.Errorf("a program that cannot be started: %v", err)
	}
}

func TestReadAnswerRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "printed nothing",
		"about 15 GB":                         "no JSON object",
		"[]":                                  "no JSON object",
		`{"weights_bytes": 5} {}`:             "behind the JSON object",
		`{"wieghts_bytes": 5}`:                "wieghts_bytes",
		`{"weights_bytes": "5"}`:              "no number",
		`{"weights_bytes": -5}`:               "no amount",
		`{"weights_bytes": 5, "reason": "x"}`: "stands alone",
		`{"reason": ""}`:                      "is a text",
		`{}`:                                  "predicts nothing",
		`{"weights_bytes": null}`:             "predicts nothing",
		`{"weights_bytes":5,"weights_gib":1}`: "in bytes and in GiB",
	} {
		if _, _, err := readAnswer([]byte(text)); !errors.Is(err, ErrAnswer) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want ErrAnswer with %q", text, err, want)
		}
	}
}

// What pandas and spreadsheets make of settings finds its runs.
func TestPredictionsAsPandasWritesThem(t *testing.T) {
	c, err := ReadPredictions("x", strings.NewReader("\ufeffmodel,batch_size,enforce_eager,weights_gib\nm,8.0,True,2\n"))
	if err != nil {
		t.Fatal(err)
	}
	eight, eager := int64(8), true
	var row sinks.RunRow
	row.Model, row.BatchSize, row.EnforceEager = "m", eight, &eager
	if parts, reason := c.Predict(&row); parts["weights"] != 2*frame.GiB {
		t.Errorf("parts %v (%s)", parts, reason)
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add(`{"weights_bytes": 5, "kv_cache_gib": 1.5}`)
	f.Add(`{"reason": "x"}`)
	f.Fuzz(func(t *testing.T, text string) {
		parts, reason, err := readAnswer([]byte(text))
		switch {
		case err != nil && !errors.Is(err, ErrAnswer):
			t.Errorf("%v is no ErrAnswer", err)
		case err == nil && (len(parts) == 0) == (reason == ""):
			t.Errorf("%q: parts %v, reason %q: one of them, and one alone", text, parts, reason)
		}
		for name, v := range parts {
			if !(v >= 0 && v < 1e18) {
				t.Errorf("%s = %v", name, v)
			}
		}
	})
}

package analyze

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep/models"
)

func TestCheckCalculators(t *testing.T) {
	rows := grid(64) // weights 16e9 of 8e9 parameters, 2 GiB beside weights and KV cache
	c, err := ReadPredictions("mine.csv", strings.NewReader("model,batch_size,weights_bytes,total_gib\nm,,16e9,\nm,8,17.6e9,\n"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := CheckCalculators(rows, append(BuiltinCalculators(func(*sinks.RunRow) *models.Architecture { return nil }), c))
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
	if _, err := CheckCalculators(rows, nil); !errors.Is(err, ErrMixed) {
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
	parts, reason := c.Predict(&sinks.RunRow{Key: sinks.Key{Model: "m"}, BatchSize: &eight})
	if reason != "" || parts["weights"] != 2*gib || len(parts) != 1 {
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

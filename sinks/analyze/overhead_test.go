package analyze

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/sinks"
)

// shaped makes runs of one model whose activations take 28 bytes per batched
// token and width, and whose graphs take 30 MiB a layer.
func shaped(model string, hidden, layers int64, n int) []sinks.RunRow {
	rows := make([]sinks.RunRow, n)
	gpu, version, runner, dtype, family := "H100", "0.26.0", "v2", "bfloat16", "f"
	for i := range rows {
		tokens := int64(8192) << (i % 2)
		activations := 28*tokens*hidden + int64(i)*mib
		graphs := 30 * mib * layers
		tp, vocab, cache := int64(1), int64(32000), "warm"
		rows[i] = sinks.RunRow{Key: sinks.Key{RunID: fmt.Sprintf("%s-%d", model, i), Execution: "e", Model: model}, Outcome: "ok", Family: &family,
			GPUName: &gpu, VLLMVersion: &version, ModelRunner: &runner, EffectiveDtype: &dtype, HiddenSize: &hidden, NumLayers: &layers, VocabSize: &vocab,
			TensorParallelSize: &tp, CompileCache: &cache, EffectiveMaxNumBatchedTokens: &tokens, ActivationsReservedBytes: &activations, CUDAGraphsBytes: &graphs}
	}
	return rows
}

func TestOverheadBuildPredictMerge(t *testing.T) {
	rows := append(shaped("a", 4096, 32, 6), shaped("b", 2048, 16, 6)...)
	db, err := BuildOverheads(rows)
	if err != nil {
		t.Fatal(err)
	}
	q := OverheadQuery{OverheadKey: OverheadKey{Model: "unseen", Family: "other", GPU: "H100", TP: 1, VLLM: "0.26.0", Runner: "v2", Compile: "warm"},
		Shape: Shape{HiddenSize: 8192, Layers: 80, Vocabulary: 32000}, BatchedTokens: 16384}
	parts := map[string]PredictedPart{}
	for _, p := range db.Predict(q) {
		parts[p.Component] = p
	}
	for component, want := range map[string]float64{"activations_reserved": 28 * 16384 * 8192, "cuda_graphs": 80 * 30 * mib} {
		p := parts[component]
		if p.Bytes == nil || math.Abs(*p.Bytes/want-1) > 0.03 || p.Models != 2 {
			t.Errorf("%s: %+v, want about %v from 2 models", component, p, want)
		}
	}
	if p := parts["context"]; p.Bytes != nil || p.Reason == "" {
		t.Errorf("context was not measured, yet: %+v", p)
	}
	q.Model = "a"
	if p := db.Predict(q)[0]; !strings.HasPrefix(p.Basis, "this model") || p.Runs != 6 {
		t.Errorf("a model of the database is not told by its own runs: %+v", p)
	}
	var text bytes.Buffer
	if err := db.Write(&text); err != nil {
		t.Fatal(err)
	}
	back, err := ReadOverheads(bytes.NewReader(text.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Merge(db); err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := errors.Join(back.Write(&again)); err != nil || again.String() != text.String() {
		t.Errorf("merged with itself it is another database (%v)", err)
	}
	v := db.Validate()
	if v.Models != 2 || len(v.Components) != 2 || *v.Components[0].Relative > 0.03 {
		t.Errorf("leave one model out: %+v", v)
	}
}

func TestOverheadRefusals(t *testing.T) {
	rows := shaped("a", 4096, 32, 2)
	rows[0].Outcome = "oom"
	rows[1].GPUName = nil
	if _, err := BuildOverheads(rows); !errors.Is(err, ErrNoRuns) || !strings.Contains(err.Error(), "gpu_name") {
		t.Errorf("nothing to build on: %v", err)
	}
	for _, text := range []string{"", "{}", `{"version":9}`, `{"version":1,"entries":[{"component":"x","observations":[{"units":0}]}]}`} {
		if _, err := ReadOverheads(strings.NewReader(text)); !errors.Is(err, ErrOverheads) {
			t.Errorf("%q: %v, want ErrOverheads", text, err)
		}
	}
	db, err := BuildOverheads(shaped("a", 4096, 32, 2))
	if err != nil {
		t.Fatal(err)
	}
	if v := db.Validate(); v.Reason == "" {
		t.Error("one model cannot be validated, yet no reason is given")
	}
	if err := db.Merge(&Overheads{Version: 1, Synthetic: true}); !errors.Is(err, ErrMixed) {
		t.Errorf("synthetic into measured: %v", err)
	}
}

func FuzzReadOverheads(f *testing.F) {
	f.Add(`{"version":1,"entries":[{"component":"context","observations":[{"run_id":"a","units":1,"bytes":5}]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		db, err := ReadOverheads(strings.NewReader(text))
		if err == nil {
			db.Predict(OverheadQuery{Shape: Shape{1, 1, 1}, BatchedTokens: 1})
		}
	})
}

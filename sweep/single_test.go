package sweep

import (
	"strings"
	"testing"
)

func TestSingle(t *testing.T) {
	plan, err := Single(SingleOptions{
		Settings: map[string]any{"model": "Qwen/Qwen3-0.6B", "input_len": int64(512), "dtype": "bfloat16"},
		Model:    map[string]int64{"num_layers": 4},
		Flags:    map[string]string{"seed": "3", "max_lora_rank": "16", "hf_overrides": `{"a": 1}`, "tokenizer": "x/y"},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := plan.Sweeps[0].Profiles[0]
	if p.Settings.InputLen != 512 || p.Settings.OutputLen != 128 ||
		p.Settings.HFModelID != "Qwen/Qwen3-0.6B" || len(p.ID) != 16 {
		t.Errorf("settings: %+v, id %q", p.Settings, p.ID)
	}
	if p.Model == nil || p.Model.NumLayers != 4 || p.Model.Source != "flags" {
		t.Errorf("model: %+v", p.Model)
	}
	want := []Flag{{"hf_overrides", `map`}, {"max_lora_rank", int64(16)}, {"seed", int64(3)}, {"tokenizer", "x/y"}}
	for i, f := range p.Engine.Flags {
		if _, isMap := f.Value.(map[string]any); f.Name != want[i].Name || !isMap && f.Value != want[i].Value {
			t.Errorf("flag %d is %v, want %v", i, f, want[i])
		}
	}
}

func TestSingleFaults(t *testing.T) {
	_, err := Single(SingleOptions{
		Settings: map[string]any{"model": "Qwen3-0.6", "input_len": int64(0), "max_model_len": int64(10)},
		Flags:    map[string]string{"output_json": "x"},
	})
	e, ok := asError(err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	codes := map[string]bool{}
	for _, d := range e.Diagnostics() {
		codes[d.Code] = true
	}
	for _, c := range []code{codeUnknownModel, codeValue, codeReserved} {
		if !codes[c.id()] {
			t.Errorf("no %s in:\n%v", c, err)
		}
	}
	_, err = Single(SingleOptions{Engine: "vlm", Flags: map[string]string{"a b": "1", "dtype": "x"}})
	if e, ok = asError(err); !ok || len(e.Diagnostics()) != 2 || !strings.Contains(err.Error(), codeFlagMissing.id()) {
		t.Errorf("got %v", err)
	}
	model := map[string]any{"model": "Qwen/Qwen3-0.6B"}
	_, err = Single(SingleOptions{Settings: model, Model: map[string]int64{"num_heads": 0}, Flags: map[string]string{
		"a b": "1", "dtype": "x"}})
	if e, ok := asError(err); !ok || len(e.Diagnostics()) != 3 ||
		!strings.Contains(err.Error(), "--num-heads is at least 1") {
		t.Errorf("got %v", err)
	}
	_, err = Single(SingleOptions{GPUs: []int{0}, Settings: map[string]any{
		"model": "Qwen/Qwen3-0.6B", "input_len": int64(100), "max_model_len": int64(10), "tensor_parallel_size": int64(2)}})
	if e, ok := asError(err); !ok || len(e.Diagnostics()) != 2 {
		t.Errorf("got %v", err)
	}
}

// TestSingleIsAFile checks that flags and a file that ask for the same have the
// same settings.
func TestSingleIsAFile(t *testing.T) {
	one, err := Single(SingleOptions{
		Settings: map[string]any{"model": "Qwen/Qwen3-0.6B", "batch_size": int64(4), "enforce_eager": true},
		Engine:   "simulator", GPUs: []int{0}, Flags: map[string]string{"max_lora_rank": "7"},
		Model: map[string]int64{"model_params": 1000, "hidden_size": 2048},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := loadText(t, `sweep "profile" {
  matrix {
    model = ["Qwen/Qwen3-0.6B"]
  }
  engine "simulator" {
    batch_size    = 4
    enforce_eager = true
    max_lora_rank = 7
  }
}
`, Inputs{})
	a, b := one.Sweeps[0].Profiles[0], file.Sweeps[0].Profiles[0]
	if profileText(a) != profileText(b) {
		t.Errorf("flags: %s\nfile:  %s", profileText(a), profileText(b))
	}
	if a.Model.Params != 1000 || a.Model.HiddenSize != 2048 || a.Model.HeadDim != 128 || b.Model.HiddenSize != 1024 {
		t.Errorf("model of flags %+v", a.Model)
	}
	if a.ID != b.ID || a.Origins["batch_size"] != "--batch-size" || a.Origins["input_len"] != "default" {
		t.Errorf("ids %s and %s, origins %v", a.ID, b.ID, a.Origins)
	}
}

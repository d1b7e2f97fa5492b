package sweep

import "testing"

func ptr[T any](v T) *T { return &v }

func TestSingle(t *testing.T) {
	plan, err := Single(SingleOptions{Model: "Qwen/Qwen3-0.6B", InputLen: ptr(int64(512)), Dtype: ptr("bfloat16"), NumLayers: ptr(int64(4)),
		Flags: map[string]string{"seed": "3", "max_lora_rank": "16", "hf_overrides": `{"a": 1}`, "tokenizer": "x/y"}})
	if err != nil {
		t.Fatal(err)
	}
	p := plan.Sweeps[0].Profiles[0]
	if p.Settings.InputLen != 512 || p.Settings.OutputLen != 128 || p.Settings.HFModelID != "Qwen/Qwen3-0.6B" || len(p.ID) != 16 {
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
	_, err := Single(SingleOptions{Model: "Qwen3-0.6", InputLen: ptr(int64(0)), MaxModelLen: ptr(int64(10)), Flags: map[string]string{"output_json": "x"}})
	e, ok := AsError(err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	codes := map[string]bool{}
	for _, d := range e.Diagnostics() {
		codes[d.Code] = true
	}
	for _, c := range []code{codeUnknownModel, codeValue, codeReserved} {
		if !codes[string(c)] {
			t.Errorf("no %s in:\n%v", c, err)
		}
	}
	_, err = Single(SingleOptions{Model: "Qwen/Qwen3-0.6B", InputLen: ptr(int64(100)), MaxModelLen: ptr(int64(10)), GPUs: []int{0}, TensorParallelSize: ptr(int64(2))})
	if e, ok := AsError(err); !ok || len(e.Diagnostics()) != 2 {
		t.Errorf("got %v", err)
	}
}

package models

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func fromText(t *testing.T, text string) *Architecture {
	t.Helper()
	a, err := FromConfig(strings.NewReader(text), "test/model")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestNestedConfig reads a multimodal model: the language part is the
// architecture, the encoder is a tower with its own parameters, and the outer object
// answers what the inner one leaves out.
func TestNestedConfig(t *testing.T) {
	a := fromText(t, `{"architectures":["Gemma3ForConditionalGeneration"],"model_type":"gemma3","torch_dtype":"bfloat16",
		"text_config":{"model_type":"gemma3_text","hidden_size":2560,"intermediate_size":10240,"num_hidden_layers":34,"sliding_window":1024},
		"vision_config":{"model_type":"siglip_vision_model","hidden_size":1152,"intermediate_size":4304,"num_hidden_layers":27,"image_size":896,"patch_size":14}}`)
	if a.NumHeads != 8 || a.NumKVHeads != 4 || a.HeadDim != 256 || a.VocabSize != 262208 || !a.TiedEmbeddings || a.NativeDtype != "bfloat16" {
		t.Errorf("what the file leaves out: %+v", a)
	}
	if a.LayerPattern != "sssssf" || a.SlidingWindow != 1024 {
		t.Errorf("pattern %q, window %d, want sssssf and 1024", a.LayerPattern, a.SlidingWindow)
	}
	if a.Vision == nil || a.Vision.Params != 419816304 || a.Vision.ImageTokens != 256 {
		t.Errorf("vision tower %+v, want 419816304 parameters and 256 tokens an image", a.Vision)
	}
	if a.Params != 4300079472 {
		t.Errorf("%d parameters, want 4300079472 (safetensors of google/gemma-3-4b-it)", a.Params)
	}
}

func TestUnknownTypeIsNotGuessed(t *testing.T) {
	a := fromText(t, `{"model_type":"brand_new","hidden_size":1024,"num_hidden_layers":8,"num_attention_heads":16,"num_key_value_heads":4,
		"vocab_size":1000,"max_position_embeddings":4096,"torch_dtype":"bfloat16"}`)
	if a.Layout != "" || a.Params != 0 {
		t.Fatalf("layout %q, %d parameters of a type that nobody knows", a.Layout, a.Params)
	}
	n, ok, _ := KVBytesPerToken(a, "auto", 1)
	if want := int64(8 * 4 * 2 * 64 * 2); !ok || n != want {
		t.Errorf("KV bytes per token %d (%v), want %d: layers, heads and their size are in the file", n, ok, want)
	}
	g, _ := LookupGPU("h100-80gb")
	e := NewEstimate(a, Request{}, g)
	for name, f := range map[string]Figure{"weights": e.Weights, "activations": e.Activations, "KV": e.KVCache,
		"tokens": e.KVCacheTokens} {
		if f.Value != nil || f.Reason == "" {
			t.Errorf("%s: value %v, reason %q: want nil and a reason", name, f.Value, f.Reason)
		}
	}
	if e.Fits != nil {
		t.Error("fits is said of a model whose weights are not known")
	}
}

func TestConfigErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:   "not a JSON object",
		`[]`: "not a JSON object",
		`{"model_type":"llama","hidden_size":"big"}`:                        "hidden_size is string, expected a whole number",
		`{"model_type":"llama","num_hidden_layers":-1}`:                     "num_hidden_layers is -1",
		`{"model_type":"llama","num_hidden_layers":100000}`:                 "expected at most 4096",
		`{"model_type":"llama","vocab_size":1.5}`:                           "vocab_size is 1.5",
		`{"model_type":"x","num_key_value_heads":[1,2]}`:                    "differs from layer to layer",
		`{"model_type":"nemotron_h","hybrid_override_pattern":"MEX"}`:       `pattern "MEX"`,
		`{"text_config":{"model_type":"llama","num_attention_heads":true}}`: "text_config.num_attention_heads is bool",
	} {
		_, err := FromConfig(strings.NewReader(text), "m")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", text, err, want)
		}
	}
}

func TestQuantizationConfig(t *testing.T) {
	head := `{"model_type":"llama","hidden_size":4096,"intermediate_size":14336,"num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8,"vocab_size":128256,"max_position_embeddings":131072,"torch_dtype":"bfloat16","quantization_config":`
	for _, c := range []struct {
		text, method string
		bits, group  int64
		keep         int
	}{
		{`{"quant_method":"awq","bits":4,"group_size":128,"zero_point":true}`, "awq", 4, 128, 0},
		{`{"quant_method":"gptq","bits":4,"group_size":128,"desc_act":true}`, "gptq", 4, 128, 0},
		{`{"quant_method":"fp8","weight_block_size":[128,128],"modules_to_not_convert":["lm_head"]}`, "fp8", 0, 0, 1},
		{`{"quant_method":"compressed-tensors","format":"pack-quantized","ignore":["lm_head"],"config_groups":{"group_0":{"weights":{"num_bits":4,"group_size":128,"symmetric":true}}}}`, "compressed-tensors", 4, 128, 1},
		{`{"load_in_4bit":true,"bnb_4bit_quant_type":"nf4"}`, "bitsandbytes", 4, 0, 0},
	} {
		a := fromText(t, head+c.text+`}`)
		q := a.Quantization
		if q == nil || q.Method != c.method || q.Bits != c.bits || q.GroupSize != c.group || len(q.Keep) != c.keep {
			t.Errorf("%s: %+v", c.text, q)
			continue
		}
		n, ok, reason := WeightBytes(a, "auto", "", 1, 1)
		if full := 2 * a.Params; !ok || n >= full*7/10 {
			t.Errorf("%s: %d bytes (%s), want well under the %d of bfloat16", c.text, n, reason, full)
		}
	}
}

func TestFromDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tiny")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := FromDir(dir); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("a folder without config.json: %v", err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("config.json",
		`{"model_type":"llama","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":512,"max_position_embeddings":128,"torch_dtype":"float16"}`)
	write("hf_quant_config.json",
		`{"quantization":{"quant_algo":"FP8","kv_cache_quant_algo":"FP8","exclude_modules":["lm_head"]}}`)
	a, err := FromDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if a.ID != "tiny" || a.HFModelID != dir || a.Quantization == nil || a.Quantization.KVCache != "fp8" {
		t.Errorf("%+v, quantization %+v", a, a.Quantization)
	}
	if n, _, _ := KVBytesPerToken(a, "auto", 1); n != 2*4*2*16 {
		t.Errorf("KV bytes per token %d: the checkpoint asks for one byte an element", n)
	}
	write("hf_quant_config.json", `{`)
	if _, err := FromDir(dir); err == nil || !strings.Contains(err.Error(), "hf_quant_config.json") {
		t.Errorf("a broken hf_quant_config.json: %v", err)
	}
}

func FuzzFromConfig(f *testing.F) {
	f.Add(`{"model_type":"llama","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":512}`)
	f.Add(`{"model_type":"deepseek_v3","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":512,"kv_lora_rank":8,"q_lora_rank":8,"qk_nope_head_dim":8,"qk_rope_head_dim":4,"v_head_dim":8,"n_routed_experts":4,"moe_intermediate_size":8,"index_n_heads":2,"index_head_dim":8}`)
	f.Add(`{"model_type":"nemotron_h","hidden_size":64,"hybrid_override_pattern":"ME*-","num_hidden_layers":4,"num_attention_heads":4,"vocab_size":512,"mamba_num_heads":4,"mamba_head_dim":8,"ssm_state_size":8,"n_routed_experts":2}`)
	f.Add(`{"model_type":"qwen3_next","hidden_size":64,"num_hidden_layers":4,"num_attention_heads":4,"vocab_size":512,"linear_num_key_heads":2,"linear_num_value_heads":4,"linear_key_head_dim":8,"linear_value_head_dim":8}`)
	f.Add(`{"model_type":"mistral3","text_config":{"model_type":"mistral","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4},"vision_config":{"model_type":"pixtral","image_size":64,"patch_size":0}}`)
	f.Add(`{"model_type":"gemma2","sliding_window":0,"num_hidden_layers":3,"hidden_size":1,"vocab_size":1,"num_attention_heads":0,"quantization_config":{"quant_method":"awq","bits":0}}`)
	g, _ := LookupGPU("h100-80gb")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := FromConfig(strings.NewReader(text), "fuzz")
		if err != nil {
			return
		}
		for _, tp := range []int64{1, 3, 64} {
			e := NewEstimate(a,
				Request{TensorParallelSize: tp, PipelineParallelSize: 1 + tp%2, InputLen: 10, OutputLen: 10, BatchSize: 2}, g)
			if e.Weights.Value != nil && *e.Weights.Value < 0 {
				t.Errorf("negative weights %d", *e.Weights.Value)
			}
		}
	})
}

package models

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/sweep/testenv"
)

// update rewrites models.json from the checked reference and from
// testdata/extra-models.json: go test ./sweep/models -run TestCatalogueIsGenerated -update
var update = flag.Bool("update", false, "rewrite generated files")

const referenceFile = "../../../shared/models-reference.json"

// reference is ../shared/models-reference.json, as far as the catalogue needs it.
type reference struct {
	Models []struct {
		ID       string         `json:"id"`
		Family   string         `json:"family"`
		Config   map[string]any `json:"config"`
		Computed struct {
			Params *int64 `json:"params"`
			KV     struct {
				Full         int64 `json:"bytes_per_token_full"`
				Sliding      int64 `json:"bytes_per_token_sliding"`
				Indexer      int64 `json:"indexer_bytes_per_token"`
				StateBytes   int64 `json:"state_bytes_per_sequence"`
				SlidingCount int64 `json:"sliding_layers"`
				FullCount    int64 `json:"full_layers"`
			} `json:"kv_bf16"`
		} `json:"computed"`
		Check *struct {
			Billions json.Number `json:"published_billions"`
			Source   string      `json:"source"`
		} `json:"param_check"`
		Note string `json:"note"`
	} `json:"models"`
	Quantized []struct {
		ID     string         `json:"id"`
		Config map[string]any `json:"quantization_config"`
		Algo   string         `json:"quant_algo"`
		KV     string         `json:"kv_cache_quant_algo"`
		Group  int64          `json:"group_size"`
		Count  int64          `json:"exclude_modules_count"`
		Keep   []string       `json:"exclude_modules_sample"`
		Source string         `json:"source"`
	} `json:"quantized_variants"`
}

func readReference(t *testing.T) reference {
	t.Helper()
	data, err := os.ReadFile(referenceFile)
	if err != nil {
		testenv.Skip(t, "no %s: the checked reference of architectures is not here", referenceFile)
	}
	var r reference
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// modelTypeOf names the model type of a reference entry whose sources gave none.
func modelTypeOf(id, family string) string {
	switch {
	case family == "deepseek" && strings.Contains(id, "V2"):
		return "deepseek_v2"
	case family == "gemma3":
		return "gemma3_text"
	}
	return family
}

// countsOf says what a published figure counts beside the resident parameters,
// from the reference's own notes.
func countsOf(id, note string, billions string) []string {
	switch {
	case strings.Contains(id, "DeepSeek-V3") || strings.Contains(id, "DeepSeek-R1"):
		return []string{"mtp", "fp8_scales"}
	case strings.HasSuffix(id, "/GLM-5"):
		return []string{"mtp_without_embeddings"}
	case strings.Contains(note, "MTP"):
		return []string{"mtp"}
	case strings.Contains(note, "stores lm_head"):
		return []string{"tied_lm_head"}
	case strings.Contains(id, "MiniMax"):
		return []string{"fp8_scales"}
	case strings.Contains(id, "Nemotron-3"):
		return []string{"-router_correction"}
	case !strings.Contains(billions, ".") || len(billions) <= 4:
		return []string{"rounded"}
	}
	return nil
}

// positionsOf is the longest sequence of the entries whose sources name none,
// as their model cards say.
func positionsOf(id string) int {
	return map[string]int{
		"Qwen/Qwen3-Next-80B-A3B-Instruct": 262144, "microsoft/Phi-3-medium-4k-instruct": 4096,
		"zai-org/GLM-4.5": 131072, "zai-org/GLM-4.5-Air": 131072,
	}[id]
}

// configOf is the config.json that a reference entry stands for: what its
// sources left out is named by the family.
func configOf(id, family, note string, fields map[string]any) map[string]any {
	cfg := map[string]any{}
	for k, v := range fields {
		cfg[k] = v
	}
	switch cfg["model_type"] {
	case nil:
		cfg["model_type"] = modelTypeOf(id, family)
	case "yi":
		cfg["model_type"] = "llama"
	}
	if arch, ok := cfg["architecture"].(string); ok {
		cfg["architectures"] = []string{arch}
	} else {
		cfg["architectures"] = []string{architectureOf(cfg["model_type"].(string))}
	}
	if (family == "glm4_moe" || family == "deepseek") && cfg["num_nextn_predict_layers"] == nil && strings.Contains(note,
		"MTP") {
		cfg["num_nextn_predict_layers"] = 1
	}
	if n := positionsOf(id); n > 0 && cfg["max_position_embeddings"] == nil {
		cfg["max_position_embeddings"] = n
	}
	if family == "falcon" && cfg["num_key_value_heads"] != 1.0 {
		cfg["new_decoder_architecture"] = true
	}
	return cfg
}

func fromReference(t *testing.T, r reference) map[string]*Architecture {
	out := map[string]*Architecture{}
	for _, m := range r.Models {
		cfg := configOf(m.ID, m.Family, m.Note, m.Config)
		data, err := json.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		a, err := FromConfig(bytes.NewReader(data), m.ID)
		if err != nil {
			t.Errorf("%s: %v", m.ID, err)
			continue
		}
		a.Source = "catalogue"
		if a.NativeDtype == "" {
			a.NativeDtype = "bfloat16" // of every model here that its sources leave open
		}
		if m.Note != "" {
			a.Notes = append(a.Notes, m.Note)
		}
		if m.Check != nil {
			b, _ := m.Check.Billions.Float64()
			a.Published = &Published{Params: int64(math.Round(b * 1e9)), Source: m.Check.Source,
				Counts: countsOf(m.ID, m.Note, m.Check.Billions.String())}
		}
		out[m.ID] = a
	}
	return out
}

// architectureOf is the class of the types whose reference entry names none.
func architectureOf(modelType string) string {
	return map[string]string{
		"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
		"qwen3": "Qwen3ForCausalLM",
		"phi3":  "Phi3ForCausalLM", "opt": "OPTForCausalLM", "gpt2": "GPT2LMHeadModel", "falcon": "FalconForCausalLM",
		"deepseek_v2": "DeepseekV2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM", "glm4_moe": "Glm4MoeForCausalLM",
	}[modelType]
}

// extra is one entry of testdata/extra-models.json.
type extra struct {
	ID        string         `json:"id"`
	Like      string         `json:"like"`
	Replace   bool           `json:"replace"`
	Published int64          `json:"published"`
	Source    string         `json:"published_source"`
	Counts    []string       `json:"counts"`
	Quant     map[string]any `json:"quantization_config"`
	Config    map[string]any `json:"config"`
	Family    string         `json:"family_config"` // a folder of testdata/families: what transformers' class assumes
	Notes     []string       `json:"notes"`
}

func addExtras(t *testing.T, r reference, models map[string]*Architecture) {
	data, err := os.ReadFile("testdata/extra-models.json")
	if err != nil {
		t.Fatal(err)
	}
	var extras []extra
	if err := json.Unmarshal(data, &extras); err != nil {
		t.Fatal(err)
	}
	for _, q := range r.Quantized {
		base := map[string]string{
			"Qwen/Qwen3-32B-FP8": "Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B-FP8": "Qwen/Qwen3-30B-A3B",
			"Qwen/Qwen3-235B-A22B-FP8":            "Qwen/Qwen3-235B-A22B",
			"nvidia/Llama-3.1-70B-Instruct-FP8":   "meta-llama/Llama-3.1-70B",
			"Qwen/Qwen3-32B-FP8-Static-PerTensor": "Qwen/Qwen3-32B",
			"nvidia/Qwen3-235B-A22B-NVFP4":        "Qwen/Qwen3-235B-A22B", "nvidia/DeepSeek-V3.1-NVFP4": "deepseek-ai/DeepSeek-V3",
		}[q.ID]
		if base == "" {
			continue // its architecture is not in the reference
		}
		quant := q.Config
		if quant == nil {
			quant = map[string]any{"quant_method": "modelopt", "quant_algo": q.Algo, "kv_cache_quant_algo": q.KV,
				"group_size": q.Group, "exclude_modules": keepOf(q.ID, q.Keep)}
		} else if _, listed := quant["modules_to_not_convert"].(string); listed {
			quant["modules_to_not_convert"] = []string{"lm_head", "mlp.gate"} // 48 layers x 3 + 1: routers and norms
		}
		extras = append(extras, extra{ID: q.ID, Like: base, Quant: quant})
	}
	for _, e := range extras {
		models[e.ID] = build(t, e, models)
	}
}

// keepOf is the rule behind a list of modules that the reference samples.
func keepOf(id string, sample []string) []string {
	switch {
	case strings.Contains(id, "DeepSeek"):
		return []string{"lm_head", "self_attn"} // 4 projections x 61 layers + lm_head + ...: all attention
	case strings.Contains(id, "Qwen3-235B"):
		return []string{"lm_head", "mlp.gate"}
	}
	return sample
}

func build(t *testing.T, e extra, models map[string]*Architecture) *Architecture {
	var a *Architecture
	if e.Like != "" {
		base := models[e.Like]
		if base == nil {
			t.Fatalf("%s is like %s, which is not there", e.ID, e.Like)
		}
		b := *base
		b.derived, b.Params, b.Notes, b.Published = nil, 0, nil, nil
		a = &b
		if v, ok := e.Config["vocab_size"].(float64); ok {
			a.VocabSize = int64(v)
		}
		if v, ok := e.Config["intermediate_size"].(float64); ok {
			a.IntermediateSize = int64(v)
		}
		if v, ok := e.Config["max_position_embeddings"].(float64); ok {
			a.MaxPosition = int64(v)
			r := *a.Rope
			r.Length = a.MaxPosition
			a.Rope = &r
		}
		if v, ok := e.Config["torch_dtype"].(string); ok {
			a.NativeDtype = v
		}
	} else {
		data, err := json.Marshal(e.Config)
		if err != nil {
			t.Fatal(err)
		}
		if e.Family != "" {
			a, err = FromDir(familiesDir + "/" + e.Family)
		} else {
			a, err = FromConfig(bytes.NewReader(data), e.ID)
		}
		if err != nil {
			t.Fatalf("%s: %v", e.ID, err)
		}
		a.Notes = append(a.Notes, e.Notes...)
	}
	a.ID, a.HFModelID, a.Source = e.ID, e.ID, "catalogue"
	if e.Quant != nil {
		data, err := json.Marshal(e.Quant)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		if err := dec.Decode(&m); err != nil {
			t.Fatal(err)
		}
		a.Quantization = readQuantization(fields{m: m}, "")
	}
	if e.Published > 0 {
		a.Published = &Published{Params: e.Published, Source: e.Source, Counts: e.Counts}
	}
	a.finish()
	return a
}

func TestCatalogueIsGenerated(t *testing.T) {
	r := readReference(t)
	models := fromReference(t, r)
	addExtras(t, r, models)
	data, err := newCatalogue(slices.Collect(maps.Values(models))).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	const path = "../../models.json"
	if *update {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, data) {
		t.Errorf("models.json is not what the reference and testdata/extra-models.json give; run with -update and review " +
			"the difference")
	}
}

// TestReferenceAgrees compares parameters and KV bytes with those that the
// reference computed by itself.
func TestReferenceAgrees(t *testing.T) {
	r := readReference(t)
	models := fromReference(t, r)
	for _, m := range r.Models {
		a := models[m.ID]
		if a == nil {
			continue
		}
		if m.Computed.Params != nil {
			n, ok := Params(a)
			if !ok || n != *m.Computed.Params {
				t.Errorf("%s: %d parameters (known: %v), the reference has %d (difference %d)", m.ID, n, ok, *m.Computed.Params,
					n-*m.Computed.Params)
			}
		}
	}
}

package models

import (
	"bytes"
	"encoding/json"
	"math"
	"path/filepath"
	"strings"
	"testing"
)

// counted is what testdata/families/count.py wrote of one module tree.
type counted struct {
	Tree     string            `json:"tree"`
	Versions map[string]string `json:"versions"`
	Counts   map[string]struct {
		Class  string `json:"class"`
		Params int64  `json:"params"`
		Failed string `json:"failed"`
	} `json:"counts"`
}

const familiesDir = "testdata/families"

// TestFamiliesAreCounted holds the parameters of each family's config.json
// against the sum over the module tree that runs it: vLLM's own, or that of
// transformers where vLLM hands over to it or asks for a GPU. Half of an
// encoder of unknown type may be missing. What is not understood has a name.
func TestFamiliesAreCounted(t *testing.T) {
	var trees [2]counted
	readJSON(t, familiesDir+"/vllm.json", &trees[0])
	readJSON(t, familiesDir+"/transformers.json", &trees[1])
	files, _ := filepath.Glob(familiesDir + "/*/config.json")
	if len(files) < 30 {
		t.Fatalf("%d config.json files in %s, expected at least 30", len(files), familiesDir)
	}
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		t.Run(name, func(t *testing.T) {
			a, err := FromDir(filepath.Dir(file))
			if err != nil {
				t.Fatal(err)
			}
			want := trees[0].Counts[name]
			if want.Params == 0 {
				want = trees[1].Counts[name]
			}
			switch {
			case a.Layout == "" && a.Unknown == "":
				t.Fatal("its parameters are not known, and nothing says what is not understood")
			case a.Layout == "":
				t.Logf("not understood: %s", a.Unknown)
				return
			case want.Params == 0:
				t.Fatalf("no tree was counted: %s", want.Failed)
			}
			n, rough := a.countParams(), float64(a.roughTowers())/2
			if off := float64(n - want.Params); math.Abs(off) > 0.003*float64(want.Params)+rough {
				t.Errorf("%d parameters, %s has %d: %+.2f %%", n, want.Class, want.Params, 100*off/float64(want.Params))
			}
		})
	}
}

// TestMeasuredFamilies holds weights, and KV tokens where the memory for the
// cache is given, against what vLLM printed.
func TestMeasuredFamilies(t *testing.T) {
	var file struct {
		Runs []struct {
			Model     string  `json:"model"`
			KVDtype   string  `json:"kv_cache_dtype"`
			Weights   float64 `json:"weights"`
			Available float64 `json:"available"`
			Tokens    float64 `json:"tokens"`
		} `json:"runs"`
		Configs map[string]json.RawMessage `json:"configs"`
	}
	readJSON(t, "testdata/h200-v0.33.json", &file)
	length := int64(8192)
	for _, run := range file.Runs {
		t.Run(run.Model+"/"+run.KVDtype, func(t *testing.T) {
			a, err := FromConfig(bytes.NewReader(file.Configs[run.Model]), run.Model)
			if err != nil {
				t.Fatal(err)
			}
			kv := int64(run.Available * float64(gib))
			e := NewEstimate(a, Request{
				Version: "0.33.0", MaxModelLen: &length, KVCacheMemoryBytes: &kv, KVCacheDtype: run.KVDtype,
			}, GPU{Name: "h200", TotalBytes: 139 * gib, Arch: "hopper"})
			if e.KVCacheTokens.Value == nil || e.Weights.Value == nil {
				t.Fatalf("tokens %+v, weights %+v", e.KVCacheTokens, e.Weights)
			}
			if off := float64(*e.KVCacheTokens.Value)/run.Tokens - 1; math.Abs(off) > 0.001 {
				t.Errorf("%d tokens in %g GiB, vLLM printed %.0f: %+.2f %%",
					*e.KVCacheTokens.Value, run.Available, run.Tokens, 100*off)
			}
			if got := float64(*e.Weights.Value) / float64(gib); math.Abs(got-run.Weights) > 0.003*run.Weights+0.005 {
				t.Errorf("%.3f GiB of weights, vLLM printed %g", got, run.Weights)
			}
		})
	}
}

// TestCacheOfKinds: what a model's kinds of layers make of a pool of blocks,
// figured by hand.
func TestCacheOfKinds(t *testing.T) {
	const length, inFlight = 8192, 32768
	for _, c := range []struct {
		family      string
		bytes, need int64 // of a block of the pool; blocks of a sequence
	}{
		// 3 full layers of 8192 bytes a token; 17 sliding ones of 4096 with blocks of 32, as 6 groups; 10 share.
		{"gemma4_text", 16 * 8192 * 3, 512 + 6*257},
		// 28 short convolutions of 2 x 2560 x 2 bytes in pages of 16 tokens of 2560 bytes: 24 of them to 8 of attention.
		{"lfm2", 16 * 2560 * 8, 512 + 3},
		// attention and Mamba in each of 32 layers: a state of 3 x 1536 x 2 + 128 x 8 x 256 x 2 bytes, 4096 bytes a token.
		{"falcon_h1", 144 * 4096 * 32, 57 + 1},
		// states alone: 3 x 10240 x 2 + 128 x 64 x 128 x 2 bytes in 64 layers.
		{"mamba2", (3*10240*2 + 128*64*128*2) * 64, 1},
		// 3 layers of 2048 bytes a token and 57 with an index of 256 bytes more, one group.
		{"minimax_m3_vl", 16 * (60*2048 + 57*256), 512},
	} {
		t.Run(c.family, func(t *testing.T) {
			a, err := FromDir(familiesDir + "/" + c.family)
			if err != nil {
				t.Fatal(err)
			}
			l := a.layout(2, 1, 1, 16, stageOf(a.NumLayers, 1, 0))
			if n := l.blockBytes(); n != c.bytes {
				t.Errorf("a block of the pool has %d bytes, expected %d (%+v)", n, c.bytes, l)
			}
			if n := l.blocks(a, length, inFlight); n != c.need {
				t.Errorf("a sequence needs %d blocks, expected %d (%+v)", n, c.need, l)
			}
		})
	}
}

// TestNotUnderstood: what no reader knows is named.
func TestNotUnderstood(t *testing.T) {
	for name, c := range map[string]struct{ fields, want string }{
		"type":  {`"model_type":"zamba2"`, `model type "zamba2"`},
		"field": {`"model_type":"llama","hc_mult":4`, `hc_mult of model type "llama"`},
		"layer": {
			`"model_type":"qwen3","layer_types":["full_attention","hybrid"]`,
			`layers of type "hybrid" in model type "qwen3"`,
		},
		"none": {`"model_type":"llama","num_local_experts":1,"n_shared_experts":0,"attention_bias":false`, ""},
	} {
		text := `{"hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":256,` +
			`"max_position_embeddings":512,` + c.fields + `}`
		a, err := FromConfig(strings.NewReader(text), name)
		if err != nil {
			t.Fatal(err)
		}
		if a.Unknown != c.want || (a.Layout == "") != (c.want != "") {
			t.Errorf("%s: not understood is %q, expected %q; layout %q", name, a.Unknown, c.want, a.Layout)
		}
	}
}

// TestSpeculating: prediction layers have weights and caches, guesses have
// states, and what is not counted is warned of.
func TestSpeculating(t *testing.T) {
	a, err := FromDir(familiesDir + "/qwen3_next")
	if err != nil {
		t.Fatal(err)
	}
	kv, length := int64(100<<30), int64(8192)
	r := Request{Version: "0.33.0", MaxModelLen: &length, KVCacheMemoryBytes: &kv}
	gpu := GPU{Name: "h200", TotalBytes: 139 << 30, Arch: "hopper"}
	plain := NewEstimate(a, r, gpu)
	r.PrefixCaching = true
	cached := NewEstimate(a, r, gpu)
	r.Speculative, r.NotCounted = &Speculative{Method: "mtp", Tokens: 2}, []string{"enable_lora"}
	guessing := NewEstimate(a, r, gpu)
	none, prefixes, guesses := *plain.KVCacheTokens.Value, *cached.KVCacheTokens.Value, *guessing.KVCacheTokens.Value
	if prefixes >= none || guesses >= prefixes {
		t.Errorf("tokens %d, with prefix caching %d, guessing too %d: expected fewer each time", none, prefixes, guesses)
	}
	// One layer of 512 experts of 3 x 512 x 2048, and what else it has.
	more := *guessing.Weights.Value - *plain.Weights.Value
	if experts := int64(512 * 3 * 512 * 2048 * 2); more < experts || more > experts*11/10 {
		t.Errorf("a prediction layer weighs %d bytes, expected a little more than its experts' %d", more, experts)
	}
	got := strings.Join(guessing.Warnings, "\n")
	if !strings.Contains(got, "1 prediction layer") || !strings.Contains(got, "enable_lora") {
		t.Errorf("warnings %q name neither the prediction layer nor enable_lora", got)
	}
	r.Speculative = &Speculative{Method: "eagle3", Tokens: 2, Model: "drafter"}
	got = strings.Join(NewEstimate(a, r, gpu).Warnings, "\n")
	if !strings.Contains(got, "drafter drafter are not counted") {
		t.Errorf("warnings %q do not say that the drafter is not counted", got)
	}
}

package models

import (
	"bytes"
	"encoding/json"
	"math"
	"path/filepath"
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
				t.Errorf("%d tokens in %g GiB, vLLM printed %.0f: %+.2f %%", *e.KVCacheTokens.Value, run.Available, run.Tokens, 100*off)
			}
			if got := float64(*e.Weights.Value) / float64(gib); math.Abs(got-run.Weights) > 0.003*run.Weights+0.005 {
				t.Errorf("%.3f GiB of weights, vLLM printed %g", got, run.Weights)
			}
		})
	}
}

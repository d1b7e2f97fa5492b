package models

import (
	"strings"
	"testing"
)

func figureOf(value, half int64) *Figure {
	low, high := value-half, value+half
	return &Figure{Value: &value, Low: &low, High: &high, Source: "measured"}
}

// TestGiven: what somebody knows better stands in the estimate, and what follows
// from it follows.
func TestGiven(t *testing.T) {
	a := lookup(t, "meta-llama/Llama-3.1-8B-Instruct")
	g, _ := LookupGPU("h100-80gb")
	length := int64(8192)
	r := Request{MaxModelLen: &length, Version: "0.26.0"}
	plain := NewEstimate(a, r, g)
	r.Given = &Given{Activations: figureOf(*plain.Activations.Value+gib, 0),
		NonTorch: figureOf(*plain.NonTorch.Value, 0), Buffers: figureOf(5, 1)}
	e := NewEstimate(a, r, g)
	if *e.Activations.Value != *plain.Activations.Value+gib || e.Activations.Source != "measured" || *e.Buffers.Value != 5 || *e.Weights.Value != *plain.Weights.Value {
		t.Errorf("given figures do not stand: %+v", e)
	}
	if d := *plain.KVCache.Value - *e.KVCache.Value; d != gib {
		t.Errorf("a GiB more of activations takes %d of the KV cache", d)
	}
	if *e.KVCacheTokens.Value >= *plain.KVCacheTokens.Value || *e.KVCache.High-*e.KVCache.Low >= *plain.KVCache.High-*plain.KVCache.Low {
		t.Errorf("tokens %d of %d, interval %d of %d: expected fewer and narrower", *e.KVCacheTokens.Value,
			*plain.KVCacheTokens.Value, *e.KVCache.High-*e.KVCache.Low, *plain.KVCache.High-*plain.KVCache.Low)
	}
	value := *plain.Activations.Value
	r.Given = &Given{Activations: &Figure{Value: &value}}
	e = NewEstimate(a, r, g)
	if e.KVCache.Value == nil || *e.KVCache.Value != *plain.KVCache.Value || e.KVCache.Low != nil || e.KVCache.Reason == "" || e.KVCacheTokens.Low != nil || e.Fits == nil {
		t.Errorf("of a part without an interval nothing has one: %+v", e.KVCache)
	}
	huge := *plain.Requested.Value
	r.Given = &Given{Activations: figureOf(huge, 0)}
	if e = NewEstimate(a, r, g); e.Fits == nil || *e.Fits {
		t.Error("activations of the whole budget fit")
	}
}

// TestGivenStages: the other stages differ from the first by the arithmetic.
func TestGivenStages(t *testing.T) {
	a := lookup(t, "meta-llama/Llama-3.1-8B-Instruct")
	g, _ := LookupGPU("h100-80gb")
	r := Request{PipelineParallelSize: 2, Version: "0.26.0"}
	plain := NewEstimate(a, r, g)
	r.Given = &Given{Activations: figureOf(*plain.Activations.Value+gib, 0)}
	e := NewEstimate(a, r, g)
	for i := range e.Stages {
		if d := e.Stages[i].Activations - plain.Stages[i].Activations; d != gib || plain.Stages[i].KVCache-e.Stages[i].KVCache != gib {
			t.Errorf("stage %d: activations %d more, KV cache %d less, want a GiB both", i, d,
				plain.Stages[i].KVCache-e.Stages[i].KVCache)
		}
	}
}

// TestWarmCache: kernels from a cache need no tuner's buffer; and the peak's
// moment is told.
func TestWarmCache(t *testing.T) {
	a := lookup(t, "meta-llama/Llama-3.1-8B-Instruct")
	g, _ := LookupGPU("h100-80gb")
	r := Request{Version: "0.26.0"}
	cold := NewEstimate(a, r, g)
	r.CompileCache = "warm"
	warm := NewEstimate(a, r, g)
	if d := *cold.Activations.Value - *warm.Activations.Value; d != g.L2 {
		t.Errorf("a warm cache saves %d bytes, want %d", d, g.L2)
	}
	r.ModelRunner = "v1"
	if at := NewEstimate(a, r, g).ActivationsAt; warm.ActivationsAt != "forward" || at != "sampler" {
		t.Errorf("peaks at %q and, with the V1 runner, %q", warm.ActivationsAt, at)
	}
	if at := NewEstimate(lookup(t, "deepseek-ai/DeepSeek-V2-Lite"), Request{Version: "0.26.0"},
		g).ActivationsAt; !strings.Contains("latent experts", at) {
		t.Errorf("DeepSeek-V2-Lite peaks at %q", at)
	}
}

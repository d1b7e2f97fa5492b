package models

import (
	"encoding/json"
	"math"
	"strings"
	"sync"
	"testing"
)

func lookup(t testing.TB, id string) *Architecture {
	t.Helper()
	a, ok := builtin(t).Lookup(id)
	if !ok {
		t.Fatalf("the catalogue lacks %s", id)
	}
	return a
}

func h100(t testing.TB) GPU {
	t.Helper()
	g, ok := LookupGPU("NVIDIA H100 80GB HBM3")
	if !ok {
		t.Fatal("the H100 is not found by its product name")
	}
	return g
}

// TestReferenceKV compares KV bytes per token with the reference's own.
func TestReferenceKV(t *testing.T) {
	r := readReference(t)
	models := fromReference(t, r)
	for _, m := range r.Models {
		a := models[m.ID]
		if a == nil {
			continue
		}
		want := m.Computed.KV.Full + m.Computed.KV.Sliding + m.Computed.KV.Indexer
		if n, ok, reason := kvBytesPerToken(a, "auto", "bfloat16", 1); !ok || n != want {
			// Gemma 4's reference counts K and V of the global layers once; vLLM stores both.
			if m.ID == "google/gemma-4-26B-A4B" && n == want+m.Computed.KV.Full {
				continue
			}
			t.Errorf("%s: %d bytes a token (%s), the reference has %d", m.ID, n, reason, want)
		}
		if want := m.Computed.KV.StateBytes; want > 0 {
			var n int64
			for _, c := range a.derived.classes {
				if hasState(c.kind) {
					n += c.count * a.stateBytes(c.kind, 2, 1)
				}
			}
			if d := math.Abs(float64(n-want)) / float64(want); d > 0.001 {
				t.Errorf("%s: %d bytes of state a sequence, the reference has %d", m.ID, n, want)
			}
		}
	}
}

func TestKVReplication(t *testing.T) {
	a := lookup(t, "Qwen/Qwen2.5-7B-Instruct") // 4 KV heads
	one, _, _ := KVBytesPerToken(a, "auto", 1)
	for tp, want := range map[int64]int64{2: one / 2, 4: one / 4, 8: one / 4} {
		if n, _, _ := KVBytesPerToken(a, "auto", tp); n != want {
			t.Errorf("TP %d: %d bytes a token, want %d: heads are divided until each rank has one", tp, n, want)
		}
	}
	if n, _, _ := KVBytesPerToken(a, "fp8", 1); n != one/2 {
		t.Errorf("fp8: %d, want half of %d", n, one)
	}
	mla := lookup(t, "deepseek-ai/DeepSeek-V3")
	one, _, _ = KVBytesPerToken(mla, "auto", 1)
	if n, _, _ := KVBytesPerToken(mla, "auto", 8); n != one {
		t.Errorf("MLA at TP 8: %d, want %d: the latent is on every rank", n, one)
	}
}

// TestDefaults: what vLLM chooses by itself, by version, device and use.
func TestDefaults(t *testing.T) {
	a, g := lookup(t, "meta-llama/Llama-3.1-8B-Instruct"), h100(t)
	small, _ := LookupGPU("l4")
	a100, _ := LookupGPU("a100-80gb")
	for _, c := range []struct {
		r            Request
		g            GPU
		tokens, seqs int64
		util         float64
		runner       string
	}{
		{Request{Version: "0.26.0"}, g, 16384, 1024, 0.92, "v2"},
		{Request{Version: "0.26.0", Defaults: "serve"}, g, 8192, 1024, 0.92, "v2"},
		{Request{Version: "v0.19.1"}, g, 16384, 1024, 0.9, "v1"},
		{Request{Version: "0.20.0"}, small, 8192, 256, 0.92, "v1"},
		{Request{Defaults: "serve"}, small, 2048, 256, 0.92, "v2"},
		{Request{}, a100, 8192, 256, 0.92, "v2"},
		{Request{MaxNumSeqs: ptr(int64(2)), MaxModelLen: ptr(int64(1024))}, g, 2048, 2, 0.92, "v2"},
		{Request{MaxNumBatchedTokens: ptr(int64(512))}, g, 512, 512, 0.92, "v2"},
		{Request{ModelRunner: "v1"}, g, 16384, 1024, 0.92, "v1"},
	} {
		e := NewEstimate(a, c.r, c.g)
		if *e.MaxNumBatchedTokens != c.tokens || *e.MaxNumSeqs != c.seqs || e.ModelRunner != c.runner {
			t.Errorf("%+v on %s: tokens %d, sequences %d, runner %s; want %d, %d, %s", c.r, c.g.Name, *e.MaxNumBatchedTokens,
				*e.MaxNumSeqs, e.ModelRunner, c.tokens, c.seqs, c.runner)
		}
		if got := float64(*e.Requested.Value) / float64(c.g.TotalBytes); math.Abs(got-c.util) > 1e-6 {
			t.Errorf("%+v: utilization %.4f, want %.2f", c.r, got, c.util)
		}
	}
}

func TestVersions(t *testing.T) {
	for s, want := range map[string]release{
		"": newest, "0.26.0": 26_000, "v0.9.0.1": 9_000, "0.15.0rc2.dev46+gc4e744dbd": 15_000, "1.2.3": 1_002_003,
		"0.31": 31_000,
	} {
		if v, ok := parseVersion(s); !ok || v != want {
			t.Errorf("%q: %d, %v; want %d", s, v, ok, want)
		}
	}
	for _, s := range []string{"newest", "1", ".", "0.", "-1.2"} {
		if v, ok := parseVersion(s); ok {
			t.Errorf("%q is read as %d", s, v)
		}
	}
	for version, want := range map[string]string{"0.7.3": reasonV0, "latest": reasonVersion} {
		e := NewEstimate(lookup(t, "Qwen/Qwen3-8B"), Request{Version: version}, h100(t))
		if e.Weights.Value != nil || e.Reason != want || e.Version != version {
			t.Errorf("%s: %+v", version, e)
		}
	}
}

// TestNilModel: what depends on device and version alone is given, the rest is nil.
func TestNilModel(t *testing.T) {
	e := NewEstimate(nil, Request{MaxModelLen: ptr(int64(4096))}, h100(t))
	for name, f := range map[string]Figure{"weights": e.Weights, "activations": e.Activations, "graphs": e.CUDAGraphs,
		"buffers": e.Buffers, "KV": e.KVCache, "tokens": e.KVCacheTokens} {
		if f.Value != nil || f.Low != nil || f.High != nil || !strings.Contains(f.Reason, "models add") {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if e.Requested.Value == nil || e.Context.Value == nil || e.NonTorch.Value == nil || *e.MaxModelLen != 4096 || e.Fits != nil {
		t.Errorf("what the device alone decides: %+v", e)
	}
	data, err := json.Marshal(e)
	if err != nil || !strings.Contains(string(data), `"weights_bytes":{"value":null,"low":null,"high":null,"reason":`) {
		t.Errorf("JSON %s, %v", data, err)
	}
}

func TestFits(t *testing.T) {
	g := h100(t)
	e := NewEstimate(lookup(t, "meta-llama/Llama-3.1-70B-Instruct"),
		Request{Version: "0.26.0", MaxModelLen: ptr(int64(4096))}, g)
	if e.Fits == nil || *e.Fits || *e.ShortBy < 60*gib || e.Reason == "" {
		t.Errorf("70 billion parameters in bfloat16 on 80 GB: fits %v, short by %v", e.Fits, e.ShortBy)
	}
	// The run fail-maxlen-131072: 2.80 GiB for a sequence that needs 16.
	e = NewEstimate(lookup(t, "meta-llama/Llama-3.1-8B-Instruct"),
		Request{Version: "0.26.0", MaxModelLen: ptr(int64(131072)), GPUMemoryUtilization: ptr(0.25)}, g)
	if *e.Fits || math.Abs(float64(*e.ShortBy)/float64(gib)-13.2) > 0.1 {
		t.Errorf("131,072 tokens at utilization 0.25: fits %v, short by %d", *e.Fits, *e.ShortBy)
	}
	if *e.MaxContext < 22800 || *e.MaxContext > 23000 { // vLLM said 22,912
		t.Errorf("longest context %d", *e.MaxContext)
	}
	e = NewEstimate(lookup(t, "Qwen/Qwen3-0.6B"), Request{Version: "0.26.0", GPUMemoryUtilization: ptr(0.998)}, g)
	if *e.Fits || !strings.Contains(e.Reason, "free") {
		t.Errorf("utilization 0.998 leaves no room for the context: %v %s", *e.Fits, e.Reason)
	}
	e = NewEstimate(lookup(t, "Qwen/Qwen3-8B"), Request{Version: "0.26.0", InputLen: 8000, OutputLen: 500,
		BatchSize: 2000, MaxModelLen: ptr(int64(8192)), KVCacheMemoryBytes: ptr(10 * gib)}, g)
	if *e.KVCache.Value != 10*gib || len(e.Warnings) != 3 || e.Requested.Value != nil {
		t.Errorf("a set KV size, too many sequences, too long ones: KV %v, warnings %q", *e.KVCache.Value, e.Warnings)
	}
}

// TestWeightsAlone: what does not fit by its weights does not fit, even where
// the rest is not known.
func TestWeightsAlone(t *testing.T) {
	a := &Architecture{ID: "new", NativeDtype: "bfloat16", Params: 80_000_000_000, NumLayers: 48, NumHeads: 16, NumKVHeads: 2,
		HeadDim: 256, HiddenSize: 2048, VocabSize: 151936}
	e := NewEstimate(a, Request{}, h100(t))
	if e.KVCache.Value != nil || e.Fits == nil || *e.Fits || *e.ShortBy < 70*gib {
		t.Errorf("KV %v, fits %v", e.KVCache.Value, e.Fits)
	}
	if e := NewEstimate(a, Request{TensorParallelSize: 4}, h100(t)); e.Fits != nil || e.Reason == "" {
		t.Errorf("at TP 4 nobody knows, yet fits is %v (%s)", *e.Fits, e.Reason)
	}
}

// TestStateLayers: models with layers that keep a state have every figure, by
// laws of two such models.
func TestStateLayers(t *testing.T) {
	g, _ := LookupGPU("h200")
	for _, r := range []Request{{Version: "0.33.0"}, {Version: "0.26.0", TensorParallelSize: 4}} {
		e := NewEstimate(lookup(t, "Qwen/Qwen3-Next-80B-A3B-Instruct"), r, g)
		for name, f := range map[string]Figure{"activations": e.Activations, "graphs": e.CUDAGraphs, "KV": e.KVCache, "growth": e.Growth} {
			if f.Value == nil || f.Low == nil || !(*f.Low <= *f.Value && *f.Value <= *f.High) {
				t.Errorf("%s: %s %+v", r.Version, name, f)
			}
		}
		if len(e.Laws) == 0 || e.Laws[0].Measured != (r.Version == "0.33.0") {
			t.Errorf("%s: laws %+v", r.Version, e.Laws)
		}
	}
}

// TestLawsAreNamed: an estimate says what it rests on, and what is extrapolated
// is told from what was measured.
func TestLawsAreNamed(t *testing.T) {
	a := lookup(t, "meta-llama/Llama-3.1-8B-Instruct")
	h200, _ := LookupGPU("h200")
	l4, _ := LookupGPU("l4")
	for _, c := range []struct {
		version string
		g       GPU
		first   string
	}{
		{"0.33.0", h200, "measured on 0.33.0, NVIDIA H200, 23 runs"},
		{"0.33.1", h200, "measured on 0.33.0, NVIDIA H200, 23 runs"},
		{"0.34.0", h200, "extrapolated from 0.33.0, NVIDIA H200"},
		{"0.33.0", h100(t), "extrapolated from 0.33.0, NVIDIA H200"},
		{"0.29.0", h100(t), "extrapolated from 0.26.0, NVIDIA H100 80GB HBM3"},
		{"0.26.0", h100(t), "measured on 0.26.0, NVIDIA H100 80GB HBM3, 38 runs"},
		{"0.26.0", l4, "extrapolated from 0.26.0, NVIDIA H100 80GB HBM3"},
		{"0.19.1", h100(t), "measured on 0.19.0, NVIDIA H100 80GB HBM3, 30 runs"},
	} {
		e := NewEstimate(a, Request{Version: c.version, InputLen: 512, BatchSize: 8}, c.g)
		if len(e.Laws) == 0 || e.Laws[0].From != c.first || e.Laws[0].Measured != strings.HasPrefix(c.first, "measured") {
			t.Errorf("%s on %s: %+v; expected %s", c.version, c.g.Name, e.Laws, c.first)
		}
	}
	if e := NewEstimate(a, Request{Version: "0.33.0", TensorParallelSize: 2}, h200); e.Laws[0].Measured {
		t.Errorf("two ranks, which no run had: %+v", e.Laws)
	}
	near := NewEstimate(a, Request{Version: "0.33.0"}, h200).Activations
	far := NewEstimate(a, Request{Version: "0.34.0"}, h200).Activations
	if *near.Value != *far.Value || *far.Low >= *near.Low || *far.High <= *near.High {
		t.Errorf("activations %d to %d where measured, %d to %d beyond", *near.Low, *near.High, *far.Low, *far.High)
	}
}

// TestGrowth: what serving takes beyond the budget where it was measured, and a
// warning where the device may not have it.
func TestGrowth(t *testing.T) {
	a, g := lookup(t, "meta-llama/Llama-3.1-8B-Instruct"), h100(t)
	of := func(input int64, utilization float64) Estimate {
		return NewEstimate(a, Request{Version: "0.26.0", InputLen: input, BatchSize: 4, GPUMemoryUtilization: &utilization,
			MaxModelLen: ptr(int64(16384))}, g)
	}
	short, long := of(1024, 0.92), of(8000, 0.92)
	// llama-3.1-8b, and llama8b-in8000, whose highest use was 1.75 GiB beyond.
	if f := short.Growth; *f.Low != 0 || *f.Value > gib/4 {
		t.Errorf("4 x 1,024 tokens: %+v, seen 0", f)
	}
	if f := long.Growth; *f.Low > gib*175/100 || *f.High < gib*175/100 {
		t.Errorf("4 x 8,000 tokens: %d to %d, seen 1.75 GiB", *f.Low, *f.High)
	}
	if short.MayRunOut || long.MayRunOut {
		t.Error("at 0.92 neither runs out of memory")
	}
	edge := of(8000, 0.97)
	if !*edge.Fits || !edge.MayRunOut || !strings.Contains(strings.Join(edge.Warnings, " "), "may run out of memory while serving") {
		t.Errorf("at 0.97 the growth does not fit: fits %v, %v, %q", *edge.Fits, edge.MayRunOut, edge.Warnings)
	}
}

func TestRefused(t *testing.T) {
	a := lookup(t, "Qwen/Qwen2.5-7B-Instruct") // 28 heads, 32,768 positions
	e := NewEstimate(a, Request{TensorParallelSize: 8, MaxModelLen: ptr(int64(65536))}, h100(t))
	if len(e.Warnings) != 2 || !strings.Contains(e.Warnings[0], "28 attention heads") || !strings.Contains(e.Warnings[1],
		"32768 positions") {
		t.Errorf("warnings %q", e.Warnings)
	}
	if e := NewEstimate(a, Request{TensorParallelSize: 4}, h100(t)); len(e.Warnings) != 0 {
		t.Errorf("warnings %q of a profile that vLLM takes", e.Warnings)
	}
}

// TestStages: of a pipeline, the top figures are those of the first stage, and
// the stage with least room decides the tokens.
func TestStages(t *testing.T) {
	a := lookup(t, "meta-llama/Llama-3.1-8B-Instruct")
	r := Request{Version: "0.19.0", PipelineParallelSize: 4, MaxModelLen: ptr(int64(8192)),
		MaxNumBatchedTokens: ptr(int64(8192)), GPUMemoryUtilization: ptr(0.95)}
	e := NewEstimate(a, r, h100(t))
	if len(e.Stages) != 4 {
		t.Fatalf("%d stages", len(e.Stages))
	}
	// The log of this run: weights 4.26, 3.28, 3.28, 4.26; activations 1.10, 1.05, 1.05, 2.01.
	for i, want := range []struct{ weights, activations float64 }{{4.26, 1.10}, {3.28, 1.05}, {3.28, 1.05}, {4.26, 2.01}} {
		w, act := float64(e.Stages[i].Weights)/float64(gib), float64(e.Stages[i].Activations)/float64(gib)
		if math.Abs(w-want.weights) > 0.006 || math.Abs(act/want.activations-1) > 0.05 {
			t.Errorf("stage %d: weights %.3f, activations %.3f; vLLM printed %v", i, w, act, want)
		}
	}
	if *e.Weights.Value != e.Stages[0].Weights || e.Stages[3].KVCache >= e.Stages[0].KVCache {
		t.Error("the last stage samples and has less room than the first")
	}
	if st := stageOf(62, 4, 0); st.last-st.first != 15 {
		t.Errorf("62 layers over 4 stages: the first has %d", st.last-st.first)
	}
	if st := stageOf(62, 4, 2); st.last-st.first != 16 || !stageOf(62, 4, 3).isLast {
		t.Errorf("62 layers over 4 stages: the third has %d", st.last-st.first)
	}
}

// TestHybridPools: Gemma 3 1B has 22 sliding and 4 full layers, so seven groups
// of four share one pool; vLLM 0.26 printed 636.49x for 4,096 tokens in 69.85 GiB.
func TestHybridPools(t *testing.T) {
	a, _ := builtin(t).Lookup("google/gemma-3-1b-it")
	l := a.layout(2, 1, 1, 16, stageOf(a.NumLayers, 1, 0))
	if l.total != 7 || l.perGroup != 4 || l.page != 16*2*256*2 {
		t.Fatalf("%d groups of %d layers, page %d", l.total, l.perGroup, l.page)
	}
	available := 6985 * gib / 100
	blocks := available / l.blockBytes()
	if got := float64(blocks) / float64(l.blocks(a, 4096, 2*16384)); math.Abs(got-636.49) > 0.05 {
		t.Errorf("concurrency %.2f, vLLM printed 636.49", got)
	}
	// A short window is what counts when little is in flight.
	if n := l.blocks(a, 4096, 0); n != 256+6*(ceilDiv(511, 16)+1) {
		t.Errorf("%d blocks for 4,096 tokens with nothing in flight", n)
	}
	// Within the window a sequence takes what its tokens need, and no block more.
	for length, want := range map[int64]int64{496: 31 * l.total * l.blockBytes(), 4096: l.blocks(a, 4096, 0) * l.blockBytes()} {
		if n, ok, why := KVUsedBytes(a, "", 1, 1, length, 16); n != want || !ok {
			t.Errorf("%d tokens take %d bytes, want %d (%s)", length, n, want, why)
		}
	}
}

// TestPlannerTable: eight models on H100 with a vLLM of late 2025 (about 0.11),
// none of which the formulas were fitted to; weights and peak activation in GiB.
// Source: llm-d-planner, docs/empirical-vllm-memory-results.md.
func TestPlannerTable(t *testing.T) {
	for _, c := range []struct {
		id                   string
		tp                   int64
		weights, activations float64
		slack                float64 // percent of weights
	}{
		{"openai/gpt-oss-20b", 1, 13.47, 7.38, 0.5},
		{"openai/gpt-oss-120b", 1, 64.38, 7.38, 0.5},
		{"RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", 1, 67.72, 0, 0.1},
		{"RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", 2, 33.88, 4.84, 0.1},
		{"meta-llama/Llama-3.1-8B-Instruct", 1, 14.99, 4.76, 0.1},
		{"Qwen/Qwen3-0.6B", 1, 1.12, 5.56, 0.5},
		{"Qwen/Qwen3-32B", 1, 61.03, 5.64, 0.1},
		{"Qwen/Qwen3-32B", 2, 30.59, 5.64, 0.1},
		{"mistralai/Mistral-Small-3.2-24B-Instruct-2506", 1, 44.76, 0, 0.1},
	} {
		e := NewEstimate(lookup(t, c.id), Request{Version: "0.11.0", TensorParallelSize: c.tp, Defaults: "serve"}, h100(t))
		w, act := float64(*e.Weights.Value)/float64(gib), float64(*e.Activations.Value)/float64(gib)
		if math.Abs(w/c.weights-1)*100 > c.slack {
			t.Errorf("%s TP %d: weights %.3f, measured %.2f", c.id, c.tp, w, c.weights)
		}
		if c.activations > 0 && math.Abs(act/c.activations-1) > 0.003 {
			t.Errorf("%s TP %d: activations %.3f, measured %.2f", c.id, c.tp, act, c.activations)
		}
	}
}

// TestOtherLogs: single logs of other people, of versions and formats that no
// formula was fitted to.
func TestOtherLogs(t *testing.T) {
	for _, c := range []struct {
		id, version string
		tp          int64
		weights     float64
		log         string
	}{
		{"RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "0.19.0", 1, 5.38, "035"},
		{"openai/gpt-oss-120b", "0.15.0", 4, 17.19, "027"},
		{"meta-llama/Llama-3.2-3B-Instruct", "0.8.2", 1, 6.016, "012"},
		{"openai/gpt-oss-20b", "0.19.0", 1, 13.64, "039"},
		{"MiniMaxAI/MiniMax-M2.5", "0.21.0", 8, 27.15, "047"},
		{"Qwen/Qwen3-30B-A3B", "0.20.0", 1, 56.88, "054"},
	} {
		e := NewEstimate(lookup(t, c.id), Request{Version: c.version, TensorParallelSize: c.tp}, h100(t))
		lo, hi := float64(*e.Weights.Low)/float64(gib), float64(*e.Weights.High)/float64(gib)
		if c.weights < lo-0.005 || c.weights > hi+0.005 {
			t.Errorf("log %s, %s: weights in [%.3f, %.3f], vLLM printed %.3f", c.log, c.id, lo, hi, c.weights)
		}
	}
}

func TestAllocator(t *testing.T) {
	p := &allocator{}
	for _, c := range []struct{ ask, count int64 }{
		{100, 512},                 // small pool
		{75 * mib, 76 * mib},       // the rest of 1 MiB is not split off
		{24*mib + 500, 25<<20 + 0}, // see below
		{9 * mib, 9 * mib},         // from a segment of 20 MiB
	} {
		if c.ask == 24*mib+500 { // 24.0005 MiB in a segment of 26: the rest is above 1 MiB and split off
			c.count = roundUp(c.ask, 512)
		}
		if got := p.alloc(c.ask); got != c.count {
			t.Errorf("alloc %d: counted %d, want %d", c.ask, got, c.count)
		}
	}
	p = &allocator{split: 20 * mib}
	if got := p.alloc(31*mib + 384<<10); got != 32*mib {
		t.Errorf("with max_split_size a large segment is kept whole: %d", got)
	}
	big := p.alloc(64 * mib)
	p.release(big)
	if got := p.alloc(48 * mib); got != 64*mib {
		t.Errorf("a freed segment within 20 MiB is taken whole: %d", got)
	}
}

func TestCatalogueLookups(t *testing.T) {
	c := builtin(t)
	if a, ok := c.Lookup("QWEN/qwen3-8b"); !ok || a.ID != "Qwen/Qwen3-8B" {
		t.Error("case is told apart")
	}
	if _, ok := c.Lookup("no/such"); ok {
		t.Error("an unknown name is found")
	}
	tiny := &Architecture{ID: "tiny", HFModelID: "meta-llama/Llama-3.2-1B-Instruct", NumLayers: 1}
	d := c.With(tiny)
	if a, ok := d.Lookup("tiny"); !ok || a.NumLayers != 1 || len(d.Names()) != len(c.Names())+1 {
		t.Error("With does not add")
	}
	if a, _ := d.Lookup("meta-llama/Llama-3.2-1B-Instruct"); a.NumLayers != 16 {
		t.Error("an entry's own id gives way to another entry's hf_model_id")
	}
	if _, ok := c.Lookup("tiny"); ok {
		t.Error("With changes its receiver")
	}
	var none *Catalogue
	if _, ok := none.Lookup("x"); ok || len(none.With(tiny).Names()) != 1 {
		t.Error("a nil catalogue")
	}
}

func TestGPUs(t *testing.T) {
	for product, want := range map[string]string{
		"NVIDIA H100 80GB HBM3": "h100-80gb", "NVIDIA H100 PCIe": "h100-80gb", "nvidia a100-sxm4-40gb": "a100-40gb",
		"NVIDIA A100 80GB PCIe": "a100-80gb",
		"NVIDIA H200":           "h200", "NVIDIA L4": "l4", "NVIDIA L40S": "l40s", "NVIDIA GeForce RTX 4090": "rtx-4090",
		"AMD Instinct MI300X OAM": "mi300x", "mi355x": "mi355x", "H100-80GB": "h100-80gb",
	} {
		if g, ok := LookupGPU(product); !ok || g.Name != want {
			t.Errorf("%q: %q, %v; want %s", product, g.Name, ok, want)
		}
	}
	for _, product := range []string{"NVIDIA H100 NVL", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA A100", "NVIDIA L40",
		"", "NVIDIA H200 NVL", "NVIDIA GeForce RTX 4090 Laptop GPU"} {
		if g, ok := LookupGPU(product); ok {
			t.Errorf("%q is taken for %s, which has another size", product, g.Name)
		}
	}
	for _, g := range GPUs() {
		if g.TotalBytes <= 0 || g.DriverTotal < g.TotalBytes || g.Source == "" || g.SMs == 0 || g.Vendor == "" {
			t.Errorf("%+v lacks something", g)
		}
	}
}

// TestCountAlone estimates a model of which only what a user typed is known:
// weights follow from the count; the KV cache does not, for the number of KV
// heads may be any part of the heads.
func TestCountAlone(t *testing.T) {
	a := &Architecture{
		ID: "mine", NativeDtype: "bfloat16", Params: 7_000_000_000, NumLayers: 32, NumHeads: 32, HiddenSize: 4096,
		HeadDim: 128,
	}
	e := NewEstimate(a, Request{}, h100(t))
	if e.Weights.Value == nil || *e.Weights.Value != 14_000_000_000 || *e.Weights.High <= *e.Weights.Value {
		t.Errorf("weights %+v", e.Weights)
	}
	if e.KVCache.Value != nil || e.KVBytesPerToken != nil || !strings.Contains(e.KVCache.Reason, "KV heads") {
		t.Errorf("KV cache %+v of a model whose KV heads nobody named", e.KVCache)
	}
}

// TestPeakHoldsTheSampler: whatever the forward pass takes, the last stage samples,
// so the interval begins no lower than that.
func TestPeakHoldsTheSampler(t *testing.T) {
	c, between := builtin(t), 0
	for _, id := range c.Names() {
		a, _ := c.Lookup(id)
		for _, seqs := range []int64{16, 64, 128, 256, 1024} {
			e := Estimate{}
			s := newSetup(a, Request{MaxNumSeqs: ptr(seqs)}, h100(t), rel26, &e)
			if s.limits(&e); a.Layout == "" || s.width == 0 || a.stateLayers() {
				continue
			}
			p, _ := s.peakOf(&e, true)
			low := *p.activations(&e).Low
			least := p.expertWorkspace() + p.stageBuffers() + cublasWorkspace(s.g) + p.sampled()
			if low < least-least/40 {
				t.Errorf("%s, %d sequences: low %d is below what sampling takes, %d", id, seqs, low, least)
			}
			if forward, _, _ := p.forward(&e); e.ActivationsAt != "sampler" && p.sampled() > forward {
				between++
			}
		}
	}
	if between == 0 {
		t.Error("no case lies between the forward pass and the tuner's buffer")
	}
}

// TestConcurrentUse: one architecture may be estimated by several goroutines.
func TestConcurrentUse(t *testing.T) {
	a, g := lookup(t, "Qwen/Qwen3-14B"), h100(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for tp := int64(1); tp <= 8; tp *= 2 {
				if e := NewEstimate(a, Request{TensorParallelSize: tp, PipelineParallelSize: int64(1 + i%2)},
					g); e.Weights.Value == nil {
					t.Error("no weights")
				}
			}
		})
	}
	wg.Wait()
}

func TestBuffers(t *testing.T) {
	a := lookup(t, "meta-llama/Llama-3.1-8B-Instruct")
	// 16.22 GiB after load with 1,024 sequences, 15.70 with 16 (measured, 0.26, V2).
	d := BufferBytes(a, "v2", 1024, 16384, 8192, 16) - BufferBytes(a, "v2", 16, 16384, 8192, 16)
	if got := float64(d) / float64(gib); math.Abs(got-0.52) > 0.01 {
		t.Errorf("1,024 sequences hold %.3f GiB more than 16, measured 0.52", got)
	}
}

// TestCacheWithoutLayout: the bytes of a KV cache are what is left, also where
// what it holds is not known.
func TestCacheWithoutLayout(t *testing.T) {
	a, err := FromDir("testdata/families/deepseek_v4")
	if err != nil {
		t.Fatal(err)
	}
	g, _ := LookupGPU("h200")
	e := NewEstimate(a, Request{TensorParallelSize: 8}, g)
	if e.KVCache.Value == nil || *e.KVCache.Value < 10*gib || e.KVCache.Low == nil || e.KVCacheTokens.Value != nil ||
		!strings.Contains(e.KVCacheTokens.Reason, "compressed attention") || e.Fits != nil {
		t.Errorf("TP 8: %+v, tokens %+v, fits %v", e.KVCache, e.KVCacheTokens, e.Fits)
	}
	if e = NewEstimate(a, Request{TensorParallelSize: 2}, g); e.Fits == nil || *e.Fits || e.ShortBy == nil || *e.ShortBy <= 0 {
		t.Errorf("TP 2: fits %v, short by %v, %s", e.Fits, e.ShortBy, e.Reason)
	}
}

package models

import (
	"cmp"
	"fmt"
	"math"
)

const (
	reasonNoModel = "the catalogue does not know the model's architecture: " +
		"add it with `models add`, a model block, or a folder with its config.json"
	reasonVersion = "the version of vLLM could not be read; expected one like \"0.26.0\""
	reasonV0      = "the arithmetic knows the V1 engine, which vLLM uses from 0.8 on"
	reasonNoGPU   = "no device was given"
	reasonNoLaw   = "no measurement of any vLLM has this term"
)

func ptr[T any](v T) *T { return &v }

func figure(v, low, high int64, source string) Figure {
	return Figure{Value: &v, Low: ptr(min(low, v)), High: ptr(max(high, v)), Source: source}
}

// within is a figure whose truth lies within parts in a thousand of it.
func within(v, perMille int64, source string) Figure {
	d := v / 1000 * perMille
	return figure(v, v-d, v+d, source)
}

func unknown(reason string) Figure { return Figure{Reason: reason} }

// A setup is a request with vLLM's defaults filled in.
type setup struct {
	a           *Architecture
	g           GPU
	r           Request
	v           release
	runner      string
	tp, pp      int64
	tokens      int64
	seqs        int64
	maxLen      int64 // 0: not known
	block       int64
	width       int64 // of the model's dtype; 0: not known
	kvWidth     int64
	utilization float64
	laws        *Laws
	graph       Figure // what vLLM takes off the budget for graphs
}

// NewEstimate computes what a profile will need on GPUs of kind g. Every
// figure that the arithmetic cannot tell is nil and says why; nothing is
// guessed. a may be nil: then what depends on the device and the version alone is given.
// It takes microseconds once an architecture was seen, and may be called by
// several goroutines.
func NewEstimate(a *Architecture, r Request, g GPU) Estimate {
	e := Estimate{Version: r.Version}
	if e.Version == "" {
		e.Version = NewestVersion
	}
	v, ok := parseVersion(r.Version)
	if !ok || v < rel08 {
		return nothing(e, v, ok)
	}
	s := newSetup(a, r, g, v, &e)
	s.limits(&e)
	e.Requested = s.requested()
	s.parts(&e)
	r.Given.apply(&e)
	s.graph = s.r.Given.graphEstimate(&e, s.graph)
	if a != nil {
		s.cache(&e)
	}
	s.serving(&e)
	return e
}

// nothing is the estimate for a version that the arithmetic does not know.
func nothing(e Estimate, v release, read bool) Estimate {
	e.Reason = reasonV0
	if !read {
		e.Reason = reasonVersion
	}
	e.lack(e.Reason)
	for _, p := range []*Figure{&e.NonTorch, &e.Context, &e.Requested, &e.Growth} {
		*p = unknown(e.Reason)
	}
	return e
}

// lack leaves out what follows from the model.
func (e *Estimate) lack(reason string) {
	for _, p := range []*Figure{&e.Weights, &e.Activations, &e.CUDAGraphs, &e.Buffers, &e.KVCache, &e.KVCacheTokens} {
		*p = unknown(reason)
	}
}

func (e *Estimate) warn(format string, args ...any) {
	e.Warnings = append(e.Warnings, fmt.Sprintf(format, args...))
}

func newSetup(a *Architecture, r Request, g GPU, v release, e *Estimate) setup {
	s := setup{a: a, g: g, r: r, v: v, tp: max(r.TensorParallelSize, 1), pp: max(r.PipelineParallelSize, 1)}
	s.laws = r.Laws
	if s.laws == nil {
		s.laws = builtinLaws()
	}
	if a != nil && a.derived == nil {
		b := *a
		b.finish()
		s.a = &b
	}
	s.speculation(e)
	sure := true
	switch r.ModelRunner {
	case runnerV1, runnerV2:
		s.runner = r.ModelRunner
	default:
		s.runner, sure = v.runner(s.a)
	}
	if !sure {
		e.warn("which models get the V2 model runner in this version of vLLM was not read; %s is assumed (set model_runner)",
			s.runner)
	}
	e.ModelRunner = s.runner
	s.utilization = v.utilization()
	if r.GPUMemoryUtilization != nil {
		s.utilization = *r.GPUMemoryUtilization
	}
	s.block = blockSize(deref(r.BlockSize))
	if s.a != nil {
		if name, ok := dtypeOf(s.a, r.Dtype); ok {
			s.width = dtypeSize(name)
		}
		s.kvWidth = kvWidth(s.a, r.KVCacheDtype, r.Dtype)
		s.maxLen = s.a.MaxPosition
	}
	if r.MaxModelLen != nil {
		s.maxLen = *r.MaxModelLen
	}
	return s
}

func deref(p *int64) int64 {
	if p == nil {
		return 0
	}
	return *p
}

// limits sets the effective max_num_batched_tokens, max_num_seqs and max_model_len.
func (s *setup) limits(e *Estimate) {
	s.tokens, s.seqs = s.v.maxNum(s.g, s.r.Defaults == "serve")
	if s.r.MaxNumSeqs != nil {
		s.seqs = *s.r.MaxNumSeqs
	}
	if s.r.MaxNumBatchedTokens != nil {
		s.tokens = *s.r.MaxNumBatchedTokens
	} else if s.maxLen > 0 {
		s.tokens = min(s.tokens, s.seqs*s.maxLen)
	}
	if s.r.MaxNumSeqs == nil {
		s.seqs = min(s.seqs, s.tokens)
	}
	e.MaxNumBatchedTokens, e.MaxNumSeqs = ptr(s.tokens), ptr(s.seqs)
	if s.maxLen > 0 {
		e.MaxModelLen = ptr(s.maxLen)
	}
}

// requested is total_memory x gpu_memory_utilization.
// Source: vllm/v1/worker/utils.py, request_memory.
func (s *setup) requested() Figure {
	switch {
	case s.r.KVCacheMemoryBytes != nil:
		return unknown("kv_cache_memory_bytes is set: vLLM keeps no budget")
	case s.g.TotalBytes == 0:
		return unknown(reasonNoGPU)
	}
	n := int64(math.Ceil(float64(s.g.TotalBytes) * s.utilization))
	if s.g.Nominal {
		return within(n, 10, "total memory x gpu_memory_utilization, total from the data sheet")
	}
	return within(n, 1, "total memory x gpu_memory_utilization")
}

// parts fills everything but the KV cache.
func (s *setup) parts(e *Estimate) {
	e.NonTorch = s.nonTorch(e)
	e.Context = s.context(e)
	e.BuffersInBudget = s.v.consumed()
	if s.a == nil {
		e.Reason = reasonNoModel
		e.lack(reasonNoModel)
		return
	}
	e.Weights = s.weights(0)
	if n, ok, _ := kvBytesPerToken(s.a, s.r.KVCacheDtype, s.r.Dtype, s.tp); ok {
		e.KVBytesPerToken = ptr(n)
	}
	if s.a.VocabSize > 0 && s.maxLen > 0 {
		b := BufferBytes(s.a, s.runner, s.seqs, s.tokens, s.maxLen, s.block)
		e.Buffers = within(b, 50, "S·V·4 + 2·S·V/8 (V2 runner) + block tables")
	} else {
		e.Buffers = unknown("the vocabulary or the longest sequence is not known")
	}
	s.shapes(e)
}

// oddVocab says that the V1 runner's sampling kernel works on rows that are not
// aligned.
func (s *setup) oddVocab() bool {
	return s.a != nil && s.a.VocabSize%16 != 0 && s.runner == runnerV1 && s.v >= rel17
}

// weights is the figure of one pipeline stage.
func (s *setup) weights(rank int64) Figure {
	n, ok, reason := weightBytes(s.a, s.r.Dtype, s.r.Quantization, s.tp, s.pp, rank, s.v)
	switch {
	case !ok:
		return unknown(reason)
	case s.a.Layout == "" || !s.a.towersKnown():
		return within(n, 100, "parameter count x bytes: the modules of the model are not known")
	case s.a.roughTowers() > 0:
		d := s.a.roughTowers() * max(s.width, 2) / 2
		return figure(n, n-d-n/200, n+d+n/200, "modules, with an encoder of unknown type counted as a plain transformer")
	case s.a.Quantization != nil || (s.r.Quantization != "" && s.r.Quantization != "auto"):
		return figure(n, n-n/50, n+n/33, "modules, quantized: what kernels repack is not counted")
	}
	return within(n, 5, "modules as torch's allocator counts them")
}

// shapes fills what follows from the shape of the layers: activations and graphs.
func (s *setup) shapes(e *Estimate) {
	if s.a.Layout == "" || s.width == 0 {
		why := "the model type is not one whose layers are known"
		e.Activations, e.CUDAGraphs = unknown(why), unknown(why)
		return
	}
	p, ok := s.peakOf(e, s.pp == 1)
	first := stageOf(s.a.NumLayers, s.pp, 0)
	x := graphs{setup: s, layers: first.last - first.first}
	var graphs bool
	if x.law, graphs = s.law(e, termGraphs); !ok || !graphs {
		e.Activations, e.CUDAGraphs = unknown(reasonNoLaw), unknown(reasonNoLaw)
		return
	}
	e.Activations = p.activations(e)
	if s.r.EnforceEager {
		e.CUDAGraphs = figure(0, 0, 0, "enforce_eager captures none")
		return
	}
	e.CUDAGraphs = x.figure()
	if s.v.graphsInBudget(s.runner) {
		s.graph = x.estimate(e, e.CUDAGraphs)
		e.GraphEstimate = s.graph.Value
	}
}

// inFlight is how many tokens may be scheduled and not yet settled, which
// sliding and chunked layers keep beside their window: one batch, from 0.26 on
// two with asynchronous scheduling, on the V2 runner one more than there are stages.
// Source: vllm/config/vllm.py, max_in_flight_tokens.
func (s *setup) inFlight() int64 {
	if s.v < rel26 {
		return s.tokens
	}
	if s.runner == runnerV2 || s.pp == 1 {
		return s.tokens * (s.pp + 1)
	}
	return s.tokens * s.pp
}

// room is what one stage has for its KV cache, value and interval.
type room struct {
	value, low, high int64
	unsure           bool // a part has no interval, and so neither has the room
}

// figure is the room's.
func (r room) figure(source string) Figure {
	if r.unsure {
		return Figure{Value: ptr(r.value), Source: source, Reason: "no interval: a part of it has none"}
	}
	return figure(r.value, r.low, r.high, source)
}

// cache fills KV bytes, blocks, tokens, concurrency and whether the profile fits.
func (s *setup) cache(e *Estimate) {
	if reason := s.roomReason(e); reason != "" {
		e.KVCache, e.KVCacheTokens, e.Reason = unknown(reason), unknown(reason), reason
		s.weightsAlone(e)
		return
	}
	first := s.firstRoom(e)
	e.KVCache = first.figure("requested - weights - activations - non-torch - graph estimate")
	if reason := s.layoutReason(); reason != "" { // its bytes are what is left, whatever is made of them
		e.KVCacheTokens, e.Reason = unknown(reason), reason
		if first.value <= 0 {
			e.Fits, e.ShortBy, e.Reason = ptr(false), ptr(-first.value), "no memory is left for a KV cache"
		}
		s.startUp(e)
		return
	}
	if s.r.KVCacheMemoryBytes != nil {
		e.KVCache.Source = "kv_cache_memory_bytes"
	}
	blocks, least := int64(math.MaxInt64), room{}
	var lay, mine cacheLayout
	for rank := range s.pp {
		r := first
		if s.pp > 1 && s.r.KVCacheMemoryBytes == nil {
			r = s.stageRoom(e, rank, first)
		}
		mine = s.a.layout(s.kvWidth, s.tp, s.pp, s.block, stageOf(s.a.NumLayers, s.pp, rank))
		if mine.blockBytes() == 0 {
			continue
		}
		if n := r.value / mine.blockBytes(); n < blocks {
			blocks, least, lay = n, r, mine
		}
	}
	if lay.blockBytes() == 0 {
		e.KVCacheTokens = unknown("the model keeps no KV cache")
		return
	}
	s.tokensOf(e, lay, max(blocks, 0), least)
}

// weightsAlone says that a profile cannot fit where the weights alone are more
// than vLLM requests, whatever else is not known.
func (s *setup) weightsAlone(e *Estimate) {
	if e.Weights.Value == nil || e.Weights.Low == nil || e.Requested.Value == nil || *e.Weights.Low <= *e.Requested.Value {
		return
	}
	e.Fits = ptr(false)
	e.ShortBy = ptr(*e.Weights.Value - *e.Requested.Value)
	e.Reason = "the weights alone are more than vLLM requests"
}

// layoutReason says why it cannot be told what the KV cache holds.
func (s *setup) layoutReason() string {
	if reason := cacheKnown(s.a); reason != "" {
		return reason
	}
	if s.kvWidth == 0 {
		return "the width of the KV cache's dtype is not known"
	}
	return ""
}

// roomReason says what is missing for the bytes of the KV cache.
func (s *setup) roomReason(e *Estimate) string {
	if s.r.KVCacheMemoryBytes != nil {
		return ""
	}
	for _, part := range []*Figure{&e.Requested, &e.Weights, &e.Activations, &e.NonTorch} {
		if part.Value == nil {
			return cmp.Or(s.layoutReason(), part.Reason)
		}
	}
	return ""
}

// firstRoom is the room of the first stage.
func (s *setup) firstRoom(e *Estimate) room {
	if s.r.KVCacheMemoryBytes != nil {
		n := *s.r.KVCacheMemoryBytes
		return room{value: n, low: n, high: n}
	}
	parts := append(make([]Figure, 0, 6), e.Requested, e.Weights, e.Activations, e.NonTorch)
	if e.BuffersInBudget && e.Buffers.Value != nil {
		parts = append(parts, e.Buffers)
	}
	if e.GraphEstimate != nil {
		parts = append(parts, s.graph)
	}
	n := 2 * *e.Requested.Value
	for _, part := range parts {
		n -= *part.Value
	}
	// The parts miss independently: their squares add up.
	low, high := make([]int64, 0, 6), make([]int64, 0, 6)
	for i, part := range parts {
		down, up, ok := spread(part)
		if !ok {
			return room{value: n, unsure: true}
		}
		if i == 0 { // more of it is more room
			down, up = up, down
		}
		low, high = append(low, up), append(high, down)
	}
	return room{value: n, low: n - rss(low...), high: n + rss(high...)}
}

func rss(parts ...int64) int64 {
	var sum float64
	for _, p := range parts {
		sum += float64(p) * float64(p)
	}
	return int64(math.Sqrt(sum))
}

// stageRoom is the room of another pipeline stage; it also notes the stage.
func (s *setup) stageRoom(e *Estimate, rank int64, first room) room {
	w, _, _ := weightBytes(s.a, s.r.Dtype, s.r.Quantization, s.tp, s.pp, rank, s.v)
	act := s.stageActivations(rank == s.pp-1)
	// Against the arithmetic's own first stage: what is given replaces both alike.
	w0, _, _ := weightBytes(s.a, s.r.Dtype, s.r.Quantization, s.tp, s.pp, 0, s.v)
	act0 := s.stageActivations(false)
	d := w - w0 + act - act0
	w, act = w-w0+*e.Weights.Value, act-act0+*e.Activations.Value
	st := stageOf(s.a.NumLayers, s.pp, rank)
	r := room{value: first.value - d, low: first.low - d, high: first.high - d, unsure: first.unsure}
	e.Stages = append(e.Stages, StageEstimate{Layers: st.last - st.first, Weights: w, Activations: act, KVCache: r.value})
	return r
}

// stageActivations are those of a stage that samples or does not.
func (s *setup) stageActivations(last bool) int64 {
	p, ok := s.peakOf(nil, last)
	if !ok {
		return 0
	}
	return *p.activations(nil).Value
}

// tokensOf fills blocks, tokens, concurrency, the longest context and Fits.
func (s *setup) tokensOf(e *Estimate, l cacheLayout, blocks int64, r room) {
	e.KVCacheBlocks = ptr(blocks)
	inFlight := s.inFlight()
	tokens := func(blocks int64) int64 {
		if s.v >= rel20p1 && s.maxLen > 0 {
			return int64(float64(blocks) / float64(l.blocks(s.a, s.maxLen, inFlight)) * float64(s.maxLen))
		}
		return blocks / max(l.total, 1) * l.block
	}
	low, high := max(r.low/l.blockBytes(), 0), max(r.high/l.blockBytes(), 0)
	e.KVCacheTokens = room{tokens(blocks), tokens(low), tokens(high), r.unsure}.
		figure("blocks of the pool that all groups of layers share")
	longest := s.longest(&l, blocks, inFlight)
	e.MaxContext = ptr(longest)
	if s.maxLen > 0 {
		need := l.blocks(s.a, s.maxLen, inFlight)
		e.MaxConcurrency = ptr(float64(blocks) / float64(need))
		short := need*l.blockBytes() - r.value
		e.ShortBy = ptr(short)
		e.Fits = ptr(short <= 0)
		if short > 0 {
			e.Reason = "one sequence of max_model_len does not fit into the KV cache"
			if r.value <= 0 {
				e.Reason = "no memory is left for a KV cache"
			}
		}
	}
	s.startUp(e)
	s.queueing(e, &l, blocks)
	s.refused(e)
}

// refused warns of what vLLM does not start with, whatever the memory.
// Source: vllm/config/model.py, verify_with_parallel_config and _get_and_verify_max_len.
func (s *setup) refused(e *Estimate) {
	if s.a.NumHeads > 0 && s.a.NumHeads%s.tp != 0 {
		e.warn("%d attention heads are not divisible by tensor_parallel_size %d: vLLM refuses it", s.a.NumHeads, s.tp)
	}
	if s.a.MaxPosition > 0 && s.maxLen > s.a.MaxPosition {
		e.warn("max_model_len %d is more than the model's %d positions: vLLM refuses it "+
			"unless VLLM_ALLOW_LONG_MAX_MODEL_LEN is set or the positions are scaled", s.maxLen, s.a.MaxPosition)
	}
}

// longest is the longest sequence that the pool holds, at most what the model
// was trained for.
func (s *setup) longest(l *cacheLayout, blocks, inFlight int64) int64 {
	most := s.a.MaxPosition
	if most == 0 {
		most = blocks * l.block
	}
	if l.blocks(s.a, most, inFlight) <= blocks {
		return most
	}
	low, high := int64(0), most // low fits, high does not
	for high-low > l.block {
		mid := (low + high) / 2
		if l.blocks(s.a, mid, inFlight) <= blocks {
			low = mid
		} else {
			high = mid
		}
	}
	return low / l.block * l.block
}

// startUp says that vLLM would refuse to start: less is free than it is asked to use.
// Source: vllm/v1/worker/utils.py, request_memory.
func (s *setup) startUp(e *Estimate) {
	if e.Requested.Value == nil || e.Context.Value == nil {
		return
	}
	if free := s.g.TotalBytes - *e.Context.Low; free < *e.Requested.Value {
		e.Fits = ptr(false)
		e.ShortBy = ptr(*e.Requested.Value - free)
		e.Reason = "gpu_memory_utilization asks for more than is free once the process has its CUDA context"
	}
}

// queueing warns where not all sequences of the batch run at once, and says
// what they fill.
func (s *setup) queueing(e *Estimate, l *cacheLayout, blocks int64) {
	length := s.r.InputLen + s.r.OutputLen
	if length <= 0 || s.r.BatchSize <= 0 {
		return
	}
	used := s.r.BatchSize * l.taken(s.a, length)
	e.KVUsed = ptr(used * l.blockBytes())
	if s.r.BatchSize > s.seqs {
		e.warn("batch_size %d exceeds max_num_seqs %d: sequences queue, and the latency measures the queue",
			s.r.BatchSize, s.seqs)
	}
	if used > blocks && blocks > 0 { // without any it does not start
		e.warn("batch_size %d: sequences of %d tokens need %d blocks of the KV cache, which has %d: "+
			"sequences queue or are preempted, and the latency measures that", s.r.BatchSize, length, used, blocks)
	}
	if s.maxLen > 0 && length > s.maxLen {
		e.warn("input_len + output_len is %d, more than max_model_len %d: vLLM refuses it", length, s.maxLen)
	}
}

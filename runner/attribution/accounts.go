package attribution

import (
	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// accounts reads vLLM's account of each rank and what the arithmetic adds.
func (w *work) accounts() {
	ranks := len(w.c.tracks)
	for i := range w.c.tracks {
		w.ledgers = append(w.ledgers, readLedger(w.a, i, ranks))
	}
	b := &w.r.BenchmarkParameters
	w.kvGiven = b.KVCacheMemoryBytes != nil
	w.utilization = first(
		of(w.a, func(a *runner.Account) *float64 { return a.GPUMemoryUtilization }),
		b.Effective.EffectiveGPUMemoryUtilization,
		b.GPUMemoryUtilization,
	)
	w.layers = first(w.r.ModelInfo.NumLayers)
	w.buffers()
	w.shape()
}

// of reads a field of an account that may be missing.
func of[T any](a *runner.Account, f func(*runner.Account) *T) *T {
	if a == nil {
		return nil
	}
	return f(a)
}

// first is the first figure that is known; 0 if none is.
func first[T int64 | float64](candidates ...*T) T {
	for _, c := range candidates {
		if c != nil && *c != 0 {
			return *c
		}
	}
	return 0
}

func (w *work) model() *models.Architecture {
	if w.m.Job.Profile == nil {
		return nil
	}
	return w.m.Job.Profile.Model
}

// buffers works out the runner's persistent buffers: V2 holds about
// max_num_seqs x vocabulary x 4 B of sampler state from loading on, and no line
// of its log says so (after load: 16.22 GiB with 1,024 sequences, 15.70 with
// 16, of llama-3.1-8b, vocabulary 128,256).
func (w *work) buffers() {
	b, vocab := &w.r.BenchmarkParameters, first(w.r.ModelInfo.VocabSize)
	seqs, tokens, source := w.limits()
	w.logits = seqs * vocab * 4
	var f figure
	switch {
	case w.c.host:
		f = missing("a machine without a GPU: not known")
	case w.a == nil:
		f = missing("vLLM left no log that could be read")
	case w.a.ModelRunner == nil && (w.a.Engine == nil || *w.a.Engine != "V0"):
		f = missing("vLLM's log does not say which model runner it used")
	case w.a.ModelRunner == nil || *w.a.ModelRunner != "v2":
		f = known(0, "the V1 model runner keeps no sampler state", runner.HighCalculated)
	case vocab == 0:
		f = missing("the model's vocabulary is unknown")
	case seqs == 0:
		f = missing("max_num_seqs was left to vLLM, and neither its log nor the size of the device says what it chose")
	default:
		length := first(
			of(w.a, func(a *runner.Account) *int64 { return a.MaxModelLen }),
			b.Effective.EffectiveMaxModelLen,
			b.MaxModelLen,
		)
		block := max(16, first(w.a.BlockSize, b.Effective.EffectiveBlockSize, b.BlockSize))
		f = known(models.BufferBytes(&models.Architecture{VocabSize: vocab}, "v2", seqs, tokens, length, block),
			"max_num_seqs x vocabulary x 4 B, bit masks and block tables of the V2 model runner"+source, runner.HighCalculated)
	}
	for _, l := range w.ledgers {
		l.buffers = f
	}
}

// limits are max_num_seqs and max_num_batched_tokens: as the log says, as they
// were asked, else vLLM's own defaults for the device.
func (w *work) limits() (seqs, tokens int64, source string) {
	b := &w.r.BenchmarkParameters
	seqs = first(
		of(w.a, func(a *runner.Account) *int64 { return a.MaxNumSeqs }),
		b.Effective.EffectiveMaxNumSeqs,
		b.MaxNumSeqs,
	)
	tokens = first(
		of(w.a, func(a *runner.Account) *int64 { return a.MaxNumBatchedTokens }),
		b.Effective.EffectiveMaxNumBatchedTokens,
		b.MaxNumBatchedTokens,
	)
	if seqs > 0 {
		return seqs, tokens, ""
	}
	gpu := models.GPU{}
	if len(w.m.Job.Devices) > 0 {
		d := &w.m.Job.Devices[0]
		gpu, _ = models.LookupGPU(d.Name)
		if gpu.TotalBytes == 0 && d.TotalBytes != nil {
			gpu.TotalBytes = *d.TotalBytes
		}
	}
	if gpu.TotalBytes == 0 && len(w.ledgers) > 0 {
		gpu.TotalBytes = w.ledgers[0].total.bytes
	}
	if gpu.TotalBytes == 0 && w.a != nil && w.a.Error != nil {
		gpu.TotalBytes = first(w.a.Error.TotalBytes)
	}
	if gpu.TotalBytes == 0 {
		return 0, tokens, ""
	}
	request := models.Request{MaxNumBatchedTokens: &tokens}
	if tokens == 0 {
		request.MaxNumBatchedTokens = nil
	}
	if v := of(w.a, func(a *runner.Account) *string { return a.VLLMVersion }); v != nil {
		request.Version = *v
	}
	if p := w.m.Job.Profile; p != nil {
		request.Defaults = p.Engine.Defaults
	}
	e := models.NewEstimate(nil, request, gpu)
	return first(e.MaxNumSeqs), first(&tokens, e.MaxNumBatchedTokens), " (max_num_seqs: vLLM's default for this device)"
}

// shape says what the batch uses of the KV cache, and what a token costs.
func (w *work) shape() {
	b := &w.r.BenchmarkParameters
	l := w.ledgers[0]
	w.kv.used = missing("neither the engine nor the arithmetic says what a token takes")
	if w.a != nil && w.a.BlockSize != nil {
		w.kv.blockSize = *w.a.BlockSize
	}
	if w.a == nil || w.a.TotalGPUKVCacheTokens == nil || *w.a.TotalGPUKVCacheTokens <= 0 || !l.kv.ok {
		return
	}
	w.kv.tokens = *w.a.TotalGPUKVCacheTokens
	w.kv.tokenBytes = float64(l.kv.bytes) / float64(w.kv.tokens)
	total := 0.0 // of all ranks
	for _, l := range w.ledgers {
		total += float64(l.kv.bytes)
	}
	perToken := total / float64(w.kv.tokens)
	if s := w.session(); s != nil && s.KVUsedTokensPeak != nil {
		w.kv.used = known(int64(float64(*s.KVUsedTokensPeak)*perToken), "engine", runner.HighFromVLLMLogs)
		return
	}
	if w.failed {
		w.kv.used = missing("the run ended before its batch had run")
		return
	}
	if length := b.InputLen + b.OutputLen; b.BatchSize*length > 0 {
		w.usedKV(length, total, perToken)
	}
}

// usedKV works out what the batch fills of the cache, of sequences of length
// tokens; total is the cache of all ranks.
func (w *work) usedKV(length int64, total, perToken float64) {
	b := &w.r.BenchmarkParameters
	dtype := ""
	for _, d := range []*string{w.a.KVCacheDtype, b.Effective.EffectiveKVCacheDtype, b.KVCacheDtype} {
		if d != nil && dtype == "" {
			dtype = *d
		}
	}
	ranks := int64(len(w.ledgers))
	tp := max(1, b.TensorParallelSize)
	if n, ok, _ := models.KVUsedBytes(w.model(), dtype, tp, b.BatchSize, length, w.kv.blockSize); ok && n > 0 {
		w.kv.used = known(min(n*ranks, int64(total)), "calculated", runner.HighCalculated)
		return
	}
	w.kv.used = known(int64(float64(min(b.BatchSize*length, w.kv.tokens))*perToken), "calculated", runner.HighCalculated)
}

func (w *work) session() *runner.Session {
	if w.m.Measurement != nil && w.m.Measurement.Session != nil {
		return w.m.Measurement.Session
	}
	return w.r.Session
}

// facts bound the search for the steps of one GPU.
func (w *work) facts(rank int) facts {
	l := w.ledgers[rank]
	f := facts{world: len(w.c.tracks)}
	if l.weights.ok {
		f.weights = l.weights.bytes
	}
	if l.buffers.ok {
		f.buffers = l.buffers.bytes
	}
	f.v2 = w.a != nil && w.a.ModelRunner != nil && *w.a.ModelRunner == "v2"
	if l.kv.ok {
		f.kv = l.kv.bytes
	}
	if l.total.ok && l.free.ok {
		f.context = l.total.bytes - l.free.bytes
	}
	f.latency = w.r.LatencyStats
	if w.m.Measurement != nil && w.m.Measurement.Latency != nil {
		f.latency = w.m.Measurement.Latency
	}
	return f
}

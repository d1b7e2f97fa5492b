package attribution

import (
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// accounts reads vLLM's account of each rank and what the arithmetic adds.
func (at *Attributor) accounts(w *work) {
	ranks := len(w.c.tracks)
	for i := range w.c.tracks {
		w.ledgers = append(w.ledgers, readLedger(w.a, i, ranks))
	}
	b := &w.r.BenchmarkParameters
	w.kvGiven = b.KVCacheMemoryBytes != nil
	for _, u := range []*float64{b.GPUMemoryUtilization, b.Effective.GPUMemoryUtilization} {
		if u != nil {
			w.utilization = *u
		}
	}
	if w.a != nil && w.a.GPUMemoryUtilization != nil {
		w.utilization = *w.a.GPUMemoryUtilization
	}
	if n := w.r.ModelInfo.NumLayers; n != nil {
		w.layers = *n
	}
	at.buffers(w)
	w.shape()
}

// buffers works out the runner's persistent buffers: V2 holds max_num_seqs x
// vocabulary x 4 B of sampler state from loading on, and no line of its log
// says so (after load: 16.22 GiB with 1,024 sequences, 15.70 with 16, of
// llama-3.1-8b, vocabulary 128,256).
func (at *Attributor) buffers(w *work) {
	seqs, reason := at.seqs(w)
	vocab := w.r.ModelInfo.VocabSize
	if seqs > 0 && vocab != nil {
		w.logits = seqs * *vocab * 4
	}
	f := figure{}
	switch {
	case w.c.host:
		f = missing("a machine without a GPU: not known")
	case w.a == nil:
		f = missing("vLLM left no log that could be read")
	case w.a.ModelRunner != nil && *w.a.ModelRunner == "v1", w.a.ModelRunner == nil && w.a.Engine != nil && *w.a.Engine == "V0":
		f = known(0, "the V1 model runner's buffers are within its activation", runner.HighCalculated)
	case w.a.ModelRunner == nil:
		f = missing("vLLM's log does not say which model runner it used")
	case vocab == nil:
		f = missing("the model's vocabulary is unknown")
	case seqs == 0:
		f = missing("%s", reason)
	default:
		f = known(w.logits, "max_num_seqs x vocabulary x 4 B (V2 model runner)", runner.HighCalculated)
	}
	for _, l := range w.ledgers {
		l.buffers = f
	}
}

func (at *Attributor) seqs(w *work) (int64, string) {
	b := &w.r.BenchmarkParameters
	candidates := []*int64{b.Effective.MaxNumSeqs, b.MaxNumSeqs}
	if w.a != nil {
		candidates = append([]*int64{w.a.MaxNumSeqs}, candidates...)
	}
	for _, v := range candidates {
		if v != nil && *v > 0 {
			return *v, ""
		}
	}
	if at.MaxNumSeqs != nil {
		if v, ok := at.MaxNumSeqs(w.m.Job, w.a); ok {
			return v, ""
		}
	}
	if v, ok := w.defaultSeqs(); ok {
		return v, ""
	}
	return 0, "max_num_seqs was left to vLLM, and neither its log nor the size of the device says what it chose"
}

// defaultSeqs is vLLM's own default of max_num_seqs: 1,024 on a device of 70
// GiB or more that is no A100, else 256 (arg_utils.get_batch_defaults, of the
// versions that have the V2 model runner; only for that is it asked).
func (w *work) defaultSeqs() (int64, bool) {
	total := int64(0)
	if l := w.ledgers[0]; l.total.ok {
		total = l.total.bytes
	} else if len(w.m.Job.Devices) > 0 && w.m.Job.Devices[0].TotalBytes != nil {
		total = *w.m.Job.Devices[0].TotalBytes
	}
	switch {
	case total == 0:
		return 0, false
	case total >= 70*runner.GiB && !strings.Contains(strings.ToLower(w.m.Job.Devices[0].Name), "a100"):
		return 1024, true
	}
	return 256, true
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
	want := b.BatchSize * (b.InputLen + b.OutputLen)
	if want <= 0 {
		return
	}
	w.kv.used = known(int64(float64(min(want, w.kv.tokens))*perToken), "calculated", runner.HighCalculated)
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
	if l.total.ok && l.free.ok {
		f.context = l.total.bytes - l.free.bytes
	}
	f.latency = w.r.LatencyStats
	if w.m.Measurement != nil && w.m.Measurement.Latency != nil {
		f.latency = w.m.Measurement.Latency
	}
	return f
}

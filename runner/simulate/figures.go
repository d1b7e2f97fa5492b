package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// figures are the truth of one simulated start: what every rank holds and how
// long everything takes, before anything is printed.
type figures struct {
	arch      *models.Architecture
	gpu       models.GPU
	words     *words
	runner    string // "v1", "v2"
	inProcess bool   // the engine runs in the process of the front end
	ranks     int
	tp        int

	util      float64
	requested int64
	maxLen    int64
	maxTokens int64
	maxSeqs   int64
	blockSize int64

	kvPerToken   int64 // of one rank
	kvTokens     int64
	blocks       int64
	concurrency  float64
	captureSizes []int // each is captured twice: piecewise and full
	estimate     bool  // of the graphs, taken off the budget

	memory    []rankMemory
	times     times
	warmups   []float64 // s, each warm-up iteration
	latencies []float64 // s, each measured iteration
	power     float64   // factor of planted changes and noise
}

// rankMemory is what one rank holds, in bytes, in the order in which it comes.
type rankMemory struct {
	others     int64 // held by other processes when it started
	context    int64
	weights    int64
	buffers    int64 // persistent; outside vLLM's account, or inBudget
	inBudget   bool
	nonTorch   int64
	activation int64 // peak of the profiling run
	graphEst   int64 // taken off the KV cache for graphs
	available  int64 // for the KV cache; may be negative
	kv         int64 // allocated
	graphs     int64
	retaken    int64 // of the activation, by kernel warm-up
	kept       int64 // of that, once the engine is up
	requests   int64 // taken by the first requests
	served     bool  // session mode: requests have been taken
}

// loaded is what a rank holds after its weights are loaded, and again after the
// profiling run gave back its peak. Non-torch memory comes with loading: 16.22
// GiB after load in the recording of llama-3.1-8b are 0.52 + 15.0 + 0.49 + 0.22.
func (m *rankMemory) loaded() int64 { return m.context + m.weights + m.buffers + m.nonTorch }

// beside is what vLLM counts beside weights and activations.
func (m *rankMemory) beside() int64 {
	if m.inBudget {
		return m.nonTorch + m.buffers
	}
	return m.nonTorch
}

// captured is what a rank holds when the graphs are there.
func (m *rankMemory) captured() int64 { return m.loaded() + m.kv + m.graphs }

// ready is what a rank holds when the engine is up.
func (m *rankMemory) ready() int64 { return m.captured() + m.kept }

// warmed is what a rank holds while kernels are warmed up before the capture.
func (m *rankMemory) warmed() int64 { return m.loaded() + m.kv + m.retaken }

// serving is what a rank holds while requests run.
func (m *rankMemory) serving() int64 { return m.ready() + m.requests }

// A share is what of the profiled activation comes back: in kernel warm-up,
// and with the first requests, for each max_num_batched_tokens of their input
// and once.
type shares struct{ retaken, perBatch, once float64 }

// sharesOf are this project's recordings. 0.26: llama-3.1-8b takes 0.79 of 1.77
// GiB again in kernel warm-up and keeps it, 0.25 with the first requests of
// 4,096 tokens, and 2.0 with those of 32,000. 0.33: 1.01 of 1.62 GiB in the
// warm-up, all of it given back before the capture; 0.57 with 4,096 tokens, 2.5
// with 32,768; qwen3-30b-a3b 0.96 of 0.95, and 0.28.
func sharesOf(w *words) shares {
	if w.v33 {
		return shares{0.62, 0.70, 0.15}
	}
	return shares{0.45, 0.57, 0}
}

// vLLM's estimate of its graphs misses: 0.64 of 0.80 GiB with 0.26 and the V1
// runner; with 0.33 and the V2 runner, which captures them twice, as the
// arithmetic has it. That first capture tells of 0.61 GiB where 0.45 are taken
// (llama-3.1-8b), and takes 0.6 of the time of the second.
const (
	firstCapture = 1.36
	estimateTime = 0.6
)

// capturesTwice reports whether graphs are captured once for the estimate.
func (f *figures) capturesTwice() bool { return f.estimate && f.words.v33 && f.runner == "v2" }

// figuresOf works out the truth of a start. others are the bytes that other
// processes hold on each rank's GPU.
func figuresOf(c *Config, r *request, others []int64) (*figures, error) {
	f := &figures{arch: c.Model, gpu: *c.GPU, words: c.words, ranks: int(r.tp * r.pp), tp: int(r.tp)}
	est := estimateFor(c, r)
	f.limits(r, est)
	if err := f.account(r, est, others); err != nil {
		return nil, err
	}
	settings := r.settings(c)
	settings["model_runner"], settings["max_num_seqs"] = f.runner, fmt.Sprint(f.maxSeqs)
	f.perturb(c, r, settings)
	f.settle(r, est)
	f.times = timesOf(r, f, f.memory[0].weights)
	f.draw(c, r, settings)
	return f, nil
}

// limits takes the engine's limits from the request, the arithmetic, or vLLM's
// defaults.
func (f *figures) limits(r *request, est models.Estimate) {
	f.util = 0.92
	if r.util != nil {
		f.util = *r.util
	}
	f.requested = valueOr(est.Requested, int64(float64(f.gpu.TotalBytes)*f.util))
	f.maxLen = firstOf(r.maxLen, est.MaxModelLen, f.arch.MaxPosition, 2048)
	f.maxTokens = firstOf(r.maxTokens, est.MaxNumBatchedTokens, 0, 8192)
	f.maxSeqs = firstOf(r.maxSeqs, est.MaxNumSeqs, 0, 256)
	f.blockSize = firstOf(r.blockSize, nil, 0, 16)
	f.kvPerToken = firstOf(est.KVBytesPerToken, nil, 0, 1)
	f.runner = cmp.Or(est.ModelRunner, "v1")
	f.estimate = !r.eager && (f.runner == "v1" || f.words.v33)
	if !r.eager {
		f.captureSizes = captureSizes(f.maxSeqs)
	}
}

// captureSizes are the batch sizes of vLLM's CUDA graphs: 1, 2, 4, then every
// 8th to 256, then every 16th to twice max_num_seqs, 512 at most.
func captureSizes(maxSeqs int64) []int {
	limit := min(2*int(maxSeqs), 512)
	sizes := []int{1, 2, 4}
	for n := 8; n <= limit; n += 8 {
		if n > 256 && n%16 != 0 {
			continue
		}
		sizes = append(sizes, n)
	}
	return slices.DeleteFunc(sizes, func(n int) bool { return n > max(limit, 1) })
}

// account fills the memory of every rank from the arithmetic.
func (f *figures) account(r *request, est models.Estimate, others []int64) error {
	if est.Weights.Value == nil {
		return fmt.Errorf("the weights of %s are unknown: %s", r.model, est.Weights.Reason)
	}
	if est.KVBytesPerToken == nil {
		return errors.New("the bytes of the KV cache a token are unknown for " + r.model)
	}
	m := rankMemory{
		context:    valueOr(est.Context, f.gpu.Context),
		weights:    *est.Weights.Value,
		buffers:    valueOr(est.Buffers, 0),
		inBudget:   est.BuffersInBudget,
		nonTorch:   valueOr(est.NonTorch, 220<<20),
		activation: valueOr(est.Activations, f.plainActivation(r)),
		graphs:     valueOr(est.CUDAGraphs, f.plainGraphs()),
	}
	if r.eager {
		m.graphs = 0
	}
	f.memory = make([]rankMemory, f.ranks)
	for i := range f.memory {
		f.memory[i] = m
		if i < len(others) {
			f.memory[i].others = others[i]
		}
	}
	return nil
}

// plainActivation is the forward peak of a gated MLP, where the arithmetic has
// none for this version (the page on the memory model, section 3).
func (f *figures) plainActivation(r *request) int64 {
	a := f.arch
	width := 3*a.IntermediateSize/r.tp + 2*a.HiddenSize + (a.NumHeads+2*a.NumKVHeads)*a.HeadDim/r.tp
	return max(2*f.maxTokens*width, 64<<20)
}

// plainGraphs is 10 MiB a captured size: 0.98 GiB for the 102 graphs of
// llama-3.1-8b in this project's recordings.
func (f *figures) plainGraphs() int64 {
	return int64(2*len(f.captureSizes)) * 10 << 20
}

// perturb adds noise and planted changes. Of the noise's standard deviation s,
// the activation has 0.6, non-torch and graphs 0.3, the context 0.1, and what
// requests take 0.735; so no figure has more than s and the highest use has s.
// Weights do not vary in real runs and do not here.
func (f *figures) perturb(c *Config, r *request, settings map[string]string) {
	s := c.Noise * 3000 * (1 << 20)
	if c.Plant.MemoryNoise != nil {
		s = float64(*c.Plant.MemoryNoise)
	}
	taken := sharesOf(f.words)
	for i := range f.memory {
		m := &f.memory[i]
		rng := randomFor(c.Seed, c.Key, c.Repeat, fmt.Sprintf("memory %d", i))
		draw := func(share float64) int64 { return int64(rng.NormFloat64() * s * share) }
		activation := float64(m.activation) // without noise: it has its own below
		m.retaken = int64(taken.retaken * activation)
		if !f.words.v33 {
			m.kept = m.retaken
		}
		input := float64(r.batchSize*r.inputLen) / float64(f.maxTokens)
		m.requests = int64(taken.perBatch*activation*input + taken.once*activation)
		m.activation = max(m.activation+draw(0.6), 1<<20)
		m.nonTorch = max(m.nonTorch+draw(0.3), 0)
		if graphs := draw(0.3); m.graphs > 0 {
			m.graphs = max(m.graphs+graphs, 1<<20)
		}
		m.context = max(m.context+draw(0.1), 0)
		growth := rng.NormFloat64() * s
		m.requests = max(m.requests+int64(0.735*growth), 0)
		if f.words.v33 {
			m.retaken = max(m.retaken+int64(0.52*growth), 0)
		}
		for _, change := range c.Plant.Changes {
			if matches(change.When, settings) {
				m.change(change)
			}
		}
	}
}

// change moves one component of a rank.
func (m *rankMemory) change(c Change) {
	part := map[string]*int64{
		"weights": &m.weights, "activations": &m.activation, "non_torch": &m.nonTorch, "cuda_graphs": &m.graphs,
		"context": &m.context, "buffers": &m.buffers, "growth": &m.requests,
	}[c.Component]
	if part != nil {
		*part = int64(float64(*part)*cmp.Or(c.Factor, 1)) + int64(c.Bytes)
	}
}

// factor is what the planted changes multiply a figure with that is no memory.
func (c *Config) factor(component string, settings map[string]string) float64 {
	factor := 1.0
	for _, change := range c.Plant.Changes {
		if change.Component == component && matches(change.When, settings) {
			factor *= cmp.Or(change.Factor, 1)
		}
	}
	return factor
}

// settle works out the KV cache: what is left of the budget, the same number
// of blocks on every rank.
func (f *figures) settle(r *request, est models.Estimate) {
	least := int64(math.MaxInt64)
	for i := range f.memory {
		m := &f.memory[i]
		if f.estimate {
			m.graphEst = m.graphs * 4 / 5
			if f.capturesTwice() && est.GraphEstimate != nil {
				m.graphEst = *est.GraphEstimate + 2*(m.graphs-valueOr(est.CUDAGraphs, m.graphs))
			}
		}
		m.available = f.requested - m.weights - m.activation - m.beside() - m.graphEst
		if r.kvBytes != nil {
			m.available = *r.kvBytes
		}
		least = min(least, m.available)
	}
	tokens := max(least, 0) / f.kvPerToken
	// A model with sliding windows or states keeps more tokens than its bytes
	// a token say: the arithmetic knows the ratio.
	if kv, t := est.KVCache.Value, est.KVCacheTokens.Value; kv != nil && t != nil && *kv > 0 && *t > 0 {
		tokens = int64(float64(max(least, 0)) * float64(*t) / float64(*kv))
	}
	f.blocks = tokens / f.blockSize
	f.kvTokens = f.blocks * f.blockSize
	f.concurrency = float64(f.kvTokens) / float64(f.maxLen)
	for i := range f.memory {
		f.memory[i].kv = max(least, 0)
		if tokens > 0 {
			f.memory[i].kv = int64(float64(least) * float64(f.kvTokens) / float64(tokens))
		}
	}
}

// free is what was free on a rank's GPU when it started.
func (f *figures) free(m *rankMemory) int64 { return f.gpu.TotalBytes - m.context - m.others }

// bytesOfTokens is what so many tokens of one sequence need in the KV cache.
func (f *figures) bytesOfTokens(tokens int64) int64 {
	if f.kvTokens == 0 {
		return tokens * f.kvPerToken
	}
	return int64(float64(tokens) * float64(f.memory[0].kv) / float64(f.kvTokens))
}

// draw makes the iterations: a slow first warm-up, then the latency with its
// noise.
func (f *figures) draw(c *Config, r *request, settings map[string]string) {
	s := c.Noise
	if c.Plant.LatencyNoise != nil {
		s = *c.Plant.LatencyNoise
	}
	f.power = c.factor("power", settings)
	f.times.latency *= c.factor("latency", settings)
	f.times.load *= c.factor("load_time", settings)
	f.times.compile *= c.factor("compile_time", settings)
	rng := randomFor(c.Seed, c.Key, c.Repeat, "latency")
	// Iterations of one run share most of their noise: a run is fast or slow as
	// a whole (0.7 of the variance), and each iteration adds its own.
	run := 1 + s*math.Sqrt(0.7)*rng.NormFloat64()
	once := func() float64 {
		return max(f.times.latency*(run+s*math.Sqrt(0.3)*rng.NormFloat64()), f.times.latency/10)
	}
	for i := range r.numWarmup {
		lat := once()
		if i == 0 {
			lat = lat*1.1 + 0.02
		}
		f.warmups = append(f.warmups, lat)
	}
	for range r.numIters {
		f.latencies = append(f.latencies, once())
	}
	f.jitter(c)
}

// jitter moves the times of the start-up.
func (f *figures) jitter(c *Config) {
	rng := randomFor(c.Seed, c.Key, c.Repeat, "times")
	t := &f.times
	for _, t := range []*float64{&t.load, &t.compile, &t.profile, &t.capture, &t.warmup, &t.spawn, &t.imports} {
		*t *= jitterOf(rng, c.Noise)
	}
	f.power *= jitterOf(rng, c.Noise)
}

// jitterOf is a factor about 1, never below a tenth.
func jitterOf(rng *rand.Rand, s float64) float64 { return max(1+s*rng.NormFloat64(), 0.1) }

// firstOf is the first that is there: a, b, then c if it is not 0, then d.
func firstOf(a, b *int64, c, d int64) int64 {
	for _, p := range []*int64{a, b, &c} {
		if p != nil && *p > 0 {
			return *p
		}
	}
	return d
}

// valueOr is an estimate's value, or other where it has none.
func valueOr(f models.Figure, other int64) int64 {
	if f.Value == nil {
		return other
	}
	return *f.Value
}

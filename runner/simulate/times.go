package simulate

import (
	"math"
	"strings"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// A speed is what a GPU can do: the data sheet, dense, without sparsity.
type speed struct {
	match     string  // part of the catalogue name
	bandwidth float64 // bytes a second
	flops     float64 // at 16 bits
	idle, tdp float64 // W
	clock     int32   // MHz, busy
	memClock  int32   // MHz
}

// speedOf finds the speed of a GPU by its catalogue or product name; an unknown
// one is a middling card.
func speedOf(gpu models.GPU) speed {
	name := strings.ToLower(gpu.Name + " " + gpu.Product)
	for _, s := range []speed{
		{"b200", 8.0e12, 2250e12, 140, 1000, 1965, 3996},
		{"h200", 4.8e12, 989e12, 75, 700, 1980, 3201},
		{"gh200", 4.0e12, 989e12, 80, 700, 1980, 2619},
		{"h100", 3.35e12, 989e12, 70, 700, 1980, 2619},
		{"h20", 4.0e12, 148e12, 70, 400, 1980, 2619},
		{"a100", 2.0e12, 312e12, 55, 400, 1410, 1593},
		{"a10", 0.6e12, 125e12, 20, 150, 1695, 6251},
		{"l40", 0.864e12, 362e12, 35, 350, 2520, 9001},
		{"l4", 0.3e12, 121e12, 17, 72, 2040, 6251},
		{"t4", 0.32e12, 65e12, 10, 70, 1590, 5001},
		{"v100", 0.9e12, 125e12, 40, 300, 1530, 877},
		{"5090", 1.79e12, 210e12, 30, 575, 2407, 14001},
		{"4090", 1.01e12, 165e12, 25, 450, 2520, 10501},
		{"3090", 0.936e12, 71e12, 25, 350, 1695, 9751},
		{"mi355", 8.0e12, 2500e12, 140, 1400, 2400, 2000},
		{"mi325", 6.0e12, 1307e12, 135, 1000, 2100, 1500},
		{"mi300", 5.3e12, 1307e12, 130, 750, 2100, 1300},
		{"mi250", 1.6e12, 181e12, 90, 280, 1700, 1600},
		{"mi210", 1.6e12, 181e12, 45, 300, 1700, 1600},
	} {
		if strings.Contains(name, s.match) {
			return s
		}
	}
	return speed{"", 1.0e12, 150e12, 30, 300, 1800, 5001}
}

// Shares of the data sheet that a run reaches, fitted by eye to this project's
// recordings of 0.26 on H100: llama-3.1-8b 0.315 s of 0.308 measured, qwen3-32b
// 1.19 of 1.215, llama-3.1-8b with 4 x 8,000 tokens 0.91 of 0.924.
const (
	bandwidthReached = 0.85
	flopsReached     = 0.65
	stepOverhead     = 1.0e-3  // s a decode step, with CUDA graphs
	eagerPerLayer    = 0.30e-3 // s a layer and decode step without them
	allReduce        = 25e-6   // s a layer and decode step, with several ranks
)

// times are the simulated seconds of one start.
type times struct {
	imports, front, spawn, init, load, compile, profile, kv, capture, warmup, exit float64

	latency float64 // one iteration
	busy    float64 // share of a measured iteration that computes
}

// timesOf works out how long the parts of a run take. weights are those of one
// rank in bytes.
func timesOf(r *request, f *figures, weights int64) times {
	s := speedOf(f.gpu)
	layers := float64(max(f.arch.NumLayers, 1)) / float64(r.pp)
	gib := float64(weights) / (1 << 30)
	t := times{
		imports: 25, front: 0.3, spawn: 24, init: 2, profile: 3, kv: 0.6, exit: 3,
		load: 0.4 + 0.13*gib, compile: 4 + 0.7*layers, warmup: 6 + 0.35*layers,
		capture: float64(2*len(f.captureSizes)) * 0.0025 * layers,
	}
	if r.loadFormat != "dummy" {
		t.load = 1 + gib/2.2
	}
	if f.ranks > 1 {
		t.init += 12
	}
	if f.inProcess {
		t.spawn = 0
	}
	if r.eager {
		t.compile, t.capture = 0, 0
	}
	params := f.activeParams()
	flops := s.flops * flopsReached
	if strings.Contains(r.quantization, "fp8") {
		flops *= 2
	}
	prefill := 2 * params * float64(r.batchSize*r.inputLen) / float64(f.ranks) / flops
	context := float64(r.batchSize) * (float64(r.inputLen) + float64(r.outputLen)/2) * float64(f.kvPerToken)
	read := float64(weights)*min(1, params/f.residentParams()) + context
	compute := read / (s.bandwidth * bandwidthReached)
	overhead := stepOverhead
	if r.eager {
		overhead = eagerPerLayer * layers
	}
	if f.ranks > 1 {
		overhead += allReduce * layers
	}
	decode := float64(r.outputLen) * (compute + overhead)
	t.latency = prefill + decode
	t.busy = (prefill + 0.6*float64(r.outputLen)*compute) / t.latency
	if f.kvTokens > 0 { // what does not fit at once waits, or is preempted and done again
		waves := math.Ceil(float64(r.batchSize*(r.inputLen+r.outputLen)) / float64(f.kvTokens))
		t.latency = prefill + decode*max(1, waves)
	}
	return t
}

// residentParams are the parameters that lie in memory, for the share that one
// token touches; at least 1.
func (f *figures) residentParams() float64 {
	if f.arch.Params > 0 {
		return float64(f.arch.Params)
	}
	if len(f.memory) > 0 && f.memory[0].weights > 0 {
		return float64(f.memory[0].weights) * float64(f.ranks) / 2
	}
	return 1
}

// activeParams are those that one token goes through: of the experts, top-k.
func (f *figures) activeParams() float64 {
	all, moe := f.residentParams(), f.arch.MoE
	if moe == nil || moe.Experts == 0 {
		return all
	}
	every := max(moe.Every, 1)
	layers := float64(f.arch.NumLayers-moe.FirstDense) / float64(every)
	experts := float64(moe.Experts - min(moe.TopK, moe.Experts))
	idle := layers * experts * 3 * float64(f.arch.HiddenSize) * float64(moe.IntermediateSize)
	return max(all-idle, all/50)
}

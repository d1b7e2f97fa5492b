package attribution

import (
	"fmt"
	"math"

	"github.com/vramsweep/vramsweep/runner"
)

// A figure is one term of an account.
type figure struct {
	bytes      int64
	ok         bool
	source     string
	confidence runner.Confidence
	reason     string // why it is missing
}

func known(bytes int64, source string, c runner.Confidence) figure {
	return figure{bytes: bytes, ok: true, source: source, confidence: c}
}

func missing(format string, args ...any) figure {
	return figure{reason: fmt.Sprintf(format, args...)}
}

func (f figure) pointer() *int64 {
	if !f.ok {
		return nil
	}
	v := f.bytes
	return &v
}

func (f figure) gib() *float64 { return gib(f.pointer()) }

// gib turns bytes into the GiB of run.json; nil stays nil.
func gib(bytes *int64) *float64 {
	if bytes == nil {
		return nil
	}
	v := float64(*bytes) / runner.GiB
	return &v
}

// toBytes turns a figure that vLLM printed in GiB into bytes.
func toBytes(v float64) int64 { return int64(math.Round(v * runner.GiB)) }

// A ledger is vLLM's account of one rank in bytes, and what is calculated
// beside it.
type ledger struct {
	rank int

	weights, kv, activations, graphs, nonTorch figure
	context, buffers                           figure
	requested, total, free, estimate           figure
	difference                                 figure // of the budget identity

	consumed bool   // the log joins what is not weights, the runner's buffers among it, in one figure
	left     figure // what a capture for an estimate left behind on the driver, outside of all the terms
}

// splitBuffers takes the runner's buffers out of what the log joins with them:
// from 0.27 on "consumed" is a difference of free memory, which holds them.
func (l *ledger) splitBuffers() {
	if !l.consumed || !l.nonTorch.ok || !l.buffers.ok {
		return
	}
	if l.buffers.bytes > l.nonTorch.bytes {
		l.buffers = known(
			max(l.nonTorch.bytes, 0),
			"consumed less weights, which is less than the buffers calculated",
			runner.LowEstimated,
		)
	}
	l.nonTorch.bytes -= l.buffers.bytes
	l.nonTorch.source += " and the runner's buffers"
}

// addLeft works out what a capture for an estimate left behind: from the two
// levels around it where its end was seen, else with vLLM's figure for the KV cache.
func (l *ledger) addLeft(p *course) {
	switch {
	case !p.estimated:
		l.left = known(0, "no capture for an estimate", runner.HighMeasuredStep)
	case p.profiled == nil:
		l.left = missing("no level between profiling and the capture for the estimate was sampled")
	case p.kvBase != nil && p.kvBase.level >= p.profiled.level:
		l.left = known(
			p.kvBase.level-p.profiled.level,
			"driver's levels around the capture for the estimate",
			runner.HighMeasuredStep,
		)
	case p.kv != nil && l.kv.ok && p.kv.level-l.kv.bytes >= p.profiled.level-allocatorPage:
		l.left = known(max(0, p.kv.level-l.kv.bytes-p.profiled.level),
			"driver's levels around the capture for the estimate and the KV cache, less that cache", runner.HighCalculated)
	default:
		l.left = missing("the level after the KV cache was not sampled")
	}
}

const fromLog = "vLLM's log"

// printed takes a figure of one rank; where that rank did not print it and the
// ranks are alike, what the account says of all of them.
func printed(own, all *float64, ranks int, what string) figure {
	switch {
	case own != nil:
		return known(toBytes(*own), fromLog, runner.HighFromVLLMLogs)
	case all != nil && ranks < 2:
		return known(toBytes(*all), fromLog, runner.HighFromVLLMLogs)
	case all != nil:
		return known(
			toBytes(*all),
			fromLog+", of another rank: the ranks of tensor parallelism are alike",
			runner.LowEstimated,
		)
	}
	return missing("vLLM's log does not say %s", what)
}

// readLedger turns one rank of the account into bytes.
func readLedger(a *runner.Account, rank, ranks int) *ledger {
	l := &ledger{rank: rank}
	if a == nil {
		none := missing("vLLM left no log that could be read")
		l.weights, l.kv, l.activations, l.graphs, l.nonTorch = none, none, none, none, none
		l.requested, l.total, l.free, l.estimate, l.difference = none, none, none, none, none
		return l
	}
	var own runner.AccountRank
	for i := range a.Ranks {
		if a.Ranks[i].Rank == rank {
			own = a.Ranks[i]
		}
	}
	l.weights = printed(own.ModelWeightsGB, a.ModelWeightsGB, ranks, "what the weights take")
	l.activations = printed(own.ActivationsGB, a.ActivationsGB, ranks, "the peak of profiling")
	l.nonTorch = printed(own.NonTorchGB, a.NonTorchGB, ranks, "what lies outside torch")
	if !l.nonTorch.ok && own.ConsumedGB != nil && l.weights.ok {
		l.consumed = true
		l.nonTorch = known(
			toBytes(*own.ConsumedGB)-l.weights.bytes,
			fromLog+": consumed less weights",
			runner.HighFromVLLMLogs,
		)
	}
	l.requested = printed(own.RequestedMemoryGB, a.RequestedMemoryGB, ranks, "the memory that it asked for")
	l.total = printed(own.TotalGPUMemoryGB, a.TotalGPUMemoryGB, ranks, "the memory of the device")
	l.free = printed(own.FreeMemoryGB, a.FreeMemoryGB, ranks, "the memory that was free at its start")
	l.kv = readKV(a, &own)
	l.graphs, l.estimate = readGraphs(a, &own, ranks)
	l.difference = missing("a term of the budget is not in vLLM's log")
	for i := range a.Budget {
		if a.Budget[i].Rank == rank && a.Budget[i].Difference != nil {
			l.difference = known(toBytes(*a.Budget[i].Difference), fromLog, runner.HighFromVLLMLogs)
		}
	}
	return l
}

// readKV is the KV cache that was allocated: every rank allocates as many
// blocks as the rank with the least room, so it is the account's minimum.
func readKV(a *runner.Account, own *runner.AccountRank) figure {
	allocated := a.TotalGPUKVCacheTokens != nil || a.NumGPUBlocks != nil
	if !allocated {
		return missing("the KV cache was never allocated, or vLLM's log does not say so")
	}
	var least *float64
	for i := range a.Ranks {
		if room := a.Ranks[i].AvailableKVCacheGB; room != nil && (least == nil || *room < *least) {
			least = room
		}
	}
	switch {
	case least != nil && a.AvailableKVCacheGB != nil && *least < *a.AvailableKVCacheGB:
		return known(toBytes(*least), fromLog, runner.HighFromVLLMLogs)
	case a.AvailableKVCacheGB != nil:
		return known(toBytes(*a.AvailableKVCacheGB), fromLog, runner.HighFromVLLMLogs)
	case a.TotalGPUKVCacheGB != nil:
		return known(toBytes(*a.TotalGPUKVCacheGB), fromLog, runner.HighFromVLLMLogs)
	case own.AvailableKVCacheGB != nil:
		return known(toBytes(*own.AvailableKVCacheGB), fromLog, runner.HighFromVLLMLogs)
	}
	return missing("vLLM's log gives the tokens of the KV cache but not its size")
}

// readGraphs are the CUDA graphs and the estimate that the budget holds for
// them. Without graphs both are 0, and that is known.
func readGraphs(a *runner.Account, own *runner.AccountRank, ranks int) (graphs, estimate figure) {
	graphs = printed(own.GraphCaptureGB, a.GraphCaptureGB, ranks, "what the CUDA graphs take")
	estimate = printed(own.GraphEstimateGB, a.GraphEstimateGB, ranks, "an estimate of the CUDA graphs")
	if a.CUDAGraphsEnabled != nil && !*a.CUDAGraphsEnabled {
		none := known(0, "CUDA graphs are off", runner.HighFromVLLMLogs)
		if !graphs.ok {
			graphs = none
		}
		estimate = none
	}
	if !estimate.ok && graphs.ok {
		estimate = known(0, "no estimate in vLLM's log: the budget holds none", runner.HighFromVLLMLogs)
	}
	return graphs, estimate
}

// addContext works out the context: what the device had lost before vLLM's
// first snapshot, less what others held of it. NCCL is in it, because it starts
// before the snapshot. Without that line, the driver's step is it.
func (l *ledger) addContext(p *course) {
	switch {
	case l.total.ok && l.free.ok && p.baseline != nil:
		l.context = known(
			l.total.bytes-l.free.bytes-p.baseline.level,
			fromLog+": total less free at start, less the baseline",
			l.free.confidence,
		)
	case p.nccl != nil && p.baseline != nil:
		l.context = known(p.nccl.level-p.baseline.level, "driver's steps context and nccl", runner.HighMeasuredStep)
	case p.context != nil && p.baseline != nil:
		l.context = known(p.context.level-p.baseline.level, "driver's step context", runner.HighMeasuredStep)
	default:
		l.context = missing("neither vLLM's log nor the samples show the CUDA context")
	}
}

// A kvShape is what the model and the batch say of the KV cache.
type kvShape struct {
	used       figure
	tokenBytes float64 // of one rank, from vLLM's own size and tokens; 0: unknown
	tokens     int64   // in the cache
	blockSize  int64
}

// row is the ledger as the table of ranks has it.
func (l *ledger) row(d *runner.Device) runner.RankRow {
	r := runner.RankRow{
		Rank:                     int32(l.rank),
		ModelWeightsBytes:        l.weights.pointer(),
		KVCacheBytes:             l.kv.pointer(),
		ActivationsReservedBytes: l.activations.pointer(),
		CUDAGraphsBytes:          l.graphs.pointer(),
		NonTorchBytes:            l.nonTorch.pointer(),
		ContextBytes:             l.context.pointer(),
		BuffersBytes:             l.buffers.pointer(),
		RequestedBytes:           l.requested.pointer(),
		FreeAtStartBytes:         l.free.pointer(),
		GraphEstimateBytes:       l.estimate.pointer(),
		BudgetDifferenceBytes:    l.difference.pointer(),
	}
	if d != nil {
		index, uuid := int32(d.Index), d.UUID
		r.GPUIndex = &index
		if uuid != "" {
			r.GPUUUID = &uuid
		}
	}
	return r
}

// torch lays over a row what torch itself said at its highest point; only the
// session engine asks.
func torch(row *runner.RankRow, s *runner.Session) {
	if s == nil {
		return
	}
	var top *runner.TorchReading
	for i := range s.Torch {
		t := &s.Torch[i]
		if t.Rank != int(row.Rank) {
			continue
		}
		if t.ReservedBytes != nil && (top == nil || *t.ReservedBytes >= *top.ReservedBytes) {
			top = t
		}
		if t.PeakBytes != nil && (row.TorchPeakBytes == nil || *t.PeakBytes > *row.TorchPeakBytes) {
			v := *t.PeakBytes
			row.TorchPeakBytes = &v
		}
	}
	if top != nil {
		row.TorchAllocatedBytes, row.TorchReservedBytes = top.AllocatedBytes, top.ReservedBytes
	}
}

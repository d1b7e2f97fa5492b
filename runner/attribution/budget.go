package attribution

import (
	"fmt"
	"math"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// safetyMargin is kept free under the highest use that a run proves safe: what
// comes and goes between two samples is not seen.
const safetyMargin = 256 << 20

// beyond explains the use of one GPU above gpu_memory_utilization.
//
// requested + context + graphs outside the budget is what should at most be
// in use: weights, non-torch, KV and the profiled activation make up
// requested. What is in use of the room of that activation (the runner's
// buffers, which stand in no line, sit in it too) is headroom retaken; the
// rest of the room was never used; what goes beyond is growth excess.
func (w *work) beyond(p *course, l *ledger) runner.BeyondBudget {
	b := runner.BeyondBudget{GPUIndex: int(p.track.gpu)}
	if p.track.mem.empty() {
		b.Sentence = "No sample of the memory: use cannot be held against the budget."
		w.miss(w.bb(p, "highest_bytes"), "no sample of the memory")
		return b
	}
	highest, at := p.track.mem.peak, p.track.mem.peakAt
	if w.failed {
		highest, at = p.track.mem.stood()
	}
	b.HighestBytes, b.HighestAt, b.HighestPhase = &highest, w.c.time(at), p.phaseAt(at)
	early := p.before(at, runner.PhaseCapture)
	requested := w.requested(l)
	b.RequestedBytes, b.ContextBytes = requested.pointer(), l.context.pointer()
	if !requested.ok && w.uncovered == "" {
		w.miss(w.bb(p, "requested_bytes"), requested.reason)
		b.Sentence = fmt.Sprintf("%s in use; nothing to hold it against: %s.", gibText(highest), requested.reason)
		w.safe(&b, p, l)
		return b
	}
	if w.uncovered != "" {
		b.HighestBytes, b.HighestAt, b.HighestPhase = nil, nil, ""
		w.miss(w.bb(p, "highest_bytes"), w.uncovered)
		b.Sentence = fmt.Sprintf("Nothing is proved: %s.", w.uncovered)
		return b
	}
	gross := highest - requested.bytes
	off := p.track.mem.unsure(at) + logRounding
	b.GrossBytes, b.GrossUncertaintyBytes = &gross, &off
	if l.graphs.ok && l.estimate.ok {
		outside := l.graphs.bytes - l.estimate.bytes
		if early {
			outside = 0
		}
		b.GraphsOutsideBytes = &outside
	}
	if p.baseline == nil || !l.context.ok {
		w.miss(w.bb(p, "net_bytes"), "baseline or context is unknown")
		b.Sentence = fmt.Sprintf("%s in use of %s asked.", gibText(highest), gibText(requested.bytes))
		w.safe(&b, p, l)
		return b
	}
	net := gross - p.baseline.level - l.context.bytes
	b.NetBytes = &net
	if room, ok := w.room(p, l, highest, early); ok {
		retaken := max(0, min(room, l.activations.bytes))
		unused := l.activations.bytes - retaken
		excess := max(0, room-l.activations.bytes)
		b.HeadroomRetakenBytes, b.HeadroomUnusedBytes, b.GrowthExcessBytes = &retaken, &unused, &excess
	} else {
		w.miss(w.bb(p, "growth_excess_bytes"), "graphs or the reserved activation are not in vLLM's log")
	}
	w.safe(&b, p, l)
	b.Sentence = sentence(&b, l)
	return b
}

func (w *work) bb(p *course, field string) string {
	return fmt.Sprintf("beyond_budget[%d].%s", p.track.rank, field)
}

// requested is the budget: as vLLM printed it, else the share of the device.
func (w *work) requested(l *ledger) figure {
	if l.requested.ok {
		return l.requested
	}
	if w.kvGiven {
		return missing("the size of the KV cache was given, not a share of the memory")
	}
	if w.utilization > 0 && l.total.ok {
		return known(int64(w.utilization*float64(l.total.bytes)), "gpu_memory_utilization x total", runner.HighCalculated)
	}
	return missing("vLLM's log does not say how much memory it asked for")
}

// safe works out the highest share, and the largest KV cache, that this run
// proves safe for its load on this GPU: a larger KV cache raises the use by
// its own size and by nothing else, so that what the highest sample left free,
// less a margin, can be had.
func (w *work) safe(b *runner.BeyondBudget, p *course, l *ledger) {
	if !l.kv.ok || !l.total.ok || w.failed || b.HighestBytes == nil {
		w.miss(
			w.bb(p, "safe_kv_cache_memory_bytes"),
			"only a run that ended well proves anything safe, and only with its KV cache and the device's total known",
		)
		return
	}
	spare := l.total.bytes - *b.HighestBytes - safetyMargin
	if l.requested.ok && !w.kvGiven {
		most := l.total.bytes
		if l.free.ok { // vLLM refuses to start with less free memory than it asks for
			most = min(most, l.free.bytes-logRounding)
		}
		share := math.Floor(float64(min(l.requested.bytes+spare, most))/float64(l.total.bytes+logRounding)*1000) / 1000
		b.SafeUtilization = &share
		spare = int64(share*float64(l.total.bytes)) - l.requested.bytes
	}
	kv := max(0, l.kv.bytes+spare)
	kv -= kv % allocatorPage
	b.SafeKVCacheMemoryBytes = &kv
	if w.kv.tokenBytes > 0 {
		tokens := int64(math.Floor(float64(kv-l.kv.bytes) / w.kv.tokenBytes))
		if w.kv.blockSize > 0 {
			tokens = int64(math.Floor(float64(tokens)/float64(w.kv.blockSize))) * w.kv.blockSize
		}
		b.KVTokensGained = &tokens
	}
}

// sentence is the one line that an operator reads.
func sentence(b *runner.BeyondBudget, l *ledger) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s in use of %s asked", gibText(*b.HighestBytes), gibText(*b.RequestedBytes))
	if b.HighestPhase == runner.PhaseKernelWarmup || b.HighestPhase == runner.PhaseEstimateCapture {
		fmt.Fprintf(&s, ", at most in %s", b.HighestPhase)
	}
	fmt.Fprintf(&s, ": %s context", bare(*b.ContextBytes))
	switch out := b.GraphsOutsideBytes; {
	case out == nil || *out == 0:
	case *out < 0:
		fmt.Fprintf(&s, ", graphs %s less than their estimate", bare(-*out))
	case l.estimate.ok && l.estimate.bytes > 0:
		fmt.Fprintf(&s, ", graphs %s more than their estimate", bare(*out))
	default:
		fmt.Fprintf(&s, ", %s graphs", bare(*out))
	}
	if b.GrowthExcessBytes != nil {
		if *b.GrowthExcessBytes > 0 {
			fmt.Fprintf(&s, ", %s beyond all that was reserved", bare(*b.GrowthExcessBytes))
			if l.buffers.ok && l.buffers.bytes > 0 && !l.consumed {
				fmt.Fprintf(&s, " (the runner's buffers, in no budget, are %s)", bare(l.buffers.bytes))
			}
		} else {
			fmt.Fprintf(&s, "; %s of the reserved activation was never used", bare(*b.HeadroomUnusedBytes))
		}
	}
	s.WriteString(".")
	if b.SafeUtilization != nil {
		fmt.Fprintf(&s, " For this load --gpu-memory-utilization %.3f", *b.SafeUtilization)
		if b.SafeKVCacheMemoryBytes != nil {
			fmt.Fprintf(&s, " (or --kv-cache-memory-bytes %d)", *b.SafeKVCacheMemoryBytes)
		}
		s.WriteString(" is proved safe")
		if b.KVTokensGained != nil {
			fmt.Fprintf(&s, ": %+d KV tokens", *b.KVTokensGained)
		}
		s.WriteString(".")
	}
	return s.String()
}

func bare(bytes int64) string { return fmt.Sprintf("%.2f", float64(bytes)/runner.GiB) }

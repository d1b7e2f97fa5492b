package log

import (
	"fmt"
	"math"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// budget checks requested = consumed + headroom + graph_estimate +
// available_kv on one rank. The identity is vLLM's own (gpu_worker.py): its KV
// is the remainder, so a budget that does not close is a fault of reading, or
// a term that the log does not hold. The tolerance is half of the last printed
// digit of every term.
func (r *run) budget(v *rankView) runner.RankBudget {
	b := runner.RankBudget{Rank: v.rank}
	if _, given := v.last(fGivenKV); given {
		b.Note = "the KV size was given, so vLLM made no budget"
		return b
	}
	req, cons, head, kv := v.requested(), v.budgetConsumed(), v.headroom(), v.kv()
	if _, cpu := v.last(fCPUConsumed); cpu {
		head = none()
	}
	if inUse := v.cell("", fAvailableKV, fKVInUse, fV0KV, fV064KV, fCPUKV); inUse.known() {
		kv = inUse
	}
	est, off := v.estimate()
	if why := r.estimateUnused(); why != "" && !off {
		est, off = unknown(why), true
		b.Note = why
	}
	joined := false
	if _, c := v.last(fUseConsumed); c {
		if _, p := v.last(fUseActivation); p && len(v.facts[fProfActivation]) == 0 {
			joined = true // headroom as printed holds the estimate
		}
	}
	if joined && est.known() {
		head = derive(*head.val-*est.val, head.half, head.src, "")
	}
	b.Requested, b.Consumed, b.Headroom, b.AvailableKV = req.val, cons.val, head.val, kv.val
	b.GraphEstimate = est.val
	if off {
		b.GraphEstimate = none().val
	}
	return closeBudget(b, []cell{req, cons, head, kv}, est, off, joined)
}

// estimateUnused says why a printed estimate is not in the budget, "" where it
// is.
func (r *run) estimateUnused() string {
	old := r.estimateToCome != nil || r.version != nil && before(r.version.val, 0, 20)
	if old && r.estimateOn == nil {
		return "vLLM before 0.20 prints its graph estimate and does not take it off the budget unless " +
			"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=1"
	}
	return ""
}

const noBudget = "no term of the budget is in the log"

// closeBudget does the sum.
func closeBudget(b runner.RankBudget, terms []cell, est cell, off, joined bool) runner.RankBudget {
	names := []string{"requested", "consumed", "headroom", "available_kv"}
	var missing []string
	tolerance := 1e-9
	for i, t := range terms {
		if !t.known() {
			missing = append(missing, names[i])
		}
		tolerance += t.half
	}
	if len(missing) > 0 {
		if len(missing) < len(names) {
			b.Note = "not in the log: " + strings.Join(missing, ", ")
		} else {
			b.Note = noBudget
		}
		return b
	}
	sum := *b.Consumed + *b.Headroom + *b.AvailableKV
	if est.known() {
		sum += *est.val
		tolerance += est.half
	}
	d := round4(*b.Requested - sum)
	b.Difference = &d
	closes := math.Abs(d) <= tolerance
	b.Closes = &closes
	switch {
	case closes && joined && !est.known() && !off:
		b.Note = "headroom holds the CUDA graph estimate, which the log does not tell apart"
	case closes:
	case !est.known() && !off && d > 0:
		b.Closes = nil
		b.Note = fmt.Sprintf("not in the log: graph_estimate; it would be %.2f GiB", d)
	default:
		b.Note = fmt.Sprintf("does not close by %+.2f GiB, the log's rounding allows %.2f: "+
			"requested - consumed - headroom - graph_estimate - available_kv", d, tolerance)
	}
	return b
}

// headroom is the transient activation as the budget counts it.
func (v *rankView) headroom() cell {
	if c := v.cell("", fUseActivation, fProfActivation, fV0Activation); c.known() {
		return c
	}
	peak, ok1 := v.last(fV064Peak)
	w, ok2 := v.last(fWeights)
	if ok1 && ok2 {
		return derive(peak.val-w.val, peak.half+w.half, peak.src, "")
	}
	return unknown("")
}

// budgetConsumed is weights and non-torch memory from one and the same line.
func (v *rankView) budgetConsumed() cell {
	if _, p := v.last(fUseConsumed); p || len(v.facts[fUseWeights]) == 0 {
		if c := v.consumed(); c.known() {
			return c
		}
	}
	for _, pair := range [][2]rankFact{
		{fUseWeights, fUseNonTorch}, {fProfWeights, fProfNonTorch}, {fV0Weights, fV0NonTorch}, {fWeights, fV064NonTorch},
	} {
		w, ok1 := v.last(pair[0])
		n, ok2 := v.last(pair[1])
		if ok1 && ok2 {
			return derive(w.val+n.val, w.half+n.half, w.src, "")
		}
	}
	return unknown("")
}

// round4 takes off what floating point adds to figures of two digits.
func round4(v float64) float64 { return math.Round(v*1e4) / 1e4 }

// before reports whether a version is known and older than major.minor.
func before(version string, major, minor int) bool { return models.Older(version, major, minor, 0) }

package attribution

import (
	"fmt"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// The components of the net increase, in the order of a run.
const (
	compWeights     = "weights"
	compKV          = "kv_cache"
	compGraphs      = "cuda_graphs"
	compNonTorch    = "non_torch"
	compContext     = "context"
	compBuffers     = "buffers"
	compActivations = "activations"
	compGrowth      = "growth_excess"
	compFramework   = "framework_overhead"
)

// A part is one component of one rank.
type part struct {
	component string
	figure
}

// A split is the net increase of one rank, divided.
type split struct {
	parts    []part // add up to net exactly
	net      int64
	unused   figure // of the reserved activation
	reserved figure
	after    figure       // what is left right after capture: framework overhead
	phase    runner.Phase // of the highest sample
	early    bool         // it lies before the capture: there are no graphs
	flags    []string

	afterOff int64 // how far after may be off for its sample
	off      offs
}

// offs are how far the figures of a split may be off, in bytes.
type offs struct{ top, net, growth, divided int64 }

// logRounding is half of the last digit of the GiB that vLLM prints.
const logRounding = runner.GiB * 5 / 1000

// doubt works out how far the figures of a split may be off. The highest sample may
// be off as a level is; what is beyond the reserve rests on six printed figures beside
// it; and what activation in use and framework overhead share is parted by the
// level right after capture, less seven printed figures. Without that level either of
// the two may be all of the other.
func (s *split) doubt(p *course, at time.Duration) {
	s.off.top = p.track.mem.unsure(at)
	s.off.net = s.off.top + max(p.baseline.off, allocatorPage)
	s.off.growth = s.off.net + 6*logRounding
	s.off.divided = s.off.growth + 7*logRounding + max(s.afterOff, allocatorPage)
	if !s.after.ok {
		s.off.divided = s.off.growth + max(s.part(compActivations).bytes, abs(s.part(compFramework).bytes), 7*logRounding)
	}
}

func (s *split) part(component string) figure {
	for _, p := range s.parts {
		if p.component == component {
			return p.figure
		}
	}
	return figure{reason: "not divided"}
}

// divide divides the use of one rank at one moment, top, into parts.
//
// What vLLM's log and the arithmetic know is taken as it is. Of the rest, what
// lies beyond the room that vLLM reserved for activation is growth excess, as
// beyond_budget has it. What was left right after graph capture (after the KV
// allocation without graphs), when torch had given back what profiling
// reserved, is framework overhead: neither account explains it. What the
// driver saw grow from there on, in that room, is activation retaken.
//
// At a highest sample that lies before the capture (in kernel warm-up) there are
// no graphs yet. What a capture for an estimate left behind is non-torch memory.
func (w *work) divide(l *ledger, p *course, top int64, at time.Duration) *split {
	if p.baseline == nil {
		return nil
	}
	s := &split{net: top - p.baseline.level, reserved: l.activations, phase: p.phaseAt(at)}
	graphs, nonTorch := s.atTop(l, p, at)
	explained, complete := s.take([]part{
		{compWeights, l.weights}, {compKV, l.kv}, {compGraphs, graphs},
		{compNonTorch, nonTorch}, {compContext, l.context}, {compBuffers, l.buffers},
	})
	left := s.net - explained
	if p.kv == nil && p.peak != nil && p.loaded != nil && p.peak.level == top {
		// the run ended in profiling: its peak is activation, reserved by nobody
		act := p.peak.level - p.loaded.level
		s.parts = append(s.parts, part{compActivations, known(act, "driver's step profile_peak", runner.HighMeasuredStep)},
			part{compGrowth, missing("the run ended before there was a budget to exceed")},
			part{compFramework, known(left-act, "what is left", runner.CalculatedResidual)})
		s.flag(l)
		return s
	}
	settled := p.captured
	if settled == nil && l.graphs.ok && l.graphs.bytes == 0 {
		settled = p.kv
	}
	if settled != nil && settled.level <= top && complete {
		s.afterOff = settled.off
		s.after = known(
			settled.level-p.baseline.level-explained-(l.graphs.bytes-graphs.bytes),
			"driver's level right after capture, less the parts",
			runner.CalculatedResidual,
		)
	} else {
		s.after = missing("no level right after capture was sampled, or a part is missing")
	}
	s.grow(w, l, p, top, left)
	if !complete {
		s.flags = append(s.flags, "framework_overhead holds every part that is missing")
	}
	s.flag(l)
	return s
}

// atTop are the graphs and what lies outside torch, at the highest sample.
func (s *split) atTop(l *ledger, p *course, at time.Duration) (graphs, nonTorch figure) {
	graphs, nonTorch = l.graphs, l.nonTorch
	if s.early = p.before(at, runner.PhaseCapture); s.early && graphs.ok {
		graphs = known(
			0,
			"the highest sample lies in "+string(s.phase)+", before the graphs were captured",
			runner.HighMeasuredStep,
		)
	}
	if nonTorch.ok && l.left.ok && l.left.bytes > 0 {
		nonTorch.bytes += l.left.bytes
		if trust(l.left.confidence) > trust(nonTorch.confidence) {
			nonTorch.confidence = l.left.confidence
		}
		nonTorch.source += fmt.Sprintf(
			"; %s left behind by the capture for an estimate (%s)",
			gibText(l.left.bytes),
			l.left.source,
		)
	}
	return graphs, nonTorch
}

func (s *split) take(terms []part) (explained int64, complete bool) {
	complete = true
	for _, t := range terms {
		s.parts = append(s.parts, t)
		if t.ok {
			explained += t.bytes
		} else if t.component != compBuffers {
			complete = false
		}
	}
	return explained, complete
}

// grow divides what is left after the parts that the log and the arithmetic
// know: activation in use, growth excess, and the residual.
func (s *split) grow(w *work, l *ledger, p *course, top, left int64) {
	act := missing("%s", l.activations.reason)
	growth := missing("without the reserved activation there is nothing to exceed")
	framework := left
	if room, ok := w.room(p, l, top, s.early); ok {
		confidence, how := runner.HighMeasuredStep, fmt.Sprintf(
			"driver's rise in %s, within the reserved activation's room",
			s.phase,
		)
		if !s.after.ok {
			confidence, how = runner.LowEstimated, "what is left of the reserved activation's room"
		}
		taken := max(0, min(room, l.activations.bytes))
		excess := max(0, room-l.activations.bytes)
		held := l.left.bytes // of the room, by what is no activation
		if !l.consumed {
			held += l.buffers.bytes
		}
		if s.early { // what the budget holds for graphs is room too
			held -= l.estimate.bytes
		}
		used := max(0, min(room, l.activations.bytes)-held-s.after.bytes)
		act = known(used, how, confidence)
		growth = known(
			excess,
			fmt.Sprintf("highest use, in %s, beyond requested + context + graphs outside the budget", s.phase),
			confidence,
		)
		framework = left - used - excess
		s.unused = known(l.activations.bytes-taken, "vLLM's reserve less what is in use of its room", confidence)
	} else {
		s.unused = missing("%s", growth.reason)
	}
	s.parts = append(s.parts, part{compActivations, act}, part{compGrowth, growth},
		part{compFramework, known(framework, "what neither account explains", runner.CalculatedResidual)})
}

// room is how much of the room that vLLM reserved for activation, and beyond
// it, is in use: what is above the rest of the budget, the context and the
// graphs outside the budget. Where the KV size was given there is no budget,
// and the parts stand for it. early: the graphs are not captured yet.
func (w *work) room(p *course, l *ledger, top int64, early bool) (int64, bool) {
	if p.baseline == nil || !l.activations.ok || !l.context.ok || !l.graphs.ok || !l.estimate.ok {
		return 0, false
	}
	net, graphs, estimate := top-p.baseline.level-l.context.bytes, l.graphs.bytes, l.estimate.bytes
	if early {
		graphs, estimate = 0, 0
	}
	if requested := w.requested(l); requested.ok {
		return net - (graphs - estimate) - (requested.bytes - l.activations.bytes), true
	}
	if !l.weights.ok || !l.nonTorch.ok || !l.kv.ok {
		return 0, false
	}
	if l.consumed {
		net -= l.buffers.bytes
	}
	return net - graphs - l.weights.bytes - l.nonTorch.bytes - l.kv.bytes, true
}

func (s *split) flag(l *ledger) {
	f := s.part(compFramework)
	if !f.ok || f.bytes >= 0 {
		return
	}
	why := ""
	if -f.bytes <= toBytes(0.03) { // six printed terms, each good to 0.005 GiB
		why = " (within the log's rounding)"
	}
	if s.part(compGrowth).bytes > 0 && l.buffers.ok && l.buffers.bytes > l.activations.bytes {
		why = fmt.Sprintf(
			"; the runner's buffers (%s) exceed what was reserved for activation (%s), so that growth_excess counts the difference too",
			gibText(l.buffers.bytes),
			gibText(l.activations.bytes),
		)
	}
	s.flags = append(
		s.flags,
		fmt.Sprintf("negative framework_overhead: the parts exceed what the driver saw by %d MiB%s", -f.bytes>>20, why),
	)
}

// rows are the parts of one rank as the table of breakdowns has them: only
// what is known, because a row that is missing is not a row of 0.
func (s *split) rows(rank int) []runner.BreakdownRow {
	var out []runner.BreakdownRow
	for _, p := range s.parts {
		if !p.ok {
			continue
		}
		r := runner.BreakdownRow{
			Rank:       int32(rank),
			Component:  p.component,
			Bytes:      p.bytes,
			Source:     p.source,
			Confidence: p.confidence,
		}
		if s.net > 0 {
			v := float64(p.bytes) / float64(s.net)
			r.Share = &v
		}
		out = append(out, r)
	}
	return out
}

// sum adds one component up over the ranks; it is missing where any rank's is.
func sum(splits []*split, pick func(*split) figure) figure {
	var total figure
	for i, s := range splits {
		f := pick(s)
		if !f.ok {
			return f
		}
		if i == 0 {
			total = f
			continue
		}
		total.bytes += f.bytes
		if trust(f.confidence) > trust(total.confidence) {
			total.confidence, total.source = f.confidence, f.source
		}
	}
	return total
}

// trust orders confidences: the higher, the less.
func trust(c runner.Confidence) int {
	switch c {
	case runner.HighFromVLLMLogs:
		return 0
	case runner.HighMeasuredStep:
		return 1
	case runner.HighCalculated:
		return 2
	case runner.LowEstimated:
		return 3
	}
	return 4
}

// breakdown joins the splits of all ranks into memory_breakdown.
func (w *work) breakdown(splits []*split, top, baseline int64, at time.Duration) *runner.Breakdown {
	b := &runner.Breakdown{ConfidenceLevels: map[string]runner.Confidence{}}
	net := top - baseline
	b.TotalMeasuredGB, b.BaselineGB, b.NetIncreaseGB = gib(&top), gib(&baseline), gib(&net)
	b.PeakAt, b.PeakPhase, b.PeakLowerBound = w.c.time(at), splits[0].phase, w.failed
	for _, p := range w.courses {
		b.PeakLowerBound = b.PeakLowerBound || p.track.mem.alone(at)
	}
	b.UncertaintyBytes = map[string]int64{}
	for i, s := range splits {
		s.doubt(w.courses[i], at)
		b.UncertaintyBytes["total_measured_gb"] += s.off.top
		b.UncertaintyBytes["net_increase_gb"] += s.off.net
		b.UncertaintyBytes["growth_excess_gb"] += s.off.growth
		b.UncertaintyBytes["activations_gb"] += s.off.divided
		b.UncertaintyBytes["framework_overhead_gb"] += s.off.divided
	}
	set := func(field string, to **float64, component string) {
		f := sum(splits, func(s *split) figure { return s.part(component) })
		*to = f.gib()
		if !f.ok {
			delete(b.UncertaintyBytes, field)
			w.miss("memory_breakdown."+field, f.reason)
			return
		}
		b.ConfidenceLevels[field] = f.confidence
		if f.confidence == runner.HighFromVLLMLogs {
			b.VLLMReportedValuesUsed = true
		}
	}
	set("model_weights_gb", &b.ModelWeightsGB, compWeights)
	set("kv_cache_gb", &b.KVCacheGB, compKV)
	set("graph_capture_gb", &b.GraphCaptureGB, compGraphs)
	set("non_torch_gb", &b.NonTorchGB, compNonTorch)
	set("context_gb", &b.ContextGB, compContext)
	set("buffers_gb", &b.BuffersGB, compBuffers)
	set("activations_gb", &b.ActivationsGB, compActivations)
	set("growth_excess_gb", &b.GrowthExcessGB, compGrowth)
	b.FrameworkOverheadGB = w.framework(splits, net, b)

	after := sum(splits, func(s *split) figure { return s.after })
	if b.ResidualAfterCaptureGB = after.gib(); !after.ok {
		w.miss("memory_breakdown.residual_after_capture_gb", after.reason)
	}
	b.NCCLInContextGB = w.nccl().gib()
	b.HeadroomUnusedGB = sum(splits, func(s *split) figure { return s.unused }).gib()
	b.ActivationsReservedGB = sum(splits, func(s *split) figure { return s.reserved }).gib()
	b.KVCacheUsedGB, b.KVUsedSource = w.kv.used.gib(), w.kv.used.source
	if !w.kv.used.ok {
		w.miss("memory_breakdown.kv_cache_used_gb", w.kv.used.reason)
	}
	if b.FrameworkOverheadGB != nil && net > 0 {
		v := *b.FrameworkOverheadGB / *b.NetIncreaseGB * 100
		b.OverheadPercentage = &v
	}
	b.EstimationMethod = "vLLM's account, divided against the driver's level right after graph capture"
	if !b.VLLMReportedValuesUsed {
		b.EstimationMethod = "the driver's steps; vLLM's account has no figure"
	}
	for i, s := range splits {
		for _, f := range s.flags {
			if len(splits) > 1 {
				f = fmt.Sprintf("rank %d: %s", i, f)
			}
			b.Flags = append(b.Flags, f)
		}
	}
	return b
}

// nccl is the driver's step of NCCL over all ranks.
func (w *work) nccl() figure {
	var total int64
	for _, p := range w.courses {
		if p.nccl == nil || p.context == nil {
			return missing("no step of NCCL")
		}
		total += p.nccl.level - p.context.level
	}
	return known(total, "driver's step nccl", runner.HighMeasuredStep)
}

// framework is the residual over all ranks: what is left of the net increase
// after every part that is known over all ranks, so that the parts of the
// JSON add up whatever one rank lacks.
func (w *work) framework(splits []*split, net int64, b *runner.Breakdown) *float64 {
	left := net
	for _, component := range []string{compWeights, compKV, compGraphs, compNonTorch, compContext, compBuffers,
		compActivations, compGrowth} {
		if f := sum(splits, func(s *split) figure { return s.part(component) }); f.ok {
			left -= f.bytes
		}
	}
	b.ConfidenceLevels["framework_overhead_gb"] = runner.CalculatedResidual
	return gib(&left)
}

package attribution

import (
	"fmt"

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
	parts  []part // add up to net exactly
	net    int64
	unused figure // of the reserved activation
	after  figure // what is left right after capture: framework overhead
	flags  []string
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
// What vLLM's log and the arithmetic know is taken as it is. What is left
// right after graph capture (after the KV allocation without graphs), when
// torch has given back what profiling reserved, is framework overhead: neither
// account explains it. What the driver sees grow from there on is activation
// retaken, up to what vLLM reserved, and growth excess beyond.
func divide(l *ledger, p *course, top int64) *split {
	s := &split{}
	if p.baseline == nil {
		return nil
	}
	s.net = top - p.baseline.level
	terms := []part{
		{compWeights, l.weights}, {compKV, l.kv}, {compGraphs, l.graphs},
		{compNonTorch, l.nonTorch}, {compContext, l.context}, {compBuffers, l.buffers},
	}
	explained, complete := s.take(terms)
	left := s.net - explained

	settled, steady := p.captured, true
	if settled == nil {
		settled = p.kv
	}
	if settled == nil || settled.level > top {
		steady = false
	}
	switch {
	case steady && complete:
		s.after = known(settled.level-p.baseline.level-explained, "driver's level right after capture, less the parts", runner.CalculatedResidual)
		s.grow(l, left-s.after.bytes, left)
	case p.kv == nil && p.peak != nil && p.loaded != nil && p.peak.level == top:
		// the run ended in profiling: its peak is activation, reserved by nobody
		act := p.peak.level - p.loaded.level
		s.parts = append(s.parts, part{compActivations, known(act, "driver's step profile_peak", runner.HighMeasuredStep)},
			part{compGrowth, missing("the run ended before there was a budget to exceed")},
			part{compFramework, known(left-act, "what is left", runner.CalculatedResidual)})
	default:
		s.unsteady(l, left, complete)
	}
	s.flag()
	return s
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

// grow divides what the driver saw grow after capture.
func (s *split) grow(l *ledger, grown, left int64) {
	act := figure{reason: l.activations.reason}
	growth := missing("without the reserved activation there is nothing to exceed")
	framework := left
	if l.activations.ok {
		used := max(0, min(grown, l.activations.bytes))
		act = known(used, "driver's rise after capture, up to what vLLM reserved", runner.HighMeasuredStep)
		growth = known(max(0, grown-used), "driver's rise after capture beyond what vLLM reserved", runner.HighMeasuredStep)
		framework = left - used - growth.bytes
		s.unused = known(l.activations.bytes-used, "vLLM's reserve less what is in use", runner.HighMeasuredStep)
	}
	s.parts = append(s.parts, part{compActivations, act}, part{compGrowth, growth},
		part{compFramework, known(framework, "what neither account explains", runner.CalculatedResidual)})
}

// unsteady divides without a level right after capture: what is left counts as
// activation first.
func (s *split) unsteady(l *ledger, left int64, complete bool) {
	act, growth, framework := figure{reason: l.activations.reason}, missing("no level right after capture was sampled"), left
	if l.activations.ok && complete {
		used := max(0, min(left, l.activations.bytes))
		act = known(used, "what is left, up to what vLLM reserved", runner.LowEstimated)
		growth = known(max(0, left-used), "what is left beyond that", runner.LowEstimated)
		framework = left - used - growth.bytes
		s.unused = known(l.activations.bytes-used, "vLLM's reserve less what is in use", runner.LowEstimated)
	}
	if !complete {
		s.flags = append(s.flags, "framework_overhead holds every part that is missing")
	}
	s.parts = append(s.parts, part{compActivations, act}, part{compGrowth, growth},
		part{compFramework, known(framework, "what is left", runner.CalculatedResidual)})
}

func (s *split) flag() {
	f := s.part(compFramework)
	if f.ok && f.bytes < 0 {
		s.flags = append(s.flags, fmt.Sprintf("negative framework_overhead: the parts exceed what the driver saw by %.2f GiB", -float64(f.bytes)/runner.GiB))
	}
}

// rows are the parts of one rank as the table of breakdowns has them: only
// what is known, because a row that is missing is not a row of 0.
func (s *split) rows(rank int) []runner.BreakdownRow {
	var out []runner.BreakdownRow
	for _, p := range s.parts {
		if !p.ok {
			continue
		}
		r := runner.BreakdownRow{Rank: int32(rank), Component: p.component, Bytes: p.bytes, Source: p.source, Confidence: p.confidence}
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
func (w *work) breakdown(splits []*split, top, baseline int64) *runner.Breakdown {
	b := &runner.Breakdown{ConfidenceLevels: map[string]runner.Confidence{}}
	net := top - baseline
	b.TotalMeasuredGB, b.BaselineGB, b.NetIncreaseGB = gib(&top), gib(&baseline), gib(&net)
	set := func(field string, to **float64, component string) {
		f := sum(splits, func(s *split) figure { return s.part(component) })
		*to = f.gib()
		if !f.ok {
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

	unused := sum(splits, func(s *split) figure { return s.unused })
	b.HeadroomUnusedGB = unused.gib()
	var reserved figure
	for i, l := range w.ledgers {
		if i == 0 {
			reserved = l.activations
		} else if !l.activations.ok {
			reserved = l.activations
			break
		} else {
			reserved.bytes += l.activations.bytes
		}
	}
	b.ActivationsReservedGB = reserved.gib()
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

// framework is the residual over all ranks: what is left of the net increase
// after every part that is known over all ranks, so that the parts of the
// JSON add up whatever one rank lacks.
func (w *work) framework(splits []*split, net int64, b *runner.Breakdown) *float64 {
	left := net
	for _, component := range []string{compWeights, compKV, compGraphs, compNonTorch, compContext, compBuffers, compActivations, compGrowth} {
		if f := sum(splits, func(s *split) figure { return s.part(component) }); f.ok {
			left -= f.bytes
		}
	}
	b.ConfidenceLevels["framework_overhead_gb"] = runner.CalculatedResidual
	return gib(&left)
}

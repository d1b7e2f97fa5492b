package attribution

import (
	"fmt"

	"github.com/vramsweep/vramsweep/runner"
)

// allocatorPage is the granularity of torch's allocator for large blocks, and
// the driver's.
const allocatorPage = 2 << 20

// A ladder gathers the steps of one GPU.
type ladder struct {
	w    *work
	p    *course
	rows []runner.StepRow
}

// add adds the step between two levels and what vLLM says of the same; reason
// explains a difference.
func (s *ladder) add(name string, from, to *point, vllm figure, reason func(difference int64) string) {
	row := runner.StepRow{GPUIndex: s.p.track.gpu, Step: name, VLLMBytes: vllm.pointer(), Reason: vllm.reason}
	if from == nil || to == nil {
		row.Reason = "not sampled: the run did not get there, or the samples lie too far apart to tell the level"
		s.rows = append(s.rows, row)
		return
	}
	bytes := to.level - from.level
	row.Bytes, row.TFrom, row.TTo = &bytes, s.w.c.time(from.at), s.w.c.time(to.at)
	unsure := max(from.off, allocatorPage)
	if name == "profile_peak" || name == "estimate_capture" || name == "kernel_warmup" {
		low := s.p.track.mem.alone(to.at) || bytes < notable // one sample alone shows it, or none does
		row.LowerBound = &low
		unsure += s.p.track.mem.unsure(to.at)
	} else {
		unsure += max(to.off, allocatorPage)
	}
	row.UncertaintyB = &unsure
	if vllm.ok {
		d := bytes - vllm.bytes
		row.DifferenceBytes, row.Reason = &d, reason(d)
	}
	s.rows = append(s.rows, row)
}

// steps is the driver's account of one GPU: each step with the two samples
// that it comes from, and what vLLM says of the same. A run whose engine was
// there before it has the steps of its own batch only.
func (w *work) steps(p *course, l *ledger) []runner.StepRow {
	if w.c.host {
		return nil
	}
	s := &ladder{w: w, p: p}
	if !p.shared && !w.lost {
		s.startUp(l)
	}
	s.add(
		"bench_warmup",
		p.ready,
		p.warmed,
		missing("vLLM gives no figure: the first requests retake reserved activation"),
		nil,
	)
	s.add("measure", p.warmed, p.measured, missing("vLLM gives no figure"), nil)
	if w.m.Job.KeepEngine {
		return s.rows // the engine goes on with the next run
	}
	if p.shared {
		s.add("left_after", nil, nil, missing(""), nil)
		s.rows[len(s.rows)-1].Reason = "the engine was there before this run: the level before it started lies in the first run of the group"
		return s.rows
	}
	left := missing("vLLM gives no figure; the engine should leave nothing")
	if p.leftRead {
		left.reason += "; read once by the GPU tools, not sampled"
	}
	s.add("left_after", p.baseline, p.left, left, nil)
	return s.rows
}

// startUp adds the steps from the baseline to the engine's readiness.
func (s *ladder) startUp(l *ledger) {
	w, p := s.w, s.p
	begin := p.context
	s.add("context", p.baseline, p.context, w.vllmContext(p, l), func(d int64) string {
		if d >= allocatorPage {
			return "libraries that load with the context and before the weights; vLLM counts them as non-torch"
		}
		return agree
	})
	if p.nccl != nil {
		begin = p.nccl
		s.add("nccl", p.context, p.nccl, w.vllmNCCL(p, l), func(int64) string {
			return "NCCL and custom all-reduce start before vLLM's first snapshot: they lie in total less free at start, in no line of their own; the context step is taken off"
		})
	}
	s.load(begin, l)
	s.add("profile_peak", p.loaded, p.peak, l.activations, func(d int64) string {
		if d > 0 {
			return "the driver sees what torch reserves, its unused blocks and compiled kernels included; vLLM counts allocated tensors"
		}
		return "a peak shorter than the distance of two samples was missed, or lies in blocks that torch already held"
	})
	if p.estimated {
		s.add("estimate_capture", p.profiled, p.estimate, missing(
			"graphs captured for an estimate and dropped: the highest sample over the level after profiling; vLLM's estimate of %s is worked out from them",
			gibText(l.estimate.bytes),
		), nil)
	}
	s.rows = append(s.rows, w.kvStep(p, l))
	settled := p.kv
	if p.kernels != nil {
		s.add(
			"kernel_warmup",
			p.kv,
			p.kernels,
			missing(
				"vLLM gives no figure: the highest sample of kernel warm-up over the level of the KV cache; it is given back when capture begins",
			),
			nil,
		)
	}
	if p.captured != nil || l.graphs.bytes > 0 {
		settled = p.captured
		s.add("capture", p.kv, p.captured, l.graphs, func(d int64) string {
			if abs(d) < allocatorPage {
				return agree
			}
			return "allocator granularity, and libraries that graph capture loads"
		})
	}
	s.add(
		"engine_warmup",
		settled,
		p.ready,
		missing("vLLM gives no figure: kernel warm-up retakes reserved activation"),
		nil,
	)
}

// load adds the weights and, where the line between was seen to arrive, the buffers.
func (s *ladder) load(begin *point, l *ledger) {
	p := s.p
	loaded := p.loaded
	if p.weights != nil && begin != nil && p.weights.at > begin.at {
		loaded = p.weights
	}
	s.add("load", begin, loaded, l.weights, func(d int64) string {
		if loaded == p.weights && abs(d) < 8*allocatorPage {
			return agree
		}
		return loadReason(l, d)
	})
	if loaded == p.weights && p.loaded != nil && l.buffers.bytes > 0 {
		s.add(
			"buffers",
			loaded,
			p.loaded,
			missing("vLLM gives no figure: the runner's persistent buffers, calculated %s", gibText(l.buffers.bytes)),
			nil,
		)
	}
}

const agree = "agrees to the log's rounding and the driver's granularity"

// vllmContext is what vLLM's log says of the context alone: nothing where NCCL
// started before its first snapshot.
func (w *work) vllmContext(p *course, l *ledger) figure {
	if p.nccl != nil {
		return missing("in no line: with several ranks vLLM's first snapshot is taken after NCCL has started")
	}
	if l.context.ok && l.context.confidence == runner.HighMeasuredStep {
		return missing("in no line: vLLM's log does not say what was free at its start")
	}
	return l.context
}

func (w *work) vllmNCCL(p *course, l *ledger) figure {
	if !l.context.ok || l.context.confidence == runner.HighMeasuredStep || p.context == nil || p.baseline == nil {
		return missing("in no line: NCCL starts before vLLM's first snapshot")
	}
	return known(l.context.bytes-(p.context.level-p.baseline.level), l.context.source, l.context.confidence)
}

func loadReason(l *ledger, d int64) string {
	if l.buffers.ok && l.buffers.bytes > 0 {
		rest := d - l.buffers.bytes
		return fmt.Sprintf(
			"the runner's persistent buffers (about max_num_seqs x vocabulary x 4 B: %s) are allocated with the weights and stand in no line; %s more: allocator granularity and libraries",
			gibText(l.buffers.bytes),
			gibText(rest),
		)
	}
	if abs(d) < allocatorPage {
		return agree
	}
	return "allocator granularity, and what the runner allocates with the weights"
}

// kvStep is the allocation of the KV cache. Where the samples are too far
// apart to show what torch gave back before it, the step starts at the level
// after loading. Where one of the runner's own buffers was given back between
// the same two samples, and the sizes tell so to the allocator's page, it is
// added to the bare rise; the reason names both.
func (w *work) kvStep(p *course, l *ledger) runner.StepRow {
	row := runner.StepRow{GPUIndex: p.track.gpu, Step: "kv_alloc", VLLMBytes: l.kv.pointer()}
	if p.kv == nil || p.kvBase == nil {
		row.Reason = noKVStep(p, l)
		return row
	}
	bytes := p.kv.level - p.kvBase.level
	switch {
	case !p.fallSeen:
		row.Reason = fmt.Sprintf(
			"what profiling reserved was given back and the KV cache allocated between two samples (bare rise %s): counted from the level after loading, so that what profiling left behind for good is in it",
			gibText(p.kvJump),
		)
	case l.kv.ok:
		if back := w.givenBack(l, bytes); back > 0 {
			bytes += back
			row.Reason = fmt.Sprintf(
				"bare rise %s; one buffer of max_num_seqs x vocabulary x 4 B (%s) was given back between the same two samples: the sum is the KV cache in whole allocator pages",
				gibText(bytes-back),
				gibText(back),
			)
		}
	}
	row.Bytes, row.TFrom, row.TTo = &bytes, w.c.time(p.kvBase.at), w.c.time(p.kv.at)
	unsure := max(p.kvBase.off, p.track.mem.unsure(p.kvBase.at)) + p.kv.off
	if !p.fallSeen { // what profiling left for good is in it: at most all that stood before it
		unsure += max(0, bytes-p.kvJump)
	}
	row.UncertaintyB = &unsure
	if l.kv.ok {
		d := bytes - l.kv.bytes
		row.DifferenceBytes = &d
		if row.Reason == "" {
			row.Reason = agree
			if abs(d) >= 4*allocatorPage {
				row.Reason = "torch rounds each layer's cache up to its page"
				if d < 0 {
					row.Reason = "part of the KV cache went into blocks that torch still held, or was given back between the same two samples"
				}
			}
		}
	} else if row.Reason == "" {
		row.Reason = l.kv.reason
	}
	return row
}

// noKVStep says why the step of the KV cache is null.
func noKVStep(p *course, l *ledger) string {
	reason := "no allocation of a KV cache was sampled, or the samples lie too far apart to tell it from what is around it"
	switch {
	case !l.kv.ok:
		reason += ": " + l.kv.reason
	case p.kv != nil && p.estimated && p.profiled != nil:
		reason = fmt.Sprintf(
			"between %s and %s: the graphs of the estimate were given back and the KV cache allocated between two samples; sample faster to see the level between",
			gibText(p.kvJump),
			gibText(p.kv.level-p.profiled.level),
		)
	case p.kv != nil:
		reason = fmt.Sprintf(
			"bare rise %s: what profiling reserved was given back between the same two samples, and part of it stayed; sample faster to see its end",
			gibText(p.kvJump),
		)
	}
	return reason
}

// givenBack returns the size of the logits buffer of the sampler's profiling
// (one max_num_seqs x vocabulary of 4 B) if the rise falls short of the KV
// cache by just that, to a page a layer.
func (w *work) givenBack(l *ledger, risen int64) int64 {
	if w.logits <= 0 || risen >= l.kv.bytes-sustained {
		return 0
	}
	back := (w.logits + allocatorPage - 1) / allocatorPage * allocatorPage
	layers := int64(64)
	if w.layers > 0 {
		layers = w.layers
	}
	over := risen + back - l.kv.bytes
	slack := toBytes(0.005) // of the log's rounding
	if over < -slack || over > layers*allocatorPage+slack {
		return 0
	}
	return back
}

func gibText(bytes int64) string { return fmt.Sprintf("%.2f GiB", float64(bytes)/runner.GiB) }

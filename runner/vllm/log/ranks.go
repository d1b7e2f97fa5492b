package log

import (
	"sort"

	"github.com/vramsweep/vramsweep/runner"
)

// A cell is one figure of the account on its way there: read (src) or worked
// out (derived says how). nil val: not known, and why.
type cell struct {
	val     *float64
	half    float64
	src     runner.AccountSource
	derived string
	why     string
}

func (c cell) known() bool { return c.val != nil }

func read(f figure) cell {
	v := f.val
	return cell{val: &v, half: f.half, src: f.src}
}

func derive(v, half float64, src runner.AccountSource, how string) cell {
	v = round4(v)
	return cell{val: &v, half: half, src: src, derived: how}
}

// none is a figure that is 0 because there is nothing.
func none() cell { return cell{val: new(float64)} }

func unknown(why string) cell { return cell{why: why} }

// A rankView is one rank with the facts of every sender that spoke for it.
type rankView struct {
	run    *run
	rank   int
	pid    int
	facts  [numRankFacts][]figure
	worker bool
	trial  bool // its only capture was the V2 runner's estimate
	models bool // V0 prints the weights of the target and of the draft model
}

// last is the last figure of the first of the named facts that was printed:
// within one start of an engine the last word counts.
func (v *rankView) last(facts ...rankFact) (figure, bool) {
	for _, f := range facts {
		if l := v.facts[f]; len(l) > 0 {
			return l[len(l)-1], true
		}
	}
	return figure{}, false
}

func (v *rankView) cell(why string, facts ...rankFact) cell {
	if f, ok := v.last(facts...); ok {
		return read(f)
	}
	return unknown(why)
}

// said is a setting as the engine's banner says it, nil where it does not.
func (r *run) said(key string) *word {
	if v := r.banner[key]; v != "" {
		return &word{val: v, src: r.bannerAt}
	}
	return nil
}

// config is a setting of the engine: its banner's, else what was asked.
func (r *run) config(key string) string {
	if v, ok := r.banner[key]; ok {
		return v
	}
	if r.banner == nil {
		return r.args[key]
	}
	return ""
}

// world is the number of ranks of one engine, 0 where the log does not tell.
func (r *run) world() int {
	tp, pp := atoi(r.config("tensor_parallel_size")), atoi(r.config("pipeline_parallel_size"))
	if r.banner == nil && tp == 0 && pp == 0 {
		return 0
	}
	n := max(tp, 1) * max(pp, 1)
	if n > 1<<12 {
		return 0
	}
	return n
}

// rankOf is the rank that a sender holds, as far as its name or its own words
// tell; -1 where only the order of appearance can.
func (r *run) rankOf(s *sender) int {
	rank := -1
	switch {
	case s.proc.rank >= 0:
		rank = s.proc.rank
	case s.worldRank >= 0:
		rank = s.worldRank
	case s.proc.ep >= 0 && s.proc.pp <= 0: // counted over data and tensor parallelism
		return min(s.proc.ep, maxSenders)
	case s.proc.hasParallel:
		rank = max(s.proc.pp, 0)*r.tensorSize() + max(s.proc.tp, 0)
	case !isWorker(s.proc.name):
		rank = 0
	case r.world() == 1 && s.proc.dp < 0:
		rank = 0
	}
	if rank >= 0 && s.proc.dp > 0 {
		rank += s.proc.dp * max(r.world(), 1)
	}
	if rank > maxSenders {
		return -1
	}
	return rank
}

// tensorSize is the number of ranks of a pipeline's stage: the banner's, else
// what the names of the workers show at least.
func (r *run) tensorSize() int {
	n := atoi(r.config("tensor_parallel_size"))
	if n == 0 {
		for _, s := range r.senders {
			n = max(n, min(s.proc.tp, maxSenders)+1)
		}
	}
	return max(n, 1)
}

// rankViews sorts the figures by rank. Workers that cannot be told apart by
// name take the free numbers in order of appearance.
func (r *run) rankViews() []*rankView {
	views := make(map[int]*rankView)
	var late []*sender
	for _, key := range r.names {
		s := r.senders[key]
		if !s.has() {
			continue
		}
		rank := r.rankOf(s)
		if v := views[rank]; rank < 0 || v != nil && v.worker && isWorker(s.proc.name) && v.pid != s.proc.pid {
			late = append(late, s)
			continue
		}
		views[rank] = r.merge(views[rank], s, rank)
	}
	next := 0
	if r.driverIsRank0() {
		next = 1
	}
	sort.SliceStable(late, func(i, j int) bool { return late[i].seen < late[j].seen })
	out := make([]*rankView, 0, len(views))
	for _, s := range late {
		if r.banner == nil { // the log may begin anywhere: order tells nothing
			out = append(out, r.merge(nil, s, -1))
			continue
		}
		for views[next] != nil {
			next++
		}
		views[next] = r.merge(nil, s, next)
	}
	for _, v := range views {
		out = append(out, v)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].rank < out[j].rank })
	out = r.fillRanks(r.splitAnonymous(out))
	if r.saysV0() && r.banner["speculative_config"] != "" {
		for _, v := range out {
			v.models = len(v.facts[fWeights]) == 2
		}
	}
	r.findTrialCaptures(out)
	return out
}

// findTrialCaptures tells the capture that the V2 model runner makes for its
// estimate (0.29 on) from the real one where the log ends between the two: it
// stands before the KV line.
func (r *run) findTrialCaptures(views []*rankView) {
	if !r.runnerIs("v2") || r.version == nil || before(r.version.val, 0, 29) {
		return
	}
	kvAt, told := runner.AccountSource{}, false
	for _, s := range r.senders {
		if l := s.facts[fAvailableKV]; len(l) > 0 && (!told || l[0].src.Line < kvAt.Line) {
			kvAt, told = l[0].src, true
		}
	}
	for _, v := range views {
		l := v.facts[fGraphs]
		if len(l) != 1 {
			continue
		}
		at := l[0].src
		v.trial = at.File == kvAt.File && at.Line < kvAt.Line
		if !told {
			v.trial = len(v.facts[fGivenKV]) == 0 // the log ends between the two
		}
		if v.trial {
			v.facts[fGraphs] = nil
		}
	}
}

// driverIsRank0 reports whether the engine itself is rank 0, as in V0.
func (r *run) driverIsRank0() bool {
	for _, s := range r.senders {
		if s.proc.name == "VllmWorkerProcess" {
			return true
		}
	}
	return r.engine != nil && r.engine.val == "V0"
}

func (s *sender) has() bool {
	for _, l := range s.facts {
		if len(l) > 0 {
			return true
		}
	}
	return false
}

func (r *run) merge(v *rankView, s *sender, rank int) *rankView {
	if v == nil {
		v = &rankView{run: r, rank: rank}
	}
	if s.proc.pid != 0 && (v.pid == 0 || isWorker(s.proc.name)) {
		v.pid = s.proc.pid
	}
	v.worker = v.worker || isWorker(s.proc.name)
	for f, l := range s.facts {
		v.facts[f] = append(v.facts[f], l...)
	}
	return v
}

// splitAnonymous handles logs without process prefixes: the same line printed
// several times by an engine of several ranks is one line a rank. Which rank
// is which cannot be told; they are numbered in order.
func (r *run) splitAnonymous(views []*rankView) []*rankView {
	if len(views) != 1 || views[0].worker || views[0].pid != 0 || r.world() < 2 {
		return views
	}
	v := views[0]
	n := 1
	for _, l := range v.facts {
		n = max(n, min(len(l), r.world()))
	}
	if n == 1 {
		return views
	}
	out := make([]*rankView, n)
	for i := range out {
		out[i] = &rankView{run: r, rank: i}
		for f, l := range v.facts {
			if i < len(l) && len(l) <= n {
				out[i].facts[f] = l[i : i+1]
			} else if len(l) > n && i == 0 {
				out[i].facts[f] = l
			}
		}
	}
	return out
}

// fillRanks adds the ranks that printed nothing: from 0.11.1 on only rank 0 of
// a node prints most lines.
func (r *run) fillRanks(views []*rankView) []*rankView {
	if len(views) == 0 {
		return views
	}
	have := make(map[int]bool)
	for _, v := range views {
		have[v.rank] = true
	}
	base := max(r.dp, 0) * r.world()
	for i := base; i < base+r.world(); i++ {
		if !have[i] {
			v := &rankView{run: r, rank: i}
			for _, key := range r.names {
				if s := r.senders[key]; isWorker(s.proc.name) && r.rankOf(s) == i {
					v.pid = s.proc.pid
				}
			}
			views = append(views, v)
		}
	}
	sort.Slice(views, func(i, j int) bool { return views[i].rank < views[j].rank })
	return views
}

// weights of the rank, GiB.
func (v *rankView) weights() cell {
	if v.models {
		a, b := v.facts[fWeights][0], v.facts[fWeights][1]
		return derive(a.val+b.val, a.half+b.half, b.src,
			"the model's weights and those of its draft model, as printed one after the other")
	}
	return v.cell("", fWeights, fUseWeights, fProfWeights, fV0Weights)
}

// kv is the memory of the rank's KV cache: what the profile found available,
// or what was given or taken.
func (v *rankView) kv() cell {
	return v.cell("", fAvailableKV, fGivenKV, fV0KV, fV064KV, fCPUKV, fKVInUse)
}

// kvInUse is what the KV cache really takes, where the log tells it apart.
func (v *rankView) kvInUse() cell {
	return v.cell("", fKVInUse, fGivenKV, fAvailableKV, fV0KV, fV064KV, fCPUKV)
}

func (v *rankView) loadSeconds() cell { return v.cell("", fLoadSeconds) }

func (v *rankView) nonTorch() cell {
	return v.cell("", fUseNonTorch, fProfNonTorch, fV0NonTorch, fV064NonTorch, fXPUNonTorch)
}

func (v *rankView) consumed() cell { return v.cell("", fUseConsumed, fProfConsumed, fCPUConsumed) }

func (v *rankView) graphs() cell { return v.cell("", fPoolActual, fGraphs, fUseGraphs) }

func (v *rankView) total() cell {
	return v.cell("", fUseTotal, fSnapTotal, fV0Total, fV064Total, fFailTotal, fXPUTotal)
}

func (v *rankView) free() cell { return v.cell("", fUseFree, fFailFree, fSnapFree, fInitFree) }

func (v *rankView) requested() cell {
	if c := v.cell("", fUseRequested, fV0Requested, fRequested, fFailRequested, fCPURequested); c.known() {
		return c
	}
	t, ok1 := v.last(fV064Total)
	u, ok2 := v.last(fV064Util)
	if ok1 && ok2 {
		return derive(t.val*u.val, t.half*u.val+u.half*t.val, u.src,
			"total_gpu_memory x gpu_memory_utilization of the same line")
	}
	return unknown("")
}

// estimate is what vLLM took off the budget for CUDA graphs before it captured
// them. none says that it took nothing off.
func (v *rankView) estimate() (c cell, none bool) {
	r := v.run
	if c := v.cell("", fGraphEstimate, fPoolEstimate); c.known() {
		return c, false
	}
	a, ok1 := v.last(fNoticeAsked)
	b, ok2 := v.last(fNoticeEqual)
	t := v.total()
	if ok1 && ok2 && t.known() {
		d := max(a.val-b.val, 0)
		return derive(d**t.val, (a.half+b.half)**t.val, a.src,
			"(utilization asked - equivalent without graph profiling) x total memory"), false
	}
	if why := r.noEstimate(v); why != "" {
		return unknown(why), true
	}
	// From 0.33 on the estimate is more than its capture took: the pool's line has it.
	if (v.trial || len(v.facts[fGraphs]) == 2) && r.runnerIs("v2") && len(v.facts[fGraphsFirst]) > 0 &&
		before(r.version.val, 0, 33) {
		f := v.facts[fGraphsFirst][0]
		return derive(f.val, f.half, f.src, "the first of two captures, which is the V2 model runner's estimate"), false
	}
	if ok1 && ok2 {
		return unknown("the log gives the estimate only as a share of memory, and the total is not in it"), false
	}
	return unknown("no line of the log holds the CUDA graph estimate"), false
}

// noEstimate says why vLLM took no graph estimate off the budget, "" where it
// may have.
func (r *run) noEstimate(v *rankView) string {
	switch {
	case r.estimateOff != nil:
		return "graph profiling is switched off: nothing is taken off the budget"
	case r.eager():
		return "no CUDA graphs are captured: nothing is taken off the budget"
	case r.engine != nil && r.engine.val == "V0":
		return "the V0 engine takes no graph estimate off the budget"
	case r.version == nil:
		return ""
	case before(r.version.val, 0, 18):
		return "vLLM before 0.18 takes no graph estimate off the budget"
	case r.runnerIs("v2") && before(r.version.val, 0, 29):
		return "the V2 model runner takes no graph estimate off the budget before 0.29"
	case r.runnerIs("v2") && len(v.facts[fGraphs]) == 1 && len(v.facts[fUseRequested]) > 0 && r.estimateOn == nil:
		return "the V2 model runner captured the graphs once and not twice: graph profiling was off"
	case r.runnerIs("v1") && len(v.facts[fAvailableKV]) > 0 && !before(r.version.val, 0, 20):
		return "graph profiling printed nothing where it always does: it was off in this build"
	}
	return ""
}

// eager reports whether the log proves that no CUDA graphs are captured: a line
// that says so, or enforce_eager among the settings and no capture.
func (r *run) eager() bool {
	return r.graphsOff != nil || r.captured == nil && r.config("enforce_eager") == "True"
}

// activation is the reserved activation, without the graph estimate that the
// wording of 0.27 on counts into it.
func (v *rankView) activation() cell {
	p, printed := v.last(fUseActivation)
	_, joined := v.last(fUseConsumed)
	if printed && !joined {
		return read(p)
	}
	if c := v.cell("", fProfActivation, fV0Activation); c.known() {
		return c
	}
	if printed {
		est, none := v.estimate()
		switch {
		case none:
			return read(p)
		case est.known():
			return derive(p.val-*est.val, p.half+est.half, p.src,
				"peak activation as printed minus the CUDA graph estimate that this wording counts into it")
		}
		return unknown("the printed peak activation holds the CUDA graph estimate, and the log does not tell that apart")
	}
	peak, ok1 := v.last(fV064Peak)
	w, ok2 := v.last(fWeights)
	if ok1 && ok2 {
		return derive(peak.val-w.val, peak.half+w.half, peak.src, "peak_torch_memory - weights")
	}
	return unknown("")
}

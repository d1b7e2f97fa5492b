package runner

import "fmt"

// Quality says what the samples of a run cover.
type Quality string

// The qualities, best first.
const (
	QualityFull   Quality = "full"
	QualitySparse Quality = "sparse" // a window rests on too few samples: its figures are null
	QualityBlind  Quality = "blind"  // no sample where the memory is used
)

// Worse reports whether other is worse than q.
func (q Quality) Worse(other Quality) bool {
	rank := map[Quality]int{QualityFull: 1, QualitySparse: 2, QualityBlind: 3}
	return rank[other] > rank[q]
}

// tolerated is how far parts may break a bound for roundings alone: the log prints
// 0.01 GiB, and a part is worked out of up to six figures.
const tolerated = 64 << 20

// Broken lists what of a result breaks a rule that holds for every run: the highest
// use is at least weights + KV cache (of an engine that ended well), no part is
// negative, parts add up to the net increase, phases follow each other, and no use
// or part is more than its GPU has. An empty list: nothing does.
func (r *Result) Broken() []string {
	out := r.brokenParts()
	for i := range r.BeyondBudget {
		b := &r.BeyondBudget[i]
		if total := r.deviceBytes(b.GPUIndex); b.HighestBytes != nil && total > 0 && *b.HighestBytes > total {
			out = append(out, fmt.Sprintf("%d bytes in use on GPU %d, which has %d", *b.HighestBytes, b.GPUIndex, total))
		}
	}
	for i := 1; i < len(r.Phases); i++ {
		a, b := &r.Phases[i-1], &r.Phases[i]
		if same(a.GPUIndex, b.GPUIndex) && a.StartedAt != nil && b.StartedAt != nil && b.StartedAt.Before(*a.StartedAt) {
			out = append(out, fmt.Sprintf("phase %s starts before %s", b.Phase, a.Phase))
		}
	}
	return out
}

// Unexplained is Broken without what the result itself owns up to: a breakdown that is
// null for a reason, in a run that is not of full quality.
func (r *Result) Unexplained() []string {
	if r.MemoryBreakdown == nil && r.Missing["memory_breakdown"] != "" && QualityFull.Worse(r.Run.Quality) {
		return nil
	}
	return r.Broken()
}

// deviceBytes is the memory of the run's device of this index; 0 where it is not known.
func (r *Result) deviceBytes(index int) int64 {
	for i := range r.GPUInfo {
		if r.GPUInfo[i].Index == index {
			return orZero(r.GPUInfo[i].TotalBytes)
		}
	}
	return 0
}

func (r *Result) brokenParts() (out []string) {
	var kv, weights, sum int64
	for i := range r.Breakdowns {
		b, total := &r.Breakdowns[i], int64(0)
		if int(b.Rank) < len(r.GPUInfo) {
			total = r.deviceBytes(r.GPUInfo[b.Rank].Index)
		}
		sum += b.Bytes
		switch b.Component {
		case "weights":
			weights += b.Bytes
		case "kv_cache":
			kv += b.Bytes
		}
		if b.Component != "framework_overhead" && b.Bytes < -tolerated {
			out = append(out, fmt.Sprintf("%s of rank %d is %d bytes, a part is never negative", b.Component, b.Rank, b.Bytes))
		}
		if total > 0 && b.Bytes > total {
			out = append(out, fmt.Sprintf("%s of rank %d is %d bytes, more than the %d of its GPU",
				b.Component, b.Rank, b.Bytes, total))
		}
	}
	if m := r.MemoryBreakdown; m != nil && m.NetIncreaseGB != nil {
		net := int64(*m.NetIncreaseGB * GiB)
		if d := sum - net; len(r.Breakdowns) > 0 && (d > 1 || d < -1) {
			out = append(out, fmt.Sprintf("the parts add up to %d bytes, the net increase is %d", sum, net))
		}
		if r.Run.Outcome == OutcomeOK && len(r.GPUInfo) > 0 && weights+kv > net+tolerated {
			out = append(out, fmt.Sprintf("the highest sample is %d bytes over the baseline, weights and KV cache alone are %d",
				net, weights+kv))
		}
	}
	return out
}

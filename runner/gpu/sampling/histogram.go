package sampling

import (
	"maps"
	"math"
	"slices"
	"time"
)

// histogram counts durations in buckets of 0.2 % width, so that quantiles of any
// number of ticks cost little memory.
type histogram struct {
	n      int64
	counts map[int]int64 // by the logarithm of the nanoseconds, in steps of histStep
}

const histStep = 0.002

func (h *histogram) add(d time.Duration) {
	if h.counts == nil {
		h.counts = map[int]int64{}
	}
	h.n++
	h.counts[int(math.Log(float64(max(d, 1)))/histStep)]++
}

// quantile is in milliseconds; nil without data.
func (h *histogram) quantile(q float64) *float64 {
	rank := int64(q * float64(h.n-1))
	var seen int64
	for _, i := range slices.Sorted(maps.Keys(h.counts)) {
		if seen += h.counts[i]; seen > rank {
			v := math.Exp((float64(i)+0.5)*histStep) / 1e6
			return &v
		}
	}
	return nil
}

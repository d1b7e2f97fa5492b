package sampling

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets of 0.2 % width, so that quantiles of
// any number of ticks cost no memory. Values under 512 ns share buckets.
type histogram struct {
	n      int64
	counts [32 * histSub]uint32
}

const (
	histBits = 9
	histSub  = 1 << histBits
)

func (h *histogram) add(d time.Duration) {
	h.n++
	h.counts[histIndex(uint64(d))]++
}

func histIndex(v uint64) int {
	if v < histSub {
		return int(v)
	}
	shift := bits.Len64(v) - histBits - 1
	i := (shift+1)*histSub + int(v>>uint(shift)) - histSub
	return min(i, 32*histSub-1)
}

func histValue(i int) float64 {
	if i < histSub {
		return float64(i)
	}
	shift := i/histSub - 1
	lo := uint64(i%histSub+histSub) << uint(shift)
	return float64(lo) + float64(uint64(1)<<uint(shift))/2
}

// quantile is in milliseconds; nil without data.
func (h *histogram) quantile(q float64) *float64 {
	if h.n == 0 {
		return nil
	}
	rank := int64(q * float64(h.n-1))
	var seen int64
	for i, c := range h.counts {
		seen += int64(c)
		if seen > rank {
			v := histValue(i) / 1e6
			return &v
		}
	}
	return nil
}

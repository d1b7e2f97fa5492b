package report

import (
	"cmp"
	"math"
	"slices"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// A Series is the timeline of one GPU of one run, thinned. Times are seconds
// since the start of the attempt, memory is in MiB, power in W. null: not read.
type Series struct {
	GPU     int32      `json:"gpu"`
	T       []float64  `json:"t"`
	Memory  []*float64 `json:"mem"`
	Power   []*float64 `json:"power"`
	Samples int        `json:"samples"` // before thinning
	phases  []PhaseBar
}

// thin keeps at most about limit samples of one GPU in the order of time: time
// is cut into limit/4 equal buckets, and of each bucket stay the samples with
// the lowest and the highest memory and the lowest and the highest power. The
// first and the last sample, and those where a phase begins, always stay, so no
// peak, dip or phase is lost; what goes are samples between them.
func thin(rows []sinks.TimelineRow, limit int) []sinks.TimelineRow {
	if len(rows) <= limit || limit < 4 {
		return rows
	}
	keep := make([]bool, len(rows))
	keep[0], keep[len(rows)-1] = true, true
	for i := 1; i < len(rows); i++ {
		if frame.Deref(rows[i].Phase) != frame.Deref(rows[i-1].Phase) {
			keep[i] = true
		}
	}
	start, end := rows[0].TOffsetUS, rows[len(rows)-1].TOffsetUS
	buckets := int64(limit / 4)
	width := max((end-start)/buckets+1, 1)
	for first := 0; first < len(rows); {
		bucket := (rows[first].TOffsetUS - start) / width
		last := first
		for last < len(rows) && (rows[last].TOffsetUS-start)/width == bucket {
			last++
		}
		keepExtremes(rows, first, last, keep)
		first = last
	}
	var out []sinks.TimelineRow
	for i := range rows {
		if keep[i] {
			out = append(out, rows[i])
		}
	}
	return out
}

// keepExtremes marks the lowest and highest samples of rows[first:last].
func keepExtremes(rows []sinks.TimelineRow, first, last int, keep []bool) {
	memory := func(r *sinks.TimelineRow) (v float64, ok bool) {
		return float64(frame.Deref(r.MemoryUsedBytes)), r.MemoryUsedBytes != nil
	}
	power := func(r *sinks.TimelineRow) (v float64, ok bool) { return frame.Deref(r.PowerW), r.PowerW != nil }
	for _, of := range []func(*sinks.TimelineRow) (float64, bool){memory, power} {
		low, high, lowest, highest := -1, -1, math.Inf(1), math.Inf(-1)
		for i := first; i < last; i++ {
			v, ok := of(&rows[i])
			if ok && v < lowest {
				low, lowest = i, v
			}
			if ok && v > highest {
				high, highest = i, v
			}
		}
		if low >= 0 {
			keep[low], keep[high] = true, true
		}
	}
}

// seriesOf makes the drawn timeline of one GPU.
func seriesOf(rows []sinks.TimelineRow, limit int) *Series {
	slices.SortStableFunc(rows, func(a, b sinks.TimelineRow) int { return cmp.Compare(a.TOffsetUS, b.TOffsetUS) })
	s := &Series{Samples: len(rows), GPU: frame.Deref(rows[0].GPUIndex)}
	last := ""
	for _, row := range thin(rows, limit) {
		t := round(float64(row.TOffsetUS)/1e6, 1000)
		s.T = append(s.T, t)
		s.Memory = append(s.Memory, inMiB(row.MemoryUsedBytes))
		s.Power = append(s.Power, rounded(row.PowerW, 10))
		if last != "" {
			s.phases[len(s.phases)-1].To = t
		}
		if phase := frame.Deref(row.Phase); phase != last {
			if last = phase; phase != "" {
				s.phases = append(s.phases, PhaseBar{Phase: phase, From: t, To: t})
			}
		}
	}
	return s
}

func round(v, steps float64) float64 { return math.Round(v*steps) / steps }

func rounded(v *float64, steps float64) *float64 {
	if v == nil {
		return nil
	}
	return new(round(*v, steps))
}

// inMiB keeps two decimals: 10 KiB.
func inMiB(bytes *int64) *float64 {
	if bytes == nil {
		return nil
	}
	return new(round(float64(*bytes)/frame.MiB, 100))
}

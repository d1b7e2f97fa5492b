package report

import (
	"cmp"
	"math"
	"slices"
	"strings"

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

// A point is what is drawn of a sample: it holds on to nothing of the file that it was read from.
type point struct {
	at            int64 // us since the start of the attempt
	memory, power float64
	phase         string
}

// A gathering takes the samples of one GPU while they are read, in a memory that does not grow with their number.
type gathering struct {
	points  []point
	samples int
	limit   int // samples that stay in the end
}

// gathered is how many times the limit is held while samples come.
const gathered = 64

func (g *gathering) add(row *sinks.TimelineRow) {
	p := point{at: row.TOffsetUS, memory: math.NaN(), power: math.NaN(), phase: frame.Deref(row.Phase)}
	if row.MemoryUsedBytes != nil {
		p.memory = float64(*row.MemoryUsedBytes)
	}
	if row.PowerW != nil {
		p.power = *row.PowerW
	}
	if n := len(g.points); n > 0 && g.points[n-1].phase == p.phase {
		p.phase = g.points[n-1].phase
	} else {
		p.phase = strings.Clone(p.phase)
	}
	g.points = append(g.points, p)
	g.samples++
	if g.limit >= 4 && len(g.points) >= gathered*g.limit {
		g.sort()
		g.points = thin(g.points, gathered/8*g.limit)
	}
}

func (g *gathering) sort() {
	slices.SortStableFunc(g.points, func(a, b point) int { return cmp.Compare(a.at, b.at) })
}

// thin keeps at most about limit samples of one GPU in the order of time: time
// is cut into limit/4 equal buckets, and of each bucket stay the samples with
// the lowest and the highest memory and the lowest and the highest power. The
// first and the last sample, and those where a phase begins, always stay, so no
// peak, dip or phase is lost; what goes are samples between them.
func thin(points []point, limit int) []point {
	if len(points) <= limit || limit < 4 {
		return points
	}
	keep := make([]bool, len(points))
	keep[0], keep[len(points)-1] = true, true
	for i := 1; i < len(points); i++ {
		if points[i].phase != points[i-1].phase {
			keep[i] = true
		}
	}
	start, end := points[0].at, points[len(points)-1].at
	buckets := int64(limit / 4)
	width := max((end-start)/buckets+1, 1)
	for first := 0; first < len(points); {
		bucket := (points[first].at - start) / width
		last := first
		for last < len(points) && (points[last].at-start)/width == bucket {
			last++
		}
		keepExtremes(points, first, last, keep)
		first = last
	}
	out := points[:0]
	for i := range points {
		if keep[i] {
			out = append(out, points[i])
		}
	}
	return out
}

// keepExtremes marks the lowest and highest samples of points[first:last].
func keepExtremes(points []point, first, last int, keep []bool) {
	memory := func(p *point) float64 { return p.memory }
	power := func(p *point) float64 { return p.power }
	for _, of := range []func(*point) float64{memory, power} {
		low, high, lowest, highest := -1, -1, math.Inf(1), math.Inf(-1)
		for i := first; i < last; i++ {
			if v := of(&points[i]); v < lowest {
				low, lowest = i, v
			}
			if v := of(&points[i]); v > highest {
				high, highest = i, v
			}
		}
		if low >= 0 {
			keep[low], keep[high] = true, true
		}
	}
}

// series makes the drawn timeline of one GPU.
func (g *gathering) series(gpu int32) *Series {
	g.sort()
	s := &Series{Samples: g.samples, GPU: gpu}
	last := ""
	for _, p := range thin(g.points, g.limit) {
		t := round(float64(p.at)/1e6, 1000)
		s.T = append(s.T, t)
		s.Memory = append(s.Memory, rounded(p.memory/frame.MiB, 100)) // 10 KiB
		s.Power = append(s.Power, rounded(p.power, 10))
		if last != "" {
			s.phases[len(s.phases)-1].To = t
		}
		if p.phase != last {
			if last = p.phase; last != "" {
				s.phases = append(s.phases, PhaseBar{Phase: last, From: t, To: t})
			}
		}
	}
	return s
}

func round(v, steps float64) float64 { return math.Round(v*steps) / steps }

// rounded is nil where there is no value.
func rounded(v, steps float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	return new(round(v, steps))
}

// inMiB keeps two decimals: 10 KiB.
func inMiB(bytes *int64) *float64 {
	if bytes == nil {
		return nil
	}
	return new(round(float64(*bytes)/frame.MiB, 100))
}

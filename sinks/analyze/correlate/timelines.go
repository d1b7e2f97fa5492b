package correlate

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// A Phase is how two gauges move together inside one phase: the median
// over runs and GPUs of Pearson's within each, so that levels of different
// models do not pass for a relation.
type Phase struct {
	Phase  string   `json:"phase"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
	Series int      `json:"series"` // timelines (one a run and GPU) where it is defined
	Of     int      `json:"of"`     // timelines that have the phase
	Median *float64 `json:"median_pearson"`
	Low    *float64 `json:"low_quartile"`
	High   *float64 `json:"high_quartile"`
	Reason string   `json:"reason,omitempty"`
}

// gauges of a sample: memory (GiB), power (W), utilization (%); NaN: not read.
type gauges [3]float64

// A pair are two gauges that are related: their names and places.
type pair struct {
	x, y     string
	atX, atY int
}

func pairs() [3]pair {
	return [3]pair{
		{"power_w", "memory_used", 1, 0}, {"utilization_pct", "memory_used", 2, 0}, {"utilization_pct", "power_w", 2, 1},
	}
}

// leastSamples that a correlation inside a phase asks for.
const leastSamples = 10

// Timelines collect what the samples say, run by run; memory holds one run's.
type Timelines struct {
	run     string
	samples map[spot][]gauges
	found   map[string]*[3][]float64 // by phase: Pearson's of each pair
	seen    map[string]int           // timelines that have the phase
	heat    map[string][2]float64    // by run: sum and number of temperatures
}

// A spot is a phase on a GPU.
type spot struct {
	gpu   int32
	phase string
}

// NewTimelines have no samples yet.
func NewTimelines() *Timelines {
	return &Timelines{samples: map[spot][]gauges{}, found: map[string]*[3][]float64{}, seen: map[string]int{},
		heat: map[string][2]float64{}}
}

// Add takes the next sample; the samples of a run come one after another.
func (t *Timelines) Add(row *sinks.TimelineRow) {
	if row.GPUIndex == nil {
		return
	}
	if row.RunID != t.run {
		t.flush()
		t.run = row.RunID
	}
	phase := frame.Deref(row.Phase)
	if row.TemperatureC != nil && (phase == "measure" || phase == "bench_warmup") {
		sum := t.heat[row.RunID]
		t.heat[row.RunID] = [2]float64{sum[0] + *row.TemperatureC, sum[1] + 1}
	}
	if phase == "" {
		return
	}
	g := gauges{math.NaN(), math.NaN(), math.NaN()}
	if row.MemoryUsedBytes != nil {
		g[0] = float64(*row.MemoryUsedBytes) / frame.GiB
	}
	if row.PowerW != nil {
		g[1] = *row.PowerW
	}
	if row.UtilizationPct != nil {
		g[2] = float64(*row.UtilizationPct)
	}
	at := spot{*row.GPUIndex, phase}
	t.samples[at] = append(t.samples[at], g)
}

// flush relates the gauges of the run that ended.
func (t *Timelines) flush() {
	for at, rows := range t.samples {
		if t.seen[at.phase]++; t.found[at.phase] == nil {
			t.found[at.phase] = new([3][]float64)
		}
		for i, p := range pairs() {
			var xs, ys []float64
			for _, g := range rows {
				if x, y := g[p.atX], g[p.atY]; !math.IsNaN(x + y) {
					xs, ys = append(xs, x), append(ys, y)
				}
			}
			if len(xs) >= leastSamples && !frame.Constant(xs) && !frame.Constant(ys) {
				t.found[at.phase][i] = append(t.found[at.phase][i], stat.Correlation(xs, ys, nil))
			}
		}
	}
	clear(t.samples)
}

// Temperatures are mean temperatures in °C while the benchmark ran, by run id.
func (t *Timelines) Temperatures() map[string]float64 {
	out := make(map[string]float64, len(t.heat))
	for id, sum := range t.heat {
		out[id] = sum[0] / sum[1]
	}
	return out
}

// Phases are the rows for all phases, in the order of their names.
func (t *Timelines) Phases() []Phase {
	t.flush()
	var out []Phase
	for _, name := range frame.SortedKeys(t.seen) {
		for i, p := range pairs() {
			row := Phase{Phase: name, X: p.x, Y: p.y, Of: t.seen[name], Series: len(t.found[name][i])}
			if row.Series == 0 {
				row.Reason = "in no timeline do both vary over at least 10 samples"
			} else {
				values := slices.Sorted(slices.Values(t.found[name][i]))
				at := func(q float64) *float64 { return new(quantile(values, q)) }
				row.Low, row.Median, row.High = at(0.25), at(0.5), at(0.75)
			}
			out = append(out, row)
		}
	}
	return out
}

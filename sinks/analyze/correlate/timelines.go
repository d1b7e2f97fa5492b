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

// A gaugePair are two gauges that are related.
type gaugePair struct {
	x, y     string
	atX, atY int
}

func gaugePairs() []gaugePair {
	return []gaugePair{
		{"power_w", "memory_used", 1, 0}, {"utilization_pct", "memory_used", 2, 0}, {"utilization_pct", "power_w", 2, 1},
	}
}

// leastSamples that a correlation inside a phase asks for.
const leastSamples = 10

// A Timelines collects what the timelines say, run by run; memory holds
// one run's samples.
type Timelines struct {
	run     string
	samples map[int32]map[string][]gauges // by GPU and phase
	found   map[string]map[int][]float64  // by phase and pair
	seen    map[string]int                // timelines that have the phase
	heat    map[string][2]float64         // by run: sum and number of temperatures
}

// NewTimelines is an empty reader.
func NewTimelines() *Timelines {
	return &Timelines{samples: map[int32]map[string][]gauges{}, found: map[string]map[int][]float64{}, seen: map[string]int{}, heat: map[string][2]float64{}}
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
	if t.samples[*row.GPUIndex] == nil {
		t.samples[*row.GPUIndex] = map[string][]gauges{}
	}
	t.samples[*row.GPUIndex][phase] = append(t.samples[*row.GPUIndex][phase], g)
}

// flush relates the gauges of the run that ended.
func (t *Timelines) flush() {
	for _, phases := range t.samples {
		for phase, rows := range phases {
			t.seen[phase]++
			for i, p := range gaugePairs() {
				var xs, ys []float64
				for _, g := range rows {
					if x, y := g[p.atX], g[p.atY]; !math.IsNaN(x + y) {
						xs, ys = append(xs, x), append(ys, y)
					}
				}
				if len(xs) < leastSamples || frame.Constant(xs) || frame.Constant(ys) {
					continue
				}
				if t.found[phase] == nil {
					t.found[phase] = map[int][]float64{}
				}
				t.found[phase][i] = append(t.found[phase][i], stat.Correlation(xs, ys, nil))
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
		for i, p := range gaugePairs() {
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

package analyze

import (
	"slices"
	"sort"

	"gonum.org/v1/gonum/stat"

	"github.com/vramsweep/vramsweep/sinks"
)

// A TimelinePhase is how two gauges move together inside one phase: the median
// over runs and GPUs of Pearson's within each, so that levels of different
// models do not pass for a relation.
type TimelinePhase struct {
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

// gauges of a sample: memory (GiB), power (W), utilization (%).
type gaugeRow struct {
	memory, power, utilization *float64
}

// pairs of gauges that are related.
func gaugePairs() []struct {
	x, y   string
	ax, ay func(gaugeRow) *float64
} {
	memory := func(g gaugeRow) *float64 { return g.memory }
	power := func(g gaugeRow) *float64 { return g.power }
	utilization := func(g gaugeRow) *float64 { return g.utilization }
	return []struct {
		x, y   string
		ax, ay func(gaugeRow) *float64
	}{
		{"power_w", "memory_used", power, memory},
		{"utilization_pct", "memory_used", utilization, memory},
		{"utilization_pct", "power_w", utilization, power},
	}
}

// leastSamples that a correlation inside a phase asks for.
const leastSamples = 10

// A TimelineReader collects what the timelines say, run by run; memory holds
// one run's samples.
type TimelineReader struct {
	run     string
	samples map[int32]map[string][]gaugeRow // by GPU and phase
	found   map[string]map[int][]float64    // by phase and pair
	seen    map[string]int                  // timelines that have the phase
	heat    map[string][2]float64           // by run: sum and number of temperatures
}

// NewTimelineReader is an empty reader.
func NewTimelineReader() *TimelineReader {
	return &TimelineReader{samples: map[int32]map[string][]gaugeRow{}, found: map[string]map[int][]float64{}, seen: map[string]int{}, heat: map[string][2]float64{}}
}

// Add takes the next sample; the samples of a run come one after another.
func (t *TimelineReader) Add(row *sinks.TimelineRow) {
	if row.GPUIndex == nil {
		return
	}
	if row.RunID != t.run {
		t.flush()
		t.run = row.RunID
	}
	phase := phaseOf(row)
	if row.TemperatureC != nil && (phase == "measure" || phase == "bench_warmup") {
		sum := t.heat[row.RunID]
		t.heat[row.RunID] = [2]float64{sum[0] + *row.TemperatureC, sum[1] + 1}
	}
	if phase == "" {
		return
	}
	g := gaugeRow{power: row.PowerW}
	if row.MemoryUsedBytes != nil {
		v := float64(*row.MemoryUsedBytes) / gib
		g.memory = &v
	}
	if row.UtilizationPct != nil {
		v := float64(*row.UtilizationPct)
		g.utilization = &v
	}
	if t.samples[*row.GPUIndex] == nil {
		t.samples[*row.GPUIndex] = map[string][]gaugeRow{}
	}
	t.samples[*row.GPUIndex][phase] = append(t.samples[*row.GPUIndex][phase], g)
}

// flush relates the gauges of the run that ended.
func (t *TimelineReader) flush() {
	for _, phases := range t.samples {
		for phase, rows := range phases {
			t.seen[phase]++
			for i, p := range gaugePairs() {
				var xs, ys []float64
				for _, g := range rows {
					if x, y := p.ax(g), p.ay(g); x != nil && y != nil {
						xs, ys = append(xs, *x), append(ys, *y)
					}
				}
				if len(xs) < leastSamples || constant(xs) || constant(ys) {
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
func (t *TimelineReader) Temperatures() map[string]float64 {
	out := make(map[string]float64, len(t.heat))
	for id, sum := range t.heat {
		out[id] = sum[0] / sum[1]
	}
	return out
}

// Phases are the rows for all phases, in the order of their names.
func (t *TimelineReader) Phases() []TimelinePhase {
	t.flush()
	names := make([]string, 0, len(t.seen))
	for name := range t.seen {
		names = append(names, name)
	}
	sort.Strings(names)
	var out []TimelinePhase
	for _, name := range names {
		for i, p := range gaugePairs() {
			row := TimelinePhase{Phase: name, X: p.x, Y: p.y, Of: t.seen[name], Series: len(t.found[name][i])}
			if row.Series == 0 {
				row.Reason = "in no timeline do both vary over at least 10 samples"
			} else {
				values := slices.Sorted(slices.Values(t.found[name][i]))
				at := func(q float64) *float64 {
					v := quantile(values, q)
					return &v
				}
				row.Low, row.Median, row.High = at(0.25), at(0.5), at(0.75)
			}
			out = append(out, row)
		}
	}
	return out
}

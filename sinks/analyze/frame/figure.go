package frame

import (
	"fmt"
	"math"
	"strings"

	"github.com/vramsweep/vramsweep/sinks"
)

// Bad is the direction in which a figure gets worse.
type Bad string

// The directions.
const (
	BadUp   Bad = "up"
	BadDown Bad = "down"
	BadBoth Bad = "both" // any change is news
)

// Unit of a figure.
type Unit string

// The units that are printed in a way of their own: bytes as MiB or GiB.
const (
	UnitBytes  Unit = "bytes"
	UnitTokens Unit = "tokens"
)

// Sizes in bytes.
const (
	MiB = 1 << 20
	GiB = 1 << 30
)

// A Figure is a column of the runs table that executions are compared by.
type Figure struct {
	Column
	Unit  Unit
	Bad   Bad
	Label string // for people

	// A change counts only beyond both: Absolute in the figure's unit and
	// Relative to the base. Zero asks nothing.
	Absolute float64
	Relative float64
	Blind    float64 // takes the place of Relative where nothing tells the noise; 0: Relative does

	uncertainty *Column // nil: the table has none

	// Ratio figures are compared on a logarithmic scale: their noise is a share
	// of their size. They depend on what the weights are, or on loading them:
	// random weights (load_format dummy) are never compared with real ones.
	Ratio bool

	// Logged says how many figures that vLLM's log rounds are in it, of each GPU.
	Logged int
	// Remainder is what other figures leave: where it changes alone, nothing that
	// was measured has.
	Remainder bool
	// Like names a figure that says the same, and stands for it.
	Like string
}

// Rounding is half of the last digit that vLLM prints of a size: 0.01 GiB.
const Rounding = 0.005 * GiB

// Uncertainty is how far the figure of a run may be off by itself, to either
// side, in its unit: by the rounding of the log, and by what the column
// NAME_uncertainty_UNIT says where the table has one. Repeats do not average it out.
func (f *Figure) Uncertainty(r *sinks.RunRow) float64 {
	ranks := float64(max(1, r.TensorParallelSize*max(1, r.PipelineParallelSize)))
	off := Rounding * ranks * math.Sqrt(float64(f.Logged))
	if f.uncertainty != nil {
		if v := f.uncertainty.Number(r); v != nil {
			off = max(off, *v)
		}
	}
	return off
}

// Figures are all figures that are compared, with the direction that is bad and
// the default threshold. docs/analysis.md shows this table.
func Figures() []Figure {
	fields := Fields()
	memory := func(name string, bad Bad, label string) Figure {
		return Figure{Column: column(fields, name), Unit: UnitBytes, Bad: bad, Label: label, Absolute: 64 * MiB}
	}
	logged := func(name string, bad Bad, label string) Figure {
		f := memory(name, bad, label)
		f.Logged = 1
		return f
	}
	remainder := func(name string, bad Bad, label string) Figure {
		f := memory(name, bad, label)
		f.Logged, f.Remainder = 4, true // weights, KV cache, activations, non-torch
		return f
	}
	like := func(f Figure, name string) Figure { f.Like = name; return f }
	blind := func(f Figure, relative float64) Figure { f.Blind = relative; return f }
	ratio := func(name string, unit Unit, bad Bad, label string, relative float64) Figure {
		return Figure{Column: column(fields, name), Unit: unit, Bad: bad, Label: label, Relative: relative, Ratio: true}
	}
	figures := []Figure{
		memory("peak_memory_bytes", BadUp, "peak memory"),
		like(memory("net_increase_bytes", BadUp, "net increase"), "peak_memory_bytes"),
		logged("model_weights_bytes", BadUp, "weights"),
		logged("kv_cache_bytes", BadDown, "KV cache"),
		logged("activations_reserved_bytes", BadUp, "reserved activations"),
		logged("cuda_graphs_bytes", BadUp, "CUDA graphs"),
		logged("non_torch_bytes", BadUp, "non-torch"),
		memory("context_bytes", BadUp, "context"),
		remainder("growth_excess_bytes", BadUp, "growth beyond all"),
		remainder("framework_overhead_bytes", BadBoth, "framework overhead"),
		like(memory("beyond_budget_gross_bytes", BadUp, "use beyond the budget"), "peak_memory_bytes"),
		like(Figure{Column: column(fields, "kv_cache_tokens"), Unit: UnitTokens, Bad: BadDown, Label: "KV tokens",
			Relative: 0.005}, "kv_cache_bytes"),
		blind(ratio("avg_latency_s", "s", BadUp, "latency", 0.03), 0.05),
		blind(like(ratio("output_tokens_per_s", "tokens/s", BadDown, "throughput", 0.03), "avg_latency_s"), 0.05),
		ratio("measure_mean_power_w", "W", BadUp, "power", 0.10),
		ratio("measure_energy_j", "J", BadUp, "energy", 0.10),
	}
	for i := range figures {
		at := strings.LastIndex(figures[i].Name, "_")
		name := figures[i].Name[:at] + "_uncertainty" + figures[i].Name[at:]
		if fields[name] != nil {
			figures[i].uncertainty = new(column(fields, name))
		}
	}
	return figures
}

// FigureNames are the names of all figures.
func FigureNames() (names []string) {
	for _, f := range Figures() {
		names = append(names, f.Name)
	}
	return names
}

// FigureColumns are the names of all figures, and of the columns that say how far
// those may be off.
func FigureColumns() []string {
	names := FigureNames()
	for _, f := range Figures() {
		if f.uncertainty != nil {
			names = append(names, f.uncertainty.Name)
		}
	}
	return names
}

// Scaled is a column of the table in another unit.
func Scaled(name, unit string, by float64, column string) Quantity {
	number := Of(column)[0].Number
	return Quantity{Name: name, Unit: unit, Value: func(r *sinks.RunRow) *float64 {
		v := number(r)
		if v == nil {
			return nil
		}
		return new(*v / by)
	}}
}

// Amount prints a figure in its unit; bytes as GiB.
func Amount(v float64, unit Unit) string {
	switch unit {
	case UnitBytes:
		return fmt.Sprintf("%.2f GiB", v/GiB)
	case UnitTokens:
		return fmt.Sprintf("%.0f tok", v)
	}
	return fmt.Sprintf("%.4g %s", v, unit)
}

// Signed prints a difference in its unit; small ones of bytes as MiB.
func Signed(v float64, unit Unit) string {
	sign := "+"
	if v < 0 {
		sign = "-"
	}
	if unit == UnitBytes && math.Abs(v) < GiB {
		return fmt.Sprintf("%s%.0f MiB", sign, math.Abs(v)/MiB)
	}
	return sign + Amount(math.Abs(v), unit)
}

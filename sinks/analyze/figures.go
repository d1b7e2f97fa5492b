package analyze

import (
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

// The units. Bytes are printed as MiB or GiB.
const (
	UnitBytes   Unit = "bytes"
	UnitTokens  Unit = "tokens"
	UnitSeconds Unit = "s"
	UnitWatts   Unit = "W"
	UnitJoules  Unit = "J"
	UnitRate    Unit = "tokens/s"
)

// A Figure is a column of the runs table that executions are compared by.
type Figure struct {
	Name  string // the column's name
	Unit  Unit
	Bad   Bad
	Label string // for people

	// A change counts only beyond both: Absolute in the figure's unit and
	// Relative to the base. Zero asks nothing.
	Absolute float64
	Relative float64

	// Ratio figures are compared on a logarithmic scale: their noise is a share
	// of their size.
	Ratio bool
	// RealWeights figures depend on what the weights are, or on loading them:
	// random weights (load_format dummy) are never compared with real ones.
	RealWeights bool

	value func(*sinks.RunRow) *float64
}

// Value is the figure of one run; nil where it is missing.
func (f *Figure) Value(row *sinks.RunRow) *float64 { return f.value(row) }

const mib = 1 << 20

// Figures are all figures that compare knows, with the direction that is bad
// and the default threshold. docs/analysis.md shows this table.
func Figures() []Figure {
	bytes := func(name, label string, bad Bad, get func(*sinks.RunRow) *int64) Figure {
		return Figure{Name: name, Unit: UnitBytes, Bad: bad, Label: label, Absolute: 64 * mib, value: whole(get)}
	}
	return []Figure{
		bytes("peak_memory_bytes", "peak memory", BadUp, func(r *sinks.RunRow) *int64 { return r.PeakMemoryBytes }),
		bytes("net_increase_bytes", "net increase", BadUp, func(r *sinks.RunRow) *int64 { return r.NetIncreaseBytes }),
		bytes("model_weights_bytes", "weights", BadUp, func(r *sinks.RunRow) *int64 { return r.ModelWeightsBytes }),
		bytes("kv_cache_bytes", "KV cache", BadDown, func(r *sinks.RunRow) *int64 { return r.KVCacheBytes }),
		bytes("activations_reserved_bytes", "reserved activations", BadUp, func(r *sinks.RunRow) *int64 { return r.ActivationsReservedBytes }),
		bytes("cuda_graphs_bytes", "CUDA graphs", BadUp, func(r *sinks.RunRow) *int64 { return r.CUDAGraphsBytes }),
		bytes("non_torch_bytes", "non-torch", BadUp, func(r *sinks.RunRow) *int64 { return r.NonTorchBytes }),
		bytes("context_bytes", "context", BadUp, func(r *sinks.RunRow) *int64 { return r.ContextBytes }),
		bytes("growth_excess_bytes", "growth beyond all", BadUp, func(r *sinks.RunRow) *int64 { return r.GrowthExcessBytes }),
		bytes("framework_overhead_bytes", "framework overhead", BadBoth, func(r *sinks.RunRow) *int64 { return r.FrameworkOverheadBytes }),
		bytes("beyond_budget_gross_bytes", "use beyond the budget", BadUp, func(r *sinks.RunRow) *int64 { return r.BeyondBudgetGrossBytes }),
		{Name: "kv_cache_tokens", Unit: UnitTokens, Bad: BadDown, Label: "KV tokens", Relative: 0.005,
			value: whole(func(r *sinks.RunRow) *int64 { return r.KVCacheTokens })},
		{Name: "avg_latency_s", Unit: UnitSeconds, Bad: BadUp, Label: "latency", Relative: 0.05, Ratio: true, RealWeights: true,
			value: func(r *sinks.RunRow) *float64 { return r.AvgLatencyS }},
		{Name: "output_tokens_per_s", Unit: UnitRate, Bad: BadDown, Label: "throughput", Relative: 0.05, Ratio: true, RealWeights: true,
			value: func(r *sinks.RunRow) *float64 { return r.OutputTokensPerS }},
		{Name: "mean_power_w", Unit: UnitWatts, Bad: BadUp, Label: "power", Relative: 0.10, Ratio: true, RealWeights: true,
			value: func(r *sinks.RunRow) *float64 { return r.MeanPowerW }},
		{Name: "energy_j", Unit: UnitJoules, Bad: BadUp, Label: "energy", Relative: 0.10, Ratio: true, RealWeights: true,
			value: func(r *sinks.RunRow) *float64 { return r.EnergyJ }},
	}
}

// whole makes a figure of an integer column.
func whole(get func(*sinks.RunRow) *int64) func(*sinks.RunRow) *float64 {
	return func(r *sinks.RunRow) *float64 {
		n := get(r)
		if n == nil {
			return nil
		}
		f := float64(*n)
		return &f
	}
}

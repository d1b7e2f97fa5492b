package sinks

import (
	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"github.com/vramsweep/vramsweep/runner"
)

// A figure is one reading of a sample that an instrument may lack: null then,
// in the journal and in the table of timelines.
type figure interface {
	// field is its column in the journal.
	field() arrow.Field
	// build adds it to a batch of the journal.
	build(b array.Builder, s *runner.Sample)
	// fill takes it from a batch of the journal.
	fill(out []runner.Sample, col arrow.Array)
	// toRow lets a row point to it; the sample stays as long as the row.
	toRow(row *TimelineRow, s *runner.Sample)
	// fromRow takes it from a row.
	fromRow(s *runner.Sample, row *TimelineRow)
}

// figures lists all of them, in the order of the journal's columns, which go
// by position: a new one stands at the end.
func figures() []figure {
	return []figure{
		figureOf[int64]{"memory_used_bytes", runner.HasMemoryUsed,
			func(s *runner.Sample) *int64 { return &s.MemoryUsed }, func(r *TimelineRow) **int64 { return &r.MemoryUsedBytes }},
		figureOf[int64]{"memory_reserved_bytes", runner.HasMemoryReserved,
			func(s *runner.Sample) *int64 { return &s.MemoryReserved },
			func(r *TimelineRow) **int64 { return &r.MemoryReservedBytes }},
		figureOf[int64]{"memory_total_bytes", runner.HasMemoryTotal,
			func(s *runner.Sample) *int64 { return &s.MemoryTotal },
			func(r *TimelineRow) **int64 { return &r.MemoryTotalBytes }},
		figureOf[int64]{"process_bytes", runner.HasProcessMemory,
			func(s *runner.Sample) *int64 { return &s.ProcessMemory }, func(r *TimelineRow) **int64 { return &r.ProcessBytes }},
		figureOf[int64]{"host_rss_bytes", runner.HasHostRSS,
			func(s *runner.Sample) *int64 { return &s.HostRSS }, func(r *TimelineRow) **int64 { return &r.HostRSSBytes }},
		figureOf[int64]{"host_pss_bytes", runner.HasHostPSS,
			func(s *runner.Sample) *int64 { return &s.HostPSS }, func(r *TimelineRow) **int64 { return &r.HostPSSBytes }},
		figureOf[float64]{"power_w", runner.HasPower,
			func(s *runner.Sample) *float64 { return &s.Power }, func(r *TimelineRow) **float64 { return &r.PowerW }},
		figureOf[float64]{"temperature_c", runner.HasTemperature,
			func(s *runner.Sample) *float64 { return &s.Temperature },
			func(r *TimelineRow) **float64 { return &r.TemperatureC }},
		figureOf[float64]{"memory_temperature_c", runner.HasMemoryTemp,
			func(s *runner.Sample) *float64 { return &s.MemoryTemp },
			func(r *TimelineRow) **float64 { return &r.MemoryTemperatureC }},
		figureOf[float64]{"energy_j", runner.HasEnergy,
			func(s *runner.Sample) *float64 { return &s.Energy }, func(r *TimelineRow) **float64 { return &r.EnergyJ }},
		figureOf[float64]{"host_cpu_pct", runner.HasHostCPU,
			func(s *runner.Sample) *float64 { return &s.HostCPU }, func(r *TimelineRow) **float64 { return &r.HostCPUPct }},
		figureOf[int32]{"utilization_pct", runner.HasUtilization,
			func(s *runner.Sample) *int32 { return &s.Utilization }, func(r *TimelineRow) **int32 { return &r.UtilizationPct }},
		figureOf[int32]{"memory_utilization_pct", runner.HasMemoryUtil,
			func(s *runner.Sample) *int32 { return &s.MemoryUtil },
			func(r *TimelineRow) **int32 { return &r.MemoryUtilizationPct }},
		figureOf[int32]{"clock_sm_mhz", runner.HasClockSM,
			func(s *runner.Sample) *int32 { return &s.ClockSM }, func(r *TimelineRow) **int32 { return &r.ClockSMMHz }},
		figureOf[int32]{"clock_mem_mhz", runner.HasClockMem,
			func(s *runner.Sample) *int32 { return &s.ClockMem }, func(r *TimelineRow) **int32 { return &r.ClockMemMHz }},
		figureOf[int64]{"throttle_reasons", runner.HasThrottleReasons,
			func(s *runner.Sample) *int64 { return &s.ThrottleReasons },
			func(r *TimelineRow) **int64 { return &r.ThrottleReasons }},
	}
}

type figureOf[V int32 | int64 | float64] struct {
	name string // of the column
	has  runner.Fields
	in   func(*runner.Sample) *V
	cell func(*TimelineRow) **V
}

func (f figureOf[V]) field() arrow.Field {
	var zero V
	kind := arrow.PrimitiveTypes.Int64
	switch any(zero).(type) {
	case int32:
		kind = arrow.PrimitiveTypes.Int32
	case float64:
		kind = arrow.PrimitiveTypes.Float64
	}
	return arrow.Field{Name: f.name, Type: kind, Nullable: true}
}

func (f figureOf[V]) build(b array.Builder, s *runner.Sample) {
	if column, ok := b.(interface{ Append(V) }); ok && s.Has&f.has != 0 {
		column.Append(*f.in(s))
	} else {
		b.AppendNull()
	}
}

func (f figureOf[V]) fill(out []runner.Sample, col arrow.Array) {
	column, ok := col.(interface{ Value(int) V })
	for i := range out {
		if ok && col.IsValid(i) {
			*f.in(&out[i]) = column.Value(i)
			out[i].Has |= f.has
		}
	}
}

// toRow leaves out what an instrument can spoil: NaN is no reading.
func (f figureOf[V]) toRow(row *TimelineRow, s *runner.Sample) {
	v := f.in(s)
	if s.Has&f.has == 0 || *v-*v != 0 {
		v = nil
	}
	*f.cell(row) = v
}

func (f figureOf[V]) fromRow(s *runner.Sample, row *TimelineRow) {
	if v := *f.cell(row); v != nil {
		*f.in(s) = *v
		s.Has |= f.has
	}
}

package sinks

import (
	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"github.com/vramsweep/vramsweep/runner"
)

// A figure is one reading of a sample that an instrument may lack: null then,
// in the journal and in the table of timelines.
type figure struct {
	column string // in the journal
	has    runner.Fields
	value  any // *V in the sample
	cell   any // **V in the row of the timeline
}

// figuresOf lists all of them, in the order of the journal's columns, which go
// by position: a new one stands at the end.
func figuresOf(s *runner.Sample, r *TimelineRow) [16]figure {
	return [...]figure{
		{"memory_used_bytes", runner.HasMemoryUsed, &s.MemoryUsed, &r.MemoryUsedBytes},
		{"memory_reserved_bytes", runner.HasMemoryReserved, &s.MemoryReserved, &r.MemoryReservedBytes},
		{"memory_total_bytes", runner.HasMemoryTotal, &s.MemoryTotal, &r.MemoryTotalBytes},
		{"process_bytes", runner.HasProcessMemory, &s.ProcessMemory, &r.ProcessBytes},
		{"host_rss_bytes", runner.HasHostRSS, &s.HostRSS, &r.HostRSSBytes},
		{"host_pss_bytes", runner.HasHostPSS, &s.HostPSS, &r.HostPSSBytes},
		{"power_w", runner.HasPower, &s.Power, &r.PowerW},
		{"temperature_c", runner.HasTemperature, &s.Temperature, &r.TemperatureC},
		{"memory_temperature_c", runner.HasMemoryTemp, &s.MemoryTemp, &r.MemoryTemperatureC},
		{"energy_j", runner.HasEnergy, &s.Energy, &r.EnergyJ},
		{"host_cpu_pct", runner.HasHostCPU, &s.HostCPU, &r.HostCPUPct},
		{"utilization_pct", runner.HasUtilization, &s.Utilization, &r.UtilizationPct},
		{"memory_utilization_pct", runner.HasMemoryUtil, &s.MemoryUtil, &r.MemoryUtilizationPct},
		{"clock_sm_mhz", runner.HasClockSM, &s.ClockSM, &r.ClockSMMHz},
		{"clock_mem_mhz", runner.HasClockMem, &s.ClockMem, &r.ClockMemMHz},
		{"throttle_reasons", runner.HasThrottleReasons, &s.ThrottleReasons, &r.ThrottleReasons},
	}
}

// figuresToRow lets a row point to the figures of a sample, which stays as long as the row.
func figuresToRow(row *TimelineRow, s *runner.Sample) {
	for _, f := range figuresOf(s, row) {
		switch v := f.value.(type) {
		case *int32:
			point(f, v, s)
		case *int64:
			point(f, v, s)
		case *float64:
			point(f, v, s)
		}
	}
}

// point leaves out what an instrument can spoil: NaN is no reading.
func point[V int32 | int64 | float64](f figure, v *V, s *runner.Sample) {
	if s.Has&f.has == 0 || *v-*v != 0 {
		v = nil
	}
	*f.cell.(**V) = v
}

// figuresFromRow takes the figures of a sample from a row.
func figuresFromRow(s *runner.Sample, row *TimelineRow) {
	for _, f := range figuresOf(s, row) {
		switch v := f.value.(type) {
		case *int32:
			take(f, v, s)
		case *int64:
			take(f, v, s)
		case *float64:
			take(f, v, s)
		}
	}
}

func take[V int32 | int64 | float64](f figure, into *V, s *runner.Sample) {
	if v := *f.cell.(**V); v != nil {
		*into = *v
		s.Has |= f.has
	}
}

// figuresFromColumns takes the figures of a sample from row i of a journal's columns.
func figuresFromColumns(s *runner.Sample, columns []arrow.Array, i int) {
	for c, f := range figuresOf(s, &TimelineRow{}) {
		if columns[c].IsNull(i) {
			continue
		}
		s.Has |= f.has
		switch v := f.value.(type) {
		case *int32:
			*v = columns[c].(*array.Int32).Value(i)
		case *int64:
			*v = columns[c].(*array.Int64).Value(i)
		case *float64:
			*v = columns[c].(*array.Float64).Value(i)
		}
	}
}

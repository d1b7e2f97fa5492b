package sampling

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/vramsweep/vramsweep/runner"
)

const numFields = 16

// FieldName is the column of the timelines table that holds a figure.
func FieldName(f runner.Fields) string {
	names := [numFields]string{
		"memory_used_bytes", "memory_reserved_bytes", "memory_total_bytes", "process_bytes",
		"host_rss_bytes", "host_pss_bytes", "power_w", "temperature_c", "memory_temperature_c", "energy_j",
		"host_cpu_pct", "utilization_pct", "memory_utilization_pct", "clock_sm_mhz", "clock_mem_mhz", "throttle_reasons",
	}
	if i := bits.TrailingZeros32(uint32(f)); i < numFields {
		return names[i]
	}
	return "unknown"
}

// FieldNames lists the figures of a set, in the order of the table.
func FieldNames(f runner.Fields) []string {
	var names []string
	for f != 0 {
		names = append(names, FieldName(f&-f))
		f &= f - 1
	}
	return names
}

// ThrottleNames are NVML's bits of clocks_event_reasons.active (nvml.h,
// nvmlClocksEventReason*).
func ThrottleNames(mask int64) []string {
	var out []string
	for i, name := range []string{
		"gpu_idle", "applications_clocks_setting", "sw_power_cap", "hw_slowdown", "sync_boost",
		"sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "display_clock_setting",
	} {
		if bit := int64(1) << i; mask&bit != 0 {
			out = append(out, name)
			mask &^= bit
		}
	}
	if mask != 0 {
		out = append(out, fmt.Sprintf("unknown 0x%x", mask))
	}
	return out
}

// MemoryFields are the figures of a GPU's memory.
const MemoryFields = runner.HasMemoryUsed | runner.HasMemoryReserved | runner.HasMemoryTotal

// slot is where a sample has a figure that instruments tell as a number; nil
// for another one.
func slot(s *runner.Sample, f runner.Fields) any {
	switch f {
	case runner.HasMemoryUsed:
		return &s.MemoryUsed
	case runner.HasMemoryReserved:
		return &s.MemoryReserved
	case runner.HasMemoryTotal:
		return &s.MemoryTotal
	case runner.HasPower:
		return &s.Power
	case runner.HasTemperature:
		return &s.Temperature
	case runner.HasMemoryTemp:
		return &s.MemoryTemp
	case runner.HasEnergy:
		return &s.Energy
	case runner.HasUtilization:
		return &s.Utilization
	case runner.HasMemoryUtil:
		return &s.MemoryUtil
	case runner.HasClockSM:
		return &s.ClockSM
	case runner.HasClockMem:
		return &s.ClockMem
	}
	return nil
}

// Put gives a sample a figure in its base unit.
func Put(s *runner.Sample, f runner.Fields, v float64) {
	switch p := slot(s, f).(type) {
	case *float64:
		*p = v
	case *int64:
		*p = int64(math.Round(v))
	case *int32:
		*p = int32(math.Round(v))
	default:
		return
	}
	s.Has |= f
}

// Fill takes what other tells of the same GPU and is not known yet.
func (g *GPU) Fill(other *GPU) {
	for f := other.Sample.Has &^ g.Sample.Has; f != 0; f &= f - 1 {
		switch p := slot(&other.Sample, f&-f).(type) {
		case *float64:
			Put(&g.Sample, f&-f, *p)
		case *int64:
			Put(&g.Sample, f&-f, float64(*p))
		case *int32:
			Put(&g.Sample, f&-f, float64(*p))
		}
		delete(g.Missing, FieldName(f&-f))
	}
	if g.ECC == nil {
		g.ECC = other.ECC
	}
}

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

// slot is where a sample has a figure that instruments tell as a number, and the
// range outside of which no instrument can be right: an underflow, a sentinel,
// a unit that is not what it seems. nil for another figure.
func slot(s *runner.Sample, f runner.Fields) (at any, low, high float64) {
	const maxBytes, maxWatts, maxJoules, maxMHz = 1 << 50, 1e5, 1e15, 1e5
	switch f {
	case runner.HasMemoryUsed:
		return &s.MemoryUsed, 0, maxBytes
	case runner.HasMemoryReserved:
		return &s.MemoryReserved, 0, maxBytes
	case runner.HasMemoryTotal:
		return &s.MemoryTotal, 0, maxBytes
	case runner.HasPower:
		return &s.Power, 0, maxWatts
	case runner.HasTemperature:
		return &s.Temperature, -100, 1000
	case runner.HasMemoryTemp:
		return &s.MemoryTemp, -100, 1000
	case runner.HasEnergy:
		return &s.Energy, 0, maxJoules
	case runner.HasUtilization:
		return &s.Utilization, 0, 100
	case runner.HasMemoryUtil:
		return &s.MemoryUtil, 0, 100
	case runner.HasClockSM:
		return &s.ClockSM, 0, maxMHz
	case runner.HasClockMem:
		return &s.ClockMem, 0, maxMHz
	}
	return nil, 0, 0
}

// Put gives a sample a figure in its base unit. It reports false, and gives
// nothing, where the value cannot be.
func Put(s *runner.Sample, f runner.Fields, v float64) bool {
	at, low, high := slot(s, f)
	if !(low <= v && v <= high) { // NaN, too
		return false
	}
	switch p := at.(type) {
	case *float64:
		*p = v
	case *int64:
		*p = int64(math.Round(v))
	case *int32:
		*p = int32(math.Round(v))
	default:
		return false
	}
	s.Has |= f
	return true
}

// Impossible is the reason for a value that Put refused.
func Impossible(value string) string { return "impossible value: " + value }

// ExceedsTotal is why memory figures do not count that cannot be true together:
// more in use than there is. A changed unit shows like that.
const ExceedsTotal = "memory in use and reserved exceed the total"

// MemoryFits reports whether the memory figures of a sample can be true
// together, as far as they are told.
func MemoryFits(s *runner.Sample) bool {
	const both = runner.HasMemoryUsed | runner.HasMemoryTotal
	return s.Has&both != both || s.MemoryTotal > 0 && s.MemoryUsed+s.MemoryReserved <= s.MemoryTotal+s.MemoryTotal/64
}

// CheckMemory leaves the memory in use out where it exceeds all that there is.
func (g *GPU) CheckMemory() {
	if !MemoryFits(&g.Sample) {
		g.Sample.Has &^= runner.HasMemoryUsed
		g.Lacks(runner.HasMemoryUsed, ExceedsTotal)
	}
}

// Fill takes what other tells of the same GPU and is not known yet.
func (g *GPU) Fill(other *GPU) {
	for f := other.Sample.Has &^ g.Sample.Has; f != 0; f &= f - 1 {
		at, _, _ := slot(&other.Sample, f&-f)
		switch p := at.(type) {
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

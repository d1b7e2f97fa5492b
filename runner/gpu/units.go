package gpu

// A dimension is what a figure measures; every figure is kept in its base unit.
type dimension int

const (
	dimNone    dimension = iota
	dimBytes             // bytes
	dimPower             // W
	dimTemp              // °C
	dimPercent           // %
	dimClock             // MHz
	dimEnergy            // J
)

// unitFactor turns a value in a tool's unit into the base unit. Both vendors'
// tools write MB and GB and mean MiB and GiB (amdsmi: bytes // 2^20). ok is
// false for a unit that is unknown or of another dimension: such a value is
// missing, never guessed.
func unitFactor(d dimension, unit []byte) (float64, bool) {
	switch d {
	case dimBytes:
		return byteUnit(unit)
	case dimPower:
		return siUnit(unit, 'W')
	case dimEnergy:
		return siUnit(unit, 'J')
	case dimTemp:
		u := string(unit)
		return 1, u == "C" || u == "°C" || u == "c"
	case dimPercent:
		return 1, string(unit) == "%"
	case dimClock:
		return clockUnit(unit)
	}
	return 1, len(unit) == 0
}

func byteUnit(unit []byte) (float64, bool) {
	switch string(unit) {
	case "B":
		return 1, true
	case "KiB", "KB", "kB":
		return 1 << 10, true
	case "MiB", "MB":
		return 1 << 20, true
	case "GiB", "GB":
		return 1 << 30, true
	case "TiB", "TB":
		return 1 << 40, true
	}
	return 0, false
}

func siUnit(unit []byte, base byte) (float64, bool) {
	switch {
	case len(unit) == 1 && unit[0] == base:
		return 1, true
	case len(unit) == 2 && unit[1] == base && unit[0] == 'm':
		return 1e-3, true
	case len(unit) == 2 && unit[1] == base && unit[0] == 'u':
		return 1e-6, true
	case len(unit) == 2 && unit[1] == base && unit[0] == 'k':
		return 1e3, true
	}
	return 0, false
}

func clockUnit(unit []byte) (float64, bool) {
	switch string(unit) {
	case "MHz", "Mhz":
		return 1, true
	case "Hz":
		return 1e-6, true
	case "kHz", "KHz":
		return 1e-3, true
	case "GHz":
		return 1e3, true
	}
	return 0, false
}

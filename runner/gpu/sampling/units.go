package sampling

// A Dimension is what a figure measures; every figure is kept in its base unit.
type Dimension int

// The dimensions.
const (
	None    Dimension = iota
	Bytes             // bytes
	Power             // W
	Temp              // °C
	Percent           // %
	Clock             // MHz
)

// UnitFactor turns a value in a tool's unit into the base unit. Both vendors'
// tools write MB and GB and mean MiB and GiB (amdsmi: bytes // 2^20). ok is
// false for a unit that is unknown or of another dimension: such a value is
// missing, never guessed.
func UnitFactor(d Dimension, unit []byte) (factor float64, ok bool) {
	factor, ok = map[Dimension]map[string]float64{
		None: {"": 1},
		Bytes: {
			"B": 1, "KiB": 1 << 10, "KB": 1 << 10, "kB": 1 << 10, "MiB": 1 << 20, "MB": 1 << 20,
			"GiB": 1 << 30, "GB": 1 << 30, "TiB": 1 << 40, "TB": 1 << 40,
		},
		Power:   {"W": 1, "mW": 1e-3, "uW": 1e-6},
		Temp:    {"C": 1, "°C": 1, "c": 1},
		Percent: {"%": 1},
		Clock:   {"MHz": 1, "Mhz": 1, "Hz": 1e-6, "kHz": 1e-3, "KHz": 1e-3, "GHz": 1e3},
	}[d][string(unit)]
	return factor, ok
}

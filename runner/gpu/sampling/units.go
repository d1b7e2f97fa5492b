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
	Energy            // J
)

// UnitFactor turns a value in a tool's unit into the base unit. Both vendors'
// tools write MB and GB and mean MiB and GiB (amdsmi: bytes // 2^20). ok is
// false for a unit that is unknown or of another dimension: such a value is
// missing, never guessed.
func UnitFactor(d Dimension, unit []byte) (factor float64, ok bool) {
	of, factor := None, 1.0
	switch string(unit) {
	case "B":
		of = Bytes
	case "KiB", "KB", "kB":
		of, factor = Bytes, 1<<10
	case "MiB", "MB":
		of, factor = Bytes, 1<<20
	case "GiB", "GB":
		of, factor = Bytes, 1<<30
	case "TiB", "TB":
		of, factor = Bytes, 1<<40
	case "W":
		of = Power
	case "mW":
		of, factor = Power, 1e-3
	case "uW":
		of, factor = Power, 1e-6
	case "C", "°C", "c":
		of = Temp
	case "%":
		of = Percent
	case "MHz", "Mhz":
		of = Clock
	case "Hz":
		of, factor = Clock, 1e-6
	case "kHz", "KHz":
		of, factor = Clock, 1e-3
	case "GHz":
		of, factor = Clock, 1e3
	case "J":
		of = Energy
	case "mJ":
		of, factor = Energy, 1e-3
	case "":
	default:
		return 0, false
	}
	return factor, of == d
}

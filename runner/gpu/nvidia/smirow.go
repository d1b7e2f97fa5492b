package nvidia

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// An smiColumn is one field of `nvidia-smi --query-gpu`. Meanings: `nvidia-smi
// --help-query-gpu`.
type smiColumn struct {
	name  string // as it is asked for
	alias string // older name of the same
	kind  columnKind
	dim   sampling.Dimension
	field runner.Fields // what a valid value gives; 0: none

	scale float64 // of a value without a unit: from the header of the probe
}

type columnKind int

const (
	colFigure columnKind = iota // goes into the sample as it is
	colStamp
	colIndex
	colBusID
	colPowerInstant
	colPower
	colReasons
	colText // of a full reading
)

// smiColumns is what the sampler asks for, in this order. memory.used leaves
// the driver's reserve out and memory.reserved tells it apart (measured: equal
// to NVML's second memory call).
func smiColumns() []smiColumn {
	return withScale([]smiColumn{
		{name: "timestamp", kind: colStamp},
		{name: "index", kind: colIndex},
		{name: "pci.bus_id", alias: "gpu_bus_id", kind: colBusID},
		{name: "memory.used", dim: sampling.Bytes, field: runner.HasMemoryUsed},
		{name: "memory.reserved", dim: sampling.Bytes, field: runner.HasMemoryReserved},
		{name: "memory.total", dim: sampling.Bytes, field: runner.HasMemoryTotal},
		{name: "power.draw.instant", kind: colPowerInstant, dim: sampling.Power, field: runner.HasPower},
		{name: "power.draw", kind: colPower, dim: sampling.Power, field: runner.HasPower},
		{name: "temperature.gpu", dim: sampling.Temp, field: runner.HasTemperature},
		{name: "temperature.memory", dim: sampling.Temp, field: runner.HasMemoryTemp},
		{name: "utilization.gpu", dim: sampling.Percent, field: runner.HasUtilization},
		{name: "utilization.memory", dim: sampling.Percent, field: runner.HasMemoryUtil},
		{name: "clocks.current.sm", alias: "clocks.sm", dim: sampling.Clock, field: runner.HasClockSM},
		{name: "clocks.current.memory", alias: "clocks.mem", dim: sampling.Clock, field: runner.HasClockMem},
		{name: "clocks_event_reasons.active", alias: "clocks_throttle_reasons.active", kind: colReasons,
			field: runner.HasThrottleReasons},
	})
}

func withScale(cols []smiColumn) []smiColumn {
	for i := range cols {
		cols[i].scale = 1
		if cols[i].dim == sampling.Bytes {
			cols[i].scale = 1 << 20
		}
	}
	return cols
}

// smiFullColumns is what a full reading asks for.
func smiFullColumns() []smiColumn {
	cols := smiColumns()
	for _, name := range []string{
		"uuid", "name", "driver_version", "persistence_mode", "compute_mode", "mig.mode.current", "compute_cap",
		"gpu_recovery_action", "ecc.errors.uncorrected.volatile.total",
	} {
		cols = append(cols, smiColumn{name: name, kind: colText})
	}
	return cols
}

func columnNames(cols []smiColumn) string {
	names := make([]string, len(cols))
	for i, c := range cols {
		names[i] = c.name
	}
	return strings.Join(names, ",")
}

// An smiRow is one parsed line. Absent figures are not in Sample.Has.
type smiRow struct {
	sample  runner.Sample
	index   int32
	busID   []byte // of the line; valid as long as it
	stamp   time.Time
	instant float64 // power.draw.instant, where hasInstant
	drawn   float64 // power.draw, where hasDrawn

	hasInstant, hasDrawn bool

	texts map[string]string // of a full reading, by column; nil: not kept
}

// parseSMIRow reads a line of csv,noheader[,nounits] into row. It reports false
// for a line that is no row: loop mode prints ECC and XID events between the
// rows, and errors go to stdout as well. miss is called for every figure that
// is absent, with the tool's token or what is wrong.
func parseSMIRow(line []byte, cols []smiColumn, row *smiRow, miss func(runner.Fields, []byte)) bool {
	if bytes.Count(line, []byte{','}) != len(cols)-1 {
		return false
	}
	*row = smiRow{index: -1, texts: row.texts}
	for i := range cols {
		cell := line
		if at := bytes.IndexByte(line, ','); at >= 0 {
			cell, line = line[:at], line[at+1:]
		}
		if !row.set(&cols[i], bytes.TrimSpace(cell), miss) {
			return false
		}
	}
	if !sampling.MemoryFits(&row.sample) {
		row.dropMemory([]byte(sampling.ExceedsTotal), miss)
	}
	return row.index >= 0
}

func (r *smiRow) set(c *smiColumn, cell []byte, miss func(runner.Fields, []byte)) bool {
	switch c.kind {
	case colStamp:
		r.stamp = parseStamp(cell)
		return true
	case colIndex:
		v, rest, ok := sampling.ParseDecimal(cell)
		r.index = int32(v)
		return ok && len(rest) == 0 && v >= 0 && v < 1<<16
	case colBusID: // Tegra has none
		if r.busID = cell; bytes.HasPrefix(cell, []byte("[")) {
			r.busID = nil
		}
		return true
	case colText:
		if text := string(cell); !sampling.Absent(text) {
			r.texts[c.name] = text
		}
		return true
	case colReasons:
		v, ok := sampling.ParseHex(cell)
		if !ok {
			miss(c.field, cell)
			return true
		}
		r.sample.ThrottleReasons = v
		r.sample.Has |= c.field
		return true
	}
	r.figure(c, cell, miss)
	return true
}

// figure takes a number with its unit.
func (r *smiRow) figure(c *smiColumn, cell []byte, miss func(runner.Fields, []byte)) {
	v, ok := c.value(cell)
	if ok && !sampling.Put(&r.sample, c.field, v) {
		ok, cell = false, []byte(sampling.Impossible(string(cell)))
		miss(c.field, cell)
	} else if !ok && c.kind == colFigure {
		miss(c.field, cell)
	}
	switch c.kind { // which of them counts is settled later
	case colPowerInstant:
		r.instant, r.hasInstant = v, ok
		r.sample.Has &^= c.field
	case colPower:
		r.drawn, r.hasDrawn = v, ok
		r.sample.Has &^= c.field
	}
}

// value is the figure of a cell in its base unit. A unit of its own, where one
// is printed in spite of nounits, counts more than the column's.
func (c *smiColumn) value(cell []byte) (float64, bool) {
	v, unit, ok := sampling.ParseDecimal(cell)
	if !ok {
		return 0, false
	}
	if len(unit) == 0 {
		return v * c.scale, true
	}
	f, ok := sampling.UnitFactor(c.dim, unit)
	return v * f, ok
}

// dropMemory leaves out memory figures that cannot be true: a wrong number is
// worse than a missing one.
func (r *smiRow) dropMemory(reason []byte, miss func(runner.Fields, []byte)) {
	s := &r.sample
	s.Has &^= sampling.MemoryFields
	s.MemoryUsed, s.MemoryReserved, s.MemoryTotal = 0, 0, 0
	miss(runner.HasMemoryUsed, reason)
	miss(runner.HasMemoryReserved, reason)
	miss(runner.HasMemoryTotal, reason)
}

// parseStamp reads "2026/11/23 18:55:49.600" as UTC; zero if it is none.
func parseStamp(b []byte) time.Time {
	t, err := time.Parse("2006/01/02 15:04:05", string(b)) // a fraction may follow
	if err != nil {
		return time.Time{}
	}
	return t
}

// readHeader takes the units from the header line of a probe, e.g.
// "memory.used [MiB]", so that values without units are scaled as this driver
// means them.
func readHeader(header []byte, cols []smiColumn) error {
	names := bytes.Split(header, []byte{','})
	if len(names) != len(cols) {
		return fmt.Errorf("header has %d columns, want %d: %s", len(names), len(cols), sampling.Clip(string(header), 200))
	}
	for i := range cols {
		name := bytes.TrimSpace(names[i])
		open := bytes.LastIndexByte(name, '[')
		if open < 0 || cols[i].dim == sampling.None {
			continue
		}
		unit := bytes.TrimSuffix(name[open+1:], []byte{']'})
		f, ok := sampling.UnitFactor(cols[i].dim, unit)
		if !ok {
			return fmt.Errorf("column %s has the unknown unit %q", cols[i].name, unit)
		}
		cols[i].scale = f
	}
	return nil
}

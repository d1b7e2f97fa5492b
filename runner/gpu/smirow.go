package gpu

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// An smiColumn is one field of `nvidia-smi --query-gpu`. Meanings: `nvidia-smi
// --help-query-gpu`.
type smiColumn struct {
	name  string // as it is asked for
	alias string // older name of the same
	kind  columnKind
	dim   dimension
	field runner.Fields // what a valid value gives; 0: none
	must  bool          // without it the source is of no use

	scale float64 // of a value without a unit: from the header of the probe
}

type columnKind int

const (
	colStamp columnKind = iota
	colIndex
	colBusID
	colUsed
	colReserved
	colTotal
	colPowerInstant
	colPower
	colTemp
	colMemTemp
	colUtil
	colMemUtil
	colClockSM
	colClockMem
	colReasons
)

// smiColumns is what the sampler asks for, in this order. memory.used leaves
// the driver's reserve out and memory.reserved tells it apart (measured: equal
// to NVML's second memory call).
func smiColumns() []smiColumn {
	return []smiColumn{
		{name: "timestamp", kind: colStamp},
		{name: "index", kind: colIndex, must: true},
		{name: "pci.bus_id", alias: "gpu_bus_id", kind: colBusID},
		{name: "memory.used", kind: colUsed, dim: dimBytes, field: runner.HasMemoryUsed, must: true, scale: 1 << 20},
		{name: "memory.reserved", kind: colReserved, dim: dimBytes, field: runner.HasMemoryReserved, scale: 1 << 20},
		{name: "memory.total", kind: colTotal, dim: dimBytes, field: runner.HasMemoryTotal, scale: 1 << 20},
		{name: "power.draw.instant", kind: colPowerInstant, dim: dimPower, field: runner.HasPower, scale: 1},
		{name: "power.draw", kind: colPower, dim: dimPower, field: runner.HasPower, scale: 1},
		{name: "temperature.gpu", kind: colTemp, dim: dimTemp, field: runner.HasTemperature, scale: 1},
		{name: "temperature.memory", kind: colMemTemp, dim: dimTemp, field: runner.HasMemoryTemp, scale: 1},
		{name: "utilization.gpu", kind: colUtil, dim: dimPercent, field: runner.HasUtilization, scale: 1},
		{name: "utilization.memory", kind: colMemUtil, dim: dimPercent, field: runner.HasMemoryUtil, scale: 1},
		{name: "clocks.current.sm", alias: "clocks.sm", kind: colClockSM, dim: dimClock, field: runner.HasClockSM, scale: 1},
		{name: "clocks.current.memory", alias: "clocks.mem", kind: colClockMem, dim: dimClock, field: runner.HasClockMem, scale: 1},
		{name: "clocks_event_reasons.active", alias: "clocks_throttle_reasons.active", kind: colReasons, field: runner.HasThrottleReasons},
	}
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
}

// parseSMIRow reads a line of csv,noheader[,nounits] into row. It reports false
// for a line that is no row: loop mode prints ECC and XID events between the
// rows, and errors go to stdout as well. miss is called for every figure that
// is absent, with the tool's token or what is wrong.
func parseSMIRow(line []byte, cols []smiColumn, row *smiRow, miss func(runner.Fields, []byte)) bool {
	if bytes.Count(line, []byte{','}) != len(cols)-1 {
		return false
	}
	*row = smiRow{index: -1}
	for i := range cols {
		cell := line
		if at := bytes.IndexByte(line, ','); at >= 0 {
			cell, line = line[:at], line[at+1:]
		}
		if !row.set(&cols[i], trim(cell), miss) {
			return false
		}
	}
	row.checkMemory(miss)
	return row.index >= 0
}

func (r *smiRow) set(c *smiColumn, cell []byte, miss func(runner.Fields, []byte)) bool {
	switch c.kind {
	case colStamp:
		r.stamp = parseStamp(cell)
		return true
	case colIndex:
		v, rest, ok := parseDecimal(cell)
		r.index = int32(v)
		return ok && len(rest) == 0 && v >= 0 && v < 1<<16
	case colBusID:
		r.busID = cell
		return true
	case colReasons:
		v, ok := parseHex(cell)
		if !ok {
			miss(c.field, cell)
			return true
		}
		r.sample.ThrottleReasons = v
		r.sample.Has |= c.field
		return true
	}
	v, ok := c.value(cell)
	if !ok {
		if c.kind != colPower && c.kind != colPowerInstant {
			miss(c.field, cell)
		}
		return true
	}
	r.figure(c, v)
	return true
}

// value is the figure of a cell in its base unit. A unit of its own, where one
// is printed in spite of nounits, counts more than the column's.
func (c *smiColumn) value(cell []byte) (float64, bool) {
	v, unit, ok := parseDecimal(cell)
	if !ok {
		return 0, false
	}
	if len(unit) == 0 {
		return v * c.scale, true
	}
	f, ok := unitFactor(c.dim, unit)
	return v * f, ok
}

func (r *smiRow) figure(c *smiColumn, v float64) {
	s := &r.sample
	switch c.kind {
	case colUsed:
		s.MemoryUsed = int64(math.Round(v))
	case colReserved:
		s.MemoryReserved = int64(math.Round(v))
	case colTotal:
		s.MemoryTotal = int64(math.Round(v))
	case colTemp:
		s.Temperature = v
	case colMemTemp:
		s.MemoryTemp = v
	case colUtil:
		s.Utilization = int32(math.Round(v))
	case colMemUtil:
		s.MemoryUtil = int32(math.Round(v))
	case colClockSM:
		s.ClockSM = int32(math.Round(v))
	case colClockMem:
		s.ClockMem = int32(math.Round(v))
	case colPowerInstant:
		r.instant, r.hasInstant = v, true
		return
	case colPower:
		r.drawn, r.hasDrawn = v, true
		return
	}
	s.Has |= c.field
}

const memoryFields = runner.HasMemoryUsed | runner.HasMemoryReserved | runner.HasMemoryTotal

// checkMemory drops memory figures that cannot be true together: more in use
// than there is. A changed unit shows like that, and a wrong number is worse
// than a missing one.
func (r *smiRow) checkMemory(miss func(runner.Fields, []byte)) {
	s := &r.sample
	if s.Has&(runner.HasMemoryUsed|runner.HasMemoryTotal) != runner.HasMemoryUsed|runner.HasMemoryTotal {
		return
	}
	if s.MemoryTotal > 0 && s.MemoryUsed >= 0 && s.MemoryUsed+s.MemoryReserved <= s.MemoryTotal+s.MemoryTotal/64 {
		return
	}
	r.dropMemory([]byte("memory.used and memory.reserved exceed memory.total"), miss)
}

func (r *smiRow) dropMemory(reason []byte, miss func(runner.Fields, []byte)) {
	s := &r.sample
	s.Has &^= memoryFields
	s.MemoryUsed, s.MemoryReserved, s.MemoryTotal = 0, 0, 0
	miss(runner.HasMemoryUsed, reason)
	miss(runner.HasMemoryReserved, reason)
	miss(runner.HasMemoryTotal, reason)
}

// parseStamp reads "2026/11/23 18:55:49.600" as UTC; zero if it is none.
func parseStamp(b []byte) time.Time {
	if len(b) < 19 || b[4] != '/' || b[7] != '/' || b[10] != ' ' || b[13] != ':' || b[16] != ':' {
		return time.Time{}
	}
	var ok [6]bool
	var v [6]int
	for i, at := range [6][2]int{{0, 4}, {5, 7}, {8, 10}, {11, 13}, {14, 16}, {17, 19}} {
		v[i], ok[i] = digits(b[at[0]:at[1]])
		if !ok[i] {
			return time.Time{}
		}
	}
	nano := 0
	if len(b) >= 23 && b[19] == '.' {
		if n, fine := digits(b[20:23]); fine {
			nano = n * 1e6
		}
	}
	return time.Date(v[0], time.Month(v[1]), v[2], v[3], v[4], v[5], nano, time.UTC)
}

func digits(b []byte) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// readHeader takes the units from the header line of a probe, e.g.
// "memory.used [MiB]", so that values without units are scaled as this driver
// means them.
func readHeader(header []byte, cols []smiColumn) error {
	names := bytes.Split(header, []byte{','})
	if len(names) != len(cols) {
		return fmt.Errorf("header has %d columns, want %d: %s", len(names), len(cols), clip(string(header), 200))
	}
	for i := range cols {
		name := trim(names[i])
		open := bytes.LastIndexByte(name, '[')
		if open < 0 || cols[i].dim == dimNone {
			continue
		}
		unit := bytes.TrimSuffix(name[open+1:], []byte{']'})
		f, ok := unitFactor(cols[i].dim, unit)
		if !ok {
			return fmt.Errorf("column %s has the unknown unit %q", cols[i].name, unit)
		}
		cols[i].scale = f
	}
	return nil
}

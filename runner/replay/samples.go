package replay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// A csvReader yields the samples of a recording's timeline.csv, tick by tick,
// as often as it is asked. Its columns stand in the head line, in any order:
// t_s (seconds since the start of the process), gpu_index, and any of
// memory_used_bytes, memory_reserved_bytes, memory_total_bytes,
// utilization_pct, memory_utilization_pct, power_mw, power_w, temperature_c,
// energy_mj, clock_sm_mhz, clock_mem_mhz, process_bytes, host_rss_bytes.
type csvReader struct {
	path  string
	start time.Time
}

// A column sets one figure of a sample; scale turns the file's unit into the
// sample's.
type column struct {
	has   runner.Fields
	scale float64
	set   func(s *runner.Sample, v float64)
}

func columns() map[string]column {
	return map[string]column{
		"memory_used_bytes":      {runner.HasMemoryUsed, 1, func(s *runner.Sample, v float64) { s.MemoryUsed = int64(v) }},
		"memory_reserved_bytes":  {runner.HasMemoryReserved, 1, func(s *runner.Sample, v float64) { s.MemoryReserved = int64(v) }},
		"memory_total_bytes":     {runner.HasMemoryTotal, 1, func(s *runner.Sample, v float64) { s.MemoryTotal = int64(v) }},
		"utilization_pct":        {runner.HasUtilization, 1, func(s *runner.Sample, v float64) { s.Utilization = int32(v) }},
		"memory_utilization_pct": {runner.HasMemoryUtil, 1, func(s *runner.Sample, v float64) { s.MemoryUtil = int32(v) }},
		"power_mw":               {runner.HasPower, 1e-3, func(s *runner.Sample, v float64) { s.Power = v }},
		"power_w":                {runner.HasPower, 1, func(s *runner.Sample, v float64) { s.Power = v }},
		"temperature_c":          {runner.HasTemperature, 1, func(s *runner.Sample, v float64) { s.Temperature = v }},
		"energy_mj":              {runner.HasEnergy, 1e-3, func(s *runner.Sample, v float64) { s.Energy = v }},
		"clock_sm_mhz":           {runner.HasClockSM, 1, func(s *runner.Sample, v float64) { s.ClockSM = int32(v) }},
		"clock_mem_mhz":          {runner.HasClockMem, 1, func(s *runner.Sample, v float64) { s.ClockMem = int32(v) }},
		"process_bytes":          {runner.HasProcessMemory, 1, func(s *runner.Sample, v float64) { s.ProcessMemory = int64(v) }},
		"host_rss_bytes":         {runner.HasHostRSS, 1, func(s *runner.Sample, v float64) { s.HostRSS = int64(v) }},
	}
}

// ReadSamples yields one tick at a time.
func (r *csvReader) ReadSamples(yield func([]runner.Sample) error) error {
	f, err := os.Open(r.path)
	if err != nil {
		return fmt.Errorf("samples of the recording: %w", err)
	}
	err = r.read(f, yield)
	return errors.Join(err, f.Close())
}

func (r *csvReader) read(in io.Reader, yield func([]runner.Sample) error) error {
	sc := bufio.NewScanner(in)
	var names []string
	var tick []runner.Sample
	flush := func() error {
		if len(tick) == 0 {
			return nil
		}
		err := yield(tick)
		tick = tick[:0]
		return err
	}
	all := columns()
	for line := 1; sc.Scan(); line++ {
		fields := strings.Split(strings.TrimSpace(sc.Text()), ",")
		if names == nil {
			if names = fields; !slices.Contains(names, "t_s") || !slices.Contains(names, "gpu_index") {
				return fmt.Errorf("%s:1: the head line is %q, expected the columns t_s and gpu_index among others", r.path, sc.Text())
			}
			continue
		}
		s, err := r.sample(all, names, fields)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", r.path, line, err)
		}
		if len(tick) > 0 && tick[0].Offset != s.Offset {
			if err := flush(); err != nil {
				return err
			}
		}
		tick = append(tick, s)
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("%s: %w", r.path, err)
	}
	return flush()
}

// sample reads one line; an empty field is a figure that was not read.
func (r *csvReader) sample(all map[string]column, names, fields []string) (runner.Sample, error) {
	s := runner.Sample{GPU: runner.HostGPU, Source: "recording"}
	if len(fields) != len(names) {
		return s, fmt.Errorf("%d fields, the head line has %d", len(fields), len(names))
	}
	for i, name := range names {
		if fields[i] == "" {
			continue
		}
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil || v != v || v > 1e18 || v < -1e18 {
			return s, fmt.Errorf("column %s holds %q, expected a number", name, fields[i])
		}
		switch name {
		case "t_s":
			s.Offset = time.Duration(v * float64(time.Second))
			s.TS = r.start.Add(s.Offset)
		case "gpu_index":
			s.GPU = int32(v)
		default:
			if c, ok := all[name]; ok {
				c.set(&s, v*c.scale)
				s.Has |= c.has
			}
		}
	}
	return s, nil
}

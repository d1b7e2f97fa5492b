package simulate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// A Sampler reads a Device at a fixed rate. It implements runner.Sampler. Ticks
// lie on an absolute schedule from StartedAt on: a late tick does not move the
// next one, and a tick that could not be kept is counted as missed and marked
// as a gap on the next sample.
type Sampler struct {
	Device   *Device
	GPUs     []int         // nil: all
	Interval time.Duration // 0: 100 ms
	// StartedAt is the run's start with its monotonic reading; zero: when
	// sampling starts.
	StartedAt time.Time
	// Ours reports whether a process is the run's own; nil: every process that
	// is not foreign.
	Ours func(pid int) bool

	now  func() time.Time                                       // nil: time.Now
	wait func(ctx context.Context, until time.Time) (done bool) // nil: waitUntil
}

// intervalsKept is how many of the last intervals the report's percentiles are
// about: a run of hours must not need more memory than a short one.
const intervalsKept = 4096

// Sample samples until ctx ends.
func (s *Sampler) Sample(ctx context.Context, emit func([]runner.Sample)) (*runner.SamplerReport, error) {
	interval := cmp.Or(max(s.Interval, 0), 100*time.Millisecond)
	now, wait := s.now, s.wait
	if now == nil {
		now, wait = time.Now, waitUntil
	}
	start := s.StartedAt
	if start.IsZero() {
		start = now()
	}
	report := &runner.SamplerReport{
		Name: "simulated", PowerKind: "instant", IntervalMS: runner.IntervalMS{Asked: milliseconds(interval)},
		Missing: map[string]string{
			"memory_temp": "the simulator has none", "host_rss": "read by another sampler",
			"host_pss": "read by another sampler", "host_cpu": "read by another sampler",
		},
		Notes: []string{"synthetic: no GPU was read"},
	}
	took := make([]float64, 0, intervalsKept)
	var last time.Time
	batch, gap := make([]runner.Sample, 0, s.Device.Count), false
	for tick := now().Sub(start)/interval + 1; !wait(ctx, start.Add(tick*interval)); {
		began := now()
		var err error
		if batch, err = s.tick(batch[:0], start, began, now, gap); err != nil {
			if report.Ticks == 0 {
				return report, err
			}
			report.Missed++
			gap = true
		} else {
			emit(batch)
			report.Ticks++
			gap = false
		}
		if !last.IsZero() {
			if len(took) == intervalsKept {
				took = took[:copy(took, took[1:])]
			}
			took = append(took, milliseconds(began.Sub(last)))
		}
		last = began
		next := now().Sub(start)/interval + 1
		if missed := int64(next - tick - 1); missed > 0 {
			report.Missed += missed
			gap = true
		}
		tick = next
	}
	report.IntervalMS.P50, report.IntervalMS.P99 = quantile(took, 0.5), quantile(took, 0.99)
	if report.Ticks == 0 {
		return report, fmt.Errorf("the simulated GPUs were never read: %w", context.Cause(ctx))
	}
	return report, nil
}

// waitUntil waits for a moment; done means that ctx has ended first.
func waitUntil(ctx context.Context, until time.Time) (done bool) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return true
	case <-timer.C:
		return false
	}
}

// tick reads every GPU once.
func (s *Sampler) tick(
	batch []runner.Sample, start, began time.Time, now func() time.Time, gap bool,
) ([]runner.Sample, error) {
	uses, err := s.Device.read()
	if err != nil {
		return batch, err
	}
	read := now().Sub(began)
	for _, gpu := range s.Device.all(s.GPUs) {
		u := &uses[gpu]
		offset := began.Sub(start)
		_, reasons := u.reasons()
		batch = append(batch, runner.Sample{
			TS: start.Round(0).UTC().Add(offset), Offset: offset, Read: read, GPU: int32(gpu), Gap: gap, Source: "simulated",
			Has:        sampleFields,
			MemoryUsed: u.bytes, MemoryReserved: s.Device.GPU.Reserve, MemoryTotal: s.Device.driverTotal(),
			ProcessMemory: s.ours(u),
			Power:         u.power, Temperature: u.celsius, Energy: u.energy, Utilization: u.util, MemoryUtil: u.memUtil,
			ClockSM: u.clock, ClockMem: u.memClock, ThrottleReasons: reasons,
		})
	}
	return batch, nil
}

// sampleFields are the figures that the simulated driver has.
const sampleFields = runner.HasMemoryUsed | runner.HasMemoryReserved | runner.HasMemoryTotal | runner.HasProcessMemory |
	runner.HasPower | runner.HasTemperature | runner.HasEnergy | runner.HasUtilization | runner.HasMemoryUtil |
	runner.HasClockSM | runner.HasClockMem | runner.HasThrottleReasons

// ours sums what the run's own processes hold.
func (s *Sampler) ours(u *use) int64 {
	var sum int64
	for _, h := range u.holdings {
		if s.Ours == nil && h.Foreign == 0 || s.Ours != nil && s.Ours(int(h.PID)) {
			sum += h.Bytes
		}
	}
	return sum
}

// milliseconds is a duration as a number.
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// quantile is nil where there is nothing.
func quantile(values []float64, p float64) *float64 {
	if len(values) == 0 {
		return nil
	}
	v := percentile(slices.Sorted(slices.Values(values)), p)
	return &v
}

package gpu

import (
	"fmt"
	"math/bits"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vramsweep/vramsweep/runner"
)

// Bounds of what a report keeps: an instrument that flaps for hours must not
// fill the memory.
const (
	maxGaps  = 1000
	maxNotes = 100
)

// A meter is what every source of a sampler shares: it stamps samples, passes
// ticks on and keeps the sampler's account of itself. It allocates nothing in
// the steady state.
type meter struct {
	interval time.Duration
	epoch    time.Time // with monotonic reading
	wall     time.Time // epoch without it, UTC
	emit     func([]runner.Sample)
	began    time.Duration // CPU of this process at the start
	started  time.Duration // offset at the start

	mu        sync.Mutex
	hist      histogram
	ticks     int64
	missed    int64
	last      time.Duration // offset of the last tick
	gpus      []gpuState
	fields    [numFields]fieldState
	fieldGPUs map[int]runner.Fields // what each GPU ever had
	gaps      []runner.Gap
	moreGaps  int64
	notes     []string
	moreNotes int64
	skipped   int64
	skippedEx string
	reason    string // why the current stretch without samples came about
}

type gpuState struct {
	gpu  int32
	last time.Duration
}

type fieldState struct {
	have, miss int64
	reason     string
}

func newMeter(interval time.Duration, epoch time.Time, emit func([]runner.Sample)) *meter {
	return &meter{
		interval:  interval,
		epoch:     epoch,
		wall:      epoch.Round(0).UTC(),
		emit:      emit,
		began:     processCPU(),
		started:   time.Since(epoch),
		fieldGPUs: map[int]runner.Fields{},
	}
}

// offset is the monotonic time since the epoch: a wall clock that jumps does
// not move it.
func (m *meter) offset(now time.Time) time.Duration { return now.Sub(m.epoch) }

// at is the UTC time of an offset.
func (m *meter) at(off time.Duration) time.Time { return m.wall.Add(off) }

// tick accounts for one tick and passes it on. The samples lack only TS and
// Gap.
func (m *meter) tick(samples []runner.Sample) {
	if len(samples) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	first := samples[0].Offset
	if m.ticks > 0 {
		if d := first - m.last; d > 0 {
			m.hist.add(d)
			m.missed += missedTicks(d, m.interval)
		}
	}
	m.ticks++
	m.last = first
	for i := range samples {
		s := &samples[i]
		s.TS = m.wall.Add(s.Offset)
		s.Gap = m.seen(s.GPU, s.Offset)
		m.have(s.GPU, s.Has)
	}
	m.reason = ""
	m.emit(samples)
}

// seen notes that a GPU has a sample at off and reports whether ticks before it
// are missing. Long stretches are kept as gaps.
func (m *meter) seen(gpu int32, off time.Duration) bool {
	for i := range m.gpus {
		if m.gpus[i].gpu != gpu {
			continue
		}
		from := m.gpus[i].last
		m.gpus[i].last = off
		if missedTicks(off-from, m.interval) == 0 {
			return false
		}
		if off-from >= m.longGap() {
			m.addGap(int(gpu), from, off, m.reason)
		}
		return true
	}
	m.gpus = append(m.gpus, gpuState{gpu, off})
	return false
}

// longGap is the stretch from which on missing samples are listed one by one;
// shorter ones are counted as missed ticks.
func (m *meter) longGap() time.Duration { return max(5*m.interval, 500*time.Millisecond) }

func (m *meter) addGap(gpu int, from, to time.Duration, reason string) {
	if len(m.gaps) >= maxGaps {
		m.moreGaps++
		return
	}
	if reason == "" {
		reason = "no sample came in this stretch"
	}
	m.gaps = append(m.gaps, runner.Gap{GPU: gpu, From: m.at(from), To: m.at(to), Reason: reason})
}

// missedTicks is how many ticks fit between two readings that are d apart.
func missedTicks(d, interval time.Duration) int64 {
	n := int64((d+interval/2)/interval) - 1
	return max(n, 0)
}

// have notes what a sample holds. The caller holds the lock.
func (m *meter) have(gpu int32, f runner.Fields) {
	if old := m.fieldGPUs[int(gpu)]; old|f != old {
		m.fieldGPUs[int(gpu)] = old | f
	}
	for f != 0 {
		i := bits.TrailingZeros32(uint32(f))
		m.fields[i].have++
		f &= f - 1
	}
}

// miss notes that a figure could not be read at a tick. The first reason is
// kept; it is copied only then.
func (m *meter) miss(f runner.Fields, reason []byte) {
	m.mu.Lock()
	st := &m.fields[bits.TrailingZeros32(uint32(f))]
	st.miss++
	if st.reason == "" {
		st.reason = string(reason)
	}
	m.mu.Unlock()
}

// never states once that a source cannot read a figure at all.
func (m *meter) never(f runner.Fields, reason string) {
	m.mu.Lock()
	if st := &m.fields[bits.TrailingZeros32(uint32(f))]; st.reason == "" {
		st.reason = reason
	}
	m.mu.Unlock()
}

// state is what has come about since the last call, for a meter in another
// process. The caller remembers told, the number of notes of the last state.
func (m *meter) state(told *int) helperState {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := helperState{Reason: m.reason, Missing: map[string]string{}, Misses: map[string]int64{}}
	s.Notes = append(s.Notes, m.notes[*told:]...)
	*told = len(m.notes)
	for i := range m.fields {
		if st := &m.fields[i]; st.reason != "" {
			name := FieldName(runner.Fields(1) << i)
			s.Missing[name] = st.reason
			if st.miss > 0 {
				s.Misses[name] = st.miss
				st.miss = 0
			}
		}
	}
	return s
}

// adopt takes the state of a meter in another process over.
func (m *meter) adopt(s *helperState) {
	for _, n := range s.Notes {
		m.note("%s", n)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reason = s.Reason
	for i := range m.fields {
		name := FieldName(runner.Fields(1) << i)
		st := &m.fields[i]
		if st.reason == "" {
			st.reason = s.Missing[name]
		}
		st.miss += s.Misses[name]
	}
}

// note keeps a sentence for the report.
func (m *meter) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.notes {
		if n == text {
			return
		}
	}
	if len(m.notes) >= maxNotes {
		m.moreNotes++
		return
	}
	m.notes = append(m.notes, text)
}

// because names the reason of the stretch without samples that begins now.
func (m *meter) because(reason string) {
	m.mu.Lock()
	m.reason = reason
	m.mu.Unlock()
}

// skip counts a line that was no row, and keeps the first one.
func (m *meter) skip(line []byte) {
	m.mu.Lock()
	m.skipped++
	if m.skippedEx == "" {
		m.skippedEx = clip(string(line), 200)
	}
	m.mu.Unlock()
}

func (m *meter) tickCount() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ticks
}

// report closes the account: a GPU whose samples stopped before the end has a
// gap to the end.
func (m *meter) report(name string, now time.Time) *runner.SamplerReport {
	m.mu.Lock()
	defer m.mu.Unlock()
	end := m.offset(now)
	for _, g := range m.gpus {
		if end-g.last >= m.longGap() {
			m.addGap(int(g.gpu), g.last, end, m.reason)
		}
	}
	cpu := (processCPU() - m.began).Seconds()
	r := &runner.SamplerReport{
		Name:       name,
		IntervalMS: runner.IntervalMS{Asked: ms(m.interval), P50: m.hist.quantile(0.5), P99: m.hist.quantile(0.99)},
		Ticks:      m.ticks,
		Missed:     m.missed,
		CPUSeconds: &cpu,
		Missing:    map[string]string{},
		Gaps:       m.gaps,
		Notes:      m.notes,
	}
	m.reportFields(r)
	if m.skipped > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d lines were no rows and were left out; the first: %q", m.skipped, m.skippedEx))
	}
	if m.moreGaps > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d further gaps are not listed", m.moreGaps))
	}
	if m.moreNotes > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d further notes are not listed", m.moreNotes))
	}
	return r
}

func (m *meter) reportFields(r *runner.SamplerReport) {
	for i := range m.fields {
		st := m.fields[i]
		name := FieldName(runner.Fields(1) << i)
		switch {
		case st.have == 0 && st.reason != "":
			r.Missing[name] = st.reason
		case st.have > 0 && st.miss > 0:
			r.Notes = append(r.Notes, fmt.Sprintf("%s is missing in %d of %d readings (%s)", name, st.miss, st.have+st.miss, st.reason))
		}
	}
}

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

// histogram counts durations in buckets of 0.2 % width, so that quantiles of
// any number of ticks cost no memory. Values under 512 ns share buckets.
type histogram struct {
	n      int64
	counts [32 * histSub]uint32
}

const (
	histBits = 9
	histSub  = 1 << histBits
)

func (h *histogram) add(d time.Duration) {
	h.n++
	h.counts[histIndex(uint64(d))]++
}

func histIndex(v uint64) int {
	if v < histSub {
		return int(v)
	}
	shift := bits.Len64(v) - histBits - 1
	i := (shift+1)*histSub + int(v>>uint(shift)) - histSub
	return min(i, 32*histSub-1)
}

func histValue(i int) float64 {
	if i < histSub {
		return float64(i)
	}
	shift := i/histSub - 1
	lo := uint64(i%histSub+histSub) << uint(shift)
	return float64(lo) + float64(uint64(1)<<uint(shift))/2
}

// quantile is in milliseconds; nil without data.
func (h *histogram) quantile(q float64) *float64 {
	if h.n == 0 {
		return nil
	}
	rank := int64(q * float64(h.n-1))
	var seen int64
	for i, c := range h.counts {
		seen += int64(c)
		if seen > rank {
			v := histValue(i) / 1e6
			return &v
		}
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// processCPU is the CPU time of this process: of all its threads, since Go does
// not tell that of a goroutine. The cost of a sampler in its report is therefore
// an upper bound: all that vramsweep did while the sampler ran.
func processCPU() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "..."
}

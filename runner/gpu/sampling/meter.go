package sampling

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

// A Meter is what every source of a sampler shares: it stamps samples, passes
// ticks on and keeps the sampler's account of itself. It allocates nothing in
// the steady state.
type Meter struct {
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
	gaps      []runner.Gap
	moreGaps  int64
	notes     []string
	moreNotes int64
	skipped   int64
	skippedEx string
	reason    string // why the current stretch without samples came about
	toolCPU   *float64
	power     string // what the power figures are
}

type gpuState struct {
	gpu  int32
	last time.Duration
}

type fieldState struct {
	have, miss int64
	reason     string
}

// NewMeter begins the account of a sampler.
func NewMeter(interval time.Duration, epoch time.Time, emit func([]runner.Sample)) *Meter {
	return &Meter{
		interval: interval,
		epoch:    epoch,
		wall:     epoch.Round(0).UTC(),
		emit:     emit,
		began:    ProcessCPU(),
		started:  time.Since(epoch),
	}
}

// Offset is the Monotonic time since the epoch: a wall clock that jumps does
// not move it.
func (m *Meter) Offset(now time.Time) time.Duration { return now.Sub(m.epoch) }

// At is the UTC time of an offset.
func (m *Meter) At(off time.Duration) time.Time { return m.wall.Add(off) }

// Tick accounts for one tick and passes it on. The samples lack only TS and
// Gap.
func (m *Meter) Tick(samples []runner.Sample) {
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
		for f := s.Has; f != 0; f &= f - 1 {
			m.fields[bits.TrailingZeros32(uint32(f))].have++
		}
	}
	m.reason = ""
	m.emit(samples)
}

// seen notes that a GPU has a sample at off and reports whether ticks before it
// are missing. Long stretches are kept as gaps.
func (m *Meter) seen(gpu int32, off time.Duration) bool {
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
func (m *Meter) longGap() time.Duration { return max(5*m.interval, 500*time.Millisecond) }

func (m *Meter) addGap(gpu int, from, to time.Duration, reason string) {
	if len(m.gaps) >= maxGaps {
		m.moreGaps++
		return
	}
	if reason == "" {
		reason = "no sample came in this stretch"
	}
	m.gaps = append(m.gaps, runner.Gap{GPU: gpu, From: m.At(from), To: m.At(to), Reason: reason})
}

// missedTicks is how many ticks fit between two readings that are d apart.
func missedTicks(d, interval time.Duration) int64 {
	n := int64((d+interval/2)/interval) - 1
	return max(n, 0)
}

// Miss notes that a figure could not be read at a tick. The first reason is
// kept; it is copied only then.
func (m *Meter) Miss(f runner.Fields, reason []byte) {
	m.mu.Lock()
	st := &m.fields[bits.TrailingZeros32(uint32(f))]
	st.miss++
	if st.reason == "" {
		st.reason = string(reason)
	}
	m.mu.Unlock()
}

// Never states once that a source cannot read a figure at all.
func (m *Meter) Never(f runner.Fields, reason string) {
	m.mu.Lock()
	if st := &m.fields[bits.TrailingZeros32(uint32(f))]; st.reason == "" {
		st.reason = reason
	}
	m.mu.Unlock()
}

// ToolCPU adds what a tool or helper has cost.
func (m *Meter) ToolCPU(cpu time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := cpu.Seconds()
	if m.toolCPU != nil {
		v += *m.toolCPU
	}
	m.toolCPU = &v
}

// PowerKind says what the power figures of a GPU are.
func (m *Meter) PowerKind(kind string) {
	m.mu.Lock()
	m.power = WorstKind(m.power, kind)
	m.mu.Unlock()
}

// State is what has come about since the last call, for a meter in another
// process. The caller remembers told, the number of notes of the last state.
func (m *Meter) State(told *int) State {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := State{Reason: m.reason, PowerKind: m.power, Missing: map[string]string{}, Misses: map[string]int64{}}
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

// Adopt takes the state of a meter in another process over.
func (m *Meter) Adopt(s *State) {
	for _, n := range s.Notes {
		m.Note("%s", n)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reason, m.power = s.Reason, WorstKind(m.power, s.PowerKind)
	for i := range m.fields {
		name := FieldName(runner.Fields(1) << i)
		st := &m.fields[i]
		if st.reason == "" {
			st.reason = s.Missing[name]
		}
		st.miss += s.Misses[name]
	}
}

// Note keeps a sentence for the report.
func (m *Meter) Note(format string, args ...any) {
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

// Because names the reason of the stretch without samples that begins now.
func (m *Meter) Because(reason string) {
	m.mu.Lock()
	m.reason = reason
	m.mu.Unlock()
}

// Skip counts a line that was no row, and keeps the first one.
func (m *Meter) Skip(line []byte) {
	m.mu.Lock()
	m.skipped++
	if m.skippedEx == "" {
		m.skippedEx = Clip(string(line), 200)
	}
	m.mu.Unlock()
}

func (m *Meter) tickCount() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ticks
}

// Report closes the account: a GPU whose samples stopped before the end has a
// gap to the end.
func (m *Meter) Report(name string, now time.Time) *runner.SamplerReport {
	m.mu.Lock()
	defer m.mu.Unlock()
	end := m.Offset(now)
	for _, g := range m.gpus {
		if end-g.last >= m.longGap() {
			m.addGap(int(g.gpu), g.last, end, m.reason)
		}
	}
	cpu := (ProcessCPU() - m.began).Seconds()
	r := &runner.SamplerReport{
		Name:       name,
		IntervalMS: runner.IntervalMS{Asked: MS(m.interval), P50: m.hist.quantile(0.5), P99: m.hist.quantile(0.99)},
		Ticks:      m.ticks,
		Missed:     m.missed,
		CPUSeconds: &cpu,
		ToolCPU:    m.toolCPU,
		PowerKind:  m.power,
		Missing:    map[string]string{},
		Gaps:       m.gaps,
		Notes:      m.notes,
	}
	m.reportFields(r)
	if m.skipped > 0 {
		r.Notes = append(r.Notes,
			fmt.Sprintf("%d lines were no rows and were left out; the first: %q", m.skipped, m.skippedEx))
	}
	if m.moreGaps > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d further gaps are not listed", m.moreGaps))
	}
	if m.moreNotes > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d further notes are not listed", m.moreNotes))
	}
	return r
}

func (m *Meter) reportFields(r *runner.SamplerReport) {
	for i := range m.fields {
		st := m.fields[i]
		name := FieldName(runner.Fields(1) << i)
		switch {
		case st.have == 0 && st.reason != "":
			r.Missing[name] = st.reason
		case st.have > 0 && st.miss > 0:
			r.Notes = append(r.Notes, fmt.Sprintf("%s is missing in %d of %d readings (%s)",
				name, st.miss, st.have+st.miss, st.reason))
		}
	}
}

// MS is a duration in milliseconds.
func MS(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// ProcessCPU is the CPU time of this process: of all its threads, since Go does
// not tell that of a goroutine. The cost of a sampler in its report is therefore
// an upper bound: all that vramsweep did while the sampler ran.
func ProcessCPU() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Clip cuts a long text off.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "..."
}

// Now is the time, for notes.
func (m *Meter) Now() string { return m.At(m.Offset(time.Now())).Format(time.RFC3339Nano) }

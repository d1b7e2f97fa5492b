package nvidia

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/runner/proc"
)

const (
	// smiFirstRow is how long the first row may take beyond what the probe
	// took to start up.
	smiFirstRow = 2 * time.Second
	// smiStale is how long rows may stay away before the tool counts as hung.
	smiStale = 2 * time.Second
	// smiLate is the age from which on a row counts as read late: then the
	// tool's own stamp is nearer to the truth than its arrival (usual age on
	// an H100: 0.7 ms, p99 1.8 ms; stamps are whole milliseconds).
	smiLate = 5 * time.Millisecond
	// smiOld bounds the ages that are believed; beyond it a clock jumped.
	smiOld = 10 * time.Second
	// smiOnItsWay is how long a row may take from its stamp into the pipe.
	smiOnItsWay = 200 * time.Millisecond
	// smiStampUnit is the resolution of the stamps.
	smiStampUnit = time.Millisecond
)

// An smiDevice is a GPU as nvidia-smi tells it at the start.
type smiDevice struct {
	index      int32
	busID      string
	computeCap float64 // 0: unknown
}

// smiSource reads all GPUs through one long-lived `nvidia-smi -lms`. A driver
// that hangs takes only that process along.
type smiSource struct {
	o       sampling.Options
	r       sampling.Run
	devices []smiDevice
	apps    *processTable // nil: not read
	parted  []int32       // GPUs of which MIG instances are in use: nvidia-smi tells the whole GPU's figures

	query smiQuery
	lost  []string // bus ids that the tool can no longer open
	power map[int32]powerFrom
}

type powerFrom int

const (
	powerUnknown powerFrom = iota
	powerFromInstant
	powerFromDraw
)

func newSMISource(o sampling.Options, r sampling.Run, devices []smiDevice) *smiSource {
	return &smiSource{
		o: o, r: r, devices: devices, query: smiQuery{o: o, cols: smiColumns()}, power: map[int32]powerFrom{},
	}
}

// Name implements sampling.Source.
func (s *smiSource) Name() string { return sampling.SourceNvidiaSMI }

// Run probes the fields, starts the tool and watches it until ctx ends or the
// tool fails.
func (s *smiSource) Run(ctx context.Context, m *sampling.Meter) error {
	if err := s.probe(ctx, m); err != nil {
		return err
	}
	st := newSMIStream(s, m)
	argv := append(s.query.argv("csv,noheader,nounits", s.targets()),
		"-lms", strconv.FormatInt(s.r.Interval.Milliseconds(), 10))
	tool, err := s.o.Begin(ctx, proc.Spec{Argv: argv, Stderr: &st.errs}, st, s.r.Interval)
	if err != nil {
		return err
	}
	i := sampling.Instrument{
		Name: sampling.SourceNvidiaSMI, Running: tool, Last: &st.lastRow, Said: st.said,
		First: smiFirstRow + 2*s.query.took + s.r.Interval, Stale: max(smiStale, 5*s.r.Interval),
	}
	if s.apps != nil {
		i.Beside = func(ctx context.Context) { s.apps.run(ctx, m, s.o, s.devices) }
	}
	cause := i.Watch(ctx, m)
	st.close()
	m.Never(runner.HasEnergy, "nvidia-smi has no energy counter; NVML has")
	m.Never(runner.HasProcessMemory, s.apps.why())
	return cause
}

// targets lists bus ids for -i: only the run's GPUs are asked for, so that idle
// ones cost nothing. nil means all.
func (s *smiSource) targets() []string {
	var ids []string
	for _, d := range s.wanted() {
		if d.busID != "" {
			ids = append(ids, d.busID)
		}
	}
	if len(ids) == len(s.devices) {
		return nil
	}
	return ids
}

// wanted are the run's GPUs that the tool can open.
func (s *smiSource) wanted() []smiDevice {
	return slices.DeleteFunc(slices.Clone(s.devices), func(d smiDevice) bool {
		return !s.r.Wants(int(d.index)) || slices.Contains(s.lost, sampling.BusKey(d.busID))
	})
}

func (s *smiSource) beforeAmpere(index int32) bool {
	for _, d := range s.devices {
		if d.index == index {
			return d.computeCap > 0 && d.computeCap < 8
		}
	}
	return false
}

// An smiStream turns the tool's output into ticks as it comes.
type smiStream struct {
	s       *smiSource
	m       *sampling.Meter
	errs    sampling.Limited
	lastRow atomic.Int64 // offset of the last good row; 0: none yet

	mu        sync.Mutex
	closed    bool
	buf       []byte // the piece of a line that is not complete yet
	row       smiRow
	pending   []runner.Sample
	expect    int // rows of a full tick, as far as known
	zone      time.Duration
	zoned     bool
	stamped   bool      // rows are fetched in batches and dated by the tool's stamps
	empty     time.Time // when nothing was in the pipe
	unstamped time.Time // the arrival of the row that ended that
	miss      func(runner.Fields, []byte)
	text      []byte // first lines that were no rows
	totals    map[int32]int64
	lastOff   map[int32]time.Duration
	read      map[int32]runner.Sample // the last new row, with its stamp as TS and when it came
}

// maxSMILine bounds a line; a row has about 150 bytes.
const maxSMILine = 16 << 10

func newSMIStream(s *smiSource, m *sampling.Meter) *smiStream {
	return &smiStream{
		s: s, m: m, miss: m.Miss, expect: len(s.wanted()),
		stamped: s.r.Interval < sampling.BatchEvery, empty: time.Now(),
		buf:     make([]byte, 0, maxSMILine),
		pending: make([]runner.Sample, 0, 64),
		totals:  map[int32]int64{},
		lastOff: map[int32]time.Duration{},
		read:    map[int32]runner.Sample{},
	}
}

// Write takes output as it arrives. It never fails: what is no row is counted.
func (st *smiStream) Write(p []byte) (int, error) {
	now := time.Now()
	st.mu.Lock()
	defer st.mu.Unlock()
	n := len(p)
	for len(p) > 0 && !st.closed {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			if len(st.buf)+len(p) <= cap(st.buf) {
				st.buf = append(st.buf, p...)
			}
			break
		}
		line := p[:end]
		if len(st.buf) > 0 {
			if len(st.buf)+len(line) <= cap(st.buf) {
				st.buf = append(st.buf, line...)
			}
			line = st.buf
		}
		st.line(bytes.TrimSpace(line), now)
		st.buf = st.buf[:0]
		p = p[end+1:]
	}
	return n, nil
}

func (st *smiStream) line(line []byte, now time.Time) {
	if len(line) == 0 {
		return
	}
	if !parseSMIRow(line, st.s.query.cols, &st.row, st.miss) {
		st.m.Skip(line)
		if len(st.text) < 1024 {
			st.text = append(append(st.text, line...), ' ')
		}
		return
	}
	smp := &st.row.sample
	smp.GPU = st.index()
	if !st.s.r.Wants(int(smp.GPU)) {
		return
	}
	if st.frozen(now) {
		st.m.Because("nvidia-smi repeats a row that it has printed before")
		st.m.Skip(line)
		return
	}
	if slices.Contains(st.s.parted, smp.GPU) {
		st.row.dropMemory(partedMemory, st.miss)
		st.miss(runner.HasPower, partedPower)
	} else {
		st.checkTotal()
		st.choosePower()
	}
	smp.Source = sampling.SourceNvidiaSMI
	smp.Offset, smp.Read = st.when(now)
	st.s.apps.attach(smp)
	st.lastRow.Store(int64(st.m.Offset(now)))
	st.add(smp)
}

// frozen reports a row that was printed before, with its stamp: the tool goes on
// writing and reads nothing. Stamps of whole seconds are the same for a second.
func (st *smiStream) frozen(now time.Time) bool {
	was, row := st.read[st.row.sample.GPU], st.row.sample
	row.TS, row.Offset = st.row.stamp, was.Offset
	if row != was || row.TS.IsZero() {
		row.Offset = st.m.Offset(now)
		st.read[row.GPU] = row
		return false
	}
	return row.TS.Nanosecond() != 0 || st.m.Offset(now)-was.Offset > smiStale/2
}

// index is the GPU's place at the start of the run: nvidia-smi counts anew
// when a GPU is gone.
func (st *smiStream) index() int32 {
	for i := range st.s.devices {
		if d := &st.s.devices[i]; d.busID != "" && d.busID == string(st.row.busID) {
			return d.index
		}
	}
	return st.row.index
}

// checkTotal drops the memory figures of a row whose total is not what it was:
// the units changed under us.
func (st *smiStream) checkTotal() {
	smp := &st.row.sample
	if smp.Has&runner.HasMemoryTotal == 0 {
		return
	}
	was, ok := st.totals[smp.GPU]
	if !ok {
		st.totals[smp.GPU] = smp.MemoryTotal
		return
	}
	if d := smp.MemoryTotal - was; d > was/64 || d < -was/64 {
		st.row.dropMemory([]byte("memory.total is not what it was: the tool changed its units"), st.miss)
	}
}

// choosePower settles at a GPU's first reading which field its power is from,
// and stays with it: a column must not mix instantaneous and averaged figures.
func (st *smiStream) choosePower() {
	smp := &st.row.sample
	from := st.powerOf(smp.GPU)
	switch {
	case from == powerFromInstant && st.row.hasInstant:
		smp.Power = st.row.instant
	case from == powerFromDraw && st.row.hasDrawn:
		smp.Power = st.row.drawn
	default:
		st.miss(runner.HasPower, powerAbsent)
		return
	}
	smp.Has |= runner.HasPower
}

// Never written to: a tick must not allocate.
//
//nolint:gochecknoglobals
var (
	powerAbsent  = []byte("power.draw.instant and power.draw are [N/A]")
	partedMemory = []byte(sampling.MIGMemory)
	partedPower  = []byte(sampling.MIGPower)
)

// powerOf is the field that a GPU's power comes from. power.draw is an average
// over a second from Ampere on, and instantaneous before (--help-query-gpu).
func (st *smiStream) powerOf(gpu int32) powerFrom {
	from, kind := st.s.power[gpu], sampling.PowerInstant
	switch {
	case from != powerUnknown:
		return from
	case st.row.hasInstant:
		from = powerFromInstant
	case st.row.hasDrawn:
		if from = powerFromDraw; !st.s.beforeAmpere(gpu) {
			kind = sampling.PowerAveraged
		}
	default:
		return powerUnknown
	}
	st.s.power[gpu] = from
	st.m.PowerKind(kind)
	return from
}

// Drained implements sampling.Batched.
func (st *smiStream) Drained(at time.Time) {
	st.mu.Lock()
	st.empty = at
	st.mu.Unlock()
}

// Patient implements sampling.Batched.
func (st *smiStream) Patient() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.stamped
}

// when is a row's time and how old it was when it was read. Rows that are
// fetched in batches are dated by the tool's stamp, and so is a row that waited
// in the pipe because this process was not scheduled; all others by their
// arrival.
func (st *smiStream) when(now time.Time) (off, age time.Duration) {
	off = st.m.Offset(now)
	last := st.lastOff[st.row.sample.GPU]
	age, ok := st.age(now)
	switch {
	case st.stamped && ok:
		off -= max(age-smiStampUnit/2, 0)
		age = smiStampUnit
	case st.stamped:
		// A clock was set, or there are no stamps: from now on rows are read as
		// they come.
		st.stamped, st.unstamped = false, now
		st.m.Note("the time stamps of nvidia-smi do not agree with the clock from %s on: rows are dated by their arrival",
			st.m.Now())
	case ok && age > smiLate && off-age > last:
		off -= age
	}
	if now.Equal(st.unstamped) && last > 0 { // they waited together: spread as the tool was asked to print them
		off, age = min(off, last+st.s.r.Interval), 0
	}
	// Rows that waited together have one arrival; times of a GPU stay apart.
	off = max(off, last+time.Microsecond)
	st.lastOff[st.row.sample.GPU] = off
	return off, age
}

// age is how long ago the tool says that it read the row; false where that
// cannot be: a clock jumped.
func (st *smiStream) age(now time.Time) (time.Duration, bool) {
	if st.row.stamp.IsZero() {
		return 0, false
	}
	d := now.Round(0).Sub(st.row.stamp)
	if !st.zoned {
		st.zone, st.zoned = d.Round(15*time.Minute), true
	}
	d -= st.zone
	oldest := smiOld
	if st.stamped { // it was not there when the pipe was last seen empty
		oldest = now.Sub(st.empty) + smiOnItsWay
	}
	if d < -smiStampUnit || d > oldest {
		return 0, false
	}
	return max(d, 0), true
}

// add collects the rows of a tick, which come in the order of their index. The
// tick is complete when all GPUs have come, or when the order starts anew.
func (st *smiStream) add(smp *runner.Sample) {
	if n := len(st.pending); n > 0 && smp.GPU <= st.pending[n-1].GPU {
		st.expect = max(st.expect, n)
		st.flush()
	}
	st.pending = append(st.pending, *smp)
	if len(st.pending) == st.expect {
		st.flush()
	}
}

func (st *smiStream) flush() {
	st.m.Tick(st.pending)
	st.pending = st.pending[:0]
}

// close passes on what is left; output that comes later is dropped.
func (st *smiStream) close() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.pending) > 0 {
		st.flush()
	}
	if half := bytes.TrimSpace(st.buf); len(half) > 0 {
		st.m.Skip(half)
	}
	st.closed = true
}

// said is what the tool printed beside rows, for messages.
func (st *smiStream) said() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	return sampling.Said(string(st.text), &st.errs)
}

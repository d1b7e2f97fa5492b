package gpu

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// Kinds of power figures, as SamplerReport.PowerKind says them.
const (
	PowerInstant  = "instant"
	PowerAveraged = "averaged_1s"
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
	o       Options
	r       Run
	devices []smiDevice
	apps    *processTable // nil: not read
	parted  []int32       // GPUs of which MIG instances are in use: nvidia-smi tells the whole GPU's figures

	firstRow, stale time.Duration

	cols    []smiColumn
	probed  time.Duration // what a probe took: the tool's start-up
	lost    []string      // bus ids that the tool can no longer open
	toolCPU time.Duration
	mu      sync.Mutex
	power   map[int32]powerFrom
}

type powerFrom int

const (
	powerUnknown powerFrom = iota
	powerFromInstant
	powerFromDraw
)

func newSMISource(o Options, r Run, devices []smiDevice) *smiSource {
	return &smiSource{o: o, r: r, devices: devices, firstRow: smiFirstRow, stale: smiStale, power: map[int32]powerFrom{}}
}

func (s *smiSource) name() string { return SourceNvidiaSMI }

// run probes the fields, starts the tool and watches it until ctx ends or the
// tool fails.
func (s *smiSource) run(ctx context.Context, m *meter) error {
	if err := s.probe(ctx, m); err != nil {
		return err
	}
	st := newSMIStream(s, m)
	argv := append(s.query("csv,noheader,nounits"), "-lms", strconv.FormatInt(s.r.Interval.Milliseconds(), 10))
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	spec := proc.Spec{Argv: argv, Env: toolEnv(s.o.Env), Grace: toolGrace, Stderr: &st.errs}
	begin, err := connect(&spec, st, s.r.Interval)
	if err != nil {
		return err
	}
	p, err := s.o.start(child, spec)
	if err != nil {
		begin(nil)
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	ended := make(chan struct{})
	rest := begin(ended)
	stopApps := s.apps.start(child, s.o, s.devices, s.r.PIDs)
	defer stopApps()
	var exit *proc.Exit
	var waitErr error
	go func() {
		exit, waitErr = waitBounded(child, p)
		close(ended)
	}()
	cause := s.watch(ctx, st, ended)
	cancel()
	<-ended
	rest()
	st.close()
	if waitErr == nil && exit != nil {
		s.toolCPU += exit.CPU
	} else if waitErr != nil {
		m.note("%s: %v", SourceNvidiaSMI, waitErr)
	}
	if cause == nil && ctx.Err() == nil {
		cause = exitCause(exit, waitErr, st.said())
	}
	return cause
}

// watch returns when the tool has ended (nil), when ctx ends (nil), or with the
// reason for which the tool is to be given up.
func (s *smiSource) watch(ctx context.Context, st *smiStream, ended <-chan struct{}) error {
	first := s.firstRow + 2*s.probed + s.r.Interval
	err := watchRows(ctx, st.m, &st.lastRow, first, max(s.stale, 5*s.r.Interval), ended)
	if err != nil {
		err = fmt.Errorf("%w%s", err, st.said())
	}
	return err
}

func exitCause(exit *proc.Exit, err error, said string) error {
	switch {
	case err != nil:
		return fmt.Errorf("ended: %w%s", err, said)
	case exit.Code != nil:
		return fmt.Errorf("ended with exit code %d%s", *exit.Code, said)
	}
	return fmt.Errorf("ended by signal %s%s", exit.Signal, said)
}

// query is the command line without the loop. Only the run's GPUs are asked
// for, so that idle ones cost nothing.
func (s *smiSource) query(format string) []string {
	argv := []string{s.o.NvidiaSMI, "--query-gpu=" + columnNames(s.cols), "--format=" + format}
	if ids := s.targets(); ids != "" {
		argv = append(argv, "-i", ids)
	}
	return argv
}

// targets lists bus ids for -i; "" means all.
func (s *smiSource) targets() string {
	var ids []string
	for _, d := range s.devices {
		if s.wanted(d.index) && d.busID != "" && !slices.Contains(s.lost, busKey(d.busID)) {
			ids = append(ids, d.busID)
		}
	}
	if len(ids) == len(s.devices) {
		return ""
	}
	return strings.Join(ids, ",")
}

func (s *smiSource) wanted(index int32) bool {
	return s.r.GPUs == nil || slices.Contains(s.r.GPUs, int(index))
}

// probe calls the tool once with header and units: fields that it refuses are
// dropped, the units are taken from the header, a GPU that it cannot open is
// left out from now on.
func (s *smiSource) probe(ctx context.Context, m *meter) error {
	if s.cols == nil {
		s.cols = smiColumns()
	}
	for range len(smiColumns()) + len(s.devices) + 1 {
		out, err := runTool(ctx, s.o, s.o.ToolTimeout, s.query("csv")...)
		if err != nil {
			return err
		}
		s.probed = out.took
		s.toolCPU += out.cpu
		again, err := s.judge(out, m)
		if !again {
			return err
		}
	}
	return fmt.Errorf("%w: refuses its fields one after another", errUnusable)
}

// judge reads one answer of the probe; again asks for another try with what it
// has learnt.
func (s *smiSource) judge(out *output, m *meter) (again bool, err error) {
	if name := refusedField(out); name != "" {
		return s.drop(name, m)
	}
	if bus := lostBus(out.stdout, out.stderr); bus != "" && len(s.devices) > len(s.lost) && !slices.Contains(s.lost, bus) {
		s.lost = append(s.lost, bus)
		m.note("GPU %s cannot be opened any more (%s): left out from %s", bus, out.text(), m.at(m.offset(time.Now())).Format(time.RFC3339Nano))
		if s.targets() != "" {
			return true, nil
		}
	}
	header, rows, _ := bytes.Cut(out.stdout, []byte{'\n'})
	if out.code != 0 || !bytes.Contains(header, []byte(",")) {
		return false, fmt.Errorf("exit code %d: %s", out.code, out.text())
	}
	if err := readHeader(header, s.cols); err != nil {
		return false, err
	}
	var row smiRow
	for line := range bytes.Lines(rows) {
		if parseSMIRow(bytes.TrimSpace(line), s.cols, &row, func(runner.Fields, []byte) {}) {
			return false, nil
		}
	}
	return false, fmt.Errorf("no row: %s", out.text())
}

// drop takes a refused field out of the query, or puts its older name in.
func (s *smiSource) drop(name string, m *meter) (bool, error) {
	i := slices.IndexFunc(s.cols, func(c smiColumn) bool { return c.name == name })
	switch {
	case i < 0:
		return false, fmt.Errorf("%w: refuses the field %q, which was not asked for", errUnusable, name)
	case s.cols[i].alias != "":
		s.cols[i].name, s.cols[i].alias = s.cols[i].alias, ""
		return true, nil
	case s.cols[i].must:
		return false, fmt.Errorf("%w: does not know the field %s", errUnusable, name)
	}
	c := s.cols[i]
	s.cols = slices.Delete(slices.Clone(s.cols), i, i+1)
	if c.field != 0 && !slices.ContainsFunc(s.cols, func(o smiColumn) bool { return o.field == c.field }) {
		m.never(c.field, "this nvidia-smi does not know "+name)
	}
	return true, nil
}

var (
	refusedRE = regexp.MustCompile(`Field "([^"]+)" is not a valid field to query`)
	lostRE    = regexp.MustCompile(`(?i)Unable to determine the device handle for GPU\s*([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])`)
)

func refusedField(out *output) string {
	for _, b := range [][]byte{out.stdout, out.stderr} {
		if m := refusedRE.FindSubmatch(b); m != nil {
			return string(m[1])
		}
	}
	return ""
}

func lostBus(texts ...[]byte) string {
	for _, b := range texts {
		if m := lostRE.FindSubmatch(b); m != nil {
			return busKey(string(m[1]))
		}
	}
	return ""
}

// busKey is a PCI bus id in the short form of the kernel, in lower case: tools
// print the domain with four or eight digits.
func busKey(id string) string {
	id = strings.ToLower(id)
	if at := strings.IndexByte(id, ':'); at > 4 {
		id = id[at-4:]
	}
	return id
}

// finish implements source.
func (s *smiSource) finish(r *runner.SamplerReport) {
	cpu := s.toolCPU
	if s.apps != nil {
		cpu += s.apps.cpu()
	}
	v := cpu.Seconds()
	if r.ToolCPU != nil {
		v += *r.ToolCPU
	}
	r.ToolCPU = &v
	r.PowerKind = worstKind(r.PowerKind, s.powerKind())
	if _, ok := r.Missing[FieldName(runner.HasEnergy)]; !ok {
		r.Missing[FieldName(runner.HasEnergy)] = "nvidia-smi has no energy counter; NVML has"
	}
	if s.apps == nil {
		r.Missing[FieldName(runner.HasProcessMemory)] = "the run's own processes were not asked for"
	} else if why := s.apps.why(); why != "" {
		r.Missing[FieldName(runner.HasProcessMemory)] = why
	}
}

// worstKind joins the kinds of several sources: averaged wins, since what is
// worked out from instantaneous power must not be from averaged.
func worstKind(a, b string) string {
	if a == PowerAveraged || b == "" {
		return a
	}
	return b
}

// powerKind is what the power figures were. power.draw is an average over a
// second from Ampere on, and instantaneous before (--help-query-gpu).
func (s *smiSource) powerKind() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	kind := ""
	for index, from := range s.power {
		k := PowerInstant
		if from == powerFromDraw && !s.beforeAmpere(index) {
			k = PowerAveraged
		}
		kind = worstKind(kind, k)
	}
	return kind
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
	m       *meter
	errs    limited
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
}

// maxSMILine bounds a line; a row has about 150 bytes.
const maxSMILine = 16 << 10

func newSMIStream(s *smiSource, m *meter) *smiStream {
	expect := 0
	for _, d := range s.devices {
		if s.wanted(d.index) && !slices.Contains(s.lost, busKey(d.busID)) {
			expect++
		}
	}
	return &smiStream{
		s: s, m: m, miss: m.miss, expect: expect,
		stamped: s.r.Interval < batchEvery, empty: time.Now(),
		buf:     make([]byte, 0, maxSMILine),
		pending: make([]runner.Sample, 0, 64),
		totals:  map[int32]int64{},
		lastOff: map[int32]time.Duration{},
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
		st.line(trim(line), now)
		st.buf = st.buf[:0]
		p = p[end+1:]
	}
	return n, nil
}

func (st *smiStream) line(line []byte, now time.Time) {
	if len(line) == 0 {
		return
	}
	if !parseSMIRow(line, st.s.cols, &st.row, st.miss) {
		st.m.skip(line)
		if len(st.text) < 1024 {
			st.text = append(append(st.text, line...), ' ')
		}
		return
	}
	smp := &st.row.sample
	smp.GPU = st.index()
	if !st.s.wanted(smp.GPU) {
		return
	}
	if slices.Contains(st.s.parted, smp.GPU) {
		st.row.dropMemory(partedMemory, st.miss)
		st.miss(runner.HasPower, partedPower)
	} else {
		st.checkTotal()
		st.choosePower()
	}
	smp.Source = SourceNvidiaSMI
	smp.Offset, smp.Read = st.when(now)
	st.s.apps.attach(smp)
	st.lastRow.Store(int64(st.m.offset(now)))
	st.add(smp)
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
	from := st.s.powerOf(smp.GPU, st.row.hasInstant, st.row.hasDrawn)
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
	partedMemory = []byte(migMemory)
	partedPower  = []byte(migPower)
)

func (s *smiSource) powerOf(gpu int32, instant, drawn bool) powerFrom {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := s.power[gpu]
	if from != powerUnknown {
		return from
	}
	switch {
	case instant:
		from = powerFromInstant
	case drawn:
		from = powerFromDraw
	default:
		return powerUnknown
	}
	s.power[gpu] = from
	return from
}

// drained implements batched.
func (st *smiStream) drained(at time.Time) {
	st.mu.Lock()
	st.empty = at
	st.mu.Unlock()
}

// patient implements batched.
func (st *smiStream) patient() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.stamped
}

// when is a row's time and how old it was when it was read. Rows that are
// fetched in batches are dated by the tool's stamp, and so is a row that waited
// in the pipe because this process was not scheduled; all others by their
// arrival.
func (st *smiStream) when(now time.Time) (off, age time.Duration) {
	off = st.m.offset(now)
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
		st.m.note("the time stamps of nvidia-smi do not agree with the clock from %s on: rows are dated by their arrival", st.m.at(off).Format(time.RFC3339Nano))
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
	st.m.tick(st.pending)
	st.pending = st.pending[:0]
}

// close passes on what is left; output that comes later is dropped.
func (st *smiStream) close() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.pending) > 0 {
		st.flush()
	}
	if half := trim(st.buf); len(half) > 0 {
		st.m.skip(half)
	}
	st.closed = true
}

// said is what the tool printed beside rows, for messages.
func (st *smiStream) said() string {
	st.mu.Lock()
	text := string(st.text)
	st.mu.Unlock()
	text = strings.Join(strings.Fields(text+string(st.errs.bytes())), " ")
	if text == "" {
		return ""
	}
	return ": " + clip(text, 300)
}

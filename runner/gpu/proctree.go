package gpu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vramsweep/vramsweep/runner"
)

// clockTicks is USER_HZ, the unit of CPU times in /proc/PID/stat: 100 on every
// Linux that Go runs on (include/uapi/asm-generic/param.h).
const clockTicks = 100

// Costs of the slower parts are bounded: each may take at most this share of
// the time, so its next turn is the later the longer it took.
const slowShare = 200 // 1/200

// A tree is the run's processes. Who belongs to it is for runner/proc to know
// (Process.Tree, through Run.PIDs); here the answer is only kept for a while,
// since looking costs a pass over /proc.
type tree struct {
	proc string // "/proc"
	list func() []int

	mu    sync.Mutex
	due   time.Time
	known []int
	gen   int
}

// treeEvery is how old the list of processes may be.
const treeEvery = 500 * time.Millisecond

func newTree(procRoot string, list func() []int) *tree { return &tree{proc: procRoot, list: list} }

// pids lists the live processes of the run, and the number of the look that the
// list is from. The list must not be changed.
func (t *tree) pids() (pids []int, look int) {
	if t == nil || t.list == nil {
		return nil, 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); !now.Before(t.due) {
		t.known = t.list()
		t.due = now.Add(max(treeEvery, slowShare*time.Since(now)))
		t.gen++
	}
	return t.known, t.gen
}

// A procStat is what is read of /proc/PID/stat, proc(5).
type procStat struct {
	pid int
	cpu uint64 // utime + stime, clock ticks
}

// parseStat reads /proc/PID/stat. The name in parentheses may hold anything,
// parentheses and blanks too: fields count from the last ")".
func parseStat(b []byte) (procStat, bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return procStat{}, false
	}
	pid, ok := digits(trim(b[:open]))
	if !ok {
		return procStat{}, false
	}
	s := procStat{pid: pid}
	rest := b[end+1:]
	for i := 3; i <= 15; i++ {
		rest = trimLeft(rest)
		cut := bytes.IndexByte(rest, ' ')
		if cut < 0 {
			cut = len(rest)
		}
		if i >= 14 { // utime, stime
			n, ok := digits64(rest[:cut])
			if !ok {
				return procStat{}, false
			}
			s.cpu += n
		}
		rest = rest[cut:]
	}
	return s, true
}

func digits64(b []byte) (uint64, bool) {
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' || n > math.MaxUint64/10-1 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, len(b) > 0
}

func trimLeft(b []byte) []byte {
	for len(b) > 0 && blank(b[0]) {
		b = b[1:]
	}
	return b
}

// A procSource reads memory and CPU of the run's process tree. On a machine
// without a GPU this is the memory series of the run.
//
// Memory of every tick is the resident set (statm): pages that processes share
// count in each. The proportional set (smaps_rollup) counts them once, but the
// kernel walks all page tables for it, so it is read at most once a second and
// never for more than half a per cent of the time.
type procSource struct {
	r        Run
	tree     *tree
	pageSize int64

	look    int // of the tree that procs is from
	procs   map[int]*procFiles
	buf     []byte
	statDue time.Time
	pssDue  time.Time
	cpuAt   time.Duration
	cpuHas  bool
	empty   bool // no member had been found yet
	hidden  bool // a member does not let its smaps_rollup be read
}

// procFiles keeps the files of one process open: a read at offset 0 makes the
// kernel write them anew.
type procFiles struct {
	statm, stat, rollup int // descriptors; -1: could not be opened
	cpu                 uint64
	hasCPU              bool
}

func (p *procFiles) close() {
	for _, fd := range []int{p.statm, p.stat, p.rollup} {
		if fd >= 0 {
			unix.Close(fd) //nolint:errcheck // only read from
		}
	}
}

func newProcSource(r Run, t *tree) *procSource {
	return &procSource{r: r, tree: t, pageSize: int64(os.Getpagesize()), procs: map[int]*procFiles{}, buf: make([]byte, 4096), empty: true}
}

func (s *procSource) name() string { return SourceProc }

func (s *procSource) finish(r *runner.SamplerReport) {}

// run reads until ctx ends.
func (s *procSource) run(ctx context.Context, m *meter) error {
	if _, err := os.Stat(filepath.Join(s.tree.proc, "self")); err != nil {
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	defer s.closeAll()
	sched := newSchedule(s.r.Interval)
	defer sched.stop()
	tick := make([]runner.Sample, 1)
	for sched.wait(ctx) {
		began := time.Now()
		tick[0] = runner.Sample{GPU: runner.HostGPU, Source: SourceProc, Offset: m.offset(began)}
		if s.read(&tick[0], began, m) {
			tick[0].Read = time.Since(began)
			m.tick(tick)
		}
	}
	return nil
}

func (s *procSource) closeAll() {
	for pid, p := range s.procs {
		p.close()
		delete(s.procs, pid)
	}
}

// read fills one sample; false as long as there is no process to read.
func (s *procSource) read(smp *runner.Sample, now time.Time, m *meter) bool {
	s.refresh(m)
	if s.empty {
		return false
	}
	for pid, p := range s.procs {
		rss, ok := s.rss(p)
		if !ok {
			p.close()
			delete(s.procs, pid)
			continue
		}
		smp.HostRSS += rss
	}
	smp.Has |= runner.HasHostRSS
	if !now.Before(s.statDue) {
		s.statDue = now.Add(max(s.r.Interval, 100*time.Millisecond) - time.Millisecond)
		s.cpu(smp)
	}
	if !now.Before(s.pssDue) {
		s.pss(smp, m)
		s.pssDue = now.Add(max(time.Second, slowShare*time.Since(now)))
	}
	return true
}

// refresh brings the kept files in line with the tree. An engine that has ended
// leaves an empty tree: 0 bytes are then the truth.
func (s *procSource) refresh(m *meter) {
	pids, look := s.tree.pids()
	if look == s.look {
		return
	}
	s.look = look
	for _, pid := range pids {
		if _, ok := s.procs[pid]; ok {
			continue
		}
		dir := filepath.Join(s.tree.proc, strconv.Itoa(pid))
		statm, err := openFile(filepath.Join(dir, "statm"))
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				m.note("memory of process %d cannot be read: %v", pid, err)
			}
			continue
		}
		files := &procFiles{statm: statm}
		files.stat, _ = openFile(filepath.Join(dir, "stat"))
		files.rollup, err = openFile(filepath.Join(dir, "smaps_rollup"))
		if errors.Is(err, os.ErrPermission) {
			s.hidden = true
		}
		s.procs[pid] = files
		s.empty = false
	}
	for pid, p := range s.procs {
		if !slices.Contains(pids, pid) {
			p.close()
			delete(s.procs, pid)
		}
	}
}

// rss is the second figure of statm, in pages. On kernels from 6.2 on it may
// lag by some pages a core and thread group.
func (s *procSource) rss(p *procFiles) (int64, bool) {
	n, err := unix.Pread(p.statm, s.buf, 0)
	if err != nil || n == 0 {
		return 0, false
	}
	_, rest, ok := parseDecimal(s.buf[:n])
	if !ok {
		return 0, false
	}
	pages, _, ok := parseDecimal(rest)
	return int64(pages) * s.pageSize, ok
}

// cpu is the CPU time that the tree's processes used since the last reading, as
// a share of one core. A process counts from its second reading on.
func (s *procSource) cpu(smp *runner.Sample) {
	var used uint64
	for _, p := range s.procs {
		n, err := unix.Pread(p.stat, s.buf, 0)
		if err != nil {
			continue
		}
		st, ok := parseStat(s.buf[:n])
		if !ok {
			continue
		}
		if p.hasCPU && st.cpu >= p.cpu {
			used += st.cpu - p.cpu
		}
		p.cpu, p.hasCPU = st.cpu, true
	}
	if since := smp.Offset - s.cpuAt; s.cpuHas && since > 0 {
		smp.HostCPU = 100 * (float64(used) / clockTicks) / since.Seconds()
		smp.Has |= runner.HasHostCPU
	}
	s.cpuAt, s.cpuHas = smp.Offset, true
}

// pss sums the proportional sets; it is absent if any process hides its own.
func (s *procSource) pss(smp *runner.Sample, m *meter) {
	var sum int64
	for pid, p := range s.procs {
		n, err := unix.Pread(p.rollup, s.buf, 0)
		if errors.Is(err, unix.ESRCH) { // the file is of the memory before an exec
			n, err = s.reopen(pid, p)
		}
		if s.hidden || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			m.miss(runner.HasHostPSS, noRollup)
			return
		}
		if err != nil {
			continue // ended meanwhile
		}
		if kib, ok := pssKiB(s.buf[:n]); ok {
			sum += kib << 10
		}
	}
	smp.HostPSS = sum
	smp.Has |= runner.HasHostPSS
}

func (s *procSource) reopen(pid int, p *procFiles) (int, error) {
	fd, err := openFile(filepath.Join(s.tree.proc, strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return 0, err
	}
	unix.Close(p.rollup) //nolint:errcheck // only read from
	p.rollup = fd
	return unix.Pread(fd, s.buf, 0)
}

var noRollup = []byte("no permission to read smaps_rollup") //nolint:gochecknoglobals // never written to; a tick must not allocate

// openFile opens a file of /proc to be read again and again.
func openFile(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

func pssKiB(b []byte) (int64, bool) {
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte("Pss:")); ok {
			kib, unit, ok := parseDecimal(v)
			return int64(kib), ok && string(unit) == "kB"
		}
	}
	return 0, false
}

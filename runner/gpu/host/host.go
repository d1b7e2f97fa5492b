// Package host reads memory and CPU of a run's processes from /proc.
package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// clockTicks is USER_HZ, the unit of CPU times in /proc/PID/stat: 100 on every
// Linux that Go runs on (include/uapi/asm-generic/param.h).
const clockTicks = 100

// statCPU reads the CPU time of /proc/PID/stat (proc(5)): utime + stime, in clock
// ticks. The name in parentheses may hold anything, parentheses and blanks too:
// fields count from the last ")".
func statCPU(b []byte) (ticks uint64, ok bool) {
	field := 2
	for f := range bytes.FieldsSeq(b[bytes.LastIndexByte(b, ')')+1:]) {
		if field++; field < 14 { // utime, stime
			continue
		}
		n, err := strconv.ParseUint(string(f), 10, 64)
		if ticks += n; err != nil || field == 15 {
			return ticks, err == nil
		}
	}
	return 0, false
}

// A source reads memory and CPU of the run's process tree. On a machine
// without a GPU this is the memory series of the run.
//
// Memory of every tick is the resident set (statm): pages that processes share
// count in each. The proportional set (smaps_rollup) counts them once, but the
// kernel walks all page tables for it, so it is read at most once a second and
// never for more than half a per cent of the time.
type source struct {
	r        sampling.Run
	proc     string // "/proc"
	tree     *sampling.Tree
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

// New is the source of the run's processes, as proc (/proc) shows them.
func New(proc string, r sampling.Run, t *sampling.Tree) sampling.Source { return newSource(proc, r, t) }

func newSource(proc string, r sampling.Run, t *sampling.Tree) *source {
	return &source{
		proc: proc, r: r, tree: t, pageSize: int64(os.Getpagesize()), procs: map[int]*procFiles{},
		buf: make([]byte, 4096), empty: true,
	}
}

// Name implements sampling.Source.
func (s *source) Name() string { return sampling.SourceProc }

// Run reads until ctx ends.
func (s *source) Run(ctx context.Context, m *sampling.Meter) error {
	if _, err := os.Stat(filepath.Join(s.proc, "self")); err != nil {
		return fmt.Errorf("%w: %w", sampling.ErrUnusable, err)
	}
	defer s.closeAll()
	sched := sampling.NewSchedule(s.r.Interval)
	defer sched.Stop()
	tick := make([]runner.Sample, 1)
	for sched.Wait(ctx) {
		began := time.Now()
		tick[0] = runner.Sample{GPU: runner.HostGPU, Source: sampling.SourceProc, Offset: m.Offset(began)}
		if s.read(&tick[0], began, m) {
			tick[0].Read = time.Since(began)
			m.Tick(tick)
		}
	}
	return nil
}

func (s *source) closeAll() {
	for pid, p := range s.procs {
		p.close()
		delete(s.procs, pid)
	}
}

// read fills one sample; false as long as there is no process to read.
func (s *source) read(smp *runner.Sample, now time.Time, m *sampling.Meter) bool {
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
		s.pssDue = now.Add(max(time.Second, sampling.SlowShare*time.Since(now)))
	}
	return true
}

// refresh brings the kept files in line with the tree. An engine that has ended
// leaves an empty tree: 0 bytes are then the truth.
func (s *source) refresh(m *sampling.Meter) {
	pids, look := s.tree.PIDs()
	if look == s.look {
		return
	}
	s.look = look
	for _, pid := range pids {
		if _, ok := s.procs[pid]; ok {
			continue
		}
		dir := filepath.Join(s.proc, strconv.Itoa(pid))
		statm, err := openFile(filepath.Join(dir, "statm"))
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				m.Note("memory of process %d cannot be read: %v", pid, err)
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
func (s *source) rss(p *procFiles) (int64, bool) {
	n, err := unix.Pread(p.statm, s.buf, 0)
	if err != nil || n == 0 {
		return 0, false
	}
	_, rest, ok := sampling.ParseDecimal(s.buf[:n])
	if !ok {
		return 0, false
	}
	pages, _, ok := sampling.ParseDecimal(rest)
	return int64(pages) * s.pageSize, ok
}

// cpu is the CPU time that the tree's processes used since the last reading, as
// a share of one core. A process counts from its second reading on.
func (s *source) cpu(smp *runner.Sample) {
	var used uint64
	for _, p := range s.procs {
		n, err := unix.Pread(p.stat, s.buf, 0)
		if err != nil {
			continue
		}
		ticks, ok := statCPU(s.buf[:n])
		if !ok {
			continue
		}
		if p.hasCPU && ticks >= p.cpu {
			used += ticks - p.cpu
		}
		p.cpu, p.hasCPU = ticks, true
	}
	if since := smp.Offset - s.cpuAt; s.cpuHas && since > 0 {
		smp.HostCPU = 100 * (float64(used) / clockTicks) / since.Seconds()
		smp.Has |= runner.HasHostCPU
	}
	s.cpuAt, s.cpuHas = smp.Offset, true
}

// pss sums the proportional sets; it is absent if any process hides its own.
func (s *source) pss(smp *runner.Sample, m *sampling.Meter) {
	var sum int64
	for pid, p := range s.procs {
		n, err := unix.Pread(p.rollup, s.buf, 0)
		if errors.Is(err, unix.ESRCH) { // the file is of the memory before an exec
			n, err = s.reopen(pid, p)
		}
		if s.hidden || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			m.Miss(runner.HasHostPSS, noRollup)
			return
		}
		if err != nil {
			continue // ended meanwhile
		}
		if kib, ok := kiB(s.buf[:n], "Pss:"); ok {
			sum += kib << 10
		}
	}
	smp.HostPSS = sum
	smp.Has |= runner.HasHostPSS
}

func (s *source) reopen(pid int, p *procFiles) (int, error) {
	fd, err := openFile(filepath.Join(s.proc, strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return 0, err
	}
	unix.Close(p.rollup) //nolint:errcheck // only read from
	p.rollup = fd
	return unix.Pread(fd, s.buf, 0)
}

//nolint:gochecknoglobals // never written to; a tick must not allocate
var noRollup = []byte("no permission to read smaps_rollup")

// openFile opens a file of /proc to be read again and again.
func openFile(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

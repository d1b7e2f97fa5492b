package host

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// Memory is what /proc/meminfo says of the host, in bytes: all of it, and what a
// new program could have without swapping. An error names what cannot be read.
func Memory(proc string) (total, available int64, err error) {
	b, err := os.ReadFile(filepath.Join(proc, "meminfo"))
	if err != nil {
		return 0, 0, fmt.Errorf("memory of the host: %w", err)
	}
	return memory(b)
}

func memory(b []byte) (total, available int64, err error) {
	total, ok1 := kiB(b, "MemTotal:")
	available, ok2 := kiB(b, "MemAvailable:")
	if !ok1 || !ok2 || available > total {
		return 0, 0, fmt.Errorf("/proc/meminfo: want MemTotal and MemAvailable in kB, found %q",
			sampling.Clip(string(b), 120))
	}
	return total << 10, available << 10, nil
}

// A meminfo is the account of GPUs that have no memory of their own and whose
// driver tells none: what is in use of the host's memory.
type meminfo struct {
	proc string
	r    sampling.Run
	gpus []int
}

// NewMeminfo is the source of the memory of GPUs that share the host's.
func NewMeminfo(proc string, r sampling.Run, gpus []int) sampling.Source {
	return &meminfo{proc: proc, r: r, gpus: gpus}
}

// Name implements sampling.Source.
func (s *meminfo) Name() string { return sampling.SourceMeminfo }

// SharedText says what the memory figures of a GPU are that shares the host's.
const SharedText = "that of the host, which it shares: in use is MemTotal less MemAvailable of /proc/meminfo, " +
	"with all that other programs hold; what the run's processes hold is host_rss_bytes and host_pss_bytes"

// Run reads until ctx ends.
func (s *meminfo) Run(ctx context.Context, m *sampling.Meter) error {
	for _, g := range s.gpus {
		m.Note("GPU %d: memory is %s", g, SharedText)
	}
	fd, err := openFile(filepath.Join(s.proc, "meminfo"))
	if err != nil {
		return fmt.Errorf("%w: %w", sampling.ErrUnusable, err)
	}
	defer unix.Close(fd) //nolint:errcheck // only read from
	sched := sampling.NewSchedule(s.r.Interval)
	defer sched.Stop()
	buf, tick := make([]byte, 4096), make([]runner.Sample, len(s.gpus))
	for sched.Wait(ctx) {
		began := time.Now()
		n, err := unix.Pread(fd, buf, 0)
		if err != nil {
			return fmt.Errorf("read /proc/meminfo: %w", err)
		}
		total, available, err := memory(buf[:n])
		if err != nil {
			return err
		}
		for i, g := range s.gpus {
			tick[i] = runner.Sample{
				GPU: int32(g), Source: sampling.SourceMeminfo, Offset: m.Offset(began), Read: time.Since(began),
				MemoryUsed: total - available, MemoryTotal: total, Has: runner.HasMemoryUsed | runner.HasMemoryTotal,
			}
		}
		m.Tick(tick)
	}
	return nil
}

// kiB is a figure of /proc in kB: "MemTotal:       32838284 kB".
func kiB(b []byte, name string) (int64, bool) {
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte(name)); ok {
			n, unit, ok := sampling.ParseDecimal(v)
			return int64(n), ok && string(unit) == "kB"
		}
	}
	return 0, false
}

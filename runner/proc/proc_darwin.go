package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Off Linux there is no /proc, no subreaper, no cgroup and no pidfd: only the
// program's process group is seen and ended. vLLM sweeps run on Linux; this is
// for trying a sweep file on the simulator.
type tree struct{ leader int }

type table struct{}

func newTable(string) (*table, error) { return &table{}, nil }

func (*table) endMarked(context.Context, string, time.Duration) ([]Leftover, error) {
	return nil, errors.New("ending the processes of a killed run needs Linux's /proc")
}

func newTree(string, string) (*tree, error) { return &tree{}, nil }

func (t *tree) prepare(string, bool, int)         {}
func (t *tree) sysProcAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
func (t *tree) dropCgroup() bool                  { return false }
func (t *tree) take(int)                          {}
func (t *tree) begin(pid int)                     { t.leader = pid }
func (t *tree) close()                            {}
func (t *tree) scan(bool)                         {}
func (t *tree) watchEvery() time.Duration         { return time.Hour }
func (t *tree) pids() []int                       { return []int{t.leader} }
func (t *tree) leftovers(bool) []Leftover         { return nil }
func (t *tree) adoptHolders(...string) bool       { return false }
func (t *tree) signalOutside(syscall.Signal)      {}
func (t *tree) signalAll(sig syscall.Signal)      { t.signalGroup(sig) }
func (t *tree) killAll()                          { t.signalGroup(syscall.SIGKILL) }

func (t *tree) stillThere(left []Leftover) []Leftover { return left }

func (t *tree) signalGroup(sig syscall.Signal) {
	if t.leader > 1 {
		_ = syscall.Kill(-t.leader, sig) // ESRCH: all have gone
	}
}

// gone cannot tell the unreaped leader from the rest of its group: the group is
// killed instead of being waited for.
func (t *tree) gone() bool {
	t.killAll()
	return true
}

// withCPUs calls start: this system has no sets of CPUs for a program.
func withCPUs(_ []int, start func() error) error { return start() }

func setCPUs(int, []int) error { return nil }

func pipeName(*os.File) string { return "" }

// waitExited returns when pid has exited and leaves it as a zombie.
func waitExited(pid int) {
	kq, err := syscall.Kqueue()
	if err != nil {
		return
	}
	defer syscall.Close(kq)
	want := []syscall.Kevent_t{{
		Ident: uint64(pid), Filter: syscall.EVFILT_PROC, Flags: syscall.EV_ADD, Fflags: syscall.NOTE_EXIT,
	}}
	got := make([]syscall.Kevent_t, 1)
	for {
		n, err := syscall.Kevent(kq, want, got, nil)
		if n > 0 || (err != nil && !errors.Is(err, syscall.EINTR)) {
			return // ESRCH: it has exited already
		}
	}
}

func maxRSSBytes(ru *syscall.Rusage) int64 { return ru.Maxrss }

func fileID(path string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}

package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An ident names a process for good: a PID alone is used again.
type ident struct {
	pid   int
	start uint64 // clock ticks since boot
}

// An entry is a line of the process table.
type entry struct {
	ident
	ppid, pgrp, sid int
	state           byte
	threads         int
	name            string
}

// dead: a zombie with more than one thread has only lost its first thread.
func (e entry) dead() bool {
	return e.state == 'X' || e.state == 'x' || (e.state == 'Z' && e.threads <= 1)
}

// A table reads /proc.
type table struct {
	root string
	self int
	buf  []byte
}

func newTable(root string) (*table, error) {
	if root == "" {
		root = "/proc"
	}
	if _, err := os.Stat(filepath.Join(root, "self", "stat")); err != nil {
		return nil, fmt.Errorf("the process table is needed to see what a program starts: %w", err)
	}
	return &table{root: root, self: os.Getpid(), buf: make([]byte, 4096)}, nil
}

// all reads the whole table. A process that ends meanwhile is left out.
func (t *table) all() ([]entry, error) {
	d, err := os.Open(t.root)
	if err != nil {
		return nil, fmt.Errorf("read the process table: %w", err)
	}
	names, err := d.Readdirnames(-1)
	_ = d.Close() // only read from
	if err != nil {
		return nil, fmt.Errorf("read the process table: %w", err)
	}
	entries := make([]entry, 0, len(names))
	for _, n := range names {
		if n[0] < '1' || n[0] > '9' {
			continue
		}
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if e, ok := t.one(pid); ok {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

func (t *table) one(pid int) (entry, bool) {
	f, err := os.Open(filepath.Join(t.root, strconv.Itoa(pid), "stat"))
	if err != nil {
		return entry{}, false
	}
	n, err := f.Read(t.buf)
	_ = f.Close() // only read from
	if err != nil {
		return entry{}, false
	}
	return parseStat(t.buf[:n])
}

// parseStat reads a line of /proc/PID/stat (proc_pid_stat(5)): fields 1 pid,
// 2 (comm), 3 state, 4 ppid, 5 pgrp, 6 session, 20 threads, 22 starttime. comm may hold
// blanks and parentheses; the last ")" ends it.
func parseStat(b []byte) (entry, bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || end < open {
		return entry{}, false
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	f := bytes.Fields(b[end+1:])
	if err != nil || pid <= 0 || len(f) < 20 || len(f[0]) != 1 {
		return entry{}, false
	}
	e := entry{ident: ident{pid: pid}, state: f[0][0], name: string(b[open+1 : end])}
	var errs [5]error
	e.ppid, errs[0] = strconv.Atoi(string(f[1]))
	e.pgrp, errs[1] = strconv.Atoi(string(f[2]))
	e.sid, errs[2] = strconv.Atoi(string(f[3]))
	e.threads, errs[4] = strconv.Atoi(string(f[17]))
	e.start, errs[3] = strconv.ParseUint(string(f[19]), 10, 64)
	return e, errors.Join(errs[:]...) == nil
}

// ancestors are this process, its parent, and so on.
func (t *table) ancestors() map[int]bool {
	kin := map[int]bool{1: true}
	for pid := t.self; pid > 0 && !kin[pid]; {
		kin[pid] = true
		e, ok := t.one(pid)
		if !ok {
			break
		}
		pid = e.ppid
	}
	return kin
}

// mark reads the mark in a process's environment; ok is false where the
// environment cannot be read (another user's, or gone).
func (t *table) mark(pid int) (mark string, ok bool) {
	f, err := os.Open(filepath.Join(t.root, strconv.Itoa(pid), "environ"))
	if err != nil {
		return "", false
	}
	defer func() { _ = f.Close() }() // only read from
	b, err := io.ReadAll(io.LimitReader(f, 4<<20))
	if err != nil {
		return "", false
	}
	return parseMark(b), true
}

// parseMark finds the mark in an environment block (NAME=value, NUL between).
func parseMark(env []byte) string {
	for one := range bytes.SplitSeq(env, []byte{0}) {
		if mark, ok := bytes.CutPrefix(one, []byte(MarkVar+"=")); ok {
			return string(mark)
		}
	}
	return ""
}

// matches reports whether mark is want or was derived from it by Start.
func matches(mark, want string) bool {
	return mark == want || strings.HasPrefix(mark, want+".")
}

// How a member of a tree was found.
const (
	howGroup   = "process group"
	howChild   = "child"
	howSession = "session"
	howMark    = "environment mark"
	howOrphan  = "re-parented"
	howCgroup  = "cgroup"
	howPipe    = "output pipe"
)

func (t *table) endMarked(ctx context.Context, want string, grace time.Duration) ([]Leftover, error) {
	tr := newTreeOf(t, want)
	tr.left = leftCgroups(t.root, want)
	tr.scan(true)
	defer removeCgroups(t.root, want)
	left := tr.leftovers(false)
	if len(left) == 0 {
		return nil, tr.err
	}
	tr.signalAll(syscall.SIGTERM)
	deadline := time.Now().Add(grace)
	for time.Now().Before(deadline) && ctx.Err() == nil && !tr.gone() {
		time.Sleep(10 * time.Millisecond)
	}
	deadline = time.Now().Add(killWait)
	for time.Now().Before(deadline) && !tr.gone() {
		left = mergeLeftovers(left, tr.leftovers(false))
		tr.killAll()
		time.Sleep(10 * time.Millisecond)
	}
	return tr.stillThere(left), tr.err
}

// signal sends sig to the very process that id names, never to a later one of
// the same PID.
func (t *table) signal(id ident, sig syscall.Signal) {
	fd, err := unix.PidfdOpen(id.pid, 0)
	if err != nil {
		if e, ok := t.one(id.pid); ok && e.ident == id && errors.Is(err, unix.ENOSYS) {
			_ = syscall.Kill(id.pid, sig) // it may have gone meanwhile
		}
		return
	}
	defer func() { _ = unix.Close(fd) }()
	if e, ok := t.one(id.pid); ok && e.ident == id {
		_ = unix.PidfdSendSignal(fd, sig, nil, 0) // it may have gone meanwhile
	}
}

// holders lists the processes that hold one of the pipes open.
func (t *table) holders(pipes ...string) []entry {
	entries, err := t.all()
	if err != nil {
		return nil
	}
	var found []entry
	for _, e := range entries {
		if e.pid != t.self && !e.dead() && t.holds(e.pid, pipes) {
			found = append(found, e)
		}
	}
	return found
}

func (t *table) holds(pid int, pipes []string) bool {
	dir := filepath.Join(t.root, strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join(dir, fd.Name()))
		if err != nil {
			continue
		}
		for _, p := range pipes {
			if p != "" && target == p {
				return true
			}
		}
	}
	return false
}

// pipeName is a pipe's name in /proc/PID/fd.
func pipeName(f *os.File) string {
	var st syscall.Stat_t
	raw, err := f.SyscallConn()
	if err != nil {
		return ""
	}
	if cerr := raw.Control(func(fd uintptr) { err = syscall.Fstat(int(fd), &st) }); cerr != nil || err != nil {
		return ""
	}
	return fmt.Sprintf("pipe:[%d]", st.Ino)
}

// waitExited returns when pid has exited and leaves it as a zombie, so that its
// PID (and its group's) cannot be used again while the tree is ended.
func waitExited(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func maxRSSBytes(ru *syscall.Rusage) int64 { return ru.Maxrss << 10 } // kB on Linux

func fileID(path string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}

package proc

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A member is a process of the tree.
type member struct {
	entry
	how string
}

// A tree knows a program and all that it starts. A process is of it if it is in
// the program's process group, is a child of a member, is in a session that a
// member leads or led, carries the mark, is in the cgroup, or is an orphan that
// left our session and was handed to us (this process is a subreaper). Once a
// member, always a member.
type tree struct {
	*table
	want   string // the mark
	leader ident  // zero: none (EndMarked)
	cgroup *cgroup
	ownSID int
	kin    map[int]bool  // this process and its ancestors: never of a tree
	beside time.Duration // how many trees are watched side by side

	mu       sync.Mutex
	members  map[ident]member
	clean    map[ident]time.Time // first seen without the mark
	left     []*cgroup           // of a killed runner (EndMarked)
	live     []member            // at the last scan
	scanned  time.Time
	cost     time.Duration
	err      error
	sessions map[int]bool // led by a member
}

func newTree(root, mark string) (*tree, error) {
	tb, err := newTable(root)
	if err != nil {
		return nil, err
	}
	return newTreeOf(tb, mark), nil
}

func newTreeOf(tb *table, mark string) *tree {
	sid, _ := unix.Getsid(0) // cannot fail for oneself
	return &tree{
		table: tb, want: mark, ownSID: sid, kin: tb.ancestors(), beside: 1,
		members: map[ident]member{}, clean: map[ident]time.Time{}, sessions: map[int]bool{},
	}
}

// prepare makes ready what must stand before the program starts: orphans are
// handed to this process, and where the kernel and the rights allow it, a
// cgroup takes all that the program will start.
func (t *tree) prepare(mark string, useCgroup bool, beside int) {
	t.beside = time.Duration(max(beside, 1))
	// Best effort: without it orphans go to init and are found by their mark.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	if useCgroup {
		t.cgroup = newCgroup(t.root, mark)
	}
}

func (t *tree) sysProcAttr() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if t.cgroup != nil {
		a.UseCgroupFD, a.CgroupFD = true, t.cgroup.fd
	}
	return a
}

// dropCgroup gives the cgroup up; false if there was none.
func (t *tree) dropCgroup() bool {
	if t.cgroup == nil {
		return false
	}
	t.cgroup.remove()
	t.cgroup = nil
	return true
}

// take puts a program that another process forked into the cgroup.
func (t *tree) take(pid int) {
	if t.cgroup != nil && !t.cgroup.take(pid) {
		t.dropCgroup()
	}
}

// begin takes the program that was just started as the tree's root.
func (t *tree) begin(pid int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.one(pid); ok {
		t.leader = e.ident
		t.add(e, "")
	}
}

func (t *tree) close() {
	if t.cgroup != nil {
		t.cgroup.remove()
	}
}

func (t *tree) add(e entry, how string) {
	m, known := t.members[e.ident]
	if !known {
		m.how = how
	}
	m.entry = e
	t.members[e.ident] = m
	if e.sid == e.pid {
		t.sessions[e.pid] = true
	}
}

// scan reads the process table. full also looks at processes that once had no
// mark: a process between fork and exec has its parent's environment.
func (t *tree) scan(full bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.scanLocked(full)
}

func (t *tree) scanLocked(full bool) {
	begin := time.Now()
	entries, err := t.all()
	if err != nil {
		t.err = err
		return
	}
	inCgroup := t.cgroup.pids()
	for _, c := range t.left {
		inCgroup = union(inCgroup, c.pids())
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.start, b.start) }) // parents first, mostly
	for grown := true; grown; {
		grown = false
		alive := t.alivePIDs()
		for _, e := range entries {
			if _, known := t.members[e.ident]; known {
				continue
			}
			if how := t.belongs(e, alive, inCgroup, full); how != "" {
				t.add(e, how)
				alive[e.pid] = true
				grown = true
			}
		}
	}
	t.live = t.live[:0]
	for _, e := range entries {
		if _, known := t.members[e.ident]; !known {
			continue
		}
		t.add(e, "")
		if !e.dead() {
			t.live = append(t.live, t.members[e.ident])
		} else if e.ppid == t.self && e.ident != t.leader {
			t.reapOrphan(e.pid)
		}
	}
	t.forget(entries)
	t.scanned, t.cost = time.Now(), time.Since(begin)
}

// alivePIDs are the PIDs of the members known so far.
func (t *tree) alivePIDs() map[int]bool {
	pids := make(map[int]bool, len(t.members))
	for id := range t.members {
		pids[id.pid] = true
	}
	return pids
}

// belongs says how e is of the tree, or "".
func (t *tree) belongs(e entry, members map[int]bool, inCgroup map[int]bool, full bool) string {
	if t.kin[e.pid] || e.start < t.leader.start {
		return ""
	}
	switch {
	case members[e.ppid]:
		return howChild
	case t.leader.pid != 0 && e.pgrp == t.leader.pid:
		return howGroup
	case t.sessions[e.sid]:
		return howSession
	case inCgroup[e.pid]:
		return howCgroup
	case e.dead() || (!t.clean[e.ident].IsZero() && !full):
		return ""
	}
	how := t.byMark(e)
	if how == "" && t.clean[e.ident].IsZero() {
		t.clean[e.ident] = time.Now()
	}
	return how
}

func union(a, b map[int]bool) map[int]bool {
	all := map[int]bool{}
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

// unmarked is how long a child of ours may have no mark: what we start ourselves has none until its exec.
const unmarked = 500 * time.Millisecond

// byMark looks at a process's environment. One that has no mark at all is of the
// tree if it was handed to us and left our session, or goes on without; but as PID 1 of a container
// we are handed the orphans of others too.
func (t *tree) byMark(e entry) string {
	mark, readable := t.mark(e.pid)
	if mark != "" {
		if matches(mark, t.want) {
			return howMark
		}
		return ""
	}
	// What is handed over while others run beside this one may be theirs, and still needed.
	if t.beside > 1 || t.leader.pid == 0 || !readable || e.ppid != t.self || t.self == 1 {
		return ""
	}
	// It was handed to us: all that we start ourselves has a mark of its own.
	if first := t.clean[e.ident]; e.sid != t.ownSID || !first.IsZero() && time.Since(first) > unmarked {
		return howOrphan
	}
	return ""
}

// reapOrphan takes the exit status of a member that was handed to us. Those
// that Start started are no orphans: their group is their own PID and os/exec
// waits for them.
func (t *tree) reapOrphan(pid int) {
	var ws syscall.WaitStatus
	_, _ = syscall.Wait4(pid, &ws, syscall.WNOHANG, nil) // another wait may have been faster
}

// forget drops members that are gone for good, so that their PIDs are not taken
// for parents when they are used again. Sessions stay for as long as somebody
// is in them.
func (t *tree) forget(entries []entry) {
	there := make(map[ident]bool, len(entries))
	sids := make(map[int]bool)
	for _, e := range entries {
		there[e.ident] = true
		sids[e.sid] = true
	}
	for id := range t.members {
		if !there[id] {
			delete(t.members, id)
		}
	}
	for sid := range t.sessions {
		if !sids[sid] {
			delete(t.sessions, sid)
		}
	}
	for id := range t.clean {
		if !there[id] {
			delete(t.clean, id)
		}
	}
}

// watchEvery is how long to wait between two looks at the tree: looking costs
// one per cent of a core at most, for all programs that are watched side by side.
func (t *tree) watchEvery() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(time.Second, 100*t.cost*t.beside)
}

// pids lists the live members. What it says may be as old as 50 times what
// looking costs (about 100 ms; with several programs so many times more), so that a sampler may ask at any rate.
func (t *tree) pids() []int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.scanned) > 50*t.cost*t.beside {
		t.scanLocked(false)
	}
	pids := make([]int, 0, len(t.live))
	for _, m := range t.live {
		pids = append(pids, m.pid)
	}
	slices.Sort(pids)
	return pids
}

// emptyScans is how often a table that never stands still must be found empty.
const emptyScans = 6

// gone looks whether nothing of the tree lives. One pass over /proc can miss a
// process that is started meanwhile, and a chain of processes that each start the
// next and end can slip through several: a pass counts in which the kernel gave
// no PID away, after at least one other; else many in a row.
func (t *tree) gone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := range emptyScans {
		before := t.lastPID()
		t.scanLocked(true)
		if len(t.live) > 0 {
			return false
		}
		if n > 0 && before != "" && t.lastPID() == before {
			return true
		}
	}
	return true
}

// lastPID is the PID that the kernel gave away last; "" where it does not tell.
func (t *tree) lastPID() string {
	data, err := os.ReadFile(filepath.Join(t.root, "loadavg"))
	if err != nil {
		return ""
	}
	return string(data[bytes.LastIndexByte(bytes.TrimSpace(data), ' ')+1:])
}

// leftovers names the members that lived at the last scan; or of them only those
// that left the program's group.
func (t *tree) leftovers(outside bool) []Leftover {
	t.mu.Lock()
	defer t.mu.Unlock()
	var left []Leftover
	for _, m := range t.live {
		if m.ident != t.leader && (!outside || m.pgrp != t.leader.pid) {
			left = append(left, Leftover{PID: m.pid, Name: m.name, How: m.outside(t.leader.pid)})
		}
	}
	return left
}

// outside says how a member was found, in the words that tell most: one that
// is still in the program's group did not leave it.
func (m member) outside(group int) string {
	if group != 0 && m.pgrp == group {
		return howGroup
	}
	return m.how
}

// stillThere marks those of left that live on.
func (t *tree) stillThere(left []Leftover) []Leftover {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range left {
		left[i].Left = slices.ContainsFunc(t.live, func(m member) bool { return m.pid == left[i].PID })
	}
	return left
}

// signalGroup sends sig to the program's process group, which the unreaped
// leader keeps from being used again.
func (t *tree) signalGroup(sig syscall.Signal) {
	if t.leader.pid > 1 {
		_ = syscall.Kill(-t.leader.pid, sig) // ESRCH: all have gone
	}
}

func (t *tree) signalOutside(sig syscall.Signal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.live {
		if t.leader.pid == 0 || m.pgrp != t.leader.pid {
			t.signal(m.ident, sig)
		}
	}
}

func (t *tree) signalAll(sig syscall.Signal) {
	t.signalGroup(sig)
	t.signalOutside(sig)
}

func (t *tree) killAll() {
	t.cgroup.kill()
	for _, c := range t.left {
		c.kill()
	}
	t.signalAll(syscall.SIGKILL)
}

// adoptHolders makes members of the processes that hold the output pipes and
// are no older than the program.
func (t *tree) adoptHolders(pipes ...string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := false
	for _, e := range t.holders(pipes...) {
		if e.start >= t.leader.start {
			t.add(e, howPipe)
			found = true
		}
	}
	if found {
		t.scanLocked(true)
	}
	return found
}

// withCPUs calls start on this thread while it may use these CPUs alone: what it
// starts inherits that. The thread then has its own again.
func withCPUs(cpus []int, start func() error) error {
	if len(cpus) == 0 {
		return start()
	}
	var own unix.CPUSet
	if err := unix.SchedGetaffinity(0, &own); err != nil {
		return fmt.Errorf("read which CPUs may be used: %w", err)
	}
	if err := setCPUs(0, cpus); err != nil {
		return err
	}
	return errors.Join(start(), unix.SchedSetaffinity(0, &own))
}

// setCPUs keeps a program that has one thread yet on these CPUs; 0 is this thread.
func setCPUs(pid int, cpus []int) error {
	if len(cpus) == 0 {
		return nil
	}
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(pid, &set); err != nil {
		return fmt.Errorf("keep the program on CPUs %v: %w", cpus, err)
	}
	return nil
}

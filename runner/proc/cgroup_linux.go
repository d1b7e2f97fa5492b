package proc

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A cgroup (v2) holds one program and all that it starts, whatever they do to
// their group, session, parent or environment. nil: not allowed here.
type cgroup struct {
	dir string
	fd  int
	f   *os.File
}

// newCgroup makes a child of our own cgroup. It is a bonus: nil where there is
// no v2 hierarchy or we may not write in it (most containers, Slurm jobs).
func newCgroup(procRoot, mark string) *cgroup {
	self, mounts := readCgroup(procRoot)
	own, ok := ownCgroup(self, mounts)
	if !ok {
		return nil
	}
	dir := filepath.Join(own, "vramsweep-"+strings.Map(fileRune, mark))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		_ = os.Remove(dir) // just made, empty
		return nil
	}
	return &cgroup{dir: dir, fd: int(f.Fd()), f: f}
}

// readCgroup reads what ownCgroup is found from; what cannot be read is empty.
func readCgroup(procRoot string) (self, mounts []byte) {
	self, _ = os.ReadFile(filepath.Join(procRoot, "self", "cgroup"))
	mounts, _ = os.ReadFile(filepath.Join(procRoot, "self", "mountinfo"))
	return self, mounts
}

func fileRune(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-':
		return r
	}
	return '_'
}

// ownCgroup finds the folder of our cgroup v2: the line "0::/path" of
// /proc/self/cgroup under the mount of type cgroup2 of /proc/self/mountinfo
// (cgroups(7), proc_pid_mountinfo(5)).
func ownCgroup(self, mounts []byte) (string, bool) {
	path := ""
	for line := range bytes.Lines(self) {
		if rest, ok := strings.CutPrefix(string(line), "0::"); ok {
			path = strings.TrimSuffix(rest, "\n")
		}
	}
	if path == "" || strings.Contains(path, "/..") {
		return "", false
	}
	for line := range bytes.Lines(mounts) {
		left, right, ok := strings.Cut(string(line), " - ")
		if !ok || !strings.HasPrefix(right, "cgroup2 ") {
			continue
		}
		f := strings.Fields(left) // id parent major:minor root mountpoint options
		if len(f) < 5 {
			continue
		}
		rel, ok := strings.CutPrefix(path, strings.TrimSuffix(f[3], "/"))
		if ok {
			return filepath.Join(f[4], rel), true
		}
	}
	return "", false
}

// take moves a process in.
func (c *cgroup) take(pid int) bool {
	return os.WriteFile(filepath.Join(c.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0) == nil
}

func (c *cgroup) pids() map[int]bool {
	if c == nil {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	pids := map[int]bool{}
	for line := range bytes.Lines(b) {
		if pid, err := strconv.Atoi(string(bytes.TrimSpace(line))); err == nil && pid > 0 {
			pids[pid] = true
		}
	}
	return pids
}

// kill ends all in the cgroup at once (cgroup.kill, Linux 5.14).
func (c *cgroup) kill() {
	if c != nil {
		_ = os.WriteFile(filepath.Join(c.dir, "cgroup.kill"), []byte("1"), 0) // older kernels: the signals do it
	}
}

// remove takes the cgroup away once it is empty; the kernel needs a moment
// after the last process.
func (c *cgroup) remove() {
	_ = c.f.Close() // only a handle
	for pause := time.Millisecond; pause < 50*time.Millisecond; pause *= 2 {
		if os.Remove(c.dir) == nil {
			return
		}
		time.Sleep(pause)
	}
}

// removeCgroups takes away the empty cgroups that a killed runner left for a
// mark. Those in use cannot be removed.
func removeCgroups(procRoot, mark string) {
	for _, c := range leftCgroups(procRoot, mark) {
		_ = os.Remove(c.dir) // not empty: it is in use
	}
}

// leftCgroups are the cgroups that a killed runner left for a mark.
func leftCgroups(procRoot, mark string) (left []*cgroup) {
	self, mounts := readCgroup(procRoot)
	own, ok := ownCgroup(self, mounts)
	if !ok {
		return nil
	}
	dirs, _ := os.ReadDir(own) // what cannot be read cannot be taken away
	name := "vramsweep-" + strings.Map(fileRune, mark)
	for _, d := range dirs {
		if d.IsDir() && matches(d.Name(), name) {
			left = append(left, &cgroup{dir: filepath.Join(own, d.Name())})
		}
	}
	return left
}

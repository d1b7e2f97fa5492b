package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner/proc/proctest"
)

// The tests run this very binary as the programs that they supervise.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "proc-helper" {
		helper(os.Args[2], os.Args[3:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func helper(what string, args []string) {
	switch what {
	case "exit":
		n, _ := strconv.Atoi(args[0])
		os.Exit(n)
	case "echo":
		fmt.Println(strings.Join(args, " "))
	case "env":
		fmt.Println(os.Getenv(args[0]))
	case "print": // MiB
		n, _ := strconv.Atoi(args[0])
		line := append(bytes.Repeat([]byte("x"), 1023), '\n')
		block := bytes.Repeat(line, 1024)
		for range n {
			os.Stdout.Write(block)
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "deaf": // ignores every signal that it can
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "polite":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("ready")
		<-c
		fmt.Println("bye")
		os.Exit(7)
	case "spawn": // attr,attr... then what the child does
		spawn(args[0], args[1:])
	case "spawn-stay":
		spawn(args[0], args[1:])
		time.Sleep(time.Hour)
	case "spawn-dead": // as vLLM after a SIGKILL of its main process
		spawn(args[0], args[1:])
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "bomb": // every child starts another one and ends
		for {
			spawn("setsid", []string{"bomb"})
			time.Sleep(5 * time.Millisecond)
			os.Exit(0)
		}
	}
}

func spawn(attrs string, args []string) {
	exe, _ := os.Executable()
	c := exec.Command(exe, append([]string{"proc-helper"}, args...)...)
	c.SysProcAttr = &syscall.SysProcAttr{}
	for _, a := range strings.Split(attrs, ",") {
		switch a {
		case "setsid":
			c.SysProcAttr.Setsid = true
		case "setpgid":
			c.SysProcAttr.Setpgid = true
		case "noenv":
			c.Env = []string{}
		case "out":
			c.Stdout, c.Stderr = os.Stdout, os.Stderr
		}
	}
	if err := c.Start(); err != nil {
		fmt.Println("spawn:", err)
		os.Exit(99)
	}
	fmt.Println("child", c.Process.Pid)
}

func self(t testing.TB, args ...string) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{exe, "proc-helper"}, args...)
}

// lines collects what a program prints.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) add(x Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(x.Text))
}

func (l *lines) wait(t *testing.T, prefix string) string {
	t.Helper()
	for range 1000 {
		l.mu.Lock()
		for _, s := range l.all {
			if strings.HasPrefix(s, prefix) {
				l.mu.Unlock()
				return s
			}
		}
		l.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no line %q within 10 s", prefix)
	return ""
}

func run(t *testing.T, spec Spec) (*Exit, *lines) {
	t.Helper()
	var out lines
	if spec.Line == nil {
		spec.Line = out.add
	}
	p, err := Start(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return exit, &out
}

// alive reports whether a process runs: a zombie does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	e, ok := parseStat(b)
	return ok && !e.dead()
}

func TestExit(t *testing.T) {
	exit, _ := run(t, Spec{Argv: self(t, "exit", "3")})
	if exit.Code == nil || *exit.Code != 3 || exit.Signal != "" || exit.Stopped != "" || len(exit.Leftovers) != 0 {
		t.Errorf("exit = %+v, want code 3 and nothing else", exit)
	}
	if exit.MaxRSS < 1<<20 || exit.CPU <= 0 {
		t.Errorf("MaxRSS %d, CPU %v: want the usage of a Go program", exit.MaxRSS, exit.CPU)
	}
}

func TestArgumentsReachTheProgramAsTheyAre(t *testing.T) {
	_, out := run(t, Spec{Argv: self(t, "echo", "$HOME", "a b", "'; exit 3", "*", "`id`")})
	if got, want := out.all[0], "$HOME a b '; exit 3 * `id`"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		argv    []string
		missing bool
		want    string
	}{
		"nothing":        {nil, false, "no program given"},
		"missing":        {[]string{"no-such-vllm"}, true, "start no-such-vllm: no such program in the folders of PATH (1)"},
		"missing path":   {[]string{"./no/vllm"}, true, "no such program"},
		"not executable": {[]string{"plain"}, false, "is not executable (mode -rw-r--r--)"},
		"a folder":       {[]string{dir}, false, "is a folder"},
		"bad script":     {[]string{"broken"}, false, "start broken: fork/exec"},
	} {
		_, err := Start(context.Background(), Spec{Argv: c.argv, Env: []string{"PATH=" + dir}})
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrNotFound) != c.missing {
			t.Errorf("%s: error %v, want %q (missing: %v)", name, err, c.want, c.missing)
		}
	}
}

func TestFoundOnThePathOfEnv(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(self(t)[0], filepath.Join(dir, "vllm")); err != nil {
		t.Fatal(err)
	}
	_, out := run(t, Spec{Argv: []string{"vllm", "proc-helper", "echo", "hi"}, Env: []string{"PATH=/nonexistent:" + dir}})
	if len(out.all) != 1 || out.all[0] != "hi" {
		t.Errorf("printed %q, want hi", out.all)
	}
}

func TestChildSeesMarkAndKeepsItReadable(t *testing.T) {
	_, out := run(t, Spec{Argv: self(t, "env", MarkVar), Mark: "folder"})
	if !strings.HasPrefix(out.all[0], "folder.") {
		t.Errorf("mark %q, want folder.<unique>", out.all[0])
	}
	_, out = run(t, Spec{Argv: self(t, "env", "SPT_NOENV")})
	if out.all[0] != "1" {
		t.Errorf("SPT_NOENV = %q, want 1: setproctitle would overwrite the mark", out.all[0])
	}
}

func TestMuchOutput(t *testing.T) {
	var raw counter
	var n, bytes int
	exit, _ := run(t, Spec{Argv: self(t, "print", "100"), Stdout: &raw, Line: func(l Line) {
		n++
		bytes += len(l.Text) + 1
		if l.Number != n || len(l.Text) != 1023 {
			t.Fatalf("line %d has number %d and %d bytes", n, l.Number, len(l.Text))
		}
	}})
	if int(raw) != 100<<20 || bytes != 100<<20 {
		t.Errorf("raw %d, in lines %d bytes, want %d", raw, bytes, 100<<20)
	}
	if *exit.Code != 0 {
		t.Errorf("code %d", *exit.Code)
	}
}

func TestRawWriterFails(t *testing.T) {
	p, err := Start(context.Background(), Spec{Argv: self(t, "print", "10"), Stdout: fullDisk{}})
	if err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait()
	if !errors.Is(err, syscall.ENOSPC) || exit == nil || exit.Code == nil || *exit.Code != 0 {
		t.Errorf("exit %+v, error %v; want the program to end by itself and the full disk told", exit, err)
	}
}

func TestStop(t *testing.T) {
	for _, c := range []struct {
		helper string
		grace  time.Duration
		code   int
		signal string
	}{
		{"polite", 10 * time.Second, 7, ""},
		{"deaf", 200 * time.Millisecond, 0, "killed"},
		{"sleep", 10 * time.Second, 0, "terminated"},
	} {
		t.Run(c.helper, func(t *testing.T) {
			var out lines
			p, err := Start(context.Background(), Spec{Argv: self(t, c.helper), Grace: c.grace, Line: out.add})
			if err != nil {
				t.Fatal(err)
			}
			if c.helper != "sleep" {
				out.wait(t, "ready")
			}
			p.Stop("time limit of 1s")
			p.Stop("second reason")
			exit, err := p.Wait()
			if err != nil {
				t.Fatal(err)
			}
			if exit.Stopped != "time limit of 1s" {
				t.Errorf("stopped %q", exit.Stopped)
			}
			if c.signal == "" && (exit.Code == nil || *exit.Code != c.code) || exit.Signal != c.signal {
				t.Errorf("code %v signal %q, want %d %q", exit.Code, exit.Signal, c.code, c.signal)
			}
			if alive(p.PID()) {
				t.Error("still alive after Wait")
			}
		})
	}
}

func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	p, err := Start(ctx, Spec{Argv: self(t, "sleep")})
	if err != nil {
		t.Fatal(err)
	}
	cancel(errors.New("Ctrl-C"))
	exit, err := p.Wait()
	if err != nil || exit.Stopped != "Ctrl-C" || exit.Signal != "terminated" {
		t.Errorf("exit %+v, %v", exit, err)
	}
	if _, err := Start(ctx, Spec{Argv: self(t, "sleep")}); err == nil || !strings.Contains(err.Error(), "Ctrl-C") {
		t.Errorf("Start after the end: %v", err)
	}
}

func TestKillAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	kill, now := context.WithCancelCause(context.Background())
	var out lines
	p, err := Start(WithKill(ctx, kill), Spec{Argv: self(t, "deaf"), Grace: time.Hour, Line: out.add})
	if err != nil {
		t.Fatal(err)
	}
	out.wait(t, "ready")
	cancel()
	now(errors.New("second Ctrl-C"))
	exit, err := p.Wait()
	if err != nil || exit.Signal != "killed" {
		t.Errorf("exit %+v, %v", exit, err)
	}
}

// TestNothingIsLeft is the point of the package: whatever a program's children
// do, none of them lives after Wait, and each is named.
func TestNothingIsLeft(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		how  []string // any of these
		kids int
	}{
		"child in the group":       {[]string{"spawn", "", "sleep"}, []string{howGroup}, 1},
		"child deaf to SIGTERM":    {[]string{"spawn", "", "deaf"}, []string{howGroup}, 1},
		"child holds the pipes":    {[]string{"spawn", "out", "sleep"}, []string{howGroup}, 1},
		"setpgid":                  {[]string{"spawn", "setpgid", "sleep"}, nil, 1},
		"setsid":                   {[]string{"spawn", "setsid", "deaf"}, nil, 1},
		"setsid, holds the pipes":  {[]string{"spawn", "setsid,out", "deaf"}, nil, 1},
		"double fork":              {[]string{"spawn", "setsid", "spawn", "setsid", "sleep"}, nil, 1},
		"double fork, no mark":     {[]string{"spawn", "setsid,out", "spawn", "setsid,noenv,out", "deaf"}, nil, 1},
		"no mark, holds the pipes": {[]string{"spawn", "setsid,noenv,out", "sleep"}, nil, 1},
		"parent killed":            {[]string{"spawn-dead", "setsid", "deaf"}, nil, 1},
		"a chain of them":          {[]string{"bomb"}, nil, -1},
	} {
		for _, bare := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, no cgroup: %v", name, bare), func(t *testing.T) {
				mark := "test-" + strings.ReplaceAll(name, " ", "-")
				exit, out := run(t, Spec{Argv: self(t, c.args...), Mark: mark, NoCgroup: bare, Settle: 100 * time.Millisecond, Grace: 300 * time.Millisecond})
				for _, l := range out.all {
					if pid, ok := strings.CutPrefix(l, "child "); ok {
						if n, _ := strconv.Atoi(pid); alive(n) {
							t.Errorf("child %d lives", n)
						}
					}
				}
				if found, err := proctest.Marked(mark); err != nil || len(found) != 0 {
					t.Errorf("marked processes left: %+v, %v", found, err)
				}
				if len(exit.Leftovers) < c.kids { // on a busy machine the one in between may still be there, too
					t.Errorf("leftovers %+v, want %d", exit.Leftovers, c.kids)
				}
				for _, l := range exit.Leftovers {
					if l.Left || l.PID == 0 || l.Name == "" || (c.how != nil && !slices.Contains(c.how, l.How)) {
						t.Errorf("leftover %+v, want it named, found by %v", l, c.how)
					}
				}
			})
		}
	}
}

func TestStopEndsWhoLeftTheGroup(t *testing.T) {
	var out lines
	p, err := Start(context.Background(), Spec{Argv: self(t, "spawn-stay", "setsid,out", "deaf"), Grace: 300 * time.Millisecond, Line: out.add})
	if err != nil {
		t.Fatal(err)
	}
	child, _ := strconv.Atoi(strings.TrimPrefix(out.wait(t, "child "), "child "))
	out.wait(t, "ready")
	time.Sleep(50 * time.Millisecond)
	tree := p.Tree()
	for range 100 {
		if slices.Contains(tree, child) {
			break
		}
		time.Sleep(10 * time.Millisecond)
		tree = p.Tree()
	}
	if !slices.Contains(tree, child) || !slices.Contains(tree, p.PID()) {
		t.Errorf("tree %v lacks %d or %d", tree, child, p.PID())
	}
	p.Stop("enough")
	exit, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if alive(child) || len(exit.Leftovers) != 1 || exit.Leftovers[0].PID != child {
		t.Errorf("child %d alive %v, leftovers %+v", child, alive(child), exit.Leftovers)
	}
}

func TestQuickChildrenAreNoLeftovers(t *testing.T) {
	exit, _ := run(t, Spec{Argv: self(t, "spawn", "", "exit", "0")})
	if len(exit.Leftovers) != 0 {
		t.Errorf("leftovers %+v: a child that ends by itself is none", exit.Leftovers)
	}
}

// TestOthersAreNotTouched: a process of another run and one of nobody's, both
// children of this very process, live on.
func TestOthersAreNotTouched(t *testing.T) {
	other, err := Start(context.Background(), Spec{Argv: self(t, "sleep"), Mark: "other"})
	if err != nil {
		t.Fatal(err)
	}
	nobody := exec.Command(self(t)[0], "proc-helper", "sleep")
	if err := nobody.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { nobody.Process.Kill(); nobody.Wait() }()
	run(t, Spec{Argv: self(t, "spawn", "setsid", "sleep"), Settle: 50 * time.Millisecond, Grace: time.Second})
	if !alive(other.PID()) || !alive(nobody.Process.Pid) {
		t.Errorf("other run alive: %v, unmarked child alive: %v; want both", alive(other.PID()), alive(nobody.Process.Pid))
	}
	other.Stop("end")
	other.Wait()
}

func TestEndMarkedAfterAKilledRunner(t *testing.T) {
	dir := t.TempDir()
	mark, err := FolderMark(dir)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for range 3 { // as a killed runner leaves them: marked, nobody's children
		c := exec.Command(self(t)[0], "proc-helper", "deaf")
		c.Env = append(os.Environ(), MarkVar+"="+uniqueMark(mark))
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		go c.Wait()
		pids = append(pids, c.Process.Pid)
	}
	if other, err := EndMarked(context.Background(), "", mark[:8], time.Second); err != nil || len(other) != 0 {
		t.Errorf("part of a mark ended %+v, %v", other, err)
	}
	ended, err := EndMarked(context.Background(), "", mark, 50*time.Millisecond)
	if err != nil || len(ended) != 3 {
		t.Errorf("ended %+v, %v; want 3", ended, err)
	}
	for i, pid := range pids {
		if alive(pid) || ended[i].Left {
			t.Errorf("process %d lives", pid)
		}
	}
	if _, err := EndMarked(context.Background(), "", "", 0); err == nil {
		t.Error("an empty mark would end everything: want an error")
	}
}

func TestFolderMark(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	a, err := FolderMark(dir)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := FolderMark(link); err != nil || a != b {
		t.Errorf("%q by its link %q, %v", a, b, err)
	}
	if c, err := FolderMark(t.TempDir()); err != nil || a == c {
		t.Errorf("two folders are %q, %v", c, err)
	}
	if _, err := FolderMark(filepath.Join(dir, "missing")); err == nil {
		t.Error("a missing folder has a mark")
	}
}

func TestStdin(t *testing.T) {
	p, err := Start(context.Background(), Spec{Argv: self(t, "exit", "0"), Stdin: neverEnds{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Errorf("a program that ends before its input: %v", err)
	}
}

type neverEnds struct{}

func (neverEnds) Read([]byte) (int, error) { time.Sleep(time.Hour); return 0, io.EOF }

// TestManyWild is the short form of `make chaos`: programs that die, hang, fork
// away or ignore signals, several at once.
func TestManyWild(t *testing.T) {
	n := 24
	if s := os.Getenv("VRAMSWEEP_CHAOS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	kinds := [][]string{
		{"exit", "1"}, {"spawn", "setsid,out", "deaf"}, {"spawn", "setsid", "spawn", "setsid,noenv", "deaf"},
		{"spawn-dead", "setsid", "deaf"}, {"deaf"}, {"spawn-stay", "setsid", "deaf"}, {"spawn-stay", "setpgid,out", "sleep"}, {"print", "2"},
	}
	sem := make(chan bool, 4)
	var wg sync.WaitGroup
	for i := range n {
		sem <- true
		wg.Go(func() {
			defer func() { <-sem }()
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(300))*time.Millisecond)
			defer cancel()
			p, err := Start(ctx, Spec{Argv: self(t, kinds[i%len(kinds)]...), Mark: "wild", Settle: 20 * time.Millisecond, Grace: 50 * time.Millisecond})
			if errors.Is(err, context.DeadlineExceeded) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := p.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if left, err := proctest.Marked("wild"); err != nil || len(left) != 0 {
		t.Errorf("left: %+v, %v", left, err)
	}
}

func BenchmarkStartWait(b *testing.B) {
	argv := self(b, "exit", "0")
	for b.Loop() {
		p, err := Start(context.Background(), Spec{Argv: argv})
		if err != nil {
			b.Fatal(err)
		}
		p.Wait()
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("4242 (a) b)) S 1 4242 4242 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 12 0 98765 1 2"))
	f.Add([]byte("1 (systemd) Z"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := parseStat(b)
		if ok && (e.pid <= 0 || e.state == 0) {
			t.Fatalf("%q gives %+v", b, e)
		}
	})
}

func TestParseStat(t *testing.T) {
	e, ok := parseStat([]byte("4242 (a) b)) S 7 4241 4240 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 12 0 98765 1 2\n"))
	want := entry{ident: ident{4242, 98765}, ppid: 7, pgrp: 4241, sid: 4240, state: 'S', threads: 12, name: "a) b)"}
	if !ok || e != want {
		t.Errorf("%+v, %v; want %+v", e, ok, want)
	}
	for state, dead := range map[byte]bool{'Z': true, 'S': false, 'D': false, 'X': true} {
		if (entry{state: state, threads: 1}).dead() != dead {
			t.Errorf("state %c: dead is %v", state, !dead)
		}
	}
	if (entry{state: 'Z', threads: 3}).dead() {
		t.Error("a process whose first thread has ended is not dead")
	}
}

func TestOwnCgroup(t *testing.T) {
	const v1 = "29 23 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
	for name, c := range map[string]struct{ self, mounts, want string }{
		"unified":     {"0::/user.slice/x.scope\n", "30 24 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/user.slice/x.scope"},
		"hybrid":      {"4:memory:/a\n0::/b\n", v1 + "31 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/unified/b"},
		"bind mount":  {"0::/docker/abc/job\n", "30 24 0:27 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/job"},
		"v1 only":     {"4:memory:/a\n", v1, ""},
		"not visible": {"0::/../other\n", "30 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", ""},
		"elsewhere":   {"0::/a\n", "30 24 0:27 /b /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", ""},
		"nothing":     {"", "", ""},
	} {
		if got, ok := ownCgroup([]byte(c.self), []byte(c.mounts)); got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q %v, want %q", name, got, ok, c.want)
		}
	}
}

// TestCPUs: a program uses the CPUs that it is given, and the threads of this
// process all of theirs.
func TestCPUs(t *testing.T) {
	allowed := func() string {
		b, err := os.ReadFile("/proc/thread-self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "Cpus_allowed_list:")
		line, _, _ := strings.Cut(rest, "\n")
		return strings.TrimSpace(line)
	}
	before := allowed()
	var out strings.Builder
	p, err := Start(context.Background(), Spec{Argv: []string{"grep", "Cpus_allowed_list", "/proc/self/status"},
		CPUs: []int{0}, Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil || strings.TrimSpace(strings.TrimPrefix(out.String(), "Cpus_allowed_list:")) != "0" {
		t.Errorf("%v: %q, want CPU 0", err, out.String())
	}
	if after := allowed(); after != before {
		t.Errorf("this process may use CPUs %s, before %s", after, before)
	}
	if _, err := Start(context.Background(), Spec{Argv: []string{"true"}, CPUs: []int{1000}}); err == nil {
		t.Error("a program was started on a CPU that is not there")
	}
}

// TestPause: a paused program stands still, and ends all the same.
func TestPause(t *testing.T) {
	p, err := Start(context.Background(), Spec{Argv: []string{"sleep", "60"}})
	if err != nil {
		t.Fatal(err)
	}
	state := func(want byte) bool {
		for range 500 {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
			if at := bytes.LastIndexByte(b, ')'); err == nil && len(b) > at+2 && b[at+2] == want {
				return true
			}
			time.Sleep(10 * time.Millisecond)
		}
		return false
	}
	p.Pause()
	if !state('T') {
		t.Error("it goes on after Pause")
	}
	p.Resume()
	if !state('S') {
		t.Error("it stands still after Resume")
	}
	p.Pause()
	p.Kill("the test is over")
	if exit, err := p.Wait(); err != nil || exit.Signal != "killed" {
		t.Errorf("%+v %v", exit, err)
	}
}

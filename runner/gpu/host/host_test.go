package host

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/runner/runnertest"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

// fakeProcess writes what the sampler reads of a process.
func fakeProcess(t testing.TB, root string, pid int, rssPages, pssKiB, ticks int64) {
	t.Helper()
	dir := strconv.Itoa(pid)
	put(t, fmt.Sprintf("100000 %d 300 1 0 500 0\n", rssPages), root, dir, "statm")
	put(t, fmt.Sprintf("%d (a) b (c) S 1 %d %d 0 -1 4194304 1 0 0 0 %d %d 0 0 20 0 1 0 12345 1 1\n", pid, pid, pid, ticks, ticks), root, dir, "stat")
	put(t, fmt.Sprintf("00400000-7fff0000 ---p 00000000 00:00 0 [rollup]\nRss: 999 kB\nPss:             %d kB\nPss_Dirty: 1 kB\n", pssKiB), root, dir, "smaps_rollup")
}

func TestProcSampler(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	put(t, "", root, "self", "stat")
	fakeProcess(t, root, 100, 1000, 2000, 50)
	fakeProcess(t, root, 101, 500, 700, 10)
	r, err := sampling.Run{Interval: 10 * time.Millisecond}.Check()
	if err != nil {
		t.Fatal(err)
	}
	started := false // the engine's processes are not known when the sampler starts
	calls := 0
	tr := sampling.NewTree(func() []int {
		if calls++; calls < 3 {
			return nil
		}
		started = true
		return []int{100, 101}
	})
	var pss, cpu bool
	c, rep, err := runnertest.Collect(t, sampling.NewSampler(r, []sampling.Source{New(root, r, tr)}), func(c *runnertest.Collector) bool {
		s := c.Samples[len(c.Samples)-1]
		pss = pss || s.Has&runner.HasHostPSS != 0
		cpu = cpu || s.Has&runner.HasHostCPU != 0
		return pss && cpu
	})
	if err != nil {
		t.Fatal(err)
	}
	if !started || len(c.Samples) == 0 {
		t.Fatal("no samples")
	}
	page := int64(os.Getpagesize())
	for _, s := range c.Samples {
		if s.GPU != runner.HostGPU || s.HostRSS != 1500*page || s.Source != sampling.SourceProc {
			t.Fatalf("sample %+v", s)
		}
		if s.Has&runner.HasHostPSS != 0 && s.HostPSS != 2700<<10 {
			t.Fatalf("PSS %d", s.HostPSS)
		}
	}
	if rep.Name != sampling.SourceProc {
		t.Errorf("report %+v", rep)
	}
}

// TestProcSamplerOfItself reads this very process from the real /proc.
func TestProcSamplerOfItself(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		testenv.Skip(t, "no /proc")
	}
	r, err := sampling.Run{Interval: 10 * time.Millisecond}.Check()
	if err != nil {
		t.Fatal(err)
	}
	ballast := make([]byte, 64<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	pid := os.Getpid()
	c, _, err := runnertest.Collect(t, sampling.NewSampler(r, []sampling.Source{New("/proc", r, sampling.NewTree(func() []int { return []int{pid} }))}), runnertest.Ticks(3))
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Samples[0]; s.HostRSS < 64<<20 || s.HostRSS > 8<<30 {
		t.Errorf("this process of over 64 MiB has %d bytes", s.HostRSS)
	}
	_ = ballast[len(ballast)-1]
}

// TestProcSamplerFollowsExec reads a process before and after its exec: the file
// that was opened before is dead then.
func TestProcSamplerFollowsExec(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/bin/sh", "-c", "read x; exec sleep 60")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		testenv.Skip(t, "%v", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	pid := cmd.Process.Pid
	s := newSource("/proc", sampling.Run{Interval: sampling.MinInterval}, sampling.NewTree(func() []int { return []int{pid} }))
	m := sampling.NewMeter(sampling.MinInterval, time.Now(), func([]runner.Sample) {})
	read := func() runner.Sample {
		s.pssDue = time.Time{}
		var smp runner.Sample
		s.read(&smp, time.Now(), m)
		return smp
	}
	defer s.closeAll()
	if before := read(); before.Has&runner.HasHostPSS == 0 || before.HostPSS == 0 {
		t.Skipf("this kernel tells no PSS: %+v", before)
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm")); string(b) == "sleep\n" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if after := read(); after.HostPSS == 0 || after.HostRSS == 0 {
		t.Errorf("after the exec: %+v", after)
	}
}

func TestProcSamplerEnds(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	put(t, "", root, "self", "stat")
	fakeProcess(t, root, 100, 1000, 2000, 50)
	alive := true
	r, err := sampling.Run{Interval: 10 * time.Millisecond}.Check()
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := runnertest.Collect(t, sampling.NewSampler(r, []sampling.Source{New(root, r, sampling.NewTree(func() []int {
		if alive {
			return []int{100}
		}
		return nil
	}))}), func(c *runnertest.Collector) bool {
		alive = false
		return c.Samples[len(c.Samples)-1].HostRSS == 0
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Samples[len(c.Samples)-1]; s.Has&runner.HasHostRSS == 0 {
		t.Error("an ended tree is 0 bytes, not missing")
	}
}

func TestStatCPU(t *testing.T) {
	ticks, ok := statCPU([]byte("4711 (evil) name (x) R 1 2 3 0 -1 4194304 1 0 0 0 70 30 0 0 20 0 1 0 12345 1 1"))
	if !ok || ticks != 100 {
		t.Errorf("%d %v", ticks, ok)
	}
	for _, bad := range []string{"", "(", "x (a) S", "1 (a)", "1 (a) S 1 2"} {
		if _, ok := statCPU([]byte(bad)); ok {
			t.Errorf("%q was read", bad)
		}
	}
}

func FuzzStatCPU(f *testing.F) {
	f.Add("4711 (evil) name (x) R 1 2 3 0 -1 4194304 1 0 0 0 70 30 0 0 20 0 1 0 12345 1 1")
	f.Fuzz(func(t *testing.T, text string) {
		if _, ok := statCPU([]byte(text)); ok && !strings.Contains(text, ")") {
			t.Errorf("%q was read", text)
		}
	})
}

// TestConformance holds the sampler of this process against what every sampler
// promises.
func TestConformance(t *testing.T) {
	runnertest.Sampler(t, func(t *testing.T) runner.Sampler {
		r, err := sampling.Run{Interval: 10 * time.Millisecond}.Check()
		if err != nil {
			t.Fatal(err)
		}
		tree := sampling.NewTree(func() []int { return []int{os.Getpid()} })
		return sampling.NewSampler(r, []sampling.Source{New("/proc", r, tree)})
	})
}

// put writes a file of a fake /proc.
func put(t testing.TB, text string, elem ...string) {
	t.Helper()
	name := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

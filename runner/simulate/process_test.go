package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// A started is the simulated vllm as a process.
type started struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	device         *Device
	result         string
}

// start starts the simulated vllm as the runner does, in a group of its own.
func start(t *testing.T, c *Config, args ...string) *started {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	gpu, err := FindGPU("")
	if err != nil {
		t.Fatal(err)
	}
	s := &started{result: filepath.Join(dir, "latency.json")}
	if s.device, err = NewDevice(filepath.Join(dir, "state"), gpu, 2); err != nil {
		t.Fatal(err)
	}
	c.Reexec, c.StateDir, c.GPUCount = []string{self, "simulate-vllm", "--"}, s.device.Dir, 2
	entry, err := c.environment()
	if err != nil {
		t.Fatal(err)
	}
	argv := append([]string{
		"simulate-vllm", "--", "bench", "latency", "--model", "meta-llama/Llama-3.1-8B-Instruct", "--load-format", "dummy",
		"--input-len", "512", "--output-len", "32", "--num-iters", "5", "--num-iters-warmup", "2", "--max-model-len", "8192",
		"--output-json", s.result,
	}, args...)
	s.cmd = exec.Command(self, argv...)
	s.cmd.Env = append(os.Environ(), entry, "VRAMSWEEP_RUN=test-"+t.Name())
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.Stdout, s.cmd.Stderr = &s.stdout, &s.stderr
	s.cmd.WaitDelay = 5 * time.Second // children that outlive it hold the pipes
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // mostly gone already
		s.endStrays(t)
	})
	return s
}

// endStrays ends what has left the group and still holds memory, which is only
// ever a process of the test's own state directory.
func (s *started) endStrays(t *testing.T) {
	held, err := s.device.holdings()
	if err != nil {
		t.Error(err)
	}
	for _, h := range held {
		if s.device.living(h) && int(h.PID) != os.Getpid() {
			_ = syscall.Kill(int(h.PID), syscall.SIGKILL)
		}
	}
}

// wait waits for the end and returns the exit code, -1 for a signal.
func (s *started) wait(t *testing.T) int {
	t.Helper()
	err := s.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatal(err)
	}
	return s.cmd.ProcessState.ExitCode()
}

// used is what GPU 0 holds.
func (s *started) used(t *testing.T) int64 {
	t.Helper()
	devices, err := s.device.Devices(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return *devices[0].UsedBytes
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// record samples a device while a process runs.
func record(t *testing.T, d *Device) (stop func() []runner.Sample) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var samples []runner.Sample
	var group sync.WaitGroup
	group.Go(func() {
		s := &Sampler{Device: d, Interval: 5 * time.Millisecond}
		if _, err := s.Sample(ctx, func(s []runner.Sample) { samples = append(samples, s...) }); err != nil {
			t.Error(err)
		}
	})
	return func() []runner.Sample {
		cancel()
		group.Wait()
		return samples
	}
}

// TestProcess runs the simulated vllm as a process, on one GPU and on two, and
// looks at it as the runner does.
func TestProcess(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		gpus int
		args []string
	}{{"one GPU", 1, nil}, {"two GPUs", 2, []string{"-tp", "2"}}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t, "", "")
			s := start(t, c, test.args...)
			stop := record(t, s.device)
			if code := s.wait(t); code != 0 {
				t.Fatalf("exit code %d\n%s\n%s", code, &s.stdout, &s.stderr)
			}
			if used := s.used(t); used != 0 {
				t.Errorf("%d bytes are held although the process has been waited for", used)
			}
			samples := stop()
			quiet := testConfig(t, "", "")
			truth := scriptOf(quiet, testRequest(t, quiet, test.args...), nil, nil)
			for gpu := range 2 {
				highest, energy := int64(0), 0.0
				for _, x := range samples {
					if int(x.GPU) != gpu {
						continue
					}
					highest = max(highest, x.MemoryUsed)
					if x.Energy < energy {
						t.Errorf("GPU %d: the energy counter fell from %g to %g J after %v", gpu, energy, x.Energy, x.Offset)
					}
					energy = x.Energy
				}
				want := int64(0)
				if gpu < test.gpus {
					want = truth.figures.memory[gpu].highest()
				}
				if highest != want {
					t.Errorf("GPU %d: the highest sample is %d, want %d", gpu, highest, want)
				}
			}
			checkResultFile(t, s.result, truth)
			if files, err := os.ReadDir(s.device.Dir); err != nil || len(files) > 0 {
				t.Errorf("files are left in the state directory: %v %v", files, err)
			}
		})
	}
}

// checkResultFile compares the result file with the truth.
func checkResultFile(t *testing.T, path string, truth *script) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Avg         float64            `json:"avg_latency"`
		Latencies   []float64          `json:"latencies"`
		Percentiles map[string]float64 `json:"percentiles"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	same := slices.Equal(file.Latencies, truth.figures.latencies) && len(file.Latencies) == 5
	if !same || len(file.Percentiles) != 6 || file.Avg <= 0 {
		t.Errorf("result file %s does not hold the latencies %v", data, truth.figures.latencies)
	}
}

// TestMemoryReturns kills the process in different ways at different moments:
// what it held is free a moment later.
func TestMemoryReturns(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		end  func(s *started) error
		args []string
	}{
		{"SIGKILL", func(s *started) error { return s.cmd.Process.Kill() }, nil},
		{"SIGKILL of two ranks", func(s *started) error { return s.cmd.Process.Kill() }, []string{"-tp", "2"}},
		{"SIGTERM", func(s *started) error { return s.cmd.Process.Signal(syscall.SIGTERM) }, nil},
		{"SIGINT to the group", func(s *started) error { return syscall.Kill(-s.cmd.Process.Pid, syscall.SIGINT) }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, testConfig(t, "", ""), test.args...)
			eventually(t, "memory is held", func() bool { return s.used(t) > 10<<30 })
			if err := test.end(s); err != nil {
				t.Fatal(err)
			}
			if code := s.wait(t); code == 0 {
				t.Error("it ended with 0")
			}
			eventually(t, "memory is free", func() bool { return s.used(t) == 0 })
		})
	}
}

// TestDeterminism runs the same twice: only process ids and times differ.
func TestDeterminism(t *testing.T) {
	c := testConfig(t, "", "")
	c.Noise = 0.02
	one, _ := rendered(scriptOf(c, testRequest(t, c), nil, nil))
	two, _ := rendered(scriptOf(c, testRequest(t, c), nil, nil))
	if !bytes.Equal(one, two) {
		t.Error("the same seed gave two logs")
	}
	other := testConfig(t, "", "")
	other.Noise, other.Seed = 0.02, 2
	three, _ := rendered(scriptOf(other, testRequest(t, other), nil, nil))
	if bytes.Equal(one, three) {
		t.Error("another seed gave the same log")
	}
	repeat := testConfig(t, "", "")
	repeat.Noise, repeat.Repeat = 0.02, 2
	four, _ := rendered(scriptOf(repeat, testRequest(t, repeat), nil, nil))
	if bytes.Equal(one, four) {
		t.Error("another repeat gave the same log")
	}
}

// TestForeignMemory holds memory before the start: the free memory check fails
// as vLLM's does.
func TestForeignMemory(t *testing.T) {
	t.Parallel()
	c := testConfig(t, "", "")
	dir := t.TempDir()
	gpu, err := FindGPU("")
	if err != nil {
		t.Fatal(err)
	}
	device, err := NewDevice(filepath.Join(dir, "state"), gpu, 1)
	if err != nil {
		t.Fatal(err)
	}
	release, err := holdAs(device, 0, 30<<30, "somebody")
	if err != nil {
		t.Fatal(err)
	}
	detail, err := device.Inspect(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	listed := detail.GPUs[0].Processes
	if len(listed) != 1 || listed[0].PID != os.Getpid() || listed[0].MemoryUsage.Value != 30*1024 {
		t.Errorf("the holder is not listed: %+v", listed)
	}
	r := testRequest(t, c)
	s := scriptOf(c, r, nil, device.heldByOthers([]int{0}))
	if s.fail == nil || !strings.Contains(s.fail.text, "less than desired GPU memory utilization") {
		t.Errorf("30 GiB are held and it failed with %+v", s.fail)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if held := device.heldByOthers([]int{0}); held[0] != 0 {
		t.Errorf("%d bytes are held after release", held[0])
	}
}

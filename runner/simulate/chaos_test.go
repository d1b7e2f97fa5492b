package simulate

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner/proc"
)

// countWriter counts bytes and lines.
type countWriter struct {
	bytes   int64
	longest int
	line    int
}

func (w *countWriter) Write(b []byte) (int, error) {
	w.bytes += int64(len(b))
	for _, c := range b {
		w.line++
		if c == '\n' {
			w.longest = max(w.longest, w.line)
			w.line = 0
		}
	}
	return len(b), nil
}

// A wild run is the simulated vllm under runner/proc.
type wild struct {
	device *Device
	result string
	stdout bytes.Buffer
	stderr bytes.Buffer
	count  countWriter
	exit   *proc.Exit
}

// runWild runs the simulated vllm with chaos under the supervision that the
// runner uses, and stops it when stop says so (nil: never).
func runWild(t *testing.T, c *Config, stop func(w *wild) bool) *wild {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	gpu, err := FindGPU("")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w := &wild{result: filepath.Join(dir, "latency.json")}
	if w.device, err = NewDevice(filepath.Join(dir, "state"), gpu, 2); err != nil {
		t.Fatal(err)
	}
	c.Reexec, c.StateDir, c.GPUCount, c.TimeScale = []string{self, "simulate-vllm", "--"}, w.device.Dir, 2, 400
	entry, err := c.environment()
	if err != nil {
		t.Fatal(err)
	}
	var out io.Writer = &w.stdout
	for _, chaos := range c.Plant.Chaos {
		if chaos.Do == "flood" || chaos.Do == "long_line" {
			out = &w.count
		}
	}
	p, err := proc.Start(context.Background(), proc.Spec{
		Argv: []string{
			self, "simulate-vllm", "--", "bench", "latency",
			"--model", "meta-llama/Llama-3.1-8B-Instruct", "--load-format", "dummy",
			"--num-iters", "5", "--num-iters-warmup", "2", "--max-model-len", "8192", "--output-json", w.result,
		},
		Env: append(os.Environ(), entry), Dir: dir, Stdout: out, Stderr: &w.stderr,
		Grace: 300 * time.Millisecond, Settle: 300 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var waitErr error
		if w.exit, waitErr = p.Wait(); waitErr != nil {
			t.Error(waitErr)
		}
	}()
	if stop != nil {
		eventually(t, "the moment to stop it", func() bool {
			select {
			case <-done:
				return true
			default:
			}
			return stop(w)
		})
		p.Stop("test")
	}
	<-done
	return w
}

// used is what GPU 0 holds.
func (w *wild) used(t *testing.T) int64 {
	t.Helper()
	devices, err := w.device.Devices(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return *devices[0].UsedBytes
}

// holding reports that the process has come so far as to hold memory.
func holdsMemory(t *testing.T) func(*wild) bool {
	return func(w *wild) bool { return w.used(t) > 1<<30 }
}

// TestChaos shows each misbehaviour to the supervision of the runner: it does
// what it says, and nothing is left. Those that leave processes behind run
// alone: each supervision takes all that is re-parented to this process.
func TestChaos(t *testing.T) {
	signaled := func(name string) func(*testing.T, *wild) {
		return func(t *testing.T, w *wild) {
			if w.exit.Signal != name {
				t.Errorf("it ended by %q (code %v), want signal %q", w.exit.Signal, deref(w.exit.Code), name)
			}
		}
	}
	code := func(want int) func(*testing.T, *wild) {
		return func(t *testing.T, w *wild) {
			if w.exit.Code == nil || *w.exit.Code != want {
				t.Errorf("it ended with %v (signal %q), want %d\n%s", deref(w.exit.Code), w.exit.Signal, want, &w.stderr)
			}
		}
	}
	leftover := func(t *testing.T, w *wild) {
		code(0)(t, w)
		if len(w.exit.Leftovers) == 0 {
			t.Error("nothing outlived it")
		}
	}
	for _, test := range []struct {
		name  string
		chaos []Chaos
		stop  bool
		check func(*testing.T, *wild)
	}{
		{"ignore_sigterm", []Chaos{{Do: "ignore_sigterm"}, {Do: "hang", At: "load"}}, true, signaled("killed")},
		{"hang", []Chaos{{Do: "hang", At: "load"}}, true, nil},
		{"hang_busy", []Chaos{{Do: "hang_busy", At: "measure"}}, true, nil},
		{"die", []Chaos{{Do: "die"}}, false, signaled("killed")},
		{"die of SIGSEGV", []Chaos{{Do: "die", At: "capture", Signal: "SIGABRT"}}, false, nil},
		{"kill_worker", []Chaos{{Do: "kill_worker", At: "load"}}, false, code(1)},
		{"exit", []Chaos{{Do: "exit", Code: 7, At: "engine_init"}}, false, code(7)},
		{"setsid", []Chaos{{Do: "setsid"}}, false, leftover},
		{"double_fork", []Chaos{{Do: "double_fork"}}, false, leftover},
		{"orphans", []Chaos{{Do: "orphans"}}, false, leftover},
		{"orphans of a killed one", []Chaos{{Do: "orphans"}, {Do: "ignore_sigterm"}, {Do: "die", At: "kv_alloc"}}, false,
			signaled("killed")},
		{"silent", []Chaos{{Do: "silent"}}, false, func(t *testing.T, w *wild) {
			code(0)(t, w)
			if w.stdout.Len()+w.stderr.Len() > 0 {
				t.Errorf("it said %q %q", &w.stdout, &w.stderr)
			}
		}},
		{"flood", []Chaos{{Do: "flood", Bytes: 5 << 20}}, false, func(t *testing.T, w *wild) {
			if w.count.bytes < 5<<20 {
				t.Errorf("%d bytes", w.count.bytes)
			}
		}},
		{"long_line", []Chaos{{Do: "long_line", Bytes: 3 << 20}}, false, func(t *testing.T, w *wild) {
			if w.count.longest < 3<<20 {
				t.Errorf("the longest line has %d bytes", w.count.longest)
			}
		}},
		{"garbage", []Chaos{{Do: "garbage"}}, false, code(0)},
		{"no_result", []Chaos{{Do: "no_result"}}, false, fileIs(code(0), -1)},
		{"empty_result", []Chaos{{Do: "empty_result"}}, false, fileIs(code(0), 0)},
		{"broken_result", []Chaos{{Do: "broken_result"}}, false, fileIs(code(0), 1)},
		{"fifo_result", []Chaos{{Do: "fifo_result"}}, false, func(t *testing.T, w *wild) {
			info, err := os.Stat(w.result)
			if err != nil || info.Mode()&os.ModeNamedPipe == 0 {
				t.Errorf("the result file is no FIFO: %v %v", info, err)
			}
		}},
		{"slow", []Chaos{{Do: "slow", For: Duration(700 * time.Millisecond)}}, false, func(t *testing.T, w *wild) {
			if took := w.exit.EndedAt.Sub(w.exit.StartedAt); took < 900*time.Millisecond {
				t.Errorf("it took %v", took)
			}
		}},
		{"fail_port", []Chaos{{Do: "fail_port"}}, false, code(1)},
	} {
		alone := slices.Contains([]string{"setsid", "double_fork", "orphans"}, test.chaos[0].Do)
		t.Run(test.name, func(t *testing.T) {
			if !alone {
				t.Parallel()
			}
			c := testConfig(t, "", "")
			c.Plant.Chaos = test.chaos
			var stop func(*wild) bool
			if test.stop {
				stop = holdsMemory(t)
			}
			w := runWild(t, c, stop)
			if test.check != nil {
				test.check(t, w)
			}
			if test.stop && w.exit.Stopped != "test" {
				t.Errorf("it was not stopped: %+v\n%s", w.exit, &w.stderr)
			}
			for _, l := range w.exit.Leftovers {
				if l.Left {
					t.Errorf("process %d (%s) could not be ended", l.PID, l.Name)
				}
			}
			eventually(t, "memory is free", func() bool { return w.used(t) == 0 })
		})
	}
}

// fileIs checks the result file's state: -1 missing, 0 empty, 1 something.
func fileIs(also func(*testing.T, *wild), want int) func(*testing.T, *wild) {
	return func(t *testing.T, w *wild) {
		also(t, w)
		data, err := os.ReadFile(w.result)
		got := -1
		if err == nil {
			got = min(len(data), 1)
		}
		if got != want {
			t.Errorf("result file: %d (%v), want %d", got, err, want)
		}
	}
}

// TestLinger: the driver gives the memory back late.
func TestLinger(t *testing.T) {
	t.Parallel()
	c := testConfig(t, "", "")
	c.Plant.Chaos = []Chaos{{Do: "linger", For: Duration(400 * time.Millisecond)}, {Do: "die", At: "measure"}}
	w := runWild(t, c, nil)
	if w.used(t) < 10<<30 {
		t.Error("the memory was back at once")
	}
	eventually(t, "memory is free", func() bool { return w.used(t) == 0 })
}

// TestForeignProcess: somebody else's process holds memory, is not ended with
// the run, and ends by itself.
func TestForeignProcess(t *testing.T) {
	t.Parallel()
	c := testConfig(t, "", "")
	c.Plant.Chaos = []Chaos{{Do: "foreign_process", At: "engine_init", For: Duration(2500 * time.Millisecond)}}
	w := runWild(t, c, nil)
	held, err := w.device.holdings()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range held {
		if h.Foreign == 1 && w.device.living(h) && h.Bytes != 10<<30 {
			t.Errorf("the foreign process holds %d bytes", h.Bytes)
		}
	}
	eventually(t, "memory is free", func() bool { return w.used(t) == 0 })
}

// TestAttempts: the first two starts fail, the third goes well.
func TestAttempts(t *testing.T) {
	dir := t.TempDir()
	for i, want := range []string{"fails", "fails", "goes well", "goes well"} {
		c := testConfig(t, "", "")
		c.StateDir = dir
		c.Plant.Chaos = []Chaos{{Do: "fail_port", Attempts: 2}}
		s := scriptOf(c, testRequest(t, c), nil, nil)
		got := "goes well"
		if s.fail != nil {
			got = "fails"
		}
		if got != want {
			t.Errorf("start %d %s, want %s", i+1, got, want)
		}
	}
}

// TestShare: about the share of the runs misbehave, the same ones each time.
func TestShare(t *testing.T) {
	failed := 0
	r := testRequest(t, testConfig(t, "", ""))
	for repeat := range 400 {
		c := testConfig(t, "", "")
		c.Repeat = repeat
		c.Plant.Chaos = []Chaos{{Do: "fail_port", Share: 0.25}}
		c.chooseChaos(r)
		if c.does("fail_port", "") != nil {
			failed++
		}
	}
	if failed < 70 || failed > 130 {
		t.Errorf("%d of 400 runs failed, want about 100", failed)
	}
}

// TestHoldVerb: a child ends when its parent does, when it is told to, or in time.
func TestHoldVerb(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	read, write := io.Pipe()
	if code := hold(ctx, nil, nil, read); code != 143 {
		t.Errorf("code %d when told to end, want 143", code)
	}
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	if code := hold(context.Background(), nil, nil, read); code != 0 {
		t.Errorf("code %d when its input ended, want 0", code)
	}
	if code := hold(context.Background(), []string{"orphan", "for=10ms"}, nil, read); code != 0 {
		t.Errorf("code %d after its time, want 0", code)
	}
	if code := hold(context.Background(), []string{"/nowhere", "x", "1GiB", "n"}, nil, strings.NewReader("")); code != 1 {
		t.Errorf("code %d without a GPU, want 1", code)
	}
}

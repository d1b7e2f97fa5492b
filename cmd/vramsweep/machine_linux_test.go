package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks"
)

// TestClockSet runs sweeps whose wall clock is set back and forth by hours at
// every look: durations and offsets come from the monotonic clock, nothing is
// lost, and the folder is whole.
func TestClockSet(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	for _, mode := range []string{"latency", "session"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			w := &world{env: withoutFakes(), dir: dir, self: buildProgram(t), stdout: io.Discard, stderr: io.Discard}
			plan, err := w.load(writeSweep(t, dir, fmt.Sprintf(killSweep, 3, mode)), &inputFlags{}, false)
			if err != nil {
				t.Fatal(err)
			}
			var looks atomic.Int64
			jumping := func() time.Time {
				n := looks.Add(1)
				return time.Now().Add(time.Duration(n%3-1) * 5 * time.Hour)
			}
			for resumed := range 2 {
				store, err := sinks.Open(filepath.Join(dir, "out"), sinks.Options{Now: jumping})
				if err != nil {
					t.Fatal(err)
				}
				rig, err := w.newRig(plan, store, nil, &part{})
				if err != nil {
					t.Fatal(err)
				}
				r := rig.runner(nil)
				r.Now = jumping
				sum, err := r.Run(context.Background(), plan, runner.Options{Resume: true, ResumeOnly: true})
				if err != nil || sum.OK != 2 || sum.AlreadyDone != (resumed == 1) {
					t.Fatalf("go %d: %+v, %v", resumed, sum, err)
				}
				if err := rig.close(); err != nil {
					t.Error(err)
				}
				if err := store.Close(); err != nil {
					t.Error(err)
				}
			}
			if looks.Load() < 4 {
				t.Errorf("the clock was looked at %d times: this tests nothing", looks.Load())
			}
			checkFolder(t, dir, 2, func(r *runner.Result) bool {
				return r.Run.Outcome == runner.OutcomeOK && r.Run.WallS > 0 && r.Run.WallS < 300
			})
			checkOffsets(t, filepath.Join(dir, "out"))
		})
	}
}

// checkOffsets checks that each GPU's samples go forward, without a jump.
func checkOffsets(t *testing.T, out string) {
	t.Helper()
	type key struct {
		run string
		gpu int32
	}
	last := map[key]int64{}
	for row, err := range sinks.Read[sinks.TimelineRow](sinks.Predicate{}, out) {
		if err != nil {
			t.Fatal(err)
		}
		k := key{row.RunID, -1}
		if row.GPUIndex != nil {
			k.gpu = *row.GPUIndex
		}
		if before, ok := last[k]; ok && (row.TOffsetUS < before ||
			row.TOffsetUS > before+int64(time.Minute/time.Microsecond)) {
			t.Errorf("%s, GPU %d: a sample at %d us follows one at %d us", k.run, k.gpu, row.TOffsetUS, before)
		}
		last[k] = row.TOffsetUS
	}
	if len(last) == 0 {
		t.Error("no samples")
	}
}

// TestReadOnlyFolder: a folder that cannot be written is said at once, with exit
// code 1, and what is finished in it stays and can be read.
func TestReadOnlyFolder(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	if !*fullChaos {
		t.Parallel()
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	bin, file := buildProgram(t), writeSweep(t, dir, fmt.Sprintf(killSweep, 2, "session"))
	args := []string{"run", "--resume", "--brief", "--output-dir", "out", file}
	cmd, text := start(t, bin, dir, args...)
	if code := exitCode(cmd.Wait()); code != exitOK {
		t.Fatalf("exit code %d\n%s", code, text)
	}
	readOnly(t, out)
	cmd, text = start(t, bin, dir, args...)
	if code := exitCode(cmd.Wait()); code != exitFault || !strings.Contains(text.String(), "--output-dir") &&
		!strings.Contains(text.String(), "output { dir") {
		t.Errorf("exit code %d, want %d and the next step\n%s", code, exitFault, text)
	}
	for _, verb := range []string{"verify", "report"} {
		cmd, text := start(t, bin, dir, verb, "out")
		if code := exitCode(cmd.Wait()); verb == "verify" &&
			(code != exitOK || !strings.Contains(text.String(), "0 faults")) {
			t.Errorf("%s of a read-only folder: exit code %d\n%s", verb, code, text)
		}
	}
}

// readOnly makes a folder read-only for this user: by a mount for root, whom
// permissions do not stop.
func readOnly(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if err := os.Chmod(dir, 0o555); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
		return
	}
	err := unix.Mount(dir, dir, "", unix.MS_BIND, "")
	if err == nil {
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		err = unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	if err != nil {
		t.Skipf("cannot make a folder read-only for root: %v", err)
	}
}

const residentSweep = `
sweep "resident" {
  matrix {
    model                = ["meta-llama/Llama-3.1-8B-Instruct"]
    tensor_parallel_size = [8]
    input_len            = [128]
    output_len           = [128]
    batch_size           = [1]
  }
  engine "simulator" {
    time_scale = 4
    num_iters  = 100
  }
  sample { interval = "10ms" }
}
`

// BenchmarkResident is the most memory that the program has while it samples 8
// GPUs at 10 ms for 40 s and writes the run: 64 MiB is its limit.
func BenchmarkResident(b *testing.B) {
	bin, err := buildOnce()
	if err != nil {
		b.Fatal(err)
	}
	for range b.N {
		dir := b.TempDir()
		file := filepath.Join(dir, "resident.hcl")
		if err := os.WriteFile(file, []byte(residentSweep), 0o644); err != nil {
			b.Fatal(err)
		}
		cmd := exec.Command(bin, "run", "--brief", "--output-dir", "out", file)
		cmd.Dir, cmd.Env = dir, withoutFakes()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		highest := 0
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for running := true; running; {
			select {
			case err := <-ended:
				if err != nil {
					b.Fatal(err)
				}
				running = false
			case <-time.After(50 * time.Millisecond):
				highest = max(highest, highWater(cmd.Process.Pid))
			}
		}
		b.ReportMetric(float64(highest)/1024, "peak-MiB")
	}
}

// highWater is VmHWM of a process in KiB; 0 where it has gone. What it starts is
// not in it.
func highWater(pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), "VmHWM:")
	kib := 0
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0
	}
	return kib
}

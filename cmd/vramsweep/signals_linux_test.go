package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks"
)

const deafSweep = `
variable "deaf" {
  type    = bool
  default = false
}
sweep "deaf" {
  matrix {
    model                = ["Qwen/Qwen3-0.6B"]
    tensor_parallel_size = [1]
    input_len            = [128]
    output_len           = [32]
    batch_size           = [1]
  }
  engine "simulator" {
    plant = { chaos = [for do in var.deaf ? ["ignore_sigterm", "hang"] : [] : { do = do, at = "measure" }] }
  }
  sample { interval = "20ms" }
}
`

// waitFor waits until something happened; only a test that hangs is ended.
func waitFor(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for range 6000 {
		if happened() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

// fileHas reports whether a file of the pattern holds text.
func fileHas(pattern, text string) func() bool {
	return func() bool {
		names, _ := filepath.Glob(pattern)
		return slices.ContainsFunc(names, func(name string) bool {
			b, err := os.ReadFile(name)
			return err == nil && strings.Contains(string(b), text)
		})
	}
}

// TestSignals: one signal ends the run cleanly although the engine is deaf, a
// second one at once; nothing is left, and a resume completes either.
func TestSignals(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	bin := buildProgram(t)
	for name, c := range map[string]struct {
		signals []os.Signal
		row     bool // a second signal comes before the deaf engine has ended, and nothing is written
	}{
		"SIGTERM":   {[]os.Signal{syscall.SIGTERM}, true},
		"SIGHUP":    {[]os.Signal{syscall.SIGHUP}, true},
		"two":       {[]os.Signal{os.Interrupt, os.Interrupt}, false},
		"two kinds": {[]os.Signal{syscall.SIGHUP, syscall.SIGTERM}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := writeSweep(t, dir, deafSweep)
			args := []string{"run", "--resume", "--brief", "--output-dir", "out", file}
			cmd, out := start(t, bin, dir, append(args, "--var", "deaf=true")...)
			waitFor(t, "the engine", fileHas(filepath.Join(dir, "out/runs/*/*/std*.log"), "Warming up"))
			for i, s := range c.signals {
				if i > 0 {
					waitFor(t, "an answer", func() bool { return strings.Contains(out.String(), "once more ends at once") })
				}
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			if code := exitCode(cmd.Wait()); code != exitInterrupted {
				t.Errorf("exit code %d, want %d\n%s", code, exitInterrupted, out)
			}
			names, _ := filepath.Glob(filepath.Join(dir, "out/runs/*/*/run.json"))
			if (len(names) == 1) != c.row {
				t.Errorf("rows %v, want one: %v", names, c.row)
			}
			again, out := start(t, bin, dir, args...)
			if code := exitCode(again.Wait()); code != exitOK {
				t.Errorf("resumed: exit code %d\n%s", code, out)
			}
			if names, _ := filepath.Glob(filepath.Join(dir, "out/runs/*/*/attempts/1/run.json")); len(names) != 1 {
				t.Errorf("the attempt that was interrupted is not kept: %v", names)
			}
			nothingLeft(t, filepath.Join(dir, "out"))
		})
	}
}

// TestMonitorInterrupted: a signal ends the command and all that it started; what
// was seen until then is a run like any other.
func TestMonitorInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, out := start(t, buildProgram(t), dir, "monitor", "--output", "out", "--", "sh", "-c", "sleep 600 & echo up; wait")
	waitFor(t, "the command", func() bool { return strings.Contains(out.String(), "up\n") })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(cmd.Wait()); code != exitInterrupted {
		t.Errorf("exit code %d, want %d\n%s", code, exitInterrupted, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "out/runs/*/*/run.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v: want one run", files, err)
	}
	r, err := sinks.ReadResult(files[0])
	if err != nil || r.Run.Outcome != runner.OutcomeInterrupted {
		t.Errorf("%v: %+v", err, r)
	}
	nothingLeft(t, filepath.Join(dir, "out"))
}

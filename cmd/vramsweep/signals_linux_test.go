package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
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

// waitFor waits until a file exists and holds text.
func waitFor(t *testing.T, pattern, text string) string {
	t.Helper()
	for range 600 {
		names, _ := filepath.Glob(pattern)
		for _, n := range names {
			if b, err := os.ReadFile(n); err == nil && strings.Contains(string(b), text) {
				return n
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("no %s with %q within 12 s", pattern, text)
	return ""
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
		atMost  time.Duration
		row     bool
	}{
		"SIGTERM":   {[]os.Signal{syscall.SIGTERM}, 25 * time.Second, true},
		"SIGHUP":    {[]os.Signal{syscall.SIGHUP}, 25 * time.Second, true},
		"two":       {[]os.Signal{os.Interrupt, os.Interrupt}, 8 * time.Second, false},
		"two kinds": {[]os.Signal{syscall.SIGHUP, syscall.SIGTERM}, 8 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := writeSweep(t, dir, deafSweep)
			args := []string{"run", "--resume", "--brief", "--output-dir", "out", file}
			cmd, out := start(t, bin, dir, append(args, "--var", "deaf=true")...)
			waitFor(t, filepath.Join(dir, "out/runs/*/*/std*.log"), "Warming up")
			begun := time.Now()
			for _, s := range c.signals {
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
				time.Sleep(300 * time.Millisecond)
			}
			if code := exitCode(cmd.Wait()); code != exitInterrupted {
				t.Errorf("exit code %d, want %d\n%s", code, exitInterrupted, out)
			}
			if took := time.Since(begun); took > c.atMost {
				t.Errorf("it took %v to end", took)
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

package main

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/proc/proctest"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

const warmSweep = `
sweep "chaos" {
  matrix {
    model      = ["Qwen/Qwen3-0.6B"]
    batch_size = range(1, %d)
  }
  engine "vllm" {
    command = [%q]
    start   = "warm"
  }
  env {
    PYTHONPATH              = %q
    PYTHONDONTWRITEBYTECODE = "1"
    FAKE_RUN                = "slow"
  }
  sample { interval = "20ms" }
}
`

// warmText is a sweep of runs that are forked from the stand-in for vLLM.
func warmText(t *testing.T, runs int) string {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		testenv.Skip(t, "no python3 on this machine")
	}
	fake, err := filepath.Abs("../../runner/vllm/testdata")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(warmSweep, runs+1, filepath.Join(fake, "env/bin/vllm"), filepath.Join(fake, "python"))
}

// TestChaosKillWarm kills the runner of warm starts at random moments, as
// TestChaosKill does: its parent and the runs forked from it are gone afterwards.
func TestChaosKillWarm(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	kills, runs := 2, 2
	if *fullChaos {
		kills, runs = *chaosKills/10, 4
	}
	killer := &killer{bin: buildProgram(t), sweep: warmText(t, runs), pulse: newPulse(t), span: 5 * time.Second}
	for killer.done < kills {
		killer.execution(t, runs, kills)
	}
	t.Logf("%d kills, %d of them cut an attempt short", killer.done, killer.cut)
}

// TestChaosWarm kills whatever carries the folder's mark, the warm parent and the
// runs' processes, at random moments: one row a profile, and nothing is left.
func TestChaosWarm(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	runs := 4
	if *fullChaos {
		runs = 40
	}
	dir := t.TempDir()
	cmd, out := start(t, buildProgram(t), dir, "run", "--brief", "--output-dir", "out", writeSweep(t, dir, warmText(t, runs)))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	kills, failed := 0, map[runner.Outcome]int{}
	for pause := time.Second; ; pause = time.Duration(rand.Int64N(int64(1500 * time.Millisecond))) {
		select {
		case err := <-ended:
			if code := exitCode(err); code != 0 && code != 3 {
				t.Fatalf("exit code %d after %d kills\n%s", code, kills, out)
			}
			checkFolder(t, dir, runs, func(r *runner.Result) bool {
				failed[r.Run.Outcome]++
				return r.Start != nil
			})
			t.Logf("%d kills, outcomes %v", kills, failed)
			return
		case <-time.After(pause):
		}
		mark, err := proc.FolderMark(filepath.Join(dir, "out"))
		if err != nil {
			continue // it is not made yet
		}
		if pids, err := proctest.Marked(mark); err == nil && len(pids) > 0 {
			_ = syscall.Kill(pids[rand.IntN(len(pids))], syscall.SIGKILL) // it may have ended just now
			kills++
		}
	}
}

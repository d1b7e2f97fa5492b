package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/proc/proctest"
	"github.com/vramsweep/vramsweep/sinks"
)

const shardSweep = `
sweep "chaos" {
  matrix {
    model      = ["Qwen/Qwen3-0.6B"]
    input_len  = [128]
    output_len = [32]
    batch_size = range(1, %d)
  }
  engine "simulator" { mode = %q }
  sample { interval = "20ms" }
  lanes { count = 2 }
}
`

// A night is an execution of several shards, whose elements are started again until
// each has come to its end.
type night struct {
	bin, dir, file string
	shards         int

	mu      sync.Mutex
	runners map[*exec.Cmd]bool
}

// element is one of the scheduler's job.
func (n *night) element(t *testing.T, i int) {
	for {
		cmd, out := start(t, n.bin, n.dir, "run", "--resume", "--brief", "--output-dir", "out", "--execution", "night",
			"--shard", fmt.Sprintf("%d/%d", i, n.shards), n.file)
		n.mu.Lock()
		n.runners[cmd] = true
		n.mu.Unlock()
		err := cmd.Wait()
		n.mu.Lock()
		delete(n.runners, cmd)
		n.mu.Unlock()
		switch code := exitCode(err); {
		case code == exitOK || code == exitSomeFailed:
			return
		case code != -1: // by a signal
			t.Errorf("shard %d: exit code %d\n%s", i, code, out)
			return
		}
	}
}

// kill ends a runner, an engine's process, or all of both: a node.
func (n *night) kill(t *testing.T) {
	n.mu.Lock()
	defer n.mu.Unlock()
	what := rand.IntN(6)
	if what < 4 {
		for cmd := range n.runners { // any
			_ = syscall.Kill(cmd.Process.Pid, syscall.SIGKILL) // it may have ended just now
			break
		}
	}
	if what < 3 {
		return
	}
	mark, err := proc.FolderMark(filepath.Join(n.dir, "out"))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	engines, merr := proctest.Marked(mark)
	if err != nil || merr != nil {
		t.Error(err, merr)
	}
	for _, i := range rand.Perm(len(engines)) {
		_ = syscall.Kill(engines[i], syscall.SIGKILL)
		if what > 3 {
			return
		}
	}
}

// TestChaosShards kills runners, engines and whole nodes of a night of shards with
// lanes, while it is read, and now and then starts an element a second time. In the end each
// run has one row.
func TestChaosShards(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	bin := buildProgram(t)
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			kills, runs := 2, 6
			if *fullChaos {
				kills, runs = (*chaosKills+1)/2, 60
			}
			for done := 0; done < kills; {
				done += chaosNight(t, bin, mode.name, runs, kills-done)
			}
		})
	}
}

// chaosNight runs one night with so many kills at most, and returns how many there were.
func chaosNight(t *testing.T, bin, mode string, runs, kills int) (done int) {
	t.Helper()
	n := &night{bin: bin, dir: t.TempDir(), shards: 3, runners: map[*exec.Cmd]bool{}}
	n.file = writeSweep(t, n.dir, fmt.Sprintf(shardSweep, runs+1, mode))
	var elements, reading sync.WaitGroup
	for i := range n.shards {
		elements.Go(func() { n.element(t, i+1) })
	}
	elements.Go(func() { n.element(t, 1+rand.IntN(n.shards)) }) // started a second time
	over := make(chan struct{})
	reading.Go(func() { readMeanwhile(t, filepath.Join(n.dir, "out"), over) })
	go func() { elements.Wait(); close(over) }()
	for {
		select {
		case <-over:
			reading.Wait()
			checkFolder(t, n.dir, runs, func(r *runner.Result) bool { return r.Run.Outcome != "" })
			return max(done, 1)
		case <-time.After(time.Duration(rand.Int64N(int64(1500 * time.Millisecond)))):
			if done < kills {
				n.kill(t)
				done++
			}
		}
	}
}

// readMeanwhile reads the table while it is written: no run is there twice.
func readMeanwhile(t *testing.T, out string, over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-time.After(100 * time.Millisecond):
		}
		if _, err := os.Stat(filepath.Join(out, "runs")); err != nil {
			continue // not begun
		}
		rows := map[string]bool{}
		for row, err := range sinks.Read[sinks.RunRow](sinks.Predicate{}, out) {
			if err != nil {
				t.Errorf("reading while shards write: %v", err)
				return
			}
			if rows[row.RunID] {
				t.Errorf("run %s was read twice", row.RunID)
			}
			rows[row.RunID] = true
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/proc/proctest"
	"github.com/vramsweep/vramsweep/sinks"
)

// The chaos tests run the program itself, kill it and look at what is left.
// `make chaos` gives -chaos; without it they take a few seconds.
var (
	fullChaos  = flag.Bool("chaos", false, "the long form of the chaos tests")
	chaosKills = flag.Int("chaos.kills", 200, "how often TestChaosKill kills")
	chaosRuns  = flag.Int("chaos.runs", 1000, "how many runs TestChaosWild has, half of them in each mode")
)

// buildOnce builds the program beside the test binary, whose folder `go test`
// removes.
var buildOnce = sync.OnceValues(func() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(filepath.Dir(self), "program", "vramsweep")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return bin, nil
})

// buildProgram builds the program under test.
func buildProgram(t *testing.T) string {
	t.Helper()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

func writeSweep(t *testing.T, dir, text string) string {
	t.Helper()
	file := filepath.Join(dir, "chaos.hcl")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

const killSweep = `
sweep "chaos" {
  matrix {
    model                = ["Qwen/Qwen3-0.6B"]
    tensor_parallel_size = [2]
    input_len            = [128]
    output_len           = [32]
    batch_size           = range(1, %d)
  }
  engine "simulator" { mode = %q }
  sample { interval = "20ms" }
}
`

// withoutFakes is the environment without the folder of fakes that the scripts
// put first on the PATH.
func withoutFakes() []string {
	var folders []string
	for _, folder := range filepath.SplitList(os.Getenv("PATH")) {
		if !strings.Contains(folder, "testscript") {
			folders = append(folders, folder)
		}
	}
	return append(os.Environ(), "PATH="+strings.Join(folders, string(os.PathListSeparator)))
}

// start starts the program in a group of its own, as a shell does.
func start(t *testing.T, bin, dir string, args ...string) (*exec.Cmd, *output) {
	t.Helper()
	return startIn(t, bin, dir, nil, args...)
}

// startIn is start with more of an environment.
func startIn(t *testing.T, bin, dir string, env []string, args ...string) (*exec.Cmd, *output) {
	t.Helper()
	cmd := exec.Command(bin, args...)
	cmd.Dir, cmd.Env = dir, append(withoutFakes(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// output is what a program printed until now.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -2
	}
	return 0
}

// modes are the two ways to use an engine; session mode has several profiles on
// one, so that most kills meet the middle of a group.
var modes = []struct {
	name string
	runs int // of a sweep in the short and in the long form
	long int
}{{"latency", 2, 6}, {"session", 4, 12}}

// TestChaosKill kills the runner with SIGKILL at random moments and resumes,
// until each execution is complete.
func TestChaosKill(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	bin := buildProgram(t)
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			kills, runs := 2, mode.runs
			if *fullChaos {
				kills, runs = (*chaosKills+1)/2, mode.long
			}
			killer := &killer{bin: bin, pulse: newPulse(t),
				span: 2500 * time.Millisecond * time.Duration(runs) / time.Duration(len(modes)*mode.runs)}
			for killer.done < kills {
				killer.execution(t, mode.name, runs, kills)
			}
			t.Logf("%d kills, %d of them cut an attempt short; samples lost at most %v", killer.done, killer.cut,
				killer.worst.Round(time.Millisecond))
			// A busy machine samples late, whoever is to blame: the long form runs on a quiet one.
			if *fullChaos && killer.worst > time.Second {
				t.Errorf("samples of %v were lost, want a second at most", killer.worst)
			}
		})
	}
}

// A killer kills runners and adds up what was lost.
type killer struct {
	bin   string
	pulse *pulse
	span  time.Duration // kills come at a random moment of it
	done  int
	cut   int           // kills that cut an attempt short
	worst time.Duration // of samples that were lost
}

// execution runs one sweep, killed and resumed until it is complete.
func (k *killer) execution(t *testing.T, mode string, runs, kills int) {
	t.Helper()
	dir := t.TempDir()
	file := writeSweep(t, dir, fmt.Sprintf(killSweep, runs+1, mode))
	seen := map[string]bool{}
	kept := map[string][]byte{}
	for {
		cmd, out := start(t, k.bin, dir, "run", "--resume", "--brief", "--output-dir", "out", file)
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		delay := time.Duration(rand.Int64N(int64(k.span)))
		if k.done >= kills {
			delay = 5 * time.Minute
		}
		select {
		case err := <-ended:
			if code := exitCode(err); code != 0 {
				t.Fatalf("exit code %d after %d kills\n%s", code, k.done, out)
			}
			stillThere(t, kept)
			checkFolder(t, dir, runs, func(r *runner.Result) bool { return r.Run.Outcome == runner.OutcomeOK })
			return
		case <-time.After(delay):
		}
		alive := engineAlive(t, filepath.Join(dir, "out"))
		killed := time.Now()
		_ = cmd.Process.Kill() // it may have ended just now
		<-ended
		k.done++
		stalled := k.pulse.longest()
		lost, found := lostSamples(t, filepath.Join(dir, "out"), killed, seen)
		if found && alive {
			k.cut++
			k.worst = max(k.worst, lost-stalled)
		}
		stillThere(t, kept)
		keep(t, filepath.Join(dir, "out"), kept)
	}
}

// engineAlive reports whether an engine of the folder lives: then its run is
// being sampled. After the engine's end nothing is sampled and nothing is lost.
func engineAlive(t *testing.T, out string) bool {
	t.Helper()
	mark, err := proc.FolderMark(out)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	found, err := proctest.Marked(mark)
	if err != nil {
		t.Fatal(err)
	}
	return len(found) > 0
}

// keep notes the finished runs of a folder; stillThere checks that they are as
// they were.
func keep(t *testing.T, out string, kept map[string][]byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(out, "runs/*/*/run.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if kept[name], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
}

func stillThere(t *testing.T, kept map[string][]byte) {
	t.Helper()
	for name, want := range kept {
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the finished run %s is not what it was: %v", name, err)
		}
	}
}

// A pulse measures how long this machine lets nobody run: what was not sampled
// meanwhile was not lost.
type pulse struct {
	mu    sync.Mutex
	late  []time.Duration // of the last beats
	every time.Duration
}

func newPulse(t *testing.T) *pulse {
	p := &pulse{every: 20 * time.Millisecond}
	go func() {
		for last := time.Now(); t.Context().Err() == nil; {
			time.Sleep(p.every)
			now := time.Now()
			p.mu.Lock()
			p.late = append(p.late, now.Sub(last)-p.every)
			p.late = p.late[max(0, len(p.late)-100):]
			p.mu.Unlock()
			last = now
		}
	}()
	return p
}

// longest is the longest standstill of the last two seconds.
func (p *pulse) longest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, slices.Max(append([]time.Duration{0}, p.late...)))
}

// lostSamples recovers the folder and says how long before the kill the samples
// of the attempt that was cut off end.
func lostSamples(t *testing.T, out string, killed time.Time, seen map[string]bool) (time.Duration, bool) {
	t.Helper()
	store, err := sinks.Open(out, sinks.Options{})
	if err != nil {
		t.Fatalf("open after a kill: %v", err)
	}
	report, err := store.Recover()
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatalf("recover: %v", err)
	}
	for _, a := range report.Attempts {
		name := filepath.Join(out, filepath.FromSlash(a.Dir), "run.json")
		if seen[name] {
			continue
		}
		seen[name] = true
		r, err := sinks.ReadResult(name)
		if err != nil {
			t.Fatal(err)
		}
		return killed.Sub(r.Run.EndedAt), true
	}
	return 0, false
}

// checkFolder checks that an execution is complete and whole.
func checkFolder(t *testing.T, dir string, planned int, fine func(*runner.Result) bool) {
	t.Helper()
	out := filepath.Join(dir, "out")
	store, err := sinks.View(out, sinks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	executions, err := store.Executions()
	if err != nil || len(executions) != 1 || executions[0].State != runner.StateComplete {
		t.Fatalf("executions %+v, %v: want one, complete", executions, err)
	}
	results, err := store.Finished(executions[0].ID)
	if err != nil || len(results) != planned {
		t.Errorf("%d final results, %v; want %d", len(results), err, planned)
	}
	for id, r := range results {
		if !fine(r) {
			t.Errorf("%s: %s (%s)", id, r.Run.Outcome, r.Run.OutcomeDetail)
		}
	}
	rows := map[string]int{}
	for row, err := range sinks.Read[sinks.RunRow](sinks.Predicate{}, out) {
		if err != nil {
			t.Fatal(err)
		}
		rows[row.RunID]++
	}
	for id, n := range rows {
		if n != 1 || results[id] == nil {
			t.Errorf("run %s has %d rows in the table", id, n)
		}
	}
	if len(rows) != planned {
		t.Errorf("%d rows in the table, want %d", len(rows), planned)
	}
	faults, err := store.Verify()
	if err != nil || len(faults) != 0 {
		t.Errorf("verify: %v %v", faults, err)
	}
	nothingLeft(t, out)
}

// nothingLeft looks for temporary files, journals, processes and cgroups.
func nothingLeft(t *testing.T, out string) {
	t.Helper()
	err := filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (strings.Contains(d.Name(), ".tmp-") || strings.HasPrefix(d.Name(), "journal.") ||
			d.Name() == ".simulated-gpu") {
			t.Errorf("left: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	mark, err := proc.FolderMark(out)
	if err != nil {
		t.Fatal(err)
	}
	left, err := proctest.Marked(mark)
	if err != nil || len(left) != 0 {
		t.Errorf("processes left: %+v %v", left, err)
		_, _ = proc.EndMarked(context.Background(), "", mark, 0)
	}
}

const wildSweep = `
sweep "wild" {
  matrix {
    model                = ["Qwen/Qwen3-0.6B"]
    tensor_parallel_size = [2]
    input_len            = [128]
    output_len           = [32]
    batch_size           = range(1, %d)
  }
  engine "simulator" {
    mode       = %q
    seed       = %d
    time_scale = 400
    # In session mode 8 profiles at most share an engine: faults of an engine's
    # start strike at each start.
    max_model_len = 1024 + floor(matrix.batch_size / 8)
    plant = {
      chaos = [
        { do = "die", share = 0.15 },
        { do = "kill_worker", share = 0.1 },
        { do = "hang", share = 0.05 },
        { do = "ignore_sigterm", share = 0.1 },
        { do = "setsid", share = 0.2 },
        { do = "double_fork", share = 0.2 },
        { do = "orphans", share = 0.1 },
        { do = "exit", share = 0.05 },
        { do = "broken_result", share = 0.05 },
        { do = "fail_port", share = 0.05, attempts = 1 },
        { do = "linger", for = "200ms", share = 0.05 },
      ]
    }
  }
  sample { interval = "20ms" }
  limits {
    timeout         = "20s"
    silence_timeout = "2s"
    retries         = 0
  }
}
`

// TestChaosWild runs engines that die, hang, fork away or ignore signals.
func TestChaosWild(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	if !*fullChaos {
		t.Parallel()
	}
	runs := 4
	if *fullChaos {
		runs = *chaosRuns
	}
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			if !*fullChaos {
				t.Parallel()
			}
			wild(t, mode.name, (runs+1)/len(modes))
		})
	}
}

// wild runs one sweep of engines that misbehave.
func wild(t *testing.T, mode string, runs int) {
	t.Helper()
	bin, dir := buildProgram(t), t.TempDir()
	seed := rand.IntN(1 << 30)
	file := writeSweep(t, dir, fmt.Sprintf(wildSweep, runs+1, mode, seed))
	cmd, out := start(t, bin, dir, "run", "--brief", "--output-dir", "out", "--summary-json", "summary.json", file)
	if code := exitCode(cmd.Wait()); code != 0 && code != 3 {
		t.Fatalf("seed %d: exit code %d\n%s", seed, code, out)
	}
	var sum runner.Summary
	b, err := os.ReadFile(filepath.Join(dir, "summary.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &sum); err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d, %d runs: outcomes %v, vramsweep's own time %.0f ms a run", seed, runs, sum.Outcomes,
		sum.OverheadS*1000)
	checkFolder(t, dir, runs, func(r *runner.Result) bool {
		for _, l := range r.Run.Leftovers {
			if strings.Contains(l.Note, "could not") {
				return false
			}
		}
		return r.Run.Outcome != ""
	})
}

const faultSweep = `
variable "do" {
  type    = string
  default = ""
}
sweep "fault" {
  matrix {
    model                = ["Qwen/Qwen3-0.6B"]
    tensor_parallel_size = [1]
    input_len            = [128]
    output_len           = [32]
    batch_size           = [1]
  }
  engine "simulator" {
    plant = { chaos = [for do in compact([var.do]) : { do = do, bytes = "50MiB" }] }
  }
  sample { interval = "20ms" }
}
`

// TestFaults: what a machine or an engine may do to a run, and that it ends with
// a row, a code and a word about it.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	bin := buildProgram(t)
	for _, c := range []struct {
		do      string // of the engine
		files   uint64 // limit of file descriptors; 0: none
		code    int
		outcome runner.Outcome
	}{
		{"", 64, 0, runner.OutcomeOK},
		{"flood", 0, 0, runner.OutcomeOK},
		{"long_line", 0, 0, runner.OutcomeOK},
		{"garbage", 0, 0, runner.OutcomeOK},
		{"silent", 0, 0, runner.OutcomeOK},
		{"fifo_result", 0, 3, runner.OutcomeNoResult},
		{"empty_result", 0, 3, runner.OutcomeNoResult},
		{"broken_result", 0, 3, runner.OutcomeNoResult},
		{"exit", 0, 3, runner.OutcomeEngineError},
	} {
		t.Run(fmt.Sprintf("%s, %d files", c.do, c.files), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := writeSweep(t, dir, faultSweep)
			cmd, out := start(t, bin, dir, "run", "--brief", "--output-dir", "out", "--var", "do="+c.do, file)
			if c.files > 0 {
				limit := unix.Rlimit{Cur: c.files, Max: c.files}
				if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
					t.Fatal(err)
				}
			}
			if code := exitCode(cmd.Wait()); code != c.code {
				t.Errorf("exit code %d, want %d\n%s", code, c.code, out)
			}
			checkFolder(t, dir, 1, func(r *runner.Result) bool {
				return r.Run.Outcome == c.outcome && (c.code == 0 || r.Run.OutcomeDetail != "")
			})
		})
	}
}

// TestDiskFull fills a small file system while a sweep runs. It needs the right
// to mount one.
func TestDiskFull(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	if !*fullChaos {
		t.Parallel()
	}
	dir := t.TempDir()
	small := filepath.Join(dir, "out")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=270m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	defer func() { _ = unix.Unmount(small, unix.MNT_DETACH) }()
	bin := buildProgram(t)
	file := writeSweep(t, dir, fmt.Sprintf(killSweep, 4, "latency"))
	args := []string{"run", "--resume", "--brief", "--output-dir", "out", file}
	cmd, out := start(t, bin, dir, args...)
	waitFor(t, "a run", fileHas(filepath.Join(small, "runs/*/*/run.json"), "}"))
	fill := filepath.Join(small, "fill")
	if err := os.WriteFile(fill, make([]byte, 271<<20), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	if code := exitCode(cmd.Wait()); code != exitFault || !strings.Contains(out.String(), "no space left on device") &&
		!strings.Contains(out.String(), "MiB free") {
		t.Errorf("exit code %d, want %d and the reason\n%s", code, exitFault, out)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	again, out := start(t, bin, dir, args...)
	if code := exitCode(again.Wait()); code != exitOK || !strings.Contains(out.String(), "finished earlier") {
		t.Errorf("resumed: exit code %d\n%s", code, out)
	}
	checkFolder(t, dir, 3, func(r *runner.Result) bool { return r.Run.Outcome == runner.OutcomeOK })
}

const realSweep = `
sweep "real" {
  matrix {
    model                = [%q]
    tensor_parallel_size = [1]
    input_len            = [32]
    output_len           = [64]
    batch_size           = [1, 2]
  }
  engine "vllm" {
    command             = [%q]
    load_format         = "dummy"
    skip_tokenizer_init = true
    disable_detokenize  = true
    enforce_eager       = true
    max_model_len       = 256
    num_iters           = 20
    num_iters_warmup    = 2
  }
  env {
    VLLM_CPU_KVCACHE_SPACE = "1"
    HF_HUB_OFFLINE         = "1"
  }
}
`

// TestChaosRealVLLM is TestChaosKill with real vLLM on the CPU: VRAMSWEEP_TEST_VLLM
// names the executable, VRAMSWEEP_TEST_MODEL a folder with a config.json.
func TestChaosRealVLLM(t *testing.T) {
	vllm, model := os.Getenv("VRAMSWEEP_TEST_VLLM"), os.Getenv("VRAMSWEEP_TEST_MODEL")
	if !*fullChaos || vllm == "" || model == "" {
		t.Skip("needs -chaos, VRAMSWEEP_TEST_VLLM and VRAMSWEEP_TEST_MODEL")
	}
	bin, dir := buildProgram(t), t.TempDir()
	file := writeSweep(t, dir, fmt.Sprintf(realSweep, model, vllm))
	args := []string{"run", "--resume", "--brief", "--output-dir", "out", "--summary-json", "summary.json", file}
	for kill := range min(*chaosKills, 10) {
		cmd, out := start(t, bin, dir, args...)
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			t.Logf("kill %d came too late: exit code %d\n%s", kill, exitCode(err), out)
			if err := os.RemoveAll(filepath.Join(dir, "out")); err != nil {
				t.Fatal(err)
			}
		case <-time.After(time.Duration(2+rand.IntN(60)) * time.Second):
			_ = cmd.Process.Kill() // it may have ended just now
			<-ended
		}
	}
	cmd, out := start(t, bin, dir, args...)
	if code := exitCode(cmd.Wait()); code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	t.Logf("%s", out)
	checkFolder(t, dir, 2, func(r *runner.Result) bool {
		return r.Run.Outcome == runner.OutcomeOK &&
			r.LatencyStats != nil
	})
}

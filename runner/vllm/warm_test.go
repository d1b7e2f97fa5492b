package vllm

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

// A nest has the stand-in for vLLM of testdata/python, and a Warm.
type nest struct {
	t       *testing.T
	latency *Latency
	imports string // a line for each process that imported vLLM
	runs    int
}

func newNest(t *testing.T) *nest {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		testenv.Skip(t, "no python3 on this machine")
	}
	fakes, err := filepath.Abs("testdata/python")
	if err != nil {
		t.Fatal(err)
	}
	n := &nest{t: t, imports: filepath.Join(t.TempDir(), "imports")}
	warm := &Warm{Mark: "0123456789abcdef.warm", Starts: 9}
	t.Cleanup(warm.Close)
	n.latency = &Latency{Grace: time.Second, Warm: warm, BaseEnv: append(slices.Clone(os.Environ()),
		"PYTHONPATH="+fakes, "PYTHONDONTWRITEBYTECODE=1", "FAKE_IMPORTS="+n.imports, "PATH="+filepath.Dir(python)+":"+os.Getenv("PATH"))}
	return n
}

func (n *nest) job(env ...string) *runner.Job {
	n.t.Helper()
	n.runs++
	sw := &sweep.Sweep{Name: "s"}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		sw.Env = append(sw.Env, sweep.EnvVar{Name: name, Value: value})
	}
	return &runner.Job{
		RunID: fmt.Sprintf("run %d", n.runs), Dir: n.t.TempDir(), Mark: "0123456789abcdef.run", StartedAt: time.Now(),
		Pulse: &runner.Pulse{}, Progress: func(runner.Progress) {}, Sweep: sw,
		Profile: &sweep.Profile{
			Settings: sweep.Settings{Model: "m", HFModelID: "m", Asked: sweep.Asked{InputLen: 4, OutputLen: 4, BatchSize: 1}},
			Engine:   sweep.Engine{Kind: "vllm", Mode: "latency", Command: []string{"testdata/env/bin/vllm"}},
		},
	}
}

// run makes one run and reads what it saw of itself.
func (n *nest) run(job *runner.Job) (*runner.Measurement, map[string]any) {
	n.t.Helper()
	n.latency.Prepare(n.t.Context(), job)
	m, err := n.latency.Run(n.t.Context(), job)
	if err != nil {
		n.t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(job.Dir, "stdout.log"))
	if err != nil {
		n.t.Fatal(err)
	}
	saw := map[string]any{}
	for line := range strings.Lines(string(log)) {
		if text, ok := strings.CutPrefix(line, "PROCESS "); ok {
			if err := json.Unmarshal([]byte(text), &saw); err != nil {
				n.t.Fatal(err)
			}
		}
	}
	return m, saw
}

func (n *nest) imported() int {
	n.t.Helper()
	data, err := os.ReadFile(n.imports)
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}

// TestWarm: runs that are forked see what runs that are executed see.
func TestWarm(t *testing.T) {
	n := newNest(t)
	cold := n.job("FAKE_AT_RUN=1")
	cold.Profile.Engine.Start = "cold"
	m, executed := n.run(cold)
	if m.Outcome != runner.OutcomeOK || m.Start.Mode != "cold" || m.Start.Reason != "" || m.Start.ImportS == nil {
		t.Fatalf("cold: %s: %s; %s; start %+v", m.Outcome, m.Detail, m.ErrorLine, m.Start)
	}
	if n.imported() < 2 {
		t.Errorf("%d imports; the command and its spawned engine import vLLM both", n.imported())
	}
	before := n.imported()
	var draws []any
	for i := range 3 {
		m, forked := n.run(n.job("FAKE_AT_RUN=1"))
		if m.Outcome != runner.OutcomeOK || m.Start.Mode != "warm" || m.Start.EngineProcess != "fork" || m.Start.Parent.Served != i+1 {
			t.Fatalf("run %d: %s: %s; %s; start %+v", i, m.Outcome, m.Detail, m.ErrorLine, m.Start)
		}
		if p := m.Start.Parent; p.RSSBytes == nil || *p.RSSBytes < 1<<20 || p.Threads != 1 {
			t.Errorf("parent %+v", p)
		}
		if m.Env[workerMethod] != "fork" || len(m.Leftovers) > 0 {
			t.Errorf("environment %v, leftovers %v", m.Env, m.Leftovers)
		}
		if forked["pid"] != forked["pgid"] || forked["ppid"] != float64(os.Getpid()) || forked["sid"] != executed["sid"] {
			t.Errorf("run %d: process %v, group %v, parent %v", i, forked["pid"], forked["pgid"], forked["ppid"])
		}
		marks, _ := forked["marks"].([]any)
		env, _ := forked["env"].(map[string]any)
		if len(marks) != 1 || marks[0] != "VRAMSWEEP_RUN="+fmt.Sprint(env["VRAMSWEEP_RUN"]) ||
			!strings.HasPrefix(fmt.Sprint(marks[0]), "VRAMSWEEP_RUN=0123456789abcdef.run.") {
			t.Errorf("marks %v, environment %v", marks, env)
		}
		delete(env, "VRAMSWEEP_RUN")
		draws = append(draws, forked["draw"], forked["numpy_draw"])
		same(t, executed, forked, "stdin", "fds", "cwd", "argv0", "path0", "umask", "main", "threads")
		if fmt.Sprint(env) != "map[FAKE_AT_RUN:1 FAKE_SET_BY_IMPORT:yes PYTHONUNBUFFERED:1]" {
			t.Errorf("environment %v", env)
		}
	}
	if n.imported() != before+1 {
		t.Errorf("three warm runs imported vLLM %d times", n.imported()-before)
	}
	for i, d := range draws {
		if slices.Contains(draws[i+1:], d) {
			t.Errorf("runs share their random state: %v", draws)
		}
	}
}

func same(t *testing.T, a, b map[string]any, names ...string) {
	t.Helper()
	for _, name := range names {
		if fmt.Sprint(a[name]) != fmt.Sprint(b[name]) {
			t.Errorf("%s: %v executed, %v forked", name, a[name], b[name])
		}
	}
}

// TestWarmEnvironment: a variable that the imports read is never another for a
// run than for its parent.
func TestWarmEnvironment(t *testing.T) {
	n := newNest(t)
	first := n.job("FAKE_AT_IMPORT=a")
	if m, _ := n.run(first); m.Start.Mode != "warm" {
		t.Fatalf("start %+v", m.Start)
	}
	second := n.job()
	second.Sweep = first.Sweep
	n.latency.BaseEnv = append(n.latency.BaseEnv, "LD_DEBUG_OUTPUT=/nowhere")
	m, _ := n.run(second)
	if m.Start.Mode != "cold" || !strings.HasPrefix(m.Start.Reason, "LD_DEBUG_OUTPUT is read when vLLM is imported") {
		t.Errorf("same sweep: start %+v", m.Start)
	}
	before := n.imported()
	if m, _ := n.run(n.job("FAKE_AT_IMPORT=b")); m.Start.Mode != "warm" || m.Start.Parent.Served != 1 {
		t.Errorf("another sweep: start %+v", m.Start)
	}
	if data, err := os.ReadFile(n.imports); err != nil || n.imported() != before+1 || !strings.HasSuffix(string(data), " b\n") {
		t.Errorf("%v, imports %s", err, data)
	}
}

// TestWarmRefused: what cannot be forked starts cold and says why.
func TestWarmRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*nest, *runner.Job)
		reason string
	}{
		"asked":     {func(_ *nest, j *runner.Job) { j.Profile.Engine.Start = "cold" }, ""},
		"one run":   {func(n *nest, _ *runner.Job) { n.latency.Warm.Starts = 1 }, "one start alone gains nothing"},
		"a wrapper": {func(_ *nest, j *runner.Job) { j.Profile.Engine.Command = []string{"/bin/true"} }, "/bin/true is no Python script"},
		"broken": {func(n *nest, _ *runner.Job) {
			n.latency.BaseEnv = append(n.latency.BaseEnv, "FAKE_VERSION=none")
		}, "vLLM cannot be imported: ValueError"},
		"threads": {func(n *nest, _ *runner.Job) {
			n.latency.BaseEnv = append(n.latency.BaseEnv, "FAKE_THREAD=1")
		}, "importing vLLM started threads"},
		"socket": {func(n *nest, _ *runner.Job) {
			n.latency.BaseEnv = append(n.latency.BaseEnv, "FAKE_SOCKET=1")
		}, "left a descriptor open that children would share (socket:"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNest(t)
			job := n.job()
			c.change(n, job)
			m, _ := n.run(job)
			if m.Start.Mode != "cold" || (m.Start.Reason == "") != (c.reason == "") || !strings.Contains(m.Start.Reason, c.reason) {
				t.Errorf("start %+v, want %q", m.Start, c.reason)
			}
		})
	}
}

// TestWarmFailure: a run that fails for how it was started is tried cold; what
// fails cold as well is a failure.
func TestWarmFailure(t *testing.T) {
	n := newNest(t)
	job := n.job("FAKE_RUN=fork-fails")
	m, _ := n.run(job)
	if m.Outcome != runner.OutcomeEngineError || !m.Start.TryCold || !strings.Contains(m.ErrorLine, "forked subprocess") {
		t.Fatalf("%s: %s; %s; start %+v", m.Outcome, m.Detail, m.ErrorLine, m.Start)
	}
	m, _ = n.run(job)
	if m.Outcome != runner.OutcomeOK || m.Start.Mode != "cold" || m.Start.TryCold ||
		!strings.HasPrefix(m.Start.Reason, "its warm start failed: RuntimeError: Cannot re-initialize CUDA") {
		t.Errorf("%s: %s; start %+v", m.Outcome, m.Detail, m.Start)
	}
	job = n.job("FAKE_RUN=fork-fails")
	n.run(job)
	n.run(job)
	if m, _ := n.run(n.job()); m.Start.Mode != "cold" || !strings.HasPrefix(m.Start.Reason, "2 runs failed in a warm start") {
		t.Errorf("after two such runs: %+v", m.Start)
	}
}

// TestWarmParentDies: while a run goes on, it does not matter; the next run has
// another parent.
func TestWarmParentDies(t *testing.T) {
	n := newNest(t)
	if m, _ := n.run(n.job()); m.Start.Mode != "warm" {
		t.Fatalf("start %+v", m.Start)
	}
	job := n.job("FAKE_RUN=hang")
	n.latency.Prepare(t.Context(), job)
	parent := n.latency.Warm.parent
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		engineOf(job)
		_ = syscall.Kill(parent.proc.PID(), syscall.SIGKILL)
		<-parent.done
	}()
	m, err := n.latency.Run(ctx, job)
	if err != nil || m.Outcome != runner.OutcomeInterrupted || m.Start.Mode != "warm" {
		t.Fatalf("%v, %+v", err, m)
	}
	// The parent's death is found out when it is asked.
	n.latency.Warm.parent = parent
	m, _ = n.run(n.job())
	if m.Outcome != runner.OutcomeOK || m.Start.Mode != "warm" || m.Start.Parent.Served != 1 {
		t.Errorf("%s: %s; start %+v", m.Outcome, m.Detail, m.Start)
	}
}

// engineOf waits until a run's engine process speaks.
func engineOf(job *runner.Job) {
	for range 600 {
		if log, err := os.ReadFile(filepath.Join(job.Dir, "stdout.log")); err == nil && strings.Contains(string(log), "Initializing") {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestWarmChildDies: it is a row as of any engine, and nothing of it is left.
func TestWarmChildDies(t *testing.T) {
	n := newNest(t)
	job := n.job("FAKE_RUN=hang")
	var tree []int
	go func() {
		engineOf(job)
		tree = job.Pulse.Tree()
		_ = syscall.Kill(slices.Min(tree), syscall.SIGKILL)
	}()
	m, _ := n.run(job)
	if m.Outcome != runner.OutcomeEngineError || m.Signal != "killed" || m.Start.Mode != "warm" || m.Start.TryCold {
		t.Errorf("%s, signal %s, start %+v", m.Outcome, m.Signal, m.Start)
	}
	if len(tree) < 2 || len(m.Leftovers) != len(tree)-1 {
		t.Errorf("tree %v, leftovers %v", tree, m.Leftovers)
	}
	for _, pid := range tree {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d is left", pid)
		}
	}
}

// TestWarmLeftovers: an orphan of a forked run is found by the run's mark.
func TestWarmLeftovers(t *testing.T) {
	n := newNest(t)
	m, _ := n.run(n.job("FAKE_RUN=orphan"))
	if m.Outcome != runner.OutcomeOK || m.Start.Mode != "warm" || len(m.Leftovers) != 1 {
		t.Errorf("%s, start %+v, leftovers %v", m.Outcome, m.Start, m.Leftovers)
	}
	if p := n.latency.Warm.parent; p == nil || p.gone() {
		t.Error("the parent was ended with the run's remains")
	}
}

// TestWarmSession: the drivers of session mode start warm as well.
func TestWarmSession(t *testing.T) {
	n := newNest(t)
	e := driverEngine(t, "0.29.0")
	e.BaseEnv, e.Warm = append(n.latency.BaseEnv, "FAKE_VERSION=0.29.0"), n.latency.Warm
	for i := range 2 {
		all := serveAll(t, e, 2)
		if got := outcomes(all); got != "ok@0 ok@1" {
			t.Fatalf("outcomes %s: %s; %s", got, all[0].Detail, all[0].ErrorLine)
		}
		for _, m := range all {
			if m.Start.Mode != "warm" || m.Start.Parent.Served != i+1 {
				t.Errorf("start %+v", m.Start)
			}
		}
	}
	if n.imported() != 1 {
		t.Errorf("vLLM was imported %d times", n.imported())
	}
}

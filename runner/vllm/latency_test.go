package vllm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/vllm/log"
	"github.com/vramsweep/vramsweep/sweep"
)

// TestMain lets this test binary be the `vllm` that the engine starts, or the
// Python of session mode.
func TestMain(m *testing.M) {
	if how := os.Getenv("FAKE_VLLM"); how != "" {
		os.Exit(fakeVLLM(how, os.Args[1:]))
	}
	if mode := os.Getenv("FAKE_DRIVER"); mode != "" {
		fakeDriver(mode)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeVLLM replays a recorded run, or misbehaves as told.
func fakeVLLM(how string, args []string) int {
	out := ""
	for i, a := range args {
		if a == "--output-json" {
			out = args[i+1]
		}
	}
	dir, isReplay := strings.CutPrefix(how, "replay:")
	switch {
	case isReplay:
		return replay(dir, out)
	case how == "silent":
		return 0
	case how == "exit":
		fmt.Fprintln(os.Stderr, "vllm: error: unrecognized arguments: --no-such-flag")
		return 2
	case how == "broken":
		_ = os.WriteFile(out, []byte(`{"avg_latency": 1.`), 0o644)
		return 0
	case how == "empty":
		_ = os.WriteFile(out, nil, 0o644)
		return 0
	case how == "secrets":
		fmt.Println("INFO 11-23 19:00:19 [api_utils.py:273] non-default args: {'hf_token': 'hf_abcdefghijklmnopqrstuvwxyz', 'api': '" + os.Getenv("MY_VALUE") + "'}")
		fmt.Fprintln(os.Stderr, "ValueError: token hf_abcdefghijklmnopqrstuvwxyz, value "+os.Getenv("MY_VALUE"))
		return 1
	case how == "late":
		_ = os.WriteFile(out, []byte(`{"avg_latency": 1.0, "latencies": [1.0], "percentiles": {"50": 1.0}}`), 0o644)
		return 139
	case how == "hang":
		fmt.Println("Warming up...")
		time.Sleep(time.Minute)
	case how == "loud":
		line := strings.Repeat("x", 1023) + "\n"
		for range 20 << 10 {
			_, _ = os.Stdout.WriteString(line)
		}
	}
	return 0
}

func replay(dir, out string) int {
	for _, f := range []struct {
		name string
		to   *os.File
	}{{"stdout.log", os.Stdout}, {"stderr.log", os.Stderr}} {
		b, err := os.ReadFile(filepath.Join(dir, f.name))
		if err != nil {
			return 99
		}
		_, _ = f.to.Write(b)
	}
	b, err := os.ReadFile(filepath.Join(dir, "latency.json"))
	if err != nil {
		return 1
	}
	_ = os.WriteFile(out, b, 0o644)
	return 0
}

func testJob(t *testing.T) *runner.Job {
	t.Helper()
	return &runner.Job{
		RunID: "x", Dir: t.TempDir(), StartedAt: time.Now(), Progress: func(runner.Progress) {}, Pulse: &runner.Pulse{},
		Sweep: &sweep.Sweep{},
		Profile: &sweep.Profile{Settings: sweep.Settings{HFModelID: "m",
			Asked: sweep.Asked{TensorParallelSize: 1, PipelineParallelSize: 1, InputLen: 512, OutputLen: 32, BatchSize: 8}}},
	}
}

func runFake(t *testing.T, ctx context.Context, how string, job *runner.Job) *runner.Measurement {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	job.Profile.Engine.Command = []string{self}
	e := &Latency{BaseEnv: append(os.Environ(), "FAKE_VLLM="+how, "MY_VALUE=sesame-open"), Grace: time.Second}
	m, err := e.Run(ctx, job)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func fixture(t *testing.T, name string) string {
	t.Helper()
	abs, err := filepath.Abs(filepath.Join("log", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

func TestLatencyReplay(t *testing.T) {
	for _, c := range []struct {
		run     string
		outcome runner.Outcome
		kind    string
	}{
		{"h100-v0.26/llama-3.1-8b", runner.OutcomeOK, ""},
		{"h100-v0.26/tp2-llama-3.1-8b", runner.OutcomeOK, ""},
		{"vllm-cpu-0.29/tiny", runner.OutcomeOK, ""},
		{"h100-v0.26/fail-no-kv-util15", runner.OutcomeNoKVMemory, log.KindNoKVMemory},
		{"h100-v0.26/fail-oom-load-70b", runner.OutcomeOOM, log.KindOOM},
		{"h100-v0.26/fail-bad-util", runner.OutcomeBadArgument, log.KindBadArgument},
	} {
		t.Run(c.run, func(t *testing.T) {
			job := testJob(t)
			m := runFake(t, t.Context(), "replay:"+fixture(t, c.run), job)
			if m.Outcome != c.outcome {
				t.Fatalf("outcome %s (%s), want %s", m.Outcome, m.Detail, c.outcome)
			}
			if m.Account == nil {
				t.Fatal("no account")
			}
			if c.kind != "" && (m.Account.Error == nil || m.Account.Error.Kind != c.kind || m.ErrorLine == "") {
				t.Errorf("error %+v, line %q", m.Account.Error, m.ErrorLine)
			}
			if c.kind == "" && (m.Latency == nil || m.Latency.NIters != 5 || !job.Pulse.IsReady()) {
				t.Errorf("latency %+v, ready %v", m.Latency, job.Pulse.IsReady())
			}
			for _, l := range m.Logs {
				want, _ := os.ReadFile(filepath.Join(fixture(t, c.run), l.Path))
				got, _ := os.ReadFile(filepath.Join(job.Dir, l.Path))
				if string(got) != string(want) || l.Bytes != int64(len(want)) || !strings.HasSuffix(string(want), l.Tail) {
					t.Errorf("%s is not what vLLM wrote: %d bytes, want %d", l.Path, len(got), len(want))
				}
			}
		})
	}
}

func TestLatencyEventsOfARun(t *testing.T) {
	m := runFake(t, t.Context(), "replay:"+fixture(t, "h100-v0.26/llama-3.1-8b"), testJob(t))
	count := map[runner.EventKind]int{}
	for _, e := range m.Events {
		count[e.Kind]++
		if e.Arrived.IsZero() {
			t.Errorf("%s has no time of arrival", e.Kind)
		}
	}
	for kind, want := range map[runner.EventKind]int{
		runner.EventEngineInit: 1, runner.EventLoadStart: 1, runner.EventLoadEnd: 1, runner.EventProfileEnd: 1, runner.EventKVReady: 1,
		runner.EventCaptureEnd: 1, runner.EventEngineReady: 1, runner.EventWarmupIter: 2, runner.EventMeasureStart: 1, runner.EventMeasureIter: 5, runner.EventMeasureEnd: 1,
	} {
		if count[kind] != want {
			t.Errorf("%d events %s, want %d", count[kind], kind, want)
		}
	}
}

func TestLatencyMisbehaviour(t *testing.T) {
	for _, c := range []struct {
		how     string
		outcome runner.Outcome
		detail  string
	}{
		{"silent", runner.OutcomeNoResult, "printed nothing"},
		{"exit", runner.OutcomeBadArgument, "exit code 2"},
		{"broken", runner.OutcomeNoResult, "not the JSON"},
		{"empty", runner.OutcomeNoResult, "is empty"},
		{"late", runner.OutcomeOK, "wrote its result and then ended with exit code 139"},
		{"loud", runner.OutcomeNoResult, "no result file"},
	} {
		t.Run(c.how, func(t *testing.T) {
			m := runFake(t, t.Context(), c.how, testJob(t))
			if m.Outcome != c.outcome || !strings.Contains(m.Detail, c.detail) {
				t.Errorf("%s: %s; want %s: %s", m.Outcome, m.Detail, c.outcome, c.detail)
			}
		})
	}
}

func TestLatencyKeepsNoSecrets(t *testing.T) {
	job := testJob(t)
	job.Sweep.Env = []sweep.EnvVar{{Name: "PLAIN", Value: "hidden-value", Sensitive: true}}
	job.Profile.Engine.Flags = []sweep.Flag{{Name: "hf_token", Value: "hf_abcdefghijklmnopqrstuvwxyz"}, {Name: "revision", Value: "hidden-value"}}
	self, _ := os.Executable()
	job.Profile.Engine.Command = []string{self}
	e := &Latency{BaseEnv: append(os.Environ(), "FAKE_VLLM=secrets", "MY_VALUE=hidden-value", "HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz", "VLLM_API_KEY=swordfish")}
	m, err := e.Run(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	account, err := json.Marshal(m.Account)
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %v %s %s %s", m.Command, m.Env, m.ErrorLine, m.Detail, account)
	for _, l := range m.Logs {
		b, _ := os.ReadFile(filepath.Join(job.Dir, l.Path))
		all += string(b) + l.Tail
	}
	for _, secret := range []string{"hf_abcdef", "hidden-value", "swordfish"} {
		if i := strings.Index(all, secret); i >= 0 {
			t.Errorf("%q is kept: ...%s...", secret, all[max(0, i-80):i+20])
		}
	}
}

func TestLatencyEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	job := testJob(t)
	job.Progress = func(p runner.Progress) {
		if p.Phase == runner.PhaseBenchWarmup {
			cancel(errors.New("timeout of 30m"))
		}
	}
	m := runFake(t, ctx, "hang", job)
	if m.Outcome != runner.OutcomeInterrupted || !strings.Contains(m.Detail, "timeout of 30m") {
		t.Errorf("%s: %s", m.Outcome, m.Detail)
	}
}

func TestLatencyWithoutVLLM(t *testing.T) {
	e := &Latency{BaseEnv: []string{"PATH=" + t.TempDir()}}
	_, err := e.Run(t.Context(), testJob(t))
	if !errors.Is(err, proc.ErrNotFound) || !strings.Contains(err.Error(), "command = [") {
		t.Errorf("error %v", err)
	}
}

func TestChildEnv(t *testing.T) {
	job := testJob(t)
	job.Devices = []runner.Device{{Index: 3, Vendor: "nvidia"}, {Index: 1, Vendor: "nvidia"}}
	job.Sweep.Env = []sweep.EnvVar{{Name: "A", Value: "of the sweep"}}
	env, _ := childEnv([]string{"A=inherited", "CUDA_VISIBLE_DEVICES=7", "PATH=/bin"}, job)
	got := strings.Join(env, " ")
	if want := "PATH=/bin PYTHONUNBUFFERED=1 CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=3,1 A=of the sweep"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	hip := 5
	job.Devices = []runner.Device{{Index: 2, Vendor: "amd"}, {Index: 0, Vendor: "amd", ComputeIndex: &hip}}
	env, _ = childEnv([]string{"CUDA_VISIBLE_DEVICES=7", "ROCR_VISIBLE_DEVICES=0"}, job)
	if got := strings.Join(env, " "); got != "PYTHONUNBUFFERED=1 HIP_VISIBLE_DEVICES=2,5 A=of the sweep" {
		t.Errorf("got %s", got)
	}
}

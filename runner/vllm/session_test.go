package vllm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
)

// fakeDriver is a stand-in for vLLM's Python that speaks the protocol and
// misbehaves as mode says.
func fakeDriver(mode string) {
	in, out := os.NewFile(3, "in"), os.NewFile(4, "out")
	say := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	now := func() float64 { return float64(time.Now().UnixMicro()) / 1e6 }
	fmt.Println("INFO loading")
	if mode == "dies at start" {
		os.Exit(3)
	}
	fmt.Println("INFO 01-01 00:00:00 [core.py:1] init engine (profile, create kv cache, warmup model) took 1 s")
	say(`{"event":"ready","t":%f,"vllm_version":"0.29.0","torch":{"ranks":[{"rank":0,"t":%f,"allocated_bytes":100,"free_bytes":5}]}}`, now(), now())
	lines := bufio.NewScanner(in)
	served := 0
	for lines.Scan() {
		var r request
		if json.Unmarshal(lines.Bytes(), &r) != nil || r.Op == "quit" {
			say(`{"event":"bye"}`)
			return
		}
		if served++; served == 2 && mode == "dead between" {
			os.Exit(9)
		}
		if served == 2 && mode == "deaf between" {
			time.Sleep(time.Hour)
		}
		fmt.Fprintf(os.Stderr, "profile %d of batch %d\n", r.ID, r.BatchSize)
		say(`{"event":"profile_start","t":%f,"id":%d}`, now(), r.ID)
		misbehave(mode, r, out, say)
		var latencies []string
		for range r.NumIters {
			latencies = append(latencies, strconv.FormatFloat(0.1*float64(r.BatchSize), 'g', -1, 64))
		}
		say(`{"event":"warmed_up","t":%f,"id":%d}`, now(), r.ID)
		say(`{"event":"result","t":%f,"id":%d,"avg_latency":%g,"latencies":[%s],"percentiles":{"50":0.1},"torch":{"ranks":[]},`+
			`"engine":{"kv_used_blocks_peak":7,"block_size":16,"waiting_peak":0,"preemptions":0}}`,
			now(), r.ID, 0.1*float64(r.BatchSize), strings.Join(latencies, ","))
	}
}

func misbehave(mode string, r request, out *os.File, say func(string, ...any)) {
	switch {
	case mode == "garbage":
		fmt.Fprint(out, "INFO vLLM prints here\n{\"half\n\n")
	case mode == "half a line" && r.BatchSize == 2:
		fmt.Fprint(out, `{"event":"resu`)
		os.Exit(1)
	case mode == "out of memory" && r.BatchSize == 2:
		fmt.Fprintln(os.Stderr, "torch.OutOfMemoryError: CUDA out of memory.")
		say(`{"event":"error","id":%d,"kind":"oom","message":"torch.OutOfMemoryError: CUDA out of memory."}`, r.ID)
		os.Exit(1)
	case mode == "too long" && r.BatchSize == 2:
		say(`{"event":"error","id":%d,"kind":"bad_argument","message":"ValueError: too long"}`, r.ID)
	case mode == "secret" && r.BatchSize == 2:
		fmt.Fprintf(out, "Bearer and %s\n", os.Getenv("HF_TOKEN"))
		fmt.Fprintln(os.Stderr, "the token is", os.Getenv("HF_TOKEN"))
		say(`{"event":"error","id":%d,"kind":"engine_error","message":"OSError: 401 for %s"}`, r.ID, os.Getenv("HF_TOKEN"))
		os.Exit(1)
	case mode == "hangs" && r.BatchSize == 2:
		time.Sleep(time.Hour)
	}
}

func newSession(t *testing.T, mode string) *Session {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	e := &Session{
		BaseEnv:  append(os.Environ(), "FAKE_DRIVER="+mode, "HF_TOKEN=hf_secret_secret_secret"),
		Python:   func(*sweep.Profile) ([]string, error) { return []string{self}, nil },
		Grace:    300 * time.Millisecond,
		Patience: 300 * time.Millisecond,
	}
	t.Cleanup(func() {
		if _, err := e.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

func profile(batch int64) *sweep.Profile {
	iters, longest := int64(3), int64(64)
	return &sweep.Profile{Sweep: "s", Settings: sweep.Settings{Model: "m", HFModelID: "m",
		Asked: sweep.Asked{BatchSize: batch, InputLen: 8, OutputLen: 4, NumIters: &iters, MaxModelLen: &longest}}}
}

func job(t *testing.T, batch int64, keep bool) *runner.Job {
	return &runner.Job{RunID: fmt.Sprint("run", batch), Profile: profile(batch), Sweep: &sweep.Sweep{}, Dir: t.TempDir(), KeepEngine: keep,
		StartedAt: time.Now(), Progress: func(runner.Progress) {}, Pulse: &runner.Pulse{}}
}

func serveAll(t *testing.T, e *Session, n int, change ...func(*sweep.Profile)) []*runner.Measurement {
	t.Helper()
	var out []*runner.Measurement
	for batch := int64(1); batch <= int64(n); batch++ {
		j := job(t, batch, batch < int64(n))
		for _, f := range change {
			f(j.Profile)
		}
		m, err := e.Run(t.Context(), j)
		if err != nil {
			t.Fatalf("profile %d: %v", batch, err)
		}
		out = append(out, m)
	}
	return out
}

func outcomes(all []*runner.Measurement) string {
	var out []string
	for _, m := range all {
		out = append(out, fmt.Sprintf("%s@%d", m.Outcome, m.Session.Position))
	}
	return strings.Join(out, " ")
}

func TestOneEngineServesAll(t *testing.T) {
	e := newSession(t, "well")
	e.Runs = map[string]int{profile(1).EngineKey(): 3}
	all := serveAll(t, e, 3)
	if got := outcomes(all); got != "ok@0 ok@1 ok@2" {
		t.Fatalf("outcomes %s", got)
	}
	if all[1].Latency.AvgS != 0.2 || all[1].Latency.NIters != 3 || *all[1].Latency.OutputTokensPerS != 40 {
		t.Errorf("latency of the second profile: %+v", all[1].Latency)
	}
	if n := all[2].Session.GroupSize; n != 3 {
		t.Errorf("a group of %d, want 3", n)
	}
	if *all[2].Session.KVUsedTokensPeak != 112 {
		t.Errorf("KV tokens %d, want 7 blocks of 16", *all[2].Session.KVUsedTokensPeak)
	}
	if len(all[0].Events) == 0 || all[0].Events[0].Kind != runner.EventEngineReady || all[1].Events[0].Kind != runner.EventRequestStart {
		t.Errorf("the start of the engine belongs to the first run alone: %+v", all[1].Events)
	}
	if e.Alive(profile(9)) {
		t.Error("the engine lives on after the last run of its group")
	}
}

func TestEachRunHasTheStartUpLog(t *testing.T) {
	e := newSession(t, "well")
	first, second := job(t, 1, true), job(t, 2, false)
	for _, j := range []*runner.Job{first, second} {
		if _, err := e.Run(t.Context(), j); err != nil {
			t.Fatal(err)
		}
	}
	for batch, j := range []*runner.Job{first, second} {
		out, err := os.ReadFile(filepath.Join(j.Dir, "stdout.log"))
		if err != nil || !strings.Contains(string(out), "warmup model) took") {
			t.Errorf("stdout.log of run %d: %q, %v", batch+1, out, err)
		}
		text, err := os.ReadFile(filepath.Join(j.Dir, "stderr.log"))
		if err != nil || !strings.Contains(string(text), fmt.Sprintf("profile %d of", batch+1)) || strings.Contains(string(text), fmt.Sprintf("profile %d of", 2-batch)) {
			t.Errorf("stderr.log of run %d: %q, %v", batch+1, text, err)
		}
	}
}

func TestFaults(t *testing.T) {
	cases := map[string]string{
		"garbage":       "ok@0 ok@1 ok@2",
		"half a line":   "ok@0 engine_error@1 ok@0",
		"out of memory": "ok@0 oom@1 ok@0",
		"dies at start": "engine_error@0 engine_error@0 engine_error@0",
		"too long":      "ok@0 bad_argument@1 ok@2",
		"dead between":  "ok@0 ok@0 ok@0", // neither profile's fault
		"deaf between":  "ok@0 ok@0 ok@0",
		"secret":        "ok@0 engine_error@1 ok@0",
	}
	for mode, want := range cases {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			all := serveAll(t, newSession(t, mode), 3)
			if got := outcomes(all); got != want {
				t.Errorf("outcomes %s, want %s", got, want)
			}
			if mode == "garbage" && len(all[0].Notes) == 0 {
				t.Error("garbage on the pipe was not noted")
			}
			if strings.HasSuffix(mode, "between") && !strings.Contains(strings.Join(all[1].Notes, "\n"), "a fresh one was started") {
				t.Errorf("the fresh engine is not noted: %q", all[1].Notes)
			}
			for _, m := range all {
				text, err := json.Marshal(m)
				if err != nil || strings.Contains(string(text), "hf_secret") {
					t.Errorf("a secret stands in the measurement: %s, %v", text, err)
				}
			}
			if m := all[1]; mode == "secret" && (m.Detail != "OSError: 401 for [masked]" || m.ErrorLine != "the token is [masked]") {
				t.Errorf("detail %q, line %q", m.Detail, m.ErrorLine)
			}
		})
	}
}

func TestLimitEndsTheEngine(t *testing.T) {
	e := newSession(t, "hangs")
	if m, err := e.Run(t.Context(), job(t, 1, true)); err != nil || m.Outcome != runner.OutcomeOK {
		t.Fatalf("first profile: %v, %v", m, err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("limits.timeout"))
	defer cancel()
	m, err := e.Run(ctx, job(t, 2, true))
	if err != nil || m.Outcome != runner.OutcomeInterrupted || m.Detail != "limits.timeout" {
		t.Fatalf("hanging profile: %+v, %v", m, err)
	}
	if e.Alive(profile(3)) {
		t.Error("the engine that hung is still up")
	}
	if m, err := e.Run(t.Context(), job(t, 3, false)); err != nil || m.Outcome != runner.OutcomeOK || m.Session.Position != 0 {
		t.Errorf("the group does not go on in a fresh engine: %+v, %v", m, err)
	}
}

func FuzzReadReplies(f *testing.F) {
	f.Add([]byte(`{"event":"ready"}` + "\n" + `{"event":"iter","n":1}`))
	f.Add([]byte("\n\n{\"half"))
	f.Fuzz(func(t *testing.T, data []byte) {
		readReplies(strings.NewReader(string(data)), func(r *reply, err error) {
			if (r == nil) == (err == nil) {
				t.Error("a line is neither a reply nor an error")
			}
		})
	})
}

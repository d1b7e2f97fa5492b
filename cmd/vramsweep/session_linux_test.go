package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks"
)

// What happens to the profiles of one group, by batch size, and what their rows
// say of it. A profile without a fault comes after each that ends the engine:
// it must be measured, on a fresh one.
var sessionFaults = []struct {
	batch   int
	chaos   string
	outcome runner.Outcome
	detail  string
}{
	{1, "", runner.OutcomeOK, ""},
	{2, `{ do = "fail_oom" }`, runner.OutcomeOOM, "160 MiB more"},
	{3, "", runner.OutcomeOK, ""},
	{4, `{ do = "hang", at = "measure" }`, runner.OutcomeSilenceTimeout, "silence_timeout"},
	{5, `{ do = "die", at = "measure" }`, runner.OutcomeEngineError, "signal killed"},
	{6, `{ do = "broken_result" }`, runner.OutcomeEngineError, "exit code 1"},
	{7, `{ do = "pipe_garbage" }`, runner.OutcomeOK, ""},
	{8, `{ do = "pipe_print" }`, runner.OutcomeOK, ""},
	{9, `{ do = "no_result" }`, runner.OutcomeNoResult, "without latencies"},
	{10, `{ do = "empty_result" }`, runner.OutcomeEngineError, "exit code 0"},
	{11, `{ do = "setsid" }`, runner.OutcomeOK, ""},
	{12, `{ do = "double_fork" }`, runner.OutcomeOK, ""},
	{13, `{ do = "flood", bytes = "20MiB" }`, runner.OutcomeOK, ""},
	{14, `{ do = "die", at = "teardown" }`, runner.OutcomeOK, ""}, // between two profiles: the next one's engine is gone
	{15, "", runner.OutcomeOK, ""},
	{16, `{ do = "exit", at = "bench_warmup" }`, runner.OutcomeEngineError, "exit code 1"},
	{17, `{ do = "ignore_sigterm" }`, runner.OutcomeOK, ""},
	{18, `{ do = "hang_busy" }`, runner.OutcomeTimeout, "timeout"},
}

const sessionFaultSweep = `
sweep "faults" {
  matrix {
    model                = ["Qwen/Qwen3-0.6B"]
    tensor_parallel_size = [1]
    input_len            = [128]
    output_len           = [32]
    batch_size           = range(1, %d)
  }
  engine "simulator" {
    mode  = "session"
    plant = { chaos = [%s] }
  }
  sample { interval = "20ms" }
  limits {
    timeout         = "9s" # a profile takes about a second where nothing else runs
    silence_timeout = "4s"
    retries         = 0
  }
}
`

// TestSessionFaults: each fault in the middle of a group is charged to its
// profile, the rest of the group is measured, and nothing is left.
func TestSessionFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	bin, dir := buildProgram(t), t.TempDir()
	var chaos strings.Builder
	for _, f := range sessionFaults {
		if f.chaos != "" {
			fmt.Fprintf(&chaos, "%s, when = { batch_size = %d } },\n", strings.TrimSuffix(f.chaos, " }"), f.batch)
		}
	}
	file := writeSweep(t, dir, fmt.Sprintf(sessionFaultSweep, len(sessionFaults)+1, chaos.String()))
	cmd, out := start(t, bin, dir, "run", "--brief", "--output-dir", "out", file)
	if code := exitCode(cmd.Wait()); code != exitSomeFailed {
		t.Fatalf("exit code %d, want %d\n%s", code, exitSomeFailed, out)
	}
	checkFolder(t, dir, len(sessionFaults), func(*runner.Result) bool { return true })
	var rows []sinks.RunRow
	for row, err := range sinks.Read[sinks.RunRow](sinks.Predicate{}, filepath.Join(dir, "out")) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b sinks.RunRow) int { return int(a.BatchSize - b.BatchSize) })
	if len(rows) != len(sessionFaults) {
		t.Fatalf("%d rows, want %d", len(rows), len(sessionFaults))
	}
	for i, want := range sessionFaults {
		row := rows[i]
		detail := ""
		if row.OutcomeDetail != nil {
			detail = *row.OutcomeDetail
		}
		if row.Outcome != string(want.outcome) || !strings.Contains(detail, want.detail) {
			t.Errorf("batch %d (%s): %s (%s), want %s (%s)", want.batch, want.chaos, row.Outcome, detail, want.outcome,
				want.detail)
		}
		covered := row.Quality != nil && *row.Quality == string(runner.QualityFull) // a busy machine misses samples
		if want.outcome == runner.OutcomeOK && (row.AvgLatencyS == nil || row.KVCacheTokens == nil || covered &&
			(row.SessionStartBytes == nil || row.KVUsedSource == nil || *row.KVUsedSource != "engine")) {
			t.Errorf("batch %d: the row of a measured profile lacks figures: %+v", want.batch, row)
		}
	}
	checkPositions(t, rows)
}

// checkPositions checks that profiles count up on an engine, from 0 after each
// fault that ended one.
func checkPositions(t *testing.T, rows []sinks.RunRow) {
	t.Helper()
	want := int64(0)
	for i, row := range rows {
		if row.GroupPosition == nil || int64(*row.GroupPosition) != want {
			t.Errorf("batch %d stands at position %v of its engine, want %d", row.BatchSize, row.GroupPosition, want)
		}
		want++
		if row.Outcome != string(runner.OutcomeOK) || strings.Contains(sessionFaults[i].chaos, "teardown") {
			want = 0
		}
	}
}

const bothModesSweep = `
sweep "both" {
  matrix {
    model                = ["Qwen/Qwen3-0.6B"]
    tensor_parallel_size = [2]
    input_len            = [128]
    output_len           = [32]
    batch_size           = [1, 4]
  }
  engine "simulator" {
    num_iters        = 5
    num_iters_warmup = 2
  }
  sample { interval = "20ms" }
}
`

// TestBothModesAgree: the same profiles have the same latencies and KV tokens in
// both modes, and session mode alone tells torch's figures.
func TestBothModesAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	bin, dir := buildProgram(t), t.TempDir()
	file := writeSweep(t, dir, bothModesSweep)
	byMode := map[string]map[string]sinks.RunRow{}
	for _, mode := range []string{"latency", "session"} {
		cmd, out := start(t, bin, dir, "run", "--brief", "--output-dir", mode, "--mode", mode, file)
		if code := exitCode(cmd.Wait()); code != 0 {
			t.Fatalf("%s mode: exit code %d\n%s", mode, code, out)
		}
		byMode[mode] = map[string]sinks.RunRow{}
		for row, err := range sinks.Read[sinks.RunRow](sinks.Predicate{}, filepath.Join(dir, mode)) {
			if err != nil {
				t.Fatal(err)
			}
			byMode[mode][row.ProfileID] = row
		}
		nothingLeft(t, filepath.Join(dir, mode))
	}
	for id, latency := range byMode["latency"] {
		session, ok := byMode["session"][id]
		switch {
		case !ok || session.EngineMode != "session":
			t.Errorf("profile %s has no row of session mode", id)
		case *latency.AvgLatencyS != *session.AvgLatencyS:
			t.Errorf("profile %s: %v s and %v s", id, *latency.AvgLatencyS, *session.AvgLatencyS)
		case *session.GroupSize != 2 || !*session.EngineShared:
			t.Errorf("profile %s: group of %d, shared %v", id, *session.GroupSize, *session.EngineShared)
		}
	}
	ranks := 0
	for row, err := range sinks.Read[sinks.RankRow](sinks.Predicate{}, filepath.Join(dir, "session")) {
		if err != nil {
			t.Fatal(err)
		}
		ranks++
		if row.TorchReservedBytes == nil || *row.TorchReservedBytes < 1<<30 {
			t.Errorf("rank %d of %s: torch's figures are %v", row.Rank, row.RunID, row.TorchReservedBytes)
		}
	}
	if ranks != 4 {
		t.Errorf("%d rows of ranks, want 4", ranks)
	}
}

// TestLinksInTheFolder: links and FIFOs in an output folder are neither followed
// nor waited for, in either mode, and what they point at stays as it is.
func TestLinksInTheFolder(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	bin := buildProgram(t)
	for _, name := range []string{".simulated-gpu", "runs", "executions", "tables"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			treasure := filepath.Join(dir, "treasure")
			if err := os.MkdirAll(filepath.Join(dir, "out"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(treasure, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(treasure, "1-0.held"), []byte("mine"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(treasure, filepath.Join(dir, "out", name)); err != nil {
				t.Fatal(err)
			}
			cmd, out := start(t, bin, dir, "run", "--brief", "--output-dir", "out", writeSweep(t, dir, bothModesSweep))
			if code := exitCode(cmd.Wait()); code != exitFault || !strings.Contains(out.String(), "symbolic link") ||
				!strings.Contains(out.String(), name) {
				t.Errorf("exit code %d, want %d and a word about the link\n%s", code, exitFault, out)
			}
			left, err := os.ReadDir(treasure)
			if err != nil || len(left) != 1 {
				t.Errorf("the folder behind the link was changed: %v, %v", left, err)
			}
			if b, err := os.ReadFile(filepath.Join(treasure, "1-0.held")); err != nil || string(b) != "mine" {
				t.Errorf("the file behind the link was changed: %q, %v", b, err)
			}
		})
	}
}

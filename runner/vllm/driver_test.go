package vllm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

// driverEngine runs the real driver on a stand-in for vLLM of some version.
func driverEngine(t *testing.T, version string) *Session {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		testenv.Skip(t, "no python3 on this machine")
	}
	fakes, err := filepath.Abs("testdata/python")
	if err != nil {
		t.Fatal(err)
	}
	e := newSession(t, "")
	e.BaseEnv = append(os.Environ(), "FAKE_VERSION="+version, "PYTHONPATH="+fakes)
	e.Python = func(*sweep.Profile) ([]string, error) { return []string{python, "-B"}, nil }
	return e
}

// TestDriver: the driver with the interfaces of vLLM 0.6.0 and of today.
func TestDriver(t *testing.T) {
	for version, c := range map[string]struct {
		blocks *int64
		reason string
	}{
		"0.6.0":  {nil, "no engine core that can be asked"},
		"0.6.6":  {nil, "no engine core that can be asked"},
		"0.29.0": {ptr(int64(50)), ""}, // half of the 100 beside the null block
	} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			e := driverEngine(t, version)
			all := serveAll(t, e, 2)
			if got := outcomes(all); got != "ok@0 ok@1" {
				t.Fatalf("outcomes %s: %s", got, all[0].Detail)
			}
			m := all[1]
			if m.Latency.NIters != 3 || len(m.Latency.Percentiles) != 5 || m.Latency.AvgS <= 0 {
				t.Errorf("latency %+v", m.Latency)
			}
			if len(m.Session.Torch) != 3 || *m.Session.Torch[2].ReservedBytes != 2000 || *m.Session.Torch[0].FreeBytes != 7000 {
				t.Errorf("torch %+v, notes %q", m.Session.Torch, m.Notes)
			}
			got, want := m.Session.KVUsedBlocksPeak, c.blocks
			if (got == nil) != (want == nil) || got != nil && *got != *want {
				t.Errorf("KV blocks %v, want %v", got, want)
			}
			if notes := strings.Join(m.Notes, "\n"); !strings.Contains(notes, c.reason) {
				t.Errorf("notes %q, want %q", notes, c.reason)
			}
		})
	}
}

// TestDriverRanks: an old vLLM on two GPUs cannot be asked, and says so.
func TestDriverRanks(t *testing.T) {
	two := func(p *sweep.Profile) { p.Settings.TensorParallelSize = 2 }
	m := serveAll(t, driverEngine(t, "0.6.2"), 1, two)[0]
	if m.Outcome != runner.OutcomeOK || len(m.Session.Torch) != 0 || !strings.Contains(strings.Join(m.Notes, "\n"), "no LLM.collective_rpc") {
		t.Errorf("%s, torch %+v, notes %q", m.Outcome, m.Session.Torch, m.Notes)
	}
}

// TestDriverRefuses: what the driver says of a version that is too old, of flags
// that vLLM does not know, and of failures inside a profile.
func TestDriverRefuses(t *testing.T) {
	if m := serveAll(t, driverEngine(t, "0.5.5"), 1)[0]; m.Outcome != runner.OutcomeEngineError || !strings.Contains(m.Detail, "0.6.0 or newer; this is 0.5.5") {
		t.Errorf("0.5.5: %s (%s)", m.Outcome, m.Detail)
	}
	unknown := func(p *sweep.Profile) { p.Engine.Flags = []sweep.Flag{{Name: "no_such_flag", Value: true}} }
	if m := serveAll(t, driverEngine(t, "0.29.0"), 1, unknown)[0]; m.Outcome != runner.OutcomeBadArgument || !strings.Contains(m.ErrorLine, "no-such-flag") {
		t.Errorf("unknown flag: %s (%s, %s)", m.Outcome, m.Detail, m.ErrorLine)
	}
	all := serveAll(t, driverEngine(t, "0.29.0"), 7)
	if got := outcomes(all); got != "ok@0 ok@1 ok@2 ok@3 oom@4 engine_error@0 ok@0" {
		t.Errorf("outcomes %s", got)
	}
	e := driverEngine(t, "0.29.0")
	long := job(t, 1, true)
	long.Profile.Settings.InputLen = 61
	m, err := e.Run(t.Context(), long)
	if err != nil || m.Outcome != runner.OutcomeBadArgument || !strings.Contains(m.Detail, fmt.Sprint(61)) {
		t.Errorf("an input that is too long: %+v, %v", m, err)
	}
	if m, err := e.Run(t.Context(), job(t, 2, false)); err != nil || m.Outcome != runner.OutcomeOK || m.Session.Position != 1 {
		t.Errorf("the profile after it: %+v, %v", m, err)
	}
}

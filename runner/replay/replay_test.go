package replay_test

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/replay"
	"github.com/vramsweep/vramsweep/sweep/models"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

const box = "testdata/llama-3.1-8b"

func load(t *testing.T) *replay.Recording {
	t.Helper()
	r, err := replay.Load(box, replay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLoad(t *testing.T) {
	r := load(t)
	s := r.Job.Profile.Settings
	if s.Model != "llama-3.1-8b" || s.InputLen != 512 || s.OutputLen != 32 || s.BatchSize != 8 || *s.MaxModelLen != 8192 || *s.NumIters != 5 || *s.NumItersWarmup != 2 || *s.LoadFormat != "dummy" || s.TensorParallelSize != 1 {
		t.Errorf("settings %+v", s)
	}
	if r.Job.Profile.Model == nil || r.Job.Profile.Model.VocabSize != 128256 {
		t.Errorf("model %+v, expected that of configs/ beside the recording", r.Job.Profile.Model)
	}
	want := time.Date(2026, 11, 23, 18, 59, 50, 816e6, time.UTC)
	if !r.Job.StartedAt.Equal(want) {
		t.Errorf("started at %v, expected %v", r.Job.StartedAt, want)
	}
	m := r.Measured.Measurement
	if m.Outcome != runner.OutcomeOK || m.Latency == nil || m.Latency.NIters != 5 || len(m.Latency.LatenciesS) != 5 || m.Latency.Percentiles["p99"] < 0.3 {
		t.Errorf("outcome %s, latency %+v", m.Outcome, m.Latency)
	}
	if rate := m.Latency.OutputTokensPerS; rate == nil || math.Abs(*rate-8*32/m.Latency.AvgS) > 1e-9 {
		t.Errorf("tokens a second %v", rate)
	}
	if m.Account == nil || *m.Account.ModelWeightsGB != 15 || r.Result.VLLMInternalMetrics != m.Account {
		t.Errorf("account %+v", m.Account)
	}
	if r.Result.Provenance.VLLMEnv["VLLM_USE_FLASHINFER_SAMPLER"] != "0" || *r.Result.EngineMetadata.CompileCache != "cold" || *r.Result.EngineMetadata.ModelRunner != "v2" {
		t.Errorf("provenance %+v, engine %+v", r.Result.Provenance, r.Result.EngineMetadata)
	}
	if p := r.Measured.Reports[0]; p.Ticks != 1382 || p.PowerKind != "averaged_1s" || *p.IntervalMS.P50 < 90 || *p.IntervalMS.P50 > 110 {
		t.Errorf("report %+v", p)
	}
}

// TestSamplesAgain: samples are yielded as often as they are asked for, with
// the units of a Sample.
func TestSamplesAgain(t *testing.T) {
	r := load(t)
	for range 2 {
		n, peak := 0, int64(0)
		var last time.Duration = -1
		err := r.Measured.Samples.ReadSamples(func(tick []runner.Sample) error {
			for _, s := range tick {
				n++
				peak = max(peak, s.MemoryUsed)
				if s.Offset < last {
					t.Fatalf("sample at %v after one at %v", s.Offset, last)
				}
				last = s.Offset
				if s.Has&runner.HasPower == 0 || s.Power < 50 || s.Power > 800 || s.Energy < 20_000 || s.MemoryReserved != 480<<20 {
					t.Fatalf("sample %+v: units", s)
				}
				if !s.TS.Equal(r.Job.StartedAt.Add(s.Offset)) {
					t.Fatalf("sample at %v has offset %v", s.TS, s.Offset)
				}
			}
			return nil
		})
		if err != nil || n != 1382 || peak != 79690530816 {
			t.Errorf("%d samples, peak %d, error %v", n, peak, err)
		}
	}
}

// write makes a recording of files.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const okInfo = `{"name":"x","command":["vllm","bench","latency","--model=m","--enforce-eager","--max_model_len","64"],"gpus":[0],"exit_code":0,"started_at_unix_s":1795460390.5,"wall_s":10}`

func TestLoadErrors(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"empty folder":     {nil, "expected a folder with run.json"},
		"no JSON":          {map[string]string{"run.json": "{"}, "not the JSON of a recording"},
		"another run.json": {map[string]string{"run.json": `{"schema_version":"3.1"}`}, "lacks started_at_unix_s or command"},
		"no logs":          {map[string]string{"run.json": okInfo}, "neither stdout.log nor stderr.log"},
		"broken latency":   {map[string]string{"run.json": okInfo, "stdout.log": "x", "latency.json": "nope"}, "latency.json"},
		"no head line":     {map[string]string{"run.json": okInfo, "stdout.log": "x", "timeline.csv": "a,b\n1,2\n"}, "timeline.csv:1"},
		"short line":       {map[string]string{"run.json": okInfo, "stdout.log": "x", "timeline.csv": "t_s,gpu_index\n1\n"}, "timeline.csv:2: 1 fields"},
		"no number":        {map[string]string{"run.json": okInfo, "stdout.log": "x", "timeline.csv": "t_s,gpu_index,power_mw\n1,0,3\n2,0,[N/A]\n"}, `timeline.csv:3: column power_mw holds "[N/A]"`},
		"not a number":     {map[string]string{"run.json": okInfo, "stdout.log": "x", "timeline.csv": "t_s,gpu_index\nNaN,0\n"}, "expected a number"},
	} {
		_, err := replay.Load(write(t, c.files), replay.Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, expected it to say %q", name, err, c.want)
		}
	}
}

// TestLoadLeast: a recording without samples and without a result.
func TestLoadLeast(t *testing.T) {
	dir := write(t, map[string]string{"run.json": okInfo, "stderr.log": "x\n"})
	if !replay.IsRecording(dir) || replay.IsRecording(t.TempDir()) {
		t.Error("which folder is a recording")
	}
	r, err := replay.Load(dir, replay.Options{Model: func(name string) *models.Architecture { return &models.Architecture{ID: name, VocabSize: 7} }})
	if err != nil {
		t.Fatal(err)
	}
	s := r.Job.Profile.Settings
	if s.Model != "m" || s.EnforceEager == nil || !*s.EnforceEager || s.MaxModelLen == nil || *s.MaxModelLen != 64 || s.MaxNumSeqs != nil {
		t.Errorf("settings %+v", s)
	}
	if r.Measured.Measurement.Outcome != runner.OutcomeNoResult || r.Measured.Samples != nil || *r.Result.ModelInfo.VocabSize != 7 || r.Result.ModelInfo.NumLayers != nil {
		t.Errorf("outcome %s, samples %v, model %+v", r.Measured.Measurement.Outcome, r.Measured.Samples, r.Result.ModelInfo)
	}
}

// TestOutcomes holds the outcomes of the failed recordings against what their
// own run.json expects.
func TestOutcomes(t *testing.T) {
	root := "../../../shared/corpus/h100-v0.26"
	if _, err := os.Stat(root); err != nil {
		testenv.Skip(t, "no recordings: %v", err)
	}
	for name, want := range map[string]runner.Outcome{
		"fail-bad-util": runner.OutcomeBadArgument, "fail-input-too-long": runner.OutcomeBadArgument, "fail-maxlen-131072": runner.OutcomeKVTooSmall,
		"fail-missing-model": runner.OutcomeEngineError, "fail-no-kv-util15": runner.OutcomeNoKVMemory, "fail-oom-load-70b": runner.OutcomeOOM,
		"tp2-fail-maxlen": runner.OutcomeKVTooSmall, "tp2-llama-3.1-8b": runner.OutcomeOK, "gemma-3-1b": runner.OutcomeOK,
	} {
		r, err := replay.Load(filepath.Join(root, name), replay.Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := r.Measured.Measurement.Outcome; got != want {
			t.Errorf("%s: outcome %s, expected %s", name, got, want)
		}
	}
}

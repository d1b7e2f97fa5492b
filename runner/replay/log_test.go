package replay_test

import (
	"os"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/runner/recorded"
	"github.com/vramsweep/vramsweep/runner/replay"
	vllmlog "github.com/vramsweep/vramsweep/runner/vllm/log"
)

func readLog(t *testing.T, text string) *vllmlog.Log {
	t.Helper()
	log, err := vllmlog.ReadLogs(vllmlog.NamedReader{Name: "server", R: strings.NewReader(text)})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestLoadLog: a log alone tells what vLLM says of memory, and nothing else.
func TestLoadLog(t *testing.T) {
	text, err := os.ReadFile(recorded.Folder(t, "h100-v0.26") + "/runs/recording/recording-llama-3.1-8b-r1/stdout.log")
	if err != nil {
		t.Fatal(err)
	}
	r, err := replay.LoadLog([]string{"logs/server.log"}, readLog(t, string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SetGPU("NVIDIA H100 80GB HBM3"); err != nil {
		t.Fatal(err)
	}
	result := r.Attribute(&attribution.Attributor{})
	if result.Run.RunID != "server" || result.Run.Outcome != runner.OutcomeNoResult || !result.Run.StartedAt.IsZero() || result.ModelInfo.Model != "llama-3.1-8b" {
		t.Errorf("run %+v of %+v", result.Run, result.ModelInfo)
	}
	if len(result.GPUInfo) != 1 || result.GPUInfo[0].Name != "NVIDIA H100 80GB HBM3" || result.GPUInfo[0].Vendor != "nvidia" {
		t.Errorf("devices %+v", result.GPUInfo)
	}
	if len(result.Ranks) != 1 || result.Ranks[0].ActivationsReservedBytes == nil || *result.Ranks[0].ActivationsReservedBytes != 1900523028 {
		t.Errorf("ranks %+v, want 1.77 GiB of activations", result.Ranks)
	}
	if b := result.MemoryBreakdown; b != nil && b.TotalMeasuredGB != nil {
		t.Errorf("nobody sampled it, yet its highest use is %v", *b.TotalMeasuredGB)
	}
	if err := r.SetGPU(""); err == nil {
		t.Error("a GPU without a name")
	}
}

// TestLoadLogRefuses: what is no log of a run, and how a failed one ended.
func TestLoadLogRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"hello\n": "nothing of vLLM's",
		"INFO 11-23 19:00:49 [model_runner.py:305] Model loading took 15.0 GiB and 2.380264 seconds\n": "does not name its model",
	} {
		if _, err := replay.LoadLog([]string{"x.log"}, readLog(t, text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
	const head = "INFO 11-23 19:00:44 [core.py:116] Initializing a V1 LLM engine (v0.26.0) with config: model='m', dtype=torch.bfloat16, max_seq_len=8192, tensor_parallel_size=1\n"
	for text, want := range map[string]runner.Outcome{
		head: runner.OutcomeEngineError,
		head + "INFO 11-23 19:01:19 [gpu_worker.py:560] Available KV cache memory: 55.85 GiB\n":                                                   runner.OutcomeNoResult,
		head + "ERROR 11-23 19:01:19 [core.py:1] ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`\n": runner.OutcomeNoKVMemory,
	} {
		r, err := replay.LoadLog([]string{"x.log"}, readLog(t, text))
		if err != nil || r.Result.Run.Outcome != want || r.Result.Run.OutcomeDetail == "" {
			t.Errorf("%q: %+v (%v), want %s", text, r, err, want)
		}
	}
}

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// tinyModel is a model of four layers with random weights: it needs no
// download, and its vocabulary holds the benchmark's token ids.
const tinyModel = `{"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3","hidden_size":256,"intermediate_size":768,
"num_hidden_layers":4,"num_attention_heads":8,
"num_key_value_heads":4,"head_dim":32,"vocab_size":16384,"max_position_embeddings":4096,"rms_norm_eps":1e-6,
"rope_theta":10000.0,"hidden_act":"silu",
"tie_word_embeddings":true,"torch_dtype":"bfloat16","bos_token_id":1,"eos_token_id":2,"attention_bias":false}`

const tinySweep = `
variable "vllm" { type = string }
variable "mode" { default = "latency" }
variable "start" { default = "auto" }

sweep "tiny" {
  matrix {
    input_len  = [32, 64]
    batch_size = [1, 2]
  }
  engine "vllm" {
    command          = [var.vllm]
    mode             = var.mode
    start            = var.start
    model            = "tiny"
    load_format      = "dummy"
    dtype            = "bfloat16"
    enforce_eager    = true
    max_model_len    = 1024
    output_len       = 16
    num_iters        = 5
    num_iters_warmup = 2
  }
  env {
    HF_HUB_OFFLINE         = "1"
    VLLM_CPU_KVCACHE_SPACE = "1"
  }
}
`

// TestRealVLLM runs a sweep with real vLLM on this machine's CPU in both modes, in
// latency mode with cold and with warm starts, and reads the tables with DuckDB and pandas where Python has them.
// VRAMSWEEP_TEST_VLLM names the executable; VRAMSWEEP_TEST_PYTHON a Python with
// duckdb and pandas.
func TestRealVLLM(t *testing.T) {
	vllm := os.Getenv("VRAMSWEEP_TEST_VLLM")
	if vllm == "" {
		t.Skip("VRAMSWEEP_TEST_VLLM names no vllm: make test-vllm VLLM=DIR/bin/vllm")
	}
	bin, dir := buildProgram(t), t.TempDir()
	file := writeSweep(t, dir, tinySweep)
	if err := os.MkdirAll(filepath.Join(dir, "tiny"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tiny", "config.json"), []byte(tinyModel), 0o644); err != nil {
		t.Fatal(err)
	}
	wall := map[string]float64{}
	for _, c := range []struct{ name, mode, start, starts string }{
		{"cold", "latency", "cold", "cold"}, {"latency", "latency", "auto", "warm"}, {"session", "session", "warm", "warm"},
	} {
		cmd, out := start(t, bin, dir, "run", file, "--var", "vllm="+vllm, "--var", "mode="+c.mode, "--var", "start="+c.start,
			"--output-dir", c.name, "--brief", "--summary-json", c.name+".json")
		if code := exitCode(cmd.Wait()); code != 0 {
			t.Fatalf("%s: exit code %d\n%s", c.name, code, out)
		}
		t.Logf("%s:\n%s", c.name, out)
		wall[c.name] = summaryOf(t, filepath.Join(dir, c.name+".json"))
		checkRealRuns(t, filepath.Join(dir, c.name), c.mode, c.starts)
		nothingLeft(t, filepath.Join(dir, c.name))
		readElsewhere(t, filepath.Join(dir, c.name))
	}
	t.Logf("wall time: latency mode cold %.0f s, warm %.0f s, session mode %.0f s", wall["cold"], wall["latency"], wall["session"])
}

func summaryOf(t *testing.T, file string) float64 {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var summary struct {
		OK    int     `json:"ok"`
		WallS float64 `json:"wall_s"`
	}
	if err := json.Unmarshal(data, &summary); err != nil || summary.OK != 4 {
		t.Errorf("summary %s: %v", data, err)
	}
	return summary.WallS
}

// checkRealRuns looks at the rows: what vLLM printed, and what it left behind.
func checkRealRuns(t *testing.T, dir, mode, starts string) {
	t.Helper()
	n := 0
	for row, err := range sinks.Read[sinks.RunRow](sinks.Predicate{}, dir) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		t.Logf("import_seconds %v, start_reason %q", frame.Deref(row.ImportSeconds), frame.Deref(row.StartReason))
		switch {
		case frame.Deref(row.StartMode) != starts:
			t.Errorf("run %s: start %q (%s), want %s", row.RunID, frame.Deref(row.StartMode), frame.Deref(row.StartReason), starts)
		case row.Outcome != "ok" || row.Synthetic || row.EngineMode != mode:
			t.Errorf("run %s: outcome %s, synthetic %v, mode %s", row.RunID, row.Outcome, row.Synthetic, row.EngineMode)
		case row.KVCacheTokens == nil || *row.KVCacheTokens != 524288:
			t.Errorf("run %s: KV tokens %v, vLLM prints 524,288 for 1 GiB of this model", row.RunID, row.KVCacheTokens)
		case row.AvgLatencyS == nil || row.PeakMemoryBytes == nil || *row.PeakMemoryBytes < 1<<30:
			t.Errorf("run %s: latency %v, peak %v", row.RunID, row.AvgLatencyS, row.PeakMemoryBytes)
		}
	}
	if n != 4 {
		t.Errorf("%d rows, want 4", n)
	}
}

const elsewhere = `
import duckdb, pandas, sys
d = sys.argv[1]
print(duckdb.sql(f"SELECT model, input_len, batch_size, peak_memory_bytes FROM read_parquet('{d}/tables/runs/**/*.parquet') ORDER BY ALL"))
frame = pandas.read_parquet(d + "/tables/runs")
assert len(frame) == 4 and (frame.peak_memory_bytes > 2**30).all(), frame
`

// readElsewhere reads the tables as an analyst does.
func readElsewhere(t *testing.T, dir string) {
	t.Helper()
	python := os.Getenv("VRAMSWEEP_TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	if exec.Command(python, "-c", "import duckdb, pandas").Run() != nil {
		t.Logf("%s has no duckdb and pandas: the tables are not read elsewhere", python)
		return
	}
	out, err := exec.Command(python, "-c", elsewhere, dir).CombinedOutput()
	if err != nil {
		t.Errorf("DuckDB and pandas: %v\n%s", err, out)
	}
	t.Log(strings.TrimSpace(string(out)))
}

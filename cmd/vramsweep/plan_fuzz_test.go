package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// sweepSeeds adds the files of all golden cases of the language and the examples.
func sweepSeeds(f *testing.F) {
	f.Helper()
	for _, pattern := range []string{"../../sweep/testdata/*/*.txtar", "../../examples/*.hcl"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			if filepath.Ext(path) == ".hcl" {
				f.Add(data)
				continue
			}
			for _, file := range txtar.Parse(data).Files {
				if filepath.Ext(file.Name) == ".hcl" {
					f.Add(file.Data)
				}
			}
		}
	}
}

// FuzzPlan runs the whole of `plan` on any text: arithmetic on models and GPUs
// that files make up, command lines, hints, JSON. Nothing panics or hangs, the
// exit code is that of a good or a wrong file, and JSON is JSON.
func FuzzPlan(f *testing.F) {
	sweepSeeds(f)
	f.Add([]byte(`model "odd" {
  like         = "Qwen/Qwen3-30B-A3B"
  num_heads    = 7
  num_kv_heads = 3
  head_dim     = 1
  num_layers   = 5
}
gpu "small" {
  like         = "l4"
  total_memory = "1GiB"
  reserve      = "2GiB"
}
sweep "odd" {
  matrix {
    model                  = ["odd", "google/gemma-3-4b-it", "deepseek-ai/DeepSeek-V3"]
    tensor_parallel_size   = [1, 3]
    pipeline_parallel_size = [1, 7]
    kv_cache_dtype         = ["auto", "fp8"]
  }
  engine "vllm" {
    mode                  = "session"
    max_model_len         = 1
    input_len             = 1
    output_len            = 1
    kv_cache_memory_bytes = "1TiB"
    block_size            = 1
  }
}
`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "sweep.hcl"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"--limit", "50"}, {"--limit", "50", "--json", "--gpu", "mi300x"}} {
			var stdout, stderr bytes.Buffer
			w := &world{args: append([]string{"plan", "sweep.hcl"}, args...), env: []string{"GOGC=100"},
				stdout: &stdout, stderr: &stderr, dir: dir}
			if len(args) == 2 {
				w.args = append(w.args, "--gpu", "h100-80gb")
			}
			switch code := run(w); {
			case code == exitUsage && stdout.Len()+stderr.Len() == 0:
				t.Error("it refuses the file and does not say why")
			case code != exitOK && code != exitUsage:
				t.Errorf("exit code %d: %s", code, stderr.String())
			case len(args) > 2 && !json.Valid(stdout.Bytes()):
				t.Errorf("no JSON: %s", stdout.String())
			}
		}
	})
}

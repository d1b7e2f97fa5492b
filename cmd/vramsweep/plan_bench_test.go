package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// largeFile is a configuration of n*100-10 points whose expressions look at
// several axes, as real ones do.
func largeFile(n int) string {
	return fmt.Sprintf(`
locals { lengths = [for i in range(1, 11) : i * 128] }
sweep "large" {
  matrix {
    model                = ["Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B"]
    tensor_parallel_size = [1, 2, 4, 8, 16]
    input_len            = local.lengths
    batch_size           = [for i in range(1, %d) : i]
  }
  exclude { when = matrix.batch_size == 1 && matrix.input_len == 128 }
  engine "vllm" {
    gpu_memory_utilization = 0.9
    max_model_len          = matrix.input_len + profile.output_len
    max_num_seqs           = max(matrix.batch_size, 16)
    enforce_eager          = matrix.tensor_parallel_size > 4
    enable_prefix_caching  = false
  }
}
`, n+1)
}

// benchmarkPlan runs the whole of `plan --limit 20`, but for the start of the
// process.
func benchmarkPlan(b *testing.B, text string, profiles int) {
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sweep.hcl"), []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		w := &world{args: []string{"plan", "--limit", "20", "--gpu", "h100-80gb", "sweep.hcl"},
			stdout: io.Discard, stderr: os.Stderr, dir: dir}
		if code := run(w); code != exitOK {
			b.Fatalf("exit code %d", code)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(profiles), "ns/profile")
}

func BenchmarkPlan1k(b *testing.B)   { benchmarkPlan(b, largeFile(10), 990) }
func BenchmarkPlan10k(b *testing.B)  { benchmarkPlan(b, largeFile(100), 9990) }
func BenchmarkPlan100k(b *testing.B) { benchmarkPlan(b, largeFile(1000), 99990) }

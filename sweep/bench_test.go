package sweep

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// largeSweep is a configuration of n*100 points whose expressions look at
// several axes, as real ones do.
func largeSweep(n int) string {
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

// manyAxes varies six axes that one expression all depends on.
func manyAxes() string {
	return `
sweep "wide" {
  matrix {
    model                = ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"]
    dtype                = ["bfloat16", "float16"]
    tensor_parallel_size = [1, 2, 4, 8, 16]
    input_len            = [for i in range(1, 11) : i * 128]
    output_len           = [for i in range(1, 11) : i * 16]
    batch_size           = [for i in range(1, 51) : i]
  }
  exclude { when = matrix.batch_size * (matrix.input_len + matrix.output_len) > 71000 + matrix.tensor_parallel_size || matrix.model == matrix.dtype }
  engine "vllm" {
    max_model_len = matrix.input_len + matrix.output_len
  }
}
`
}

func writeFile(tb testing.TB, dir, name, text string) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
	return path
}

func benchmarkLoad(b *testing.B, text string, profiles int) {
	path := writeFile(b, b.TempDir(), "sweep.hcl", text)
	b.ReportAllocs()
	for b.Loop() {
		plan, err := Load(path, Inputs{})
		if err != nil {
			b.Fatal(err)
		}
		if n := len(plan.Sweeps[0].Profiles); n != profiles {
			b.Fatalf("%d profiles, want %d", n, profiles)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(profiles), "ns/profile")
}

func BenchmarkPlan1k(b *testing.B)       { benchmarkLoad(b, largeSweep(10), 990) }
func BenchmarkPlan10k(b *testing.B)      { benchmarkLoad(b, largeSweep(100), 9990) }
func BenchmarkPlan100k(b *testing.B)     { benchmarkLoad(b, largeSweep(1000), 99990) }
func BenchmarkPlan100kWide(b *testing.B) { benchmarkLoad(b, manyAxes(), 99960) }

func BenchmarkValidate(b *testing.B) {
	for b.Loop() {
		if _, err := Load("../examples/kv-scaling.hcl", Inputs{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBuiltins(b *testing.B) {
	for b.Loop() {
		_ = functionNames()
		_ = architectureNames()
	}
}

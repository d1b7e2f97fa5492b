package vllm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
)

func ptr[T any](v T) *T { return &v }

func TestArgs(t *testing.T) {
	base := sweep.Settings{HFModelID: "org/m",
		Asked: sweep.Asked{TensorParallelSize: 1, PipelineParallelSize: 1, InputLen: 8, OutputLen: 4, BatchSize: 2}}
	const plain = "--model org/m --input-len 8 --output-len 4 --batch-size 2 --tensor-parallel-size 1"
	for _, c := range []struct {
		name  string
		edit  func(*sweep.Profile)
		paths Paths
		want  string
		err   string
	}{
		{name: "plain", want: "vllm bench latency " + plain},
		{name: "output", paths: Paths{OutputJSON: "/r/l.json"}, want: "vllm bench latency " + plain + " --output-json /r/l.json"},
		{
			name: "command",
			edit: func(p *sweep.Profile) { p.Engine.Command = []string{"docker", "run", "img", "vllm"} },
			want: "docker run img vllm bench latency " + plain,
		},
		{
			name: "benchmark",
			edit: func(p *sweep.Profile) {
				p.Engine.Command, p.Engine.Benchmark, p.Engine.VLLMVersion = []string{"x"}, []string{"python", "b.py"}, "0.6.0"
			},
			want: "python b.py " + plain,
		},
		{
			name: "settings",
			edit: func(p *sweep.Profile) {
				s := &p.Settings
				s.Dtype, s.KVCacheDtype, s.Quantization, s.LoadFormat = ptr("bfloat16"), ptr("fp8"), ptr("awq"), ptr("auto")
				s.MaxModelLen, s.MaxNumSeqs, s.MaxNumBatchedTokens, s.BlockSize = ptr[int64](1), ptr[int64](2), ptr[int64](3), ptr[int64](16)
				s.KVCacheMemoryBytes, s.NumIters, s.NumItersWarmup = ptr[int64](1<<30), ptr[int64](5), ptr[int64](0)
				s.GPUMemoryUtilization, s.EnforceEager, s.TrustRemoteCode = ptr(0.85), ptr(true), ptr(false)
				s.PipelineParallelSize = 2
			},
			want: "vllm bench latency " + plain + " --pipeline-parallel-size 2 --dtype bfloat16 --kv-cache-dtype fp8 --quantization awq --load-format auto " +
				"--max-model-len 1 --max-num-seqs 2 --max-num-batched-tokens 3 --block-size 16 --kv-cache-memory-bytes 1073741824 --num-iters-warmup 0 --num-iters 5 " +
				"--gpu-memory-utilization 0.85 --enforce-eager --no-trust-remote-code",
		},
		{
			name: "flags",
			edit: func(p *sweep.Profile) {
				p.Engine.Flags = []sweep.Flag{
					{Name: "async_scheduling", Value: false}, {Name: "compilation_config", Value: map[string]any{"mode": int64(3), "custom_ops": []any{"none"}}},
					{Name: "cudagraph_capture_sizes", Value: []any{int64(1), int64(2)}}, {Name: "enable_lora", Value: true}, {Name: "seed", Value: int64(7)},
					{Name: "swap_space", Value: 4.0}, {Name: "x", Value: 0.25},
				}
			},
			want: "vllm bench latency " + plain + ` --no-async-scheduling --compilation-config {"custom_ops":["none"],"mode":3} --cudagraph-capture-sizes 1 2 --enable-lora --seed 7 --swap-space 4 --x 0.25`,
		},
		{name: "prefix caching in 0.8.5", edit: version("0.8.5.post1"), want: "vllm bench latency " + plain + " --no-enable-prefix-caching"},
		{name: "prefix caching in 0.9.1", edit: version("0.9.1"), want: "vllm bench latency " + plain},
		{
			name: "prefix caching asked for",
			edit: func(p *sweep.Profile) {
				p.Engine.VLLMVersion = "0.8.5"
				p.Engine.Flags = []sweep.Flag{{Name: "enable_prefix_caching", Value: true}}
			},
			want: "vllm bench latency " + plain + " --enable-prefix-caching",
		},
		{name: "no verb", edit: version("0.8.4"), err: "has no `vllm bench latency`"},
		{
			name: "flag of a later version",
			edit: func(p *sweep.Profile) {
				p.Engine.Benchmark, p.Engine.VLLMVersion, p.Settings.MaxNumSeqs = []string{"b.py"}, "0.6.3.post1", ptr[int64](4)
				p.Engine.Flags = []sweep.Flag{{Name: "disable_detokenize", Value: true}}
			},
			err: "no flag --max-num-seqs",
		},
		{
			name: "load format before 0.5.1",
			edit: func(p *sweep.Profile) {
				p.Engine.Benchmark, p.Engine.VLLMVersion, p.Settings.LoadFormat = []string{"b.py"}, "0.5.0", ptr("dummy")
			},
			err: "vLLM 0.5.0 has no flag --load-format: it came with 0.5.1",
		},
		{name: "empty list", edit: func(p *sweep.Profile) { p.Engine.Flags = []sweep.Flag{{Name: "a", Value: []any{}}} }, err: "empty list"},
		{
			name: "serve", edit: func(p *sweep.Profile) { p.Engine.Defaults = "serve" },
			paths: Paths{Devices: []runner.Device{{Name: "NVIDIA H100 80GB HBM3", TotalBytes: ptr[int64](80 << 30)}}},
			want:  "vllm bench latency " + plain + " --max-num-batched-tokens 8192 --max-num-seqs 1024",
		},
		{
			name: "serve on a small GPU", edit: func(p *sweep.Profile) { p.Engine.Defaults, p.Settings.MaxNumSeqs = "serve", ptr[int64](9) },
			paths: Paths{Devices: []runner.Device{{Name: "NVIDIA L4", TotalBytes: ptr[int64](22 << 30)}}},
			want:  "vllm bench latency " + plain + " --max-num-seqs 9 --max-num-batched-tokens 2048",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &sweep.Profile{Settings: base}
			if c.edit != nil {
				c.edit(p)
			}
			argv, err := Args(p, c.paths)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(argv, " "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func version(v string) func(*sweep.Profile) {
	return func(p *sweep.Profile) { p.Engine.VLLMVersion = v }
}

func TestArgsFolderWithoutTokenizer(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &sweep.Profile{Settings: sweep.Settings{HFModelID: dir, Asked: sweep.Asked{LoadFormat: ptr("dummy")}}}
	argv, _ := Args(p, Paths{})
	if got := strings.Join(argv, " "); !strings.Contains(got, "--skip-tokenizer-init --disable-detokenize") {
		t.Errorf("got %s", got)
	}
	p.Engine.Flags = []sweep.Flag{{Name: "skip_tokenizer_init", Value: true}}
	argv, _ = Args(p, Paths{})
	if got := strings.Join(argv, " "); strings.Count(got, "--skip-tokenizer-init") != 1 {
		t.Errorf("got %s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.Engine.Flags = nil
	argv, _ = Args(p, Paths{})
	if got := strings.Join(argv, " "); strings.Contains(got, "skip-tokenizer") {
		t.Errorf("got %s", got)
	}
}

func TestPaste(t *testing.T) {
	got := Paste([]string{"a b", "it's", "", "--x={\"a\":1}", "plain-1.5:/,@%+", "$HOME", "tilde~"})
	if want := `'a b' 'it'\''s' '' '--x={"a":1}' plain-1.5:/,@%+ '$HOME' 'tilde~'`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestReadLatency(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ text, err string }{
		{`{"avg_latency": 2.0, "latencies": [1.5, 2.5], "percentiles": {"10": 1.6, "99": 2.49}}`, ""},
		{"", "is empty"},
		{" \n", "is empty"},
		{`{"avg_latency": 2.0`, "not the JSON"},
		{`[]`, "not the JSON"},
		{`{"latencies": []}`, "no avg_latency"},
		{`{"avg_latency": 0, "latencies": [1]}`, "latency 0 is 0 s"},
		{`{"avg_latency": 1, "latencies": [1, -1]}`, "latency 2 is -1 s"},
		{`{"avg_latency": 0.5, "latencies": [1, 2]}`, "its latencies lie between 1 and 2 s"},
		{`{"avg_latency": 1, "latencies": [1, 1], "percentiles": {"50": -3}}`, "percentile 50 is -3 s"},
	} {
		path := filepath.Join(dir, "l.json")
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		stats, err := ReadLatency(path, 8, 16)
		switch {
		case c.err == "" && err != nil:
			t.Errorf("%q: %v", c.text, err)
		case c.err == "" && (stats.AvgS != 2 || stats.NIters != 2 || stats.Percentiles["p10"] != 1.6 || *stats.OutputTokensPerS != 64):
			t.Errorf("%q: %+v", c.text, stats)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), path)):
			t.Errorf("%q: error %v, want %q", c.text, err, c.err)
		}
	}
	link := filepath.Join(dir, "link.json")
	if err := os.Symlink("/dev/zero", link); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadLatency(link, 1, 1); err == nil || !strings.Contains(err.Error(), "is a link") {
		t.Errorf("a link: %v", err)
	}
	if _, err := ReadLatency(filepath.Join(dir, "none.json"), 1, 1); err == nil || !strings.Contains(err.Error(), "left no result file") {
		t.Errorf("missing file: %v", err)
	}
}

// FuzzLatencyFile: a result file is read or refused.
func FuzzLatencyFile(f *testing.F) {
	f.Add([]byte(`{"avg_latency": 2.0, "latencies": [1.5, 2.5], "percentiles": {"10": 1.6}}`))
	f.Add([]byte(`{"avg_latency": 1e309, "latencies": [null]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var file latencyFile
		if json.Unmarshal(b, &file) != nil {
			return
		}
		s, err := file.stats(3, 5)
		if (s == nil) == (err == nil) {
			t.Errorf("%+v, %v", s, err)
		}
		if s != nil && (!(s.AvgS > 0) || s.NIters != len(s.LatenciesS)) {
			t.Errorf("%+v", s)
		}
	})
}

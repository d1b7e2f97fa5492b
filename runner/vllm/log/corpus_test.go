package log

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

const corpusDir = "../../../../shared/corpus"

// corpus skips the test where the recordings are not there.
func corpus(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(corpusDir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		testenv.Skip(t, "no recordings at %s", filepath.Join(corpusDir, pattern))
	}
	return files
}

// readPaths reads the logs of one run and returns its first account.
func readPaths(t *testing.T, paths ...string) (*runner.Account, *Log) {
	t.Helper()
	var files []NamedReader
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, NamedReader{Name: filepath.Base(p), R: f})
	}
	log, err := readAll(files...)
	if err != nil {
		t.Fatal(err)
	}
	if len(log.Accounts) == 0 {
		t.Fatalf("no engine found in %v", paths)
	}
	return log.Accounts[0], log
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// asJSON gives the account's fields by the names that users see.
func asJSON(t *testing.T, v any) map[string]any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func same(got, want any) bool {
	g, ok1 := got.(float64)
	w, ok2 := want.(float64)
	if ok1 && ok2 {
		return math.Abs(g-w) <= 1e-9*math.Max(1, math.Abs(w))
	}
	return got == want
}

// logNames maps the names of vllm-logs to the account's.
var logNames = map[string]string{
	"model_weights_gib": "model_weights_gb", "kv_cache_gib": "available_kv_cache_gb", "kv_cache_tokens": "total_gpu_kv_cache_tokens",
	"num_gpu_blocks": "num_gpu_blocks", "num_cpu_blocks": "num_cpu_blocks", "block_size": "block_size", "activation_peak_gib": "activations_gb",
	"non_torch_gib": "non_torch_gb", "cuda_graph_gib": "graph_capture_gb", "cuda_graph_estimate_gib": "graph_estimate_gb", "attention_backend": "attention_backend",
	"max_model_len": "max_model_len", "gpu_memory_utilization": "gpu_memory_utilization", "max_concurrency": "max_concurrency",
	"kv_cache_dtype": "kv_cache_dtype", "engine": "engine", "total_gpu_memory_gib": "total_gpu_memory_gb", "free_memory_gib": "free_memory_gb",
	"requested_memory_gib": "requested_memory_gb", "quantization": "quantization", "init_engine_seconds": "init_engine_seconds",
	"model_load_seconds": "load_seconds", "error_kind": "error.kind", "needed_kv_gib": "error.needed_gb", "available_kv_gib": "error.available_gb",
	"estimated_max_model_len": "error.max_model_len_that_fits",
}

func lookup(m map[string]any, path string) any {
	for part := range strings.SplitSeq(path, ".") {
		m2, ok := m[part].(map[string]any)
		if !ok {
			return m[part]
		}
		m = m2
	}
	return m
}

func TestCorpusLogs(t *testing.T) {
	for _, path := range corpus(t, "vllm-logs/*.log") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			var side struct {
				VLLMVersion string         `json:"vllm_version"`
				TP          *float64       `json:"tp"`
				Expected    map[string]any `json:"expected"`
			}
			readJSON(t, strings.TrimSuffix(path, ".log")+".json", &side)
			a, log := readPaths(t, path)
			if len(log.Accounts) != 1 {
				t.Errorf("%d engines, want 1", len(log.Accounts))
			}
			got := asJSON(t, a)
			for name, want := range side.Expected {
				if name == "per_rank_note" {
					continue
				}
				field, ok := logNames[name]
				if !ok {
					t.Errorf("the sidecar has a field %q that this test does not know", name)
					continue
				}
				have := lookup(got, field)
				// Of a pipeline the sidecar tells stage 0, the account the largest stage.
				if side.Expected["per_rank_note"] != nil && name == "activation_peak_gib" {
					have = lookup(asJSON(t, a.Ranks[0]), field)
				}
				if !same(have, want) {
					t.Errorf("%s = %v, want %v (source %q, missing %q)", field, have, want, a.Sources[field].Text, a.Missing[field])
				}
			}
			if v := side.VLLMVersion; !strings.HasPrefix(v, "not ") && a.Error == nil && (a.VLLMVersion == nil || *a.VLLMVersion != v) {
				t.Errorf("vllm_version = %v, want %s", str(a.VLLMVersion), v)
			}
			if log.Unread() != 0 {
				t.Errorf("%d unread lines: %v", log.Unread(), a.UnreadLines)
			}
			checkAccount(t, a)
		})
	}
}

func str(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

// checkAccount holds for every account: a field that is there has a source, a
// field that is not has a reason, and a budget that can be checked closes.
func checkAccount(t *testing.T, a *runner.Account) {
	t.Helper()
	m := asJSON(t, a)
	for name, v := range m {
		switch name {
		case "ranks", "budget", "sources", "derived", "missing", "error", "unread_lines", "unread_count", "no_higher_share", "label":
			continue
		}
		_, src := a.Sources[name]
		_, der := a.Derived[name]
		switch {
		case v != nil && !src && !der:
			t.Errorf("%s = %v has no source", name, v)
		case v == nil && a.Missing[name] == "":
			t.Errorf("%s is null without a reason", name)
		case v != nil && a.Missing[name] != "":
			t.Errorf("%s = %v and yet missing: %s", name, v, a.Missing[name])
		}
	}
	for _, b := range a.Budget {
		if b.Closes != nil && !*b.Closes {
			t.Errorf("the budget of rank %d does not close: %s", b.Rank, b.Note)
		}
	}
}

// v019Names maps the names of h100-v0.19 to the account's; those of the first
// profiling line of the log to the rank that printed it.
var v019Names = map[string]string{
	"model": "model", "pp": "pipeline_parallel_size", "tp": "tensor_parallel_size", "max_model_len": "max_model_len", "dtype": "dtype", "quantization": "quantization",
	"kv_cache_dtype": "kv_cache_dtype", "gpu_memory_utilization": "gpu_memory_utilization", "init_free_memory_gib": "free_memory_gb",
	"init_total_memory_gib": "total_gpu_memory_gb", "requested_memory_gib": "requested_memory_gb", "weight_memory_gib": "model_weights_gb",
	"cuda_graph_estimated_gib": "graph_estimate_gb", "cuda_graph_actual_gib": "graph_capture_gb", "kv_cache_memory_gib": "available_kv_cache_gb",
	"kv_cache_tokens": "total_gpu_kv_cache_tokens", "kv_cache_blocks": "num_gpu_blocks", "max_concurrency": "max_concurrency",
	"summary_free_gib": "free_memory_gb", "summary_total_gib": "total_gpu_memory_gb",
}

// v019Rank are figures of one rank: the one that printed the first profiling
// line, which in a pipeline is not the largest.
var v019Rank = map[string]string{
	"weights_memory_gib": "model_weights_gb", "activation_memory_gib": "activations_gb", "non_torch_forward_gib": "non_torch_gb",
}

func TestCorpusV019(t *testing.T) {
	for _, path := range corpus(t, "h100-v0.19/*.log") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			var side struct {
				Failed   bool           `json:"failed"`
				Expected map[string]any `json:"expected"`
			}
			readJSON(t, strings.TrimSuffix(path, ".log")+".json", &side)
			a, log := readPaths(t, path)
			got := asJSON(t, a)
			if len(log.Accounts) != 1 || log.Unread() != 0 {
				t.Errorf("%d engines, %d unread lines: %v", len(log.Accounts), log.Unread(), a.UnreadLines)
			}
			if (a.Error != nil) != side.Failed || (side.Expected["status"] == "failed") != side.Failed {
				t.Errorf("error = %+v, failed = %v", a.Error, side.Failed)
			}
			for name, want := range side.Expected {
				compareV019(t, a, got, name, want)
			}
			checkAccount(t, a)
		})
	}
}

func compareV019(t *testing.T, a *runner.Account, got map[string]any, name string, want any) {
	t.Helper()
	if field, ok := v019Rank[name]; ok {
		for i := range a.Ranks {
			if same(lookup(asJSON(t, a.Ranks[i]), field), want) {
				return
			}
		}
		if want != nil {
			t.Errorf("no rank has %s = %v", field, want)
		}
		return
	}
	switch name {
	case "status", "dp", "cudagraph_piecewise_count", "cudagraph_piecewise_largest", "cudagraph_full_count":
		return // no part of the account
	case "init_cuda_memory_gib", "init_non_torch_memory_gib":
		return // in use before vLLM's own first snapshot: total - free
	case "total_non_kv_cache_gib":
		return // the sum of what is checked here
	case "summary_free_gib", "summary_total_gib":
		if want == nil {
			return // the line that this names is missing, another has the figure
		}
	case "max_model_len":
		if want == nil && a.Derived[name] != "" {
			return // the front end's arguments name it, no engine does
		}
	case "quantization":
		if want == "None" {
			want = nil
		}
	case "dtype":
		if s, ok := want.(string); ok {
			want = strings.TrimPrefix(s, "torch.")
		}
	}
	field, ok := v019Names[name]
	if !ok {
		t.Errorf("the sidecar has a field %q that this test does not know", name)
		return
	}
	if have := lookup(got, field); !same(have, want) {
		t.Errorf("%s = %v, want %v (source %q, missing %q)", field, have, want, a.Sources[field].Text, a.Missing[field])
	}
}

var v026Names = map[string]string{
	"vllm_version": "vllm_version", "engine": "engine", "model_runner": "model_runner", "attention_backend": "attention_backend",
	"kv_cache_tokens": "total_gpu_kv_cache_tokens", "max_concurrency": "max_concurrency", "max_model_len": "max_model_len",
	"max_num_batched_tokens": "max_num_batched_tokens", "init_engine_seconds": "init_engine_seconds", "compile_seconds": "compile_seconds",
	"gpu_memory_utilization": "gpu_memory_utilization", "error_kind": "error.kind",
}

var v026Rank = map[string]string{
	"rank": "rank", "model_weights_gib": "model_weights_gb", "load_seconds": "load_seconds", "available_kv_gib": "available_kv_cache_gb",
	"graph_capture_gib": "graph_capture_gb", "activation_gib": "activations_gb", "non_torch_gib": "non_torch_gb", "requested_gib": "requested_memory_gb",
	"free_at_start_gib": "free_memory_gb", "total_gib": "total_gpu_memory_gb", "graph_in_actual_usage_gib": "graph_capture_gb",
}

func TestCorpusV026(t *testing.T) {
	for _, dir := range corpus(t, "h100-v0.26/*/run.json") {
		dir = filepath.Dir(dir)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var side struct {
				Expected map[string]any `json:"expected"`
			}
			readJSON(t, filepath.Join(dir, "run.json"), &side)
			for _, order := range [][]string{{"stdout.log", "stderr.log"}, {"stderr.log", "stdout.log"}} {
				a, log := readPaths(t, filepath.Join(dir, order[0]), filepath.Join(dir, order[1]))
				got := asJSON(t, a)
				if len(log.Accounts) != 1 || log.Unread() != 0 {
					t.Errorf("%d engines, %d unread lines: %v", len(log.Accounts), log.Unread(), a.UnreadLines)
				}
				for name, want := range side.Expected {
					if name == "ranks" {
						compareRanks(t, a, want.([]any))
						continue
					}
					field, ok := v026Names[name]
					if !ok {
						t.Errorf("the sidecar has a field %q that this test does not know", name)
						continue
					}
					if name == "error_kind" && want == KindUnknown && strings.HasPrefix(a.Error.Message, "ModuleNotFoundError") {
						want = KindModuleMissing // the sidecar is older than the kind
					}
					if have := lookup(got, field); !same(have, want) {
						t.Errorf("%v: %s = %v, want %v (source %q, missing %q)", order[0], field, have, want, a.Sources[field].Text, a.Missing[field])
					}
				}
				checkAccount(t, a)
				if a.Error == nil {
					for _, b := range a.Budget {
						if b.Closes == nil || !*b.Closes {
							t.Errorf("the budget of rank %d: closes = %v: %s", b.Rank, b.Closes, b.Note)
						}
					}
				}
			}
		})
	}
}

func compareRanks(t *testing.T, a *runner.Account, want []any) {
	t.Helper()
	if len(a.Ranks) != len(want) {
		t.Errorf("%d ranks, want %d", len(a.Ranks), len(want))
		return
	}
	for i, w := range want {
		got := asJSON(t, a.Ranks[i])
		for name, v := range w.(map[string]any) {
			field, ok := v026Rank[name]
			if !ok {
				t.Errorf("the sidecar has a rank's field %q that this test does not know", name)
				continue
			}
			if !same(got[field], v) {
				t.Errorf("ranks[%d].%s = %v, want %v", i, field, got[field], v)
			}
		}
	}
}

func TestCorpusCPU(t *testing.T) {
	for _, path := range corpus(t, "vllm-cpu-0.29/*/stdout.log") {
		a, _ := readPaths(t, path, filepath.Join(filepath.Dir(path), "stderr.log"))
		if a.TotalGPUKVCacheTokens == nil || *a.TotalGPUKVCacheTokens != 524288 || a.MaxConcurrency == nil || *a.MaxConcurrency != 512 {
			t.Errorf("%s: tokens %v, concurrency %v", path, a.TotalGPUKVCacheTokens, a.MaxConcurrency)
		}
		if str(a.VLLMVersion) != "0.29.0" || str(a.Platform) != "cpu" || str(a.ModelRunner) != "v1" || a.Error != nil {
			t.Errorf("%s: %s %s %s %+v", path, str(a.VLLMVersion), str(a.Platform), str(a.ModelRunner), a.Error)
		}
		if a.ModelWeightsGB != nil || a.ActivationsGB != nil || a.AvailableKVCacheGB == nil || *a.AvailableKVCacheGB != 1 {
			t.Errorf("%s: weights %v, activations %v, KV %v", path, a.ModelWeightsGB, a.ActivationsGB, a.AvailableKVCacheGB)
		}
		checkAccount(t, a)
	}
}

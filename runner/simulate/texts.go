package simulate

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// The texts of the lines, by version. Sections are those of the page on vLLM's
// logs.

// gibText writes bytes as vLLM writes GiB: "%.2f" to 0.13, and from 0.14
// round(x, 2), whose trailing zeros vanish ("15.0", "7.8", "0.0").
func (f *figures) gibText(bytes int64) string {
	gib := float64(bytes) / (1 << 30)
	if !f.version.atLeast(0, 14, 0) {
		return fmt.Sprintf("%.2f", gib)
	}
	return pyRound2(gib)
}

// pyRound2 is str(round(x, 2)) of Python.
func pyRound2(x float64) string {
	s := strconv.FormatFloat(math.Round(x*100)/100, 'f', -1, 64)
	if s == "-0" {
		s = "0"
	}
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// pyFloat is str(x) of Python for the numbers that occur here.
func pyFloat(x float64) string {
	s := strconv.FormatFloat(x, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// thousands writes 457504 as 457,504.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// pyBool is True or False.
func pyBool(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

// weightsLine is section 3.
func (f *figures) weightsLine(bytes int64, seconds float64) string {
	gib, v := float64(bytes)/(1<<30), f.version
	switch {
	case !v.atLeast(0, 8, 0):
		return fmt.Sprintf("Loading model weights took %.4f GB", gib)
	case !v.atLeast(0, 8, 3):
		return fmt.Sprintf("Model loading took %.4f GB and %.6f seconds", gib, seconds)
	case !v.atLeast(0, 11, 1):
		return fmt.Sprintf("Model loading took %.4f GiB and %.6f seconds", gib, seconds)
	case f.runner == "v2" && !v.atLeast(0, 28, 0):
		return fmt.Sprintf("Model loading took %s GiB and %.6f seconds", f.gibText(bytes), seconds)
	case !v.atLeast(0, 14, 0):
		return fmt.Sprintf("Model loading took %.4f GiB memory and %.6f seconds", gib, seconds)
	}
	return fmt.Sprintf("Model loading took %s GiB memory and %.6f seconds", f.gibText(bytes), seconds)
}

// backendLine is section 6, for Flash Attention (on AMD the Triton backend).
func (f *figures) backendLine() string {
	v, amd := f.version, f.gpu.Vendor == "amd"
	switch {
	case f.v0 && amd:
		return "Using ROCmFlashAttention backend."
	case f.v0 && !v.atLeast(0, 6, 4):
		return ""
	case f.v0:
		return "Using Flash Attention backend."
	case !v.atLeast(0, 11, 1) && amd:
		return "Using Triton Attention backend on V1 engine."
	case !v.atLeast(0, 11, 1):
		return "Using Flash Attention backend on V1 engine."
	}
	name := "FLASH_ATTN"
	if amd {
		name = "TRITON_ATTN"
	}
	switch {
	case !v.atLeast(0, 12, 0):
		return "Using AttentionBackendEnum." + name + " backend."
	case !v.atLeast(0, 16, 0):
		return "Using " + name + " attention backend out of potential backends: ('" + name + "', 'FLEX_ATTENTION')"
	}
	return "Using " + name + " attention backend out of potential backends: ['" + name + "', 'FLEX_ATTENTION']."
}

// kvLines are section 5: one or two records.
func (f *figures) kvLines() []string {
	tokens, length := thousands(f.kvTokens), thousands(f.maxLen)
	size := "GPU KV cache size: " + tokens + " tokens"
	concurrency := fmt.Sprintf("Maximum concurrency for %s tokens per request: %.2fx", length, f.concurrency)
	if f.version.atLeast(0, 28, 0) {
		return []string{size + ", " + concurrency}
	}
	return []string{size, concurrency}
}

// actualUsage is section 4.4.
func (f *figures) actualUsage(m *rankMemory) string {
	g, v := f.gibText, f.version
	free := f.gpu.TotalBytes - m.context - m.others
	peak := m.activation
	usage := fmt.Sprintf("Actual usage is %s GiB for weight, %s GiB for peak activation, %s GiB for non-torch memory, and %s GiB for CUDAGraph memory.",
		g(m.weights), g(peak), g(m.nonTorch), g(m.graphs))
	if v.atLeast(0, 27, 0) {
		// From here on the peak contains the estimate of the graphs.
		usage = fmt.Sprintf("Actual usage is %s GiB for consumed memory (weights + non-torch), %s GiB for peak activation, and %s GiB for CUDAGraph memory.",
			g(m.weights+m.nonTorch), g(peak+m.graphEst), g(m.graphs))
	}
	inUse := g(m.kv) + " GiB."
	fit := m.available + m.graphEst - m.graphs - 150<<20
	full := free - m.weights - m.activation - m.nonTorch - m.graphs - 150<<20
	fitText, fullText := fmt.Sprintf(" (%s GiB)", g(fit)), fmt.Sprintf(" (%s GiB)", g(full))
	if !v.atLeast(0, 11, 0) {
		inUse, fitText, fullText = fmt.Sprintf("%d bytes.", m.kv), "", ""
	}
	return fmt.Sprintf("Free memory on device (%s/%s GiB) on startup. Desired GPU memory utilization is (%s, %s GiB). %s "+
		"Replace gpu_memory_utilization config with `--kv-cache-memory=%d`%s to fit into requested memory, or `--kv-cache-memory=%d`%s to fully utilize gpu memory. "+
		"Current kv cache memory in use is %s",
		g(free), g(f.gpu.TotalBytes), pyFloat(f.util), g(f.requested), usage, fit, fitText, full, fullText, inUse)
}

// usageLevel says at which level actualUsage is printed; "" is not at all.
func (f *figures) usageLevel() string {
	switch v := f.version; {
	case f.v0 || !v.atLeast(0, 10, 2):
		return ""
	case !v.atLeast(0, 11, 0) || v.atLeast(0, 26, 0):
		return "INFO"
	}
	return "DEBUG"
}

// graphNotice is section 4.6, on the V1 runner.
func (f *figures) graphNotice(m *rankMemory) string {
	off := float64(m.graphEst) / float64(f.gpu.TotalBytes)
	return fmt.Sprintf("CUDA graph memory profiling is enabled (default since v0.21.0). The current --gpu-memory-utilization=%.4f is equivalent to "+
		"--gpu-memory-utilization=%.4f without CUDA graph memory profiling. To maintain the same effective KV cache size as before, increase "+
		"--gpu-memory-utilization to %.4f. To disable, set VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0.", f.util, f.util-off, f.util+off)
}

// poolLine compares the graphs' memory with its estimate.
func (f *figures) poolLine(m *rankMemory) string {
	diff := m.graphs - m.graphEst
	return fmt.Sprintf("CUDA graph pool memory: %s GiB (actual), %s GiB (estimated), difference: %s GiB (%.1f%%).",
		f.gibText(m.graphs), f.gibText(m.graphEst), f.gibText(diff), 100*float64(diff)/float64(max(m.graphs, 1)))
}

// v0Profile is section 4.1; "" where the version prints nothing.
func (f *figures) v0Profile(m *rankMemory) string {
	gib := func(b int64) float64 { return float64(b) / (1 << 30) }
	switch v := f.version; {
	case !v.atLeast(0, 6, 4):
		return ""
	case !v.atLeast(0, 6, 5):
		return fmt.Sprintf("Memory profiling results: total_gpu_memory=%.2fGiB initial_memory_usage=%.2fGiB peak_torch_memory=%.2fGiB "+
			"memory_usage_post_profile=%.2fGiB non_torch_memory=%.2fGiB kv_cache_size=%.2fGiB gpu_memory_utilization=%.2f",
			gib(f.gpu.TotalBytes), gib(m.context+m.others+m.weights), gib(m.weights+m.activation), gib(m.others+m.loaded()), gib(m.nonTorch), gib(m.available), f.util)
	}
	return fmt.Sprintf("Memory profiling takes %.2f seconds\n"+
		"the current vLLM instance can use total_gpu_memory (%.2fGiB) x gpu_memory_utilization (%.2f) = %.2fGiB\n"+
		"model weights take %.2fGiB; non_torch_memory takes %.2fGiB; PyTorch activation peak memory takes %.2fGiB; the rest of the memory reserved for KV Cache is %.2fGiB.",
		f.times.profile, gib(f.gpu.TotalBytes), f.util, gib(f.requested), gib(m.weights), gib(m.nonTorch), gib(m.activation), gib(m.available))
}

// kvGiven is section 4.5: the size of the KV cache was asked for.
func (f *figures) kvGiven(m *rankMemory) string {
	free, kv := f.gibText(f.gpu.TotalBytes-m.context-m.others), f.gibText(m.available)
	reserved, does := kv+" GiB memory", "does not"
	if !f.version.atLeast(0, 11, 1) {
		reserved, does = kv+"GiB memory", "does does not"
	}
	return fmt.Sprintf("Initial free memory %s GiB, reserved %s for KV Cache as specified by kv_cache_memory_bytes config and skipped memory profiling. "+
		"This %s respect the gpu_memory_utilization config. Only use kv_cache_memory_bytes config when you want manual control of KV cache memory size.", free, reserved, does)
}

// readyLine ends the start-up.
func (f *figures) readyLine(seconds float64) string {
	text := fmt.Sprintf("init engine (profile, create kv cache, warmup model) took %.2f ", seconds)
	switch {
	case !f.version.atLeast(0, 20, 0):
		return text + "seconds"
	case f.times.compile == 0:
		return text + "s"
	}
	return text + fmt.Sprintf("s (compilation: %.2f s)", f.times.compile)
}

// banner is section 2: the keys whose values the simulator knows, in the order
// of the version.
func (f *figures) banner(r *request) string {
	v := f.version
	var keys []string
	add := func(since bool, key, value string) {
		if since {
			keys = append(keys, key+"="+value)
		}
	}
	dtype, loadFormat := f.dtype(r), r.loadFormat
	if !v.atLeast(0, 10, 0) && loadFormat == "auto" {
		loadFormat = "LoadFormat.AUTO"
	}
	chunked := "chunked_prefill_enabled"
	if v.atLeast(0, 11, 1) {
		chunked = "enable_chunked_prefill"
	}
	quant := "None"
	if r.quantization != "" {
		quant = r.quantization
	}
	add(true, "model", pyString(r.model))
	add(true, "speculative_config", "None")
	add(true, "tokenizer", pyString(r.model))
	add(true, "skip_tokenizer_init", pyBool(r.skipTok))
	add(true, "tokenizer_mode", "auto")
	add(true, "revision", "None")
	add(true, "tokenizer_revision", "None")
	add(true, "trust_remote_code", pyBool(r.flag("trust-remote-code") == "True"))
	add(true, "dtype", "torch."+dtype)
	add(true, "max_seq_len", strconv.FormatInt(f.maxLen, 10))
	add(true, "download_dir", "None")
	add(true, "load_format", loadFormat)
	add(true, "tensor_parallel_size", strconv.FormatInt(r.tp, 10))
	add(true, "pipeline_parallel_size", strconv.FormatInt(r.pp, 10))
	add(v.atLeast(0, 10, 2), "data_parallel_size", "1")
	add(v.atLeast(0, 18, 0), "decode_context_parallel_size", "1")
	add(v.atLeast(0, 18, 0), "dcp_comm_backend", "ag_rs")
	add(true, "disable_custom_all_reduce", "False")
	add(true, "quantization", quant)
	add(v.atLeast(0, 20, 0), "quantization_config", "None")
	add(true, "enforce_eager", pyBool(r.eager))
	add(v.atLeast(0, 15, 0), "enable_return_routed_experts", "False")
	add(true, "kv_cache_dtype", r.kvDtype)
	add(v.atLeast(0, 7, 0) && !v.atLeast(0, 10, 1), " device_config", "cuda")
	add(!v.atLeast(0, 7, 0) || v.atLeast(0, 10, 1), "device_config", "cuda")
	add(true, "seed", "0")
	add(true, "served_model_name", r.model)
	add(!v.atLeast(0, 10, 1), "num_scheduler_steps", "1")
	add(true, "enable_prefix_caching", pyBool(f.prefixCaching(r)))
	add(true, chunked, pyBool(!f.v0))
	add(v.atLeast(0, 8, 0), "pooler_config", "None")
	add(v.atLeast(0, 8, 0), "compilation_config", f.compilation(r))
	name := "V1 "
	switch {
	case f.v0 && v.atLeast(0, 7, 1):
		name = "V0 "
	case f.v0:
		name = ""
	}
	text := fmt.Sprintf("Initializing a%s %sLLM engine (v%s) with config: %s", map[bool]string{true: "n"}[name == ""], name, v.text, strings.Join(keys, ", "))
	if f.v0 && v.atLeast(0, 7, 1) {
		text += ", use_cached_outputs=False, "
	}
	return text
}

// compilation is the part of compilation_config that tells of graphs.
func (f *figures) compilation(r *request) string {
	sizes := make([]string, len(f.captureSizes))
	for i, n := range f.captureSizes {
		sizes[i] = strconv.Itoa(n)
	}
	list := "[" + strings.Join(sizes, ", ") + "]"
	largest := 0
	if n := len(f.captureSizes); n > 0 {
		largest = f.captureSizes[n-1]
	}
	if !f.version.atLeast(0, 11, 0) {
		return fmt.Sprintf(`{"level":%d,"cudagraph_capture_sizes":%s,"max_capture_size":%d}`, map[bool]int{false: 3}[r.eager], strings.ReplaceAll(list, " ", ""), largest)
	}
	mode := "<CUDAGraphMode.FULL_AND_PIECEWISE: (2, 1)>"
	if r.eager {
		mode = "<CUDAGraphMode.NONE: 0>"
	}
	return fmt.Sprintf("{'cudagraph_mode': %s, 'cudagraph_capture_sizes': %s, 'max_cudagraph_capture_size': %d}", mode, list, largest)
}

// dtype is what "auto" becomes.
func (f *figures) dtype(r *request) string {
	switch r.dtype {
	case "half":
		return "float16"
	case "float":
		return "float32"
	case "auto":
		switch f.arch.NativeDtype {
		case "", "float32":
			return "bfloat16"
		}
		return f.arch.NativeDtype
	}
	return r.dtype
}

// prefixCaching is off in the latency benchmark from 0.9.1 on; before, the
// engine's default.
func (f *figures) prefixCaching(r *request) bool {
	if v := r.flag("enable-prefix-caching"); v != "" {
		return v == "True"
	}
	return !f.v0 && !f.version.atLeast(0, 9, 1)
}

// flag is a flag as it was given, or "".
func (r *request) flag(name string) string {
	for _, g := range r.given {
		if g.name == name {
			return g.value
		}
	}
	return ""
}

// nonDefault is the Python dict of the flags that were given.
func (r *request) nonDefault() string {
	own := map[string]bool{
		"input-len": true, "output-len": true, "batch-size": true, "n": true, "use-beam-search": true, "num-iters": true,
		"num-iters-warmup": true, "profile": true, "output-json": true, "disable-detokenize": true,
	}
	table := flagTable()
	var parts []string
	for _, g := range r.given {
		if own[g.name] || g.name == "model" {
			continue
		}
		value := g.value
		switch table[g.name] {
		case flagText:
			value = pyString(value)
		case flagMany:
			value = "[" + pyString(strings.Join(strings.Fields(value), "', '")) + "]"
		}
		parts = append(parts, pyString(strings.ReplaceAll(g.name, "-", "_"))+": "+value)
	}
	if r.flag("enable-prefix-caching") == "" {
		parts = append(parts, "'enable_prefix_caching': False")
	}
	return "{" + strings.Join(append(parts, "'model': "+pyString(r.model)), ", ") + "}"
}

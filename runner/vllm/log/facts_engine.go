package log

import (
	"regexp"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// startRules read which engine this is.
func startRules() []rule {
	return []rule{
		{
			Line:     "Initializing an LLM engine (vV) with config: ... | Initializing a V0 LLM engine (vV) ... | Initializing a V1 LLM engine (vV) ...",
			Versions: "0.4.0 to 0.7.0; 0.7.1 on; opens an engine",
			Fields:   []string{"vllm_version", "engine", "model", "dtype", "kv_cache_dtype", "quantization", "load_format", "max_model_len", "tensor_parallel_size", "pipeline_parallel_size", "platform", "cuda_graphs_enabled"},
			anchors:  []string{"LLM engine (v"},
			re:       regexp.MustCompile(`Initializing an? (?:(V[01]) )?LLM engine \(v([^)\s]+)\)(?: with config: (.*))?`),
			apply:    applyBanner,
		},
		{
			Line:     "vLLM API server version V | vLLM server version V, serving model M",
			Versions: "0.4.0 to 0.14; 0.15 on without the logo",
			Fields:   []string{"vllm_version"},
			anchors:  []string{"server version "},
			re:       regexp.MustCompile(`vLLM (?:API )?server version ([0-9][\w.+\-]*)`),
			apply:    applyVersion,
		},
		{
			Line:     "█  version V",
			Versions: "the logo, 0.15 on",
			Fields:   []string{"vllm_version"},
			anchors:  []string{"  version "},
			re:       regexp.MustCompile(`[█▀▄]\s+version ([0-9][\w.+\-]*)`),
			apply:    applyVersion,
		},
		{
			Line:     "args: Namespace(...) | non-default args: {...}",
			Versions: "0.4.0 to 0.8.5; 0.9.0 on (LLM() 0.10.1 on)",
			Fields:   []string{"gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens", "max_model_len"},
			anchors:  []string{"args: Namespace(", "non-default args: {"},
			re:       regexp.MustCompile(`(?:args: Namespace\(|non-default args: \{)(.*)`),
			apply:    applyArgs,
		},
		{
			Line:     "Automatically detected platform P.",
			Versions: "INFO 0.7.0 to 0.11.0, DEBUG later",
			Fields:   []string{"platform"},
			anchors:  []string{"Automatically detected platform"},
			re:       regexp.MustCompile(`Automatically detected platform (\w+)`),
			apply: func(r *run, p *piece, m []string) {
				r.setWord(&r.platform, p, strings.ToLower(m[1]))
				r.event(p, runner.EventFirstLine, "")
			},
		},
		{
			Line:     "Resolved architecture: A",
			Versions: "0.10.1 on",
			Fields:   []string{"architecture"},
			anchors:  []string{"Resolved architecture:"},
			re:       regexp.MustCompile(`Resolved architecture: ([\w.]+)`),
			apply:    func(r *run, p *piece, m []string) { r.setFirst(&r.architecture, p, m[1]) },
		},
	}
}

// limitRules read its limits, its runner and who is which rank.
func limitRules() []rule {
	return []rule{
		{
			Line:     "Using max model len N",
			Versions: "0.9.2 on",
			Fields:   []string{"max_model_len"},
			anchors:  []string{"Using max model len"},
			re:       regexp.MustCompile(`Using max model len (\d+)`),
			apply:    func(r *run, p *piece, m []string) { r.setFirst(&r.usingLen, p, m[1]) },
		},
		{
			Line:     "Auto-fit max_model_len: reduced from N to M to fit in available GPU memory (X GiB available for KV cache) | full model context length N fits in available GPU memory",
			Versions: "0.14 on with max_model_len -1",
			Fields:   []string{"max_model_len"},
			anchors:  []string{"Auto-fit max_model_len"},
			re:       regexp.MustCompile(`Auto-fit max_model_len: (?:reduced from \d+ to (\d+)|full model context length (\d+) fits)`),
			apply:    func(r *run, p *piece, m []string) { r.setWord(&r.fitLen, p, m[1]+m[2]) },
		},
		{
			Line:     "Chunked prefill is enabled with max_num_batched_tokens=N.",
			Versions: "0.5.3.post1 on",
			Fields:   []string{"max_num_batched_tokens"},
			anchors:  []string{"Chunked prefill is enabled with max_num_batched_tokens="},
			re:       regexp.MustCompile(`Chunked prefill is enabled with max_num_batched_tokens=(\d+)`),
			apply:    func(r *run, p *piece, m []string) { r.setFirst(&r.chunked, p, m[1]) },
		},
		{
			Line:     "Using V2 Model Runner",
			Versions: "0.16 on",
			Fields:   []string{"model_runner"},
			anchors:  []string{"Using V2 Model Runner"},
			re:       regexp.MustCompile(`Using V2 Model Runner`),
			apply:    func(r *run, p *piece, _ []string) { r.setWord(&r.modelRunner, p, "v2") },
		},
		{
			Line:     "Model Runner V2 does not yet support X; using the V1 model runner instead. | Model Runner V2 requires Triton; using the V1 model runner instead.",
			Versions: "0.23 on",
			Fields:   []string{"model_runner"},
			anchors:  []string{"using the V1 model runner instead"},
			re:       regexp.MustCompile(`using the V1 model runner instead`),
			apply:    func(r *run, p *piece, _ []string) { r.setWord(&r.modelRunner, p, "v1") },
		},
		{
			Line:     "world_size=N rank=R local_rank=L distributed_init_method=... | rank R in world size N is assigned as DP rank D, PP rank P, TP rank T",
			Versions: "V1 0.6.5 on; which process is which rank",
			Fields:   []string{"ranks"},
			anchors:  []string{"world_size=", "is assigned as DP rank"},
			re:       regexp.MustCompile(`world_size=(\d+) rank=(\d+) local_rank=|rank (\d+) in world size (\d+) is assigned as DP rank (\d+)`),
			apply:    applyWorld,
		},
	}
}

// kvRules read the size of the KV cache.
func kvRules() []rule {
	return []rule{
		{
			Line:     "GPU KV cache size: N tokens[, Maximum concurrency for L tokens per request: Cx]",
			Versions: "V1 0.8.0 on; one line from 0.28; also CPU, TPU, XPU",
			Fields:   []string{"total_gpu_kv_cache_tokens"},
			anchors:  []string{"KV cache size:"},
			re:       regexp.MustCompile(`KV cache size: ([\d,]+) tokens`),
			apply: func(r *run, p *piece, m []string) {
				r.addMin(&r.tokens, p, m[1])
				r.event(p, runner.EventKVReady, "")
			},
		},
		{
			Line:     "Maximum concurrency for L tokens per request: Cx",
			Versions: "V0 0.6.3 to 0.10.2; V1 0.7.1 on",
			Fields:   []string{"max_concurrency", "max_model_len"},
			anchors:  []string{"Maximum concurrency for"},
			re:       regexp.MustCompile(`Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x`),
			apply: func(r *run, p *piece, m []string) {
				r.setWord(&r.kvLen, p, strings.ReplaceAll(m[1], ",", ""))
				r.addMin(&r.concurrency, p, m[2])
			},
		},
		{
			Line:     "# GPU blocks: N[, # CPU blocks: M] | # cuda blocks: N, # CPU blocks: M (cuda, rocm, cpu, xpu, hpu, tpu)",
			Versions: "V0 0.4.0 to 0.10.2; V1 0.6.4 to 0.7.3 without CPU blocks",
			Fields:   []string{"num_gpu_blocks", "num_cpu_blocks", "engine"},
			anchors:  []string{" blocks: "},
			re:       regexp.MustCompile(`# (\w+) blocks: (\d+)(, # CPU blocks: (\d+))?`),
			apply: func(r *run, p *piece, m []string) {
				if m[1] == "CPU" && m[3] == "" {
					r.addMin(&r.cpuBlocks, p, m[2]) // CPU and OpenVINO executors: this is the KV
				} else {
					r.addMin(&r.blocks, p, m[2])
					if m[4] != "" {
						r.setWord(&r.v0Blocks, p, m[0])
						r.addMin(&r.cpuBlocks, p, m[4])
					}
				}
				r.event(p, runner.EventKVReady, "")
			},
		},
		{
			Line:     "vllm cache_config_info with initialization after num_gpu_blocks is: N | Engine 000: vllm cache_config_info ...",
			Versions: "V1 INFO 0.9.0 to 0.11.0, DEBUG later",
			Fields:   []string{"num_gpu_blocks"},
			anchors:  []string{"cache_config_info with initialization"},
			re:       regexp.MustCompile(`cache_config_info with initialization after num_gpu_blocks is: (\d+)`),
			apply:    func(r *run, p *piece, m []string) { r.addMin(&r.blocks, p, m[1]) },
		},
		{
			Line:     "Overriding num_gpu_blocks=N with num_gpu_blocks_override=M | Replacing profiled num_gpu_blocks=N with forced_num_gpu_blocks=M",
			Versions: "0.4.0 on; not read where N is 0: that is the graph profiling of 0.18 on",
			Fields:   []string{"num_gpu_blocks"},
			anchors:  []string{"num_gpu_blocks_override=", "forced_num_gpu_blocks="},
			re:       regexp.MustCompile(`num_gpu_blocks=(\d+) with (?:num_gpu_blocks_override|forced_num_gpu_blocks)=(\d+)`),
			apply: func(r *run, p *piece, m []string) {
				if m[1] != "0" {
					r.setWord(&r.overrideBlocks, p, m[2])
				}
			},
		},
	}
}

// kvLayoutRules read its block size and type.
func kvLayoutRules() []rule {
	return []rule{
		{
			Line:     "Forcing kv cache block size to N for B backend. | Setting kv cache block size to N for B backend.",
			Versions: "0.8.0 to 0.17; 0.18 on. Not read: Setting attention block size to N tokens (a page of a hybrid model), Using KV cache block size: N (TPU's own)",
			Fields:   []string{"block_size"},
			anchors:  []string{"kv cache block size to"},
			re:       regexp.MustCompile(`(?:Forcing|Setting) kv cache block size to (\d+) for`),
			apply:    func(r *run, p *piece, m []string) { r.setWord(&r.blockSize, p, m[1]) },
		},
		{
			Line:     "Using fp8 data type to store kv cache. | Using DeepSeek's fp8_ds_mla KV cache format.",
			Versions: "0.4.0 to 0.19.1; 0.18 to 0.23",
			Fields:   []string{"kv_cache_dtype"},
			anchors:  []string{"data type to store kv cache", "fp8_ds_mla KV cache format"},
			re:       regexp.MustCompile(`Using (fp8\w*) data type to store kv cache|(fp8_ds_mla) KV cache format`),
			apply:    func(r *run, p *piece, m []string) { r.setWord(&r.kvDtype, p, m[1]+m[2]) },
		},
		{
			Line:     "... padding layers, may waste at most X% KV cache memory | kv cache group sizes [...] | page size of a hybrid model | Multiplying the GPU KV cache size by the dcp_world_size N.",
			Versions: "0.9.1 on; tokens are not blocks x block size then",
			anchors:  []string{"padding layers, may waste", "kv cache group sizes", "ensure that attention page size", "KV cache size by the"},
			re:       regexp.MustCompile(`padding layers, may waste|kv cache group sizes|ensure that attention page size|Multiplying the GPU KV cache size by the`),
			apply:    func(r *run, p *piece, m []string) { r.setWord(&r.hybrid, p, m[0]) },
		},
	}
}

// compileRules read compilation and start-up.
func compileRules() []rule {
	return []rule{
		{
			Line:     "torch.compile takes S s in total | torch.compile took S s in total | torch.compile and initial profiling/warmup run together took S s in total",
			Versions: "0.6.5 to 0.17; 0.18 on; without a compile cache",
			Fields:   []string{"compile_seconds", "compile_cache"},
			anchors:  []string{"torch.compile t", "torch.compile and initial"},
			re:       regexp.MustCompile(`torch\.compile (?:takes|took|(and initial profiling/warmup run together) took) ([\d.]+) s in total`),
			apply: func(r *run, p *piece, m []string) {
				r.addCompile(p, m[2])
				if m[1] != "" {
					r.setWord(&r.compileOff, p, m[0])
				}
			},
		},
		{
			Line:     "Using cache directory: D for vLLM's torch.compile | Dynamo bytecode transform time: S s | Memory profiling takes S seconds",
			Versions: "0.6.5 on; the first sign of compiling or profiling",
			anchors:  []string{"for vLLM's torch.compile", "Dynamo bytecode transform", "Memory profiling takes", "Warming up model for the compilation"},
			re:       regexp.MustCompile(`for vLLM's torch\.compile|Dynamo bytecode transform|Memory profiling takes|Warming up model for the compilation`),
			apply:    func(r *run, p *piece, _ []string) { r.event(p, runner.EventProfileStart, "") },
		},
		{
			Line:     "Directly load the compiled graph(s) for S from the cache, took S s | Directly load AOT compilation from path P",
			Versions: "0.8 on",
			Fields:   []string{"compile_cache"},
			anchors:  []string{"Directly load"},
			re:       regexp.MustCompile(`Directly load (?:the compiled graph|AOT compilation)`),
			apply:    func(r *run, p *piece, _ []string) { r.setFirst(&r.compileWarm, p, "warm") },
		},
		{
			Line:     "Compiling a graph for S takes S s | Cache the graph of S for later use | saved AOT compiled function to P",
			Versions: "0.6.5 on",
			Fields:   []string{"compile_cache"},
			anchors:  []string{"Compiling a graph for", "Cache the graph of", "saved AOT compiled function"},
			re:       regexp.MustCompile(`Compiling a graph for|Cache the graph of|saved AOT compiled function`),
			apply:    func(r *run, p *piece, _ []string) { r.setFirst(&r.compileCold, p, "cold") },
		},
		{
			Line:     "init engine (profile, create kv cache, warmup model) took S seconds | ... took S s (compilation: S s[ — ...])",
			Versions: "0.6.5 to 0.19.1; 0.20 on",
			Fields:   []string{"init_engine_seconds", "compile_seconds"},
			anchors:  []string{"init engine (profile"},
			re:       regexp.MustCompile(`init engine \(profile, create kv cache, warmup model\) took ([\d.]+) s(?:econds)?(?: \(compilation: ([\d.]+) s)?`),
			apply: func(r *run, p *piece, m []string) {
				r.setWord(&r.initSeconds, p, m[1])
				if m[2] != "" {
					r.setWord(&r.initCompile, p, m[2])
				}
				r.event(p, runner.EventEngineReady, m[1])
			},
		},
	}
}

// benchRules read the benchmark's and the server's own lines.
func benchRules() []rule {
	return []rule{
		{
			Line:     "Warming up...",
			Versions: "the benchmark's own, 0.4.0 on",
			anchors:  []string{"Warming up..."},
			re:       regexp.MustCompile(`^\s*Warming up\.\.\.\s*$`),
			apply: func(r *run, p *piece, _ []string) {
				r.setReady(p)
				r.event(p, runner.EventWarmupStart, "")
			},
		},
		{
			Line:     "Avg latency: S seconds",
			Versions: "the benchmark's own, 0.4.0 on; the run went well",
			anchors:  []string{"Avg latency: "},
			re:       regexp.MustCompile(`^\s*Avg latency: [\d.]+ seconds`),
			apply: func(r *run, p *piece, _ []string) {
				r.done = true
				r.event(p, runner.EventMeasureEnd, "")
			},
		},
		{
			Line:     "Warmup iterations: ... | Bench iterations: ... | Profiling iterations: ... | Capturing CUDA graph...: ...",
			Versions: "tqdm bars on stderr, 0.4.0 on",
			anchors:  []string{"iterations:", "Capturing CUDA graph"},
			re:       regexp.MustCompile(`(Warmup iterations|Bench iterations|Profiling iterations|Capturing CUDA graph)[^|]*\|[^|]*\|\s*(\d+)/(\d+) \[`),
			apply:    applyBar,
		},
		{
			Line:     "Application startup complete. | Starting vLLM API server on ...",
			Versions: "a server is ready",
			anchors:  []string{"Application startup complete", "Starting vLLM API server"},
			re:       regexp.MustCompile(`Application startup complete|Starting vLLM API server`),
			apply:    func(r *run, p *piece, _ []string) { r.setReady(p); r.server = true },
		},
		{
			Line:     "[shutdown] EngineCore: trigger received signal=S",
			Versions: "0.18 on",
			anchors:  []string{"[shutdown]"},
			re:       regexp.MustCompile(`\[shutdown\] (?:EngineCore: trigger received|Process manager: send)`),
			apply:    func(r *run, p *piece, _ []string) { r.event(p, runner.EventShutdown, "") },
		},
	}
}

// choosesBackend reports whether a module chooses the backend of attention; the
// same words elsewhere are about MoE, quantization or communication.
func choosesBackend(file string) bool {
	switch file {
	case "selector.py", "cuda.py", "rocm.py", "cpu.py", "xpu.py", "tpu.py", "hpu.py", "neuron.py", "openvino.py", "interface.py",
		"cpu_attn.py", "tpu_platform.py", "tpu_jax.py", "ipex.py":
		return true
	}
	return false
}

// backendNames are those that may be believed without a file name beside them.
var backendNames = regexp.MustCompile(`(?i)^(?:FlashAttention(?:-[23])?|Flash Attention|XFormers|ROCmFlashAttention|Torch SDPA|FlashInfer|Flashinfer|BlocksparseFlashAttention|IPEX attention|OpenVINO Attention|Pallas(?: V1)?|HPUAttention|(?:Triton|Cutlass|FlashInfer|FlashAttention|CPU|AITER|Sparse|AITER TRITON) MLA|FlashMLA|DualChunkFlashAttention|DifferentialFlashAttention|Tree Attention|FlexAttention|(?:ROCm|Rocm|Triton|Aiter|Rocm-Aiter|Aiter Flash|Aiter Unified|TurboQuant) Attention|AttentionBackendEnum\.\w+|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_(?:ATTN|MLA|SPARSE|FA)(?:_[A-Z0-9]+)*|FLASHINFER|FLASHMLA|FLASHMLA_SPARSE|CUTLASS_MLA|XFORMERS|PALLAS|TORCH_SDPA)$`)

// notAttention are words that say that a line about a backend is about
// something else.
var notAttention = regexp.MustCompile(`KV cache (?:layout|format)|MoE|prefill|['(\[].* backend|for [Vv][Ii][Tt]|for MMEncoder|^Using backend `)

func applyBackend(r *run, p *piece, m []string) {
	name, tail := strings.TrimSuffix(m[1], " attention"), m[3]
	if notAttention.MatchString(m[0]) || notAttention.MatchString(p.msg[strings.Index(p.msg, m[0])+len(m[0]):]) && !strings.HasPrefix(tail, " out of") {
		return
	}
	base := p.source[strings.LastIndexByte(p.source, '/')+1:]
	chosen := m[2] != "" && strings.HasPrefix(tail, " out of")
	switch {
	case choosesBackend(base) || chosen:
	case !backendNames.MatchString(name):
		return
	case base != "" && m[2] == "" && tail == "":
		// Outside of the platform modules a plain "Using X backend" is not about
		// attention, however well known its name ("Using FlashInfer backend" for
		// sampling).
		return
	}
	r.setFirst(&r.backend, p, name)
}

func applyVersion(r *run, p *piece, m []string) {
	r.front(p, "version")
	r.reader.current.setFirst(&r.reader.current.version, p, m[1])
	r.reader.current.event(p, runner.EventFirstLine, "")
}

var worldRE = regexp.MustCompile(`^\d+$`)

func applyWorld(r *run, p *piece, m []string) {
	rank, dp := m[2]+m[3], m[5]
	if !worldRE.MatchString(rank) || len(rank) > 6 {
		return
	}
	s := r.sender(p)
	s.worldRank = atoi(rank)
	if len(dp) > 0 && len(dp) < 6 && s.proc.dp < 0 && atoi(dp) > 0 {
		s.proc.dp = atoi(dp)
	}
}

// applyBanner opens an engine: in the current run, or in a new one where this
// engine had one already.
func applyBanner(r *run, p *piece, m []string) {
	r = r.reader.openEngine(r, p)
	r.setWord(&r.version, p, m[2])
	kind := m[1]
	if kind == "" {
		switch {
		case strings.Contains(p.source, "core.py"):
			kind = "V1"
		case p.source != "" || models.Older(m[2], 0, 6, 4): // V1 came with 0.6.4
			kind = "V0"
		}
	}
	if kind != "" {
		r.setWord(&r.engine, p, kind)
	}
	if r.banner == nil {
		r.banner = scalars(m[3], '=')
		r.bannerAt = p.at()
	}
	r.event(p, runner.EventEngineInit, "")
}

// applyArgs reads what was asked for. Of a printed dictionary only the plain
// values are taken.
func applyArgs(r *run, p *piece, m []string) {
	r.front(p, "args")
	r = r.reader.current
	if strings.HasPrefix(m[0], "args:") {
		r.args = scalars(m[1], '=')
	} else {
		r.args = scalars(m[1], ':')
	}
	r.argsServer = strings.HasPrefix(m[0], "args:") || r.args["model_tag"] != ""
	r.argsAt = p.at()
	r.event(p, runner.EventFirstLine, "")
}

// scalars reads the top-level key-value pairs of a banner ("k=v, k=v"), a
// Namespace or a Python dictionary ("'k': v"). Values that hold brackets are
// kept as they stand; None is left out, quotes are taken off.
func scalars(s string, sep byte) map[string]string {
	out := make(map[string]string)
	var n nesting
	start := 0
	for i := 0; i < len(s) && len(out) <= 1000; i++ {
		if n.quoted(s, &i) {
			continue
		}
		c := s[i]
		if n.step(c); n.depth < 0 {
			addScalar(out, s[start:i], sep)
			return out
		}
		// 0.6.3 and 0.6.4 forget a comma between two pairs.
		forgotten := c == ' ' && sep == '=' && strings.IndexByte(s[start:i], '=') >= 0
		if n.depth == 0 && (c == ',' || forgotten) {
			addScalar(out, s[start:i], sep)
			start = i + 1
		}
	}
	if start < len(s) {
		addScalar(out, s[start:], sep)
	}
	return out
}

// nesting follows quotes and brackets of a Python value.
type nesting struct {
	depth int
	quote byte
}

// quoted reports whether s[*i] belongs to a quoted text, and steps over what a
// backslash protects.
func (n *nesting) quoted(s string, i *int) bool {
	c := s[*i]
	switch {
	case n.quote == 0 && (c == '\'' || c == '"'):
		n.quote = c
	case n.quote == 0:
		return false
	case c == '\\':
		*i++
	case c == n.quote:
		n.quote = 0
	}
	return true
}

func (n *nesting) step(c byte) {
	switch c {
	case '(', '[', '{', '<':
		n.depth++
	case '>':
		n.depth = max(0, n.depth-1)
	case ')', ']', '}':
		n.depth--
	}
}

func addScalar(out map[string]string, pair string, sep byte) {
	k, v, ok := strings.Cut(strings.TrimSpace(pair), string(sep))
	if !ok {
		return
	}
	k = strings.Trim(strings.TrimSpace(k), `'"`)
	v = strings.TrimSpace(v)
	if len(v) >= 2 && (v[0] == '\'' || v[0] == '"') && v[len(v)-1] == v[0] {
		v = v[1 : len(v)-1]
	}
	if k == "" || v == "" || v == "None" {
		return
	}
	if _, dup := out[k]; !dup {
		out[k] = v
	}
}

package log

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// A figure is a number as the log prints it: its value, in GiB where it is
// memory, half of its last printed digit, and where it stands.
type figure struct {
	val  float64
	half float64
	src  runner.AccountSource
}

// A word is a text of the log and where it stands.
type word struct {
	val string
	src runner.AccountSource
}

// A rankFact names a figure that each rank has for itself.
type rankFact int

// The figures of a rank, by the line that they come from.
const (
	fWeights        rankFact = iota // "Model loading took", "Loading model weights took"
	fLoadSeconds                    // the same line
	fAvailableKV                    // "Available KV cache memory"
	fGivenKV                        // "reserved X GiB memory for KV Cache as specified"
	fKVInUse                        // "Current kv cache memory in use is"
	fUseFree                        // "Free memory on device (F/T GiB)"
	fUseTotal                       //
	fUseUtil                        // "Desired GPU memory utilization is (u, R GiB)"
	fUseRequested                   //
	fUseWeights                     // "Actual usage is W GiB for weight"
	fUseConsumed                    // "C GiB for consumed memory (weights + non-torch)"
	fUseActivation                  // "P GiB for peak activation"
	fUseNonTorch                    // "N GiB for non-torch memory"
	fUseGraphs                      // "G GiB for CUDAGraph memory"
	fProfActivation                 // DEBUG "torch peak memory increase"
	fProfNonTorch                   // DEBUG "non-torch forward increase memory"
	fProfConsumed                   // DEBUG "total consumed (from mem_get_info)"
	fProfWeights                    // DEBUG "weights memory"
	fSnapFree                       // DEBUG "worker init memory snapshot"
	fSnapTotal                      //
	fRequested                      // DEBUG "worker requested memory", "Requested memory: u (util), R GiB"
	fRequestedUtil                  //
	fInitFree                       // DEBUG "Initial free memory"
	fGraphs                         // "Graph capturing finished ... took X GiB"
	fGraphsFirst                    // the first of two such lines (V2 runner, 0.29 on): its estimate
	fPoolActual                     // "CUDA graph pool memory: X GiB (actual)"
	fPoolEstimate                   // "Y GiB (estimated)"
	fGraphEstimate                  // "Estimated CUDA graph memory: X GiB total"
	fNoticeAsked                    // "The current --gpu-memory-utilization=A"
	fNoticeEqual                    // "is equivalent to --gpu-memory-utilization=B"
	fV0Total                        // "the current vLLM instance can use total_gpu_memory (T) x ..."
	fV0Util                         //
	fV0Requested                    //
	fV0Weights                      // "model weights take X"
	fV0NonTorch                     //
	fV0Activation                   //
	fV0KV                           // "the rest of the memory reserved for KV Cache is X"
	fV064Peak                       // 0.6.4: peak_torch_memory, weights included
	fV064NonTorch                   //
	fV064KV                         //
	fV064Total                      //
	fV064Util                       //
	fCPUKV                          // CPU: "(kv/total) GiB for KV cache on node"
	fCPURequested                   // CPU: "with R GiB requested memory"
	fCPUConsumed                    // CPU: "C GiB memory was consumed by non-kv usages"
	fXPUTotal                       // XPU: total GPU memory, MiB in the log
	fXPUNonTorch                    // XPU: non-torch mem
	fFailFree                       // the free memory check: "(F/T GiB) on startup is less than desired"
	fFailTotal                      //
	fFailUtil                       //
	fFailRequested                  //
	numRankFacts
)

// A rule reads one kind of line. Its Line and Fields are what docs/logs.md
// says; a test compares the two.
type rule struct {
	Line     string   // the text, as vLLM formats it
	Versions string   // which versions print it
	Fields   []string // what of the account is read from it
	anchors  []string // a line without any of these is not looked at
	re       *regexp.Regexp
	apply    func(*run, *piece, []string)
}

// number reads a figure as vLLM prints it; the unit is the caller's.
func number(s string) (val, half float64, ok bool) {
	s = strings.ReplaceAll(s, ",", "")
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v != v || v > 1e15 || v < -1e15 {
		return 0, 0, false
	}
	half = 0.5
	if i := strings.IndexByte(s, '.'); i >= 0 {
		for range len(s) - i - 1 {
			half /= 10
		}
	}
	// round(x, 2) printed with %s drops trailing zeros: "7.8" may stand for
	// anything that rounds to 7.80.
	if half > 0.005 {
		half = 0.005
	}
	return v, half, true
}

// sets returns an apply that stores the groups of a match as facts of the
// sender's rank, scaled.
func sets(scale float64, facts ...rankFact) func(*run, *piece, []string) {
	return func(r *run, p *piece, m []string) {
		for i, f := range facts {
			if i+1 >= len(m) || m[i+1] == "" {
				continue
			}
			if v, half, ok := number(m[i+1]); ok {
				r.setRank(p, f, figure{val: v * scale, half: half * scale, src: p.at()})
			}
		}
	}
}

// unitScale turns what a line names GB, GiB or MiB into GiB.
func unitScale(unit string) float64 {
	switch unit {
	case "MiB", "MB":
		return 1.0 / 1024
	case "KiB", "KB":
		return 1.0 / (1 << 20)
	case "bytes", "B":
		return 1.0 / runner.GiB
	}
	return 1
}

const num = `(-?[\d.]+)`

// A ruleGroup is the rules of one part of a run.
type ruleGroup struct {
	title string
	rules []rule
}

// ruleGroups hold every line that is read, in the order of a run.
func ruleGroups() []ruleGroup {
	return []ruleGroup{
		{"Version, configuration, processes", slices.Concat(startRules(), limitRules())},
		{"Weights and attention", loadRules()},
		{"Memory profiling", slices.Concat(profileRules(), debugRules(), v0Rules(), givenRules())},
		{"KV cache", slices.Concat(kvRules(), kvLayoutRules())},
		{"CUDA graphs", slices.Concat(graphRules(), captureRules())},
		{"CPU, XPU, Gaudi", platformRules()},
		{"Compilation, start-up, the benchmark", slices.Concat(compileRules(), benchRules())},
	}
}

// allRules is every rule.
func allRules() []rule {
	var all []rule
	for _, g := range ruleGroups() {
		all = append(all, g.rules...)
	}
	return all
}

// loadRules read the weights and who attends.
func loadRules() []rule {
	return []rule{
		{
			Line:     "Model loading took X GiB [memory] and S seconds | Loading model weights took X GB",
			Versions: "0.4.0 on; V1 runner once per node from 0.11.1, V2 runner once per rank",
			Fields:   []string{"model_weights_gb", "load_seconds"},
			anchors:  []string{"Model loading took", "Loading model weights took"},
			re:       regexp.MustCompile(`(?:Model loading|Loading model weights) took ` + num + ` (?:GB|GiB)(?: memory)?(?: and ([\d.]+) seconds)?`),
			apply: func(r *run, p *piece, m []string) {
				sets(1, fWeights, fLoadSeconds)(r, p, m)
				r.noteRunnerOf(p)
				r.event(p, runner.EventLoadEnd, m[2])
			},
		},
		{
			Line:     "Loading model weights took in total X GiB of device memory",
			Versions: "HPU 0.6.4 to 0.9.2, vllm-gaudi",
			Fields:   []string{"model_weights_gb"},
			anchors:  []string{"weights took in total"},
			re:       regexp.MustCompile(`weights took in total ` + num + ` (GiB|GB|MiB|MB|KiB|bytes|B) of device memory`),
			apply: func(r *run, p *piece, m []string) {
				sets(unitScale(m[2]), fWeights)(r, p, m[:2])
				r.event(p, runner.EventLoadEnd, "")
			},
		},
		{
			Line:     "Starting to load model M... | Loading model from scratch...",
			Versions: "0.6 on",
			anchors:  []string{"Starting to load model", "Loading model from scratch"},
			re:       regexp.MustCompile(`Starting to load model|Loading model from scratch`),
			apply: func(r *run, p *piece, _ []string) {
				r.noteRunnerOf(p)
				r.event(p, runner.EventLoadStart, "")
			},
		},
		{
			Line:     "Using [AttentionBackendEnum.]X [attention] backend[ on V1 engine | out of potential backends: ...]",
			Versions: "0.4.0 on in texts that vary; Flash is silent in 0.4.3 to 0.6.3; a CPU's from 0.11.1 to 0.27 too",
			Fields:   []string{"attention_backend"},
			anchors:  []string{" backend"},
			re:       regexp.MustCompile(`Using (?:backend )?(\S.{0,60}?)( attention)? backend( on V1 engine| out of potential backends:| \(selected via --attention-backend\)| by default)?(\.|[^\w]|$)`),
			apply:    applyBackend,
		},
	}
}

// profileRules read V1's memory profile.
func profileRules() []rule {
	return []rule{
		{
			Line:     "Available KV cache memory: X GiB",
			Versions: "V1 0.9.1 on; per rank to 0.11.0, once per node from 0.11.1; may be negative",
			Fields:   []string{"available_kv_cache_gb", "total_gpu_kv_cache_gb"},
			anchors:  []string{"Available KV cache memory"},
			re:       regexp.MustCompile(`Available KV cache memory: ` + num + ` (?:GiB|GB)`),
			apply: func(r *run, p *piece, m []string) {
				sets(1, fAvailableKV)(r, p, m)
				r.event(p, runner.EventProfileEnd, "")
			},
		},
		{
			Line:     "Memory profiling takes S seconds. Total non KV cache memory: XGiB; torch peak memory increase: XGiB; non-torch forward increase memory: XGiB; weights memory: XGiB.",
			Versions: "V1 DEBUG 0.9.1 to 0.26",
			Fields:   []string{"activations_gb", "non_torch_gb", "model_weights_gb"},
			anchors:  []string{"torch peak memory increase"},
			re:       regexp.MustCompile(`torch peak memory increase: ` + num + ` ?GiB; (?:non-torch forward increase memory: ` + num + ` ?GiB; )?(?:total consumed \(from mem_get_info\): ` + num + ` ?GiB; )?weights memory: ` + num + ` ?GiB`),
			apply:    sets(1, fProfActivation, fProfNonTorch, fProfConsumed, fProfWeights),
		},
		{
			Line:     "Memory profiling takes S seconds. Total non KV cache memory: XGiB; total consumed (from mem_get_info): XGiB; torch peak memory increase: XGiB; weights memory: XGiB.",
			Versions: "V1 DEBUG 0.27 on, terms in either order",
			Fields:   []string{"consumed_gb", "activations_gb", "model_weights_gb"},
			anchors:  []string{"total consumed (from mem_get_info)"},
			re:       regexp.MustCompile(`total consumed \(from mem_get_info\): ` + num + ` ?GiB; torch peak memory increase: ` + num + ` ?GiB; weights memory: ` + num + ` ?GiB`),
			apply:    sets(1, fProfConsumed, fProfActivation, fProfWeights),
		},
		{
			Line:     "Free memory on device [cuda:N] (F/T GiB) on startup. Desired GPU memory utilization is (u, R GiB). Actual usage is W GiB for weight, P GiB for peak activation, N GiB for non-torch memory, and G GiB for CUDAGraph memory. ... Current kv cache memory in use is K GiB.",
			Versions: "0.10.2 (bytes at the end), 0.11.0 to 0.24 at DEBUG, 0.26 on at INFO; every rank",
			Fields:   []string{"free_memory_gb", "total_gpu_memory_gb", "gpu_memory_utilization", "requested_memory_gb", "model_weights_gb", "activations_gb", "non_torch_gb", "graph_capture_gb", "total_gpu_kv_cache_gb"},
			anchors:  []string{"Desired GPU memory utilization is"},
			re:       regexp.MustCompile(`Free memory on device\s?\S* \(` + num + `/` + num + ` GiB\) on startup\. Desired GPU memory utilization is \(` + num + `, ` + num + ` GiB\)`),
			apply: func(r *run, p *piece, m []string) {
				sets(1, fUseFree, fUseTotal, fUseUtil, fUseRequested)(r, p, m)
				applyUsage(r, p)
			},
		},
		{
			Line:     "Actual usage is C GiB for consumed memory (weights + non-torch), P GiB for peak activation, and G GiB for CUDAGraph memory.",
			Versions: "0.27 on, in place of the terms above; P holds the graph estimate, which is taken off",
			Fields:   []string{"consumed_gb", "activations_gb", "graph_capture_gb"},
			anchors:  []string{"Actual usage is"},
			re:       regexp.MustCompile(`Actual usage is ` + num + ` GiB`),
			apply: func(r *run, p *piece, _ []string) {
				if !strings.Contains(p.msg, "Desired GPU memory utilization is") {
					applyUsage(r, p) // hard-wrapped or cut: the first sentence is on another line
				}
			},
		},
	}
}

// debugRules read what V1 adds at DEBUG.
func debugRules() []rule {
	return []rule{
		{
			Line:     "worker init memory snapshot: torch_peak=..., free_memory=XGiB, total_memory=XGiB, ...",
			Versions: "V1 DEBUG 0.14 on",
			Fields:   []string{"free_memory_gb", "total_gpu_memory_gb"},
			anchors:  []string{"init memory snapshot"},
			re:       regexp.MustCompile(`init memory snapshot: .*?free_memory=` + num + `GiB, total_memory=` + num + `GiB`),
			apply:    sets(1, fSnapFree, fSnapTotal),
		},
		{
			Line:     "worker requested memory: XGiB",
			Versions: "V1 DEBUG 0.14 on",
			Fields:   []string{"requested_memory_gb"},
			anchors:  []string{"worker requested memory"},
			re:       regexp.MustCompile(`worker requested memory: ` + num + ` ?GiB`),
			apply:    sets(1, fRequested),
		},
		{
			Line:     "Initial free memory: X GiB[, free memory: X GiB, requested GPU memory: X GiB | ; Requested memory: u (util), X GiB]",
			Versions: "V1 DEBUG 0.9.1 to 0.10.0; 0.10.1 on",
			Fields:   []string{"free_memory_gb", "requested_memory_gb", "gpu_memory_utilization"},
			anchors:  []string{"Initial free memory: "},
			re:       regexp.MustCompile(`Initial free memory: ` + num + ` GiB(?:, free memory: [\d.]+ GiB, requested GPU memory: ` + num + ` GiB)?(?:; Requested memory: ` + num + ` \(util\), ` + num + ` GiB)?`),
			apply: func(r *run, p *piece, m []string) {
				sets(1, fInitFree, fRequested, fRequestedUtil, fRequested)(r, p, m)
			},
		},
	}
}

// v0Rules read V0's memory profile.
func v0Rules() []rule {
	return []rule{
		{
			Line:     "the current vLLM instance can use total_gpu_memory (XGiB) x gpu_memory_utilization (u) = XGiB",
			Versions: "V0 0.6.5 to 0.10.2; every worker",
			Fields:   []string{"total_gpu_memory_gb", "gpu_memory_utilization", "requested_memory_gb"},
			anchors:  []string{"the current vLLM instance can use"},
			re:       regexp.MustCompile(`total_gpu_memory \(` + num + `GiB\) x gpu_memory_utilization \(` + num + `\) = ` + num + `GiB`),
			apply:    sets(1, fV0Total, fV0Util, fV0Requested),
		},
		{
			Line:     "model weights take XGiB; non_torch_memory takes XGiB; PyTorch activation peak memory takes XGiB; the rest of the memory reserved for KV Cache is XGiB.",
			Versions: "V0 0.6.5 to 0.10.2; every worker",
			Fields:   []string{"model_weights_gb", "non_torch_gb", "activations_gb", "available_kv_cache_gb", "total_gpu_kv_cache_gb"},
			anchors:  []string{"non_torch_memory takes"},
			re:       regexp.MustCompile(`model weights take ` + num + `GiB; non_torch_memory takes ` + num + `GiB; PyTorch activation peak memory takes ` + num + `GiB; the rest of the memory reserved for KV Cache is ` + num + `GiB`),
			apply: func(r *run, p *piece, m []string) {
				sets(1, fV0Weights, fV0NonTorch, fV0Activation, fV0KV)(r, p, m)
				r.event(p, runner.EventProfileEnd, "")
			},
		},
		{
			Line:     "Memory profiling results: total_gpu_memory=XGiB initial_memory_usage=XGiB peak_torch_memory=XGiB memory_usage_post_profile=XGib non_torch_memory=XGiB kv_cache_size=XGiB gpu_memory_utilization=u",
			Versions: "V0 0.6.4; peak_torch_memory holds the weights, which are taken off",
			Fields:   []string{"total_gpu_memory_gb", "activations_gb", "non_torch_gb", "available_kv_cache_gb", "gpu_memory_utilization"},
			anchors:  []string{"Memory profiling results:"},
			re:       regexp.MustCompile(`total_gpu_memory=` + num + `Gi[bB] .*?peak_torch_memory=` + num + `Gi[bB] .*?non_torch_memory=` + num + `Gi[bB] kv_cache_size=` + num + `Gi[bB] gpu_memory_utilization=` + num),
			apply: func(r *run, p *piece, m []string) {
				sets(1, fV064Total, fV064Peak, fV064NonTorch, fV064KV, fV064Util)(r, p, m)
				r.event(p, runner.EventProfileEnd, "")
			},
		},
	}
}

// givenRules read a KV size that was given.
func givenRules() []rule {
	return []rule{
		{
			Line:     "Initial free memory X GiB, reserved Y GiB memory for KV Cache as specified by kv_cache_memory_bytes config and skipped memory profiling.",
			Versions: "0.10.2 on, where the KV size is given; no budget then",
			Fields:   []string{"free_memory_gb", "available_kv_cache_gb", "total_gpu_kv_cache_gb"},
			anchors:  []string{"memory for KV Cache as specified"},
			re:       regexp.MustCompile(`Initial free memory ` + num + ` ?GiB, reserved ` + num + ` ?GiB memory for KV Cache as specified`),
			apply: func(r *run, p *piece, m []string) {
				sets(1, fInitFree, fGivenKV)(r, p, m)
				r.event(p, runner.EventProfileEnd, "")
			},
		},
		{
			Line:     "Applying persisted startup plan (fingerprint F): kv_cache_memory_bytes=N (X GiB), recorded free-memory baseline X GiB, current X GiB.",
			Versions: "0.26 on with VLLM_ENABLE_STARTUP_PLAN=1",
			Fields:   []string{"available_kv_cache_gb", "total_gpu_kv_cache_gb", "free_memory_gb"},
			anchors:  []string{"Applying persisted startup plan"},
			re:       regexp.MustCompile(`kv_cache_memory_bytes=\d+ \(` + num + ` GiB\), recorded free-memory baseline [\d.]+ GiB, current ` + num + ` GiB`),
			apply:    sets(1, fGivenKV, fInitFree),
		},
	}
}

// usageRE reads the terms of the "Actual usage" line; any of them may be
// missing.
var (
	usageWeightRE     = regexp.MustCompile(num + ` GiB for weight`)
	usageConsumedRE   = regexp.MustCompile(num + ` GiB for consumed memory \(weights \+ non-torch\)`)
	usageActivationRE = regexp.MustCompile(num + ` GiB for peak activation`)
	usageNonTorchRE   = regexp.MustCompile(num + ` GiB for non-torch memory`)
	usageGraphRE      = regexp.MustCompile(num + ` GiB for CUDAGraph memory`)
	usageKVRE         = regexp.MustCompile(`[Cc]urrent kv cache memory in use is ` + num + ` (GiB|bytes)`)
)

func applyUsage(r *run, p *piece) {
	for _, t := range []struct {
		re   *regexp.Regexp
		fact rankFact
	}{
		{usageWeightRE, fUseWeights}, {usageConsumedRE, fUseConsumed}, {usageActivationRE, fUseActivation},
		{usageNonTorchRE, fUseNonTorch}, {usageGraphRE, fUseGraphs},
	} {
		sets(1, t.fact)(r, p, t.re.FindStringSubmatch(p.msg))
	}
	if m := usageKVRE.FindStringSubmatch(p.msg); m != nil {
		sets(unitScale(m[2]), fKVInUse)(r, p, m[:2])
	}
}

// graphRules read what CUDA graphs took and were estimated to take.
func graphRules() []rule {
	return []rule{
		{
			Line:     "Graph capturing finished in S secs[, took X GiB]",
			Versions: "0.4.0 on; with a size from 0.6.4; per rank to 0.11.0 and with the V2 runner, which prints it twice from 0.29 (the first is its estimate)",
			Fields:   []string{"graph_capture_gb", "cuda_graphs_enabled"},
			anchors:  []string{"Graph capturing finished"},
			re:       regexp.MustCompile(`Graph capturing finished in ([\d.]+) secs?(?:, took ` + num + ` GiB)?`),
			apply: func(r *run, p *piece, m []string) {
				if strings.Contains(p.msg, "Patched vLLM") {
					return
				}
				if !r.ranksHave(p, fGraphsFirst) {
					sets(1, fGraphsFirst)(r, p, []string{"", m[2]})
				}
				sets(1, fGraphs)(r, p, []string{"", m[2]})
				r.setWord(&r.captured, p, "true")
				r.noteRunnerOf(p)
				delete(r.bars, "Capturing CUDA graph")
				r.event(p, runner.EventCaptureEnd, m[1])
			},
		},
		{
			Line:     "CUDA graph pool memory: X GiB (actual), Y GiB (estimated), difference: ...",
			Versions: "0.18 on, V1 runner; every rank",
			Fields:   []string{"graph_capture_gb", "graph_estimate_gb"},
			anchors:  []string{"CUDA graph pool memory"},
			re:       regexp.MustCompile(`CUDA graph pool memory: ` + num + ` GiB \(actual\)(?:, ` + num + ` GiB \(estimated\))?`),
			apply:    sets(1, fPoolActual, fPoolEstimate),
		},
		{
			Line:     "Estimated CUDA graph memory: X GiB total",
			Versions: "0.18 on, V1 runner; every rank",
			Fields:   []string{"graph_estimate_gb"},
			anchors:  []string{"Estimated CUDA graph memory"},
			re:       regexp.MustCompile(`Estimated CUDA graph memory: ` + num + ` (GiB|MiB) total`),
			apply: func(r *run, p *piece, m []string) {
				sets(unitScale(m[2]), fGraphEstimate)(r, p, m[:2])
			},
		},
		{
			Line:     "CUDA graph memory profiling is enabled (...). The current --gpu-memory-utilization=A is equivalent to --gpu-memory-utilization=B without CUDA graph memory profiling.",
			Versions: "0.20 on (0.18 to 0.19 announce it); A - B times the total is the estimate",
			Fields:   []string{"gpu_memory_utilization", "graph_estimate_gb"},
			anchors:  []string{"CUDA graph memory profiling is enabled"},
			re:       regexp.MustCompile(`profiling is enabled(?:.*?--gpu-memory-utilization=` + num + ` is equivalent to --gpu-memory-utilization=([\d.]*\d))?`),
			apply: func(r *run, p *piece, m []string) {
				sets(1, fNoticeAsked, fNoticeEqual)(r, p, m)
				r.setWord(&r.estimateOn, p, "enabled")
			},
		},
		{
			Line:     "In v0.19, CUDA graph memory profiling will be enabled by default (...) ... increase --gpu-memory-utilization from A to B",
			Versions: "0.18 to 0.19.1",
			Fields:   []string{"gpu_memory_utilization"},
			anchors:  []string{"CUDA graph memory profiling will be enabled"},
			re:       regexp.MustCompile(`--gpu-memory-utilization from ` + num + ` to [\d.]+`),
			apply:    sets(1, fNoticeAsked),
		},
		{
			Line:     "CUDA graph memory profiling is disabled (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0)",
			Versions: "0.20 on",
			Fields:   []string{"graph_estimate_gb"},
			anchors:  []string{"CUDA graph memory profiling is disabled"},
			re:       regexp.MustCompile(`CUDA graph memory profiling is disabled`),
			apply:    func(r *run, p *piece, _ []string) { r.setWord(&r.estimateOff, p, "disabled") },
		},
	}
}

// captureRules read whether graphs are captured.
func captureRules() []rule {
	return []rule{
		{
			Line:     "Capturing the model for CUDA graphs. ... | Capturing cudagraphs for decoding. ...",
			Versions: "V0 0.4.0 to 0.6.3; 0.6.4 to 0.10.2",
			Fields:   []string{"cuda_graphs_enabled"},
			anchors:  []string{"Capturing the model for CUDA graphs", "Capturing cudagraphs for decoding"},
			re:       regexp.MustCompile(`Capturing the model for CUDA graphs|Capturing cudagraphs for decoding`),
			apply: func(r *run, p *piece, _ []string) {
				r.setWord(&r.captured, p, "true")
				r.event(p, runner.EventCaptureStart, "")
			},
		},
		{
			Line:     "Skipping CUDA graph capture ... | Cudagraph is disabled under eager mode | Enforce eager set, ... | CUDA graph is not supported on X, fallback to the eager mode.",
			Versions: "0.5 on, texts vary",
			Fields:   []string{"cuda_graphs_enabled"},
			anchors:  []string{"Skipping CUDA graph capture", "disabled under eager mode", "Enforce eager set", "CUDA graph is not supported on"},
			re:       regexp.MustCompile(`Skipping CUDA graph capture|[Cc]udagraph is disabled under eager mode|Enforce eager set|CUDA graph is not supported on`),
			apply: func(r *run, p *piece, m []string) {
				r.setWord(&r.graphsOff, p, m[0])
				if m[0] == "Enforce eager set" {
					r.setWord(&r.compileOff, p, m[0])
				}
			},
		},
	}
}

// platformRules read what CPU, XPU and Gaudi workers print.
func platformRules() []rule {
	return []rule{
		{
			Line:     "Auto set (kv/total) GiB for KV cache on node N[, with R GiB requested memory for the worker. C GiB memory was consumed by non-kv usages.] | Explicitly set (kv/total) GiB ...",
			Versions: "CPU 0.20 on",
			Fields:   []string{"available_kv_cache_gb", "total_gpu_kv_cache_gb", "requested_memory_gb", "consumed_gb"},
			anchors:  []string{"GiB for KV cache on node"},
			re:       regexp.MustCompile(`set \(` + num + `/[\d.]+\) GiB for KV cache on node \d+(?:, with ` + num + ` GiB requested memory for the worker\. ` + num + ` GiB memory was consumed)?`),
			apply: func(r *run, p *piece, m []string) {
				sets(1, fCPUKV, fCPURequested, fCPUConsumed)(r, p, m)
				r.event(p, runner.EventProfileEnd, "")
			},
		},
		{
			Line:     "Environment variable VLLM_CPU_KVCACHE_SPACE (GB|GiB) for CPU backend is not set, using 4 by default. | VLLM_CPU_KVCACHE_SPACE not set. Using X GiB for KV cache.",
			Versions: "CPU 0.4.1 to 0.19.1; VLLM_OPENVINO_KVCACHE_SPACE 0.5 to 0.8.1",
			Fields:   []string{"available_kv_cache_gb", "total_gpu_kv_cache_gb"},
			anchors:  []string{"VLLM_CPU_KVCACHE_SPACE", "VLLM_OPENVINO_KVCACHE_SPACE"},
			re:       regexp.MustCompile(`VLLM_(?:CPU|OPENVINO)_KVCACHE_SPACE.*?not set(?:, using ` + num + ` by default|\. Using ` + num + ` Gi?B for KV cache)`),
			apply:    sets(1, fCPUKV, fCPUKV),
		},
		{
			Line:     "Before memory profiling run, total GPU memory: X MB, model load takes X MB, free gpu memory is X MB.",
			Versions: "XPU V1 0.9.2 to 0.15; MB is MiB",
			Fields:   []string{"total_gpu_memory_gb"},
			anchors:  []string{"Before memory profiling run"},
			re:       regexp.MustCompile(`total GPU memory: ` + num + ` MB`),
			apply:    sets(1.0/1024, fXPUTotal),
		},
		{
			Line:     "After memory profiling run, peak memory usage is X MB,torch mem is X MB, non-torch mem is X MB, free gpu memory is X MB.",
			Versions: "XPU V1 0.9.2 to 0.15; MB is MiB",
			Fields:   []string{"non_torch_gb"},
			anchors:  []string{"After memory profiling run"},
			re:       regexp.MustCompile(`non-torch mem is ` + num + ` MB`),
			apply:    sets(1.0/1024, fXPUNonTorch),
		},
		{
			Line:     "Free device memory: X GiB, X GiB usable (gpu_memory_utilization=u), X GiB reserved for HPUGraphs (...), X GiB reserved for [usable ]KV cache",
			Versions: "HPU 0.6.4 to 0.9.2, vllm-gaudi",
			Fields:   []string{"free_memory_gb", "gpu_memory_utilization", "available_kv_cache_gb", "total_gpu_kv_cache_gb"},
			anchors:  []string{"reserved for usable KV cache", "reserved for KV cache"},
			re:       regexp.MustCompile(`Free device memory: ` + num + ` GiB.*?gpu_memory_utilization=` + num + `\).*?` + num + ` GiB reserved for (?:usable )?KV cache`),
			apply:    sets(1, fInitFree, fRequestedUtil, fAvailableKV),
		},
		{
			Line:     "Usable num_blocks: N, actual allocated num_blocks: N",
			Versions: "vllm-gaudi",
			Fields:   []string{"num_gpu_blocks"},
			anchors:  []string{"Usable num_blocks"},
			re:       regexp.MustCompile(`Usable num_blocks: (\d+)`),
			apply:    func(r *run, p *piece, m []string) { r.addMin(&r.blocks, p, m[1]) },
		},
	}
}

package log

import (
	"maps"
	"regexp"
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

// sets returns an effect that stores the groups of a match as facts of the
// sender's rank, scaled.
func sets(scale float64, facts ...rankFact) effect {
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
	case "MiB", "MB", "M":
		return 1.0 / 1024
	case "KiB", "KB", "K":
		return 1.0 / (1 << 20)
	case "bytes", "B":
		return 1.0 / runner.GiB
	}
	return 1
}

// An effect is what a line does beside the moment that it marks: m is the match
// of its rule's text.
type effect func(r *run, p *piece, m []string)

// effects are those of lines.txt, by the names of its entries.
func effects() map[string]effect {
	all := map[string]effect{}
	for _, part := range []map[string]effect{
		engineEffects(), memoryEffects(), kvEffects(), graphEffects(), startEffects(),
	} {
		maps.Copy(all, part)
	}
	return all
}

// engineEffects are of the lines that say which engine this is, its limits, its
// runner and who is which rank.
func engineEffects() map[string]effect {
	return map[string]effect{
		"banner": applyBanner, "server_version": applyVersion, "logo": applyVersion, "args": applyArgs,
		"ranks": applyWorld, "backend": applyBackend,
		"platform": func(r *run, p *piece, m []string) { r.setWord(&r.platform, p, strings.ToLower(m[1])) },
		"device_name": func(r *run, p *piece, m []string) {
			r.setFirst(&r.deviceName, p, map[string]string{"NVIDIA": "cuda", "AMD": "rocm"}[m[1]])
		},
		"architecture": func(r *run, p *piece, m []string) {
			if !drafterRE.MatchString(m[1]) {
				r.setFirst(&r.architecture, p, m[1])
			}
		},
		"max_model_len":   func(r *run, p *piece, m []string) { r.setFirst(&r.usingLen, p, m[1]) },
		"auto_fit":        func(r *run, p *piece, m []string) { r.setWord(&r.fitLen, p, m[1]+m[2]) },
		"chunked_prefill": func(r *run, p *piece, m []string) { r.setFirst(&r.chunked, p, m[1]) },
		"unified":         func(r *run, p *piece, m []string) { r.setFirst(&r.unified, p, m[0]) },
		"mm_skipped":      func(r *run, p *piece, _ []string) { r.setFirst(&r.mmSkipped, p, "skipped") },
		"runner_v2":       func(r *run, p *piece, _ []string) { r.setWord(&r.modelRunner, p, "v2") },
		"runner_v1":       func(r *run, p *piece, _ []string) { r.setWord(&r.modelRunner, p, "v1") },
	}
}

// drafterRE are architectures of models that only draft for another.
var drafterRE = regexp.MustCompile(`^Eagle|^Medusa|MTP|NextN|Speculator|^DFlash`)

// memoryEffects are of the weights, the memory profiles of both engines, and of
// what CPU, XPU and Gaudi workers print.
func memoryEffects() map[string]effect {
	return map[string]effect{
		"loading": func(r *run, p *piece, m []string) {
			sets(1, fWeights, fLoadSeconds)(r, p, m)
			r.noteRunnerOf(p)
		},
		"loading_hpu":      func(r *run, p *piece, m []string) { sets(unitScale(m[2]), fWeights)(r, p, m[:2]) },
		"load_start":       func(r *run, p *piece, _ []string) { r.noteRunnerOf(p) },
		"available_kv":     sets(1, fAvailableKV),
		"profile":          sets(1, fProfActivation, fProfNonTorch, fProfConsumed, fProfWeights),
		"profile_consumed": sets(1, fProfConsumed, fProfActivation, fProfWeights),
		"usage": func(r *run, p *piece, m []string) {
			sets(1, fUseFree, fUseTotal, fUseUtil, fUseRequested)(r, p, m)
			applyUsage(r, p)
		},
		"usage_wrapped": func(r *run, p *piece, _ []string) {
			if !strings.Contains(p.msg, "Desired GPU memory utilization is") {
				applyUsage(r, p) // hard-wrapped or cut: the first sentence is on another line
			}
		},
		"snapshot":     sets(1, fSnapFree, fSnapTotal),
		"requested":    sets(1, fRequested),
		"initial_free": sets(1, fInitFree, fRequested, fRequestedUtil, fRequested),
		"v0_budget":    sets(1, fV0Total, fV0Util, fV0Requested),
		"v0_profile":   sets(1, fV0Weights, fV0NonTorch, fV0Activation, fV0KV),
		"v064_profile": sets(1, fV064Total, fV064Peak, fV064NonTorch, fV064KV, fV064Util),
		"given_kv":     sets(1, fInitFree, fGivenKV),
		"startup_plan": sets(1, fGivenKV, fInitFree),
		"cpu_kv":       sets(1, fCPUKV, fCPURequested, fCPUConsumed),
		"cpu_kv_space": sets(1, fCPUKV, fCPUKV),
		"ascend_kv": func(r *run, p *piece, m []string) {
			sets(1.0/runner.GiB, fAvailableKV, fXPUTotal)(r, p, m)
			r.setFirst(&r.device, p, "npu")
		},
		"external_weights": func(r *run, p *piece, m []string) { r.addMin(&r.externalWeights, p, m[2]) },
		"host_pool":        func(r *run, p *piece, m []string) { r.addMin(&r.hostKV, p, m[1]) },
		"xpu_before":       sets(1.0/1024, fXPUTotal),
		"xpu_after":        sets(1.0/1024, fXPUNonTorch),
		"hpu_free":         sets(1, fInitFree, fRequestedUtil, fAvailableKV),
	}
}

// kvEffects are of the size and the layout of the KV cache.
func kvEffects() map[string]effect {
	return map[string]effect{
		"kv_tokens": func(r *run, p *piece, m []string) {
			if m[1] == "" { // those of the GPU and the host together are nowhere given apart
				r.addMin(&r.tokens, p, m[2])
			}
		},
		"concurrency": func(r *run, p *piece, m []string) {
			r.setWord(&r.kvLen, p, strings.ReplaceAll(m[1], ",", ""))
			r.addMin(&r.concurrency, p, m[2])
		},
		"blocks": func(r *run, p *piece, m []string) {
			if m[1] == "CPU" && m[3] == "" {
				r.addMin(&r.cpuBlocks, p, m[2]) // CPU and OpenVINO executors: this is the KV
				return
			}
			r.addMin(&r.blocks, p, m[2])
			if m[4] != "" {
				r.setWord(&r.v0Blocks, p, m[0])
				r.addMin(&r.cpuBlocks, p, m[4])
			}
		},
		"cache_config": func(r *run, p *piece, m []string) { r.addMin(&r.blocks, p, m[1]) },
		"hpu_blocks":   func(r *run, p *piece, m []string) { r.addMin(&r.blocks, p, m[1]) },
		"blocks_override": func(r *run, p *piece, m []string) {
			if m[1] != "0" {
				r.setWord(&r.overrideBlocks, p, m[2])
			}
		},
		"block_size": func(r *run, p *piece, m []string) { r.setWord(&r.blockSize, p, m[1]) },
		"kv_dtype":   func(r *run, p *piece, m []string) { r.setWord(&r.kvDtype, p, m[1]+m[2]) },
		"hybrid":     func(r *run, p *piece, m []string) { r.setWord(&r.hybrid, p, m[0]) },
	}
}

// graphEffects are of what CUDA graphs took and were estimated to take.
func graphEffects() map[string]effect {
	return map[string]effect{
		"captured": func(r *run, p *piece, m []string) {
			if strings.Contains(p.msg, "Patched vLLM") {
				return
			}
			size := []string{"", m[2]}
			if len(r.sender(p).facts[fGraphsFirst]) == 0 {
				sets(1, fGraphsFirst)(r, p, size)
			}
			sets(1, fGraphs)(r, p, size)
			r.setWord(&r.captured, p, "true")
			r.noteRunnerOf(p)
			delete(r.bars, "Capturing CUDA graph")
			r.event(p, runner.EventCaptureEnd, m[1])
		},
		"graph_pool":     sets(1, fPoolActual, fPoolEstimate),
		"graph_estimate": func(r *run, p *piece, m []string) { sets(unitScale(m[2]), fGraphEstimate)(r, p, m[:2]) },
		"graph_notice": func(r *run, p *piece, m []string) {
			sets(1, fNoticeAsked, fNoticeEqual)(r, p, m)
			r.setWord(&r.estimateOn, p, "enabled")
		},
		"graph_notice_to_come": func(r *run, p *piece, m []string) {
			sets(1, fNoticeAsked)(r, p, m)
			r.setWord(&r.estimateToCome, p, "announced")
		},
		"graph_estimate_off": func(r *run, p *piece, _ []string) { r.setWord(&r.estimateOff, p, "disabled") },
		"capture_start":      func(r *run, p *piece, _ []string) { r.setWord(&r.captured, p, "true") },
		"eager": func(r *run, p *piece, m []string) {
			r.setWord(&r.graphsOff, p, m[0])
			if m[0] == "Enforce eager set" {
				r.setWord(&r.compileOff, p, m[0])
			}
		},
	}
}

// startEffects are of compilation, start-up, the benchmark and the server.
func startEffects() map[string]effect {
	return map[string]effect{
		"compile": func(r *run, p *piece, m []string) {
			r.addCompile(p, m[2])
			if m[1] != "" {
				r.setWord(&r.compileOff, p, m[0])
			}
		},
		"compile_warm": func(r *run, p *piece, _ []string) { r.setFirst(&r.compileWarm, p, "warm") },
		"compile_cold": func(r *run, p *piece, _ []string) { r.setFirst(&r.compileCold, p, "cold") },
		"init_engine": func(r *run, p *piece, m []string) {
			r.setWord(&r.initSeconds, p, m[1])
			if m[2] != "" {
				r.setWord(&r.initCompile, p, m[2])
			}
		},
		"warmup":     func(r *run, p *piece, _ []string) { r.setReady(p) },
		"result":     func(r *run, _ *piece, _ []string) { r.done = true },
		"bars":       applyBar,
		"serving":    applyServing,
		"statistics": applyServing,
		"shutdown":   func(r *run, _ *piece, _ []string) { r.down = true },
		"waking":     func(r *run, p *piece, _ []string) { r.enterStage(p, stageWakeUp) },
		"awake":      func(r *run, p *piece, _ []string) { r.enterStage(p, stageServing) },
	}
}

func applyServing(r *run, p *piece, _ []string) {
	r.setReady(p)
	r.server = true
}

// usageRE reads a term of the "Actual usage" line; any of them may be missing.
var (
	usageRE = regexp.MustCompile(num + ` GiB for (weight|consumed memory \(weights \+ non-torch\)|peak activation|` +
		`non-torch memory|(?:CUDA|NPU|XPU|HPU) ?[Gg]raph memory)`)
	usageKVRE = regexp.MustCompile(`[Cc]urrent (?:kv cache|KV cache) memory(?: in use is|:) ` + num + ` (GiB|bytes)`)
)

func applyUsage(r *run, p *piece) {
	facts := map[string]rankFact{
		"weight": fUseWeights, "consumed memory (weights + non-torch)": fUseConsumed, "peak activation": fUseActivation,
		"non-torch memory": fUseNonTorch, "graph memory": fUseGraphs,
	}
	for _, m := range usageRE.FindAllStringSubmatch(p.msg, -1) {
		name := m[2]
		if strings.HasSuffix(strings.ToLower(name), "graph memory") {
			name = "graph memory"
		}
		if fact, first := facts[name]; first {
			sets(1, fact)(r, p, m[:2])
			delete(facts, name)
		}
	}
	if m := usageKVRE.FindStringSubmatch(p.msg); m != nil {
		sets(unitScale(m[2]), fKVInUse)(r, p, m[:2])
	}
}

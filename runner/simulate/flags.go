package simulate

import "strings"

// A flagKind says how argparse takes a flag's value.
type flagKind byte

const (
	flagText  flagKind = 's'
	flagInt   flagKind = 'i'
	flagFloat flagKind = 'f'
	flagBool  flagKind = 'b' // --x and --no-x, no value
	flagMany  flagKind = 'm' // one or more values
)

// flagTable are the flags of `vllm bench latency` and of EngineArgs, by kind,
// over all versions that are imitated: the simulator does not refuse a flag for
// being older or newer than the version.
func flagTable() map[string]flagKind {
	table := map[string]flagKind{}
	for kind, names := range map[flagKind]string{
		flagText: `model tokenizer tokenizer-mode revision code-revision tokenizer-revision hf-config-path dtype kv-cache-dtype
			load-format download-dir config-format quantization output-json profile-result-dir distributed-executor-backend
			guided-decoding-backend structured-outputs-config reasoning-parser reasoning-parser-plugin logits-processor-pattern
			model-impl runner convert task rope-scaling hf-overrides hf-token override-neuron-config override-pooler-config
			override-generation-config generation-config compilation-config speculative-config kv-transfer-config
			kv-events-config ec-transfer-config model-loader-extra-config additional-config observability-config
			otlp-traces-endpoint collect-detailed-traces scheduling-policy scheduler-cls worker-cls worker-extension-cls
			prefix-caching-hash-algo mamba-cache-dtype mamba-ssm-cache-dtype mamba-block-size mamba-cache-mode
			attention-backend attention-config mm-processor-kwargs limit-mm-per-prompt media-io-kwargs
			mm-encoder-tp-mode mm-encoder-attn-backend mm-processor-cache-type lora-dtype eplb-config
			data-parallel-backend data-parallel-address master-addr all2all-backend expert-placement-strategy
			dcp-comm-backend moe-backend linear-backend kernel-config profiler-config pooler-config
			allowed-local-media-path device pt-load-map-location quantization-param-path speculative-model
			kv-offloading-backend weight-transfer-config offload-config optimization-level performance-mode
			stream-interval cpu-offload-params hf-config-overrides language-model-only block-size-str safetensors-load-strategy
			renderer-num-workers kv-cache-dtype-skip-layers seed-str numa-bind-nodes logprobs-mode`,
		flagInt: `input-len output-len batch-size n num-iters num-iters-warmup seed max-model-len max-seq-len-to-capture
			max-num-seqs max-num-batched-tokens tensor-parallel-size pipeline-parallel-size data-parallel-size
			data-parallel-rank data-parallel-size-local data-parallel-rpc-port decode-context-parallel-size
			prefill-context-parallel-size max-parallel-loading-workers block-size kv-cache-memory-bytes
			num-gpu-blocks-override max-logprobs num-scheduler-steps max-loras max-lora-rank max-cpu-loras
			max-num-partial-prefills max-long-partial-prefills long-prefill-token-threshold num-lookahead-slots
			num-speculative-tokens nnodes node-rank master-port max-cudagraph-capture-size scheduler-delay-factor-int
			num-redundant-experts eplb-window-size max-num-on-the-fly async-scheduling-depth mm-processor-cache-gb
			stop-interval lora-extra-vocab-size`,
		flagFloat: `gpu-memory-utilization cpu-offload-gb swap-space rope-theta scheduler-delay-factor kv-offloading-size
			video-pruning-rate kv-sharing-factor`,
		flagBool: `enforce-eager trust-remote-code skip-tokenizer-init disable-detokenize use-beam-search profile
			enable-prefix-caching enable-chunked-prefill disable-sliding-window disable-cascade-attn
			disable-custom-all-reduce disable-log-stats disable-async-output-proc disable-hybrid-kv-cache-manager
			disable-chunked-mm-input enable-expert-parallel enable-eplb enable-dbo enable-lora fully-sharded-loras
			enable-lora-bias use-tqdm-on-load enable-sleep-mode async-scheduling calculate-kv-scales
			ray-workers-use-nsight use-v2-block-manager enable-prompt-embeds enable-mm-embeds kv-sharing-fast-prefill
			multi-step-stream-outputs enable-return-routed-experts enable-multimodal-encoder-data-parallel
			skip-mm-profiling interleave-mm-strings enable-log-requests enable-reasoning multimodal-embeds
			kv-cache-metrics cudagraph-metrics enable-layerwise-nvtx-tracing enable-mfu-metrics
			show-hidden-metrics-for-version scheduler-reserve-full-isl enable-flashinfer-autotune
			enable-bf16x3-router-gemm ignore-patterns-default numa-bind data-parallel-hybrid-lb
			data-parallel-external-lb enable-cumem-allocator`,
		flagMany: `served-model-name cuda-graph-sizes cudagraph-capture-sizes middleware lora-modules ignore-patterns
			logits-processors`,
	} {
		for _, name := range strings.Fields(names) {
			table[name] = kind
		}
	}
	return table
}

// shortFlags are the short and the changed spellings.
func shortFlags() map[string]string {
	return map[string]string{
		"-tp": "tensor-parallel-size", "-pp": "pipeline-parallel-size", "-dp": "data-parallel-size",
		"-dcp": "decode-context-parallel-size", "-pcp": "prefill-context-parallel-size", "-q": "quantization",
		"-ep": "enable-expert-parallel", "-cc": "compilation-config", "-ac": "attention-config",
		"-O": "optimization-level", "-n": "nnodes", "-r": "node-rank",
	}
}

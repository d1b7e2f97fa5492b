package models

import "strings"

// layoutDecoder is the one layout that modules (shapes.go) walks: a stack of
// decoder layers between a word embedding and an output projection.
const layoutDecoder = "decoder"

// defaults are what transformers' config classes assume where a config.json is
// silent. Only those are here that published files really leave out.
// Source: transformers, models/*/configuration_*.py.
type defaults struct {
	heads, kvHeads, headDim, vocab, positions int64
	tied                                      bool
}

func defaultsOf(modelType string) defaults {
	switch modelType {
	case "gemma3_text", "gemma3":
		return defaults{heads: 8, kvHeads: 4, headDim: 256, vocab: 262208, positions: 131072, tied: true}
	case "gemma", "gemma2":
		return defaults{headDim: 256, vocab: 256000, positions: 8192, tied: true}
	case "gemma4", "gemma4_text":
		return defaults{headDim: 256, vocab: 262144, positions: 131072, tied: true}
	case "opt", "gpt2", "falcon", "gpt_bigcode", "starcoder2", "cohere", "cohere2", "bloom", "mpt":
		return defaults{tied: true}
	case "mistral", "mistral3_text":
		return defaults{vocab: 32000}
	case "nemotron_h":
		return defaults{headDim: 128}
	}
	return defaults{}
}

// familyName groups model types: "qwen3_moe" and "qwen2" are "qwen".
func familyName(modelType string) string {
	for _, name := range []string{
		"llama4", "llama", "mixtral", "mistral", "qwen", "gemma", "phi", "deepseek", "glm", "gpt_oss", "granite",
		"falcon", "opt", "gpt2", "minimax", "nemotron", "kimi", "olmo", "cohere", "starcoder", "stablelm",
		"exaone", "gpt_neox", "bloom",
	} {
		if strings.HasPrefix(modelType, name) {
			return name
		}
	}
	return modelType
}

// known sets what the model type adds to the plain fields and says whether
// the package knows the type. Each setting was read in the model's class in
// vLLM (model_executor/models) and is checked by a published count where there is one.
func (c *config) known(a *Architecture) bool {
	a.MLP, a.Norm, a.NormsPerLayer = "gated", "rms", 2
	switch a.ModelType {
	case "llama", "mistral", "yi", "granite", "smollm3", "seed_oss", "internlm3", "ministral", "ministral3",
		"mistral3_text", "arcee", "exaone4", "olmo2":
		c.llamaLike(a)
	case "qwen2", "qwen2_moe", "qwen2_vl_text", "qwen2_5_vl_text", "qwen2_vl", "qwen2_5_vl", "qwen3", "qwen3_moe",
		"qwen3_vl_text", "qwen3_vl_moe_text", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text":
		c.qwen(a)
	case "gemma", "gemma2", "gemma3", "gemma3_text":
		c.gemma(a)
	case "gemma4", "gemma4_text":
		return c.gemma4(a)
	case "phi3", "phi", "starcoder2", "stablelm":
		c.phi(a)
	case "opt", "gpt2", "falcon", "gpt_neox", "gpt_bigcode":
		return c.older(a)
	case "mixtral", "granitemoe", "phimoe", "gpt_oss", "minimax_m2", "llama4_text", "llama4":
		c.experts(a)
	case "deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "glm_moe_dsa":
		c.deepseek(a)
	case "glm4_moe":
		c.glm(a)
	case "nemotron_h":
		c.nemotron(a)
	case "cohere", "cohere2":
		a.NormsPerLayer = 1
		a.Norm = "layer-no-bias"
		a.LogitsScale = true
		if c.bool(false, "use_qk_norm") {
			return false // its norm has one weight a head and dimension
		}
	default:
		a.MLP, a.Norm, a.NormsPerLayer = "", "", 0
		return false
	}
	return a.HiddenSize > 0 && a.NumLayers > 0 && a.VocabSize > 0
}

// moe is what most types say of their experts.
func (c *config) moe(experts int64) *MoE {
	return &MoE{
		Experts: experts, TopK: c.int(0, "num_experts_per_tok", "top_k_experts"),
		IntermediateSize: c.int(0, "moe_intermediate_size"),
	}
}

// every says in which layers experts are: 0, in each.
func (c *config) every(name string) int64 {
	if step := c.int(1, name); step > 1 {
		return step
	}
	return 0
}

func (c *config) llamaLike(a *Architecture) {
	a.QKVBias = c.bool(false, "attention_bias", "qkv_bias")
	a.OutputBias = c.bool(a.QKVBias && a.ModelType == "llama", "attention_out_bias")
	a.MLPBias = c.bool(false, "mlp_bias")
	switch a.ModelType {
	case "granite":
		a.LogitsScale, a.OutputBias = true, a.QKVBias
	case "arcee":
		a.MLP = "plain"
	case "exaone4":
		a.QKNorm = "head"
	case "olmo2":
		a.QKNorm = "full"
	}
}

func (c *config) qwen(a *Architecture) {
	switch {
	case strings.HasPrefix(a.ModelType, "qwen2"):
		a.QKVBias = c.bool(true, "qkv_bias", "attention_bias")
	default:
		a.QKNorm = "head"
		a.QKVBias = c.bool(false, "attention_bias")
		a.OutputBias = a.QKVBias
	}
	if e := c.int(0, "num_experts", "num_local_experts"); e > 0 {
		a.MoE = c.moe(e)
		a.MoE.SharedIntermediate = c.int(0, "shared_expert_intermediate_size")
		a.MoE.SharedGate = a.MoE.SharedIntermediate > 0
		a.MoE.Every = c.every("decoder_sparse_step")
	}
	if k := c.int(0, "linear_num_key_heads"); k > 0 {
		a.AttentionGate = c.bool(true, "attn_output_gate")
		a.DeltaNet = &DeltaNet{
			ConvKernel: c.int(4, "linear_conv_kernel_dim"), KeyHeads: k, ValueHeads: c.int(0, "linear_num_value_heads"),
			KeyDim: c.int(0, "linear_key_head_dim"), ValueDim: c.int(0, "linear_value_head_dim"),
			StateDtype: c.string("", "mamba_ssm_dtype"),
		}
	}
}

func (c *config) gemma(a *Architecture) {
	a.QKVBias = c.bool(false, "attention_bias")
	a.OutputBias = a.QKVBias
	if a.ModelType != "gemma" {
		a.NormsPerLayer = 4
	}
	if strings.HasPrefix(a.ModelType, "gemma3") {
		a.QKNorm = "head"
	}
	a.LogitsSoftcap = a.ModelType == "gemma2" || c.float(0, "final_logit_softcapping") > 0
	a.AttentionSoftcap = a.ModelType == "gemma2" || c.float(0, "attn_logit_softcapping") > 0
}

// gemma4 reads what the KV cache needs; its parameters are not counted module
// by module (per-layer embeddings, scalars and two kinds of layers).
func (c *config) gemma4(a *Architecture) bool {
	a.GlobalHeadDim = c.int(0, "global_head_dim")
	a.GlobalKVHeads = c.int(0, "num_global_key_value_heads")
	if e := c.int(0, "num_experts"); e > 0 {
		a.MoE = c.moe(e)
		a.MoE.DenseToo = true
	}
	a.QKNorm = "head"
	return false
}

func (c *config) phi(a *Architecture) {
	switch a.ModelType {
	case "phi3":
		a.QKVBias = c.bool(false, "attention_bias")
	case "phi":
		a.MLP, a.Norm, a.NormsPerLayer = "plain", "layer", 1
		a.QKVBias, a.OutputBias, a.MLPBias, a.LMHeadBias = true, true, true, true
	case "starcoder2":
		a.MLP, a.Norm = "plain", "layer"
		a.QKVBias = c.bool(true, "use_bias")
		a.OutputBias, a.MLPBias = a.QKVBias, a.QKVBias
	case "stablelm":
		a.Norm = "layer"
		a.QKVBias = c.bool(false, "use_qkv_bias")
	}
}

// older sets the families before Llama; false for a variant that is not counted.
func (c *config) older(a *Architecture) bool {
	a.MLP, a.Norm = "plain", "layer"
	all := true
	switch a.ModelType {
	case "opt":
		all = c.bool(true, "enable_bias")
		a.LearnedPositions = a.MaxPosition + 2 // OPT counts positions from 2
		if e := c.int(a.HiddenSize, "word_embed_proj_dim"); e != a.HiddenSize {
			a.EmbeddingSize = e
		}
		a.NoFinalNorm = !c.bool(true, "do_layer_norm_before")
	case "gpt2", "gpt_bigcode":
		a.LearnedPositions = a.MaxPosition
		a.IntermediateSize = orElse(a.IntermediateSize, 4*a.HiddenSize)
		if c.bool(false, "multi_query") {
			a.NumKVHeads = 1
		}
	case "falcon":
		c.falcon(a)
		all = c.bool(false, "bias")
		if c.bool(false, "alibi") {
			return false
		}
	case "gpt_neox":
		all = c.bool(true, "attention_bias")
	}
	a.QKVBias, a.OutputBias, a.MLPBias = all, all, all
	if a.ModelType == "gpt_neox" {
		a.MLPBias = true
	}
	return a.HiddenSize > 0 && a.NumLayers > 0 && a.VocabSize > 0
}

// falcon: the new decoder has grouped KV heads and two norms a layer, the old
// one a single KV head and one norm for attention and MLP together.
func (c *config) falcon(a *Architecture) {
	a.IntermediateSize = orElse(a.IntermediateSize, 4*a.HiddenSize)
	if c.bool(false, "new_decoder_architecture") {
		a.NormsPerLayer = c.int(2, "num_ln_in_parallel_attn")
		return
	}
	if c.bool(true, "multi_query") {
		a.NumKVHeads = 1
	}
	a.NormsPerLayer = 2
	if c.bool(true, "parallel_attn") {
		a.NormsPerLayer = 1
	}
}

func (c *config) experts(a *Architecture) {
	a.QKVBias = c.bool(false, "attention_bias")
	m := &MoE{
		Experts: c.int(0, "num_local_experts", "num_experts"), TopK: c.int(0, "num_experts_per_tok"),
		IntermediateSize: a.IntermediateSize,
	}
	if m.Experts > 0 {
		a.MoE = m
	}
	switch a.ModelType {
	case "gpt_oss":
		a.QKVBias = c.bool(true, "attention_bias")
		a.OutputBias, a.AttentionSinks = a.QKVBias, true
		m.RouterBias, m.ExpertBias = true, true
	case "minimax_m2":
		m.RouterCorrection = c.bool(true, "use_routing_bias")
		if c.bool(true, "use_qk_norm") {
			a.QKNorm = "full"
		}
	case "phimoe":
		a.Norm, a.OutputBias, a.LMHeadBias = "layer", a.QKVBias, c.bool(false, "lm_head_bias")
	case "granitemoe":
		a.LogitsScale = true
	case "llama4_text", "llama4":
		a.IntermediateSize = c.int(0, "intermediate_size_mlp")
		m.SharedIntermediate = m.IntermediateSize
		m.Every = c.every("interleave_moe_layer_step")
	}
}

func (c *config) deepseek(a *Architecture) {
	if k := c.int(0, "kv_lora_rank"); k > 0 {
		a.MLA = &MLA{
			QLoraRank: c.int(0, "q_lora_rank"), KVLoraRank: k, NopeDim: c.int(0, "qk_nope_head_dim"),
			RopeDim: c.int(0, "qk_rope_head_dim"), VHeadDim: c.int(0, "v_head_dim"),
			IndexHeads: c.int(0, "index_n_heads"), IndexDim: c.int(0, "index_head_dim"), IndexTopK: c.int(0, "index_topk"),
		}
	}
	a.MTPLayers = c.int(0, "num_nextn_predict_layers")
	if e := c.int(0, "n_routed_experts", "num_experts"); e > 0 {
		a.MoE = c.moe(e)
		a.MoE.SharedIntermediate = a.MoE.IntermediateSize * c.int(0, "n_shared_experts")
		a.MoE.FirstDense, a.MoE.Every = c.int(0, "first_k_dense_replace"), c.every("moe_layer_freq")
		a.MoE.RouterCorrection = c.string(noaux(a.ModelType), "topk_method") == "noaux_tc"
	}
}

// noaux is how a type routes where its config does not say (topk_method).
func noaux(modelType string) string {
	if modelType == "deepseek_v2" {
		return "greedy"
	}
	return "noaux_tc"
}

func (c *config) glm(a *Architecture) {
	c.deepseek(a)
	a.QKVBias = c.bool(false, "attention_bias")
	if c.bool(false, "use_qk_norm") {
		a.QKNorm = "head"
	}
}

func (c *config) nemotron(a *Architecture) {
	a.MLP, a.NormsPerLayer = "plain", 1
	a.QKVBias = c.bool(false, "attention_bias")
	a.OutputBias = a.QKVBias
	a.MLPBias = c.bool(false, "mlp_bias")
	a.Mamba = &Mamba{
		Heads: c.int(0, "mamba_num_heads"), HeadDim: c.int(0, "mamba_head_dim"), StateSize: c.int(0, "ssm_state_size"),
		ConvKernel: c.int(4, "conv_kernel"), Groups: c.int(1, "n_groups"), ConvBias: c.bool(true, "use_conv_bias"),
		ProjBias: c.bool(false, "use_bias", "mamba_proj_bias"), StateDtype: c.string("", "mamba_ssm_cache_dtype"),
	}
	if e := c.int(0, "n_routed_experts", "num_experts"); e > 0 {
		a.MoE = c.moe(e)
		a.MoE.SharedIntermediate = c.int(0, "moe_shared_expert_intermediate_size") * c.int(1, "n_shared_experts")
		a.MoE.RouterCorrection = true
	}
}

// defaultPattern is the pattern of a type whose config lists no layer_types.
// Source: transformers' config classes and vLLM's model classes.
func (c *config) defaultPattern(a *Architecture) string {
	switch a.ModelType {
	case "gemma2":
		return "sf"
	case "gemma3_text", "gemma3":
		return repeatThen('s', c.int(6, "sliding_window_pattern", "_sliding_window_pattern"))
	case "gemma4", "gemma4_text":
		return repeatThen('s', 6)
	case "cohere2":
		return repeatThen('s', c.int(4, "sliding_window_pattern"))
	case "gpt_oss":
		return "sf"
	case "llama4_text", "llama4":
		return repeatThen('c', c.int(4, "no_rope_layer_interval"))
	case "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text":
		return repeatThen('l', c.int(4, "full_attention_interval"))
	case "exaone4":
		if p := c.string("", "sliding_window_pattern"); p == "LLLG" {
			return "sssf"
		}
	}
	if a.SlidingWindow > 0 {
		return "s"
	}
	return "f"
}

// repeatThen is letter n-1 times, then one full layer.
func repeatThen(letter byte, n int64) string {
	if n < 1 || n > 1024 {
		n = 1
	}
	return strings.Repeat(string(letter), int(n-1)) + "f"
}

package models

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

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
	case "lfm2", "lfm2_moe", "ernie4_5", "ernie4_5_moe", "minicpm3", "mamba", "falcon_mamba":
		return defaults{tied: true}
	case "mamba2":
		return defaults{headDim: 64}
	}
	return defaults{}
}

// familyName groups model types: "qwen3_moe" and "qwen2" are "qwen".
func familyName(modelType string) string {
	for _, name := range []string{
		"llama4", "llama", "mixtral", "mistral", "qwen", "gemma", "phi", "deepseek", "glm", "gpt_oss", "granite",
		"falcon", "opt", "gpt2", "minimax", "nemotron", "kimi", "olmo", "cohere", "starcoder", "stablelm",
		"exaone", "gpt_neox", "bloom", "hunyuan", "hy_v3", "lfm2", "ernie4_5", "longcat", "jamba", "bamba", "mamba",
	} {
		if strings.HasPrefix(modelType, name) {
			return name
		}
	}
	return modelType
}

// A reader sets what a model type adds to the plain fields and names what of
// it the package does not know; "": it knows all.
type reader struct {
	read  func(c *config, a *Architecture) (unknown string)
	types []string
}

// readers are those of all types. Each setting was read in the model's class
// in vLLM (model_executor/models), and is checked by the sum of the parameters
// of that class (testdata/families) or by a published count.
func readers() []reader {
	return []reader{
		{(*config).llamaLike, []string{
			"llama", "mistral", "yi", "granite", "smollm3", "seed_oss", "internlm3", "ministral", "ministral3", "mistral3_text",
			"arcee", "exaone4", "olmo2", "olmo3", "ernie4_5", "hunyuan_v1_dense", "glm4", "nemotron",
		}},
		{(*config).qwen, []string{
			"qwen2", "qwen2_moe", "qwen2_vl_text", "qwen2_5_vl_text", "qwen2_vl", "qwen2_5_vl", "qwen3", "qwen3_moe",
			"qwen3_vl_text", "qwen3_vl_moe_text", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text",
		}},
		{(*config).gemma, []string{"gemma", "gemma2", "gemma3", "gemma3_text", "gemma4", "gemma4_text"}},
		{(*config).phi, []string{"phi3", "phi", "starcoder2", "stablelm"}},
		{(*config).older, []string{"opt", "gpt2", "falcon", "gpt_neox", "gpt_bigcode"}},
		{(*config).experts, []string{
			"mixtral", "granitemoe", "granitemoeshared", "phimoe", "gpt_oss", "minimax_m2", "llama4_text", "llama4", "olmoe",
		}},
		{(*config).sharedExperts, []string{"exaone_moe", "hy_v3", "hunyuan_v1_moe", "ernie4_5_moe"}},
		{(*config).deepseek, []string{
			"deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "glm_moe_dsa", "glm4_moe_lite", "longcat_flash",
			"kimi_linear", "mistral4", "glm5_next_text",
		}},
		{(*config).glm, []string{"glm4_moe"}},
		{(*config).deepseekV4, []string{"deepseek_v4"}},
		{(*config).minimaxM3, []string{"minimax_m3_text", "minimax_m3_vl_text"}},
		{(*config).mamba, []string{
			"nemotron_h", "granitemoehybrid", "bamba", "falcon_h1", "jamba", "mamba", "mamba2", "falcon_mamba",
		}},
		{(*config).lfm2, []string{"lfm2", "lfm2_moe"}},
		{(*config).cohere, []string{"cohere", "cohere2"}},
	}
}

// known reads a by its type, and names what of it is not known.
func (c *config) known(a *Architecture) (unknown string) {
	for _, r := range readers() {
		if !slices.Contains(r.types, a.ModelType) {
			continue
		}
		a.MLP, a.Norm, a.NormsPerLayer = "gated", "rms", 2
		unknown = r.read(c, a)
		if unknown == "" && (a.HiddenSize == 0 || a.NumLayers == 0 || a.VocabSize == 0) {
			unknown = "a model without hidden_size, num_hidden_layers or vocab_size"
		}
		return unknown
	}
	return fmt.Sprintf("model type %q", a.ModelType)
}

func (c *config) cohere(a *Architecture) (unknown string) {
	a.NormsPerLayer = 1
	a.Norm = "layer-no-bias"
	a.LogitsScale = true
	if c.bool(false, "use_qk_norm") {
		return "use_qk_norm: its norm has one weight a head and dimension"
	}
	return ""
}

// moe is what most types say of their experts.
func (c *config) moe(experts int64) *MoE {
	return &MoE{
		Experts: experts, TopK: c.int(0, "num_experts_per_tok", "top_k_experts"),
		IntermediateSize: c.int(0, "moe_intermediate_size"),
	}
}

// expertLayers says in which layers experts are: those of which is holds.
func (m *MoE) expertLayers(layers int64, is func(i int64) bool) {
	b := make([]byte, layers)
	for i := range b {
		b[i] = 'd'
		if is(int64(i)) {
			b[i] = 'e'
		}
	}
	dense := strings.IndexByte(string(b), 'e')
	if dense >= 0 && strings.Trim(string(b[dense:]), "e") == "" {
		m.FirstDense = int64(dense)
		return
	}
	m.Pattern = shortest(string(b))
}

// listed reads mlp_layer_types, which says of each layer whether it has experts.
func (c *config) listed(a *Architecture) {
	if types := c.strings("mlp_layer_types"); a.MoE != nil && len(types) > 0 {
		a.MoE.FirstDense = 0
		a.MoE.expertLayers(min(int64(len(types)), a.NumLayers), func(i int64) bool { return types[i] != "dense" })
	}
}

// every says in which layers experts are: 0, in each.
func (c *config) every(name string) int64 {
	if step := c.int(1, name); step > 1 {
		return step
	}
	return 0
}

func (c *config) llamaLike(a *Architecture) (unknown string) {
	a.QKVBias = c.bool(false, "attention_bias", "qkv_bias")
	a.OutputBias = c.bool(a.QKVBias && a.ModelType == "llama", "attention_out_bias")
	a.MLPBias = c.bool(false, "mlp_bias")
	switch a.ModelType {
	case "granite":
		a.LogitsScale, a.OutputBias = true, a.QKVBias
	case "arcee":
		a.MLP = "plain"
	case "exaone4", "hunyuan_v1_dense":
		a.QKNorm = "head"
		a.OutputBias = a.QKVBias
	case "olmo2", "olmo3":
		a.QKNorm = "full"
	case "ernie4_5":
		a.QKVBias = c.bool(false, "use_bias")
		a.OutputBias, a.MLPBias = a.QKVBias, a.QKVBias
	case "glm4":
		a.NormsPerLayer = 4
	case "nemotron":
		a.MLP, a.Norm, a.OutputBias = "plain", "layer", a.QKVBias
	}
	return ""
}

func (c *config) qwen(a *Architecture) (unknown string) {
	a.MTPLayers = c.int(0, "mtp_num_hidden_layers", "num_nextn_predict_layers")
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
		if dense := c.numbers("mlp_only_layers"); len(dense) > 0 {
			step := max(a.MoE.Every, 1)
			a.MoE.Every = 0
			a.MoE.expertLayers(a.NumLayers, func(i int64) bool { return (i+1)%step == 0 && !slices.Contains(dense, i) })
		}
	}
	if k := c.int(0, "linear_num_key_heads"); k > 0 {
		a.AttentionGate = c.bool(true, "attn_output_gate")
		a.DeltaNet = &DeltaNet{
			ConvKernel: c.int(4, "linear_conv_kernel_dim"), KeyHeads: k, ValueHeads: c.int(0, "linear_num_value_heads"),
			KeyDim: c.int(0, "linear_key_head_dim"), ValueDim: c.int(0, "linear_value_head_dim"),
			StateDtype: c.string("", "mamba_ssm_dtype"),
		}
	}
	return ""
}

func (c *config) gemma(a *Architecture) (unknown string) {
	a.QKVBias = c.bool(false, "attention_bias")
	a.OutputBias = a.QKVBias
	if a.ModelType != "gemma" {
		a.NormsPerLayer = 4
	}
	a.LogitsSoftcap = a.ModelType == "gemma2" || c.float(0, "final_logit_softcapping") > 0
	a.AttentionSoftcap = a.ModelType == "gemma2" || c.float(0, "attn_logit_softcapping") > 0
	switch {
	case strings.HasPrefix(a.ModelType, "gemma3"):
		a.QKNorm = "head"
	case strings.HasPrefix(a.ModelType, "gemma4"):
		a.QKNorm = "head"
		return c.gemma4(a)
	}
	return ""
}

// gemma4: full layers with heads of another size, layers that read an earlier
// one's cache, an embedding of each layer, and experts beside the MLP.
// Source: vllm/model_executor/models/gemma4.py.
func (c *config) gemma4(a *Architecture) (unknown string) {
	a.GlobalHeadDim = c.int(0, "global_head_dim")
	a.GlobalKVHeads = c.int(0, "num_global_key_value_heads")
	layers, _, _ := c.lookup([]string{"per_layer_config"})
	each, _ := layers.(map[string]any)
	for i, name := range slices.Sorted(maps.Keys(each)) {
		layer := config{text: fields{m: sub(each, name), path: "per_layer_config." + name}}
		dim, heads := layer.int(a.HeadDim, "head_dim"), layer.int(a.NumKVHeads, "num_key_value_heads")
		if i > 0 && (dim != a.GlobalHeadDim || heads != orElse(a.GlobalKVHeads, a.NumKVHeads)) {
			return "per_layer_config with more than one kind of layer"
		}
		a.GlobalHeadDim, a.GlobalKVHeads = dim, 0
		if heads != a.NumKVHeads {
			a.GlobalKVHeads = heads
		}
	}
	a.WideSharedMLP = c.bool(false, "use_double_wide_mlp") && c.int(0, "num_kv_shared_layers") > 0
	if n := c.int(0, "hidden_size_per_layer_input"); n > 0 {
		a.PerLayerEmbedding, a.PerLayerVocab = n, c.int(a.VocabSize, "vocab_size_per_layer_input")
	}
	if e := c.int(0, "num_experts"); e > 0 {
		a.MoE = c.moe(e)
		a.MoE.IntermediateSize = orElse(a.MoE.IntermediateSize, c.int(0, "expert_intermediate_size"))
		a.MoE.DenseToo, a.MoE.RouterScale, a.MoE.Norms = true, true, 3
	}
	return ""
}

func (c *config) phi(a *Architecture) (unknown string) {
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
	return ""
}

// older sets the families before Llama, and names a variant that is not counted.
func (c *config) older(a *Architecture) (unknown string) {
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
			return "alibi"
		}
	case "gpt_neox":
		all = c.bool(true, "attention_bias")
	}
	a.QKVBias, a.OutputBias, a.MLPBias = all, all, all
	if a.ModelType == "gpt_neox" {
		a.MLPBias = true
	}
	return ""
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

func (c *config) experts(a *Architecture) (unknown string) {
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
	case "granitemoe", "granitemoeshared":
		a.LogitsScale = true
		m.SharedIntermediate = c.int(0, "shared_intermediate_size")
	case "olmoe":
		a.QKNorm = "full"
	case "llama4_text", "llama4":
		a.IntermediateSize = c.int(0, "intermediate_size_mlp")
		m.SharedIntermediate = m.IntermediateSize
		m.Every = c.every("interleave_moe_layer_step")
	}
	return ""
}

// sharedExperts sets the types whose experts stand beside shared ones.
func (c *config) sharedExperts(a *Architecture) (unknown string) {
	a.QKVBias = c.bool(false, "attention_bias", "use_bias")
	a.OutputBias, a.QKNorm = a.QKVBias, "head"
	a.MoE = &MoE{
		Experts: c.int(0, "num_experts", "moe_num_experts"), TopK: c.int(0, "num_experts_per_tok", "moe_k", "moe_topk"),
		IntermediateSize: c.int(a.IntermediateSize, "moe_intermediate_size"), RouterCorrection: true,
		FirstDense: c.int(0, "first_k_dense_replace"),
	}
	shared := c.int(0, "num_shared_experts", "moe_num_shared_experts")
	switch a.ModelType {
	case "hunyuan_v1_moe":
		a.MoE.RouterCorrection, shared = false, 1
	case "ernie4_5_moe":
		a.QKNorm, a.OutputBias, a.MLPBias = "", false, a.QKVBias
		first, last, step := c.int(0, "moe_layer_start_index"), c.int(a.NumLayers-1, "moe_layer_end_index"),
			max(c.int(1, "moe_layer_interval"), 1)
		a.MoE.expertLayers(a.NumLayers, func(i int64) bool { return (i+1)%step == 0 && i >= first && i <= last })
	}
	a.MoE.SharedIntermediate = shared * a.MoE.IntermediateSize
	c.listed(a)
	return ""
}

func (c *config) deepseek(a *Architecture) (unknown string) {
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
		a.MoE.SharedIntermediate = a.MoE.IntermediateSize * c.int(0, "n_shared_experts", "num_shared_experts")
		a.MoE.FirstDense, a.MoE.Every = c.int(0, "first_k_dense_replace"), c.every("moe_layer_freq")
		a.MoE.RouterCorrection = c.string(noaux(a.ModelType), "topk_method") == "noaux_tc"
		c.listed(a)
	}
	switch {
	case slices.Contains(c.strings("indexer_types"), "shared"):
		return "indexer_types: layers that share an indexer"
	case a.ModelType == "longcat_flash":
		c.longcat(a)
	case a.ModelType == "kimi_linear":
		c.kda(a)
	case a.ModelType == "glm5_next_text":
		c.kda(a)
		a.MoE.TopK = c.int(0, "num_experts_per_tok")
		a.Streams = c.int(0, "hc_mult")
		a.MLA.IndexPool = c.int(0, "index_kpool")
	}
	return ""
}

// minimaxM3: layers whose attention chooses blocks of positions by an index.
// vLLM's configuration lists them, and the layers with experts, as 0 and 1.
// Source: vllm/models/minimax_m3/nvidia/model.py.
func (c *config) minimaxM3(a *Architecture) (unknown string) {
	a.QKNorm = "head"
	a.MoE = c.moe(c.int(0, "num_local_experts"))
	a.MoE.IntermediateSize, a.MoE.RouterCorrection = a.IntermediateSize, c.bool(true, "use_routing_bias")
	a.MoE.SharedIntermediate = c.int(0, "shared_intermediate_size") * c.int(1, "n_shared_experts")
	a.IntermediateSize = c.int(0, "dense_intermediate_size")
	if experts := c.numbers("moe_layer_freq"); len(experts) > 0 {
		a.MoE.expertLayers(min(int64(len(experts)), a.NumLayers), func(i int64) bool { return experts[i] != 0 })
	}
	c.listed(a)
	sparse := config{text: fields{m: sub(c.text.m, "sparse_attention_config"), path: "sparse_attention_config"}}
	a.Index = &Index{
		Heads: sparse.int(c.int(0, "index_n_heads"), "sparse_num_index_heads"),
		Dim:   sparse.int(c.int(0, "index_head_dim"), "sparse_index_dim"),
	}
	if indexed := sparse.numbers("sparse_attention_freq"); len(indexed) > 0 {
		indexed = indexed[:min(int64(len(indexed)), a.NumLayers)]
		b := []byte(strings.Repeat("f", len(indexed)))
		for i, n := range indexed {
			if n != 0 {
				b[i] = 'i'
			}
		}
		a.LayerPattern = string(b)
	}
	return ""
}

// deepseekV4: attention over compressed positions, hyper-connections, and
// experts in each layer. Its layers are named by transformers, or have their
// rates listed by the checkpoint.
func (c *config) deepseekV4(a *Architecture) (unknown string) {
	rates, where, _ := c.lookup([]string{"compress_rates"})
	each := config{text: fields{path: where}}
	each.text.m, _ = rates.(map[string]any)
	a.Compressed = &Compressed{
		QLoraRank: c.int(0, "q_lora_rank"), OGroups: c.int(1, "o_groups"), OLoraRank: c.int(0, "o_lora_rank"),
		RopeDim: c.int(64, "qk_rope_head_dim"), IndexHeads: c.int(0, "index_n_heads"), IndexDim: c.int(0, "index_head_dim"),
		SparseRate: each.int(4, "compressed_sparse_attention"), HeavyRate: each.int(128, "heavily_compressed_attention"),
	}
	a.Streams = c.int(4, "hc_mult")
	a.MoE = c.moe(c.int(0, "n_routed_experts"))
	a.MoE.SharedIntermediate = a.MoE.IntermediateSize * c.int(1, "n_shared_experts")
	a.MoE.RouterCorrection = c.string("", "topk_method") == "noaux_tc"
	a.MTPLayers = c.int(0, "num_nextn_predict_layers")
	letter := map[int64]byte{0: 'z', 1: 'z', a.Compressed.SparseRate: 'x', a.Compressed.HeavyRate: 'y'}
	var b []byte
	rated := c.numbers("compress_ratios") // prediction layers may follow
	for _, rate := range rated[:min(int64(len(rated)), a.NumLayers)] {
		if letter[rate] == 0 {
			return fmt.Sprintf("a compress_ratios of %d", rate)
		}
		b = append(b, letter[rate])
	}
	a.LayerPattern = string(b)
	return ""
}

// longcat: each of its layers is two, an attention and an MLP each, and the
// experts stand beside the second.
// Source: vllm/model_executor/models/longcat_flash.py.
func (c *config) longcat(a *Architecture) {
	a.NumLayers *= 2
	a.MoE.IntermediateSize = c.int(a.MoE.IntermediateSize, "expert_ffn_hidden_size")
	a.MoE.TopK = c.int(a.MoE.TopK, "moe_topk")
	a.MoE.ZeroExperts, a.MoE.DenseToo, a.MoE.Pattern = c.int(0, "zero_expert_num"), true, "de"
	a.Notes = append(a.Notes, "num_layers counts each of the model's layers as two: "+
		"an attention and an MLP each, experts in the second")
}

// kda: Kimi Delta Attention between layers of latent attention without positions.
func (c *config) kda(a *Architecture) {
	own := config{text: fields{m: sub(c.text.m, "linear_attn_config"), path: "linear_attn_config"}}
	c.read["linear_attn_config"] = true
	heads := own.int(c.int(0, "linear_num_heads"), "num_heads")
	dim := own.int(c.int(0, "linear_head_dim"), "head_dim")
	a.DeltaNet = &DeltaNet{
		Kind: "kda", ConvKernel: own.int(c.int(4, "linear_conv_kernel_dim"), "short_conv_kernel_size"),
		KeyHeads: heads, ValueHeads: heads, KeyDim: dim, ValueDim: dim, StateDtype: "float32",
	}
	if full := own.numbers("full_attn_layers"); len(full) > 0 { // counted from 1
		b := []byte(strings.Repeat("l", int(a.NumLayers)))
		for _, i := range full {
			if i > 0 && i <= a.NumLayers {
				b[i-1] = 'f'
			}
		}
		a.LayerPattern = string(b)
	}
	a.MoE.TopK = c.int(a.MoE.TopK, "num_experts_per_token")
	a.MoE.RouterCorrection = true
}

// noaux is how a type routes where its config does not say (topk_method).
func noaux(modelType string) string {
	if modelType == "deepseek_v2" || modelType == "mistral4" {
		return "greedy"
	}
	return "noaux_tc"
}

func (c *config) glm(a *Architecture) (unknown string) {
	unknown = c.deepseek(a)
	a.QKVBias = c.bool(false, "attention_bias")
	if c.bool(false, "use_qk_norm") {
		a.QKNorm = "head"
	}
	return unknown
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
	case "jamba", "bamba", "lfm2", "lfm2_moe", "granitemoehybrid":
		return c.attentionAt(a)
	case "mamba", "mamba2", "falcon_mamba":
		return "M"
	case "falcon_h1":
		return "h"
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

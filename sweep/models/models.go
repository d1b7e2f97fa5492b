package models

// An Architecture is what the arithmetic knows of a model: the fields of its
// config.json that decide its size. Zero, "" and nil mean: the model has no
// such part. docs/models.md describes the JSON, docs/models.schema.json checks it.
type Architecture struct {
	ID           string `json:"id"`                   // catalogue name, usually owner/name
	HFModelID    string `json:"hf_model_id"`          // what vLLM is given
	Family       string `json:"family"`               // "llama", "qwen", ...
	Architecture string `json:"architecture"`         // "LlamaForCausalLM"
	ModelType    string `json:"model_type,omitempty"` // of the language model: "llama", "gemma3_text"
	Source       string `json:"source"`               // "catalogue", "config.json", "flags", "model block"

	// Layout says that every field below is understood, so that parameters can
	// be counted module by module: "decoder". "": the model is not understood,
	// its weights cannot be computed, and Unknown names what is not.
	Layout  string `json:"layout,omitempty"`
	Unknown string `json:"unknown,omitempty"`

	HiddenSize       int64  `json:"hidden_size"`
	IntermediateSize int64  `json:"intermediate_size"` // of the dense MLP
	NumLayers        int64  `json:"num_layers"`
	NumHeads         int64  `json:"num_heads"`
	NumKVHeads       int64  `json:"num_kv_heads"`
	HeadDim          int64  `json:"head_dim"`
	VocabSize        int64  `json:"vocab_size"`
	MaxPosition      int64  `json:"max_position_embeddings"`
	TiedEmbeddings   bool   `json:"tied_embeddings"`
	NativeDtype      string `json:"native_dtype"`

	// Params counts the parameters that stay in memory: no tied lm_head twice,
	// no multi-token-prediction layers; vision and audio parts are in it. 0: unknown.
	Params    int64      `json:"params"`
	Published *Published `json:"published,omitempty"`

	MLP              string `json:"mlp,omitempty"`               // "gated" (gate, up, down) or "plain" (up, down)
	Norm             string `json:"norm,omitempty"`              // "rms", "layer-no-bias", or "layer" (with a bias)
	NormsPerLayer    int64  `json:"norms_per_layer,omitempty"`   // 2; 4 in Gemma 2 and 3; 1: attention and MLP share it
	NoFinalNorm      bool   `json:"no_final_norm,omitempty"`     //
	QKNorm           string `json:"qk_norm,omitempty"`           // "head" (a weight a dimension) or "full" (a column)
	QKVBias          bool   `json:"qkv_bias,omitempty"`          //
	OutputBias       bool   `json:"output_bias,omitempty"`       // of the attention's output projection
	MLPBias          bool   `json:"mlp_bias,omitempty"`          //
	LMHeadBias       bool   `json:"lm_head_bias,omitempty"`      //
	AttentionSinks   bool   `json:"attention_sinks,omitempty"`   // one weight a head
	AttentionGate    bool   `json:"attention_gate,omitempty"`    // the query projection is twice as wide
	LearnedPositions int64  `json:"learned_positions,omitempty"` // rows of a position embedding
	EmbeddingSize    int64  `json:"embedding_size,omitempty"`    // of the word embedding where it is not HiddenSize
	AttentionSoftcap bool   `json:"attention_softcap,omitempty"` //
	Rope             *Rope  `json:"rope,omitempty"`              // nil: no rotary embedding
	MTPLayers        int64  `json:"mtp_layers,omitempty"`        // in the checkpoint, not in memory
	LogitsSoftcap    bool   `json:"logits_softcap,omitempty"`    // of the final logits
	LogitsScale      bool   `json:"logits_scale,omitempty"`      // the logits are divided by a constant

	// LayerPattern is repeated over the layers; one letter a layer:
	// f full attention, i the same with an index of its own beside the cache,
	// s sliding window, c chunked attention, x, y and z attention over sparsely
	// and heavily compressed positions and over a window alone, l delta net,
	// m Mamba, v short convolution, h full attention and Mamba side by side,
	// each followed by an MLP or experts; F and S are f and s that read the
	// cache of an earlier layer; and layers with one part alone: M Mamba,
	// * full attention, E experts, - MLP. "": all f.
	LayerPattern  string `json:"layer_pattern,omitempty"`
	SlidingWindow int64  `json:"sliding_window,omitempty"` // tokens, of the s layers
	ChunkSize     int64  `json:"chunk_size,omitempty"`     // tokens, of the c layers

	// GlobalHeadDim and GlobalKVHeads are those of the f layers where they
	// differ from the s layers' (Gemma 4).
	GlobalHeadDim int64 `json:"global_head_dim,omitempty"`
	GlobalKVHeads int64 `json:"global_kv_heads,omitempty"`

	// PerLayerEmbedding is the width of the embedding that each layer has of
	// each of PerLayerVocab words (Gemma 4); WideSharedMLP says that the MLP of
	// F and S layers is twice IntermediateSize wide.
	PerLayerEmbedding int64 `json:"per_layer_embedding,omitempty"`
	PerLayerVocab     int64 `json:"per_layer_vocab,omitempty"`
	WideSharedMLP     bool  `json:"wide_shared_mlp,omitempty"`

	// Streams is how many residual streams hyper-connections mix; 0: one, without them.
	Streams int64 `json:"streams,omitempty"`

	MoE          *MoE          `json:"moe,omitempty"`
	MLA          *MLA          `json:"mla,omitempty"`
	DeltaNet     *DeltaNet     `json:"delta_net,omitempty"`
	Mamba        *Mamba        `json:"mamba,omitempty"`
	ShortConv    *ShortConv    `json:"short_conv,omitempty"`
	Index        *Index        `json:"index,omitempty"`
	Compressed   *Compressed   `json:"compressed,omitempty"`
	Vision       *Tower        `json:"vision,omitempty"`
	Audio        *Tower        `json:"audio,omitempty"`
	Quantization *Quantization `json:"quantization,omitempty"`

	Notes []string `json:"notes,omitempty"`

	derived    *derived // computed once by finish
	guesses    int64    // tokens guessed a step
	predicting int64    // layers that guess, the last of the pattern
	cached     bool     // prefix caching is on
}

// Published is a parameter count that somebody else states, to check ours by.
type Published struct {
	Params int64  `json:"params"`
	Source string `json:"source"`
	// Counts says what the figure counts beside what stays in memory ("mtp",
	// "tied_lm_head", "fp8_scales"), or, after a minus, what it leaves out
	// ("-router_correction"). "rounded": the figure has that many digits only.
	Counts []string `json:"counts,omitempty"`
}

// Rope describes the rotary tables that vLLM keeps in memory.
type Rope struct {
	Dim    int64 `json:"dim"`              // rotated dimensions of a head
	Length int64 `json:"length"`           // positions in a table
	Tables int64 `json:"tables,omitempty"` // distinct tables; 0: one
	// GlobalDim and GlobalLength are those of the second table, which the f
	// layers have; 0: as the first.
	GlobalDim    int64 `json:"global_dim,omitempty"`
	GlobalLength int64 `json:"global_length,omitempty"`
	Float        bool  `json:"float,omitempty"` // kept in float32 whatever the dtype
}

// MoE describes a mixture of experts.
type MoE struct {
	Experts            int64 `json:"experts"`
	TopK               int64 `json:"top_k"`
	IntermediateSize   int64 `json:"intermediate_size"`             // of one expert
	SharedIntermediate int64 `json:"shared_intermediate,omitempty"` // of all shared experts together
	SharedGate         bool  `json:"shared_gate,omitempty"`         // one weight a hidden dimension
	FirstDense         int64 `json:"first_dense,omitempty"`         // layers without experts at the start
	Every              int64 `json:"every,omitempty"`               // experts in each Every-th layer; 0: each
	// Pattern is repeated over the layers, d an MLP, e experts, and says which
	// layers have experts in place of FirstDense and Every.
	Pattern          string `json:"pattern,omitempty"`
	ZeroExperts      int64  `json:"zero_experts,omitempty"`      // experts that copy their input: a row of the router each
	LatentSize       int64  `json:"latent_size,omitempty"`       // width that experts work on; 0: the hidden size
	RouterBias       bool   `json:"router_bias,omitempty"`       //
	RouterCorrection bool   `json:"router_correction,omitempty"` // e_score_correction_bias: one float an expert
	ExpertBias       bool   `json:"expert_bias,omitempty"`       //
	DenseToo         bool   `json:"dense_too,omitempty"`         // the layer has its dense MLP beside the experts
	RouterScale      bool   `json:"router_scale,omitempty"`      // the router scales its input and each expert (Gemma 4)
	Norms            int64  `json:"norms,omitempty"`             // further norms of a layer with experts
}

// MLA describes multi-head latent attention.
type MLA struct {
	QLoraRank  int64 `json:"q_lora_rank,omitempty"` // 0: the query is projected directly
	KVLoraRank int64 `json:"kv_lora_rank"`
	NopeDim    int64 `json:"qk_nope_head_dim"`
	RopeDim    int64 `json:"qk_rope_head_dim"`
	VHeadDim   int64 `json:"v_head_dim"`
	IndexHeads int64 `json:"index_heads,omitempty"` // of the sparse indexer; 0: none
	IndexDim   int64 `json:"index_head_dim,omitempty"`
	IndexTopK  int64 `json:"index_topk,omitempty"`
	IndexPool  int64 `json:"index_pool,omitempty"` // positions that share a key of the index; 0: one each
}

// DeltaNet describes delta net layers.
type DeltaNet struct {
	Kind       string `json:"kind,omitempty"` // "": gated (Qwen3-Next), "kda": Kimi Delta Attention
	ConvKernel int64  `json:"conv_kernel"`
	KeyHeads   int64  `json:"key_heads"`
	ValueHeads int64  `json:"value_heads"`
	KeyDim     int64  `json:"key_head_dim"`
	ValueDim   int64  `json:"value_head_dim"`
	StateDtype string `json:"state_dtype,omitempty"` // "": that of the model
}

// Mamba describes Mamba layers: Mamba 1 where TimeStepRank is set, whose heads
// are all channels of HeadDim 1, else Mamba 2.
type Mamba struct {
	Heads      int64  `json:"heads"`
	HeadDim    int64  `json:"head_dim"`
	StateSize  int64  `json:"state_size"`
	ConvKernel int64  `json:"conv_kernel"`
	Groups     int64  `json:"groups"`
	ConvBias   bool   `json:"conv_bias,omitempty"`
	ProjBias   bool   `json:"proj_bias,omitempty"`
	StateDtype string `json:"state_dtype,omitempty"` // "": that of the model
	NoNorm     bool   `json:"no_norm,omitempty"`     // Mamba 2 without its gated norm

	TimeStepRank int64 `json:"time_step_rank,omitempty"` // of Mamba 1
	InnerNorms   bool  `json:"inner_norms,omitempty"`    // Mamba 1 with norms of time step, B and C (Jamba)
}

// ShortConv describes short-convolution layers (LFM2).
type ShortConv struct {
	Kernel int64 `json:"kernel"`
	Bias   bool  `json:"bias,omitempty"`
}

// Index describes the index by which i layers choose blocks of positions
// (MiniMax M3): heads of queries, one key a token.
type Index struct {
	Heads int64 `json:"heads"`
	Dim   int64 `json:"head_dim"`
}

// Compressed describes attention over compressed positions (DeepSeek V4): one
// key, which is the value too, for SparseRate positions, of which an index
// chooses, or for HeavyRate, beside a sliding window.
type Compressed struct {
	QLoraRank  int64 `json:"q_lora_rank"`
	OGroups    int64 `json:"o_groups"`
	OLoraRank  int64 `json:"o_lora_rank"`
	RopeDim    int64 `json:"qk_rope_head_dim"`
	SparseRate int64 `json:"sparse_rate"`
	HeavyRate  int64 `json:"heavy_rate"`
	IndexHeads int64 `json:"index_heads"`
	IndexDim   int64 `json:"index_head_dim"`
}

// A Tower is a vision or audio encoder with what joins it to the language model.
type Tower struct {
	Type   string `json:"type"`             // "pixtral", "siglip_vision_model", ...
	Params int64  `json:"params,omitempty"` // projector included; 0: unknown
	// Rough says that Params is that of a plain transformer of the tower's
	// width and depth, because its type is not known.
	Rough bool `json:"rough,omitempty"`
	// ImageSize and ImageTokens are of the largest image that one item may be:
	// pixels a side, and embeddings that it becomes.
	ImageSize   int64 `json:"image_size,omitempty"`
	ImageTokens int64 `json:"image_tokens,omitempty"`
	// Sharded says that vLLM splits the tower over tensor-parallel ranks.
	Sharded bool `json:"sharded,omitempty"`
}

// Quantization is what the checkpoint says of its own weights.
type Quantization struct {
	Method    string   `json:"method"`               // "fp8", "awq", "gptq", "compressed-tensors", "mxfp4", ...
	Format    string   `json:"format,omitempty"`     // as compressed-tensors and modelopt name it
	Bits      int64    `json:"bits,omitempty"`       // of a weight
	Experts   string   `json:"experts,omitempty"`    // dtype of the experts' where it is another: "fp4"
	GroupSize int64    `json:"group_size,omitempty"` // input dimensions that share a scale; 0: one a row or a tensor
	Block     []int64  `json:"block,omitempty"`      // rows, columns that share a scale (fp8)
	ZeroPoint bool     `json:"zero_point,omitempty"` //
	Dynamic   bool     `json:"dynamic,omitempty"`    // activations are scaled at run time
	Keep      []string `json:"keep,omitempty"`       // modules that stay in the model's dtype
	KVCache   string   `json:"kv_cache,omitempty"`   // dtype that the checkpoint asks of the KV cache
}

// A Catalogue is a set of architectures by name. It is never changed after it
// was made; With returns another.
type Catalogue struct {
	models map[string]*Architecture // by lower-case id
	byHF   map[string]*Architecture // by lower-case hf_model_id; the first id in order wins
	names  []string                 // sorted ids
}

package models

// An Architecture is what the arithmetic knows of a model: the fields of its
// config.json that decide its size. Zero means: the model has no such part.
type Architecture struct {
	ID           string `json:"id"`           // catalogue name, usually owner/name
	HFModelID    string `json:"hf_model_id"`  // what vLLM is given
	Family       string `json:"family"`       // "llama", "qwen", ...
	Architecture string `json:"architecture"` // "LlamaForCausalLM"
	Source       string `json:"source"`       // "catalogue", "config.json", "flags", "model block"

	HiddenSize       int64  `json:"hidden_size"`
	IntermediateSize int64  `json:"intermediate_size"`
	NumLayers        int64  `json:"num_layers"`
	NumHeads         int64  `json:"num_heads"`
	NumKVHeads       int64  `json:"num_kv_heads"`
	HeadDim          int64  `json:"head_dim"`
	VocabSize        int64  `json:"vocab_size"`
	MaxPosition      int64  `json:"max_position_embeddings"`
	TiedEmbeddings   bool   `json:"tied_embeddings"`
	NativeDtype      string `json:"native_dtype"`
	Params           int64  `json:"params"` // resident parameters; 0: unknown
}

// A Catalogue is a set of architectures by name.
type Catalogue struct {
	models map[string]*Architecture
}

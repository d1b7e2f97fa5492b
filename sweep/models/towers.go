package models

// towers reads vision_config and audio_config: what hangs on the language model.
func (c *config) towers(a *Architecture) {
	if v := sub(c.top.m, "vision_config"); v != nil {
		t := &config{text: fields{m: v, path: "vision_config"}}
		a.Vision = &Tower{Type: t.string(a.ModelType, "model_type")}
		a.Vision.Params = t.visionParams(a.Vision.Type, a.HiddenSize, c)
		if a.Vision.Params == 0 {
			a.Vision.Params = t.plainTower(a.HiddenSize)
			a.Vision.Rough = a.Vision.Params > 0
		}
		// vLLM splits the layers of all three over tensor-parallel ranks unless
		// mm_encoder_tp_mode is "data"; what it keeps whole is under 2 % of them.
		a.Vision.Sharded = a.Vision.Params > 0
		a.Vision.ImageSize = t.int(0, "image_size")
		if patch := t.int(0, "patch_size"); patch > 0 && a.Vision.ImageSize > 0 {
			side := a.Vision.ImageSize / patch
			a.Vision.ImageTokens = imageTokens(a.Vision.Type, side, c)
		}
		c.problems = append(c.problems, t.problems...)
	}
	if v := sub(c.top.m, "audio_config"); v != nil {
		t := &config{text: fields{m: v, path: "audio_config"}}
		a.Audio = &Tower{Type: t.string("audio", "model_type"), Params: t.plainTower(a.HiddenSize)}
		a.Audio.Rough = a.Audio.Params > 0
	}
}

// visionParams counts a vision tower with its projector into hidden
// dimensions; 0 for a type that is not known.
func (c *config) visionParams(kind string, hidden int64, top *config) int64 {
	h, layers := c.int(1024, "embed_dim", "hidden_size"), c.int(24, "num_hidden_layers", "depth")
	inter, patch := c.int(4096, "intermediate_size"), c.int(16, "patch_size")
	switch kind {
	case "pixtral":
		// patch convolution without bias, two RMS norms and a gated MLP a layer, ln_pre;
		// projector: norm, patch merger (s² patches to one), two linears.
		// Source: vllm/model_executor/models/{pixtral,mistral3}.py.
		layer := 4*h*h + 3*h*inter + 2*h
		merge := top.int(2, "spatial_merge_size")
		projector := h + merge*merge*h*h + h*hidden + hidden*hidden
		if top.bool(false, "multimodal_projector_bias") {
			projector += 2 * hidden
		}
		return 3*patch*patch*h + h + layers*layer + projector
	case "siglip_vision_model":
		// patch convolution and positions, two layer norms and a plain MLP a
		// layer, all with bias, a last norm; Gemma 3's projector: norm and one matrix.
		// Source: vllm/model_executor/models/{siglip,gemma3_mm}.py.
		image := c.int(896, "image_size")
		layer := 4*(h*h+h) + 2*h*inter + inter + h + 4*h
		return 3*patch*patch*h + h + (image/patch)*(image/patch)*h + layers*layer + 2*h + h + h*hidden
	}
	switch kind {
	case "qwen2_vl", "qwen2_5_vl":
		return c.qwenVision(kind, hidden)
	case "qwen3_vl", "qwen3_vl_moe", "qwen3_vl_vision", "qwen3_vl_moe_vision",
		"qwen3_5", "qwen3_5_moe", "qwen3_5_vision", "qwen3_5_moe_vision":
		return c.qwen3Vision()
	case "kimi_k25_vision":
		return c.moonVision(hidden)
	}
	return 0
}

// plainTower is about the parameters of an encoder of a type that is not
// known: a plain transformer of its width and depth, and a projection; 0 where
// the config does not name them.
func (c *config) plainTower(hidden int64) int64 {
	h, layers := c.int(0, "hidden_size", "d_model", "embed_dim"), c.int(0, "num_hidden_layers", "depth", "encoder_layers")
	return layers*(4*h*h+2*h*c.int(4*h, "intermediate_size", "encoder_ffn_dim")) + h*hidden
}

// vit is a transformer layer with layer norms and a plain MLP, all with bias.
func vit(h, inter int64) int64 { return 4*h + 4*(h*h+h) + 2*h*inter + inter + h }

// qwen3Vision: patches over two frames, learned positions, layers with bias,
// and a merger of s² patches into the language model's width, with another
// for each layer whose output goes deeper into it.
// Source: vllm/model_executor/models/qwen3_vl.py.
func (c *config) qwen3Vision() int64 {
	h, out, merge := c.int(1152, "hidden_size"), c.int(0, "out_hidden_size"), c.int(2, "spatial_merge_size")
	patch, frames := c.int(16, "patch_size"), c.int(2, "temporal_patch_size")
	merged := h * merge * merge
	mlp := merged*merged + merged + merged*out + out
	deep := int64(len(c.numbers("deepstack_visual_indexes")))
	return c.int(3, "in_channels")*frames*patch*patch*h + h + c.int(2304, "num_position_embeddings")*h +
		c.int(27, "depth")*vit(h, c.int(4304, "intermediate_size")) + 2*h + mlp + deep*(2*merged+mlp)
}

// moonVision: patches, a table of positions, layers with bias, and a projector
// of s² patches. Source: vllm/model_executor/models/kimi_k25_vit.py.
func (c *config) moonVision(hidden int64) int64 {
	h, patch := c.int(1152, "hidden_size"), c.int(14, "patch_size")
	merged := 4 * h
	if m := c.numbers("merge_kernel_size"); len(m) == 2 {
		merged = m[0] * m[1] * h
	}
	return 3*patch*patch*h + h + c.int(64, "pos_emb_height")*c.int(64, "pos_emb_width")*h +
		c.int(27, "num_hidden_layers")*vit(h, c.int(4304, "intermediate_size")) + 2*h +
		2*h + merged*merged + merged + merged*hidden + hidden
}

// qwenVision: patches over two frames, layers with bias, and a merger of s² patches
// into the language model's width.
// Source: vllm/model_executor/models/{qwen2_vl,qwen2_5_vl}.py.
func (c *config) qwenVision(kind string, hidden int64) int64 {
	h := c.int(1280, "embed_dim", "hidden_size")
	layers, merge := c.int(32, "depth"), c.int(2, "spatial_merge_size")
	patch, frames := c.int(14, "patch_size"), c.int(2, "temporal_patch_size")
	channels := c.int(3, "in_chans", "in_channels")
	inter := c.int(3420, "intermediate_size")
	norm, mlp := h, 3*h*inter+2*inter+h // RMS norms and a gated MLP
	if kind == "qwen2_vl" {             // layer norms and a plain MLP
		inter = int64(c.float(4, "mlp_ratio") * float64(h))
		norm, mlp = 2*h, 2*h*inter+inter+h
	}
	layer := 2*norm + 4*h*h + 4*h + mlp
	merged := h * merge * merge
	return channels*frames*patch*patch*h + layers*layer + norm + merged*merged + merged + merged*hidden + hidden
}

// imageTokens is how many embeddings an image of side x side patches becomes.
// Source: vllm/model_executor/models/{mistral3,pixtral,gemma3_mm}.py.
func imageTokens(kind string, side int64, top *config) int64 {
	switch kind {
	case "pixtral":
		merged := side / max(top.int(2, "spatial_merge_size"), 1)
		return merged * (merged + 1) // one break a row
	case "siglip_vision_model":
		return top.int(256, "mm_tokens_per_image")
	}
	return 0
}

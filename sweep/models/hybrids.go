package models

import (
	"cmp"
	"slices"
)

// mamba sets the types with Mamba layers: alone, between layers of attention,
// or beside it. Their fields have two sets of names.
// Source: vllm/model_executor/models/{nemotron_h,granitemoehybrid,falcon_h1,jamba,mamba,mamba2}.py.
func (c *config) mamba(a *Architecture) (unknown string) {
	a.QKVBias = c.bool(false, "attention_bias")
	a.OutputBias = a.QKVBias
	a.MLPBias = c.bool(false, "mlp_bias")
	inner := c.int(2, "mamba_expand", "expand") * a.HiddenSize
	a.Mamba = &Mamba{
		Heads: c.int(0, "mamba_num_heads", "mamba_n_heads"), HeadDim: c.int(0, "mamba_head_dim", "mamba_d_head"),
		StateSize:  c.int(128, "ssm_state_size", "mamba_d_state", "state_size"),
		ConvKernel: c.int(4, "conv_kernel", "mamba_d_conv"), Groups: c.int(1, "n_groups", "mamba_n_groups"),
		ConvBias: c.bool(true, "use_conv_bias", "mamba_conv_bias"), ProjBias: c.bool(false, "use_bias", "mamba_proj_bias"),
		StateDtype: c.string("", "mamba_ssm_cache_dtype"),
	}
	switch a.ModelType {
	case "nemotron_h":
		c.nemotron(a)
	case "granitemoehybrid":
		c.graniteHybrid(a)
	case "falcon_h1":
		a.Mamba.NoNorm = !c.bool(false, "mamba_rms_norm")
	case "jamba":
		c.jamba(a)
	case "mamba", "falcon_mamba", "mamba2":
		a.NormsPerLayer, a.NumHeads, a.NumKVHeads, a.IntermediateSize = 1, 0, 0, 0
		if a.ModelType == "mamba2" {
			a.Mamba.Heads, a.Mamba.HeadDim = c.int(0, "num_heads"), c.int(64, "head_dim")
			a.Mamba.Groups = c.int(8, "n_groups")
		} else {
			a.Mamba.one(inner, c.int(ceilDiv(a.HiddenSize, 16), "time_step_rank"))
		}
		a.HeadDim = 0
	}
	if a.Mamba.HeadDim == 0 && a.Mamba.Heads > 0 { // "auto"
		a.Mamba.HeadDim = inner / a.Mamba.Heads
	}
	return ""
}

// one makes n Mamba 1: all channels are heads of one dimension.
func (n *Mamba) one(inner, rank int64) {
	n.Heads, n.HeadDim, n.Groups, n.TimeStepRank = inner, 1, 1, rank
}

func (c *config) nemotron(a *Architecture) {
	a.MLP, a.NormsPerLayer = "plain", 1
	a.Mamba.StateDtype = cmp.Or(a.Mamba.StateDtype, "float32") // vllm/model_executor/models/config.py
	e := c.int(0, "n_routed_experts", "num_experts")
	if e == 0 {
		return
	}
	a.MoE = c.moe(e)
	a.MoE.SharedIntermediate = c.int(0, "moe_shared_expert_intermediate_size") * c.int(1, "n_shared_experts")
	a.MoE.RouterCorrection, a.MoE.LatentSize = true, c.int(0, "moe_latent_size")
}

func (c *config) graniteHybrid(a *Architecture) {
	a.LogitsScale = true
	shared := c.int(0, "shared_intermediate_size")
	if e := c.int(0, "num_local_experts"); e > 0 {
		a.MoE = c.moe(e)
		a.MoE.IntermediateSize, a.MoE.SharedIntermediate = a.IntermediateSize, shared
		return
	}
	a.IntermediateSize = shared // its MLP is the shared one
}

func (c *config) jamba(a *Architecture) {
	a.Mamba.StateSize = c.int(16, "mamba_d_state")
	a.Mamba.one(c.int(2, "mamba_expand")*a.HiddenSize, c.int(ceilDiv(a.HiddenSize, 16), "mamba_dt_rank"))
	a.Mamba.InnerNorms = true
	if e := c.int(16, "num_experts"); e > 1 {
		a.MoE = &MoE{Experts: e, TopK: c.int(2, "num_experts_per_tok"), IntermediateSize: a.IntermediateSize}
		period, offset := max(c.int(2, "expert_layer_period"), 1), c.int(1, "expert_layer_offset")
		a.MoE.expertLayers(a.NumLayers, func(i int64) bool { return i%period == offset%period })
	}
}

// lfm2 sets the types with short convolutions between layers of attention.
// Source: vllm/model_executor/models/{lfm2,lfm2_moe}.py.
func (c *config) lfm2(a *Architecture) (unknown string) {
	a.QKNorm = "head"
	a.ShortConv = &ShortConv{Kernel: c.int(3, "conv_L_cache"), Bias: c.bool(false, "conv_bias")}
	if a.ModelType == "lfm2_moe" {
		a.MoE = c.moe(c.int(0, "num_experts"))
		a.MoE.FirstDense, a.MoE.RouterCorrection = c.int(0, "num_dense_layers"), c.bool(true, "use_expert_bias")
		return ""
	}
	a.IntermediateSize = c.int(a.IntermediateSize, "block_ff_dim", "intermediate_size")
	if c.bool(true, "block_auto_adjust_ff_dim") {
		inter := int64(c.float(1, "block_ffn_dim_multiplier") * float64(2*a.IntermediateSize/3))
		a.IntermediateSize = roundUp(inter, max(c.int(256, "block_multiple_of"), 1))
	}
	return ""
}

// attentionAt is the pattern of a model whose layers of attention are listed,
// or come each period layers, among layers with a state.
func (c *config) attentionAt(a *Architecture) string {
	at := c.numbers("attn_layer_indices", "full_attn_idxs")
	period, offset := c.int(8, "attn_layer_period"), c.int(4, "attn_layer_offset")
	b := make([]byte, a.NumLayers)
	for i := range b {
		b[i] = 'm'
		if a.ShortConv != nil {
			b[i] = 'v'
		}
		if a.ModelType == "jamba" && period > 0 && int64(i)%period == offset%period || slices.Contains(at, int64(i)) {
			b[i] = 'f'
		}
	}
	return string(b)
}

"""Writes one config.json an architecture from transformers' configuration classes.

usage: python configs.py DIR     (pip install transformers; no torch is needed)

What a class assumes is written out, as save_pretrained does. CHANGED holds what is
set besides: where the class's own defaults are no model (a list of no layers), or
leave out what the type is known for.
"""

import json
import pathlib
import sys

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

# model type: architecture, what is set besides
CHANGED = {
    "qwen3_5": ("Qwen3_5ForConditionalGeneration", {}),
    "qwen3_5_moe": ("Qwen3_5MoeForConditionalGeneration", {}),
    "qwen3_next": ("Qwen3NextForCausalLM", {}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {"num_experts": 128, "head_dim": 128}),
    "deepseek_v3": ("DeepseekV3ForCausalLM", {}),
    "deepseek_v32": ("DeepseekV32ForCausalLM", {}),
    "deepseek_v4": ("DeepseekV4ForCausalLM", {}),
    "glm4": ("Glm4ForCausalLM", {}),
    "glm4_moe": ("Glm4MoeForCausalLM", {"head_dim": 128}),
    "glm4_moe_lite": ("Glm4MoeLiteForCausalLM", {"first_k_dense_replace": 1}),
    "glm_moe_dsa": ("GlmMoeDsaForCausalLM", {}),
    "glm5_next": ("Glm5NextForConditionalGeneration", {}),
    "kimi_linear": ("KimiLinearForCausalLM", {"mla_use_nope": True, "first_k_dense_replace": 1, "linear_attn_config": {
        "head_dim": 128, "num_heads": 32, "short_conv_kernel_size": 4, "full_attn_layers": [4, 8, 12, 16, 20, 24, 27],
        "kda_layers": [n for n in range(1, 27) if n % 4]}}),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", {}),
    "kimi_k25": ("KimiK25ForConditionalGeneration", {}),
    "minimax_m2": ("MiniMaxM2ForCausalLM", {"rotary_dim": 64, "scoring_func": "sigmoid", "use_routing_bias": True}),
    "minimax_m3_vl": ("MiniMaxM3SparseForConditionalGeneration", {"text_config": {
        "moe_layer_freq": [0] * 3 + [1] * 57, "sparse_attention_config": {"sparse_attention_freq": [0] * 3 + [1] * 57}}}),
    "gemma4_text": ("Gemma4ForCausalLM", {"num_kv_shared_layers": 10, "use_double_wide_mlp": True}),
    "gpt_oss": ("GptOssForCausalLM", {}),
    "nemotron_h": ("NemotronHForCausalLM", {"layers_block_type": [
        "linear_attention", "moe", "linear_attention", "moe", "full_attention", "moe", "linear_attention", "mlp"] * 4}),
    "llama4_text": ("Llama4ForCausalLM", {}),
    "mistral4": ("Mistral4ForCausalLM", {}),
    "ministral3": ("Ministral3ForCausalLM", {}),
    "granitemoehybrid": ("GraniteMoeHybridForCausalLM", {"layer_types": (["linear_attention"] * 7 + ["full_attention"]) * 4,
                                                         "position_embedding_type": "rope"}),
    "falcon_h1": ("FalconH1ForCausalLM", {}),
    "lfm2": ("Lfm2ForCausalLM", {"conv_dim": 2560, "block_dim": 2560, "layer_types": ["conv", "conv", "full_attention", "conv"] * 8}),
    "lfm2_moe": ("Lfm2MoeForCausalLM", {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8}),
    "bamba": ("BambaForCausalLM", {"attn_layer_indices": [9, 18, 27]}),
    "jamba": ("JambaForCausalLM", {}),
    "hunyuan_v1_dense": ("HunYuanDenseV1ForCausalLM", {"head_dim": 128}),
    "hunyuan_v1_moe": ("HunYuanMoEV1ForCausalLM", {"head_dim": 128, "num_experts": 16}),
    "hy_v3": ("HYV3ForCausalLM", {"first_k_dense_replace": 1, "expert_hidden_dim": 1536, "route_norm": True}),
    "ernie4_5": ("Ernie4_5ForCausalLM", {}),
    "ernie4_5_moe": ("Ernie4_5_MoeForCausalLM", {}),
    "longcat_flash": ("LongcatFlashForCausalLM", {"mla_scale_q_lora": True, "mla_scale_kv_lora": True,
                                                 "zero_expert_type": "identity"}),
    "olmo3": ("Olmo3ForCausalLM", {}),
    "olmoe": ("OlmoeForCausalLM", {}),
    "olmo_hybrid": ("OlmoHybridForCausalLM", {}),
    "seed_oss": ("SeedOssForCausalLM", {}),
    "exaone4": ("Exaone4ForCausalLM", {}),
    "exaone_moe": ("ExaoneMoeForCausalLM", {}),
    "smollm3": ("SmolLM3ForCausalLM", {}),
    "mamba": ("MambaForCausalLM", {}),
    "mamba2": ("Mamba2ForCausalLM", {}),
    "falcon_mamba": ("FalconMambaForCausalLM", {}),
    "granitemoeshared": ("GraniteMoeSharedForCausalLM", {"shared_intermediate_size": 1024}),
    "zamba2": ("Zamba2ForCausalLM", {}),
    "gemma3n_text": ("Gemma3nForCausalLM", {}),
    "nemotron": ("NemotronForCausalLM", {"num_key_value_heads": 8}),
    "laguna": ("LagunaForCausalLM", {}),
}


def main(out: pathlib.Path) -> None:
    for model_type, (architecture, changes) in CHANGED.items():
        config = CONFIG_MAPPING[model_type](**changes)
        fields = config.to_diff_dict()
        fields.update(architectures=[architecture], dtype="bfloat16", transformers_version=transformers.__version__)
        path = out / model_type / "config.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (f" {json.dumps(key)}: {json.dumps(fields[key])}" for key in sorted(fields))
        path.write_text("{\n" + ",\n".join(lines).replace("Infinity", "1e30") + "\n}\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

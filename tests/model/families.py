"""The families of models that people ask for, each as the smallest model of mlx-lm's own classes: what
stands here is what its config.json says otherwise than `COMMON`."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

Settings = dict[str, Any]


def windows(every: int) -> Settings:
    """As many layers, all but the last of which see a window: in some families llama.cpp takes for granted
    how many those are."""
    types = ["sliding_attention"] * (every - 1) + ["full_attention"]
    pattern = {"sliding_window": 8, "sliding_window_pattern": every, "layer_types": types}
    return {"num_hidden_layers": every, **pattern}


# Widths are multiples of 64, the group that is quantized together.
COMMON: Settings = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "layer_norm_eps": 1e-5,
    "norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TIED = {"tie_word_embeddings": True}
SLIDING = ["sliding_attention", "full_attention"]
LINEAR = ["linear_attention", "full_attention"]
LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"type": "yarn", "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
WHOLE = {"mscale": 1.0, "mscale_all_dim": 1.0}
WINDOW = {"sliding_window": 8, "layer_types": SLIDING}
LONG_ROPE = {
    "original_max_position_embeddings": 128,
    "rope_scaling": {"type": "longrope", "long_factor": [2.0] * 8, "short_factor": [1.25] * 8},
}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
QWEN_EXPERTS = {**EXPERTS, "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True}
DELTA = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 2,
    "partial_rotary_factor": 0.5,
    "layer_types": LINEAR,
}
GRANITE = {
    "logits_scaling": 4.0,
    "attention_multiplier": 0.25,
    "embedding_multiplier": 2.0,
    "residual_multiplier": 0.5,
    **TIED,
}
DEEPSEEK = {
    "moe_intermediate_size": 64,
    "num_key_value_heads": 4,
    "n_shared_experts": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "head_dim": 64,
    "kv_lora_rank": 64,
    "q_lora_rank": 64,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 64,
    "v_head_dim": 64,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "rope_scaling": {**YARN, **WHOLE},
}
GEMMA_4 = {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": SLIDING * 2,
    "sliding_window": 8,
    "global_head_dim": 16,
    "hidden_size_per_layer_input": 64,
    **TIED,
}
CONVOLUTIONS = {
    "conv_bias": False,
    "conv_L_cache": 3,
    "block_dim": 64,
    "block_ff_dim": 128,
    "block_multiple_of": 64,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": False,
}
LFM_2 = {
    **CONVOLUTIONS,
    "full_attn_idxs": [1],
    "layer_types": ["conv", "full_attention"],
    **TIED,
}
LLAMA_4 = {
    "num_hidden_layers": 4,
    "intermediate_size_mlp": 128,
    "interleave_moe_layer_step": 2,
    "attention_chunk_size": 32,
    "rope_scaling": LLAMA_3,
    "use_qk_norm": True,
    "no_rope_layers": [1, 1, 1, 0],
    **EXPERTS,
    "num_experts_per_tok": 1,
}
GPT_2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "n_ctx": 512, "n_inner": 256}
PYTHIA = {"rotary_emb_base": 10000, "rotary_pct": 0.5, "intermediate_size": 256, "num_key_value_heads": 4}
MAMBA = {"state_size": 16, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 4}
MAMBA_2 = {"num_heads": 8, "n_groups": 1, "time_step_limit": [0.0, 100.0], "layer_norm_epsilon": 1e-5}
# By the name that a person knows it by: its type in config.json, and what else that says.
FAMILIES: dict[str, tuple[str, Settings]] = {
    "Mistral": ("mistral", {"sliding_window": 64}),
    "Ministral 3": (
        "ministral3",
        {"rope_parameters": {**YARN, "rope_theta": 1e4, "llama_4_scaling_beta": 0.1, **WHOLE}},
    ),
    "Llama 2": ("llama", {"num_key_value_heads": 4}),
    "Llama 3": ("llama", {"rope_theta": 5e5}),
    "Llama 3.1": ("llama", {"rope_theta": 5e5, "rope_scaling": LLAMA_3}),
    "Llama 3.2": ("llama", {"rope_theta": 5e5, "rope_scaling": LLAMA_3, **TIED}),
    "Llama 4": ("llama4", LLAMA_4),
    "Llama 4, só texto": ("llama4_text", LLAMA_4),
    "Qwen 2 e 2.5": ("qwen2", {}),
    "Qwen 2.5, com YaRN": ("qwen2", {"rope_scaling": YARN}),
    "Qwen 3": ("qwen3", TIED),
    "Qwen 3.5": ("qwen3_5", {**DELTA, **TIED}),
    "Gemma": ("gemma", TIED),
    "Gemma 2": ("gemma2", {"sliding_window": 64, "query_pre_attn_scalar": 16, **TIED}),
    "Gemma 3": ("gemma3_text", {**windows(6), "query_pre_attn_scalar": 16, **TIED}),
    "Gemma 4": ("gemma4_text", GEMMA_4),
    "Phi 2": ("phi", {"num_key_value_heads": 4, "partial_rotary_factor": 0.5, "intermediate_size": 256}),
    "Phi 3": ("phi3", {"num_key_value_heads": 4}),
    "Phi 3.5": ("phi3", {"num_key_value_heads": 4, **LONG_ROPE}),
    "Phi 4": ("phi3", {}),
    "Phi 4 mini": ("phi3", {**LONG_ROPE, **TIED}),
    "SmolLM 2": ("llama", TIED),
    "SmolLM 3": ("smollm3", {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0], **TIED}),
    "OLMo 2": ("olmo2", {}),
    "OLMo 3": ("olmo3", {**WINDOW, "rope_theta": 5e5}),
    "Granite 3": ("granite", GRANITE),
    "Granite 3, MoE": ("granitemoe", {**GRANITE, **EXPERTS}),
    "Command R": ("cohere", {"logit_scale": 0.25, **TIED}),
    "Command R7B": ("cohere2", {"logit_scale": 0.25, "rotary_pct": 1.0, **windows(4), **TIED}),
    "GLM 4": ("glm", {"partial_rotary_factor": 0.5, "attention_bias": True}),
    "GLM 4, de 2025": ("glm4", {"partial_rotary_factor": 0.5, "attention_bias": True}),
    "InternLM 2": ("internlm2", {"bias": False}),
    "InternLM 3": ("internlm3", {"bias": False, "qkv_bias": False}),
    "EXAONE 3": ("exaone", {"num_layers": 2, "layer_norm_epsilon": 1e-5, "activation_function": "silu"}),
    "EXAONE 4 de 1,2B": (
        "exaone4",
        {
            "rope_scaling": LLAMA_3,
            "sliding_window": None,
            "sliding_window_pattern": None,
            "layer_types": SLIDING[1:] * 2,
        },
    ),
    "EXAONE 4 de 32B": (
        "exaone4",
        {
            **windows(64),
            "rope_scaling": LLAMA_3,
            "sliding_window_pattern": "LLLG",
            "layer_types": (SLIDING[:1] * 3 + SLIDING[1:]) * 16,
        },
    ),
    "StableLM 2": ("stablelm", {"use_qkv_bias": True, "partial_rotary_factor": 0.25}),
    "StarCoder 2": ("starcoder2", {"norm_epsilon": 1e-5, "use_bias": True, **TIED}),
    "Nemotron": ("nemotron", {"hidden_act": "relu2", "partial_rotary_factor": 0.5}),
    "Helium": ("helium", {}),
    "Apertus": ("apertus", {"post_norm": False, "qk_norm": True, "rope_scaling": LLAMA_3}),
    "GPT-OSS": (
        "gpt_oss",
        {
            **EXPERTS,
            **WINDOW,
            "attention_bias": True,
            "rope_scaling": {**YARN, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False},
        },
    ),
    "Mixtral": ("mixtral", EXPERTS),
    "Qwen 2, MoE": ("qwen2_moe", {**QWEN_EXPERTS, "shared_expert_intermediate_size": 64}),
    "Qwen 3, MoE": ("qwen3_moe", QWEN_EXPERTS),
    "Qwen3-Next": ("qwen3_next", {**QWEN_EXPERTS, "shared_expert_intermediate_size": 64, **DELTA}),
    "DeepSeek V2": ("deepseek_v2", {**DEEPSEEK, "topk_method": "greedy"}),
    "DeepSeek V3": ("deepseek_v3", DEEPSEEK),
    "LFM2": ("lfm2", LFM_2),
    "GPT-2": ("gpt2", {**GPT_2, "layer_norm_epsilon": 1e-5, **TIED}),
    "Pythia (GPT-NeoX)": ("gpt_neox", PYTHIA),
    "Mamba": ("mamba", {**MAMBA, **TIED}),
    "Mamba 2": ("mamba2", {**MAMBA, **MAMBA_2, **TIED}),
}
# Families that also see, or whose text part is one of several, keep the settings of the text here.
INSIDE = ("llama4", "qwen3_5")
# What the classes are called that their own authors wrote, and not Transformers.
ARCHITECTURES = {
    **MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "internlm2": "InternLM2ForCausalLM",
    "internlm3": "InternLM3ForCausalLM",
    "exaone": "ExaoneForCausalLM",
}


def config_of(family: str, vocabulary: int) -> Settings:
    """What config.json of the `family` says, with a `vocabulary` of so many tokens."""
    kind, own = FAMILIES[family]
    settings = {**COMMON, "model_type": kind, "vocab_size": vocabulary, **own}
    settings["architectures"] = [ARCHITECTURES[kind]]
    if kind == "gemma4_text":
        settings["vocab_size_per_layer_input"] = vocabulary
    if kind == "mamba2":
        settings["intermediate_size"] = settings["num_heads"] * settings["head_dim"]
    if kind in INSIDE:
        text = {**settings, "model_type": f"{kind}_text"}
        outside = ("eos_token_id", "vocab_size", "tie_word_embeddings")
        settings = {"model_type": kind, "text_config": text, **{key: settings[key] for key in outside}}
    return settings


def build(family: str, tokenizer: Path, folder: Path, **changes: object) -> Path:
    """Write a random model of `family`, in float32, to `folder`, with the tokenizer in another folder.

    `changes` are what its config.json says otherwise.
    """
    vocabulary = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config = {**config_of(family, vocabulary), **changes}
    shutil.copytree(tokenizer, folder, ignore=shutil.ignore_patterns("model*", "config.json"))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    cls, arguments = _get_classes(config)
    mx.random.seed(0)
    weights = dict(tree_flatten(cls(arguments.from_dict(config)).parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder

"""Every family of causal language models that the installed transformers has, some thousand weights each, from its config alone.

They are discovered in transformers' registry, so that a family is tested by being released. A config is shrunk by what its numbers
are called; OVERRIDES holds what a few families need beside. What cannot be made is listed with the reason, not left out.
"""

import re
from functools import cache

from tiny_models import VOCABULARY

MOST_WEIGHTS = 5_000_000
# what a number of a config is called, as a pattern -> what it is in a tiny one, at most
TINY = {
    r"(decoder_|unpadded_)?vocab_size(_per_layer_input)?": VOCABULARY,
    r"(?!attention)(\w*_)?hidden_size(_global)?|d_model|n_embd|emb_dim|\w*embedding_(dim|size)|embed_dim|word_embed_proj_dim|hidden_dim": 32,
    r"dim_model_base|lru_width|mamba_d_ssm|output_proj_dims|projection_dim|vision_output_dim": 32,
    r"\w*intermediate_size(_mlp)?|\w*ffn_dim|\w*ffn_hidden_size|dff|dim_ff|n_inner|d_inner|feed_forward_size": 32,
    r"num_(hidden_|(en|de)coder_|global_)?layers|(en|de)coder_layers|n_layers?|num_blocks|depth|num_layers_per_stack": 2,
    r"(swa_)?num_attention_heads|n_heads?|(decoder_|encoder_)?attention_heads|num_heads|num_(de|en)coder_attention_heads": 4,
    r"linear_num_(value_)?heads|index_n_heads|num_query_groups": 4,
    r"mamba_(n|num)_heads|n_mamba_heads": 8,
    r"(swa_)?num_key_value_heads|num_kv_heads|linear_num_key_heads|kv_n_heads": 2,
    r"qk_head_dim": 16,
    r"\w*head_dim|\w*d_head|attention_head_size|dim_head|kv_channels|d_rel|\w*lora_rank|rotary_dim|\w*state_size|mamba_d_state": 8,
    r"gated_norm_rank|laurel_rank|hc_lowrank|adapter_rank|router_hidden_size|hidden_size_per_layer_input": 8,
    r"\w*num_(local_)?experts|n_routed_experts": 4,
    r"num_experts_per_tok(en)?|moe_k|moe_top_?k|top_k_experts": 2,
    r"\w*shared_experts|n_group|topk_group|num_expert_group|first_k_dense_replace|num_dense_layers|zero_expert_num": 1,
    r"time_step_rank|mamba_dt_rank": 4,
    r"n_groups|mamba_n_?groups|o_groups": 1,
    r"\w*chunk_size|block_size|index_block_size": 8,
    r"max_(position_embeddings|seq_len|target_positions|source_positions)|n_positions|n_ctx|context_length|rel_extent": 64,
    r"image_size": 16,
    r"patch_size|num_mel_bins|qk_rope_head_dim": 8,
}
WINDOW = (
    r"sliding_window(_size)?|attention_window_size|window_size|local_attention|attention_chunk_size|keep_window_size|index_topk"
)
# what is drawn while a model trains: never here, so that the share may be large
DRAWN = r"\w*(dropout|drop_rate|pdrop|layerdrop|layer_drop|jitter_noise)\w*"
# where None means a number that follows from others
NONE_MEANS = {"head_dim": 8, "num_key_value_heads": 2}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_ssm": 32}
INDEXER = {"indexer_budget": 8, "indexer_compress_ratio": 4}
ROPE_BY_LAYER = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("sliding_attention", "full_attention")}
NO_TOKEN = 29  # a special token that means something to a model, which rows of text do not hold by intent
OVERRIDES = {
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"], "rope_parameters": ROPE_BY_LAYER},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_routed_experts": 4},
    "diffllama": {"attention_dropout": 0.0},  # it refuses any other
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note_text": {"per_layer_config": None, "swa_head_dim": 16},
    "falcon_h1": MAMBA | {"lm_head_multiplier": 0.5},
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "granite": {"logits_scaling": 3.0},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "llama4_text": {"attn_temperature_tuning": True, "floor_scale": 8, "no_rope_layers": [1, 0]},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "qwen4_exp_text": {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8} | INDEXER,
    "reformer": {"axial_pos_embds": False},
    "roc_bert": {"shape_vocab_size": 9, "pronunciation_vocab_size": 9, "shape_embed_dim": 8, "pronunciation_embed_dim": 8},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"]},
    "zamba2": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "hybrid"], "mamba_headdim": 8},
}


class NotTinyError(Exception):
    """A family of which no tiny model could be made, and why."""


@cache
def families():
    """The model types of transformers' registry of causal language models, by name."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_family(family, *, window, seed=0):
    """A model of this family whose windows, where it has any, are of `window` tokens. Raises NotTinyError."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    try:
        config = tiny_config(CONFIG_MAPPING[family], window)
        with torch.device("meta"):
            weights = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
        if weights > MOST_WEIGHTS:
            raise NotTinyError(f"its smallest config found here has {weights:,} weights")
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
        model(input_ids=torch.arange(1, 13)[None], use_cache=False).logits.sum()
    except NotTinyError:
        raise
    except Exception as error:  # whatever a config class, an initialiser or a package that is not there says
        raise NotTinyError(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}") from error
    return filled(model, seed)


def filled(model, seed):
    """Weights large enough that each of them shows in the log-probs; norms stay near 1."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def tiny_config(kind, window):
    """A config of this class with the numbers that TINY and OVERRIDES say."""
    default = kind()
    parts = getattr(kind, "sub_configs", None) or {}
    numbers = {name: value for name, value in default.to_dict().items() if name not in parts and not name.startswith("_")}
    settings = {name: tiny for name, value in numbers.items() if (tiny := tiny_value(name, value, window)) is not None}
    settings |= {"initializer_range": 0.3} if hasattr(default, "initializer_range") else {}
    if "kv_lora_rank" in settings:  # latent attention has no groups of heads
        settings["num_key_value_heads"] = settings["num_attention_heads"]
    if kinds := list(dict.fromkeys(numbers.get("layer_types") or ())):
        settings["layer_types"] = kinds * (2 if len(kinds) == 1 else 1)
        settings["num_hidden_layers"] = len(settings["layer_types"])
    own = OVERRIDES.get(kind.model_type, {})
    for name in parts:
        value = getattr(default, name, None)
        if hasattr(value, "to_dict"):
            settings[name] = tiny_config(type(value), window).to_dict() | own.get(name, {})
    return kind(**(settings | {name: value for name, value in own.items() if name not in parts}))


def tiny_value(name, value, window):
    """What a setting of this name is in a tiny config; None where it stays as it is."""
    if name == "is_decoder":
        return True
    if value is None:
        return NONE_MEANS.get(name)
    if isinstance(value, float) and re.fullmatch(DRAWN, name):
        return 0.3
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if re.fullmatch(r"\w*token_(id|index)", name):
        return 0 if name.startswith(("pad", "bos", "eos")) else NO_TOKEN
    if re.fullmatch(WINDOW, name):
        return window
    tiny = next((tiny for pattern, tiny in TINY.items() if re.fullmatch(pattern, name)), None)
    return None if tiny is None or value <= 0 else min(tiny, value)

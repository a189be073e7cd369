"""Low-rank adapters (LoRA) on the linear layers of a decoder, which may itself be held in 4 bits (QLoRA)."""

import re
from typing import Any

from torch import nn

from ktodata.errors import SettingError
from ktodata.extras import require
from ktodata.train.model.frozen_layers import decoder_layers, text_config
from ktodata.train.setting_tables import LoraSettings


def quantized_options(lora: LoraSettings | None, *, device: Any, compute_dtype: Any) -> dict[str, Any]:
    """What `load_causal_lm` is given beside the name, so that the base model is read as `lora` says; {} unless quantized.

    The linear layers of the decoder are held in nf4 with quantized scales, about 4.1 bits a weight, and are unpacked to
    `compute_dtype` where they are used (Dettmers et al. 2023, arXiv:2305.14314). Embeddings, norms and the output head stay
    float32, and so do the adapters. The weights go straight to `device`: do not move the model afterwards.

    Raises SettingError for a device other than cpu and cuda, MissingExtraError when bitsandbytes or accelerate is not installed.
    """
    if lora is None or "quantize" not in lora:
        return {}
    require("bitsandbytes", "accelerate", what="lora.quantize", extra="quantize")
    if device.type not in ("cpu", "cuda"):
        raise SettingError(f"lora.quantize works on cpu and cuda, not on {device.type}. Leave quantize out there.")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def with_adapters(model: Any, lora: LoraSettings, trainable_layers: int | None) -> tuple[Any, int]:
    """(`model` with adapters on its top layers, or on all, as the only weights that train; the number of layers without)."""
    from peft import LoraConfig, get_peft_model

    layers = decoder_layers(model)[0]
    linear = sorted({path.split(".")[-1] for path, part in layers.named_modules() if _gives_its_product_alone(part)})
    if not linear:
        raise SettingError(
            f"lora needs plain linear layers, and the decoder layers of a {model.config.model_type} model hold none. "
            "Leave lora out; trainable_layers trains a part of it."
        )
    wanted = lora.get("target_modules") or linear
    if unknown := [name for name in wanted if name not in linear]:
        raise SettingError(
            f"lora.target_modules: {', '.join(unknown)} is no linear layer inside the decoder layers; those are "
            f"{', '.join(linear)}. (The output head takes no adapter: log-probs are computed from its weights directly.)"
        )
    frozen = len(layers) - min(trainable_layers or len(layers), len(layers))
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.get("r", 16),
        lora_alpha=lora.get("alpha", 32.0),
        lora_dropout=lora.get("dropout", 0.0),
        **_targets(model, layers, wanted, list(range(frozen, len(layers)))),
    )
    _keep_gradients(layers)
    return get_peft_model(model, config), frozen


def _gives_its_product_alone(part: Any) -> bool:
    """Whether a layer is linear and no more: some routers are linear layers that give several things (Llama 4)."""
    return isinstance(part, nn.Linear) and not type(part).__module__.startswith("transformers.models.")


def _targets(model: Any, layers: nn.ModuleList, names: list[str], numbers: list[int]) -> dict[str, Any]:
    """What peft is told of the linear layers of these names in the decoder layers of these numbers."""
    if text_config(model.config) is model.config:
        return {"target_modules": names, "layers_to_transform": numbers}
    # a tower that sees images has numbered layers too, with linear layers of the same names, which text never reaches
    place = next(path for path, part in model.named_modules() if part is layers)
    return {"target_modules": rf"{re.escape(place)}\.({'|'.join(map(str, numbers))})\.(.*\.)?({'|'.join(names)})"}


def _keep_gradients(layers: nn.ModuleList) -> None:
    """Keep 4-bit layers from repacking their weights for inference.

    On a CPU with AVX512-BF16, bitsandbytes does that to a model in eval mode, as this one always is: scales are rounded, and no
    gradient passes to the layers below.
    """
    for part in layers.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False

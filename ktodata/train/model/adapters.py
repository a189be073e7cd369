"""Low-rank adapters (LoRA) on the linear layers of a decoder, which may itself be held in 4 bits (QLoRA)."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ktodata.errors import SettingError
from ktodata.extras import require
from ktodata.train.model.frozen_layers import decoder_layers
from ktodata.train.setting_tables import LoraSettings

# of these kinds the scans read these layers' weights by themselves, past an adapter; peft refuses most of them
OF_KERNELS = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
READ_BY_KERNELS = ("conv1d", "dt_proj", "out_proj")


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

    layers, kind = decoder_layers(model)[0], model.config.model_type
    left_out = READ_BY_KERNELS if kind in OF_KERNELS else ()
    plain = [
        [path for path, part in layer.named_modules() if _gives_its_product_alone(part) and _name(path) not in left_out]
        for layer in layers
    ]
    linear = sorted({_name(path) for paths in plain for path in paths})
    if not linear:
        raise SettingError(
            f"lora needs plain linear layers, and the decoder layers of a {kind} model hold none. "
            "Leave lora out; trainable_layers trains a part of it."
        )
    wanted = lora.get("target_modules") or linear
    if unknown := [name for name in wanted if name not in linear]:
        raise SettingError(
            f"lora.target_modules: {', '.join(unknown)} is no linear layer inside the decoder layers; those are "
            f"{', '.join(linear)}. (The output head takes no adapter: log-probs are computed from its weights directly.)"
        )
    frozen = len(layers) - min(trainable_layers or len(layers), len(layers))
    place = next(path for path, part in model.named_modules() if part is layers)
    meant = [[path for path in paths if _name(path) in wanted] for paths in plain]
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.get("r", 16),
        lora_alpha=lora.get("alpha", 32.0),
        lora_dropout=lora.get("dropout", 0.0),
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in layers.modules()),
        **_targets(model, place, frozen, meant),
    )
    _keep_gradients(layers)
    adapted = get_peft_model(model, config)
    _check_frozen(adapted, place, frozen)
    _check_reads_back(adapted)
    return adapted, frozen


def not_set(model: Any, weights: dict[str, Any]) -> list[str]:
    """Names of the adapter weights of `model` that it does not take from saved ones; it takes the others."""
    from peft import set_peft_model_state_dict

    return sorted(key for key in set_peft_model_state_dict(model, weights).missing_keys if ".lora_" in key)


def _check_reads_back(model: Any) -> None:
    """Raise SettingError for adapters that are not found again when they are read: they would be random numbers there.

    transformers renames layers of some models as it reads them (Laguna's shared experts), and peft the adapters on them, wrongly.
    """
    from peft import get_peft_model_state_dict

    if lost := sorted({_name(key.split(".lora_")[0]) for key in not_set(model, get_peft_model_state_dict(model))}):
        raise SettingError(
            f"lora.target_modules: saved adapters on {', '.join(lost)} of a {model.config.model_type} model cannot be read back, "
            "as transformers and peft take some of these layers for others. Name other layers only."
        )


def _name(path: str) -> str:
    return path.rsplit(".", maxsplit=1)[-1]


def _gives_its_product_alone(part: Any) -> bool:
    """Whether a layer is linear and no more: some routers are linear layers that give several things (Llama 4)."""
    if not isinstance(part, nn.Linear) or not type(part).__module__.startswith("transformers.models."):
        return isinstance(part, (nn.Linear, Conv1D))  # Conv1D: GPT-2's name for one
    row = torch.linspace(-1, 1, part.in_features, dtype=part.weight.dtype, device=part.weight.device)[None]
    try:
        with torch.no_grad():
            given, product = part(row), nn.functional.linear(row, part.weight, part.bias)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False
    if not isinstance(given, torch.Tensor) or given.shape != product.shape:
        return False
    return bool(given.is_meta or torch.allclose(given, product, rtol=1e-2, atol=1e-2))


def _check_frozen(model: Any, place: str, frozen: int) -> None:
    """Raise SettingError where a frozen layer has adapters: peft rewrites what it is told of some mixtures of experts."""
    inner = model.get_base_model()
    below = tuple(f"{place}.{number}." for number in range(frozen))
    others = [path for path, part in inner.named_modules() if hasattr(part, "lora_A") and path.startswith(below)]
    if others:
        raise SettingError(
            f"lora with trainable_layers: peft puts adapters on the frozen layers of a {inner.config.model_type} model, too "
            f"({others[0]}). Leave one of the two out."
        )


def _targets(model: Any, place: str, frozen: int, meant: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What peft is told, so that it adapts those paths of each layer from number `frozen` on, and nothing else.

    By names where those say it. A tower that sees images has numbered layers too, with layers of the same names, which text never
    reaches; some names are of other parts as well, or are numbers; and where there are lists inside a layer (experts), peft would
    take the place in such a list for the layer's number.
    """
    numbers = range(frozen, len(meant))
    places = {f"{place}.{number}.{path}" for number in numbers for path in meant[number]}
    names = sorted({_name(path) for path in places})
    by_names = {
        path
        for path, _ in model.named_modules(remove_duplicate=False)
        if _name(path) in names and (not (inside := _numbers_in(path)) or inside[-1] in numbers)
    }
    if by_names == places:
        return {"target_modules": names, "layers_to_transform": list(numbers)}
    alike: dict[tuple[str, ...], list[str]] = {}
    for number in numbers:
        alike.setdefault(tuple(meant[number]), []).append(str(number))
    kinds = [rf"(?:{'|'.join(some)})\.(?:{'|'.join(map(re.escape, paths))})" for paths, some in alike.items() if paths]
    return {"target_modules": rf"{re.escape(place)}\.(?:{'|'.join(kinds)})"}


def _numbers_in(path: str) -> list[int]:
    return [int(part) for part in path.split(".") if part.isdigit()]


def _keep_gradients(layers: nn.ModuleList) -> None:
    """Keep 4-bit layers from repacking their weights for inference.

    On a CPU with AVX512-BF16, bitsandbytes does that to a model in eval mode, as this one always is: scales are rounded, and no
    gradient passes to the layers below.
    """
    for part in layers.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False

"""Low-rank adapters (LoRA) on the linear layers of a decoder."""

from typing import Any

from torch import nn

from ktodata.errors import SettingError
from ktodata.train.settings import LoraSettings
from ktodata.train.trunk import decoder_layers


def with_adapters(model: Any, lora: LoraSettings, trainable_layers: int | None) -> tuple[Any, int]:
    """(`model` with adapters on its top layers, or on all, as the only weights that train; the number of layers without)."""
    from peft import LoraConfig, get_peft_model

    layers = decoder_layers(model)[0]
    linear = sorted({path.split(".")[-1] for path, part in layers.named_modules() if isinstance(part, nn.Linear)})
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
        target_modules=wanted,
        layers_to_transform=list(range(frozen, len(layers))),
    )
    return get_peft_model(model, config), frozen

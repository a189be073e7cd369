"""When only the top layers train, the frozen layers below are run once per sequence, for model and reference alike.

The model is split with its own code: its forward is run over the lower layers without the final norm, and later over the upper
ones from the states kept. That holds for decoders that pass one residual stream through `layers` under one causal mask; all
others run whole, with the same result.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ktodata.errors import ModelError, SettingError
from ktodata.models import text_config

Tensor = Any

SPLITTABLE = ("llama", "mistral", "qwen2", "qwen3", "smollm3")


def decoder_of(model: Any) -> Any:
    """The part of a causal LM below its head, seen through adapters; None when there is no such part."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    # Llama 4's text model goes by another name than its class says
    return getattr(base, base.base_model_prefix, None) or getattr(base, "model", None)


def decoder_layers(model: Any) -> tuple[nn.ModuleList, list[Any]]:
    """(the decoder's layers, its final norm if that follows them). Raises ModelError when they cannot be found.

    Of a model that sees images as well: those of its language model.
    """
    decoder, text = decoder_of(model), text_config(model.config)
    # the first of LongCat is of attentions, of which a layer has two
    counts = [getattr(text, name, None) for name in ("num_hidden_layers", "num_layers")]
    for part in (decoder, getattr(decoder, "language_model", None), getattr(decoder, "decoder", None)):
        children = list(part.children()) if part is not None else []
        for number, child in enumerate(children):
            if isinstance(child, nn.ModuleList) and len(child) in counts:
                return child, list(filter(_is_norm, children[number + 1 :]))[:1]
    raise ModelError(
        f"cannot tell the layers of a {model.config.model_type} model apart, so neither trainable_layers nor lora work on it."
    )


def layer_configs(config: Any) -> list[Any]:
    """Those of the language model's layers where they differ (Gemma 4), as the whole then has no one head size; else that one."""
    text = text_config(config)
    return list(getattr(text, "per_layer_config", None) or [text])


def _is_norm(part: Any) -> bool:
    weights = list(part.parameters())
    return bool(weights) and all(weight.ndim < 2 for weight in weights)


def freeze_below(model: Any, trainable: int) -> int:
    """Leave only the top `trainable` decoder layers and the final norm trainable. Returns the number of frozen layers."""
    layers, above = decoder_layers(model)
    if trainable > len(layers):
        raise SettingError(f"trainable_layers is {trainable}, but the model has {len(layers)} layers.")
    model.requires_grad_(False)
    for part in (*layers[len(layers) - trainable :], *above):
        part.requires_grad_(True)
    return len(layers) - trainable


def can_split(model: Any) -> bool:
    """Whether the decoder is one of a kind whose layers may be run in two parts."""
    config = model.config
    # one mask for all layers: mixed kinds are looked up by layer number, which a split would shift
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    return config.model_type in SPLITTABLE and kinds == {"full_attention"} and not windowed


def lower_states(decoder: Any, input_ids: Tensor, frozen: int, **layout: Any) -> Tensor:
    """The residual stream [B, T, H] after the lowest `frozen` layers; no gradient. layout: further arguments of the decoder."""
    with torch.no_grad(), _layers_only(decoder, slice(0, frozen), norm=False):
        return decoder(input_ids=input_ids, use_cache=False, **layout).last_hidden_state


def upper_states(decoder: Any, states: Tensor, frozen: int, **layout: Any) -> Tensor:
    """What the whole decoder would return [B, T, H], from `lower_states`."""
    with _layers_only(decoder, slice(frozen, None), norm=True):
        return decoder(inputs_embeds=states, use_cache=False, **layout).last_hidden_state


@contextmanager
def _layers_only(decoder: Any, part: slice, *, norm: bool) -> Iterator[None]:
    layers, final_norm = decoder.layers, decoder.norm
    try:
        decoder.layers = nn.ModuleList(layers[part])
        decoder.norm = final_norm if norm else nn.Identity()
        yield
    finally:
        decoder.layers, decoder.norm = layers, final_norm

"""Activations computed again in the backward pass instead of being kept: less memory for a third more arithmetic.

transformers' own switch works in training mode only, which turns on whatever else a layer's code does then: dropout, noise on
routers. Here the layers it knows how to compute again are wrapped, and stay in the mode that they are in.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from ktodata.errors import SettingError
from ktodata.train.model.attention import NAME
from ktodata.train.model.packed_model import packed_passes

Contexts = Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]


def checkpoint_layers(model: Any) -> None:
    """Switch it on for every decoder layer. Raises SettingError for a model that cannot."""
    layers = list(_layers(model))
    if not getattr(model, "supports_gradient_checkpointing", False) or not layers:
        raise SettingError(
            f"a {model.config.model_type} model cannot recompute its activations: leave gradient_checkpointing out."
        )

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        # asked for in the forward pass, for that and for the second one, which comes when packing is switched off again
        packed = model.config._attn_implementation == NAME
        return nullcontext(), packed_passes(model) if packed else nullcontext()

    for layer in layers:
        # `forward`, not the call: hooks, as FSDP2's, stay outside and run once
        layer.forward = partial(_recomputed, layer.forward, contexts)


def keep_activations(model: Any) -> None:
    """Switch it off again."""
    for layer in _layers(model):
        if getattr(vars(layer).get("forward"), "func", None) is _recomputed:
            layer.forward = layer.forward.args[0]


def _layers(model: Any) -> Iterator[Any]:
    return (part for part in model.modules() if isinstance(part, GradientCheckpointingLayer))


def _recomputed(forward: Callable[..., Any], contexts: Contexts, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)

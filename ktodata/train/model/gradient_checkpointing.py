"""Activations computed again in the backward pass instead of being kept: less memory for a third more arithmetic."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ktodata.errors import SettingError
from ktodata.train.model.attention import NAME
from ktodata.train.model.packed_model import packed_passes


def checkpoint_layers(model: Any) -> None:
    """Switch it on for every decoder layer. Raises SettingError for a model that cannot."""
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise SettingError(
            f"a {model.config.model_type} model cannot recompute its activations: leave gradient_checkpointing out."
        )

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        # asked for in the forward pass, for that and for the second one, which comes when packing is switched off again
        packed = model.config._attn_implementation == NAME
        return nullcontext(), packed_passes(model) if packed else nullcontext()

    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False, "context_fn": contexts})
    for layer in model.modules():
        # transformers recomputes only in layers that are in training mode; what is inside them stays as it is, dropout off
        if getattr(layer, "gradient_checkpointing", False):
            layer.training = True

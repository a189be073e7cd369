"""A model whose weights stay in their files until each process takes its share, so that none holds all of them in float32."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from ktodata.models import check_no_adapter, load_causal_lm
from ktodata.train.model.fingerprint import weights_hash
from ktodata.train.model.stored_dtype import only_dtype

Tensor = Any


class MappedWeights:
    """What the files hold, for the parameters of a model that have no values yet; safetensors are mapped, not read into memory.

    hash : `weights_hash` of the model as it is when all of it is read in float32
    """

    def __init__(self, read: Any, empty: Any) -> None:
        self.hash = weights_hash(read)
        placed: dict[Any, Any] = {}  # what stands for a parameter that is read: those that are tied stay so
        for path, part in read.named_modules():
            for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
                setattr(empty.get_submodule(path), name, placed.setdefault(parameter, _without_values(parameter)))
        self._stored = {standing: parameter.detach() for parameter, standing in placed.items()}

    def named(self, model: Any) -> Iterator[tuple[str, Tensor]]:
        """The parameters of `model` that have no values yet, by name, with those that their files hold."""
        for name, parameter in model.named_parameters():
            if parameter in self._stored:
                yield name, self._stored[parameter]

    def fill(self, parameters: Iterable[Any]) -> None:
        """Give these their values in float32, those that have them by now and those of adapters excepted."""
        for parameter in parameters:
            if parameter in self._stored:
                stored = self._stored.pop(parameter)
                parameter.data = stored.float() if stored.is_floating_point() else stored


def load_mapped(name: str) -> tuple[Any, Any, MappedWeights]:
    """(model, tokenizer, weights) of a causal language model: `load_causal_lm` but for the values of its parameters.

    Those are zeros that take no memory until `MappedWeights.fill`. Buffers have their values. Weights that the files hold in more
    than one dtype, or not as safetensors, are read into memory in float32.

    Raises ModelError as `load_causal_lm` does.
    """
    from accelerate import init_empty_weights

    read, tokenizer = load_causal_lm(name, dtype=only_dtype(name))
    check_no_adapter(name, read)
    # buffers are made with the model, and some are rounded where it is made in a narrow dtype
    with init_empty_weights(include_buffers=False):
        empty = type(read)._from_config(read.config, dtype=torch.float32)
    saved = read.state_dict()
    with torch.no_grad():
        for place, buffer in empty.named_buffers():
            if place in saved:
                buffer.copy_(saved[place])
    return empty.eval(), tokenizer, MappedWeights(read, empty)


def _without_values(parameter: Any) -> Any:
    """One as large, whose zeros share the memory of a single one."""
    dtype = torch.float32 if parameter.is_floating_point() else parameter.dtype
    return torch.nn.Parameter(torch.zeros((), dtype=dtype).expand(parameter.shape), requires_grad=parameter.requires_grad)

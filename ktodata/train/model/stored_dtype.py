"""In which dtype a base model's weights are stored. What was trained is saved in it, and rounded to it before it is evaluated."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import is_zipfile

import torch

from ktodata.models import resolve_model

Tensor = Any
NARROW = {"BF16": torch.bfloat16, "F16": torch.float16}  # as safetensors call them


@dataclass(frozen=True)
class SavedAs:
    """How a trained model's weights are saved. dtype : of most; wide : names of the parameters that stay float32 beside them"""

    dtype: Any = torch.float32
    wide: frozenset[str] = frozenset()


class _Stored(NamedTuple):
    """A tensor in a file. dtype : as safetensors call it; numbers : how many it holds"""

    dtype: str
    numbers: int


def as_stored(name: str, model: Any, values: Iterable[tuple[str, Tensor]]) -> SavedAs:
    """As the base's files are: bfloat16 or float16 where most of their numbers are, and float32 what they hold otherwise.

    name : hub id that was loaded, folder or packaged name. Its config does not count: many a config says bfloat16 of files that
    hold float32, and those must not be rounded.
    model : its config and names; values : its parameters by name, as they were read

    What transformers has put together from several tensors has another name than any of them, so a parameter whose values the
    narrow dtype does not hold stays float32, too: a model that no update has moved is saved as it was read.
    """
    stored = _stored_tensors(name) or _tensors_of_pickles(name)
    dtype, kinds = _most(stored), {tensor.dtype for tensor in stored.values()}
    if dtype == torch.float32 or len(kinds) == 1:
        return SavedAs(dtype)
    wide = {_name_in(model, place) for place, tensor in stored.items() if NARROW.get(tensor.dtype) != dtype}
    return SavedAs(
        dtype, frozenset(place for place, value in values if _name_in(model, place) in wide or not _holds(dtype, value))
    )


def only_dtype(model: str) -> Any:
    """torch.bfloat16 or torch.float16 where a model's safetensors files hold nothing else; torch.float32 holds any."""
    kinds = list({tensor.dtype for tensor in _stored_tensors(model).values()})
    return NARROW.get(kinds[0], torch.float32) if len(kinds) == 1 else torch.float32


def _most(stored: dict[str, _Stored]) -> Any:
    """torch.bfloat16 or torch.float16 where most numbers are stored so; else torch.float32."""
    numbers: Counter[str] = Counter()
    for tensor in stored.values():
        numbers[tensor.dtype] += tensor.numbers
    return NARROW.get(numbers.most_common(1)[0][0], torch.float32) if numbers else torch.float32


def _holds(dtype: Any, value: Tensor) -> bool:
    return value.dtype == dtype or bool(torch.equal(value.to(dtype).to(value.dtype), value))


def _name_in(model: Any, name: str) -> str:
    """What the model calls a tensor that its files call `name`; the prefix that some files leave out is left out."""
    for conversion in getattr(model, "_weight_conversions", None) or ():
        name = conversion.rename_source_key(name)[0]
    return name.removeprefix(f"{model.base_model_prefix}.")


def _stored_tensors(model: str) -> dict[str, _Stored]:
    """What a model's safetensors files hold, by name."""
    from safetensors import safe_open

    folder, stored = _folder_of(model), dict[str, _Stored]()
    for path in sorted(folder.glob("model*.safetensors")) if folder is not None else []:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                tensor = file.get_slice(name)
                stored[name] = _Stored(tensor.get_dtype(), prod(tensor.get_shape()))
    return stored


def _tensors_of_pickles(model: str) -> dict[str, _Stored]:
    """The same of pytorch_model*.bin, where a model has no safetensors; mapped, not read."""
    folder, stored = _folder_of(model), dict[str, _Stored]()
    names = {dtype: name for name, dtype in NARROW.items()}
    for path in sorted(folder.glob("pytorch_model*.bin")) if folder is not None else []:
        weights = torch.load(path, map_location="cpu", mmap=is_zipfile(path), weights_only=True)
        stored |= {name: _Stored(names.get(tensor.dtype, "F32"), tensor.numel()) for name, tensor in weights.items()}
    return stored


def _folder_of(model: str) -> Path | None:
    place = Path(resolve_model(model)).expanduser()
    if place.is_dir():
        return place
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def round_weights(model: Any, saved: SavedAs) -> None:
    """Give every weight that trains the nearest value that it is saved as; they stay float32.

    Left as they are: what stays wide, what transformers itself keeps in float32 (some routers), and a matrix that the dtype has
    no room for.
    """
    for part in _to_round(model, saved):
        rounded = part.to(saved.dtype).to(part.dtype)
        if bool(rounded.isfinite().all()):
            part.copy_(rounded)


@contextmanager
def rounded_weights(model: Any, saved: SavedAs) -> Iterator[None]:
    """Inside, the model is the one that would be saved; afterwards its weights are what they were, bit for bit.

    Takes the host the memory of what trains (of this process's share of it) unless all is saved as float32.
    """
    kept = [(part, part.to("cpu", copy=True)) for part in _to_round(model, saved)]
    round_weights(model, saved)
    try:
        yield
    finally:
        for part, before in kept:
            part.copy_(before)


@contextmanager
def held_as(model: Any, saved: SavedAs) -> Iterator[None]:
    """Inside, float32 weights that their dtype holds exactly are of it, to be saved so; afterwards float32 again."""
    narrow = [
        parameter
        for name, parameter in model.named_parameters()
        if saved.dtype != torch.float32 == parameter.dtype and name not in saved.wide
    ]
    named = getattr(model.config, "dtype", None)
    exact = [parameter for parameter in narrow if _holds(saved.dtype, parameter.data)]
    for parameter in exact:
        parameter.data = parameter.data.to(saved.dtype)
    try:
        yield
    finally:
        for parameter in exact:
            parameter.data = parameter.data.float()
        if narrow:
            model.config.dtype = named  # saving has set it


def _to_round(model: Any, saved: SavedAs) -> list[Tensor]:
    """The values, or this process's share of them, of what trains and would be saved in another dtype than float32."""
    kept_wide = getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    with torch.no_grad():  # a share that knows of gradients cannot be written to
        return [
            parameter.to_local() if hasattr(parameter, "to_local") else parameter.data
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
            and parameter.dtype == torch.float32 != saved.dtype
            and name not in saved.wide
            and not any(part in name for part in kept_wide)
        ]

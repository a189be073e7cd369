"""In which dtype a base model's weights are stored. What was trained is saved in it, and rounded to it before it is evaluated."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch

from ktodata.models import resolve_model

Tensor = Any
NARROW = {"BF16": torch.bfloat16, "F16": torch.float16}  # as safetensors call them


def stored_dtype(model: str) -> Any:
    """torch.bfloat16 or torch.float16 where most numbers of a model's files are stored so; else torch.float32.

    model : hub id that was loaded, folder or packaged name. Its config does not count: many a config says bfloat16 of files that
    hold float32, and those must not be rounded.
    """
    numbers = _stored_numbers(model) or _numbers_of_pickles(model)
    return NARROW.get(numbers.most_common(1)[0][0], torch.float32) if numbers else torch.float32


def only_dtype(model: str) -> Any:
    """torch.bfloat16 or torch.float16 where a model's safetensors files hold nothing else; torch.float32 holds any."""
    kinds = list(_stored_numbers(model))
    return NARROW.get(kinds[0], torch.float32) if len(kinds) == 1 else torch.float32


def _stored_numbers(model: str) -> Counter[str]:
    """How many numbers a model's safetensors files hold in each dtype."""
    from safetensors import safe_open

    folder = _folder_of(model)
    files = sorted(folder.glob("model*.safetensors")) if folder is not None else []
    numbers: Counter[str] = Counter()
    for path in files:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                tensor = file.get_slice(name)
                numbers[tensor.get_dtype()] += prod(tensor.get_shape())
    return numbers


def _numbers_of_pickles(model: str) -> Counter[str]:
    """The same of pytorch_model*.bin, where a model has no safetensors; mapped, not read."""
    folder = _folder_of(model)
    names = {dtype: name for name, dtype in NARROW.items()}
    numbers: Counter[str] = Counter()
    for path in sorted(folder.glob("pytorch_model*.bin")) if folder is not None else []:
        weights = torch.load(path, map_location="cpu", mmap=is_zipfile(path), weights_only=True)
        for tensor in weights.values():
            numbers[names.get(tensor.dtype, "F32")] += tensor.numel()
    return numbers


def _folder_of(model: str) -> Path | None:
    place = Path(resolve_model(model)).expanduser()
    if place.is_dir():
        return place
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def round_weights(model: Any, dtype: Any) -> None:
    """Give every weight that trains the nearest value that `dtype` holds; they stay float32.

    Left as they are: what transformers itself keeps in float32 (some routers), and a matrix that `dtype` has no room for.
    """
    for part in _to_round(model, dtype):
        rounded = part.to(dtype).to(part.dtype)
        if bool(rounded.isfinite().all()):
            part.copy_(rounded)


@contextmanager
def rounded_weights(model: Any, dtype: Any) -> Iterator[None]:
    """Inside, the model is the one that would be saved; afterwards its weights are what they were, bit for bit.

    Takes the host the memory of what trains (of this process's share of it) unless `dtype` is float32.
    """
    kept = [(part, part.to("cpu", copy=True)) for part in _to_round(model, dtype)]
    round_weights(model, dtype)
    try:
        yield
    finally:
        for part, before in kept:
            part.copy_(before)


@contextmanager
def held_in(model: Any, name: str) -> Iterator[None]:
    """Inside, float32 weights that the dtype of this name holds exactly are of it, to be saved so; afterwards float32 again."""
    dtype = getattr(torch, name)
    wide = [parameter for parameter in model.parameters() if dtype != torch.float32 and parameter.dtype == torch.float32]
    named = getattr(model.config, "dtype", None)
    exact = [parameter for parameter in wide if torch.equal(parameter.data.to(dtype).float(), parameter.data)]
    for parameter in exact:
        parameter.data = parameter.data.to(dtype)
    try:
        yield
    finally:
        for parameter in exact:
            parameter.data = parameter.data.float()
        if wide:
            model.config.dtype = named  # saving has set it


def _to_round(model: Any, dtype: Any) -> list[Tensor]:
    """The values, or this process's share of them, of what trains and would be saved in `dtype`."""
    kept_wide = getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    with torch.no_grad():  # a share that knows of gradients cannot be written to
        return [
            parameter.to_local() if hasattr(parameter, "to_local") else parameter.data
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
            and parameter.dtype == torch.float32 != dtype
            and not any(part in name for part in kept_wide)
        ]

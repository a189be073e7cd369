"""Where the arithmetic runs, and in which precision."""

import time
import warnings
from functools import cache
from typing import Any

import torch

from ktodata.errors import SettingError
from ktodata.models import first_line

WORTH_A_WARNING = 3.0  # a small product on a busy machine is timed no better


def pick_device(name: str) -> Any:
    """The torch device. Raises SettingError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"device {name!r} cannot be used: {first_line(error)}") from error
    return device


def pick_dtype(name: str, device: Any) -> Any:
    """The dtype of the arithmetic; weights are float32 either way, so small updates are not rounded away."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name == "bfloat16" and device.type == "cpu" and (cost := cost_of_bfloat16()) > WORTH_A_WARNING:
        warnings.warn(
            f"dtype bfloat16: on this processor a product takes {cost:.0f} times as long in it as in float32, which is exacter, "
            "too. Leave dtype out: auto is float32 on a CPU.",
            stacklevel=2,
        )
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


@cache
def cost_of_bfloat16() -> float:
    """How many times as long a small product takes this CPU in bfloat16 as in float32: below 1 where it has units for it."""
    return _seconds(torch.bfloat16) / _seconds(torch.float32)


def _seconds(dtype: Any) -> float:
    """Of the fastest of three products, after one that warms up."""
    left, right = torch.ones(64, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
    times = []
    for _ in range(4):
        started = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - started)
    return min(times[1:])


def device_name(device: Any) -> str:
    """The GPU's own name, as kernels and rounding differ between kinds; of another device its type."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else str(device.type)

"""Where the arithmetic runs, and in which precision."""

from typing import Any

import torch

from ktodata.errors import SettingError
from ktodata.models import first_line


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
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def device_name(device: Any) -> str:
    """The GPU's own name, as kernels and rounding differ between kinds; of another device its type."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else str(device.type)

"""What is done when memory runs out: the same again in smaller passes."""

import gc
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from ktodata.errors import is_out_of_memory
from ktodata.models import first_line

Result = TypeVar("Result")


def within_memory(compute: Callable[[int], Result], tokens: int, *, lengths: Sequence[int]) -> tuple[Result, int]:
    """(what `compute` gives when it is told how many tokens a pass may have, that number): `tokens`, or half as often as need be.

    lengths : tokens of each sequence; where the longest alone is too much, the error is raised. `compute` must leave nothing
    behind when it fails, and compute the same however it is cut.
    """
    size, refused = tokens, ""
    while True:
        try:
            result = compute(size)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or size <= max(lengths):
                raise
            refused = first_line(error)
        # only here, without the error, nothing holds what the failed pass had in memory
        size = max(min(size, sum(lengths)) // 2, *lengths)
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()
    if refused:
        warnings.warn(
            f"memory ran out ({refused}): passes have {size:,} tokens at most from now on, not {tokens:,}. The numbers are the "
            "same, to rounding.",
            stacklevel=2,
        )
    return result, size

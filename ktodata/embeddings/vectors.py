"""Vectors of length 1, whose products are cosines."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floating = TypeVar("Floating", bound=np.floating)

BLOCK = 16_384


def of_unit_length(vectors: NDArray[Floating], *, shortest: float = 0.0) -> NDArray[Floating]:
    """Rows scaled to length 1: [N, D]. All zero where they are not finite, or no longer than `shortest`."""
    clean = np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, vectors.dtype.type(0))
    length = np.linalg.norm(clean, axis=1, keepdims=True)
    return np.asarray(np.divide(clean, length, out=np.zeros_like(clean), where=length > shortest))


def without_mean(vectors: NDArray[Floating], mean: NDArray[Floating], *, shortest: float = 0.0) -> NDArray[Floating]:
    """Vectors [N, D] without the mean, of length 1 again as `of_unit_length` does it; block by block, as each step is a copy."""
    made = np.empty_like(vectors)
    for start in range(0, len(vectors), BLOCK):
        made[start : start + BLOCK] = of_unit_length(vectors[start : start + BLOCK] - mean, shortest=shortest)
    return made

"""Vectors of length 1, whose products are cosines."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floating = TypeVar("Floating", bound=np.floating)


def of_unit_length(vectors: NDArray[Floating], *, shortest: float = 0.0) -> NDArray[Floating]:
    """Rows scaled to length 1: [N, D]. All zero where they are not finite, or no longer than `shortest`."""
    clean = np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, vectors.dtype.type(0))
    length = np.linalg.norm(clean, axis=1, keepdims=True)
    return np.asarray(np.divide(clean, length, out=np.zeros_like(clean), where=length > shortest))

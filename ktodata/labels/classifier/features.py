"""What a row looks like to the out-of-fold models: both embeddings, how they relate, and the surface of the text."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Places = slice | Ints

MAX_FITTED = 30_000  # rows that components and models are found on, at most; all are predicted


def fitted_rows(fit_rows: Bools) -> Ints | None:
    """MAX_FITTED of `fit_rows` drawn at random, ascending, the same for every feature set; None where there are no more."""
    rows = np.flatnonzero(fit_rows)
    if len(rows) <= MAX_FITTED:
        return None
    return np.sort(np.random.default_rng(0xF17).permutation(rows)[:MAX_FITTED])


def surface_features(feedback: pl.DataFrame) -> Floats:
    """Length and form of prompt and completion, no meaning: float32 [N, 11], finite for any text."""
    prompt, completion = pl.col("prompt"), pl.col("completion")
    chars, words = completion.str.len_chars(), completion.str.count_matches(r"\S+") + 1

    def per_char(pattern: str) -> pl.Expr:
        return completion.str.count_matches(pattern) / (chars + 1)

    features = feedback.select(
        prompt_chars=prompt.str.len_chars().log1p(),
        completion_chars=chars.log1p(),
        completion_words=words.log(),
        word_length=(chars / words).log1p(),
        lines=completion.str.count_matches("\n", literal=True).log1p(),
        digits=per_char(r"[0-9]"),
        capitals=per_char(r"\p{Lu}"),
        beyond_ascii=per_char(r"[^\x00-\x7f]"),
        marks=per_char(r"[^\w\s]"),
        asks=completion.str.contains("?", literal=True).cast(pl.Float64),
        finished=completion.str.contains(r"[.!?…。\"')\]}`]\s*$").cast(pl.Float64),
    )
    return features.to_numpy().astype(np.float32)


@dataclass(frozen=True)
class Projection:
    """How any row becomes components: features(places) @ axes + shift.

    features : float32 [places, m], of a slice of rows or of their numbers
    axes : float32 [m, k]; shift : float32 [k]
    """

    features: Callable[[Places], Floats]
    axes: Floats
    shift: Floats


@dataclass(frozen=True)
class Components:
    """Rows as principal components, largest first.

    values : float32 [N, k]; of `rows` only, where that is not None
    energy : float [k], the sum of squares of each column over the rows that the components were found on
    rows : int, the rows that `values` are of; all are projected when they are asked for, as a million would fill the memory
    projection : how; None where nobody asks
    """

    values: Floats
    energy: NDArray[np.float64]
    rows: Ints | None = None
    projection: Projection | None = None

    def scores(self, weights: NDArray[np.float64], intercepts: NDArray[np.float64]) -> Callable[[slice], Floats]:
        """What M linear models say of a slice of rows: float32 [rows, M]; weights float [k, M], intercepts float [M]."""
        assert self.projection is not None
        features = self.projection.features
        turned = (self.projection.axes @ weights).astype(np.float32)
        shift = (self.projection.shift @ weights + intercepts).astype(np.float32)
        return lambda part: np.asarray(features(part) @ turned + shift)

"""What a row looks like to the out-of-fold models: both embeddings, how they relate, and the surface of the text."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.embeddings.chunks import joined, map_chunks, one_thread, total

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Places = slice | Ints

COMPONENTS = 512  # principal components kept
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
    explained : share of the standardised features' variance that they hold
    rows : int, the rows that `values` are of; all are projected when they are asked for, as a million would fill the memory
    projection : how; None where nobody asks
    """

    values: Floats
    energy: NDArray[np.float64]
    explained: float
    rows: Ints | None = None
    projection: Projection | None = None

    def scores(self, weights: NDArray[np.float64], intercepts: NDArray[np.float64]) -> Callable[[slice], Floats]:
        """What M linear models say of a slice of rows: float32 [rows, M]; weights float [k, M], intercepts float [M]."""
        assert self.projection is not None
        features = self.projection.features
        turned = (self.projection.axes @ weights).astype(np.float32)
        shift = (self.projection.shift @ weights + intercepts).astype(np.float32)
        return lambda part: np.asarray(features(part) @ turned + shift)


def principal_components(
    prompts: Floats, completions: Floats, surface: Floats, *, fit_rows: Bools, components: int = COMPONENTS
) -> Components:
    """Standardise [p, c, |p - c|, p * c, surface] and keep the leading components; no label is looked at.

    prompts, completions : float32 [N, d] embeddings
    surface : float32 [N, m], surface features
    fit_rows : bool [N], the rows that mean, scale and components are found on; the others are only projected

    The 4 d + m wide table is made a chunk at a time and never held whole.
    """
    sample = fitted_rows(fit_rows)
    n = len(surface) if sample is None else len(sample)

    def wide(part: Places) -> Floats:
        p, c = prompts[part], completions[part]
        joined = np.hstack([p, c, np.abs(p - c), p * c, surface[part]])
        return np.asarray(np.nan_to_num(joined, copy=False, posinf=0, neginf=0))

    def fitted(part: slice) -> Floats:
        return wide(part)[fit_rows[part]] if sample is None else wide(sample[part])

    count = max(int(fit_rows.sum()) if sample is None else n, 1)
    mean = total(map_chunks(n, lambda part: fitted(part).sum(axis=0, dtype=np.float64))) / count
    centre = mean.astype(np.float32)
    squares = total(map_chunks(n, lambda part: np.square(fitted(part) - centre).sum(axis=0, dtype=np.float64)))
    deviation = np.sqrt(squares / count)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6).astype(np.float32)

    def second_moment(part: slice) -> NDArray[np.float64]:
        rows = (fitted(part) - centre) * scale
        return (rows.T @ rows).astype(np.float64)

    moment = total(map_chunks(n, second_moment))
    with one_thread():
        energy, axes = np.linalg.eigh(moment)
    keep = min(components, len(energy), max(count - 1, 1))
    axes = axes[:, ::-1][:, :keep].astype(np.float32)
    leading = np.maximum(energy[::-1][:keep], 0)
    values = joined(n, lambda part: (wide(part if sample is None else sample[part]) - centre) * scale @ axes)
    projection = Projection(lambda part: wide(part) - centre, scale[:, None] * axes, np.zeros(keep, np.float32))
    return Components(values, leading, float(leading.sum() / max(energy.sum(), 1e-12)), sample, projection)

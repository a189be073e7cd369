"""What a row looks like to the out-of-fold models: both embeddings, how they relate, and the form of the text."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Part = TypeVar("Part")

CHUNK = 4096  # rows worked on at once; fixed, so that sums come out the same on any number of cores
COMPONENTS = 512  # principal components kept


def map_chunks(rows: int, work: Callable[[slice], Part]) -> Iterator[Part]:
    """`work` on each CHUNK of `rows`, on all cores, results in order of the rows.

    The matrix library is held to one thread meanwhile: the cores are busy with chunks, and its own split of a sum would depend on
    how many there are.
    """
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slices = [slice(start, min(start + CHUNK, rows)) for start in range(0, rows, CHUNK)]
    with _matrix_library().limit(limits=1), ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(slices), workers):  # a few in flight, so that results do not pile up
            yield from pool.map(work, slices[first : first + workers])


@cache
def _matrix_library() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()  # looks through every loaded library: once is enough


def form_features(feedback: pl.DataFrame) -> Floats:
    """Length and form of prompt and completion, no meaning: float32 [N, 11], finite for any text."""
    prompt, completion = pl.col("prompt"), pl.col("completion")
    chars, words = completion.str.len_chars(), completion.str.count_matches(r"\S+") + 1

    def per_char(pattern: str) -> pl.Expr:
        return completion.str.count_matches(pattern) / (chars + 1)

    made = feedback.select(
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
    return made.to_numpy().astype(np.float32)


@dataclass(frozen=True)
class Components:
    """Rows as principal components, largest first.

    values : float32 [N, k]
    energy : float [k], the sum of squares of each column over the rows that the components were found on
    explained : share of the standardised features' variance that they hold
    """

    values: Floats
    energy: NDArray[np.float64]
    explained: float


def principal_components(
    prompts: Floats, completions: Floats, form: Floats, *, fit_rows: NDArray[np.bool_], components: int = COMPONENTS
) -> Components:
    """Standardise [p, c, |p - c|, p * c, form] and keep the leading components; no label is looked at.

    prompts, completions : float32 [N, d] embeddings
    form : float32 [N, m]
    fit_rows : bool [N], the rows that mean, scale and components are found on; the others are only projected

    The 4 d + m wide table is made a chunk at a time and never held whole.
    """
    n = len(form)

    def wide(part: slice) -> Floats:
        p, c = prompts[part], completions[part]
        joined = np.hstack([p, c, np.abs(p - c), p * c, form[part]])
        return np.asarray(np.nan_to_num(joined, posinf=0, neginf=0))

    count = max(int(fit_rows.sum()), 1)
    mean = _total(map_chunks(n, lambda part: wide(part)[fit_rows[part]].sum(axis=0, dtype=np.float64))) / count
    centre = mean.astype(np.float32)
    squares = _total(map_chunks(n, lambda part: np.square(wide(part)[fit_rows[part]] - centre).sum(axis=0, dtype=np.float64)))
    deviation = np.sqrt(squares / count)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6).astype(np.float32)

    def standard(part: slice) -> Floats:
        return np.asarray((wide(part) - centre) * scale)

    def second_moment(part: slice) -> NDArray[np.float64]:
        rows = standard(part)[fit_rows[part]]
        return (rows.T @ rows).astype(np.float64)

    energy, axes = np.linalg.eigh(_total(map_chunks(n, second_moment)))
    keep = min(components, len(energy), max(count - 1, 1))
    axes = axes[:, ::-1][:, :keep].astype(np.float32)
    kept = np.maximum(energy[::-1][:keep], 0)
    values = np.vstack(list(map_chunks(n, lambda part: standard(part) @ axes)))
    return Components(values, kept, float(kept.sum() / max(energy.sum(), 1e-12)))


def _total(parts: Iterator[NDArray[np.float64]]) -> NDArray[np.float64]:
    total = next(parts).copy()
    for part in parts:
        total += part
    return total

"""Sums in one order: results that do not change in the last bit with the number of cores."""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import lru_cache
from itertools import pairwise, starmap
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ktodata.meter import cores

Floats = NDArray[np.float32]
Part = TypeVar("Part")

CHUNK = 1024  # rows worked on at once, at most: they fit the cache, and sums are the same on any number of cores


def one_thread() -> AbstractContextManager[object]:
    """Inside it, BLAS and OpenMP (numpy products, scikit-learn) use one thread."""
    limits: AbstractContextManager[object] = _matrix_libraries(len(sys.modules)).limit(limits=1)
    return limits


def map_chunks(rows: int, work: Callable[[slice], Part]) -> Iterator[Part]:
    """`work` on each CHUNK of `rows`, on all cores, results in order of the rows.

    The matrix library is held to one thread meanwhile: the cores are busy with chunks, and its own split of a sum would depend on
    how many there are.
    """
    workers = cores()
    # of one length: of 1,200 rows the second chunk would else be a sixth of the first, and one core would wait for the other
    edges = np.linspace(0, rows, -(-rows // CHUNK) + 1).astype(int).tolist()
    slices = list(starmap(slice, pairwise(edges)))
    if len(slices) < 2 or workers < 2:  # starting threads for it takes longer than the work
        with one_thread():
            yield from map(work, slices)
        return
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Part]] = deque()
        for chunk in slices:
            waiting.append(pool.submit(work, chunk))
            if len(waiting) > 2 * workers:  # a few in flight, so that no core waits and results do not pile up
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@lru_cache(1)
def _matrix_libraries(modules: int) -> Any:
    """Of as many loaded `modules`. Every loaded library is looked through, which need not be done again before an import."""
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def joined(count: int, work: Callable[[slice], Floats], *, dtype: Any = np.float32) -> Floats:
    """`work` on every chunk of `count` rows, one below the other."""
    parts = map_chunks(count, work)
    if (first := next(parts, None)) is None:
        return work(slice(0, 0))
    made: Floats = np.empty((count, first.shape[1]), dtype)
    made[: len(first)], at = first, len(first)
    for part in parts:
        made[at : at + len(part)] = part
        at += len(part)
    return made


def total(parts: Iterator[NDArray[np.float64]]) -> NDArray[np.float64]:
    total = next(parts).copy()
    for part in parts:
        total += part
    return total

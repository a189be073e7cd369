"""Vectors that are not there yet: made part by part wherever the engine runs them, and kept on disk as they come."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ktodata.embeddings.vector_cache import FILE_ROWS, Vectors, store_vectors
from ktodata.engines.engine import ModelWork, current_engine
from ktodata.work_done import WorkDone

Lines = NDArray[np.int64]
# work that a kill may cost; a file for each part would be thousands, and each is looked into by every later run
STORE_EVERY_S = 20.0


class VectorStore:
    """Stores lines of `vectors` under their keys, in a file now and then, and what is left at the end, whatever ended it.

    folder : of the cache; None: nothing is kept
    """

    def __init__(self, folder: Path | None, keys: Sequence[str], vectors: Vectors) -> None:
        self._folder, self._keys, self._vectors = folder, keys, vectors
        self._lines: list[int] = []
        self._stored_at = time.monotonic()

    def __enter__(self) -> "VectorStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._store()

    def add(self, lines: Lines) -> None:
        """These lines are made."""
        self._lines += lines.tolist()
        if time.monotonic() - self._stored_at >= STORE_EVERY_S:
            self._store()

    def _store(self) -> None:
        lines, self._lines = self._lines, []
        if self._folder is not None:
            for start in range(0, len(lines), FILE_ROWS):  # a file at a time, as its vectors are copied
                part = lines[start : start + FILE_ROWS]
                store_vectors(self._folder, [self._keys[line] for line in part], self._vectors[part])
        self._stored_at = time.monotonic()


def make_vectors(
    vectors: Vectors,
    lines: Lines,
    items: Sequence[Any],
    work: ModelWork,
    store: VectorStore,
    *,
    part_size: int,
    unit: str,
    size_of: Callable[[Any], int],
) -> None:
    """Put the work's vectors of the items into these lines of `vectors`; each part is `part_size` of them, in their order.

    lines : int64 [m], of items and of vectors; their order must hang on what the items hold alone. unit, size_of : in what the
    work is counted, and how much of it an item is
    A work that goes on after a kill has the parts that it would have had, as they are kept in that order.
    """
    parts = [lines[start : start + part_size] for start in range(0, len(lines), part_size)]
    done = WorkDone(unit, sum(size_of(items[line]) for line in lines))
    results = current_engine().map(work, ([items[line] for line in part] for part in parts))
    with store, closing(results):
        for part, made in zip(parts, results, strict=True):
            vectors[part] = made
            store.add(part)
            done.add(sum(size_of(items[line]) for line in part))

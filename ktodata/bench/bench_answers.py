"""A method's part, checked: which rows it has reviewed, and what it answers. All are measured on the same rows and reviews."""

from typing import Any

import numpy as np

from ktodata.bench.bench_methods import BenchMethod, BenchTask
from ktodata.bench.bench_rows import BenchRows, Bools
from ktodata.errors import SettingError


def reviewed_rows(method: BenchMethod, rows: BenchRows, count: int, seed: int) -> Bools:
    """Bool [N]: the rows that the method has reviewed, `count` of them. Raises SettingError where it chooses any other number."""
    nobody = np.zeros(len(rows.labels), bool)
    reviewed = nobody.copy()
    if count:
        reviewed[_places(method, method.choose(BenchTask.of(rows, nobody, seed), count), len(nobody))] = True
        if reviewed.sum() != count:
            raise SettingError(f"bench: {method.name!r} chose {reviewed.sum():,} different rows to review; it has {count:,}.")
    return reviewed


def _places(method: BenchMethod, chosen: Any, rows: int) -> Any:
    """What `choose` gave, as places of rows: a mask would be one, too, and count from the end what is negative."""
    places = np.asarray(chosen)
    if (
        places.ndim != 1
        or not np.issubdtype(places.dtype, np.integer)
        or (places.size and not 0 <= places.min() <= places.max() < rows)
    ):
        raise SettingError(f"bench: {method.name!r} chose rows to review by no places: whole numbers, 0 to {rows - 1:,}.")
    return places

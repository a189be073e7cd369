"""A method's part, checked: which rows it has reviewed, and what it answers. All are measured on the same rows and reviews."""

import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ktodata.bench.bench_cells import BenchCell
from ktodata.bench.bench_methods import BenchAnswer, BenchMethod, BenchTask
from ktodata.bench.bench_rows import BenchRows, Bools
from ktodata.errors import KtodataError, SettingError
from ktodata.formats.records import clip


class NoAnswerError(KtodataError):
    """A method raised, or its reviews or its answer cannot be measured."""


def measured(method: BenchMethod, rows: BenchRows, count: int, seed: int) -> BenchCell:
    """The method with `count` rows reviewed. Raises NoAnswerError, whatever the method raises."""
    try:
        reviewed = reviewed_rows(method, rows, count, seed)
        started = time.process_time()
        answer = method.answer(BenchTask.of(rows, reviewed, seed))
        seconds = time.process_time() - started
        return BenchCell.of(rows, reviewed, checked(method, answer, len(rows.labels)), seconds)
    except Exception as error:  # a method is somebody's code and raises what it likes
        raise NoAnswerError(in_words(error)) from error


def in_words(error: Exception) -> str:
    """An error for the page: ours in its own words, any other with its name and the line that raised it."""
    if isinstance(error, KtodataError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {clip(str(error), 200)} ({Path(last.filename).name}, line {last.lineno})"


def checked(method: BenchMethod, answer: Any, rows: int) -> BenchAnswer:
    """The answer with its values as arrays.

    Raises SettingError for one of another length, or with gaps: it would be measured on fewer rows than others; for a probability
    that is none, and for labels that are no labels.
    """
    if not isinstance(answer, BenchAnswer):
        raise SettingError(f"bench: {method.name!r} gave {type(answer).__name__}; it is a BenchAnswer.")
    arrays: dict[str, Any] = {}
    truths = ("labels", "dropped")
    for name in ("doubt", "p_wrong", *truths):
        if (values := getattr(answer, name)) is None:
            continue
        arrays[name] = array = np.asarray(values)
        kind = "true or false" if name in truths else "finite numbers"
        fits = array.dtype.kind in ("b" if name in truths else "biuf")
        if array.shape != (rows,) or not fits or not np.isfinite(array).all():
            shape = f"of shape {array.shape} and type {array.dtype}"
            raise SettingError(f"bench: {method.name!r} gave {name} {shape}; it is {rows:,} times {kind}.")
        if name == "p_wrong" and not ((array >= 0) & (array <= 1)).all():
            raise SettingError(f"bench: {method.name!r} gave p_wrong {array.min():g} to {array.max():g}; it is 0 to 1.")
    return replace(answer, **{name: array if name in truths else array.astype(float) for name, array in arrays.items()})


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

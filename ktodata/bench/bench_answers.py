"""A method's part, checked: which rows it has reviewed, and what it answers. All are measured on the same rows and reviews."""

import time
import traceback
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
        check_answer(method, answer, len(rows.labels))
        return BenchCell.of(rows, reviewed, answer, seconds)
    except Exception as error:  # a method is somebody's code and raises what it likes
        raise NoAnswerError(in_words(error)) from error


def in_words(error: Exception) -> str:
    """An error for the page: ours in its own words, any other with its name and the line that raised it."""
    if isinstance(error, KtodataError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {clip(str(error), 200)} ({Path(last.filename).name}, line {last.lineno})"


def check_answer(method: BenchMethod, answer: Any, rows: int) -> None:
    """Raise SettingError for an answer of another length, or with gaps: it would be measured on fewer rows than others."""
    if not isinstance(answer, BenchAnswer):
        raise SettingError(f"bench: {method.name!r} gave {type(answer).__name__}; it is a BenchAnswer.")
    for name in ("doubt", "p_wrong", "labels"):
        values = getattr(answer, name)
        if values is not None and (np.shape(values) != (rows,) or not np.isfinite(np.asarray(values, float)).all()):
            raise SettingError(f"bench: {method.name!r} gave {name} of shape {np.shape(values)}; it is {rows:,} finite numbers.")


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

"""How far the review has come: what each reviewer said, and what the random draw says of the labels so far."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.formats.verdicts.verdict_store import VERDICTS
from ktodata.stats import Interval, share_of_draw


@dataclass(frozen=True)
class Tally:
    """One reviewer's verdicts that stand, by kind; seconds is the median that a row took, None where it was not measured."""

    reviewer: str
    rows: int
    verdicts: dict[str, int]
    blind: int
    seconds: float | None


@dataclass(frozen=True)
class DrawnRows:
    """Of one given label, the rows drawn at random that were settled so far: how many of them were wrong, exact interval.

    contested : drawn rows with a verdict and no label, which the ends of the interval take for right and for wrong
    """

    given: str
    settled: int
    wrong: Interval
    contested: int


@dataclass(frozen=True)
class MovedLabels:
    """Settled rows of one given label, and how many of them a person gave the other label, or no label at all."""

    given: str
    settled: int
    turned: int
    taken_out: int


def moved_labels(settled: pl.DataFrame) -> list[MovedLabels]:
    """What verdicts did to the labels, drawn rows or not. settled : as for `drawn_so_far`."""
    lines = []
    for label, given in ((True, "desirable"), (False, "undesirable")):
        rows = settled.filter(pl.col("label") == label)
        counts = dict(rows["verdict"].value_counts().iter_rows())
        lines.append(MovedLabels(given, rows.height, counts.get("flip", 0), counts.get("drop", 0) + counts.get("contested", 0)))
    return lines


def tallies(current: pl.DataFrame) -> list[Tally]:
    """One line a reviewer, the one with most verdicts first. current : as the store gives it."""
    counted = current.group_by("reviewer").agg(
        pl.len(),
        pl.col("blind").sum(),
        pl.col("seconds").median(),
        *((pl.col("verdict") == word).sum().alias(word) for word in VERDICTS),
    )
    return [
        Tally(row["reviewer"], row["len"], {word: row[word] for word in VERDICTS}, row["blind"], row["seconds"])
        for row in counted.sort("len", "reviewer", descending=[True, False]).iter_rows(named=True)
    ]


def drawn_so_far(settled: pl.DataFrame, row_ids: pl.Series, drawn: NDArray[np.bool_], sizes: dict[bool, int]) -> list[DrawnRows]:
    """The error rate of each given label among the settled rows of the random draw, with the interval that the run gives it.

    settled : one verdict a row, as verdict_store.verdict_per_row gives it. row_ids, drawn : of all rows, bool [N]
    sizes : rows of each given label that could be drawn
    """
    names = row_ids.filter(pl.Series(drawn))
    judged = settled.filter(pl.col("row_id").is_in(names.implode()))
    lines = []
    for label, given in ((True, "desirable"), (False, "undesirable")):
        rows = judged.filter(pl.col("label") == label)
        count = {word: int((rows["verdict"] == word).sum()) for word in VERDICTS}
        settled_rows, contested = count["keep"] + count["flip"], count["contested"]
        rate = share_of_draw(count["flip"], settled_rows, contested, max(sizes[label], settled_rows + contested))
        lines.append(DrawnRows(given, settled_rows, rate, contested))
    return lines

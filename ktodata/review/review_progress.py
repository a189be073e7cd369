"""How far the review has come: what each reviewer said, and what the random draw says of the labels so far."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ktodata.errors import DataError
from ktodata.formats.verdicts.reviews import join_reviews, read_reviews
from ktodata.formats.verdicts.verdict_store import VERDICTS
from ktodata.labels.label_rows import label_rows
from ktodata.labels.label_words import ReviewedLabels, reviewed_labels
from ktodata.labels.people.trusted import CONTESTED, DRAW_SEED, reviewed_metrics
from ktodata.pipeline.audit import LabelAudit

# what a verdict finds its row by, and what says whether the row is one that could be drawn
JUDGED_BY = ("row_id", "source_id", "prompt", "completion", "label", "votes", "part", "state", "trusted_label")


@dataclass(frozen=True)
class Tally:
    """One reviewer's verdicts that stand, by kind; seconds is the median that a row took, None where it was not measured."""

    reviewer: str
    rows: int
    verdicts: dict[str, int]
    blind: int
    seconds: float | None


@dataclass(frozen=True)
class MovedLabels:
    """Settled rows of one given label, and how many of them a person gave the other label, or no label at all."""

    given: str
    settled: int
    turned: int
    taken_out: int


def moved_labels(settled: pl.DataFrame) -> list[MovedLabels]:
    """What verdicts did to the labels, drawn rows or not. settled : one verdict a row, as verdict_per_row gives it."""
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


def labels_so_far(audit: LabelAudit, store: Path) -> ReviewedLabels:
    """What all verdicts of a store say of the labels: as the run will say it when it is given them, whoever judged, and when.

    The rates are of every judged row of the random draw, not of those that one sitting asked about.
    """
    rows = audit.table.select(name for name in (*JUDGED_BY, CONTESTED, DRAW_SEED) if name in audit.table.columns)
    with suppress(DataError):  # of verdicts that are on no row of the audit nothing follows
        joined = join_reviews(rows, read_reviews(store))
        dropped = joined.decisions.filter(pl.col("action") == "drop")["row_id"]
        rows = rows.drop(joined.columns.columns[1:], strict=False).join(joined.columns, on="row_id", maintain_order="left")
        rows = rows.filter(~pl.col("row_id").is_in(dropped.implode()))
    # the models of the labels say nothing here
    vouched = bool(audit.settings.get("trusted_at_random", False))
    marked = label_rows(rows, neighbours=0, all_at_random=vouched, seed=audit.seed).table
    metrics = reviewed_metrics(marked.with_columns(label_quality=pl.lit(float("nan")), flagged=pl.lit(value=False)))
    return reviewed_labels(metrics | {"vouched_at_random": vouched})

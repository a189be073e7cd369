"""How often each rater is right on rows that somebody trusted has judged: no assumption on how raters err."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ktodata.labels.people.trusted import RATES_SCHEMA
from ktodata.stats import clopper_pearson

MIN_JUDGED = 5  # reviewed rows of one class that a rater has judged
LEVEL = 0.95


def confusions_by_reviews(rows: pl.DataFrame, votes: pl.DataFrame) -> pl.DataFrame:
    """rater, sensitivity and specificity with 95 % intervals; null where fewer than MIN_JUDGED rows tell.

    rows : row_id, label, trusted_label, drawable, drawn (reviewed because a random draw said so; others stand for nothing),
        undecided (of the draw, but without a trusted label)
    votes : row_id, rater, verdict
    The draw takes more of the rarer label, so a drawn row stands for more of one label than of the other, and one wrong vote that
    no drawn row shows may be many. What a rater said is known of every row: so the rows with one label and one vote of his are a
    part of known size with a random draw of its own, and its ends are exact. They hold together at LEVEL (Bonferroni), and so do
    those of right votes / (right + wrong ones). A part without a drawn row may hold any share.
    """
    parts = _parts(rows, votes)
    sensitivity, specificity = _rates(parts, "sensitivity", "good"), _rates(parts, "specificity", "bad")
    table = parts.filter(pl.col("drawn") > 0).select("rater").unique(maintain_order=True)
    table = table.join(sensitivity, on="rater", how="left", maintain_order="left")
    return table.join(specificity, on="rater", how="left", maintain_order="left")


def wrong_by_rater(rows: pl.DataFrame, votes: pl.DataFrame) -> pl.DataFrame:
    """As `trusted_rates` gives it: of each rater's own votes of either kind those on drawn rows, and how many of them are wrong.

    Of a text that several judged dedupe keeps one record, whose rater need not have said what most said. The rate is of all rows
    that the rater judged so; the interval is exact, as in `confusions_by_reviews`.
    """
    parts = _parts(rows, votes)
    own = (pl.col("rater"), pl.col("verdict"))
    parts = _with_ends(parts, pl.when("verdict").then("bad").otherwise("good"), own)
    of_seen = [pl.col(name).filter(pl.col("drawn") > 0).sum() for name in ("value", "rows")]
    table = parts.group_by(value=pl.col("rater"), given=pl.col("verdict")).agg(
        by=pl.lit("rater"),
        rows=pl.col("drawn").sum(),
        wrong=pl.col("hits").sum(),
        undecided=pl.col("undecided").sum(),
        error_rate=of_seen[0] / of_seen[1],
        error_low=pl.col("low").sum() / pl.col("rows").sum(),
        error_high=pl.col("high").sum() / pl.col("rows").sum(),
    )
    return table.filter(pl.col("rows") > 0).select(RATES_SCHEMA.names()).cast(RATES_SCHEMA).sort("value", "given")


def _parts(rows: pl.DataFrame, votes: pl.DataFrame) -> pl.DataFrame:
    """rater, label, verdict: how many rows, how many of them drawn, and of these good and bad ones, and how many undecided."""
    reviewed = rows.filter("drawable").select("row_id", "label", "trusted_label", "drawn", "undecided")
    judged = votes.drop_nulls("rater").join(reviewed, on="row_id")
    drawn, good = pl.col("drawn").sum(), (pl.col("drawn") & pl.col("trusted_label")).sum()
    return judged.group_by("rater", "label", "verdict", maintain_order=True).agg(
        rows=pl.len(), drawn=drawn, good=good, bad=drawn - good, undecided=pl.col("undecided").sum()
    )


def _with_ends(parts: pl.DataFrame, hits: pl.Expr, together: Sequence[pl.Expr]) -> pl.DataFrame:
    """Add hits, and how many the whole part has: value and its ends, which hold at LEVEL for all parts with one of `together`."""
    open_parts = pl.max_horizontal((pl.col("rows") > pl.col("drawn")).sum().over(together), 1)
    parts = parts.with_columns(hits=hits, level=1 - (1 - LEVEL) / open_parts)
    of, drawn, rows, undecided, level = (parts[name].to_numpy() for name in ("hits", "drawn", "rows", "undecided", "level"))
    low = np.maximum(rows * clopper_pearson(of, drawn + undecided, level=level)[0], of)
    high = np.minimum(rows * clopper_pearson(of + undecided, drawn + undecided, level=level)[1], rows - drawn + of)
    return parts.with_columns(value=pl.Series(rows * of / np.maximum(drawn, 1)), low=pl.Series(low), high=pl.Series(high))


def _rates(parts: pl.DataFrame, name: str, of_class: str) -> pl.DataFrame:
    """Each rater's rate with its ends. of_class : "good" or "bad", how many drawn rows of each part are of that class"""
    right = pl.col("verdict") if of_class == "good" else ~pl.col("verdict")
    sums = {
        f"{side}_{end}": pl.col(end).filter(of_side).sum()
        for side, of_side in (("right", right), ("wrong", ~right))
        for end in ("value", "low", "high")
    }
    of_raters = _with_ends(parts, pl.col(of_class), (pl.col("rater"),)).group_by("rater")
    enough = of_raters.agg(pl.col("hits").sum(), **sums).filter(pl.col("hits") >= MIN_JUDGED)
    ends = {name: ("value", "value"), f"{name}_low": ("low", "high"), f"{name}_high": ("high", "low")}
    share = {end: pl.col(f"right_{of}") / (pl.col(f"right_{of}") + pl.col(f"wrong_{other}")) for end, (of, other) in ends.items()}
    return enough.select("rater", **share)

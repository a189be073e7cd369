"""How often each rater is right on rows that somebody trusted has judged: no assumption on how raters err."""

import numpy as np
import polars as pl

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
    reviewed = rows.filter("drawable").select("row_id", "label", "trusted_label", "drawn", "undecided")
    judged = votes.drop_nulls("rater").join(reviewed, on="row_id")
    drawn, good = pl.col("drawn").sum(), (pl.col("drawn") & pl.col("trusted_label")).sum()
    parts = judged.group_by("rater", "label", "verdict", maintain_order=True).agg(
        rows=pl.len(), drawn=drawn, good=good, bad=drawn - good, undecided=pl.col("undecided").sum()
    )
    sensitivity, specificity = _rates(parts, "sensitivity", "good"), _rates(parts, "specificity", "bad")
    table = parts.filter(pl.col("drawn") > 0).select("rater").unique(maintain_order=True)
    table = table.join(sensitivity, on="rater", how="left", maintain_order="left")
    return table.join(specificity, on="rater", how="left", maintain_order="left")


def _rates(parts: pl.DataFrame, name: str, of_class: str) -> pl.DataFrame:
    """Each rater's rate with its ends. of_class : "good" or "bad", how many drawn rows of each part are of that class"""
    open_parts = pl.max_horizontal((pl.col("rows") > pl.col("drawn")).sum().over("rater"), 1)
    level = 1 - (1 - LEVEL) / parts.select(open_parts.alias("open")).to_series().to_numpy()
    hits, known, rows = (parts[column].to_numpy() for column in (of_class, "drawn", "rows"))
    unknown = parts["undecided"].to_numpy()
    low = np.maximum(rows * clopper_pearson(hits, known + unknown, level=level)[0], hits)
    high = np.minimum(rows * clopper_pearson(hits + unknown, known + unknown, level=level)[1], rows - known + hits)
    value = rows * hits / np.maximum(known, 1)
    right = pl.col("verdict") if of_class == "good" else ~pl.col("verdict")
    sums = {
        f"{side}_{end}": pl.col(end).filter(of_side).sum()
        for side, of_side in (("right", right), ("wrong", ~right))
        for end in ("value", "low", "high")
    }
    rates = parts.with_columns(value=pl.Series(value), low=pl.Series(low), high=pl.Series(high)).group_by("rater")
    enough = rates.agg(pl.col(of_class).sum().alias("n"), **sums).filter(pl.col("n") >= MIN_JUDGED)
    ends = {name: ("value", "value"), f"{name}_low": ("low", "high"), f"{name}_high": ("high", "low")}
    share = {end: pl.col(f"right_{of}") / (pl.col(f"right_{of}") + pl.col(f"wrong_{other}")) for end, (of, other) in ends.items()}
    return enough.select("rater", **share)

"""How often each rater is right on texts that somebody trusted has judged: no assumption on how raters err."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ktodata.labels.people.trusted import CONTESTED, RATES_SCHEMA, random_sample
from ktodata.stage import HELD, KEPT
from ktodata.stats import clopper_pearson

MIN_JUDGED = 5  # reviewed rows of one class that a rater has judged
LEVEL = 0.95


def texts_of_raters(table: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """What raters are measured on: row_id, label, trusted_label, votes, drawn, undecided.

    Training rows that could be drawn, and each text that waits for a person, or did until a verdict settled it, once: raters
    differ on these, so without them all would look better than they are. They have no label; drawn are those judged as the
    beginning of `draw_order`, in which they are asked about.
    table : of LabelRows
    """
    text, columns = ["prompt", "completion"], ("row_id", "label", "trusted_label", "votes", "drawn", "undecided")
    rows = table.with_columns(votes="pooled_votes")
    could_be_drawn = rows.filter("drawable")
    waits = pl.col("state").is_in([HELD, *KEPT]) | pl.col(CONTESTED).fill_null(value=False)
    waiting = rows.filter(~pl.col("drawable"), waits, pl.col("part") == "train").join(could_be_drawn, on=text, how="anti")
    trusted = pl.col("trusted_label").drop_nulls()
    of_texts = waiting.group_by(text, maintain_order=True).agg(
        pl.col("row_id").min(),
        label=pl.lit(None, pl.Boolean),
        trusted_label=pl.when(trusted.n_unique() == 1).then(trusted.first()),
        votes=pl.col("votes").drop_nulls().first(),
        contested=pl.col(CONTESTED).any(),
    )
    judged = of_texts["trusted_label"].is_not_null()
    of_draw = (judged | of_texts["contested"].fill_null(value=False)).to_numpy()
    sample = pl.Series(random_sample(of_texts["row_id"], np.ones(of_texts.height, bool), of_draw, seed), dtype=pl.Boolean)
    of_texts = of_texts.with_columns(drawn=sample & judged, undecided=sample & ~judged)
    return pl.concat([could_be_drawn.select(columns), of_texts.select(columns)])


def confusions_by_reviews(rows: pl.DataFrame, votes: pl.DataFrame) -> pl.DataFrame:
    """rater, sensitivity and specificity with 95 % intervals; null where fewer than MIN_JUDGED rows tell.

    rows : row_id, label (null where it waits), trusted_label, drawn (reviewed because a random draw said so; others stand for
        themselves alone), undecided (of the draw, but without a trusted label)
    votes : row_id, rater, verdict
    The draw takes more of the rarer label, so a drawn row stands for more of one label than of the other, and one wrong vote that
    no drawn row shows may be many. What a rater said is known of every row: so the rows with one label and one vote of his are a
    part of known size with a random draw of its own, and its ends are exact. They hold together at LEVEL (Bonferroni), and so do
    those of right votes / (right + wrong ones). A part without a drawn row may hold any share; where it is one of texts that
    wait, the value is null.
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
    parts = _with_ends(_parts(rows, votes), pl.col("verdict"), (pl.col("rater"), pl.col("verdict")))
    seen = pl.col("rows").filter(pl.col("value").is_null() | (pl.col("drawn") > 0)).sum()
    table = parts.group_by(value=pl.col("rater"), given=pl.col("verdict")).agg(
        by=pl.lit("rater"),
        rows=pl.col("drawn").sum(),
        wrong=pl.col("hits").sum(),
        undecided=pl.col("undecided").sum(),
        error_rate=_sum_if_known("value") / seen,
        error_low=pl.col("low").sum() / pl.col("rows").sum(),
        error_high=pl.col("high").sum() / pl.col("rows").sum(),
    )
    return table.filter(pl.col("rows") > 0).select(RATES_SCHEMA.names()).cast(RATES_SCHEMA).sort("value", "given")


def _parts(rows: pl.DataFrame, votes: pl.DataFrame) -> pl.DataFrame:
    """rater, label, verdict: how many rows, of them drawn, judged good and bad, and of the draw undecided, good and bad."""
    judged = votes.drop_nulls("rater").join(rows.select("row_id", "label", "trusted_label", "drawn", "undecided"), on="row_id")
    good, bad = (side.fill_null(value=False) for side in (pl.col("trusted_label"), ~pl.col("trusted_label")))
    drawn = pl.col("drawn")
    return judged.group_by("rater", "label", "verdict", maintain_order=True).agg(
        rows=pl.len(),
        drawn=drawn.sum(),
        undecided=pl.col("undecided").sum(),
        good=(drawn & good).sum(),
        bad=(drawn & bad).sum(),
        known_good=good.sum(),
        known_bad=bad.sum(),
    )


def _with_ends(parts: pl.DataFrame, of_bad: pl.Expr, together: Sequence[pl.Expr]) -> pl.DataFrame:
    """Add hits, bad rows of the draw where `of_bad`, else good ones, and how many the whole part has: value and its ends.

    They hold at LEVEL for all parts with one of `together`, and hold nothing that other verdicts rule out.
    """
    judged = pl.col("known_good") + pl.col("known_bad")
    is_open = (pl.col("rows") > judged) & (pl.col("drawn") > 0)
    parts = parts.with_columns(
        hits=pl.when(of_bad).then("bad").otherwise("good"),
        least=pl.when(of_bad).then("known_bad").otherwise("known_good"),
        most=pl.col("rows") - pl.when(of_bad).then("known_good").otherwise("known_bad"),
        level=1 - (1 - LEVEL) / pl.max_horizontal(is_open.sum().over(together), 1),
    )
    names = ("hits", "drawn", "rows", "undecided", "level", "least", "most")
    of, drawn, rows, undecided, level, least, most = (parts[name].cast(pl.Float64).to_numpy() for name in names)
    low = np.maximum(rows * clopper_pearson(of, drawn + undecided, level=level)[0], least)
    high = np.minimum(rows * clopper_pearson(of + undecided, drawn + undecided, level=level)[1], most)
    at_odds = low > high
    low, high = np.where(at_odds, least, low), np.where(at_odds, most, high)
    value = pl.Series(np.clip(rows * of / np.maximum(drawn, 1), low, high))
    unseen = pl.col("label").is_null() & (pl.col("drawn") == 0) & (pl.col("least") < pl.col("most"))
    return parts.with_columns(value=pl.when(~unseen).then(value), low=pl.Series(low), high=pl.Series(high))


def _sum_if_known(name: str, of: pl.Expr | None = None) -> pl.Expr:
    values = pl.col(name) if of is None else pl.col(name).filter(of)
    return pl.when(values.null_count() == 0).then(values.sum())


def _rates(parts: pl.DataFrame, name: str, of_class: str) -> pl.DataFrame:
    """Each rater's rate with its ends. of_class : "good" or "bad", how many drawn rows of each part are of that class"""
    right = pl.col("verdict") if of_class == "good" else ~pl.col("verdict")
    sums = {
        f"{side}_{end}": _sum_if_known(end, of_side)
        for side, of_side in (("right", right), ("wrong", ~right))
        for end in ("value", "low", "high")
    }
    of_raters = _with_ends(parts, pl.lit(of_class == "bad"), (pl.col("rater"),)).group_by("rater")
    enough = of_raters.agg(pl.col("hits").sum(), **sums).filter(pl.col("hits") >= MIN_JUDGED)
    ends = {name: ("value", "value"), f"{name}_low": ("low", "high"), f"{name}_high": ("high", "low")}
    share = {end: pl.col(f"right_{of}") / (pl.col(f"right_{of}") + pl.col(f"wrong_{other}")) for end, (of, other) in ends.items()}
    return enough.select("rater", **share)

"""What trusted labels say about the given ones, which rows to ask for when there are none, and which of them measure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from ktodata.labels.people.review_queue import shares
from ktodata.stats import auroc, clopper_pearson, share

NEARLY_ALL = 0.9  # of a random draw; a few rows are skipped because nobody could say
MIN_DRAWN = 10

RATES_SCHEMA = pl.Schema(
    {
        "by": pl.String(),
        "value": pl.String(),
        "given": pl.Boolean(),
        "rows": pl.Int64(),
        "wrong": pl.Int64(),
        "error_rate": pl.Float64(),
        "error_low": pl.Float64(),
        "error_high": pl.Float64(),
    }
)


def trusted_rates(trusted: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Share of wrong labels, with exact intervals: per given class, and per class and value of each column of `by`.

    trusted : label, trusted_label (no nulls) and the columns of `by`
    """
    tables = [_rates(trusted, "label", pl.lit(None, pl.String))]
    tables += [_rates(trusted, name, pl.col(name).cast(pl.String)) for name in by if name in trusted.columns]
    return pl.concat(tables)


def _rates(trusted: pl.DataFrame, by: str, value: pl.Expr) -> pl.DataFrame:
    wrong = (pl.col("label") != pl.col("trusted_label")).sum().cast(pl.Int64)
    table = trusted.group_by(value.alias("value"), given="label").agg(rows=pl.len().cast(pl.Int64), wrong=wrong)
    low, high = clopper_pearson(table["wrong"].to_numpy(), table["rows"].to_numpy())
    return (
        table.with_columns(
            by=pl.lit(by), error_rate=pl.col("wrong") / pl.col("rows"), error_low=pl.Series(low), error_high=pl.Series(high)
        )
        .select(RATES_SCHEMA.names())
        .cast(RATES_SCHEMA)
        .sort("value", "given", nulls_last=True)
    )


def check_flags(trusted: pl.DataFrame, sample: pl.DataFrame, *, given: bool) -> dict[str, Any]:
    """How the labels and the detector did on the trusted rows of one given class, with exact intervals.

    trusted : label, trusted_label, label_quality, flagged
    sample : those of them that were drawn at random; error_rate is theirs
    """
    drawn = sample.filter(pl.col("label") == given)
    rows = trusted.filter(pl.col("label") == given)
    wrong = (rows["label"] != rows["trusted_label"]).to_numpy()
    flagged = rows["flagged"].to_numpy()
    quality = rows["label_quality"].to_numpy()
    known = np.isfinite(quality)
    return {
        "rows": rows.height,
        "drawn_at_random": drawn.height,
        "error_rate": share(int((drawn["label"] != drawn["trusted_label"]).sum()), drawn.height).as_dict(),
        "flag_precision": share(int((wrong & flagged).sum()), int(flagged.sum())).as_dict(),
        "flag_recall": share(int((wrong & flagged).sum()), int(wrong.sum())).as_dict(),
        "auroc": auroc(quality[wrong & known], quality[~wrong & known]).as_dict(),
    }


def flip_rates(given: dict[bool, int], error_rates: dict[bool, float | None]) -> dict[str, float] | None:
    """How often a label of each *true* class was flipped, as `kd.train.fit(flip_rates=...)` takes it; None where it is not known.

    given : rows of each given label. error_rates : share of wrong ones among each given label, in [0, 1]
    With n the rows and e the error rates, n_U e_U of the n_D (1 - e_D) + n_U e_U truly desirable rows are labelled undesirable.
    """
    down, up = error_rates[False], error_rates[True]
    if down is None or up is None:
        return None
    lost, gained = given[False] * down, given[True] * up
    desirable, undesirable = given[True] - gained + lost, given[False] - lost + gained
    if min(desirable, undesirable) <= 0:
        return None
    return {"desirable": lost / desirable, "undesirable": gained / undesirable}


def depths_of_errors(quality: NDArray[np.float64], in_class: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For each known error the share of its given class that looks more doubtful: float [errors], 0 is most doubtful."""
    ordered = np.sort(quality[in_class])
    return np.asarray(np.sort(np.searchsorted(ordered, quality[wrong & in_class], side="left") / max(len(ordered), 1)))


def rows_to_review(rows: pl.DataFrame, *, total: int, seed: int) -> pl.DataFrame:
    """A random sample of `total` rows, shared between the given classes as review_queue.shares says: row_id, label, stands_for,
    shuffled.

    rows : row_id, label
    `stands_for` is how many rows of its class each drawn row stands for: the weight to estimate the whole from.
    """
    ordered = rows[draw_order(rows["row_id"], seed)]
    strata = [ordered.filter(pl.col("label") == given).select("row_id", "label") for given in (False, True)]
    take = shares(strata[0].height, strata[1].height, total)
    drawn = [
        stratum.head(count).with_columns(stands_for=pl.lit(stratum.height / max(count, 1)))
        for stratum, count in zip(strata, take, strict=True)
    ]
    sample = pl.concat(drawn)
    return sample[np.random.default_rng([seed, 0x2EF1E]).permutation(sample.height)]


def draw_order(row_ids: pl.Series, seed: int) -> NDArray[np.int64]:
    """Places of the rows in a random order that each row's id and the seed fix, whatever rows are there: int [N]."""
    numbers = np.array([xxhash.xxh3_64_intdigest(name.encode(), seed=seed) for name in row_ids], dtype=np.uint64)
    return np.argsort(numbers, kind="stable")


def random_sample(row_ids: pl.Series, labels: NDArray[np.bool_], reviewed: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Which reviewed rows were drawn at random, and so may stand for their class: bool [N].

    Within a class rows are drawn in `draw_order`, so its beginning is a random sample; a row further down was reviewed for
    another reason: because it looked doubtful, say. The beginning ends where less than NEARLY_ALL of it is reviewed. With under
    MIN_DRAWN such rows nobody followed the order, and all reviewed rows are taken for a random draw.
    """
    drawn = np.zeros(len(labels), bool)
    if not reviewed.any():
        return drawn
    every = draw_order(row_ids, seed)
    for given in (False, True):
        order = every[labels[every] == given]
        share = np.cumsum(reviewed[order]) / np.arange(1, len(order) + 1)
        ends = np.flatnonzero(reviewed[order] & (share >= NEARLY_ALL))
        drawn[order[: ends[-1] + 1 if len(ends) else 0]] = True
    drawn &= reviewed
    return drawn if drawn.sum() >= MIN_DRAWN else reviewed.copy()


def mark_reviewed(table: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Add, of training rows: reviewed, wrong (by their review), and drawn (they were reviewed because a random draw said so)."""
    reviewed = pl.col("trusted_label").is_not_null() & pl.col("trained")
    table = table.with_columns(reviewed=reviewed, wrong=reviewed & (pl.col("trusted_label") != pl.col("label")).fill_null(False))
    # the draw was made among these rows; held ones and held-out ones would count as drawn and not reviewed
    trained = table.filter("trained").select("row_id", "label", "reviewed")
    sample = random_sample(trained["row_id"], trained["label"].to_numpy(), trained["reviewed"].to_numpy(), seed)
    drawn = trained.select("row_id", drawn=pl.Series(sample))
    return table.join(drawn, on="row_id", how="left", maintain_order="left").with_columns(pl.col("drawn").fill_null(False))

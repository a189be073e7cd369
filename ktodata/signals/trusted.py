"""What trusted labels say about the given ones, and which rows to ask for when there are none."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.signals.intervals import auroc, clopper_pearson, share
from ktodata.signals.review_queue import shares

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


def check_flags(trusted: pl.DataFrame, *, given: bool) -> dict[str, Any]:
    """How the detector did on the trusted rows of one given class, with exact intervals.

    trusted : label, trusted_label, label_quality, flagged
    """
    rows = trusted.filter(pl.col("label") == given)
    wrong = (rows["label"] != rows["trusted_label"]).to_numpy()
    flagged = rows["flagged"].to_numpy()
    quality = rows["label_quality"].to_numpy()
    known = np.isfinite(quality)
    return {
        "rows": rows.height,
        "error_rate": share(int(wrong.sum()), rows.height).as_dict(),
        "flag_precision": share(int((wrong & flagged).sum()), int(flagged.sum())).as_dict(),
        "flag_recall": share(int((wrong & flagged).sum()), int(wrong.sum())).as_dict(),
        "auroc": auroc(quality[wrong & known], quality[~wrong & known]).as_dict(),
    }


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
    rng = np.random.default_rng([seed, 0x2EF1E])
    sizes = {given: int((rows["label"] == given).sum()) for given in (False, True)}
    take = dict(zip((False, True), shares(sizes[False], sizes[True], total), strict=True))
    drawn = []
    for given in (False, True):
        stratum = rows.filter(pl.col("label") == given)
        chosen = np.sort(rng.permutation(stratum.height)[: take[given]])
        drawn.append(stratum[chosen].select("row_id", "label", stands_for=pl.lit(sizes[given] / max(take[given], 1))))
    sample = pl.concat(drawn)
    return sample[rng.permutation(sample.height)]

"""The signals side by side: each row's quality by each of them, how far they agree, and how each did on reviewed rows."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.labels.evidence import Evidence
from ktodata.stats import auroc

Bools = NDArray[np.bool_]

MIN_ROWS = 10  # that two signals must both speak of, for their agreement to be told
AGREEMENT_SCHEMA = pl.Schema(
    {"first": pl.String(), "second": pl.String(), "given": pl.Boolean(), "rows": pl.Int64(), "rank_correlation": pl.Float64()}
)
MEASURED_SCHEMA = pl.Schema(
    {
        "signal": pl.String(),
        "given": pl.Boolean(),
        "reviewed": pl.Int64(),
        "wrong": pl.Int64(),
        "auroc": pl.Float64(),
        "auroc_low": pl.Float64(),
        "auroc_high": pl.Float64(),
    }
)


def signal_table(row_ids: pl.Series, signals: Sequence[Evidence]) -> pl.DataFrame:
    """row_id and one column for each signal: quality, 1 sound .. 0 doubtful, null where it says nothing."""
    return pl.DataFrame({"row_id": row_ids} | {one.name: pl.Series(one.quality).fill_nan(None) for one in signals})


def agreement(signals: Sequence[Evidence], labels: Bools, rows: Bools) -> pl.DataFrame:
    """Spearman's rank correlation of each two signals within each given class: 1 the same order, 0 none, -1 the opposite.

    labels, rows : bool [N]. Two views that err together agree; agreement is no proof of being right.
    """
    lines = []
    for first, second in combinations(signals, 2):
        for given in (False, True):
            both = rows & (labels == given) & first.known & second.known
            pair = pl.DataFrame({"a": first.quality[both], "b": second.quality[both]})
            told = pair.select(pl.corr("a", "b", method="spearman")).item() if pair.height >= MIN_ROWS else None
            lines.append((first.name, second.name, given, pair.height, None if told is None or np.isnan(told) else told))
    return pl.DataFrame(lines, schema=AGREEMENT_SCHEMA, orient="row")


def measured(signals: Sequence[Evidence], labels: Bools, reviewed: Bools, wrong: Bools) -> pl.DataFrame:
    """How each signal ranks known errors among the reviewed rows of one given class: AUROC with its 95 % interval, 0.5 is chance.

    labels, reviewed, wrong : bool [N]; wrong is read on reviewed rows. Null with under two rows of either kind.
    """
    lines = []
    for one in signals:
        for given in (False, True):
            here = reviewed & (labels == given) & one.known
            bad, good = one.quality[here & wrong], one.quality[here & ~wrong]
            lines.append((one.name, given, int(here.sum()), len(bad), *auroc(bad, good)))
    return pl.DataFrame(lines, schema=MEASURED_SCHEMA, orient="row")

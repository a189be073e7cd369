"""The evidence side by side: each row's quality by each piece of it, how far they agree, and how each did on reviewed rows."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.labels.evidence import Evidence
from ktodata.stats import auroc

Bools = NDArray[np.bool_]

MIN_ROWS = 10  # that two pieces must both speak of, for their agreement to be given
AGREEMENT_SCHEMA = pl.Schema(
    {"first": pl.String(), "second": pl.String(), "given": pl.Boolean(), "rows": pl.Int64(), "rank_correlation": pl.Float64()}
)
ON_REVIEWED_SCHEMA = pl.Schema(
    {
        "evidence": pl.String(),
        "given": pl.Boolean(),
        "reviewed": pl.Int64(),
        "wrong": pl.Int64(),
        "auroc": pl.Float64(),
        "auroc_low": pl.Float64(),
        "auroc_high": pl.Float64(),
    }
)


def evidence_table(row_ids: pl.Series, evidence: Sequence[Evidence]) -> pl.DataFrame:
    """row_id and one column for each piece of evidence: quality, 1 sound .. 0 doubtful, null where it says nothing."""
    return pl.DataFrame({"row_id": row_ids} | {piece.name: pl.Series(piece.quality).fill_nan(None) for piece in evidence})


def agreement(evidence: Sequence[Evidence], labels: Bools, rows: Bools) -> pl.DataFrame:
    """Spearman's rank correlation of each two pieces within each given class: 1 the same order, 0 none, -1 the opposite.

    labels, rows : bool [N]. Two that err together agree; agreement is no proof of being right.
    """
    lines = []
    for first, second in combinations(evidence, 2):
        for given in (False, True):
            both = rows & (labels == given) & first.known & second.known
            pair = pl.DataFrame({"a": first.quality[both], "b": second.quality[both]})
            correlation = pair.select(pl.corr("a", "b", method="spearman")).item() if pair.height >= MIN_ROWS else None
            measured = correlation is not None and np.isfinite(correlation)
            lines.append((first.name, second.name, given, pair.height, correlation if measured else None))
    return pl.DataFrame(lines, schema=AGREEMENT_SCHEMA, orient="row")


def evidence_on_reviewed(evidence: Sequence[Evidence], labels: Bools, reviewed: Bools, wrong: Bools) -> pl.DataFrame:
    """How each piece ranks known errors among the reviewed rows of one given class: AUROC with its 95 % interval, 0.5 is chance.

    labels, reviewed, wrong : bool [N]; wrong is read on reviewed rows. Null with under two rows of either kind.
    """
    lines = []
    for piece in evidence:
        for given in (False, True):
            rows = reviewed & (labels == given) & piece.known
            bad, good = piece.quality[rows & wrong], piece.quality[rows & ~wrong]
            lines.append((piece.name, given, int(rows.sum()), len(bad), *auroc(bad, good)))
    return pl.DataFrame(lines, schema=ON_REVIEWED_SCHEMA, orient="row")

"""Where two reviewers judged the same rows: how often they say the same, beyond chance (Cohen's kappa), and where they differ."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.formats.verdicts.verdict_store import verdict_word
from ktodata.stats import Interval, share
from ktodata.stats.bootstrap import bootstrap

MIN_ROWS = 10  # that both judged, for a kappa
RESAMPLES = 1000
UNKNOWN_KAPPA = Interval(None, None, None)


@dataclass(frozen=True)
class Agreement:
    """Two reviewers. agreed: share of rows with one verdict, exact interval; kappa: 1 always, 0 as by chance."""

    first: str
    second: str
    rows: int
    agreed: Interval
    kappa: Interval


def shared_rows(current: pl.DataFrame) -> pl.DataFrame:
    """Rows that several reviewers judged, one line for each two: row_id, first, second, first_says, second_says, notes."""
    worded = current.select("row_id", "reviewer", "note", says=verdict_word(pl.col("verdict"), pl.col("trusted_label")))
    pairs = worded.join(worded, on="row_id", suffix="_of_second", maintain_order="left").filter(
        pl.col("reviewer") < pl.col("reviewer_of_second")
    )
    return pairs.select(
        "row_id",
        first="reviewer",
        second="reviewer_of_second",
        first_says="says",
        second_says="says_of_second",
        first_note="note",
        second_note="note_of_second",
    )


def agreements(current: pl.DataFrame) -> list[Agreement]:
    """Each two reviewers who judged a row in common. current : as the store gives it."""
    shared = shared_rows(current)
    names = sorted(current["reviewer"].unique())
    pairs = []
    for first, second in combinations(names, 2):
        both = shared.filter((pl.col("first") == first) & (pl.col("second") == second))
        if both.height:
            same = int((both["first_says"] == both["second_says"]).sum())
            pairs.append(Agreement(first, second, both.height, share(same, both.height), _kappa(both)))
    return pairs


def disagreements(current: pl.DataFrame) -> pl.DataFrame:
    """The lines of `shared_rows` on which two reviewers differ: such rows are contested, and nobody's label is trusted."""
    return shared_rows(current).filter(pl.col("first_says") != pl.col("second_says"))


def _kappa(both: pl.DataFrame) -> Interval:
    """Cohen's kappa (1960) with a percentile interval over resampled rows; unknown for few rows, or where all say one thing."""
    from sklearn.metrics import cohen_kappa_score

    names = sorted({*both["first_says"], *both["second_says"]})
    if both.height < MIN_ROWS or len(names) < 2:
        return UNKNOWN_KAPPA
    codes = [np.array([names.index(word) for word in both[side]]) for side in ("first_says", "second_says")]
    cells = np.eye(len(names) ** 2)[codes[0] * len(names) + codes[1]]  # [rows, pairs of words]

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        table = (weights @ cells).reshape(len(weights), len(names), len(names))
        table /= table.sum((1, 2), keepdims=True)
        observed = np.einsum("rii->r", table)
        chance = np.einsum("ri,ri->r", table.sum(2), table.sum(1))
        return np.asarray(np.divide(observed - chance, 1 - chance, out=np.full_like(chance, np.nan), where=chance < 1 - 1e-12))

    drawn = bootstrap({"kappa": statistic}, both["row_id"], resamples=RESAMPLES, seed=0)["kappa"]
    return Interval(float(cohen_kappa_score(*codes)), drawn.low, drawn.high)

"""Exact and large-sample intervals for the few numbers that a detector is judged by."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri
from scipy.stats import rankdata

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with the ends of its interval; None where it could not be measured."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def includes_zero(self) -> bool | None:
        """Whether zero is in it, so that a difference is none that can be shown; None where an end is not known."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high

    def as_dict(self) -> dict[str, float | None]:
        """As JSON values."""
        return self._asdict()


def clopper_pearson(hits: ArrayLike, trials: ArrayLike, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Ends of the exact two-sided binomial interval for hits / trials: float arrays in [0, 1]; (0, 1) where there are no trials.

    Source: Clopper and Pearson 1934. It holds the true share in at least `level` of repeated samples.
    """
    hit, trial = np.broadcast_arrays(np.asarray(hits, float), np.asarray(trials, float))
    tail = (1 - level) / 2
    low = np.where(hit > 0, betaincinv(np.maximum(hit, 1), trial - hit + 1, tail), 0.0)
    high = np.where(hit < trial, betaincinv(hit + 1, np.maximum(trial - hit, 1), 1 - tail), 1.0)
    return low, high


def share(hits: int, trials: int, *, level: float = 0.95) -> Interval:
    """The share hits / trials with its exact interval; all None when there are no trials."""
    if not trials:
        return Interval(None, None, None)
    low, high = clopper_pearson(hits, trials, level=level)
    return Interval(hits / trials, float(low), float(high))


def placements(low_scores: ArrayLike, high_scores: ArrayLike) -> tuple[Floats, Floats]:
    """For each low score the share of high scores above it, for each high score the share of low ones below; ties count half.

    The mean of either is the AUROC; with both, its variance is that of DeLong, DeLong and Clarke-Pearson 1988.
    """
    low, high = np.asarray(low_scores, float), np.asarray(high_scores, float)
    ranks = rankdata(np.concatenate([low, high]))
    above = 1 - (ranks[: len(low)] - rankdata(low)) / max(len(high), 1)
    below = (ranks[len(low) :] - rankdata(high)) / max(len(low), 1)
    return above, below


def auroc(low_scores: ArrayLike, high_scores: ArrayLike, *, level: float = 0.95) -> Interval:
    """P(a draw of `low_scores` < a draw of `high_scores`), ties half: in [0, 1], 0.5 is chance.

    All None when either side has under two scores.
    """
    above, below = placements(low_scores, high_scores)
    if min(len(above), len(below)) < 2:
        return Interval(None, None, None)
    variance = float(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))
    return normal_interval(float(above.mean()), variance, level=level)


def normal_interval(value: float, variance: float, *, level: float = 0.95) -> Interval:
    """`value` with its normal interval, cut to [0, 1]."""
    reach = float(ndtri(0.5 + level / 2)) * variance**0.5
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))

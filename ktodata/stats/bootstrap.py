"""Intervals by resampling whole prompt groups: rows that share a prompt are not independent."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ktodata.stats import Interval

Floats = NDArray[np.float64]
# float [R, n] weights of n rows in R resamples -> float [R]; nan where a resample cannot be measured
Statistic = Callable[[Floats], Floats]

# resamples are drawn in blocks of about this many numbers, 32 MB
BLOCK = 4_000_000


def bootstrap(statistics: dict[str, Statistic], groups: ArrayLike, *, resamples: int, seed: int) -> dict[str, Interval]:
    """Each statistic with its 95 % percentile interval, all from the same resamples of groups.

    groups : n values, equal for rows that are drawn together.
    The interval leaves out resamples in which the statistic cannot be measured (one label only). Fewer than some 20 groups give
    intervals that are too short.
    """
    drawn: dict[str, list[Floats]] = {name: [] for name in statistics}
    for weights in group_weights(groups, resamples, np.random.default_rng(seed)):
        for name, statistic in statistics.items():
            drawn[name].append(statistic(weights))
    ones = np.ones((1, len(np.asarray(groups))))
    return {
        name: percentile_interval(float(statistic(ones)[0]), np.concatenate(drawn[name]))
        for name, statistic in statistics.items()
    }


def group_weights(groups: ArrayLike, resamples: int, random: np.random.Generator) -> Iterator[Floats]:
    """How often each of n rows is in each resample of whole groups, in blocks: float [r, n], `resamples` rows in all."""
    number = np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(number.max()) + 1
    size = max(1, BLOCK // len(number))
    for start in range(0, resamples, size):
        drawn = random.multinomial(count, np.full(count, 1 / count), size=min(size, resamples - start))
        yield drawn[:, number].astype(float)


def weighted_mean(values: ArrayLike) -> Statistic:
    """The mean of n values."""
    numbers = np.asarray(values, float)
    return lambda weights: _ratio_or_nan(weights @ numbers, weights.sum(1))


def weighted_gap(values: ArrayLike, labels: ArrayLike) -> Statistic:
    """The mean of true rows minus that of false ones; nan where one label is missing."""
    number, label = np.asarray(values, float), np.asarray(labels, bool)

    def mean(weights: Floats, side: NDArray[np.bool_]) -> Floats:
        return _ratio_or_nan(weights @ (number * side), weights @ side.astype(float))

    return lambda weights: mean(weights, label) - mean(weights, ~label)


def weighted_auc(scores: ArrayLike, labels: ArrayLike) -> Statistic:
    """P(score of a true row > score of a false row), ties half; nan where one label is missing."""
    score, label = np.asarray(scores, float), np.asarray(labels, bool)
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)  # of each run of equal scores
    true = label[order]

    def statistic(weights: Floats) -> Floats:
        ordered = weights[:, order]
        above = np.add.reduceat(ordered * true, starts, axis=1)
        below = np.add.reduceat(ordered * ~true, starts, axis=1)
        beaten = np.cumsum(below, axis=1) - below / 2  # all lower false rows, and half of the equal ones
        return _ratio_or_nan((above * beaten).sum(1), above.sum(1) * below.sum(1))

    return statistic


def weighted_auc_within(scores: ArrayLike, labels: ArrayLike, parts: Sequence[NDArray[np.bool_]]) -> Statistic | None:
    """The AUC among the rows of each part, averaged over parts by their pairs of a true and a false row.

    parts : bool [n] each. Those without both labels say nothing; None where fewer than two say something. In a resample only
    the parts that can be measured count; nan where none can.
    """
    score, label = np.asarray(scores, float), np.asarray(labels, bool)
    rows_of_parts = [np.flatnonzero(part) for part in parts if 0 < label[part].sum() < part.sum()]
    if len(rows_of_parts) < 2:
        return None
    pairs = np.array([label[rows].sum() * (~label[rows]).sum() for rows in rows_of_parts], float)
    each = [weighted_auc(score[rows], label[rows]) for rows in rows_of_parts]

    def statistic(weights: Floats) -> Floats:
        values = np.stack(
            [statistic_of_part(weights[:, rows]) for statistic_of_part, rows in zip(each, rows_of_parts, strict=True)]
        )
        known = np.isfinite(values) * pairs[:, None]
        return _ratio_or_nan((np.nan_to_num(values) * known).sum(0), known.sum(0))

    return statistic


def difference(first: Statistic, second: Statistic) -> Statistic:
    """First - second, on the same resamples: paired."""
    return lambda weights: first(weights) - second(weights)


def _ratio_or_nan(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def percentile_interval(value: float, drawn: Floats) -> Interval:
    """`value` with the middle 95 % of what was drawn; draws that are not finite are left out."""
    measured = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(measured):
        return Interval(None, None, None)
    low, high = np.quantile(measured, [0.025, 0.975])
    return Interval(value, float(low), float(high))

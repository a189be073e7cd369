"""Exact and large-sample intervals for the few numbers that a detector is judged by."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, betaincinv, ndtri
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Pair = tuple[int, int]
GRID, MIN_GRID, BISECTIONS = 33, 9, 15  # shares of one stratum tried for a share of both; halvings of [0, 1] towards its end


class Interval(NamedTuple):
    """An estimate with the ends of its interval; None where it could not be measured."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def includes_zero(self) -> bool | None:
        """Whether zero is in it, so that a difference is none that can be shown; None where an end is not known."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high

    @property
    def is_counted(self) -> bool:
        """Whether nothing is left open, as every row was judged."""
        return self.low is not None and self.low == self.high

    def as_dict(self) -> dict[str, float | None]:
        """As JSON values."""
        return self._asdict()


def digits_of_percent(value: float, digits: int) -> int:
    """Digits after the point with which a share neither reads as 0 % nor as 100 % unless it is that; 4 at most."""
    while digits < 4 and 0 < value < 1 and round(100 * value, digits) in (0, 100):
        digits += 1
    return digits


def clopper_pearson(hits: ArrayLike, trials: ArrayLike, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Ends of the exact two-sided binomial interval for hits / trials: float arrays in [0, 1]; (0, 1) where there are no trials.

    Source: Clopper and Pearson 1934. It holds the true share in at least `level` of repeated samples.
    """
    hit, trial = np.broadcast_arrays(np.asarray(hits, float), np.asarray(trials, float))
    tail = (1 - level) / 2
    low = np.where(hit > 0, betaincinv(np.maximum(hit, 1), trial - hit + 1, tail), 0.0)
    high = np.where(hit < trial, betaincinv(hit + 1, np.maximum(trial - hit, 1), 1 - tail), 1.0)
    return low, high


def share(hits: int, trials: int, *, of: int | None = None, level: float = 0.95) -> Interval:
    """The share hits / trials with its exact interval; all None when there are no trials.

    of : rows of the whole that the trials were drawn from without replacement, where it is that whole the share is of
    """
    if not trials:
        return Interval(None, None, None)
    low, high = clopper_pearson(hits, trials, level=level)
    return _as_counted(Interval(hits / trials, float(low), float(high)), hits, trials, of or 0)


def _as_counted(interval: Interval, hits: int, trials: int, rows: int) -> Interval:
    """Ends no further out than if all the rows that were not drawn were hits, or none of them."""
    if interval.low is None or interval.high is None or rows < trials:
        return interval
    return interval._replace(low=max(interval.low, hits / rows), high=min(interval.high, (hits + rows - trials) / rows))


def stratified_share(hits: Pair, trials: Pair, sizes: Pair, *, level: float = 0.95) -> Interval:
    """Share of the whole of two strata from a random draw in each, with its exact interval; all None without any draw.

    hits, trials : in the draw of each stratum; sizes : its rows, drawn and not. Where nothing was drawn from a stratum that has
    rows, its share may be anything: `value` is None, and the interval says what the other stratum leaves open.
    Source: Buehler 1957, for strata Wendell and Schmee 1996: an end is the last share that some pair of shares in the strata
    makes, under which an estimate as far out as this would come up with (1 - level) / 2.
    """
    if not any(trials):
        return Interval(None, None, None)
    if trials == sizes:
        return share(sum(hits), sum(trials), of=sum(sizes), level=level)
    total = max(sum(sizes), 1)
    weights = (sizes[0] / total, sizes[1] / total)
    missing = [place for place in (0, 1) if not trials[place]]
    if missing:
        drawn = 1 - missing[0]
        ends = share(hits[drawn], trials[drawn], of=sizes[drawn], level=level)
        if not sizes[missing[0]]:
            return ends
        open_part = weights[missing[0]]
        return Interval(None, weights[drawn] * (ends.low or 0.0), weights[drawn] * (ends.high or 0.0) + open_part)
    value = sum(weight * hit / trial for weight, hit, trial in zip(weights, hits, trials, strict=True))
    misses = (trials[0] - hits[0], trials[1] - hits[1])
    tail = (1 - level) / 2
    ends = Interval(value, 1 - _upper_end(misses, trials, weights, tail), _upper_end(hits, trials, weights, tail))
    return _as_counted(ends, sum(hits), sum(trials), sum(sizes))


def share_with_unknown(hits: Pair, trials: Pair, unknown: Pair, sizes: Pair, *, level: float = 0.95) -> Interval:
    """`stratified_share` where the draw of each stratum holds `unknown` rows more, of which nobody can say whether they are hits.

    `value` is that of the others. The low end takes all unknown rows for misses, the high end for hits, so the interval holds the
    share of the whole at `level` whatever they are. Source: Horowitz and Manski 1995.
    """
    known = stratified_share(hits, trials, sizes, level=level)
    if not any(trials) or not any(unknown):
        return known
    drawn = (trials[0] + unknown[0], trials[1] + unknown[1])
    at_most = (hits[0] + unknown[0], hits[1] + unknown[1])
    low, high = stratified_share(hits, drawn, sizes, level=level).low, stratified_share(at_most, drawn, sizes, level=level).high
    return Interval(known.value, low, high)


def share_of_draw(hits: int, trials: int, unknown: int, size: int, *, level: float = 0.95) -> Interval:
    """`share_with_unknown` of one stratum of `size` rows: wrong labels of one given class by its random draw, say."""
    return share_with_unknown((hits, 0), (trials, 0), (unknown, 0), (size, 0), level=level)


def _upper_end(hits: Pair, trials: Pair, weights: tuple[float, float], tail: float) -> float:
    """The largest share of the whole under which an estimate of at most this one has a chance over `tail`."""
    estimate = sum(weight * hit / trial for weight, hit, trial in zip(weights, hits, trials, strict=True))
    counts = np.arange(trials[0] + 1.0)
    # hits in the other stratum that keep the estimate down; 1e-9 of a hit is rounding
    room = np.floor((estimate - weights[0] * counts / trials[0]) * trials[1] / max(weights[1], 1e-12) + 1e-9)
    counts, room = counts[room >= 0], np.minimum(room[room >= 0], trials[1])
    low, high, tried = estimate, 1.0, max(MIN_GRID, min(GRID, 200 * GRID // max(trials[0], 1)))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        first = np.linspace(max(0.0, (middle - weights[1]) / weights[0]), min(1.0, middle / weights[0]), tried)[:, None]
        second = np.clip((middle - weights[0] * first) / weights[1], 0, 1)
        below = np.where(counts > 0, bdtr(np.maximum(counts - 1, 0), trials[0], first), 0.0)
        chances = ((bdtr(counts, trials[0], first) - below) * bdtr(room, trials[1], second)).sum(axis=1)
        low, high = (middle, high) if chances.max() > tail else (low, middle)
    return high


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

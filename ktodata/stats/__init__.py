"""Exact and large-sample intervals for the few numbers that a detector is judged by."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, gammaln, ndtri, xlog1py, xlogy
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Pair = tuple[int, int]
GRID, BISECTIONS = 33, 15  # shares of one stratum tried for a share of both; halvings towards an end
UNLIKELY = 5e-4  # chance that the true shares of the strata are none of those that are tried
LEFT_OUT = 1e-8  # chance of outcomes to one side that are not looked at
Z95 = float(ndtri(0.975))  # standard errors to each end of a normal interval of 95 %


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


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage with a thin space before the sign; 0 and 100 are counts of none and of all."""
    return f"{100 * value:.{digits_of_percent(value, digits)}f}\u2009%"


def percent_span(low: float, high: float, digits: int = 1) -> str:
    """The ends of a share as percentages, both with the digits that either needs, a thin space before the sign."""
    places = max(digits_of_percent(end, digits) for end in (low, high))
    return f"{100 * low:.{places}f} to {100 * high:.{places}f}\u2009%"


def clopper_pearson(hits: ArrayLike, trials: ArrayLike, *, level: ArrayLike = 0.95) -> tuple[Floats, Floats]:
    """Ends of the exact two-sided binomial interval for hits / trials: float arrays in [0, 1]; (0, 1) where there are no trials.

    Source: Clopper and Pearson 1934. It holds the true share in at least `level` of repeated samples.
    """
    hit, trial = np.broadcast_arrays(np.asarray(hits, float), np.asarray(trials, float))
    tail = (1 - np.asarray(level, float)) / 2
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
    The upper end is the largest share that the data do not refute for any split between the strata (Buehler 1957), the lower end
    likewise; outcomes are in the order of studentised estimates (Chan and Zhang 1999). Only shares that each stratum leaves
    likely are tried, at a price of UNLIKELY (Berger and Boos 1994).
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
    """The largest share of the whole that is not refuted: a likely pair of shares makes it under which outcomes that speak for a
    share as small as these hits do have a chance over `tail`.

    Outcomes are in the order of (estimate - share) / standard error, the error with a hit and a miss more in each stratum.
    """
    ends = [clopper_pearson(hit, trial, level=1 - UNLIKELY / 2) for hit, trial in zip(hits, trials, strict=True)]
    likely = [(float(low), float(high)) for low, high in ends]
    counts = [_likely_counts(trial, *shares) for trial, shares in zip(trials, likely, strict=True)]
    estimates, errors = _estimates((counts[0][:, None], counts[1]), trials, weights)
    estimate, error = _estimates((np.array(hits[0]), np.array(hits[1])), trials, weights)
    low, high = float(estimate), float(np.dot(weights, [shares[1] for shares in likely]))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        as_small = ((estimates - middle) / errors <= (estimate - middle) / error + 1e-9).astype(float)
        first, last = ((middle - weights[1] * share) / weights[0] for share in likely[1][::-1])
        shares = np.linspace(max(likely[0][0], first), min(likely[0][1], last), GRID)
        others = np.clip((middle - weights[0] * shares) / weights[1], 0, 1)
        of_pairs = (_chances(counts[0], trials[0], shares) @ as_small * _chances(counts[1], trials[1], others)).sum(axis=1)
        low, high = (middle, high) if of_pairs.max() > tail - UNLIKELY - 4 * LEFT_OUT else (low, middle)
    return high


def _estimates(counts: tuple[Floats, Floats], trials: Pair, weights: tuple[float, float]) -> tuple[Floats, Floats]:
    """Estimates of the share of the whole, and their standard errors, of outcomes with so many hits in the strata."""
    estimate, variance = np.zeros(()), np.zeros(())
    for hits, trial, weight in zip(counts, trials, weights, strict=True):
        smoothed = (hits + 1) / (trial + 2)
        estimate, variance = estimate + weight * hits / trial, variance + weight**2 * smoothed * (1 - smoothed) / trial
    return estimate, np.sqrt(variance)


def _likely_counts(trials: int, low: float, high: float) -> Floats:
    """Hits that come up under a share in [low, high], all but LEFT_OUT to either side by Bernstein's bound: float [K]."""
    variance, log_odds = (
        trials * 0.25 if low < 0.5 < high else trials * max(low * (1 - low), high * (1 - high)),
        -np.log(LEFT_OUT),
    )
    reach = log_odds / 3 + np.sqrt((log_odds / 3) ** 2 + 2 * log_odds * variance)
    return np.arange(max(0.0, np.floor(trials * low - reach)), min(trials, np.ceil(trials * high + reach)) + 1)


def _chances(counts: Floats, trials: int, shares: Floats) -> Floats:
    """Of so many hits, under each share: float [shares, K]."""
    ways = gammaln(trials + 1) - gammaln(counts + 1) - gammaln(trials - counts + 1)
    return np.asarray(np.exp(ways + xlogy(counts, shares[:, None]) + xlog1py(trials - counts, -shares[:, None])))


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

    All None when either side has under two scores. Where no score differs in its place, so that nothing shows how far the next
    one may, each side is taken to have one more at either end (as Agresti and Coull 1998 do with shares).
    """
    above, below = placements(low_scores, high_scores)
    if min(len(above), len(below)) < 2:
        return Interval(None, None, None)
    sides = (above, below)
    if not any(side.var() for side in sides):
        sides = (np.append(above, (0.0, 1.0)), np.append(below, (0.0, 1.0)))
    variance = float(sum(side.var(ddof=1) / len(side) for side in sides))
    return normal_interval(float(above.mean()), variance, level=level)


def normal_interval(value: float, variance: float, *, level: float = 0.95) -> Interval:
    """`value` with its normal interval, cut to [0, 1]."""
    reach = float(ndtri(0.5 + level / 2)) * variance**0.5
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))

"""How well the detector finds label errors on this very data: flip some labels on purpose, look again, and count.

Random flips measure the detector against random noise only. Noise that follows a rule looks like signal to any model of the
labels, and no injected flip shows it; trusted rows do.

The rows that flips are injected into are not clean, and a flip of a wrong label repairs it. What is counted is a mixture:
with e the error rate of a given class and e' that of the other, and q the share of the class taken, most doubtful first,
    injected(q) = (1 - e') errors(q) + e' sound(q)
    q           = e errors(q) + (1 - e) sound(q)
from which errors(q), the recall of real errors, follows if e and e' are known (Scott, Blanchard and Handy 2013). They are taken
from the confident joint only where the probabilities stand at two clear levels; a heap around the middle fits *any* error rate.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.stats import Interval, clopper_pearson, normal_interval, placements, share

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Identifiability = Literal["identifiable", "weakly", "not"]

TWO_LEVELS = 0.9  # share of the variance of p_desirable that two levels explain; 0.64 for a normal heap, 1 for two sharp levels
NEARLY_TWO_LEVELS = 0.8
WELL_RANKED = 0.85  # lower end of the interval of the AUROC of real errors within their given class
RANKED = 0.7
MIN_INJECTED = 10  # in a class; fewer say nothing
MIN_CONTRAST = 0.15  # 1 - both error rates: what is left of the labels' say; dividing by less blows chance up to certainty
CURVE_POINTS = 200

SYSTEMATIC = (
    "Injected flips are random, so they measure this detector against random mistakes only. Systematic noise (a rater or judge "
    "that is wrong for one reason, again and again) looks like signal to every model of these labels and cannot be seen this "
    "way, however good the figures here are. Only trusted labels on a random sample, or second votes, can show it."
)


@dataclass(frozen=True)
class InjectedNoise:
    """labels : bool [N, R], with the flips of repeat r in column r; flipped : bool [N, R], where they are."""

    labels: Bools
    flipped: Bools


@dataclass(frozen=True)
class Recovery:
    """How injected flips rank among the rows of one given class.

    depths : float [P], for each injected flip the share of untouched rows of its given class that look more doubtful; 0 is best
    auroc : P(a injected flip looks more doubtful than an untouched row), 0.5 is chance; untouched rows hold the real errors
    per_repeat : injected flips with this given label in one repeat
    """

    depths: Floats
    auroc: Interval
    per_repeat: float


def inject_flips(labels: Bools, rows: Bools, *, fraction: float, repeats: int, seed: int) -> InjectedNoise:
    """Flip `fraction` of the labels of each class among `rows`, once for each repeat, in other rows each time while they last."""
    rng = np.random.default_rng([seed, 0x91A27])
    flipped = np.zeros((len(labels), repeats), bool)
    for side in (False, True):
        members = np.flatnonzero(rows & (labels == side))
        count = round(fraction * len(members))
        slots = len(members) // count if count else 1
        for repeat in range(repeats if count else 0):
            if repeat % slots == 0:
                shuffled = rng.permutation(members)
            start = repeat % slots * count
            flipped[shuffled[start : start + count], repeat] = True
    return InjectedNoise(labels[:, None] ^ flipped, flipped)


def recovery(p_desirable: Floats, injected: InjectedNoise, rows: Bools, *, given: bool) -> Recovery:
    """Where the detector put the flips injected into class `given`; p_desirable float [N, R], of the labels with flips."""
    quality = p_desirable if given else 1 - p_desirable
    in_class = rows[:, None] & (injected.labels == given)
    depths, variances = [], []
    for repeat in range(quality.shape[1]):
        flips = in_class[:, repeat] & injected.flipped[:, repeat]
        above, below = placements(quality[flips, repeat], quality[in_class[:, repeat] & ~flips, repeat])
        depths.append(1 - above)
        variances.append(below.var(ddof=1) / len(below) if len(below) > 1 else np.nan)
    pooled = np.sort(np.concatenate(depths))
    per_repeat = len(pooled) / max(len(depths), 1)
    if len(pooled) < 2:
        return Recovery(pooled, Interval(None, None, None), per_repeat)
    # flips differ between repeats, the other rows are the same ones: only the flips' part shrinks with more repeats
    variance = float(pooled.var(ddof=1) / len(pooled) + np.mean(variances))
    return Recovery(pooled, _no_surer(normal_interval(1 - float(pooled.mean()), variance), len(pooled)), per_repeat)


def _no_surer(auroc: Interval, flips: int) -> Interval:
    """With a lower end no higher than so many flips allow that all rank below: where they do, the variance is 0."""
    low = float(clopper_pearson(flips, flips)[0])
    return auroc if auroc.low is None else auroc._replace(low=min(auroc.low, low))


def class_average(recoveries: list[Recovery]) -> Interval:
    """AUROC averaged over given classes (a ranking by class alone scores 0.5), with its interval.

    An end is as far off as the classes' own ends say, each for itself: Zou and Donner 2008.
    """
    ends = [(auroc.value, auroc.low, auroc.high) for auroc in (each.auroc for each in recoveries) if auroc.value is not None]
    if len(ends) < len(recoveries) or not ends:
        return Interval(None, None, None)
    value, low, high = np.array(ends, float).T
    down, up = (float(np.sqrt(np.square(reach).sum()) / len(ends)) for reach in (value - low, high - value))
    mean = float(value.mean())
    return Interval(mean, max(0.0, mean - down), min(1.0, mean + up))


def two_levels(p_desirable: Floats) -> float:
    """Share of the variance of the probabilities that the best split into two levels explains: in [0, 1] (Otsu 1979)."""
    ordered = np.sort(p_desirable)
    n, sums = len(ordered), np.cumsum(ordered)
    if n < 2 or ordered[-1] - ordered[0] < 1e-9:
        return 0.0
    lower = np.arange(1, n)
    gap = sums[:-1] / lower - (sums[-1] - sums[:-1]) / (n - lower)
    return float((lower / n * (1 - lower / n) * gap**2).max() / ordered.var())


def auroc_of_real_errors(flips: Recovery, error_rates: tuple[float, float]) -> Interval:
    """AUROC of real errors within their given class, from that of injected flips and both classes' error rates."""
    contrast = 1 - sum(error_rates)
    if flips.auroc.value is None or contrast <= MIN_CONTRAST:
        return Interval(None, None, None)
    value, low, high = (float(np.clip(0.5 + ((end or 0.0) - 0.5) / contrast, 0, 1)) for end in flips.auroc)
    return Interval(value, low, high)


def identifiability(flips: Recovery, levels: float, error_rates: tuple[float, float]) -> Identifiability:
    """Whether random errors of this given class can be told from sound rows.

    Judged by the lower ends of intervals, so that little data cannot look like good data.
    """
    if len(flips.depths) < MIN_INJECTED or flips.auroc.low is None:
        return "not"
    real = auroc_of_real_errors(flips, error_rates).low or 0.0
    if levels >= TWO_LEVELS and real >= WELL_RANKED:
        return "identifiable"
    return "weakly" if flips.auroc.low >= RANKED or (levels >= NEARLY_TWO_LEVELS and real >= WELL_RANKED) else "not"


def trust_curve(
    depths: Floats,
    *,
    rows: int,
    error_rates: tuple[float, float],
    given: bool,
    basis: Literal["injected flips", "trusted rows"],
) -> pl.DataFrame:
    """Expected precision if the n most doubtful rows of one given class are acted on, n from 1 to half of the class.

    depths : float [P], where injected flips (or errors known from trusted rows) rank among the class's rows, 0 most doubtful
    rows : rows of the class
    error_rates : assumed share of wrong labels in this class, and, for injected flips, in the other one (0: take flips as errors)

    The interval is that of the recall (exact); the error rates have none here.
    """
    most = max(rows // 2, 1)
    acted = np.unique(np.geomspace(1, most, CURVE_POINTS).round().astype(np.int64))
    share_taken, (own, opposite) = acted / max(rows, 1), error_rates
    hits = np.searchsorted(np.sort(depths), share_taken, side="right")
    contrast = 1 - own - opposite

    def recall_of_errors(recall: Floats) -> Floats:
        real = ((1 - own) * recall - opposite * share_taken) / contrast if contrast > MIN_CONTRAST else np.zeros_like(recall)
        return np.clip(real, 0, 1)

    ends = {"": hits / max(len(depths), 1)} | dict(zip(("_low", "_high"), clopper_pearson(hits, len(depths)), strict=True))
    recalls = {f"recall{end}": recall_of_errors(recall) for end, recall in ends.items()}
    return pl.DataFrame(
        {"given": [given] * len(acted), "basis": [basis] * len(acted), "rows_acted_on": acted}
        | recalls
        | {f"expected_precision{end}": np.minimum(1, own * recalls[f"recall{end}"] / share_taken) for end in ends}
        | {"error_rate_assumed": [own] * len(acted)}
    )


def rows_to_flag(curve: pl.DataFrame, *, min_precision: float, most: int) -> int:
    """The largest number of rows, up to `most`, whose expected precision is still min_precision at its interval's lower end."""
    reached = curve.filter(pl.col("expected_precision_low") >= min_precision, pl.col("rows_acted_on") <= most)["rows_acted_on"]
    return int(max(reached.to_list(), default=0))


def injected_figures(flips: Recovery, *, rows: int, flagged: int) -> dict[str, object]:
    """Of injected flips alone, at the depth flagged: recall, and precision with every untouched row counted as sound."""
    depth = flagged / max(rows, 1)
    hits = int((flips.depths <= depth).sum()) if flagged else 0
    repeats = len(flips.depths) / flips.per_repeat if flips.per_repeat else 0
    untouched = round(depth * max(rows - flips.per_repeat, 0) * repeats)
    return {
        "flips": len(flips.depths),
        "recall": share(hits, len(flips.depths)).as_dict(),
        "precision": share(hits, hits + untouched).as_dict(),
    }

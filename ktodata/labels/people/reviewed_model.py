"""What a few reviewed rows say of all the others: P(the given label is right), learnt within each given class.

A model of the labels alone repeats whatever fooled the rater. So the truth of the reviewed rows is modelled as that model's
opinion, believed as far as it proved right, plus a Gaussian process over the texts for what it did not see:

    truth (+1 desirable, -1 not) = m + a0 + a1 m + f(row) + noise,      m = 2 p_desirable - 1,  f ~ t x kernel

one for each given class, as the two are wrong for different reasons. The scale t is that of the largest marginal likelihood, so
that a class whose few errors show no pattern keeps the model's ranking (Rasmussen and Williams 2006, chapters 2 and 5).

Further opinions o_k of a row, each in [-1, 1], + for desirable (training dynamics are one), come in as

    truth = m + a0 + a1 m + sum_k b_k u_k + f(row) + noise,      b_k ~ N(0, s),      u_k = o_k - (c_k + d_k m)

where u_k is what an opinion says beyond m: its residual from the line through all rows of the class (0 where there is none). As
queues ask for rows by m, an opinion that shares in m would otherwise be judged by rows chosen for being odd, and learn a wrong
sign. s is OPINION where that raises the log marginal likelihood by EVIDENCE, else none. The b_k are learnt from reviewed rows
alone: an opinion moves p as far as it proved right there, by its own sign, and not at all where nobody reviewed or it told
nothing.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtr

from ktodata.errors import DataError, ShapeError
from ktodata.labels.classifier.feature_sets import ALONE, RowFeatures

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MIN_REVIEWED = 8  # of one given class; with fewer the model's opinion stands
MAX_REVIEWED = 3000  # rows of one class that are compared with all others; beyond, a random part of them
SCALES = (0.0, 0.1, 0.3, 1.0, 3.0)
NOISE = 0.15  # variance of the truth (+1 or -1) around what can be seen
SHIFT, SLOPE = (
    0.1,
    0.2,
)  # prior variances of a0 and a1: rows may have been reviewed because they looked wrong, so a0 is kept small
OPINION = 0.2  # prior variance of an opinion's weight b_k, as SLOPE is that of the model's own
EVIDENCE = 2.0  # nats, odds of 7 to 1: with 50 reviewed rows a useless opinion often gains half a nat
CHUNK = 4096


@dataclass(frozen=True)
class Weight:
    """What reviewed rows say an opinion is worth: the posterior mean of b and its 95 % interval.

    + : it says desirable where the truth is; - : the other way round; 0 (and an interval of no width): it was not believed.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Reviewed:
    """p_desirable : float [N]; scale : of each given class, what was chosen; None for a class with too few reviewed rows.

    weights : of each given class, one for each opinion; none for a class with too few reviewed rows.
    """

    p_desirable: Floats
    scale: dict[bool, float | None]
    weights: dict[bool, tuple[Weight, ...]]


def learn_from_reviews(
    rows: RowFeatures, p_desirable: Floats, labels: Bools, reviewed: Bools, truth: Bools, *, opinions: Floats | None = None
) -> Reviewed:
    """P(truly desirable) of every row: float [N].

    p_desirable : float [N], out of fold, from the labels as given
    labels, reviewed : bool [N]; truth : bool [N], used on reviewed rows only
    opinions : float [N, K] in [-1, 1], + for desirable, of anything but the reviews; nan: none on this row, counted as 0
    A reviewed row is answered by the others (leave one out), so that answers and reviews can be compared.
    Raises ShapeError for opinions on another number of rows, DataError for one outside [-1, 1].
    """
    opinions = _checked(opinions, len(labels))
    answer = np.asarray(p_desirable, float).copy()
    scale: dict[bool, float | None] = {}
    weights: dict[bool, tuple[Weight, ...]] = {False: (), True: ()}
    for given in (False, True):
        here, known = np.flatnonzero(labels == given), np.flatnonzero((labels == given) & reviewed)
        scale[given] = None
        if len(known) < MIN_REVIEWED:
            continue
        if len(known) > MAX_REVIEWED:
            known = np.sort(np.random.default_rng(0).permutation(known)[:MAX_REVIEWED])
        seen = _seen(2 * p_desirable - 1, opinions, here)
        answer[here], scale[given], weights[given] = _answers(rows, seen, here, known, truth)
    return Reviewed(answer, scale, weights)


def _checked(opinions: Floats | None, rows: int) -> Floats:
    """The opinions as float [rows, K], nan where there is none."""
    if opinions is None:
        return np.zeros((rows, 0))
    if opinions.ndim != 2 or len(opinions) != rows:
        raise ShapeError(f"learn_from_reviews: opinions of shape {opinions.shape} on {rows:,} rows; give float [{rows}, K].")
    if outside := int((np.abs(opinions) > 1).any(axis=1).sum()):
        raise DataError(f"learn_from_reviews: the opinions on {outside:,} of {rows:,} rows are outside [-1, 1].")
    return np.asarray(opinions, float)


def _answers(
    rows: RowFeatures, seen: "_ReviewedFeatures", here: NDArray[np.int64], known: NDArray[np.int64], truth: Bools
) -> tuple[Floats, float, tuple[Weight, ...]]:
    target = np.where(truth[known], 1.0, -1.0) - seen.opinion[known]
    kernel = _texts(rows, known, known)

    def evidence(one: tuple[float, float]) -> float:
        scale, spread = one
        asked = EVIDENCE if spread else 0.0
        return _likelihood(seen.covariance(scale * kernel, known, known, spread), target) - asked

    believed = (0.0, OPINION) if seen.further[known].any() else (0.0,)
    scale, spread = max(product(SCALES, believed), key=evidence)
    factor = cho_factor(seen.covariance(scale * kernel, known, known, spread) + NOISE * np.eye(len(known)))
    pulled = cho_solve(factor, target)
    found = np.empty(len(here))
    for start in range(0, len(here), CHUNK):
        part = here[start : start + CHUNK]
        near = _texts(rows, part, known) if scale else np.zeros((len(part), len(known)))
        across = seen.covariance(scale * near, part, known, spread)
        mean = seen.opinion[part] + across @ pulled
        own = scale * _own(rows, part) + SHIFT + SLOPE * seen.opinion[part] ** 2
        own = own + spread * np.square(seen.further[part]).sum(axis=1)
        variance = own - (across * cho_solve(factor, across.T).T).sum(axis=1) + NOISE
        found[start : start + CHUNK] = ndtr(mean / np.sqrt(np.maximum(variance, NOISE)))
    precision = np.diag(cho_solve(factor, np.eye(len(known))))
    left_out = np.where(truth[known], 1.0, -1.0) - pulled / precision
    found[np.searchsorted(here, known)] = ndtr(left_out * np.sqrt(precision))
    return found, scale, _weights(spread * seen.further[known], factor, pulled, spread)


@dataclass(frozen=True)
class _ReviewedFeatures:
    """What is known of each row of a class beside its text: the model's opinion m [N], and what others say beyond it [N, K]."""

    opinion: Floats
    further: Floats

    def covariance(self, texts: Floats, some: NDArray[np.int64], others: NDArray[np.int64], spread: float) -> Floats:
        """Of the truth of `some` and `others`, noise left out; `spread` is the prior variance of the opinions' weights."""
        from_model = texts + SHIFT + SLOPE * np.outer(self.opinion[some], self.opinion[others])
        return np.asarray(from_model + spread * (self.further[some] @ self.further[others].T))


def _seen(opinion: Floats, others: Floats, here: NDArray[np.int64]) -> _ReviewedFeatures:
    """The opinions on the rows `here`, with what the model's own foretells of the others taken away; 0 where one has none."""
    further = np.zeros(others.shape)
    for column in range(others.shape[1]):
        rows = here[np.isfinite(others[here, column])]
        line = np.column_stack([np.ones(len(rows)), opinion[rows]])
        further[rows, column] = others[rows, column] - line @ np.linalg.lstsq(line, others[rows, column], rcond=None)[0]
    return _ReviewedFeatures(opinion, further)


def _weights(across: Floats, factor: tuple[Floats, bool], pulled: Floats, spread: float) -> tuple[Weight, ...]:
    """Mean and 95 % interval of each b. across : float [n, K], covariance of the reviewed rows' truth with each b."""
    means = across.T @ pulled
    variances = spread - (across * cho_solve(factor, across)).sum(axis=0) if across.size else np.zeros(0)
    reach = 1.96 * np.sqrt(np.maximum(variances, 0))
    return tuple(Weight(float(mean), float(mean - one), float(mean + one)) for mean, one in zip(means, reach, strict=True))


def _texts(rows: RowFeatures, some: NDArray[np.int64], others: NDArray[np.int64]) -> Floats:
    both = np.asarray(rows.kernel("text", some, others) + rows.kernel("answer", some, others), float) / 2
    return both if rows.reading is None else (both + rows.kernel("reading", some, others)) / 2


def _own(rows: RowFeatures, some: NDArray[np.int64]) -> Floats:
    """The kernel of each row with itself: completions of length 1, so 1 + ALONE, less where a row has no text to see."""
    parts = (*rows.completions, *rows.prompt_residual)
    length = sum(np.square(part[some]).sum(axis=1, dtype=np.float64) for part in parts) / len(parts)
    near = np.exp(np.square(rows.prompts[some]).sum(axis=1, dtype=np.float64) - 1)
    both = np.asarray(length * (near + ALONE))
    return both if rows.reading is None else (both + np.square(rows.reading[some]).sum(axis=1, dtype=np.float64)) / 2


def _likelihood(covariance: Floats, target: Floats) -> float:
    """Log marginal likelihood, but for a constant."""
    factor = cho_factor(covariance + NOISE * np.eye(len(target)))
    return float(-0.5 * target @ cho_solve(factor, target) - np.log(np.diag(factor[0])).sum())

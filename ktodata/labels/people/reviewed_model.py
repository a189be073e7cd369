"""What a few reviewed rows say of all the others: P(the given label is right), learnt within each given class.

A model of the labels alone repeats whatever fooled the rater. So the truth of the reviewed rows is modelled as that model's
score m, believed as far as it proved right, plus a Gaussian process over the texts for what it did not see:

    truth (+1 desirable, -1 not) = m + a0 + a1 m + f(row) + noise,      m = 2 p_desirable - 1,  f ~ t x kernel

one for each given class, as the two are wrong for different reasons. The scale t is that of the largest marginal likelihood, so
that a class whose few errors show no pattern keeps the model's ranking (Rasmussen and Williams 2006, chapters 2 and 5).

Further evidence e_k on a row, each in [-1, 1], + for desirable (training dynamics are one), comes in as

    truth = m + a0 + a1 m + sum_k b_k u_k + f(row) + noise,      b_k ~ N(0, s),      u_k = e_k - (c_k + d_k m)

where u_k is what the evidence says beyond m: its residual from the line through all rows of the class (0 where there is none). As
queues ask for rows by m, evidence that shares in m would otherwise be judged by rows chosen for being odd, and learn a wrong
sign. s is EVIDENCE_VARIANCE where that raises the log marginal likelihood by MIN_GAIN_NATS, else none. The b_k are learnt from
reviewed rows alone: evidence moves p as far as it proved right there, by its own sign, and not at all where nobody reviewed or
it said nothing.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtr

from ktodata.errors import DataError, ShapeError
from ktodata.labels.classifier.feature_sets import UNLIKE_PROMPTS_WEIGHT, KernelFeatureSet, RowFeatures
from ktodata.stats import Z95

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MIN_REVIEWED = 8  # of one given class; with fewer the model's score stands
MAX_REVIEWED = 3000  # rows of one class that are compared with all others; beyond, a random part of them
SCALES = (0.0, 0.1, 0.3, 1.0, 3.0)
NOISE = 0.15  # variance of the truth (+1 or -1) around what can be seen
SHIFT, SLOPE = (
    0.1,
    0.2,
)  # prior variances of a0 and a1: rows may have been reviewed because they looked wrong, so a0 is kept small
EVIDENCE_VARIANCE = 0.2  # prior variance of a weight b_k, as SLOPE is that of the model's own
MIN_GAIN_NATS = 2.0  # nats, odds of 7 to 1: with 50 reviewed rows useless evidence often gains half a nat
CHUNK = 4096
TEXT_SETS: tuple[KernelFeatureSet, ...] = ("text", "completion_residual")


@dataclass(frozen=True)
class EvidenceWeight:
    """What reviewed rows say a piece of evidence is worth: the posterior mean of b and its 95 % interval.

    + : it says desirable where the truth is; - : the other way round; 0 (and an interval of no width): it was not believed.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ReviewedModel:
    """p_desirable : float [N]; scale : of each given class, what was chosen; None for a class with too few reviewed rows.

    weights : of each given class, one for each piece of evidence; none for a class with too few reviewed rows.
    """

    p_desirable: Floats
    scale: dict[bool, float | None]
    weights: dict[bool, tuple[EvidenceWeight, ...]]


def learn_from_reviews(
    rows: RowFeatures,
    p_desirable: Floats,
    labels: Bools,
    reviewed: Bools,
    truth: Bools,
    *,
    evidence: Floats | None = None,
    groups: NDArray[np.integer] | None = None,
) -> ReviewedModel:
    """P(truly desirable) of every row: float [N].

    p_desirable : float [N], out of fold, from the labels as given
    labels, reviewed : bool [N]; truth : bool [N], used on reviewed rows only
    evidence : float [N, K] in [-1, 1], + for desirable, of anything but the reviews; nan: none on this row, counted as 0
    groups : int [N], prompt groups; each row its own where None
    A reviewed row is answered by those of other groups (leave one group out), so that answers and reviews can be compared.
    Raises ShapeError for evidence on another number of rows, DataError for one outside [-1, 1].
    """
    evidence = _checked_evidence(evidence, len(labels))
    answer = np.asarray(p_desirable, float).copy()
    scale: dict[bool, float | None] = {}
    weights: dict[bool, tuple[EvidenceWeight, ...]] = {False: (), True: ()}
    for given in (False, True):
        members, known = np.flatnonzero(labels == given), np.flatnonzero((labels == given) & reviewed)
        scale[given] = None
        if len(known) < MIN_REVIEWED:
            continue
        if len(known) > MAX_REVIEWED:
            known = np.sort(np.random.default_rng(0).permutation(known)[:MAX_REVIEWED])
        features = _beyond_classifier(2 * p_desirable - 1, evidence, members)
        answer[members], scale[given], weights[given] = _predict_class(
            rows, features, members, known, truth, np.arange(len(labels)) if groups is None else groups
        )
    return ReviewedModel(answer, scale, weights)


def _checked_evidence(evidence: Floats | None, rows: int) -> Floats:
    """The evidence as float [rows, K], nan where there is none."""
    if evidence is None:
        return np.zeros((rows, 0))
    if evidence.ndim != 2 or len(evidence) != rows:
        raise ShapeError(f"learn_from_reviews: evidence of shape {evidence.shape} on {rows:,} rows; give float [{rows}, K].")
    if outside := int((np.abs(evidence) > 1).any(axis=1).sum()):
        raise DataError(f"learn_from_reviews: the evidence on {outside:,} of {rows:,} rows is outside [-1, 1].")
    return np.asarray(evidence, float)


def _predict_class(
    rows: RowFeatures,
    features: "_ReviewedFeatures",
    members: NDArray[np.int64],
    known: NDArray[np.int64],
    truth: Bools,
    groups: NDArray[np.integer],
) -> tuple[Floats, float, tuple[EvidenceWeight, ...]]:
    target = np.where(truth[known], 1.0, -1.0) - features.score[known]
    kernel = _text_kernel(rows, known, known)

    def net_likelihood(prior: tuple[float, float]) -> float:
        scale, spread = prior
        price = MIN_GAIN_NATS if spread else 0.0
        return _likelihood(features.covariance(scale * kernel, known, known, spread), target) - price

    spreads = (0.0, EVIDENCE_VARIANCE) if features.further[known].any() else (0.0,)
    scale, spread = max(product(SCALES, spreads), key=net_likelihood)
    factor = cho_factor(features.covariance(scale * kernel, known, known, spread) + NOISE * np.eye(len(known)))
    pulled = cho_solve(factor, target)
    p_desirable = np.empty(len(members))
    for start in range(0, len(members), CHUNK):
        part = members[start : start + CHUNK]
        near = _text_kernel(rows, part, known) if scale else np.zeros((len(part), len(known)))
        across = features.covariance(scale * near, part, known, spread)
        mean = features.score[part] + across @ pulled
        own = scale * _own_kernel(rows, part) + SHIFT + SLOPE * features.score[part] ** 2
        own = own + spread * np.square(features.further[part]).sum(axis=1)
        variance = own - (across * cho_solve(factor, across.T).T).sum(axis=1) + NOISE
        p_desirable[start : start + CHUNK] = ndtr(mean / np.sqrt(np.maximum(variance, NOISE)))
    p_desirable[np.searchsorted(members, known)] = _left_out(factor, pulled, np.where(truth[known], 1.0, -1.0), groups[known])
    return p_desirable, scale, _evidence_weights(spread * features.further[known], factor, pulled, spread)


def _left_out(factor: tuple[Floats, bool], pulled: Floats, truth: Floats, groups: NDArray[np.integer]) -> Floats:
    """P(desirable) of each reviewed row by the reviewed rows of other groups (Rasmussen and Williams 2006, 5.12, by blocks)."""
    precision = cho_solve(factor, np.eye(len(truth)))
    p_desirable = np.empty(len(truth))
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        covariance = np.linalg.inv(precision[np.ix_(own, own)])
        p_desirable[own] = ndtr((truth[own] - covariance @ pulled[own]) / np.sqrt(np.diag(covariance)))
    return p_desirable


@dataclass(frozen=True)
class _ReviewedFeatures:
    """What is known of each row of a class beside its text: the model's score m [N], and what evidence says beyond it [N, K]."""

    score: Floats
    further: Floats

    def covariance(self, texts: Floats, rows: NDArray[np.int64], columns: NDArray[np.int64], spread: float) -> Floats:
        """Of the truth of `rows` and `columns`, noise left out; `spread` is the prior variance of the weights of the evidence."""
        from_model = texts + SHIFT + SLOPE * np.outer(self.score[rows], self.score[columns])
        return np.asarray(from_model + spread * (self.further[rows] @ self.further[columns].T))


def _beyond_classifier(score: Floats, evidence: Floats, members: NDArray[np.int64]) -> _ReviewedFeatures:
    """The evidence on the rows `members`, with what the model's score predicts of it taken away; 0 where there is none."""
    further = np.zeros(evidence.shape)
    for column in range(evidence.shape[1]):
        rows = members[np.isfinite(evidence[members, column])]
        line = np.column_stack([np.ones(len(rows)), score[rows]])
        further[rows, column] = evidence[rows, column] - line @ np.linalg.lstsq(line, evidence[rows, column], rcond=None)[0]
    return _ReviewedFeatures(score, further)


def _evidence_weights(across: Floats, factor: tuple[Floats, bool], pulled: Floats, spread: float) -> tuple[EvidenceWeight, ...]:
    """Mean and 95 % interval of each b. across : float [n, K], covariance of the reviewed rows' truth with each b."""
    means = across.T @ pulled
    variances = spread - (across * cho_solve(factor, across)).sum(axis=0) if across.size else np.zeros(0)
    reach = Z95 * np.sqrt(np.maximum(variances, 0))
    return tuple(
        EvidenceWeight(float(mean), float(mean - width), float(mean + width)) for mean, width in zip(means, reach, strict=True)
    )


def _text_kernel(features: RowFeatures, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
    text, residual = (features.kernel(name, rows, columns) for name in TEXT_SETS)
    both = np.asarray(text + residual, float) / 2
    return both if features.hidden_state is None else (both + features.kernel("hidden_state", rows, columns)) / 2


def _own_kernel(features: RowFeatures, rows: NDArray[np.int64]) -> Floats:
    """The kernel of each row with itself: completions of length 1, so 1 + ALONE, less where a row has no text to see."""
    parts = (*features.completions, *features.prompt_residual)
    length = sum(np.square(part[rows]).sum(axis=1, dtype=np.float64) for part in parts) / len(parts)
    near = np.exp(np.square(features.prompts[rows]).sum(axis=1, dtype=np.float64) - 1)
    both = np.asarray(length * (near + UNLIKE_PROMPTS_WEIGHT))
    if features.hidden_state is None:
        return both
    return np.asarray(both + np.square(features.hidden_state[rows]).sum(axis=1, dtype=np.float64)) / 2


def _likelihood(covariance: Floats, target: Floats) -> float:
    """Log marginal likelihood, but for a constant."""
    factor = cho_factor(covariance + NOISE * np.eye(len(target)))
    return float(-0.5 * target @ cho_solve(factor, target) - np.log(np.diag(factor[0])).sum())

"""What a few reviewed rows say of all the others: P(the given label is right), learnt within each given class.

A model of the labels alone repeats whatever fooled the rater. So the truth of the reviewed rows is modelled as that model's
opinion, believed as far as it proved right, plus a Gaussian process over the texts for what it did not see:

    truth (+1 desirable, -1 not) = m + a0 + a1 m + f(row) + noise,      m = 2 p_desirable - 1,  f ~ t x kernel

one for each given class, as the two are wrong for different reasons. The scale t is that of the largest marginal likelihood, so
that a class whose few errors show no pattern keeps the model's ranking (Rasmussen and Williams 2006, chapters 2 and 5).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtr

from ktodata.signals.views import ALONE, Rows

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FEWEST_REVIEWED = 8  # of one given class; with fewer the model's opinion stands
MOST_REVIEWED = 3000  # rows of one class that are compared with all others; beyond, a random part of them
SCALES = (0.0, 0.1, 0.3, 1.0, 3.0)
NOISE = 0.15  # variance of the truth (+1 or -1) around what can be seen
SHIFT, SLOPE = (
    0.1,
    0.2,
)  # prior variances of a0 and a1: rows may have been reviewed because they looked wrong, so a0 is kept small
CHUNK = 4096


@dataclass(frozen=True)
class Reviewed:
    """p_desirable : float [N]; scale : of each given class, what was chosen; None for a class with too few reviewed rows."""

    p_desirable: Floats
    scale: dict[bool, float | None]


def learn_from_reviews(rows: Rows, p_desirable: Floats, labels: Bools, reviewed: Bools, truth: Bools) -> Reviewed:
    """P(truly desirable) of every row: float [N].

    p_desirable : float [N], out of fold, from the labels as given
    labels, reviewed : bool [N]; truth : bool [N], used on reviewed rows only
    A reviewed row is answered by the others (leave one out), so that answers and reviews can be compared.
    """
    answer = np.asarray(p_desirable, float).copy()
    scale: dict[bool, float | None] = {}
    for given in (False, True):
        here, known = np.flatnonzero(labels == given), np.flatnonzero((labels == given) & reviewed)
        scale[given] = None
        if len(known) < FEWEST_REVIEWED:
            continue
        if len(known) > MOST_REVIEWED:
            known = np.sort(np.random.default_rng(0).permutation(known)[:MOST_REVIEWED])
        answer[here], scale[given] = _answers(rows, p_desirable, here, known, truth)
    return Reviewed(answer, scale)


def _answers(rows: Rows, p: Floats, here: NDArray[np.int64], known: NDArray[np.int64], truth: Bools) -> tuple[Floats, float]:
    opinion = 2 * p - 1
    target = np.where(truth[known], 1.0, -1.0) - opinion[known]
    kernel = _texts(rows, known, known)
    scale = max(SCALES, key=lambda one: _likelihood(_covariance(one * kernel, opinion[known], opinion[known]), target))
    factor = cho_factor(_covariance(scale * kernel, opinion[known], opinion[known]) + NOISE * np.eye(len(known)))
    pulled = cho_solve(factor, target)
    found = np.empty(len(here))
    for start in range(0, len(here), CHUNK):
        part = here[start : start + CHUNK]
        near = _texts(rows, part, known) if scale else np.zeros((len(part), len(known)))
        across = _covariance(scale * near, opinion[part], opinion[known])
        mean = opinion[part] + across @ pulled
        own = scale * _own(rows, part) + SHIFT + SLOPE * opinion[part] ** 2
        variance = own - (across * cho_solve(factor, across.T).T).sum(axis=1) + NOISE
        found[start : start + CHUNK] = ndtr(mean / np.sqrt(np.maximum(variance, NOISE)))
    precision = np.diag(cho_solve(factor, np.eye(len(known))))
    left_out = np.where(truth[known], 1.0, -1.0) - pulled / precision
    found[np.searchsorted(here, known)] = ndtr(left_out * np.sqrt(precision))
    return found, scale


def _texts(rows: Rows, some: NDArray[np.int64], others: NDArray[np.int64]) -> Floats:
    both = np.asarray(rows.kernel("text", some, others) + rows.kernel("answer", some, others), float) / 2
    return both if rows.reading is None else (both + rows.kernel("reading", some, others)) / 2


def _own(rows: Rows, some: NDArray[np.int64]) -> Floats:
    """The kernel of each row with itself: completions of length 1, so 1 + ALONE, less where a row has no text to see."""
    parts = (*rows.completions, *rows.topic_free)
    length = sum(np.square(part[some]).sum(axis=1, dtype=np.float64) for part in parts) / len(parts)
    near = np.exp(np.square(rows.prompts[some]).sum(axis=1, dtype=np.float64) - 1)
    both = np.asarray(length * (near + ALONE))
    return both if rows.reading is None else (both + np.square(rows.reading[some]).sum(axis=1, dtype=np.float64)) / 2


def _covariance(texts: Floats, opinion: Floats, others: Floats) -> Floats:
    return texts + SHIFT + SLOPE * np.outer(opinion, others)


def _likelihood(covariance: Floats, target: Floats) -> float:
    """Log marginal likelihood, but for a constant."""
    factor = cho_factor(covariance + NOISE * np.eye(len(target)))
    return float(-0.5 * target @ cho_solve(factor, target) - np.log(np.diag(factor[0])).sum())

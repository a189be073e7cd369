"""What each vote, judge and model is worth, learnt from reviewed rows: logistic stacking.

    log-odds that a row is truly desirable = w0 + w1 g + sum_k w_k e_k,      g = +1 or -1, the given label

e_k are the pieces of evidence on the row: a model's log-odds, a rater's vote (+1, -1, 0 where silent, and that it spoke at all,
so that a rater may be worth more for one class than for the other), and the log-odds of all votes, for raters with few reviewed
rows. Weights are Gaussian a priori, w ~ N(m, s^2), m and s by the largest marginal likelihood (Laplace), m = 0 for what
only says that a piece spoke; the intercept and the weight of g are all but free. Predictions are averaged over the weights'
posterior (MacKay 1992), so that few reviews give a p that is less sure. Reviewed rows are answered by fits that saw no review of
their prompt group, so that p can be compared with the verdicts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit, log_expit

from ktodata.labels.classifier.folds import group_folds
from ktodata.stats import Z95

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MIN_REVIEWED = 40  # rows, of both labels together
MEANS = (0.0, 0.25, 0.5, 0.75, 1.0)
SPREADS = (0.03, 0.1, 0.2, 0.4, 0.8, 1.6)  # s
FREE = 3.0  # standard deviation of the intercept and of the weight of the given label
FOLDS = 10
SUREST = 4.0  # log-odds: no piece says more
STEPS = 50


@dataclass(frozen=True)
class StackWeight:
    """Log-odds for one unit of a piece of evidence: posterior mean and 95 % interval. + : it speaks for desirable."""

    evidence: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Stacked:
    """p_desirable : float [N], of reviewed rows out of fold. facts : how far that can be believed"""

    p_desirable: Floats
    facts: "StackFacts"


@dataclass(frozen=True)
class StackFacts:
    """reviewed : rows learnt from. log_loss : nats a reviewed row, out of fold; by_rates : of the true rates of the given labels
    alone, what a constant can do. with_votes : votes are among the evidence
    """

    reviewed: int
    log_loss: float
    by_rates: float
    weights: tuple[StackWeight, ...]
    with_votes: bool


@dataclass(frozen=True)
class VoteColumns:
    """Raters' votes float [N, R], +1, -1 or nan; up, down : int [N], all votes on the row, those without a rater as well.

    A rater has a column, and so a weight, from MIN_VOTES reviewed rows on.
    """

    MIN_VOTES: ClassVar[int] = 10
    names: tuple[str, ...]
    says: Floats
    up: NDArray[np.int64]
    down: NDArray[np.int64]


def stack(
    log_odds: Mapping[str, Floats],
    votes: VoteColumns | None,
    labels: Bools,
    groups: NDArray[np.integer],
    reviewed: Bools,
    truth: Bools,
    *,
    seed: int = 0,
) -> Stacked | None:
    """Learn what each piece is worth from the reviewed rows; None with fewer than MIN_REVIEWED.

    log_odds : of each piece that the row is desirable, float [N], nan where it says nothing; not learnt from these reviews, or
        left out for reviewed rows
    labels, reviewed, truth : bool [N]; truth is read on reviewed rows only. groups : int [N], prompt groups
    """
    known = np.flatnonzero(reviewed)
    if len(known) < MIN_REVIEWED:
        return None
    given = np.where(labels, 1.0, -1.0)
    columns = _columns(log_odds, votes, given, known)
    design = np.column_stack([np.ones(len(labels)), given, *(column.values for column in columns)])
    oriented = np.array([False, False, *(column.oriented for column in columns)])
    answers, fit = truth[known], _fit(design[known], truth[known], oriented)
    p = _predict(design, fit)
    folds = group_folds(groups[known], labels[known], folds=FOLDS, seed=seed)  # by the given labels: verdicts must not choose
    p[known] = _out_of_fold(design[known], answers, oriented, folds)
    reach = Z95 * np.sqrt(np.diag(fit.covariance))
    names = ("always", "given label", *(column.name for column in columns))
    weights = tuple(
        StackWeight(name, float(value), float(value - width), float(value + width))
        for name, value, width in zip(names, fit.weights, reach, strict=True)
    )
    rates = _out_of_fold(design[known, :2], answers, oriented[:2], folds)
    losses, with_votes = (_log_loss(p[known], answers), _log_loss(rates, answers)), any(column.of_votes for column in columns)
    return Stacked(p, StackFacts(len(known), *losses, weights, with_votes))


class _Column(NamedTuple):
    """values : float [N]. oriented : it ought to say desirable where that is true, and not only that a piece spoke

    of_votes : of a rater's, or of all
    """

    name: str
    values: Floats
    oriented: bool
    of_votes: bool = False


def _columns(log_odds: Mapping[str, Floats], votes: VoteColumns | None, given: Floats, known: NDArray[np.intp]) -> list[_Column]:
    """Those of the pieces; a column that is the same on every reviewed row has nothing to teach and is left out."""
    columns = []
    for name, piece in log_odds.items():
        spoke = np.isfinite(piece)
        columns.append(_Column(name, np.clip(np.where(spoke, piece, 0), -SUREST, SUREST), True))
        columns.append(_Column(f"{name}: has an answer", spoke.astype(float), False))
    if votes is not None:
        for name, says in zip(votes.names, votes.says.T, strict=True):
            spoke = np.isfinite(says)
            # a label that is also among the votes counts once
            if spoke[known].sum() >= votes.MIN_VOTES and not (spoke.all() and (says == given).all()):
                columns.append(_Column(f"vote of {name}", np.where(spoke, says, 0), oriented=True, of_votes=True))
                columns.append(_Column(f"{name} voted", spoke.astype(float), oriented=False, of_votes=True))
        columns.append(_Column("share of votes", np.log((votes.up + 0.5) / (votes.down + 0.5)), oriented=True, of_votes=True))
    return [column for column in columns if np.ptp(column.values[known]) > 0]


@dataclass(frozen=True)
class _Fit:
    weights: Floats
    covariance: Floats


def _fit(design: Floats, answers: Bools, oriented: Bools) -> _Fit:
    """The likeliest weights. oriented : columns whose weights share a mean that is chosen, too: bool [K]."""
    if design.shape[1] == 2:
        return _laplace(design, answers, np.zeros(2), FREE)[1]
    fits = (_laplace(design, answers, np.where(oriented, mean, 0.0), spread) for mean, spread in product(MEANS, SPREADS))
    return max(fits, key=lambda both: both[0])[1]


def _laplace(design: Floats, answers: Bools, mean: Floats, spread: float) -> tuple[float, _Fit]:
    """(log marginal likelihood but for a constant, the weights) under the prior N(mean, spread^2)."""
    precision = np.full(design.shape[1], spread**-2)
    precision[:2] = FREE**-2
    sign, weights = np.where(answers, 1.0, -1.0), mean.copy()
    for _ in range(STEPS):
        chance = expit(design @ weights)
        slope = design.T @ (answers - chance) - precision * (weights - mean)
        factor = cho_factor((design.T * (chance * (1 - chance))) @ design + np.diag(precision))
        move = cho_solve(factor, slope)
        weights = weights + move * min(1, 5 / max(np.abs(move).max(), 1e-9))
        if np.abs(move).max() < 1e-6:
            break
    fit = log_expit(sign * (design @ weights)).sum() - precision @ (weights - mean) ** 2 / 2
    evidence = fit + np.log(precision).sum() / 2 - np.log(np.diag(factor[0])).sum()
    return float(evidence), _Fit(weights, cho_solve(factor, np.eye(len(weights))))


def _predict(design: Floats, fit: _Fit) -> Floats:
    mean, variance = design @ fit.weights, np.einsum("ij,jk,ik->i", design, fit.covariance, design)
    return np.asarray(expit(mean / np.sqrt(1 + np.pi * variance / 8)))


def _out_of_fold(design: Floats, answers: Bools, oriented: Bools, fold: NDArray[np.int64]) -> Floats:
    p = np.empty(len(answers))
    for number in np.unique(fold):
        out = fold == number
        p[out] = _predict(design[out], _fit(design[~out], answers[~out], oriented))
    return p


def _log_loss(p: Floats, truth: Bools) -> float:
    return float(-np.log(np.where(truth, p, 1 - p)).mean())

"""p_desirable of every row from models that never saw the row, its label, or any row of its prompt group."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from ktodata.embeddings.chunks import joined
from ktodata.errors import OneClassError
from ktodata.labels.classifier.features import Components
from ktodata.labels.classifier.folds import group_folds
from ktodata.labels.classifier.logistic import fit_logistic

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

PENALTIES = (100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0)
COARSE = 1e-3  # gradient left where a penalty is only tried: half the steps, and the same choice in 20 of 20 feature sets
BINS = 15  # of the calibration error
MAX_ASSIGNMENTS = 20  # of folds, averaged where a table is so small that one assignment is not like another
ROWS_ASSIGNED = 30_000  # rows times assignments up to which there are more than asked for


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold probabilities.

    p_desirable : float [N, L], one column for each column of labels; of the mean log-odds over fold assignments, calibrated
    raw : float [N], the first column before calibration
    metrics : how it was made, and how well calibrated it is on the training rows
    """

    p_desirable: Floats
    raw: Floats
    metrics: dict[str, Any]


def out_of_fold(
    components: Components, labels: Bools, groups: NDArray[np.integer], train: Bools, *, folds: int, seeds: int, seed: int
) -> OutOfFold:
    """Predict every row out of fold, once for each column of `labels`, averaged over `seeds` fold assignments or more.

    labels : bool [N, L]; column 0 holds the labels as given, further ones labels with injected flips
    groups : int [N]; rows of one group are always predicted by models that saw none of it
    train : bool [N]; only these rows are fitted on. Others get their group's fold, or, where no training row shares their group,
        the mean of all models.

    Calibration is one sigmoid for all rows, fitted on out-of-fold scores (Platt): two numbers that all rows share, which change
    no row's place among the others. Small tables get more assignments, as their models hang on the draw most.
    Raises OneClassError when a training part would hold one label only.
    """
    count = max(seeds, min(MAX_ASSIGNMENTS, ROWS_ASSIGNED // max(int(train.sum()), 1)))
    fold = np.stack(
        [_folds_of_all(groups, labels[:, 0], train, folds=folds, seed=seed + number) for number in range(count)], axis=1
    )
    rows = np.flatnonzero(train) if components.rows is None else components.rows
    values = components.values[rows] if components.rows is None else components.values
    fitted, targets, local = Components(values, components.energy), labels[rows], fold[rows]
    penalty = choose_penalty(fitted, targets[:, 0], local[:, : max(1, count // 6)], folds=folds)
    models = fit_logistic(
        fitted,
        np.tile(targets, count * folds),
        np.repeat((local[:, :, None] != np.arange(folds)).reshape(len(rows), -1), labels.shape[1], axis=1),
        np.full(count * folds * labels.shape[1], penalty),
    )
    score = components.scores(models.weights, models.intercepts) if components.rows is not None else None

    def own(part: slice) -> NDArray[np.float32]:
        every = models.scores(components.values[part]) if score is None else score(part)
        return _mean_of_own(every.reshape(-1, count, folds, labels.shape[1]), fold[part])

    scores = joined(len(labels), own).astype(np.float64)
    calibrated = np.stack([_calibrated(each, target, rows) for each, target in zip(scores.T, labels.T, strict=True)], axis=1)
    metrics = _model_facts(components, penalty=penalty, steps=models.steps, folds=folds, seeds=count) | {
        "calibration": "sigmoid (Platt) on out-of-fold scores",
        "rows_fitted": len(rows),
    }
    return _with_calibration_errors(calibrated, expit(scores[:, 0]), labels, train, metrics)


def _calibrated(scores: Floats, labels: Bools, rows: Ints) -> Floats:
    slope, shift = platt(scores[rows], labels[rows])
    return np.asarray(expit(slope * scores + shift))


def _model_facts(components: Components, *, penalty: float, steps: int, folds: int, seeds: int) -> dict[str, Any]:
    return {
        "model": "logistic regression on principal components, fitted by accelerated descent",
        "components": components.values.shape[1],
        "penalty": penalty,
        "descent_steps": steps,
        "folds": folds,
        "seeds": seeds,
    }


def _with_calibration_errors(calibrated: Floats, raw: Floats, labels: Bools, train: Bools, metrics: dict[str, Any]) -> OutOfFold:
    """With how well calibrated it was, and is, on the training rows."""
    errors = {
        "before_calibration": calibration_error(raw[train], labels[train, 0]),
        "after_calibration": calibration_error(calibrated[train, 0], labels[train, 0]),
    }
    return OutOfFold(calibrated, raw, metrics | errors)


def _mean_of_own(scores: NDArray[np.float32], fold: Ints) -> NDArray[np.float32]:
    """Mean over assignments of what a row's own fold says, of all where it has none: [n, L] of [n, assignments, folds, L]."""
    own = np.take_along_axis(scores, np.maximum(fold, 0)[:, :, None, None], axis=2)[:, :, 0]
    without = fold < 0
    if without.any():
        own = np.where(without[:, :, None], scores.mean(axis=2), own)
    return np.asarray(own.mean(axis=1))


def choose_penalty(components: Components, labels: Bools, fold: Ints, *, folds: int) -> float:
    """The penalty of PENALTIES with the least grouped cross-validated log loss over some fold assignments, int [N, assignments].

    One number of six is chosen this way, on the labels as given.
    """
    inside = (fold[:, :, None] != np.arange(folds)).reshape(len(labels), -1)
    used = np.repeat(inside, len(PENALTIES), axis=1)
    targets = np.broadcast_to(labels[:, None], used.shape)
    tried = np.tile(PENALTIES, inside.shape[1])
    scores = fit_logistic(components, targets, used, tried, tolerance=COARSE).scores(components.values)
    losses = np.where(used, 0, np.logaddexp(0, np.where(targets, -scores, scores))).sum(axis=0)
    return float(PENALTIES[losses.reshape(-1, len(PENALTIES)).sum(axis=0).argmin()])


def calibration_error(probs: Floats, labels: Bools) -> dict[str, float]:
    """Brier score (mean squared error, 0 is best) and expected calibration error over 15 bins of equal width."""
    bins = np.minimum((probs * BINS).astype(np.int64), BINS - 1)
    gaps = np.abs(np.bincount(bins, weights=probs - labels, minlength=BINS))
    return {"brier": float(np.square(probs - labels).mean()), "ece": float(gaps.sum() / len(probs))}


def _folds_of_all(groups: NDArray[np.integer], labels: Bools, train: Bools, *, folds: int, seed: int) -> Ints:
    """Fold of each row; -1 for rows whose group has no training row."""
    _, group = np.unique(groups, return_inverse=True)
    fold_of_group = np.full(group.max(initial=0) + 1, -1)
    fold_of_group[group[train]] = group_folds(group[train], labels[train], folds=folds, seed=seed)
    fold = fold_of_group[group]
    for part in range(folds):
        inside = train & (fold != part)
        if labels[inside].all() or not labels[inside].any():
            raise OneClassError(
                f"without fold {part} of {folds}, {inside.sum():,} training rows hold one label only: {(labels & train).sum():,} "
                f"desirable and {(~labels & train).sum():,} undesirable rows are too few, or in too few prompt groups, for "
                f"{folds} folds. Use fewer folds, or collect the rarer label on further prompts."
            )
    return fold


def platt(scores: Floats, labels: Bools) -> tuple[float, float]:
    """Slope >= 0 and shift of the sigmoid that turns scores into probabilities, by Newton's method on smoothed targets."""
    desirable = int(labels.sum())
    targets = np.where(labels, (desirable + 1) / (desirable + 2), 1 / (len(labels) - desirable + 2))
    slope, shift = 0.0, float(logit(targets.mean()))
    for _ in range(50):
        probs = expit(slope * scores + shift)
        weight = probs * (1 - probs) + 1e-12
        gradient = np.array([((probs - targets) * scores).sum(), (probs - targets).sum()])
        hessian = np.array([[(weight * scores**2).sum(), (weight * scores).sum()], [(weight * scores).sum(), weight.sum()]])
        move = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        slope, shift = slope - float(move[0]), shift - float(move[1])
        if np.abs(move).max() < 1e-9:
            break
    # a score that points the wrong way out of fold is noise: say the base rate instead of turning it round
    return (slope, shift) if slope > 0 else (0.0, float(logit(targets.mean())))

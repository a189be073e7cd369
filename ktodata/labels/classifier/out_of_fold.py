"""p_desirable of every row from models that never saw the row, its label, or any row of its prompt group."""

from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from ktodata.embeddings.chunks import map_chunks
from ktodata.errors import OneClassError
from ktodata.labels.classifier.features import Components
from ktodata.labels.classifier.folds import group_folds
from ktodata.labels.classifier.logistic import Models, fit_logistic

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

PENALTIES = (100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0)
BINS = 15  # of the calibration error


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold probabilities.

    p_desirable : float [N, L], one column for each column of labels; mean over seeds, calibrated
    raw : float [N], the first column before calibration
    metrics : how it was made, and how well calibrated it is on the training rows
    """

    p_desirable: Floats
    raw: Floats
    metrics: dict[str, Any]


def out_of_fold(
    components: Components, labels: Bools, groups: NDArray[np.integer], train: Bools, *, folds: int, seeds: int, seed: int
) -> OutOfFold:
    """Predict every row out of fold, once for each column of `labels`, averaged over `seeds` fold assignments.

    labels : bool [N, L]; column 0 holds the labels as given, further ones labels with injected flips
    groups : int [N]; rows of one group are always predicted by models that saw none of it
    train : bool [N]; only these rows are fitted on. Others get their group's fold, or, where no training row shares their group,
        the mean of all models.

    Raises OneClassError when a training part would hold one label only.
    """
    assigned = [_folds_of_all(groups, labels[:, 0], train, folds=folds, seed=seed + number) for number in range(seeds)]
    if components.rows is not None:
        return _from_sample(components, components.rows, labels, np.stack(assigned, axis=1), train, folds=folds)
    penalty = choose_penalty(components, labels[:, 0], train, assigned[0], folds=folds)
    calibrated, raw, steps = np.zeros(labels.shape), np.zeros(len(labels)), 0
    for fold in assigned:
        scores, models = _nested_scores(components, labels, fold, train, folds=folds, penalty=penalty)
        calibrated += _calibrated(scores, labels, fold, train, folds=folds) / seeds
        raw += _own_fold(expit(scores[:, 0, np.arange(folds), np.arange(folds)]), fold) / seeds
        steps = max(steps, models.steps)
    metrics = _model_facts(components, penalty=penalty, steps=steps, folds=folds, seeds=seeds) | {
        "calibration": "sigmoid (Platt) on inner out-of-fold scores of the training folds",
        "rows_fitted": int(train.sum()),
    }
    return _with_calibration_errors(calibrated, raw, labels, train, metrics)


def _from_sample(
    components: Components, rows: Ints, labels: Bools, fold: NDArray[np.int64], train: Bools, *, folds: int
) -> OutOfFold:
    """`out_of_fold` of a table so large that models are fitted on a sample, and all rows predicted a chunk at a time.

    rows : the sample; fold : int [N, seeds]

    Calibration is not nested: the sigmoid of fold a is fitted on what the models of the other folds say of their own rows. So a
    row's label reaches its prediction, but only through two numbers that tens of thousands of rows share.
    """
    n_labels, seeds, targets, local = labels.shape[1], fold.shape[1], labels[rows], fold[rows]
    fitted = Components(components.values, components.energy, components.explained)
    everything = np.ones(len(rows), bool)
    penalty = choose_penalty(fitted, targets[:, 0], everything, local[:, 0], folds=folds)
    used = local[:, :, None] != np.arange(folds)
    models = fit_logistic(
        fitted,
        np.tile(targets, seeds * folds),
        np.repeat(used.reshape(len(rows), -1), n_labels, axis=1),
        np.full(seeds * folds * n_labels, penalty),
    )
    scores = models.scores(components.values).reshape(len(rows), seeds, folds, n_labels)
    slope, shift = np.empty((2, seeds, folds, n_labels))
    for seed in range(seeds):
        own = scores[np.arange(len(rows)), seed, local[:, seed]]
        for a, column in product(range(folds), range(n_labels)):
            inside = used[:, seed, a]
            slope[seed, a, column], shift[seed, a, column] = platt(
                own[inside, column].astype(np.float64), targets[inside, column]
            )
    calibrated, raw = np.empty(labels.shape), np.empty(len(labels))
    score = components.scores(models.weights, models.intercepts)

    def predicted(part: slice) -> tuple[Floats, Floats]:
        log_odds = score(part).reshape(-1, seeds, folds, n_labels)
        return _mean_of_own(expit(slope * log_odds + shift), fold[part]), _mean_of_own(expit(log_odds[..., :1]), fold[part])[:, 0]

    at = 0
    for probs, uncalibrated in map_chunks(len(labels), predicted):
        part = slice(at, at + len(probs))
        calibrated[part], raw[part], at = probs, uncalibrated, part.stop
    metrics = _model_facts(components, penalty=penalty, steps=models.steps, folds=folds, seeds=seeds) | {
        "calibration": "sigmoid (Platt) on out-of-fold scores of the training folds",
        "rows_fitted": len(rows),
    }
    return _with_calibration_errors(calibrated, raw, labels, train, metrics)


def _model_facts(components: Components, *, penalty: float, steps: int, folds: int, seeds: int) -> dict[str, Any]:
    return {
        "model": "logistic regression on principal components, fitted by accelerated descent",
        "components": components.values.shape[1],
        "variance_explained": components.explained,
        "penalty": penalty,
        "descent_steps": steps,
        "folds": folds,
        "seeds": seeds,
        "grouped_by": "prompt_group",
    }


def _with_calibration_errors(calibrated: Floats, raw: Floats, labels: Bools, train: Bools, metrics: dict[str, Any]) -> OutOfFold:
    """With how well calibrated it was, and is, on the training rows."""
    errors = {
        "before_calibration": calibration_error(raw[train], labels[train, 0]),
        "after_calibration": calibration_error(calibrated[train, 0], labels[train, 0]),
    }
    return OutOfFold(calibrated, raw, metrics | errors)


def _mean_of_own(probs: Floats, fold: Ints) -> Floats:
    """Mean over seeds of what the row's own fold says: [n, L]; of [n, seeds, folds, L], where it has no fold the mean of all."""
    own = np.take_along_axis(probs, np.maximum(fold, 0)[:, :, None, None], axis=2)[:, :, 0]
    without = fold < 0
    if without.any():
        own = np.where(without[:, :, None], probs.mean(axis=2), own)
    return np.asarray(own.mean(axis=1), dtype=np.float64)


def choose_penalty(components: Components, labels: Bools, train: Bools, fold: Ints, *, folds: int) -> float:
    """The penalty of PENALTIES with the least grouped cross-validated log loss on the training rows.

    One number of six is chosen this way, on the labels as given; everything else is nested inside the training folds.
    """
    if not train.all():
        values = components.values[train]
        components = Components(values, np.square(values, dtype=np.float64).sum(axis=0), components.explained)
        labels, fold = labels[train], fold[train]
    left_out = np.repeat(np.arange(folds), len(PENALTIES))
    penalties = np.tile(PENALTIES, folds)
    targets = np.broadcast_to(labels[:, None], (len(labels), len(penalties)))
    used = fold[:, None] != left_out
    scores = fit_logistic(components, targets, used, penalties).scores(components.values)
    losses = np.where(used, 0, np.logaddexp(0, np.where(targets, -scores, scores))).sum(axis=0)
    return float(PENALTIES[losses.reshape(folds, len(PENALTIES)).sum(axis=0).argmin()])


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
    for a, b in combinations(range(folds), 2):
        inner = train & (fold != a) & (fold != b)
        if labels[inner].all() or not labels[inner].any():
            raise OneClassError(
                f"without folds {a} and {b} of {folds}, {inner.sum():,} training rows hold one label only: "
                f"{(labels & train).sum():,} desirable and {(~labels & train).sum():,} undesirable rows are too few, or in too "
                f"few prompt groups, for {folds} folds. Use fewer folds, or collect the rarer label."
            )
    return fold


def _nested_scores(
    components: Components, labels: Bools, fold: Ints, train: Bools, *, folds: int, penalty: float
) -> tuple[NDArray[np.float32], Models]:
    """Log-odds [N, L, folds, folds]: entry (a, b) is from the model that saw neither fold a nor b; (a, a) lacks a alone."""
    pairs = [(a, b) for a in range(folds) for b in range(a, folds)]
    n_labels = labels.shape[1]
    used = np.stack([train & (fold != a) & (fold != b) for a, b in pairs], axis=1)
    models = fit_logistic(
        components,
        np.tile(labels, len(pairs)),
        np.repeat(used, n_labels, axis=1),
        np.full(len(pairs) * n_labels, penalty),
    )
    flat = models.scores(components.values).reshape(len(labels), len(pairs), n_labels)
    scores = np.empty((len(labels), n_labels, folds, folds), np.float32)
    for number, (a, b) in enumerate(pairs):
        scores[:, :, a, b] = scores[:, :, b, a] = flat[:, number]
    return scores, models


def _calibrated(scores: NDArray[np.float32], labels: Bools, fold: Ints, train: Bools, *, folds: int) -> Floats:
    """Probabilities [N, L]: the score of the model that lacks fold a, through a sigmoid fitted on folds other than a."""
    probs = np.empty((len(fold), labels.shape[1], folds))
    rows = np.arange(len(fold))
    for a in range(folds):
        inside = train & (fold != a)
        for column in range(labels.shape[1]):
            inner = scores[rows[inside], column, a, fold[inside]]  # the row's own fold left out, and fold a
            slope, shift = platt(inner.astype(np.float64), labels[inside, column])
            probs[:, column, a] = expit(slope * scores[:, column, a, a] + shift)
    return np.stack([_own_fold(probs[:, column], fold) for column in range(labels.shape[1])], axis=1)


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
    # a score that points the wrong way inside the training folds is noise: say the base rate instead of turning it round
    return (slope, shift) if slope > 0 else (0.0, float(logit(targets.mean())))


def _own_fold(per_fold: Floats, fold: Ints) -> Floats:
    """The column of each row's own fold; the mean over folds where it has none."""
    own = per_fold[np.arange(len(fold)), np.maximum(fold, 0)]
    return np.where(fold >= 0, own, per_fold.mean(axis=1))

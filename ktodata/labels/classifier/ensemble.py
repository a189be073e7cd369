"""The feature sets put together: one out-of-fold probability, and whether labels follow the prompt or the completion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from ktodata.labels.classifier.features import fitted_rows

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

EDGE = 1e-3  # probabilities are kept this far from 0 and 1: no feature set is surer than that
PROMPT_DRIVEN = 0.1  # share of what the text says of the labels that the prompt alone says too
PROMPT_SETTLES = 1 / 3  # from here on labels are mostly about what was asked, and the answer is too little to go by
RESIDUAL_INFORMS = 0.25  # the residual must carry this share of it, or there is nothing to go on with
MIN_NATS = 10.0  # over all training rows; less than that may be chance
PENALTY = 1.0  # on weights, towards an even blend; matters for tables of a few dozen rows only


@dataclass(frozen=True)
class Ensemble:
    """p_desirable : float [N, L], one column for each column of labels; weights and what each feature set says, in metrics."""

    p_desirable: Floats
    metrics: dict[str, Any]


def fit_ensemble(
    feature_sets: Mapping[str, Floats], prompt: Floats, labels: Bools, train: Bools, *, weak_sources: int = 0
) -> Ensemble:
    """One probability from those of several feature sets: logistic regression on their log-odds, with weights >= 0.

    feature_sets : "text", "completion_residual", "surface_features" and others, float [N, L] each, out of fold
    prompt : float [N], from the prompt alone, for the first column of labels
    labels : bool [N, L]; train : bool [N]
    weak_sources : how many of the last columns are labels of weak sources: text and residual count alike for them, as sources
        correct each other

    Where the prompt alone carries a good part (PROMPT_DRIVEN to PROMPT_SETTLES) of what the text says of the labels, they follow
    the topic: either models fail there, or the rater dislikes it, and from labels and text nobody can say which. Then only
    `completion_residual` is used, as the others learn the topic from the labels, unless it carries next to nothing.
    """
    blend = _fit_blend(list(feature_sets.values()), labels[:, 0], train)[0]
    probs = {name: values[:, 0] for name, values in feature_sets.items()} | {"prompt": prompt, "all": blend}
    gain = {name: information_gain(values[train], labels[train, 0]) for name, values in probs.items()}
    prompt_share, residual_share = (
        _positive_share(gain.get(name, 0.0), gain["all"]) for name in ("prompt", "completion_residual")
    )
    measurable = gain["prompt"] * int(train.sum()) >= MIN_NATS
    driven = measurable and PROMPT_DRIVEN <= prompt_share < PROMPT_SETTLES and residual_share >= RESIDUAL_INFORMS
    used = ["completion_residual"] if driven else list(feature_sets)
    blends = [
        _fit_blend([feature_sets[name][:, column] for name in used], labels[:, column], train)
        for column in range(labels.shape[1] - weak_sources)
    ]
    pooled = [_pool_text(feature_sets, column) for column in range(labels.shape[1] - weak_sources, labels.shape[1])]
    metrics = {
        "feature_sets": {name: {"information_gain_nats": round(value, 5)} for name, value in gain.items()},
        "weights": dict(zip(used, (round(float(weight), 3) for weight in blends[0][1]), strict=True)),
        "prompt_information_share": round(prompt_share, 4),
        "labels_follow_the_prompt": bool(driven),
    }
    return Ensemble(np.stack([*(p for p, _ in blends), *pooled], axis=1), metrics)


def information_gain(probs: Floats, labels: Bools) -> float:
    """How much better than the base rate `probs` predicts `labels`: nats per row; 0 or less says nothing."""
    base_rate = float(np.clip(labels.mean(), EDGE, 1 - EDGE))
    return log_loss(np.full(len(labels), base_rate), labels) - log_loss(probs, labels)


def log_loss(probs: Floats, labels: Bools) -> float:
    """Mean negative log-likelihood, nats per row."""
    sure = np.clip(probs, EDGE, 1 - EDGE)
    return float(-np.log(np.where(labels, sure, 1 - sure)).mean())


def _positive_share(part: float, whole: float) -> float:
    return max(part, 0.0) / whole if whole > 1e-6 else 0.0


def _log_odds(probs: Floats) -> Floats:
    return np.asarray(logit(np.clip(probs, EDGE, 1 - EDGE)))


def _pool_text(feature_sets: Mapping[str, Floats], column: int) -> Floats:
    log_odds = [_log_odds(feature_sets[name][:, column]) for name in ("text", "completion_residual")]
    return np.asarray(expit(np.mean(log_odds, axis=0)))


def _fit_blend(probs: list[Floats], labels: Bools, train: Bools) -> tuple[Floats, Floats]:
    """(probabilities [N], weights [feature sets]) of the best blend with weights >= 0, fitted on enough training rows."""
    sample = fitted_rows(train)
    chosen = np.flatnonzero(train) if sample is None else sample
    table = np.stack([_log_odds(values if values.ndim == 1 else values[:, 0]) for values in probs], axis=1)
    rows, signs = table[chosen], np.where(labels[chosen], 1.0, -1.0)
    even = 1 / len(probs)

    def cost(values: Floats) -> tuple[float, Floats]:
        margin = signs * (rows @ values[:-1] + values[-1])
        pull = -signs * expit(-margin)
        away = values[:-1] - even
        slope = np.append(rows.T @ pull + PENALTY * away, pull.sum())
        return float(np.logaddexp(0, -margin).sum() + PENALTY / 2 * away @ away), slope

    start = np.append(np.full(len(probs), even), 0.0)
    blend = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(probs) + [(None, None)]).x
    return expit(table @ blend[:-1] + blend[-1]), blend[:-1]

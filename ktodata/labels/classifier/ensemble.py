"""The feature sets put together: one out-of-fold probability, and how far labels follow the prompt.

How far answers to one prompt share their label says what the prompt's part is worth. Where it decides most labels nobody can tell
a hard question from a rater's habit, and sets that see the topic step back. Where answers to one prompt were set against each
other, as in pairs, each is compared with the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from ktodata.labels.classifier.features import fitted_rows
from ktodata.labels.evidence.evidence import MODEL_EDGE, log_odds_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.integer]

SEE_THE_TOPIC = ("text", "words")
PRIOR_ROWS = 30.0  # with siblings, at a correlation of 0: so many must speak against that
PENALTY = 10.0  # on how weights differ: a thousand rows outweigh it, some dozen do not
LEVEL_PENALTY = 1.0  # on their mean, towards 1 / feature sets; matters for tables of a few dozen rows only
TOPICAL = 0.1  # share of what the text says of the labels that the prompt alone says too, from which KD047 is raised
MIN_NATS = 10.0  # that the prompt says over all training rows; less may be chance


@dataclass(frozen=True)
class Siblings:
    """Answers to the same prompts, and how far they share their labels.

    group : int [N], 0 .. G - 1; correlation : of two labels in one group, in [-1, 1]
    size : mean rows in the group of a row that has siblings
    """

    group: Ints
    correlation: float
    size: float

    @property
    def topic_weight(self) -> float:
        """Of sets that see the topic: the share of the labels' variance within prompts less that between them; at least 0."""
        return 1 - 2 * min(max(self.correlation, 0.0), 0.5)

    @property
    def contrast(self) -> float:
        """How far labels of a group exclude each other: 1 where each holds the same share of either, 0 where they do not."""
        return min(max(-self.correlation * (self.size - 1), 0.0), 1.0)

    def against_each_other(self, log_odds: Floats) -> Floats:
        """Log-odds [N, L] less the mean of the row's group, as far as its labels exclude each other."""
        rows = np.bincount(self.group)
        means = np.stack([np.bincount(self.group, column) for column in log_odds.T], axis=1) / np.maximum(rows, 1)[:, None]
        shift = np.where(rows[:, None] > 1, means - log_odds.mean(axis=0), 0.0)
        return log_odds - self.contrast * shift[self.group]


@dataclass(frozen=True)
class Ensemble:
    """p_desirable : float [N, L], one column for each column of labels; weights and what each feature set says, in metrics."""

    p_desirable: Floats
    metrics: dict[str, Any]


def fit_ensemble(
    feature_sets: Mapping[str, Floats], prompt: Floats, labels: Bools, groups: Ints, train: Bools, *, weak_sources: int = 0
) -> Ensemble:
    """One probability from those of several feature sets: logistic regression on their log-odds, with weights >= 0.

    feature_sets : float [N, L] each, out of fold
    prompt : float [N], from the prompt alone, for the first column of labels: reported, and used for nothing
    labels : bool [N, L], as given first; groups : int [N], codes of prompts; train : bool [N]
    weak_sources : how many of the last columns are labels of weak sources: all sets weigh alike there: sources correct each other

    Weights are pulled towards each other. What predicts the given labels best need not find wrong ones best: mistakes that hang
    on the topic are learnt by every set that sees the topic. Those count as far as `Siblings.topic_weight` lets them.
    """
    given = labels.shape[1] - weak_sources
    siblings = siblings_of(labels[:, 0], groups, train)
    log_odds = {
        name: siblings.against_each_other(
            (siblings.topic_weight if name in SEE_THE_TOPIC else 1.0) * log_odds_of(each, edge=MODEL_EDGE)
        )
        for name, each in feature_sets.items()
    }
    blends = [_fit_blend([each[:, column] for each in log_odds.values()], labels[:, column], train) for column in range(given)]
    even = [
        expit(np.mean([log_odds_of(each[:, column], edge=MODEL_EDGE) for each in feature_sets.values()], axis=0))
        for column in range(given, labels.shape[1])
    ]
    probs = {name: each[:, 0] for name, each in feature_sets.items()} | {"prompt": prompt, "all": blends[0][0]}
    gain = {name: information_gain(each[train], labels[train, 0]) for name, each in probs.items()}
    topical = _positive_share(gain["prompt"], gain["all"])
    metrics = {
        "feature_sets": {name: {"information_gain_nats": round(value, 5)} for name, value in gain.items()},
        "weights": dict(zip(feature_sets, (round(float(weight), 3) for weight in blends[0][1]), strict=True)),
        "sibling_correlation": round(siblings.correlation, 4),
        "sibling_contrast": round(siblings.contrast, 4),
        "prompt_information_share": round(topical, 4),
        "labels_follow_the_prompt": bool(topical >= TOPICAL and gain["prompt"] * int(train.sum()) >= MIN_NATS),
    }
    return Ensemble(np.stack([*(p for p, _ in blends), *even], axis=1), metrics)


def siblings_of(labels: Bools, groups: Ints, train: Bools) -> Siblings:
    """How far labels of one prompt's training rows go together: the correlation of a row's label with the mean of its siblings'.

    Shrunk towards 0 by PRIOR_ROWS rows; 0 where no prompt has two rows.
    """
    _, group = np.unique(groups, return_inverse=True)
    group = group.reshape(-1)
    own = group[train]
    apart = labels[train] - labels[train].mean() if train.any() else np.zeros(0)
    rows, total = np.bincount(own, minlength=1), np.bincount(own, apart, minlength=1)
    has = rows[own] > 1
    others = (total[own] - apart)[has] / (rows[own][has] - 1)
    variance = float(np.square(apart).mean()) if len(apart) else 0.0
    correlation = float((apart[has] * others).sum() / max(variance * (has.sum() + PRIOR_ROWS), 1e-12))
    return Siblings(group, float(np.clip(correlation, -1, 1)), float(rows[own][has].mean()) if has.any() else 1.0)


def information_gain(probs: Floats, labels: Bools) -> float:
    """How much better than the base rate `probs` predicts `labels`: nats per row; 0 or less says nothing."""
    base_rate = float(np.clip(labels.mean(), MODEL_EDGE, 1 - MODEL_EDGE))
    return log_loss(np.full(len(labels), base_rate), labels) - log_loss(probs, labels)


def log_loss(probs: Floats, labels: Bools) -> float:
    """Mean negative log-likelihood, nats per row."""
    sure = np.clip(probs, MODEL_EDGE, 1 - MODEL_EDGE)
    return float(-np.log(np.where(labels, sure, 1 - sure)).mean())


def _positive_share(part: float, whole: float) -> float:
    return max(part, 0.0) / whole if whole > 1e-6 else 0.0


def _fit_blend(log_odds: list[Floats], labels: Bools, train: Bools) -> tuple[Floats, Floats]:
    """(probabilities [N], weights [feature sets]) of the best blend with weights >= 0, fitted on enough training rows."""
    sample = fitted_rows(train)
    chosen = np.flatnonzero(train) if sample is None else sample
    table = np.stack(log_odds, axis=1)
    rows, signs = table[chosen], np.where(labels[chosen], 1.0, -1.0)
    even = 1 / len(log_odds)

    def cost(values: Floats) -> tuple[float, Floats]:
        margin = signs * (rows @ values[:-1] + values[-1])
        pull = -signs * expit(-margin)
        level = values[:-1].mean() - even
        apart = values[:-1] - values[:-1].mean()
        slope = np.append(rows.T @ pull + PENALTY * apart + LEVEL_PENALTY * level, pull.sum())
        penalty = PENALTY / 2 * apart @ apart + LEVEL_PENALTY / 2 * len(log_odds) * level**2
        return float(np.logaddexp(0, -margin).sum() + penalty), slope

    start = np.append(np.full(len(log_odds), even), 0.0)
    blend = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(log_odds) + [(None, None)]).x
    return expit(table @ blend[:-1] + blend[-1]), blend[:-1]

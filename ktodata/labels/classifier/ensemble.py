"""The out-of-fold views put together: one probability, and whether labels follow what was asked or what was answered."""

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

EDGE = 1e-3  # probabilities are kept this far from 0 and 1: no view is surer than that
PROMPT_DRIVEN = 0.1  # share of what the text tells of the labels that the prompt alone tells too
PROMPT_SETTLES = 1 / 3  # from here on labels are mostly about what was asked, and the answer is too little to go by
ANSWER_TELLS = 0.25  # the topic-free view must tell this share of it, or there is nothing to go on with
MIN_NATS = 10.0  # over all training rows; what a prompt tells less of may be chance
PENALTY = 1.0  # on weights, towards an even blend; matters for tables of a few dozen rows only


@dataclass(frozen=True)
class Ensemble:
    """p_desirable : float [N, L], one column for each column of labels; weights and what each view tells, in facts."""

    p_desirable: Floats
    facts: dict[str, Any]


def fit_ensemble(views: Mapping[str, Floats], prompt: Floats, labels: Bools, train: Bools, *, further: int = 0) -> Ensemble:
    """One probability from those of several views: logistic regression on their log-odds, with weights >= 0.

    views : "text", "answer", "form" and others, float [N, L] each, out of fold
    prompt : float [N], from the prompt alone, for the first column of labels
    labels : bool [N, L]; train : bool [N]
    further : last columns, labels of other systems: text and answer count alike for them, as systems correct each other

    Where the prompt alone tells a good part (PROMPT_DRIVEN to PROMPT_SETTLES) of what the text tells of the labels, they follow
    the topic: either models fail there, or the rater dislikes it, and from labels and text nobody can say which. Then only
    `answer` is used, as the others learn the topic from the labels, unless it tells next to nothing.
    """
    given, base = labels[train, 0], float(np.clip(labels[train, 0].mean(), EDGE, 1 - EDGE))
    everything = _fitted(list(views.values()), labels[:, 0], train)
    worst = log_loss(np.full(len(given), base), given)
    told = {name: worst - log_loss(column[train, 0], given) for name, column in views.items()}
    told["prompt"], told["all"] = worst - log_loss(prompt[train], given), worst - log_loss(everything[0][train], given)
    by_prompt, by_answer = (_share(told.get(name, 0.0), told["all"]) for name in ("prompt", "answer"))
    seen = told["prompt"] * len(given) >= MIN_NATS
    driven = seen and PROMPT_DRIVEN <= by_prompt < PROMPT_SETTLES and by_answer >= ANSWER_TELLS
    used = ["answer"] if driven else list(views)
    columns, weights = [], np.zeros(len(used))
    for number in range(labels.shape[1]):
        if number >= labels.shape[1] - further:
            columns.append(expit(np.mean([_log_odds(views[name][:, number]) for name in ("text", "answer")], axis=0)))
            continue
        p, found = _fitted([views[name][:, number] for name in used], labels[:, number], train)
        columns.append(p)
        weights = found if number == 0 else weights
    facts = {
        "views": {name: {"nats_told_per_row": round(value, 5)} for name, value in told.items()},
        "weights": dict(zip(used, (round(float(weight), 3) for weight in weights), strict=True)),
        "prompt_information_share": round(by_prompt, 4),
        "labels_follow_the_prompt": bool(driven),
    }
    return Ensemble(np.stack(columns, axis=1), facts)


def log_loss(probs: Floats, labels: Bools) -> float:
    """Mean negative log-likelihood, nats per row."""
    sure = np.clip(probs, EDGE, 1 - EDGE)
    return float(-np.log(np.where(labels, sure, 1 - sure)).mean())


def _share(part: float, whole: float) -> float:
    return max(part, 0.0) / whole if whole > 1e-6 else 0.0


def _log_odds(probs: Floats) -> Floats:
    return np.asarray(logit(np.clip(probs, EDGE, 1 - EDGE)))


def _fitted(views: list[Floats], labels: Bools, train: Bools) -> tuple[Floats, Floats]:
    """(probabilities [N], weights [views]) of the best blend with weights >= 0, fitted on enough training rows."""
    sample = fitted_rows(train)
    chosen = np.flatnonzero(train) if sample is None else sample
    table = np.stack([_log_odds(view if view.ndim == 1 else view[:, 0]) for view in views], axis=1)
    rows, signs = table[chosen], np.where(labels[chosen], 1.0, -1.0)
    even = 1 / len(views)

    def cost(values: Floats) -> tuple[float, Floats]:
        margin = signs * (rows @ values[:-1] + values[-1])
        pull = -signs * expit(-margin)
        away = values[:-1] - even
        slope = np.append(rows.T @ pull + PENALTY * away, pull.sum())
        return float(np.logaddexp(0, -margin).sum() + PENALTY / 2 * away @ away), slope

    start = np.append(np.full(len(views), even), 0.0)
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(views) + [(None, None)]).x
    return expit(table @ found[:-1] + found[-1]), found[:-1]

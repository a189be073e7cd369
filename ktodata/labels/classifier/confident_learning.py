"""Confident learning: which labels disagree with out-of-sample probabilities more than chance allows.

The rules are those of Northcutt, Jiang and Chuang 2021 (arXiv:1911.00068) as cleanlab 2.9 applies them, and the answers are
equal to cleanlab's, row by row. Ties are broken by numpy's default sort because cleanlab breaks them so.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from ktodata.errors import DataError, LabelError, OneClassError, SettingError, ShapeError

FilterBy = Literal[
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
    "low_self_confidence",
    "low_normalized_margin",
]
RankBy = Literal["self_confidence", "normalized_margin"]
Probs = NDArray[np.floating]
Ints = NDArray[np.int64]

NEVER = 2.0  # threshold of a class that no label names: no probability reaches it
SLACK = 1e-6  # two probabilities nearer than this are equal
TINY = 1e-100


class NoiseMatrices(NamedTuple):
    """What the confident joint says about the noise, K classes.

    given_if_true : float [K, K], P(given = row | true = column); columns sum to 1
    true_if_given : float [K, K], P(true = row | given = column); columns sum to 1
    true_share : float [K], P(true)
    """

    given_if_true: NDArray[np.float64]
    true_if_given: NDArray[np.float64]
    true_share: NDArray[np.float64]


def find_label_issues(
    labels: ArrayLike | pl.Series,
    pred_probs: ArrayLike | pl.Series | pl.DataFrame,
    *,
    filter_by: FilterBy = "prune_by_noise_rate",
    return_indices_ranked_by: RankBy | None = None,
    frac_noise: float = 1.0,
    min_examples_per_class: int = 1,
    confident_joint: ArrayLike | None = None,
) -> NDArray[np.bool_] | Ints:
    """Which labels confident learning doubts: the same rows as `cleanlab.filter.find_label_issues`.

    labels : int [N] in 0 .. K-1, or bool [N] (false 0, true 1)
    pred_probs : float [N, K], out-of-sample probabilities; or float [N], the probability of class 1 (of "desirable")
    filter_by : how the set is chosen, as in cleanlab
    return_indices_ranked_by : give row numbers, most doubtful first, instead of a mask
    frac_noise : take only this share of the estimated noise, in [0, 1] (the prune_* methods and "both")
    min_examples_per_class : leave classes of so few rows alone
    confident_joint : float [K, K], counts of (given, true), when known from elsewhere

    Returns bool [N], true where the label is doubted; or int [<= N]. The set is as good as the probabilities.
    """
    given, probs = checked(labels, pred_probs)
    if filter_by not in get_args(FilterBy):
        raise SettingError(f"find_label_issues: filter_by is one of {', '.join(get_args(FilterBy))}; got {filter_by!r}.")
    if not 0 <= frac_noise <= 1:
        raise SettingError(f"find_label_issues: frac_noise is a fraction in [0, 1]; got {frac_noise}.")
    if filter_by in ("low_self_confidence", "low_normalized_margin"):
        issues = _lowest(given, probs, "self_confidence" if filter_by == "low_self_confidence" else "normalized_margin")
    else:
        joint = compute_confident_joint(given, probs) if confident_joint is None else np.asarray(confident_joint)
        issues = _filtered(given, probs, joint, filter_by, frac_noise, min_examples_per_class) & ~_agrees(given, probs)
    if return_indices_ranked_by is None:
        return issues
    found = np.flatnonzero(issues)
    return found[np.argsort(get_label_quality_scores(given, probs, method=return_indices_ranked_by)[issues])]


def get_label_quality_scores(
    labels: ArrayLike | pl.Series,
    pred_probs: ArrayLike | pl.Series | pl.DataFrame,
    *,
    method: RankBy = "self_confidence",
) -> Probs:
    """Label quality of each row, 1 sound .. 0 doubtful: the probability of the given label, or its margin over the best other.

    The same numbers as `cleanlab.rank.get_label_quality_scores`; arguments as in `find_label_issues`.
    """
    given, probs = checked(labels, pred_probs, one_class=True)
    own = probs[np.arange(len(given)), given]
    if method == "self_confidence":
        return np.asarray(own)
    others = probs.copy()
    others[np.arange(len(given)), given] = -np.inf
    return np.asarray((own - others.max(axis=1) + 1) / 2)


def confident_thresholds(labels: Ints, pred_probs: Probs) -> NDArray[np.float64]:
    """Mean probability of class k among the rows labelled k: float [K]; 2 for a class that no row is labelled."""
    classes = range(pred_probs.shape[1])
    means = [np.mean(pred_probs[:, k][labels == k]) if (labels == k).any() else NEVER for k in classes]
    return np.clip(means, 2 * SLACK, None)


def compute_confident_joint(labels: Ints, pred_probs: Probs, *, calibrate: bool = True) -> Ints:
    """Counts of (given class, confidently true class): int [K, K]; calibrated, its rows sum to the counts of the given labels."""
    n_classes = pred_probs.shape[1]
    confident, true = _confident_class(labels, pred_probs)
    # column by column, as cleanlab's lies: the order in which it is summed decides how half a row is rounded
    joint = np.zeros((n_classes, n_classes), np.int64, order="F")
    np.add.at(joint, (labels[confident], true[confident]), 1)
    np.fill_diagonal(joint, joint.diagonal().clip(min=1))
    return _calibrate(joint, np.bincount(labels, minlength=n_classes)) if calibrate else joint


def noise_matrices(confident_joint: Ints) -> NoiseMatrices:
    """Noise rates both ways from a calibrated confident joint. Assumes noise that depends on the true class alone."""
    counts = confident_joint.astype(float)
    by_given, by_true = counts.sum(axis=1), counts.sum(axis=0)
    return NoiseMatrices(
        given_if_true=counts / np.clip(by_true, TINY, None),
        true_if_given=counts.T / np.clip(by_given, TINY, None),
        true_share=by_true / max(by_true.sum(), TINY),
    )


def checked(
    labels: ArrayLike | pl.Series, pred_probs: ArrayLike | pl.Series | pl.DataFrame, *, one_class: bool = False
) -> tuple[Ints, Probs]:
    """Labels as int [N] and probabilities as float [N, K]; raises with the first thing that is wrong."""
    given = np.asarray(labels)
    probs = np.asarray(pred_probs)
    if probs.ndim == 1:
        probs = np.stack([1 - probs, probs], axis=1)
    if given.ndim != 1 or probs.ndim != 2 or len(given) != len(probs):
        raise ShapeError(
            f"labels must be [N] and pred_probs [N, K] (or [N], of class 1); got {list(given.shape)} and {list(probs.shape)}."
        )
    if given.dtype.kind not in "bui":
        raise LabelError(f"labels must be whole numbers 0 .. {probs.shape[1] - 1}, or true and false; got {given.dtype}.")
    given = given.astype(np.int64)
    if len(given) and not 0 <= given.min() <= given.max() < probs.shape[1]:
        raise LabelError(f"labels run from {given.min()} to {given.max()}; pred_probs has columns for 0 .. {probs.shape[1] - 1}.")
    outside = ~((probs >= -SLACK) & (probs <= 1 + SLACK)).all(axis=1)  # nan is outside, too
    if outside.any():
        raise DataError(
            f"pred_probs: {outside.sum():,} of {len(probs):,} rows are not all in [0, 1] (first: row {outside.argmax()}, "
            f"{probs[outside.argmax()].tolist()}). Give probabilities, not logits."
        )
    if not one_class and len(np.unique(given)) < 2:
        raise OneClassError(f"all {len(given):,} labels are the same: confident learning needs at least two classes.")
    return given, probs


def _confident_class(labels: Ints, pred_probs: Probs) -> tuple[NDArray[np.bool_], Ints]:
    """Whether a row is confidently of some class, and of which."""
    reached = pred_probs >= confident_thresholds(labels, pred_probs) - SLACK
    several = reached.sum(axis=1) > 1
    return np.asarray(reached.any(axis=1)), np.where(several, pred_probs.argmax(axis=1), reached.argmax(axis=1))


def _calibrate(joint: Ints, label_counts: Ints) -> Ints:
    scaled = (joint.T / np.clip(joint.sum(axis=1), TINY, None) * label_counts).T
    scaled = scaled / np.clip(scaled.sum(), TINY, None) * label_counts.sum()
    return np.stack([_round_keeping_sum(row) for row in scaled])


def _round_keeping_sum(values: NDArray[np.float64]) -> Ints:
    """Whole numbers with the same (rounded) sum; the values nearest to the next whole number give way."""
    whole = values.round()
    while missing := int(np.round(values.sum().round() - whole.sum())):
        step = 1 if missing > 0 else -1
        order = np.argsort(values - whole)[::-step]
        whole[order[: min(abs(missing), len(values))]] += step
    return whole.astype(np.int64)


def _filtered(
    given: Ints, probs: Probs, joint: NDArray[np.integer], filter_by: FilterBy, frac_noise: float, min_rows: int
) -> NDArray[np.bool_]:
    if filter_by == "predicted_neq_given":
        return np.asarray(probs.argmax(axis=1) != given)
    if filter_by == "confident_learning":
        confident, true = _confident_class(given, probs)
        return np.asarray(confident & (true != given))
    prune = _prune_counts(joint, keep=min_rows, frac_noise=frac_noise)
    by_rate = _prune(given, probs, prune, min_rows, by_class=False) if filter_by != "prune_by_class" else True
    by_class = _prune(given, probs, prune, min_rows, by_class=True) if filter_by != "prune_by_noise_rate" else True
    return np.asarray(by_rate & by_class)


def _prune_counts(joint: NDArray[np.integer], *, keep: int, frac_noise: float) -> Ints:
    """How many rows of given class (column) to doubt as truly of another (row): int [K, K]; each diagonal is at least `keep`."""
    counts = joint.T
    diagonal = np.maximum(counts.diagonal(), keep)
    others = np.maximum(np.count_nonzero(counts, axis=0) - 1.0, 1.0)
    pruned = np.maximum(counts - (diagonal - counts.diagonal()) / others, 0)
    np.fill_diagonal(pruned, diagonal)
    fewer = pruned * frac_noise
    np.fill_diagonal(fewer, pruned.diagonal())
    np.fill_diagonal(fewer, pruned.diagonal() + (pruned - fewer).sum(axis=0))
    return np.asarray(fewer.astype(np.int64))  # cut, not rounded, as cleanlab does


def _prune(given: Ints, probs: Probs, prune: Ints, min_rows: int, *, by_class: bool) -> NDArray[np.bool_]:
    issues = np.zeros(len(given), bool)
    for k in range(probs.shape[1]):
        rows = np.flatnonzero(given == k)
        if len(rows) > max(min_rows, 1):
            doubted = _least_probable(probs[rows], prune, k) if by_class else _largest_margin(probs[rows], prune, k)
            issues[rows[doubted]] = True
    return issues


def _least_probable(probs: Probs, prune: Ints, k: int) -> Ints:
    """Of the rows given class k (`probs` holds only them), the least probable."""
    return np.argsort(probs[:, k])[: max(len(probs) - prune[k, k], 0)]


def _largest_margin(probs: Probs, prune: Ints, k: int) -> Ints:
    """Of the rows given class k, those where another class j leads by most, as many for each j as the joint says."""
    others = [j for j in range(probs.shape[1]) if j != k and prune[j, k] > 0]
    chosen = [np.argsort(-(probs[:, j] - probs[:, k]))[: prune[j, k]] for j in others]
    return np.concatenate([*chosen, np.empty(0, np.int64)])


def _agrees(given: Ints, probs: Probs) -> NDArray[np.bool_]:
    """Where the given class is the most probable one, or within SLACK of it."""
    lifted = probs.copy()
    lifted[np.arange(len(given)), given] += SLACK
    return np.asarray(lifted.argmax(axis=1) == given)


def _lowest(given: Ints, probs: Probs, method: RankBy) -> NDArray[np.bool_]:
    confident, true = _confident_class(given, probs)
    count = int((confident & (true != given) & ~_agrees(given, probs)).sum())
    issues = np.zeros(len(given), bool)
    issues[np.argsort(get_label_quality_scores(given, probs, method=method))[:count]] = True
    return issues

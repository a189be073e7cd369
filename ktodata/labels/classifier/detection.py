"""The detector put together: out-of-fold probabilities, the confident-learning set, and flags as far as measured to hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.feedback import LABEL_NAMES
from ktodata.labels.classifier.ensemble import fit_ensemble
from ktodata.labels.classifier.features import Components
from ktodata.labels.classifier.noise_injection import (
    Identifiability,
    InjectedNoise,
    Recovery,
    class_average,
    identifiability,
    inject_flips,
    injected_figures,
    recovery,
    rows_to_flag,
    trust_curve,
    two_levels,
)
from ktodata.labels.classifier.out_of_fold import calibration_error, out_of_fold
from ktodata.labels.classifier.reviewed_flags import ReviewedFlags
from ktodata.stats import Interval
from ktodata.work_done import WorkDone

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ESTIMATE_IS = (
    "an estimate by confident learning of errors that fall at random given the true class, if the model is good; those that "
    "follow a rule look like signal and are not in it, and where the verdict is not 'identifiable' it may be far off either way"
)


@dataclass(frozen=True)
class LabelPredictions:
    """What models that never saw a row's own label say of it.

    p_desirable : float [N]; by_feature_set : the same from each feature set alone
    with_flips : float [N, R], of the labels with the flips that were injected; injected : those labels and flips
    fraction : share of each class that was flipped
    of_weak_sources : float [N, S], of the labels of each weak source
    metrics : how they were made; JSON values only
    """

    p_desirable: Floats
    by_feature_set: dict[str, Floats]
    with_flips: Floats
    injected: InjectedNoise
    fraction: float
    of_weak_sources: Floats
    metrics: dict[str, Any]


@dataclass(frozen=True)
class ClassDetection:
    """How well errors among the rows of one given class are found, and how many of these rows are flagged.

    error_rates : share of wrong labels in this class and in the other, by confident learning
    curve : expected precision by depth, as `trust_curve` makes it
    """

    recovery: Recovery
    identifiability: Identifiability
    error_rates: tuple[float, float]
    curve: pl.DataFrame
    rows: int
    flagged: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        at = self.curve.filter(pl.col("rows_acted_on") == self.flagged)
        ends = [at[f"expected_precision{end}"][0] if at.height else None for end in ("", "_low", "_high")]
        return {
            "rows": self.rows,
            "verdict": self.identifiability,
            "flagged": self.flagged,
            "expected_precision": Interval(*ends).as_dict(),
            "basis": self.curve["basis"][0],
            "error_rate_assumed": self.curve["error_rate_assumed"][0],
            "auroc_of_injected_flips": self.recovery.auroc.as_dict(),
            "injected_flips_at_this_depth": injected_figures(self.recovery, rows=self.rows, flagged=self.flagged),
        }


@dataclass(frozen=True)
class Detection:
    """is_label_issue, flagged : bool [N], false off the training rows.

    confident_joint : int [2, 2], counts of (given, true); classes : by given label
    two_levels : share of the variance of the probabilities that two levels explain
    """

    predictions: LabelPredictions
    is_label_issue: Bools
    flagged: Bools
    confident_joint: Ints
    two_levels: float
    classes: dict[bool, ClassDetection]

    @property
    def curve(self) -> pl.DataFrame:
        """The trust curves of both classes."""
        return pl.concat([each.curve for each in self.classes.values()])

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        joint = self.confident_joint
        return {
            "out_of_fold": self.predictions.metrics,
            "two_levels": self.two_levels,
            "label_noise_estimate": {
                "is": ESTIMATE_IS,
                "wrong": float((joint[0, 1] + joint[1, 0]) / max(joint.sum(), 1)),
                "confident_joint": joint.tolist(),
            },
            "injected_flips": {
                "fraction": self.predictions.fraction,
                "repeats": self.predictions.with_flips.shape[1],
                "auroc_averaged_over_given_classes": class_average([each.recovery for each in self.classes.values()]).as_dict(),
                "per_given_class": {LABEL_NAMES[given]: each.as_dict() for given, each in self.classes.items()},
            },
        }


def predict_labels(
    feature_sets: Mapping[str, Callable[[], Components]],
    labels: Bools,
    groups: NDArray[np.integer],
    train: Bools,
    weak_labels: Bools,
    *,
    fraction: float,
    folds: int,
    repeats: int,
    seed: int,
) -> LabelPredictions:
    """Predict labels out of fold: as they are given, with flips injected, and as weak sources give them.

    feature_sets : what makes the components of each; "prompt" only says how far labels follow it. Made one at a time, for memory.
    weak_labels : bool [N, S]
    fraction : share of each class that is flipped, `repeats` times
    """
    injected = inject_flips(labels, train, fraction=fraction, repeats=repeats, seed=seed)
    targets = np.hstack([labels[:, None], injected.labels, weak_labels])
    probs, fits, done = {}, {}, WorkDone("feature sets", len(feature_sets), even=False)
    for name, components in feature_sets.items():
        columns = targets[:, :1] if name == "prompt" else targets
        fit = out_of_fold(components(), columns, groups, train, folds=folds, seeds=repeats, seed=seed)
        probs[name], fits[name] = fit.p_desirable, fit.metrics
        done.add()
    prompt = probs.pop("prompt")[:, 0]
    ensemble = fit_ensemble(probs, prompt, targets, groups, train, weak_sources=weak_labels.shape[1])
    p_desirable, with_flips, of_weak_sources = np.split(ensemble.p_desirable, [1, 1 + repeats], axis=1)
    metrics = ensemble.metrics | {"fits": fits, "calibration": calibration_error(p_desirable[train, 0], labels[train])}
    by_feature_set = {name: values[:, 0] for name, values in probs.items()}
    return LabelPredictions(p_desirable[:, 0], by_feature_set, with_flips, injected, fraction, of_weak_sources, metrics)


def find_label_errors(
    predictions: LabelPredictions,
    labels: Bools,
    train: Bools,
    reviewed: ReviewedFlags | None,
    *,
    min_precision: float,
) -> Detection:
    """Measure on injected flips how well wrong labels are found among the training rows, and flag no further than it holds.

    reviewed : what reviewed rows calibrated, which then says what is flagged. Injected flips measure the models without votes and
        reviews, which know nothing of the flips.
    """
    is_issue, flagged = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    joint, is_issue[train] = confident_learning(labels[train], predictions.p_desirable[train])
    shares = {given: float(joint[int(given), 1 - int(given)] / joint[int(given)].sum()) for given in LABEL_NAMES}
    levels, classes = two_levels(predictions.p_desirable[train]), {}
    for given in LABEL_NAMES:
        in_class, rates = train & (labels == given), (shares[given], shares[not given])
        flips = recovery(predictions.with_flips, predictions.injected, train, given=given)
        verdict = identifiability(flips, levels, rates)
        rows = int(in_class.sum())
        if reviewed is not None:
            curve, count = reviewed.curve(in_class, given=given), int((reviewed.flagged & in_class).sum())
            flagged |= reviewed.flagged & in_class
        else:
            quality = predictions.p_desirable if given else 1 - predictions.p_desirable
            curve = _curve_on_flips(flips, rows, rates, verdict, predictions.fraction, given=given)
            # no row is flagged whose label the model thinks the likelier one
            against = int((in_class & (quality < 0.5)).sum()) if verdict == "identifiable" else 0
            count = rows_to_flag(curve, min_precision=min_precision, most=against)
            flagged |= _most_doubtful(quality, in_class, count)
        classes[given] = ClassDetection(flips, verdict, rates, curve, rows, count)
    return Detection(predictions, is_issue, flagged, joint, levels, classes)


def confident_learning(labels: Bools, p_desirable: Floats) -> tuple[NDArray[np.int64], Bools]:
    """Which labels disagree with out-of-sample probabilities more than chance allows, both labels being there (arXiv:1911.00068).

    Returns the confident joint, int [2, 2], counts of (given, true) class, undesirable first; and bool [N], the labels doubted.
    """
    from cleanlab.count import compute_confident_joint  # here, not above: loading cleanlab takes a second or more
    from cleanlab.filter import find_label_issues

    given, probs = labels.astype(np.int64), np.stack([1 - p_desirable, p_desirable], axis=1)
    joint = compute_confident_joint(given, probs)
    # in this process: for two classes, others would take longer to start than to answer
    return joint, find_label_issues(given, probs, confident_joint=joint, n_jobs=1)


def _curve_on_flips(
    flips: Recovery, rows: int, rates: tuple[float, float], verdict: Identifiability, fraction: float, *, given: bool
) -> pl.DataFrame:
    """The class's trust curve, measured on injected flips.

    Where the noise rate cannot be known it is taken to be no higher than that of the flips, so that the curve does not flatter.
    """
    assumed = rates if verdict == "identifiable" else (min(rates[0], fraction), 0.0)
    return trust_curve(flips.depths, rows=rows, error_rates=assumed, given=given, basis="injected flips")


def _most_doubtful(quality: Floats, in_class: Bools, count: int) -> Bools:
    chosen = np.zeros(len(quality), bool)
    rows = np.flatnonzero(in_class)
    chosen[rows[np.argsort(quality[rows], kind="stable")[:count]]] = True
    return chosen

"""The detector put together: out-of-fold probabilities, the confident-learning set, and flags as far as measured to hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.labels.classifier.ensemble import fit_ensemble
from ktodata.labels.classifier.features import Components
from ktodata.labels.classifier.noise_injection import (
    Recovery,
    class_average,
    inject_flips,
    of_real_errors,
    planted_figures,
    recovery,
    rows_to_flag,
    trust_curve,
    two_levels,
    verdict,
)
from ktodata.labels.classifier.out_of_fold import calibration_error, out_of_fold
from ktodata.labels.people.trusted import depths_of_errors
from ktodata.stats import Interval

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

NAMES = {False: "undesirable", True: "desirable"}
MIN_TRUSTED_ERRORS = 10  # of one given class, for its flags to be measured on trusted rows


@dataclass(frozen=True)
class Detection:
    """p_desirable : float [N]; is_label_issue, flagged : bool [N], false off the training rows; curve : expected precision.

    from_text : float [N], p_desirable before votes and reviews: from models that never saw the row's own label
    views : the same from each view alone
    """

    p_desirable: Floats
    from_text: Floats
    views: dict[str, Floats]
    is_label_issue: Bools
    flagged: Bools
    curve: pl.DataFrame
    facts: dict[str, Any]


def detect(
    views: Mapping[str, Callable[[], Components]],
    labels: Bools,
    groups: NDArray[np.integer],
    train: Bools,
    trusted: tuple[Bools, Bools],
    *,
    systems: Bools | None = None,
    refine: Callable[[Floats, Floats], Floats] = lambda p_desirable, of_systems: p_desirable,
    min_precision: float,
    plant: float,
    folds: int,
    repeats: int,
    seed: int,
) -> Detection:
    """Look for wrong labels among the training rows, measure how well that works here, and flag no further than it holds.

    views : what makes each view's components; "prompt" only says how far labels follow it. Made one at a time, for memory.
    trusted : bool [N] each: rows whose label was checked, and those of them where it was wrong. They are not trained on as such.
    systems : bool [N, S], labels of further systems, to be modelled as well
    refine : (p_desirable float [N], of the systems' labels float [N, S]) -> float [N]: what further votes and reviews make of it.
        Planted flips measure the model without it: votes and reviews know nothing of them.
    """
    planting = inject_flips(labels, train, fraction=plant, repeats=repeats, seed=seed)
    further = np.empty((len(labels), 0), bool) if systems is None else systems
    every = np.hstack([labels[:, None], planting.labels, further])
    flips = slice(1, 1 + planting.labels.shape[1])
    seen, fitted = {}, {}
    for name, components in views.items():
        asked = every[:, :1] if name == "prompt" else every
        one = out_of_fold(components(), asked, groups, train, folds=folds, seeds=repeats, seed=seed)
        seen[name], fitted[name] = one.p_desirable, one.facts
    prompt = seen.pop("prompt")[:, 0]
    predicted = fit_ensemble(seen, prompt, every, train, further=further.shape[1])
    p_desirable = predicted.p_desirable[:, 0]
    is_issue = np.zeros(len(labels), bool)
    joint, is_issue[train] = confident_learning(labels[train], p_desirable[train])
    rates = {given: float(joint[int(given), 1 - int(given)] / joint[int(given)].sum()) for given in NAMES}
    levels = two_levels(p_desirable[train])
    found = {given: recovery(predicted.p_desirable[:, flips], planting, train, given=given) for given in NAMES}
    refined = refine(p_desirable, predicted.p_desirable[:, flips.stop :])
    flagged, curves, per_class = np.zeros(len(labels), bool), [], {}
    for given, name in NAMES.items():
        in_class = train & (labels == given)
        told = verdict(found[given], levels, (rates[given], rates[not given]))
        p = refined if _errors_known(trusted, in_class) else p_desirable
        quality = p if given else 1 - p
        curve = _curve(found[given], quality, in_class, trusted, rates, given=given, known=told == "identifiable", plant=plant)
        trustworthy = told == "identifiable" or curve["basis"][0] == "trusted rows"
        against = int((in_class & (quality < 0.5)).sum())  # no row is flagged whose label the model thinks the likelier one
        count = rows_to_flag(curve, min_precision=min_precision, most=against) if trustworthy else 0
        flagged |= _lowest(quality, in_class, count)
        curves.append(curve)
        per_class[name] = _class_facts(found[given], told, curve, rates, given=given, rows=int(in_class.sum()), flagged=count)
    facts = {
        "out_of_fold": predicted.facts | {"fits": fitted, "calibration": calibration_error(p_desirable[train], labels[train])},
        "two_levels": levels,
        "label_noise_estimate": _noise_estimate(joint, rates, int(train.sum())),
        "planted": {
            "fraction": plant,
            "repeats": repeats,
            "auroc_averaged_over_given_classes": class_average(list(found.values())).as_dict(),
            "per_given_class": per_class,
        },
    }
    return Detection(
        refined, p_desirable, {name: one[:, 0] for name, one in seen.items()}, is_issue, flagged, pl.concat(curves), facts
    )


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


def _curve(
    found: Recovery,
    quality: Floats,
    in_class: Bools,
    trusted: tuple[Bools, Bools],
    rates: dict[bool, float],
    *,
    given: bool,
    known: bool,
    plant: float,
) -> pl.DataFrame:
    """The class's trust curve: from trusted rows if they hold enough errors, else from planted flips.

    Where the noise rate cannot be known it is taken to be no higher than the planted one, so that the curve does not flatter.
    """
    checked, wrong = trusted[0] & in_class, trusted[1] & in_class
    rows = int(in_class.sum())
    if _errors_known(trusted, in_class):
        depths, rate = depths_of_errors(quality, in_class, wrong), float(wrong.sum() / checked.sum())
        return trust_curve(depths, rows=rows, error_rates=(rate, 0.0), given=given, basis="trusted rows")
    assumed = (rates[given], rates[not given]) if known else (min(rates[given], plant), 0.0)
    return trust_curve(found.depths, rows=rows, error_rates=assumed, given=given, basis="planted flips")


def _errors_known(trusted: tuple[Bools, Bools], in_class: Bools) -> bool:
    """Whether enough errors of the class are known for its curve to be measured on them."""
    return int((trusted[1] & in_class).sum()) >= MIN_TRUSTED_ERRORS


def _lowest(quality: Floats, in_class: Bools, count: int) -> Bools:
    chosen = np.zeros(len(quality), bool)
    rows = np.flatnonzero(in_class)
    chosen[rows[np.argsort(quality[rows], kind="stable")[:count]]] = True
    return chosen


def _class_facts(
    found: Recovery, told: str, curve: pl.DataFrame, rates: dict[bool, float], *, given: bool, rows: int, flagged: int
) -> dict[str, Any]:
    at = curve.filter(pl.col("rows_acted_on") == flagged)
    ends = [at[f"expected_precision{end}"][0] if at.height else None for end in ("", "_low", "_high")]
    return {
        "rows": rows,
        "verdict": told,
        "flagged": flagged,
        "expected_precision": Interval(*ends).as_dict(),
        "basis": curve["basis"][0],
        "auroc_of_planted_flips": found.auroc.as_dict(),
        "auroc_of_real_errors_if_the_noise_is_as_estimated": of_real_errors(found, (rates[given], rates[not given])).as_dict(),
        "planted_flips_at_this_depth": planted_figures(found, rows=rows, flagged=flagged),
    }


def _noise_estimate(joint: NDArray[np.int64], rates: dict[bool, float], rows: int) -> dict[str, Any]:
    return {
        "is": "an estimate by confident learning, right only if the noise depends on the true class alone and the model is good; "
        "where the verdict is not 'identifiable' it may be far off either way",
        "wrong_among_given": {name: rates[given] for given, name in NAMES.items()},
        "wrong": float((joint[0, 1] + joint[1, 0]) / max(rows, 1)),
        "confident_joint": joint.tolist(),
    }

"""What is believed of each label: P(it is wrong) where something measured that, and the soft label that follows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.feedback import LABEL_NAMES
from ktodata.labels.actions import costs, soft_labels, wrong_by_random_flips
from ktodata.labels.label_classifier import Classifier, Learnt
from ktodata.labels.label_rows import LabelRows

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Beliefs:
    """p_wrong : float [N], a probability where `measured`, bool [N]. basis : what measured it in each given class.

    rows_by_raters : how many of these rows have it from raters whose agreement identifies it
    """

    p_wrong: Floats
    measured: Bools
    basis: dict[str, str | None]
    rows_by_raters: int

    def columns(self, rows: LabelRows) -> Mapping[str, pl.Series | pl.Expr]:
        """soft_label, and p_wrong where that is a probability."""
        verdict = rows.table["trusted_label"]
        trusted, truth = verdict.is_not_null().to_numpy(), verdict.fill_null(False).to_numpy()
        soft = soft_labels(rows.labels, self.p_wrong, self.measured, trusted, truth)
        return {"soft_label": pl.Series(soft), "p_wrong": pl.when(pl.Series(self.measured)).then(pl.Series(self.p_wrong))}

    def as_metrics(self) -> dict[str, Any]:
        """As JSON values."""
        by = {"p_wrong_measured_by": self.basis, "rows_by_raters": self.rows_by_raters}
        return {"label_action_costs": by | costs(self.p_wrong, self.measured).as_dict()}


def measure_beliefs(rows: LabelRows, classifier: Classifier, p_by_raters: pl.Series) -> Beliefs:
    """P(the given label is wrong) where that was measured: by reviews, agreement that identifies it, or random flips that show.

    p_by_raters : P(desirable) by raters who share rows, where their agreement identifies it; null elsewhere
    """
    p_wrong, measured = np.zeros(len(rows.labels)), np.zeros(len(rows.labels), bool)
    basis: dict[str, str | None] = {}
    if classifier.learnt:
        for given, name in LABEL_NAMES.items():
            basis[name], p = _measured_in_class(rows.labels, classifier.learnt, given)
            if basis[name] is not None:
                in_class = rows.labels == given
                p_wrong[in_class], measured[in_class] = p[in_class], True
    reviewed = classifier.learnt is not None and classifier.learnt.stacked is not None
    voted = np.zeros(len(rows.labels), bool) if reviewed else p_by_raters.is_not_null().to_numpy()
    if voted.any():
        by_raters = p_by_raters.fill_null(0.5).to_numpy()
        p_wrong, measured = np.where(voted, np.where(rows.labels, 1 - by_raters, by_raters), p_wrong), measured | voted
    measured &= rows.trained & rows.table["trusted_label"].is_null().to_numpy()
    return Beliefs(p_wrong, measured, basis, int((voted & measured).sum()))


def _measured_in_class(labels: Bools, learnt: Learnt, given: bool) -> tuple[str | None, Floats]:
    """What measured p_wrong among rows of one given class, None where nothing did; and p_wrong by it, float [N]."""
    refined, detection = learnt.p_desirable, learnt.detection
    p_wrong = np.where(labels, 1 - refined, refined)
    if learnt.stacked is not None:
        return "reviews", p_wrong
    if detection.classes[given].identifiability != "identifiable":
        return None, p_wrong
    by_flips = wrong_by_random_flips(detection.predictions.p_desirable, labels, detection.confident_joint)
    return "random flips, as identified", by_flips

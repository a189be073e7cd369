"""What is believed of each label: P(it is wrong) where reviewed rows measured that, and the soft label that follows."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.feedback import LABEL_NAMES
from ktodata.labels.actions import costs, soft_labels, softening_shown
from ktodata.labels.label_classifier import Classifier
from ktodata.labels.label_rows import LabelRows
from ktodata.labels.people.calibration import Calibration
from ktodata.stats import Interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NOT_MEASURED = Interval(None, None, None)


@dataclass(frozen=True)
class Beliefs:
    """calibration : of P(label is wrong) by reviewed rows; None without enough of them, or where the draw refutes it, and then
    nothing acts.

    measured : bool [N], training rows that nobody reviewed, where there is one: of a given label with enough drawn rows
    unmeasured : training rows of each other label that nobody reviewed
    expected : share of those that are wrong: by p, with the ends that the random draw leaves open; value None: p lies outside
    softening : share of what wrong labels cost that soft labels take away, by reviewed rows; where that may be nothing, or less,
    soft labels are the labels
    """

    calibration: Calibration | None
    measured: Bools
    unmeasured: Mapping[str, int] = field(default_factory=dict)
    expected: Interval = NOT_MEASURED
    softening: Interval = NOT_MEASURED

    def columns(self, rows: LabelRows) -> Mapping[str, pl.Series | pl.Expr]:
        """soft_label; p_wrong and the least that reviewed rows leave open of it, p_wrong_low, where that was measured."""
        verdict = rows.table["trusted_label"]
        trusted, truth = verdict.is_not_null().to_numpy(), verdict.fill_null(False).to_numpy()
        p, low, softened = self._chances()
        soft = soft_labels(rows.labels, softened, self.measured, trusted, truth)
        where = pl.when(pl.Series(self.measured))
        return {"soft_label": pl.Series(soft), "p_wrong": where.then(pl.Series(p)), "p_wrong_low": where.then(pl.Series(low))}

    def as_metrics(self) -> dict[str, Any]:
        """As JSON values."""
        p, low, softened = self._chances()
        metrics: dict[str, Any] = {"label_action_costs": costs(p, low, softened, self.measured).as_dict()}
        metrics["unmeasured"] = dict(self.unmeasured)
        if self.calibration is not None:
            of_class = self.calibration.borne_out(self.measured)
            metrics["borne_out"] = {LABEL_NAMES[given]: asdict(each) for given, each in of_class.items()}
            metrics["softening"] = self.softening.as_dict()
        if self.calibration is not None or self.expected.low is not None:
            metrics["expected_wrong"] = self.expected.as_dict()
        return metrics

    def _chances(self) -> tuple[Floats, Floats, Floats]:
        """p_wrong, its low end, and what soft labels take: float [N] each."""
        if self.calibration is None:
            nothing = np.zeros(len(self.measured))
            return nothing, nothing, nothing
        softened = self.calibration.least_sure if (self.softening.low or 0.0) > 0 else np.zeros(len(self.measured))
        return self.calibration.p_wrong, self.calibration.p_wrong_low, softened


def measure_beliefs(rows: LabelRows, classifier: Classifier, trusted: Mapping[str, Any]) -> Beliefs:
    """P(the given label is wrong), and how far reviewed rows bear it out. trusted : as `reviewed_metrics` gives them"""
    calibration, nothing = classifier.learnt.calibration if classifier.learnt else None, np.zeros(len(rows.labels), bool)
    if calibration is None:
        return Beliefs(None, nothing)
    unjudged = rows.trained & rows.table["trusted_label"].is_null().to_numpy()
    measured = unjudged & calibration.measured
    left_out = {LABEL_NAMES[given]: int((unjudged & ~measured & (rows.labels == given)).sum()) for given in LABEL_NAMES}
    unmeasured = {name: count for name, count in left_out.items() if count}
    if not measured.any():
        return Beliefs(None if unmeasured else calibration, measured, unmeasured)
    low, high = _left_open(rows, measured, trusted)
    value = float(calibration.p_wrong[measured].mean())
    if low <= value <= high and not trusted["draw_refuted"]:  # the draw's ends are exact, whatever p is
        shown = softening_shown(calibration.least_sure, calibration.wrong, calibration.counts, rows.labels, measured)
        return Beliefs(calibration, measured, unmeasured, Interval(value, low, high), shown)
    return Beliefs(None, nothing, expected=Interval(None, low, high))


def _left_open(rows: LabelRows, measured: Bools, trusted: Mapping[str, Any]) -> tuple[float, float]:
    """The ends that the random draw, of one label or both, leaves open of the share of wrong ones among the measured rows."""
    given = np.unique(rows.labels[measured])
    drawable = rows.bools("drawable") & np.isin(rows.labels, given)
    of = trusted if len(given) == len(LABEL_NAMES) else trusted[LABEL_NAMES[bool(given[0])]]
    open_rows, known_wrong = int((measured & drawable).sum()), int((rows.wrong & drawable).sum())
    ends = [(of["error_rate"][end], default) for end, default in (("low", 0.0), ("high", 1.0))]
    wrong = [(default if end is None else end) * of["rates_of"] - known_wrong for end, default in ends]
    low, high = (min(max(rows / max(open_rows, 1), 0.0), 1.0) for rows in wrong)
    return low, high

"""What is believed of each label: P(it is wrong) where reviewed rows measured that, and the soft label that follows."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.labels.actions import costs, soft_labels
from ktodata.labels.label_classifier import Classifier
from ktodata.labels.label_rows import LabelRows
from ktodata.labels.people.calibration import Calibration
from ktodata.stats import Interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NOT_MEASURED = Interval(None, None, None)


@dataclass(frozen=True)
class Beliefs:
    """calibration : of P(label is wrong) by reviewed rows; None without enough of them, and then nothing acts.

    measured : bool [N], training rows that nobody reviewed, where there is one
    open_rows, known_wrong : of the rows that a random draw is made of, how many nobody reviewed, and how many are known as wrong
    """

    calibration: Calibration | None
    measured: Bools
    open_rows: int = 0
    known_wrong: int = 0

    def columns(self, rows: LabelRows) -> Mapping[str, pl.Series | pl.Expr]:
        """soft_label; p_wrong and the least that reviewed rows leave open of it, p_wrong_low, where that was measured."""
        verdict = rows.table["trusted_label"]
        trusted, truth = verdict.is_not_null().to_numpy(), verdict.fill_null(False).to_numpy()
        p, low, softened = self._chances()
        soft = soft_labels(rows.labels, softened, self.measured, trusted, truth)
        where = pl.when(pl.Series(self.measured))
        return {"soft_label": pl.Series(soft), "p_wrong": where.then(pl.Series(p)), "p_wrong_low": where.then(pl.Series(low))}

    def as_metrics(self, trusted: Mapping[str, Any]) -> dict[str, Any]:
        """As JSON values. trusted : as `reviewed_metrics` gives them"""
        p, low, softened = self._chances()
        metrics: dict[str, Any] = {"label_action_costs": costs(p, low, softened, self.measured).as_dict()}
        if self.calibration is None:
            return metrics
        return metrics | {
            "borne_out": asdict(self.calibration.borne_out(self.measured)),
            "expected_wrong": self._expected_wrong(trusted),
        }

    def _expected_wrong(self, trusted: Mapping[str, Any]) -> dict[str, float | None]:
        """Share of the measured rows that are wrong: by p, with the ends that the random draw leaves open.

        Those of p itself hang on how p is taken to be off; the draw's are exact, whatever p is.
        """
        assert self.calibration is not None
        if not self.measured.any():
            return NOT_MEASURED.as_dict()
        ends = [(trusted["error_rate"][end], default) for end, default in (("low", 0.0), ("high", 1.0))]
        wrong = [(default if end is None else end) * trusted["rates_of"] - self.known_wrong for end, default in ends]
        low, high = (min(max(rows / max(self.open_rows, 1), 0.0), 1.0) for rows in wrong)
        value = float(self.calibration.p_wrong[self.measured].mean())
        return Interval(min(max(value, low), high), low, high).as_dict()

    def _chances(self) -> tuple[Floats, Floats, Floats]:
        """p_wrong, its low end, and what soft labels take: float [N] each."""
        if self.calibration is None:
            nothing = np.zeros(len(self.measured))
            return nothing, nothing, nothing
        return self.calibration.p_wrong, self.calibration.p_wrong_low, self.calibration.least_sure


def measure_beliefs(rows: LabelRows, classifier: Classifier) -> Beliefs:
    """P(the given label is wrong), and how far reviewed rows bear it out."""
    calibration = classifier.learnt.calibration if classifier.learnt else None
    if calibration is None:
        return Beliefs(None, np.zeros(len(rows.labels), bool))
    measured = rows.trained & rows.table["trusted_label"].is_null().to_numpy()
    drawable = rows.bools("drawable")
    return Beliefs(calibration, measured, int((measured & drawable).sum()), int((rows.wrong & drawable).sum()))

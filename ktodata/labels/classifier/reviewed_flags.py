"""What is flagged where reviewed rows have calibrated P(the label is wrong), and what they show of the flags."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.labels.classifier.noise_injection import CURVE_POINTS
from ktodata.stats import clopper_pearson

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ReviewedFlags:
    """p_wrong : float [N], calibrated on reviewed rows, theirs out of fold. reviewed, wrong, flagged : bool [N]

    flagged : training rows that `people/calibration.py` finds likely enough to be wrong
    """

    p_wrong: Floats
    reviewed: Bools
    wrong: Bools
    flagged: Bools

    def curve(self, in_class: Bools, *, given: bool) -> pl.DataFrame:
        """`trust_curve` of one given class: the mean p_wrong of the n most doubtful rows; intervals by the reviewed ones."""
        ordered = np.sort(self.p_wrong[in_class])[::-1]
        acted = np.unique(np.geomspace(1, max(len(ordered) // 2, 1), CURVE_POINTS).round().astype(np.int64))
        acted = np.unique(np.append(acted, (self.flagged & in_class).sum()))
        acted = acted[(acted > 0) & (acted <= len(ordered))]
        total = np.cumsum(ordered)[acted - 1]
        reviewed, wrong = (self._as_doubtful(rows & in_class, ordered[acted - 1]) for rows in (self.reviewed, self.wrong))
        low, high = clopper_pearson(wrong, reviewed)
        all_wrong, recall = max(float(ordered.sum()), 1e-9), total / max(float(ordered.sum()), 1e-9)
        return pl.DataFrame(
            {"given": [given] * len(acted), "basis": ["trusted rows"] * len(acted), "rows_acted_on": acted, "recall": recall}
            | {f"recall_{end}": np.minimum(1, acted * each / all_wrong) for end, each in (("low", low), ("high", high))}
            | {"expected_precision": total / acted, "expected_precision_low": low, "expected_precision_high": high}
            | {"error_rate_assumed": [float(ordered.mean()) if len(ordered) else 0.0] * len(acted)}
        )

    def _as_doubtful(self, rows: Bools, thresholds: Floats) -> NDArray[np.int64]:
        own = np.sort(self.p_wrong[rows])
        return np.asarray(len(own) - np.searchsorted(own, thresholds, side="left"))

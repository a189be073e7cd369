"""What every piece of evidence on labels gives: log-odds of each row, what they are made of, and what calibrated them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

EDGE = 1e-6
MODEL_EDGE = 1e-3  # a model's probabilities are kept this far from 0 and 1: none of texts is surer than that


@dataclass(frozen=True)
class Evidence:
    """How far each row can be believed to be desirable, by one account.

    log_odds : float [N], of the row being truly desirable; 0 says nothing of either, nan where there is nothing to say of a row
    needs : columns or inputs that it was made of
    calibrated_on : what made its log-odds those of a probability; None: an order only
    metrics : how it was made; JSON values only
    """

    name: str
    log_odds: Floats
    needs: tuple[str, ...]
    calibrated_on: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> Bools:
        """Rows that it says something of: bool [N]."""
        return np.isfinite(self.log_odds)

    @property
    def pull(self) -> Floats:
        """The same in [-1, 1], + for desirable: float [N]."""
        return np.asarray(2 * expit(self.log_odds) - 1)

    def quality(self, labels: Bools) -> Floats:
        """How far it lets each label be believed: float [N], 1 sound .. 0 doubtful. labels : bool [N]"""
        return np.asarray(expit(np.where(labels, self.log_odds, -self.log_odds)))


def log_odds_of(probability: Floats, *, edge: float = EDGE) -> Floats:
    """Log-odds of probabilities in [0, 1], kept `edge` away from 0 and 1; nan stays nan: float of the same shape."""
    return np.asarray(logit(np.clip(probability, edge, 1 - edge)))


def from_quality(quality: Floats, labels: Bools) -> Floats:
    """Log-odds of being desirable, of a quality of labels (1 sound .. 0 doubtful): float [N]. labels : bool [N]"""
    return log_odds_of(np.where(labels, quality, 1 - quality))

"""What a vote is worth beside the text, measured by how well it foretells the other votes on its row.

    log-odds that a vote says desirable = a + b x (log-odds by the text) + c x (votes for - votes against, without this one)

fitted to all votes of rows with two or more by different people, as far as that is known. c is the worth of a vote in nats. That
orders rows; it is no probability of the truth, as votes may share their errors: what each is worth for that, reviewed rows say
(stacking.py).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ktodata.labels.evidence.evidence import MODEL_EDGE, log_odds_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_SHARED = 10  # rows with two votes or more; under that raters cannot be compared
STEPS = 30


@dataclass(frozen=True)
class VoteWorth:
    """text : slope of the text's log-odds; vote : nats of one vote; neither under 0"""

    text: float
    vote: float

    def order(self, text: Floats, up: Ints, down: Ints) -> Floats:
        """p_desirable by text and votes together, an order: float [N]. text : its p_desirable"""
        return np.asarray(expit(self.text * log_odds_of(text, edge=MODEL_EDGE) + self.vote * (up - down)))


def vote_worth(text: Floats, up: Ints, down: Ints) -> VoteWorth | None:
    """What text and votes are worth beside each other. None where few rows have two votes.

    text : p_desirable by the text, float [N]; up, down : int [N], votes on the row, each of somebody else
    """
    several = up + down > 1
    if several.sum() < MIN_SHARED:
        return None
    up, down, balance, known = up[several], down[several], (up - down)[several], log_odds_of(text[several], edge=MODEL_EDGE)
    design = np.column_stack([np.ones(2 * len(up)), np.tile(known, 2), np.concatenate([balance - 1, balance + 1])])
    verdicts, times = np.repeat([1.0, 0.0], len(up)), np.concatenate([up, down]).astype(float)
    weights = np.zeros(3)
    for _ in range(STEPS):
        chance = expit(design @ weights)
        slope = design.T @ (times * (verdicts - chance)) - weights  # a priori N(0, 1) each
        move = np.linalg.solve((design.T * (times * chance * (1 - chance))) @ design + np.eye(3), slope)
        weights += move / max(1, np.abs(move).max())
        if np.abs(move).max() < 1e-6:
            break
    return VoteWorth(max(float(weights[1]), 0.0), max(float(weights[2]), 0.0))

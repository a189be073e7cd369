"""What the next reviews are expected to buy, by the audit's own p."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktodata.pipeline.audit import SECONDS_A_ROW
from ktodata.review.queue import ReviewQueue

STEPS = (30, 60, 120, 240)  # rows
MIN_FOR_A_PACE = 5  # verdicts


@dataclass(frozen=True)
class ExpectedGain:
    """What so many reviews are expected to find; None where p was not measured.

    wrong_labels : of the rows looked at
    cost : training cost taken away, in wrong labels (labels/actions.py: a wrong label costs 1); cost_share : of all open rows'
    """

    rows: int
    minutes: float
    wrong_labels: float | None
    cost: float | None
    cost_share: float | None


def buys(queue: ReviewQueue, left: NDArray[np.int64], rows: int, seconds_a_row: float) -> ExpectedGain:
    """The next `rows` rows of those left. left : places in the order of the queue, int [<= N]"""
    taken = left[:rows]
    minutes = len(taken) * seconds_a_row / 60
    if not queue.measured:
        return ExpectedGain(len(taken), minutes, None, None, None)
    cost, total = float(queue.worth[taken].sum()), float(queue.worth[left].sum())
    return ExpectedGain(len(taken), minutes, float(queue.p_wrong[taken].sum()), cost, cost / total if total else 0.0)


def pace(seconds: list[float]) -> float:
    """Seconds a row takes: the median of what was seen, or SECONDS_A_ROW while that is too little to tell."""
    return max(float(np.median(seconds)), 1.0) if len(seconds) >= MIN_FOR_A_PACE else SECONDS_A_ROW

"""Every row that nobody has judged yet, in the order in which its review is worth most, and what the next reviews should buy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktodata.labels.people.trusted import draw_order
from ktodata.pipeline.audit import LabelAudit

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
OUTLOOK_ROWS = (30, 60, 120, 240)  # rows
MIN_TIMED_VERDICTS = 5  # verdicts


@dataclass(frozen=True)
class ReviewQueue:
    """The order, as places in the audit's table.

    order : int [open rows]; first those of LabelAudit.next_reviews, a random draw before all others
    drawn : bool [N], rows that were drawn at random: they measure the labels
    held : bool [N], rows that are out of the data until somebody judges them
    seed : of that draw
    p_wrong : float [N], P(the given label is wrong), in [0, 1]; `measured` says whether it may be read as a probability
    """

    order: Ints
    drawn: Bools
    held: Bools
    p_wrong: NDArray[np.float64]
    measured: bool
    seed: int = 0

    def why(self, place: int) -> str:
        """Why a row is asked about: "measures" (drawn at random), "held" (out of the data until judged) or "gain"."""
        return "measures" if self.drawn[place] else "held" if self.held[place] else "gain"

    @property
    def worth(self) -> NDArray[np.float64]:
        """What a review takes away of each row's cost in training, p (1 - p): float [N] (labels/actions.py)."""
        return self.p_wrong * (1 - self.p_wrong)


def build_queue(audit: LabelAudit, count: int) -> ReviewQueue:
    """Every open row of an audit: first `count` rows as next_reviews gives them, and all of the draw that the headline asks for;
    then the others by p (1 - p).

    next_reviews takes the rows one after the other, each unlike those before it, which is too slow for all of them. The audit
    learns from a sitting's verdicts when the run is made again, and the next sitting is lined up anew. Equal rows, and all where
    nothing was learnt of the labels, stand in random order.
    """
    table = audit.table
    p_wrong, held = audit.p_wrong, audit.waits
    open_rows = audit.trained & audit.unjudged
    first_rows = audit.next_reviews(max(count, audit.draw_to_judge))
    places = dict(zip(table["row_id"], range(table.height), strict=True))
    first = np.array([places[row_id] for row_id in first_rows["row_id"]], dtype=np.int64)
    drawn = np.zeros(table.height, bool)
    drawn[first[(first_rows["why"] == "measures").to_numpy()]] = True
    if "not_learnt" in audit.metrics:
        drawn |= open_rows
    open_rows |= held
    open_rows[first] = False
    random = draw_order(table["row_id"], audit.seed)
    rest = random[open_rows[random]]
    worth = p_wrong * (1 - p_wrong)
    order = np.concatenate([first, rest[np.argsort(-worth[rest], kind="stable")]])
    return ReviewQueue(order, drawn, held, p_wrong, audit.p_wrong_was_measured, audit.seed)


@dataclass(frozen=True)
class ExpectedGain:
    """What so many reviews are expected to find; None where p was not measured. minutes : None where the pace is not known.

    wrong_labels : among the rows judged
    cost : training cost taken away, in wrong labels (labels/actions.py: a wrong label costs 1); cost_share : of all open rows'
    """

    rows: int
    minutes: float | None
    wrong_labels: float | None
    cost: float | None
    cost_share: float | None


def expected_gain(queue: ReviewQueue, left: Ints, rows: int, seconds_a_row: float | None) -> ExpectedGain:
    """The next `rows` rows of those left. left : places in the order of the queue, int [<= N]"""
    taken = left[:rows]
    minutes = None if seconds_a_row is None else len(taken) * seconds_a_row / 60
    if not queue.measured:
        return ExpectedGain(len(taken), minutes, None, None, None)
    cost, total = float(queue.worth[taken].sum()), float(queue.worth[left].sum())
    return ExpectedGain(len(taken), minutes, float(queue.p_wrong[taken].sum()), cost, cost / total if total else 0.0)


def seconds_per_row(seconds: list[float]) -> float | None:
    """Seconds a row takes: the median so far; None while fewer than MIN_TIMED_VERDICTS are timed."""
    return max(float(np.median(seconds)), 1.0) if len(seconds) >= MIN_TIMED_VERDICTS else None

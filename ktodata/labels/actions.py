"""What to do about each label: what it costs training to leave it, soften it, drop it, relabel it or have it reviewed.

Training pulls a completion up (+1) or down (-1). Let c in [-1, 1] be the pull a row is given, y = +1 or -1 the right one, and
p = P(the given label is wrong). A row's cost is the expected squared error E[(c - y)^2] / 4, lower is better:

    keep       c = the label      p
    drop       c = 0              1/4
    relabel    c = minus it       1 - p
    soften     c = E[y]           p (1 - p)     the least there is without asking anyone
    review     c = y              0

So a row is better dropped than kept when p > 1/4 and better relabelled than dropped when p > 3/4; a soft label beats all three,
and a review is worth p (1 - p) more. That holds for a p that is a probability; where p was not measured, only keeping is left.
What is measured has an interval (people/calibration.py): rows are dropped and labels turned by its low end, so that of the turned
labels RELABEL_FROM or more were wrong, and a soft label takes the end nearer to 1/2. That end is no best guess, and a p may be
off: so labels are softened only where reviewed rows show that it takes cost away.
Models have not confirmed that order: trained on XSTest, relabelling from 1/2 on and dropping nothing did at least as well as soft
labels (tests/benchmarks/LOG.md). A cost says what a row's pull gets wrong, not what a model makes of it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ktodata.labels.evidence.evidence import MODEL_EDGE
from ktodata.stats import Interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

DROP_FROM = 1 / 4
RELABEL_FROM = 0.8  # over the 3/4 from which it pays: of the labels that are turned, so many at least are to be wrong
LABEL_ACTIONS = ("drop", "relabel", "drop_and_relabel", "soften")
LEVEL = 0.95  # to one side, of all that decides what acts on a label


@dataclass(frozen=True)
class Costs:
    """Mean cost of a row whose p is known, under each label action.

    drop : rows that are likely wrong are dropped. relabel : those that surely are take the other label. drop_and_relabel : both
    """

    rows: int
    keep: float
    drop: float
    relabel: float
    drop_and_relabel: float
    soften: float

    def as_dict(self) -> dict[str, Any]:
        """As JSON values, with the share of keep's cost that each action takes away."""
        saved = {name: 1 - getattr(self, name) / self.keep if self.keep > 0 else 0.0 for name in LABEL_ACTIONS}
        return {
            "is": "expected squared error of a row's pull in training, / 4; 0 is best, 1 is a wrong label",
            "rows": self.rows,
            "cost": {name: getattr(self, name) for name in ("keep", *LABEL_ACTIONS)},
            "share_of_cost_taken_away": saved,
        }


def costs(p_wrong: Floats, low: Floats, softened: Floats, known: Bools) -> Costs:
    """What each label action costs, by the best estimate of p.

    p_wrong, low, softened : float [N], the best estimate, its low end, and the p that the soft label takes; known : bool [N]
    """
    p, low, softened = p_wrong[known], low[known], softened[known]
    if not len(p):
        return Costs(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    drop, turned = np.where(low > DROP_FROM, 1 / 4, p), low >= RELABEL_FROM
    each = (p, drop, np.where(turned, 1 - p, p), np.where(turned, 1 - p, drop), (softened - p) ** 2 + p * (1 - p))
    return Costs(len(p), *(float(cost.mean()) for cost in each))


def softening_shown(softened: Floats, wrong: Bools, counts: Floats, labels: Bools, open_rows: Bools) -> Interval:
    """Share of what wrong labels cost that soft labels take away, as drawn rows show it, with ends by Student's t.

    softened : float [N], P(wrong) that soft labels take, of reviewed rows by fits that saw no review of their prompt group
    wrong : bool [N], read where counts > 0. counts : float [N], what a reviewed row counts for, 0 where nobody reviewed
    labels : bool [N], within each of which rows were drawn. open_rows : bool [N], those that would be softened
    value : None where a label with open rows has too few reviewed ones to say, or none of them is wrong
    """
    gain, sums, freedom = wrong - (softened - wrong) ** 2, np.zeros(3), 0.0
    for given in (False, True):
        rows = labels == given
        share, own, number = (open_rows & rows).sum() / open_rows.sum(), counts * rows, (counts * rows).sum()
        if not share:
            continue
        if number <= 1:
            return Interval(None, None, None)
        mean = own @ gain / number
        variance = own @ (gain - mean) ** 2 / (number * (number - 1))
        sums += (share * mean, share**2 * variance, share * (own @ wrong) / number)
        freedom += number - 1
    if not sums[2]:
        return Interval(None, None, None)
    value, reach = sums[0] / sums[2], stdtrit(freedom, LEVEL) * np.sqrt(sums[1]) / sums[2]
    return Interval(float(value), float(value - reach), min(float(value + reach), 1.0))


def wrong_by_random_flips(p_desirable: Floats, labels: Bools, confident_joint: NDArray[np.int64]) -> Floats:
    """P(the given label is wrong | text, label) if labels were flipped by class and chance alone: float [N].

    p_desirable : float [N], P(the *given* label is desirable | text), out of fold
    confident_joint : int [2, 2], counts of (given, true)

    With a = P(given desirable | truly undesirable), b = P(given undesirable | truly desirable) and t = P(truly desirable | text),
    p_desirable = t (1 - b) + (1 - t) a, from which t, and by Bayes the share of a label that is flipped.
    """
    given_if_true = confident_joint / np.maximum(confident_joint.sum(axis=0), 1)
    a, b = float(given_if_true[1, 0]), float(given_if_true[0, 1])
    p = np.clip(p_desirable, MODEL_EDGE, 1 - MODEL_EDGE)
    t = np.clip((p - a) / max(1 - a - b, MODEL_EDGE), 0, 1)
    up, down = (1 - t) * a, t * b
    return np.where(
        labels, up / np.maximum(up + t * (1 - b), MODEL_EDGE), down / np.maximum(down + (1 - t) * (1 - a), MODEL_EDGE)
    )


def soft_labels(labels: Bools, p_wrong: Floats, known: Bools, reviewed: Bools, truth: Bools) -> Floats:
    """P(truly desirable) for the trainer's signed weight: float [N].

    A reviewed row has its verdict, a row whose p_wrong is known its probability, every other row its label for certain.
    labels, known, reviewed, truth : bool [N]; truth is read on reviewed rows only
    """
    soft = np.where(known, np.where(labels, 1 - p_wrong, p_wrong), labels.astype(np.float64))
    return np.asarray(np.where(reviewed, truth.astype(np.float64), soft))

"""What a P(label is wrong) may do to labels: no more than reviewed rows of the same given label bear out.

The p of a fit to a few reviews may be off. Its log-odds are taken to be off by a shift, within each given label one for all rows
from 1/2 on, which it believes to be wrong, and one for all others:

    P(wrong | a) = sigmoid(logit p + a),      a ~ N(0, 1)

Reviewed rows, each with the p of fits that saw no review of its prompt group, give the posterior of a: its mean the best
estimate of every row's p, its ends (95 % to each side) an interval [low, high] of it. Of m reviewed rows of one label and prompt
group each counts as 1 / (1 + (m - 1) r), where r is how far two of them are wrong together, as measured on all of that label.

A soft label takes the p of that interval that is nearest to 1/2. A label is turned where even `low` reaches a line, and enough
of the reviewed rows that do so are wrong: the exact lower end (95 % to one side) of their share is over SHARE_WRONG, as of 9
wrong ones of 9, or 13 of 14. A row is dropped where `low` is over DROP_FROM, and by that end so is the share of wrong ones among
the reviewed rows that would be dropped, too. So a fit that is sure where nobody looked turns nothing, and luck in the draw rarely
turns much. That is for one look: tried again after each 30 reviews up to 600, with 68 % of such rows wrong it opens at some look
in 8 of 100 draws, at the first in 1.

Each given label is measured by its own reviewed rows alone, from MIN_DRAWN on: the rarer one is drawn at a higher rate, and that
its rows are wrong where a vote says so does not show that the others' are.
"""

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from ktodata.feedback import LABEL_NAMES
from ktodata.labels.actions import DROP_FROM, LEVEL, RELABEL_FROM
from ktodata.labels.evidence.evidence import log_odds_of
from ktodata.labels.people.trusted import MIN_DRAWN
from ktodata.stats import clopper_pearson

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

MOSTLY = 0.5
SHARE_WRONG = 0.7  # of the rows that look wrong, at least: in 95 % of draws no fewer of the turned labels are to be wrong
UNTURNED = 0.499  # P(wrong) of a soft label whose label may not be turned, at most: it pulls hardly, and not the other way
SHIFTS = np.linspace(-5, 5, 801)
QUANTILES = np.linspace(1 - LEVEL, LEVEL, 19)


@dataclass(frozen=True)
class BorneOut:
    """Of one given label. reviewed, wrong : reviewed rows that look surely wrong, as they count

    share_low : exact lower end of the share that is wrong. turned : other rows whose label may be turned, none unless that is
    over SHARE_WRONG. reviews_needed : about how many reviews more of this label would show it, None where they do, their verdicts
    speak against it, or all other rows would not
    """

    reviewed: float
    wrong: float
    share_low: float
    turned: int
    reviews_needed: int | None


@dataclass(frozen=True)
class Calibration:
    """p_wrong : float [N], best estimate; low, high : ends of its interval. wrong : bool [N], reviewed and not the verdict.

    counts : float [N], what a reviewed row counts for, as `_worth` gives it; 0 where nobody reviewed
    labels : bool [N], the given ones. group : int [N], of prompts and given labels, from 0 on
    together : float [N], how far two reviewed rows of the row's label are wrong together where they are of one group, 0 to 1
    """

    p_wrong: Floats
    low: Floats
    high: Floats
    wrong: Bools
    counts: Floats
    labels: Bools
    group: Ints
    together: Floats

    @cached_property
    def measured(self) -> Bools:
        """Rows of a given label of which enough rows were reviewed for a p: bool [N]."""
        return np.isin(
            self.labels, [given for given in LABEL_NAMES if self.counts[self.labels == given].astype(bool).sum() >= MIN_DRAWN]
        )

    def surely(self, least: float) -> Bools:
        """Rows that are wrong with `least` or more, if enough of the reviewed rows that look so are; else none: bool [N]."""
        return self._shown(self.low >= least, min(SHARE_WRONG, least - 1e-9))

    @cached_property
    def turned(self) -> Bools:
        """Rows whose label may be turned: bool [N]."""
        return self.surely(RELABEL_FROM) & self.measured

    @cached_property
    def p_wrong_low(self) -> Floats:
        """The least that the reviewed rows leave open, over 1/2 only where the label may be turned, and over DROP_FROM only where
        it may be turned or the row dropped: float [N].
        """
        dropped = self._shown((self.low > DROP_FROM) & ~self.turned, DROP_FROM)
        low = np.select([self.turned, dropped], [self.low, np.minimum(self.low, MOSTLY)], np.minimum(self.low, DROP_FROM))
        return np.asarray(low * self.measured)

    @property
    def least_sure(self) -> Floats:
        """The p nearest to 1/2 that the reviewed rows leave open, UNTURNED at most where no label may be turned: float [N]."""
        nearest = np.clip(MOSTLY, self.low, self.high)
        return np.asarray(np.where(self.turned, nearest, np.minimum(nearest, UNTURNED)) * self.measured)

    def borne_out(self, open_rows: Bools) -> dict[bool, BorneOut]:
        """Of each given label with open rows, what reviewed rows show of those that look surely wrong. open_rows : bool [N]"""
        in_class = {given: self.labels == given for given in LABEL_NAMES}
        return {given: self._borne_out(own, open_rows & own) for given, own in in_class.items() if (open_rows & own).any()}

    def _borne_out(self, own: Bools, open_rows: Bools) -> BorneOut:
        rows = own & (self.low >= RELABEL_FROM)
        reviewed, wrong = float(self.counts[rows].sum()), float(self.counts[rows & self.wrong].sum())
        low, turned = self._share_low(rows), int((self.turned & open_rows).sum())
        return BorneOut(reviewed, wrong, low, turned, None if low > SHARE_WRONG else self._reviews_needed(own, open_rows))

    def _shown(self, rows: Bools, line: float) -> Bools:
        """Those of each given label whose reviewed rows among them are wrong by more than this share."""
        return rows & np.isin(
            self.labels, [given for given in LABEL_NAMES if self._share_low(rows & (self.labels == given)) > line]
        )

    def _share_low(self, rows: Bools) -> float:
        hits, trials = self.counts[rows & self.wrong].sum(), self.counts[rows].sum()
        return float(clopper_pearson(hits, trials, level=2 * LEVEL - 1)[0])

    def _reviews_needed(self, own: Bools, open_rows: Bools) -> int | None:
        """At the present share of rows that look wrong, and of wrong ones among those that were reviewed (all, if none was)."""
        looks, left = own & (self.p_wrong >= RELABEL_FROM), int(open_rows.sum())
        trials, hits = self.counts[looks].sum(), self.counts[looks & self.wrong].sum()
        number = np.arange(1, 1000)
        shown = clopper_pearson(number * (hits / trials if trials else 1.0), number, level=2 * LEVEL - 1)[0] > SHARE_WRONG
        least = number[shown][0] if shown.any() else np.inf
        if least <= trials or self._counting(looks, open_rows, 1.0) < least:
            return None
        return 1 + bisect_left(range(1, left), True, key=lambda more: self._counting(looks, open_rows, more / left) >= least)

    def _counting(self, looks: Bools, open_rows: Bools, share: float) -> float:
        """What reviewed rows that look wrong would count for, if `share` of the open rows of every group were reviewed, too."""
        reviews = (self.counts > 0) + share * open_rows
        worth = _worth(np.bincount(self.group, reviews).astype(float)[self.group], self.together)
        return float((reviews * worth)[looks].sum()) + 1e-9


def calibrate(p_wrong: Floats, reviewed: Bools, wrong: Bools, labels: Bools, groups: NDArray[np.integer]) -> Calibration:
    """How far reviewed rows bear out p_wrong, float [N], theirs by fits that saw no review of their prompt group; and what is
    believed of it then.

    reviewed, wrong, labels : bool [N]; wrong is read on reviewed rows only, labels are the given ones. groups : int [N], prompt
    groups
    """
    group = 2 * np.unique(groups, return_inverse=True)[1].reshape(-1).astype(np.int64) + labels
    log_odds, classes = log_odds_of(p_wrong), (labels, ~labels)
    parts = [own & side for own in classes for side in (p_wrong >= MOSTLY, p_wrong < MOSTLY)]

    def shifts_of(counts: Floats) -> list[Floats]:
        known = (part & reviewed for part in parts)
        return [_quantiles_of_shift(log_odds[rows], wrong[rows], counts[rows]) for rows in known]

    def best_of(shifts: list[Floats]) -> Floats:
        return np.asarray(np.select(parts, [sum(expit(log_odds + one) for one in each) / len(each) for each in shifts]))

    alone, known = best_of(shifts_of(reviewed.astype(float))), [own & reviewed for own in classes]
    together = np.select(classes, [_wrong_together(alone[rows], wrong[rows], group[rows]) for rows in known])
    counts = np.where(reviewed, _worth(np.bincount(group, reviewed)[group], together), 0.0)
    shifts = shifts_of(counts)
    low, high = (np.select(parts, [expit(log_odds + each[end]) for each in shifts]) for end in (0, -1))
    return Calibration(best_of(shifts), low, high, reviewed & wrong, counts, labels, group, together)


def _worth(rows: Floats, together: Floats) -> Floats:
    """What each of so many reviewed rows of a group counts for, in rows that have nothing to do with each other."""
    return np.asarray(1 / (1 + np.maximum(rows - 1, 0) * together))


def _wrong_together(p_wrong: Floats, wrong: Bools, group: Ints) -> float:
    """Correlation of two rows of one group, beyond their p: over all pairs among n rows, and one more of even chances that is
    alike. So a few pairs, or such as p is sure of, leave the rows of a group counting for little more than one.
    """
    apart, spread = wrong - p_wrong, np.sqrt(p_wrong * (1 - p_wrong))

    def of_pairs(values: Floats) -> float:
        return float((np.bincount(group, values) ** 2 - np.bincount(group, values**2)).sum() / 2)

    alike = 1 / 4
    return float(np.clip((alike + of_pairs(apart)) / (alike + of_pairs(spread)), 0, 1))


def _quantiles_of_shift(log_odds: Floats, wrong: Bools, counts: Floats) -> Floats:
    """Of its posterior, evenly from one end of the interval to the other. log_odds, wrong, counts : [n], of reviewed rows"""
    sign = np.where(wrong, 1.0, -1.0)
    log_density = np.array([counts @ log_expit(sign * (log_odds + shift)) for shift in SHIFTS]) - SHIFTS**2 / 2
    below = np.cumsum(np.exp(log_density - log_density.max()))
    places = np.searchsorted(below, below[-1] * QUANTILES)
    return np.asarray(SHIFTS[np.minimum(places, len(SHIFTS) - 1)])

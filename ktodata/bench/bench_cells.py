"""One method on one source at one budget: its answer on disk, and its figures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ktodata.bench.bench_methods import BenchAnswer
from ktodata.bench.bench_rows import BenchRows, Bools, Floats, Ints
from ktodata.files import whole_file
from ktodata.stats import Interval
from ktodata.stats.bootstrap import group_weights, percentile_interval

MIN_RANKED = 10  # wrong rows, and right ones, of one given label, for its AUROC to count
BINS = 10  # of a probability, for its calibration error


@dataclass(frozen=True)
class BenchCell:
    """labels, truth, reviewed, repaired : bool [N]; groups : int [N]; doubt, p_wrong : float [N] or None; seconds : CPU

    terms : of the trainer, as JSON. dropped : bool [N], rows not to train on, or None
    """

    labels: Bools
    truth: Bools
    groups: Ints
    reviewed: Bools
    repaired: Bools
    doubt: Floats | None
    p_wrong: Floats | None
    seconds: float
    terms: str = "{}"
    dropped: Bools | None = None

    @classmethod
    def of(cls, rows: BenchRows, reviewed: Bools, answer: BenchAnswer, seconds: float) -> "BenchCell":
        """What a method answered. A reviewed row is right, whatever the method makes of it."""
        labels = rows.labels if answer.labels is None else answer.labels
        repaired = np.where(reviewed, rows.truth, labels)
        known, terms = (rows.labels, rows.truth, rows.groups, reviewed), json.dumps(dict(answer.terms))
        return cls(*known, repaired, answer.doubt, answer.p_wrong, seconds, terms, answer.dropped)

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        arrays = {name: value for name, value in vars(self).items() if value is not None}
        with whole_file(path) as scratch, scratch.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "BenchCell | None":
        """None where it is not there or damaged."""
        try:
            with np.load(path) as arrays:
                values = {name: arrays.get(name) for name in cls.__dataclass_fields__}
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        return cls(**{**values, "seconds": float(values["seconds"]), "terms": str(values["terms"])})

    @property
    def trainer_terms(self) -> Mapping[str, Any]:
        """What the trainer is told beside what all arms share."""
        return dict(json.loads(self.terms))

    @property
    def trainable(self) -> bool:
        """Both labels are left, as given and as repaired: of one alone nothing is learnt."""
        kept = slice(None) if self.dropped is None else ~self.dropped
        return all(len(np.unique(labels[kept])) == 2 for labels in (self.labels, self.repaired))

    @cached_property
    def sides(self) -> list[Bools]:
        """The rows that are ranked, of each given label with enough wrong and right ones: those that nobody reviewed."""
        wrong = self.labels != self.truth
        sides = [(self.labels == given) & ~self.reviewed for given in (False, True)]
        return [side for side in sides if min((wrong & side).sum(), (~wrong & side).sum()) >= MIN_RANKED]

    def auroc(self, weights: Floats) -> float | None:
        """How often a wrong label is doubted more than a right one of the same given label; mean of labels. weights : [N]"""
        from sklearn.metrics import roc_auc_score

        if self.doubt is None or not self.sides:
            return None
        wrong, values = self.labels != self.truth, []
        for side in self.sides:
            rows = side & (weights > 0)
            if len(np.unique(wrong[rows])) == 2:
                values.append(roc_auc_score(wrong[rows], self.doubt[rows], sample_weight=weights[rows]))
        return float(np.mean(values)) if values else None

    def average_precision(self, weights: Floats) -> float | None:
        """Of all rows that nobody reviewed, the most doubtful first."""
        from sklearn.metrics import average_precision_score

        rows = ~self.reviewed & (weights > 0)
        wrong = (self.labels != self.truth)[rows]
        if self.doubt is None or not wrong.any():
            return None
        return float(average_precision_score(wrong, self.doubt[rows], sample_weight=weights[rows]))

    def right(self, weights: Floats) -> float:
        """Share of labels that are right after repair, reviewed ones included."""
        return float(np.average(self.repaired == self.truth, weights=weights))

    def surer(self, weights: Floats) -> float | None:
        """How much surer than right it is where it gives a probability: mean of max(p, 1 - p) less the share that is so."""
        if self.p_wrong is None:
            return None
        rows = ~self.reviewed
        right = (self.p_wrong > 0.5) == (self.labels != self.truth)
        return float(np.average((np.maximum(self.p_wrong, 1 - self.p_wrong) - right)[rows], weights=weights[rows]))

    def brier(self, weights: Floats) -> float | None:
        """Mean square of p_wrong less what is so, of the rows that nobody reviewed: over- and under-sure ones do not cancel."""
        if self.p_wrong is None:
            return None
        rows = ~self.reviewed
        return float(np.average((self.p_wrong - (self.labels != self.truth))[rows] ** 2, weights=weights[rows]))

    def calibration_error(self, weights: Floats) -> float | None:
        """How far p_wrong is from the share that is wrong, within BINS of equal width, in the mean over rows (ECE)."""
        if self.p_wrong is None:
            return None
        rows = ~self.reviewed
        off = (self.p_wrong - (self.labels != self.truth))[rows] * weights[rows]
        bins = np.minimum((self.p_wrong[rows] * BINS).astype(int), BINS - 1)
        return float(np.abs(np.bincount(bins, off)).sum() / weights[rows].sum())

    def figures(self) -> dict[str, Any]:
        """JSON values."""
        even, unseen = np.ones(len(self.labels)), ~self.reviewed
        turned = unseen & (self.repaired != self.labels)
        return {
            "auroc": self.auroc(even),
            "average_precision": self.average_precision(even),
            "surer_than_right": self.surer(even),
            "brier": self.brier(even),
            "calibration_error": self.calibration_error(even),
            "right": self.right(even),
            "turned": int(turned.sum()),
            "turned_rightly": int((turned & (self.repaired == self.truth)).sum()),
            "reviewed": int(self.reviewed.sum()),
            "seconds": round(self.seconds, 2),
        }


def paired(first: list[BenchCell], second: list[BenchCell], measure: str, *, draws: int, seed: int = 0) -> Interval:
    """The first method's figure less the second's, in the mean over seeds, with its 95 % interval: prompt groups are drawn anew.

    first, second : of the same source and budget, a cell for each seed. measure : "auroc", "average_precision" or "right"
    """

    def difference(weights: Floats) -> float:
        pairs = [(getattr(a, measure)(weights), getattr(b, measure)(weights)) for a, b in zip(first, second, strict=True)]
        values = [a - b for a, b in pairs if a is not None and b is not None]
        return float(np.mean(values)) if values else np.nan

    blocks = group_weights(first[0].groups, draws, np.random.default_rng(seed))
    drawn = np.array([difference(weights) for block in blocks for weights in block])
    return percentile_interval(difference(np.ones(len(first[0].groups))), drawn)

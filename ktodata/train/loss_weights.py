"""How much each label counts in the loss, and the weights that balance it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ktodata.errors import EmptyDataError, OneClassError, SettingError
from ktodata.feedback import CLASS_WEIGHT_LIMIT, LABEL_NAMES
from ktodata.train.data.tokens import TokenRows
from ktodata.train.objectives import label_targets
from ktodata.train.setting_tables import FlipRates

Numbers = NDArray[np.floating]


@dataclass(frozen=True)
class Balance:
    """What each label counts: rows times their own weight, and the loss weight in force for it."""

    desirable: float
    undesirable: float
    desirable_weight: float
    undesirable_weight: float
    even_weight: float | None = None  # that would let both labels count the same, where it is more than may be set by itself
    by_hand: bool = False  # whether one of the weights was set

    @property
    def ratio(self) -> float:
        """Desirable over undesirable, weights included. The paper's rule (Eq. 8): between 1 and 4/3."""
        undesirable = self.undesirable * self.undesirable_weight
        return self.desirable * self.desirable_weight / undesirable if undesirable else math.inf

    @property
    def within_paper_rule(self) -> bool:
        """Whether the ratio is one that the paper advises."""
        return 1 - 1e-6 <= self.ratio <= 4 / 3 + 1e-6

    def as_dict(self, rows: TokenRows) -> dict[str, Any]:
        """For training.json; `sentence` is for people, and why it is not even is a finding (results/training_findings.py)."""
        ratio, within = self.ratio, self.within_paper_rule
        sentence = (
            f"desirable {self.desirable:,.0f} x {self.desirable_weight:.3g} : undesirable {self.undesirable:,.0f} x "
            f"{self.undesirable_weight:.3g} = {ratio:.2f} ({'within' if within else 'outside'} the paper's 1 to 4/3)"
        )
        return {
            "desirable": int(rows.label.sum()),
            "undesirable": int((~rows.label).sum()),
            "desirable_weight": round(self.desirable_weight, 6),
            "undesirable_weight": round(self.undesirable_weight, 6),
            "weighted_ratio": round(ratio, 4) if math.isfinite(ratio) else None,
            "within_paper_rule": within,
            "class_weight_limit": CLASS_WEIGHT_LIMIT,
            "held_back_from": None if self.even_weight is None else round(self.even_weight, 6),
            "sentence": sentence,
        }


def balance(
    rows: TokenRows,
    *,
    desirable_weight: float | None,
    undesirable_weight: float | None,
    soft: bool,
    flip_rates: FlipRates | None = None,
) -> Balance:
    """The weights in force. With neither given, the label that counts less is raised until both count the same; else those given.

    It is raised until its heaviest row counts CLASS_WEIGHT_LIMIT of the other label at most, what rows weigh already included: of
    1 row in 500 the weight would be 499, that row would own its update, and clipping would take back what the weight gave.
    A row of the other label is one in the middle of those that count: a single heavy one makes them no heavier.

    soft : a row counts towards its likelier label, by how far that is the likelier one, as in the loss
    flip_rates : labels are counted as they would be without those flips, as in the loss

    The paper fixes one of the two weights to 1; so does this, and one that is not given beside one that is.
    """
    target, confidence = row_targets(rows, soft=soft, flip_rates=flip_rates)
    shares = [confidence * share for share in (target, 1 - target)]
    desirable, undesirable = (float((rows.weight * share).sum()) for share in shares)
    if desirable_weight is None and undesirable_weight is None and desirable > 0 and undesirable > 0:
        even = desirable / undesirable
        pulled = sides_pulled(rows, soft=soft)  # flip rates leave every row its side
        sides = [rows.weight[pulled == side] for side in (1, -1)]
        heavy = [float(mine.max() / np.median(others)) for mine, others in (sides, sides[::-1])]  # of a row, in the other label's
        raised = _raised(1 / even, heavy[0]), _raised(even, heavy[1])
        return Balance(desirable, undesirable, *raised, max(even, 1 / even) if max(raised) < max(even, 1 / even) else None)
    return Balance(
        desirable,
        undesirable,
        1.0 if desirable_weight is None else desirable_weight,
        1.0 if undesirable_weight is None else undesirable_weight,
        by_hand=desirable_weight is not None or undesirable_weight is not None,
    )


def sides_pulled(rows: TokenRows, *, soft: bool) -> NDArray[np.int8]:
    """Int8 [N]: 1 for rows that are pulled up, -1 for those pulled down, 0 for those that count nothing."""
    target, confidence = row_targets(rows, soft=soft)
    return np.where(rows.weight * confidence > 0, np.where(target > 0.5, 1, -1), 0).astype(np.int8)


def sides_in_updates(rows: TokenRows, *, soft: bool, contrasts: bool) -> NDArray[np.int8]:
    """`sides_pulled`; where an objective contrasts rows of a prompt, also rows that only siblings of the other side pull."""
    sides = sides_pulled(rows, soft=soft)
    if not contrasts:
        return sides
    prompts, own = rows.prompt.distinct()[1], np.where(row_targets(rows, soft=soft)[0] > 0.5, 1, -1)
    by_sibling = [(own == side) & np.isin(prompts, prompts[sides == -side]) for side in (1, -1)]
    return np.where((sides == 0) & np.logical_or(*by_sibling), own, sides).astype(np.int8)


def row_targets(rows: TokenRows, *, soft: bool, flip_rates: FlipRates | None = None) -> tuple[Numbers, Numbers]:
    """`label_targets` of the rows: how much of each one's loss is the desirable label's, and times what; float [N] each."""
    label, p_desirable = torch.tensor(rows.label), torch.tensor(rows.p_desirable)
    target, confidence = label_targets(label, p_desirable, soft_labels=soft, flip_rates=flip_rates)
    return target.numpy(), np.broadcast_to(np.asarray(confidence, target.numpy().dtype), len(rows))


def _raised(even: float, heaviest: float) -> float:
    """The weight of a label that `even` would even out, held where a row of it counts CLASS_WEIGHT_LIMIT of the other label."""
    return max(1.0, min(even, CLASS_WEIGHT_LIMIT / heaviest))


def check_both_labels_count(rows: TokenRows, *, soft: bool) -> None:
    """Raise OneClassError where one label alone pulls, EmptyDataError where none does: weights of 0, soft labels."""
    by, sides = "weight or p_desirable" if soft else "weight", sides_pulled(rows, soft=soft)
    if not sides.any():
        raise EmptyDataError(f"no training row counts anything, by its {by}: there is nothing to learn from.")
    if not {1, -1} <= set(sides.tolist()):
        name = LABEL_NAMES[bool((sides > 0).any())]
        raise OneClassError(
            f"only {name} training rows count anything, by their {by}: of one label a model learns to tell nothing apart. "
            "Give rows of the other label a weight above 0" + (", or leave soft_labels out." if soft else ".")
        )


def check_flip_rates_fit(rows: TokenRows, flip_rates: FlipRates | None) -> None:
    """Raise SettingError where flips at these rates alone would give a label all the rows that it has, or more."""
    if flip_rates is None:
        return
    labelled = float(np.average(rows.label, weights=rows.weight))
    by_flips = {"desirable": flip_rates["undesirable"], "undesirable": flip_rates["desirable"]}
    for name, share in (("desirable", labelled), ("undesirable", 1 - labelled)):
        if 0 < by_flips[name] >= share:
            raise SettingError(
                f"flip_rates: {share:.2g} of the training rows, by weight, are labelled {name}; with these rates "
                f"{by_flips[name]:.2g} would be by mistake alone, if no row were truly {name}. Estimate the rates again."
            )


def check_weights_fit(rows: TokenRows, *, soft: bool, flip_rates: FlipRates | None) -> None:
    """Raise SettingError when rows are weighted by the very label that is doubted.

    Soft labels and flip rates say what a row's label should be; a weight that hangs on the given one, as `rebalance` by weights
    makes it do, would go with the wrong label.
    """
    if not soft and flip_rates is None:
        return
    desirable, undesirable = np.unique(rows.weight[rows.label]), np.unique(rows.weight[~rows.label])
    if len(desirable) == len(undesirable) == 1 and desirable[0] != undesirable[0]:
        counts = int(rows.label.sum()), int((~rows.label).sum())
        of_each = f"{counts[0]:,} desirable rows weigh {desirable[0]:g} each, {counts[1]:,} undesirable ones {undesirable[0]:g}"
        raise SettingError(
            f"{of_each}: with {'soft_labels' if soft else 'flip_rates'} a weight must not hang on the label that is doubted. "
            "Set rebalance: {by: none}; desirable_weight and undesirable_weight even the labels out."
        )

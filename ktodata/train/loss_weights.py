"""How much each label counts in the loss, and the weights that balance it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ktodata.errors import SettingError
from ktodata.train.data.tokens import TokenRows
from ktodata.train.objectives import label_targets
from ktodata.train.setting_tables import FlipRates


@dataclass(frozen=True)
class Balance:
    """What each label counts: rows times their own weight, and the loss weight in force for it."""

    desirable: float
    undesirable: float
    desirable_weight: float
    undesirable_weight: float

    @property
    def ratio(self) -> float:
        """Desirable over undesirable, weights included. The paper's rule (Eq. 8): between 1 and 4/3."""
        undesirable = self.undesirable * self.undesirable_weight
        return self.desirable * self.desirable_weight / undesirable if undesirable else math.inf

    def as_dict(self, rows: TokenRows) -> dict[str, Any]:
        """For training.json; `sentence` is for people."""
        ratio = self.ratio
        within = 1 - 1e-6 <= ratio <= 4 / 3 + 1e-6
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

    soft : a row counts towards its likelier label, by how far that is the likelier one, as in the loss
    flip_rates : labels are counted as they would be without those flips, as in the loss

    The paper fixes one of the two weights to 1; so does this, and one that is not given beside one that is.
    """
    label, p_desirable = torch.tensor(rows.label), torch.tensor(rows.p_desirable)
    target, confidence = label_targets(label, p_desirable, soft_labels=soft, flip_rates=flip_rates)
    desirable, undesirable = (float((rows.weight * (confidence * share).numpy()).sum()) for share in (target, 1 - target))
    if desirable_weight is None and undesirable_weight is None and desirable > 0 and undesirable > 0:
        return Balance(desirable, undesirable, max(1.0, undesirable / desirable), max(1.0, desirable / undesirable))
    return Balance(
        desirable,
        undesirable,
        1.0 if desirable_weight is None else desirable_weight,
        1.0 if undesirable_weight is None else undesirable_weight,
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

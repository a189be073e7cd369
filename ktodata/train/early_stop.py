"""When to stop: once the model no longer separates desirable from undesirable held-out rows better than it did."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict  # pydantic reads typing's own only from Python 3.12 on

from ktodata.errors import SettingError


class EarlyStopSettings(TypedDict, total=False):
    """Stop when the held-out reward AUC no longer rises. What is left out has the default that its description gives."""

    patience: Annotated[int, Field(ge=1, le=1000, description="evaluations without a better AUC; 3")]
    min_delta: Annotated[float, Field(ge=0, le=0.5, description="an AUC is better when higher by more than this; 0")]


EarlyStopSettings.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]


@dataclass(frozen=True)
class EarlyStop:
    """The rule, applied after every evaluation. It keeps nothing: a resumed training applies the same."""

    patience: int = 3
    min_delta: float = 0.0

    def should_stop(self, held_out: Sequence[dict[str, Any]]) -> bool:
        """Whether none of the last `patience` evaluations had an AUC above the best before them by more than `min_delta`.

        held_out : {"step", "auc": {"value", ...}, ...} of each evaluation, in order; AUC of the implicit rewards in [0, 1],
            higher is better, 0.5 is chance.
        """
        best, waited = -math.inf, 0
        for evaluation in held_out:
            if evaluation["auc"]["value"] > best + self.min_delta:
                best, waited = evaluation["auc"]["value"], 0
            else:
                waited += 1
        return waited >= self.patience


def best(held_out: Sequence[dict[str, Any]]) -> int:
    """The step of the evaluation with the highest AUC, the earliest of equals."""
    return int(max(held_out, key=lambda evaluation: evaluation["auc"]["value"])["step"])


def check_can_stop_early(desirable: Sequence[bool], eval_every_steps: int | None) -> None:
    """Raise SettingError when no AUC can be had to stop by: too few rows of a label, or no evaluation before the end.

    desirable : labels of the validation rows that are scored; each label needs two, as for the AUC's interval.
    """
    positive = sum(map(bool, desirable))
    if min(positive, len(desirable) - positive) < 2:
        raise SettingError(
            f"early_stop goes by the AUC of validation rows, which needs two of each label; there are {positive:,} desirable and "
            f"{len(desirable) - positive:,} undesirable ones. Put more rows into the validation part, or leave early_stop out."
        )
    if eval_every_steps is None:
        raise SettingError("early_stop needs evaluations before the end: set eval_every_steps.")

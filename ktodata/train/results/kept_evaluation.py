"""What held-out rows say of the weights that a training leaves: the same evaluation, in the same words, wherever it is shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from ktodata.train.early_stop import best


def kept_evaluation(held_out: Sequence[dict[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last one; where training was to stop early the best, as its weights were kept. None without any."""
    if not held_out:
        return None
    if settings.get("early_stop") is None:
        return held_out[-1]
    return next(evaluation for evaluation in held_out if evaluation["step"] == best(held_out))


def choice_words(held_out: Sequence[dict[str, Any]], settings: Mapping[str, Any]) -> str:
    """What choosing these weights does to their AUC; empty where none were chosen."""
    if settings.get("early_stop") is None or not held_out:
        return ""
    return f"These weights were chosen for the highest AUC of {len(held_out):,} evaluations on these rows, which flatters it."


def interval_words(evaluation: Mapping[str, Any], measure: str, *, digits: int = 3) -> str:
    """Of a measure of an evaluation: "95 % interval 0.61 to 0.72", or why that is not known."""
    low, high = (evaluation[measure].get(end) for end in ("low", "high"))
    if low is None or high is None:
        return f"95 % interval not known: {evaluation.get('interval_not_known', 'none was noted')}"
    return f"95 % interval {low:.{digits}f} to {high:.{digits}f}"

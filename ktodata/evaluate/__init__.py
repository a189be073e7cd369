"""What a trained policy is worth on rows it never saw. Loads torch on first use only."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktodata.evaluate.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ktodata.evaluate import evaluation

    return getattr(evaluation, name)

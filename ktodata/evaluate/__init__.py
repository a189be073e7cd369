"""What a trained policy is worth on rows it never saw. Loads torch on first use only."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktodata.evaluate.comparison import compare
    from ktodata.evaluate.comparison_result import Comparison
    from ktodata.evaluate.evaluation import Evaluation, evaluate

_HOMES = {"Comparison": "comparison_result", "Evaluation": "evaluation", "compare": "comparison", "evaluate": "evaluation"}

__all__ = ["Comparison", "Evaluation", "compare", "evaluate"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"ktodata.evaluate.{_HOMES[name]}"), name)

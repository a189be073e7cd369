"""What a trained model is worth on rows it never saw. Loads torch on first use only."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktodata.evaluate.evaluation import Evaluation, evaluate

_HOMES = {"Evaluation": "evaluation", "evaluate": "evaluation"}

__all__ = ["Evaluation", "evaluate"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"ktodata.evaluate.{_HOMES[name]}"), name)

"""KTO on a causal language model, and what each row looked like while it was trained on. Loads torch on first use only."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktodata.train.fitting import fit
    from ktodata.train.result import TrainResult

__all__ = ["TrainResult", "fit"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ktodata.train import fitting, result

    return fitting.fit if name == "fit" else result.TrainResult

"""KTO on a causal language model, and what each row looked like while it was trained on. Loads torch on first use only."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktodata.train.model.activation_cache import shared_activations
    from ktodata.train.results.hub import push_to_hub
    from ktodata.train.results.train_result import TrainResult
    from ktodata.train.trainer import fit

__all__ = ["TrainResult", "fit", "push_to_hub", "shared_activations"]

_WHERE = {
    "TrainResult": "results.train_result",
    "fit": "trainer",
    "push_to_hub": "results.hub",
    "shared_activations": "model.activation_cache",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"ktodata.train.{_WHERE[name]}"), name)

"""KTO on a causal language model, and what each row looked like while it was trained on. Loads torch on first use only."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktodata.train.fitting import fit
    from ktodata.train.hub import push_to_hub
    from ktodata.train.kept import shared_states
    from ktodata.train.result import TrainResult

__all__ = ["TrainResult", "fit", "push_to_hub", "shared_states"]

_WHERE = {"TrainResult": "result", "fit": "fitting", "push_to_hub": "hub", "shared_states": "kept"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"ktodata.train.{_WHERE[name]}"), name)

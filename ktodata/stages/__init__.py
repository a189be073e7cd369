"""The data flow. Each name is a module here, a function in it, a recipe key and a folder of the run."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ktodata.stage import StageResult

# in the order in which a recipe usually has them
ORDER = (
    "ingest",
    "validate",
    "dedupe",
    "split",
    "embed",
    "hidden_states",
    "judge",
    "label_noise",
    "rebalance",
    "coverage",
    "export",
)


@dataclass(frozen=True)
class Stage:
    """A stage and what it declares about itself."""

    name: str
    function: Callable[..., StageResult]
    needs: tuple[str, ...]
    uses: tuple[str, ...]
    adds: tuple[str, ...]
    applies_to: Literal["all", "train"]
    check: Callable[[Mapping[str, Any]], None]  # of settings that are right each by itself: raises SettingError


def load_stage(name: str) -> Stage:
    """The stage of that name. Raises KeyError when there is none."""
    if name not in ORDER:
        raise KeyError(name)
    module: Any = importlib.import_module(f"ktodata.stages.{name}")
    return Stage(
        name=name,
        function=getattr(module, name),
        needs=tuple(module.NEEDS),
        uses=tuple(getattr(module, "USES", ())),
        adds=tuple(module.ADDS),
        applies_to=getattr(module, "APPLIES_TO", "train"),
        check=getattr(module, "check_together", lambda settings: None),
    )

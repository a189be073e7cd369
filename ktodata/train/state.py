"""How far a training is."""

from dataclasses import dataclass, field
from typing import Any

import polars as pl


@dataclass
class State:
    """What a training has done so far. With weights, optimizer and random state it is all that a resume needs."""

    step: int = 0  # updates made
    history: list[dict[str, Any]] = field(default_factory=list)
    held_out: list[dict[str, Any]] = field(default_factory=list)
    telemetry: list[pl.DataFrame] = field(default_factory=list)

"""What a training gives back."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.train.telemetry import summarise


@dataclass(frozen=True)
class TrainResult:
    """A finished training."""

    history: pl.DataFrame  # one line per update
    held_out: list[dict[str, Any]]  # one entry per look at the validation rows
    telemetry: pl.DataFrame  # one line per row and epoch or look; columns in ktodata.train.telemetry.SCHEMA
    facts: dict[str, Any]
    model: Path | None  # the folder of the policy (or adapter) and its tokenizer
    policy: Any = field(repr=False)  # the trained model itself
    tokenizer: Any = field(repr=False)

    def per_row(self) -> pl.DataFrame:
        """What training saw of each row, one line per row; columns in `ktodata.train.telemetry.summarise`."""
        return summarise(self.telemetry, beta=self.facts["settings"]["beta"])

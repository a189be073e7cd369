"""What each trained policy said of the held-out rows, on disk as soon as it is known: a killed comparison goes on from there.

COMPARISON/arms/<method>-seed<n>-<key>/ holds scores.parquet (a line per held-out row), answers.parquet and facts.json; and, where
more was asked, probed.parquet (answers to prompts of files) and items.parquet (scores of lm-eval's items). The key is a digest of
all that the numbers depend on, so that changed rows or settings never meet old numbers.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import RunError
from ktodata.files import remove_leftovers, whole_folder

BASE = "base"
SCORES = {"row_id": pl.String(), "logp": pl.Float64(), "reward_model": pl.Float64()}
ANSWERS = {"row_id": pl.String(), "text": pl.String(), "tokens": pl.Int64(), "unfinished": pl.Boolean()}
PROBED = {"probe": pl.String(), "item": pl.Int64(), **{name: ANSWERS[name] for name in ("text", "tokens", "unfinished")}}
ITEMS = {"task": pl.String(), "item": pl.Int64(), "score": pl.Float64()}

MORE = ("probed", "items")


@dataclass(frozen=True)
class TrainedArm:
    """One trained policy (or the base).

    scores : row_id, logp (nats, summed over the completion), reward_model (null without one)
    answers : row_id, text, tokens, unfinished; one line per prompt that was answered
    probed : probe (safety, instructions), item, text, tokens, unfinished; items : task, item, score. Empty where not asked for.
    """

    method: str
    seed: int
    scores: pl.DataFrame = field(repr=False)
    answers: pl.DataFrame = field(repr=False)
    facts: dict[str, Any]
    probed: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PROBED), repr=False)
    items: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ITEMS), repr=False)


class Store:
    """Arms in a folder, or in memory only where there is none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else folder / "arms"
        if self._folder is not None and self._folder.is_dir():
            remove_leftovers(self._folder)

    def find(self, method: str, seed: int, key: str) -> TrainedArm | None:
        """The arm as it was kept; None when there is none. Raises RunError when it is damaged."""
        place = self._place(method, seed, key)
        if place is None or not place.is_dir():
            return None
        try:
            scores, answers = (pl.read_parquet(place / f"{name}.parquet") for name in ("scores", "answers"))
            more = {name: pl.read_parquet(place / f"{name}.parquet") for name in MORE if (place / f"{name}.parquet").is_file()}
            facts = json.loads((place / "facts.json").read_text(encoding="utf-8"))
            return TrainedArm(method, seed, scores, answers, facts, **more)
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise RunError(
                f"{place} is damaged ({type(error).__name__}). Remove that folder, and it is trained again."
            ) from error

    def keep(self, arm: TrainedArm, key: str) -> None:
        """Write the arm, whole or not at all."""
        place = self._place(arm.method, arm.seed, key)
        if place is None:
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(place) as scratch:
            arm.scores.write_parquet(scratch / "scores.parquet")
            arm.answers.write_parquet(scratch / "answers.parquet")
            for name in MORE:
                if not getattr(arm, name).is_empty():
                    getattr(arm, name).write_parquet(scratch / f"{name}.parquet")
            (scratch / "facts.json").write_text(json.dumps(arm.facts, indent=1), encoding="utf-8")

    def _place(self, method: str, seed: int, key: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{method}-seed{seed}-{key}"


def releases(method: str) -> Mapping[str, str]:
    """Of the libraries that a method's numbers stand on."""
    names = ["torch", "transformers"] + ([] if method == BASE else ["ktodata"] if method == "kto" else ["trl", "accelerate"])
    return {name: version(name) for name in names}

"""What is trained side by side on equal terms: treatments of the labels, or methods; and what is kept of each trained policy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

BASE = "base"  # the untrained model, where it is an arm
SCORES = {"row_id": pl.String(), "logp": pl.Float64(), "reward_model": pl.Float64()}
REWARDS = {"row_id": pl.String(), "reward": pl.Float64()}
ANSWERS = {"row_id": pl.String(), "text": pl.String(), "tokens": pl.Int64(), "unfinished": pl.Boolean()}
PROBED = {"probe": pl.String(), "item": pl.Int64(), **{name: ANSWERS[name] for name in ("text", "tokens", "unfinished")}}
ITEMS = {"task": pl.String(), "item": pl.Int64(), "score": pl.Float64()}


@dataclass(frozen=True)
class Arm:
    """A treatment of the labels, or a method.

    rows : training rows as shards hold them (row_id, prompt, completion, label; weight, p_desirable, prompt_group)
    settings : of its trainer, beside those that all arms share. says : what it is, in a sentence.
    family : what kind of treatment; budget : the share of the rows that it reviews, if any
    """

    name: str
    says: str
    rows: pl.DataFrame = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""
    budget: float | None = None


@dataclass(frozen=True)
class ArmTraining:
    """One arm with one seed. settings : all that it is trained by; key : of all that its scores depend on."""

    arm: Arm
    seed: int
    settings: Mapping[str, Any]
    key: str

    def __str__(self) -> str:
        return self.arm.name if self.arm.name == BASE else f"{self.arm.name}, seed {self.seed}"


@dataclass(frozen=True)
class TrainedArm:
    """One trained policy, or the base.

    scores : of the held-out rows: row_id, and reward (REWARDS) or logp (nats, summed over the completion) and reward_model (null
        without one: SCORES)
    answers : row_id, text, tokens, unfinished; one line per prompt that was answered
    probed : probe (safety, instructions), item, text, tokens, unfinished; items : task, item, score. Empty where not asked for.
    """

    name: str
    seed: int
    scores: pl.DataFrame = field(repr=False)
    answers: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ANSWERS), repr=False)
    metrics: dict[str, Any] = field(default_factory=dict)
    probed: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PROBED), repr=False)
    items: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ITEMS), repr=False)

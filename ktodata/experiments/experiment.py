"""The one way to train arms: plan them, estimate what they take, train what was not kept, keep each as soon as it is there."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import DataError
from ktodata.experiments.arm_store import ArmStore
from ktodata.experiments.arms import ArmTraining, TrainedArm
from ktodata.experiments.clock import TimeLeft, estimate_text

Notify = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class ExperimentPlan(ABC):
    """What an experiment trains, before it does.

    trainings : every arm with every seed, in the order in which they are trained
    held_out : what is known of the rows that all arms score: row_id, truth, group, model, ...; folder : where arms are kept
    """

    trainings: Sequence[ArmTraining]
    held_out: pl.DataFrame = field(repr=False)
    settings: Mapping[str, Any]
    folder: Path | None

    @abstractmethod
    def train(self, training: ArmTraining) -> TrainedArm:
        """Train one arm, and score the held-out rows with it."""

    @abstractmethod
    def expect(self, left: Sequence[ArmTraining]) -> tuple[list[float], dict[str, Any]]:
        """(seconds that each of those that are left to train will take, by updates that are timed; more numbers of the cost)."""

    @cached_property
    def cost(self) -> dict[str, Any]:
        """What all trainings take: trainings, kept, updates, batch_size, tokens_a_completion, seconds (of each), minutes."""
        store, left = ArmStore(self.folder), dict[str, ArmTraining]()
        for training in self.trainings:
            if training not in store:
                left.setdefault(training.key, training)
        expected, numbers = self.expect(list(left.values()))
        each = dict(zip(left, expected, strict=True))
        seconds = [each.pop(training.key, 0.0) for training in self.trainings]  # of one key, only the first is trained
        kept = sum(training in store for training in self.trainings)
        return {"trainings": len(seconds), "kept": kept, **numbers, "seconds": seconds, "minutes": sum(seconds) / 60}

    def run_arms(self, notify: Notify = lambda event: None) -> list[TrainedArm]:
        """Every arm: as an earlier call left it, or trained now and kept at once. Two of one key are trained once.

        notify : gets kind, number, of, stage, text. First "note", with `cost`; before each arm "start", or "cached" where nothing
            is left to train for it; after it "done", with seconds. Those of an arm have arm, seed and seconds_left, by the
            estimate times how far it was off so far.
        """
        if not self.trainings:
            return []
        count, store, trained = len(self.trainings), ArmStore(self.folder), dict[str, TrainedArm]()
        notify({"kind": "note", "number": 0, "of": count, "stage": "estimate", "text": estimate_text(self.cost), **self.cost})
        left, arms = TimeLeft(self.cost["seconds"]), []
        for number, training in enumerate(self.trainings, 1):
            event = {"number": number, "of": count, "stage": str(training), "arm": training.arm.name, "seed": training.seed}
            arm = trained.get(training.key) or store.find(training)
            notify({**event, "kind": "start" if arm is None else "cached", **left.as_event()})
            if arm is None:
                started = time.perf_counter()
                arm = self.train(training)
                store.keep(training, arm)
                left.took(number - 1, seconds := time.perf_counter() - started)
                notify({**event, "kind": "done", "seconds": seconds, **left.as_event()})
            trained[training.key] = arm
            arms.append(replace(arm, name=training.arm.name, seed=training.seed))
        return arms


def check_apart(train: pl.DataFrame, held_out: pl.DataFrame, who: str) -> None:
    """Raise DataError when a row would be trained on and scored. who : whose training rows they are"""
    both = train.join(held_out, on="row_id", how="semi", maintain_order="left")["row_id"]
    if len(both):
        raise DataError(
            f"{who}: {len(both):,} of its {train.height:,} training rows are held out as well (first: {both[0]}). Hold out whole "
            "prompts with the step `split`."
        )

"""How long arms will take on this machine: a few updates of the first one, timed before any is trained."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ktodata.experiments.arms import ArmTraining, fit_arm
from ktodata.experiments.comparison_clock import in_words

UPDATES = 3  # the first one is slower: memory, kernels
HELD_OUT = 16  # rows that are scored


@dataclass(frozen=True)
class Pace:
    """In seconds, of one training.

    preparing : reading model and rows; pair : the reference's log-prob of a pair, with what frozen layers give for it
    update : an update; look : scoring one held-out row
    partners : mismatched pairs for every row that is trained on or scored; tokens : of a pair
    """

    preparing: float
    pair: float
    update: float
    look: float
    partners: float
    tokens: float


def measure_pace(first: ArmTraining, held_out: pl.DataFrame) -> Pace:
    """Train the first arm for UPDATES updates and score HELD_OUT rows; nothing of it is kept."""
    told: list[tuple[float, dict[str, Any]]] = []
    some = held_out.gather_every(max(1, held_out.height // HELD_OUT)).head(HELD_OUT)
    asked = {
        **first.settings,
        **{"max_steps": UPDATES, "epochs": 1000, "eval_every_steps": None, "log_every_steps": 1},
        "seed": time.time_ns() % 2**31,  # rows in an order of their own, for which no reference is kept on disk
        "progress": lambda event: told.append((time.perf_counter(), event)),
    }
    facts = fit_arm(first.arm, some, asked).metrics
    updated = [moment for moment, event in told if "held_out" not in event]
    looked = [moment for moment, event in told if "held_out" in event]
    reference, seconds = facts["reference"], facts["seconds"]
    scored = facts["validation"].get("rows", 0)  # none, where those few are all too long
    own = min(facts["train"]["rows"], UPDATES * facts["settings"]["batch_size"]) + scored
    return Pace(
        preparing=seconds["preparing"],
        pair=seconds["reference"] / reference["pairs"],
        update=float(np.mean(np.diff(updated))),
        look=(looked[-1] - updated[-1]) / scored if scored else 0.0,
        partners=reference["pairs"] / own - 1,
        tokens=reference["asked_tokens"] / reference["pairs"],
    )


def seconds_of(trainings: Sequence[ArmTraining], held_out: pl.DataFrame, pace: Pace) -> list[float]:
    """What each is expected to take: nothing, where it is kept or comes to the same as an earlier one.

    Rows' own pairs are paid for by the first that is trained: the others share what it found.
    """
    expected, seen = [], set()
    for training in trainings:
        if training.kept or training.key in seen:
            expected.append(0.0)
            continue
        seen.add(training.key)
        updates, batch = training.settings["max_steps"], training.settings["batch_size"]
        pairs = pace.partners * (updates * batch + held_out.height)
        if len(seen) == 1:
            pairs += min(training.arm.rows.height, updates * batch) + held_out.height
        expected.append(pace.preparing + pairs * pace.pair + updates * pace.update + held_out.height * pace.look)
    return expected


def estimate_arms(trainings: Sequence[ArmTraining], held_out: pl.DataFrame) -> dict[str, Any]:
    """What these trainings cost: trainings, kept, updates, batch_size, tokens_a_completion, seconds (of each), minutes.

    The last three are measured (`measure_pace`), and null or zero where every one of them is kept already.
    """
    left = [training for training in trainings if not training.kept]
    told = {"trainings": len(trainings), "kept": len(trainings) - len(left)}
    told |= {name: trainings[0].settings[asked] for name, asked in (("updates", "max_steps"), ("batch_size", "batch_size"))}
    if not left:
        return told | {"tokens_a_completion": None, "seconds": [0.0] * len(trainings), "minutes": 0.0}
    pace = measure_pace(left[0], held_out)
    seconds = seconds_of(trainings, held_out, pace)
    return told | {"tokens_a_completion": round(pace.tokens, 1), "seconds": seconds, "minutes": sum(seconds) / 60}


class TimeLeft:
    """What is left of the estimate as trainings end, times how far it was off so far."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self._expected, self._left, self._over, self._spent = seconds, sum(seconds), 0.0, 0.0

    def took(self, number: int, seconds: float) -> None:
        """Training `number`, from 0, took so many seconds."""
        self._left -= self._expected[number]
        self._over += self._expected[number]
        self._spent += seconds

    def told(self) -> dict[str, Any]:
        """Of an event: seconds_left, and text."""
        left = max(0.0, self._left) * (self._spent / self._over if self._over else 1)
        return {"seconds_left": left, "text": f"{in_words(left / 60)} to go"}


def estimate_text(told: dict[str, Any]) -> str:
    """One line for people."""
    kept = f", {told['kept']:,} of them kept from before" if told["kept"] else ""
    text = f"{told['trainings']:,} trainings{kept}; {told['updates']:,} updates of {told['batch_size']:,} completions each"
    if told["tokens_a_completion"] is None:
        return f"{text}; nothing is left to train"
    return (
        f"{text}, {told['tokens_a_completion']:,} tokens each; {in_words(told['minutes'])} on this machine, by {UPDATES} updates "
        "that were timed"
    )

"""How long an experiment takes on this machine: a few updates of our own trainer, timed before any arm is trained."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ktodata.experiments.kto_training import fit_on

UPDATES = 3  # the first one is slower: memory, kernels
HELD_OUT = 16  # rows that are scored
STEPS = 8  # tokens that are written to time writing


@dataclass(frozen=True)
class Pace:
    """In seconds.

    preparing : reading model and rows; pair : the reference's log-prob of a pair, with what frozen layers give for it
    update : an update of `batch` completions; scoring : one held-out row
    partners : mismatched pairs for every row that is trained on or scored; tokens : of a pair
    """

    preparing: float
    pair: float
    update: float
    scoring: float
    partners: float
    tokens: float
    batch: int = 1

    @property
    def forward(self) -> float:
        """Of a token through the whole model, without gradient."""
        return self.pair / self.tokens

    @property
    def trained(self) -> float:
        """Of a token, forward and backward pass: what an update takes beside its mismatched pairs."""
        return max(self.update / (self.batch * self.tokens) - self.partners * self.forward, self.forward)


def measure_pace(rows: pl.DataFrame, held_out: pl.DataFrame, settings: Mapping[str, Any]) -> Pace:
    """Train on `rows` for UPDATES updates and score HELD_OUT rows; nothing of it is kept. settings : of `kd.train.fit`"""
    events: list[tuple[float, dict[str, Any]]] = []
    trial = {
        **settings,
        **{"max_steps": UPDATES, "epochs": 1000, "eval_every_steps": None, "log_every_steps": 1},
        "seed": time.time_ns() % 2**31,  # rows in an order of their own, for which no reference is kept on disk
        "progress": lambda event: events.append((time.perf_counter(), event)),
    }
    facts = fit_on(rows, held_out.gather_every(max(1, held_out.height // HELD_OUT)).head(HELD_OUT), trial).metrics
    updated = [moment for moment, event in events if "held_out" not in event]
    evaluated = [moment for moment, event in events if "held_out" in event]
    reference, seconds, batch = facts["reference"], facts["seconds"], facts["settings"]["batch_size"]
    scored = facts["validation"].get("rows", 0)  # none, where those few are all too long
    own = min(facts["train"]["rows"], UPDATES * batch) + scored
    return Pace(
        preparing=seconds["preparing"],
        pair=seconds["reference"] / reference["pairs"],
        update=float(np.mean(np.diff(updated))),
        scoring=(evaluated[-1] - updated[-1]) / scored if scored else 0.0,
        partners=reference["pairs"] / own - 1,
        tokens=reference["requested_tokens"] / reference["pairs"],
        batch=batch,
    )


def time_writing(model: Any, prompts: Sequence[Any], device: Any) -> float:
    """Seconds of one more token to each of these prompts (token ids), together. The model is moved."""
    import torch

    shortest = min(STEPS, *map(len, prompts))
    ids = torch.tensor(np.array([prompt[:shortest] for prompt in prompts], np.int64), device=device)
    lengths = {"min_new_tokens": STEPS, "max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}
    model.to(device)
    started = time.perf_counter()
    with torch.no_grad():
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **lengths).cpu()  # waits for the device
    return (time.perf_counter() - started) / STEPS


class TimeLeft:
    """What is left of the estimate as trainings end, times how far it was off so far."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self._expected, self._left, self._over, self._spent = seconds, sum(seconds), 0.0, 0.0

    def took(self, number: int, seconds: float) -> None:
        """Training `number`, from 0, took so many seconds."""
        self._left -= self._expected[number]
        self._over += self._expected[number]
        self._spent += seconds

    def as_event(self) -> dict[str, Any]:
        """Of an event: seconds_left, and text."""
        left = max(0.0, self._left) * (self._spent / self._over if self._over else 1)
        return {"seconds_left": left, "text": f"{in_words(left / 60)} to go"}


def in_words(minutes: float) -> str:
    """Minutes as far as an estimate can be believed: whole ones up to ten, then fives, then half hours."""
    if minutes < 1:
        return "under a minute"
    if minutes < 10:
        return f"about {round(minutes)} minute{'s' * (round(minutes) > 1)}"
    if minutes < 58:
        return f"about {5 * round(minutes / 5)} minutes"
    hours = round(minutes / 30) / 2
    return f"about {hours:g} hour{'s' * (hours > 1)}"


def estimate_text(cost: Mapping[str, Any]) -> str:
    """One line for people. cost : of an `ExperimentPlan`"""
    text = f"{cost['trainings']:,} trainings" + (f", {cost['kept']:,} of them kept from before" if cost["kept"] else "")
    text += f"; {cost['updates']:,} updates of {cost['batch_size']:,} completions each"
    if cost["kept"] == cost["trainings"]:
        return f"{text}; nothing is left to train"
    text += f", {cost['tokens_a_completion']:,} tokens each"
    if "forward_tokens" in cost:
        each = ", ".join(f"{name} {tokens:,}" for name, tokens in cost["forward_tokens"].items())
        text += f"; about {cost['forward_tokens_in_all']:,} tokens through the model in all (once: {each})"
    text += f"; {in_words(cost['minutes'])} on this machine, by {UPDATES} updates that were timed"
    requests = cost.get("judge_requests")
    return f"{text}; {requests:,} questions to the judge at most" if requests else text

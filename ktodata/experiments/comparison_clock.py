"""How long a comparison will take on this machine: a few real passes, timed before anything is trained."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ktodata.evaluate.generation import ANSWERED_TOGETHER
from ktodata.experiments.methods.terms import TrainingTerms
from ktodata.train.data.tokens import Ids, TokenRows
from ktodata.train.model.frozen_layers import freeze_below

LONG_ENOUGH_S = 0.5  # a pass that takes this long says enough: no larger one is timed
STEPS = 8  # tokens that are written to time writing
# (passes without gradient, passes with one) of one completion through the whole model.
# kto: own and mismatched by the reference, mismatched by the policy. dpo: the reference. rlhf: the old and reference log-probs
# and the reward of what was written; with gradient the reward model, and the policy
PASSES = {"sft": (0, 1), "kto": (3, 1), "dpo": (1, 1), "orpo": (0, 1), "rlhf": (3, 2)}


@dataclass(frozen=True)
class Speed:
    """In seconds.

    forward : of a token, without gradient; trained : of a token, forward and backward pass
    written : of one more token to ANSWERED_TOGETHER prompts; load : of reading the model once
    """

    forward: float
    trained: float
    written: float
    load: float


def time_passes(model: Any, rows: TokenRows, terms: TrainingTerms, *, load_s: float) -> Speed:
    """Time a few passes of these rows, at most terms.micro_batch_size at once, and some tokens written. The model is moved."""
    model.to(terms.device)
    if terms.trainable_layers is not None:
        freeze_below(model, terms.trainable_layers)
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(rows.prompt, rows.completion, strict=True)]
    by_length = np.argsort(lengths, kind="stable")

    def of(count: int) -> tuple[dict[str, Any], int]:
        """That many rows, spread over all lengths."""
        chosen = by_length[((np.arange(count) + 0.5) * len(by_length) / count).astype(int)]
        return _batch([rows.sequence(int(row), int(row))[0] for row in chosen], terms.device)

    _pass(model, of(1)[0], terms, with_gradient=True)  # the first one takes longer: memory, kernels
    count = 1
    while True:
        batch, tokens = of(count)
        forward, trained = (_pass(model, batch, terms, with_gradient=wanted) for wanted in (False, True))
        if count >= min(terms.micro_batch_size, len(by_length)) or forward + trained > LONG_ENOUGH_S:
            break
        count *= 2
    prompts = [rows.prompt[int(row)][:STEPS] for row in by_length[:ANSWERED_TOGETHER] if len(rows.prompt[int(row)])]
    written = _write(model, prompts, terms) if prompts else 0.0
    return Speed(forward / tokens, trained / tokens, written, load_s)


def minutes(told: Mapping[str, Any], speed: Speed, terms: TrainingTerms, arms: Sequence[tuple[str, int]]) -> float:
    """What all arms take together. told : tokens and completions, as `comparison_plan.estimate` gives them."""
    seconds = 0.0
    for method, _ in arms:
        plain, trained = PASSES.get(method, (0, 0))
        read = told["completions_a_method"] * told["tokens_a_completion"]
        seconds += read * (plain * speed.forward + trained * speed.trained)
        seconds += (
            told["scored_tokens"] * speed.forward + told["written_steps"] * speed.written + speed.load * (1 + (trained > 0))
        )
        if method == "rlhf":
            seconds += terms.updates * terms.rollout_tokens * speed.written * max(1, terms.batch_size / ANSWERED_TOGETHER)
    return seconds / 60


def in_words(number: float) -> str:
    """Minutes as far as an estimate can be believed: whole ones up to ten, then fives, then half hours."""
    if number < 1:
        return "under a minute"
    if number < 10:
        return f"about {round(number)} minute{'s' * (round(number) > 1)}"
    if number < 58:
        return f"about {5 * round(number / 5)} minutes"
    hours = round(number / 30) / 2
    return f"about {hours:g} hour{'s' * (hours > 1)}"


def _batch(sequences: Sequence[Ids], device: Any) -> tuple[dict[str, Any], int]:
    """(padded ids with their mask, tokens that are no padding)."""
    width = max(map(len, sequences))
    ids, mask = (np.zeros((len(sequences), width), np.int64) for _ in range(2))
    for number, sequence in enumerate(sequences):
        ids[number, : len(sequence)], mask[number, : len(sequence)] = sequence, 1
    batch = {"input_ids": torch.from_numpy(ids).to(device), "attention_mask": torch.from_numpy(mask).to(device)}
    return batch, int(mask.sum())


def _pass(model: Any, batch: dict[str, Any], terms: TrainingTerms, *, with_gradient: bool) -> float:
    """Seconds of one forward pass, and of a backward pass after it."""

    def run() -> None:
        with torch.autocast(terms.device.type, torch.bfloat16, enabled=terms.compute_dtype == torch.bfloat16):
            if not with_gradient:
                with torch.no_grad():
                    model(**batch, use_cache=False)
                return
            model(**batch, labels=batch["input_ids"], use_cache=False).loss.backward()
        model.zero_grad(set_to_none=True)

    return _seconds(run, terms.device)


def _write(model: Any, prompts: Sequence[Ids], terms: TrainingTerms) -> float:
    """Seconds of one more token to ANSWERED_TOGETHER prompts."""
    batch, _ = _batch([prompt[: min(map(len, prompts))] for prompt in prompts], terms.device)
    how = {"min_new_tokens": STEPS, "max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}

    def run() -> None:
        with torch.no_grad():
            model.generate(**batch, **how)

    return _seconds(run, terms.device) / STEPS


def _seconds(run: Callable[[], None], device: Any) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started

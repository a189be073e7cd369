"""How one arm of a comparison is trained and asked: its key holds the code of this module and of what that imports."""

import gc
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch

from ktodata.errors import ModelError, SettingError
from ktodata.evaluate.generation import answer_all, choose_prompts
from ktodata.evaluate.rewards import completion_logps
from ktodata.experiments.arms import BASE, SCORES, ArmTraining, TrainedArm
from ktodata.experiments.methods.terms import TrainingTerms, rates_of, updates_of
from ktodata.experiments.methods.train_methods import TRAIN, TrainedPolicy, TrainingRows
from ktodata.experiments.probes.probe_table import Probes, ask
from ktodata.models import load_causal_lm
from ktodata.train.data.tokens import TokenRows
from ktodata.train.model.device import pick_device, pick_dtype


def terms_of(settings: Mapping[str, Any], *, rows: int) -> TrainingTerms:
    """The shared terms. Raises SettingError for a device that TRL would not take."""
    device = pick_device(settings["device"])
    if device.type not in ("cpu", "cuda") or device.index not in (None, 0):
        raise SettingError(f"compare: device {settings['device']!r}: TRL chooses its own; give auto, cpu or cuda.")
    names = ("batch_size", "epochs", "max_steps")
    same = ("model", "batch_size", "micro_batch_size", "max_length", "trainable_layers", "beta", "warmup_fraction", "schedule")
    return TrainingTerms(
        **{name: settings[name] for name in (*same, "max_grad_norm", "rollout_tokens", "rollouts")},
        updates=updates_of(rows, **{name: settings[name] for name in names}),
        rates=rates_of(settings["learning_rates"], settings["learning_rate_factor"]),
        device=device,
        compute_dtype=pick_dtype(settings["dtype"], device),
    )


def train_method(
    training: ArmTraining, rows: TrainingRows, tokens: TokenRows, terms: TrainingTerms, probes: Probes
) -> TrainedArm:
    """Train the method (or take the base as it is), and ask it about the held-out rows; its policy is not kept."""
    started, method = time.perf_counter(), training.arm.name
    base, tokenizer = load_causal_lm(terms.model)
    trained = TrainedPolicy(base, {}) if method == BASE else TRAIN[method](rows, terms, training.seed)  # type: ignore[index]
    ready = time.perf_counter()
    arithmetic = {"device": terms.device, "compute_dtype": terms.compute_dtype}
    logps = completion_logps(trained.model, tokens, **arithmetic)
    check_finite(logps, training, trained.metrics.get("learning_rate"))
    rewards = [None] * len(logps) if trained.reward_model is None else trained.reward_model.score(tokens)
    scores = pl.DataFrame({"row_id": tokens.row_id, "logp": logps, "reward_model": rewards}, schema=SCORES)
    answers = _answers(trained.model, tokenizer, tokens, terms, training.settings)
    probed, items = ask(probes, trained.model, tokenizer, **arithmetic)
    seconds = {"training_seconds": ready - started, "scoring_seconds": time.perf_counter() - ready}
    facts = trained.metrics | {name: round(spent, 2) for name, spent in seconds.items()}
    del trained, base
    gc.collect()  # trainers hold their models in circles
    if terms.device.type == "cuda":
        torch.cuda.empty_cache()
    return TrainedArm(method, training.seed, scores, answers, facts, probed, items)


def check_finite(logps: Any, training: ArmTraining, rate: float | None) -> None:
    """Raise ModelError when a log-prob is not finite."""
    broken = int((~np.isfinite(logps)).sum())
    if broken:
        because = "the base is broken"
        if rate is not None:
            because = f"training at rate {rate:g} broke it. Lower learning_rates: {{{training.arm.name}: ...}}"
        raise ModelError(
            f"{training.arm.name}, seed {training.seed}: {broken:,} of {len(logps):,} log-probs are not finite: {because}."
        )


def _answers(model: Any, tokenizer: Any, tokens: TokenRows, terms: TrainingTerms, settings: Mapping[str, Any]) -> pl.DataFrame:
    """What the policy writes to the same held-out prompts in every arm."""
    chosen = choose_prompts(tokens, settings["generate"], 0)
    prompts, longest = [tokens.prompt[row] for row in chosen], settings["max_new_tokens"]
    written = answer_all(model, tokenizer, prompts, max_new_tokens=longest, device=terms.device)
    return pl.DataFrame({"row_id": [tokens.row_id[row] for row in chosen]}, schema={"row_id": pl.String()}).hstack(written)

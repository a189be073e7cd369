"""One arm of a comparison, from training to the numbers that are kept of it; its policy is not."""

import gc
import time
from typing import Any

import numpy as np
import polars as pl
import torch

from ktodata.errors import ModelError
from ktodata.evaluate.generation import answer_all, choose_prompts
from ktodata.evaluate.rewards import completion_logps
from ktodata.experiments.comparison_plan import ComparisonPlan
from ktodata.experiments.comparison_store import BASE, SCORES, TrainedArm
from ktodata.experiments.methods.train_methods import TRAIN, Trained
from ktodata.experiments.probes.probe_table import ask
from ktodata.models import load_causal_lm


def finished_arm(plan: ComparisonPlan, method: Any, seed: int, settings: dict[str, Any]) -> TrainedArm:
    """Train the method (or take the base as it is), and ask it about the held-out rows."""
    started = time.perf_counter()
    base, tokenizer = load_causal_lm(settings["model"])
    trained = Trained(base, {}) if method == BASE else TRAIN[method](plan.train, plan.terms, seed)
    ready = time.perf_counter()
    how = {"device": plan.terms.device, "compute_dtype": plan.terms.compute_dtype}
    logps = completion_logps(trained.policy, plan.tokens, **how)
    check_finite(logps, method, seed, trained.facts.get("learning_rate"))
    rewards = None if trained.reward_model is None else trained.reward_model.score(plan.tokens)
    scores = pl.DataFrame(
        {"row_id": plan.tokens.row_id, "logp": logps, "reward_model": [None] * len(logps) if rewards is None else rewards},
        schema=SCORES,
    )
    answers = _answers(trained.policy, tokenizer, plan, settings)
    probed, items = ask(plan.probes, trained.policy, tokenizer, **how)
    facts = {
        **trained.facts,
        "training_seconds": round(ready - started, 2),
        "scoring_seconds": round(time.perf_counter() - ready, 2),
    }
    del trained, base
    gc.collect()  # trainers hold their models in circles
    if plan.terms.device.type == "cuda":
        torch.cuda.empty_cache()
    return TrainedArm(method, seed, scores, answers, facts, probed, items)


def check_finite(logps: Any, method: str, seed: int, rate: float | None) -> None:
    """Raise ModelError when a log-prob is not finite."""
    broken = int((~np.isfinite(logps)).sum())
    if broken:
        because = (
            "the base is broken"
            if rate is None
            else f"training at rate {rate:g} broke it. Lower learning_rates: {{{method}: ...}}"
        )
        raise ModelError(f"{method}, seed {seed}: {broken:,} of {len(logps):,} log-probs are not finite: {because}.")


def _answers(policy: Any, tokenizer: Any, plan: ComparisonPlan, settings: dict[str, Any]) -> pl.DataFrame:
    """What the policy writes to the same held-out prompts in every arm."""
    chosen = choose_prompts(plan.tokens, settings["generate"], 0)
    prompts = [plan.tokens.prompt[row] for row in chosen]
    written = answer_all(policy, tokenizer, prompts, max_new_tokens=settings["max_new_tokens"], device=plan.terms.device)
    return pl.DataFrame({"row_id": [plan.tokens.row_id[row] for row in chosen]}, schema={"row_id": pl.String()}).hstack(written)

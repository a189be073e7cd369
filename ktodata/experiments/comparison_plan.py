"""What a comparison has to read and train, known before anything is trained."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import DataError, EmptyDataError, SettingError
from ktodata.evaluate.generation import ANSWERED_TOGETHER, choose_prompts
from ktodata.evaluate.truth import with_truth
from ktodata.experiments.comparison_clock import PASSES, minutes, time_passes
from ktodata.experiments.comparison_store import BASE, releases
from ktodata.experiments.digests import digest, digest_model, digest_rows, digest_trainer
from ktodata.experiments.methods.preference_pairs import make_pairs
from ktodata.experiments.methods.terms import TrainingTerms, rates_of, updates_of
from ktodata.experiments.methods.train_methods import TrainingRows, check_can_train, training_rows
from ktodata.experiments.probes.probe_table import Probes, make_probes
from ktodata.experiments.probes.win_rate import Judging, judging_rows
from ktodata.models import load_causal_lm
from ktodata.train.data.tokens import TokenRows, tokenize
from ktodata.train.data.training_rows import check_rows, is_conversational, named, read_part
from ktodata.train.model.device import pick_device, pick_dtype

BACKWARD = 2  # a backward pass in forward passes; less where layers are frozen


@dataclass(frozen=True)
class ComparisonPlan:
    """Rows, terms, and the arms in the order in which they are trained."""

    train: TrainingRows
    held_out: pl.DataFrame  # row_id, label, truth, group, model, tokens: those that fit max_length, in the order of `tokens`
    tokens: TokenRows
    terms: TrainingTerms
    arms: tuple[tuple[str, int], ...]  # (method, seed); the base is first
    keys: Mapping[tuple[str, int], str]
    facts: dict[str, Any]
    probes: Probes
    judging: Judging | None  # None: no win rates


def make_plan(run_or_shards: Path | str | pl.DataFrame, settings: Mapping[str, Any]) -> ComparisonPlan:
    """Read and check everything. Raises before the expensive work, as `kd.train.fit` does."""
    part = settings["part"]
    rows = read_part(run_or_shards, part)
    if rows.is_empty():
        raise EmptyDataError(f"there are no {part} rows to compare on. Hold some out with the step `split`.")
    rows = with_truth(check_rows(rows, part=part, both_classes=False), settings["truth"], settings["truth_column"])
    limit = settings["max_rows"]
    rows = rows if limit is None else rows.sample(min(limit, rows.height), seed=0).sort("row_id")
    train = check_rows(read_part(run_or_shards, "train"), part="train", both_classes=True)
    check_apart(train, rows, part)
    started = time.perf_counter()
    model, tokenizer = load_causal_lm(settings["model"])
    load_s = time.perf_counter() - started
    check_context(model, settings["max_length"])
    used = training_rows(train, tokenizer, max_length=settings["max_length"])
    tokens, token_facts = tokenize(rows, tokenizer, max_length=settings["max_length"], part=part)
    pairs = make_pairs(used.frame, seed=0)
    check_can_train(tuple(settings["methods"]), pairs)
    terms = terms_of(settings, rows=len(used.tokens))
    arms = ((BASE, 0), *((method, seed) for seed in settings["seeds"] for method in settings["methods"]))
    context = getattr(model.config, "max_position_embeddings", None)
    probes = make_probes(settings, tokenizer, context=context, chat=is_conversational(train))
    judging = judging_rows(run_or_shards, rows, part=part, endpoint=bool(settings["judge"])) if settings["win_rate"] else None
    if judging is not None:
        check_apart(train, judging.learnt, "other held-out")
    asked = [*probes.texts(), _answered(tokens, settings)]
    cost = estimate(used.tokens, tokens, terms, arms, asked, tasks=0 if probes.tasks is None else probes.tasks.facts["tokens"])
    cost["judge_requests"] = asked[-1][0] * 2 * (len(arms) - 1) if settings["judge"] else 0
    cost["minutes"] = minutes(cost, time_passes(model, used.tokens, terms, load_s=load_s), terms, arms)
    facts = {
        "part": part,
        "held_out_rows": len(tokens),
        "prompt_groups": len(set(tokens.group)),
        "updates": terms.updates,
        "rows_used": pairs.facts,
        "tokens": {"train": used.facts, part: token_facts},
        "estimate": cost,
        "asked": probes.facts,
    }
    keys = _keys(settings, train, rows, arms, probes.digests)
    return ComparisonPlan(used, held_out_table(rows, tokens), tokens, terms, arms, keys, facts, probes, judging)


def check_apart(train: pl.DataFrame, held_out: pl.DataFrame, part: str) -> None:
    """Raise DataError when a row would be trained on and scored."""
    both = train.join(held_out, on="row_id", how="semi")
    if both.height:
        raise DataError(f"{both.height:,} {part} rows are training rows as well (row_id {named(both['row_id'])}). Split them.")


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


def check_context(model: Any, max_length: int) -> None:
    """Raise SettingError when rows may be longer than the model reads."""
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and max_length > context:
        raise SettingError(f"compare: max_length is {max_length:,}; the model reads {context:,} tokens at most.")


def held_out_table(rows: pl.DataFrame, tokens: TokenRows) -> pl.DataFrame:
    """What is known of each held-out row that fits; without its text."""
    model = pl.col("model").cast(pl.String) if "model" in rows.columns else pl.lit(None, dtype=pl.String)
    counts = [len(completion) for completion in tokens.completion]
    fits = pl.DataFrame({"row_id": tokens.row_id, "group": tokens.group, "tokens": counts})
    return fits.join(rows.select("row_id", "label", "truth", model=model), on="row_id", how="left", maintain_order="left")


def estimate(
    train: TokenRows,
    held_out: TokenRows,
    terms: TrainingTerms,
    arms: Sequence[tuple[str, int]],
    asked: Sequence[tuple[int, int, int]] = (),
    *,
    tasks: int = 0,
) -> dict[str, Any]:
    """Tokens that go through the whole model at most, as forward passes, for each method once and for all arms together.

    asked : (prompts, their tokens, most tokens of one answer) of everything that is answered; tasks : tokens of lm-eval's items
    """
    row = _tokens(train) / len(train)
    held_out_tokens = _tokens(held_out)
    prompts, written = sum(read for _, read, _ in asked), sum(count * longest for count, _, longest in asked)
    scored = held_out_tokens + prompts + tasks
    completions = terms.updates * terms.batch_size
    once = {name: round(_passes(name) * completions * row) + scored + written for name, _ in arms}
    return {
        "completions_a_method": completions,
        "tokens_a_completion": round(row, 1),
        "held_out_tokens": held_out_tokens,
        "scored_tokens": scored,
        "written_tokens": written,
        "written_steps": sum(-(-count // ANSWERED_TOGETHER) * longest for count, _, longest in asked),
        "forward_tokens": once,
        "forward_tokens_in_all": sum(once[name] for name, _ in arms),
    }


def _passes(method: str) -> int:
    """Of one completion through the whole model, in forward passes; what RLOO writes is read once more for that."""
    plain, trained = PASSES.get(method, (0, 0))
    return plain + trained * (1 + BACKWARD) + (method == "rlhf")


def _answered(tokens: TokenRows, settings: Mapping[str, Any]) -> tuple[int, int, int]:
    """(prompts, their tokens, most tokens of one answer) of the held-out prompts that are answered."""
    chosen = choose_prompts(tokens, settings["generate"], 0)
    return len(chosen), sum(len(tokens.prompt[row]) for row in chosen), settings["max_new_tokens"]


def _tokens(rows: TokenRows) -> int:
    return sum(len(p) + len(c) for p, c in zip(rows.prompt, rows.completion, strict=True))


def _keys(
    settings: Mapping[str, Any],
    train: pl.DataFrame,
    rows: pl.DataFrame,
    arms: Sequence[tuple[str, int]],
    asked: Mapping[str, str],
) -> dict[tuple[str, int], str]:
    """A digest of all that an arm's scores and answers depend on. Settings that only read them have no part in it.

    asked : of each probe, what its answers depend on
    """
    common = ("part", "max_length", "generate", "max_new_tokens", "device", "dtype")
    of_training = (
        *("epochs", "max_steps", "batch_size", "micro_batch_size", "trainable_layers", "beta", "warmup_fraction", "schedule"),
        *("max_grad_norm", "rollout_tokens", "rollouts"),
    )
    scored = [digest_model(settings["model"]), digest_rows(rows, ("row_id", "prompt", "completion"))]
    used = ("row_id", "prompt", "completion", "label", "weight", "prompt_group")
    trained = digest_rows(train, used)
    rates = rates_of(settings["learning_rates"], settings["learning_rate_factor"])
    keys = {}
    ours = {"kto": digest_trainer()}
    for method, seed in arms:
        told: dict[str, Any] = {name: settings[name] for name in common} | dict(asked)
        if method != BASE:
            told |= {name: settings[name] for name in of_training} | {"train": trained, "rate": rates[method]}
        if method == "rlhf":
            told["reward_model_rate"] = rates["reward_model"]
        keys[method, seed] = digest(method, seed, scored, told, releases(method), ours.get(method))
    return keys

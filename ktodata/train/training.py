"""What `fit` does, in order: model, rows as tokens, plan, reference, loop, files."""

import json
import math
import platform
import shutil
import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import xxhash

from ktodata.errors import EmptyDataError, ModelError, OneClassError
from ktodata.models import cache_dir, load_causal_lm, no_progress_bars
from ktodata.train.batches import Plan, plan_held_out, plan_training, shifted
from ktodata.train.checkpoints import Checkpoints
from ktodata.train.device import pick_device, pick_dtype
from ktodata.train.loop import matched, mismatched, train
from ktodata.train.objectives import Kto
from ktodata.train.progress import reporting
from ktodata.train.reference import ReferenceLogps, reference_key, reference_logps, unique_pairs, weights_hash
from ktodata.train.result import TrainResult
from ktodata.train.schedule import learning_rate_at
from ktodata.train.scorer import Scorer
from ktodata.train.shards import named
from ktodata.train.shared_prompts import Pair
from ktodata.train.state import State
from ktodata.train.telemetry import SCHEMA
from ktodata.train.tokens import TokenRows, joined, tokenize
from ktodata.train.trunk import freeze_below

# what a training may be resumed under although it differs
NOT_IN_KEY = ("out", "progress", "resume", "keep_checkpoints", "save_every_steps")
LIBRARIES = ("ktodata", "torch", "transformers", "safetensors", "polars", "numpy")


@dataclass(frozen=True)
class Prepared:
    """Rows as tokens, and which of them meet in which step. Held-out rows are numbered after the training rows."""

    rows: TokenRows
    plan: Plan
    held_out: Plan
    facts: dict[str, Any]

    def pairs(self) -> list[Pair]:
        """Every (prompt, completion) whose log-prob is needed: matched ones first, they are used most often."""
        steps = (*self.plan.steps, *self.held_out.steps)
        return unique_pairs(pair for kind in (matched, mismatched) for step in steps for pair in kind(step))


def run_training(settings: dict[str, Any], train_rows: pl.DataFrame, held_out_rows: pl.DataFrame) -> TrainResult:
    """Train as `settings` say; the rows have passed `check_rows`."""
    clock = time.perf_counter()
    device = pick_device(settings["device"])
    compute_dtype = pick_dtype(settings["dtype"], device)
    torch.manual_seed(settings["seed"])
    model, tokenizer = load_causal_lm(settings["model"])
    model.to(device).eval()  # dropout off: the reference has none
    prepared = prepare(train_rows, held_out_rows, tokenizer, settings)
    check_fits(model, prepared.rows)
    untouched = weights_hash(model)
    model, frozen = choose_weights(model, settings)
    scorer = Scorer(
        model,
        prepared.rows,
        device=device,
        compute_dtype=compute_dtype,
        frozen_layers=frozen,
        keep_states_mb=settings["keep_states_mb"],
    )
    pairs = prepared.pairs()
    states = scorer.keep_states(pairs)
    key = reference_key(untouched, scorer, pairs)
    reference, reference_facts = reference_logps(scorer, pairs, key=key, cache=cache_dir() / "reference")
    check_reference(reference, pairs, prepared.rows)
    ready, scorer.real_tokens, scorer.padded_tokens = time.perf_counter(), 0, 0
    state = train_all(scorer, reference, prepared, settings, key)
    ended = time.perf_counter()
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    facts = {
        "settings": {name: _as_json(value) for name, value in settings.items() if name not in NOT_IN_KEY},
        "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "dtype": str(compute_dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "method": scorer.method,
        "trainable_parameters": trainable,
        "frozen_layers": frozen,
        "kept_states": states,
        "reference": reference_facts | {"weights_hash": untouched},
        **prepared.facts,
        # of all forward passes after the reference: padded tokens per real token
        "padding_ratio": round(scorer.padded_tokens / max(1, scorer.real_tokens), 4),
        "seconds": {"before_training": round(ready - clock, 2), "training": round(ended - ready, 2)},
        "tokens_per_second": round(trained_tokens(prepared, state) / (ended - ready), 1),
    }
    result = TrainResult(
        history=pl.DataFrame(state.history, infer_schema_length=None),
        held_out=state.held_out,
        telemetry=pl.concat(state.telemetry) if state.telemetry else pl.DataFrame(schema=SCHEMA),
        facts=facts,
        model=settings["out"],
        policy=model,
        tokenizer=tokenizer,
    )
    if settings["out"] is not None:
        write(result, settings["out"], keep_checkpoints=settings["keep_checkpoints"])
    return result


def prepare(train_rows: pl.DataFrame, held_out_rows: pl.DataFrame, tokenizer: Any, settings: dict[str, Any]) -> Prepared:
    """Tokens and plan. Raises OneClassError when what fits max_length holds one label only."""
    max_length, batch_size, seed = settings["max_length"], settings["batch_size"], settings["seed"]
    rows, token_facts = tokenize(train_rows, tokenizer, max_length=max_length, part="train")
    if rows.label.all() or not rows.label.any():
        raise OneClassError(
            f"train: of {train_rows.height:,} rows, {len(rows):,} fit max_length {max_length:,}, and all of those are "
            f"{'desirable' if rows.label[0] else 'undesirable'}. KTO needs both: raise max_length."
        )
    plan = plan_training(rows, batch_size=batch_size, epochs=settings["epochs"], max_steps=settings["max_steps"], seed=seed)
    facts = {"train": token_facts, "plan": plan.facts, "balance": balance(rows, settings)}
    held_out, held_out_facts = _held_out(held_out_rows, tokenizer, max_length)
    facts["validation"] = held_out_facts
    if held_out is None:
        return Prepared(rows, plan, Plan((), {}), facts)
    shown = shifted(plan_held_out(held_out, batch_size=batch_size, seed=seed), len(rows))
    return Prepared(joined(rows, held_out), plan, shown, facts)


def _held_out(rows: pl.DataFrame, tokenizer: Any, max_length: int) -> tuple[TokenRows | None, dict[str, Any]]:
    if rows.is_empty():
        return None, {"not_applicable": "there are no validation rows"}
    try:
        tokens, facts = tokenize(rows, tokenizer, max_length=max_length, part="validation")
    except EmptyDataError as error:
        return None, {"not_applicable": str(error)}
    if len(tokens) < 2:
        return None, {"not_applicable": "one validation row has no mismatched partner to estimate z0 with"}
    return tokens, facts


def balance(rows: TokenRows, settings: dict[str, Any]) -> dict[str, Any]:
    """How much each label counts in the loss. The paper's rule (Eq. 8): the ratio, or its inverse, lies in [1, 4/3]."""
    desirable = settings["desirable_weight"] * float(rows.weight[rows.label].sum())
    undesirable = settings["undesirable_weight"] * float(rows.weight[~rows.label].sum())
    ratio = desirable / undesirable if undesirable else math.inf
    return {
        "desirable": int(rows.label.sum()),
        "undesirable": int((~rows.label).sum()),
        "weighted_ratio": round(ratio, 4) if math.isfinite(ratio) else None,
        "within_paper_rule": 1 - 1e-6 <= ratio <= 4 / 3 + 1e-6,
    }


def choose_weights(model: Any, settings: dict[str, Any]) -> tuple[Any, int]:
    """(the model with only the wanted weights trainable, how many of its lowest layers are frozen)."""
    layers, lora = settings["trainable_layers"], settings["lora"]
    if lora is not None:
        from ktodata.train.adapters import with_adapters

        model, frozen = with_adapters(model, lora, layers)
        return model.eval(), frozen
    if layers is None:
        model.requires_grad_(True)
        return model, 0
    return model, freeze_below(model, layers)


def train_all(
    scorer: Scorer, reference: ReferenceLogps, prepared: Prepared, settings: dict[str, Any], reference_key: str
) -> State:
    """The loop with its optimizer, schedule and checkpoints."""
    optimizer = make_optimizer(scorer.model, settings["weight_decay"])
    state = State()
    checkpoints = None
    if settings["out"] is not None:
        checkpoints = Checkpoints(settings["out"] / "checkpoints", training_key(settings, reference_key))
        if not settings["resume"]:
            checkpoints.clear()
        checkpoints.restore(scorer.model, optimizer, state)
    rate = partial(
        learning_rate_at,
        steps=len(prepared.plan.steps),
        peak=settings["learning_rate"],
        warmup_fraction=settings["warmup_fraction"],
        schedule=settings["schedule"],
    )
    with reporting(settings["progress"]) as report:
        train(
            scorer,
            reference,
            Kto(settings["beta"], settings["desirable_weight"], settings["undesirable_weight"]),
            optimizer,
            prepared.plan,
            prepared.held_out,
            state,
            checkpoints,
            learning_rate=rate,
            micro_batch_size=settings["micro_batch_size"],
            max_grad_norm=settings["max_grad_norm"],
            eval_every_steps=settings["eval_every_steps"],
            save_every_steps=settings["save_every_steps"],
            report=report,
        )
    return state


def make_optimizer(model: Any, weight_decay: float) -> Any:
    """AdamW over what trains; weight decay on matrices only, as decaying norms and biases shrinks what is not redundant."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trainable if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0)  # the loop sets the rate at every step


def training_key(settings: dict[str, Any], reference_key: str) -> str:
    """Names a training: two with the same key make the same steps."""
    told = {name: _as_json(value) for name, value in settings.items() if name not in NOT_IN_KEY}
    return xxhash.xxh3_128_hexdigest(json.dumps([told, reference_key], sort_keys=True).encode())


def trained_tokens(prepared: Prepared, state: State) -> int:
    """Real prompt and completion tokens of the rows trained on, each time they were."""
    rows, steps = prepared.rows, prepared.plan.steps[: state.step]
    return sum(len(rows.prompt[row]) + len(rows.completion[row]) for step in steps for row in step.rows)


def check_fits(model: Any, rows: TokenRows) -> None:
    """Raise ModelError when a row is longer than the model's context, or holds a token that the model has no embedding for."""
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(rows.prompt, rows.completion, strict=True)]
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and max(lengths) > context:
        over = pl.Series([row_id for row_id, length in zip(rows.row_id, lengths, strict=True) if length > context])
        raise ModelError(
            f"{len(over):,} of {len(rows):,} rows are longer than the model's context of {context:,} tokens "
            f"(row_id {named(over)}). Set max_length to {context:,} or less."
        )
    largest = max(int(ids.max()) for ids in (*rows.prompt, *rows.completion) if len(ids))
    embeddings = model.get_input_embeddings().num_embeddings
    if largest >= embeddings:
        raise ModelError(f"the tokenizer made token {largest}, but the model has {embeddings:,} embeddings: no match.")


def check_reference(reference: ReferenceLogps, pairs: list[Pair], rows: TokenRows) -> None:
    """Raise ModelError when a log-prob of the reference is not finite: the model is broken, training would be too."""
    finite = reference(pairs).isfinite().cpu().numpy()
    if not finite.all():
        bad = pl.Series([rows.row_id[row] for row in dict.fromkeys(pairs[number][0] for number in np.flatnonzero(~finite))])
        raise ModelError(
            f"the reference model gives {len(bad):,} of {len(rows):,} rows a log-prob that is not finite (row_id {named(bad)}): "
            "its weights are damaged, or dtype is too narrow for it."
        )


def write(result: TrainResult, out: Path, *, keep_checkpoints: bool) -> None:
    """Policy, tokenizer, telemetry.parquet and, as the last, training.json: where that stands, the rest is whole."""
    out.mkdir(parents=True, exist_ok=True)
    scratch = out / ".writing"
    shutil.rmtree(scratch, ignore_errors=True)
    with no_progress_bars():
        result.policy.save_pretrained(scratch)
    result.tokenizer.save_pretrained(scratch)
    result.telemetry.write_parquet(scratch / "telemetry.parquet")
    told = {**result.facts, "history": result.history.to_dicts(), "held_out": result.held_out}
    (scratch / "training.json").write_text(json.dumps(told, indent=1))
    for file in sorted(scratch.iterdir(), key=lambda file: file.name == "training.json"):
        file.replace(out / file.name)
    scratch.rmdir()
    if not keep_checkpoints:
        shutil.rmtree(out / "checkpoints", ignore_errors=True)


def _as_json(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value

"""What `fit` does, in order: model, rows as tokens, plan, reference, loop, files."""

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
import xxhash

from ktodata.errors import ModelError, RunError, SettingError
from ktodata.files import discard
from ktodata.models import cache_dir, check_no_adapter, load_causal_lm, quantized_by
from ktodata.train.checkpoints import Checkpoints, template_day_in
from ktodata.train.data.preparation import Prepared, prepare
from ktodata.train.data.ragged_ids import Numbers
from ktodata.train.data.template_date import day_written, today, write_day
from ktodata.train.data.tokens import TokenRows
from ktodata.train.data.training_rows import CheckedPart, named
from ktodata.train.distributed.interface import Distributed
from ktodata.train.distributed.mapped_weights import MappedWeights, load_mapped
from ktodata.train.distributed.processes import current_processes
from ktodata.train.distributed.sharding import check_can_shard, shard, whole
from ktodata.train.early_stop import EarlyStop, check_can_stop_early
from ktodata.train.job import Job
from ktodata.train.loop import train
from ktodata.train.loss_weights import balance
from ktodata.train.model.activation_cache import current_cache
from ktodata.train.model.adapters import quantized_options
from ktodata.train.model.device import pick_device, pick_dtype
from ktodata.train.model.fingerprint import weights_hash
from ktodata.train.model.frozen_layers import freeze_below
from ktodata.train.model.gradient_checkpointing import checkpoint_layers, keep_activations
from ktodata.train.model.length_regimes import fitted
from ktodata.train.model.router_loss import coefficient_of, watch_routers
from ktodata.train.model.scorer import Scorer, Work
from ktodata.train.model.stored_dtype import SavedAs, as_stored, round_weights
from ktodata.train.objectives import OBJECTIVE_SETTINGS, Objective, make_objective
from ktodata.train.optimizers import check_optimizer, make_optimizer
from ktodata.train.pass_size import tokens_of_pass
from ktodata.train.reference import ReferenceLogps, reference_key, reference_logps
from ktodata.train.results.provenance import circumstances, outcome, recorded_settings
from ktodata.train.results.telemetry import SCHEMA
from ktodata.train.results.trackers import LoggerName, check_loggers, open_loggers
from ktodata.train.results.train_result import TrainResult
from ktodata.train.results.trained_folder import check_one_training
from ktodata.train.results.training_findings import training_findings
from ktodata.train.results.training_progress import reporting
from ktodata.train.schedule import learning_rate_at
from ktodata.train.state import State, trainable


def run_training(settings: dict[str, Any], train_rows: CheckedPart, held_out_rows: CheckedPart | None) -> TrainResult:
    """Train as `settings` say."""
    clock = time.perf_counter()
    device = pick_device(settings["device"])
    compute_dtype = pick_dtype(settings["dtype"], device)
    distributed = current_processes(settings["parallel"], device)
    sharded = distributed.is_sharded
    if sharded:
        check_can_shard(settings)
    check_optimizer(settings["optimizer"], device.type)
    check_loggers(loggers_of(settings), folder=settings["out"])
    torch.manual_seed(settings["seed"])
    model, tokenizer, mapped = read_model(settings, device, compute_dtype, sharded=sharded)
    day = keep_day(tokenizer, settings, distributed) if train_rows.conversational else None
    prepared = prepare(train_rows, held_out_rows, tokenizer, settings)
    prepared = replace(prepared, rows=fitted(model, prepared.rows))
    if settings["early_stop"] is not None:
        check_can_stop_early(prepared.held_out_labels, settings["eval_every_steps"])
    untouched = weights_hash(model) if mapped is None else mapped.hash
    saved = how_to_save(settings, model, mapped)
    model, frozen = choose_weights(model, settings)
    if settings["gradient_checkpointing"]:
        checkpoint_layers(model)
    weights = balance(
        prepared.train_rows,
        desirable_weight=settings["desirable_weight"],
        undesirable_weight=settings["undesirable_weight"],
        soft=settings["soft_labels"],
        flip_rates=settings["flip_rates"],
    )
    balanced = {"desirable_weight": weights.desirable_weight, "undesirable_weight": weights.undesirable_weight}
    objective = make_objective(settings["objective"], **{name: settings[name] for name in OBJECTIVE_SETTINGS} | balanced)
    scorer, router_facts = make_scorer(model, prepared.rows, settings, frozen, device, compute_dtype, mapped)
    pairs = prepared.pairs(objective)
    prepared_at = time.perf_counter()
    made_by = scorer.computed_by(untouched)
    cached = scorer.cache_activations(pairs.tolist() if scorer.frozen_layers else [], made_by=made_by)
    key = reference_key(made_by, scorer, pairs)
    training = training_key(settings, key, train_rows, held_out_rows)
    if not distributed.all_equal(training):
        raise RunError(
            f"the {distributed.size} processes do not train the same: settings, rows, model or releases of torch differ between "
            "them. Give every process the same files and the same installation."
        )
    reference, reference_metrics = reference_logps(
        scorer,
        pairs,
        key=key,
        cache=cache_dir() / "reference",
        distributed=distributed,
        store=current_cache(made_by, scorer.frozen_layers),
    )
    check_reference(reference, pairs, prepared.rows)
    ready, before = time.perf_counter(), scorer.take_work(distributed)
    state = State(template_day=day, reference=reference_metrics | {"weights_hash": untouched} | before)
    train_all(scorer, reference, objective, prepared, settings, training, distributed, saved, state)
    keep_activations(model)
    seconds = {"preparing": prepared_at - clock, "reference": ready - prepared_at, "training": state.seconds_so_far}
    metrics = {
        **circumstances(settings, scorer, distributed),
        "saved_dtype": str(saved.dtype).removeprefix("torch."),
        "saved_float32": sorted(saved.wide),
        "frozen_layers": frozen,
        "activation_cache": cached,
        "reference": state.reference,
        "template_day": day,
        **prepared.metrics,
        "balance": weights.as_dict(prepared.train_rows),
        "findings": training_findings(
            prepared.train_rows,
            weights,
            prepared.plan,
            soft=settings["soft_labels"],
            flip_rates=settings["flip_rates"],
            router_facts=router_facts,
            held_out=prepared.metrics["validation"],
        ),
        "router_loss": router_facts,
        **scorer.take_work(distributed),  # of all forward passes after the reference, those before a resume among them
        **outcome(state, prepared.plan, seconds),
    }
    result = TrainResult(
        history=pl.DataFrame(state.history, infer_schema_length=None),
        held_out=state.held_out,
        telemetry=pl.concat(state.telemetry) if state.telemetry else pl.DataFrame(schema=SCHEMA),
        metrics=metrics,
        folder=settings["out"],
        model=gathered_model(model, settings, distributed) if sharded else model,
        tokenizer=tokenizer,
    )
    if settings["out"] is not None and distributed.rank == 0:
        result.save(settings["out"])
        if not settings["keep_checkpoints"]:
            discard(settings["out"] / "checkpoints")
    distributed.broadcast(None)  # no process goes on before the files are there
    return result


def read_model(
    settings: dict[str, Any], device: Any, compute_dtype: Any, *, sharded: bool
) -> tuple[Any, Any, MappedWeights | None]:
    """(model with dropout off, as the reference has none; tokenizer; the weights where the model has no values yet).

    sharded : the model may be larger than a device, or the host: it gets its values when it is shared out
    """
    check_one_training(Path(settings["model"]).expanduser())
    if sharded:
        mapped = load_mapped(settings["model"])
        check_weights_can_train(mapped[0], settings)
        return mapped
    options = quantized_options(settings["lora"], device=device, compute_dtype=compute_dtype)
    model, tokenizer = load_causal_lm(settings["model"], **options)
    check_no_adapter(settings["model"], model)
    check_weights_can_train(model, settings)
    model.to(device)
    return model.eval(), tokenizer, None


def keep_day(tokenizer: Any, settings: dict[str, Any], distributed: Distributed) -> str | None:
    """The day that all prompts name whose template writes it, on which this training was begun; None where it writes none."""
    begun = template_day_in(settings["out"] / "checkpoints") if settings["out"] is not None and settings["resume"] else None
    write_day(tokenizer, distributed.broadcast(begun or today()))
    return day_written(tokenizer)


def check_weights_can_train(model: Any, settings: dict[str, Any]) -> None:
    """Raise ModelError for weights that are stored quantized and are to be trained themselves."""
    kind = quantized_by(model.config)
    if kind is not None and settings["lora"] is None:
        raise ModelError(
            f"the weights of {settings['model']!r} are quantized already ({kind}), so they cannot be trained themselves. Give "
            "the model as it was before that; or lora, which trains adapters beside weights of bitsandbytes."
        )


def make_scorer(
    model: Any,
    rows: TokenRows,
    settings: dict[str, Any],
    frozen: int,
    device: Any,
    compute_dtype: Any,
    mapped: MappedWeights | None,
) -> tuple[Scorer, dict[str, Any]]:
    """(a scorer, what is done about the router loss of a mixture of experts). mapped : the weights of a model to be shared out

    Raises SettingError for a loss that was set and cannot be had.
    """
    setting = settings["router_aux_loss_coef"]
    coefficient = coefficient_of(model.config, setting)
    sharing: dict[str, Any] = {}
    if mapped is not None:
        within = settings["parallel"] == "hsdp"
        sharing["shard"] = partial(shard, weights=mapped, device=device, compute_dtype=compute_dtype, each_machine=within)
    scorer = Scorer(
        model,
        rows,
        device=device,
        compute_dtype=compute_dtype,
        frozen_layers=0 if coefficient else frozen,  # the routers of frozen layers count in every pass
        activation_cache_mb=settings["activation_cache_mb"],
        **sharing,
    )
    reason = watch_routers(scorer, coefficient) if coefficient else None
    if setting and scorer.routers is None:
        why, kind = reason or "it has no routers", model.config.model_type
        raise SettingError(f"router_aux_loss_coef is {setting:g}, which this {kind} model cannot have: {why}. Leave it out.")
    if reason is not None:
        return scorer, {"coefficient": 0.0, "config_asks_for": coefficient, "not_applicable": reason}
    return scorer, {"coefficient": coefficient if scorer.routers is not None else 0.0}


def choose_weights(model: Any, settings: dict[str, Any]) -> tuple[Any, int]:
    """(the model with only the wanted weights trainable, how many of its lowest layers are frozen)."""
    layers, lora = settings["trainable_layers"], settings["lora"]
    if lora is not None:
        from ktodata.train.model.adapters import with_adapters

        model, frozen = with_adapters(model, lora, layers)
        return model.eval(), frozen
    if layers is None:
        model.requires_grad_(True)
        return model, 0
    return model, freeze_below(model, layers)


def gathered_model(model: Any, settings: dict[str, Any], distributed: Distributed) -> Any:
    """A model that is shared out over processes, whole in the host's memory of the first one; None in the others."""
    whole_model, places = None, {}
    if distributed.rank == 0:  # what is frozen is as it was read
        whole_model = choose_weights(load_causal_lm(settings["model"])[0], settings)[0].eval()
        places = dict(whole_model.named_parameters())
    for name, tensor in trainable(model).items():
        full = whole(tensor)  # by all processes, one tensor at a time
        if name in places:
            places[name].data.copy_(full)
    return whole_model


def train_all(
    scorer: Scorer,
    reference: ReferenceLogps,
    objective: Objective,
    prepared: Prepared,
    settings: dict[str, Any],
    key: str,
    distributed: Distributed,
    saved: SavedAs,
    state: State,
) -> None:
    """The loop with its optimizer, schedule, checkpoints and logs; of several processes, the first one logs.

    key : from `training_key`
    """
    optimizer = make_optimizer(scorer.model, settings["optimizer"], weight_decay=settings["weight_decay"])
    checkpoints, early_stop = None, None
    if settings["early_stop"] is not None:
        early_stop = EarlyStop(**settings["early_stop"])
    if settings["out"] is not None:
        checkpoints = Checkpoints(settings["out"] / "checkpoints", key, distributed)
        if not settings["resume"]:
            checkpoints.clear()
        if checkpoints.restore(scorer.model, optimizer, state) and distributed.rank == 0:
            scorer.work = Work(**state.work)  # of all processes together
    rate = partial(
        learning_rate_at,
        steps=len(prepared.plan.steps),
        peak=settings["learning_rate"],
        warmup_fraction=settings["warmup_fraction"],
        schedule=settings["schedule"],
    )
    recorded = recorded_settings(settings)
    with (
        reporting(distributed.rank == 0 and settings["progress"]) as show,
        open_loggers(
            loggers_of(settings) if distributed.rank == 0 else [],
            folder=settings["out"],
            settings=recorded,
            resumed_step=state.step,
        ) as log,
    ):

        def report(event: dict[str, Any]) -> None:
            show(event)
            log(event)

        on_cuda = scorer.device.type == "cuda"
        if state.pass_tokens is None:
            most = 16384 if on_cuda else 1024
            given = settings["micro_batch_tokens"]
            state.pass_tokens = given or tokens_of_pass(scorer, most=most, sharded=distributed.is_sharded)
        train(
            Job(
                scorer=scorer,
                reference=reference,
                objective=objective,
                optimizer=optimizer,
                plan=prepared.plan,
                held_out=prepared.held_out,
                state=state,
                learning_rate=rate,
                checkpoints=checkpoints,
                early_stop=early_stop,
                micro_batch_tokens=state.pass_tokens,
                micro_batch_size=settings["micro_batch_size"],
                max_grad_norm=settings["max_grad_norm"],
                eval_every_steps=settings["eval_every_steps"],
                save_every_steps=settings["save_every_steps"],
                log_every_steps=settings["log_every_steps"] or (10 if on_cuda else 1),
                report=report,
                distributed=distributed,
                saved=saved,
            )
        )
    round_weights(scorer.model, saved)


def how_to_save(settings: dict[str, Any], model: Any, mapped: MappedWeights | None) -> SavedAs:
    """As the base's are. Adapters stay float32: they are small, and the weights beside them are as they were read."""
    if settings["lora"] is not None or settings["save_dtype"] == "float32":
        return SavedAs()
    return as_stored(settings["model"], model, model.named_parameters() if mapped is None else mapped.named(model))


def loggers_of(settings: dict[str, Any]) -> list[LoggerName]:
    """Those requested; by default JSON lines wherever there is a folder for them."""
    if settings["logs"] is not None:
        return list(settings["logs"])
    return ["jsonl"] if settings["out"] is not None else []


def training_key(settings: dict[str, Any], reference_key: str, train_rows: CheckedPart, held_out_rows: CheckedPart | None) -> str:
    """Names a training: two with the same key make the same steps, look at the same labels, and write of the same rows.

    reference_key : it names tokens and pairs, and no label, weight or row_id
    """
    rows = [part.columns_digest() for part in (train_rows, held_out_rows) if part is not None]
    return xxhash.xxh3_128_hexdigest(json.dumps([recorded_settings(settings), reference_key, rows], sort_keys=True).encode())


def check_reference(reference: ReferenceLogps, pairs: Numbers, rows: TokenRows) -> None:
    """Raise ModelError when a log-prob of the reference is not finite: the model is broken, training would be too."""
    finite = reference(pairs).isfinite().cpu().numpy()
    if not finite.all():
        bad = pl.Series([rows.row_id[row] for row in dict.fromkeys(pairs[~finite, 0].tolist())])
        raise ModelError(
            f"the reference model gives {len(bad):,} of {len(rows):,} rows a log-prob that is not finite (row_id {named(bad)}): "
            "its weights are damaged, or dtype is too narrow for it."
        )

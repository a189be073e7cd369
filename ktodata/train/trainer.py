"""`fit`: from shards to a trained model. Its keyword-only parameters are the keys of a recipe's `train:` section."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from ktodata.errors import RunError, SettingError
from ktodata.extras import require
from ktodata.files import alone_if_run, unwritable_speaks
from ktodata.settings import check_settings
from ktodata.train.data.training_rows import CheckedPart, check_part, open_part
from ktodata.train.early_stop import EarlyStopSettings
from ktodata.train.objectives import OBJECTIVES, ObjectiveName
from ktodata.train.results.trackers import LoggerName
from ktodata.train.results.train_result import TrainResult
from ktodata.train.results.trained_folder import check_out
from ktodata.train.schedule import Schedule
from ktodata.train.setting_tables import FlipRates, LoraSettings, OptimizerName


def fit(
    shards: Path | str | pl.DataFrame,
    *,
    model: Annotated[str, Field(min_length=1, description="causal LM to train: hub id, folder, or packaged name")],
    out: Annotated[Path | None, Field(description="folder for the model, training.json, telemetry.parquet; none: memory")] = None,
    objective: Annotated[ObjectiveName, Field(description="what is minimised; each is explained in train/objectives.py")] = "kto",
    epochs: Annotated[int, Field(ge=1, le=1000, description="passes over the training rows")] = 1,
    max_steps: Annotated[int | None, Field(ge=1, description="stop after this many updates, even within an epoch")] = None,
    batch_size: Annotated[int, Field(ge=2, le=4096, description="rows of one update; z0 is pooled over them")] = 32,
    micro_batch_tokens: Annotated[
        int | None,
        Field(ge=1, description="tokens of a pass, halved where memory runs out; none: 1,024, on cuda 16,384, or what fits"),
    ] = None,
    micro_batch_size: Annotated[
        int | None, Field(ge=1, le=4096, description="rows of one forward pass at most; memory only; none: what tokens allow")
    ] = None,
    group_by_prompt: Annotated[
        bool,
        Field(
            description="up to a quarter of an update (kto_hybrid: half) may be rows of one prompt, computed once; false: singly"
        ),
    ] = True,
    kl_pairs_per_batch: Annotated[
        int | None, Field(ge=2, description="mismatched pairs that z0 is estimated from in each batch; none: one for every row")
    ] = 8,
    learning_rate: Annotated[float, Field(gt=0, le=1, description="peak of AdamW's learning rate")] = 5e-6,
    warmup_fraction: Annotated[float, Field(ge=0, le=1, description="share of all updates during which the rate rises")] = 0.1,
    schedule: Annotated[Schedule, Field(description="how the rate falls after the warm-up")] = "linear",
    beta: Annotated[float, Field(gt=0, le=100, description="per nat; larger holds the model closer to the reference")] = 0.1,
    desirable_weight: Annotated[
        float | None,
        Field(
            ge=0,
            description="loss weight, times each row's own; both none: the rarer label is raised to even, 10 at most",
        ),
    ] = None,
    undesirable_weight: Annotated[
        float | None, Field(ge=0, description="as desirable_weight; one given alone leaves the other 1")
    ] = None,
    soft_labels: Annotated[bool, Field(description="pull each row to its likelier label, by 2 p_desirable - 1")] = False,
    flip_rates: Annotated[
        FlipRates | None, Field(description="correct the loss for labels that were flipped at these rates, by true label")
    ] = None,
    holder_gamma: Annotated[
        float | None, Field(gt=1, description="kto_hoelder only: how fast contradicting rows are let go; 2")
    ] = None,
    pair_weight: Annotated[
        float | None, Field(gt=0, description="kto_hybrid only: DPO's term of a row with siblings of the other label; 1")
    ] = None,
    row_weight: Annotated[
        float | None, Field(ge=0, description="kto_hybrid only: KTO's term of such a row; 1. At 0 it is DPO's alone")
    ] = None,
    router_aux_loss_coef: Annotated[
        float | None,
        Field(ge=0, description="weight of the loss that spreads tokens over experts (MoE); none: the config's; 0: without"),
    ] = None,
    max_length: Annotated[int, Field(ge=2, description="tokens of prompt and completion; the end is cut off")] = 1024,
    trainable_layers: Annotated[
        int | None, Field(ge=1, description="train the top layers and final norm only; none: all")
    ] = None,
    lora: Annotated[LoraSettings | None, Field(description="train low-rank adapters instead of the weights")] = None,
    optimizer: Annotated[OptimizerName, Field(description="AdamW, or with its state in 8 bits (needs bitsandbytes)")] = "adamw",
    gradient_checkpointing: Annotated[
        bool, Field(description="compute activations again in the backward pass: less memory, a third more arithmetic")
    ] = False,
    activation_cache_mb: Annotated[
        float, Field(ge=0, description="memory for frozen layers' output, MB; beyond it they rerun")
    ] = 2000,
    device: Annotated[str, Field(description="auto (cuda when there is one), cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"], Field(description="of the arithmetic, not of the weights; auto: bfloat16 on cuda")
    ] = "auto",
    save_dtype: Annotated[
        Literal["base", "float32"],
        Field(description="of the weights as saved and evaluated; base: as the base's are stored; they train in float32"),
    ] = "base",
    parallel: Annotated[
        Literal["auto", "ddp", "fsdp", "hsdp"],
        Field(
            description="several processes: each has all weights (ddp) or a part of each (fsdp), or each machine has all of them "
            "once (hsdp); auto: fsdp on cuda, else ddp"
        ),
    ] = "auto",
    seed: Annotated[int, Field(ge=0, description="of row order, partners and adapters")] = 0,
    eval_every_steps: Annotated[
        int | None, Field(ge=1, description="score validation rows this often; always at the end")
    ] = None,
    early_stop: Annotated[
        EarlyStopSettings | None,
        Field(description="stop when held-out AUC no longer rises, and take the best weights; none: never"),
    ] = None,
    save_every_steps: Annotated[int | None, Field(ge=1, description="write a checkpoint this often; none: never")] = None,
    keep_checkpoints: Annotated[bool, Field(description="leave the checkpoints when training is done")] = False,
    log_every_steps: Annotated[
        int | None, Field(ge=1, description="read numbers off the device this often; none: 1, on cuda 10")
    ] = None,
    logs: Annotated[
        list[LoggerName] | None, Field(description="where numbers go meanwhile; none: jsonl, where out is given")
    ] = None,
    max_grad_norm: Annotated[float, Field(gt=0, description="longer gradients are shortened to this norm")] = 1.0,
    weight_decay: Annotated[float, Field(ge=0, le=1, description="AdamW's, on matrices only")] = 0.0,
    progress: Annotated[
        bool | Callable[[dict[str, Any]], None], Field(description="true: a bar; a function: called at every reading")
    ] = False,
    resume: Annotated[bool, Field(description="go on from the last checkpoint in out; false: discard those")] = True,
) -> TrainResult:
    """Train a causal language model on binary feedback with KTO (arXiv:2402.01306).

    shards : a folder that export wrote (train-*.parquet, and validation-*.parquet to be scored), a run folder, a Parquet file,
        or a frame. Columns: row_id, prompt, completion (text, or messages), label; optional: weight, p_desirable, prompt_group.

    The reference log-probs are computed before the first update and cached by what they depend on. The loss is summed over the
    effective batch and divided by its rows once, and z0 is pooled over it before the clamp: how it is cut into micro-batches
    changes memory and speed only. Rows are not padded, and a prompt is computed once for all its completions in a micro-batch.
    A killed training goes on from its last checkpoint, on a CPU bit for bit as if it had not been killed.

    Several processes train one model together where `torchrun -m ktodata.train` starts them, or where a script that torchrun
    started has called torch.distributed.init_process_group() before. Updates are those of one process, to rounding: batch_size is
    of all processes together. Each of them returns the result; the first one writes the files, and with fsdp has the model.

    Raises before the expensive work: LabelError, OneClassError, MissingColumnError, EmptyDataError, DataError for the rows,
    SettingError for a setting, ModelError for the model or tokenizer, RunError for a folder with another training's checkpoints,
    for an `out` that is a file, and while another process writes the run that it lies in.
    """
    settings = check_settings(fit, {name: value for name, value in locals().items() if name != "shards"}, where="fit")
    if OBJECTIVES[objective].contrasts and not group_by_prompt:
        raise SettingError(f"{objective} sets rows of one prompt against each other: it needs group_by_prompt: true.")
    require("torch", "transformers", "safetensors", *([] if lora is None else ["peft"]))
    if settings["out"] is not None and settings["out"].is_file():
        raise RunError(f"{settings['out']} is a file: out is the folder that the model goes to.")
    if settings["out"] is not None:
        check_out(settings["out"], settings["model"])
    train_rows, held_out_rows = _checked_parts(shards)
    from ktodata.train.run_training import run_training

    with _writing(settings["out"]):
        return run_training(settings, train_rows, held_out_rows)


@contextmanager
def _writing(out: Path | None) -> Iterator[None]:
    """Nobody else writes the run that `out` lies in; of processes that train together, the first one writes."""
    from torch import distributed

    if out is None or (distributed.is_available() and distributed.is_initialized() and distributed.get_rank() > 0):
        yield
        return
    with unwritable_speaks(out / "model"), alone_if_run(out):
        yield


def _checked_parts(shards: Path | str | pl.DataFrame) -> tuple[CheckedPart, CheckedPart | None]:
    train_rows = check_part(open_part(shards, "train"), part="train", both_classes=True)
    held_out = open_part(shards, "validation")
    if not held_out.height:
        return train_rows, None
    return train_rows, check_part(held_out, part="validation", both_classes=False)

"""`fit`: from shards to a trained policy. Its keyword-only parameters are the keys of a recipe's `train:` section."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from ktodata.settings import check_settings
from ktodata.train.extras import require
from ktodata.train.result import TrainResult
from ktodata.train.schedule import Schedule
from ktodata.train.settings import LoraSettings
from ktodata.train.shards import check_rows, read_part


def fit(
    shards: Path | str | pl.DataFrame,
    *,
    model: Annotated[str, Field(min_length=1, description="causal LM to train: hub id, folder, or packaged name")],
    out: Annotated[Path | None, Field(description="folder for policy, training.json, telemetry.parquet; none: memory")] = None,
    epochs: Annotated[int, Field(ge=1, le=1000, description="passes over the training rows")] = 1,
    max_steps: Annotated[int | None, Field(ge=1, description="stop after this many updates, even within an epoch")] = None,
    batch_size: Annotated[int, Field(ge=2, le=4096, description="rows of one update; z0 is pooled over them")] = 16,
    micro_batch_size: Annotated[int, Field(ge=1, le=4096, description="rows of one forward pass; changes memory only")] = 4,
    learning_rate: Annotated[float, Field(gt=0, le=1, description="peak of AdamW's learning rate")] = 5e-6,
    warmup_fraction: Annotated[float, Field(ge=0, le=1, description="share of all updates during which the rate rises")] = 0.1,
    schedule: Annotated[Schedule, Field(description="how the rate falls after the warm-up")] = "linear",
    beta: Annotated[float, Field(gt=0, le=100, description="per nat; larger holds the policy closer to the reference")] = 0.1,
    desirable_weight: Annotated[float, Field(ge=0, description="loss weight, times each row's own")] = 1.0,
    undesirable_weight: Annotated[float, Field(ge=0, description="loss weight, times each row's own")] = 1.0,
    max_length: Annotated[int, Field(ge=2, description="tokens of prompt and completion; the end is cut off")] = 1024,
    trainable_layers: Annotated[
        int | None, Field(ge=1, description="train the top layers and final norm only; none: all")
    ] = None,
    lora: Annotated[LoraSettings | None, Field(description="train low-rank adapters instead of the weights")] = None,
    keep_states_mb: Annotated[
        float, Field(ge=0, description="memory for frozen layers' output, MB; beyond it they rerun")
    ] = 2000,
    device: Annotated[str, Field(description="auto (cuda when there is one), cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"], Field(description="of the arithmetic, not of the weights; auto: bfloat16 on cuda")
    ] = "auto",
    seed: Annotated[int, Field(ge=0, description="of row order, partners and adapters")] = 0,
    eval_every_steps: Annotated[
        int | None, Field(ge=1, description="look at validation rows this often; always at the end")
    ] = None,
    save_every_steps: Annotated[int | None, Field(ge=1, description="write a checkpoint this often; none: never")] = None,
    keep_checkpoints: Annotated[bool, Field(description="leave the checkpoints when training is done")] = False,
    max_grad_norm: Annotated[float, Field(gt=0, description="longer gradients are shortened to this norm")] = 1.0,
    weight_decay: Annotated[float, Field(ge=0, le=1, description="AdamW's, on matrices only")] = 0.0,
    progress: Annotated[
        bool | Callable[[dict[str, Any]], None], Field(description="true: a bar; a function: called at every step")
    ] = False,
    resume: Annotated[bool, Field(description="go on from the last checkpoint in out; false: discard those")] = True,
) -> TrainResult:
    """Train a causal language model on binary feedback with KTO (arXiv:2402.01306).

    shards : a folder that export wrote (train-*.parquet, and validation-*.parquet to be looked at), a run folder, a Parquet file,
        or a frame. Columns: row_id, prompt, completion (text, or messages), label; optional: weight, prompt_group.

    The reference log-probs are computed before the first update and cached by what they depend on. The loss is summed over the
    effective batch and divided by its rows once, and z0 is pooled over it before the clamp: micro_batch_size changes memory only.
    A killed training goes on from its last checkpoint, on a CPU bit for bit as if it had not been killed.

    Raises before the expensive work: LabelError, OneClassError, MissingColumnError, EmptyDataError, DataError for the rows,
    SettingError for a setting, ModelError for the model or tokenizer, RunError for a folder with another training's checkpoints.
    """
    settings = check_settings(fit, {name: value for name, value in locals().items() if name != "shards"}, where="fit")
    require("torch", "transformers", "safetensors", *([] if lora is None else ["peft"]))
    train_rows, held_out_rows = _read(shards)
    from ktodata.train.training import run_training

    return run_training(settings, train_rows, held_out_rows)


def _read(shards: Path | str | pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    train_rows = check_rows(read_part(shards, "train"), part="train", both_classes=True)
    held_out = read_part(shards, "validation")
    return train_rows, held_out if held_out.is_empty() else check_rows(held_out, part="validation", both_classes=False)

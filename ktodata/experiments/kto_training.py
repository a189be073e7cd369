"""How our own trainer trains one arm of an ablation: its key holds the code of this module and of what that imports."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ktodata.experiments.arms import ArmTraining, TrainedArm
from ktodata.train.results.train_result import TrainResult

SCORED = ("row_id", "prompt", "completion", "label", "prompt_group")  # what of a held-out row is handed to the trainer


def train_treatment(training: ArmTraining, scored: pl.DataFrame) -> TrainedArm:
    """Reward = beta x (log p of the trained policy - log p of the untrained model), in units of beta nats."""
    result = fit_on(training.arm.rows, scored, training.settings)
    evaluations = result.telemetry.filter(pl.col("part") == "validation")
    last = evaluations.filter(pl.col("step") == evaluations["step"].max())
    beta = float(result.metrics["settings"]["beta"])
    scores = last.select("row_id", reward=beta * pl.col("log_ratio").cast(pl.Float64)).sort("row_id")
    return TrainedArm(training.arm.name, training.seed, scores)


def fit_on(rows: pl.DataFrame, held_out: pl.DataFrame, settings: Mapping[str, Any]) -> TrainResult:
    """Train on `rows`, and score `held_out` when that is done. Raises what `fit` raises."""
    from ktodata.train.trainer import fit

    wanted = held_out.select(name for name in SCORED if name in held_out.columns)
    parts = [rows.with_columns(part=pl.lit("train")), wanted.with_columns(part=pl.lit("validation"))]
    return fit(pl.concat(parts, how="diagonal"), **settings)

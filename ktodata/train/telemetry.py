"""What training learnt about each row, one line per row and epoch (or evaluation), to go back to the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ktodata.train.tokens import TokenRows

SCHEMA = pl.Schema(
    {
        "row_id": pl.String(),
        "part": pl.String(),  # "train": seen just before the update that used it; "validation": at an evaluation
        "epoch": pl.Int32(),
        "step": pl.Int32(),  # updates made before
        "label": pl.Boolean(),
        "logp": pl.Float32(),  # nats, policy
        "ref_logp": pl.Float32(),  # nats, reference
        "log_ratio": pl.Float32(),  # logp - ref_logp
        "z0": pl.Float32(),  # nats, the reference point of the row's effective batch
        "loss": pl.Float32(),
        "gradient_weight": pl.Float32(),  # |d loss / d logp|, per nat
        "completion_tokens": pl.Int32(),
    }
)


def observed(
    rows: TokenRows, which: Sequence[int], *, part: str, epoch: int, step: int, z0: float, **measured: Any
) -> pl.DataFrame:
    """Telemetry lines of the rows numbered `which`; `measured`: logp, ref_logp, loss, gradient_weight, each [len(which)]."""
    return pl.DataFrame(
        {
            "row_id": [rows.row_id[row] for row in which],
            "part": [part] * len(which),
            "epoch": [epoch] * len(which),
            "step": [step] * len(which),
            "label": rows.label[np.asarray(which)],
            "log_ratio": np.asarray(measured["logp"]) - np.asarray(measured["ref_logp"]),
            "z0": [z0] * len(which),
            "completion_tokens": [len(rows.completion[row]) for row in which],
            **{name: np.asarray(values) for name, values in measured.items()},
        },
        schema=SCHEMA,
    )


def summarise(telemetry: pl.DataFrame, *, beta: float) -> pl.DataFrame:
    """One line per row of what `telemetry` saw of it.

    margin = beta x (log_ratio - z0) for desirable rows, its negative for undesirable ones: positive when the policy sides with
    the label. mean_margin is low, and forgotten is high, for rows whose label other rows argue against. Rows seen once, in the
    first epoch, were seen by a policy that had hardly moved: train two epochs or more before reading much into them.

    Returns row_id, part, label, observations, mean_margin, std_margin (null with one observation), last_margin,
    forgotten (times a positive margin turned negative), mean_log_ratio, mean_gradient_weight, completion_tokens.
    """
    sign = pl.when(pl.col("label")).then(1.0).otherwise(-1.0)
    margin = sign * beta * (pl.col("log_ratio") - pl.col("z0")).cast(pl.Float64)
    fits = pl.col("margin") > 0
    return (
        telemetry.sort("row_id", "step", maintain_order=True)
        .with_columns(margin=margin)
        .group_by("row_id", "part", "label", maintain_order=True)
        .agg(
            observations=pl.len(),
            mean_margin=pl.col("margin").mean(),
            std_margin=pl.col("margin").std(),
            last_margin=pl.col("margin").last(),
            forgotten=(fits.shift(1) & ~fits).sum(),
            mean_log_ratio=pl.col("log_ratio").cast(pl.Float64).mean(),
            mean_gradient_weight=pl.col("gradient_weight").cast(pl.Float64).mean(),
            completion_tokens=pl.col("completion_tokens").last(),
        )
    )

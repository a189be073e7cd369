"""What training learnt about each row, one line per row and epoch (or evaluation), to go back to the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ktodata.train.data.tokens import TokenRows

SCHEMA = pl.Schema(
    {
        "row_id": pl.String(),
        "part": pl.String(),  # "train": just before the update that used it; "validation": at an evaluation
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
    """One line per row of `telemetry`, sorted by row_id and part; an observation is one line of `telemetry`.

    margin = beta x (log_ratio - z0) for desirable rows, its negative for undesirable ones: no unit, positive when the model
    sides with the label. Compare rows of one label only: training may move all log-ratios one way, which lifts the margins of
    one label and lowers those of the other.

    Returns, besides row_id, part, label and completion_tokens:

    observations : lines of the row.
    mean_margin : higher is better; low where the label disagrees with what other rows teach. It is the area under the margin of
        Pleiss et al. 2020, arXiv:2001.10528, with KTO's implicit reward in place of the logit gap.
    std_margin : standard deviation over observations (n - 1). last_margin : at the last.
    confidence, variability : mean and standard deviation (n) over observations of sigmoid(margin), in [0, 1] and [0, 0.5]; an
        untrained model gives 0.5. correctness : share of observations with a positive margin. The three axes of the maps of
        Swayamdipta et al. 2020, arXiv:2009.10795, where confidence is the probability of the label itself; here it is KTO's value
        of the row.
    forgotten : times a positive margin turned negative from one observation to the next. first_learnt_epoch : of the first one
        with a positive margin, from 0; null where there was none. After Toneva et al. 2019, arXiv:1812.05159.
    mean_log_ratio : nats. mean_gradient_weight : mean |d loss / d logp| per nat, how hard the row pulled.

    What cannot be known is null. A training row is seen before its own update, so a training of one epoch shows what the rows
    before it taught about it, never whether it was learnt itself: std_margin, variability, forgotten and first_learnt_epoch need
    two observations. At step 0 the model still is its reference: margins there are 0 but for rounding, and count as not positive.
    """
    sign = pl.when(pl.col("label")).then(1.0).otherwise(-1.0)
    margin = sign * beta * (pl.col("log_ratio").cast(pl.Float64) - pl.col("z0").cast(pl.Float64))
    value = 1 / (1 + (-pl.col("margin")).exp())
    fits = (pl.col("margin") > 0) & (pl.col("step") > 0)
    again = pl.len() > 1
    return (
        # in one order whatever order the observations came in, so that each sum has the same last bit
        telemetry.sort("row_id", "part", "step", maintain_order=True)
        .with_columns(margin=margin)
        .group_by("row_id", "part", "label", maintain_order=True)
        .agg(
            observations=pl.len(),
            mean_margin=pl.col("margin").mean(),
            std_margin=pl.col("margin").std(),
            last_margin=pl.col("margin").last(),
            confidence=value.mean(),
            variability=pl.when(again).then(value.std(ddof=0)),
            correctness=fits.mean(),
            forgotten=pl.when(again).then((fits.shift(1) & ~fits).sum()),
            first_learnt_epoch=pl.when(again).then(pl.col("epoch").filter(fits).first()),
            mean_log_ratio=pl.col("log_ratio").cast(pl.Float64).mean(),
            mean_gradient_weight=pl.col("gradient_weight").cast(pl.Float64).mean(),
            completion_tokens=pl.col("completion_tokens").last(),
        )
    )

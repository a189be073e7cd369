"""What training itself says of a label: does the policy side with it before it was ever taught it?

A row that was trained on is remembered, right or wrong, and then vouches for itself. So only looks count that were made before
the row's own first update: what the policy thinks of it then, it learnt from other rows.

In a recipe, `telemetry:` joins this to the rows as the column `training_dynamics`; label_noise acts on it as far as reviewed rows
show that it is right (reviewed_model.py).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ktodata.errors import DataError, MissingColumnError, ShapeError
from ktodata.feedback import check_columns
from ktodata.labels.evidence.evidence import Evidence, Floats, from_quality
from ktodata.labels.label_rows import LabelRows
from ktodata.stage import StageResult

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

NEEDS = ("row_id", "part", "epoch", "step", "log_ratio", "z0", "completion_tokens")
WINDOW = 201  # looks of one label, nearest in step, that a look is ranked among
LOOKS_PER_BIN = 400  # of both labels, to say how much the policy knew at that time
MAX_BINS = 20
BLOCK = 20_000


def evidence(rows: LabelRows) -> Evidence | None:
    """The column `training_dynamics` that `join_dynamics` has made; None where no row was observed."""
    quality = rows.table["training_dynamics"].cast(pl.Float64)
    if not quality.count():
        return None
    return Evidence("training_dynamics", from_quality(quality.to_numpy(), rows.labels), ("training_dynamics", "label"))


def training_dynamics(telemetry: pl.DataFrame, row_ids: Sequence[str], labels: Bools, *, beta: float = 0.1) -> Evidence:
    """How much the policy sides with each label, from looks before the row's own first update: 1 sound .. 0 doubtful.

    telemetry : one line a look, columns as ktodata.train.results.telemetry.SCHEMA has them
    row_ids : the N rows, each once. labels : bool [N], the labels to judge (those trained on may be others: counted in metrics)
    beta : per nat, of the training; it scales margins, so no rank here depends on it while it is positive

    1. A look counts if it is the row's first as a training row, or of an evaluation no later than that; and step > 0, for at
       step 0 the policy is its reference and every margin is 0.
    2. Margin = beta (log_ratio - z0), negated for an undesirable row. Training moves all log-ratios one way, so a look is ranked
       among the WINDOW looks of its label nearest in step (a validation look: among those of its label at the same evaluation).
    3. Margins grow with the length of the completion, so plain ranks put long rows at both ends; log-ratios per token put
       short ones there. The mean of both ranks is taken: what it leaves of either is in metrics["rank_spread_by_length"].
    4. Early looks know little. Each pulls from 0.5 by what the policy knew: 2 AUC - 1 of the log-ratio for telling the given
       labels apart at that time (0 below chance), made to never fall with the step. Several looks are averaged with that weight.
    5. quality is the rank of the result within the label, in (0, 1); ties share a rank, so that where the policy knew nothing,
       quality is 0.5. nan for a row without such a look.

    Falls short where rows of one prompt, or near-duplicates, were trained on first: they vouch for the row. Train with whole
    prompts held out (validation looks) to rule that out.
    Raises MissingColumnError, ShapeError and DataError (repeated row_ids; none of the rows in the telemetry).
    """
    looks = _looks_at_rows(telemetry, row_ids, labels, beta)
    fair = _fair(looks)
    plain, per_token = (_ranks_at_once(fair, name) for name in ("margin", "per_token"))
    rank, weight = (plain + per_token) / 2, _knowledge(fair)
    pull, total = (np.bincount(fair["row"], weights=values, minlength=len(labels)) for values in (weight * (rank - 0.5), weight))
    measured = np.bincount(fair["row"], minlength=len(labels)) > 0
    score = 0.5 + np.divide(pull, total, out=np.zeros(len(labels)), where=total > 0) * _most_known(fair, weight, len(labels))
    quality = _rank_within_label(score, measured, labels)
    metrics = {
        "rows": len(labels),
        "rows_observed": int(measured.sum()),
        "observations": looks.height,
        "observations_used": fair.height,
        "labels_other_than_trained_on": _differing(looks),
        "knowledge_at_last_step": float(weight[-1]) if len(weight) else 0.0,
        "rank_spread_by_length": {
            name: _spread_by_length(fair, values) for name, values in (("plain", plain), ("per_token", per_token), ("mean", rank))
        },
    }
    return Evidence("training_dynamics", from_quality(quality, labels), ("telemetry", "label"), metrics=metrics)


def join_dynamics(feedback: pl.DataFrame, telemetry: pl.DataFrame, *, beta: float = 0.1) -> StageResult:
    """The evidence as a column of a feedback table: row_id, training_dynamics (1 sound .. 0 doubtful) of every row.

    Null for a row that was not observed before its own first update: metrics["rows_without_observation"]. Labels are those of
    `feedback`; how many rows were trained on under another is metrics["labels_other_than_trained_on"].
    Raises DataError when the telemetry has rows that `feedback` has not, and what `training_dynamics` raises.
    """
    check_columns(feedback, ("row_id", "label"), who="telemetry")
    _check_telemetry_rows(telemetry["row_id"].unique(maintain_order=True), feedback["row_id"])
    dynamics = training_dynamics(telemetry, feedback["row_id"].to_list(), feedback["label"].to_numpy(), beta=beta)
    quality = pl.Series(dynamics.quality(feedback["label"].to_numpy())).fill_nan(None)
    return StageResult(
        feedback.select("row_id", training_dynamics=quality),
        metrics={**dynamics.metrics, "rows_without_observation": quality.null_count()},
    )


def _check_telemetry_rows(trained: pl.Series, row_ids: pl.Series) -> None:
    """Raise DataError when the training saw a row that is not there."""
    unknown = trained.filter(~trained.is_in(row_ids.implode()))
    if len(unknown):
        raise DataError(
            f"telemetry: {len(unknown):,} of {len(trained):,} rows that were trained on are not in the data (first: row_id "
            f"{unknown[0][:40]!r}). Give the telemetry of a training on this feedback, read with the same settings as then."
        )


def _looks_at_rows(telemetry: pl.DataFrame, row_ids: Sequence[str], labels: Bools, beta: float) -> pl.DataFrame:
    """The looks at these rows: row (its number), given (its label), part, step, log_ratio, margin, per_token; sorted by step."""
    if missing := [name for name in NEEDS if name not in telemetry.columns]:
        raise MissingColumnError(
            f"training_dynamics needs column {', '.join(map(repr, missing))} of the telemetry; it has "
            f"{', '.join(telemetry.columns)}. Give the telemetry as training wrote it."
        )
    if len(row_ids) != len(labels):
        raise ShapeError(f"training_dynamics: {len(row_ids):,} row_ids and {len(labels):,} labels; one label for each row.")
    rows = pl.DataFrame({"row_id": pl.Series(row_ids, dtype=pl.String), "row": np.arange(len(labels)), "given": labels})
    if repeats := rows.height - rows["row_id"].n_unique():
        raise DataError(f"training_dynamics: {repeats:,} of {rows.height:,} row_ids are repeated; each row must be named once.")
    looks = telemetry.join(rows, on="row_id").filter(pl.col("log_ratio").is_finite() & pl.col("z0").is_finite())
    if looks.is_empty():
        raise DataError(
            f"training_dynamics: none of the {rows.height:,} rows is in the {telemetry.height:,} lines of telemetry. "
            "Give the telemetry of a training on this table."
        )
    sign = pl.when(pl.col("given")).then(1.0).otherwise(-1.0)
    margin = sign * beta * (pl.col("log_ratio").cast(pl.Float64) - pl.col("z0").cast(pl.Float64))
    per_token = sign * pl.col("log_ratio").cast(pl.Float64) / pl.col("completion_tokens").clip(1)
    return looks.with_columns(margin=margin, per_token=per_token).sort("step", "part", "row", maintain_order=True)


def _fair(looks: pl.DataFrame) -> pl.DataFrame:
    """The looks before the row's own first update, sorted by step."""
    trained, step = pl.col("part") == "train", pl.col("step")
    first = step.filter(trained).min().over("row")  # null where the row was never trained on
    unspoilt = pl.when(trained).then(step == first).otherwise(first.is_null() | (step <= first))
    return looks.filter(unspoilt & (step > 0)).unique(["row", "part", "step"], keep="first", maintain_order=True)


def _ranks_at_once(fair: pl.DataFrame, name: str) -> Floats:
    """Rank in (0, 1) of each look's value among comparable looks."""
    ranks = np.full(fair.height, 0.5)
    at_once = pl.when(pl.col("part") != "train").then(pl.col("step")).otherwise(-1)
    numbered = fair.select("part", "given", name, at=at_once, look=pl.int_range(pl.len()))
    for (part, *_), group in numbered.group_by("part", "given", "at", maintain_order=True):
        width = WINDOW if part == "train" else group.height
        ranks[group["look"].to_numpy()] = _rank_in_window(group[name].to_numpy(), min(width, group.height))
    return ranks


def _rank_in_window(values: Floats, width: int) -> Floats:
    """Mid-rank in (0, 1) of each value among the `width` that stand nearest to it, itself included."""
    if width == len(values):
        ordered = np.sort(values)
        below, upto = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
        return np.asarray((below + upto) / (2 * width))
    windows = np.lib.stride_tricks.sliding_window_view(values, width)
    first = np.clip(np.arange(len(values)) - width // 2, 0, len(values) - width)
    ranks = np.empty(len(values))
    for start in range(0, len(values), BLOCK):
        part = slice(start, start + BLOCK)
        window, own = windows[first[part]], values[part, None]
        ranks[part] = ((window < own).sum(axis=1) + (window <= own).sum(axis=1)) / (2 * width)
    return ranks


def _knowledge(fair: pl.DataFrame) -> Floats:
    """What the policy knew at each look: max(0, 2 AUC - 1) of its time, in [0, 1], never falling with the step."""
    from sklearn.isotonic import IsotonicRegression

    weight = np.zeros(fair.height)
    parts = fair["part"].to_numpy()
    for part in np.unique(parts):
        which = np.flatnonzero(parts == part)  # sorted by step
        bins = int(np.clip(len(which) // LOOKS_PER_BIN, 1, MAX_BINS))
        bin_auc = [(rows, _label_auc(fair[rows])) for rows in np.array_split(which, bins)]
        known = [(rows, max(0.0, 2 * auc - 1)) for rows, auc in bin_auc if auc is not None]
        if known:
            size = [len(rows) for rows, _ in known]
            rising = (
                IsotonicRegression()
                .fit(np.arange(len(known)), [value for _, value in known], size)
                .predict(np.arange(len(known)))
            )
            weight[which] = np.interp(which, [rows.mean() for rows, _ in known], rising)
    return weight


def _most_known(fair: pl.DataFrame, weight: Floats, rows: int) -> Floats:
    """The largest weight among each row's looks: float [rows]. Pulls the mean of a row seen early towards 0.5."""
    most = np.zeros(rows)
    np.maximum.at(most, fair["row"].to_numpy(), weight)
    return most


def _label_auc(looks: pl.DataFrame) -> float | None:
    """Chance that a desirable row's log-ratio is above an undesirable one's; None when one label is missing."""
    given = looks["given"].to_numpy()
    ups, downs = int(given.sum()), int((~given).sum())
    if not ups or not downs:
        return None
    ranks = looks["log_ratio"].rank("average").to_numpy()
    return float((ranks[given].sum() - ups * (ups + 1) / 2) / (ups * downs))


def _rank_within_label(score: Floats, measured: Bools, labels: Bools) -> Floats:
    quality = np.full(len(labels), np.nan)
    for given in (False, True):
        which = np.flatnonzero(measured & (labels == given))
        if len(which):
            quality[which] = _rank_in_window(score[which], len(which))
    return quality


def _differing(looks: pl.DataFrame) -> int | None:
    if "label" not in looks.columns:
        return None
    return looks.filter(pl.col("label") != pl.col("given"))["row"].n_unique()


def _spread_by_length(fair: pl.DataFrame, ranks: Floats) -> float | None:
    """Spearman correlation of length and distance of the rank from the middle: 0 is fair to all lengths."""
    if fair.height < 3 or fair["completion_tokens"].n_unique() < 2:
        return None
    table: Any = pl.DataFrame({"length": fair["completion_tokens"], "distance": np.abs(ranks - 0.5)})
    correlation = table.select(pl.corr("length", "distance", method="spearman")).item()
    return float(correlation) if np.isfinite(correlation) else None

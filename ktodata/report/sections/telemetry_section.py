"""What training saw of single rows: which of them argued most against their label, and were they ever learnt?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.feedback import LABEL_OF
from ktodata.report.examples import Example, examples
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.shares import Share
from ktodata.report.text import interval, percent, plural, signed
from ktodata.train.results.telemetry import summarise

MAX_WORST = 6  # rows of each label
NEEDS = ("row_id", "part", "epoch", "step", "label", "log_ratio", "z0", "gradient_weight", "completion_tokens")


@dataclass(frozen=True)
class LabelMargins:
    """The training rows of one label; margins are compared within it only."""

    label: str
    rows: int
    median: tuple[str, str]  # of the rows' mean margins, and its interval
    against: tuple[str, str]  # share of rows with a mean margin below 0, and its interval
    never: tuple[str, str]  # share of rows with several looks that the policy never sided with
    forgotten: tuple[str, str]  # share of rows with several looks that it sided with once, and not at a later look
    worst: list[Example]


@dataclass(frozen=True)
class TelemetrySection:
    """Rows that were looked at after the first update; `n_unmeasured` were not, so nothing is known of them."""

    rows: int
    n_seen_once: int
    n_unmeasured: int
    sides: list[LabelMargins]


def read_telemetry_section(run: RunFiles, *, with_examples: bool = True) -> TelemetrySection | None:
    """What telemetry says of each training row; None where it is not there, or without the training's beta."""
    telemetry, beta = run.telemetry, pick(run.training, "settings.beta", default=pick(run.metrics("train"), "settings.beta"))
    if telemetry is None or not set(NEEDS) <= set(telemetry.columns) or not isinstance(beta, int | float):
        return None
    train = telemetry.filter(pl.col("part") == "train")
    after = train.group_by("row_id").agg(last_step=pl.col("step").max())
    rows = summarise(train, beta=beta).join(after, on="row_id", maintain_order="left")
    margins = rows.filter((pl.col("last_step") > 0) & pl.col("mean_margin").is_finite())
    if margins.is_empty():
        return None
    sides = [_label_margins(run, margins, name, with_examples=with_examples) for name in LABEL_OF]
    return TelemetrySection(
        margins.height, margins.filter(observations=1).height, rows.height - margins.height, [side for side in sides if side.rows]
    )


def _label_margins(run: RunFiles, margins: pl.DataFrame, name: str, *, with_examples: bool) -> LabelMargins:
    rows = margins.filter(label=LABEL_OF[name]).sort("mean_margin", "row_id")
    again = rows.filter(pl.col("observations") > 1)
    worst = rows.filter(pl.col("mean_margin") < 0).head(MAX_WORST) if with_examples else rows.clear()
    return LabelMargins(
        label=name,
        rows=rows.height,
        median=_median_cell(rows["mean_margin"]),
        against=_share_cell(rows.filter(pl.col("mean_margin") < 0).height, rows.height),
        never=_share_cell(again["first_learnt_epoch"].null_count(), again.height),
        forgotten=_share_cell(again.filter(pl.col("forgotten") > 0).height, again.height),
        worst=_worst_examples(run, worst),
    )


def _median_cell(margins: pl.Series) -> tuple[str, str]:
    """The median, and its exact interval by order statistics."""
    from scipy.stats import quantile_test

    if margins.is_empty():
        return "–", ""
    ends = quantile_test(margins.to_numpy(), p=0.5).confidence_interval(confidence_level=0.95)
    return signed(margins.median(), 4), interval([float(ends.low), float(ends.high)], digits=4) or "too few rows for an interval"


def _share_cell(hits: int, total: int) -> tuple[str, str]:
    share = Share(hits, total)
    return (percent(share.value), interval((share.low, share.high), as_percent=True)) if total else ("–", "one look a row")


def _worst_examples(run: RunFiles, worst: pl.DataFrame) -> list[Example]:
    feedback = run.rows(worst["row_id"])
    lines = {row["row_id"]: row for row in worst.iter_rows(named=True)}
    return examples(run, {row_id: list(_margin_notes(line, feedback.get(row_id, {}))) for row_id, line in lines.items()})


def _margin_notes(line: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[str]:
    if row.get("label") != line["label"]:
        yield f"trained as {'desirable' if line['label'] else 'undesirable'}"
    if line["observations"] == 1:
        yield f"margin {signed(line['mean_margin'])}, looked at once, after {plural(line['last_step'], 'update')}"
        return
    yield f"mean margin {signed(line['mean_margin'])} over {line['observations']} looks (sd {line['std_margin']:.3f})"
    yield f"at the last {signed(line['last_margin'])}"
    if line["first_learnt_epoch"] is None:
        yield "never learnt"
        return
    yield f"first learnt in epoch {line['first_learnt_epoch'] + 1}"
    yield f"forgotten {plural(line['forgotten'], 'time')}"

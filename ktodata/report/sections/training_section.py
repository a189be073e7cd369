"""What training did, step by step, and what the trained model does on rows that it never saw."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from ktodata.report import figures
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.sections.telemetry_section import TelemetrySection, read_telemetry_section
from ktodata.report.text import interval, number, plural
from ktodata.stats import Interval, auroc

CURVE_POINTS = 200


@dataclass(frozen=True)
class TrainingSection:
    """The curves, what training.json says, and what training saw of single rows (None where that is not known)."""

    picture: Markup | None
    facts: Mapping[str, Any]
    telemetry: TelemetrySection | None
    last_auc: Interval | None = None  # of the rewards of validation rows, as training left them

    @property
    def answer(self) -> str:
        """On how much was trained, and whether validation rows are told apart in the end."""
        rows, steps = (pick(self.facts, name) for name in ("train.rows", "plan.steps"))
        text = f"Trained on {plural(rows, 'row')} in {plural(steps, 'update')}" if rows and steps else "A model was trained"
        if self.last_auc is None:
            return f"{text}; no validation rows were looked at on the way."
        ends = interval(self.last_auc, digits=2)
        return (
            f"{text}; in the end the reward AUC on validation rows is {number(self.last_auc.value, 2)} ({ends}; 0.5 is chance)."
        )


def read_training(run: RunFiles, *, with_examples: bool = True) -> TrainingSection | None:
    """The curves, from the telemetry of single rows; None when the run does not train."""
    if not run.training and not run.has("train"):
        return None
    facts = run.training or run.metrics("train")
    telemetry = read_telemetry_section(run, with_examples=with_examples)
    validation = _validation_aucs(run.telemetry)
    last = validation[-1][1] if validation else None
    return TrainingSection(_training_picture(run.telemetry, validation), facts, telemetry, last)


def _training_picture(telemetry: pl.DataFrame | None, validation: list[tuple[float, Interval]]) -> Markup | None:
    if (
        telemetry is None
        or telemetry.is_empty()
        or not {"part", "step", "loss", "z0", "label", "log_ratio"} <= set(telemetry.columns)
    ):
        return None
    train = (
        telemetry.filter(pl.col("part") == "train").group_by("step").agg(pl.col("loss").mean(), pl.col("z0").first()).sort("step")
    )
    thin = train.gather_every(max(1, train.height // CURVE_POINTS))
    losses = [
        figures.Curve(title, thin["step"].to_list(), thin[name].to_list())
        for title, name in (("training loss (0.5 × weight at the start)", "loss"), ("z0, reference point (nats)", "z0"))
        if thin.height > 1
    ]
    return figures.curves("training", "Training", [*losses, *_validation_curve(validation)]) if losses else None


def _validation_curve(points: list[tuple[float, Interval]]) -> list[figures.Curve]:
    if not points:
        return []
    steps = [step for step, _ in points]
    values, low, high = ([getattr(auc, name) for _, auc in points] for name in ("value", "low", "high"))
    return [figures.Curve("validation reward AUC", steps, values, low, high, reference=0.5)]


def _validation_aucs(telemetry: pl.DataFrame | None) -> list[tuple[float, Interval]]:
    """(step, reward AUC on the validation rows) of each evaluation; at step 0 policy and reference are one, so it is 0.5."""
    if telemetry is None or not {"part", "step", "label", "log_ratio"} <= set(telemetry.columns):
        return []
    points = []
    validation = telemetry.filter(pl.col("part") == "validation").sort("step")
    for (step,), rows in validation.group_by("step", maintain_order=True):
        sides = [rows.filter(pl.col("label") == value)["log_ratio"].to_numpy() for value in (False, True)]
        auc = auroc(*sides)
        if auc.value is not None:
            points.append((float(str(step)), auc))
    return points

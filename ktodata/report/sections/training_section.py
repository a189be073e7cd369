"""What training did, step by step, and what the trained model does on rows that it never saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from ktodata.report import figures
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.sections.telemetry_section import TelemetrySection, read_telemetry_section
from ktodata.report.text import number, plural
from ktodata.train.results.kept_evaluation import choice_words, interval_words, kept_evaluation

CURVE_POINTS = 200


@dataclass(frozen=True)
class TrainingSection:
    """The curves, what training.json says, and what training saw of single rows (None where that is not known)."""

    picture: Markup | None
    facts: Mapping[str, Any]
    telemetry: TelemetrySection | None

    @property
    def answer(self) -> str:
        """On how much was trained, and whether validation rows are told apart in the end."""
        rows, steps = (pick(self.facts, name) for name in ("train.rows", "plan.steps"))
        text = f"Trained on {plural(rows, 'row')} in {plural(steps, 'update')}" if rows and steps else "A model was trained"
        held_out, settings = pick(self.facts, "held_out", default=[]), pick(self.facts, "settings", default={})
        evaluation = kept_evaluation(held_out, settings)
        if evaluation is None:
            return f"{text}; no validation rows were looked at on the way."
        if evaluation["auc"] is None:
            return f"{text}; validation rows do not show whether they are told apart: {evaluation['not_applicable']}."
        auc, ends = number(evaluation["auc"]["value"], 2), interval_words(evaluation, "auc", digits=2)
        chosen = choice_words(held_out, settings)
        return f"{text}; the model's reward AUC on validation rows is {auc} ({ends}; 0.5 is chance).{chosen and ' ' + chosen}"


def read_training(run: RunFiles, *, with_examples: bool = True) -> TrainingSection | None:
    """The curves, from the telemetry of single rows; None when the run does not train."""
    if not run.training and not run.has("train"):
        return None
    facts = run.training or run.metrics("train")
    telemetry = read_telemetry_section(run, with_examples=with_examples)
    return TrainingSection(_training_picture(run.telemetry, pick(facts, "held_out", default=[])), facts, telemetry)


def _training_picture(telemetry: pl.DataFrame | None, held_out: Sequence[Mapping[str, Any]]) -> Markup | None:
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
    return figures.curves("training", "Training", [*losses, *_validation_curve(held_out)]) if losses else None


def _validation_curve(held_out: Sequence[Mapping[str, Any]]) -> list[figures.Curve]:
    measured = [(evaluation["step"], evaluation["auc"]) for evaluation in held_out if evaluation["auc"] is not None]
    if not measured:
        return []
    steps = [step for step, _ in measured]
    values, low, high = ([auc[name] for _, auc in measured] for name in ("value", "low", "high"))
    band = {} if None in (*low, *high) else {"low": low, "high": high}
    return [figures.Curve("validation reward AUC", steps, values, **band, reference=0.5)]

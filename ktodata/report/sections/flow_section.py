"""Where every row went: counts by step, as a table and a picture."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ktodata.report import figures
from ktodata.report.run_files import RunFiles, pick

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class FlowStep:
    """One stage of the run. `dropped` and `review` count the rows whose fate this step decided, each row once."""

    name: str
    dropped: int
    review: int
    relabelled: int
    left: int
    seconds: float | None
    cached: bool


@dataclass(frozen=True)
class FlowSection:
    """The way of all rows. rows_in = quarantined + kept + dropped + review; a record that never became a row counts as one."""

    rows_in: int
    quarantined: int
    rows: int
    kept: int
    dropped: int
    review: int
    relabelled: int
    steps: tuple[FlowStep, ...]
    parts: tuple[tuple[str, int], ...]
    picture: Markup


def read_flow(run: RunFiles) -> FlowSection | None:
    """The counts, from the ledger; None before ingest has written its rows."""
    rows = run.columns("ingest", "row_id")
    if rows is None:
        return None
    fate = run.fates
    counted = pick(run.manifest, "rows", default={})
    totals = dict(fate.group_by("action").len().iter_rows())
    quarantined = pick(counted, "quarantined", default=run.quarantine.height + totals.get("quarantine", 0))
    rows_in = pick(counted, "rows_in", default=rows.height + run.quarantine.height)
    tally = {(stage, action): n for stage, action, n in fate.group_by("stage", "action").len().iter_rows()}
    dropped, review = totals.get("drop", 0), totals.get("review", 0)
    steps = _steps(run, tally, rows_in)
    parts = tuple((part, int(counted[part])) for part in PARTS if isinstance(counted.get(part), int))
    kept = rows_in - quarantined - dropped - review
    leaving = [figures.FlowLoss(step.name.replace("_", " "), step.dropped, step.review, step.left) for step in steps]
    picture = figures.flow(rows_in, [step for step in leaving if step.dropped or step.review], parts)
    return FlowSection(rows_in, quarantined, rows.height, kept, dropped, review, totals.get("relabel", 0), steps, parts, picture)


def _steps(run: RunFiles, tally: dict[tuple[str, str], int], rows_in: int) -> tuple[FlowStep, ...]:
    left, steps = rows_in, []
    for name, stage in _stages(run).items():
        dropped = tally.get((name, "drop"), 0) + tally.get((name, "quarantine"), 0)
        if name == "ingest":
            dropped += run.quarantine.height
        review = tally.get((name, "review"), 0)
        left -= dropped + review
        steps.append(
            FlowStep(
                name, dropped, review, tally.get((name, "relabel"), 0), left, stage.get("seconds"), bool(stage.get("cached"))
            )
        )
    return tuple(steps)


def _stages(run: RunFiles) -> dict[str, dict[str, Any]]:
    """What the manifest says of each stage that decides about rows, in the order they ran."""
    listed = pick(run.manifest, "stages", default=[])
    return {stage["name"]: stage for stage in listed if stage.get("name") not in ("train", "evaluate")}

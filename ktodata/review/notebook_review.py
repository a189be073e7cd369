"""`kd.notebook.review_widget`: the review desk in a notebook, on a run or on an audit in memory."""

import getpass
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ktodata.errors import RunError
from ktodata.extras import require
from ktodata.files import make_folder
from ktodata.pipeline.audit import LabelAudit
from ktodata.pipeline.run_folder import Run, SavedStage
from ktodata.stage import StageResult

if TYPE_CHECKING:
    from ktodata.review.widget import ReviewWidget


def review_widget(
    rows: Run | LabelAudit | Path | str,
    *,
    folder: Path | str | None = None,
    criterion: str | None = None,
    reviewer: str | None = None,
    blind: bool | None = None,
    minutes: float = 60.0,
    budget: int | None = None,
) -> "ReviewWidget":
    """The desk of `ktodata review` as a widget: Jupyter, marimo, VS Code. Keys count while it has the focus.

    rows : a run, its folder, or an audit (`kd.audit(...)`)
    folder : where the verdicts on an audit are kept, made if it is not there; a run keeps its own
    criterion : of an audit, what makes an answer desirable, as Markdown beside each row; a judge's where None, a run has its own
    reviewer : who judges; the user's name when None. blind : hide the given label and all that hints at it: of
    every row, of none (false), or of those drawn at random until they are judged (None).
    minutes : of this sitting, a row a minute, the random draw that the run asks for first. budget : rows more, instead.

    A verdict is in the store, FOLDER/reviews/reviews.sqlite, before the next row is shown: a kernel that dies loses none, and
    the same call goes on where it stopped. `.verdicts` are those that stand, for `audit.with_reviews`; `.path` is the store,
    for `kd.run(recipe, reviews=[...])`.

    Raises RunError (no label_noise in the run, no folder for an audit, a store that cannot be written) and MissingExtraError.
    """
    require("anywidget", what="the review desk in a notebook", extra="notebook")
    from ktodata.review.session import open_session
    from ktodata.review.widget import ReviewWidget

    audit = rows if isinstance(rows, LabelAudit) else None
    run = _run_of(rows, folder, criterion)
    return ReviewWidget(
        open_session(run, audit=audit, reviewer=reviewer or getpass.getuser(), blind=blind, minutes=minutes, budget=budget)
    )


def _run_of(rows: Run | LabelAudit | Path | str, folder: Path | str | None, criterion: str | None) -> Run:
    if isinstance(rows, LabelAudit):
        if folder is None:
            raise RunError("review_widget: say where the verdicts on this audit are kept, e.g. folder='reviews/support'.")
        return AuditRun(rows, folder, criterion)
    if folder is not None or criterion is not None:
        raise RunError("review_widget: a run keeps its verdicts in its own folder, and has its criterion; leave both out.")
    return rows if isinstance(rows, Run) else Run(rows)


@dataclass(frozen=True)
class ResultInMemory(SavedStage):
    """A stage's result that was never written."""

    result: StageResult

    @cached_property
    def columns(self) -> pl.DataFrame:
        return self.result.columns

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return dict(self.result.metrics)

    def table(self, name: str) -> pl.DataFrame:
        return self.result.tables[name]


class AuditRun(Run):
    """An audit in memory, read as a run folder is: one review session serves both. Its folder holds verdicts and no more."""

    def __init__(self, audit: LabelAudit, folder: Path | str, criterion: str | None = None) -> None:
        """Raises RunError when `folder` is a run's, whose verdicts are on another audit, or cannot be made."""
        self.folder, self.audit = Path(folder), audit
        self.criterion = criterion or (audit.judged and audit.judged.metrics["judge"]["criterion"])
        if (self.folder / "manifest.json").exists():
            raise RunError(f"{self.folder} is a run folder, and keeps the verdicts on its own audit. Give another folder.")
        make_folder(self.folder)

    @property
    def manifest(self) -> dict[str, Any]:
        recipe: dict[str, Any] = {"steps": [{"label_noise": dict(self.audit.settings)}]}
        return {"name": self.folder.name, "recipe": recipe | ({"criterion": self.criterion} if self.criterion else {})}

    @cached_property
    def feedback(self) -> pl.DataFrame:
        return self.audit.table.drop("state", strict=False)

    def stage_names(self) -> list[str]:
        return ["embed", "label_noise"]

    def stage(self, name: str) -> SavedStage:
        return ResultInMemory(self.folder / "stages" / name, self.audit.result)

"""An audit in memory, answered for as a run folder would be: so one desk serves both. Its folder holds verdicts and no more."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import RunError
from ktodata.pipeline.audit import LabelAudit
from ktodata.pipeline.run_folder import Run, Saved
from ktodata.stage import StageResult


@dataclass(frozen=True)
class _Kept(Saved):
    """A stage's result that was never written."""

    result: StageResult

    @cached_property
    def columns(self) -> pl.DataFrame:
        return self.result.columns

    @cached_property
    def facts(self) -> dict[str, Any]:
        return dict(self.result.metrics)

    def table(self, name: str) -> pl.DataFrame:
        return self.result.tables[name]


class AuditRun(Run):
    """What the review desk asks of a run, answered from an audit. `folder` is made where it is not there."""

    def __init__(self, audit: LabelAudit, folder: Path | str) -> None:
        """Raises RunError when `folder` is a run's, whose verdicts are on another audit, or cannot be made."""
        self.folder, self.audit = Path(folder), audit
        if (self.folder / "manifest.json").exists():
            raise RunError(f"{self.folder} is a run folder, and keeps the verdicts on its own audit. Give another folder.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot keep verdicts in {self.folder}: {error}.") from error

    @property
    def manifest(self) -> dict[str, Any]:
        return {"name": self.folder.name, "recipe": {"steps": [{"label_noise": dict(self.audit.settings)}]}}

    @cached_property
    def feedback(self) -> pl.DataFrame:
        return self.audit.table.drop("state", strict=False)

    def stage_names(self) -> list[str]:
        return ["embed", "label_noise"]

    def stage(self, name: str) -> Saved:
        return _Kept(self.folder / "stages" / name, self.audit.result)

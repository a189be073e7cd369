"""An audit in memory, read as a run folder is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.report.run_files import with_text_number
from ktodata.stage import StageResult

STAGE = "label_noise"


@dataclass(frozen=True)
class AuditTables:
    """What label_noise returned, and the table that it was given, in the place of all stages before it but a judge's."""

    result: StageResult
    feedback: pl.DataFrame
    judged: StageResult | None = None

    def metrics(self, stage: str) -> dict[str, Any]:
        """Those of label_noise, and of a judge that was asked; of all others nothing is known."""
        made = {STAGE: self.result, "judge": self.judged}.get(stage)
        return {} if made is None else dict(made.metrics)

    def table(self, stage: str, name: str) -> pl.DataFrame | None:
        """Those of label_noise."""
        return self.result.tables.get(name) if stage == STAGE else None

    def columns(self, stage: str, *names: str) -> pl.DataFrame | None:
        """Those of label_noise, or of the table that it was given; all of them, when none is named."""
        table = self.result.columns if stage == STAGE else self.feedback
        return table.select("row_id", *[name for name in names if name in table.columns]) if names else table

    def text_numbers(self) -> pl.DataFrame:
        """row_id, text: the same number for rows of the same prompt and completion."""
        return with_text_number(self.feedback.lazy()).collect()

    def rows(self, row_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """{row_id: the feedback row} for a few rows; those unknown are left out."""
        requested = pl.Series(sorted(set(row_ids)), dtype=pl.String)
        rows = self.feedback.filter(pl.col("row_id").is_in(requested.implode()))
        return {row["row_id"]: row for row in rows.iter_rows(named=True)}

"""Label quality only: what `ktodata audit` does, as a recipe of four stages and a page."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.files import whole_file
from ktodata.report import build_audit_page
from ktodata.run_folder import Run
from ktodata.runner import Notify, run

MEASURED = ("p_desirable", "label_quality", "is_label_issue", "flagged", "doubts")


@dataclass(frozen=True)
class Audit:
    """What an audit found. `table`: every row that was looked at, the most doubtful first."""

    folder: Path
    table: pl.DataFrame
    facts: Mapping[str, Any]

    def text(self) -> str:
        """The findings in words, for a terminal."""
        told = [f"{finding['code']}  {finding['text']}" for finding in self.facts["findings"] if finding["text"]]
        rows = self.facts["rows"]
        head = f"{rows['seen']:,} rows: {rows['desirable']:,} desirable, {rows['undesirable']:,} undesirable."
        return "\n".join([head, "", *told, "", f"rows: {self.folder / 'audit.parquet'}", f"page: {self.folder / 'audit.html'}"])


def audit_feedback(
    paths: str,
    *,
    out: Path | str,
    ingest: Mapping[str, Any],
    encoder: str,
    label_noise: Mapping[str, Any],
    seed: int = 0,
    notify: Notify = lambda event: None,
) -> Audit:
    """Read feedback and say how far its labels can be trusted; writes audit.parquet and audit.html into `out`.

    ingest, label_noise : settings as in a recipe. encoder : what `embed` uses. Errors are those of `ktodata.run`.
    """
    recipe = {
        "name": "audit",
        "seed": seed,
        "ingest": {"paths": paths, **ingest},
        "steps": [{"validate": None}, {"dedupe": None}, {"embed": {"model": encoder}}, {"label_noise": dict(label_noise)}],
    }
    done = run(recipe, out=out, until="label_noise", notify=notify)
    table = _table(done)
    with whole_file(done.folder / "audit.parquet") as scratch:
        table.write_parquet(scratch)
    with whole_file(done.folder / "audit.html") as scratch:
        scratch.write_text(build_audit_page(done.folder), encoding="utf-8")
    return Audit(done.folder, table, done.stage("label_noise").facts)


def _table(done: Run) -> pl.DataFrame:
    feedback = done.stage("ingest").columns.drop("votes", "turns")
    measured = done.stage("label_noise").columns.select("row_id", *MEASURED)
    return feedback.join(measured, on="row_id", how="inner", maintain_order="left").sort(
        "label_quality", nulls_last=True, maintain_order=True
    )

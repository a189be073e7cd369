"""Label quality only: what `ktodata audit` does, as a recipe of four stages and a page."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.files import whole_file
from ktodata.label_audit import LabelAudit
from ktodata.report import build_audit_page
from ktodata.run_folder import Run
from ktodata.runner import Notify, run
from ktodata.stage import StageResult

MEASURED = ("p_desirable", "label_quality", "is_label_issue", "flagged", "doubts")


@dataclass(frozen=True)
class Audit:
    """What an audit found. `table`: every row that was looked at, the most doubtful first."""

    folder: Path
    table: pl.DataFrame
    facts: Mapping[str, Any]
    bought: Mapping[str, float | None] | None = None  # by the minutes of review that were asked about

    def text(self) -> str:
        """The findings in words, for a terminal."""
        told = [f"{finding['code']}  {finding['text']}" for finding in self.facts["findings"] if finding["text"]]
        rows = self.facts["rows"]
        head = f"{rows['seen']:,} rows: {rows['desirable']:,} desirable, {rows['undesirable']:,} undesirable."
        places = [f"rows: {self.folder / 'audit.parquet'}", f"page: {self.folder / 'audit.html'}"]
        if self.bought is not None:
            places.append(_in_words(self.bought, self.folder / "review.csv"))
        return "\n".join([head, "", *told, "", *places])


def audit_feedback(
    paths: str,
    *,
    out: Path | str,
    ingest: Mapping[str, Any],
    encoder: str,
    label_noise: Mapping[str, Any],
    budget_minutes: float | None = None,
    seed: int = 0,
    notify: Notify = lambda event: None,
) -> Audit:
    """Read feedback and say how far its labels can be trusted; writes audit.parquet and audit.html into `out`.

    budget_minutes : also write review.csv, the rows that so many minutes are best spent on, at a minute a row.
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
    bought = None if budget_minutes is None else _write_queue(done, label_noise, budget_minutes)
    return Audit(done.folder, table, done.stage("label_noise").facts, bought)


def _in_words(bought: Mapping[str, float | None], place: Path) -> str:
    expected = bought["wrong_labels_expected"]
    found = "how many of them are labelled wrong cannot be told before some are reviewed"
    if expected is not None:
        found = f"{expected:.0f} of them are expected to be labelled wrong"
    return (
        f"{bought['minutes']:g} minutes: {bought['rows']:,} rows in {place}; {found}. Fill in trusted_label; in Python, "
        "kd.audit(...).with_reviews(verdicts) takes row_id and trusted_label."
    )


def _write_queue(done: Run, settings: Mapping[str, Any], minutes: float) -> dict[str, float | None]:
    """Write review.csv and say what it is expected to find."""
    columns = [done.stage(name).columns for name in ("ingest", "dedupe", "embed", "label_noise")]
    table = columns[0]
    for more in columns[1:]:
        table = table.drop(set(more.columns) & set(table.columns) - {"row_id"}).join(
            more, on="row_id", how="inner", maintain_order="left"
        )
    found = done.stage("label_noise")
    given = LabelAudit(table, StageResult(found.columns, facts=found.facts), dict(settings))
    rows = given.next_reviews(int(minutes))
    with whole_file(done.folder / "review.csv") as scratch:
        # a text that begins like a formula would be run by a spreadsheet; row_id finds the text again
        shown = [pl.col(name).str.replace(r"^([=+\-@\t\r])", "'$1") for name in ("prompt", "completion")]
        rows.with_columns(*shown, trusted_label=pl.lit(None, pl.Boolean)).write_csv(scratch)
    return given.buys(minutes)


def _table(done: Run) -> pl.DataFrame:
    feedback = done.stage("ingest").columns.drop("votes", "turns")
    measured = done.stage("label_noise").columns.select("row_id", *MEASURED)
    return feedback.join(measured, on="row_id", how="inner", maintain_order="left").sort(
        "label_quality", nulls_last=True, maintain_order=True
    )

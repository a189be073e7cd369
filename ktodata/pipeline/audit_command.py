"""Label quality only: what `ktodata audit` does, as a short recipe and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from ktodata.files import whole_file
from ktodata.formats.verdicts.reviews import is_filled_in, reviews_in_words, write_queue
from ktodata.pipeline.audit import LabelAudit
from ktodata.pipeline.audit_recipe import audit_recipe
from ktodata.pipeline.run_folder import Run, with_columns_of
from ktodata.pipeline.runner import Notify, run_plan
from ktodata.report.audit_page import audit_headline, audit_page_of
from ktodata.report.run_contents import read_contents
from ktodata.report.sections.flow_section import RecordAccount, record_account
from ktodata.stages.label_noise import ADDS


@dataclass(frozen=True)
class Audit:
    """`table`: every row that was audited, the most doubtful first; `queue`: the file of rows to judge, worth `yields`."""

    folder: Path
    table: pl.DataFrame
    metrics: Mapping[str, Any]
    yields: Mapping[str, float | None] | None = None  # what the minutes of review are expected to show
    queue: Path | None = None

    def text(self) -> str:
        """The findings in words, for a terminal."""
        findings = [f"{finding['code']}  {finding['text']}" for finding in self.metrics["findings"] if finding["text"]]
        rows = self.metrics["rows"]
        account = RecordAccount(**self.metrics["records"]) if "records" in self.metrics else None
        head = f"{rows['learnt_from']:,} rows: {rows['desirable']:,} desirable, {rows['undesirable']:,} undesirable."
        if others := rows["total"] - rows["learnt_from"]:
            head += f" {others:,} more, held for review or held out, were scored and not learnt from."
        if reviewed := self.metrics.get("verdicts"):
            head = f"{head}\n{reviews_in_words(reviewed)}"
        places = [f"rows: {self.folder / 'audit.parquet'}", f"page: {self.folder / 'audit.html'}"]
        if self.yields is not None and self.queue is not None:
            places.append(_queue_text(self.yields, self.queue))
        reading = [f"{one['code']}  {one['text']}" for one in self.metrics.get("reading", ()) if one["status"] == "issue"]
        lines = [*(account.lines() if account else ()), *reading, head]
        return "\n\n".join(["\n".join(lines), *self.metrics["headline"], "\n".join(findings), "\n".join(places)])


def audit_feedback(
    feedback: str,
    *,
    out: Path | str,
    ingest: Mapping[str, Any],
    steps: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    reviews: Sequence[Path | str] = (),
    telemetry: Path | str | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    notify: Notify = lambda event: None,
) -> Audit:
    """Read feedback and say how far its labels can be trusted; writes audit.parquet and audit.html into `out`.

    feedback : files or a hub id; or a recipe, of which ingest, reviews and the steps that an audit has are used.
    ingest, steps : settings as in a recipe ({stage: settings}); those of a recipe are used where these say nothing.
    reviews : files of people's verdicts, which count as trusted labels; what they hold is in the metrics, as `verdicts`.
    telemetry : of a training on these rows: run folder, model folder or telemetry.parquet. It counts as far as reviewed rows show
        that it is right.
    minutes : also write review.csv, the rows that so many minutes are best spent on, at a minute a row. One that somebody
        has filled in stays as it is; review-2.csv is written then.
    overrides : texts such as "delimiter=;" or "label_noise.min_precision=0.9". Errors are those of `ktodata.run`.
    """
    plan = audit_recipe(
        feedback, ingest=ingest, steps=steps, seed=seed, overrides=overrides, reviews=reviews, telemetry=telemetry
    )
    done = run_plan(plan, Path(out), until="label_noise", notify=notify)
    table = _audited_rows(done)
    with whole_file(done.folder / "audit.parquet") as scratch:
        table.write_parquet(scratch)
    notify({"stage": "audit", "number": 1, "of": 1, "kind": "progress", "text": "writing the page"})
    contents = read_contents(done.folder)
    with whole_file(done.folder / "audit.html") as scratch:
        scratch.write_text(audit_page_of(contents), encoding="utf-8")
    verdicts = {"verdicts": done.stage("reviews").metrics} if plan.reviews else {}
    account = record_account(contents.files)
    read = {"records": account.as_dict(), "reading": done.stage("ingest").metrics["findings"]} if account else {}
    metrics = {"headline": audit_headline(contents), **done.stage("label_noise").metrics, **verdicts, **read}
    if minutes is None:
        return Audit(done.folder, table, metrics)
    place = _free_place(done.folder)
    return Audit(done.folder, table, metrics, _write_queue(done, minutes, place), place)


def _queue_text(yields: Mapping[str, float | None], place: Path) -> str:
    expected = yields["wrong_labels_expected"]
    wrong = "how many of them are labelled wrong is not known before some are reviewed"
    if expected is not None:
        wrong = f"{expected:.0f} of them are expected to be labelled wrong"
    return (
        f"{yields['minutes']:g} minutes: {yields['rows']:,} rows in {place}; {wrong}. Fill in trusted_label (true: desirable; "
        f"keep or flip go too) and give it back with --reviews {place}, here or to `ktodata run`."
    )


def _free_place(folder: Path) -> Path:
    """review.csv, or the first of review-2.csv, ... that nobody has filled in: a person's work is never written over."""
    names = (f"review-{number}.csv" if number > 1 else "review.csv" for number in count(1))
    return next(folder / name for name in names if not (folder / name).exists() or not is_filled_in(folder / name))


def _write_queue(done: Run, minutes: float, place: Path) -> dict[str, float | None]:
    """Write the rows to be judged into `place` and say what they are expected to show."""
    audit = LabelAudit.of_run(done)
    with whole_file(place) as scratch:
        write_queue(audit.next_reviews(int(minutes)), scratch)
    return audit.buys(minutes)


def _audited_rows(done: Run) -> pl.DataFrame:
    # of dedupe: verdicts of people, and those on a row's repeats, are in it too
    trusted = done.stage("dedupe").columns.select("row_id", "trusted_label")
    feedback = with_columns_of(done.stage("ingest").columns.drop("votes", "turns"), trusted)
    measured = done.stage("label_noise").columns.select("row_id", *ADDS)
    return feedback.join(measured, on="row_id", how="inner", maintain_order="left").sort(
        "label_quality", nulls_last=True, maintain_order=True
    )

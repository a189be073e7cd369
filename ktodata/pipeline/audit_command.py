"""Label quality only: what `ktodata audit` does, as a short recipe and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.files import whole_file
from ktodata.formats.reviews import is_filled_in, reviews_in_words, write_queue
from ktodata.pipeline.audit import LabelAudit
from ktodata.pipeline.recipe import load_recipe
from ktodata.pipeline.run_folder import Run, with_columns_of
from ktodata.pipeline.runner import Notify, run_plan
from ktodata.report import build_audit_page
from ktodata.stages.label_noise import ADDS


@dataclass(frozen=True)
class Audit:
    """What an audit found. `table`: every row that was looked at, the most doubtful first; `queue`: the file of rows to judge."""

    folder: Path
    table: pl.DataFrame
    facts: Mapping[str, Any]
    bought: Mapping[str, float | None] | None = None  # by the minutes of review that were asked about
    queue: Path | None = None

    def text(self) -> str:
        """The findings in words, for a terminal."""
        told = [f"{finding['code']}  {finding['text']}" for finding in self.facts["findings"] if finding["text"]]
        rows = self.facts["rows"]
        head = f"{rows['seen']:,} rows: {rows['desirable']:,} desirable, {rows['undesirable']:,} undesirable."
        if reviewed := self.facts.get("verdicts"):
            head = f"{head}\n{reviews_in_words(reviewed)}"
        places = [f"rows: {self.folder / 'audit.parquet'}", f"page: {self.folder / 'audit.html'}"]
        if self.bought is not None and self.queue is not None:
            places.append(_in_words(self.bought, self.queue))
        return "\n".join([head, "", *told, "", *places])


def audit_feedback(
    paths: str,
    *,
    out: Path | str,
    ingest: Mapping[str, Any],
    encoder: str,
    label_noise: Mapping[str, Any],
    policy: str | None = None,
    reviews: Sequence[Path | str] = (),
    telemetry: Path | str | None = None,
    budget_minutes: float | None = None,
    seed: int = 0,
    notify: Notify = lambda event: None,
) -> Audit:
    """Read feedback and say how far its labels can be trusted; writes audit.parquet and audit.html into `out`.

    policy : a causal language model, best the one to be trained: its hidden states are a further view of the labels.
    reviews : files of people's verdicts, which count as trusted labels; what they hold is in the facts, as `verdicts`.
    telemetry : of a training on these rows: run folder, model folder or telemetry.parquet. It counts as far as reviewed rows show
        that it is right.
    budget_minutes : also write review.csv, the rows that so many minutes are best spent on, at a minute a row. One that somebody
        has filled in stays as it is; review-2.csv is written then.
    ingest, label_noise : settings as in a recipe. encoder : what `embed` uses. Errors are those of `ktodata.run`.
    """
    steps: list[dict[str, Any]] = [{"validate": None}, {"dedupe": None}, {"embed": {"model": encoder}}]
    steps += [] if policy is None else [{"hidden_states": {"model": policy}}]
    recipe = {
        "name": "audit",
        "seed": seed,
        "ingest": {"paths": paths, **ingest},
        "steps": [*steps, {"label_noise": dict(label_noise)}],
    }
    plan = load_recipe(recipe, reviews=reviews, telemetry=telemetry)
    done = run_plan(plan, Path(out), until="label_noise", notify=notify)
    table = _table(done)
    with whole_file(done.folder / "audit.parquet") as scratch:
        table.write_parquet(scratch)
    with whole_file(done.folder / "audit.html") as scratch:
        scratch.write_text(build_audit_page(done.folder), encoding="utf-8")
    verdicts = {"verdicts": done.stage("reviews").metrics} if reviews else {}
    facts = done.stage("label_noise").metrics | verdicts
    if budget_minutes is None:
        return Audit(done.folder, table, facts)
    place = _free_place(done.folder)
    return Audit(done.folder, table, facts, _write_queue(done, budget_minutes, place), place)


def _in_words(bought: Mapping[str, float | None], place: Path) -> str:
    expected = bought["wrong_labels_expected"]
    found = "how many of them are labelled wrong cannot be told before some are reviewed"
    if expected is not None:
        found = f"{expected:.0f} of them are expected to be labelled wrong"
    return (
        f"{bought['minutes']:g} minutes: {bought['rows']:,} rows in {place}; {found}. Fill in trusted_label (true: desirable; "
        f"keep or flip go too) and give it back with --reviews {place}, here or to `ktodata run`."
    )


def _free_place(folder: Path) -> Path:
    """review.csv, or the first of review-2.csv, ... that nobody has filled in: a person's work is never written over."""
    names = (f"review-{number}.csv" if number > 1 else "review.csv" for number in count(1))
    return next(folder / name for name in names if not (folder / name).exists() or not is_filled_in(folder / name))


def _write_queue(done: Run, minutes: float, place: Path) -> dict[str, float | None]:
    """Write the rows to be judged into `place` and say what they are expected to show."""
    given = LabelAudit.of_run(done)
    with whole_file(place) as scratch:
        write_queue(given.next_reviews(int(minutes)), scratch)
    return given.buys(minutes)


def _table(done: Run) -> pl.DataFrame:
    # of dedupe: verdicts of people, and those on a row's repeats, are in it too
    trusted = done.stage("dedupe").columns.select("row_id", "trusted_label")
    feedback = with_columns_of(done.stage("ingest").columns.drop("votes", "turns"), trusted)
    measured = done.stage("label_noise").columns.select("row_id", *ADDS)
    return feedback.join(measured, on="row_id", how="inner", maintain_order="left").sort(
        "label_quality", nulls_last=True, maintain_order=True
    )

"""Rows leave a run: list, caches, other files, verdicts, the run's own files, then the run is made again without them.

The list is written first, and what ingest left, which alone says which rows go, is removed last. So a call that was killed is
called again and finds what it needs; until then `ktodata run` refuses the folder.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import EmptyDataError, KtodataError, RecipeError, RunError
from ktodata.feedback import feedback_table
from ktodata.files import alone_in, is_run, read_note, read_own_table, remove_leftovers, write_note
from ktodata.formats.withdrawn import LIST, WithdrawnIds
from ktodata.pipeline.recipe import Recipe, load_recipe, read_yaml
from ktodata.pipeline.run_folder import SavedStage, stage_folder
from ktodata.pipeline.runner import Notify, run_plan
from ktodata.report.run_changes import PREVIOUS
from ktodata.withdrawal.cache_removal import clear_caches, unreachable_judge
from ktodata.withdrawal.file_removal import (
    MADE,
    FileChanges,
    holding,
    remove_from_model,
    remove_from_other_files,
    remove_made,
    remove_place,
)
from ktodata.withdrawal.receipt import Receipt, last_receipt
from ktodata.withdrawal.requested_ids import RequestedIds, read_requested
from ktodata.withdrawal.review_removal import remove_verdicts
from ktodata.withdrawal.withdrawn_rows import MatchedRows, check_column, joined, match_rows
from ktodata.withdrawal.withdrawn_texts import Marks, marks_of

QUARANTINE = "quarantine.parquet"


def forget(
    place: Path | str,
    rows: Path | str,
    *,
    by: str | None = None,
    dry_run: bool = False,
    run_again: bool = True,
    notify: Notify = lambda event: None,
) -> Receipt:
    """Take rows out of a run and of all that was made of them, keep them out of later runs, and say what was done.

    place : a run folder, or a recipe whose run lies in runs/<name>. rows : a file of ids (see `read_requested`).
    by : the column of the feedback table that they are ids of: row_id, source_id, rater, pair_id, or one that `keep` names
    dry_run : say what would go, and touch nothing. run_again : make the run anew to its export; without it, the folder is left
        without results

    Of a record with such an id all rows go, and exact repeats with them. Interrupted, the same call goes on.
    Raises what `read_requested` raises; RunError where there is no run, while another process works there, and where something
    cannot be removed; MissingColumnError where the feedback has no such column.
    """
    folder = run_folder_of(Path(place))
    requested = read_requested(Path(rows), by)
    with alone_in(folder):
        removal = _Removal(folder, requested)
        receipt = removal.outlook(again=run_again) if dry_run else removal.go(empty=not run_again)
    if dry_run or not run_again:
        return receipt
    return _run_again(removal, receipt, notify)


def run_folder_of(place: Path) -> Path:
    """The run folder that is meant. Raises RunError where there is none, or it is one of several rounds."""
    if place.suffix.lower() in (".yaml", ".yml") and place.is_file():
        name = read_yaml(place).get("name")
        folder = Path("runs") / str(name)
        if not folder.is_dir():
            raise RecipeError(f"{place} has not run yet, or into another folder than {folder}: give that folder.")
    else:
        folder = place
    if folder.parent.name == "rounds":
        raise RunError(f"{folder} is one round of several: give {folder.parent.parent}, which has them all.")
    if not is_run(folder) and not is_run(folder / "rounds" / "0") and not (folder / LIST).is_file():
        raise RunError(f"{folder} is no run folder: it has no manifest.json with stages.")
    return folder


class _Removal:
    """One withdrawal of one folder: a run, or the rounds of one, of which round 0 is the run that is made again."""

    def __init__(self, folder: Path, requested: RequestedIds) -> None:
        self.folder, self.requested = folder, requested
        rounds = sorted(place for place in (folder / "rounds").glob("*") if is_run(place))
        self.runs: Sequence[Path] = rounds or [folder]
        before = WithdrawnIds.read(folder / LIST) if (folder / LIST).is_file() else WithdrawnIds()
        self.goes_on = before.status == "removing"
        self.ids = before.with_ids(requested.by, requested.values, "removing")
        self.request = self.ids.digest("\x00".join([requested.by, *sorted(requested.values)]))
        self.matched = joined([self._match(run) for run in self.runs])
        self.steps = _steps_of(self.runs[0])

    def _match(self, run: Path) -> MatchedRows:
        saved = SavedStage(stage_folder(run, "ingest"))
        if saved.key is None and saved.folder.is_dir() and not self.goes_on:
            raise RunError(
                f"{saved.folder} is damaged, and it says which rows have the ids: `ktodata run` makes it again. Call then."
            )
        feedback = saved.columns if saved.key is not None else feedback_table()
        if feedback.height:
            check_column(self.requested.by, feedback)
        place = run / QUARANTINE
        quarantine = read_own_table(place) if place.is_file() else pl.DataFrame()
        return match_rows(feedback, quarantine, self.ids, self.requested)

    @property
    def _folders(self) -> list[Path]:
        """Every run, and what holds them."""
        return list(dict.fromkeys([*self.runs, self.folder]))

    @cached_property
    def marks(self) -> Marks:
        """What gives the rows away."""
        return marks_of(self.matched, self.requested)

    def outlook(self, *, again: bool) -> Receipt:
        """What `go` would do. again : the run would be made anew"""
        receipt, changes = self._receipt(), FileChanges()
        for run in self._folders:
            remove_from_other_files(run, self.marks, changes, dry=True)
        trained = max(remove_from_model(run, self._row_ids, changes, dry=True) for run in self.runs)
        for run in self._folders if self._in_own_files(receipt, changes) else ():
            remove_made(run, changes, dry=True)
            if (run / "stages" / "ingest").exists():
                changes.removed.append("stages/ingest")
        self._with_changes(receipt, changes, trained)
        receipt.made_again = _to_be_made_again(receipt) if again else []
        return receipt

    def go(self, *, empty: bool) -> Receipt:
        """Remove; what is left to do then is to make the run again. empty : leave no results, whatever is held in them"""
        remove_leftovers(self.folder)
        receipt = self._receipt()
        self.ids = self.ids.with_ids("row_id", self.matched.row_ids(), "removing")
        self.ids.write(self.folder / LIST)
        receipt.write(self.folder)
        self._remove(receipt, FileChanges(), empty=empty)
        self.ids.with_ids("row_id", (), "done").write(self.folder / LIST)
        receipt.state = "removed"
        receipt.write(self.folder)
        return receipt

    def _remove(self, receipt: Receipt, changes: FileChanges, *, empty: bool) -> None:
        """In the order in which a kill does no harm."""
        trained, matched = 0, self.matched
        for name, count in clear_caches(matched.rows, [self.folder], self.steps).items():
            receipt.cache[name] = receipt.cache.get(name, 0) + count
        for run in self._folders:
            remove_from_other_files(run, self.marks, changes)
        for run in self.runs:
            store = run / "reviews" / "reviews.sqlite"
            receipt.verdicts += remove_verdicts(store, matched.rows, matched.rest, self.marks) if store.is_file() else 0
            trained = max(trained, remove_from_model(run, self._row_ids, changes))
        self._with_changes(receipt, changes, trained)
        receipt.write(self.folder)
        if empty or self._in_own_files(receipt, changes):
            self._remove_results(changes)
        self._with_changes(receipt, changes, trained)

    def _remove_results(self, changes: FileChanges) -> None:
        for run in self._folders:
            remove_made(run, changes)
            _empty_manifest(run)
            if (run / "stages" / "ingest").exists():
                changes.removed.append("stages/ingest")
            remove_place(run / "stages" / "ingest")

    @property
    def _row_ids(self) -> pl.Series:
        return pl.Series(sorted(self.marks.values["row_id"]), dtype=pl.String)

    def _in_own_files(self, receipt: Receipt, changes: FileChanges) -> bool:
        """Whether files that the run has made hold one of the rows: where it has no such row, results of earlier runs may."""
        begun = receipt.state == "removing" and (receipt.rows or receipt.records or self.matched.unknown)
        return bool(begun or set(self.held()) - {*changes.removed, *changes.rewritten})

    def held(self) -> list[str]:
        """Files in the folder that hold an id or an excerpt."""
        return holding(self.folder, self.marks)

    def _receipt(self) -> Receipt:
        """A new one, or the one of a call with the same ids that did not get to its end."""
        before = last_receipt(self.folder)
        if before is not None and before.request == self.request and before.state != "made again":
            return before
        requested, matched = self.requested, self.matched
        return Receipt(
            number=1 if before is None else before.number + 1,
            by=requested.by,
            ids=len(requested.values),
            request=self.request,
            empty=requested.empty,
            repeated=requested.repeated,
            unmatched=len(requested.values) - matched.ids_here,
            rows=matched.rows.height,
            rows_kept=matched.rest.height,
            records=len(matched.records),
            parts=_parts(self.runs[0], matched.row_ids()),
            last_stage=_last_stage(self.runs[0], before),
        )

    def _with_changes(self, receipt: Receipt, changes: FileChanges, trained: int) -> Receipt:
        receipt.removed = list(dict.fromkeys([*receipt.removed, *changes.removed]))
        receipt.rewritten |= changes.rewritten
        receipt.not_reached = list(dict.fromkeys([*receipt.not_reached, *self._not_reached(receipt, changes, trained)]))
        return receipt

    def _not_reached(self, receipt: Receipt, changes: FileChanges, trained: int) -> list[str]:
        """What may hold the rows still."""
        lines = ["the sources: they are not written to; runs here leave the records out, other programs that read them do not"]
        if trained:
            lines.append(f"model/: its weights were trained or measured on {trained:,} of the rows; `ktodata run` trains it anew")
        elif any((run / "model").is_dir() for run in self.runs):
            lines.append("model/: the weights stay as they are; whether they have learnt from the rows, nothing there says")
        if receipt.unmatched:
            lines.append(
                "texts of ids that no row or record here has: only the ids can be looked for; what caches and models have of "
                "earlier runs stays"
            )
        if self.matched.unknown:
            lines.append(
                f"{self.matched.unknown:,} further records that became no row: which ids they have was not kept, so that they "
                "are not counted; they left the results, and a run that is made again reads those of them that have no such id"
            )
        if self.matched.alike:
            lines.append(
                f"{self.matched.alike:,} rows stay that have the prompt of one that went: hand in their ids if it is private"
            )
        for key, what in (("reviews", "people's verdicts"), ("telemetry", "telemetry of a training")):
            if files := [file for file in self._recipe_files(key) if not str(file).endswith("reviews/reviews.sqlite")]:
                lines.append(f"{what} outside this folder ({', '.join(files)}): row_ids, and notes if there are any")
        if "pulled" in changes.removed:
            lines.append("pulled/ was removed; the next run pulls again what the service still has: have it deleted there first")
        if (why := unreachable_judge(self.steps)) is not None:
            lines.append(f"answers of the judge in the cache: {why}")
        elif "judge" in self.steps:
            lines.append("what was sent to the judge's service, and answers given under other settings than this recipe's")
        if changes.unread:
            lines.append(f"files in this folder that cannot be looked into: {', '.join(changes.unread)}")
        lines.append("copies outside this folder: exports written elsewhere, pushed data sets and models, backups, other runs")
        lines.append(f"runs in other folders read the rows again, unless their recipe says withdrawn: {self.folder / LIST}")
        return lines

    def _recipe_files(self, key: str) -> list[str]:
        value = _manifest(self.runs[0]).get("recipe", {}).get(key) or []
        return [str(file) for file in (value if isinstance(value, list) else [value])]


def _run_again(removal: _Removal, receipt: Receipt, notify: Notify) -> Receipt:
    """Make the run anew as far as it went, or up to its export: training again is a decision of its own."""
    run = removal.runs[0]
    try:
        run_plan(_recipe_of(run), run, until=receipt.last_stage, notify=notify)
    except KtodataError as error:
        nothing_left = isinstance(error, EmptyDataError) and removal.matched.rest.is_empty()
        unsaid = f"{type(error).__name__}: what it says is not kept here. `ktodata run` shows it."
        receipt.why_not = "no row is left to make it of" if nothing_left else unsaid
        receipt.write(removal.folder)
        if nothing_left:
            return receipt
        raise type(error)(f"the rows were removed; the run cannot be made again without them: {error}") from error
    receipt.state, receipt.why_not = "made again", None
    receipt.made_again = [name for name in receipt.removed if (run / name).exists()]
    if held := removal.held():
        receipt.not_reached.append(
            f"an id or an excerpt in what was made again: {', '.join(held)} (the recipe, or a source, has it)"
        )
    receipt.write(removal.folder)
    return receipt


def _to_be_made_again(receipt: Receipt) -> list[str]:
    """Of what goes, what a run makes up to its last stage: no training, and nothing that a service is asked for."""
    of_results = [name for name in MADE if name not in ("evaluation.json", "pulled")]
    made = of_results if receipt.last_stage == "export" else [QUARANTINE, "ledger.parquet"]
    not_again = [f"stages/{name}" for name in ("train", "evaluate", PREVIOUS)]
    return [name for name in receipt.removed if name in made or (name.startswith("stages/") and name not in not_again)]


def _recipe_of(run: Path) -> Recipe:
    """The recipe that a run was made by, with all that was set for that run."""
    manifest = _manifest(run)
    raw = {key: value for key, value in manifest["recipe"].items() if value is not None}
    return load_recipe(raw, folder=run / manifest["recipe_folder"])


def _manifest(run: Path) -> dict[str, Any]:
    return read_note(run / "manifest.json") if (run / "manifest.json").is_file() else {}


def _steps_of(run: Path) -> dict[str, dict[str, Any]]:
    steps = _manifest(run).get("recipe", {}).get("steps", ())
    return {name: settings or {} for step in steps for name, settings in step.items()}


def _empty_manifest(run: Path) -> None:
    """The manifest without what stages said of the rows: names of raters, examples, counts."""
    if manifest := _manifest(run):
        empty = {"status": "rows were withdrawn; not made again yet", "inputs": [], "rows": {}, "stages": []}
        write_note(run / "manifest.json", {**manifest, **empty})


def _last_stage(run: Path, before: Receipt | None) -> str:
    done = [stage["name"] for stage in _manifest(run).get("stages", ()) if stage["name"] not in ("train", "evaluate")]
    if not done and before is not None:  # a withdrawal left it so
        return before.last_stage
    return done[-1] if done else "export"


def _parts(run: Path, row_ids: pl.Series) -> dict[str, int]:
    """{part: rows of these that stand in shards}"""
    exported = SavedStage(stage_folder(run, "export"))
    if exported.key is None:
        return {}
    rows = exported.columns.filter(pl.col("row_id").is_in(row_ids.implode()))
    return dict(sorted(rows.group_by("part").len().iter_rows()))

"""The run folder: its layout, how it is read, and how a stage's result gets into it."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import xxhash

from ktodata.digests import digest
from ktodata.errors import DataError, RunError
from ktodata.feedback import PARTS
from ktodata.files import (
    describe,
    read_note,
    read_own_table,
    read_sibling_table,
    scan_parquet,
    table_height,
    whole_folder,
    write_note,
)
from ktodata.formats.shards import check_shards
from ktodata.ledger import labels_in_words
from ktodata.report.integrity import FileFault, check_finished, faults_of
from ktodata.report.run_changes import PREVIOUS
from ktodata.report.run_files import with_text_number
from ktodata.stage import StageResult, check_stage

if TYPE_CHECKING:
    from ktodata.pipeline.compare_runs import RunComparison

MAX_LISTED = 12  # rows in a message


@dataclass(frozen=True)
class SavedStage:
    """A stage's result as it lies in the run folder."""

    folder: Path

    @property
    def key(self) -> str | None:
        """What the result was made from; None when there is no whole result."""
        return self.done.get("key")

    @cached_property
    def done(self) -> dict[str, Any]:
        """The note written last: key, made_of, columns (a digest each), artefacts, rows_in, seconds, peak_mb."""
        try:
            return read_note(self.folder / "done.json")
        except (OSError, RunError):  # absent or damaged: there is no whole result
            return {}

    @cached_property
    def columns(self) -> pl.DataFrame:
        """The narrow table that the stage added."""
        return read_own_table(self.folder / "columns.parquet")

    @property
    def names(self) -> list[str]:
        """Of its columns."""
        return list(self.done["columns"])

    @property
    def height(self) -> int:
        """How many rows `columns` has."""
        return table_height(self.folder / "columns.parquet")

    def read(self, *names: str) -> pl.DataFrame:
        """These of `columns`, read each time: a run that holds those of all its stages takes several times their memory."""
        return read_own_table(self.folder / "columns.parquet", names)

    @cached_property
    def decisions(self) -> pl.DataFrame:
        """What the stage decided."""
        return read_own_table(self.folder / "decisions.parquet")

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The stage's numbers."""
        return read_note(self.folder / "metrics.json")

    def table(self, name: str) -> pl.DataFrame:
        """One of the stage's further tables."""
        return read_own_table(self.folder / f"{name}.parquet")


class Run:
    """A run folder, read lazily. `kd.Run(folder)` opens one; `kd.run(recipe)` returns one."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not (self.folder / "manifest.json").is_file():
            raise RunError(
                f"{self.folder} is not a run folder: it has no manifest.json. `ktodata run RECIPE --out {self.folder}` makes one."
            )
        check_finished(self.folder, self.manifest)  # damaged or not finished, it is better said now than halfway

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        from ktodata.report.notebook_html import run_html

        return run_html(self.folder)

    @property
    def manifest(self) -> dict[str, Any]:
        """Resolved recipe, versions, inputs, and each stage's rows, seconds and memory."""
        manifest = read_note(self.folder / "manifest.json")
        if missing := {"recipe", "stages"} - manifest.keys():
            raise RunError(f"{self.folder}/manifest.json is no run's: it has no {' and no '.join(sorted(missing))}.")
        return manifest

    @property
    def recipe_file(self) -> Path | None:
        """The file that the run was made with, from here; None where it was a dict, or the file is gone."""
        manifest = self.manifest
        if not (name := manifest.get("recipe_file")):
            return None
        file = self.folder / str(manifest["recipe_folder"]) / Path(str(name)).name
        return Path(os.path.relpath(file.resolve())) if file.is_file() else None

    def evaluate_settings(self) -> dict[str, Any]:
        """The recipe's evaluate: section, with the path of its truth from here; empty when it had none."""
        manifest = self.manifest
        return places_from(self.folder / manifest["recipe_folder"], manifest["recipe"]["evaluate"] or {})

    @cached_property
    def ledger(self) -> pl.DataFrame:
        """Every decision: row_id, stage, action, reason, evidence (JSON), caused_by. A row's last line says what became of it."""
        self._there("ledger.parquet")
        return read_sibling_table(self.folder / "manifest.json", "ledger.parquet")

    @cached_property
    def quarantine(self) -> pl.DataFrame:
        """Every record that could not become a row: file, line, reason, raw text."""
        check_stage(self.folder, "ingest", self.manifest)
        return read_own_table(self._there("quarantine.parquet"))

    @cached_property
    def feedback(self) -> pl.DataFrame:
        """The feedback table with every curation stage's columns; rows that a stage did not see hold nulls there.

        `trusted_label` is what the last stage that dealt with it made of it: a verdict of `reviews` stands before that of ingest.

        What training and evaluation saw of a row is in `stage("train").columns` and `stage("evaluate").columns`.
        """
        table = self.stage("ingest").columns
        for name in self.stage_names():
            if name not in ("ingest", "export", "train", "evaluate"):
                table = with_columns_of(table, self.stage(name).columns)
        return table

    @property
    def faults(self) -> list[FileFault]:
        """The files that the run's own notes speak of and that are gone, or were changed since, with what makes each again."""
        return faults_of(self.folder, self.manifest)

    def stage_names(self) -> list[str]:
        """The stages with a saved table, in the order in which they ran."""
        return [
            stage["name"]
            for stage in self.manifest["stages"]
            if (stage_folder(self.folder, stage["name"]) / "columns.parquet").exists()
        ]

    def stage(self, name: str) -> SavedStage:
        """A stage's saved result. Raises RunError when the run has none, or not as the stage wrote it."""
        check_stage(self.folder, name, self.manifest)
        saved = SavedStage(stage_folder(self.folder, name))
        if saved.key is None:
            raise RunError(f"{self.folder} holds no result of stage {name!r}; it has {', '.join(self.stage_names()) or 'none'}.")
        return saved

    def shards(self, part: str = "train") -> pl.DataFrame:
        """The exported rows of one part, in training order."""
        shards = self.folder / "shards"
        if shards.is_dir():
            check_shards(shards)
        files = sorted(shards.glob(f"{part}-*.parquet"))
        if not files:
            raise RunError(f"{self.folder} holds no {part} shards; parts are {', '.join(PARTS)}, and --until stops before them.")
        return pl.concat([read_own_table(file) for file in files])

    def explain(self, row_id: str) -> dict[str, Any]:
        """All that is known of one row: its text, what each stage measured, each decision and its evidence, what became of it.

        Its `labels` are desirable or undesirable as it was read and as it is exported (null: it is not), and `why` that is so.
        row_id : or the record's own source_id, where one row has it, or FILE:LINE. Of a record that became no row, its `record`
        (file, line, reason, detail, raw) and the outcome "quarantined". Raises DataError for one of several, which it names, and
        for one that the run does not hold, naming near ones.
        """
        rows = self.feedback.filter(pl.col("row_id") == row_id)
        if rows.is_empty():
            place = pl.format("{}:{}", "source", "source_line")
            own = self.feedback.filter((pl.col("source_id") == row_id) | (place == row_id))["row_id"].to_list()
            aside = records_of(self.quarantine, row_id)
            if len(own) + aside.height > 1:
                names = [*own, *(f"{file}:{line}" for file, line in aside.select("file", "line").iter_rows())]
                listed = ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
                what = " and records that became no row" if aside.height else ""
                raise DataError(f"{len(names):,} rows{what} in {self.folder} are {row_id!r}; explain one: {listed}.")
            if own:
                return self.explain(own[0])
            if aside.height:
                return {"record": aside.drop("ids", "raw_chars", strict=False).to_dicts()[0], "outcome": "quarantined"}
            near = self.feedback.filter(pl.col("row_id").str.starts_with(row_id[:4]))["row_id"].head(3).to_list()
            hint = f" Rows that begin alike: {', '.join(near)}." if near else ""
            raise DataError(
                f"no row {row_id!r} in {self.folder}, neither as row_id, source_id nor FILE:LINE.{hint} row_ids are in its "
                "ledger.parquet and its shards, and on the page beside each row shown; records that became no row are in its "
                "quarantine.parquet by file and line."
            )
        own = self.stage("ingest").columns.columns
        measured = {
            # of reviews, what was said: its column holds what was known of all other rows as well
            name: (self.stage(name).table("verdicts") if name == "reviews" else self.stage(name).columns)
            .filter(pl.col("row_id") == row_id)
            .drop("row_id")
            .to_dicts()
            for name in self.stage_names()
            if name != "ingest"
        }
        decisions = [
            {**line, "evidence": json.loads(line["evidence"] or "{}")}
            for line in self.ledger.filter(pl.col("row_id") == row_id).iter_rows(named=True)
        ]
        of_row = {name: lines[0] for name, lines in measured.items() if lines}
        return {
            "row": rows.select(own).to_dicts()[0],
            "labels": labels_in_words(rows.to_dicts()[0], of_row.get("reviews"), decisions),
            "measured": of_row,
            "decisions": decisions,
            "outcome": next((line["action"] for line in reversed(decisions) if line["stage"] == "export"), None),
        }

    def compare(self, baseline: "Run | Path | str", *, resamples: int = 1000, seed: int = 0) -> "RunComparison":
        """Whether this run's model is better than the baseline's on the rows that both hold out; `verdict()` says it in words.

        Read off what both runs have evaluated; nothing is scored anew. 95 % intervals resample prompt groups. Raises as
        `pipeline.compare_runs.compare_runs`.
        """
        from ktodata.pipeline.compare_runs import compare_runs

        other = baseline if isinstance(baseline, Run) else Run(baseline)
        return compare_runs(self, other, resamples=resamples, seed=seed)

    def push(self, repo_id: str, *, private: bool = True, allow_pii: bool = False, token: str | None = None) -> str:
        """Upload shards, card, checksums and ledger to a data set on the Hub, and return its address.

        Raises RunError where the run is not finished or a shard was changed, DataError where shards hold personal data or keys
        and `allow_pii` is false, and what `ktodata.train.push_to_hub` raises; nothing is sent then. That pushes the model.
        """
        from ktodata.pipeline.sharing import dataset_files, send_dataset

        return send_dataset(dataset_files(self, allow_pii=allow_pii), repo_id, private=private, token=token)

    def _there(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise RunError(
                f"{self.folder} has no {name}: the run did not finish. `ktodata run` again takes it up where it stopped."
            )
        return path


def records_of(quarantine: pl.DataFrame, name: str) -> pl.DataFrame:
    """The records that became no row and are of this name: their own source_id, or FILE:LINE."""
    ids = pl.col("ids").str.json_decode(pl.Struct({"source_id": pl.List(pl.String)})) if "ids" in quarantine.columns else None
    of_id = pl.lit(False) if ids is None else ids.struct.field("source_id").list.contains(name).fill_null(False)
    return quarantine.filter(of_id | (pl.format("{}:{}", "file", "line") == name))


def with_columns_of(table: pl.DataFrame, columns: pl.DataFrame) -> pl.DataFrame:
    """`table` with a stage's columns joined on; where it has one of them already, the stage's values stand before its own."""
    again = [name for name in columns.columns if name in table.columns and name != "row_id"]
    joined = table.join(columns, on="row_id", how="left", maintain_order="left", suffix="\0")
    return joined.with_columns(pl.coalesce(f"{name}\0", name).alias(name) for name in again).drop(f"{name}\0" for name in again)


def places_from(folder: Path, evaluate: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `evaluate` in which the paths of the truth and of prompts to check, where given, start at `folder`."""
    settings = dict(evaluate)
    if settings.get("instructions"):
        settings["instructions"] = str(folder / Path(settings["instructions"]).expanduser())
    if settings.get("truth"):
        settings["truth"] = {**settings["truth"], "path": str(folder / Path(settings["truth"]["path"]).expanduser())}
    return settings


def stage_folder(run: Path, name: str) -> Path:
    """Where a stage's result lies."""
    return run / "stages" / name


def save_result(run: Path, name: str, result: StageResult, note: Mapping[str, Any], written: Sequence[Path] = ()) -> SavedStage:
    """Write a stage's result whole or not at all; done.json has `note`, a digest of each column, and of all that was written.

    written : files and folders below `run` that the stage has made beside its own folder
    """
    with whole_folder(stage_folder(run, name)) as scratch:
        result.columns.write_parquet(scratch / "columns.parquet")
        result.decisions.write_parquet(scratch / "decisions.parquet")
        for table_name, table in result.tables.items():
            table.write_parquet(scratch / f"{table_name}.parquet")
        write_note(scratch / "metrics.json", dict(result.metrics))
        place = stage_folder(run, name).relative_to(run).as_posix()
        own = {f"{place}/{file}": of for file, of in describe(scratch, [scratch]).items()}
        write_note(
            scratch / "done.json", {**note, "columns": _column_digests(result.columns), "artefacts": own | describe(run, written)}
        )
    return SavedStage(stage_folder(run, name))


def keep_previous(run: Path, finished: str) -> None:
    """Keep what became of each row when the run was finished, before they are read anew: the page says what has changed.

    finished : when that was
    """
    ledger = read_own_table(run / "ledger.parquet").filter(pl.col("stage") == "export")
    outcomes = ledger.select("row_id", "action", part=pl.col("evidence").str.json_path_match("$.part"))
    ingested = SavedStage(stage_folder(run, "ingest"))
    rows = ingested.read("row_id", "label", *({"rater"} & set(ingested.names)))
    texts = with_text_number(scan_parquet(ingested.folder / "columns.parquet")).collect(engine="streaming")
    for of_rows in (texts, outcomes):
        rows = rows.join(of_rows, on="row_id", how="left", maintain_order="left")
    result = StageResult(rows, metrics={"quarantined": ingested.metrics["quarantined"]})
    save_result(run, PREVIOUS, result, {"key": digest(finished)})


def _column_digests(table: pl.DataFrame) -> dict[str, str]:
    """16 hex digits of each column and the rows that it is of: who asks for it alone does not depend on the others.

    Of values, as equal strings may lie in memory in two ways.
    """
    rows = table.select("row_id").hash_rows().to_numpy().tobytes()
    hashes = {name: table.select(name).hash_rows().to_numpy().tobytes() for name in table.columns}
    return {name: xxhash.xxh3_64_hexdigest(f"{table.schema[name]}".encode() + rows + of) for name, of in hashes.items()}

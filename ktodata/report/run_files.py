"""A finished run, read as far as it is there. What is missing is empty, never an error: a run need not have every stage."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from ktodata.errors import RunError
from ktodata.files import (
    damage_speaks,
    digest_file,
    read_note,
    read_own_table,
    read_sibling_table,
    scan_parquet,
    siblings_of,
)
from ktodata.formats.table import QUARANTINE
from ktodata.report.integrity import FileFault, check_finished, faults_of
from ktodata.stage import DECISION_SCHEMA, check_stage, strongest_decisions


class StageTables(Protocol):
    """What stages left behind: in a run folder, or in memory."""

    def metrics(self, stage: str, /) -> dict[str, Any]:
        """The stage's own numbers; empty when it did not run."""

    def table(self, stage: str, name: str, /) -> pl.DataFrame | None:
        """A small table that the stage left; None when there is none."""

    def columns(self, stage: str, /, *names: str) -> pl.DataFrame | None:
        """row_id and those of the stage's columns that are there (all, when none is named); None when it did not run."""

    def text_numbers(self) -> pl.DataFrame:
        """row_id, text: the same number for rows of the same prompt and completion."""

    def rows(self, row_ids: Iterable[str], /) -> dict[str, dict[str, Any]]:
        """{row_id: the feedback row} for a few rows; those unknown are left out."""


class RunFiles:
    """Reads the files of one run, each once, when it is first asked for. Writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not (self.path / "manifest.json").is_file():
            raise RunError(f"{self.path} is not a run folder: it has no manifest.json. `ktodata run RECIPE --out DIR` makes one.")
        check_finished(self.path, _read_json_file(self.path / "manifest.json"))
        self._checked = set[str]()

    @property
    def place(self) -> str:
        """The run's folder as one would type it: from here where it is below."""
        place, here = self.path.resolve(), Path.cwd()
        return str(place.relative_to(here) if place.is_relative_to(here) else place)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Resolved recipe, versions, inputs, counts, and each stage in the order they ran."""
        return _read_json_file(self.path / "manifest.json")

    @cached_property
    def faults(self) -> list[FileFault]:
        """The files that notes in the folder speak of and that are gone or others."""
        return faults_of(self.path, self.manifest)

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """Held-out results; empty when the run does not evaluate."""
        return _read_json_file(self.path / "evaluation.json") or self.metrics("evaluate")

    @cached_property
    def another_was_evaluated(self) -> bool:
        """Whether the results are of a model that was in the folder, and another is there now."""
        return is_of_another_model(self.path, self.evaluation)

    @cached_property
    def training(self) -> dict[str, Any]:
        """What the trainer wrote down; empty when the run does not train."""
        return _read_json_file(self.path / "model" / "training.json")

    @cached_property
    def telemetry(self) -> pl.DataFrame | None:
        """What training saw of each row, step by step; None when the run does not train."""
        return self._table_beside("model/training.json", "telemetry.parquet")

    @cached_property
    def ablation(self) -> dict[str, Any]:
        """What `ktodata ablate` wrote down; empty when the run was not ablated."""
        return _read_json_file(self.path / "ablation.json")

    @cached_property
    def ablation_scores(self) -> pl.DataFrame | None:
        """Every held-out row's reward in every arm: arm, seed, row_id, reward; None where that is not there."""
        return _if_columns(self._table_beside("ablation.json", "ablation.parquet"), ("arm", "seed", "row_id", "reward"))

    @cached_property
    def comparison(self) -> dict[str, Any]:
        """What `ktodata compare` wrote down; empty when no methods were compared."""
        return _read_json_file(self.path / "comparison" / "comparison.json")

    @cached_property
    def comparison_rows(self) -> pl.DataFrame | None:
        """Every held-out row's reward by every policy, with label and truth; None where that is not there."""
        table = self._table_beside("comparison/comparison.json", "comparison.parquet")
        return _if_columns(table, ("method", "row_id", "reward", "label", "truth"))

    @cached_property
    def ledger(self) -> pl.DataFrame:
        """Every decision: row_id, stage, action, reason, evidence, caused_by."""
        note = self.path / "manifest.json"
        if "ledger.parquet" not in siblings_of(note):  # the run goes still
            return pl.DataFrame(schema={**DECISION_SCHEMA, "stage": pl.String()})
        return read_sibling_table(note, "ledger.parquet")

    @cached_property
    def fates(self) -> pl.DataFrame:
        """row_id, stage, action, reason, evidence, caused_by of each row not simply kept: what settled it, each row once.

        A finished run says so in the ledger's last lines (stage "export"). Before that, the strongest decision so far counts.
        """
        settled = self.ledger.filter(pl.col("stage") == "export")
        if settled.is_empty():
            decisions = strongest_decisions(self.ledger).select("row_id", "stage", "action", "reason", "evidence", "caused_by")
            return decisions.filter(pl.col("action") != "keep")
        decided_by = pl.col("evidence").str.json_path_match("$.decided_by").fill_null("export")
        last = settled.filter(pl.col("action") != "keep").select("row_id", decided_by.alias("stage"), "action", "reason")
        before = self.ledger.filter(pl.col("stage") != "export")
        taken = before.unique(["row_id", "stage", "action", "reason"], maintain_order=True)
        return last.join(taken, on=["row_id", "stage", "action", "reason"], how="left", maintain_order="left")

    @cached_property
    def quarantine(self) -> pl.DataFrame:
        """Every record that could not become a row."""
        self._check("ingest")
        file = self.path / "quarantine.parquet"
        return read_own_table(file) if file.is_file() else pl.DataFrame(schema=QUARANTINE)

    def has(self, stage: str) -> bool:
        """Whether that stage has left something."""
        return (self.path / "stages" / stage).is_dir()

    def metrics(self, stage: str) -> dict[str, Any]:
        """The stage's own numbers; empty when it did not run."""
        self._check(stage)
        return _read_json_file(self.path / "stages" / stage / "metrics.json")

    def table(self, stage: str, name: str) -> pl.DataFrame | None:
        """A small table that the stage left; None when there is none."""
        self._check(stage)
        file = self.path / "stages" / stage / f"{name}.parquet"
        return read_own_table(file) if file.is_file() else None

    def columns(self, stage: str, *names: str) -> pl.DataFrame | None:
        """row_id and those of the stage's columns that are there (all, when none is named); None when it did not run."""
        file = self.path / "stages" / stage / "columns.parquet"
        self._check(stage)
        if not file.is_file():
            return None
        with damage_speaks(file):
            scan = scan_parquet(file)
            there = scan.collect_schema().names()
            requested = [name for name in ("row_id", *names) if name in there] if names else there
            return scan.select(list(dict.fromkeys(requested))).collect()

    def text_numbers(self) -> pl.DataFrame:
        """row_id, text: the same number for rows of the same prompt and completion."""
        return with_text_number(scan_parquet(self.path / "stages" / "ingest" / "columns.parquet")).collect(engine="streaming")

    def _table_beside(self, note: str, name: str) -> pl.DataFrame | None:
        """The table that a note speaks of; None where either is gone (`faults` has it), or the note speaks of no such table."""
        place = self.path / note
        there = place.exists() and place.with_name(name).exists() and name in siblings_of(place)
        return read_sibling_table(place, name) if there else None

    def _check(self, stage: str) -> None:
        """Raise RunError, once asked, where the stage's files are others than it wrote."""
        if stage not in self._checked:
            check_stage(self.path, stage, self.manifest)
            self._checked.add(stage)

    def rows(self, row_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """{row_id: the feedback row} for a few rows; those unknown are left out."""
        file = self.path / "stages" / "ingest" / "columns.parquet"
        if not file.is_file():
            return {}
        requested = pl.Series(sorted(set(row_ids)), dtype=pl.String)
        with damage_speaks(file):
            rows = scan_parquet(file).filter(pl.col("row_id").is_in(requested.implode())).collect()
        return {row["row_id"]: row for row in rows.iter_rows(named=True)}


def is_of_another_model(run: Path, evaluation: Mapping[str, Any]) -> bool:
    """Whether another model is in the run folder than the one of these results; not where they are of none that was there."""
    training, of_training = run / "model" / "training.json", evaluation.get("of_training")
    return of_training is not None and training.is_file() and digest_file(training) != of_training


def with_text_number(feedback: pl.LazyFrame) -> pl.LazyFrame:
    """row_id and text, a number that says which rows have the same prompt and completion."""
    return feedback.select("row_id", text=pl.struct("prompt", "completion").hash())


def pick(values: Mapping[str, Any], *keys: str, default: Any = None) -> Any:
    """The first of these keys that is there and not null; 'a.b' looks into a nested object."""
    for key in keys:
        value: Any = values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return default


def _read_json_file(file: Path) -> dict[str, Any]:
    return read_note(file) if file.exists() else {}


def _if_columns(table: pl.DataFrame | None, needs: Iterable[str]) -> pl.DataFrame | None:
    return table if table is not None and set(needs) <= set(table.columns) else None

"""A run while it goes: its stages in order, what each has left so far, and the rows that the next one sees."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import polars as pl
import xxhash

from ktodata.digests import code_digest, digest
from ktodata.errors import EmptyDataError, RunError
from ktodata.ledger import StageDecisions, outcomes
from ktodata.pipeline.run_folder import SavedStage
from ktodata.stage import StageResult


class RunStage(Protocol):
    """One stage of a run: what its result is made of, how it is made, and what it leaves beside its own folder."""

    @property
    def name(self) -> str:
        """As in a recipe, and of its folder."""

    @property
    def adds(self) -> tuple[str, ...]:
        """Columns that later stages may ask for."""

    @property
    def decides(self) -> Literal["all", "train"] | None:
        """The rows that its decisions hold for; None: it decides nothing."""

    @property
    def code(self) -> tuple[str, ...]:
        """Modules whose code makes the result."""

    @property
    def artefacts(self) -> tuple[str, ...]:
        """Paths below the run folder that it writes, beside its own folder."""

    def made_of(self, run: "RunState") -> dict[str, Any]:
        """What the result depends on beside code and models, by what it is: settings, files, rows, columns."""

    def work(self, run: "RunState") -> StageResult:
        """Make the result."""

    def models(self) -> Mapping[str, str]:
        """The models that its settings name, and what each name stands for at present."""

    def rows_in(self, run: "RunState") -> int | None:
        """How many rows it sees; None for a stage that reads them."""


@dataclass
class RunState:
    """folder : the run's. stages : in order; the first reads the rows. saved : results so far, by stage"""

    folder: Path
    stages: Sequence[RunStage]
    saved: dict[str, SavedStage] = field(default_factory=dict)

    @property
    def rows(self) -> SavedStage:
        """What the first stage read."""
        return self.saved[self.stages[0].name]

    def result(self, name: str) -> SavedStage:
        """What that stage has left. Raises RunError where it has not run."""
        if name not in self.saved:
            there = ", ".join(self.saved) or "nothing"
            raise RunError(
                f"{self.folder} has no result of {name} yet; it has {there}. `ktodata run` with its recipe, to the end, makes it."
            )
        return self.saved[name]

    def before(self, stage: RunStage) -> list[RunStage]:
        """The stages that come before it and are done."""
        return [other for other in self.stages[: self.stages.index(stage)] if other.name in self.saved]

    def providers(self, stage: RunStage) -> dict[str, str]:
        """For each column that the stage can be given, the stage that added it last."""
        first = self.stages[0].name
        columns = dict.fromkeys(self.rows.names, first)
        for earlier in self.before(stage):
            columns |= dict.fromkeys(earlier.adds, earlier.name)
        return columns

    def decisions(self, stages: Iterable[RunStage]) -> list[StageDecisions]:
        """What these stages decided."""
        return [StageDecisions(each.name, each.decides, self.saved[each.name].decisions) for each in stages if each.decides]

    def parts(self, stages: Iterable[RunStage]) -> pl.DataFrame | None:
        """row_id, part; None while no stage has said which rows are held out."""
        dealt = [stage.name for stage in stages if "part" in stage.adds]
        return self.saved[dealt[0]].read("row_id", "part") if dealt else None

    def contrary(self, stages: Iterable[RunStage]) -> pl.Series:
        """Ids of rows whose trusted label, as these stages left it, is not the label that was read."""
        adding = [stage.name for stage in stages if "trusted_label" in stage.adds] or [self.stages[0].name]
        trusted = self.saved[adding[-1]].read("row_id", "trusted_label").drop_nulls()
        rows = self.rows.read("row_id", "label").join(trusted, on="row_id")
        return rows.filter(pl.col("trusted_label") != pl.col("label"))["row_id"]

    def states(self, stage: RunStage) -> pl.DataFrame:
        """row_id, state, gone of every row as the stage finds them."""
        earlier = self.before(stage)
        part = self.parts(earlier)
        follows = part is None and any("part" in later.adds for later in self.stages[self.stages.index(stage) :])
        return outcomes(self.rows.read("row_id")["row_id"], self.decisions(earlier), part=part, split_follows=follows)

    def alive(self, stage: RunStage) -> pl.DataFrame:
        """row_id, state of the rows that may still be exported."""
        return self.states(stage).filter(~pl.col("gone")).select("row_id", "state")

    def table(self, stage: RunStage, columns: Iterable[str]) -> pl.DataFrame:
        """The rows that may still be exported, with their state and these columns. Raises EmptyDataError when none is left."""
        table = self.alive(stage)
        if table.is_empty():
            raise EmptyDataError(f"no row is left for {stage.name}: see what dropped them in {self.folder / 'stages'}.")
        providers, columns_of = self.providers(stage), dict[str, list[str]]()
        for column in columns:
            if column in providers and column != "row_id":
                columns_of.setdefault(providers[column], []).append(column)
        for provider, names in columns_of.items():
            narrow = self.saved[provider].read("row_id", *names)
            table = table.join(narrow, on="row_id", how="left", maintain_order="left")
        return table

    def digests(self, stage: RunStage, columns: Iterable[str]) -> dict[str, str]:
        """The digest of each of these columns that is there."""
        providers = self.providers(stage)
        return {name: self.saved[providers[name]].done["columns"][name] for name in columns if name in providers}


def key_parts(stage: RunStage, run: RunState) -> dict[str, str]:
    """A digest of each thing that the stage's result depends on, by what it is; together they are its key."""
    parts = {"its code": code_digest(*stage.code), **stage.made_of(run), "models": dict(stage.models())}
    return {what: digest(value) for what, value in parts.items()}


def frame_digest(frame: pl.DataFrame) -> str:
    """16 hex digits of a frame of text."""
    hasher = xxhash.xxh3_64()
    for column in frame.columns:
        hasher.update("\n".join(frame[column].to_list()).encode())
    return hasher.hexdigest()

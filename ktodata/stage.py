"""What a stage is: a function of the feedback table that adds narrow columns and decisions, and never loses a row.

A stage lives in `ktodata/stages/<name>.py` as

    NEEDS = ("prompt", "completion")     columns that must be there; checked for the whole recipe before the first row is read
    USES = ("pooled_votes",)             columns that are handed over when an earlier step added them   (optional)
    ADDS = ("duplicate_of",)             columns that it adds, keyed by row_id
    APPLIES_TO = "train"                 "all": its decisions hold for held-out rows too                  (optional)

    def <name>(feedback: pl.DataFrame, *, near: Annotated[float, Field(ge=0, le=1)] = 0.8) -> StageResult: ...

Its keyword-only parameters are the recipe's keys: types, ranges (pydantic `Field`) and defaults come from the signature.
It sees every row that may still be exported, with the column `state` ("keep", "relabel", "review" or "drop"): what was decided so
far. Rows dropped for good are gone; "drop" is seen only before the split is known, on rows that must leave the training part.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import polars as pl
from pydantic import Field

from ktodata.errors import DataError, RunError
from ktodata.files import differing, read_note

# A setting of this type is a list of prompts; in a recipe it is the path of a file that holds them.
Prompts = Sequence[str] | None
Seed = Annotated[int, Field(ge=0)]

Action = Literal["keep", "drop", "relabel", "review", "quarantine"]
# When several steps decide on one row, the strongest holds: what cannot be used is out, what is doubted waits.
STRENGTH: tuple[Action, ...] = ("keep", "relabel", "review", "drop", "quarantine")
KEPT: tuple[Action, ...] = ("keep", "relabel")  # of rows that are exported
HELD: Action = "review"  # of rows that wait for a person

DECISION_SCHEMA = pl.Schema(
    {"row_id": pl.String(), "action": pl.String(), "reason": pl.String(), "evidence": pl.String(), "caused_by": pl.String()}
)


def no_decisions() -> pl.DataFrame:
    """An empty table of decisions."""
    return pl.DataFrame(schema=DECISION_SCHEMA)


def strength(action: pl.Expr) -> pl.Expr:
    """Where an action stands in STRENGTH."""
    return action.replace_strict({action: rank for rank, action in enumerate(STRENGTH)}, return_dtype=pl.Int8)


def is_trained(columns: Collection[str]) -> pl.Expr:
    """Whether a row is trained on, by its part and state. columns : of the table; one that it lacks leaves no row out"""
    part = pl.col("part") == "train" if "part" in columns else pl.lit(value=True)
    return part & pl.col("state").is_in(KEPT) if "state" in columns else part


def trained_label() -> pl.Expr:
    """The label that a row is trained on with: the other one where it is turned."""
    return pl.col("label") ^ (pl.col("state") == "relabel")


def decide(
    rows: pl.DataFrame,
    where: pl.Expr,
    *,
    action: Action,
    reason: str,
    evidence: Sequence[str] = (),
    caused_by: str | None = None,
) -> pl.DataFrame:
    """One decision for each row of `rows` where `where` is true.

    evidence : names of columns of `rows`; their values go into the decision as JSON.
    caused_by : name of the column that holds the row_id of the row that caused it (the kept twin of a repeat), if any.
    """
    chosen = rows.filter(where)
    values = chosen.select(evidence).iter_rows(named=True)
    proofs = [json.dumps(value, default=str, ensure_ascii=False, sort_keys=True) for value in values]
    return pl.DataFrame(
        {
            "row_id": chosen["row_id"],
            "action": pl.Series([action] * chosen.height, dtype=pl.String),
            "reason": pl.Series([reason] * chosen.height, dtype=pl.String),
            "evidence": pl.Series(proofs if evidence else ["{}"] * chosen.height, dtype=pl.String),
            "caused_by": chosen[caused_by].cast(pl.String) if caused_by else pl.Series([None] * chosen.height, dtype=pl.String),
        },
        schema=DECISION_SCHEMA,
    )


@dataclass(frozen=True)
class StageResult:
    """What a stage found.

    columns : one line per row the stage saw: row_id and the columns named in ADDS.
    decisions : row_id, action, reason, evidence (JSON), caused_by; only for rows that are not simply kept.
    metrics : numbers for the manifest and the report; JSON values only.
    tables : further small tables that are not keyed by row (clusters, raters), by name.
    """

    columns: pl.DataFrame
    decisions: pl.DataFrame = field(default_factory=no_decisions)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.decisions.schema != DECISION_SCHEMA:
            raise DataError(f"decisions must have the schema {dict(DECISION_SCHEMA)}, not {dict(self.decisions.schema)}.")
        unknown = set(self.decisions["action"].unique()) - set(get_args(Action))
        if unknown:
            raise DataError(f"unknown action {', '.join(sorted(unknown))}; an action is one of {', '.join(STRENGTH)}.")

    def _repr_html_(self) -> str:
        # the one import that runs upwards: a notebook asks a result to draw itself, and drawing is the report's work
        from ktodata.report.notebook_html import stage_result_html

        return stage_result_html(self)

    def actions(self) -> dict[str, tuple[str, str]]:
        """{row_id: (action, reason)} for rows that are not simply kept; the strongest action where there are several."""
        strongest = strongest_decisions(self.decisions)
        return {row["row_id"]: (row["action"], row["reason"]) for row in strongest.iter_rows(named=True)}


def strongest_decisions(decisions: pl.DataFrame) -> pl.DataFrame:
    """One decision per row_id: the strongest action, and of those the first given."""
    return (
        decisions.with_columns(strength=strength(pl.col("action")))
        .sort("strength", descending=True, maintain_order=True)
        .unique("row_id", keep="first", maintain_order=True)
        .drop("strength")
    )


def check_stage(run: Path, name: str, manifest: Mapping[str, Any]) -> None:
    """Raise RunError where a file of a stage's own folder, or of the quarantine, is another than the stage wrote.

    manifest : the run's; the stage's note must be the one that it was made with.

    Shards are checked where they are read (formats/shards.py); a model may be another than the run's: `ktodata train` makes it.
    """
    entry = next((entry for entry in manifest["stages"] if entry["name"] == name), None)
    note = run / "stages" / name / "done.json"
    key = None if entry is None else entry.get("key")
    if key is None and not note.exists():  # no run has come to it
        return
    done = read_note(note)
    if key is not None and key != done.get("key"):
        raise RunError(f"{note} is of another making than manifest.json says: `ktodata run` again with its recipe makes it anew.")
    own = {
        file: written
        for file, written in done.get("artefacts", {}).items()
        if file.startswith(f"stages/{name}/") or "/" not in file
    }
    if wrong := [file for file in differing(run, own) if file in own]:
        raise RunError(
            f"{run / wrong[0]} is not what {name} wrote"
            + (f", nor are {len(wrong) - 1:,} more files" if wrong[1:] else "")
            + ": it was changed or damaged since. `ktodata run` again with its recipe makes it anew."
        )

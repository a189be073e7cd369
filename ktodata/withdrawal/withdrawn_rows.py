"""The rows of a run that are to go: those with a requested id, their exact repeats, and what was made of the same records."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.errors import MissingColumnError
from ktodata.formats.format import Fields
from ktodata.formats.withdrawn import WithdrawnIds, id_text
from ktodata.withdrawal.requested_ids import RequestedIds

# rows that have all of these in common are one text with one verdict, numbered where they are several
CONTENT = ("prompt", "completion", "label", "rater", "created_at", "source_id", "turns", "answer", "tools")
RECORD = ("source", "source_line", "source_id", "pair_id")


@dataclass(frozen=True)
class MatchedRows:
    """rows : of the feedback table that go; rest : those that stay. ids_here : requested ids that a row has.

    quarantined : records that became no row and hold one of the ids; alike : rows that stay and have the prompt of one that goes
    """

    rows: pl.DataFrame
    rest: pl.DataFrame
    ids_here: int
    quarantined: int

    @property
    def alike(self) -> int:
        """Rows that stay, and have the same prompt as one that goes."""
        prompts = self.rows["prompt"].unique()
        return int(self.rest["prompt"].is_in(prompts.implode()).sum())

    def row_ids(self) -> pl.Series:
        """Of the rows that go."""
        return self.rows["row_id"]


def check_column(by: str, feedback: pl.DataFrame) -> None:
    """Raise MissingColumnError where the feedback has no such column of ids."""
    names = [name for name, dtype in feedback.schema.items() if not dtype.is_nested()]
    if by not in names:
        raise MissingColumnError(f"the run's feedback has no column {by!r} to withdraw rows by; it has {', '.join(names)}.")


def match_rows(feedback: pl.DataFrame, quarantine: pl.DataFrame, ids: WithdrawnIds, requested: RequestedIds) -> MatchedRows:
    """feedback, quarantine : as the run has them; both may be empty. ids : the list that holds the requested ids by now"""
    goes = _with_their_kin(feedback, ids.rows_in(feedback))
    only = WithdrawnIds(ids.salt).with_ids(requested.by, requested.values, "done")
    present = _values_of(feedback, requested.by) & set(requested.values)
    records = quarantine["raw"].to_list() if "raw" in quarantine.columns else []
    held = sum(_holds(only, raw) for raw in records)
    return MatchedRows(feedback.filter(goes), feedback.filter(~goes), len(present), held)


def _with_their_kin(feedback: pl.DataFrame, goes: pl.Series) -> pl.Series:
    """Also exact repeats, as their text is the same, and rows of the same record, as it is not read at all."""
    if not goes.any():
        return goes
    numbered = feedback.select(content=pl.struct(CONTENT).hash(), record=pl.struct(RECORD).hash(), goes=goes)
    before = -1
    while int(numbered["goes"].sum()) != before:
        before = int(numbered["goes"].sum())
        for kin in ("content", "record"):
            numbered = numbered.with_columns(pl.col("goes").any().over(kin))
    return numbered["goes"]


def _values_of(feedback: pl.DataFrame, by: str) -> set[str]:
    """The ids that rows have; of raters also those of votes beside the label."""
    values = {id_text(value) for value in feedback[by]} if by in feedback.columns else set()
    for name in ("votes", "earlier_votes") if by == "rater" and feedback.height else ():
        votes = feedback[name].explode().struct.field("rater")
        values |= set(votes.drop_nulls().to_list())
    return {value for value in values if value is not None}


def _holds(ids: WithdrawnIds, raw: str) -> bool:
    record: Any = None
    with suppress(ValueError, RecursionError):
        record = json.loads(raw)
    return ids.holds_record(record, raw, Fields())


def joined(matches: Sequence[MatchedRows]) -> MatchedRows:
    """Those of several runs as one: of a self-training's rounds."""
    rows, rest = (pl.concat([getattr(each, name) for each in matches], how="diagonal") for name in ("rows", "rest"))
    return MatchedRows(rows, rest, max(each.ids_here for each in matches), sum(each.quarantined for each in matches))

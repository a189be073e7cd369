"""The rows of a run that are to go: those with a requested id, their exact repeats, and what was made of the same records."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import polars as pl

from ktodata.errors import MissingColumnError
from ktodata.feedback import COLUMNS
from ktodata.formats.withdrawn import MIN_CHARS, WithdrawnIds, ids_in
from ktodata.withdrawal.requested_ids import NAMED, RequestedIds

# rows that have all of these in common are one text with one verdict, numbered where they are several
CONTENT = ("prompt", "completion", "label", "rater", "created_at", "source_id", "turns", "answer", "tools")
OF_IDS = (*NAMED, "source", "model")  # no label, line or text: others have it, too
RECORD = ("source", "source_line", "source_id", "pair_id")


@dataclass(frozen=True)
class MatchedRows:
    """rows : of the feedback table that go; rest : those that stay. ids_here : requested ids that a row or a record has.

    records : those that became no row and hold one of the ids, as JSON values or text, or null where they are cut short
    unknown : further ones of which the run has kept no ids. alike : rows that stay and have the prompt of one that goes
    """

    rows: pl.DataFrame
    rest: pl.DataFrame
    ids_here: int
    records: tuple[Any, ...]
    unknown: int = 0

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
    names = [name for name in feedback.columns if name in OF_IDS or name not in COLUMNS]
    if by not in names:
        raise MissingColumnError(f"the run's feedback has no column of ids {by!r}; it has {', '.join(names)}.")


def match_rows(feedback: pl.DataFrame, quarantine: pl.DataFrame, ids: WithdrawnIds, requested: RequestedIds) -> MatchedRows:
    """feedback, quarantine : as the run has them; both may be empty. ids : the list that holds the requested ids by now"""
    goes = _with_their_kin(feedback, ids.rows_in(feedback))
    only = WithdrawnIds(ids.salt).with_ids(requested.by, requested.values, "done")
    present = _values_of(feedback, requested.by)
    records: list[Any] = []
    known = quarantine.drop_nulls("ids") if "ids" in quarantine.columns else quarantine.clear()
    for raw, kept in known.select("raw", "ids").iter_rows() if known.height else ():
        of_record = json.loads(kept)
        if only.holds_record(of_record):
            records.append(_parsed(raw))
            present |= {
                text for name, texts in of_record.items() for text in texts if name == requested.by or len(text) >= MIN_CHARS
            }
    n_here = len(present & set(requested.values))
    return MatchedRows(feedback.filter(goes), feedback.filter(~goes), n_here, tuple(records), quarantine.height - known.height)


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
    values = set(ids_in(feedback[by])) if by in feedback.columns else set[str]()
    for name in ("votes", "earlier_votes") if by == "rater" and feedback.height else ():
        values |= ids_in(feedback[name].explode().struct.field("rater"))
    return values


def _parsed(raw: str) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(raw)
    # the names of a record's fields are no text of its own
    return None if raw.startswith(("{", "[")) else raw


def joined(matches: Sequence[MatchedRows]) -> MatchedRows:
    """Those of several runs as one: of a self-training's rounds."""
    rows, rest = (
        pl.concat([getattr(each, name) for each in matches], how="diagonal").unique("row_id", maintain_order=True)
        for name in ("rows", "rest")
    )
    ids_here, unknown = max(each.ids_here for each in matches), max(each.unknown for each in matches)
    return MatchedRows(rows, rest, ids_here, max((each.records for each in matches), key=len), unknown)

"""Whether a rater's records on one text differ in a column that no setting names: who judged, when, or what was asked.

A table with one record a question has several verdicts on each text that are no votes on the same thing. Pooled, the majority of
"fluent" and "on topic" would outvote "harmful", without a word. What such a column means only a person can say.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np
import polars as pl

from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.records import clip

CODE = "KD016"
MAX_RECORDS = 2000  # so many of the first records are looked at
MAX_COLUMNS = 100
MAX_CHARS = 60
MAX_DEVIATIONS = -2.4  # from the agreement by chance; of columns that mean nothing 1 in 120 is further below
MIN_SHARE = 0.5  # of the records looked at; few repeats are repeats
PLACE = ["file", "source_line"]
VERDICT_ON = ["prompt", "completion", "rater"]


class UnnamedColumns:
    """What the first records hold in columns that no setting names: short texts and whole numbers."""

    def __init__(self, named: Collection[str]) -> None:
        self._named = named
        self._columns: list[str] = []  # of the first record: what others do not have is no column of a table
        self._cells: list[dict[str, Any]] = []

    def add(self, file: str, entries: Iterable[SourceRecord]) -> None:
        """Look at records; the values are kept as text."""
        for entry in islice(entries, MAX_RECORDS - len(self._cells)):
            if isinstance(record := entry.record, Mapping):
                self._columns = self._columns or [name for name in record if name not in self._named][:MAX_COLUMNS]
                cells = {f"={at}": _as_name(record.get(name)) for at, name in enumerate(self._columns)}
                self._cells.append({"file": file, "source_line": entry.line} | cells)

    def finding(self, table: pl.DataFrame) -> Finding:
        """KD016: a rater's records on one text differ in a column that no setting names. table: the rows, with their file."""
        if not self._cells:
            return not_applicable(CODE, "no record could be read")
        cells = pl.DataFrame(self._cells, infer_schema_length=None)
        rows = table.select(*PLACE, *VERDICT_ON).join(cells, on=PLACE)
        # of a record with several answers or verdicts its format has said what they are
        rows = rows.filter(pl.struct(PLACE).is_unique())
        repeated = rows.filter(pl.len().over(VERDICT_ON) > 1)
        if repeated.is_empty() or repeated.height < MIN_SHARE * rows.height:
            return passed(CODE)
        below = {name: _agreement(repeated, name) for name in cells.columns[len(PLACE) :]}
        name = min(below, key=lambda each: below[each], default="")
        if not name or below[name] > MAX_DEVIATIONS:
            return passed(CODE)
        column = self._columns[int(name.removeprefix("="))]
        return _issue(column, sorted(set(repeated[name])), repeated.height, len(self._cells))


def _as_name(value: Any) -> str | None:
    """A short text or a whole number, as text; null for all else."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not 0 < len(text := str(value)) <= MAX_CHARS:
        return None
    return text.encode("utf-8", "replace").decode()


def _agreement(rows: pl.DataFrame, column: str) -> float:
    """By how many deviations records on one text agree in it more often than records drawn at random; inf where it has gaps."""
    if rows[column].null_count():
        return np.inf
    counts = rows[column].value_counts()["count"].to_numpy()
    share = float((counts * (counts - 1)).sum()) / (rows.height * (rows.height - 1))
    agree, pairs = _pairs(rows, [*VERDICT_ON, column]), _pairs(rows, VERDICT_ON)
    return (agree - pairs * share) / max(float(np.sqrt(pairs * share * (1 - share))), 1e-9)


def _pairs(rows: pl.DataFrame, same: list[str]) -> float:
    sizes = rows.group_by(same).len()["len"].cast(pl.Float64)
    return float((sizes * (sizes - 1)).sum()) / 2


def _issue(column: str, values: list[str], rows: int, of: int) -> Finding:
    shown = ", ".join(repr(clip(value, 40)) for value in values[:4]) + (", ..." if len(values) > 4 else "")
    name = clip(column, 60)
    return issue(
        CODE,
        f"{rows:,} of the first {of:,} records share their text, and their rater if one is named, with another record and "
        f"differ from it in {name!r} ({shown}), which no setting names. If it says what was asked, these verdicts answer "
        f"different questions and are pooled like votes on one: read the records of one question alone. If it says who judged, "
        f"name it: rater: {name}.",
        rows,
    )

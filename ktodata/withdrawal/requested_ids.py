"""The file of ids that somebody hands in: a table with a column of ids, or a text file with one on each line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.errors import EmptyDataError, FormatError, MissingColumnError, SettingError
from ktodata.files import TABLES, read_table
from ktodata.formats.withdrawn import id_text

TEXT = (".txt", "")
NAMED = ("row_id", "source_id", "rater", "pair_id")  # columns of ids that every feedback table has


@dataclass(frozen=True)
class RequestedIds:
    """by : the column of the feedback table that they are ids of. values : each once. empty, repeated : lines that add none"""

    by: str
    values: tuple[str, ...]
    empty: int
    repeated: int


def read_requested(path: Path, by: str | None = None) -> RequestedIds:
    """The ids in a CSV, JSON lines, JSON or Parquet file, or in a text file of one a line.

    by : what they are ids of; None: what the table's only column of ids says. Raises FormatError, EmptyDataError, SettingError or
    MissingColumnError for a file that is gone, cannot be read, holds no id, or does not say what its ids are of.
    """
    if not path.is_file():
        raise FormatError(f"there is no file {path}: --rows is a file of ids.")
    if path.suffix.lower() in TEXT:
        if by is None:
            raise SettingError(f"{path} is a list without a heading: say what its ids are, e.g. --by {', --by '.join(NAMED)}.")
        lines: Sequence[Any] = _text_lines(path)
    else:
        table = read_table(path, as_text=True)
        by = by or _only_column(table, path)
        lines = _column(table, by, path)
    ids = [text for line in lines if (text := id_text(line))]
    values = tuple(dict.fromkeys(ids))
    if not values:
        raise EmptyDataError(f"{path} holds no id: {len(lines):,} lines, all of them empty.")
    return RequestedIds(by, values, len(lines) - len(ids), len(ids) - len(values))


def _text_lines(path: Path) -> list[str]:
    try:
        # no sign but a line's end parts two ids
        return path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path} is no text in UTF-8 (byte {error.start:,}). A table has the ending {', '.join(TABLES)}."
        ) from error


def _only_column(table: pl.DataFrame, path: Path) -> str:
    named = [name for name in NAMED if name in table.columns]
    names = named if named else table.columns if table.width == 1 else []
    if len(names) == 1:
        return names[0]
    many = f"has {' and '.join(names)}, and rows are withdrawn by one of them" if names else "has no column of that kind"
    raise SettingError(f"{path} {many}: say which, e.g. --by {names[0] if names else 'source_id'}; it has {_listed(table)}.")


def _column(table: pl.DataFrame, by: str, path: Path) -> Sequence[Any]:
    # the heading of a lone column may be another name for the same; in a CSV it may be the first id
    if by in table.columns or (table.width == 1 and ".csv" not in path.suffixes):
        return table[by if by in table.columns else table.columns[0]].to_list()
    no_heading = " A list without a heading has the ending .txt." if table.width == 1 else ""
    raise MissingColumnError(f"{path} has no column {by!r}; it has {_listed(table)}: name it so.{no_heading}")


def _listed(table: pl.DataFrame) -> str:
    return ", ".join(table.columns[:20])

"""A file of any kind without the records that hold one of some marks; where it has no records, whether it holds one."""

import bz2
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.files import read_parquet, whole_file

UNPACK = {".gz": gzip.decompress, ".bz2": bz2.decompress}
# what is no text may be packed: that no mark is there in the open says nothing
PLAIN = (".txt", ".md", ".html", ".htm", ".yaml", ".yml", ".tsv", ".xml", ".log", ".svg", ".ipynb", ".py", "")


@dataclass(frozen=True)
class Unmarked:
    """lost : records that go. content : the file without them; None: it goes whole"""

    lost: int
    content: bytes | pl.DataFrame | None = None


def without_marked(file: Path, marks: Sequence[str]) -> Unmarked | None:
    """None where nobody can tell what the file holds."""
    if not marks:
        return Unmarked(0)
    try:
        if file.suffix == ".parquet":
            return _table_without(read_parquet(file), marks)
        content = file.read_bytes()
        if packed := file.suffix in UNPACK:
            content = UNPACK[file.suffix](content)
        text = content.decode("utf-8")
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error, UnicodeDecodeError):
        return None
    unmarked = (_whole if packed else BY_ENDING.get(file.suffix, _whole))(text, marks)
    known = packed or file.suffix in BY_ENDING or file.suffix.lower() in PLAIN
    return unmarked if known or unmarked.lost else None


def write_content(file: Path, content: bytes | pl.DataFrame | None) -> None:
    """Put it in the file's place, or remove the file."""
    if content is None:
        file.unlink()
        return
    with whole_file(file) as scratch:
        if isinstance(content, pl.DataFrame):
            content.write_parquet(scratch)
        else:
            scratch.write_bytes(content)


def _whole(text: str, marks: Sequence[str]) -> Unmarked:
    return Unmarked(int(_held([text], marks)[0]))


def _held(texts: Sequence[str], marks: Sequence[str]) -> pl.Series:
    return pl.Series(texts, dtype=pl.String).str.contains_any(list(marks))


def _table_without(table: pl.DataFrame, marks: Sequence[str]) -> Unmarked:
    if not table.width:
        return Unmarked(0)
    held = _held([json.dumps(row, default=str, ensure_ascii=False) for row in table.iter_rows()], marks)
    return Unmarked(int(held.sum()), table.filter(~held))


def _lines_without(text: str, marks: Sequence[str]) -> Unmarked:
    lines = text.split("\n")
    held = _held(lines, marks)
    stays = [line for line, goes in zip(lines, held, strict=True) if not goes]
    return Unmarked(int(held.sum()), "\n".join(stays).encode())


def _cells_without(text: str, marks: Sequence[str]) -> Unmarked:
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error:
        return _whole(text, marks)
    held = _held(["\x1f".join(row) for row in rows], marks)
    stays = [row for place, (row, goes) in enumerate(zip(rows, held, strict=True)) if not goes or place == 0]
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(stays)
    return Unmarked(len(rows) - len(stays), out.getvalue().encode())


def _records_without(text: str, marks: Sequence[str]) -> Unmarked:
    """Of a list of records those that stay; any other JSON goes whole."""
    held = bool(_held([text], marks)[0])
    records: Any = None
    with suppress(ValueError, RecursionError):
        records = json.loads(text) if held else None
    if not isinstance(records, list):
        return Unmarked(int(held))
    goes = _held([json.dumps(record, ensure_ascii=False) for record in records], marks)
    stays = [record for record, gone in zip(records, goes, strict=True) if not gone]
    return Unmarked(len(records) - len(stays), json.dumps(stays, ensure_ascii=False, indent=1).encode())


BY_ENDING: dict[str, Callable[[str, Sequence[str]], Unmarked]] = {
    ".jsonl": _lines_without,
    ".ndjson": _lines_without,
    ".csv": _cells_without,
    ".json": _records_without,
}

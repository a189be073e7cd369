"""A file of any kind without the records that hold one of some marks; where it has no records, whether it holds one."""

import base64
import bz2
import csv
import gzip
import io
import json
import re
import shutil
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.files import read_parquet, whole_file
from ktodata.withdrawal.withdrawn_texts import Marks

UNPACK = {".gz": gzip.decompress, ".bz2": bz2.decompress}
# what is no text may be packed: that no mark is there in the open says nothing
PLAIN = (".txt", ".md", ".html", ".htm", ".yaml", ".yml", ".xml", ".log", ".svg", ".py", "")
PACKED = re.compile(r"H4sI[A-Za-z0-9+/=]+")  # gzip in base64


@dataclass(frozen=True)
class Unmarked:
    """lost : records that go. content : the file without them; None: it goes whole"""

    lost: int
    content: bytes | pl.DataFrame | None = None


def without_marked(file: Path, marks: Marks) -> Unmarked | None:
    """None where nobody can tell what the file holds."""
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
    # one with NUL is text in another encoding, if it is text
    known = is_legible(file) and "\0" not in text
    return unmarked if known or unmarked.lost else None


def is_legible(file: Path) -> bool:
    """Whether a file of that ending can be looked into."""
    return file.suffix == ".parquet" or file.suffix in (*BY_ENDING, *UNPACK) or file.suffix.lower() in PLAIN


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
        shutil.copymode(file, scratch)  # what only its owner may read stays so


def _whole(text: str, marks: Marks) -> Unmarked:
    return Unmarked(int(any(marks.held([text, *_packed_within(text)]))))


def _packed_within(page: str) -> list[str]:
    """What a page holds for its script: JSON, packed as report/map/payload.py does."""
    texts = []
    for packed in PACKED.findall(page):
        with suppress(ValueError, OSError, EOFError, zlib.error):
            texts.append(gzip.decompress(base64.b64decode(packed)).decode())
    return texts


def _table_without(table: pl.DataFrame, marks: Marks) -> Unmarked:
    held = pl.Series(marks.held_records(list(table.iter_rows(named=True))), dtype=pl.Boolean)
    return Unmarked(1) if any(marks.held(table.columns)) else Unmarked(int(held.sum()), table.filter(~held))


def _lines_without(text: str, marks: Marks) -> Unmarked:
    lines = text.split("\n")
    held = marks.held_records([_json_or_text(line) for line in lines])
    stays = [line for line, goes in zip(lines, held, strict=True) if not goes]
    return Unmarked(sum(held), "\n".join(stays).encode())


def _cells_without(text: str, marks: Marks) -> Unmarked:
    heading = text.partition("\n")[0]
    delimiter = max(",;\t", key=heading.count)
    try:
        names, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    except (csv.Error, ValueError):
        return _whole(text, marks)
    held = marks.held_records([dict(zip(names, row, strict=False)) | {"": row} for row in rows])
    stays = [row for row, goes in zip(rows, held, strict=True) if not goes]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows([names, *stays])
    return Unmarked(1) if any(marks.held(names)) else Unmarked(sum(held), out.getvalue().encode())


def _records_without(text: str, marks: Marks) -> Unmarked:
    """Of a list of records those that stay; any other JSON goes whole."""
    records = _json_or_text(text)
    if not isinstance(records, list):
        return Unmarked(sum(marks.held_records([records])))
    held = marks.held_records(records)
    stays = [record for record, goes in zip(records, held, strict=True) if not goes]
    return Unmarked(sum(held), json.dumps(stays, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace"))


def _json_or_text(text: str) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return text


BY_ENDING: dict[str, Callable[[str, Marks], Unmarked]] = {
    ".jsonl": _lines_without,
    ".ndjson": _lines_without,
    ".csv": _cells_without,
    ".tsv": _cells_without,
    ".json": _records_without,
    ".ipynb": _records_without,
}

"""Writing feedback in a format, and saying what that format could not hold."""

import contextlib
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import polars as pl

from ktodata.errors import DataError, EmptyDataError, FormatError, SettingError
from ktodata.feedback import COLUMNS, TEMPLATE_FIELDS, check_columns, one_turn
from ktodata.files import check_no_run_file, whole_file
from ktodata.formats.data_files import FileKind, find_sources, kind_of
from ktodata.formats.dialects import format_named
from ktodata.formats.format import Format
from ktodata.formats.reading import IngestResult, read
from ktodata.formats.records import CannotHoldError
from ktodata.formats.turns import is_plain

NEEDS = ("row_id", "prompt", "completion", "label")
CHUNK_ROWS = 10_000
# these say where a row was found, which a new file cannot and need not repeat
PLACES = ("row_id", "source", "source_line")


class Written(NamedTuple):
    """How many rows went into how many records, and what was lost on the way, each loss as a sentence."""

    rows: int
    records: int
    lost: tuple[str, ...]


def write(feedback: pl.DataFrame, path: str | Path, *, format: str = "trl") -> Written:
    """Write a feedback table in a format; the name of `path` says how: .jsonl, .json, .csv, .parquet, text also .gz or .zst.

    A row that the format cannot say truly is left out, and a column that it has no place for is not written; both are in `lost`.
    The file appears whole or not at all. Raises EmptyDataError when no row can be written, RunError for a place of a run's own
    files.
    """
    target_format, target = format_named(format), Path(path)
    check_no_run_file(target)
    check_columns(feedback, NEEDS, who="write")
    kind = kind_of(str(target))
    if target_format.group is not None and feedback[target_format.group].null_count() == feedback.height:
        raise DataError(
            f"format {format!r} writes pairs, and no row has a {target_format.group}. Write another format, e.g. trl."
        )
    records = _Records(target_format, _complete(feedback))
    if not target.parent.is_dir():
        raise FormatError(f"there is no folder {str(target.parent)!r} to write {target.name!r} into.")
    with whole_file(target) as scratch:
        _write_records(records, scratch, kind, target.suffix)
        if records.written == 0:
            raise EmptyDataError(
                f"none of {feedback.height:,} rows can be written as {format!r}: {'; '.join(records.lost(feedback))}."
            )
    return Written(records.rows, records.written, records.lost(feedback))


def convert(
    source: str | Path, target: str | Path, *, from_: str = "auto", to: str = "trl", **settings: Any
) -> tuple[IngestResult, Written]:
    """Read `source` (see `read` for the settings) and write `target`. Raises SettingError where it is the file that is read."""
    if any(Path(each.path).resolve() == Path(target).resolve() for each in find_sources(source)):
        raise SettingError(f"convert: {target} is the file that is read, and would be overwritten; write to another.")
    result = read(source, format=from_, **settings)
    return result, write(result.feedback, target, format=to)


def _complete(feedback: pl.DataFrame) -> pl.DataFrame:
    """With every feedback column; and all turns, where one row has them: nobody reads a column that holds text and lists."""
    missing = [pl.lit(None, dtype=column.dtype).alias(name) for name, column in COLUMNS.items() if name not in feedback.columns]
    table = feedback.with_columns(missing)
    only_vote = pl.concat_list(pl.struct("rater", "label", "created_at"))
    table = table.with_columns(votes=pl.col("votes").fill_null(only_vote.cast(COLUMNS["votes"].dtype)))
    if table["turns"].null_count() == table.height and table["answer"].null_count() == table.height:
        return table
    return table.with_columns(turns=pl.col("turns").fill_null(one_turn("user", pl.col("prompt"))))


class _Records:
    """The records of a table, made as they are asked for; counts what was written and what was left out."""

    def __init__(self, format: Format, table: pl.DataFrame) -> None:
        self._format = format
        self._table = table
        self._left_out: Counter[str] = Counter()
        self.rows = 0
        self.written = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for rows in _record_rows(self._table, self._format.group):
            try:
                self._check_can_hold(rows)
                record = self._format.write(rows) | {name: rows[0][name] for name in TEMPLATE_FIELDS if self._may_be_given(name)}
            except CannotHoldError as reason:
                self._left_out[str(reason)] += len(rows)
                continue
            self.rows += len(rows)
            self.written += 1
            yield record

    def _check_can_hold(self, rows: list[dict[str, Any]]) -> None:
        """Raises CannotHoldError for a row whose calls or reasoning a format of texts would write as if they were text."""
        turns = [turn for row in rows for turn in [*(row["turns"] or ()), *([row["answer"]] if row["answer"] else [])]]
        if "answer" not in self._format.holds and not all(map(is_plain, turns)):
            raise CannotHoldError("tool calls and reasoning have no place in it")

    def _may_be_given(self, name: str) -> bool:
        """Whether the records have the field: all of them, where one row has a value."""
        return name in self._format.holds and self._table[name].null_count() < self._table.height

    def lost(self, feedback: pl.DataFrame) -> tuple[str, ...]:
        """What the file does not hold, in sentences."""
        left_out = [f"{count:,} rows are left out: {reason}" for reason, count in self._left_out.most_common()]
        unheld = [name for name in feedback.columns if name not in (*self._format.holds, *PLACES)]
        counts = {name: _worth_keeping(feedback, name) for name in unheld}
        columns = [f"{name} ({count:,} rows)" for name, count in counts.items() if count]
        return (*left_out, *([f"{self._format.name} has no place for {', '.join(columns)}"] if columns else []))


def _worth_keeping(feedback: pl.DataFrame, name: str) -> int:
    if name == "votes":  # a single vote only repeats the label, rater and time
        return int((feedback["votes"].list.len() > 1).sum())
    return feedback.height - feedback[name].null_count()


def _record_rows(table: pl.DataFrame, group: str | None) -> Iterator[list[dict[str, Any]]]:
    """The rows of each record: single ones, or those that share `group`, which stand where the first of them stood."""
    if group is None:
        yield from ([row] for row in _iter_rows(table))
        return
    table = table.with_row_index("_place")
    # a row without a group is a group of its own, not one with all others that have none
    name = pl.coalesce(group, pl.format("\0{}", "_place"))
    ordered = table.with_columns(_first=pl.col("_place").min().over(name)).sort("_first", "_place")
    for _, rows in groupby(_iter_rows(ordered), key=lambda row: row["_first"]):
        yield list(rows)


def _iter_rows(table: pl.DataFrame) -> Iterator[dict[str, Any]]:
    for chunk in table.iter_slices(CHUNK_ROWS):
        yield from chunk.iter_rows(named=True)


def _write_records(records: Iterable[dict[str, Any]], path: Path, kind: FileKind, packing: str) -> None:
    if kind == "parquet":
        _write_parquet(records, path)
        return
    with _open_packed(path, packing) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        try:
            {"lines": _write_lines, "json": _write_json, "csv": _write_csv}[kind](records, text)
        finally:
            text.detach()  # flushes, and leaves the file open for what packs it to end it


@contextlib.contextmanager
def _open_packed(path: Path, packing: str) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        if packing == ".gz":
            # no time stamp and no name inside: the same rows give the same bytes
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                yield cast(BinaryIO, packed)
        elif packing == ".zst":
            import zstandard

            with zstandard.ZstdCompressor(write_checksum=True).stream_writer(file, closefd=False) as packed:
                yield cast(BinaryIO, packed)
        else:
            yield file


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write_lines(records: Iterable[dict[str, Any]], file: io.TextIOBase) -> None:
    for record in records:
        file.write(_dump(record) + "\n")


def _write_json(records: Iterable[dict[str, Any]], file: io.TextIOBase) -> None:
    file.write("[")
    for number, record in enumerate(records):
        file.write((",\n" if number else "\n") + _dump(record))
    file.write("\n]\n")


def _write_csv(records: Iterable[dict[str, Any]], file: io.TextIOBase) -> None:
    import csv

    writer = None
    for record in records:
        if nested := [name for name, value in record.items() if isinstance(value, list | dict)]:
            raise FormatError(f"CSV cannot hold {', '.join(nested)}: a list or an object. Write .jsonl or .parquet.")
        if writer is None:
            writer = csv.DictWriter(file, list(record), lineterminator="\n")
            writer.writeheader()
        writer.writerow({name: _dump(value) if isinstance(value, bool) else value for name, value in record.items()})


def _write_parquet(records: Iterable[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if rows := list(records):
        pq.write_table(pa.Table.from_pylist(rows), path)

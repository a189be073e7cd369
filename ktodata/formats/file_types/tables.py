"""Parquet, Arrow, databases and workbooks as records, by the libraries that define them."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ktodata.errors import EmptyDataError, FormatError, SettingError
from ktodata.extras import require
from ktodata.formats.file_types.csv_files import unique_names
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.records import clip

BATCH_ROWS = 4096
Tables = Mapping[str, int | None]
MAX_NAMED = 8


def chosen_table(tables: Tables, wanted: str | None, name: str, what: str = "tables") -> str:
    """The table to read: the one that is named, or the only one with rows. Raises SettingError with the tables that there are."""
    listing = table_listing(tables)
    if wanted is not None:
        if wanted not in tables:
            close = get_close_matches(wanted, tables, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise SettingError(f"{name!r} has no {what[:-1]} {wanted!r}.{hint} Its {what}: {listing or 'none'}.")
        return wanted
    filled = [table for table, rows in tables.items() if rows != 0]
    if not filled:
        raise EmptyDataError(f"{name!r} holds no records. Its {what}: {listing or 'none'}.")
    if len(filled) > 1:
        raise SettingError(f"{name!r} holds several {what}: {listing}. Say which to read, e.g. table: {filled[0]}.")
    return filled[0]


def table_listing(tables: Tables) -> str:
    """The first tables with their rows, for people."""
    counts = [f"{clip(table, 40)} ({_row_count(rows)})" for table, rows in list(tables.items())[:MAX_NAMED]]
    return ", ".join(counts) + (f" and {len(tables) - MAX_NAMED} more" if len(tables) > MAX_NAMED else "")


def _row_count(rows: int | None) -> str:
    return "rows not counted" if rows is None else f"{rows:,} row{'' if rows == 1 else 's'}"


# --- Parquet and Arrow -------------------------------------------------------------------------------------------------


def parquet_records(path: str, name: str) -> Iterator[SourceRecord]:
    """The rows of a Parquet file."""
    import pyarrow.parquet as pq

    def batches() -> Iterator[Any]:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(BATCH_ROWS)

    return batch_records(batches, name, "Parquet")


def arrow_records(path: str, name: str, kind: str) -> Iterator[SourceRecord]:
    """The rows of an Arrow stream, an Arrow file (Feather 2 is one) or a Feather 1 file."""
    import pyarrow as pa
    from pyarrow import feather

    def batches() -> Iterator[Any]:
        if kind == "feather":
            yield from feather.read_table(path).to_batches(BATCH_ROWS)
            return
        with pa.memory_map(path) as source:
            if kind == "arrow_stream":
                yield from pa.ipc.open_stream(source)
            else:
                reader = pa.ipc.open_file(source)
                yield from (reader.get_batch(number) for number in range(reader.num_record_batches))

    return batch_records(batches, name, "Arrow")


def batch_records(batches: Callable[[], Iterator[Any]], name: str, kind: str) -> Iterator[SourceRecord]:
    import pyarrow as pa

    number = 0
    try:
        for batch in batches():
            for start in range(0, batch.num_rows, BATCH_ROWS):
                for record in _records(batch.slice(start, BATCH_ROWS)):
                    number += 1
                    yield SourceRecord(number, record)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{name!r} cannot be read as {kind} after record {number:,}: {clip(str(error), 200)}.") from error


def _records(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of a batch, as its `to_pylist` gives them, in half the time where columns are texts or numbers."""
    values = zip(*(_values(column) for column in batch.columns), strict=True)
    names = unique_names(batch.schema.names)
    return (dict(zip(names, row, strict=True)) for row in values) if names else iter([{}] * batch.num_rows)


def _values(column: Any) -> Sequence[Any]:
    import polars as pl
    import pyarrow.types as kinds

    simple = (kinds.is_string, kinds.is_large_string, kinds.is_boolean, kinds.is_int64, kinds.is_float64)
    values: list[Any] = (pl.Series(column).to_list if any(is_kind(column.type) for is_kind in simple) else column.to_pylist)()
    return values


# --- databases ---------------------------------------------------------------------------------------------------------


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _sqlite(path: str) -> sqlite3.Connection:
    # read only, never changed by a look at it; a log of writes not yet in the file itself is read where there is one
    has_log = Path(f"{path}-wal").exists()
    connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro{'' if has_log else '&immutable=1'}", uri=True)
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    return connection


def sqlite_tables(path: str, name: str) -> Tables:
    """Rows of each table; views are not counted."""
    try:
        with closing(_sqlite(path)) as connection:
            master = "select name, type from sqlite_master where type in ('table', 'view') and name not like 'sqlite_%'"
            return {
                table: connection.execute(f"select count(*) from {_quoted(table)}").fetchone()[0] if kind == "table" else None
                for table, kind in connection.execute(master).fetchall()
            }
    except sqlite3.Error as error:
        raise _not_readable(name, "a SQLite database", error) from error


def sqlite_records(path: str, name: str, table: str | None) -> Iterator[SourceRecord]:
    """The rows of a table of a SQLite database."""
    chosen = _chosen_of_database(sqlite_tables(path, name), table, name)
    try:
        with closing(_sqlite(path)) as connection:
            cursor = connection.execute(f"select * from {_quoted(chosen)}")
            names = [column[0] for column in cursor.description]
            for number, row in enumerate(cursor, start=1):
                yield SourceRecord(number, dict(zip(names, row, strict=True)))
    except sqlite3.Error as error:
        raise _not_readable(name, "a SQLite database", error) from error


def _chosen_of_database(tables: Tables, wanted: str | None, name: str) -> str:
    """A view is only read when it is named: it shows rows that stand in a table already."""
    counted = {table: rows for table, rows in tables.items() if rows is not None}
    return chosen_table(tables if wanted is not None or not counted else counted, wanted, name)


def _duckdb(path: str) -> Any:
    require("duckdb", what="reading a DuckDB database", extra="duckdb")
    import duckdb

    return duckdb.connect(path, read_only=True, config={"enable_external_access": "false"})


def duckdb_tables(path: str, name: str) -> Tables:
    """Rows of each table; views are not counted."""
    require("duckdb", what="reading a DuckDB database", extra="duckdb")
    import duckdb

    listing = "select table_schema, table_name, table_type from information_schema.tables order by 1, 2"
    try:
        with closing(_duckdb(path)) as connection:
            return {
                table if schema == "main" else f"{schema}.{table}": connection.execute(
                    f"select count(*) from {_quoted(schema)}.{_quoted(table)}"
                ).fetchone()[0]
                if kind == "BASE TABLE"
                else None
                for schema, table, kind in connection.execute(listing).fetchall()
            }
    except duckdb.Error as error:
        raise _not_readable(name, "a DuckDB database", error) from error


def duckdb_records(path: str, name: str, table: str | None) -> Iterator[SourceRecord]:
    """The rows of a table of a DuckDB database."""
    chosen = _chosen_of_database(duckdb_tables(path, name), table, name)
    import duckdb

    schema, _, short = chosen.rpartition(".")
    try:
        with closing(_duckdb(path)) as connection:
            cursor = connection.execute(f"select * from {_quoted(schema or 'main')}.{_quoted(short)}")
            names = [column[0] for column in cursor.description]
            number = 0
            while rows := cursor.fetchmany(BATCH_ROWS):
                for row in rows:
                    number += 1
                    yield SourceRecord(number, dict(zip(names, row, strict=True)))
    except duckdb.Error as error:
        raise _not_readable(name, "a DuckDB database", error) from error


def _not_readable(name: str, what: str, error: Exception) -> FormatError:
    return FormatError(f"{name!r} cannot be read as {what}: {clip(str(error), 200)}.")


# --- workbooks ---------------------------------------------------------------------------------------------------------


def _workbook(path: str, name: str) -> Any:
    require("openpyxl", what="reading an Excel workbook", extra="excel")
    import openpyxl

    try:
        return openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # what the library raises for a damaged file is whatever its parser met
        raise _not_readable(name, "an Excel workbook", error) from error


def excel_sheets(path: str, name: str) -> Tables:
    """Rows of each sheet under its column names."""
    with closing(_workbook(path, name)) as book:
        return {sheet.title: max(sum(1 for _ in _filled_rows(sheet)) - 1, 0) for sheet in book.worksheets}


def excel_records(path: str, name: str, table: str | None) -> Iterator[SourceRecord]:
    """The rows of a sheet under the names in its first row that is not empty; numbered as the workbook does."""
    chosen = chosen_table(excel_sheets(path, name), table, name, "sheets")
    with closing(_workbook(path, name)) as book:
        rows = _filled_rows(book[chosen])
        _, header = next(rows)
        given = ["" if value is None else str(value) for value in header]
        names = [unique if name else "" for unique, name in zip(unique_names(given), given, strict=True)]
        for number, row in rows:
            yield SourceRecord(number, _named_cells(names, row))


def _filled_rows(sheet: Any) -> Iterator[tuple[int, Sequence[Any]]]:
    rows = enumerate(sheet.iter_rows(values_only=True), start=1)
    return ((number, row) for number, row in rows if any(value is not None for value in row))


def _named_cells(names: list[str], row: Sequence[Any]) -> dict[str, Any]:
    """Cells beside the named columns are kept under their number where there is something in them."""
    record: dict[str, Any] = {name: None for name in names if name}
    for at, value in enumerate(row):
        name = names[at] if at < len(names) else ""
        if name or value is not None:
            record[name or f"column {at + 1}"] = value
    return record

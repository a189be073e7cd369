"""Any file as records, each with its line or number; what is wrong with one record is with it, a broken file raises.

Reading is streaming: one line, one row, one batch or one value of a document is in memory at a time.
"""

from collections.abc import Callable, Iterator

from ktodata.errors import EmptyDataError, SettingError
from ktodata.formats.data_files import Source
from ktodata.formats.file_types.byte_streams import damaged, open_as_utf8
from ktodata.formats.file_types.csv_files import csv_records
from ktodata.formats.file_types.file_settings import FileSettings
from ktodata.formats.file_types.file_shape import KIND_NAMES, FileShape, file_shape
from ktodata.formats.file_types.json_files import JsonStream, array_records, column_records, json_lines, object_records
from ktodata.formats.file_types.lakes import lake_records
from ktodata.formats.file_types.saved_data import dataset_records, hub_dataset, saved_dataset
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.file_types.tables import (
    arrow_records,
    duckdb_records,
    excel_records,
    parquet_records,
    sqlite_records,
)

ONE_TABLE = ("json_lines", "csv", "parquet", "arrow_file", "arrow_stream", "feather", "delta", "iceberg", "lance")


def read_records(source: Source, settings: FileSettings | None = None, shape: FileShape | None = None) -> Iterator[SourceRecord]:
    """Every record of a source. Raises EmptyDataError when there is none, FormatError when the file is damaged."""
    settings = settings or FileSettings()
    shape = shape or file_shape(source, settings)
    if settings.table is not None and shape.kind in ONE_TABLE:
        raise SettingError(f"table: {source.name!r} is {KIND_NAMES[shape.kind]}, which holds one table; leave table out.")
    count = 0
    try:
        for record in _records_of(source, settings, shape):
            count += 1
            yield record
    except OSError as error:
        raise damaged(source.name, f"record {count:,}", error) from error
    if count == 0:
        raise EmptyDataError(f"{source.name!r} holds no records.")


def _records_of(source: Source, settings: FileSettings, shape: FileShape) -> Iterator[SourceRecord]:
    path, name, table = source.path, source.name, settings.table
    readers: dict[str, Callable[[], Iterator[SourceRecord]]] = {
        "parquet": lambda: parquet_records(path, name),
        "sqlite": lambda: sqlite_records(path, name, table),
        "duckdb": lambda: duckdb_records(path, name, table),
        "excel": lambda: excel_records(path, name, table),
        "saved_dataset": lambda: dataset_records(saved_dataset(source), settings, name),
        "hub": lambda: dataset_records(hub_dataset(source), settings, name),
    }
    if shape.kind in ("delta", "iceberg", "lance"):
        return lake_records(path, name, shape.kind)
    if shape.kind in ("arrow_file", "arrow_stream", "feather"):
        return arrow_records(path, name, shape.kind)
    return readers.get(shape.kind, lambda: _text_records(source, settings, shape))()


def _text_records(source: Source, settings: FileSettings, shape: FileShape) -> Iterator[SourceRecord]:
    max_bytes = settings.max_record_bytes
    with open_as_utf8(source.path, shape.encoding or "utf-8") as file:
        if shape.kind == "json_lines":
            yield from json_lines(file, source.name, max_bytes)
        elif shape.kind == "csv":
            delimiter = shape.delimiter or ","
            yield from csv_records(file, source.name, delimiter, max_bytes, has_sep_line=shape.has_sep_line)
        else:
            stream = JsonStream(file, source.name, max_bytes)
            if shape.kind == "json_array":
                yield from array_records(stream, shape.wrapped_in)
            else:
                yield from (column_records if shape.kind == "json_columns" else object_records)(stream)

"""Feedback that is in memory already, as records: a polars or pandas frame, a list of dicts, a Hugging Face data set."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ktodata.errors import SettingError
from ktodata.formats.file_types.csv_files import unique_names
from ktodata.formats.file_types.file_settings import FileSettings
from ktodata.formats.file_types.json_files import as_object
from ktodata.formats.file_types.saved_data import dataset_records
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.records import UnusableError, clip, kind, listed

NAME = "in memory"  # what the source of the rows is called


def records_in_memory(data: Any, settings: FileSettings) -> Iterator[SourceRecord] | None:
    """The records of `data`, numbered from 1; None where it is a path, or a list of paths. SettingError for what holds none."""
    if isinstance(data, str | Path) or (isinstance(data, Sequence) and not any(isinstance(item, Mapping) for item in data)):
        return None
    if isinstance(data, pl.LazyFrame):
        data = data.collect()
    if not hasattr(data, "__iter__"):
        held = "a path, a polars or pandas frame, a list of dicts or a datasets.Dataset"
        raise SettingError(f"records are in {held}; got {kind(data)}.")
    if isinstance(data, pl.DataFrame):
        return (SourceRecord(number, record) for number, record in enumerate(data.iter_rows(named=True), start=1))
    if hasattr(data, "to_dict") and hasattr(data, "iloc"):  # pandas, which is no dependency
        data = data if data.columns.is_unique else data.set_axis(unique_names(list(map(str, data.columns))), axis=1)
        return _numbered({key: _present(value) for key, value in record.items()} for record in data.to_dict("records"))
    if hasattr(data, "features") or (isinstance(data, Mapping) and all(hasattr(part, "features") for part in data.values())):
        return dataset_records(data, settings, NAME)
    if isinstance(data, Mapping):
        raise SettingError(f"what was given is one object with {listed([str(key) for key in data])}: give a list of records.")
    return _numbered(data)


def frame_in_memory(data: Any, *, who: str) -> pl.DataFrame:
    """A frame of what `records_in_memory` takes. Raises SettingError for anything else, and for columns of several types."""
    if isinstance(data, pl.DataFrame):
        return data
    records = records_in_memory(data, FileSettings()) if hasattr(data, "__iter__") else None
    if records is None:
        raise SettingError(f"{who} takes a polars or pandas frame, or a list of dicts; got {type(data).__name__}.")
    try:
        return pl.DataFrame([entry.record for entry in records], infer_schema_length=None)
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise SettingError(f"{who}: a column holds values of several types ({clip(str(error), 80)}).") from None


def _present(value: Any) -> Any:
    """A value of a pandas frame; what it has for a missing one (NaN, NaT, NA) is None."""
    is_missing = (isinstance(value, float) and value != value) or type(value).__name__ in ("NaTType", "NAType")  # noqa: PLR0124
    return None if is_missing else value


def _numbered(records: Any) -> Iterator[SourceRecord]:
    return (_record(number, record) for number, record in enumerate(records, start=1))


def _record(number: int, record: Any) -> SourceRecord:
    """A record, or what is wrong with it that no file can hold: another thing than an object, a key that is no text."""
    try:
        return as_object(number, _python_value(record), repr(record) if not isinstance(record, Mapping) else None)
    except UnusableError as problem:
        return SourceRecord(number, problem=problem, raw=repr(record))
    except RecursionError:
        return SourceRecord(number, problem=UnusableError("malformed_json", "its values are nested too deep"), raw="")


def _python_value(value: Any) -> Any:
    """Lists and numbers for numpy's, as pandas reads them from Parquet. Raises UnusableError for a key that is no text."""
    if isinstance(value, str):
        return value
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        if others := [key for key in value if not isinstance(key, str)]:
            raise UnusableError("key_not_text", f"the key {clip(others[0], 40)} is {kind(others[0])}, not text")
        return {key: _python_value(inner) for key, inner in value.items()}
    return [_python_value(inner) for inner in value] if isinstance(value, list | tuple) else value

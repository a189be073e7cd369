"""Feedback that is in memory already, as records: a polars or pandas frame, a list of dicts, a Hugging Face data set."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.formats.file_types.file_settings import FileSettings
from ktodata.formats.file_types.saved_data import dataset_records
from ktodata.formats.file_types.source_record import SourceRecord

NAME = "in memory"  # what the source of the rows is called


def records_in_memory(data: Any, settings: FileSettings) -> Iterator[SourceRecord] | None:
    """The records of `data`, numbered from 1; None where it is a path, or a list of paths."""
    if isinstance(data, str | Path) or (isinstance(data, Sequence) and not any(isinstance(item, Mapping) for item in data)):
        return None
    if isinstance(data, pl.LazyFrame):
        data = data.collect()
    if isinstance(data, pl.DataFrame):
        return _numbered(data.iter_rows(named=True))
    if hasattr(data, "to_dict") and hasattr(data, "iloc"):  # pandas, which is no dependency; its missing values are NaN
        return _numbered({key: _value(value) for key, value in record.items()} for record in data.to_dict("records"))
    if hasattr(data, "features") or (isinstance(data, Mapping) and all(hasattr(part, "features") for part in data.values())):
        return dataset_records(data, settings, NAME)
    return _numbered(data)


def _value(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124  NaN is not itself


def _numbered(records: Any) -> Iterator[SourceRecord]:
    return (SourceRecord(number, dict(record)) for number, record in enumerate(records, start=1))

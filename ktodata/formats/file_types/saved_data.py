"""Data sets of the `datasets` library: folders that it saved, and ids on the hub."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ktodata.errors import FormatError, MissingExtraError
from ktodata.formats.data_files import Source
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.file_types.tables import chosen_table
from ktodata.formats.records import clip


def saved_dataset(source: Source) -> Any:
    """A saved data set, or a mapping of its splits."""
    return _load_by_library(_library().load_from_disk, source, f"{source.name!r} cannot be read as a saved data set")


def hub_dataset(source: Source) -> Any:
    """A data set of the hub, or a mapping of its splits."""
    failure = f"{source.path!r} is no file here, and as a data set on the hub it cannot be read"
    return _load_by_library(_library().load_dataset, source, failure)


def split_sizes(dataset: Any) -> dict[str, int | None]:
    """Rows of each split; nothing for a data set without splits."""
    return {name: len(dataset[name]) for name in dataset} if isinstance(dataset, Mapping) else {}


def dataset_records(dataset: Any, split: str | None, name: str) -> Iterator[SourceRecord]:
    """The records of one split, or of all."""
    sizes = split_sizes(dataset)
    if split is not None:
        chosen = dataset[chosen_table(sizes, split, name, "splits")] if sizes else dataset
        parts = [chosen]
    else:
        parts = [dataset[part] for part in sizes] if sizes else [dataset]
    records = (record for part in parts for record in part)
    yield from (SourceRecord(number, record) for number, record in enumerate(records, start=1))


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("reading a Hugging Face data set needs datasets: pip install 'ktodata[hub]'") from error
    return datasets


def _load_by_library(load: Callable[[str], Any], source: Source, failure: str) -> Any:
    try:
        return load(source.path)
    except Exception as error:  # the library raises a dozen kinds, most of them private
        raise FormatError(f"{failure}: {clip(str(error), 200)}") from error

"""Data sets of the `datasets` library: folders that it saved, and ids on the hub."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ktodata.errors import FormatError, MissingExtraError, SettingError
from ktodata.formats.data_files import Source
from ktodata.formats.file_types.file_settings import FileSettings
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


def dataset_records(dataset: Any, settings: FileSettings, name: str) -> Iterator[SourceRecord]:
    """The records of one part, or of all, each with its part's name. Raises SettingError for parts that nobody has spoken of."""
    sizes = split_sizes(dataset)
    if not sizes:
        yield from (SourceRecord(number, record) for number, record in enumerate(dataset, start=1))
        return
    names = list(sizes) if settings.table is None else [chosen_table(sizes, settings.table, name, "splits")]
    if settings.ask_parts and len(names) > 1:
        raise unasked_parts(repr(name), sizes)
    records = ((record, part) for part in names for record in dataset[part])
    yield from (SourceRecord(number, record, part=part) for number, (record, part) in enumerate(records, start=1))


def parts_in_words(sizes: Mapping[str, int | None]) -> str:
    """The names of parts with their rows."""
    return ", ".join(f"{clip(part, 30)} ({'?' if size is None else format(size, ',')})" for part, size in sizes.items())


def unasked_parts(what: str, sizes: Mapping[str, int | None]) -> SettingError:
    """Which parts there are, and what may be done with them."""
    return SettingError(
        f"{what} has several parts: {parts_in_words(sizes)}. Keep them with the step `- split: {{given: true}}` (in Python "
        "join_parts=False), or read them as one with ingest: {join_parts: true}; table: names the only one to read."
    )


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

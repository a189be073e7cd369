"""Tables of a lake (Delta, Iceberg, Lance), by their own readers: folders whose notes say which data files hold the present rows.

The notes of Delta and Iceberg may name any file of a machine. Only data files below the table's own folder are read.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from ktodata.errors import FormatError
from ktodata.extras import require
from ktodata.formats.data_files import Lake
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.file_types.tables import BATCH_ROWS, batch_records
from ktodata.formats.records import clip

MODULES: dict[Lake, str] = {"delta": "deltalake", "iceberg": "pyiceberg", "lance": "lance"}


def lake_records(path: str, name: str, lake: Lake) -> Iterator[SourceRecord]:
    """The rows of the table's newest version. Raises FormatError where it cannot be read, or names data elsewhere."""
    require(MODULES[lake], what=f"reading a {lake.capitalize()} table", extra="lakes")
    read = {"delta": _delta_batches, "iceberg": _iceberg_batches, "lance": _lance_batches}[lake]

    def batches() -> Iterator[Any]:
        try:
            yield from read(Path(path), name)
        except (FormatError, OSError, MemoryError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # dozens of kinds, most of them private; what panics in Rust is not even an Exception
            raise FormatError(f"{name!r} cannot be read as a {lake.capitalize()} table: {clip(str(error), 200)}") from error

    return batch_records(batches, name, lake.capitalize())


def _delta_batches(path: Path, name: str) -> Iterator[Any]:
    from deltalake import DeltaTable

    table = DeltaTable(path.resolve().as_uri())  # a path as it stands is taken for a URL, signs and all
    _check_inside(path, name, map(unquote, table.file_uris()))
    yield from table.to_pyarrow_dataset().to_batches(batch_size=BATCH_ROWS)


def _iceberg_batches(path: Path, name: str) -> Iterator[Any]:
    from pyiceberg.table import StaticTable

    # "3-<uuid>.metadata.json" or "v3.metadata.json": the number is the version
    notes = sorted((path / "metadata").glob("*.metadata.json"), key=_version_of)
    scan = StaticTable.from_metadata(str(notes[-1])).scan()
    tasks = list(scan.plan_files())
    _check_inside(path, name, [file.file_path for task in tasks for file in (task.file, *task.delete_files)])
    yield from scan.to_arrow_batch_reader()


def _lance_batches(path: Path, _name: str) -> Iterator[Any]:
    import lance

    yield from lance.dataset(path).to_batches(batch_size=BATCH_ROWS)


def _version_of(note: Path) -> tuple[int, str]:
    number = note.name.split("-")[0].split(".")[0].lstrip("v")
    return int(number) if number.isascii() and number.isdigit() else -1, note.name


def _check_inside(folder: Path, name: str, files: Iterable[str]) -> None:
    """Raise FormatError where a data file is not below the folder, links followed."""
    for file in files:
        url = urlparse(file)
        place = Path(file.removeprefix("file://"))
        if url.scheme not in ("", "file") or not place.resolve().is_relative_to(folder.resolve()):
            raise FormatError(
                f"{name!r} names the data file {clip(file)!r}, which is not in its folder; nothing elsewhere is read. "
                "A table that was moved names its old place: write it anew where it is."
            )

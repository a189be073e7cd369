"""Files as records, one after the other, each with its line; what is wrong with one is said beside it, a broken file raises.

Reading is streaming: one line (JSON lines), one record (CSV) or one batch (Parquet, data sets) is in memory at a time. A .json
file is the exception, it is parsed whole.
"""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ktodata.errors import EmptyDataError, FormatError, MissingExtraError
from ktodata.formats.data_files import FileKind, Source
from ktodata.formats.records import UnusableError, clip, kind

BUFFER_BYTES = 1 << 20
BATCH_ROWS = 1024
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class SourceRecord:
    """One record, or what is wrong with it. `raw` is its text as it stands in the file; None: the file has no text for it."""

    line: int
    record: Any = None
    problem: UnusableError | None = None
    raw: bytes | str | None = None


def read_records(source: Source) -> Iterator[SourceRecord]:
    """Every record of a source. Raises EmptyDataError when there is none, FormatError when the file is damaged."""
    count = 0
    for record in _READERS[source.kind](source):
        count += 1
        yield record
    if count == 0:
        raise EmptyDataError(f"{source.name!r} holds no records.")


def _open_unpacked(source: Source) -> BinaryIO:
    """The bytes of a file, unpacked where its first bytes say that it is packed, whatever its name says."""
    import pyarrow as pa

    try:
        with Path(source.path).open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise FormatError(f"{source.path!r} cannot be opened: {error.strerror}.") from error
    packing = next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)
    # Arrow's streams raise on a truncated gzip or zstd stream; zstandard's own reader takes it for the end of the file
    stream = pa.input_stream(source.path, compression=packing, buffer_size=BUFFER_BYTES)
    return cast(BinaryIO, io.BufferedReader(stream, BUFFER_BYTES))


def _unbroken(lines: Iterable[Any], source: Source) -> Iterator[Any]:
    """`lines`, with a damaged file named along with the line of the damage."""
    count = 0
    try:
        for line in lines:
            count += 1
            yield line
    except OSError as error:
        raise FormatError(
            f"{source.name!r} is damaged or cut off after line {count:,}: {clip(str(error))}. "
            "Nothing of it is used; fetch the file again."
        ) from error


def _read_lines(source: Source) -> Iterator[SourceRecord]:
    with _open_unpacked(source) as file:
        for number, line in enumerate(_unbroken(file, source), start=1):
            raw = line.removeprefix(BOM) if number == 1 else line
            if not raw.isspace() and raw:
                yield _parse_line(number, raw)


def _parse_line(number: int, raw: bytes) -> SourceRecord:
    try:
        record = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        return SourceRecord(
            number, problem=UnusableError("invalid_utf8", f"byte {error.start + 1:,} of the line is not UTF-8"), raw=raw
        )
    except RecursionError:
        return SourceRecord(number, problem=UnusableError("malformed_json", "the values are nested too deep"), raw=raw)
    except ValueError as error:
        if b"\0" in raw:
            return SourceRecord(
                number, problem=UnusableError("nul", f"the line holds a NUL byte at position {raw.index(0) + 1:,}"), raw=raw
            )
        return SourceRecord(number, problem=UnusableError("malformed_json", str(error)), raw=raw)
    return _as_record(number, record, raw)


def _as_record(number: int, record: Any, raw: bytes | str | None = None) -> SourceRecord:
    if isinstance(record, dict):
        return SourceRecord(number, record, raw=raw)
    return SourceRecord(
        number,
        problem=UnusableError("not_an_object", f"the record is {kind(record)}, not an object"),
        raw=raw or json.dumps(record),
    )


def _read_json(source: Source) -> Iterator[SourceRecord]:
    with _open_unpacked(source) as file:
        content = b"".join(_unbroken(file, source)).removeprefix(BOM)
    if content.lstrip()[:1] != b"[":
        # many a .json file is in truth JSON lines; a single object over several lines is one record
        yield from _single_object(content) or (
            _parse_line(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()
        )
        return
    try:
        records = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{source.name!r} is not JSON: {clip(str(error), 200)}. A file with one object a line is read as .jsonl."
        ) from error
    yield from (_as_record(number, record) for number, record in enumerate(records, start=1))


def _single_object(content: bytes) -> list[SourceRecord]:
    try:
        return [_as_record(1, json.loads(content.decode()), content)]
    except (ValueError, RecursionError):
        return []


def _read_csv(source: Source) -> Iterator[SourceRecord]:
    # the module's own limit is 131,072 characters a field; completions are longer
    csv.field_size_limit(sys.maxsize)
    with _open_unpacked(source) as file:
        # bytes that are not UTF-8 come through as surrogates, so that only their own row is set aside
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        rows = csv.reader(_unbroken(lines, source), strict=True)
        header = _read_header(rows, source)
        start = rows.line_num + 1
        while (row := _next_row(rows, source, start)) is not None:
            if not _is_blank(row):
                yield _row_record(start, header, row)
            start = rows.line_num + 1


def _is_blank(row: list[str] | UnusableError) -> bool:
    return isinstance(row, list) and len(row) <= 1 and not "".join(row).strip()


def _read_header(rows: Any, source: Source) -> list[str]:
    """The column names. A name that stands there twice is numbered, so that nobody is given the wrong one of the two.

    Raises FormatError where the first line that is not blank cannot be read as CSV.
    """
    header: list[str] | UnusableError | None = []
    while header is not None and _is_blank(header):
        line = rows.line_num + 1
        header = _next_row(rows, source, line)
    if isinstance(header, UnusableError):
        raise FormatError(
            f"{source.name!r}: the column names at line {line:,} cannot be read as CSV: {header.detail}. Save it again."
        )
    header = header or []
    counts: Counter[str] = Counter()
    names = []
    for name in header:
        counts[name] += 1
        names.append(f"{name} ({counts[name]})" if header.count(name) > 1 else name)
    return names


def _next_row(rows: Any, source: Source, start: int) -> list[str] | UnusableError | None:
    try:
        return cast("list[str] | None", next(rows, None))
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise FormatError(
                f"{source.name!r}: a quote opened in the record at line {start:,} is never closed, and takes in all that follows."
            ) from error
        return UnusableError("malformed_csv", str(error))


def _row_record(line: int, header: list[str], row: list[str] | UnusableError) -> SourceRecord:
    if isinstance(row, UnusableError):
        return SourceRecord(line, problem=row, raw="")
    raw = ",".join(row)
    if not raw.isascii() and not raw.isprintable():
        try:
            raw.encode()
        except UnicodeEncodeError:
            return SourceRecord(line, problem=UnusableError("invalid_utf8", "the record is not UTF-8"), raw=raw)
    if len(row) != len(header):
        return SourceRecord(
            line, problem=UnusableError("field_count", f"{len(row)} fields, the header has {len(header)}"), raw=raw
        )
    return SourceRecord(line, dict(zip(header, row, strict=True)), raw=raw)


def _read_parquet(source: Source) -> Iterator[SourceRecord]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(source.path) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                for record in batch.to_pylist():
                    number += 1
                    yield SourceRecord(number, record)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FormatError(
            f"{source.name!r} cannot be read as Parquet after record {number:,}: {clip(str(error), 200)}."
        ) from error


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("reading a Hugging Face data set needs datasets: pip install 'ktodata[hub]'") from error
    return datasets


def _read_saved(source: Source) -> Iterator[SourceRecord]:
    library = _datasets()
    yield from _split_records(
        _load_dataset(library.load_from_disk, source, f"{source.name!r} cannot be read as a saved data set")
    )


def _read_hub(source: Source) -> Iterator[SourceRecord]:
    library = _datasets()
    yield from _split_records(
        _load_dataset(
            library.load_dataset, source, f"{source.path!r} is no file here, and as a data set on the hub it cannot be read"
        )
    )


def _load_dataset(load: Callable[[str], Any], source: Source, failure: str) -> Any:
    try:
        return load(source.path)
    except Exception as error:  # the library raises a dozen kinds, most of them private
        raise FormatError(f"{failure}: {clip(str(error), 200)}") from error


def _split_records(dataset: Any) -> Iterator[SourceRecord]:
    splits = [dataset[name] for name in dataset] if isinstance(dataset, dict) else [dataset]
    records = (record for split in splits for record in split)
    yield from (SourceRecord(number, record) for number, record in enumerate(records, start=1))


_READERS: dict[FileKind, Callable[[Source], Iterator[SourceRecord]]] = {
    "lines": _read_lines,
    "json": _read_json,
    "csv": _read_csv,
    "parquet": _read_parquet,
    "saved": _read_saved,
    "hub": _read_hub,
}

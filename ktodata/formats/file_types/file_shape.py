"""What a file is, by its first bytes: how it is packed and encoded, what holds its records, which tables there are.

The name only decides between readings that the content allows alike.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from ktodata.errors import EmptyDataError, FormatError
from ktodata.formats.data_files import Source, suffix_of
from ktodata.formats.file_types.byte_streams import BUFFER_BYTES, compression_of, damaged, first_bytes, open_unpacked
from ktodata.formats.file_types.csv_files import DELIMITERS, csv_shape
from ktodata.formats.file_types.encodings import BOMS, Encoding, encoding_of_start, encoding_of_table
from ktodata.formats.file_types.file_settings import FileSettings, ShapeKind
from ktodata.formats.file_types.json_shapes import LINE_SUFFIXES, begins_with_json, json_shape
from ktodata.formats.file_types.saved_data import saved_dataset, split_sizes
from ktodata.formats.file_types.tables import Tables, duckdb_tables, excel_sheets, sqlite_tables
from ktodata.formats.records import clip

KIND_NAMES: dict[ShapeKind, str] = {
    "json_lines": "JSON lines",
    "json_array": "a JSON array",
    "json_objects": "JSON objects",
    "json_columns": "JSON by columns",
    "csv": "CSV",
    "parquet": "Parquet",
    "arrow_file": "an Arrow file",
    "arrow_stream": "an Arrow stream",
    "feather": "Feather (version 1)",
    "sqlite": "a SQLite database",
    "duckdb": "a DuckDB database",
    "excel": "an Excel workbook",
    "saved_dataset": "a data set saved by datasets",
    "hub": "a data set of the hub",
    "delta": "a Delta table",
    "iceberg": "an Iceberg table",
    "lance": "a Lance table",
    "memory": "records in memory",
}
SAMPLE_BYTES = 1 << 18
CSV_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
MIN_CSV_SHARE = 0.9  # of rows that have as many fields as the first, where the name does not say CSV
# (offset, bytes, kind)
MAGIC: tuple[tuple[int, bytes, ShapeKind], ...] = (
    (0, b"PAR1", "parquet"),
    (0, b"ARROW1", "arrow_file"),
    (0, b"\xff\xff\xff\xff", "arrow_stream"),
    (0, b"FEA1", "feather"),
    (0, b"SQLite format 3\0", "sqlite"),
    (8, b"DUCK", "duckdb"),
)
REFUSED = (
    (0, b"\xd0\xcf\x11\xe0", "an old Excel or Word file; save it as .xlsx or CSV"),
    (0, b"\xfd7zXZ\0", "packed with xz; unpack it first"),
    (0, b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (0, b"%PDF", "a PDF"),
    (0, b"Obj\x01", "Avro; save it as Parquet or JSON lines"),
    (0, b"ORC", "ORC; save it as Parquet"),
    (0, b"version https://git-lfs", "a pointer of Git LFS and not the file itself; fetch it with git lfs pull"),
    (257, b"ustar", "a tar archive; unpack it first"),
)
_WEB_PAGE = ("<!doctype html", "<html")


@dataclass(frozen=True)
class FileShape:
    """What a file is.

    kind : what holds the records.
    compression : gzip, zstd or bz2; None: not packed.
    encoding : of a text file, as Python names it; None: the file is no text. `encoding_is_certain` is false for a guess.
    delimiter, has_sep_line : of a CSV; whether its first line is Excel's `sep=`.
    wrapped_in : the dotted path of the list of records inside a JSON object.
    tables : rows by table, sheet or split (None: not counted); empty for a file that is one table.
    encoding_evidence, content_evidence : why, in words.
    """

    kind: ShapeKind
    compression: str | None = None
    encoding: str | None = None
    encoding_is_certain: bool = True
    delimiter: str | None = None
    has_sep_line: bool = False
    wrapped_in: str | None = None
    tables: Tables = field(default_factory=dict)
    encoding_evidence: str = ""
    content_evidence: str = ""

    @property
    def evidence(self) -> str:
        """Why it is taken for that."""
        packing = f"packed with {self.compression} by its first bytes" if self.compression else ""
        return "; ".join(part for part in (packing, self.encoding_evidence, self.content_evidence) if part)

    def text(self) -> str:
        """The shape in a few words."""
        parts = [KIND_NAMES[self.kind] + (f", its list {clip(self.wrapped_in, 60)}" if self.wrapped_in else "")]
        if self.kind == "csv" and self.delimiter:
            parts.append(f"fields separated by {DELIMITERS.get(self.delimiter, repr(self.delimiter))}")
        if self.encoding:
            parts.append(self.encoding.upper() + ("" if self.encoding_is_certain else " (a guess)"))
        return ", ".join([*parts, *([f"packed with {self.compression}"] if self.compression else [])])


def file_shape(source: Source, settings: FileSettings | None = None) -> FileShape:
    """Say what a source is. Raises FormatError for a file that is no feedback at all, EmptyDataError for an empty one."""
    settings = settings or FileSettings()
    if source.kind == "hub":
        return FileShape("hub", content_evidence="there is no such file, and the name is one that the hub gives")
    if source.kind == "saved":
        tables = split_sizes(saved_dataset(source))
        return FileShape("saved_dataset", tables=tables, content_evidence="a folder with the marks of datasets.save_to_disk")
    if source.kind in ("delta", "iceberg", "lance"):
        return FileShape(source.kind, content_evidence=f"a folder with the marks of {KIND_NAMES[source.kind]}")
    start = first_bytes(source.path, 512)
    return _binary_shape(source, start) or _text_shape(source, start, settings)


def _has_magic(start: bytes, offset: int, magic: bytes) -> bool:
    return start[offset : offset + len(magic)] == magic


def _binary_shape(source: Source, start: bytes) -> FileShape | None:
    """The shape of a file whose format has a mark of its own; None: it is text, packed or not."""
    for offset, magic, what in REFUSED:
        if _has_magic(start, offset, magic):
            raise FormatError(f"{source.name!r} is {what}.")
    if start.startswith(b"PK\x03\x04"):
        return _zip_shape(source)
    kind = next((kind for offset, magic, kind in MAGIC if _has_magic(start, offset, magic)), None)
    if kind is None:
        return None
    tables = {"sqlite": sqlite_tables, "duckdb": duckdb_tables}.get(kind)
    evidence = f"it begins with the bytes of {KIND_NAMES[kind]}"
    return FileShape(kind, tables=tables(source.path, source.name) if tables else {}, content_evidence=evidence)


def _zip_shape(source: Source) -> FileShape:
    try:
        with zipfile.ZipFile(source.path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise damaged(source.name, "its start", error) from error
    if "xl/workbook.xml" not in names:
        listing = ", ".join(clip(name, 40) for name in names[:5])
        raise FormatError(f"{source.name!r} is a zip archive; unpack it first. It holds {listing or 'nothing'}.")
    return FileShape(
        "excel", tables=excel_sheets(source.path, source.name), content_evidence="a zip archive with xl/workbook.xml in it"
    )


# --- text --------------------------------------------------------------------------------------------------------------


def _text_shape(source: Source, start: bytes, settings: FileSettings) -> FileShape:
    compression = compression_of(start)
    sample = _unpacked_start(source)
    if compression:
        _refuse_packed(source, sample, compression)
    encoding = _encoding_of_sample(sample, settings)
    text = sample.decode(encoding.name, "replace").removeprefix("\ufeff")
    if not text.strip():
        raise EmptyDataError(f"{source.name!r} holds no records.")
    if text.lstrip()[:15].lower().startswith(_WEB_PAGE):
        raise FormatError(f"{source.name!r} is a web page (HTML), not data: perhaps what a server answered without a sign-in.")
    shape = _shape_of_text(source, text, settings, is_whole=len(sample) < SAMPLE_BYTES)
    if shape.kind == "csv":
        encoding = _encoding_of_csv(source, sample, encoding, settings)
    elif settings.table is not None:
        shape = replace(
            shape, kind="json_array", wrapped_in=settings.table, content_evidence=f"table is a setting: {settings.table}"
        )
    return replace(
        shape,
        compression=compression,
        encoding=encoding.name,
        encoding_is_certain=encoding.is_certain,
        encoding_evidence=encoding.evidence,
    )


def _unpacked_start(source: Source) -> bytes:
    try:
        with open_unpacked(source.path) as file:
            return file.read(SAMPLE_BYTES)
    except OSError as error:
        raise damaged(source.name, "line 0", error) from error


def _refuse_packed(source: Source, sample: bytes, compression: str) -> None:
    """Formats that are read at any place in the file cannot be read from a packed one."""
    marks = [(offset, magic) for offset, magic, _ in MAGIC] + [(0, b"PK\x03\x04"), (257, b"ustar"), (0, b"\x1f\x8b")]
    if any(_has_magic(sample, offset, magic) for offset, magic in marks):
        raise FormatError(f"{source.name!r} is packed with {compression}, and what is in it is no text; unpack it first.")


def _encoding_of_sample(sample: bytes, settings: FileSettings) -> Encoding:
    if settings.encoding is not None:
        return Encoding(settings.encoding, True, f"encoding is a setting: {settings.encoding}")
    advice = "some bytes are not UTF-8; say encoding: NAME if you know it"
    return encoding_of_start(sample) or Encoding("utf-8", False, advice)


def _encoding_of_csv(source: Source, sample: bytes, encoding: Encoding, settings: FileSettings) -> Encoding:
    """A table without a mark is read to its end: its first letter that is not ASCII may come late."""
    is_marked = any(sample.startswith(bom) for bom, _, _ in BOMS)
    if settings.encoding is not None or is_marked or encoding.name != "utf-8":
        return encoding
    try:
        with open_unpacked(source.path) as file:
            return encoding_of_table(_chunks(file))
    except OSError as error:
        raise damaged(source.name, "its start", error) from error


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(BUFFER_BYTES):
        yield chunk


def _shape_of_text(source: Source, text: str, settings: FileSettings, *, is_whole: bool) -> FileShape:
    suffix = suffix_of(source.path)
    names_json = suffix in (*LINE_SUFFIXES, ".json")
    if text.lstrip()[0] in "{[" and settings.delimiter is None and (suffix not in CSV_SUFFIXES or begins_with_json(text)):
        kind, wrapped_in, evidence = json_shape(text, suffix, is_whole=is_whole)
        return FileShape(kind, wrapped_in=wrapped_in, content_evidence=evidence)
    csv = csv_shape(text, settings.delimiter, is_whole=is_whole)
    is_table = csv.n_columns > 1 and csv.share >= MIN_CSV_SHARE and csv.n_rows > 1 and "\0" not in text
    if settings.delimiter or suffix in CSV_SUFFIXES or is_table:
        return FileShape("csv", delimiter=csv.delimiter, has_sep_line=csv.has_sep_line, content_evidence=csv.evidence)
    if names_json:
        return FileShape("json_lines", content_evidence=f"its name ends with {suffix}")
    raise FormatError(
        f"cannot tell what kind of file {source.name!r} is: it begins with {clip(repr(text.lstrip()[:40]), 44)}. "
        "JSON, CSV, Parquet, Arrow, SQLite, DuckDB and .xlsx are read, JSON and CSV also packed with gzip or zstd."
    )

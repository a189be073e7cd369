"""CSV as records: which character separates the fields, the column names, and one record a row."""

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from ktodata.errors import FormatError
from ktodata.formats.file_types.byte_streams import BUFFER_BYTES, LongLine, damaged
from ktodata.formats.file_types.json_files import too_long
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.records import UnusableError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
SAMPLE_ROWS = 200
NULL = "\\N"  # what MySQL, PostgreSQL, Hive and Snowflake write for it, and nobody for anything else


class CsvShape(NamedTuple):
    """What separates the fields, and what speaks for it.

    n_columns : fields of the first row. share : of the first `n_rows` rows that have as many.
    has_sep_line : the first line is Excel's `sep=`, and no column names.
    """

    delimiter: str
    n_columns: int
    share: float
    n_rows: int
    has_sep_line: bool
    evidence: str


def csv_shape(text: str, delimiter: str | None = None, *, is_whole: bool = True) -> CsvShape:
    """The delimiter of a CSV by its start: the one that gives most rows as many fields as the first, and the most columns."""
    first = text.lstrip("\r\n").partition("\n")[0].strip("\r\n")
    has_sep_line = len(first) == 5 and first[:4].lower() == "sep="
    if has_sep_line:
        text = text.lstrip("\r\n").partition("\n")[2]
    separator = delimiter or (first[4] if has_sep_line else None)
    scores = {char: _rectangle(text, char, is_whole=is_whole) for char in ([separator] if separator else DELIMITERS)}
    best = max(scores, key=lambda char: scores[char])  # the first of equals: the comma
    share, n_columns, n_rows = scores[best]
    if separator is None and n_columns < 2:
        best, evidence = ",", "one column"
    elif separator is None:
        evidence = f"split at each {DELIMITERS[best]}, {share:.0%} of the first {n_rows:,} rows have {n_columns} fields"
    else:
        evidence = "delimiter is a setting" if delimiter else f"its first line is {first!r}"
    return CsvShape(best, n_columns, share, n_rows, has_sep_line, evidence)


def _rectangle(text: str, delimiter: str, *, is_whole: bool) -> tuple[float, int, int]:
    """(share of rows with as many fields as the first, how many those are, rows); a single field has a share of 0."""
    csv.field_size_limit(sys.maxsize)
    lengths: list[int] = []
    with suppress(csv.Error):
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            lengths += [len(row)] if row else []
            if len(lengths) > SAMPLE_ROWS:
                break
    if not is_whole and 1 < len(lengths) <= SAMPLE_ROWS:
        lengths.pop()  # the sample may end within it
    if not lengths or lengths[0] < 2:
        return 0.0, len(lengths[:1]), len(lengths)
    return sum(length == lengths[0] for length in lengths) / len(lengths), lengths[0], len(lengths)


def csv_records(
    file: BinaryIO, name: str, delimiter: str, max_bytes: int, *, has_sep_line: bool = False
) -> Iterator[SourceRecord]:
    """Every row that is not blank, under the names of the first."""
    # the module's own limit is 131,072 characters a field; completions are longer
    csv.field_size_limit(sys.maxsize)
    rows = _CsvRows(file, name, delimiter, max_bytes)
    if has_sep_line:
        rows.next_row()
    header = unique_names(rows.header())
    while (row := rows.next_row()) is not None:
        if isinstance(row, SourceRecord):
            yield row
        elif not _is_blank(row):
            yield _record_of_fields(rows.start, header, row, delimiter)


class _LongLineError(Exception):
    """A line is longer than the limit."""

    def __init__(self, line: LongLine) -> None:
        super().__init__(line.n_bytes)
        self.line = line


class _CsvLines:
    """The lines of a text file. An object and no generator: it goes on after the error of a line that is too long."""

    def __init__(self, file: BinaryIO, name: str, max_chars: int) -> None:
        # bytes that are not UTF-8 come through as surrogates, so that only their own row is set aside
        self._text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        self._name = name
        self._max_chars = max_chars
        self.n_lines = 0
        self.row_start = 1
        self.row_chars = 0

    def start_row(self) -> None:
        self.row_start, self.row_chars = self.n_lines + 1, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self._text.readline(self._max_chars + 1)
            if len(line) > self._max_chars and line[-1] not in "\r\n":
                self._skip_line(line)
        except OSError as error:
            raise damaged(self._name, f"line {self.n_lines:,}", error) from error
        if not line:
            raise StopIteration
        self.n_lines += 1
        self.row_chars += len(line)
        if self.row_chars > self._max_chars:
            raise FormatError(
                f"{self._name!r}: the record at line {self.row_start:,} is longer than max_record_mb allows; "
                "a quote opened in it may never be closed."
            )
        return line

    def _skip_line(self, line: str) -> None:
        n_chars, start = len(line), line[:10_000]
        while (part := self._text.readline(BUFFER_BYTES)) and part[-1] not in "\r\n":
            n_chars += len(part)
        self.n_lines += 1
        raise _LongLineError(LongLine(start.encode("utf-8", "replace"), n_chars + len(part)))


class _CsvRows:
    """The rows of a CSV; `start` is the line at which the last one begins."""

    def __init__(self, file: BinaryIO, name: str, delimiter: str, max_bytes: int) -> None:
        self._name = name
        self._max_bytes = max_bytes
        self._lines = _CsvLines(file, name, max_bytes)
        self._rows = csv.reader(self._lines, delimiter=delimiter, strict=True)

    @property
    def start(self) -> int:
        return self._lines.row_start

    def next_row(self) -> list[str] | SourceRecord | None:
        """The fields of the next row, or what is wrong with it; None at the end."""
        self._lines.start_row()
        try:
            return next(self._rows, None)
        except _LongLineError as error:
            return too_long(self.start, error.line, self._max_bytes)
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise FormatError(
                    f"{self._name!r}: a quote opened in the record at line {self.start:,} is never closed, "
                    "and takes in all that follows."
                ) from error
            return SourceRecord(self.start, problem=UnusableError("malformed_csv", str(error)), raw="")

    def header(self) -> list[str]:
        """The first row that is not blank. Raises FormatError where it cannot be read as CSV."""
        row: list[str] | SourceRecord | None = []
        while isinstance(row, list) and _is_blank(row):
            row = self.next_row()
        if isinstance(row, SourceRecord):
            detail = row.problem.detail if row.problem else ""
            raise FormatError(
                f"{self._name!r}: the column names at line {self.start:,} cannot be read as CSV: {detail}. Save it again."
            )
        return row or []


def _is_blank(row: list[str]) -> bool:
    return len(row) <= 1 and not "".join(row).strip()


def unique_names(header: Sequence[str]) -> list[str]:
    """A name that stands there twice is numbered, so that nobody is given the wrong one of the two."""
    n_uses: Counter[str] = Counter()
    names = []
    for name in header:
        n_uses[name] += 1
        names.append(f"{name} ({n_uses[name]})" if header.count(name) > 1 else name)
    return names


def _record_of_fields(line: int, header: list[str], row: list[str], delimiter: str) -> SourceRecord:
    raw = delimiter.join(row)
    if not raw.isascii() and not raw.isprintable():
        try:
            raw.encode()
        except UnicodeEncodeError:
            return SourceRecord(line, problem=UnusableError("invalid_utf8", "the record is not UTF-8"), raw=raw)
    if len(row) != len(header):
        detail = f"{len(row)} fields, the header has {len(header)}"
        return SourceRecord(line, problem=UnusableError("field_count", detail), raw=raw)
    values: list[str | None] = [None if value == NULL else value for value in row] if NULL in row else [*row]
    return SourceRecord(line, dict(zip(header, values, strict=True)), raw=raw)

"""JSON as records: one object a line, or documents: an array, a list inside an object, objects one after the other, columns.

A document is decoded as a stream: one record is in memory at a time, whatever the file's size.
"""

import codecs
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from ktodata.errors import FormatError
from ktodata.formats.file_types.byte_streams import LongLine, damaged, limited_lines, named_damage
from ktodata.formats.file_types.json_shapes import rows_of_columns
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.file_types.strict_json import LENIENT, SCAN, STRICT, DuplicateKeyError
from ktodata.formats.records import UnusableError, clip, kind

CHUNK_CHARS = 1 << 18
SPACE = " \t\r\n"
LINE_ENDS = ("\n", "\r\n", "")


def too_long(number: int, line: LongLine, max_bytes: int) -> SourceRecord:
    """A record that is longer than the limit, with its start."""
    detail = f"{line.n_bytes:,} bytes are more than max_record_mb: {max_bytes / 1e6:g} allows"
    return SourceRecord(number, problem=UnusableError("too_long", detail), raw=line.start)


def json_lines(file: BinaryIO, name: str, max_bytes: int) -> Iterator[SourceRecord]:
    """One record a line; blank lines are none."""
    for number, line in enumerate(named_damage(limited_lines(file, max_bytes), name), start=1):
        if isinstance(line, LongLine):
            yield too_long(number, line, max_bytes)
        elif (record := _usual_object(line)) is not None:
            yield SourceRecord(number, record, raw=line)
        elif line and not line.isspace():
            yield parse_line(number, line)


def _usual_object(line: bytes) -> dict[str, Any] | None:
    """The object that a line holds from end to end, as most do; None: it holds something else, and `parse_line` says what."""
    try:
        text = line.decode()
        record, end = SCAN(text, 0)
    except (ValueError, RecursionError, StopIteration):
        return None
    return record if isinstance(record, dict) and text[end:] in LINE_ENDS else None


def parse_line(number: int, raw: bytes) -> SourceRecord:
    """The record of one line, or what is wrong with it."""
    try:
        return as_object(number, STRICT.decode(raw.decode()), raw)
    except UnicodeDecodeError as error:
        problem = UnusableError("invalid_utf8", f"byte {error.start + 1:,} of the line is not UTF-8")
    except RecursionError:
        problem = UnusableError("malformed_json", "the values are nested too deep")
    except DuplicateKeyError as error:
        problem = UnusableError("duplicate_keys", str(error))
    except ValueError as error:
        problem = UnusableError("malformed_json", str(error))
        if b"\0" in raw:
            problem = UnusableError("nul", f"the line holds a NUL byte at position {raw.index(0) + 1:,}")
    return SourceRecord(number, problem=problem, raw=raw)


def as_object(number: int, record: Any, raw: bytes | str | None = None) -> SourceRecord:
    """A record if it is an object; nothing else can be one."""
    if isinstance(record, dict):
        return SourceRecord(number, record, raw=raw)
    problem = UnusableError("not_an_object", f"the record is {kind(record)}, not an object")
    return SourceRecord(number, problem=problem, raw=raw or json.dumps(record))


class JsonStream:
    """A JSON document, decoded value by value."""

    def __init__(self, file: BinaryIO, name: str, max_bytes: int) -> None:
        self.name = name
        self.n_values = 0
        self._file = file
        self._max_chars = max_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = ""
        self._position = 0
        self._lines_before = 0
        self._at_end = False

    def _read_on(self) -> None:
        """At least as much again as is waiting: a long value is tried few times, not once a chunk."""
        self._lines_before += self._text.count("\n", 0, self._position)
        waiting = self._text[self._position :]
        try:
            chunk = self._file.read(max(CHUNK_CHARS, len(waiting)))
        except OSError as error:
            raise damaged(self.name, f"value {self.n_values:,}", error) from error
        self._at_end = not chunk
        self._text, self._position = waiting + self._decoder.decode(chunk, final=self._at_end), 0

    def next_char(self) -> str:
        """The next character that is no white space, left where it is; "" at the end."""
        while True:
            while self._position < len(self._text) and self._text[self._position] in SPACE:
                self._position += 1
            if self._position < len(self._text):
                return self._text[self._position]
            if self._at_end:
                return ""
            self._read_on()

    def skip(self, expected: str) -> bool:
        """Pass over `expected` if it comes next."""
        if self.next_char() != expected:
            return False
        self._position += 1
        return True

    def need(self, *expected: str) -> str:
        """Pass over one of `expected`. Raises FormatError where something else comes."""
        char = self.next_char()
        if char not in expected:
            raise self.error(f"{char!r} where {' or '.join(expected)} should be" if char else "it ends too early")
        self._position += 1
        return char

    def error(self, detail: str, position: int | None = None) -> FormatError:
        """The document cannot be read on from here."""
        line = self._lines_before + self._text.count("\n", 0, self._position if position is None else position) + 1
        return FormatError(
            f"{self.name!r} is not JSON: {clip(detail, 120)} (line {line:,}, value {self.n_values:,}). "
            "A file with one object a line is read as .jsonl."
        )

    def value(self) -> SourceRecord:
        """The next value as a record: an object, or anything else, which is then no record."""
        self.n_values += 1
        self.next_char()
        value, end, problem = self._decode()
        raw, self._position = self._text[self._position : end], end
        if problem is None and not raw.isascii():
            try:
                raw.encode()
            except UnicodeEncodeError:
                problem = UnusableError("invalid_utf8", "the record is not UTF-8")
        return SourceRecord(self.n_values, value, problem, raw)

    def _decode(self) -> tuple[Any, int, UnusableError | None]:
        while True:
            try:
                value, end, problem = _decode_value(self._text, self._position)
                # a number at the end of the text may go on
                if self._at_end or end < len(self._text):
                    return value, end, problem
            except RecursionError:
                raise self.error("the values are nested too deep") from None
            except json.JSONDecodeError as error:
                if self._at_end:
                    raise self.error(error.msg, error.pos) from None
            if len(self._text) - self._position > self._max_chars:
                raise FormatError(
                    f"{self.name!r}: value {self.n_values:,} is longer than max_record_mb: {self._max_chars / 1e6:g} allows, "
                    "or the JSON in it is broken. Raise max_record_mb if it is meant to be so long."
                )
            self._read_on()


def _decode_value(text: str, position: int) -> tuple[Any, int, UnusableError | None]:
    """A value, where it ends, and whether one of its objects has a key twice."""
    try:
        return *STRICT.raw_decode(text, position), None
    except DuplicateKeyError as error:
        return *LENIENT.raw_decode(text, position), UnusableError("duplicate_keys", str(error))


def array_records(stream: JsonStream, wrapped_in: str | None) -> Iterator[SourceRecord]:
    """The records of an array, or of the list at a dotted path inside an object; what follows it must be JSON, too."""
    depth = _enter(stream, wrapped_in.split(".")) if wrapped_in else 0
    stream.need("[")
    number = 0
    closed = stream.skip("]")
    while not closed:
        number += 1
        element = stream.value()
        yield _checked_object(number, element)
        closed = stream.need(",", "]") == "]"
    for _ in range(depth):
        while stream.need(",", "}") == ",":
            _member(stream)
    if stream.next_char():
        raise stream.error("more text follows the end of the list")


def _checked_object(number: int, element: SourceRecord) -> SourceRecord:
    if element.problem is not None:
        return SourceRecord(number, problem=element.problem, raw=element.raw)
    return as_object(number, element.record, element.raw)


def _enter(stream: JsonStream, path: list[str]) -> int:
    """Go to the value at `path`; how many objects it is in."""
    for name in path:
        stream.need("{")
        while stream.value().record != name:
            stream.need(":")
            stream.value()
            if stream.need(",", "}") == "}":
                raise FormatError(f"{stream.name!r} holds no list {'.'.join(path)!r}; table names the list to read.")
        stream.need(":")
    return len(path)


def _member(stream: JsonStream) -> None:
    stream.value()
    stream.need(":")
    stream.value()


def object_records(stream: JsonStream) -> Iterator[SourceRecord]:
    """Objects one after the other, each over as many lines as it likes, with or without a comma between."""
    number = 0
    while stream.next_char():
        number += 1
        yield _checked_object(number, stream.value())
        stream.skip(",")


def column_records(stream: JsonStream) -> Iterator[SourceRecord]:
    """The rows of a document that holds columns, or rows under their numbers; see `json_shapes.rows_of_columns`."""
    document = stream.value()
    rows = rows_of_columns(document.record) if isinstance(document.record, Mapping) and document.problem is None else None
    if rows is None or stream.next_char():
        raise stream.error(document.problem.detail if document.problem else "its columns are not equally long")
    yield from (SourceRecord(number, row) for number, row in enumerate(rows, start=1))

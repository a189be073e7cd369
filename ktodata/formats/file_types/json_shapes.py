"""What a JSON text is: one object a line, or a document of one of four shapes. Decided on the start of the file."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ktodata.formats.dialects import detect_format
from ktodata.formats.file_types.file_settings import ShapeKind
from ktodata.formats.format import Fields

# under these names exports and APIs hand out a list of records
WRAPPERS = ("data", "rows", "items", "results", "records", "result", "traces", "runs", "examples", "feedback", "response")
WRAPPER_DEPTH = 3
# a list under any other name is taken for the records when it is at least so long and nothing speaks for a single record
MIN_UNNAMED = 5
LINE_SUFFIXES = (".jsonl", ".ndjson")
_PRETTY = re.compile(r"\s*\{[ \t]*\r?\n\s*\"")
_SCALARS = (str, int, float, bool, type(None))


class JsonShape(NamedTuple):
    """The kind of file, the path of its list where it is inside an object, and why."""

    kind: ShapeKind
    wrapped_in: str | None
    evidence: str


def begins_with_json(text: str) -> bool:
    """Whether a whole JSON value is at the start."""
    try:
        json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    return True


def json_shape(text: str, suffix: str, *, is_whole: bool) -> JsonShape:
    """The shape of a JSON text by its start. `is_whole`: the text is the whole file."""
    begin = len(text) - len(text.lstrip())
    try:
        value, end = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError):
        return _shape_of_undecoded(text, suffix, is_whole=is_whole)
    is_one_line = "\n" not in text[begin:end]
    line_rest, _, after = text[end:].partition("\n")
    if is_one_line and not line_rest.strip() and after.strip():
        return JsonShape("json_lines", None, "the first line is a whole JSON value, and more lines follow")
    if isinstance(value, list):
        return JsonShape("json_array", None, "one JSON array")
    if text[end:].strip() or not isinstance(value, dict):
        return JsonShape("json_objects", None, "JSON objects one after the other, each over several lines")
    return _shape_of_object(value, is_one_line=is_one_line)


def _shape_of_object(value: dict[str, Any], *, is_one_line: bool) -> JsonShape:
    if rows_of_columns(value) is not None:
        return JsonShape("json_columns", None, f"one JSON object that holds columns: {', '.join(list(value)[:6])}")
    if (path := wrapped_list(value)) is not None:
        return JsonShape("json_array", path, f"one JSON object; its list {path!r} holds the records")
    if is_one_line:
        return JsonShape("json_lines", None, "one line, one JSON object")
    return JsonShape("json_objects", None, "one JSON object over several lines")


def _shape_of_undecoded(text: str, suffix: str, *, is_whole: bool) -> JsonShape:
    """The first value is broken, or longer than the sample."""
    names_lines = suffix in LINE_SUFFIXES
    lines_parse = any(_is_object(line) for line in text.split("\n")[: None if is_whole else -1])
    if text.lstrip().startswith("[") and not (names_lines and is_whole and lines_parse):
        return JsonShape("json_array", None, "it begins as one JSON array")
    if not is_whole and (path := _list_in_start(text, only_named="\n" not in text.strip())) is not None:
        return JsonShape("json_array", path, f"it begins as one JSON object; its list {path!r} holds records")
    if _PRETTY.match(text) and not lines_parse:
        return JsonShape("json_objects", None, "it begins as a JSON object over several lines")
    if lines_parse or names_lines or suffix != ".json":
        return JsonShape("json_lines", None, "lines that are JSON objects" if lines_parse else "its name")
    return JsonShape("json_objects", None, "it begins with {, and no line of it is a whole object")


def _is_object(line: str) -> bool:
    if not line.startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


# --- a list inside an object -------------------------------------------------------------------------------------------


def wrapped_list(document: Mapping[str, Any]) -> str | None:
    """The dotted path of the list that holds a document's records. None: the document is a record itself, or holds none."""
    if detect_format(document, Fields()) is not None:
        return None
    lists = dict(_record_lists(document, WRAPPER_DEPTH))
    named = [path for path in lists if path.rpartition(".")[2] in WRAPPERS]
    if named:
        return min(named, key=lambda path: (path.count("."), WRAPPERS.index(path.rpartition(".")[2])))
    unnamed = [path for path, n_records in lists.items() if n_records >= MIN_UNNAMED and "." not in path]
    return unnamed[0] if len(unnamed) == 1 else None


def _record_lists(document: Mapping[str, Any], depth: int) -> Iterator[tuple[str, int]]:
    """(path, length) of every list of objects that are no turns of a conversation."""
    for name, value in document.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) and not _is_turn(item) for item in value):
            yield name, len(value)
        elif isinstance(value, dict) and depth > 1 and name in WRAPPERS:
            yield from ((f"{name}.{path}", n_records) for path, n_records in _record_lists(value, depth - 1))


def _is_turn(item: Mapping[str, Any]) -> bool:
    return ("role" in item and "content" in item) or ("from" in item and "value" in item)


def _list_in_start(text: str, *, only_named: bool) -> str | None:
    """The path of the first list of objects in the start of an object that is longer than the sample."""
    decoder, position, path = json.JSONDecoder(), text.index("{") + 1, ""
    opening = re.compile(r'[\s,]*("(?:[^"\\]|\\.)*")\s*:\s*(\[?\s*\{|\[\s*(?=\])|)')
    while (match := opening.match(text, position)) is not None:
        name = json.loads(match[1])
        if match[2][:1] == "[" and (name in WRAPPERS or not only_named):
            return _path_of_records(text, match.end() - 1, f"{path}{name}")
        if match[2][:1] == "{" and name in WRAPPERS:
            path, position = f"{path}{name}.", match.end()
            continue
        try:
            position = decoder.raw_decode(text, match.start(2))[1]
        except (ValueError, RecursionError):
            return None
    return None


def _path_of_records(text: str, start: int, path: str) -> str | None:
    try:
        first, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return None if _is_turn(first) else path


# --- columns -----------------------------------------------------------------------------------------------------------


def rows_of_columns(document: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of a document as pandas writes it by columns, lists, index or split; None where it is not one of them."""
    values = list(document.values())
    if set(document) >= {"columns", "data"} and set(document) <= {"columns", "data", "index"}:
        return _split_rows(document["columns"], document["data"])
    if len(values) < 2:
        return None
    if all(isinstance(value, list) for value in values) and _is_rectangle(values):
        return [dict(zip(document, row, strict=True)) for row in zip(*values, strict=True)]
    if not all(isinstance(value, dict) and value for value in values) or any(set(value) != set(values[0]) for value in values):
        return None
    if all(name.isdigit() for name in values[0]):
        return [{name: column[number] for name, column in document.items()} for number in values[0]]
    return values if all(name.isdigit() for name in document) else None


def _is_rectangle(columns: list[list[Any]]) -> bool:
    """Lists of one length, at least one of them of plain values: two conversations beside each other are a record."""
    is_plain = any(all(isinstance(value, _SCALARS) for value in column) for column in columns)
    return is_plain and bool(columns[0]) and len({len(column) for column in columns}) == 1


def _split_rows(names: Any, rows: Any) -> list[dict[str, Any]] | None:
    if not isinstance(names, list) or not isinstance(rows, list):
        return None
    if not all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return None
    return [dict(zip(map(str, names), row, strict=True)) for row in rows]

"""A recipe from an inspection: every choice is there with its evidence, and the label's meaning is left to a person."""

import os
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktodata.formats.dialects import FORMATS
from ktodata.formats.inspection.label_choices import MAX_MEANINGS, LabelChoice
from ktodata.formats.records import clip

if TYPE_CHECKING:
    from ktodata.formats.inspection.inspection import Inspection

UNDECIDED = "CHOOSE"
COMMENT_COLUMN = 44
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_YAML_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"])


def yaml_value(value: Any) -> str:
    """A scalar as YAML that gives back the same value of the same type."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        text = repr(value)
        # YAML 1.1 takes 1e+16 for text: its floats have a point
        return text if "e" not in text or "." in text else text.replace("e", ".0e")
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS:
        return text
    return '"' + "".join(_yaml_char(char) for char in text) + '"'


def _yaml_char(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}" if ord(char) < 65536 else f"\\U{ord(char):08x}"


def draft_recipe(inspection: "Inspection", relative_to: str | Path | None = None) -> str:
    """The recipe as YAML text; `relative_to`: the folder that the recipe will be in."""
    path = inspection.path
    if relative_to is not None and inspection.shape.kind != "hub":
        path = Path(os.path.relpath(path, relative_to)).as_posix()
    head = [
        f"# From a look at {clip(inspection.name)}: {inspection.shape.text()}; {inspection.n_records:,} records looked at.",
        "# Each choice has its evidence beside it. Run it with:  ktodata run RECIPE",
        f"name: {yaml_value(_recipe_name(inspection.name))}",
        "seed: 0",
        "",
        "ingest:",
        f"  paths: [{yaml_value(path)}]",
    ]
    body = [*_file_lines(inspection), *_text_lines(inspection), *_label_lines(inspection), *_about_lines(inspection)]
    template = files("ktodata").joinpath("recipe_template.yaml").read_text(encoding="utf-8")
    return "\n".join([*head, *body, "", template[template.index("# reviews:") :]])


def _recipe_name(name: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).name.partition(".")[0]).strip("-")
    return stem or "feedback"


def _setting(name: str, value: Any, comment: str, indent: int = 2) -> str:
    line = f"{' ' * indent}{name}: {yaml_value(value)}"
    return f"{line:<{COMMENT_COLUMN}} # {comment}"


def _file_lines(inspection: "Inspection") -> Iterator[str]:
    shape, settings = inspection.shape, inspection.settings
    if shape.kind == "csv":
        yield _setting("delimiter", shape.delimiter, shape.content_evidence)
    if shape.encoding and (shape.encoding != "utf-8" or settings.encoding):
        yield _setting(
            "encoding", shape.encoding, "certain" if shape.encoding_is_certain else "a guess; check a text with accents"
        )
    table = settings.table or shape.wrapped_in or next((name for name, rows in shape.tables.items() if rows), None)
    if table is not None and shape.kind != "saved_dataset":
        yield _setting("table", table, "the list of records" if shape.wrapped_in else "the table that was looked at")
    elif table is not None:
        listing = ", ".join(f"{clip(name, 30)} ({rows:,} rows)" for name, rows in shape.tables.items() if rows is not None)
        yield f"  # table: {yaml_value(table)}  # one split only; without it all are read: {listing}"


def _text_lines(inspection: "Inspection") -> Iterator[str]:
    """Where prompt and completion are: the format that knows, or the columns."""
    roles = inspection.roles
    share = f"{inspection.format_share:.0%} of the records look like it"
    if inspection.format is not None and not inspection.has_json_text:
        yield _setting("format", inspection.format, f"{share}: {clip(FORMATS[inspection.format].summary, 90)}")
        return
    if roles["messages"]:
        best = roles["messages"][0]
        yield _setting("messages", best.column, best.evidence)
    else:
        for role in ("prompt", "completion"):
            taken = {candidate.column for candidate in roles["prompt"][:1] if role == "completion"}
            named = [candidate for candidate in roles[role] if candidate.column not in taken][:1]
            if named and named[0].is_named:
                yield _setting(role, named[0].column, named[0].evidence)
            else:
                options = ", ".join(clip(candidate.column, 40) for candidate in roles[role])
                yield _setting(role, UNDECIDED, f"which column? {options or 'none looks like it'}")


def _label_lines(inspection: "Inspection") -> Iterator[str]:
    if not inspection.labels:
        format = FORMATS[inspection.format] if inspection.format else None
        if format is not None and format.group == "pair_id":
            yield "  # label: none is needed; the format itself says which of two answers is better"
            return
        yield "  label:"
        yield _setting("column", UNDECIDED, "which column is the verdict? None has the few values of one", 4)
        return
    named = [choice for choice in inspection.labels if choice.is_named]
    is_clear = len(named) == 1 or len(inspection.labels) == 1
    best = (named or list(inspection.labels))[0]
    yield "  # What does each value mean? Put true (desirable), false (undesirable) or null (no label) in place of CHOOSE."
    yield "  # No meaning is taken from a name or a type; the run refuses the recipe until it is said."
    yield "  label:"
    if is_clear:
        yield from _choice_lines(best, "    ")
    else:
        yield _setting("column", UNDECIDED, "several columns may be the verdict; take one of these", 4)
    others = [choice for choice in inspection.labels if not is_clear or choice is not best]
    for choice in others:
        yield f"  # or, from the column {clip(choice.column, 60)} ({choice.evidence}):"
        yield "  # label:"
        yield from (f"  # {line[2:]}" for line in _choice_lines(choice, "    "))


def _choice_lines(choice: LabelChoice, indent: str) -> Iterator[str]:
    yield _setting("column", choice.column, f"{choice.evidence}; {choice.n_null:,} empty", len(indent))
    if choice.is_scale:
        counts = ", ".join(f"{value}: {count:,}" for value, count in _spread(choice))
        yield _setting("at_least", UNDECIDED, f"the lowest number that is desirable; values: {counts}", len(indent))
        return
    written: set[Any] = set()
    for value, count in choice.values[:MAX_MEANINGS]:
        line = _setting(yaml_value(value), UNDECIDED, f"{count:,} {'record' if count == 1 else 'records'}", len(indent))
        # 1, 1.0 and true are one key to YAML's reader
        same = f"{indent}# {yaml_value(value)}: {count:,} more; one key with the value above; apart in values: [[1, true], ...]"
        yield same if value in written else line
        written.add(value)


def _spread(choice: LabelChoice) -> list[tuple[Any, int]]:
    """All values of a short scale; of a long one, some from end to end."""
    step = max(len(choice.values) // 10, 1)
    return [choice.values[at] for at in range(0, len(choice.values), step)]


def _about_lines(inspection: "Inspection") -> Iterator[str]:
    for role in ("rater", "created_at", "source_id", "model"):
        candidates = [candidate for candidate in inspection.roles[role] if _is_plain_path(candidate.column)]
        if candidates and candidates[0].is_named:
            yield _setting(role, candidates[0].column, candidates[0].evidence)
        elif candidates:
            yield "  # " + _setting(role, candidates[0].column, candidates[0].evidence, 0)
    for candidate in inspection.roles["split"][:1]:
        yield f"  # the column {clip(candidate.column, 60)} looks like a given split ({candidate.evidence})"


def _is_plain_path(path: str) -> bool:
    """Whether no list is on the way: who judged an entry of a list, and when, its format reads beside it."""
    return "[" not in path and not any(part.isdigit() for part in path.split("."))

"""A recipe from an inspection: every choice is there with its evidence, and the label's meaning is left to a person."""

import os
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktodata.formats.inspection.column_profiles import ColumnProfile
from ktodata.formats.inspection.draft_lines import UNDECIDED, setting_line, with_comment, yaml_value
from ktodata.formats.inspection.given_parts import given_parts
from ktodata.formats.inspection.label_draft import label_lines
from ktodata.formats.inspection.text_draft import text_lines
from ktodata.formats.records import clip
from ktodata.formats.remote_files import is_remote
from ktodata.formats.times import moment, time_formats

if TYPE_CHECKING:
    from ktodata.formats.inspection.inspection import Inspection

ONE_WAY = "write the column in one way"


def draft_recipe(inspection: "Inspection", relative_to: str | Path | None = None) -> str:
    """The recipe as YAML text; `relative_to`: the folder that the recipe will be in."""
    path = inspection.path
    if relative_to is not None and inspection.shape.kind not in ("hub", "memory") and not is_remote(path):
        path = Path(os.path.relpath(path, relative_to)).as_posix()
    head = [
        f"# From a look at {clip(inspection.name)}: {inspection.shape.text()}; {inspection.n_records:,} records looked at.",
        *([f"# With any meaning for the label's values: {inspection.trial}."] if inspection.trial else []),
        "# Each choice has its evidence beside it. Run it with:  ktodata run RECIPE",
        f"name: {yaml_value(_recipe_name(inspection.name))}",
        "seed: 0",
        "",
        "ingest:",
        with_comment(f"  paths: [{UNDECIDED}]", "a recipe reads files: write what is in memory into one")
        if inspection.shape.kind == "memory"
        else f"  paths: [{yaml_value(path)}]",
    ]
    body = [*_file_lines(inspection), *text_lines(inspection), *label_lines(inspection), *_about_lines(inspection)]
    return "\n".join([*head, *body, "", _rest(inspection)])


def _rest(inspection: "Inspection") -> str:
    """Steps and what follows, as in every new recipe; given parts make the split a choice."""
    template = files("ktodata").joinpath("recipe_template.yaml").read_text(encoding="utf-8")
    rest = template[template.index("# reviews:") :]
    parts = given_parts(inspection)
    return rest if parts is None else re.sub(r"(?m)^  - split: .*$", lambda _: "\n".join(parts.step_lines()), rest)


def _recipe_name(name: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).name.partition(".")[0]).strip("-")
    return stem or "feedback"


def _file_lines(inspection: "Inspection") -> Iterator[str]:
    shape, settings = inspection.shape, inspection.settings
    if shape.kind == "csv":
        yield setting_line("delimiter", shape.delimiter, shape.content_evidence)
    if shape.encoding and (shape.encoding != "utf-8" or settings.encoding):
        is_certain = "certain" if shape.encoding_is_certain else "a guess; check a text with accents"
        yield setting_line("encoding", shape.encoding, is_certain)
    table = settings.table or shape.wrapped_in
    if table is None and shape.kind != "saved_dataset":
        table = next((name for name, rows in shape.tables.items() if rows), None)
    if table is not None:
        yield setting_line("table", table, "the list of records" if shape.wrapped_in else "the table that was looked at")
    if (parts := given_parts(inspection)) is None:
        return
    if parts.column is not None:
        yield setting_line("split", parts.column, f"column of given parts: {parts.text()}")
    yield f"  # join_parts: true     # where the step split deals all rows anew: see {UNDECIDED} there"


def _about_lines(inspection: "Inspection") -> Iterator[str]:
    columns = {column.path: column for column in inspection.columns}
    for role in ("rater", "created_at", "source_id", "model"):
        candidates = [candidate for candidate in inspection.roles[role] if _is_plain_path(candidate.column)]
        if role == "rater" and inspection.message_table is not None:
            continue  # who wrote the message, not who judged it
        if candidates and role == "created_at" and not _are_moments(columns[candidates[0].column]):
            yield from _time_lines(columns[candidates[0].column])
        elif candidates and candidates[0].is_named:
            yield setting_line(role, candidates[0].column, candidates[0].evidence)
        elif candidates:
            yield "  # " + setting_line(role, candidates[0].column, candidates[0].evidence, 0)
    for candidate in inspection.roles["split"][:1] if given_parts(inspection) is None else ():
        yield f"  # the column {clip(candidate.column, 60)} looks like a given split ({candidate.evidence})"


def _time_values(column: ColumnProfile) -> Sequence[Any]:
    return [value for _, value in list(column.counts)[:200]]


def _are_moments(column: ColumnProfile) -> bool:
    values = _time_values(column)
    return column.share_of("time") > 0.9 or sum(moment(value) is not None for value in values) >= 0.9 * len(values)


def _time_lines(column: ColumnProfile) -> Iterator[str]:
    """Times in another order than ISO's: their format where the values allow one only, else which they allow."""
    values = _time_values(column)
    formats = time_formats(values)
    example = yaml_value(clip(str(values[0]), 40)) if values else ""
    for at, format in enumerate(formats):
        setting = {"column": column.path, "format": format}
        if len(formats) == 1:
            yield setting_line("created_at", setting, f"all {len(values):,} values read so, e.g. {example}")
        else:
            which = "which comes first, day or month, no value shows" if at == 0 else "or"
            yield with_comment(f"  # created_at: {yaml_value(setting)}", which)
    if not formats:
        yield _no_format_line(column.path, values)


def _no_format_line(path: str, values: Sequence[Any]) -> str:
    """Times that no one format reads; of some that read as they are, those that do not are the example."""
    unread = [value for value in values if moment(value) is None]
    example = f"e.g. {yaml_value(clip(str(unread[0]), 40))}" if unread else ""
    if len(unread) == len(values):
        what = f"its name; but it does not read as a time, {example}: say how it is written"
        return with_comment(f"  # created_at: {yaml_value({'column': path, 'format': UNDECIDED})}", what)
    n_read = len(values) - len(unread)
    what = f"its name; but of {len(values):,} different values {n_read:,} read as times, others do not, {example}: {ONE_WAY}"
    return with_comment(f"  # created_at: {yaml_value(path)}", what)


def _is_plain_path(path: str) -> bool:
    """Whether no list is on the way: who judged an entry of a list, and when, its format reads beside it."""
    return "[" not in path and not any(part.lstrip("-").isdigit() for part in path.split("."))

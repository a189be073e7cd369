"""`kd.inspect`: what a file is, its columns, what each may be, and a recipe to begin with. Nothing is believed of a label."""

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ktodata.errors import FormatError
from ktodata.formats.data_files import Source, find_sources, on_this_machine
from ktodata.formats.dialects import FORMATS, detect_format
from ktodata.formats.dialects.judged_turns import JUDGED_TURNS
from ktodata.formats.dialects.trees import OASST, OPEN_WEBUI
from ktodata.formats.file_types.file_settings import MAX_RECORD_MB, FileSettings
from ktodata.formats.file_types.file_shape import FileShape, file_shape
from ktodata.formats.file_types.open_files import read_records
from ktodata.formats.file_types.saved_data import hub_dataset, split_sizes
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.format import Fields
from ktodata.formats.in_memory import NAME, records_in_memory
from ktodata.formats.inspection.column_profiles import ColumnProfile, profile_columns
from ktodata.formats.inspection.column_roles import ROLES, Role, RoleCandidate, column_roles
from ktodata.formats.inspection.compared_columns import compared_columns
from ktodata.formats.inspection.given_parts import given_parts
from ktodata.formats.inspection.label_choices import LabelChoice, label_choices
from ktodata.formats.inspection.message_table import MessageTable, message_table
from ktodata.formats.inspection.recipe_draft import draft_recipe
from ktodata.formats.inspection.same_question import SameQuestion, same_questions
from ktodata.formats.inspection.text_draft import is_paired
from ktodata.formats.inspection.trial_reading import NOTHING_READ, trial_reading
from ktodata.formats.inspection.verdict_choices import verdict_choices
from ktodata.formats.label_rules import LabelRule
from ktodata.formats.records import clip
from ktodata.visible_text import clean

MAX_RECORDS = 2_000
MAX_SHOWN_COLUMNS = 60
NOT_TRIED = "How many records the recipe reads is not known yet: it leaves a column to choose."
MIN_FORMAT_SHARE = 0.5
# formats that keep verdicts by name, the label being one of these names and no column; and those with columns of verdicts
ASKING = (
    *(format.name for format in FORMATS.values() if format.names_verdicts),
    *(OPEN_WEBUI.name, OASST.name, JUDGED_TURNS.name),
)
SCORE_LISTS = {"scores", "feedback", "annotations", "responses"}


@dataclass(frozen=True)
class Inspection:
    """What the first records of a file, or of what is in memory, show.

    path, name : where it is, and what messages call it.
    shape, settings : what the file is, and what was said about it.
    n_records : records looked at; `is_whole`: the file has no others. `problems`: reasons of those that cannot be read.
    columns : each column with its types, counts and examples; `n_more_columns` are not among them.
    roles : for prompt, completion, messages, label, rater, ... the columns that may be it, the likeliest first.
    labels : the columns that may be the label, with each value's count. What a value means is for a person to say.
    questions : those of them that may be several raters' answers to one question.
    format : the format that most records look like, and its share of them; None: none. format_shares : of every format.
    compared : two columns of answers, of which the label says the better.
    message_table : its columns, where each record is one message of a conversation.
    trial : what would become of the records with the drafted recipe, whatever the label's values mean; None: a column is open.
    """

    path: str
    name: str
    shape: FileShape
    settings: FileSettings
    n_records: int
    is_whole: bool
    problems: Mapping[str, int]
    columns: Sequence[ColumnProfile]
    n_more_columns: int
    roles: Mapping[Role, Sequence[RoleCandidate]]
    labels: Sequence[LabelChoice]
    format_shares: Mapping[str, float]
    compared: tuple[str, str] | None
    message_table: MessageTable | None
    trial: str | None = None
    questions: Sequence[SameQuestion] = ()

    @property
    def format(self) -> str | None:
        """The format that most records look like."""
        return next(iter(self.format_shares), None)

    @property
    def format_share(self) -> float:
        """Which share of the records look like it."""
        return next(iter(self.format_shares.values()), 0.0)

    @property
    def is_readable(self) -> bool:
        """Whether the drafted recipe reads any of the records, once its label has a meaning."""
        return self.trial is not None and not self.trial.startswith(NOTHING_READ)

    def recipe(self, relative_to: str | Path | None = None) -> str:
        """A recipe as YAML: each choice with its evidence in a comment. A run refuses it until the label's meaning is said."""
        return draft_recipe(self, relative_to)

    def text(self) -> str:
        """A summary for a terminal."""
        records = self._records_text()
        lines = [f"{clip(self.name)}: {self.shape.text()}", f"  ({self.shape.evidence})", records]
        if self.shape.tables:
            tables = (
                f"{clip(table, 40)} ({'not counted' if rows is None else f'{rows:,}'})"
                for table, rows in self.shape.tables.items()
            )
            lines.append(f"tables: {', '.join(islice(tables, 12))}")
        lines += ["", *_table_lines(self.column_rows()), *self._more_columns(), "", *self._role_lines()]
        return "\n".join(lines)

    def _records_text(self) -> str:
        text = f"{self.n_records:,} record{'s' * (self.n_records != 1)}" + ("" if self.is_whole else ", the first of more")
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.problems.items())
        return f"{text}, {sum(self.problems.values()):,} of them unreadable ({reasons})" if reasons else text

    def _more_columns(self) -> list[str]:
        n_more = self.n_more_columns + max(len(self.columns) - MAX_SHOWN_COLUMNS, 0)
        lists = {column.sizes.path: column.sizes for column in self.columns if column.place and column.sizes}
        notes = [sizes.note() for sizes in lists.values() if not sizes.are_all_listed]
        return [*notes, *([f"and {n_more:,} more columns"] if n_more else [])]

    def column_rows(self) -> list[tuple[str, str, str, str, str]]:
        """(column, type, values, different values, examples) of each column, as text for people."""
        return [
            (
                clip(column.path, 60),
                column.type_text(),
                f"{column.n_holders:,}" + (f" ({column.n_null:,} empty)" if column.n_null else ""),
                "many" if column.n_distinct is None else f"{column.n_distinct:,}",
                ", ".join(column.examples),
            )
            for column in self.columns[:MAX_SHOWN_COLUMNS]
        ]

    @property
    def has_json_text(self) -> bool:
        """Whether prompt, completion or messages hold JSON as text: a format that only knows their names takes it for words."""
        texts: tuple[Role, ...] = ("messages", "prompt", "completion")
        chosen = {candidate.column for role in texts for candidate in self.roles[role][:1]}
        json_texts = ("conversation as JSON text", "turn as JSON text")
        return any(column.path in chosen and column.share_of(*json_texts) > 0 for column in self.columns)

    def _format_line(self) -> str:
        if self.format is None and self.message_table is not None:
            return "format      none: each record is one message of a conversation"
        if self.format is None:
            return "format      none that is known; prompt and completion are named by their columns"
        share = f"{self.format_share:.0%} of the records look like it"
        return f"format      {self.format}: {share}" + (
            " by its names, but its messages are JSON text" if self.has_json_text else ""
        )

    def _role_lines(self) -> list[str]:
        lines = [self._format_line()]
        for role in ROLES:
            lines += [
                f"{role if at == 0 else '  or':<11} {clip(candidate.column, 60)}: {candidate.evidence}{self._is_open(candidate)}"
                for at, candidate in enumerate(self.roles[role])
                if role != "label" and (candidate.is_named or at == 0 or self._is_open(candidate))
            ]
        if not is_paired(self):
            lines += [f"{'label' if at == 0 else '  or':<11} {choice.text()}" for at, choice in enumerate(self.labels)]
        if (parts := given_parts(self)) is not None:
            lines.append(f"parts       {parts.text()}: keep them, or deal all rows anew? The recipe waits for the choice.")
        return [*lines, "", f"As drafted, {self.trial}." if self.trial else NOT_TRIED, self._label_advice()]

    def _is_open(self, candidate: RoleCandidate) -> str:
        """Of a text that no name and no format decides; empty where one does."""
        is_text = candidate.role in ("prompt", "completion") and not candidate.is_named
        return "; yours to choose" if is_text and not (self.format or self.compared or self.message_table) else ""

    def _label_advice(self) -> str:
        if is_paired(self):
            return "The format itself says which answer is better."
        if self.labels:
            return "What the values of the label mean is yours to say; nothing here is taken from their names."
        return "No column looks like a label."

    def as_dict(self) -> dict[str, Any]:
        """The inspection as JSON values."""
        names = ("column", "type", "values", "distinct", "examples")
        return {
            "file": self.name,
            "shape": {"kind": self.shape.kind, "encoding": self.shape.encoding, "compression": self.shape.compression}
            | {"delimiter": self.shape.delimiter, "wrapped_in": self.shape.wrapped_in, "evidence": self.shape.evidence}
            | {"encoding_is_certain": self.shape.encoding_is_certain, "tables": dict(self.shape.tables)},
            "records": self.n_records,
            "is_whole": self.is_whole,
            "problems": dict(self.problems),
            "more_columns": self._more_columns(),
            "columns": [dict(zip(names, row, strict=True)) for row in self.column_rows()],
            "roles": {
                role: [{"column": candidate.column, "evidence": candidate.evidence} for candidate in candidates]
                for role, candidates in self.roles.items()
            },
            "parts": None if (parts := given_parts(self)) is None else {"column": parts.column, "rows": dict(parts.sizes)},
            "reading": self.trial,
            "labels": [choice.as_dict() for choice in self.labels],
            "format": self.format,
            "format_share": self.format_share,
        }

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        cells = "".join("<tr>" + "".join(f"<td>{_shown(cell)}</td>" for cell in row) + "</tr>" for row in self.column_rows())
        head = "".join(f"<th>{name}</th>" for name in ("column", "type", "values", "different", "examples"))
        roles = "".join(f"<li>{_shown(line)}</li>" for line in [*self._more_columns(), *self._role_lines()] if line)
        records = self._records_text()
        return (
            f"<p><strong>{_shown(clip(self.name))}</strong>: {_shown(self.shape.text())}; {_shown(records)}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table><ul>{roles}</ul>"
        )


def _shown(text: str) -> str:
    return html.escape(clean(text))


def _table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under their names, in columns as wide as their longest cell; the last column ends where it ends."""
    table = [("column", "type", "values", "different", "examples"), *rows]
    widths = [max(len(row[at]) for row in table) for at in range(4)]
    padded = ([f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)] + [row[4]] for row in table)
    return ["  ".join(cells).rstrip() for cells in padded]


def inspect(
    data: Any,
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
    table: str | None = None,
    max_record_mb: float = MAX_RECORD_MB,
) -> Inspection:
    """Look at feedback before it is read for good: what it is, its columns, which of them may be prompt, completion and label.

    data : a file, by its path; or what is in memory: a polars or pandas frame, a list of dicts, a datasets.Dataset
    Up to 2,000 records are read. delimiter, encoding, table and max_record_mb are as for `kd.read`, where the content does not
    say it or says it wrongly. Raises FormatError for a file that is no feedback, EmptyDataError for an empty one.
    """
    settings = FileSettings(delimiter, encoding, table, max_record_mb)
    source, shape, records = _first_records(data, settings)
    is_whole, records = len(records) <= MAX_RECORDS, records[:MAX_RECORDS]
    usable = [record.record for record in records if record.problem is None and isinstance(record.record, Mapping)]
    if not usable:
        raise _nothing_readable(source, records)
    columns, n_more = profile_columns(usable)
    roles = column_roles(columns, len(usable))
    messages = message_table(columns, len(usable))
    shares = _format_shares(usable, [candidate.column for candidate in roles["label"]])
    compared = compared_columns(columns, next(iter(shares), None))
    labels = _labels(columns, roles["label"], None if compared else next(iter(shares), None), usable)
    inspection = Inspection(
        path=source.path,
        name=source.name,
        shape=shape,
        settings=settings,
        n_records=len(records),
        is_whole=is_whole,
        problems=dict(Counter(record.problem.reason for record in records if record.problem is not None).most_common()),
        columns=columns,
        n_more_columns=n_more,
        roles=roles,
        labels=[choice for choice in labels if messages is None or shares or choice.path not in messages.paths],
        format_shares=shares,
        compared=compared,
        message_table=messages,
    )
    drafted = replace(inspection, trial=trial_reading(inspection, usable), questions=same_questions(inspection.labels, usable))
    # of a format that asks for its verdicts by name, people's and models' columns are not to be mistaken for each other
    may_be_columns = shares and not set(shares) & set(ASKING)
    return _by_columns(drafted, usable) if may_be_columns and not drafted.is_readable else drafted


def _first_records(data: Any, settings: FileSettings) -> tuple[Source, FileShape, list[SourceRecord]]:
    """What it is, and one record more than are looked at, if there are so many."""
    if (held := records_in_memory(data, settings)) is not None:
        shape = FileShape("memory", content_evidence=f"a {type(data).__name__}")
        return Source(NAME, NAME, "file"), shape, list(islice(held, MAX_RECORDS + 1))
    source = _one_source(data)
    with on_this_machine(source) as here:
        shape = file_shape(here, settings)
        if shape.kind == "hub":
            shape = replace(shape, tables=split_sizes(hub_dataset(here)))
        return source, shape, list(islice(read_records(here, settings, shape), MAX_RECORDS + 1))


def _by_columns(inspection: Inspection, records: Sequence[Mapping[str, Any]]) -> Inspection:
    """The same without a format, where none of the records can be read in the one that they look like, but their columns can."""
    labels = _labels(inspection.columns, inspection.roles["label"], None, records)
    plain = replace(inspection, format_shares={}, labels=labels, questions=same_questions(labels, records))
    plain = replace(plain, trial=trial_reading(plain, records))
    return plain if plain.is_readable else inspection


def _labels(
    columns: Sequence[ColumnProfile],
    candidates: Sequence[RoleCandidate],
    format: str | None,
    records: Sequence[Mapping[str, Any]],
) -> list[LabelChoice]:
    """What the records' formats would ask for by name, and the columns that may be it besides."""
    by_name = verdict_choices(records)
    known = {choice.column for choice in by_name}
    if format in ASKING and (by_name or any(SCORE_LISTS & record.keys() for record in records)):
        return by_name
    return [*by_name, *(choice for choice in label_choices(columns, candidates, format) if choice.column not in known)]


def _nothing_readable(source: Source, records: Sequence[SourceRecord]) -> FormatError:
    first = next((record for record in records if record.problem is not None), None)
    why = "none is an object" if first is None else f"first: line {first.line:,}, {clip(str(first.problem), 120)}"
    return FormatError(f"{source.name!r}: none of the first {len(records):,} records can be read ({why}).")


def _one_source(file: str | Path) -> Source:
    if Path(file).is_file():
        return Source(str(file), Path(file).name, "file")
    sources = find_sources(file)
    if len(sources) > 1:
        raise FormatError(f"{str(file)!r} matches {len(sources):,} files; inspect looks at one, e.g. {sources[0].path!r}.")
    return sources[0]


def _format_shares(records: Sequence[Mapping[str, Any]], label_columns: Sequence[str]) -> dict[str, float]:
    """The formats of the records, the commonest first, with the label in its own column or in one of those that may be it.

    Nothing where fewer than half of the records look like the commonest.
    """
    for column in (None, *label_columns):
        fields = Fields(label=LabelRule(column))
        names = Counter(format.name for record in records if (format := detect_format(record, fields)) is not None)
        if names and names.most_common(1)[0][1] >= MIN_FORMAT_SHARE * len(records):
            return {name: count / len(records) for name, count in names.most_common()}
    return {}

"""A format: how its records are recognised, read and written; and the columns that the settings of `read` name for it."""

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast, get_args

from ktodata.errors import SettingError
from ktodata.feedback import COLUMNS, TEMPLATE_FIELDS
from ktodata.formats.label_rules import BOOLEANS, LabelRule, Meanings, label_rule
from ktodata.formats.message_records import MessageColumns, message_columns
from ktodata.formats.records import ABSENT, LabelledCompletion, Record, UnusableError, Verdict, Vote, is_nobody, listed, lookup
from ktodata.formats.times import time_reader
from ktodata.formats.turns import JudgedTurn

Columns = str | Sequence[str] | None
Row = Mapping[str, Any]
RATING = "rating"
ENTRIES = "[]"  # in a path: every entry of a list
SYSTEM = ("system[].type", "system[].text")  # beside the turns: a text, or its parts
# what a format of messages holds: a conversation, its verdict, and what its template is given
CONVERSATION = ("prompt", "completion", "label", "turns", "answer", "tools", "chat_template_kwargs")
# what a record is asked for where neither a setting nor its format names a column
USUAL = {"source_id": "id"}
GIVEN_PART = "given_part"  # the part that the source had put a row into; stages/split.py keeps it there


@dataclass(frozen=True)
class Fields:
    """Column names; an empty tuple or a missing key leaves the choice to the format."""

    prompt: tuple[str, ...] = ()
    completion: tuple[str, ...] = ()
    label: LabelRule = field(default_factory=LabelRule)
    votes: Mapping[str, str | None] = field(default_factory=dict)  # {column: rater}; None: a list of votes, which says no rater
    about: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    trusted: LabelRule | None = None
    keep: Mapping[str, str] = field(default_factory=dict)
    transcripts: bool = False
    messages: str | None = None
    time_format: str | None = None
    judged: JudgedTurn = "last"
    message_columns: MessageColumns | None = None
    part: str | None = None
    keep_parts: bool = False

    def label_column(self, own: str = "label") -> str:
        """The column of the label."""
        return self.label.column or own

    def verdict_columns(self, own: str = "label") -> tuple[str, ...]:
        """The columns that `verdict` reads: of the votes, and of the label unless votes are all that was asked for."""
        return (*self.votes, *(() if self.votes and not self.label.column else (self.label_column(own),)))

    def has_label(self, record: Record, own: str = "label") -> bool:
        """Whether the record has the column of the label, or of a vote where votes are all that was asked for."""
        columns = self.votes if self.votes and not self.label.column else (self.label_column(own),)
        return any(lookup(record, column) is not ABSENT for column in columns)

    def named_columns(self) -> list[tuple[str, str]]:
        """(setting, column) of every optional column that the reader named; one that is in no record is a mistake."""
        named = [("votes", column) for column in self.votes] + [("keep", column) for column in self.keep.values()]
        named += [(setting, column) for setting, columns in self.about.items() for column in columns]
        named += [("split", self.part)] if self.part else []
        return named + ([("trusted", self.trusted.column)] if self.trusted and self.trusted.column else [])

    def columns(self) -> set[str]:
        """The columns of a record that any setting names, as it names them."""
        paths = (
            *self.prompt,
            *self.completion,
            self.messages,
            self.label.column,
            *(column for _, column in self.named_columns()),
            *(self.message_columns.columns() if self.message_columns else ()),
        )
        return {path for path in paths if path}

    def read_paths(self) -> list[str]:
        """The paths of `columns`; lists of turns, on which verdicts stand, are read as a whole."""
        on_turns = {path for paths in self.about.values() for path in paths} | {self.label.column or ""}
        return [path.partition("[].")[0] if path in on_turns else path for path in self.columns()]

    @property
    def names_columns(self) -> bool:
        """Whether a setting says where the texts are: the format's own columns are then none of them."""
        return bool(self.prompt or self.completion or self.messages)

    def verdict(self, record: Record, own_column: str = "label", own: Meanings = BOOLEANS) -> Verdict:
        """The label of a record that judges one completion, with its votes. Raises UnusableError when there is none."""
        if self.votes:
            return self._verdict_of_votes(record)
        return self.judge(self._label_value(record, own_column), self.own_meanings(own_column, own))

    def own_meanings(self, own_column: str = "label", own: Meanings = BOOLEANS) -> Meanings:
        """What the format itself says of the label's values: `own`, of its own column; of one that a setting names nothing."""
        return own if self.label.column in (None, own_column) and not self.votes else {}

    def _label_value(self, record: Record, own_column: str) -> Any:
        column = self.label_column(own_column)
        value = lookup(record, column)
        if value is ABSENT:
            raise UnusableError("label_missing", f"no column {column!r}; the record has {listed(record)}")
        return value

    def judge(self, value: Any, own: Meanings = BOOLEANS) -> Verdict:
        """The verdict that one value gives."""
        return Verdict(self.label_of(value, own), rating=None if self.label.threshold is None else self.label.rating(value))

    def label_of(self, value: Any, own: Meanings = BOOLEANS) -> bool:
        """The label that one value gives."""
        label = self.label.truth(value, own)
        if label is None:
            raise UnusableError("unlabelled", "the label is null, or one that the recipe sets aside")
        return label

    def rated(self, record: Record, own_column: str) -> Verdict:
        """The label of a record whose format holds ratings: they need a threshold, or a meaning for each."""
        if not self.label.is_given and not self.votes:
            column = self.label_column(own_column)
            raise UnusableError(
                "needs_threshold", f"{column!r} is a rating: say label: {{column: {column}, at_least: ...}}, or desirable_at_most"
            )
        return self.verdict(record, own_column)

    def vote_values(self, record: Record) -> Iterator[tuple[str | None, Any]]:
        """(rater, value) of each vote that the record has; of a list each entry is one."""
        for column, rater in self.votes.items():
            value = lookup(record, column)
            if ENTRIES in column and isinstance(value, list):
                yield from ((rater, entry) for entry in value)
            elif value is not ABSENT:
                yield rater, value

    def _verdict_of_votes(self, record: Record) -> Verdict:
        values = list(self.vote_values(record))
        labels = ((rater, self.label.truth(value, {})) for rater, value in values)
        votes = [Vote(rater, label) for rater, label in labels if label is not None]
        if self.label.column is None:
            if not votes and any(not is_nobody(value) for _, value in values):
                raise UnusableError("unlabelled", "its votes are all ones that the recipe sets aside")
            return Verdict.by_votes(votes)
        label = self.label_of(self._label_value(record, self.label.column), {})
        # the label is a verdict of its own, unless it is one of the columns that were counted above
        return Verdict(label, votes if self.label.column in self.votes else [Vote(None, label), *votes])

    def take_respelt(self) -> dict[str, Counter[str]]:
        """By setting, the words that were read as another spelling of one with a meaning since the last call."""
        rules = {"label": self.label, **({"trusted": self.trusted} if self.trusted else {})}
        return {name: words for name, rule in rules.items() if (words := rule.take_respelt())}

    def trusted_label(self, record: Record) -> bool | None:
        """The expert's verdict, where there is one."""
        if self.trusted is None:
            return None
        value = lookup(record, self.trusted.column or "trusted_label")
        return None if value is ABSENT else self.trusted.truth(value)


@dataclass(frozen=True)
class TextColumns:
    """Where a record of plain texts has its prompt (in several columns: joined by line breaks), its completion and its label."""

    prompt: tuple[str, ...]
    completion: str
    label: str = "label"


@dataclass(frozen=True)
class Format:
    """A way in which others write feedback down.

    matches : whether a record looks like this format (types are not checked: that is what `read` is for).
    read : the completions that a record judges. Raises UnusableError with a reason when it cannot become rows.
    write : one record from one feedback row, or from the rows of one group. Raises CannotHoldError when it would not be true.
    group : the feedback column whose equal values make one record; None: a row is a record.
    holds : the feedback columns that come back when what was written is read again.
    takes_columns : whether the settings `prompt` and `completion` name its columns; else it has its own.
    example, settings : a record, and the settings of `read` that it needs.
    about : the record's columns that hold rater, created_at, source_id, ... unless a setting says otherwise.
    reads : paths of all that `read` looks at, beside texts, label and `about`: "scores[].value"; "*" is any key. A path names all
        that is inside, unless others name parts of it. What a record has beyond these, and no setting names, is not kept, and is
        counted by name; what `read` passes over inside of them it lists in LabelledCompletion.not_kept.
    texts, own_label : the columns of texts and of the label, read where no setting names others.
    names_verdicts : the label's setting names one of several verdicts, not a column.
    plain_texts : where records with these keys have their texts, if prompt and completion are texts: such are read many at once
        (`formats.columnar`). None: with these keys, or these settings, they are not.
    looks_into : fields at whose value `matches` looks, beside what is nested in an object or a list. All else it judges by names.
    """

    name: str
    matches: Callable[[Record, Fields], bool]
    read: Callable[[Record, Fields], list[LabelledCompletion]]
    write: Callable[[Sequence[Row]], dict[str, Any]]
    holds: tuple[str, ...]
    example: Record
    settings: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    own_label: str | None = None
    names_verdicts: bool = False
    group: str | None = None
    takes_columns: bool = False
    plain_texts: Callable[[Collection[str], Fields], TextColumns | None] = lambda _keys, _fields: None
    looks_into: tuple[str, ...] = ()

    @cached_property
    def fields(self) -> frozenset[str]:
        """The keys of a record that it knows."""
        paths = (*self.example, *self.about.values(), *self.reads, *self.texts, *((self.own_label,) if self.own_label else ()))
        return frozenset(re.split(r"[.\[]", path)[0] for path in paths)

    def read_paths(self, fields: Fields) -> list[str]:
        """The paths of all that is read with these settings; what has an unknown name is not read."""
        texts = () if fields.names_columns and self.takes_columns else self.texts
        label = (self.own_label,) if self.own_label and not fields.label.column and not fields.votes else ()
        about = {**USUAL, **self.about}
        usual = (column for name, column in about.items() if name not in fields.about)
        named = [path for path in fields.read_paths() if not (self.names_verdicts and path == fields.label.column)]
        return [*self.reads, *texts, *label, *usual, *TEMPLATE_FIELDS, *SYSTEM, *named]

    @property
    def summary(self) -> str:
        """What it is: the first words of its `read`, or of its file."""
        words = self.read.__doc__ or sys.modules[self.read.__module__].__doc__ or ""
        return inspect.cleandoc(words).partition("\n\n")[0].replace("\n", " ")


def _column_names(setting: Columns, *, name: str, most: int = 9) -> tuple[str, ...]:
    """A setting that is a column name, or a list of at most `most`."""
    names = () if setting is None else (setting,) if isinstance(setting, str) else tuple(setting)
    if not all(isinstance(column, str) for column in names) or len(names) > most:
        raise SettingError(f"{name} is a column name or a list of at most {most}; got {setting!r}.")
    return names


def make_fields(
    *,
    prompt: Columns,
    completion: Columns,
    label: str | Mapping[Any, Any] | None,
    votes: Mapping[str, str] | Sequence[str] | None,
    trusted: str | Mapping[Any, Any] | None,
    keep: Sequence[str] | Mapping[str, str] | None,
    transcripts: bool,
    messages: str | None = None,
    judged: str = "last",
    conversation: str | Mapping[str, Any] | None = None,
    part: str | None = None,
    keep_parts: bool = False,
    about: Mapping[str, Any],
) -> Fields:
    """Check the settings of `read` and put them in one place."""
    rule = label_rule(label)
    if judged not in get_args(JudgedTurn):
        raise SettingError(f"judged is {' or '.join(get_args(JudgedTurn))}; got {judged!r}.")
    times, time_format = _time_column(about.get("created_at"))
    columns = {**about, "created_at": times}
    voters = dict(votes) if isinstance(votes, Mapping) else {name: None if ENTRIES in name else name for name in votes or ()}
    return Fields(
        prompt=_column_names(prompt, name="prompt"),
        completion=_column_names(completion, name="completion", most=2),
        label=rule,
        votes=voters,
        about={
            name: _column_names(column, name=name, most=2 if name == "model" else 1) for name, column in columns.items() if column
        },
        trusted=_trusted_rule(trusted, rule),
        keep=_kept_columns(keep, rule),
        transcripts=transcripts,
        messages=messages,
        time_format=time_format,
        judged=cast("JudgedTurn", judged),
        message_columns=message_columns(conversation),
        part=part,
        keep_parts=keep_parts,
    )


def _time_column(setting: str | Mapping[str, str] | None) -> tuple[str | None, str | None]:
    """Column and format of `created_at`, which is a column or {column: ts, format: "%d/%m/%Y"}."""
    if setting is None or isinstance(setting, str):
        return setting, None
    if not isinstance(setting, Mapping) or not {"column"} <= set(setting) <= {"column", "format"}:
        raise SettingError(f'created_at is a column, or {{column: ts, format: "%d/%m/%Y"}}; got {setting!r}.')
    format = setting.get("format")
    time_reader(format)  # raises for one that cannot be meant
    return setting["column"], format


def _trusted_rule(setting: str | Mapping[Any, Any] | None, label: LabelRule) -> LabelRule | None:
    """A bare column name is read with the meanings that were said of the label, or as booleans where none were.

    Not as both: beside `is_bad: {true: undesirable}` an expert's true means the same, and no value may say what it does not.
    """
    if setting is None:
        return None
    rule = label_rule(setting, name="trusted")
    if rule.is_given:
        return rule
    is_own = label.names_sides or rule.column == "trusted_label" or not label.is_given
    return LabelRule(rule.column, BOOLEANS if is_own else label.meanings or {})


def _kept_columns(keep: Sequence[str] | Mapping[str, str] | None, label: LabelRule) -> Mapping[str, str]:
    kept = dict(keep) if isinstance(keep, Mapping) else {column: column for column in keep or ()}
    taken = [*COLUMNS, GIVEN_PART] + ([RATING] if label.threshold is not None else [])
    for name in kept:
        if name in taken:
            raise SettingError(
                f"keep: {name!r} is a column of the feedback table. Give the kept column another name: "
                f"keep: {{original_{name}: {kept[name]}}}, or, if it is the {name} itself, say {name}: {kept[name]}."
            )
    return kept

"""One record per message, as chat databases and SQL dumps have them: they become the answers, each with what is before it.

A conversation is the messages with one value in a column. What comes before an answer: its parents, where they are named, else
the messages before it, by time where `created_at` is named, else as they stand in the file. A file is in memory as a whole.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ktodata.errors import SettingError
from ktodata.formats.file_types.source_record import SourceRecord
from ktodata.formats.label_rules import yaml_value
from ktodata.formats.records import ABSENT, Record, UnusableError, clip, lookup, need, whole
from ktodata.formats.times import moment
from ktodata.formats.turns import ROLES

TimeReader = Callable[[Any], datetime | None]
# under these an answer's record holds what is before it, and itself, beside its own columns
BEFORE, ANSWER = "(turns before)", "(answer)"
TEXT_COLUMNS = ("content", "text")
CARRIED = ("tool_calls", "tool_call_id", "reasoning_content")
KEYS = ("column", "id", "parent", "role", "text")
# what stands for "no parent" in exports that have no null there, unless a message of the conversation has that id
NO_PARENT = ("0", "False", "00000000-0000-0000-0000-000000000000", "client-created-root")


@dataclass(frozen=True)
class MessageColumns:
    """Where a message's conversation, id, parent, role and text stand; `roles` says what other values of role mean."""

    conversation: str
    id: str = "id"
    parent: str | None = None
    role: str = "role"
    text: str | None = None
    roles: Mapping[tuple[type, Any], str] = field(default_factory=dict)

    def columns(self) -> tuple[str, ...]:
        """All columns that hold any of it."""
        texts = (self.text,) if self.text else TEXT_COLUMNS
        return (self.conversation, self.id, *((self.parent,) if self.parent else ()), self.role, *texts, *CARRIED, BEFORE, ANSWER)


def message_columns(setting: str | Mapping[str, Any] | None) -> MessageColumns | None:
    """The setting `conversation`: a column, or {column, id, parent, role, text}; role may be {column: ..., VALUE: user, ...}."""
    if setting is None or isinstance(setting, str):
        return None if setting is None else MessageColumns(setting)
    names = dict(setting)
    role = names.pop("role", "role")
    roles = dict(role) if isinstance(role, Mapping) else {"column": role}
    names["role"] = roles.pop("column", "role")
    wrong = [key for key, value in names.items() if key not in KEYS or not isinstance(value, str)]
    if wrong or "column" not in names or not all(isinstance(meaning, str) for meaning in roles.values()):
        raise SettingError(
            "conversation is a column, or {column: ..., id: ..., parent: ..., role: ..., text: ...}, where role may be "
            f"{{column: ..., VALUE: user, VALUE: assistant}}; got {clip(setting, 80)}."
        )
    return MessageColumns(names.pop("column"), **names, roles={(type(value), value): meaning for value, meaning in roles.items()})


@dataclass(slots=True)
class _Message:
    entry: SourceRecord
    role: str

    @property
    def record(self) -> Record:
        record: Record = self.entry.record
        return record


def answer_records(
    entries: Iterable[SourceRecord],
    columns: MessageColumns,
    label: str,
    created_at: str | None,
    time_of: TimeReader = moment,
    named: Container[str] = (),
) -> Iterator[SourceRecord]:
    """A record for every answer among the messages of a file, and for every message with a verdict that is no answer.

    named : columns of a message that a setting names; what else a message before an answer holds is counted as its turn's.
    """
    conversations: dict[str, list[_Message]] = {}
    for entry in entries:
        try:
            if entry.problem is not None:
                raise entry.problem
            message = _Message(entry, _role_of(entry.record, columns))
            key = need(entry.record, columns.conversation)
            if key is None or key == "":
                raise UnusableError("no_conversation", f"{columns.conversation!r} is empty")
            conversations.setdefault(repr(key), []).append(message)
        except UnusableError as problem:
            yield SourceRecord(entry.line, entry.record, problem, entry.raw)
    for messages in conversations.values():
        yield from _answers(*_in_time(messages, created_at, time_of), columns, label, named)


def _role_of(record: Record, columns: MessageColumns) -> str:
    value = need(record, columns.role)
    role = columns.roles.get((type(value), value)) if isinstance(value, str | bool | int | float) else None
    if role is None and (columns.roles or not isinstance(value, str)):
        advice = f"say conversation: {{role: {{column: {columns.role}, {yaml_value(value)}: user or assistant}}}}"
        raise UnusableError("not_a_turn", f"the role {yaml_value(value)} is none that is named; {advice}")
    return ROLES.get(role or value, role or value)


def _in_time(messages: list[_Message], created_at: str | None, time_of: TimeReader) -> tuple[list[_Message], bool]:
    """The messages by their times, as they stand where no column of times is named; and whether that is known to be an order."""
    if created_at is None:
        return messages, True
    times = [time_of(lookup(message.record, created_at)) for message in messages]
    if not all(times):
        return messages, False
    ordered = [message for _, message in sorted(zip(times, messages, strict=True), key=lambda pair: pair[0])]  # type: ignore[arg-type, return-value]
    return ordered, True


def _answers(
    messages: Sequence[_Message], is_ordered: bool, columns: MessageColumns, label: str, named: Container[str]
) -> Iterator[SourceRecord]:
    by_id: dict[str, list[_Message]] = {}
    for message in messages:
        by_id.setdefault(_id(lookup(message.record, columns.id)), []).append(message)
    for place, message in enumerate(messages):
        entry, is_judged = message.entry, lookup(message.record, label) not in (ABSENT, None, "")
        problem = None if is_judged else UnusableError("unlabelled", "no verdict on it")
        if message.role != "assistant":
            if is_judged:
                reason = UnusableError("not_an_answer", f"a verdict on a message of {clip(message.role, 20)!r}")
                yield SourceRecord(entry.line, entry.record, reason, entry.raw)
            continue
        try:
            if not (is_ordered or columns.parent):
                raise UnusableError(
                    "no_order", "a message of its conversation has no time that can be read: none is known to be before"
                )
            before = _parents(message, by_id, columns) if columns.parent else messages[:place]
            if not before:
                raise UnusableError("no_prompt", "nothing is before the answer")
            turns = {BEFORE: [_turn(other, columns, named) for other in before], ANSWER: [_turn(message, columns)]}
            yield SourceRecord(entry.line, {**entry.record, **turns}, None, entry.raw)
        except UnusableError as broken:
            yield SourceRecord(entry.line, entry.record, problem or broken, entry.raw)


def _parents(message: _Message, by_id: Mapping[str, Sequence[_Message]], columns: MessageColumns) -> list[_Message]:
    path: list[_Message] = []
    while (parent := need(message.record, str(columns.parent))) not in (None, ""):
        others = by_id.get(_id(parent), ())
        if _id(parent) in NO_PARENT and (not others or message in others):
            break
        if len(others) != 1:
            raise UnusableError(
                "no_parent", f"{len(others)} messages of the conversation have the id {clip(parent, 40)}, its parent's"
            )
        message = others[0]
        if any(message is other for other in path):
            raise UnusableError("no_parent", "the messages are each other's parents")
        path.insert(0, message)
    return path


def _id(value: Any) -> str:
    return str(whole(value))


def _turn(message: _Message, columns: MessageColumns, named: Container[str] | None = None) -> dict[str, Any]:
    """A message as a turn; `named`: with all that no setting names, to be counted. An answer's is counted as its record's."""
    record = message.record
    text = columns.text or next((name for name in TEXT_COLUMNS if name in record), "content")
    carried = {name: record[name] for name in CARRIED if record.get(name)}
    rest = {} if named is None else {key: value for key, value in record.items() if key not in named}
    return {**rest, "role": message.role, "content": need(record, text), **carried}

"""One record per message: chat databases and SQL dumps. Which column is the conversation, who speaks, what was said before.

Who speaks is taken from words for it only (user, assistant, human, ...); of other values a person says which is which.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ktodata.formats.inspection.column_profiles import ColumnProfile
from ktodata.formats.inspection.column_roles import snake_name
from ktodata.formats.inspection.draft_lines import UNDECIDED
from ktodata.formats.turns import ROLES, STANDARD_ROLES

SPEAKERS = {**ROLES, **{role: role for role in STANDARD_ROLES}}
MAX_SPEAKERS = 6
_CONVERSATION = ("conversation", "thread", "chat", "session", "dialog", "dialogue", "ticket", "channel")
_SPEAKER = ("role", "sender", "sender_type", "author", "author_role", "speaker", "from", "message_type", "type")
_PERSON = {"user", "human", "customer", "bot", "assistant", "ai", "agent"}
_TEXT = ("content", "text", "message", "body", "message_text", "msg", "message_content")


@dataclass(frozen=True)
class MessageTable:
    """The columns of a table of messages; `roles` says what each value of role means, empty where they are the usual words."""

    conversation: ColumnProfile
    role: ColumnProfile
    text: ColumnProfile
    id: ColumnProfile | None
    parent: ColumnProfile | None
    roles: dict[Any, str]

    @property
    def paths(self) -> set[str]:
        """All of its columns."""
        columns = (self.conversation, self.role, self.text, self.id, self.parent)
        return {column.path for column in columns if column is not None}


def message_table(columns: Sequence[ColumnProfile], n_records: int) -> MessageTable | None:
    """The table of messages that the columns are, if they are one."""
    plain = [column for column in columns if "[" not in column.path and column.n_values]
    if any(column.share_of("conversation", "conversation as JSON text", "turn", "turn as JSON text") for column in plain):
        return None
    conversation = next((column for column in plain if _is_conversation_id(column) and _repeats(column, n_records)), None)
    role = next((column for column in plain if _is_speaker(column, n_records)), None)
    text = _text_column(plain)
    if conversation is None or role is None or text is None:
        return None
    unique = [column for column in plain if _is_unique(column, n_records) and column is not text]
    key = next((column for column in unique if _name(column).rpartition("_")[2] in ("id", "uuid", "key")), None)
    parent = next((column for column in plain if "parent" in _name(column).split("_")), None)
    is_usual = all(kind is str and value in SPEAKERS for kind, value in role.counts)
    roles = {} if is_usual else {value: SPEAKERS.get(value, UNDECIDED) for _, value in role.counts}
    return MessageTable(conversation, role, text, key, parent if key is not None else None, roles)


def _name(column: ColumnProfile) -> str:
    return snake_name(column.path.rpartition(".")[2])


def _is_conversation_id(column: ColumnProfile) -> bool:
    words = _name(column).split("_")
    return words[0] in _CONVERSATION and words[1:] in ([], ["id"], ["uuid"], ["key"])


def _repeats(column: ColumnProfile, n_records: int) -> bool:
    """Whether its values come back: a conversation has several messages."""
    return column.n_values >= 0.9 * n_records and column.n_again > 0


def _is_unique(column: ColumnProfile, n_records: int) -> bool:
    return column.n_values == n_records and not column.n_again


def _is_speaker(column: ColumnProfile, n_records: int) -> bool:
    """A column of words for who speaks, or of few values under a name that says so."""
    if column.n_values < 0.9 * n_records or column.n_distinct is None or not 2 <= column.n_distinct <= MAX_SPEAKERS:
        return False
    values = [value for _, value in column.counts]
    speakers = {SPEAKERS.get(value) for value in values if isinstance(value, str)}
    if {"user", "assistant"} <= speakers:
        return True
    if column.share_of("boolean") == 1 or set(map(str, values)) <= {"0", "1", "true", "false", "True", "False", "t", "f"}:
        return bool(_PERSON & set(_name(column).split("_"))) and len(_name(column).split("_")) > 1
    return _name(column) in _SPEAKER and column.share_of("text") == 1 and column.n_distinct <= 4


def _text_column(columns: Sequence[ColumnProfile]) -> ColumnProfile | None:
    texts = [column for column in columns if column.share_of("text", "JSON text") > 0.9 and column.mean_chars > 0]
    named = {_name(column): column for column in reversed(texts)}
    return next((named[name] for name in _TEXT if name in named), None)


def table_lines(table: MessageTable) -> Iterator[tuple[str, Any, str]]:
    """(setting, value, evidence) of `conversation:`, without what is its default."""
    distinct = "over 1,000" if table.conversation.n_distinct is None else f"{table.conversation.n_distinct:,}"
    yield "column", table.conversation.path, f"its name; {distinct} conversations in {table.conversation.n_values:,} messages"
    if table.id is not None:
        yield "id", table.id.path, "no value twice"
    if table.parent is not None:
        yield "parent", table.parent.path, f"its name; {table.parent.n_null:,} empty"
    counts = ", ".join(f"{value} {count:,}" for (_, value), count in table.role.counts.most_common())
    if table.roles:
        yield "role", {"column": table.role.path, **table.roles}, f"who speaks: user or assistant? {counts}"
    else:
        yield "role", table.role.path, counts
    yield "text", table.text.path, f"text, {table.text.mean_chars:,.0f} characters on average"

"""The columns of records: a dotted path into objects and lists, the types of its values, how many there are, examples."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ktodata.formats.format import ENTRIES
from ktodata.formats.inspection.list_places import (
    MAX_BARE_ENTRIES,
    ListSizes,
    bare_values,
    is_bare,
    is_last,
    is_vote_list,
    listed_places,
    place_in_words,
    place_of,
)
from ktodata.formats.label_rules import yaml_value
from ktodata.formats.records import clip

MAX_COLUMNS = 300
MAX_DEPTH = 8
MAX_DISTINCT = 1_000
MAX_VALUE_CHARS = 100  # a longer text is no label, rater or id
EXAMPLES = 3
EXAMPLE_CHARS = 60
# an entry of a list is found by the first of these that names it: scores[name=thumb].value
ENTRY_NAMES = ("name", "key", "criterion", "metric", "from_name", "question")
ASSISTANT = frozenset(("assistant", "gpt", "ai", "model", "bot", "chatbot", "AIMessage", "AIMessageChunk"))
TURN_KEYS = frozenset(("role", "from", "type", "content", "value", "id", "lc", "name", "tool_call_id"))
# LangChain says it in `type`, which in other exports is the type of something else
TYPE_ROLES = ASSISTANT | {"human", "system", "tool", "function", "HumanMessage", "SystemMessage", "ToolMessage"}


def turn_role(value: Any) -> str | None:
    """Who speaks in a message of a conversation, in the words of the file; None where a value does not look like one."""
    if not isinstance(value, Mapping):
        return None
    if isinstance(value.get("kwargs"), Mapping) and "lc" in value:
        names = value.get("id")
        return str(names[-1]) if isinstance(names, list) and names else None
    if isinstance(role := value.get("role"), str) and any(key in value for key in ("content", "parts", "tool_calls")):
        return role
    if isinstance(role := value.get("from"), str) and ("value" in value or "content" in value):
        return role
    is_typed = value.get("type") in TYPE_ROLES if isinstance(value.get("type"), str) else False
    return str(value["type"]) if is_typed and ("content" in value or "data" in value) else None


def is_conversation(value: Any) -> bool:
    """Whether a value looks like a list of messages."""
    return isinstance(value, list) and bool(value) and all(turn_role(item) is not None for item in value)


def is_message_tree(value: Any) -> bool:
    """Whether a value looks like messages under their ids, as chat interfaces keep a conversation with its branches."""
    return isinstance(value, Mapping) and bool(value) and all(turn_role(item) is not None for item in value.values())


def json_in_text(value: Any) -> Any:
    """The list or object that a text holds as JSON; None where it is no such text."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return None
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, list | dict) else None


@dataclass
class ColumnProfile:
    """What the values of one column are.

    types : how many values are text, number, boolean, conversation, turn, list, object, time, ...; nulls are not among them.
    n_null : values that are null, empty text or not there at all.
    counts : each short scalar with its count, up to MAX_DISTINCT; `has_more_values`: there are others besides.
    n_again : scalars that came before, whatever their number.
    n_assistant_last : conversations that end with the assistant's turn, and turns that are the assistant's.
    n_with_answer : conversations that hold a turn of the assistant, wherever.
    n_repeated : records in which the path stands more than once.
    sizes : how many entries the lists have that it is an entry of.
    """

    path: str
    n_records: int = 0
    n_null: int = 0
    types: Counter[str] = field(default_factory=Counter)
    counts: Counter[tuple[type, Any]] = field(default_factory=Counter)
    has_more_values: bool = False
    n_again: int = 0
    others: set[int] = field(default_factory=set, repr=False)  # hashes of the values that `counts` has no place for
    examples: list[str] = field(default_factory=list)
    n_chars: int = 0
    n_assistant_last: int = 0
    n_with_answer: int = 0
    n_repeated: int = 0
    sizes: ListSizes | None = None

    @property
    def n_values(self) -> int:
        """Values that are there."""
        return self.types.total()

    @property
    def n_holders(self) -> int:
        """Values that are there; of a list's entries, the lists."""
        return self.n_records if is_vote_list(self.path) else self.n_values

    @property
    def place(self) -> str:
        """Which entry of a list it is, where the list has several; else empty."""
        if self.n_repeated and not is_vote_list(self.path) and "=" in self.path:
            return "the first of several that are named so"
        place = place_of(self.path)
        return "" if place is None or self.sizes is None or self.sizes.most < 2 else place_in_words(place[1], self.sizes)

    @property
    def n_distinct(self) -> int | None:
        """How many different values; None where they were too many or too long to count."""
        return None if self.has_more_values else len(self.counts)

    @property
    def mean_chars(self) -> float:
        """Length of its texts."""
        n_texts = self.types["text"] + self.types["JSON text"]
        return self.n_chars / n_texts if n_texts else 0.0

    def share_of(self, *types: str) -> float:
        """Which share of its values are of one of these types."""
        return sum(self.types[name] for name in types) / self.n_values if self.n_values else 0.0

    def type_text(self) -> str:
        """Its types in words, the commonest first."""
        names = [name if len(self.types) == 1 else f"{name} {count:,}" for name, count in self.types.most_common(3)]
        return ", ".join(names) or "empty"

    def add(self, value: Any) -> None:
        """Count one value."""
        if value is None or (isinstance(value, str) and not value.strip()):
            self.n_null += 1
            return
        self.types[self._type_of(value)] += 1
        self._count_value(value)
        if len(self.examples) < EXAMPLES and (example := one_line(value)) not in self.examples:
            self.examples.append(example)

    def _type_of(self, value: Any) -> str:
        parsed = json_in_text(value)
        content = value if parsed is None else parsed
        role = turn_role(content[-1] if is_conversation(content) else content)
        if role is not None:
            self.n_assistant_last += role in ASSISTANT
            self.n_with_answer += isinstance(content, list) and any(turn_role(turn) in ASSISTANT for turn in content)
            name = "conversation" if isinstance(content, list) else "turn"
            return name if parsed is None else f"{name} as JSON text"
        if is_message_tree(content):
            return "messages by id" if parsed is None else "messages by id as JSON text"
        if isinstance(value, str):
            self.n_chars += len(value)
            return "text" if parsed is None else "JSON text"
        names = {bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}
        return names.get(type(value), "time" if hasattr(value, "year") else type(value).__name__)

    def _count_value(self, value: Any) -> None:
        is_short = not isinstance(value, str) or len(value) <= MAX_VALUE_CHARS
        if not isinstance(value, str | bool | int | float) or not is_short:
            # long texts are told apart by their hash: how many differ is known, what they are is not kept
            if not isinstance(value, str):
                self.has_more_values = True
                return
            value = hash(value)
        key = (type(value), value)
        self.n_again += key in self.counts or hash(key) in self.others
        if key in self.counts or len(self.counts) < MAX_DISTINCT:
            self.counts[key] += 1
        else:
            self.has_more_values = True
            self.others.add(hash(key))


def one_line(value: Any, most: int = EXAMPLE_CHARS) -> str:
    """A value as an example: one line, clipped, nothing that a terminal or a page could obey."""
    if isinstance(value, str):
        return f"'{clip(''.join(char if char.isprintable() else repr(char)[1:-1] for char in value[: most + 1]), most)}'"
    if isinstance(value, bool | int | float):
        return yaml_value(value)
    return clip(_json_start(value, most) if isinstance(value, list | dict) else str(value), most)


def _json_start(value: Any, most: int) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)[: most + 1]
    except (ValueError, RecursionError):
        return f"{type(value).__name__} that cannot be shown"


def column_at(columns: Iterable[ColumnProfile], path: str) -> ColumnProfile:
    """The column of a path that is among them."""
    return next(column for column in columns if column.path == path)


def profile_columns(records: Iterable[Mapping[str, Any]]) -> tuple[list[ColumnProfile], int]:
    """The columns of `records` in the order of their first appearance, and how many columns beyond MAX_COLUMNS there were."""
    profiles: dict[str, ColumnProfile] = {}
    sizes: dict[str, ListSizes] = {}
    beyond: set[str] = set()
    n_records = 0
    for record in records:
        n_records += 1
        met: Counter[str] = Counter()
        for path, value in leaves(record):
            if isinstance(value, list) and (path in sizes or len(sizes) < MAX_COLUMNS):
                sizes.setdefault(path, ListSizes(path, len(value), len(value))).add(value)
            if _has_columns_inside(value):
                continue
            if path not in profiles and len(profiles) >= MAX_COLUMNS:
                beyond.add(path[:200])
                continue
            met[path] += 1
            profiles.setdefault(path, ColumnProfile(path)).add(value)
        for path, times in met.items():
            profiles[path].n_records += 1
            profiles[path].n_repeated += times > 1
    for profile in profiles.values():
        profile.n_null += n_records - profile.n_records
    return list(_with_places(profiles, sizes)), len(beyond)


def _has_columns_inside(value: Any) -> bool:
    """Whether it is a list of objects, whose fields are columns."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Mapping) for item in value)
        and not is_conversation(value)
    )


def _with_places(profiles: Mapping[str, ColumnProfile], sizes: Mapping[str, ListSizes]) -> Iterator[ColumnProfile]:
    """The columns with the sizes of the lists that they are entries of; one of two that say the same is left out."""
    for path, profile in profiles.items():
        own, is_entries = sizes.get(path), is_vote_list(path)
        if own and own.least == own.most == 1 and path + ENTRIES in profiles:
            continue
        place = place_of(path)
        profile.sizes = of_list = sizes.get(path.removesuffix(ENTRIES) if is_entries else place[0] if place else "")
        if of_list and ((is_last(path) and of_list.are_all_listed) or (is_entries and of_list.most > MAX_BARE_ENTRIES)):
            continue
        if of_list and is_entries and of_list.most == 1:
            profile.path = f"{of_list.path}.0"
        yield profile


def leaves(record: Mapping[str, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of everything in a record; a conversation and a turn are values of their own."""
    for name, value in record.items():
        path = f"{prefix}{name}"
        if is_conversation(value):
            yield path, value
            yield from _turn_leaves(value, f"{path}[]")
            continue
        if turn_role(value) is not None:
            yield path, value
        if isinstance(value, Mapping) and value and depth < MAX_DEPTH and not is_message_tree(value):
            yield from leaves(value, f"{path}.", depth + 1)
        elif isinstance(value, list) and value and depth < MAX_DEPTH:
            yield from _list_leaves(value, path, depth)
        else:
            yield path, value


def _turn_leaves(turns: Iterable[Mapping[str, Any]], path: str) -> Iterator[tuple[str, Any]]:
    """What a turn says of itself beside its text: a verdict may be there."""
    for turn in turns:
        for name, value in turn.items():
            if name not in TURN_KEYS and isinstance(value, str | bool | int | float):
                yield f"{path}.{name}", value


def _list_leaves(items: list[Any], path: str, depth: int) -> Iterator[tuple[str, Any]]:
    if all(isinstance(item, Mapping) for item in items):
        key = next((key for key in ENTRY_NAMES if all(isinstance(item.get(key), str) for item in items)), None)
        if key is None:
            yield path, items
        for at in range(len(items)) if key else listed_places(items):
            item = items[at]
            if key is None and turn_role(item) is not None:
                yield f"{path}.{at}", item
            step = f"{path}[{key}={item[key]}]" if key else f"{path}.{at}"
            yield from leaves({name: value for name, value in item.items() if name != key}, f"{step}.", depth + 1)
    elif len(items) == 1 and is_conversation(items[0]):
        yield f"{path}.0", items[0]
    else:
        yield path, items
        for value in bare_values(items) if is_bare(items) and len(items) <= MAX_BARE_ENTRIES else ():
            yield f"{path}{ENTRIES}", value

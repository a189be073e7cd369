"""What a record holds and no row carries, by name: nothing is lost without a count.

A format says which fields its `read` looks at, the settings name others, and turns.py lists what it passes over inside turns and
the answers of APIs. All else that holds a value is not kept. Names are paths, as in the settings, so that `keep` can name them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ktodata.formats.records import LabelledCompletion, Record, clip, place_in

if TYPE_CHECKING:
    from ktodata.formats.format import Fields, Format

NOT_KEPT = "not kept"  # of a turn: the names of what it held and no template could be shown
EMPTY: tuple[Any, ...] = (None, "", [], {})
MAX_NAMES = 1000  # the keys of an object may be data: ids, words
MAX_SHAPES = 10_000
OTHERS = "(other fields)"
_DEPTH = 20
_STEP = re.compile(r"([^.\[\]]+)|\[(-?\d+)\]|(\[[^\[\]]*\])")
# {step: what is read inside}; nothing inside: all of it is read
Tree = dict[str, Any]
WHOLE: Tree = {}


def field_tree(paths: Iterable[str]) -> Tree:
    """The paths as a tree; a step is a key, "*" for any, a place in a list, "[]" for each of it, or "[key=value]"."""
    tree: Tree = {}
    for path in paths:
        steps = [name or number or entry for name, number, entry in _STEP.findall(path)]
        _insert(tree, steps)
    return tree


def _insert(tree: Tree, steps: Sequence[str]) -> None:
    for step in steps[:-1]:
        if step in tree and not tree[step]:
            return
        tree = tree.setdefault(step, {})
        if step.startswith("[") and "=" in step:
            tree[step[1:-1].partition("=")[0]] = WHOLE
    if steps:
        tree[steps[-1]] = WHOLE


@lru_cache(maxsize=1000)
def _tree_of(paths: tuple[str, ...]) -> Tree:
    return field_tree(paths)


def unread(value: Any, read: Iterable[str], path: str = "") -> list[str]:
    """The names of what an object (or a list of such) holds beside the paths that are read, each under `path`."""
    names: dict[str, None] = {}
    _walk(value, _tree_of(tuple(read)), path, names)
    return list(names)


def _walk(value: Any, tree: Tree, path: str, names: dict[str, None]) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            inside = tree.get(key, tree.get("*"))
            if inside:
                _walk(inner, inside, _under(path, key), names)
            elif inside is None and not is_empty(inner):
                names[_under(path, key)] = None
    elif isinstance(value, list):
        _walk_list(value, tree, f"{path}[]", names)
    elif "[]" not in tree and not is_empty(value):  # not what it is read as; whether a list may be a single value `read` knows
        names[path] = None


def _under(path: str, key: Any) -> str:
    return f"{path}.{clip(key, 40)}" if path else clip(key, 40)


def _walk_list(entries: list[Any], tree: Tree, path: str, names: dict[str, None]) -> None:
    picked: dict[int, list[Tree]] = {}
    for step, inside in tree.items():
        for place in _places(entries, step):
            picked.setdefault(place, []).append(inside)
    for place, entry in enumerate(entries):
        inside = picked.get(place)
        if inside is None:
            names |= {} if is_empty(entry) else {path: None}
        elif all(inside):
            _walk(entry, {key: under for each in inside for key, under in each.items()}, path, names)


def _places(entries: list[Any], step: str) -> Iterable[int]:
    """Which entries of a list a step means: each, that of a number, or the first whose key has a value."""
    if step == "[]":
        return range(len(entries))
    if not step.startswith("["):
        return [place for place in [place_in(entries, step)] if place is not None]
    key, _, wanted = step[1:-1].partition("=")
    matching = (place for place, entry in enumerate(entries) if isinstance(entry, Mapping) and str(entry.get(key)) == wanted)
    return [place for place in [next(matching, None)] if place is not None]


def passed_over(record: Record, columns: Iterable[str], used: Iterable[str]) -> list[str]:
    """Of columns that a format reads one or the other of, those that hold something and are not the ones used."""
    return [name for name in columns if name not in used and not is_empty(record.get(name))]


def unread_of_rater(value: Any, path: str) -> list[str]:
    """What an object that stands for a person holds beside the person's name."""
    return unread(value, ("id", "user_id", "email", "type"), path) if isinstance(value, Mapping) else []


def is_empty(value: Any, depth: int = 0) -> bool:
    """Whether a value says nothing: null, or an empty text, list or object, or one of such; Parquet has a null for each field."""
    if value in EMPTY:
        return True
    if depth > _DEPTH or not isinstance(value, list | Mapping):
        return False
    return all(is_empty(inner, depth + 1) for inner in (value.values() if isinstance(value, Mapping) else value))


class UnreadFields:
    """Counts what is not kept: {name: records that hold it}. A record of plain columns, all of them read, costs one look-up."""

    def __init__(self, fields: "Fields") -> None:
        self._fields = fields
        self._named = tuple(fields.columns())
        self._trees: dict[str, Tree] = {}
        # by format and columns, of which a file has few: the columns that are not read, and those that are read in part
        self._plans: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, record: Record, format: "Format", completions: Sequence[LabelledCompletion]) -> None:
        """Count what of one record is in none of its rows."""
        unread_columns, partly = self._plan(record, format)
        self._count(record, unread_columns, partly, format, completions)

    def add_plain(self, records: Sequence[Record], format: "Format") -> None:
        """`add` for records with the same keys whose completions are texts."""
        unread_columns, partly = self._plan(records[0], format)
        for record in records if unread_columns or partly else ():
            self._count(record, unread_columns, partly, format, ())

    def _count(
        self,
        record: Record,
        unread_columns: Sequence[str],
        partly: Sequence[str],
        format: "Format",
        completions: Sequence[LabelledCompletion],
    ) -> None:
        names = {clip(column, 40): None for column in unread_columns if not is_empty(record[column])}
        for column in partly:
            _walk(record[column], self._trees[format.name][column], column, names)
        for completion in completions:
            names.update(dict.fromkeys(_of_completion(completion)))
        if names:
            self._counts.update(name if self._has_room(name) else OTHERS for name in names if not self._is_named(name))

    def _plan(self, record: Record, format: "Format") -> tuple[list[str], list[str]]:
        shape = (format.name, *record)
        if (plan := self._plans.get(shape)) is None:
            if len(self._plans) >= MAX_SHAPES:
                self._plans.clear()
            plan = self._plans[shape] = self._new_plan(record, format)
        return plan

    def _new_plan(self, record: Record, format: "Format") -> tuple[list[str], list[str]]:
        if format.name not in self._trees:
            self._trees[format.name] = field_tree(format.read_paths(self._fields))
        tree = self._trees[format.name]
        ends = tuple(step.removeprefix("*") for step in format.reads if step.startswith("*"))
        not_read = [
            name for name in record if name not in tree and name not in self._named and not (ends and name.endswith(ends))
        ]
        return not_read, [name for name in record if tree.get(name)]

    def _has_room(self, name: str) -> bool:
        return name in self._counts or len(self._counts) < MAX_NAMES

    def _is_named(self, name: str) -> bool:
        """Whether a setting names it, or what it stands in; of the label and the texts it is said what was read of them."""
        of = (self._fields.label.column, self._fields.messages, *self._fields.prompt, *self._fields.completion)
        kept = (path for path in self._named if path not in of)
        return any(name == path or name.startswith((f"{path}.", f"{path}[")) for path in kept)

    def counts(self) -> dict[str, int]:
        """The commonest first."""
        return dict(sorted(self._counts.items(), key=lambda item: (-item[1], item[0])))


def _of_completion(completion: LabelledCompletion) -> Iterable[str]:
    yield from completion.not_kept
    prompt, answer = completion.prompt, completion.completion
    for turn in prompt if isinstance(prompt, list) else ():
        yield from turn.get(NOT_KEPT, ())
    if not isinstance(answer, str):
        yield from answer.get(NOT_KEPT, ())

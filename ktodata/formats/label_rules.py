"""What a value means as a label: only what the recipe says, matched exactly, in type too."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from ktodata.errors import SettingError
from ktodata.formats.records import UnusableError, clip

Side = Literal["first", "second", "tie"]
Outcome = bool | Side | None
# The type is part of the key: Python finds 1 == True == 1.0, a recipe must not.
Meanings = Mapping[tuple[type, Any], Outcome]

BOOLEANS: Meanings = {(bool, True): True, (bool, False): False}
SIDES: Meanings = {(int, 1): "first", (int, 2): "second", (int, 0): "tie"}
SIDE_WORDS = ("first", "second", "tie")

# a record with one of these has no usable label; everything else about it may be fine
LABEL_REASONS = ("label_missing", "label_unmapped", "unlabelled", "tied_votes", "tie", "needs_threshold")

_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")


class UnmappedLabelError(UnusableError):
    """A value that the recipe does not name; `value` is kept to be counted."""

    def __init__(self, value: Any) -> None:
        super().__init__("label_unmapped", f"the value {shown(value)} is not one the recipe names")
        self.value = shown(value)


def shown(value: Any) -> str:
    """A value as a recipe would write it: text in quotes, so that '1' and 1 can be told apart."""
    if isinstance(value, str):
        return f"'{clip(value, 60)}'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return clip(value, 60)


@dataclass(frozen=True)
class LabelRule:
    """How a column becomes a label.

    column : None: the format's own.
    meanings : None: the format's own, which is JSON booleans unless its definition says more.
    at_least : threshold of a rating: at or above is desirable. Numbers written as text count, since CSV has no others.
    """

    column: str | None = None
    meanings: Meanings | None = None
    at_least: float | None = None

    @property
    def names_sides(self) -> bool:
        """Whether it says which of two completions is better, rather than whether one is good."""
        return any(outcome in SIDE_WORDS for outcome in (self.meanings or {}).values() if isinstance(outcome, str))

    def outcome(self, value: Any, own: Meanings = BOOLEANS) -> Outcome:
        """What `value` means. None: it was set aside on purpose, or there is none. Raises UnmappedLabelError."""
        if self.at_least is not None:
            return None if value is None else self.rating(value) >= self.at_least
        meanings = own if self.meanings is None else self.meanings
        # only these can be a key at all: a list is not hashable
        if isinstance(value, str | bool | int | float) and (type(value), value) in meanings:
            return meanings[type(value), value]
        if value is None:
            return meanings.get((type(None), None))
        raise UnmappedLabelError(value)

    def truth(self, value: Any, own: Meanings = BOOLEANS) -> bool | None:
        """`outcome` of a value that judges one completion."""
        return cast("bool | None", self.outcome(value, own))

    def rating(self, value: Any) -> float:
        """`value` as a number. Raises UnmappedLabelError."""
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            return float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        raise UnmappedLabelError(value)


def label_rule(setting: str | Mapping[Any, Any] | None, *, name: str = "label") -> LabelRule:
    """The rule of a recipe's `label`: a column, or {column: thumb, up: true, down: false}, or {column: score, at_least: 4.0}."""
    if setting is None or isinstance(setting, str):
        return LabelRule(setting)
    meanings = dict(setting)
    column = meanings.pop("column", None)
    at_least = meanings.pop("at_least", None)
    if column is not None and not isinstance(column, str):
        raise SettingError(f"{name}: column must be the name of a column; got {shown(column)}.")
    if at_least is not None:
        return LabelRule(column, None, _threshold(at_least, meanings, name))
    for value, outcome in meanings.items():
        if not (outcome is None or isinstance(outcome, bool) or outcome in SIDE_WORDS):
            raise SettingError(
                f"{name}: {shown(value)} is said to mean {shown(outcome)}; a value means true (desirable), "
                "false (undesirable) or null (no label), or, where two completions are compared, first, second or tie."
            )
    rule = LabelRule(column, {(type(value), value): outcome for value, outcome in meanings.items()} or None)
    if rule.names_sides and any(isinstance(outcome, bool) for outcome in meanings.values()):
        raise SettingError(
            f"{name}: true/false and first/second cannot stand in one mapping; a value judges one completion or compares two."
        )
    return rule


def _threshold(at_least: Any, meanings: Mapping[Any, Any], name: str) -> float:
    if meanings:
        raise SettingError(f"{name}: at_least and a meaning for {shown(next(iter(meanings)))} cannot stand together; give one.")
    if isinstance(at_least, bool) or not isinstance(at_least, int | float) or not math.isfinite(at_least):
        raise SettingError(f"{name}: at_least is a number, the lowest rating that is desirable; got {shown(at_least)}.")
    return float(at_least)

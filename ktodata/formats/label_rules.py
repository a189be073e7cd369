"""What a value means as a label: only what the recipe says, matched exactly, in type too."""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from ktodata.errors import SettingError
from ktodata.formats.records import UnusableError, clip

Side = Literal["first", "second", "tie"]
Outcome = bool | Side | None
By = Literal["people", "models", "both"]
# The type is part of the key: Python finds 1 == True == 1.0, a recipe must not.
Meanings = Mapping[tuple[type, Any], Outcome]

BOOLEANS: Meanings = {(bool, True): True, (bool, False): False}
SIDES: Meanings = {(int, 1): "first", (int, 2): "second", (int, 0): "tie"}
SIDE_WORDS = ("first", "second", "tie")

# a record with one of these has no usable label; everything else about it may be fine
LABEL_REASONS = ("label_missing", "label_unmapped", "unlabelled", "tied_votes", "tie", "needs_threshold")

# one comma with one or two digits after it is a decimal comma; 1,234 could be either, and is not a number
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15}|,\d{1,2})?")


class UnmappedLabelError(UnusableError):
    """A value that the recipe does not name; `value` is kept to be counted."""

    def __init__(self, value: Any) -> None:
        super().__init__("label_unmapped", f"the value {yaml_value(value)} is not one the recipe names")
        self.value = yaml_value(value)


def yaml_value(value: Any) -> str:
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
    at_most : and at or below is undesirable, what lies between is no label; None: all below at_least is undesirable.
    by : whose verdicts count, where a source keeps those of people and of models under one name; None: it has one kind.
    by_number : numbers among the meanings match whatever has their value: 1, 1.0, "1" and "1.0". Booleans are no numbers.
    """

    column: str | None = None
    meanings: Meanings | None = None
    at_least: float | None = None
    at_most: float | None = None
    by_number: bool = False
    by: By | None = None

    @property
    def names_sides(self) -> bool:
        """Whether it says which of two completions is better, rather than whether one is good."""
        return any(outcome in SIDE_WORDS for outcome in (self.meanings or {}).values() if isinstance(outcome, str))

    def outcome(self, value: Any, own: Meanings = BOOLEANS) -> Outcome:
        """What `value` means. None: it was set aside on purpose, or there is none. Raises UnmappedLabelError."""
        meanings = own if self.meanings is None and self.at_least is None else self.meanings or {}
        # only these can be a key at all: a list is not hashable
        if isinstance(value, str | bool | int | float) and (type(value), value) in meanings:
            return meanings[type(value), value]
        if value is None or value == "":  # nobody has said anything, in whatever way a source writes that down
            return meanings.get((type(value), value))
        if self.at_least is not None:
            return self._of_rating(self.rating(value))
        return self._of_number(value, meanings)

    def _of_rating(self, rating: float) -> bool | None:
        assert self.at_least is not None
        if rating >= self.at_least:
            return True
        return False if self.at_most is None or rating <= self.at_most else None

    def _of_number(self, value: Any, meanings: Meanings) -> Outcome:
        """A whole number and the same with a point are one number in JSON, and so in a recipe; text is one only `by_number`."""
        if isinstance(value, bool) or (isinstance(value, str) and not self.by_number):
            raise UnmappedLabelError(value)
        number = self.rating(value)
        for (kind, key), outcome in meanings.items():
            if kind in (int, float) and key == number:
                return outcome
        raise UnmappedLabelError(value)

    def truth(self, value: Any, own: Meanings = BOOLEANS) -> bool | None:
        """`outcome` of a value that judges one completion."""
        return cast("bool | None", self.outcome(value, own))

    def rating(self, value: Any) -> float:
        """`value` as a number. Raises UnmappedLabelError."""
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            return float(value.replace(",", "."))
        if isinstance(value, int | float) and not isinstance(value, bool):
            # a whole number of 400 digits is no float at all: the question itself raises
            with suppress(OverflowError):
                if math.isfinite(value):
                    return float(value)
        raise UnmappedLabelError(value)


def label_rule(setting: str | Mapping[Any, Any] | None, *, name: str = "label") -> LabelRule:
    """The rule of a recipe's `label`: a column, or {column: thumb, up: true, down: false}, or {column: score, at_least: 4.0}."""
    if setting is None or isinstance(setting, str):
        return LabelRule(setting)
    meanings = dict(setting)
    column = meanings.pop("column", None)
    at_least, at_most, by_number = (meanings.pop(key, None) for key in ("at_least", "at_most", "by_number"))
    pairs, by = meanings.pop("values", None), meanings.pop("by", None)
    if column is not None and not isinstance(column, str):
        raise SettingError(f"{name}: column must be the name of a column; got {yaml_value(column)}.")
    named = {(type(value), value): outcome for value, outcome in meanings.items()} | _pairs(pairs, name)
    if at_least is not None or at_most is not None:
        return LabelRule(column, named or None, *_thresholds(at_least, at_most, named, name), by=_by(by, name))
    for (_, value), outcome in named.items():
        if not (outcome is None or isinstance(outcome, bool) or outcome in SIDE_WORDS):
            raise SettingError(
                f"{name}: {yaml_value(value)} is said to mean {yaml_value(outcome)}; a value means true (desirable), "
                "false (undesirable) or null (no label), or, where two completions are compared, first, second or tie."
            )
    rule = LabelRule(column, named or None, by_number=by_number is True, by=_by(by, name))
    if rule.names_sides and any(isinstance(outcome, bool) for outcome in named.values()):
        raise SettingError(
            f"{name}: true/false and first/second cannot stand in one mapping; a value judges one completion or compares two."
        )
    return rule


def _by(by: Any, name: str) -> By | None:
    if by not in (None, *get_args(By)):
        raise SettingError(f"{name}: by is people, models or both; got {yaml_value(by)}.")
    return cast("By | None", by)


def _pairs(pairs: Any, name: str) -> dict[tuple[type, Any], Outcome]:
    """The meanings that a mapping could not tell apart, as [[1, true], [true, true], ["1", false]]."""
    if pairs is None:
        return {}
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise SettingError(f"{name}: values is a list of [value, meaning]; got {clip(pairs, 60)}.")
    return {(type(value), value): outcome for value, outcome in pairs}


def _thresholds(at_least: Any, at_most: Any, named: Meanings, name: str) -> tuple[float, float | None]:
    if at_least is None:
        raise SettingError(f"{name}: at_most stands beside at_least, the lowest rating that is desirable; give both.")
    if spoken := [value for (_, value), outcome in named.items() if outcome is not None]:
        raise SettingError(f"{name}: at_least and a meaning for {yaml_value(spoken[0])} cannot stand together; give one.")
    for key, bound in (("at_least", at_least), ("at_most", at_most)):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound)):
            what = "the lowest rating that is desirable" if key == "at_least" else "the highest that is undesirable"
            raise SettingError(f"{name}: {key} is a number, {what}; got {yaml_value(bound)}.")
    if at_most is not None and at_most >= at_least:
        raise SettingError(f"{name}: at_most ({at_most:g}) must be below at_least ({at_least:g}).")
    return float(at_least), None if at_most is None else float(at_most)

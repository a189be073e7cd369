"""What a value means as a label: only what was said of it, or of the same number, boolean or word however the file writes it."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
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
LABEL_REASONS = ("label_missing", "label_unmapped", "unlabelled", "tie", "needs_threshold")

# one comma with one or two digits after it is a decimal comma; 1,234 could be either, and is not a number
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15}|,\d{1,2})?")

# it says whether an emoji is drawn as text or as a picture, and nothing else
_VARIATION = re.compile("[\ufe0e\ufe0f]")

_TRUTH = {"true": True, "false": False}
# the edge of what is desirable, and what may stand beside it: where high is good, where low is
PAIRS = (("at_least", "undesirable_at_most"), ("desirable_at_most", "undesirable_at_least"))
EDGES = {
    "at_least": "the lowest number that is desirable",
    "undesirable_at_most": "the highest that is undesirable",
    "desirable_at_most": "the highest number that is desirable",
    "undesirable_at_least": "the lowest that is undesirable",
    "at_most": "the highest of what is not said: desirable_at_most or undesirable_at_most",
}
MAX_SHOWN = 12  # values in a message


class UnmappedLabelError(UnusableError):
    """A value that nobody gave a meaning; `value` is kept to be counted, `sense` to count it with its other spellings.

    given : what meanings there are, in words
    """

    def __init__(self, value: Any, given: str) -> None:
        super().__init__("label_unmapped", f"the value {yaml_value(value)} has no meaning: {given}")
        self.value = yaml_value(value)
        self.sense = sense_of(value) or self.value


def yaml_value(value: Any) -> str:
    """A value as a recipe would write it: text in quotes, so that '1' and 1 can be told apart."""
    if isinstance(value, str):
        if value[:60].isprintable():
            return "'" + clip(value, 60).replace("'", "''") + "'"
        return '"' + "".join(map(yaml_char, value[:60])) + ("..." if len(value) > 60 else "") + '"'
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return clip(value, 60)


def yaml_name(text: str) -> str:
    """A column as a recipe would write it in braces: in quotes where it has more than letters, digits, points and the like."""
    return text if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,59}", text) else yaml_value(text)


def yaml_char(char: str) -> str:
    """A character as it stands in YAML's double quotes."""
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}" if ord(char) < 65536 else f"\\U{ord(char):08x}"


@dataclass(frozen=True)
class Threshold:
    """Which ratings are desirable: from `desirable` up, or down where low is good; the edge itself is.

    undesirable : the edge of what is undesirable, itself included; what lies between is no label. None: all else is undesirable.
    """

    desirable: float
    undesirable: float | None = None
    low_is_good: bool = False

    def outcome(self, rating: float) -> bool | None:
        """Whether a rating is desirable; None: it lies between."""
        sign = -1 if self.low_is_good else 1
        if sign * rating >= sign * self.desirable:
            return True
        return False if self.undesirable is None or sign * rating <= sign * self.undesirable else None

    def in_words(self) -> str:
        """`4 and above is desirable, 2 and below undesirable, between is no label`."""
        good, bad = ("below", "above") if self.low_is_good else ("above", "below")
        edge = f"{self.desirable:g} and {good} is desirable"
        if self.undesirable is None:
            return f"{edge}, all {bad} undesirable"
        return f"{edge}, {self.undesirable:g} and {bad} undesirable, between is no label"


@dataclass(frozen=True)
class LabelRule:
    """How a column becomes a label.

    column : None: the format's own.
    meanings : None: the format's own, which is JSON booleans unless its definition says more.
    threshold : of a rating; numbers written as text count, since CSV has no others.
    by : whose verdicts count, where a source keeps those of people and of models under one name; None: it has one kind.
    respelt : words that were read as another spelling of one with a meaning ("'Yes' as 'yes'"), until `take_respelt` takes them.
    """

    column: str | None = None
    meanings: Meanings | None = None
    threshold: Threshold | None = None
    by: By | None = None
    respelt: Counter[str] = field(default_factory=Counter, compare=False, repr=False)

    @property
    def is_given(self) -> bool:
        """Whether it says what values mean."""
        return self.meanings is not None or self.threshold is not None

    @property
    def names_sides(self) -> bool:
        """Whether it says which of two completions is better, rather than whether one is good."""
        return any(outcome in SIDE_WORDS for outcome in (self.meanings or {}).values() if isinstance(outcome, str))

    def outcome(self, value: Any, own: Meanings = BOOLEANS) -> Outcome:
        """What `value` means. None: it was set aside on purpose, or there is none. Raises UnmappedLabelError."""
        meanings = self.meanings or {} if self.is_given else own
        # only these can be a key at all: a list is not hashable
        if isinstance(value, str | bool | int | float) and (type(value), value) in meanings:
            return meanings[type(value), value]
        if value is None or value == "":  # nobody has said anything, in whatever way a source writes that down
            return meanings.get((type(value), value))
        # a format's own values are JSON's: what a text means is never its to say
        if self.is_given or not isinstance(value, str):
            sense = sense_of(value)
            same = {key: outcome for (_, key), outcome in meanings.items() if sense and sense_of(key) == sense}
            if len(set(same.values())) == 1:
                if isinstance(sense, str):
                    self.respelt[f"{yaml_value(value)} as {yaml_value(next(iter(same)))}"] += 1
                return next(iter(same.values()))
        if self.threshold is not None:
            return self.threshold.outcome(self.rating(value))
        raise UnmappedLabelError(value, self._given_text(own))

    def take_respelt(self) -> Counter[str]:
        """What was respelt since the last call."""
        taken = self.respelt.copy()
        self.respelt.clear()
        return taken

    def _given_text(self, own: Meanings) -> str:
        if self.threshold is not None:
            return "it is not a number, and the label has a threshold"
        if not self.is_given:
            only = " and ".join(yaml_value(value) for _, value in own)
            return f"none is given for any{only and f', and without that only {only} are labels'}"
        given = [yaml_value(value) for _, value in self.meanings or {}]
        return f"it is given for {', '.join(given[:MAX_SHOWN])}{', ...' if len(given) > MAX_SHOWN else ''}"

    def truth(self, value: Any, own: Meanings = BOOLEANS) -> bool | None:
        """`outcome` of a value that judges one completion."""
        return cast("bool | None", self.outcome(value, own))

    def rating(self, value: Any) -> float:
        """`value` as a number. Raises UnmappedLabelError."""
        if (number := _number(value)) is None:
            raise UnmappedLabelError(value, self._given_text({}))
        return number


def _number(value: Any) -> float | None:
    """The finite number that a value is, or that its text says; a boolean is none."""
    if isinstance(value, str) and _NUMBER.fullmatch(text := value.strip()):
        return float(text.replace(",", "."))
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        # a whole number of 400 digits is no float at all: the question itself raises
        with suppress(OverflowError):
            if math.isfinite(value):
                return float(value)
    return None


def sense_of(value: Any) -> tuple[str, float] | str | None:
    """What values that can only be the same have in common: one number (1, 1.0, "1"), one boolean (true, "TRUE"), and a word
    whatever its case, the space around it and how an emoji is to be drawn; 1 is not true. None: neither of these.
    """
    if (number := _number(value)) is not None:
        return "number", number
    word = unicodedata.normalize("NFC", _VARIATION.sub("", str(value)).strip().lower())
    if word in _TRUTH:
        return "boolean", _TRUTH[word]
    return word if isinstance(value, str) and word else None


def by_sense(counts: Iterable[tuple[Any, int]]) -> list[list[tuple[Any, int]]]:
    """Values with their counts, those that one meaning covers together: 1 and 1.0, yes and Yes; true is another."""
    groups: dict[Any, list[tuple[Any, int]]] = {}
    for value, count in counts:
        groups.setdefault(sense_of(value) or ("itself", repr(value)), []).append((value, count))
    return list(groups.values())


def commonest_first(counts: Iterable[tuple[Any, int]]) -> list[list[tuple[Any, int]]]:
    """`by_sense`, the group of most records first, and of each the commonest spelling."""
    groups = by_sense(sorted(counts, key=lambda pair: -pair[1]))
    return sorted(groups, key=lambda group: -records_of(group))


def records_of(group: Iterable[tuple[Any, int]]) -> int:
    """How many records hold one of these values."""
    return sum(count for _, count in group)


def values_in_words(values: Mapping[str, int]) -> str:
    """Values with their records, the first of them; how many more are listed: "'meh' 10, 'so' 3 and 2 more"."""
    listed = ", ".join(f"{value} {count:,}" for value, count in list(values.items())[:MAX_SHOWN])
    return f"{listed} and {len(values) - MAX_SHOWN:,} more" if len(values) > MAX_SHOWN else listed


def respelt_lines(respelt: Mapping[str, Mapping[str, int]]) -> list[str]:
    """By setting, a sentence about words that were read as another spelling of one with a meaning."""
    shown = {setting: values_in_words(words) for setting, words in respelt.items()}
    return [f"values of {setting} read as another spelling of the same word: {words}" for setting, words in shown.items()]


def label_rule(setting: str | Mapping[Any, Any] | None, *, name: str = "label") -> LabelRule:
    """The rule of a recipe's `label`: a column, or {column: thumb, up: true, down: false}, or {column: score, at_least: 4.0}."""
    if setting is None or isinstance(setting, str):
        return LabelRule(setting)
    meanings = dict(setting)
    column = meanings.pop("column", None)
    edges = {key: edge for key in EDGES if (edge := meanings.pop(key, None)) is not None}
    pairs, by = meanings.pop("values", None), meanings.pop("by", None)
    if column is not None and not isinstance(column, str):
        raise SettingError(f"{name}: column must be the name of a column; got {yaml_value(column)}.")
    named = {(type(value), value): outcome for value, outcome in meanings.items()} | _pairs(pairs, name)
    if edges:
        return LabelRule(column, named or None, _threshold(edges, named, name), by=_by(by, name))
    for (_, value), outcome in named.items():
        if not (outcome is None or isinstance(outcome, bool) or outcome in SIDE_WORDS):
            raise SettingError(
                f"{name}: {yaml_value(value)} is said to mean {yaml_value(outcome)}; a value means true (desirable), "
                "false (undesirable) or null (no label), or, where two completions are compared, first, second or tie."
            )
    rule = LabelRule(column, named or None, by=_by(by, name))
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
    named: dict[tuple[type, Any], Outcome] = {}
    for value, outcome in pairs:
        if not isinstance(value, str | bool | int | float | None):
            raise SettingError(f"{name}: {clip(value, 60)} is no text, number, boolean or null that a record could hold.")
        if named.setdefault((type(value), value), outcome) is not outcome:
            raise SettingError(f"{name}: {yaml_value(value)} is given two meanings; give one.")
    return named


def _threshold(edges: Mapping[str, Any], named: Meanings, name: str) -> Threshold:
    if spoken := [value for (_, value), outcome in named.items() if outcome is not None]:
        raise SettingError(
            f"{name}: {next(iter(edges))} and a meaning for {yaml_value(spoken[0])} cannot stand together; give one."
        )
    for key, edge in edges.items():
        if isinstance(edge, bool) or not isinstance(edge, int | float) or not math.isfinite(edge):
            raise SettingError(f"{name}: {key} is a number: {EDGES[key]}; got {yaml_value(edge)}.")
    pair = next((pair for pair in PAIRS if pair[0] in edges and set(edges) <= set(pair)), None)
    if pair is None:
        raise SettingError(_unclear_edges(edges, name))
    numbers = [float(edges[key]) if key in edges else None for key in pair]
    threshold = Threshold(cast("float", numbers[0]), numbers[1], low_is_good=pair is PAIRS[1])
    if numbers[1] is not None and threshold.outcome(numbers[1]) is True:
        raise SettingError(
            f"{name}: {pair[1]} ({numbers[1]:g}) lies in what {pair[0]} ({threshold.desirable:g}) makes desirable."
        )
    return threshold


def _unclear_edges(edges: Mapping[str, Any], name: str) -> str:
    """Edges that contradict each other, or do not say which side is the good one: what each would mean."""
    given = " and ".join(f"{key} ({edge:g})" for key, edge in edges.items())
    high, low = (f"{edge} ({EDGES[edge]}), and beside it, if need be, {second} ({EDGES[second]})" for edge, second in PAIRS)
    open_side = " at_most alone does not say of what." if "at_most" in edges else ""
    return f"{name}: {given} cannot be meant so.{open_side} Where high is good, give {high}; where low is good, {low}."

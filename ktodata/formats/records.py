"""What a format makes of one record, and the words for what is wrong with one that cannot become rows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

import xxhash

from ktodata.formats.times import moment

Record = Mapping[str, Any]
Turn = dict[str, Any]  # role and content, and what else a chat template can render: `turns.py`
Prompt = str | list[Turn]

# `lookup` answers this where there is no such column; None is a value that a record may well hold
ABSENT: Any = object()


class UnusableError(Exception):
    """A record cannot become rows. `reason` is a short code, `detail` says what is wrong; both go to the quarantine."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class CannotHoldError(Exception):
    """A row cannot be said in the format that is written; the text says why."""


class Vote(NamedTuple):
    """One rater's verdict; `created_at` is still as the source gives it."""

    rater: str | None
    label: bool
    created_at: Any = None


class Verdict(NamedTuple):
    """The label of one completion and where it comes from. votes is None when the label itself is the only vote.

    label is None where as many votes say the one as the other: see `LabelledCompletion.by_label`. `earlier` are verdicts that the
    same rater gave before the one that counts, or gave again.
    """

    label: bool | None
    votes: list[Vote] | None = None
    rating: float | None = None
    earlier: list[Vote] | None = None

    @classmethod
    def by_votes(cls, votes: list[Vote]) -> "Verdict":
        """What most of several votes say: of each rater the last by time; votes of nobody in particular all count.

        Only a vote with a time is ever an earlier one, as in `dedupe`: exports list the newest first as often as last, so that
        the order of votes without times says nothing, and a rater who has said both has said both.
        """
        raters = [None if is_nobody(vote.rater) else str(vote.rater) for vote in votes]
        times = [rater and moment(vote.created_at) for rater, vote in zip(raters, votes, strict=True)]
        last: dict[str | None, datetime] = {}
        for rater, time in zip(raters, times, strict=True):
            if time:
                last[rater] = max(time, last.get(rater, time))
        counted, earlier, known = [], [], set()
        for vote, rater, time in zip(votes, raters, times, strict=True):
            # what a rater says twice is said once
            if rater and ((time and time < last[rater]) or (rater, vote.label) in known):
                earlier.append((time.timestamp() if time else 0.0, vote))
            else:
                counted.append(vote)
                known.add((rater, vote.label))
        history = [vote for _, vote in sorted(earlier, key=lambda entry: entry[0])]
        return cls(majority([vote.label for vote in counted]), counted, earlier=history or None)


EXACT = 2.0**53  # from here on a float no longer holds every whole number
# what exports write where there is no value: databases, Python, JavaScript, data frames
NO_NAMES = frozenset(("", "\\n", "null", "<null>", "none", "nan", "<na>", "nat", "undefined"))
# and for whoever was not signed in. They are many: read as one person they would have taken back all but the last of their votes
NOBODY = NO_NAMES | {"anonymous", "anon", "guest", "unknown", "n/a", "-", "--", "00000000-0000-0000-0000-000000000000"}


def is_nobody(rater: Any) -> bool:
    """Whether a rater's id names nobody: null or a word for it, in whatever case, an empty text, or a data frame's NaN."""
    return is_nameless(rater, NOBODY)


def is_nameless(name: Any, words: frozenset[str] = NO_NAMES) -> bool:
    """Whether a value names nothing: null, one of `words`, or a data frame's NaN."""
    if isinstance(name, str):
        return plain_name(name) in words
    return name is None or name != name  # noqa: PLR0124


def whole(value: Any) -> Any:
    """A float that is a whole number as that, other values as they are: a column of numbers with empty cells holds 7.0 for 7."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT else value


def plain_name(name: str) -> str:
    """A name as NO_NAMES and NOBODY have it."""
    return name.strip().casefold()


@dataclass(slots=True)
class LabelledCompletion:
    """One completion, as text or as the turn that was judged, and its verdict.

    `about` overrides what would be read from the record: rater, model, pair_id, ...; `tools` are those that the model was given;
    `not_kept` names what the record holds and no row carries, beyond its columns and turns: to be counted.
    """

    prompt: Prompt
    completion: str | Turn
    verdict: Verdict
    about: Mapping[str, Any] = field(default_factory=dict)
    tools: Any = None
    not_kept: Sequence[str] = ()

    def by_label(self) -> list["LabelledCompletion"]:
        """Itself; or, where its votes are even, one of each label with the votes for it, as if each rater had a record.

        So no label is made up, and no vote is lost: the text has both labels, which `dedupe` holds until a person decides.
        """
        label, votes, rating, earlier = self.verdict
        if label is not None:
            return [self]
        sides = {side: [vote for vote in votes or () if vote.label == side] for side in (True, False)}
        # earlier votes count nowhere: they are told once
        return [replace(self, verdict=Verdict(side, sides[side], rating, earlier if side else None)) for side in sides]


# a step of a path: a name, a number of a list, or the first entry of a list whose field has a value
_STEP = re.compile(r"([^.\[\]]+)|\[(-?\d+)\]|\[([^\[\]=]+)=([^\[\]]*)\]")


def lookup(record: Any, column: str) -> Any:
    """The value of `column`, ABSENT where there is none.

    A column may be a path, unless the record has a column of that name: "a.b" is b inside a, "choices.0.message" the message of
    the first of a list, "choices.-1" its last, "scores[name=thumb].value" the value of the first entry of a list whose name is
    thumb, "messages[].rating" the list of all ratings in a list, and "votes[]" a list of bare values.
    """
    if isinstance(record, Mapping) and column in record:
        return record[column]
    if column.startswith("[]"):
        rest = column[2:].removeprefix(".")
        if not rest:
            return record if isinstance(record, list) else ABSENT
        values = [lookup(entry, rest) for entry in record] if isinstance(record, list) else []
        return [value for value in values if value is not ABSENT] or ABSENT
    if not (step := _STEP.match(column)):
        return ABSENT
    inside, rest = _step_into(record, step), column[step.end() :].removeprefix(".")
    return lookup(inside, rest) if rest and inside is not ABSENT else inside


def _step_into(value: Any, step: re.Match[str]) -> Any:
    name, number, key, wanted = step.groups()
    if isinstance(value, Mapping):
        return value.get(name, ABSENT)
    if not isinstance(value, list):
        return ABSENT
    if key is not None:
        entries = (entry for entry in value if isinstance(entry, Mapping))
        return next((entry for entry in entries if str(entry.get(key)) == wanted), ABSENT)
    at = place_in(value, number or name)
    return ABSENT if at is None else value[at]


def place_in(entries: Sequence[Any], step: str) -> int | None:
    """Which entry of a list a step of a path means, "-1" being the last; None: there is none."""
    if not step.removeprefix("-").isdecimal():
        return None
    at = int(step) + len(entries) * step.startswith("-")
    return at if 0 <= at < len(entries) else None


def need(record: Record, column: str) -> Any:
    """The value of `column`; a record without it is unusable."""
    value = lookup(record, column)
    if value is ABSENT:
        raise UnusableError("missing_column", f"no column {column!r}; the record has {listed(record)}")
    return value


def need_list(value: Any, what: str) -> list[Any]:
    """`value` as a list; anything else is unusable."""
    if not isinstance(value, list):
        raise UnusableError("not_a_list", f"{what} is {kind(value)}, not a list")
    return value


def listed(names: Sequence[str] | Mapping[str, Any], most: int = 12) -> str:
    """Column names for a message, cut short and safe to print."""
    columns = [clip(name, 40) for name in list(names)[:most]]
    return (", ".join(columns) + (", ..." if len(names) > most else "")) or "no columns"


def clip(value: object, most: int = 80) -> str:
    """A value for a message: one line, valid UTF-8, at most about `most` characters."""
    if isinstance(value, str):
        start = value[: most + 1]  # cut first: a 20 MB text must not be quoted whole to show its first words
        words = start if start.isprintable() else repr(start)
    else:
        words = repr(value)
    words = words.encode("utf-8", "replace").decode()
    return words if len(words) <= most else words[: most - 3] + "..."


def kind(value: Any) -> str:
    """The name JSON gives to the type of `value`."""
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def checked(value: str, what: str) -> str:
    """`value` if it is text that Parquet and a tokenizer can hold; a NUL or a lone surrogate is never meant."""
    if "\0" in value:
        raise UnusableError("nul", f"{what} holds a NUL character at position {value.index(chr(0)):,}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UnusableError("lone_surrogate", f"{what} holds a lone surrogate at position {error.start:,}") from None
    return value


def text(value: Any, what: str) -> str:
    """`value` if it is usable text; a number, boolean or null is not turned into text."""
    if not isinstance(value, str):
        raise UnusableError("not_text", f"{what} is {kind(value)}, not text")
    return checked(value, what)


def rater_name(value: Any) -> str | None:
    """A rater as text: a name, a number, or an object that holds one."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("email", "user_id", "id") if value.get(key) is not None), None)
    return None if value is None else str(value)


def majority(labels: Sequence[bool]) -> bool | None:
    """What most votes say; None: as many on each side. Raises UnusableError where nobody has voted."""
    if not labels:
        raise UnusableError("unlabelled", "no rater has voted")
    up = sum(labels)
    return None if 2 * up == len(labels) else 2 * up > len(labels)


def votes_of_row(row: Record) -> list[dict[str, Any]]:
    """The votes of a feedback row, for a format that holds votes and no label beside them."""
    votes: list[dict[str, Any]] = row["votes"]
    up = sum(vote["label"] for vote in votes)
    if 2 * up == len(votes) or (2 * up > len(votes)) != row["label"]:
        raise CannotHoldError("the label is not what most of its votes say, and only votes can be written")
    return votes


def rating_of_row(row: Record) -> float:
    """The rating that a row's label was made from, for a format that holds ratings and no labels."""
    rating: float | None = row.get("rating")
    if rating is None:
        raise CannotHoldError("there is no rating, and a label does not say how good")
    return rating


def text_id(text: str) -> str:
    """16 hex digits that name `text`: the same on every machine."""
    return xxhash.xxh3_64_hexdigest(text.encode())

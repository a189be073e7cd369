"""What a format makes of one record, and the words for what is wrong with one that cannot become rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import xxhash

Record = Mapping[str, Any]
Turn = dict[str, str]
Prompt = str | list[Turn]

# `lookup` answers this where there is no such column; None is a value that a record may well hold
ABSENT: Any = object()

ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "prompter": "user"}


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
    """The label of one completion and where it comes from. votes is None when the label itself is the only vote."""

    label: bool
    votes: list[Vote] | None = None
    rating: float | None = None

    @classmethod
    def by_votes(cls, votes: list[Vote]) -> "Verdict":
        """What most of several votes say."""
        return cls(majority([vote.label for vote in votes]), votes)


@dataclass(slots=True)
class LabelledCompletion:
    """One completion and its verdict. `about` overrides what would be read from the record: rater, model, pair_id, ..."""

    prompt: Prompt
    completion: str
    verdict: Verdict
    about: Mapping[str, Any] = field(default_factory=dict)


def lookup(record: Record, column: str) -> Any:
    """The value of `column`, ABSENT where there is none. "a.b" is b inside a, unless the record has a column of that name."""
    if column in record:
        return record[column]
    head, dot, rest = column.partition(".")
    inside = record.get(head) if dot else None
    return lookup(inside, rest) if isinstance(inside, Mapping) else ABSENT


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
    shown = [clip(name, 40) for name in list(names)[:most]]
    return (", ".join(shown) + (", ..." if len(names) > most else "")) or "no columns"


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


def turns_of(value: Any, what: str) -> list[Turn]:
    """A conversation as [{"role", "content"}], also from ShareGPT's {"from", "value"}."""
    turns = [_turn(item, what) for item in need_list(value, what)]
    if not turns:
        raise UnusableError("no_turns", f"{what} is an empty list")
    return turns


def _turn(item: Any, what: str) -> Turn:
    if not isinstance(item, Mapping):
        raise UnusableError("not_a_turn", f"{what} holds {kind(item)} where a turn (role, content) should be")
    role = item.get("role", item.get("from"))
    if not isinstance(role, str):
        raise UnusableError("not_a_turn", f"{what} holds a turn without a role")
    content = text(item.get("content", item.get("value")), f"a {clip(role, 20)} turn of {what}")
    return {"role": ROLES.get(role, checked(role, "a role")), "content": content}


def prompt_of(record: Record, columns: Sequence[str]) -> Prompt:
    """The prompt: text or turns from one column, or the texts of several, each on its own line, empty ones left out."""
    if len(columns) == 1:
        value = need(record, columns[0])
        return turns_of(value, columns[0]) if isinstance(value, list) else text(value, columns[0])
    parts = [text(need(record, column), column) for column in columns]
    return "\n".join(part for part in parts if part)


def completion_of(value: Any, what: str) -> str:
    """The completion: text, or a list that holds one assistant turn and nothing else."""
    if not isinstance(value, list):
        return text(value, what)
    turns = turns_of(value, what)
    if turns[-1]["role"] != "assistant":
        raise UnusableError(
            "no_assistant_turn", f"{what} ends with a turn of {clip(turns[-1]['role'], 20)!r}, not of the assistant"
        )
    if len(turns) > 1:
        raise UnusableError("several_turns", f"{what} holds {len(turns)} turns; which of them was judged is not said")
    return turns[0]["content"]


def conversation(value: Any, what: str) -> tuple[list[Turn], str]:
    """(the turns before, the answer) of a conversation that ends with the judged assistant turn."""
    turns = turns_of(value, what)
    if turns[-1]["role"] != "assistant":
        raise UnusableError(
            "no_assistant_turn", f"{what} ends with a turn of {clip(turns[-1]['role'], 20)!r}, not of the assistant"
        )
    if len(turns) == 1:
        raise UnusableError("no_prompt", f"{what} holds the assistant's turn only")
    return turns[:-1], turns[-1]["content"]


def plain(prompt: Prompt) -> str:
    """The prompt as text: a single user turn is its content, several turns stand under role headers."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return prompt[0]["content"]
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in prompt)


def row_turns(row: Record) -> list[Turn]:
    """The prompt of a feedback row as turns; a plain prompt is one user turn."""
    return row["turns"] or [{"role": "user", "content": row["prompt"]}]


def answer(completion: str) -> Turn:
    """The completion as a turn."""
    return {"role": "assistant", "content": completion}


def rater_name(value: Any) -> str | None:
    """A rater as text: a name, a number, or an object that holds one."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("email", "user_id", "id") if value.get(key) is not None), None)
    return None if value is None else str(value)


def majority(labels: Sequence[bool]) -> bool:
    """What most votes say. No vote, or as many on each side, is no label."""
    if not labels:
        raise UnusableError("unlabelled", "no rater has voted")
    up = sum(labels)
    if 2 * up == len(labels):
        raise UnusableError("tied_votes", f"{up} of {len(labels)} votes say desirable")
    return 2 * up > len(labels)


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

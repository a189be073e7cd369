"""What the dialects that come from application logs have in common: where the texts are, and several verdicts on one answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from ktodata.formats.records import Prompt, UnusableError, Verdict, Vote, completion_of, kind, majority, text, turns_of

PROMPT_KEYS = ("messages", "input", "question", "prompt", "text")
COMPLETION_KEYS = ("output", "answer", "completion", "content", "text", "messages")


def voted(votes: list[Vote]) -> Verdict:
    """The verdict that several votes make."""
    return Verdict(majority([vote.label for vote in votes]), votes)


def prompt_in(value: Any, what: str) -> Prompt:
    """The prompt in a logged input: text, turns, or an object that holds either under a usual name."""
    inside = _unwrapped(value, PROMPT_KEYS, what)
    return turns_of(inside, what) if isinstance(inside, list) else text(inside, what)


def completion_in(value: Any, what: str) -> str:
    """The completion in a logged output: text, one assistant turn, or an object that holds either under a usual name."""
    return completion_of(_unwrapped(value, COMPLETION_KEYS, what), what)


def _unwrapped(value: Any, keys: Sequence[str], what: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    for key in keys:
        if key in value:
            return value[key]
    raise UnusableError("no_text", f"{what} is {kind(value)} with none of {', '.join(keys)}")


def rater_name(value: Any) -> str | None:
    """A rater as text: a name, a number, or an object that holds one."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("email", "user_id", "id") if value.get(key) is not None), None)
    return None if value is None else str(value)

"""The day that chat templates write into prompts, as Llama 3's and gpt-oss's do: one for all rows of a training."""

import re
from datetime import date
from functools import lru_cache
from typing import Any

CLOCK = "strftime_now"  # transformers gives it to templates
_CALL = re.compile(r"strftime_now\(\s*(?P<quote>['\"])(?P<form>[^'\"]*)(?P=quote)\s*\)")


def today() -> str:
    """As 2026-11-30."""
    return date.today().isoformat()


def write_day(tokenizer: Any, day: str) -> None:
    """Let the tokenizer's templates write this day, where they ask for one."""
    tokenizer.written_day = day


def day_written(tokenizer: Any) -> str | None:
    """The day that the tokenizer's templates write: that of their first use unless it was given; None where they ask for none."""
    if CLOCK not in str(tokenizer.chat_template):
        return None
    if getattr(tokenizer, "written_day", None) is None:
        write_day(tokenizer, today())
    return str(tokenizer.written_day)


def dated_template(tokenizer: Any, tools: Any) -> str | None:
    """The chat template for a row with these tools, with the day written out; None where it asks for none, and stays as it is."""
    day = day_written(tokenizer)
    return None if day is None else _dated(tokenizer.get_chat_template(tools=tools), day)


@lru_cache(maxsize=8)
def _dated(template: str, day: str) -> str:
    at = date.fromisoformat(day)
    return _CALL.sub(lambda call: repr(at.strftime(call["form"])), template)

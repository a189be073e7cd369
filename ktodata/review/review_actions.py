"""What a page may ask of a desk. Each request is checked first, whatever page it says it comes from; then it is done."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import parse_qsl

from ktodata.formats.verdicts.verdict_store import VerdictWord
from ktodata.review.filters import Filters
from ktodata.review.session import ReviewSession
from ktodata.visible_text import clean

MAX_NOTE = 4000  # characters
MAX_SECONDS = 86_400.0
SIDES = ("prompt", "completion")


class BadRequestError(Exception):
    """A request that the desk's own page does not make; the text says what is wrong with it."""


@dataclass(frozen=True)
class PageRequest:
    """What is to be seen next: the next row under the filters, or the one at `place`, with a note that stood there."""

    filters: Filters
    place: int | None = None
    note: str = ""


def run_action(session: ReviewSession, name: str, message: Mapping[str, Any]) -> PageRequest:
    """Do one of ACTIONS. Raises BadRequestError, and StaleError where the row is no longer as it was shown."""
    if name not in ACTIONS:
        raise BadRequestError(f"{name[:40]!r} is nothing that can be done at the desk.")
    filters = Filters.of(dict(parse_qsl(_text_field(message, "filters", most=4000).removeprefix("?"))))
    return ACTIONS[name](session, filters, message)


def whole_text(session: ReviewSession, side: str, row_id: str) -> str:
    """The whole prompt or completion of a row, every character visible. Raises BadRequestError and StaleError."""
    if side not in SIDES:
        raise BadRequestError(f"side is one of {', '.join(SIDES)}.")
    return clean(session.rows.text(session.place(row_id), side))


def _judge_row(session: ReviewSession, filters: Filters, message: Mapping[str, Any]) -> PageRequest:
    word, row_id = _text_field(message, "verdict"), _text_field(message, "row_id")
    verdict: Any = session.keep_or_flip(row_id, word == "desirable") if word in ("desirable", "undesirable") else word
    if verdict not in get_args(VerdictWord):
        raise BadRequestError(f"{word[:40]!r} is no verdict.")
    session.record(
        row_id,
        verdict,
        current_id=_whole_number_field(message, "current_id"),
        detector=_text_field(message, "detector"),
        # a NUL or a lone surrogate can be typed, and not be kept as UTF-8
        note=clean(_text_field(message, "note", most=MAX_NOTE)).strip(),
        seconds=_seconds_field(message),
    )
    return PageRequest(filters)


def _skip_row(session: ReviewSession, filters: Filters, message: Mapping[str, Any]) -> PageRequest:
    session.skip(_text_field(message, "row_id"), _text_field(message, "detector"))
    return PageRequest(filters)


def _unskip_rows(session: ReviewSession, filters: Filters, _message: Mapping[str, Any]) -> PageRequest:
    session.unskip()
    return PageRequest(filters)


def _undo_last(session: ReviewSession, filters: Filters, message: Mapping[str, Any]) -> PageRequest:
    place, note = session.undo(_text_field(message, "undo_token"), _text_field(message, "detector"))
    return PageRequest(filters, place, note)


ACTIONS: dict[str, Callable[[ReviewSession, Filters, Mapping[str, Any]], PageRequest]] = {
    "verdict": _judge_row,
    "skip": _skip_row,
    "undo": _undo_last,
    "unskip": _unskip_rows,
}


def _text_field(message: Mapping[str, Any], name: str, *, most: int = 1000) -> str:
    value = message.get(name)
    if not isinstance(value, str) or len(value) > most:
        raise BadRequestError(f"{name} is a text of at most {most:,} characters.")
    return value


def _whole_number_field(message: Mapping[str, Any], name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequestError(f"{name} is a whole number.")
    return value


def _seconds_field(message: Mapping[str, Any]) -> float:
    value = message.get("seconds")
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise BadRequestError("seconds is a number.")
    return round(min(max(float(value), 0.0), MAX_SECONDS), 1)

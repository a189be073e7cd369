"""What a page may ask of a desk. Each request is checked first, whatever page it says it comes from; then it is done."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import parse_qsl

from ktodata.formats.verdict_store import VerdictWord
from ktodata.report.text import clean
from ktodata.review.filters import Filters
from ktodata.review.session import ReviewSession

MAX_NOTE = 4000  # characters
MAX_SECONDS = 86_400.0
SIDES = ("prompt", "completion")


class BadRequestError(Exception):
    """A request that the desk's own page does not make; the text says what is wrong with it."""


@dataclass(frozen=True)
class View:
    """What is to be seen next: the next row under the filters, or the one at `place`, with a note that stood there."""

    filters: Filters
    place: int | None = None
    note: str = ""


def run_action(desk: ReviewSession, name: str, asked: Mapping[str, Any]) -> View:
    """Do one of ACTS. Raises BadRequestError, and StaleError where the row is no longer as it was shown."""
    if name not in ACTS:
        raise BadRequestError(f"{name[:40]!r} is nothing that can be done at the desk.")
    filters = Filters.of(dict(parse_qsl(_text(asked, "filters", most=4000).removeprefix("?"))))
    return ACTS[name](desk, filters, asked)


def text_of(desk: ReviewSession, side: str, row_id: str) -> str:
    """The whole prompt or completion of a row, every character visible. Raises BadRequestError and StaleError."""
    if side not in SIDES:
        raise BadRequestError(f"side is one of {', '.join(SIDES)}.")
    return clean(desk.book.text(desk.place(row_id), side))


def _verdict(desk: ReviewSession, filters: Filters, asked: Mapping[str, Any]) -> View:
    word, row_id = _text(asked, "verdict"), _text(asked, "row_id")
    verdict: Any = desk.judge(row_id, word == "desirable") if word in ("desirable", "undesirable") else word
    if verdict not in get_args(VerdictWord):
        raise BadRequestError(f"{word[:40]!r} is no verdict.")
    desk.give(
        row_id,
        verdict,
        seen=_whole(asked, "seen"),
        detector=_text(asked, "detector"),
        # a NUL or a lone surrogate can be typed, and not be kept as UTF-8
        note=clean(_text(asked, "note", most=MAX_NOTE)).strip(),
        seconds=_seconds(asked),
    )
    return View(filters)


def _skip(desk: ReviewSession, filters: Filters, asked: Mapping[str, Any]) -> View:
    desk.skip(_text(asked, "row_id"), _text(asked, "detector"))
    return View(filters)


def _unskip(desk: ReviewSession, filters: Filters, _asked: Mapping[str, Any]) -> View:
    desk.unskip()
    return View(filters)


def _undo(desk: ReviewSession, filters: Filters, asked: Mapping[str, Any]) -> View:
    place, note = desk.undo(_text(asked, "last"), _text(asked, "detector"))
    return View(filters, place, note)


ACTS: dict[str, Callable[[ReviewSession, Filters, Mapping[str, Any]], View]] = {
    "verdict": _verdict,
    "skip": _skip,
    "undo": _undo,
    "unskip": _unskip,
}


def _text(asked: Mapping[str, Any], name: str, *, most: int = 1000) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or len(value) > most:
        raise BadRequestError(f"{name} is a text of at most {most:,} characters.")
    return value


def _whole(asked: Mapping[str, Any], name: str) -> int:
    value = asked.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequestError(f"{name} is a whole number.")
    return value


def _seconds(asked: Mapping[str, Any]) -> float:
    value = asked.get("seconds")
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise BadRequestError("seconds is a number.")
    return round(min(max(float(value), 0.0), MAX_SECONDS), 1)

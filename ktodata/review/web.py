"""The desk over HTTP: three pages to look at, four acts. Every act answers with the page of the next row."""

import json
import math
from collections.abc import Mapping
from typing import Any, get_args
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ktodata.errors import KtodataError
from ktodata.formats.verdict_store import Verdict, settled
from ktodata.report.text import clean
from ktodata.review import agreement, pages, progress
from ktodata.review.desk import Desk
from ktodata.review.filters import Filters
from ktodata.review.store import StaleError

MOST_NOTE = 4000  # characters
MOST_SECONDS = 86_400.0
LATEST = 20  # verdicts shown on the page of progress
MOST_DIFFERENT = 200  # rows shown there
SIDES = ("prompt", "completion")


class BadRequestError(Exception):
    """A request that the desk's own page does not make; the text says what is wrong with it."""


class Web:
    """The routes of one desk. Handlers run one after the other on the server's loop: a reviewer has two hands."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.csrf = ""  # the guard's, once it is made

    def app(self) -> Starlette:
        """The application, without a guard."""
        acts = {"verdict": self.give, "skip": self.skip, "undo": self.undo, "unskip": self.unskip}
        routes = [
            Route("/", self.next_row),
            Route("/row", self.one_row),
            Route("/text", self.text),
            Route("/progress", self.progress),
            Route("/static/{name}", self.static),
            Route("/favicon.ico", self.icon),  # what a browser asks for before it has read a page
            *(Route(f"/{name}", act, methods=["POST"]) for name, act in acts.items()),
        ]
        handlers = {StaleError: _stale, BadRequestError: _bad_request, KtodataError: _failed}
        return Starlette(routes=routes, exception_handlers=handlers)

    # --- to look at ----------------------------------------------------------------------------------------------------

    async def next_row(self, request: Request) -> Response:
        """The next row under the filters."""
        return self._page(Filters.of(request.query_params))

    async def one_row(self, request: Request) -> Response:
        """The row that is named."""
        return self._page(Filters.of(request.query_params), place=self.desk.place(request.query_params.get("id", "")))

    async def text(self, request: Request) -> Response:
        """The whole prompt or completion of a row, as plain text."""
        side = request.query_params.get("side", "")
        if side not in SIDES:
            raise BadRequestError(f"side is one of {', '.join(SIDES)}.")
        place = self.desk.place(request.query_params.get("id", ""))
        return PlainTextResponse(clean(self.desk.book.text(place, side)))

    async def progress(self, _request: Request) -> Response:
        """Who said what, how far reviewers agree, and what further reviews would buy."""
        desk = self.desk
        standing = desk.store.standing()
        mine = standing.filter(standing["reviewer"] == desk.reviewer).sort("id", descending=True).head(LATEST)
        differ = agreement.disagreements(standing)
        page = pages.render(
            "progress.html.j2",
            **self._frame("progress"),
            tallies=progress.tallies(standing),
            drawn=progress.drawn_so_far(settled(standing), desk.book.row_ids, desk.queue.drawn),
            agreements=agreement.agreements(standing),
            differ=differ.head(MOST_DIFFERENT).to_dicts(),
            differ_in_all=differ.height,
            mine=mine.to_dicts(),
            outlook=desk.outlook(),
            store=desk.store.path,
        )
        return HTMLResponse(page)

    async def static(self, request: Request) -> Response:
        """Script, look and picture of the pages."""
        name = request.path_params["name"]
        if name not in pages.STATIC:
            return PlainTextResponse("There is no such file.", 404)
        return Response(pages.static(name), media_type=pages.STATIC[name])

    async def icon(self, _request: Request) -> Response:
        """The picture of the pages, where browsers look for it."""
        return Response(pages.static("icon.svg"), media_type=pages.STATIC["icon.svg"])

    # --- to do ---------------------------------------------------------------------------------------------------------

    async def give(self, request: Request) -> Response:
        """A verdict on a row."""
        asked = await _asked(request)
        filters = _filters(asked)
        word, row_id = _text(asked, "verdict"), _text(asked, "row_id")
        verdict: Any = self.desk.judge(row_id, word == "desirable") if word in ("desirable", "undesirable") else word
        if verdict not in get_args(Verdict):
            raise BadRequestError(f"{word[:40]!r} is no verdict.")
        self.desk.give(
            row_id,
            verdict,
            seen=_whole(asked, "seen"),
            detector=_text(asked, "detector"),
            # a NUL or a lone surrogate can be typed, and not be kept as UTF-8
            note=clean(_text(asked, "note", most=MOST_NOTE)).strip(),
            seconds=_seconds(asked),
        )
        return self._page(filters)

    async def skip(self, request: Request) -> Response:
        """Set a row aside for this sitting."""
        asked = await _asked(request)
        filters = _filters(asked)
        self.desk.skip(_text(asked, "row_id"), _text(asked, "detector"))
        return self._page(filters)

    async def unskip(self, request: Request) -> Response:
        """Ask about skipped rows again."""
        filters = _filters(await _asked(request))
        self.desk.unskip()
        return self._page(filters)

    async def undo(self, request: Request) -> Response:
        """Take the last act back, and show its row."""
        asked = await _asked(request)
        filters = _filters(asked)
        place, note = self.desk.undo(_text(asked, "last"), _text(asked, "detector"))
        return self._page(filters, place=place, note=note)

    def _page(self, filters: Filters, *, place: int | None = None, note: str = "") -> Response:
        desk = self.desk
        turn = desk.turn(filters, place=place, note=note)
        page = pages.render(
            "row.html.j2",
            **self._frame("row"),
            turn=turn,
            filters=filters,
            choices=desk.columns.choices,
            outlook=desk.outlook(),
        )
        return HTMLResponse(page, background=None if turn.after is None else BackgroundTask(desk.book.look_ahead, turn.after))

    def _frame(self, here: str) -> dict[str, Any]:
        desk = self.desk
        return {
            "here": here,
            "name": desk.name,
            "reviewer": desk.reviewer,
            "blind": desk.blind,
            "detector": desk.detector,
            "csrf": self.csrf,
        }


async def _asked(request: Request) -> Mapping[str, Any]:
    """The body as an object."""
    try:
        asked = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise BadRequestError("The request is not JSON.") from None
    if not isinstance(asked, dict):
        raise BadRequestError("The request is not an object.")
    return asked


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
    return round(min(max(float(value), 0.0), MOST_SECONDS), 1)


def _filters(asked: Mapping[str, Any]) -> Filters:
    return Filters.of(dict(parse_qsl(_text(asked, "filters", most=4000).removeprefix("?"))))


async def _stale(_request: Request, error: Exception) -> Response:
    return JSONResponse({"problem": str(error)}, 409)


async def _bad_request(_request: Request, error: Exception) -> Response:
    return JSONResponse({"problem": str(error)}, 400)


async def _failed(_request: Request, error: Exception) -> Response:
    return JSONResponse({"problem": str(error)}, 500)

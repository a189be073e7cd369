"""The desk over HTTP: three pages to read, four actions. Every action answers with the page of the next row."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from ktodata.errors import KtodataError
from ktodata.review import pages
from ktodata.review.filters import Filters
from ktodata.review.review_actions import ACTIONS, BadRequestError, PageRequest, run_action, whole_text
from ktodata.review.session import ReviewSession
from ktodata.review.store import StaleError

PATIENCE_SECONDS = 5.0  # between two looks at a connection; one that waits for the same request at both is closed


class ReviewApp:
    """The routes of one desk. Handlers run one after the other on the server's loop: a reviewer has two hands."""

    def __init__(self, session: ReviewSession) -> None:
        self.session = session
        self.csrf = ""  # of the AuthMiddleware around it, once that is made

    def app(self) -> Starlette:
        """The application, without its AuthMiddleware."""
        routes = [
            Route("/", self.next_row),
            Route("/row", self.one_row),
            Route("/text", self.text),
            Route("/progress", self.progress),
            Route("/static/{name}", self.static),
            Route("/favicon.ico", self.icon),  # what a browser asks for before it has read a page
            *(Route(f"/{name}", self.action, methods=["POST"]) for name in ACTIONS),
        ]
        handlers = {StaleError: _stale_response, BadRequestError: _bad_request_response, KtodataError: _error_response}
        return Starlette(routes=routes, exception_handlers=handlers)

    # --- to look at ----------------------------------------------------------------------------------------------------

    async def next_row(self, request: Request) -> Response:
        """The next row under the filters."""
        return self._row_response(PageRequest(Filters.of(request.query_params)))

    async def one_row(self, request: Request) -> Response:
        """The row that is named."""
        return self._row_response(
            PageRequest(Filters.of(request.query_params), self.session.place(request.query_params.get("id", "")))
        )

    async def text(self, request: Request) -> Response:
        """The whole prompt or completion of a row, as plain text."""
        query = request.query_params
        return PlainTextResponse(whole_text(self.session, query.get("side", ""), query.get("id", "")))

    async def progress(self, _request: Request) -> Response:
        """Who said what, how far reviewers agree, and what further reviews would buy."""
        return HTMLResponse(pages.progress_page(self.session, csrf=self.csrf))

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

    async def action(self, request: Request) -> Response:
        """A verdict, a skip, an undo: the request's path says which."""
        return self._row_response(run_action(self.session, request.url.path.removeprefix("/"), await _read_body(request)))

    def _row_response(self, page_request: PageRequest) -> Response:
        item = self.session.item(page_request.filters, place=page_request.place, note=page_request.note)
        page = pages.row_page(self.session, item, page_request.filters, csrf=self.csrf)
        ahead = None if item.next_place is None else BackgroundTask(self.session.rows.look_ahead, item.next_place)
        return HTMLResponse(page, background=ahead)


class ClosingProtocol(H11Protocol):
    """uvicorn's, which waits for ever for the rest of a request; this one closes after PATIENCE_SECONDS to twice as long."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch the connection."""
        super().connection_made(transport)
        self._look = self.loop.call_later(PATIENCE_SECONDS, self._watch, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Watch it no longer."""
        self._look.cancel()
        super().connection_lost(exc)

    def _watch(self, before: Any) -> None:
        waits_for = self._waits_for()
        if waits_for is not None and waits_for == before:
            self.transport.close()
        else:
            self._look = self.loop.call_later(PATIENCE_SECONDS, self._watch, waits_for)

    def _waits_for(self) -> str | None:
        """Which unfinished request it waits for; None while one is answered, and between two (uvicorn ends that wait itself)."""
        if self.cycle is None or self.cycle.response_complete:
            return None if self.timeout_keep_alive_task is not None else f"head after {id(self.cycle)}"
        return f"body of {id(self.cycle)}" if self.cycle.more_body else None


async def _read_body(request: Request) -> Mapping[str, Any]:
    """The body as an object."""
    try:
        message = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise BadRequestError("The request is not JSON.") from None
    if not isinstance(message, dict):
        raise BadRequestError("The request is not an object.")
    return message


async def _stale_response(_request: Request, error: Exception) -> Response:
    return JSONResponse({"problem": str(error)}, 409)


async def _bad_request_response(_request: Request, error: Exception) -> Response:
    return JSONResponse({"problem": str(error)}, 400)


async def _error_response(_request: Request, error: Exception) -> Response:
    return JSONResponse({"problem": str(error)}, 500)

"""The desk over HTTP: three pages to look at, four acts. Every act answers with the page of the next row."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ktodata.errors import KtodataError
from ktodata.review import pages
from ktodata.review.filters import Filters
from ktodata.review.review_actions import ACTS, BadRequestError, View, run_action, text_of
from ktodata.review.session import ReviewSession
from ktodata.review.store import StaleError


class Web:
    """The routes of one desk. Handlers run one after the other on the server's loop: a reviewer has two hands."""

    def __init__(self, desk: ReviewSession) -> None:
        self.desk = desk
        self.csrf = ""  # the guard's, once it is made

    def app(self) -> Starlette:
        """The application, without a guard."""
        routes = [
            Route("/", self.next_row),
            Route("/row", self.one_row),
            Route("/text", self.text),
            Route("/progress", self.progress),
            Route("/static/{name}", self.static),
            Route("/favicon.ico", self.icon),  # what a browser asks for before it has read a page
            *(Route(f"/{name}", self.act, methods=["POST"]) for name in ACTS),
        ]
        handlers = {StaleError: _stale, BadRequestError: _bad_request, KtodataError: _failed}
        return Starlette(routes=routes, exception_handlers=handlers)

    # --- to look at ----------------------------------------------------------------------------------------------------

    async def next_row(self, request: Request) -> Response:
        """The next row under the filters."""
        return self._page(View(Filters.of(request.query_params)))

    async def one_row(self, request: Request) -> Response:
        """The row that is named."""
        return self._page(View(Filters.of(request.query_params), self.desk.place(request.query_params.get("id", ""))))

    async def text(self, request: Request) -> Response:
        """The whole prompt or completion of a row, as plain text."""
        asked = request.query_params
        return PlainTextResponse(text_of(self.desk, asked.get("side", ""), asked.get("id", "")))

    async def progress(self, _request: Request) -> Response:
        """Who said what, how far reviewers agree, and what further reviews would buy."""
        return HTMLResponse(pages.progress_page(self.desk, csrf=self.csrf))

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

    async def act(self, request: Request) -> Response:
        """A verdict, a skip, an undo: the request's path says which."""
        return self._page(run_action(self.desk, request.url.path.removeprefix("/"), await _asked(request)))

    def _page(self, view: View) -> Response:
        turn = self.desk.turn(view.filters, place=view.place, note=view.note)
        page = pages.row_page(self.desk, turn, view.filters, csrf=self.csrf)
        ahead = None if turn.after is None else BackgroundTask(self.desk.book.look_ahead, turn.after)
        return HTMLResponse(page, background=ahead)


async def _asked(request: Request) -> Mapping[str, Any]:
    """The body as an object."""
    try:
        asked = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise BadRequestError("The request is not JSON.") from None
    if not isinstance(asked, dict):
        raise BadRequestError("The request is not an object.")
    return asked


async def _stale(_request: Request, error: Exception) -> Response:
    return JSONResponse({"problem": str(error)}, 409)


async def _bad_request(_request: Request, error: Exception) -> Response:
    return JSONResponse({"problem": str(error)}, 400)


async def _failed(_request: Request, error: Exception) -> Response:
    return JSONResponse({"problem": str(error)}, 500)

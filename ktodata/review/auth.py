"""Who may talk to the desk: this machine's browser that was handed the token, and no other page that is open in it.

The token in the first address is worth one use, and is exchanged for a cookie that no script can read and that no other site's
request carries. What changes something must also come from the desk's own page, which alone knows a second secret. The name by
which the desk is called must be one of this machine's own, so that no outside name can be pointed at it (DNS rebinding).
"""

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATH = "/open"
MAX_BYTES = 64 * 1024  # of a request's body
SAFE_METHODS = ("GET", "HEAD")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# a redirect would still count as coming from wherever the address was clicked, and the cookie would stay behind
OPENED_PAGE = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/"><title>ktodata review</title>'
    '<link rel="icon" href="/static/icon.svg">'
)


class AuthMiddleware:
    """An ASGI application around the desk's: refuses what may not come in, and sets the headers of what goes out."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        # cookies are shared by all ports of a host
        self._cookie = f"ktodata_review_{port}"
        self._token: str | None = secrets.token_urlsafe(32)
        self._session = secrets.token_urlsafe(32)
        self.csrf = secrets.token_urlsafe(32)
        self.address = f"http://127.0.0.1:{port}{OPEN_PATH}?token={self._token}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            raise RuntimeError(f"the desk speaks HTTP only, not {scope['type']}")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._check_request(scope) or (self._exchange_token(scope) if scope["path"] == OPEN_PATH else None)
        await (answer or self._app)(scope, receive, send_with_headers)

    def _exchange_token(self, scope: Scope) -> Response:
        """The cookie for the token; the token is void from then on."""
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if self._token is None or not _same_secret(token, self._token):
            return _refuse("This address was used already, or is not the one that `ktodata review` printed. Start it again.")
        self._token = None
        answer = HTMLResponse(OPENED_PAGE)
        answer.set_cookie(self._cookie, self._session, httponly=True, samesite="strict", path="/")
        return answer

    def _check_request(self, scope: Scope) -> Response | None:
        """Why a request is not answered; None where it may come in."""
        headers = Headers(scope=scope)
        if headers.get("host") not in self._hosts:
            return _refuse("The desk is called by this machine's own names only.")
        if scope["path"] == OPEN_PATH and scope["method"] == "GET":
            return None
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return _refuse("The request came from another site.")
        if not _same_secret(_read_cookie(headers, self._cookie), self._session):
            return _refuse("This browser was not let in. Open the address that `ktodata review` printed.")
        return None if scope["method"] in SAFE_METHODS else self._check_change(headers)

    def _check_change(self, headers: Headers) -> Response | None:
        if headers.get("origin") != f"http://{headers.get('host')}":
            return _refuse("The request came from another page.")
        if not _same_secret(headers.get("x-csrf-token", ""), self.csrf):
            return _refuse("The page is not of this desk. Load it again.")
        if headers.get("content-type") != "application/json":
            return _refuse("A change is sent as application/json.", 415)
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return _refuse("A change says how long it is.", 411)
        return _refuse("That is too long.", 413) if int(length) > MAX_BYTES else None


def _refuse(why: str, status: int = 403) -> Response:
    return PlainTextResponse(why, status)


def _same_secret(value: str, secret: str) -> bool:
    return secrets.compare_digest(value.encode(errors="replace"), secret.encode())


def _read_cookie(headers: Headers, name: str) -> str:
    jar = SimpleCookie()
    try:
        jar.load(headers.get("cookie", ""))
    except CookieError:
        return ""
    return jar[name].value if name in jar else ""

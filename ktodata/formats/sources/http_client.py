"""Plain HTTP to one service: repeated where that helps, never with credentials to another host, without secrets in messages."""

import email.utils
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from ktodata.errors import AlreadyThereError, NotThereError, ServiceError, SettingError
from ktodata.extras import require

PASSING = (429, 500, 502, 503, 504)  # try again
GONE = (404, 405, 410)
CONFLICT = 409
REFUSED = (401, 403)
MAX_TRIES = 6
MAX_WAIT = 300.0  # seconds; who is told to wait longer had better come again
MAX_REDIRECTS = 5
MIN_SECRET = 8  # shorter ones are words of ordinary text


@dataclass
class HttpClient:
    """Requests to the service `name` at `url`. `variables` are the environment's names of its credentials."""

    name: str
    url: str
    variables: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    sleep: Callable[[float], None] = time.sleep
    renew: Callable[[], dict[str, str]] | None = None  # new headers when the old ones hold no longer

    def __post_init__(self) -> None:
        require("httpx2", what=f"pulling from {self.name}", extra="pull")
        import httpx2

        parts = httpx2.URL(self.url)
        if parts.scheme not in ("http", "https") or not parts.host or parts.userinfo or parts.query:
            raise SettingError(
                f"url is the address of {self.name}, such as https://{self.name.replace('_', '-')}.example.com, without user, "
                f"password or query; credentials are read from {' and '.join(self.variables)} in the environment."
            )
        self.url = self.url.rstrip("/")
        self._client = httpx2.Client(
            verify=_certificates(), timeout=60, follow_redirects=False, headers={"accept": "application/json"}
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def address(self, path: str, params: Mapping[str, Any] | None = None) -> str:
        """The whole URL of a request, for a path of the service. Parameters that are None are left out."""
        given = {name: value for name, value in (params or {}).items() if value is not None}
        return str(self._client.build_request("GET", path if "://" in path else self.url + path, params=given or None).url)

    def text(self, method: str, url: str, body: Any = None) -> str:
        """The JSON text that a request is answered with. Raises NotThereError or ServiceError."""
        response = self._final_answer(method, url, body)
        if response.status_code in REFUSED and self.renew is not None:
            renew, self.renew = self.renew, None  # asking for it must not ask for it again
            self.headers |= renew()
            self.renew = renew
            response = self._final_answer(method, url, body)
        if response.status_code in REFUSED:
            raise ServiceError(self._credentials_refused(response.status_code, url))
        if response.status_code >= 400:
            kind = {CONFLICT: AlreadyThereError, **dict.fromkeys(GONE, NotThereError)}.get(response.status_code, ServiceError)
            raise kind(self.without_secrets(f"{self.name}: {url} answered {response.status_code}: {_excerpt(response)}"))
        return self.without_secrets(self._json_text(response, url))

    def without_secrets(self, text: str) -> str:
        """`text` with every credential in it blotted out."""
        for secret in self.secrets:
            if len(secret) >= MIN_SECRET:
                text = text.replace(secret, "***")
        return text

    def _final_answer(self, method: str, url: str, body: Any) -> Any:
        """The first answer that is no passing failure and no redirect."""
        for number in range(MAX_TRIES):
            response, failure = self._send(method, url, body)
            if failure is None and response.status_code not in PASSING:
                return response
            if number < MAX_TRIES - 1:
                self.sleep(self._pause(response, number, url))
        what = failure or f"{response.status_code}: {_excerpt(response)}"
        raise ServiceError(
            self.without_secrets(
                f"{self.name}: {url} failed {MAX_TRIES} times, last with {what}. What came before is kept: pull again later, or "
                "check `url`."
            )
        )

    def _send(self, method: str, url: str, body: Any) -> tuple[Any, str | None]:
        """An answer after redirects, or what went wrong on the way."""
        import httpx2

        try:
            for _ in range(MAX_REDIRECTS):
                response = self._client.request(method, url, json=body, headers=self.headers)
                if not response.is_redirect:
                    return response, None
                url = self._redirected(method, response)
        except httpx2.TransportError as error:
            return None, f"{type(error).__name__}: {error}"
        raise ServiceError(f"{self.name}: {url} redirects more than {MAX_REDIRECTS} times: check `url`.")

    def _redirected(self, method: str, response: Any) -> str:
        """Where a redirect leads, if credentials may go there."""
        here, there = response.request.url, response.next_request.url
        same_host = here.host == there.host and (here.port == there.port or (here.scheme, there.scheme) == ("http", "https"))
        if not same_host or (here.scheme, there.scheme) == ("https", "http"):
            raise ServiceError(
                f"{self.name}: {here} redirects to another host, {there.scheme}://{there.netloc.decode()}; credentials are not "
                "sent there. If that is the service's address, give it as `url`."
            )
        if method != response.next_request.method:
            raise ServiceError(f"{self.name}: {here} redirects a {method} request to {there}: give that address as `url`.")
        return str(there)

    def _pause(self, response: Any, number: int, url: str) -> float:
        """Seconds to wait: what the service asks for, else 1, 2, 4, ..."""
        wish = _retry_after(response.headers.get("retry-after")) if response is not None else None
        if wish is not None and wish > MAX_WAIT:
            raise ServiceError(
                f"{self.name}: {url} asks to come again in {wish:,.0f} seconds. What came before is kept: pull again then."
            )
        return wish if wish is not None else float(2**number)

    def _credentials_refused(self, status: int, url: str) -> str:
        names = " and ".join(self.variables)
        why = "what is set is not accepted there" if self.secrets else "none is set"
        return f"{self.name}: {url} refuses the credentials ({status}): set {names} in the environment ({why})."

    def _json_text(self, response: Any, url: str) -> str:
        try:
            text = response.content.decode("utf-8-sig")
            json.loads(text)
        except ValueError:
            came = f"{response.headers.get('content-type', 'something without a type')} that is not JSON: {_excerpt(response)}"
            raise ServiceError(
                self.without_secrets(f"{self.name}: {url} answered with {came}. Is `url` the address of its API?")
            ) from None
        return str(text)


@cache
def _certificates() -> ssl.SSLContext:
    """The system's certificates, read once, as that takes longer than a request."""
    import httpx2

    return httpx2.create_ssl_context()


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a header that gives seconds or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _excerpt(response: Any) -> str:
    text = " ".join(response.text[:2000].split())
    return repr(text[:200] + ("…" if len(text) > 200 else ""))

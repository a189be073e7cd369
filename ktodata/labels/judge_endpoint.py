"""A judge behind an address: an OpenAI-compatible chat endpoint, asked through httpx2."""

import json
import math
import os
import random
import re
import threading
from typing import TYPE_CHECKING, Any

from ktodata.errors import ModelError, SettingError
from ktodata.extras import require
from ktodata.labels.judge_questions import JudgeAnswer, JudgeQuestion, JudgeSettings, NoAnswer, bare_answer, chat_messages

if TYPE_CHECKING:
    from httpx2 import URL, Response

RETRIED = (408, 409, 429, 500, 502, 503, 504, 529)
FATAL = {
    401: "it does not accept the key in that variable",
    403: "the key may not use this model",
    404: "there is no such address or model",
}
MAX_WAIT_S = 60.0


class ChatEndpoint:
    """Asks POST {base}/chat/completions. retried : requests repeated so far; setting `stopped` ends a pause before the next."""

    def __init__(
        self,
        base: str,
        model: str | None,
        api_key_env: str | None,
        settings: JudgeSettings,
        *,
        timeout_s: float,
        retries: int,
        backoff_s: float,
    ) -> None:
        require("httpx2", what="a judge at an address", extra="judge")
        from httpx2 import Client, Limits

        self._key = _read_key(api_key_env)
        self._host = _parse_address(base).host
        if not model:
            raise SettingError(f"judge: model is missing: which model shall the endpoint at {self._host} use?")
        self.name = model
        self.identity = {"endpoint": base.rstrip("/"), "model": model, "temperature": settings.temperature}
        self.stopped = threading.Event()
        self.retried = 0
        self._settings, self._retries, self._backoff_s = settings, retries, backoff_s
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        # a redirect would carry the key to an address that the caller did not name; as many connections as there are workers
        self._client = Client(headers=headers, timeout=timeout_s, follow_redirects=False, limits=Limits(max_connections=None))

    def __call__(self, question: JudgeQuestion) -> JudgeAnswer:
        """Ask one question. Raises NoAnswer, or ModelError where asking on is useless."""
        from httpx2 import RequestError

        sent = self._request_body(question)
        for attempt in range(self._retries + 1):
            try:
                response = self._client.post(f"{self.identity['endpoint']}/chat/completions", content=sent)
                if response.is_success:
                    return _read_answer(response.content)
                reason, wait = self._retry_reason(response), response.headers.get("Retry-After")
            except RequestError as error:
                reason, wait = f"no connection ({type(error).__name__})", None
            if attempt < self._retries:
                self.retried += 1
                if self.stopped.wait(_pause_s(attempt, self._backoff_s, wait)):
                    break
        raise NoAnswer(f"{reason}, after {self._retries} retries", down=True)

    def close(self) -> None:
        """Close the connections that are kept open between questions."""
        self._client.close()

    def _request_body(self, question: JudgeQuestion) -> bytes:
        roles = chat_messages(question, self._settings)
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [{"role": role, "content": text} for role, text in roles.items()],
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.max_answer_tokens,
        } | self._settings.extra
        return json.dumps({name: value for name, value in body.items() if value is not None}).encode()

    def _retry_reason(self, response: "Response") -> str:
        """Why the endpoint refused, if it is worth while to ask again; else raises."""
        status = response.status_code
        if status in FATAL:
            hint = "api_key_env names the variable that holds the key" if status != 404 else "check judge and model"
            problem = FATAL[status] if self._key or status == 404 else "it wants a key"
            raise ModelError(
                f"the judge at {self.identity['endpoint']} answers {status} for model {self.name!r}: {problem}; {hint}."
            )
        if status in RETRIED:
            return f"HTTP {status}"
        message = response.content[:2_000].decode("utf-8", "replace")
        message = message.replace(self._key, "***") if self._key else message
        # numbers differ from row to row (tokens, ids), the reason does not
        raise NoAnswer(f"HTTP {status}: {re.sub(r'[0-9]+', '#', ' '.join(message.split()))[:160]}")


def _parse_address(base: str) -> "URL":
    """The address of an endpoint. Raises SettingError, without the password, unless it is a host and a path."""
    from httpx2 import URL, InvalidURL

    try:
        address = URL(base)
    except InvalidURL:
        address = URL("")
    if not address.host or address.userinfo or address.query:
        raise SettingError(
            "judge: an endpoint is an address such as https://host/v1, without user, password or query; "
            f"got one of host {address.host!r}. Keys go into an environment variable: api_key_env."
        )
    return address


def _read_key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise SettingError("judge: the environment variable that api_key_env names is not set, or empty. Give the NAME of one.")
    if not key.isascii() or not key.isprintable():  # else the HTTP client would show it in its error
        raise SettingError(f"judge: the key in the environment variable {name} holds characters that no key has; copy it again.")
    return key


def _read_answer(received: bytes) -> JudgeAnswer:
    try:
        body = json.loads(received)
        text = body["choices"][0]["message"]["content"]
        if not isinstance(text, str | None):
            raise TypeError
    except (ValueError, LookupError, TypeError):
        raise NoAnswer("the response is not a chat completion") from None
    usage = body.get("usage")
    counts = {"in": usage.get("prompt_tokens"), "out": usage.get("completion_tokens")} if isinstance(usage, dict) else {}
    return JudgeAnswer(bare_answer(text or "")[:200], tokens={side: n for side, n in counts.items() if isinstance(n, int)})


def _pause_s(attempt: int, backoff_s: float, retry_after: str | None) -> float:
    """Seconds until the next try: what the server wants, else twice as long each time, spread so that not all come at once."""
    try:
        wanted = float(retry_after) if retry_after else math.nan
    except ValueError:  # a date
        wanted = math.nan
    doubled = backoff_s * 2**attempt * random.uniform(0.5, 1)
    return min(max(0.0, wanted) if math.isfinite(wanted) else doubled, MAX_WAIT_S)

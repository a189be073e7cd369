"""A judge behind an address: an OpenAI-compatible chat endpoint, asked through httpx2."""

import json
import math
import os
import random
import re
import threading
import time
from typing import Any, TypeGuard

from ktodata.errors import ModelError, SettingError
from ktodata.extras import require
from ktodata.labels.judges.judge_questions import JudgeAnswer, JudgeQuestion, NoAnswer, bare_answer, chat_messages
from ktodata.labels.judges.judge_settings import JudgeSettings, JudgeSource

RETRIED = (408, 409, 429, 500, 502, 503, 504, 529)
FATAL = {
    401: "it does not accept the key in that variable",
    403: "the key may not use this model",
    404: "there is no such address or model",
}
MAX_WAIT_S = 60.0
MAX_BYTES = 1_000_000  # of a response; one word was asked for
MAX_TOKENS = 100_000_000


class ChatEndpoint:
    """Asks POST {base}/chat/completions. retried : requests repeated so far; setting `stopped` ends a pause before the next."""

    def __init__(self, source: JudgeSource, settings: JudgeSettings) -> None:
        require("httpx2", what="a judge at an address", extra="judge")
        from httpx2 import Client, Limits

        self._key = _read_key(source.api_key_env)
        self.name = source.name
        self.stopped = threading.Event()
        self.retried = 0
        self._source, self._settings = source, settings
        self._address = f"{(source.endpoint or '').rstrip('/')}/chat/completions"
        # what is sent packed could be a thousand times as long unpacked
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        # a redirect would carry the key to an address that the caller did not name; as many connections as there are workers
        self._client = Client(
            headers=headers, timeout=source.timeout_s, follow_redirects=False, limits=Limits(max_connections=None)
        )

    def __call__(self, question: JudgeQuestion) -> JudgeAnswer:
        """Ask one question. Raises NoAnswer, or ModelError where asking on is useless."""
        from httpx2 import RequestError

        sent = self._request_body(question)
        for attempt in range(self._source.retries + 1):
            wait = None
            try:
                status, wait, received = self._post(sent)
                if 200 <= status < 300:
                    return _read_answer(received)
                reason = self._retry_reason(status, received)
            except RequestError as error:
                reason = f"no connection ({type(error).__name__})"
            except TimeoutError:
                reason = f"no whole answer within {self._source.timeout_s:g} s"
            if attempt < self._source.retries:
                self.retried += 1
                if self.stopped.wait(_pause_s(attempt, self._source.backoff_s, wait)):
                    break
        raise NoAnswer(f"{reason}, after {self._source.retries} retries", down=True)

    def _post(self, sent: bytes) -> tuple[int, str | None, bytes]:
        """(status, Retry-After, what came, without the key). Raises TimeoutError, and NoAnswer for what is too long."""
        ends, received = time.monotonic() + self._source.timeout_s, bytearray()
        with self._client.stream("POST", self._address, content=sent) as response:
            for piece in response.iter_raw():
                received += piece
                if len(received) > MAX_BYTES:
                    raise NoAnswer(f"the response is longer than {MAX_BYTES:,} bytes")
                if time.monotonic() > ends:
                    raise TimeoutError
        whole = bytes(received)
        whole = whole.replace(self._key.encode(), b"***") if self._key else whole
        return response.status_code, response.headers.get("Retry-After"), whole

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

    def _retry_reason(self, status: int, received: bytes) -> str:
        """Why the endpoint refused, if it is worth while to ask again; else raises."""
        if status in FATAL:
            hint = "api_key_env names the variable that holds the key" if status != 404 else "check endpoint and model"
            problem = FATAL[status] if self._key or status == 404 else "it wants a key"
            raise ModelError(f"the judge at {self._source.endpoint} answers {status} for model {self.name!r}: {problem}; {hint}.")
        if status in RETRIED:
            return f"HTTP {status}"
        raise NoAnswer(f"HTTP {status}: {_in_one_line(received)}")


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
    except (ValueError, LookupError, TypeError, RecursionError):
        raise NoAnswer("the response is not a chat completion") from None
    usage = body.get("usage")
    counts = {"in": usage.get("prompt_tokens"), "out": usage.get("completion_tokens")} if isinstance(usage, dict) else {}
    return JudgeAnswer(bare_answer(text or "")[:200], tokens={side: n for side, n in counts.items() if _is_count(n)})


def _is_count(value: Any) -> TypeGuard[int]:
    """Whether a server's count may be one: what is negative, or more than any model reads, would spoil the sum."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS


def _in_one_line(received: bytes) -> str:
    """The beginning of a refusal, as a reason that can be counted: numbers differ from row to row (tokens, ids), it does not."""
    words = " ".join(received[:2_000].decode("utf-8", "replace").split())
    return re.sub(r"[0-9]+", "#", words)[:160]


def _pause_s(attempt: int, backoff_s: float, retry_after: str | None) -> float:
    """Seconds until the next try: what the server wants, else twice as long each time, spread so that not all come at once."""
    try:
        wanted = float(retry_after) if retry_after else math.nan
    except ValueError:  # a date
        wanted = math.nan
    doubled = backoff_s * 2**attempt * random.uniform(0.5, 1)
    return min(max(0.0, wanted) if math.isfinite(wanted) else doubled, MAX_WAIT_S)

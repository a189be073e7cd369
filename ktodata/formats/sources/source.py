"""What pulling needs to know of a service."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ktodata.formats.sources.held_items import Feed, HeldItems
from ktodata.formats.sources.http_client import HttpClient
from ktodata.formats.sources.service import Query, Service
from ktodata.formats.sources.verdict_request import OutgoingVerdict, VerdictRequest

# the environment's variables that are set, by name
Credentials = Mapping[str, str]


@dataclass(frozen=True)
class Joined:
    """Records, each with an `id`, and why what could not become one was left out."""

    records: list[dict[str, Any]]
    left_out: Counter[str]


@dataclass(frozen=True)
class PullSource:
    """A service that feedback is pulled from.

    verdict_request : how a verdict goes back there; None where `takes_none` says why it cannot
    one_answer : a record has one answer of whoever the credentials are, so several reviewers' verdicts are settled first
    url : where it is unless the recipe says otherwise; None where everybody has their own
    project : what `project` names there, where a pull needs one
    needs, takes : environment variables that must be set, and that may be
    headers : the headers that carry the credentials; it may ask the service for a token
    feeds : what it hands out; fetch : asks for all of it; join : verdicts and what they are about, put together
    """

    name: str
    feeds: Mapping[str, Feed]
    headers: Callable[[Credentials, HttpClient], dict[str, str]]
    fetch: Callable[[Service, Query], None]
    join: Callable[[HeldItems, Query], Joined]
    verdict_request: Callable[[OutgoingVerdict], VerdictRequest | None] | None = None
    takes_none: str = ""
    one_answer: bool = False
    url: str | None = None
    project: str | None = None
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


def bearer(credentials: Credentials, http: HttpClient) -> dict[str, str]:
    """The only credential as a bearer token; nothing where none is set."""
    key = next(iter(credentials.values()), None)
    return {} if key is None else {"authorization": f"Bearer {key}"}

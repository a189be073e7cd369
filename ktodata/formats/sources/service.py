"""A service as a source sees it: requests by path, answered from the pages of an interrupted pull where those are there.

A source asks in plain order, page after page. A pull that was killed is taken up by asking everything again: what was answered
before comes from disk, so it goes on at the page where it stopped.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ktodata.errors import ServiceError
from ktodata.formats.sources.held_items import HeldItems, Item
from ktodata.formats.sources.http_client import HttpClient
from ktodata.formats.sources.page_store import PageHead, PageStore, body_digest


@dataclass(frozen=True)
class Query:
    """What is pulled. `project` is the service's own word for where to look; `since`: nothing older."""

    project: str | None = None
    since: datetime | None = None

    def since_text(self) -> str | None:
        """`since` as ISO text in UTC; with microseconds, as Label Studio takes no other."""
        return None if self.since is None else self.since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class Service:
    """Requests of one pull (`pull` is its number), and what they and earlier pulls brought."""

    http: HttpClient
    pages: PageStore
    items: HeldItems
    pull: int
    n_pages: int = 0

    def get(self, feed: str, path: str, **params: Any) -> Any:
        """The JSON at a path. Parameters that are None are left out."""
        return self._page_body(feed, "GET", self.http.address(path, params), None)

    def post(self, feed: str, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that a query is answered with. What is None in the query is left out."""
        given = {name: value for name, value in body.items() if value is not None}
        return self._page_body(feed, "POST", self.http.address(path), given)

    def held(self, feed: str) -> Mapping[str, Item]:
        """Everything of a feed, by key."""
        return self.items.of(feed)

    def changed(self, feed: str) -> list[Item]:
        """What this pull found new or changed."""
        return self.items.changed(feed, self.pull)

    def _page_body(self, feed: str, method: str, url: str, body: Any) -> Any:
        head = PageHead(self.pull, feed, method, self.http.without_secrets(url), body, _now_text(), digest="")
        if (before := self.pages.answered(head)) is not None:
            self.n_pages += 1
            return before
        text = self.http.text(method, url, body)
        answer = json.loads(text)
        try:
            self.items.take(feed, answer, self.pull)
        except (KeyError, TypeError, AttributeError) as error:
            raise ServiceError(
                f"{self.http.name}: {head.url} answered with JSON of another shape than its API has "
                f"({type(error).__name__}: {error}): {text[:200]!r}. Is `url` the address of its API?"
            ) from error
        self.n_pages += 1
        self.pages.add(PageHead(**{**vars(head), "digest": body_digest(text)}), text)
        return answer


def by_cursor(page: Callable[[str | None], Any], next_cursor: Callable[[Any], str | None]) -> None:
    """Ask for page after page, each with the cursor that the one before gave, until one gives none."""
    cursors: set[str] = set()
    cursor: str | None = None
    while (cursor := next_cursor(page(cursor))) is not None and cursor not in cursors:
        cursors.add(cursor)


def by_offset(page: Callable[[int], int], size: int) -> None:
    """Ask for page after page, each from the offset after the one before, until one holds fewer than `size` things."""
    offset = 0
    while (n_items := page(offset)) >= size:
        offset += n_items


def batches(keys: Sequence[str], size: int) -> Iterator[list[str]]:
    """`keys` in lists of at most `size`."""
    for start in range(0, len(keys), size):
        yield list(keys[start : start + size])


def _now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

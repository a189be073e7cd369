"""Pull feedback from a running service into a folder: all pages as they came, and one file of records made from them.

    pulled/pull.json             what is pulled, the number of the pull, whether it ended, what it brought
    pulled/pages/000001.json.gz  every page, in the order in which they came
    pulled/langfuse.jsonl        the last version of every record, in the shape that the service's format is read in
    pulled/history.jsonl         every earlier version of a verdict or of what it is about

A pull asks for every verdict again and compares, as services filter by when a verdict was given, not by when it was changed; what
a verdict is about (the large part) is asked for only where the verdict is new or changed.
What was deleted there stays here: pull into a new folder to be rid of it.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from ktodata.errors import RunError, SettingError
from ktodata.files import remove_leftovers, whole_file, write_json
from ktodata.formats.sources.held_items import HeldItems
from ktodata.formats.sources.http_client import HttpClient
from ktodata.formats.sources.page_store import PageStore, body_digest
from ktodata.formats.sources.service import Query, Service
from ktodata.formats.sources.source import Credentials, Joined, PullSource
from ktodata.formats.times import moment

# after that, cursors are stale, and what came since would be missed: an interrupted pull is begun anew
TAKEN_UP_WITHIN = timedelta(days=1)


COUNTS = ("n_records", "new", "changed", "earlier", "left_out", "pages")


@dataclass(frozen=True)
class Pulled:
    """What a pull brought.

    records : the file of all records; n_records : how many it holds
    new, changed : records that this pull added, and that it found changed
    earlier : versions in history.jsonl; left_out : what could not become a record, by reason
    pages : requests that were answered, those of an interrupted pull included; cursor : the pull that the folder is at
    """

    records: Path
    n_records: int
    new: int
    changed: int
    earlier: int
    left_out: Mapping[str, int]
    pages: int
    cursor: int


def pull(
    source: PullSource,
    folder: Path,
    *,
    url: str | None = None,
    project: str | None = None,
    since: str | date | None = None,
    environment: Mapping[str, str] = os.environ,
    sleep: Callable[[float], None] = time.sleep,
) -> Pulled:
    """Bring `folder` up to date with the service. A pull that was interrupted is taken up where it stopped.

    Raises SettingError for a setting or a missing environment variable, ServiceError where the service does not do as it should.
    """
    query = _query(source, project, since)
    credentials = _credentials(source, environment)
    http = _client(source, url, credentials, sleep)
    try:
        remove_leftovers(folder)
        number = _begin(folder, source, http.url, query)
        service = _service(source, folder, http, number)
        http.headers |= source.headers(credentials, http)
        source.fetch(service, query)
    finally:
        http.close()
    pulled = _write_pulled(folder, source.join(service.items, query), service)
    _note(folder, source, http.url, query, number, pulled)
    return pulled


@contextmanager
def connected(
    source: PullSource, url: str | None, environment: Mapping[str, str], sleep: Callable[[float], None] = time.sleep
) -> Iterator[HttpClient]:
    """A client of the service with its credentials, closed in the end. Raises SettingError for a missing environment variable."""
    credentials = _credentials(source, environment)
    http = _client(source, url, credentials, sleep)
    try:
        http.headers |= source.headers(credentials, http)
        yield http
    finally:
        http.close()


def _query(source: PullSource, project: str | None, since: str | date | None) -> Query:
    if source.project is not None and project is None:
        raise SettingError(f"{source.name} needs project: {source.project}.")
    time_of_since = None if since is None else moment(since)
    if since is not None and time_of_since is None:
        raise SettingError(f"since is a date or a time, such as 2026-10-01 or 2026-10-01T12:00:00Z; got {since!r}.")
    return Query(None if project is None else str(project), time_of_since)


def _credentials(source: PullSource, environment: Mapping[str, str]) -> Credentials:
    if missing := [name for name in source.needs if not environment.get(name)]:
        raise SettingError(
            f"{source.name} needs {' and '.join(missing)} in the environment; credentials never stand in a recipe."
        )
    return {name: environment[name] for name in (*source.needs, *source.takes) if environment.get(name)}


def _client(source: PullSource, url: str | None, credentials: Credentials, sleep: Callable[[float], None]) -> HttpClient:
    address = url or source.url
    if address is None:
        raise SettingError(f"{source.name} needs url: the address of the service, such as http://localhost:8080.")
    secrets = [value for name, value in credentials.items() if not name.endswith(("USERNAME", "WORKSPACE_ID"))]
    return HttpClient(source.name, address, (*source.needs, *source.takes), secrets=secrets, sleep=sleep)


def _service(source: PullSource, folder: Path, http: HttpClient, number: int) -> Service:
    """The service, with everything that the folder holds."""
    pages, items = PageStore(folder / "pages"), HeldItems(source.feeds)
    for head, body in pages.read():
        items.take(head.feed, body, head.pull)
    return Service(http, pages, items, number)


def _begin(folder: Path, source: PullSource, url: str, query: Query) -> int:
    """The number of the pull: that of an interrupted one, or the next."""
    note = _read_note(folder)
    number = 1
    if note:
        for name, given in (("source", source.name), ("url", url), ("project", query.project)):
            if note[name] != given:
                raise RunError(f"{folder} holds what was pulled with {name}: {note[name]}, not {given}: give another folder.")
        stale = datetime.now(UTC) - datetime.fromisoformat(note["started_at"]) > TAKEN_UP_WITHIN
        interrupted = not note["finished"] and note["since"] == query.since_text() and not stale
        if interrupted:
            return int(note["pull"])
        number = int(note["pull"]) + 1
    _note(folder, source, url, query, number)
    return number


def _read_note(folder: Path) -> dict[str, Any]:
    path = folder / "pull.json"
    if not path.exists():
        return {}
    try:
        note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is not what a pull wrote ({error}): give another folder.") from error
    return note


def _note(folder: Path, source: PullSource, url: str, query: Query, number: int, pulled: Pulled | None = None) -> None:
    """Say what is pulled, and what the pull brought when it ended."""
    started = datetime.now(UTC).isoformat(timespec="seconds") if pulled is None else _read_note(folder)["started_at"]
    settings = {"source": source.name, "url": url, "project": query.project, "since": query.since_text()}
    brought = {} if pulled is None else {name: getattr(pulled, name) for name in COUNTS}
    write_json(
        folder / "pull.json", {**settings, "pull": number, "started_at": started, "finished": pulled is not None, **brought}
    )


def _write_pulled(folder: Path, joined: Joined, service: Service) -> Pulled:
    path = folder / f"{service.http.name}.jsonl"
    before = _record_digests(path)
    lines = {str(record["id"]): json.dumps(record) for record in joined.records}
    _write_jsonl(path, list(lines.values()))
    _write_jsonl(folder / "history.jsonl", [json.dumps(version) for version in service.items.earlier])
    return Pulled(
        records=path,
        n_records=len(lines),
        new=sum(key not in before for key in lines),
        changed=sum(key in before and before[key] != body_digest(line) for key, line in lines.items()),
        earlier=len(service.items.earlier),
        left_out=dict(joined.left_out),
        pages=service.n_pages,
        cursor=service.pull,
    )


def _record_digests(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        return {str(json.loads(line)["id"]): body_digest(line.rstrip("\n")) for line in file}


def _write_jsonl(path: Path, lines: list[str]) -> None:
    with whole_file(path) as scratch:
        scratch.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

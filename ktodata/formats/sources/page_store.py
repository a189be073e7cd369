"""The pages of a pull on disk: pages/000001.json.gz and so on, each as the service gave it, with what was asked for."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from ktodata.errors import RunError
from ktodata.files import whole_file


@dataclass(frozen=True)
class PageHead:
    """What a page is the answer to. `pull` is the number of the pull that brought it, `digest` that of its body."""

    pull: int
    feed: str
    method: str
    url: str
    json: Any
    received_at: str
    digest: str

    @property
    def request(self) -> str:
        """The same for the same request."""
        return f"{self.method} {self.url} {json.dumps(self.json, sort_keys=True)}"


@dataclass
class PageStore:
    """The pages under `folder`, in the order in which they came; `latest` is the last one that answers a request."""

    folder: Path
    latest: dict[str, tuple[int, PageHead]] = field(default_factory=dict)
    number: int = 0

    def read(self) -> Iterator[tuple[PageHead, Any]]:
        """Every page with its body."""
        for path in sorted(self.folder.glob("[0-9]*.json.gz")):
            self.number = int(path.name.split(".", maxsplit=1)[0])
            head, body = _read_page(path)
            self.latest[head.request] = (self.number, head)
            yield head, body

    def answered(self, request: PageHead) -> Any | None:
        """The body that answered the same request in the same pull; None where none did."""
        number, head = self.latest.get(request.request, (0, None))
        return _read_page(self._path(number))[1] if head is not None and head.pull == request.pull else None

    def add(self, head: PageHead, text: str) -> bool:
        """Keep a page, unless it is, byte for byte, what the same request was answered with last time."""
        before = self.latest.get(head.request)
        if before is not None and before[1].digest == head.digest:
            return False
        self.number += 1
        with whole_file(self._path(self.number)) as scratch, gzip.GzipFile(scratch, "wb", mtime=0) as file:
            file.write(f'{json.dumps(asdict(head))[:-1]}, "body": {text}}}'.encode())
        self.latest[head.request] = (self.number, head)
        return True

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06}.json.gz"


def body_digest(body: str) -> str:
    """16 hex digits of a page's text."""
    return xxhash.xxh3_64_hexdigest(body.encode())


def _read_page(path: Path) -> tuple[PageHead, Any]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            page = json.load(file)
        body = page.pop("body")
        return PageHead(**page), body
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is not a page that was pulled ({error}): remove it, and pull again.") from error

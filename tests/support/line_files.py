"""Small files, written by the test that reads them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

# subjects of made-up texts
WORDS = [
    *("apple", "river", "stone", "cloud", "lantern", "meadow", "violin", "harbor"),
    *("copper", "thistle", "marble", "window", "saddle", "ginger", "falcon"),
]


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder, but for locks."""
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file() and file.name != ".lock"}


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    """Write a JSON-lines file: dicts as JSON, bytes and text as they are."""
    given = [record if isinstance(record, str | bytes) else json.dumps(record) for record in records]
    encoded = [record if isinstance(record, bytes) else record.encode() for record in given]
    path.write_bytes(b"".join(line + b"\n" for line in encoded))
    return path


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., Path]:
    """`write_lines` into the test's own folder."""

    def write(*records: Any, name: str = "thumbs.jsonl") -> Path:
        return write_lines(tmp_path / name, records)

    return write

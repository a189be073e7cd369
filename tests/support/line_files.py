"""Small files, written by the test that reads them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., Path]:
    """Write a JSON-lines file: dicts as JSON, bytes and text as they are."""

    def write(*records: Any, name: str = "thumbs.jsonl") -> Path:
        given = [record if isinstance(record, str | bytes) else json.dumps(record) for record in records]
        encoded = [record if isinstance(record, bytes) else record.encode() for record in given]
        path = tmp_path / name
        path.write_bytes(b"".join(line + b"\n" for line in encoded))
        return path

    return write

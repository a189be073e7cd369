"""What is read from a file, before any format is asked."""

from dataclasses import dataclass
from typing import Any

from ktodata.formats.records import UnusableError


@dataclass(slots=True)
class SourceRecord:
    """One record, or what is wrong with it. `raw` is its text as it stands in the file; None: the file has no text for it.

    part : of a data set in parts, the name of the one that holds it.
    """

    line: int
    record: Any = None
    problem: UnusableError | None = None
    raw: bytes | str | None = None
    part: str | None = None

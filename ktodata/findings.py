"""A finding tells "fine" from "there is an issue" from "could not look". Its code is the same in report, documents and tests."""

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """One check's answer. `rows`: how many rows it is about, where that makes sense."""

    code: str
    status: Literal["passed", "issue", "not_applicable"]
    text: str = ""
    rows: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON values, for a stage's metrics."""
        return asdict(self)


def passed(code: str, text: str = "") -> Finding:
    """The check looked and found nothing wrong."""
    return Finding(code, "passed", text)


def issue(code: str, text: str, rows: int | None = None) -> Finding:
    """The check found something; `text` says what, how many, and what to do."""
    return Finding(code, "issue", text, rows)


def not_applicable(code: str, text: str) -> Finding:
    """The check could not look; `text` says why."""
    return Finding(code, "not_applicable", text)

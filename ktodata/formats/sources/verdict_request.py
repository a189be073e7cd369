"""One person's verdict as a service takes it: the same verdict makes the same request, with the same id where it may have one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid5

NAME = "ktodata_review"  # of the score, feedback, annotation or assessment, where a service lets it be named


@dataclass(frozen=True)
class OutgoingVerdict:
    """What is sent of a verdict: never a text of the row.

    record : as it was pulled; answer : "desirable", "undesirable", "drop" or "contested"; label : true desirable, or None
    at : when it was given
    value : what the recipe's label calls that, under the name `column`; None where it has no word for it
    """

    record: Mapping[str, Any]
    reviewer: str
    answer: str
    label: bool | None
    column: str | None
    value: Any
    at: str

    @property
    def key(self) -> str:
        """An id made of what is said, of what and by whom: the same verdict has the same."""
        return str(uuid5(NAMESPACE_URL, "\0".join((NAME, str(self.record["id"]), self.reviewer, self.answer, self.at))))

    @property
    def subject_key(self) -> str:
        """An id made of what is judged and by whom: a later verdict takes the place of an earlier one."""
        return str(uuid5(NAMESPACE_URL, "\0".join((NAME, str(self.record["id"]), self.reviewer))))


@dataclass(frozen=True)
class VerdictRequest:
    """What is sent to the service: `body` as JSON to `path`."""

    method: str
    path: str
    body: Any

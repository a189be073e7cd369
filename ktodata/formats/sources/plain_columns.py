"""What one record of a service without a format of its own says, in plain columns."""

from dataclasses import dataclass
from typing import Any, NamedTuple


class LabelCandidate(NamedTuple):
    """A verdict that may be the label. `source` is HUMAN, LLM or CODE; `time` as the service gives it."""

    name: str
    value: Any
    source: str
    rater: str | None
    time: Any


@dataclass(frozen=True)
class PlainRecord:
    """A prompt and a completion as they were logged (text, turns, or an object that holds either), and the verdicts on it."""

    prompt: Any
    completion: Any
    candidates: list[LabelCandidate]

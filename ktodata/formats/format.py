"""One shape for every dialect: how its records are recognised, read and written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ktodata.formats.fields import Fields
from ktodata.formats.records import LabelledCompletion, Record

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """A way in which others write feedback down.

    matches : whether a record looks like this dialect (types are not checked: that is what `read` is for).
    read : the completions that a record judges. Raises UnusableError with a reason when it cannot become rows.
    write : one record from one feedback row, or from the rows of one group. Raises CannotHoldError when it would not be true.
    group : the feedback column whose equal values make one record; None: a row is a record.
    holds : the feedback columns that come back when what was written is read again.
    takes_columns : whether the settings `prompt` and `completion` name its columns; else it has its own.
    example, settings : a record, and the settings of `read` that it needs.
    about : the record's columns that hold rater, created_at, source_id, ... unless a setting says otherwise.
    """

    name: str
    matches: Callable[[Record, Fields], bool]
    read: Callable[[Record, Fields], list[LabelledCompletion]]
    write: Callable[[Sequence[Row]], dict[str, Any]]
    holds: tuple[str, ...]
    example: Record
    settings: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    takes_columns: bool = False

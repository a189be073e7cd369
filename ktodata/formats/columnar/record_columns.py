"""The values of many records by column, each as reading one record would make it; what is unusual is left to that."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from ktodata.formats.records import ABSENT, NOBODY, Record, UnusableError, checked, lookup, plain_name
from ktodata.formats.table import is_no_time
from ktodata.formats.turns import holds_messages

# equal values of one of these types mean the same, so that each needs to be asked for once
ALIKE = frozenset({str, bool, int, type(None)})
# ISO 8601 in UTC, of which polars and `times.moment` make the same time
_ISO_UTC = r"^[12][0-9]{{3}}-[0-9]{{2}}-[0-9]{{2}}{}[0-2][0-9]:[0-5][0-9]:[0-5][0-9](?:\.[0-9]{{1,6}})?(?:Z|\+00:00)?$"


class RecordColumns:
    """The columns of records that have the same keys. `odd` numbers, from 0, those that must be read alone.

    What a method returns has as many values as there are records, with None where the record is odd.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self._keys = tuple(records[0])
        self._values: dict[str, list[Any]] = {}
        self.odd: set[int] = set()

    def may_have(self, column: str) -> bool:
        """Whether it is a key, or may be a path into one."""
        return column.startswith(self._keys)

    def values(self, column: str) -> Sequence[Any]:
        """What `lookup` gives for each record."""
        if column not in self._values:
            self._values[column] = self._look_up(column)
        return self._values[column]

    def _look_up(self, column: str) -> list[Any]:
        if column in self._keys:
            return [record[column] for record in self._records]
        if not self.may_have(column):
            return [ABSENT] * len(self._records)
        return [lookup(record, column) for record in self._records]

    def leave_nested(self, columns: Collection[str]) -> None:
        """Records that have an object or a list in one of the columns are odd."""
        for column in columns:
            values = self.values(column)
            if any(issubclass(kind, Mapping | list) for kind in set(map(type, values))):
                self.odd.update(place for place, value in enumerate(values) if isinstance(value, Mapping | list))

    def texts(self, column: str, *, may_be_messages: bool = False) -> Sequence[str | None]:
        """The texts of a column; another type, a text that cannot be stored and messages as JSON text are odd."""
        texts = self._unusual_as_none(self.values(column), lambda value: checked(value, column))
        # messages begin with a bracket, after white space
        if not may_be_messages and any(start == "[" or start.isspace() for start in {text[:1] for text in texts if text}):
            self.odd.update(place for place, text in enumerate(texts) if text and holds_messages(text))
        return texts

    def _unusual_as_none(self, values: Sequence[Any], check: Callable[[str], str]) -> Sequence[str | None]:
        kinds = set(map(type, values))
        if kinds == {str} and _is_storable(values):
            return values
        return self.each(values, lambda value: check(value) if type(value) is str else _odd())

    def joined_texts(self, columns: Sequence[str]) -> Sequence[str | None]:
        """The texts of several columns, each on its own line, empty ones left out; one column's as they are."""
        if len(columns) == 1:
            return self.texts(columns[0])
        parts = zip(*(self.texts(column, may_be_messages=True) for column in columns), strict=True)
        return ["\n".join(text for text in texts if text) for texts in parts]

    def names(self, column: str, convert: Callable[[Any], str | None]) -> Sequence[str | None]:
        """The values of a column that names something."""
        values = self.values(column)
        if set(map(type, values)) == {str} and NOBODY.isdisjoint(map(plain_name, values)) and _is_storable(values):
            return values
        return self.each(values, convert)

    def times(self, column: str, convert: Callable[[Any], datetime | None], *, may_be_iso: bool) -> pl.Series | Sequence[Any]:
        """The times of a column, null where none is given; what cannot be read is odd."""
        values = self.values(column)
        if may_be_iso and (times := _iso_times(values)) is not None:
            return times
        return self.each(values, lambda value: None if is_no_time(value) else convert(value) or _odd())

    def each(self, values: Sequence[Any], convert: Callable[[Any], Any]) -> Sequence[Any]:
        """`convert` of each value; where it raises UnusableError, the record is odd."""
        kinds = set(map(type, values)) - {type(None)}
        results: Mapping[Any, Any] | None = None
        if len(kinds) <= 1 and kinds <= ALIKE:
            results = _result_of_each(set(values), convert)
        if results is not None:
            return [results[value] for value in values]
        return [self._converted(place, value, convert) for place, value in enumerate(values)]

    def _converted(self, place: int, value: Any, convert: Callable[[Any], Any]) -> Any:
        try:
            return convert(value)
        except (UnusableError, RecursionError):
            self.odd.add(place)
            return None


def _result_of_each(values: set[Any], convert: Callable[[Any], Any]) -> Mapping[Any, Any] | None:
    """None where one of them is unusable."""
    try:
        return {value: convert(value) for value in values}
    except (UnusableError, RecursionError):
        return None


def _odd() -> Any:
    raise UnusableError("odd", "to be read alone")


def _is_storable(values: Sequence[str]) -> bool:
    """Whether `checked` takes every text."""
    try:
        checked("".join(values), "the texts together")
    except UnusableError:
        return False
    return True


def _iso_times(values: Sequence[Any]) -> pl.Series | None:
    """Times in UTC, null where there is none; None where one of them is written in any other way."""
    if not set(map(type, values)) <= {str, type(None)}:
        return None
    try:
        texts = pl.Series("time", [value or None for value in values], dtype=pl.String)
    except UnicodeEncodeError:
        return None
    first = next(filter(None, values), "")
    divider = "T" if first[10:11] == "T" else " "
    if not texts.str.contains(_ISO_UTC.format(divider)).all():
        return None
    local = texts.str.strip_suffix("Z").str.strip_suffix("+00:00")
    times = local.str.to_datetime(f"%Y-%m-%d{divider}%H:%M:%S%.f", time_unit="us", time_zone="UTC", strict=False)
    return times if times.null_count() == texts.null_count() else None

"""How dates in another order than ISO's are written, where their values show it."""

from collections.abc import Sequence
from typing import Any

from ktodata.formats.times import EXCEL, time_reader

_DATES = (
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d %b %Y",
    "%b %d %Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y",
)  # fmt: skip
_TIMES = ("", " %H:%M", " %H:%M:%S", ", %H:%M", ", %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", ", %I:%M %p", ", %I:%M:%S %p")
DIGITS = "%Y%m%d"
EXCEL_DAYS = (20_000, 60_000)  # of the years 1954 to 2064


def time_formats(values: Sequence[Any]) -> list[str]:
    """The formats in which every one of the values is a time. Several: day and month cannot be told apart."""
    if not values:
        return []
    if all(_is_excel_day(value) for value in values):
        return [EXCEL]
    formats = (DIGITS, *(date + time for date in _DATES for time in _TIMES))
    return [format for format in formats if _reads_all(format, values)]


def _reads_all(format: str, values: Sequence[Any]) -> bool:
    read = time_reader(format)
    return all((time := read(value)) is not None and 1990 <= time.year <= 2100 for value in values)


def _is_excel_day(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and EXCEL_DAYS[0] <= float(value) <= EXCEL_DAYS[1]
    except (TypeError, ValueError):
        return False

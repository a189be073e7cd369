"""Times as others write them, in which format their values show, and as they are written here: in UTC."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from ktodata.errors import SettingError

EXCEL = "excel"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXCEL_EPOCH = datetime(1899, 12, 30, tzinfo=UTC)  # day 1 is 1 January 1900, and Excel has a 29 February in that year
_EPOCH_TEXT = re.compile(r"\d{9,19}(\.\d+)?|\d\.\d{4,}[Ee]\+?\d{1,2}")  # 1.7672256E9 is BigQuery's
_DATE_IN_DIGITS = re.compile(r"\d{1,8}")
_ZONE = re.compile(r"(?:\s*[+-]00:?00)?\s*(?:UTC|GMT|Z)$|\s+(?=[+-]\d\d(?::?\d\d)?$)")
_RFC_2822 = re.compile(
    r"(?:[A-Za-z]{3},\s*)?\d{1,2} [A-Za-z]{3} \d{4} \d\d:\d\d(?::\d\d)? (?:[+-]\d{4}|UTC?|GMT|Z|[ECMP][SD]T)(?: \([A-Za-z ]+\))?"
)
# 1e8 seconds are March 1973, and so are 1e11 milliseconds, 1e14 microseconds and 1e17 nanoseconds: no feedback is older, and none
# is from the year 5138. A smaller number (20250301, Excel's 45000) counts something else, which only a person can say.
_FIRST_SECONDS = 1e8
_TICKS_PER_SECOND = ((1e11, 1), (1e14, 1_000), (1e17, 1_000_000), (1e20, 1_000_000_000))
# dates in another order than ISO's
_DATES = (
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d %b %Y",
    "%b %d %Y", "%b %d, %Y", "%b. %d, %Y", "%d %B %Y", "%B %d, %Y",
)  # fmt: skip
_TIMES = ("", " %H:%M", " %H:%M:%S", ", %H:%M", ", %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", ", %I:%M %p", ", %I:%M:%S %p")
DIGITS = "%Y%m%d"
EXCEL_DAYS = (20_000, 60_000)  # of the years 1954 to 2064


def moment(value: Any) -> datetime | None:
    """ISO or e-mail (RFC 2822) text, a date, or seconds, milli-, micro- or nanoseconds since 1970; without a zone it is UTC.

    None when there is no time in `value`; for days and months in another order, and numbers that are dates, see `time_reader`.
    """
    try:
        if isinstance(value, str):
            return _moment_of_text(value.strip())
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _since_1970(value)
        if isinstance(value, datetime):
            return _in_utc(value)
        return datetime(value.year, value.month, value.day, tzinfo=UTC) if isinstance(value, date) else None
    except (ValueError, OverflowError, TypeError):
        return None


def time_reader(format: str | None) -> Callable[[Any], datetime | None]:
    """What reads the times of a column: `moment`, or, where a format is given (strptime's, or "excel"), that alone.

    Raises SettingError for a format that no time has.
    """
    if format is None:
        return moment
    if format == EXCEL:
        return _moment_of_excel
    _check_format(format)
    return lambda value: _moment_in_format(value, format)


def stamp(time: datetime | None) -> str | None:
    """A time as ISO text in UTC."""
    return None if time is None else time.isoformat().replace("+00:00", "Z")


def _moment_of_text(text: str) -> datetime | None:
    if _EPOCH_TEXT.fullmatch(text):
        return _since_1970(float(text) if "." in text else int(text))
    if _DATE_IN_DIGITS.fullmatch(text):
        return None
    if _RFC_2822.fullmatch(text):
        return _in_utc(parsedate_to_datetime(text))
    zone = _ZONE.search(text)
    # what stands after the time: a name of UTC, or an offset that a space divides from it
    return _in_utc(datetime.fromisoformat(text if zone is None else text[: zone.start()] + (text[zone.end() :] or "+00:00")))


def _since_1970(number: float) -> datetime | None:
    if number < _FIRST_SECONDS:
        return None
    ticks = next((ticks for below, ticks in _TICKS_PER_SECOND if number < below), None)
    if ticks is None:
        return None
    if isinstance(number, int):  # nanoseconds have more digits than a float
        return _EPOCH + timedelta(microseconds=number * 1_000_000 // ticks)
    return _EPOCH + timedelta(seconds=number / ticks)


def _moment_of_excel(value: Any) -> datetime | None:
    try:
        days = None if isinstance(value, bool) else float(value)
        return None if days is None or days < 1 else _EXCEL_EPOCH + timedelta(days=days)
    except (ValueError, OverflowError, TypeError):
        return moment(value) if isinstance(value, date) else None  # a reader of workbooks has made a date of it already


def _moment_in_format(value: Any, format: str) -> datetime | None:
    if isinstance(value, date):
        return moment(value)
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    try:
        return _in_utc(datetime.strptime(text.strip(), format))
    except (ValueError, OverflowError):
        return None


def _check_format(format: str) -> None:
    sample = datetime(2001, 2, 3, tzinfo=UTC)
    try:
        has_date = datetime.strptime(sample.strftime(format), format).date() == sample.date()
    except (ValueError, re.error):
        has_date = False
    if not has_date:
        raise SettingError(
            f'created_at: format {format!r} does not say year, month and day; write e.g. "%d/%m/%Y %H:%M", "%Y%m%d" or excel.'
        )


def _in_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


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
    except (TypeError, ValueError, OverflowError):  # a whole number of 400 digits is no float
        return False

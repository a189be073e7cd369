"""Times as others write them, and as they are written here: in UTC."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_TEXT = re.compile(r"\d{9,13}(\.\d+)?")
# 1e11 seconds is the year 5138, 1e11 milliseconds is March 1973: no feedback is older or younger than that
_FIRST_MILLISECONDS = 1e11


def moment(value: Any) -> datetime | None:
    """ISO text, seconds or milliseconds since 1970, or a date, in UTC; a time without a zone is taken as UTC.

    None when there is no time in `value`.
    """
    try:
        if isinstance(value, str):
            return _since_1970(float(value)) if _EPOCH_TEXT.fullmatch(value) else _in_utc(datetime.fromisoformat(value.strip()))
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _since_1970(value)
        if isinstance(value, datetime):
            return _in_utc(value)
        return datetime(value.year, value.month, value.day, tzinfo=UTC) if isinstance(value, date) else None
    except (ValueError, OverflowError):
        return None


def stamp(time: datetime | None) -> str | None:
    """A time as ISO text in UTC."""
    return None if time is None else time.isoformat().replace("+00:00", "Z")


def _since_1970(number: float) -> datetime:
    milliseconds = abs(number) >= _FIRST_MILLISECONDS
    return _EPOCH + (timedelta(milliseconds=number) if milliseconds else timedelta(seconds=number))


def _in_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)

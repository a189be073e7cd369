"""Untrusted text made safe to show, and numbers made easy to read."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ktodata import stats
from ktodata.stats import Interval, percent_span
from ktodata.visible_text import clean

_CODE = re.compile(r"`([^`\n]+)`")
# no abbreviation is that long, or ends so
_SENTENCE_END = re.compile(r"(?:(?<=[^\s.]{5}\.)|(?<=[)%”]\.)) (?=[A-Z])")
_BEFORE_PERCENT = re.compile(r"(?<=\d)[ \u2009](?=%)")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$&:@=])")


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a text, and how long the whole is (characters)."""

    text: str
    length: int

    @property
    def cut(self) -> bool:
        """Whether something is left out."""
        return len(self.text) < self.length


def excerpt(value: object, limit: int = 320) -> Excerpt:
    """The first `limit` characters of a text; cut before it is cleaned, so that 20 MB cost nothing."""
    text = "" if value is None else str(value)
    return Excerpt(text[:limit], len(text))


def one_line(value: object, limit: int = 60) -> str:
    """A text as a short label: one line, cleaned, with an ellipsis where it was cut."""
    text = " ".join(clean(str(value)[: 4 * limit]).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def markdown(value: object, limit: int = 120) -> str:
    """A text as one line of Markdown that means nothing but itself, also inside a table."""
    return _MARKDOWN.sub(r"\\\1", one_line(value, limit))


def lead(value: object, limit: int = 160) -> tuple[str, str]:
    """(The first sentence, the rest) of a text of ours; all of it is the first where it has at most `limit` characters."""
    text = str(value)
    ends = () if len(text) <= limit else _SENTENCE_END.finditer(text)
    end = next((end for end in ends if _is_closed(text[: end.start()])), None)
    return (text, "") if end is None else (text[: end.start()], text[end.end() :])


def _is_closed(text: str) -> bool:
    """Whether no quotation and no bracket is open at its end: what is quoted may hold sentences of its own."""
    return all(text.count(left) == text.count(right) for left, right in ("()", "“”")) and text.count('"') % 2 == 0


def with_code(value: object) -> Markup:
    """A text of ours as HTML, what stands between back-ticks as code; whatever else it holds is escaped. "50 %" is one word."""
    parts = _CODE.split(_BEFORE_PERCENT.sub("\u202f", clean(str(value))))
    return Markup("").join(Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts))


def count(value: Any) -> str:
    """12408 -> '12,408'; what is not a number -> 'unknown'."""
    return f"{value:,.0f}" if _is_number(value) else "unknown"


def percent(value: Any, digits: int = 1) -> str:
    """0.0831 -> '8.3 %' with a thin space, 0.9997 -> '99.97 %'; what is not a number -> 'unknown'."""
    return stats.percent(value, digits) if _is_number(value) else "unknown"


def number(value: Any, digits: int = 3) -> str:
    """A number with so many digits after the point; what is not a number -> 'unknown'."""
    return f"{value:,.{digits}f}" if _is_number(value) else "unknown"


def signed(value: Any, digits: int = 3) -> str:
    """A difference, with its sign: '+0.086'; what is not a number -> 'unknown'."""
    return f"{value:+,.{digits}f}" if _is_number(value) else "unknown"


def interval(low_high: Any, *, as_percent: bool = False, digits: int | None = None) -> str:
    """[0.04, 0.12], an Interval, or a dict with low and high -> '4.0 to 12.0 %'; empty where there is no interval."""
    if isinstance(low_high, Mapping):
        low_high = [low_high.get("low"), low_high.get("high")]
    elif isinstance(low_high, Interval):
        low_high = [low_high.low, low_high.high]
    if not isinstance(low_high, list | tuple) or len(low_high) != 2 or not all(map(_is_number, low_high)):
        return ""
    low, high = low_high
    if as_percent:
        return percent_span(low, high, 1 if digits is None else digits)
    places = 3 if digits is None else digits
    return f"{low:.{places}f} to {high:.{places}f}"


def plural(value: Any, singular: str, many: str | None = None) -> str:
    """1 -> '1 row'; 12408 -> '12,408 rows'."""
    return f"{count(value)} {singular if value == 1 else many or singular + 's'}"


def bytes_size(value: Any) -> str:
    """1234567 -> '1.2 MB'."""
    if not _is_number(value):
        return "unknown"
    size = float(value)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)

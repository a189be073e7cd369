"""JSON in which an object has each key once."""

import json
from collections.abc import Callable
from typing import Any

from ktodata.formats.records import UnusableError, clip


class DuplicateKeyError(ValueError):
    """An object has a key twice: which of the two values was meant cannot be known."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in values if names.count(name) > 1)
        raise DuplicateKeyError(f"the key {clip(twice, 40)!r} stands twice in one object")
    return values


def _whole_number(digits: str) -> int | str:
    """The number; its digits as text where Python turns no so long one into a number (over 4,300)."""
    try:
        return int(digits)
    except ValueError:
        return digits


# one C call a value, and one Python call an object: measured at 2.9 us a record of 380 characters, 2.4 without the check
_USUAL = json.JSONDecoder(object_pairs_hook=_unique)
# the value that begins at a place, without a look at white space: the half of `raw_decode` that is C. ValueError: try STRICT
SCAN: Callable[[str, int], tuple[Any, int]] = _USUAL.scan_once  # type: ignore[attr-defined]
STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_whole_number)
LENIENT = json.JSONDecoder(parse_int=_whole_number)


def parse_json_text(value: Any, what: str) -> Any:
    """What a text holds as JSON, as a cell of a table does; anything but text as it is. Raises UnusableError."""
    if not isinstance(value, str):
        return value
    try:
        return STRICT.decode(value)
    except DuplicateKeyError as error:
        raise UnusableError("duplicate_keys", f"{what}: {error}") from None
    except RecursionError:
        raise UnusableError("malformed_json", f"the values of {what} are nested too deep") from None
    except ValueError as error:
        raise UnusableError("malformed_json", f"{what} is text, and not JSON: {error}") from None

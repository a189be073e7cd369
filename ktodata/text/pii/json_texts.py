"""The texts in a JSON text, and where each of their characters stands in it, so that a part can be replaced and it stays JSON."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|-?\d[\d.eE+-]*', re.DOTALL)
CHARACTER = re.compile(r"\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|\\u[\da-fA-F]{4}|\\.|.", re.DOTALL)


class JsonText(NamedTuple):
    """A string, decoded, or a number as written. places[i] is where character i starts in the JSON text, places[-1] the end.

    `quote` is what stands on both sides of a text that takes a number's place.
    """

    text: str
    places: Sequence[int]
    quote: str


def json_texts(raw: str, places: Sequence[int] | None = None, quote: str = '"') -> Iterator[JsonText]:
    """Every string and number of a JSON text; of a string that is JSON itself, as calls' arguments are, those in it."""
    places = range(len(raw) + 1) if places is None else places
    for token in TOKEN.finditer(raw):
        if token[1] is None:
            yield JsonText(token[0], [places[place] for place in range(token.start(), token.end() + 1)], quote)
            continue
        text = json.loads(token[0], strict=False)
        starts = [*(token.start(1) + character.start() for character in CHARACTER.finditer(token[1])), token.end(1)]
        own = [places[place] for place in starts]
        if is_container(text):
            yield from json_texts(text, own, json.dumps(quote)[1:-1])
        else:
            yield JsonText(text, own, "")


def is_container(text: str) -> bool:
    """Whether a text is a JSON object or list."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True

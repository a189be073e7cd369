"""Records as no exporter means them, made of one that is sound: changed in their values, their keys, or their bytes."""

import copy
import json
import math
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

DEEP: Any = json.loads("[" * 200 + "]" * 200)
# what stands where something else is expected
JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, 1e308, math.nan, math.inf, -math.inf, 10**400, -(10**18), 2**63),
    *(
        "",
        " ",
        "1",
        "true",
        "null",
        "nan",
        "\n",
        "\0",
        "\ud800",
        "é😀\u202e",
        "x" * 5000,
        "<script>",
        "[]",
        '{"a": 1}',
        "2025-13-45",
    ),
    *([], [None], [[]], [{}], [1], ["a"], [[["a"]]], [{"role": "user"}], [{"type": "image"}], [{"text": 1}], DEEP),
    *(
        {},
        {"": 0},
        {"a": None},
        {"role": "assistant"},
        {"content": {}},
        {"choices": []},
        {"choices": [{}]},
        {"text": None},
        {"lc": 1},
    ),
    *({"kwargs": 1, "lc": 1, "id": 1}, {"message": {"message": 1}}, {"parts": [None]}, {"function": {"name": 1}}, {"email": []}),
)
BYTES = (
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\n",
    b'"',
    b"{",
    b"}",
    b"]",
    b",",
    b"\\",
    b"\xef\xbb\xbf",
    b"NaN",
    b"-",
    b"9" * 5000,
    b"[" * 3000,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values inside a record."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*path, key)
        yield from places(inner, (*path, key))


def _set(record: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> None:
    inside = record
    for step in path[:-1]:
        inside = inside[step]
    change(inside, path[-1])


def changed_value(record: dict[str, Any], random: Random) -> dict[str, Any]:
    """A copy with one to three changes: junk for a value, a key less, a key renamed, a value in a list, two values exchanged."""
    changed = copy.deepcopy(record)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at = list(places(changed))
        if not at:
            break
        path, other = random.choice(at), random.choice(at)
        junk = copy.deepcopy(random.choice(JUNK))
        value = _value(changed, other)
        changes: tuple[Callable[[Any, Any], None], ...] = (
            lambda inside, key, junk=junk: inside.__setitem__(key, junk),
            lambda inside, key, junk=junk: inside.__setitem__(key, junk),
            lambda inside, key: inside.pop(key),
            lambda inside, key: inside.__setitem__(key, [inside[key]]),
            lambda inside, key: inside.__setitem__(key, {"value": inside[key]}),
            lambda inside, key: inside.__setitem__(key, str(inside[key])),
            lambda inside, key, value=value: inside.__setitem__(key, copy.deepcopy(value)),
            lambda inside, key: inside.__setitem__(
                f"{key}x" if isinstance(inside, dict) else key, inside.pop(key) if isinstance(inside, dict) else {}
            ),
        )
        _set(changed, path, random.choice(changes))
    return changed


def _value(record: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        record = record[step]
    return record


def changed_bytes(line: bytes, random: Random) -> bytes:
    """A line of which a stretch is lost, doubled or turned round, or in which something else was put."""
    start = random.randrange(len(line))
    end = min(len(line), start + random.choice((0, 1, 3, 20)))
    stretch = line[start:end]
    middle = random.choice((b"", stretch * 2, stretch[::-1], random.choice(BYTES), random.choice(BYTES) + stretch))
    return line[:start] + middle + line[end:] if random.random() < 0.9 else line[:start]


def mutated_line(record: dict[str, Any], random: Random) -> bytes:
    """One line of JSON, or of what is left of it."""
    changed = record if random.random() < 0.2 else changed_value(record, random)
    line = json.dumps(changed, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    return changed_bytes(line, random) if random.random() < 0.3 or changed is record else line

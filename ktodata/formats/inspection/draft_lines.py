"""Lines of a drafted recipe: a setting with its evidence beside it; what is left to a person is marked CHOOSE."""

import re
from collections.abc import Mapping
from typing import Any

from ktodata.formats.label_rules import yaml_char

UNDECIDED = "CHOOSE"
COMMENT_COLUMN = 44
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_YAML_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"])


def yaml_value(value: Any) -> str:
    """A scalar as YAML that gives back the same value of the same type; a mapping in braces, a list in brackets."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{yaml_value(key)}: {yaml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(yaml_value, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        text = repr(value)
        # YAML 1.1 takes 1e+16 for text: its floats have a point
        return text if "e" not in text or "." in text else text.replace("e", ".0e")
    if isinstance(value, int):
        return str(value)
    return _yaml_text(str(value))


def _yaml_text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS:
        return text
    return '"' + "".join(yaml_char(char) for char in text) + '"'


def setting_line(name: str, value: Any, comment: str, indent: int = 2) -> str:
    """`name: value  # comment`."""
    return with_comment(f"{' ' * indent}{name}: {yaml_value(value)}", comment)


def with_comment(line: str, comment: str) -> str:
    """A line with its evidence beside it."""
    return f"{line:<{COMMENT_COLUMN}} # {comment}"


def undecided(value: Any, path: str = "") -> list[str]:
    """Where CHOOSE still stands in a recipe: the dotted path of each."""
    if isinstance(value, Mapping):
        return [place for key, item in value.items() for place in undecided(item, f"{path}.{_key_text(key)}".lstrip("."))]
    if isinstance(value, list | tuple):
        return [place for at, item in enumerate(value, start=1) for place in undecided(item, f"{path}.{at}")]
    return [path] if value == UNDECIDED else []


def _key_text(key: Any) -> str:
    return key if isinstance(key, str) else yaml_value(key)

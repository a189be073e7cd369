"""Docstrings as Markdown: their lines of the form `name : meaning` become a list."""

import re
from typing import Any

import griffe

ENTRY = re.compile(r"^(?P<names>[A-Za-z_*][\w*]*(?:(?:, | and )[A-Za-z_*][\w*]*)*) : (?P<text>.+)$")


class Entries(griffe.Extension):
    """Rewrites the docstring of every object."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called once an object and its members are there."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """`text` with a list in the place of lines `name : meaning` and the indented lines that go on from them."""
    lines: list[str] = []
    in_entry = False
    for line in text.splitlines():
        entry = ENTRY.match(line)
        if entry:
            lines += [] if in_entry else [""]
            lines.append(f"- `{entry['names']}`: {entry['text']}")
        elif in_entry and line.startswith("    "):
            lines[-1] += f" {line.strip()}"
        else:
            lines += ["", line] if in_entry and line else [line]
        in_entry = bool(entry) or (in_entry and line.startswith("    "))
    return "\n".join(lines)

"""What a model thought before it answered, where it stands in the answer itself, in tags."""

import re
from collections.abc import Iterator
from typing import Literal

MAX_CHARS = 2_000_000  # longer texts are not taken apart
_TAG = re.compile(r"^[ \t]*<(think|thinking|reasoning)>", re.MULTILINE)


def split_reasoning(text: str) -> list[tuple[Literal["text", "reasoning"], str]]:
    """(kind, text) in order: reasoning in tags at the beginning of a line, and what stands around it.

    Where a chat template opens the block, an answer has its last tag only; one that was cut short never closes it.
    """
    if len(text) > MAX_CHARS or ("<think" not in text and "</think>" not in text and "<reasoning>" not in text):
        return [("text", text)]
    parts, place = list[tuple[Literal["text", "reasoning"], str]](), 0
    for start, inside, end, after in _reasoning_places(text):
        parts += [("text", text[place:start]), ("reasoning", text[inside:end])]
        place = after
    return [(kind, part.strip("\n")) for kind, part in [*parts, ("text", text[place:])] if part.strip()]


def _reasoning_places(text: str) -> Iterator[tuple[int, int, int, int]]:
    """(start of a block, of its content, end of that, end of the block); each tag is searched once to the end at most."""
    place, never_closed = 0, set[str]()
    closed = text.find("</think>")
    if closed >= 0 and text.find("<think>", 0, closed) < 0 and not text[text.rfind("\n", 0, closed) + 1 : closed].strip():
        place = closed + len("</think>")
        yield 0, 0, closed, place
    for match in _TAG.finditer(text):
        if match.start() < place or match[1] in never_closed:
            continue
        end = text.find(closing := f"</{match[1]}>", match.end())
        if end < 0 and text[: match.start()].strip():
            never_closed.add(match[1])
            continue
        place = len(text) if end < 0 else end + len(closing)
        yield match.start(), match.end(), len(text) if end < 0 else end, place

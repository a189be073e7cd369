"""Feedback for the review session, hostile texts among it, and the recipe for a run of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROWS = 160
WORDS = ("convert", "feet", "metres", "poem", "spring", "love", "pasta", "tomato")
HOSTILE = (
    "<script>window.pwned=1;document.title='pwned'</script>",
    "</script></style></textarea></title><img src=x onerror=\"document.title='pwned'\">",
    "<a href=\"javascript:document.title='pwned'\">javascript:alert(1)</a>",
    "abc \u202edcba right to left \u2066isolate",
    "x" * 100_000,
    "bell \x07 and escape \x1b[31m, a written surrogate \\ud800, and {{ 7 * 7 }} {% for a in b %}",
    '" onfocus="document.title=1" autofocus x="',
)


def records() -> Iterator[dict[str, str]]:
    """Yes or no; every eighth label is flipped. The hostile texts come first, in both."""
    for number in range(ROWS):
        helps = number % 3 > 0
        words = " ".join(WORDS[(number * step) % len(WORDS)] for step in (1, 3, 5))
        prompt, completion = f"{words} {number % 40} ?", f"{'yes' if helps else 'no'} {words} {number}"
        if number < len(HOSTILE):
            prompt, completion = f"{HOSTILE[number]} ?", f"{HOSTILE[number]} {number}"
        thumb = "up" if helps ^ (number % 8 == 0) else "down"
        yield {"id": f"r{number}", "prompt": prompt, "completion": completion, "thumb": thumb, "user": f"user {number % 3}"}
    yield {"id": "broken", "prompt": "lone \ud800", "completion": "surrogate", "thumb": "up", "user": "user 0"}


def write_recipe(folder: Path) -> dict[str, Any]:
    """Feedback in `folder`, and the recipe for it."""
    (folder / "feedback.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records()))
    return {
        "name": "desk <b>run",
        "criterion": "It helps. <b>Nothing else</b>",
        "ingest": {
            "paths": [str(folder / "feedback.jsonl")],
            "label": {"column": "thumb", "up": True, "down": False},
            "rater": "user",
            "source_id": "id",
        },
        "steps": [
            {"dedupe": {"near": None}},
            {"embed": {"model": "packaged:wordllama-256", "cache": False}},
            {"label_noise": {"folds": 3, "repeats": 1}},
        ],
    }

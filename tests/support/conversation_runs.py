"""Feedback on conversations: tool calls, results and reasoning, hostile ones among them, and the recipe for a run of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROWS = 60
PWN = "<img src=x onerror=\"document.title='pwned'\"></details></pre><script>window.pwned=1</script> \u202edcba \x1b[31m"
TOOLS = [{"type": "function", "function": {"name": "lookup_order", "parameters": {"type": "object"}}}]
TURNS = 500


def call(arguments: Any, name: str = "lookup_order", call_id: str = "c1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def asked(number: int) -> list[dict[str, Any]]:
    """The prompt of an ordinary row: a question, a call, its result, and the question again."""
    return [
        said("system", "You help with parcels."),
        said("user", f"Where is parcel {number}?"),
        said("assistant", "", tool_calls=[call(json.dumps({"order_id": f"A-{number}"}))]),
        said("tool", json.dumps({"status": "on its way"}), tool_call_id="c1"),
        said("user", f"And when will {number} be here?"),
    ]


def answer(number: int) -> dict[str, Any]:
    return said("assistant", f"On day {number}.", reasoning_content=f"Parcel {number} needs {number} days.")


# name: (prompt, completion)
SPECIAL: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "hostile": (
        [
            said("user", PWN, name=PWN),
            said("assistant", PWN, tool_calls=[call(PWN, name=PWN)], reasoning_content=PWN),
            said("tool", PWN, tool_call_id="c1"),
            said("user", PWN),
        ],
        said("assistant", f"<think>{PWN}</think>{PWN}", tool_calls=[call({PWN: PWN}, name=PWN)]),
    ),
    "long": ([said("user", "x" * 200_000), said("user", "y" * 200_000)], said("assistant", "z" * 200_000, reasoning="w" * 200_000)),
    "many": ([said("user" if number % 2 == 0 else "assistant", f"turn {number}") for number in range(TURNS + 1)], said("assistant", "end")),
    "tall": ([said("user", "first"), said("user", "line\n" * 200 + "the end")], said("assistant", "a\n" * 200 + "the last line")),
    "think": ([said("user", "Is 221 prime?")], said("assistant", "<think>13 x 17\n</think>\n\nNo.")),
    "calls": (
        [said("user", "Look both up.")],
        said("assistant", "I will.", tool_calls=[call('{"a": 1, "a": 2}'), call("{not json", call_id="c2"), call("", call_id="c3")]),
    ),
}  # fmt: skip


def records() -> Iterator[dict[str, Any]]:
    """Rows on parcels, every third bad, and the special ones."""
    for number in range(ROWS):
        yield {
            "id": f"r{number}",
            "prompt": asked(number),
            "completion": [answer(number)],
            "label": number % 3 > 0,
            "tools": TOOLS,
        }
    for name, (prompt, completion) in SPECIAL.items():
        yield {"id": name, "prompt": prompt, "completion": [completion], "label": True, "tools": TOOLS}


def write_recipe(folder: Path) -> dict[str, Any]:
    """Feedback in `folder`, and the recipe for it."""
    (folder / "feedback.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records()), encoding="utf-8")
    return {
        "name": "parcels",
        "ingest": {"paths": [str(folder / "feedback.jsonl")], "source_id": "id"},
        "steps": [
            {"dedupe": {"near": None}},
            {"embed": {"model": "packaged:wordllama-256", "cache": False}},
            {"label_noise": {"folds": 3, "repeats": 1}},
        ],
    }

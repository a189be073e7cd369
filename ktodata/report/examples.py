"""Example rows: a few, each with its text cut to a length that a page can hold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ktodata.report.text import Excerpt, excerpt, one_line, plural
from ktodata.text.reasoning import split_reasoning

EXCERPT_CHARS = 320  # of each text
MAX_EXAMPLES = 12  # example rows a section shows at most; the page says where the rest is


@dataclass(frozen=True)
class Example:
    """One row as it is shown: its own text, what was given, and why it is shown."""

    row_id: str
    label: bool | None
    prompt: Excerpt
    completion: Excerpt
    given_by: str
    notes: tuple[str, ...]


class ExampleRows(Protocol):
    """Where rows can be looked up: a run folder, or a table in memory."""

    def rows(self, row_ids: Iterable[str], /) -> dict[str, dict[str, Any]]:
        """{row_id: the feedback row}; those unknown are left out."""


def examples(source: ExampleRows, notes: Mapping[str, Sequence[str]]) -> list[Example]:
    """The rows named by `notes` ({row_id: what to say about it}), in that order; those unknown to `source` are left out."""
    rows = source.rows(notes)
    return [_example(rows[row_id], texts) for row_id, texts in notes.items() if row_id in rows]


def in_short(completion: str | None, limit: int) -> Excerpt:
    """The first characters of a completion: of its reasoning the length alone, and its calls as such."""
    texts = [
        f"[reasoning, {plural(len(part), 'character')}]" if kind == "reasoning" else part
        for kind, part in split_reasoning(completion or "")
    ]
    return excerpt("\n".join(texts).replace("<tool_call>", "[calls ").replace("</tool_call>", "]"), limit)


def _example(row: Mapping[str, Any], notes: Sequence[str]) -> Example:
    place = f"{one_line(row.get('source'), 48)}:{row.get('source_line')}"
    given_by = ", ".join(part for part in (row.get("rater") and one_line(row["rater"], 32), place) if part)
    prompt, completion = excerpt(row.get("prompt"), EXCERPT_CHARS), in_short(row.get("completion"), EXCERPT_CHARS)
    return Example(row["row_id"], row.get("label"), prompt, completion, given_by, tuple(notes))

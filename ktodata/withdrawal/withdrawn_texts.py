"""What gives withdrawn rows away in a file of any kind: their ids, and excerpts of their texts that no other row holds."""

import json
import re

import polars as pl

from ktodata.formats.withdrawn import MIN_CHARS
from ktodata.withdrawal.withdrawn_rows import MatchedRows

CHARS = 24  # of an excerpt: a quoted piece of twice that length holds a whole one
# no sign that JSON, CSV or HTML would write otherwise
PLAIN = re.compile(r"[^\"'<>&\\,;\n\r\t\x00-\x1f]+")
IDS = ("row_id", "source_id", "pair_id")


def marks_of(matched: MatchedRows, requested: tuple[str, ...]) -> list[str]:
    """Ids and excerpts, as they may stand in a file, escaped or not; none that a row which stays has, too."""
    rows, rest = matched.rows, matched.rest
    ids = {value for name in IDS if name in rows.columns for value in rows[name].drop_nulls()} | set(requested)
    kept = {value for name in IDS if name in rest.columns for value in rest[name].drop_nulls()}
    ids = {value for value in ids - kept if len(value) >= MIN_CHARS}
    excerpts = {part for text in _texts(rows) for part in _excerpts(text)}
    shared = _present(excerpts, rest)
    marks = ids | (excerpts - shared)
    return sorted(marks | {json.dumps(mark)[1:-1] for mark in marks})


def _texts(rows: pl.DataFrame) -> list[str]:
    texts = [text for name in ("prompt", "completion") if name in rows.columns for text in rows[name]]
    for name in ("turns", "answer"):
        if name in rows.columns and rows[name].count():
            turns = rows[name].explode() if name == "turns" else rows[name]
            fields = turns.struct.unnest()
            texts += [text for column in fields for text in column.drop_nulls() if len(text) > CHARS]
    return [text for text in texts if text]


def _excerpts(text: str) -> list[str]:
    pieces = [piece.strip() for piece in PLAIN.findall(text)]
    cut = [piece[at : at + CHARS].strip() for piece in pieces for at in range(0, max(len(piece) - CHARS, 0) + 1, CHARS)]
    return [part for part in cut if len(part) >= CHARS - 4] or [piece for piece in pieces if len(piece) >= MIN_CHARS + 2]


def _present(excerpts: set[str], rest: pl.DataFrame) -> set[str]:
    """Those that a text of a row which stays holds."""
    if not excerpts or rest.is_empty():
        return set()
    patterns = pl.Series(sorted(excerpts))
    texts = pl.Series("text", _texts(rest), dtype=pl.String)
    held = texts.to_frame().select(
        pl.col("text").str.extract_many(patterns.implode(), overlapping=True).explode().drop_nulls().unique()
    )
    return set(held["text"])

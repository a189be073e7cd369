"""What gives withdrawn rows away in a file of any kind: their ids, excerpts of their texts, and a record that is one of them."""

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from ktodata.feedback import COLUMNS, question_text
from ktodata.formats.withdrawn import MIN_CHARS, id_text, ids_in, leaves
from ktodata.withdrawal.requested_ids import NAMED, RequestedIds
from ktodata.withdrawal.withdrawn_rows import MatchedRows

CHARS = 24  # of an excerpt: a quoted piece of twice that length holds a whole one
# no sign that JSON, CSV or HTML would write otherwise
PLAIN = re.compile(r"[^\"'<>&\\,;\n\r\t\x00-\x1f]+")
# a kept value of these rows alone that looks like an id: an address, a number; no word of a language
LIKE_AN_ID = r"[0-9@]"
# record-1 is not in record-10, and it is in "\nrecord-1" and in %20record-1
BEFORE, AFTER = r"(?:(?<![^\W_])(?<!-)|(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4})|(?<=%[0-9a-fA-F]{2}))", r"(?![^\W_]|-)"


@dataclass(frozen=True)
class Marks:
    """What no row that stays has: words, ids as whole words; pieces, excerpts of texts; values, {column: ids of any length};
    pairs, {completion: prompts}.
    """

    words: frozenset[str] = frozenset()
    pieces: frozenset[str] = frozenset()
    values: Mapping[str, frozenset[str]] = field(default_factory=dict)
    pairs: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def held(self, texts: Sequence[str]) -> list[bool]:
        """Which of these texts hold an id or an excerpt, as it is or as JSON or HTML write it."""
        series = pl.Series(texts, dtype=pl.String)
        quoted = series.str.contains_any(self._written_pieces) if self._written_pieces else [False] * len(texts)
        named = series.str.extract_many(self._written_words, overlapping=True) if self._written_words else [()] * len(texts)
        lines = zip(texts, quoted, named, strict=True)
        return [hit or any(_is_word(word, text) for word in set(words)) for text, hit, words in lines]

    def held_records(self, records: Sequence[Any]) -> list[bool]:
        """Which of these JSON values hold one, or are a withdrawn row by a short id or by the whole of their texts."""
        held = self.held([json.dumps(record, default=str) for record in records])
        return [hit or self._is_row(record) for hit, record in zip(held, records, strict=True)]

    def _is_row(self, record: Any) -> bool:
        if isinstance(record, Mapping) and any(id_text(record.get(name)) in ids for name, ids in self.values.items()):
            return True
        texts = set(leaves(record)) if self.pairs else set[str]()
        return any(not texts.isdisjoint(self.pairs.get(text, ())) for text in texts)

    @cached_property
    def _written_words(self) -> list[str]:
        return _written(self.words)

    @cached_property
    def _written_pieces(self) -> list[str]:
        return _written(self.pieces)


def _written(marks: Iterable[str]) -> list[str]:
    return sorted({form for mark in marks for form in (mark, json.dumps(mark)[1:-1], html.escape(mark))})


def _is_word(word: str, text: str) -> bool:
    return re.search(BEFORE + re.escape(word) + AFTER, text) is not None


def marks_of(matched: MatchedRows, requested: RequestedIds) -> Marks:
    """Of the rows and records that go, and of the ids that were handed in."""
    rows, rest = matched.rows, matched.rest
    kept = [name for name, dtype in rows.schema.items() if dtype == pl.String and name not in COLUMNS]
    stay = {name: _ids(rest, name) for name in (*NAMED, *kept, requested.by)}
    values = {name: _ids(rows, name) - stay[name] for name in NAMED}
    values[requested.by] = values.get(requested.by, frozenset()) | (frozenset(requested.values) - stay[requested.by])
    like_ids = {value for name in kept for value in _ids(rows, name) if re.search(LIKE_AN_ID, value)}
    words = {value for value in frozenset(like_ids).union(*values.values()) if len(value) >= MIN_CHARS}
    # of a record that became no row, not the names of its fields
    aside = [text for raw in matched.records for text in (leaves(raw) if raw is not None else ())]
    pieces = {part for text in (*_texts(rows), *aside) for part in _excerpts(text)}
    pieces -= _present(pieces, rest)
    return Marks(frozenset(words.difference(*stay.values())), frozenset(pieces), values, _pairs(rows, rest))


def _ids(rows: pl.DataFrame, name: str) -> frozenset[str]:
    return ids_in(rows[name].unique()) if name in rows.columns else frozenset()


def _pairs(rows: pl.DataFrame, rest: pl.DataFrame) -> dict[str, frozenset[str]]:
    """{completion: prompts}, whole, as any format may write them, of which no row that stays is one."""
    alone = _prompts_and_completions(rows).join(_prompts_and_completions(rest), on=["prompt", "completion"], how="anti")
    grouped = alone.group_by("completion").agg("prompt")
    return {str(id_text(completion)): ids_in(prompts) for completion, prompts in grouped.iter_rows()}


def _prompts_and_completions(rows: pl.DataFrame) -> pl.DataFrame:
    if rows.is_empty():
        return pl.DataFrame(schema={"prompt": pl.String(), "completion": pl.String()})
    last = pl.coalesce(pl.col("turns").list.last().struct.field("content"), "prompt")
    prompts = rows.with_columns(prompt=question_text(rows)), rows.with_columns(prompt=last), rows
    answers = (pl.col("completion"), pl.coalesce(pl.col("answer").struct.field("content"), "completion"))
    return pl.concat(each.select("prompt", answer.alias("completion")) for each in prompts for answer in answers).unique()


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
    # the last one ends where the piece ends: what is a row's own may be its last word
    starts = [(piece, {*range(0, max(len(piece) - CHARS, 0) + 1, CHARS), max(len(piece) - CHARS, 0)}) for piece in pieces]
    cut = [piece[at : at + CHARS].strip() for piece, places in starts for at in sorted(places)]
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

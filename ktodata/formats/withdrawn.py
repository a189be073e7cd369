"""Records that were withdrawn, as salted digests of ids, and how reading leaves them out wherever a source still has them.

RUN/withdrawn.json keeps them for a run; a recipe's `withdrawn:` names further lists. No id stands in a list. Whoever has the list
and guesses an id can test the guess: it is a list of pseudonyms, not an anonymous one.
"""

import hashlib
import json
import re
import secrets
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from ktodata.errors import RunError
from ktodata.files import read_note, write_note
from ktodata.formats.records import ABSENT, lookup

LIST = "withdrawn.json"
SALT_BYTES = 16
# a shorter value of a record that cannot be read is no id: "1" stands in many of them
MIN_CHARS = 6
MAX_CHARS = 200  # a longer value is a text
ANYWHERE = ""  # values of a record that no setting and no format names
WORD = re.compile(r"[^\s\"'`,;{}\[\]()<>]+")
CELL = re.compile(r"\"([^\"]+)\"|([^,;\t\r\n\"]+)")

Status = Literal["removing", "done"]
# {column of the feedback table, or ANYWHERE: ids}
RecordIds = Mapping[str, Collection[str]]


def id_text(value: Any) -> str | None:
    """An id as text: 7, "7", " 7 " and 7.0, which a table with gaps makes of it, are one, however its letters are composed."""
    if value is None or value is ABSENT or isinstance(value, list | dict):
        return None
    text = unicodedata.normalize("NFC", str(value).lower() if isinstance(value, bool) else str(value)).strip()
    return text[:-2] if text.endswith(".0") and text[:-2].isdecimal() else text


def ids_in(values: Iterable[Any]) -> frozenset[str]:
    """All of them as texts, without those that are none."""
    return frozenset(text for value in values if (text := id_text(value)))


@dataclass(frozen=True)
class WithdrawnIds:
    """digests : {column of the feedback table: 32 hex digits of each id}. status : "removing" while a withdrawal is under way"""

    salt: bytes = field(default_factory=lambda: secrets.token_bytes(SALT_BYTES))
    digests: Mapping[str, frozenset[str]] = field(default_factory=dict)
    status: Status = "done"

    @classmethod
    def read(cls, path: Path) -> "WithdrawnIds":
        """Raises RunError for a file that is gone, or that ktodata did not write."""
        note = read_note(path)
        if not {"salt", "ids", "status"} <= note.keys():
            raise RunError(f"{path} is no list of withdrawn records: `ktodata forget` writes one, as {LIST} of a run folder.")
        digests = {name: frozenset(values) for name, values in note["ids"].items()}
        return cls(bytes.fromhex(note["salt"]), digests, note["status"])

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        ids = {name: sorted(values) for name, values in sorted(self.digests.items())}
        write_note(path, {"is": __doc__.splitlines()[0], "status": self.status, "salt": self.salt.hex(), "ids": ids})

    def digests_text(self) -> str:
        """What the list holds, as a text: two of them are the same only where the lists are."""
        return json.dumps([self.salt.hex(), {name: sorted(values) for name, values in sorted(self.digests.items())}])

    def digest(self, value: str) -> str:
        """32 hex digits of an id."""
        return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16, key=self.salt).hexdigest()

    def with_ids(self, column: str, values: Iterable[str], status: Status) -> "WithdrawnIds":
        """The same list with further ids of a column."""
        ids = self.digests.get(column, frozenset()) | {self.digest(value) for value in values}
        return WithdrawnIds(self.salt, {**self.digests, column: ids} if ids else self.digests, status)

    def holds(self, column: str, value: Any) -> bool:
        """Whether it is a withdrawn id of that column."""
        text = id_text(value)
        return text is not None and column in self.digests and self.digest(text) in self.digests[column]

    def holds_row(self, row: Mapping[str, Any]) -> bool:
        """Whether one of a row's ids is withdrawn. row : of the feedback table, with what was kept"""
        return any(self.holds(column, value) for column in self.digests for value in _ids_of(row, column))

    def rows_in(self, table: pl.DataFrame) -> pl.Series:
        """Which rows of a feedback table have a withdrawn id: booleans."""
        held = pl.Series([False]).new_from_index(0, table.height)
        for column, digests in self.digests.items():
            for lines in _id_columns(table, column):
                values = lines.unique(maintain_order=True).drop_nulls()
                held_ids = [self.digest(str(id_text(value))) in digests for value in values]
                ids = values.filter(pl.Series(held_ids, dtype=pl.Boolean))
                held |= lines.is_in(ids.implode()).fill_null(False) if lines.dtype == pl.String else False
        return held

    def holds_record(self, ids: RecordIds) -> bool:
        """Whether a record that became no row has a withdrawn id: in its column, or anywhere, if it is no short one."""
        long = {self.digest(text) for texts in ids.values() for text in texts if len(text) >= MIN_CHARS}
        named = ((column, text) for column, texts in ids.items() for text in texts)
        return any(long & digests for digests in self.digests.values()) or any(self.holds(*each) for each in named)


def staying(table: pl.DataFrame, lists: Sequence[WithdrawnIds]) -> pl.Series:
    """Which rows of a table with columns of ids none of the lists holds: booleans."""
    stays = pl.Series([True]).new_from_index(0, table.height)
    for ids in lists:
        stays &= ~ids.rows_in(table)
    return stays


def record_ids(
    record: Any, raw: bytes | str | None, file: str, columns: Iterable[tuple[str, str]], voters: Iterable[str]
) -> RecordIds:
    """What may be an id in a record that became no row, as the rows of its file would have it.

    columns : (column of the feedback table, column of the record). voters : who has voted, by the names of its columns
    """
    named: dict[str, dict[str, None]] = {}
    for name, column in columns:
        named.setdefault(name, {}).update(dict.fromkeys(_ids_at(record, column)))
    named.setdefault("rater", {}).update(dict.fromkeys(ids_in(voters)))
    named["source"] = named.get("source") or {file: None}
    others = {text for text in leaves(record, MAX_CHARS) if len(text) >= MIN_CHARS}
    if record is None and raw is not None:
        text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
        # also a name of several words
        parts = [*WORD.findall(text), *(part for cell in CELL.findall(text) for part in cell)]
        others = {text for text in ids_in(parts) if MIN_CHARS <= len(text) <= MAX_CHARS}
    others.difference_update(*named.values())
    return {name: list(ids) for name, ids in named.items() if ids} | ({ANYWHERE: sorted(others)} if others else {})


def _ids_at(record: Any, column: str) -> Iterator[str]:
    """The ids in one column of a record; what is no text and no number is an id as a row has it, as JSON."""
    value = lookup(record, column)
    for each in value if "[]" in column and isinstance(value, list) else [value]:
        with suppress(RecursionError):  # nested so deep that it is no row's id
            text = id_text(json.dumps(each, default=str, ensure_ascii=False) if isinstance(each, list | dict) else each)
            if text:
                yield text


def leaves(value: Any, most: int | None = None) -> Iterator[str]:
    """Every text and number in a JSON value, however deep, as `id_text` writes it; `most`: none of more characters."""
    inside = [value]
    while inside:
        inner = inside.pop()
        if isinstance(inner, Mapping | list):
            inside += inner.values() if isinstance(inner, Mapping) else inner
        elif most is not None and isinstance(inner, str) and len(inner) > most:
            continue
        elif (text := id_text(inner)) is not None:
            yield text


def _ids_of(row: Mapping[str, Any], column: str) -> Iterator[Any]:
    """What a row holds of that kind of id: of a rater, also the votes beside the label."""
    yield row.get(column)
    if column == "rater":
        yield from (vote["rater"] for name in ("votes", "earlier_votes") for vote in row.get(name) or ())


def _id_columns(table: pl.DataFrame, column: str) -> Iterator[pl.Series]:
    """The same of a table: a text a row, several of which one row may have."""
    if column in table.columns:
        yield table[column].cast(pl.String)
    votes = [name for name in ("votes", "earlier_votes") if column == "rater" and name in table.columns]
    for name in votes:
        raters = table[name].list.eval(pl.element().struct.field("rater"))
        width = int(raters.list.len().max() or 0)  # type: ignore[arg-type]
        yield from (raters.list.get(place, null_on_oob=True) for place in range(width))


def own_list(run: Path) -> Path:
    """Where a run's list lies, if it has one: beside its results, or, of one round of several, beside the rounds."""
    return (run.parent.parent if run.parent.name == "rounds" else run) / LIST


_CURRENT: ContextVar[tuple[WithdrawnIds, ...]] = ContextVar("ktodata_withdrawn", default=())


@contextmanager
def leaving_out(lists: Sequence[WithdrawnIds]) -> Iterator[None]:
    """Inside it, whatever is read leaves the withdrawn records out, and counts them."""
    token = _CURRENT.set(tuple(lists))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_lists() -> tuple[WithdrawnIds, ...]:
    """The lists of the surrounding `leaving_out`; none outside of one."""
    return _CURRENT.get()


class WithdrawnRecordError(Exception):
    """A record that is not to be read, nor to be quoted as one that could not be."""

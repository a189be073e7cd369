"""Lists inside records: which entries are listed as columns, and what is said of the others."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ktodata.formats.format import ENTRIES

MAX_LIST_ITEMS = 3
MAX_BARE_ENTRIES = 100  # of a longer list (tokens, a vector) no entry is anybody's vote
LAST = -1
_PLACE = re.compile(r"(.+)\.(-?\d+)(?:\..+)?")


@dataclass
class ListSizes:
    """How many entries the lists of a path have. has_repeats: one of them has the same bare value twice."""

    path: str
    least: int
    most: int
    has_repeats: bool = False

    def add(self, entries: Sequence[Any]) -> None:
        """Count one list."""
        self.least, self.most = min(self.least, len(entries)), max(self.most, len(entries))
        if not self.has_repeats and len(entries) <= MAX_BARE_ENTRIES and is_bare(entries):
            self.has_repeats = len(list(bare_values(entries))) < sum(entry is not None for entry in entries)

    def in_words(self) -> str:
        """`4`, or `2 to 9`."""
        return f"{self.most:,}" if self.least == self.most else f"{self.least:,} to {self.most:,}"

    @property
    def are_all_listed(self) -> bool:
        """Whether the first columns are all entries, the last of each list among them."""
        return self.least == self.most <= MAX_LIST_ITEMS

    def note(self) -> str:
        """Which entries have columns, where not all do or the last is now this, now that."""
        return (
            f"{self.path}: lists of {self.in_words()} entries; of each the first {MAX_LIST_ITEMS} and the last, "
            f"{self.path}.{LAST}, are listed"
        )


def is_bare(entries: Sequence[Any]) -> bool:
    """Whether no entry is an object or a list."""
    return not any(isinstance(entry, dict | list) for entry in entries)


def bare_values(entries: Sequence[Any]) -> Iterator[Any]:
    """The different values of a list, of 1 and true each: of a value it counts which records have it."""
    yield from {(type(entry), entry): entry for entry in entries if entry is not None}.values()


def listed_places(entries: Sequence[Any]) -> list[int]:
    """The places of the entries that are columns of their own."""
    return [*range(min(len(entries), MAX_LIST_ITEMS)), *([LAST] if len(entries) > 1 else [])]


def place_of(path: str) -> tuple[str, int] | None:
    """The innermost list on a path, and the place in it: of `turns.0.text` turns and 0."""
    match = _PLACE.fullmatch(path)
    return None if match is None else (match[1], int(match[2]))


def place_in_words(at: int, sizes: ListSizes) -> str:
    """`entry 2 of 4`, `the last of 2 to 9`."""
    return f"{'the last' if at == LAST else f'entry {at + 1}'} of {sizes.in_words()}"


def is_last(path: str) -> bool:
    """Whether an entry counted from the end is on the path."""
    return str(LAST) in path.split(".")


def is_vote_list(path: str) -> bool:
    """Whether a path means each entry of a list of bare values."""
    return path.endswith(ENTRIES)

"""What a withdrawal did: RUN/withdrawals/NNNN.json, and the same in words beside it. No text of a row and no id stands in it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ktodata.files import read_note, whole_file, write_note
from ktodata.withdrawal.file_removal import ON_DEMAND

FOLDER = "withdrawals"
State = Literal["removing", "removed", "made again"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Receipt:
    """Counts and places.

    by : column of the ids; ids : that were handed in, each once; empty, repeated : lines that added none; unmatched : ids that no
        row or record of the run had (they are kept out of later runs all the same)
    rows : that went, repeats and other rows of the same records among them; records : quarantined ones that hold an id
    parts : {train, validation, test: rows that stood in shards}; cache : {kind: entries}
    removed : places that are gone; made_again : those of them that the run made anew; rewritten : {file: records it lost}
    not_reached : in words, what may hold the rows still, and what to do about it; why_not : why the run was not made again
    """

    number: int
    by: str
    ids: int
    request: str  # of the ids, salted: whether a later call goes on with this one
    started: str = field(default_factory=_now)
    finished: str | None = None
    state: State = "removing"
    empty: int = 0
    repeated: int = 0
    unmatched: int = 0
    rows: int = 0
    rows_kept: int = 0
    records: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    verdicts: int = 0
    cache: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    made_again: list[str] = field(default_factory=list)
    rewritten: dict[str, int] = field(default_factory=dict)
    not_reached: list[str] = field(default_factory=list)
    why_not: str | None = None
    last_stage: str = "export"  # that the run had got to, and is made again to

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def write(self, run: Path) -> None:
        """Both files, each whole."""
        self.finished = None if self.state == "removing" else _now()
        write_note(self.place(run), self.as_dict())
        with whole_file(self.place(run).with_suffix(".txt")) as scratch:
            scratch.write_text(self.text() + "\n", encoding="utf-8")

    def place(self, run: Path) -> Path:
        """Where the JSON lies."""
        return run / FOLDER / f"{self.number:04d}.json"

    def text(self) -> str:
        """In words."""
        lines = [
            f"Withdrawal {self.number}, by {self.by}: {self.ids:,} ids, {self.ids - self.unmatched:,} of them in this run"
            + (f"; {self.unmatched:,} not" if self.unmatched else "")
            + (f" ({self.empty:,} empty lines, {self.repeated:,} repeats passed over)" if self.empty or self.repeated else ""),
            f"{self.rows:,} rows went, with {self.records:,} records that had become no row; {self.rows_kept:,} rows stay",
        ]
        lines += [f"  in shards: {_counts(self.parts)}"] if self.parts else []
        lines += [f"  verdicts of reviewers: {self.verdicts:,}"] if self.verdicts else []
        lines += [f"  entries of caches: {_counts(self.cache)}"] if self.cache else []
        lines += [f"  files that lost records: {_counts(self.rewritten)}"] if self.rewritten else []
        gone = [_with_command(name) for name in self.removed if name not in self.made_again]
        lines += [f"  made again without them: {', '.join(self.made_again)}"] if self.made_again else []
        lines += [f"  removed, and not made again: {', '.join(gone)}"] if gone else []
        lines += [f"Not made again: {self.why_not}"] if self.why_not else []
        return "\n".join([*lines, "Not reached:", *(f"  - {line}" for line in self.not_reached)])


def last_receipt(run: Path) -> Receipt | None:
    """The last one of a run, if it has any."""
    places = sorted((run / FOLDER).glob("*.json"))
    if not places:
        return None
    note: Mapping[str, Any] = read_note(places[-1])
    return Receipt(**{each.name: note[each.name] for each in fields(Receipt)})


def _with_command(name: str) -> str:
    return f"{name} (`{ON_DEMAND[name]}` makes it)" if name in ON_DEMAND else name


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))

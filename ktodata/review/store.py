"""The verdicts of a run on disk: RUN/reviews/reviews.sqlite, durable the moment they are given, and never overwritten."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from ktodata.errors import RunError
from ktodata.formats.times import moment
from ktodata.formats.verdict_store import CURRENT_SCHEMA, VerdictWord, check_store, create_tables, current_verdicts

PLACE = Path("reviews", "reviews.sqlite")
PATIENCE_SECONDS = 5.0  # that a write waits for another desk's


class StaleError(Exception):
    """What was judged is no longer as the reviewer saw it; the text says what happened, for the reviewer."""


@dataclass(frozen=True)
class Given:
    """A verdict as it is given. label: the given label; seconds: that the row was looked at; via: "desk" or an imported file."""

    row_id: str
    reviewer: str
    verdict: VerdictWord
    label: bool
    detector: str
    note: str = ""
    seconds: float | None = None
    at: str = ""  # UTC, ISO 8601; now when empty
    blind: bool = False
    via: str = "desk"

    @property
    def says(self) -> str:
        """What the verdict says of the row, whatever its given label: "desirable", "undesirable", "drop" or "contested"."""
        if self.verdict not in ("keep", "flip"):
            return self.verdict
        return "desirable" if self.label == (self.verdict == "keep") else "undesirable"


@dataclass(frozen=True)
class CurrentVerdict(Given):
    """What a reviewer says of a row now; `id` is the event's number."""

    id: int = 0


class VerdictStore:
    """The store of one run. Several desks may have it open; each write is synced before it returns."""

    def __init__(self, run: Path) -> None:
        self.path = run / PLACE
        try:
            self.path.parent.mkdir(exist_ok=True)
            # made in one thread and used in another, the server's; never in two at once
            self._connection = sqlite3.connect(self.path, timeout=PATIENCE_SECONDS, isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            create_tables(self._connection)
            check_store(self._connection, str(self.path))
        except (sqlite3.Error, OSError) as error:
            raise RunError(f"cannot keep verdicts in {self.path}: {error}.") from error

    def close(self) -> None:
        """Fold the log into the file and close it."""
        self._connection.close()

    def give(self, given: Given, *, seen: int) -> int:
        """Write a verdict down; the event's number.

        seen : number of what this reviewer had said of the row when it was shown, 0 for nothing
        Raises StaleError when the reviewer has said something else of it meanwhile, in another tab or at another desk.
        """
        with self._writing():
            now = self.standing_on(given.row_id, given.reviewer)
            if (now.id if now else 0) != seen:
                meanwhile = (
                    f"This row was decided meanwhile ({now.says})." if now else "The verdict on it was taken back meanwhile."
                )
                raise StaleError(f"{meanwhile} Nothing was written.")
            return self._insert(given)

    def bring_in(self, verdicts: Sequence[Given]) -> Counter[str]:
        """Write verdicts from elsewhere down, all or none of them; how many were "imported", "unchanged" and "older".

        One that says what its reviewer says already is not written again, nor is one that is older than what stands.
        """
        counts: Counter[str] = Counter()
        with self._writing():
            for given in verdicts:
                now = self.standing_on(given.row_id, given.reviewer)
                if now and (now.verdict, now.note) == (given.verdict, given.note):
                    counts["unchanged"] += 1
                elif now and given.at and _when(given.at) <= _when(now.at):
                    counts["older"] += 1
                else:
                    self._insert(given)
                    counts["imported"] += 1
        return counts

    def undo(self, reviewer: str, event: int, detector: str) -> CurrentVerdict:
        """Take a reviewer's latest verdict back, and return what it was.

        Raises StaleError when `event` is not the latest one that stands.
        """
        with self._writing():
            latest = self.latest(reviewer)
            if latest is None or latest.id != event:
                raise StaleError("That verdict is no longer your latest: it was taken back, or another was given since.")
            self._connection.execute(
                "INSERT INTO events (row_id, reviewer, undoes, label, note, at, detector, blind, via) "
                "VALUES (?, ?, ?, ?, '', ?, ?, ?, 'desk')",
                (latest.row_id, reviewer, event, latest.label, now_utc(), detector, latest.blind),
            )
            return latest

    def standing_on(self, row_id: str, reviewer: str) -> CurrentVerdict | None:
        """What a reviewer says of a row now."""
        return self._one("SELECT * FROM held WHERE row_id = ? AND reviewer = ? ORDER BY id DESC LIMIT 1", row_id, reviewer)

    def latest(self, reviewer: str) -> CurrentVerdict | None:
        """A reviewer's latest verdict that stands."""
        return self._one("SELECT * FROM held WHERE reviewer = ? ORDER BY id DESC LIMIT 1", reviewer)

    def judged_by_another(self, row_id: str, reviewer: str) -> bool:
        """Whether somebody else's verdict on a row stands."""
        return self._one("SELECT * FROM held WHERE row_id = ? AND reviewer != ? LIMIT 1", row_id, reviewer) is not None

    def standing(self) -> pl.DataFrame:
        """Each reviewer's last verdict on each row: formats.verdict_store.CURRENT_SCHEMA, in the order given."""
        return current_verdicts(self._connection)

    def touched_since(self, event: int) -> list[tuple[int, str, str]]:
        """(number, row_id, reviewer) of every event after `event`."""
        found = self._connection.execute("SELECT id, row_id, reviewer FROM events WHERE id > ? ORDER BY id", (event,))
        return [tuple(line) for line in found]

    def _one(self, question: str, *values: str) -> CurrentVerdict | None:
        line = self._connection.execute(question, values).fetchone()
        if line is None:
            return None
        known = {name: line[name] for name in CURRENT_SCHEMA if name != "trusted_label"}
        return CurrentVerdict(**{**known, "label": bool(line["label"]), "blind": bool(line["blind"])})

    def _insert(self, given: Given) -> int:
        trusted = {"keep": given.label, "flip": not given.label}.get(given.verdict)
        found = self._connection.execute(
            "INSERT INTO events (row_id, reviewer, verdict, label, trusted_label, note, seconds, at, detector, blind, via) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                given.row_id,
                given.reviewer,
                given.verdict,
                given.label,
                trusted,
                given.note,
                given.seconds,
                given.at or now_utc(),
                given.detector,
                given.blind,
                given.via,
            ),
        )
        return int(found.lastrowid or 0)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction that nobody else writes into."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise RunError(f"cannot write {self.path}: {error}.") from error
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _when(at: str) -> datetime:
    return moment(at) or datetime.min.replace(tzinfo=UTC)


def now_utc() -> str:
    """Now, as ISO text in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

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
from ktodata.feedback import LABEL_NAMES
from ktodata.formats.times import moment
from ktodata.formats.verdicts.verdict_store import EVENT_SCHEMA, VerdictWord, check_store, create_tables, current_verdicts

STORE_PATH = Path("reviews", "reviews.sqlite")
PATIENCE_SECONDS = 5.0  # that a write waits for another desk's


class StaleError(Exception):
    """What was judged is no longer what was on the reviewer's page; the text says what happened, for the reviewer."""


@dataclass(frozen=True)
class ReviewVerdict:
    """A verdict as it is given. label: the given label; seconds: that the row was looked at; via: "desk", DRAWN_VIA and a
    seed, or an imported file.

    source_id, content : the row's own id and the name of its text, which find it again in another export of the data
    """

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
    source_id: str | None = None
    content: str | None = None

    @property
    def says(self) -> str:
        """What the verdict says of the row, whatever its given label: "desirable", "undesirable", "drop" or "contested"."""
        if self.verdict not in ("keep", "flip"):
            return self.verdict
        return LABEL_NAMES[self.label == (self.verdict == "keep")]


@dataclass(frozen=True)
class CurrentVerdict(ReviewVerdict):
    """What a reviewer says of a row now; `id` is the event's number."""

    id: int = 0


class VerdictStore:
    """The store of one run. Several desks may have it open; each write is synced before it returns."""

    def __init__(self, run: Path) -> None:
        self.path = run / STORE_PATH
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

    def add(self, verdict: ReviewVerdict, *, current_id: int) -> int:
        """Write a verdict down; the event's number.

        current_id : number of this reviewer's verdict on the row when it was shown, 0 for none
        Raises StaleError when the reviewer has said something else of it meanwhile, in another tab or at another desk.
        """
        with self._transaction():
            now = self.current_verdict(verdict.row_id, verdict.reviewer)
            if (now.id if now else 0) != current_id:
                meanwhile = (
                    f"This row was decided meanwhile ({now.says})." if now else "The verdict on it was taken back meanwhile."
                )
                raise StaleError(f"{meanwhile} Nothing was written.")
            return self._insert(verdict)

    def add_all(self, verdicts: Sequence[ReviewVerdict]) -> Counter[str]:
        """Write verdicts from elsewhere down, all or none of them; how many were "imported", "unchanged" and "older".

        One that says what its reviewer says already is not written again, nor is one that is older than the current one.
        """
        counts: Counter[str] = Counter()
        with self._transaction():
            for verdict in verdicts:
                now = self.current_verdict(verdict.row_id, verdict.reviewer)
                if now and (now.verdict, now.note) == (verdict.verdict, verdict.note):
                    counts["unchanged"] += 1
                elif now and verdict.at and _parse_time(verdict.at) <= _parse_time(now.at):
                    counts["older"] += 1
                else:
                    self._insert(verdict)
                    counts["imported"] += 1
        return counts

    def undo(self, reviewer: str, event: int, detector: str) -> CurrentVerdict:
        """Take a reviewer's latest verdict back, and return what it was.

        Raises StaleError when `event` is not the latest current one.
        """
        with self._transaction():
            latest = self.latest(reviewer)
            if latest is None or latest.id != event:
                raise StaleError("That verdict is no longer your latest: it was taken back, or another was given since.")
            self._connection.execute(
                "INSERT INTO events (row_id, reviewer, undoes, label, note, at, detector, blind, via) "
                "VALUES (?, ?, ?, ?, '', ?, ?, ?, 'desk')",
                (latest.row_id, reviewer, event, latest.label, now_utc(), detector, latest.blind),
            )
            return latest

    def current_verdict(self, row_id: str, reviewer: str) -> CurrentVerdict | None:
        """What a reviewer says of a row now."""
        return self._query_verdict(
            "SELECT * FROM held WHERE row_id = ? AND reviewer = ? ORDER BY id DESC LIMIT 1", row_id, reviewer
        )

    def latest(self, reviewer: str) -> CurrentVerdict | None:
        """A reviewer's latest verdict that was not taken back."""
        return self._query_verdict("SELECT * FROM held WHERE reviewer = ? ORDER BY id DESC LIMIT 1", reviewer)

    def judged_by_another(self, row_id: str, reviewer: str) -> bool:
        """Whether somebody else has a current verdict on a row."""
        return self._query_verdict("SELECT * FROM held WHERE row_id = ? AND reviewer != ? LIMIT 1", row_id, reviewer) is not None

    def current_verdicts(self) -> pl.DataFrame:
        """Each reviewer's last verdict on each row: verdict_store.CURRENT_SCHEMA, in the order given."""
        return current_verdicts(self._connection)

    def events_since(self, event: int) -> list[tuple[int, str, str]]:
        """(number, row_id, reviewer) of every event after `event`."""
        events = self._connection.execute("SELECT id, row_id, reviewer FROM events WHERE id > ? ORDER BY id", (event,))
        return [tuple(line) for line in events]

    def _query_verdict(self, query: str, *values: str) -> CurrentVerdict | None:
        line = self._connection.execute(query, values).fetchone()
        if line is None:
            return None
        fields = {name: line[name] for name in EVENT_SCHEMA if name != "trusted_label"}
        return CurrentVerdict(**{**fields, "label": bool(line["label"]), "blind": bool(line["blind"])})

    def _insert(self, verdict: ReviewVerdict) -> int:
        trusted = {"keep": verdict.label, "flip": not verdict.label}.get(verdict.verdict)
        cursor = self._connection.execute(
            "INSERT INTO events (row_id, reviewer, verdict, label, trusted_label, note, seconds, at, detector, blind, via) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                verdict.row_id,
                verdict.reviewer,
                verdict.verdict,
                verdict.label,
                trusted,
                verdict.note,
                verdict.seconds,
                verdict.at or now_utc(),
                verdict.detector,
                verdict.blind,
                verdict.via,
            ),
        )
        row = (verdict.row_id, verdict.source_id, verdict.content)
        self._connection.execute("INSERT OR REPLACE INTO judged_rows VALUES (?, ?, ?)", row)
        return int(cursor.lastrowid or 0)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
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


def _parse_time(at: str) -> datetime:
    return moment(at) or datetime.min.replace(tzinfo=UTC)


def now_utc() -> str:
    """Now, as ISO text in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""Verdicts on rows that go leave the store of the review desk, and their pages leave its file."""

import sqlite3
from pathlib import Path

import polars as pl

from ktodata.errors import RunError
from ktodata.formats.verdicts.matching import content_key
from ktodata.formats.verdicts.verdict_store import check_store
from ktodata.formats.withdrawn import id_text
from ktodata.withdrawal.withdrawn_texts import Marks

STAY = "CREATE TRIGGER events_stay BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are never removed'); END"


def remove_verdicts(store: Path, rows: pl.DataFrame, rest: pl.DataFrame, marks: Marks) -> int:
    """Remove every verdict on these rows, on others of the same text or id but for those that stay, and on ids that are no row's.

    Returns how many there were. Raises RunError while a desk is open, and where the file cannot be written.
    """
    try:
        connection = sqlite3.connect(store, timeout=5.0, isolation_level=None)
        try:
            check_store(connection, str(store))
            goes = set(marks.values["row_id"]) | _named_alike(connection, rows, marks.values["source_id"])
            return _remove(connection, goes - set(rest["row_id"]))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise RunError(f"cannot take verdicts out of {store}: {error}. Close the review desk, and call again.") from error


def _remove(connection: sqlite3.Connection, goes: set[str]) -> int:
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("CREATE TEMP TABLE gone (row_id TEXT PRIMARY KEY)")
    connection.executemany("INSERT OR IGNORE INTO gone VALUES (?)", [(row_id,) for row_id in sorted(goes)])
    connection.execute("BEGIN IMMEDIATE")
    count = int(connection.execute("SELECT count(*) FROM events WHERE row_id IN (SELECT row_id FROM gone)").fetchone()[0])
    connection.execute("DROP TRIGGER IF EXISTS events_stay")
    # one that takes another back goes first: it refers to it
    connection.execute("DELETE FROM events WHERE undoes IS NOT NULL AND row_id IN (SELECT row_id FROM gone)")
    connection.execute("DELETE FROM events WHERE row_id IN (SELECT row_id FROM gone)")
    connection.execute("DELETE FROM judged_rows WHERE row_id IN (SELECT row_id FROM gone)")
    connection.execute(STAY)
    connection.execute("COMMIT")
    connection.execute("VACUUM")  # also what a process before this one was killed over
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return count


def _named_alike(connection: sqlite3.Connection, rows: pl.DataFrame, sources: frozenset[str]) -> set[str]:
    """row_ids under which the store has the same records: of another export, whose row_ids are others."""
    contents = {content_key(*texts) for texts in rows.select("prompt", "completion").iter_rows()}
    judged = connection.execute("SELECT row_id, source_id, content FROM judged_rows").fetchall()
    return {row_id for row_id, source_id, content in judged if id_text(source_id) in sources or content in contents}

"""Verdicts in a SQLite file, as the review desk keeps them: each act is a line that is never changed; one verdict for each row.

An event is a verdict on a row, or takes an earlier verdict back (`undoes`). What a reviewer says of a row is the last verdict
that was not taken back: the view `standing`. Where reviewers differ on a row it is contested, and nobody's label is trusted.
"""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any, Literal

import polars as pl

from ktodata.errors import FormatError
from ktodata.feedback import LABEL_NAMES
from ktodata.formats.times import moment

VerdictWord = Literal["keep", "flip", "drop", "contested"]
VERDICTS: tuple[VerdictWord, ...] = ("keep", "flip", "drop", "contested")
SUFFIX = ".sqlite"
DRAWN_VIA = "desk/draw/"  # and the seed: the desk asked as the random draw said; no file that is imported has such a name
APPLICATION_ID = 0x6B746F76  # "ktov", in the file's header
VERSION = 1
TABLES = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    row_id TEXT NOT NULL,
    reviewer TEXT NOT NULL,
    verdict TEXT CHECK (verdict IN ('keep', 'flip', 'drop', 'contested')),
    undoes INTEGER UNIQUE REFERENCES events (id),
    label INTEGER NOT NULL CHECK (label IN (0, 1)),             -- as given, when it was judged; 1 desirable
    trusted_label INTEGER CHECK (trusted_label IN (0, 1)),      -- that follows; null for drop and contested
    note TEXT NOT NULL,
    seconds REAL CHECK (seconds >= 0),                          -- that the row was looked at
    at TEXT NOT NULL,                                           -- UTC, ISO 8601
    detector TEXT NOT NULL,                                     -- key of the label_noise stage that made the queue
    blind INTEGER NOT NULL CHECK (blind IN (0, 1)),             -- whether the given label was hidden
    via TEXT NOT NULL,                                          -- "desk", DRAWN_VIA and a seed, or the file that was imported
    CHECK ((verdict IS NULL) != (undoes IS NULL)),
    CHECK (trusted_label IS CASE verdict WHEN 'keep' THEN label WHEN 'flip' THEN 1 - label END)
);
CREATE INDEX events_of_row ON events (row_id, reviewer);
CREATE TRIGGER events_stay BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are never removed'); END;
CREATE TRIGGER events_last BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE VIEW held AS
    SELECT * FROM events AS event
    WHERE verdict IS NOT NULL AND NOT EXISTS (SELECT 1 FROM events AS other WHERE other.undoes = event.id);
CREATE VIEW standing AS
    SELECT * FROM held WHERE id IN (SELECT max(id) FROM held GROUP BY row_id, reviewer) ORDER BY id;
"""
# what finds a judged row again in another export of the data: its own id, and the name of its text (matching.py)
JUDGED_ROWS = "CREATE TABLE IF NOT EXISTS judged_rows (row_id TEXT PRIMARY KEY, source_id TEXT, content TEXT)"
EVENT_SCHEMA = pl.Schema(
    {
        "id": pl.Int64(),
        "row_id": pl.String(),
        "reviewer": pl.String(),
        "verdict": pl.String(),
        "label": pl.Boolean(),
        "trusted_label": pl.Boolean(),
        "note": pl.String(),
        "seconds": pl.Float64(),
        "at": pl.String(),
        "detector": pl.String(),
        "blind": pl.Boolean(),
        "via": pl.String(),
    }
)
CURRENT_SCHEMA = pl.Schema({**EVENT_SCHEMA, "source_id": pl.String(), "content": pl.String(), "draw_seed": pl.Int64()})
# that a row was drawn stays so, whoever judges it again, and why
WITH_DRAW = f"""(SELECT *, (
    SELECT CAST(substr(max(of.via), {len(DRAWN_VIA) + 1}) AS INTEGER) FROM events AS of
    WHERE of.row_id = standing.row_id AND of.via GLOB '{DRAWN_VIA}*'
) AS draw_seed FROM standing)"""


def create_tables(connection: sqlite3.Connection) -> None:
    """Make an empty store of a new file. Raises FormatError when the file is another program's, or a later version's."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            for statement in _statements(TABLES):
                connection.execute(statement)
        check_store(connection, "the review store")
        connection.execute(JUDGED_ROWS)  # a store from before they were kept has none


def check_store(connection: sqlite3.Connection, name: str) -> None:
    """Raise FormatError unless the file is a store that this version reads, and whole: row_ids and reviewers stand in an index
    too, and each verdict agrees with its two labels.
    """
    kind = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if kind != APPLICATION_ID:
        raise FormatError(f"{name} is a SQLite file, but not one in which `ktodata review` keeps verdicts.")
    if version != VERSION:
        raise FormatError(f"{name} was written by another version of ktodata ({version}; this one reads {VERSION}).")
    if (damage := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
        raise FormatError(
            f"{name} is damaged: {damage}. Take a copy that is whole: `sqlite3 FILE .recover` shows what is left of it."
        )


def current_verdicts(connection: sqlite3.Connection) -> pl.DataFrame:
    """Each reviewer's last verdict on each row, in the order given: CURRENT_SCHEMA. trusted_label: true desirable, or null.

    draw_seed : of the random draw that the desk asked about the row for; null for rows that were judged for another reason
    """
    keeps_rows = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'judged_rows'").fetchone()[0]
    rows = "LEFT JOIN judged_rows USING (row_id)" if keeps_rows else ", (SELECT NULL AS source_id, NULL AS content)"
    lines = connection.execute(f"SELECT {', '.join(CURRENT_SCHEMA)} FROM {WITH_DRAW} {rows} ORDER BY id").fetchall()
    table = pl.DataFrame(lines, schema=dict.fromkeys(CURRENT_SCHEMA), orient="row", infer_schema_length=None)
    return table.cast(CURRENT_SCHEMA)


def verdict_word(verdict: pl.Expr, trusted_label: pl.Expr) -> pl.Expr:
    """A verdict as a word: "desirable", "undesirable", "drop" or "contested"."""
    label = pl.when(trusted_label).then(pl.lit("desirable")).otherwise(pl.lit("undesirable"))
    return pl.when(trusted_label.is_not_null()).then(label).otherwise(verdict)


def verdict_per_row(verdicts: pl.DataFrame) -> pl.DataFrame:
    """One verdict for each row, in the order in which rows were first judged; rows whose reviewers differ are contested.

    verdicts : as `standing` gives them
    Returns the same columns; `reviewer` names all, `note` says who said what where they differ, `id` and `at` are the last, and
    `seconds` are those of all together.
    """
    differ = _reviewers_differ()
    verdict_of_each = pl.format("{}: {}", "reviewer", verdict_word(pl.col("verdict"), pl.col("trusted_label")))
    notes = pl.col("note").filter(pl.col("note") != "")
    return (
        verdicts.group_by("row_id", maintain_order=True)
        .agg(
            id=pl.col("id").max(),
            reviewer=pl.col("reviewer").str.join(", "),
            verdict=pl.when(differ).then(pl.lit("contested")).otherwise(pl.col("verdict").last()),
            label=pl.col("label").last(),
            trusted_label=pl.when(~differ).then(pl.col("trusted_label").last()),
            note=pl.when(differ).then(verdict_of_each.append(notes).str.join("; ")).otherwise(notes.str.join("; ")),
            seconds=pl.col("seconds").sum(),
            at=pl.col("at").max(),
            detector=pl.col("detector").last(),
            blind=pl.col("blind").all(),
            via=pl.col("via").unique(maintain_order=True).str.join(", "),
            source_id=pl.col("source_id").last(),
            content=pl.col("content").last(),
            draw_seed=pl.col("draw_seed").last(),
        )
        .select(CURRENT_SCHEMA.names())
    )


def read_store(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The settled verdicts of a store as records of `reviews.py`, and the metrics about it; `line` is the event's number.

    Raises FormatError for a file that is no store. Somebody may be writing to it meanwhile.
    """
    each = read_current_verdicts(path)
    rows = verdict_per_row(each)
    records = [_review_record(row, path.name) for row in rows.iter_rows(named=True)]
    facts = ("row_id", "source_id", "content", "verdict", "trusted_label", "draw_seed")
    content = json.dumps([[record[name] for name in facts] for record in records])
    return records, {
        "name": path.name,
        "bytes": path.stat().st_size,
        # of the verdicts: the bytes of a store differ with what is still in its log
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        "records": rows.height,
        "verdicts": rows.height,
        "empty": 0,
        "unparseable_times": 0,
        "reviewers": each["reviewer"].n_unique(),
        "judged_by_several": each.height - rows.height,
        "reviewers_differ": each.group_by("row_id").agg(_reviewers_differ()).filter("differ").height,
    }


def read_current_verdicts(path: Path) -> pl.DataFrame:
    """Each reviewer's last verdict on each row of a store: CURRENT_SCHEMA. Raises FormatError for a file that is no store."""
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            check_store(connection, repr(path.name))
            return current_verdicts(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise FormatError(f"{path.name!r} cannot be read as a store of verdicts: {error}.") from error


def _reviewers_differ() -> pl.Expr:
    return (verdict_word(pl.col("verdict"), pl.col("trusted_label")).n_unique() > 1).alias("differ")


def _review_record(row: dict[str, Any], file: str) -> dict[str, Any]:
    return {
        "row_id": row["row_id"],
        "source_id": row["source_id"],
        "content": row["content"],
        "trusted_label": row["trusted_label"],
        "verdict": row["verdict"] if row["trusted_label"] is None else LABEL_NAMES[row["trusted_label"]],
        "reviewer": row["reviewer"],
        "reviewed_at": moment(row["at"]),
        "note": row["note"] or None,
        "file": file,
        "line": row["id"],
        "draw_seed": row["draw_seed"],
    }


def _statements(script: str) -> list[str]:
    """The statements of a script: executescript would end the transaction that they are to be one of."""
    statements, lines = [], ""
    for line in script.splitlines(keepends=True):
        lines += line
        if sqlite3.complete_statement(lines):
            statements.append(lines)
            lines = ""
    return statements

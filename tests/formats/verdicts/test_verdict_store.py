"""A store of verdicts as the pipeline reads it: what stands, what is settled, what is refused."""

import sqlite3

import polars as pl
import pytest

from ktodata.errors import FormatError
from ktodata.feedback import feedback_table
from ktodata.formats.verdicts.reviews import join_reviews, read_reviews, reviews_in_words
from ktodata.formats.verdicts.verdict_store import DRAWN_VIA, create_tables, read_current_verdicts, verdict_per_row


@pytest.fixture
def store(tmp_path):
    """Write events into a store: (row_id, reviewer, verdict, given label), or (row_id, reviewer, number of the event undone)."""

    def write(*events, name="reviews.sqlite"):
        path = tmp_path / name
        connection = sqlite3.connect(path, isolation_level=None)
        create_tables(connection)
        for number, (row_id, reviewer, what, *label) in enumerate(events):
            verdict, undoes = (what, None) if isinstance(what, str) else (None, what)
            given = label[0] if label else True
            trusted = {"keep": given, "flip": not given}.get(verdict)
            at = f"2026-01-01T00:00:{number:02}Z"
            values = (row_id, reviewer, verdict, undoes, given, trusted, f"note {number}", 2.5, at, "d1", False, "desk")
            connection.execute(
                "INSERT INTO events (row_id, reviewer, verdict, undoes, label, trusted_label, note, seconds, at, detector, blind, via) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
        connection.close()
        return path

    return write


def test_what_stands_is_the_last_verdict_that_was_not_taken_back(store):
    """a: flip after keep, flip undone, so keep; b: undone; c: by two; d: flip in place of keep."""
    path = store(
        ("a", "ann", "keep"), ("a", "ann", "flip"), ("a", "ann", 2),
        ("b", "ann", "keep"), ("b", "ann", 4),
        ("c", "ann", "drop"), ("c", "bob", "flip", False),
        ("d", "bob", "keep"), ("d", "bob", "flip"),
    )  # fmt: skip
    verdicts = read_current_verdicts(path).select("row_id", "reviewer", "verdict", "trusted_label", "id").rows()
    assert verdicts == [
        ("a", "ann", "keep", True, 1),
        ("c", "ann", "drop", None, 6),
        ("c", "bob", "flip", True, 7),
        ("d", "bob", "flip", False, 9),
    ]


def test_reviewers_who_differ_make_a_row_contested(store):
    """a: both call it desirable; b: they differ; c: both contested; d: drop against a label."""
    path = store(
        ("a", "ann", "keep", True), ("a", "bob", "keep", True),
        ("b", "ann", "keep", True), ("b", "bob", "flip", True),
        ("c", "ann", "contested"), ("c", "bob", "contested"),
        ("d", "ann", "drop"), ("d", "bob", "keep"),
    )  # fmt: skip
    rows = verdict_per_row(read_current_verdicts(path))
    assert dict(rows.select("row_id", "verdict").iter_rows()) == {
        "a": "keep",
        "b": "contested",
        "c": "contested",
        "d": "contested",
    }
    assert dict(rows.select("row_id", "trusted_label").iter_rows()) == {"a": True, "b": None, "c": None, "d": None}
    assert rows["reviewer"].to_list() == ["ann, bob"] * 4
    assert rows.filter(row_id="b")["note"].item() == "ann: desirable; bob: undesirable; note 2; note 3"
    assert rows.filter(row_id="a").select("note", "seconds", "id", "at").row(0) == (
        "note 0; note 1",
        5.0,
        2,
        "2026-01-01T00:00:01Z",
    )
    metrics = read_reviews(path).metrics["files"][0]
    assert (metrics["reviewers"], metrics["judged_by_several"], metrics["reviewers_differ"]) == (2, 4, 2)


def test_the_pipeline_takes_a_store_and_loses_no_verdict(store):
    path = store(("a", "ann", "keep", True), ("b", "ann", "flip", True), ("c", "ann", "drop"), ("d", "ann", "contested"))
    reviews = read_reviews(path)
    assert reviews.verdicts.select("row_id", "trusted_label", "verdict", "line").rows() == [
        ("a", True, "desirable", 1),
        ("b", False, "undesirable", 2),
        ("c", None, "drop", 3),
        ("d", None, "contested", 4),
    ]
    assert reviews.metrics["records"] == reviews.metrics["verdicts"] == 4
    rows = [{"row_id": name, "prompt": name, "completion": "c", "label": True, "trusted_label": True} for name in "abcde"]
    joined = join_reviews(feedback_table(*rows), reviews)
    # what a person could not say is no trusted label any more; e was not judged
    assert joined.columns["trusted_label"].to_list() == [True, False, None, None, True]
    counted = {
        name: joined.metrics[name] for name in ("desirable", "undesirable", "drop", "contested", "overridden", "confirmed")
    }
    assert counted == {"desirable": 1, "undesirable": 1, "drop": 1, "contested": 1, "overridden": 3, "confirmed": 1}
    assert joined.actions() == {"c": ("drop", "reviewed_drop"), "d": ("review", "reviewed_contested")}
    assert "1 called of no use and dropped; 1 contested and held for review" in reviews_in_words(joined.metrics)


def test_the_digest_follows_what_is_said_and_nothing_else(store):
    digest = read_reviews(store(("a", "ann", "keep"), name="one.sqlite")).metrics["files"][0]["sha256"]
    back_again = (("a", "ann", "keep"), ("a", "ann", "flip"), ("a", "ann", 2))
    assert read_reviews(store(*back_again, name="two.sqlite")).metrics["files"][0]["sha256"] == digest
    assert read_reviews(store(("a", "ann", "flip"), name="three.sqlite")).metrics["files"][0]["sha256"] != digest


def test_an_empty_store_is_no_verdict(store):
    assert read_reviews(store()).verdicts.is_empty()


def test_where_a_store_and_a_file_differ_the_row_is_contested(store, tmp_path):
    path = store(("a", "ann", "keep", True))
    (tmp_path / "review.csv").write_text("row_id,verdict\na,undesirable\n")
    reviews = read_reviews([path, tmp_path / "review.csv"])
    rows = feedback_table({"row_id": "a", "prompt": "p", "completion": "c", "label": True})
    assert join_reviews(rows, reviews).metrics["people_differ"] == 1


def test_words_without_a_label_go_in_files_too(tmp_path):
    (tmp_path / "review.csv").write_text("row_id,verdict\na,Drop\nb,contested\nc,good\n")
    verdicts = read_reviews(tmp_path / "review.csv").verdicts
    assert verdicts.select("verdict", "trusted_label").rows() == [("drop", None), ("contested", None), ("desirable", True)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("not a database"), "cannot be read as a store"),
        (lambda path: sqlite3.connect(path).execute("CREATE TABLE other (x)").connection.close(), "not one in which"),
        (lambda path: sqlite3.connect(path).execute("PRAGMA application_id = 1802792822").connection.close(), "another version"),
    ],
)
def test_other_files_are_refused(tmp_path, make, message):
    path = tmp_path / "reviews.sqlite"
    make(path)
    with pytest.raises(FormatError, match=message):
        read_reviews(path)


def test_events_are_never_changed_or_removed(store):
    connection = sqlite3.connect(store(("a", "ann", "keep")))
    for statement in ("UPDATE events SET note = ''", "DELETE FROM events"):
        with pytest.raises(sqlite3.IntegrityError, match="events are never"):
            connection.execute(statement)


def test_a_trusted_label_always_follows_from_the_verdict(store):
    connection = sqlite3.connect(store())
    columns = "(row_id, reviewer, verdict, label, trusted_label, note, at, detector, blind, via)"
    for verdict, label, trusted in (("keep", 1, 0), ("flip", 1, 1), ("drop", 1, 1), ("keep", 0, None), ("maybe", 1, None)):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(
                f"INSERT INTO events {columns} VALUES ('a', 'b', ?, ?, ?, '', '', '', 0, '')", (verdict, label, trusted)
            )
    assert pl.read_database("SELECT * FROM events", connection).is_empty()


def test_a_row_that_the_desk_drew_stays_drawn_and_no_table_says_so(store, tmp_path):
    """a: drawn, and judged again for another reason; b: judged for another reason alone."""
    path = store(("a", "ann", "keep"), ("b", "ann", "keep"))
    with sqlite3.connect(path) as connection:
        for row_id, via in (("a", f"{DRAWN_VIA}7"), ("a", "desk"), ("b", "draw.csv")):
            connection.execute(
                "INSERT INTO events (row_id, reviewer, verdict, label, trusted_label, note, at, detector, blind, via) "
                "VALUES (?, 'ann', 'flip', 1, 0, '', '2026-01-02T00:00:00Z', 'd1', 1, ?)",
                (row_id, via),
            )
    feedback = feedback_table(*({"row_id": name, "prompt": name, "completion": "x", "label": True} for name in "ab"))
    assert join_reviews(feedback, read_reviews(path)).columns["draw_seed"].to_list() == [7, None]
    table = tmp_path / "written.csv"
    table.write_text(f"row_id,trusted_label,via,draw_seed\na,false,{DRAWN_VIA}7,7\n")
    assert join_reviews(feedback, read_reviews(table)).columns["draw_seed"].to_list() == [None, None]
    assert join_reviews(feedback, read_reviews([table, path])).columns["draw_seed"].to_list() == [7, None]

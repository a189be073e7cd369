"""The store of a run: durable at once, never overwritten, and never two answers to one question."""

import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from ktodata.errors import FormatError, RunError
from ktodata.formats.verdicts.reviews import read_reviews
from ktodata.review.store import ReviewVerdict, StaleError, VerdictStore

KEEP = ReviewVerdict("r1", "ann", "keep", True, "d1", note="fine", seconds=3.5)


@pytest.fixture
def store(tmp_path):
    opened = VerdictStore(tmp_path)
    yield opened
    opened.close()


def test_it_syncs_every_write_ahead_of_its_log(store):
    pragma = {name: store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert pragma == {"journal_mode": "wal", "synchronous": 2}


def test_a_verdict_carries_who_when_what_and_by_which_detector(store):
    number = store.add(replace(KEEP, blind=True), current_id=0)
    current = store.current_verdict("r1", "ann")
    assert (current.id, current.verdict, current.label, current.note, current.seconds, current.detector, current.blind, current.via) == (
        number, "keep", True, "fine", 3.5, "d1", True, "desk",
    )  # fmt: skip
    assert current.at.endswith("Z") and current.at.startswith("20")


@pytest.mark.parametrize(
    ("verdict", "label", "says"),
    [("keep", True, "desirable"), ("keep", False, "undesirable"), ("flip", True, "undesirable"), ("flip", False, "desirable"),
     ("drop", True, "drop"), ("contested", False, "contested")],
)  # fmt: skip
def test_what_a_verdict_says_of_its_row(store, verdict, label, says):
    entry = ReviewVerdict("r", "ann", verdict, label, "d1")
    store.add(entry, current_id=0)
    assert entry.says == says
    trusted = {"desirable": True, "undesirable": False}.get(says)
    assert store.current_verdicts().select("trusted_label").item() is trusted


def test_a_row_that_was_decided_meanwhile_is_refused(store):
    first = store.add(KEEP, current_id=0)
    with pytest.raises(StaleError, match=r"decided meanwhile \(desirable\)"):
        store.add(replace(KEEP, verdict="flip"), current_id=0)
    assert store.current_verdicts()["verdict"].to_list() == ["keep"]
    second = store.add(replace(KEEP, verdict="flip"), current_id=first)  # whoever saw the first may take another in its place
    store.undo("ann", second, "d1")
    with pytest.raises(StaleError):
        store.add(KEEP, current_id=second)
    assert store.add(replace(KEEP, reviewer="bob"), current_id=0)  # another reviewer's verdict is another matter


def test_undo_takes_the_latest_back_and_only_that(store):
    first, second = store.add(KEEP, current_id=0), store.add(replace(KEEP, row_id="r2"), current_id=0)
    store.add(replace(KEEP, row_id="r3", reviewer="bob"), current_id=0)
    with pytest.raises(StaleError, match="no longer your latest"):
        store.undo("ann", first, "d1")
    assert store.undo("ann", second, "d1").row_id == "r2"
    with pytest.raises(StaleError):
        store.undo("ann", second, "d1")
    assert store.undo("ann", first, "d1").note == "fine"
    with pytest.raises(StaleError):
        store.undo("ann", first, "d1")
    assert store.current_verdicts()["reviewer"].to_list() == ["bob"]
    assert len(store.events_since(0)) == 5  # three verdicts and two undone, all still there


def test_what_is_written_survives_a_kill(tmp_path):
    """A process that gives three verdicts and kills itself, with the fourth half written."""
    code = (
        "import os, signal, sys; from pathlib import Path; from ktodata.review.store import *\n"
        "store = VerdictStore(Path(sys.argv[1]))\n"
        "for n in range(3): store.add(ReviewVerdict(f'r{n}', 'ann', 'flip', True, 'd'), current_id=0)\n"
        "store._connection.execute('BEGIN IMMEDIATE'); store._insert(ReviewVerdict('r3', 'ann', 'flip', True, 'd'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    again = VerdictStore(tmp_path)
    assert again.current_verdicts()["row_id"].to_list() == ["r0", "r1", "r2"]
    assert read_reviews(again.path).verdicts["trusted_label"].to_list() == [False, False, False]
    again.close()


def test_two_desks_at_once_write_each_verdict_once(tmp_path):
    """Two threads with a connection each race for the same fifty rows: every row has one verdict, and the other is told."""
    refused = []

    def race():
        mine = VerdictStore(tmp_path)
        for number in range(50):
            try:
                mine.add(replace(KEEP, row_id=f"r{number}"), current_id=0)
            except StaleError:
                refused.append(number)
        mine.close()

    VerdictStore(tmp_path).close()
    threads = [threading.Thread(target=race) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reopened = VerdictStore(tmp_path)
    assert sorted(refused) == list(range(50)) and len(reopened.events_since(0)) == 50
    reopened.close()


def test_verdicts_from_elsewhere_come_in_all_or_none(store):
    old = replace(KEEP, at="2020-01-01T00:00:00Z")
    assert store.add_all([replace(old, at="2021-01-01T00:00:00Z"), replace(old, row_id="r2")]) == {"imported": 2}
    again = [KEEP, replace(old, verdict="flip"), replace(old, row_id="r2", verdict="flip", at="2022-01-01T00:00:00Z")]
    assert store.add_all(again) == {"unchanged": 1, "older": 1, "imported": 1}
    assert store.current_verdicts().select("row_id", "verdict").rows() == [("r1", "keep"), ("r2", "flip")]
    with pytest.raises(sqlite3.IntegrityError):
        store.add_all([replace(KEEP, row_id="r9"), replace(KEEP, row_id="r8", verdict="nonsense")])
    assert "r9" not in store.current_verdicts()["row_id"]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "reviews").write_text("a file in the way")
    with pytest.raises(RunError, match="cannot keep verdicts in"):
        VerdictStore(tmp_path)
    (tmp_path / "other" / "reviews").mkdir(parents=True)
    sqlite3.connect(tmp_path / "other" / "reviews" / "reviews.sqlite").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(FormatError, match="not one in which"):
        VerdictStore(tmp_path / "other")


@pytest.mark.parametrize("what", [b"a-row-of-its-own", b"ann-who-judges"])
def test_a_bit_turned_in_a_verdict_is_not_read_as_another_verdict(tmp_path, what):
    """The row and the reviewer stand in the table and in its index: where the two differ, neither is believed."""
    opened = VerdictStore(tmp_path)
    for number in range(3):
        opened.add(replace(KEEP, row_id=f"a-row-of-its-own-{number}", reviewer="ann-who-judges"), current_id=0)
    opened.close()
    content = bytearray(opened.path.read_bytes())
    content[content.index(what) + 3] ^= 1
    opened.path.write_bytes(content)
    with pytest.raises(FormatError, match="is damaged"):
        read_reviews([opened.path])
    with pytest.raises(FormatError, match="is damaged"):
        VerdictStore(tmp_path)

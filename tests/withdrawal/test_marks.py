"""What gives withdrawn rows away, in files of every kind: all of theirs goes, and nothing of anybody else."""

import csv
import json

import polars as pl
import pytest

from ktodata.errors import MissingColumnError
from ktodata.feedback import feedback_table
from ktodata.formats.withdrawn import WithdrawnIds, id_text, record_ids
from ktodata.report.map.payload import encode_payload
from ktodata.withdrawal.file_contents import without_marked, write_content
from ktodata.withdrawal.file_removal import FileChanges, remove_from_other_files
from ktodata.withdrawal.requested_ids import RequestedIds, read_requested
from ktodata.withdrawal.withdrawn_rows import match_rows
from ktodata.withdrawal.withdrawn_texts import Marks, marks_of

TEMPLATE = "Please answer as well as you can, in full sentences: what is the address of the house "
ROWS = (
    {"row_id": "a1", "prompt": "hi", "completion": "ok", "label": True, "source_id": "7", "rater": "user-1"},
    {"row_id": "a2", "prompt": TEMPLATE + "at Quuxgate?", "completion": "no, yes", "label": True, "rater": "user-1"},
    {"row_id": "a3", "prompt": "hi", "completion": "ok", "label": True, "source_id": "17", "rater": "user-10"},
    {"row_id": "a4", "prompt": "hi", "completion": "fine", "label": True, "source_id": "18", "rater": "user-10"},
    {"row_id": "a5", "prompt": TEMPLATE + "by the sea?", "completion": "no, yes", "label": True, "rater": "user-10"},
)


def marks(*ids: str, by: str = "rater", drop: tuple[str, ...] = ()) -> Marks:
    """Of the rows with these ids. drop : row_ids that the run does not have at all"""
    requested = RequestedIds(by, ids, 0, 0)
    rows = feedback_table(*(row for row in ROWS if row["row_id"] not in drop))
    return marks_of(match_rows(rows, pl.DataFrame(), WithdrawnIds().with_ids(by, ids, "done"), requested), requested)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("user-1 and user-10", True),
        ("user-10, user-11, super-user-1, user-1-2, auser-1", False),
        ('{"note": "by\\nuser-1"}', True),
        ("?by=%20user-1&x", True),
        ("user-1_export", True),
        ("what lies at Quuxgate?", False),  # too short a quotation
        ("the address of the house at Quuxgate?", True),  # what is the row's own is its last word
        ("what is the address of the house ", False),  # others have it, too
    ],
)
def test_an_id_is_a_whole_word_and_an_excerpt_is_a_rows_own(text, holds):
    assert marks("user-1").held([text]) == [holds]


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_a_record_goes_by_a_short_id_or_by_all_of_its_texts(tmp_path, ending):
    """What a row that stays has too is no sign of one that goes."""
    records = [{"prompt": row["prompt"], "completion": row["completion"], "source_id": row.get("source_id")} for row in ROWS]
    records.append({"prompt": "hi", "completion": "ok", "source_id": None})
    path = tmp_path / f"x.{ending}"
    if ending == "parquet":
        pl.DataFrame(records).write_parquet(path)
    elif ending in ("csv", "tsv"):
        pl.DataFrame(records).write_csv(path, separator="\t" if ending == "tsv" else ",")
    else:
        lines = "\n".join(map(json.dumps, records))
        path.write_text(json.dumps(records) if ending == "json" else lines)
    assert without_marked(path, marks("user-1")).lost == 2
    assert without_marked(path, marks("user-1", drop=("a3",))).lost == 4  # nobody else has "hi", "ok" then
    assert without_marked(path, marks("17", by="source_id")).lost == 1


def test_a_conversation_goes_by_its_last_turn(tmp_path):
    turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    turns = [{**dict.fromkeys(("name", "tool_call_id", "tool_calls", "reasoning_content")), **turn} for turn in turns]
    rows = feedback_table(
        {"prompt": "System: be kind\n\nUser: hi", "completion": "ok", "label": True, "turns": turns, "rater": "u"}
    )
    requested = RequestedIds("rater", ("u",), 0, 0)
    held = marks_of(match_rows(rows, pl.DataFrame(), WithdrawnIds().with_ids("rater", "u", "done"), requested), requested)
    assert held.held_records([{"messages": [{"content": " hi "}, {"content": "ok"}]}, {"messages": ["hi", "no"]}]) == [
        True,
        False,
    ]


def test_a_table_that_is_headed_by_an_id_goes_whole_and_other_quoting_stays(tmp_path):
    (tmp_path / "wide.csv").write_text("prompt,user-1\nhi,1\n")
    (tmp_path / "semi.csv").write_text('rater;text\nuser-1;x\nuser-10;"a ""b"" ; c"\n')
    assert without_marked(tmp_path / "wide.csv", marks("user-1")).content is None
    (tmp_path / "semi.csv").chmod(0o600)
    write_content(tmp_path / "semi.csv", without_marked(tmp_path / "semi.csv", marks("user-1")).content)
    stays = (tmp_path / "semi.csv").read_text()
    assert (tmp_path / "semi.csv").stat().st_mode & 0o777 == 0o600
    assert list(csv.reader(stays.splitlines(), delimiter=";")) == [["rater", "text"], ["user-10", 'a "b" ; c']]


def test_what_is_packed_in_a_page_or_in_another_encoding_is_seen_or_said(tmp_path):
    (tmp_path / "page.html").write_text(f'<script type="x">{encode_payload({"rows": ["by user-1"]})}</script>')
    (tmp_path / "wide.txt").write_bytes("by user-1".encode("utf-16-le"))
    (tmp_path / "lone.json").write_text('["user-1", "\\ud800 \\u00E9"]')
    held = marks("user-1")
    assert without_marked(tmp_path / "page.html", held).lost == 1
    assert without_marked(tmp_path / "wide.txt", held) is None
    assert json.loads(without_marked(tmp_path / "lone.json", held).content) == ["\ud800 é"]


def test_names_links_and_other_runs(tmp_path):
    """What an id names goes, and its name is not kept; a link is left, and said; a run in the folder goes as a whole."""
    folder, outside = tmp_path / "run", tmp_path / "outside.txt"
    for name in ("user-1", "sub/of user-1", "audit/stages/x", "other/stages", "plain"):
        (folder / name).mkdir(parents=True)
    for name, text in (
        ("audit/stages/x/t.csv", "a\nuser-1\n"),
        ("user-1/a.txt", "b"),
        ("plain/user-10.txt", "c"),
        ("x user-1.md", "d"),
    ):
        (folder / name).write_text(text)
    for name in ("audit", "other"):
        (folder / name / "manifest.json").write_text("{}")
    outside.write_text("user-1")
    (folder / "link.txt").symlink_to(outside)
    changes = FileChanges()
    remove_from_other_files(folder, marks("user-1"), changes)
    assert changes.removed == ["audit", "sub/…", "…", "…"] and changes.unread == ["link.txt (a link)"]
    left = sorted(place.relative_to(folder).as_posix() for place in folder.rglob("*"))
    assert left == ["link.txt", "other", "other/manifest.json", "other/stages", "plain", "plain/user-10.txt", "sub"]
    assert outside.read_text() == "user-1"


def test_an_id_is_the_same_however_a_table_writes_it(tmp_path):
    assert [id_text(value) for value in (7, "7", 7.0, " 7 ", "7.0", "1.0.0", True, "e\u0301")] == [
        *["7"] * 5,
        "1.0.0",
        "true",
        "é",
    ]
    (tmp_path / "ids.txt").write_bytes("\ufeffa\u2028b\r\n\r\n  a c \r\na c".encode())
    pl.DataFrame({"whatever": [7.0, None]}).write_parquet(tmp_path / "ids.parquet")
    assert read_requested(tmp_path / "ids.txt", "rater") == RequestedIds("rater", ("a\u2028b", "a c"), 1, 1)
    assert read_requested(tmp_path / "ids.parquet", "rater") == RequestedIds("rater", ("7",), 1, 0)
    (tmp_path / "ids.csv").write_text("user-1\nuser-2\n")  # no heading: its first id must not be lost
    with pytest.raises(MissingColumnError, match=r"ending \.txt"):
        read_requested(tmp_path / "ids.csv", "rater")


def test_a_name_of_several_words_is_seen_in_a_record_that_is_broken():
    ids = WithdrawnIds().with_ids("rater", ["Ann Smith", "ann,comma", "Bob Brown"], "done")
    for raw in ('{"user": "Ann Smith", broken', '{"user": "ann,comma", broken', "x;Bob Brown;y"):
        assert ids.holds_record(record_ids(None, raw, "f.jsonl", (), ()))
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    assert not ids.holds_record(record_ids({"x": deep, "user": "Ann Smithers"}, None, "f.jsonl", [("source_id", "x")], ()))

"""People's verdicts, out as a queue and back in: what a cell means, what is counted, what is refused and how that is said."""

import csv
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktodata.errors import DataError, EmptyDataError, FormatError, LabelError, MissingColumnError
from ktodata.feedback import feedback_table
from ktodata.formats.verdicts.reviews import (
    is_filled_in,
    join_reviews,
    read_reviews,
    reviews_in_words,
    words_of,
    write_queue,
    write_verdicts,
)


@pytest.fixture
def write(tmp_path):
    """Write a file of verdicts: lines of text, or records as JSON lines."""

    def write(*lines: object, name: str = "review.csv") -> Path:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path = tmp_path / name
        path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
        return path

    return write


def verdicts(path: object) -> dict[str, bool]:
    return dict(read_reviews(path).verdicts.select("row_id", "trusted_label").iter_rows())


# --- what a verdict is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", ["true", "TRUE", " true ", "desirable", "good", "1", "1.0"])
@pytest.mark.parametrize("column", ["trusted_label", "verdict"])
def test_words_for_a_verdict(write, up, column):
    down = {"TRUE": "FALSE", " true ": " false ", "1": "0", "1.0": "0.0", "good": "bad", "desirable": "undesirable"}
    path = write(f"row_id,{column}", f"a,{up}", f"b,{down.get(up, 'false')}")
    assert verdicts(path) == {"a": True, "b": False}


def test_keep_and_flip_are_said_of_the_label(write):
    """keep true = true, keep false = false, flip true = false, flip false = true."""
    path = write("row_id,label,verdict", "a,true,keep", "b,FALSE,keep", "c,desirable,flip", "d,0,Flip")
    assert verdicts(path) == {"a": True, "b": False, "c": False, "d": True}


def test_the_labels_own_words_are_verdicts_where_the_recipe_gives_them_a_meaning(write):
    """up and no mean what the recipe says; Y and y, which it gives two meanings, do not."""
    words = words_of({"column": "thumb", "up": True, "no": False, "meh": None, "Y": True, "y": False, "1": True, "keep": False})
    assert words == {"up": True, "no": False}
    read = read_reviews(write("row_id,label,verdict", "a,up,Up", "b,up,flip", "c,no,1"), words).verdicts
    assert dict(read.select("row_id", "trusted_label").iter_rows()) == {"a": True, "b": False, "c": True}
    with pytest.raises(LabelError, match="'meh' is no verdict"):
        read_reviews(write("row_id,verdict", "a,meh"), words)


@pytest.mark.parametrize(
    ("label", "cell"),
    [
        ({"column": "thumbs_down", True: False, False: True}, "true"),
        ({"column": "thumbs_down", True: False, False: True}, "FALSE"),
        ({"column": "harmful", "1": False, "0": True}, "1"),
        ({"column": "vote", 1: True, -1: False, 0: None}, "0"),
        ({"column": "stars", "5": True, "1": False}, "1"),
        ({"column": "flag", "Good": False, "none": True}, "good"),
    ],
)
def test_a_verdict_that_the_recipes_label_turns_round_is_refused_and_not_guessed(write, label, cell):
    """As the label's own word it says one thing, and as a verdict by itself another."""
    words = words_of(label)
    with pytest.raises(LabelError, match=r"1 of 2 verdicts .* by itself, and not by the recipe's label: write which"):
        read_reviews(write("row_id,verdict", f"a,{cell}", "b,desirable"), words)
    kept = read_reviews(write("row_id,label,verdict", "a,true,keep", "b,false,flip", "c,true,undesirable"), words).verdicts
    assert kept["trusted_label"].to_list() == [True, True, False], "what the desk wrote comes back"


def test_keep_without_a_label_is_not_guessed(write):
    with pytest.raises(
        LabelError, match=r"1 of 2 verdicts cannot be used \(first: line 3, row_id b: keep is said of the given label"
    ):
        read_reviews(write("row_id,label,verdict", "a,true,keep", "b,,keep"))
    with pytest.raises(LabelError, match="column label holds null"):
        read_reviews(write("row_id,verdict", "a,flip"))


def test_files_of_every_kind_say_the_same(write, tmp_path):
    records = [
        {"row_id": "a", "trusted_label": True},
        {"row_id": "b", "trusted_label": None},
        {"row_id": "c", "trusted_label": False},
    ]
    lines = write(*records, name="review.jsonl")
    packed = tmp_path / "review.jsonl.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    pl.DataFrame(records).write_parquet(tmp_path / "review.parquet")
    # what a data frame of numbers with a gap holds: 1.0, NaN, 0.0
    pl.DataFrame({"row_id": ["a", "b", "c"], "verdict": [1.0, float("nan"), 0.0]}).write_parquet(tmp_path / "numbers.parquet")
    pl.DataFrame(records).write_csv(tmp_path / "review.csv")
    for path in (lines, packed, *(tmp_path / name for name in ("review.parquet", "numbers.parquet", "review.csv"))):
        assert verdicts(path) == {"a": True, "c": False}, path
        assert read_reviews(path).metrics["empty"] == 1


def test_who_when_and_why_are_kept(write):
    path = write(
        {"row_id": "a", "verdict": "good", "reviewer": "ann", "reviewed_at": "2026-05-01T10:00:00Z", "note": "cites the manual"},
        {"row_id": "b", "verdict": "bad", "reviewer": 17, "reviewed_at": "last week"},
        {"row_id": "c", "verdict": "bad", "note": " "},
        name="review.jsonl",
    )
    read = read_reviews(path)
    assert read.verdicts.select("reviewer", "reviewed_at", "note").rows() == [
        ("ann", datetime(2026, 5, 1, 10, tzinfo=UTC), "cites the manual"),
        ("17", None, None),
        (None, None, None),
    ]
    assert read.metrics["unparseable_times"] == 1


def test_every_record_is_counted(write):
    """7 records: 3 rows judged, 2 verdicts given again, 2 cells empty."""
    one_file = write("row_id,verdict", "a,good", "b,", "a,true", "c,bad", ",", name="one.csv")
    other_file = write("row_id,verdict", "c,0", "d,good", name="two.csv")
    read = read_reviews([one_file, other_file, one_file])  # a file named twice is read once
    assert {name: read.metrics[name] for name in ("records", "verdicts", "repeated", "empty")} == {
        "records": 7,
        "verdicts": 3,
        "repeated": 2,
        "empty": 2,
    }
    assert [file["name"] for file in read.metrics["files"]] == ["one.csv", "two.csv"]
    assert read.verdicts.select("row_id", "file", "line").rows() == [
        ("a", "one.csv", 2),
        ("c", "one.csv", 5),
        ("d", "two.csv", 3),
    ]


# --- what is refused ---------------------------------------------------------------------------------------------------


def test_a_word_that_is_no_verdict_is_said_with_its_place(write):
    path = write("row_id,verdict", "a,good", "b,meh", "c,yes")
    with pytest.raises(LabelError) as caught:
        read_reviews(path)
    assert str(caught.value).startswith(
        "'review.csv': 2 of 3 verdicts cannot be used (first: line 3, row_id b: 'meh' is no verdict)."
    )
    assert "leave the cell empty" in str(caught.value)


def test_a_spreadsheet_may_separate_by_semicolons_and_write_windows_text(tmp_path):
    path = tmp_path / "review.csv"
    path.write_bytes("row_id;label;verdict;note\r\na;true;keep;schön\r\nb;true;flip;\r\n".encode("cp1252"))
    assert verdicts(path) == {"a": True, "b": False}


def test_a_reviewer_who_has_judged_nothing_yet_is_no_error_beside_others(write):
    paths = [write("row_id,verdict", name="ann.csv"), write("row_id,verdict", "a,good", name="ben.csv")]
    reviews = read_reviews(paths)
    assert reviews.verdicts.height == 1 and [file["records"] for file in reviews.metrics["files"]] == [0, 1]
    with pytest.raises(EmptyDataError, match=r"'ann\.csv' holds no records"):
        read_reviews([paths[0], write("row_id,verdict", name="eve.csv")])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("row_id,label", "a,true"), "no column trusted_label or verdict; it has row_id, label."),
        (("id,verdict", "a,true"), "no column row_id; it has id, verdict."),
        (("row_id,verdict,verdict", "a,true,false"), "it has row_id, verdict (1), verdict (2)"),
    ],
)
def test_a_missing_column_is_said(write, lines, words):
    with pytest.raises(MissingColumnError) as caught:
        read_reviews(write(*lines))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"row_id,verdict\n", EmptyDataError, "holds no records"),
        (b"row_id,verdict\n,good\n", FormatError, "the verdict is on no row"),
        (
            "row_id,verdict,note\na,good,é é caf".encode() + b"\xe9\n",
            FormatError,
            "1 of 1 records cannot be read (first: line 2, invalid_utf8",
        ),
        (b"row_id,verdict\na,good,more\nb,good\n", FormatError, "1 of 2 records cannot be read (first: line 2, field_count"),
        (b'row_id,verdict\na,"good\nb,bad\n', FormatError, "never closed"),
        (b"row_id,trusted_label,verdict\na,true,false\n", LabelError, "both trusted_label and verdict are filled in"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, content, error, words):
    path = tmp_path / "review.csv"
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        read_reviews(path)
    assert words in str(caught.value) and "review.csv" in str(caught.value)


def test_a_missing_file_is_looked_for_nowhere_else(write, tmp_path):
    write("row_id,verdict", "a,good")
    with pytest.raises(FormatError, match=r"no file of verdicts .*Nearest in .*review\.csv"):
        read_reviews(tmp_path / "reviews.csv")
    with pytest.raises(FormatError, match="no file of verdicts 'team/verdicts'"):  # would be a hub id as feedback
        read_reviews("team/verdicts")


def test_where_two_reviewers_differ_the_row_is_contested_and_counted(write, feedback):
    ann = write("row_id,verdict,reviewer,note", "a,good,ann,sound", "b,good,ann,", "c,bad,ann,", name="ann.csv")
    bob = write("row_id,verdict,reviewer,note", "c,bad,bob,", "b,bad,bob,rude", name="bob.csv")
    reviews = read_reviews([ann, bob])
    assert (reviews.metrics["records"], reviews.metrics["verdicts"], reviews.metrics["repeated"]) == (5, 4, 1)
    joined = join_reviews(feedback, reviews)
    assert joined.columns.select("row_id", "trusted_label", "reviewed_contested").rows() == [
        ("a", True, False), ("b", None, True), ("c", False, False), ("d", False, False), ("e", None, False)
    ]  # fmt: skip
    assert joined.decisions.select("row_id", "action", "reason").rows() == [("b", "review", "reviewed_contested")]
    assert (joined.metrics["contested"], joined.metrics["people_differ"]) == (1, 1)
    line = joined.tables["verdicts"].row(by_predicate=pl.col("row_id") == "b", named=True)
    assert (line["verdict"], line["reviewer"]) == ("contested", "ann, bob")
    assert line["note"] == "ann: desirable; bob: undesirable; rude"
    assert "1 rows on which people differ" in reviews_in_words(joined.metrics)


def test_a_text_that_is_contested_or_of_no_use_does_not_stay_in_by_its_repeat(write):
    texts = {"a": "x", "b": "x", "c": "y", "d": "y", "e": "z"}
    rows = [{"row_id": row_id, "prompt": "p", "completion": text, "label": True} for row_id, text in texts.items()]
    joined = join_reviews(feedback_table(*rows), read_reviews(write("row_id,verdict", "a,drop", "c,good", "d,bad", "e,good")))
    decided = {row_id: (action, reason) for row_id, action, reason in joined.decisions["row_id", "action", "reason"].rows()}
    dropped, held = ("drop", "reviewed_drop"), ("review", "reviewed_contested")
    assert decided == {"a": dropped, "b": dropped, "c": held, "d": held}
    assert joined.metrics["people_differ"] == 2 and joined.metrics["rows"] == 5


HOSTILE = (
    "__import__('os').system('touch pwned')",
    "${jndi:ldap://x}",
    "x" * 5_000_000,
    "\x1b[2J\x1b]0;owned\x07",
    "\u202etrue",
    "true\0",
    '=HYPERLINK("http://x","true")',
    ["true"],
    {"$eval": "true"},
)


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("column", ["verdict", "row_id", "note"])
def test_hostile_text_is_quoted_short_and_never_obeyed(write, tmp_path, monkeypatch, hostile, column):
    """As a verdict it is refused; as a row_id it is a row that is not there; as a note it is text, or refused. It never runs."""
    monkeypatch.chdir(tmp_path)
    path = write({"row_id": "a", "verdict": "true", column: hostile}, name="review.jsonl")
    try:
        reviews = read_reviews(path)
        join_reviews(feedback_table({"row_id": "a", "prompt": "p", "completion": "c", "label": True}), reviews)
    except DataError as error:
        assert len(str(error)) < 900
        assert str(error).isprintable()
    else:
        assert column == "note" and reviews.verdicts["note"].to_list() == [hostile]
    assert [file.name for file in tmp_path.iterdir()] == ["review.jsonl"]


def test_broken_json_and_deep_nesting_are_refused(write):
    with pytest.raises(FormatError, match="2 of 3 records cannot be read"):
        read_reviews(write({"row_id": "a", "verdict": True}, "[" * 100_000, '{"row_id": ', name="review.jsonl"))
    with pytest.raises(FormatError, match="lone surrogate"):
        read_reviews(write('{"row_id": "a", "verdict": true, "note": "\\ud800"}', name="review.jsonl"))


# --- onto the feedback -------------------------------------------------------------------------------------------------


@pytest.fixture
def feedback():
    rows = [("a", True, None), ("b", True, True), ("c", False, True), ("d", False, False), ("e", True, None)]
    return feedback_table(
        *(
            {"row_id": row_id, "prompt": row_id, "completion": "c", "label": label, "trusted_label": known}
            for row_id, label, known in rows
        )
    )


def test_verdicts_stand_before_trusted_labels(feedback, write):
    """a: new, as labelled; b: overrides true; c: overrides true, as labelled; d: confirmed; e: not judged."""
    reviews = read_reviews(write("row_id,verdict", "d,false", "a,true", "b,false", "c,false", "e,"))
    joined = join_reviews(feedback, reviews)
    assert joined.columns.select("row_id", "trusted_label").rows() == [
        ("a", True),
        ("b", False),
        ("c", False),
        ("d", False),
        ("e", None),
    ]
    counts = {name: joined.metrics[name] for name in ("desirable", "undesirable", "differ_from_label", "confirmed", "overridden")}
    assert counts == {"desirable": 1, "undesirable": 3, "differ_from_label": 1, "confirmed": 1, "overridden": 2}
    assert joined.decisions.is_empty()
    assert reviews_in_words(joined.metrics) == (
        "4 rows reviewed, 1 with another verdict than the given label; 2 earlier trusted labels overridden; 1 cells still empty."
    )


def test_no_verdict_at_all_changes_nothing(feedback, write):
    joined = join_reviews(feedback, read_reviews(write("row_id,verdict", "a,", "b,")))
    assert joined.columns.drop("reviewed_contested", "draw_seed").equals(feedback.select("row_id", "trusted_label"))
    assert (joined.metrics["verdicts"], joined.metrics["differ_from_label"]) == (0, 0)


def test_rows_that_are_not_there_are_counted_and_listed(feedback, write):
    joined = join_reviews(feedback, read_reviews(write("row_id,verdict", "a,good", "x,good", "y,bad")))
    assert (joined.metrics["verdicts"], joined.metrics["rows"], joined.metrics["unmatched"]) == (3, 1, 2)
    assert joined.tables["unmatched"].select("row_id", "line", "why").rows() == [
        ("x", 3, "no row has it"),
        ("y", 4, "no row has it"),
    ]
    words = reviews_in_words(joined.metrics)
    assert (
        words.startswith("1 rows reviewed")
        and "2 verdicts on no row of the data (first: row_id x at 'review.csv' line 3" in words
    )


def test_verdicts_on_other_data_are_refused(feedback, write):
    with pytest.raises(DataError, match=r"none of 2 verdicts is on a row .*probably on other data") as caught:
        join_reviews(feedback, read_reviews(write("row_id,verdict", "x,good", "y,bad")))
    assert "a row_id of the data: a" in str(caught.value)
    with pytest.raises(DataError, match="spreadsheet has rounded"):
        join_reviews(feedback, read_reviews(write("row_id,verdict", "1.23457E+15,bad")))


# --- the queue ---------------------------------------------------------------------------------------------------------


def fill_in(path: Path, word: str = "flip") -> None:
    """What a person does in a spreadsheet: the last column of each line."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[-1] == "trusted_label" and all(row[-1] == "" for row in rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *([*row[:-1], word] for row in rows)])


def queue(*rows: tuple[str, bool, str]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema={"row_id": pl.String, "label": pl.Boolean, "prompt": pl.String}, orient="row")


def test_the_queue_comes_back_as_it_was_filled_in(tmp_path):
    """Digits alone, or with an e, a spreadsheet would round; the apostrophe goes again on the way in."""
    ids = ["0f3a9c2b7d41e856", "1234567890123456", "12345678901234e5", "0000000000000001", "=x", "'y"]
    path = tmp_path / "review.csv"
    write_queue(queue(*((row_id, number % 2 == 0, 'say "hi",\nthere') for number, row_id in enumerate(ids))), path)
    assert not is_filled_in(path)
    with path.open(newline="") as file:
        written_ids = [row[0] for row in csv.reader(file)][1:]
    assert written_ids == [ids[0], *(f"'{row_id}" for row_id in ids[1:])]
    fill_in(path)
    assert is_filled_in(path)
    assert verdicts(path) == {row_id: number % 2 == 1 for number, row_id in enumerate(ids)}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "  =1", "＝1", "\x01=1", "\xa0=1"])
def test_no_cell_of_the_queue_is_a_formula(tmp_path, text):
    write_queue(queue(("a", True, text), ("b", True, f"1 {text}")), tmp_path / "review.csv")
    with (tmp_path / "review.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == [f"'{text}", f"1 {text}"]


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), min_size=1, max_size=4))
def test_any_text_survives_the_round_trip_beside_its_row(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("queue") / "review.csv"
    write_queue(queue(*((f"r{number}", True, text) for number, text in enumerate(texts))), path)
    fill_in(path, "keep")
    assert verdicts(path) == {f"r{number}": True for number in range(len(texts))}


@settings(max_examples=60, deadline=None)
@given(text=st.from_regex(r"\A'{0,2} ?[=@+-]?[a-z]{1,3}\Z"))
def test_what_somebody_wrote_comes_back_letter_for_letter(tmp_path_factory, text):
    """A name with one apostrophe more would be another reviewer."""
    path = tmp_path_factory.mktemp("verdicts") / "verdicts.csv"
    row = {"row_id": "a", "label": True, "verdict": "keep", "reviewer": text, "reviewed_at": None, "note": text}
    write_verdicts(pl.DataFrame([row]), path, kind="csv")
    [read] = read_reviews(path).verdicts.select("reviewer", "note").rows()
    assert read == (text, text)


def test_a_queue_that_was_worked_on_is_known(write, tmp_path):
    assert not is_filled_in(write("row_id,label,trusted_label", "a,true,"))
    assert not is_filled_in(write("row_id,label,trusted_label"))
    assert is_filled_in(write("row_id,label,trusted_label", "a,true,", "b,true,keep"))
    assert is_filled_in(write("row_id,label,trusted_label", "a,true,perhaps"))  # not readable, but somebody's work
    assert is_filled_in(write("row_id;label;trusted_label", "a;true;true"))


def test_a_pattern_is_every_file_of_verdicts_that_it_names(tmp_path):
    for name, row in (("one", "a"), ("two", "b")):
        (tmp_path / f"{name}.csv").write_text(f"row_id,trusted_label\n{row},true\n")
    assert read_reviews([tmp_path / "*.csv", tmp_path / "one.csv"]).verdicts["row_id"].to_list() == ["a", "b"]
    with pytest.raises(FormatError, match=r"no file matches .*other\*.csv"):
        read_reviews(tmp_path / "other*.csv")

"""What is in memory is read as what is in a file."""

import json

import numpy as np
import polars as pl
import pytest

from ktodata.errors import EmptyDataError, KtodataError, SettingError
from ktodata.formats import read

RECORDS = [
    {"question": "Sky?", "reply": "Blue.", "thumb": "up", "who": "ann"},
    {"question": "Grass?", "reply": "Purple.", "thumb": "down", "who": None},
    {"question": "Snow?", "reply": "White.", "thumb": "meh", "who": "bob"},
]
SETTINGS = {"prompt": "question", "completion": "reply", "label": {"column": "thumb", "up": True, "down": False}, "rater": "who"}


def datasets_of(records):
    return pytest.importorskip("datasets").Dataset.from_list(records)


def pandas_of(records):
    return pytest.importorskip("pandas").DataFrame(records)


@pytest.mark.parametrize("make", [list, pl.DataFrame, pl.LazyFrame, pandas_of, datasets_of], ids=lambda make: make.__name__)
def test_the_same_rows_wherever_they_are(make, tmp_path):
    path = tmp_path / "thumbs.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in RECORDS))
    from_file, from_memory = read(path, **SETTINGS), read(make(RECORDS), **SETTINGS)
    assert from_memory.feedback.drop("source").equals(from_file.feedback.drop("source"))
    assert from_memory.metrics["quarantined"] == from_file.metrics["quarantined"] == {"label_unmapped": 1}
    assert from_memory.feedback["source"].unique().to_list() == ["in memory"]


@pytest.mark.parametrize("nothing", [pl.DataFrame(), pl.DataFrame({"a": []})])
def test_an_empty_frame_is_no_feedback(nothing):
    with pytest.raises(EmptyDataError):
        read(nothing, **SETTINGS)


@pytest.mark.parametrize("odd", [3, None, [1, 2], {}])
def test_what_is_no_feedback_is_refused(odd):
    with pytest.raises((KtodataError, TypeError)):
        read(odd, **SETTINGS)


def test_what_no_file_can_hold_is_set_aside():
    """A key that is no text, at any depth, and what is no object at all."""
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    odd = [{"messages": [turns[0], {**turns[1], 5: 6}], "label": True}, {**RECORDS[0], 1: 2}, {1: 2}, None, 3]
    deep = []
    deep.append(deep)
    usual = {"messages": turns, "label": True}
    result = read([usual, *odd, {"messages": deep, "label": True}])
    assert result.metrics["quarantined"] == {"key_not_text": 3, "not_an_object": 2, "malformed_json": 1}
    assert "the key 5 is a number, not text" in result.quarantine["detail"][0]


def test_numbers_and_lists_of_numpy_are_read_as_pythons():
    """Pandas reads a list of turns from Parquet as an array of them."""
    turns = np.array([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], dtype=object)
    result = read([{"messages": turns, "label": np.bool_(False), "rater": np.int64(4)}], rater="rater")
    assert result.feedback.select("prompt", "completion", "label", "rater").rows() == [("q", "a", False, "4")]


def test_what_pandas_has_for_a_missing_value_is_none():
    pandas = pytest.importorskip("pandas")
    texts = pandas.array(["ann", None], dtype="string")
    times = pandas.to_datetime(["2026-01-01", None])
    frame = pandas.DataFrame({"prompt": "q", "completion": ["a", "b"], "label": True, "rater": texts, "created_at": times})
    result = read(frame, rater="rater", created_at="created_at")
    assert result.feedback["rater"].to_list() == ["ann", None]
    assert (result.feedback["created_at"].null_count(), result.metrics["unparseable_times"]) == (1, 0)


@pytest.mark.parametrize("record", [RECORDS[0], {"question": ["Sky?"], "reply": ["Blue."]}])
def test_one_object_is_no_list_of_records(record):
    with pytest.raises(SettingError, match="is one object with question, reply"):
        read(record, **SETTINGS)

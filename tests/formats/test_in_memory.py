"""What is in memory is read as what is in a file."""

import json

import polars as pl
import pytest

from ktodata.errors import EmptyDataError, KtodataError
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

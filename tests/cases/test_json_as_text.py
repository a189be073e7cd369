"""Messages that a cell holds as JSON text are read where the column is asked for as messages, and never trained on as text."""

import csv
import json

import pytest

from ktodata.errors import FormatError
from ktodata.formats import read

ASKED = [{"role": "user", "content": "Tea or coffee?"}]
TALK = [*ASKED, {"role": "assistant", "content": "Tea."}]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "talks.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["talk", "question", "answer", "stars"])
        writer.writerow([json.dumps(TALK), json.dumps(ASKED), json.dumps(TALK[1:]), "1"])
        writer.writerow([json.dumps(TALK), json.dumps(ASKED), "Coffee.", "0"])
        writer.writerow(["not json", json.dumps(ASKED), "Coffee.", "0"])
        writer.writerow([json.dumps(TALK), json.dumps(ASKED), "Coffee.", ""])
    return path


LABEL = {"column": "stars", "1": True, "0": False}


def test_a_conversation_in_a_cell(table):
    result = read(table, messages="talk", label=LABEL)
    assert result.feedback.select("prompt", "completion", "label").rows() == [
        ("Tea or coffee?", "Tea.", v) for v in (True, False)
    ]
    assert result.metrics["quarantined"] == {"malformed_json": 1, "unlabelled": 1}
    assert result.metrics["not_kept"] == {"answer": 2, "question": 2}


def test_the_prompt_in_a_cell(table):
    result = read(table, messages="question", completion="answer", label=LABEL)
    assert result.feedback["completion"].to_list() == ["Tea.", "Coffee.", "Coffee."]
    assert result.feedback["prompt"].unique().to_list() == ["Tea or coffee?"]


def test_json_is_never_read_as_what_was_said(table):
    with pytest.raises(FormatError, match=r"messages: (question|answer)"):
        read(table, prompt="question", completion="answer", label=LABEL)


@pytest.mark.parametrize("text", ["[]", "[1, 2]", "[note] fine", '[{"a": 1}]', '{"role": "user"}', "[{" * 50_000])
def test_other_text_that_looks_like_json_is_text(tmp_path, text):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": text, "completion": "c", "label": True}))
    assert read(path).feedback["prompt"].to_list() == [text]


@pytest.mark.parametrize(
    ("text", "reason"), [("{broken", "malformed_json"), ('{"a": 1, "a": 2}', "duplicate_keys"), ("[" * 50_000, "malformed_json")]
)
@pytest.mark.parametrize("column", ["tools", "messages"])
def test_text_that_is_no_json_has_one_reason_wherever_it_stands(tmp_path, lines, column, text, reason):
    sound = {"messages": TALK, "label": True}
    record = {**sound, column: text}
    settings = {"messages": "messages"} if column == "messages" else {}
    assert read(lines(sound, record), **settings).metrics["quarantined"] == {reason: 1}

"""`ktodata run --dry-run` reads: what the files are, what became of their records, the first row as it will be trained on."""

import json
import sys

import pytest

from ktodata import cli

RECIPE = """
name: small
ingest: {{paths: [thumbs.jsonl], label: {{column: thumb, up: true, down: false}}{more}}}
steps:
  - validate:
{train}
"""


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe of five records, of which two have a label that is set aside or unknown."""
    thumbs = ["up", "down", "up", None, "meh"]
    records = [{"prompt": f"Question {n}?", "completion": f"Answer {n}.", "thumb": t, "mood": 1} for n, t in enumerate(thumbs)]
    (tmp_path / "thumbs.jsonl").write_text("\n".join(json.dumps(record) for record in records))

    def write(more="", train=""):
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE.format(more=more, train=train))
        return path

    return write


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["ktodata", "run", *map(str, words), "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0


def test_it_says_how_the_feedback_is_read(recipe, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, recipe(), "--out", tmp_path / "run") == 0
    out = capsys.readouterr().out
    for words in (
        "thumbs.jsonl: ",
        "5 records",
        "3 became 3 rows",
        "label unmapped",
        "mood 3",
        "2 desirable",
        "Question 0?",
        "Answer 0.",
    ):
        assert words in out
    assert not (tmp_path / "run").exists()


def test_the_first_row_goes_through_the_template(recipe, tmp_path, monkeypatch, capsys):
    path = recipe(train='train: {model: "packaged:smollm2-135m-instruct"}')
    assert run(monkeypatch, path, "--out", tmp_path / "run", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["as_trained_on"] is True
    assert "<|im_start|>user\nQuestion 0?<|im_end|>" in value["first_row"]
    assert value["reading"]["quarantined"] == {"label_unmapped": 1, "unlabelled": 1}


def test_nothing_that_can_be_read_is_exit_code_1(recipe, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, recipe(more=", prompt: nowhere"), "--out", tmp_path / "run") == 1
    assert "nowhere" in capsys.readouterr().err


def test_rows_of_one_label_are_pointed_out(recipe, monkeypatch, capsys):
    path = recipe()
    path.write_text(path.read_text().replace("{column: thumb, up: true, down: false}", "{column: mood, at_least: 1}"))
    assert run(monkeypatch, path) == 0
    out = capsys.readouterr().out
    assert "5 desirable, 0 undesirable (1 and above is desirable, all below undesirable). All rows have one label" in out

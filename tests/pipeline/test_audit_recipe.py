"""What `ktodata audit` is given: a file with the settings of a recipe's ingest, or a recipe."""

import json
import re
import shlex

import polars as pl
import pytest

from ktodata import cli
from ktodata.errors import KtodataError, RecipeError, SettingError
from ktodata.pipeline.audit_recipe import audit_recipe, command_with_reviews, is_audit
from ktodata.pipeline.recipe import load_recipe
from ktodata.pipeline.run_folder import Run

LABEL = {"column": "thumb", "up": True, "down": False}


def records():
    for n in range(40):
        yield {
            "question": f"How do I cook dish {n}?",
            "answer": f"Heat the pan for {n} minutes." if n % 2 else f"I know nothing of dish {n}.",
            "thumb": "up" if n % 2 else "down",
            "when": f"{1 + n % 28:02}/03/2026",
            "key": f"k{n}",
            "where": "app",
        }


@pytest.fixture
def export(tmp_path):
    """A semicolon file with a warehouse's own column names."""
    pl.DataFrame(list(records())).write_csv(tmp_path / "export.csv", separator=";")
    return tmp_path / "export.csv"


@pytest.fixture
def ktodata(monkeypatch, capsys):
    def ktodata(*arguments):
        monkeypatch.setattr("sys.argv", ["ktodata", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return ktodata


RECIPE = """\
name: support
seed: 3
ingest:
  paths: [export.csv]
  prompt: question
  completion: answer
  label: {column: thumb, up: true, down: false}
  created_at: {column: when, format: "%d/%m/%Y"}
  source_id: key
  source: where
steps:
  - dedupe: {near: 0.7}
  - label_noise: {min_precision: 0.9}
  - rebalance
"""


def _check_command(ktodata, folder):
    """The command that the desk ends with reads and audits as the one that made the folder, and takes the verdicts."""
    made = Run(folder)
    (folder.parent / "verdicts.csv").write_text(f"row_id,trusted_label\n{made.feedback['row_id'][0]},true\n")
    command = shlex.split(command_with_reviews(made, folder.parent / "verdicts.csv"))
    assert is_audit(made) and command[:2] == ["ktodata", "audit"]
    before = made.manifest["recipe"]
    code, _, err = ktodata(*command[1:])
    assert code == 0, err
    after = Run(folder).manifest["recipe"]
    assert {**after, "reviews": [], "ingest": {**after["ingest"], "paths": 0}} == {
        **before,
        "ingest": {**before["ingest"], "paths": 0},
    }
    assert len(after["reviews"]) == 1


def test_options_and_a_recipe_read_the_same_rows(ktodata, export, tmp_path):
    (tmp_path / "support.yaml").write_text(RECIPE)
    options = ("--prompt", "question", "--completion", "answer", "--label", "thumb", "--up", "up", "--down", "down")
    options += ("--source-id", "key", "--source", "where", "--set", 'created_at={column: when, format: "%d/%m/%Y"}')
    code, _, err = ktodata("audit", export, *options, "--out", tmp_path / "typed", "--set", "ingest.delimiter=;")
    assert code == 0, err
    _check_command(ktodata, tmp_path / "typed")
    code, _, err = ktodata("audit", tmp_path / "support.yaml", "--out", tmp_path / "recipe")
    assert code == 0, err
    typed, from_recipe = (pl.read_parquet(tmp_path / name / "audit.parquet").sort("row_id") for name in ("typed", "recipe"))
    assert typed.height == 40
    of_recipe = shlex.split(command_with_reviews(Run(tmp_path / "recipe"), tmp_path / "v.csv"))
    assert of_recipe[2].endswith("support.yaml") and of_recipe[-1].endswith("v.csv")
    columns = ["row_id", "prompt", "completion", "label", "created_at", "source_id", "source"]
    assert typed.select(columns).equals(from_recipe.select(columns))
    steps = Run(tmp_path / "recipe").manifest["recipe"]["steps"]
    settings = {name: given for step in steps for name, given in step.items()}
    assert list(settings) == ["validate", "dedupe", "embed", "label_noise"]
    assert (settings["dedupe"]["near"], settings["label_noise"]["min_precision"], settings["label_noise"]["seed"]) == (
        0.7,
        0.9,
        3,
    )


def test_a_meaning_for_several_values_and_one_value_for_one_option(ktodata, export, tmp_path):
    """Each --up and --down counts; of two columns for one thing none is taken without a word."""
    lines = export.read_text().splitlines()
    export.write_text(
        "\n".join([lines[0], *(line.replace("up", "great", 1) if n % 2 else line for n, line in enumerate(lines[1:]))])
    )
    options = ("--prompt", "question", "--completion", "answer", "--label", "thumb", "--set", "ingest.delimiter=;")
    given = (*options, "--up", "up", "--up", "great", "--down", "down", "--out", tmp_path / "several")
    code, _, err = ktodata("audit", export, *given)
    assert code == 0, err
    assert pl.read_parquet(tmp_path / "several" / "audit.parquet").height == 40
    code, _, err = ktodata("audit", export, *options, "--label", "when", "--up", "up", "--down", "down")
    assert code == 2 and "--label is given 2 times, and takes one value" in err


def test_conversations_as_text_in_a_cell(ktodata, tmp_path):
    turns = [[{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}] for row in records()]
    thumbs = [row["thumb"] == "up" for row in records()]
    pl.DataFrame({"chat": [json.dumps(turn) for turn in turns], "ok": thumbs}).write_csv(tmp_path / "chats.csv")
    given = ("--messages", "chat", "--set", "label={column: ok, 'true': true, 'false': false}")
    code, _, err = ktodata("audit", tmp_path / "chats.csv", *given, "--out", tmp_path / "audit")
    assert code == 0, err
    assert pl.read_parquet(tmp_path / "audit" / "audit.parquet").height == 40


def test_what_is_typed_stands_before_the_recipe(export, tmp_path):
    (tmp_path / "support.yaml").write_text(RECIPE)
    typed = {"label_noise": {"min_precision": 0.7}, "hidden_states": {"model": "some/model"}}
    recipe = audit_recipe(
        str(tmp_path / "support.yaml"), ingest={"source": None}, steps=typed, seed=8, overrides=["dedupe.near=0.6"]
    )
    settings = {step.name: step.settings for step in recipe.steps}
    assert list(settings) == ["validate", "dedupe", "embed", "hidden_states", "label_noise"]
    assert settings["label_noise"]["min_precision"] == 0.7 and settings["dedupe"]["near"] == 0.6
    assert recipe.seed == 8 and recipe.ingest.settings["source"] is None and recipe.folder == tmp_path


@pytest.mark.parametrize("change", ["ingest.promt=x", "dedup.near=1", "label_noise.folds=no", "ingest.format=3", "seed=-1"])
def test_errors_are_those_of_run(tmp_path, change):
    (tmp_path / "support.yaml").write_text(RECIPE)
    with pytest.raises(KtodataError) as of_run:
        load_recipe(tmp_path / "support.yaml", overrides=[change])
    with pytest.raises(KtodataError) as of_audit:
        audit_recipe(str(tmp_path / "support.yaml"), ingest={}, steps={}, overrides=[change])
    assert type(of_audit.value) is type(of_run.value)
    # an audit has steps of its own: their numbers and names are others
    texts = [re.sub(r"step \d+ ", "", str(error.value)).partition("Known:")[0] for error in (of_audit, of_run)]
    assert texts[0] == texts[1]


def test_a_recipe_that_is_none_is_said(ktodata, tmp_path):
    with pytest.raises(RecipeError, match="there is no recipe"):
        audit_recipe(str(tmp_path / "none.yaml"), ingest={}, steps={})
    for text, words in (("name: x\nsteps: [validate]\n", "no ingest"), ("ingest: {paths: a}\nsteps: [validat]\n", "validat")):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(RecipeError, match=words):
            audit_recipe(str(tmp_path / "r.yaml"), ingest={}, steps={})
    code, _, err = ktodata("audit", tmp_path / "r.yaml", "--up", "good")
    assert code == 1 and "--label" in err
    with pytest.raises(SettingError, match="from: langfuse"):
        audit_recipe("rows.jsonl", ingest={}, steps={}, overrides=["from=langfuse"])


def test_parts_that_a_recipe_keeps_are_kept(tmp_path):
    (tmp_path / "r.yaml").write_text("name: r\ningest: {paths: [a.csv], split: fold}\nsteps: [{split: {given: true}}]\n")
    recipe = audit_recipe(str(tmp_path / "r.yaml"), ingest={}, steps={})
    assert [step.name for step in recipe.steps] == ["validate", "dedupe", "split", "embed", "label_noise"]
    assert recipe.ingest.settings["join_parts"] is False

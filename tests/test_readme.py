"""What the README shows is what happens: its Python runs, its recipe passes the check, its commands and files exist."""

import re
from pathlib import Path

import polars as pl
import pytest
from ruamel.yaml import YAML
from tiny_models import tiny_llama, word_tokenizer

import ktodata as kd
from ktodata.cli import app
from ktodata.pipeline.recipe import load_recipe

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_python_blocks_run(tmp_path):
    audit, training = blocks("python")
    scope: dict = {}
    exec(compile(audit, "README.md", "exec"), scope)
    assert scope["audit"].columns.height > 500
    assert {"p_desirable", "label_quality"} <= set(scope["audit"].columns.columns)

    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    tiny_llama(len(tokenizer)).save_pretrained(tmp_path)
    # forty of those rows in place of a run, and a tiny model in place of one from the Hub
    scope["forty"] = scope["feedback"].filter(pl.col("label").is_not_null()).head(40)
    told = training.replace('"runs/support"', "forty").replace('"HuggingFaceTB/SmolLM2-135M-Instruct"', repr(str(tmp_path)))
    assert told != training
    exec(compile(told, "README.md", "exec"), scope)
    assert scope["fitted"].per_row().filter(part="train").height == scope["fitted"].metrics["train"]["rows"] > 30


@pytest.mark.parametrize("text", blocks("yaml"))
def test_recipes_pass_the_check(text):
    assert load_recipe(YAML(typ="safe", pure=True).load(text)).train["epochs"] == 1


def test_commands_are_those_of_the_command_line():
    shown = set(re.findall(r"`ktodata ([a-z]+)\b", TEXT)) | set(re.findall(r"`([a-z]+) RUN`", TEXT))
    assert shown == {command.name or command.callback.__name__ for command in app.registered_commands}


def test_make_targets_and_links_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", TEXT):
        assert f"\n{target}:" in makefile
    for link in re.findall(r"\]\((?!http)([^)]+)\)", TEXT):
        assert (ROOT / link).exists(), link


def test_what_a_run_leaves_is_there(tmp_path):
    """The tree in the README, but for model and evaluation, which a run without training does not have."""
    plan = {
        "name": "x",
        "ingest": {"paths": [str(kd.datasets.sample_path())], "label": {"column": "thumb", "up": True, "down": False}},
    }
    run = kd.run({**plan, "steps": ["validate", "dedupe", "split"]}, out=tmp_path / "run")
    tree = re.search(r"runs/support/\n(.*?)```", TEXT, flags=re.DOTALL)
    assert tree is not None
    names = set(re.findall(r"(?:^|\s{2,})([\w.]+(?:\.\w+|/))(?=\s{2,})", tree[1])) - {"model/", "evaluation.json"}
    assert {"manifest.json", "ledger.parquet", "shards/", "report.html"} <= names
    for name in names:
        assert (run.folder / name).exists(), name

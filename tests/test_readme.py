"""What the README and the pages that it leads to show is what happens: Python runs, commands and files exist."""

import re
import shlex
from pathlib import Path

import polars as pl
import typer
from tiny_models import tiny_llama, word_tokenizer

import ktodata as kd
from ktodata.cli import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_it_can_be_read_in_a_minute():
    assert len(TEXT.splitlines()) <= 150


def test_the_audit_in_python_runs():
    (audit,) = blocks("python")
    scope: dict = {}
    exec(compile(audit, "README.md", "exec"), scope)
    assert scope["audit"].rows.height > 500
    assert {"p_desirable", "label_quality"} <= set(scope["audit"].rows.columns)


def page_blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / name).read_text(), flags=re.DOTALL)


def test_stage_by_stage_and_training_run_as_the_pages_show_them(tmp_path):
    stages = next(block for block in page_blocks("python.md") if "label_noise" in block)
    (training,) = page_blocks("training.md")
    scope: dict = {}
    exec(compile(stages, "python.md", "exec"), scope)
    assert scope["audit"].columns.height > 500
    assert {"p_desirable", "label_quality"} <= set(scope["audit"].columns.columns)

    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    tiny_llama(len(tokenizer)).save_pretrained(tmp_path)
    # forty of those rows in place of a run, and a tiny model in place of one from the Hub
    scope["forty"] = scope["feedback"].filter(pl.col("label").is_not_null()).head(40)
    told = training.replace('"runs/support"', "forty").replace('"HuggingFaceTB/SmolLM2-135M-Instruct"', repr(str(tmp_path)))
    assert told != training
    exec(compile(told, "training.md", "exec"), scope)
    assert scope["fitted"].per_row().filter(part="train").height == scope["fitted"].metrics["train"]["rows"] > 30


def test_every_command_that_is_shown_can_be_given():
    """Names and options exist and have values of the right type; nothing is run."""
    group = typer.main.get_command(app)
    shown = [line.partition("#")[0] for block in blocks("bash") for line in block.splitlines() if line.startswith("ktodata ")]
    assert len(shown) >= 5
    for line in shown:
        name, *arguments = shlex.split(line)[1:]
        group.commands[name].make_context(name, arguments)


def test_the_table_of_commands_has_each_once():
    table = (ROOT / "docs" / "commands.md").read_text()
    shown = set(re.findall(r"`ktodata ([a-z]+)\b", table)) | set(re.findall(r"`([a-z]+) RUN`", table))
    assert shown == {command.name or command.callback.__name__ for command in app.registered_commands}


def test_make_targets_and_links_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", TEXT):
        assert f"\n{target}:" in makefile
    for link in re.findall(r"\]\((?!http)([^)]+)\)", TEXT):
        assert (ROOT / link.partition("#")[0]).exists(), link


def test_what_a_run_leaves_is_there(tmp_path):
    """The tree in docs/a-run.md, but for model and evaluation, which a run without training does not have."""
    plan = {
        "name": "x",
        "ingest": {"paths": [str(kd.datasets.sample_path())], "label": {"column": "thumb", "up": True, "down": False}},
    }
    run = kd.run({**plan, "steps": ["validate", "dedupe", "split"]}, out=tmp_path / "run")
    tree = re.search(r"runs/support/\n(.*?)```", (ROOT / "docs" / "a-run.md").read_text(), flags=re.DOTALL)
    assert tree is not None
    names = set(re.findall(r"(?:^|\s{2,})([\w.]+(?:\.\w+|/))(?=\s{2,})", tree[1])) - {"model/", "evaluation.json"}
    assert {"manifest.json", "ledger.parquet", "shards/", "report.html"} <= names
    for name in names:
        assert (run.folder / name).exists(), name

"""What a run says while it trains and evaluates, and what its page and the terminal say afterwards."""

import json

import pytest
from tiny_models import save_tiny_llama, text_rows
from typer.testing import CliRunner

import ktodata as kd
from ktodata import progress
from ktodata.cli import app
from ktodata.pipeline.command_texts import run_text

texts = []  # (stage, how far it is) of that run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> kd.Run:
    """A recipe that trains on 57 rows, three of them undesirable."""
    folder = tmp_path_factory.mktemp("rare")
    rows = [{**row, "label": number % 20 != 7} for number, row in enumerate(text_rows(57).to_dicts())]
    (folder / "feedback.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    recipe = {
        "name": "rare",
        "ingest": {"paths": [str(folder / "feedback.jsonl")]},
        "steps": [{"dedupe": {"near": 1.0}}, {"split": {"validation": 0.0, "test": 0.2}}],
        "train": {"model": save_tiny_llama(folder / "tiny"), "batch_size": 8, "device": "cpu"},
        "evaluate": {"generate": 0, "bootstrap": 100, "device": "cpu"},
    }
    events = []
    done = kd.run(recipe, out=folder / "run", notify=events.append)
    texts[:] = [(event["stage"], event["text"]) for event in events if event["kind"] == "progress"]
    return done


def test_labels_that_do_not_count_the_same_stand_on_the_page_and_in_the_terminal(run):
    page, text = (run.folder / "report.html").read_text(encoding="utf-8"), run_text(run, None)
    for code in ("KD064", "KD066"):
        finding = next(each for each in run.stage("train").metrics["findings"] if each["code"] == code)
        assert finding["status"] == "issue"
        assert f"{code}  {finding['text']}" in text
        assert f"<code>{code}</code>" in page
    assert "KD065" not in text


def test_a_run_says_how_far_its_evaluation_is(run):
    said = [text for stage, text in texts if stage == "evaluate"]
    rows = run.stage("evaluate").metrics["rows"]
    for model in ("base", "trained"):
        assert said.count(f"{model} model: is read") == said.count(f"{model} model: 0 of {rows} rows") == 1
        assert any(text.startswith(f"{model} model: {rows} of {rows} rows, ") and text.endswith(" rows/s") for text in said)


def test_so_does_the_command(run, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)  # a log hears of it now and then
    shown = CliRunner().invoke(app, ["evaluate", str(run.folder)])
    assert shown.exit_code == 0
    assert "evaluate: base model: " in shown.stderr and "evaluate: trained model: " in shown.stderr
    for_scripts = CliRunner().invoke(app, ["evaluate", str(run.folder), "--json"])
    events = [json.loads(line) for line in for_scripts.stderr.splitlines()]
    assert {(event["stage"], event["kind"]) for event in events} == {("evaluate", "progress")}

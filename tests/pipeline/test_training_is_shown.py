"""What a run says while it trains and evaluates, and what its page and the terminal say afterwards."""

import json

import pytest
from tiny_models import save_tiny_llama, text_rows

import ktodata as kd
from ktodata.pipeline.command_texts import run_text


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
    return kd.run(recipe, out=folder / "run")


def test_labels_that_do_not_count_the_same_stand_on_the_page_and_in_the_terminal(run):
    page, text = (run.folder / "report.html").read_text(encoding="utf-8"), run_text(run, None)
    for code in ("KD064", "KD066"):
        finding = next(each for each in run.stage("train").metrics["findings"] if each["code"] == code)
        assert finding["status"] == "issue"
        assert f"{code}  {finding['text']}" in text
        assert f"<code>{code}</code>" in page
    assert "KD065" not in text

